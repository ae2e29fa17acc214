//! `conclave demo`: everybody is heard by everybody else, and nobody by those who are not or no longer in.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use conclave_tests::process::{JsonlClient, binary};
use conclave_tests::wav::{self, Sound};
use serde_json::Value;

use crate::stage::Stage;

/// Seconds of the call, of which the removed hears the first half.
const CALL: f64 = 6.0;

#[test]
fn demo_has_everybody_heard_by_all_the_others_and_shuts_out_the_denied_and_the_removed() {
    let stage = Stage::alone();
    let (out, json) = (stage.path("out"), stage.path("demo.json"));
    let mut command = Command::new(binary("conclave").unwrap());
    command.args(["demo", "--people", "4", "--seconds", "6", "--out"]).arg(&out).arg("--json").arg(&json);
    let mut demo = JsonlClient::start_command("demo", command).unwrap();
    assert_eq!(demo.wait_exit(Duration::from_secs(60)).unwrap(), 0, "{}\n{}", demo.faults().join("\n"), demo.stderr());

    let verdict: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    check_verdict(&verdict);
    let staying: Vec<_> = ["host", "guest"].iter().flat_map(|part| people(&verdict, part)).collect();
    let removed = &people(&verdict, "removed")[0];
    for listener in &staying {
        let others: Vec<&Person> =
            staying.iter().chain([removed]).filter(|talker| talker.name != listener.name).collect();
        check_listener(&out, listener, &others);
    }
    check_outsiders(&out, &staying[0], removed, &people(&verdict, "denied")[0]);
}

/// How loud each talker is in what a listener heard while all were in, 1.0 for as loud as said.
///
/// All say the same phrases in different orders, so correlation with one talker finds another's voice as well. What
/// the listener heard is therefore explained by the others together, and the listener's own voice is looked for in
/// what they leave unexplained.
fn check_listener(out: &Path, listener: &Person, others: &[&Person]) {
    let heard = wav::read(&out.join(&listener.heard)).unwrap().between(HEARD.0, HEARD.1);
    let said = |person: &Person| wav::read(&out.join(&person.said)).unwrap();
    let voices: Vec<Vec<f32>> = others.iter().map(|talker| in_time_with(&heard, &said(talker))).collect();
    let mut gains = vec![0.0; voices.len()];
    let mut rest = heard.clone();
    // Each pass leaves a fraction of the error of the one before: the voices are nearly independent.
    for _ in 0..PASSES {
        for (voice, gain) in voices.iter().zip(&mut gains) {
            let more = gain_of(voice, &rest.samples);
            *gain += more;
            rest.samples.iter_mut().zip(voice).for_each(|(rest, voice)| *rest -= more as f32 * voice);
        }
    }
    let own = gain_of(&in_time_with(&rest, &said(listener)), &rest.samples);
    eprintln!("{} hears {gains:.2?}, and itself {own:.2}", listener.name);
    assert!(gains.iter().all(|gain| (0.6..1.4).contains(gain)), "{} hears the others with {gains:?}", listener.name);
    assert!(own.abs() < 0.3, "{} hears itself with {own}", listener.name);
}

/// What a talker said at the time of what was heard.
fn in_time_with(heard: &Sound, said: &Sound) -> Vec<f32> {
    // Everybody's recordings began at nearly the same time, so the same phrase of another talker is out of reach.
    let lag = wav::align(heard, &said.between(HEARD.0, HEARD.1 + LEAD), LEAD).unwrap().lag;
    let start = wav::samples_in(said.rate, HEARD.0);
    let sample = |at: usize| said.samples.get((start + at).checked_add_signed(lag)?).copied();
    (0..heard.samples.len()).map(|at| sample(at).unwrap_or(0.0)).collect()
}

/// The factor by which a voice explains most of a sound.
fn gain_of(voice: &[f32], sound: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    product(voice, sound) / product(voice, voice)
}

/// Seconds of the recordings in which all were in: after the admissions, before the removal.
const HEARD: (f64, f64) = (1.0, 3.2);
/// By how much recordings may have begun at different times, in seconds.
const LEAD: f64 = 0.6;
/// More change nothing.
const PASSES: usize = 10;

fn check_outsiders(out: &Path, stayed: &Person, removed: &Person, denied: &Person) {
    let last = |person: &Person| last_sound(&wav::read(&out.join(&person.heard)).unwrap());
    let (stayed, removed) = (last(stayed).unwrap(), last(removed).unwrap());
    // Both began to record within a moment of each other; the removal is half-way through the call.
    assert!(removed > 1.0 && removed < stayed - CALL / 2.0 + 0.5, "removed hears until {removed} s of {stayed} s");
    assert_eq!(last(denied), None, "the denied heard something");
}

/// When something was last heard, in seconds from the start of the file.
fn last_sound(sound: &Sound) -> Option<f64> {
    let last = wav::rms_20ms(sound).iter().rposition(|rms| *rms > 1e-4)?;
    Some((last + 1) as f64 * 0.02)
}

fn check_verdict(verdict: &Value) {
    assert_eq!(verdict["ok"], true, "{verdict:#}");
    assert_eq!(verdict["faults"].as_array().map(Vec::len), Some(0));
    // Three who stay hear three others each; the removed heard three until it was removed.
    let pairs = verdict["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 12, "{pairs:#?}");
    for field in ["sent", "received", "played", "late", "lost", "concealed", "delay_ms"] {
        assert!(pairs.iter().all(|pair| pair[field].is_number()), "{field}: {pairs:#?}");
    }
    for outsider in ["removed", "denied"] {
        let tried = verdict[outsider]["tried"].as_u64().unwrap();
        assert!(tried > 100, "{outsider} was tried with {tried} frames only");
        assert_eq!(verdict[outsider]["opened"], 0);
    }
    assert!(verdict["removed"]["opened_before"].as_u64().unwrap() > 100);
    assert_eq!(verdict["denied"]["opened_before"], 0);
    assert_eq!(verdict["relay"]["media_sizes"].as_object().unwrap().len(), 1);
    assert_eq!(verdict["relay"]["names_found"].as_array().unwrap().len(), 0);
}

struct Person {
    name: String,
    said: String,
    heard: String,
}

fn people(verdict: &Value, part: &str) -> Vec<Person> {
    let people = verdict["people"].as_array().unwrap().iter().filter(|person| person["part"] == part);
    let text = |person: &Value, field: &str| person[field].as_str().unwrap().to_owned();
    people.map(|p| Person { name: text(p, "name"), said: text(p, "said"), heard: text(p, "heard") }).collect()
}
