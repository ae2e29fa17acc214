use std::time::{Duration, Instant};

use super::ring::{KEPT, KEPT_AFTER_END, MAX_BYTES, NoEvidence, Ring, Window};
use super::{Exhibit, FrameBytes};
use crate::descriptor::{Descriptor, Policy};
use crate::epoch::merkle;
use crate::epoch::roster::{Member, Roster};
use crate::epoch::schedule::SegmentKey;
use crate::epoch::statement::{ChainHash, Rate, Settings, Statement};
use crate::epoch::witness::Witnessed;
use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::identity::{DisplayName, Identity, JoinKeys, Role};
use crate::seal::{SealBody, Sealed, frame_hash};
use crate::secret::Secret;
use crate::sframe::{KeyName, SegmentNumber, encode_header};
use crate::sign::KeyPair;
use crate::stamp::{Minute, Stamp, StampKeyId};
use crate::time::UnixMillis;

const SEGMENT: Duration = Duration::from_millis(500);
const STAMP: Stamp = Stamp { key: StampKeyId([1; 8]), minute: Minute(7), mac: [2; 16] };
const ME: MemberIndex = MemberIndex(9);
const ANN: MemberIndex = MemberIndex(1);
const BOB: MemberIndex = MemberIndex(2);

fn authority() -> KeyPair {
    KeyPair::from_seed(&[70; 32])
}

fn sealing(index: MemberIndex) -> KeyPair {
    KeyPair::from_seed(&[index.0 as u8; 32])
}

fn descriptor() -> Descriptor {
    Descriptor {
        hs: [1; 32],
        authority: authority().public(),
        not_before: UnixMillis(0),
        not_after: UnixMillis(u64::MAX),
        policy: Policy::DEFAULT,
        frame_ms: 20,
        max_members: 10,
        nonce: [2; 16],
        moderator: [0; 32],
        regions: Vec::new(),
    }
}

fn meeting() -> MeetingId {
    descriptor().meeting_id()
}

fn member(index: MemberIndex) -> Member {
    let name = DisplayName::parse(&format!("Member {index}")).expect("a name");
    let key = sealing(index).public();
    let keys = JoinKeys { session: [0; 32], sealing: key, routing: key };
    let cert = Identity::kept(&[7; 32]).certify(meeting(), Role::Member, keys, &name, UnixMillis(u64::MAX));
    Member { index, cert, joined: Epoch::ZERO, name }
}

/// A ring, and the meeting that it hears.
struct Heard {
    ring: Ring,
    now: Instant,
    epoch: Epoch,
    chain: ChainHash,
    segment: u16,
}

impl Heard {
    fn new(members: &[MemberIndex]) -> Self {
        let chain = ChainHash([8; 32]);
        let mut heard = Self { ring: Ring::default(), now: Instant::now(), epoch: Epoch::ZERO, chain, segment: 0 };
        heard.turn_to(members);
        heard
    }

    /// The next epoch, of these members.
    fn turn_to(&mut self, members: &[MemberIndex]) {
        let mut roster = Roster::default();
        members.iter().chain([&ME, &MemberIndex::HOST]).for_each(|index| {
            roster.insert(member(*index));
        });
        self.epoch = self.epoch.next().expect("epochs are left");
        let settings = Settings { locked: false, newcomers_muted: false, waiting_room: true };
        let statement = Statement {
            meeting: meeting(),
            chain: [3; 16],
            term: Term(0),
            epoch: self.epoch,
            leader: MemberIndex::HOST,
            ops_hash: [0; 32],
            roster_root: roster.root(),
            key_commitment: [0; 32],
            commitments_root: [0; 32],
            line: [0; 32],
            time: UnixMillis(1),
            policy: 1,
            rate: Rate::Private,
            frame_ms: 20,
            settings,
        };
        let previous = self.chain;
        self.chain = previous.step(&statement);
        let signature = statement.sign(&self.chain, &authority());
        let shown = Witnessed { previous, statement, signature };
        self.ring.on_epoch(ME, &descriptor(), &shown, None, &roster);
        self.segment = 0;
    }

