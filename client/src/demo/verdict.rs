//! What the demo showed: who heard whom, who could open what, what the relay saw, and whether it is as promised.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_protocol::conference::Conference;
use conclave_protocol::sframe::frame::PLAINTEXT_LEN;
use serde::Serialize;

use super::Times;
use super::cast::{Part, Person, same_from};
use super::tap::Seen;
use crate::audio::format::SAMPLE_RATE;
use crate::report::TalkerStats;
use crate::session::{Finished, TalkerSummary};

/// A removed member opens nothing that is sent later than this after the act (DESIGN §5).
const REMOVAL_BOUND: Duration = Duration::from_millis(500);
/// Share of the frames a listener could have heard that it must have played for the demo to be a success.
const ENOUGH: f64 = 0.95;

/// The demo's result.
#[derive(Serialize)]
pub struct Verdict {
    /// Everything is as promised.
    pub ok: bool,
    /// What is not, in words.
    pub faults: Vec<String>,
    /// Everybody.
    pub people: Vec<PersonResult>,
    /// Per listener and talker.
    pub pairs: Vec<Pair>,
    /// The one who was removed.
    pub removed: Outsider,
    /// The one who was denied.
    pub denied: Outsider,
    /// The relay.
    pub relay: RelaySight,
}

/// One person.
#[derive(Serialize)]
pub struct PersonResult {
    /// Name.
    pub name: String,
    /// host, guest, removed or denied.
    pub part: &'static str,
    /// Frames sent.
    pub sent: u64,
    /// What the person said, 48 kHz mono WAV in the output directory.
    pub said: String,
    /// What the person heard, likewise.
    pub heard: String,
}

/// What one listener heard of one talker.
#[derive(Serialize)]
pub struct Pair {
    /// Who heard.
    pub listener: String,
    /// Who talked.
    pub talker: String,
    /// Frames the talker sent while the listener was there, as the relay saw them.
    pub sent: u64,
    /// Figures of the listener.
    #[serde(flatten)]
    pub stats: TalkerStats,
    /// First and last frame opened, in ms after the first frame that the relay saw.
    pub opened_from_to_ms: Option<(u64, u64)>,
}

/// Somebody who must not hear, tested with every ciphertext that passed the relay.
#[derive(Serialize)]
pub struct Outsider {
    /// Name.
    pub name: String,
    /// Frames heard while it was allowed.
    pub opened_before: u64,
    /// Ciphertexts tried afterwards: everything that passed the relay after the bound.
    pub tried: u64,
    /// How many of them opened.
    pub opened: u64,
}

/// What the relay saw.
#[derive(Serialize)]
pub struct RelaySight {
    /// Media datagrams by size.
    pub media_sizes: BTreeMap<usize, u64>,
    /// Media datagrams handed on.
    pub forwarded: u64,
    /// Control messages and their bytes.
    pub control_messages: u64,
    /// Bytes of them.
    pub control_bytes: u64,
    /// Names of people found in anything that the relay saw: must be empty.
    pub names_found: Vec<String>,
}

pub(super) fn judge(
    cast: &[Person],
    finished: Vec<(String, Finished)>,
    seen: &Seen,
    times: &Times,
    out: &Path,
) -> Result<Verdict> {
    let mut by_name: BTreeMap<String, Finished> = finished.into_iter().collect();
    let origin = seen.media.first().map(|(at, _)| *at).context("no media passed the relay")?;
    let pairs = pairs(cast, &by_name, seen, origin);
    let people = cast.iter().map(|p| person_result(p, &by_name)).collect();
    let removed = test_outsider(cast, Part::Removed, &mut by_name, seen, times.removal + REMOVAL_BOUND)?;
    let denied = test_outsider(cast, Part::Denied, &mut by_name, seen, origin)?;
    let relay = relay_sight(cast, seen);
    let mut faults: Vec<String> = pairs.iter().filter_map(pair_fault).collect();
    faults.extend(
        [&removed, &denied]
            .into_iter()
            .filter(|o| o.opened > 0)
            .map(|o| format!("{} opened {} of {} ciphertexts that were not for it", o.name, o.opened, o.tried)),
    );
    faults.extend(same_speech(cast));
    if relay.media_sizes.len() != 1 {
        faults.push("media datagrams had more than one size".to_owned());
    }
    faults.extend(relay.names_found.iter().map(|name| format!("the relay saw the name {name}")));
    faults.extend(
        cast.iter().filter(|p| !out.join(p.heard_file()).exists()).map(|p| format!("{} is missing", p.heard_file())),
    );
    Ok(Verdict { ok: faults.is_empty(), faults, people, pairs, removed, denied, relay })
}

