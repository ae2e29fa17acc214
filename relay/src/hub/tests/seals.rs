//! Seals and stamps.

use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::capability::Rights;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::stamp::{Minute, Origin, SealPublic, StampKey};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, MAX_SEAL, MailboxId, Refusal, StampCheck, StampVerdict, ToRelay};
use conclave_protocol::wire::urgency::{Urgency, WITNESS};

use super::world::{Room, World, refused, rk};
use crate::core::Core;
use crate::hub::Hub;
use crate::stamps::StampKeys;

fn key(fill: u8) -> Arc<StampKey> {
    Arc::new(StampKey::new([fill; 32]))
}

/// The member of slot 1.
fn origin(room: &Room) -> Origin {
    Origin { meeting: room.id, slot: MemberIndex(1), rk: rk(1).public() }
}

fn public(slot: u16, segment: u16) -> SealPublic {
    let kid = 1 << 63 | u64::from(slot) << 40 | 9 << 16 | u64::from(segment);
    SealPublic { kid, count: 25, root: [segment.to_be_bytes()[1]; 32] }
}

fn seal(slot: u16, segment: u16) -> Vec<u8> {
    [public(slot, segment).encode(), vec![0xEE; 545]].concat()
}

fn world() -> World {
    let mut world = World::new();
    world.hub.stamp_keys(StampKeys::new(key(1), []));
    world
}

#[test]
fn a_seal_reaches_all_others_once_and_its_stamp_is_genuine() {
    let mut world = world();
    let room = Room::new(1);
    let conns = [0, 1, 2].map(|slot| world.member(&room, slot, Rights::MEMBER));
    let (guest, elsewhere) = (world.guest(&room), world.member(&Room::new(2), 0, Rights::MEMBER));
    world.pass(Duration::from_secs(90));
    world.hush();
    world.say(conns[1], &ToRelay::Seal { bytes: seal(1, 7) });
    let raw = conns.map(|conn| world.heard_bytes(conn));
    assert!(raw.iter().all(|heard| heard.len() == 1));
    let [first, sender, last] = raw.map(|heard| FromRelay::decode(&heard[0]).unwrap());
    let FromRelay::Sealed { from: MemberIndex(1), stamp, bytes } = first.clone() else { panic!("{first:?}") };
    assert_eq!(bytes, seal(1, 7));
    assert_eq!(last, first);
    assert_eq!(sender, FromRelay::Sealed { from: MemberIndex(1), stamp, bytes: public(1, 7).encode() });
    assert!(world.heard(guest).is_empty() && world.heard(elsewhere).is_empty());
    assert_eq!(stamp.minute, Minute::from(world.wall()));
    assert!(key(1).made(&stamp, &origin(&room), &public(1, 7)));
    let stats = world.hub.stats();
    assert_eq!((stats.seals_stamped, stats.seals_forwarded), (1, 2));
}

#[test]
fn everybody_gets_the_very_same_bytes() {
    let mut world = world();
    let room = Room::new(1);
    let conns = [0, 1, 2].map(|slot| world.member(&room, slot, Rights::MEMBER));
    world.hush();
    world.say(conns[0], &ToRelay::Seal { bytes: seal(0, 1) });
    let (one, other) = (world.heard_bytes(conns[1]), world.heard_bytes(conns[2]));
    assert_eq!(one[0].as_ptr(), other[0].as_ptr(), "one encoding for all");
}

#[test]
fn whoever_seals_in_anothers_name_or_without_a_slot_is_refused() {
    let mut world = world();
    let room = Room::new(1);
    let host = world.host(&room);
    let (member, guest) = (world.member(&room, 1, Rights::MEMBER), world.guest(&room));
    world.hush();
    assert_eq!(world.ask(member, &ToRelay::Seal { bytes: seal(0, 1) }), refused(Refusal::NotAllowed));
    assert_eq!(world.ask(guest, &ToRelay::Seal { bytes: seal(1, 1) }), refused(Refusal::NotAllowed));
    world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
    world.hush();
    assert_eq!(world.ask(member, &ToRelay::Seal { bytes: seal(1, 1) }), refused(Refusal::NotAllowed));
    assert!(world.heard(host).is_empty());
    assert_eq!(world.hub.stats().seals_refused_wrong_slot, 1);
}

#[test]
fn what_cannot_be_a_seal_is_refused() {
    let mut world = world();
    let room = Room::new(1);
    let (member, other) = (world.member(&room, 1, Rights::MEMBER), world.member(&room, 2, Rights::MEMBER));
    world.hush();
    let whole = seal(1, 1);
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let wrong =
        [vec![], whole[..41].to_vec(), whole[..56].to_vec(), with(0, 0x81), with(0, 0), with(8, 0), with(8, 51)];
    let count = wrong.len() as u64;
    for bytes in wrong {
        assert_eq!(world.ask(member, &ToRelay::Seal { bytes }), refused(Refusal::Malformed));
    }
    assert!(world.heard(other).is_empty());
    assert_eq!(world.hub.stats().seals_refused_malformed, count);
    // The shortest and the longest.
    let longest = [&whole[..41], &[0; MAX_SEAL - 41]].concat();
    for bytes in [whole[..57].to_vec(), longest] {
        world.say(member, &ToRelay::Seal { bytes });
        assert!(matches!(world.heard(other)[..], [FromRelay::Sealed { .. }]));
    }
}

