//! The simulated world: real clients, the relay's real core, an eavesdropper and a hostile operator, over a bad
//! network, in virtual time, all from one seed.
//!
//! Nothing here sleeps or reads a clock. What happens next is the head of one queue; after each step the [`Witness`],
//! the [`Eavesdropper`] and the [`Model`] check what must always hold, and fail the test at that very step. A test
//! that fails names its seed and step; with `CONCLAVE_SEED` set to the seed only that one is run.

mod act;
pub mod dice;
pub mod eavesdropper;
mod faults;
pub mod model;
pub mod net;
pub mod peer;
pub mod relay;
pub mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::{Duration, Instant};

use conclave_protocol::conference::{AlarmKind, Event, Transmit};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::time::UnixMillis;
use conclave_relay::core::{ConnId, Peer as Connection, PrefixToken};

pub use act::{Guest, Meeting, moderator};
pub use model::Entry;
pub use net::{Conditions, GilbertElliott};
pub use peer::{HOST, Manners, Who};

use dice::Dice;
use eavesdropper::Eavesdropper;
use model::Model;
use peer::Peer;
use relay::{Outgoing, Payload, Relay};
use witness::Witness;

/// The wall clock at the beginning of every world: 2026-01-01T00:00:00Z.
pub const DAWN: UnixMillis = UnixMillis(1_767_225_600_000);

/// Between two frames of a talker.
pub const FRAME: Duration = Duration::from_millis(20);

/// Runs a test on each of `count` seeds, or on the one that `CONCLAVE_SEED` names.
pub fn for_seeds(count: u64, mut test: impl FnMut(u64)) {
    match std::env::var("CONCLAVE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => test(seed),
        None => (0..count).for_each(test),
    }
}

enum Arrival {
    AtRelay(ConnId, Vec<u8>),
    DatagramAtRelay(ConnId, Payload),
    OutOfRelay(Outgoing),
    AtPeer(Who, ConnId, Payload),
    DatagramAtPeer(Who, ConnId, Payload),
    Closed(Who, ConnId),
    HungUp(ConnId),
    Noticed(Who, ConnId),
    Restored(Who),
    Timer(Who),
    RelayTimer,
    Tick(Who),
}

/// What a recorder keeps of everything that crossed the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Crossing {
    /// A client's control message.
    In(ConnId, Vec<u8>),
    /// A control message to a client.
    Out(Who, Vec<u8>),
    /// A datagram to a client.
    Datagram(Who, Vec<u8>),
}

/// A world.
pub struct World {
    seed: u64,
    step: u64,
    base: Instant,
    now: Duration,
    dice: Dice,
    queue: BTreeMap<(Duration, u64), Arrival>,
    queued: u64,
    peers: Vec<Peer>,
    owners: BTreeMap<ConnId, Who>,
    exporters: BTreeMap<ConnId, [u8; 32]>,
    relay_timer: Option<Duration>,
    /// Connections through which nothing comes any more.
    severed: BTreeSet<ConnId>,
    model: Option<Model>,
    /// Somebody forges frames or seals with the meeting's keys. Nobody comes into doubt where nobody does.
    pub forges: bool,
    /// Everything that crossed the relay, if anybody wants it.
    pub record: Option<Vec<Crossing>>,
    /// The relay.
    pub relay: Relay,
    /// What is known from outside.
    pub witness: Witness,
    /// Who looks for secrets.
    pub eavesdropper: Eavesdropper,
}

impl World {
    /// A world with a relay in it.
    pub fn new(seed: u64) -> Self {
        let base = Instant::now();
        Self {
            seed,
            step: 0,
            base,
            now: Duration::ZERO,
            dice: Dice::new(seed, 0),
            queue: BTreeMap::new(),
            queued: 0,
            peers: Vec::new(),
            owners: BTreeMap::new(),
            exporters: BTreeMap::new(),
            relay_timer: None,
            severed: BTreeSet::new(),
            model: None,
            forges: false,
            record: None,
            relay: Relay::new(base, DAWN),
            witness: Witness::default(),
            eavesdropper: Eavesdropper::default(),
        }
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The same as the protocol sees it.
    pub fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// The world's dice.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// A client.
    pub fn peer(&self, who: Who) -> &Peer {
        &self.peers[who.0]
    }

    /// A client, to be changed.
    pub fn peer_mut(&mut self, who: Who) -> &mut Peer {
        &mut self.peers[who.0]
    }

    /// Whether a client can send media now.
    pub fn can_send(&self, who: Who) -> bool {
        self.peer(who).conference.can_send(self.instant())
    }

    /// All clients that ever were.
    pub fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        (0..self.peers.len()).map(Who)
    }

