//! The leader: lets people in and out, makes epochs, and hands out keys and capabilities.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::door::{Door, Opened};
use super::event::{ActError, AlarmKind, Event, Failure, Person};
use super::mail::Mail;
use super::outbox::Step;
use super::peer::{self, Peer};
use super::seat::{NO_COMMITMENT, Seat};
use crate::admission::lobby::{Admission, KnockId, Knocked, Lobby};
use crate::capability::{CLOCK_TOLERANCE, KnockGate, KnockToken, Revoked, Rights};
use crate::descriptor::Descriptor;
use crate::epoch::merkle;
use crate::epoch::roster::{Member, Roster, commitment_leaf};
use crate::epoch::schedule;
use crate::epoch::statement::{ChainHash, MAX_OPS, Op, Rate, Statement, ops_hash};
use crate::id::{Epoch, MeetingId, MemberIndex, Term};
use crate::identity::{Identity, SafetyNumber};
use crate::noise::session::{Session, SessionId};
use crate::sign::KeyPair;
use crate::time::UnixMillis;
use crate::wire::codec::Wire;
use crate::wire::control::{Denial, EpochAck, EpochKey, MAX_MEMBERS_PER_MESSAGE, Message, RemovalNotice};
use crate::wire::datagram::{self, Kind};
use crate::wire::relay::{MailboxId, ToRelay};

/// Shortest time between two epochs of which neither is a removal: joins that come together share one.
const BATCH: Duration = Duration::from_millis(500);
/// Longest life of an epoch.
const PERIOD: Duration = Duration::from_secs(120);
/// Longest wait for acknowledgements before everybody is told to use the new key.
const ACTIVATE_AFTER: Duration = Duration::from_secs(1);
/// Most members who go with one epoch, removals first; the others follow with the next. Leaves room in the list of
/// acts for those who come, a change of rate and the end.
const MAX_DEPARTURES: usize = MAX_OPS - MAX_MEMBERS_PER_MESSAGE - 2;
/// A removal notice is sent this often, this far apart (DESIGN §12).
const NOTICES: u32 = 3;
const NOTICE_GAP: Duration = Duration::from_millis(20);
/// With this many members the meeting changes to the open rate, for good (DESIGN §7).
const OPEN_RATE_FROM: usize = 17;

/// The keys and promises of a meeting that only its host has.
pub(super) struct Authority {
    pub(super) meeting: MeetingId,
    pub(super) descriptor: Descriptor,
    pub(super) key: KeyPair,
    pub(super) chain: [u8; 16],
    pub(super) knock_token: KnockToken,
    pub(super) routing: KeyPair,
}

/// The leader's part of a conference.
pub(super) struct Leader {
    authority: Authority,
    door: Door,
    lobby: Lobby,
    peers: BTreeMap<MemberIndex, Peer>,
    sessions: BTreeMap<SessionId, MemberIndex>,
    next_index: u32,
    admissions: VecDeque<Admission>,
    departures: Vec<Op>,
    last_change: Instant,
    activate_due: Option<Instant>,
    revoked: BTreeMap<MemberIndex, UnixMillis>,
    revoked_seq: u32,
    notices: VecDeque<(Instant, Vec<u8>)>,
    serial: u32,
    renew_due: Option<Instant>,
    gate_sent: bool,
}

/// A change of the meeting that one epoch carries out.
struct Change {
    departures: Vec<Op>,
    admissions: Vec<Admission>,
    last: Option<Op>,
}

struct Newcomer {
    member: Member,
    session: Session,
    mailbox: MailboxId,
    commitment: [u8; 32],
}

impl Leader {
    pub(super) fn new(now: Instant, authority: Authority, door: Door) -> Self {
        Self {
            authority,
            door,
            lobby: Lobby::default(),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_index: 0,
            admissions: VecDeque::new(),
            departures: Vec::new(),
            last_change: now,
            activate_due: None,
            revoked: BTreeMap::new(),
            revoked_seq: 0,
            notices: VecDeque::new(),
            serial: 0,
            renew_due: None,
            gate_sent: false,
        }
    }

    // ---- what the relay brings ----

