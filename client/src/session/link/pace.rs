//! When the next attempt at which relay begins. Pure: time and chance come in as arguments.
//!
//! Attempts overlap ("happy eyeballs", RFC 8305): a handshake of which a packet was lost is not waited for, and a
//! relay that does not answer does not keep from the next one. Every relay has a pace of its own; the first attempts
//! at the relays of a link are [`HEAD_START`] apart, in order of preference.

use std::time::{Duration, Instant};

/// How much earlier a relay is tried than the next one in order of preference. Longer than a handshake on all but the
/// worst paths, so that clients who look at the same time find the same relay.
pub(super) const HEAD_START: Duration = Duration::from_millis(400);
/// So many attempts at one relay follow each other quickly: on a path with a delay of 300 ms and a loss of 20 % most
/// handshakes fail or dawdle, but not all of these.
const EAGER: u32 = 3;
/// Bounds of the random time between these.
const EAGER_GAP: [Duration; 2] = [Duration::from_millis(300), HEAD_START];
/// Then the pace at which a relay that restarts is found within a second of being up, and by no crowd at once.
const STEADY_GAP: [Duration; 2] = [Duration::from_millis(600), Duration::from_millis(700)];
/// After so long a relay is not restarting but down, and what its clients send is a burden on whoever repairs it.
const STEADY_FOR: Duration = Duration::from_secs(60);
/// The pace from then on.
const PATIENT_GAP: [Duration; 2] = [Duration::from_millis(4_500), Duration::from_secs(5)];

/// An attempt at a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// Which relay of the link.
    pub(super) relay: usize,
    /// How many attempts at it were made before, since the beginning.
    pub(super) nth: u32,
}

/// The times of all attempts.
pub(super) struct Pace {
    begun: Instant,
    relays: Vec<Relay>,
}

#[derive(Clone, Copy, Default)]
struct Relay {
    /// `None` when it is not to be tried (any more).
    next: Option<Instant>,
    last: Option<Instant>,
    attempts: u32,
}

impl Pace {
    /// A pace for so many relays, which does not begin yet.
    pub(super) fn new(relays: usize, now: Instant) -> Self {
        Self { begun: now, relays: vec![Relay::default(); relays] }
    }

    /// Begins, with the relays in order of preference but `last`. A relay that was tried a moment ago is not tried at
    /// once: one that answers and then hangs up must not be called in a loop.
    pub(super) fn begin(&mut self, now: Instant, last: Option<usize>) {
        self.begun = now;
        let others = (0..self.relays.len()).filter(|relay| Some(*relay) != last);
        let order: Vec<usize> = others.chain(last).collect();
        for (place, relay) in (0..).zip(order) {
            if let Some(relay) = self.relays.get_mut(relay) {
                let at = now + HEAD_START * place;
                let least = relay.last.map(|last| last + EAGER_GAP[1]);
                relay.next = Some(least.map_or(at, |least| least.max(at)));
                relay.attempts = 0;
            }
        }
    }

    /// When the next attempt is due; `None` when there will be none.
    pub(super) fn next(&self) -> Option<Instant> {
        self.relays.iter().filter_map(|relay| relay.next).min()
    }

    /// An attempt that is due. `chance` is uniform in 0..1.
    pub(super) fn take(&mut self, now: Instant, chance: f64) -> Option<Turn> {
        let elapsed = now.saturating_duration_since(self.begun);
        let due = self.relays.iter_mut().enumerate().filter(|(_, relay)| relay.next.is_some_and(|next| next <= now));
        let (index, relay) = due.min_by_key(|(_, relay)| relay.next)?;
        let nth = relay.attempts;
        relay.attempts += 1;
        relay.last = Some(now);
        // From now on and not from when it was due: what was missed is not made up for.
        relay.next = Some(now + gap(relay.attempts, elapsed, chance));
        Some(Turn { relay: index, nth })
    }

    /// An attempt failed before its time was over: the next relay need not wait for its turn.
    pub(super) fn hurry(&mut self, now: Instant) {
        let untried = self.relays.iter_mut().filter(|relay| relay.attempts == 0 && relay.next.is_some());
        if let Some(relay) = untried.min_by_key(|relay| relay.next) {
            relay.next = relay.next.map(|next| next.min(now));
        }
    }

    /// The relay is tried again at once.
    pub(super) fn again(&mut self, now: Instant, relay: usize) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.next = Some(now);
        }
    }

    /// The relay is not tried any more.
    pub(super) fn exclude(&mut self, relay: usize) {
        if let Some(relay) = self.relays.get_mut(relay) {
            relay.next = None;
        }
    }
}

