//! Floods: whoever sends too much is held back, and nobody else notices.

use std::time::Duration;

use conclave_protocol::capability::Rights;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, KnockTokenBytes, Refusal, ToRelay};

use super::super::{FULL, Limits, MISBEHAVED, Rate};
use super::world::{Room, World, attach, frame, refused};
use crate::core::PrefixToken;

fn too_fast(heard: &[FromRelay]) -> usize {
    heard.iter().filter(|message| **message == FromRelay::Refused { reason: Refusal::TooFast }).count()
}

#[test]
fn flood_of_datagrams_from_one_slot_leaves_the_others_unaffected() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let flooder = world.member(&room, 1, Rights::MEMBER);
    let talker = world.member(&room, 2, Rights::MEMBER);
    let (mut flood, mut talk) = (0, 0);
    // Ten seconds: 10,000 datagrams per second against an honest talker with frames of 10 ms.
    for tick in 0..100_000 {
        world.now += Duration::from_micros(100);
        flood += world.datagram(flooder, &frame(1)).len();
        if tick % 100 == 0 {
            talk += world.datagram(talker, &frame(2)).len();
        }
    }
    assert_eq!(talk, 2 * 1000);
    let Rate { per_second, burst } = Limits::default().datagrams;
    let most = 2 * (10 * per_second + burst + 1) as usize;
    assert!((most - 10..=most).contains(&flood), "{flood}");
    assert_eq!(world.datagram(host, &frame(0)).len(), 2);
    let stats = world.hub.stats();
    assert_eq!(stats.datagrams_dropped_too_fast as usize, 100_000 - flood / 2);
}

#[test]
fn flood_of_messages_is_refused_and_others_go_on() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let flooder = world.member(&room, 1, Rights::MEMBER);
    let member = world.member(&room, 2, Rights::MEMBER);
    world.hush();
    for _ in 0..1000 {
        world.say(flooder, &ToRelay::Send { to: EVERYBODY, bytes: vec![0; 100] });
    }
    let allowed = Limits::default().member_messages.burst as usize;
    assert_eq!(too_fast(&world.heard(flooder)), 1000 - allowed);
    assert_eq!(world.heard(host).len(), allowed);
    assert_eq!(world.heard(member).len(), allowed);
    assert_eq!(world.ask(member, &ToRelay::Send { to: MemberIndex(0), bytes: vec![1] }), []);
    assert_eq!(world.heard(host).len(), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.ask(flooder, &ToRelay::Send { to: EVERYBODY, bytes: vec![1] }), []);
}

#[test]
fn large_messages_are_held_back_by_their_bytes() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    for _ in 0..100 {
        world.say(member, &ToRelay::Send { to: MemberIndex(0), bytes: vec![0; 16_000] });
    }
    assert_eq!(world.heard(host).len(), 1024 * 1024 / 16_000);
    assert_eq!(too_fast(&world.heard(member)), 100 - 1024 * 1024 / 16_000);
}

#[test]
fn epoch_change_of_a_thousand_members_passes() {
    let (mut world, room) = (World::new(), Room::with_members(1, 1001));
    let host = world.host(&room);
    let members: Vec<_> = (1..=1000).map(|slot| world.member(&room, slot, Rights::MEMBER)).collect();
    for round in 1..=3 {
        world.hush();
        for slot in 1..=1000 {
            world.say(host, &ToRelay::Send { to: MemberIndex(slot), bytes: vec![0; 2_000] });
        }
        assert_eq!(world.heard(host), [], "round {round}");
        for member in &members {
            assert_eq!(world.heard(*member).len(), 1);
        }
        world.pass(Duration::from_secs(1));
    }
}

