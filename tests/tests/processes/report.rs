//! Reports from end to end: somebody in a meeting hands over what somebody said, and a moderator can prove it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use conclave_tests::process::{JsonlClient, Mark, RelayProcess, binary};
use conclave_tests::speech;
use conclave_tests::wav::{self, Sound};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Stage, admit, end_all, hears_more, host_at, join, link_of, observe, text};

/// Speech of each talker, in seconds.
const TURN: f64 = 5.0;
/// Seals come within a second and a half (DESIGN §7); on a loaded machine a little later.
const SEALED: Duration = Duration::from_secs(2);

/// A relay's operator and a host's organisation, each with a moderator, and what the relay keeps.
struct Desk<'a> {
    stage: &'a Stage,
}

impl<'a> Desk<'a> {
    fn new(stage: &'a Stage) -> Self {
        for (dir, name) in [("ours", "Trust and Safety"), ("operator", "Operator")] {
            let made = moderate(&["keygen", "--out", &stage.argument(dir), "--name", name, "--no-passphrase"]);
            assert!(made.status.success(), "{made:?}");
        }
        Self { stage }
    }

    fn public(&self, whose: &str) -> String {
        self.stage.argument(&format!("{whose}/moderator.pub"))
    }

    /// A relay of always the same identity and keys.
    fn relay(&self, listen: &str, more: &[&str]) -> RelayProcess {
        let (own, stamps) = (self.stage.argument("relay"), self.stage.argument("stamps"));
        let operator = self.public("operator");
        let common = ["--listen", listen, "--self-signed", &own, "--moderator", &operator, "--stamp-keys", &stamps];
        RelayProcess::start(&[&common[..], more].concat()).unwrap()
    }

    fn relay_with_sink(&self, listen: &str) -> RelayProcess {
        self.relay(listen, &["--reports", &format!("dir:{}", self.stage.argument("inbox"))])
    }

    /// What is in the relay's sink.
    fn inbox(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.stage.path("inbox")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "conclave-report")).collect()
    }

    fn delivered(&self, receipt: &str) -> PathBuf {
        self.stage.path(&format!("inbox/{receipt}.conclave-report"))
    }

    /// Opens a report: the exit status and the record.
    fn open(&self, whose: &str, report: &Path) -> (i32, Value) {
        let (key, stamps) = (self.stage.argument(&format!("{whose}/moderator.key")), self.stage.argument("stamps"));
        let out = self.stage.argument("out");
        let opened = moderate(&["open", "--key", &key, "--stamp-keys", &stamps, "--out", &out, &text(report)]);
        let record = serde_json::from_slice(&opened.stdout).unwrap_or_else(|_| panic!("{opened:?}"));
        (opened.status.code().unwrap(), record)
    }

    /// Opens a report that proves what was said, and gives the record.
    fn valid(&self, whose: &str, report: &Path, accused: &str) -> Value {
        let (status, record) = self.open(whose, report);
        assert_eq!((status, &record["verdict"]), (0, &json!("valid")), "{record}");
        assert_eq!(record["accused"]["name"], accused, "{record}");
        record
    }
}

fn moderate(args: &[&str]) -> Output {
    Command::new(binary("conclave-moderate").unwrap()).args(args).output().unwrap()
}

/// Silence, then speech.
fn said(before: f64, talker: usize) -> Sound {
    let mut said = Sound::silence(speech::RATE, before);
    said.samples.extend(speech::clip(talker, TURN).unwrap().samples);
    said
}

fn reported(client: &JsonlClient, mark: Mark, to: &str) -> String {
    let limit = Duration::from_secs(60);
    let reported = client.wait_event_after(mark, "reported", |reported| reported["to"] == to, limit).unwrap();
    reported["receipt"].as_str().unwrap().to_owned()
}

/// Sends a command and gives where the events stood before.
fn send(client: &mut JsonlClient, command: &Value) -> Mark {
    let mark = client.mark();
    client.send(command).unwrap();
    mark
}

fn pesq_of(record: &Value, talker: usize) -> f64 {
    let heard = wav::read(Path::new(record["wav"].as_str().unwrap())).unwrap();
    wav::pesq_wb(&speech::clip(talker, TURN).unwrap(), &heard, heard.seconds()).unwrap()
}

