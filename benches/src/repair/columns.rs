//! Rows and columns of the table, and what one column hears in one pattern of loss.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use conclave::audio::codec::Redundancy;
use conclave::audio::format::FrameDuration;
use conclave::audio::playout::Config;
use conclave::audio::profile::Profile;
use conclave_tests::quality::{self, Loss, Sent};
use conclave_tests::wav::Sound;

use super::buffer;

/// Bytes of 20 ms at 32 kbit/s.
const PLAIN_LEN: usize = 80;
/// Bytes of 20 ms at 40 kbit/s, which is what Mumble sends unless told otherwise (its `Settings.cpp`).
const MUMBLE_LEN: usize = 100;

/// Whose sound it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Column {
    /// Conclave, with a profile.
    Conclave(Profile),
    /// Conclave, with a fixed hold of so many milliseconds.
    Held(u64),
    /// Opus at 32 kbit/s without redundancy, with classic concealment and no delay for repair.
    Plain,
    /// The same at Mumble's bit rate.
    Mumble,
    /// The packets of [`Column::Plain`] behind the `neteq` crate, in real time.
    Neteq,
}

/// The columns that are always shown, in order; [`Column::Neteq`] comes last.
pub const COLUMNS: [Column; 5] = [
    Column::Conclave(Profile::LowDelay),
    Column::Conclave(Profile::Default),
    Column::Conclave(Profile::PoorNetwork),
    Column::Plain,
    Column::Mumble,
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

impl Condition {
    /// Patterns of loss in this row, of so many that are asked for: without loss all are one.
    pub fn patterns(&self, seeds: u64) -> u64 {
        if self.loss == Loss::NONE { 1 } else { seeds }
    }
}

/// Speech, and what talkers make of it: encoded once for all cells.
pub struct Speech {
    said: Sound,
    frame: FrameDuration,
    sent: Sent,
    plain: Vec<Vec<u8>>,
    mumble: Vec<Vec<u8>>,
}

impl Speech {
    /// Brings speech to its level and encodes it. Conclave's packets hold frames of the duration `frame`, and `redundancy`.
    ///
    /// # Errors
    /// When it cannot be converted to 48 kHz, or the codec fails.
    pub fn new(said: &Sound, frame: FrameDuration, redundancy: Redundancy) -> Result<Self> {
        let said = quality::prepared(said)?;
        let sent = quality::sent(&said, frame, redundancy)?;
        let (plain, mumble) = (quality::plain_packets(&said, PLAIN_LEN)?, quality::plain_packets(&said, MUMBLE_LEN)?);
        Ok(Self { said, frame, sent, plain, mumble })
    }

    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.said.seconds()
    }
}

/// What a column's sound is worth.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// PESQ-WB, 1.0 to 4.64.
    pub pesq_wb: f64,
    /// How late a tick of it came at most, where it runs in real time.
    pub late: Duration,
}

impl Column {
    /// As shown.
    pub fn name(self) -> String {
        match self {
            Self::Conclave(profile) => {
                profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
            }
            Self::Held(ms) => format!("held {ms} ms"),
            Self::Plain => "Opus 32k".to_owned(),
            Self::Mumble => "Mumble's 40k".to_owned(),
            Self::Neteq => "neteq 32k".to_owned(),
        }
    }

    /// Whether it takes as long as the speech, and nearly no computing.
    pub fn is_in_real_time(self) -> bool {
        self == Self::Neteq
    }

    /// How long its frames are: those of others are always of 20 ms.
    fn frame(self, speech: &Speech) -> FrameDuration {
        match self {
            Self::Conclave(_) | Self::Held(_) => speech.frame,
            Self::Plain | Self::Mumble | Self::Neteq => FrameDuration::Ms20,
        }
    }

    /// The score of one pattern of loss.
    ///
    /// # Errors
    /// When something of the path fails.
    pub fn score(self, speech: &Speech, loss: Loss, seed: u64) -> Result<Score> {
        let lost = &loss.pattern(quality::frames(&speech.said, self.frame(speech)), seed);
        let (heard, late) = match self {
            Self::Neteq => buffer::heard(&speech.plain, lost)?,
            _ => (self.heard(speech, lost)?, Duration::ZERO),
        };
        Ok(Score { pesq_wb: quality::score(&speech.said, &heard)?, late })
    }

    fn heard(self, speech: &Speech, lost: &[bool]) -> Result<Sound> {
        let ours =
            |config: &dyn Fn(FrameDuration) -> Config| Ok(quality::through_conclave(&speech.sent, config, lost)?.0);
        match self {
            Self::Conclave(profile) => ours(&|frame| profile.config(frame)),
            Self::Held(ms) => ours(&|frame| Config { hold: Duration::from_millis(ms), ..Config::of(frame) }),
            Self::Plain | Self::Neteq => quality::through_plain_opus(&speech.plain, lost),
            Self::Mumble => quality::through_plain_opus(&speech.mumble, lost),
        }
    }
}
