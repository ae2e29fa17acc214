//! The hub: everything the relay decides about meetings (`docs/protocol.md` §6, DESIGN §9).
//!
//! It reads no clock and does no I/O. It holds descriptors, lines, gates, revocations, and who is connected to which
//! meeting; no name, no identity, no address, no key but public ones, and nothing that outlives a connection. What
//! members and guests send each other is opaque to it.
//!
//! A client says Hello to one meeting and is a *guest* there. A guest hears nothing before a leader is present; then
//! it gets the descriptor with the line of succession, and for the token that the link gives it a mailbox, from which it reaches the leaders and
//! nobody else. Who shows a capability, with the proof that it was made for this very connection, takes a *slot*:
//! only slots send and receive datagrams and members' messages.
//!
//! The law of [`Core`] is all that a wrapper needs: it can watch, withhold, change or add what goes in and comes out.

mod checks;
mod limits;
mod mailboxes;
mod meeting;
mod members;
mod phase;
mod reports;
mod seals;
mod stats;
mod succession;
mod turn;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use conclave_protocol::descriptor::{Descriptor, Region};
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::time::WallClock;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal, ToRelay};
use conclave_protocol::wire::urgency::{self, Urgency};

use crate::core::{CloseCode, ConnId, Core, Delivery, Figures, Output, Peer, ReportTicket};
use crate::moderator::Moderator;
use crate::stamps::StampKeys;

pub use crate::bucket::Rate;
pub use limits::Limits;
pub use stats::Stats;

use crate::bucket::{Bucket, PrefixBuckets};
use meeting::Meeting;
use reports::{Announced, Reports};
use stats::Drop;
use turn::Turn;

/// The client's first message was no Hello that this relay understands.
pub const NO_HELLO: CloseCode = CloseCode(CloseCode::FIRST_OF_CORE);
/// The client sent too much that is no message, or too many wrong knock tokens.
pub const MISBEHAVED: CloseCode = CloseCode(CloseCode::FIRST_OF_CORE + 1);
/// The relay or the meeting has no room; the client may try again later.
pub const FULL: CloseCode = CloseCode(CloseCode::FIRST_OF_CORE + 2);

/// What an operator decides.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The region that clients are told.
    pub region: Option<Region>,
    /// Bounds on everything.
    pub limits: Limits,
    /// What seals are stamped with, until [`Core::stamp_keys`] brings others.
    pub stamp_keys: StampKeys,
    /// Whether members are asked to align their frame clocks.
    pub aligns_clocks: bool,
    /// Whether the shell has a sink for [`Output::Report`].
    pub takes_reports: bool,
    /// The operator's moderator: clients are told, and it may ask about stamps.
    pub moderator: Option<Moderator>,
}

/// The relay's state machine; see the module.
pub struct Hub {
    clock: WallClock,
    region: String,
    limits: Limits,
    stamps: StampKeys,
    reports: Reports,
    moderator: Option<Moderator>,
    clients: BTreeMap<ConnId, Client>,
    meetings: BTreeMap<MeetingId, Meeting>,
    /// How many of `meetings` have a descriptor.
    described: usize,
    /// The next expiry of every meeting that has one.
    deadlines: BTreeSet<(Instant, MeetingId)>,
    aligns_clocks: bool,
    /// When frame clocks are looked at next; while frames come.
    phases_due: Option<Instant>,
    prefixes: PrefixBuckets,
    stats: Stats,
}

/// A connection, as far as no meeting is concerned.
struct Client {
    peer: Peer,
    stage: Stage,
    malformed: u8,
    attaches: Bucket,
    messages: Bucket,
}

/// How far a connection has come.
#[derive(Clone, Copy)]
enum Stage {
    /// Its first message hasn't come yet.
    Greeting,
    /// It belongs to a meeting, which knows as what.
    In(MeetingId),
    /// It is the operator's moderator, and belongs to no meeting.
    Moderator,
    /// It is being closed; nothing counts any more.
    Closed,
}

impl Hub {
    /// A hub without meetings. `clock` is the relay's clock, by which capabilities are measured.
    #[must_use]
    pub fn new(clock: WallClock, config: Config) -> Self {
        Self {
            clock,
            region: config.region.map(|region| region.as_str().to_owned()).unwrap_or_default(),
            limits: config.limits,
            stamps: config.stamp_keys,
            reports: Reports::new(config.takes_reports),
            moderator: config.moderator,
            clients: BTreeMap::new(),
            meetings: BTreeMap::new(),
            described: 0,
            deadlines: BTreeSet::new(),
            aligns_clocks: config.aligns_clocks,
            phases_due: None,
            prefixes: PrefixBuckets::new(),
            stats: Stats::default(),
        }
    }

