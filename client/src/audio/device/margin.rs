//! How much is kept against what threads and callbacks are late by. Pure.
//!
//! Most are late by tens of microseconds, and now and then the machine does something else for many milliseconds. To keep
//! enough for the longest of these would cost everybody its length as delay for ever; to keep none of it would leave gaps.
//! What is kept is therefore what leaves a gap in a few seconds of a minute, and no more than the profile gives
//! ([`Profile::most_margin`](crate::audio::profile::Profile::most_margin)).

use std::time::Duration;

/// Seconds that are remembered.
const MEMORY: usize = 60;
/// Seconds of these in which there may be a gap. A pause of some milliseconds twice a minute is hardly heard, and a
/// machine's longest ones are much longer than all others.
const BORNE: usize = 2;
/// As long as this is not known of so many seconds, there may be one less: a machine that is always late is known soon.
const EARLY: usize = MEMORY / 2;
/// What is kept beyond what was seen, in seconds: a tenth of a callback.
const SPARE: f64 = 0.0005;
/// By how much the margin shrinks in a second, in seconds: half of what the resamplers can follow.
const SHRINK: f64 = 0.0005;

/// What is kept.
#[derive(Clone, Debug)]
pub(super) struct Margin {
    least: f64,
    most: f64,
    now: f64,
    /// The most that anything was late by in each of the latest seconds, in seconds.
    late: [f64; MEMORY],
    /// Of the second that runs.
    place: usize,
    /// Seconds of which something is known.
    known: usize,
    passed: f64,
}

impl Margin {
    /// Begins with the least.
    pub fn new(least: Duration, most: Duration) -> Self {
        let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
        Self { least, most: most.max(least), now: least, late: [0.0; MEMORY], place: 0, known: 0, passed: 0.0 }
    }

    /// No more than this is kept from now on, or than the least.
    pub fn allow(&mut self, most: Duration) {
        self.most = most.as_secs_f64().max(self.least);
        self.now = self.now.min(self.most);
    }

    /// What is kept, in seconds.
    pub fn get(&self) -> f64 {
        self.now
    }

    /// Something was late by so many seconds, or early when negative.
    pub fn observe(&mut self, late: f64) {
        if let Some(second) = self.late.get_mut(self.place) {
            *second = second.max(late);
        }
    }

    /// So much time passed. Calm ones let it shrink.
    pub fn pass(&mut self, time: Duration) {
        self.passed += time.as_secs_f64();
        if self.passed < 1.0 {
            return;
        }
        self.passed -= 1.0;
        self.place = (self.place + 1) % MEMORY;
        self.known = (self.known + 1).min(MEMORY);
        if let Some(second) = self.late.get_mut(self.place) {
            *second = 0.0;
        }
        self.now = self.now.min(self.wanted().max(self.now - SHRINK));
    }

    /// There was a gap, in which more can be kept unheard.
    pub fn widen(&mut self) {
        self.now = self.now.max(self.wanted());
    }

    /// What would have left as many gaps as are borne.
    fn wanted(&self) -> f64 {
        let borne = BORNE - usize::from(self.known < EARLY);
        let mut late = self.late;
        let (_, enough, _) = late.select_nth_unstable_by(borne, |a, b| b.total_cmp(a));
        (*enough + SPARE).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: f64 = 0.0015;

    fn margin(most_ms: u64) -> Margin {
        Margin::new(Duration::from_secs_f64(LEAST), Duration::from_millis(most_ms))
    }

    /// Some seconds, in each of which something was late, by this.
    fn seconds(margin: &mut Margin, count: usize, late: f64) {
        for _ in 0..count {
            margin.observe(late);
            (0..100).for_each(|_| margin.pass(Duration::from_millis(10)));
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn as_much_is_kept_as_leaves_a_gap_in_few_seconds_of_a_minute() {
        let mut margin = margin(60);
        seconds(&mut margin, 60, 0.0);
        for (late, expected) in [(0.040, LEAST), (0.020, LEAST), (0.007, 0.0075), (0.009, 0.0095), (0.050, 0.0205)] {
            margin.observe(late);
            margin.widen();
            assert!(close(margin.get(), expected), "{late}: {}", margin.get());
            seconds(&mut margin, 1, 0.0);
        }
    }

    #[test]
    fn of_the_first_seconds_one_gap_is_borne() {
        let mut margin = margin(60);
        for (late, expected) in [(0.005, LEAST), (0.009, 0.0055), (0.003, 0.0055), (0.007, 0.0075)] {
            margin.observe(late);
            margin.widen();
            assert!(close(margin.get(), expected), "{late}: {}", margin.get());
            seconds(&mut margin, 1, 0.0);
        }
        seconds(&mut margin, 75, 0.0);
        assert!(close(margin.get(), LEAST), "{}", margin.get());
    }

    #[test]
    fn it_stays_as_it_is_without_a_gap_however_late_something_was() {
        let mut margin = margin(60);
        seconds(&mut margin, 120, 0.030);
        assert!(close(margin.get(), LEAST));
        margin.widen();
        assert!(close(margin.get(), 0.0305));
        seconds(&mut margin, 120, 0.030);
        assert!(close(margin.get(), 0.0305), "what is needed stays");
    }

    #[test]
    fn a_minute_after_the_last_hiccup_it_shrinks_by_what_nobody_hears() {
        let mut margin = margin(60);
        seconds(&mut margin, 5, 0.010);
        margin.widen();
        seconds(&mut margin, 56, 0.0);
        assert!(close(margin.get(), 0.0105), "{}", margin.get());
        seconds(&mut margin, 10, 0.0);
        assert!(margin.get() < 0.0065 && margin.get() > 0.0045, "{}", margin.get());
        seconds(&mut margin, 60, 0.0);
        assert!(close(margin.get(), LEAST));
    }

    #[test]
    fn a_profile_bounds_it_and_never_below_the_least() {
        let mut margin = margin(4);
        seconds(&mut margin, 5, 0.030);
        margin.widen();
        assert!(close(margin.get(), 0.004));
        margin.allow(Duration::from_millis(3));
        assert!(close(margin.get(), 0.003));
        margin.allow(Duration::ZERO);
        margin.widen();
        assert!(close(margin.get(), LEAST));
        margin.allow(Duration::from_millis(60));
        margin.widen();
        assert!(close(margin.get(), 0.0305));
    }
}
