//! Who takes part in the demo, and what each says.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Plan;
use crate::audio::format::{FRAME_SAMPLES, SAMPLE_RATE};
use crate::audio::source::{Recording, Repeat};

/// What becomes of somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Host,
    Guest,
    Removed,
    Denied,
}

/// Somebody in the demo.
pub(super) struct Person {
    pub(super) name: String,
    pub(super) part: Part,
    /// 48 kHz mono.
    pub(super) speech: Vec<i16>,
}

impl Person {
    pub(super) fn heard_file(&self) -> String {
        format!("heard-by-{}.wav", self.name)
    }

    pub(super) fn said_file(&self) -> String {
        format!("said-by-{}.wav", self.name)
    }
}

/// Long enough that none turns up in ciphertext by chance, when the verdict looks for them.
const NAMES: [&str; 12] = [
    "Adelaide",
    "Barnaby",
    "Cordelia",
    "Desmond",
    "Eleanor",
    "Fernando",
    "Gwendolyn",
    "Harriet",
    "Ignatius",
    "Josephine",
    "Katharina",
    "Leopold",
];
const DENIED: &str = "Mallory";

/// The spoken clips of Debian's alsa-utils.
const CLIPS: [&str; 8] =
    ["Front_Center", "Rear_Left", "Side_Right", "Front_Left", "Rear_Center", "Side_Left", "Front_Right", "Rear_Right"];
const CLIP_DIRECTORY: &str = "/usr/share/sounds/alsa";
/// Between two clips.
const GAP_SECONDS: f32 = 0.15;

/// Everybody, the host first, with something to say for the whole call and the time before it.
pub(super) fn gather(plan: &Plan) -> Result<Vec<Person>> {
    let phrases = match &plan.input {
        Some(path) => slices_of(path, plan.people)?,
        None => clips()?,
    };
    // Talk goes on while people are being let in, so there must be more of it than the call is long.
    let length = (plan.seconds as usize + 20) * SAMPLE_RATE as usize;
    let parts = std::iter::once(Part::Host)
        .chain(std::iter::repeat_n(Part::Guest, plan.people.saturating_sub(2)))
        .chain([Part::Removed, Part::Denied]);
    let names = NAMES.iter().take(plan.people).chain([&DENIED]);
    let mut cast = Vec::new();
    for (i, (part, name)) in parts.zip(names).enumerate() {
        let speech = speech(&phrases, i, length);
        let person = Person { name: (*name).to_owned(), part, speech };
        write_said(&person, &plan.out)?;
        cast.push(person);
    }
    Ok(cast)
}

/// Phrases in turn, each person beginning with another.
fn speech(phrases: &[Vec<i16>], person: usize, length: usize) -> Vec<i16> {
    let gap = (GAP_SECONDS * SAMPLE_RATE as f32) as usize;
    let mut speech = Vec::with_capacity(length);
    let mut turn = person;
    while speech.len() < length {
        speech.extend_from_slice(&phrases[turn % phrases.len()]);
        speech.extend(std::iter::repeat_n(0, gap));
        // A step that differs from person to person, so that nobody repeats another's order.
        turn += 1 + 2 * (person % 4);
    }
    speech.truncate(length);
    speech
}

fn clips() -> Result<Vec<Vec<i16>>> {
    CLIPS
        .iter()
        .map(|clip| {
            let path = Path::new(CLIP_DIRECTORY).join(format!("{clip}.wav"));
            Recording::open(&path, Repeat::Once).map(Recording::into_samples).with_context(|| {
                format!(
                    "the demo needs speech: install alsa-utils (apt-get install alsa-utils) or give --input WAV ({})",
                    path.display()
                )
            })
        })
        .collect()
}

fn slices_of(path: &Path, people: usize) -> Result<Vec<Vec<i16>>> {
    let samples = Recording::open(path, Repeat::Once)?.into_samples();
    let slice = samples.len() / (people + 1);
    if slice < FRAME_SAMPLES * 50 {
        bail!("{} is too short: give at least one second of speech for each person", path.display());
    }
    Ok(samples.chunks_exact(slice).map(<[i16]>::to_vec).collect())
}

fn write_said(person: &Person, out: &Path) -> Result<()> {
    let path = out.join(person.said_file());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::create(&path, spec)?;
        for sample in &person.speech {
            writer.write_sample(*sample)?;
        }
        writer.finalize()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
