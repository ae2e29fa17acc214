//! Measuring what listeners hear: WAV files in and out, alignment, PESQ and energy over time.
//!
//! It shares no code with the client's audio engine, so that the engine is not measured by itself.

use anyhow::{Context as _, bail, ensure};
use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};
use std::path::Path;

/// Mono sound; samples are in -1.0..=1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Samples per second.
    pub rate: u32,
    /// The samples.
    pub samples: Vec<f32>,
}

impl Sound {
    /// Silence.
    pub fn silence(rate: u32, seconds: f64) -> Self {
        Self { rate, samples: vec![0.0; samples_in(rate, seconds)] }
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The part from `start` to `end`, both in seconds and cut to what there is.
    pub fn between(&self, start: f64, end: f64) -> Self {
        let end = samples_in(self.rate, end).min(self.samples.len());
        let start = samples_in(self.rate, start).min(end);
        Self { rate: self.rate, samples: self.samples[start..end].to_vec() }
    }

    /// The same sound at another rate, by a synchronous FFT resampler without added delay.
    ///
    /// # Errors
    /// When the resampler refuses the rates.
    pub fn resampled(&self, rate: u32) -> anyhow::Result<Self> {
        if rate == self.rate || self.samples.is_empty() {
            return Ok(Self { rate, samples: self.samples.clone() });
        }
        let mut resampler = Fft::<f32>::new(self.rate as usize, rate as usize, RESAMPLER_CHUNK, 1, FixedSync::Both)?;
        let input = InterleavedSlice::new(&self.samples, 1, self.samples.len())?;
        let output = resampler.process_all(&input, self.samples.len(), None)?;
        Ok(Self { rate, samples: output.take_data() })
    }

    /// As 16-bit integers, clipped.
    pub fn to_i16(&self) -> Vec<i16> {
        self.samples.iter().map(|sample| to_i16(*sample)).collect()
    }
}

/// Number of samples in a time at a rate, rounded; negative times hold none.
pub fn samples_in(rate: u32, seconds: f64) -> usize {
    (seconds.max(0.0) * f64::from(rate)).round() as usize
}

/// Reads a WAV file of 8 to 32-bit integers or 32-bit floats; several channels are averaged.
///
/// # Errors
/// When the file cannot be read or is no such WAV.
pub fn read(path: &Path) -> anyhow::Result<Sound> {
    let mut reader = hound::WavReader::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let spec = reader.spec();
    ensure!(spec.channels > 0, "{} has no channels", path.display());
    let interleaved: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>()?,
        hound::SampleFormat::Int => {
            let full_scale = (1u64 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|sample| Ok(sample? as f32 / full_scale)).collect::<hound::Result<_>>()?
        }
    };
    let channels = usize::from(spec.channels);
    let samples = interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32);
    Ok(Sound { rate: spec.sample_rate, samples: samples.collect() })
}

/// Writes a mono WAV file of 16-bit integers.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, sound: &Sound) -> anyhow::Result<()> {
    write_as(path, sound, Layout { channels: 1, bits: 16 })
}

/// How [`write_as`] lays samples out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Channels, all of them the same sound.
    pub channels: u16,
    /// Width of a sample: 8, 16, 24 or 32-bit integers.
    pub bits: u16,
}

/// Writes a WAV file of integers of the given width, the same sound on every channel.
///
/// # Errors
/// When the width is not 8, 16, 24 or 32, or the file cannot be written.
pub fn write_as(path: &Path, sound: &Sound, layout: Layout) -> anyhow::Result<()> {
    ensure!(matches!(layout.bits, 8 | 16 | 24 | 32), "no WAV has {}-bit integers", layout.bits);
    let spec = hound::WavSpec {
        channels: layout.channels,
        sample_rate: sound.rate,
        bits_per_sample: layout.bits,
        sample_format: hound::SampleFormat::Int,
    };
    let largest = ((1i64 << (layout.bits - 1)) - 1) as f64;
    let mut writer =
        hound::WavWriter::create(path, spec).with_context(|| format!("cannot write {}", path.display()))?;
    for sample in &sound.samples {
        let value = (f64::from(sample.clamp(-1.0, 1.0)) * largest).round() as i32;
        for _ in 0..layout.channels {
            writer.write_sample(value)?;
        }
    }
    writer.finalize().with_context(|| format!("cannot finish {}", path.display()))
}

