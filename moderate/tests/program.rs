//! The program itself, on reports of a meeting made by hand.

#[path = "../../protocol/tests/exhibit/mod.rs"]
mod exhibit;

use std::collections::BTreeMap;
use std::f32::consts::TAU;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Instant;

use conclave::session::system_rng;
use conclave_protocol::evidence::category::Category;
use conclave_protocol::evidence::report::{Note, Report};
use conclave_protocol::evidence::{Exhibit, ban};
use conclave_protocol::label;
use conclave_protocol::moderator::Moderator;
use conclave_protocol::stamp::StampKey;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::{Wire, Writer};
use conclave_protocol::wire::relay::{FromRelay, Refusal, StampCheck, StampVerdict, ToRelay};
use conclave_relay::core::{ConnId, Core, Output, Peer};
use conclave_relay::embedded::{EmbeddedRelay, spawn_thread};
use conclave_relay::gate::Limits;
use conclave_relay::server::{Deadlines, ServerConfig};
use conclave_relay::tls::{Identity, SelfSigned};
use data_encoding::BASE32_NOPAD;
use exhibit::{BEGIN, Scene, person};
use serde_json::Value;

/// Bob speaks and is reported. His name would be markup.
const BOB: usize = 2;
const NAME: &str = "<i>Bob & \"co\"";
const FRAME: usize = 960;

/// A moderator's desk: key, stamp keys and reports in a directory of their own.
struct Desk {
    dir: tempfile::TempDir,
    scene: Scene,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let descriptor = Scene::new(1).descriptor;
        let scene = Scene::with(1, |people| people[BOB] = person(&descriptor, 1, BOB as u16, NAME));
        let desk = Self { dir, scene };
        let made = desk.run(&["keygen", "--out", "keys", "--name", "Mo Derator", "--no-passphrase"]);
        assert!(made.status.success(), "{made:?}");
        fs::create_dir(desk.path("stamps")).expect("made");
        let key = BASE32_NOPAD.encode(desk.scene.stamping.as_bytes());
        let text = format!("relay = \"relay.example.org\"\nday = \"2026-01-01\"\nkey = \"{key}\"\n");
        private(&desk.path("stamps/2026-01-01.stampkey"), text.as_bytes());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> process::Output {
        self.command(args).env_remove("CONCLAVE_PASSPHRASE").output().expect("runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-moderate"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    fn moderator(&self) -> Moderator {
        let text = fs::read_to_string(self.path("keys/moderator.pub")).expect("there");
        Moderator::from_text(&text).expect("a moderator")
    }

    /// What Bob said, a tone that swells, of which `change` makes something else.
    fn exhibit(&self, change: impl FnOnce(&mut Exhibit)) -> Exhibit {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("Opus");
        encoder.set_bitrate(opus::Bitrate::Bits(32_000)).expect("Opus");
        encoder.set_vbr(false).expect("Opus");
        let mut opus = |seq: u32| {
            let mut packet = [0; 80];
            let length = encoder.encode_float(&tone(seq), &mut packet).expect("encodes");
            packet[..length].to_vec()
        };
        let mut exhibit = self.scene.exhibit_of(BOB, self.scene.said(BOB, None, &mut opus));
        change(&mut exhibit);
        exhibit
    }

    /// Seals a report into a file.
    fn file(&self, name: &str, exhibit: Exhibit) {
        let note = Note::parse("<script>alert(1)</script>").expect("a note");
        let report = Report::new(Category::Threat, note, UnixMillis(BEGIN.0 + 300_000), exhibit);
        let sealed = report.seal(&self.moderator(), &mut system_rng()).expect("sealed");
        fs::write(self.path(name), sealed).expect("written");
    }

    /// Opens reports: the exit status, and what is said of each.
    fn open(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let all = [&["open", "--key", "keys/moderator.key"], args].concat();
        judged(&self.run(&all))
    }
}

fn private(path: &Path, bytes: &[u8]) {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("made");
    std::io::Write::write_all(&mut file, bytes).expect("written");
}

fn judged(output: &process::Output) -> (i32, Vec<Value>) {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (output.status.code().expect("ended"), lines)
}

/// One frame of a tone whose pitch and loudness move.
fn tone(seq: u32) -> Vec<f32> {
    let sample = |i: usize| {
        let t = (seq as usize * FRAME + i) as f32 / 48_000.0;
        (0.3 + 0.2 * (TAU * 0.7 * t).sin()) * (TAU * 220.0 * t + 20.0 * (TAU * 0.5 * t).sin()).sin()
    };
    (0..FRAME).map(sample).collect()
}

fn samples(wav: &Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(wav).expect("a WAV");
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (48_000, 1));
    reader.samples::<i16>().map(|sample| f32::from(sample.expect("whole")) / 32_768.0).collect()
}

/// How many samples later the spoken sound is heard best, and how alike the two are then. The codec looks 312 samples
/// (6.5 ms) ahead, so this is where a decoded sound belongs, but for half a millisecond by which its filters bend it.
fn best_lag(heard: &[f32], spoken: &[f32]) -> (usize, f32) {
    let reach = heard.len().min(spoken.len()) - FRAME;
    let at = |lag: usize| (lag, likeness(&heard[lag..lag + reach], &spoken[..reach]));
    (0..FRAME).map(at).max_by(|a, b| a.1.total_cmp(&b.1)).expect("some lag")
}

/// How alike two sounds are, -1 to 1.
fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The relay's answers to its moderator, without the rest of a relay.
struct Answers {
    moderator: Moderator,
    key: StampKey,
    exporters: BTreeMap<ConnId, [u8; 32]>,
}

impl Core for Answers {
    fn connected(&mut self, _now: Instant, conn: ConnId, peer: &Peer, _out: &mut Vec<Output>) {
        self.exporters.insert(conn, peer.exporter);
    }
    fn control(&mut self, _now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>) {
        let Ok(ToRelay::CheckStamps { signature, checks }) = ToRelay::decode(message) else {
            unreachable!("another message than the one question");
        };
        let mut list = Writer::default();
        list.list(&checks);
        let signed: [&[u8]; 2] = [&self.exporters[&conn], &list.into_bytes()];
        let answer = match self.moderator.signing.verify(label::MODERATOR_REQUEST, &signed, &signature) {
            Err(_) => FromRelay::Refused { reason: Refusal::NotAllowed },
            Ok(()) => FromRelay::StampsChecked { verdicts: checks.iter().map(|check| self.verdict(check)).collect() },
        };
        out.push(Output::Control { to: conn, bytes: answer.encode().into() });
    }
    fn datagram(&mut self, _now: Instant, _conn: ConnId, _datagram: &[u8], _to: &mut Vec<ConnId>) {}
    fn disconnected(&mut self, _now: Instant, _conn: ConnId, _out: &mut Vec<Output>) {}
    fn timeout(&mut self, _now: Instant, _out: &mut Vec<Output>) {}
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
    fn shutdown(&mut self, _now: Instant, _out: &mut Vec<Output>) {}
}

impl Answers {
    fn verdict(&self, check: &StampCheck) -> StampVerdict {
        match self.key.made(&check.stamp, &check.origin, &check.public) {
            true => StampVerdict::Genuine,
            false if check.stamp.key == self.key.id() => StampVerdict::Forged,
            false => StampVerdict::UnknownKey,
        }
    }

