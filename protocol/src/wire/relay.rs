//! Messages on the control stream between a client and its relay (`docs/protocol.md` §6.2).
//!
//! Each message is `type u8 ‖ body` in a frame `length u32 ‖ message`, at most [`MAX_MESSAGE`] bytes long.

use zeroize::ZeroizeOnDrop;

use crate::VERSION;
use crate::capability::{KnockGate, KnockToken, Revoked, SignedCapability};
use crate::descriptor::Descriptor;
use crate::id::{MeetingId, MemberIndex};
use crate::sign::Signature;
use crate::stamp::{Origin, SealPublic, Stamp};
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

/// Longest seal: 50 frames of 10 ms (`docs/protocol.md` §9.2).
pub const MAX_SEAL: usize = 985;
/// Longest sealed report.
pub const MAX_REPORT: usize = 2 * 1024 * 1024;
/// Longest part of a report in one message.
pub const MAX_REPORT_PART: usize = 8_192;
/// Longest encoding of the operator's moderator key in a Welcome.
pub const MAX_MODERATOR: usize = 1_400;
/// Most stamps in one question.
pub const MAX_STAMP_CHECKS: usize = 80;

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
    /// A member's seal, for all other members.
    Seal {
        /// The public part and what only members can open; at most [`MAX_SEAL`] bytes.
        bytes: Vec<u8>,
    },
    /// A report is to come, in parts.
    Report {
        /// Drawn by the client; the same when it tries again.
        id: ReportId,
        /// Length of the sealed report, at most [`MAX_REPORT`].
        length: u32,
        /// SHA-256 of the sealed report.
        digest: [u8; 32],
        /// Who has no slot any more shows that it had one: a capability that ran out or was revoked no longer than ten
        /// minutes ago, and the signature by rk over this connection's exporter.
        past: Option<(SignedCapability, Signature)>,
    },
    /// The next part of a report.
    ReportPart {
        /// Which report.
        id: ReportId,
        /// At most [`MAX_REPORT_PART`] bytes.
        bytes: Vec<u8>,
    },
    /// The operator's moderator asks whether stamps are genuine. Answered before any meeting is known.
    CheckStamps {
        /// By the moderator's signing key, over this connection's exporter and the questions.
        signature: Signature,
        /// At most [`MAX_STAMP_CHECKS`].
        checks: Vec<StampCheck>,
    },
}

/// Names a report between a client and its relay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReportId(pub [u8; 16]);

/// What the relay knows a report by that it has handed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Receipt(pub [u8; 10]);

/// A stamp to be checked, and what it is said to be on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StampCheck {
    /// From whom the seal is said to be.
    pub origin: Origin,
    /// The seal.
    pub public: SealPublic,
    /// The stamp.
    pub stamp: Stamp,
}

/// What the relay says of a stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StampVerdict {
    /// It made the stamp.
    Genuine,
    /// The key is known, and did not make this stamp.
    Forged,
    /// The key is none of its own, or destroyed.
    UnknownKey,
}

/// Why a relay does not take a report. Nothing is lost: the client still has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportRefusal {
    /// It has no sink.
    #[error("this relay takes no reports")]
    NoSink,
    /// Its sink is full or does not answer.
    #[error("the relay cannot hand reports on at the moment")]
    Unavailable,
    /// Too many reports.
    #[error("the relay takes no more reports for the moment")]
    TooMany,
    /// Longer than [`MAX_REPORT`].
    #[error("the report is too long")]
    TooLong,
    /// Neither a slot nor a capability that ended lately.
    #[error("only members may report, and for ten minutes after they left")]
    NotAllowed,
    /// The parts are not what was announced.
    #[error("the report arrived damaged")]
    Damaged,
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

/// Type byte of [`FromRelay::Sealed`], which some handle without a look inside.
pub const SEALED: u8 = 14;
/// Type byte of [`FromRelay::Deliver`].
pub(super) const DELIVER: u8 = 8;

