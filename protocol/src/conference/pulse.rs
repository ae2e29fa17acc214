//! The meeting's pulse: the leader's heartbeats, everybody's confirmations of T_e, and the security code that follows
//! when all of them are there (`docs/protocol.md` §7.7, §7.8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::seat::Seat;
use crate::code::SecurityCode;
use crate::epoch::broadcast::{Beat, Confirm, Heartbeat, MAX_PASSED, Passed};
use crate::epoch::merkle;
use crate::epoch::roster::commitment_leaf;
use crate::epoch::schedule::fresh_commitment;
use crate::id::{MemberIndex, Term};
use crate::identity::Identity;
use crate::sign::KeyPair;
use crate::time::UnixMillis;

/// How soon the leader beats for somebody who has come back; those who come together share one.
const BEAT_SOON: Duration = Duration::from_millis(100);
/// Between two heartbeats at the least, however many come back: sixteen members answer each with a witness.
const BEAT_APART: Duration = Duration::from_secs(1);
/// Between two heartbeats (DESIGN §5).
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// Without a heartbeat for so long a member stops sending: its view of the meeting may be stale (DESIGN §5).
pub(super) const STALE: Duration = Duration::from_secs(10);
/// After so long it leaves.
pub(super) const GONE: Duration = Duration::from_secs(30);
/// Between two confirmations of one member; two may be lost before it is not heard any more.
const CONFIRM_EVERY: Duration = Duration::from_secs(4);
/// How long a new epoch is not confirmed, unless everybody is known to have it: who has not could not read it.
const CONFIRM_AFTER: Duration = Duration::from_millis(1_200);
/// In a large meeting so many members confirm together, and the next so much later: the leader's queue at the relay is bounded,
/// and what comes together costs a relay less than what comes apart.
const CONFIRM_TOGETHER: usize = 8;
const CONFIRM_SPREAD: Duration = Duration::from_millis(24);
/// A confirmation counts as recent for so long: three heartbeats.
const RECENT: Duration = Duration::from_secs(6);
/// Up to so many members confirm to everybody; above, to the leader, who passes it on (DESIGN §12).
pub(super) const TO_ALL: usize = 16;
/// Signatures that are checked at a time when many wait, and the pause between: a step stays below a millisecond.
const CHECKED_AT_ONCE: usize = 12;
const CHECK_PAUSE: Duration = Duration::from_millis(20);
/// An epoch must last so long before the signatures of a large meeting are checked for its code.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two words about a leader who is not heard.
const SAY_STALE_EVERY: Duration = Duration::from_secs(5);

/// Whether the leader has been heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// Lately.
    Fresh,
    /// Not for so long; nothing is sent.
    Stale(Duration),
    /// Not for too long.
    Gone,
}

/// What a heartbeat is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// The next of its chain.
    Good,
    /// Old, or of another state of the meeting.
    Passed,
    /// Not signed by the leader, or chained to another one than was heard.
    Bad,
}

