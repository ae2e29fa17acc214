//! Who leads: co-hosts, hosts who die, hand over and come back, and meetings that lose their relay.

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{ActError, Event};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::succession::Rank;
use conclave_tests::world::{Guest, HOST, Meeting, Who, World, for_seeds};

use crate::{millis, secs};

/// A meeting of a host, a co-host and `others`.
fn with_cohost(seed: u64, others: usize) -> (World, Who, Vec<Who>) {
    let mut world = World::new(seed);
    world.open_meeting(Meeting::default());
    let cohost = world.bring_in(Guest::default());
    let others: Vec<Who> = (0..others).map(|_| world.bring_in(Guest::default())).collect();
    world.model().switch_off();
    world.promote(cohost);
    (world, cohost, others)
}

fn leader(world: &World, who: Who) -> Option<u16> {
    world.peer(who).conference.leader().map(|index| index.0)
}

fn index(world: &World, who: Who) -> u16 {
    world.peer(who).conference.index().expect("a member").0
}

/// Lets time pass until all of `who` are in one epoch under one leader: an epoch may be on its way.
fn together(world: &mut World, who: &[Who]) {
    let is_one = |world: &World| {
        let heads = who.iter().map(|who| (world.peer(*who).conference.chain_hash().map(|t| t.0), leader(world, *who)));
        let mut heads = heads.collect::<Vec<_>>();
        heads.dedup();
        heads.len() == 1
    };
    let one = world.run_until(millis(1_500), is_one);
    assert!(one, "they are not in one meeting:\n{}", world.story(who));
}

#[test]
fn cohost_leads_within_ten_seconds_of_the_hosts_death_and_the_others_go_on_hearing_each_other() {
    for_seeds(20, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 2);
        world.run(secs(3));
        let died = world.now();
        world.kill(HOST);
        let new = index(&world, cohost);
        let led = world.run_until(secs(10), |w| others.iter().all(|who| leader(w, *who) == Some(new)));
        assert!(led, "nobody has taken over");
        world.run(secs(2));
        together(&mut world, &[cohost, others[0], others[1]]);
        // It lets people in and out.
        let guest = world.join(Guest::default());
        let knocks = world.run_until(secs(10), |w| !w.peer(cohost).conference.knocks().is_empty());
        assert!(knocks, "nobody knocks at the co-host's door");
        let (knock, _) = world.peer(cohost).conference.knocks()[0].clone();
        world.acts(cohost, |conference, now| conference.admit(now, knock)).expect("it leads");
        assert!(world.run_until(secs(10), |w| w.can_send(guest)), "the guest is not let in");
        world.run(secs(1));
        together(&mut world, &[cohost, others[0], others[1], guest]);
        let removed = MemberIndex(index(&world, others[1]));
        let at = world.now();
        world.witness.removed(at, removed.0);
        world.acts(cohost, |conference, now| conference.remove(now, removed)).expect("it leads");
        world.run(secs(2));
        assert!(world.peer(others[1]).was_told(|event| matches!(event, Event::Removed)));
        let heard_until = world.now() - secs(1);
        let unheard = world.unheard(others[0], cohost, died, heard_until);
        assert!(unheard.is_empty(), "{} frames of the co-host were not heard: {unheard:?}", unheard.len());
        // The dead host is taken out in the end.
        world.run(secs(70));
        assert!(!world.peer(cohost).roster().contains_key(&0));
        together(&mut world, &[cohost, others[0], guest]);
    });
}

