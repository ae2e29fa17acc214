//! Real-time priority for the threads that sound depends on, where the system grants it.
//!
//! A thread at this priority goes before all others of the machine, so it may only be one that sleeps until there is
//! something to do and then does little. One that works for more than half of a second is lowered for good, whatever it
//! was busy with; and the kernel gives all of them together at most 95 % of a processor.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use audio_thread_priority::{
    RtPriorityHandle, demote_current_thread_from_real_time, promote_current_thread_to_real_time,
};
use rustix::time::{ClockId, clock_gettime};

use crate::audio::format::{FRAME_SAMPLES, SAMPLE_RATE};

/// How often a thread's work is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most work of a thread between two looks. The media of a full meeting take a tenth of it.
const BUDGET: Duration = Duration::from_millis(500);

/// How threads are woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduling {
    /// Before all others.
    RealTime,
    /// In turn with the rest of the machine.
    Shared,
}

/// What the system grants to this process. Found out once, by trying.
pub fn scheduling() -> Scheduling {
    if refusal().is_some() { Scheduling::Shared } else { Scheduling::RealTime }
}

/// Why the system does not grant a real-time priority, in its own words; `None` when it does.
pub fn refusal() -> Option<&'static str> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    REFUSAL.get_or_init(|| raise().refused.take()).as_deref()
}

/// The priority of this thread, until this is dropped. Belongs to the thread that raised it.
pub struct Raised {
    /// `None` when it is not raised.
    handle: Option<RtPriorityHandle>,
    refused: Option<String>,
    budget: Budget,
}

/// Raises the priority of this thread, if the system grants it. Threads that it starts are not raised with it.
#[must_use]
pub fn raise() -> Raised {
    let promoted = promote_current_thread_to_real_time(FRAME_SAMPLES as u32, SAMPLE_RATE);
    let (handle, refused) = match promoted {
        Ok(handle) => (Some(handle), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Raised { handle, refused, budget: Budget { looked: Instant::now(), used: worked() } }
}

impl Raised {
    /// Lowers the priority when the thread works too much. To be called every so often; `true` when it was lowered now.
    pub fn watch(&mut self) -> bool {
        let is_spent = self.handle.is_some() && self.budget.is_spent(Instant::now(), worked);
        if is_spent {
            self.lower();
        }
        is_spent
    }

    fn lower(&mut self) {
        if let Some(handle) = self.handle.take() {
            // Lowering needs no privilege.
            let _ = demote_current_thread_from_real_time(handle);
        }
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.lower();
    }
}

/// How much a thread worked.
struct Budget {
    looked: Instant,
    /// By then, since the thread began.
    used: Duration,
}

impl Budget {
    fn is_spent(&mut self, now: Instant, worked: impl FnOnce() -> Duration) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        if passed < LOOK {
            return false;
        }
        let used = worked();
        let spent = used.saturating_sub(self.used);
        *self = Self { looked: now, used };
        // A look that comes late allows for more.
        spent > BUDGET.mul_f64(passed.as_secs_f64() / LOOK.as_secs_f64())
    }
}

/// What this thread has worked since it began.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_for_more_than_half_of_a_second_has_spent_its_budget() {
        let start = Instant::now();
        for (worked, is_spent) in [(0, false), (400, false), (500, false), (501, true), (1_000, true)] {
            let mut budget = Budget { looked: start, used: Duration::from_secs(7) };
            let worked = || Duration::from_secs(7) + Duration::from_millis(worked);
            assert!(!budget.is_spent(start + LOOK / 2, worked), "nobody looks yet");
            assert_eq!(budget.is_spent(start + LOOK, worked), is_spent);
            assert!(!budget.is_spent(start + 2 * LOOK, worked), "nothing more");
        }
    }

    #[test]
    fn a_look_that_comes_late_allows_for_more() {
        let start = Instant::now();
        let mut budget = Budget { looked: start, used: Duration::ZERO };
        assert!(!budget.is_spent(start + 4 * LOOK, || Duration::from_secs(2)));
        assert!(budget.is_spent(start + 8 * LOOK, || Duration::from_secs(5)));
    }

    #[test]
    fn the_work_of_a_thread_is_its_own_and_sleep_is_none() {
        let before = worked();
        std::thread::sleep(Duration::from_millis(30));
        let slept = worked() - before;
        let mut sum = 0_u64;
        while worked() - before < slept + Duration::from_millis(5) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(slept < Duration::from_millis(30) && sum > 0, "{slept:?}");
    }

    #[test]
    fn a_refusal_has_its_reason_and_a_raised_priority_none() {
        let mut raised = raise();
        assert_ne!(raised.handle.is_some(), raised.refused.as_ref().is_some_and(|why| !why.is_empty()));
        assert_eq!(refusal().is_none(), raised.handle.is_some());
        raised.lower();
        assert!(raised.handle.is_none() && !raised.watch());
    }
}
