//! Between a device's callback and the frame clock: a lock-free ring, and a resampler that follows both clocks.
//!
//! The callback's half ([`Captor`], [`Player`]) moves samples between the device's interleaved buffer and the ring, and
//! counts. It neither allocates nor frees, locks, waits or logs, and takes callbacks of any size; `tests/zero_alloc`
//! watches it. The frame clock's half ([`CaptureLine`], [`PlaybackLine`]) converts between the device's rate and the
//! client's, one frame at a time, and allocates nothing either. What is missing is silence.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use audioadapter_buffers::direct::InterleavedSlice;
use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer, RingBuffer};
use rubato::{
    Adjustable, Async, FixedAsync, Resampler, ResamplerConstructionError, SincInterpolationParameters, WindowFunction,
};
use serde::Serialize;

use super::drift::{Controller, MOST};
use crate::audio::format::{FRAME_SAMPLES, Frame, SAMPLE_RATE};
use crate::realtime::Scheduling;

/// Rates of devices that are used, in Hz.
pub(super) const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Length of the resampler's filter: a delay of 1.3 ms at 48 kHz. Twice as long is sharper at the edge of the band, which
/// speech does not reach.
const FILTER: usize = 128;
/// What the margin grows by at least each time it was too small, else by a half. The gap is heard; a second one should not
/// be.
const MARGIN_STEP: f64 = 0.005;
/// Frames without a gap after which the margin shrinks by a step again: a minute. The machine may have been busy for a
/// while only, and one that is always busy has one more gap a minute.
const CALM: u32 = 3_000;
/// Where it ends: a machine that needs more does not carry a conversation.
const MOST_MARGIN: f64 = 0.060;
/// Fill above what it should be from which the surplus is thrown away, in seconds: after a stall of the process. The
/// controller would need a minute for it.
const SURPLUS: f64 = 0.060;

/// Which part of the largest callback is forgotten with each. With 256, what alternates is remembered to within a
/// hundredth.
const FORGOTTEN: u32 = 256;

/// How a line fares.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Figures {
    /// Times at which something was missing. Each was filled with silence, and more is kept since.
    pub gaps: u64,
    /// Times at which there was too much, and some was dropped.
    pub skips: u64,
    /// What is kept against the next gap, in ms.
    pub margin_ms: f64,
    /// For how long sound waits in the ring on average, the margin included, in ms.
    pub held_ms: f64,
}

impl Figures {
    /// These of a line, and those of lines before it.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        Self { gaps: self.gaps + before.gaps, skips: self.skips + before.skips, ..self }
    }
}

/// What a callback tells about itself. Shared with the thread that watches it and with the frame clock's half.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    largest: AtomicU32,
    starved: AtomicU64,
    underflows: AtomicU64,
    failed: AtomicBool,
}

impl Pulse {
    fn beat(&self, frames: usize) {
        // The first fills a server's buffer, and is larger than all that follow.
        if self.beats.load(Ordering::Relaxed) > 0 {
            let largest = self.largest();
            // What a hiccup made large is forgotten within some hundred callbacks.
            let remembered = largest - largest / FORGOTTEN;
            // Only the callback writes it.
            self.largest.store(u32::try_from(frames).unwrap_or(u32::MAX).max(remembered), Ordering::Relaxed);
        }
        self.beats.fetch_add(1, Ordering::Release);
    }

    /// Whether it is known how large callbacks are.
    fn is_steady(&self) -> bool {
        self.beats() > 1
    }

    /// Callbacks so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }

    /// The system said that the stream is over.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether it did.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A server between the callback and the device had nothing to play.
    pub(super) fn on_underflow(&self) {
        self.underflows.fetch_add(1, Ordering::Relaxed);
    }

    /// Times at which a server between the callback and the device had nothing to play.
    pub fn underflows(&self) -> u64 {
        self.underflows.load(Ordering::Relaxed)
    }

    /// Callbacks that found too little to play.
    pub fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed)
    }

    fn largest(&self) -> u32 {
        self.largest.load(Ordering::Relaxed)
    }
}

/// What is kept beyond the swing of the callbacks, in seconds: hiccups of the frame clock and of the device's thread.
fn margin(scheduling: Scheduling) -> f64 {
    match scheduling {
        // The frame clock's timer has steps of a millisecond, and a frame's work takes about as long.
        Scheduling::RealTime => 0.004,
        Scheduling::Shared => 0.010,
    }
}

/// Fill, target and correction, which both directions share.
struct Level {
    pulse: Arc<Pulse>,
    rate: f64,
    /// Where it begins, and what it comes back to.
    least: f64,
    margin: f64,
    /// Frames since the margin was changed.
    calm: u32,
    controller: Controller,
}

impl Level {
    fn new(rate: u32, pulse: Arc<Pulse>, scheduling: Scheduling) -> Self {
        let least = margin(scheduling);
        Self { pulse, rate: f64::from(rate), least, margin: least, calm: 0, controller: Controller::default() }
    }

