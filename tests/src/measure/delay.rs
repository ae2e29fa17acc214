//! By how much one side of a recording is behind the other, chirp by chirp.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::probe::{CHIRP, Probe, RATE};

/// Longest delay that is looked for, in samples: 0.34 s, less than chirps are apart.
const LONGEST: usize = 16_320;
/// How much a sound must be like the chirp to be its echo, from 0 to 1. Chirps that are further apart than the longest
/// delay cannot be taken for each other; what is less like one has a gap in it.
const ALIKE: f64 = 0.8;
/// By how much a player may be early or late with a chirp, in samples: 50 ms.
const SLACK: usize = 2_400;
/// Length of the transforms: a window and a chirp.
const LENGTH: usize = 32_768;
/// In how much of the beginning of a recording the first chirps are looked for, in samples: 8 s.
const BEGINNING: usize = 8 * RATE as usize;
/// Chirps that must be in their places for the beginning to be found.
const FIRST: usize = 4;

/// What a recording of a probe shows.
pub struct Delays {
    /// Of the chirps that were found on both sides, in ms, in order.
    pub ms: Vec<f64>,
    /// Chirps that were played.
    pub played: usize,
}

/// The delays of a recording of both sides.
///
/// # Errors
/// When the left side does not hold the probe.
pub fn delays(probe: &Probe, left: &[f32], right: &[f32]) -> anyhow::Result<Delays> {
    let mut finder = Finder::new();
    let mut offset = beginning(&mut finder, probe, left)?;
    let (mut ms, mut played) = (Vec::new(), 0);
    for start in &probe.starts {
        let Some(chirp) = probe.samples.get(*start..start + CHIRP) else { continue };
        // The player may have stopped for a moment: everything is later from then on.
        let around = (start + offset).saturating_sub(SLACK);
        let Some(entered) = finder.find(chirp, left, around, 2 * SLACK) else { continue };
        let entered = entered.at.round() as usize;
        offset = entered - start;
        played += 1;
        let Some(said) = left.get(entered..entered + CHIRP) else { continue };
        ms.extend(
            finder
                .find(said, right, entered, LONGEST)
                .map(|heard| (heard.at - entered as f64) * 1_000.0 / f64::from(RATE)),
        );
    }
    Ok(Delays { ms, played })
}

/// By how many samples the probe begins after the recording.
fn beginning(finder: &mut Finder, probe: &Probe, left: &[f32]) -> anyhow::Result<usize> {
    let starts: Vec<usize> = probe.starts.iter().take(FIRST).copied().collect();
    let first = *starts.first().context("the probe is too short to hold a chirp")?;
    let mut from = 0;
    while from < BEGINNING {
        let chirp = &probe.samples[first..first + CHIRP];
        if let Some(found) = finder.find(chirp, left, from, LONGEST) {
            let offset = (found.at.round() as usize).saturating_sub(first);
            let is_there = |start: &usize| {
                let chirp = &probe.samples[*start..start + CHIRP];
                finder.find(chirp, left, (start + offset).saturating_sub(SLACK), 2 * SLACK).is_some()
            };
            if starts.iter().all(is_there) {
                return Ok(offset);
            }
        }
        from += LONGEST;
    }
    ensure!(left.len() > first, "the recording holds {} samples", left.len());
    anyhow::bail!("the probe is not on the left of the recording: was it played?")
}

/// Where something was found, in samples, and between them.
struct Place {
    at: f64,
}

/// Finds a chirp by cross-correlation.
struct Finder {
    forward: Arc<dyn RealToComplex<f32>>,
    back: Arc<dyn ComplexToReal<f32>>,
}

