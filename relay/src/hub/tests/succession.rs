//! Co-hosts: what the line of succession lets them do, what it doesn't, and what guests hear of who leads.

use std::time::Duration;

use conclave_protocol::capability::{KnockToken, Revoked, Rights};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::succession::{Delegate, Line};
use conclave_protocol::wire::relay::{FromRelay, KnockTokenBytes, Refusal, ToRelay};

use super::world::{Room, World, ak, attach, attached, detached, frame, presence, refused, removal_notice};
use crate::core::ConnId;

const NOT_ALLOWED: FromRelay = FromRelay::Refused { reason: Refusal::NotAllowed };

/// Makes `slots` the co-hosts, with a new line that `conn` brings.
fn appoint(world: &mut World, room: &mut Room, conn: ConnId, slots: &[u16]) {
    let line = room.line(room.line.as_ref().map_or(0, |line| line.seq) + 1, slots);
    room.line = Some(line.clone());
    world.say(conn, &ToRelay::Line { line });
}

fn revoke(revoked: Revoked) -> ToRelay {
    ToRelay::Revoke { revoked }
}

#[test]
fn cohost_leads_under_the_line() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let cohost = world.member(&room, 1, Rights::LEADER);
    let member = world.member(&room, 2, Rights::MEMBER);
    world.hush();
    assert_eq!(world.ask(cohost, &room.gate_by(1, 1, &room.token)), []);
    let (guest, mailbox) = world.knocker(&room, cohost);
    assert_eq!(world.heard(guest)[1], room.meeting_led_by(1));
    world.say(cohost, &ToRelay::MailTo { mailbox, bytes: b"wait".to_vec() });
    assert_eq!(world.heard(guest), [FromRelay::Mail { bytes: b"wait".to_vec() }]);
    assert_eq!(world.datagram(cohost, &removal_notice(1)), [member]);
    // It admits the guest, and removes the member.
    world.say(guest, &attach(guest, world.signed_by(1, &room, 3, Rights::MEMBER, 1)));
    world.say(cohost, &revoke(room.revoked_by(1, 1, &[2])));
    assert_eq!(world.heard(member).last(), Some(&detached(Refusal::Revoked)));
    assert_eq!(world.datagram(cohost, &frame(1)), [guest]);
}

#[test]
fn nobody_but_the_host_leads_without_the_line() {
    let (mut world, mut room) = (World::new(), Room::new(1));
    let host = world.bearer(&room);
    let cohost = world.bearer(&room);
    world.hush();
    let message = attach(cohost, world.signed(&room, 1, Rights::LEADER, 1));
    assert_eq!(world.ask(cohost, &message), refused(Refusal::Capability));
    appoint(&mut world, &mut room, host, &[2]);
    assert_eq!(world.ask(cohost, &message), refused(Refusal::Capability));
    appoint(&mut world, &mut room, host, &[2, 1]);
    assert_eq!(world.ask(cohost, &message), [attached(1)]);
}

#[test]
fn nobody_gives_leading_rights_to_another() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1, 2]));
    let client = world.bearer(&room);
    world.hush();
    for (signer, slot) in [(0, 1), (0, 5), (1, 0), (1, 2), (2, 1), (1, 5), (5, 5)] {
        let message = attach(client, world.signed_by(signer, &room, slot, Rights::LEADER, 1));
        assert_eq!(world.ask(client, &message), refused(Refusal::Capability), "{signer} for {slot}");
        world.pass(Duration::from_secs(2));
    }
}

#[test]
fn cohost_signs_for_plain_members_and_itself_only() {
    let room = Room::with_cohosts(1, &[1, 2]);
    for (signer, slot, may) in [(1, 5, true), (1, 1, true), (2, 5, true), (1, 0, false), (1, 2, false), (2, 1, false)] {
        let mut world = World::new();
        let client = world.bearer(&room);
        world.hush();
        let answer = world.ask(client, &attach(client, world.signed_by(signer, &room, slot, Rights::MEMBER, 1)));
        let expected = if may { vec![attached(slot)] } else { refused(Refusal::Capability) };
        assert_eq!(answer, expected, "{signer} for {slot}");
    }
}

