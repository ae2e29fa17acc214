//! The line to a loudspeaker.
//!
//! A device's callback takes what it needs now, so that much must be there. A sound server asks for what it will need in a
//! while: it may be let wait ([`Player::pay`]), as long as what it still has. Then nothing needs to wait in the ring, and
//! what clocks and threads are late by is taken from what the server keeps anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer};
use rubato::{Async, FixedAsync, Resampler as _, ResamplerConstructionError};

use super::{Figures, Pulse, bend, process, resampler, ring};
use crate::audio::device::level::Level;
use crate::audio::format::{SAMPLE_RATE, STEP, STEP_SAMPLES};
use crate::realtime::Scheduling;

/// The two halves of a line to a loudspeaker of so many channels.
///
/// # Errors
/// When the rate is none that is used ([`ResamplerConstructionError`]).
pub fn playback(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    playback_with_reserve(rate, channels, scheduling, Duration::ZERO)
}

/// As [`playback`], to a server that may be let wait for so long.
pub(in crate::audio::device) fn playback_with_reserve(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
    reserve: Duration,
) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(SAMPLE_RATE, rate, STEP_SAMPLES, FixedAsync::Input)?;
    let output = vec![0.0; resampler.output_frames_max()];
    let player = Player { ring: consumer, channels: usize::from(channels.max(1)), pulse: Arc::clone(&pulse) };
    let level = Level::new(rate, pulse, scheduling);
    let capacity = producer.slots();
    let line = PlaybackLine {
        ring: producer,
        capacity,
        resampler,
        output,
        level,
        reserve: reserve.as_secs_f64(),
        started: false,
        left_out: 0,
        starved: 0,
        gaps: 0,
        skips: 0,
    };
    Ok((player, line))
}

/// The body of a playback callback.
pub struct Player {
    ring: Consumer<f32>,
    channels: usize,
    pulse: Arc<Pulse>,
}