#[test]
fn confirmations_of_heartbeats_and_chat_pass() {
    let (mut world, room) = (World::new(), Room::new(1));
    let members: Vec<_> = (0..16).map(|slot| world.member(&room, slot, Rights::MEMBER)).collect();
    world.hush();
    let member = members[1];
    // A minute: to each of the others every 2 s, and beside it somebody who types fast and pastes.
    for second in 0..60 {
        for slot in (0..16).filter(|slot| *slot != 1 && second % 2 == 0) {
            world.say(member, &ToRelay::Send { to: MemberIndex(slot), bytes: vec![0; 200] });
        }
        for size in [100, 100, 100, 4_000] {
            world.say(member, &ToRelay::Send { to: EVERYBODY, bytes: vec![0; size] });
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.heard(member), []);
    assert_eq!(world.heard(members[2]).len(), 30 + 4 * 60);
}

#[test]
fn member_that_begins_to_lead_has_the_leaders_allowance_at_once() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let cohost = world.member(&room, 1, Rights::MEMBER);
    world.member(&room, 2, Rights::MEMBER);
    let refused_of = |world: &mut World, count: usize, size: usize| {
        for _ in 0..count {
            world.say(cohost, &ToRelay::Send { to: MemberIndex(2), bytes: vec![0; size] });
        }
        too_fast(&world.heard(cohost))
    };
    let Limits { member_messages, leader_messages, .. } = Limits::default();
    assert_eq!(refused_of(&mut world, 300, 5_000), 300 - member_messages.burst as usize);
    world.say(cohost, &attach(cohost, world.signed(&room, 1, Rights::LEADER, 2)));
    assert_eq!(refused_of(&mut world, leader_messages.burst as usize, 2_000), 0);
    // Stepping down and up again gives no fresh one, on another connection neither.
    world.say(cohost, &attach(cohost, world.signed(&room, 1, Rights::MEMBER, 3)));
    assert_eq!(refused_of(&mut world, 10, 1), 10);
    world.say(cohost, &attach(cohost, world.signed(&room, 1, Rights::LEADER, 4)));
    assert_eq!(refused_of(&mut world, 10, 1), 10);
    let again = world.bearer(&room);
    world.say(again, &attach(again, world.signed(&room, 1, Rights::LEADER, 4)));
    world.hush();
    assert_eq!(world.ask(again, &ToRelay::Send { to: MemberIndex(2), bytes: vec![] }), refused(Refusal::TooFast));
}

#[test]
fn hundred_members_who_leave_within_seconds_are_revoked_one_by_one() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let mut slots = Vec::new();
    for slot in 1..=100 {
        slots.push(slot);
        world.say(host, &ToRelay::Revoke { revoked: room.revoked(slot.into(), &slots) });
        world.pass(Duration::from_millis(50));
    }
    // All at once passes too.
    for seq in 101..=200 {
        world.say(host, &ToRelay::Revoke { revoked: room.revoked(seq, &slots) });
    }
    assert_eq!(too_fast(&world.heard(host)), 0);
}

#[test]
fn newcomer_to_a_large_meeting_is_told_a_bounded_number_of_presences() {
    let (mut world, room) = (World::new(), Room::with_members(1, 400));
    for slot in 0..300 {
        world.member(&room, slot, Rights::MEMBER);
    }
    let newcomer = world.member(&room, 300, Rights::MEMBER);
    assert_eq!(world.heard(newcomer).len(), 2 + Limits::default().max_presences);
}

#[test]
fn flood_of_mail_is_refused_and_the_next_guest_still_gets_through() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (flooder, _) = world.knocker(&room, host);
    let (other, mailbox) = world.knocker(&room, host);
    world.hush();
    for _ in 0..1000 {
        world.say(flooder, &ToRelay::Mail { bytes: vec![0; 4096] });
    }
    let allowed = Limits::default().guest_mail.burst as usize - 1;
    assert_eq!(world.heard(host).len(), allowed);
    // A flood is told so for a while, and then passed over.
    let answers = too_fast(&world.heard(flooder));
    assert!(answers > 100 && answers <= Limits::default().guest_messages.burst as usize, "{answers} answers");
    assert_eq!(world.ask(other, &ToRelay::Mail { bytes: vec![7] }), []);
    assert_eq!(world.heard(host), [FromRelay::MailFrom { mailbox, bytes: vec![7] }]);
}

#[test]
fn mail_of_all_guests_together_is_bounded_too() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let guests: Vec<_> = (0..100).map(|_| world.guest(&room)).collect();
    for guest in &guests {
        world.say(*guest, &room.knock());
    }
    world.hush();
    for guest in &guests {
        for _ in 0..10 {
            world.say(*guest, &ToRelay::Mail { bytes: vec![1] });
        }
    }
    assert_eq!(world.heard(host).len(), Limits::default().meeting_mail.burst as usize);
}