#[test]
fn cohost_that_leaves_the_line_loses_its_own_slot_and_nobody_elses() {
    let (mut world, mut room) = (World::new(), Room::with_cohosts(1, &[1, 2]));
    let host = world.host(&room);
    let demoted = world.member(&room, 1, Rights::LEADER);
    let kept = world.member(&room, 2, Rights::LEADER);
    let third = world.bearer(&room);
    let by_demoted = world.signed_by(1, &room, 3, Rights::MEMBER, 5);
    world.say(third, &attach(third, by_demoted));
    let fourth = world.member(&room, 4, Rights::MEMBER);
    world.hush();
    appoint(&mut world, &mut room, host, &[2]);
    // As a guest it is told who leads, like every other.
    assert_eq!(world.heard(demoted), [detached(Refusal::Capability), room.meeting_led_by(2)]);
    for conn in [host, kept, third, fourth] {
        assert_eq!(world.heard(conn), [presence(1, false)]);
    }
    assert_eq!(world.datagram(demoted, &removal_notice(1)), []);
    assert_eq!(world.ask(demoted, &revoke(room.revoked_by(1, 1, &[4]))), [NOT_ALLOWED]);
    let own = attach(demoted, world.signed(&room, 1, Rights::LEADER, 9));
    assert_eq!(world.ask(demoted, &own), refused(Refusal::Capability));
    let as_member = attach(demoted, world.signed(&room, 1, Rights::MEMBER, 1));
    assert_eq!(world.ask(demoted, &as_member)[0], attached(1));
    assert_eq!(world.ask(demoted, &revoke(room.revoked_by(1, 1, &[4]))), [NOT_ALLOWED]);
    assert_eq!(world.datagram(demoted, &removal_notice(1)), []);
    // What it has signed for another is worth nothing on a new connection.
    let again = world.bearer(&room);
    world.hush();
    assert_eq!(world.ask(again, &attach(again, by_demoted)), refused(Refusal::Capability));
    assert_eq!(world.datagram(third, &frame(3)).len(), 4);
    assert_eq!(world.hub.stats().detached_capability, 1);
}

#[test]
fn cohost_whose_key_changes_loses_what_it_signed_with_the_old_one() {
    for rights in [Rights::LEADER, Rights::MEMBER] {
        let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
        let host = world.host(&room);
        let cohost = world.bearer(&room);
        world.say(cohost, &attach(cohost, world.signed_by(1, &room, 1, rights, 1)));
        world.hush();
        let fresh = Delegate { slot: MemberIndex(1), hs: [1; 32], authority: KeyPair::from_seed(&[9; 32]).public() };
        world.say(host, &ToRelay::Line { line: Line::sign(room.id, 2, vec![fresh], &room.authority) });
        assert_eq!(world.heard(cohost)[0], detached(Refusal::Capability));
    }
}

#[test]
fn plain_member_stays_what_it_is_when_it_joins_or_leaves_the_line() {
    let (mut world, mut room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    appoint(&mut world, &mut room, host, &[1]);
    assert_eq!(world.datagram(member, &removal_notice(1)), []);
    assert_eq!(world.datagram(member, &frame(1)), [host]);
    appoint(&mut world, &mut room, host, &[]);
    assert_eq!(world.datagram(member, &frame(1)), [host]);
    assert_eq!((world.heard(host), world.heard(member)), (vec![], vec![]));
}

#[test]
fn older_line_changes_nothing_and_a_forged_one_is_refused() {
    let (mut world, mut room, other) = (World::new(), Room::with_cohosts(1, &[1]), Room::new(2));
    let host = world.host(&room);
    appoint(&mut world, &mut room, host, &[1]);
    let cohost = world.member(&room, 1, Rights::LEADER);
    world.hush();
    for stale in [room.line(1, &[]), room.line(2, &[]), room.line(2, &[1])] {
        assert_eq!(world.ask(host, &ToRelay::Line { line: stale.clone() }), []);
        let client = world.connect();
        assert_eq!(world.ask(client, &room.hello_of(Some(stale), None))[1..], [room.meeting_led_by(1)]);
    }
    let forged = Line::sign(room.id, 9, vec![], &ak(1));
    for forged in [forged, Line::sign(room.id, 9, vec![], &other.authority), other.line(9, &[])] {
        assert_eq!(world.ask(cohost, &ToRelay::Line { line: forged.clone() }), refused(Refusal::NotAllowed));
        let client = world.connect();
        let [_, refusal, meeting] = &world.ask(client, &room.hello_of(Some(forged), None))[..] else { panic!() };
        assert_eq!((refusal, meeting), (&NOT_ALLOWED, &room.meeting_led_by(1)));
    }
    assert_eq!(world.heard(cohost), []);
    let stats = world.hub.stats();
    assert_eq!((stats.lines_learned, stats.lines_refused, stats.messages_line), (2, 6, 7));
}

#[test]
fn line_is_brought_by_who_knows_the_descriptor_or_holds_a_slot() {
    let (mut world, mut room) = (World::new(), Room::new(1));
    let member = world.member(&room, 1, Rights::MEMBER);
    let bearer = world.bearer(&room);
    let guest = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(guest, &ToRelay::Line { line: room.line(1, &[2]) }), refused(Refusal::NotAllowed));
    assert_eq!(world.hub.stats().lines_refused, 1);
    for (learned, conn) in [(1, member), (2, bearer)] {
        appoint(&mut world, &mut room, conn, &[2]);
        assert_eq!(world.heard(conn), []);
        assert_eq!(world.hub.stats().lines_learned, learned);
    }
}

