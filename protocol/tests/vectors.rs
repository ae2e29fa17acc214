//! Reads the golden vectors of `tests/vectors/` back.
//!
//! They are written by `tests/vectors/generate.py`, which follows `docs/protocol.md` and shares no code with this
//! crate: every primitive and encoding is another implementation. What this crate makes of the same inputs must be
//! the same bytes; where its interface gives no way to make them, it must take the bytes apart and put them together
//! again.
#![cfg(feature = "conference")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use conclave_protocol::capability::{Capability, KnockGate, KnockToken, Revoked, Rights, SignedCapability};
use conclave_protocol::conference::{ActError, Conference, Event, JoinConfig, Start, Transmit};
use conclave_protocol::descriptor::{Descriptor, Policy};
use conclave_protocol::epoch::broadcast::{
    Beat, Broadcast, Channel, Confirm, Heartbeat, Place, Published, Said, SealingSeed,
};
use conclave_protocol::epoch::merkle;
use conclave_protocol::epoch::roster::{Member, Roster, commitment_leaf};
use conclave_protocol::epoch::schedule::{self, EpochSecret, FreshSecret};
use conclave_protocol::epoch::statement::{Act, ChainHash, Op, Rate, Settings, Statement, ops_hash};
use conclave_protocol::epoch::witness::{WitnessKey, Witnessed};
use conclave_protocol::id::{Epoch, MeetingId, MemberIndex, Term};
use conclave_protocol::identity::{DisplayName, IdCert, Identity, JoinKeys, Role, SafetyNumber};
use conclave_protocol::label;
use conclave_protocol::link::Link;
use conclave_protocol::moderator::{Moderator, moderators_digest};
use conclave_protocol::noise::handshake::{
    Answering, Context, HandshakeError, HostKeys, Introducing, Introduction, Knocking, Passcode, Responder,
};
use conclave_protocol::noise::mesh::Pair;
use conclave_protocol::noise::session::Session;
use conclave_protocol::secret::{self, Secret};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::sframe::receiver::{Ciphertext, Opener, Play};
use conclave_protocol::sframe::sender::Sealer;
use conclave_protocol::sign::{KeyPair, PublicKey, Signature};
use conclave_protocol::succession::{Delegate, Line, Rank, authority_of, rank};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::{Reader, Wire};
use conclave_protocol::wire::control::{Denial, Message, Past, RemovalNotice, Verb, Whom};
use conclave_protocol::wire::datagram;
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, MailboxId, Refusal, ToRelay};
use data_encoding::HEXLOWER;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use zeroize::Zeroizing;

// ---- reading ----

struct Vectors {
    link: Value,
    handshake: Value,
    capability: Value,
    control: Value,
    statement: Value,
    schedule: Value,
    frame: Value,
    mesh: Value,
    broadcast: Value,
    code: Value,
}

fn vectors() -> Vectors {
    let parse = |text: &str| serde_json::from_str(text).expect("the vectors are JSON");
    Vectors {
        link: parse(include_str!("../../tests/vectors/link.json")),
        handshake: parse(include_str!("../../tests/vectors/handshake.json")),
        capability: parse(include_str!("../../tests/vectors/capability.json")),
        control: parse(include_str!("../../tests/vectors/control.json")),
        statement: parse(include_str!("../../tests/vectors/statement.json")),
        schedule: parse(include_str!("../../tests/vectors/key-schedule.json")),
        frame: parse(include_str!("../../tests/vectors/frame.json")),
        mesh: parse(include_str!("../../tests/vectors/mesh.json")),
        broadcast: parse(include_str!("../../tests/vectors/broadcast.json")),
        code: parse(include_str!("../../tests/vectors/security-code.json")),
    }
}

fn list(v: &Value) -> &[Value] {
    v.as_array().expect("a list")
}

fn text(v: &Value) -> &str {
    v.as_str().expect("a text")
}

fn number(v: &Value) -> u64 {
    v.as_u64().expect("a number")
}

fn small<T: TryFrom<u64>>(v: &Value) -> T {
    T::try_from(number(v)).ok().expect("a number in range")
}

fn bytes(v: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(v).as_bytes()).expect("hexadecimal digits")
}

fn array<const N: usize>(v: &Value) -> [u8; N] {
    bytes(v).try_into().expect("the right length")
}

fn meeting(v: &Value) -> MeetingId {
    MeetingId(array(&v["meeting_id"]))
}

fn epoch(v: &Value) -> Epoch {
    Epoch::new(small(v)).expect("an epoch")
}

fn index(v: &Value) -> MemberIndex {
    MemberIndex(small(v))
}

fn key(seed: &Value) -> KeyPair {
    KeyPair::from_seed(&array(seed))
}

/// With which a leader of the vectors signs.
fn authority(v: &Value, leader: &Value) -> KeyPair {
    key(&v["authority_seeds"][number(leader).to_string()])
}

/// A line of succession, or none for no bytes.
fn line(v: &Value) -> Option<Line> {
    (!text(v).is_empty()).then(|| round_trip(v))
}

/// What was decoded must encode to the very same bytes.
fn round_trip<T: Wire>(v: &Value) -> T {
    let wanted = bytes(v);
    let value = T::decode(&wanted).expect("the vector is well-formed");
    assert_eq!(HEXLOWER.encode(&value.encode()), text(v));
    value
}

fn same(got: impl AsRef<[u8]>, wanted: &Value) {
    assert_eq!(HEXLOWER.encode(got.as_ref()), text(wanted));
}

/// Gives the bytes of a vector in the order in which they are drawn, then zeros.
#[derive(Default)]
struct Draws(VecDeque<u8>);

impl Draws {
    fn of<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        Self(values.into_iter().flat_map(bytes).collect())
    }
}

impl TryRng for Draws {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut b = [0; 4];
        self.try_fill_bytes(&mut b).map(|()| u32::from_le_bytes(b))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut b = [0; 8];
        self.try_fill_bytes(&mut b).map(|()| u64::from_le_bytes(b))
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.fill_with(|| self.0.pop_front().unwrap_or(0));
        Ok(())
    }
}

impl TryCryptoRng for Draws {}

/// What one side of a join handshake draws: ephemeral key, ML-KEM seed (guest: d ‖ z; host: m), nonce, CPace scalar.
fn draws(case: &Value, side: &str) -> Draws {
    let drawn = &case["draws"][side];
    let order = ["ephemeral", "mlkem", "nonce", "cpace"];
    Draws::of(order.iter().filter_map(|name| drawn.get(name)))
}

fn identity(person: &Value) -> Identity {
    match text(&person["kind"]) {
        "guest" => Identity::guest(&mut Draws::of([&person["ik_seed"]])),
        _ => Identity::kept(&array(&person["ik_seed"])),
    }
}

fn join_keys(person: &Value) -> JoinKeys {
    let secret = x25519_dalek::StaticSecret::from(array::<32>(&person["ms_secret"]));
    JoinKeys {
        session: x25519_dalek::PublicKey::from(&secret).to_bytes(),
        sealing: key(&person["vk_seed"]).public(),
        routing: key(&person["rk_seed"]).public(),
    }
}

fn name(person: &Value) -> DisplayName {
    DisplayName::parse(text(&person["name"])).expect("a name")
}

fn cert(person: &Value, meeting: MeetingId, role: Role) -> IdCert {
    let not_after = UnixMillis(number(&person["not_after"]));
    identity(person).certify(meeting, role, join_keys(person), &name(person), not_after)
}

// ---- §3 ----

