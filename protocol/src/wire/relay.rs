//! Messages on the control stream between a client and its relay (`docs/protocol.md` §6.2).
//!
//! Each message is `type u8 ‖ body` in a frame `length u32 ‖ message`, at most [`MAX_MESSAGE`] bytes long.

use zeroize::ZeroizeOnDrop;

use crate::VERSION;
use crate::capability::{KnockGate, KnockToken, Revoked, SignedCapability};
use crate::descriptor::Descriptor;
use crate::id::{MeetingId, MemberIndex};
use crate::sign::Signature;
use crate::succession::Line;
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Longest message on the control stream (research/security.md §3.11: 16 KiB).
pub const MAX_MESSAGE: usize = 16_384;
/// Longest payload that members and leaders send through the relay: what is left beside the heads.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - 16;
/// Longest mail of a guest (research/security.md §3.11: knocks of at most 4 KiB).
pub const MAX_MAIL: usize = 4_096;
/// The slot that addresses every other member.
pub const EVERYBODY: MemberIndex = MemberIndex(0xFFFF);

/// Names a guest's mailbox to the leaders; given by the relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MailboxId(pub u32);

/// What a client says to its relay.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant)] // Hello comes once a connection; the others are not kept.
pub enum ToRelay {
    /// The first message. Members bring D and the newest revocation, guests neither.
    Hello {
        /// The meeting.
        meeting: MeetingId,
        /// D, when the client has it.
        descriptor: Option<Descriptor>,
        /// The newest revocation, when the client has one.
        revoked: Option<Revoked>,
        /// The newest line of succession, when the client has one.
        line: Option<Line>,
    },
    /// A guest asks for a mailbox.
    OpenMailbox {
        /// Shows that the guest has the link.
        token: KnockTokenBytes,
    },
    /// A guest's opaque message to the meeting's leaders.
    Mail {
        /// At most [`MAX_MAIL`] bytes.
        bytes: Vec<u8>,
    },
    /// A leader's answer.
    MailTo {
        /// The guest.
        mailbox: MailboxId,
        /// At most [`MAX_PAYLOAD`] bytes.
        bytes: Vec<u8>,
    },
    /// A leader closes a guest's mailbox.
    CloseMailbox {
        /// The guest.
        mailbox: MailboxId,
    },
    /// Takes the slot of a capability, or renews it.
    Attach {
        /// The capability.
        capability: SignedCapability,
        /// Signature by rk over this connection's exporter.
        possession: Signature,
    },
    /// An opaque message to one member or to [`EVERYBODY`].
    Send {
        /// Slot of the receiver.
        to: MemberIndex,
        /// At most [`MAX_PAYLOAD`] bytes.
        bytes: Vec<u8>,
    },
    /// A leader revokes slots.
    Revoke {
        /// Signed by AK.
        revoked: Revoked,
    },
    /// A leader sets the gate before the mailbox.
    Gate {
        /// Signed by AK or a co-host.
        gate: KnockGate,
    },
    /// The line of succession has changed.
    Line {
        /// Signed by AK.
        line: Line,
    },
}

/// A knock token on its way, erased when dropped; compares in constant time nowhere, because the relay holds only its hash.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct KnockTokenBytes(pub [u8; 32]);

impl KnockTokenBytes {
    /// The token to check against a gate.
    pub fn token(&self) -> KnockToken {
        KnockToken(self.0)
    }
}

impl std::fmt::Debug for KnockTokenBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KnockToken(…)")
    }
}

