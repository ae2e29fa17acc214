//! A line between simulated clocks.

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
    let (mut captor, mut line) = capture(device.rate, device.channels, Scheduling::Shared).unwrap();
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
    let (mut player, mut line) = playback(device.rate, device.channels, Scheduling::Shared).unwrap();
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
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
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
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
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
    let (mut captor, line) = capture(48_000, 2, Scheduling::Shared).unwrap();
    captor.on_data(&[i16::MAX, 0, 0, 0]);
    let mut ring = line.ring;
    assert!((ring.pop().unwrap() - 0.5).abs() < 1e-3);
    assert_eq!((ring.pop().unwrap(), ring.pop().is_err()), (0.0, true));

    let (mut player, line) = playback(48_000, 3, Scheduling::Shared).unwrap();
    let mut ring = line.ring;
    ring.push(0.5).unwrap();
    let mut data = [7_i16; 6];
    player.on_data(&mut data);
    assert_eq!(data, [16_384, 16_384, 0, 0, 0, 0]);
    assert_eq!(player.pulse().starved(), 1);
}
