//! The relay's shell on real loopback sockets, with a core made for the test behind it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "shell/media.rs"]
mod media;
mod support;

use std::time::Duration;

use bytes::Bytes;
use conclave_relay::core::CloseCode;
use conclave_relay::dial::{DialError, client_endpoint, dial};
use conclave_relay::embedded::spawn_thread;
use conclave_relay::framing::{MAX_MESSAGE, MessageWriter};
use conclave_relay::gate::Limits;
use conclave_relay::server::{BindError, Deadlines};
use conclave_relay::tls::{Identity, Pin, SelfSigned, Trust, client_config};
use quinn::ConnectionError;

use support::{Event, PATIENCE, Relay, Room, Told, close_code, patiently};

#[tokio::test]
async fn right_pin_connects_and_both_ends_export_the_same_secret() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.say("exporter").await;
    assert_eq!(client.hear().await, client.dialed.exporter);
    let mut other = relay.dial().await;
    other.say("exporter").await;
    assert_ne!(other.hear().await, client.dialed.exporter);
}

#[tokio::test]
async fn wrong_pin_is_refused_and_told_apart() {
    let relay = Relay::start();
    let expected = Pin::from_bytes([1; Pin::LENGTH]);
    let outcome = relay.try_dial(&Trust::Pin(expected), "relay.test").await;
    let found = relay.embedded.pin().unwrap();
    assert!(matches!(outcome, Err(DialError::WrongPin { expected: e, found: f }) if e == expected && f == found));
    assert!(relay.told.events().is_empty());
}

#[tokio::test]
async fn certificate_files_are_checked_against_roots_and_name() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(vec!["relay.test".into()]).unwrap();
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let relay = Relay::with(|config| config.identity = Identity::Files { cert, key });
    assert_eq!(relay.embedded.pin(), None);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let trust = Trust::WebPki(roots.into());
    assert!(relay.try_dial(&trust, "relay.test").await.is_ok());
    assert!(matches!(relay.try_dial(&trust, "other.test").await, Err(DialError::Untrusted(_))));
    let nobody = Trust::WebPki(rustls::RootCertStore::empty().into());
    assert!(matches!(relay.try_dial(&nobody, "relay.test").await, Err(DialError::Untrusted(_))));
}

#[tokio::test]
async fn self_signed_directory_keeps_the_pin_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::SelfSigned(SelfSigned::Kept(directory.path().into()));
    let first = Relay::with(|config| config.identity = identity.clone());
    let pin = first.embedded.pin().unwrap();
    first.embedded.stop().unwrap();
    let second = Relay::with(|config| config.identity = identity);
    assert!(second.try_dial(&Trust::Pin(pin), "relay.test").await.is_ok());
}

#[tokio::test]
async fn port_in_use_is_an_error_that_names_it() {
    let relay = Relay::start();
    let mut config = Relay::config();
    config.listen = relay.embedded.local_addr();
    let error = spawn_thread(config, Room::default()).unwrap_err();
    assert!(matches!(error, conclave_relay::embedded::SpawnError::Bind(BindError::Socket { .. })));
    assert!(error.to_string().contains(&relay.embedded.local_addr().to_string()));
}

#[tokio::test]
async fn control_messages_of_every_size_come_back_in_order() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    let sizes = [1, 0, 255, 256, 1200, MAX_MESSAGE - 1, MAX_MESSAGE, 3];
    for (index, size) in sizes.into_iter().enumerate() {
        let fill = u8::try_from(index).unwrap();
        client.dialed.writer.send(Bytes::from(vec![fill; size])).await.unwrap();
    }
    for (index, size) in sizes.into_iter().enumerate() {
        let fill = u8::try_from(index).unwrap();
        assert_eq!(client.hear().await, vec![fill; size]);
    }
    let stats = relay.embedded.stats();
    assert_eq!(stats.control_in, sizes.len() as u64);
    assert_eq!(stats.control_bytes_in, sizes.iter().sum::<usize>() as u64);
}

