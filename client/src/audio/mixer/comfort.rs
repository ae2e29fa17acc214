//! Comfort noise: what a line sounds like on which somebody is silent. Where nothing of a talker can be played though it
//! is not muted, its room would else seem to go away.
//!
//! How loud its room is, the level bytes of its frames tell, which are within the ciphertext.

use crate::audio::format::{FRAME_SAMPLES, FrameDuration, LEVEL_SILENT, SAMPLE_RATE, samples};

/// Loudest noise that is made, in −dBov: well below any speech.
const LOUDEST: f32 = 50.0;
/// Level in −dBov from which on a room is so quiet that its noise is not missed.
const QUIETEST: f32 = 85.0;
/// What the estimate rises by in 20 ms when a room gets louder: 2.5 dB/s, so that a sentence is not taken for noise.
const RISE: f32 = 0.05;
/// Share of what is new by which the estimate falls in 20 ms.
const FALL: f32 = 0.25;
/// Samples that are made after the last frame: 3 s. Who is gone for longer is not on the line.
const LAST: u32 = 3 * SAMPLE_RATE;
/// Samples over which noise begins: 10 ms.
const ONSET: f32 = SAMPLE_RATE as f32 / 100.0;
/// Weight of the newest sample in what is left after smoothing: noise without its upper octaves, as rooms have it.
const SMOOTHING: f32 = 0.25;

/// The noise of one talker's room.
pub struct Comfort {
    /// Estimate in −dBov; `None` while muted, or not heard yet.
    floor: Option<f32>,
    /// What it rises and falls by per frame.
    rise: f32,
    fall: f32,
    left: u32,
    seed: u32,
    smoothed: f32,
    /// 0 to 1.
    onset: f32,
}

impl Comfort {
    /// Of a talker that was not heard yet, with frames of this duration; talkers with other seeds have other noise.
    pub fn new(seed: u16, frame: FrameDuration) -> Self {
        let part = samples(frame) as f32 / FRAME_SAMPLES as f32;
        let (rise, fall) = (RISE * part, 1.0 - (1.0 - FALL).powf(part));
        Self { floor: None, rise, fall, left: 0, seed: u32::from(seed), smoothed: 0.0, onset: 0.0 }
    }

    /// A frame of the talker came, with this level in −dBov.
    pub fn note(&mut self, muted: bool, level: u8) {
        if muted {
            self.floor = None;
            return;
        }
        let level = f32::from(level.min(LEVEL_SILENT));
        let floor = self.floor.unwrap_or(level);
        // A larger figure is quieter.
        self.floor =
            Some(if level > floor { floor + self.fall * (level - floor) } else { (floor - self.rise).max(level) });
        self.left = LAST;
    }

    /// The talker's own sound is played.
    pub fn rest(&mut self) {
        self.onset = 0.0;
    }

    /// Fills a frame in which there is nothing of the talker to play; `false` when silence is right, and `out` is then
    /// as it was.
    pub fn fill(&mut self, out: &mut [f32]) -> bool {
        let Some(floor) = self.floor.filter(|floor| *floor < QUIETEST && self.left > 0) else { return false };
        // Mean square of smoothed uniform noise in −1..1.
        let power = SMOOTHING / (2.0 - SMOOTHING) / 3.0;
        let amplitude = 10f32.powf(-floor.max(LOUDEST) / 20.0) / power.sqrt();
        for sample in out.iter_mut() {
            self.onset = (self.onset + 1.0 / ONSET).min(1.0);
            self.left = self.left.saturating_sub(1);
            // The last second fades.
            let end = (self.left as f32 / SAMPLE_RATE as f32).min(1.0);
            self.smoothed += SMOOTHING * (self.next() - self.smoothed);
            *sample = amplitude * self.onset * end * self.smoothed;
        }
        true
    }

    /// Uniform in −1..1. Nobody relies on its quality.
    fn next(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed.cast_signed() as f32 / 2_147_483_648.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::SILENCE;
    use crate::audio::mixer::rms_level;

    fn room(levels: impl IntoIterator<Item = u8>) -> Comfort {
        let mut comfort = Comfort::new(7, FrameDuration::Ms20);
        levels.into_iter().for_each(|level| comfort.note(false, level));
        comfort
    }

    /// Level of the frame after the onset; `None` where there is none.
    fn level(comfort: &mut Comfort) -> Option<u8> {
        let mut out = SILENCE;
        comfort.fill(&mut out).then_some(())?;
        comfort.fill(&mut out).then(|| rms_level(&out))
    }

    #[test]
    fn noise_is_as_loud_as_the_talkers_pauses_and_never_loud() {
        let speech = [60, 60, 61, 60, 20, 25, 22, 24, 20, 23, 60, 61, 60, 60];
        let heard = level(&mut room(speech)).unwrap();
        assert!((57..=62).contains(&heard), "{heard}");
        assert!((49..=51).contains(&level(&mut room([20; 500])).unwrap()), "a noisy room is not copied");
        assert_eq!(level(&mut room([127; 50])), None, "digital silence stays so");
    }

    #[test]
    fn there_is_none_of_who_is_muted_or_was_never_heard() {
        assert_eq!(level(&mut Comfort::new(1, FrameDuration::Ms20)), None);
        let mut comfort = room([60; 20]);
        comfort.note(true, 127);
        assert_eq!(level(&mut comfort), None);
        comfort.note(false, 60);
        assert!(level(&mut comfort).is_some());
    }

    #[test]
    fn noise_begins_without_a_step_and_ends_after_three_seconds() {
        let mut comfort = room([55; 20]);
        let mut out = SILENCE;
        assert!(comfort.fill(&mut out) && out[0].abs() < 1e-4);
        let frames = (1..1_000).take_while(|_| comfort.fill(&mut out)).count();
        assert_eq!((frames + 1) * FRAME_SAMPLES, LAST as usize);
        assert!(out[FRAME_SAMPLES - 1].abs() < 1e-6);
    }
}
