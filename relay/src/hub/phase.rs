//! The common phase of a meeting's frame clocks (DESIGN §9, `docs/protocol.md` §8.4). Pure: time comes in as an
//! argument.
//!
//! What arrives together leaves together, in one packet to each listener. So the relay looks when in the frame's
//! duration each slot's frames come, and asks those that come at another time than the first to shift. It looks at
//! arrivals only, and where most of them are at the earliest: jitter makes frames late, never early. That one frame came late
//! says nothing, and one that is late by more than half a frame looks early.

use std::time::{Duration, Instant};

use conclave_protocol::wire::relay::PhaseShift;

/// How often slots are asked.
pub(super) const EVERY: Duration = Duration::from_millis(200);
/// Frames that are looked at before a slot is asked for the first time, while it may still take its place at once
/// (`docs/protocol.md` §8.4).
const FIRST_FRAMES: usize = 10;
/// The same later: those of a second.
const FRAMES: usize = 50;
/// What is near enough, in µs: frames that come within twice this are together for any hold of a millisecond.
const NEAR: i64 = 300;
/// Frames that come one after another, in order of their places, are one lot unless there is a gap: wider than that between most
/// of them by so many times, and than this part of a frame's duration; or than that part of it at any rate.
const GAP: i64 = 4;
const LEAST_GAP: i64 = 20;
const MOST_GAP: i64 = 5;
/// A client shifts by a thousandth of the time that passes; and its first frames after that are on their way.
const SLEW: u32 = 1_000;
const SETTLING: Duration = Duration::from_millis(500);
/// A slot that was asked so often and has not come near does not follow, or its path makes it hard to tell.
const PATIENCE: u8 = 8;
/// When such a slot is asked again.
const LATER: Duration = Duration::from_secs(120);

/// When one slot's frames come.
#[derive(Clone, Copy)]
pub(super) struct Meter {
    /// Places of the frames looked at, in µs, and how many there are.
    places: [i16; FRAMES],
    frames: usize,
    /// Frames before then are on the old phase.
    from: Option<Instant>,
    asked: u8,
    /// It has been looked at before.
    is_known: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self { places: [0; FRAMES], frames: 0, from: None, asked: 0, is_known: false }
    }
}

impl Meter {
    /// A frame has come. `tick` is a moment of the common phase, `frame` the frame's duration.
    pub(super) fn on_frame(&mut self, now: Instant, tick: Instant, frame: Duration) {
        if self.from.is_some_and(|from| now < from) {
            return;
        }
        if let Some(free) = self.places.get_mut(self.frames) {
            // Within half of 20 ms.
            *free = i16::try_from(place(now, tick, frame)).unwrap_or_default();
            self.frames += 1;
        }
    }

    /// How the slot is to shift, if it is to.
    pub(super) fn ask(&mut self, now: Instant, frame: Duration) -> Option<PhaseShift> {
        if self.frames < if self.is_known { FRAMES } else { FIRST_FRAMES } {
            return None;
        }
        let is_first = !std::mem::replace(&mut self.is_known, true);
        let frames = std::mem::take(&mut self.frames);
        let is_late_by = earliest_of_most(&mut self.places[..frames], micros(frame));
        if is_late_by.abs() <= NEAR {
            self.asked = 0;
            return None;
        }
        let wait = match self.asked {
            PATIENCE.. => LATER,
            _ if is_first => Duration::ZERO,
            _ => Duration::from_micros(is_late_by.unsigned_abs()) * SLEW,
        };
        self.from = Some(now + wait + SETTLING);
        self.asked = if self.asked >= PATIENCE { 0 } else { self.asked + 1 };
        Some(PhaseShift::from_micros(-is_late_by))
    }
}

/// The earliest of the lot to which most of these places belong, within half a frame. There is one at least.
fn earliest_of_most(places: &mut [i16], frame: i64) -> i64 {
    places.sort_unstable();
    let count = places.len();
    // On from the last comes the first again, a frame later.
    let at = |n: usize| i64::from(places[n % count]) + frame * i64::try_from(n / count).unwrap_or_default();
    let half = count / 2;
    let densest = (0..count).min_by_key(|n| at(n + half) - at(*n)).unwrap_or_default();
    let usual = (at(densest + half) - at(densest)) / i64::try_from(half.max(1)).unwrap_or(i64::MAX);
    let gap = (usual * GAP).clamp(frame / LEAST_GAP, frame / MOST_GAP);
    let mut first = densest + count;
    while first > densest + 1 && at(first) - at(first - 1) <= gap {
        first -= 1;
    }
    around(at(first), frame)
}

/// The place of `now` in the frame, in µs after `tick` or before it: within half a frame.
fn place(now: Instant, tick: Instant, frame: Duration) -> i64 {
    let after = micros(now.saturating_duration_since(tick)) - micros(tick.saturating_duration_since(now));
    around(after, micros(frame))
}