#[tokio::test]
async fn oversized_or_truncated_frame_closes_that_connection_only() {
    let relay = Relay::start();
    let mut bystander = relay.dial().await;
    bystander.echo("before").await;
    let too_long = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    let huge = u32::MAX.to_be_bytes();
    let after_hello = [&[0, 0, 0, 1, b'x'][..], &too_long].concat();
    for garbage in [&too_long[..], &huge, &after_hello, &[0, 0, 0, 9, 1], &[0, 0]] {
        let (connection, mut stream, _receive) = relay.raw().await;
        stream.write_all(garbage).await.unwrap();
        stream.finish().unwrap();
        assert_eq!(close_code(&connection).await, CloseCode::PROTOCOL);
    }
    bystander.echo("after").await;
    patiently(|| relay.embedded.stats().protocol_errors == 5).await;
    patiently(|| relay.embedded.stats().connections_open == 1).await;
}

#[tokio::test]
async fn second_control_stream_cannot_be_opened() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.echo("x").await;
    let second = tokio::time::timeout(Duration::from_millis(100), client.dialed.connection.open_bi()).await;
    assert!(second.is_err(), "the relay allowed a second bidirectional stream");
    let one_way = tokio::time::timeout(Duration::from_millis(100), client.dialed.connection.open_uni()).await;
    assert!(one_way.is_err(), "the relay allowed a unidirectional stream");
}

#[tokio::test]
async fn datagram_reaches_everybody_the_core_names_and_nobody_else() {
    let relay = Relay::start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = relay.dial().await;
        client.echo("in").await;
        clients.push(client);
    }
    let frame = Bytes::from_static(&[0x5a; 160]);
    clients[0].dialed.connection.send_datagram(frame.clone()).unwrap();
    for client in &clients[1..] {
        assert_eq!(client.datagram().await, frame);
    }
    // The answer to this one can only come after a copy of the first, had there been one.
    clients[1].dialed.connection.send_datagram(Bytes::from_static(b"second")).unwrap();
    assert_eq!(clients[0].datagram().await, b"second"[..]);
    let stats = relay.embedded.stats();
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (2, 6));
    assert_eq!((stats.datagram_bytes_in, stats.datagram_bytes_out), (166, 3 * 166));
}

#[tokio::test]
async fn every_frame_of_a_burst_is_delivered_or_counted() {
    const BURST: u64 = 400;
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.say(&format!("burst {BURST}")).await;
    assert_eq!(client.hear().await, b"sent");
    let dropped = relay.embedded.stats().dropped_full;
    assert!(dropped > 0, "the burst is meant to overflow the buffer");
    let mut received = Vec::new();
    for _ in dropped..BURST {
        received.push(client.datagram().await.last().copied().unwrap());
    }
    // The oldest are dropped, so what came is the end of the burst.
    let expected: Vec<u8> = (dropped..BURST).map(|n| (n % 251) as u8).collect();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn client_that_never_says_hello_is_closed_by_its_deadline() {
    let relay = Relay::with(|config| config.deadlines.hello = Duration::from_millis(250));
    let (silent, _send, _receive) = relay.raw().await;
    assert_eq!(close_code(&silent).await, CloseCode::HELLO_TIMEOUT);
    let (slow, mut stream, _receive) = relay.raw().await;
    stream.write_all(&[0, 0, 0, 5, b'h']).await.unwrap();
    assert_eq!(close_code(&slow).await, CloseCode::HELLO_TIMEOUT);
    patiently(|| relay.embedded.stats().hellos_late == 2).await;
    assert!(relay.told.events().is_empty(), "the core heard of a client without a first message");
}

#[tokio::test]
async fn handshake_that_stops_half_way_is_dropped_by_its_deadline() {
    let relay = Relay::with(|config| config.deadlines.handshake = Duration::from_millis(50));
    let first_flight = first_flight_of_a_client(&relay).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&first_flight, relay.embedded.local_addr()).unwrap();
    patiently(|| relay.embedded.stats().handshakes_late == 1).await;
}