    /// Takes (or renews) the leader's own slot.
    pub(super) fn attach(&mut self, step: &mut Step<'_>, exporter: &[u8; 32]) {
        self.serial = self.serial.wrapping_add(1);
        let rk = self.authority.routing.public();
        let meeting = self.authority.meeting;
        let capability = peer::issue(step.relay, meeting, MemberIndex::HOST, rk, Rights::LEADER, self.serial);
        let capability = capability.sign(&self.authority.key);
        let possession = capability.prove(&self.authority.routing, exporter);
        step.out.control(&ToRelay::Attach { capability, possession });
        self.renew_due = Some(step.now + peer::RENEW_EVERY);
    }

    /// Another connection: its relay may know neither slot nor gate.
    pub(super) fn on_connecting(&mut self) {
        self.renew_due = None;
        self.gate_sent = false;
    }

    /// The leader's slot is taken: opens the gate for guests.
    pub(super) fn on_attached(&mut self, step: &mut Step<'_>) {
        if !std::mem::replace(&mut self.gate_sent, true) {
            let Authority { meeting, knock_token, key, .. } = &self.authority;
            step.out.control(&ToRelay::Gate { gate: KnockGate::sign(*meeting, 1, knock_token, key) });
        }
    }

    pub(super) fn on_mail(
        &mut self,
        step: &mut Step<'_>,
        mailbox: MailboxId,
        bytes: &[u8],
        seat: &mut Seat,
        identity: &Identity,
    ) {
        let Some(mail) = Mail::parse(bytes) else { return };
        if let Mail::Session(packet) = mail {
            return self.on_guest_packet(step, mailbox, packet, seat);
        }
        match self.door.handle_mail(step.now, step.wall, mailbox, mail, step.rng) {
            Opened::Nothing => {}
            Opened::Reply(reply) => step.out.mail_to(mailbox, reply),
            Opened::Knocker(knocker) => {
                let knocked = self.lobby.knock(step.now, mailbox, *knocker);
                self.on_knocked(step, knocked, identity);
            }
        }
        self.draw_handshakes(step);
    }

    fn on_knocked(&mut self, step: &mut Step<'_>, knocked: Knocked, identity: &Identity) {
        let (id, replaced) = match knocked {
            Knocked::Waits { id, replaced } => (id, replaced),
            Knocked::Blocked(guest) => return answer(step, guest.mailbox, guest.session, Denial::Blocked),
            Knocked::Full(guest) => return answer(step, guest.mailbox, guest.session, Denial::Full),
        };
        if let Some(replaced) = replaced {
            step.out.event(Event::KnockGone { id: replaced });
        }
        let Some((person, mailbox)) = self.lobby.guest(id).map(|guest| {
            let safety_number = SafetyNumber::of(&identity.public(), &guest.cert.identity);
            let (identity, kind) = (guest.cert.identity, guest.cert.kind);
            (Person { name: guest.name.clone(), identity, kind, safety_number }, guest.mailbox)
        }) else {
            return;
        };
        if !self.authority.descriptor.policy.has_waiting_room() {
            if self.admit(id).is_err() {
                self.refuse(step, id, Denial::Full);
            }
            return;
        }
        if let Some(guest) = self.lobby.by_mailbox(mailbox)
            && let Ok(packet) = guest.session.send(step.now, &Message::Waiting)
        {
            step.out.mail_to(mailbox, packet);
        }
        step.out.event(Event::Knock { id, person });
    }

    fn on_guest_packet(&mut self, step: &mut Step<'_>, mailbox: MailboxId, packet: &[u8], seat: &mut Seat) {
        if let Some(guest) = self.lobby.by_mailbox(mailbox) {
            // A guest has nothing to say but acknowledgements and good-bye, which its mailbox tells as well.
            let _ = guest.session.receive(step.now, packet);
        } else if let Some(index) = Session::id_of(packet).and_then(|id| self.sessions.get(&id)).copied() {
            self.on_packet(step, index, packet, seat);
        }
    }

    /// A session packet of a member.
    pub(super) fn on_packet(&mut self, step: &mut Step<'_>, from: MemberIndex, packet: &[u8], seat: &mut Seat) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Ok(Some(message)) = peer.session().receive(step.now, packet) else { return };
        match message {
            Message::EpochAck(ack) => self.on_acknowledged(step, from, &ack, seat),
            Message::Leave => self.depart(step, Op::Leave(from)),
            _ => {}
        }
    }

