//! A recording that this client makes: nothing is recorded before everybody was told.

use std::collections::BTreeSet;
use std::time::Instant;

use conclave_protocol::id::MemberIndex;

use super::Running;
use crate::report::Report;

/// Who records, as they have told.
#[derive(Default)]
pub(super) struct Recorders(BTreeSet<MemberIndex>);

impl Recorders {
    /// A member told. Whether that is news.
    fn note(&mut self, index: MemberIndex, on: bool) -> bool {
        if on { self.0.insert(index) } else { self.0.remove(&index) }
    }

    pub(super) fn contains(&self, index: u16) -> bool {
        self.0.contains(&MemberIndex(index))
    }
}

impl Running {
    /// Tells everybody of one's own recording, in each roster anew, because newcomers have not heard of it; then it runs.
    pub(super) fn announce_recording(&mut self) {
        if self.engine.has_recording() && self.conference.announce_recording(Instant::now(), true).is_ok() {
            self.engine.start_recording();
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
        self.recorders.0.retain(|index| here.contains(index));
    }
}
