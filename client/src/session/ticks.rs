//! What to do about ticks of the frame clock that were missed. Pure.
//!
//! A tick that comes a little late is made up for, so that the clock never falls behind real time. A process that was
//! stopped, or a machine that slept, has missed thousands: nobody wants to hear those frames any more, and the relay,
//! which gives each slot 120 datagrams a second and 30 at once, would drop them with the good ones that follow.

use std::time::{Duration, Instant};

use crate::audio::format::{FrameDuration, STEP};

/// Lag beyond which ticks are skipped instead of made up for: longer than any hiccup of a busy machine.
const SKIP_FROM: Duration = Duration::from_secs(1);
/// What is so many frames late goes to nobody: every listener has passed its place, and two thirds of the relay's burst
/// are used up by those that are less late.
const STALE: u32 = 20;

/// How long after ticks were skipped what arrives is thrown away: the socket has kept the frames of the first seconds of
/// the stall, which takes milliseconds to read, on a busy machine more. Nobody wants to hear them, and a listener who opens them now takes those
/// that follow, which are seconds further on, for ones ahead of their time (`docs/protocol.md` §8.3).
pub(super) const BACKLOG: Duration = Duration::from_millis(300);

/// How many ticks to skip, of which the first was due at `due`. What is left is not a frame behind.
pub(super) fn to_skip(due: Instant, now: Instant, frame: FrameDuration) -> u32 {
    missed(due, now, frame.duration())
}

fn missed(due: Instant, now: Instant, every: Duration) -> u32 {
    let lag = now.saturating_duration_since(due);
    if lag <= SKIP_FROM {
        return 0;
    }
    u32::try_from(lag.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX)
}

/// What frames should wait for the step that plays them beyond the hold, in nanoseconds: more than what the earliest arrival
/// of some seconds wanders by.
const SPARE: i64 = 500_000;
/// How much of what is wrong with that is set right with each step, in parts: all but a third in 2.5 s.
const PULL: i64 = 500;
/// By how many nanoseconds a step may be longer or shorter: 200 ppm, as by the clocks of two devices.
const BEND: i64 = 1_000;

/// The clock of what is heard: step after step, wherever the relay moves the ticks of one's own frames to. It follows when
/// frames arrive: else they would wait for up to a step, for as long as the meeting lasts.
pub(super) struct Steps {
    due: Instant,
}

impl Steps {
    /// The first step is due at `due`.
    pub(super) fn new(due: Instant) -> Self {
        Self { due }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// So many nanoseconds were to spare at the last step ([`MediaEngine::spare`]).
    ///
    /// [`MediaEngine::spare`]: crate::audio::engine::MediaEngine::spare
    pub(super) fn follow(&mut self, spare: i64) {
        let bend = ((spare - SPARE) / PULL).clamp(-BEND, BEND);
        let by = Duration::from_nanos(bend.unsigned_abs());
        self.due = if bend > 0 { self.due.checked_sub(by).unwrap_or(self.due) } else { self.due + by };
    }

    /// Passes the next step and gives its time, if it is due by `until`. Those that are long past at `now` are left out.
    pub(super) fn next(&mut self, until: Instant, now: Instant) -> Option<Instant> {
        self.due += STEP * missed(self.due, now, STEP);
        let due = self.due;
        (due <= until).then(|| {
            self.due += STEP;
            due
        })
    }
}

/// Whether the frame of a tick that was due at `due` is still of use.
pub(super) fn is_fresh(due: Instant, now: Instant, frame: FrameDuration) -> bool {
    now.saturating_duration_since(due) <= frame.duration() * STALE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::format::FRAME;
    use crate::audio::playout::{Arrival, Config, Playout, Stats};

    #[test]
    fn ticks_are_made_up_for_up_to_a_second_and_skipped_beyond() {
        let due = Instant::now();
        for frame in FrameDuration::ALL {
            assert_eq!(to_skip(due, due, frame), 0);
            assert_eq!(to_skip(due, due + SKIP_FROM, frame), 0);
            let skipped = to_skip(due, due + Duration::from_millis(20_019), frame);
            assert_eq!(skipped, 20_019 / u32::from(frame.millis()));
            // A tick that is early was never missed.
            assert_eq!(to_skip(due + frame.duration(), due, frame), 0);
        }
    }

    #[test]
    fn steps_follow_each_other_and_are_left_out_after_a_second() {
        let start = Instant::now();
        let mut steps = Steps::new(start);
        let played: Vec<_> = std::iter::from_fn(|| steps.next(start + FRAME, start + FRAME)).collect();
        assert_eq!(played, [0, 1, 2, 3, 4].map(|n| start + STEP * n));
        assert_eq!(steps.due(), start + STEP * 5);
        let awake = start + Duration::from_secs(60);
        let played: Vec<_> = std::iter::from_fn(|| steps.next(awake, awake)).collect();
        assert!(played.len() <= 1 && steps.due() > awake && steps.due() <= awake + STEP, "{}", played.len());
    }

    /// Ten minutes of frames that a clock wrong by so many millionths makes, and their playout by steps that follow.
    fn followed(ppm: f64) -> (Stats, i64) {
        let (start, frame) = (Instant::now(), FrameDuration::Ms10);
        let mut playout = Playout::new(Config::of(frame));
        let (mut steps, mut left, mut sent, mut worst) = (Steps::new(start), 0, 0, 0);
        let at = |n: u32| start + Duration::from_secs_f64(0.0033 + f64::from(n) * 0.010 * (1.0 + ppm * 1e-6));
        let end = start + Duration::from_secs(600);
        while let Some(due) = steps.next(end, steps.due()) {
            while at(sent) <= due {
                playout.push(&Arrival { seq: sent, muted: false, level: 30, payload: &[1] }, at(sent));
                sent += 1;
            }
            if left == 0 {
                left = playout.pull(due).steps;
            }
            left -= 1;
            if let Some(spare) = playout.spare() {
                steps.follow(spare);
                let is_settled = due > start + Duration::from_secs(40);
                worst = worst.max(if is_settled { (spare - SPARE).abs() } else { 0 });
            }
        }
        (playout.stats(), worst)
    }

    #[test]
    fn steps_come_when_frames_have_been_held_for_long_enough_and_stay_there() {
        for ppm in [0.0, 100.0, -100.0] {
            let (stats, worst) = followed(ppm);
            assert_eq!((stats.lost, stats.late, stats.inserted, stats.shortened, stats.skipped), (0, 0, 0, 0, 0));
            assert!(worst < 400_000, "{ppm} ppm: {worst} ns");
            // The earliest arrival is up to five seconds old, in which the clocks part by half a millisecond.
            let held = stats.hold_ms.unwrap();
            assert!((held - 12.5).abs() < 0.8, "{ppm} ppm: {held} ms");
        }
    }

    #[test]
    fn after_skipping_the_clock_is_within_a_frame_of_real_time() {
        let due = Instant::now();
        let now = due + Duration::from_millis(5_013);
        for frame in FrameDuration::ALL {
            let next = due + frame.duration() * to_skip(due, now, frame);
            assert!(next <= now && now < next + frame.duration());
        }
    }

    #[test]
    fn what_is_sent_of_a_stall_fits_into_the_burst_that_the_relay_allows() {
        let due = Instant::now();
        let now = due + SKIP_FROM;
        for frame in FrameDuration::ALL {
            let ticks = 0..=frame.count_in(SKIP_FROM);
            let sent = ticks.filter(|tick| is_fresh(due + frame.duration() * *tick, now, frame)).count();
            assert!((1..=25).contains(&sent), "{sent}");
        }
    }
}
