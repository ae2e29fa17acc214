//! What to play where a frame is missing and a later one has come, within what a tick has time for.

use crate::audio::codec::{CodecError, Decoder, Effort, MAX_GAP};
use crate::audio::format::{Frame, SILENCE, STEPS};
use crate::audio::playout::REACH;

const _: () = assert!(REACH <= MAX_GAP);

/// Frames that are made up by a neural network within a frame's time, of all talkers together: 3 to 8 ms of the 20 on an
/// ordinary core. A relay that drops a packet drops the frames of everybody in it; what is beyond sounds a little worse.
const NEURAL_PER_TICK: usize = 8;

const _: () = assert!(MAX_GAP <= NEURAL_PER_TICK);

/// How many neural frames are left in this frame's time.
pub(super) struct Budget {
    left: usize,
    /// Steps until it is filled again.
    steps: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: NEURAL_PER_TICK, steps: 0 }
    }
}

impl Budget {
    /// A step begins.
    pub fn on_step(&mut self) {
        if self.steps == 0 {
            *self = Self { left: NEURAL_PER_TICK, steps: STEPS };
        }
        self.steps -= 1;
    }

    /// What one frame may cost.
    pub fn take(&mut self) -> Effort {
        if self.take_all(1) { Effort::Neural } else { Effort::Classic }
    }

    /// Takes so many frames, or none.
    fn take_all(&mut self, frames: usize) -> bool {
        let left = self.left.checked_sub(frames);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The rest of a gap that was filled at once.
pub(super) struct Mended {
    frames: Box<[Frame; MAX_GAP]>,
    /// Frames of `frames` that belong to the gap, and how many of them have been played.
    len: usize,
    played: usize,
}

impl Mended {
    pub fn new() -> Self {
        Self { frames: Box::new([SILENCE; MAX_GAP]), len: 0, played: 0 }
    }

    /// The gap is over, or has become another.
    pub fn clear(&mut self) {
        (self.len, self.played) = (0, 0);
    }

    /// Makes the next frame of a gap of `gap` frames, this one included, before `packet`.
    ///
    /// # Errors
    /// When the packet is no Opus of 20 ms; `out` is then worth nothing.
    pub fn fill(
        &mut self,
        decoder: &mut Decoder,
        packet: &[u8],
        gap: usize,
        budget: &mut Budget,
        out: &mut Frame,
    ) -> Result<(), CodecError> {
        if self.len - self.played == gap {
            out.copy_from_slice(&self.frames[self.played]);
            self.played += 1;
            return Ok(());
        }
        self.clear();
        if gap == 1 {
            return decoder.recover(packet, budget.take(), out);
        }
        let Some(frames) = self.frames.get_mut(..gap).filter(|_| budget.take_all(gap)) else {
            return decoder.conceal(Effort::Classic, out);
        };
        decoder.bridge(packet, frames)?;
        out.copy_from_slice(&frames[0]);
        (self.len, self.played) = (gap, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::codec::Encoder;
    use crate::audio::format::PACKET_LEN;

    fn packet() -> [u8; PACKET_LEN] {
        let mut packet = [0; PACKET_LEN];
        let mut encoder = Encoder::new().expect("an encoder");
        for n in 0..30 {
            let pcm = std::array::from_fn(|i| 0.3 * ((n * 960 + i) as f32 / 40.0).sin());
            encoder.encode(&pcm, &mut packet).expect("a packet");
        }
        packet
    }

    #[test]
    fn a_tick_has_time_for_so_many_neural_frames_and_a_gap_takes_all_of_its_own_or_none() {
        let mut budget = Budget::default();
        assert!(budget.take_all(NEURAL_PER_TICK - 1));
        assert!(!budget.take_all(2));
        assert_eq!(budget.take(), Effort::Neural);
        for _ in 0..STEPS {
            budget.on_step();
        }
        assert!(budget.take_all(NEURAL_PER_TICK), "the first step of a frame's time fills it");
        budget.on_step();
        assert_eq!(budget.take(), Effort::Neural, "and the first one of the next");
        assert!(budget.take_all(NEURAL_PER_TICK - 1));
        (1..STEPS).for_each(|_| budget.on_step());
        assert_eq!(budget.take(), Effort::Classic);
    }

    #[test]
    fn a_gap_is_made_once_and_played_frame_by_frame() {
        let (mut decoder, mut mended, packet) = (Decoder::new().expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut budget = Budget::default();
        let mut out = SILENCE;
        for gap in (1..=3).rev() {
            mended.fill(&mut decoder, &packet, gap, &mut budget, &mut out).expect("a frame");
            assert_eq!(out, mended.frames[3 - gap]);
        }
        assert_eq!(budget.left, NEURAL_PER_TICK - 3, "three frames were made, at once");
    }

    #[test]
    fn a_gap_that_became_shorter_is_made_anew() {
        let (mut decoder, mut mended, packet) = (Decoder::new().expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut budget = Budget::default();
        let mut out = SILENCE;
        mended.fill(&mut decoder, &packet, 5, &mut budget, &mut out).expect("a frame");
        mended.fill(&mut decoder, &packet, 2, &mut budget, &mut out).expect("a frame");
        assert_eq!((mended.len, mended.played), (2, 1));
    }

    #[test]
    fn what_there_is_no_time_for_is_concealed_and_tried_again_with_the_next_tick() {
        let (mut decoder, mut mended, packet) = (Decoder::new().expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut out = SILENCE;
        mended.fill(&mut decoder, &packet, 4, &mut Budget { left: 3, steps: 1 }, &mut out).expect("a frame");
        assert_eq!(mended.len, 0);
        mended.fill(&mut decoder, &packet, 3, &mut Budget { left: 3, steps: 1 }, &mut out).expect("a frame");
        assert_eq!(mended.len, 3);
    }
}
