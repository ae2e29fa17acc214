//! What happens in every meeting: people knock, are let in or not, talk, and go.

use conclave_protocol::conference::{ActError, Event, LeftWhy};
use conclave_protocol::wire::control::Denial;
use conclave_tests::world::{Conditions, Entry, Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

fn denial(world: &World, who: Who) -> Option<Denial> {
    world.peer(who).events.iter().find_map(|(_, event)| match event {
        Event::Denied(denial) => Some(*denial),
        _ => None,
    })
}

#[test]
fn everybody_who_is_let_in_hears_everybody_else_and_nobody_hears_themselves() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let conditions = Conditions::drawn(world.dice());
        let guests: Vec<Who> = (0..4).map(|_| world.bring_in(Guest { conditions, ..Guest::default() })).collect();
        world.run(secs(3));
        let from = world.now();
        world.run(secs(2));
        world.assert_converged();
        for who in guests.iter().copied().chain([HOST]) {
            for index in 0..=4 {
                let is_own = world.peer(who).conference.index().unwrap().0 == index;
                let heard = world.peer(who).opened.range((index, 0)..=(index, u32::MAX)).filter(|(_, at)| **at > from);
                // 100 frames are sent; the worst path loses a quarter for a while.
                assert!(if is_own { heard.count() == 0 } else { heard.count() > 60 });
            }
            assert_eq!(world.peer(who).alarms(), 0);
        }
        let (planted, searched) = world.eavesdropper.effort();
        assert!(planted > 80 && searched > 100_000, "the eavesdropper has looked for {planted} in {searched} bytes");
    });
}

#[test]
fn somebody_who_waits_gets_no_datagram_no_roster_and_no_count() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        world.bring_in(Guest::default());
        let waiting = world.join(Guest::default());
        world.await_knock(waiting);
        world.run(secs(5));
        world.bring_in(Guest::default());
        world.run(secs(5));
        let peer = world.peer(waiting);
        assert!(peer.was_told(|event| matches!(event, Event::HostFound(_))));
        assert!(peer.was_told(|event| matches!(event, Event::WaitingRoom)));
        assert_eq!(peer.events.len(), 2, "somebody who waits is told of more than the host and the waiting room");
        assert_eq!(peer.datagrams, 0);
        assert_eq!(peer.conference.members().count(), 0);
        assert_eq!(peer.conference.index(), None);
    });
}

#[test]
fn admit_all_lets_in_everybody_who_waits_in_one_epoch() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let guests: Vec<Who> = (0..6).map(|_| world.join(Guest::default())).collect();
        guests.iter().for_each(|guest| world.await_knock(*guest));
        let before = world.peer(HOST).conference.epoch().number();
        assert_eq!(world.admit_all(), 6);
        assert!(world.peer(HOST).conference.knocks().is_empty());
        guests.iter().for_each(|guest| world.await_member(*guest));
        world.run(secs(3));
        world.assert_converged();
        assert_eq!(world.peer(HOST).conference.epoch().number(), before + 1);
        assert_eq!(world.peer(HOST).roster().len(), 7);
    });
}

#[test]
fn a_second_denial_blocks_the_identity_whatever_name_it_comes_by() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let guest = Guest { identity: Some([seed as u8 ^ 0x5A; 32]), ..Guest::default() };
        for expected in [Denial::Denied, Denial::Blocked] {
            let who = world.join(guest);
            world.await_knock(who);
            world.deny(who);
            world.run(secs(1));
            assert_eq!(denial(&world, who), Some(expected));
        }
        let again = world.join(guest);
        world.run(secs(5));
        assert_eq!(denial(&world, again), Some(Denial::Blocked));
        assert!(world.peer(HOST).conference.knocks().is_empty());
        let other = world.bring_in(Guest::default());
        world.run(secs(3));
        world.assert_converged();
        assert_eq!(denial(&world, other), None);
    });
}

#[test]
fn a_knock_expires_after_half_an_hour_and_the_guest_hears_so() {
    let mut world = World::new(1);
    world.open_meeting(Meeting { talks: false, ..Meeting::default() });
    let guest = world.join(Guest::default());
    world.await_knock(guest);
    world.run(secs(29 * 60));
    assert!(world.knock_of(guest).is_some());
    world.run(secs(62));
    assert!(world.knock_of(guest).is_none());
    assert_eq!(denial(&world, guest), Some(Denial::Expired));
}

#[test]
fn a_knock_goes_when_the_guest_hangs_up_or_knocks_again() {
    let mut world = World::new(2);
    world.open_meeting(Meeting::default());
    let impatient = world.join(Guest::default());
    world.await_knock(impatient);
    world.hang_up(impatient);
    world.run(secs(1));
    assert!(world.peer(HOST).conference.knocks().is_empty());
    let guest = Guest { identity: Some([7; 32]), ..Guest::default() };
    let first = world.join(guest);
    world.await_knock(first);
    let second = world.join(guest);
    world.await_knock(second);
    assert_eq!(world.knock_of(first), None);
    assert_eq!(world.admit(first), Err(ActError::NoSuchKnock));
    world.admit(second).unwrap();
    world.await_member(second);
    world.run(secs(3));
    world.assert_converged();
}

