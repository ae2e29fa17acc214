//! A relay inside another program, such as the client that hosts a meeting for those on its network.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::core::Core;
use crate::server::{BindError, RunError, Server, ServerConfig};
use crate::stats::{Snapshot, Stats};
use crate::tls::Pin;

/// Why an embedded relay didn't start.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The server can't start.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The thread or its runtime can't be made.
    #[error("cannot start the relay's thread: {0}")]
    Thread(#[from] io::Error),
    /// The thread ended before it said anything.
    #[error("the relay's thread ended while it started")]
    Died,
}

/// A relay that runs on a thread of its own. It stops when this is dropped; [`EmbeddedRelay::stop`] also waits.
#[derive(Debug)]
pub struct EmbeddedRelay {
    address: SocketAddr,
    pin: Option<Pin>,
    stats: Arc<Stats>,
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<Result<Snapshot, RunError>>,
}

/// Starts a relay on a new thread with its own runtime, and waits until it listens (milliseconds).
///
/// # Errors
/// [`SpawnError`], for what keeps the server from starting.
pub fn spawn_thread<C: Core>(config: ServerConfig, core: C) -> Result<EmbeddedRelay, SpawnError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (shutdown, stopped) = oneshot::channel();
    let (report, started) = mpsc::channel();
    let thread = thread::Builder::new().name("relay".into()).spawn(move || {
        runtime.block_on(async move {
            let server = match Server::bind(&config, core) {
                Ok(server) => server,
                Err(error) => {
                    // The other end waits for exactly this.
                    let _heard = report.send(Err(error));
                    return Ok(Snapshot::default());
                }
            };
            let _heard = report.send(Ok((server.local_addr(), server.pin(), server.stats())));
            // Completes when told, and when the handle is dropped.
            let shutdown = async { drop(stopped.await) };
            server.run(shutdown).await
        })
    })?;
    let (address, pin, stats) = started.recv().map_err(|_| SpawnError::Died)??;
    Ok(EmbeddedRelay { address, pin, stats, shutdown, thread })
}

impl EmbeddedRelay {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The pin by which clients know it, if its certificate is self-signed.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// The counters as they are now.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// Whether it still serves; it ends by itself only through [`RunError`].
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Tells the clients, closes their connections and returns the final counts. Blocks for up to a second.
    ///
    /// # Errors
    /// The [`RunError`] with which it had ended before; a panic of its thread goes on in the caller.
    pub fn stop(self) -> Result<Snapshot, RunError> {
        // Fails only when it has ended already.
        let _told = self.shutdown.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
