//! Pieces of one length from those of another: frames, steps, and what libraries work in.

use crate::audio::format::{FRAME_SAMPLES, STEP_SAMPLES, Step};
use crate::audio::process::CHUNK;

/// What waits of one's own sound for a recording, in samples, before a frame comes: the clock of steps follows others' frames
/// by up to 200 ppm, so that this is used up in 100 s at the earliest.
const AHEAD: usize = FRAME_SAMPLES;
/// Most that waits.
const WAITING: usize = 4 * FRAME_SAMPLES;

/// What is played, in the chunks of the canceller's reference. Each sample gets there once, and in order.
pub(super) struct Reference {
    chunk: [f32; CHUNK],
    len: usize,
}

const _: () = assert!(CHUNK.is_multiple_of(STEP_SAMPLES));

impl Default for Reference {
    fn default() -> Self {
        Self { chunk: [0.0; CHUNK], len: 0 }
    }
}

impl Reference {
    /// Takes a step; gives a chunk when one is whole.
    pub fn push(&mut self, step: &Step) -> Option<&[f32; CHUNK]> {
        // A chunk is a whole number of steps.
        self.chunk[self.len..self.len + STEP_SAMPLES].copy_from_slice(step);
        self.len = (self.len + STEP_SAMPLES) % CHUNK;
        (self.len == 0).then_some(&self.chunk)
    }
}

/// One's own sound on its way into a recording: it comes by frames, and is wanted by steps. It is [`AHEAD`] behind, by which
/// either clock may run ahead of the other without a gap, and set right in pauses. Where there are none for minutes, it is
/// set right by a gap in the recording, or by leaving out single samples.
pub(super) struct Said {
    samples: [f32; WAITING],
    len: usize,
    /// There was less than was wanted.
    is_dry: bool,
}

impl Default for Said {
    fn default() -> Self {
        Self { samples: [0.0; WAITING], len: 0, is_dry: true }
    }
}

impl Said {
    /// Takes a frame. The oldest goes when there are more than four of the longest.
    pub fn push(&mut self, frame: &[f32], is_pause: bool) {
        // A step more or less is what one of the two clocks happened to be first with.
        let is_off = is_pause && self.len.abs_diff(AHEAD) > STEP_SAMPLES;
        let surplus = if is_off { self.len.saturating_sub(AHEAD).min(frame.len()) } else { 0 };
        let frame = &frame[surplus..];
        if (std::mem::take(&mut self.is_dry) || is_off) && self.len < AHEAD {
            self.samples[self.len..AHEAD].fill(0.0);
            self.len = AHEAD;
        }
        self.drop_oldest((self.len + frame.len()).saturating_sub(WAITING));
        self.samples[self.len..self.len + frame.len()].copy_from_slice(frame);
        self.len += frame.len();
    }

    /// The next step; silence when there is none.
    pub fn pop(&mut self) -> Step {
        let mut step = [0.0; STEP_SAMPLES];
        let there = self.len.min(STEP_SAMPLES);
        self.is_dry |= there < STEP_SAMPLES;
        step[..there].copy_from_slice(&self.samples[..there]);
        self.drop_oldest(there);
        step
    }

    fn drop_oldest(&mut self, count: usize) {
        self.samples.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::Frame;

    #[test]
    fn the_reference_gets_every_sample_once_and_in_order() {
        let (mut reference, mut got) = (Reference::default(), Vec::<f32>::new());
        for n in 0..9 {
            let step = std::array::from_fn(|i| (n * STEP_SAMPLES + i) as f32);
            got.extend(reference.push(&step).into_iter().flatten());
        }
        assert_eq!(got, (0..8 * STEP_SAMPLES).map(|n| n as f32).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_said_comes_out_by_steps_and_the_oldest_goes_when_nobody_takes_it() {
        let frame = |n: usize| -> Frame { std::array::from_fn(|i| (n * FRAME_SAMPLES + i + 1) as f32) };
        let mut said = Said::default();
        assert_eq!(said.pop(), [0.0; STEP_SAMPLES]);
        said.push(&frame(0), false);
        let steps = |said: &mut Said, count: usize| (0..count).flat_map(|_| said.pop()).collect::<Vec<f32>>();
        assert_eq!(steps(&mut said, 4), [0.0; AHEAD]);
        assert_eq!(said.pop()[..], frame(0)[..STEP_SAMPLES]);
        (1..=4).for_each(|n| said.push(&frame(n), false));
        assert_eq!(steps(&mut said, 16), [frame(1), frame(2), frame(3), frame(4)].concat());
        assert_eq!(said.pop(), [0.0; STEP_SAMPLES]);
    }

    #[test]
    fn what_the_clocks_part_by_is_set_right_in_pauses_and_never_in_speech() {
        for period in [19, 21] {
            let (mut said, mut heard) = (Said::default(), Vec::new());
            // A frame in each 20 ms, and a step in each 5 ms of a clock that is wrong by a twentieth.
            for ms in 0..2_000_usize {
                let is_pause = ms % 400 >= 200;
                if ms % 20 == 0 {
                    said.push(&[if is_pause { 0.0 } else { 1.0 }; FRAME_SAMPLES], is_pause);
                }
                if ms * 4 % period < 4 {
                    heard.extend(said.pop());
                }
            }
            let spoken: Vec<usize> = heard.split(|s| *s == 0.0).map(<[f32]>::len).filter(|len| *len > 0).collect();
            assert!(spoken.len() >= 4, "{period}: {spoken:?}");
            assert!(spoken.iter().all(|len| *len == 10 * FRAME_SAMPLES), "{period}: {spoken:?}");
        }
    }
}
