//! What is done to one's own sound before it is encoded: the loudspeaker's echo is taken out, then noise, then the
//! level is brought to that of speech. By [`sonora`], a port of WebRTC's processing (AEC3, NS, AGC2) to Rust.
//!
//! The reference of the echo is what is handed to the output, at the step at which it is; how much later the microphone
//! hears it is found out by the canceller itself, up to half a second. Both sides stand still while nobody listens, so
//! that the two keep their distance, but for the 50 ppm by which the clock of what is played may follow others' frames.
//!
//! `sonora` allocates some fifty small blocks in each 10 ms. It runs on the thread of the frame clock, never in a
//! device's callback, and only where it is switched on: without it the media path allocates nothing.

pub mod overhear;
#[cfg(test)]
mod tests;

use std::time::Duration;

use sonora::config::{
    AdaptiveDigital, EchoCanceller, GainController2, HighPassFilter, MaxProcessingRate, NoiseSuppression,
    NoiseSuppressionLevel, Pipeline,
};
use sonora::{AudioProcessing, Config, StreamConfig};

use super::format::SAMPLE_RATE;

/// Samples that are processed at once: 10 ms, which is what the library works in.
pub(super) const CHUNK: usize = SAMPLE_RATE as usize / 100;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Switches {
    /// What the loudspeaker plays is taken out of what the microphone hears.
    pub echo_cancellation: bool,
    /// Steady noise is made quieter by up to 18 dB.
    pub noise_suppression: bool,
    /// Speech is brought to some −22 dBov, whatever the distance to the microphone.
    pub auto_gain: bool,
}

impl Switches {
    /// Everything.
    pub const ALL: Self = Self { echo_cancellation: true, noise_suppression: true, auto_gain: true };

    /// By how much what comes out is later than what went in (`docs/audio.md`): whatever is done, the splitting into bands
    /// comes once.
    fn delay(self) -> Duration {
        let ms = u64::from(self.any()) + 8 * u64::from(self.echo_cancellation) + 6 * u64::from(self.noise_suppression);
        Duration::from_millis(ms)
    }

    fn any(self) -> bool {
        self.echo_cancellation || self.noise_suppression || self.auto_gain
    }

    fn config(self) -> Config {
        Config {
            // Without resampling, and the whole band is kept.
            pipeline: Pipeline {
                maximum_internal_processing_rate: MaxProcessingRate::Rate48kHz,
                ..Pipeline::default()
            },
            // Rumble below speech would steer everything that follows.
            high_pass_filter: Some(HighPassFilter::default()),
            echo_canceller: self.echo_cancellation.then(EchoCanceller::default),
            noise_suppression: self.noise_suppression.then(|| NoiseSuppression {
                // Of the library's four levels the third; the fourth harms speech in little noise.
                level: NoiseSuppressionLevel::High,
                ..NoiseSuppression::default()
            }),
            gain_controller2: self.auto_gain.then(|| GainController2 {
                adaptive_digital: Some(AdaptiveDigital::default()),
                ..GainController2::default()
            }),
            ..Config::default()
        }
    }
}

/// The processing of one microphone.
#[derive(Default)]
pub struct Process {
    /// `None` where everything is switched off.
    chain: Option<Chain>,
}

struct Chain {
    library: AudioProcessing,
    delay: Duration,
    cancels_echo: bool,
    /// The last frame of the microphone was processed, so what is played belongs to the next one.
    is_live: bool,
    out: [f32; CHUNK],
}

impl Process {
    /// Allocates all but what the library allocates as it goes.
    pub fn new(switches: Switches) -> Self {
        let mono = StreamConfig::new(SAMPLE_RATE, 1);
        let chain = switches.any().then(|| Chain {
            library: AudioProcessing::builder()
                .config(switches.config())
                .capture_config(mono)
                .render_config(mono)
                .build(),
            delay: switches.delay(),
            cancels_echo: switches.echo_cancellation,
            is_live: false,
            out: [0.0; CHUNK],
        });
        Self { chain }
    }

    /// Processes a frame of the microphone in place. What is behind whole chunks of 10 ms is left as it is; frames are
    /// whole.
    pub fn capture(&mut self, sound: &mut [f32]) {
        let Some(chain) = &mut self.chain else { return };
        chain.is_live = true;
        for chunk in sound.chunks_exact_mut(CHUNK) {
            // Formats are those it was built with, and it refuses nothing else.
            if chain.library.process_capture_f32(&[chunk], &mut [&mut chain.out]).is_ok() {
                chunk.copy_from_slice(&chain.out);
            }
        }
    }

    /// By how much what comes out is later than what went in.
    pub fn delay(&self) -> Duration {
        self.chain.as_ref().map_or(Duration::ZERO, |chain| chain.delay)
    }

    /// Whether echo is taken out.
    pub fn cancels_echo(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.cancels_echo)
    }

    /// No frame of the microphone is there at this tick.
    pub fn pause(&mut self) {
        if let Some(chain) = &mut self.chain {
            chain.is_live = false;
        }
    }

    /// What the output plays next.
    pub fn played(&mut self, sound: &[f32]) {
        let Some(chain) = self.chain.as_mut().filter(|chain| chain.is_live) else { return };
        for chunk in sound.chunks_exact(CHUNK) {
            // As above. What comes out is what went in.
            let _ = chain.library.process_render_f32(&[chunk], &mut [&mut chain.out]);
        }
    }
}