/// `offset` by whole frames nearer to zero, within half a frame.
fn around(offset: i64, frame: i64) -> i64 {
    let frame = frame.max(1);
    (offset + frame / 2).rem_euclid(frame) - frame / 2
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A client whose frames come at `due`, each up to `jitter` µs late, and which follows, or does not.
    struct Sender {
        due: Instant,
        jitter: u64,
        is_new: bool,
        pending: i64,
        follows: bool,
        sent: u64,
        asked: u32,
    }

    impl Sender {
        fn new(due: Instant, jitter: u64, follows: bool) -> Self {
            Self { due, jitter, is_new: true, pending: 0, follows, sent: 0, asked: 0 }
        }

        fn shift(&mut self, micros: i64) {
            match (self.follows, self.is_new) {
                (true, true) => self.due += us(u64::try_from(20_000 + micros).unwrap()),
                (true, false) => self.pending = micros.clamp(-4_000, 4_000),
                (false, _) => {}
            }
        }

        /// Seconds pass, in each of which the slot may be asked five times.
        fn run(&mut self, meter: &mut Meter, tick: Instant, seconds: u32) {
            for _ in 0..seconds {
                for place in 0..50 {
                    self.sent += 1;
                    // Any sequence that is not the same in each round will do.
                    let late = if self.jitter == 0 { 0 } else { self.sent * 7_919 % self.jitter };
                    meter.on_frame(self.due + us(late), tick, FRAME);
                    let step = self.pending.clamp(-20, 20);
                    self.pending -= step;
                    self.due += us(u64::try_from(20_000 + step).unwrap());
                    if place % 10 == 9
                        && let Some(shift) = meter.ask(self.due, FRAME)
                    {
                        self.asked += 1;
                        self.shift(i64::from(shift.micros()));
                    }
                }
                self.is_new = false;
            }
        }
    }

    #[test]
    fn any_phase_comes_to_the_common_one_and_is_left_alone_there() {
        let tick = Instant::now();
        for offset in [0, 500, 4_000, 9_900, 10_100, 15_000, 19_500] {
            for jitter in [0, 3_000] {
                let mut sender = Sender::new(tick + us(offset), jitter, true);
                let mut meter = Meter::default();
                sender.run(&mut meter, tick, 30);
                let late = place(sender.due, tick, FRAME).abs();
                // The earliest of fifty is within a fraction of the jitter.
                assert!(late <= NEAR + i64::try_from(jitter / 10).unwrap(), "{offset} {jitter}: {late} µs");
                let asked = sender.asked;
                sender.run(&mut meter, tick, 60);
                assert!(sender.asked <= asked + 2, "{offset} {jitter}");
            }
        }
    }

    #[test]
    fn frames_that_are_late_now_and_then_move_nobody() {
        let tick = Instant::now();
        for every in [4, 7, 10] {
            for late in (0..40_000).step_by(1_300) {
                let mut meter = Meter::default();
                for n in 0..200u32 {
                    // The first ones, too.
                    let delay = if n % every == 0 { late + u64::from(n % 3) * 2_000 } else { u64::from(n * 37 % 200) };
                    meter.on_frame(tick + FRAME * n + us(delay), tick, FRAME);
                    if n % 10 == 9 {
                        let shift = meter.ask(tick + FRAME * n, FRAME).map(|shift| shift.micros());
                        assert!(shift.is_none_or(|shift| shift.abs() <= 2_000), "{every} {late}: {shift:?} µs");
                    }
                }
            }
        }
    }

    #[test]
    fn places_on_both_edges_of_the_frame_are_one_lot() {
        let mut places = [9_900, -9_900, 9_950, -9_990, 2_000, -9_800, 9_990];
        assert_eq!(earliest_of_most(&mut places, 20_000), 9_900);
        assert_eq!(earliest_of_most(&mut [-3], 20_000), -3);
        assert_eq!(earliest_of_most(&mut [4_900, -4_990, -4_900, 0], 10_000), 4_900);
    }

    #[test]
    fn who_does_not_follow_is_asked_less_and_less() {
        let tick = Instant::now();
        let mut sender = Sender::new(tick + us(1_000), 0, false);
        let mut meter = Meter::default();
        sender.run(&mut meter, tick, 600);
        assert!((8..50).contains(&sender.asked), "{}", sender.asked);
    }

    #[test]
    fn a_meter_asks_for_the_shorter_way() {
        let tick = Instant::now();
        for (offset, shift) in [(3_000, -3_000), (17_000, 3_000)] {
            let mut meter = Meter::default();
            (0..10).for_each(|n| meter.on_frame(tick + us(offset) + FRAME * n, tick, FRAME));
            assert_eq!(meter.ask(tick, FRAME).map(|asked| asked.micros()), Some(shift));
        }
    }
}
