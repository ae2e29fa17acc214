//! The media path allocates nothing per frame: capture, encode, seal, and open, keep as evidence, queue, decode, mix;
//! nor do the callbacks of sound devices and what stands between them and the frame clock. What is done to the sound of a
//! microphone where that is switched on does allocate, on the frame clock's thread; that it frees everything is shown here.
//! Seals and everything else on the control stream go on between the frames, and are not measured.
//!
//! What lies between the two, quinn and the sockets, is not ours and not measured here; the session hands it one
//! reused buffer (`client/src/session`).

#![allow(clippy::unwrap_used)] // A test may panic.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conclave::audio::device::line;
use conclave::audio::engine::MediaEngine;
use conclave::audio::format::{FrameDuration, SILENCE, STEP, STEP_SAMPLES, samples, steps};
use conclave::audio::mixer::Volume;
use conclave::audio::playout::Config;
use conclave::audio::process::Switches;
use conclave::audio::sink::Sink;
use conclave::audio::source::{Repeat, Source};
use conclave::realtime::Scheduling;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_tests::room::Room;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The counts are those of the whole process.
static COUNTING: Mutex<()> = Mutex::new(());
/// Until the harness has nothing to do any more after it has started a test, or ended another: far beyond what it takes.
const STARTED: Duration = Duration::from_millis(300);

/// One frame from the host's source to the guest's sink.
fn carry(room: &mut Room, talker: &mut MediaEngine, listener: &mut MediaEngine, seq: u32) {
    let now = room.now();
    let captured = talker.capture(false);
    let frame = Frame { seq, stamp: 0, microphone: Microphone::On, level: captured.level, opus: captured.opus };
    let mut datagram = [0; DATAGRAM_LEN];
    room.clients[0].seal(now, &frame, &mut datagram).unwrap();
    let mut plaintext = [0; PLAINTEXT_LEN];
    // Every tenth frame is lost, so that concealment is measured as well, and once many are, for comfort noise.
    if !seq.is_multiple_of(10) && !(500..550).contains(&seq) {
        let (index, frame) = room.clients[1].open(now, &datagram, &mut plaintext).unwrap().unwrap();
        listener.receive(index.0, frame.seq, false, frame.level, frame.opus, now);
    }
    listener.render(now);
}

#[test]
fn a_frame_allocates_nothing_on_its_way_from_source_to_sink() {
    let _alone = alone();
    FrameDuration::ALL.into_iter().for_each(allocates_nothing);
    processing_frees_what_it_allocates();
}

fn allocates_nothing(frame: FrameDuration) {
    let mut room = Room::with_frames(3, frame);
    let engine = || {
        let source = Source::open("tone", Repeat::Once).unwrap();
        MediaEngine::with_config(source, Sink::open("null").unwrap(), Config::of(frame)).unwrap()
    };
    let (mut talker, mut listener) = (engine(), engine());
    listener.add_talker(0).unwrap();
    // So loud that the limiter has to limit.
    listener.set_volume(0, Volume::new(Volume::MAX_PERCENT).unwrap());
    talker.set_processing(Switches::default());
    for seq in 0..100 {
        carry(&mut room, &mut talker, &mut listener, seq);
        room.pass(frame.duration());
    }
    let profiler = dhat::Profiler::builder().testing().build();
    let mut allocated = 0;
    // Forty segments of 25 frames, or twenty of 50: key changes and seals are on the path, too.
    for seq in 100..1_100 {
        let before = dhat::HeapStats::get().total_blocks;
        carry(&mut room, &mut talker, &mut listener, seq);
        allocated += dhat::HeapStats::get().total_blocks - before;
        room.pass(frame.duration());
    }
    assert_eq!(allocated, 0, "the media path allocated: {frame:?}");
    let stats = listener.stats(0).unwrap();
    assert!(stats.played >= 930 && stats.concealed >= 100, "frames did not pass: {stats:?}");
    assert!(room.clients[0].own_stamp().is_some(), "no seal has passed");
    drop(profiler);
}

/// In another test's turn: a test more, and the harness would start a thread while another one counts.
fn processing_frees_what_it_allocates() {
    let mut engine = MediaEngine::new(Source::open("tone", Repeat::Once).unwrap(), Sink::Null).unwrap();
    engine.set_processing(Switches::ALL);
    engine.warn_when_muted();
    let start = Instant::now();
    let mut run = |ticks: std::ops::Range<u32>| {
        for tick in ticks {
            engine.capture(tick % 2 == 0);
            engine.render(start + FrameDuration::Ms20.duration() * tick);
        }
    };
    let _profiler = dhat::Profiler::builder().testing().build();
    run(0..300);
    let (allocated, kept) = counted(|| run(300..600));
    // Were it none, the documentation of the media path would say too much.
    assert!(allocated > 0, "the library does not allocate any more: say so in the documentation");
    assert_eq!(kept, 0);
}

/// Waits until no other test counts, and the harness, which has started this test, allocates nothing any more.
fn alone() -> MutexGuard<'static, ()> {
    let alone = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::sleep(STARTED);
    alone
}

/// Blocks allocated by `work`, freed ones included; and blocks in use after it that were not before.
fn counted(mut work: impl FnMut()) -> (u64, i64) {
    let before = dhat::HeapStats::get();
    work();
    let after = dhat::HeapStats::get();
    (after.total_blocks - before.total_blocks, after.curr_blocks as i64 - before.curr_blocks as i64)
}

#[test]
fn a_devices_callback_neither_allocates_nor_frees_and_nor_does_the_frame_clocks_half() {
    let _alone = alone();
    for rate in [16_000, 44_100, 48_000, 96_000] {
        for (channels, of) in [(1, FrameDuration::Ms20), (2, FrameDuration::Ms20), (2, FrameDuration::Ms10)] {
            let (mut captor, mut capture) = line::capture(rate, channels, Scheduling::Shared).unwrap();
            let (mut player, mut playback) = line::playback(rate, channels, Scheduling::Shared).unwrap();
            let callback = rate as usize * usize::from(of.millis()) / 1_000;
            let recorded = vec![100_i16; callback * usize::from(channels)];
            let mut played = vec![0.0_f32; recorded.len()];
            let mut frame = SILENCE;
            let start = Instant::now();
            let _profiler = dhat::Profiler::builder().testing().build();
            let counts = counted(|| {
                for tick in 0..200 {
                    let now = start + of.duration() * tick;
                    // Some callbacks stay away, and one brings too much: gaps and surplus are on the path, too.
                    if tick % 50 != 7 {
                        captor.on_data(&recorded, now);
                        player.on_data(&mut played, now);
                    }
                    if tick == 150 {
                        (0..5).for_each(|_| player.on_data(&mut played, now));
                    }
                    if tick == 100 {
                        (0..100).for_each(|_| captor.on_data(&recorded, now));
                    }
                    capture.next_frame(&mut frame[..samples(of)], now);
                    (0..steps(of) as u32).for_each(|n| playback.write(&[100; STEP_SAMPLES], now + STEP * n));
                }
                capture.discard();
            });
            assert_eq!(counts, (0, 0), "{rate} Hz, {channels} channels, {of:?}");
            assert!(frame.iter().any(|sample| *sample > 0.002), "nothing has passed");
            let (recorded, played) = (capture.figures(), playback.figures());
            assert!(recorded.gaps + recorded.skips > 0 && played.gaps > 0);
        }
    }
}