    fn name(&self, index: MemberIndex) -> KeyName {
        KeyName { index, epoch: self.epoch, segment: SegmentNumber(self.segment) }
    }

    fn key(name: KeyName) -> SegmentKey {
        Secret::new([name.segment.0 as u8 ^ name.index.0 as u8; 32])
    }

    fn frame(number: u8) -> FrameBytes {
        [number ^ 0x55; size_of::<FrameBytes>()]
    }

    /// The seal of a whole segment.
    fn seal(&self, index: MemberIndex) -> Vec<u8> {
        let name = self.name(index);
        let hashes: Vec<_> = (0..25)
            .map(|number| frame_hash(&[&encode_header(name, number).1[..], &Self::frame(number)].concat()))
            .collect();
        let key = Self::key(name);
        let (chain, hashes) = (&self.chain, &hashes[..]);
        Sealed { meeting: &meeting(), chain, name, key: &key, hashes, prev: [0; 32], per_segment: 25 }
            .sign(&sealing(index))
            .0
    }

    fn hear(&mut self, index: MemberIndex, number: u8, muted: bool) {
        let at = self.now + Duration::from_millis(20) * u32::from(number);
        self.ring.on_frame(at, index, self.name(index), number, &Self::frame(number), muted);
    }

    fn seal_heard(&mut self, index: MemberIndex) {
        let (name, seal) = (self.name(index), self.seal(index));
        self.ring.on_seal(self.now + SEGMENT, index, name, &Self::key(name), &seal, Some(STAMP));
    }

    /// These talk for half a second, and their seals come.
    fn talk(&mut self, talkers: &[MemberIndex], muted: bool) {
        for index in talkers {
            (0..25).for_each(|number| self.hear(*index, number, muted));
            self.seal_heard(*index);
        }
        self.now += SEGMENT;
        self.segment += 1;
    }

    fn exhibit(&self, index: MemberIndex, ago: u64, length: u64) -> Result<Exhibit, NoEvidence> {
        let window = Window { ago: Duration::from_secs(ago), length: Duration::from_secs(length) };
        self.ring.exhibit(self.now, index, window)
    }

    fn held(&self, index: MemberIndex) -> Option<Duration> {
        self.ring.reportable().find(|(of, ..)| *of == index).map(|(_, _, held)| held)
    }
}

/// Checks everything that a moderator would, and gives the segments' numbers.
fn check(exhibit: &Exhibit) -> Vec<(u32, u16)> {
    let accused = &exhibit.accused;
    let chains: Vec<(Epoch, ChainHash)> = exhibit
        .epochs
        .iter()
        .map(|proof| {
            let chain = proof.previous.step(&proof.statement);
            assert_eq!(Statement::verify(&chain, &exhibit.descriptor.authority, &proof.signature), Ok(()));
            let (position, count) = (usize::from(proof.position), usize::from(proof.count));
            assert!(merkle::verify(&proof.statement.roster_root, &accused.leaf(), position, count, &proof.path));
            (proof.statement.epoch, chain)
        })
        .collect();
    let mut unused: Vec<Epoch> = chains.iter().map(|(epoch, _)| *epoch).collect();
    let numbers = exhibit.segments.iter().map(|segment| {
        let (epoch, chain) = chains.iter().find(|(epoch, _)| *epoch == segment.name.epoch).expect("its epoch");
        unused.retain(|unused| unused != epoch);
        let body = SealBody::open(&segment.seal, &meeting(), &segment.key, 25).expect("opens");
        let vk = &accused.cert.keys.sealing;
        assert!(body.verify(&meeting(), chain, &segment.key, vk).is_ok());
        for (number, frame) in &segment.frames {
            let sframe = [&encode_header(segment.name, *number).1[..], frame].concat();
            assert_eq!(body.hashes[usize::from(*number)], frame_hash(&sframe));
        }
        assert!(segment.frames.is_sorted_by_key(|(number, _)| *number));
        (epoch.number(), segment.name.segment.0)
    });
    let numbers = numbers.collect();
    assert_eq!(unused, [], "an epoch that no segment needs");
    numbers
}

