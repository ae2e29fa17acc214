//! A member who has a seat: follows the leader, or leads, or takes over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{ActError, AlarmKind, Event, Person};
use super::leader::Leader;
use super::mesh;
use super::outbox::Step;
use super::peer::Path;
use super::pulse::{BEAT, Health};
use super::rival::GIVE_WAY;
use super::room::Room;
use crate::admission::lobby::KnockId;
use crate::epoch::broadcast;
use crate::epoch::statement::Act;
use crate::epoch::witness;
use crate::id::MemberIndex;
use crate::identity::{Identity, SafetyNumber};
use crate::noise::session::{self, Session};
use crate::sign::KeyPair;
use crate::succession::Rank;
use crate::wire::control::{EpochKey, KnockShown, Message, Request, Verb, Whom};
use crate::wire::relay::MailboxId;

/// A member who heard the leader this lately follows no other: two missed heartbeats.
const STILL_HEARS: Duration = Duration::from_secs(4);
/// A co-host who hears nobody at all doubts its own path first, and waits so long before it takes over.
const HEARS_NOBODY: Duration = Duration::from_secs(10);
/// Somebody was heard so lately: two seconds are a hundred frames.
const HEARS: Duration = Duration::from_secs(2);
/// Messages of a leader to be that are kept until it is clear whether to follow.
const MAX_PENDING: usize = 64;
/// How long whoever takes over waits for sessions with members that it has none with yet: newcomers, mostly.
const REACHES: Duration = Duration::from_secs(1);
/// Nothing was looked at for so long: longer than any pause between two deadlines of a connected member.
const SLEPT: Duration = Duration::from_secs(6);
/// How long a leader keeps the key of somebody whom it does not follow: as long as it takes to know who hears it.
const DOUBTS: Duration = Duration::from_secs(6);
/// How long a leader may be without half of its roster: three heartbeats (DESIGN §5).
const ALONE: Duration = Duration::from_secs(6);

/// What a member that follows nobody any more must do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Go on.
    Stay,
    /// Shake hands again: this history leads nowhere.
    Rejoin,
    /// Nobody leads any more.
    Leave,
    /// The relay does not take this member.
    GiveUp,
}

/// See the module.
pub(super) struct Member {
    pub(super) room: Room,
    pub(super) lead: Option<Leader>,
    /// A leader to be, and what it has sent.
    pending: Option<(MemberIndex, VecDeque<Message>)>,
    /// Since when, for a leader, which makes no epoch meanwhile.
    pending_since: Instant,
    /// Drawn for the host's offer, not in the line yet.
    offered: Option<KeyPair>,
    /// As the leader tells a co-host.
    knocks: Vec<KnockShown>,
    requests: u32,
    led_since: Instant,
    /// Until when sessions are awaited before this member takes over.
    taking: Option<Instant>,
    /// When the deadlines were last looked at.
    looked: Instant,
}

impl Member {
    pub(super) fn new(now: Instant, room: Room, lead: Option<Leader>) -> Self {
        let (pending, offered, knocks) = (None, None, Vec::new());
        Self {
            room,
            lead,
            pending,
            pending_since: now,
            offered,
            knocks,
            requests: 0,
            led_since: now,
            taking: None,
            looked: now,
        }
    }

    // ---- packets ----

    /// A message of another member, by its slot.
    pub(super) fn on_deliver(&mut self, step: &mut Step<'_>, identity: &Identity, from: MemberIndex, bytes: &[u8]) {
        self.note_sleep(step.now);
        match bytes.first() {
            Some(&session::PACKET_KIND) => {
                let owner = Session::id_of(bytes).and_then(|id| self.room.sessions.get(&id)).copied();
                // A member that is on a new slot's way may still be answered at its mailbox, but only as itself.
                if owner == Some(from) {
                    self.on_packet(step, identity, from, bytes);
                }
            }
            Some(&(broadcast::PACKET_KIND | witness::PACKET_KIND)) => self.room.on_broadcast(step, from, bytes),
            Some(&mesh::MESSAGE_1) => self.room.on_reached(step, from, bytes),
            Some(&mesh::MESSAGE_2) if self.room.on_reply(step, from, bytes) => self.go_on_to_lead(step, identity),
            _ => {}
        }
        self.consider(step, identity);
    }

