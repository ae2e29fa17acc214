//! The command line: help that teaches, statuses, identities, and commands that are refused.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::time::Duration;

use conclave_tests::process::{JsonlClient, binary};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, join, knock_of};

fn conclave(args: &[&str]) -> Output {
    Command::new(binary("conclave").unwrap()).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_teaches_every_verb() {
    let _stage = Stage::shared();
    let verbs: [(&[&str], &[&str]); 4] = [
        (&["--help"], &["host", "join", "demo", "End-to-end encrypted"]),
        (&["host", "--help"], &["--relay", "--pin", "--passcode", "--admit", "--input", "admit NAME", "conclave host"]),
        (&["join", "--help"], &["LINK", "--name", "--home", "--jsonl", "Exit status", "conclave join"]),
        (&["demo", "--help"], &["--people", "--seconds", "--out", "--json"]),
    ];
    for (args, words) in verbs {
        let output = conclave(args);
        assert!(output.status.success(), "{args:?}");
        let text = stdout(&output);
        for word in words {
            assert!(text.contains(word), "{args:?} does not say {word:?}:\n{text}");
        }
    }
    let relay = Command::new(binary("conclave-relay").unwrap()).args(["serve", "--help"]).output().unwrap();
    assert!(relay.status.success() && stdout(&relay).contains("--self-signed"));
}

#[test]
fn arguments_that_make_no_sense_end_with_status_two_and_say_why() {
    let _stage = Stage::shared();
    let wrong: [&[&str]; 7] = [
        &["fly"],
        &["host"],
        &["join", "--name", "Bela"],
        &["host", "--name", "Ada", "--seconds", "soon"],
        &["host", "--name", "\u{202e}", "--jsonl"],
        &["host", "--name", "Ada", "--relay", "127.0.0.1:1", "--pin", "short", "--jsonl"],
        &["demo", "--people", "99"],
    ];
    for args in wrong {
        let output = conclave(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = stdout(&output) + &String::from_utf8(output.stderr).unwrap();
        assert!(said.len() > 30, "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn pins_and_passcodes_may_begin_with_a_hyphen() {
    let _stage = Stage::shared();
    let pin = format!("-{}", "A".repeat(42));
    let nobody = "127.0.0.1:1";
    let output = conclave(&["host", "--name", "Ada", "--relay", nobody, "--pin", &pin, "--passcode", "-x", "--jsonl"]);
    // It got as far as the relay, which is not there.
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn kept_identity_is_private_to_its_owner_and_known_by_the_same_safety_number_again() {
    let stage = Stage::shared();
    let meeting = Meeting::open(&[]);
    let home = stage.argument("home");
    let knock = |name: &str, args: &[&str]| {
        let mut guest = join(name, &meeting.link, args);
        let knock = knock_of(&meeting.host, name);
        guest.act("leave").unwrap();
        assert_eq!(guest.wait_exit(LIMIT).unwrap(), 0);
        (knock["standing"].clone(), knock["safety_number"].clone())
    };
    let (standing, number) = knock("First", &["--home", &home]);
    let (_, again) = knock("Second", &["--home", &home]);
    let (passing, other) = knock("Third", &[]);
    assert_eq!((standing, passing), (json!("new"), json!("guest")));
    assert_eq!(number, again);
    assert_ne!(number, other);
    let digits = number.as_str().unwrap();
    assert_eq!(digits.split(' ').map(str::len).collect::<Vec<_>>(), [5; 12], "{digits}");
    for entry in std::fs::read_dir(stage.path("home")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    end(meeting.host, vec![]);
}

#[test]
fn denied_guest_may_knock_again_once_and_is_then_blocked() {
    let stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let home = stage.argument("home");
    for (name, reason) in [("First", "denied"), ("Second", "blocked")] {
        let mut guest = join(name, &meeting.link, &["--home", &home]);
        knock_of(&meeting.host, name);
        meeting.host.send(&json!({ "do": "deny", "who": name })).unwrap();
        assert_eq!(guest.wait_event("denied", |_| true, LIMIT).unwrap()["reason"], reason);
        assert_eq!(guest.wait_exit(LIMIT).unwrap(), 3);
    }
    let mut third = join("Third", &meeting.link, &["--home", &home]);
    assert_eq!(third.wait_event("denied", |_| true, LIMIT).unwrap()["reason"], "blocked");
    assert_eq!(third.wait_exit(LIMIT).unwrap(), 3);
    assert_eq!(meeting.host.events_named("knock").len(), 2, "the blocked was heard again");
    // Others are not concerned.
    let guest = meeting.guest("Bela", &[]);
    end(meeting.host, vec![guest]);
}

#[test]
fn name_of_two_guests_is_refused_with_the_advice_to_use_the_number() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let guests: Vec<JsonlClient> = (0..2).map(|_| join("Bela", &meeting.link, &[])).collect();
    meeting.host.wait_event("knock", |knock| knock["id"] == 2, LIMIT).unwrap();
    let message = refusal(&mut meeting.host, &json!({ "do": "admit", "who": "Bela" }));
    assert!(message.contains("number"), "{message}");
    assert!(guests.iter().all(|guest| guest.events_named("admitted").is_empty()));
    for id in [1, 2] {
        meeting.host.send(&json!({ "do": "admit", "who": id })).unwrap();
    }
    for guest in &guests {
        guest.wait_event("admitted", |_| true, LIMIT).unwrap();
    }
    let message = refusal(&mut meeting.host, &json!({ "do": "remove", "who": "Bela" }));
    assert!(message.contains("number"), "{message}");
    end(meeting.host, guests);
}

#[test]
fn commands_that_cannot_be_carried_out_are_refused_and_change_nothing() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&[]);
    let mut guest = meeting.guest("Bela", &[]);
    for command in [
        json!({ "do": "admit", "who": 77 }),
        json!({ "do": "admit", "who": "Nobody" }),
        json!({ "do": "deny", "who": "Bela" }),
        json!({ "do": "remove", "who": 0 }),
        json!({ "do": "remove", "who": "Hestia" }),
        json!({ "do": "remove", "who": 9 }),
        json!({ "do": "remove" }),
        json!({ "do": "mute", "who": 1 }),
        json!({ "do": "fly" }),
        json!({ "who": 1 }),
    ] {
        refusal(&mut meeting.host, &command);
    }
    for command in ["end", "admit_all"] {
        refusal(&mut guest, &json!({ "do": command }));
    }
    refusal(&mut guest, &json!({ "do": "remove", "who": 0 }));
    let mut waiting = join("Cleo", &meeting.link, &[]);
    waiting.wait_event("waiting", |_| true, LIMIT).unwrap();
    refusal(&mut waiting, &json!({ "do": "mute" }));

    assert_eq!(meeting.host.events_named("left").len() + guest.events_named("left").len(), 0);
    meeting.admit("Cleo", &waiting);
    end(meeting.host, vec![guest, waiting]);
}

#[test]
fn muting_is_seen_by_everybody_and_in_the_roster() {
    let _stage = Stage::shared();
    let mut meeting = Meeting::open(&["--input", "tone"]);
    let mut guest = meeting.guest("Bela", &["--input", "tone"]);
    let seen = |client: &JsonlClient, on: bool| {
        let mark = client.mark();
        move |client: &JsonlClient| {
            client.wait_event_after(mark, "muted", |muted| muted["index"] == 1 && muted["on"] == on, LIMIT).unwrap()
        }
    };
    for (command, on) in [("mute", true), ("unmute", false), ("mute", true)] {
        let (at_host, at_guest) = (seen(&meeting.host, on), seen(&guest, on));
        guest.act(command).unwrap();
        at_host(&meeting.host);
        at_guest(&guest);
    }
    let newcomer = meeting.guest("Cleo", &[]);
    let roster = meeting.host.wait_event("roster", |roster| roster["members"][2].is_object(), LIMIT).unwrap();
    let muted: Vec<&Value> = roster["members"].as_array().unwrap().iter().map(|member| &member["muted"]).collect();
    assert_eq!(muted[..2], [&json!(false), &json!(true)], "{roster}");
    end(meeting.host, vec![guest, newcomer]);
}

/// Sends a command and waits for its refusal.
fn refusal(client: &mut JsonlClient, command: &Value) -> String {
    let mark = client.mark();
    client.send(command).unwrap();
    let error = client
        .wait_event_after(mark, "error", |_| true, Duration::from_secs(10))
        .unwrap_or_else(|error| panic!("{command} was not refused: {error:#}"));
    error["message"].as_str().unwrap().to_owned()
}
