//! A hostile relay: it may spoil a meeting, but nobody is deceived, nothing panics, and who cannot go on is told so.

use conclave_protocol::capability::Revoked;
use conclave_protocol::conference::{AlarmKind, Event, Failure};
use conclave_protocol::descriptor::Descriptor;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal, ToRelay};
use conclave_tests::world::dice::{ClientRng, Drawn};
use conclave_tests::world::relay::Meddling;
use conclave_tests::world::{Crossing, Entry, Guest, HOST, Manners, Meeting, Who, World, for_seeds};

use crate::{failure, millis, secs};

/// A meeting of four in which everybody may be taken for lost: the relay lies.
fn four(world: &mut World) -> Vec<Who> {
    world.open_meeting(Meeting::default());
    let guests = (0..3).map(|_| world.bring_in(Guest::default())).collect::<Vec<_>>();
    world.run(secs(2));
    for who in world.everybody() {
        let name = world.peer(who).name.clone();
        world.model().may_be_lost(&name);
    }
    guests
}

/// Whether a client was told that something is wrong.
fn is_warned(world: &World, who: Who) -> bool {
    world.peer(who).was_told(|event| matches!(event, Event::Alarm { .. } | Event::Failed(_) | Event::Removed))
}

/// Frames from others that a client opened in the last second.
fn hears(world: &World, who: Who) -> usize {
    let since = world.now().saturating_sub(secs(1));
    world.peer(who).opened.values().filter(|at| **at > since).count()
}

fn spoil_mail(mail: Meddling, seeds: u64) {
    for_seeds(seeds, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        world.bring_in(Guest::default());
        world.relay.villainy.mail = mail;
        let newcomers: Vec<Who> = (0..3).map(|_| world.join(Guest::default())).collect();
        world.run(secs(15));
        world.admit_all();
        world.run(secs(10));
        world.admit_all();
        world.run(secs(10));
        world.relay.villainy.mail = Meddling::default();
        world.run(secs(30));
        world.assert_converged();
        for who in newcomers {
            let is_in = world.can_send(who);
            let waits = world.knock_of(who).is_some();
            assert!(is_in || waits || is_warned(&world, who), "{who:?} neither goes on nor is told why");
        }
    });
}

#[test]
fn a_meeting_survives_messages_that_are_dropped() {
    spoil_mail(Meddling { dropped: 0.2, ..Meddling::default() }, 6);
}

#[test]
fn a_meeting_survives_messages_that_come_twice() {
    spoil_mail(Meddling { repeated: 0.5, ..Meddling::default() }, 6);
}

#[test]
fn a_meeting_survives_messages_that_overtake_each_other() {
    spoil_mail(Meddling { delayed: 0.3, ..Meddling::default() }, 6);
}

#[test]
fn a_meeting_survives_old_messages_of_anybody_to_anybody() {
    spoil_mail(Meddling { replayed: 0.5, ..Meddling::default() }, 6);
}

#[test]
fn a_meeting_survives_messages_with_changed_bits() {
    spoil_mail(Meddling { flipped: 0.2, ..Meddling::default() }, 6);
}

#[test]
fn no_frame_is_heard_twice_wrongly_or_by_the_wrong_name_whatever_happens_to_datagrams() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.relay.villainy.datagrams =
            Meddling { dropped: 0.1, repeated: 0.3, delayed: 0.2, replayed: 0.5, flipped: 0.1 };
        let guests = four(&mut world);
        world.run(secs(3));
        world.bring_in(Guest::default());
        world.remove(guests[1]);
        world.run(secs(3));
        world.assert_converged();
        // Of 50 frames per second and talker, from three others.
        assert!(hears(&world, guests[0]) > 60);
    });
}

#[test]
fn a_frame_under_another_slot_or_head_is_no_frame() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let guests = four(&mut world);
        world.record = Some(Vec::new());
        world.run(millis(200));
        let frames = world.datagrams_for(guests[0]);
        let fresh = world.bring_in(Guest { talks: false, ..Guest::default() });
        world.run(secs(3));
        let opened = |world: &World| world.everybody().map(|who| world.peer(who).opened.len()).sum::<usize>();
        world.everybody().for_each(|who| world.peer_mut(who).talks = false);
        world.run(secs(3));
        let before = opened(&world);
        for frame in frames {
            for slot in 0..6 {
                let mut swapped = frame.clone();
                swapped[2] = slot;
                for who in [HOST, guests[0], guests[1], guests[2], fresh] {
                    world.open(who, &swapped);
                }
            }
        }
        assert_eq!(opened(&world), before);
    });
}