    /// A session packet that came by this member's own mailbox, from the leader.
    pub(super) fn on_own_mail(&mut self, step: &mut Step<'_>, identity: &Identity, bytes: &[u8]) {
        if let Some(from) = Session::id_of(bytes).and_then(|id| self.room.sessions.get(&id)).copied() {
            self.on_packet(step, identity, from, bytes);
        }
        self.consider(step, identity);
    }

    /// A guest's message to the leaders.
    pub(super) fn on_mail(&mut self, step: &mut Step<'_>, identity: &Identity, mailbox: MailboxId, bytes: &[u8]) {
        let owner = Session::id_of(bytes).and_then(|id| self.room.sessions.get(&id)).copied();
        match (owner, &mut self.lead) {
            (Some(from), _) => self.on_packet(step, identity, from, bytes),
            (None, Some(lead)) => lead.on_mail(step, &mut self.room, identity, mailbox, bytes),
            (None, None) => {}
        }
    }

    fn on_packet(&mut self, step: &mut Step<'_>, identity: &Identity, from: MemberIndex, packet: &[u8]) {
        let Some(peer) = self.room.peers.get_mut(&from) else { return };
        let received = peer.session().receive(step.now, packet);
        if received.is_ok() {
            peer.on_heard();
        }
        let Ok(Some(message)) = received else { return };
        self.on_message(step, identity, from, message);
    }

    fn on_message(&mut self, step: &mut Step<'_>, identity: &Identity, from: MemberIndex, message: Message) {
        if self.pending.as_ref().is_some_and(|(leader, _)| *leader == from) {
            return self.keep_pending(message);
        }
        match message {
            Message::EpochKey(key) if from == self.room.leader() && !self.room.leads() => {
                self.on_epoch_key(step, identity, from, *key);
            }
            Message::EpochKey(key) => self.on_other_leader(step.now, from, key),
            Message::Ledger(entries) if from == self.room.leader() || self.room.seat.rank(from) == Rank::Host => {
                entries.into_iter().for_each(|entry| self.room.ledger.note(entry.identity, entry.past));
            }
            Message::LastKey(key) => self.room.on_last_key(step, from, key),
            Message::Leave | Message::EpochAck(_) | Message::Request(_) | Message::Accept(_) | Message::Back => {
                if let Some(lead) = &mut self.lead {
                    lead.on_message(step, &mut self.room, identity, from, message);
                }
            }
            message if from == self.room.leader() && !self.room.leads() => {
                self.on_leader_message(step, identity, message)
            }
            _ => {}
        }
    }

    fn on_leader_message(&mut self, step: &mut Step<'_>, identity: &Identity, message: Message) {
        match message {
            Message::Activate(epoch) => {
                self.room.seat.activate(step.now, epoch);
                if epoch == self.room.seat.epoch() {
                    self.room.pulse.on_activated(step.now);
                }
            }
            Message::Renew(capability) => self.room.on_renewed(step, capability),
            Message::Denied(_) => step.out.event(Event::Removed),
            Message::Offer => self.on_offer(step),
            Message::Knock(knock) => {
                step.out.event(Event::Knock { id: KnockId(knock.id), person: person(identity, &knock) });
                self.knocks.retain(|other| other.id != knock.id);
                // As many as can wait at the leader.
                if self.knocks.len() < crate::admission::lobby::MAX_WAITING {
                    self.knocks.push(knock);
                }
            }
            Message::KnockGone(id) => {
                self.knocks.retain(|knock| knock.id != id);
                step.out.event(Event::KnockGone { id: KnockId(id) });
            }
            Message::Refused { why, .. } => step.out.event(Event::Refused(ActError::from_number(why))),
            Message::Missed(missed) => self.room.on_missed(step, missed),
            _ => {}
        }
    }

    fn on_epoch_key(&mut self, step: &mut Step<'_>, identity: &Identity, from: MemberIndex, key: EpochKey) {
        let Some(ack) = self.room.follow(step, identity, key) else { return };
        self.forget_knocks_unless_cohost(step);
        if self.room.leader() == from
            && let Some(peer) = self.room.peers.get_mut(&from)
        {
            peer.send(step, &Message::EpochAck(ack));
        }
        let me = self.room.index();
        let in_line = self.room.seat.line().and_then(|line| line.delegate(me)).map(|delegate| delegate.authority);
        if let Some(offered) = self.offered.take_if(|key| Some(key.public()) == in_line) {
            self.room.authority = Some(offered);
            self.room.attach(step);
        }
        self.taking = None;
        if self.room.seat.heir() == Some(me) && self.room.may_lead() {
            self.begin_to_lead(step, identity);
        }
    }

