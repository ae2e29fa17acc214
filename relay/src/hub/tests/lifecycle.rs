//! The first message, the end of meetings, and the end of the relay.

use conclave_protocol::capability::Rights;
use conclave_protocol::id::MeetingId;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal, ToRelay};

use super::super::NO_HELLO;
use super::world::{Room, World, attach, refused};
use crate::core::ConnId;

#[test]
fn first_message_must_be_a_hello() {
    let (mut world, room) = (World::new(), Room::new(1));
    let mut other_version = room.guest_hello().encode();
    other_version[1] = 2;
    let capability = room.capability(world.wall(), 1, Rights::LEADER, 1).sign(&room.authority);
    let firsts = [Vec::new(), b"GET / HTTP/1.1".to_vec(), room.knock().encode(), other_version];
    for first in firsts.into_iter().chain([attach(ConnId(4), capability).encode()]) {
        let conn = world.connect();
        world.say_bytes(conn, &first);
        assert_eq!(world.heard(conn), refused(Refusal::Malformed));
        assert_eq!(world.closed.get(&conn), Some(&NO_HELLO));
        world.say(conn, &room.hello());
        assert_eq!(world.heard(conn), []);
    }
    assert_eq!(world.hub.stats().meetings_now, 0);
}

#[test]
fn descriptor_of_another_meeting_is_refused() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let conn = world.connect();
    let hello = ToRelay::Hello { meeting: room.id, descriptor: Some(other.descriptor), revoked: None, line: None };
    assert_eq!(world.ask(conn, &hello), refused(Refusal::Malformed));
    assert_eq!(world.closed.get(&conn), Some(&NO_HELLO));
    assert_eq!(world.hub.stats().meetings_now, 0);
}

#[test]
fn meetings_state_vanishes_with_its_last_connection() {
    let (mut world, mut room) = (World::new(), Room::with_cohosts(1, &[2]));
    let host = world.host(&room);
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
    let (guest, _) = world.knocker(&room, host);
    world.disconnect(host);
    assert_eq!(world.hub.stats().meetings_now, 1);
    world.disconnect(guest);
    let stats = world.hub.stats();
    assert_eq!((stats.meetings_now, stats.members_now, stats.guests_now, stats.mailboxes_now), (0, 0, 0, 0));
    assert!(world.hub.meetings.is_empty() && world.hub.clients.is_empty() && world.hub.deadlines.is_empty());

    // Neither gate nor descriptor nor line nor revocation is left.
    let guest = world.guest(&room);
    world.hush();
    let message = attach(guest, world.signed(&room, 0, Rights::LEADER, 1));
    assert_eq!(world.ask(guest, &message), refused(Refusal::Capability));
    room.line = None;
    world.member(&room, 2, Rights::LEADER);
    assert_eq!(world.heard(guest), []);
    world.member(&room, 0, Rights::LEADER);
    assert_eq!(world.heard(guest), [room.meeting_led_by(0)]);
    assert_eq!(world.ask(guest, &room.knock()), []);
    let member = world.member(&room, 1, Rights::MEMBER);
    assert!(world.heard(member).iter().all(|message| !matches!(message, FromRelay::Refused { .. })));
}

#[test]
fn meetings_do_not_touch_each_other() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let host = world.host(&room);
    world.hush();
    let stranger = world.host(&other);
    world.say(stranger, &ToRelay::Revoke { revoked: other.revoked(1, &[0]) });
    world.disconnect(stranger);
    assert_eq!(world.heard(host), []);
    assert_eq!(world.hub.stats().meetings_now, 1);
}

#[test]
fn everybody_is_told_when_the_relay_stops() {
    let (mut world, room) = (World::new(), Room::new(1));
    let everybody = [world.host(&room), world.member(&room, 1, Rights::MEMBER), world.guest(&room), world.connect()];
    let closed = world.connect();
    world.say_bytes(closed, b"?");
    world.hush();
    world.shutdown();
    for conn in everybody {
        assert_eq!(world.heard(conn), [FromRelay::Closing]);
    }
    assert_eq!(world.heard(closed), []);
}

#[test]
fn connections_that_the_hub_does_not_know_are_passed_over() {
    let (mut world, room) = (World::new(), Room::new(1));
    let unknown = ConnId(77);
    world.say(unknown, &room.hello());
    assert_eq!(world.datagram(unknown, &[1, 0, 0, 9]), []);
    world.disconnect(unknown);
    assert_eq!(world.hub.stats().meetings_now, 0);
}

#[test]
fn looking_for_meetings_finds_nothing() {
    let (mut world, room) = (World::new(), Room::new(1));
    world.host(&room);
    let mut answers = std::collections::BTreeSet::new();
    for guess in 0..1000_u32 {
        let mut id = [0; MeetingId::LEN];
        id[..4].copy_from_slice(&guess.to_be_bytes());
        let conn = world.connect();
        world.say(conn, &ToRelay::Hello { meeting: MeetingId(id), descriptor: None, revoked: None, line: None });
        answers.insert(world.heard_bytes(conn));
        world.disconnect(conn);
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(world.hub.stats().meetings_now, 1);
}
