//! Who goes before whom on a core, as far as the system lets a thread say so. Each of these concerns the calling thread, and
//! where it is refused, the thread is as good as the others: the lags of the result show what comes of that.

use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// By how much reading gives way: a third of what another thread gets that wants the same core. Somebody who has slept so
/// comes before it at once; among equals it would wait for up to three milliseconds.
const READING_GIVES_WAY: i32 = 5;

/// Frames have to leave on time, and that takes a few microseconds each. Only the superuser, and who was given the right
/// (`ulimit -r`), may ask for this.
pub(crate) fn before_all() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    let _refused = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
}

/// A shard reads after whoever has slept.
pub(crate) fn after_sleepers() {
    // On Linux this is the thread's own.
    let _refused = rustix::process::nice(READING_GIVES_WAY);
}

/// Runs when nobody else wants the core. The kernel counts a core with such a thread as idle, so that a shard that is woken up
/// goes there, and not to the relay's.
pub(crate) fn after_all() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _refused = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
}
