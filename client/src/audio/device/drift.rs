//! Keeps a ring at its fill while the clock of a device and the frame clock run apart. Pure.
//!
//! Two crystals differ by up to some 200 parts in a million: after 100 s a ring between them is 20 ms fuller or emptier.
//! The controller reads what waits there at each frame and says how much faster the resampler is to work through it: a
//! proportional part pulls the fill back, an integral part learns the difference of the clocks.

use std::time::Duration;

/// Time in which a deviation is smoothed, in seconds: callbacks come now and then late.
const SMOOTHING: f64 = 0.4;
/// Correction per second of deviation, in 1/s. A deviation is gone in some seconds. Higher bends the pitch more when a
/// callback comes late, lower lets the fill wander further before the clocks' difference is learnt.
const PULL: f64 = 0.4;
/// How fast the difference of the clocks is learnt, in 1/s²: critical damping of the loop.
const LEARN: f64 = PULL * PULL / 4.0;
/// Most correction: a thousandth, five times what crystals differ by, and 1.7 hundredths of a semitone.
pub(super) const MOST: f64 = 1e-3;

/// Steers one resampler.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controller {
    /// Smoothed deviation in seconds.
    deviation: f64,
    /// What has been learnt of the clocks.
    learnt: f64,
}

impl Controller {
    /// Takes the deviation of what waits in seconds, every `time`; positive when there is too much. Gives how much more
    /// than one second of the ring's input is to be used up per second: within ±[`MOST`].
    pub fn step(&mut self, deviation: f64, time: Duration) -> f64 {
        let dt = time.as_secs_f64();
        self.deviation += (deviation - self.deviation) * (dt / SMOOTHING);
        self.learnt = (self.learnt + self.deviation * LEARN * dt).clamp(-MOST, MOST);
        (self.deviation * PULL + self.learnt).clamp(-MOST, MOST)
    }

    /// The fill was set to what it should be. What was learnt of the clocks stays true.
    pub fn refilled(&mut self) {
        self.deviation = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::{FRAME, STEP};

    #[test]
    fn clocks_that_differ_by_200_ppm_never_move_the_fill_by_half_a_millisecond_in_an_hour() {
        for (ppm, time) in [(200.0, FRAME), (-200.0, FRAME), (50.0, FRAME), (200.0, STEP)] {
            let (mut controller, mut fill, mut worst) = (Controller::default(), 0.0_f64, 0.0_f64);
            for _ in 0..3_600_000 / time.as_millis() {
                let correction = controller.step(fill, time);
                fill += (ppm * 1e-6 - correction) * time.as_secs_f64();
                worst = worst.max(fill.abs());
            }
            assert!(worst < 0.5e-3, "{ppm} ppm: {worst} s");
            assert!(fill.abs() < 1e-6, "{ppm} ppm: {fill} s are left");
        }
    }

    #[test]
    fn a_correction_has_its_bound() {
        let mut controller = Controller::default();
        assert!((0..100_000).all(|_| controller.step(1.0, FRAME) <= MOST));
        controller.refilled();
        assert!((0..100_000).all(|_| controller.step(-1.0, FRAME) >= -MOST));
    }
}
