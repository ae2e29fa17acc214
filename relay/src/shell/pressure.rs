//! Whether more is to be sent than can be. Pure.

use std::time::Duration;

/// Frames after which one counts for a third: a tenth of a second of a relay that is full.
const REMEMBERED: f32 = 4_096.0;
/// From this share of frames dropped on it is not a hiccup.
const TOO_MUCH: f32 = 0.02;

/// See the module.
#[derive(Default)]
pub(super) struct Pressure {
    dropped: f32,
}

impl Pressure {
    /// So many frames were late when their turn came, and so many were not.
    pub(super) fn note(&mut self, late: u64, timely: u64) {
        for (count, value) in [(late, 1.0), (timely, 0.0)] {
            let weight = (count as f32 / REMEMBERED).min(1.0);
            self.dropped += (value - self.dropped) * weight;
        }
    }

    /// The age beyond which a frame is dropped. A hiccup is caught up with; under a load that stays, every frame that is
    /// sent would be as old as that, and later still by what it waited for before it was read and while others were sent.
    pub(super) fn deadline(&self, usual: Duration) -> Duration {
        if self.dropped > TOO_MUCH { usual * 7 / 8 } else { usual }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(20);

    #[test]
    fn a_hiccup_changes_nothing_and_a_load_that_stays_makes_the_deadline_shorter_until_it_is_gone() {
        let mut pressure = Pressure::default();
        let mut rounds = |late: u64, timely: u64, count: usize| {
            (0..count).for_each(|_| pressure.note(late, timely));
            pressure.deadline(USUAL)
        };
        assert_eq!(rounds(0, 5, 10_000), USUAL);
        assert_eq!(rounds(5, 0, 15), USUAL, "75 frames of a hiccup");
        assert_eq!(rounds(0, 5, 10_000), USUAL);
        assert_eq!(rounds(1, 9, 2_000), Duration::from_micros(17_500));
        assert_eq!(rounds(0, 10, 2_000), USUAL);
    }

    #[test]
    fn the_share_stays_between_none_and_all_whatever_is_noted_at_once() {
        let mut pressure = Pressure::default();
        for (late, timely) in [(u64::MAX, 0), (0, 1), (1, u64::MAX)] {
            pressure.note(late, timely);
            assert!((0.0..=1.0).contains(&pressure.dropped), "{}", pressure.dropped);
        }
    }
}
