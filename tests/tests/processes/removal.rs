//! Removal against a relay that leaks: the removed is fed with every ciphertext and opens none.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use conclave_relay::clock::system_clock;
use conclave_relay::core::{ConnId, Core, Output, Peer};
use conclave_relay::embedded::{EmbeddedRelay, spawn_thread};
use conclave_relay::hub::{Config as HubConfig, Hub};
use conclave_relay::server::ServerConfig;
use conclave_relay::tls::{Identity, SelfSigned};
use conclave_tests::process::JsonlClient;
use conclave_tests::proxy::{Config, Impairment, Proxy};
use conclave_tests::speech;
use serde_json::json;

use crate::stage::{LIMIT, Stage, admit, at, end, hears_more, host_at, join, link_of};

/// Twice there and back between two clients makes the round trip of 100 ms.
const HOP: Duration = Duration::from_millis(25);
/// The bound.
const OPENS_UNTIL: Duration = Duration::from_millis(500);

/// The real hub, but what it no longer gives to a connection it once gave frames to, this gives: every frame goes to
/// everybody who ever was a member, and nobody is disconnected.
struct Leaky {
    hub: Hub,
    members: BTreeSet<ConnId>,
}

impl Leaky {
    /// Nobody is put out, nor told by the relay that it should be.
    fn leak(&self, out: &mut Vec<Output>) {
        out.retain(|output| !matches!(output, Output::Close { conn, .. } if self.members.contains(conn)));
    }
}

impl Core for Leaky {
    fn connected(&mut self, now: Instant, conn: ConnId, peer: &Peer, out: &mut Vec<Output>) {
        self.hub.connected(now, conn, peer, out);
        self.leak(out);
    }

    fn control(&mut self, now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>) {
        self.hub.control(now, conn, message, out);
        self.leak(out);
    }

    fn datagram(&mut self, now: Instant, conn: ConnId, datagram: &[u8], to: &mut Vec<ConnId>) {
        self.hub.datagram(now, conn, datagram, to);
        self.members.extend(to.iter().copied());
        if !to.is_empty() {
            to.extend(self.members.iter().filter(|member| **member != conn));
            to.sort_unstable();
            to.dedup();
        }
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Output>) {
        self.members.remove(&conn);
        self.hub.disconnected(now, conn, out);
        self.leak(out);
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.hub.timeout(now, out);
        self.leak(out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.hub.next_timeout()
    }

    fn shutdown(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.hub.shutdown(now, out);
    }
}

fn leaky_relay() -> EmbeddedRelay {
    let config = ServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: Identity::SelfSigned(SelfSigned::Memory),
        limits: Default::default(),
        deadlines: Default::default(),
        forwarding: Default::default(),
    };
    let hub = Hub::new(system_clock(), HubConfig::default());
    spawn_thread(config, Leaky { hub, members: BTreeSet::new() }).unwrap()
}

#[test]
fn removed_member_fed_with_every_frame_by_a_leaking_relay_opens_none_later_than_half_a_second_after_the_act() {
    let stage = Stage::alone();
    let input = stage.sound("talk.wav", &speech::clip(0, 4.0).unwrap());
    let talk = ["--input", input.as_str(), "--loop"];
    let relay = leaky_relay();
    let proxy =
        Proxy::start(relay.local_addr(), Config::symmetric(Impairment { delay: HOP, ..Impairment::default() }, 4))
            .unwrap();
    let mut host = host_at(proxy.addr(), &relay.pin().unwrap().to_string(), &talk);
    let link = link_of(&host);
    let staying = join("Bela", &link, &talk);
    admit(&mut host, "Bela", &staying);
    let mut removed = join("Mallory", &link, &["--linger", "3"]);
    admit(&mut host, "Mallory", &removed);
    hears_more(&removed, "Hestia", 50, LIMIT);
    hears_more(&removed, "Bela", 50, LIMIT);

    // No later than this can the host act.
    let act = Instant::now();
    host.send(&json!({ "do": "remove", "who": "Mallory" })).unwrap();
    let notice = removed.wait_event("removed", |_| true, LIMIT).unwrap();
    let linger = removed.wait_event("linger", |_| true, LIMIT).unwrap();
    assert_eq!(removed.wait_exit(LIMIT).unwrap(), 4);
    check(&removed, act, &notice, &linger);

    let left = staying.wait_event("left", |left| left["name"] == "Mallory", LIMIT).unwrap();
    assert_eq!(left["why"], "removed");
    hears_more(&staying, "Hestia", 50, LIMIT);
    hears_more(&host, "Bela", 50, LIMIT);
    assert_eq!(staying.events_named("alarm").len() + host.events_named("alarm").len(), 0);
    end(host, vec![staying]);
}

/// Times of another process are the latest that they can have been, so the bound is never made easier.
fn check(removed: &JsonlClient, act: Instant, notice: &serde_json::Value, linger: &serde_json::Value) {
    let known = at(removed, notice).saturating_duration_since(act);
    let fed = linger["datagrams"].as_u64().unwrap();
    let opened = linger["last_opened_ms"].as_u64().map(Duration::from_millis);
    let last = known + opened.unwrap_or_default();
    eprintln!(
        "removed knew after {known:?}; then {fed} frames came, {} opened, the last {last:?} after the act",
        linger["opened"]
    );
    // Two talkers for 3 s give 300.
    assert!(fed > 50, "the relay leaked only {fed} frames");
    assert!(last <= OPENS_UNTIL, "a frame opened {last:?} after the act");
}
