//! Push-to-talk, recording, and the test of one's own microphone.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use conclave_tests::process::{JsonlClient, binary};
use conclave_tests::wav;
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, end, hears_more};

/// Presses the key of a client, or releases it, and waits until that counts.
pub fn press(talker: &mut JsonlClient, on: bool) {
    let mark = talker.mark();
    talker.send(&json!({ "do": "push_to_talk", "on": on })).unwrap();
    talker.wait_event_after(mark, "push_to_talk", |event| event["open"] == on, LIMIT).unwrap();
}

#[test]
fn the_key_of_push_to_talk_decides_what_is_heard_and_mutes_nobody() {
    let stage = Stage::shared();
    let heard = stage.argument("heard.wav");
    let mut meeting = Meeting::open(&["--output", &heard]);
    let mut talker = meeting.guest("Bela", &["--input", "tone", "--push-to-talk", "--hold-ms", "100"]);
    hears_more(&meeting.host, "Bela", 100, LIMIT);
    press(&mut talker, true);
    hears_more(&meeting.host, "Bela", 100, LIMIT);
    press(&mut talker, false);
    hears_more(&meeting.host, "Bela", 100, LIMIT);

    // Who holds no key down is not muted.
    let muted =
        meeting.host.events_named("muted").into_iter().filter(|event| event["index"] == 1 && event["on"] == true);
    assert_eq!(muted.collect::<Vec<_>>(), Vec::<Value>::new());
    end(meeting.host, vec![talker]);

    let loud = wav::rms_20ms(&wav::read(std::path::Path::new(&heard)).unwrap());
    let first = loud.iter().position(|rms| *rms > 0.03).expect("the tone is heard");
    let last = loud.iter().rposition(|rms| *rms > 0.03).unwrap();
    assert!(first > 50, "it is heard before the key was pressed");
    let heard = loud[first..=last].iter().filter(|rms| **rms > 0.03).count();
    assert!(heard > 75, "{heard} frames of the tone were heard");
    assert!(loud.len() - last > 50, "it is heard after the key was released");
}

#[test]
fn a_key_is_refused_where_there_is_none() {
    let _stage = Stage::shared();
    let meeting = Meeting::open(&[]);
    let mut host = meeting.host;
    let mark = host.mark();
    host.send(&json!({ "do": "push_to_talk", "on": true })).unwrap();
    let error = host.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
    assert!(error["message"].as_str().unwrap().contains("--push-to-talk"), "{error}");
    host.act("end").unwrap();
    assert_eq!(host.wait_exit(LIMIT).unwrap(), 0);
}

/// Whether a roster says who records.
fn shows_recording(index: u16) -> impl Fn(&Value) -> bool {
    move |roster| {
        let members = roster["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        members.iter().any(|member| member["index"] == index && member["recording"] == true)
    }
}

#[test]
fn a_recording_is_told_to_everybody_and_to_whoever_comes_later_before_it_begins() {
    let stage = Stage::shared();
    let file = stage.path("meeting.opus");
    let mut meeting = Meeting::open(&[]);
    let recorder = meeting.guest("Bela", &["--input", "tone", "--record", file.to_str().unwrap()]);
    let told = |client: &JsonlClient| {
        client.wait_event("recording", |event| event["index"] == 1 && event["on"] == true, LIMIT).unwrap();
        client.wait_event("roster", shows_recording(1), LIMIT).unwrap();
    };
    told(&meeting.host);
    told(&recorder);
    let late = meeting.guest("Cleo", &[]);
    told(&late);
    // Each is told once.
    assert_eq!(meeting.host.events_named("recording").len(), 1);
    hears_more(&recorder, "Cleo", 100, LIMIT);
    end(meeting.host, vec![recorder, late]);
    let (seconds, is_ended) = ogg(&std::fs::read(&file).unwrap());
    assert!(is_ended && seconds >= 2.0, "{seconds} s, ended: {is_ended}");
}

/// The length of an Ogg Opus file by its last page (RFC 3533 §6), and whether that says that it is the last.
fn ogg(bytes: &[u8]) -> (f64, bool) {
    let pages: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"OggS")).collect();
    assert_eq!(pages[0], 0);
    assert!(bytes[..100].windows(8).any(|part| part == b"OpusHead"));
    let last = &bytes[pages[pages.len() - 1]..];
    let position = u64::from_le_bytes(last[6..14].try_into().unwrap());
    (position as f64 / 48_000.0, last[5] & 4 != 0)
}