#[tokio::test]
async fn garbage_packets_disturb_nobody() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.echo("before").await;
    let flight = first_flight_of_a_client(&relay).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut noise: u32 = 1;
    for round in 0..400_usize {
        let mut packet: Vec<u8> = if round % 2 == 0 { flight.clone() } else { vec![0; round * 3] };
        for byte in packet.iter_mut().skip(round % 60) {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if round % 2 == 1 || noise >> 26 == 0 {
                *byte = (noise >> 24) as u8;
            }
        }
        packet.truncate(1200 - round);
        socket.send_to(&packet, relay.embedded.local_addr()).unwrap();
    }
    client.echo("after").await;
    relay.dial().await.echo("newcomer").await;
    assert_eq!(relay.embedded.stats().connections, 2);
}

#[tokio::test]
async fn queue_of_a_client_that_does_not_read_is_bounded() {
    let relay = Relay::start();
    let mut bystander = relay.dial().await;
    bystander.echo("before").await;
    let mut lazy = relay.dial().await;
    lazy.say("flood 2100 10").await;
    assert_eq!(close_code(&lazy.dialed.connection).await, CloseCode::SLOW_READER);
    let mut heavy = relay.dial().await;
    heavy.say(&format!("flood 100 {MAX_MESSAGE}")).await;
    assert_eq!(close_code(&heavy.dialed.connection).await, CloseCode::SLOW_READER);
    bystander.echo("after").await;
    assert_eq!(relay.embedded.stats().slow_readers, 2);
    patiently(|| relay.told.count(|event| matches!(event, Event::Disconnected(_))) == 2).await;
}

#[tokio::test]
async fn closing_delivers_what_was_said_before_and_hears_nothing_after() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.say("close").await;
    client.say("too late").await;
    assert_eq!(client.hear().await, b"bye");
    assert_eq!(close_code(&client.dialed.connection).await, Room::CLOSED);
    patiently(|| relay.told.count(|event| matches!(event, Event::Disconnected(_))) == 1).await;
    assert_eq!(relay.told.count(|event| matches!(event, Event::Control(text) if text == "too late")), 0);
}

#[tokio::test]
async fn client_that_finishes_its_stream_is_let_go() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.echo("x").await;
    client.dialed.writer.finish().await;
    let connection = client.dialed.connection;
    assert_eq!(close_code(&connection).await, CloseCode::DONE);
    patiently(|| relay.embedded.stats().connections_open == 0).await;
}

#[tokio::test]
async fn core_is_called_at_the_time_it_asks_for() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.say("timer").await;
    assert_eq!(client.hear().await, b"tick");
    client.say("timer").await;
    assert_eq!(client.hear().await, b"tick");
}

#[tokio::test]
async fn network_with_too_many_connections_is_turned_away() {
    let limits = Limits { max_per_prefix: 2, ..Limits::default() };
    let relay = Relay::with(|config| config.limits = limits);
    let mut first = relay.dial().await;
    first.echo("x").await;
    let mut second = relay.dial().await;
    second.echo("x").await;
    assert_eq!(relay.turned_away().await, CloseCode::BUSY);
    assert_eq!(relay.embedded.stats().refused_prefix_count, 1);
    first.dialed.connection.close(0_u32.into(), b"");
    patiently(|| relay.embedded.stats().connections_open == 1).await;
    relay.dial().await.echo("a place became free").await;
}

#[tokio::test]
async fn full_relay_refuses_and_takes_again_when_somebody_leaves() {
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let relay = Relay::with(|config| config.limits = limits);
    let mut first = relay.dial().await;
    first.echo("x").await;
    let outcome = relay.try_dial(&relay.trust(), "relay.test").await;
    assert!(matches!(outcome, Err(DialError::Connection(ConnectionError::ConnectionClosed(_)))));
    assert_eq!(relay.embedded.stats().refused_full, 1);
    first.dialed.connection.close(0_u32.into(), b"");
    patiently(|| relay.embedded.stats().connections_open == 0).await;
    relay.dial().await.echo("a place became free").await;
}

