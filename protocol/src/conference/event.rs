//! What a conference tells its user, and what it wants sent.

use std::time::Duration;

use crate::admission::lobby::KnockId;
use crate::code::SecurityCode;
use crate::epoch::statement::Act;
use crate::id::{Epoch, MemberIndex};
use crate::identity::{DisplayName, IdentityKind, SafetyNumber};
use crate::sign::PublicKey;
use crate::wire::control::Denial;
use crate::wire::relay::{PhaseShift, Receipt, ReportId, ReportRefusal};

/// Bytes for the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transmit {
    /// A message for the control stream.
    Control(Vec<u8>),
    /// A datagram.
    Datagram(Vec<u8>),
}

/// Somebody's identity as shown to the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The name, chosen by its owner.
    pub name: DisplayName,
    /// IK, for pins.
    pub identity: PublicKey,
    /// Guest or kept, as its owner says.
    pub kind: IdentityKind,
    /// To be compared with the other side.
    pub safety_number: SafetyNumber,
}

/// Why a member is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftWhy {
    /// Said good-bye.
    Left,
    /// Was away for too long.
    Lost,
    /// The host put it out.
    Removed,
}

/// What is wrong with what somebody sent. Never an accident of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmKind {
    /// A statement that its leader's key did not sign, or that does not follow from the last.
    BadStatement,
    /// A roster other than the one signed.
    BadRoster,
    /// A key other than the one committed to.
    BadKey,
    /// An acknowledgement of another history.
    BadAcknowledgement,
    /// A removal notice or revocation that the authority did not sign.
    ForgedNotice,
    /// The sealed frames of a member cannot be opened.
    Unauthentic,
    /// A leader told two members two histories, or a talker two different things, and there is proof.
    Equivocation,
    /// Others have a statement that does not reach this member.
    Withheld,
    /// A member tried what only hosts may do.
    Forbidden,
    /// Somebody speaks in a member's name: frames that its seals do not list.
    Injected,
    /// A member's seals do not verify.
    BadSeal,
}

/// Why a conference cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The relay or the host does not accept the link's secret.
    #[error("this link does not open the meeting: its secret is wrong or was replaced — ask the host for a new link")]
    WrongLink,
    /// The meeting asks for a passcode and none was given.
    #[error("this meeting asks for a passcode — give it with --passcode")]
    PasscodeNeeded,
    /// Wrong passcode.
    #[error("the passcode is wrong — ask the host and try again")]
    WrongPasscode,
    /// The meeting's time is over, or has not come.
    #[error("this meeting is not open at this time — check your clock, or ask the host for a new link")]
    NotNow,
    /// The handshake failed again and again.
    #[error(
        "the handshake with the host failed: somebody on the way may be changing messages — try again, or another relay"
    )]
    Handshake,
    /// The relay takes no more guests.
    #[error("too many people are knocking at this meeting — try again in a minute")]
    Full,
    /// The relay refuses the capability or the leader's renewals stopped.
    #[error("the relay does not accept this member any more")]
    Detached,
    /// This member is connected from elsewhere.
    #[error("this member is connected from elsewhere")]
    Replaced,
    /// What the relay sends is no protocol of ours.
    #[error("the relay sent what is no message of this version — is it a Conclave relay of the same version?")]
    Relay,
    /// The epochs are used up.
    #[error("the meeting has used up its epochs")]
    Exhausted,
    /// The leader was not heard for too long, and nobody took over.
    #[error(
        "the meeting has had no host for 30 seconds and nobody was there to take over — join again when the host is back"
    )]
    NoLeader,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The host is known and authentic; nothing else of the meeting is.
    HostFound(Person),
    /// No host is there yet.
    WaitingForHost,
    /// Too many wrong passcodes were tried in this meeting: the host takes one at a time.
    Throttled,
    /// The host has the knock.
    WaitingRoom,
    /// To the host: somebody knocks.
    Knock {
        /// Names the knock.
        id: KnockId,
        /// Who.
        person: Person,
    },
    /// To the host: somebody does not wait any more.
    KnockGone {
        /// Names the knock.
        id: KnockId,
    },
    /// In the meeting: the first epoch's key is here.
    Admitted {
        /// This member's index.
        index: MemberIndex,
    },
    /// Not let in.
    Denied(Denial),
    /// The roster changed, or is here for the first time.
    Roster {
        /// The epoch.
        epoch: Epoch,
    },
    /// Somebody came.
    Joined {
        /// Index.
        index: MemberIndex,
        /// Name.
        name: DisplayName,
    },
    /// Somebody is gone.
    Left {
        /// Index.
        index: MemberIndex,
        /// Name.
        name: DisplayName,
        /// Why.
        why: LeftWhy,
    },
    /// This member was put out, by the authority's own signature.
    Removed,
    /// The meeting is over for everybody: its leader ended it, or its time is over.
    Ended {
        /// Who ended it; when the time is over, the leader.
        by: MemberIndex,
    },
    /// From now on a muted member may stop sending.
    OpenRate,
    /// Something that no honest member, leader or relay does.
    Alarm {
        /// What.
        kind: AlarmKind,
        /// Whom it concerns, if a member.
        index: Option<MemberIndex>,
        /// In words.
        detail: &'static str,
    },
    /// The conference is over because it cannot go on.
    Failed(Failure),
    /// What is known of moderators, or of whether the relay takes reports, has changed.
    Moderators,
    /// The relay is about to close.
    RelayClosing,
    /// The relay asks for the frame clock to be shifted (`docs/protocol.md` §8.4).
    Phase {
        /// By how much.
        shift: PhaseShift,
    },
    /// This member has to shake hands again, for a reason that is nobody's fault; it comes back without a knock, unless
    /// it was removed meanwhile. **The caller must make a new connection** and call
    /// [`super::Conference::connected`]: at the relay the old one may still hold a slot.
    Rejoining,
    /// Somebody did something, by the leader's signed word.
    Act {
        /// Who: a host, a co-host, or the member itself.
        by: MemberIndex,
        /// What.
        act: Act,
        /// To whom, if to a member.
        who: Option<(MemberIndex, DisplayName)>,
    },
    /// Somebody else leads from now on, or this member does.
    Leader {
        /// Who.
        index: MemberIndex,
    },
    /// All members of the epoch have confirmed it and see this code.
    SecurityCode {
        /// The epoch.
        epoch: Epoch,
        /// The code.
        code: SecurityCode,
    },
    /// The meeting was locked or unlocked, or is locked at entry.
    Locked {
        /// Locked.
        on: bool,
    },
    /// A member wrote to all.
    Chat {
        /// Who.
        from: MemberIndex,
        /// What, 1 to [`crate::epoch::broadcast::MAX_TEXT`] bytes.
        text: String,
    },
    /// A member raised its hand, or lowered it.
    Hand {
        /// Who.
        index: MemberIndex,
        /// Raised.
        on: bool,
    },
    /// A member says that it records the meeting, or has ended that. It says so again whenever somebody joins.
    Recording {
        /// Who.
        index: MemberIndex,
        /// Records.
        on: bool,
    },
    /// A host asks this member to mute.
    AskedToMute {
        /// Who asks.
        by: MemberIndex,
    },
    /// The leader has not been heard for so long; from 10 s on nothing is sent. Zero: it is heard again.
    Stale {
        /// For how long.
        silence: Duration,
    },
    /// A talker's frames are played only when its seals vouch for them, about a second later than otherwise, or at
    /// once again: whoever plays them should hold them for longer meanwhile.
    Verified {
        /// Who.
        index: MemberIndex,
        /// Only what is vouched for is played.
        on: bool,
    },
    /// The leader refuses what this co-host asked for.
    Refused(ActError),
    /// The relay has answered a report, also after the end.
    ReportAnswered {
        /// Which.
        id: ReportId,
        /// Its number when it was handed on; why it was not otherwise.
        answer: Result<Receipt, ReportRefusal>,
    },
    /// To whoever leads: somebody knocked whom a ban keeps out ([`super::Conference::set_bans`]), and was turned down.
    Banned(Person),
}

