//! Reports, from their announcement to the answer.

use std::time::Duration;

use conclave_protocol::capability::{Rights, SignedCapability};
use conclave_protocol::sign::Signature;
use conclave_protocol::wire::relay::{
    FromRelay, MAX_REPORT, MAX_REPORT_PART, Receipt, ReportId, ReportRefusal, ToRelay,
};
use sha2::{Digest, Sha256};

use super::super::reports::{PAST, PATIENCE, REMEMBERED};
use super::super::{Config, Limits};
use super::world::{Room, VALIDITY, World, attached, exporter, frame, rk};
use crate::core::{ConnId, Core, Delivery};

fn world() -> World {
    World::with_config(Config { takes_reports: true, ..Config::default() })
}

/// A report that no other test has.
#[derive(Clone)]
struct Report {
    id: ReportId,
    bytes: Vec<u8>,
}

fn report(n: u64, length: usize) -> Report {
    let mut id = [0x1D; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let mut bytes = vec![0x5E; length];
    for (byte, of) in bytes.iter_mut().zip(n.to_be_bytes()) {
        *byte = of;
    }
    Report { id: ReportId(id), bytes }
}

impl Report {
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.bytes).into()
    }

    fn receipt(&self) -> Receipt {
        Receipt(self.digest()[..10].try_into().unwrap())
    }

    fn announced(&self, past: Option<(SignedCapability, Signature)>) -> ToRelay {
        ToRelay::Report { id: self.id, length: self.bytes.len() as u32, digest: self.digest(), past }
    }

    fn parts(&self) -> impl Iterator<Item = ToRelay> {
        let part = |bytes: &[u8]| ToRelay::ReportPart { id: self.id, bytes: bytes.to_vec() };
        self.bytes.chunks(MAX_REPORT_PART).map(part)
    }

    fn taken(&self) -> Vec<FromRelay> {
        vec![FromRelay::ReportTaken { id: self.id, receipt: self.receipt() }]
    }

    fn refused(&self, reason: ReportRefusal) -> Vec<FromRelay> {
        vec![FromRelay::ReportRefused { id: self.id, reason }]
    }
}

fn send(world: &mut World, conn: ConnId, report: &Report) {
    world.say(conn, &report.announced(None));
    report.parts().for_each(|part| world.say(conn, &part));
}

/// A capability as somebody shows it who has no slot any more.
fn shown(conn: ConnId, signed: SignedCapability) -> Option<(SignedCapability, Signature)> {
    Some((signed, signed.prove(&rk(signed.claimed.slot.0), &exporter(conn))))
}

fn member(world: &mut World, slot: u16) -> ConnId {
    let conn = world.member(&Room::new(1), slot, Rights::MEMBER);
    world.hush();
    conn
}

#[test]
fn a_members_report_is_taken_when_the_sink_has_it_and_no_sooner() {
    let mut world = world();
    let conn = member(&mut world, 1);
    for (n, length) in [1, MAX_REPORT_PART, MAX_REPORT_PART + 1, 65_536, MAX_REPORT].into_iter().enumerate() {
        let report = report(n as u64, length);
        send(&mut world, conn, &report);
        assert!(world.heard(conn).is_empty());
        assert_eq!(world.reports[0].1, report.receipt());
        assert_eq!(world.deliver(Delivery::Taken), report.bytes);
        assert_eq!(world.heard(conn), report.taken());
    }
    let stats = world.hub.stats();
    assert_eq!((stats.reports_taken, stats.reports_now, stats.report_bytes_now), (5, 0, 0));
}

#[test]
fn a_relay_without_a_sink_says_so_at_once() {
    let mut world = World::new();
    let conn = member(&mut world, 1);
    let report = report(1, 100);
    assert_eq!(world.ask(conn, &report.announced(None)), report.refused(ReportRefusal::NoSink));
    // What was under way already is passed over.
    report.parts().for_each(|part| world.say(conn, &part));
    assert!(world.heard(conn).is_empty() && world.reports.is_empty());
    assert_eq!(world.hub.stats().report_parts_stray, 1);
}

