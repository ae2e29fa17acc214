//! What guests hear and may do.

use std::time::Duration;

use conclave_protocol::capability::{KnockGate, KnockToken, Rights};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::wire::relay::{EVERYBODY, FromRelay, KnockTokenBytes, MailboxId, Refusal, ToRelay};

use super::super::MISBEHAVED;
use super::world::{Room, START, World, attach, frame, refused, removal_notice};

fn mail(text: &str) -> ToRelay {
    ToRelay::Mail { bytes: text.as_bytes().to_vec() }
}

#[test]
fn hello_is_answered_with_the_relays_time_and_region() {
    let mut world = World::new();
    world.pass(Duration::from_millis(1500));
    let guest = world.guest(&Room::new(1));
    let time = START.plus(Duration::from_millis(1500));
    assert_eq!(
        world.heard(guest),
        [FromRelay::Welcome { time, region: "eu-west".into(), takes_reports: false, moderator: Vec::new() }]
    );
}

#[test]
fn guest_hears_of_the_meeting_at_once_when_a_leader_is_there() {
    let (mut world, room) = (World::new(), Room::new(1));
    world.host(&room);
    let guest = world.guest(&room);
    assert_eq!(world.heard(guest)[1..], [room.meeting_led_by(0)]);
}

#[test]
fn guest_hears_of_the_meeting_when_a_leader_attaches_and_not_before() {
    let (mut world, room) = (World::new(), Room::new(1));
    let guest = world.guest(&room);
    world.heard(guest);
    world.member(&room, 3, Rights::MEMBER);
    let host = world.bearer(&room);
    assert_eq!(world.heard(guest), []);
    world.say(host, &attach(host, world.signed(&room, 0, Rights::LEADER, 1)));
    assert_eq!(world.heard(guest), [room.meeting_led_by(0)]);
}

#[test]
fn guest_hears_of_a_host_who_comes_back_unless_its_mailbox_is_open() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let guest = world.guest(&room);
    let (knocker, _) = world.knocker(&room, host);
    world.hush();
    world.disconnect(host);
    assert_eq!(world.heard(guest), []);
    world.host(&room);
    assert_eq!(world.heard(guest), [room.meeting_led_by(0)]);
    assert_eq!(world.heard(knocker), []);
}

#[test]
fn unknown_meeting_and_absent_host_look_the_same_byte_for_byte() {
    let (room, other) = (Room::with_cohosts(1, &[1]), Room::new(2));
    // What the host signed, and what it didn't.
    let proofs = [
        (None, None),
        (room.line.clone(), Some(room.revoked_by(1, 1, &[9]))),
        (None, Some(other.revoked(1, &[1]))),
        (Some(other.line(1, &[1])), Some(room.revoked(1, &[9]))),
    ];
    for (line, revoked) in proofs {
        let hello = ToRelay::Hello { meeting: room.id, descriptor: None, revoked, line };
        assert_same_answers(&room, &hello);
    }
}

fn assert_same_answers(room: &Room, hello: &ToRelay) {
    let transcript = |known: bool| {
        let mut world = World::new();
        if known {
            world.host(room);
            world.member(room, 1, Rights::MEMBER);
            // The host goes, members stay.
            let host = world.hub.attached(room.id).next().unwrap().1;
            world.disconnect(host);
        } else {
            world.connect();
            world.connect();
        }
        let guest = world.connect();
        world.say(guest, hello);
        world.say(guest, &room.knock());
        world.say(guest, &ToRelay::OpenMailbox { token: KnockTokenBytes([99; 32]) });
        world.say(guest, &mail("hello"));
        world.say(guest, &ToRelay::Send { to: MemberIndex(1), bytes: vec![1] });
        world.say(guest, &ToRelay::MailTo { mailbox: MailboxId(1), bytes: vec![1] });
        world.say(guest, &ToRelay::CloseMailbox { mailbox: MailboxId(1) });
        world.say(guest, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
        world.say(guest, &room.gate(2));
        world.say(guest, &ToRelay::Line { line: room.line(2, &[3]) });
        world.say_bytes(guest, b"garbage");
        assert_eq!(world.datagram(guest, &frame(1)), []);
        (world.heard_bytes(guest), world.closed.clone())
    };
    let (known, unknown) = (transcript(true), transcript(false));
    assert_eq!(known, unknown);
    assert!(known.0.len() > 5);
}

#[test]
fn token_opens_a_mailbox() {
    let (mut world, room) = (World::new(), Room::new(1));
    world.host(&room);
    let guest = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(guest, &room.knock()), [FromRelay::MailboxOpen]);
    assert_eq!(world.ask(guest, &room.knock()), refused(Refusal::NotAllowed));
}