#[test]
fn somebody_who_comes_before_the_host_waits_for_an_act_too() {
    let mut world = World::new(3);
    let late = Conditions { latency: secs(4), ..Conditions::CLEAN };
    world.open_meeting(Meeting { conditions: late, ..Meeting::default() });
    let guest = world.join(Guest::default());
    world.run(secs(2));
    assert!(world.peer(guest).was_told(|event| matches!(event, Event::WaitingForHost)));
    assert!(!world.peer(guest).was_told(|event| matches!(event, Event::HostFound(_))));
    world.run_until(secs(60), |world| world.knock_of(guest).is_some());
    world.run(secs(30));
    assert_eq!(world.peer(guest).conference.index(), None, "somebody is in without an act of the host");
    world.admit(guest).unwrap();
    world.await_member(guest);
}

#[test]
fn a_full_meeting_takes_nobody_until_somebody_leaves() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting { max_members: 3, ..Meeting::default() });
        let first = world.bring_in(Guest::default());
        world.bring_in(Guest::default());
        let third = world.join(Guest::default());
        world.await_knock(third);
        let (now, knock) = (world.instant(), world.knock_of(third).unwrap());
        let refused = world.peer_mut(HOST).conference.admit(now, knock);
        assert_eq!(refused, Err(ActError::Full));
        assert_eq!(world.peer(HOST).roster().len(), 3);
        world.leave(first);
        world.run(secs(2));
        world.admit(third).unwrap();
        world.await_member(third);
        world.run(secs(3));
        world.assert_converged();
    });
}

#[test]
fn a_full_open_meeting_tells_the_guest_so() {
    let mut world = World::new(4);
    world.open_meeting(Meeting { max_members: 2, entry: Entry::Open, ..Meeting::default() });
    let first = world.join(Guest::default());
    world.await_member(first);
    let second = world.join(Guest::default());
    world.run(secs(3));
    assert_eq!(denial(&world, second), Some(Denial::Full));
}

#[test]
fn who_leaves_is_gone_for_everybody_and_hears_nothing_of_the_next_epoch() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let (stays, goes) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
        world.run(secs(2));
        world.leave(goes);
        world.run(secs(4));
        world.assert_converged();
        let index = world.peer(goes).conference.index();
        for who in [HOST, stays] {
            let left =
                |event: &Event| matches!(event, Event::Left { index: i, why: LeftWhy::Left, .. } if Some(*i) == index);
            assert!(world.peer(who).was_told(left));
        }
    });
}

#[test]
fn who_is_away_for_a_minute_is_lost_and_not_earlier() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let (stays, goes) = (world.bring_in(Guest::default()), world.bring_in(Guest::default()));
        world.run(secs(1));
        world.hang_up(goes);
        world.run(secs(59));
        assert_eq!(world.peer(HOST).roster().len(), 3);
        world.run(secs(5));
        assert_eq!(world.peer(HOST).roster().len(), 2);
        let lost = |event: &Event| matches!(event, Event::Left { why: LeftWhy::Lost, .. });
        assert!(world.peer(stays).was_told(lost));
        world.assert_converged();
    });
}

#[test]
fn the_host_ends_the_meeting_for_everybody_at_once() {
    let mut world = World::new(5);
    world.open_meeting(Meeting::default());
    let guests: Vec<Who> = (0..3).map(|_| world.bring_in(Guest::default())).collect();
    world.run(secs(1));
    world.end_meeting();
    world.run(millis(100));
    for guest in guests {
        assert!(world.peer(guest).was_told(|event| matches!(event, Event::Ended { .. })));
        assert!(!world.can_send(guest));
    }
    assert!(!world.can_send(HOST));
}

#[test]
fn a_host_alone_who_connects_again_finds_a_relay_that_takes_guests() {
    for_seeds(3, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let first = world.bring_in(Guest::default());
        world.run(secs(1));
        world.leave(first);
        world.run(secs(2));
        world.hang_up(HOST);
        world.run(secs(50));
        assert_eq!(world.relay.stats().meetings_now, 0, "the relay remembers a meeting without anybody");
        world.connect(HOST);
        world.run(secs(1));
        world.bring_in(Guest::default());
        world.run(secs(3));
        world.assert_converged();
    });
}

/// The lines of the host's that somebody was shown, in that order.
fn lines(world: &World, who: Who) -> Vec<u32> {
    let chats = world.peer(who).events.iter().filter_map(|(_, event)| match event {
        Event::Chat { text, .. } => text.parse().ok(),
        _ => None,
    });
    chats.collect()
}

#[test]
fn who_enters_or_comes_back_while_somebody_writes_is_shown_every_line_from_then_on_in_order() {
    for_seeds(30, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let conditions = Conditions::drawn(world.dice());
        let old = world.bring_in(Guest { conditions, ..Guest::default() });
        let new = world.join(Guest { conditions, ..Guest::default() });
        world.await_knock(new);
        world.run(secs(1));
        let mut written = 0;
        let mut write = |world: &mut World, count: u32| {
            for _ in 0..count {
                let text = written.to_string();
                world.acts(HOST, |conference, now| conference.chat(now, &text)).expect("the host may");
                written += 1;
                world.run(millis(20));
            }
            written
        };
        write(&mut world, 20);
        world.admit(new).unwrap();
        write(&mut world, 60);
        world.cut_off(old);
        write(&mut world, 50);
        world.restore(old);
        let all = write(&mut world, 60);
        world.run(secs(4));
        assert_eq!(lines(&world, old), (0..all).collect::<Vec<_>>());
        let shown = lines(&world, new);
        // Each needs some round trips to be in.
        assert!(shown.len() > 100, "only {} lines were shown", shown.len());
        assert_eq!(shown, (all - shown.len() as u32..all).collect::<Vec<_>>());
    });
}
