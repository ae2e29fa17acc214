//! Two results side by side. Pure.

use crate::result::{Percentiles, Report};

/// What is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// Less.
    Less,
    /// More.
    More,
    /// Neither.
    Neither,
}

/// One figure of both.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What it is, with its unit.
    pub name: &'static str,
    /// Of the first.
    pub a: Option<f64>,
    /// Of the second.
    pub b: Option<f64>,
    /// What is better.
    pub better: Better,
}

/// A change of less is noise on a quiet machine: runs of the same build differ by as much.
const NOISE: f64 = 0.05;

impl Row {
    /// The second in terms of the first.
    pub fn ratio(&self) -> Option<f64> {
        let (a, b) = (self.a?, self.b?);
        (a != 0.0).then(|| b / a)
    }

    /// Whether the second is better, if it is better or worse at all.
    pub fn is_better(&self) -> Option<bool> {
        let ratio = self.ratio()?;
        if self.better == Better::Neither || (ratio - 1.0).abs() < NOISE {
            return None;
        }
        Some((ratio < 1.0) == (self.better == Better::Less))
    }
}

/// A figure of a report.
type Figure = (&'static str, Better, fn(&Report) -> Option<f64>);

const FIGURES: [Figure; 17] = [
    ("members", Better::Neither, |r| Some(r.plan.shape.members() as f64)),
    ("frames a second", Better::Neither, |r| Some(r.frames.received as f64 / f64::from(r.plan.seconds))),
    ("loss, %", Better::Less, |r| Some(r.loss * 100.0)),
    ("latency p50, ms", Better::Less, |r| of(r.latency_ms, |p| p.p50)),
    ("latency p90, ms", Better::Less, |r| of(r.latency_ms, |p| p.p90)),
    ("latency p99, ms", Better::Less, |r| of(r.latency_ms, |p| p.p99)),
    ("latency p99.9, ms", Better::Less, |r| of(r.latency_ms, |p| p.p999)),
    ("latency max, ms", Better::Less, |r| of(r.latency_ms, |p| p.max)),
    ("join p50, ms", Better::Less, |r| of(r.join_ms, |p| p.p50)),
    ("join p99, ms", Better::Less, |r| of(r.join_ms, |p| p.p99)),
    ("removal p50, ms", Better::Less, |r| of(r.removal_ms, |p| p.p50)),
    ("relay: frames per CPU-second", Better::More, |r| r.relay.frames_per_cpu_s),
    ("relay: CPU-seconds per million frames", Better::Less, |r| r.relay.cpu_s_per_million),
    ("relay: packets per frame", Better::Less, |r| r.relay.packets_per_frame),
    ("relay: resident, MiB", Better::Less, |r| r.relay.rss_bytes.map(|bytes| bytes as f64 / MIB)),
    ("relay: resident per member, KiB", Better::Less, |r| r.relay.rss_per_member_bytes.map(|bytes| bytes as f64 / KIB)),
    ("harness: busiest shard, % of a core", Better::Neither, |r| r.harness.shard_cpu.map(|cpu| cpu * 100.0)),
];

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

/// All figures of both.
pub fn compare(a: &Report, b: &Report) -> Vec<Row> {
    FIGURES.iter().map(|(name, better, figure)| Row { name, a: figure(a), b: figure(b), better: *better }).collect()
}

fn of(percentiles: Option<Percentiles>, which: impl Fn(&Percentiles) -> f64) -> Option<f64> {
    percentiles.as_ref().map(which)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::report;

    fn row<'r>(rows: &'r [Row], name: &str) -> &'r Row {
        rows.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn less_latency_and_more_frames_per_cpu_second_are_better() {
        let (mut a, mut b) = (report(), report());
        a.relay.frames_per_cpu_s = Some(100_000.0);
        b.relay.frames_per_cpu_s = Some(500_000.0);
        b.latency_ms.as_mut().unwrap().p99 = 3.0;
        let rows = compare(&a, &b);
        let frames = row(&rows, "relay: frames per CPU-second");
        assert_eq!((frames.ratio(), frames.is_better()), (Some(5.0), Some(true)));
        let p99 = row(&rows, "latency p99, ms");
        assert_eq!((p99.ratio(), p99.is_better()), (Some(2.0), Some(false)));
    }

    #[test]
    fn what_is_missing_zero_or_noise_is_neither() {
        let rows = compare(&report(), &report());
        for name in ["loss, %", "removal p50, ms", "latency p50, ms", "members"] {
            assert_eq!(row(&rows, name).is_better(), None, "{name}");
        }
        assert_eq!(row(&rows, "loss, %").ratio(), None);
    }
}
