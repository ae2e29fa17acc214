//! Converts whole recordings from one rate to another.

use audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, ResampleError, Resampler, ResamplerConstructionError, WindowFunction};

/// Least samples in a block of the resampler, at the lower of both rates. More are sharper at the edge of the band and
/// cost delay, which does not matter here: it is cut off.
const BLOCK: u32 = 1_024;

/// Why a recording cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The rates do not go together.
    #[error("{0}")]
    Rates(#[from] ResamplerConstructionError),
    /// The resampler refused a chunk.
    #[error("{0}")]
    Chunk(#[from] ResampleError),
}

/// Converts a stream of samples. The output begins when the input began, and loses nothing at its end.
pub(super) struct Converter {
    fft: Option<Fft<f32>>,
    ratio: (u64, u64),
    pushed: u64,
    /// Samples of the next chunk.
    input: Vec<f32>,
    filled: usize,
    output: Vec<f32>,
    /// Delay of the resampler still to be cut off.
    delay: usize,
    /// Samples given out.
    given: u64,
}

impl Converter {
    /// A converter between two rates in Hz.
    pub fn new(from: u32, to: u32) -> Result<Self, Failed> {
        let fft = if from == to {
            None
        } else {
            let window = WindowFunction::BlackmanHarris2;
            Some(Fft::new_custom(from as usize, to as usize, block(from, to), 1, 1, window, FixedSync::Both)?)
        };
        let (input, output, delay) = fft
            .as_ref()
            .map_or((1, 0, 0), |fft| (fft.input_frames_next(), fft.output_frames_max(), fft.output_delay()));
        let ratio = (u64::from(to), u64::from(from));
        let (input, output) = (vec![0.0; input], vec![0.0; output]);
        Ok(Self { fft, ratio, pushed: 0, input, filled: 0, output, delay, given: 0 })
    }

    /// Takes a sample, and gives what has become ready to `sink`.
    pub fn push(&mut self, sample: f32, sink: &mut impl FnMut(f32)) -> Result<(), Failed> {
        self.pushed += 1;
        if self.fft.is_none() {
            sink(sample);
            return Ok(());
        }
        if let Some(place) = self.input.get_mut(self.filled) {
            *place = sample;
        }
        self.filled += 1;
        if self.filled >= self.input.len() { self.convert(u64::MAX, sink) } else { Ok(()) }
    }

    /// Gives the rest.
    pub fn finish(mut self, sink: &mut impl FnMut(f32)) -> Result<(), Failed> {
        let (to, from) = self.ratio;
        let due = (self.pushed * to).div_ceil(from);
        while self.fft.is_some() && self.given < due {
            self.input[self.filled..].fill(0.0);
            self.convert(due, sink)?;
        }
        Ok(())
    }

    /// Converts a chunk; gives no more than `due` samples in all.
    fn convert(&mut self, due: u64, sink: &mut impl FnMut(f32)) -> Result<(), Failed> {
        let Some(fft) = &mut self.fft else { return Ok(()) };
        self.filled = 0;
        let (taken, capacity) = (self.input.len(), self.output.len());
        let too_short = || ResampleError::InsufficientInputBufferSize { expected: taken, actual: capacity };
        let input = InterleavedSlice::new(&self.input, 1, taken).map_err(|_| too_short())?;
        let mut output = InterleavedSlice::new_mut(&mut self.output, 1, capacity).map_err(|_| too_short())?;
        let (_, made) = fft.process_into_buffer(&input, &mut output, None)?;
        let cut = self.delay.min(made);
        self.delay -= cut;
        for sample in self.output.iter().take(made).skip(cut) {
            if self.given < due {
                self.given += 1;
                sink(*sample);
            }
        }
        Ok(())
    }
}

/// Samples of a block at rate `from`: a multiple of the shortest stretch that is whole at both rates. An even one,
/// since the resampler's delay is half a block and would else be off by half a sample.
fn block(from: u32, to: u32) -> usize {
    let common = greatest_common_divisor(from, to);
    let shorter = from.min(to) / common;
    let even = BLOCK.div_ceil(shorter.saturating_mul(2).max(1)) as usize * 2;
    (from / common) as usize * even
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
pub(super) fn converted(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let mut out = Vec::new();
    let mut converter = Converter::new(from, to).unwrap();
    for sample in samples {
        converter.push(*sample, &mut |s| out.push(s)).unwrap();
    }
    converter.finish(&mut |s| out.push(s)).unwrap();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst of 500 Hz under a bell around `centre` seconds.
    fn burst(rate: u32, seconds: f64, centre: f64) -> Vec<f32> {
        (0..(f64::from(rate) * seconds) as usize)
            .map(|i| {
                let t = i as f64 / f64::from(rate) - centre;
                (0.5 * (-(t / 0.004).powi(2)).exp() * (std::f64::consts::TAU * 500.0 * t).cos()) as f32
            })
            .collect()
    }

    #[test]
    fn sound_stays_where_and_what_it_was() {
        for from in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 47_999, 48_000, 88_200, 96_000, 192_000] {
            let before = burst(from, 0.5, 0.123);
            let (out, wanted) = (converted(&before, from, 48_000), burst(48_000, 0.5, 0.123));
            assert_eq!(out.len(), (before.len() * 48_000).div_ceil(from as usize), "{from}");
            let error = out.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-3, "{from}: {error}");
        }
    }

    #[test]
    fn what_is_at_the_very_end_and_the_very_beginning_is_kept() {
        for from in [8_000, 44_100, 192_000] {
            for centre in [0.02, 0.48] {
                let (out, wanted) = (converted(&burst(from, 0.5, centre), from, 48_000), burst(48_000, 0.5, centre));
                let error = out.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 2e-3, "{from}, {centre}: {error}");
            }
        }
    }

    #[test]
    fn lengths_are_exact_even_for_a_few_samples() {
        for (len, from, wanted) in [(1, 8_000, 6), (1, 192_000, 1), (7, 44_100, 8), (441, 44_100, 480), (0, 8_000, 0)] {
            assert_eq!(converted(&vec![0.25; len], from, 48_000).len(), wanted, "{len} at {from}");
        }
    }
}
