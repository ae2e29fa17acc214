//! Removed members lose their slots at once and for as long as their capabilities last.

use std::time::Duration;

use conclave_protocol::capability::{Revoked, Rights};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, Refusal, ToRelay};

use super::world::{Room, World, attach, frame, presence, refused};

fn news(revoked: &Revoked) -> FromRelay {
    FromRelay::Revoked { revoked: revoked.clone() }
}

const REMOVED: FromRelay = FromRelay::Detached { reason: Refusal::Revoked };

#[test]
fn revoked_slot_loses_media_and_messages_at_once() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let removed = world.member(&room, 1, Rights::MEMBER);
    let other = world.member(&room, 2, Rights::MEMBER);
    world.hush();
    let revoked = room.revoked(1, &[1, 77]);
    world.say(host, &ToRelay::Revoke { revoked: revoked.clone() });
    assert_eq!(world.heard(removed), [news(&revoked), REMOVED]);
    assert_eq!(world.heard(host), [news(&revoked), presence(1, false)]);
    assert_eq!(world.heard(other), [news(&revoked), presence(1, false)]);

    assert_eq!(world.datagram(host, &frame(0)), [other]);
    assert_eq!(world.datagram(removed, &frame(1)), []);
    world.say(host, &ToRelay::Send { to: EVERYBODY, bytes: b"secret".to_vec() });
    world.say(host, &ToRelay::Send { to: MemberIndex(1), bytes: b"secret".to_vec() });
    world.say(other, &attach(other, world.signed(&room, 2, Rights::MEMBER, 2)));
    world.member(&room, 3, Rights::MEMBER);
    assert_eq!(world.heard(removed), []);
    let message = ToRelay::Send { to: EVERYBODY, bytes: vec![1] };
    assert_eq!(world.ask(removed, &message), refused(Refusal::NotAllowed));
    assert!(world.closed.is_empty());
}

#[test]
fn revoked_member_cannot_come_back_with_its_unexpired_capability() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let removed = world.member(&room, 1, Rights::MEMBER);
    let capability = world.signed(&room, 1, Rights::MEMBER, 8);
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
    world.hush();
    assert_eq!(world.ask(removed, &attach(removed, capability)), refused(Refusal::Revoked));
    let again = world.bearer(&room);
    world.hush();
    assert_eq!(world.ask(again, &attach(again, capability)), refused(Refusal::Revoked));
}

#[test]
fn relay_that_forgot_learns_the_revocation_from_another_members_hello() {
    let room = Room::new(1);
    let revoked = room.revoked(3, &[1]);

    // The removed member comes after the one who knows.
    let mut world = World::new();
    let member = world.connect();
    world.say(member, &room.hello_with(revoked.clone()));
    let removed = world.bearer(&room);
    world.hush();
    let capability = world.signed(&room, 1, Rights::MEMBER, 8);
    assert_eq!(world.ask(removed, &attach(removed, capability)), refused(Refusal::Revoked));

    // The removed member was quicker: it is thrown out.
    let mut world = World::new();
    let removed = world.member(&room, 1, Rights::MEMBER);
    let other = world.member(&room, 2, Rights::MEMBER);
    world.hush();
    let member = world.connect();
    world.say(member, &room.hello_with(revoked.clone()));
    assert_eq!(world.heard(removed), [news(&revoked), REMOVED]);
    assert_eq!(world.heard(other), [news(&revoked), presence(1, false)]);
    assert_eq!(world.datagram(other, &frame(2)), []);
}

#[test]
fn newcomer_is_told_the_newest_revocation() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let newest = room.revoked(2, &[5, 6]);
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[5]) });
    world.say(host, &ToRelay::Revoke { revoked: newest.clone() });
    let member = world.member(&room, 1, Rights::MEMBER);
    let told = world.heard(member);
    assert_eq!(told[told.len() - 2..], [presence(0, true), news(&newest)]);
}