#[test]
fn an_exhibit_holds_exactly_the_chosen_seconds_and_verifies() {
    let mut heard = Heard::new(&[ANN, BOB]);
    (0..120).for_each(|_| heard.talk(&[ANN, BOB], false));
    let exhibit = heard.exhibit(ANN, 10, 20).expect("evidence");
    assert_eq!(exhibit.accused, member(ANN));
    assert_eq!(check(&exhibit), (60..100).map(|number| (1, number)).collect::<Vec<_>>());
    assert!(exhibit.segments.iter().all(|segment| segment.frames.len() == 25 && segment.stamp == Some(STAMP)));
    assert_eq!(check(&heard.exhibit(BOB, 0, 1).expect("evidence")), [(1, 118), (1, 119)]);
    assert_eq!(heard.held(ANN), Some(Duration::from_secs(60)));
}

#[test]
fn windows_outside_of_what_may_be_chosen_are_refused() {
    let mut heard = Heard::new(&[ANN]);
    heard.talk(&[ANN], false);
    for (ago, length) in [(0, 0), (0, 41), (299, 2), (u64::MAX, 20)] {
        assert_eq!(heard.exhibit(ANN, ago, length).err(), Some(NoEvidence::Window), "{ago} {length}");
    }
    assert_eq!(heard.exhibit(BOB, 0, 20).err(), Some(NoEvidence::NoSuchMember));
    assert_eq!(heard.exhibit(ME, 0, 20).err(), Some(NoEvidence::NoSuchMember));
    assert_eq!(heard.exhibit(ANN, 20, 20).err(), Some(NoEvidence::Nothing));
}

#[test]
fn only_what_a_seal_lists_counts_whether_it_comes_before_the_seal_or_after() {
    let mut heard = Heard::new(&[ANN]);
    let name = heard.name(ANN);
    heard.ring.on_frame(heard.now, ANN, name, 0, &[99; size_of::<FrameBytes>()], false);
    (0..20).for_each(|number| heard.hear(ANN, number, false));
    assert_eq!(heard.exhibit(ANN, 0, 1).err(), Some(NoEvidence::Nothing), "no seal has come");
    assert_eq!(heard.held(ANN), None);
    heard.seal_heard(ANN);
    heard.hear(ANN, 22, false);
    heard.ring.on_frame(heard.now, ANN, name, 23, &[99; size_of::<FrameBytes>()], false);
    heard.now += SEGMENT;
    let exhibit = heard.exhibit(ANN, 0, 1).expect("evidence");
    check(&exhibit);
    let numbers: Vec<u8> = exhibit.segments[0].frames.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..20).chain([22]).collect::<Vec<_>>());
    assert_eq!(heard.held(ANN), Some(Duration::from_millis(21 * 20)));
}

#[test]
fn forgeries_before_the_seal_crowd_out_no_true_frame() {
    let mut heard = Heard::new(&[ANN]);
    let name = heard.name(ANN);
    for (number, forged) in (0..25).flat_map(|number| [(number, 97), (number, 98), (number, 99)]) {
        heard.ring.on_frame(heard.now, ANN, name, number, &[forged; size_of::<FrameBytes>()], false);
    }
    heard.talk(&[ANN], false);
    let exhibit = heard.exhibit(ANN, 0, 1).expect("evidence");
    check(&exhibit);
    assert_eq!(exhibit.segments[0].frames.len(), 25);
}

#[test]
fn segments_in_which_nothing_is_said_are_skipped() {
    let mut heard = Heard::new(&[ANN]);
    heard.talk(&[ANN], true);
    heard.talk(&[ANN], false);
    heard.talk(&[ANN], true);
    // One of 25 frames is not muted: the whole segment counts.
    (0..25).for_each(|number| heard.hear(ANN, number, number != 7));
    heard.seal_heard(ANN);
    heard.now += SEGMENT;
    assert_eq!(check(&heard.exhibit(ANN, 0, 10).expect("evidence")), [(1, 1), (1, 3)]);
}

