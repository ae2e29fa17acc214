//! Whether figures say something of the relay, or of the harness and the machine that it runs on.

use crate::plan::{FRAME, Plan};
use crate::result::{Frames, Harness, Machine, Percentiles};
use crate::score::share;

/// A frame that is sent that late, or read that late, says nothing of the relay any more.
const MOST_LAG_MS: f64 = 2.0;
/// Unless so much of the latency that was found is the relay's all the same: the packets of a crowd come at once, and to
/// read a thousand of them takes a shard milliseconds, which are in the latency.
const MOST_OF_LATENCY: f64 = 0.5;
/// A thread that takes a core for more of the time, or waits for one, has no room for what comes in bursts.
const MOST_AWAKE: f64 = 0.85;
/// Share of frames that may be missing by the harness's own fault.
const MOST_MISSING: f64 = 0.001;

/// Processors that are idle for so much of the time are enough for a load.
const IDLE_ENOUGH: f64 = 0.5;
/// A thread that takes so much of a core has room for what comes in bursts.
const LITTLE_TO_DO: f64 = 0.5;
/// Share of the time in which a host may take the processors away: a frame of 20 ms in each second.
const MOST_STOLEN: f64 = 0.02;

/// By what it is judged whether figures say something of the relay.
#[derive(Clone, Copy)]
pub(crate) struct Outcome<'a> {
    pub(crate) frames: &'a Frames,
    pub(crate) harness: &'a Harness,
    pub(crate) machine: &'a Machine,
    pub(crate) latency: Option<Percentiles>,
    /// Who was there at the end.
    pub(crate) members: u64,
}

/// What came of it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Judgement {
    /// Why figures say nothing of the relay.
    pub(crate) objections: Vec<String>,
    /// Whether the same load may go well another time: it was not the load that made threads late.
    pub(crate) disturbed: bool,
}

/// Judges a run.
pub(crate) fn judge(plan: &Plan, outcome: &Outcome<'_>) -> Judgement {
    let late = lateness(outcome);
    let other = [busyness(plan, outcome.harness), absences(plan, outcome)].concat();
    let disturbed = !late.is_empty() && other.is_empty() && is_disturbed(outcome.harness, outcome.machine);
    let late = late.into_iter().map(|late| {
        if disturbed {
            format!("the machine was disturbed: {late}, {}; run it again", meanwhile(outcome.machine))
        } else {
            format!("the harness is saturated: {late}")
        }
    });
    Judgement { objections: late.chain(other).collect(), disturbed }
}

/// What was later than it may be.
fn lateness(outcome: &Outcome<'_>) -> Vec<String> {
    let Outcome { harness, latency, .. } = outcome;
    let most_of_shards = latency.map_or(0.0, |latency| latency.p99 * MOST_OF_LATENCY).max(MOST_LAG_MS);
    let lags = [
        ("frames are sent", harness.pacer_lag_ms, MOST_LAG_MS),
        ("a shard reads", harness.shard_lag_ms, most_of_shards),
    ];
    let late = lags.iter().filter_map(|(what, lag, most)| {
        let lag = lag.filter(|lag| lag.p99 > *most)?;
        Some(format!("{what} {:.1} ms late at the 99th percentile, more than {most:.1} ms", lag.p99))
    });
    late.collect()
}

/// Whether lateness has another cause than the load.
fn is_disturbed(harness: &Harness, machine: &Machine) -> bool {
    let of_threads = [harness.shard_cpu, harness.leading_cpu, harness.guests_cpu, harness.pacer_cpu];
    let had_room = machine.idle.is_some_and(|idle| idle >= IDLE_ENOUGH)
        && of_threads.iter().flatten().all(|cpu| *cpu <= LITTLE_TO_DO);
    had_room || machine.stolen.is_some_and(|stolen| stolen > MOST_STOLEN)
}

