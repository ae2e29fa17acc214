//! A whole conference as one state machine: the only entry point to the protocol for a client.
//!
//! One change, then drain: after every `handle_*` call or act, call [`Conference::poll_transmit`] and
//! [`Conference::poll_event`] until both are empty, and arm a timer for [`Conference::poll_timeout`].
//! [`Conference::seal`] and [`Conference::open`] are the media path: they allocate nothing and emit nothing.

mod door;
mod early;
mod entering;
mod epochs;
pub mod event;
mod gossip;
mod joiner;
mod leader;
mod ledger;
mod mail;
mod member;
mod mesh;
mod outbox;
mod peer;
mod publication;
mod pulse;
mod rival;
mod room;
mod said;
mod sealing;
mod seals;
mod seat;
mod talker;
#[cfg(test)]
mod tests;

use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use event::{ActError, AlarmKind, Event, Failure, LeftWhy, Person, Transmit};

use crate::admission::lobby::KnockId;
use crate::capability::{Revoked, SignedCapability};
use crate::code::SecurityCode;
use crate::descriptor::{Descriptor, Policy, Region};
use crate::epoch::broadcast::{Channel, MAX_TEXT, Said, SealingSeed};
use crate::epoch::roster::{Member as RosterEntry, Roster};
use crate::epoch::statement::{ChainHash, Rate, Settings};
use crate::evidence::Exhibit;
#[cfg(feature = "reports")]
use crate::evidence::category::Category;
#[cfg(feature = "reports")]
use crate::evidence::report::{Note, Report};
use crate::evidence::ring::{NoEvidence, Window};
use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::identity::{DisplayName, IdCert, Identity, Role, SafetyNumber};
use crate::link::{Link, LinkSecret, RelayAddress};
use crate::moderator::{MAX_MODERATORS, Moderator, moderators_digest};
use crate::noise::handshake::Passcode;
use crate::sframe::frame::{DATAGRAM_LEN, Frame, PLAINTEXT_LEN};
use crate::sframe::receiver::Dropped;
use crate::sframe::sender::Exhausted;
use crate::sign::{KeyPair, PublicKey, Signature};
use crate::stamp::Stamp;
use crate::succession::{Line, Rank};
use crate::time::{FrameDuration, UnixMillis, WallClock};
use crate::wire::codec::Wire;
use crate::wire::control::{Denial, Message, RemovalNotice, Verb, Whom};
use crate::wire::datagram::{Datagram, Kind};
use crate::wire::relay::{FromRelay, Refusal, ToRelay};
use entering::{Entering, Entrance};
use joiner::{JoinSecrets, Joiner, Progress};
use leader::Leader;
use member::{Member, Turn};
use outbox::{Kept, Outbox, Step};
use room::{NewRoom, Room};
use seat::{Arrived, FreshValue, NewSeat, Seat};

/// How far before now a new meeting's descriptor begins: guests' clocks may be behind.
const DESCRIPTOR_SLACK: Duration = Duration::from_secs(10 * 60);

/// What a host decides when it makes a meeting.
pub struct HostConfig {
    /// Relays for the link, in order of preference.
    pub relays: Vec<RelayAddress>,
    /// The host's identity.
    pub identity: Identity,
    /// The host's name.
    pub name: DisplayName,
    /// A passcode for every guest, if any.
    pub passcode: Option<Passcode>,
    /// Whether guests wait for an explicit act.
    pub waiting_room: WaitingRoom,
    /// Most members at one time, the host included; 2 to 65,534.
    pub max_members: u16,
    /// How long the meeting may last.
    pub duration: Duration,
    /// How long everybody's audio frames are.
    pub frame: FrameDuration,
    /// Regions whose relays may carry it; empty for any.
    pub regions: Vec<Region>,
    /// Who can open reports from this meeting, besides the relay's operator; at most [`MAX_MODERATORS`], more are left
    /// out.
    pub moderators: Vec<Moderator>,
}

/// Whether everybody who has the link waits for the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitingRoom {
    /// The host admits each guest.
    Ask,
    /// The host's client admits whoever completes the handshake.
    AdmitAll,
}

/// What a guest brings.
pub struct JoinConfig {
    /// The link.
    pub link: Link,
    /// The guest's identity.
    pub identity: Identity,
    /// The guest's name.
    pub name: DisplayName,
    /// A passcode, if the guest was told one.
    pub passcode: Option<Passcode>,
}

