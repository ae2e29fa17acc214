//! How a leader makes epochs: when, from which acts, and what every member gets of it (`docs/protocol.md` §7.5).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::event::{Event, Failure};
use super::leader::{Leader, shown};
use super::outbox::Step;
use super::peer::Path;
use super::room::Room;
use super::seat::NO_COMMITMENT;
use crate::admission::lobby::Admission;
use crate::epoch::merkle;
use crate::epoch::roster::{Member, Roster, commitment_leaf};
use crate::epoch::schedule;
use crate::epoch::statement::{Act, ChainHash, MAX_OPS, Op, Rate, Statement, ops_hash};
use crate::id::{Epoch, MemberIndex, Term};
use crate::identity::Identity;
use crate::noise::session::Session;
use crate::succession::{Delegate, Line, Rank};
use crate::wire::codec::Wire;
use crate::wire::control::{EpochKey, MAX_MEMBERS_PER_MESSAGE, Message, RemovalNotice};
use crate::wire::datagram::{self, Kind};
use crate::wire::relay::{MailboxId, ToRelay};

/// Shortest time between two epochs of which neither is a removal, by the rate: joins that come together share one.
/// An epoch costs a message for each member, so small meetings can have them more often.
const BATCH: Duration = Duration::from_millis(250);
const BATCH_OPEN: Duration = Duration::from_millis(500);
/// How long a leader with co-hosts waits after its connection has come up, or it has slept, before it makes an epoch.
const SETTLES: Duration = Duration::from_millis(1_500);
/// Longest life of an epoch.
const PERIOD: Duration = Duration::from_secs(120);
/// An epoch that can have no security code is replaced after so long, when all have acknowledged it.
const CODELESS: Duration = Duration::from_secs(2);
/// Longest wait for acknowledgements before everybody is told to use the new key.
const ACTIVATE_AFTER: Duration = Duration::from_secs(1);
/// Most acts beside comings and goings in one epoch; the others follow with the next.
const MAX_NOTES: usize = 32;
/// Most members who go with one epoch, removals first; the others follow with the next. Leaves room in the list of
/// acts for those who come, other acts, a change of rate and the end.
const MAX_DEPARTURES: usize = MAX_OPS - MAX_MEMBERS_PER_MESSAGE - MAX_NOTES - 2;
/// A removal notice is sent this often, this far apart (DESIGN §12).
const NOTICES: u32 = 3;
const NOTICE_GAP: Duration = Duration::from_millis(20);
/// With this many members the meeting changes to the open rate, for good (DESIGN §7).
const OPEN_RATE_FROM: usize = 17;

struct Newcomer {
    member: Member,
    session: Session,
    mailbox: MailboxId,
    commitment: [u8; 32],
    by: MemberIndex,
}

/// An epoch to be made.
struct Next {
    ops: Vec<Op>,
    /// Members who stay.
    before: Vec<Member>,
    newcomers: Vec<Newcomer>,
    line: Option<Line>,
    term: Term,
}

impl Leader {
    /// Makes the first epoch, with the host alone in it.
    pub(super) fn begin(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity, host: Member) {
        self.next_index = host.index.0 + 1;
        let ops = vec![Op { act: Act::Admit(host.index), by: host.index }];
        let next = Next { ops, before: Vec::new(), newcomers: Vec::new(), line: None, term: Term(0) };
        self.make_epoch(step, room, identity, next, vec![host]);
    }

    /// When the next epoch is to be made.
    pub(super) fn change_due(&self, now: Instant, room: &Room) -> Option<Instant> {
        if room.seat.epoch() == Epoch::ZERO || !room.is_connected() {
            return None;
        }
        let restrained = self.is_restrained(now, room);
        let admissions = !self.admissions.is_empty() && !restrained;
        let pending = admissions || !self.departures.is_empty() || !self.notes.is_empty();
        let private = room.seat.rate() == Rate::Private;
        let batched = self.last_change + if private { BATCH } else { BATCH_OPEN };
        // Who comes back, or wakes up, first hears whether somebody else leads by now.
        let settled = if self.has_rival(room) { room.pulse.awake_since() + SETTLES } else { batched };
        let batched = batched.max(settled);
        // Until everybody uses the last epoch's key, the next change waits for the activation that is due.
        let batched = self.activate_due.map_or(batched, |due| due.max(batched));
        if pending {
            return Some(batched);
        }
        if restrained {
            return None;
        }
        let codeless = self.codeless && room.seat.roster().len() > 1 && self.all_have(room, room.seat.epoch());
        Some((self.last_change + if codeless { CODELESS } else { PERIOD }).max(settled))
    }

