//! How slots are taken, kept and lost, and what passes between them.

use std::time::Duration;

use conclave_protocol::capability::{CLOCK_TOLERANCE, Capability, Rights};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, MailboxId, Refusal, ToRelay};

use super::super::Limits;
use super::world::{
    Room, START, VALIDITY, World, attach, attached, detached, exporter, frame, presence, refused, removal_notice, rk,
};
use crate::core::Core;

const SECOND: Duration = Duration::from_secs(1);

/// What the relay says to a client that shows this capability, made at the start of the world.
fn answer_to(change: impl FnOnce(&mut Capability)) -> Vec<FromRelay> {
    let (mut world, room) = (World::new(), Room::new(1));
    let client = world.bearer(&room);
    world.pass(Duration::from_secs(1000));
    world.hush();
    let mut capability = room.capability(world.wall(), 1, Rights::MEMBER, 1);
    change(&mut capability);
    world.ask(client, &attach(client, room.sign(capability)))
}

#[test]
fn members_hear_of_each_other() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let first = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    let second = world.member(&room, 2, Rights::MEMBER);
    assert_eq!(world.heard(second)[2..], [attached(2), presence(0, true), presence(1, true)]);
    assert_eq!(world.heard(host), [presence(2, true)]);
    assert_eq!(world.heard(first), [presence(2, true)]);
    world.disconnect(first);
    assert_eq!(world.heard(host), [presence(1, false)]);
    assert_eq!(world.hub.attached(room.id).collect::<Vec<_>>(), [(MemberIndex(0), host), (MemberIndex(2), second)]);
}

#[test]
fn stolen_capability_is_refused_on_another_connection() {
    let (mut world, room) = (World::new(), Room::new(1));
    let owner = world.bearer(&room);
    let stolen = attach(owner, world.signed(&room, 1, Rights::MEMBER, 1));
    world.say(owner, &stolen);
    let thief = world.bearer(&room);
    world.hush();
    assert_eq!(world.ask(thief, &stolen), refused(Refusal::Capability));
    assert_eq!(world.heard(owner), []);
    assert_eq!(world.datagram(thief, &frame(1)), []);
}

#[test]
fn capability_with_a_proof_by_another_key_is_refused() {
    let (mut world, room) = (World::new(), Room::new(1));
    let thief = world.bearer(&room);
    world.hush();
    let capability = world.signed(&room, 1, Rights::MEMBER, 1);
    let possession = capability.prove(&rk(2), &exporter(thief));
    assert_eq!(world.ask(thief, &ToRelay::Attach { capability, possession }), refused(Refusal::Capability));
}

#[test]
fn proof_for_another_capability_is_refused() {
    let (mut world, room) = (World::new(), Room::new(1));
    let client = world.bearer(&room);
    world.hush();
    let possession = world.signed(&room, 0, Rights::MEMBER, 1).prove(&rk(0), &exporter(client));
    let capability = world.signed(&room, 0, Rights::LEADER, 1);
    assert_eq!(world.ask(client, &ToRelay::Attach { capability, possession }), refused(Refusal::Capability));
}

#[test]
fn capability_by_another_key_or_for_another_meeting_is_refused() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let client = world.bearer(&room);
    world.hush();
    let forged = room.capability(START, 0, Rights::LEADER, 1).sign(&KeyPair::from_seed(&[9; 32]));
    assert_eq!(world.ask(client, &attach(client, forged)), refused(Refusal::Capability));
    let foreign = other.capability(START, 0, Rights::LEADER, 1).sign(&other.authority);
    assert_eq!(world.ask(client, &attach(client, foreign)), refused(Refusal::Capability));
    let foreign = other.capability(START, 0, Rights::LEADER, 1).sign(&room.authority);
    assert_eq!(world.ask(client, &attach(client, foreign)), refused(Refusal::Capability));
}

