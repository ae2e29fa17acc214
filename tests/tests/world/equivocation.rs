//! A host that tells two members two histories. Its twin is the same program with the same randomness: both make the
//! same meeting from the same input, until each is told something else.

use std::time::{Duration, Instant};

use conclave_protocol::conference::{
    AlarmKind, Conference, Event, HostConfig, JoinConfig, Start, Transmit, WaitingRoom,
};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::RelayAddress;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::time::{FrameDuration, UnixMillis, WallClock};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{EVERYBODY, ToRelay};
use conclave_relay::core::{ConnId, Core, Output, Peer, PrefixToken};
use conclave_relay::hub::{Config, Hub};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{millis, secs};

const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

/// Host and twin at 0 and 1, then the members; the relay knows the twins as one.
struct Stage {
    clients: Vec<Conference>,
    events: Vec<Vec<Event>>,
    datagrams: Vec<(usize, Vec<u8>)>,
    hub: Hub,
    now: Instant,
    forked: bool,
}

fn rng(seed: u64) -> Box<ChaCha20Rng> {
    Box::new(ChaCha20Rng::seed_from_u64(seed))
}

fn conn(client: usize) -> ConnId {
    ConnId(client.max(1) as u64)
}

impl Stage {
    fn new(members: usize) -> Self {
        let now = Instant::now();
        let host = || {
            let config = HostConfig {
                relays: vec![RelayAddress { host: "relay.test".into(), port: 4433, pin: None }],
                identity: Identity::guest(&mut *rng(1)),
                name: DisplayName::parse("Host").expect("a name"),
                passcode: None,
                waiting_room: WaitingRoom::AdmitAll,
                max_members: 20,
                duration: secs(3_600),
                frame: FrameDuration::Ms20,
                regions: Vec::new(),
                moderators: Vec::new(),
            };
            Conference::host(config, Start { now, wall: WALL }, rng(2))
        };
        let hub = Hub::new(WallClock::new(now, WALL), Config::default());
        let clients = vec![host(), host()];
        let mut stage = Self { clients, events: Vec::new(), datagrams: Vec::new(), hub, now, forked: false };
        stage.events = vec![Vec::new(), Vec::new()];
        stage.connect(1);
        for member in 0..members {
            let link = stage.clients[0].link().duplicate();
            let seed = 100 + member as u64;
            let identity = Identity::guest(&mut *rng(seed));
            let name = DisplayName::parse(&format!("Member {member}")).expect("a name");
            let config = JoinConfig { link, identity, name, passcode: None };
            stage.clients.push(Conference::join(config, Start { now: stage.now, wall: WALL }, rng(seed + 1_000)));
            stage.events.push(Vec::new());
            stage.connect(member + 2);
            stage.pass(secs(2));
        }
        stage
    }

    /// What the relay says to the host both twins hear.
    fn hearers(&self, to: ConnId) -> Vec<usize> {
        if to == ConnId(1) { vec![0, 1] } else { vec![to.0 as usize] }
    }

    fn connect(&mut self, client: usize) {
        let exporter = [client as u8; 32];
        let peer = Peer { exporter, prefix: PrefixToken(client as u64) };
        let mut out = Vec::new();
        self.hub.connected(self.now, conn(client), &peer, &mut out);
        for hearer in self.hearers(conn(client)) {
            self.clients[hearer].connected(self.now, exporter);
        }
        self.deliver(out);
        self.settle();
    }

    fn deliver(&mut self, out: Vec<Output>) {
        for output in out {
            if let Output::Control { to, bytes } = output {
                for hearer in self.hearers(to) {
                    self.clients[hearer].handle_control(self.now, &bytes);
                }
            }
        }
    }

