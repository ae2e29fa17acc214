//! Token buckets, which enforce rates. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use crate::core::PrefixToken;

/// What a bucket gives: so many units at once, refilled at so many per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per second in the long run; 0 gives nothing at all.
    pub per_second: u32,
    /// Units at once.
    pub burst: u32,
}

/// A token bucket, kept as the time at which it is full again (the "generic cell rate algorithm"): `None` is full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `units`, if there are that many; otherwise none.
    pub(crate) fn take(&mut self, now: Instant, units: usize, rate: Rate) -> bool {
        let (Some(cost), Some(room)) = (refill_time(units, rate), refill_time(rate.burst as usize, rate)) else {
            return false;
        };
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + cost;
        if full_at.duration_since(now) > room {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}

/// How long a bucket takes to regain `units`; `None` when it never does.
fn refill_time(units: usize, rate: Rate) -> Option<Duration> {
    let nanos = u64::try_from(units).ok()?.checked_mul(1_000_000_000)?;
    nanos.checked_div(u64::from(rate.per_second)).map(Duration::from_nanos)
}

/// A bucket for every network, in memory of a fixed size. Two networks that meet in one cell share its allowance.
pub(crate) struct PrefixBuckets {
    cells: Box<[Bucket]>,
}

impl PrefixBuckets {
    /// 64 KiB; fewer make more networks share.
    const CELLS: usize = 4_096;

    pub(crate) fn new() -> Self {
        Self { cells: vec![Bucket::default(); Self::CELLS].into_boxed_slice() }
    }

    /// Takes one unit of the network's allowance.
    pub(crate) fn take(&mut self, now: Instant, prefix: PrefixToken, rate: Rate) -> bool {
        // The remainder is below CELLS, so it fits.
        let cell = usize::try_from(prefix.0 % Self::CELLS as u64).unwrap_or(0);
        self.cells.get_mut(cell).is_some_and(|bucket| bucket.take(now, 1, rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut now = Instant::now();
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 5);
        now += Duration::from_millis(300);
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 3);
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 5);
    }

    #[test]
    fn a_bucket_gives_all_units_or_none() {
        let now = Instant::now();
        let mut bucket = Bucket::default();
        assert!(!bucket.take(now, 6, RATE));
        assert!(bucket.take(now, 4, RATE));
        assert!(!bucket.take(now, 2, RATE));
        assert!(bucket.take(now, 1, RATE));
    }

    #[test]
    fn a_rate_of_nothing_gives_nothing() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(Instant::now(), 1, Rate { per_second: 0, burst: 5 }));
        assert!(!bucket.take(Instant::now(), usize::MAX, Rate { per_second: 1, burst: u32::MAX }));
    }

    #[test]
    fn one_network_cannot_use_up_the_allowance_of_another() {
        let now = Instant::now();
        let mut buckets = PrefixBuckets::new();
        assert_eq!((0..100).filter(|_| buckets.take(now, PrefixToken(1), RATE)).count(), 5);
        assert!(buckets.take(now, PrefixToken(2), RATE));
    }
}
