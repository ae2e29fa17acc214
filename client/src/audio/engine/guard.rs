//! Keeps what comes out of a decoder as loud as it went into the encoder. Pure.
//!
//! With all redundancy inside (`Redundancy::SENT`), little of a packet is left for its own frame, and Opus' model of speech can
//! become unstable over what is none: a chirp of 60 ms between 300 and 5,000 Hz comes out 26 dB louder, at full scale. With
//! less redundancy it does not, and bursts of loss stay gaps. Each frame says how loud it was, inside its ciphertext, and
//! whoever listens need not hear it louder than that.

use std::time::Duration;

use crate::audio::format::{FrameDuration, LEVEL_SILENT};
use crate::audio::mixer;

/// For how long levels count: half a second and more, longer than any frame is held.
const WINDOW: Duration = Duration::from_millis(640);
/// The most frames of that time.
const FRAMES: usize = FrameDuration::Ms10.count_in(WINDOW) as usize;
/// How much louder a frame may be than the loudest of these, in dB. A choice: room for what encoding and concealing do, and for
/// the encoder's look-ahead, which takes sound into the frame after.
const MARGIN: u8 = 9;

/// See the module.
pub(super) struct Guard {
    levels: [u8; FRAMES],
    /// How many of these are used.
    len: usize,
    at: usize,
}

impl Guard {
    pub(super) fn new(frame: FrameDuration) -> Self {
        Self { levels: [LEVEL_SILENT; FRAMES], len: frame.count_in(WINDOW) as usize, at: 0 }
    }

    /// A frame came that was so loud before it was encoded, in −dBov.
    pub(super) fn note(&mut self, level: u8) {
        self.levels[self.at] = level;
        self.at = (self.at + 1) % self.len;
    }

    /// Takes a decoded frame down to what it may be. Gives its level then, in −dBov.
    pub(super) fn limit(&self, frame: &mut [f32]) -> u8 {
        let loudest = self.levels.iter().copied().min().unwrap_or(LEVEL_SILENT);
        let level = mixer::rms_level(frame);
        let excess = loudest.saturating_sub(level).saturating_sub(MARGIN);
        if excess > 0 {
            let gain = 10_f32.powf(-f32::from(excess) / 20.0);
            frame.iter_mut().for_each(|sample| *sample *= gain);
        }
        level + excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::FRAME_SAMPLES;

    #[test]
    fn a_frame_much_louder_than_all_that_was_said_is_taken_down_and_others_are_left_alone() {
        let mut guard = Guard::new(FrameDuration::Ms20);
        guard.note(40);
        guard.note(60);
        let quiet = [0.02; FRAME_SAMPLES];
        let mut frame = quiet;
        assert_eq!(guard.limit(&mut frame), mixer::rms_level(&quiet));
        assert_eq!(frame, quiet, "6 dB above");
        let mut blast = [1.0; FRAME_SAMPLES];
        assert_eq!(guard.limit(&mut blast), 40 - MARGIN);
        assert_eq!(mixer::rms_level(&blast), 40 - MARGIN);
        for _ in 0..FRAMES {
            guard.note(60);
        }
        let mut frame = quiet;
        guard.limit(&mut frame);
        assert_eq!(mixer::rms_level(&frame), 60 - MARGIN, "the loud one is long ago");
    }
}
