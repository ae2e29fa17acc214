//! Input that is no message: every truncation and every changed byte of everything that crosses the relay in a
//! meeting, and floods of garbage. Nothing panics, nothing is believed, and nothing grows.

use std::time::{Duration, Instant};

use conclave_protocol::conference::Failure;
use conclave_protocol::time::WallClock;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, MailboxId, ToRelay};
use conclave_relay::core::{ConnId, Core, Peer, PrefixToken};
use conclave_relay::hub::{Config, Hub, Limits, Rate};
use conclave_tests::world::{Crossing, DAWN, Guest, HOST, Meeting, Who, World};

use crate::{failure, millis, secs};

/// A small meeting with everything in it, on record: joins, a denial, somebody who waits, a removal, a rekeying.
fn recorded(seed: u64) -> (World, Vec<Crossing>) {
    let mut world = World::new(seed);
    world.record = Some(Vec::new());
    let silent = Guest { talks: false, ..Guest::default() };
    world.open_meeting(Meeting { talks: false, ..Meeting::default() });
    world.bring_in(silent);
    let removed = world.bring_in(silent);
    world.bring_in(silent);
    let denied = world.join(silent);
    world.await_knock(denied);
    world.deny(denied);
    world.run(secs(2));
    world.peer_mut(removed).talks = true;
    world.run(millis(60));
    world.remove(removed);
    world.run(secs(125));
    let waiting = world.join(silent);
    world.await_knock(waiting);
    world.run(secs(2));
    let record = world.record.take().expect("it is on record");
    (world, record)
}

/// Every shorter beginning of `bytes`, and `bytes` with each byte changed in two ways.
fn mutations(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cut = (0..bytes.len()).map(|len| bytes[..len].to_vec());
    let changed = (0..bytes.len()).flat_map(|at| {
        [0x01, 0xFF].map(|mask| {
            let mut changed = bytes.to_vec();
            changed[at] ^= mask;
            changed
        })
    });
    cut.chain(changed)
}

/// What a client sees of a message that others wrote, with the relay's own head taken off and put back.
fn with_payload(message: FromRelay, payload: Vec<u8>) -> FromRelay {
    match message {
        FromRelay::Mail { .. } => FromRelay::Mail { bytes: payload },
        FromRelay::MailFrom { mailbox, .. } => FromRelay::MailFrom { mailbox, bytes: payload },
        FromRelay::Deliver { from, .. } => FromRelay::Deliver { from, bytes: payload },
        other => other,
    }
}

fn payload(message: &FromRelay) -> Option<&[u8]> {
    match message {
        FromRelay::Mail { bytes } | FromRelay::MailFrom { bytes, .. } | FromRelay::Deliver { bytes, .. } => Some(bytes),
        _ => None,
    }
}

#[test]
fn no_spoiled_message_between_clients_is_believed() {
    let (mut world, record) = recorded(1);
    let people: Vec<Who> = world.everybody().filter(|who| world.peer(*who).conn.is_some()).collect();
    let before: Vec<usize> = people.iter().map(|who| world.peer(*who).events.len()).collect();
    let mut fed = 0;
    for crossing in &record {
        let Crossing::Out(who, bytes) = crossing else { continue };
        let Ok(message) = FromRelay::decode(bytes) else { continue };
        if world.peer(*who).conn.is_none() {
            continue;
        }
        let Some(payload) = payload(&message) else { continue };
        // A spoiled first message is a new handshake that fails; its answer is the only thing it may cause.
        for spoiled in mutations(payload) {
            world.relay_says(*who, &with_payload(message.clone(), spoiled));
            fed += 1;
        }
    }
    assert!(fed > 10_000, "only {fed} spoiled messages");
    world.run(secs(5));
    let after: Vec<usize> = people.iter().map(|who| world.peer(*who).events.len()).collect();
    assert_eq!(before, after, "somebody believed a spoiled message");
    world.assert_converged();
    // And the meeting goes on as if nothing had been.
    world.everybody().for_each(|who| world.peer_mut(who).talks = true);
    let who = world.bring_in(Guest::default());
    world.run(secs(3));
    world.assert_converged();
    assert!(world.peer(who).heard(0) > 50);
}

#[test]
fn a_control_message_that_is_none_ends_the_connection_with_a_word_and_nothing_else() {
    let (_, record) = recorded(2);
    let outs = record.iter().filter_map(|crossing| match crossing {
        Crossing::Out(_, bytes) => Some(bytes),
        _ => None,
    });
    let mut spoiled: Vec<Vec<u8>> = outs.flat_map(|bytes| mutations(bytes)).collect();
    let all = spoiled.len();
    // Whatever can be read has its own tests; here is what cannot.
    spoiled.retain(|bytes| FromRelay::decode(bytes).is_err());
    assert!(all > 10_000 && spoiled.len() > 5_000);
    let step = spoiled.len() / 40;
    for bytes in spoiled.iter().step_by(step.max(1)) {
        let mut world = World::new(3);
        world.open_meeting(Meeting::default());
        let guest = world.join(Guest::default());
        world.await_knock(guest);
        world.relay_sends(guest, bytes);
        assert_eq!(failure(&world, guest), Some(Failure::Relay));
        world.relay_sends(HOST, bytes);
        assert_eq!(failure(&world, HOST), Some(Failure::Relay));
        assert!(!world.can_send(HOST));
    }
}