    /// Whether somebody else in the roster may lead.
    fn has_rival(&self, room: &Room) -> bool {
        let may_lead = |index: MemberIndex| index != room.index() && room.seat.rank(index) != Rank::Member;
        room.seat.roster().members().any(|member| may_lead(member.index))
    }

    /// A leader whom under half of its roster hears, while somebody else in it may lead, may have been replaced:
    /// it lets nobody in and makes no new keys, so that both can come together again.
    fn is_restrained(&self, now: Instant, room: &Room) -> bool {
        self.has_rival(room) && room.pulse.recent(now, &room.seat) * 2 < room.seat.roster().len()
    }

    /// Makes the next epoch of all that waits for one.
    pub(super) fn change(&mut self, step: &mut Step<'_>, room: &mut Room, identity: &Identity, last: Option<Op>) {
        let restrained = self.is_restrained(step.now, room);
        let batch = if restrained { 0 } else { self.admissions.len().min(MAX_MEMBERS_PER_MESSAGE) };
        let admissions: Vec<_> = self.admissions.drain(..batch).collect();
        self.departures.sort_by_key(|op| !matches!(op.act, Act::Remove(_)));
        let departing = self.departures.len().min(MAX_DEPARTURES);
        let departures: Vec<Op> = self.departures.drain(..departing).collect();
        let noted = self.notes.len().min(MAX_NOTES);
        let notes: Vec<Op> = self.notes.drain(..noted).collect();
        let Some(epoch) = room.seat.epoch().next() else {
            step.out.event(Event::Failed(Failure::Exhausted));
            return;
        };
        // The line first: the relay lets nobody of a co-host's rank be revoked but by the host.
        let line = self.next_line(step, room, &departures, &notes);
        self.revoke(step, room);
        self.announce_removals(step, room, epoch, &departures);
        let takes_over = notes.iter().any(|op| matches!(op.act, Act::TakeOver(_)));
        let term = Term(room.seat.term().0 + u32::from(takes_over));
        let mut ops = notes;
        ops.extend(departures);
        let newcomers = self.seat_newcomers(epoch, admissions);
        ops.extend(newcomers.iter().map(|n| Op { act: Act::Admit(n.member.index), by: n.by }));
        let by = room.index();
        let leaving = ops.iter().filter(|op| op.act.departing().is_some()).count();
        let members = (room.seat.roster().len() + newcomers.len()).saturating_sub(leaving);
        if room.seat.rate() == Rate::Private && members >= OPEN_RATE_FROM {
            ops.push(Op { act: Act::OpenRate, by });
        }
        ops.extend(last);
        for op in &mut ops {
            // Who is no host any more has asked for it as one; the leader answers for it now.
            if op.by != by && op.act != Act::Leave(op.by) && room.seat.rank(op.by) == Rank::Member {
                op.by = by;
            }
        }
        if ops.is_empty() {
            ops.push(Op { act: Act::Rekey, by });
        }
        let stays = |m: &&Member| !ops.iter().any(|op| op.act.departing() == Some(m.index));
        let before: Vec<Member> = room.seat.roster().members().filter(stays).cloned().collect();
        let admitted = newcomers.iter().map(|n| n.member.clone()).collect();
        let promoted: Vec<MemberIndex> =
            ops.iter().filter_map(|op| if let Act::Promote(index) = op.act { Some(index) } else { None }).collect();
        self.make_epoch(step, room, identity, Next { ops, before, newcomers, line, term }, admitted);
        self.instruct(step, room, &promoted);
    }

    /// The line of succession as it is now, with those who wait for their place.
    pub(super) fn line_after(&self, room: &Room) -> Vec<Delegate> {
        let line = room.seat.line().map(|line| line.delegates.clone()).unwrap_or_default();
        line.into_iter().chain(self.promoted.iter().copied()).collect()
    }

