//! What to play where a frame is missing and a later one has come, within what a tick has time for.

use crate::audio::codec::{CodecError, Decoder, Effort, MAX_GAP};
use crate::audio::format::{FRAME_SAMPLES, FrameDuration, STEPS, samples};
use crate::audio::playout::reach;

const _: () = assert!(reach(FrameDuration::Ms20) * samples(FrameDuration::Ms20) <= MAX_GAP);
const _: () = assert!(reach(FrameDuration::Ms10) * samples(FrameDuration::Ms10) <= MAX_GAP);

/// Samples that are made up by a neural network within 20 ms, of all talkers together: 3 to 8 ms of the 20 on an ordinary
/// core. A relay that drops a packet drops the frames of everybody in it; what is beyond sounds a little worse.
const NEURAL: usize = 8 * FRAME_SAMPLES;
/// These 20 ms, in steps.
const PERIOD: usize = STEPS;

const _: () = assert!(MAX_GAP <= NEURAL);

/// How many neural samples are left in this time.
pub(super) struct Budget {
    left: usize,
    /// Steps until it is filled again.
    steps: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: NEURAL, steps: 0 }
    }
}

impl Budget {
    /// A step begins.
    pub fn on_step(&mut self) {
        if self.steps == 0 {
            *self = Self { left: NEURAL, steps: PERIOD };
        }
        self.steps -= 1;
    }

    /// What a frame of so many samples may cost.
    pub fn take(&mut self, samples: usize) -> Effort {
        if self.take_all(samples) { Effort::Neural } else { Effort::Classic }
    }

    /// Takes so many samples, or none.
    fn take_all(&mut self, samples: usize) -> bool {
        let left = self.left.checked_sub(samples);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The rest of a gap that was filled at once.
pub(super) struct Mended {
    sound: Box<[f32]>,
    /// Samples of `sound` that belong to the gap, and how many of them have been played.
    len: usize,
    played: usize,
}

impl Mended {
    pub fn new() -> Self {
        Self { sound: vec![0.0; MAX_GAP].into(), len: 0, played: 0 }
    }

    /// The gap is over, or has become another.
    pub fn clear(&mut self) {
        (self.len, self.played) = (0, 0);
    }

    /// Makes the next frame of a gap of `gap` frames, this one included, before `packet`.
    ///
    /// # Errors
    /// When the packet is no Opus of as long as `out`, which is then worth nothing.
    pub fn fill(
        &mut self,
        decoder: &mut Decoder,
        packet: &[u8],
        gap: usize,
        budget: &mut Budget,
        out: &mut [f32],
    ) -> Result<(), CodecError> {
        let samples = gap * out.len();
        if self.len - self.played == samples {
            out.copy_from_slice(&self.sound[self.played..][..out.len()]);
            self.played += out.len();
            return Ok(());
        }
        self.clear();
        if gap == 1 {
            return decoder.recover(packet, budget.take(out.len()), out);
        }
        let Some(sound) = self.sound.get_mut(..samples).filter(|_| budget.take_all(samples)) else {
            return decoder.conceal(Effort::Classic, out);
        };
        decoder.bridge(packet, sound)?;
        out.copy_from_slice(&sound[..out.len()]);
        (self.len, self.played) = (samples, out.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::codec::Encoder;
    use crate::audio::format::{Frame, PACKET_LEN, SILENCE};

    fn packet() -> [u8; PACKET_LEN] {
        let mut packet = [0; PACKET_LEN];
        let mut encoder = Encoder::new(FrameDuration::Ms20).expect("an encoder");
        for n in 0..30 {
            let pcm: Frame = std::array::from_fn(|i| 0.3 * ((n * 960 + i) as f32 / 40.0).sin());
            encoder.encode(&pcm, &mut packet).expect("a packet");
        }
        packet
    }

    #[test]
    fn a_tick_has_time_for_so_many_neural_frames_and_a_gap_takes_all_of_its_own_or_none() {
        let mut budget = Budget::default();
        assert!(budget.take_all(NEURAL - FRAME_SAMPLES));
        assert!(!budget.take_all(2 * FRAME_SAMPLES));
        assert_eq!(budget.take(FRAME_SAMPLES), Effort::Neural);
        for _ in 0..STEPS {
            budget.on_step();
        }
        assert!(budget.take_all(NEURAL), "the first step of a frame's time fills it");
        budget.on_step();
        assert_eq!(budget.take(FRAME_SAMPLES), Effort::Neural, "and the first one of the next");
        assert!(budget.take_all(NEURAL - FRAME_SAMPLES));
        (1..STEPS).for_each(|_| budget.on_step());
        assert_eq!(budget.take(FRAME_SAMPLES), Effort::Classic);
    }

    #[test]
    fn a_gap_is_made_once_and_played_frame_by_frame() {
        let (mut decoder, mut mended, packet) =
            (Decoder::new(FrameDuration::Ms20).expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut budget = Budget::default();
        let mut out = SILENCE;
        for gap in (1..=3).rev() {
            mended.fill(&mut decoder, &packet, gap, &mut budget, &mut out).expect("a frame");
            assert_eq!(out, mended.sound[(3 - gap) * FRAME_SAMPLES..][..FRAME_SAMPLES]);
        }
        assert_eq!(budget.left, NEURAL - 3 * FRAME_SAMPLES, "three frames were made, at once");
    }

    #[test]
    fn a_gap_that_became_shorter_is_made_anew() {
        let (mut decoder, mut mended, packet) =
            (Decoder::new(FrameDuration::Ms20).expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut budget = Budget::default();
        let mut out = SILENCE;
        mended.fill(&mut decoder, &packet, 5, &mut budget, &mut out).expect("a frame");
        mended.fill(&mut decoder, &packet, 2, &mut budget, &mut out).expect("a frame");
        assert_eq!((mended.len, mended.played), (2 * FRAME_SAMPLES, FRAME_SAMPLES));
    }

    #[test]
    fn what_there_is_no_time_for_is_concealed_and_tried_again_with_the_next_tick() {
        let (mut decoder, mut mended, packet) =
            (Decoder::new(FrameDuration::Ms20).expect("a decoder"), Mended::new(), packet());
        decoder.decode(&packet, &mut SILENCE.clone()).expect("sound");
        let mut out = SILENCE;
        mended
            .fill(&mut decoder, &packet, 4, &mut Budget { left: 3 * FRAME_SAMPLES, steps: 1 }, &mut out)
            .expect("a frame");
        assert_eq!(mended.len, 0);
        mended
            .fill(&mut decoder, &packet, 3, &mut Budget { left: 3 * FRAME_SAMPLES, steps: 1 }, &mut out)
            .expect("a frame");
        assert_eq!(mended.len, 3 * FRAME_SAMPLES);
    }
}