impl Player {
    /// What is known of the callback.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Fills what the device will play, and wants at `at`, interleaved: the first two channels get the sound, others and
    /// what is missing get silence.
    pub fn on_data<S>(&mut self, data: &mut [S], at: Instant)
    where
        S: Sample + FromSample<f32>,
    {
        let frames = data.len() / self.channels;
        self.pulse.beat(frames, at);
        if self.fill(data) < frames {
            self.pulse.starved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A server asks at `at` for so many moments.
    pub(in crate::audio::device) fn on_request(&mut self, moments: usize, at: Instant) {
        self.pulse.owed.fetch_add(u32::try_from(moments).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.pulse.beat(moments, at);
    }

    /// Whether something that was asked for was not there.
    pub(in crate::audio::device) fn owes(&self) -> bool {
        self.pulse.owed.load(Ordering::Relaxed) > 0
    }

    /// Gives of what was asked for what there is, interleaved. Before the other half has begun, that is silence.
    pub(in crate::audio::device) fn pay(&mut self, data: &mut Vec<f32>) {
        let owed = self.pulse.owed.load(Ordering::Relaxed);
        let ready = if self.pulse.is_live() { self.ring.slots().min(owed as usize) } else { owed as usize };
        data.resize(ready * self.channels, 0.0);
        self.fill(data);
        // No more than was owed.
        self.pulse.owed.fetch_sub(ready as u32, Ordering::Relaxed);
    }

    /// Fills with what there is, and silence after it. Gives how many moments there were.
    fn fill<S>(&mut self, data: &mut [S]) -> usize
    where
        S: Sample + FromSample<f32>,
    {
        data.fill(S::EQUILIBRIUM);
        let ready = self.ring.slots().min(data.len() / self.channels);
        let Ok(chunk) = self.ring.read_chunk(ready) else { return 0 };
        for (moment, sample) in data.chunks_exact_mut(self.channels).zip(chunk) {
            moment.iter_mut().take(2).for_each(|place| *place = S::from_sample(sample));
        }
        ready
    }
}

/// The clocks' half.
pub struct PlaybackLine {
    pub(super) ring: Producer<f32>,
    capacity: usize,
    resampler: Async<f32>,
    /// Of one step.
    output: Vec<f32>,
    pub(super) level: Level,
    /// For how long the other end may be let wait, in seconds.
    reserve: f64,
    started: bool,
    /// Samples that are not written: less is to wait.
    left_out: usize,
    /// Of the pulse, when last looked at.
    starved: u64,
    pub(super) gaps: u64,
    pub(super) skips: u64,
}

impl PlaybackLine {
    /// Takes a step at `now`. Never waits: what comes before the device runs, or what it is too slow for, is dropped.
    pub fn write(&mut self, step: &[i16; STEP_SAMPLES], now: Instant) {
        // A device that does not run yet would have to work off what is written until it does.
        if !self.level.pulse.is_steady() {
            return;
        }
        let starved = self.level.pulse.starved() + self.level.pulse.underflows();
        if !self.started {
            self.level.pulse.begin();
            self.settle(now);
        } else if starved != self.starved {
            self.on_gap(now);
        }
        self.level.pulse.let_wait(self.target() < 0.0);
        (self.started, self.starved) = (true, starved);
        if self.fill() > self.level.surplus() {
            self.skip();
            return;
        }
        let deviation = self.ahead(now) - self.target();
        bend(&mut self.resampler, self.level.correct(deviation, STEP));
        if self.level.is_off(deviation, STEP) {
            if deviation > 0.0 {
                return self.skip();
            }
            self.settle(now);
        }
        self.push(step);
    }

    /// Gaps are the times at which the device, or the server before it, had nothing to play, skips the steps that were
    /// dropped because the device was slow.
    pub fn figures(&self) -> Figures {
        let held = (self.level.held() - self.reserve).max(0.0);
        let ms = |seconds: f64| seconds * 1_000.0;
        Figures { gaps: self.gaps, skips: self.skips, margin_ms: ms(self.level.margin()), held_ms: ms(held) }
    }

    fn push(&mut self, step: &[i16; STEP_SAMPLES]) {
        let mut input = [0.0; STEP_SAMPLES];
        input.iter_mut().zip(step).for_each(|(to, from)| *to = f32::from(*from) / 32_768.0);
        let made = process(&mut self.resampler, &input, &mut self.output);
        let left_out = self.left_out.min(made);
        self.left_out -= left_out;
        if let Some(samples) = self.output.get(left_out..made) {
            // There is room: a surplus was dropped before.
            let _ = self.ring.push_partial_slice(samples);
        }
    }

    /// A whole step is less to hear than a part of one.
    fn skip(&mut self) {
        self.skips += 1;
        self.level.refilled();
    }

    /// How much was written beyond what was asked for and played since, in seconds.
    fn ahead(&self, now: Instant) -> f64 {
        let owed = self.level.pulse.owed.load(Ordering::Relaxed);
        self.level.seconds(self.fill()) - self.level.seconds(owed as usize) - self.level.pulse.age(now)
    }

    /// What that should be.
    fn target(&self) -> f64 {
        self.level.margin() - self.reserve
    }

    /// There was a gap. More is kept from now on, or a server is let wait for less. What the gap's own cause holds up still
    /// comes.
    fn on_gap(&mut self, now: Instant) {
        self.gaps += 1;
        let before = self.level.margin();
        self.level.widen();
        if self.reserve > 0.0 {
            self.fill_up(self.level.margin() - before);
        } else {
            self.settle(now);
        }
    }

    /// Fills up with silence, or leaves out of what comes next, so that as much waits as should.
    fn settle(&mut self, now: Instant) {
        let missing = self.target() - self.ahead(now);
        self.fill_up(missing);
        self.left_out = self.level.samples(-missing);
        self.level.refilled();
    }

    fn fill_up(&mut self, seconds: f64) {
        let missing = self.level.samples(seconds).min(self.ring.slots());
        if let Ok(chunk) = self.ring.write_chunk_uninit(missing) {
            chunk.fill_from_iter(std::iter::repeat(0.0));
        }
    }

    fn fill(&self) -> usize {
        self.capacity - self.ring.slots()
    }
}
