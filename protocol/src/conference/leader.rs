//! The leader: answers those who knock, carries out what hosts decide, and looks after every member's session.
//! [`super::epochs`] makes the epochs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::door::{Door, Opened};
use super::event::{ActError, Event, Person};
use super::mail::Mail;
use super::member::Member as SeatedMember;
use super::outbox::Step;
use super::peer::{Issuer, Path, Peer};
use super::pulse::TO_ALL;
use super::room::Room;
use crate::admission::lobby::{Admission, KnockId, Knocked, Lobby, Waiting};
use crate::capability::{CLOCK_TOLERANCE, KnockGate, Revoked, Rights};
use crate::epoch::broadcast::Broadcast;
use crate::epoch::statement::{Act, Op};
use crate::id::{Epoch, IndexRange, MemberIndex};
use crate::identity::{DisplayName, Identity, SafetyNumber};
use crate::noise::handshake::{Context, Responder};
use crate::noise::session::Session;
use crate::sign::PublicKey;
use crate::succession::{Delegate, Line, Rank};
use crate::time::UnixMillis;
use crate::wire::control::{Denial, EpochAck, KnockShown, LedgerEntry, Message, Past, Request, Verb, Whom};
use crate::wire::relay::{MailboxId, ToRelay};

/// How long a member may be without a session before it counts as lost: a handshake takes one round trip, and is
/// repeated every 2 s.
const UNREACHED: Duration = Duration::from_secs(12);

/// The leader's part of a conference.
pub(super) struct Leader {
    pub(super) door: Door,
    pub(super) lobby: Lobby,
    pub(super) next_index: u16,
    pub(super) last_index: u16,
    pub(super) admissions: VecDeque<(Admission, MemberIndex)>,
    /// Members who go with the next epoch.
    pub(super) departures: Vec<Op>,
    /// What else the next epoch tells.
    pub(super) notes: Vec<Op>,
    pub(super) last_change: Instant,
    pub(super) activate_due: Option<Instant>,
    revoked: BTreeMap<MemberIndex, UnixMillis>,
    revoked_seq: u32,
    revocation_due: bool,
    pub(super) notices: VecDeque<(Instant, Vec<u8>)>,
    gate_sent: bool,
    /// Members who were offered a place in the line.
    offers: BTreeSet<MemberIndex>,
    /// Co-hosts who are told of those who knock.
    pub(super) promoted: Vec<Delegate>,
    /// Since when this member leads.
    pub(super) since: Instant,
    /// The last epoch lacks somebody's commitment, so it can have no security code.
    pub(super) codeless: bool,
}

impl Leader {
    /// The leader of a room: the host at the beginning, or whoever takes over.
    pub(super) fn new(now: Instant, room: &Room) -> Option<Self> {
        let me = room.index();
        let descriptor = room.seat.descriptor().clone();
        let responder = Responder::of(me, room.seat.line())?;
        let range = match room.seat.rank(me) {
            Rank::Host => IndexRange::HOST,
            Rank::Delegate(rank) => IndexRange::of_rank(rank)?,
            Rank::Member => return None,
        };
        let psk0 = room.link.secret.psk0(room.meeting);
        let context = Context { meeting: room.meeting, descriptor, psk0, responder };
        let passcode = room.passcode.as_ref().map(crate::noise::handshake::Passcode::duplicate);
        let session_secret = room.secrets.session.clone();
        let door = Door::new(now, room.index(), context, session_secret, room.seat.cert(), room.name.clone(), passcode);
        Some(Self {
            door,
            lobby: Lobby::default(),
            next_index: room.seat.highest_in(range).map_or(range.first().0, |highest| highest.0.saturating_add(1)),
            last_index: range.last().0,
            admissions: VecDeque::new(),
            departures: Vec::new(),
            notes: Vec::new(),
            last_change: now,
            activate_due: None,
            revoked: BTreeMap::new(),
            revoked_seq: 0,
            revocation_due: false,
            notices: VecDeque::new(),
            gate_sent: false,
            offers: BTreeSet::new(),
            promoted: Vec::new(),
            since: now,
            codeless: false,
        })
    }

