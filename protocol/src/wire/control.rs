//! Messages between a leader and a member, inside their Noise session (`docs/protocol.md` §6.4).

use crate::capability::SignedCapability;
use crate::epoch::broadcast::{Published, Said};
use crate::epoch::merkle;
use crate::epoch::roster::Member;
use crate::epoch::schedule::FreshSecret;
use crate::epoch::statement::{ChainHash, MAX_OPS, Op, Statement};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::identity::{DisplayName, IdentityKind};
use crate::label;
use crate::moderator::{MAX_MODERATORS, Moderator};
use crate::secret::Secret;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::succession::Line;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::wire::relay::MAX_PAYLOAD;

/// Most members in one message: with the rest of an EpochKey they stay below one relay message.
///
/// 40 × 273 ([`Member::WIRE_LEN`]) + 2,801 (`EPOCH_KEY_REST`) + 33 (`RECORD`) = 13,754 bytes of the 16,368 of
/// [`MAX_PAYLOAD`]. What is left is for later fields.
pub const MAX_MEMBERS_PER_MESSAGE: usize = 40;

/// The longest EpochKey without its members: type, T, statement, signature, ops, fresh, opening, line, four counts.
const EPOCH_KEY_REST: usize =
    1 + 32 + Statement::WIRE_LEN + 64 + MAX_OPS * 5 + 32 + merkle::MAX_DEPTH * 32 + Line::MAX_LEN + 4 * 2;
/// What a session puts around a message (`docs/protocol.md` §4.4): kind, session, sequence, acknowledged, tag.
const RECORD: usize = 1 + 8 + 4 + 4 + 16;
const _: () = assert!(MAX_MEMBERS_PER_MESSAGE * Member::WIRE_LEN + EPOCH_KEY_REST + RECORD <= MAX_PAYLOAD);

/// Why a guest does not get in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// The host said no.
    Denied,
    /// The host said no twice, or removed and blocked this identity.
    Blocked,
    /// Nobody answered in time.
    Expired,
    /// The meeting is full.
    Full,
    /// The meeting is locked.
    Locked,
}

/// Whom a co-host's request concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// Somebody who knocks, by the leader's number.
    Knock(u32),
    /// A member.
    Member(MemberIndex),
    /// Nobody in particular.
    Nobody,
}

/// What a co-host asks the leader to do.
///
/// ```text
/// number u32 (chosen by the co-host, for the answer) ‖ verb u8 ‖ kind u8 (0 nobody, 1 knock, 2 member) ‖ whom u32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Names the request in the answer.
    pub number: u32,
    /// What.
    pub verb: Verb,
    /// To whom.
    pub whom: Whom,
}

/// The acts that a co-host may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Let a guest in.
    Admit,
    /// Turn a guest down.
    Deny,
    /// Turn a guest down, or put a member out, for good.
    Block,
    /// Put a member out.
    Remove,
    /// Let nobody in.
    Lock,
    /// The opposite.
    Unlock,
    /// Newcomers begin muted.
    MuteNewcomers,
    /// The opposite.
    UnmuteNewcomers,
    /// Guests wait.
    WaitingRoomOn,
    /// Guests don't wait.
    WaitingRoomOff,
    /// Ask a member to mute.
    AskMute,
    /// End the meeting.
    End,
}

impl Verb {
    const ALL: [Self; 12] = [
        Self::Admit,
        Self::Deny,
        Self::Block,
        Self::Remove,
        Self::Lock,
        Self::Unlock,
        Self::MuteNewcomers,
        Self::UnmuteNewcomers,
        Self::WaitingRoomOn,
        Self::WaitingRoomOff,
        Self::AskMute,
        Self::End,
    ];
}

/// What a leader's successors must know of an identity that is no member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Past {
    /// Was a member and left.
    Left,
    /// Was a member and lost the connection: may come back even when the meeting is locked.
    Lost,
    /// May not come again.
    Blocked,
}

/// An entry of the ledger of those who are no members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LedgerEntry {
    /// IK.
    pub identity: PublicKey,
    /// What is known of it.
    pub past: Past,
}

/// A guest who knocks, as co-hosts are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnockShown {
    /// The leader's number.
    pub id: u32,
    /// IK.
    pub identity: PublicKey,
    /// Guest or kept.
    pub kind: IdentityKind,
    /// The name.
    pub name: DisplayName,
}

