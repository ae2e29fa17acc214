//! What somebody on the way sees: one size, one rhythm, and nothing of what was planted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use conclave::audio::codec::Encoder;
use conclave::audio::format::{FrameDuration, PACKET_LEN, SILENCE};
use conclave::audio::source::{Repeat, Source};
use conclave_protocol::link::Link;
use conclave_tests::process::{JsonlClient, contains, memory_holds};
use conclave_tests::proxy::{Config, Direction, Observed, Proxy, Record};
use conclave_tests::{speech, wav};

use crate::stage::{LIMIT, Meeting, Stage, admit, end, hears_more, join, observe, quantile};
use crate::voice::press;

/// How long each state is watched.
const WATCHED: Duration = Duration::from_secs(5);
/// How often at most, until one watch is calm.
const WATCHES: usize = 4;
/// Two that are calm differ by less than what [`Seen::compare`] finds too much. Milliseconds.
const CALM: f64 = 0.7;

#[test]
fn speaking_silent_and_muted_sender_look_alike_on_the_wire_and_so_does_one_who_holds_no_key_down() {
    let stage = Stage::alone();
    let input = stage.sound("talk.wav", &speech::clip(0, 8.0).unwrap());
    let mut meeting = Meeting::open(&[]);
    let recorder =
        || Proxy::start(meeting.relay.addr(), Config { record: Record::Sizes(100_000), ..Config::default() }).unwrap();
    let (of_speaker, of_silent) = (recorder(), recorder());
    let mut speaker =
        join("Bela", &meeting.link_by_way_of(of_speaker.addr()), &["--input", &input, "--loop", "--push-to-talk"]);
    meeting.admit("Bela", &speaker);
    press(&mut speaker, true);
    let silent = join("Cleo", &meeting.link_by_way_of(of_silent.addr()), &["--input", "silence"]);
    meeting.admit("Cleo", &silent);
    hears_more(&meeting.host, "Cleo", 50, LIMIT);

    let watch = |proxy: &Proxy| watch(proxy, FrameDuration::Ms20);
    let mut states = vec![("speaking", watch(&of_speaker)), ("silent", watch(&of_silent))];
    press(&mut speaker, false);
    states.push(("key up", watch(&of_speaker)));
    speaker.act("mute").unwrap();
    meeting.host.wait_event("muted", |muted| muted["on"] == true && muted["index"] == 1, LIMIT).unwrap();
    states.push(("muted", watch(&of_speaker)));
    for (name, seen) in &states {
        eprintln!("{name}: {seen:?}");
        seen.check(name, FrameDuration::Ms20);
    }
    for (name, seen) in &states[1..] {
        seen.compare(name, &states[0].1);
    }
    end(meeting.host, vec![speaker, silent]);
}

#[test]
fn frames_of_ten_ms_are_as_long_as_those_of_twenty_and_come_twice_as_often_muted_or_not() {
    let stage = Stage::alone();
    let input = stage.sound("talk.wav", &speech::clip(0, 8.0).unwrap());
    let speaking = FrameDuration::ALL.map(|frame| {
        let mut meeting = Meeting::open(&["--frame-ms", &frame.millis().to_string()]);
        let config = Config { record: Record::Sizes(100_000), ..Config::default() };
        let proxy = Proxy::start(meeting.relay.addr(), config).unwrap();
        let mut talker = join("Bela", &meeting.link_by_way_of(proxy.addr()), &["--input", &input, "--loop"]);
        meeting.admit("Bela", &talker);
        hears_more(&meeting.host, "Bela", 100, LIMIT);
        let speaking = watch(&proxy, frame);
        talker.act("mute").unwrap();
        meeting.host.wait_event("muted", |muted| muted["on"] == true && muted["index"] == 1, LIMIT).unwrap();
        let muted = watch(&proxy, frame);
        eprintln!("{frame:?}: {speaking:?}, muted: {muted:?}");
        speaking.check("speaking", frame);
        muted.check("muted", frame);
        muted.compare("muted", &speaking);
        end(meeting.host, vec![talker]);
        speaking
    });
    assert_eq!(speaking[0].size, speaking[1].size, "{speaking:?}");
}

/// What goes through a proxy in some seconds, in frames of this duration.
fn watch(proxy: &Proxy, frame: FrameDuration) -> Seen {
    let once = || {
        proxy.take_recorded();
        observe(WATCHED);
        Seen::of(&proxy.take_recorded())
    };
    // A process that waits for a busy machine sends in bunches, in any state: what a state does, it does each time, also in
    // the calmest of some watches.
    let mut calmest = once();
    for _ in 1..WATCHES {
        if calmest.unrest(frame) < CALM {
            break;
        }
        let seen = once();
        if seen.unrest(frame) < calmest.unrest(frame) {
            calmest = seen;
        }
    }
    calmest
}