fn person_result(person: &Person, finished: &BTreeMap<String, Finished>) -> PersonResult {
    PersonResult {
        name: person.name.clone(),
        part: match person.part {
            Part::Host => "host",
            Part::Guest => "guest",
            Part::Removed => "removed",
            Part::Denied => "denied",
        },
        sent: finished.get(&person.name).map_or(0, |f| f.sent),
        said: person.said_file(),
        heard: person.heard_file(),
    }
}

fn pairs(cast: &[Person], finished: &BTreeMap<String, Finished>, seen: &Seen, origin: Instant) -> Vec<Pair> {
    let millis = |at: Instant| u64::try_from(at.saturating_duration_since(origin).as_millis()).unwrap_or(u64::MAX);
    let mut pairs = Vec::new();
    for person in cast {
        let Some(end) = finished.get(&person.name) else { continue };
        for TalkerSummary { stats, first_opened, last_opened } in &end.talkers {
            let span = first_opened.zip(*last_opened);
            // A frame reaches the listener a moment after the relay, so the relay's times bound it from before.
            let sent = span.map_or(0, |(first, last)| sent_between(seen, stats.index, first, last));
            pairs.push(Pair {
                listener: person.name.clone(),
                talker: stats.name.clone(),
                sent,
                stats: stats.clone(),
                opened_from_to_ms: span.map(|(first, last)| (millis(first), millis(last))),
            });
        }
    }
    pairs
}

fn sent_between(seen: &Seen, slot: u16, first: Instant, last: Instant) -> u64 {
    /// Longest way from the relay to a listener on one machine.
    const WAY: Duration = Duration::from_millis(20);
    let of_slot = |bytes: &[u8]| bytes.get(1..3) == Some(&slot.to_be_bytes()[..]);
    let within = |at: Instant| at + WAY >= first && at <= last;
    seen.media.iter().filter(|(at, bytes)| within(*at) && of_slot(bytes)).count() as u64
}

fn pair_fault(pair: &Pair) -> Option<String> {
    let enough = pair.sent as f64 * ENOUGH;
    // Frames still in the playout buffer at the end were received and not played.
    (pair.sent == 0 || (pair.stats.received as f64) < enough).then(|| {
        format!("{} heard only {} of {} frames of {}", pair.listener, pair.stats.received, pair.sent, pair.talker)
    })
}

/// Who says the same at the same time as somebody else: what is heard would not show of whom.
fn same_speech(cast: &[Person]) -> Vec<String> {
    let pairs = cast.iter().enumerate().flat_map(|(i, one)| cast.iter().skip(i + 1).map(move |other| (one, other)));
    pairs
        .filter_map(|(one, other)| same_from(one, other).map(|at| (one, other, at as f64 / f64::from(SAMPLE_RATE))))
        .map(|(one, other, at)| format!("{} and {} say the same {at:.1} s into their speech", one.name, other.name))
        .collect()
}

fn test_outsider(
    cast: &[Person],
    part: Part,
    finished: &mut BTreeMap<String, Finished>,
    seen: &Seen,
    from: Instant,
) -> Result<Outsider> {
    let person = cast.iter().find(|p| p.part == part).context("somebody is missing from the cast")?;
    let end = finished.get_mut(&person.name).context("somebody never finished")?;
    let opened_before = end.talkers.iter().map(|t| t.stats.received).sum();
    let after = seen.media.iter().filter(|(at, _)| *at >= from);
    let (mut tried, mut opened) = (0, 0);
    for (at, datagram) in after {
        tried += 1;
        opened += u64::from(opens(&mut end.conference, *at, datagram));
    }
    Ok(Outsider { name: person.name.clone(), opened_before, tried, opened })
}

fn opens(conference: &mut Conference, at: Instant, datagram: &[u8]) -> bool {
    let mut plaintext = [0; PLAINTEXT_LEN];
    matches!(conference.open(at, datagram, &mut plaintext), Ok(Some(_)))
}

fn relay_sight(cast: &[Person], seen: &Seen) -> RelaySight {
    let mut media_sizes = BTreeMap::new();
    for sizes in seen.sizes.values() {
        for (size, count) in sizes {
            *media_sizes.entry(*size).or_insert(0) += count;
        }
    }
    let media = seen.media.iter().map(|(_, bytes)| bytes.as_slice());
    let everything: Vec<&[u8]> = seen.control.iter().map(Vec::as_slice).chain(media).collect();
    let holds = |name: &str| everything.iter().any(|bytes| bytes.windows(name.len()).any(|w| w == name.as_bytes()));
    let names_found = cast.iter().filter(|p| holds(&p.name)).map(|p| p.name.clone()).collect();
    RelaySight {
        media_sizes,
        forwarded: seen.forwarded,
        control_messages: seen.control.len() as u64,
        control_bytes: seen.control.iter().map(|m| m.len() as u64).sum(),
        names_found,
    }
}
