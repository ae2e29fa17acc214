//! How much waits in the ring between a callback and a clock, and how it is kept so.
//!
//! A ring's fill jumps with each callback and each frame, by as much as they move at once. What is steered by is the time
//! that sound waits, from when it is recorded until its frame, or from its step until it is taken: the fill, and how long
//! ago the last callback was. That is the same at every moment, however the two clocks lie to each other, so it is the
//! same for ever, and no more is kept beside a callback's length than what both are early or late by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::drift::Controller;
use crate::realtime::Scheduling;

/// What the margin grows by at least each time it was too small, else by a half, in seconds. The gap is heard; a second one
/// should not be.
const MARGIN_STEP: f64 = 0.002;
/// Seconds without a gap after which the margin shrinks by a step again: the machine may have been busy for a while only.
/// When that was too early, it takes twice as long the next time.
const CALM: f64 = 60.0;
/// The longest that it takes, in seconds: a machine that is always busy has four more gaps an hour.
const MOST_CALM: f64 = 16.0 * CALM;
/// Where the margin ends, in seconds: a machine that needs more does not carry a conversation.
const MOST_MARGIN: f64 = 0.060;
/// Fill above what it should be from which the surplus is thrown away, in seconds: after a stall of the process. The
/// controller would need a minute for it.
const SURPLUS: f64 = 0.060;
/// By how much what waits may be wrong before it is set right at once, and for how long, in seconds: more than one step,
/// and longer than any stall is caught up with.
const FAR_OFF: (f64, f64) = (0.006, 0.5);
/// Which part of the largest callback is forgotten with each. With 256, what alternates is remembered to within a
/// hundredth.
const FORGOTTEN: u32 = 256;

/// What a callback tells about itself. Shared with the thread that watches it and with the clocks' half.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    beats: AtomicU64,
    /// When the last callback came, in ns since the epoch.
    last: AtomicI64,
    largest: AtomicU32,
    pub(super) starved: AtomicU64,
    /// Moments that a server asked for and has not got yet.
    pub(super) owed: AtomicU32,
    /// The clocks' half has begun to write.
    is_live: AtomicBool,
    /// It lets a server wait.
    lets_wait: AtomicBool,
    underflows: AtomicU64,
    failed: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            beats: AtomicU64::new(0),
            last: AtomicI64::new(0),
            largest: AtomicU32::new(0),
            starved: AtomicU64::new(0),
            owed: AtomicU32::new(0),
            is_live: AtomicBool::new(false),
            lets_wait: AtomicBool::new(false),
            underflows: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }
}

impl Pulse {
    /// A callback of so many moments came at `at`. Only the callback calls it.
    pub(super) fn beat(&self, frames: usize, at: Instant) {
        // The first fills a server's buffer, and is larger than all that follow.
        if self.beats.load(Ordering::Relaxed) > 0 {
            let largest = self.largest();
            // What a hiccup made large is forgotten within some hundred callbacks.
            let remembered = largest - largest / FORGOTTEN;
            self.largest.store(u32::try_from(frames).unwrap_or(u32::MAX).max(remembered), Ordering::Relaxed);
        }
        self.last.store(self.nanos(at), Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Release);
    }

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

