//! Who may connect: bounds on handshakes, connections and their rates. Pure: time comes in as an argument.
//!
//! An address is judged only after its owner has proved to receive at it, so that nobody can use up the share of
//! somebody else's network by forging it. Until then an attempt costs little and is bounded globally: above a bound
//! it is answered by a stateless Retry (RFC 9000 §8.1.2). Live connections are counted by network, which says no
//! more than the sockets' own table; what outlives a connection is kept under a salted hash whose salt is renewed
//! every [`SALT_LIFE`]. Nothing here is ever written or logged.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::bucket::{Bucket, PrefixBuckets, Rate};
use crate::core::PrefixToken;

/// How long one salt is used for [`PrefixToken`]s. Shorter forgets more, and lets a network begin with a full
/// allowance more often.
pub const SALT_LIFE: Duration = Duration::from_secs(600);

/// Domain of the hashes below.
const LABEL: &[u8] = b"conclave/1 relay prefix";

/// How many clients a relay takes, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, those in their handshake included.
    pub max_connections: u32,
    /// Connections at once from one network (IPv4 /24, IPv6 /56).
    pub max_per_prefix: u32,
    /// New connections per second from one network, in the long run.
    pub prefix_rate: u32,
    /// New connections from one network at once.
    pub prefix_burst: u32,
    /// Connections at once that haven't sent their first message.
    pub max_half_open: u32,
    /// New connections per second from addresses not proved, before Retry is asked for.
    pub unvalidated_rate: u32,
}

impl Default for Limits {
    /// `max_connections`: at 12 µs per forwarded frame, far beyond what one core carries while people talk.
    /// The figures per network leave room for a large office behind one address, all joining at once.
    /// `max_half_open`: a handshake is answered within a round trip, so honest newcomers never fill it; Retry begins
    /// at half of it.
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_prefix: 512,
            prefix_rate: 50,
            prefix_burst: 200,
            max_half_open: 1024,
            unvalidated_rate: 200,
        }
    }
}

/// Whether a client has shown that it receives at the address it sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// It has: the attempt carries our Retry token.
    Proved,
    /// It hasn't, and may be somebody else.
    Claimed,
}

/// What to do with a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Shake hands; [`Gate::handshake_over`] must follow.
    Accept,
    /// Answer with Retry.
    Retry,
    /// Refuse, for this reason.
    Refuse(Refusal),
}

/// Why a client isn't let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections or handshakes altogether.
    Full,
    /// Too many connections from this network.
    PrefixCount,
    /// Too many new connections from this network.
    PrefixRate,
}

/// The network part of an address: all that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(IpAddr);

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 72)).into(),
        })
    }
}

/// Decides who may connect. Its methods cost constant time.
pub struct Gate {
    limits: Limits,
    salt: [u8; 32],
    salted: Instant,
    half_open: u32,
    admitted: u32,
    live: HashMap<Prefix, u32>,
    unvalidated: Bucket,
    buckets: PrefixBuckets,
}

impl Gate {
    /// An empty gate. `salt` must be random; later salts are derived from it one way.
    #[must_use]
    pub fn new(limits: Limits, now: Instant, salt: [u8; 32]) -> Self {
        Self {
            limits,
            salt,
            salted: now,
            half_open: 0,
            admitted: 0,
            live: HashMap::new(),
            unvalidated: Bucket::default(),
            buckets: PrefixBuckets::new(),
        }
    }

    /// Judges a connection attempt; on [`Verdict::Accept`] it counts as half open.
    pub fn attempt(&mut self, now: Instant, prefix: Prefix, address: Address) -> Verdict {
        if address == Address::Claimed {
            // Validated clients must get in while forgeries arrive, so half of the room is theirs.
            let rate = Rate { per_second: self.limits.unvalidated_rate, burst: self.limits.unvalidated_rate };
            let crowded = self.half_open >= self.limits.max_half_open / 2;
            if crowded || !self.unvalidated.take(now, 1, rate) {
                return Verdict::Retry;
            }
        } else if self.live_in(prefix) >= self.limits.max_per_prefix {
            return Verdict::Refuse(Refusal::PrefixCount);
        }
        if self.half_open >= self.limits.max_half_open || self.is_full() {
            return Verdict::Refuse(Refusal::Full);
        }
        self.half_open += 1;
        Verdict::Accept
    }

    /// An accepted attempt has become a connection, or has failed: it isn't half open any more.
    pub fn handshake_over(&mut self) {
        self.half_open = self.half_open.saturating_sub(1);
    }

    /// Admits a client whose handshake has proved its address. [`Gate::release`] must follow when it goes.
    ///
    /// # Errors
    /// The [`Refusal`] that the client's network has earned.
    pub fn admit(&mut self, now: Instant, prefix: Prefix) -> Result<PrefixToken, Refusal> {
        if self.live_in(prefix) >= self.limits.max_per_prefix {
            return Err(Refusal::PrefixCount);
        }
        self.renew_salt(now);
        let token = self.token(prefix);
        let rate = Rate { per_second: self.limits.prefix_rate, burst: self.limits.prefix_burst };
        if !self.buckets.take(now, token, rate) {
            return Err(Refusal::PrefixRate);
        }
        *self.live.entry(prefix).or_insert(0) += 1;
        self.admitted += 1;
        Ok(token)
    }