#[test]
fn token_shown_before_the_gate_is_set_waits_for_it() {
    let (mut world, room) = (World::new(), Room::new(1));
    let early = world.guest(&room);
    world.say(early, &room.knock());
    let host = world.member(&room, 0, Rights::LEADER);
    let quick = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(quick, &room.knock()), []);
    world.say(host, &room.gate(1));
    assert_eq!(world.heard(early), [FromRelay::MailboxOpen]);
    assert_eq!(world.heard(quick), [FromRelay::MailboxOpen]);
}

#[test]
fn wrong_tokens_are_refused_and_the_fifth_closes_the_connection() {
    let (mut world, room) = (World::new(), Room::new(1));
    world.host(&room);
    let guest = world.guest(&room);
    world.hush();
    for guess in 1..=5 {
        assert!(world.closed.is_empty());
        let token = KnockTokenBytes([100 + guess; 32]);
        assert_eq!(world.ask(guest, &ToRelay::OpenMailbox { token }), refused(Refusal::WrongLink));
    }
    assert_eq!(world.closed.get(&guest), Some(&MISBEHAVED));
    assert_eq!(world.ask(guest, &room.knock()), []);
}

#[test]
fn new_gate_refuses_the_old_link_and_an_older_gate_changes_nothing() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let fresh = KnockToken([200; 32]);
    world.say(host, &ToRelay::Gate { gate: KnockGate::sign(room.id, 2, MemberIndex::HOST, &fresh, &room.authority) });
    world.say(host, &room.gate(1));
    let guest = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(guest, &room.knock()), refused(Refusal::WrongLink));
    let token = KnockTokenBytes(fresh.0);
    assert_eq!(world.ask(guest, &ToRelay::OpenMailbox { token }), [FromRelay::MailboxOpen]);
}

#[test]
fn gate_of_another_meeting_or_key_is_refused() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let host = world.member(&room, 0, Rights::LEADER);
    world.hush();
    assert_eq!(world.ask(host, &other.gate(9)), refused(Refusal::NotAllowed));
    let forged = KnockGate::sign(room.id, 9, MemberIndex::HOST, &other.token, &other.authority);
    assert_eq!(world.ask(host, &ToRelay::Gate { gate: forged }), refused(Refusal::NotAllowed));
}

#[test]
fn guest_gets_no_datagram_no_roster_no_count_and_no_message_of_members() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (knocker, _) = world.knocker(&room, host);
    let bearer = world.bearer(&room);
    let waiting = world.guest(&room);
    world.hush();
    let member = world.member(&room, 1, Rights::MEMBER);
    world.say(member, &ToRelay::Send { to: EVERYBODY, bytes: b"chat".to_vec() });
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[7]) });
    assert_eq!(world.datagram(member, &frame(1)), [host]);
    assert_eq!(world.datagram(host, &removal_notice(0)), [member]);
    world.disconnect(member);
    for guest in [knocker, bearer, waiting] {
        assert_eq!(world.heard(guest), []);
    }
}

#[test]
fn guest_can_send_nothing_but_mail() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (guest, mailbox) = world.knocker(&room, host);
    world.hush();
    let not_allowed = refused(Refusal::NotAllowed);
    assert_eq!(world.ask(guest, &ToRelay::Send { to: MemberIndex(0), bytes: vec![1] }), not_allowed);
    assert_eq!(world.ask(guest, &ToRelay::Send { to: EVERYBODY, bytes: vec![1] }), not_allowed);
    assert_eq!(world.ask(guest, &ToRelay::MailTo { mailbox, bytes: vec![1] }), not_allowed);
    assert_eq!(world.ask(guest, &ToRelay::CloseMailbox { mailbox }), not_allowed);
    assert_eq!(world.ask(guest, &ToRelay::Revoke { revoked: room.revoked(1, &[0]) }), not_allowed);
    assert_eq!(world.ask(guest, &room.gate(9)), not_allowed);
    assert_eq!(world.datagram(guest, &frame(0)), []);
    assert_eq!(world.heard(host), []);
}

#[test]
fn mail_needs_a_mailbox() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let guest = world.guest(&room);
    world.hush();
    assert_eq!(world.ask(guest, &mail("let me in")), refused(Refusal::NotAllowed));
    assert_eq!(world.heard(host), []);
}