/// What a relay says to a client.
#[derive(Clone, PartialEq, Debug)]
pub enum FromRelay {
    /// The answer to Hello.
    Welcome {
        /// The relay's clock, which capabilities are measured by.
        time: UnixMillis,
        /// The relay's region, empty when it names none.
        region: String,
        /// Whether the relay hands reports on.
        takes_reports: bool,
        /// The operator's moderator (`docs/protocol.md` §10.1), empty when there is none.
        moderator: Vec<u8>,
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
    /// A seal with the relay's stamp on its public part. The sender gets the public part only.
    Sealed {
        /// Slot of the sender, which the relay has checked.
        from: MemberIndex,
        /// The stamp.
        stamp: Stamp,
        /// The seal, or to its sender the public part.
        bytes: Vec<u8>,
    },
    /// A report was handed on.
    ReportTaken {
        /// Which.
        id: ReportId,
        /// Its number from now on.
        receipt: Receipt,
    },
    /// A report was not taken.
    ReportRefused {
        /// Which.
        id: ReportId,
        /// Why.
        reason: ReportRefusal,
    },
    /// The answers to [`ToRelay::CheckStamps`], in order.
    StampsChecked {
        /// One for each question.
        verdicts: Vec<StampVerdict>,
    },
    /// Shift the frame clock, so that the frames of a meeting come together (`docs/protocol.md` §8.4).
    Phase {
        /// By how much.
        shift: PhaseShift,
    },
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
        w.u8(place(&Self::ALL, self));
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        at_place(&Self::ALL, r.u8()?).ok_or(Malformed("unknown refusal"))
    }
}

/// How far a frame clock is to be shifted: at most half of the longest frame either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhaseShift(i16);

impl PhaseShift {
    /// Half of 20 ms, in µs: to go further one way is to go less far the other.
    pub const MAX_MICROS: i16 = 10_000;

    /// A shift by so many µs, later when positive; what is further than [`Self::MAX_MICROS`] is cut to it.
    pub fn from_micros(micros: i64) -> Self {
        let most = i64::from(Self::MAX_MICROS);
        Self(i16::try_from(micros.clamp(-most, most)).unwrap_or(0))
    }

    /// In µs; later when positive.
    pub fn micros(self) -> i16 {
        self.0
    }
}

impl Wire for PhaseShift {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0.to_be_bytes());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let micros = i16::from_be_bytes(r.array()?);
        if micros.unsigned_abs() > Self::MAX_MICROS.unsigned_abs() {
            return Err(Malformed("shift of the frame clock"));
        }
        Ok(Self(micros))
    }
}

/// An enumeration that goes as one byte: its place in the list, from 1.
fn place<T: PartialEq>(all: &[T], value: &T) -> u8 {
    let place = all.iter().position(|one| one == value).unwrap_or(0);
    u8::try_from(place + 1).unwrap_or(1)
}

fn at_place<T: Copy>(all: &[T], code: u8) -> Option<T> {
    usize::from(code).checked_sub(1).and_then(|place| all.get(place)).copied()
}

impl ReportRefusal {
    const ALL: [Self; 6] =
        [Self::NoSink, Self::Unavailable, Self::TooMany, Self::TooLong, Self::NotAllowed, Self::Damaged];
}

impl StampVerdict {
    const ALL: [Self; 3] = [Self::Genuine, Self::Forged, Self::UnknownKey];
}

impl Wire for ReportRefusal {
    fn write(&self, w: &mut Writer) {
        w.u8(place(&Self::ALL, self));
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        at_place(&Self::ALL, r.u8()?).ok_or(Malformed("unknown refusal of a report"))
    }
}

impl Wire for StampVerdict {
    fn write(&self, w: &mut Writer) {
        w.u8(place(&Self::ALL, self));
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        at_place(&Self::ALL, r.u8()?).ok_or(Malformed("unknown verdict on a stamp"))
    }
}

impl Wire for ReportId {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.array()?))
    }
}