    fn on_acknowledged(&mut self, step: &mut Step<'_>, from: MemberIndex, ack: &EpochAck, seat: &mut Seat) {
        let (Some(peer), Some(chain)) = (self.peers.get_mut(&from), seat.chain_hash()) else { return };
        // An acknowledgement that the next epoch overtook has nothing left to say.
        if ack.epoch != seat.epoch() {
            return;
        }
        if ack.verify(&chain, peer.identity()).is_err() {
            let detail = "a member acknowledges another history than this one";
            step.out.event(Event::Alarm { kind: AlarmKind::BadAcknowledgement, index: Some(from), detail });
            return;
        }
        peer.on_acknowledged(ack.epoch, ack.commitment);
        if self.activate_due.is_some() && self.peers.values().all(|p| p.has_acknowledged(ack.epoch)) {
            self.activate(step, seat);
        }
    }

    pub(super) fn on_mailbox_gone(&mut self, step: &mut Step<'_>, mailbox: MailboxId) {
        self.door.on_mailbox_gone(mailbox);
        if let Some(id) = self.lobby.withdraw(mailbox) {
            step.out.event(Event::KnockGone { id });
        }
        self.draw_handshakes(step);
    }

    pub(super) fn on_presence(&mut self, step: &mut Step<'_>, slot: MemberIndex, here: bool) {
        if let Some(peer) = self.peers.get_mut(&slot) {
            peer.on_presence(step, here);
        }
    }

    // ---- what the host does ----

    /// Lets somebody in with the next epoch.
    pub(super) fn admit(&mut self, id: KnockId) -> Result<(), ActError> {
        if self.lobby.guest(id).is_none() {
            return Err(ActError::NoSuchKnock);
        }
        let expected = self.peers.len() + 1 + self.admissions.len();
        let indexes_left = self.next_index + (self.admissions.len() as u32) <= u32::from(MemberIndex::MAX.0);
        if expected >= usize::from(self.authority.descriptor.max_members) || !indexes_left {
            return Err(ActError::Full);
        }
        let admission = self.lobby.admit(id).ok_or(ActError::NoSuchKnock)?;
        self.admissions.push_back(admission);
        Ok(())
    }

    /// Refuses a knock; the second time for good.
    pub(super) fn deny(&mut self, step: &mut Step<'_>, id: KnockId) -> Result<(), ActError> {
        let (guest, blocked) = self.lobby.deny(id).ok_or(ActError::NoSuchKnock)?;
        let denial = if blocked { Denial::Blocked } else { Denial::Denied };
        answer(step, guest.mailbox, guest.session, denial);
        step.out.event(Event::KnockGone { id });
        Ok(())
    }

    fn refuse(&mut self, step: &mut Step<'_>, id: KnockId, denial: Denial) {
        if let Some(guest) = self.lobby.admit(id).map(Admission::into_guest) {
            answer(step, guest.mailbox, guest.session, denial);
        }
    }

    /// Everybody who waits, oldest first.
    pub(super) fn knocks(&self) -> impl Iterator<Item = (KnockId, &crate::admission::lobby::Waiting)> {
        self.lobby.waiting()
    }

    /// Puts a member out, now.
    pub(super) fn remove(
        &mut self,
        step: &mut Step<'_>,
        seat: &mut Seat,
        identity: &Identity,
        index: MemberIndex,
    ) -> Result<(), ActError> {
        if index == MemberIndex::HOST {
            return Err(ActError::Yourself);
        }
        let member = seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        self.lobby.block(member.cert.identity);
        match self.departures.iter_mut().find(|op| op.departing() == Some(index)) {
            // It was going anyway; now it is put out, with all that a removal hurries.
            Some(op) => *op = Op::Remove(index),
            None => self.depart(step, Op::Remove(index)),
        }
        self.change(step, seat, identity, None);
        Ok(())
    }

    /// Ends the meeting for everybody.
    pub(super) fn end(&mut self, step: &mut Step<'_>, seat: &mut Seat, identity: &Identity) {
        self.change(step, seat, identity, Some(Op::End));
    }

    /// The meeting's time is over: turns down everybody who is not in it yet, and ends it for the others. The last
    /// epoch admits nobody, because certificates may end with the meeting.
    pub(super) fn close(&mut self, step: &mut Step<'_>, seat: &mut Seat, identity: &Identity) {
        for guest in std::mem::take(&mut self.admissions).into_iter().map(Admission::into_guest) {
            answer(step, guest.mailbox, guest.session, Denial::Expired);
        }
        let waiting: Vec<KnockId> = self.lobby.waiting().map(|(id, _)| id).collect();
        for id in waiting {
            self.refuse(step, id, Denial::Expired);
            step.out.event(Event::KnockGone { id });
        }
        self.end(step, seat, identity);
    }

