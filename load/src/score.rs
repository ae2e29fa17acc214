//! From what was counted to a [`Report`], and whether it is valid.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::listener::Account;
use crate::meter::{Meter, micros};
use crate::pacer::Paced;
use crate::plan::{FRAME, Plan};
use crate::procfs::{self, ThreadId, Times, resident_bytes};
use crate::result::{Frames, Harness, Joins, Machine, Percentiles, Relay, Report, Second, Spread};
use crate::room::{Stage, in_micros};
use crate::sampler::{Sample, packets_per_frame};
use crate::shard::Shard;
use crate::sync::lock;

/// A frame that is sent that late, or read that late, says nothing of the relay any more.
const MOST_LAG_MS: f64 = 2.0;
/// Unless so much of the latency that was found is the relay's all the same: the packets of a crowd come at once, and to
/// read a thousand of them takes a shard milliseconds, which are in the latency.
const MOST_OF_LATENCY: f64 = 0.5;
/// A thread that takes a core for more of the time, or waits for one, has no room for what comes in bursts.
const MOST_AWAKE: f64 = 0.85;
/// Share of frames that may be missing by the harness's own fault.
const MOST_MISSING: f64 = 0.001;

/// What the stages of a run have measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) base: Sample,
    pub(crate) first: Sample,
    pub(crate) last: Sample,
    pub(crate) series: Vec<Second>,
    pub(crate) shares: Shares,
    pub(crate) paced: Option<Paced>,
    pub(crate) removals: Vec<Duration>,
    pub(crate) ramp_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) relay: String,
}

/// Which threads the harness has, by what they do.
pub(crate) struct Threads {
    pub(crate) shards: Vec<Option<ThreadId>>,
    pub(crate) leading: Option<ThreadId>,
    pub(crate) guests: Vec<Option<ThreadId>>,
    pub(crate) pacer: Option<ThreadId>,
}

/// Their times, in seconds or as shares.
#[derive(Clone, Default)]
pub(crate) struct Shares {
    shards: Vec<Option<Times>>,
    leading: Option<Times>,
    guests: Vec<Option<Times>>,
    pacer: Option<Times>,
}

impl Threads {
    /// What they took until now.
    pub(crate) fn read(&self) -> Shares {
        let of = |thread: &Option<ThreadId>| thread.and_then(ThreadId::times);
        Shares {
            shards: self.shards.iter().map(of).collect(),
            leading: of(&self.leading),
            guests: self.guests.iter().map(of).collect(),
            pacer: of(&self.pacer),
        }
    }
}

impl Shares {
    /// Their shares of the time since then.
    pub(crate) fn since(&self, before: &Self, seconds: f64) -> Self {
        let share = |now: Option<Times>, then: Option<Times>| Some((now? - then?) / seconds);
        let all = |now: &[Option<Times>], then: &[Option<Times>]| {
            now.iter().zip(then).map(|(now, then)| share(*now, *then)).collect()
        };
        Self {
            shards: all(&self.shards, &before.shards),
            leading: share(self.leading, before.leading),
            guests: all(&self.guests, &before.guests),
            pacer: share(self.pacer, before.pacer),
        }
    }
}

/// The most that one of them had a core, and the most that one had a core or waited for one.
fn busiest(shares: &[Option<Times>]) -> (Option<f64>, Option<f64>) {
    let most = |of: fn(Times) -> f64| shares.iter().copied().flatten().map(of).reduce(f64::max);
    (most(|share| share.on_cpu), most(Times::awake))
}

/// What listeners got, all together and by second.
struct Heard {
    owed: u64,
    got: u64,
    reordered: u64,
    duplicates: u64,
    foreign: u64,
    loss_of_each: Vec<f64>,
    by_second: Vec<Account>,
    recovery: Histogram<u64>,
}

