//! When a client asks QUIC for a sign of life.
//!
//! While media packets come, the relay is there, and who hears none asks by one of its own ([`super::ClientPath`]). Where they
//! don't get through it asks by an empty datagram (`docs/protocol.md` §6.5), which has to be acknowledged. QUIC's own keep-alive
//! ([`crate::transport::KEEP_ALIVE`]) sees no media packets: as often as this it would be a packet and an acknowledgement of
//! every client twice a second for nothing.

use std::time::{Duration, Instant};

use super::QUIET;

/// How often one looks. So much later than [`QUIET`] the question may leave.
const LOOK: Duration = Duration::from_millis(125);
/// After how long it asks again. QUIC repeats what gets lost, too.
const AGAIN: Duration = Duration::from_millis(250);

/// Watches what comes from a relay, on whatever way.
#[derive(Debug)]
pub struct Quiet {
    received: u64,
    /// When to ask, if nothing comes.
    ask_at: Instant,
    look_at: Instant,
}

impl Quiet {
    /// Watches from now on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { received: 0, ask_at: now + QUIET, look_at: now + LOOK }
    }

    /// When to look.
    #[must_use]
    pub fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Looks, if it is time: so many packets have come so far. Whether to ask for a sign of life.
    #[must_use]
    pub fn look(&mut self, now: Instant, received: impl FnOnce() -> u64) -> bool {
        if now < self.look_at {
            return false;
        }
        let received = received();
        let has_come = std::mem::replace(&mut self.received, received) != received;
        let asks = !has_come && now >= self.ask_at;
        if has_come || asks {
            self.ask_at = now + if has_come { QUIET } else { AGAIN };
        }
        self.look_at = now + LOOK;
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it asks within two seconds, in ms, if packets come at these times.
    fn asks(packets: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let mut quiet = Quiet::new(start);
        let is_asked = |at: &u64| {
            let received = packets.iter().filter(|packet| *packet < at).count() as u64;
            quiet.look(start + Duration::from_millis(*at), || received)
        };
        (0..2_000).filter(is_asked).collect()
    }

    #[test]
    fn silence_is_asked_about_and_asked_about_again() {
        assert_eq!(asks(&[]), [500, 750, 1_000, 1_250, 1_500, 1_750]);
        assert_eq!(asks(&[10, 620]), [1_125, 1_375, 1_625, 1_875], "looks at 125 and 625 have seen something");
    }

    #[test]
    fn who_hears_something_now_and_then_asks_nothing() {
        assert_eq!(asks(&[400, 800, 1_200, 1_600]), [0; 0]);
    }
}