    /// Takes a member out of everything at once; the next epoch says so to the others.
    fn depart(&mut self, step: &mut Step<'_>, op: Op) {
        let Some(index) = op.departing() else { return };
        let Some(peer) = self.peers.remove(&index) else { return };
        self.sessions.retain(|_, member| *member != index);
        self.departures.push(op);
        self.revoked.insert(index, peer.capability_until);
        let relay = step.relay;
        self.revoked.retain(|_, until| until.plus(CLOCK_TOLERANCE) > relay);
        self.revoked_seq += 1;
        let slots = self.revoked.keys().copied().take(Revoked::MAX_SLOTS).collect();
        let revoked = Revoked::sign(self.authority.meeting, self.revoked_seq, slots, &self.authority.key);
        step.out.control(&ToRelay::Revoke { revoked });
    }

    // ---- time ----

    pub(super) fn handle_timeout(
        &mut self,
        step: &mut Step<'_>,
        seat: &mut Seat,
        identity: &Identity,
        exporter: Option<&[u8; 32]>,
    ) {
        while let Some((_, notice)) = self.notices.pop_front_if(|(due, _)| *due <= step.now) {
            step.out.datagram(notice);
        }
        if let Some(exporter) = exporter.filter(|_| self.renew_due.is_some_and(|due| due <= step.now)) {
            self.attach(step, exporter);
        }
        self.draw_handshakes(step);
        self.run_lobby(step);
        self.run_peers(step);
        if self.activate_due.is_some_and(|due| due <= step.now) {
            self.activate(step, seat);
        }
        if self.change_due(seat).is_some_and(|due| due <= step.now) {
            self.change(step, seat, identity, None);
        }
    }

    pub(super) fn poll_timeout(&self, seat: &Seat) -> Option<Instant> {
        let lobby = self.lobby.waiting().filter_map(|(_, guest)| guest.session.poll_timeout()).min();
        let peers = self.peers.values().filter_map(Peer::poll_timeout).min();
        let notice = self.notices.front().map(|(due, _)| *due);
        let change = self.change_due(seat);
        let door = self.door.poll_timeout();
        [lobby, peers, notice, change, door, self.lobby.next_expiry(), self.activate_due, self.renew_due]
            .into_iter()
            .flatten()
            .min()
    }

    fn draw_handshakes(&mut self, step: &mut Step<'_>) {
        for (mailbox, reply) in self.door.handle_timeout(step.now, step.rng) {
            step.out.mail_to(mailbox, reply);
        }
    }

    fn run_lobby(&mut self, step: &mut Step<'_>) {
        for (id, guest) in self.lobby.expire(step.now) {
            answer(step, guest.mailbox, guest.session, Denial::Expired);
            step.out.event(Event::KnockGone { id });
        }
        for (mailbox, session) in self.lobby.sessions() {
            let mut packets = Vec::new();
            // A guest that never acknowledges only fills its own session, which ends with the knock.
            let _ = session.handle_timeout(step.now, &mut packets);
            packets.into_iter().for_each(|packet| step.out.mail_to(mailbox, packet));
        }
    }

    fn run_peers(&mut self, step: &mut Step<'_>) {
        let mut lost = Vec::new();
        for (index, peer) in &mut self.peers {
            let mut alive = peer.handle_timeout(step).is_ok();
            if peer.is_renewal_due(step.now) {
                let capability = peer.next_capability(step, self.authority.meeting, &self.authority.key);
                alive &= peer.send(step, &Message::Renew(capability));
            }
            if !alive || peer.is_lost(step.now) {
                lost.push(*index);
            }
        }
        lost.into_iter().for_each(|index| self.depart(step, Op::Lost(index)));
    }

    /// When the next epoch is to be made.
    fn change_due(&self, seat: &Seat) -> Option<Instant> {
        if seat.epoch() == Epoch::ZERO {
            return None;
        }
        let batched = self.last_change + BATCH;
        let pending = !self.admissions.is_empty() || !self.departures.is_empty();
        // Until everybody uses the last epoch's key, the next change waits for the activation that is due.
        let batched = self.activate_due.map_or(batched, |due| due.max(batched));
        Some(if pending { batched } else { self.last_change + PERIOD })
    }