    /// Takes over in a room: the first epoch of a new term.
    pub(super) fn take_over(step: &mut Step<'_>, room: &mut Room, identity: &Identity) -> Option<Self> {
        let mut leader = Self::new(step.now, room)?;
        room.authority.as_ref()?;
        if let Some(known) = &room.revoked {
            leader.revoked_seq = known.seq;
            // How long their capabilities last is not known here; no longer than the longest.
            let until = step.relay.plus(crate::capability::MAX_VALIDITY);
            leader.revoked = known.slots.iter().map(|slot| (*slot, until)).collect();
        }
        let present = room.present.clone();
        for (index, peer) in &mut room.peers {
            peer.look_again(step.now, present.contains(index));
        }
        if let Some(line) = room.seat.line() {
            step.out.control(&ToRelay::Line { line: line.clone() });
        }
        // First of all, because only leaders may send as much as follows.
        room.attach_with(step, Rights::LEADER);
        let me = room.index();
        leader.notes.push(Op { act: Act::TakeOver(me), by: me });
        leader.change(step, room, identity, None);
        Some(leader)
    }

    // ---- what the relay brings ----

    /// The leader's slot is taken: opens the gate for guests.
    pub(super) fn on_attached(&mut self, step: &mut Step<'_>, room: &mut Room) {
        if std::mem::replace(&mut self.gate_sent, true) {
            return;
        }
        let Some(key) = &room.authority else { return };
        if let Some(line) = room.seat.line() {
            step.out.control(&ToRelay::Line { line: line.clone() });
        }
        let token = room.link.secret.knock_token(room.meeting);
        step.out.control(&ToRelay::Gate { gate: KnockGate::sign(room.meeting, 1, room.index(), &token, key) });
        if !self.revoked.is_empty() {
            self.revocation_due = true;
            self.revoke(step, room);
        }
    }

    /// Another connection: its relay may know neither slot nor gate.
    pub(super) fn on_connecting(&mut self) {
        self.gate_sent = false;
    }

    pub(super) fn on_mail(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        mailbox: MailboxId,
        bytes: &[u8],
    ) {
        let Some(mail) = Mail::parse(bytes) else { return };
        if let Mail::Session(packet) = mail {
            if let Some(guest) = self.lobby.by_mailbox(mailbox) {
                // A guest has nothing to say but acknowledgements and good-bye, which its mailbox tells as well.
                let _ = guest.session.receive(step.now, packet);
            }
            return;
        }
        match self.door.handle_mail(step.now, step.wall, mailbox, mail, step.rng) {
            Opened::Nothing => {}
            Opened::Reply(reply) => step.out.mail_to(mailbox, reply),
            Opened::Knocker(knocker) => self.on_knocker(step, room, identity, mailbox, *knocker),
        }
        self.draw_handshakes(step);
    }

    fn on_knocker(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        mailbox: MailboxId,
        knocker: crate::noise::handshake::Knocker,
    ) {
        let guest = knocker.cert.identity;
        let past = room.ledger.past(&guest);
        if past == Some(Past::Blocked) {
            return answer(step, mailbox, knocker.session, Denial::Blocked);
        }
        if step.kept.is_banned(&guest, step.wall) {
            let safety_number = SafetyNumber::of(&identity.public(), &guest);
            let (name, kind) = (knocker.name.clone(), knocker.cert.kind);
            step.out.event(Event::Banned(Person { name, identity: guest, kind, safety_number }));
            return answer(step, mailbox, knocker.session, Denial::Blocked);
        }
        // The leader's own identity is the user's other device, and waits as others do.
        let here = room.seat.roster().members().find(|m| m.cert.identity == guest && m.index != room.index());
        let (here, settings) = (here.map(|member| member.index), room.seat.settings());
        let locked = self.is_locked(room);
        let comes_back = here.is_some() || past == Some(Past::Lost) || (past == Some(Past::Left) && !locked);
        if locked && !comes_back {
            return answer(step, mailbox, knocker.session, Denial::Locked);
        }
        let knocked = self.lobby.knock(step.now, mailbox, knocker);
        let (id, replaced) = match knocked {
            Knocked::Waits { id, replaced } => (id, replaced),
            Knocked::Full(guest) => return answer(step, guest.mailbox, guest.session, Denial::Full),
        };
        if let Some((replaced, guest)) = replaced {
            answer(step, guest.mailbox, guest.session, Denial::Expired);
            self.tell_knock_gone(step, room, replaced);
        }
        if comes_back || !settings.waiting_room {
            let me = room.index();
            if let Some(index) = here {
                self.depart(step, room, Op { act: Act::Leave(index), by: index });
            }
            if self.admit(room, id, me, comes_back).is_err() {
                self.refuse(step, id, Denial::Full);
            }
            return;
        }
        self.show_knock(step, room, identity, id);
    }

