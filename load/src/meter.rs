//! Latencies of the frames that a shard's listeners got, over all and by second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::{CreationError, Histogram};

use crate::result::Percentiles;

/// Longest latency that is told apart, in µs.
const LONGEST_MICROS: u64 = 60_000_000;
/// Significant digits over all, and by second.
const DIGITS: (u8, u8) = (3, 2);
/// Nanoseconds of a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// From when to when frames are measured, by when they were sent, on the run's clock.
#[derive(Debug)]
pub(crate) struct Window {
    start: AtomicU64,
    end: AtomicU64,
}

impl Default for Window {
    fn default() -> Self {
        Self { start: AtomicU64::new(u64::MAX), end: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    pub(crate) fn set(&self, start: u64, seconds: u32) {
        self.end.store(start + u64::from(seconds) * SECOND - 1, Ordering::Release);
        self.start.store(start, Ordering::Release);
    }

    pub(crate) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The second of the measurement in which a frame was sent.
    pub(crate) fn second_of(&self, sent: u64) -> Option<usize> {
        let (start, end) = (self.start(), self.end());
        (start..=end).contains(&sent).then(|| usize::try_from((sent - start) / SECOND).unwrap_or(usize::MAX))
    }
}

/// What one shard has measured.
pub(crate) struct Meter {
    window: Arc<Window>,
    all: Histogram<u64>,
    seconds: Vec<Histogram<u32>>,
    empty: Histogram<u32>,
}

impl Meter {
    pub(crate) fn new(window: Arc<Window>) -> Result<Self, CreationError> {
        let all = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS.0)?;
        let empty = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS.1)?;
        Ok(Self { window, all, seconds: Vec::new(), empty })
    }

    /// A frame that was sent then took so many nanoseconds.
    pub(crate) fn record(&mut self, sent: u64, nanos: u64) {
        let Some(second) = self.window.second_of(sent) else { return };
        let micros = (nanos / 1_000).max(1);
        self.all.saturating_record(micros);
        while self.seconds.len() <= second {
            self.seconds.push(self.empty.clone());
        }
        self.seconds[second].saturating_record(micros);
    }

    /// Adds another shard's.
    pub(crate) fn add(&mut self, other: &Self) {
        // All have the same bounds, so nothing is refused.
        let _added = self.all.add(&other.all);
        while self.seconds.len() < other.seconds.len() {
            self.seconds.push(self.empty.clone());
        }
        for (mine, others) in self.seconds.iter_mut().zip(&other.seconds) {
            let _added = mine.add(others);
        }
    }

    /// Over the whole measurement.
    pub(crate) fn latency(&self) -> Option<Percentiles> {
        Percentiles::of(&self.all, 1_000.0)
    }

    /// Of one second of it.
    pub(crate) fn latency_in(&self, second: usize) -> Option<Percentiles> {
        Percentiles::of(self.seconds.get(second)?, 1_000.0)
    }
}

/// A histogram of times from 1 µs to a minute.
pub(crate) fn micros() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_count_by_the_second_in_which_frames_were_sent_and_only_within_the_window() {
        let window = Arc::new(Window::default());
        let mut meter = Meter::new(Arc::clone(&window)).unwrap();
        meter.record(5, 1_000_000);
        assert_eq!(meter.latency(), None);
        window.set(10 * SECOND, 2);
        for (sent, millis) in [(9, 50), (10, 1), (11, 3), (12, 70)] {
            meter.record(sent * SECOND, millis * 1_000_000);
        }
        let latency = meter.latency().unwrap();
        assert!((latency.max - 3.0).abs() < 0.01, "{latency:?}");
        assert!((meter.latency_in(0).unwrap().p50 - 1.0).abs() < 0.02);
        assert!((meter.latency_in(1).unwrap().p99 - 3.0).abs() < 0.05);
        assert_eq!(meter.latency_in(2), None);
    }

    #[test]
    fn shards_add_up() {
        let window = Arc::new(Window::default());
        window.set(SECOND, 3);
        let (mut one, mut other) = (Meter::new(Arc::clone(&window)).unwrap(), Meter::new(window).unwrap());
        one.record(SECOND, 2_000_000);
        other.record(3 * SECOND, 8_000_000);
        one.add(&other);
        assert!((one.latency().unwrap().max - 8.0).abs() < 0.02);
        assert!(one.latency_in(1).is_none() && one.latency_in(2).is_some());
    }
}
