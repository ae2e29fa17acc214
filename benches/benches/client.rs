//! What a client computes in a call: all of it, and the processing of its microphone.
//!
//! Times are the thread's CPU time, so that a busy machine does not count. One iteration is a second of the call: 10 ms
//! are 1 % of a core.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros make public items; a bench may panic.

use std::time::{Duration, Instant};

use conclave::audio::engine::MediaEngine;
use conclave::audio::format::{FRAME, FRAME_SAMPLES, FrameDuration, PACKET_LEN, SAMPLE_RATE};
use conclave::audio::playout::Config;
use conclave::audio::process::{Process, Switches};
use conclave::audio::profile::Profile;
use conclave::audio::sink::Sink;
use conclave::audio::source::{Recording, Repeat, Source};
use conclave_protocol::conference::Conference;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_tests::room::Room;
use conclave_tests::speech;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

/// Frames of 20 ms in a second.
const FRAMES: usize = SAMPLE_RATE as usize / FRAME_SAMPLES;

fn in_a_second(frame: FrameDuration) -> usize {
    1_000 / usize::from(frame.millis())
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn speaker(number: usize) -> Source {
    Source::Wav(Recording::new(speech::clip(number, 8.0).unwrap().to_i16(), Repeat::Loop))
}

/// A quiet room, in which nobody speaks, with the microphone on.
fn quiet(number: usize) -> Source {
    let mut state = number as u32 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state.cast_signed() >> 16) as i16 / 1_000
    };
    Source::Wav(Recording::new((0..SAMPLE_RATE).map(|_| next()).collect(), Repeat::Loop))
}

/// A second of somebody's frames, again and again.
struct Talker {
    frames: Vec<(u8, [u8; PACKET_LEN])>,
}

impl Talker {
    fn new(source: Source, frame: FrameDuration) -> Self {
        let mut engine = MediaEngine::with_config(source, Sink::Null, Config::of(frame)).unwrap();
        let frames = (0..in_a_second(frame)).map(|_| {
            let captured = engine.capture(false);
            (captured.level, captured.opus.try_into().unwrap())
        });
        Self { frames: frames.collect() }
    }
}

/// A meeting in which everybody sends; the host is the one who is measured.
struct Call {
    room: Room,
    engine: MediaEngine,
    talkers: Vec<Talker>,
    frame: FrameDuration,
    seq: u32,
}

impl Call {
    fn new(others: impl Iterator<Item = Source>, switches: Switches, frame: FrameDuration) -> Self {
        let talkers: Vec<Talker> = others.map(|source| Talker::new(source, frame)).collect();
        let mut engine = MediaEngine::with_config(speaker(0), Sink::Null, Config::of(frame)).unwrap();
        engine.set_processing(switches);
        let room = Room::with_frames(talkers.len() + 1, frame);
        for index in 1..=talkers.len() {
            engine.add_talker(u16::try_from(index).unwrap()).unwrap();
        }
        Self { room, engine, talkers, frame, seq: 0 }
    }

    /// A second; the host's CPU time in it: its own frames, everybody else's, their seals.
    fn second(&mut self) -> Duration {
        let (mut used, seals) = (Duration::ZERO, self.room.on_seals[0]);
        for frame in 0..in_a_second(self.frame) {
            self.seq += 1;
            let now = self.room.now();
            let (host, others) = self.room.clients.split_first_mut().unwrap();
            let sent = others.iter_mut().zip(&self.talkers).map(|(other, talker)| {
                let (level, opus) = &talker.frames[frame];
                sealed(other, self.seq, *level, opus, now)
            });
            let datagrams: Vec<_> = sent.collect();
            let start = cpu();
            let captured = self.engine.capture(false);
            sealed(host, self.seq, captured.level, captured.opus, now);
            for datagram in &datagrams {
                let mut plaintext = [0; PLAINTEXT_LEN];
                let (index, frame) = host.open(now, datagram, &mut plaintext).unwrap().unwrap();
                self.engine.receive(index.0, frame.seq, false, frame.level, frame.opus, now);
            }
            self.engine.render(now);
            used += cpu() - start;
            self.room.pass(self.frame.duration());
        }
        used + (self.room.on_seals[0] - seals)
    }
}

