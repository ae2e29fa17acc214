//! Who really said it. An insider holds all of a talker's media keys, and the relay helps: its frames come first, seals
//! are lost, late, or shown to some and not to others. The insider is a twin of the talker, the same program with the
//! same randomness and the same input, so that it seals other sounds under the same keys and numbers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conclave_protocol::conference::{
    AlarmKind, Conference, Event, HostConfig, JoinConfig, Start, Transmit, WaitingRoom,
};
use conclave_protocol::descriptor::Descriptor;
use conclave_protocol::epoch::roster::Member;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::RelayAddress;
use conclave_protocol::seal::Contradiction;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::stamp::SealPublic;
use conclave_protocol::time::{FrameDuration, UnixMillis, WallClock};
use conclave_protocol::wire::codec::{Reader, Wire};
use conclave_protocol::wire::relay::{FromRelay, ToRelay};
use conclave_relay::core::{ConnId, Core, Output, Peer, PrefixToken};
use conclave_relay::hub::{Config, Hub};
use conclave_tests::world::net::Conditions;
use conclave_tests::world::{Guest, HOST, Meeting, Who, World, for_seeds};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{millis, secs};

const WALL: UnixMillis = UnixMillis(1_800_000_000_000);
const FRAME: Duration = Duration::from_millis(20);

/// Who is on the stage, by their places among the clients. The relay knows the talker and its twin as one.
const TALKER: usize = 1;
const TWIN: usize = 2;
const LISTENERS: [usize; 3] = [0, 3, 4];
/// The one who is told something else.
const DECEIVED: usize = 4;
const TALKERS_INDEX: MemberIndex = MemberIndex(1);

/// What the relay does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plot {
    None,
    /// The twin's frames go out before the talker's.
    Injects,
    /// The twin's frames go out while the talker is silent.
    SpeaksAlone,
    /// The deceived hears the twin instead of the talker, with the twin's seals.
    TellsTwoThings,
    /// Everybody gets the twin's seals with the talker's frames.
    OtherSeals,
}

struct Stage {
    clients: Vec<Conference>,
    events: Vec<Vec<(Instant, Event)>>,
    /// What each heard in the talker's name, and when: the place of who made the sound.
    heard: Vec<Vec<(Instant, usize)>>,
    twins_seals: BTreeMap<u64, Vec<u8>>,
    hub: Hub,
    now: Instant,
    seq: u32,
    plot: Plot,
}

fn rng(seed: u64) -> Box<ChaCha20Rng> {
    Box::new(ChaCha20Rng::seed_from_u64(seed))
}

fn name(text: &str) -> DisplayName {
    DisplayName::parse(text).expect("a name")
}