    fn show_knock(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity, id: KnockId) {
        let Some(guest) = self.lobby.guest_mut(id) else { return };
        if let Ok(packet) = guest.session.send(step.now, &Message::Waiting) {
            step.out.mail_to(guest.mailbox, packet);
        }
        let safety_number = SafetyNumber::of(&identity.public(), &guest.cert.identity);
        let (name, kind) = (guest.name.clone(), guest.cert.kind);
        let shown = KnockShown { id: id.0, identity: guest.cert.identity, kind, name: name.clone() };
        step.out.event(Event::Knock { id, person: Person { name, identity: shown.identity, kind, safety_number } });
        self.tell_cohosts(step, room, &|| Message::Knock(shown.clone()));
    }

    fn tell_knock_gone(&mut self, step: &mut Step<'_>, room: &mut Room, id: KnockId) {
        step.out.event(Event::KnockGone { id });
        self.tell_cohosts(step, room, &|| Message::KnockGone(id.0));
    }

    fn tell_cohosts(&self, step: &mut Step<'_>, room: &mut Room, message: &dyn Fn() -> Message) {
        let line = room.seat.line().map(|line| line.delegates.clone()).unwrap_or_default();
        let host = std::iter::once(MemberIndex::HOST);
        for slot in line.iter().map(|delegate| delegate.slot).chain(host) {
            if let Some(peer) = room.peers.get_mut(&slot) {
                peer.send(step, &message());
            }
        }
    }

    /// A message of a member that is for its leader.
    pub(super) fn on_message(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        from: MemberIndex,
        message: Message,
    ) {
        match message {
            Message::EpochAck(ack) => self.on_acknowledged(step, room, from, &ack),
            Message::Leave => self.depart(step, room, Op { act: Act::Leave(from), by: from }),
            Message::Request(request) => self.on_request(step, room, identity, from, request),
            Message::Accept(authority) => self.on_accept(room, from, authority),
            Message::Back => self.on_back(step, room, from),
            _ => {}
        }
    }

    fn on_request(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        from: MemberIndex,
        request: Request,
    ) {
        let Request { number, verb, whom } = request;
        let done = if room.seat.rank(from) == Rank::Member {
            SeatedMember::alarm_forbidden(step, from);
            Err(ActError::NotHost)
        } else {
            self.perform(step, room, identity, from, verb, whom)
        };
        if let (Err(error), Some(peer)) = (done, room.peers.get_mut(&from)) {
            peer.send(step, &Message::Refused { number, why: error.number() });
        }
    }

    fn on_back(&mut self, step: &mut Step<'_>, room: &mut Room, from: MemberIndex) {
        let missed = room.missed_by(from);
        let Some(peer) = room.peers.get_mut(&from) else { return };
        let is_new = matches!(peer.path, Path::Mailbox(_));
        peer.on_presence(step, true);
        if !is_new {
            room.pulse.beat_soon(step.now);
            if let Some(beat) = room.pulse.newest_beat(&room.seat).cloned() {
                room.broadcast_to(step, from, &Broadcast::Heartbeat(beat));
            }
        }
        let Some(peer) = room.peers.get_mut(&from) else { return };
        for part in missed {
            peer.send(step, &Message::Missed(part));
        }
    }