#[test]
fn every_spoiled_word_of_the_relay_itself_is_refused_or_does_what_it_says() {
    let (_, record) = recorded(4);
    let mut seen = Vec::new();
    for crossing in record {
        let Crossing::Out(_, bytes) = crossing else { continue };
        // One of each kind is enough: they differ in numbers only.
        if payload_kind(&bytes) || seen.iter().any(|other: &Vec<u8>| other[0] == bytes[0]) {
            continue;
        }
        seen.push(bytes);
    }
    assert!(seen.len() >= 6, "the record holds {} kinds", seen.len());
    for message in seen {
        let mut world = World::new(5);
        world.open_meeting(Meeting { talks: false, ..Meeting::default() });
        let member = world.bring_in(Guest { talks: false, ..Guest::default() });
        for spoiled in mutations(&message).filter(|bytes| FromRelay::decode(bytes).is_ok()) {
            world.relay_sends(member, &spoiled);
            world.relay_sends(HOST, &spoiled);
        }
        // Nobody gets in, comes to another epoch, or sees another roster by that.
        assert!(world.peer(HOST).roster().len() <= 2);
        assert!(world.peer(member).roster().len() <= 2);
    }
}

fn payload_kind(message: &[u8]) -> bool {
    FromRelay::decode(message).is_ok_and(|message| payload(&message).is_some())
}

#[test]
fn no_spoiled_datagram_opens_and_none_keeps_the_true_one_from_opening() {
    let mut world = World::new(6);
    world.open_meeting(Meeting::default());
    let (a, b) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
    world.run(secs(2));
    world.everybody().for_each(|who| world.peer_mut(who).talks = false);
    world.run(millis(100));
    world.record = Some(Vec::new());
    // They reach the relay, and no listener.
    world.peer_mut(b).down.conditions.loss =
        conclave_tests::world::GilbertElliott { worsens: 1.0, recovers: 0.0, lost: 1.0 };
    world.peer_mut(a).talks = true;
    // Who was silent wakes within half a second.
    world.run(millis(700));
    world.peer_mut(a).talks = false;
    world.run(millis(100));
    let frames = world.datagrams_for(b);
    assert!(frames.len() >= 9);
    let before = world.peer(b).opened.len();
    for frame in &frames {
        for spoiled in mutations(frame) {
            world.open(b, &spoiled);
        }
        let mut longer = frame.clone();
        longer.push(0);
        world.open(b, &longer);
    }
    assert_eq!(world.peer(b).opened.len(), before, "a spoiled datagram was opened");
    for frame in &frames {
        world.open(b, frame);
        world.open(b, frame);
    }
    assert_eq!(world.peer(b).opened.len(), before + frames.len());
}

#[test]
fn no_spoiled_removal_notice_removes_or_silences_anybody() {
    let mut world = World::new(7);
    world.open_meeting(Meeting::default());
    let (a, b) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
    let removed = world.bring_in(Guest::default());
    world.run(secs(2));
    world.record = Some(Vec::new());
    world.remove(removed);
    world.run(secs(2));
    let notices: Vec<Vec<u8>> = world.datagrams_for(b).into_iter().filter(|bytes| bytes[0] == 2).collect();
    assert_eq!(notices.len(), 3, "a notice is sent three times");
    for who in [HOST, a, b] {
        mutations(&notices[0]).for_each(|spoiled| world.open(who, &spoiled));
        notices.iter().for_each(|notice| world.open(who, notice));
    }
    let (from, silenced) = (world.now(), world.witness.silenced());
    world.run(secs(2));
    let to = world.now() - millis(200);
    assert!(world.unheard(b, a, from, to).is_empty());
    assert_eq!(world.witness.silenced(), silenced);
    world.assert_converged();
}

// ---- the relay ----

/// A hub with everything of a recorded meeting in it, as far as the clients have sent it.
struct Replayed {
    hub: Hub,
    now: Instant,
    next: u64,
}

impl Replayed {
    fn connect(&mut self, exporter: [u8; 32]) -> ConnId {
        self.next += 1;
        let (conn, mut out) = (ConnId(self.next), Vec::new());
        self.hub.connected(self.now, conn, &Peer { exporter, prefix: PrefixToken(self.next) }, &mut out);
        conn
    }

    fn control(&mut self, conn: ConnId, message: &[u8]) -> usize {
        let mut out = Vec::new();
        self.hub.control(self.now, conn, message, &mut out);
        out.len()
    }

    fn hang_up(&mut self, conn: ConnId) {
        self.hub.disconnected(self.now, conn, &mut Vec::new());
    }
}