    /// The line after the acts. Only the host can change it; under a co-host those who are gone are passed over.
    fn next_line(&mut self, step: &mut Step<'_>, room: &Room, departures: &[Op], notes: &[Op]) -> Option<Line> {
        let known = room.seat.line().cloned();
        let (Some(key), MemberIndex::HOST) = (&room.authority, room.index()) else { return known };
        let goes = |slot: MemberIndex| {
            departures.iter().any(|op| op.act.departing() == Some(slot))
                || notes.iter().any(|op| op.act == Act::Demote(slot))
        };
        let comes = |slot: MemberIndex| notes.iter().any(|op| op.act == Act::Promote(slot));
        let mut delegates = known.as_ref().map(|line| line.delegates.clone()).unwrap_or_default();
        delegates.extend(self.promoted.iter().filter(|d| comes(d.slot)));
        self.promoted.retain(|d| !comes(d.slot) && !goes(d.slot));
        delegates.retain(|delegate| !goes(delegate.slot));
        if known.as_ref().map_or(&[][..], |line| &line.delegates) == delegates.as_slice() {
            return known;
        }
        let line = Line::sign(room.meeting, known.map_or(0, |line| line.seq) + 1, delegates, key);
        step.out.control(&ToRelay::Line { line: line.clone() });
        Some(line)
    }

    /// Tells a new co-host what it has to know to lead.
    fn instruct(&self, step: &mut Step<'_>, room: &mut Room, promoted: &[MemberIndex]) {
        let pieces = if promoted.is_empty() { Vec::new() } else { room.ledger.pieces() };
        for index in promoted {
            let Some(peer) = room.peers.get_mut(index) else { continue };
            for piece in &pieces {
                peer.send(step, &Message::Ledger(piece.clone()));
            }
            for (id, guest) in self.lobby.waiting() {
                peer.send(step, &Message::Knock(shown(id, guest)));
            }
        }
    }

    fn seat_newcomers(&mut self, epoch: Epoch, admissions: Vec<(Admission, MemberIndex)>) -> Vec<Newcomer> {
        let mut newcomers = Vec::new();
        for (admission, by) in admissions {
            let guest = admission.into_guest();
            let index = self.next_index;
            self.next_index = self.next_index.saturating_add(1);
            let member = Member { index: MemberIndex(index), cert: guest.cert, joined: epoch, name: guest.name };
            let (session, mailbox, commitment) = (guest.session, guest.mailbox, guest.commitment);
            newcomers.push(Newcomer { member, session, mailbox, commitment, by });
        }
        newcomers
    }

    fn announce_removals(&mut self, step: &mut Step<'_>, room: &Room, epoch: Epoch, departures: &[Op]) {
        let removed: Vec<MemberIndex> = departures
            .iter()
            .filter_map(|op| match op.act {
                Act::Remove(index) => Some(index),
                _ => None,
            })
            .collect();
        let Some(key) = &room.authority else { return };
        for removed in removed.chunks(RemovalNotice::MAX_REMOVED) {
            let notice = RemovalNotice::sign(room.meeting, epoch, removed.to_vec(), key);
            let mut bytes = datagram::header(Kind::Removal, room.index()).to_vec();
            bytes.extend_from_slice(&notice.encode());
            step.out.datagram(bytes.clone());
            for repeat in 1..NOTICES {
                self.notices.push_back((step.now + NOTICE_GAP * repeat, bytes.clone()));
            }
        }
    }