/// Something that a member said to all and that another one missed, as its author signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missed {
    /// The author.
    pub from: MemberIndex,
    /// The epoch under whose key it was sent.
    pub epoch: Epoch,
    /// Its number there.
    pub counter: u32,
    /// What was said.
    pub said: Said,
}

/// Most entries of the ledger in one message.
pub const MAX_LEDGER: usize = 256;

/// A message in a session.
pub enum Message {
    /// To a guest: the handshake is complete, wait for the host.
    Waiting,
    /// To a guest: no.
    Denied(Denial),
    /// To a guest: yes. Roster and key follow.
    Admitted {
        /// Slot and index.
        index: MemberIndex,
        /// For the relay.
        capability: SignedCapability,
    },
    /// To a new member: part of the roster as it was before the EpochKey that follows.
    Roster(Vec<Member>),
    /// To a member: a new epoch. The direction to the member rekeys after it.
    EpochKey(Box<EpochKey>),
    /// To a member: everybody has the epoch's key, or a second has passed. Send with it.
    Activate(Epoch),
    /// To a member: a fresh capability.
    Renew(SignedCapability),
    /// To the leader: T_e is accepted. The direction to the leader rekeys after it.
    EpochAck(EpochAck),
    /// To the leader: good-bye.
    Leave,
    /// To a member: the host makes it a co-host and asks for its authority key.
    Offer,
    /// To the host: the authority key of the co-host to be.
    Accept(PublicKey),
    /// To a co-host: identities that are no members.
    Ledger(Vec<LedgerEntry>),
    /// To a co-host: somebody knocks.
    Knock(KnockShown),
    /// To a co-host: somebody does not knock any more.
    KnockGone(u32),
    /// To the leader: a co-host's act.
    Request(Request),
    /// To a co-host: its request is refused.
    Refused {
        /// The request's number.
        number: u32,
        /// Why, as a number of [`crate::conference::ActError`].
        why: u8,
    },
    /// To a member that was away: what was said to all meanwhile.
    Missed(Vec<Missed>),
    /// To the leader: this member has a new connection, and may have missed something.
    Back,
    /// To a new member, before its first EpochKey: the policy's moderators, whose digest is in D.
    Moderators(Vec<Moderator>),
    /// To the leader, before good-bye: the secret half of this member's `vk`. To a successor: one that was not published
    /// yet.
    LastKey(Published),
}

/// Most missed messages in one message: with the longest text each they fit one relay message.
pub const MAX_MISSED: usize = 7;

/// The key of an epoch and all that a member needs to check it.
pub struct EpochKey {
    /// T_{e-1}: members compare it with theirs, a newcomer takes it over.
    pub previous: ChainHash,
    /// stmt_e.
    pub statement: Statement,
    /// The leader's signature over T_e.
    pub signature: Signature,
    /// The acts, by index.
    pub ops: Vec<Op>,
    /// The members whom the acts admit.
    pub admitted: Vec<Member>,
    /// fresh_e.
    pub fresh: FreshSecret,
    /// From this member's commitment to the commitments' root; proves that the statement was made for it.
    pub opening: Vec<[u8; 32]>,
    /// The line of succession, as long as there is one.
    pub line: Option<Line>,
}

/// A member's acknowledgement of T_e, signed by IK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochAck {
    /// e.
    pub epoch: Epoch,
    /// Commitment to the member's fresh value for the next epoch.
    pub commitment: [u8; 32],
    signature: Signature,
}

impl EpochAck {
    /// IK signs `"conclave/1 ack" ‖ T_e ‖ e ‖ commitment`.
    pub(crate) fn sign(
        epoch: Epoch,
        chain: &ChainHash,
        commitment: [u8; 32],
        identity: &crate::identity::Identity,
    ) -> Self {
        let signature = identity.sign(label::ACK, &[&chain.0, &epoch.number().to_be_bytes(), &commitment]);
        Self { epoch, commitment, signature }
    }

    /// Checks that the owner of `identity` accepted `chain`.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, chain: &ChainHash, identity: &PublicKey) -> Result<(), BadSignature> {
        let epoch = self.epoch.number().to_be_bytes();
        identity.verify(label::ACK, &[&chain.0, &epoch, &self.commitment], &self.signature)
    }
}

impl Message {
    /// Whether the direction that carried this message rekeys after it (DESIGN §12).
    pub fn rekeys(&self) -> bool {
        matches!(self, Self::EpochKey(_) | Self::EpochAck(_))
    }
}