    /// The counters as they are now. Takes time in proportion to the number of meetings.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let total = |count: fn(&Meeting) -> usize| self.meetings.values().map(|meeting| count(meeting) as u64).sum();
        let (report_bytes, reports) = self.reports.held();
        Stats {
            meetings_now: self.meetings.len() as u64,
            members_now: total(|meeting| meeting.members.len()),
            guests_now: total(|meeting| meeting.guests.len()),
            mailboxes_now: total(|meeting| meeting.mailboxes.len()),
            reports_now: reports as u64,
            report_bytes_now: report_bytes as u64,
            ..self.stats
        }
    }

    /// The slots of a meeting and the connections that hold them, in the order of slots.
    pub fn attached(&self, meeting: MeetingId) -> impl Iterator<Item = (MemberIndex, ConnId)> {
        let members = self.meetings.get(&meeting).into_iter().flat_map(|meeting| &meeting.members);
        members.map(|(slot, member)| (*slot, member.conn))
    }

    /// Lets `act` work on a meeting, then brings what the hub keeps about it up to date.
    fn with_meeting(
        &mut self,
        now: Instant,
        id: MeetingId,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Meeting, &mut Turn<'_>),
    ) {
        let Some(meeting) = self.meetings.get_mut(&id) else { return };
        let (was_due, was_described) = (meeting.next_expiry(), meeting.descriptor.is_some());
        let wall = self.clock.at(now);
        let (limits, stamps, stats) = (&self.limits, &self.stamps, &mut self.stats);
        let mut turn = Turn { now, wall, limits, stamps, stats, out, closed: Vec::new() };
        let was_led = meeting.is_led();
        act(meeting, &mut turn);
        bury(&mut self.clients, meeting, &mut turn);
        meeting.tell_lead(&mut turn, was_led);
        // No leader is among those: only guests' tokens have been looked at.
        bury(&mut self.clients, meeting, &mut turn);
        let due = meeting.next_expiry();
        if due != was_due {
            was_due.map(|at| self.deadlines.remove(&(at, id)));
            due.map(|at| self.deadlines.insert((at, id)));
        }
        self.described = self.described + usize::from(meeting.descriptor.is_some()) - usize::from(was_described);
        if meeting.is_empty() {
            self.described -= usize::from(meeting.descriptor.is_some());
            self.meetings.remove(&id);
            tracing::debug!(meetings = self.meetings.len(), "a meeting has ended");
        }
    }

    /// Asks clients to shift their frame clocks, now and then.
    fn align_phases(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.phases_due.take_if(|due| *due <= now).is_some() {
            for meeting in self.meetings.values_mut() {
                for (to, shift) in meeting.shifts(now) {
                    self.stats.phases_asked += 1;
                    out.push(Output::Control { to, bytes: FromRelay::Phase { shift }.encode().into() });
                }
            }
        }
    }

    /// Refuses, outside of any meeting, and closes the connection if there is a code for it.
    fn refuse(&mut self, conn: ConnId, reason: Refusal, code: Option<CloseCode>, out: &mut Vec<Output>) {
        self.stats.count_refusal(reason);
        out.push(Output::Control { to: conn, bytes: FromRelay::Refused { reason }.encode().into() });
        if let Some(code) = code {
            out.push(Output::Close { conn, code });
            if let Some(client) = self.clients.get_mut(&conn) {
                client.stage = Stage::Closed;
            }
        }
    }

    /// A first message: only a Hello will do.
    fn greet(&mut self, now: Instant, conn: ConnId, message: Option<ToRelay>, out: &mut Vec<Output>) {
        let Some(ToRelay::Hello { meeting: id, descriptor, revoked, line }) = message else {
            return self.refuse(conn, Refusal::Malformed, Some(NO_HELLO), out);
        };
        if !self.has_room(id, descriptor.as_ref()) {
            return self.refuse(conn, Refusal::Full, Some(FULL), out);
        }
        let welcome = FromRelay::Welcome {
            time: self.clock.at(now),
            region: self.region.clone(),
            takes_reports: self.reports.has_sink(),
            moderator: self.moderator.as_ref().map(|moderator| moderator.encoded().to_vec()).unwrap_or_default(),
        };
        out.push(Output::Control { to: conn, bytes: welcome.encode().into() });
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.stage = Stage::In(id);
        self.meetings.entry(id).or_insert_with(|| Meeting::new(id, client.peer.exporter));
        self.with_meeting(now, id, out, |meeting, turn| meeting.enter(turn, conn, descriptor, line, revoked));
    }

    fn has_room(&self, meeting: MeetingId, descriptor: Option<&Descriptor>) -> bool {
        // The newcomer is among the clients already.
        if self.clients.len() > self.limits.max_connections {
            return false;
        }
        let known = self.meetings.get(&meeting);
        if descriptor.is_some() {
            known.is_some_and(|meeting| meeting.descriptor.is_some()) || self.described < self.limits.max_meetings
        } else {
            known.is_none_or(|meeting| meeting.has_room_for_guest(&self.limits))
        }
    }

    /// A message that is none, or a second Hello.
    fn on_malformed(&mut self, now: Instant, conn: ConnId, id: MeetingId, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.malformed = client.malformed.saturating_add(1);
        let is_over = client.malformed >= self.limits.max_malformed;
        self.with_meeting(now, id, out, |_, turn| {
            turn.refuse(conn, Refusal::Malformed);
            if is_over {
                turn.close(conn, MISBEHAVED);
            }
        });
    }

    /// A message of a client that belongs to a meeting.
    fn act(&mut self, now: Instant, conn: ConnId, id: MeetingId, message: ToRelay, out: &mut Vec<Output>) {
        let Some(Client { peer, attaches, messages, .. }) = self.clients.get_mut(&conn) else { return };
        let has_slot = self.meetings.get(&id).is_some_and(|meeting| meeting.slots.contains_key(&conn));
        // A report has bounds of its own, and none of its parts may be missing.
        let is_expected = matches!(message, ToRelay::ReportPart { .. }) && self.reports.is_receiving(conn);
        if !has_slot && !is_expected && !messages.take(now, 1, self.limits.guest_messages) {
            return self.stats.count_refusal(Refusal::TooFast);
        }
        let message = match message {
            ToRelay::Report { id: report, length, digest, past } => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let announced = Announced { id: report, digest, length };
                return self.on_report(now, conn, id, announced, past.as_ref(), out);
            }
            ToRelay::ReportPart { id, bytes } => return self.on_report_part(now, conn, id, &bytes, out),
            other => other,
        };
        // What costs the relay work even when it fails has an allowance outside of the meeting.
        let is_allowed = match &message {
            ToRelay::Attach { .. } | ToRelay::Line { .. } => attaches.take(now, 1, self.limits.attaches),
            ToRelay::OpenMailbox { .. } => self.prefixes.take(now, peer.prefix, self.limits.prefix_tokens),
            _ => true,
        };
        let exporter = peer.exporter;
        self.with_meeting(now, id, out, |meeting, turn| {
            let done = if is_allowed { act_in(meeting, turn, conn, &exporter, message) } else { Err(Refusal::TooFast) };
            if let Err(reason) = done {
                turn.refuse(conn, reason);
            }
        });
    }
}