#[test]
fn capability_counts_only_within_its_times() {
    let tolerance = CLOCK_TOLERANCE + SECOND;
    assert_eq!(answer_to(|_| {}), [attached(1)]);
    let late = |capability: &mut Capability| {
        capability.not_after = capability.not_before.minus(tolerance);
        capability.not_before = capability.not_after.minus(VALIDITY);
    };
    assert_eq!(answer_to(late), refused(Refusal::Expired));
    let early = |capability: &mut Capability| {
        capability.not_before = capability.not_before.plus(tolerance);
        capability.not_after = capability.not_before.plus(VALIDITY);
    };
    assert_eq!(answer_to(early), refused(Refusal::Capability));
    let long = |capability: &mut Capability| capability.not_after = capability.not_after.plus(SECOND);
    assert_eq!(answer_to(long), refused(Refusal::Capability));
}

#[test]
fn nobody_attaches_to_a_meeting_whose_descriptor_is_not_known() {
    let (mut world, room) = (World::new(), Room::new(1));
    let client = world.guest(&room);
    world.hush();
    let message = attach(client, world.signed(&room, 0, Rights::LEADER, 1));
    assert_eq!(world.ask(client, &message), refused(Refusal::Capability));
    world.bearer(&room);
    assert_eq!(world.ask(client, &message), [attached(0)]);
}

#[test]
fn newer_or_equal_serial_replaces_and_an_older_one_is_refused() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let old = world.bearer(&room);
    world.say(old, &attach(old, world.signed(&room, 1, Rights::MEMBER, 5)));
    let other = world.bearer(&room);
    world.hush();
    let older = attach(other, world.signed(&room, 1, Rights::MEMBER, 4));
    assert_eq!(world.ask(other, &older), refused(Refusal::Replaced));
    assert_eq!(world.heard(old), []);
    let equal = attach(other, world.signed(&room, 1, Rights::MEMBER, 5));
    assert_eq!(world.ask(other, &equal), [attached(1), presence(0, true)]);
    assert_eq!(world.heard(old), [detached(Refusal::Replaced)]);
    assert_eq!(world.datagram(old, &frame(1)), []);
    assert_eq!(world.datagram(other, &frame(1)), [host]);
    let newer = attach(old, world.signed(&room, 1, Rights::MEMBER, 6));
    assert_eq!(world.ask(old, &newer), [attached(1), presence(0, true)]);
    assert_eq!(world.heard(other), [detached(Refusal::Replaced)]);
    assert_eq!(world.heard(host), [], "to the others the member was here all the time");
}

#[test]
fn replaced_connection_takes_no_fresh_allowance() {
    let (mut world, room) = (World::new(), Room::new(1));
    world.host(&room);
    let mut passed = 0;
    for _ in 0..5 {
        let conn = world.member(&room, 1, Rights::MEMBER);
        passed += (0..100).filter(|_| !world.datagram(conn, &frame(1)).is_empty()).count();
    }
    assert_eq!(passed, Limits::default().datagrams.burst as usize);
}

#[test]
fn renewal_extends_and_nobody_else_hears_of_it() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    for serial in 2..10 {
        world.pass(Duration::from_secs(60));
        world.say(host, &attach(host, world.signed(&room, 0, Rights::LEADER, serial)));
        assert_eq!(world.heard(host), [attached(0)]);
        let renewal = attach(member, world.signed(&room, 1, Rights::MEMBER, serial));
        assert_eq!(world.ask(member, &renewal), [attached(1)]);
        assert_eq!(world.datagram(member, &frame(1)), [host]);
    }
    let old = attach(member, world.signed(&room, 1, Rights::MEMBER, 3));
    assert_eq!(world.ask(member, &old), refused(Refusal::Capability));
    assert_eq!(world.datagram(member, &frame(1)), [host]);
}

