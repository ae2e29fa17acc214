//! Between a device's callback and the frame clock: a lock-free ring, and a resampler that follows both clocks.
//!
//! The callback's half ([`Captor`], [`Player`]) moves samples between the device's interleaved buffer and the ring, and
//! counts. It neither allocates nor frees, locks, waits or logs, and takes callbacks of any size; `tests/zero_alloc`
//! watches it. The clocks' half ([`CaptureLine`], [`PlaybackLine`]) converts between the device's rate and the client's,
//! a frame or a step at a time, and allocates nothing either. What is missing is silence.
//!
//! How much waits in a ring is `level`'s business.

mod playback;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use audioadapter_buffers::direct::InterleavedSlice;
use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer, RingBuffer};
use rubato::{
    Adjustable, Async, FixedAsync, Resampler, ResamplerConstructionError, Resizable, SincInterpolationParameters,
    WindowFunction,
};
use serde::Serialize;

use super::callback::Heart;
pub use super::callback::Pulse;
use super::drift::MOST;
use super::level::Level;
use crate::audio::format::{FRAME_SAMPLES, SAMPLE_RATE};
use crate::realtime::Scheduling;
pub use playback::{PlaybackLine, Player, playback};
pub(super) use playback::{Server, playback_to_server};

/// Rates of devices that are used, in Hz.
pub(super) const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Length of the resampler's filter in samples of the lower rate: a delay of 1.3 ms at 48 kHz. Twice as long is sharper at the
/// edge of the band, which speech does not reach there.
const FILTER: u32 = 128;
/// How a line fares.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Figures {
    /// Times at which something was missing. Each was filled with silence.
    pub gaps: u64,
    /// Times at which there was too much, and some was dropped.
    pub skips: u64,
    /// What is kept against what is late, in ms.
    pub margin_ms: f64,
    /// For how long sound waits between device and clock, from when it was recorded, or until the device takes it, in ms:
    /// a callback's length and the margin.
    pub held_ms: f64,
}

impl Figures {
    /// These of a line, and those of lines before it.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        Self { gaps: self.gaps + before.gaps, skips: self.skips + before.skips, ..self }
    }
}

/// A resampler of which one side is always `chunk` samples.
fn resampler(from: u32, to: u32, chunk: usize, fixed: FixedAsync) -> Result<Async<f32>, ResamplerConstructionError> {
    // Of the rate that comes in: as few of 48 kHz would have an edge that reaches far into the band of a device of 16 kHz.
    let length = (FILTER * from).div_ceil(from.min(to));
    let parameters = SincInterpolationParameters::new(length as usize, WindowFunction::BlackmanHarris2);
    Async::new_sinc(f64::from(to) / f64::from(from), 1.0 + 2.0 * MOST, &parameters, chunk, 1, fixed)
}

/// Lets the resampler work through so much more per second, within the bounds that it was made for.
fn bend(resampler: &mut Async<f32>, correction: f64) {
    let _ = resampler.set_resample_ratio_relative(1.0 / (1.0 + correction), true);
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
    let resampler = resampler(rate, SAMPLE_RATE, FRAME_SAMPLES, FixedAsync::Output)?;
    let input = vec![0.0; resampler.input_frames_max()];
    let heart = Heart::new(Arc::clone(&pulse));
    let captor = Captor { ring: producer, channels: usize::from(channels.max(1)), heart };
    let level = Level::new(rate, pulse, scheduling);
    Ok((captor, CaptureLine { ring: consumer, resampler, input, level, phase: Phase::Begins, gaps: 0, skips: 0 }))
}

/// The body of a capture callback.
pub struct Captor {
    ring: Producer<f32>,
    channels: usize,
    heart: Heart,
}

impl Captor {
    /// What is known of the callback.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(self.heart.pulse())
    }

    /// Takes what the device recorded until `at`, interleaved: the mean of each moment's channels goes into the ring. What
    /// does not fit is dropped: then nobody reads.
    pub fn on_data<S>(&mut self, data: &[S], at: Instant)
    where
        S: Sample,
        f32: FromSample<S>,
    {
        let scale = 1.0 / self.channels as f32;
        let mean = |moment: &[S]| moment.iter().map(|s| f32::from_sample(*s)).sum::<f32>() * scale;
        self.on_moments(data.len() / self.channels, data.chunks_exact(self.channels).map(mean), at);
    }

    /// As [`Captor::on_data`], with the channels mixed down already.
    pub(super) fn on_moments(&mut self, count: usize, moments: impl Iterator<Item = f32>, at: Instant) {
        self.heart.beat(count, at);
        if let Ok(chunk) = self.ring.write_chunk_uninit(count.min(self.ring.slots())) {
            chunk.fill_from_iter(moments);
        }
    }

    /// Channels of the device.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }
}

