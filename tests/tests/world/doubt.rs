//! When honest members come into doubt and when they do not: networks, processes and relays fail, the meeting changes, and
//! seals come late or not at all. That nobody is called a forger, the world checks at every step.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_protocol::conference::Event;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, ToRelay};
use conclave_tests::world::{Conditions, Crossing, Entry, Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

/// When a client's view of anybody switched to verified mode.
fn doubts(world: &World, who: Who) -> Vec<Duration> {
    let began = world.peer(who).events.iter().filter(|(_, event)| matches!(event, Event::Verified { on: true, .. }));
    began.map(|(at, _)| *at).collect()
}

fn all_doubts(world: &World) -> usize {
    world.everybody().map(|who| doubts(world, who).len()).sum()
}

/// Whether a listener plays only what is vouched for of a talker.
fn is_in_doubt(world: &World, listener: Who, talker: Who) -> bool {
    let of = world.peer(talker).conference.index();
    let modes = world.peer(listener).events.iter().rev().find_map(|(_, event)| match event {
        Event::Verified { index, on } if Some(*index) == of => Some(*on),
        _ => None,
    });
    modes.unwrap_or(false)
}

fn three(world: &mut World, conditions: Conditions) -> [Who; 3] {
    world.open_meeting(Meeting { conditions, ..Meeting::default() });
    let guests = [(); 2].map(|()| world.bring_in(Guest { conditions, ..Guest::default() }));
    world.run(secs(3));
    [HOST, guests[0], guests[1]]
}

#[test]
fn two_hundred_joins_bring_no_talker_into_doubt() {
    for pause in [millis(20), millis(100), millis(400)] {
        let mut world = World::new(pause.as_millis() as u64);
        world.open_meeting(Meeting { entry: Entry::Open, max_members: 300, ..Meeting::default() });
        let talkers = [(); 3].map(|()| world.join(Guest::default()));
        talkers.iter().for_each(|who| world.await_member(*who));
        world.run(secs(3));
        for _ in 0..200 {
            world.join(Guest { talks: false, ..Guest::default() });
            world.run(pause);
        }
        world.run(secs(5));
        assert_eq!(world.peer(HOST).roster().len(), 204);
        assert_eq!(all_doubts(&world), 0, "{pause:?}");
        assert_eq!(world.relay.stats().seals_dropped_too_fast, 0);
        world.assert_converged();
    }
}

#[test]
fn members_who_mute_and_unmute_at_the_open_rate_stay_out_of_doubt() {
    let mut world = World::new(3);
    world.open_meeting(Meeting { entry: Entry::Open, ..Meeting::default() });
    let people: Vec<Who> = (0..19).map(|_| world.join(Guest { talks: false, ..Guest::default() })).collect();
    people.iter().for_each(|who| world.await_member(*who));
    world.run(secs(3));
    for _ in 0..60 {
        let who = people[world.dice().below(people.len())];
        world.peer_mut(who).talks ^= true;
        let pause = world.dice().up_to(millis(1_700));
        world.run(pause);
    }
    assert_eq!(all_doubts(&world), 0);
}

/// How long each seal of anybody takes at the relay.
fn seals_take(world: &mut World, time: Duration) {
    world.relay.villainy.seals_take = time;
}

#[test]
fn seals_that_are_late_by_less_than_a_second_and_a_half_are_in_time() {
    let mut world = World::new(4);
    let members = three(&mut world, Conditions::CLEAN);
    seals_take(&mut world, millis(1_400));
    let start = world.now();
    world.run(secs(60));
    assert_eq!(all_doubts(&world), 0);
    let unheard = world.unheard(members[0], members[1], start, start + secs(58));
    assert_eq!(unheard.len(), 0);
}

#[test]
fn who_is_sealed_later_than_that_is_heard_late_and_whole() {
    let mut world = World::new(5);
    let members = three(&mut world, Conditions::CLEAN);
    let start = world.now();
    seals_take(&mut world, millis(1_600));
    world.run(secs(60));
    for listener in members {
        assert_eq!(doubts(&world, listener).len(), 2, "of both others, and once");
        for talker in members.into_iter().filter(|talker| *talker != listener) {
            assert!(world.unheard(listener, talker, start, start + secs(56)).is_empty());
        }
    }
    // In time again: nobody is in doubt half a minute later.
    seals_take(&mut world, Duration::ZERO);
    world.run(secs(34));
    let ended = |who: Who| {
        world.peer(who).events.iter().filter(|(_, e)| matches!(e, Event::Verified { on: false, .. })).count()
    };
    assert!(members.into_iter().all(|who| ended(who) == 2));
}

#[test]
fn a_talker_whose_seals_stop_is_silent_after_two_seconds_and_heard_when_they_come_again() {
    let mut world = World::new(6);
    let members = three(&mut world, Conditions::CLEAN);
    let victim = world.peer(members[1]).conference.index().expect("a member");
    world.relay.villainy.rewrites = Some(Box::new(move |_, message| match message {
        FromRelay::Sealed { from, .. } if from == victim => Vec::new(),
        message => vec![message],
    }));
    let start = world.now();
    world.run(secs(20));
    let heard = |world: &World, from: Duration, to: Duration| {
        let sent = (to - from).as_millis() as usize / 20;
        sent.saturating_sub(world.unheard(HOST, members[1], from, to).len())
    };
    assert_eq!(heard(&world, start + millis(2_600), start + secs(19)), 0);
    assert!(heard(&world, start, start + millis(1_000)) >= 49);
    assert_eq!(doubts(&world, HOST).len(), 1, "of nobody else");
    assert!(world.unheard(HOST, members[2], start, start + secs(19)).is_empty());
    world.relay.villainy.rewrites = None;
    let back = world.now();
    world.run(secs(10));
    assert!(world.unheard(HOST, members[1], back, back + secs(8)).is_empty());
}

#[test]
fn reconnections_restarts_and_takeovers_in_the_middle_of_a_segment_make_no_forger_of_anybody() {
    for_seeds(12, |seed| {
        let mut world = World::new(seed);
        let members = three(&mut world, Conditions::BAD);
        world.promote(members[1]);
        for round in 0..4 {
            let pause = world.dice().up_to(secs(1));
            world.run(secs(4) + pause);
            match (seed + round) % 4 {
                0 => {
                    world.cut_off(members[2]);
                    let back = world.now() + secs(1) + world.dice().up_to(secs(6));
                    world.restore_at(members[2], back);
                    world.run(secs(8));
                }
                1 => world.replace_relay(millis(1_500)),
                2 => {
                    let until = world.now() + secs(5) + world.dice().up_to(secs(15));
                    world.peer_mut(members[2]).down.stall(until);
                    world.run(secs(20));
                }
                _ => {
                    let back = world.now() + secs(12);
                    world.cut_off(HOST);
                    world.restore_at(HOST, back);
                    world.run(secs(20));
                }
            }
        }
        world.run(secs(45));
        // Nobody is in doubt any more, and everybody is heard but for what this network loses.
        let (from, to) = (world.now() - secs(6), world.now() - secs(2));
        for listener in members {
            for talker in members.into_iter().filter(|talker| *talker != listener) {
                assert!(!is_in_doubt(&world, listener, talker), "{}", world.story(&members));
                let unheard = world.unheard(listener, talker, from, to).len();
                assert!(unheard < 100, "{listener:?} misses {unheard} of {talker:?}\n{}", world.story(&members));
            }
        }
    });
}

/// Bits per second of a talker's seals, up and to one listener, with the stream's length prefix.
fn sealed_rate(world: &World, since: usize, time: Duration) -> (f64, f64) {
    /// What a control message takes beside itself: a length.
    const PREFIX: usize = 4;
    let crossings = world.record.as_ref().expect("recorded")[since..].iter();
    let (mut up, mut down) = (BTreeMap::new(), BTreeMap::new());
    for crossing in crossings {
        match crossing {
            Crossing::In(conn, bytes) if matches!(ToRelay::decode(bytes), Ok(ToRelay::Seal { .. })) => {
                *up.entry(*conn).or_insert(0) += bytes.len() + PREFIX;
            }
            Crossing::Out(who, bytes) => {
                if let Ok(FromRelay::Sealed { from, .. }) = FromRelay::decode(bytes) {
                    *down.entry((*who, from)).or_insert(0) += bytes.len() + PREFIX;
                }
            }
            _ => {}
        }
    }
    let most = |bytes: Option<usize>| bytes.unwrap_or(0) as f64 * 8.0 / time.as_secs_f64();
    (most(up.values().copied().max()), most(down.values().copied().max()))
}

#[test]
fn seals_and_stamps_take_less_than_twelve_kilobits_a_second_whatever_is_said() {
    let mut world = World::new(8);
    three(&mut world, Conditions::CLEAN);
    world.record = Some(Vec::new());
    let mut rates = Vec::new();
    for mutes in [false, true, false] {
        for who in world.everybody() {
            world.peer_mut(who).mutes = mutes;
        }
        world.run(secs(2));
        let since = world.record.as_ref().expect("recorded").len();
        world.run(secs(60));
        rates.push(sealed_rate(&world, since, secs(60)));
    }
    println!("a talker's seals up and down, bit/s, unmuted, muted and again: {rates:?}");
    for (up, down) in &rates {
        assert!(*up > 9_000.0 && *up <= 12_000.0 && *down <= 12_000.0, "{up} {down}");
    }
    assert!(rates.iter().all(|rate| *rate == rates[0]));
}
