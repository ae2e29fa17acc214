//! Quantiles from a histogram.

/// The value that a fraction `q` of what was counted doesn't exceed; `counts` has one bucket for each of the ascending
/// `bounds` and one for what is beyond. Within a bucket values are taken to lie evenly, so the result is off by less than
/// its bucket is wide; what is beyond the last bound counts as being there. Nothing if nothing was counted.
pub(super) fn quantile(bounds: &[f64], counts: &[u64], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let rank = q * total as f64;
    let lowers = std::iter::once(&0.0).chain(bounds);
    let (mut below, mut found) = (0, None);
    for ((lower, upper), count) in lowers.zip(bounds).zip(counts).filter(|(_, count)| **count > 0) {
        let share = (rank - below as f64) / *count as f64;
        below += count;
        found = Some(lower + (upper - lower) * share.clamp(0.0, 1.0));
        if below as f64 >= rank {
            return found;
        }
    }
    // The rest is beyond.
    bounds.last().copied().filter(|_| total > 0).or(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 3] = [1.0, 2.0, 4.0];

    fn of(counts: [u64; 4], q: f64) -> Option<f64> {
        quantile(&BOUNDS, &counts, q)
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(of([0; 4], 0.5), None);
    }

    #[test]
    fn values_lie_evenly_within_their_bucket() {
        assert_eq!(of([0, 0, 8, 0], 0.5), Some(3.0));
        assert_eq!(of([0, 0, 8, 0], 1.0), Some(4.0));
        assert_eq!(of([4, 0, 0, 0], 0.25), Some(0.25));
    }

    #[test]
    fn rank_counts_over_all_buckets() {
        let counts = [50, 40, 10, 0];
        assert_eq!(of(counts, 0.5), Some(1.0));
        assert_eq!(of(counts, 0.7), Some(1.5));
        assert_eq!(of(counts, 0.95), Some(3.0));
    }

    #[test]
    fn what_is_beyond_counts_as_the_last_bound() {
        assert_eq!(of([1, 0, 0, 99], 0.5), Some(4.0));
        assert_eq!(of([0, 0, 0, 1], 0.5), Some(4.0));
    }
}