    /// The reference model.
    pub fn model(&mut self) -> &mut Model {
        self.model.as_mut().expect("a meeting is open")
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step_before(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, but not longer than `most`; whether it was done.
    pub fn run_until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + most;
        while !done(self) {
            if !self.step_before(end) {
                self.now = end;
                return done(self);
            }
        }
        true
    }

    fn step_before(&mut self, end: Duration) -> bool {
        let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) else { return false };
        let ((at, _), arrival) = next.remove_entry();
        self.now = self.now.max(at);
        self.step += 1;
        self.arrive(arrival);
        true
    }

    fn queue(&mut self, at: Duration, arrival: Arrival) {
        self.queued += 1;
        self.queue.insert((at, self.queued), arrival);
    }

    fn arrive(&mut self, arrival: Arrival) {
        let now = self.instant();
        if self.is_severed(&arrival) {
            return;
        }
        match arrival {
            Arrival::AtRelay(conn, message) => self.on_control(conn, &message),
            Arrival::DatagramAtRelay(conn, datagram) => {
                self.search(&datagram);
                let out = self.relay.datagram(now, conn, datagram, &mut self.dice);
                self.out_of_relay(out);
            }
            Arrival::OutOfRelay(outgoing) => self.send_out(outgoing),
            Arrival::AtPeer(who, conn, message) => {
                if self.peer(who).conn == Some(conn) {
                    self.peer_mut(who).conference.handle_control(now, &message);
                    self.settle(who);
                }
            }
            Arrival::DatagramAtPeer(who, conn, datagram) => {
                if self.peer(who).conn == Some(conn) {
                    self.open(who, &datagram);
                }
            }
            Arrival::Closed(who, conn) => {
                if self.peer(who).conn == Some(conn) {
                    self.hang_up(who);
                }
            }
            Arrival::HungUp(conn) => {
                let out = self.relay.disconnected(now, conn, &mut self.dice);
                self.out_of_relay(out);
            }
            Arrival::Noticed(who, conn) => self.on_noticed(who, conn),
            Arrival::Restored(who) => self.on_restored(who),
            Arrival::Timer(who) => self.on_timer(who),
            Arrival::RelayTimer => {
                self.relay_timer = None;
                let out = self.relay.timeout(now, &mut self.dice);
                self.out_of_relay(out);
            }
            Arrival::Tick(who) => self.on_tick(who),
        }
    }

