//! The media path allocates nothing per frame: capture, encode, seal, and open, keep as evidence, queue, decode, mix.
//! Seals and everything else on the control stream go on between the frames, and are not measured.
//!
//! What lies between the two, quinn and the sockets, is not ours and not measured here; the session hands it one
//! reused buffer (`client/src/session`).

#![allow(clippy::unwrap_used)] // A test may panic.

use std::time::Duration;

use conclave::audio::engine::MediaEngine;
use conclave::audio::sink::Sink;
use conclave::audio::source::{Repeat, Source};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_tests::room::Room;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const FRAME: Duration = Duration::from_millis(20);

/// One frame from the host's source to the guest's sink.
fn carry(room: &mut Room, talker: &mut MediaEngine, listener: &mut MediaEngine, seq: u32) {
    let now = room.now();
    let captured = talker.capture(false);
    let frame = Frame { seq, stamp: 0, microphone: Microphone::On, level: captured.level, opus: captured.opus };
    let mut datagram = [0; DATAGRAM_LEN];
    room.clients[0].seal(now, &frame, &mut datagram).unwrap();
    let mut plaintext = [0; PLAINTEXT_LEN];
    // Every tenth frame is lost, so that concealment is measured as well.
    if !seq.is_multiple_of(10) {
        let (index, frame) = room.clients[1].open(now, &datagram, &mut plaintext).unwrap().unwrap();
        listener.receive(index.0, frame.seq, false, frame.level, frame.opus, now);
    }
    listener.render(now);
}

#[test]
fn a_frame_allocates_nothing_on_its_way_from_source_to_sink() {
    let mut room = Room::with_members(3);
    let engine = || MediaEngine::new(Source::open("tone", Repeat::Once).unwrap(), Sink::open("null").unwrap()).unwrap();
    let (mut talker, mut listener) = (engine(), engine());
    listener.add_talker(0).unwrap();
    for seq in 0..100 {
        carry(&mut room, &mut talker, &mut listener, seq);
        room.pass(FRAME);
    }
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut allocated = 0;
    // Forty segments of 25 frames: key changes and seals are on the path, too.
    for seq in 100..1_100 {
        let before = dhat::HeapStats::get().total_blocks;
        carry(&mut room, &mut talker, &mut listener, seq);
        allocated += dhat::HeapStats::get().total_blocks - before;
        room.pass(FRAME);
    }
    assert_eq!(allocated, 0, "the media path allocated");
    let stats = listener.stats(0).unwrap();
    assert!(stats.played >= 980 && stats.concealed >= 100, "frames did not pass: {stats:?}");
    assert!(room.clients[0].own_stamp().is_some(), "no seal has passed");
}