#[test]
fn dead_relay_costs_nobody_the_place_the_epoch_chain_goes_on_and_nobody_knocks() {
    for_seeds(20, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 2);
        world.run(secs(3));
        let all = [HOST, cohost, others[0], others[1]];
        let before: Vec<_> = all.iter().map(|who| (index(&world, *who), world.peer(*who).heard(0))).collect();
        let epoch = world.peer(HOST).conference.epoch();
        world.replace_relay(secs(3));
        let back = world.now();
        world.run(secs(2));
        together(&mut world, &all);
        assert_eq!(leader(&world, cohost), Some(0), "nobody takes over from a host who was only unreachable");
        for (who, (was, heard)) in all.iter().zip(before) {
            assert_eq!(index(&world, *who), was);
            assert!(*who == HOST || world.peer(*who).heard(0) > heard, "the host is not heard again");
            assert_eq!(world.peer(*who).alarms(), 0);
        }
        assert!(world.peer(HOST).conference.epoch() >= epoch);
        let unheard = world.unheard(others[0], cohost, back + millis(500), world.now() - millis(500));
        assert!(unheard.is_empty(), "{} frames were not heard", unheard.len());
        assert!(!world.peer(others[0]).was_told(|event| matches!(event, Event::Rejoining)));
    });
}

#[test]
fn member_that_was_cut_off_for_twenty_seconds_is_back_with_its_index_and_what_it_missed() {
    for_seeds(20, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 2);
        let who = others[0];
        let was = index(&world, who);
        world.cut_off(who);
        world.run(secs(5));
        // Meanwhile keys change, and somebody says something.
        world.acts(HOST, |conference, now| conference.lock(now, true)).expect("the host may");
        world.acts(cohost, |conference, now| conference.chat(now, "where are you?")).expect("a member may");
        world.run(secs(15));
        world.restore(who);
        world.run(secs(2));
        assert_eq!(index(&world, who), was);
        together(&mut world, &[HOST, cohost, who, others[1]]);
        let told =
            world.peer(who).was_told(|event| matches!(event, Event::Chat { text, .. } if text == "where are you?"));
        assert!(told, "it was not told what it has missed");
        assert!(!world.peer(who).was_told(|event| matches!(event, Event::Rejoining)));
        assert_eq!(world.peer(who).alarms(), 0);
    });
}

#[test]
fn member_that_was_lost_comes_back_without_a_knock_even_into_a_locked_meeting() {
    for_seeds(10, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 2);
        let who = others[0];
        world.acts(HOST, |conference, now| conference.lock(now, true)).expect("the host may");
        world.cut_off(who);
        world.run(secs(90));
        assert!(!world.peer(HOST).roster().values().any(|name| *name == world.peer(who).name));
        world.restore(who);
        assert!(world.run_until(secs(10), |w| w.can_send(who)), "it does not come back");
        world.run(secs(1));
        together(&mut world, &[HOST, cohost, who]);
        assert!(world.peer(HOST).conference.knocks().is_empty());
        // Somebody else does not get in.
        let stranger = world.join(Guest::default());
        world.run(secs(5));
        assert!(world.peer(stranger).was_told(|event| matches!(event, Event::Denied(_))));
    });
}

#[test]
fn host_hands_over_and_takes_the_lead_back() {
    for_seeds(10, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 1);
        let new = MemberIndex(index(&world, cohost));
        world.acts(HOST, |conference, now| conference.hand_over(now, new)).expect("the host may");
        world.run(secs(2));
        together(&mut world, &[HOST, cohost, others[0]]);
        assert_eq!(leader(&world, others[0]), Some(new.0));
        // The host is a co-host of its own now: its acts go through the leader.
        let guest = world.join(Guest::default());
        let shown = world.run_until(secs(10), |w| !w.peer(HOST).conference.knocks().is_empty());
        assert!(shown, "the host is not shown who knocks");
        let (knock, _) = world.peer(HOST).conference.knocks()[0].clone();
        world.acts(HOST, |conference, now| conference.admit(now, knock)).expect("the host may");
        assert!(world.run_until(secs(10), |w| w.can_send(guest)), "the guest is not let in");
        world.acts(HOST, |conference, now| conference.hand_over(now, MemberIndex::HOST)).expect("it is the host");
        world.run(secs(2));
        together(&mut world, &[HOST, cohost, others[0], guest]);
        assert_eq!(leader(&world, guest), Some(0));
        for who in [HOST, cohost, others[0], guest] {
            assert_eq!(world.peer(who).alarms(), 0, "{:?}", world.peer(who).events.last());
        }
    });
}