/// The pulse as one member feels it.
pub(super) struct Pulse {
    connected: Instant,
    /// The last sign of the leader; on a new connection the clock starts again.
    last_beat: Instant,
    /// The last sign of the leader, whatever the connection; a heartbeat that was held back counts from when it was
    /// sent.
    last_good: Instant,
    /// The smallest difference between this clock and the leader's, in milliseconds.
    offset: Option<i64>,
    newest: Option<(Term, u32, [u8; 32])>,
    said_stale: Option<Instant>,
    /// Verified for this epoch.
    confirmed: BTreeMap<MemberIndex, Option<[u8; 32]>>,
    /// When each member last confirmed anything.
    recent: BTreeMap<MemberIndex, Instant>,
    /// Passed on by the leader, not looked at yet.
    unchecked: BTreeMap<MemberIndex, Confirm>,
    check_due: Option<Instant>,
    confirm_due: Option<Instant>,
    /// This member has confirmed the present epoch.
    is_confirming: bool,
    spread: Duration,
    epoch_since: Instant,
    code: Option<SecurityCode>,
    // ---- the leader's ----
    beat_due: Instant,
    own_n: u32,
    /// Confirmations that a leader takes as a sign of life name a later heartbeat than this.
    confirmed_after: u32,
    own_digest: [u8; 32],
    /// The last heartbeat as leader.
    beaten: Option<Heartbeat>,
    to_pass: BTreeMap<MemberIndex, Confirm>,
    /// Whose confirmation of this epoch was passed on.
    passed: BTreeSet<MemberIndex>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connected: now,
            last_beat: now,
            last_good: now,
            offset: None,
            newest: None,
            said_stale: None,
            confirmed: BTreeMap::new(),
            recent: BTreeMap::new(),
            unchecked: BTreeMap::new(),
            check_due: None,
            confirm_due: None,
            is_confirming: false,
            spread: Duration::ZERO,
            epoch_since: now,
            code: None,
            beat_due: now,
            own_n: 0,
            confirmed_after: 0,
            own_digest: [0; 32],
            beaten: None,
            to_pass: BTreeMap::new(),
            passed: BTreeSet::new(),
        }
    }

    /// A connection is up: nobody could be heard before.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.last_beat = now;
        self.beat_due = now;
        // An epoch that was confirmed once is confirmed anew at once: the others have it, and wait to hear this member.
        let soon = if self.is_confirming { self.spread } else { CONFIRM_AFTER };
        self.confirm_due = Some(now + soon);
        self.connected = now;
        self.confirmed_after = self.own_n;
    }

    /// A new epoch has begun. `at_once`: everybody is sure to take it now.
    pub(super) fn on_epoch(&mut self, now: Instant, seat: &Seat, at_once: bool) {
        self.confirmed.clear();
        self.unchecked.clear();
        self.to_pass.clear();
        self.passed.clear();
        self.check_due = None;
        self.code = None;
        self.is_confirming = false;
        self.epoch_since = now;
        self.spread = match seat.roster().len() {
            ..=TO_ALL => Duration::ZERO,
            members => CONFIRM_SPREAD * (usize::from(seat.index().0) % members / CONFIRM_TOGETHER) as u32,
        };
        self.confirm_due = Some(now + self.spread + if at_once { Duration::ZERO } else { CONFIRM_AFTER });
    }

    /// Another leader leads: its heartbeats begin.
    pub(super) fn on_leader(&mut self, now: Instant) {
        self.last_beat = now;
        self.last_good = now;
        self.offset = None;
        self.newest = None;
        self.own_n = 0;
        self.confirmed_after = 0;
        self.own_digest = [0; 32];
        self.beat_due = now;
    }

    /// Everybody has the epoch's key.
    pub(super) fn on_activated(&mut self, now: Instant) {
        self.confirm_due = self.confirm_due.map(|due| due.min(now + self.spread));
    }

    // ---- heartbeats ----

    pub(super) fn on_heartbeat(&mut self, now: Instant, wall: UnixMillis, seat: &Seat, heartbeat: &Heartbeat) -> Heard {
        let Some(key) = seat.leader_key() else { return Heard::Passed };
        if heartbeat.term != seat.term() || heartbeat.epoch != seat.epoch() {
            return Heard::Passed;
        }
        let last = self.newest.filter(|(term, ..)| *term == heartbeat.term);
        if last.is_some_and(|(_, n, _)| heartbeat.n <= n) {
            return Heard::Passed;
        }
        let follows = match last {
            Some((_, n, digest)) if heartbeat.n == n + 1 => heartbeat.previous == digest,
            // Some were missed, or none was heard yet.
            _ => true,
        };
        if heartbeat.verify(&key).is_err() || Some(heartbeat.chain) != seat.chain_hash() || !follows {
            return Heard::Bad;
        }
        self.newest = Some((heartbeat.term, heartbeat.n, heartbeat.digest()));
        self.last_beat = now;
        self.last_good = self.last_good.max(now.checked_sub(self.held_back(wall, heartbeat.time)).unwrap_or(now));
        Heard::Good
    }

    /// How much longer a heartbeat was on its way than the fastest one.
    fn held_back(&mut self, wall: UnixMillis, sent: UnixMillis) -> Duration {
        let offset = (wall.0 as i64).wrapping_sub(sent.0 as i64);
        let fastest = self.offset.map_or(offset, |fastest| fastest.min(offset));
        self.offset = Some(fastest);
        Duration::from_millis(u64::try_from(offset.saturating_sub(fastest)).unwrap_or(0))
    }

    /// The leader beats soon, for somebody who has come back.
    pub(super) fn beat_soon(&mut self, now: Instant) {
        self.beat_due = self.beat_due.min((self.last_good + BEAT_APART).max(now + BEAT_SOON));
    }

    /// The leader's newest heartbeat, for somebody who has come back and need not wait for the next.
    pub(super) fn newest_beat(&self, seat: &Seat) -> Option<&Heartbeat> {
        self.beaten.as_ref().filter(|beat| (beat.term, beat.epoch) == (seat.term(), seat.epoch()))
    }

    /// Whether this member may send: the leader, or a leader's members, were heard lately enough.
    pub(super) fn may_send(&self, now: Instant, seat: &Seat) -> bool {
        if seat.leader() != seat.index() {
            return now.saturating_duration_since(self.last_good) < STALE;
        }
        // Whom nobody confirms is alone, or cut off, and need not be sending either.
        let since = self.recent.iter().filter(|(i, _)| **i != seat.index()).map(|(_, at)| *at).max();
        let since = since.unwrap_or(now).max(self.connected).max(self.epoch_since);
        seat.roster().len() < 2 || now.saturating_duration_since(since) < STALE
    }

    /// How long the leader has not been heard.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_beat)
    }

    pub(super) fn last_beat(&self) -> Instant {
        self.last_beat
    }

    pub(super) fn health(&self, now: Instant) -> Health {
        match self.silence(now) {
            silence if silence >= GONE => Health::Gone,
            silence if silence >= STALE => Health::Stale(silence),
            _ => Health::Fresh,
        }
    }

    /// What is to be said of the leader's silence now: for how long it has lasted, zero when it is over.
    pub(super) fn stale_to_say(&mut self, now: Instant) -> Option<Duration> {
        match (self.health(now), self.said_stale) {
            (Health::Fresh, Some(_)) => {
                self.said_stale = None;
                Some(Duration::ZERO)
            }
            (Health::Stale(silence), said) if said.is_none_or(|at| at + SAY_STALE_EVERY <= now) => {
                self.said_stale = Some(now);
                Some(silence)
            }
            _ => None,
        }
    }

    /// The leader's next heartbeat, if one is due.
    pub(super) fn beat(&mut self, now: Instant, wall: UnixMillis, seat: &Seat, key: &KeyPair) -> Option<Heartbeat> {
        let chain = seat.chain_hash().filter(|_| self.beat_due <= now)?;
        self.own_n = self.own_n.saturating_add(1);
        let unconfirmed =
            seat.roster().members().map(|m| m.index).filter(|i| !self.confirmed.contains_key(i)).collect();
        let (term, epoch) = (seat.term(), seat.epoch());
        let beat = Beat { term, epoch, n: self.own_n, chain, previous: self.own_digest, time: wall, unconfirmed };
        let heartbeat = Heartbeat::sign(beat, key);
        self.own_digest = heartbeat.digest();
        self.beaten = Some(heartbeat.clone());
        self.newest = Some((term, self.own_n, self.own_digest));
        self.last_beat = now;
        self.last_good = now;
        self.beat_due = now + BEAT;
        Some(heartbeat)
    }

    // ---- confirmations ----

    /// This member's confirmation, if one is due; it counts as given.
    pub(super) fn confirm(&mut self, now: Instant, seat: &Seat, identity: &Identity) -> Option<Confirm> {
        if self.confirm_due.is_none_or(|due| due > now) {
            return None;
        }
        let chain = seat.chain_hash()?;
        self.confirm_due = Some(now + CONFIRM_EVERY);
        self.is_confirming = true;
        let heard = self.newest.filter(|(term, ..)| *term == seat.term());
        let n = heard.map_or(0, |(_, n, _)| n);
        let value = seat.revealed().copied();
        let confirm = Confirm::sign(identity, seat.index(), &chain, (seat.term(), seat.epoch(), n), value);
        self.confirmed.insert(seat.index(), value);
        self.recent.insert(seat.index(), now);
        Some(confirm)
    }

    /// A member's confirmation; `false` when it confirms another history than this one, signed by its identity or not.
    pub(super) fn on_confirm(&mut self, now: Instant, seat: &mut Seat, index: MemberIndex, confirm: &Confirm) -> bool {
        if confirm.epoch != seat.epoch() || index == seat.index() {
            return true;
        }
        let (Some(chain), Some(member)) = (seat.chain_hash(), seat.roster().member(index)) else { return true };
        if confirm.verify(&member.cert.identity, index, &chain).is_err() {
            return false;
        }
        self.confirmed.insert(index, confirm.value);
        let leads = seat.leader() == seat.index();
        if !leads || self.confirmed_after == 0 || confirm.n > self.confirmed_after {
            self.recent.insert(index, now);
        }
        seat.on_confirmed(now, index);
        true
    }

    /// The leader keeps a confirmation for those whom it has not reached: the first of an epoch, and those of talkers.
    pub(super) fn pass_on(&mut self, index: MemberIndex, confirm: Confirm, is_talking: bool) {
        if is_talking || self.passed.insert(index) {
            self.to_pass.insert(index, confirm);
        }
    }

    /// Those kept, in pieces that fit a message each.
    pub(super) fn take_passed(&mut self) -> Vec<Vec<Passed>> {
        let passed: Vec<Passed> =
            std::mem::take(&mut self.to_pass).into_iter().map(|(index, confirm)| Passed { index, confirm }).collect();
        passed.chunks(MAX_PASSED).map(<[Passed]>::to_vec).collect()
    }

    /// Confirmations that the leader passes on: those of talkers are checked now, the others when the epoch stays.
    /// Gives those that confirm another history.
    pub(super) fn on_passed(&mut self, now: Instant, seat: &mut Seat, passed: Vec<Passed>) -> Vec<MemberIndex> {
        let mut bad = Vec::new();
        for Passed { index, confirm } in passed {
            if confirm.epoch != seat.epoch() || index == seat.index() {
                continue;
            }
            if seat.is_talking(now, index) {
                if !self.on_confirm(now, seat, index, &confirm) {
                    bad.push(index);
                }
            } else if !self.confirmed.contains_key(&index) {
                self.unchecked.insert(index, confirm);
            }
        }
        self.check_due = (!self.unchecked.is_empty()).then(|| now.max(self.epoch_since + SETTLED));
        bad
    }

    /// Checks some of those that wait, once all are there.
    pub(super) fn check_some(&mut self, now: Instant, seat: &mut Seat) -> Vec<MemberIndex> {
        let mut bad = Vec::new();
        if self.check_due.is_none_or(|due| due > now) {
            return bad;
        }
        if self.confirmed.len() + self.unchecked.len() < seat.roster().len() {
            // More have to come; their coming sets the time again.
            self.check_due = None;
            return bad;
        }
        for _ in 0..CHECKED_AT_ONCE {
            let Some((index, confirm)) = self.unchecked.pop_first() else { break };
            if !self.on_confirm(now, seat, index, &confirm) {
                bad.push(index);
            }
        }
        self.check_due = (!self.unchecked.is_empty()).then(|| now + CHECK_PAUSE);
        bad
    }

    /// This side slept, or was stopped: what it finds waiting is old, and nobody could be heard meanwhile.
    pub(super) fn on_woken(&mut self, now: Instant) {
        self.last_beat = now;
        self.connected = now;
        self.confirmed_after = self.own_n;
        self.beat_due = self.beat_due.min(now);
    }

    /// Since when this side has a connection and is awake.
    pub(super) fn awake_since(&self) -> Instant {
        self.connected
    }

    /// Whether this side has had a connection for long enough to know who hears it.
    pub(super) fn knows_who_hears(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.connected) >= RECENT
    }

    /// How many members, this one included, have confirmed anything lately, or could not yet since this side has a
    /// connection.
    pub(super) fn recent(&self, now: Instant, seat: &Seat) -> usize {
        if !self.knows_who_hears(now) {
            return seat.roster().len();
        }
        self.heard(now, seat)
    }

    /// How many members, this one included, have confirmed anything lately on this connection.
    pub(super) fn heard(&self, now: Instant, seat: &Seat) -> usize {
        let counts = |at: &Instant| *at >= self.connected && now.saturating_duration_since(*at) < RECENT;
        let is_other = |index: &MemberIndex| *index != seat.index() && seat.roster().member(*index).is_some();
        1 + self.recent.iter().filter(|(index, at)| is_other(index) && counts(at)).count()
    }

    /// Forgets what concerns nobody any more.
    pub(super) fn follow_roster(&mut self, now: Instant, seat: &Seat) {
        self.recent.retain(|index, _| seat.roster().member(*index).is_some());
        for member in seat.roster().members() {
            self.recent.entry(member.index).or_insert(now);
        }
    }

    // ---- the code ----

    /// The security code, once everybody has confirmed and shown what they had committed to.
    pub(super) fn new_code(&mut self, seat: &Seat) -> Option<SecurityCode> {
        if self.code.is_some() || self.confirmed.len() < seat.roster().len() {
            return None;
        }
        let chain = seat.chain_hash()?;
        let mut values = Vec::with_capacity(self.confirmed.len());
        for member in seat.roster().members() {
            values.push((member.index, (*self.confirmed.get(&member.index)?)?));
        }
        let meeting = seat.meeting();
        let leaf =
            |(index, value): &(MemberIndex, [u8; 32])| commitment_leaf(*index, &fresh_commitment(meeting, value));
        let leaves: Vec<[u8; 32]> = values.iter().map(leaf).collect();
        // Whoever shows another value than it had committed to changes the root, and there is no code.
        if merkle::root(&leaves) != seat.commitments_root() {
            return None;
        }
        self.code = Some(SecurityCode::derive(&chain, values.into_iter()));
        self.code.clone()
    }

    pub(super) fn code(&self) -> Option<&SecurityCode> {
        self.code.as_ref()
    }

    /// When something is due here; `leads`, for a leader.
    pub(super) fn poll_timeout(&self, now_connected: bool, leads: bool) -> Option<Instant> {
        if !now_connected {
            return None;
        }
        let silence = if leads {
            Some(self.beat_due)
        } else {
            let stale = match self.said_stale {
                None => self.last_beat + STALE,
                Some(said) => said + SAY_STALE_EVERY,
            };
            Some(stale.min(self.last_beat + GONE).max(self.last_beat + STALE))
        };
        [silence, self.confirm_due, self.check_due].into_iter().flatten().min()
    }
}
