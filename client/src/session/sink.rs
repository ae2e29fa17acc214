//! Where a session's reports go: a queue that never makes the session wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use crate::report::Report;

/// Statistics are left out while so many reports wait for a reader: they are the only reports that come without
/// anything having happened, so nothing else can pile up.
const BACKLOG: usize = 64;

/// The session's end.
#[derive(Clone)]
pub struct ReportSink {
    start: Instant,
    reports: Sender<Stamped>,
    waiting: Arc<AtomicUsize>,
}

/// The reader's end.
pub struct ReportSource {
    reports: Receiver<Stamped>,
    waiting: Arc<AtomicUsize>,
}

/// A report and when it was made.
pub struct Stamped {
    /// Milliseconds since the process started.
    pub t_ms: u64,
    /// The report.
    pub report: Report,
}

/// A queue for reports; times count from `start`.
pub fn queue(start: Instant) -> (ReportSink, ReportSource) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sink = ReportSink { start, reports: sender, waiting: Arc::clone(&waiting) };
    (sink, ReportSource { reports: receiver, waiting })
}

impl ReportSink {
    /// Hands a report over.
    pub fn send(&self, report: Report) {
        if matches!(report, Report::Stats { .. }) && self.waiting.load(Ordering::Relaxed) > BACKLOG {
            return;
        }
        let t_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Without a reader nobody wants to know.
        let _ = self.reports.send(Stamped { t_ms, report });
    }
}

impl Iterator for ReportSource {
    type Item = Stamped;

    /// Waits for the next report; `None` once every sink is gone.
    fn next(&mut self) -> Option<Stamped> {
        let stamped = self.reports.recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(stamped)
    }
}
