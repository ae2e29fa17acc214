//! The relay as a QUIC server: one UDP port, a [`Core`] behind it.
//!
//! Made for a single-threaded tokio runtime: a frame then passes from socket to socket within one thread, which
//! costs a third less than with two workers. It works on any tokio runtime.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::connection::Context;
use crate::core::{CloseCode, Core, Delivery, ReportTicket};
use crate::driver::Driver;
use crate::gate::{Gate, Limits};
use crate::reports::Sink;
use crate::stamps::keeper::Keeper;
use crate::stamps::refresh;
use crate::stats::{Snapshot, Stats};
use crate::tls::{Identity, Pin, ServerTls, TlsError};
use crate::transport::{IDLE_TIMEOUT, Side, transport_config};

/// Attempts that may wait to be looked at, and what each and all of them may hold in early packets. quinn's own
/// defaults (65,536 attempts, 100 MiB) let a flood take memory before anybody has decided anything.
const MAX_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 8 * 1024 * 1024;

/// Kernel buffers of the socket: about 2,700 small packets, 50 ms at 50,000 packets a second. The kernel may give
/// less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;

/// What a stopping server waits for its clients to take their last messages, and then for their connections to
/// close: together less than a second, after which supervisors lose patience.
const DRAIN: Duration = Duration::from_millis(600);
const WIND_DOWN: Duration = Duration::from_millis(200);

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
    #[error("cannot listen on UDP {address}: {source}")]
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
    #[error("the UDP socket failed")]
    Socket,
    /// The core panicked: what it holds can't be trusted any more. A new process rebuilds it from the clients.
    #[error("a task failed: {0}")]
    Panicked(#[source] JoinError),
}

/// A server that is bound to its port and answers once it runs.
pub struct Server<C> {
    endpoint: Endpoint,
    address: SocketAddr,
    pin: Option<Pin>,
    context: Arc<Context<C>>,
    delivered: Option<mpsc::UnboundedReceiver<(ReportTicket, Delivery)>>,
    keeper: Option<Keeper>,
}

impl<C: Core> Server<C> {
    /// Opens the port. Must be called on a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`BindError`], for a certificate or a port that can't be used.
    pub fn bind(config: &ServerConfig, core: C) -> Result<Self, BindError> {
        let tls = config.identity.load()?;
        let pin = tls.pin;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(BindError::Random)?;
        let gate = Gate::new(config.limits, Instant::now(), salt);
        let (endpoint, address) =
            open(config, tls).map_err(|source| BindError::Socket { address: config.listen, source })?;
        let context = Context {
            driver: Driver::new(core),
            gate: Arc::new(Mutex::new(gate)),
            stats: Arc::default(),
            deadlines: config.deadlines,
        };
        Ok(Self { endpoint, address, pin, context: Arc::new(context), delivered: None, keeper: None })
    }

    /// Hands reports to this sink. Without one, those that the core gives out have failed.
    #[must_use]
    pub fn with_reports(mut self, sink: Sink) -> Self {
        let (intake, delivered) = sink.split();
        self.context.driver.set_reports(intake);
        self.delivered = Some(delivered);
        self
    }

    /// Brings the core new stamp keys whenever a day begins, in UTC.
    #[must_use]
    pub fn with_stamp_keys(mut self, keeper: Keeper) -> Self {
        self.keeper = Some(keeper);
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
        Arc::clone(&self.context.stats)
    }

    /// Serves until `shutdown` completes; then tells the clients, closes their connections and returns the final
    /// counts, within a second.
    ///
    /// # Errors
    /// [`RunError`] when the server can't go on. Clients are told and closed all the same.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<Snapshot, RunError> {
        let mut connections = JoinSet::new();
        let (stop, stopping) = watch::channel(false);
        let (delivered, keeper) = (self.delivered.take(), self.keeper.take());
        let driver = &self.context.driver;
        let outcome = tokio::select! {
            outcome = self.accept(shutdown, &mut connections, &stopping) => outcome,
            never = refresh::run(keeper, |keys| driver.stamp_keys(keys)) => match never {},
            never = answer_reports(driver, delivered) => match never {},
        };
        self.endpoint.set_server_config(None);
        self.context.driver.shutdown();
        // Fails only without receivers, and `stopping` is one.
        let _told = stop.send(true);
        let _drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
        self.endpoint.close(VarInt::from_u32(CloseCode::SHUTDOWN.0), b"");
        let _idle = timeout(WIND_DOWN, self.endpoint.wait_idle()).await;
        outcome.map(|()| self.context.stats.snapshot())
    }

    async fn accept(
        &self,
        shutdown: impl Future<Output = ()>,
        connections: &mut JoinSet<()>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        let mut shutdown = pin!(shutdown);
        let mut timeouts = pin!(self.context.driver.run_timeouts());
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                never = &mut timeouts => match never {},
                incoming = self.endpoint.accept() => {
                    let incoming = incoming.ok_or(RunError::Socket)?;
                    if let Some((incoming, half_open)) = self.context.judge(incoming) {
                        connections.spawn(Arc::clone(&self.context).serve(incoming, half_open, stopping.clone()));
                    }
                }
                Some(ended) = connections.join_next() => ended.map_err(RunError::Panicked)?,
            }
        }
    }
}

/// Tells the core what the sink has done, for ever.
async fn answer_reports<C: Core>(
    driver: &Driver<C>,
    delivered: Option<mpsc::UnboundedReceiver<(ReportTicket, Delivery)>>,
) -> Infallible {
    if let Some(mut delivered) = delivered {
        while let Some((ticket, delivery)) = delivered.recv().await {
            driver.report_delivered(ticket, delivery);
        }
    }
    // The driver holds the other end, so this is reached without a sink only.
    pending().await
}

fn open(config: &ServerConfig, tls: ServerTls) -> io::Result<(Endpoint, SocketAddr)> {
    let mut quic = quinn::ServerConfig::with_crypto(tls.quic);
    quic.transport_config(Arc::new(transport_config(Side::Relay, config.deadlines.idle)))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    let socket = UdpSocket::bind(config.listen)?;
    enlarge_buffers(&socket);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(quic), socket, Arc::new(TokioRuntime))?;
    let address = endpoint.local_addr()?;
    Ok((endpoint, address))
}

/// Best effort: with small buffers the relay works too, and loses frames in bursts.
fn enlarge_buffers(socket: &UdpSocket) {
    let enlarged = quinn::udp::UdpSocketState::new(socket.into()).and_then(|state| {
        state.set_recv_buffer_size(socket.into(), SOCKET_BUFFER)?;
        state.set_send_buffer_size(socket.into(), SOCKET_BUFFER)
    });
    if let Err(error) = enlarged {
        tracing::warn!(%error, "the socket keeps its small buffers");
    }
}