    /// Whether a server is let wait from now on for what it asks for.
    pub(super) fn let_wait(&self, on: bool) {
        self.lets_wait.store(on, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(super) fn lets_wait(&self) -> bool {
        self.lets_wait.load(Ordering::Relaxed)
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

    /// How long ago at `now` the last callback was, in seconds. A callback that comes while this is asked makes it wrong by
    /// its length, once.
    pub(super) fn age(&self, now: Instant) -> f64 {
        (self.nanos(now) - self.last.load(Ordering::Relaxed)) as f64 * 1e-9
    }

    fn largest(&self) -> u32 {
        self.largest.load(Ordering::Relaxed)
    }

    fn nanos(&self, at: Instant) -> i64 {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        nanos(at.saturating_duration_since(self.epoch)) - nanos(self.epoch.saturating_duration_since(at))
    }
}

/// What is kept beside a callback's length at first, in seconds: what clocks and callbacks are late by now and then.
fn margin(scheduling: Scheduling) -> f64 {
    match scheduling {
        Scheduling::RealTime => 0.0015,
        Scheduling::Shared => 0.010,
    }
}

/// What waits, what is wanted of it, and the correction. Both directions have one.
pub(super) struct Level {
    pub pulse: Arc<Pulse>,
    rate: f64,
    /// Where the margin begins, and what it comes back to.
    least: f64,
    margin: f64,
    /// Seconds since the margin was changed, and how many of them make it shrink.
    calm: f64,
    calm_enough: f64,
    /// The last change made it smaller.
    has_shrunk: bool,
    /// For how long too much has waited, or too little when negative, in seconds.
    off_for: f64,
    controller: Controller,
}

impl Level {
    pub fn new(rate: u32, pulse: Arc<Pulse>, scheduling: Scheduling) -> Self {
        let least = margin(scheduling);
        Self {
            pulse,
            rate: f64::from(rate),
            least,
            margin: least,
            calm: 0.0,
            calm_enough: CALM,
            has_shrunk: false,
            off_for: 0.0,
            controller: Controller::default(),
        }
    }

    /// What is kept against the next gap, in seconds.
    pub fn margin(&self) -> f64 {
        self.margin
    }

    /// For how long sound is to wait, in seconds.
    pub fn held(&self) -> f64 {
        self.seconds(self.pulse.largest() as usize) + self.margin
    }

    pub fn seconds(&self, samples: usize) -> f64 {
        samples as f64 / self.rate
    }

    /// None when it is negative.
    pub fn samples(&self, seconds: f64) -> usize {
        (seconds * self.rate) as usize
    }

    /// From which fill on it is too much.
    pub fn surplus(&self) -> usize {
        self.pulse.largest() as usize + self.samples(self.held() + SURPLUS)
    }

    /// There was a gap.
    pub fn widen(&mut self) {
        if std::mem::take(&mut self.has_shrunk) {
            self.calm_enough = (self.calm_enough * 2.0).min(MOST_CALM);
        }
        self.margin = (self.margin + MARGIN_STEP.max(self.margin / 2.0)).min(MOST_MARGIN);
        self.calm = 0.0;
    }

    /// So much time passed without a gap, and what waits is too much by `deviation` seconds. Gives what the resampler is to
    /// work through faster; see [`Controller::step`].
    pub fn correct(&mut self, deviation: f64, time: Duration) -> f64 {
        self.calm += time.as_secs_f64();
        if self.calm >= self.calm_enough {
            self.calm = 0.0;
            self.has_shrunk |= self.margin > self.least;
            self.margin = (self.margin - MARGIN_STEP).max(self.least);
        }
        self.controller.step(deviation, time)
    }

    /// Whether what waits has been wrong by so much for so long that it is to be set right at once: by `deviation` seconds
    /// now, `time` after it was last asked.
    pub fn is_off(&mut self, deviation: f64, time: Duration) -> bool {
        let (most, enough) = FAR_OFF;
        let time = time.as_secs_f64().copysign(deviation);
        let goes_on = deviation.abs() > most && self.off_for * deviation >= 0.0;
        self.off_for = if goes_on { self.off_for + time } else { 0.0 };
        let is_off = self.off_for.abs() >= enough;
        if is_off {
            self.off_for = 0.0;
        }
        is_off
    }

    /// What waits was set to what it should be.
    pub fn refilled(&mut self) {
        self.controller.refilled();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds without a gap until the margin is smaller.
    fn until_smaller(level: &mut Level) -> f64 {
        let before = level.margin();
        let seconds = (1..100_000).find(|_| {
            level.correct(0.0, Duration::from_secs(1));
            level.margin() < before
        });
        f64::from(seconds.unwrap())
    }

    #[test]
    fn a_margin_that_shrank_too_early_stays_for_twice_as_long() {
        let mut level = Level::new(48_000, Arc::default(), Scheduling::RealTime);
        let least = level.margin();
        level.widen();
        assert!((level.margin() - least - MARGIN_STEP).abs() < 1e-9);
        level.widen();
        assert!((until_smaller(&mut level) - CALM).abs() < 1.5);
        for factor in [2.0, 4.0, 8.0, 16.0, 16.0] {
            level.widen();
            let seconds = until_smaller(&mut level);
            assert!((seconds - factor * CALM).abs() < 1.5, "{factor}: {seconds}");
        }
        (0..1_000).for_each(|_| level.widen());
        assert!((level.margin() - MOST_MARGIN).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_for_half_a_second_is_set_right_at_once_and_what_comes_and_goes_is_not() {
        let mut level = Level::new(48_000, Arc::default(), Scheduling::RealTime);
        let time = Duration::from_millis(10);
        for deviation in [0.007, -0.007] {
            assert!((1..50).all(|_| !level.is_off(deviation, time)));
            assert!(level.is_off(deviation, time));
        }
        assert!((0..1_000).all(|_| !level.is_off(0.005, time)));
        assert!((0..1_000).all(|n| !level.is_off(if n % 40 < 30 { 0.05 } else { 0.0 }, time)));
        assert!((0..1_000).all(|n| !level.is_off(if n % 80 < 40 { 0.05 } else { -0.05 }, time)));
    }

    #[test]
    fn the_age_of_a_callback_is_that_of_the_last_one() {
        let pulse = Pulse::default();
        let start = pulse.epoch + Duration::from_secs(1);
        pulse.beat(480, start);
        pulse.beat(240, start + Duration::from_millis(5));
        assert!((pulse.age(start + Duration::from_millis(7)) - 0.002).abs() < 1e-9);
        assert!((pulse.age(start + Duration::from_millis(4)) + 0.001).abs() < 1e-9, "asked for a time before it");
        assert_eq!(pulse.largest(), 240, "the first one does not count");
    }
}