impl Finder {
    fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        Self { forward: planner.plan_fft_forward(LENGTH), back: planner.plan_fft_inverse(LENGTH) }
    }

    /// Where `chirp` is in `sound`, beginning at `from` or up to `reach` later.
    fn find(&self, chirp: &[f32], sound: &[f32], from: usize, reach: usize) -> Option<Place> {
        let window = sound.get(from..(from + reach + CHIRP).min(sound.len()))?;
        let count = window.len().checked_sub(chirp.len())?;
        let correlation = self.correlate(chirp, window)?;
        let mut energies = Energies::new(window, chirp.len());
        let own = power(chirp);
        let scores: Vec<f64> = (0..=count)
            .map(|lag| {
                let there = energies.next();
                // Silence is like nothing.
                if there < own * 1e-4 { 0.0 } else { f64::from(correlation[lag]) / (own * there).sqrt() }
            })
            .collect();
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]))?;
        if scores[best] < ALIKE {
            return None;
        }
        Some(Place { at: from as f64 + best as f64 + between(&scores, best) })
    }

    fn correlate(&self, chirp: &[f32], window: &[f32]) -> Option<Vec<f32>> {
        let mut a = self.spectrum(window)?;
        let b = self.spectrum(chirp)?;
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b.conj());
        let mut out = self.back.make_output_vec();
        self.back.process(&mut a, &mut out).ok()?;
        out.iter_mut().for_each(|sample| *sample /= LENGTH as f32);
        Some(out)
    }

    fn spectrum(&self, sound: &[f32]) -> Option<Vec<Complex<f32>>> {
        let mut input = self.forward.make_input_vec();
        input.get_mut(..sound.len())?.copy_from_slice(sound);
        let mut output = self.forward.make_output_vec();
        self.forward.process(&mut input, &mut output).ok()?;
        Some(output)
    }
}

/// Where between the samples the peak of a parabola through three of them lies, within half a sample.
fn between(scores: &[f64], best: usize) -> f64 {
    let Some([before, peak, after]) = best.checked_sub(1).and_then(|first| scores.get(first..first + 3)) else {
        return 0.0;
    };
    let bend = before - 2.0 * peak + after;
    if bend < 0.0 { (0.5 * (before - after) / bend).clamp(-0.5, 0.5) } else { 0.0 }
}

/// The energy under a window that moves on by one sample each time.
struct Energies<'a> {
    sound: &'a [f32],
    length: usize,
    at: usize,
    sum: f64,
}

impl<'a> Energies<'a> {
    fn new(sound: &'a [f32], length: usize) -> Self {
        Self { sound, length, at: 0, sum: power(&sound[..length]) }
    }

    fn next(&mut self) -> f64 {
        let sum = self.sum;
        let of = |at: usize| self.sound.get(at).map_or(0.0, |sample| f64::from(*sample).powi(2));
        self.sum = (self.sum + of(self.at + self.length) - of(self.at)).max(0.0);
        self.at += 1;
        sum
    }
}

fn power(sound: &[f32]) -> f64 {
    sound.iter().map(|sample| f64::from(*sample).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probe after some silence, and the same `lag` samples later with an error.
    fn recording(probe: &Probe, silence: usize, lag: usize, noise: f32) -> (Vec<f32>, Vec<f32>) {
        let mut left = vec![0.0; silence];
        left.extend(&probe.samples);
        let mut right = vec![0.0; lag];
        right.extend(&left);
        right.truncate(left.len());
        let mut state = 1_u32;
        right.iter_mut().for_each(|sample| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample += noise * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0);
        });
        (left, right)
    }

    #[test]
    fn a_known_shift_is_found_to_a_hundredth_of_a_millisecond() {
        let probe = Probe::new(10.0, 3);
        for (silence, lag) in [(0, 1_234), (31_007, 0), (100_000, 15_000)] {
            let (left, right) = recording(&probe, silence, lag, 0.002);
            let found = delays(&probe, &left, &right).unwrap();
            let expected = lag as f64 / 48.0;
            assert!(found.ms.iter().all(|ms| (ms - expected).abs() < 0.01), "{lag}: {:?}", found.ms);
            assert!(found.played == probe.starts.len() && found.ms.len() + 1 >= found.played, "{}", found.ms.len());
        }
    }

    #[test]
    fn a_player_that_stops_for_a_moment_changes_no_delay() {
        let probe = Probe::new(10.0, 4);
        let (mut left, mut right) = recording(&probe, 5_000, 960, 0.002);
        for side in [&mut left, &mut right] {
            side.splice(200_000..200_000, [0.0; 1_000]);
        }
        let found = delays(&probe, &left, &right).unwrap();
        assert!(found.ms.iter().all(|ms| (ms - 20.0).abs() < 0.01), "{:?}", found.ms);
        assert!(found.ms.len() + 3 >= probe.starts.len());
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let probe = Probe::new(5.0, 5);
        let (left, right) = recording(&probe, 0, 100, 0.0);
        let silence = vec![0.0; left.len()];
        assert!(delays(&probe, &left, &silence).unwrap().ms.is_empty());
        assert!(delays(&probe, &silence, &right).is_err());
        let other = Probe::new(5.0, 6);
        let far = recording(&other, 0, 100, 0.3).1;
        assert!(delays(&probe, &left, &far).unwrap().ms.len() < 3);
    }
}