/// The clocks at the moment a conference is made.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Monotonic.
    pub now: Instant,
    /// Wall clock.
    pub wall: UnixMillis,
}

enum Part {
    Guest(Box<Joiner>),
    Entering(Box<Entering>),
    Member(Box<Member>),
    /// Only while one of the others becomes another.
    Between,
}

/// What the relay said last of who leads.
struct Announced {
    descriptor: Vec<u8>,
    line: Option<Line>,
    leader: MemberIndex,
}

/// What there is of a conference when it is made.
struct Begun {
    now: Instant,
    out: Outbox,
    kept: Kept,
}

/// A conference, as its host, a guest or a member.
pub struct Conference {
    part: Part,
    identity: Identity,
    wall: WallClock,
    relay_clock: WallClock,
    exporter: Option<[u8; 32]>,
    over: bool,
    revoked: Option<Revoked>,
    rng: Box<dyn CryptoRng + Send>,
    out: Outbox,
    kept: Kept,
    /// What the relay says of reports.
    operator: Option<Moderator>,
    takes_reports: bool,
    /// The last moment at which anything happened.
    looked: Instant,
}

impl Conference {
    /// Makes a meeting. The host is alone in its first epoch at once; [`Conference::link`] invites others.
    pub fn host(config: HostConfig, start: Start, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        let HostConfig { relays, identity, name, passcode, waiting_room, max_members, duration, regions, .. } = config;
        let mut moderators = config.moderators;
        moderators.truncate(MAX_MODERATORS);
        let secrets = JoinSecrets::draw(rng.as_mut());
        let authority = KeyPair::generate(rng.as_mut());
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let keys = secrets.public();
        let descriptor = Descriptor {
            hs: keys.session,
            authority: authority.public(),
            not_before: start.wall.minus(DESCRIPTOR_SLACK),
            not_after: start.wall.plus(duration),
            policy: policy(waiting_room, passcode.is_some()),
            frame_ms: config.frame.millis(),
            max_members,
            nonce,
            moderator: moderators_digest(&moderators),
            regions,
        };
        let meeting = descriptor.meeting_id();
        let link = Link { relays, meeting, secret: LinkSecret::generate(rng.as_mut()) };
        let cert = identity.certify(meeting, Role::Host, keys, &name, descriptor.not_after);
        let fresh = FreshValue::draw(meeting, rng.as_mut());
        let (index, roster) = (MemberIndex::HOST, Roster::default());
        let seat = Seat::new(NewSeat { meeting, descriptor, index, cert, fresh, roster });
        let (shown, authority) = (name.clone(), Some(authority));
        let mut room = Room::new(start.now, NewRoom { link, name, passcode, seat, secrets, authority });
        let clock = WallClock::new(start.now, start.wall);
        let mut out = Outbox::default();
        let mut kept = Kept { moderators, ..Kept::default() };
        if !kept.moderators.is_empty() {
            out.event(Event::Moderators);
        }
        let Start { now, wall } = start;
        let mut step = Step { now, wall, relay: wall, rng: rng.as_mut(), out: &mut out, kept: &mut kept };
        let mut lead = Leader::new(start.now, &room);
        if let Some(lead) = &mut lead {
            lead.begin(&mut step, &mut room, &identity, first_entry(cert, shown));
        }
        let part = Part::Member(Box::new(Member::new(start.now, room, lead)));
        Self::new(part, identity, clock, rng, Begun { now, out, kept })
    }

    /// Sets out to join a meeting.
    pub fn join(config: JoinConfig, start: Start, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        let JoinConfig { link, identity, name, passcode } = config;
        let joiner = Joiner::new(link, name, passcode, false, rng.as_mut());
        let clock = WallClock::new(start.now, start.wall);
        let begun = Begun { now: start.now, out: Outbox::default(), kept: Kept::default() };
        Self::new(Part::Guest(Box::new(joiner)), identity, clock, rng, begun)
    }

    fn new(part: Part, identity: Identity, wall: WallClock, rng: Box<dyn CryptoRng + Send>, begun: Begun) -> Self {
        let Begun { now, out, kept } = begun;
        Self {
            part,
            identity,
            wall,
            relay_clock: wall,
            exporter: None,
            over: false,
            revoked: None,
            rng,
            out,
            kept,
            operator: None,
            takes_reports: false,
            looked: now,
        }
    }