/// Where one sound lies in another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// Samples by which the second sound is behind the first, at their common rate; negative if it is ahead.
    pub lag: isize,
    /// Normalised correlation at that lag, -1.0 to 1.0; near 0 when the sounds have nothing in common.
    pub score: f64,
}

/// Finds `reference` in `other` by cross-correlation, with lags of up to `max_lag` seconds either way.
///
/// It searches at a rate of 4 kHz over the first 30 s, then settles the last samples at the full rate, so that the
/// work stays bounded without an FFT.
///
/// # Errors
/// When the rates differ, or one of the sounds is empty or silent.
pub fn align(reference: &Sound, other: &Sound, max_lag: f64) -> anyhow::Result<Alignment> {
    ensure!(reference.rate == other.rate, "rates differ: {} and {}", reference.rate, other.rate);
    let searched = reference.between(0.0, MAX_SEARCHED_SECONDS);
    let heard = other.between(0.0, MAX_SEARCHED_SECONDS + max_lag);
    let rate = reference.rate.min(COARSE_RATE);
    let (coarse_reference, coarse_other) = (searched.resampled(rate)?, heard.resampled(rate)?);
    let furthest = samples_in(rate, max_lag) as isize;
    let coarse = best_lag(&coarse_reference.samples, &coarse_other.samples, -furthest..=furthest)
        .context("cannot align silence")?;
    let ratio = f64::from(reference.rate) / f64::from(rate);
    let around = (coarse.lag as f64 * ratio).round() as isize;
    let reach = ratio.ceil() as isize + 1;
    best_lag(&searched.samples, &heard.samples, around - reach..=around + reach).context("cannot align silence")
}

/// PESQ-WB (ITU-T P.862.2) of what was heard against what was said, as MOS-LQO from 1.0 to 4.64.
///
/// Both are resampled to 16 kHz and aligned within `max_lag` seconds first; what hangs over at either end is cut.
///
/// # Errors
/// When they cannot be aligned, overlap by under a second, or hold no speech.
pub fn pesq_wb(reference: &Sound, heard: &Sound, max_lag: f64) -> anyhow::Result<f64> {
    let (reference, heard) = (reference.resampled(PESQ_RATE)?, heard.resampled(PESQ_RATE)?);
    let alignment = align(&reference, &heard, max_lag)?;
    let (reference_start, heard_start) = overlap_start(alignment.lag);
    let length = reference.samples.len().saturating_sub(reference_start);
    let length = length.min(heard.samples.len().saturating_sub(heard_start));
    if length < PESQ_RATE as usize {
        bail!("the sounds overlap by {length} samples of {PESQ_RATE} a second, which is too short for PESQ");
    }
    let cut = |sound: &Sound, start: usize| sound.to_i16()[start..start + length].to_vec();
    let score = pesq::pesq_wb(&cut(&reference, reference_start), &cut(&heard, heard_start))?;
    Ok(f64::from(score))
}

/// Root mean square of each whole window of 20 ms, 0.0 to 1.0.
pub fn rms_20ms(sound: &Sound) -> Vec<f64> {
    sound.samples.chunks_exact(samples_in(sound.rate, WINDOW_SECONDS).max(1)).map(rms).collect()
}

/// Root mean square of samples, 0.0 to 1.0; 0.0 when there are none.
pub fn rms(samples: &[f32]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    (energy(samples) / samples.len() as f64).sqrt()
}

