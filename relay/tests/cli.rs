//! The relay's program as its operator meets it: arguments, environment, announcements, signals, exit status.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

#[cfg(unix)]
use conclave_relay::{
    dial::{bind_for, client_endpoint, dial},
    tls::{Pin, Trust},
};

/// How long a test waits for what must come; long enough for a machine under load.
#[cfg(unix)]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The program with a clean environment.
fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-relay"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

fn fails(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = relay(arguments).output().unwrap();
    assert!(stdout.is_empty(), "a failure announces nothing");
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A running relay; killed when dropped.
struct Running {
    child: Child,
    announced: serde_json::Value,
    more: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut more = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        more.read_line(&mut line).unwrap();
        let announced = serde_json::from_str(&line).unwrap();
        Self { child, announced, more }
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Exit status, what came on standard output after the announcement, and all of standard error.
    fn finish(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.more.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

/// Connects, sends something that a relay has to look at, and waits until it has.
#[cfg(unix)]
fn visit(address: std::net::SocketAddr, pin: Pin) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = client_endpoint(bind_for(address)).unwrap();
        let mut client = dial(&endpoint, address, "relay.test", &Trust::Pin(pin), PATIENCE).await.unwrap();
        client.writer.send("hello".into()).await.unwrap();
        client.writer.finish().await;
        tokio::time::timeout(PATIENCE, client.connection.closed()).await.unwrap();
    });
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn announces_itself_in_one_line_and_ends_well_on_either_signal() {
    for signal in ["-TERM", "-INT"] {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--self-signed", "--region", "eu", "--log", "trace"];
        let running = Running::start(&mut relay(&arguments));
        let line = running.announced.clone();
        assert_eq!(line["event"], "listening");
        assert_eq!(line["region"], "eu");
        assert_eq!(line["pin"].as_str().unwrap().len(), 43);
        let address: std::net::SocketAddr = line["addr"].as_str().unwrap().parse().unwrap();
        assert_ne!(address.port(), 0);
        visit(address, line["pin"].as_str().unwrap().parse().unwrap());
        running.signal(signal);
        let (status, out, err) = running.finish();
        assert_eq!((status, out.as_str()), (Some(0), ""));
        assert!(err.contains("connected"), "the visit should be in the log: {err}");
        assert!(!err.contains("127.0.0.1"), "an address in the log: {err}");
    }
}

#[test]
fn certificate_files_are_announced_without_a_pin() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(path("cert"), pair.cert.pem()).unwrap();
    fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--cert", &path("cert"), "--key", &path("key")];
    let running = Running::start(&mut relay(&arguments));
    assert!(running.announced["pin"].is_null() && running.announced["region"].is_null());
}

#[test]
fn flag_goes_before_environment_and_environment_before_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    fs::write(&file, "listen = '127.0.0.1:0'\nself-signed = 'memory'\nregion = 'file'").unwrap();
    let file = file.to_str().unwrap();
    let region = |flags: &[&str], environment: &[(&str, &str)]| {
        let mut command = relay(&[&["serve"], flags].concat());
        Running::start(command.envs(environment.iter().copied())).announced["region"].clone()
    };
    let (config, environment) = (["--config", file], ("CONCLAVE_RELAY_REGION", "environment"));
    assert_eq!(region(&config, &[]), "file");
    assert_eq!(region(&config, &[environment]), "environment");
    assert_eq!(region(&[], &[environment, ("CONCLAVE_RELAY_CONFIG", file)]), "environment");
    assert_eq!(region(&["--config", file, "--region", "flag"], &[environment]), "flag");
}

#[test]
fn identity_of_a_flag_replaces_that_of_the_environment() {
    let mut command = relay(&["serve", "--listen", "127.0.0.1:0", "--self-signed"]);
    let running = Running::start(command.env("CONCLAVE_RELAY_CERT", "absent").env("CONCLAVE_RELAY_KEY", "absent"));
    assert!(running.announced["pin"].is_string());
}

#[test]
fn missing_certificate_says_what_to_do() {
    let (status, message) = fails(&["serve"]);
    assert_eq!(status, 2);
    for hint in ["--cert", "--key", "--self-signed"] {
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn what_the_operator_got_wrong_is_named_and_ends_with_two() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("garbage"), "garbage").unwrap();
    let (absent, garbage) = (path("absent"), path("garbage"));
    for (arguments, named) in [
        (vec!["--cert", &absent, "--key", &garbage], "absent"),
        (vec!["--cert", &garbage, "--key", &garbage], "garbage"),
        (vec!["--self-signed", "--config", &absent], "absent"),
        (vec!["--self-signed", "--config", &garbage], "garbage"),
        (vec!["--self-signed", "--log", "=,="], "--log"),
        (vec!["--self-signed", "--listen", "nowhere"], "nowhere"),
        (vec!["--self-signed", "--region", "Not A Region"], "region"),
        (vec!["--self-signed", "--reports", "/var/reports"], "dir:PATH"),
        (vec!["--self-signed", "--reports", &format!("dir:{garbage}")], "garbage"),
        (vec!["--self-signed", "--reports", "nats:x"], "--nats-url"),
        (vec!["--self-signed", "--reports", "nats:x", "--nats-url", "http://x"], "--nats-url"),
        (vec!["--self-signed", "--moderator", &absent], "absent"),
        (vec!["--self-signed", "--moderator", &garbage], "garbage"),
        (vec!["--self-signed", "--stamp-keys", &garbage], "garbage"),
        (vec!["--self-signed", "--name", "a b"], "name"),
        (vec!["--self-signed", "--metrics", "9433"], "--metrics"),
        (vec!["--unknown"], "--unknown"),
    ] {
        let (status, message) = fails(&[&["serve"], arguments.as_slice()].concat());
        assert_eq!(status, 2, "{arguments:?}: {message}");
        assert!(message.contains(named), "{arguments:?}: {message}");
    }
}

#[test]
fn port_in_use_is_named_and_ends_with_one() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, message) = fails(&["serve", "--self-signed", "--listen", &address]);
    assert_eq!(status, 1);
    assert!(message.contains(&address), "{message}");
}

#[test]
fn port_of_counters_in_use_is_named_and_ends_with_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, message) = fails(&["serve", "--self-signed", "--listen", "127.0.0.1:0", "--metrics", &address]);
    assert_eq!(status, 1);
    assert!(message.contains("--metrics") && message.contains(&address), "{message}");
}

#[test]
fn help_teaches_every_option_and_the_environment() {
    let output = relay(&["serve", "--help"]).output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let basics = ["--listen", "--cert", "--key", "--self-signed", "--region", "--config", "CONCLAVE_RELAY_LISTEN"];
    let reports =
        ["--reports", "--nats-url", "--moderator", "--stamp-keys", "--keep-stamp-keys", "CONCLAVE_RELAY_REPORTS"];
    for taught in basics.into_iter().chain(reports).chain(["--metrics", "CONCLAVE_RELAY_METRICS", "/readyz"]) {
        assert!(help.contains(taught), "{taught} is not in the help");
    }
    assert!(help.contains("Examples:") && help.contains("\"event\":\"listening\""));
}
