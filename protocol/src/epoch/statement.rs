//! Statements: the signed, chained record of who was let in and who had to go.

use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::label;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::{SUITE, VERSION};

/// T_e: the hash over the whole chain up to epoch e. Whoever has seen another history has another T.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// `T_0 = H("conclave/1 T0" ‖ MeetingId ‖ chain)`.
    pub fn start(meeting: MeetingId, chain: &[u8; 16]) -> Self {
        Self(label::hash(label::CHAIN_START, &[&meeting.0, chain]))
    }

    /// `T_e = H("conclave/1 T+" ‖ T_{e-1} ‖ H("conclave/1 stmt hash" ‖ stmt_e))`.
    #[must_use]
    pub fn step(&self, statement: &Statement) -> Self {
        let statement = label::hash(label::STATEMENT_HASH, &[&statement.encode()]);
        Self(label::hash(label::CHAIN_STEP, &[&self.0, &statement]))
    }
}

/// One act of the leader, by index only.
///
/// ```text
/// tag u8 ‖ index u16 (0 where the act concerns nobody)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Lets a guest in.
    Admit(MemberIndex),
    /// Puts a member out.
    Remove(MemberIndex),
    /// A member left.
    Leave(MemberIndex),
    /// A member was away for too long.
    Lost(MemberIndex),
    /// New keys, nothing else.
    Rekey,
    /// From now on muted members may stop sending (DESIGN §7, rate "open").
    OpenRate,
    /// The meeting is over for everybody.
    End,
}

impl Op {
    /// The member whom the op takes out of the roster.
    pub fn departing(self) -> Option<MemberIndex> {
        match self {
            Self::Remove(index) | Self::Leave(index) | Self::Lost(index) => Some(index),
            Self::Admit(_) | Self::Rekey | Self::OpenRate | Self::End => None,
        }
    }
}

impl Wire for Op {
    fn write(&self, w: &mut Writer) {
        let (tag, index) = match *self {
            Self::Admit(index) => (1, index),
            Self::Remove(index) => (2, index),
            Self::Leave(index) => (3, index),
            Self::Lost(index) => (4, index),
            Self::Rekey => (5, MemberIndex(0)),
            Self::OpenRate => (6, MemberIndex(0)),
            Self::End => (7, MemberIndex(0)),
        };
        w.u8(tag);
        index.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tag = r.u8()?;
        let index = MemberIndex::read(r)?;
        match tag {
            1 => Ok(Self::Admit(index)),
            2 => Ok(Self::Remove(index)),
            3 => Ok(Self::Leave(index)),
            4 => Ok(Self::Lost(index)),
            5..=7 if index.0 != 0 => Err(Malformed("op of nobody with an index")),
            5 => Ok(Self::Rekey),
            6 => Ok(Self::OpenRate),
            7 => Ok(Self::End),
            _ => Err(Malformed("unknown op")),
        }
    }
}

/// Most ops in one epoch: with the members they add they fit one message.
pub const MAX_OPS: usize = 256;

/// `H(ops) = H("conclave/1 ops" ‖ count u16 ‖ op …)`.
pub fn ops_hash(ops: &[Op]) -> [u8; 32] {
    let mut w = Writer::default();
    w.list(ops);
    label::hash(label::OPS, &[&w.into_bytes()])
}

/// How regularly members send (DESIGN §7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// Everybody sends always: nobody outside can tell who is muted.
    Private,
    /// A muted member stops after a while: the relay sees who is unmuted.
    Open,
}

/// stmt_e.
///
/// ```text
/// version u8 ‖ suite u16 ‖ MeetingId 20 ‖ chain 16 ‖ term u32 ‖ epoch u32 ‖ leader u16 ‖ H(ops) 32
///   ‖ roster root 32 ‖ kc 32 ‖ commitments root 32 ‖ time u64 ‖ policy u16 ‖ rate u8 ‖ frame_ms u8
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// The meeting.
    pub meeting: MeetingId,
    /// Random name of this chain, new when a host starts over.
    pub chain: [u8; 16],
    /// Leadership.
    pub term: Term,
    /// e.
    pub epoch: Epoch,
    /// Who signs.
    pub leader: MemberIndex,
    /// Of the acts that lead to this epoch.
    pub ops_hash: [u8; 32],
    /// Of the roster after the acts.
    pub roster_root: [u8; 32],
    /// kc_e: everybody must hold the same fresh_e.
    pub key_commitment: [u8; 32],
    /// Of every member's commitment to a fresh value.
    pub commitments_root: [u8; 32],
    /// The leader's clock.
    pub time: UnixMillis,
    /// The descriptor's policy bits.
    pub policy: u16,
    /// Private or open.
    pub rate: Rate,
    /// Duration of a frame, 10 or 20 ms.
    pub frame_ms: u8,
}

impl Statement {
    /// The leader's signature: over T_e, hence over all that came before.
    pub fn sign(&self, chain: &ChainHash, authority: &KeyPair) -> Signature {
        authority.sign(label::STATEMENT_SIG, &[&chain.0])
    }

    /// Checks a signature over the chain that ends in this statement.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(chain: &ChainHash, authority: &PublicKey, signature: &Signature) -> Result<(), BadSignature> {
        authority.verify(label::STATEMENT_SIG, &[&chain.0], signature)
    }
}

impl Wire for Statement {
    fn write(&self, w: &mut Writer) {
        w.u8(VERSION);
        w.u16(SUITE);
        self.meeting.write(w);
        w.array(&self.chain);
        self.term.write(w);
        self.epoch.write(w);
        self.leader.write(w);
        w.array(&self.ops_hash);
        w.array(&self.roster_root);
        w.array(&self.key_commitment);
        w.array(&self.commitments_root);
        self.time.write(w);
        w.u16(self.policy);
        w.u8(match self.rate {
            Rate::Private => 0,
            Rate::Open => 1,
        });
        w.u8(self.frame_ms);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        if r.u8()? != VERSION || r.u16()? != SUITE {
            return Err(Malformed("statement of another version"));
        }
        Ok(Self {
            meeting: MeetingId::read(r)?,
            chain: r.array()?,
            term: Term::read(r)?,
            epoch: Epoch::read(r)?,
            leader: MemberIndex::read(r)?,
            ops_hash: r.array()?,
            roster_root: r.array()?,
            key_commitment: r.array()?,
            commitments_root: r.array()?,
            time: UnixMillis::read(r)?,
            policy: r.u16()?,
            rate: match r.u8()? {
                0 => Rate::Private,
                1 => Rate::Open,
                _ => return Err(Malformed("rate")),
            },
            frame_ms: match r.u8()? {
                ms @ (10 | 20) => ms,
                _ => return Err(Malformed("frame duration")),
            },
        })
    }
}