    /// What the last leader told a co-host of its waiting room is void with another leader.
    fn forget_knocks_unless_cohost(&mut self, step: &mut Step<'_>) {
        if self.room.may_lead() && !self.room.leads() && self.room.seat.heir().is_none() {
            return;
        }
        for knock in std::mem::take(&mut self.knocks) {
            step.out.event(Event::KnockGone { id: KnockId(knock.id) });
        }
    }

    fn on_offer(&mut self, step: &mut Step<'_>) {
        let leader = self.room.leader();
        let key = self.offered.get_or_insert_with(|| KeyPair::generate(step.rng)).public();
        if let Some(peer) = self.room.peers.get_mut(&leader) {
            peer.send(step, &Message::Accept(key));
        }
    }

    // ---- another leader ----

    /// Somebody who does not lead here sends an epoch: it has taken over, as far as it knows.
    fn on_other_leader(&mut self, now: Instant, from: MemberIndex, key: Box<EpochKey>) {
        let takes_over = key.ops.iter().any(|op| op.act == Act::TakeOver(from));
        if takes_over && key.statement.leader == from {
            self.pending = Some((from, VecDeque::from([Message::EpochKey(key)])));
            self.pending_since = now;
        }
    }

    fn keep_pending(&mut self, message: Message) {
        if let Some((_, messages)) = &mut self.pending
            && messages.len() < MAX_PENDING
        {
            messages.push_back(message);
        }
    }

    /// Looks whether a leader to be is to be followed now.
    fn consider(&mut self, step: &mut Step<'_>, identity: &Identity) {
        let Some((from, messages)) = &self.pending else { return };
        let from = *from;
        let Some(Message::EpochKey(key)) = messages.front() else {
            self.pending = None;
            return;
        };
        if key.statement.epoch <= self.room.seat.epoch() {
            // The own history went another way; whoever has to give way finds that out by the witnesses.
            self.pending = None;
            return;
        }
        let follows = Some(key.previous) == self.room.seat.chain_hash();
        if !follows || !self.may_follow(step.now, from) {
            // As long as it is kept, a leader makes no epoch, and so cannot come nearer to it either. One who has slept
            // finds out only a moment later.
            let is_old = step.now.saturating_duration_since(self.pending_since) >= DOUBTS;
            if self.room.leads() && is_old && self.room.pulse.knows_who_hears(step.now) {
                self.pending = None;
            }
            return;
        }
        let Some((_, messages)) = self.pending.take() else { return };
        if self.room.leads() {
            self.step_down(step);
        }
        for message in messages {
            match message {
                Message::EpochKey(key) => self.on_epoch_key(step, identity, from, *key),
                other if from == self.room.leader() => self.on_leader_message(step, identity, other),
                _ => {}
            }
        }
    }

    fn may_follow(&self, now: Instant, from: MemberIndex) -> bool {
        if from == MemberIndex::HOST || self.room.seat.heir() == Some(from) {
            return true;
        }
        if self.room.leads() {
            // Half of the roster or more would have to hear this leader; then the other one gives way.
            return self.room.pulse.heard(now, &self.room.seat) * 2 <= self.room.seat.roster().len();
        }
        self.room.is_connected() && self.room.pulse.silence(now) >= STILL_HEARS
    }

    /// Leads no more.
    fn step_down(&mut self, step: &mut Step<'_>) {
        if let Some(lead) = self.lead.take() {
            lead.close_door(step);
        }
    }

    /// Begins to lead, once there is a session with everybody, but not much later.
    fn begin_to_lead(&mut self, step: &mut Step<'_>, identity: &Identity) {
        if self.room.unreached().next().is_none() {
            return self.take_over(step, identity);
        }
        if self.taking.is_none() {
            self.taking = Some(step.now + REACHES);
            self.room.meshes.look(step.now);
            self.room.reach_out(step);
        }
    }

    /// Goes on with what [`Member::begin_to_lead`] began.
    fn go_on_to_lead(&mut self, step: &mut Step<'_>, identity: &Identity) {
        let Some(until) = self.taking else { return };
        let me = self.room.index();
        let wanted = me == MemberIndex::HOST || self.room.seat.heir() == Some(me);
        if !wanted && self.room.pulse.silence(step.now) < BEAT {
            // The leader is back.
            self.taking = None;
        } else if until <= step.now || self.room.unreached().next().is_none() {
            self.take_over(step, identity);
        }
    }

