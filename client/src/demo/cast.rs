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
/// Samples between two turns: 0.15 s.
const GAP: usize = SAMPLE_RATE as usize * 15 / 100;

/// Everybody, the host first, with something to say for the whole call and the time before it.
pub(super) fn gather(plan: &Plan) -> Result<Vec<Person>> {
    // One more knocks and is denied.
    let turns = Turns::of(plan.people + 1);
    let phrases = match &plan.input {
        Some(path) => slices_of(path, turns.items)?,
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
        let speech = speech(&phrases, turns, i, length, GAP);
        let person = Person { name: (*name).to_owned(), part, speech };
        write_said(&person, &plan.out)?;
        cast.push(person);
    }
    Ok(cast)
}

/// Whose turn it is to say what.
///
/// Everybody keeps to one grid of turns, as long as the longest phrase. In turn `n`, person `k` has item
/// `(k + n(n + 1)/2) mod p`. With a prime `p` no less than the number of people, no two people have the same item in
/// one turn, and nobody says what another says some turns later: between two turns, everybody else's step differs.
/// Items beyond the phrases are rests.
#[derive(Clone, Copy)]
struct Turns {
    /// p.
    items: usize,
}

impl Turns {
    fn of(people: usize) -> Self {
        let is_prime = |n: &usize| *n > 1 && !(2..*n).any(|d| n.is_multiple_of(d));
        Self { items: (people..).find(is_prime).unwrap_or(people) }
    }

    fn item(self, person: usize, turn: usize) -> usize {
        (person + turn * (turn + 1) / 2) % self.items
    }
}

/// What a person says, turn by turn; `gap` samples of silence divide two turns.
fn speech(phrases: &[Vec<i16>], turns: Turns, person: usize, length: usize, gap: usize) -> Vec<i16> {
    let longest = phrases.iter().map(Vec::len).max().unwrap_or(0);
    let mut speech = Vec::with_capacity(length);
    for turn in 1.. {
        if let Some(phrase) = phrases.get(turns.item(person, turn - 1)) {
            speech.extend_from_slice(phrase);
        }
        speech.resize(turn * (longest + gap), 0);
        if speech.len() >= length {
            break;
        }
    }
    speech.truncate(length);
    speech
}

/// When two people begin to say the same at the same time, in samples, if they ever do. Silence is not the same as
/// silence.
pub(super) fn same_from(one: &Person, other: &Person) -> Option<usize> {
    let frames = one.speech.chunks_exact(FRAME_SAMPLES).zip(other.speech.chunks_exact(FRAME_SAMPLES));
    let mut is_same = frames.map(|(a, b)| a == b && a.iter().any(|sample| *sample != 0));
    is_same.position(|same| same).map(|frame| frame * FRAME_SAMPLES)
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

/// Disjoint slices, one for each item.
fn slices_of(path: &Path, items: usize) -> Result<Vec<Vec<i16>>> {
    let samples = Recording::open(path, Repeat::Once)?.into_samples();
    let slice = samples.len() / items;
    if slice < SAMPLE_RATE as usize {
        bail!("{} is too short: give at least {items} seconds of speech for so many people", path.display());
    }
    Ok(samples.chunks_exact(slice).take(items).map(<[i16]>::to_vec).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Phrases of different lengths in which every sample is another.
    fn phrases(count: usize) -> Vec<Vec<i16>> {
        let mut samples = 1..;
        (0..count).map(|i| samples.by_ref().take(70 + 13 * (i % 5)).collect()).collect()
    }

    fn everybody(people: usize, phrases: &[Vec<i16>], length: usize) -> Vec<Vec<i16>> {
        (0..=people).map(|person| speech(phrases, Turns::of(people + 1), person, length, 20)).collect()
    }

    /// Whether both say some sample of a phrase within `window` samples of each other.
    fn say_the_same(one: &[i16], other: &[i16], window: usize) -> bool {
        let said = |speech: &[i16], at: usize| speech.get(at).copied().filter(|sample| *sample != 0);
        (0..one.len()).any(|at| {
            let near = at.saturating_sub(window)..=at + window;
            said(one, at).is_some_and(|sample| near.into_iter().any(|at| said(other, at) == Some(sample)))
        })
    }

    #[test]
    fn no_two_people_say_the_same_at_the_same_time() {
        for people in 3..=12 {
            // The clips, and the slices of a file.
            for phrases in [phrases(CLIPS.len()), phrases(Turns::of(people + 1).items)] {
                let everybody = everybody(people, &phrases, 6_000);
                for (i, one) in everybody.iter().enumerate() {
                    for (j, other) in everybody.iter().enumerate().skip(i + 1) {
                        assert!(!say_the_same(one, other, 10), "{i} and {j} of {people}");
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_repeats_anybody_later_and_everybody_says_something() {
        for people in 3..=12 {
            let turns = Turns::of(people + 1);
            let said = |person: usize| (0..60).map(move |turn| turns.item(person, turn));
            for one in 0..=people {
                assert!(said(one).take(turns.items).any(|item| item < CLIPS.len()));
                for other in (0..=people).filter(|other| *other != one) {
                    for lag in 0..40 {
                        let same = said(one).skip(lag).zip(said(other)).take(20).filter(|(a, b)| a == b).count();
                        assert!(same <= 8, "{one} repeats {other} of {people} after {lag} turns");
                    }
                }
            }
        }
    }

    #[test]
    fn speech_has_the_length_that_was_asked_for() {
        for length in [0, 1, 95, 96, 4_000] {
            let speech = speech(&phrases(8), Turns::of(4), 2, length, 20);
            assert_eq!(speech.len(), length);
        }
    }

    #[test]
    fn two_who_say_the_same_at_the_same_time_are_found() {
        let person = |speech: Vec<i16>| Person { name: String::new(), part: Part::Guest, speech };
        let silence = vec![0; 2 * FRAME_SAMPLES];
        let one = person([silence.clone(), vec![7; FRAME_SAMPLES]].concat());
        let other = person([silence.clone(), vec![8; FRAME_SAMPLES]].concat());
        assert_eq!(same_from(&one, &other), None);
        assert_eq!(same_from(&one, &one), Some(2 * FRAME_SAMPLES));
    }
}
