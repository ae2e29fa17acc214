//! Rows and columns of the table, and a cell.

use anyhow::Result;
use conclave::audio::profile::Profile;
use conclave_tests::quality::{self, Loss};
use conclave_tests::wav::Sound;

use super::buffer;

/// Bytes of 20 ms at 32 kbit/s.
pub const PLAIN_LEN: usize = 80;
/// Bytes of 20 ms at 40 kbit/s, which is what Mumble sends unless told otherwise (its `Settings.cpp`).
pub const MUMBLE_LEN: usize = 100;

/// Whose sound it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Column {
    /// Conclave, with a profile.
    Conclave(Profile),
    /// Opus of so many bytes per frame, without redundancy, with classic concealment and no delay for repair.
    Plain(usize),
    /// Opus at 32 kbit/s behind the `neteq` crate, in real time.
    Neteq,
}

/// The columns in the order in which they are shown.
pub const COLUMNS: [(&str, Column); 6] = [
    ("low-delay", Column::Conclave(Profile::LowDelay)),
    ("default", Column::Conclave(Profile::Default)),
    ("poor-network", Column::Conclave(Profile::PoorNetwork)),
    ("Opus 32k", Column::Plain(PLAIN_LEN)),
    ("Mumble's 40k", Column::Plain(MUMBLE_LEN)),
    ("neteq 32k", Column::Neteq),
];

/// How frames are lost in a row, and what the audio issue wants of a profile there.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// As shown.
    pub name: &'static str,
    /// How.
    pub loss: Loss,
    /// The profile that must reach a score, and the score.
    pub wanted: Option<(Profile, f64)>,
}

const fn condition(name: &'static str, share: f64, burst: f64, wanted: Option<(Profile, f64)>) -> Condition {
    Condition { name, loss: Loss { share, burst }, wanted }
}

/// The rows.
pub const CONDITIONS: [Condition; 6] = [
    condition("no loss", 0.0, 1.0, Some((Profile::Default, 4.0))),
    condition("5 % random", 0.05, 1.0, Some((Profile::Default, 3.9))),
    condition("10 % random", 0.1, 1.0, Some((Profile::Default, 3.6))),
    condition("20 % random", 0.2, 1.0, None),
    condition("10 % in bursts of 3", 0.1, 3.0, Some((Profile::PoorNetwork, 3.2))),
    condition("20 % in bursts of 3", 0.2, 3.0, Some((Profile::PoorNetwork, 2.5))),
];

impl Column {
    /// The mean score over all seeds.
    ///
    /// # Errors
    /// When something of the path fails.
    pub fn score(self, said: &Sound, loss: Loss, seeds: u64) -> Result<f64> {
        // Without loss all seeds are one, and in real time one pass takes long enough.
        let seeds = if loss == Loss::NONE || self == Self::Neteq { 1 } else { seeds };
        let mut sum = 0.0;
        for seed in 1..=seeds {
            let lost = loss.pattern(quality::frames(said), seed);
            sum += quality::score(said, &self.heard(said, &lost)?)?;
        }
        Ok(sum / seeds as f64)
    }

    fn heard(self, said: &Sound, lost: &[bool]) -> Result<Sound> {
        match self {
            Self::Conclave(profile) => Ok(quality::through_conclave(said, profile, lost)?.0),
            Self::Plain(len) => quality::through_plain_opus(said, len, lost),
            Self::Neteq => buffer::heard(said, &quality::plain_packets(said, PLAIN_LEN)?, lost),
        }
    }
}