/// One sender's media on the wire.
#[derive(Debug)]
struct Seen {
    /// Sizes with a frame inside, and how often each came.
    sizes: BTreeMap<usize, usize>,
    /// The size of a frame alone: the smallest that comes again and again.
    size: usize,
    /// Packets that are long enough for a seal, by size.
    seals: BTreeMap<usize, usize>,
    /// Milliseconds between frames: quartiles.
    gaps: [f64; 3],
}

impl Seen {
    fn of(observed: &[Observed]) -> Self {
        let sent = || observed.iter().filter(|sent| sent.direction == Direction::Up && sent.len >= LEAST_WITH_FRAME);
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for datagram in sent() {
            *sizes.entry(datagram.len).or_default() += 1;
        }
        let seals = sizes.split_off(&LEAST_WITH_SEAL);
        let size = *sizes.iter().find(|(_, count)| **count > ONCE_OR_TWICE).unwrap().0;
        let times: Vec<f64> = sent().map(|datagram| datagram.at.as_secs_f64() * 1000.0).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        Self { sizes, size, seals, gaps: [0.25, 0.5, 0.75].map(|share| quantile(&gaps, share)) }
    }

    /// QUIC adds to a frame's packet, when their times coincide, the acknowledgement of what came from the relay; how
    /// often, is a matter of the clocks' phase. Control messages, which come with the protocol's clock, travel with a
    /// frame or alone.
    fn check(&self, name: &str, frame: FrameDuration) {
        let with_acknowledgement = self.size..=self.size + LONGEST_ACKNOWLEDGEMENT;
        let (frames, others): (Vec<_>, Vec<_>) =
            self.sizes.iter().partition(|(size, _)| with_acknowledgement.contains(size));
        let count = |sizes: Vec<(&usize, &usize)>| sizes.into_iter().map(|(_, count)| *count).sum::<usize>();
        let (frames, others) = (count(frames), count(others));
        // A seal for every half second, whatever is said; the watch may begin and end within one.
        let seals = self.seals.values().sum::<usize>();
        assert!(seals.abs_diff(2 * WATCHED.as_secs() as usize) <= 1, "{name}: {self:?}");
        // Now and then a control message that is due at the same time travels with one.
        let least = self.seals.keys().next().copied().unwrap_or_default();
        let alone = self.seals.range(..=least + LONGEST_ACKNOWLEDGEMENT).map(|(_, count)| count).sum::<usize>();
        assert!(seals - alone <= seals / 2, "{name}: {self:?}");
        let expected = frame.count_in(WATCHED) as usize;
        assert!(others <= MOST_OTHERS, "{name}: {self:?}");
        assert!(frames <= expected + 5 && frames + others + 5 >= expected, "{name}: {frames} frames, not {expected}");
        assert!(self.is_steady(frame), "{name}: {self:?}");
    }

    fn is_steady(&self, frame: FrameDuration) -> bool {
        (self.gaps[1] - f64::from(frame.millis())).abs() < 1.0
    }

    /// By how much the quartiles of its gaps are another time than a frame's, in milliseconds.
    fn unrest(&self, frame: FrameDuration) -> f64 {
        self.gaps.iter().map(|gap| (gap - f64::from(frame.millis())).abs()).fold(0.0, f64::max)
    }

    fn compare(&self, name: &str, speaking: &Self) {
        assert_eq!(self.size, speaking.size, "{name} has another size than speaking: {self:?} {speaking:?}");
        // In one state the clocks' phase may put an acknowledgement into every seal's packet, in another into none.
        let [own, other] = [self, speaking].map(|seen| seen.seals.keys().next().copied().unwrap_or_default());
        let unlike = LONGER_OFFSET + LONGEST_ACKNOWLEDGEMENT;
        assert!(own.abs_diff(other) <= unlike, "{name} has other seals than speaking: {self:?} {speaking:?}");
        for (gap, other) in self.gaps.iter().zip(&speaking.gaps) {
            assert!((gap - other).abs() < 1.5, "{name} has another rhythm than speaking: {self:?} {speaking:?}");
        }
    }
}

/// A control message of one length may come so often in five seconds.
const ONCE_OR_TWICE: usize = 2;
/// A frame's datagram is 161 bytes before QUIC; nothing else that a client sends in a quiet meeting is as long but a
/// control message now and then.
const LEAST_WITH_FRAME: usize = 161;
/// A seal has 585 bytes before its message and QUIC (`docs/protocol.md` §9.2); no message of this meeting comes near it.
const LEAST_WITH_SEAL: usize = 585;
/// How much longer QUIC's stream offset gets after 16 KiB of control messages (RFC 9000 §16).
const LONGER_OFFSET: usize = 2;
/// Control messages of five seconds: two confirmations, three witnesses, and what acknowledges others'.
const MOST_OTHERS: usize = 10;
/// An ACK frame with two ranges.
const LONGEST_ACKNOWLEDGEMENT: usize = 14;

const PASSCODE: &str = "planted passcode";