    fn make_epoch(
        &mut self,
        step: &mut Step<'_>,
        room: &mut Room,
        identity: &Identity,
        next: Next,
        admitted: Vec<Member>,
    ) {
        let current = room.seat.epoch();
        let Some(epoch) = current.next() else { return };
        let chain = room.seat.chain_name().unwrap_or_else(|| {
            let mut chain = [0; 16];
            step.rng.fill_bytes(&mut chain);
            chain
        });
        let Next { ops, before, newcomers, line, term } = next;
        let mut roster = Roster::default();
        before.iter().chain(&admitted).cloned().for_each(|member| {
            roster.insert(member);
        });
        let leaves = self.commitment_leaves(room, &roster, current, &newcomers);
        let (openings, commitments_root) = merkle::open_all(&leaves);
        let fresh = schedule::draw_fresh(step.rng);
        let rate = if ops.iter().any(|op| op.act == Act::OpenRate) { Rate::Open } else { room.seat.rate() };
        let descriptor = room.seat.descriptor();
        let statement = Statement {
            meeting: room.meeting,
            chain,
            term,
            epoch,
            leader: room.index(),
            ops_hash: ops_hash(&ops),
            roster_root: roster.root(),
            key_commitment: schedule::key_commitment(room.meeting, epoch, &fresh),
            commitments_root,
            line: line.as_ref().map_or([0; 32], Line::digest),
            time: step.wall,
            policy: descriptor.policy.bits(),
            rate,
            frame_ms: descriptor.frame_ms,
            settings: ops.iter().fold(room.seat.settings(), |settings, op| op.act.apply(settings)),
        };
        let previous = room.seat.chain_hash().unwrap_or_else(|| ChainHash::start(room.meeting, &chain));
        let Some(authority) = &room.authority else { return };
        let signature = statement.sign(&previous.step(&statement), authority);
        let key_for = |opening: Vec<[u8; 32]>| EpochKey {
            previous,
            statement: statement.clone(),
            signature,
            ops: ops.clone(),
            admitted: admitted.clone(),
            fresh: fresh.duplicate(),
            opening,
            line: line.clone(),
        };
        Self::welcome(step, room, newcomers, &before);
        let mut own = None;
        for (member, opening) in roster.members().zip(openings) {
            let key = key_for(opening);
            if member.index == room.index() {
                own = Some(key);
            } else if let Some(peer) = room.peers.get_mut(&member.index) {
                peer.send(step, &Message::EpochKey(Box::new(key)));
            }
        }
        self.last_change = step.now;
        if ops.iter().any(|op| op.act == Act::End) {
            // A newcomer may be leaving its mailbox for its slot, and this leader is not there any more to repeat it.
            let newcomers = room.peers.values_mut().filter(|peer| matches!(peer.path, Path::Mailbox(_)));
            newcomers.for_each(|peer| {
                peer.path = Path::Slot;
                peer.resend(step);
            });
        }
        if let Some(key) = own {
            room.follow(step, identity, key);
        }
        let removal = ops.iter().any(|op| matches!(op.act, Act::Remove(_)));
        self.activate_due = (!removal && !room.peers.is_empty()).then(|| step.now + ACTIVATE_AFTER);
        if self.activate_due.is_none() {
            room.seat.activate(step.now, epoch);
        }
    }

    fn commitment_leaves(
        &mut self,
        room: &Room,
        roster: &Roster,
        current: Epoch,
        newcomers: &[Newcomer],
    ) -> Vec<[u8; 32]> {
        let fresh: BTreeMap<MemberIndex, [u8; 32]> = newcomers.iter().map(|n| (n.member.index, n.commitment)).collect();
        let commitment = |index: MemberIndex| {
            if index == room.index() {
                return Some(room.seat.commitment());
            }
            let acknowledged = room.peers.get(&index).and_then(|peer| peer.commitment_after(current));
            fresh.get(&index).copied().or(acknowledged)
        };
        let commitments: Vec<_> = roster.members().map(|m| (m.index, commitment(m.index))).collect();
        self.codeless = commitments.iter().any(|(_, commitment)| commitment.is_none());
        commitments.iter().map(|(index, c)| commitment_leaf(*index, &c.unwrap_or(NO_COMMITMENT))).collect()
    }

    /// Gives newcomers their capability and the roster; the epoch's key follows.
    fn welcome(step: &mut Step<'_>, room: &mut Room, newcomers: Vec<Newcomer>, before: &[Member]) {
        for Newcomer { member, session, mailbox, .. } in newcomers {
            let index = member.index;
            Self::seat_peer(step, room, index, member.cert.keys.routing, session, mailbox);
            let Some(peer) = room.peers.get_mut(&index) else { continue };
            if !step.kept.moderators.is_empty() {
                let moderators = Message::Moderators(step.kept.moderators.clone());
                peer.send(step, &moderators);
            }
            for part in before.chunks(MAX_MEMBERS_PER_MESSAGE) {
                peer.send(step, &Message::Roster(part.to_vec()));
            }
        }
    }
}