fn act_in(
    meeting: &mut Meeting,
    turn: &mut Turn<'_>,
    conn: ConnId,
    exporter: &[u8; 32],
    message: ToRelay,
) -> Result<(), Refusal> {
    match message {
        // `Core::control` has dealt with it.
        ToRelay::Hello { .. } => Err(Refusal::Malformed),
        ToRelay::OpenMailbox { token } => meeting.open_mailbox(turn, conn, token.token()),
        ToRelay::Mail { bytes } => meeting.mail(turn, conn, bytes),
        ToRelay::MailTo { mailbox, bytes } => meeting.mail_to(turn, conn, mailbox, bytes),
        ToRelay::CloseMailbox { mailbox } => meeting.close_mailbox(turn, conn, mailbox),
        ToRelay::Attach { capability, possession } => meeting.attach(turn, conn, exporter, &capability, &possession),
        ToRelay::Send { to, bytes } => meeting.send(turn, conn, to, bytes),
        ToRelay::Revoke { revoked } => meeting.revoke(turn, conn, revoked),
        ToRelay::Gate { gate } => meeting.set_gate(turn, conn, gate),
        ToRelay::Line { line } => meeting.bring_line(turn, conn, line),
        ToRelay::Seal { bytes } => meeting.seal(turn, conn, bytes),
        ToRelay::Report { .. } | ToRelay::ReportPart { .. } | ToRelay::CheckStamps { .. } => Err(Refusal::NotAllowed),
    }
}

