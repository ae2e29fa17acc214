//! How often packets come. Every time the loop wakes up costs more than to take in what it is woken for, so it looks for
//! reasons not to. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use super::bundle::BUSY;

/// Whoever is woken up again within that time has others to wait for.
const OFTEN: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Default)]
pub(super) struct Rhythm {
    /// When frames came last.
    frames: Option<Instant>,
    /// When packets last woke the loop up.
    woken: Option<Instant>,
}

impl Rhythm {
    /// Packets have woken the loop up; whether they do so often.
    pub(super) fn on_packets(&mut self, now: Instant) -> bool {
        self.woken.replace(now).is_some_and(|woken| now.saturating_duration_since(woken) < OFTEN)
    }

    /// Frames have come.
    pub(super) fn on_frames(&mut self, now: Instant) {
        self.frames = Some(now);
    }

    /// Until when nobody need wake up for what can wait: more frames should come before, if any came.
    pub(super) fn expects_frames_until(&self) -> Option<Instant> {
        self.frames.map(|frames| frames + BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_often_if_the_last_ones_are_near() {
        let (mut rhythm, start) = (Rhythm::default(), Instant::now());
        let often = [0, 5, 6, 8, 20].map(|at| rhythm.on_packets(start + Duration::from_millis(at)));
        assert_eq!(often, [false, false, true, false, false]);
    }

    #[test]
    fn frames_are_expected_for_a_while_after_the_last() {
        let (mut rhythm, start) = (Rhythm::default(), Instant::now());
        assert_eq!(rhythm.expects_frames_until(), None);
        rhythm.on_frames(start);
        assert_eq!(rhythm.expects_frames_until(), Some(start + BUSY));
    }
}
