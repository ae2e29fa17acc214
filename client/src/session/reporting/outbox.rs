//! Sealed reports on their way to the relay. Pure: time comes in as an argument, what is to be sent goes out.
//!
//! One at a time is announced, sent in parts and answered; the others wait. What is refused for the moment, and what a
//! lost connection has cut off, begins anew later under the same name, so that the relay keeps none twice. Of each report
//! that is held up the user is told once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::wire::relay::{Receipt, ReportId, ReportRefusal};

use super::holdup::Holdup;

/// Bytes in one part. A control message that comes after one waits for no more than these.
pub(super) const PART: usize = 2_048;
/// From one part to the next: 256 kbit/s (DESIGN §12), since nothing else holds reports back.
pub(super) const PART_TIME: Duration = Duration::from_millis(64);
/// How long the relay may take to answer a whole report: its sink has 33 s, and the answer has to come back.
const ANSWER: Duration = Duration::from_secs(45);
/// Wait after the first refusal for the moment; doubled with each.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest wait: a relay takes up to 6 reports a minute of one member.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Without a word so long, a report counts as held up. Less would alarm while a web server takes its 10 s to answer the
/// relay; more leaves people in the belief that all is well.
const PATIENCE: Duration = Duration::from_secs(10);
/// A report that arrives damaged so often will not arrive.
const MAX_DAMAGED: u32 = 3;

/// What is to be sent now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Send {
    /// A report is to come.
    Announcement { id: ReportId, length: usize, digest: [u8; 32] },
    /// Its next part.
    Part { id: ReportId, bytes: Bytes },
}

/// What the user is to know of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Handed on.
    Taken(Receipt),
    /// Never taken here.
    Refused(Holdup),
    /// Not taken yet, and tried again.
    HeldUp(Holdup),
}

/// A report that was not taken, and will not be.
pub(super) struct Returned {
    /// Its name.
    pub(super) id: ReportId,
    /// Its bytes.
    pub(super) sealed: Bytes,
    /// What is known last of why.
    pub(super) why: Holdup,
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// The first is the one under way, if any is.
    items: VecDeque<Item>,
    /// When something was last sent: what waits for its turn is not held up meanwhile.
    moved: Option<Instant>,
}

struct Item {
    id: ReportId,
    digest: [u8; 32],
    sealed: Bytes,
    state: State,
    refusals: u32,
    damaged: u32,
    added: Instant,
    /// What is known last, but for what the state shows.
    holdup: Option<Holdup>,
    is_told: bool,
}

enum State {
    Waits { from: Instant },
    Sends { sent: usize, next: Instant },
    Unanswered { until: Instant },
}

impl Outbox {
    /// Takes a sealed report.
    pub(super) fn add(&mut self, now: Instant, id: ReportId, digest: [u8; 32], sealed: Bytes) {
        self.items.push_back(Item {
            id,
            digest,
            sealed,
            state: State::Waits { from: now },
            refusals: 0,
            damaged: 0,
            added: now,
            holdup: None,
            is_told: false,
        });
    }

