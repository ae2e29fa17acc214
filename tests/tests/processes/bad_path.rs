//! Everybody has a bad path to the relay: late, and with every fifth packet lost.

use std::time::{Duration, Instant};

use conclave_tests::process::JsonlClient;
use conclave_tests::proxy::{Config, Impairment, Proxy};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, at, knock_of, newest};

/// One way between client and relay, which is twice what `docs/protocol.md` §12 reckons with; from client to client it
/// is 600 ms.
const BAD: Impairment = Impairment {
    loss: 0.2,
    delay: Duration::from_millis(300),
    jitter: Duration::ZERO,
    duplicate: 0.0,
    reorder: 0.0,
    reorder_by: Duration::ZERO,
};
// Twice the bounds of `docs/protocol.md` §12, for a path twice as long. Measured: 0.6 to 4.8 s, 7.5 to 11 s, at most 2.6 s.
const JOINS_WITHIN: Duration = Duration::from_secs(20);
const CODE_WITHIN: Duration = Duration::from_secs(20);
const REMOVED_WITHIN: Duration = Duration::from_secs(5);
/// Until somebody knocks: a QUIC handshake and three messages.
const KNOCKS_WITHIN: Duration = Duration::from_secs(40);

#[test]
fn join_code_and_removal_complete_for_everybody_on_paths_with_delay_and_loss() {
    let _stage = Stage::shared();
    let relay = conclave_tests::process::RelayProcess::start(&[]).unwrap();
    let proxy = Proxy::start(relay.addr(), Config::symmetric(BAD, 5)).unwrap();
    let host = crate::stage::host_at(proxy.addr(), relay.pin().unwrap(), &[]);
    let link = crate::stage::link_of(&host);
    let mut meeting = Meeting { relay, host, link };
    let names = ["Bela", "Cleo", "Mallory"];
    let mut guests: Vec<JsonlClient> = names.map(|name| crate::stage::join(name, &meeting.link, &[])).into();
    for (guest, name) in guests.iter().zip(names) {
        guest.wait_event("waiting", |waiting| waiting["for"] == "admission", KNOCKS_WITHIN).unwrap();
        knock_of(&meeting.host, name);
    }
    let admitted = Instant::now();
    meeting.host.act("admit_all").unwrap();
    let complete = |roster: &Value| roster["members"].as_array().unwrap().len() == 4;
    let joins = guests.iter().map(|guest| {
        let event = guest.wait_event("admitted", |_| true, JOINS_WITHIN + LIMIT).unwrap();
        guest.wait_event("roster", complete, LIMIT).unwrap();
        at(guest, &event).saturating_duration_since(admitted)
    });
    let joins: Vec<Duration> = joins.collect();
    // Of the epoch with all of them, or one after it.
    let least = guests.iter().map(|guest| newest(guest, "roster").unwrap()["epoch"].as_u64().unwrap()).max().unwrap();
    let everybody = guests.iter().chain([&meeting.host]);
    let codes: Vec<(Duration, Value, Value)> = everybody
        .map(|client| {
            let newer = |code: &Value| code["epoch"].as_u64() >= Some(least);
            let code = client.wait_event("security_code", newer, CODE_WITHIN + LIMIT).unwrap();
            (at(client, &code).saturating_duration_since(admitted), code["epoch"].clone(), code["digits"].clone())
        })
        .collect();
    let times: Vec<Duration> = codes.iter().map(|code| code.0).collect();
    eprintln!("after the admission: joined {joins:?}, code {times:?}");
    assert!(joins.iter().all(|join| *join <= JOINS_WITHIN), "{joins:?}");
    assert!(times.iter().all(|time| *time <= CODE_WITHIN), "{times:?}");

    let removal = Instant::now();
    meeting.host.send(&json!({ "do": "remove", "who": "Mallory" })).unwrap();
    let mut mallory = guests.pop().unwrap();
    let status = mallory.wait_exit(LIMIT).unwrap();
    let own = removal.elapsed();
    let others = guests.iter().chain([&meeting.host]).map(|client| {
        let left = client.wait_event("left", |left| left["name"] == "Mallory", LIMIT).unwrap();
        at(client, &left).saturating_duration_since(removal)
    });
    let others: Vec<Duration> = others.collect();
    eprintln!("after the removal: the removed ended with {status} after {own:?}, the others knew after {others:?}");
    assert!(others.iter().all(|other| *other <= REMOVED_WITHIN), "{others:?}");

    for client in guests.iter().chain([&meeting.host]) {
        assert_eq!(client.events_named("alarm"), Vec::<Value>::new());
    }
    // Codes of one epoch are the same; all are asked for one that has one.
    for code in &codes {
        assert!(codes.iter().all(|other| code.1 != other.1 || code.2 == other.2), "{codes:?}");
    }
    assert_eq!(status, 4);
}