#[test]
fn reports_of_a_guest_and_of_the_host_prove_what_was_said_and_tell_nobody() {
    let stage = Stage::alone();
    let desk = Desk::new(&stage);
    let relay = desk.relay_with_sink("127.0.0.1:0");
    // The guest is in before the host speaks.
    let (host_says, guest_says) = (stage.sound("host.wav", &said(8.0, 0)), stage.sound("guest.wav", &said(2.0, 1)));
    let ours = desk.public("ours");
    let mut host = host_at(relay.addr(), relay.pin().unwrap(), &["--moderator", &ours, "--input", &host_says]);
    let mut guest = join("Bela", &link_of(&host), &["--input", &guest_says]);
    admit(&mut host, "Bela", &guest);
    for client in [&host, &guest] {
        let told = client.wait_event("moderators", |_| true, LIMIT).unwrap();
        assert_eq!(told["policy"][0]["name"], "Trust and Safety", "{told}");
        assert_eq!((&told["operator"]["name"], &told["takes_reports"]), (&json!("Operator"), &json!(true)), "{told}");
    }
    observe(Duration::from_secs_f64(8.0 + TURN) + SEALED);

    let heard = stage.argument("preview.wav");
    let mut preview = json!({ "do": "report_preview", "who": "Bela", "category": "threat", "out": heard });
    let mark = send(&mut host, &preview);
    let shown = host.wait_event_after(mark, "report_preview", |_| true, LIMIT).unwrap();
    assert_eq!(shown["moderators"], json!(["Trust and Safety", "Operator"]), "{shown}");
    assert!(shown["seconds"].as_f64().unwrap() > TURN && shown["seconds"].as_f64().unwrap() <= 20.0, "{shown}");
    assert_eq!(fs::metadata(&heard).unwrap().permissions().mode() & 0o777, 0o600);
    let mark = send(&mut host, &preview);
    host.wait_event_after(mark, "error", |_| true, LIMIT).unwrap();
    assert!(desk.inbox().is_empty(), "a preview sends nothing");

    let other = guest.mark();
    let mark = send(&mut host, &json!({ "do": "report", "who": "Bela", "category": "threat", "note": "he did" }));
    let receipts = ["Trust and Safety", "Operator"].map(|to| reported(&host, mark, to));
    assert!(guest.events_after(other).iter().all(|event| event["event"] == "stats"), "{:?}", guest.events_after(other));
    let mark = send(&mut guest, &json!({ "do": "report", "who": 0, "category": "hate", "with_my_name": true }));
    let of_host = reported(&guest, mark, "Operator");
    assert_eq!(desk.inbox().len(), 3, "a report of the host goes to the operator only");

    let record = desk.valid("ours", &desk.delivered(&receipts[0]), "Bela");
    assert_eq!((&record["category"], &record["note"]), (&json!("threat"), &json!("he did")), "{record}");
    assert_eq!(record["accused"]["safety_number"], shown["safety_number"]);
    assert_eq!(record["reporter"], Value::Null);
    let scores = [pesq_of(&record, 1), {
        let record = desk.valid("operator", &desk.delivered(&of_host), "Hestia");
        assert_eq!(record["reporter"]["name"], "Bela");
        pesq_of(&record, 0)
    }];
    eprintln!("PESQ-WB of what was reported: {scores:?}");
    assert!(scores.iter().all(|score| *score >= 3.9), "{scores:?}");
    desk.valid("operator", &desk.delivered(&receipts[1]), "Bela");

    let mut bytes = fs::read(desk.delivered(&of_host)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(stage.path("changed.conclave-report"), bytes).unwrap();
    let (status, record) = desk.open("operator", &stage.path("changed.conclave-report"));
    assert_eq!((status, &record["verdict"]), (1, &json!("unreadable")), "{record}");

    preview["category"] = json!("rudeness");
    preview["do"] = json!("report");
    preview.as_object_mut().unwrap().remove("out");
    let mark = send(&mut host, &preview);
    host.wait_event_after(mark, "report_failed", |failed| failed["saved"].is_null(), LIMIT).unwrap();
    end_all(host, vec![guest]);
}

#[test]
fn what_was_said_in_frames_of_ten_ms_is_proved_and_played_at_its_own_pace() {
    let stage = Stage::alone();
    let desk = Desk::new(&stage);
    let relay = desk.relay_with_sink("127.0.0.1:0");
    let says = stage.sound("guest.wav", &said(3.0, 1));
    let ours = desk.public("ours");
    let args = ["--moderator", &ours, "--frame-ms", "10"];
    let mut host = host_at(relay.addr(), relay.pin().unwrap(), &args);
    let mut guest = join("Bela", &link_of(&host), &["--input", &says]);
    admit(&mut host, "Bela", &guest);
    observe(Duration::from_secs_f64(3.0 + TURN) + SEALED);
    guest.act("mute").unwrap();
    host.wait_event("muted", |muted| muted["on"] == true && muted["index"] == 1, LIMIT).unwrap();

    let mark = send(&mut host, &json!({ "do": "report_preview", "who": "Bela", "category": "threat" }));
    let shown = host.wait_event_after(mark, "report_preview", |_| true, LIMIT).unwrap();
    let seconds = shown["seconds"].as_f64().unwrap();
    assert!((TURN..=20.0).contains(&seconds), "{shown}");
    let mark = send(&mut host, &json!({ "do": "report", "who": "Bela", "category": "threat" }));
    let receipt = reported(&host, mark, "Trust and Safety");
    let record = desk.valid("ours", &desk.delivered(&receipt), "Bela");
    let score = pesq_of(&record, 1);
    eprintln!("PESQ-WB of what was reported: {score:.2}, {seconds} s");
    assert!(score >= 3.9, "{score}");
    end_all(host, vec![guest]);
}

#[test]
fn without_a_sink_the_sealed_report_is_saved_and_who_is_banned_for_it_is_turned_down() {
    let stage = Stage::shared();
    let desk = Desk::new(&stage);
    let relay = desk.relay("127.0.0.1:0", &[]);
    let (addr, pin) = (relay.addr(), relay.pin().unwrap().to_owned());
    let (ours, home, host_home) = (desk.public("ours"), stage.argument("bela"), stage.argument("hestia"));
    let mut host = host_at(addr, &pin, &["--moderator", &ours, "--input", "tone", "--home", &host_home]);
    let bela = ["--input", "tone", "--home", home.as_str()];
    let mut guest = join("Bela", &link_of(&host), &bela);
    admit(&mut host, "Bela", &guest);
    hears_more(&host, "Bela", 100, LIMIT);
    observe(SEALED);

    let save = stage.argument("saved.conclave-report");
    let mark = send(&mut guest, &json!({ "do": "report", "who": "Hestia", "category": "spam", "save": save }));
    let failed = guest.wait_event_after(mark, "report_failed", |_| true, LIMIT).unwrap();
    assert_eq!((&failed["saved"], &failed["to"]), (&json!(save), &json!("Operator")), "{failed}");
    desk.valid("operator", Path::new(&save), "Hestia");

    let mark = send(&mut host, &json!({ "do": "report", "who": "Bela", "category": "spam" }));
    let failed = host.wait_event_after(mark, "report_failed", |failed| failed["to"] != "Operator", LIMIT).unwrap();
    let saved = PathBuf::from(failed["saved"].as_str().unwrap());
    assert!(saved.starts_with(stage.path("hestia/reports")), "{failed}");
    desk.valid("ours", &saved, "Bela");
    end_all(host, vec![guest]);

    let (key, stamps, bans) = (stage.argument("ours/moderator.key"), stage.argument("stamps"), stage.argument("bans"));
    let banned = moderate(&["ban", "--key", &key, "--stamp-keys", &stamps, "--out", &bans, &text(&saved)]);
    assert!(banned.status.success(), "{banned:?}");
    for (admit_by, moderator) in [("ask", "--moderator"), ("all", "--ban-issuer")] {
        let args = ["--admit", admit_by, moderator, &ours, "--bans", &bans];
        let mut host = host_at(addr, &pin, &args);
        let mut guest = join("Bela", &link_of(&host), &bela);
        let denied = guest.wait_event("denied", |_| true, LIMIT).unwrap();
        assert_eq!(denied["reason"], "blocked");
        assert_eq!(guest.wait_exit(LIMIT).unwrap(), 3);
        let told = host.wait_event("banned", |told| told["name"] == "Bela", LIMIT).unwrap();
        assert_eq!((&told["by"], &told["until"]), (&json!("Trust and Safety"), &Value::Null), "{told}");
        assert!(host.events_named("knock").is_empty() && host.events_named("joined").is_empty());
        host.act("end").unwrap();
        assert_eq!(host.wait_exit(LIMIT).unwrap(), 0);
    }
}

#[test]
fn a_full_sink_is_told_at_once_while_it_is_tried_again_and_at_the_end() {
    let stage = Stage::shared();
    let desk = Desk::new(&stage);
    let inbox = format!("dir:{}", stage.argument("inbox"));
    let relay = desk.relay("127.0.0.1:0", &["--reports", &inbox, "--reports-max-bytes", "1"]);
    let mut host = host_at(relay.addr(), relay.pin().unwrap(), &["--input", "tone"]);
    let mut guest = join("Bela", &link_of(&host), &["--input", "tone"]);
    admit(&mut host, "Bela", &guest);
    hears_more(&guest, "Hestia", 100, LIMIT);
    observe(SEALED);
    let save = stage.argument("saved.conclave-report");
    let report = json!({ "do": "report", "who": "Hestia", "category": "other", "seconds": 1, "save": save });
    let mark = send(&mut guest, &report);
    let saved = |guest: &JsonlClient, retrying: bool| {
        let failed = guest.wait_event_after(mark, "report_failed", |it| it["retrying"] == retrying, LIMIT).unwrap();
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.starts_with("the relay's sink is full or has failed"), "{failed}");
        failed["saved"].clone()
    };
    assert_eq!(saved(&guest, true), Value::Null);
    assert!(!Path::new(&save).exists());
    // The first ends the meeting for this client, the second the wait for the report.
    guest.act("leave").unwrap();
    guest.wait_event("ended", |_| true, LIMIT).unwrap();
    guest.act("leave").unwrap();
    assert_eq!(saved(&guest, false), json!(save));
    assert_eq!(guest.wait_exit(LIMIT).unwrap(), 0);
    desk.valid("operator", Path::new(&save), "Hestia");
    assert!(desk.inbox().is_empty());
    end_all(host, Vec::new());
}

