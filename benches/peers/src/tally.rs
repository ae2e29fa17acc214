//! What arrived: kept as it comes, judged when the measurement is over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::pattern::{Frame, INTERVAL, Pattern};

/// Everything that the listeners of one measurement got.
#[derive(Debug)]
pub struct Tally {
    origin: Instant,
    arrivals: Mutex<Vec<Arrival>>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Nanoseconds from the origin to the frame's sending.
    sent: u64,
    /// Nanoseconds from sending to arrival.
    late: u64,
}

impl Tally {
    /// An empty tally with room for a measurement of `length`: growing would cost milliseconds in its midst.
    pub fn new(pattern: &Pattern, length: Duration) -> Self {
        let frames = pattern.talkers * pattern.listeners();
        let ticks = usize::try_from(length.as_millis() / INTERVAL.as_millis()).unwrap_or(0);
        Self { origin: Instant::now(), arrivals: Mutex::new(Vec::with_capacity(frames * ticks)) }
    }

    /// Nanoseconds since the measurement's origin.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes a frame that has just arrived at a listener. Servers that return a talker's own frames gain nothing by it.
    pub fn arrived(&self, listener: usize, bytes: &[u8]) {
        let now = self.now();
        let Some(frame) = Frame::decode(bytes) else { return };
        if usize::from(frame.talker) != listener {
            let arrival = Arrival { sent: frame.sent, late: now.saturating_sub(frame.sent) };
            self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        }
    }

    /// What became of the frames that were sent in the window.
    pub fn judge(&self, window: Window, sent: &[u64], listeners: usize) -> Delivery {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let delays = arrivals.iter().filter(|arrival| window.holds(arrival.sent)).map(|arrival| arrival.late).collect();
        let due = sent.iter().filter(|sent| window.holds(**sent)).count() * listeners;
        Delivery::new(delays, due)
    }
}

/// The part of a measurement that counts, in nanoseconds since its origin.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its begin.
    pub from: u64,
    /// Its end, which does not belong to it.
    pub to: u64,
}

impl Window {
    fn holds(&self, time: u64) -> bool {
        (self.from..self.to).contains(&time)
    }
}

/// What became of frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    /// Frames that arrived, counted at each listener.
    pub frames: u64,
    /// Share of the frames that did not arrive, 0 to 1.
    pub loss: f64,
    /// From sending to arrival.
    pub latency: Latency,
}

/// Percentiles of one-way latency in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the frames arrive within this.
    pub p50: f64,
    /// 99 of 100 frames arrive within this.
    pub p99: f64,
}

impl Delivery {
    fn new(mut delays: Vec<u64>, due: usize) -> Self {
        delays.sort_unstable();
        let loss = if due == 0 { 1.0 } else { 1.0 - delays.len() as f64 / due as f64 };
        let latency = Latency { p50: percentile(&delays, 50), p99: percentile(&delays, 99) };
        Self { frames: delays.len() as u64, loss, latency }
    }
}

/// The smallest of sorted nanoseconds that at least `percent` of 100 are not above, in milliseconds; 0 of none.
pub fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let nanoseconds = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0);
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<u64> = (1..=100).map(|milliseconds| milliseconds * 1_000_000).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred[..1], 99), 1.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn only_frames_of_the_window_count_and_none_of_the_talkers_own() {
        let pattern = Pattern { people: 3, talkers: 1, jitter: Duration::ZERO };
        let tally = Tally::new(&pattern, Duration::from_secs(1));
        let sent = [10, 20, 30];
        for stamp in sent {
            for listener in 0..pattern.people {
                tally.arrived(listener, &Frame { talker: 0, sent: stamp }.encode());
            }
        }
        let delivery = tally.judge(Window { from: 20, to: 31 }, &sent, pattern.listeners());
        assert_eq!((delivery.frames, delivery.loss), (4, 0.0));
    }

    #[test]
    fn what_one_listener_misses_is_loss() {
        let pattern = Pattern { people: 3, talkers: 1, jitter: Duration::ZERO };
        let tally = Tally::new(&pattern, Duration::from_secs(1));
        tally.arrived(1, &Frame { talker: 0, sent: 5 }.encode());
        let delivery = tally.judge(Window { from: 0, to: 10 }, &[5], pattern.listeners());
        assert_eq!((delivery.frames, delivery.loss), (1, 0.5));
        assert_eq!(tally.judge(Window { from: 6, to: 10 }, &[5], 2).loss, 1.0);
    }
}
