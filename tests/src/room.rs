//! A meeting without a network: real conferences and the relay's real hub, wired directly. For benches and for
//! tests that measure one step; the simulated world with links and time is in `world`.

use std::time::{Duration, Instant};

use conclave_protocol::conference::{Conference, Event, HostConfig, JoinConfig, Start, Transmit, WaitingRoom};
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::RelayAddress;
use conclave_protocol::time::{FrameDuration, UnixMillis, WallClock};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::FromRelay;
use conclave_relay::core::{ConnId, Core, Output, Peer, PrefixToken};
use conclave_relay::hub::{Config, Hub};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Some wall-clock time to begin at.
const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

/// Everybody in one place; client 0 is the host.
pub struct Room {
    /// The conferences.
    pub clients: Vec<Conference>,
    /// How long, on a real clock, each client took to look at seals that came from the relay.
    pub on_seals: Vec<Duration>,
    hub: Hub,
    now: Instant,
}

impl Room {
    /// A meeting of `members`, the host included, all admitted and in the same epoch.
    ///
    /// # Panics
    /// When somebody does not get in, which no test that uses a room is about.
    pub fn with_members(members: usize) -> Self {
        Self::with_frames(members, FrameDuration::Ms20)
    }

    /// The same with frames of this duration.
    ///
    /// # Panics
    /// As above.
    pub fn with_frames(members: usize, frame: FrameDuration) -> Self {
        let now = Instant::now();
        let config = HostConfig {
            relays: vec![RelayAddress { host: "relay.example".to_owned(), port: 4433, pin: None }],
            identity: Identity::guest(&mut rng(0)),
            name: name(0),
            passcode: None,
            waiting_room: WaitingRoom::AdmitAll,
            max_members: 2_000,
            duration: Duration::from_secs(86_400),
            frame,
            regions: Vec::new(),
            moderators: Vec::new(),
        };
        let host = Conference::host(config, Start { now, wall: WALL }, Box::new(rng(1)));
        let hub = Hub::new(WallClock::new(now, WALL), Config::default());
        let on_seals = vec![Duration::ZERO; members];
        let mut room = Self { clients: vec![host], on_seals, hub, now };
        room.connect(0);
        for number in 1..members {
            room.join(number);
        }
        room.pass(Duration::from_secs(5));
        for client in &room.clients {
            assert_eq!(client.members().count(), members, "somebody is not in the meeting");
        }
        room
    }

    /// The time in the room.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets time pass, running every timer when it is due.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((first, due)) = self.next_due().filter(|&(_, due)| due <= end) {
            self.now = due.max(self.now);
            self.clients[first].handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Lets time pass until the leader makes an epoch, and everybody follow. Returns how long, on a real clock, the
    /// step took in which the leader made it.
    pub fn pass_to_next_epoch(&mut self) -> Duration {
        let epoch = self.clients[0].epoch();
        while let Some((first, due)) = self.next_due() {
            self.now = due.max(self.now);
            let start = Instant::now();
            self.clients[first].handle_timeout(self.now);
            let step = start.elapsed();
            let made = self.clients[0].epoch() != epoch;
            self.settle();
            if made {
                return step;
            }
        }
        Duration::ZERO
    }

    /// Whose timer is due first, and when.
    fn next_due(&self) -> Option<(usize, Instant)> {
        let due = |(i, client): (usize, &Conference)| Some((i, client.poll_timeout()?));
        self.clients.iter().enumerate().filter_map(due).min_by_key(|&(_, due)| due)
    }

    /// Carries messages until nobody has any left.
    pub fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for i in 0..self.clients.len() {
                while let Some(transmit) = self.clients[i].poll_transmit() {
                    quiet = false;
                    if let Transmit::Control(bytes) = transmit {
                        let mut out = Vec::new();
                        self.hub.control(self.now, ConnId(i as u64), &bytes, &mut out);
                        self.deliver(out);
                    }
                }
                while self.clients[i].poll_event().is_some_and(|event| !matches!(event, Event::Failed(_))) {}
            }
            if quiet {
                return;
            }
        }
    }

    fn join(&mut self, number: usize) {
        let link = self.clients[0].link().duplicate();
        let seed = number as u64 * 2;
        let identity = Identity::guest(&mut rng(seed));
        let config = JoinConfig { link, identity, name: name(number), passcode: None };
        let start = Start { now: self.now, wall: WALL };
        self.clients.push(Conference::join(config, start, Box::new(rng(seed + 1))));
        self.connect(number);
        self.settle();
        // Joins that come together share an epoch; here each batch is let through before the message limit of one.
        if number.is_multiple_of(40) {
            self.pass(Duration::from_secs(2));
        }
    }

    fn connect(&mut self, number: usize) {
        let exporter = [number as u8; 32];
        let peer = Peer { exporter, prefix: PrefixToken(number as u64) };
        let mut out = Vec::new();
        self.hub.connected(self.now, ConnId(number as u64), &peer, &mut out);
        self.deliver(out);
        self.clients[number].connected(self.now, exporter);
    }

    fn deliver(&mut self, out: Vec<Output>) {
        for output in out {
            if let Output::Control { to: ConnId(to), bytes } = output {
                let (client, start) = (to as usize, Instant::now());
                self.clients[client].handle_control(self.now, &bytes);
                if matches!(FromRelay::decode(&bytes), Ok(FromRelay::Sealed { .. })) {
                    self.on_seals[client] += start.elapsed();
                }
            }
        }
    }
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A name for the client of that number.
fn name(number: usize) -> DisplayName {
    // Plain letters and digits are always a name.
    DisplayName::parse(&format!("Member {number}")).unwrap_or_else(|_| unreachable!("a plain name"))
}
