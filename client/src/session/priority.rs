//! The priority of the thread that drives the frame clock.

use super::Running;
use crate::realtime;
use crate::report::Report;

impl Running {
    /// Goes before the rest of the machine while there are devices to serve in time. A file can wait.
    pub(super) fn raise_priority(&mut self) {
        let (input, output) = self.engine.device_figures();
        if input.is_none() && output.is_none() {
            return;
        }
        let reason = realtime::refusal().map(str::to_owned);
        self.reports.send(Report::Realtime { granted: reason.is_none(), reason });
        self.priority = Some(realtime::raise());
    }

    /// Goes in turn with the rest of the machine when there is too much to do.
    pub(super) fn watch_priority(&mut self) {
        if self.priority.as_mut().is_some_and(|priority| priority.watch()) {
            let reason = "the meeting takes more than half of a processor".to_owned();
            self.reports.send(Report::Realtime { granted: false, reason: Some(reason) });
        }
    }
}