#[test]
fn knocks_beyond_the_mailboxes_of_a_meeting_are_refused() {
    let limits = Limits { max_mailboxes: 3, ..Limits::default() };
    let (mut world, room) = (World::with_limits(limits), Room::new(1));
    let host = world.host(&room);
    let guests: Vec<_> = (0..5).map(|_| world.guest(&room)).collect();
    world.hush();
    let opened = guests.iter().filter(|guest| world.ask(**guest, &room.knock()) == [FromRelay::MailboxOpen]).count();
    assert_eq!(opened, 3);
    assert_eq!(world.ask(guests[4], &room.knock()), refused(Refusal::Full));
    world.disconnect(guests[0]);
    assert_eq!(world.ask(guests[4], &room.knock()), [FromRelay::MailboxOpen]);
    world.disconnect(host);
}

#[test]
fn crowd_that_came_before_the_host_gets_its_mailboxes_in_the_order_of_arrival() {
    let limits = Limits { max_mailboxes: 3, ..Limits::default() };
    let (mut world, room) = (World::with_limits(limits), Room::new(1));
    let guests: Vec<_> = (0..5).map(|_| world.guest(&room)).collect();
    for guest in guests.iter().rev() {
        world.say(*guest, &room.knock());
    }
    world.host(&room);
    let answers: Vec<_> = guests.iter().map(|guest| world.heard(*guest).pop()).collect();
    assert!(answers[..3].iter().all(|answer| *answer == Some(FromRelay::MailboxOpen)));
    assert!(answers[3..].iter().all(|answer| *answer == Some(FromRelay::Refused { reason: Refusal::Full })));
}

#[test]
fn network_that_shows_too_many_tokens_is_slowed_and_others_are_not() {
    let limits = Limits { prefix_tokens: Rate { per_second: 1, burst: 4 }, ..Limits::default() };
    let (mut world, room) = (World::with_limits(limits), Room::new(1));
    world.host(&room);
    let mut slowed = 0;
    for guess in 0..10 {
        let guest = world.guest(&room);
        world.heard(guest);
        let message = ToRelay::OpenMailbox { token: KnockTokenBytes([150 + guess; 32]) };
        slowed += too_fast(&world.ask(guest, &message));
    }
    assert_eq!(slowed, 6);
    let elsewhere = world.connect_from(PrefixToken(8));
    world.say(elsewhere, &room.guest_hello());
    assert_eq!(world.ask(elsewhere, &room.knock()).last(), Some(&FromRelay::MailboxOpen));
}

#[test]
fn capabilities_shown_too_often_are_not_looked_at() {
    let (mut world, room) = (World::new(), Room::new(1));
    let client = world.bearer(&room);
    world.hush();
    let bad = attach(client, room.capability(world.wall(), 1, Rights::MEMBER, 1).sign(&Room::new(2).authority));
    let answers: Vec<_> = (0..20).map(|_| world.ask(client, &bad)).collect();
    let burst = Limits::default().attaches.burst as usize;
    assert!(answers[..burst].iter().all(|answer| *answer == refused(Refusal::Capability)));
    assert!(answers[burst..].iter().all(|answer| *answer == refused(Refusal::TooFast)));
}

#[test]
fn lines_shown_too_often_are_not_looked_at_and_share_the_allowance_of_capabilities() {
    let (mut world, room) = (World::new(), Room::new(1));
    let client = world.bearer(&room);
    world.hush();
    for seq in 1..=20 {
        world.say(client, &ToRelay::Line { line: room.line(seq, &[1]) });
    }
    let burst = Limits::default().attaches.burst;
    assert_eq!(too_fast(&world.heard(client)), 20 - burst as usize);
    assert_eq!(world.hub.stats().lines_learned, u64::from(burst));
    let message = attach(client, world.signed(&room, 2, Rights::MEMBER, 1));
    assert_eq!(world.ask(client, &message), refused(Refusal::TooFast));
}

