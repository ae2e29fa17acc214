//! A line between simulated clocks.

use std::time::Duration;

use super::*;
use crate::audio::format::{FRAME, FrameDuration, STEP, STEP_SAMPLES, samples};
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

/// Runs callbacks, and what is done `every` so often, in the order of simulated time.
fn run(
    device: Device,
    seconds: u32,
    every: Duration,
    mut callback: impl FnMut(Instant),
    mut work: impl FnMut(usize, Instant),
) {
    let start = Instant::now();
    let mut calls = 0;
    for n in 0..(Duration::from_secs(seconds.into()).as_nanos() / every.as_nanos()) as usize {
        let now = n as f64 * every.as_secs_f64();
        while device.at(calls) <= now {
            callback(start + Duration::from_secs_f64(device.at(calls)));
            calls += 1;
        }
        work(n, start + Duration::from_secs_f64(now));
    }
}

/// Whether what was heard is one sine without a break: each sample follows from the two before it. `pitch` is in
/// Hz, and may be off by what a correction bends it.
fn worst_break(heard: &[f32], rate: u32) -> f32 {
    let k = 2.0 * (std::f64::consts::TAU * PITCH / f64::from(rate)).cos() as f32;
    heard.windows(3).map(|w| (w[2] - (k * w[1] - w[0])).abs()).fold(0.0, f32::max)
}

fn captured(device: Device, seconds: u32, every: FrameDuration) -> (CaptureLine, Vec<f32>) {
    let (mut captor, mut line) = capture(device.rate, device.channels, Scheduling::RealTime).unwrap();
    let (mut at, mut heard) = (0, Vec::new());
    let callback = |now: Instant| {
        let channels = usize::from(device.channels);
        let data: Vec<f32> =
            (0..device.callback * channels).map(|i| sine(at + (i / channels) as u64, device.rate)).collect();
        at += device.callback as u64;
        captor.on_data(&data, now);
    };
    run(device, seconds, every.duration(), callback, |_, now| {
        let mut frame = vec![0.0; samples(every)];
        line.next_frame(&mut frame, now);
        heard.extend(frame);
    });
    (line, heard)
}

fn played(device: Device, seconds: u32) -> (PlaybackLine, Vec<f32>) {
    let (mut player, mut line) = playback(device.rate, device.channels, Scheduling::RealTime).unwrap();
    let mut heard = Vec::new();
    let mut data = vec![0.0_f32; device.callback * usize::from(device.channels)];
    let callback = |now: Instant| {
        player.on_data(&mut data, now);
        heard.extend(data.iter().step_by(usize::from(device.channels)));
    };
    run(device, seconds, STEP, callback, |step, now| {
        let first = (step * STEP_SAMPLES) as u64;
        line.write(&std::array::from_fn(|i| sample_to_i16(sine(first + i as u64, SAMPLE_RATE))), now);
    });
    (line, heard)
}

