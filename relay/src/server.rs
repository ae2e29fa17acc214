//! The relay as a QUIC server: one UDP port, a [`Core`] behind it.
//!
//! All traffic is the business of one thread of its own (`shell`); what is slow or rare (reports on their way to
//! the operator's sink, new keys at midnight, the page of counters) stays on the caller's tokio runtime.

use std::any::Any;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Core, Delivery, ReportTicket};
use crate::gate::{Gate, Limits};
use crate::metrics::{self, Listener};
use crate::reports::Sink;
use crate::shell::{Command, Handle, Parts, Shell};
use crate::stamps::keeper::Keeper;
use crate::stamps::refresh;
use crate::stats::{Snapshot, Stats};
use crate::tls::{Identity, Pin, TlsError};
use crate::transport::{IDLE_TIMEOUT, Side, transport_config};

/// What attempts to connect may hold in early packets, each and all of them. quinn's own default (100 MiB) lets a flood
/// take memory before anybody has decided anything.
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 8 * 1024 * 1024;

/// Everything a server needs to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen, by UDP. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who the relay is.
    pub identity: Identity,
    /// How many clients, and how fast.
    pub limits: Limits,
    /// How long clients may take.
    pub deadlines: Deadlines,
    /// How frames are forwarded.
    pub forwarding: Forwarding,
}

/// How frames are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// How long a frame may wait for those that are expected with it, so that they leave in one packet. Nothing waits
    /// where frames come alone.
    pub hold: Duration,
    /// How long packets may gather, before the relay takes them in or more that are expected with them: fewer wake-ups, and
    /// on a busy machine one more wait for its turn.
    pub gather: Duration,
    /// Age beyond which a frame is dropped instead of sent; seven eighths of it while more is dropped than by a hiccup.
    pub deadline: Duration,
}

/// Which part of the hold packets may gather for, where clocks are aligned: to wake up for each costs more than to take it
/// in. Half of the hold saved no more, and the latest hundredth of the frames came a millisecond later.
const GATHER_SHARE: u32 = 4;

impl Forwarding {
    /// For meetings whose frame clocks are aligned.
    #[must_use]
    pub fn aligned(hold: Duration) -> Self {
        Self { hold, gather: hold / GATHER_SHARE, ..Self::default() }
    }
}

impl Default for Forwarding {
    /// Hold: a tenth of a frame; aligned clients are within a millisecond of each other. Gather: pays only where they are
    /// aligned. Deadline: half of what the shortest profile has from mouth to ear, 40 ms (DESIGN §11).
    fn default() -> Self {
        Self { hold: Duration::from_millis(2), gather: Duration::ZERO, deadline: Duration::from_millis(20) }
    }
}

/// How long clients may take. The defaults leave room for two lost packets in a row at each step, and not for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For the QUIC handshake.
    pub handshake: Duration,
    /// From then on, for the first message on the control stream.
    pub hello: Duration,
    /// Silence after which a connection counts as dead.
    pub idle: Duration,
    /// For a connection that is being closed to take what was sent before.
    pub linger: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            hello: Duration::from_secs(3),
            idle: IDLE_TIMEOUT,
            linger: Duration::from_millis(500),
        }
    }
}

