//! What a conference tells about itself.

use super::member::Member;
use super::rival;
use super::seat::Seat;
use super::{Conference, Part};
use crate::admission::lobby::KnockId;
use crate::capability::SignedCapability;
use crate::code::SecurityCode;
use crate::epoch::broadcast::SealingSeed;
use crate::epoch::roster::Member as RosterEntry;
use crate::epoch::statement::{ChainHash, Rate, Settings};
use crate::evidence::Exhibit;
#[cfg(feature = "reports")]
use crate::evidence::category::Category;
#[cfg(feature = "reports")]
use crate::evidence::report::{Note, Report};
use crate::evidence::ring::{NoEvidence, Window};
use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::identity::{DisplayName, SafetyNumber};
use crate::link::Link;
use crate::moderator::Moderator;
use crate::sign::Signature;
use crate::stamp::Stamp;
use crate::succession::Rank;
use crate::time::FrameDuration;
use crate::wire::codec::Wire;
use std::time::{Duration, Instant};

impl Conference {
    /// How long the meeting's audio frames are; `None` while a guest does not know the meeting's descriptor.
    pub fn frame_duration(&self) -> Option<FrameDuration> {
        FrameDuration::from_millis(self.descriptor()?.frame_ms)
    }

    /// The meeting's link, to invite others.
    #[allow(clippy::missing_panics_doc)] // No method returns while a part becomes another.
    pub fn link(&self) -> &Link {
        match &self.part {
            Part::Guest(joiner) => joiner.link(),
            Part::Entering(entering) => &entering.link,
            Part::Member(member) => &member.room.link,
            Part::Between => unreachable!("no method returns in between"),
        }
    }

    /// The meeting.
    pub fn meeting(&self) -> MeetingId {
        self.link().meeting
    }

    /// This member's index, once it is in the meeting.
    pub fn index(&self) -> Option<MemberIndex> {
        self.seat().map(Seat::index)
    }

    /// The current epoch; zero before the first.
    pub fn epoch(&self) -> Epoch {
        self.seat().map_or(Epoch::ZERO, Seat::epoch)
    }

    /// T_e, once this member is in the meeting.
    pub fn chain_hash(&self) -> Option<ChainHash> {
        self.seat().and_then(Seat::chain_hash)
    }

    /// Whether muted members go on sending.
    pub fn rate(&self) -> Rate {
        self.seat().map_or(Rate::Private, Seat::rate)
    }

    /// What the acts so far have made of the meeting, once this member is in it.
    pub fn settings(&self) -> Option<Settings> {
        self.seat().map(Seat::settings)
    }

    /// Who leads, once this member is in the meeting.
    pub fn leader(&self) -> Option<MemberIndex> {
        self.seat().map(Seat::leader)
    }

    /// The leadership's number, once this member is in the meeting.
    pub fn term(&self) -> Term {
        self.seat().map_or(Term(0), Seat::term)
    }

    /// A member's rank.
    pub fn rank(&self, index: MemberIndex) -> Rank {
        self.seat().map_or(Rank::Member, |seat| seat.rank(index))
    }

    /// The security code of this epoch, once everybody has confirmed it.
    pub fn security_code(&self) -> Option<&SecurityCode> {
        self.member().and_then(|member| member.room.pulse.code())
    }

    /// T_e of an epoch that this member was in lately.
    pub fn chain_hash_at(&self, epoch: Epoch) -> Option<ChainHash> {
        let mut statements = self.seat()?.statements();
        statements.find(|shown| shown.statement.epoch == epoch).map(|shown| shown.chain())
    }

    /// The proof that a leader told two histories, for others to check: descriptor, line of succession and both
    /// statements (`docs/protocol.md` §7.9). Without one, the proof that a talker told two members two things: zero,
    /// descriptor, the talker's entry in the roster and what contradicts itself (§9.6).
    pub fn proof(&self) -> Option<Vec<u8>> {
        let room = &self.member()?.room;
        let Some(rival::Proof { line, one, other }) = room.rival.proof() else { return room.talkers_proof() };
        let line = line.as_ref().map(Wire::encode).unwrap_or_default();
        let mut w = crate::wire::codec::Writer::default();
        w.bytes(&room.seat.descriptor().encode());
        w.bytes(&line);
        one.write(&mut w);
        other.write(&mut w);
        Some(w.into_bytes())
    }

    /// Everybody who holds this epoch's key, this member included.
    pub fn members(&self) -> impl Iterator<Item = &RosterEntry> {
        self.seat().into_iter().flat_map(|seat| seat.roster().members())
    }

