//! A whole conference as one state machine: the only entry point to the protocol for a client.
//!
//! One change, then drain: after every `handle_*` call or act, call [`Conference::poll_transmit`] and
//! [`Conference::poll_event`] until both are empty, and arm a timer for [`Conference::poll_timeout`].
//! [`Conference::seal`] and [`Conference::open`] are the media path: they allocate nothing and emit nothing.

mod acts;
mod door;
mod early;
mod entering;
mod epochs;
pub mod event;
mod gossip;
mod inbound;
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
mod views;

use crate::capability::Revoked;
use crate::descriptor::{Descriptor, Policy, Region};
use crate::epoch::roster::{Member as RosterEntry, Roster};
use crate::id::{Epoch, MemberIndex};
use crate::identity::{DisplayName, IdCert, Identity, Role};
use crate::link::{Link, LinkSecret, RelayAddress};
use crate::moderator::{MAX_MODERATORS, Moderator, moderators_digest};
use crate::noise::handshake::Passcode;
use crate::sframe::frame::{DATAGRAM_LEN, Frame, PLAINTEXT_LEN};
use crate::sframe::receiver::Dropped;
use crate::sframe::sender::Exhausted;
use crate::sign::KeyPair;
use crate::succession::Line;
use crate::time::{FrameDuration, UnixMillis, WallClock};
use crate::wire::codec::Wire;
use crate::wire::control::RemovalNotice;
use crate::wire::datagram::{Datagram, Kind};
use crate::wire::relay::ToRelay;
use entering::Entering;
use joiner::{JoinSecrets, Joiner};
use leader::Leader;
use member::{Member, Turn};
use outbox::{Kept, Outbox, Step};
use rand_core::CryptoRng;
use room::{NewRoom, Room};
use seat::{FreshValue, NewSeat, Seat};
use std::time::{Duration, Instant};

pub use event::{ActError, AlarmKind, Event, Failure, LeftWhy, Person, Transmit};

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

    /// Opens a datagram into `plaintext`. `Ok(None)` for a removal notice, which takes effect, and for a frame that waits:
    /// for the key of its epoch, or, in verified mode, for its talker's seal. [`Conference::poll_frame`] gives it then.
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

    /// The next frame that has waited long enough: its epoch's key has come, or its talker's seal, which lists it. With
    /// the time from which it counts for the playout: of the first its arrival, since the next one does not wait as long;
    /// of the second now, since all of that talker wait. To be drained after every [`Conference::handle_control`] and its
    /// events, which tell who has come.
    pub fn poll_frame<'p>(
        &mut self,
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
    ) -> Option<(MemberIndex, Frame<'p>, Instant)> {
        let now = self.looked;
        let Part::Member(member) = &mut self.part else { return None };
        let seat = &mut member.room.seat;
        if let Some((index, since)) = seat.next_early(now, plaintext, &mut self.kept.ring) {
            return Frame::read(plaintext).map(|frame| (index, frame, since));
        }
        seat.next_vouched(plaintext).map(|(index, frame)| (index, frame, now))
    }

    // ---- inside ----

    fn member(&self) -> Option<&Member> {
        match &self.part {
            Part::Member(member) => Some(member),
            _ => None,
        }
    }

    fn seat(&self) -> Option<&Seat> {
        self.member().map(|member| &member.room.seat)
    }

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
