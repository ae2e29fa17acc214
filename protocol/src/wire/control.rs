//! Messages between a leader and a member, inside their Noise session (`docs/protocol.md` §6.4).

use crate::capability::SignedCapability;
use crate::epoch::merkle;
use crate::epoch::roster::Member;
use crate::epoch::schedule::FreshSecret;
use crate::epoch::statement::{ChainHash, MAX_OPS, Op, Statement};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::label;
use crate::secret::Secret;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::wire::relay::MAX_PAYLOAD;

/// Most members in one message: with the rest of an EpochKey they stay below one relay message.
///
/// 40 × 273 ([`Member::WIRE_LEN`]) + 1,636 (`EPOCH_KEY_REST`) + 33 (`RECORD`) = 12,589 bytes of the 16,368 of
/// [`MAX_PAYLOAD`]. 53 would still fit; what is left is for later fields.
pub const MAX_MEMBERS_PER_MESSAGE: usize = 40;

/// The longest EpochKey without its members: type, T, statement, signature, ops, fresh, opening, three counts.
const EPOCH_KEY_REST: usize = 1 + 32 + 189 + 64 + MAX_OPS * 3 + 32 + merkle::MAX_DEPTH * 32 + 3 * 2;
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
}

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
}

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
        });
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            1 => Ok(Self::Denied),
            2 => Ok(Self::Blocked),
            3 => Ok(Self::Expired),
            4 => Ok(Self::Full),
            _ => Err(Malformed("denial")),
        }
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

    /// Checks the authority's signature and the meeting.
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