/// What a relay says to a client.
#[derive(Clone, PartialEq, Debug)]
pub enum FromRelay {
    /// The answer to Hello.
    Welcome {
        /// The relay's clock, which capabilities are measured by.
        time: UnixMillis,
        /// The relay's region, empty when it names none.
        region: String,
    },
    /// A leader is present: here is D. Before that a guest hears nothing, whether the meeting is unknown or its
    /// host absent.
    Meeting {
        /// To be checked against the MeetingId.
        descriptor: Vec<u8>,
        /// The newest line of succession, when there is one.
        line: Option<Line>,
        /// The slot that began to lead last, of those that are here. A hint: the handshake proves it.
        leader: MemberIndex,
    },
    /// The guest's mailbox is open.
    MailboxOpen,
    /// A leader's message to a guest.
    Mail {
        /// Opaque.
        bytes: Vec<u8>,
    },
    /// A guest's message to a leader.
    MailFrom {
        /// The guest.
        mailbox: MailboxId,
        /// Opaque.
        bytes: Vec<u8>,
    },
    /// A guest's mailbox is gone: the guest left, or got a slot.
    MailboxGone {
        /// The guest.
        mailbox: MailboxId,
    },
    /// The slot is taken, or renewed.
    Attached {
        /// The slot.
        slot: MemberIndex,
    },
    /// A member's message.
    Deliver {
        /// Slot of the sender, which the relay has checked.
        from: MemberIndex,
        /// Opaque.
        bytes: Vec<u8>,
    },
    /// A member's connection came or went. A hint: only the leader's statements tell who is a member.
    Presence {
        /// The slot.
        slot: MemberIndex,
        /// Whether it is connected.
        here: bool,
    },
    /// A revocation, for members to keep and to present later.
    Revoked {
        /// Signed by AK.
        revoked: Revoked,
    },
    /// A request was refused; the connection goes on.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The client lost its slot.
    Detached {
        /// Why.
        reason: Refusal,
    },
    /// The relay is about to close.
    Closing,
}

/// Why the relay refuses, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The message is no message, or came at the wrong time.
    #[error("the relay did not understand a message")]
    Malformed,
    /// The knock token does not open the gate.
    #[error("the link's secret is not the one of this meeting")]
    WrongLink,
    /// Too many guests wait.
    #[error("too many people are knocking at this meeting; try again in a minute")]
    Full,
    /// Too fast.
    #[error("too many messages in too short a time")]
    TooFast,
    /// The capability or its proof is not valid.
    #[error("the relay refused this member's capability")]
    Capability,
    /// The capability ran out.
    #[error("this member's capability ran out")]
    Expired,
    /// The slot is revoked.
    #[error("this member was removed")]
    Revoked,
    /// Another connection took the slot with a newer capability or the same.
    #[error("this member is connected from elsewhere")]
    Replaced,
    /// The sender has no right to do this.
    #[error("only a leader may do this")]
    NotAllowed,
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::Malformed,
        Self::WrongLink,
        Self::Full,
        Self::TooFast,
        Self::Capability,
        Self::Expired,
        Self::Revoked,
        Self::Replaced,
        Self::NotAllowed,
    ];
}

impl Wire for Refusal {
    fn write(&self, w: &mut Writer) {
        let position = Self::ALL.iter().position(|r| r == self).unwrap_or(0);
        w.u8(u8::try_from(position + 1).unwrap_or(1));
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = usize::from(r.u8()?);
        code.checked_sub(1).and_then(|i| Self::ALL.get(i)).copied().ok_or(Malformed("unknown refusal"))
    }
}

impl Wire for MailboxId {
    fn write(&self, w: &mut Writer) {
        w.u32(self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.u32()?))
    }
}

fn write_optional<T: Wire>(w: &mut Writer, value: Option<&T>) {
    w.bytes(&value.map(Wire::encode).unwrap_or_default());
}

fn read_optional<T: Wire>(r: &mut Reader<'_>, max: usize) -> Result<Option<T>, Malformed> {
    let bytes = r.bytes(max)?;
    if bytes.is_empty() { Ok(None) } else { T::decode(bytes).map(Some) }
}