/// Where a microphone's line stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is not enough in the ring yet to begin with.
    Begins,
    /// There was a gap, and what made it is still to come.
    Late,
    /// It came, or too little did for long, and there is not enough yet to go on from.
    Refills,
    Runs,
}

/// The clocks' half.
pub struct CaptureLine {
    ring: Consumer<f32>,
    resampler: Async<f32>,
    /// For one frame, of the longest.
    input: Vec<f32>,
    level: Level,
    phase: Phase,
    gaps: u64,
    skips: u64,
}

impl CaptureLine {
    /// No more than this is kept against what is late, beside the least; see `docs/devices.md`.
    pub fn allow(&mut self, most_margin: Duration) {
        self.level.margin.allow(most_margin);
    }

    /// The frame before `now`, all of `out`, whatever the device does: what it has not given is silence. A frame is not
    /// longer than the longest. Gives how many samples at its end are a hole in what was said: the device was late, and what
    /// it recorded then comes too late.
    pub fn next_frame(&mut self, out: &mut [f32], now: Instant) -> usize {
        // All frames of a meeting are of one duration.
        if self.resampler.output_frames_next() != out.len() && self.resampler.set_chunk_size(out.len()).is_err() {
            out.fill(0.0);
            return 0;
        }
        let frame = Duration::from_secs_f64(out.len() as f64 / f64::from(SAMPLE_RATE));
        let need = self.resampler.input_frames_next();
        let late = self.level.pulse.take_longest() - self.level.callback();
        self.level.margin.observe(late);
        if self.phase != Phase::Runs {
            if self.phase == Phase::Late && late > 0.0 {
                // Only now is it known by how much.
                self.phase = Phase::Refills;
                self.level.margin.widen();
            }
            if !self.level.pulse.is_steady() || self.ring.slots() < need + self.wanted(now) {
                out.fill(0.0);
                return if self.phase == Phase::Begins { 0 } else { out.len() };
            }
            self.phase = Phase::Runs;
            self.settle(need, now);
        }
        if self.ring.slots() > need + self.level.surplus() {
            self.skips += 1;
            self.settle(need, now);
        }
        let Some(input) = self.input.get_mut(..need) else {
            out.fill(0.0);
            return 0;
        };
        let (_, missing) = self.ring.pop_partial_slice(input);
        let hole = (missing.len() * out.len()).div_ceil(need.max(1));
        missing.fill(0.0);
        let made = process(&mut self.resampler, input, out);
        if let Some(rest) = out.get_mut(made..) {
            rest.fill(0.0);
        }
        // After the frame: a correction changes how much the next one needs.
        if hole == 0 {
            let held = self.level.seconds(self.ring.slots()) + self.level.pulse.age(now);
            let deviation = held - self.level.held();
            bend(&mut self.resampler, self.level.correct(deviation, frame));
            if self.level.is_off(deviation, frame) {
                self.skips += u64::from(deviation > 0.0);
                self.phase = if deviation > 0.0 { Phase::Runs } else { Phase::Refills };
                self.settle(0, now);
            }
        } else {
            self.gaps += 1;
            self.phase = Phase::Late;
        }
        hole
    }

    /// Throws away what is there: nobody wanted it.
    pub fn discard(&mut self) {
        self.drop_oldest(self.ring.slots());
        self.phase = Phase::Begins;
    }

    /// Gaps are frames of which a part was silence because the device was late, skips the times at which a surplus was
    /// thrown away.
    pub fn figures(&self) -> Figures {
        Figures {
            gaps: self.gaps,
            skips: self.skips,
            margin_ms: self.level.margin.get() * 1_000.0,
            held_ms: self.level.held() * 1_000.0,
        }
    }

    /// Samples that should be left after a frame at `now`: what is held, less what the device has recorded since its last
    /// callback.
    fn wanted(&self, now: Instant) -> usize {
        self.level.samples(self.level.held() - self.level.pulse.age(now))
    }

    /// Drops the oldest, so that the fill is right after the next frame.
    fn settle(&mut self, need: usize, now: Instant) {
        self.drop_oldest(self.ring.slots().saturating_sub(need + self.wanted(now)));
        self.level.refilled();
    }

    fn drop_oldest(&mut self, samples: usize) {
        if let Ok(chunk) = self.ring.read_chunk(samples) {
            chunk.commit_all();
        }
    }
}