#[test]
fn no_spoiled_message_of_a_client_moves_the_relay() {
    let (world, record) = recorded(8);
    let meeting = world.peer(HOST).conference.meeting();
    let ins: Vec<(ConnId, Vec<u8>)> = record
        .into_iter()
        .filter_map(|crossing| match crossing {
            Crossing::In(conn, bytes) => Some((conn, bytes)),
            _ => None,
        })
        .collect();
    let now = Instant::now();
    let clock = WallClock::new(now, DAWN);
    let mut replayed = Replayed { hub: Hub::new(clock, Config::default()), now, next: 1_000_000 };
    let hello = ins[0].1.clone();
    let mut fed = 0;
    for (_, bytes) in &ins {
        // The spoiled forms of a good message, each as the first word and as the second.
        for spoiled in mutations(bytes) {
            let first = replayed.connect([9; 32]);
            let answers = replayed.control(first, &spoiled);
            assert!(answers <= 3, "a spoiled first message has {answers} answers");
            replayed.hang_up(first);
            let second = replayed.connect([9; 32]);
            replayed.control(second, &hello);
            replayed.control(second, &spoiled);
            replayed.hang_up(second);
            fed += 1;
        }
    }
    assert!(fed > 10_000, "only {fed} spoiled messages");
    assert_eq!(replayed.hub.attached(meeting).count(), 0, "a spoiled message took a slot");
    let stats = replayed.hub.stats();
    assert_eq!((stats.meetings_now, stats.members_now, stats.guests_now, stats.mailboxes_now), (0, 0, 0, 0));
    assert_eq!(replayed.hub.next_timeout(), None);
}

#[test]
fn a_flood_from_somebody_who_waits_reaches_no_other_and_fills_nothing() {
    let mut world = World::new(9);
    world.open_meeting(Meeting::default());
    let (a, b) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
    let flooder = world.join(Guest::default());
    world.await_knock(flooder);
    world.run(secs(1));
    let (from, mail_before) = (world.now(), world.relay.stats().messages_mail);
    for _ in 0..100 {
        for kind in [1, 3, 4, 5, 200] {
            let mut bytes = vec![kind; 1_500];
            bytes[1..40].copy_from_slice(&world.dice().bytes::<39>());
            world.sends_garbage(flooder, &ToRelay::Mail { bytes }.encode());
            world.sends_datagram(flooder, &[kind; 125]);
        }
        world.run(millis(20));
    }
    let limits = Limits::default();
    let arrived = world.relay.stats().messages_mail - mail_before;
    assert_eq!(arrived, 500);
    let Rate { per_second, burst } = limits.guest_mail;
    let let_through = arrived - world.relay.stats().refused_too_fast;
    assert!(let_through <= u64::from(burst + 3 * per_second), "{let_through} mails of a flood reach the host");
    assert_eq!(world.relay.stats().datagrams_dropped_unattached, 500);
    world.run(secs(1));
    let to = world.now() - millis(200);
    assert!(world.unheard(a, b, from, to).is_empty() && world.unheard(b, a, from, to).is_empty());
    assert!(world.peer(HOST).conference.knocks().len() <= 1);
    world.assert_converged();
}

#[test]
fn a_flood_of_datagrams_by_a_member_is_cut_and_costs_others_nothing() {
    let mut world = World::new(10);
    world.open_meeting(Meeting::default());
    let (a, b) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
    let flooder = world.bring_in(Guest { talks: false, ..Guest::default() });
    world.run(secs(2));
    let from = world.now();
    let slot = world.peer(flooder).conference.index().unwrap().0.to_be_bytes();
    let before = world.relay.stats();
    for _ in 0..100 {
        for _ in 0..100 {
            let mut datagram = [1; 125];
            datagram[1..3].copy_from_slice(&slot);
            datagram[3..35].copy_from_slice(&world.dice().bytes::<32>());
            world.sends_datagram(flooder, &datagram);
        }
        world.run(millis(20));
    }
    let after = world.relay.stats();
    let cut = after.datagrams_dropped_too_fast - before.datagrams_dropped_too_fast;
    let limit = Limits::default().datagrams;
    let most = u64::from(limit.burst + 2 * limit.per_second) + 1;
    assert!(cut >= 10_000 - most, "only {cut} of 10,000 datagrams were cut");
    world.run(secs(1));
    let to = world.now() - millis(200);
    for (listener, talker) in [(a, b), (b, a), (HOST, a), (a, HOST)] {
        assert!(world.unheard(listener, talker, from, to).is_empty());
    }
    world.assert_converged();
}

#[test]
fn handshakes_from_countless_mailboxes_stay_within_the_hosts_bounds() {
    let mut world = World::new(11);
    world.open_meeting(Meeting { talks: false, passcode: Some("open sesame, please"), ..Meeting::default() });
    let start = world.now();
    for mailbox in 0..20_000u32 {
        let mut bytes = vec![1; 1_300];
        bytes[1..33].copy_from_slice(&world.dice().bytes::<32>());
        world.relay_says(HOST, &FromRelay::MailFrom { mailbox: MailboxId(mailbox), bytes });
    }
    world.run(Duration::from_secs(60));
    assert!(world.now() - start >= secs(60));
    assert!(world.peer(HOST).conference.knocks().is_empty());
    // And the door still opens.
    let guest = world.join(Guest { passcode: Some("open sesame, please"), talks: false, ..Guest::default() });
    world.await_knock(guest);
}