    fn activate(&mut self, step: &mut Step<'_>, seat: &mut Seat) {
        self.activate_due = None;
        let epoch = seat.epoch();
        for peer in self.peers.values_mut() {
            peer.send(step, &Message::Activate(epoch));
        }
        seat.activate(step.now, epoch);
    }

    // ---- epochs ----

    /// Makes the first epoch, with the host alone in it.
    pub(super) fn begin(&mut self, step: &mut Step<'_>, seat: &mut Seat, identity: &Identity, host: Member) {
        self.next_index = u32::from(host.index.0) + 1;
        self.make_epoch(step, seat, identity, vec![Op::Admit(host.index)], &[], vec![host], Vec::new());
    }

    fn change(&mut self, step: &mut Step<'_>, seat: &mut Seat, identity: &Identity, last: Option<Op>) {
        let batch = self.admissions.len().min(MAX_MEMBERS_PER_MESSAGE);
        let admissions = self.admissions.drain(..batch).collect();
        self.departures.sort_by_key(|op| !matches!(op, Op::Remove(_)));
        let departing = self.departures.len().min(MAX_DEPARTURES);
        let departures = self.departures.drain(..departing).collect();
        let change = Change { departures, admissions, last };
        self.carry_out(step, seat, identity, change);
    }

    fn carry_out(&mut self, step: &mut Step<'_>, seat: &mut Seat, identity: &Identity, change: Change) {
        let Change { departures, admissions, last } = change;
        let Some(epoch) = seat.epoch().next() else {
            step.out.event(Event::Failed(Failure::Exhausted));
            return;
        };
        self.announce_removals(step, epoch, &departures);
        let mut ops = departures;
        let newcomers = self.seat_newcomers(epoch, admissions);
        ops.extend(newcomers.iter().map(|n| Op::Admit(n.member.index)));
        let leaving = ops.iter().filter(|op| op.departing().is_some()).count();
        let members = (seat.roster().len() + newcomers.len()).saturating_sub(leaving);
        if seat.rate() == Rate::Private && members >= OPEN_RATE_FROM {
            ops.push(Op::OpenRate);
        }
        ops.extend(last);
        if ops.is_empty() {
            ops.push(Op::Rekey);
        }
        let before: Vec<Member> = seat
            .roster()
            .members()
            .filter(|m| !ops.iter().any(|op| op.departing() == Some(m.index)))
            .cloned()
            .collect();
        let admitted = newcomers.iter().map(|n| n.member.clone()).collect();
        self.make_epoch(step, seat, identity, ops, &before, admitted, newcomers);
    }

    fn seat_newcomers(&mut self, epoch: Epoch, admissions: Vec<Admission>) -> Vec<Newcomer> {
        let mut newcomers = Vec::new();
        for admission in admissions {
            let guest = admission.into_guest();
            let Ok(index) = u16::try_from(self.next_index) else { break };
            self.next_index += 1;
            let member = Member { index: MemberIndex(index), cert: guest.cert, joined: epoch, name: guest.name };
            let (session, mailbox, commitment) = (guest.session, guest.mailbox, guest.commitment);
            newcomers.push(Newcomer { member, session, mailbox, commitment });
        }
        newcomers
    }