#[test]
fn older_revocation_changes_nothing_and_its_sender_is_shown_the_newer_one() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    let newest = room.revoked(5, &[9]);
    world.say(host, &ToRelay::Revoke { revoked: newest.clone() });
    world.hush();
    assert_eq!(world.ask(host, &ToRelay::Revoke { revoked: room.revoked(4, &[1]) }), [news(&newest)]);
    assert_eq!(world.ask(host, &ToRelay::Revoke { revoked: room.revoked(5, &[1]) }), []);
    let late = world.connect();
    world.say(late, &room.hello_with(room.revoked(4, &[1])));
    assert_eq!(world.heard(member), []);
    assert_eq!(world.datagram(host, &frame(0)), [member]);
}

#[test]
fn forged_or_foreign_revocation_is_refused() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    let forged = Revoked::sign(room.id, 9, MemberIndex::HOST, vec![MemberIndex(1)], &other.authority);
    let foreign = other.revoked(9, &[1]);
    world.hush();
    for revoked in [forged, foreign] {
        assert_eq!(world.ask(host, &ToRelay::Revoke { revoked: revoked.clone() }), refused(Refusal::NotAllowed));
        let client = world.connect();
        world.say(client, &room.hello_with(revoked));
        assert_eq!(world.heard(client)[1], FromRelay::Refused { reason: Refusal::NotAllowed });
    }
    assert_eq!(world.heard(member), []);
    assert_eq!(world.datagram(host, &frame(0)), [member]);
}

#[test]
fn revocation_without_descriptor_is_passed_over_unless_the_meeting_is_known() {
    let room = Room::new(1);
    let hello = ToRelay::Hello { meeting: room.id, descriptor: None, revoked: Some(room.revoked(1, &[1])), line: None };

    let mut world = World::new();
    let client = world.connect();
    assert!(matches!(world.ask(client, &hello)[..], [FromRelay::Welcome { .. }]));
    let member = world.member(&room, 1, Rights::MEMBER);
    assert_eq!(world.heard(member).last(), Some(&FromRelay::Attached { slot: MemberIndex(1) }));

    let client = world.connect();
    world.say(client, &hello);
    assert_eq!(world.heard(member).last(), Some(&REMOVED));
}

#[test]
fn many_can_be_removed_in_one_act_and_hear_nothing_of_each_other_after_it() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let members: Vec<_> = (1..=20).map(|slot| world.member(&room, slot, Rights::MEMBER)).collect();
    world.hush();
    let revoked = room.revoked(1, &(1..=19).collect::<Vec<_>>());
    world.say(host, &ToRelay::Revoke { revoked: revoked.clone() });
    for removed in &members[..19] {
        assert_eq!(world.heard(*removed), [news(&revoked), REMOVED]);
    }
    assert_eq!(world.heard(members[19]).len(), 20);
    assert_eq!(world.datagram(host, &frame(0)), [members[19]]);
    assert_eq!(world.hub.stats().detached_revoked, 19);
}

#[test]
fn leader_can_be_removed_too_and_leads_no_more() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let second = world.member(&room, 1, Rights::LEADER);
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
    world.hush();
    assert_eq!(world.ask(second, &ToRelay::Revoke { revoked: room.revoked(2, &[0]) }), refused(Refusal::NotAllowed));
    world.guest(&room);
    world.disconnect(host);
    let guest = world.guest(&room);
    assert!(matches!(world.heard(guest)[..], [FromRelay::Welcome { .. }]));
}

#[test]
fn revocation_lasts_as_long_as_the_meeting_has_a_connection() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
    let waiting = world.guest(&room);
    world.disconnect(host);
    world.pass(Duration::from_secs(600));
    let removed = world.bearer(&room);
    world.hush();
    let message = attach(removed, world.signed(&room, 1, Rights::MEMBER, 8));
    assert_eq!(world.ask(removed, &message), refused(Refusal::Revoked));
    world.disconnect(waiting);
}