    /// What is kept, in ms, without the swing of the callbacks.
    fn margin_ms(&self) -> f64 {
        self.margin * 1_000.0
    }

    /// The fill that there should be on average where it is measured. It swings by one callback.
    fn target(&self) -> usize {
        (f64::from(self.pulse.largest()) / 2.0 + self.margin * self.rate) as usize
    }

    /// The same in ms.
    fn held_ms(&self) -> f64 {
        self.target() as f64 * 1_000.0 / self.rate
    }

    /// From where on it is too much.
    fn surplus(&self) -> usize {
        self.target() + self.pulse.largest() as usize + (SURPLUS * self.rate) as usize
    }

    fn widen(&mut self) {
        self.margin = (self.margin + MARGIN_STEP.max(self.margin / 2.0)).min(MOST_MARGIN);
        self.calm = 0;
    }

    /// A frame passed without a gap.
    fn correct(&mut self, fill: usize, resampler: &mut Async<f32>) {
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.margin = (self.margin - MARGIN_STEP).max(self.least);
        }
        let correction = self.controller.step((fill as f64 - self.target() as f64) / self.rate);
        // Within the bounds that the resampler was made for.
        let _ = resampler.set_resample_ratio_relative(1.0 / (1.0 + correction), true);
    }
}

fn resampler(from: u32, to: u32, fixed: FixedAsync) -> Result<Async<f32>, ResamplerConstructionError> {
    let parameters = SincInterpolationParameters::new(FILTER, WindowFunction::BlackmanHarris2);
    Async::new_sinc(f64::from(to) / f64::from(from), 1.0 + 2.0 * MOST, &parameters, FRAME_SAMPLES, 1, fixed)
}

/// One chunk through the resampler; gives how much was made. Nothing is made of nothing.
fn process(resampler: &mut Async<f32>, input: &[f32], output: &mut [f32]) -> usize {
    let capacity = output.len();
    let Ok(input) = InterleavedSlice::new(input, 1, input.len()) else { return 0 };
    let Ok(mut output) = InterleavedSlice::new_mut(output, 1, capacity) else { return 0 };
    resampler.process_into_buffer(&input, &mut output, None).map_or(0, |(_, made)| made)
}

/// A second of the device: far more than is ever kept.
fn ring(rate: u32) -> (Producer<f32>, Consumer<f32>) {
    RingBuffer::new(rate as usize)
}

// ---- capture ----

/// The two halves of a line from a microphone of so many channels.
///
/// # Errors
/// When the rate is none that is used ([`ResamplerConstructionError`]).
pub fn capture(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
) -> Result<(Captor, CaptureLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(rate, SAMPLE_RATE, FixedAsync::Output)?;
    let input = vec![0.0; resampler.input_frames_max()];
    let captor = Captor { ring: producer, channels: usize::from(channels.max(1)), pulse: Arc::clone(&pulse) };
    let level = Level::new(rate, pulse, scheduling);
    Ok((captor, CaptureLine { ring: consumer, resampler, input, level, primed: false, gaps: 0, skips: 0 }))
}

/// The body of a capture callback.
pub struct Captor {
    ring: Producer<f32>,
    channels: usize,
    pulse: Arc<Pulse>,
}

impl Captor {
    /// What is known of the callback.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Takes what the device recorded, interleaved: the mean of each moment's channels goes into the ring. What does not
    /// fit is dropped: then nobody reads.
    pub fn on_data<S>(&mut self, data: &[S])
    where
        S: Sample,
        f32: FromSample<S>,
    {
        let scale = 1.0 / self.channels as f32;
        let mean = |moment: &[S]| moment.iter().map(|s| f32::from_sample(*s)).sum::<f32>() * scale;
        self.on_moments(data.len() / self.channels, data.chunks_exact(self.channels).map(mean));
    }

    /// As [`Captor::on_data`], with the channels mixed down already.
    pub(super) fn on_moments(&mut self, count: usize, moments: impl Iterator<Item = f32>) {
        self.pulse.beat(count);
        if let Ok(chunk) = self.ring.write_chunk_uninit(count.min(self.ring.slots())) {
            chunk.fill_from_iter(moments);
        }
    }

    /// Channels of the device.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }
}

/// The frame clock's half.
pub struct CaptureLine {
    ring: Consumer<f32>,
    resampler: Async<f32>,
    /// For one frame.
    input: Vec<f32>,
    level: Level,
    /// There is enough in the ring to go on from.
    primed: bool,
    gaps: u64,
    skips: u64,
}

