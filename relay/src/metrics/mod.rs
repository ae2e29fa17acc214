//! What the relay shows its operator over HTTP: counters for Prometheus, and whether it lives and has room.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all counters, as Prometheus' text |
//! | `/healthz` | 200 while the thread that forwards answers |
//! | `/readyz` | 200 while clients are taken; 503 when the relay is full or about to stop |
//!
//! Totals only: no line names a person, an address or a meeting. There is one set of counters, [`Stats`] and the core's
//! own; they are read when somebody asks. All of this is done on the caller's tokio runtime. The thread that forwards
//! is asked for a copy of its core's counters, ten times a second at most however many ask, and nothing waits for a
//! reader that is slow.

mod http;
mod meetings;
mod page;
mod process;
mod quantile;
mod traffic;

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use crate::hub;
use crate::shell::{Figures, Handle};
use crate::stats::{Residence, Snapshot, Stats};
use page::Page;

/// Least time from one question to the thread that forwards to the next. The answer costs it time in proportion to the
/// number of meetings, which nobody may multiply by asking often.
const EVERY: Duration = Duration::from_millis(100);
/// How long the thread that forwards may take to answer: hundreds of its rounds.
const PATIENCE: Duration = Duration::from_secs(1);
/// In front of the name of everything that is the relay's own.
const PREFIX: &str = "conclave_relay";

/// The port for it can't be opened.
#[derive(Debug, Error)]
#[error("cannot listen on TCP {address}")]
pub struct ListenError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// An open port, for [`crate::server::Server::with_metrics`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the port; port 0 takes a free one. Must be called on a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Where it listens; with the real port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Where figures come from.
pub(crate) struct Source {
    handle: Arc<Handle>,
    stats: Arc<Stats>,
    /// The last answer, and when it was asked for.
    last: Mutex<Option<(Instant, Figures)>>,
}

impl Source {
    pub(crate) fn new(handle: Arc<Handle>, stats: Arc<Stats>) -> Self {
        Self { handle, stats, last: Mutex::new(None) }
    }

    /// What the thread that forwards says of itself; nothing if it doesn't answer.
    async fn figures(&self) -> Option<Figures> {
        timeout(PATIENCE, self.fresh_figures()).await.ok().flatten()
    }

    async fn fresh_figures(&self) -> Option<Figures> {
        let came = Instant::now();
        // Held until there is an answer, which then is that of all who wait here.
        let mut last = self.last.lock().await;
        if let Some((asked, figures)) = *last {
            if asked >= came {
                return Some(figures);
            }
            sleep_until(asked + EVERY).await;
        }
        let asked = Instant::now();
        let figures = self.handle.figures().await.ok()?;
        *last = Some((asked, figures));
        Some(figures)
    }
}

/// Answers for ever, or does nothing for ever without a port. Must be called on a tokio runtime with I/O and time.
pub(crate) async fn run(listener: Option<Listener>, source: Source) -> Infallible {
    match listener {
        Some(listener) => http::serve(&listener.socket, Arc::new(source)).await,
        None => pending().await,
    }
}

/// All that the relay has counted, at one moment.
#[derive(Debug)]
struct Counts {
    traffic: traffic::Counts,
    meetings: hub::Stats,
}

impl Collector for Counts {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.info("build", "The program; always 1.", &version)?;
        self.traffic.write(&mut page)?;
        meetings::write(&mut page, &self.meetings)?;
        self.frames_refused(&mut page)
    }
}

impl Counts {
    /// Some are refused before the core has seen them, some by the core.
    fn frames_refused(&self, page: &mut Page<'_>) -> fmt::Result {
        let meetings = &self.meetings;
        let refused = [
            ("unread", self.traffic.unread()),
            ("malformed", meetings.datagrams_dropped_malformed),
            ("no_slot", meetings.datagrams_dropped_unattached),
            ("wrong_slot", meetings.datagrams_dropped_wrong_slot),
            ("not_allowed", meetings.datagrams_dropped_not_allowed),
            ("too_fast", meetings.datagrams_dropped_too_fast),
        ];
        page.counters("frames_refused", "Frames that came in and went to nobody.", "reason", &refused)
    }
}

/// The page of all counters.
fn page(totals: Snapshot, residence: &Residence, meetings: hub::Stats) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(process::Usage::now()));
    let traffic = traffic::Counts::new(totals, residence);
    let own = registry.sub_registry_with_prefix(PREFIX);
    own.register_collector(Box::new(Counts { traffic, meetings }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
