//! The frame clock: one tick per frame, steered by the relay (`docs/protocol.md` §8.4). Pure: time comes in as an
//! argument.
//!
//! A relay asks the clients of a meeting to shift their clocks so that their frames come together and leave together to
//! each listener. Neither speech nor mute has any part in it. Who has only begun to send, whom hardly anybody hears yet,
//! takes its place at once; later a clock moves slowly, and so little that no listener's playout has to follow.

use std::time::{Duration, Instant};

use crate::wire::relay::PhaseShift;

/// A clock of frames of one duration, and the shift that is still to be made.
#[derive(Debug)]
pub struct FrameClock {
    frame: Duration,
    due: Instant,
    /// In µs; later when positive.
    pending: i64,
    /// In µs, of both directions together: what the relay may still ask for.
    allowance: i64,
    /// The same of the shifts that are made at once.
    at_once: i64,
    /// What has passed since something was regained.
    since: Duration,
    /// Frames that were sent.
    sent: u32,
}

/// One part in a thousand: 1 ms in a second. The clocks of sound devices differ by a tenth of that.
const SLEW: u32 = 1_000;
/// Frames after which a talker is no beginner any more: those of a second, of 20 ms. The first shift is asked for after ten.
const BEGINNING: u32 = 50;
/// What a beginner may be asked for, in µs: half a frame is the longest way to any phase, and as much for corrections.
const AT_ONCE: i64 = 15_000;
/// What the relay may ask for later, in µs: less than playouts let a delay leave its range before they skip or insert a
/// frame, which is 5 ms.
const ALLOWANCE: i64 = 4_000;
/// What is regained of it in each second, in µs: 50 ppm, by which cheap crystals are wrong. A relay that keeps pulling
/// gets no further than that, and nobody's clock runs away.
const REGAINED: u32 = 50;

impl FrameClock {
    /// A clock whose first tick is due at `due`.
    #[must_use]
    pub fn new(due: Instant, frame: Duration) -> Self {
        Self { frame, due, pending: 0, allowance: ALLOWANCE, at_once: AT_ONCE, since: Duration::ZERO, sent: 0 }
    }

    /// When the next tick is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Passes the tick that is due, and `skipped` more.
    pub fn pass(&mut self, skipped: u32) {
        self.due += self.frame.saturating_mul(skipped);
        let most = i64::try_from(self.frame.as_micros() / u128::from(SLEW)).unwrap_or(0);
        let step = self.pending.clamp(-most, most);
        self.pending -= step;
        let micros = Duration::from_micros(step.unsigned_abs());
        self.due += if step < 0 { self.frame - micros } else { self.frame + micros };
        self.since += self.frame;
        if self.since >= Duration::from_secs(1) / REGAINED {
            self.since = Duration::ZERO;
            self.allowance = (self.allowance + 1).min(ALLOWANCE);
        }
    }

    /// A frame was sent.
    pub fn on_sent(&mut self) {
        self.sent = self.sent.saturating_add(1);
    }

    /// How much of the last shift is still to be made, in µs; later when positive.
    #[must_use]
    pub fn pending_micros(&self) -> i64 {
        self.pending
    }

    /// The relay asks for a shift, in place of what is left of the one before.
    pub fn shift(&mut self, shift: PhaseShift) {
        let micros = i64::from(shift.micros());
        if self.sent < BEGINNING && micros.abs() <= self.at_once {
            self.at_once -= micros.abs();
            let step = Duration::from_micros(micros.unsigned_abs());
            let earlier = self.due.checked_sub(step).unwrap_or(self.due);
            self.due = if micros < 0 { earlier } else { self.due + step };
            return;
        }
        self.allowance += self.pending.abs();
        self.pending = micros.clamp(-self.allowance, self.allowance);
        self.allowance -= self.pending.abs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// A clock whose owner has been talking for a while.
    fn settled(frame: Duration) -> FrameClock {
        let mut clock = FrameClock::new(Instant::now(), frame);
        (0..BEGINNING).for_each(|_| clock.on_sent());
        clock
    }

    /// By how many µs the clock is later after so many ticks than one that was not steered.
    fn moved(clock: &mut FrameClock, ticks: u32) -> i128 {
        let start = clock.due();
        (0..ticks).for_each(|_| clock.pass(0));
        let (plain, real) = (clock.frame * ticks, clock.due() - start);
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
        for micros in [3_010, -3_010] {
            let mut clock = settled(FRAME);
            clock.shift(PhaseShift::from_micros(micros));
            assert_eq!(moved(&mut clock, 50).abs(), 1_000, "1 ms in the first second");
            assert_eq!(1_000 * i128::from(micros.signum()) + moved(&mut clock, 1_000), i128::from(micros));
        }
    }

    #[test]
    fn a_beginner_takes_its_place_at_once_and_not_again_and_again() {
        for micros in [9_000, -9_000] {
            let mut clock = FrameClock::new(Instant::now() + FRAME, FRAME);
            let due = clock.due();
            clock.shift(PhaseShift::from_micros(micros));
            let moved_by = (clock.due() + FRAME - due).as_micros() as i128 - FRAME.as_micros() as i128;
            assert_eq!((moved_by, clock.pending_micros()), (i128::from(micros), 0));
            clock.shift(PhaseShift::from_micros(micros));
            assert_eq!(moved(&mut clock, 1_000), i128::from(micros.signum()) * i128::from(ALLOWANCE));
        }
    }

    #[test]
    fn a_new_shift_replaces_what_is_left_of_the_old_one() {
        let mut clock = settled(FRAME);
        clock.shift(PhaseShift::from_micros(2_000));
        assert_eq!(moved(&mut clock, 50), 1_000);
        clock.shift(PhaseShift::from_micros(-500));
        assert_eq!(moved(&mut clock, 1_000), -500);
    }

    #[test]
    fn a_relay_that_keeps_pulling_gets_no_further_than_a_crystal_is_wrong() {
        for frame in [FRAME, FRAME / 2] {
            let mut clock = settled(frame);
            let mut moved_by = 0;
            for _ in 0..60 {
                clock.shift(PhaseShift::from_micros(10_000));
                moved_by += moved(&mut clock, (Duration::from_secs(60).as_nanos() / frame.as_nanos()) as u32);
            }
            let hour = 50 * 3_600;
            assert!(moved_by <= i128::from(ALLOWANCE) + hour, "{moved_by} µs in an hour");
            assert!(moved_by > hour / 2, "{moved_by} µs: it follows as far as it may");
        }
    }
}
