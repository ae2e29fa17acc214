//! Real speech for tests: the spoken clips of Debian's `alsa-utils`, arranged so that talkers differ.
//!
//! The package has one voice; talkers differ in what they say and when, which is enough to tell them apart by
//! correlation. The clips are not copied into the repository.

use crate::wav::{self, Sound};
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// Rate of all the clips here.
pub const RATE: u32 = 48_000;

/// `seconds` of speech of one talker, 48 kHz mono.
///
/// Each talker starts with another clip and goes through all of them in an order of their own, with short pauses.
///
/// # Errors
/// When the clips are missing (the message says how to get them) or cannot be read.
pub fn clip(talker: usize, seconds: f64) -> anyhow::Result<Sound> {
    let clips = clips()?;
    // All strides are coprime to the number of clips, so every talker says everything.
    let stride = STRIDES[talker / clips.len() % STRIDES.len()];
    let wanted = wav::samples_in(RATE, seconds);
    let pause = wav::samples_in(RATE, PAUSE_SECONDS);
    let mut samples = Vec::with_capacity(wanted);
    let mut next = talker % clips.len();
    while samples.len() < wanted {
        samples.extend_from_slice(&clips[next].samples);
        samples.resize(samples.len() + pause, 0.0);
        next = (next + stride) % clips.len();
    }
    samples.truncate(wanted);
    Ok(Sound { rate: RATE, samples })
}

/// `turns` turns of `turn_seconds` for each of `people`, one after the other: talker `talker` speaks in its own turns
/// and is silent in the others'.
///
/// # Errors
/// As [`clip`].
pub fn in_turns(talker: usize, people: usize, turns: usize, turn_seconds: f64) -> anyhow::Result<Sound> {
    let turn = wav::samples_in(RATE, turn_seconds);
    let said = clip(talker, turn_seconds * turns as f64)?;
    let mut samples = vec![0.0; turn * people * turns];
    for (number, speech) in said.samples.chunks_exact(turn.max(1)).take(turns).enumerate() {
        let start = (number * people + talker % people.max(1)) * turn;
        samples[start..start + turn].copy_from_slice(speech);
    }
    Ok(Sound { rate: RATE, samples })
}

/// Writes [`clip`] to `talker-N.wav` in a folder.
///
/// # Errors
/// As [`clip`], or when the file cannot be written.
pub fn write_clip(dir: &Path, talker: usize, seconds: f64) -> anyhow::Result<PathBuf> {
    let path = dir.join(format!("talker-{talker}.wav"));
    wav::write(&path, &clip(talker, seconds)?)?;
    Ok(path)
}

/// The spoken clips, in the order of [`NAMES`].
fn clips() -> anyhow::Result<Vec<Sound>> {
    NAMES.iter().map(|name| clip_named(name)).collect()
}

fn clip_named(name: &str) -> anyhow::Result<Sound> {
    let path = Path::new(FOLDER).join(name);
    wav::read(&path)
        .with_context(|| {
            format!("{} is the speech of the tests; Debian's alsa-utils has it: run scripts/setup", path.display())
        })?
        .resampled(RATE)
}

/// Where Debian's `alsa-utils` installs them.
const FOLDER: &str = "/usr/share/sounds/alsa";
/// The clips that hold speech; the package's ninth is noise. 1.3 to 1.5 s each.
const NAMES: [&str; 8] = [
    "Front_Center.wav",
    "Front_Left.wav",
    "Rear_Center.wav",
    "Side_Right.wav",
    "Rear_Left.wav",
    "Front_Right.wav",
    "Side_Left.wav",
    "Rear_Right.wav",
];
/// Orders that visit all eight clips: with these, 32 talkers differ.
const STRIDES: [usize; 4] = [1, 3, 5, 7];
/// A speaker's breath between phrases.
const PAUSE_SECONDS: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_have_the_asked_length_and_hold_speech() {
        for seconds in [0.5, 3.0, 20.0] {
            let said = clip(1, seconds).unwrap();
            assert_eq!(said.samples.len(), wav::samples_in(RATE, seconds));
            assert!(wav::rms(&said.samples) > 0.01);
        }
    }

    #[test]
    fn talkers_differ_from_each_other() {
        let talkers: Vec<_> = (0..32).map(|talker| clip(talker, 4.0).unwrap()).collect();
        for (number, one) in talkers.iter().enumerate() {
            assert!(talkers[number + 1..].iter().all(|other| one != other), "talker {number} has a double");
        }
        let score = wav::align(&talkers[0], &talkers[2], 0.1).unwrap().score;
        assert!(score < 0.5, "{score}");
    }

    #[test]
    fn in_turns_exactly_one_person_speaks() {
        let people: Vec<_> = (0..3).map(|talker| in_turns(talker, 3, 2, 1.0).unwrap()).collect();
        for turn in 0..6u8 {
            let (start, end) = (f64::from(turn), f64::from(turn + 1));
            let speaking: Vec<_> =
                people.iter().map(|sound| wav::rms(&sound.between(start, end).samples) > 0.0).collect();
            let expected: Vec<_> = (0..3).map(|talker| talker == turn % 3).collect();
            assert_eq!(speaking, expected, "turn {turn}");
        }
    }

    #[test]
    fn a_missing_clip_says_what_to_run() {
        let error = format!("{:#}", clip_named("No_Such_Clip.wav").unwrap_err());
        assert!(error.contains("scripts/setup"), "{error}");
    }
}
