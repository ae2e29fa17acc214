//! What the operator sees of a real relay process over HTTP.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, as tests do")]

mod process;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use conclave_protocol::id::MemberIndex;
use conclave_protocol::wire::datagram::{self, Kind};

use process::{Meeting, PATIENCE, Relay};

/// As many as are answered at once.
const PLACES: usize = 16;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes back; nothing when there is no connection.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _refused = stream.write_all(request);
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// Status and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn scrape(address: SocketAddr) -> String {
    let (status, page) = get(address, "/metrics");
    assert_eq!(status, 200, "{page}");
    page
}

/// The value of the line that begins so; the prefix of all is left out.
fn value(page: &str, key: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("conclave_relay_{key} ")));
    line.unwrap_or_else(|| panic!("no {key} in\n{page}")).parse().unwrap()
}

/// Waits until a reading is what it must be soon.
async fn patiently<T>(read: impl Fn() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reading = read();
        if is_right(&reading) {
            return reading;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn page_is_off_unless_it_is_asked_for() {
    assert_eq!(Relay::start(&[]).metrics, None);
}

#[tokio::test]
async fn a_frame_from_one_member_to_two_moves_the_counters() {
    let relay = Relay::start(&["--metrics", "127.0.0.1:0"]);
    let address = relay.metrics.unwrap();
    let before = scrape(address);
    for key in ["connections_open", "meetings", "members", "frames_received_total", "packets_sent_total"] {
        assert_eq!(value(&before, key), 0.0, "{key}");
    }
    let meeting = Meeting::new(1);
    let (talker, _) = meeting.enter(&relay, 1).await;
    let (one, _) = meeting.enter(&relay, 2).await;
    let (two, _) = meeting.enter(&relay, 3).await;
    let mut frame = datagram::header(Kind::Media, MemberIndex(1)).to_vec();
    frame.extend_from_slice(&[0xAB; 120]);
    talker.dialed.connection.send_datagram(frame.clone().into()).unwrap();
    for listener in [&one, &two] {
        let heard = tokio::time::timeout(PATIENCE, listener.dialed.connection.read_datagram()).await;
        assert_eq!(heard.unwrap().unwrap(), frame);
    }
    // Copies are counted right after they are sent, which a listener may be quicker to hear.
    let after = patiently(|| scrape(address), |page| value(page, "frames_forwarded_total") == 2.0).await;
    for (key, expected) in [
        ("connections_open", 3.0),
        ("connections_total", 3.0),
        ("handshakes_total{outcome=\"completed\"}", 3.0),
        ("meetings", 1.0),
        ("members", 3.0),
        ("guests", 0.0),
        ("slots_taken_total", 3.0),
        ("messages_total{type=\"attach\"}", 3.0),
        ("frames_received_total", 1.0),
        ("frames_received_bytes_total", 123.0),
        ("frames_forwarded_bytes_total", 246.0),
        ("frames_dropped_total{reason=\"late\"}", 0.0),
        ("frame_residence_seconds_count", 2.0),
    ] {
        assert_eq!(value(&after, key), expected, "{key}");
    }
    assert!(value(&after, "packets_sent_bytes_total") > 246.0 && value(&after, "packets_received_total") > 3.0);
}

#[tokio::test]
async fn full_relay_lives_and_is_not_ready_until_somebody_leaves() {
    let relay = Relay::start(&["--metrics", "127.0.0.1:0", "--max-connections", "1"]);
    let address = relay.metrics.unwrap();
    assert_eq!(get(address, "/readyz"), (200, "ready\n".into()));
    let (member, _) = Meeting::new(1).enter(&relay, 1).await;
    patiently(|| get(address, "/readyz"), |answer| *answer == (503, "full\n".into())).await;
    assert_eq!(get(address, "/healthz"), (200, "alive\n".into()));
    member.dialed.connection.close(0_u8.into(), b"");
    patiently(|| get(address, "/readyz"), |answer| *answer == (200, "ready\n".into())).await;
}

/// Whether a relay was seen on its way out. That takes it less than a second; on a busy machine nobody may look meanwhile.
async fn stops_visibly() -> bool {
    let mut relay = Relay::start(&["--metrics", "127.0.0.1:0"]);
    let address = relay.metrics.unwrap();
    let (member, _) = Meeting::new(1).enter(&relay, 1).await;
    let child = relay.child.as_mut().unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    // As long as nothing else runs here the member takes no leave, and the relay waits for it.
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        let answer = exchange(address, b"GET /readyz HTTP/1.0\r\n\r\n");
        seen.extend(answer.lines().last().map(str::to_owned));
    }
    drop(member);
    let ready = seen.iter().take_while(|answer| *answer == "ready").count();
    assert!(seen[ready..].iter().all(|answer| answer == "stopping"), "{seen:?}");
    ready < seen.len()
}

#[tokio::test]
async fn stopping_relay_is_not_ready() {
    for _ in 0..5 {
        if stops_visibly().await {
            return;
        }
    }
    panic!("it was never seen to stop");
}

#[test]
fn other_requests_and_garbage_get_an_answer_of_their_own_and_nothing_else() {
    let relay = Relay::start(&["--metrics", "127.0.0.1:0"]);
    let address = relay.metrics.unwrap();
    assert_eq!(get(address, "/").0, 404);
    assert_eq!(get(address, "/metrics/../healthz").0, 404);
    let status = |request: &[u8]| exchange(address, request).split(' ').nth(1).map(str::to_owned);
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").as_deref(), Some("405"));
    assert_eq!(status(b"\x16\x03\x01 not HTTP at all\r\n\r\n").as_deref(), Some("400"));
    let endless = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 * 1024]].concat();
    assert_ne!(status(&endless).as_deref(), Some("200"));
    let two = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(address, two).matches("HTTP/1.1 ").count(), 1, "one request for each connection");
    let head = exchange(address, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert_eq!(get(address, "/healthz").0, 200);
}

#[test]
fn readers_that_hang_or_leave_keep_out_nobody() {
    let relay = Relay::start(&["--metrics", "127.0.0.1:0"]);
    let address = relay.metrics.unwrap();
    let hanging: Vec<TcpStream> = (0..PLACES).map(|_| connect(address)).collect();
    for mut stream in &hanging {
        stream.write_all(b"GET /metrics HT").unwrap();
    }
    // Those are gone before it is their turn.
    drop((0..PLACES).map(|_| connect(address)).collect::<Vec<_>>());
    assert!(scrape(address).contains("conclave_relay_build_info"));
    let mut answer = Vec::new();
    let _reset = (&hanging[0]).read_to_end(&mut answer);
    assert!(answer.is_empty(), "its time is over");
    // Who asks and reads nothing is left alone too.
    let mut deaf = connect(address);
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    deaf.shutdown(Shutdown::Read).unwrap();
    assert_eq!(get(address, "/healthz").0, 200);
}