#[test]
fn a_report_that_the_sink_fails_is_refused_and_may_come_again() {
    let mut world = world();
    let conn = member(&mut world, 1);
    let report = report(1, 20_000);
    send(&mut world, conn, &report);
    world.deliver(Delivery::Failed);
    assert_eq!(world.heard(conn), report.refused(ReportRefusal::Unavailable));
    send(&mut world, conn, &report);
    world.deliver(Delivery::Taken);
    assert_eq!(world.heard(conn), report.taken());
}

#[test]
fn a_report_that_was_taken_is_acknowledged_again_and_not_kept_twice() {
    let mut world = world();
    let room = Room::new(1);
    let conn = world.member(&room, 1, Rights::MEMBER);
    let report = report(1, 20_000);
    send(&mut world, conn, &report);
    // The answer finds nobody.
    world.disconnect(conn);
    world.deliver(Delivery::Taken);
    let again = member(&mut world, 1);
    send(&mut world, again, &report);
    assert_eq!(world.heard(again), report.taken());
    assert!(world.reports.is_empty());
    // Another report under the same id is another report.
    let other = Report { bytes: vec![1; 20_000], ..report.clone() };
    assert!(world.ask(again, &other.announced(None)).is_empty());
    world.pass(REMEMBERED);
    let later = member(&mut world, 1);
    send(&mut world, later, &report);
    assert_eq!(world.reports.len(), 1);
}

#[test]
fn bytes_that_are_not_what_was_announced_are_refused() {
    let mut world = world();
    let conn = member(&mut world, 1);
    let whole = report(1, 20_000);
    world.say(conn, &whole.announced(None));
    let mut changed = whole.clone();
    changed.bytes[19_999] ^= 1;
    changed.parts().for_each(|part| world.say(conn, &part));
    assert_eq!(world.heard(conn), whole.refused(ReportRefusal::Damaged));
    let long = report(2, 20_001);
    world.say(conn, &ToRelay::Report { id: long.id, length: 20_000, digest: long.digest(), past: None });
    long.parts().for_each(|part| world.say(conn, &part));
    assert_eq!(world.heard(conn), long.refused(ReportRefusal::Damaged));
    let nothing = report(3, 0);
    assert_eq!(world.ask(conn, &nothing.announced(None)), nothing.refused(ReportRefusal::Damaged));
    assert!(world.reports.is_empty());
    assert_eq!(world.hub.stats().report_bytes_now, 0);
}

#[test]
fn too_long_a_report_is_refused_before_it_comes() {
    let mut world = world();
    let conn = member(&mut world, 1);
    let Report { id, .. } = report(1, 0);
    let announced = ToRelay::Report { id, length: MAX_REPORT as u32 + 1, digest: [0; 32], past: None };
    assert_eq!(world.ask(conn, &announced), [FromRelay::ReportRefused { id, reason: ReportRefusal::TooLong }]);
}

#[test]
fn whoever_has_left_or_was_removed_may_report_for_ten_minutes() {
    let room = Room::new(1);
    for is_revoked in [false, true] {
        for (after, is_allowed) in
            [(Duration::ZERO, true), (VALIDITY + PAST, true), (VALIDITY + PAST + Duration::from_millis(1), false)]
        {
            let mut world = world();
            let host = world.host(&room);
            let signed = world.signed(&room, 1, Rights::MEMBER, 1);
            if is_revoked {
                world.say(host, &ToRelay::Revoke { revoked: room.revoked(1, &[1]) });
            }
            world.pass(after);
            let conn = world.bearer(&room);
            world.hush();
            let report = report(1, 10_000);
            let announced = report.announced(shown(conn, signed));
            if is_allowed {
                world.say(conn, &announced);
                report.parts().for_each(|part| world.say(conn, &part));
                world.deliver(Delivery::Taken);
                assert_eq!(world.heard(conn), report.taken());
            } else {
                assert_eq!(world.ask(conn, &announced), report.refused(ReportRefusal::NotAllowed));
            }
        }
    }
}

