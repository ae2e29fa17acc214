//! Random sequences of honest acts, dishonest ones and garbage: nothing panics, everything stays within its bounds, who
//! leads has the right to and guests know who it is (the [`World`] checks it after every call), and media reaches members
//! only.

use std::time::Duration;

use conclave_protocol::capability::{Revoked, Rights};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::succession::Line;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{EVERYBODY, KnockTokenBytes, MailboxId, ToRelay};
use proptest::prelude::*;

use super::super::{Limits, Rate};
use super::world::{Room, World, attach, frame, removal_notice};
use crate::core::ConnId;

/// Small enough that random sequences meet every bound.
const TIGHT: Limits = Limits {
    max_connections: 12,
    max_meetings: 1,
    max_members: 4,
    max_waiting: 3,
    max_unattached: 3,
    max_mailboxes: 2,
    max_presences: 2,
    max_wrong_tokens: 2,
    max_malformed: 3,
    datagrams: Rate { per_second: 100, burst: 5 },
    seals: Rate { per_second: 2, burst: 2 },
    member_messages: Rate { per_second: 5, burst: 3 },
    member_bytes: Rate { per_second: 1000, burst: 20_000 },
    leader_messages: Rate { per_second: 50, burst: 10 },
    leader_bytes: Rate { per_second: 10_000, burst: 40_000 },
    guest_messages: Rate { per_second: 40, burst: 60 },
    guest_mail: Rate { per_second: 1, burst: 3 },
    meeting_mail: Rate { per_second: 2, burst: 4 },
    prefix_tokens: Rate { per_second: 2, burst: 6 },
    attaches: Rate { per_second: 1, burst: 5 },
    acts: Rate { per_second: 1, burst: 5 },
};

#[derive(Clone, Debug)]
struct Step {
    act: u8,
    /// Picks a connection.
    who: usize,
    /// Picks the details.
    detail: u16,
    bytes: Vec<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    (0_u8..32, any::<usize>(), any::<u16>(), bytes).prop_map(|(act, who, detail, bytes)| Step {
        act,
        who,
        detail,
        bytes,
    })
}

/// The message of a step, which may be honest or not.
fn message(world: &World, rooms: &[Room; 2], conn: ConnId, step: &Step) -> ToRelay {
    let detail = step.detail;
    let room = &rooms[usize::from(detail.is_multiple_of(8))];
    let slot = (detail >> 4) % 6;
    let bytes = step.bytes.repeat(1 + usize::from(detail % 19));
    match step.act {
        0 if detail.is_multiple_of(3) => room.guest_hello(),
        0 => hello(world, room, detail),
        1 | 2 | 27.. => capability(world, rooms, conn, detail),
        3 => room.knock(),
        4 => ToRelay::OpenMailbox { token: KnockTokenBytes([step.bytes.first().copied().unwrap_or(0); 32]) },
        5 | 6 => ToRelay::Mail { bytes },
        7 => {
            let mailbox = world.hub.meetings.values().flat_map(|meeting| meeting.mailboxes.keys()).next();
            let mailbox = mailbox.copied().unwrap_or(MailboxId(u32::from(detail)));
            if detail.is_multiple_of(3) {
                ToRelay::CloseMailbox { mailbox }
            } else {
                ToRelay::MailTo { mailbox, bytes }
            }
        }
        8 | 9 => ToRelay::Send { to: if detail.is_multiple_of(2) { EVERYBODY } else { MemberIndex(slot) }, bytes },
        10 => ToRelay::Revoke { revoked: revoked(room, detail) },
        11 => ToRelay::Line { line: line(world, room, detail) },
        _ if detail.is_multiple_of(5) => room.gate_by(1, u32::from(detail % 3), &room.token),
        _ => room.gate(u32::from(detail % 3)),
    }
}

/// A Hello with D, and often with a line and a revocation.
fn hello(world: &World, room: &Room, detail: u16) -> ToRelay {
    let line = (!detail.is_multiple_of(3)).then(|| line(world, room, detail / 3));
    room.hello_of(line, detail.is_multiple_of(5).then(|| revoked(room, detail / 4)))
}

/// A line with two co-hosts or fewer, as often as not a newer one.
fn line(world: &World, room: &Room, detail: u16) -> Line {
    let slots: &[u16] = match detail % 5 {
        0 => &[],
        1 => &[1],
        2 => &[2, 1],
        _ => &[1, 2],
    };
    let known = world.hub.meetings.get(&room.id).and_then(|meeting| meeting.line.as_ref());
    let known = known.map_or(0, |line| line.seq);
    room.line(known.saturating_sub(1) + u32::from(detail % 4), slots)
}

/// A revocation by the host or a co-host.
fn revoked(room: &Room, detail: u16) -> Revoked {
    let (slot, seq) = ((detail >> 4) % 6, u32::from(detail % 7));
    match detail % 6 {
        0 => room.revoked_by(1, seq, &[slot]),
        1 => room.revoked_by(2, seq, &[slot, 3]),
        _ => room.revoked(seq, &[slot, slot, 3]),
    }
}

