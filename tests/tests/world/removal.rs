//! Removal: who is put out hears nothing more, whatever the relay does, and the others hardly notice.

use conclave_protocol::conference::{Event, LeftWhy};
use conclave_protocol::wire::control::Denial;
use conclave_tests::world::{Conditions, GilbertElliott, Guest, HOST, Manners, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

#[test]
fn removed_member_opens_nothing_sealed_half_a_second_after_the_act_though_the_relay_leaks_everything() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.relay.villainy.leaks = true;
        world.relay.villainy.hides_revocations = true;
        world.open_meeting(Meeting { conditions: Conditions::BAD, ..Meeting::default() });
        let conditions = Conditions::BAD;
        let removed = world.bring_in(Guest { conditions, manners: Manners::Spies, ..Guest::default() });
        let stays = world.bring_in(Guest { conditions, ..Guest::default() });
        world.run(secs(2));
        assert!(world.peer(removed).heard(0) > 20, "nothing was heard before the removal");
        let (act, before) = (world.now(), world.peer(removed).datagrams);
        world.remove(removed);
        world.run(secs(3));
        assert!(world.peer(removed).datagrams > before + 100, "the relay has not leaked");
        // The witness has checked each frame; here is that there was nothing at all in the end.
        let last = world.peer(removed).opened.values().max().unwrap();
        assert!(*last < act + millis(700));
        world.peer_mut(removed).talks = false;
        world.run(secs(2));
        world.assert_converged();
        assert!(world.peer(stays).heard(0) > 100);
    });
}

#[test]
fn everybody_who_ever_had_to_stay_outside_opens_nothing_though_the_relay_leaks_everything() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        world.bring_in(Guest::default());
        let spy = Guest { manners: Manners::Spies, ..Guest::default() };
        let outsiders: Vec<Who> = (0..3).map(|_| world.join(spy)).collect();
        outsiders.iter().for_each(|who| world.await_knock(*who));
        // Not earlier, since a handshake that is shown others' messages comes to nothing.
        world.relay.villainy.leaks = true;
        world.deny(outsiders[0]);
        world.admit(outsiders[1]).unwrap();
        world.await_member(outsiders[1]);
        let outsiders = [outsiders[0], outsiders[2]];
        world.run(secs(5));
        for who in outsiders {
            assert!(world.peer(who).datagrams > 300, "the relay has not leaked");
            assert!(world.peer(who).opened.is_empty());
            assert_eq!(world.peer(who).conference.members().count(), 0);
        }
    });
}

#[test]
fn who_has_left_and_listens_on_opens_nothing_of_the_next_epoch() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.relay.villainy.leaks = true;
        world.relay.villainy.hides_revocations = true;
        world.open_meeting(Meeting::default());
        let goes = world.bring_in(Guest { manners: Manners::Spies, ..Guest::default() });
        world.bring_in(Guest::default());
        world.run(secs(2));
        world.say_goodbye(goes);
        world.run(secs(3));
        let (opened, datagrams) = (world.peer(goes).opened.len(), world.peer(goes).datagrams);
        world.run(secs(3));
        assert!(world.peer(goes).datagrams > datagrams + 100, "the relay has not leaked");
        assert_eq!(world.peer(goes).opened.len(), opened);
        world.assert_converged();
    });
}

#[test]
fn who_says_goodbye_and_is_removed_is_treated_as_removed() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.relay.villainy.leaks = true;
        world.relay.villainy.hides_revocations = true;
        world.open_meeting(Meeting::default());
        let goes = world.bring_in(Guest { manners: Manners::Spies, ..Guest::default() });
        let stays = world.bring_in(Guest::default());
        // Its good-bye arrives when the epoch before is still too young for another.
        world.run(millis(100));
        world.say_goodbye(goes);
        world.run(millis(30));
        world.remove(goes);
        world.run(secs(3));
        let index = world.peer(goes).conference.index();
        let removed =
            |event: &Event| matches!(event, Event::Left { index: i, why: LeftWhy::Removed, .. } if Some(*i) == index);
        assert!(world.peer(stays).was_told(removed));
        world.assert_converged();
    });
}

#[test]
fn removed_member_is_cut_off_by_an_honest_relay_and_cannot_knock_again() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let guest = Guest { identity: Some([seed as u8 ^ 0xA5; 32]), manners: Manners::Spies, ..Guest::default() };
        let removed = world.bring_in(guest);
        world.bring_in(Guest::default());
        world.run(secs(2));
        world.remove(removed);
        world.run(millis(100));
        assert!(world.peer(removed).was_told(|event| *event == Event::Removed));
        let datagrams = world.peer(removed).datagrams;
        world.run(secs(2));
        assert_eq!(world.peer(removed).datagrams, datagrams);
        let again = world.join(guest);
        world.run(secs(3));
        assert!(world.peer(again).was_told(|event| *event == Event::Denied(Denial::Blocked)));
        world.assert_converged();
    });
}

#[test]
fn a_removal_costs_those_who_stay_no_frame_though_frames_overtake_the_key() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let jitter = if seed % 2 == 0 { millis(0) } else { millis(25) };
        let mut people = vec![HOST];
        for i in 0..4 {
            let conditions = Conditions { latency: millis(5 + 7 * i), jitter, ..Conditions::CLEAN };
            people.push(world.bring_in(Guest { conditions, ..Guest::default() }));
        }
        world.run(secs(3));
        let from = world.now();
        let removed = people.remove(2);
        world.remove(removed);
        world.run(secs(2));
        let to = world.now() - millis(300);
        for listener in &people {
            for talker in people.iter().filter(|talker| *talker != listener) {
                assert_eq!(world.unheard(*listener, *talker, from, to), Vec::<u32>::new());
            }
        }
        world.assert_converged();
    });
}

#[test]
fn frames_of_the_epoch_before_a_removal_die_after_half_a_second_even_when_more_epochs_follow() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let removed = world.bring_in(Guest::default());
        let talker = world.bring_in(Guest::default());
        let listener = world.bring_in(Guest::default());
        let late = world.join(Guest::default());
        world.await_knock(late);
        world.run(secs(3));
        // Every frame of the talker's is kept back from the listener from here on.
        let loss = GilbertElliott { worsens: 1.0, recovers: 0.0, lost: 1.0 };
        world.peer_mut(listener).down.conditions.loss = loss;
        world.record = Some(Vec::new());
        world.run(millis(100));
        let frames = world.datagrams_for(listener);
        assert!(frames.len() > 5);
        // The key of the removal comes late, so that the next one follows within half a second.
        let until = world.now() + millis(150);
        world.peer_mut(listener).down.stall(until);
        world.remove(removed);
        world.admit(late).unwrap();
        world.run(millis(900));
        assert!(world.peer(listener).conference.epoch() >= world.peer(talker).conference.epoch());
        let opened = world.peer(listener).opened.len();
        for frame in frames {
            world.open(listener, &frame);
        }
        assert_eq!(world.peer(listener).opened.len(), opened, "frames older than the removal were opened");
    });
}