/// The share of `talker` in `mix`, both at one rate, over the time they overlap at the best lag: the score of
/// [`align`], and 0.0 where there is nothing to align because one is silent.
///
/// # Errors
/// When the rates differ or resampling fails.
pub fn presence(talker: &Sound, mix: &Sound, max_lag: f64) -> anyhow::Result<f64> {
    ensure!(talker.rate == mix.rate, "rates differ: {} and {}", talker.rate, mix.rate);
    if rms(&talker.samples) == 0.0 || rms(&mix.samples) == 0.0 {
        return Ok(0.0);
    }
    Ok(align(talker, mix, max_lag)?.score)
}

/// First samples of the overlap in reference and other.
fn overlap_start(lag: isize) -> (usize, usize) {
    if lag >= 0 { (0, lag.unsigned_abs()) } else { (lag.unsigned_abs(), 0) }
}

/// The lag of the highest normalised correlation; none when no lag has sound on both sides.
fn best_lag(reference: &[f32], other: &[f32], lags: std::ops::RangeInclusive<isize>) -> Option<Alignment> {
    let least = energy(reference).min(energy(other)) * LEAST_OVERLAP_ENERGY;
    let mut best: Option<Alignment> = None;
    for lag in lags {
        let (from_reference, from_other) = overlap_start(lag);
        let (Some(a), Some(b)) = (reference.get(from_reference..), other.get(from_other..)) else {
            continue;
        };
        let length = a.len().min(b.len());
        let (a, b) = (&a[..length], &b[..length]);
        let (energy_a, energy_b) = (energy(a), energy(b));
        // A sliver of overlap can correlate by chance.
        if energy_a <= least || energy_b <= least {
            continue;
        }
        let score = dot(a, b) / (energy_a * energy_b).sqrt();
        if best.is_none_or(|best| score > best.score) {
            best = Some(Alignment { lag, score });
        }
    }
    best
}

fn energy(samples: &[f32]) -> f64 {
    dot(samples, samples)
}

/// Sum of products. Eight sums at once let the compiler use vector instructions, which adding floats in order does
/// not.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0f32; LANES];
    let mut total = 0f64;
    // Blocks end before an f32 sum loses precision.
    for (a, b) in a.chunks(DOT_BLOCK).zip(b.chunks(DOT_BLOCK)) {
        let (lanes_a, lanes_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = lanes_a.remainder().iter().zip(lanes_b.remainder()).map(|(x, y)| x * y).sum::<f32>();
        for (x, y) in lanes_a.zip(lanes_b) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * y[lane];
            }
        }
        total += f64::from(sums.iter().sum::<f32>() + rest);
        sums = [0.0; LANES];
    }
    total
}

fn to_i16(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16
}

