//! Adds up all other talkers, and measures levels.

use super::format::{FRAME_SAMPLES, Frame, LEVEL_SILENT, SILENCE};

/// Samples over which the gain falls when the sum exceeds full scale: 2 ms, short enough to catch the peak of a
/// syllable, long enough not to click.
const ATTACK: usize = 96;
/// How much of the gain comes back per frame: from half to all in 0.2 s.
const RELEASE: f32 = 0.05;

/// Sums frames. Up to full scale nothing is changed: a single talker passes bit by bit. Above it the gain goes down
/// for all of them together, and comes back when the sum has room again.
pub struct Mixer {
    sum: Frame,
    gain: f32,
}

impl Default for Mixer {
    fn default() -> Self {
        Self { sum: SILENCE, gain: 1.0 }
    }
}

impl Mixer {
    /// Begins the next frame.
    pub fn begin(&mut self) {
        self.sum = SILENCE;
    }

    /// Adds a talker.
    pub fn add(&mut self, frame: &Frame) {
        for (sum, sample) in self.sum.iter_mut().zip(frame) {
            *sum += sample;
        }
    }

    /// The frame, within full scale.
    pub fn finish(&mut self) -> &Frame {
        let peak = peak(&self.sum);
        let wanted = if peak > 1.0 { peak.recip() } else { 1.0 };
        if wanted < 1.0 || self.gain < 1.0 {
            self.limit(wanted);
        }
        &self.sum
    }

    fn limit(&mut self, wanted: f32) {
        let (end, over) =
            if wanted < self.gain { (wanted, ATTACK) } else { (wanted.min(self.gain + RELEASE), FRAME_SAMPLES) };
        let step = (end - self.gain) / over as f32;
        for (i, sample) in self.sum.iter_mut().enumerate() {
            let gain = if i < over { self.gain + step * i as f32 } else { end };
            // What is over in the first 2 ms is cut.
            *sample = (*sample * gain).clamp(-1.0, 1.0);
        }
        self.gain = end;
    }
}

/// Rounds to the nearest 16-bit sample; what is above full scale is cut, and what is no number is silence.
pub fn to_i16(frame: &Frame, out: &mut [i16; FRAME_SAMPLES]) {
    for (out, sample) in out.iter_mut().zip(frame) {
        *out = sample_to_i16(*sample);
    }
}

pub(super) fn sample_to_i16(sample: f32) -> i16 {
    // A conversion of floats to integers saturates, and takes NaN to 0.
    (sample * 32_768.0).round() as i16
}

/// Mean level of a frame in −dBov, 0 (loudest) to 127 (silence), as in RFC 6464 §3: 0 is the mean power of a square
/// wave at full scale.
pub fn rms_level(frame: &Frame) -> u8 {
    // In double precision, so that the quietest 16-bit sample still counts.
    let power = frame.iter().map(|s| f64::from(*s) * f64::from(*s)).sum::<f64>() / FRAME_SAMPLES as f64;
    to_level(power)
}

/// Level of the loudest sample of a frame in −dBov, 0 to 127.
pub fn peak_level(frame: &Frame) -> u8 {
    to_level(f64::from(peak(frame)).powi(2))
}

fn to_level(power: f64) -> u8 {
    if power > 0.0 { (-10.0 * power.log10()).round().clamp(0.0, f64::from(LEVEL_SILENT)) as u8 } else { LEVEL_SILENT }
}

fn peak(frame: &Frame) -> f32 {
    frame.iter().fold(0.0, |peak, sample| sample.abs().max(peak))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(amplitude: f32, cycles: f32) -> Frame {
        std::array::from_fn(|i| amplitude * (std::f32::consts::TAU * cycles * i as f32 / FRAME_SAMPLES as f32).sin())
    }

    fn mixed(mixer: &mut Mixer, frames: &[Frame]) -> Frame {
        mixer.begin();
        for frame in frames {
            mixer.add(frame);
        }
        *mixer.finish()
    }

    #[test]
    fn a_single_talker_passes_bit_by_bit_up_to_full_scale() {
        let mut mixer = Mixer::default();
        for amplitude in [1e-6, 0.1, 0.7, 1.0] {
            assert_eq!(mixed(&mut mixer, &[sine(amplitude, 7.0)]), sine(amplitude, 7.0));
        }
        assert_eq!(mixed(&mut mixer, &[]), SILENCE);
    }

    #[test]
    fn quiet_talkers_are_added_up_exactly() {
        let sum: Frame = std::array::from_fn(|i| sine(0.3, 3.0)[i] + sine(0.2, 11.0)[i]);
        assert_eq!(mixed(&mut Mixer::default(), &[sine(0.3, 3.0), sine(0.2, 11.0)]), sum);
    }

    #[test]
    fn loud_talkers_together_stay_within_full_scale_and_keep_their_shape() {
        let mut mixer = Mixer::default();
        let loud = [sine(0.9, 5.0), sine(0.9, 5.0), sine(0.9, 5.0)];
        mixed(&mut mixer, &loud);
        let settled = mixed(&mut mixer, &loud);
        let error = settled.iter().zip(sine(1.0, 5.0)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "only the gain has changed: {error}");
    }

    #[test]
    fn after_loud_talkers_the_gain_comes_back_to_exactly_one() {
        let mut mixer = Mixer::default();
        assert!(mixed(&mut mixer, &[sine(1.0, 5.0), sine(1.0, 5.0)]).iter().all(|s| s.abs() <= 1.0));
        let quiet = sine(0.5, 5.0);
        assert_ne!(mixed(&mut mixer, &[quiet]), quiet, "not at once");
        let mut last = quiet[959];
        for _ in 0..12 {
            let out = mixed(&mut mixer, &[quiet]);
            assert!((out[0] - last).abs() < 0.05, "without a step");
            last = out[959];
        }
        assert_eq!(mixed(&mut mixer, &[quiet]), quiet);
    }

    #[test]
    fn sixteen_bit_samples_survive_the_way_through_floats() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(sample_to_i16(f32::from(sample) / 32_768.0), sample);
        }
        let out = [1.0, 1.5, f32::INFINITY, -1.0, -7.0, f32::NEG_INFINITY, f32::NAN].map(sample_to_i16);
        assert_eq!(out, [32_767, 32_767, 32_767, -32_768, -32_768, -32_768, 0]);
        assert_eq!([0.4 / 32_768.0, 0.6 / 32_768.0, -0.6 / 32_768.0].map(sample_to_i16), [0, 1, -1]);
    }

    #[test]
    fn levels_follow_rfc_6464() {
        assert_eq!(rms_level(&SILENCE), 127);
        assert_eq!(peak_level(&SILENCE), 127);
        assert_eq!(rms_level(&[1.0; FRAME_SAMPLES]), 0, "a square wave at full scale");
        assert_eq!(rms_level(&[8.0; FRAME_SAMPLES]), 0);
        assert_eq!((rms_level(&sine(1.0, 8.0)), peak_level(&sine(1.0, 8.0))), (3, 0));
        assert_eq!((rms_level(&sine(0.1, 8.0)), peak_level(&sine(0.1, 8.0))), (23, 20));
        assert_eq!(rms_level(&[1.0 / 32_768.0; FRAME_SAMPLES]), 90);
        assert_eq!(rms_level(&[f32::NAN; FRAME_SAMPLES]), 127);
    }
}
