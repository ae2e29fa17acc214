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

/// What it keeps beyond 15 ms is all there for stalls: its device takes blocks of 5 ms always.
const SERVER: Server = Server {
    wait: Duration::from_millis(9),
    block: Duration::from_millis(5),
    gain: Duration::from_millis(5),
    most: 12,
};

/// A minute of a sound server that keeps 15 ms, of which 5 are its device's, and asks for 5 ms whenever it has given as much
/// to that. It gets what there is once a millisecond. Gives how much it had each time, in ms: the least and the most.
fn served(ppm: f64) -> (f64, f64) {
    let (mut player, mut line) = playback_to_server(48_000, 1, Scheduling::RealTime, SERVER).unwrap();
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

/// A sound server that plays 5 ms at a time, keeps 15 ms and what more it is told to, and stands still for 20 ms in each of
/// some seconds. Gives what it kept at the end of each second, in ms, and how often it ran dry in it.
fn served_by_one_that_stalls(most: Duration, stalls: std::ops::Range<u32>, seconds: u32) -> Vec<(f64, u32)> {
    let (mut player, mut line) = playback_to_server(48_000, 1, Scheduling::RealTime, SERVER).unwrap();
    line.allow(most);
    let pulse = player.pulse();
    let (start, mut sound, mut told) = (Instant::now(), Vec::new(), Vec::new());
    // What it has, and what it has asked for altogether; what comes too late is left out.
    let (mut kept, mut asked, mut played, mut ran_dry) = (0_i64, 720_i64, 0_i64, 0);
    player.on_request(720, start);
    for ms in 0..seconds * 1_000 {
        let now = start + Duration::from_millis(ms.into());
        let stalls = stalls.contains(&(ms / 1_000)) && (500..520).contains(&(ms % 1_000));
        let due = i64::from(ms / 5) * 240 - played;
        if !stalls && due > 0 {
            kept -= due;
            played += due;
            if kept < 0 && ms > 200 {
                pulse.on_underflow();
                ran_dry += 1;
            }
            let wants = played + 720 + i64::from(pulse.blocks()) * 240 - asked;
            if wants > 0 {
                asked += wants;
                player.on_request(wants as usize, now);
            }
        }
        player.pay(&mut sound);
        kept += sound.len() as i64;
        if ms % 5 == 3 {
            line.write(&[100; STEP_SAMPLES], now);
        }
        if ms % 1_000 == 999 {
            told.push((kept as f64 / 48.0, ran_dry));
            ran_dry = 0;
        }
    }
    assert_eq!(line.skips, 0);
    told
}

#[test]
fn a_server_that_stalls_keeps_more_for_as_long_as_it_does_and_no_more_than_the_profile_gives() {
    let told = served_by_one_that_stalls(Duration::from_millis(60), 1..60, 200);
    let gaps = |seconds: &[(f64, u32)]| seconds.iter().map(|(_, ran_dry)| ran_dry).sum::<u32>();
    assert!(gaps(&told[..10]) <= 8, "{told:?}");
    assert_eq!(gaps(&told[10..]), 0, "{told:?}");
    assert!(told[50].0 > 20.0 && told[50].0 < 35.0, "{told:?}");
    assert!(told[199].0 <= 15.0, "{told:?}");

    let told = served_by_one_that_stalls(Duration::from_millis(4), 1..60, 100);
    assert!(told.iter().all(|(kept, _)| *kept <= 15.0), "{told:?}");
    assert!(gaps(&told[62..]) == 0 && gaps(&told) >= 50, "{told:?}");
}

#[test]
fn frames_come_from_a_device_that_gives_nothing_and_from_one_that_stops() {
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
    let now = Instant::now();
    let mut frame = [1.0; FRAME_SAMPLES];
    assert_eq!(line.next_frame(&mut frame, now), 0, "nothing was said");
    assert_eq!(frame, [0.0; FRAME_SAMPLES]);
    captor.on_data(&[0.25_f32; 480], now);
    captor.on_data(&[0.25_f32; 4_800], now);
    let mut holes = Vec::new();
    for tick in 0..20 {
        frame.fill(1.0);
        holes.push(line.next_frame(&mut frame, now + FRAME * tick));
    }
    assert_eq!(frame, [0.0; FRAME_SAMPLES]);
    assert_eq!(line.gaps, 1, "told once");
    let begun = holes.iter().position(|hole| *hole > 0).unwrap();
    assert!(begun > 0 && holes[begun] < FRAME_SAMPLES, "{holes:?}");
    assert_eq!(holes[begun + 1..], vec![FRAME_SAMPLES; 19 - begun], "all of it is missing");
    line.discard();
    assert_eq!(line.next_frame(&mut frame, now + FRAME * 20), 0, "nobody wanted it");
}

/// Callbacks of 5 ms and frames of 10, of which the callbacks stop for so long at each of some seconds and then come at
/// once. What is kept, in ms, at the end of each second.
fn margins(most: Duration, stall: Duration, at: &[u32], seconds: u32) -> (CaptureLine, Vec<f64>) {
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::RealTime).unwrap();
    line.allow(most);
    let (start, mut margins) = (Instant::now(), Vec::new());
    let (mut frame, mut given) = (vec![0.0; FRAME_SAMPLES / 2], 0);
    for ms in 0..seconds * 1_000 {
        let now = start + Duration::from_millis(ms.into());
        let since = at.iter().map(|second| ms.wrapping_sub(second * 1_000 + 500)).min().unwrap_or(u32::MAX);
        if Duration::from_millis(since.into()) >= stall {
            // What was held up comes as one.
            let due = (ms / 5).saturating_sub(given) as usize;
            given += due as u32;
            if due > 0 {
                captor.on_data(&vec![0.25_f32; due * 240], now);
            }
        }
        if ms % 10 == 3 {
            line.next_frame(&mut frame, now);
        }
        if ms % 1_000 == 999 {
            margins.push(line.figures().margin_ms);
        }
    }
    (line, margins)
}

