//! Between a device's callback and the frame clock: a lock-free ring, and a resampler that follows both clocks.
//!
//! The callback's half ([`Captor`], [`Player`]) moves samples between the device's interleaved buffer and the ring, and
//! counts. It neither allocates nor frees, locks, waits or logs, and takes callbacks of any size; `tests/zero_alloc`
//! watches it. The frame clock's half ([`CaptureLine`], [`PlaybackLine`]) converts between the device's rate and the
//! client's, one frame at a time, and allocates nothing either. What is missing is silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use audioadapter_buffers::direct::InterleavedSlice;
use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer, RingBuffer};
use rubato::{
    Adjustable, Async, FixedAsync, Resampler, ResamplerConstructionError, SincInterpolationParameters, WindowFunction,
};

use super::drift::{Controller, MOST};
use crate::audio::format::{FRAME_SAMPLES, Frame, SAMPLE_RATE};

/// Rates of devices that are used, in Hz.
pub(super) const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Length of the resampler's filter: a delay of 1.3 ms at 48 kHz. Twice as long is sharper at the edge of the band, which
/// speech does not reach.
const FILTER: usize = 128;
/// What is kept beyond the swing of the callbacks, in seconds: hiccups of the frame clock and of the device's thread.
const MARGIN: f64 = 0.010;
/// What the margin grows by each time it was too small. The gap is heard; a second one should not be.
const MARGIN_STEP: f64 = 0.005;
/// Where it ends: a machine that needs more does not carry a conversation.
const MOST_MARGIN: f64 = 0.060;
/// Fill above what it should be from which the surplus is thrown away, in seconds: after a stall of the process. The
/// controller would need a minute for it.
const SURPLUS: f64 = 0.060;

/// What a callback tells about itself. Shared with the thread that watches it and with the frame clock's half.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    largest: AtomicU32,
    starved: AtomicU64,
    failed: AtomicBool,
}

impl Pulse {
    fn beat(&self, frames: usize) {
        // The first fills a server's buffer, and is larger than all that follow.
        if self.beats.load(Ordering::Relaxed) > 0 {
            self.largest.fetch_max(u32::try_from(frames).unwrap_or(u32::MAX), Ordering::Relaxed);
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

    /// Callbacks that found too little to play.
    pub fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed)
    }

    fn largest(&self) -> u32 {
        self.largest.load(Ordering::Relaxed)
    }
}

/// Fill, target and correction, which both directions share.
struct Level {
    pulse: Arc<Pulse>,
    rate: f64,
    margin: f64,
    controller: Controller,
}

impl Level {
    fn new(rate: u32, pulse: Arc<Pulse>) -> Self {
        Self { pulse, rate: f64::from(rate), margin: MARGIN, controller: Controller::default() }
    }

    /// The fill that there should be on average where it is measured. It swings by one callback.
    fn target(&self) -> usize {
        (f64::from(self.pulse.largest()) / 2.0 + self.margin * self.rate) as usize
    }

    /// From where on it is too much.
    fn surplus(&self) -> usize {
        self.target() + self.pulse.largest() as usize + (SURPLUS * self.rate) as usize
    }

    fn widen(&mut self) {
        self.margin = (self.margin + MARGIN_STEP).min(MOST_MARGIN);
    }