/// A capability and its proof, mostly in order.
fn capability(world: &World, rooms: &[Room; 2], conn: ConnId, detail: u16) -> ToRelay {
    let slot = (detail >> 4) % 5;
    let rights = if slot < 3 && !detail.is_multiple_of(5) { Rights::LEADER } else { Rights::MEMBER };
    let room = &rooms[usize::from(detail.is_multiple_of(8))];
    let mut capability = room.capability(world.wall(), slot, rights, u32::from(detail % 4));
    capability.signer = MemberIndex(match detail % 7 {
        0 => 0,
        1 => 1,
        _ if rights.may_lead() => slot,
        _ => 0,
    });
    if detail.is_multiple_of(11) {
        capability.not_after = capability.not_before.minus(Duration::from_secs(100));
    }
    let prover = if detail.is_multiple_of(13) { ConnId(0) } else { conn };
    attach(prover, rooms[usize::from(detail.is_multiple_of(8) != detail.is_multiple_of(17))].sign(capability))
}

fn arrive(world: &mut World, rooms: &[Room; 2], detail: u16) -> ConnId {
    let room = &rooms[usize::from(detail.is_multiple_of(8))];
    let conn = world.connect();
    match detail % 7 {
        0 => {}
        1 => world.say(conn, &room.guest_hello()),
        2 => {
            world.say(conn, &room.guest_hello());
            world.say(conn, &room.knock());
        }
        _ => {
            let hello = hello(world, room, detail / 7);
            world.say(conn, &hello);
            let message = capability(world, rooms, conn, detail);
            world.say(conn, &message);
        }
    }
    conn
}

fn take(world: &mut World, rooms: &[Room; 2], conns: &mut Vec<ConnId>, step: &Step) {
    if conns.is_empty() || (matches!(step.act, 23..=26) && conns.len() < 14) {
        conns.push(arrive(world, rooms, step.detail));
        return;
    }
    let conn = speaker(world, rooms, conns, step);
    match step.act {
        13 => world.say_bytes(conn, &step.bytes),
        14 => {
            let intact = Step { act: (step.detail % 13) as u8, ..step.clone() };
            let mut bytes = message(world, rooms, conn, &intact).encode();
            let position = step.who % bytes.len();
            bytes[position] ^= 1 << (step.detail % 8);
            bytes.truncate(bytes.len() - usize::from(step.detail.is_multiple_of(5)));
            world.say_bytes(conn, &bytes);
        }
        15..=19 => {
            // Several, so that the bucket runs dry.
            for _ in 0..step.detail % 9 {
                talk(world, rooms, conn, step);
            }
        }
        20 => {
            world.disconnect(conn);
            conns.retain(|other| *other != conn);
        }
        21..=26 => world.pass(Duration::from_millis(u64::from(step.detail))),
        _ => {
            let message = message(world, rooms, conn, step);
            world.say(conn, &message);
        }
    }
}

/// Any connection; for what leaders do, mostly one that holds a slot.
fn speaker(world: &World, rooms: &[Room; 2], conns: &[ConnId], step: &Step) -> ConnId {
    let attached: Vec<_> = rooms.iter().flat_map(|room| world.hub.attached(room.id)).map(|(_, conn)| conn).collect();
    let for_members = matches!(step.act, 7..=12 | 15..=19) && !step.detail.is_multiple_of(4);
    let among = if for_members && !attached.is_empty() { &attached } else { conns };
    among[step.who % among.len()]
}

fn talk(world: &mut World, rooms: &[Room; 2], conn: ConnId, step: &Step) {
    let own = rooms.iter().flat_map(|room| world.hub.attached(room.id)).find(|(_, holder)| *holder == conn);
    let slot = own.map_or(step.detail % 6, |(slot, _)| slot.0);
    let bytes = match step.detail % 4 {
        0 => removal_notice(slot),
        1 => step.bytes.clone(),
        _ => frame(slot),
    };
    let to = world.datagram(conn, &bytes);
    let room = rooms.iter().find(|room| world.hub.attached(room.id).any(|(_, holder)| holder == conn));
    let members: Vec<_> = room.into_iter().flat_map(|room| world.hub.attached(room.id)).map(|(_, conn)| conn).collect();
    assert!(to.iter().all(|listener| members.contains(listener)));
    assert!(to.is_empty() || (own.is_some() && to.len() + 1 == members.len()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_and_garbage_breaks_the_hub(steps in proptest::collection::vec(step(), 1..300)) {
        let rooms = [Room::new(1), Room::new(2)];
        let mut world = World::with_limits(TIGHT);
        let mut conns = Vec::new();
        for step in &steps {
            take(&mut world, &rooms, &mut conns, step);
        }
        for conn in conns {
            world.disconnect(conn);
        }
        prop_assert!(world.hub.meetings.is_empty() && world.hub.clients.is_empty());
        prop_assert_eq!(world.hub.described, 0);
    }
}