#[tokio::test]
async fn crowd_of_half_open_clients_makes_newcomers_prove_their_address() {
    let limits = Limits { max_half_open: 4, ..Limits::default() };
    let relay = Relay::with(|config| config.limits = limits);
    let _crowd = (relay.raw().await, relay.raw().await);
    assert_eq!(relay.embedded.stats().retries, 0);
    relay.dial().await.echo("through Retry").await;
    assert_eq!(relay.embedded.stats().retries, 1);
}

#[tokio::test]
async fn silent_peer_is_dropped_after_the_idle_timeout() {
    let relay = Relay::with(|config| config.deadlines.idle = Duration::from_millis(200));
    let mut client = relay.dial().await;
    client.echo("x").await;
    patiently(|| relay.embedded.stats().connections_open == 0).await;
    assert_eq!(relay.told.count(|event| matches!(event, Event::Disconnected(_))), 1);
}

#[tokio::test]
async fn shutdown_tells_every_client_and_ends_every_connection() {
    let relay = Relay::start();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = relay.dial().await;
        client.echo("in").await;
        clients.push(client);
    }
    let (half_open, _send, _receive) = relay.raw().await;
    let Relay { embedded, told, .. } = relay;
    let stopped = tokio::task::spawn_blocking(move || embedded.stop());
    for client in &mut clients {
        assert_eq!(client.hear().await, b"farewell");
        assert_eq!(close_code(&client.dialed.connection).await, CloseCode::SHUTDOWN);
    }
    let _ended = tokio::time::timeout(PATIENCE, half_open.closed()).await.unwrap();
    let stats = stopped.await.unwrap().unwrap();
    assert_eq!((stats.connections, stats.connections_open), (3, 0));
    assert_eq!(told.count(|event| matches!(event, Event::Disconnected(_))), 3);
}

#[tokio::test]
async fn dropping_the_handle_stops_the_relay() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.echo("x").await;
    drop(relay);
    assert_eq!(close_code(&client.dialed.connection).await, CloseCode::SHUTDOWN);
}

#[tokio::test]
async fn panic_of_the_core_ends_the_server_with_an_error() {
    let relay = Relay::start();
    let mut client = relay.dial().await;
    client.say("panic").await;
    patiently(|| !relay.embedded.is_running()).await;
    assert!(relay.embedded.stop().is_err());
}

#[test]
fn default_deadlines_are_those_of_the_design() {
    let Deadlines { handshake, hello, idle, .. } = Deadlines::default();
    assert_eq!((handshake.as_secs(), hello.as_secs(), idle.as_secs()), (5, 3, 15));
}

/// The first UDP packet of a handshake, caught on its way to a socket that doesn't answer.
async fn first_flight_of_a_client(relay: &Relay) -> Vec<u8> {
    let trap = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = client_endpoint("127.0.0.1:0".parse().unwrap()).unwrap();
    let tls = client_config(&relay.trust()).unwrap();
    let _connecting = endpoint.connect_with(tls.quic, trap.local_addr().unwrap(), "relay.test").unwrap();
    let mut packet = vec![0; 2000];
    let length = tokio::time::timeout(PATIENCE, trap.recv(&mut packet)).await.unwrap().unwrap();
    packet.truncate(length);
    packet
}

#[tokio::test]
async fn nobody_at_the_other_end_is_a_timeout() {
    let trap = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = client_endpoint("127.0.0.1:0".parse().unwrap()).unwrap();
    let trust = Trust::Pin(Pin::from_bytes([0; Pin::LENGTH]));
    let address = trap.local_addr().unwrap();
    let outcome = dial(&endpoint, address, "relay.test", &trust, Duration::from_millis(50)).await;
    assert!(matches!(outcome, Err(DialError::TimedOut)));
}

#[tokio::test]
async fn message_too_long_to_send_is_refused_here() {
    let relay = Relay::start();
    let (_connection, stream, _receive) = relay.raw().await;
    let mut writer = MessageWriter::new(stream);
    assert!(writer.send(Bytes::from(vec![0; MAX_MESSAGE + 1])).await.is_err());
    let told: &Told = &relay.told;
    assert!(told.events().is_empty());
}
