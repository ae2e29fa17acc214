//! Counts wrong passcodes for the whole meeting and slows guessing down, whoever guesses (DESIGN §12, Knocks).
//!
//! Ten failures are free. From then on one passcode handshake runs per interval: 5 s at first, doubled with each
//! further failure up to 60 s, halved with each minute in which nobody fails. Joins without a passcode part are
//! not concerned.

use std::time::{Duration, Instant};

/// Failures before throttling: enough for a large meeting's mistypings.
const FREE: u32 = 10;
/// First interval.
const FIRST: Duration = Duration::from_secs(5);
/// Longest interval: what an honest guest has to wait in the worst case.
const LONGEST: Duration = Duration::from_secs(60);
/// Time without a failure that halves the interval.
const QUIET: Duration = Duration::from_secs(60);

/// The meeting's count of wrong passcodes.
#[derive(Debug)]
pub struct Throttle {
    failures: u32,
    interval: Duration,
    next_start: Instant,
    quiet_since: Instant,
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new(now: Instant) -> Self {
        Self { failures: 0, interval: Duration::ZERO, next_start: now, quiet_since: now }
    }

    /// Whether a passcode handshake may start while `in_flight` others have started and not ended. Every one in
    /// flight counts as a failure that may come, so parallel guessing gains nothing.
    pub fn may_start(&mut self, now: Instant, in_flight: usize) -> bool {
        self.calm_down(now);
        if self.is_throttling() {
            in_flight == 0 && now >= self.next_start
        } else {
            self.failures as usize + in_flight < FREE as usize
        }
    }

    /// A handshake has started.
    pub fn on_start(&mut self, now: Instant) {
        if self.is_throttling() {
            self.next_start = now + self.interval;
        }
    }

    /// A handshake has failed at message 3.
    pub fn on_failure(&mut self, now: Instant) {
        self.calm_down(now);
        self.failures = self.failures.saturating_add(1);
        self.quiet_since = now;
        if self.is_throttling() {
            self.interval = if self.interval.is_zero() { FIRST } else { (self.interval * 2).min(LONGEST) };
            self.next_start = self.next_start.max(now + self.interval);
        }
    }

    /// Whether guesses are being slowed down.
    pub fn is_throttling(&self) -> bool {
        self.failures >= FREE
    }

    /// When the next handshake may start, while throttling.
    pub fn next_start(&self) -> Option<Instant> {
        self.is_throttling().then_some(self.next_start)
    }

    fn calm_down(&mut self, now: Instant) {
        while self.failures > 0 && now.saturating_duration_since(self.quiet_since) >= QUIET {
            self.quiet_since += QUIET;
            self.interval /= 2;
            if self.interval < FIRST {
                self.interval = Duration::ZERO;
                self.failures = self.failures.min(FREE) / 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_are_free_and_the_eleventh_try_waits() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for _ in 0..10 {
            assert!(throttle.may_start(start, 0));
            throttle.on_start(start);
            throttle.on_failure(start);
        }
        assert!(!throttle.may_start(start, 0));
        assert!(!throttle.may_start(start + FIRST - Duration::from_millis(1), 0));
        assert!(throttle.may_start(start + FIRST, 0));
        assert!(!throttle.may_start(start + FIRST, 1));
    }

    #[test]
    fn intervals_double_to_a_minute_and_halve_in_quiet() {
        let start = Instant::now();
        let mut now = start;
        let mut throttle = Throttle::new(now);
        for _ in 0..30 {
            now = throttle.next_start().map_or(now, |next| next.max(now));
            assert!(throttle.may_start(now, 0));
            throttle.on_start(now);
            throttle.on_failure(now);
        }
        assert_eq!(throttle.next_start(), Some(now + LONGEST));
        assert!(throttle.may_start(now + QUIET * 5, 0));
        assert!(!throttle.is_throttling());
    }

    #[test]
    fn handshakes_in_flight_count_as_guesses() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);
        assert!(throttle.may_start(now, 9));
        assert!(!throttle.may_start(now, 10));
    }
}
