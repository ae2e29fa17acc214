//! The time after the end: the session stays at the relay, so that nobody escapes a report by ending the meeting.

use std::time::{Duration, Instant};

use crate::exit::Outcome;
use crate::report::Report;
use crate::session::Running;

/// How long a report that is on its way may still take when the time is over: the longest one at its pace, and some
/// seconds for the answer.
const LAST: Duration = Duration::from_secs(75);

/// Until when.
pub(in crate::session) struct Staying {
    /// So long in any case.
    until: Instant,
    /// So long for what is on its way.
    last: Instant,
}

impl Running {
    /// Whether there is nothing more to do. When the meeting is over for this client, decides whether to stay.
    pub(in crate::session) fn is_done(&mut self) -> bool {
        let now = Instant::now();
        let Some(outcome) = self.outcome.clone() else { return false };
        if self.staying.is_none() && !self.begin_to_stay(now, &outcome) {
            return true;
        }
        let is_idle = self.reporting.is_idle();
        self.staying.as_ref().is_none_or(|staying| now >= staying.last || (is_idle && now >= staying.until))
    }

    fn begin_to_stay(&mut self, now: Instant, outcome: &Outcome) -> bool {
        let is_wanted = !self.reporting.settings.stay_for.is_zero() || !self.reporting.is_idle();
        // Who is told to end by a signal ends; and there must be a relay to report to, now or in a moment.
        let is_reachable = self.link.is_up() || (self.link.is_in_outage() && !matches!(outcome, Outcome::Relay(_)));
        let is_told = *outcome == (Outcome::Ended { by: "signal".to_owned() });
        if !is_wanted || !is_reachable || !self.was_member || is_told {
            return false;
        }
        let until = now + self.reporting.settings.stay_for;
        self.staying = Some(Staying { until, last: until + LAST });
        self.leave_at = None;
        self.told_end = true;
        match outcome {
            Outcome::Ended { by } => self.reports.send(Report::Ended { by: by.clone() }),
            other => {
                if let Some(message) = other.message() {
                    self.reports.send(Report::Error { message: message.to_owned() });
                }
            }
        }
        let message = if self.reporting.is_idle() {
            format!("you can report what was said for {} s; leave ends at once", (until - now).as_secs())
        } else {
            "a report is still on its way; leave ends at once".to_owned()
        };
        self.reports.send(Report::Notice { message });
        true
    }

    /// The user wants no more.
    pub(in crate::session) fn stop_staying(&mut self) {
        let now = Instant::now();
        self.staying = Some(Staying { until: now, last: now });
    }

    /// When to look whether it is over.
    pub(in crate::session) fn staying_due(&self) -> Option<Instant> {
        let staying = self.staying.as_ref()?;
        Some(if self.reporting.is_idle() { staying.until } else { staying.last })
    }

    /// Without a relay nothing can be handed over any more.
    pub(in crate::session) fn on_gave_up_staying(&mut self) {
        self.stop_staying();
    }
}