    fn is_severed(&self, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::AtRelay(conn, _)
            | Arrival::DatagramAtRelay(conn, _)
            | Arrival::AtPeer(_, conn, _)
            | Arrival::DatagramAtPeer(_, conn, _)
            | Arrival::Closed(_, conn) => self.severed.contains(conn),
            Arrival::Timer(who) | Arrival::Tick(who) => self.peer(*who).dead,
            _ => false,
        }
    }

    // ---- the relay ----

    fn on_control(&mut self, conn: ConnId, message: &[u8]) {
        let now = self.instant();
        self.search(message);
        if let Some(exporter) = self.exporters.remove(&conn) {
            let prefix = PrefixToken(self.owners[&conn].0 as u64);
            self.relay.connected(now, conn, Connection { exporter, prefix });
        }
        if let Some(record) = &mut self.record {
            record.push(Crossing::In(conn, message.to_vec()));
        }
        let out = self.relay.control(now, conn, message, &mut self.dice);
        self.out_of_relay(out);
    }

    fn out_of_relay(&mut self, outgoing: Vec<(Duration, Outgoing)>) {
        for (delay, outgoing) in outgoing {
            if delay.is_zero() {
                self.send_out(outgoing);
            } else {
                self.queue(self.now + delay, Arrival::OutOfRelay(outgoing));
            }
        }
        let due = self.relay.next_timeout().map(|at| at.saturating_duration_since(self.base));
        if let Some(due) = due.filter(|due| self.relay_timer.is_none_or(|armed| *due < armed)) {
            self.relay_timer = Some(due);
            self.queue(due, Arrival::RelayTimer);
        }
    }

    fn send_out(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Control(conn, bytes) => {
                let Some(who) = self.owners.get(&conn).copied() else { return };
                self.search(&bytes);
                if let Some(record) = &mut self.record {
                    record.push(Crossing::Out(who, bytes.to_vec()));
                }
                let at = self.peers[who.0].down.control(self.now, &mut self.dice);
                self.queue(at, Arrival::AtPeer(who, conn, bytes));
            }
            Outgoing::Datagram(conn, bytes) => {
                let Some(who) = self.owners.get(&conn).copied() else { return };
                if let Some(record) = &mut self.record {
                    record.push(Crossing::Datagram(who, bytes.to_vec()));
                }
                for at in self.peers[who.0].down.datagram(self.now, &mut self.dice) {
                    self.queue(at, Arrival::DatagramAtPeer(who, conn, Payload::clone(&bytes)));
                }
            }
            Outgoing::Close(conn) => {
                let Some(who) = self.owners.get(&conn).copied() else { return };
                let at = self.peers[who.0].down.control(self.now, &mut self.dice);
                self.queue(at, Arrival::Closed(who, conn));
            }
        }
    }

    fn search(&mut self, bytes: &[u8]) {
        if let Some(secret) = self.eavesdropper.find_secret(bytes) {
            assert!(secret.is_empty(), "the relay has seen {secret}");
        }
    }

    // ---- the clients ----

    fn on_timer(&mut self, who: Who) {
        self.peers[who.0].timer = None;
        let now = self.instant();
        let conference = &mut self.peers[who.0].conference;
        if conference.poll_timeout().is_some_and(|due| due <= now) {
            conference.handle_timeout(now);
            // What that has brought into being may be overdue itself, but only once.
            if conference.poll_timeout().is_some_and(|due| due <= now) {
                conference.handle_timeout(now);
            }
            let again = conference.poll_timeout().is_some_and(|due| due <= now);
            let name = &self.peers[who.0].name;
            assert!(!again, "the timer of {name} has fired and is due again at once");
        }
        self.settle(who);
    }

    fn on_tick(&mut self, who: Who) {
        let (base, now) = (self.base, self.now);
        let peer = &mut self.peers[who.0];
        // Who is silent sleeps half a second at a time: its clock goes on.
        let frames = if peer.talks { 1 } else { 25 };
        peer.tick += frames;
        self.queue(now + FRAME * frames, Arrival::Tick(who));
        let peer = &mut self.peers[who.0];
        let Some(conn) = peer.conn.filter(|_| peer.talks && peer.conference.can_send(base + now)) else { return };
        let opus = peer.voice.packet(peer.tick);
        let stamp = (now.as_millis() as u32).wrapping_mul(100);
        let (microphone, level, opus): (_, _, &[u8]) =
            if peer.mutes { (Microphone::Muted, 127, &[]) } else { (Microphone::On, 20, &opus) };
        let frame = Frame { seq: peer.tick, stamp, microphone, level, opus };
        let mut datagram = [0; DATAGRAM_LEN];
        if peer.conference.seal(base + now, &frame, &mut datagram).is_err() {
            return;
        }
        self.witness.sealed(now, peer, peer.tick, &datagram);
        let datagram = Payload::from(&datagram[..]);
        for at in peer.up.datagram(now, &mut self.dice) {
            self.queue(at, Arrival::DatagramAtRelay(conn, Payload::clone(&datagram)));
        }
        // The end of a segment is a deadline.
        self.arm(who);
    }

    /// Hands a datagram to a client, whoever it is from.
    pub fn open(&mut self, who: Who, datagram: &[u8]) {
        let now = self.instant();
        let peer = &mut self.peers[who.0];
        peer.datagrams += 1;
        let mut plaintext = [0; PLAINTEXT_LEN];
        let opened = peer.conference.open(now, datagram, &mut plaintext).ok().flatten();
        if let Some((index, frame)) = opened {
            self.witness.opened(self.now, peer, index.0, &frame);
        }
        self.settle(who);
    }

    /// After each change of a client: sends what it wants sent, hears what it says, checks what it shows.
    fn settle(&mut self, who: Who) {
        let peer = &mut self.peers[who.0];
        for secret in peer.drawn.take() {
            self.eavesdropper.plant(&secret, "a key");
        }
        while let Some(transmit) = self.peers[who.0].conference.poll_transmit() {
            self.transmit(who, transmit);
        }
        let mut plaintext = [0; PLAINTEXT_LEN];
        while let Some((index, frame, _)) = self.peers[who.0].conference.poll_frame(&mut plaintext) {
            // Borrowed from the buffer, not from the client.
            self.witness.opened(self.now, &mut self.peers[who.0], index.0, &frame);
        }
        let (mut is_over, mut rejoins) = (false, false);
        while let Some(event) = self.peers[who.0].conference.poll_event() {
            is_over |= matches!(event, Event::Denied(_) | Event::Removed | Event::Ended { .. } | Event::Failed(_));
            rejoins |= matches!(event, Event::Rejoining);
            if let Event::Alarm { kind: AlarmKind::Injected | AlarmKind::BadSeal, index, .. } = event {
                assert!(self.forges, "{index:?} comes into doubt, and nobody forges seals or frames");
            }
            if who == HOST {
                self.on_host_event(&event);
            }
            self.peers[who.0].events.push((self.now, event));
        }
        let peer = &mut self.peers[who.0];
        let epoch = (peer.conference.index(), peer.conference.epoch().number());
        if epoch.0.is_some() && epoch != peer.seen_epoch {
            assert!(epoch.0 != peer.seen_epoch.0 || epoch.1 > peer.seen_epoch.1, "an epoch went back");
            peer.seen_epoch = epoch;
            self.witness.in_epoch(peer);
        }
        if is_over && peer.manners == Manners::HangsUp {
            self.hang_up(who);
        }
        self.arm(who);
        if rejoins && !is_over && self.peers[who.0].conn.is_some() {
            self.hang_up(who);
            self.connect(who);
        }
    }

    fn transmit(&mut self, who: Who, transmit: Transmit) {
        let peer = &mut self.peers[who.0];
        let Some(conn) = peer.conn else { return };
        match transmit {
            Transmit::Control(message) => {
                let at = peer.up.control(self.now, &mut self.dice);
                self.queue(at, Arrival::AtRelay(conn, message));
            }
            Transmit::Datagram(bytes) => {
                let bytes = Payload::from(bytes);
                for at in peer.up.datagram(self.now, &mut self.dice) {
                    self.queue(at, Arrival::DatagramAtRelay(conn, Payload::clone(&bytes)));
                }
            }
        }
    }

    fn arm(&mut self, who: Who) {
        let peer = &mut self.peers[who.0];
        let due = peer.conference.poll_timeout().map(|at| at.saturating_duration_since(self.base).max(self.now));
        if let Some(due) = due.filter(|due| peer.timer.is_none_or(|armed| *due < armed)) {
            peer.timer = Some(due);
            self.queue(due, Arrival::Timer(who));
        }
    }

    fn on_host_event(&mut self, event: &Event) {
        let Some(model) = &mut self.model else { return };
        match event {
            Event::Joined { index, name } => model.joined(index.0, name.as_str()),
            Event::Left { index, name, why } => model.left(index.0, name.as_str(), *why),
            Event::Roster { .. } => model.compare(&self.peers[HOST.0].roster()),
            _ => {}
        }
    }

    /// The datagrams on record that the relay sent to a client.
    pub fn datagrams_for(&self, who: Who) -> Vec<Vec<u8>> {
        let crossings = self.record.iter().flatten();
        let mine = crossings.filter_map(|crossing| match crossing {
            Crossing::Datagram(to, bytes) if *to == who => Some(bytes.clone()),
            _ => None,
        });
        mine.collect()
    }

    // ---- the end ----

    /// Fails unless all members who are here are in the same epoch, with the same history and roster, and the roster
    /// is the model's.
    pub fn assert_converged(&mut self) {
        let host = self.peer(HOST);
        let (epoch, hash) = (host.conference.epoch(), host.conference.chain_hash());
        let roster = host.roster();
        self.model().settled();
        self.model().compare(&roster);
        for (index, name) in &roster {
            let member = self.peers.iter().find(|peer| peer.name == *name).expect("a member of this world");
            assert_eq!(member.conference.index().map(|i| i.0), Some(*index), "{name} does not know its index");
            assert_eq!(member.conference.epoch(), epoch, "{name} has stayed behind");
            assert_eq!(member.conference.chain_hash(), hash, "{name} has another history");
            assert_eq!(member.roster(), roster, "{name} has another roster");
        }
    }

    /// Where some of the clients are, and what each was told last, for a test that fails.
    pub fn story(&self, of: &[Who]) -> String {
        let told = |who: &Who| {
            let peer = self.peer(*who);
            let c = &peer.conference;
            let place = (c.index(), c.epoch(), c.term(), c.leader());
            let last: Vec<String> =
                peer.events.iter().rev().take(16).rev().map(|event| format!("  {event:?}")).collect();
            let dead = match (peer.dead, peer.gone, peer.conn) {
                (true, ..) => " (dead)",
                (_, true, _) => " (gone)",
                (_, _, None) => " (not connected)",
                (_, _, Some(conn)) if self.severed.contains(&conn) => " (cut off)",
                _ => "",
            };
            format!("{}{dead} {place:?}\n{}", peer.name, last.join("\n"))
        };
        of.iter().map(told).collect::<Vec<_>>().join("\n")
    }

    /// The ticks of a talker in a time that a listener has not opened.
    pub fn unheard(&self, listener: Who, talker: Who, from: Duration, to: Duration) -> Vec<u32> {
        let Some(index) = self.peer(talker).conference.index().map(|i| i.0) else { return Vec::new() };
        let opened = &self.peer(listener).opened;
        let ticks = self.witness.ticks(index, from, to);
        let mut unheard: Vec<u32> = ticks.filter(|seq| !opened.contains_key(&(index, *seq))).collect();
        unheard.sort_unstable();
        unheard
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, step, now) = (self.seed, self.step, self.now);
            if std::env::var_os("CONCLAVE_STORY").is_some() {
                let everybody: Vec<Who> = self.everybody().collect();
                let _ = std::io::stderr().write_all(self.story(&everybody).as_bytes());
            }
            let text = format!("world failed at step {step}, {now:?} after its beginning: CONCLAVE_SEED={seed}\n");
            // Nothing is left to be done about an error here.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}