#[test]
fn cohost_revokes_only_who_ranks_below_it() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1, 2, 3]));
    world.host(&room);
    let cohost = world.member(&room, 2, Rights::LEADER);
    world.hush();
    for spared in [&[0][..], &[1], &[2], &[9, 0], &[3, 1]] {
        assert_eq!(world.ask(cohost, &revoke(room.revoked_by(2, 1, spared))), refused(Refusal::NotAllowed));
    }
    // Nor in the name of a better rank, nor of nobody's.
    let forged = Revoked::sign(room.id, 1, MemberIndex(1), vec![MemberIndex(9)], &ak(2));
    assert_eq!(world.ask(cohost, &revoke(forged)), refused(Refusal::NotAllowed));
    assert_eq!(world.ask(cohost, &revoke(room.revoked_by(9, 1, &[8]))), refused(Refusal::NotAllowed));
    let allowed = room.revoked_by(2, 1, &[3, 9]);
    assert_eq!(world.ask(cohost, &revoke(allowed.clone())), [FromRelay::Revoked { revoked: allowed }]);
}

#[test]
fn of_two_revocations_with_one_seq_that_of_the_better_rank_counts() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let cohost = world.member(&room, 1, Rights::LEADER);
    let news = |revoked: &Revoked| FromRelay::Revoked { revoked: revoked.clone() };
    let (hosts, cohosts) = (room.revoked(1, &[8]), room.revoked_by(1, 1, &[9]));
    world.hush();
    assert_eq!(world.ask(cohost, &revoke(cohosts.clone())), [news(&cohosts)]);
    assert_eq!(world.ask(host, &revoke(hosts.clone())), [news(&cohosts), news(&hosts)]);
    // The one that was second is shown what counts.
    world.hush();
    assert_eq!(world.ask(cohost, &revoke(cohosts)), [news(&hosts)]);
    assert_eq!(world.heard(host), []);
}

#[test]
fn who_was_removed_signs_nothing_while_the_line_still_names_it() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1, 2]));
    let host = world.host(&room);
    world.say(host, &revoke(room.revoked(1, &[1])));
    let cohost = world.member(&room, 2, Rights::LEADER);
    let client = world.connect();
    // It might undo its own removal, let others in, or change the link.
    let answers = world.ask(client, &room.hello_with(room.revoked_by(1, 9, &[])));
    assert_eq!(answers[1], NOT_ALLOWED);
    world.hush();
    let message = attach(client, world.signed_by(1, &room, 5, Rights::MEMBER, 1));
    assert_eq!(world.ask(client, &message), refused(Refusal::Capability));
    let message = attach(client, world.signed(&room, 1, Rights::LEADER, 1));
    assert_eq!(world.ask(client, &message), refused(Refusal::Revoked));
    assert_eq!(world.ask(cohost, &room.gate_by(1, 9, &KnockToken([1; 32]))), refused(Refusal::NotAllowed));
    assert_eq!(world.heard(host), []);
}