/// Forgets the connections that were closed in this call.
fn bury(clients: &mut BTreeMap<ConnId, Client>, meeting: &mut Meeting, turn: &mut Turn<'_>) {
    while let Some(conn) = turn.closed.pop() {
        meeting.leave(turn, conn);
        if let Some(client) = clients.get_mut(&conn) {
            client.stage = Stage::Closed;
        }
    }
}

impl Core for Hub {
    fn connected(&mut self, now: Instant, conn: ConnId, peer: &Peer, out: &mut Vec<Output>) {
        self.timeout(now, out);
        let client = Client {
            peer: peer.clone(),
            stage: Stage::Greeting,
            malformed: 0,
            attaches: Bucket::default(),
            messages: Bucket::default(),
        };
        self.clients.insert(conn, client);
    }

    fn control(&mut self, now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>) {
        // What has run out counts no more, even when the timer is late.
        self.timeout(now, out);
        let Some(client) = self.clients.get(&conn) else { return };
        let stage = client.stage;
        let message = ToRelay::decode(message).ok();
        match &message {
            Some(message) => self.stats.count_message(message),
            None => self.stats.messages_malformed += 1,
        }
        match (stage, message) {
            (Stage::Closed, _) => {}
            (Stage::Greeting | Stage::Moderator, Some(ToRelay::CheckStamps { signature, checks })) => {
                self.on_check_stamps(now, conn, &signature, &checks, out);
            }
            (Stage::Moderator, _) => self.refuse(conn, Refusal::Malformed, Some(MISBEHAVED), out),
            (Stage::Greeting, message) => self.greet(now, conn, message, out),
            (Stage::In(id), None | Some(ToRelay::Hello { .. })) => self.on_malformed(now, conn, id, out),
            (Stage::In(id), Some(message)) => self.act(now, conn, id, message, out),
        }
    }

    fn datagram(&mut self, now: Instant, conn: ConnId, datagram: &[u8], to: &mut Vec<ConnId>) {
        self.stats.datagrams_in += 1;
        let Some(Stage::In(id)) = self.clients.get(&conn).map(|client| client.stage) else {
            return self.stats.count_drop(Drop::Unattached);
        };
        let Some(meeting) = self.meetings.get_mut(&id) else {
            return self.stats.count_drop(Drop::Unattached);
        };
        match meeting.judge(now, &self.limits, conn, datagram) {
            Ok(()) => {
                if self.aligns_clocks {
                    meeting.note_phase(now, conn);
                    self.phases_due.get_or_insert(now + phase::EVERY);
                }
                let before = to.len();
                to.extend(meeting.listeners(now, conn));
                self.stats.datagrams_forwarded += (to.len() - before) as u64;
            }
            Err(reason) => self.stats.count_drop(reason),
        }
    }

    fn urgency(message: &[u8]) -> Urgency {
        urgency::urgency(message)
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Output>) {
        self.timeout(now, out);
        self.reports.abandon(conn);
        if let Some(Client { stage: Stage::In(id), .. }) = self.clients.remove(&conn) {
            self.with_meeting(now, id, out, |meeting, turn| meeting.leave(turn, conn));
        }
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            // Taken out first, so that this loop ends whatever the meeting does.
            self.deadlines.pop_first();
            self.with_meeting(now, id, out, Meeting::expire);
        }
        self.align_phases(now, out);
        self.expire_reports(now, out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        let meetings = self.deadlines.first().map(|(at, _)| *at);
        [meetings, self.reports.next_timeout(), self.phases_due].into_iter().flatten().min()
    }

    fn stamp_keys(&mut self, keys: StampKeys) {
        self.stamps = keys;
    }

    fn report_delivered(&mut self, now: Instant, ticket: ReportTicket, delivery: Delivery, out: &mut Vec<Output>) {
        self.timeout(now, out);
        self.on_delivered(now, ticket, delivery, out);
    }

    fn figures(&self) -> Figures {
        let Limits { max_connections, max_meetings, .. } = self.limits;
        let is_full = self.clients.len() >= max_connections || self.described >= max_meetings;
        Figures { is_full, counts: self.stats() }
    }

    fn shutdown(&mut self, _: Instant, out: &mut Vec<Output>) {
        let bytes = Bytes::from(FromRelay::Closing.encode());
        let open = self.clients.iter().filter(|(_, client)| !matches!(client.stage, Stage::Closed));
        out.extend(open.map(|(&to, _)| Output::Control { to, bytes: bytes.clone() }));
    }
}
