//! The sound of what a report holds: every frame in its place, silence where there is none. Nothing is filled in.
//!
//! The reporter hears by it what is handed over, and the moderator what was said: the same samples.

use std::io::Cursor;

use anyhow::{Context, Result};
use conclave_protocol::evidence::report::opened::{SaidFrame, Timeline};
use hound::{SampleFormat, WavSpec, WavWriter};
use opus::{Channels, Decoder};

/// Samples per second: what Opus decodes to without resampling (RFC 6716 §2).
pub const SAMPLE_RATE: u32 = 48_000;

const SPEC: WavSpec =
    WavSpec { channels: 1, sample_rate: SAMPLE_RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };

/// Decoded sound.
pub struct Sound {
    /// 48 kHz, mono.
    pub samples: Vec<i16>,
    /// Frames that are proved to be the accused's, but hold no Opus. They are silent.
    pub undecodable: u32,
}

impl Sound {
    /// Decodes all frames of a timeline.
    ///
    /// # Errors
    /// When there is no decoder.
    pub fn of(timeline: &Timeline<'_>) -> Result<Self> {
        let per_frame = usize::from(timeline.frame_ms) * SAMPLE_RATE as usize / 1_000;
        let mut decoder = Decoder::new(SAMPLE_RATE, Channels::Mono).context("Opus")?;
        let mut samples = vec![0; timeline.length as usize * per_frame];
        let mut pcm = vec![0.0; per_frame];
        let (mut undecodable, mut next) = (0, 0);
        for (place, frame) in &timeline.frames {
            // The first packet after a gap says how the sound changed: added to what was heard before the gap, that
            // is a burst of noise.
            if *place != next {
                decoder.reset_state().context("Opus")?;
            }
            next = place + 1;
            let start = *place as usize * per_frame;
            let Some(out) = samples.get_mut(start..start + per_frame) else { continue };
            if frame.opus.is_empty() {
                decoder.reset_state().context("Opus")?;
            } else if decode(&mut decoder, frame, &mut pcm) {
                out.iter_mut().zip(&pcm).for_each(|(sample, value)| *sample = quantised(*value));
            } else {
                undecodable += 1;
            }
        }
        Ok(Self { samples, undecodable })
    }

    /// The bytes of a WAV file: 48 kHz, mono, 16 bits.
    ///
    /// # Errors
    /// When there are more samples than such a file can hold.
    pub fn wav(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, SPEC)?;
        for sample in &self.samples {
            writer.write_sample(*sample)?;
        }
        writer.finalize()?;
        Ok(bytes.into_inner())
    }

    /// The loudest sample of each of so many equal stretches, 0 to 1.
    pub fn peaks(&self, columns: usize) -> Vec<f32> {
        let length = self.samples.len();
        let peak = |column: usize| {
            let stretch = &self.samples[length * column / columns..length * (column + 1) / columns];
            let loudest = stretch.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
            f32::from(loudest) / 32_768.0
        };
        (0..columns).map(peak).collect()
    }
}

fn decode(decoder: &mut Decoder, frame: &SaidFrame, pcm: &mut [f32]) -> bool {
    // Asked before decoding, so that a packet of a wrong duration leaves the decoder as it was.
    let samples = opus::packet::get_nb_samples(&frame.opus, SAMPLE_RATE);
    samples.is_ok_and(|samples| samples == pcm.len())
        && decoder.decode_float(&frame.opus, pcm, false).is_ok_and(|samples| samples == pcm.len())
}

fn quantised(value: f32) -> i16 {
    // Saturates, and makes 0 of what is no number.
    (value * 32_767.0).round() as i16
}