#[test]
fn a_microphone_whose_clock_is_wrong_by_200_ppm_is_heard_without_a_skip() {
    for (device, frame) in DEVICES.into_iter().flat_map(|device| FrameDuration::ALL.map(|frame| (device, frame))) {
        let (line, heard) = captured(device, 90, frame);
        assert_eq!((line.gaps, line.skips), (0, 0), "{device:?}, {frame:?}");
        assert_eq!(heard.len(), 90 * 48_000);
        // The start is silence, then the filter's edge.
        let worst = worst_break(&heard[9_600..], SAMPLE_RATE);
        assert!(worst < 2e-3, "{device:?}, {frame:?}: a break of {worst}");
        assert!(heard[9_600..].iter().any(|s| *s > 0.48), "{device:?}, {frame:?}");
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

/// How long what is recorded waits until its frame, and its spread over a minute, in ms: the device's signal is time
/// itself, and so is what the frame clock gets.
fn waits(device: Device, every: FrameDuration) -> (f64, f64) {
    let (mut captor, mut line) = capture(device.rate, 1, Scheduling::RealTime).unwrap();
    let (mut at, mut waited) = (0_u64, Vec::new());
    let callback = |now: Instant| {
        // A ramp of one per second, from −0.5 to 0.5 and again.
        let ramp = |n: u64| ((at + n) % u64::from(device.rate)) as f32 / device.rate as f32 - 0.5;
        let data: Vec<f32> = (0..device.callback as u64).map(ramp).collect();
        at += data.len() as u64;
        captor.on_data(&data, now);
    };
    let first = device.at(0);
    run(device, 90, every.duration(), callback, |tick, now| {
        let mut frame = vec![0.0; samples(every)];
        line.next_frame(&mut frame, now);
        // Frames near the ramp's edge are no ramp.
        let last = f64::from(frame[samples(every) - 1]);
        let time = tick as f64 * every.duration().as_secs_f64();
        if time > 30.0 && last.abs() < 0.4 {
            let recorded = (time - first) * (1.0 + device.ppm * 1e-6);
            // The device's first callback ends when its samples have been recorded.
            let recorded = recorded + device.callback as f64 / f64::from(device.rate);
            waited.push((recorded - last - 0.5).rem_euclid(1.0) * 1_000.0);
        }
    });
    assert_eq!((line.gaps, line.skips), (0, 0), "{device:?}");
    let most = waited.iter().copied().fold(f64::MIN, f64::max);
    let least = waited.iter().copied().fold(f64::MAX, f64::min);
    (least, most - least)
}

#[test]
fn sound_waits_for_a_callback_and_the_margin_and_always_for_as_long() {
    let device = Device { rate: 48_000, channels: 1, callback: 240, ppm: 0.0 };
    for (ppm, frame) in [0.0, 50.0, -200.0].into_iter().flat_map(|ppm| FrameDuration::ALL.map(|frame| (ppm, frame))) {
        let (least, spread) = waits(Device { ppm, ..device }, frame);
        // 5 ms of a callback, 1.5 ms of margin, 1.3 ms of the filter.
        assert!((7.3..8.3).contains(&least), "{ppm} ppm, {frame:?}: {least} ms");
        assert!(spread < 0.3, "{ppm} ppm, {frame:?}: {spread} ms");
    }
}

/// A minute of a sound server that keeps 15 ms, of which 5 are its device's, and asks for 5 ms whenever it has given as much
/// to that. It gets what there is once a millisecond. Gives how much it had each time, in ms: the least and the most.
fn served(ppm: f64) -> (f64, f64) {
    let (mut player, mut line) =
        playback_with_reserve(48_000, 1, Scheduling::RealTime, Duration::from_millis(9)).unwrap();
    let start = Instant::now();
    let (mut kept, mut sound, mut had) = (0_usize, Vec::new(), Vec::new());
    player.on_request(480, start);
    for quarter in 0..240_000_u32 {
        let seconds = f64::from(quarter) / 4_000.0;
        let now = start + Duration::from_secs_f64(seconds);
        if seconds * (1.0 + ppm * 1e-6) >= 0.002 + had.len() as f64 * 0.005 {
            had.push(kept as f64 / 48.0);
            kept = kept.saturating_sub(240);
            player.on_request(240, now);
        }
        if quarter % 4 == 1 {
            player.pay(&mut sound);
            kept += sound.len();
        }
        if quarter % 20 == 7 {
            line.write(&[100; STEP_SAMPLES], now);
        }
    }
    assert_eq!((line.gaps, line.skips), (0, 0), "{ppm} ppm");
    let settled = &had[400..];
    (settled.iter().copied().fold(f64::MAX, f64::min), settled.iter().copied().fold(f64::MIN, f64::max))
}

#[test]
fn a_server_that_may_wait_is_given_what_it_asked_for_just_before_it_needs_it() {
    for ppm in [0.0, 200.0, -200.0] {
        let (least, most) = served(ppm);
        assert!(least >= 5.5, "{ppm} ppm: {least} ms were there, and 5 were needed");
        assert!(most <= 13.5, "{ppm} ppm: {most} ms were there");
    }
    // All the while as much is on its way: what is in the server is more only where less is owed.
    let (least, most) = served(0.0);
    assert!(most - least <= 5.1, "{least} to {most} ms");
}

#[test]
fn frames_come_from_a_device_that_gives_nothing_and_from_one_that_stops() {
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
    let now = Instant::now();
    let mut frame = [1.0; FRAME_SAMPLES];
    line.next_frame(&mut frame, now);
    assert_eq!(frame, [0.0; FRAME_SAMPLES]);
    captor.on_data(&[0.25_f32; 480], now);
    captor.on_data(&[0.25_f32; 4_800], now);
    for tick in 0..20 {
        frame.fill(1.0);
        line.next_frame(&mut frame, now + FRAME * tick);
    }
    assert_eq!(frame, [0.0; FRAME_SAMPLES]);
    assert_eq!(line.gaps, 1, "told once");
}

#[test]
fn a_gap_widens_the_margin_and_a_stall_leaves_no_delay_behind() {
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
    let now = Instant::now();
    captor.on_data(&[0.25_f32; 480], now);
    let narrow = line.level.margin();
    for _ in 0..5 {
        captor.on_data(&[0.25_f32; 480], now);
    }
    let mut frame = [0.0; FRAME_SAMPLES];
    (0..4).for_each(|tick| line.next_frame(&mut frame, now + FRAME * tick));
    assert!(line.level.margin() > narrow);
    // What comes after a stall of half a second is worked off at once.
    let later = now + FRAME * 30;
    (0..50).for_each(|_| captor.on_data(&[0.25_f32; 480], later));
    (0..2).for_each(|tick| line.next_frame(&mut frame, later + FRAME * tick));
    let left = line.level.samples(line.level.held()) + FRAME_SAMPLES;
    assert!(line.ring.slots() <= left, "{}", line.ring.slots());
}

#[test]
fn channels_are_mixed_down_and_played_on_the_first_two() {
    let (mut captor, line) = capture(48_000, 2, Scheduling::Shared).unwrap();
    captor.on_data(&[i16::MAX, 0, 0, 0], Instant::now());
    let mut ring = line.ring;
    assert!((ring.pop().unwrap() - 0.5).abs() < 1e-3);
    assert_eq!((ring.pop().unwrap(), ring.pop().is_err()), (0.0, true));

    let (mut player, line) = playback(48_000, 3, Scheduling::Shared).unwrap();
    let mut ring = line.ring;
    ring.push(0.5).unwrap();
    let mut data = [7_i16; 6];
    player.on_data(&mut data, Instant::now());
    assert_eq!(data, [16_384, 16_384, 0, 0, 0, 0]);
    assert_eq!(player.pulse().starved(), 1);
}
