//! `conclave join`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use conclave_protocol::conference::{Conference, JoinConfig};
use conclave_protocol::link::Link;

use super::args::Join;
use super::{Person, Refusal, converse, engine, key, microphone, person, refuse, reporting, usage};
use crate::audio::format::FrameDuration;
use crate::session::{Bans, Session, start_now, system_rng};

pub(super) fn run(join: &Join, start: Instant) -> ExitCode {
    match prepare(join) {
        Ok(session) => converse(session, &join.common, start),
        Err(refusal) => refuse(refusal, &join.common, start),
    }
}

fn prepare(join: &Join) -> Result<Session, Refusal> {
    let link = Link::parse(&join.link).map_err(|error| usage(error.to_string()))?;
    let Person { name, identity, pins, passcode } = person(&join.common)?;
    // The meeting says later how long its frames are.
    let engine = engine(&join.common, FrameDuration::Ms20)?;
    let relays = link.relays.clone();
    let config = JoinConfig { link, identity, name, passcode };
    let conference = Conference::join(config, start_now(), Box::new(system_rng()));
    Ok(Session {
        conference,
        pins,
        relays,
        engine,
        profile: join.common.profile,
        microphone: microphone(&join.common),
        key: key(&join.common),
        warn_when_muted: join.common.sound.warn_when_muted,
        leave_after: join.common.seconds.map(Duration::from_secs),
        first: None,
        linger: join.linger.map(Duration::from_secs),
        reconnect_for: Duration::from_secs(join.common.reconnect),
        reporting: reporting(&join.common),
        bans: Bans::default(),
    })
}
