//! A thread that carries connections and reads what comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::meter::{Meter, micros};
use crate::procfs::ThreadId;
use crate::room::Stage;
use crate::sync::{RunClock, lock};

/// How often a shard's lag is probed.
pub(crate) const PROBE: Duration = Duration::from_millis(10);

/// A shard, as other threads see it.
pub(crate) struct Shard {
    pub(crate) handle: Handle,
    pub(crate) meter: Arc<Mutex<Meter>>,
    pub(crate) probe: Arc<Probe>,
    /// The thread, for its processor time.
    pub(crate) thread: Option<ThreadId>,
    stop: oneshot::Sender<()>,
    join: JoinHandle<()>,
}

impl Shard {
    /// Starts the shard of that number.
    pub(crate) fn start(number: usize, stage: &Stage) -> Result<Self> {
        let meter = Arc::new(Mutex::new(Meter::new(Arc::clone(&stage.window))?));
        let probe = Arc::new(Probe::new()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let probing = Arc::clone(&probe).watch(stage.clock);
        let join = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            // The other end waits for exactly this.
            let _heard = tell.send(ThreadId::current());
            runtime.spawn(probing);
            // Completes when told, and when the shard is dropped.
            runtime.block_on(async { drop(stopped.await) });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        let thread = told.recv().context("a shard's thread ended while it started")?;
        Ok(Self { handle, meter, probe, thread, stop, join })
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        // Fails only when it has ended already; it panics only where a task of the runtime itself does.
        let _told = self.stop.send(());
        let _ended = self.join.join();
    }
}

/// Measures how late a shard takes its turn: the pacer rings, the shard answers. A frame that is sent waits as long.
pub(crate) struct Probe {
    rung: AtomicU64,
    bell: Notify,
    lag: Mutex<Histogram<u64>>,
}

impl Probe {
    fn new() -> Result<Self> {
        Ok(Self { rung: AtomicU64::new(0), bell: Notify::new(), lag: Mutex::new(micros()?) })
    }

    /// Rings, unless the last ring was not answered yet: its lag counts for those that are left out.
    pub(crate) fn ring(&self, now: u64) {
        if self.rung.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.bell.notify_one();
        }
    }

    async fn watch(self: Arc<Self>, clock: RunClock) {
        loop {
            self.bell.notified().await;
            let rung = self.rung.swap(0, Ordering::AcqRel);
            if rung != 0 {
                self.note(clock.now().saturating_sub(rung));
            }
        }
    }

    fn note(&self, nanos: u64) {
        let interval = u64::try_from(PROBE.as_micros()).unwrap_or(u64::MAX);
        // Above the longest time the last place counts.
        let micros = (nanos / 1_000).clamp(1, 60_000_000);
        let _recorded = lock(&self.lag).record_correct(micros, interval);
    }

    /// Forgets what was before the measurement.
    pub(crate) fn reset(&self) {
        lock(&self.lag).reset();
    }

    /// The lag so far, in µs.
    pub(crate) fn lag(&self) -> Histogram<u64> {
        lock(&self.lag).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_all_the_rings_that_were_left_out() {
        let probe = Probe::new().unwrap();
        probe.note(100_000_000);
        let lag = probe.lag();
        assert_eq!(lag.len(), 10, "100 ms are ten rings of 10 ms");
        assert!(lag.max() >= 100_000 && lag.value_at_quantile(0.5) < 60_000);
    }
}