#[test]
fn another_descriptor_than_the_links_ends_the_attempt() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let mut other = World::new(seed + 1_000);
        other.open_meeting(Meeting::default());
        other.record = Some(Vec::new());
        other.join(Guest::default());
        other.run(secs(1));
        let theirs = other.record.take().unwrap().into_iter().find_map(|crossing| match crossing {
            Crossing::Out(_, bytes) => match FromRelay::decode(&bytes) {
                Ok(FromRelay::Meeting { descriptor, .. }) => Some(descriptor),
                _ => None,
            },
            _ => None,
        });
        let theirs = theirs.unwrap();
        world.open_meeting(Meeting::default());
        world.relay.villainy.rewrites = Some(Box::new(move |_, message| match message {
            FromRelay::Meeting { line, leader, .. } => {
                vec![FromRelay::Meeting { descriptor: theirs.clone(), line, leader }]
            }
            other => vec![other],
        }));
        let guest = world.join(Guest::default());
        world.run(secs(5));
        assert_eq!(failure(&world, guest), Some(Failure::Relay));
        assert!(!world.peer(guest).was_told(|event| matches!(event, Event::HostFound(_))));
        assert!(world.peer(HOST).conference.knocks().is_empty());
    });
}

#[test]
fn a_descriptor_with_the_relays_own_keys_ends_the_attempt() {
    let mut world = World::new(8);
    world.open_meeting(Meeting::default());
    let own = KeyPair::generate(&mut ClientRng::new(8, 99, Drawn::default())).public();
    world.relay.villainy.rewrites = Some(Box::new(move |_, message| match message {
        FromRelay::Meeting { descriptor, line, leader } => {
            let mut forged = Descriptor::decode(&descriptor).unwrap();
            forged.authority = own;
            vec![FromRelay::Meeting { descriptor: forged.encode(), line, leader }]
        }
        other => vec![other],
    }));
    let guest = world.join(Guest::default());
    world.run(secs(5));
    assert_eq!(failure(&world, guest), Some(Failure::Relay));
}

#[test]
fn messages_of_another_meeting_change_nothing() {
    for_seeds(3, |seed| {
        let mut other = World::new(seed + 2_000);
        other.record = Some(Vec::new());
        four(&mut other);
        other.run(secs(1));
        let mut world = World::new(seed);
        let guests = four(&mut world);
        let waiting = world.join(Guest::default());
        world.await_knock(waiting);
        world.run(secs(1));
        let before: Vec<usize> = world.everybody().map(|who| world.peer(who).events.len()).collect();
        for crossing in other.record.take().unwrap() {
            for who in [HOST, guests[0], waiting] {
                match &crossing {
                    Crossing::Out(_, bytes) if is_between_clients(bytes) => world.relay_sends(who, bytes),
                    Crossing::Datagram(_, bytes) => world.open(who, bytes),
                    _ => {}
                }
            }
        }
        world.run(secs(3));
        let after: Vec<usize> = world.everybody().map(|who| world.peer(who).events.len()).collect();
        assert_eq!(before, after, "somebody was told something");
        world.admit(waiting).unwrap();
        world.await_member(waiting);
        world.run(secs(3));
        world.assert_converged();
    });
}

fn is_between_clients(message: &[u8]) -> bool {
    let message = FromRelay::decode(message);
    matches!(message, Ok(FromRelay::Mail { .. } | FromRelay::MailFrom { .. } | FromRelay::Deliver { .. }))
}

#[test]
fn forged_words_of_the_host_or_a_member_are_ignored() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let guests = four(&mut world);
        let waiting = world.join(Guest::default());
        world.await_knock(waiting);
        world.run(secs(1));
        let before: Vec<usize> = world.everybody().map(|who| world.peer(who).events.len()).collect();
        for kind in 0..=6u8 {
            for length in [0, 1, 12, 13, 40, 200] {
                let mut bytes = vec![kind];
                bytes.extend(std::iter::repeat_with(|| world.dice().below(256) as u8).take(length));
                for from in [0, 1, 2, 9] {
                    let from = MemberIndex(from);
                    for who in [HOST, guests[0]] {
                        world.relay_says(who, &FromRelay::Deliver { from, bytes: bytes.clone() });
                        // A forged refusal of a handshake that is over says nothing either.
                        world.relay_says(who, &FromRelay::Mail { bytes: bytes.clone() });
                    }
                    world.relay_says(waiting, &FromRelay::Deliver { from, bytes: bytes.clone() });
                }
                world.relay_says(waiting, &FromRelay::Mail { bytes: bytes.clone() });
            }
        }
        world.run(secs(3));
        let after: Vec<usize> = world.everybody().map(|who| world.peer(who).events.len()).collect();
        assert_eq!(before, after, "somebody believed the relay");
        world.assert_converged();
    });
}

#[test]
fn a_forged_revocation_raises_an_alarm_and_puts_nobody_out() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let guests = four(&mut world);
        let forger = KeyPair::generate(&mut ClientRng::new(seed, 99, Drawn::default()));
        let index = world.peer(guests[0]).conference.index().unwrap();
        let meeting = world.peer(HOST).conference.meeting();
        let revoked = Revoked::sign(meeting, 77, MemberIndex::HOST, vec![index], &forger);
        for who in [HOST, guests[0], guests[1]] {
            world.relay_says(who, &FromRelay::Revoked { revoked: revoked.clone() });
            let forged = |event: &Event| matches!(event, Event::Alarm { kind: AlarmKind::ForgedNotice, .. });
            assert!(world.peer(who).was_told(forged));
            assert!(world.can_send(who));
        }
        world.run(secs(2));
        world.assert_converged();
    });
}