fn sealed(client: &mut Conference, seq: u32, level: u8, opus: &[u8], now: Instant) -> [u8; DATAGRAM_LEN] {
    let frame = Frame { seq, stamp: 0, microphone: Microphone::On, level, opus };
    let mut out = [0; DATAGRAM_LEN];
    client.seal(now, &frame, &mut out).unwrap();
    out
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("a second of a call");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let nine = || (1..10).map(speaker);
    let fifty = || (0..50).map(|n| if n < 5 { speaker(n + 1) } else { quiet(n) });
    let mut bench = |name: &str, make: &dyn Fn() -> Call| {
        group.bench_function(name, |b| {
            let mut call = make();
            (0..3).for_each(|_| _ = call.second());
            b.iter_custom(|seconds| (0..seconds).map(|_| call.second()).sum());
        });
    };
    for frame in FrameDuration::ALL {
        let mut bench = |name: &str, make: &dyn Fn(FrameDuration) -> Call| {
            bench(&format!("{name}, {} ms", frame.millis()), &|| make(frame));
        };
        bench("ten people, all sending", &|frame| Call::new(nine(), Switches::default(), frame));
        bench("ten people, all sending, with processing", &|frame| Call::new(nine(), Switches::ALL, frame));
        bench("fifty received, five speak", &|frame| Call::new(fifty(), Switches::default(), frame));
        bench("fifty received, five speak, with processing", &|frame| Call::new(fifty(), Switches::ALL, frame));
    }
    group.finish();
}

fn processing(c: &mut Criterion) {
    let mut group = c.benchmark_group("a second of a microphone");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let (far, near) = (speech::clip(0, 8.0).unwrap().samples, speech::clip(3, 8.0).unwrap().samples);
    // An echo as loud as a tenth, 100 ms later.
    let echo = std::iter::repeat_n(&0.0, SAMPLE_RATE as usize / 10).chain(&far).map(|sample| sample * 0.1);
    let heard: Vec<f32> = near.iter().zip(echo).map(|(near, echo)| near + echo).collect();
    let off = Switches::default();
    for (name, switches) in [
        ("echo cancellation", Switches { echo_cancellation: true, ..off }),
        ("noise suppression", Switches { noise_suppression: true, ..off }),
        ("automatic gain", Switches { auto_gain: true, ..off }),
        ("all", Switches::ALL),
    ] {
        group.bench_function(name, |b| {
            let mut process = Process::new(switches);
            let mut frames = heard.chunks_exact(FRAME_SAMPLES).zip(far.chunks_exact(FRAME_SAMPLES)).cycle();
            b.iter_custom(|seconds| {
                let mut used = Duration::ZERO;
                for _ in 0..seconds as usize * FRAMES {
                    let (heard, played) = frames.next().unwrap();
                    let mut sound = heard.to_vec();
                    let start = cpu();
                    process.capture(&mut sound);
                    process.played(played);
                    used += cpu() - start;
                }
                used
            });
        });
    }
    group.finish();
}

/// Ten talkers at one listener who all lose the same frames, as they do with a packet of a relay.
struct Crowd {
    engine: MediaEngine,
    talkers: Vec<Talker>,
    start: Instant,
    seq: u32,
}

impl Crowd {
    fn new(profile: Profile) -> Self {
        let talkers: Vec<Talker> = (0..10).map(|n| Talker::new(speaker(n), FrameDuration::Ms20)).collect();
        let mut engine =
            MediaEngine::with_config(Source::Silence, Sink::Null, profile.config(FrameDuration::Ms20)).unwrap();
        (0..10).for_each(|index| engine.add_talker(index).unwrap());
        Self { engine, talkers, start: Instant::now(), seq: 0 }
    }

    /// The time in which a tick is played; before it everybody's frame came, or nobody's.
    fn tick(&mut self, arrives: bool) -> Duration {
        self.seq += 1;
        let now = self.start + FRAME * self.seq;
        for (index, talker) in self.talkers.iter().enumerate().filter(|_| arrives) {
            let (level, opus) = &talker.frames[self.seq as usize % FRAMES];
            self.engine.receive(u16::try_from(index).unwrap(), self.seq, false, *level, opus, now);
        }
        let start = cpu();
        self.engine.render(now);
        cpu() - start
    }

    /// The longest tick of a second in which so many frames in a row are lost.
    fn longest(&mut self, lost: usize) -> Duration {
        (0..FRAMES).map(|n| self.tick(n >= lost)).max().unwrap()
    }
}

fn losses(c: &mut Criterion) {
    let mut group = c.benchmark_group("the longest tick, ten talkers");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, profile, lost) in [
        ("nothing lost", Profile::PoorNetwork, 0),
        ("one frame of each lost", Profile::Default, 1),
        ("five of each lost, not bridged", Profile::Default, 5),
        ("five of each lost, bridged", Profile::PoorNetwork, 5),
    ] {
        group.bench_function(name, |b| {
            let mut crowd = Crowd::new(profile);
            crowd.longest(0);
            b.iter_custom(|seconds| (0..seconds).map(|_| crowd.longest(lost)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, calls, processing, losses);
criterion_main!(benches);
