//! Sealed reports on their way to the relay. Pure: time comes in as an argument, what is to be sent goes out.
//!
//! One at a time is announced, sent in parts and answered; the others wait. What is refused for the moment, and what a
//! lost connection has cut off, begins anew later under the same name, so that the relay keeps none twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::wire::relay::{Receipt, ReportId, ReportRefusal};

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

/// What has become of a report for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// Handed on.
    Taken(Receipt),
    /// Never taken here.
    Refused(ReportRefusal),
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// The first is the one under way, if any is.
    items: VecDeque<Item>,
}

struct Item {
    id: ReportId,
    digest: [u8; 32],
    sealed: Bytes,
    state: State,
    refusals: u32,
    damaged: u32,
}

enum State {
    Waits { from: Instant },
    Sends { sent: usize, next: Instant },
    Unanswered { until: Instant },
}

impl Outbox {
    /// Takes a sealed report.
    pub(super) fn add(&mut self, now: Instant, id: ReportId, digest: [u8; 32], sealed: Bytes) {
        let state = State::Waits { from: now };
        self.items.push_back(Item { id, digest, sealed, state, refusals: 0, damaged: 0 });
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

    /// The relay has answered. Gives what has become of the report, unless it is tried again.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        id: ReportId,
        answer: Result<Receipt, ReportRefusal>,
    ) -> Option<Settled> {
        let place = self.items.iter().position(|item| item.id == id)?;
        let item = self.items.get_mut(place)?;
        let settled = match answer {
            Ok(receipt) => Settled::Taken(receipt),
            Err(reason) => Settled::Refused(item.on_refusal(now, reason)?),
        };
        self.items.remove(place);
        Some(settled)
    }

    /// Everything that was not taken, when there is no more time.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = ReportId> + use<> {
        std::mem::take(&mut self.items).into_iter().map(|item| item.id)
    }

    /// The sealed bytes of a report that is still here.
    pub(super) fn sealed(&self, id: ReportId) -> Option<Bytes> {
        self.items.iter().find(|item| item.id == id).map(|item| item.sealed.clone())
    }
}