    fn announce_removals(&mut self, step: &mut Step<'_>, epoch: Epoch, departures: &[Op]) {
        let removed: Vec<MemberIndex> = departures
            .iter()
            .filter_map(|op| match op {
                Op::Remove(index) => Some(*index),
                _ => None,
            })
            .collect();
        for removed in removed.chunks(RemovalNotice::MAX_REMOVED) {
            let notice = RemovalNotice::sign(self.authority.meeting, epoch, removed.to_vec(), &self.authority.key);
            let mut bytes = datagram::header(Kind::Removal, MemberIndex::HOST).to_vec();
            bytes.extend_from_slice(&notice.encode());
            step.out.datagram(bytes.clone());
            for repeat in 1..NOTICES {
                self.notices.push_back((step.now + NOTICE_GAP * repeat, bytes.clone()));
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // One place gathers what an epoch is made of.
    fn make_epoch(
        &mut self,
        step: &mut Step<'_>,
        seat: &mut Seat,
        identity: &Identity,
        ops: Vec<Op>,
        before: &[Member],
        admitted: Vec<Member>,
        newcomers: Vec<Newcomer>,
    ) {
        let current = seat.epoch();
        let Some(epoch) = current.next() else { return };
        let mut roster = Roster::default();
        before.iter().chain(&admitted).cloned().for_each(|member| {
            roster.insert(member);
        });
        let leaves = self.commitment_leaves(seat, &roster, current, &newcomers);
        let (openings, commitments_root) = merkle::open_all(&leaves);
        let fresh = schedule::draw_fresh(step.rng);
        let rate = if ops.contains(&Op::OpenRate) { Rate::Open } else { seat.rate() };
        let statement = Statement {
            meeting: self.authority.meeting,
            chain: self.authority.chain,
            term: Term(0),
            epoch,
            leader: MemberIndex::HOST,
            ops_hash: ops_hash(&ops),
            roster_root: roster.root(),
            key_commitment: schedule::key_commitment(self.authority.meeting, epoch, &fresh),
            commitments_root,
            time: step.wall,
            policy: self.authority.descriptor.policy.bits(),
            rate,
            frame_ms: self.authority.descriptor.frame_ms,
        };
        let previous =
            seat.chain_hash().unwrap_or_else(|| ChainHash::start(self.authority.meeting, &self.authority.chain));
        let signature = statement.sign(&previous.step(&statement), &self.authority.key);
        let key_for = |opening: Vec<[u8; 32]>| EpochKey {
            previous,
            statement: statement.clone(),
            signature,
            ops: ops.clone(),
            admitted: admitted.clone(),
            fresh: fresh.duplicate(),
            opening,
        };
        self.welcome(step, newcomers, before);
        let mut own = None;
        for (member, opening) in roster.members().zip(openings) {
            let key = key_for(opening);
            if member.index == seat.index() {
                own = Some(key);
            } else if let Some(peer) = self.peers.get_mut(&member.index) {
                peer.send(step, &Message::EpochKey(Box::new(key)));
            }
        }
        self.last_change = step.now;
        if let Some(key) = own {
            super::follow(step, seat, identity, key);
        }
        let removal = ops.iter().any(|op| matches!(op, Op::Remove(_)));
        self.activate_due = (!removal && !self.peers.is_empty()).then(|| step.now + ACTIVATE_AFTER);
        if self.activate_due.is_none() {
            seat.activate(step.now, epoch);
        }
    }

    fn commitment_leaves(&self, seat: &Seat, roster: &Roster, current: Epoch, newcomers: &[Newcomer]) -> Vec<[u8; 32]> {
        let fresh: BTreeMap<MemberIndex, [u8; 32]> = newcomers.iter().map(|n| (n.member.index, n.commitment)).collect();
        let commitment = |index: MemberIndex| {
            if index == seat.index() {
                return Some(seat.commitment());
            }
            let acknowledged = self.peers.get(&index).and_then(|peer| peer.commitment_after(current));
            fresh.get(&index).copied().or(acknowledged)
        };
        roster.members().map(|m| commitment_leaf(m.index, &commitment(m.index).unwrap_or(NO_COMMITMENT))).collect()
    }

    /// Gives newcomers their capability and the roster; the epoch's key follows.
    fn welcome(&mut self, step: &mut Step<'_>, newcomers: Vec<Newcomer>, before: &[Member]) {
        for Newcomer { member, session, mailbox, .. } in newcomers {
            let index = member.index;
            self.sessions.insert(session.id(), index);
            let (identity, routing) = (member.cert.identity, member.cert.keys.routing);
            let mut peer = Peer::new(step.now, index, session, identity, routing, mailbox);
            let capability = peer.next_capability(step, self.authority.meeting, &self.authority.key);
            peer.send(step, &Message::Admitted { index, capability });
            for part in before.chunks(MAX_MEMBERS_PER_MESSAGE) {
                peer.send(step, &Message::Roster(part.to_vec()));
            }
            self.peers.insert(index, peer);
        }
    }
}

fn answer(step: &mut Step<'_>, mailbox: MailboxId, mut session: Session, denial: Denial) {
    if let Ok(packet) = session.send(step.now, &Message::Denied(denial)) {
        step.out.mail_to(mailbox, packet);
    }
    // Whoever is turned down must not keep a place from others by staying connected.
    step.out.control(&ToRelay::CloseMailbox { mailbox });
}