#[test]
fn gate_of_who_signs_no_more_gives_way() {
    let (mut world, mut room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let cohost = world.member(&room, 1, Rights::LEADER);
    let token = KnockToken([200; 32]);
    world.say(cohost, &room.gate_by(1, u32::MAX, &token));
    world.say(host, &room.gate(2));
    let guest = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(guest, &room.knock()), refused(Refusal::WrongLink));
    appoint(&mut world, &mut room, host, &[]);
    world.hush();
    // Until another is set it stands.
    assert_eq!(world.ask(guest, &room.knock()), refused(Refusal::WrongLink));
    world.say(host, &room.gate(2));
    assert_eq!(
        world.ask(guest, &ToRelay::OpenMailbox { token: KnockTokenBytes(token.0) }),
        refused(Refusal::WrongLink)
    );
    assert_eq!(world.ask(guest, &room.knock()), [FromRelay::MailboxOpen]);
}

#[test]
fn relay_that_forgot_learns_line_and_revocation_from_hellos_in_any_order() {
    let room = Room::new(1);
    let (old, new) = (room.line(1, &[1, 2]), room.line(2, &[2]));
    let (by_host, by_cohost) = (room.revoked(4, &[9]), room.revoked_by(2, 5, &[9, 8]));
    let hellos = [
        room.hello_of(Some(old), Some(by_host)),
        room.hello_of(Some(new.clone()), Some(by_cohost.clone())),
        room.hello_of(None, Some(by_cohost.clone())),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new();
        let conns = order.map(|which| {
            let conn = world.connect();
            world.say(conn, &hellos[which]);
            conn
        });
        let meeting = &world.hub.meetings[&room.id];
        assert_eq!((&meeting.line, &meeting.revoked), (&Some(new.clone()), &Some(by_cohost.clone())), "{order:?}");
        world.hush();
        let [client, ..] = conns;
        for (slot, reason) in [(8, Refusal::Revoked), (9, Refusal::Revoked), (1, Refusal::Capability)] {
            let rights = if slot == 1 { Rights::LEADER } else { Rights::MEMBER };
            let message = attach(client, world.signed(&room, slot, rights, 7));
            assert_eq!(world.ask(client, &message), refused(reason));
        }
        let message = attach(client, world.signed(&room, 2, Rights::LEADER, 7));
        assert_eq!(world.ask(client, &message)[0], attached(2));
    }
}

#[test]
fn line_and_revocation_without_descriptor_are_passed_over_unless_the_meeting_is_known() {
    let room = Room::with_cohosts(1, &[1]);
    let line = room.line.clone();
    let hello = ToRelay::Hello { meeting: room.id, descriptor: None, revoked: Some(room.revoked_by(1, 1, &[2])), line };
    let mut world = World::new();
    let client = world.connect();
    assert!(matches!(world.ask(client, &hello)[..], [FromRelay::Welcome { .. }]));
    let bearer = world.connect();
    world.say(bearer, &room.hello_of(None, None));
    assert!(world.hub.meetings[&room.id].line.is_none());
    let client = world.connect();
    world.say(client, &hello);
    let meeting = &world.hub.meetings[&room.id];
    assert!(meeting.line.is_some() && meeting.revoked.is_some());
}

#[test]
fn guests_hear_of_another_leader_and_of_a_newer_line() {
    let (mut world, mut room) = (World::new(), Room::with_cohosts(1, &[1, 2]));
    let host = world.host(&room);
    let waiting = world.guest(&room);
    let (knocker, _) = world.knocker(&room, host);
    let bearer = world.bearer(&room);
    world.hush();
    let told = |world: &mut World, expected: &[FromRelay]| {
        for guest in [waiting, knocker, bearer] {
            assert_eq!(world.heard(guest), expected);
        }
    };
    let second = world.member(&room, 2, Rights::LEADER);
    told(&mut world, &[room.meeting_led_by(2)]);
    let first = world.member(&room, 1, Rights::LEADER);
    told(&mut world, &[room.meeting_led_by(1)]);
    // Renewals, members and whoever hasn't begun last change nothing.
    world.say(host, &attach(host, world.signed(&room, 0, Rights::LEADER, 2)));
    world.member(&room, 5, Rights::MEMBER);
    world.disconnect(second);
    told(&mut world, &[]);
    appoint(&mut world, &mut room, host, &[1]);
    told(&mut world, &[room.meeting_led_by(1)]);
    // A newer line that comes with a Hello is news to the one that brings it too, once.
    room.line = Some(room.line(3, &[1]));
    let newcomer = world.bearer(&room);
    assert_eq!(world.heard(newcomer)[1..], [room.meeting_led_by(1)]);
    told(&mut world, &[room.meeting_led_by(1)]);
    world.disconnect(first);
    told(&mut world, &[room.meeting_led_by(0)]);
    // Without a leader nothing is said, and then what is new.
    world.disconnect(host);
    appoint(&mut world, &mut room, bearer, &[1, 3]);
    told(&mut world, &[]);
    world.member(&room, 3, Rights::LEADER);
    told(&mut world, &[room.meeting_led_by(3)]);
    let late = world.guest(&room);
    assert_eq!(world.heard(late)[1..], [room.meeting_led_by(3)]);
}

