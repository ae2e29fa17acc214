//! Reports on their way to the operator's sink (`docs/protocol.md` §6.2): put together, bounded, checked against what was
//! announced, and handed out. The relay can't read them, and keeps none once the sink has it or has failed.
//!
//! What is remembered beyond that: for a minute who has begun a report, for the rates; and for [`REMEMBERED`] by which
//! names reports were taken, so that a client that missed the answer gets it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::capability::SignedCapability;
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::sign::Signature;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, MAX_REPORT, Receipt, ReportId, ReportRefusal};
use sha2::{Digest, Sha256};

use super::limits::Limits;
use super::meeting::Meeting;
use super::{Hub, Stage};
use crate::core::{ConnId, Delivery, Output, ReportTicket};

/// How long after its capability's end a member may still report (DESIGN §12).
pub(super) const PAST: Duration = Duration::from_secs(600);
/// Time without a new part after which a report is given up: eighty times what a client takes for one when it keeps to
/// its 256 kbit/s, and still an end to memory held for nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The span of the rates.
const MINUTE: Duration = Duration::from_secs(60);
/// How long the name of a report that was taken is known: longer than a client needs to come back.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);
/// Most names remembered; the oldest makes room. 0.5 MiB.
const MAX_REMEMBERED: usize = 8_192;

/// What a client says of a report before it comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Announced {
    pub(super) id: ReportId,
    pub(super) digest: [u8; 32],
    pub(super) length: usize,
}

impl Announced {
    /// The receipt is the beginning of the report's SHA-256: the same however often it is sent, at every relay of a
    /// cluster; and whoever has the report can check it.
    fn receipt(&self) -> Receipt {
        let mut receipt = [0; 10];
        receipt.copy_from_slice(&self.digest[..10]);
        Receipt(receipt)
    }
}

/// All reports of the relay.
///
/// INVARIANT: `held` is the announced length of everything in `pending` and `delivering`; `due` has one entry for each
/// of `pending`, no later than its time.
pub(super) struct Reports {
    has_sink: bool,
    pending: BTreeMap<ConnId, Pending>,
    /// When to look whether a report still makes progress.
    due: BTreeSet<(Instant, ConnId)>,
    delivering: BTreeMap<ReportTicket, Delivering>,
    next_ticket: u64,
    held: usize,
    /// The last minute's, the oldest first.
    begun: VecDeque<Begun>,
    taken: BTreeSet<Announced>,
    /// Of `taken`, the oldest first.
    taken_at: VecDeque<(Instant, Announced)>,
}

/// A report of which parts are still to come.
pub(super) struct Pending {
    announced: Announced,
    bytes: Vec<u8>,
    hash: Sha256,
    progress: Instant,
    due: Instant,
}

/// A report that the sink is busy with.
struct Delivering {
    conn: ConnId,
    announced: Announced,
}

/// Somebody has begun a report.
struct Begun {
    at: Instant,
    conn: ConnId,
    by: (MeetingId, MemberIndex),
}

/// What has become of a report by one more part.
enum Part {
    /// No such report is under way here: it was refused, or never announced.
    Stray,
    /// More is to come.
    More,
    /// The bytes are not what was announced.
    Damaged(ReportId),
    /// It is whole: for the sink.
    Whole(Output),
}

impl Reports {
    pub(super) fn new(has_sink: bool) -> Self {
        Self {
            has_sink,
            pending: BTreeMap::new(),
            due: BTreeSet::new(),
            delivering: BTreeMap::new(),
            next_ticket: 0,
            held: 0,
            begun: VecDeque::new(),
            taken: BTreeSet::new(),
            taken_at: VecDeque::new(),
        }
    }

    pub(super) fn has_sink(&self) -> bool {
        self.has_sink
    }

    /// Whether parts of a report are expected from this connection.
    pub(super) fn is_receiving(&self, conn: ConnId) -> bool {
        self.pending.contains_key(&conn)
    }

