//! Other histories than one's own: a leader who tells two of them, a statement that was withheld, and a meeting that
//! has split in two (`docs/protocol.md` §7.9).

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::event::{AlarmKind, Event};
use super::pulse::TO_ALL;
use super::seat::Seat;
use crate::epoch::witness::Witnessed;
use crate::id::{MemberIndex, Term};
use crate::label;
use crate::succession::{Line, Rank};

/// How long a statement that others have may be on its way to this member (R3 of the attack catalogue: 10 s in all).
const WITHHELD: Duration = Duration::from_secs(7);
/// How long a rival must be seen before a leader gives way to it: who is outranked and whom no majority of its own
/// roster hears goes first, then who has the rank and no majority, then who has a majority and not the rank. Who has
/// both stays. Each waits long enough to see whether the one before it has gone.
pub(super) const GIVE_WAY: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(24), Duration::from_secs(40)];
/// A rival that is not seen for so long is gone.
const RIVAL_GONE: Duration = Duration::from_secs(12);
/// Up to [`TO_ALL`] members, each shows its statement with every second heartbeat.
const SHOWS_EVERY: u32 = 2;

/// Another leader of the same meeting, as shown by somebody.
struct Other {
    shown: Witnessed,
    first: Instant,
    last: Instant,
}

/// That a leader told two histories, and the line of succession by which it led.
pub(super) struct Proof {
    pub(super) line: Option<Line>,
    pub(super) one: Witnessed,
    pub(super) other: Witnessed,
}

/// What is known of other histories.
#[derive(Default)]
pub(super) struct Rival {
    other: Option<Other>,
    ahead_since: Option<Instant>,
    told_withheld: bool,
    proof: Option<Box<Proof>>,
}

/// Who goes before when a meeting has split: the higher rank, so that no co-host can depose a host who is heard.
fn standing(seat: &Seat, term: Term, leader: MemberIndex) -> (Reverse<Rank>, Term, Reverse<MemberIndex>) {
    (Reverse(seat.rank(leader)), term, Reverse(leader))
}

/// Another leader, compared with one's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contest {
    /// How long it has been seen.
    pub(super) lasts: Duration,
    /// It goes before one's own.
    pub(super) outranked: bool,
    /// It began to lead later.
    pub(super) newer: bool,
}

impl Rival {
    /// Nobody could show anything before.
    pub(super) fn on_connected(&mut self) {
        self.ahead_since = None;
        self.other = None;
    }

    pub(super) fn on_epoch(&mut self) {
        self.ahead_since = None;
        self.told_withheld = false;
    }

    /// Whether this member shows its statement at a heartbeat: everybody in turn, in large meetings sixteen at a time
    /// who follow from the chain, so that nobody can choose them.
    pub(super) fn shows(&self, seat: &Seat, tick: u32) -> bool {
        let members = seat.roster().len();
        if members <= TO_ALL {
            return tick.wrapping_add(u32::from(seat.index().0)).is_multiple_of(SHOWS_EVERY);
        }
        let Some(chain) = seat.chain_hash() else { return false };
        let drawn = label::hash(label::SHOWS, &[&chain.0, &tick.to_be_bytes(), &seat.index().0.to_be_bytes()]);
        let drawn =
            u64::from_be_bytes([drawn[0], drawn[1], drawn[2], drawn[3], drawn[4], drawn[5], drawn[6], drawn[7]]);
        // About sixteen of all, by the share of each.
        (u128::from(drawn) * members as u128) >> 64 < TO_ALL as u128
    }

    /// Whether a statement says nothing new, so that its signature need not be checked.
    pub(super) fn is_known(&self, seat: &Seat, shown: &Witnessed) -> bool {
        let is_own = seat.statements().any(|own| own == shown);
        is_own || seat.chain_name() != Some(shown.statement.chain)
    }

    /// A valid statement of this chain that this member has not followed; the alarm it is worth, if any.
    pub(super) fn on_shown(&mut self, now: Instant, seat: &Seat, shown: Witnessed) -> Option<Event> {
        if let Some(own) = seat.statements().find(|own| own.contradicts(&shown)) {
            let leader = shown.statement.leader;
            let proof = Proof { line: seat.line().cloned(), one: own.clone(), other: shown };
            let is_new = self.proof.replace(Box::new(proof)).is_none();
            let detail = "the leader has told two members two different histories: somebody is deceived";
            return is_new.then_some(Event::Alarm { kind: AlarmKind::Equivocation, index: Some(leader), detail });
        }
        let (term, leader) = (shown.statement.term, shown.statement.leader);
        if (term, leader) == (seat.term(), seat.leader()) {
            if shown.statement.epoch > seat.epoch() {
                self.ahead_since.get_or_insert(now);
            }
            return None;
        }
        // An old leader's last statement is on its way for a moment; one that goes on makes epochs or heartbeats.
        match &mut self.other {
            Some(other) if (other.shown.statement.term, other.shown.statement.leader) == (term, leader) => {
                other.last = now;
                other.shown = shown;
            }
            // One that goes before it stays known.
            Some(other) if now.saturating_duration_since(other.last) < RIVAL_GONE => {
                let known = standing(seat, other.shown.statement.term, other.shown.statement.leader);
                if standing(seat, term, leader) > known {
                    self.other = Some(Other { shown, first: now, last: now });
                }
            }
            _ => self.other = Some(Other { shown, first: now, last: now }),
        }
        None
    }

    /// The alarm of a statement that others have and that has not come for too long.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Event> {
        if self.told_withheld || self.ahead_since.is_none_or(|since| now.saturating_duration_since(since) < WITHHELD) {
            return None;
        }
        self.told_withheld = true;
        let detail = "others are in a newer state of the meeting that does not reach this client: it is being withheld";
        Some(Event::Alarm { kind: AlarmKind::Withheld, index: None, detail })
    }

    pub(super) fn poll_timeout(&self, looked: Instant) -> Option<Instant> {
        let withheld = self.ahead_since.filter(|_| !self.told_withheld).map(|since| since + WITHHELD);
        let waits = self.other.iter().flat_map(|other| GIVE_WAY.map(|wait| other.first + wait));
        withheld.into_iter().chain(waits).filter(|at| *at > looked).min()
    }

    /// What is to be thought of another leader who is about, if there is one.
    pub(super) fn contest(&self, now: Instant, seat: &Seat) -> Option<Contest> {
        let other = self.seen(now)?;
        let statement = &other.shown.statement;
        let outranked = standing(seat, statement.term, statement.leader) > standing(seat, seat.term(), seat.leader());
        let newer = statement.term > seat.term();
        Some(Contest { lasts: now.saturating_duration_since(other.first), outranked, newer })
    }

    fn seen(&self, now: Instant) -> Option<&Other> {
        self.other.as_ref().filter(|other| now.saturating_duration_since(other.last) < RIVAL_GONE)
    }

    /// The proof that a leader told two histories.
    pub(super) fn proof(&self) -> Option<&Proof> {
        self.proof.as_deref()
    }
}