#[test]
fn mail_goes_to_all_leaders_and_to_nobody_else() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let second = world.member(&room, 1, Rights::LEADER);
    let plain = world.member(&room, 2, Rights::MEMBER);
    let (guest, mailbox) = world.knocker(&room, host);
    let (other, _) = world.knocker(&room, host);
    world.hush();
    assert_eq!(world.ask(guest, &mail("me")), []);
    let expected = [FromRelay::MailFrom { mailbox, bytes: b"me".to_vec() }];
    assert_eq!(world.heard(host), expected);
    assert_eq!(world.heard(second), expected);
    assert_eq!(world.heard(plain), []);
    assert_eq!(world.heard(other), []);
}

#[test]
fn leaders_answer_reaches_that_guest_only() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (guest, mailbox) = world.knocker(&room, host);
    let (other, _) = world.knocker(&room, host);
    world.hush();
    assert_eq!(world.ask(host, &ToRelay::MailTo { mailbox, bytes: b"wait".to_vec() }), []);
    assert_eq!(world.heard(guest), [FromRelay::Mail { bytes: b"wait".to_vec() }]);
    assert_eq!(world.heard(other), []);
}

#[test]
fn mailboxes_of_another_meeting_are_out_of_reach() {
    let (mut world, room, other) = (World::new(), Room::new(1), Room::new(2));
    let (host, stranger) = (world.host(&room), world.host(&other));
    let (guest, mailbox) = world.knocker(&room, host);
    world.hush();
    assert_eq!(world.ask(stranger, &ToRelay::MailTo { mailbox, bytes: vec![1] }), []);
    assert_eq!(world.ask(stranger, &ToRelay::CloseMailbox { mailbox }), []);
    assert_eq!(world.heard(guest), []);
    assert_eq!(world.hub.stats().mailboxes_now, 1);
    assert_eq!(world.hub.stats().messages_undeliverable, 1);
}

#[test]
fn mailbox_is_gone_when_its_guest_leaves_or_takes_a_slot() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (leaver, first) = world.knocker(&room, host);
    let (joiner, second) = world.knocker(&room, host);
    assert_ne!(first, second);
    world.hush();
    world.disconnect(leaver);
    assert_eq!(world.heard(host), [FromRelay::MailboxGone { mailbox: first }]);
    world.say(joiner, &attach(joiner, world.signed(&room, 1, Rights::MEMBER, 1)));
    assert_eq!(world.heard(host)[0], FromRelay::MailboxGone { mailbox: second });
    assert_eq!(world.hub.stats().mailboxes_now, 0);
}

#[test]
fn closed_mailbox_takes_no_mail_and_the_other_leaders_hear_of_it() {
    let (mut world, room) = (World::new(), Room::with_cohosts(1, &[1]));
    let host = world.host(&room);
    let second = world.member(&room, 1, Rights::LEADER);
    let (guest, mailbox) = world.knocker(&room, host);
    world.hush();
    assert_eq!(world.ask(host, &ToRelay::CloseMailbox { mailbox }), []);
    assert_eq!(world.heard(second), [FromRelay::MailboxGone { mailbox }]);
    assert_eq!(world.ask(guest, &mail("hello?")), refused(Refusal::NotAllowed));
    world.say(host, &ToRelay::MailTo { mailbox, bytes: vec![1] });
    assert_eq!(world.heard(guest), []);
}

#[test]
fn names_of_mailboxes_are_never_given_twice() {
    let (mut world, room) = (World::new(), Room::new(1));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        // Every time the meeting ends with its last connection and begins anew.
        let host = world.host(&room);
        let (guest, name) = world.knocker(&room, host);
        assert!(names.insert(name));
        world.say(host, &ToRelay::CloseMailbox { mailbox: name });
        world.say(guest, &room.knock());
        world.say(guest, &mail("again"));
        let Some(FromRelay::MailFrom { mailbox, .. }) = world.heard(host).pop() else { panic!("no mail") };
        assert!(names.insert(mailbox));
        world.disconnect(guest);
        world.disconnect(host);
        assert_eq!(world.hub.stats().meetings_now, 0);
    }
}

#[test]
fn mail_while_no_leader_is_there_is_lost_and_the_mailbox_stays() {
    let (mut world, room) = (World::new(), Room::new(1));
    let host = world.host(&room);
    let (guest, mailbox) = world.knocker(&room, host);
    world.disconnect(host);
    assert_eq!(world.ask(guest, &mail("anybody?")).last(), Some(&FromRelay::MailboxOpen));
    assert_eq!(world.hub.stats().messages_undeliverable, 1);
    let host = world.host(&room);
    assert_eq!(world.heard(guest), []);
    world.hush();
    world.say(guest, &mail("hello"));
    assert_eq!(world.heard(host), [FromRelay::MailFrom { mailbox, bytes: b"hello".to_vec() }]);
}