#[test]
fn renewal_changes_rights() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let guest = world.guest(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    world.say(member, &attach(member, world.signed(&room, 1, Rights::LEADER, 2)));
    assert!(matches!(world.heard(guest)[..], [FromRelay::Meeting { .. }]));
    assert_eq!(world.ask(member, &room.gate(1)), [attached(1)]);
    world.say(member, &attach(member, world.signed(&room, 1, Rights::MEMBER, 3)));
    assert_eq!(world.ask(member, &room.gate(2))[1..], refused(Refusal::NotAllowed));
}

#[test]
fn member_may_not_change_its_slot() {
    let (mut world, room) = (World::new(), Room::new(1));
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    let other = attach(member, world.signed(&room, 2, Rights::MEMBER, 9));
    assert_eq!(world.ask(member, &other), refused(Refusal::NotAllowed));
    assert_eq!(world.hub.attached(room.id).collect::<Vec<_>>(), [(MemberIndex(1), member)]);
}

#[test]
fn no_more_members_attach_than_the_descriptor_allows() {
    let (mut world, room) = (World::new(), Room::with_members(1, 2));
    world.host(&room);
    let first = world.member(&room, 1, Rights::MEMBER);
    let second = world.bearer(&room);
    world.hush();
    let message = attach(second, world.signed(&room, 2, Rights::MEMBER, 1));
    assert_eq!(world.ask(second, &message), refused(Refusal::Full));
    // Whoever holds a slot already may still move to another connection.
    let moved = world.member(&room, 1, Rights::MEMBER);
    assert_eq!(world.heard(moved)[2], attached(1));
    world.disconnect(first);
    world.disconnect(moved);
    assert_eq!(world.ask(second, &message)[0], attached(2));
}

#[test]
fn capability_that_runs_out_takes_the_slot_with_it() {
    let (mut world, room) = (World::new(), Room::new(1));
    let member = world.member(&room, 1, Rights::MEMBER);
    world.pass(Duration::from_secs(60));
    let host = world.host(&room);
    world.hush();
    world.pass(VALIDITY + CLOCK_TOLERANCE - Duration::from_secs(60));
    assert_eq!(world.heard(member), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.heard(member), [detached(Refusal::Expired)]);
    assert_eq!(world.heard(host), [presence(1, false)]);
    assert_eq!(world.datagram(host, &frame(0)), []);
    assert_eq!(world.datagram(member, &frame(1)), []);
    let back = attach(member, world.signed(&room, 1, Rights::MEMBER, 2));
    assert_eq!(world.ask(member, &back), [attached(1), presence(0, true)]);
}

#[test]
fn what_ran_out_counts_no_more_even_when_the_timer_is_late() {
    let (mut world, room) = (World::new(), Room::new(1));
    let member = world.member(&room, 1, Rights::MEMBER);
    world.pass(Duration::from_secs(60));
    let host = world.host(&room);
    world.hush();
    let due = world.hub.next_timeout().unwrap();
    // The clock goes on, and nobody calls `timeout`.
    world.now = due;
    assert_eq!(world.datagram(member, &frame(1)), []);
    assert_eq!(world.datagram(host, &frame(0)), []);
    assert_eq!(
        world.ask(member, &ToRelay::Send { to: MemberIndex(0), bytes: vec![1] }),
        [detached(Refusal::Expired), FromRelay::Refused { reason: Refusal::NotAllowed }]
    );
    assert_eq!(world.heard(host), [presence(1, false)]);
}

#[test]
fn next_timeout_is_the_earliest_expiry_of_all_meetings() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    assert_eq!(world.hub.next_timeout(), None);
    let life = VALIDITY + CLOCK_TOLERANCE + Duration::from_millis(1);
    let start = world.now;
    let host = world.host(&room);
    world.pass(SECOND);
    world.host(&other);
    assert_eq!(world.hub.next_timeout(), Some(start + life));
    world.disconnect(host);
    assert_eq!(world.hub.next_timeout(), Some(start + SECOND + life));
    world.pass(life);
    assert_eq!(world.hub.next_timeout(), None);
}

