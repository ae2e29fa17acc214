//! Times on the wire, and the one place where a monotonic instant becomes one.

use std::time::{Duration, Instant};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment moved later by `by`, saturating.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This moment moved earlier by `by`, saturating at 1970.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }
}

/// Duration of the audio frames of a meeting (`docs/protocol.md` §3.1, §8.4): who hosts chooses it, once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum FrameDuration {
    /// 10 ms: less delay, for twice the packets.
    Ms10,
    /// 20 ms.
    Ms20,
}

impl FrameDuration {
    /// All there are, in ascending order.
    pub const ALL: [Self; 2] = [Self::Ms10, Self::Ms20];

    /// What a descriptor's `frame_ms` stands for; `None` of what no descriptor may hold.
    pub fn from_millis(millis: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|frame| frame.millis() == millis)
    }

    /// In milliseconds, as in a descriptor.
    pub const fn millis(self) -> u8 {
        match self {
            Self::Ms10 => 10,
            Self::Ms20 => 20,
        }
    }

    /// As a time.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.millis() as u64)
    }

    /// How many frames last `time`, the last one of them begun.
    pub const fn count_in(self, time: Duration) -> u32 {
        time.as_millis().div_ceil(self.millis() as u128) as u32
    }
}

/// Maps the monotonic instants that callers pass in to wall-clock time.
///
/// The caller reads both clocks once; from then on wall time follows the monotonic clock, so a clock that is
/// set back in mid-meeting revives no expired capability.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    at: Instant,
    unix: UnixMillis,
}

impl WallClock {
    /// A wall clock that reads `unix` at the instant `at`.
    pub fn new(at: Instant, unix: UnixMillis) -> Self {
        Self { at, unix }
    }

    /// The wall-clock time at `now`.
    pub fn at(&self, now: Instant) -> UnixMillis {
        match now.checked_duration_since(self.at) {
            Some(later) => self.unix.plus(later),
            None => self.unix.minus(self.at.saturating_duration_since(now)),
        }
    }

    /// The first instant since the clocks were read at which this one reads `time` or later; `None` when that is too
    /// far ahead for an [`Instant`].
    pub fn when(&self, time: UnixMillis) -> Option<Instant> {
        self.at.checked_add(Duration::from_millis(time.0.saturating_sub(self.unix.0)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_says_when_it_will_read_a_time() {
        let at = Instant::now();
        let clock = WallClock::new(at, UnixMillis(1_000));
        assert_eq!(clock.when(UnixMillis(1_250)), Some(at + Duration::from_millis(250)));
        assert_eq!(clock.at(at + Duration::from_millis(250)), UnixMillis(1_250));
        for past in [0, 999, 1_000] {
            assert_eq!(clock.when(UnixMillis(past)), Some(at));
        }
    }
}
