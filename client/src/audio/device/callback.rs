//! What a callback tells about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Callbacks by which it is known how large they are: a third of a second of blocks of 5 ms.
const REMEMBERED: usize = 64;
/// Of so many of these, the one that is largest may be what a hiccup had held up, and says nothing.
const HICCUP: usize = 16;

/// What is known of a callback. Shared with the thread that watches it and with the clocks' half.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    beats: AtomicU64,
    /// When the last callback came, in ns since the epoch.
    last: AtomicI64,
    /// The longest time between two, in ns, since it was taken.
    longest: AtomicI64,
    length: AtomicU32,
    pub(super) starved: AtomicU64,
    /// Moments that a server asked for and has not got yet.
    pub(super) owed: AtomicU32,
    /// The clocks' half has begun to write.
    is_live: AtomicBool,
    underflows: AtomicU64,
    /// Blocks that a server is to keep beyond those that it keeps at least.
    blocks: AtomicU32,
    failed: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            beats: AtomicU64::new(0),
            last: AtomicI64::new(0),
            longest: AtomicI64::new(0),
            length: AtomicU32::new(0),
            starved: AtomicU64::new(0),
            owed: AtomicU32::new(0),
            is_live: AtomicBool::new(false),
            underflows: AtomicU64::new(0),
            blocks: AtomicU32::new(0),
            failed: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// Whether it is known how large callbacks are.
    pub(super) fn is_steady(&self) -> bool {
        self.beats() > 1
    }

    /// Callbacks so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }

    /// The system said that the stream is over.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Whether it did.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// From now on there is something to play.
    pub(super) fn begin(&self) {
        self.is_live.store(true, Ordering::Release);
    }

    /// Whether there is.
    pub(super) fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    /// A server between the callback and the device had nothing to play.
    pub(super) fn on_underflow(&self) {
        self.underflows.fetch_add(1, Ordering::Relaxed);
    }

    /// Times at which a server between the callback and the device had nothing to play.
    pub fn underflows(&self) -> u64 {
        self.underflows.load(Ordering::Relaxed)
    }

    /// Callbacks that found too little to play.
    pub fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed)
    }

    /// A server is to keep so many blocks more than at least.
    pub(super) fn keep_blocks(&self, more: u32) {
        self.blocks.store(more, Ordering::Relaxed);
    }

    /// How many blocks more than at least a server is to keep.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// How long ago at `now` the last callback was, in seconds. A callback that comes while this is asked makes it wrong by
    /// its length, once.
    pub(super) fn age(&self, now: Instant) -> f64 {
        (self.nanos(now) - self.last.load(Ordering::Relaxed)) as f64 * 1e-9
    }

    /// The longest time between two callbacks since this was asked last, in seconds.
    pub(super) fn take_longest(&self) -> f64 {
        self.longest.swap(0, Ordering::Relaxed) as f64 * 1e-9
    }

    /// Moments of a callback.
    pub(super) fn length(&self) -> u32 {
        self.length.load(Ordering::Relaxed)
    }

    fn nanos(&self, at: Instant) -> i64 {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        nanos(at.saturating_duration_since(self.epoch)) - nanos(self.epoch.saturating_duration_since(at))
    }
}

/// The callback's half of what is known of it.
pub(super) struct Heart {
    pulse: Arc<Pulse>,
    /// Of the latest callbacks, in moments.
    lengths: [u32; REMEMBERED],
    beats: usize,
}

impl Heart {
    pub fn new(pulse: Arc<Pulse>) -> Self {
        Self { pulse, lengths: [0; REMEMBERED], beats: 0 }
    }

    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// A callback of so many moments came at `at`.
    pub fn beat(&mut self, moments: usize, at: Instant) {
        let at = self.pulse.nanos(at);
        let last = self.pulse.last.swap(at, Ordering::Relaxed);
        // The first fills a server's buffer, and is larger than all that follow.
        if let Some(before) = self.beats.checked_sub(1) {
            if let Some(place) = self.lengths.get_mut(before % REMEMBERED) {
                *place = u32::try_from(moments).unwrap_or(u32::MAX);
            }
            self.pulse.length.store(self.length(), Ordering::Relaxed);
            self.pulse.longest.fetch_max(at - last, Ordering::Relaxed);
        }
        self.beats += 1;
        self.pulse.beats.fetch_add(1, Ordering::Release);
    }

    /// The largest, but for those that a hiccup may have made large.
    fn length(&self) -> u32 {
        let mut lengths = self.lengths;
        let known = self.beats.min(REMEMBERED - 1);
        let (_, length, _) = lengths.select_nth_unstable_by(known / HICCUP, |a, b| b.cmp(a));
        *length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heart() -> (Heart, Arc<Pulse>, Instant) {
        let pulse = Arc::new(Pulse::default());
        let start = pulse.epoch + Duration::from_secs(1);
        (Heart::new(Arc::clone(&pulse)), pulse, start)
    }

    #[test]
    fn the_age_of_a_callback_is_that_of_the_last_one() {
        let (mut heart, pulse, start) = heart();
        heart.beat(480, start);
        heart.beat(240, start + Duration::from_millis(5));
        assert!((pulse.age(start + Duration::from_millis(7)) - 0.002).abs() < 1e-9);
        assert!((pulse.age(start + Duration::from_millis(4)) + 0.001).abs() < 1e-9, "asked for a time before it");
        assert_eq!(pulse.length(), 240, "the first one does not count");
        assert!((pulse.take_longest() - 0.005).abs() < 1e-9);
        assert!(pulse.take_longest().abs() < 1e-9);
    }

    #[test]
    fn a_callback_is_as_long_as_the_longest_that_are_no_hiccup() {
        let (mut heart, pulse, start) = heart();
        heart.beat(9_999, start);
        (0..200).for_each(|n| heart.beat(if n % 3 == 0 { 300 } else { 200 }, start));
        assert_eq!(pulse.length(), 300, "what alternates");
        for _ in 0..3 {
            heart.beat(2_000, start);
            assert_eq!(pulse.length(), 300, "what was held up came at once");
        }
        heart.beat(2_000, start);
        assert_eq!(pulse.length(), 2_000, "that is how it is now");
        (0..64).for_each(|_| heart.beat(100, start));
        assert_eq!(pulse.length(), 100);
    }
}
