//! A whole conference as one state machine: the only entry point to the protocol for a client.
//!
//! One change, then drain: after every `handle_*` call or act, call [`Conference::poll_transmit`] and
//! [`Conference::poll_event`] until both are empty, and arm a timer for [`Conference::poll_timeout`].
//! [`Conference::seal`] and [`Conference::open`] are the media path: they allocate nothing and emit nothing.

mod door;
pub mod event;
mod joiner;
mod leader;
mod mail;
mod member;
mod outbox;
mod peer;
mod seat;

use rand_core::CryptoRng;
use std::time::{Duration, Instant};

pub use event::{ActError, AlarmKind, Event, Failure, LeftWhy, Person, Transmit};

use crate::admission::lobby::KnockId;
use crate::capability::Revoked;
use crate::descriptor::{Descriptor, Policy, Region};
use crate::epoch::roster::{Member as RosterEntry, Roster};
use crate::epoch::statement::{ChainHash, Op, Rate};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::identity::{DisplayName, IdCert, Identity, Role, SafetyNumber};
use crate::link::{Link, LinkSecret, RelayAddress};
use crate::noise::handshake::{Context, Passcode};
use crate::sframe::frame::{DATAGRAM_LEN, Frame, PLAINTEXT_LEN};
use crate::sframe::receiver::Dropped;
use crate::sframe::sender::Exhausted;
use crate::sign::KeyPair;
use crate::time::{UnixMillis, WallClock};
use crate::wire::codec::Wire;
use crate::wire::control::{EpochAck, EpochKey, Message, RemovalNotice};
use crate::wire::datagram::{Datagram, Kind};
use crate::wire::relay::{FromRelay, Refusal, ToRelay};
use door::Door;
use joiner::{Entered, JoinSecrets, Joiner, Progress};
use leader::{Authority, Leader};
use member::Member;
use outbox::{Outbox, Step};
use seat::{FreshValue, NewSeat, Refused, Seat};

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
    /// Regions whose relays may carry it; empty for any.
    pub regions: Vec<Region>,
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

#[allow(clippy::large_enum_variant)] // One per process; boxing the largest would buy nothing.
enum Part {
    Host { leader: Leader, seat: Seat, link: Link },
    Guest(Joiner),
    Member { member: Member, link: Link },
}

/// A conference, as its host, a guest or a member.
pub struct Conference {
    part: Part,
    identity: Identity,
    wall: WallClock,
    relay_clock: WallClock,
    exporter: Option<[u8; 32]>,
    attached: bool,
    over: bool,
    revoked: Option<Revoked>,
    rng: Box<dyn CryptoRng + Send>,
    out: Outbox,
}

impl Conference {
    /// Makes a meeting. The host is alone in its first epoch at once; [`Conference::link`] invites others.
    pub fn host(config: HostConfig, start: Start, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        let HostConfig { relays, identity, name, passcode, waiting_room, max_members, duration, regions } = config;
        let secrets = JoinSecrets::draw(rng.as_mut());
        let authority_key = KeyPair::generate(rng.as_mut());
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let mut chain = [0; 16];
        rng.fill_bytes(&mut chain);
        let keys = secrets.public();
        let descriptor = Descriptor {
            hs: keys.session,
            authority: authority_key.public(),
            not_before: start.wall.minus(DESCRIPTOR_SLACK),
            not_after: start.wall.plus(duration),
            policy: policy(waiting_room, passcode.is_some()),
            frame_ms: 20,
            max_members,
            nonce,
            moderator: [0; 32],
            regions,
        };
        let meeting = descriptor.meeting_id();
        let link = Link { relays, meeting, secret: LinkSecret::generate(rng.as_mut()) };
        let cert = identity.certify(meeting, Role::Host, keys, descriptor.not_after);
        let context = Context { meeting, descriptor: descriptor.clone(), psk0: link.secret.psk0(meeting) };
        let JoinSecrets { session, routing, .. } = secrets;
        let door = Door::new(start.now, context, session, cert, name.clone(), passcode);
        let knock_token = link.secret.knock_token(meeting);
        let authority =
            Authority { meeting, descriptor: descriptor.clone(), key: authority_key, chain, knock_token, routing };
        let mut leader = Leader::new(start.now, authority, door);
        let fresh = FreshValue::draw(meeting, rng.as_mut());
        let index = MemberIndex::HOST;
        let new = NewSeat { meeting, descriptor, index, cert, fresh, roster: Roster::default() };
        let mut seat = Seat::new(new);
        let clock = WallClock::new(start.now, start.wall);
        let mut out = Outbox::default();
        let mut step = Step { now: start.now, wall: start.wall, relay: start.wall, rng: rng.as_mut(), out: &mut out };
        leader.begin(&mut step, &mut seat, &identity, first_entry(cert, name));
        let part = Part::Host { leader, seat, link };
        Self::new(part, identity, clock, rng, out)
    }

