//! The program as a process: each server that is on this machine for a second, and Conclave's side with a stand-in.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs a short comparison of a small room, with all on one core, since another may not be there.
fn run(directory: &Path, arguments: &[&str]) -> (Output, Value) {
    let json = directory.join("peers.json");
    let output = Command::new(env!("CARGO_BIN_EXE_conclave-peers"))
        .args(["run", "--people", "3", "--talkers", "1", "--seconds", "1", "--rounds", "1"])
        .args(["--server-core", "0", "--client-core", "0", "--json"])
        .arg(&json)
        .args(arguments)
        .output()
        .unwrap();
    let report = fs::read(&json).ok().map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
    (output, report)
}

#[test]
fn every_server_that_is_here_forwards_all_frames_to_all_others() {
    let directory = tempfile::tempdir().unwrap();
    let (output, report) = run(directory.path(), &["--only", "quinn,coturn,mumble,bare"]);
    assert_eq!(report["failures"], Value::Array(Vec::new()), "{output:?}");
    let named = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|entry| entry["peer"].as_str().unwrap().to_owned()).collect()
    };
    let turns = named(&report["turns"]);
    assert!(turns.contains(&"quinn".to_owned()));
    assert_eq!(turns.len() + named(&report["missing"]).len(), 4);
    for turn in report["turns"].as_array().unwrap() {
        assert_eq!(turn["loss"], 0.0, "{turn}");
        assert!(turn["frames_forwarded"].as_u64().unwrap() > 0, "{turn}");
        assert!(turn["cpu_s"].as_f64().unwrap() > 0.0, "{turn}");
    }
}

/// A script in place of conclave-load. Its child is in place of the relay.
fn stand_in(directory: &Path, ending: &str) -> PathBuf {
    let path = directory.join("conclave-load");
    let script = format!("#!/bin/sh\nwhile [ \"$1\" != --json ]; do shift; done\nsleep 1 & wait\n{ending}\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn conclaves_figures_are_those_of_conclave_load() {
    let directory = tempfile::tempdir().unwrap();
    let result = r#"{"valid":true,"invalid_because":[],"loss":0.0,"latency_ms":{"p50":1.0,"p99":2.0},"relay":{"cpu_s":0.5,"frames_forwarded":1000}}"#;
    let program = stand_in(directory.path(), &format!("echo '{result}' > \"$2\""));
    let (output, report) = run(directory.path(), &["--only", "conclave", "--conclave-load", program.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["summary"][0]["frames_per_cpu_s"]["median"], 2000.0);
    assert_eq!(report["summary"][0]["p99_ms"], 2.0);
}

#[test]
fn a_conclave_load_that_fails_is_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let program = stand_in(directory.path(), "echo no meeting today >&2; exit 2");
    let (output, report) = run(directory.path(), &["--only", "conclave", "--conclave-load", program.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["failures"][0].as_str().unwrap().contains("no meeting today"), "{report}");
}

#[test]
fn without_any_server_it_says_how_to_get_them() {
    let directory = tempfile::tempdir().unwrap();
    let (output, _) = run(directory.path(), &["--only", "conclave", "--conclave-load", "/nowhere/conclave-load"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cargo build --release -p conclave-load"));
}
