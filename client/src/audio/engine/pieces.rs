//! Pieces of one length from those of another: frames, steps, and what libraries work in.

use crate::audio::format::{FRAME_SAMPLES, STEP_SAMPLES, Step};
use crate::audio::process::CHUNK;

/// Most of one's own sound that waits for a recording, in samples: the two clocks differ by less than a frame.
const WAITING: usize = 2 * FRAME_SAMPLES;

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

/// One's own sound on its way into a recording: it comes by frames, and is wanted by steps. It is a step behind, by which
/// the clock of frames may fall back without a gap.
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
    /// Takes a frame. The oldest goes when there are more than two of the longest.
    pub fn push(&mut self, frame: &[f32]) {
        if std::mem::take(&mut self.is_dry) {
            self.samples[..STEP_SAMPLES].fill(0.0);
            self.len = STEP_SAMPLES;
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
        said.push(&frame(0));
        assert_eq!(said.pop(), [0.0; STEP_SAMPLES]);
        assert_eq!(said.pop()[..], frame(0)[..STEP_SAMPLES]);
        said.push(&frame(1));
        said.push(&frame(2));
        let got: Vec<f32> = (0..8).flat_map(|_| said.pop()).collect();
        assert_eq!(got, [frame(1), frame(2)].concat());
        assert_eq!(said.pop(), [0.0; STEP_SAMPLES]);
    }
}