#[test]
fn a_true_revocation_shown_again_and_again_changes_nothing_for_others() {
    let mut world = World::new(9);
    let guests = four(&mut world);
    world.record = Some(Vec::new());
    world.remove(guests[0]);
    world.run(secs(1));
    let revocations = world.record.take().unwrap().into_iter().filter_map(|crossing| match crossing {
        Crossing::Out(_, bytes) => match FromRelay::decode(&bytes) {
            Ok(message @ FromRelay::Revoked { .. }) => Some(message),
            _ => None,
        },
        _ => None,
    });
    let revocations: Vec<FromRelay> = revocations.collect();
    assert!(!revocations.is_empty());
    for message in revocations.iter().cycle().take(50) {
        for who in [HOST, guests[1], guests[2]] {
            world.relay_says(who, message);
        }
    }
    world.run(secs(2));
    world.assert_converged();
    assert!(hears(&world, guests[1]) > 80);
}

#[test]
fn a_client_that_is_told_that_it_lost_its_slot_comes_back_without_a_knock() {
    let reasons = [Refusal::Expired, Refusal::Revoked, Refusal::Replaced, Refusal::Capability];
    for (seed, reason) in reasons.into_iter().enumerate() {
        let mut world = World::new(seed as u64);
        let guests = four(&mut world);
        world.model().switch_off();
        world.relay_says(guests[0], &FromRelay::Detached { reason });
        assert!(!world.can_send(guests[0]));
        world.run(secs(5));
        if reason == Refusal::Replaced {
            // Somebody else is it now, as far as the relay says.
            assert_eq!(failure(&world, guests[0]), Some(Failure::Replaced));
            continue;
        }
        assert!(world.can_send(guests[0]), "it is not back after {reason:?}");
        world.assert_converged();
        assert_eq!(world.peer(HOST).roster().len(), 4);
    }
}

#[test]
fn lies_about_who_is_there_lose_nobody_who_is_heard() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        let guests = four(&mut world);
        for slot in [0, 1, 2, 50] {
            world.relay_says(HOST, &FromRelay::Presence { slot: MemberIndex(slot), here: false });
            world.relay_says(guests[2], &FromRelay::Presence { slot: MemberIndex(slot), here: false });
        }
        world.run(secs(200));
        world.assert_converged();
        assert_eq!(world.peer(HOST).roster().len(), 4);
    });
}

#[test]
fn lies_about_the_time_deceive_nobody() {
    for time in [0, 1, 1_000_000_000_000, u64::MAX / 2, u64::MAX] {
        let mut world = World::new(10);
        let guests = four(&mut world);
        let waiting = world.join(Guest::default());
        world.await_knock(waiting);
        for who in [HOST, guests[0], waiting] {
            world.relay_lies_about_time(who, UnixMillis(time));
        }
        world.run(secs(1));
        // The relay itself refuses what the host makes by that clock, which takes nothing away.
        assert_eq!(failure(&world, HOST), None);
        assert_eq!(failure(&world, guests[0]), None);
    }
}

#[test]
fn a_stolen_capability_is_worthless_on_another_connection() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.record = Some(Vec::new());
        let guests = four(&mut world);
        let thief = world.join(Guest { manners: Manners::Spies, ..Guest::default() });
        world.run(secs(1));
        let shown = world.record.take().unwrap().into_iter().filter_map(|crossing| match crossing {
            Crossing::In(_, bytes) => matches!(ToRelay::decode(&bytes), Ok(ToRelay::Attach { .. })).then_some(bytes),
            _ => None,
        });
        let shown: Vec<Vec<u8>> = shown.collect();
        assert_eq!(shown.len(), 4);
        for attach in shown {
            world.sends_garbage(thief, &attach);
        }
        world.run(secs(2));
        assert_eq!(world.relay.stats().members_now, 4);
        assert_eq!(world.relay.stats().refused_capability, 4);
        assert_eq!(world.peer(thief).datagrams, 0);
        assert!(hears(&world, guests[0]) > 80);
        world.assert_converged();
    });
}

#[test]
fn a_relay_that_hides_all_of_the_hosts_words_only_silences_the_meeting() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting { entry: Entry::Open, ..Meeting::default() });
        world.relay.villainy.rewrites = Some(Box::new(|_, message| match message {
            FromRelay::Deliver { .. } | FromRelay::Mail { .. } => Vec::new(),
            other => vec![other],
        }));
        let guest = world.join(Guest::default());
        world.run(secs(60));
        assert_eq!(world.peer(guest).conference.index(), None);
        assert!(world.peer(guest).opened.is_empty());
        assert!(!world.peer(guest).was_told(|event| matches!(event, Event::Admitted { .. })));
    });
}