    /// Bytes of memory that reports may take up now, and the number of reports.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held, self.pending.len() + self.delivering.len())
    }

    /// Makes room for a report, or knows it already: then its receipt.
    fn announce(
        &mut self,
        now: Instant,
        limits: &Limits,
        conn: ConnId,
        by: (MeetingId, MemberIndex),
        announced: Announced,
    ) -> Result<Option<Receipt>, ReportRefusal> {
        if self.pending.get(&conn).is_some_and(|pending| pending.announced.id == announced.id) {
            // The client begins anew.
            self.abandon(conn);
        }
        if self.taken.contains(&announced) {
            return Ok(Some(announced.receipt()));
        }
        if announced.length == 0 {
            return Err(ReportRefusal::Damaged);
        }
        let is_busy = self.pending.contains_key(&conn);
        let is_full = self.held.saturating_add(announced.length) > limits.report_bytes;
        if is_busy || is_full || self.is_too_fast(limits, conn, by) {
            return Err(ReportRefusal::TooMany);
        }
        self.begun.push_back(Begun { at: now, conn, by });
        self.held += announced.length;
        let due = now + PATIENCE;
        self.due.insert((due, conn));
        let bytes = Vec::with_capacity(announced.length);
        self.pending.insert(conn, Pending { announced, bytes, hash: Sha256::new(), progress: now, due });
        Ok(None)
    }

    /// Takes time in proportion to the reports of a minute, which are bounded by the very rate.
    fn is_too_fast(&self, limits: &Limits, conn: ConnId, by: (MeetingId, MemberIndex)) -> bool {
        let most = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let of_connection = self.begun.iter().filter(|begun| begun.conn == conn).count();
        let of_slot = self.begun.iter().filter(|begun| begun.by == by).count();
        self.begun.len() >= most(limits.reports_per_minute)
            || of_connection.max(of_slot) >= most(limits.reports_of_one_per_minute)
    }

    fn part(&mut self, now: Instant, conn: ConnId, id: ReportId, bytes: &[u8]) -> Part {
        let Some(pending) = self.pending.get_mut(&conn).filter(|pending| pending.announced.id == id) else {
            return Part::Stray;
        };
        let missing = pending.announced.length - pending.bytes.len();
        if bytes.len() > missing {
            self.abandon(conn);
            return Part::Damaged(id);
        }
        // An empty part is no progress.
        if !bytes.is_empty() {
            pending.progress = now;
        }
        pending.hash.update(bytes);
        pending.bytes.extend_from_slice(bytes);
        if bytes.len() < missing { Part::More } else { self.finish(conn, id) }
    }

    /// All bytes are here.
    fn finish(&mut self, conn: ConnId, id: ReportId) -> Part {
        let Some(Pending { announced, bytes, hash, .. }) = self.abandon(conn) else { return Part::Stray };
        if <[u8; 32]>::from(hash.finalize()) != announced.digest {
            return Part::Damaged(id);
        }
        let ticket = ReportTicket(self.next_ticket);
        self.next_ticket += 1;
        self.held += announced.length;
        self.delivering.insert(ticket, Delivering { conn, announced });
        Part::Whole(Output::Report { ticket, receipt: announced.receipt(), bytes: Bytes::from(bytes) })
    }

    /// Lets go of what has come from a connection.
    pub(super) fn abandon(&mut self, conn: ConnId) -> Option<Pending> {
        let pending = self.pending.remove(&conn)?;
        self.held -= pending.announced.length;
        self.due.remove(&(pending.due, conn));
        Some(pending)
    }

    /// The sink has answered: who is to be told, and of which report.
    fn delivered(&mut self, now: Instant, ticket: ReportTicket, delivery: Delivery) -> Option<(ConnId, FromRelay)> {
        let Delivering { conn, announced } = self.delivering.remove(&ticket)?;
        self.held -= announced.length;
        let id = announced.id;
        let answer = match delivery {
            Delivery::Taken => {
                self.remember(now, announced);
                FromRelay::ReportTaken { id, receipt: announced.receipt() }
            }
            Delivery::Failed => FromRelay::ReportRefused { id, reason: ReportRefusal::Unavailable },
        };
        Some((conn, answer))
    }

    fn remember(&mut self, now: Instant, announced: Announced) {
        if self.taken.insert(announced) {
            self.taken_at.push_back((now, announced));
        }
        if self.taken_at.len() > MAX_REMEMBERED {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.taken_at.pop_front() {
            self.taken.remove(&oldest);
        }
    }

    /// Forgets what is over; the reports that have made no progress for too long.
    fn expire(&mut self, now: Instant) -> Vec<(ConnId, ReportId)> {
        while self.begun.front().is_some_and(|begun| begun.at + MINUTE <= now) {
            self.begun.pop_front();
        }
        while self.taken_at.front().is_some_and(|(at, _)| *at + REMEMBERED <= now) {
            self.forget_oldest();
        }
        let mut stalled = Vec::new();
        while let Some(&(at, conn)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(pending) = self.pending.get_mut(&conn) else { continue };
            pending.due = pending.progress + PATIENCE;
            if pending.due > now {
                self.due.insert((pending.due, conn));
            } else {
                stalled.push((conn, pending.announced.id));
                self.abandon(conn);
            }
        }
        stalled
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        let begun = self.begun.front().map(|begun| begun.at + MINUTE);
        let taken = self.taken_at.front().map(|(at, _)| *at + REMEMBERED);
        [due, begun, taken].into_iter().flatten().min()
    }
}

impl Hub {
    /// A client announces a report.
    pub(super) fn on_report(
        &mut self,
        now: Instant,
        conn: ConnId,
        meeting: MeetingId,
        announced: Announced,
        past: Option<&(SignedCapability, Signature)>,
        out: &mut Vec<Output>,
    ) {
        let outcome = self.admit_report(now, conn, meeting, announced, past);
        let id = announced.id;
        match outcome {
            Ok(None) => {}
            Ok(Some(receipt)) => {
                self.stats.reports_repeated += 1;
                self.tell(conn, &FromRelay::ReportTaken { id, receipt }, out);
            }
            Err(reason) => self.refuse_report(conn, id, reason, out),
        }
    }