    fn on_acknowledged(&mut self, step: &mut Step<'_>, room: &mut Room, from: MemberIndex, ack: &EpochAck) {
        let (Some(member), Some(chain)) = (room.seat.roster().member(from), room.seat.chain_hash()) else { return };
        // An acknowledgement that the next epoch overtook has nothing left to say.
        if ack.epoch != room.seat.epoch() {
            return;
        }
        if ack.verify(&chain, &member.cert.identity).is_err() {
            let kind = super::event::AlarmKind::BadAcknowledgement;
            let detail = "a member acknowledges another history than this one";
            return step.out.event(Event::Alarm { kind, index: Some(from), detail });
        }
        let Some(peer) = room.peers.get_mut(&from) else { return };
        peer.on_acknowledged(ack.epoch, ack.commitment);
        if self.activate_due.is_some() && self.all_have(room, ack.epoch) {
            self.activate(step, room);
        }
    }

    /// Whether all members but this one have acknowledged an epoch.
    pub(super) fn all_have(&self, room: &Room, epoch: Epoch) -> bool {
        let has = |index| room.peers.get(&index).is_some_and(|peer: &Peer| peer.has_acknowledged(epoch));
        let mut others = room.seat.roster().members().map(|m| m.index).filter(|index| *index != room.index());
        others.all(has)
    }

    pub(super) fn on_mailbox_gone(&mut self, step: &mut Step<'_>, room: &mut Room, mailbox: MailboxId) {
        self.door.on_mailbox_gone(mailbox);
        if let Some(id) = self.lobby.withdraw(mailbox) {
            self.tell_knock_gone(step, room, id);
        }
        self.draw_handshakes(step);
    }

    // ---- what hosts and co-hosts do ----

    fn is_locked(&self, room: &Room) -> bool {
        self.notes.iter().fold(room.seat.settings(), |settings, op| op.act.apply(settings)).locked
    }

    /// Carries out an act of `by`, the leader's own or a co-host's.
    pub(super) fn perform(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        by: MemberIndex,
        verb: Verb,
        whom: Whom,
    ) -> Result<(), ActError> {
        let note = |act| Op { act, by };
        match (verb, whom) {
            (Verb::Admit, Whom::Knock(id)) => {
                self.admit(room, KnockId(id), by, false)?;
                self.tell_knock_gone(step, room, KnockId(id));
            }
            (Verb::Deny, Whom::Knock(id)) => self.deny(step, room, KnockId(id), by, false)?,
            (Verb::Block, Whom::Knock(id)) => self.deny(step, room, KnockId(id), by, true)?,
            (Verb::Remove | Verb::Block, Whom::Member(index)) => return self.remove(step, room, identity, index, by),
            (Verb::AskMute, Whom::Member(index)) => {
                room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
                self.notes.push(note(Act::AskMute(index)));
            }
            (Verb::Lock, Whom::Nobody) => self.switch(room, note(Act::Lock)),
            (Verb::Unlock, Whom::Nobody) => self.switch(room, note(Act::Unlock)),
            (Verb::MuteNewcomers, Whom::Nobody) => self.switch(room, note(Act::MuteNewcomers)),
            (Verb::UnmuteNewcomers, Whom::Nobody) => self.switch(room, note(Act::UnmuteNewcomers)),
            (Verb::WaitingRoomOn, Whom::Nobody) => self.switch(room, note(Act::WaitingRoomOn)),
            (Verb::WaitingRoomOff, Whom::Nobody) => self.switch(room, note(Act::WaitingRoomOff)),
            (Verb::End, Whom::Nobody) => self.end(step, room, identity, by),
            _ => return Err(ActError::NoSuchMember),
        }
        self.handle_timeout(step, room, identity);
        Ok(())
    }

