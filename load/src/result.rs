//! What a run gives: the JSON that `docs/load.md` defines field by field.

use std::collections::BTreeMap;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Percentiles of a time in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are not above.
    pub p50: f64,
    /// 90 in 100 are not above.
    pub p90: f64,
    /// 99 in 100 are not above.
    pub p99: f64,
    /// 999 in 1,000 are not above.
    pub p999: f64,
    /// None is above.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram in units of which `per_milli` make a millisecond; `None` when it is empty.
    pub fn of<T: Counter>(histogram: &Histogram<T>, per_milli: f64) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / per_milli;
        let max = histogram.max() as f64 / per_milli;
        // A place of the histogram is named by its highest value, which can be above the real maximum.
        let below = |quantile| f64::min(at(quantile), max);
        let (p50, p90, p99, p999) = (below(0.5), below(0.9), below(0.99), below(0.999));
        (!histogram.is_empty()).then_some(Self { p50, p90, p99, p999, max })
    }
}

/// A run's outcome.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Whether the figures say something of the relay.
    pub valid: bool,
    /// Why they don't.
    pub invalid_because: Vec<String>,
    /// Share of the frames owed that did not come, 0 to 1.
    pub loss: f64,
    /// One way: from the talker's send call to the listener's application.
    pub latency_ms: Option<Percentiles>,
    /// From dialling to the first key of the meeting.
    pub join_ms: Option<Percentiles>,
    /// Of that, from dialling to the relay's first answer.
    pub join_relay_ms: Option<Percentiles>,
    /// From a host's act to the last frame that the removed member got.
    pub removal_ms: Option<Percentiles>,
    /// From a killed relay's being there again to each listener's next frame.
    pub recovery_ms: Option<Percentiles>,
    /// The relay's process.
    pub relay: Relay,
    /// Counts of frames.
    pub frames: Frames,
    /// How evenly losses fall on listeners.
    pub listener_loss: Option<Spread>,
    /// Counts of joins.
    pub joins: Joins,
    /// Control messages that came from the relay, without the seals.
    pub control_messages: u64,
    /// Seals among them, which listeners count and do not check.
    pub seals: u64,
    /// What outsiders sent, by kind.
    pub flood: BTreeMap<String, u64>,
    /// What went wrong, and how often.
    pub troubles: BTreeMap<String, u64>,
    /// The harness itself.
    pub harness: Harness,
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for.
    pub plan: Plan,
    /// Every second of the measurement.
    pub series: Vec<Second>,
}

/// The relay's process; `null` where it cannot be seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Relay {
    /// Processor time during the measurement, in seconds.
    pub cpu_s: Option<f64>,
    /// How long its threads had something to do meanwhile and no core to do it on, in seconds.
    pub waiting_s: Option<f64>,
    /// Frames that listeners got during it.
    pub frames_forwarded: u64,
    /// The one by the other.
    pub frames_per_cpu_s: Option<f64>,
    /// Processor time for a million of them, in seconds.
    pub cpu_s_per_million: Option<f64>,
    /// UDP packets that members got per frame that they got, packets without frames included.
    pub packets_per_frame: Option<f64>,
    /// Resident memory at the end of the measurement.
    pub rss_bytes: Option<u64>,
    /// The most of every second's.
    pub rss_peak_bytes: Option<u64>,
    /// Before anybody connected.
    pub rss_base_bytes: Option<u64>,
    /// What it grew by since, per member.
    pub rss_per_member_bytes: Option<u64>,
}

/// Counts of frames in the measurement.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Frames {
    /// Sent by talkers.
    pub sent: u64,
    /// Dropped by `--loss` before they were sent.
    pub dropped_on_purpose: u64,
    /// Owed to listeners.
    pub owed: u64,
    /// That came.
    pub received: u64,
    /// That came after a later one of the same talker.
    pub reordered: u64,
    /// That came again.
    pub duplicates: u64,
    /// Datagrams of nobody who is measured.
    pub foreign: u64,
    /// Ticks at which no frame was ready, by the harness's own fault.
    pub starved: u64,
    /// Frames that could not be handed to the connection.
    pub unsent: u64,
}

/// A share, over many.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// Of the one in the middle.
    pub p50: f64,
    /// Of the one that 99 in 100 are not above.
    pub p99: f64,
    /// Of the worst.
    pub max: f64,
}

impl Spread {
    /// Of these; `None` of none.
    pub fn of(mut shares: Vec<f64>) -> Option<Self> {
        shares.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = (shares.len() as f64 * quantile).ceil() as usize;
            shares.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, max: shares.last().copied()? })
    }
}

