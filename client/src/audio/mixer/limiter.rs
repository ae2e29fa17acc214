//! Keeps a sum within full scale, softly. The gain curve is that of WebRTC's limiter, by [`sonora_agc2`]. Its estimate of
//! levels and its loop over the samples are made for 10 ms at a time, and here it is a step.

use sonora_agc2::common::MAX_ABS_FLOAT_S16_VALUE;
use sonora_agc2::interpolated_gain_curve::InterpolatedGainCurve;

use crate::audio::format::{SAMPLE_RATE, STEP_SAMPLES, Step};

/// Samples with a level of their own: half a millisecond.
const PART: usize = SAMPLE_RATE as usize / 2_000;
/// Such parts in a step.
const PARTS: usize = STEP_SAMPLES / PART;
/// What is left of a level after half a millisecond without a peak: it falls by 1 dB in 20 ms, as in WebRTC.
const DECAY: f32 = 0.997_125_9;
/// Power by which the gain falls within the first part of a step. The others know half a millisecond before that a peak
/// comes; for this one it must have fallen almost at once.
const ATTACK: i32 = 8;

const _: () = assert!(PARTS * PART == STEP_SAMPLES);

/// Leaves what is quieter than −0.75 dBFS as it is, bit by bit, and keeps what is louder within full scale. Looks no
/// further ahead than the step it is given, so it adds no delay.
pub struct Limiter {
    curve: InterpolatedGainCurve,
    level: f32,
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { curve: InterpolatedGainCurve::default(), level: 0.0, gain: 1.0 }
    }
}

impl Limiter {
    /// Limits a step in place. Allocates nothing.
    pub fn limit(&mut self, sound: &mut Step) {
        let peaks = peaks(sound);
        for (n, part) in sound.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
            // A gain that is to fall begins to one part before the peak.
            let peak = peaks[n].max(peaks.get(n + 1).copied().unwrap_or(0.0));
            self.level = if peak > self.level { peak } else { peak + DECAY * (self.level - peak) };
            self.scale(part, self.level * MAX_ABS_FLOAT_S16_VALUE, n == 0);
        }
    }

    fn scale(&mut self, part: &mut [f32; PART], level: f32, is_first: bool) {
        let (before, after) = (self.gain, self.curve.look_up_gain_to_apply(level));
        self.gain = after;
        if before == 1.0 && after == 1.0 {
            return;
        }
        let power = if is_first && after < before { ATTACK } else { 1 };
        for (i, sample) in part.iter_mut().enumerate() {
            let rest = (1.0 - i as f32 / PART as f32).powi(power);
            *sample = (*sample * (after + (before - after) * rest)).clamp(-1.0, 1.0);
        }
    }
}

/// The loudest sample of each part.
fn peaks(sound: &Step) -> [f32; PARTS] {
    let parts = sound.as_chunks::<PART>().0;
    std::array::from_fn(|n| parts[n].iter().fold(0.0, |peak, sample| sample.abs().max(peak)))
}
