//! When to look at which connection again.
//!
//! With nearly every packet a connection's next timeout moves to a later time. So a timer is only ever set earlier; one
//! that fires too early looks at the connection and is set anew.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Timers of connections that have small numbers.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// By number: the earliest time that is in the heap for it.
    set: Vec<Option<Instant>>,
}

impl Timers {
    /// Number `who` is to be looked at by `at` at the latest.
    pub(super) fn set(&mut self, who: usize, at: Instant) {
        if self.set.len() <= who {
            self.set.resize(who + 1, None);
        }
        if self.set[who].is_none_or(|set| at < set) {
            self.set[who] = Some(at);
            self.heap.push(Reverse((at, who)));
        }
    }

    /// Nobody has that number any more.
    pub(super) fn forget(&mut self, who: usize) {
        if let Some(set) = self.set.get_mut(who) {
            *set = None;
        }
    }

    /// When the first is due; perhaps earlier than any.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// One whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<usize> {
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
    use std::time::Duration;

    #[test]
    fn each_is_looked_at_once_at_its_earliest_time() {
        let (mut timers, start) = (Timers::default(), Instant::now());
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
}
