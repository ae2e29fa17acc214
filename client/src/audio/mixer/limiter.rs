//! Keeps a sum within full scale, softly. Level estimation and gain curve are those of WebRTC's limiter, by
//! [`sonora_agc2`]; its own loop over the samples allocates, so that is here.

use sonora_agc2::common::{MAX_ABS_FLOAT_S16_VALUE, SUB_FRAMES_IN_FRAME};
use sonora_agc2::fixed_digital_level_estimator::FixedDigitalLevelEstimator;
use sonora_agc2::interpolated_gain_curve::InterpolatedGainCurve;

use crate::audio::format::SAMPLE_RATE;

/// Samples that are limited at once: 10 ms.
const CHUNK: usize = SAMPLE_RATE as usize / 100;
/// Samples with a level of their own: half a millisecond.
const STEP: usize = CHUNK / SUB_FRAMES_IN_FRAME as usize;
/// Power by which the gain falls within the first step of a chunk. The others know half a millisecond before that a peak
/// comes; for this one it must have fallen almost at once.
const ATTACK: i32 = 8;

/// Leaves what is quieter than −0.75 dBFS as it is, bit by bit, and keeps what is louder within full scale. Looks no
/// further ahead than the chunk it is given, so it adds no delay.
pub struct Limiter {
    levels: FixedDigitalLevelEstimator,
    curve: InterpolatedGainCurve,
    gain: f32,
    /// In the library's scale.
    scaled: [f32; CHUNK],
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            levels: FixedDigitalLevelEstimator::new(CHUNK),
            curve: InterpolatedGainCurve::default(),
            gain: 1.0,
            scaled: [0.0; CHUNK],
        }
    }
}

impl Limiter {
    /// Limits whole chunks of 10 ms in place. Allocates nothing.
    pub fn limit(&mut self, sound: &mut [f32]) {
        for chunk in sound.chunks_exact_mut(CHUNK) {
            for (scaled, sample) in self.scaled.iter_mut().zip(chunk.iter()) {
                *scaled = sample * MAX_ABS_FLOAT_S16_VALUE;
            }
            let levels = self.levels.compute_level(&[&self.scaled]);
            for (i, (step, level)) in chunk.chunks_exact_mut(STEP).zip(levels).enumerate() {
                self.scale(step, level, i == 0);
            }
        }
    }

    fn scale(&mut self, step: &mut [f32], level: f32, is_first: bool) {
        let (before, after) = (self.gain, self.curve.look_up_gain_to_apply(level));
        self.gain = after;
        if before == 1.0 && after == 1.0 {
            return;
        }
        let power = if is_first && after < before { ATTACK } else { 1 };
        for (i, sample) in step.iter_mut().enumerate() {
            let rest = (1.0 - i as f32 / STEP as f32).powi(power);
            *sample = (*sample * (after + (before - after) * rest)).clamp(-1.0, 1.0);
        }
    }
}