    /// Sets out to join a meeting.
    pub fn join(config: JoinConfig, start: Start, mut rng: Box<dyn CryptoRng + Send>) -> Self {
        let JoinConfig { link, identity, name, passcode } = config;
        let joiner = Joiner::new(link, name, passcode, rng.as_mut());
        let clock = WallClock::new(start.now, start.wall);
        Self::new(Part::Guest(joiner), identity, clock, rng, Outbox::default())
    }

    fn new(part: Part, identity: Identity, wall: WallClock, rng: Box<dyn CryptoRng + Send>, out: Outbox) -> Self {
        Self {
            part,
            identity,
            wall,
            relay_clock: wall,
            exporter: None,
            attached: false,
            over: false,
            revoked: None,
            rng,
            out,
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
            return None;
        }
        let next = match &self.part {
            Part::Host { leader, seat, .. } => {
                [leader.poll_timeout(seat), seat.poll_timeout()].into_iter().flatten().min()
            }
            Part::Guest(joiner) => joiner.poll_timeout(),
            Part::Member { member, .. } => member.poll_timeout(),
        };
        [next, self.end_due()].into_iter().flatten().min()
    }

    /// When the meeting's time is over by this side's clock.
    fn end_due(&self) -> Option<Instant> {
        let not_after = match &self.part {
            Part::Host { seat, .. } => seat.descriptor().not_after,
            Part::Guest(joiner) => joiner.descriptor()?.not_after,
            Part::Member { member, .. } => member.not_after(),
        };
        self.wall.when(not_after)
    }

