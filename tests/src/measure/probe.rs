//! The sound that is looked for: short chirps at times that do not repeat.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Samples per second of everything that is measured.
pub const RATE: u32 = 48_000;
/// Length of a chirp in samples: 100 ms, five frames, long enough to be told from any other sound.
pub const CHIRP: usize = 4_800;
/// From where to where its pitch rises, in Hz. Packets that hold the frame before, too, have no bits for a sweep that is
/// faster: it comes out as something else.
const PITCH: (f64, f64) = (300.0, 1_500.0);
/// Loudness: 12 dB below full scale.
const PEAK: f64 = 0.25;
/// Least and most time from one chirp to the next, in samples: 0.35 to 0.65 s. Longer than any delay that is looked for,
/// and never the same twice, so that no chirp is taken for its neighbour.
const SPACING: (usize, usize) = (16_800, 31_200);

/// A probe.
pub struct Probe {
    /// The sound.
    pub samples: Vec<f32>,
    /// Where chirps begin.
    pub starts: Vec<usize>,
}

impl Probe {
    /// A probe of some seconds; the same one for the same seed.
    pub fn new(seconds: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut samples = vec![0.0; crate::wav::samples_in(RATE, seconds)];
        let (mut starts, chirp) = (Vec::new(), chirp());
        let mut at = SPACING.0;
        while let Some(place) = samples.get_mut(at..at + CHIRP) {
            place.copy_from_slice(&chirp);
            starts.push(at);
            at += SPACING.0 + rng.next_u32() as usize % (SPACING.1 - SPACING.0);
        }
        Self { samples, starts }
    }
}

/// A chirp.
fn chirp() -> [f32; CHIRP] {
    std::array::from_fn(|n| {
        let (t, length) = (n as f64 / f64::from(RATE), CHIRP as f64 / f64::from(RATE));
        let phase = PITCH.0 * t + (PITCH.1 - PITCH.0) * t * t / (2.0 * length);
        // Fades in and out, so that it has no edges.
        let fade = (std::f64::consts::PI * n as f64 / CHIRP as f64).sin().powi(2);
        (PEAK * fade * (std::f64::consts::TAU * phase).sin()) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chirps_are_apart_and_the_same_for_the_same_seed() {
        let probe = Probe::new(20.0, 7);
        assert!(probe.starts.len() >= 30, "{}", probe.starts.len());
        assert!(probe.starts.windows(2).all(|pair| (SPACING.0..SPACING.1).contains(&(pair[1] - pair[0]))));
        assert_eq!(probe.samples, Probe::new(20.0, 7).samples);
        assert_ne!(probe.starts, Probe::new(20.0, 8).starts);
    }
}
