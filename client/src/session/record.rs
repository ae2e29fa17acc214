//! A recording that this client makes: nothing is recorded before everybody was told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use conclave_protocol::id::MemberIndex;

use super::Running;
use crate::report::Report;

/// Who records, as they have told.
#[derive(Default)]
pub(super) struct Recorders {
    told: BTreeSet<MemberIndex>,
    /// This client has to tell that it records, or that it does so no more.
    owes: Option<bool>,
    /// What a slow disk had cost when this was told last.
    lost_told: Duration,
}

impl Recorders {
    /// A member told. Whether that is news.
    fn note(&mut self, index: MemberIndex, on: bool) -> bool {
        if on { self.told.insert(index) } else { self.told.remove(&index) }
    }

    pub(super) fn contains(&self, index: u16) -> bool {
        self.told.contains(&MemberIndex(index))
    }
}

impl Running {
    /// Tells everybody of one's own recording; then it runs. What cannot be told yet is told later.
    pub(super) fn announce_recording(&mut self) {
        let Some(on) = self.recorders.owes else { return };
        if self.conference.announce_recording(Instant::now(), on).is_ok() {
            self.recorders.owes = None;
            if on {
                self.engine.start_recording();
            }
        }
    }

    /// A recording or an output that cannot be written any more is over: the user is told why, and everybody that nothing
    /// is recorded any more. What a slow disk costs is told when it begins, and whenever it has doubled.
    pub(super) fn watch_files(&mut self) {
        if let Some(message) = self.engine.end_failed_recording() {
            self.reports.send(Report::Error { message });
            self.recorders.owes = Some(false);
        }
        if let Some(message) = self.engine.end_failed_output() {
            self.reports.send(Report::Error { message });
        }
        let lost = self.frame.duration() * u32::try_from(self.engine.faults().overruns).unwrap_or(u32::MAX);
        if lost > 2 * self.recorders.lost_told {
            self.recorders.lost_told = lost;
            let message = format!("the disk is too slow: {:.1} s of what is written are silence", lost.as_secs_f64());
            self.reports.send(Report::Error { message });
        }
    }

    /// There is somebody who may not have heard of one's own recording.
    pub(super) fn owe_announcement(&mut self) {
        if self.engine.has_recording() {
            self.recorders.owes = Some(true);
        }
    }

    pub(super) fn on_recording(&mut self, index: MemberIndex, on: bool) {
        if self.recorders.note(index, on) {
            self.reports.send(Report::Recording { index: index.0, on });
            self.report_roster();
        }
    }

    /// Whoever is gone records no more.
    pub(super) fn forget_recorders(&mut self) {
        let here: BTreeSet<MemberIndex> = self.conference.members().map(|member| member.index).collect();
        self.recorders.told.retain(|index| here.contains(index));
    }
}