    /// Leads from now on.
    fn take_over(&mut self, step: &mut Step<'_>, identity: &Identity) {
        self.pending = None;
        self.taking = None;
        self.led_since = step.now;
        self.knocks.clear();
        let lead = Leader::take_over(step, &mut self.room, identity);
        self.lead = lead;
        self.room.attach(step);
    }

    /// When this member takes over if the leader is not heard until then (DESIGN §12).
    fn takeover_due(&self) -> Option<Instant> {
        let Rank::Delegate(rank) = self.room.seat.rank(self.room.index()) else { return None };
        if self.room.leads() || !self.room.may_lead() || !self.room.attached {
            return None;
        }
        Some(self.room.pulse.last_beat() + BEAT * (2 + u32::from(rank)))
    }

    fn takes_over_now(&self, now: Instant) -> bool {
        let hears = || {
            let frame = self.room.seat.last_frame();
            frame.is_some_and(|at| at > self.room.pulse.last_beat() && now.saturating_duration_since(at) < HEARS)
        };
        self.takeover_due().is_some_and(|due| due <= now)
            && (self.room.pulse.silence(now) >= HEARS_NOBODY - BEAT || hears())
    }

    // ---- acts ----

    /// An act of this member's, which it carries out or asks the leader for.
    pub(super) fn act(
        &mut self,
        step: &mut Step<'_>,
        identity: &Identity,
        verb: Verb,
        whom: Whom,
    ) -> Result<(), ActError> {
        let me = self.room.index();
        if let Some(lead) = &mut self.lead {
            return lead.perform(step, &mut self.room, identity, me, verb, whom);
        }
        if !self.room.may_lead() {
            return Err(ActError::NotHost);
        }
        if let Whom::Member(index) = whom {
            self.room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        }
        if let Whom::Knock(id) = whom
            && !self.knocks.iter().any(|knock| knock.id == id)
        {
            return Err(ActError::NoSuchKnock);
        }
        self.requests = self.requests.wrapping_add(1);
        let request = Request { number: self.requests, verb, whom };
        let leader = self.room.leader();
        let peer = self.room.peers.get_mut(&leader).ok_or(ActError::LeaderAway)?;
        if peer.send(step, &Message::Request(request)) { Ok(()) } else { Err(ActError::LeaderAway) }
    }

    /// Hands over to a co-host or to the host; the host may take the lead back so.
    pub(super) fn hand_over(
        &mut self,
        step: &mut Step<'_>,
        identity: &Identity,
        index: MemberIndex,
    ) -> Result<(), ActError> {
        match &mut self.lead {
            Some(lead) => lead.hand_over(step, &mut self.room, identity, index),
            None if index == self.room.index() && index == MemberIndex::HOST && self.room.may_lead() => {
                self.begin_to_lead(step, identity);
                Ok(())
            }
            None => Err(ActError::NotLeading),
        }
    }

    /// Everybody who waits, oldest first.
    pub(super) fn knocks(&self) -> Vec<(KnockId, crate::identity::DisplayName)> {
        match &self.lead {
            Some(lead) => lead.knocks(),
            None => self.knocks.iter().map(|knock| (KnockId(knock.id), knock.name.clone())).collect(),
        }
    }

    /// Says good-bye.
    pub(super) fn leave(&mut self, step: &mut Step<'_>) {
        let (leader, last_key) = (self.room.leader(), self.room.last_key());
        let Some(peer) = self.room.peers.get_mut(&leader) else { return };
        peer.send(step, &last_key);
        peer.send(step, &Message::Leave);
        if peer.path == Path::OwnMailbox {
            // The relay may have taken the slot by now, and the mailbox with it; there is no other time to ask.
            peer.path = Path::Slot;
            peer.resend(step);
        }
    }

    // ---- the connection ----

    pub(super) fn on_attached(&mut self, step: &mut Step<'_>) {
        let is_first = self.room.on_attached();
        if let Some(lead) = &mut self.lead {
            lead.on_attached(step, &mut self.room);
        }
        if !is_first {
            return;
        }
        let leader = self.room.leader();
        self.room.expect_missed(step.now);
        let Room { peers, seat, .. } = &mut self.room;
        for (index, peer) in peers {
            if *index == leader {
                peer.path = Path::Slot;
            }
            // Whoever leads by now has to know, this side's leader or one that has taken over.
            if *index == leader || seat.rank(*index) != Rank::Member {
                peer.send(step, &Message::Back);
            }
            peer.resend(step);
        }
        self.room.meshes.look(step.now);
    }

