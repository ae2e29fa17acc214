//! From what was counted to a [`Report`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::listener::Account;
use crate::meter::{Meter, micros};
use crate::pacer::Paced;
use crate::plan::Plan;
use crate::procfs::{self, ThreadId, Times, resident_bytes};
use crate::result::{Frames, Harness, Joins, Machine, Percentiles, Relay, Report, Second, Spread};
use crate::room::{Stage, in_micros};
use crate::sampler::{Sample, packets_per_frame};
use crate::shard::Shard;
use crate::sync::lock;
use crate::validity::{Judgement, Outcome, judge};

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
    let mut machine = machine(&measured);
    let outcome = Outcome {
        frames: &frames,
        harness: &harness,
        machine: &machine,
        latency: meter.latency(),
        members: measured.last.members,
    };
    let Judgement { objections, disturbed } = judge(&stage.plan, &outcome);
    machine.disturbed = disturbed;
    let tally = &stage.tally;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        valid: objections.is_empty(),
        invalid_because: objections,
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
        machine,
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

fn series(meter: &Meter, heard: &Heard, mut series: Vec<Second>) -> Vec<Second> {
    for (number, (second, account)) in series.iter_mut().zip(&heard.by_second).enumerate() {
        second.latency_ms = meter.latency_in(number);
        second.loss = (account.owed > 0).then(|| share(account.owed - account.got, account.owed));
        second.received = account.got;
    }
    series
}

fn machine(measured: &Measured) -> Machine {
    let looks = measured.last.processors.zip(measured.first.processors);
    let shares = looks.and_then(|(last, first)| last.since(first));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        processor: procfs::processor(),
        kernel: procfs::kernel(),
        relay: measured.relay.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        debug_build: cfg!(debug_assertions),
        idle: shares.map(|(idle, _)| idle),
        stolen: shares.map(|(_, stolen)| stolen),
        disturbed: false,
    }
}

/// A part of a whole, 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Shape, tests::plan};

    #[test]
    fn the_busiest_is_found_for_each_of_two_measures() {
        let shares = [(0.9, 0.0), (0.3, 0.65)].map(|(on_cpu, waiting)| Some(Times { on_cpu, waiting }));
        assert_eq!(busiest(&[shares[0], None, shares[1]]), (Some(0.9), Some(0.95)));
        assert_eq!(busiest(&[None]), (None, None));
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
        let plan = plan(Shape { rooms: 1, people: 3, talkers: 1 });
        let relay = relay(&plan, &measured, 4_000_000);
        assert_eq!((relay.cpu_s, relay.waiting_s, relay.frames_per_cpu_s), (Some(2.0), Some(0.25), Some(2_000_000.0)));
        assert_eq!((relay.cpu_s_per_million, relay.packets_per_frame), (Some(0.5), Some(0.5)));
        assert_eq!(relay.rss_per_member_bytes, Some(1_000));
    }
}