#[test]
fn nobody_else_may_report() {
    let mut world = world();
    let (room, elsewhere) = (Room::new(1), Room::new(2));
    let (guest, bearer) = (world.guest(&room), world.bearer(&room));
    let stranger = world.bearer(&elsewhere);
    let signed = world.signed(&room, 1, Rights::MEMBER, 1);
    world.hush();
    let report = report(1, 100);
    let later = room.sign(room.capability(world.wall().plus(Duration::from_secs(31)), 1, Rights::MEMBER, 1));
    let forged = elsewhere.sign(room.capability(world.wall(), 1, Rights::MEMBER, 1));
    let of_another_connection = shown(guest, signed);
    for (conn, past) in [
        (guest, None),
        (bearer, None),
        (bearer, of_another_connection),
        (bearer, shown(bearer, later)),
        (bearer, shown(bearer, forged)),
        (stranger, shown(stranger, signed)),
    ] {
        assert_eq!(world.ask(conn, &report.announced(past)), report.refused(ReportRefusal::NotAllowed));
    }
    assert_eq!(world.hub.stats().reports_refused_not_allowed, 6);
}

#[test]
fn capabilities_are_not_tried_out_by_reports() {
    let mut world = world();
    let room = Room::new(1);
    let conn = world.bearer(&room);
    let signed = room.sign(room.capability(world.wall(), 1, Rights::MEMBER, 1));
    let forged = Some((signed, Signature([0; 64])));
    world.hush();
    let heard: Vec<_> = (0..20).flat_map(|n| world.ask(conn, &report(n, 100).announced(forged))).collect();
    let refused = |reason| {
        heard.iter().filter(|one| matches!(one, FromRelay::ReportRefused { reason: r, .. } if *r == reason)).count()
    };
    assert_eq!((refused(ReportRefusal::NotAllowed), refused(ReportRefusal::TooMany)), (8, 12));
}

#[test]
fn one_slot_and_one_connection_begin_six_reports_in_a_minute() {
    let mut world = world();
    let conn = member(&mut world, 1);
    for n in 0..6 {
        send(&mut world, conn, &report(n, 100));
        world.deliver(Delivery::Taken);
        world.pass(Duration::from_secs(1));
    }
    world.hush();
    let seventh = report(7, 100);
    assert_eq!(world.ask(conn, &seventh.announced(None)), seventh.refused(ReportRefusal::TooMany));
    // A new connection, and a new meeting at that, doesn't help.
    world.disconnect(conn);
    let again = member(&mut world, 1);
    assert_eq!(world.ask(again, &seventh.announced(None)), seventh.refused(ReportRefusal::TooMany));
    let other = member(&mut world, 2);
    assert!(world.ask(other, &report(8, 100).announced(None)).is_empty());
    world.pass(Duration::from_secs(54));
    assert!(world.ask(again, &seventh.announced(None)).is_empty());
}

#[test]
fn the_whole_relay_takes_no_more_than_its_number_in_any_minute_and_says_so_at_once() {
    let mut world = world();
    let rooms: Vec<_> = (1..=5).map(Room::new).collect();
    let mut taken = 0;
    for n in 0..1_200_u64 {
        let room = &rooms[n as usize % 5];
        let conn = world.member(room, (n / 5) as u16 % 90, Rights::MEMBER);
        world.hush();
        let report = report(n, 600);
        world.say(conn, &report.announced(None));
        let refused = world.heard(conn);
        if refused.is_empty() {
            report.parts().for_each(|part| world.say(conn, &part));
            assert_eq!(world.deliver(Delivery::Taken), report.bytes);
            assert_eq!(world.heard(conn), report.taken());
            taken += 1;
        } else {
            assert_eq!(refused, report.refused(ReportRefusal::TooMany));
        }
        world.disconnect(conn);
        world.pass(Duration::from_millis(40));
    }
    assert_eq!(taken, 1_000);
    let stats = world.hub.stats();
    assert_eq!((stats.reports_taken, stats.reports_refused_too_many), (1_000, 200));
}

