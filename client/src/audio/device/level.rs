//! How much waits in the ring between a callback and a clock, and how it is kept so.
//!
//! A ring's fill jumps with each callback and each frame, by as much as they move at once. What is steered by is the time
//! that sound waits, from when it is recorded until its frame, or from its step until it is taken: the fill, and how long
//! ago the last callback was. That is the same at every moment, however the two clocks lie to each other, so it is the
//! same for ever, and no more is kept beside a callback's length than what both are late by (`margin`).

use std::sync::Arc;
use std::time::Duration;

use super::callback::Pulse;
use super::drift::Controller;
use super::margin::Margin;
use crate::realtime::Scheduling;

/// Fill above what it should be from which the surplus is thrown away, in seconds: after a stall of the process. The
/// controller would need a minute for it.
const SURPLUS: f64 = 0.060;
/// By how much what waits may be wrong before it is set right at once, and for how long, in seconds: more than one step,
/// and longer than any stall is caught up with.
const FAR_OFF: (f64, f64) = (0.006, 0.5);
/// Most that is kept against what is late, if nothing else is said: a machine that needs more does not carry a conversation.
pub const MOST_MARGIN: Duration = Duration::from_millis(60);

/// What is kept beside a callback's length at least: what clocks and callbacks are late by now and then.
fn least_margin(scheduling: Scheduling) -> Duration {
    match scheduling {
        Scheduling::RealTime => Duration::from_micros(1_500),
        Scheduling::Shared => Duration::from_millis(10),
    }
}

/// What waits, what is wanted of it, and the correction. Both directions have one.
pub(super) struct Level {
    pub pulse: Arc<Pulse>,
    pub margin: Margin,
    rate: f64,
    /// For how long too much has waited, or too little when negative, in seconds.
    off_for: f64,
    controller: Controller,
}

impl Level {
    pub fn new(rate: u32, pulse: Arc<Pulse>, scheduling: Scheduling) -> Self {
        Self {
            pulse,
            margin: Margin::new(least_margin(scheduling), MOST_MARGIN),
            rate: f64::from(rate),
            off_for: 0.0,
            controller: Controller::default(),
        }
    }

    /// Length of a callback, in seconds.
    pub fn callback(&self) -> f64 {
        self.seconds(self.pulse.length() as usize)
    }

    /// For how long sound is to wait, in seconds.
    pub fn held(&self) -> f64 {
        self.callback() + self.margin.get()
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
        self.pulse.length() as usize + self.samples(self.held() + SURPLUS)
    }

    /// So much time passed without a gap, and what waits is too much by `deviation` seconds. Gives what the resampler is to
    /// work through faster; see [`Controller::step`].
    pub fn correct(&mut self, deviation: f64, time: Duration) -> f64 {
        self.margin.pass(time);
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
}