#[test]
fn a_relay_that_dies_while_a_report_is_on_its_way_has_it_once_when_it_is_back() {
    let stage = Stage::shared();
    let desk = Desk::new(&stage);
    let mut relay = desk.relay_with_sink("127.0.0.1:0");
    let address = relay.addr().to_string();
    let mut host = host_at(relay.addr(), relay.pin().unwrap(), &["--input", "tone"]);
    let mut guest = join("Bela", &link_of(&host), &["--input", "tone"]);
    admit(&mut host, "Bela", &guest);
    hears_more(&guest, "Hestia", 100, LIMIT);
    observe(SEALED);
    let mark = send(&mut guest, &json!({ "do": "report", "who": "Hestia", "category": "other" }));
    // A report of 64 KiB takes 2 s at its pace.
    observe(Duration::from_millis(700));
    relay.kill();
    assert!(desk.inbox().is_empty());
    assert!(guest.events_after(mark).iter().all(|event| event["event"] != "reported"));
    let _relay = desk.relay_with_sink(&address);
    let receipt = reported(&guest, mark, "Operator");
    let reconnected = guest.wait_event_after(mark, "reconnected", |_| true, LIMIT).unwrap();
    assert_eq!(guest.events_named("reported").len(), 1, "after {reconnected}");
    assert_eq!(desk.inbox(), [desk.delivered(&receipt)]);
    desk.valid("operator", &desk.delivered(&receipt), "Hestia");
    end_all(host, vec![guest]);
}

