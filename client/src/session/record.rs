//! A recording that this client makes: nothing is recorded before everybody was told.

use std::collections::BTreeSet;
use std::time::Instant;

use conclave_protocol::id::MemberIndex;

use super::Running;
use crate::report::Report;

/// Who records, as they have told.
#[derive(Default)]
pub(super) struct Recorders {
    told: BTreeSet<MemberIndex>,
    /// This client has to tell.
    owes: bool,
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
        if self.recorders.owes && self.conference.announce_recording(Instant::now(), true).is_ok() {
            self.recorders.owes = false;
            self.engine.start_recording();
        }
    }

    /// There is somebody who may not have heard of one's own recording.
    pub(super) fn owe_announcement(&mut self) {
        self.recorders.owes = self.engine.has_recording();
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