    /// An admitted client has gone.
    pub fn release(&mut self, prefix: Prefix) {
        self.admitted = self.admitted.saturating_sub(1);
        if let Some(count) = self.live.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&prefix);
            }
        }
    }

    fn live_in(&self, prefix: Prefix) -> u32 {
        self.live.get(&prefix).copied().unwrap_or(0)
    }

    /// Whether another connection would be one too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.admitted.saturating_add(self.half_open) >= self.limits.max_connections
    }

    fn renew_salt(&mut self, now: Instant) {
        if now.saturating_duration_since(self.salted) < SALT_LIFE {
            return;
        }
        self.salt = Sha256::new().chain_update(LABEL).chain_update(b" salt").chain_update(self.salt).finalize().into();
        self.salted = now;
        self.buckets = PrefixBuckets::new();
    }

    fn token(&self, prefix: Prefix) -> PrefixToken {
        let hash = Sha256::new().chain_update(LABEL).chain_update(self.salt);
        let hash = match prefix.0 {
            IpAddr::V4(v4) => hash.chain_update(b"4").chain_update(v4.octets()),
            IpAddr::V6(v6) => hash.chain_update(b"6").chain_update(v6.octets()),
        };
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        PrefixToken(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_connections: 20,
        max_per_prefix: 6,
        prefix_rate: 2,
        prefix_burst: 4,
        max_half_open: 8,
        unvalidated_rate: 100,
    };

    fn gate() -> (Gate, Instant) {
        let now = Instant::now();
        (Gate::new(LIMITS, now, [7; 32]), now)
    }

    fn prefix(address: &str) -> Prefix {
        Prefix::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn neighbours_share_a_prefix_and_mapped_addresses_are_ipv4() {
        assert!(prefix("192.0.2.1") == prefix("192.0.2.200"));
        assert!(prefix("192.0.2.1") != prefix("192.0.3.1"));
        assert!(prefix("::ffff:192.0.2.9") == prefix("192.0.2.1"));
        assert!(prefix("2001:db8:0:11::1") == prefix("2001:db8:0:ff::2"));
        assert!(prefix("2001:db8:0:100::1") != prefix("2001:db8:0:ff::2"));
    }

    #[test]
    fn half_open_handshakes_bring_retry_and_then_refusal() {
        let (mut gate, now) = gate();
        let home = prefix("192.0.2.1");
        for _ in 0..4 {
            assert_eq!(gate.attempt(now, home, Address::Claimed), Verdict::Accept);
        }
        assert_eq!(gate.attempt(now, home, Address::Claimed), Verdict::Retry);
        for _ in 0..4 {
            assert_eq!(gate.attempt(now, home, Address::Proved), Verdict::Accept);
        }
        assert_eq!(gate.attempt(now, home, Address::Proved), Verdict::Refuse(Refusal::Full));
        gate.handshake_over();
        assert_eq!(gate.attempt(now, home, Address::Proved), Verdict::Accept);
    }

    #[test]
    fn too_many_unproved_attempts_per_second_bring_retry() {
        let (mut gate, now) = gate();
        let home = prefix("192.0.2.1");
        let mut accepted = 0;
        for _ in 0..150 {
            if gate.attempt(now, home, Address::Claimed) == Verdict::Accept {
                accepted += 1;
                gate.handshake_over();
            }
        }
        assert_eq!(accepted, LIMITS.unvalidated_rate);
    }

    #[test]
    fn forged_attempts_cost_the_forged_network_nothing() {
        let (mut gate, now) = gate();
        let victim = prefix("192.0.2.1");
        for _ in 0..100 {
            if gate.attempt(now, victim, Address::Claimed) == Verdict::Accept {
                gate.handshake_over();
            }
        }
        for _ in 0..LIMITS.prefix_burst {
            assert!(gate.admit(now, victim).is_ok());
        }
    }

    #[test]
    fn a_network_has_a_rate_and_a_count_and_others_are_not_touched() {
        let (mut gate, mut now) = gate();
        let (home, other) = (prefix("192.0.2.1"), prefix("2001:db8::1"));
        for _ in 0..4 {
            assert!(gate.admit(now, home).is_ok());
        }
        assert_eq!(gate.admit(now, home).err(), Some(Refusal::PrefixRate));
        assert!(gate.admit(now, other).is_ok());
        now += Duration::from_secs(10);
        assert!(gate.admit(now, home).is_ok());
        assert!(gate.admit(now, home).is_ok());
        assert_eq!(gate.admit(now, home).err(), Some(Refusal::PrefixCount));
        assert_eq!(gate.attempt(now, home, Address::Proved), Verdict::Refuse(Refusal::PrefixCount));
        gate.release(home);
        assert!(gate.admit(now, home).is_ok());
    }

    #[test]
    fn the_whole_relay_has_a_bound() {
        let (mut gate, now) = gate();
        for network in 0..LIMITS.max_connections {
            assert!(gate.admit(now, prefix(&format!("198.51.{network}.1"))).is_ok());
        }
        assert_eq!(gate.attempt(now, prefix("192.0.2.1"), Address::Proved), Verdict::Refuse(Refusal::Full));
        gate.release(prefix("198.51.0.1"));
        assert_eq!(gate.attempt(now, prefix("192.0.2.1"), Address::Proved), Verdict::Accept);
    }

    #[test]
    fn tokens_are_stable_for_the_life_of_a_salt_and_no_longer() {
        let (mut gate, now) = gate();
        let first = gate.admit(now, prefix("192.0.2.1")).unwrap();
        assert!(gate.admit(now + SALT_LIFE / 2, prefix("192.0.2.77")).unwrap() == first);
        assert!(gate.admit(now + SALT_LIFE, prefix("192.0.2.1")).unwrap() != first);
    }

    #[test]
    fn what_is_released_is_forgotten() {
        let (mut gate, now) = gate();
        gate.admit(now, prefix("192.0.2.1")).unwrap();
        gate.release(prefix("192.0.2.1"));
        assert!(gate.live.is_empty());
    }
}