#[test]
fn a_recording_writes_over_nothing() {
    let stage = Stage::shared();
    let file = stage.path("meeting.opus");
    std::fs::write(&file, "dear").unwrap();
    let mut host = JsonlClient::start("host", ["host", "--name", "Ada", "--record", file.to_str().unwrap()]).unwrap();
    assert_eq!(host.wait_exit(LIMIT).unwrap(), 1);
    let error = host.wait_event("error", |_| true, LIMIT).unwrap();
    assert!(error["message"].as_str().unwrap().starts_with("--record: cannot create"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"dear");
}

/// A client that may write files of so many KiB only: as on a full disk.
fn start_limited(name: &str, kib: u32, args: &[&str]) -> JsonlClient {
    let mut command = Command::new("bash");
    // The signal that would end the program is ignored, so that writing fails.
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
    command.args(["-c", &script, "bash"]).arg(binary("conclave").unwrap());
    command.args(args).args(["--name", name, "--jsonl"]);
    JsonlClient::start_command(name, command).unwrap()
}

#[test]
fn files_that_cannot_be_written_any_more_are_told_at_once_and_the_meeting_goes_on() {
    let stage = Stage::shared();
    let (recorded, heard) = (stage.path("meeting.opus"), stage.argument("heard.wav"));
    let mut meeting = Meeting::open(&["--input", "tone"]);
    let link = meeting.link.clone();
    let args = ["join", &link, "--record", recorded.to_str().unwrap(), "--output", &heard];
    let mut guest = start_limited("Bela", 8, &args);
    meeting.admit("Bela", &guest);
    let of_file = |file: &'static str| {
        move |error: &Value| {
            error["message"].as_str().is_some_and(|text| text.contains("cannot go on") && text.contains(file))
        }
    };
    guest.wait_event("error", of_file("heard.wav"), LIMIT).unwrap();
    guest.wait_event("error", of_file("meeting.opus"), LIMIT).unwrap();
    let is_over = |event: &Value| event["index"] == 1 && event["on"] == false;
    meeting.host.wait_event("recording", is_over, LIMIT).unwrap();
    hears_more(&guest, "Hestia", 25, LIMIT);
    meeting.host.act("end").unwrap();
    assert_eq!(guest.wait_exit(LIMIT).unwrap(), 1);
    assert_eq!(meeting.host.wait_exit(LIMIT).unwrap(), 0);
    // What was written before can be heard.
    assert!(ogg(&std::fs::read(&recorded).unwrap()).0 >= 0.5);
    assert!(wav::read(std::path::Path::new(&heard)).unwrap().seconds() < 0.2);
}

/// What `mic-test` prints, and its status.
fn mic_test(args: &[&str]) -> (Vec<Value>, i32, String) {
    let output = Command::new(binary("conclave").unwrap()).args(["mic-test", "--json"]).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_test_of_a_microphone_shows_level_and_delay_and_gives_back_what_is_said() {
    let stage = Stage::shared();
    let heard = stage.argument("heard.wav");
    let (lines, status, stderr) = mic_test(&["--input", "tone", "--output", &heard, "--seconds", "2"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["peak"], &last["gaps"]), (&json!(23), &json!(20), &json!(0)));
    let delay = last["delay_ms"].as_f64().unwrap();
    assert!((26.5..250.0).contains(&delay), "{delay}");
    let loud = wav::rms_20ms(&wav::read(std::path::Path::new(&heard)).unwrap());
    assert!(loud.iter().filter(|rms| **rms > 0.05).count() > 50, "the tone did not come back");
}

#[test]
fn the_test_of_a_microphone_that_gives_nothing_says_so() {
    let (_, status, stderr) = mic_test(&["--input", "silence", "--output", "null", "--seconds", "1"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("nothing but silence"), "{stderr}");
}

#[test]
fn the_test_of_a_microphone_ends_when_nobody_reads_it_any_more() {
    let _stage = Stage::shared();
    let mut command = Command::new(binary("conclave").unwrap());
    command.args(["mic-test", "--json", "--input", "tone", "--output", "null", "--seconds", "60"]);
    let mut test = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(test.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("level"), "{first}");
    let begin = Instant::now();
    assert!(test.wait().unwrap().success());
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}