impl Wire for Denial {
    fn write(&self, w: &mut Writer) {
        w.u8(match self {
            Self::Denied => 1,
            Self::Blocked => 2,
            Self::Expired => 3,
            Self::Full => 4,
            Self::Locked => 5,
        });
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            1 => Ok(Self::Denied),
            2 => Ok(Self::Blocked),
            3 => Ok(Self::Expired),
            4 => Ok(Self::Full),
            5 => Ok(Self::Locked),
            _ => Err(Malformed("denial")),
        }
    }
}

impl Wire for Request {
    fn write(&self, w: &mut Writer) {
        w.u32(self.number);
        let place = Verb::ALL.iter().position(|verb| *verb == self.verb).unwrap_or(0);
        w.u8(place as u8 + 1);
        let (kind, whom) = match self.whom {
            Whom::Nobody => (0, 0),
            Whom::Knock(id) => (1, id),
            Whom::Member(index) => (2, u32::from(index.0)),
        };
        w.u8(kind);
        w.u32(whom);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = r.u32()?;
        let place = usize::from(r.u8()?).checked_sub(1);
        let verb = place.and_then(|place| Verb::ALL.get(place)).copied().ok_or(Malformed("unknown request"))?;
        let (kind, whom) = (r.u8()?, r.u32()?);
        let whom = match (kind, u16::try_from(whom)) {
            (0, Ok(0)) => Whom::Nobody,
            (1, _) => Whom::Knock(whom),
            (2, Ok(index)) => Whom::Member(MemberIndex(index)),
            _ => return Err(Malformed("a request about nobody")),
        };
        Ok(Self { number, verb, whom })
    }
}

impl Wire for LedgerEntry {
    fn write(&self, w: &mut Writer) {
        self.identity.write(w);
        w.u8(match self.past {
            Past::Left => 1,
            Past::Lost => 2,
            Past::Blocked => 3,
        });
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = PublicKey::read(r)?;
        let past = match r.u8()? {
            1 => Past::Left,
            2 => Past::Lost,
            3 => Past::Blocked,
            _ => return Err(Malformed("unknown past")),
        };
        Ok(Self { identity, past })
    }
}

impl Wire for KnockShown {
    fn write(&self, w: &mut Writer) {
        w.u32(self.id);
        self.identity.write(w);
        self.kind.write(w);
        self.name.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = r.u32()?;
        let identity = PublicKey::read(r)?;
        let kind = IdentityKind::read(r)?;
        Ok(Self { id, identity, kind, name: DisplayName::read(r)? })
    }
}

impl Wire for Missed {
    fn write(&self, w: &mut Writer) {
        self.from.write(w);
        self.epoch.write(w);
        w.u32(self.counter);
        self.said.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let from = MemberIndex::read(r)?;
        let epoch = Epoch::read(r)?;
        let counter = r.u32()?;
        Ok(Self { from, epoch, counter, said: Said::read(r)? })
    }
}

impl Wire for EpochKey {
    fn write(&self, w: &mut Writer) {
        w.array(&self.previous.0);
        self.statement.write(w);
        self.signature.write(w);
        w.list(&self.ops);
        w.list(&self.admitted);
        w.array(self.fresh.as_bytes());
        w.list(&self.opening);
        w.bytes(&self.line.as_ref().map(Wire::encode).unwrap_or_default());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            previous: ChainHash(r.array()?),
            statement: Statement::read(r)?,
            signature: Signature::read(r)?,
            ops: r.list(MAX_OPS)?,
            admitted: r.list(MAX_MEMBERS_PER_MESSAGE)?,
            fresh: Secret::new(r.array()?),
            opening: r.list(merkle::MAX_DEPTH)?,
            line: match r.bytes(Line::MAX_LEN)? {
                [] => None,
                line => Some(Line::decode(line)?),
            },
        })
    }
}