#[test]
fn nothing_planted_is_in_any_datagram_on_the_wire_or_in_the_memory_of_the_relay() {
    // A client whose machine stalls leaves out what was to be said meanwhile, and its encoder makes other packets from
    // there on than the test computes.
    let looked_for_what_is_sent = (0..3).any(|_| finds_nothing_planted());
    assert!(looked_for_what_is_sent, "the packets looked for are not those that are sent");
}

/// Looks for all that must be nowhere, and says whether the talker itself has the packets among it.
fn finds_nothing_planted() -> bool {
    let stage = Stage::alone();
    // Not repeated, so that the encoder's state, and with it every packet, is the one that the test computes.
    let said = stage.sound("talk.wav", &speech::clip(3, 60.0).unwrap());
    let mut meeting = Meeting::open(&["--passcode", PASSCODE]);
    let record = Config { record: Record::Bytes(64 << 20), ..Config::default() };
    let proxy = Proxy::start(meeting.relay.addr(), record).unwrap();
    let link = meeting.link_by_way_of(proxy.addr());
    let talker = join("Planted-Talker", &link, &["--passcode", PASSCODE, "--input", &said]);
    admit(&mut meeting.host, "Planted-Talker", &talker);
    let listener = join("Planted-Listener", &link, &["--passcode", PASSCODE]);
    admit(&mut meeting.host, "Planted-Listener", &listener);
    hears_more(&listener, "Planted-Talker", 150, LIMIT);

    let packets = opus_packets(&said);
    let planted = planted(&meeting.link, &said, &packets);
    let id = Link::parse(&meeting.link).unwrap().meeting;
    let needles: Vec<&[u8]> = planted.iter().map(Vec::as_slice).chain([&id.0[..]]).collect();
    let relay = memory_holds(meeting.relay.pid(), &needles).unwrap();
    let (known, relay) = relay.split_last().unwrap();
    assert!(known, "the relay must know the meeting's id: else its memory was not really searched");
    assert!(relay.iter().all(|found| !found), "planted strings in the relay's memory: {relay:?}");
    let looked_for_what_is_sent = talker_holds_a_packet(&talker, &packets);

    let recorded = proxy.take_recorded();
    assert!(recorded.len() > 500 && proxy.unrecorded() == 0, "{} datagrams recorded", recorded.len());
    for needle in &planted {
        assert!(!recorded.iter().any(|datagram| contains(&datagram.bytes, needle)), "{needle:?} is on the wire");
    }
    end(meeting.host, vec![talker, listener]);
    looked_for_what_is_sent
}

/// Names, passcode, secret as text and as bytes, sound, and packets.
fn planted(link: &str, said: &str, packets: &[[u8; PACKET_LEN]]) -> Vec<Vec<u8>> {
    let (_, secret) = link.split_once('#').unwrap();
    let secret_bytes = data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes()).unwrap();
    let texts = ["Hestia", "Planted-Talker", "Planted-Listener", PASSCODE, secret];
    let mut planted: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    planted.push(secret_bytes);
    planted.extend(pcm_markers(said));
    // One packet in ten of the first ten seconds, which are past when the search begins.
    planted.extend(packets.iter().take(500).step_by(10).map(|packet| packet[..MARKER].to_vec()));
    planted
}

/// Bytes that do not come by chance.
const MARKER: usize = 24;

/// Pieces of the loudest second as 16-bit and as float samples.
fn pcm_markers(said: &str) -> Vec<Vec<u8>> {
    let sound = wav::read(Path::new(said)).unwrap().between(1.0, 2.0);
    let loudest = (0..sound.samples.len()).max_by(|a, b| sound.samples[*a].total_cmp(&sound.samples[*b])).unwrap();
    let start = loudest.min(sound.samples.len() - MARKER);
    let piece = &sound.samples[start..start + MARKER / 2];
    let integers = sound.to_i16()[start..start + MARKER / 2].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    vec![integers, piece.iter().take(MARKER / 4).flat_map(|sample| sample.to_le_bytes()).collect()]
}

/// What the talker's encoder makes of its input: it is deterministic.
fn opus_packets(said: &str) -> Vec<[u8; PACKET_LEN]> {
    let (mut source, mut encoder) =
        (Source::open(said, Repeat::Once).unwrap(), Encoder::new(FrameDuration::Ms20).unwrap());
    let (mut pcm, mut packet) = (SILENCE, [0; PACKET_LEN]);
    let encode = |_| {
        source.next_frame(&mut pcm);
        encoder.encode(&pcm, &mut packet).unwrap();
        packet
    };
    (0..3000).map(encode).collect()
}

/// Whether one of the packets, which are gone when the next is made, is in the memory of the talker, where it must be.
fn talker_holds_a_packet(talker: &JsonlClient, packets: &[[u8; PACKET_LEN]]) -> bool {
    let needles: Vec<&[u8]> = packets.iter().map(|packet| &packet[..MARKER]).collect();
    memory_holds(talker.pid(), &needles).unwrap().contains(&true)
}