#[test]
fn evidence_spans_epochs_and_keeps_what_was_signed_of_them() {
    let mut heard = Heard::new(&[ANN, BOB]);
    heard.talk(&[ANN], false);
    // Epochs in which Ann says nothing; only hers are shown.
    for _ in 0..8 {
        heard.turn_to(&[ANN, BOB]);
    }
    heard.talk(&[ANN], false);
    heard.talk(&[ANN], false);
    let exhibit = heard.exhibit(ANN, 0, 10).expect("evidence");
    assert_eq!(check(&exhibit), [(1, 0), (9, 0), (9, 1)]);
    assert_eq!(exhibit.epochs.len(), 2);
}

#[test]
fn nobody_escapes_by_leaving_or_by_the_end() {
    let mut heard = Heard::new(&[ANN, BOB]);
    (0..10).for_each(|_| heard.talk(&[ANN, BOB], false));
    heard.turn_to(&[BOB]);
    (0..10).for_each(|_| heard.talk(&[BOB], false));
    assert_eq!(check(&heard.exhibit(ANN, 5, 5).expect("evidence")).len(), 10);
    assert_eq!(heard.ring.last_heard(ANN), Some(heard.now - SEGMENT * 10));
    // After the end the window counts from the end.
    heard.ring.on_end(heard.now);
    heard.now += KEPT_AFTER_END - Duration::from_secs(1);
    heard.ring.expire(heard.now);
    assert_eq!(check(&heard.exhibit(ANN, 5, 5).expect("evidence")).len(), 10);
    assert_eq!(check(&heard.exhibit(BOB, 0, 5).expect("evidence")).len(), 10);
    assert_eq!(heard.ring.erase_due(), Some(heard.now + Duration::from_secs(1)));
    heard.now += Duration::from_secs(1);
    assert_eq!(heard.exhibit(ANN, 5, 5).err(), Some(NoEvidence::Erased));
    heard.ring.expire(heard.now);
    assert_eq!((heard.ring.bytes(), heard.ring.erase_due()), (0, None));
    assert_eq!(heard.ring.reportable().count(), 0);
}

#[test]
fn what_is_older_than_five_minutes_is_dropped_and_who_left_with_it() {
    let mut heard = Heard::new(&[ANN, BOB]);
    heard.talk(&[ANN, BOB], false);
    heard.turn_to(&[BOB]);
    heard.now += KEPT;
    heard.ring.expire(heard.now);
    assert_eq!(heard.held(ANN), None);
    assert_eq!(heard.exhibit(ANN, 299, 1).err(), Some(NoEvidence::NoSuchMember));
    assert_eq!(heard.exhibit(BOB, 299, 1).err(), Some(NoEvidence::Nothing));
    // A segment without a seal does not stay as long as others.
    heard.hear(BOB, 0, false);
    let with = heard.ring.bytes();
    heard.now += Duration::from_secs(31);
    heard.ring.expire(heard.now);
    assert!(heard.ring.bytes() < with);
}

#[test]
fn whoever_holds_most_makes_room_and_the_others_lose_nothing() {
    let mut heard = Heard::new(&[ANN, BOB]);
    (0..10).for_each(|_| heard.talk(&[BOB], false));
    let (first, mut count) = (heard.segment, 0);
    // Far more than anybody can say in five minutes, and more than fits.
    while count * 25 * size_of::<(u8, FrameBytes)>() < MAX_BYTES + (1 << 20) {
        heard.hear(ANN, 0, false);
        heard.segment += 1;
        count += 1;
        assert!(heard.ring.bytes() <= MAX_BYTES);
    }
    assert!(heard.ring.bytes() > MAX_BYTES - (1 << 14));
    assert_eq!(heard.held(BOB), Some(SEGMENT * 10));
    // Of Ann the oldest is gone, and a seal for it comes too late; the newest is there.
    heard.segment -= 1;
    heard.seal_heard(ANN);
    assert_eq!(heard.held(ANN), Some(Duration::from_millis(20)));
    heard.segment = first;
    heard.seal_heard(ANN);
    assert_eq!(heard.held(ANN), Some(Duration::from_millis(20)));
}