    /// Notes a change of the settings, if it is one.
    fn switch(&mut self, room: &Room, op: Op) {
        let now = self.notes.iter().fold(room.seat.settings(), |settings, op| op.act.apply(settings));
        if op.act.apply(now) != now {
            self.notes.push(op);
        }
    }

    /// Lets somebody in with the next epoch; those who come back even when the meeting is locked.
    fn admit(&mut self, room: &Room, id: KnockId, by: MemberIndex, comes_back: bool) -> Result<(), ActError> {
        self.lobby.guest(id).ok_or(ActError::NoSuchKnock)?;
        if self.is_locked(room) && !comes_back {
            return Err(ActError::Locked);
        }
        let expected = (room.seat.roster().len() + self.admissions.len()).saturating_sub(self.departures.len());
        let indexes_left = usize::from(self.next_index) + self.admissions.len() <= usize::from(self.last_index);
        if expected >= usize::from(room.seat.descriptor().max_members) || !indexes_left {
            return Err(ActError::Full);
        }
        let admission = self.lobby.admit(id).ok_or(ActError::NoSuchKnock)?;
        self.admissions.push_back((admission, by));
        Ok(())
    }

    /// Refuses a knock; the second time, or at once, for good.
    fn deny(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        id: KnockId,
        by: MemberIndex,
        for_good: bool,
    ) -> Result<(), ActError> {
        let (guest, blocked) = self.lobby.deny(id).ok_or(ActError::NoSuchKnock)?;
        let blocked = blocked || for_good;
        if blocked {
            self.block(step, room, guest.cert.identity);
        }
        self.notes.push(Op { act: if blocked { Act::Block } else { Act::Deny }, by });
        answer(step, guest.mailbox, guest.session, if blocked { Denial::Blocked } else { Denial::Denied });
        self.tell_knock_gone(step, room, id);
        Ok(())
    }

    fn block(&mut self, step: &mut Step<'_>, room: &mut Room, identity: PublicKey) {
        room.ledger.note(identity, Past::Blocked);
        let entry = LedgerEntry { identity, past: Past::Blocked };
        self.tell_cohosts(step, room, &|| Message::Ledger(vec![entry]));
    }

    fn refuse(&mut self, step: &mut Step<'_>, id: KnockId, denial: Denial) {
        if let Some(guest) = self.lobby.admit(id).map(Admission::into_guest) {
            answer(step, guest.mailbox, guest.session, denial);
        }
    }

    /// Everybody who waits, oldest first.
    pub(super) fn knocks(&self) -> Vec<(KnockId, DisplayName)> {
        self.lobby.waiting().map(|(id, guest)| (id, guest.name.clone())).collect()
    }

    /// Puts a member out, now.
    fn remove(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        index: MemberIndex,
        by: MemberIndex,
    ) -> Result<(), ActError> {
        if index == by {
            return Err(ActError::Yourself);
        }
        let member = room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        if room.seat.rank(by) >= room.seat.rank(index) || index == room.index() {
            return Err(ActError::Rank);
        }
        room.ledger.note(member.cert.identity, Past::Blocked);
        if let Some(peer) = room.peers.get_mut(&index) {
            // Before the relay cuts it off, so that it knows why.
            peer.send(step, &Message::Denied(Denial::Blocked));
        }
        let op = Op { act: Act::Remove(index), by };
        match self.departures.iter_mut().find(|op| op.act.departing() == Some(index)) {
            // It was going anyway; now it is put out, with all that a removal hurries.
            Some(going) => *going = op,
            None => self.depart(step, room, op),
        }
        self.change(step, room, identity, None);
        Ok(())
    }

    /// Ends the meeting for everybody.
    pub(super) fn end(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity, by: MemberIndex) {
        self.turn_away(step, Denial::Expired);
        // Before everybody stops listening.
        room.seal_now(step);
        self.change(step, room, identity, Some(Op { act: Act::End, by }));
    }