/// What the processors did while threads were late.
fn meanwhile(machine: &Machine) -> String {
    let percent = |share: Option<f64>| share.unwrap_or(0.0) * 100.0;
    format!(
        "while its processors were idle in {:.0} % of the time and its host took them away in {:.1} %",
        percent(machine.idle),
        percent(machine.stolen)
    )
}

/// Threads that have no room for more.
fn busyness(plan: &Plan, harness: &Harness) -> Vec<String> {
    let mut objections = Vec::new();
    // Joins and recovery are times of those that run the protocol; nothing else that is measured waits for them.
    let are_timed = plan.faults.churn.is_some() || plan.faults.kill_relay_at.is_some();
    let if_timed = |awake: Option<f64>| awake.filter(|_| are_timed);
    let threads = [
        ("a shard", harness.shard_cpu, harness.shard_awake),
        ("the protocol of hosts and talkers", harness.leading_cpu, if_timed(harness.leading_awake)),
        ("the protocol of the others", harness.guests_cpu, if_timed(harness.guests_awake)),
        ("the pacer", harness.pacer_cpu, harness.pacer_awake),
    ];
    for (what, cpu, awake) in threads {
        let is_much = |share: Option<f64>| share.filter(|share| *share > MOST_AWAKE).map(|share| share * 100.0);
        if let Some(cpu) = is_much(cpu) {
            objections.push(format!("the harness is saturated: {what} takes {cpu:.0} % of a core"));
        } else if let Some(awake) = is_much(awake) {
            objections.push(format!(
                "the harness is saturated: {what} has a core or waits for one in {awake:.0} % of the time"
            ));
        }
    }
    objections
}

