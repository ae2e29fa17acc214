//! The program itself, against the relay that it brings along.

use std::process::{Command, Output};

use serde_json::Value;

fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conclave-load")).args(args).output().expect("the program starts")
}

#[test]
fn a_small_meeting_is_carried_without_loss_and_told_in_json() {
    let out = load(&[
        "run",
        "--relay",
        "embedded",
        "--rooms",
        "1",
        "--people",
        "3",
        "--talkers",
        "1",
        "--seconds",
        "2",
        "--warmup",
        "0.2",
        "--json",
    ]);
    let told = String::from_utf8_lossy(&out.stderr);
    // Exit status 1 is a machine that was too busy for a measurement, which says nothing of the relay.
    assert!(matches!(out.status.code(), Some(0 | 1)), "{told}");
    let result: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(result["valid"].as_bool(), Some(out.status.success()));
    assert_eq!(result["loss"], 0.0, "{result}");
    let received = result["frames"]["received"].as_u64().unwrap();
    assert_eq!(result["frames"]["owed"].as_u64(), Some(received));
    assert!((190..=200).contains(&received), "100 frames to two listeners, but for a late tick: {received}");
    for figure in ["/latency_ms/p999", "/join_ms/p99", "/relay/cpu_s", "/relay/packets_per_frame", "/relay/rss_bytes"] {
        assert!(
            result.pointer(figure).and_then(Value::as_f64).is_some_and(|value| value > 0.0),
            "{figure} in {result}"
        );
    }
    assert_eq!(result["joins"]["done"], 2);
    assert_eq!(result["series"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_status_2_and_says_why() {
    for (args, why) in [
        (&["run", "--relay", "embedded", "--people", "3", "--talkers", "4"][..], "--talkers"),
        (&["run", "--relay", "127.0.0.1:4433", "--kill-relay-at", "1"], "embedded"),
        (&["compare", "/nonexistent/a.json", "/nonexistent/b.json"], "cannot read"),
    ] {
        let out = load(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(why), "{args:?}");
    }
}