    /// Offers a member a place in the line; its key decides when.
    pub(super) fn promote(&mut self, step: &mut Step<'_>, room: &mut Room, index: MemberIndex) -> Result<(), ActError> {
        if room.index() != MemberIndex::HOST {
            return Err(ActError::NotHost);
        }
        if index == MemberIndex::HOST {
            return Err(ActError::Yourself);
        }
        room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        let places = self.line_after(room).len() + self.offers.len();
        if room.seat.rank(index) != Rank::Member || self.offers.contains(&index) {
            return Ok(());
        }
        if places >= Line::MAX_DELEGATES {
            return Err(ActError::LineFull);
        }
        let peer = room.peers.get_mut(&index).ok_or(ActError::NoSuchMember)?;
        self.offers.insert(index);
        peer.send(step, &Message::Offer);
        Ok(())
    }

    fn on_accept(&mut self, room: &Room, from: MemberIndex, authority: PublicKey) {
        let Some(member) = room.seat.roster().member(from).filter(|_| self.offers.remove(&from)) else { return };
        self.promoted.push(Delegate { slot: from, hs: member.cert.keys.session, authority });
        self.notes.push(Op { act: Act::Promote(from), by: room.index() });
    }

    /// Takes a member out of the line.
    pub(super) fn demote(&mut self, room: &Room, index: MemberIndex) -> Result<(), ActError> {
        if room.index() != MemberIndex::HOST {
            return Err(ActError::NotHost);
        }
        room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        self.offers.remove(&index);
        self.promoted.retain(|delegate| delegate.slot != index);
        if matches!(room.seat.rank(index), Rank::Delegate(_)) {
            self.notes.push(Op { act: Act::Demote(index), by: room.index() });
        }
        Ok(())
    }

    /// Lets another host or co-host lead.
    pub(super) fn hand_over(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        index: MemberIndex,
    ) -> Result<(), ActError> {
        if index == room.index() {
            return Err(ActError::Yourself);
        }
        room.seat.roster().member(index).ok_or(ActError::NoSuchMember)?;
        if room.seat.rank(index) == Rank::Member {
            return Err(ActError::NotInLine);
        }
        let by = room.index();
        self.notes.push(Op { act: Act::HandOver(index), by });
        self.change(step, room, identity, None);
        let waiting = room.publication.waiting();
        if let Some(peer) = room.peers.get_mut(&index) {
            for key in waiting {
                peer.send(step, &Message::LastKey(key));
            }
        }
        Ok(())
    }

    /// The first of the line who is here, to hand over to.
    pub(super) fn successor(&self, room: &Room) -> Option<MemberIndex> {
        let line = room.seat.line()?;
        let mut slots = line.delegates.iter().map(|delegate| delegate.slot).filter(|slot| *slot != room.index());
        slots.find(|slot| room.seat.roster().member(*slot).is_some() && room.present.contains(slot))
    }

    /// The meeting's time is over: turns down everybody who is not in it yet, and ends it for the others. The last
    /// epoch admits nobody, because certificates may end with the meeting.
    pub(super) fn close(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity) {
        let me = room.index();
        self.end(step, room, identity, me);
    }

    /// Somebody else leads: those who wait have to knock there.
    pub(super) fn close_door(mut self, step: &mut Step<'_>) {
        for (id, _) in self.lobby.waiting() {
            step.out.event(Event::KnockGone { id });
        }
        self.admissions.clear();
    }

    fn turn_away(&mut self, step: &mut Step<'_>, denial: Denial) {
        for (admission, _) in std::mem::take(&mut self.admissions) {
            let guest = admission.into_guest();
            answer(step, guest.mailbox, guest.session, denial);
        }
        let waiting: Vec<KnockId> = self.lobby.waiting().map(|(id, _)| id).collect();
        for id in waiting {
            self.refuse(step, id, denial);
            step.out.event(Event::KnockGone { id });
        }
    }

