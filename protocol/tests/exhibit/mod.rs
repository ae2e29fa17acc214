//! A whole meeting made by hand, down to its seals and stamps, from which true evidence can be taken, and false.

#![allow(dead_code)]

use conclave_protocol::descriptor::{Descriptor, Policy};
use conclave_protocol::epoch::merkle;
use conclave_protocol::epoch::roster::{Member, Roster};
use conclave_protocol::epoch::schedule::{self, EpochSecret, SegmentKey};
use conclave_protocol::epoch::statement::{ChainHash, Rate, Settings, Statement};
use conclave_protocol::evidence::{EpochProof, Exhibit, SegmentProof};
use conclave_protocol::id::{Epoch, MeetingId, MemberIndex, Term};
use conclave_protocol::identity::{DisplayName, Identity, JoinKeys, Role};
use conclave_protocol::seal::{Sealed, frame_hash};
use conclave_protocol::secret::Secret;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone};
use conclave_protocol::sframe::sender::Sealer;
use conclave_protocol::sframe::{HEADER_LEN, KeyName, SegmentNumber, frames_per_segment};
use conclave_protocol::sign::{KeyPair, Signature};
use conclave_protocol::stamp::{Minute, Origin, SealPublic, StampKey};
use conclave_protocol::succession::{Delegate, Line};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::datagram;

/// 2026-01-01T00:00:00Z, when all meetings begin.
pub const BEGIN: UnixMillis = UnixMillis(1_767_225_600_000);
/// Segments that everybody speaks in every epoch.
pub const SEGMENTS: u16 = 4;

/// One member with its secrets.
pub struct Person {
    pub identity: Identity,
    pub sealing: KeyPair,
    pub member: Member,
}

/// One epoch with its secrets.
pub struct EpochMade {
    pub previous: ChainHash,
    pub statement: Statement,
    pub signature: Signature,
    pub line: Option<Line>,
    pub fresh: [u8; 32],
}

impl EpochMade {
    pub fn chain(&self) -> ChainHash {
        self.previous.step(&self.statement)
    }

    pub fn secret(&self) -> EpochSecret {
        EpochSecret::new(self.statement.meeting, self.statement.epoch, &self.chain(), &Secret::new(self.fresh))
    }
}

/// A meeting of a host and four others, over epochs 3 and 4.
pub struct Scene {
    pub descriptor: Descriptor,
    pub authority: KeyPair,
    pub people: Vec<Person>,
    pub epochs: Vec<EpochMade>,
    pub stamping: StampKey,
    seed: u8,
}

/// What the accused's microphone gives, by the tick of its frame clock.
pub type Opus<'a> = &'a mut dyn FnMut(u32) -> Vec<u8>;

/// Opus packets that are none, for those who do not decode.
pub fn noise(seq: u32) -> Vec<u8> {
    (0..80).map(|i| (seq as u8).wrapping_mul(31).wrapping_add(i)).collect()
}

impl Scene {
    /// Two scenes of different seeds are different meetings of different people.
    pub fn new(seed: u8) -> Self {
        Self::with(seed, |_| {})
    }

    /// A scene whose people were changed before the roster was made.
    pub fn with(seed: u8, change: impl FnOnce(&mut Vec<Person>)) -> Self {
        let authority = KeyPair::from_seed(&[seed; 32]);
        let descriptor = Descriptor {
            hs: [seed; 32],
            authority: authority.public(),
            not_before: BEGIN,
            not_after: UnixMillis(BEGIN.0 + 3_600_000),
            policy: Policy::DEFAULT,
            frame_ms: 20,
            max_members: 16,
            nonce: [seed; 16],
            moderator: [0; 32],
            regions: Vec::new(),
        };
        let mut people = (0..5).map(|index| person(&descriptor, seed, index, NAMES[usize::from(index)])).collect();
        change(&mut people);
        let mut scene = Self {
            descriptor,
            authority,
            people,
            epochs: Vec::new(),
            stamping: StampKey::new([seed ^ 0x5A; 32]),
            seed,
        };
        scene.advance(3, None);
        scene.advance(4, None);
        scene
    }

