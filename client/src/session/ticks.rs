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

/// What the frames of who waits least for a step should wait for it beyond the hold, in nanoseconds.
const SPARE: i64 = 500_000;
/// How much of what is wrong with that is set right with each step, in parts: all but a third in 2.5 s.
const PULL: i64 = 500;
/// By how many nanoseconds a step may be longer or shorter: 200 ppm, as by the clocks of two devices.
const BEND: i64 = 1_000;
/// The same while an echo is cancelled: 50 ppm. A canceller's filter does not follow much more (`audio::process`, tests).
const BEND_WITH_ECHO: i64 = BEND / 4;
/// Steps of ten seconds. Steps come earlier by no more than what was to spare in all of the last ten to twenty of them in
/// which somebody was heard: the earliest arrival of some seconds, which it is reckoned from, wanders.
const CALM: u32 = 2_000;

/// The clock of what is heard: step after step, wherever the relay moves the ticks of one's own frames to. It follows when
/// frames arrive: else they would wait for up to a step, for as long as the meeting lasts.
pub(super) struct Steps {
    due: Instant,
    /// The least that was to spare in these ten seconds, and in those before.
    least: [i64; 2],
    passed: u32,
}

impl Steps {
    /// The first step is due at `due`.
    pub(super) fn new(due: Instant) -> Self {
        Self { due, least: [i64::MAX; 2], passed: 0 }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// So many nanoseconds were to spare at the last step, by who waits least and who waits most ([`MediaEngine::spare`]).
    /// Nobody's frames come to wait for longer than a step because others' come late.
    ///
    /// [`MediaEngine::spare`]: crate::audio::engine::MediaEngine::spare
    pub(super) fn follow(&mut self, least: i64, most: i64, cancels_echo: bool) {
        self.passed += 1;
        if self.passed == CALM {
            (self.passed, self.least) = (0, [i64::MAX, self.least[0]]);
        }
        self.least[0] = self.least[0].min(least);
        let to_spare = if least < SPARE { least } else { self.least[0].min(self.least[1]).max(SPARE) };
        let limit = if cancels_echo { BEND_WITH_ECHO } else { BEND };
        let bend = ((to_spare - SPARE) / PULL).clamp(-limit, limit);
        let by = Duration::from_nanos(bend.unsigned_abs());
        if bend > 0 {
            self.due = self.due.checked_sub(by).unwrap_or(self.due);
        } else if most < STEP.as_nanos() as i64 {
            self.due += by;
        }
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

    /// A talker whose clock is wrong by so many millionths, and whose frames come up to so much later than they could.
    #[derive(Clone, Copy)]
    struct Path {
        ppm: f64,
        jitter: f64,
    }

    /// Ten minutes of frames, and their playout by steps that follow. Gives what became of each, and the least and most that
    /// was to spare after a minute, in ms.
    fn followed(paths: &[Path]) -> (Vec<Stats>, f64, f64) {
        let (start, frame) = (Instant::now(), FrameDuration::Ms10);
        // Knuth's multiplicative hashing: as good as random here.
        let random = |n: u32| f64::from(n.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
        let mut talkers: Vec<_> = paths.iter().map(|path| (*path, Playout::new(Config::of(frame)), 0, 0)).collect();
        let (mut steps, mut range) = (Steps::new(start), (f64::MAX, f64::MIN));
        let end = start + Duration::from_secs(600);
        while let Some(due) = steps.next(end, steps.due()) {
            let mut spares = Vec::new();
            for (path, playout, sent, left) in &mut talkers {
                let made =
                    |n: u32| start + Duration::from_secs_f64(0.0033 + f64::from(n) * 0.010 * (1.0 + path.ppm * 1e-6));
                while made(*sent) + Duration::from_secs_f64(path.jitter) <= due {
                    let at = made(*sent) + Duration::from_secs_f64(path.jitter * random(*sent));
                    // Pauses, in which a delay outside of its range would be set right.
                    let level = if *sent % 20 == 0 { 127 } else { 30 };
                    playout.push(&Arrival { seq: *sent, muted: false, level, payload: &[1] }, at);
                    *sent += 1;
                }
                if *left == 0 {
                    *left = playout.pull(due).steps;
                }
                *left -= 1;
                spares.extend(playout.spare());
            }
            if let (Some(least), Some(most)) = (spares.iter().min(), spares.iter().max()) {
                steps.follow(*least, *most, false);
                if due > start + Duration::from_secs(60) {
                    range = (range.0.min(*least as f64 / 1e6), range.1.max(*most as f64 / 1e6));
                }
            }
        }
        (talkers.iter().map(|(_, playout, ..)| playout.stats()).collect(), range.0, range.1)
    }

    #[test]
    fn steps_come_when_frames_have_been_held_for_long_enough_and_stay_there() {
        for (ppm, jitter) in [(0.0, 0.0), (100.0, 0.0), (-100.0, 0.0), (20.0, 0.003)] {
            let (stats, least, most) = followed(&[Path { ppm, jitter }]);
            let Stats { lost, late, inserted, shortened, skipped, hold_ms, .. } = stats[0];
            assert_eq!((lost, late, inserted, shortened, skipped), (0, 0, 0, 0, 0), "{ppm} ppm");
            assert!(least > 0.0 && most < 1.5, "{ppm} ppm: {least} to {most} ms");
            // The earliest arrival is up to five seconds old, in which the clocks part by half a millisecond.
            let expected = 12.5 - jitter * 500.0;
            assert!((hold_ms.unwrap() - expected as f32).abs() < 0.9, "{ppm} ppm: {hold_ms:?} ms");
        }
    }

    #[test]
    fn while_an_echo_is_cancelled_steps_follow_more_slowly() {
        for (cancels_echo, ppm) in [(false, 200), (true, 50)] {
            let start = Instant::now();
            let mut steps = Steps::new(start + Duration::from_secs(1));
            for _ in 0..1_000 {
                steps.follow(4_000_000, 4_000_000, cancels_echo);
            }
            assert_eq!(steps.due(), start + Duration::from_secs(1) - STEP * 1_000 * ppm / 1_000_000);
        }
    }

    #[test]
    fn a_talker_whose_frames_come_ever_later_makes_nobody_else_wait_for_more_than_a_step() {
        let slow = Path { ppm: 200.0, jitter: 0.0 };
        let (stats, _, most) = followed(&[Path { ppm: 0.0, jitter: 0.0 }, slow]);
        assert!(most < 5.5, "{most} ms");
        assert_eq!((stats[0].lost, stats[0].late, stats[0].inserted, stats[0].shortened), (0, 0, 0, 0));
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
