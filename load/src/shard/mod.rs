//! A thread that carries connections and reads what comes.
//!
//! A client's stack with tasks, a socket and wake-ups for each member would take more processor time than the relay under
//! load. So a shard drives `quinn-proto` for hundreds of members in one loop: the same protocol on the wire, with the
//! client's own transport settings.

mod caller;
mod connection;
mod driver;
mod probe;
mod sockets;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use conclave_relay::driver::inbox::{self, Outbox};

use crate::meter::Meter;
use crate::procfs::ThreadId;
use crate::room::Stage;
use crate::sync::lock;
use crate::urgency;
pub(crate) use connection::{Connection, Dial, Valve};
use driver::{Command, Driver};
pub(crate) use probe::{PROBE, Probe};

/// A shard, as other threads see it.
pub(crate) struct Shard {
    outbox: Outbox<Command>,
    pub(crate) meter: Arc<Mutex<Meter>>,
    pub(crate) probe: Arc<Probe>,
    /// The thread, for its processor time.
    pub(crate) thread: Option<ThreadId>,
    join: JoinHandle<()>,
}

impl Shard {
    /// Starts the shard of that number.
    pub(crate) fn start(number: usize, stage: &Arc<Stage>) -> Result<Self> {
        let meter = Arc::new(Mutex::new(Meter::new(Arc::clone(&stage.window))?));
        let probe = Arc::new(Probe::new()?);
        let (outbox, inbox) = inbox::pair().context("no socket to wake up a shard by")?;
        let (tell, told) = std::sync::mpsc::channel();
        let driver = Driver::new(inbox, outbox.clone(), Arc::clone(stage), Arc::clone(&meter), Arc::clone(&probe))?;
        let stage = Arc::clone(stage);
        let join = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            // The other end waits for exactly this.
            let _heard = tell.send(ThreadId::current());
            urgency::after_sleepers();
            if let Err(error) = driver.run() {
                stage.tally.trouble(format!("a shard ended: {error:#}"));
            }
        })?;
        let thread = told.recv().context("a shard's thread ended while it started")?;
        Ok(Self { outbox, meter, probe, thread, join })
    }

    /// Begins a connection; what becomes of it comes through `dial`.
    pub(crate) fn dial(&self, dial: Dial) {
        self.outbox.tell(Command::Dial(Box::new(dial)));
    }

    /// Probes its lag; see [`Probe`].
    pub(crate) fn ring(&self, now: u64) {
        if self.probe.ring(now) {
            self.outbox.ring();
        }
    }

    /// The lag and latencies of the measurement begin now.
    pub(crate) fn reset(&self) {
        self.probe.reset();
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        self.outbox.tell(Command::Stop);
        // It panics only where the loop itself does, which a test would show.
        let _ended = self.join.join();
    }

    /// How latencies of the frames sent in that second of the measurement were at its listeners, 99th percentile in ms.
    pub(crate) fn p99_in(&self, second: usize) -> Option<f64> {
        Some(lock(&self.meter).latency_in(second)?.p99)
    }
}