    /// A relay that answers so.
    fn relay(moderator: Moderator, key: StampKey) -> EmbeddedRelay {
        let config = ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: Identity::SelfSigned(SelfSigned::Memory),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            forwarding: Default::default(),
        };
        spawn_thread(config, Self { moderator, key, exporters: BTreeMap::new() }).expect("runs")
    }
}

#[test]
fn a_relay_tells_its_moderator_which_stamps_are_genuine_and_nobody_else() {
    let desk = Desk::new();
    desk.file("good.report", desk.exhibit(|_| {}));
    desk.file("none.report", desk.exhibit(|exhibit| exhibit.segments[1].stamp = None));
    desk.file(
        "forged.report",
        desk.exhibit(|exhibit| {
            let stamp = exhibit.segments[1].stamp.as_mut().expect("stamped");
            stamp.mac[0] ^= 1;
        }),
    );
    let relay = Answers::relay(desk.moderator(), StampKey::new(*desk.scene.stamping.as_bytes()));
    let (address, pin) = (relay.local_addr().to_string(), relay.pin().expect("self-signed").to_string());
    let with = ["--key", "keys/moderator.key", "--relay", &address, "--pin", &pin];
    let check = |file: &str| judged(&desk.run(&[&["stamp-check"], &with[..], &[file]].concat()));
    let (status, said) = check("good.report");
    assert_eq!((status, said[0]["stamps"].as_array().map(Vec::len)), (0, Some(4)));
    assert!(said[0]["stamps"].as_array().is_some_and(|all| all.iter().all(|stamp| stamp["verdict"] == "genuine")));
    let (status, said) = check("none.report");
    assert_eq!((status, said[0]["without_stamp"].as_u64()), (1, Some(1)));
    let (status, said) = check("forged.report");
    assert_eq!((status, &said[0]["stamps"][1]["verdict"]), (1, &Value::from("forged")));
    let open = |files: &[&str]| judged(&desk.run(&[&["open"], &with[..], files].concat()));
    let (status, said) = open(&["good.report", "forged.report"]);
    assert_eq!((status, said[0]["verdict"].as_str()), (1, Some("valid")));
    assert_eq!((said[1]["failed_step"].as_str(), &said[0]["stamp_keys"][0]["relay"]), (Some("stamp"), &address.into()));
    relay.stop().expect("stopped");
    let other = Answers::relay(Desk::new().moderator(), StampKey::new(*desk.scene.stamping.as_bytes()));
    let (address, pin) = (other.local_addr().to_string(), other.pin().expect("self-signed").to_string());
    let refused =
        desk.run(&["stamp-check", "--key", "keys/moderator.key", "--relay", &address, "--pin", &pin, "good.report"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another moderator"));
    other.stop().expect("stopped");
}

#[test]
fn keys_are_their_owners_alone_and_never_overwritten() {
    let desk = Desk::new();
    let mode = fs::metadata(desk.path("keys/moderator.key")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(desk.moderator().name.as_str(), "Mo Derator");
    let before = fs::read(desk.path("keys/moderator.key")).expect("there");
    let again = desk.run(&["keygen", "--out", "keys", "--no-passphrase"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(fs::read(desk.path("keys/moderator.key")).expect("there"), before);
    // Nobody can be asked here, so a key without protection must be meant.
    assert_eq!(desk.run(&["keygen", "--out", "others"]).status.code(), Some(2));
    assert!(!desk.path("others/moderator.key").exists());
}

#[test]
fn a_key_with_a_passphrase_opens_reports_with_it_only() {
    let desk = Desk::new();
    fs::remove_dir_all(desk.path("keys")).expect("removed");
    let made = desk.command(&["keygen", "--out", "keys"]).env("CONCLAVE_PASSPHRASE", "correct horse").output();
    assert!(made.expect("runs").status.success());
    desk.file("a.report", desk.exhibit(|_| {}));
    let open = ["open", "--key", "keys/moderator.key", "--stamp-keys", "stamps", "a.report"];
    let with = |passphrase| desk.command(&open).env("CONCLAVE_PASSPHRASE", passphrase).output().expect("runs");
    assert_eq!(with("correct horse").status.code(), Some(0));
    let wrong = with("wrong horse");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stdout.is_empty());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("passphrase"));
}

#[test]
fn a_true_report_is_valid_and_its_sound_is_what_was_said_where_it_was_said() {
    let desk = Desk::new();
    desk.file("a.report", desk.exhibit(|_| {}));
    let (status, said) = desk.open(&["--stamp-keys", "stamps", "--out", "out", "a.report"]);
    let said = &said[0];
    assert_eq!((status, said["verdict"].as_str(), &said["failed_step"]), (0, Some("valid"), &Value::Null));
    assert_eq!(said["accused"]["name"], NAME);
    assert_eq!(said["accused"]["safety_number"].as_str().map(str::len), Some(35));
    assert_eq!((said["category"].as_str(), said["seconds"].as_f64()), (Some("threat"), Some(2.0)));
    assert_eq!(said["stamp_keys"][0]["relay"], "relay.example.org");
    assert_eq!(said["stamped"][0], "2026-01-01T00:02Z");
    assert_eq!(said["wav"], "out/a.wav");
    let heard = samples(&desk.path("out/a.wav"));
    assert_eq!(heard.len(), 100 * FRAME);
    let spoken: Vec<f32> = (1_050..1_150).flat_map(tone).collect();
    // The first frames are without what the decoder would have heard before.
    let (lag, alike) = best_lag(&heard[5 * FRAME..], &spoken[5 * FRAME..]);
    assert!(lag.abs_diff(312) <= 24 && alike > 0.9, "{lag} {alike}");
    let page = fs::read_to_string(desk.path("out/a.html")).expect("there");
    assert!(page.contains("&lt;i&gt;Bob &amp; &quot;co&quot;") && page.contains("src=\"./a.wav\""));
    assert!(!page.contains("<i>") && !page.contains("<script"));
    let record = fs::read_to_string(desk.path("out/a.report.json")).expect("there");
    assert_eq!(serde_json::from_str::<Value>(&record).expect("JSON"), *said);
    for name in ["a.wav", "a.html", "a.report.json"] {
        assert_eq!(fs::metadata(desk.path("out").join(name)).expect("there").permissions().mode() & 0o077, 0);
    }
}

#[test]
fn gaps_are_silent_and_shown() {
    let desk = Desk::new();
    let exhibit = desk.exhibit(|exhibit| {
        exhibit.segments[0].frames.drain(..2);
        exhibit.segments[1].frames.drain(5..9);
        exhibit.segments.remove(2);
    });
    desk.file("a.report", exhibit);
    let (status, said) = desk.open(&["--stamp-keys", "stamps", "a.report"]);
    assert_eq!((status, said[0]["seconds"].as_f64()), (0, Some(1.38)));
    assert_eq!(said[0]["frames"]["gaps"], serde_json::json!([[0.0, 0.04], [0.6, 0.68], [1.0, 1.5]]));
    assert_eq!(said[0]["frames"]["missing"], 31);
    let heard = samples(&desk.path("a.wav"));
    assert_eq!(heard.len(), 100 * FRAME);
    for (from, to) in [(0, 2), (30, 34), (50, 75)] {
        assert!(heard[from * FRAME..to * FRAME].iter().all(|sample| *sample == 0.0));
    }
    let spoken: Vec<f32> = (1_050..1_150).flat_map(tone).collect();
    let (lag, alike) = best_lag(&heard[80 * FRAME..], &spoken[80 * FRAME..]);
    assert!(lag.abs_diff(312) <= 24 && alike > 0.9, "{lag} {alike}");
    assert!(fs::read_to_string(desk.path("a.html")).expect("there").contains("0.60 s to 0.68 s: nothing there"));
}

#[test]
fn sound_that_is_no_opus_is_proved_but_silent() {
    let desk = Desk::new();
    // Packets of 2.5 ms, of nothing, and of noise.
    let mut odd = |seq: u32| match seq % 3 {
        0 => vec![0xE0; 10],
        1 => Vec::new(),
        _ => exhibit::noise(seq),
    };
    let exhibit = desk.scene.exhibit_of(BOB, desk.scene.said(BOB, None, &mut odd));
    desk.file("a.report", exhibit);
    let (status, said) = desk.open(&["--stamp-keys", "stamps", "a.report"]);
    assert_eq!((status, said[0]["verdict"].as_str()), (0, Some("valid")));
    assert_eq!(samples(&desk.path("a.wav")).len(), 100 * FRAME);
}

#[test]
fn every_verdict_has_its_word_its_step_and_the_exit_status_of_all() {
    let desk = Desk::new();
    desk.file("valid.report", desk.exhibit(|_| {}));
    desk.file("unstamped.report", desk.exhibit(|exhibit| exhibit.segments[1].stamp = None));
    desk.file("frame.report", desk.exhibit(|exhibit| exhibit.segments[1].frames[3].1[40] ^= 1));
    desk.file("roster.report", desk.exhibit(|exhibit| exhibit.epochs[0].path[0][0] ^= 1));
    fs::write(desk.path("nothing.report"), "not a report").expect("written");
    let mut cut = fs::read(desk.path("valid.report")).expect("there");
    cut.truncate(40_000);
    fs::write(desk.path("cut.report"), cut).expect("written");
    let files = ["valid", "unstamped", "frame", "roster", "nothing", "cut", "absent"].map(|n| format!("{n}.report"));
    let mut args = vec!["--stamp-keys", "stamps", "--out", "out"];
    args.extend(files.iter().map(String::as_str));
    let (status, said) = desk.open(&args);
    assert_eq!(status, 1);
    let verdicts: Vec<_> = said.iter().map(|one| (one["verdict"].as_str(), one["failed_step"].as_str())).collect();
    let unreadable = (Some("unreadable"), None);
    let invalid = |step| (Some("invalid"), Some(step));
    assert_eq!(
        verdicts,
        [
            (Some("valid"), None),
            (Some("unstamped"), None),
            invalid("frame"),
            invalid("roster"),
            unreadable,
            unreadable,
            unreadable
        ]
    );
    assert_eq!(said[2]["claims"]["roster"], "holds");
    assert_eq!(said[2]["claims"]["stamp"], "not_reached");
    assert!(said[2]["wav"].is_null() && said[4]["accused"].is_null());
    assert!(desk.path("out/unstamped.wav").exists() && !desk.path("out/frame.wav").exists());
    // Without stamp keys the same report is unstamped, and says the same whenever it is asked.
    let again = || desk.open(&["--out", "out", "valid.report"]);
    let (status, said) = again();
    assert_eq!((status, said[0]["verdict"].as_str()), (1, Some("unstamped")));
    assert_eq!(again().1, said);
}

#[test]
fn what_an_earlier_run_wrote_does_not_pass_for_the_sound_of_an_invalid_report() {
    let desk = Desk::new();
    desk.file("a.conclave-report", desk.exhibit(|_| {}));
    let open = || desk.open(&["--stamp-keys", "stamps", "a.conclave-report"]).1.remove(0);
    assert_eq!(open()["wav"], "a.wav");
    desk.file("a.conclave-report", desk.exhibit(|exhibit| exhibit.segments[1].frames[3].1[40] ^= 1));
    let said = open();
    assert_eq!((&said["wav"], &said["html"]), (&Value::Null, &"a.html".into()));
    assert!(!desk.path("a.wav").exists());
    fs::write(desk.path("a.conclave-report"), "damaged").expect("written");
    assert_eq!(open()["verdict"], "unreadable");
    assert!(!desk.path("a.html").exists() && desk.path("a.report.json").exists());
    // Whoever puts a file there afterwards keeps it, since the record does not name it.
    fs::write(desk.path("a.wav"), "mine").expect("written");
    open();
    assert!(desk.path("a.wav").exists() && desk.path("a-2.report.json").exists());
}

#[test]
fn nothing_is_written_over_or_removed_that_is_a_report_or_somebody_elses() {
    let desk = Desk::new();
    let invalid = || desk.exhibit(|exhibit| exhibit.segments[1].frames[3].1[40] ^= 1);
    desk.file("a.conclave-report", desk.exhibit(|_| {}));
    desk.file("b.conclave-report", invalid());
    desk.file("c.report", desk.exhibit(|_| {}));
    let others = ["b.wav", "c.html", "d.report.json"];
    others.iter().for_each(|name| fs::write(desk.path(name), "{\"verdict\": 1}").expect("written"));
    fs::write(desk.path("d.report"), "damaged").expect("written");
    // Reports named as results are, by another way to their directory.
    desk.file("a.wav", desk.exhibit(|_| {}));
    let open = || {
        let odd = desk.path("stamps/../a.wav");
        let files = ["a.conclave-report", "b.conclave-report", "c.report", "d.report", &odd.display().to_string()];
        desk.open(&[&["--stamp-keys", "stamps"], &files[..]].concat())
    };
    let inputs = ["a.conclave-report", "a.wav", "b.conclave-report", "c.report", "d.report"];
    let content = || {
        [&inputs[..], &others]
            .concat()
            .iter()
            .map(|name| fs::read(desk.path(name)))
            .map(|read| read.expect("there"))
            .collect::<Vec<_>>()
    };
    let before = content();
    let said = open();
    assert_eq!(content(), before);
    let wavs: Vec<_> = said.1.iter().map(|one| one["wav"].as_str().map(str::to_owned)).collect();
    assert_eq!(wavs[..3], [Some("a-2.wav".to_owned()), None, Some("c-2.wav".to_owned())]);
    assert!(wavs[4].as_deref().is_some_and(|wav| wav.ends_with("/a.wav.wav")), "{wavs:?}");
    for name in ["a-2.html", "b-2.html", "b-2.report.json", "c-2.html", "d-2.report.json"] {
        assert!(desk.path(name).exists(), "{name}");
    }
    // The same names again, since what is there now is its own.
    assert_eq!(open(), said);
    assert_eq!(content(), before);
    assert!(!desk.path("a-3.wav").exists() && !desk.path("b-3.html").exists());
}

#[test]
fn reports_for_another_moderator_are_unreadable() {
    let (desk, other) = (Desk::new(), Desk::new());
    other.file("a.report", other.exhibit(|_| {}));
    fs::copy(other.path("a.report"), desk.path("a.report")).expect("copied");
    let (status, said) = desk.open(&["--stamp-keys", "stamps", "a.report"]);
    assert_eq!((status, said[0]["verdict"].as_str()), (1, Some("unreadable")));
    assert!(said[0]["error"].as_str().is_some_and(|error| error.contains("another moderator")));
}

/// The inbox below, as it is listed.
const FILES: [&str; 6] = [
    "inbox/AEBA.conclave-report",
    "inbox/a.report",
    "inbox/b.bin",
    "inbox/c.report",
    "inbox/d.report",
    "inbox/e.conclave-report",
];

#[test]
fn an_inbox_tells_old_duplicate_and_unreadable_apart() {
    let desk = Desk::new();
    fs::create_dir(desk.path("inbox")).expect("made");
    desk.file("inbox/a.report", desk.exhibit(|_| {}));
    desk.file("inbox/b.bin", desk.exhibit(|_| {}));
    desk.file("inbox/c.report", desk.exhibit(|exhibit| exhibit.segments.truncate(3)));
    fs::write(desk.path("inbox/d.report"), "nothing").expect("written");
    // The relay's own names.
    desk.file("inbox/AEBA.conclave-report", desk.exhibit(|exhibit| drop(exhibit.segments.remove(2))));
    fs::write(desk.path("inbox/e.conclave-report"), "damaged").expect("written");
    fs::write(desk.path("inbox/notes.txt"), "no report").expect("written");
    let list = |days: &str| {
        let args = ["inbox", "inbox", "--key", "keys/moderator.key", "--stamp-keys", "stamps", "--json"];
        judged(&desk.run(&[&args[..], &["--old-after", days]].concat()))
    };
    let (status, entries) = list("100000");
    assert_eq!(status, 0);
    let field = |name: &str| entries.iter().map(|entry| entry[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("file"), FILES);
    assert_eq!(field("verdict"), ["valid", "valid", "valid", "valid", "unreadable", "unreadable"]);
    let duplicate = |file| if file == "inbox/b.bin" { "inbox/a.report".into() } else { Value::Null };
    assert_eq!(field("duplicate_of"), FILES.map(duplicate));
    assert_eq!(field("old"), [false; 6]);
    let (_, entries) = list("1");
    assert_eq!(
        entries.iter().map(|entry| entry["old"] == true).collect::<Vec<_>>(),
        [true, true, true, true, false, false]
    );
    let table = desk.run(&["inbox", "inbox", "--key", "keys/moderator.key", "--stamp-keys", "stamps"]);
    let table = String::from_utf8(table.stdout).expect("UTF-8");
    assert!(table.contains("duplicate of inbox/a.report") && table.contains("unreadable"), "{table}");
}

#[test]
fn nobody_is_banned_but_for_a_valid_report_or_by_name() {
    let desk = Desk::new();
    desk.file("good.report", desk.exhibit(|_| {}));
    desk.file("bad.report", desk.exhibit(|exhibit| exhibit.segments[1].frames[3].1[40] ^= 1));
    let ban = |args: &[&str]| {
        let all = [&["ban", "--key", "keys/moderator.key", "--out", "bans.txt"], args].concat();
        desk.run(&all).status.code()
    };
    assert_eq!(ban(&["--stamp-keys", "stamps", "bad.report"]), Some(2));
    assert_eq!(ban(&["good.report"]), Some(2), "unstamped without the keys");
    assert_eq!(ban(&["--stamp-keys", "stamps", "--until", "2020-01-01", "good.report"]), Some(2));
    assert!(!desk.path("bans.txt").exists());
    assert_eq!(ban(&["--stamp-keys", "stamps", "--until", "9999-12-31", "good.report"]), Some(0));
    assert_eq!(ban(&["--category", "spam", &"ab".repeat(32)]), Some(0));
    let bans = ban::parse(&fs::read_to_string(desk.path("bans.txt")).expect("there")).expect("bans");
    assert_eq!(bans.len(), 2);
    assert_eq!(bans[0].terms.identity, desk.scene.people[BOB].identity.public());
    assert_eq!((bans[0].terms.category, bans[1].terms.category), (Category::Threat, Category::Spam));
    assert!(bans[0].terms.until.is_some() && bans[1].terms.until.is_none());
    assert!(bans.iter().all(|ban| ban.verify(&desk.moderator()).is_ok()));
}