    pub fn meeting(&self) -> MeetingId {
        self.descriptor.meeting_id()
    }

    /// The next epoch, led by the host or by the co-host of that index.
    pub fn advance(&mut self, number: u32, leader: Option<u16>) {
        self.advance_at(number, leader, UnixMillis(BEGIN.0 + 60_000));
    }

    /// As [`Scene::advance`], at a time that the leader writes.
    pub fn advance_at(&mut self, number: u32, leader: Option<u16>, time: UnixMillis) {
        let meeting = self.meeting();
        let previous = self.epochs.last().map_or(ChainHash::start(meeting, &[self.seed; 16]), EpochMade::chain);
        let cohost = KeyPair::from_seed(&[0xC0; 32]);
        let line = leader.map(|slot| {
            let delegate = Delegate { slot: MemberIndex(slot), hs: [1; 32], authority: cohost.public() };
            Line::sign(meeting, 1, vec![delegate], &self.authority)
        });
        let statement = Statement {
            meeting,
            chain: [self.seed; 16],
            term: Term(u32::from(leader.is_some())),
            epoch: epoch(number),
            leader: MemberIndex(leader.unwrap_or(0)),
            ops_hash: [1; 32],
            roster_root: self.roster().root(),
            key_commitment: [2; 32],
            commitments_root: [3; 32],
            line: line.as_ref().map_or([0; 32], Line::digest),
            time,
            policy: self.descriptor.policy.bits(),
            rate: Rate::Private,
            frame_ms: self.descriptor.frame_ms,
            settings: Settings { locked: false, newcomers_muted: false, waiting_room: true },
        };
        let signer = if leader.is_some() { &cohost } else { &self.authority };
        let signature = statement.sign(&previous.step(&statement), signer);
        let fresh = [0x90 ^ number as u8 ^ self.seed; 32];
        self.epochs.push(EpochMade { previous, statement, signature, line, fresh });
    }

    pub fn roster(&self) -> Roster {
        let mut roster = Roster::default();
        for person in &self.people {
            assert!(roster.insert(person.member.clone()));
        }
        roster
    }

    /// Proofs that a member was in every epoch.
    pub fn proofs(&self, index: usize) -> Vec<EpochProof> {
        let leaves: Vec<[u8; 32]> = self.roster().members().map(Member::leaf).collect();
        let proof = |made: &EpochMade| EpochProof {
            previous: made.previous,
            statement: made.statement.clone(),
            signature: made.signature,
            line: made.line.clone(),
            position: index as u16,
            count: leaves.len() as u16,
            path: merkle::open(&leaves, index),
        };
        self.epochs.iter().map(proof).collect()
    }

    /// All that a member said, sealed with `sealing` if it is not the member's own key.
    pub fn said(&self, index: usize, sealing: Option<&KeyPair>, opus: Opus<'_>) -> Vec<SegmentProof> {
        let person = &self.people[index];
        let sealing = sealing.unwrap_or(&person.sealing);
        let mut all = Vec::new();
        let (mut seq, mut prev) = (1_000, [0; 32]);
        for made in &self.epochs {
            let vk = &person.member.cert.keys.sealing;
            let (epoch, index) = (made.statement.epoch, person.member.index);
            let mut chain = made.secret().sender_chain(index, vk);
            let ck0 = made.secret().sender_chain(index, vk);
            let mut sealer = Sealer::new(self.meeting(), index, epoch, ck0, self.descriptor.frame_ms);
            for segment in 0..SEGMENTS {
                let name = KeyName { index, epoch, segment: SegmentNumber(segment) };
                let key = schedule::segment_key(&chain);
                chain = schedule::next_chain(&chain);
                let proof = self.speak(&mut sealer, (name, key, made.chain(), prev), &mut seq, opus, sealing);
                prev = SealPublic::decode(&proof.seal[..SealPublic::WIRE_LEN]).expect("a seal").root;
                all.push(proof);
            }
        }
        all
    }

