//! Where a session's reports go: a queue that never makes the session wait.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::report::Report;

/// Above so many reports that wait for a reader, statistics are left out, since they come without anything having
/// happened, and so is who speaks, which is of the moment; and no commands are read, since each may be answered by a
/// report. Whatever else happens in the meeting is never left out.
pub const BACKLOG: usize = 64;

/// The session's end.
#[derive(Clone)]
pub struct ReportSink {
    start: Instant,
    reports: Sender<Stamped>,
    backlog: Arc<Backlog>,
}

/// The reader's end.
pub struct ReportSource {
    reports: Receiver<Stamped>,
    backlog: Arc<Backlog>,
}

/// A report and when it was made.
pub struct Stamped {
    /// Milliseconds since the process started.
    pub t_ms: u64,
    /// The report.
    pub report: Report,
}

/// What waits for the reader.
#[derive(Default)]
struct Backlog {
    count: Mutex<Count>,
    fell: Condvar,
}

#[derive(Default)]
struct Count {
    waiting: usize,
    /// The reader is gone.
    unread: bool,
}

impl Backlog {
    fn count(&self) -> MutexGuard<'_, Count> {
        // Nothing that holds it can panic half-way.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue for reports; times count from `start`.
pub fn queue(start: Instant) -> (ReportSink, ReportSource) {
    let (sender, receiver) = channel();
    let backlog = Arc::new(Backlog::default());
    let sink = ReportSink { start, reports: sender, backlog: Arc::clone(&backlog) };
    (sink, ReportSource { reports: receiver, backlog })
}

impl ReportSink {
    /// Hands a report over.
    pub fn send(&self, report: Report) {
        let mut count = self.backlog.count();
        if matches!(report, Report::Stats { .. } | Report::Speaking { .. }) && count.waiting > BACKLOG {
            return;
        }
        count.waiting += 1;
        drop(count);
        let t_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Without a reader nobody wants to know.
        let _ = self.reports.send(Stamped { t_ms, report });
    }

    /// Reports that wait for the reader.
    pub fn waiting(&self) -> usize {
        self.backlog.count().waiting
    }

    /// Waits until no more than [`BACKLOG`] reports wait, or the reader is gone. Not for the session, which never
    /// waits: for whoever gives it more to report.
    pub fn wait_for_room(&self) {
        let count = self.backlog.count();
        let is_full = |count: &mut Count| count.waiting > BACKLOG && !count.unread;
        // The guard serves no purpose any more.
        drop(self.backlog.fell.wait_while(count, is_full));
    }
}

impl Iterator for ReportSource {
    type Item = Stamped;

    /// Waits for the next report; `None` once every sink is gone.
    fn next(&mut self) -> Option<Stamped> {
        let stamped = self.reports.recv().ok()?;
        let mut count = self.backlog.count();
        count.waiting = count.waiting.saturating_sub(1);
        if count.waiting <= BACKLOG {
            self.backlog.fell.notify_all();
        }
        Some(stamped)
    }
}

impl Drop for ReportSource {
    fn drop(&mut self) {
        self.backlog.count().unread = true;
        self.backlog.fell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_backlog_statistics_and_speakers_are_left_out_and_nothing_else() {
        let (sink, source) = queue(Instant::now());
        for _ in 0..2 * BACKLOG {
            sink.send(Report::Removed);
            sink.send(Report::Stats {
                talkers: Vec::new(),
                devices: crate::report::Devices { input: None, output: None },
            });
            sink.send(Report::Speaking { index: 1, on: true });
        }
        drop(sink);
        let (removed, rest): (Vec<_>, Vec<_>) = source.partition(|stamped| stamped.report == Report::Removed);
        assert_eq!(removed.len(), 2 * BACKLOG);
        assert!(rest.len() <= BACKLOG);
    }
}
