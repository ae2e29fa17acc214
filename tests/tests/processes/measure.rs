//! `conclave-measure`: what it leaves behind.

use std::fs;
use std::process::Command;
use std::time::Instant;

use conclave_tests::process::{binary, signal};

use crate::stage::{LIMIT, Stage, observe};

/// The command lines of programs that have to do with a folder.
fn running_in(folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.map(|line| line.replace('\0', " ")).filter(|line| line.contains(folder)).collect()
}

#[test]
fn a_measurement_that_is_ended_by_a_signal_leaves_no_program_and_no_file() {
    let stage = Stage::alone();
    let rooms = stage.path("rooms");
    fs::create_dir(&rooms).unwrap();
    let result = stage.path("result.json");
    let mut command = Command::new(binary("conclave-measure").unwrap());
    command.args(["--seconds", "60", "--json"]).arg(&result).env("TMPDIR", &rooms);
    let mut measuring = command.spawn().unwrap();
    let folder = rooms.to_str().unwrap();
    let begin = Instant::now();
    while running_in(folder).is_empty() {
        assert!(begin.elapsed() < LIMIT, "no sound server was started");
        observe(std::time::Duration::from_millis(50));
    }
    assert!(result.exists());
    signal(measuring.id(), "TERM").unwrap();
    assert_eq!(measuring.wait().unwrap().code(), Some(1));
    assert_eq!(running_in(folder), Vec::<String>::new());
    assert_eq!(fs::read_dir(&rooms).unwrap().count(), 0);
    assert!(!result.exists());
}
