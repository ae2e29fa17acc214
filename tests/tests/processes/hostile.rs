//! Garbage, replays and abuse on every socket and pipe: the meeting goes on, and nothing grows.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use conclave_relay::dial::{Dialed, bind_for, client_endpoint, dial};
use conclave_relay::framing::{MAX_MESSAGE, MessageWriter};
use conclave_relay::tls::{Trust, client_config};
use conclave_tests::process::{JsonlClient, resident_bytes};
use conclave_tests::proxy::{Config, Direction, FlowId, Impairment, Observed, Proxy, Record};
use conclave_tests::speech;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use crate::stage::{LIMIT, Meeting, Stage, end, hears_more, join};

/// A process that keeps garbage would grow by more: the attacks here send it over 10 MB.
const GROWTH: u64 = 8_000_000;

/// A meeting of three who all talk. `Bela` comes by way of a proxy, so that its sockets can be reached from both sides.
struct Victims {
    meeting: Meeting,
    proxy: Proxy,
    bela: JsonlClient,
    cleo: JsonlClient,
    before: Vec<u64>,
}

impl Victims {
    fn gather(stage: &Stage) -> Self {
        let input = stage.sound("talk.wav", &speech::clip(0, 8.0).unwrap());
        let talk = ["--input", input.as_str(), "--loop"];
        let mut meeting = Meeting::open(&talk);
        let config = Config { record: Record::Bytes(8 << 20), ..Config::default() };
        let proxy = Proxy::start(meeting.relay.addr(), config).unwrap();
        let bela = join("Bela", &meeting.link_by_way_of(proxy.addr()), &talk);
        meeting.admit("Bela", &bela);
        let cleo = meeting.guest("Cleo", &talk);
        let mut victims = Self { meeting, proxy, bela, cleo, before: Vec::new() };
        victims.hear_each_other();
        victims.before = victims.memory();
        victims
    }

    fn memory(&self) -> Vec<u64> {
        let pids = [self.meeting.relay.pid(), self.meeting.host.pid(), self.bela.pid(), self.cleo.pid()];
        pids.iter().map(|pid| resident_bytes(*pid).unwrap()).collect()
    }

    fn hear_each_other(&self) {
        let within = Duration::from_secs(5);
        hears_more(&self.cleo, "Bela", 50, within);
        hears_more(&self.bela, "Hestia", 50, within);
        hears_more(&self.meeting.host, "Cleo", 50, within);
    }

    /// The meeting goes on, nobody has noticed anything, and nothing has grown.
    fn unharmed(self) {
        self.hear_each_other();
        for (before, after) in self.before.iter().zip(self.memory()) {
            eprintln!("{:.1} MB became {:.1} MB", *before as f64 / 1e6, after as f64 / 1e6);
            assert!(after < before + GROWTH, "{before} bytes became {after}");
        }
        for client in [&self.meeting.host, &self.bela, &self.cleo] {
            assert_eq!(client.events_named("alarm"), Vec::<serde_json::Value>::new());
            assert!(client.events_named("left").is_empty());
            assert!(!client.stderr().contains("panicked"), "{}", client.stderr());
        }
        assert!(!self.meeting.relay.stderr().contains("panicked"), "{}", self.meeting.relay.stderr());
        let mut guest = join("Dora", &self.meeting.link, &[]);
        guest.wait_event("waiting", |_| true, LIMIT).unwrap();
        guest.act("leave").unwrap();
        assert_eq!(guest.wait_exit(LIMIT).unwrap(), 0);
        end(self.meeting.host, vec![self.bela, self.cleo]);
    }
}

#[test]
fn garbage_truncated_oversized_changed_and_replayed_packets_disturb_nobody() {
    let stage = Stage::alone();
    let victims = Victims::gather(&stage);
    let recorded: Vec<Observed> = victims.proxy.take_recorded();
    assert!(recorded.len() > 200);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let relay = victims.meeting.relay.addr();
    let flow = FlowId(0);
    for round in 0..4_000u32 {
        let packet = hostile_packet(&mut rng, &recorded);
        match round % 3 {
            0 => drop(stranger.send_to(&packet, relay).unwrap()),
            1 => victims.proxy.inject(flow, Direction::Up, &packet).unwrap(),
            _ => victims.proxy.inject(flow, Direction::Down, &packet).unwrap(),
        }
        // So that what is tested are the parsers and not the kernel's buffers.
        std::thread::sleep(Duration::from_micros(500));
    }
    victims.unharmed();
}

/// Something that QUIC must bear: noise, or a real packet that is replayed, cut, lengthened or changed.
fn hostile_packet(rng: &mut ChaCha8Rng, recorded: &[Observed]) -> Vec<u8> {
    let mut below = |limit: usize| rng.next_u32() as usize % limit;
    let mut packet = recorded[below(recorded.len())].bytes.clone();
    match below(6) {
        0 => {}
        1 => packet.truncate(below(packet.len())),
        2 => packet.resize(65_507, 0x55),
        3 => packet.extend_from_slice(&recorded[below(recorded.len())].bytes),
        4 => {
            for _ in 0..4 {
                let place = below(packet.len());
                packet[place] ^= 1 << below(8);
            }
        }
        _ => {
            packet = vec![0; below(1500)];
            rng.fill_bytes(&mut packet);
        }
    }
    packet
}