    // ---- time ----

    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>, identity: &Identity) -> Turn {
        self.note_sleep(step.now);
        self.looked = step.now;
        if self.room.is_connected() {
            self.consider(step, identity);
        }
        self.room.handle_timeout(step, identity);
        match &mut self.lead {
            // Somebody else may lead by now; until that is clear nothing is changed.
            Some(lead) => lead.run(step, &mut self.room, identity, self.pending.is_none()),
            None => self.run_sessions(step),
        }
        if !self.room.is_connected() {
            return Turn::Stay;
        }
        if self.takes_over_now(step.now) {
            self.begin_to_lead(step, identity);
        }
        self.go_on_to_lead(step, identity);
        self.turn(step)
    }

    /// Whether this side has slept: something is due every few seconds while there is a connection.
    fn note_sleep(&mut self, now: Instant) {
        if self.room.attached && now.saturating_duration_since(self.looked) > SLEPT {
            self.looked = now;
            self.room.pulse.on_woken(now);
        }
    }

    fn run_sessions(&mut self, step: &mut Step<'_>) {
        if self.room.is_connected() {
            for peer in self.room.peers.values_mut() {
                // Who never acknowledges is no leader any more, which the heartbeats tell.
                let _ = peer.handle_timeout(step);
            }
        }
        self.room.say_stale(step);
    }

    /// Whether this history leads anywhere.
    fn turn(&mut self, step: &mut Step<'_>) -> Turn {
        let (now, room) = (step.now, &self.room);
        if room.is_refused(now) {
            return Turn::GiveUp;
        }
        if room.leads() {
            return if self.gives_way(now) { Turn::Rejoin } else { Turn::Stay };
        }
        let contest = room.rival.contest(now, &room.seat).filter(|c| c.outranked || c.newer);
        if room.pulse.silence(now) >= ALONE && contest.is_some_and(|c| c.lasts >= GIVE_WAY[0]) {
            return Turn::Rejoin;
        }
        if room.attached && room.pulse.health(now) == Health::Gone { Turn::Leave } else { Turn::Stay }
    }

    /// Whether this leader gives way to another one.
    fn gives_way(&self, now: Instant) -> bool {
        let room = &self.room;
        let Some(contest) = room.rival.contest(now, &room.seat) else { return false };
        let is_heard = room.pulse.recent(now, &room.seat) * 2 > room.seat.roster().len();
        let wait = match (contest.outranked, is_heard) {
            (true, false) => GIVE_WAY[0],
            (false, false) => GIVE_WAY[1],
            (true, true) => GIVE_WAY[2],
            (false, true) => return false,
        };
        contest.lasts >= wait && now >= self.led_since + ALONE
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let room = self.room.poll_timeout(self.looked);
        let own = match &self.lead {
            Some(lead) => lead.poll_timeout(self.looked, &self.room),
            None if self.room.is_connected() => {
                self.room.peers.values().filter_map(super::peer::Peer::poll_session).min()
            }
            None => None,
        };
        let last = self.room.pulse.last_beat();
        let pending = self.pending.as_ref().filter(|_| self.room.is_connected()).map(|_| last + STILL_HEARS);
        let takeover = self.takeover_due().map(|due| [due, last + (HEARS_NOBODY - BEAT)]);
        // What has passed without effect is looked at again when something else happens, such as a confirmation.
        let waits = takeover.into_iter().flatten().chain(pending).chain(self.taking).filter(|at| *at > self.looked);
        [room, own].into_iter().flatten().chain(waits).min()
    }

    /// Something that the rules forbid.
    pub(super) fn alarm_forbidden(step: &mut Step<'_>, index: MemberIndex) {
        let detail = "a member who is no co-host tried to act as one";
        step.out.event(Event::Alarm { kind: AlarmKind::Forbidden, index: Some(index), detail });
    }
}

/// Somebody who knocks, as shown to the user.
fn person(identity: &Identity, knock: &KnockShown) -> Person {
    let safety_number = SafetyNumber::of(&identity.public(), &knock.identity);
    Person { name: knock.name.clone(), identity: knock.identity, kind: knock.kind, safety_number }
}
