//! A bad path adds its own delay and nothing else.

use std::time::Duration;

use conclave_tests::process::RelayProcess;
use conclave_tests::proxy::{Config, Direction, Impairment, Proxy};
use conclave_tests::speech;
use serde_json::Value;

use crate::stage::{LIMIT, Stage, admit, end, hears_more, host_at, join, link_of, observe, quantile, talker};

const HOP: Duration = Duration::from_millis(75);
const LOSS: f64 = 0.05;
/// From sender to relay to receiver, in ms.
const PATH: f64 = 150.0;
/// The bound: what everything else may add at p99, in ms.
const ADDED: f64 = 5.0;
const OBSERVED: Duration = Duration::from_secs(12);

#[test]
fn frames_cross_a_path_of_seventy_five_ms_per_hop_and_five_percent_loss_without_waiting() {
    let stage = Stage::alone();
    let input = stage.sound("talk.wav", &speech::clip(0, 8.0).unwrap());
    let talk = ["--input", input.as_str(), "--loop"];
    let relay = RelayProcess::start(&[]).unwrap();
    let proxy = Proxy::start(relay.addr(), Config::symmetric(Impairment::of(HOP, LOSS), 7)).unwrap();
    let mut host = host_at(proxy.addr(), relay.pin().unwrap(), &talk);
    let link = link_of(&host);
    let guests = ["Bela", "Cleo"].map(|name| join(name, &link, &talk));
    for (name, guest) in ["Bela", "Cleo"].iter().zip(&guests) {
        admit(&mut host, name, guest);
    }
    hears_more(&guests[0], "Cleo", 50, LIMIT);
    hears_more(&host, "Cleo", 50, LIMIT);

    let marks: Vec<_> =
        [&host, &guests[0], &guests[1]].iter().map(|client| client.events_named("stats").len()).collect();
    observe(OBSERVED);
    let mut delays = Vec::new();
    let mut losses = Vec::new();
    for (client, mark) in [&host, &guests[0], &guests[1]].into_iter().zip(marks) {
        let stats = client.events_named("stats").split_off(mark);
        for name in ["Hestia", "Bela", "Cleo"] {
            delays.extend(stats.iter().filter_map(|stats| talker(stats, name)["network_ms"]["max"].as_f64()));
            losses.extend(loss(&stats, name));
        }
    }
    // Each value is the latest of about 45 frames. If frames are late independently of each other, the p99 of all
    // frames is exceeded in 1 - 0.99^45 = 36 % of them: it is their 64 % quantile.
    let p99 = quantile(&delays, 0.64);
    let (least, most) = (quantile(&delays, 0.0), quantile(&delays, 1.0));
    let lateness = proxy.lateness();
    eprintln!(
        "p99 of frames {p99:.1} ms (maxima per second from {least:.1} to {most:.1}); proxy late by {lateness:?}; loss {losses:.3?}"
    );
    assert!(delays.len() >= 6 * 10, "{delays:?}");
    // The proxy is the path, and on a busy machine it is late itself.
    let path = PATH + 2.0 * lateness.p99.as_secs_f64() * 1000.0;
    assert!(p99 <= path + ADDED, "p99 {p99} ms over a path of {path} ms: {delays:?}; proxy {lateness:?}");
    // The path was as bad as it should be: 1 - 0.95^2 of the frames were lost, which delayed no other.
    let lost = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((0.06..0.14).contains(&lost), "{losses:?}");
    assert!(proxy.counters(Direction::Up).lost > 100);
    end(host, guests.into());
}

/// The share of a talker's frames that a listener did not get, from its first figures to its last.
fn loss(stats: &[Value], name: &str) -> Option<f64> {
    let count = |stats: &Value, field: &str| talker(stats, name)[field].as_u64();
    let (first, last) = (stats.first()?, stats.last()?);
    let lost = count(last, "lost")? - count(first, "lost")?;
    let received = count(last, "received")? - count(first, "received")?;
    Some(lost as f64 / (lost + received) as f64)
}
