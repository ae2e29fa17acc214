//! From the figures of all rounds to one line for each server, and to the ratios between Conclave and the others.

use serde::Serialize;

use crate::measure::Figures;
use crate::peers::Peer;

/// One server's turn in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// The round, from 1.
    pub round: u64,
    /// The server.
    pub peer: Peer,
    /// How often it was tried, this one included: those before were not valid.
    pub tries: u32,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Turn {
    /// What makes its figures worth nothing, if anything does.
    pub fn doubt(&self) -> Option<String> {
        let reasons = &self.figures.invalid_because;
        let Self { round, peer, .. } = self;
        (!reasons.is_empty()).then(|| format!("round {round}, {peer}: not valid: {}", reasons.join("; ")))
    }
}

/// A server over all rounds. Each figure is a median of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The server.
    pub peer: Peer,
    /// Rounds that it finished.
    pub rounds: usize,
    /// Frames that a second of its CPU time forwards.
    pub frames_per_cpu_s: Spread,
    /// CPU microseconds that a frame costs.
    pub us_per_frame: f64,
    /// Half of the frames arrive within this, milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 frames arrive within this, milliseconds.
    pub p99_ms: f64,
    /// The largest loss of a round, 0 to 1.
    pub worst_loss: f64,
    /// The clients' share of their core.
    pub client_share: Option<f64>,
    /// Whether the clients kept their pace in every round.
    pub valid: bool,
    /// Conclave's frames per CPU second over this server's; `None` without Conclave.
    pub conclave_ratio: Option<f64>,
}

/// A median and the range around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { min, median, max })
    }
}

/// A line for each server that finished a round, in the servers' order.
pub fn summarise(turns: &[Turn]) -> Vec<Line> {
    let mut peers: Vec<Peer> = turns.iter().map(|turn| turn.peer).collect();
    peers.sort_unstable();
    peers.dedup();
    let mut lines: Vec<Line> = peers.into_iter().filter_map(|peer| line(turns, peer)).collect();
    let own = lines.iter().find(|line| line.peer == Peer::Conclave).map(|line| line.frames_per_cpu_s.median);
    for line in lines.iter_mut().filter(|line| line.peer != Peer::Conclave) {
        line.conclave_ratio = own.map(|own| own / line.frames_per_cpu_s.median);
    }
    lines
}

fn line(turns: &[Turn], peer: Peer) -> Option<Line> {
    let own: Vec<&Figures> = turns.iter().filter(|turn| turn.peer == peer).map(|turn| &turn.figures).collect();
    let spread = |of: fn(&Figures) -> f64| Spread::of(own.iter().map(|figures| of(figures)).collect());
    let frames_per_cpu_s = spread(Figures::frames_per_cpu_s)?;
    Some(Line {
        peer,
        rounds: own.len(),
        frames_per_cpu_s,
        us_per_frame: 1e6 / frames_per_cpu_s.median,
        p50_ms: spread(|figures| figures.latency_ms.p50)?.median,
        p99_ms: spread(|figures| figures.latency_ms.p99)?.median,
        worst_loss: spread(|figures| figures.loss)?.max,
        client_share: Spread::of(own.iter().filter_map(|figures| figures.client_share).collect())
            .map(|share| share.median),
        valid: own.iter().all(|figures| figures.invalid_because.is_empty()),
        conclave_ratio: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Latency;

    fn turn(round: u64, peer: Peer, frames: u64, valid: bool) -> Turn {
        let latency_ms = Latency { p50: round as f64, p99: 10.0 * round as f64 };
        let loss = round as f64 / 100.0;
        let figures = Figures {
            frames_forwarded: frames,
            cpu_s: 1.0,
            loss,
            latency_ms,
            client_share: Some(0.1),
            client_lag_ms: Some(0.2),
            invalid_because: if valid { Vec::new() } else { vec!["a reason".to_owned()] },
        };
        Turn { round, peer, tries: 1, figures }
    }

    #[test]
    fn medians_and_ratio_over_the_rounds() {
        let turns = [
            turn(1, Peer::Mumble, 100, true),
            turn(1, Peer::Conclave, 900, true),
            turn(2, Peer::Mumble, 200, true),
            turn(2, Peer::Conclave, 1000, true),
            turn(3, Peer::Mumble, 999, false),
            turn(3, Peer::Conclave, 1100, true),
        ];
        let lines = summarise(&turns);
        assert_eq!(lines.iter().map(|line| line.peer).collect::<Vec<_>>(), [Peer::Conclave, Peer::Mumble]);
        let mumble = &lines[1];
        assert_eq!(mumble.frames_per_cpu_s, Spread { min: 100.0, median: 200.0, max: 999.0 });
        assert_eq!(mumble.conclave_ratio, Some(5.0));
        assert_eq!((mumble.p50_ms, mumble.p99_ms, mumble.worst_loss), (2.0, 20.0, 0.03));
        assert!(!mumble.valid && lines[0].valid);
        assert_eq!(lines[0].conclave_ratio, None);
        assert_eq!(turns[0].doubt(), None);
        assert_eq!(turns[4].doubt().unwrap(), "round 3, mumble: not valid: a reason");
    }

    #[test]
    fn without_conclave_there_is_no_ratio() {
        assert_eq!(summarise(&[turn(1, Peer::Quinn, 100, true)])[0].conclave_ratio, None);
        assert_eq!(summarise(&[]), []);
    }

    #[test]
    fn the_median_of_two_lies_between_them() {
        assert_eq!(Spread::of(vec![3.0, 1.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