/// Counts of joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Joins {
    /// That were begun.
    pub begun: u64,
    /// That led into the meeting.
    pub done: u64,
    /// That failed, and were tried again.
    pub failed: u64,
    /// Connections that were lost and made again.
    pub reconnected: u64,
}

/// The harness itself: whether it was a match for the load.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Harness {
    /// How late frames were sent.
    pub pacer_lag_ms: Option<Percentiles>,
    /// How late the worst shard took its turn.
    pub shard_lag_ms: Option<Percentiles>,
    /// Share of a core that the busiest shard took.
    pub shard_cpu: Option<f64>,
    /// The same of the thread that runs the protocol of hosts and talkers.
    pub leading_cpu: Option<f64>,
    /// The same of the busiest of those that run that of the others.
    pub guests_cpu: Option<f64>,
    /// The same of the pacer.
    pub pacer_cpu: Option<f64>,
    /// Share of the time in which a shard had a core or waited for one: the most of any.
    pub shard_awake: Option<f64>,
    /// The same of the thread of hosts and talkers.
    pub leading_awake: Option<f64>,
    /// The same of those of the others.
    pub guests_awake: Option<f64>,
    /// The same of the pacer.
    pub pacer_awake: Option<f64>,
    /// Resident memory of the harness.
    pub rss_bytes: Option<u64>,
    /// How long it took until all members were in, in seconds.
    pub ramp_s: f64,
    /// How long people talked before the measurement, in seconds.
    pub warmup_s: f64,
    /// Shifts of frame clocks that the relay asked for.
    pub phases: u64,
}

/// Where a run took place, and what else happened there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The processor's name.
    pub processor: Option<String>,
    /// The kernel.
    pub kernel: Option<String>,
    /// The relay, as it was named.
    pub relay: String,
    /// This program's version.
    pub version: String,
    /// Whether the harness, and an embedded relay with it, was built without optimisation.
    pub debug_build: bool,
    /// Share of the measurement in which its processors had nothing to do.
    #[serde(default)]
    pub idle: Option<f64>,
    /// Share of it in which they should have run, but the host of this virtual machine gave them to others.
    #[serde(default)]
    pub stolen: Option<f64>,
    /// Whether something else than the load is why the result is not valid: threads were late that had little to do, on
    /// processors that were idle.
    #[serde(default)]
    pub disturbed: bool,
}

/// One second of a measurement.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Which, from 0.
    pub second: u32,
    /// Of the frames sent in it.
    pub latency_ms: Option<Percentiles>,
    /// Of the frames sent in it.
    pub loss: Option<f64>,
    /// Frames sent in it that came.
    pub received: u64,
    /// Share of a core that the relay took.
    pub relay_cpu: Option<f64>,
    /// The relay's resident memory at its end.
    pub rss_bytes: Option<u64>,
    /// UDP packets per frame, of those that came in it.
    pub packets_per_frame: Option<f64>,
    /// Members at its end.
    pub members: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Shape, tests::plan};

    /// A report of a quiet run.
    pub(crate) fn report() -> Report {
        let latency_ms = Some(Percentiles { p50: 0.5, p90: 0.7, p99: 1.5, p999: 2.0, max: 3.0 });
        let second = |second| Second { second, latency_ms, loss: Some(0.0), received: 10, ..Second::default() };
        Report {
            valid: true,
            invalid_because: Vec::new(),
            loss: 0.0,
            latency_ms,
            join_ms: None,
            join_relay_ms: None,
            removal_ms: None,
            recovery_ms: None,
            relay: Relay { cpu_s: Some(0.5), frames_forwarded: 100, ..Relay::default() },
            frames: Frames::default(),
            listener_loss: None,
            joins: Joins::default(),
            control_messages: 0,
            seals: 0,
            flood: BTreeMap::new(),
            troubles: BTreeMap::new(),
            harness: Harness::default(),
            machine: Machine::default(),
            plan: plan(Shape { rooms: 1, people: 3, talkers: 1 }),
            series: (0..3).map(second).collect(),
        }
    }

    #[test]
    fn a_histogram_becomes_json_in_milliseconds() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        assert_eq!(Percentiles::of(&histogram, 1_000.0), None);
        (1..=1_000).for_each(|micros| histogram.saturating_record(micros));
        let percentiles = Percentiles::of(&histogram, 1_000.0).unwrap();
        let json = serde_json::to_value(percentiles).unwrap();
        for (field, expected) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            let value = json[field].as_f64().unwrap();
            assert!((value - expected).abs() < 0.002, "{field} is {value}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let written = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&written).unwrap(), report());
    }

    #[test]
    fn a_spread_names_the_middle_and_the_worst() {
        let shares: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Spread::of(shares), Some(Spread { p50: 50.0, p99: 99.0, max: 100.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