#[test]
fn acts_of_a_leader_are_bounded() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.member(&room, 0, Rights::LEADER);
    world.hush();
    for _ in 0..300 {
        world.say(host, &room.gate(1));
    }
    assert_eq!(too_fast(&world.heard(host)), 300 - Limits::default().acts.burst as usize);
}

#[test]
fn guests_beyond_the_bound_are_refused_and_the_host_still_gets_in() {
    let limits = Limits { max_waiting: 10, max_unattached: 3, ..Limits::default() };
    let (mut world, room) = (World::with_limits(limits), Room::new(1));
    for _ in 0..10 {
        world.guest(&room);
    }
    let late = world.guest(&room);
    assert_eq!(world.heard(late), refused(Refusal::Full));
    assert_eq!(world.closed.get(&late), Some(&FULL));

    // Those who know the descriptor and wait make room, the oldest first.
    let crowd: Vec<_> = (0..5).map(|_| world.bearer(&room)).collect();
    assert_eq!(crowd.iter().filter(|conn| world.closed.contains_key(conn)).count(), 2);
    assert_eq!(world.closed.get(&crowd[0]), Some(&FULL));
    let host = world.host(&room);
    assert_eq!(world.hub.attached(room.id).collect::<Vec<_>>(), [(MemberIndex(0), host)]);
}

#[test]
fn client_that_takes_a_slot_over_need_not_make_room_for_the_one_it_replaces() {
    let limits = Limits { max_unattached: 1, ..Limits::default() };
    let (mut world, room) = (World::with_limits(limits), Room::new(1));
    let newer = world.bearer(&room);
    let older = world.connect();
    let message = attach(newer, world.signed(&room, 1, Rights::MEMBER, 1));
    world.say(newer, &message);
    world.say(older, &room.hello());
    world.say(older, &attach(older, world.signed(&room, 1, Rights::MEMBER, 1)));
    assert_eq!(world.hub.attached(room.id).collect::<Vec<_>>(), [(MemberIndex(1), older)]);
    // The one that is replaced waits now, and may come back: nobody waits beside it.
    world.say(newer, &message);
    assert_eq!(world.hub.attached(room.id).collect::<Vec<_>>(), [(MemberIndex(1), newer)]);
    assert!(world.closed.is_empty());
}

#[test]
fn relay_takes_no_more_meetings_and_connections_than_it_has_room_for() {
    let limits = Limits { max_meetings: 2, max_connections: 6, ..Limits::default() };
    let mut world = World::with_limits(limits);
    let rooms = [Room::new(1), Room::new(2), Room::new(3)];
    world.bearer(&rooms[0]);
    world.bearer(&rooms[1]);
    let third = world.bearer(&rooms[2]);
    assert_eq!(world.heard(third), refused(Refusal::Full));
    world.disconnect(third);
    // Guests can't tell whether their meeting is known.
    let (known, unknown) = (world.guest(&rooms[0]), world.guest(&rooms[2]));
    assert_eq!(world.heard_bytes(known), world.heard_bytes(unknown));
    for room in &rooms[..2] {
        let bearer = world.bearer(room);
        assert!(matches!(world.heard(bearer)[..], [FromRelay::Welcome { .. }]));
    }
    let seventh = world.guest(&rooms[0]);
    assert_eq!(world.heard(seventh), refused(Refusal::Full));
    assert_eq!(world.closed.get(&seventh), Some(&FULL));
}

#[test]
fn third_malformed_message_closes_the_connection_and_changes_nothing_else() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    for message in [&b""[..], &[99, 1, 2][..]] {
        world.say_bytes(member, message);
        assert_eq!(world.heard(member), refused(Refusal::Malformed));
        assert_eq!(world.datagram(member, &frame(1)), [host]);
    }
    assert_eq!(world.heard(host), []);
    // A second Hello is out of place too.
    assert_eq!(world.ask(member, &room.hello()), refused(Refusal::Malformed));
    assert_eq!(world.closed.get(&member), Some(&MISBEHAVED));
    assert_eq!(world.datagram(member, &frame(1)), []);
    assert_eq!(world.datagram(host, &frame(0)), []);
    world.disconnect(member);
}