#[test]
fn whoever_began_to_lead_last_leads_and_then_who_began_before() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1, 2, 3]));
    let guest = world.guest(&room);
    let mut conns = [2, 0, 3, 1].map(|slot| (slot, world.member(&room, slot, Rights::LEADER)));
    let leaders = |world: &mut World| {
        let heard = world.heard(guest).into_iter().filter_map(|message| match message {
            FromRelay::Meeting { leader, .. } => Some(leader.0),
            _ => None,
        });
        heard.collect::<Vec<_>>()
    };
    assert_eq!(leaders(&mut world), [2, 0, 3, 1]);
    // Who steps down and begins again is last.
    let (_, first) = conns[0];
    for (serial, rights) in [(2, Rights::MEMBER), (3, Rights::LEADER)] {
        world.say(first, &attach(first, world.signed(&room, 2, rights, serial)));
    }
    assert_eq!(leaders(&mut world), [2]);
    conns[..].rotate_left(1);
    for (_, conn) in conns.into_iter().rev() {
        world.disconnect(conn);
    }
    assert_eq!(leaders(&mut world), [1, 3, 0]);
}

#[test]
fn leading_rights_come_and_go_with_a_renewal() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let cohost = world.member(&room, 1, Rights::MEMBER);
    let (guest, mailbox) = world.knocker(&room, host);
    world.hush();
    world.say(cohost, &attach(cohost, world.signed(&room, 1, Rights::LEADER, 2)));
    assert_eq!(world.heard(guest), [room.meeting_led_by(1)]);
    let mail = ToRelay::Mail { bytes: vec![1] };
    world.say(guest, &mail);
    assert_eq!(world.heard(cohost), [attached(1), FromRelay::MailFrom { mailbox, bytes: vec![1] }]);
    assert_eq!(world.datagram(cohost, &removal_notice(1)), [host]);
    world.say(cohost, &attach(cohost, world.signed(&room, 1, Rights::MEMBER, 3)));
    assert_eq!(world.heard(guest), [room.meeting_led_by(0)]);
    world.say(guest, &mail);
    assert_eq!(world.heard(cohost), [attached(1)]);
    assert_eq!(world.datagram(cohost, &removal_notice(1)), []);
    assert_eq!(world.ask(cohost, &room.gate_by(1, 5, &room.token)), [NOT_ALLOWED]);
    // To the members it was here all the time.
    assert!(world.heard(host).iter().all(|message| matches!(message, FromRelay::MailFrom { .. })));
}

#[test]
fn member_that_comes_back_before_its_old_connection_ends_is_not_disturbed_by_that_end() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let cohost = world.member(&room, 1, Rights::LEADER);
    let member = world.member(&room, 2, Rights::MEMBER);
    let guest = world.guest(&room);
    for (slot, old) in [(0, host), (1, cohost), (2, member)] {
        world.hush();
        let rights = if slot == 2 { Rights::MEMBER } else { Rights::LEADER };
        let new = world.member(&room, slot, rights);
        assert_eq!(world.heard(old), [detached(Refusal::Replaced)]);
        world.disconnect(old);
        let others: Vec<_> = world.hub.attached(room.id).map(|(_, conn)| conn).filter(|conn| *conn != new).collect();
        assert_eq!(others.len(), 2);
        assert_eq!(world.datagram(new, &frame(slot)), others);
        for conn in others.into_iter().chain([guest]) {
            assert_eq!(world.heard(conn), []);
        }
        assert_eq!(world.datagram(new, &removal_notice(slot)).len(), if slot == 2 { 0 } else { 2 });
        let renewal = attach(new, world.signed(&room, slot, rights, 2));
        assert_eq!(world.ask(new, &renewal).last(), Some(&attached(slot)));
    }
}