    /// Whether what a twin sends goes out: until they part, the first one's; then each to its own half, and what goes
    /// to everybody from both.
    fn passes(&self, client: usize, message: &ToRelay) -> bool {
        match (client, message) {
            (2.., _) => true,
            (_, ToRelay::Send { to: EVERYBODY, .. }) if self.forked => true,
            (_, ToRelay::Send { to: MemberIndex(to), .. }) if self.forked => usize::from(*to) % 2 == client,
            _ => client == 0,
        }
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for client in 0..self.clients.len() {
                while let Some(transmit) = self.clients[client].poll_transmit() {
                    quiet = false;
                    self.transmit(client, transmit);
                }
                while let Some(event) = self.clients[client].poll_event() {
                    self.events[client].push(event);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn transmit(&mut self, client: usize, transmit: Transmit) {
        match transmit {
            Transmit::Control(bytes) => {
                let message = ToRelay::decode(&bytes).expect("clients send messages");
                if self.passes(client, &message) {
                    let mut out = Vec::new();
                    self.hub.control(self.now, conn(client), &bytes, &mut out);
                    self.deliver(out);
                }
            }
            Transmit::Datagram(bytes) => self.datagrams.push((client, bytes)),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.clients.iter().filter_map(Conference::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            for client in 0..self.clients.len() {
                if self.clients[client].poll_timeout().is_some_and(|due| due <= self.now) {
                    self.clients[client].handle_timeout(self.now);
                }
            }
            self.settle();
        }
        self.now = end;
    }

    fn alarms(&self, client: usize, wanted: AlarmKind) -> usize {
        let is_it = |event: &&Event| matches!(event, Event::Alarm { kind, .. } if *kind == wanted);
        self.events[client].iter().filter(is_it).count()
    }

    /// How many of a member's frames another one opens.
    fn heard(&mut self, talker: usize, listener: usize) -> usize {
        let mut opened = 0;
        for seq in 0..10 {
            let frame = Frame { seq, stamp: 0, microphone: Microphone::On, level: 9, opus: &[7; 80] };
            let (mut datagram, mut plaintext) = ([0; DATAGRAM_LEN], [0; PLAINTEXT_LEN]);
            self.clients[talker].seal(self.now, &frame, &mut datagram).expect("a member seals");
            let got = self.clients[listener].open(self.now, &datagram, &mut plaintext);
            opened += usize::from(matches!(got, Ok(Some(_))));
        }
        opened
    }
}

#[test]
fn host_that_tells_two_histories_is_found_out_by_everybody_with_proof_and_nobody_hears_across() {
    let mut stage = Stage::new(4);
    stage.pass(secs(5));
    assert_eq!(stage.heard(2, 3), 10, "at first everybody hears everybody");
    stage.forked = true;
    let now = stage.now;
    stage.clients[0].lock(now, true).expect("the host may");
    stage.clients[1].mute_newcomers(now, true).expect("the host may");
    stage.settle();
    stage.pass(millis(1_500));
    // Indexes 1 and 3 follow the second twin, 2 and 4 the first.
    assert_ne!(stage.clients[2].chain_hash(), stage.clients[3].chain_hash());
    assert_eq!(stage.clients[2].chain_hash(), stage.clients[4].chain_hash());
    assert_eq!(stage.clients[3].chain_hash(), stage.clients[5].chain_hash());
    stage.pass(millis(8_500));
    for client in 2..6 {
        assert_eq!(stage.alarms(client, AlarmKind::Equivocation), 1, "client {client} has not found out");
        assert!(stage.clients[client].proof().is_some());
    }
    stage.pass(secs(2));
    assert_eq!(stage.heard(2, 3), 0);
    assert_eq!(stage.heard(3, 4), 0);
}

#[test]
fn honest_twins_raise_no_alarm() {
    let mut stage = Stage::new(3);
    let now = stage.now;
    stage.clients[0].lock(now, true).expect("the host may");
    stage.clients[1].lock(now, true).expect("the host may");
    stage.settle();
    stage.pass(secs(20));
    for client in 0..5 {
        assert!(!stage.events[client].iter().any(|event| matches!(event, Event::Alarm { .. })), "client {client}");
        assert!(stage.events[client].iter().any(|event| matches!(event, Event::SecurityCode { .. })));
    }
    let codes: Vec<_> = stage.clients.iter().map(|client| client.security_code().cloned()).collect();
    assert!(codes.iter().all(|code| code.is_some() && *code == codes[0]), "codes differ");
}