#[test]
fn a_margin_is_what_stalls_last_but_for_the_rare_ones_and_what_the_profile_gives() {
    let (long, stall) = (Duration::from_millis(60), Duration::from_millis(20));
    let (line, kept) = margins(long, stall, &[5, 40, 75, 115], 180);
    assert_eq!((line.gaps, line.skips), (4, 0), "{kept:?}");
    assert!(kept.iter().all(|ms| (ms - 1.5).abs() < 1e-9), "a few are borne: {kept:?}");

    let often: Vec<u32> = (1..60).collect();
    let (line, kept) = margins(long, stall, &often, 180);
    assert!(line.gaps <= 4, "{} gaps", line.gaps);
    assert!(kept[10..110].iter().all(|ms| (14.0..21.0).contains(ms)), "{kept:?}");
    assert!((kept[179] - 1.5).abs() < 1e-9, "two minutes later nothing is left of it: {kept:?}");

    let (line, kept) = margins(Duration::from_millis(4), stall, &often, 80);
    assert!(line.gaps >= 50, "{} gaps", line.gaps);
    assert!(kept[10..].iter().all(|ms| (ms - 4.0).abs() < 1e-9), "{kept:?}");
}

#[test]
fn a_stall_leaves_no_delay_behind() {
    let (mut captor, mut line) = capture(48_000, 1, Scheduling::Shared).unwrap();
    let now = Instant::now();
    (0..6).for_each(|_| captor.on_data(&[0.25_f32; 480], now));
    let mut frame = [0.0; FRAME_SAMPLES];
    for tick in 0..4 {
        line.next_frame(&mut frame, now + FRAME * tick);
    }
    // What comes after a stall of half a second is worked off at once.
    let later = now + FRAME * 30;
    (0..50).for_each(|_| captor.on_data(&[0.25_f32; 480], later));
    for tick in 0..2 {
        line.next_frame(&mut frame, later + FRAME * tick);
    }
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
