//! Whether somebody who is muted is speaking, and should be told. By the voice activity detector of [`sonora_agc2`], a
//! small neural network; nothing of what it hears goes anywhere.

use sonora_agc2::vad_wrapper::VoiceActivityDetectorWrapper;

use super::CHUNK;
use crate::audio::format::SAMPLE_RATE;

/// Probability from which on 10 ms are speech; the library's own gain control asks for as much.
const SPEECH: f32 = 0.95;
/// Mean square below which nothing is speech to anybody: −55 dBov.
const LEAST_POWER: f32 = 3e-6;
/// Chunks of 10 ms that are looked at together: a second.
const WINDOW: u32 = 100;
/// Of these, how many must be speech: more than a cough, less than a sentence.
const ENOUGH: u32 = 40;
/// Chunks until the next warning: half a minute. Who goes on talking to somebody in the room has been told.
const PAUSE: u32 = 3_000;

/// Listens to a microphone that is muted.
pub struct Overhearing {
    detector: VoiceActivityDetectorWrapper,
    chunk: [f32; CHUNK],
    /// Chunks of this window so far, and those of them that were speech.
    seen: u32,
    speech: u32,
    /// Chunks until a warning may be given.
    pause: u32,
    warning: bool,
}

impl Default for Overhearing {
    fn default() -> Self {
        let detector = VoiceActivityDetectorWrapper::new(sonora_simd::detect_backend(), SAMPLE_RATE as i32);
        Self { detector, chunk: [0.0; CHUNK], seen: 0, speech: 0, pause: 0, warning: false }
    }
}

impl Overhearing {
    /// A frame of the microphone, while it is muted.
    pub fn hear(&mut self, sound: &[f32]) {
        for chunk in sound.chunks_exact(CHUNK) {
            self.pause = self.pause.saturating_sub(1);
            self.seen += 1;
            self.speech += u32::from(self.is_speech(chunk));
            if self.speech >= ENOUGH && self.pause == 0 {
                self.warning = true;
                self.pause = PAUSE;
            }
            if self.seen >= WINDOW {
                (self.seen, self.speech) = (0, 0);
            }
        }
    }

    /// The microphone is not muted: who mutes it again is warned anew.
    pub fn rest(&mut self) {
        (self.seen, self.speech, self.pause, self.warning) = (0, 0, 0, false);
    }

    /// Whether there is something to warn of since this was asked last.
    pub fn take_warning(&mut self) -> bool {
        std::mem::take(&mut self.warning)
    }

    fn is_speech(&mut self, chunk: &[f32]) -> bool {
        for (scaled, sample) in self.chunk.iter_mut().zip(chunk) {
            *scaled = sample * 32_768.0;
        }
        let probability = self.detector.analyze(&self.chunk);
        let power = chunk.iter().map(|sample| sample * sample).sum::<f32>() / CHUNK as f32;
        probability >= SPEECH && power >= LEAST_POWER
    }
}