#[test]
fn path_that_loses_doubles_and_reorders_packets_lets_the_meeting_go_on() {
    let stage = Stage::alone();
    let victims = Victims::gather(&stage);
    let ms = Duration::from_millis;
    let bad =
        Impairment { delay: ms(20), jitter: ms(10), loss: 0.02, duplicate: 0.1, reorder: 0.1, reorder_by: ms(15) };
    victims.proxy.set(Direction::Up, bad);
    victims.proxy.set(Direction::Down, bad);
    hears_more(&victims.cleo, "Bela", 200, LIMIT);
    hears_more(&victims.bela, "Hestia", 200, LIMIT);
    let counters = victims.proxy.counters(Direction::Down);
    assert!(counters.duplicated > 20 && counters.reordered > 20, "{counters:?}");
    victims.unharmed();
}

#[test]
fn strangers_who_speak_quic_and_talk_nonsense_are_put_out_and_disturb_nobody() {
    let stage = Stage::alone();
    let victims = Victims::gather(&stage);
    let (relay, pin) = (victims.meeting.relay.addr(), victims.meeting.relay.pin().unwrap().to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let trust = Trust::Pin(pin.parse().unwrap());
        for seed in 0..12 {
            talk_nonsense(relay, &trust, seed).await;
            announce_too_much(relay, &trust).await;
        }
    });
    victims.unharmed();
}

/// Garbage in well-formed frames on the control stream, and datagrams of all sizes. Put out by the relay in the end.
async fn talk_nonsense(relay: SocketAddr, trust: &Trust, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let endpoint = client_endpoint(bind_for(relay)).unwrap();
    let dialed = dial(&endpoint, relay, "localhost", trust, LIMIT).await.unwrap();
    let Dialed { connection, mut writer, reader: _reader, exporter: _, .. } = dialed;
    for number in 0..200u32 {
        let mut message = vec![0; rng.next_u32() as usize % MAX_MESSAGE];
        rng.fill_bytes(&mut message);
        // Later ones begin like the messages that the relay knows.
        if let (Some(first), true) = (message.first_mut(), number % 2 == 1) {
            *first = (number % 16) as u8;
        }
        let mut datagram = vec![1; rng.next_u32() as usize % 1_100];
        datagram.iter_mut().skip(1).for_each(|byte| *byte = rng.next_u32() as u8);
        let _ = connection.send_datagram(datagram.into());
        if writer.send(Bytes::from(message)).await.is_err() {
            break;
        }
    }
    tokio::time::timeout(LIMIT, connection.closed()).await.expect("the relay puts out who talks nonsense");
}

/// A control message that would be 4 GB long.
async fn announce_too_much(relay: SocketAddr, trust: &Trust) {
    let endpoint = client_endpoint(bind_for(relay)).unwrap();
    let tls = client_config(trust).unwrap();
    let connection = endpoint.connect_with(tls.quic.clone(), relay, "localhost").unwrap().await.unwrap();
    let (mut stream, _receive) = connection.open_bi().await.unwrap();
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    tokio::time::timeout(LIMIT, connection.closed()).await.expect("the relay puts out who announces too much");
    drop(MessageWriter::new(stream));
}

#[test]
fn garbage_on_standard_input_is_refused_line_by_line_and_disturbs_nobody() {
    let stage = Stage::alone();
    let mut victims = Victims::gather(&stage);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let lines =
        ["{", "[]", "null", "\"leave\"", "{\"do\":5}", "{\"do\":\"leave\",\"x\":1}", "{\"do\":\"leave\"", "leave"];
    for client in [&mut victims.meeting.host, &mut victims.bela] {
        for line in lines {
            client.send_line(line).unwrap();
        }
        client.send_line(&format!("{{\"do\":\"remove\",\"who\":\"{}\"}}", "x".repeat(1 << 20))).unwrap();
        client.send_line(&"[".repeat(1 << 16)).unwrap();
        let mut noise = vec![0; 100_000];
        rng.fill_bytes(&mut noise);
        client.send_bytes(&noise).unwrap();
        client.send_line("").unwrap();
        // Commands are carried out in order, so what comes after the garbage was read after it.
        let mark = client.mark();
        client.send_line("{\"do\":\"fly\"}").unwrap();
        client
            .wait_event_after(mark, "error", |error| error.to_string().contains("no command is called so"), LIMIT)
            .unwrap();
        assert!(client.events_named("error").len() > lines.len() + 2);
        assert_eq!(client.faults(), Vec::<String>::new());
    }
    victims.bela.close_stdin();
    victims.unharmed();
}
