//! Another member's sound: decoded by frames, each at the step at which it is due, and played by steps.

use std::time::Instant;

use super::Faults;
use super::guard::Guard;
use super::mending::{Budget, Mended};
use crate::audio::codec::{CodecError, Decoder, Effort};
use crate::audio::format::{Frame, LEVEL_SILENT, SILENCE, STEP_SAMPLES, steps};
use crate::audio::mixer::comfort::Comfort;
use crate::audio::mixer::{Fader, Mixer};
use crate::audio::playout::{Config, Piece, Playout, Pull};

/// Another member.
pub(super) struct Talker {
    pub playout: Playout,
    pub fader: Fader,
    pub comfort: Comfort,
    pub guard: Guard,
    /// Mean level in −dBov of what was decoded last.
    pub level: u8,
    decoder: Decoder,
    mended: Mended,
    /// Whether the last frame was heard.
    sounding: bool,
    frame: Frame,
    /// Steps of it.
    steps: usize,
    /// Which part of the frame is played next, and where what is to be heard of it ends. In steps.
    at: usize,
    end: usize,
    /// Steps until the next frame is due.
    left: usize,
}

impl Talker {
    pub fn new(index: u16, config: Config) -> Result<Self, CodecError> {
        Ok(Self {
            playout: Playout::new(config),
            decoder: Decoder::new(config.frame)?,
            fader: Fader::default(),
            comfort: Comfort::new(index, config.frame),
            guard: Guard::new(config.frame),
            mended: Mended::new(),
            sounding: false,
            level: LEVEL_SILENT,
            frame: SILENCE,
            steps: steps(config.frame),
            at: 0,
            end: 0,
            left: 0,
        })
    }

    /// Adds the step at `now` of this talker to the others'.
    pub fn step(&mut self, now: Instant, mixer: &mut Mixer, budget: &mut Budget, faults: &mut Faults) {
        if self.left == 0 {
            self.next(now, budget, faults);
        }
        self.left = self.left.saturating_sub(1);
        let part = self.frame.as_chunks::<STEP_SAMPLES>().0.get(self.at).filter(|_| self.at < self.end);
        if let Some(part) = part {
            self.at += 1;
            self.comfort.rest();
            mixer.add(part, &mut self.fader);
            return;
        }
        let mut noise = [0.0; STEP_SAMPLES];
        if self.comfort.fill(&mut noise) {
            mixer.add(&noise, &mut self.fader);
        }
    }

    /// Makes what comes next.
    fn next(&mut self, now: Instant, budget: &mut Budget, faults: &mut Faults) {
        let Piece { what, steps } = self.playout.pull(now);
        self.left = steps;
        (self.at, self.end) = (0, steps);
        let frame = &mut self.frame[..self.steps * STEP_SAMPLES];
        let heard = match what {
            Pull::Play(packet) => {
                self.mended.clear();
                let decoded = self.decoder.decode(packet, frame).is_ok();
                faults.decode += u64::from(!decoded);
                self.sounding = decoded || self.sounding;
                // What was left out is its beginning.
                (self.at, self.end) = (self.steps.saturating_sub(steps), self.steps);
                decoded || (self.sounding && self.decoder.conceal(budget.take(frame.len()), frame).is_ok())
            }
            Pull::Repair { packet, gap } => {
                self.sounding && self.mended.fill(&mut self.decoder, packet, gap, budget, frame).is_ok()
            }
            Pull::Conceal => {
                self.mended.clear();
                self.sounding && self.decoder.conceal(budget.take(frame.len()), frame).is_ok()
            }
            Pull::Muted | Pull::Silence => self.fade_out(steps * STEP_SAMPLES),
        };
        if heard {
            self.level = self.guard.limit(&mut self.frame[..self.steps * STEP_SAMPLES]);
        } else {
            self.end = self.at;
            self.level = LEVEL_SILENT;
        }
    }

    /// The first silence after sound: the sound goes on for so many samples and fades, for a cut would click. What comes
    /// later begins anew.
    fn fade_out(&mut self, samples: usize) -> bool {
        if !std::mem::take(&mut self.sounding) {
            return false;
        }
        self.mended.clear();
        let frame = &mut self.frame[..self.steps * STEP_SAMPLES];
        let concealed = self.decoder.conceal(Effort::Classic, frame).is_ok();
        if !(self.decoder.reset().is_ok() && concealed) {
            return false;
        }
        let samples = samples.clamp(1, frame.len());
        for (i, sample) in frame.iter_mut().enumerate() {
            *sample *= 1.0 - ((i + 1) as f32 / samples as f32).min(1.0);
        }
        true
    }
}