impl CaptureLine {
    /// The next 20 ms, whatever the device does: what it has not given is silence.
    pub fn next_frame(&mut self, out: &mut Frame) {
        let need = self.resampler.input_frames_next();
        if !self.primed {
            if !self.level.pulse.is_steady() || self.ring.slots() < need + self.level.target() {
                out.fill(0.0);
                return;
            }
            self.primed = true;
            self.settle(need);
        }
        if self.ring.slots() > need + self.level.surplus() {
            self.skips += 1;
            self.settle(need);
        }
        let Some(input) = self.input.get_mut(..need) else { return out.fill(0.0) };
        let (_, missing) = self.ring.pop_partial_slice(input);
        let is_whole = missing.is_empty();
        missing.fill(0.0);
        let made = process(&mut self.resampler, input, out);
        if let Some(rest) = out.get_mut(made..) {
            rest.fill(0.0);
        }
        // After the frame: a correction changes how much the next one needs.
        if is_whole {
            self.level.correct(self.ring.slots(), &mut self.resampler);
        } else {
            self.gaps += 1;
            self.primed = false;
            self.level.widen();
        }
    }

    /// Throws away what is there: nobody wanted it.
    pub fn discard(&mut self) {
        self.drop_oldest(self.ring.slots());
        self.primed = false;
    }

    /// Gaps are frames of which a part was silence because the device was late, skips the times at which a surplus was
    /// thrown away.
    pub fn figures(&self) -> Figures {
        Figures { gaps: self.gaps, skips: self.skips, margin_ms: self.level.margin_ms(), held_ms: self.level.held_ms() }
    }

    /// Drops the oldest, so that the fill is right after the next frame.
    fn settle(&mut self, need: usize) {
        self.drop_oldest(self.ring.slots().saturating_sub(need + self.level.target()));
        self.level.controller.refilled();
    }

    fn drop_oldest(&mut self, samples: usize) {
        if let Ok(chunk) = self.ring.read_chunk(samples) {
            chunk.commit_all();
        }
    }
}

// ---- playback ----

/// The two halves of a line to a loudspeaker of so many channels.
///
/// # Errors
/// When the rate is none that is used ([`ResamplerConstructionError`]).
pub fn playback(
    rate: u32,
    channels: u16,
    scheduling: Scheduling,
) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(SAMPLE_RATE, rate, FixedAsync::Input)?;
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
        started: false,
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

    /// Fills what the device will play, interleaved: the first two channels get the sound, others and what is missing
    /// get silence.
    pub fn on_data<S>(&mut self, data: &mut [S])
    where
        S: Sample + FromSample<f32>,
    {
        let frames = data.len() / self.channels;
        self.pulse.beat(frames);
        let ready = self.ring.slots().min(frames);
        if ready < frames {
            self.pulse.starved.fetch_add(1, Ordering::Relaxed);
        }
        data.fill(S::EQUILIBRIUM);
        let Ok(chunk) = self.ring.read_chunk(ready) else { return };
        for (moment, sample) in data.chunks_exact_mut(self.channels).zip(chunk) {
            moment.iter_mut().take(2).for_each(|place| *place = S::from_sample(sample));
        }
    }
}

/// The frame clock's half.
pub struct PlaybackLine {
    ring: Producer<f32>,
    capacity: usize,
    resampler: Async<f32>,
    /// Of one frame.
    output: Vec<f32>,
    level: Level,
    started: bool,
    /// Of the pulse, when last looked at.
    starved: u64,
    gaps: u64,
    skips: u64,
}

impl PlaybackLine {
    /// Takes 20 ms. Never waits: what comes before the device runs, or what it is too slow for, is dropped.
    pub fn write(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        // A device that does not run yet would have to work off what is written until it does.
        if !self.level.pulse.is_steady() {
            return;
        }
        let starved = self.level.pulse.starved();
        if !self.started || starved != self.starved {
            self.refill();
        }
        self.starved = starved;
        let fill = self.fill();
        if fill > self.level.surplus() {
            // A whole frame is less to hear than a part of one.
            self.skips += 1;
            self.level.controller.refilled();
            return;
        }
        self.level.correct(fill, &mut self.resampler);
        let mut input = [0.0; FRAME_SAMPLES];
        input.iter_mut().zip(frame).for_each(|(to, from)| *to = f32::from(*from) / 32_768.0);
        let made = process(&mut self.resampler, &input, &mut self.output);
        if let Some(samples) = self.output.get(..made) {
            // There is room: a surplus was dropped above.
            let _ = self.ring.push_partial_slice(samples);
        }
    }

    /// Gaps are the times at which the device, or the server before it, had nothing to play, skips the frames that were
    /// dropped because the device was slow.
    pub fn figures(&self) -> Figures {
        let gaps = self.gaps + self.level.pulse.underflows();
        Figures { gaps, skips: self.skips, margin_ms: self.level.margin_ms(), held_ms: self.level.held_ms() }
    }

    /// The callback ran dry: the gap is made as long as it takes not to run dry again.
    fn refill(&mut self) {
        if std::mem::replace(&mut self.started, true) {
            self.gaps += 1;
            self.level.widen();
        }
        let missing = self.level.target().saturating_sub(self.fill()).min(self.ring.slots());
        if let Ok(chunk) = self.ring.write_chunk_uninit(missing) {
            chunk.fill_from_iter(std::iter::repeat(0.0));
        }
        self.level.controller.refilled();
    }

    fn fill(&self) -> usize {
        self.capacity - self.ring.slots()
    }
}
