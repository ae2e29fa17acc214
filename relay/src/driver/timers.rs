//! When to look at which connection again.
//!
//! With nearly every packet a connection's next timeout moves to a later time. So a timer is only ever set earlier; one
//! that fires too early looks at the connection and is set anew. And for timers alone nobody wakes up but on the strokes
//! of a coarse clock: to wake up for each would cost more than all that they do. Who is awake anyway fires what is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Timers of connections that have small numbers.
pub struct Timers {
    start: Instant,
    stroke: Duration,
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// By number: the earliest time that is in the heap for it.
    set: Vec<Option<Instant>>,
}

impl Timers {
    /// Timers whose clock strokes so often from `start` on.
    #[must_use]
    pub fn new(start: Instant, stroke: Duration) -> Self {
        Self { start, stroke, heap: BinaryHeap::new(), set: Vec::new() }
    }

    /// When its clock began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Number `who` is to be looked at from `at` on.
    pub fn set(&mut self, who: usize, at: Instant) {
        if self.set.len() <= who {
            self.set.resize(who + 1, None);
        }
        if self.set[who].is_none_or(|set| at < set) {
            self.set[who] = Some(at);
            self.heap.push(Reverse((at, who)));
        }
    }

    /// Nobody has that number any more.
    pub fn forget(&mut self, who: usize) {
        if let Some(set) = self.set.get_mut(who) {
            *set = None;
        }
    }

    /// When to wake up for the first: on the first stroke from then on; perhaps earlier than for any.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| self.stroke(*at))
    }

    fn stroke(&self, at: Instant) -> Instant {
        let strokes = at.saturating_duration_since(self.start).as_micros().div_ceil(self.stroke.as_micros());
        self.start + self.stroke.saturating_mul(u32::try_from(strokes).unwrap_or(u32::MAX))
    }

    /// One whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((at, who))) = self.heap.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.heap.pop();
            if self.set.get(who).copied().flatten() == Some(at) {
                self.set[who] = None;
                return Some(who);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STROKE: Duration = Duration::from_millis(20);

    #[test]
    fn each_is_looked_at_once_at_its_earliest_time() {
        let start = Instant::now();
        let mut timers = Timers::new(start, STROKE);
        let at = |ms| start + Duration::from_millis(ms);
        for (who, ms) in [(0, 50), (1, 30), (0, 20), (0, 90), (2, 40)] {
            timers.set(who, at(ms));
        }
        timers.forget(2);
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop(at(19)), None);
        assert_eq!(timers.pop(at(20)), Some(0));
        assert_eq!(timers.pop(at(100)), Some(1));
        assert_eq!(timers.pop(at(100)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn nobody_wakes_up_but_on_strokes_and_who_is_awake_fires_what_is_due_and_nothing_early() {
        let start = Instant::now();
        let mut timers = Timers::new(start, STROKE);
        for (who, micros) in [(0, 100), (1, 19_900), (2, 20_000), (3, 20_001)] {
            timers.set(who, start + Duration::from_micros(micros));
        }
        assert_eq!(timers.next(), Some(start + STROKE));
        assert_eq!(timers.pop(start + Duration::from_micros(99)), None);
        assert_eq!(timers.pop(start + Duration::from_micros(100)), Some(0));
        let fired: Vec<usize> = std::iter::from_fn(|| timers.pop(start + STROKE)).collect();
        assert_eq!(fired, [1, 2]);
        assert_eq!(timers.next(), Some(start + STROKE * 2));
    }
}