    /// Whether nothing is under way and nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// When [`Outbox::next`] has something to send, as long as there is a connection.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.items.iter().find_map(Item::under_way) {
            Some(due) => Some(due),
            None => self.items.iter().filter_map(Item::waits_until).min(),
        }
    }

    /// The next thing to send on a connection on which the relay answers.
    pub(super) fn next(&mut self, now: Instant) -> Option<Send> {
        let sent = self.begin_or_go_on(now);
        if sent.is_some() {
            self.moved = Some(now);
        }
        sent
    }

    fn begin_or_go_on(&mut self, now: Instant) -> Option<Send> {
        if let Some(item) = self.items.iter_mut().find(|item| item.under_way().is_some()) {
            let sent = item.go_on(now);
            if sent.is_some() || item.under_way().is_some() {
                return sent;
            }
        }
        let item = self.items.iter_mut().find(|item| item.waits_until().is_some_and(|from| from <= now))?;
        item.state = State::Sends { sent: 0, next: now + PART_TIME };
        Some(Send::Announcement { id: item.id, length: item.sealed.len(), digest: item.digest })
    }

    /// The connection is gone, and with it what the relay had of a report.
    pub(super) fn on_lost(&mut self, now: Instant) {
        for item in self.items.iter_mut().filter(|item| item.under_way().is_some()) {
            item.state = State::Waits { from: now };
        }
    }

    /// When [`Outbox::held_up`] has something to tell.
    pub(super) fn tells_at(&self) -> Option<Instant> {
        self.items.iter().filter_map(|item| item.tells_at(self.moved)).min()
    }

    /// The reports that nothing was heard of for too long, each once.
    pub(super) fn held_up(&mut self, now: Instant, is_connected: bool) -> Vec<(ReportId, Holdup)> {
        let moved = self.moved;
        let due = self.items.iter_mut().filter(|item| item.tells_at(moved).is_some_and(|at| at <= now));
        due.filter_map(|item| Some((item.id, item.tell(is_connected)?))).collect()
    }

    /// The relay has answered. Gives what is new of the report for its user.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        id: ReportId,
        answer: Result<Receipt, ReportRefusal>,
    ) -> Option<News> {
        let place = self.items.iter().position(|item| item.id == id)?;
        let item = self.items.get_mut(place)?;
        let news = match answer {
            Ok(receipt) => News::Taken(receipt),
            Err(reason) if item.is_final(reason) => News::Refused(Holdup::Refused(reason)),
            Err(reason) => {
                item.wait(now, Holdup::Refused(reason));
                return item.tell(true).map(News::HeldUp);
            }
        };
        self.items.remove(place);
        Some(news)
    }

    /// Everything that was not taken, when there is no more time.
    pub(super) fn give_up(&mut self, is_connected: bool) -> impl Iterator<Item = Returned> + use<> {
        let items = std::mem::take(&mut self.items).into_iter();
        items.map(move |item| Returned { id: item.id, why: item.why(is_connected), sealed: item.sealed })
    }

    /// The sealed bytes of a report that is still here.
    pub(super) fn sealed(&self, id: ReportId) -> Option<Bytes> {
        self.items.iter().find(|item| item.id == id).map(|item| item.sealed.clone())
    }
}

impl Item {
    /// When the user is told that it is held up, unless that was done.
    fn tells_at(&self, moved: Option<Instant>) -> Option<Instant> {
        let quiet_from = moved.map_or(self.added, |moved| moved.max(self.added));
        (!self.is_told).then_some(quiet_from + PATIENCE)
    }

    fn tell(&mut self, is_connected: bool) -> Option<Holdup> {
        let why = (!self.is_told).then(|| self.why(is_connected));
        self.is_told = true;
        why
    }

    fn why(&self, is_connected: bool) -> Holdup {
        self.holdup.unwrap_or(match self.state {
            State::Unanswered { .. } => Holdup::NoAnswer,
            _ if is_connected => Holdup::OnItsWay,
            _ => Holdup::NoConnection,
        })
    }

    /// When something is due of a report that is under way.
    fn under_way(&self) -> Option<Instant> {
        match self.state {
            State::Waits { .. } => None,
            State::Sends { next, .. } => Some(next),
            State::Unanswered { until } => Some(until),
        }
    }

    fn waits_until(&self) -> Option<Instant> {
        match self.state {
            State::Waits { from } => Some(from),
            _ => None,
        }
    }

    fn go_on(&mut self, now: Instant) -> Option<Send> {
        match self.state {
            State::Sends { sent, next } if next <= now => {
                let end = self.sealed.len().min(sent + PART);
                let bytes = self.sealed.slice(sent..end);
                // From now on and not from when it was due: what was missed is not made up for.
                self.state = if end == self.sealed.len() {
                    State::Unanswered { until: now + ANSWER }
                } else {
                    State::Sends { sent: end, next: now + PART_TIME }
                };
                Some(Send::Part { id: self.id, bytes })
            }
            State::Unanswered { until } if until <= now => {
                self.wait(now, Holdup::NoAnswer);
                None
            }
            _ => None,
        }
    }

    /// Whether trying again will not help.
    fn is_final(&mut self, reason: ReportRefusal) -> bool {
        match reason {
            ReportRefusal::NoSink | ReportRefusal::TooLong | ReportRefusal::NotAllowed => true,
            ReportRefusal::Damaged => {
                self.damaged += 1;
                self.damaged >= MAX_DAMAGED
            }
            ReportRefusal::Unavailable | ReportRefusal::TooMany => false,
        }
    }

    fn wait(&mut self, now: Instant, why: Holdup) {
        self.holdup = Some(why);
        let factor = 1u32.checked_shl(self.refusals).unwrap_or(u32::MAX);
        self.refusals += 1;
        self.state = State::Waits { from: now + RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX) };
    }
}

#[cfg(test)]
mod tests;