#[test]
fn host_who_comes_back_after_a_takeover_is_a_member_and_can_take_the_lead_back() {
    for_seeds(20, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 2);
        world.cut_off(HOST);
        let new = index(&world, cohost);
        assert!(world.run_until(secs(12), |w| leader(w, others[0]) == Some(new)), "nobody takes over");
        world.run(secs(8));
        world.restore(HOST);
        world.run(secs(5));
        together(&mut world, &[HOST, cohost, others[0], others[1]]);
        assert_eq!(index(&world, HOST), 0);
        assert_eq!(leader(&world, HOST), Some(new));
        world.acts(HOST, |conference, now| conference.hand_over(now, MemberIndex::HOST)).expect("it is the host");
        world.run(secs(2));
        together(&mut world, &[HOST, cohost, others[0], others[1]]);
        assert_eq!(leader(&world, others[1]), Some(0));
    });
}

#[test]
fn host_who_leaves_hands_over_and_the_meeting_goes_on() {
    for_seeds(10, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 1);
        world.leave(HOST);
        world.run(secs(3));
        together(&mut world, &[cohost, others[0]]);
        assert_eq!(leader(&world, others[0]), Some(index(&world, cohost)));
        assert!(!world.peer(cohost).roster().contains_key(&0), "the host is still in the roster");
    });
}

#[test]
fn demoted_cohost_has_lost_every_right() {
    for_seeds(10, |seed| {
        let (mut world, cohost, others) = with_cohost(seed, 1);
        let demoted = MemberIndex(index(&world, cohost));
        world.acts(HOST, |conference, now| conference.demote(now, demoted)).expect("the host may");
        world.run(secs(3));
        assert_eq!(world.peer(others[0]).conference.rank(demoted), Rank::Member);
        let refused = world.acts(cohost, |conference, now| conference.lock(now, true));
        assert_eq!(refused, Err(ActError::NotHost));
        assert!(world.can_send(cohost), "it has lost its place, too");
        world.kill(HOST);
        world.run(secs(15));
        assert_ne!(leader(&world, others[0]), Some(demoted.0));
        world.run(secs(20));
        // Nobody leads: the others stop and leave.
        assert!(world.peer(others[0]).was_told(|event| matches!(event, Event::Stale { .. })));
        assert!(crate::failure(&world, others[0]).is_some());
    });
}

#[test]
fn second_in_line_leads_when_host_and_first_die_together() {
    for_seeds(10, |seed| {
        let (mut world, first, others) = with_cohost(seed, 3);
        world.promote(others[0]);
        world.run(secs(3));
        world.kill(HOST);
        world.kill(first);
        let second = index(&world, others[0]);
        let led = world.run_until(secs(12), |w| others[1..].iter().all(|who| leader(w, *who) == Some(second)));
        assert!(led, "nobody has taken over");
        world.run(secs(2));
        together(&mut world, &others);
    });
}

#[test]
fn cohost_may_not_put_out_host_nor_its_betters() {
    let (mut world, cohost, others) = with_cohost(1, 1);
    world.promote(others[0]);
    let (first, second) = (MemberIndex(index(&world, cohost)), MemberIndex(index(&world, others[0])));
    // The leader refuses; what comes back is an event.
    world.acts(others[0], |conference, now| conference.remove(now, first)).expect("sent");
    world.acts(cohost, |conference, now| conference.remove(now, MemberIndex::HOST)).expect("sent");
    world.run(secs(1));
    for who in [cohost, others[0]] {
        assert!(world.peer(who).was_told(|event| matches!(event, Event::Refused(ActError::Rank))));
    }
    assert_eq!(world.peer(HOST).roster().len(), 3);
    let at = world.now();
    world.witness.removed(at, second.0);
    world.acts(cohost, |conference, now| conference.remove(now, second)).expect("it ranks higher");
    world.run(secs(1));
    assert!(world.peer(others[0]).was_told(|event| matches!(event, Event::Removed)));
    assert_eq!(world.acts(cohost, |c, now| c.admit(now, KnockId(99))), Err(ActError::NoSuchKnock));
}