/// Frames and members that were to be there.
fn absences(plan: &Plan, outcome: &Outcome<'_>) -> Vec<String> {
    let Frames { sent, dropped_on_purpose, starved, owed, .. } = *outcome.frames;
    let members = outcome.members;
    let mut objections = Vec::new();
    if share(starved, sent + starved) > MOST_MISSING {
        objections.push(format!("the harness is saturated: {starved} frames were not sealed in time"));
    }
    let steady = plan.faults.churn.is_none() && plan.faults.kill_relay_at.is_none();
    let ticks = u64::from(plan.seconds) * 1_000 / u64::try_from(FRAME.as_millis()).unwrap_or(20);
    let planned = ticks * u64::from(plan.shape.rooms) * u64::from(plan.shape.talkers);
    if steady && ((sent + dropped_on_purpose) as f64) < planned as f64 * 0.99 {
        objections.push(format!("only {sent} of {planned} frames were sent"));
    }
    if owed == 0 {
        objections.push("no listener was owed a frame".to_owned());
    }
    if steady && members < plan.shape.members() - u64::from(plan.faults.stall_listeners) {
        objections.push(format!("only {members} of {} members were still there", plan.shape.members()));
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Shape, tests::plan};

    fn objections(plan: &Plan, frames: &Frames, harness: &Harness, members: u64) -> Vec<String> {
        let latency = Some(Percentiles { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 9.0 });
        judge(plan, &Outcome { frames, harness, machine: &Machine::default(), latency, members }).objections
    }

    fn good() -> (Plan, Frames, Harness) {
        let lag = Some(Percentiles { p50: 0.1, p90: 0.1, p99: 0.5, p999: 1.0, max: 9.0 });
        let harness = Harness { pacer_lag_ms: lag, shard_lag_ms: lag, shard_cpu: Some(0.5), ..Harness::default() };
        let frames = Frames { sent: 500, owed: 1_000, received: 1_000, ..Frames::default() };
        (plan(Shape { rooms: 1, people: 3, talkers: 1 }), frames, harness)
    }

    #[test]
    fn a_harness_that_keeps_up_is_believed() {
        let (plan, frames, harness) = good();
        assert_eq!(objections(&plan, &frames, &harness, 3), Vec::<String>::new());
    }

    #[test]
    fn a_harness_that_does_not_keep_up_is_not() {
        let spoil: [fn(&mut Frames, &mut Harness, &mut u64); 8] = [
            |_, harness, _| harness.pacer_lag_ms.as_mut().unwrap().p99 = 2.1,
            |_, harness, _| harness.shard_lag_ms.as_mut().unwrap().p99 = 2.1,
            |_, harness, _| harness.shard_cpu = Some(0.9),
            |_, harness, _| harness.guests_cpu = Some(0.9),
            |_, harness, _| harness.shard_awake = Some(0.9),
            |frames, _, _| frames.starved = 10,
            |frames, _, _| frames.sent = 400,
            |_, _, members| *members = 2,
        ];
        for (number, spoil) in spoil.iter().enumerate() {
            let (plan, mut frames, mut harness) = good();
            let mut members = 3;
            spoil(&mut frames, &mut harness, &mut members);
            assert_eq!(objections(&plan, &frames, &harness, members).len(), 1, "{number}");
        }
    }

    #[test]
    fn a_shard_may_be_late_by_half_of_a_long_latency_and_no_more() {
        let (plan, frames, mut harness) = good();
        let latency = Some(Percentiles { p50: 8.0, p90: 12.0, p99: 16.0, p999: 18.0, max: 20.0 });
        for (late, objected) in [(7.9, 0), (8.1, 1)] {
            harness.shard_lag_ms.as_mut().unwrap().p99 = late;
            let machine = Machine::default();
            let outcome = Outcome { frames: &frames, harness: &harness, machine: &machine, latency, members: 3 };
            assert_eq!(judge(&plan, &outcome).objections.len(), objected, "{late} ms");
        }
    }

    #[test]
    fn those_that_join_may_wait_for_a_core_unless_it_is_joins_that_are_measured() {
        let (mut plan, frames, mut harness) = good();
        (harness.guests_cpu, harness.guests_awake) = (Some(0.2), Some(0.9));
        assert_eq!(objections(&plan, &frames, &harness, 3), Vec::<String>::new());
        plan.faults.churn = Some(30.0);
        let said =
            "the harness is saturated: the protocol of the others has a core or waits for one in 90 % of the time";
        assert_eq!(objections(&plan, &frames, &harness, 3), [said]);
    }

    #[test]
    fn what_faults_take_away_is_no_objection() {
        let (mut plan, mut frames, harness) = good();
        plan.faults.kill_relay_at = Some(3.0);
        frames.sent = 400;
        assert_eq!(objections(&plan, &frames, &harness, 2), Vec::<String>::new());
    }

    #[test]
    fn lateness_is_the_machine_s_where_nobody_was_busy_or_its_host_took_the_processors() {
        let (plan, frames, mut harness) = good();
        harness.pacer_lag_ms.as_mut().unwrap().p99 = 9.2;
        let judged = |harness: &Harness, idle, stolen| {
            let machine = Machine { idle: Some(idle), stolen: Some(stolen), ..Machine::default() };
            let outcome = Outcome { frames: &frames, harness, machine: &machine, latency: None, members: 3 };
            judge(&plan, &outcome)
        };
        let quiet = judged(&harness, 0.93, 0.004);
        assert!(quiet.disturbed);
        let said = "the machine was disturbed: frames are sent 9.2 ms late at the 99th percentile, more than 2.0 ms, while its \
                    processors were idle in 93 % of the time and its host took them away in 0.4 %; run it again";
        assert_eq!(quiet.objections, [said]);
        assert!(judged(&harness, 0.1, 0.03).disturbed);
        assert!(!judged(&harness, 0.1, 0.01).disturbed);
        harness.shard_cpu = Some(0.6);
        assert!(!judged(&harness, 0.9, 0.0).disturbed, "one core of many is the limit");
        harness.guests_cpu = Some(0.9);
        assert!(!judged(&harness, 0.9, 0.5).disturbed, "too much to do is no disturbance");
        harness = good().2;
        assert_eq!(judged(&harness, 0.9, 0.5), Judgement { objections: Vec::new(), disturbed: false });
    }
}
