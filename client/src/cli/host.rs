//! `conclave host`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use conclave_protocol::conference::{Conference, HostConfig, WaitingRoom};
use conclave_protocol::evidence::ban;
use conclave_protocol::link::RelayAddress;
use conclave_protocol::moderator::{MAX_MODERATORS, Moderator};
use conclave_relay::embedded::{EmbeddedRelay, spawn_thread};
use conclave_relay::tls::Pin;

use super::args::{Admit, Host};
use super::{Person, Refusal, converse, engine, key, microphone, person, refuse, reporting, unusable, usage};
use crate::report::Report;
use crate::session::{Bans, Session, start_now, system_rng};

/// How long a meeting may last: no meeting is held longer, and certificates end with it.
const DURATION: Duration = Duration::from_secs(24 * 3600);

/// Longest file of a moderator's public key: more than `Moderator::from_text` takes, which says so.
const MAX_MODERATOR_FILE: u64 = 16 * 1024;
/// Longest file of ban statements: as many as there may be, with as many remarks.
const MAX_BANS_FILE: u64 = 400 * ban::MAX_BANS as u64;

pub(super) fn run(host: Host, start: Instant) -> ExitCode {
    match open(&host) {
        Ok((session, _relay)) => converse(session, &host.common, start),
        Err(refusal) => refuse(refusal, &host.common, start),
    }
}

fn open(host: &Host) -> Result<(Session, Option<EmbeddedRelay>), Refusal> {
    let Person { name, identity, pins, passcode } = person(&host.common)?;
    let engine = engine(&host.common, host.frame_duration())?;
    let (relays, relay) = relays(host)?;
    let waiting_room = match host.admit {
        Admit::Ask => WaitingRoom::Ask,
        Admit::All => WaitingRoom::AdmitAll,
    };
    let config = HostConfig {
        relays: relays.clone(),
        identity,
        name,
        passcode,
        waiting_room,
        max_members: host.max_members,
        duration: DURATION,
        frame: host.frame_duration(),
        regions: Vec::new(),
        moderators: moderators(host)?,
    };
    let conference = Conference::host(config, start_now(), Box::new(system_rng()));
    let first = Some(Report::Link { link: conference.link().reveal().to_string() });
    let session = Session {
        conference,
        pins,
        relays,
        engine,
        profile: host.common.profile,
        microphone: microphone(&host.common),
        key: key(&host.common),
        warn_when_muted: host.common.sound.warn_when_muted,
        leave_after: host.common.seconds.map(Duration::from_secs),
        linger: None,
        first,
        reconnect_for: Duration::from_secs(host.common.reconnect),
        reporting: reporting(&host.common),
        bans: bans(host)?,
    };
    Ok((session, relay))
}

fn moderators(host: &Host) -> Result<Vec<Moderator>, Refusal> {
    if host.moderator.len() > MAX_MODERATORS {
        return Err(usage(format!("--moderator: a meeting has at most {MAX_MODERATORS}")));
    }
    let moderators: Vec<Moderator> =
        host.moderator.iter().map(|path| moderator("--moderator", path)).collect::<Result<_, _>>()?;
    let ids: BTreeSet<_> = moderators.iter().map(Moderator::id).collect();
    if ids.len() != moderators.len() {
        return Err(usage("--moderator: the same key is given twice"));
    }
    Ok(moderators)
}

fn moderator(option: &str, path: &Path) -> Result<Moderator, Refusal> {
    let text = read(option, path, MAX_MODERATOR_FILE)?;
    Moderator::from_text(&text).map_err(|error| unusable(format!("{option}: {}: {error}", path.display())))
}

fn bans(host: &Host) -> Result<Bans, Refusal> {
    let Some(path) = &host.bans else { return Ok(Bans::default()) };
    let text = read("--bans", path, MAX_BANS_FILE)?;
    let statements = ban::parse(&text).map_err(|error| unusable(format!("--bans: {}: {error}", path.display())))?;
    let issuers = host.ban_issuer.iter().map(|path| moderator("--ban-issuer", path)).collect::<Result<_, _>>()?;
    Ok(Bans::new(statements, issuers))
}

fn read(option: &str, path: &Path, max: u64) -> Result<String, Refusal> {
    let fault = |error: &dyn std::fmt::Display| unusable(format!("{option}: {}: {error}", path.display()));
    let file = File::open(path).map_err(|error| fault(&error))?;
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(|error| fault(&error))?;
    if text.len() as u64 > max { Err(fault(&"the file is too long")) } else { Ok(text) }
}

fn relays(host: &Host) -> Result<(Vec<RelayAddress>, Option<EmbeddedRelay>), Refusal> {
    if host.relay.is_empty() {
        let relay = embedded(host)?;
        let address = relay.local_addr();
        let pin = relay.pin().map(|pin| *pin.as_bytes());
        let address = RelayAddress { host: address.ip().to_string(), port: address.port(), pin };
        return Ok((vec![address], Some(relay)));
    }
    if !host.pin.is_empty() && host.pin.len() != host.relay.len() {
        return Err(usage("--pin: give one for each --relay, in the same order; '' for a relay without"));
    }
    let mut relays = Vec::new();
    for (i, text) in host.relay.iter().enumerate() {
        let mut relay = RelayAddress::parse(text).map_err(|_| usage("--relay: give HOST or HOST:PORT"))?;
        if let Some(pin) = host.pin.get(i).filter(|pin| !pin.is_empty()) {
            let pin: Pin = pin.parse().map_err(|_| usage("--pin: give it as the relay prints it, 43 characters"))?;
            relay.pin = Some(*pin.as_bytes());
        }
        relays.push(relay);
    }
    Ok((relays, None))
}

fn embedded(host: &Host) -> Result<EmbeddedRelay, Refusal> {
    let (config, hub) = super::embedded_relay(host.listen);
    Ok(spawn_thread(config, hub).with_context(|| format!("cannot start a relay on {}", host.listen))?)
}