    fn admit_report(
        &mut self,
        now: Instant,
        conn: ConnId,
        meeting: MeetingId,
        announced: Announced,
        past: Option<&(SignedCapability, Signature)>,
    ) -> Result<Option<Receipt>, ReportRefusal> {
        if !self.reports.has_sink() {
            return Err(ReportRefusal::NoSink);
        }
        if announced.length > MAX_REPORT {
            return Err(ReportRefusal::TooLong);
        }
        let slot = self.reporter(now, conn, meeting, past)?;
        self.reports.announce(now, &self.limits, conn, (meeting, slot), announced)
    }

    /// The slot that a report comes from: the connection's, or one that it had.
    fn reporter(
        &mut self,
        now: Instant,
        conn: ConnId,
        meeting: MeetingId,
        past: Option<&(SignedCapability, Signature)>,
    ) -> Result<MemberIndex, ReportRefusal> {
        let meeting = self.meetings.get(&meeting).ok_or(ReportRefusal::NotAllowed)?;
        if let Some(&slot) = meeting.slots.get(&conn) {
            return Ok(slot);
        }
        let (signed, possession) = past.ok_or(ReportRefusal::NotAllowed)?;
        let client = self.clients.get_mut(&conn).ok_or(ReportRefusal::NotAllowed)?;
        // Two signature checks, as for taking a slot.
        if !client.attaches.take(now, 1, self.limits.attaches) {
            return Err(ReportRefusal::TooMany);
        }
        let slot = meeting.past_slot(self.clock.at(now), &client.peer.exporter, signed, possession);
        slot.ok_or(ReportRefusal::NotAllowed)
    }

    /// A part of a report.
    pub(super) fn on_report_part(
        &mut self,
        now: Instant,
        conn: ConnId,
        id: ReportId,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) {
        match self.reports.part(now, conn, id, bytes) {
            // What was refused may have been under way already.
            Part::Stray => self.stats.report_parts_stray += 1,
            Part::More => {}
            Part::Damaged(id) => self.refuse_report(conn, id, ReportRefusal::Damaged, out),
            Part::Whole(output) => out.push(output),
        }
    }

    /// The sink has answered.
    pub(super) fn on_delivered(
        &mut self,
        now: Instant,
        ticket: ReportTicket,
        delivery: Delivery,
        out: &mut Vec<Output>,
    ) {
        let Some((conn, answer)) = self.reports.delivered(now, ticket, delivery) else { return };
        match answer {
            FromRelay::ReportRefused { id, reason } => self.refuse_report(conn, id, reason, out),
            taken => {
                self.stats.reports_taken += 1;
                self.tell(conn, &taken, out);
            }
        }
    }

    /// Time has passed.
    pub(super) fn expire_reports(&mut self, now: Instant, out: &mut Vec<Output>) {
        for (conn, id) in self.reports.expire(now) {
            self.stats.reports_stalled += 1;
            self.refuse_report(conn, id, ReportRefusal::Damaged, out);
        }
    }

    fn refuse_report(&mut self, conn: ConnId, id: ReportId, reason: ReportRefusal, out: &mut Vec<Output>) {
        self.stats.count_report_refusal(reason);
        self.tell(conn, &FromRelay::ReportRefused { id, reason }, out);
    }

    /// Sends something to a client that is still there.
    pub(super) fn tell(&self, conn: ConnId, message: &FromRelay, out: &mut Vec<Output>) {
        if self.clients.get(&conn).is_some_and(|client| !matches!(client.stage, Stage::Closed)) {
            out.push(Output::Control { to: conn, bytes: message.encode().into() });
        }
    }
}

impl Meeting {
    /// The slot of a capability that has ended lately, or that its holder could still use: judged as of the last moment
    /// at which it was valid. Whether it was revoked doesn't count, nor whether its signer has been removed since.
    fn past_slot(
        &self,
        wall: UnixMillis,
        exporter: &[u8; 32],
        signed: &SignedCapability,
        possession: &Signature,
    ) -> Option<MemberIndex> {
        let authority = self.authority()?;
        let last = signed.claimed.not_after;
        if wall > last.plus(PAST) {
            return None;
        }
        let capability = signed.verify(&authority, self.line.as_ref(), self.id, wall.min(last)).ok()?;
        signed.verify_possession(exporter, possession).ok()?;
        Some(capability.slot)
    }
}

#[cfg(test)]
impl Reports {
    /// The invariants, and the bounds.
    pub(super) fn assert_consistent(&self, limits: &Limits) {
        let pending = self.pending.values().map(|pending| pending.announced.length);
        let delivering = self.delivering.values().map(|delivering| delivering.announced.length);
        assert_eq!(self.held, pending.chain(delivering).sum::<usize>());
        assert!(self.held <= limits.report_bytes);
        let due: BTreeSet<_> = self.pending.iter().map(|(conn, pending)| (pending.due, *conn)).collect();
        assert_eq!(due, self.due);
        assert!(self.pending.values().all(|pending| pending.due <= pending.progress + PATIENCE));
        assert!(self.pending.values().all(|pending| pending.bytes.len() < pending.announced.length));
        assert!(self.begun.len() <= limits.reports_per_minute as usize);
        assert_eq!(self.taken.len(), self.taken_at.len());
    }
}