impl Item {
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
                self.wait(now);
                None
            }
            _ => None,
        }
    }

    /// Gives the reason back when it will not change.
    fn on_refusal(&mut self, now: Instant, reason: ReportRefusal) -> Option<ReportRefusal> {
        self.damaged += u32::from(reason == ReportRefusal::Damaged);
        let is_final = match reason {
            ReportRefusal::NoSink | ReportRefusal::TooLong | ReportRefusal::NotAllowed => true,
            ReportRefusal::Damaged => self.damaged >= MAX_DAMAGED,
            ReportRefusal::Unavailable | ReportRefusal::TooMany => false,
        };
        self.wait(now);
        is_final.then_some(reason)
    }

    fn wait(&mut self, now: Instant) {
        let factor = 1u32.checked_shl(self.refusals).unwrap_or(u32::MAX);
        self.refusals += 1;
        self.state = State::Waits { from: now + RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RECEIPT: Receipt = Receipt([7; 10]);

    fn id(n: u8) -> ReportId {
        ReportId([n; 16])
    }

    fn with(now: Instant, reports: &[u8]) -> Outbox {
        let mut outbox = Outbox::default();
        for n in reports {
            outbox.add(now, id(*n), [*n; 32], Bytes::from(vec![*n; 65_536]));
        }
        outbox
    }

    /// Everything that is sent until `until`, with its time; the caller's clock is only as good as `step`.
    fn run(outbox: &mut Outbox, now: Instant, until: Duration, step: Duration) -> Vec<(Duration, Send)> {
        let mut sent = Vec::new();
        let mut at = now;
        while at <= now + until {
            while let Some(send) = outbox.next(at) {
                sent.push((at - now, send));
            }
            at += step;
        }
        sent
    }

    fn bytes_of(sent: &[(Duration, Send)]) -> usize {
        let length = |send: &Send| if let Send::Part { bytes, .. } = send { bytes.len() } else { 0 };
        sent.iter().map(|(_, send)| length(send)).sum()
    }

    #[test]
    fn a_report_is_announced_and_sent_at_256_kbit_a_second_in_parts_that_make_it_whole() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        let sent = run(&mut outbox, now, 10 * SECOND, Duration::from_millis(1));
        assert_eq!(sent[0].1, Send::Announcement { id: id(1), length: 65_536, digest: [1; 32] });
        assert_eq!(sent.len(), 1 + 65_536 / PART);
        assert_eq!(bytes_of(&sent), 65_536);
        for window in sent.windows(2) {
            assert!(window[1].0 - window[0].0 >= PART_TIME, "{window:?}");
        }
        assert_eq!(sent.last().expect("sent").0, PART_TIME * 32);
        assert_eq!(outbox.on_answer(now, id(1), Ok(RECEIPT)), Some(Settled::Taken(RECEIPT)));
        assert!(outbox.is_empty() && outbox.due().is_none());
    }

    #[test]
    fn a_caller_that_was_late_sends_no_burst() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        let sent = run(&mut outbox, now, 3 * SECOND, SECOND);
        assert_eq!(bytes_of(&sent), 3 * PART);
    }

    #[test]
    fn the_second_report_waits_for_the_answer_to_the_first() {
        let now = Instant::now();
        let mut outbox = with(now, &[1, 2]);
        let sent = run(&mut outbox, now, 30 * SECOND, PART_TIME);
        assert_eq!(bytes_of(&sent), 65_536);
        let later = now + 31 * SECOND;
        assert!(outbox.on_answer(later, id(1), Ok(RECEIPT)).is_some());
        assert!(matches!(outbox.next(later), Some(Send::Announcement { id: of, .. }) if of == id(2)));
    }

    #[test]
    fn a_refusal_stops_the_parts_and_is_tried_again_ever_later_or_never() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        run(&mut outbox, now, SECOND, PART_TIME);
        let mut at = now + SECOND;
        for wait in [5, 10, 20, 40, 60, 60] {
            assert_eq!(outbox.on_answer(at, id(1), Err(ReportRefusal::TooMany)), None);
            assert_eq!(outbox.next(at), None);
            assert_eq!(outbox.due(), Some(at + wait * SECOND));
            at += wait * SECOND;
            assert!(matches!(outbox.next(at), Some(Send::Announcement { .. })));
        }
        let refused = outbox.on_answer(at, id(1), Err(ReportRefusal::NoSink));
        assert_eq!(refused, Some(Settled::Refused(ReportRefusal::NoSink)));
        assert_eq!(outbox.on_answer(at, id(1), Ok(RECEIPT)), None, "it is gone");
    }

    #[test]
    fn a_report_that_never_arrives_whole_is_given_up_after_three_times() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        let damaged = Err(ReportRefusal::Damaged);
        assert_eq!(outbox.on_answer(now, id(1), damaged), None);
        assert_eq!(outbox.on_answer(now, id(1), damaged), None);
        assert_eq!(outbox.on_answer(now, id(1), damaged), Some(Settled::Refused(ReportRefusal::Damaged)));
    }

    #[test]
    fn a_lost_connection_begins_it_anew_under_the_same_name_at_once() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        let before = run(&mut outbox, now, SECOND, PART_TIME);
        outbox.on_lost(now + SECOND);
        let after = run(&mut outbox, now + SECOND, 5 * SECOND, PART_TIME);
        assert_eq!(before[0].1, after[0].1);
        assert_eq!(bytes_of(&after), 65_536);
    }

    #[test]
    fn an_answer_that_does_not_come_is_asked_for_again() {
        let now = Instant::now();
        let mut outbox = with(now, &[1]);
        let sent = run(&mut outbox, now, 40 * SECOND, PART_TIME);
        assert_eq!(bytes_of(&sent), 65_536);
        let again = run(&mut outbox, now + 41 * SECOND, 30 * SECOND, PART_TIME);
        assert_eq!(bytes_of(&again), 65_536);
        assert_eq!(outbox.sealed(id(1)).map(|sealed| sealed.len()), Some(65_536));
        assert_eq!(outbox.give_up().collect::<Vec<_>>(), [id(1)]);
        assert!(outbox.is_empty());
    }
}