    /// The meeting's link, to invite others.
    pub fn link(&self) -> &Link {
        match &self.part {
            Part::Host { link, .. } | Part::Member { link, .. } => link,
            Part::Guest(joiner) => joiner.link(),
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

    /// Everybody who holds this epoch's key, this member included.
    pub fn members(&self) -> impl Iterator<Item = &RosterEntry> {
        self.seat().into_iter().flat_map(|seat| seat.roster().members())
    }

    /// The safety number of this member and another.
    pub fn safety_number(&self, other: &RosterEntry) -> SafetyNumber {
        SafetyNumber::of(&self.identity.public(), &other.cert.identity)
    }

    /// To the host: everybody who waits, oldest first.
    pub fn knocks(&self) -> Vec<(KnockId, DisplayName)> {
        match &self.part {
            Part::Host { leader, .. } => leader.knocks().map(|(id, guest)| (id, guest.name.clone())).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether media can be sent: in the meeting, and known to the relay.
    pub fn can_send(&self) -> bool {
        self.attached && !self.over && self.seat().is_some()
    }

    /// The value this member committed to before the current epoch, for the security code.
    pub fn revealed(&self) -> Option<&[u8; 32]> {
        self.seat().and_then(Seat::revealed)
    }

    fn seat(&self) -> Option<&Seat> {
        match &self.part {
            Part::Host { seat, .. } => Some(seat),
            Part::Guest(_) => None,
            Part::Member { member, .. } => member.seat(),
        }
    }

    fn seat_mut(&mut self) -> Option<&mut Seat> {
        match &mut self.part {
            Part::Host { seat, .. } => Some(seat),
            Part::Guest(_) => None,
            Part::Member { member, .. } => member.seat_mut(),
        }
    }

    // ---- what happens ----

    /// A connection to a relay is up. `exporter` is its TLS exporter under [`crate::label::EXPORTER`].
    pub fn connected(&mut self, _now: Instant, exporter: [u8; 32]) {
        self.exporter = Some(exporter);
        self.attached = false;
        let (meeting, descriptor) = match &mut self.part {
            Part::Host { seat, link, leader } => {
                leader.on_connecting();
                (link.meeting, Some(seat.descriptor().clone()))
            }
            Part::Guest(joiner) => (joiner.link().meeting, joiner.descriptor().cloned()),
            Part::Member { member, link } => (link.meeting, member.seat().map(|s| s.descriptor().clone())),
        };
        self.out.control(&ToRelay::Hello { meeting, descriptor, revoked: self.revoked.clone() });
    }

    /// A control message from the relay.
    pub fn handle_control(&mut self, now: Instant, message: &[u8]) {
        if self.over {
            return;
        }
        match FromRelay::decode(message) {
            Ok(message) => self.on_relay(now, message),
            Err(_) => self.fail(Failure::Relay),
        }
    }

    fn on_relay(&mut self, now: Instant, message: FromRelay) {
        match message {
            FromRelay::Welcome { time, .. } => self.on_welcome(now, time),
            FromRelay::Meeting { descriptor } => self.guest(now, |j, step, _| j.on_meeting(step, &descriptor)),
            FromRelay::MailboxOpen => self.guest(now, |j, step, _| j.on_mailbox_open(step)),
            FromRelay::Mail { bytes } => self.on_mail(now, &bytes),
            FromRelay::MailFrom { mailbox, bytes } => {
                self.lead(now, |leader, step, seat, identity| leader.on_mail(step, mailbox, &bytes, seat, identity));
            }
            FromRelay::MailboxGone { mailbox } => {
                self.lead(now, |leader, step, _, _| leader.on_mailbox_gone(step, mailbox));
            }
            FromRelay::Attached { .. } => self.on_attached(now),
            FromRelay::Deliver { from, bytes } => self.on_deliver(now, from, &bytes),
            FromRelay::Presence { slot, here } => {
                self.lead(now, |leader, step, _, _| leader.on_presence(step, slot, here));
            }
            FromRelay::Revoked { revoked } => self.on_revoked(revoked),
            FromRelay::Refused { reason } => self.on_refused(now, reason),
            FromRelay::Detached { reason } => self.on_detached(reason),
            FromRelay::Closing => self.out.event(Event::RelayClosing),
        }
    }

    fn on_welcome(&mut self, now: Instant, time: UnixMillis) {
        self.relay_clock = WallClock::new(now, time);
        let exporter = self.exporter;
        let (part, mut step, _) = self.step(now);
        match (part, exporter) {
            (Part::Host { leader, .. }, Some(exporter)) => leader.attach(&mut step, &exporter),
            (Part::Guest(joiner), _) => joiner.on_welcome(&step),
            _ => {}
        }
    }

    fn on_attached(&mut self, now: Instant) {
        self.attached = true;
        let (part, mut step, _) = self.step(now);
        match part {
            Part::Host { leader, .. } => leader.on_attached(&mut step),
            Part::Member { member, .. } => member.on_attached(&mut step),
            Part::Guest(_) => {}
        }
    }

    fn on_mail(&mut self, now: Instant, bytes: &[u8]) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, step, identity| joiner.on_mail(step, bytes, identity)),
            // The leader goes on using the mailbox until it has heard that this member took its slot.
            Part::Member { .. } => self.on_leader_packet(now, bytes),
            Part::Host { .. } => {}
        }
    }

    fn on_deliver(&mut self, now: Instant, from: MemberIndex, bytes: &[u8]) {
        match &self.part {
            Part::Host { .. } => self.lead(now, |leader, step, seat, _| leader.on_packet(step, from, bytes, seat)),
            Part::Member { .. } if from == MemberIndex::HOST => self.on_leader_packet(now, bytes),
            _ => {}
        }
    }

    fn on_leader_packet(&mut self, now: Instant, packet: &[u8]) {
        let exporter = self.exporter;
        let (part, mut step, identity) = self.step(now);
        if let Part::Member { member, .. } = part {
            member.on_packet(&mut step, packet, identity, exporter.as_ref());
        }
        self.note_end();
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
                self.out.event(Event::Denied(denial));
                self.over = true;
            }
            Message::Admitted { index, capability } => {
                let exporter = self.exporter;
                let (part, mut step, _) = self.step(now);
                let Part::Guest(joiner) = part else { return };
                let Some(entered) = joiner.enter(step.rng) else { return };
                let link = joiner.link().duplicate();
                let member = enter(&mut step, &link, index, entered, capability, exporter.as_ref());
                self.part = Part::Member { member, link };
            }
            _ => {}
        }
    }

    /// Runs a step of the leader.
    fn lead(&mut self, now: Instant, act: impl FnOnce(&mut Leader, &mut Step<'_>, &mut Seat, &Identity)) {
        let (part, mut step, identity) = self.step(now);
        if let Part::Host { leader, seat, .. } = part {
            act(leader, &mut step, seat, identity);
        }
    }

    fn on_revoked(&mut self, revoked: Revoked) {
        let Some(seat) = self.seat() else { return };
        if revoked.verify(&seat.descriptor().authority, self.meeting()).is_err() {
            let detail = "the relay shows a revocation that the host did not sign";
            return self.out.event(Event::Alarm { kind: AlarmKind::ForgedNotice, index: None, detail });
        }
        if revoked.slots.contains(&seat.index()) {
            self.out.event(Event::Removed);
            self.over = true;
        } else if self.revoked.as_ref().is_none_or(|old| old.seq < revoked.seq) {
            self.revoked = Some(revoked);
        }
    }

    fn on_refused(&mut self, now: Instant, reason: Refusal) {
        match &self.part {
            Part::Guest(_) => self.guest(now, |joiner, _, _| joiner.on_refused(reason)),
            _ if matches!(reason, Refusal::TooFast | Refusal::NotAllowed) => {}
            _ => self.fail(Failure::Detached),
        }
    }

    fn on_detached(&mut self, reason: Refusal) {
        match reason {
            Refusal::Replaced => self.fail(Failure::Replaced),
            _ => self.fail(Failure::Detached),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if self.end_due().is_some_and(|due| due <= now) {
            return self.on_time_over(now);
        }
        let exporter = self.exporter.filter(|_| self.attached);
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Host { leader, seat, .. } => {
                leader.handle_timeout(&mut step, seat, identity, exporter.as_ref());
                seat.handle_timeout(now);
            }
            Part::Guest(joiner) => joiner.handle_timeout(&mut step),
            Part::Member { member, .. } => member.handle_timeout(&mut step),
        }
    }

    /// The leader tells everybody; the others need not wait for its word (`docs/protocol.md` §3.1).
    fn on_time_over(&mut self, now: Instant) {
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Host { leader, seat, .. } => leader.close(&mut step, seat, identity),
            Part::Guest(_) => step.out.event(Event::Failed(Failure::NotNow)),
            Part::Member { .. } => step.out.event(Event::Ended { by: MemberIndex::HOST }),
        }
        self.over = true;
    }

    // ---- what the user does ----

    /// Lets somebody in.
    ///
    /// # Errors
    /// [`ActError`]; likewise in every act below. Nothing has changed then.
    pub fn admit(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, |leader, step, seat, identity| {
            leader.admit(knock)?;
            step.out.event(Event::KnockGone { id: knock });
            leader.handle_timeout(step, seat, identity, None);
            Ok(())
        })
    }

    /// Lets everybody in who waits; gives how many.
    #[allow(clippy::missing_errors_doc)]
    pub fn admit_all(&mut self, now: Instant) -> Result<usize, ActError> {
        let knocks = self.knocks();
        self.act(now, |_, _, _, _| Ok(()))?;
        for (knock, _) in &knocks {
            self.admit(now, *knock)?;
        }
        Ok(knocks.len())
    }

    /// Turns somebody down; the second time for good.
    #[allow(clippy::missing_errors_doc)]
    pub fn deny(&mut self, now: Instant, knock: KnockId) -> Result<(), ActError> {
        self.act(now, |leader, step, _, _| leader.deny(step, knock))
    }

    /// Puts a member out, at once and for this meeting.
    #[allow(clippy::missing_errors_doc)]
    pub fn remove(&mut self, now: Instant, index: MemberIndex) -> Result<(), ActError> {
        self.act(now, |leader, step, seat, identity| leader.remove(step, seat, identity, index))
    }

    /// Ends the meeting for everybody.
    #[allow(clippy::missing_errors_doc)]
    pub fn end(&mut self, now: Instant) -> Result<(), ActError> {
        self.act(now, |leader, step, seat, identity| {
            leader.end(step, seat, identity);
            Ok(())
        })?;
        self.note_end();
        Ok(())
    }

    /// Leaves. A host who leaves ends the meeting: until there is a line of succession nobody could go on.
    pub fn leave(&mut self, now: Instant) {
        if self.over {
            return;
        }
        if self.end(now).is_err() {
            let (part, mut step, _) = self.step(now);
            if let Part::Member { member, .. } = part {
                member.leave(&mut step);
            }
        }
        self.over = true;
    }

    fn act<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Leader, &mut Step<'_>, &mut Seat, &Identity) -> Result<T, ActError>,
    ) -> Result<T, ActError> {
        if self.over {
            return Err(ActError::NotInMeeting);
        }
        let (part, mut step, identity) = self.step(now);
        match part {
            Part::Host { leader, seat, .. } => act(leader, &mut step, seat, identity),
            _ => Err(ActError::NotHost),
        }
    }

    // ---- media ----

    /// Seals a frame into a whole datagram.
    ///
    /// # Errors
    /// [`Exhausted`] when this member has no key to seal with.
    pub fn seal(&mut self, frame: &Frame<'_>, out: &mut [u8; DATAGRAM_LEN]) -> Result<(), Exhausted> {
        self.seat_mut().ok_or(Exhausted)?.seal(frame, out)
    }

    /// Opens a datagram into `plaintext`. `Ok(None)` for a removal notice, which takes effect.
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
        let seat = self.seat_mut().ok_or(Dropped::UnknownKey)?;
        match datagram.kind {
            Kind::Media => {
                let frame = seat.open(now, datagram.slot, datagram.body, plaintext)?;
                Ok(Some((datagram.slot, frame)))
            }
            Kind::Removal => {
                let notice = RemovalNotice::decode(datagram.body).map_err(|_| Dropped::Malformed)?;
                let authority = seat.descriptor().authority;
                notice.verify(meeting, &authority).map_err(|_| Dropped::Unauthentic)?;
                seat.on_removal(now, notice.epoch, &notice.removed);
                Ok(None)
            }
        }
    }

    // ---- inside ----

    fn step(&mut self, now: Instant) -> (&mut Part, Step<'_>, &Identity) {
        let step = Step {
            now,
            wall: self.wall.at(now),
            relay: self.relay_clock.at(now),
            rng: self.rng.as_mut(),
            out: &mut self.out,
        };
        (&mut self.part, step, &self.identity)
    }

    fn fail(&mut self, failure: Failure) {
        if !std::mem::replace(&mut self.over, true) {
            self.out.event(Event::Failed(failure));
        }
    }

    fn note_end(&mut self) {
        self.over |= self.out.events.iter().any(|e| matches!(e, Event::Ended { .. } | Event::Failed(_)));
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

fn enter(
    step: &mut Step<'_>,
    link: &Link,
    index: MemberIndex,
    entered: Entered,
    capability: crate::capability::SignedCapability,
    exporter: Option<&[u8; 32]>,
) -> Member {
    let member = Member::new(link.meeting, index, entered);
    if let Some(exporter) = exporter {
        member.attach(step, capability, exporter);
    }
    member
}

/// Takes a seat to the epoch of `key`, tells what changed, and gives the acknowledgement; `None` after an alarm.
fn follow(step: &mut Step<'_>, seat: &mut Seat, identity: &Identity, key: EpochKey) -> Option<EpochAck> {
    let leader = key.statement.leader;
    match seat.accept(step.now, step.wall, key, identity, step.rng) {
        Err(Refused { kind, detail }) => {
            step.out.event(Event::Alarm { kind, index: Some(leader), detail });
            None
        }
        Ok(accepted) => {
            for member in &accepted.departed {
                let why = accepted.ops.iter().find_map(|op| match *op {
                    Op::Remove(index) if index == member.index => Some(LeftWhy::Removed),
                    Op::Lost(index) if index == member.index => Some(LeftWhy::Lost),
                    Op::Leave(index) if index == member.index => Some(LeftWhy::Left),
                    _ => None,
                });
                let why = why.unwrap_or(LeftWhy::Left);
                step.out.event(Event::Left { index: member.index, name: member.name.clone(), why });
            }
            for member in accepted.admitted.iter().filter(|m| m.index != seat.index()) {
                step.out.event(Event::Joined { index: member.index, name: member.name.clone() });
            }
            step.out.event(Event::Roster { epoch: seat.epoch() });
            if accepted.ops.contains(&Op::OpenRate) {
                step.out.event(Event::OpenRate);
            }
            if accepted.ops.contains(&Op::End) {
                step.out.event(Event::Ended { by: leader });
            }
            Some(accepted.ack)
        }
    }
}
