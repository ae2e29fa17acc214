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

/// One act, by indexes only: what was done to whom, and who did it. The leader vouches for both.
///
/// ```text
/// tag u8 ‖ index u16 (0 where the act concerns no member) ‖ by u16
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    /// What.
    pub act: Act,
    /// Whose act it is: the host, a co-host, or the member itself.
    pub by: MemberIndex,
}

/// What an op does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Lets a guest in.
    Admit(MemberIndex),
    /// Puts a member out.
    Remove(MemberIndex),
    /// A member left, or came back under another index.
    Leave(MemberIndex),
    /// A member was away for too long.
    Lost(MemberIndex),
    /// New keys, nothing else.
    Rekey,
    /// From now on muted members may stop sending (DESIGN §7, rate "open").
    OpenRate,
    /// The meeting is over for everybody.
    End,
    /// Nobody is let in any more, but those who lost the connection.
    Lock,
    /// The opposite.
    Unlock,
    /// Whoever comes from now on begins muted.
    MuteNewcomers,
    /// The opposite.
    UnmuteNewcomers,
    /// Guests wait to be let in.
    WaitingRoomOn,
    /// Guests are let in without waiting.
    WaitingRoomOff,
    /// A member is asked to mute.
    AskMute(MemberIndex),
    /// A member joins the line of succession.
    Promote(MemberIndex),
    /// A member leaves the line of succession.
    Demote(MemberIndex),
    /// A co-host is to lead from the next epoch on.
    HandOver(MemberIndex),
    /// Its leader begins to lead.
    TakeOver(MemberIndex),
    /// A guest was turned down.
    Deny,
    /// A guest was turned down for good.
    Block,
}

impl Act {
    /// The member whom the act takes out of the roster.
    pub fn departing(self) -> Option<MemberIndex> {
        match self {
            Self::Remove(index) | Self::Leave(index) | Self::Lost(index) => Some(index),
            _ => None,
        }
    }

    /// The member whom the act concerns, if any.
    pub fn member(self) -> Option<MemberIndex> {
        match self {
            Self::Admit(index)
            | Self::Remove(index)
            | Self::Leave(index)
            | Self::Lost(index)
            | Self::AskMute(index)
            | Self::Promote(index)
            | Self::Demote(index)
            | Self::HandOver(index)
            | Self::TakeOver(index) => Some(index),
            _ => None,
        }
    }

    /// What must be true in a meeting after the act, given what was.
    #[must_use]
    pub fn apply(self, settings: Settings) -> Settings {
        match self {
            Self::Lock => Settings { locked: true, ..settings },
            Self::Unlock => Settings { locked: false, ..settings },
            Self::MuteNewcomers => Settings { newcomers_muted: true, ..settings },
            Self::UnmuteNewcomers => Settings { newcomers_muted: false, ..settings },
            Self::WaitingRoomOn => Settings { waiting_room: true, ..settings },
            Self::WaitingRoomOff => Settings { waiting_room: false, ..settings },
            _ => settings,
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Admit(_) => 1,
            Self::Remove(_) => 2,
            Self::Leave(_) => 3,
            Self::Lost(_) => 4,
            Self::Rekey => 5,
            Self::OpenRate => 6,
            Self::End => 7,
            Self::Lock => 8,
            Self::Unlock => 9,
            Self::MuteNewcomers => 10,
            Self::UnmuteNewcomers => 11,
            Self::WaitingRoomOn => 12,
            Self::WaitingRoomOff => 13,
            Self::AskMute(_) => 14,
            Self::Promote(_) => 15,
            Self::Demote(_) => 16,
            Self::HandOver(_) => 17,
            Self::TakeOver(_) => 18,
            Self::Deny => 19,
            Self::Block => 20,
        }
    }
}

impl Wire for Act {
    fn write(&self, w: &mut Writer) {
        w.u8(self.tag());
        self.member().unwrap_or(MemberIndex(0)).write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tag = r.u8()?;
        let index = MemberIndex::read(r)?;
        let act = match tag {
            1 => Self::Admit(index),
            2 => Self::Remove(index),
            3 => Self::Leave(index),
            4 => Self::Lost(index),
            5 => Self::Rekey,
            6 => Self::OpenRate,
            7 => Self::End,
            8 => Self::Lock,
            9 => Self::Unlock,
            10 => Self::MuteNewcomers,
            11 => Self::UnmuteNewcomers,
            12 => Self::WaitingRoomOn,
            13 => Self::WaitingRoomOff,
            14 => Self::AskMute(index),
            15 => Self::Promote(index),
            16 => Self::Demote(index),
            17 => Self::HandOver(index),
            18 => Self::TakeOver(index),
            19 => Self::Deny,
            20 => Self::Block,
            _ => return Err(Malformed("unknown op")),
        };
        if act.member().is_none() && index.0 != 0 {
            return Err(Malformed("op of nobody with an index"));
        }
        Ok(act)
    }
}

impl Wire for Op {
    fn write(&self, w: &mut Writer) {
        self.act.write(w);
        self.by.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { act: Act::read(r)?, by: MemberIndex::read(r)? })
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

/// What the acts so far have made of the meeting, beside its roster.
///
/// ```text
/// u8: bit 0 locked, 1 newcomers begin muted, 2 guests wait; others 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Nobody is let in but those who lost the connection.
    pub locked: bool,
    /// Whoever comes begins muted.
    pub newcomers_muted: bool,
    /// Guests wait to be let in.
    pub waiting_room: bool,
}

impl Wire for Settings {
    fn write(&self, w: &mut Writer) {
        w.u8(u8::from(self.locked) | u8::from(self.newcomers_muted) << 1 | u8::from(self.waiting_room) << 2);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bits = r.u8()?;
        if bits > 7 {
            return Err(Malformed("unknown settings"));
        }
        Ok(Self { locked: bits & 1 != 0, newcomers_muted: bits & 2 != 0, waiting_room: bits & 4 != 0 })
    }
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
///   ‖ roster root 32 ‖ kc 32 ‖ commitments root 32 ‖ line 32 ‖ time u64 ‖ policy u16 ‖ rate u8 ‖ frame_ms u8
///   ‖ settings u8
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
    /// [`crate::succession::Line::digest`] of the line of succession; zeros as long as there was none.
    pub line: [u8; 32],
    /// The leader's clock.
    pub time: UnixMillis,
    /// The descriptor's policy bits.
    pub policy: u16,
    /// Private or open.
    pub rate: Rate,
    /// Duration of a frame, 10 or 20 ms.
    pub frame_ms: u8,
    /// After the acts.
    pub settings: Settings,
}

impl Statement {
    /// Length of every statement's encoding, in bytes.
    pub const WIRE_LEN: usize = 222;

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
        w.array(&self.line);
        self.time.write(w);
        w.u16(self.policy);
        w.u8(match self.rate {
            Rate::Private => 0,
            Rate::Open => 1,
        });
        w.u8(self.frame_ms);
        self.settings.write(w);
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
            line: r.array()?,
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
            settings: Settings::read(r)?,
        })
    }
}