    /// Takes a member out of everything at once; the next epoch says so to the others.
    pub(super) fn depart(&mut self, step: &mut Step<'_>, room: &mut Room, op: Op) {
        let Some(index) = op.act.departing() else { return };
        let until = room.peers.remove(&index).map(|peer| peer.capability_until);
        room.sessions.retain(|_, member| *member != index);
        let is_going = self.departures.iter().any(|going| going.act.departing() == Some(index));
        if is_going || room.seat.roster().member(index).is_none() {
            return;
        }
        self.offers.remove(&index);
        self.departures.push(op);
        // Those of higher rank give themselves their capabilities, and only the host can take them away.
        if room.seat.rank(room.index()) >= room.seat.rank(index) {
            return;
        }
        let own = room.seat.rank(index) != Rank::Member;
        let longest = step.relay.plus(super::peer::VALIDITY);
        let until = until.filter(|_| !own).unwrap_or(longest).max(if own { longest } else { UnixMillis(0) });
        self.revoked.insert(index, until);
        self.revocation_due = true;
    }

    /// Tells the relay whose slots are taken away.
    pub(super) fn revoke(&mut self, step: &mut Step<'_>, room: &mut Room) {
        if !std::mem::take(&mut self.revocation_due) {
            return;
        }
        let relay = step.relay;
        self.revoked.retain(|_, until| until.plus(CLOCK_TOLERANCE) > relay);
        self.revoked_seq = self.revoked_seq.max(room.revoked.as_ref().map_or(0, |known| known.seq)).saturating_add(1);
        let Some(key) = &room.authority else { return };
        let slots = self.revoked.keys().copied().take(Revoked::MAX_SLOTS).collect();
        let revoked = Revoked::sign(room.meeting, self.revoked_seq, room.index(), slots, key);
        room.revoked = Some(revoked.clone());
        step.out.control(&ToRelay::Revoke { revoked });
    }

