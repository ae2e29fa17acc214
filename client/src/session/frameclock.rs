//! The frame clock: one tick per frame, steered by the relay (`docs/protocol.md` §8.4). Pure: time comes in as an
//! argument.
//!
//! A relay asks the clients of a meeting to shift their clocks so that their frames come together and leave together to
//! each listener. Neither speech nor mute has any part in it.

use std::time::{Duration, Instant};

use conclave_protocol::wire::relay::PhaseShift;

/// A clock of frames of `frame`, and the shift that is still to be made.
pub(super) struct FrameClock {
    frame: Duration,
    due: Instant,
    /// In µs; later when positive.
    pending: i64,
    /// In µs, of both directions together: what the relay may still ask for.
    allowance: i64,
}

/// One part in a thousand: the clocks of sound devices differ by a tenth of that, and every playout that can follow
/// those at all follows a shift of 10 ms at this pace.
const SLEW: u32 = 1_000;
/// What the relay may ask for at once: it finds a place for a newcomer by half a frame, and corrects itself.
const ALLOWANCE: i64 = 20_000;
/// What is regained of it with every tick, in µs: 50 ppm of 20 ms, by which cheap crystals are wrong. A relay that keeps
/// pulling gets no further than that, and nobody's clock runs away.
const REGAINED: i64 = 1;

impl FrameClock {
    /// A clock whose first tick is due at `due`.
    pub(super) fn new(due: Instant, frame: Duration) -> Self {
        Self { frame, due, pending: 0, allowance: ALLOWANCE }
    }

    /// When the next tick is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Passes the tick that is due, and `skipped` more.
    pub(super) fn pass(&mut self, skipped: u32) {
        self.due += self.frame.saturating_mul(skipped);
        let most = i64::try_from(self.frame.as_micros() / u128::from(SLEW)).unwrap_or(0);
        let step = self.pending.clamp(-most, most);
        self.pending -= step;
        let micros = Duration::from_micros(step.unsigned_abs());
        self.due += if step < 0 { self.frame - micros } else { self.frame + micros };
        self.allowance = (self.allowance + REGAINED).min(ALLOWANCE);
    }

    /// The relay asks for a shift, in place of what is left of the one before.
    pub(super) fn shift(&mut self, shift: PhaseShift) {
        self.allowance += self.pending.abs();
        self.pending = i64::from(shift.micros()).clamp(-self.allowance, self.allowance);
        self.allowance -= self.pending.abs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// By how many µs the clock is later after so many ticks than one that was not steered.
    fn moved(clock: &mut FrameClock, ticks: u32) -> i128 {
        let start = clock.due();
        (0..ticks).for_each(|_| clock.pass(0));
        let (plain, real) = (FRAME * ticks, clock.due() - start);
        real.as_micros() as i128 - plain.as_micros() as i128
    }

    #[test]
    fn a_clock_that_nobody_steers_ticks_once_a_frame() {
        let mut clock = FrameClock::new(Instant::now(), FRAME);
        assert_eq!(moved(&mut clock, 50_000), 0);
        let due = clock.due();
        clock.pass(3);
        assert_eq!(clock.due() - due, FRAME * 4);
    }

    #[test]
    fn a_shift_is_made_at_a_millisecond_a_second_and_then_over() {
        for micros in [4_010, -4_010] {
            let mut clock = FrameClock::new(Instant::now(), FRAME);
            clock.shift(PhaseShift::from_micros(micros));
            assert_eq!(moved(&mut clock, 50).abs(), 1_000, "1 ms in the first second");
            assert_eq!(1_000 * i128::from(micros.signum()) + moved(&mut clock, 1_000), i128::from(micros));
        }
    }

    #[test]
    fn a_new_shift_replaces_what_is_left_of_the_old_one() {
        let mut clock = FrameClock::new(Instant::now(), FRAME);
        clock.shift(PhaseShift::from_micros(10_000));
        assert_eq!(moved(&mut clock, 50), 1_000);
        clock.shift(PhaseShift::from_micros(-500));
        assert_eq!(moved(&mut clock, 1_000), -500);
    }

    #[test]
    fn a_relay_that_keeps_pulling_gets_no_further_than_a_crystal_is_wrong() {
        let mut clock = FrameClock::new(Instant::now(), FRAME);
        let mut moved_by = 0;
        for _ in 0..60 {
            clock.shift(PhaseShift::from_micros(10_000));
            moved_by += moved(&mut clock, 50 * 60);
        }
        let hour = 50 * 3_600;
        assert!(moved_by <= i128::from(ALLOWANCE) + hour, "{moved_by} µs in an hour");
    }
}
