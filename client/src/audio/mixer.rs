//! Adds up all other talkers, each as loud as the listener wants, and measures levels.

pub mod comfort;
mod limiter;

use super::format::{FRAME_SAMPLES, LEVEL_SILENT, STEP_SAMPLES, Step};
use limiter::Limiter;

/// How loud a talker is played.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Volume {
    percent: u16,
}

impl Volume {
    /// Loudest, in percent of the amplitude: +12 dB, for who is hardly heard.
    pub const MAX_PERCENT: u16 = 400;
    /// As the talker's own program sent it.
    pub const UNCHANGED: Self = Self { percent: 100 };

    /// `None` above [`Volume::MAX_PERCENT`].
    pub fn new(percent: u16) -> Option<Self> {
        (percent <= Self::MAX_PERCENT).then_some(Self { percent })
    }

    /// In percent of the amplitude.
    pub fn percent(self) -> u16 {
        self.percent
    }

    fn gain(self) -> f32 {
        f32::from(self.percent) / 100.0
    }
}

/// A talker's gain on its way to the volume that is wanted.
pub struct Fader {
    gain: f32,
    volume: Volume,
    /// What a sample changes, and how many still do.
    slope: f32,
    left: usize,
}

impl Default for Fader {
    fn default() -> Self {
        Self { gain: 1.0, volume: Volume::UNCHANGED, slope: 0.0, left: 0 }
    }
}

impl Fader {
    /// Goes there within the next 20 ms that are mixed, so that it does not click.
    pub fn set(&mut self, volume: Volume) {
        (self.volume, self.left) = (volume, FRAME_SAMPLES);
        self.slope = (volume.gain() - self.gain) / FRAME_SAMPLES as f32;
    }

    /// The gain of the next sample.
    fn next(&mut self) -> f32 {
        if self.left > 0 {
            self.left -= 1;
            // At the end exactly what is wanted.
            self.gain = if self.left == 0 { self.volume.gain() } else { self.gain + self.slope };
        }
        self.gain
    }
}

/// Sums steps. What is quieter than −0.75 dBFS passes bit by bit; above it a limiter keeps the sum within full scale.
pub struct Mixer {
    sum: Step,
    limiter: Limiter,
}

impl Default for Mixer {
    fn default() -> Self {
        Self { sum: [0.0; STEP_SAMPLES], limiter: Limiter::default() }
    }
}

impl Mixer {
    /// Begins the next step.
    pub fn begin(&mut self) {
        self.sum = [0.0; STEP_SAMPLES];
    }

    /// Adds a talker.
    pub fn add(&mut self, step: &Step, fader: &mut Fader) {
        for (sum, sample) in self.sum.iter_mut().zip(step) {
            *sum += sample * fader.next();
        }
    }

    /// The step, within full scale.
    pub fn finish(&mut self) -> &Step {
        self.limiter.limit(&mut self.sum);
        &self.sum
    }
}

/// Rounds to the nearest 16-bit sample; what is above full scale is cut, and what is no number is silence.
pub fn to_i16(sound: &[f32], out: &mut [i16]) {
    for (out, sample) in out.iter_mut().zip(sound) {
        *out = sample_to_i16(*sample);
    }
}

pub(super) fn sample_to_i16(sample: f32) -> i16 {
    // A conversion of floats to integers saturates, and takes NaN to 0.
    (sample * 32_768.0).round() as i16
}

/// Mean level of a frame or a step in −dBov, 0 (loudest) to 127 (silence), as in RFC 6464 §3: 0 is the mean power of a square
/// wave at full scale.
pub fn rms_level(frame: &[f32]) -> u8 {
    // In double precision, so that the quietest 16-bit sample still counts. One sum after the other would wait for each
    // other: this is done for every frame of every talker.
    let mut sums = [0.0_f64; LANES];
    let (lanes, rest) = frame.as_chunks::<LANES>();
    for lane in lanes {
        for (sum, sample) in sums.iter_mut().zip(lane) {
            *sum += f64::from(*sample) * f64::from(*sample);
        }
    }
    for (sum, sample) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*sample) * f64::from(*sample);
    }
    to_level(sums.iter().sum::<f64>() / frame.len().max(1) as f64)
}

/// Samples that are summed up side by side.
const LANES: usize = 16;

/// Level of the loudest sample of a frame in −dBov, 0 to 127.
pub fn peak_level(frame: &[f32]) -> u8 {
    to_level(f64::from(peak(frame)).powi(2))
}