    // ---- time ----

    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity) {
        self.run(step, room, identity, true);
    }

    /// The same; without `may_change` no epoch is made.
    pub(super) fn run(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity, may_change: bool) {
        while let Some((_, notice)) = self.notices.pop_front_if(|(due, _)| *due <= step.now) {
            step.out.datagram(notice);
        }
        self.draw_handshakes(step);
        self.run_lobby(step, room);
        if room.is_connected() {
            self.run_peers(step, room);
            self.beat(step, room);
        }
        room.publish_due(step);
        self.revoke(step, room);
        if self.activate_due.is_some_and(|due| due <= step.now) {
            self.activate(step, room);
        }
        if may_change && self.change_due(step.now, room).is_some_and(|due| due <= step.now) {
            self.change(step, room, identity, None);
        }
    }

    /// When something is due, of what was not when this was `looked` at last.
    pub(super) fn poll_timeout(&self, looked: Instant, room: &Room) -> Option<Instant> {
        let lobby = self.lobby.waiting().filter_map(|(_, guest)| guest.session.poll_timeout()).min();
        let peers = if room.is_connected() { room.peers.values().filter_map(Peer::poll_led).min() } else { None };
        let notice = self.notices.front().map(|(due, _)| *due);
        let change = self.change_due(looked, room).filter(|due| *due > looked);
        let unreached = self.unreached(room).next().map(|_| self.since + UNREACHED).filter(|due| *due > looked);
        let publication = room.publication.poll_timeout(looked).filter(|_| room.attached);
        [
            lobby,
            peers,
            notice,
            change,
            publication,
            self.door.poll_timeout(),
            self.lobby.next_expiry(),
            self.activate_due,
            unreached,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn beat(&mut self, step: &mut Step<'_>, room: &mut Room) {
        let Some(key) = room.authority.as_ref().filter(|_| room.attached) else { return };
        let Some(heartbeat) = room.pulse.beat(step.now, step.wall, &room.seat, key) else { return };
        let tick = heartbeat.n;
        room.broadcast(step, &Broadcast::Heartbeat(heartbeat));
        if room.seat.roster().len() > TO_ALL {
            for passed in room.pulse.take_passed() {
                room.broadcast(step, &Broadcast::Passed(passed));
            }
        }
        room.witness(step, tick);
    }

    fn draw_handshakes(&mut self, step: &mut Step<'_>) {
        for (mailbox, reply) in self.door.handle_timeout(step.now, step.rng) {
            step.out.mail_to(mailbox, reply);
        }
    }

    fn run_lobby(&mut self, step: &mut Step<'_>, room: &mut Room) {
        for (id, guest) in self.lobby.expire(step.now) {
            answer(step, guest.mailbox, guest.session, Denial::Expired);
            self.tell_knock_gone(step, room, id);
        }
        for (mailbox, session) in self.lobby.sessions() {
            let mut packets = Vec::new();
            // A guest that never acknowledges only fills its own session, which ends with the knock.
            let _ = session.handle_timeout(step.now, &mut packets);
            packets.into_iter().for_each(|packet| step.out.mail_to(mailbox, packet));
        }
    }

    fn run_peers(&mut self, step: &mut Step<'_>, room: &mut Room) {
        let mut lost = Vec::new();
        let (meeting, signer) = (room.meeting, room.index());
        for (index, peer) in &mut room.peers {
            // One with whom a session came up while it was leaving has nothing left to be sent.
            let mut alive = peer.handle_timeout(step).is_ok() && room.seat.roster().member(*index).is_some();
            if peer.is_renewal_due(step.now) {
                let routing = room.seat.roster().member(*index).map(|member| member.cert.keys.routing);
                if let (Some(key), Some(rk)) = (&room.authority, routing) {
                    // Whoever may lead gives itself its own, and keeps this one for when it may not any more.
                    let capability = peer.next_capability(step, &Issuer { meeting, signer, key }, rk);
                    alive &= peer.send(step, &Message::Renew(capability));
                }
            }
            if !alive || peer.is_lost(step.now) {
                lost.push(*index);
            }
        }
        if self.since + UNREACHED <= step.now {
            lost.extend(self.unreached(room));
        }
        let by = room.index();
        for index in lost {
            self.depart(step, room, Op { act: Act::Lost(index), by });
        }
    }

    /// Members with whom there is no session.
    fn unreached<'a>(&'a self, room: &'a Room) -> impl Iterator<Item = MemberIndex> + 'a {
        let members = room.seat.roster().members().map(|member| member.index);
        let going = move |index: &MemberIndex| self.departures.iter().any(|op| op.act.departing() == Some(*index));
        members.filter(move |index| *index != room.index() && !room.peers.contains_key(index) && !going(index))
    }

    pub(super) fn activate(&mut self, step: &mut Step<'_>, room: &mut Room) {
        self.activate_due = None;
        let epoch = room.seat.epoch();
        for peer in room.peers.values_mut() {
            peer.send(step, &Message::Activate(epoch));
        }
        room.seat.activate(step.now, epoch);
        room.pulse.on_activated(step.now);
    }

    /// Gives newcomers their place among the peers.
    pub(super) fn seat_peer(
        step: &mut Step<'_>,
        room: &mut Room,
        index: MemberIndex,
        rk: PublicKey,
        session: Session,
        mailbox: MailboxId,
    ) {
        room.add_peer(step.now, index, session, Path::Mailbox(mailbox));
        let (meeting, signer) = (room.meeting, room.index());
        let (Some(peer), Some(key)) = (room.peers.get_mut(&index), &room.authority) else { return };
        let capability = peer.next_capability(step, &Issuer { meeting, signer, key }, rk);
        peer.send(step, &Message::Admitted { index, capability });
    }
}

/// Turns somebody down who has no place in the lobby, or none any more.
pub(super) fn answer(step: &mut Step<'_>, mailbox: MailboxId, mut session: Session, denial: Denial) {
    if let Ok(packet) = session.send(step.now, &Message::Denied(denial)) {
        step.out.mail_to(mailbox, packet);
    }
    // Whoever is turned down must not keep a place from others by staying connected.
    step.out.control(&ToRelay::CloseMailbox { mailbox });
}

/// Somebody who waits, as co-hosts are told.
pub(super) fn shown(id: KnockId, guest: &Waiting) -> KnockShown {
    KnockShown { id: id.0, identity: guest.cert.identity, kind: guest.cert.kind, name: guest.name.clone() }
}
