//! Merging of the layers. The environment's place between flags and file is tested on the real process in
//! `tests/cli.rs`, because a test can't change its own environment safely.

use super::*;

fn parse(arguments: &[&str]) -> ServeOptions {
    let all = ["conclave-relay", "serve"].iter().chain(arguments);
    let matches = Cli::command().try_get_matches_from(all).unwrap();
    let Command::Serve(options) = command_from(&matches).unwrap();
    *options
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn resolve(arguments: &[&str], text: &str) -> Result<ServeSettings, ConfigError> {
    let file = file(text);
    let mut options = parse(arguments);
    options.config = Some(file.path().into());
    options.resolve()
}

#[test]
fn command_line_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn flag_goes_before_file_and_file_before_default() {
    let settings = resolve(
        &["--listen", "127.0.0.1:1", "--max-connections", "7"],
        "listen = '127.0.0.1:2'\nself-signed = 'memory'\nregion = 'eu'\nmax-handshakes = 9\nmax-connections = 8",
    )
    .unwrap();
    assert_eq!(settings.server.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(settings.server.identity, Identity::SelfSigned(SelfSigned::Memory));
    assert_eq!(settings.region.unwrap().as_str(), "eu");
    let expected = Limits { max_connections: 7, max_half_open: 9, ..Limits::default() };
    assert_eq!(settings.server.limits, expected);
}

#[test]
fn every_option_of_the_file_reaches_the_settings() {
    let settings = resolve(
        &[],
        "listen = '[::1]:5'\ncert = 'c'\nkey = 'k'\nregion = 'us-west-2'\nmax-connections = 1\n\
         max-connections-per-network = 2\nconnection-rate-per-network = 3\nmax-handshakes = 4\nretry-above = 5\n\
         log = 'debug'\nreports = 'nats:a.b'\nnats-url = 'nats://n'\nreports-max-bytes = 6\nreports-per-minute = 7\n\
         moderator = 'm'\nstamp-keys = 's'\nkeep-stamp-keys = 8\nname = 'cluster-1'\n\
         metrics = '[::1]:6'",
    )
    .unwrap();
    assert_eq!(settings.server.listen, "[::1]:5".parse().unwrap());
    assert_eq!(settings.server.identity, Identity::Files { cert: "c".into(), key: "k".into() });
    assert_eq!(settings.region, Some(Region::parse("us-west-2").unwrap()));
    assert_eq!(settings.log, "debug");
    assert_eq!(settings.metrics, Some("[::1]:6".parse().unwrap()));
    let target = Target::Nats("a.b".into());
    assert_eq!(settings.reports, Some(reports::Settings { target, nats_url: "nats://n".into(), max_bytes: 6 }));
    assert_eq!(settings.reports_per_minute, 7);
    assert_eq!(settings.moderator, Some("m".into()));
    let store = keeper::Store::Directory("s".into());
    let relay = "cluster-1".parse().unwrap();
    assert_eq!(settings.stamp_keys, keeper::Settings { store, keep_days: 8, relay });
    let expected = Limits {
        max_connections: 1,
        max_per_prefix: 2,
        prefix_rate: 3,
        prefix_burst: 12,
        max_half_open: 4,
        unvalidated_rate: 5,
    };
    assert_eq!(settings.server.limits, expected);
}

#[test]
fn identity_of_the_flags_replaces_that_of_the_file_as_a_whole() {
    let own = resolve(&["--self-signed"], "cert = 'c'\nkey = 'k'").unwrap();
    assert_eq!(own.server.identity, Identity::SelfSigned(SelfSigned::Memory));
    let files = resolve(&["--cert", "c", "--key", "k"], "self-signed = 'd'").unwrap();
    assert_eq!(files.server.identity, Identity::Files { cert: "c".into(), key: "k".into() });
    let mixed = resolve(&["--cert", "new"], "cert = 'old'\nkey = 'k'").unwrap();
    assert_eq!(mixed.server.identity, Identity::Files { cert: "new".into(), key: "k".into() });
}

#[test]
fn unknown_and_impossible_options_of_the_file_are_refused() {
    for text in [
        "listne = '127.0.0.1:1'",
        "config = 'x'",
        "max-connections = 0",
        "region = 'EU!'",
        "listen = 'x'",
        "reports = '/a'",
        "name = 'a b'",
    ] {
        let outcome = resolve(&["--self-signed"], text);
        assert!(matches!(outcome, Err(ConfigError::Parse { .. })), "{text}");
    }
}

#[test]
fn what_concerns_reports_has_defaults_and_flags() {
    let settings = parse(&["--self-signed", "--region", "eu"]).resolve().unwrap();
    assert_eq!((settings.reports, settings.reports_per_minute, settings.moderator), (None, 1_000, None));
    let relay = "eu".parse().unwrap();
    assert_eq!(settings.stamp_keys, keeper::Settings { store: keeper::Store::Memory, keep_days: 30, relay });
    let unnamed = parse(&["--self-signed"]).resolve().unwrap();
    assert_eq!(unnamed.stamp_keys.relay.as_str(), "relay");

    let settings = resolve(&["--self-signed", "--reports", "dir:/r", "--name", "n"], "reports = 'nats:x'\nname = 'm'");
    let settings = settings.unwrap();
    let target = Target::Directory("/r".into());
    assert_eq!(settings.reports, Some(reports::Settings { target, nats_url: String::new(), max_bytes: 1 << 30 }));
    assert_eq!(settings.stamp_keys.relay.as_str(), "n");
    assert!(matches!(parse(&["--self-signed", "--reports", "nats:x"]).resolve(), Err(ConfigError::NoNatsUrl)));
}

#[test]
fn region_is_one_that_a_meeting_can_name() {
    let flag = |name: &str| {
        Cli::command().try_get_matches_from(["conclave-relay", "serve", "--self-signed", "memory", "--region", name])
    };
    for (name, fits) in [("eu", true), ("ap-southeast-2b1", true), ("ap-southeast-2b12", false), ("", false)] {
        assert_eq!(flag(name).is_ok(), fits, "{name}");
        assert_eq!(resolve(&["--self-signed"], &format!("region = '{name}'")).is_ok(), fits, "{name}");
    }
    let message = flag("EU").unwrap_err().to_string();
    assert!(message.contains("1 to 16 of the characters a-z, 0-9 and -"), "{message}");
}

#[test]
fn missing_half_and_double_identities_are_told_apart() {
    assert!(matches!(parse(&[]).resolve(), Err(ConfigError::NoIdentity)));
    assert!(matches!(parse(&["--cert", "c"]).resolve(), Err(ConfigError::HalfIdentity("--key"))));
    assert!(matches!(parse(&["--key", "k"]).resolve(), Err(ConfigError::HalfIdentity("--cert"))));
    assert!(matches!(parse(&["--self-signed", "--key", "k"]).resolve(), Err(ConfigError::TwoIdentities)));
    assert!(matches!(resolve(&[], "self-signed = 'd'\ncert = 'c'"), Err(ConfigError::TwoIdentities)));
}

#[test]
fn self_signed_takes_a_directory_or_none() {
    let identity = |arguments: &[&str]| parse(arguments).resolve().unwrap().server.identity;
    assert_eq!(identity(&["--self-signed"]), Identity::SelfSigned(SelfSigned::Memory));
    assert_eq!(identity(&["--self-signed", "dir"]), Identity::SelfSigned(SelfSigned::Kept("dir".into())));
}