#[test]
fn descriptors_and_links_are_those_of_the_vectors() {
    for case in list(&vectors().link["links"]) {
        let descriptor: Descriptor = round_trip(&case["descriptor"]);
        let fields = &case["fields"];
        same(descriptor.hs, &fields["hs"]);
        same(descriptor.authority.0, &fields["authority"]);
        same(descriptor.nonce, &fields["nonce"]);
        same(descriptor.moderator, &fields["moderator"]);
        assert_eq!(descriptor.not_before.0, number(&fields["not_before"]));
        assert_eq!(descriptor.not_after.0, number(&fields["not_after"]));
        assert_eq!(u64::from(descriptor.policy.bits()), number(&fields["policy"]));
        assert_eq!(u64::from(descriptor.frame_ms), number(&fields["frame_ms"]));
        assert_eq!(u64::from(descriptor.max_members), number(&fields["max_members"]));
        let regions: Vec<&str> = descriptor.regions.iter().map(|r| r.as_str()).collect();
        assert_eq!(regions, list(&fields["regions"]).iter().map(text).collect::<Vec<_>>());
        let id = descriptor.meeting_id();
        same(id.0, &case["meeting_id"]);

        let link = Link::parse(text(&case["link"])).expect("a link");
        assert_eq!(link.meeting, id);
        assert_eq!(link.relays.len(), list(&case["pins"]).len());
        for (relay, pin) in link.relays.iter().zip(list(&case["pins"])) {
            same(relay.pin.map(Vec::from).unwrap_or_default(), pin);
        }
        same(link.secret.psk0(id).as_bytes(), &case["psk0"]);
        same(link.secret.knock_token(id).0, &case["knock_token"]);
        assert_eq!(link.reveal().as_str(), text(&case["link"]));
    }
}

#[test]
fn identity_certificates_and_commitments_are_those_of_the_vectors() {
    let v = vectors().link;
    let meeting = meeting(&v);
    for (i, person) in list(&v["people"]).iter().enumerate() {
        let role = if i == 0 { Role::Host } else { Role::Member };
        let made = cert(person, meeting, role);
        same(made.identity.0, &person["ik"]);
        same(made.keys.encode(), &person["keys"]);
        same(made.encode(), &person["cert"]);
        let read: IdCert = round_trip(&person["cert"]);
        assert_eq!(read.verify(meeting, role, &made.keys.session, &name(person), read.not_after), Ok(()));
        let other = DisplayName::parse("Somebody else").expect("a name");
        assert!(read.verify(meeting, role, &made.keys.session, &other, read.not_after).is_err());
        same(schedule::fresh_commitment(meeting, &array(&person["fresh"])), &person["commitment"]);
        same(name(person).digest(), &person["name_hash"]);
    }
}

#[test]
fn moderators_are_those_of_the_vectors() {
    let v = vectors().link;
    let mut all = Vec::new();
    for case in list(&v["moderators"]) {
        let moderator: Moderator = round_trip(&case["bytes"]);
        assert_eq!(moderator.name, name(case));
        assert_eq!(moderator.signing, key(&case["signing_seed"]).public());
        same(moderator.sealing, &case["sealing"]);
        same(moderator.id().0, &case["id"]);
        assert_eq!(bytes(&case["bytes"]).len(), Moderator::WIRE_LEN);
        all.push(moderator);
    }
    for case in list(&v["lists"]) {
        let count: usize = small(&case["count"]);
        same(moderators_digest(&all[..count]), &case["digest"]);
    }
}

#[test]
fn safety_numbers_are_those_of_the_vectors() {
    for case in list(&vectors().link["safety_numbers"]) {
        let [a, b] = [0, 1].map(|i| PublicKey(array(&case["ik"][i])));
        assert_eq!(SafetyNumber::of(&a, &b).as_str(), text(&case["safety_number"]));
    }
}

// ---- §4 ----

/// What both sides of a case's handshake start from.
struct Parties<'a> {
    case: &'a Value,
    meeting: MeetingId,
    now: UnixMillis,
    descriptor: Descriptor,
    link: Link,
    passcode: Option<Passcode>,
    responder: Responder,
    /// Of the responder's certificate.
    role: Role,
}

impl<'a> Parties<'a> {
    fn of(case: &'a Value) -> Self {
        let slot = index(&case["responder"]["slot"]);
        let line = line(&case["responder"]["line"]);
        Self {
            case,
            responder: Responder::of(slot, line.as_ref()).expect("the host or a co-host of the line"),
            role: if slot == MemberIndex::HOST { Role::Host } else { Role::Member },
            meeting: meeting(case),
            now: UnixMillis(number(&case["now"])),
            descriptor: round_trip(&case["descriptor"]),
            link: Link::parse(text(&case["link"])).expect("a link"),
            passcode: case["passcode"].as_str().and_then(Passcode::parse),
        }
    }

    fn context(&self) -> Context {
        let (meeting, descriptor) = (self.meeting, self.descriptor.clone());
        Context { meeting, descriptor, psk0: self.link.secret.psk0(meeting), responder: self.responder }
    }

    fn start(&self) -> (Knocking, Vec<u8>) {
        let secret = Zeroizing::new(array(&self.case["guest"]["ms_secret"]));
        let mut draws = draws(self.case, "guest");
        let started = Knocking::start(self.context(), &secret, self.passcode.as_ref(), &mut draws);
        assert!(draws.0.is_empty());
        started.expect("a first message")
    }

    fn answer(&self, message1: &[u8]) -> Result<(Answering, Vec<u8>), HandshakeError> {
        let host = &self.case["host"];
        let session_secret = Zeroizing::new(array(&host["ms_secret"]));
        let (cert, name) = (cert(host, self.meeting, self.role), name(host));
        let passcode = self.passcode.as_ref();
        let keys = HostKeys { session_secret: &session_secret, cert: &cert, name: &name, passcode };
        let mut draws = draws(self.case, "host");
        let answered = Answering::answer(&self.context(), &keys, message1, &mut draws)?;
        assert!(draws.0.is_empty());
        Ok(answered)
    }

    fn introduce(&self, introducing: Introducing) -> (Session, Vec<u8>) {
        let guest = &self.case["guest"];
        let identity = identity(guest);
        let introduction = Introduction {
            identity: &identity,
            cert: cert(guest, self.meeting, Role::Member),
            name: name(guest),
            commitment: schedule::fresh_commitment(self.meeting, &array(&guest["fresh"])),
        };
        introducing.introduce(introduction).expect("a third message")
    }
}

/// Both ends of a case's handshake, message by message: the guest's session and the host's.
fn shake_hands(case: &Value) -> (Session, Session) {
    let parties = Parties::of(case);
    let (knocking, message1) = parties.start();
    same(&message1, &case["message1"]);
    // The table of §4.1: the two sides' names differ in length and must not show.
    let share = if parties.passcode.is_some() { 32 } else { 0 };
    let lengths = ["message1", "message2", "message3"].map(|message| bytes(&case[message]).len());
    assert_eq!(lengths, [1_249 + share, 1_420 + share, 427]);
    let (answering, message2) = parties.answer(&message1).expect("a second message");
    same(&message2, &case["message2"]);
    let introducing = knocking.read_reply(&message2, parties.now).expect("the host is authentic");
    assert_eq!(introducing.host.name, name(&case["host"]));
    let (session, message3) = parties.introduce(introducing);
    same(&message3, &case["message3"]);
    let knocker = answering.finish(&message3, parties.now).expect("the guest is authentic");
    assert_eq!(knocker.name, name(&case["guest"]));
    (session, knocker.session)
}

#[test]
fn a_certificate_that_ends_before_the_meeting_is_refused() {
    let v = vectors().handshake;
    let parties = Parties::of(&v["cases"][0]);
    let guest = &v["cases"][0]["guest"];
    let until = UnixMillis(number(&guest["not_after"]));
    for (not_after, is_accepted) in [(until, true), (until.minus(Duration::from_millis(1)), false)] {
        let (knocking, message1) = parties.start();
        let (answering, message2) = parties.answer(&message1).expect("a second message");
        let introducing = knocking.read_reply(&message2, parties.now).expect("the host is authentic");
        let identity = identity(guest);
        let cert = identity.certify(parties.meeting, Role::Member, join_keys(guest), &name(guest), not_after);
        let introduction = Introduction { identity: &identity, cert, name: name(guest), commitment: [0; 32] };
        let (_, message3) = introducing.introduce(introduction).expect("a third message");
        assert_eq!(answering.finish(&message3, parties.now).is_ok(), is_accepted);
    }
}

