//! What the user is told of reports that are on their way, and what is left of those that failed.

use std::fs;
use std::time::Instant;

use conclave_protocol::wire::relay::{Receipt, ReportId, ReportRefusal};

use super::holdup::Holdup;
use super::outbox::{News, Returned};
use super::{Case, prepare};
use crate::private;
use crate::report::Report;
use crate::session::Running;

impl Running {
    /// The relay has answered.
    pub(in crate::session) fn on_report_answered(&mut self, id: ReportId, answer: Result<Receipt, ReportRefusal>) {
        let sealed = self.reporting.outbox.sealed(id);
        match self.reporting.outbox.on_answer(Instant::now(), id, answer) {
            None => {}
            Some(News::Taken(receipt)) => {
                let Some(case) = self.reporting.cases.remove(&id) else { return };
                if let Some(kept) = &case.kept {
                    // What stays is sealed, and whoever hands it over hands it over twice.
                    let _ = fs::remove_file(kept);
                }
                self.reports.send(Report::Reported { receipt: prepare::receipt(&receipt.0), to: case.to });
            }
            Some(News::HeldUp(why)) => self.tell_held_up(id, why),
            Some(News::Refused(why)) => self.fail_report(id, &why.to_string(), sealed.as_deref()),
        }
    }

    /// When [`Running::tell_held_up_reports`] has something to tell.
    pub(in crate::session) fn held_up_due(&self) -> Option<Instant> {
        self.reporting.outbox.tells_at()
    }

    /// Tells of every report that nothing was heard of for too long.
    pub(in crate::session) fn tell_held_up_reports(&mut self) {
        for (id, why) in self.reporting.outbox.held_up(Instant::now(), self.link.is_answered()) {
            self.tell_held_up(id, why);
        }
    }

    fn tell_held_up(&self, id: ReportId, why: Holdup) {
        let Some(Case { to, kept, save }) = self.reporting.cases.get(&id) else { return };
        let meanwhile = match (kept, save) {
            (_, Some(save)) => format!(", and saved as {} if it is not taken", save.display()),
            (Some(_), None) => ", and kept until it is taken".to_owned(),
            (None, None) => "; it is not saved".to_owned(),
        };
        self.reports.send(Report::ReportFailed {
            reason: format!("{why}; it is tried again for as long as this client runs{meanwhile}"),
            to: Some(to.clone()),
            saved: kept.as_ref().map(|kept| kept.display().to_string()),
            retrying: true,
        });
    }

    /// There is no more time: what was not taken is left to the user.
    pub(in crate::session) fn give_up_reports(&mut self) {
        for Returned { id, sealed, why } in self.reporting.outbox.give_up(self.link.is_answered()) {
            self.fail_report(id, &format!("{why}, and this client ended before it was taken"), Some(&sealed));
        }
    }

    fn fail_report(&mut self, id: ReportId, why: &str, sealed: Option<&[u8]>) {
        let Some(Case { to, kept, save }) = self.reporting.cases.remove(&id) else { return };
        let saved = match (save, sealed) {
            (Some(save), Some(sealed)) => match private::write_new(&save, sealed) {
                Ok(()) => Some(save),
                Err(error) => {
                    let message = format!("the report cannot be saved as {}: {error:#}", save.display());
                    self.reports.send(Report::Error { message });
                    kept
                }
            },
            _ => kept,
        };
        let advice = match &saved {
            Some(_) => format!("the sealed report is saved: hand it to {to} in another way"),
            None => "it is not saved: report again with a file to save it in, or start with --home".to_owned(),
        };
        let saved = saved.map(|saved| saved.display().to_string());
        let reason = format!("{why}; {advice}");
        self.reports.send(Report::ReportFailed { reason, to: Some(to), saved, retrying: false });
    }
}