/// P.862.2 is defined at this rate.
const PESQ_RATE: u32 = 16_000;
/// Keeps what makes speech distinct (the first formant and below 2 kHz) at a 144th of the work of 48 kHz.
const COARSE_RATE: u32 = 4_000;
/// Bounds the work: 120,000 coarse samples by the lags allowed.
const MAX_SEARCHED_SECONDS: f64 = 30.0;
/// An overlap with under a tenth of the quieter sound's energy says nothing.
const LEAST_OVERLAP_ENERGY: f64 = 0.1;
/// One Opus frame.
const WINDOW_SECONDS: f64 = 0.02;
/// Any chunk does for whole clips; this one is a few FFTs long.
const RESAMPLER_CHUNK: usize = 1024;
/// Floats in an AVX register.
const LANES: usize = 8;
/// 512 products per lane keep f32 rounding under 1e-4 of the sum.
const DOT_BLOCK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech;

    /// Noise that is the same in every run, 48 kHz.
    fn noise(samples: usize, seed: u32) -> Sound {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        Sound { rate: 48_000, samples: (0..samples).map(|_| next()).collect() }
    }

    fn shifted(sound: &Sound, lag: isize) -> Sound {
        let (skip, pad) = overlap_start(lag);
        let mut samples = vec![0.0; pad];
        samples.extend_from_slice(&sound.samples[skip..]);
        Sound { rate: sound.rate, samples }
    }

    #[test]
    fn a_written_file_reads_back_within_its_resolution() {
        let dir = tempfile::tempdir().unwrap();
        let sound = noise(4_800, 1);
        for layout in [(1, 16), (2, 16), (2, 24), (1, 32), (1, 8)] {
            let layout = Layout { channels: layout.0, bits: layout.1 };
            let path = dir.path().join(format!("{}-{}.wav", layout.channels, layout.bits));
            write_as(&path, &sound, layout).unwrap();
            let read = read(&path).unwrap();
            assert_eq!((read.rate, read.samples.len()), (48_000, 4_800));
            let step = 2.0 / f32::from(1u16 << (layout.bits.min(15) - 1));
            for (written, read) in sound.samples.iter().zip(&read.samples) {
                assert!((written - read).abs() <= step, "{layout:?}: {written} became {read}");
            }
        }
        assert!(write_as(&dir.path().join("x.wav"), &sound, Layout { channels: 1, bits: 12 }).is_err());
    }

    #[test]
    fn a_file_that_is_no_wav_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("garbage.wav");
        std::fs::write(&path, b"RIFFgarbage").unwrap();
        assert!(read(&path).is_err());
        assert!(read(&dir.path().join("absent.wav")).is_err());
    }

    #[test]
    fn resampling_keeps_length_and_a_tone_below_the_new_limit_only() {
        let tone = |hertz: f32| {
            let sample = |n: u32| (n as f32 / 48_000.0 * hertz * std::f32::consts::TAU).sin() * 0.5;
            Sound { rate: 48_000, samples: (0..48_000).map(sample).collect() }
        };
        let kept = tone(1_000.0).resampled(16_000).unwrap();
        assert_eq!(kept.samples.len(), 16_000);
        assert!((rms(&kept.samples) - 0.5 / 2f64.sqrt()).abs() < 0.01);
        let removed = tone(11_000.0).resampled(16_000).unwrap();
        assert!(rms(&removed.samples[1_000..15_000]) < 0.001);
    }

    #[test]
    fn alignment_finds_the_exact_lag_either_way() {
        let reference = noise(96_000, 2);
        for lag in [0, 1, 959, 12_345, -1, -20_000] {
            let found = align(&reference, &shifted(&reference, lag), 0.5).unwrap();
            assert_eq!(found.lag, lag);
            assert!(found.score > 0.99, "{found:?}");
        }
    }

    #[test]
    fn sounds_with_nothing_in_common_score_low_and_silence_cannot_be_aligned() {
        let (one, other) = (noise(96_000, 3), noise(96_000, 4));
        assert!(align(&one, &other, 0.5).unwrap().score < 0.1);
        assert!(align(&one, &Sound::silence(48_000, 2.0), 0.5).is_err());
        assert!(align(&one, &other.resampled(16_000).unwrap(), 0.5).is_err());
        assert_eq!(presence(&one, &Sound::silence(48_000, 2.0), 0.5).unwrap(), 0.0);
        let mut mix = shifted(&one, 5_000);
        for (sample, more) in mix.samples.iter_mut().zip(&other.samples) {
            *sample += more;
        }
        assert!(presence(&one, &mix, 0.5).unwrap() > 0.6);
    }

    #[test]
    fn pesq_is_highest_for_the_same_speech_and_falls_with_noise() {
        let said = speech::clip(0, 8.0).unwrap();
        let same = pesq_wb(&said, &shifted(&said, 4_321), 0.5).unwrap();
        assert!(same > 4.5, "{same}");
        let mut noisy = said.clone();
        for (sample, hiss) in noisy.samples.iter_mut().zip(noise(said.samples.len(), 5).samples) {
            *sample += hiss * 0.05;
        }
        let noisy = pesq_wb(&said, &noisy, 0.5).unwrap();
        assert!(noisy < same - 1.0, "{noisy}");
    }

    #[test]
    fn windows_of_energy_follow_the_sound() {
        let mut sound = Sound::silence(48_000, 0.1);
        sound.samples[960..1_920].fill(0.5);
        assert_eq!(rms_20ms(&sound), vec![0.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(rms(&[]), 0.0);
    }
}