/// Why an act is refused. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ActError {
    /// Only hosts and co-hosts can do this, some of it only the host.
    #[error("only the host can do this")]
    NotHost,
    /// Nobody knocks under that number.
    #[error("nobody knocks under that number")]
    NoSuchKnock,
    /// No member has that index.
    #[error("no member has that number")]
    NoSuchMember,
    /// One's own index.
    #[error("that is you: leave or end the meeting instead")]
    Yourself,
    /// Not in the meeting.
    #[error("you are not in the meeting")]
    NotInMeeting,
    /// The meeting has as many members as it may.
    #[error("the meeting is full")]
    Full,
    /// Nobody is let in.
    #[error("the meeting is locked: unlock it first")]
    Locked,
    /// Of the same or a higher rank.
    #[error("this member ranks as high as you: only the host can do that")]
    Rank,
    /// Only who leads can do this.
    #[error("somebody else leads the meeting now: take the lead back first, or ask whoever leads")]
    NotLeading,
    /// Not a co-host.
    #[error("this member is no co-host: promote it first")]
    NotInLine,
    /// As many co-hosts as there may be.
    #[error("there are as many co-hosts as there may be: demote one first")]
    LineFull,
    /// The leader cannot be reached.
    #[error("whoever leads the meeting cannot be reached at the moment: try again")]
    LeaderAway,
    /// Nothing, or too much, to say.
    #[error("a message has 1 to 2,000 bytes")]
    BadText,
    /// The connection is away.
    #[error("the connection to the meeting is away at the moment: try again")]
    Disconnected,
}

impl ActError {
    const ALL: [Self; 14] = [
        Self::NotHost,
        Self::NoSuchKnock,
        Self::NoSuchMember,
        Self::Yourself,
        Self::NotInMeeting,
        Self::Full,
        Self::Locked,
        Self::Rank,
        Self::NotLeading,
        Self::NotInLine,
        Self::LineFull,
        Self::LeaderAway,
        Self::BadText,
        Self::Disconnected,
    ];

    /// Its number in an answer to a co-host (`docs/protocol.md` §6.4).
    pub fn number(self) -> u8 {
        Self::ALL.iter().position(|error| *error == self).map_or(0, |place| place as u8)
    }

    /// The error of a number; for an unknown one, that the leader refuses.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::NotHost)
    }
}
