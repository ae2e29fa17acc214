//! The hub's bounds.

use crate::bucket::Rate;

/// Bounds of a [`super::Hub`]. What it holds in memory is bounded by them: a few hundred bytes per connection, and
/// per meeting a descriptor (0.5 KiB), a revocation (2 KiB), a line (0.6 KiB), a gate and what its connections cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections past their Hello, over all meetings. Each meeting has one at least, so this bounds meetings too.
    pub max_connections: usize,
    /// Meetings whose descriptor is known. Those that guests merely wait for don't count: what a guest hears must not
    /// depend on whether its meeting is among them.
    pub max_meetings: usize,
    /// Members of one meeting, for descriptors that allow more.
    pub max_members: usize,
    /// Guests of one meeting that have no mailbox. Others are refused.
    pub max_waiting: usize,
    /// Clients of one meeting that know its descriptor and have neither slot nor mailbox. The oldest makes room,
    /// so that nobody who only waits can keep out a host.
    pub max_unattached: usize,
    /// Open mailboxes of one meeting.
    pub max_mailboxes: usize,
    /// Presences that a newcomer is told, lowest slots first.
    pub max_presences: usize,
    /// Wrong knock tokens of one connection, after which it is closed.
    pub max_wrong_tokens: u8,
    /// Malformed messages of one connection, after which it is closed.
    pub max_malformed: u8,
    /// Datagrams of one slot.
    pub datagrams: Rate,
    /// Seals of one slot. What is beyond is dropped and counted.
    pub seals: Rate,
    /// Messages of one plain member.
    pub member_messages: Rate,
    /// Bytes in messages of one plain member.
    pub member_bytes: Rate,
    /// Messages of one leader, mail included.
    pub leader_messages: Rate,
    /// Bytes in messages of one leader.
    pub leader_bytes: Rate,
    /// Messages of one client without a slot, whatever they are. What is beyond is passed over without an answer.
    pub guest_messages: Rate,
    /// Mail of one guest.
    pub guest_mail: Rate,
    /// Mail of all guests of one meeting.
    pub meeting_mail: Rate,
    /// Knock tokens shown from one network.
    pub prefix_tokens: Rate,
    /// Capabilities and lines shown on one connection; each costs up to two signature checks.
    pub attaches: Rate,
    /// Questions about stamps on one connection; each costs a signature check and up to 80 authenticators.
    pub stamp_checks: Rate,
    /// Reports begun in any minute, over all meetings.
    pub reports_per_minute: u32,
    /// Reports begun in any minute by one slot, and on one connection.
    pub reports_of_one_per_minute: u32,
    /// Bytes of all reports that are arriving or that the sink is busy with, as announced.
    pub report_bytes: usize,
    /// Revocations and gates of one leader; each costs a signature check.
    pub acts: Rate,
}

impl Default for Limits {
    /// Connections: as many as [`crate::gate::Limits`] lets in. Members: twice the 1,000 that the design is for.
    /// Datagrams: 100 frames of 10 ms per second, with room for a clock that runs fast; the burst covers a radio link
    /// that was silent for 300 ms. Seals: one per segment of half a second, and one per second more for the segments that
    /// a removal cuts short and for clocks that run fast. Leaders: one record to each of 1,000 members, several times per second. Stamp checks: a
    /// moderator with a hundred reports, one question each. Reports: as many at once as a minute's are, of the size
    /// that they commonly have (64 KiB); one person has no use for more than a handful. Mail: a
    /// join handshake is four short messages. Presences: half of what the shell queues for one client. Prefixes: a
    /// large office behind one address, all joining at once. Attaches: a renewal every minute, and reconnections. Acts:
    /// a hundred members who leave within seconds, one revocation each.
    fn default() -> Self {
        const KIB: u32 = 1024;
        const MIB: u32 = 1024 * KIB;
        Self {
            max_connections: 10_000,
            max_meetings: 4_096,
            max_members: 2_048,
            max_waiting: 1_024,
            max_unattached: 1_024,
            max_mailboxes: 256,
            max_presences: 256,
            max_wrong_tokens: 5,
            max_malformed: 3,
            datagrams: Rate { per_second: 120, burst: 30 },
            seals: Rate { per_second: 3, burst: 16 },
            member_messages: Rate { per_second: 50, burst: 200 },
            member_bytes: Rate { per_second: 256 * KIB, burst: MIB },
            leader_messages: Rate { per_second: 4_000, burst: 8_000 },
            leader_bytes: Rate { per_second: 16 * MIB, burst: 32 * MIB },
            guest_messages: Rate { per_second: 50, burst: 200 },
            guest_mail: Rate { per_second: 4, burst: 16 },
            meeting_mail: Rate { per_second: 200, burst: 400 },
            prefix_tokens: Rate { per_second: 50, burst: 512 },
            attaches: Rate { per_second: 1, burst: 8 },
            stamp_checks: Rate { per_second: 20, burst: 100 },
            reports_per_minute: 1_000,
            reports_of_one_per_minute: 6,
            report_bytes: 64 * 1024 * 1024,
            acts: Rate { per_second: 50, burst: 200 },
        }
    }
}