/// Bytes near `good`: some truncations, some single flipped bits, one byte too many.
fn near(good: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..good.len()).step_by(101).map(|len| good[..len].to_vec());
    let flipped = (0..good.len() * 8).step_by(53).map(|bit| {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    cut.chain(flipped).chain([[good, &[0]].concat()])
}

#[test]
fn handshake_messages_near_those_of_the_vectors_are_refused() {
    for case in list(&vectors().handshake["cases"]) {
        let parties = Parties::of(case);
        for message1 in near(&bytes(&case["message1"])) {
            assert!(parties.answer(&message1).is_err());
        }
        for message2 in near(&bytes(&case["message2"])) {
            assert!(parties.start().0.read_reply(&message2, parties.now).is_err());
        }
        for message3 in near(&bytes(&case["message3"])) {
            let (answering, _) = parties.answer(&bytes(&case["message1"])).expect("a second message");
            assert!(answering.finish(&message3, parties.now).is_err());
        }
    }
}

#[test]
fn handshakes_with_and_without_passcode_and_with_a_cohost_are_those_of_the_vectors() {
    let v = vectors().handshake;
    let cases = list(&v["cases"]);
    assert_eq!(cases.iter().map(|c| c["passcode"].is_string()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(cases.iter().map(|c| number(&c["responder"]["slot"])).collect::<Vec<_>>(), [0, 0, 1]);
    for case in cases {
        let (guest, host) = shake_hands(case);
        for session in [&guest, &host] {
            same(session.handshake_hash(), &case["h3"]);
            same(session.id().0, &case["session"]);
        }
    }
}

#[test]
fn the_psk_after_message_2_is_that_of_the_vectors() {
    for case in list(&vectors().handshake["cases"]) {
        let h2 = bytes(&case["h2"]);
        let ikm = [bytes(&case["mlkem_shared"]), bytes(&case["psk0"]), bytes(&case["cpace_isk"])].concat();
        let psk3: Secret<()> = secret::derive(&h2, &ikm, label::PSK3, &[]);
        same(psk3.as_bytes(), &case["psk3"]);
        let ik = identity(&case["guest"]).public();
        let signature = Signature(array(&case["join_signature"]));
        assert_eq!(ik.verify(label::JOIN, &[&h2, &meeting(case).0], &signature), Ok(()));
    }
}

#[test]
fn session_records_are_those_of_the_vectors_and_what_is_near_them_changes_nothing() {
    let now = Instant::now();
    for case in list(&vectors().handshake["cases"]) {
        let (mut guest, mut host) = shake_hands(case);
        for record in list(&case["records"]) {
            let (from, to) = match text(&record["to"]) {
                "guest" => (&mut host, &mut guest),
                _ => (&mut guest, &mut host),
            };
            check_record(now, from, to, record);
        }
    }
}

/// One end makes a record of the vectors, the other refuses all that is near it and takes it.
fn check_record(now: Instant, from: &mut Session, to: &mut Session, record: &Value) {
    let packet = if text(&record["message"]).is_empty() {
        let mut packets = Vec::new();
        from.handle_timeout(now + Duration::from_millis(200), &mut packets).expect("an acknowledgement");
        assert_eq!(packets.len(), 1);
        packets.remove(0)
    } else {
        from.send(now, &round_trip(&record["message"])).expect("a record")
    };
    same(&packet, &record["packet"]);
    for other in near(&packet) {
        assert!(to.receive(now, &other).is_err());
    }
    let received = to.receive(now, &packet).expect("the record opens");
    same(received.map(|m| m.encode()).unwrap_or_default(), &record["message"]);
}

/// Carries what is due from one end to the other, or loses it. Whether anything was.
fn carry(now: Instant, from: &mut Session, to: Option<&mut Session>) -> bool {
    let mut packets = Vec::new();
    from.handle_timeout(now, &mut packets).expect("the session is not stalled");
    if let Some(to) = to {
        // Repeated records are refused.
        packets.iter().for_each(|packet| drop(to.receive(now, packet)));
    }
    !packets.is_empty()
}

#[test]
fn a_session_recovers_from_a_lost_acknowledgement_and_falls_silent() {
    let mut now = Instant::now();
    let (mut guest, mut host) = shake_hands(&vectors().handshake["cases"][0]);
    let packet = host.send(now, &Message::Waiting).expect("a record");
    guest.receive(now, &packet).expect("the record opens");
    now += Duration::from_millis(200);
    assert!(carry(now, &mut guest, None), "the acknowledgement is lost");
    let mut exchanges = 0;
    while let Some(due) = [host.poll_timeout(), guest.poll_timeout()].into_iter().flatten().min() {
        now = now.max(due);
        carry(now, &mut host, Some(&mut guest));
        carry(now, &mut guest, Some(&mut host));
        exchanges += 1;
        assert!(exchanges < 10, "the ends do not fall silent");
    }
    let packet = guest.send(now, &Message::Leave).expect("a record");
    assert!(matches!(host.receive(now, &packet), Ok(Some(Message::Leave))));
}

#[test]
fn a_handshake_with_a_cohost_is_bound_to_its_place_in_the_line() {
    let v = vectors().handshake;
    let parties = Parties::of(&v["cases"][2]);
    let Responder::Delegate(delegate) = parties.responder else { panic!("a co-host answers") };
    let message1 = bytes(&v["cases"][2]["message1"]);
    let responders = [
        Responder::Host,
        Responder::Delegate(Delegate { slot: MemberIndex(2), ..delegate }),
        Responder::Delegate(Delegate { authority: PublicKey([0; 32]), ..delegate }),
    ];
    for responder in responders {
        assert!(Parties { responder, ..Parties::of(&v["cases"][2]) }.answer(&message1).is_err());
    }
    assert!(parties.answer(&message1).is_ok());
    // Who answers for a co-host must not call itself the host.
    let (_, message2) = Parties { role: Role::Host, ..Parties::of(&v["cases"][2]) }.answer(&message1).expect("a reply");
    assert!(parties.start().0.read_reply(&message2, parties.now).is_err());
}

// ---- §4.7 ----

#[test]
fn handshakes_and_sessions_between_members_are_those_of_the_vectors() {
    let now = Instant::now();
    let v = vectors().mesh;
    for case in list(&v["cases"]) {
        let mesh = Secret::new(array(&case["mesh"]));
        let secret = |side: &str| Zeroizing::new(array::<32>(&case[side]["ms_secret"]));
        let secrets = [secret("initiator"), secret("responder")];
        let [one, other] = ["initiator", "responder"].map(|side| array::<32>(&case[side]["ms"]));
        let pair = |own, other| Pair {
            meeting: meeting(&v),
            initiator: index(&case["initiator"]["index"]),
            responder: index(&case["responder"]["index"]),
            mesh: &mesh,
            own,
            other,
        };
        let drawn = |side: &str| Draws::of([&case["draws"][side]]);
        let (reaching, first) = pair(&secrets[0], &other).reach(&mut drawn("initiator")).expect("good keys");
        same(&first, &case["message1"]);
        same([&[8], &epoch(&case["epoch"]).encode()[..], &first].concat(), &case["packet1"]);
        let answerer = pair(&secrets[1], &one);
        for changed in near(&first) {
            assert!(answerer.answer(&changed, &mut drawn("responder")).is_err());
        }
        let (responder, second) = answerer.answer(&first, &mut drawn("responder")).expect("of the same epoch");
        same(&second, &case["message2"]);
        same([&[9][..], &second].concat(), &case["packet2"]);
        for changed in near(&second) {
            let (reaching, _) = pair(&secrets[0], &other).reach(&mut drawn("initiator")).expect("good keys");
            assert!(reaching.finish(&changed).is_err());
        }
        let initiator = reaching.finish(&second).expect("of the same epoch");
        for session in [&initiator, &responder] {
            same(session.handshake_hash(), &case["h"]);
            same(session.id().0, &case["session"]);
        }
        let mut ends = (initiator, responder);
        for record in list(&case["records"]) {
            let (from, to) = match text(&record["to"]) {
                "initiator" => (&mut ends.1, &mut ends.0),
                _ => (&mut ends.0, &mut ends.1),
            };
            check_record(now, from, to, record);
        }
    }
}

// ---- §5 ----

#[test]
fn lines_of_succession_are_those_of_the_vectors() {
    let v = vectors().capability;
    let (meeting, host) = (meeting(&v), authority(&v, &Value::from(0)));
    for case in list(&v["lines"]) {
        let delegate = |d: &Value| Delegate {
            slot: index(&d["slot"]),
            hs: array(&d["hs"]),
            authority: PublicKey(array(&d["ak"])),
        };
        let delegates: Vec<Delegate> = list(&case["delegates"]).iter().map(delegate).collect();
        let made = Line::sign(meeting, small(&case["seq"]), delegates.clone(), &host);
        same(made.encode(), &case["line"]);
        same(made.digest(), &case["hash"]);
        assert_eq!(made.encode().len(), 90 + 66 * delegates.len());
        let read: Line = round_trip(&case["line"]);
        assert_eq!(read.verify(&host.public(), meeting), Ok(()));
        assert!(read.verify(&host.public(), MeetingId([0; 20])).is_err());
        for (place, delegate) in (1..).zip(&delegates) {
            assert_eq!(rank(Some(&read), delegate.slot), Rank::Delegate(place));
            assert_eq!(authority_of(Some(&read), &host.public(), delegate.slot), Some(delegate.authority));
        }
        assert_eq!(rank(Some(&read), MemberIndex(9)), Rank::Member);
    }
}

#[test]
fn capabilities_revocations_and_gates_are_those_of_the_vectors() {
    let v = vectors().capability;
    let (meeting, host) = (meeting(&v), authority(&v, &Value::from(0)).public());
    let line = line(&v["lines"][0]["line"]);
    let line = line.as_ref();
    let exporter = array(&v["exporter"]);
    for case in list(&v["capabilities"]) {
        let rk = key(&case["rk_seed"]);
        let rights = if number(&case["rights"]) == 3 { Rights::LEADER } else { Rights::MEMBER };
        let not_before = UnixMillis(number(&case["not_before"]));
        let not_after = UnixMillis(number(&case["not_after"]));
        let (slot, serial) = (index(&case["slot"]), small(&case["serial"]));
        let (rk_public, signer) = (rk.public(), index(&case["signer"]));
        let capability = Capability { meeting, slot, rk: rk_public, rights, not_before, not_after, serial, signer };
        let signed = capability.sign(&authority(&v, &case["signer"]));
        same(signed.encode(), &case["capability"]);
        assert_eq!(signed.encode().len(), 142);
        same(signed.prove(&rk, &exporter).0, &case["possession"]);
        same(label::hash(label::CAPABILITY_DIGEST, &[&signed.encode()]), &case["digest"]);
        let read: SignedCapability = round_trip(&case["capability"]);
        assert_eq!(read.verify(&host, line, meeting, not_before), Ok(capability));
        assert_eq!(read.verify(&host, None, meeting, not_before).is_ok(), signer == MemberIndex::HOST);
    }
    let revocations: Vec<Revoked> = list(&v["revoked"])
        .iter()
        .map(|case| {
            let (seq, signer) = (small(&case["seq"]), index(&case["signer"]));
            let slots = list(&case["slots"]).iter().map(index).collect();
            let made = Revoked::sign(meeting, seq, signer, slots, &authority(&v, &case["signer"]));
            same(made.encode(), &case["bytes"]);
            assert_eq!(made.verify(&host, line, meeting), Ok(()));
            assert_eq!(made.verify(&host, None, meeting).is_ok(), signer == MemberIndex::HOST);
            round_trip(&case["bytes"])
        })
        .collect();
    let [second, third, cohosts] = &revocations[..] else { panic!("three revocations") };
    assert!(third.replaces(second, line) && cohosts.replaces(second, line) && third.replaces(cohosts, line));
    assert!(!cohosts.replaces(third, line) && !third.replaces(third, line));
    for case in list(&v["knock_gates"]) {
        let token = KnockToken(array(&case["token"]));
        same(label::hash(label::KNOCK_HASH, &[&token.0]), &case["token_hash"]);
        let signer = index(&case["signer"]);
        let gate = KnockGate::sign(meeting, small(&case["seq"]), signer, &token, &authority(&v, &case["signer"]));
        same(gate.encode(), &case["bytes"]);
        assert!(gate.opens_for(&token) && round_trip::<KnockGate>(&case["bytes"]) == gate);
        assert_eq!(gate.verify(&host, line, meeting), Ok(()));
    }
}

// ---- §6 ----

#[test]
fn messages_to_the_relay_are_those_of_the_vectors() {
    let v = vectors();
    let (meeting, to) = (meeting(&v.control), &v.control["to_relay"]);
    let all = to.as_object().expect("messages");
    assert_eq!(all.len(), 11);
    all.values().for_each(|message| drop(round_trip::<ToRelay>(message)));
    let guest = ToRelay::Hello { meeting, descriptor: None, revoked: None, line: None };
    assert_eq!(round_trip::<ToRelay>(&to["hello_of_guest"]), guest);
    let newest = line(&v.capability["lines"][0]["line"]).expect("a line");
    let ToRelay::Hello { descriptor: Some(_), revoked: Some(_), line: Some(brought), .. } =
        round_trip(&to["hello_of_member"])
    else {
        panic!("another message")
    };
    assert_eq!(brought, newest);
    assert_eq!(round_trip::<ToRelay>(&to["line"]), ToRelay::Line { line: newest });
    let mailbox = MailboxId(0x0102_0304);
    let mail = ToRelay::MailTo { mailbox, bytes: b"opaque".to_vec() };
    assert_eq!(round_trip::<ToRelay>(&to["mail_to"]), mail);
    assert_eq!(round_trip::<ToRelay>(&to["close_mailbox"]), ToRelay::CloseMailbox { mailbox });
    let send = ToRelay::Send { to: MemberIndex(0xFFFF), bytes: b"opaque".to_vec() };
    assert_eq!(round_trip::<ToRelay>(&to["send"]), send);
    let ToRelay::OpenMailbox { token } = round_trip(&to["open_mailbox"]) else { panic!("another message") };
    same(token.token().0, &v.capability["knock_gates"][0]["token"]);
}

#[test]
fn messages_from_the_relay_are_those_of_the_vectors() {
    let v = vectors().control;
    let from = &v["from_relay"];
    assert_eq!(from.as_object().expect("messages").len(), 15);
    for (name, message) in from.as_object().expect("messages") {
        match message {
            Value::Array(each) => {
                assert_eq!(each.len(), 9, "{name}");
                each.iter().for_each(|message| drop(round_trip::<FromRelay>(message)));
            }
            message => drop(round_trip::<FromRelay>(message)),
        }
    }
    let reasons = [
        Refusal::Malformed,
        Refusal::WrongLink,
        Refusal::Full,
        Refusal::TooFast,
        Refusal::Capability,
        Refusal::Expired,
        Refusal::Revoked,
        Refusal::Replaced,
        Refusal::NotAllowed,
    ];
    for (reason, message) in reasons.into_iter().zip(list(&from["refused"])) {
        assert_eq!(round_trip::<FromRelay>(message), FromRelay::Refused { reason });
    }
    for (name, slot, has_line) in [("meeting", 0, false), ("meeting_of_cohost", 1, true)] {
        let FromRelay::Meeting { leader, line, .. } = round_trip(&from[name]) else { panic!("another message") };
        assert_eq!((leader, line.is_some()), (MemberIndex(slot), has_line));
    }
    let gone = FromRelay::Presence { slot: MemberIndex(1), here: false };
    assert_eq!(round_trip::<FromRelay>(&from["presence_gone"]), gone);
}

#[test]
fn messages_in_sessions_are_those_of_the_vectors() {
    let v = vectors().control;
    let session = v["session"].as_object().expect("messages");
    assert_eq!(session.len(), 20);
    for (name, message) in session {
        match message {
            Value::Array(each) => each.iter().for_each(|message| drop(round_trip::<Message>(message))),
            message => {
                let rekeys = round_trip::<Message>(message).rekeys();
                assert_eq!(rekeys, matches!(name.as_str(), "epoch_key" | "epoch_ack"), "{name}");
            }
        }
    }
    let denials = [Denial::Denied, Denial::Blocked, Denial::Expired, Denial::Full, Denial::Locked];
    for (denial, message) in denials.into_iter().zip(list(&session["denied"])) {
        assert!(matches!(round_trip(message), Message::Denied(read) if read == denial));
    }
    let Message::Ledger(entries) = round_trip(&session["ledger"]) else { panic!("another message") };
    assert_eq!(entries.iter().map(|entry| entry.past).collect::<Vec<_>>(), [Past::Left, Past::Lost, Past::Blocked]);
}

#[test]
fn requests_and_their_refusals_are_those_of_the_vectors() {
    let v = vectors().control;
    let (knock, member, nobody) = (Whom::Knock(0x0102_0304), Whom::Member(MemberIndex(2)), Whom::Nobody);
    let wanted = [
        (Verb::Admit, knock),
        (Verb::Deny, knock),
        (Verb::Block, knock),
        (Verb::Block, member),
        (Verb::Remove, member),
        (Verb::Lock, nobody),
        (Verb::Unlock, nobody),
        (Verb::MuteNewcomers, nobody),
        (Verb::UnmuteNewcomers, nobody),
        (Verb::WaitingRoomOn, nobody),
        (Verb::WaitingRoomOff, nobody),
        (Verb::AskMute, member),
        (Verb::End, nobody),
    ];
    let requests = list(&v["session"]["request"]);
    assert_eq!(requests.len(), wanted.len());
    for (message, (verb, whom)) in requests.iter().zip(wanted) {
        let Message::Request(request) = round_trip(message) else { panic!("another message") };
        assert_eq!((request.verb, request.whom), (verb, whom));
    }
    let reasons = [
        ActError::NotHost,
        ActError::NoSuchKnock,
        ActError::NoSuchMember,
        ActError::Yourself,
        ActError::NotInMeeting,
        ActError::Full,
        ActError::Locked,
        ActError::Rank,
        ActError::NotLeading,
        ActError::NotInLine,
        ActError::LineFull,
        ActError::LeaderAway,
        ActError::BadText,
        ActError::Disconnected,
    ];
    let refusals = list(&v["session"]["refused"]);
    assert_eq!(refusals.len(), reasons.len());
    for (message, reason) in refusals.iter().zip(reasons) {
        let Message::Refused { number, why } = round_trip(message) else { panic!("another message") };
        assert_eq!((number, why, ActError::from_number(why)), (7, reason.number(), reason));
    }
}

// ---- §7 ----

fn op(v: &Value) -> Op {
    let index = index(&v["index"]);
    let act = match text(&v["op"]) {
        "admit" => Act::Admit(index),
        "remove" => Act::Remove(index),
        "leave" => Act::Leave(index),
        "lost" => Act::Lost(index),
        "rekey" => Act::Rekey,
        "open_rate" => Act::OpenRate,
        "end" => Act::End,
        "lock" => Act::Lock,
        "unlock" => Act::Unlock,
        "mute_newcomers" => Act::MuteNewcomers,
        "unmute_newcomers" => Act::UnmuteNewcomers,
        "waiting_room_on" => Act::WaitingRoomOn,
        "waiting_room_off" => Act::WaitingRoomOff,
        "ask_mute" => Act::AskMute(index),
        "promote" => Act::Promote(index),
        "demote" => Act::Demote(index),
        "hand_over" => Act::HandOver(index),
        "take_over" => Act::TakeOver(index),
        "deny" => Act::Deny,
        other => {
            assert_eq!(other, "block");
            Act::Block
        }
    };
    Op { act, by: MemberIndex(small(&v["by"])) }
}

fn ops(v: &Value) -> Vec<Op> {
    list(v).iter().map(op).collect()
}

fn roster_of(case: &Value) -> Roster {
    let mut roster = Roster::default();
    for entry in list(&case["roster"]) {
        let member: Member = round_trip(&entry["entry"]);
        assert_eq!(bytes(&entry["entry"]).len(), Member::WIRE_LEN);
        assert_eq!((member.index, member.joined), (index(&entry["index"]), epoch(&entry["joined"])));
        same(member.leaf(), &entry["leaf"]);
        assert!(roster.insert(member));
    }
    same(roster.root(), &case["roster_root"]);
    roster
}

#[test]
fn rosters_and_commitments_are_those_of_the_vectors() {
    for case in list(&vectors().statement["epochs"]) {
        let roster = roster_of(case);
        let leaf = |i: MemberIndex| commitment_leaf(i, &array(&case["commitments"][i.to_string()]));
        let leaves: Vec<_> = roster.members().map(|m| leaf(m.index)).collect();
        let (openings, root) = merkle::open_all(&leaves);
        same(root, &case["commitments_root"]);
        for (position, (member, opening)) in roster.members().zip(openings).enumerate() {
            let at = member.index.to_string();
            let wanted: Vec<[u8; 32]> = list(&case["openings"][&at]).iter().map(array).collect();
            assert_eq!(opening, wanted);
            let Message::EpochKey(key) = round_trip(&case["epoch_keys"][&at]) else { panic!("another message") };
            assert!(merkle::verify(&root, &leaves[position], position, roster.len(), &key.opening));
            same(key.fresh.as_bytes(), &case["fresh"]);
            assert_eq!(key.ops, ops(&case["ops"]));
            assert_eq!(key.line, line(&case["line"]));
        }
    }
}

#[test]
fn statements_and_their_chain_are_those_of_the_vectors() {
    let v = vectors().statement;
    let meeting = meeting(&v);
    let mut chain = ChainHash::start(meeting, &array(&v["chain"]));
    same(chain.0, &v["T_0"]);
    let mut settings = Settings { locked: false, newcomers_muted: false, waiting_room: true };
    for case in list(&v["epochs"]) {
        let statement: Statement = round_trip(&case["statement"]);
        assert_eq!(bytes(&case["statement"]).len(), Statement::WIRE_LEN);
        assert_eq!(statement.meeting, meeting);
        assert_eq!((statement.epoch, statement.time.0), (epoch(&case["epoch"]), number(&case["time"])));
        assert_eq!((statement.term, statement.leader), (Term(small(&case["term"])), index(&case["leader"])));
        assert_eq!(u64::from(statement.policy), number(&v["policy"]));
        assert_eq!(statement.rate == Rate::Open, number(&case["rate"]) == 1);
        settings = ops(&case["ops"]).iter().fold(settings, |settings, op| op.act.apply(settings));
        assert_eq!(statement.settings, settings);
        assert_eq!(settings.encode(), [small::<u8>(&case["settings"])]);
        same(statement.line, &case["line_hash"]);
        same(line(&case["line"]).map_or([0; 32], |line| line.digest()), &case["line_hash"]);
        same(ops_hash(&ops(&case["ops"])), &case["ops_hash"]);
        same(statement.ops_hash, &case["ops_hash"]);
        same(statement.roster_root, &case["roster_root"]);
        same(statement.key_commitment, &case["kc"]);
        same(statement.commitments_root, &case["commitments_root"]);
        same(label::hash(label::STATEMENT_HASH, &[&statement.encode()]), &case["statement_hash"]);
        same(chain.0, &case["previous"]);
        chain = chain.step(&statement);
        same(chain.0, &case["T"]);
        same(statement.sign(&chain, &authority(&v, &case["leader"])).0, &case["signature"]);
        let roster = roster_of(case);
        for member in roster.members() {
            let ack = &case["acks"][member.index.to_string()];
            let Message::EpochAck(ack) = round_trip(ack) else { panic!("another message") };
            assert_eq!(ack.verify(&chain, &member.cert.identity), Ok(()));
            assert_eq!(ack.epoch, statement.epoch);
        }
    }
}

/// Where each field of a statement begins (the table of §7.1).
#[test]
fn the_fields_of_a_statement_are_where_the_specification_says() {
    let v = vectors().statement;
    for case in list(&v["epochs"]) {
        let stmt = bytes(&case["statement"]);
        let be = |value: &Value, len: usize| number(value).to_be_bytes()[8 - len..].to_vec();
        let fields = [
            (0, vec![1]),
            (1, vec![0xF0, 0x01]),
            (3, bytes(&v["meeting_id"])),
            (23, bytes(&v["chain"])),
            (39, be(&case["term"], 4)),
            (43, be(&case["epoch"], 4)),
            (47, be(&case["leader"], 2)),
            (49, bytes(&case["ops_hash"])),
            (81, bytes(&case["roster_root"])),
            (113, bytes(&case["kc"])),
            (145, bytes(&case["commitments_root"])),
            (177, bytes(&case["line_hash"])),
            (209, be(&case["time"], 8)),
            (217, be(&v["policy"], 2)),
            (219, be(&case["rate"], 1)),
            (220, be(&v["frame_ms"], 1)),
            (221, be(&case["settings"], 1)),
        ];
        let whole: Vec<u8> = fields.iter().flat_map(|(_, field)| field.clone()).collect();
        assert_eq!(whole, stmt);
        let mut at = 0;
        for (begins, field) in fields {
            assert_eq!(begins, at);
            at += field.len();
        }
        assert_eq!(at, 222);
    }
}

#[test]
fn ops_merkle_trees_and_removal_notices_are_those_of_the_vectors() {
    let v = vectors().statement;
    let all = ops(&v["all_ops"]["ops"]);
    assert_eq!(all.len(), 20);
    same(ops_hash(&all), &v["all_ops"]["hash"]);
    let encoded: Vec<u8> = all.iter().flat_map(Wire::encode).collect();
    assert_eq!(encoded.len(), 5 * all.len());
    same([&[0, 20], &encoded[..]].concat(), &v["all_ops"]["bytes"]);
    for case in list(&v["merkle"]) {
        let leaves: Vec<[u8; 32]> = list(&case["leaves"]).iter().map(array).collect();
        same(merkle::root(&leaves), &case["root"]);
    }
    for case in list(&v["removal_notices"]) {
        let (meeting, authority) = (meeting(&v), authority(&v, &case["leader"]));
        let removed = list(&case["removed"]).iter().map(index).collect();
        same(RemovalNotice::sign(meeting, epoch(&case["epoch"]), removed, &authority).encode(), &case["bytes"]);
        let read: RemovalNotice = round_trip(&case["bytes"]);
        assert_eq!(read.verify(meeting, &authority.public()), Ok(()));
    }
}

#[test]
fn key_schedules_are_those_of_the_vectors() {
    let v = vectors().schedule;
    let meeting = meeting(&v);
    for case in list(&v["epochs"]) {
        let epoch = epoch(&case["epoch"]);
        let fresh: FreshSecret = Secret::new(array(&case["fresh"]));
        let chain = ChainHash(array(&case["T"]));
        same(label::hash(label::CHAIN_STEP, &[&bytes(&case["previous"]), &bytes(&case["statement_hash"])]), &case["T"]);
        same(schedule::key_commitment(meeting, epoch, &fresh), &case["kc"]);
        assert!(schedule::commits_to(&array(&case["kc"]), meeting, epoch, &fresh));
        let extracted: Secret<()> = secret::extract(&chain.0, fresh.as_bytes());
        same(extracted.as_bytes(), &case["ES"]);
        let secret = EpochSecret::new(meeting, epoch, &chain, &fresh);
        same(secret.mesh().as_bytes(), &case["mesh"]);
        same(secret.control().as_bytes(), &case["ctl"]);
        for (i, sender) in case["senders"].as_object().expect("senders") {
            let index = MemberIndex(i.parse().unwrap());
            let ck0 = secret.sender_chain(index, &PublicKey(array(&sender["vk"])));
            let ck1 = schedule::next_chain(&ck0);
            same(ck0.as_bytes(), &sender["CK_0"]);
            same(schedule::segment_key(&ck0).as_bytes(), &sender["SK_0"]);
            same(ck1.as_bytes(), &sender["CK_1"]);
            same(schedule::segment_key(&ck1).as_bytes(), &sender["SK_1"]);
        }
    }
}

// ---- §7.7 ----

/// What a message to all of the vectors is made of.
fn broadcast(v: &Value, case: &Value) -> Broadcast {
    let (sender, counter) = (index(&case["sender"]), small(&case["counter"]));
    let (epoch_number, person) = (epoch(&case["epoch"]), &v["people"][sender.to_string()]);
    let chain = ChainHash(array(&v["T"][number(&case["epoch"]).to_string()]));
    let place = Place { meeting: meeting(v), epoch: epoch_number, index: sender, counter };
    match text(&case["what"]) {
        "heartbeat" => Broadcast::Heartbeat(Heartbeat::sign(
            Beat {
                term: Term(small(&case["term"])),
                epoch: epoch_number,
                n: small(&case["n"]),
                chain,
                previous: array(&case["previous"]),
                time: UnixMillis(number(&case["time"])),
                unconfirmed: list(&case["unconfirmed"]).iter().map(index).collect(),
            },
            &authority(v, &case["sender"]),
        )),
        "confirm" => {
            let identity = Identity::kept(&array(&person["ik_seed"]));
            let heard = (Term(small(&case["term"])), epoch_number, small(&case["n"]));
            let value = case["value"].is_string().then(|| array(&case["value"]));
            Broadcast::Confirm(Confirm::sign(&identity, sender, &chain, heard, value))
        }
        "chat" => Broadcast::Said(Said::chat(&place, text(&case["text"]).to_owned(), &key(&person["vk_seed"]))),
        "hand" => Broadcast::Said(Said::hand(&place, case["on"] == Value::Bool(true), &key(&person["vk_seed"]))),
        "recording" => {
            Broadcast::Said(Said::recording(&place, case["on"] == Value::Bool(true), &key(&person["vk_seed"])))
        }
        "published" => {
            let seed = SealingSeed::new(array(&case["seed"]));
            Broadcast::Published(Published { index: index(&case["of"]), seed })
        }
        other => {
            assert_eq!(other, "passed");
            round_trip(&case["message"])
        }
    }
}

#[test]
fn messages_to_all_are_those_of_the_vectors() {
    let v = vectors().broadcast;
    let channel = |case: &Value, index| {
        Channel::new(epoch(&case["epoch"]), index, Secret::new(array(&v["ctl"][number(&case["epoch"]).to_string()])))
    };
    let mut senders = std::collections::BTreeMap::new();
    for case in list(&v["messages"]) {
        let sender = index(&case["sender"]);
        let message = broadcast(&v, case);
        same(message.encode(), &case["message"]);
        assert_eq!(round_trip::<Broadcast>(&case["message"]), message);
        let own = senders.entry((number(&case["epoch"]), sender)).or_insert_with(|| channel(case, sender));
        assert_eq!(own.next_counter(), small::<u32>(&case["counter"]));
        let packet = own.seal(&message).expect("counters are left");
        same(&packet, &case["packet"]);
        let mut receiver = channel(case, MemberIndex(9));
        for other in near(&packet) {
            assert_eq!(receiver.open(sender, &other), None);
        }
        assert_eq!(receiver.open(MemberIndex(8), &packet), None);
        assert_eq!(receiver.open(sender, &packet), Some((small(&case["counter"]), message)));
        assert_eq!(receiver.open(sender, &packet), None);
    }
}

#[test]
fn signatures_of_messages_to_all_verify_and_heartbeats_are_chained() {
    let v = vectors().broadcast;
    let mut last = None;
    let mut seen = Vec::new();
    for case in list(&v["messages"]) {
        let sender = index(&case["sender"]);
        let person = |index: MemberIndex| &v["people"][index.to_string()];
        let chain = ChainHash(array(&v["T"][number(&case["epoch"]).to_string()]));
        let identity = |index| key(&person(index)["ik_seed"]).public();
        match round_trip(&case["message"]) {
            Broadcast::Heartbeat(heartbeat) => {
                assert_eq!(heartbeat.verify(&authority(&v, &case["sender"]).public()), Ok(()));
                same(heartbeat.digest(), &case["hash"]);
                let expected = if heartbeat.n == 1 { Some([0; 32]) } else { last };
                assert_eq!(Some(heartbeat.previous), expected);
                last = Some(heartbeat.digest());
            }
            Broadcast::Confirm(confirm) => assert_eq!(confirm.verify(&identity(sender), sender, &chain), Ok(())),
            Broadcast::Passed(passed) => {
                assert_eq!(passed.iter().map(|p| p.index.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
                for passed in passed {
                    assert_eq!(passed.confirm.verify(&identity(passed.index), passed.index, &chain), Ok(()));
                }
            }
            Broadcast::Said(said) => {
                let counter = small(&case["counter"]);
                let place = Place { meeting: meeting(&v), epoch: epoch(&case["epoch"]), index: sender, counter };
                let sealing = key(&person(sender)["vk_seed"]).public();
                assert_eq!(said.verify(&place, &sealing), Ok(()));
                assert!(said.verify(&Place { counter: counter + 1, ..place }, &sealing).is_err());
            }
            Broadcast::Published(published) => {
                let sealing = key(&person(published.index)["vk_seed"]).public();
                assert_eq!(published.seed.public(), sealing);
            }
            // Those are among the vectors of seals.
            Broadcast::Heads(_) => unreachable!("no heads are among these"),
        }
        seen.push(text(&case["what"]).to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["chat", "confirm", "hand", "heartbeat", "passed", "published", "recording"]);
}

// ---- §7.9 ----

#[test]
fn witnesses_are_those_of_the_vectors() {
    let v = vectors();
    let witness = &v.broadcast["witness"];
    let (meeting, link) = (meeting(&v.broadcast), Link::parse(text(&v.handshake["cases"][0]["link"])).expect("a link"));
    let key = WitnessKey::new(&link.secret.psk0(meeting), &array(&witness["chain"]));
    for case in list(&witness["shown"]) {
        let shown: Witnessed = round_trip(&case["message"]);
        assert_eq!(shown.verify(&authority(&v.broadcast, &case["leader"]).public()), Ok(()));
        let packet = key.seal(&shown, &mut Draws::of([&case["nonce"]])).expect("room");
        same(&packet, &case["packet"]);
        assert_eq!(packet.len(), 347);
        for other in near(&packet) {
            assert_eq!(key.open(&other), None);
        }
        assert_eq!(key.open(&packet), Some(shown));
    }
    let turns = &witness["turns"];
    let shows = (0..small::<u16>(&turns["members"])).filter(|i| {
        let n = small::<u32>(&turns["n"]);
        let drawn = label::hash(label::WITNESS, &[&bytes(&turns["T"]), &n.to_be_bytes(), &i.to_be_bytes()]);
        let drawn = u64::from_be_bytes(*drawn.first_chunk().expect("32 bytes"));
        (u128::from(drawn) * u128::from(number(&turns["members"]))) >> 64 < 16
    });
    let wanted: Vec<u16> = list(&turns["shows"]).iter().map(small).collect();
    assert_eq!(shows.collect::<Vec<_>>(), wanted);
}

#[test]
fn the_proof_of_the_vectors_convicts_the_leader() {
    let v = vectors().broadcast;
    let proof = bytes(&v["witness"]["proof"]);
    let mut r = Reader::new(&proof);
    let descriptor = Descriptor::decode_for(meeting(&v), r.bytes(Descriptor::MAX_LEN).expect("a descriptor"));
    let descriptor = descriptor.expect("that of the meeting");
    let line = Line::decode(r.bytes(Line::MAX_LEN).expect("a line")).expect("a line");
    let [one, other] = [(); 2].map(|()| Witnessed::read(&mut r).expect("a statement"));
    assert_eq!(r.end(), Ok(()));
    assert_eq!(line.verify(&descriptor.authority, meeting(&v)), Ok(()));
    assert!(one.contradicts(&other) && other.contradicts(&one) && !one.contradicts(&one));
    for shown in [&one, &other] {
        let key = authority_of(Some(&line), &descriptor.authority, shown.statement.leader).expect("a leader");
        assert_eq!(shown.verify(&key), Ok(()));
    }
    let next: Witnessed = round_trip(&v["witness"]["shown"][2]["message"]);
    assert!(!one.contradicts(&next), "another epoch");
}

// ---- §8 ----

fn frame<'a>(v: &Value, opus: &'a [u8]) -> Frame<'a> {
    let microphone = if v["muted"] == Value::Bool(true) { Microphone::Muted } else { Microphone::On };
    Frame { seq: small(&v["seq"]), stamp: small(&v["stamp"]), microphone, level: small(&v["level"]), opus }
}

#[test]
fn media_datagrams_are_those_of_the_vectors() {
    let start = Instant::now();
    let v = vectors().frame;
    let meeting = meeting(&v);
    for sender in list(&v["senders"]) {
        let (index, epoch) = (index(&sender["index"]), epoch(&sender["epoch"]));
        let frame_ms: u8 = small(&sender["frame_ms"]);
        let mut sealer = Sealer::new(meeting, index, epoch, Secret::new(array(&sender["CK_0"])), frame_ms);
        let mut opener = Opener::new(meeting, index, epoch, Secret::new(array(&sender["CK_0"])), frame_ms, start);
        let mut sealed = 0;
        for case in list(&sender["frames"]) {
            let opus = bytes(&case["opus"]);
            let frame = frame(case, &opus);
            let mut out = [0; DATAGRAM_LEN];
            for _ in sealed..=number(&case["n"]) {
                sealer.seal(&frame, &mut out).expect("segments are left");
            }
            sealed = number(&case["n"]) + 1;
            same(out, &case["datagram"]);
            same(&out[datagram::HEADER_LEN..][..10], &case["header"]);
            same(&out[datagram::HEADER_LEN + 10..], &case["ciphertext"]);
            let ciphertext = Ciphertext::parse(&out[datagram::HEADER_LEN..]).expect("a ciphertext");
            same(ciphertext.name.kid().0.to_be_bytes(), &case["kid"]);
            assert_eq!(u64::from(ciphertext.name.segment.0), number(&case["segment"]));
            let now = start + Duration::from_millis(number(&case["n"]) * u64::from(frame_ms));
            let mut plaintext = [0; PLAINTEXT_LEN];
            assert_eq!(opener.open(&ciphertext, Play::AtOnce, now, &mut plaintext), Ok(Some(frame)));
            same(plaintext, &case["plaintext"]);
        }
    }
}

// ---- all of it together ----

fn transmitted(conference: &mut Conference) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| conference.poll_transmit())
        .map(|transmit| match transmit {
            Transmit::Control(bytes) | Transmit::Datagram(bytes) => bytes,
        })
        .collect()
}

fn mail_from_host(conference: &mut Conference, now: Instant, kind: &[u8], body: &Value) {
    let mail = FromRelay::Mail { bytes: [kind, &bytes(body)].concat() };
    conference.handle_control(now, &mail.encode());
}

fn deliver(conference: &mut Conference, now: Instant, from: MemberIndex, packet: &Value) {
    conference.handle_control(now, &FromRelay::Deliver { from, bytes: bytes(packet) }.encode());
}

fn assert_mailed(sent: &[Vec<u8>], kind: &[u8], body: &Value) {
    let mail = ToRelay::Mail { bytes: [kind, &bytes(body)].concat() };
    assert!(sent.contains(&mail.encode()), "the mail is not among what was sent");
}

fn assert_sent(sent: &[Vec<u8>], to: MemberIndex, packet: &Value) {
    let message = ToRelay::Send { to, bytes: bytes(packet) };
    assert!(sent.contains(&message.encode()), "the packet is not among what was sent");
}

/// A guest of this crate whose keys are those of the vectors, on its way to the meeting of the vectors.
fn joining(v: &Vectors, now: Instant) -> Conference {
    let case = &v.handshake["cases"][0];
    let (guest, drawn) = (&case["guest"], &case["draws"]["guest"]);
    let own_value = |epoch: usize| &v.statement["epochs"][epoch - 1]["values"]["1"];
    // In the order in which a guest draws: its first fresh value, its keys of this join, the handshake.
    let before = [
        &guest["fresh"],
        &guest["ms_secret"],
        &guest["vk_seed"],
        &guest["rk_seed"],
        &drawn["ephemeral"],
        &drawn["mlkem"],
        &drawn["nonce"],
    ];
    // What takes the place of the keys that went into the seat, and is never used.
    let spare = [0; 4 * 32];
    // As a member: its next fresh value, the nonce of a witness, its authority key, a fresh value; as the leader
    // fresh_e and a fresh value.
    let after = [
        own_value(3),
        &v.broadcast["witness"]["shown"][0]["nonce"],
        &v.broadcast["authority_seeds"]["1"],
        own_value(4),
        &v.statement["epochs"][3]["fresh"],
        own_value(5),
    ];
    let mut draws = Draws::of(before);
    draws.0.extend(spare);
    draws.0.extend(Draws::of(after).0);
    let config = JoinConfig {
        link: Link::parse(text(&case["link"])).expect("a link"),
        identity: identity(guest),
        name: name(guest),
        passcode: None,
    };
    let start = Start { now, wall: UnixMillis(number(&case["now"])) };
    Conference::join(config, start, Box::new(draws))
}

#[test]
fn a_guest_follows_the_meeting_of_the_vectors_from_knock_to_leadership() {
    let now = Instant::now();
    let v = vectors();
    let case = &v.handshake["cases"][0];
    let mut guest = joining(&v, now);
    guest.connected(now, array(&v.capability["exporter"]));
    same(&transmitted(&mut guest)[0], &v.control["to_relay"]["hello_of_guest"]);
    for message in ["welcome", "meeting"] {
        guest.handle_control(now, &bytes(&v.control["from_relay"][message]));
    }
    same(&transmitted(&mut guest)[0], &v.control["to_relay"]["open_mailbox"]);
    guest.handle_control(now, &bytes(&v.control["from_relay"]["mailbox_open"]));
    assert_mailed(&transmitted(&mut guest), &[1, 0, 0], &case["message1"]);
    mail_from_host(&mut guest, now, &[2, 0, 0], &case["message2"]);
    assert_mailed(&transmitted(&mut guest), &[3, 0, 0], &case["message3"]);

    let mut sent = Vec::new();
    let mut epochs = Vec::new();
    let mut is_attached = false;
    for record in list(&case["records"]) {
        match (text(&record["to"]), text(&record["message"])) {
            ("guest", _) if is_attached => deliver(&mut guest, now, MemberIndex::HOST, &record["packet"]),
            ("guest", _) => mail_from_host(&mut guest, now, &[], &record["packet"]),
            (_, "") => guest.handle_timeout(now + Duration::from_millis(200)),
            (_, "12") => {
                guest.handle_control(now, &bytes(&v.control["from_relay"]["attached"]));
                is_attached = true;
                check_broadcasts_of_second_epoch(&mut guest, now, &v, &mut sent);
            }
            // The host falls silent.
            (_, message) if Some(message) == v.statement["epochs"][3]["epoch_keys"]["0"].as_str() => {
                check_broadcasts_of_third_epoch(&mut guest, now + Duration::from_secs(1), &v, &mut sent);
                // Awake all the time: who sleeps does not take over.
                for seconds in [4, 7] {
                    guest.handle_timeout(now + Duration::from_secs(seconds));
                }
                guest.handle_timeout(now + Duration::from_millis(8_999));
                assert_eq!(guest.leader(), Some(MemberIndex::HOST));
                guest.handle_timeout(now + Duration::from_secs(9));
            }
            _ => {}
        }
        sent.extend(transmitted(&mut guest));
        if text(&record["to"]) == "host" {
            if is_attached {
                assert_sent(&sent, MemberIndex::HOST, &record["packet"]);
            } else {
                assert_mailed(&sent, &[], &record["packet"]);
            }
        }
        if guest.chain_hash().is_some() && epochs.last() != Some(&guest.epoch()) {
            epochs.push(guest.epoch());
            let wanted = &v.statement["epochs"][guest.epoch().number() as usize - 1];
            same(guest.chain_hash().expect("a chain").0, &wanted["T"]);
            assert_eq!(guest.members().count(), list(&wanted["roster"]).len());
            if epochs.len() == 1 {
                check_media(&mut guest, now, &v.frame);
            }
        }
    }
    assert_eq!(epochs, [2, 3, 4].map(|e| Epoch::new(e).expect("small")));
    assert!(sent.contains(&bytes(&v.control["to_relay"]["attach"])), "the capability is shown to the relay");
    let events: Vec<Event> = std::iter::from_fn(|| guest.poll_event()).collect();
    let me = MemberIndex(1);
    let chat = list(&v.broadcast["messages"]).iter().find(|m| m["what"] == "chat").expect("a chat");
    for event in [
        Event::WaitingRoom,
        Event::Admitted { index: me },
        Event::Chat { from: MemberIndex(2), text: text(&chat["text"]).to_owned() },
        Event::Hand { index: MemberIndex(2), on: true },
        Event::AskedToMute { by: MemberIndex::HOST },
        Event::Locked { on: true },
        Event::Leader { index: me },
    ] {
        assert!(events.contains(&event), "{event:?} is not in {events:?}");
    }
    let code = &v.code["codes"][1];
    let is_code = |e: &Event| matches!(e, Event::SecurityCode { code: shown, .. } if shown.words() == code["words"]);
    assert_eq!(events.iter().filter(|e| is_code(e)).count(), 1, "the code of the second epoch");
    assert!(!events.iter().any(|e| matches!(e, Event::Alarm { .. } | Event::Failed(_))), "{events:?}");
}

/// Everybody confirms, the host gives a sign of life, and others speak.
fn check_broadcasts_of_second_epoch(guest: &mut Conference, now: Instant, v: &Vectors, sent: &mut Vec<Vec<u8>>) {
    guest.handle_timeout(now + Duration::from_millis(300));
    for case in list(&v.broadcast["messages"]).iter().filter(|case| number(&case["epoch"]) == 2) {
        sent.extend(transmitted(guest));
        match index(&case["sender"]) {
            MemberIndex(1) => assert_sent(sent, EVERYBODY, &case["packet"]),
            other => deliver(guest, now + Duration::from_millis(300), other, &case["packet"]),
        }
    }
    sent.extend(transmitted(guest));
    assert_sent(sent, EVERYBODY, &v.broadcast["witness"]["shown"][0]["packet"]);
}

fn check_broadcasts_of_third_epoch(guest: &mut Conference, now: Instant, v: &Vectors, sent: &mut Vec<Vec<u8>>) {
    for case in list(&v.broadcast["messages"]).iter().filter(|case| number(&case["epoch"]) == 3) {
        if index(&case["sender"]) == MemberIndex(1) {
            guest.handle_timeout(now);
            sent.extend(transmitted(guest));
            assert_sent(sent, EVERYBODY, &case["packet"]);
        } else {
            deliver(guest, now, index(&case["sender"]), &case["packet"]);
        }
    }
}

/// In the second epoch: the guest's first frame is that of the vectors, and it hears the host's.
fn check_media(guest: &mut Conference, now: Instant, v: &Value) {
    let (own, hosts) = (&v["senders"][0]["frames"][0], &v["senders"][1]["frames"][0]);
    let opus = bytes(&own["opus"]);
    let mut out = [0; DATAGRAM_LEN];
    guest.seal(now, &frame(own, &opus), &mut out).expect("a key to seal with");
    same(out, &own["datagram"]);
    let mut plaintext = [0; PLAINTEXT_LEN];
    let opened = guest.open(now, &bytes(&hosts["datagram"]), &mut plaintext).expect("a frame of the host's");
    let opus = bytes(&hosts["opus"]);
    assert_eq!(opened, Some((MemberIndex(0), frame(hosts, &opus))));
}

#[test]
fn the_same_keys_with_another_policy_are_another_meeting() {
    let v = vectors();
    let descriptor: Descriptor = round_trip(&v.handshake["cases"][0]["descriptor"]);
    assert_eq!(descriptor.policy, Policy::DEFAULT);
    let asking = Descriptor { policy: Policy::DEFAULT.with_passcode(), ..descriptor };
    same(asking.meeting_id().0, &v.handshake["cases"][1]["meeting_id"]);
}
