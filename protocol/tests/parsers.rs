//! Whatever comes in, no parser panics, and what one accepts has exactly the bytes that it accepts.
//!
//! The well-formed samples are the golden vectors; every truncation and every single flipped bit of them is tried, and
//! random bytes beside.
#![cfg(feature = "conference")]

use std::time::{Duration, Instant};

use conclave_protocol::capability::{Capability, KnockGate, Revoked, SignedCapability};
use conclave_protocol::conference::{Conference, HostConfig, JoinConfig, Start, WaitingRoom};
use conclave_protocol::descriptor::{Descriptor, Region};
use conclave_protocol::epoch::broadcast::{Broadcast, Channel, Confirm, Heartbeat, Passed, Published, Said};
use conclave_protocol::epoch::roster::Member;
use conclave_protocol::epoch::statement::{Act, Op, Settings, Statement};
use conclave_protocol::epoch::witness::{WitnessKey, Witnessed};
use conclave_protocol::id::{Epoch, MeetingId, MemberIndex, Term};
use conclave_protocol::identity::{DisplayName, IdCert, Identity, IdentityKind, JoinKeys, Role};
use conclave_protocol::link::{Link, LinkSecret, RelayAddress};
use conclave_protocol::noise::handshake::Passcode;
use conclave_protocol::noise::mesh::{MESSAGE_LEN, Pair};
use conclave_protocol::seal::{Contradiction, SealBody, SealHead};
use conclave_protocol::secret::Secret;
use conclave_protocol::sframe::frame::PLAINTEXT_LEN;
use conclave_protocol::sframe::receiver::Ciphertext;
use conclave_protocol::sign::{PublicKey, Signature};
use conclave_protocol::stamp::{SealPublic, Stamp};
use conclave_protocol::succession::{Delegate, Line};
use conclave_protocol::time::{FrameDuration, UnixMillis};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::control::{
    Denial, EpochKey, KnockShown, LedgerEntry, Message, Missed, RemovalNotice, Request,
};
use conclave_protocol::wire::datagram::{self, Datagram};
use conclave_protocol::wire::relay::{FromRelay, MailboxId, Refusal, ToRelay};
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{SeedableRng, TryCryptoRng, TryRng};
use serde_json::Value;
use zeroize::Zeroizing;

// ---- samples ----

const FILES: [&str; 10] = [
    include_str!("../../tests/vectors/link.json"),
    include_str!("../../tests/vectors/handshake.json"),
    include_str!("../../tests/vectors/capability.json"),
    include_str!("../../tests/vectors/control.json"),
    include_str!("../../tests/vectors/statement.json"),
    include_str!("../../tests/vectors/key-schedule.json"),
    include_str!("../../tests/vectors/frame.json"),
    include_str!("../../tests/vectors/mesh.json"),
    include_str!("../../tests/vectors/broadcast.json"),
    include_str!("../../tests/vectors/seal.json"),
];

/// Every byte string of the vectors, whatever it means there.
fn samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for file in FILES {
        collect(&serde_json::from_str(file).expect("the vectors are JSON"), &mut all);
    }
    all.sort();
    all.dedup();
    assert!(all.len() > 400);
    all
}

fn collect(value: &Value, into: &mut Vec<Vec<u8>>) {
    match value {
        Value::Array(values) => values.iter().for_each(|v| collect(v, into)),
        Value::Object(values) => values.values().for_each(|v| collect(v, into)),
        Value::String(text) => into.extend(HEXLOWER.decode(text.as_bytes()).ok()),
        _ => {}
    }
}

fn at<'a>(file: &'a Value, path: &[&str]) -> &'a str {
    let found = path.iter().fold(file, |value, key| match value {
        Value::Array(values) => &values[key.parse::<usize>().expect("a position")],
        value => &value[key],
    });
    found.as_str().expect("a text")
}

fn sample(file: usize, path: &[&str]) -> Vec<u8> {
    let file: Value = serde_json::from_str(FILES[file]).expect("the vectors are JSON");
    HEXLOWER.decode(at(&file, path).as_bytes()).expect("hexadecimal digits")
}

fn a_link() -> String {
    let file: Value = serde_json::from_str(FILES[0]).expect("the vectors are JSON");
    at(&file, &["links", "1", "link"]).to_owned()
}

/// Gives some bytes, once.
struct Fixed(Vec<u8>);