/// Makes the report of a run that is over.
pub(crate) fn report(stage: &Stage, shards: &[Arc<Shard>], measured: Measured) -> Result<Report> {
    let heard = listen_back(stage)?;
    let mut meter = Meter::new(Arc::clone(&stage.window))?;
    shards.iter().for_each(|shard| meter.add(&lock(&shard.meter)));
    let harness = harness(stage, shards, &measured)?;
    let frames = frames(&heard, measured.paced.as_ref());
    let joins = stage.tally.join_times();
    let mut removal = micros()?;
    measured.removals.iter().for_each(|took| removal.saturating_record(in_micros(*took)));
    let invalid_because = objections(
        &stage.plan,
        &Outcome { frames: &frames, harness: &harness, latency: meter.latency(), members: measured.last.members },
    );
    let tally = &stage.tally;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        valid: invalid_because.is_empty(),
        invalid_because,
        loss: share(heard.owed - heard.got, heard.owed),
        latency_ms: meter.latency(),
        join_ms: Percentiles::of(&joins.whole, 1_000.0),
        join_relay_ms: Percentiles::of(&joins.relay, 1_000.0),
        removal_ms: Percentiles::of(&removal, 1_000.0),
        recovery_ms: Percentiles::of(&heard.recovery, 1_000.0),
        relay: relay(&stage.plan, &measured, heard.got),
        frames,
        listener_loss: Spread::of(heard.loss_of_each.clone()),
        joins: Joins {
            begun: load(&tally.begun),
            done: load(&tally.done),
            failed: load(&tally.failed),
            reconnected: load(&tally.reconnected),
        },
        control_messages: load(&tally.control),
        seals: load(&tally.seals),
        flood: lock(&tally.flood).clone(),
        troubles: tally.troubles(),
        harness,
        machine: machine(measured.relay.clone()),
        plan: stage.plan.clone(),
        series: series(&meter, &heard, measured.series),
    })
}

fn listen_back(stage: &Stage) -> Result<Heard> {
    let seconds = usize::try_from(stage.plan.seconds).unwrap_or(0);
    let mut heard = Heard {
        owed: 0,
        got: 0,
        reordered: 0,
        duplicates: 0,
        foreign: 0,
        loss_of_each: Vec::new(),
        by_second: vec![Account::default(); seconds],
        recovery: micros()?,
    };
    let (start, end) = (stage.window.start(), stage.window.end());
    for listener in lock(&stage.listeners).iter() {
        let listener = lock(listener);
        let by_second = &mut heard.by_second;
        let account = listener.account(start, end, |sent, came| {
            if let Some(second) = stage.window.second_of(sent).and_then(|second| by_second.get_mut(second)) {
                second.owed += 1;
                second.got += u64::from(came);
            }
        });
        if account.owed > 0 {
            heard.loss_of_each.push(share(account.owed - account.got, account.owed));
        }
        heard.owed += account.owed;
        heard.got += account.got;
        heard.reordered += listener.reordered();
        heard.duplicates += listener.duplicates();
        heard.foreign += listener.foreign;
        if let Some(again) = listener.again {
            let took = Duration::from_nanos(again.saturating_sub(stage.restarted()));
            heard.recovery.saturating_record(in_micros(took));
        }
    }
    Ok(heard)
}

fn frames(heard: &Heard, paced: Option<&Paced>) -> Frames {
    Frames {
        sent: paced.map_or(0, |paced| paced.sent),
        dropped_on_purpose: paced.map_or(0, |paced| paced.dropped),
        owed: heard.owed,
        received: heard.got,
        reordered: heard.reordered,
        duplicates: heard.duplicates,
        foreign: heard.foreign,
        starved: paced.map_or(0, |paced| paced.starved),
        unsent: paced.map_or(0, |paced| paced.unsent),
    }
}

fn relay(plan: &Plan, measured: &Measured, forwarded: u64) -> Relay {
    let Measured { base, first, last, series, .. } = measured;
    let times = last.relay.zip(first.relay).map(|(last, first)| last - first);
    let cpu_s = times.map(|times| times.on_cpu);
    let rss_seen = series.iter().filter_map(|second| second.rss_bytes);
    let grown = last.rss.zip(base.rss).map(|(last, base)| last.saturating_sub(base));
    let positive = cpu_s.filter(|cpu| *cpu > 0.0);
    Relay {
        cpu_s,
        waiting_s: times.map(|times| times.waiting),
        frames_forwarded: forwarded,
        frames_per_cpu_s: positive.map(|cpu| forwarded as f64 / cpu),
        cpu_s_per_million: cpu_s.filter(|_| forwarded > 0).map(|cpu| cpu * 1e6 / forwarded as f64),
        packets_per_frame: packets_per_frame(first, last),
        rss_bytes: last.rss,
        rss_peak_bytes: rss_seen.max(),
        rss_base_bytes: base.rss,
        rss_per_member_bytes: grown.map(|grown| grown / plan.shape.members().max(1)),
    }
}

