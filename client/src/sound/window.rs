//! The smallest value of the last few seconds, in constant space.

/// Buckets of the window. With [`BUCKET`] they make 4 s: long enough that some frame came with the least delay,
/// short enough that 200 ppm of clock drift move the result by less than a millisecond.
const BUCKETS: usize = 8;

/// Length of a bucket in nanoseconds.
const BUCKET: i64 = 500_000_000;

const EMPTY: i64 = i64::MAX;

/// A sliding minimum over buckets of time.
#[derive(Debug, Clone)]
pub(super) struct MinWindow {
    buckets: [i64; BUCKETS],
    /// Number of the newest bucket: time divided by [`BUCKET`].
    newest: i64,
}

impl MinWindow {
    /// A window without values.
    pub(super) fn new() -> Self {
        Self { buckets: [EMPTY; BUCKETS], newest: i64::MIN }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes in a value seen at `now` (nanoseconds). A `now` that goes back counts as the newest time seen.
    pub(super) fn observe(&mut self, now: i64, value: i64) {
        self.roll(now.div_euclid(BUCKET));
        let bucket = &mut self.buckets[position(self.newest)];
        *bucket = (*bucket).min(value);
    }

    fn roll(&mut self, bucket: i64) {
        if bucket <= self.newest {
            return;
        }
        if bucket.saturating_sub(self.newest) >= BUCKETS as i64 {
            self.buckets = [EMPTY; BUCKETS];
        } else {
            for passed in self.newest + 1..=bucket {
                self.buckets[position(passed)] = EMPTY;
            }
        }
        self.newest = bucket;
    }

    /// Adds `delta` to every value, after the origin of the values has moved.
    pub(super) fn shift(&mut self, delta: i64) {
        for bucket in self.buckets.iter_mut().filter(|bucket| **bucket != EMPTY) {
            *bucket = bucket.saturating_add(delta);
        }
    }

    /// The smallest value.
    pub(super) fn least(&self) -> Option<i64> {
        self.buckets.iter().copied().min().filter(|least| *least != EMPTY)
    }

    /// The second smallest of the buckets' minima: one outlier, however far, spoils one bucket only and so cannot
    /// move it. `None` until two buckets hold values.
    pub(super) fn robust_least(&self) -> Option<i64> {
        let (mut least, mut second) = (EMPTY, EMPTY);
        for value in self.buckets {
            if value < least {
                second = least;
                least = value;
            } else if value < second {
                second = value;
            }
        }
        Some(second).filter(|second| *second != EMPTY)
    }
}

fn position(bucket: i64) -> usize {
    // The remainder is in 0..BUCKETS.
    bucket.rem_euclid(BUCKETS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_value_is_forgotten_after_the_window() {
        let mut window = MinWindow::new();
        window.observe(0, 5);
        window.observe(BUCKET, 9);
        assert_eq!(window.least(), Some(5));
        window.observe(BUCKET * BUCKETS as i64, 7);
        assert_eq!(window.least(), Some(7));
        window.observe(BUCKET * 100, 8);
        assert_eq!(window.least(), Some(8));
    }

    #[test]
    fn one_outlier_does_not_move_the_robust_minimum() {
        let mut window = MinWindow::new();
        window.observe(0, 10);
        assert_eq!(window.robust_least(), None);
        window.observe(BUCKET, 11);
        window.observe(2 * BUCKET, -1_000_000);
        assert_eq!(window.robust_least(), Some(10));
    }

    #[test]
    fn shifted_window_keeps_empty_buckets_empty() {
        let mut window = MinWindow::new();
        window.observe(0, 10);
        window.shift(-3);
        assert_eq!((window.least(), window.robust_least()), (Some(7), None));
    }
}