impl Wire for ToRelay {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Hello { meeting, descriptor, revoked, line } => {
                w.u8(1);
                w.u8(VERSION);
                meeting.write(w);
                write_optional(w, descriptor.as_ref());
                write_optional(w, revoked.as_ref());
                write_optional(w, line.as_ref());
            }
            Self::OpenMailbox { token } => {
                w.u8(2);
                w.array(&token.0);
            }
            Self::Mail { bytes } => {
                w.u8(3);
                w.bytes(bytes);
            }
            Self::MailTo { mailbox, bytes } => {
                w.u8(4);
                mailbox.write(w);
                w.bytes(bytes);
            }
            Self::CloseMailbox { mailbox } => {
                w.u8(5);
                mailbox.write(w);
            }
            Self::Attach { capability, possession } => {
                w.u8(6);
                capability.write(w);
                possession.write(w);
            }
            Self::Send { to, bytes } => {
                w.u8(7);
                to.write(w);
                w.bytes(bytes);
            }
            Self::Revoke { revoked } => {
                w.u8(8);
                revoked.write(w);
            }
            Self::Gate { gate } => {
                w.u8(9);
                gate.write(w);
            }
            Self::Line { line } => {
                w.u8(10);
                line.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => {
                if r.u8()? != VERSION {
                    return Err(Malformed("another version"));
                }
                let meeting = MeetingId::read(r)?;
                let descriptor = r.bytes(Descriptor::MAX_LEN)?;
                let descriptor = match descriptor {
                    [] => None,
                    bytes => Some(Descriptor::decode_for(meeting, bytes)?),
                };
                let revoked = read_optional(r, MAX_MAIL)?;
                Self::Hello { meeting, descriptor, revoked, line: read_optional(r, Line::MAX_LEN)? }
            }
            2 => Self::OpenMailbox { token: KnockTokenBytes(r.array()?) },
            3 => Self::Mail { bytes: r.bytes(MAX_MAIL)?.to_vec() },
            4 => Self::MailTo { mailbox: MailboxId::read(r)?, bytes: r.bytes(MAX_PAYLOAD)?.to_vec() },
            5 => Self::CloseMailbox { mailbox: MailboxId::read(r)? },
            6 => Self::Attach { capability: SignedCapability::read(r)?, possession: Signature::read(r)? },
            7 => Self::Send { to: MemberIndex::read(r)?, bytes: r.bytes(MAX_PAYLOAD)?.to_vec() },
            8 => Self::Revoke { revoked: Revoked::read(r)? },
            9 => Self::Gate { gate: KnockGate::read(r)? },
            10 => Self::Line { line: Line::read(r)? },
            _ => return Err(Malformed("unknown message to the relay")),
        })
    }
}

impl Wire for FromRelay {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Welcome { time, region } => {
                w.u8(1);
                w.u8(VERSION);
                time.write(w);
                w.bytes(region.as_bytes());
            }
            Self::Meeting { descriptor, line, leader } => {
                w.u8(2);
                w.bytes(descriptor);
                write_optional(w, line.as_ref());
                leader.write(w);
            }
            Self::MailboxOpen => w.u8(3),
            Self::Mail { bytes } => {
                w.u8(4);
                w.bytes(bytes);
            }
            Self::MailFrom { mailbox, bytes } => {
                w.u8(5);
                mailbox.write(w);
                w.bytes(bytes);
            }
            Self::MailboxGone { mailbox } => {
                w.u8(6);
                mailbox.write(w);
            }
            Self::Attached { slot } => {
                w.u8(7);
                slot.write(w);
            }
            Self::Deliver { from, bytes } => {
                w.u8(8);
                from.write(w);
                w.bytes(bytes);
            }
            Self::Presence { slot, here } => {
                w.u8(9);
                slot.write(w);
                w.u8(u8::from(*here));
            }
            Self::Revoked { revoked } => {
                w.u8(10);
                revoked.write(w);
            }
            Self::Refused { reason } => {
                w.u8(11);
                reason.write(w);
            }
            Self::Detached { reason } => {
                w.u8(12);
                reason.write(w);
            }
            Self::Closing => w.u8(13),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            1 => {
                if r.u8()? != VERSION {
                    return Err(Malformed("another version"));
                }
                let time = UnixMillis::read(r)?;
                let region = std::str::from_utf8(r.bytes(64)?).map_err(|_| Malformed("region name"))?;
                Self::Welcome { time, region: region.to_owned() }
            }
            2 => {
                let descriptor = r.bytes(Descriptor::MAX_LEN)?.to_vec();
                let line = read_optional(r, Line::MAX_LEN)?;
                Self::Meeting { descriptor, line, leader: MemberIndex::read(r)? }
            }
            3 => Self::MailboxOpen,
            4 => Self::Mail { bytes: r.bytes(MAX_PAYLOAD)?.to_vec() },
            5 => Self::MailFrom { mailbox: MailboxId::read(r)?, bytes: r.bytes(MAX_MAIL)?.to_vec() },
            6 => Self::MailboxGone { mailbox: MailboxId::read(r)? },
            7 => Self::Attached { slot: MemberIndex::read(r)? },
            8 => Self::Deliver { from: MemberIndex::read(r)?, bytes: r.bytes(MAX_PAYLOAD)?.to_vec() },
            9 => {
                let slot = MemberIndex::read(r)?;
                let here = match r.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("presence")),
                };
                Self::Presence { slot, here }
            }
            10 => Self::Revoked { revoked: Revoked::read(r)? },
            11 => Self::Refused { reason: Refusal::read(r)? },
            12 => Self::Detached { reason: Refusal::read(r)? },
            13 => Self::Closing,
            _ => return Err(Malformed("unknown message from the relay")),
        })
    }
}