    /// The safety number of this member and another.
    pub fn safety_number(&self, other: &RosterEntry) -> SafetyNumber {
        SafetyNumber::of(&self.identity.public(), &other.cert.identity)
    }

    /// To hosts and co-hosts: everybody who waits, oldest first.
    pub fn knocks(&self) -> Vec<(KnockId, DisplayName)> {
        self.member().map(Member::knocks).unwrap_or_default()
    }

    /// Whether this member may let people in and out.
    pub fn may_host(&self) -> bool {
        self.member().is_some_and(|member| member.lead.is_some() || member.room.may_lead())
    }

    /// Whether media can be sent at `now`: in the meeting, known to the relay, and the leader heard lately; a leader, its
    /// members.
    pub fn can_send(&self, now: Instant) -> bool {
        let sends = |member: &Member| {
            let room = &member.room;
            room.attached && room.pulse.may_send(now, &room.seat)
        };
        !self.over && self.member().is_some_and(sends)
    }

    /// Whether nobody else of the meeting is at this relay: a member's slot is taken and no other of the roster's is, or
    /// a guest is told of no leader. As the relay says, which is a hint.
    pub fn is_alone(&self) -> bool {
        match &self.part {
            Part::Guest(joiner) => joiner.is_absent(),
            Part::Member(member) => member.room.is_alone(),
            Part::Entering(_) | Part::Between => false,
        }
    }

    /// The relay's newest stamp on a seal of this member's own; `None` while the relay stamps none.
    pub fn own_stamp(&self) -> Option<Stamp> {
        self.member().and_then(|member| member.room.own_stamp)
    }

    // ---- reports ----

    /// What proves what a member said in the window, also of one who has left, and for 2 minutes after the end.
    ///
    /// # Errors
    /// [`NoEvidence`].
    pub fn evidence(&self, now: Instant, index: MemberIndex, window: Window) -> Result<Exhibit, NoEvidence> {
        self.kept.ring.exhibit(now, index, window)
    }

    /// Everybody of whom something can be proved, also those who have left, and how much of what they said.
    pub fn reportable(&self) -> impl Iterator<Item = (MemberIndex, &DisplayName, Duration)> {
        self.kept.ring.reportable()
    }

    /// When the last that can be proved of a member was over.
    pub fn last_heard(&self, index: MemberIndex) -> Option<Instant> {
        self.kept.ring.last_heard(index)
    }

    /// The moderators whom the meeting's signed policy names; empty before this member is let in.
    pub fn moderators(&self) -> &[Moderator] {
        &self.kept.moderators
    }

    /// The moderator of the relay's operator, if the relay names one.
    pub fn operator_moderator(&self) -> Option<&Moderator> {
        self.operator.as_ref()
    }

    /// The sealing keys of members who are gone, as far as they were published: anybody could have made seals of theirs
    /// since.
    pub fn published(&self) -> impl Iterator<Item = (MemberIndex, &SealingSeed)> {
        self.member().into_iter().flat_map(|member| member.room.publication.published())
    }

    /// Whether the relay hands reports on.
    pub fn relay_takes_reports(&self) -> bool {
        self.takes_reports
    }

    /// What shows the relay that this member has a slot, or had one lately, for its reports: its newest capability and
    /// the possession over this connection's exporter. `None` without a connection, and before this member was let in.
    pub fn past(&self) -> Option<(SignedCapability, Signature)> {
        let exporter = self.exporter?;
        let own = self.member().and_then(|member| Some((member.room.capability?, &member.room.secrets.routing)));
        let (capability, key) = own.or_else(|| self.kept.past.as_ref().map(|(capability, key)| (*capability, key)))?;
        Some((capability, capability.prove(key, &exporter)))
    }

    /// A report of what a member said in the window; with this member's name and signature if `is_named`.
    ///
    /// # Errors
    /// [`NoEvidence`].
    #[cfg(feature = "reports")]
    pub fn report(
        &self,
        now: Instant,
        index: MemberIndex,
        window: Window,
        (category, note): (Category, Note),
        is_named: bool,
    ) -> Result<Report, NoEvidence> {
        let exhibit = self.evidence(now, index, window)?;
        let report = Report::new(category, note, self.wall.at(now), exhibit);
        let name = match &self.part {
            Part::Guest(joiner) => Some(joiner.name()),
            Part::Entering(entering) => Some(&entering.name),
            Part::Member(member) => Some(&member.room.name),
            Part::Between => None,
        };
        Ok(match name.filter(|_| is_named) {
            Some(name) => report.signed(name.clone(), &self.identity),
            None => report,
        })
    }
}