/// Why a server can't start.
#[derive(Debug, Error)]
pub enum BindError {
    /// Its certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its port can't be opened.
    #[error("cannot listen on UDP {address}")]
    Socket {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// Why a server stopped before it was asked to.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its socket broke.
    #[error("the UDP socket failed: {0}")]
    Socket(#[source] io::Error),
    /// Its thread can't be started.
    #[error("cannot start the relay's thread: {0}")]
    Thread(#[source] io::Error),
    /// The core panicked: what it holds can't be trusted any more. A new process rebuilds it from the clients.
    #[error("the relay's thread failed: {0}")]
    Panicked(String),
}

/// A server that is bound to its port and answers once it runs.
pub struct Server<C> {
    shell: Shell<C>,
    handle: Handle,
    address: SocketAddr,
    pin: Option<Pin>,
    stats: Arc<Stats>,
    delivered: Option<mpsc::UnboundedReceiver<(ReportTicket, Delivery)>>,
    keeper: Option<Keeper>,
    metrics: Option<Listener>,
}

impl<C: Core> Server<C> {
    /// Opens the port.
    ///
    /// # Errors
    /// [`BindError`], for a certificate or a port that can't be used.
    pub fn bind(config: &ServerConfig, core: C) -> Result<Self, BindError> {
        let tls = config.identity.load()?;
        let pin = tls.pin;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(BindError::Random)?;
        let stats = Arc::new(Stats::default());
        let parts = Parts {
            core,
            gate: Gate::new(config.limits, Instant::now(), salt),
            stats: Arc::clone(&stats),
            deadlines: config.deadlines,
            forwarding: config.forwarding,
        };
        let mut quic = quinn_proto::ServerConfig::with_crypto(tls.quic);
        quic.transport_config(Arc::new(transport_config(Side::Relay, config.deadlines.idle)))
            .migration(true)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
        let (shell, handle, address) = Shell::bind(config.listen, quic, parts)
            .map_err(|source| BindError::Socket { address: config.listen, source })?;
        Ok(Self { shell, handle, address, pin, stats, delivered: None, keeper: None, metrics: None })
    }

    /// Hands reports to this sink. Without one, those that the core gives out have failed.
    #[must_use]
    pub fn with_reports(mut self, sink: Sink) -> Self {
        let (intake, delivered) = sink.split();
        self.shell.set_reports(intake);
        self.delivered = Some(delivered);
        self
    }

    /// Brings the core new stamp keys whenever a day begins, in UTC.
    #[must_use]
    pub fn with_stamp_keys(mut self, keeper: Keeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// Shows its counters there while it runs.
    #[must_use]
    pub fn with_metrics(mut self, listener: Listener) -> Self {
        self.metrics = Some(listener);
        self
    }

    /// Where the server listens; with the real port where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The pin by which clients know it, if its certificate is self-signed.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// The live counters.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Serves until `shutdown` completes; then tells the clients, closes their connections and returns the final
    /// counts, within a second. Must be called on a tokio runtime with time. When it is dropped, the server stops.
    ///
    /// # Errors
    /// [`RunError`] when the server can't go on. Unless it panicked, clients are told and closed all the same.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Snapshot, RunError> {
        let Self { shell, handle, stats, delivered, keeper, metrics, .. } = self;
        let handle = Arc::new(handle);
        let thread = Thread::start(shell, Arc::clone(&handle)).map_err(RunError::Thread)?;
        let shown = metrics::Source::new(handle, Arc::clone(&stats));
        tokio::select! {
            ended = oversee(thread, shutdown, delivered, keeper) => ended.map(|()| stats.snapshot()),
            // As long as the thread, so that its end can be watched too.
            never = metrics::run(metrics, shown) => match never {},
        }
    }
}

/// Brings the thread what it needs from outside, until it has ended.
async fn oversee(
    mut thread: Thread,
    shutdown: impl Future<Output = ()>,
    delivered: Option<mpsc::UnboundedReceiver<(ReportTicket, Delivery)>>,
    keeper: Option<Keeper>,
) -> Result<(), RunError> {
    tokio::select! {
        () = shutdown => {}
        outcome = &mut thread.ended => return thread.outcome(outcome.ok()),
        never = refresh::run(keeper, |keys| thread.handle.tell(Command::StampKeys(keys))) => match never {},
        () = answer_reports(&thread.handle, delivered) => {}
    }
    thread.handle.tell(Command::Shutdown);
    let outcome = (&mut thread.ended).await;
    thread.outcome(outcome.ok())
}

/// The thread that serves. It is told to stop when this is dropped.
struct Thread {
    handle: Arc<Handle>,
    ended: oneshot::Receiver<io::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start<C: Core>(shell: Shell<C>, handle: Arc<Handle>) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name("forwarding".into()).spawn(move || {
            // Fails when nobody waits for it any more.
            let _heard = end.send(shell.run());
        })?;
        Ok(Self { handle, ended, thread: Some(thread) })
    }

    /// What the thread said at its end; nothing if it panicked.
    fn outcome(&mut self, said: Option<io::Result<()>>) -> Result<(), RunError> {
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        match (said, joined) {
            (Some(outcome), Ok(())) => outcome.map_err(RunError::Socket),
            (_, Err(panic)) => Err(RunError::Panicked(words(panic.as_ref()))),
            (None, Ok(())) => Err(RunError::Panicked(String::new())),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.handle.tell(Command::Shutdown);
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Tells the core what the sink has done, for ever.
async fn answer_reports(handle: &Handle, delivered: Option<mpsc::UnboundedReceiver<(ReportTicket, Delivery)>>) {
    if let Some(mut delivered) = delivered {
        while let Some((ticket, delivery)) = delivered.recv().await {
            handle.tell(Command::ReportDelivered(ticket, delivery));
        }
    }
    // The shell holds the other end, so this is reached without a sink only.
    pending().await
}
