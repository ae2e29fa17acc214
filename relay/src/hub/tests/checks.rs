//! The operator's moderator and its questions about stamps.

use std::sync::Arc;
use std::time::Duration;

use conclave_protocol::capability::Rights;
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::label;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::stamp::{Minute, Origin, SealPublic, StampKey};
use conclave_protocol::wire::codec::{Wire, Writer};
use conclave_protocol::wire::relay::{FromRelay, Refusal, StampCheck, StampVerdict, ToRelay};

use super::super::{Config, MISBEHAVED, NO_HELLO};
use super::world::{Room, World, exporter, refused};
use crate::core::ConnId;
use crate::moderator::tests::moderator;
use crate::stamps::StampKeys;

fn moderators_key() -> KeyPair {
    KeyPair::from_seed(&[0x4D; 32])
}

fn world() -> World {
    let stamp_keys = StampKeys::new(Arc::new(StampKey::new([1; 32])), [Arc::new(StampKey::new([2; 32]))]);
    let moderator = Some(moderator(moderators_key().public()));
    World::with_config(Config { stamp_keys, moderator, ..Config::default() })
}

/// A stamp that the key with this fill made.
fn check(fill: u8) -> StampCheck {
    let origin = Origin { meeting: MeetingId([8; 20]), slot: MemberIndex(3), rk: moderators_key().public() };
    let public = SealPublic { kid: 1 << 63 | 3 << 40, count: 25, root: [4; 32] };
    let stamp = StampKey::new([fill; 32]).stamp(&origin, Minute(5), &public);
    StampCheck { origin, public, stamp }
}

fn question(conn: ConnId, checks: Vec<StampCheck>) -> ToRelay {
    let mut encoded = Writer::default();
    encoded.list(&checks);
    let signature = moderators_key().sign(label::MODERATOR_REQUEST, &[&exporter(conn), &encoded.into_bytes()]);
    ToRelay::CheckStamps { signature, checks }
}

#[test]
fn the_moderator_is_told_of_each_stamp_and_may_ask_again() {
    let mut world = world();
    let conn = world.connect();
    let moved = StampCheck { origin: Origin { slot: MemberIndex(4), ..check(1).origin }, ..check(1) };
    let asked = question(conn, vec![check(1), moved, check(2), check(3)]);
    let verdicts = [StampVerdict::Genuine, StampVerdict::Forged, StampVerdict::Genuine, StampVerdict::UnknownKey];
    assert_eq!(world.ask(conn, &asked), [FromRelay::StampsChecked { verdicts: verdicts.to_vec() }]);
    let again = world.ask(conn, &question(conn, vec![check(2)]));
    assert_eq!(again, [FromRelay::StampsChecked { verdicts: vec![StampVerdict::Genuine] }]);
    assert_eq!(world.hub.stats().stamps_checked, 5);
    world.disconnect(conn);
}

#[test]
fn nobody_else_is_answered() {
    let mut world = world();
    let (other, replayed) = (world.connect(), world.connect());
    let elsewhere = question(other, vec![check(1)]);
    assert_eq!(world.ask(replayed, &elsewhere), refused(Refusal::NotAllowed));
    assert_eq!(world.closed[&replayed], NO_HELLO);
    let ToRelay::CheckStamps { signature, .. } = elsewhere else { panic!() };
    let changed = ToRelay::CheckStamps { signature, checks: vec![check(2)] };
    assert_eq!(world.ask(other, &changed), refused(Refusal::NotAllowed));
    assert_eq!(world.closed[&other], NO_HELLO);

    let mut without = World::new();
    let conn = without.connect();
    assert_eq!(without.ask(conn, &question(conn, vec![check(1)])), refused(Refusal::NotAllowed));
}

#[test]
fn a_member_cannot_ask_and_a_moderator_cannot_enter() {
    let mut world = world();
    let room = Room::new(1);
    let member = world.member(&room, 1, Rights::MEMBER);
    world.hush();
    assert_eq!(world.ask(member, &question(member, vec![check(1)])), refused(Refusal::NotAllowed));
    let conn = world.connect();
    world.ask(conn, &question(conn, vec![check(1)]));
    assert_eq!(world.ask(conn, &room.hello()), refused(Refusal::Malformed));
    assert_eq!(world.closed[&conn], MISBEHAVED);
}

#[test]
fn too_many_questions_are_refused_until_later() {
    let mut world = world();
    let conn = world.connect();
    for _ in 0..100 {
        assert!(matches!(world.ask(conn, &question(conn, vec![]))[..], [FromRelay::StampsChecked { .. }]));
    }
    assert_eq!(world.ask(conn, &question(conn, vec![])), refused(Refusal::TooFast));
    world.pass(Duration::from_millis(100));
    assert!(matches!(world.ask(conn, &question(conn, vec![]))[..], [FromRelay::StampsChecked { .. }]));
}

#[test]
fn everybody_is_told_who_the_moderator_is() {
    let mut world = world();
    let guest = world.guest(&Room::new(1));
    let expected = moderator(moderators_key().public());
    let [FromRelay::Welcome { takes_reports: false, moderator, .. }] = &world.heard(guest)[..] else { panic!() };
    assert_eq!(moderator, expected.encoded());
    let welcome = FromRelay::Welcome {
        time: world.wall(),
        region: "x".repeat(16),
        takes_reports: true,
        moderator: moderator.clone(),
    };
    assert_eq!(FromRelay::decode(&welcome.encode()), Ok(welcome));
}