/// The relay's connection of a client.
fn conn(client: usize) -> ConnId {
    ConnId(if client == TWIN { TALKER } else { client } as u64)
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        let config = HostConfig {
            relays: vec![RelayAddress { host: "relay.test".into(), port: 4433, pin: None }],
            identity: Identity::guest(&mut *rng(1)),
            name: name("Host"),
            passcode: None,
            waiting_room: WaitingRoom::AdmitAll,
            max_members: 20,
            duration: secs(3_600),
            frame: FrameDuration::Ms20,
            regions: Vec::new(),
            moderators: Vec::new(),
        };
        let host = Conference::host(config, Start { now, wall: WALL }, rng(2));
        let hub = Hub::new(WallClock::new(now, WALL), Config::default());
        let (events, heard) = (vec![Vec::new(); 5], vec![Vec::new(); 5]);
        let twins_seals = BTreeMap::new();
        let mut stage = Self { clients: vec![host], events, heard, twins_seals, hub, now, seq: 0, plot: Plot::None };
        stage.connect(0);
        stage.bring(&[TALKER, TWIN]);
        stage.bring(&[3]);
        stage.bring(&[4]);
        stage.pass(secs(3));
        stage
    }

    /// Joins as one member.
    fn bring(&mut self, places: &[usize]) {
        let link = self.clients[0].link().duplicate();
        let seed = 100 + places[0] as u64;
        for _ in places {
            let identity = Identity::guest(&mut *rng(seed));
            let config = JoinConfig { link: link.duplicate(), identity, name: name("Somebody"), passcode: None };
            let start = Start { now: self.now, wall: WALL };
            self.clients.push(Conference::join(config, start, rng(seed + 1_000)));
        }
        self.connect(places[0]);
        self.pass(secs(2));
    }

    fn hearers(&self, to: ConnId) -> Vec<usize> {
        (0..self.clients.len()).filter(|client| conn(*client) == to).collect()
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
            let Output::Control { to, bytes } = output else { continue };
            for hearer in self.hearers(to) {
                let bytes = self.replaced(hearer, &bytes).unwrap_or_else(|| bytes.to_vec());
                self.clients[hearer].handle_control(self.now, &bytes);
                self.hear_late(hearer);
            }
        }
    }

    /// What the relay puts in the place of a message.
    fn replaced(&self, hearer: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let deceives = match self.plot {
            Plot::TellsTwoThings => hearer == DECEIVED,
            Plot::OtherSeals => true,
            _ => false,
        };
        let Ok(FromRelay::Sealed { from: TALKERS_INDEX, stamp, bytes }) = FromRelay::decode(bytes) else { return None };
        let public = SealPublic::decode(&bytes[..SealPublic::WIRE_LEN]).expect("a seal");
        let other = self.twins_seals.get(&public.kid).filter(|_| deceives && LISTENERS.contains(&hearer))?;
        Some(FromRelay::Sealed { from: TALKERS_INDEX, stamp, bytes: other.clone() }.encode())
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            // The twin first: what it would send in the talker's place must be known then.
            for client in
                [TWIN, 0, TALKER, 3, 4].into_iter().filter(|client| *client < self.clients.len()).collect::<Vec<_>>()
            {
                while let Some(transmit) = self.clients[client].poll_transmit() {
                    quiet = false;
                    self.transmit(client, transmit);
                }
                while let Some(event) = self.clients[client].poll_event() {
                    self.events[client].push((self.now, event));
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn transmit(&mut self, client: usize, transmit: Transmit) {
        let Transmit::Control(bytes) = transmit else { return };
        if client == TWIN {
            if let Ok(ToRelay::Seal { bytes }) = ToRelay::decode(&bytes) {
                let public = SealPublic::decode(&bytes[..SealPublic::WIRE_LEN]).expect("a seal");
                self.twins_seals.insert(public.kid, bytes);
            }
            return;
        }
        let mut out = Vec::new();
        self.hub.control(self.now, conn(client), &bytes, &mut out);
        self.deliver(out);
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

    /// Everybody talks for a while.
    fn talk(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / FRAME.as_millis() {
            self.seq += 1;
            let frames: Vec<_> = (0..self.clients.len()).map(|client| self.frame(client)).collect();
            for listener in LISTENERS {
                for talker in LISTENERS.into_iter().filter(|talker| *talker != listener) {
                    self.hear(listener, &frames[talker]);
                }
                let order: &[usize] = match self.plot {
                    Plot::Injects => &[TWIN, TALKER],
                    Plot::SpeaksAlone => &[TWIN],
                    Plot::TellsTwoThings if listener == DECEIVED => &[TWIN],
                    _ => &[TALKER],
                };
                order.iter().for_each(|talker| self.hear(listener, &frames[*talker]));
            }
            self.pass(FRAME);
        }
    }

    /// A frame of a client; its sound is its place. While the insider speaks alone, the talker says nothing.
    fn frame(&mut self, client: usize) -> [u8; DATAGRAM_LEN] {
        let mut datagram = [0; DATAGRAM_LEN];
        if client == TALKER && self.plot == Plot::SpeaksAlone {
            return datagram;
        }
        let opus = [client as u8; 120];
        let frame = Frame { seq: self.seq, stamp: 0, microphone: Microphone::On, level: 9, opus: &opus };
        self.clients[client].seal(self.now, &frame, &mut datagram).expect("a member seals");
        datagram
    }

    fn hear(&mut self, listener: usize, datagram: &[u8]) {
        let mut plaintext = [0; PLAINTEXT_LEN];
        if let Ok(Some((TALKERS_INDEX, frame))) = self.clients[listener].open(self.now, datagram, &mut plaintext) {
            self.heard[listener].push((self.now, usize::from(frame.opus[0])));
        }
    }

    fn hear_late(&mut self, listener: usize) {
        let mut plaintext = [0; PLAINTEXT_LEN];
        while let Some((index, frame, _)) = self.clients[listener].poll_frame(&mut plaintext) {
            assert_eq!(index, TALKERS_INDEX, "nobody else is in doubt");
            self.heard[listener].push((self.now, usize::from(frame.opus[0])));
        }
    }

    /// How many frames of a sound a listener heard in the talker's name since a time.
    fn count(&self, listener: usize, sound: usize, since: Instant) -> usize {
        self.heard[listener].iter().filter(|(at, heard)| *at >= since && *heard == sound).count()
    }

    /// When a listener was first told of something about the talker.
    fn alarm(&self, listener: usize, wanted: AlarmKind) -> Option<Instant> {
        self.events[listener].iter().find_map(|(at, event)| match event {
            Event::Alarm { kind, index: Some(TALKERS_INDEX), .. } if *kind == wanted => Some(*at),
            _ => None,
        })
    }

    fn alarms(&self) -> usize {
        self.events.iter().flatten().filter(|(_, event)| matches!(event, Event::Alarm { .. })).count()
    }
}

#[test]
fn honest_talkers_are_heard_without_a_word_about_them() {
    let mut stage = Stage::new();
    let start = stage.now;
    stage.talk(secs(20));
    assert_eq!(stage.alarms(), 0);
    for listener in LISTENERS {
        assert_eq!(stage.count(listener, TALKER, start), 1_000);
        assert!(!stage.events[listener].iter().any(|(_, event)| matches!(event, Event::Verified { .. })));
    }
    assert!(stage.clients[TALKER].own_stamp().is_some());
}

#[test]
fn injected_frames_are_not_heard_after_the_seal_and_the_true_talker_is_heard_on() {
    let mut stage = Stage::new();
    stage.talk(secs(3));
    stage.plot = Plot::Injects;
    let start = stage.now;
    stage.talk(secs(20));
    for listener in LISTENERS {
        assert_eq!(stage.count(listener, TWIN, start + millis(1_500)), 0);
        assert!(stage.count(listener, TWIN, start) > 0, "nothing was injected");
        let alarm = stage.alarm(listener, AlarmKind::Injected).expect("an alarm that names the talker");
        assert!(alarm <= start + millis(1_500));
        // Under half a second of numbers goes to the insider, and half a second still waits for its seal.
        assert!(stage.count(listener, TALKER, start) >= 1_000 - 50);
        assert_eq!(stage.alarm(listener, AlarmKind::Equivocation), None);
    }
    assert_eq!(stage.alarms(), LISTENERS.len(), "one of each listener");
}

#[test]
fn nobody_hears_for_longer_than_seals_may_take_what_has_none() {
    let mut stage = Stage::new();
    stage.talk(secs(2));
    stage.plot = Plot::SpeaksAlone;
    let start = stage.now;
    stage.talk(secs(10));
    for listener in LISTENERS {
        assert!(stage.count(listener, TWIN, start) > 0);
        // Half a second of a segment, and a second and a half until its seal is overdue.
        assert_eq!(stage.count(listener, TWIN, start + millis(2_020)), 0);
    }
    stage.plot = Plot::None;
    let back = stage.now;
    stage.talk(secs(10));
    for listener in LISTENERS {
        assert!(stage.count(listener, TALKER, back) >= 500 - 50, "{}", stage.count(listener, TALKER, back));
        assert!(stage.alarm(listener, AlarmKind::Injected).is_some());
    }
}

#[test]
fn a_talker_who_tells_two_listeners_different_things_is_found_out_within_ten_seconds_with_proof() {
    for before in [millis(2_000), millis(2_700), millis(4_340), millis(5_100), millis(6_480)] {
        let mut stage = Stage::new();
        stage.talk(before);
        stage.plot = Plot::TellsTwoThings;
        let start = stage.now;
        stage.talk(secs(10));
        let end = stage.now;
        stage.talk(secs(3));
        assert!(stage.count(DECEIVED, TWIN, start) > 0, "the deceived hears the other sound");
        for listener in LISTENERS {
            let alarm = stage.alarm(listener, AlarmKind::Equivocation).expect("an alarm that names the talker");
            assert!(alarm <= end, "{before:?}: {:?} too late", alarm - end);
            assert_eq!(stage.count(listener, TALKER, end) + stage.count(listener, TWIN, end), 0, "silenced");
            assert_proves(&stage.clients[listener].proof().expect("a proof"));
        }
    }
}

/// A proof that needs nothing but itself.
fn assert_proves(proof: &[u8]) {
    let mut r = Reader::new(proof);
    assert_eq!(r.u16(), Ok(0));
    let descriptor = Descriptor::decode(r.bytes(Descriptor::MAX_LEN).expect("a descriptor")).expect("a descriptor");
    let member = Member::read(&mut r).expect("a member");
    let contradiction = Contradiction::read(&mut r).expect("a contradiction");
    r.end().expect("nothing more");
    assert_eq!(member.index, TALKERS_INDEX);
    let meeting = descriptor.meeting_id();
    assert!(contradiction.is_proof(&meeting, &member.cert.keys.sealing));
}

#[test]
fn a_talker_whose_seals_are_of_other_frames_is_not_heard() {
    let mut stage = Stage::new();
    stage.plot = Plot::OtherSeals;
    let start = stage.now;
    stage.talk(secs(10));
    for listener in LISTENERS {
        assert_eq!(stage.count(listener, TALKER, start + millis(1_500)), 0);
        assert!(stage.alarm(listener, AlarmKind::Injected).is_some());
    }
}

// ---- in the world, over bad networks ----

fn seals_suffer(world: &mut World, share: f64) {
    let mut count = 0.0_f64;
    world.relay.villainy.rewrites = Some(Box::new(move |_, message| {
        if matches!(message, FromRelay::Sealed { .. }) {
            count += share;
            if count >= 1.0 {
                count -= 1.0;
                return Vec::new();
            }
        }
        vec![message]
    }));
}

fn three(world: &mut World, conditions: Conditions) -> [Who; 3] {
    world.open_meeting(Meeting { conditions, ..Meeting::default() });
    let guests = [(); 2].map(|()| world.bring_in(Guest { conditions, ..Guest::default() }));
    world.run(secs(3));
    [HOST, guests[0], guests[1]]
}

fn is_alarmed(world: &World) -> bool {
    world.everybody().any(|who| world.peer(who).alarms() > 0)
}

/// The share of what talkers sent in a time that its listeners did not get.
fn unheard(world: &World, who: &[Who], from: Duration, to: Duration) -> f64 {
    let pairs = who.iter().flat_map(|one| who.iter().map(move |other| (*one, *other))).filter(|(a, b)| a != b);
    let unheard: Vec<usize> = pairs.map(|(one, other)| world.unheard(one, other, from, to).len()).collect();
    let frames = (to - from).as_millis() as f64 / 20.0;
    unheard.iter().sum::<usize>() as f64 / (frames * unheard.len() as f64)
}

#[test]
fn on_bad_networks_no_honest_talker_comes_into_doubt() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let members = three(&mut world, Conditions::BAD);
        let start = world.now();
        world.run(secs(40));
        assert!(!is_alarmed(&world));
        for who in members {
            assert!(!world.peer(who).was_told(|event| matches!(event, Event::Verified { .. })));
        }
        let lost = unheard(&world, &members, start, start + secs(38));
        assert!(lost < 0.15, "{lost}");
    });
}

#[test]
fn seals_that_are_lost_silence_nobody() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let members = three(&mut world, Conditions::CLEAN);
        seals_suffer(&mut world, 0.1);
        let start = world.now();
        world.run(secs(40));
        assert!(!is_alarmed(&world));
        // What is not vouched for is lost once it is waited for, and nothing else.
        let lost = unheard(&world, &members, start, start + secs(38));
        assert!(lost > 0.01 && lost < 0.2, "{lost}");
    });
}

#[test]
fn seals_that_are_late_silence_nobody() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let members = three(&mut world, Conditions::CLEAN);
        let start = world.now();
        for _ in 0..10 {
            // Nothing on one listener's stream arrives for two seconds; frames do.
            let until = world.now() + secs(2);
            world.peer_mut(members[1]).down.stall(until);
            world.run(secs(4));
        }
        assert!(!is_alarmed(&world));
        assert!(world.peer(members[1]).was_told(|event| matches!(event, Event::Verified { on: true, .. })));
        assert_eq!(unheard(&world, &members, start, start + secs(38)), 0.0);
    });
}
