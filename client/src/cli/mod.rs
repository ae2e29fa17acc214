//! The command line.

mod args;
mod console;
mod demo;
mod devices;
mod host;
mod join;
mod mic_test;
mod sound;
mod words;

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::noise::handshake::Passcode;
use conclave_protocol::sframe::frame::Microphone;
use conclave_relay::clock::system_clock;
use conclave_relay::hub::{self, Hub};
use conclave_relay::server::ServerConfig;
use conclave_relay::tls::{Identity as RelayIdentity, SelfSigned};
use tokio::sync::mpsc;

use crate::audio::device::Choice;
use crate::audio::engine::MediaEngine;
use crate::audio::format::FrameDuration;
use crate::audio::record::Recording;
use crate::audio::sink::Sink;
use crate::audio::source::{Repeat, Source};
use crate::exit::Outcome;
use crate::keystore::{self, Kept};
use crate::passphrase;
use crate::pins::Pins;
use crate::report::Report;
use crate::session::key::TalkKey;
use crate::session::sink::{ReportSink, queue};
use crate::session::{Finished, ReportSettings, Session, system_rng};
use args::{Arguments, Common, Verb};

/// Directory in a home in which sealed reports wait.
const SHELF: &str = "reports";

/// Runs the program; its exit statuses are those of `docs/automation.md` §4.
pub fn run() -> ExitCode {
    let start = Instant::now();
    let Arguments { verb } = Arguments::parse();
    start_logging();
    match verb {
        Verb::Host(host) => host::run(host, start),
        Verb::Join(join) => join::run(&join, start),
        Verb::Devices(devices) => status("devices", devices::show(&devices)),
        Verb::MicTest(arguments) => status("mic-test", mic_test::hear(&arguments)),
        Verb::Demo(demo) => demo::run(&demo, start),
    }
}

/// Logs go to standard error, of our own crates only: those of the QUIC stack hold addresses.
fn start_logging() {
    let filter = std::env::var("CONCLAVE_LOG").unwrap_or_else(|_| "warn".to_owned());
    if let Err(error) = conclave_relay::logging::start(&filter) {
        // Without logs the meeting goes on; without standard error nobody could be told.
        let _ = writeln!(std::io::stderr(), "conclave: CONCLAVE_LOG: {error}");
    }
}