fn harness(stage: &Stage, shards: &[Arc<Shard>], measured: &Measured) -> Result<Harness> {
    let lags = shards.iter().filter_map(|shard| Percentiles::of(&shard.probe.lag(), 1_000.0));
    let Shares { shards: of_shards, leading, guests, pacer } = &measured.shares;
    let (shard_cpu, shard_awake) = busiest(of_shards);
    let (leading_cpu, leading_awake) = busiest(&[*leading]);
    let (guests_cpu, guests_awake) = busiest(guests);
    let (pacer_cpu, pacer_awake) = busiest(&[*pacer]);
    Ok(Harness {
        pacer_lag_ms: measured.paced.as_ref().and_then(|paced| Percentiles::of(&paced.lag, 1_000.0)),
        shard_lag_ms: lags.max_by(|a, b| a.p99.total_cmp(&b.p99)),
        shard_cpu,
        leading_cpu,
        guests_cpu,
        pacer_cpu,
        shard_awake,
        leading_awake,
        guests_awake,
        pacer_awake,
        rss_bytes: resident_bytes(std::process::id()),
        ramp_s: measured.ramp_s,
        warmup_s: measured.warmup_s,
        phases: stage.tally.phases.load(Ordering::Relaxed),
    })
}

/// By what it is judged whether figures say something of the relay.
#[derive(Clone, Copy)]
struct Outcome<'a> {
    frames: &'a Frames,
    harness: &'a Harness,
    latency: Option<Percentiles>,
    /// Who was there at the end.
    members: u64,
}

/// Why figures say nothing of the relay.
fn objections(plan: &Plan, outcome: &Outcome<'_>) -> Vec<String> {
    let Outcome { frames, harness, latency, members } = *outcome;
    let mut objections = Vec::new();
    let most_of_shards = latency.map_or(0.0, |latency| latency.p99 * MOST_OF_LATENCY).max(MOST_LAG_MS);
    let lags = [
        ("frames are sent", harness.pacer_lag_ms, MOST_LAG_MS),
        ("a shard reads", harness.shard_lag_ms, most_of_shards),
    ];
    for (what, lag, most) in lags {
        if let Some(lag) = lag.filter(|lag| lag.p99 > most) {
            objections.push(format!(
                "the harness is saturated: {what} {:.1} ms late at the 99th percentile, more than {most:.1} ms",
                lag.p99
            ));
        }
    }
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
    let Frames { sent, dropped_on_purpose, starved, owed, .. } = *frames;
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

fn series(meter: &Meter, heard: &Heard, mut series: Vec<Second>) -> Vec<Second> {
    for (number, (second, account)) in series.iter_mut().zip(&heard.by_second).enumerate() {
        second.latency_ms = meter.latency_in(number);
        second.loss = (account.owed > 0).then(|| share(account.owed - account.got, account.owed));
        second.received = account.got;
    }
    series
}

fn machine(relay: String) -> Machine {
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        processor: procfs::processor(),
        kernel: procfs::kernel(),
        relay,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        debug_build: cfg!(debug_assertions),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Shape, tests::plan};

    fn objections(plan: &Plan, frames: &Frames, harness: &Harness, members: u64) -> Vec<String> {
        let latency = Some(Percentiles { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 9.0 });
        super::objections(plan, &Outcome { frames, harness, latency, members })
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
            let outcome = Outcome { frames: &frames, harness: &harness, latency, members: 3 };
            assert_eq!(super::objections(&plan, &outcome).len(), objected, "{late} ms");
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
    fn the_busiest_is_found_for_each_of_two_measures() {
        let shares = [(0.9, 0.0), (0.3, 0.65)].map(|(on_cpu, waiting)| Some(Times { on_cpu, waiting }));
        assert_eq!(busiest(&[shares[0], None, shares[1]]), (Some(0.9), Some(0.95)));
        assert_eq!(busiest(&[None]), (None, None));
    }

    #[test]
    fn what_faults_take_away_is_no_objection() {
        let (mut plan, mut frames, harness) = good();
        plan.faults.kill_relay_at = Some(3.0);
        frames.sent = 400;
        assert_eq!(objections(&plan, &frames, &harness, 2), Vec::<String>::new());
    }

    #[test]
    fn the_relay_s_figures_follow_from_its_processor_time_and_growth() {
        let measured = Measured {
            base: Sample { rss: Some(1_000), ..Sample::default() },
            first: Sample {
                relay: Some(Times { on_cpu: 1.0, waiting: 0.5 }),
                packets: 0,
                frames: 0,
                ..Sample::default()
            },
            last: Sample {
                relay: Some(Times { on_cpu: 3.0, waiting: 0.75 }),
                rss: Some(4_000),
                packets: 50,
                frames: 100,
                ..Sample::default()
            },
            ..Measured::default()
        };
        let relay = relay(&good().0, &measured, 4_000_000);
        assert_eq!((relay.cpu_s, relay.waiting_s, relay.frames_per_cpu_s), (Some(2.0), Some(0.25), Some(2_000_000.0)));
        assert_eq!((relay.cpu_s_per_million, relay.packets_per_frame), (Some(0.5), Some(0.5)));
        assert_eq!(relay.rss_per_member_bytes, Some(1_000));
    }
}
