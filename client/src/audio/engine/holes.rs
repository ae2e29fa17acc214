//! Holes in what is said, where the microphone was late: listeners conceal these frames (`docs/protocol.md` §8.4). Pure.

use std::time::Duration;

use crate::audio::format::{FrameDuration, LEVEL_SILENT, SAMPLE_RATE};

/// Samples of a millisecond.
const MILLI: usize = SAMPLE_RATE as usize / 1_000;
/// From how much of a hole on a frame is better concealed than heard, in ms. A choice: a frame that is concealed takes longer
/// than two milliseconds of silence to be right again.
const HEARD: u32 = 3;
/// For how long frames in a row are concealed: it has faded out by then.
const MOST: Duration = Duration::from_millis(100);
/// By how much what is missing in a frame is missing later in what is decoded, in ms: 1.3 of the resampler, of a device of
/// 48 kHz, and 6.5 of Opus' look-ahead, by which a packet holds what was before its frame.
const LATER: u32 = 8;
/// Most that what is done to a frame may take, in ms: so long after a frame of 20 ms a hole is still within the mask.
const MOST_DELAY: u32 = 35;

/// See the module.
pub(super) struct Holes {
    frame: FrameDuration,
    /// What comes next, by milliseconds from the lowest bit on: 1 where there is nothing.
    missing: u64,
    /// Frames concealed in a row.
    concealed: u32,
    /// Of the last frame that was whole.
    level: u8,
}

impl Holes {
    pub fn new(frame: FrameDuration) -> Self {
        Self { frame, missing: 0, concealed: 0, level: LEVEL_SILENT }
    }

    /// A frame passes of which the last `missing` samples were not there, and what was done to it took `delay`, at most
    /// [`MOST_DELAY`]: what is sent now has this level. Gives what level to say if it is better concealed.
    pub fn pass(&mut self, missing: usize, delay: Duration, level: u8) -> Option<u8> {
        let frame = u32::from(self.frame.millis());
        let missing = ((missing + MILLI / 2) as u32 / MILLI as u32).min(frame);
        let bits = |count: u32| (1_u64 << count) - 1;
        let after = LATER + (delay.as_millis() as u32).min(MOST_DELAY);
        self.missing |= bits(missing) << (frame - missing + after);
        let now = (self.missing & bits(frame)).count_ones();
        self.missing >>= frame;
        if now < HEARD {
            (self.concealed, self.level) = (0, level);
            return None;
        }
        self.concealed += 1;
        (self.concealed <= self.frame.count_in(MOST) && self.level < LEVEL_SILENT).then_some(self.level)
    }

    /// What was before has nothing to do with what comes.
    pub fn forget(&mut self) {
        *self = Self::new(self.frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    /// Which of some frames are concealed.
    fn concealed(frame: FrameDuration, delay: Duration, missing: &[usize]) -> Vec<bool> {
        let mut holes = Holes::new(frame);
        holes.pass(0, delay, 30);
        missing.iter().map(|samples| holes.pass(*samples, delay, 40).is_some()).collect()
    }

    #[test]
    fn a_frame_with_a_hole_is_concealed_at_the_level_before_it() {
        // Opus' look-ahead takes it into the next packet.
        for (missing, is_concealed) in [(480, true), (200, true), (100, false), (0, false)] {
            let all = concealed(FrameDuration::Ms10, NONE, &[missing, 0, 0]);
            assert_eq!(all, [false, is_concealed, false], "{missing}");
        }
        assert_eq!(concealed(FrameDuration::Ms20, NONE, &[960, 0, 0]), [true, true, false]);
        let mut holes = Holes::new(FrameDuration::Ms10);
        assert_eq!(holes.pass(480, NONE, 30), None, "what is sent now was there");
        assert_eq!([holes.pass(480, NONE, 50), holes.pass(0, NONE, 127)], [Some(30); 2]);
    }

    #[test]
    fn what_is_done_to_a_frame_takes_the_hole_into_a_later_one() {
        let all = concealed(FrameDuration::Ms10, Duration::from_millis(15), &[480, 0, 0, 0, 0]);
        assert_eq!(all, [false, false, true, true, false]);
        let all = concealed(FrameDuration::Ms20, Duration::from_millis(15), &[480, 0, 0, 0]);
        assert_eq!(all, [false, true, true, false]);
        let most = concealed(FrameDuration::Ms20, Duration::from_secs(9), &[960; 9]);
        assert_eq!(most.iter().filter(|is| **is).count(), 5, "{most:?}");
    }

    #[test]
    fn a_microphone_that_stays_away_is_silence_after_a_while_and_so_is_one_that_was_silent() {
        for frame in FrameDuration::ALL {
            let all = concealed(frame, NONE, &[960; 20]);
            assert_eq!(all.iter().filter(|is| **is).count(), 100 / usize::from(frame.millis()));
            let mut holes = Holes::new(frame);
            assert_eq!([holes.pass(480, NONE, LEVEL_SILENT), holes.pass(960, NONE, 30)], [None; 2]);
        }
        let mut holes = Holes::new(FrameDuration::Ms10);
        holes.pass(480, NONE, 30);
        holes.forget();
        assert_eq!(holes.pass(0, NONE, 30), None);
    }
}