    // ---- what the caller learns ----

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// When [`Conference::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over {
            return self.kept.ring.erase_due();
        }
        let next = match &self.part {
            Part::Guest(joiner) => joiner.poll_timeout(),
            Part::Entering(entering) => entering.poll_timeout(),
            Part::Member(member) => member.poll_timeout(),
            Part::Between => None,
        };
        [next, self.end_due()].into_iter().flatten().min()
    }

    /// When the meeting's time is over by this side's clock.
    fn end_due(&self) -> Option<Instant> {
        self.wall.when(self.descriptor()?.not_after)
    }

    fn descriptor(&self) -> Option<&Descriptor> {
        match &self.part {
            Part::Guest(joiner) => joiner.descriptor(),
            Part::Entering(entering) => Some(entering.descriptor()),
            Part::Member(member) => Some(member.room.seat.descriptor()),
            Part::Between => None,
        }
    }

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

    fn member(&self) -> Option<&Member> {
        match &self.part {
            Part::Member(member) => Some(member),
            _ => None,
        }
    }

    fn seat(&self) -> Option<&Seat> {
        self.member().map(|member| &member.room.seat)
    }

    fn seat_mut(&mut self) -> Option<&mut Seat> {
        match &mut self.part {
            Part::Member(member) => Some(&mut member.room.seat),
            _ => None,
        }
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

    /// Identities that this member lets nobody in with while it leads, and until when; for good when `None`. In the
    /// place of those given before. Who is in the meeting already stays.
    pub fn set_bans(&mut self, bans: BTreeMap<PublicKey, Option<UnixMillis>>) {
        self.kept.bans = bans;
    }

    // ---- what happens ----

    /// A connection to a relay is up, for the first time or again. `exporter` is its TLS exporter under
    /// [`crate::label::EXPORTER`].
    pub fn connected(&mut self, now: Instant, exporter: [u8; 32]) {
        self.exporter = Some(exporter);
        let descriptor = self.descriptor().cloned();
        let meeting = self.meeting();
        let (part, mut step, _) = self.step(now);
        let line = match part {
            Part::Guest(joiner) => {
                joiner.on_connected();
                None
            }
            Part::Entering(entering) => {
                entering.on_connected(now, exporter);
                None
            }
            Part::Member(member) => {
                member.room.on_connected(&mut step, exporter);
                if let Some(lead) = &mut member.lead {
                    lead.on_connecting();
                }
                member.room.seat.line().cloned()
            }
            Part::Between => None,
        };
        self.out.control(&ToRelay::Hello { meeting, descriptor, revoked: self.newest_revocation(), line });
    }

    fn newest_revocation(&self) -> Option<Revoked> {
        self.member().and_then(|member| member.room.revoked.clone()).or_else(|| self.revoked.clone())
    }

    /// The connection is gone; until [`Conference::connected`] nothing that is sent arrives, and no deadline of the
    /// meeting's runs.
    pub fn disconnected(&mut self, _now: Instant) {
        self.exporter = None;
        match &mut self.part {
            Part::Entering(entering) => entering.on_disconnected(),
            Part::Member(member) => member.room.on_disconnected(),
            Part::Guest(_) | Part::Between => {}
        }
    }

    /// A control message from the relay.
    pub fn handle_control(&mut self, now: Instant, message: &[u8]) {
        if self.over {
            return self.on_late(now, message);
        }
        self.looked = now;
        match FromRelay::decode(message) {
            Ok(message) => self.on_relay(now, message),
            Err(_) => self.fail(Failure::Relay),
        }
        self.note_end();
    }

    /// After the end only the others' last seals and last words count.
    fn on_late(&mut self, now: Instant, message: &[u8]) {
        let (part, mut step, _) = self.step(now);
        let message = FromRelay::decode(message);
        if let Some(answered) = message.as_ref().ok().and_then(answered) {
            return step.out.event(answered);
        }
        let Part::Member(member) = part else { return };
        match message {
            Ok(FromRelay::Deliver { from, bytes }) => member.room.on_last_word(&mut step, from, &bytes),
            Ok(FromRelay::Sealed { from, stamp, bytes }) => {
                member.room.on_sealed(&mut step, &Arrived { from, stamp, bytes });
            }
            _ => {}
        }
    }

    fn on_relay(&mut self, now: Instant, message: FromRelay) {
        match message {
            FromRelay::Welcome { time, takes_reports, moderator, .. } => {
                self.note_reports(takes_reports, &moderator);
                self.on_welcome(now, time);
            }
            FromRelay::Meeting { descriptor, line, leader } => {
                self.on_meeting(now, Announced { descriptor, line, leader })
            }
            FromRelay::MailboxOpen => self.guest(now, |j, step, _| j.on_mailbox_open(step)),
            FromRelay::Mail { bytes } => self.on_mail(now, &bytes),
            FromRelay::MailFrom { mailbox, bytes } => {
                self.with_member(now, |member, step, identity| member.on_mail(step, identity, mailbox, &bytes));
            }
            FromRelay::MailboxGone { mailbox } => self.with_member(now, |member, step, _| {
                if let Some(lead) = &mut member.lead {
                    lead.on_mailbox_gone(step, &mut member.room, mailbox);
                }
            }),
            FromRelay::Attached { .. } => self.on_attached(now),
            FromRelay::Deliver { from, bytes } => self.on_deliver(now, from, &bytes),
            FromRelay::Presence { slot, here } => {
                self.with_member(now, |member, step, _| member.room.on_presence(step, slot, here));
            }
            FromRelay::Revoked { revoked } => self.on_revoked(revoked),
            FromRelay::Refused { reason } => self.on_refused(now, reason),
            FromRelay::Detached { reason } => self.on_detached(now, reason),
            FromRelay::Closing => self.out.event(Event::RelayClosing),
            FromRelay::Phase { shift } => self.out.event(Event::Phase { shift }),
            FromRelay::Sealed { from, stamp, bytes } => {
                let seal = Arrived { from, stamp, bytes };
                self.with_member(now, |member, step, _| member.room.on_sealed(step, &seal));
            }
            // Reports are the caller's business.
            FromRelay::ReportTaken { .. } | FromRelay::ReportRefused { .. } | FromRelay::StampsChecked { .. } => {
                self.out.events.extend(answered(&message));
            }
        }
    }

    /// What the relay says of reports; a moderator that is none counts as none.
    fn note_reports(&mut self, takes_reports: bool, moderator: &[u8]) {
        let operator = Moderator::decode(moderator).ok();
        if (self.takes_reports, &self.operator) != (takes_reports, &operator) {
            (self.takes_reports, self.operator) = (takes_reports, operator);
            self.out.event(Event::Moderators);
        }
    }

    fn on_welcome(&mut self, now: Instant, time: UnixMillis) {
        self.relay_clock = WallClock::new(now, time);
        let (part, mut step, _) = self.step(now);
        match part {
            Part::Guest(joiner) => joiner.on_welcome(&step),
            Part::Entering(entering) => entering.on_welcome(&mut step),
            Part::Member(member) => member.room.attach(&mut step),
            Part::Between => {}
        }
    }

    fn on_meeting(&mut self, now: Instant, announced: Announced) {
        let Announced { descriptor, line, leader } = &announced;
        self.guest(now, |joiner, step, _| joiner.on_meeting(step, descriptor, line.as_ref(), *leader));
    }

    fn on_attached(&mut self, now: Instant) {
        let (part, mut step, _) = self.step(now);
        match part {
            Part::Entering(entering) => entering.on_attached(&mut step),
            Part::Member(member) => member.on_attached(&mut step),
            Part::Guest(_) | Part::Between => {}
        }
    }

    fn on_mail(&mut self, now: Instant, bytes: &[u8]) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, step, identity| joiner.on_mail(step, bytes, identity)),
            // The leader goes on using the mailbox until it has heard that this member took its slot.
            Part::Entering(_) => self.on_first_packet(now, bytes),
            Part::Member(_) => {
                self.with_member(now, |member, step, identity| member.on_own_mail(step, identity, bytes))
            }
            Part::Between => {}
        }
    }

    fn on_deliver(&mut self, now: Instant, from: MemberIndex, bytes: &[u8]) {
        match &mut self.part {
            Part::Entering(entering) if Channel::epoch_of(bytes).is_some() => entering.on_broadcast(from, bytes),
            Part::Entering(_) => self.on_first_packet(now, bytes),
            _ => self.with_member(now, |member, step, identity| member.on_deliver(step, identity, from, bytes)),
        }
    }

    fn on_first_packet(&mut self, now: Instant, packet: &[u8]) {
        let Part::Entering(entering) = std::mem::replace(&mut self.part, Part::Between) else { return };
        let link = entering.link.duplicate();
        let (_, mut step, identity) = self.step(now);
        match entering.on_packet(&mut step, identity, packet) {
            (Some(entering), _) => self.part = Part::Entering(entering),
            (None, Entrance::Seated(member)) => self.part = Part::Member(member),
            (None, Entrance::Waits) => self.fail_in(link, now, Failure::Handshake),
            (None, Entrance::Refused(failure)) => self.fail_in(link, now, failure),
        }
    }

    /// The conference is over, as that of a guest.
    fn fail_in(&mut self, link: Link, now: Instant, failure: Failure) {
        let Ok(name) = DisplayName::parse("-") else { return };
        let (_, step, _) = self.step(now);
        let joiner = Joiner::new(link, name, None, false, step.rng);
        self.part = Part::Guest(Box::new(joiner));
        self.fail(failure);
    }

    /// Runs a step of the guest and acts on what it says.
    fn guest(&mut self, now: Instant, act: impl FnOnce(&mut Joiner, &mut Step<'_>, &Identity) -> Progress) {
        let (part, mut step, identity) = self.step(now);
        let Part::Guest(joiner) = part else { return };
        match act(joiner, &mut step, identity) {
            Progress::Nothing => {}
            Progress::Failed(failure) => self.fail(failure),
            Progress::Message(message) => self.on_host_message(now, *message),
        }
    }

    fn on_host_message(&mut self, now: Instant, message: Message) {
        match message {
            Message::Waiting => self.out.event(Event::WaitingRoom),
            Message::Denied(denial) => {
                let returned = matches!(&self.part, Part::Guest(joiner) if joiner.returns);
                // Who was a member and may not come again was put out meanwhile.
                let removed = returned && denial == Denial::Blocked;
                self.out.event(if removed { Event::Removed } else { Event::Denied(denial) });
                self.finish();
            }
            Message::Admitted { index, capability } => {
                let exporter = self.exporter;
                let (part, mut step, _) = self.step(now);
                let Part::Guest(joiner) = part else { return };
                let Some(entered) = joiner.enter(step.rng) else { return };
                let entering = Entering::new(&mut step, entered, index, capability, exporter);
                self.part = Part::Entering(Box::new(entering));
            }
            _ => {}
        }
    }

    /// Runs a step of a member.
    fn with_member(&mut self, now: Instant, act: impl FnOnce(&mut Member, &mut Step<'_>, &Identity)) {
        let (part, mut step, identity) = self.step(now);
        if let Part::Member(member) = part {
            act(member, &mut step, identity);
        }
        self.note_end();
    }

    fn on_revoked(&mut self, revoked: Revoked) {
        let Part::Member(member) = &mut self.part else { return };
        let room = &mut member.room;
        let line = room.seat.line();
        if revoked.verify(&room.seat.descriptor().authority, line, room.meeting).is_err() {
            // One of a line that has not come yet is passed over; the relay shows it again.
            if room.seat.authority_of(revoked.signer).is_none() {
                return;
            }
            let detail = "the relay shows a revocation that no host signed";
            return self.out.event(Event::Alarm { kind: AlarmKind::ForgedNotice, index: None, detail });
        }
        if revoked.slots.contains(&room.index()) {
            // Removed, or lost without knowing it: who shakes hands again is told. A removed member has heard it from
            // the leader already, unless the relay kept it back.
        } else if room.revoked.as_ref().is_none_or(|old| revoked.replaces(old, line)) {
            self.revoked = Some(revoked.clone());
            room.revoked = Some(revoked);
        }
    }

    fn on_refused(&mut self, now: Instant, reason: Refusal) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, _, _| joiner.on_refused(reason)),
            _ if matches!(reason, Refusal::TooFast | Refusal::NotAllowed) => {}
            // A renewal that is refused takes nothing away: the slot lasts as long as it would have.
            Part::Member(member) if member.room.attached && reason != Refusal::Malformed => {}
            Part::Member(_) if reason != Refusal::Malformed => self.on_slot_lost(now, reason),
            _ => self.fail(Failure::Detached),
        }
    }

    fn on_detached(&mut self, now: Instant, reason: Refusal) {
        match reason {
            Refusal::Replaced => self.fail(Failure::Replaced),
            // Its own notice says so, and who was lost is not removed.
            reason => self.on_slot_lost(now, reason),
        }
    }

    /// The relay does not take what this member shows: it shows what else it has, or shakes hands again.
    fn on_slot_lost(&mut self, now: Instant, reason: Refusal) {
        let (part, mut step, _) = self.step(now);
        let Part::Member(member) = part else { return self.fail(Failure::Detached) };
        member.room.attached = false;
        let shows = matches!(reason, Refusal::Capability | Refusal::Expired) && member.room.shows_another(&mut step);
        // Nobody could let a leader in again: it goes on showing what it gives itself.
        if !shows && member.room.leads() && member.room.may_lead() {
            member.room.show_later(now);
        } else if !shows {
            self.rejoin(now);
        }
    }

    /// Becomes a guest again that was a member: with new keys for the join, and the same identity.
    fn rejoin(&mut self, now: Instant) {
        let (part, mut step, _) = self.step(now);
        let Part::Member(member) = part else { return };
        if let Some(lead) = member.lead.take() {
            lead.close_door(&mut step);
        }
        let room = &member.room;
        let passcode = room.passcode.as_ref().map(Passcode::duplicate);
        let mut joiner = Joiner::new(room.link.duplicate(), room.name.clone(), passcode, true, step.rng);
        joiner.on_connected();
        step.out.event(Event::Rejoining);
        if let Part::Member(member) = std::mem::replace(&mut self.part, Part::Guest(Box::new(joiner))) {
            let room = member.room;
            self.kept.past = room.capability.map(|capability| (capability, room.secrets.routing));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.kept.ring.expire(now);
        if self.over {
            return;
        }
        if self.end_due().is_some_and(|due| due <= now) {
            return self.on_time_over(now);
        }
        let (part, mut step, identity) = self.step(now);
        let turn = match part {
            Part::Guest(joiner) => joiner.handle_timeout(&mut step),
            Part::Entering(entering) => {
                entering.handle_timeout(&mut step);
                Turn::Stay
            }
            Part::Member(member) => member.handle_timeout(&mut step, identity),
            Part::Between => Turn::Stay,
        };
        match turn {
            Turn::Stay => self.note_end(),
            Turn::Rejoin => self.rejoin(now),
            Turn::Leave => self.fail(Failure::NoLeader),
            Turn::GiveUp => self.fail(Failure::Detached),
        }
    }

    /// The leader tells everybody; the others need not wait for its word (`docs/protocol.md` §3.1).
    fn on_time_over(&mut self, now: Instant) {
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Member(member) => match &mut member.lead {
                Some(lead) => lead.close(&mut step, &mut member.room, identity),
                None => step.out.event(Event::Ended { by: member.room.leader() }),
            },
            _ => step.out.event(Event::Failed(Failure::NotNow)),
        }
        self.finish();
    }

    // ---- what the user does ----

    /// Lets somebody in. A co-host asks the leader to; a refusal comes as [`Event::Refused`] then.
    ///
    /// # Errors
    /// [`ActError`]; likewise in every act below. Nothing has changed then.
    pub fn admit(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Admit, Whom::Knock(knock.0))
    }

    /// Lets everybody in who waits; gives how many.
    #[allow(clippy::missing_errors_doc)]
    pub fn admit_all(&mut self, now: Instant) -> Result<usize, ActError> {
        if !self.may_host() {
            return Err(ActError::NotHost);
        }
        let knocks = self.knocks();
        for (knock, _) in &knocks {
            self.admit(now, *knock)?;
        }
        Ok(knocks.len())
    }

    /// Turns somebody down; the second time for good.
    #[allow(clippy::missing_errors_doc)]
    pub fn deny(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Deny, Whom::Knock(knock.0))
    }

    /// Turns somebody down for good.
    #[allow(clippy::missing_errors_doc)]
    pub fn block_knock(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, Verb::Block, Whom::Knock(knock.0))
    }

    /// Puts a member out, at once and for this meeting.
    #[allow(clippy::missing_errors_doc)]
    pub fn remove(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::Remove, Whom::Member(index))
    }

    /// Puts a member out; the same as [`Conference::remove`], told as a block.
    #[allow(clippy::missing_errors_doc)]
    pub fn block(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::Block, Whom::Member(index))
    }

    /// Lets nobody in any more but those who lost the connection, or lets people in again.
    #[allow(clippy::missing_errors_doc)]
    pub fn lock(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::Lock } else { Verb::Unlock }, Whom::Nobody)
    }

    /// Whether whoever comes from now on begins muted.
    #[allow(clippy::missing_errors_doc)]
    pub fn mute_newcomers(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::MuteNewcomers } else { Verb::UnmuteNewcomers }, Whom::Nobody)
    }

    /// Whether guests wait from now on.
    #[allow(clippy::missing_errors_doc)]
    pub fn waiting_room(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.act(now, if on { Verb::WaitingRoomOn } else { Verb::WaitingRoomOff }, Whom::Nobody)
    }

    /// Asks a member to mute.
    #[allow(clippy::missing_errors_doc)]
    pub fn ask_mute(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, Verb::AskMute, Whom::Member(index))
    }

    /// Makes a member a co-host, last in the line. Only the host can, while it leads.
    #[allow(clippy::missing_errors_doc)]
    pub fn promote(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.lead(now, |lead, step, room, _| lead.promote(step, room, index))
    }

    /// Makes a co-host a member again.
    #[allow(clippy::missing_errors_doc)]
    pub fn demote(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.lead(now, |lead, _, room, _| lead.demote(room, index))
    }

    /// Lets a co-host lead, or the host again; the host may also take the lead back with its own index.
    #[allow(clippy::missing_errors_doc)]
    pub fn hand_over(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| member.hand_over(step, identity, index))
    }

    /// Ends the meeting for everybody.
    #[allow(clippy::missing_errors_doc)]
    pub fn end(&mut self, now: Instant) -> Result<(), ActError> {
        self.act(now, Verb::End, Whom::Nobody)?;
        self.note_end();
        Ok(())
    }

    /// Writes to everybody who is here, oneself included.
    #[allow(clippy::missing_errors_doc)]
    pub fn chat(&mut self, now: Instant, text: &str) -> Result<(), ActError> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(ActError::BadText);
        }
        let text = text.to_owned();
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::chat(place, text, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Raises one's hand, or lowers it.
    #[allow(clippy::missing_errors_doc)]
    pub fn raise_hand(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::hand(place, on, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Tells everybody that this member records the meeting, or has ended that. Newcomers have to be told again.
    #[allow(clippy::missing_errors_doc)]
    pub fn announce_recording(&mut self, now: Instant, on: bool) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, _| {
            let said = member.room.say(step, |place, key| Said::recording(place, on, key));
            if said { Ok(()) } else { Err(ActError::Disconnected) }
        })
    }

    /// Leaves. A leader hands over to the first co-host who is here; without one the meeting ends, since nobody could
    /// let anybody in or out.
    pub fn leave(&mut self, now: Instant) {
        if self.over {
            return;
        }
        let (part, mut step, identity) = self.step(now);
        if let Part::Member(member) = part {
            member.room.seal_now(&mut step);
            let heir = member.lead.as_ref().and_then(|lead| lead.successor(&member.room));
            match (&mut member.lead, heir) {
                (Some(lead), Some(heir)) => {
                    // Cannot be refused: the heir is in the line.
                    let _ = lead.hand_over(&mut step, &mut member.room, identity, heir);
                    let last_key = member.room.last_key();
                    if let Some(peer) = member.room.peers.get_mut(&heir) {
                        peer.send(&mut step, &last_key);
                        peer.send(&mut step, &Message::Leave);
                    }
                }
                (Some(lead), None) => {
                    let me = member.room.index();
                    lead.end(&mut step, &mut member.room, identity, me);
                }
                (None, _) => member.leave(&mut step),
            }
        }
        self.finish();
    }

    fn act(&mut self, now: Instant, verb: Verb, whom: Whom) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| member.act(step, identity, verb, whom))
    }

    fn do_as_member(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Member, &mut Step<'_>, &Identity) -> Result<(), ActError>,
    ) -> Result<(), ActError> {
        if self.over {
            return Err(ActError::NotInMeeting);
        }
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Member(member) => act(member, &mut step, identity),
            _ => Err(ActError::NotInMeeting),
        }
    }

    fn lead(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Leader, &mut Step<'_>, &mut Room, &Identity) -> Result<(), ActError>,
    ) -> Result<(), ActError> {
        self.do_as_member(now, |member, step, identity| match &mut member.lead {
            Some(lead) => act(lead, step, &mut member.room, identity),
            None if member.room.seat.rank(member.room.index()) == Rank::Host => Err(ActError::NotLeading),
            None => Err(ActError::NotHost),
        })
    }

    // ---- media ----

    /// Seals a frame into a whole datagram. When it ends a segment, [`Conference::poll_timeout`] is due at once: then
    /// the segment's seal is made.
    ///
    /// # Errors
    /// [`Exhausted`] when this member has no key to seal with.
    pub fn seal(&mut self, now: Instant, frame: &Frame<'_>, out: &mut [u8; DATAGRAM_LEN]) -> Result<(), Exhausted> {
        let Part::Member(member) = &mut self.part else { return Err(Exhausted) };
        member.room.seat.seal(now, frame, out)
    }

    /// Opens a datagram into `plaintext`. `Ok(None)` for a removal notice, which takes effect, and for a frame that is
    /// played only when its talker's seal has come: [`Conference::poll_verified`] gives it then.
    ///
    /// # Errors
    /// [`Dropped`]; nothing has changed then.
    pub fn open<'p>(
        &mut self,
        now: Instant,
        datagram: &[u8],
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
    ) -> Result<Option<(MemberIndex, Frame<'p>)>, Dropped> {
        let datagram = Datagram::parse(datagram).ok_or(Dropped::Malformed)?;
        let meeting = self.meeting();
        let Part::Member(member) = &mut self.part else { return Err(Dropped::UnknownKey) };
        let seat = &mut member.room.seat;
        match datagram.kind {
            Kind::Media => {
                let frame = seat.open(now, datagram.slot, datagram.body, plaintext, &mut self.kept.ring)?;
                Ok(frame.map(|frame| (datagram.slot, frame)))
            }
            Kind::Removal => {
                let notice = RemovalNotice::decode(datagram.body).map_err(|_| Dropped::Malformed)?;
                let authority = seat.leader_key().filter(|_| datagram.slot == seat.leader());
                let authority = authority.ok_or(Dropped::UnknownKey)?;
                notice.verify(meeting, &authority).map_err(|_| Dropped::Unauthentic)?;
                seat.on_removal(now, notice.epoch, &notice.removed);
                Ok(None)
            }
        }
    }

    /// The next frame that waited for its talker's seal and is listed in it. To be drained after every
    /// [`Conference::handle_control`]; of one talker in the order in which they were sent.
    pub fn poll_verified<'p>(&mut self, plaintext: &'p mut [u8; PLAINTEXT_LEN]) -> Option<(MemberIndex, Frame<'p>)> {
        self.seat_mut()?.next_vouched(plaintext)
    }

    // ---- inside ----

    fn step(&mut self, now: Instant) -> (&mut Part, Step<'_>, &Identity) {
        self.looked = now;
        let step = Step {
            now,
            wall: self.wall.at(now),
            relay: self.relay_clock.at(now),
            rng: self.rng.as_mut(),
            out: &mut self.out,
            kept: &mut self.kept,
        };
        (&mut self.part, step, &self.identity)
    }

    fn fail(&mut self, failure: Failure) {
        if !self.over {
            self.out.event(Event::Failed(failure));
        }
        self.finish();
    }

    fn note_end(&mut self) {
        let ends =
            |event: &Event| matches!(event, Event::Ended { .. } | Event::Failed(_) | Event::Removed | Event::Denied(_));
        if self.out.events.iter().any(ends) {
            self.finish();
        }
    }

    /// Nothing happens any more; what was said can be reported for a while.
    fn finish(&mut self) {
        self.over = true;
        self.kept.ring.on_end(self.looked);
    }
}

/// What the relay answers a report with.
fn answered(message: &FromRelay) -> Option<Event> {
    match *message {
        FromRelay::ReportTaken { id, receipt } => Some(Event::ReportAnswered { id, answer: Ok(receipt) }),
        FromRelay::ReportRefused { id, reason } => Some(Event::ReportAnswered { id, answer: Err(reason) }),
        _ => None,
    }
}

fn policy(waiting_room: WaitingRoom, passcode: bool) -> Policy {
    let policy = match waiting_room {
        WaitingRoom::Ask => Policy::DEFAULT,
        WaitingRoom::AdmitAll => Policy::DEFAULT.without_waiting_room(),
    };
    if passcode { policy.with_passcode() } else { policy }
}

fn first_entry(cert: IdCert, name: DisplayName) -> RosterEntry {
    let joined = Epoch::ZERO.next().unwrap_or(Epoch::ZERO);
    RosterEntry { index: MemberIndex::HOST, cert, joined, name }
}
