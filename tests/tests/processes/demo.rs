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
    let stage = Stage::enter();
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
        for talker in staying.iter().chain([removed]) {
            check_pair(&out, listener, talker);
        }
    }
    check_outsiders(&out, &staying[0], removed, &people(&verdict, "denied")[0]);
}

/// The talkers are told apart by correlation: of three who talk at once, each has about 0.58 of the mix.
fn check_pair(out: &Path, listener: &Person, talker: &Person) {
    let heard = wav::read(&out.join(&listener.heard)).unwrap();
    let said = wav::read(&out.join(&talker.said)).unwrap();
    let presence = presence(&said, &heard);
    eprintln!("{} hears {}: {presence:.3}", listener.name, talker.name);
    if listener.name == talker.name {
        assert!(presence < 0.2, "{} hears itself: {presence}", listener.name);
    } else {
        assert!(presence > 0.35, "{} does not hear {}: {presence}", listener.name, talker.name);
    }
}

/// While all are in: from the second second on, by when everybody was let in, to the removal.
fn presence(said: &Sound, heard: &Sound) -> f64 {
    wav::presence(&said.between(1.0, 3.0), &heard.between(0.5, 4.0), 1.5).unwrap()
}

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