#[test]
fn unfinished_reports_are_bounded_in_memory_and_one_at_a_time() {
    let limits = Limits { report_bytes: 100_000, ..Limits::default() };
    let mut world = World::with_config(Config { limits, takes_reports: true, ..Config::default() });
    let (one, two) = (member(&mut world, 1), member(&mut world, 2));
    let (first, second, third) = (report(1, 60_000), report(2, 60_000), report(3, 40_000));
    assert!(world.ask(one, &first.announced(None)).is_empty());
    assert_eq!(world.ask(two, &second.announced(None)), second.refused(ReportRefusal::TooMany));
    assert_eq!(world.ask(one, &third.announced(None)), third.refused(ReportRefusal::TooMany));
    assert!(world.ask(two, &third.announced(None)).is_empty());
    // One that begins anew takes its own room, and one that the sink is busy with is held still.
    assert!(world.ask(one, &first.announced(None)).is_empty());
    first.parts().for_each(|part| world.say(one, &part));
    assert_eq!(world.hub.stats().report_bytes_now, 100_000);
    assert_eq!(world.ask(one, &second.announced(None)), second.refused(ReportRefusal::TooMany));
    world.deliver(Delivery::Taken);
    world.hush();
    assert!(world.ask(one, &second.announced(None)).is_empty());
    // Who goes leaves nothing behind.
    world.disconnect(two);
    world.disconnect(one);
    assert_eq!(world.hub.stats().report_bytes_now, 0);
}

#[test]
fn a_report_without_progress_is_given_up_and_a_slow_one_is_not() {
    let mut world = world();
    let room = Room::new(1);
    let (idle, slow) = (member(&mut world, 1), member(&mut world, 2));
    let (first, second) = (report(1, 30_000), report(2, 30_000));
    world.say(idle, &first.announced(None));
    world.say(slow, &second.announced(None));
    let empty = ToRelay::ReportPart { id: first.id, bytes: Vec::new() };
    for part in second.parts() {
        world.pass(PATIENCE - Duration::from_millis(1));
        world.say(idle, &empty);
        world.say(slow, &part);
    }
    assert_eq!(world.heard(idle), first.refused(ReportRefusal::Damaged));
    world.deliver(Delivery::Taken);
    assert_eq!(world.heard(slow), second.taken());
    assert_eq!(world.hub.stats().reports_stalled, 1);
    // The slot is as good as before.
    world.say(slow, &super::world::attach(slow, world.signed(&room, 2, Rights::MEMBER, 2)));
    assert_eq!(world.heard(slow), [attached(2)]);
}

#[test]
fn a_sink_that_is_busy_holds_up_nothing_else() {
    let mut world = world();
    let (one, two) = (member(&mut world, 1), member(&mut world, 2));
    send(&mut world, one, &report(1, 500_000));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.datagram(one, &frame(1)), [two]);
    assert!(world.heard(one).is_empty(), "not answered before the sink has");
    world.deliver(Delivery::Taken);
    assert_eq!(world.heard(one).len(), 1);
}

#[test]
fn when_all_is_over_nothing_is_left() {
    let mut world = world();
    let conn = member(&mut world, 1);
    send(&mut world, conn, &report(1, 100));
    world.deliver(Delivery::Taken);
    world.disconnect(conn);
    assert!(world.hub.next_timeout().is_some());
    world.pass(REMEMBERED);
    assert_eq!(world.hub.next_timeout(), None);
}