fn to_level(power: f64) -> u8 {
    if power > 0.0 { (-10.0 * power.log10()).round().clamp(0.0, f64::from(LEVEL_SILENT)) as u8 } else { LEVEL_SILENT }
}

fn peak(frame: &[f32]) -> f32 {
    frame.iter().fold(0.0, |peak, sample| sample.abs().max(peak))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::{Frame, SILENCE};

    fn sine(amplitude: f32, cycles: f32) -> Frame {
        std::array::from_fn(|i| amplitude * (std::f32::consts::TAU * cycles * i as f32 / FRAME_SAMPLES as f32).sin())
    }

    fn mixed(mixer: &mut Mixer, frames: &[Frame]) -> Frame {
        let mut out = SILENCE;
        for (n, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            mixer.begin();
            for frame in frames {
                mixer.add(&frame.as_chunks().0[n], &mut Fader::default());
            }
            *out = *mixer.finish();
        }
        out
    }

    fn loudest(frame: &Frame) -> f32 {
        frame.iter().fold(0.0, |loudest, sample| sample.abs().max(loudest))
    }

    #[test]
    fn every_sample_counts_for_the_level_whatever_their_number() {
        assert_eq!(rms_level(&[1.0; 2 * LANES + 1]), 0);
        let mut last = [0.0; LANES + 1];
        last[LANES] = 1.0;
        assert_eq!(rms_level(&last), 12, "a seventeenth of the power is 12.3 dB less");
    }

    #[test]
    fn a_single_talker_passes_bit_by_bit_up_to_three_quarters_of_a_decibel_below_full_scale() {
        let mut mixer = Mixer::default();
        for amplitude in [1e-6, 0.1, 0.7, 0.917] {
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
        for _ in 0..10 {
            assert!(loudest(&mixed(&mut mixer, &loud)) <= 1.0);
        }
        let settled = mixed(&mut mixer, &loud);
        let top = loudest(&settled);
        let error = settled.iter().zip(sine(top, 5.0)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(top > 0.9 && error < 0.05, "mostly the gain has changed: {top}, {error}");
    }

    #[test]
    fn a_sudden_peak_is_limited_before_it_is_cut() {
        let mut mixer = Mixer::default();
        let quiet = sine(0.3, 5.0);
        mixed(&mut mixer, &[quiet]);
        let burst: Frame = std::array::from_fn(|i| if i < 500 { quiet[i] } else { 3.0 * sine(1.0, 40.0)[i] });
        let out = mixed(&mut mixer, &[burst]);
        let cut = out.windows(2).filter(|pair| pair.iter().all(|sample| sample.abs() == 1.0)).count();
        assert_eq!((loudest(&out), cut), (1.0, 0), "waves touch full scale and keep their tops");
    }

    #[test]
    fn after_loud_talkers_the_gain_comes_back_to_exactly_one_without_a_step() {
        let mut mixer = Mixer::default();
        mixed(&mut mixer, &[sine(1.0, 5.0), sine(1.0, 5.0)]);
        let quiet = sine(0.5, 5.0);
        assert_ne!(mixed(&mut mixer, &[quiet]), quiet, "not at once");
        let mut last = quiet[959];
        for _ in 0..50 {
            let out = mixed(&mut mixer, &[quiet]);
            assert!((out[0] - last).abs() < 0.05);
            last = out[959];
        }
        assert_eq!(mixed(&mut mixer, &[quiet]), quiet);
    }

    #[test]
    fn a_volume_is_reached_within_a_frame_without_a_step_and_then_kept() {
        let (mut mixer, mut fader) = (Mixer::default(), Fader::default());
        let mut mix = |fader: &mut Fader| {
            let mut out = SILENCE;
            for out in out.as_chunks_mut().0 {
                mixer.begin();
                mixer.add(&[0.2; STEP_SAMPLES], fader);
                *out = *mixer.finish();
            }
            out
        };
        assert_eq!(mix(&mut fader), [0.2; FRAME_SAMPLES]);
        for (percent, level) in [(0, 0.0), (400, 0.8), (50, 0.1), (100, 0.2)] {
            fader.set(Volume::new(percent).expect("in range"));
            let way = mix(&mut fader);
            assert!(way.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.001), "{percent}");
            let there = mix(&mut fader);
            assert!(there.iter().all(|sample| (sample - level).abs() < 1e-6), "{percent}");
        }
        assert_eq!(Volume::new(401), None);
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
