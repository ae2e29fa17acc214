//! When to look at the other relays of a link because nobody else of the meeting is at this one. Pure.
//!
//! A path that has a hiccup, or a relay that only some can reach, may bring one client to another relay than the rest.
//! Whoever is alone goes up the list, where everybody looks first; and now and then down, since those who cannot reach
//! the first relays are there.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Between two looks at the relays further up: two beats of a leader, so that a change of relay of all has time to
/// end, and well before who hears no leader has to fall silent (10 s).
const UP_EVERY: Duration = Duration::from_secs(4);
/// Before the first look at the relays further down: who is up here is where everybody looks first.
const DOWN_AFTER: Duration = Duration::from_secs(12);
/// The longest time between two looks down: whoever waits for an absent host does not burden the relays.
const DOWN_AT_MOST: Duration = Duration::from_secs(96);

/// What is known of being alone.
pub(super) struct Alone {
    since: Option<Instant>,
    up_at: Option<Instant>,
    down_at: Option<Instant>,
    down_wait: Duration,
}

impl Alone {
    pub(super) fn new() -> Self {
        Self { since: None, up_at: None, down_at: None, down_wait: DOWN_AFTER }
    }

    /// Another relay is in use, or the first.
    pub(super) fn on_switched(&mut self) {
        (self.since, self.up_at, self.down_at) = (None, None, None);
    }

    /// Which relays to try now, for a client at `relay` of `count`.
    pub(super) fn look(&mut self, now: Instant, is_alone: bool, relay: usize, count: usize) -> Option<Range<usize>> {
        if !is_alone {
            *self = Self::new();
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let up_at = *self.up_at.get_or_insert(since + UP_EVERY);
        let down_at = *self.down_at.get_or_insert(since + self.down_wait);
        if relay + 1 < count && now >= down_at {
            self.down_wait = (self.down_wait * 2).min(DOWN_AT_MOST);
            self.down_at = Some(now + self.down_wait);
            return Some(relay + 1..count);
        }
        if relay > 0 && now >= up_at {
            self.up_at = Some(now + UP_EVERY);
            return Some(0..relay);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(
        alone: &mut Alone,
        start: Instant,
        seconds: Range<u64>,
        relay: usize,
        count: usize,
    ) -> Vec<(u64, Range<usize>)> {
        let look = |second| Some((second, alone.look(start + Duration::from_secs(second), true, relay, count)?));
        seconds.filter_map(look).collect()
    }

    #[test]
    fn who_is_alone_goes_up_every_few_seconds_and_down_less_and_less_often() {
        let start = Instant::now();
        assert_eq!(looks(&mut Alone::new(), start, 0..120, 0, 1), []);
        assert_eq!(looks(&mut Alone::new(), start, 0..13, 1, 2), [(4, 0..1), (8, 0..1), (12, 0..1)]);
        let mut alone = Alone::new();
        assert_eq!(looks(&mut alone, start, 0..100, 0, 3), [(12, 1..3), (36, 1..3), (84, 1..3)]);
        // At the relay below nobody is either: back soon, and later down again.
        alone.on_switched();
        assert_eq!(looks(&mut alone, start, 100..106, 1, 3), [(104, 0..1)]);
        assert_eq!(looks(&mut Alone::new(), start, 0..13, 1, 3), [(4, 0..1), (8, 0..1), (12, 2..3)]);
    }

    #[test]
    fn who_is_not_alone_stays() {
        let start = Instant::now();
        let mut alone = Alone::new();
        assert_eq!(looks(&mut alone, start, 0..4, 1, 2), []);
        assert_eq!(alone.look(start + Duration::from_secs(4), false, 1, 2), None);
        assert_eq!(looks(&mut alone, start, 5..9, 1, 2), []);
    }
}