    fn correct(&mut self, fill: usize, resampler: &mut Async<f32>) {
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
pub fn capture(rate: u32, channels: u16) -> Result<(Captor, CaptureLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(rate, SAMPLE_RATE, FixedAsync::Output)?;
    let input = vec![0.0; resampler.input_frames_max()];
    let captor = Captor { ring: producer, channels: usize::from(channels.max(1)), pulse: Arc::clone(&pulse) };
    let level = Level::new(rate, pulse);
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
        let frames = data.len() / self.channels;
        self.pulse.beat(frames);
        let Ok(chunk) = self.ring.write_chunk_uninit(frames.min(self.ring.slots())) else { return };
        let scale = 1.0 / self.channels as f32;
        let mean = |moment: &[S]| moment.iter().map(|s| f32::from_sample(*s)).sum::<f32>() * scale;
        chunk.fill_from_iter(data.chunks_exact(self.channels).map(mean));
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

    /// Frames of which a part was silence because the device was late.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Times at which a surplus was thrown away.
    pub fn skips(&self) -> u64 {
        self.skips
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
pub fn playback(rate: u32, channels: u16) -> Result<(Player, PlaybackLine), ResamplerConstructionError> {
    let (producer, consumer) = ring(rate);
    let pulse = Arc::new(Pulse::default());
    let resampler = resampler(SAMPLE_RATE, rate, FixedAsync::Input)?;
    let output = vec![0.0; resampler.output_frames_max()];
    let player = Player { ring: consumer, channels: usize::from(channels.max(1)), pulse: Arc::clone(&pulse) };
    let level = Level::new(rate, pulse);
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

    /// Times at which the device had nothing to play.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Frames that were dropped because the device was slow.
    pub fn skips(&self) -> u64 {
        self.skips
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::mixer::sample_to_i16;

    const PITCH: f64 = 440.0;

    fn sine(n: u64, rate: u32) -> f32 {
        (0.5 * (std::f64::consts::TAU * PITCH * (n as f64 / f64::from(rate))).sin()) as f32
    }

    /// A device of a rate, with callbacks of a size, whose clock is fast by so many millionths.
    #[derive(Clone, Copy, Debug)]
    struct Device {
        rate: u32,
        channels: u16,
        callback: usize,
        ppm: f64,
    }

    impl Device {
        /// When the nth callback comes, in seconds.
        fn at(&self, n: u64) -> f64 {
            0.003 + n as f64 * self.callback as f64 / (f64::from(self.rate) * (1.0 + self.ppm * 1e-6))
        }
    }

    const DEVICES: [Device; 7] = [
        Device { rate: 48_000, channels: 1, callback: 480, ppm: 200.0 },
        Device { rate: 48_000, channels: 2, callback: 24, ppm: -200.0 },
        Device { rate: 44_100, channels: 2, callback: 441, ppm: 200.0 },
        Device { rate: 44_100, channels: 1, callback: 1_021, ppm: -200.0 },
        Device { rate: 16_000, channels: 1, callback: 333, ppm: 200.0 },
        Device { rate: 96_000, channels: 2, callback: 960, ppm: -200.0 },
        Device { rate: 8_000, channels: 1, callback: 80, ppm: 0.0 },
    ];

    /// Runs callbacks and frames in the order of simulated time.
    fn run(device: Device, seconds: u32, mut callback: impl FnMut(), mut frame: impl FnMut(usize)) {
        let mut calls = 0;
        for tick in 0..seconds as usize * 50 {
            let now = tick as f64 * 0.02;
            while device.at(calls) <= now {
                callback();
                calls += 1;
            }
            frame(tick);
        }
    }

    /// Whether what was heard is one sine without a break: each sample follows from the two before it. `pitch` is in
    /// Hz, and may be off by what a correction bends it.
    fn worst_break(heard: &[f32], rate: u32) -> f32 {
        let k = 2.0 * (std::f64::consts::TAU * PITCH / f64::from(rate)).cos() as f32;
        heard.windows(3).map(|w| (w[2] - (k * w[1] - w[0])).abs()).fold(0.0, f32::max)
    }

    fn captured(device: Device, seconds: u32) -> (CaptureLine, Vec<f32>) {
        let (mut captor, mut line) = capture(device.rate, device.channels).unwrap();
        let (mut at, mut heard) = (0, Vec::new());
        let callback = || {
            let channels = usize::from(device.channels);
            let data: Vec<f32> =
                (0..device.callback * channels).map(|i| sine(at + (i / channels) as u64, device.rate)).collect();
            at += device.callback as u64;
            captor.on_data(&data);
        };
        run(device, seconds, callback, |_| {
            let mut frame = [0.0; FRAME_SAMPLES];
            line.next_frame(&mut frame);
            heard.extend(frame);
        });
        (line, heard)
    }

    fn played(device: Device, seconds: u32) -> (PlaybackLine, Vec<f32>) {
        let (mut player, mut line) = playback(device.rate, device.channels).unwrap();
        let mut heard = Vec::new();
        let mut data = vec![0.0_f32; device.callback * usize::from(device.channels)];
        let callback = || {
            player.on_data(&mut data);
            heard.extend(data.iter().step_by(usize::from(device.channels)));
        };
        run(device, seconds, callback, |tick| {
            let first = (tick * FRAME_SAMPLES) as u64;
            line.write(&std::array::from_fn(|i| sample_to_i16(sine(first + i as u64, SAMPLE_RATE))));
        });
        (line, heard)
    }

    #[test]
    fn a_microphone_whose_clock_is_wrong_by_200_ppm_is_heard_without_a_skip() {
        for device in DEVICES {
            let (line, heard) = captured(device, 90);
            assert_eq!((line.gaps, line.skips), (0, 0), "{device:?}");
            assert_eq!(heard.len(), 90 * 48_000);
            // The start is silence, then the filter's edge.
            let worst = worst_break(&heard[9_600..], SAMPLE_RATE);
            assert!(worst < 2e-3, "{device:?}: a break of {worst}");
            assert!(heard[9_600..].iter().any(|s| *s > 0.48), "{device:?}");
        }
    }

    #[test]
    fn a_loudspeaker_whose_clock_is_wrong_by_200_ppm_plays_without_a_skip() {
        for device in DEVICES {
            let (line, heard) = played(device, 90);
            assert_eq!((line.gaps, line.skips), (0, 0), "{device:?}");
            let worst = worst_break(&heard[device.rate as usize / 5..], device.rate);
            assert!(worst < 2e-3, "{device:?}: a break of {worst}");
            assert!(heard.iter().any(|s| *s > 0.48), "{device:?}");
        }
    }

    #[test]
    fn frames_come_from_a_device_that_gives_nothing_and_from_one_that_stops() {
        let (mut captor, mut line) = capture(48_000, 1).unwrap();
        let mut frame = [1.0; FRAME_SAMPLES];
        line.next_frame(&mut frame);
        assert_eq!(frame, [0.0; FRAME_SAMPLES]);
        captor.on_data(&[0.25_f32; 480]);
        captor.on_data(&[0.25_f32; 4_800]);
        for _ in 0..20 {
            frame.fill(1.0);
            line.next_frame(&mut frame);
        }
        assert_eq!(frame, [0.0; FRAME_SAMPLES]);
        assert_eq!(line.gaps, 1, "told once");
    }

    #[test]
    fn a_gap_widens_the_margin_and_a_stall_leaves_no_delay_behind() {
        let (mut captor, mut line) = capture(48_000, 1).unwrap();
        captor.on_data(&[0.25_f32; 480]);
        let narrow = line.level.target();
        for _ in 0..4 {
            captor.on_data(&[0.25_f32; 480]);
        }
        let mut frame = [0.0; FRAME_SAMPLES];
        (0..4).for_each(|_| line.next_frame(&mut frame));
        assert!(line.level.target() > narrow);
        // What comes after a stall of half a second is worked off at once.
        (0..50).for_each(|_| captor.on_data(&[0.25_f32; 480]));
        (0..2).for_each(|_| line.next_frame(&mut frame));
        assert!(line.ring.slots() <= line.level.target() + 960, "{}", line.ring.slots());
    }

    #[test]
    fn channels_are_mixed_down_and_played_on_the_first_two() {
        let (mut captor, line) = capture(48_000, 2).unwrap();
        captor.on_data(&[i16::MAX, 0, 0, 0]);
        let mut ring = line.ring;
        assert!((ring.pop().unwrap() - 0.5).abs() < 1e-3);
        assert_eq!((ring.pop().unwrap(), ring.pop().is_err()), (0.0, true));

        let (mut player, line) = playback(48_000, 3).unwrap();
        let mut ring = line.ring;
        ring.push(0.5).unwrap();
        let mut data = [7_i16; 6];
        player.on_data(&mut data);
        assert_eq!(data, [16_384, 16_384, 0, 0, 0, 0]);
        assert_eq!(player.pulse().starved(), 1);
    }
}
