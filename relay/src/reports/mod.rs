//! Where reports go: the operator's sink. It works on threads of its own, behind a bounded queue; whatever it does, no
//! frame and no meeting waits for it. A report is taken only when the sink has it for sure.

mod directory;
mod nats;
mod webhook;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use conclave_protocol::wire::relay::Receipt;
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::core::{Delivery, ReportTicket};

/// Reports that may wait for the sink: what the core's 64 MiB hold of the shortest, of 64 KiB. More are refused.
const QUEUE: usize = 1_024;
/// Threads of a webhook: at a second for each answer they take 480 reports in a minute, and more when it is faster.
const WEBHOOK_THREADS: usize = 8;

/// Bytes that a directory may hold unless the operator says otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// Where reports go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Target {
    /// Into files of a directory.
    Directory(PathBuf),
    /// To a web server, by POST.
    Webhook(String),
    /// To a NATS subject.
    Nats(String),
}

/// A text that names no sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("reports go to dir:PATH, to http://… or https://…, or to nats:SUBJECT")]
pub struct InvalidTarget;

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(("http" | "https", rest)) if rest.starts_with("//") && webhook::is_url(text) => {
                Ok(Self::Webhook(text.into()))
            }
            Some(("nats", subject)) if nats::is_subject(subject) => Ok(Self::Nats(subject.into())),
            _ => Err(InvalidTarget),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = InvalidTarget;

    fn try_from(text: String) -> Result<Self, InvalidTarget> {
        text.parse()
    }
}

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where reports go.
    pub target: Target,
    /// The NATS server, for [`Target::Nats`].
    pub nats_url: String,
    /// Bytes that a directory may hold.
    pub max_bytes: u64,
}

/// Why a sink can't be started.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Its directory can't be used.
    #[error("cannot keep reports in {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's address is none.
    #[error("--nats-url: not the address of a NATS server, such as nats://127.0.0.1:4222")]
    NatsUrl,
    /// No thread.
    #[error("cannot start a thread for reports: {0}")]
    Thread(#[from] io::Error),
}

/// A report on its way, to be answered exactly once: when it is dropped it counts as failed.
pub struct Job {
    receipt: Receipt,
    bytes: Bytes,
    answer: Answer,
}

struct Answer {
    ticket: ReportTicket,
    delivery: Delivery,
    to: mpsc::UnboundedSender<(ReportTicket, Delivery)>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // When nobody listens any more, the server has stopped, and the clients know that they have had no answer.
        let _heard = self.to.send((self.ticket, self.delivery));
    }
}

impl Job {
    /// The report's number as people and files write it: 16 characters.
    #[must_use]
    pub fn receipt(&self) -> String {
        BASE32_NOPAD.encode(&self.receipt.0)
    }

    /// The sealed report.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The sink has it for sure.
    fn taken(mut self) {
        self.answer.delivery = Delivery::Taken;
    }
}

/// Hands a report on, and blocks until that is done or has failed.
pub trait Deliver: Send + 'static {
    /// Returns only when the report is safe, whatever happens to this process then.
    ///
    /// # Errors
    /// [`NotDelivered`] when it isn't, or when nobody knows.
    fn deliver(&mut self, job: &Job) -> Result<(), NotDelivered>;
}

/// Why a report wasn't handed on, for the log. It must hold no address: those are in nobody's log.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NotDelivered(pub String);

/// A running sink. It stops when dropped, after the report that it is at.
pub struct Sink {
    jobs: mpsc::Sender<Job>,
    answers: mpsc::UnboundedSender<(ReportTicket, Delivery)>,
    answered: mpsc::UnboundedReceiver<(ReportTicket, Delivery)>,
}

/// The end of a sink that takes reports.
#[derive(Clone)]
pub(crate) struct Intake {
    jobs: mpsc::Sender<Job>,
    answers: mpsc::UnboundedSender<(ReportTicket, Delivery)>,
}

impl Settings {
    /// Starts the sink.
    ///
    /// # Errors
    /// [`SinkError`], for what the operator has to change. A server that doesn't answer is no error: it may come back.
    pub fn start(&self) -> Result<Sink, SinkError> {
        match &self.target {
            Target::Directory(path) => Sink::start(vec![directory::Directory::open(path, self.max_bytes)?]),
            Target::Webhook(url) => Sink::start((0..WEBHOOK_THREADS).map(|_| webhook::Webhook::new(url)).collect()),
            Target::Nats(subject) => {
                let (sink, jobs) = Sink::new();
                nats::start(&self.nats_url, subject, jobs)?;
                Ok(sink)
            }
        }
    }
}

impl Sink {
    /// A sink with one thread for each of `workers`.
    ///
    /// # Errors
    /// [`SinkError::Thread`].
    pub fn start<D: Deliver>(workers: Vec<D>) -> Result<Self, SinkError> {
        let (sink, jobs) = Self::new();
        let jobs = Arc::new(Mutex::new(jobs));
        for mut worker in workers {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name("reports".into()).spawn(move || {
                while let Some(job) = next(&jobs) {
                    conclude(worker.deliver(&job), job);
                }
            })?;
        }
        Ok(sink)
    }

    fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let (answers, answered) = mpsc::unbounded_channel();
        (Self { jobs, answers, answered }, receiver)
    }

    /// The two ends: what takes reports, and what has become of them.
    pub(crate) fn split(self) -> (Intake, mpsc::UnboundedReceiver<(ReportTicket, Delivery)>) {
        (Intake { jobs: self.jobs, answers: self.answers }, self.answered)
    }
}

/// One worker waits at a time, the others for it.
fn next(jobs: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

fn conclude(outcome: Result<(), NotDelivered>, job: Job) {
    match outcome {
        Ok(()) => job.taken(),
        Err(error) => tracing::warn!(%error, "a report was not taken"),
    }
}

impl Intake {
    /// Queues a report; when there is no room, it has failed. The answer comes by the other end in both cases.
    pub(crate) fn offer(&self, ticket: ReportTicket, receipt: Receipt, bytes: Bytes) {
        let answer = Answer { ticket, delivery: Delivery::Failed, to: self.answers.clone() };
        if self.jobs.try_send(Job { receipt, bytes, answer }).is_err() {
            tracing::warn!("the sink does not keep up, a report was not taken");
        }
    }
}

#[cfg(test)]
mod tests;
