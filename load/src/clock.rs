//! The frame clock of a simulated talker: the rule of a client's own (`docs/protocol.md` §8.4). Pure.

use std::time::{Duration, Instant};

use crate::plan::FRAME;

/// Most that a clock moves with one tick: 1 ms a second.
const STEP_MICROS: i64 = 20;
/// Most that the relay may ask for at once.
const ALLOWANCE_MICROS: i64 = 20_000;
/// What is regained of it with each tick: 50 ppm.
const REGAINED_MICROS: i64 = 1;

/// A clock of one tick per frame, and the shift that it still has to make.
#[derive(Debug)]
pub struct FrameClock {
    due: Instant,
    pending: i64,
    allowance: i64,
}

impl FrameClock {
    /// A clock whose first tick is due at `due`.
    pub fn new(due: Instant) -> Self {
        Self { due, pending: 0, allowance: ALLOWANCE_MICROS }
    }

    /// When the next tick is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// How much of the last shift is still to be made, in µs; later when positive.
    pub fn pending_micros(&self) -> i64 {
        self.pending
    }

    /// Passes a tick.
    pub fn pass(&mut self) {
        let step = self.pending.clamp(-STEP_MICROS, STEP_MICROS);
        self.pending -= step;
        let moved = Duration::from_micros(step.unsigned_abs());
        self.due += if step < 0 { FRAME - moved } else { FRAME + moved };
        self.allowance = (self.allowance + REGAINED_MICROS).min(ALLOWANCE_MICROS);
    }

    /// The relay asks for a shift, in place of what is left of the one before.
    pub fn shift(&mut self, micros: i64) {
        self.allowance += self.pending.abs();
        self.pending = micros.clamp(-self.allowance, self.allowance);
        self.allowance -= self.pending.abs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_made_at_a_millisecond_a_second_and_no_further() {
        let start = Instant::now();
        let mut clock = FrameClock::new(start);
        clock.shift(-1_500);
        (0..50).for_each(|_| clock.pass());
        assert_eq!(start + FRAME * 50 - clock.due(), Duration::from_millis(1));
        (0..50).for_each(|_| clock.pass());
        assert_eq!(start + FRAME * 100 - clock.due(), Duration::from_micros(1_500));
        assert_eq!(clock.pending_micros(), 0);
    }

    #[test]
    fn a_relay_that_keeps_pulling_gets_no_further_than_the_allowance() {
        let start = Instant::now();
        let mut clock = FrameClock::new(start);
        for _ in 0..100 {
            clock.shift(10_000);
            (0..500).for_each(|_| clock.pass());
        }
        let moved = clock.due() - start - FRAME * 50_000;
        assert!(moved <= Duration::from_micros(20_000 + 50_000), "{moved:?}");
    }
}
