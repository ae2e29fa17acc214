//! Whom reports go to, and what becomes of sealing keys when their owners are gone.

use conclave_protocol::conference::Event;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::PublicKey;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::FromRelay;
use conclave_tests::world::{DAWN, Guest, HOST, Manners, Meeting, Who, World, for_seeds, moderator};

use crate::secs;

fn knows_moderators(world: &World, who: Who, count: u8) -> bool {
    let conference = &world.peer(who).conference;
    conference.moderators() == (0..count).map(moderator).collect::<Vec<_>>()
        && world.peer(who).was_told(|event| matches!(event, Event::Moderators)) == (count > 0)
}

#[test]
fn everybody_knows_the_moderators_also_who_comes_when_a_cohost_leads() {
    for_seeds(5, |seed| {
        for count in [0, 1, 4] {
            let mut world = World::new(seed);
            world.open_meeting(Meeting { moderators: count, ..Meeting::default() });
            let waiting = world.join(Guest::default());
            world.await_knock(waiting);
            assert!(world.peer(waiting).conference.moderators().is_empty(), "who waits is not told");
            world.admit(waiting).expect("it knocks");
            world.await_member(waiting);
            world.model().switch_off();
            world.promote(waiting);
            world
                .acts(HOST, |conference, now| {
                    conference.leave(now);
                    Ok(())
                })
                .expect("anybody may leave");
            world.run(secs(5));
            let late = world.join(Guest::default());
            let knocks = world.run_until(secs(20), |w| !w.peer(waiting).conference.knocks().is_empty());
            assert!(knocks, "nobody knocks at the co-host's door");
            let (knock, _) = world.peer(waiting).conference.knocks()[0].clone();
            world.acts(waiting, |conference, now| conference.admit(now, knock)).expect("it leads");
            world.await_member(late);
            assert!([HOST, waiting, late].iter().all(|who| knows_moderators(&world, *who, count)), "{count}");
        }
    });
}

#[test]
fn what_the_relay_says_of_reports_is_known_and_a_moderator_that_is_none_counts_as_none() {
    let mut world = World::new(1);
    world.open_meeting(Meeting::default());
    let guest = world.bring_in(Guest::default());
    let said = |takes_reports, moderator| FromRelay::Welcome {
        time: DAWN.plus(secs(1)),
        region: String::new(),
        takes_reports,
        moderator,
    };
    let operator = moderator(7);
    world.relay_says(guest, &said(true, operator.encode()));
    assert!(world.peer(guest).conference.relay_takes_reports());
    assert_eq!(world.peer(guest).conference.operator_moderator(), Some(&operator));
    assert!(world.peer(guest).was_told(|event| matches!(event, Event::Moderators)));
    let mut short = operator.encode();
    short.pop();
    world.relay_says(guest, &said(true, short));
    assert_eq!(world.peer(guest).conference.operator_moderator(), None);
    world.relay_says(guest, &said(false, Vec::new()));
    assert!(!world.peer(guest).conference.relay_takes_reports());
}

/// The members whose sealing keys somebody has seen published; each must be that of `vk`.
fn published(world: &World, who: Who, vk: &[(MemberIndex, PublicKey)]) -> Vec<u16> {
    let published = world.peer(who).conference.published();
    let indexes = published.map(|(index, seed)| {
        assert!(vk.contains(&(index, seed.public())), "not the key of member {index}");
        index.0
    });
    indexes.collect()
}

fn keys(world: &World) -> Vec<(MemberIndex, PublicKey)> {
    world.peer(HOST).conference.members().map(|member| (member.index, member.cert.keys.sealing)).collect()
}

#[test]
fn sealing_key_of_a_member_is_published_fifteen_seconds_after_it_has_left() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let [leaver, stays, removed] = [(); 3].map(|()| world.bring_in(Guest::default()));
        let vk = keys(&world);
        let gone = world.peer(leaver).conference.index().expect("a member").0;
        world.leave(leaver);
        world.remove(removed);
        world.run(secs(14));
        assert!(published(&world, HOST, &vk).is_empty() && published(&world, stays, &vk).is_empty());
        world.run(secs(2));
        // Who was put out said no good-bye.
        assert_eq!(published(&world, HOST, &vk), [gone]);
        assert_eq!(published(&world, stays, &vk), [gone]);
        assert_eq!(world.peer(HOST).alarms() + world.peer(stays).alarms(), 0);
    });
}

#[test]
fn successor_publishes_what_a_leader_did_not_come_to_and_that_leaders_own_key() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let [cohost, leaver, stays] = [(); 3].map(|()| world.bring_in(Guest::default()));
        let vk = keys(&world);
        world.model().switch_off();
        world.promote(cohost);
        let gone = world.peer(leaver).conference.index().expect("a member").0;
        world.leave(leaver);
        world.run(secs(2));
        world.leave(HOST);
        world.run(secs(20));
        for who in [cohost, stays] {
            assert_eq!(published(&world, who, &vk), [0, gone], "{who:?}");
            assert_eq!(world.peer(who).alarms(), 0);
        }
    });
}

#[test]
fn everybody_publishes_its_own_key_at_the_end() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        world.open_meeting(Meeting::default());
        let manners = Manners::Spies;
        let guests = [(); 3].map(|()| world.bring_in(Guest { manners, ..Guest::default() }));
        let vk = keys(&world);
        world.end_meeting();
        world.run(secs(2));
        for who in guests {
            assert_eq!(published(&world, who, &vk), [0, 1, 2, 3]);
            assert_eq!(world.peer(who).alarms(), 0);
        }
    });
}
