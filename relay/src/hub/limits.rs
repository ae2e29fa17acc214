//! The hub's bounds, and the token buckets that enforce the rates among them. Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use crate::core::PrefixToken;

/// What a bucket gives: so many units at once, refilled at so many per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per second in the long run; 0 gives nothing at all.
    pub per_second: u32,
    /// Units at once.
    pub burst: u32,
}

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
    /// Revocations and gates of one leader; each costs a signature check.
    pub acts: Rate,
}

impl Default for Limits {
    /// Connections: as many as [`crate::gate::Limits`] lets in. Members: twice the 1,000 that the design is for.
    /// Datagrams: 100 frames of 10 ms per second, with room for a clock that runs fast; the burst covers a radio link
    /// that was silent for 300 ms. Seals: one per segment of half a second, and one per second more for the segments that
    /// a removal cuts short and for clocks that run fast. Leaders: one record to each of 1,000 members, several times per second. Mail: a
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
            acts: Rate { per_second: 50, burst: 200 },
        }
    }
}

/// A token bucket, kept as the time at which it is full again (the "generic cell rate algorithm"): `None` is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `units`, if there are that many; otherwise none.
    pub(super) fn take(&mut self, now: Instant, units: usize, rate: Rate) -> bool {
        let (Some(cost), Some(room)) = (refill_time(units, rate), refill_time(rate.burst as usize, rate)) else {
            return false;
        };
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + cost;
        if full_at.duration_since(now) > room {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}

/// How long a bucket takes to regain `units`; `None` when it never does.
fn refill_time(units: usize, rate: Rate) -> Option<Duration> {
    let nanos = u64::try_from(units).ok()?.checked_mul(1_000_000_000)?;
    nanos.checked_div(u64::from(rate.per_second)).map(Duration::from_nanos)
}

/// A bucket for every network, in memory of a fixed size. Two networks that meet in one cell share its allowance.
pub(super) struct PrefixBuckets {
    cells: Box<[Bucket]>,
}

impl PrefixBuckets {
    /// 64 KiB; fewer make more networks share.
    const CELLS: usize = 4_096;

    pub(super) fn new() -> Self {
        Self { cells: vec![Bucket::default(); Self::CELLS].into_boxed_slice() }
    }

    /// Takes one unit of the network's allowance.
    pub(super) fn take(&mut self, now: Instant, prefix: PrefixToken, rate: Rate) -> bool {
        // The remainder is below CELLS, so it fits.
        let cell = usize::try_from(prefix.0 % Self::CELLS as u64).unwrap_or(0);
        self.cells.get_mut(cell).is_some_and(|bucket| bucket.take(now, 1, rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut now = Instant::now();
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 5);
        now += Duration::from_millis(300);
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 3);
        now += Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(now, 1, RATE)).count(), 5);
    }

    #[test]
    fn a_bucket_gives_all_units_or_none() {
        let now = Instant::now();
        let mut bucket = Bucket::default();
        assert!(!bucket.take(now, 6, RATE));
        assert!(bucket.take(now, 4, RATE));
        assert!(!bucket.take(now, 2, RATE));
        assert!(bucket.take(now, 1, RATE));
    }

    #[test]
    fn a_rate_of_nothing_gives_nothing() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(Instant::now(), 1, Rate { per_second: 0, burst: 5 }));
        assert!(!bucket.take(Instant::now(), usize::MAX, Rate { per_second: 1, burst: u32::MAX }));
    }

    #[test]
    fn one_network_cannot_use_up_the_allowance_of_another() {
        let now = Instant::now();
        let mut buckets = PrefixBuckets::new();
        assert_eq!((0..100).filter(|_| buckets.take(now, PrefixToken(1), RATE)).count(), 5);
        assert!(buckets.take(now, PrefixToken(2), RATE));
    }
}