impl Wire for Message {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Waiting => w.u8(1),
            Self::Denied(why) => {
                w.u8(2);
                why.write(w);
            }
            Self::Admitted { index, capability } => {
                w.u8(3);
                index.write(w);
                capability.write(w);
            }
            Self::Roster(members) => {
                w.u8(4);
                w.list(members);
            }
            Self::EpochKey(key) => {
                w.u8(5);
                key.write(w);
            }
            Self::Activate(epoch) => {
                w.u8(6);
                epoch.write(w);
            }
            Self::Renew(capability) => {
                w.u8(7);
                capability.write(w);
            }
            Self::EpochAck(ack) => {
                w.u8(8);
                ack.epoch.write(w);
                w.array(&ack.commitment);
                ack.signature.write(w);
            }
            Self::Leave => w.u8(9),
            Self::Offer => w.u8(10),
            Self::Accept(authority) => {
                w.u8(11);
                authority.write(w);
            }
            Self::Ledger(entries) => {
                w.u8(12);
                w.list(entries);
            }
            Self::Knock(knock) => {
                w.u8(13);
                knock.write(w);
            }
            Self::KnockGone(id) => {
                w.u8(14);
                w.u32(*id);
            }
            Self::Request(request) => {
                w.u8(15);
                request.write(w);
            }
            Self::Refused { number, why } => {
                w.u8(16);
                w.u32(*number);
                w.u8(*why);
            }
            Self::Missed(missed) => {
                w.u8(17);
                w.list(missed);
            }
            Self::Back => w.u8(18),
            Self::Moderators(moderators) => {
                w.u8(19);
                w.list(moderators);
            }
            Self::LastKey(key) => {
                w.u8(20);
                key.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => Self::Waiting,
            2 => Self::Denied(Denial::read(r)?),
            3 => Self::Admitted { index: MemberIndex::read(r)?, capability: SignedCapability::read(r)? },
            4 => Self::Roster(r.list(MAX_MEMBERS_PER_MESSAGE)?),
            5 => Self::EpochKey(Box::new(EpochKey::read(r)?)),
            6 => Self::Activate(Epoch::read(r)?),
            7 => Self::Renew(SignedCapability::read(r)?),
            8 => Self::EpochAck(EpochAck {
                epoch: Epoch::read(r)?,
                commitment: r.array()?,
                signature: Signature::read(r)?,
            }),
            9 => Self::Leave,
            10 => Self::Offer,
            11 => Self::Accept(PublicKey::read(r)?),
            12 => Self::Ledger(r.list(MAX_LEDGER)?),
            13 => Self::Knock(KnockShown::read(r)?),
            14 => Self::KnockGone(r.u32()?),
            15 => Self::Request(Request::read(r)?),
            16 => Self::Refused { number: r.u32()?, why: r.u8()? },
            17 => Self::Missed(r.list(MAX_MISSED)?),
            18 => Self::Back,
            19 => Self::Moderators(r.list(MAX_MODERATORS)?),
            20 => Self::LastKey(Published::read(r)?),
            _ => return Err(Malformed("unknown message in a session")),
        })
    }
}

/// A leader's notice that members were removed, sent to everybody at once by datagram while the new epoch's keys
/// are on their way: their frames are dropped and nobody sends with the old key any more.
///
/// ```text
/// MeetingId 20 ‖ epoch u32 (the new one) ‖ removed: u16 × u16 ‖ signature 64
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovalNotice {
    /// The epoch that no longer holds them.
    pub epoch: Epoch,
    /// Who was removed.
    pub removed: Vec<MemberIndex>,
    meeting: MeetingId,
    signature: Signature,
}

impl RemovalNotice {
    /// Most members in one notice: it must fit a datagram.
    pub const MAX_REMOVED: usize = 64;

    /// Signs a notice.
    pub fn sign(meeting: MeetingId, epoch: Epoch, removed: Vec<MemberIndex>, authority: &KeyPair) -> Self {
        let signature = authority.sign(label::REMOVAL, &[&Self::body(meeting, epoch, &removed)]);
        Self { epoch, removed, meeting, signature }
    }

    /// Checks the leader's signature and the meeting.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, meeting: MeetingId, authority: &PublicKey) -> Result<(), BadSignature> {
        if self.meeting != meeting {
            return Err(BadSignature);
        }
        authority.verify(label::REMOVAL, &[&Self::body(meeting, self.epoch, &self.removed)], &self.signature)
    }

    fn body(meeting: MeetingId, epoch: Epoch, removed: &[MemberIndex]) -> Vec<u8> {
        let mut w = Writer::default();
        meeting.write(&mut w);
        epoch.write(&mut w);
        w.list(removed);
        w.into_bytes()
    }
}

impl Wire for RemovalNotice {
    fn write(&self, w: &mut Writer) {
        w.array(&Self::body(self.meeting, self.epoch, &self.removed));
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let meeting = MeetingId::read(r)?;
        let epoch = Epoch::read(r)?;
        let removed = r.list(Self::MAX_REMOVED)?;
        Ok(Self { epoch, removed, meeting, signature: Signature::read(r)? })
    }
}
