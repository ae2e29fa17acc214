//! Mouth-to-ear delay and quality through sound devices, in one recording on one clock (docs/measuring.md).
//!
//! A null sink is the room: on its left a probe is played, which a client hears as its microphone; what another client
//! plays goes to its right. The delay is how far the right is behind the left.

pub mod children;
pub mod delay;
pub mod floor;
pub mod probe;
pub mod room;

use serde::Serialize;

/// What is known of a set of delays, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them are shorter.
    pub median: f64,
    /// Standard deviation.
    pub sd: f64,
    /// 99 % of them are at most as long, by nearest rank.
    pub p99: f64,
}

impl Spread {
    /// Of delays in ms; `None` when there are none.
    pub fn of(delays: &[f64]) -> Option<Self> {
        let mut sorted = delays.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
            sorted.get(rank - 1).copied()
        };
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let variance = sorted.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / sorted.len() as f64;
        Some(Self { median: rank(0.5)?, sd: variance.sqrt(), p99: rank(0.99)? })
    }
}

/// What a run has found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// As the clients were told.
    pub profile: String,
    /// Duration of a frame, in ms, as the host was told or its profile decides.
    pub frame_ms: u8,
    /// From mouth to ear.
    pub delay_ms: Spread,
    /// Probes that were found again, and all of them.
    pub probes: Found,
    /// By how much the delay was longer at the end than at the beginning (medians of a tenth of the probes), in ms.
    pub drift_ms: f64,
    /// The same way from microphone to loudspeaker by cpal alone, without anything between: median, in ms, with buffers
    /// of 480 frames. `None` when its streams failed whenever it was tried.
    pub device_floor_ms: Option<f64>,
    /// PESQ-WB of speech on the same way.
    pub pesq_wb: f64,
    /// Times at which a client's device had no sound to give or to play during the run.
    pub underruns: u64,
    /// Whether echo cancellation, noise suppression and automatic gain were on, which delay, and change what is looked for.
    pub processing: bool,
    /// Whether the clients' threads went before the rest of the machine.
    pub realtime: bool,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Those whose echo is like them.
    pub found: usize,
    /// Those that were played.
    pub played: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_that_of_its_delays() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, sd: 0.0, p99: 7.0 }));
        let delays: Vec<f64> = (1..=100).map(f64::from).collect();
        let spread = Spread::of(&delays).unwrap();
        assert_eq!((spread.median, spread.p99), (50.0, 99.0));
        assert!((spread.sd - 28.866).abs() < 0.001, "{spread:?}");
    }
}
