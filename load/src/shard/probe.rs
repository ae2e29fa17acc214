//! How late a shard takes its turn.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::meter::micros;
use crate::sync::lock;

/// How often a shard's lag is probed.
pub(crate) const PROBE: Duration = Duration::from_millis(10);

/// Measures how late a shard takes its turn: the pacer rings, the shard answers. A frame that is sent waits as long.
pub(crate) struct Probe {
    rung: AtomicU64,
    lag: Mutex<Histogram<u64>>,
}

impl Probe {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { rung: AtomicU64::new(0), lag: Mutex::new(micros()?) })
    }

    /// Rings; `false` if the last ring was not answered yet: its lag counts for those that are left out.
    pub(super) fn ring(&self, now: u64) -> bool {
        self.rung.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Answers, if it has been rung.
    pub(super) fn answer(&self, now: impl FnOnce() -> u64) {
        if self.rung.load(Ordering::Relaxed) != 0 {
            let rung = self.rung.swap(0, Ordering::AcqRel);
            self.note(now().saturating_sub(rung));
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
        assert!(probe.ring(5_000_000));
        assert!(!probe.ring(15_000_000), "the first was not answered");
        probe.answer(|| 105_000_000);
        probe.answer(|| unreachable!("nobody has rung since"));
        let lag = probe.lag();
        assert_eq!(lag.len(), 10, "100 ms are ten rings of 10 ms");
        assert!(lag.max() >= 100_000 && lag.value_at_quantile(0.5) < 60_000);
    }
}
