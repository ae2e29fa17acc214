//! The talker's clock as seen from here: the earliest (arrival − time of the frame) of the last seconds.
//!
//! The earliest, because a network delays but never hurries: it is the one arrival without queueing.

/// Length of a bucket in nanoseconds.
const BUCKET: i64 = 500_000_000;
/// Buckets of the window: 4 s. Shorter would take a longer jam for a change of path; longer would follow drifting
/// clocks later (200 ppm are 0.8 ms in 4 s).
const BUCKETS: usize = 8;
/// Frames in a row that must agree before a much earlier clock is believed, so that a single frame with a wrong
/// number moves nothing: 100 ms.
const CONFIRM: u32 = 5;

/// A sliding minimum of offsets, in nanoseconds since the playout's epoch.
pub(super) struct Anchor {
    buckets: [Option<Bucket>; BUCKETS],
    newest: i64,
    /// An offset that is earlier by more than this waits for confirmation.
    tolerance: i64,
    suspects: u32,
    latest_suspect: i64,
}

#[derive(Clone, Copy)]
struct Bucket {
    number: i64,
    earliest: i64,
}

impl Anchor {
    pub fn new(tolerance: i64) -> Self {
        Self { buckets: [None; BUCKETS], newest: i64::MIN, tolerance, suspects: 0, latest_suspect: i64::MIN }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.tolerance);
    }

    /// A frame came at `at` that lies `offset` after its place on the talker's clock.
    pub fn note(&mut self, at: i64, offset: i64) {
        if self.earliest().is_some_and(|known| offset < known.saturating_sub(self.tolerance)) {
            self.suspects += 1;
            self.latest_suspect = self.latest_suspect.max(offset);
            if self.suspects >= CONFIRM {
                let believed = self.latest_suspect;
                self.insert(at, believed);
            }
        } else {
            self.insert(at, offset);
        }
    }

    /// The earliest offset of the last seconds.
    pub fn earliest(&self) -> Option<i64> {
        let current = self.newest.saturating_sub(BUCKETS as i64);
        self.buckets.iter().flatten().filter(|bucket| bucket.number > current).map(|bucket| bucket.earliest).min()
    }

    fn insert(&mut self, at: i64, offset: i64) {
        self.suspects = 0;
        self.latest_suspect = i64::MIN;
        let number = at.div_euclid(BUCKET).max(self.newest);
        self.newest = number;
        // Within bounds by the remainder.
        let bucket = &mut self.buckets[number.rem_euclid(BUCKETS as i64) as usize];
        let before = bucket.filter(|bucket| bucket.number == number).map_or(i64::MAX, |bucket| bucket.earliest);
        *bucket = Some(Bucket { number, earliest: before.min(offset) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn the_earliest_of_the_window_counts_and_is_forgotten_after_it() {
        let mut anchor = Anchor::new(40 * MS);
        assert_eq!(anchor.earliest(), None);
        anchor.note(0, 30 * MS);
        anchor.note(20 * MS, 10 * MS);
        anchor.note(40 * MS, 50 * MS);
        assert_eq!(anchor.earliest(), Some(10 * MS));
        anchor.note(3_900 * MS, 50 * MS);
        assert_eq!(anchor.earliest(), Some(10 * MS));
        anchor.note(4_100 * MS, 50 * MS);
        assert_eq!(anchor.earliest(), Some(50 * MS));
    }

    #[test]
    fn one_frame_from_the_future_moves_nothing_and_five_do() {
        let mut anchor = Anchor::new(40 * MS);
        for n in 0..50 {
            anchor.note(n * 20 * MS, if n % 3 == 0 { -800 * MS } else { 5 * MS });
        }
        assert_eq!(anchor.earliest(), Some(-800 * MS), "the very first one has nothing to be compared with");
        anchor.clear();
        anchor.note(0, 5 * MS);
        for n in 1..50 {
            anchor.note(n * 20 * MS, if n % 3 == 0 { -800 * MS } else { 5 * MS });
        }
        assert_eq!(anchor.earliest(), Some(5 * MS));
        for n in 50..55 {
            assert_eq!(anchor.earliest(), Some(5 * MS));
            anchor.note(n * 20 * MS, -100 * MS - n * MS);
        }
        assert_eq!(anchor.earliest(), Some(-150 * MS), "the latest of those that agree");
    }
}