#[test]
fn plain_member_can_do_nothing_that_only_leaders_may() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (guest, mailbox) = world.knocker(&room, host);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    let not_allowed = refused(Refusal::NotAllowed);
    // Even what the authority has signed: that a member got hold of it gives it no right.
    assert_eq!(world.ask(member, &ToRelay::Revoke { revoked: room.revoked(1, &[0]) }), not_allowed);
    assert_eq!(world.ask(member, &room.gate(9)), not_allowed);
    assert_eq!(world.ask(member, &ToRelay::MailTo { mailbox, bytes: vec![1] }), not_allowed);
    assert_eq!(world.ask(member, &ToRelay::CloseMailbox { mailbox }), not_allowed);
    assert_eq!(world.ask(member, &ToRelay::Mail { bytes: vec![1] }), not_allowed);
    assert_eq!(world.ask(member, &room.knock()), not_allowed);
    assert_eq!(world.datagram(member, &removal_notice(1)), []);
    assert_eq!(world.hub.stats().datagrams_dropped_not_allowed, 1);
    assert_eq!(world.heard(host), []);
    assert_eq!(world.heard(guest), []);
    assert_eq!(world.datagram(host, &removal_notice(0)), [member]);
}

#[test]
fn message_reaches_one_member_or_all_others() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let host = world.host(&room);
    let first = world.member(&room, 1, Rights::MEMBER);
    let second = world.member(&room, 2, Rights::MEMBER);
    let stranger = world.host(&other);
    world.hush();
    let deliver =
        |from: u16, text: &str| [FromRelay::Deliver { from: MemberIndex(from), bytes: text.as_bytes().to_vec() }];
    assert_eq!(world.ask(first, &ToRelay::Send { to: MemberIndex(2), bytes: b"psst".to_vec() }), []);
    assert_eq!(world.heard(second), deliver(1, "psst"));
    assert_eq!(world.heard(host), []);
    assert_eq!(world.ask(host, &ToRelay::Send { to: EVERYBODY, bytes: b"all".to_vec() }), []);
    assert_eq!(world.heard(first), deliver(0, "all"));
    assert_eq!(world.heard(second), deliver(0, "all"));
    assert_eq!(world.heard(stranger), []);
}

#[test]
fn message_to_an_empty_slot_or_to_oneself_is_dropped_silently() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    world.hush();
    assert_eq!(world.ask(host, &ToRelay::Send { to: MemberIndex(5), bytes: vec![1] }), []);
    assert_eq!(world.ask(host, &ToRelay::Send { to: MemberIndex(0), bytes: vec![1] }), []);
    assert_eq!(world.ask(host, &ToRelay::MailTo { mailbox: MailboxId(5), bytes: vec![1] }), []);
    assert_eq!(world.hub.stats().messages_undeliverable, 3);
}

#[test]
fn datagram_goes_to_all_other_members_of_the_meeting_and_is_dropped_otherwise() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let host = world.host(&room);
    let first = world.member(&room, 1, Rights::MEMBER);
    let second = world.member(&room, 2, Rights::MEMBER);
    world.host(&other);
    let greeting = world.connect();
    assert_eq!(world.datagram(first, &frame(1)), [host, second]);
    assert_eq!(world.datagram(first, &frame(2)), []);
    assert_eq!(world.datagram(first, &[]), []);
    assert_eq!(world.datagram(first, &[1, 0, 1]), []);
    assert_eq!(world.datagram(first, &[3, 0, 1, 9]), []);
    let mut long = frame(1);
    long.resize(1163, 0);
    assert_eq!(world.datagram(first, &long), []);
    assert_eq!(world.datagram(greeting, &frame(1)), []);
    let stats = world.hub.stats();
    assert_eq!((stats.datagrams_in, stats.datagrams_forwarded), (7, 2));
    assert_eq!(stats.datagrams_dropped_wrong_slot, 1);
    assert_eq!(stats.datagrams_dropped_malformed, 4);
    assert_eq!(stats.datagrams_dropped_unattached, 1);
}
