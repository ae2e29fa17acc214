//! The line to a loudspeaker.
//!
//! A device's callback takes what it needs now, so that much must be there. A sound server asks for what it will need in a
//! while: it may be let wait ([`Player::pay`]), as long as what it still has. Then nothing needs to wait in the ring, and
//! what clocks and threads are late by is taken from what the server keeps anyway. What must be kept beyond that, the
//! server keeps, too: it is late itself, and then has only what it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer};
use rubato::{Async, FixedAsync, Resampler as _, ResamplerConstructionError};

use super::{Figures, Pulse, bend, process, resampler, ring};
use crate::audio::device::callback::Heart;
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
    line(rate, channels, scheduling, None)
}

/// A sound server before a loudspeaker.
#[derive(Clone, Copy, Debug)]
pub(in crate::audio::device) struct Server {
    /// For how long it may be let wait.
    pub wait: Duration,
    /// By how much more it can be told to keep at a time.
    pub block: Duration,
    /// For how much longer that lasts: a server that keeps more gives its device larger blocks, which must all be there.
    pub gain: Duration,
    /// Most blocks that it can be told to keep.
    pub most: u32,
}

/// As [`playback`], to a server. How much more than at first it is to keep, its callback's [`Pulse`] says.
pub(in crate::audio::device) fn playback_to_server(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
    server: Server,
) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    line(rate, channels, scheduling, Some(server))
}

fn line(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
    server: Option<Server>,
) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(SAMPLE_RATE, rate, STEP_SAMPLES, FixedAsync::Input)?;
    let output = vec![0.0; resampler.output_frames_max()];
    let heart = Heart::new(Arc::clone(&pulse));
    let player = Player { ring: consumer, channels: usize::from(channels.max(1)), heart };
    let level = Level::new(rate, pulse, scheduling);
    let capacity = producer.slots();
    let line = PlaybackLine {
        ring: producer,
        capacity,
        resampler,
        output,
        level,
        server,
        started: false,
        left_out: 0,
        starved: 0,
        gaps: 0,
        skips: 0,
    };
    line.share();
    Ok((player, line))
}

/// The body of a playback callback.
pub struct Player {
    ring: Consumer<f32>,
    channels: usize,
    heart: Heart,
}

impl Player {
    /// What is known of the callback.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(self.heart.pulse())
    }

    /// Fills what the device will play, and wants at `at`, interleaved: the first two channels get the sound, others and
    /// what is missing get silence.
    pub fn on_data<S>(&mut self, data: &mut [S], at: Instant)
    where
        S: Sample + FromSample<f32>,
    {
        let frames = data.len() / self.channels;
        self.heart.beat(frames, at);
        if self.fill(data) < frames {
            self.heart.pulse().starved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A server asks at `at` for so many moments.
    pub(in crate::audio::device) fn on_request(&mut self, moments: usize, at: Instant) {
        self.heart.pulse().owed.fetch_add(u32::try_from(moments).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.heart.beat(moments, at);
    }

    /// Whether something that was asked for was not there.
    pub(in crate::audio::device) fn owes(&self) -> bool {
        self.heart.pulse().owed.load(Ordering::Relaxed) > 0
    }

    /// Gives of what was asked for what there is, interleaved. Before the other half has begun, that is silence.
    pub(in crate::audio::device) fn pay(&mut self, data: &mut Vec<f32>) {
        let owed = self.heart.pulse().owed.load(Ordering::Relaxed);
        let ready = if self.heart.pulse().is_live() { self.ring.slots().min(owed as usize) } else { owed as usize };
        data.resize(ready * self.channels, 0.0);
        self.fill(data);
        // No more than was owed.
        self.heart.pulse().owed.fetch_sub(ready as u32, Ordering::Relaxed);
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
    server: Option<Server>,
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
        }
        self.observe(now);
        if self.started && starved != self.starved {
            self.on_gap(now);
        }
        (self.started, self.starved) = (true, starved);
        if self.fill() > self.level.surplus() {
            self.skip();
            return;
        }
        let deviation = self.ahead(now) - self.target();
        bend(&mut self.resampler, self.level.correct(deviation, STEP));
        self.share();
        if self.level.is_off(deviation, STEP) {
            if deviation > 0.0 {
                return self.skip();
            }
            self.settle(now);
        }
        self.push(step);
    }

    /// No more than this is kept against what is late, beside the least; see `docs/devices.md`.
    pub fn allow(&mut self, most_margin: Duration) {
        self.level.margin.allow(most_margin);
        self.share();
    }

    /// Gaps are the times at which the device, or the server before it, had nothing to play, skips the steps that were
    /// dropped because the device was slow.
    pub fn figures(&self) -> Figures {
        let held = (self.level.callback() + self.target()).max(0.0);
        let ms = |seconds: f64| seconds * 1_000.0;
        Figures { gaps: self.gaps, skips: self.skips, margin_ms: ms(self.level.margin.get()), held_ms: ms(held) }
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

    /// What that should be: less than nothing where a server is let wait.
    fn target(&self) -> f64 {
        let margin = self.level.margin.get();
        self.server.map_or(margin, |server| (margin - server.wait.as_secs_f64()).min(0.0))
    }

    /// How many blocks more a server is to keep: what it need not wait for does not suffice.
    fn blocks(&self) -> u32 {
        let more = |server: Server| {
            let beyond = self.level.margin.get() - server.wait.as_secs_f64();
            // None when nothing is beyond.
            ((beyond / server.gain.as_secs_f64()).ceil() as u32).min(server.most)
        };
        self.server.map_or(0, more)
    }

    /// Tells the server's half about it.
    fn share(&self) {
        self.level.pulse.keep_blocks(self.blocks());
    }

    /// What was late: a step, or a server, which then has only what it holds.
    fn observe(&mut self, now: Instant) {
        self.level.margin.observe(self.target() - self.ahead(now));
        let longest = self.level.pulse.take_longest();
        if self.server.is_some() {
            self.level.margin.observe(longest - self.level.callback());
        }
    }

    /// There was a gap: what more is to be kept is put there now. What the gap's own cause holds up still comes.
    fn on_gap(&mut self, now: Instant) {
        self.gaps += 1;
        let before = (self.target(), self.blocks());
        self.level.margin.widen();
        match self.server {
            // What the server will ask for, too.
            Some(server) => {
                let blocks = server.block * self.blocks().saturating_sub(before.1);
                self.fill_up(self.target() - before.0 + blocks.as_secs_f64());
            }
            None => self.settle(now),
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