/// The time from the attempt that is number `attempts` to the next.
fn gap(attempts: u32, elapsed: Duration, chance: f64) -> Duration {
    let [least, most] = match attempts {
        _ if elapsed >= STEADY_FOR => PATIENT_GAP,
        ..=EAGER => EAGER_GAP,
        _ => STEADY_GAP,
    };
    least + (most - least).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// All attempts of some time, by their time in ms and relay.
    fn run(pace: &mut Pace, start: Instant, time: Duration, chance: f64) -> Vec<(u128, usize)> {
        let mut attempts = Vec::new();
        while let Some(now) = pace.next().filter(|next| *next < start + time) {
            let turn = pace.take(now, chance).expect("one is due");
            attempts.push((now.duration_since(start).as_millis(), turn.relay));
        }
        attempts
    }

    fn longest_gap(attempts: &[(u128, usize)], relay: usize) -> u128 {
        let times: Vec<u128> = attempts.iter().filter(|(_, r)| *r == relay).map(|(at, _)| *at).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    #[test]
    fn each_of_two_relays_is_tried_within_400_ms_and_then_at_least_every_700_ms_for_a_minute() {
        let now = Instant::now();
        for chance in [0.0, 0.5, 1.0] {
            let mut pace = Pace::new(2, now);
            pace.begin(now, None);
            let attempts = run(&mut pace, now, STEADY_FOR, chance);
            assert_eq!(attempts[0], (0, 0));
            let first_of_second = attempts.iter().find(|(_, relay)| *relay == 1).unwrap();
            assert!(first_of_second.0 <= 400, "{attempts:?}");
            assert!(longest_gap(&attempts, 0) <= 700 && longest_gap(&attempts, 1) <= 700, "{attempts:?}");
        }
    }

    #[test]
    fn the_first_attempts_overlap_within_a_round_trip_of_a_bad_path() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.begin(now, None);
        let attempts = run(&mut pace, now, ms(1_500), 1.0);
        assert_eq!(attempts, [(0, 0), (400, 0), (800, 0), (1_200, 0)]);
    }

    #[test]
    fn after_a_minute_the_pace_falls_to_one_attempt_in_five_seconds() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.begin(now, None);
        run(&mut pace, now, STEADY_FOR, 1.0);
        let later = run(&mut pace, now, STEADY_FOR + ms(30_000), 1.0);
        assert!((5..=7).contains(&later.len()), "{later:?}");
        assert!(longest_gap(&later, 0) <= 5_000);
    }

    #[test]
    fn the_relay_that_is_closing_is_tried_after_all_others() {
        let now = Instant::now();
        let mut pace = Pace::new(3, now);
        pace.begin(now, Some(0));
        let firsts = run(&mut pace, now, ms(1), 0.0);
        assert_eq!(firsts, [(0, 1)]);
        let rest = run(&mut pace, now, ms(801), 1.0);
        assert!(rest.contains(&(400, 2)) && rest.contains(&(800, 0)), "{rest:?}");
    }

    #[test]
    fn a_relay_that_answers_and_hangs_up_is_not_called_in_a_loop() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.begin(now, None);
        pace.take(now, 0.0).unwrap();
        pace.begin(now + ms(10), None);
        assert_eq!(pace.next(), Some(now + ms(400)));
    }

    #[test]
    fn a_refusal_lets_the_next_relay_begin_and_ends_what_is_tried_once() {
        let now = Instant::now();
        let mut pace = Pace::new(2, now);
        pace.begin(now, None);
        assert_eq!(pace.take(now, 0.0), Some(Turn { relay: 0, nth: 0 }));
        assert_eq!(pace.take(now, 0.0), None);
        pace.exclude(0);
        pace.hurry(now + ms(20));
        assert_eq!(pace.take(now + ms(20), 0.0), Some(Turn { relay: 1, nth: 0 }));
        pace.again(now + ms(30), 1);
        assert_eq!(pace.take(now + ms(30), 0.0), Some(Turn { relay: 1, nth: 1 }));
        pace.exclude(1);
        assert_eq!(pace.next(), None);
    }

    #[test]
    fn attempts_that_were_missed_are_not_made_up_for() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        pace.begin(now, None);
        let late = now + ms(20_000);
        assert!(pace.take(late, 0.0).is_some());
        assert_eq!(pace.take(late, 0.0), None);
    }
}