    fn speak(
        &self,
        sealer: &mut Sealer,
        (name, key, chain, prev): (KeyName, SegmentKey, ChainHash, [u8; 32]),
        seq: &mut u32,
        opus: Opus<'_>,
        sealing: &KeyPair,
    ) -> SegmentProof {
        let per_segment = frames_per_segment(self.descriptor.frame_ms);
        let (mut frames, mut hashes) = (Vec::new(), Vec::new());
        for number in 0..per_segment {
            let mut bytes = [0; DATAGRAM_LEN];
            let packet = opus(*seq);
            let frame = Frame { seq: *seq, stamp: 7, microphone: Microphone::On, level: 20, opus: &packet };
            sealer.seal(&frame, &mut bytes).expect("segments are left");
            let sframe = &bytes[datagram::HEADER_LEN..];
            hashes.push(frame_hash(sframe));
            frames.push((number, sframe[HEADER_LEN..].try_into().expect("one length")));
            *seq += 1;
        }
        let meeting = &self.meeting();
        let sealed = Sealed { meeting, chain: &chain, name, key: &key, hashes: &hashes, prev, per_segment };
        let (seal, _) = sealed.sign(sealing);
        let stamp = Some(self.stamp(&seal, name.index, Minute::from(BEGIN).0 + 2));
        SegmentProof { name, key, seal, stamp, frames }
    }

    /// What the relay says of a seal.
    pub fn stamp(&self, seal: &[u8], slot: MemberIndex, minute: u32) -> conclave_protocol::stamp::Stamp {
        let public = SealPublic::decode(&seal[..SealPublic::WIRE_LEN]).expect("a seal");
        self.stamping.stamp(&self.origin(slot), Minute(minute), &public)
    }

    /// Whom the relay knows by a slot.
    pub fn origin(&self, slot: MemberIndex) -> Origin {
        let person = self.people.iter().find(|person| person.member.index == slot).expect("a member");
        Origin { meeting: self.meeting(), slot, rk: person.member.cert.keys.routing }
    }

    /// What proves what a member said: the last two segments of epoch 3 and the first two of epoch 4.
    pub fn exhibit(&self, index: usize) -> Exhibit {
        self.exhibit_of(index, self.said(index, None, &mut noise))
    }

    /// The same of these segments, from which the middle is taken.
    pub fn exhibit_of(&self, index: usize, mut segments: Vec<SegmentProof>) -> Exhibit {
        let middle = usize::from(SEGMENTS);
        let segments = segments.drain(middle - 2..middle + 2).collect();
        let accused = self.people[index].member.clone();
        Exhibit { descriptor: self.descriptor.clone(), accused, epochs: self.proofs(index), segments }
    }
}

/// The names of a scene's people, by index.
pub const NAMES: [&str; 5] = ["Hana", "Ada", "Bob", "Mallory", "Zoë"];

pub fn epoch(number: u32) -> Epoch {
    Epoch::new(number).expect("small")
}

/// Keys and certificate of one member.
pub fn person(descriptor: &Descriptor, seed: u8, index: u16, name: &str) -> Person {
    let identity = Identity::kept(&[seed.wrapping_add(0x10 + index as u8); 32]);
    let sealing = KeyPair::from_seed(&[seed.wrapping_add(0x20 + index as u8); 32]);
    let role = if index == 0 { Role::Host } else { Role::Member };
    let session = if index == 0 { descriptor.hs } else { [seed.wrapping_add(0x30 + index as u8); 32] };
    let routing = KeyPair::from_seed(&[seed.wrapping_add(0x40 + index as u8); 32]).public();
    let keys = JoinKeys { session, sealing: sealing.public(), routing };
    let name = DisplayName::parse(name).expect("a name");
    let cert = identity.certify(descriptor.meeting_id(), role, keys, &name, descriptor.not_after);
    let member = Member { index: MemberIndex(index), cert, joined: epoch(3), name };
    Person { identity, sealing, member }
}