impl Wire for Receipt {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.array()?))
    }
}

impl Wire for StampCheck {
    fn write(&self, w: &mut Writer) {
        self.origin.write(w);
        self.public.write(w);
        self.stamp.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { origin: Origin::read(r)?, public: SealPublic::read(r)?, stamp: Stamp::read(r)? })
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
            Self::Seal { bytes } => {
                w.u8(11);
                w.bytes(bytes);
            }
            Self::Report { id, length, digest, past } => {
                w.u8(12);
                id.write(w);
                w.u32(*length);
                w.array(digest);
                w.u8(u8::from(past.is_some()));
                if let Some((capability, possession)) = past {
                    capability.write(w);
                    possession.write(w);
                }
            }
            Self::ReportPart { id, bytes } => {
                w.u8(13);
                id.write(w);
                w.bytes(bytes);
            }
            Self::CheckStamps { signature, checks } => {
                w.u8(14);
                w.u8(VERSION);
                signature.write(w);
                w.list(checks);
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
            11 => Self::Seal { bytes: r.bytes(MAX_SEAL)?.to_vec() },
            12 => {
                let (id, length, digest) = (ReportId::read(r)?, r.u32()?, r.array()?);
                let past = match r.u8()? {
                    0 => None,
                    1 => Some((SignedCapability::read(r)?, Signature::read(r)?)),
                    _ => return Err(Malformed("past capability")),
                };
                Self::Report { id, length, digest, past }
            }
            13 => Self::ReportPart { id: ReportId::read(r)?, bytes: r.bytes(MAX_REPORT_PART)?.to_vec() },
            14 => {
                if r.u8()? != VERSION {
                    return Err(Malformed("another version"));
                }
                Self::CheckStamps { signature: Signature::read(r)?, checks: r.list(MAX_STAMP_CHECKS)? }
            }
            _ => return Err(Malformed("unknown message to the relay")),
        })
    }
}

impl Wire for FromRelay {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Welcome { time, region, takes_reports, moderator } => {
                w.u8(1);
                w.u8(VERSION);
                time.write(w);
                w.bytes(region.as_bytes());
                w.u8(u8::from(*takes_reports));
                w.bytes(moderator);
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
                w.u8(DELIVER);
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
            Self::Sealed { from, stamp, bytes } => {
                w.u8(SEALED);
                from.write(w);
                stamp.write(w);
                w.bytes(bytes);
            }
            Self::ReportTaken { id, receipt } => {
                w.u8(15);
                id.write(w);
                receipt.write(w);
            }
            Self::ReportRefused { id, reason } => {
                w.u8(16);
                id.write(w);
                reason.write(w);
            }
            Self::StampsChecked { verdicts } => {
                w.u8(17);
                w.list(verdicts);
            }
            Self::Phase { shift } => {
                w.u8(18);
                shift.write(w);
            }
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
                let region = region.to_owned();
                let takes_reports = match r.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed("reports")),
                };
                Self::Welcome { time, region, takes_reports, moderator: r.bytes(MAX_MODERATOR)?.to_vec() }
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
            DELIVER => Self::Deliver { from: MemberIndex::read(r)?, bytes: r.bytes(MAX_PAYLOAD)?.to_vec() },
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
            SEALED => {
                Self::Sealed { from: MemberIndex::read(r)?, stamp: Stamp::read(r)?, bytes: r.bytes(MAX_SEAL)?.to_vec() }
            }
            15 => Self::ReportTaken { id: ReportId::read(r)?, receipt: Receipt::read(r)? },
            16 => Self::ReportRefused { id: ReportId::read(r)?, reason: ReportRefusal::read(r)? },
            17 => Self::StampsChecked { verdicts: r.list(MAX_STAMP_CHECKS)? },
            18 => Self::Phase { shift: PhaseShift::read(r)? },
            _ => return Err(Malformed("unknown message from the relay")),
        })
    }
}