#[test]
fn a_slot_seals_as_often_as_its_segments_end_and_a_new_connection_changes_nothing() {
    let mut world = world();
    let room = Room::new(1);
    let (first, other) = (world.member(&room, 1, Rights::MEMBER), world.member(&room, 2, Rights::MEMBER));
    world.hush();
    for segment in 0..100 {
        world.say(first, &ToRelay::Seal { bytes: seal(1, segment) });
    }
    assert_eq!((world.heard(first).len(), world.heard(other).len()), (16, 16));
    assert_eq!(world.hub.stats().seals_dropped_too_fast, 84);
    let again = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    world.say(again, &ToRelay::Seal { bytes: seal(1, 200) });
    assert!(world.heard(other).is_empty());
    // A segment lasts half a second: nobody who keeps time is ever dropped.
    for segment in 0..200 {
        world.pass(Duration::from_millis(500));
        if segment % 100 == 0 {
            let renewed = world.signed(&room, 1, Rights::MEMBER, 2);
            world.say(again, &super::world::attach(again, renewed));
            let renewed = world.signed(&room, 2, Rights::MEMBER, 2);
            world.say(other, &super::world::attach(other, renewed));
            world.hush();
        }
        world.say(again, &ToRelay::Seal { bytes: seal(1, segment) });
        assert_eq!(world.heard(other).len(), 1, "segment {segment}");
        world.hush();
    }
}

#[test]
fn a_new_day_stamps_with_its_own_key_and_knows_the_old_one() {
    let mut world = world();
    let room = Room::new(1);
    let member = world.member(&room, 1, Rights::MEMBER);
    let stamp = |world: &mut World| {
        world.hush();
        match world.ask(member, &ToRelay::Seal { bytes: seal(1, 1) })[..] {
            [FromRelay::Sealed { stamp, .. }] => stamp,
            ref other => panic!("{other:?}"),
        }
    };
    let old = stamp(&mut world);
    world.hub.stamp_keys(StampKeys::new(key(2), [key(1)]));
    let new = stamp(&mut world);
    assert_ne!(old.key, new.key);
    for stamp in [old, new] {
        let check = StampCheck { origin: origin(&room), public: public(1, 1), stamp };
        assert_eq!(world.hub.stamps.check(&check), StampVerdict::Genuine);
    }
}

#[test]
fn seals_witnesses_confirmations_and_heads_need_not_come_at_once_and_heartbeats_not_in_their_turn() {
    let packet = |kind: u8, length: usize| {
        let bytes = std::iter::once(kind).chain(std::iter::repeat_n(0, length - 1)).collect();
        FromRelay::Deliver { from: MemberIndex(3), bytes }.encode()
    };
    let stamp = key(1).stamp(&origin(&Room::new(1)), Minute(1), &public(1, 1));
    let sealed = FromRelay::Sealed { from: MemberIndex(3), stamp, bytes: vec![7] }.encode();
    assert_eq!(Hub::urgency(&sealed), Urgency::SoonInAnyOrder);
    for kind in 0..=u8::MAX {
        let expected = if kind == WITNESS { Urgency::SoonInAnyOrder } else { Urgency::Now };
        assert_eq!(Hub::urgency(&packet(kind, 347)), expected, "{kind}");
        let expected = if kind == 6 { Urgency::NowInAnyOrder } else { Urgency::Now };
        assert_eq!(Hub::urgency(&packet(kind, 348)), expected, "{kind}");
        assert_eq!(Hub::urgency(&packet(kind, 349)), Urgency::Now, "{kind}");
    }
    let soon: Vec<usize> = (1..2_000).filter(|length| Hub::urgency(&packet(6, *length)) == Urgency::Soon).collect();
    let heads: Vec<usize> = (1..=16).map(|count| 9 + 1 + 2 + count * 104 + 16).collect();
    assert_eq!(soon, [&heads[..1], &[9 + 1 + 109 + 16], &heads[1..]].concat());
    let at_once: Vec<usize> =
        (1..2_000).filter(|length| Hub::urgency(&packet(6, *length)) == Urgency::NowInAnyOrder).collect();
    let heartbeats: Vec<usize> = (0..=256).map(|unconfirmed| 9 + 1 + 86 + unconfirmed * 2 + 64 + 16).collect();
    assert_eq!(at_once, heartbeats.into_iter().filter(|length| !soon.contains(length)).collect::<Vec<_>>());
    assert_eq!([&[][..], &packet(7, 3)[..5]].map(Hub::urgency), [Urgency::Now; 2]);
    let mail = FromRelay::MailFrom { mailbox: MailboxId(0x0700), bytes: vec![7, 7, 7] }.encode();
    assert_eq!(Hub::urgency(&mail), Urgency::Now);
}
