//! Epochs: when they come, that they cost nobody a frame, and what else time brings.

use std::time::Duration;

use conclave_protocol::conference::Event;
use conclave_protocol::epoch::statement::Rate;
use conclave_tests::world::{Conditions, Entry, GilbertElliott, Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

/// A path that loses no datagram, but is different for everybody.
fn lossless(world: &mut World) -> Conditions {
    let drawn = Conditions::drawn(world.dice());
    Conditions { loss: GilbertElliott::NONE, ..drawn }
}

fn assert_no_gap(world: &World, people: &[Who], from: Duration, to: Duration) {
    for listener in people {
        for talker in people.iter().filter(|talker| *talker != listener) {
            let unheard = world.unheard(*listener, *talker, from, to);
            assert!(unheard.is_empty(), "{listener:?} has not heard {unheard:?} of {talker:?}");
        }
    }
}

fn epoch(world: &World) -> u32 {
    world.peer(HOST).conference.epoch().number()
}

#[test]
fn people_let_in_within_a_quarter_of_a_second_share_an_epoch() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        world.bring_in(Guest::default());
        let guests: Vec<Who> = (0..4).map(|_| world.join(Guest::default())).collect();
        guests.iter().for_each(|guest| world.await_knock(*guest));
        world.run(secs(2));
        let before = epoch(&world);
        for guest in &guests {
            world.admit(*guest).unwrap();
            world.run(millis(50));
        }
        guests.iter().for_each(|guest| world.await_member(*guest));
        // The first is let in at once; the others have to wait, and come together.
        assert_eq!(epoch(&world), before + 2);
        let joined = |who: &Who| {
            let index = world.peer(*who).conference.index().unwrap();
            world.peer(HOST).conference.members().find(|m| m.index == index).unwrap().joined
        };
        assert!(guests[1..].iter().all(|guest| joined(guest).number() == before + 2));
        world.run(secs(2));
        world.assert_converged();
    });
}

#[test]
fn nobody_who_stays_misses_a_frame_when_others_come() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let mut people = vec![HOST];
        for _ in 0..3 {
            let conditions = lossless(&mut world);
            people.push(world.bring_in(Guest { conditions, ..Guest::default() }));
        }
        world.run(secs(2));
        let from = world.now();
        for _ in 0..4 {
            let conditions = lossless(&mut world);
            world.bring_in(Guest { conditions, ..Guest::default() });
            let pause = world.dice().up_to(secs(2));
            world.run(pause);
        }
        world.run(secs(3));
        let to = world.now() - millis(300);
        assert_no_gap(&world, &people, from, to);
        world.assert_converged();
    });
}

#[test]
fn nobody_who_stays_misses_a_frame_in_a_wave_of_joins() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting { entry: Entry::Open, ..Meeting::default() });
        let mut people = vec![HOST];
        for _ in 0..2 {
            let conditions = lossless(&mut world);
            let who = world.join(Guest { conditions, ..Guest::default() });
            world.await_member(who);
            people.push(who);
        }
        world.run(secs(2));
        let from = world.now();
        for _ in 0..30 {
            world.join(Guest { talks: false, ..Guest::default() });
            world.run(millis(200));
        }
        world.run(secs(3));
        let to = world.now() - millis(300);
        assert_eq!(world.peer(HOST).roster().len(), 33);
        assert_no_gap(&world, &people, from, to);
        world.assert_converged();
    });
}

#[test]
fn a_long_meeting_rekeys_every_two_minutes_and_renews_capabilities() {
    for_seeds(2, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let guests = [(); 2].map(|()| {
            let conditions = lossless(&mut world);
            world.bring_in(Guest { conditions, ..Guest::default() })
        });
        world.run(secs(3));
        let (before, from) = (epoch(&world), world.now());
        world.run(secs(12 * 60));
        assert_eq!(epoch(&world), before + 6);
        let to = world.now() - millis(300);
        assert_no_gap(&world, &[HOST, guests[0], guests[1]], from, to);
        assert_eq!(world.relay.stats().members_now, 3, "a capability ran out");
        assert_eq!(world.relay.stats().detached_expired, 0);
        world.assert_converged();
    });
}

#[test]
fn the_rate_opens_with_the_seventeenth_member_and_never_closes() {
    let mut world = World::new(6);
    world.open_meeting(Meeting { entry: Entry::Open, talks: false, ..Meeting::default() });
    let silent = Guest { talks: false, ..Guest::default() };
    let people: Vec<Who> = (0..15).map(|_| world.join(silent)).collect();
    people.iter().for_each(|who| world.await_member(*who));
    world.run(secs(3));
    assert_eq!(world.peer(HOST).roster().len(), 16);
    assert_eq!(world.peer(HOST).conference.rate(), Rate::Private);
    let last = world.join(silent);
    world.await_member(last);
    world.run(secs(3));
    world.leave(last);
    world.leave(people[0]);
    world.run(secs(3));
    world.assert_converged();
    assert_eq!(world.peer(HOST).roster().len(), 15);
    for who in people[1..].iter().chain([&HOST]) {
        assert_eq!(world.peer(*who).conference.rate(), Rate::Open);
        let told = world.peer(*who).events.iter().filter(|(_, event)| *event == Event::OpenRate).count();
        assert_eq!(told, 1);
    }
}

#[test]
fn a_member_whose_epoch_key_comes_late_hears_everybody_as_soon_as_it_is_here() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let slow = world.bring_in(Guest::default());
        let quick = world.bring_in(Guest::default());
        world.run(secs(3));
        let until = world.now() + secs(8);
        world.peer_mut(slow).down.stall(until);
        world.bring_in(Guest::default());
        world.run_until(secs(20), |world| world.now() >= until);
        world.run(secs(1));
        let from = world.now();
        world.run(secs(3));
        // Seals were late with the key: what was said in the last half second still waits for its own.
        let to = world.now() - millis(800);
        assert_no_gap(&world, &[HOST, slow, quick], from, to);
        world.assert_converged();
    });
}

#[test]
fn many_who_are_lost_together_leave_a_meeting_that_goes_on() {
    let mut world = World::new(7);
    world.open_meeting(Meeting { entry: Entry::Open, talks: false, max_members: 400, ..Meeting::default() });
    let silent = Guest { talks: false, ..Guest::default() };
    let stays = world.join(silent);
    world.await_member(stays);
    let mut crowd = Vec::new();
    for _ in 0..3 {
        // As many at a time as the relay's mailboxes and its allowance for handshakes take at once.
        crowd.extend((0..90).map(|_| world.join(silent)));
        let expected = crowd.len() + 2;
        let all_in = world.run_until(secs(120), |world| world.peer(HOST).roster().len() == expected);
        assert!(all_in, "not everybody got in");
    }
    world.run(secs(3));
    crowd.iter().for_each(|who| world.hang_up(*who));
    world.run(secs(75));
    assert_eq!(world.peer(HOST).roster().len(), 2);
    world.assert_converged();
    assert_eq!(world.peer(stays).alarms(), 0);
}