impl TryRng for Fixed {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("only bytes are drawn")
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("only bytes are drawn")
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

// ---- encodings ----

/// Refused, or put together again from what was read. Whether it was accepted.
fn check<T: Wire>(bytes: &[u8]) -> bool {
    T::decode(bytes).inspect(|value| assert_eq!(value.encode(), bytes)).is_ok()
}

/// Tries everything near the well-formed `bytes`.
fn sweep<T: Wire>(bytes: &[u8]) {
    assert!(check::<T>(bytes), "the sample is well-formed");
    for len in 0..bytes.len() {
        assert!(T::decode(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
    assert!(T::decode(&[bytes, &[0]].concat()).is_err(), "a byte too many");
    for bit in 0..bytes.len() * 8 {
        check::<T>(&flipped(bytes, bit));
    }
}

/// Tries `bytes` as every type that has an encoding.
fn check_as_everything(bytes: &[u8]) -> usize {
    [
        check::<MemberIndex>(bytes),
        check::<Term>(bytes),
        check::<UnixMillis>(bytes),
        check::<MeetingId>(bytes),
        check::<Epoch>(bytes),
        check::<[u8; 32]>(bytes),
        check::<PublicKey>(bytes),
        check::<Signature>(bytes),
        check::<Descriptor>(bytes),
        check::<Region>(bytes),
        check::<Capability>(bytes),
        check::<SignedCapability>(bytes),
        check::<Revoked>(bytes),
        check::<KnockGate>(bytes),
        check::<IdentityKind>(bytes),
        check::<Role>(bytes),
        check::<JoinKeys>(bytes),
        check::<IdCert>(bytes),
        check::<DisplayName>(bytes),
        check::<Member>(bytes),
        check::<Act>(bytes),
        check::<Op>(bytes),
        check::<Settings>(bytes),
        check::<Statement>(bytes),
        check::<Delegate>(bytes),
        check::<Line>(bytes),
        check::<Heartbeat>(bytes),
        check::<Confirm>(bytes),
        check::<Passed>(bytes),
        check::<Said>(bytes),
        check::<Broadcast>(bytes),
        check::<Published>(bytes),
        check::<SealHead>(bytes),
        check::<SealPublic>(bytes),
        check::<Contradiction>(bytes),
        check::<Stamp>(bytes),
        check::<Witnessed>(bytes),
        check::<Request>(bytes),
        check::<LedgerEntry>(bytes),
        check::<KnockShown>(bytes),
        check::<Missed>(bytes),
        check::<Denial>(bytes),
        check::<EpochKey>(bytes),
        check::<Message>(bytes),
        check::<RemovalNotice>(bytes),
        check::<Refusal>(bytes),
        check::<MailboxId>(bytes),
        check::<ToRelay>(bytes),
        check::<FromRelay>(bytes),
    ]
    .into_iter()
    .filter(|accepted| *accepted)
    .count()
}

#[test]
fn every_sample_is_safe_to_read_as_any_type() {
    let accepted: usize = samples().iter().map(|bytes| check_as_everything(bytes)).sum();
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn objects_near_well_formed_ones_are_refused_or_canonical() {
    sweep::<Descriptor>(&sample(0, &["links", "1", "descriptor"]));
    sweep::<IdCert>(&sample(0, &["people", "0", "cert"]));
    sweep::<JoinKeys>(&sample(0, &["people", "0", "keys"]));
    sweep::<SignedCapability>(&sample(2, &["capabilities", "0", "capability"]));
    sweep::<Capability>(&sample(2, &["capabilities", "0", "capability"])[..78]);
    sweep::<Revoked>(&sample(2, &["revoked", "2", "bytes"]));
    sweep::<KnockGate>(&sample(2, &["knock_gates", "1", "bytes"]));
    for line in ["0", "1", "2"] {
        sweep::<Line>(&sample(2, &["lines", line, "line"]));
    }
    sweep::<Delegate>(&sample(2, &["lines", "0", "line"])[26..92]);
    sweep::<Member>(&sample(4, &["epochs", "1", "roster", "2", "entry"]));
    sweep::<Statement>(&sample(4, &["epochs", "1", "statement"]));
    sweep::<RemovalNotice>(&sample(4, &["removal_notices", "1", "bytes"]));
    for epoch in ["1", "2"] {
        sweep::<EpochKey>(&sample(4, &["epochs", epoch, "epoch_keys", "1"])[1..]);
    }
    sweep::<Witnessed>(&sample(8, &["witness", "shown", "0", "message"]));
    sweep::<DisplayName>(&[&[3][..], "é!".as_bytes(), &[0; 61]].concat());
    sweep::<Region>(b"\x02eu");
    for tag in 1..=20 {
        let of_member = matches!(tag, 1..=4 | 14..=18);
        sweep::<Act>(&[tag, 0, if of_member { 7 } else { 0 }]);
        sweep::<Op>(&[tag, 0, if of_member { 7 } else { 0 }, 0xFF, 0xFF]);
        assert_eq!(check::<Op>(&[tag, 0, 7, 0, 0]), of_member, "an op of nobody has no index");
    }
    assert!(!check::<Op>(&[0, 0, 0, 0, 0]) && !check::<Op>(&[21, 0, 0, 0, 0]));
    (0..8).for_each(|bits| sweep::<Settings>(&[bits]));
    assert!((8..=u8::MAX).all(|bits| !check::<Settings>(&[bits])));
    sweep::<Epoch>(&[0, 0xFF, 0xFF, 0xFF]);
    for byte in [0, 1] {
        sweep::<Role>(&[byte]);
        sweep::<IdentityKind>(&[byte]);
    }
    (1..=5).for_each(|byte| sweep::<Denial>(&[byte]));
    (1..=9).for_each(|byte| sweep::<Refusal>(&[byte]));
}

#[test]
fn seals_and_what_contradicts_itself_near_well_formed_ones_are_refused_or_canonical() {
    sweep::<Broadcast>(&sample(9, &["heads_message"]));
    for path in [["senders", "0", "seals", "2"], ["senders", "1", "seals", "0"]] {
        let part = |name| sample(9, &[&path[..], &[name]].concat());
        sweep::<SealHead>(&part("head"));
        sweep::<SealPublic>(&part("public"));
        let seal = part("seal");
        let meeting = MeetingId(sample(9, &["meeting_id"]).try_into().expect("20 bytes"));
        let key = Secret::new(part("SK").try_into().expect("32 bytes"));
        let opens = |bytes: &[u8], per_segment| SealBody::open(bytes, &meeting, &key, per_segment).is_ok();
        let per_segment = if seal.len() == 585 { 25 } else { 50 };
        assert!(opens(&seal, per_segment) && !opens(&seal, 75 - per_segment));
        assert!((0..seal.len()).all(|len| !opens(&seal[..len], per_segment)));
        assert!((0..seal.len() * 8).step_by(7).all(|bit| !opens(&flipped(&seal, bit), per_segment)));
    }
    sweep::<Stamp>(&sample(9, &["stamps", "0", "stamp"]));
    sweep::<Contradiction>(&sample(9, &["contradictions", "0"]));
    sweep::<Contradiction>(&sample(9, &["contradictions", "1"]));
}

#[test]
fn messages_to_all_near_well_formed_ones_are_refused_or_canonical() {
    let file: Value = serde_json::from_str(FILES[8]).expect("the vectors are JSON");
    for case in file["messages"].as_array().expect("a list") {
        let message = HEXLOWER.decode(at(case, &["message"]).as_bytes()).expect("hexadecimal digits");
        sweep::<Broadcast>(&message);
        match at(case, &["what"]) {
            "heartbeat" => sweep::<Heartbeat>(&message[1..]),
            "confirm" => sweep::<Confirm>(&message[1..]),
            "passed" => sweep::<Passed>(&message[3..114]),
            "published" => sweep::<Published>(&message[1..]),
            _ => sweep::<Said>(&message[1..]),
        }
    }
    // A value that is not shown is zeros.
    let mut hidden = sample(8, &["messages", "12", "message"])[1..].to_vec();
    assert_eq!(hidden[12..45], [0; 33]);
    hidden[44] = 1;
    assert!(!check::<Confirm>(&hidden));
    let said = |text: &[u8]| {
        let len = u16::try_from(text.len()).expect("short");
        check::<Said>(&[&[1][..], &len.to_be_bytes(), text, &[0; 64]].concat())
    };
    assert!(said(b"x") && said(&[b'x'; 2_000]) && said("é".as_bytes()));
    assert!(!said(b"") && !said(&[b'x'; 2_001]) && !said(&[0xFF]));
}

#[test]
fn whom_a_request_may_concern_is_bounded() {
    let request = |kind: u8, whom: u32| check::<Request>(&[&[0, 0, 0, 1, 1, kind][..], &whom.to_be_bytes()].concat());
    assert!(request(0, 0) && !request(0, 1));
    assert!(request(1, 0) && request(1, u32::MAX));
    assert!(request(2, 0) && request(2, 0xFFFF) && !request(2, 0x1_0000));
    assert!((3..=u8::MAX).all(|kind| !request(kind, 0)));
    let verb = |verb: u8| check::<Request>(&[0, 0, 0, 1, verb, 0, 0, 0, 0, 0]);
    assert!((1..=12).all(verb) && !verb(0) && !(13..=u8::MAX).any(verb));
}

#[test]
fn a_line_names_every_cohost_once_and_never_the_host() {
    let delegate = |slot: u16| [&slot.to_be_bytes()[..], &[7; 64]].concat();
    let line = |slots: &[u16]| {
        let count = u16::try_from(slots.len()).expect("few");
        let delegates: Vec<u8> = slots.iter().flat_map(|slot| delegate(*slot)).collect();
        check::<Line>(&[&[1; 24][..], &count.to_be_bytes(), &delegates, &[0; 64]].concat())
    };
    assert!(line(&[]) && line(&[1]) && line(&[0xFFFE, 1]) && line(&[8, 7, 6, 5, 4, 3, 2, 1]));
    assert!(!line(&[0]) && !line(&[0xFFFF]) && !line(&[1, 2, 1]) && !line(&[9, 8, 7, 6, 5, 4, 3, 2, 1]));
}

#[test]
fn messages_near_well_formed_ones_are_refused_or_canonical() {
    let control: Value = serde_json::from_str(FILES[3]).expect("the vectors are JSON");
    let all = |section: &str| {
        let mut samples = Vec::new();
        collect(&control[section], &mut samples);
        samples
    };
    all("to_relay").iter().for_each(|bytes| sweep::<ToRelay>(bytes));
    all("from_relay").iter().for_each(|bytes| sweep::<FromRelay>(bytes));
    all("session").iter().for_each(|bytes| sweep::<Message>(bytes));
}

#[test]
fn lengths_beyond_the_bounds_are_refused_before_anything_is_reserved() {
    for (kind, len) in [(3, 4_097u16), (3, u16::MAX), (7, 16_369)] {
        let head = if kind == 7 { vec![kind, 0, 1] } else { vec![kind] };
        let bytes = [head, len.to_be_bytes().to_vec(), vec![0; usize::from(len)]].concat();
        assert!(ToRelay::decode(&bytes).is_err());
    }
    let revoked = sample(2, &["revoked", "0", "bytes"]);
    let many = [&revoked[..26], &1_025u16.to_be_bytes(), &[0; 2_050], &[0; 64]].concat();
    assert!(Revoked::decode(&many).is_err());
    // Roster, ledger, missed.
    for kind in [4u8, 12, 17] {
        assert!(Message::decode(&[&[kind][..], &u16::MAX.to_be_bytes()].concat()).is_err());
    }
    let ledger = |n: u16| [&[12][..], &n.to_be_bytes(), &[2; 33].repeat(n.into())].concat();
    assert!(Message::decode(&ledger(256)).is_ok() && Message::decode(&ledger(257)).is_err());
    let missed = |n: u16| {
        let one = [&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 1][..], &[0; 64]].concat();
        [&[17][..], &n.to_be_bytes(), &one.repeat(n.into())].concat()
    };
    assert!(Message::decode(&missed(7)).is_ok() && Message::decode(&missed(8)).is_err());
    let confirm = sample(8, &["messages", "0", "message"])[1..].to_vec();
    let passed = |n: u16| [&[3][..], &n.to_be_bytes(), &[&[0, 1][..], &confirm].concat().repeat(n.into())].concat();
    assert!(Broadcast::decode(&passed(128)).is_ok() && Broadcast::decode(&passed(129)).is_err());
    let beat = |n: u16| [&[1][..], &[0; 84], &n.to_be_bytes(), &[0; 2].repeat(n.into()), &[0; 64]].concat();
    assert!(Broadcast::decode(&beat(256)).is_ok() && Broadcast::decode(&beat(257)).is_err());
}

/// The longest of everything that goes by the relay fits its longest message, with all that is put around it.
#[test]
fn the_longest_messages_fit_the_relays() {
    const PAYLOAD: usize = 16_368;
    // Kind, epoch, counter, tag. Behind it 128 confirmations, or the longest heartbeat.
    let broadcast = 1 + 4 + 4 + 16;
    assert!(broadcast + 1 + 2 + 128 * 111 <= PAYLOAD);
    assert!(broadcast + 1 + 84 + 2 + 256 * 2 + 64 <= PAYLOAD);
    // Kind, session, sequence, acknowledged, tag. Behind it seven of the longest texts, or the ledger.
    let record = 1 + 8 + 4 + 4 + 16;
    assert!(record + 1 + 2 + 7 * (2 + 4 + 4 + 1 + 2 + 2_000 + 64) <= PAYLOAD);
    assert!(record + 1 + 2 + 256 * 33 <= PAYLOAD);
}

// ---- packets between members ----

#[test]
fn broadcasts_near_a_good_one_do_not_open_and_change_nothing() {
    let good = sample(8, &["messages", "0", "packet"]);
    let channel = || {
        let ctl: [u8; 32] = sample(8, &["ctl", "2"]).try_into().expect("32 bytes");
        Channel::new(Epoch::new(2).expect("small"), MemberIndex(0), Secret::new(ctl))
    };
    let mut receiver = channel();
    for len in 0..good.len() {
        assert!(receiver.open(MemberIndex(1), &good[..len]).is_none(), "{len} of {} bytes", good.len());
    }
    assert!(receiver.open(MemberIndex(1), &[&good[..], &[0]].concat()).is_none());
    for bit in 0..good.len() * 8 {
        assert!(receiver.open(MemberIndex(1), &flipped(&good, bit)).is_none(), "bit {bit}");
    }
    assert!((0..10).filter(|i| *i != 1).all(|i| receiver.open(MemberIndex(i), &good).is_none()));
    assert!(receiver.open(MemberIndex(1), &good).is_some());
}

#[test]
fn witnesses_near_a_good_one_do_not_open() {
    let good = sample(8, &["witness", "shown", "0", "packet"]);
    let meeting = MeetingId(sample(8, &["meeting_id"]).try_into().expect("20 bytes"));
    let secret = LinkSecret::generate(&mut Fixed(sample(8, &["witness", "secret"])));
    let chain: [u8; 16] = sample(8, &["witness", "chain"]).try_into().expect("16 bytes");
    let key = WitnessKey::new(&secret.psk0(meeting), &chain);
    assert!(key.open(&good).is_some());
    for len in 0..good.len() {
        assert!(key.open(&good[..len]).is_none(), "{len} of {} bytes", good.len());
    }
    assert!(key.open(&[&good[..], &[0]].concat()).is_none());
    for bit in 0..good.len() * 8 {
        assert!(key.open(&flipped(&good, bit)).is_none(), "bit {bit}");
    }
    assert!(WitnessKey::new(&secret.psk0(meeting), &[0; 16]).open(&good).is_none(), "another chain");
}

#[test]
fn handshakes_between_members_near_a_good_one_are_refused() {
    let array = |path: &[&str]| <[u8; 32]>::try_from(sample(7, path)).expect("32 bytes");
    let (own, other) =
        (Zeroizing::new(array(&["cases", "1", "responder", "ms_secret"])), array(&["cases", "1", "initiator", "ms"]));
    let mesh = Secret::new(array(&["cases", "1", "mesh"]));
    let meeting = MeetingId(sample(7, &["meeting_id"]).try_into().expect("20 bytes"));
    let pair =
        Pair { meeting, initiator: MemberIndex(1), responder: MemberIndex(3), mesh: &mesh, own: &own, other: &other };
    let good = sample(7, &["cases", "1", "message1"]);
    assert_eq!(good.len(), MESSAGE_LEN);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    assert!(pair.answer(&good, &mut rng).is_ok());
    for len in 0..good.len() {
        assert!(pair.answer(&good[..len], &mut rng).is_err());
    }
    assert!(pair.answer(&[&good[..], &[0]].concat(), &mut rng).is_err());
    for bit in 0..good.len() * 8 {
        // X25519 does not look at the highest bit of a key, Noise's hash does.
        assert!(pair.answer(&flipped(&good, bit), &mut rng).is_err(), "bit {bit}");
    }
    let swapped = Pair { initiator: MemberIndex(3), responder: MemberIndex(1), ..pair };
    assert!(swapped.answer(&good, &mut rng).is_err());
}

// ---- texts ----

#[test]
fn links_near_a_good_one_are_refused_or_say_the_same_again() {
    let good = a_link();
    check_link(&good);
    assert!(Link::parse(&good).is_ok());
    for (len, _) in good.char_indices() {
        assert!(Link::parse(&good[..len]).is_err(), "{len} characters");
    }
    for bit in 0..good.len() * 8 {
        if let Ok(text) = String::from_utf8(flipped(good.as_bytes(), bit)) {
            check_link(&text);
        }
    }
}

/// Refused without a word of the link, or a link that reads the same when written out.
fn check_link(text: &str) {
    match Link::parse(text) {
        Ok(link) => {
            let revealed = link.reveal();
            let again = Link::parse(&revealed).expect("what was revealed is a link");
            assert_eq!(again.reveal(), revealed);
        }
        Err(error) => {
            let message = error.to_string();
            let secret = text.rsplit('#').next().unwrap_or_default();
            assert!(secret.len() < 8 || !message.contains(secret), "{message}");
        }
    }
}

#[test]
fn a_secret_outside_of_the_fragment_is_refused() {
    let good = a_link();
    let (head, secret) = good.split_once('#').expect("a fragment");
    for bad in [
        format!("{head}&secret={secret}#{secret}"),
        format!("{head}&secret={secret}"),
        good.replace('#', "?"),
        good.replace('#', "/"),
        good.replace("conclave://", &format!("conclave://{secret}@")),
    ] {
        let error = Link::parse(&bad).map(|_| ()).expect_err("a secret that others could read");
        assert!(!error.to_string().contains(secret));
    }
}

#[test]
fn a_port_is_one_to_five_digits_and_not_zero() {
    for (port, number) in [("1", 1), ("443", 443), ("00443", 443), ("65535", 65_535)] {
        for host in ["relay.example", "[2001:db8::1]"] {
            let address = RelayAddress::parse(&format!("{host}:{port}")).expect("an address");
            assert_eq!(address.port, number);
        }
    }
    for bad in ["", "0", "00000", "65536", "000443", "+443", "-1", " 443", "443 ", "0x1b", "4_433", "٤٤٣", "44:3"] {
        for host in ["relay.example", "[2001:db8::1]"] {
            assert!(RelayAddress::parse(&format!("{host}:{bad}")).is_err(), "{bad:?}");
        }
    }
}

fn any_text() -> impl Strategy<Value = String> {
    // Half of them in a range where names and links live.
    let char = prop_oneof![any::<char>(), proptest::char::range(' ', '\u{3FF}')];
    proptest::collection::vec(char, 0..100).prop_map(String::from_iter)
}

// ---- datagrams ----

#[test]
fn media_of_another_length_or_header_is_refused() {
    let good = sample(6, &["senders", "0", "frames", "0", "datagram"]);
    let sframe = &good[datagram::HEADER_LEN..];
    assert!(Ciphertext::parse(sframe).is_ok());
    for len in 0..sframe.len() {
        assert!(Ciphertext::parse(&sframe[..len]).is_err());
    }
    assert!(Ciphertext::parse(&[sframe, &[0]].concat()).is_err());
    // The config byte, and the eight bits of the KID that are fixed.
    for bit in 0..16 {
        assert!(Ciphertext::parse(&flipped(sframe, bit)).is_err(), "bit {bit}");
    }
    for bit in 16..sframe.len() * 8 {
        let refused = Ciphertext::parse(&flipped(sframe, bit)).is_err();
        // A CTR below 0x80 takes another form.
        assert_eq!(refused, bit == 9 * 8 + 7, "bit {bit}");
    }
}

#[test]
fn datagrams_have_a_kind_a_slot_a_body_and_a_bound() {
    let good = sample(6, &["senders", "0", "frames", "0", "datagram"]);
    for len in 0..good.len() {
        assert_eq!(Datagram::parse(&good[..len]).is_some(), len > datagram::HEADER_LEN);
    }
    for kind in 0..=u8::MAX {
        let bytes = [&[kind], &good[1..]].concat();
        assert_eq!(Datagram::parse(&bytes).is_some(), matches!(kind, 1 | 2));
    }
    let mut long = good;
    long.resize(datagram::MAX_LEN, 0);
    assert!(Datagram::parse(&long).is_some());
    long.push(0);
    assert!(Datagram::parse(&long).is_none());
}

// ---- a whole client ----

const WALL: UnixMillis = UnixMillis(1_767_225_600_000);

fn host(now: Instant) -> Conference {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let config = HostConfig {
        relays: vec![RelayAddress::parse("relay.example").expect("an address")],
        identity: Identity::guest(&mut rng),
        name: DisplayName::parse("Ada").expect("a name"),
        passcode: Passcode::parse("open"),
        waiting_room: WaitingRoom::Ask,
        max_members: 10,
        duration: Duration::from_secs(3600),
        frame: FrameDuration::Ms20,
        regions: Vec::new(),
        moderators: Vec::new(),
    };
    Conference::host(config, Start { now, wall: WALL }, Box::new(rng))
}

fn guest(now: Instant, link: Link) -> Conference {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (identity, name) = (Identity::guest(&mut rng), DisplayName::parse("Bob").expect("a name"));
    let config = JoinConfig { link, identity, name, passcode: Passcode::parse("open") };
    Conference::join(config, Start { now, wall: WALL }, Box::new(rng))
}

fn drain(conference: &mut Conference) {
    while conference.poll_transmit().is_some() {}
    while conference.poll_event().is_some() {}
}

/// Messages of a relay: those of the vectors with some bytes changed, mail of every kind, and noise.
fn relay_message() -> impl Strategy<Value = Vec<u8>> {
    let changed =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, at, byte)| {
            let control: Value = serde_json::from_str(FILES[3]).expect("the vectors are JSON");
            let mut all = Vec::new();
            collect(&control["from_relay"], &mut all);
            let mut bytes = i.get(&all).clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let mail = (0u8..12, body.clone()).prop_map(|(kind, body)| [&[kind], &body[..]].concat());
    prop_oneof![
        changed,
        body,
        mail.clone().prop_map(|bytes| FromRelay::Mail { bytes }.encode()),
        (0u32..4, mail.clone()).prop_map(|(id, bytes)| FromRelay::MailFrom { mailbox: MailboxId(id), bytes }.encode()),
        mail.prop_map(|bytes| FromRelay::Deliver { from: MemberIndex(0), bytes }.encode()),
    ]
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_as_everything(&bytes);
        let _ = Ciphertext::parse(&bytes);
        let _ = Datagram::parse(&bytes);
    }

    #[test]
    fn samples_with_random_changes_are_refused_or_canonical(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let samples = samples();
        let mut bytes = which.get(&samples).clone();
        for (at, byte) in changes.into_iter().filter(|_| !samples[which.index(samples.len())].is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_as_everything(&bytes);
    }

    #[test]
    fn names_are_refused_or_stay_as_they_are(text in any_text()) {
        if let Ok(name) = DisplayName::parse(&text) {
            prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= DisplayName::MAX_LEN);
            prop_assert_eq!(DisplayName::parse(name.as_str()), Ok(name.clone()));
            prop_assert!(check::<DisplayName>(&name.encode()));
        }
        let _ = Passcode::parse(&text);
    }

    #[test]
    fn texts_are_no_links_or_say_the_same_again(text in any_text()) {
        check_link(&text);
        check_link(&format!("conclave://{text}"));
        if let Ok(address) = RelayAddress::parse(&text) {
            prop_assert_eq!(RelayAddress::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn no_message_of_a_relay_makes_a_client_panic(
        messages in proptest::collection::vec(relay_message(), 1..12),
        datagram in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut now = Instant::now();
        let mut host = host(now);
        let mut guest = guest(now, host.link().duplicate());
        let mut plaintext = [0; PLAINTEXT_LEN];
        for conference in [&mut host, &mut guest] {
            conference.connected(now, [7; 32]);
            for message in &messages {
                conference.handle_control(now, message);
                drain(conference);
                now += Duration::from_millis(300);
                conference.handle_timeout(now);
                drain(conference);
            }
            prop_assert!(conference.open(now, &datagram, &mut plaintext).is_err());
        }
    }
}