#[test]
fn nobody_escapes_a_report_by_ending_the_meeting_or_by_putting_out_who_reports() {
    let stage = Stage::shared();
    let desk = Desk::new(&stage);
    let relay = desk.relay_with_sink("127.0.0.1:0");
    let stays = ["--input", "tone", "--report-for", "60"];
    let mut host = host_at(relay.addr(), relay.pin().unwrap(), &stays);
    let link = link_of(&host);
    let mut guests = ["Bela", "Cleo"].map(|name| {
        let guest = join(name, &link, &stays);
        admit(&mut host, name, &guest);
        guest
    });
    guests.iter().for_each(|guest| hears_more(guest, "Hestia", 100, LIMIT));
    observe(SEALED);
    host.send(&json!({ "do": "remove", "who": "Cleo" })).unwrap();
    guests[1].wait_event("removed", |_| true, LIMIT).unwrap();
    host.wait_event("left", |_| true, LIMIT).unwrap();
    host.act("end").unwrap();
    for (client, by) in [(&guests[0], "host"), (&host, "leave")] {
        assert_eq!(client.wait_event("ended", |_| true, LIMIT).unwrap()["by"], by);
    }

    let of_host = json!({ "do": "report", "who": "Hestia", "category": "harassment", "seconds": 5 });
    for guest in &mut guests {
        let mark = send(guest, &of_host);
        desk.valid("operator", &desk.delivered(&reported(guest, mark, "Operator")), "Hestia");
        guest.act("leave").unwrap();
    }
    // The host has removed Cleo, and is not let off either.
    let mark = send(&mut host, &json!({ "do": "report", "who": "Cleo", "category": "other" }));
    desk.valid("operator", &desk.delivered(&reported(&host, mark, "Operator")), "Cleo");
    host.act("leave").unwrap();
    let [mut ended, mut removed] = guests;
    let statuses = [&mut ended, &mut removed, &mut host].map(|client| client.wait_exit(LIMIT).unwrap());
    assert_eq!(statuses, [0, 4, 0]);
    assert_eq!(ended.events_named("ended").len() + host.events_named("ended").len(), 2);
    for client in [&ended, &removed, &host] {
        assert_eq!(client.faults(), Vec::<String>::new());
        assert!(client.events_named("error").is_empty(), "{:?}", client.events_named("error"));
    }
}