/// The exit status of a verb that is no meeting; what went wrong is told on standard error.
fn status(verb: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Devices and files name themselves. Without standard error there is nobody to tell.
            let message = words::without_escapes(&format!("{error:#}"));
            let _ = writeln!(std::io::stderr(), "conclave {verb}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Why a client does not even start.
struct Refusal {
    outcome: Outcome,
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self { outcome: Outcome::Local(format!("{error:#}")) }
    }
}

fn usage(text: impl Into<String>) -> Refusal {
    Refusal { outcome: Outcome::BadLink(text.into()) }
}

/// A file cannot be used.
fn unusable(text: String) -> Refusal {
    Refusal { outcome: Outcome::Local(text) }
}

/// Who this client is, and what it knows.
struct Person {
    name: DisplayName,
    identity: Identity,
    pins: Pins,
    passcode: Option<Passcode>,
}

/// The person whom the arguments describe.
fn person(common: &Common) -> Result<Person, Refusal> {
    let name = DisplayName::parse(&common.name).map_err(|error| usage(format!("--name: {error}")))?;
    let Kept { identity, pins, newly_sealed } = match &common.home {
        Some(home) => keystore::open_or_create(home, &mut system_rng())?,
        None => Kept { identity: Identity::guest(&mut system_rng()), pins: Pins::none(), newly_sealed: false },
    };
    if newly_sealed {
        let what = "the identity and what it remembers of others had no passphrase";
        // Without standard error nobody could be told.
        let _ =
            writeln!(std::io::stderr(), "conclave: {what}: both are sealed now by that of {}", passphrase::VARIABLE);
    }
    let passcode = match &common.passcode {
        None => None,
        Some(text) => Some(
            Passcode::parse(text).ok_or_else(|| usage("--passcode: give 1 to 256 bytes that are not only blanks"))?,
        ),
    };
    Ok(Person { name, identity, pins, passcode })
}

/// How this client reports: sealed reports wait in its home, if it has one.
fn reporting(common: &Common) -> ReportSettings {
    ReportSettings {
        shelf: common.home.as_ref().map(|home| home.join(SHELF)),
        stay_for: Duration::from_secs(common.report_for),
    }
}

fn microphone(common: &Common) -> Microphone {
    if common.muted || common.input.is_none() { Microphone::Muted } else { Microphone::On }
}

fn key(common: &Common) -> TalkKey {
    if common.push_to_talk { TalkKey::new(Duration::from_millis(common.hold_ms)) } else { TalkKey::NONE }
}

fn engine(common: &Common, frame: FrameDuration) -> Result<MediaEngine, Refusal> {
    let input = common.input.as_deref().unwrap_or("silence");
    if common.looped && Choice::parse(input).is_some() {
        return Err(usage("--loop: a microphone has no end to begin anew from; leave it out"));
    }
    let mut source = Source::open(input, if common.looped { Repeat::Loop } else { Repeat::Once })
        .map_err(|error| unusable(format!("--input: {error}")))?;
    // Before the output, which writes over what is there.
    let recording = common.record.as_deref().map(Recording::create).transpose();
    let recording = recording.map_err(|error| unusable(format!("--record: {error}")))?;
    keeps_apart("--input", input, &common.output).map_err(usage)?;
    if let Some(record) = common.record.as_deref() {
        // It is there by now, if there is another way to it.
        keeps_apart("--record", record, &common.output).map_err(usage)?;
    }
    let mut sink = Sink::open(&common.output).map_err(|error| unusable(format!("--output: {error}")))?;
    source.allow(common.profile.most_margin());
    sink.allow(common.profile.most_margin());
    let switches = common.sound.switches(source.is_device());
    let mut engine =
        MediaEngine::with_config(source, sink, common.profile.config(frame)).context("cannot set up Opus")?;
    engine.set_processing(switches);
    Ok(match recording {
        Some(recording) => engine.with_recording(recording),
        None => engine,
    })
}

/// Refuses an output that would write over the file of another option, by whatever path.
fn keeps_apart(option: &str, file: impl AsRef<Path>, output: &str) -> Result<(), String> {
    let identity = |path: &Path| path.metadata().ok().filter(Metadata::is_file).map(|file| (file.dev(), file.ino()));
    match (identity(file.as_ref()), identity(Path::new(output))) {
        (Some(file), Some(output)) if file == output => {
            Err(format!("--output: that is the {option} file, and would be written over; give another path"))
        }
        _ => Ok(()),
    }
}

/// Runs a session with its console and gives the exit status.
fn converse(session: Session, common: &Common, start: Instant) -> ExitCode {
    let (reports, source) = queue(start);
    let reports_for_input = reports.clone();
    let printer = console::print(source, common.style());
    let (commands, receiver) = mpsc::channel(64);
    console::read(common.style(), commands, reports_for_input);
    let (outcome, is_told) = match current_thread() {
        Ok(runtime) => {
            let finished = runtime.block_on(async { session.run(receiver, reports.clone(), signalled()).await });
            // A name server that does not answer would keep a thread, and whoever leaves, for half a minute.
            runtime.shutdown_background();
            let is_told = finished.is_told;
            (conclude(finished, &reports), is_told)
        }
        Err(error) => (Outcome::Local(format!("cannot start: {error}")), false),
    };
    if is_told {
        reports.send(Report::Goodbye);
    } else {
        say_good_bye(&outcome, &reports);
    }
    drop(reports);
    // The reader of standard input may hold a queue's end for ever; what was reported before is printed all the same.
    printer.finish();
    ExitCode::from(outcome.status())
}

fn conclude(finished: Finished, reports: &ReportSink) -> Outcome {
    if let Err(error) = finished.output {
        if finished.outcome.status() == 0 {
            return Outcome::Local(error.to_string());
        }
        reports.send(Report::Error { message: error.to_string() });
    }
    finished.outcome
}

fn say_good_bye(outcome: &Outcome, reports: &ReportSink) {
    match outcome {
        Outcome::Ended { by } => reports.send(Report::Ended { by: by.clone() }),
        other => {
            if let Some(message) = other.message() {
                reports.send(Report::Error { message: message.to_owned() });
            }
        }
    }
    reports.send(Report::Goodbye);
}

fn refuse(refusal: Refusal, common: &Common, start: Instant) -> ExitCode {
    let (reports, source) = queue(start);
    let printer = console::print(source, common.style());
    say_good_bye(&refusal.outcome, &reports);
    drop(reports);
    printer.finish();
    ExitCode::from(refusal.outcome.status())
}

fn current_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits for SIGINT, SIGTERM, or SIGHUP, by which a terminal that is closed ends what ran in it, unless that is ignored
/// (`nohup`).
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let hangup = (!ignores_hangup()).then(|| signal(SignalKind::hangup()).ok()).flatten();
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let hung_up = async {
        match hangup {
            Some(mut hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hung_up => {}
    }
}

/// Whether who started this program wants it to outlive its terminal. As Linux says it (proc(5), `SigIgn`).
fn ignores_hangup() -> bool {
    /// SIGHUP is signal 1, the lowest bit.
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANGUP != 0)
}

/// What a relay inside this program runs on.
fn embedded_relay(listen: std::net::SocketAddr) -> (ServerConfig, Hub) {
    let config = ServerConfig {
        listen,
        identity: RelayIdentity::SelfSigned(SelfSigned::Memory),
        limits: Default::default(),
        deadlines: Default::default(),
        forwarding: Default::default(),
    };
    (config, Hub::new(system_clock(), hub::Config::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_no_bad_argument() {
        let dir = tempfile::tempdir().expect("a directory");
        let nowhere = dir.path().join("no/such.wav");
        std::fs::write(dir.path().join("text.wav"), "this is no sound").expect("written");
        let text = dir.path().join("text.wav");
        for (option, file) in [("--input", &nowhere), ("--input", &text), ("--output", &nowhere)] {
            let line = ["conclave", "host", "--name", "Ada", option, file.to_str().expect("a path in UTF-8")];
            let Verb::Host(host) = Arguments::try_parse_from(line).expect("understood").verb else {
                panic!("not what was asked for");
            };
            let refusal = engine(&host.common, host.frame_duration()).err().expect("it cannot be used");
            assert_eq!(refusal.outcome.status(), 1, "{option} {}", file.display());
            assert!(refusal.outcome.message().is_some_and(|message| message.starts_with(option)));
        }
    }

    #[test]
    fn an_output_that_is_the_file_of_another_option_is_refused_by_whatever_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).to_str().expect("a path in UTF-8").to_owned();
        let (file, link, other) = (path("talk.wav"), path("link.wav"), path("other.wav"));
        for name in [&file, &other] {
            std::fs::write(name, "dear").expect("written");
        }
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        for output in [&file, &link, &format!("{}/./talk.wav", dir.path().display())] {
            let error = keeps_apart("--record", &file, output).expect_err("the same file");
            assert!(error.contains("--record"), "{error}");
        }
        for output in [&other, &path("new.wav"), &"/dev/null".to_owned()] {
            keeps_apart("--record", &file, output).expect("another file");
        }
    }
}
