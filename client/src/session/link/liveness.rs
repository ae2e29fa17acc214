//! Whether the relay is still there, judged by what arrives. Pure: time and counts come in as arguments.
//!
//! A relay that is killed, or a path that is cut, says nothing; QUIC notices after its idle timeout of 15 s, which is
//! too long for a conversation. But a relay that lives is not silent for much longer than half a second: whoever hears nothing
//! asks ([`conclave_relay::media`]).

use std::time::{Duration, Instant};

/// Silence from which on the relay is suspected to be gone. Three questions or their answers have been lost by then; a
/// shorter limit would mistake hiccups of a radio link for an end, a longer one be heard by everybody.
pub(super) const SILENCE: Duration = Duration::from_millis(1_250);
/// The same for who only waits, and has nothing answered but such questions: on a path that loses every fifth packet all of
/// a second's get lost every minute, and whoever connects again knocks again. Nobody hears that one missing.
const SILENCE_WHILE_WAITING: Duration = Duration::from_secs(4);
/// How often one looks: by so much the suspicion comes late.
const CHECK: Duration = Duration::from_millis(125);
/// When one looks so late, it is this process that was stopped and not the relay that was silent: what arrived
/// meanwhile is still in the socket.
const STALL: Duration = Duration::from_millis(500);

/// What a look finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pulse {
    /// Something came since the last look.
    Heard,
    /// Nothing came, for no suspicious time.
    Quiet,
    /// Nothing came for [`SILENCE`] or longer; for [`SILENCE_WHILE_WAITING`] to who only waits.
    Silent,
}

/// Watches one connection.
pub(super) struct Liveness {
    /// The silence that is suspicious.
    silence: Duration,
    received: u64,
    heard: Instant,
    looked: Instant,
}

impl Liveness {
    /// Watches from now on a connection on which `received` datagrams have come so far.
    pub(super) fn new(now: Instant, received: u64) -> Self {
        Self { silence: SILENCE_WHILE_WAITING, received, heard: now, looked: now }
    }

    /// From now on this client waits only, or is in conversation.
    pub(super) fn expect_more(&mut self, is_member: bool) {
        self.silence = if is_member { SILENCE } else { SILENCE_WHILE_WAITING };
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Instant {
        self.looked + CHECK
    }

    /// When something came for the last time, to the accuracy of looking; what this process slept through is left out.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Looks: so many datagrams have come so far.
    pub(super) fn look(&mut self, now: Instant, received: u64) -> Pulse {
        let since = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        if std::mem::replace(&mut self.received, received) != received {
            self.heard = now;
            return Pulse::Heard;
        }
        if since >= STALL {
            self.heard += since;
        }
        if now.saturating_duration_since(self.heard) >= self.silence { Pulse::Silent } else { Pulse::Quiet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Watches a connection of a member.
    fn member(now: Instant, received: u64) -> Liveness {
        let mut liveness = Liveness::new(now, received);
        liveness.expect_more(true);
        liveness
    }

    /// Looks as often as it should until `until`; the time of the first suspicion.
    fn first_suspicion(liveness: &mut Liveness, until: Instant, received: u64) -> Option<Instant> {
        while liveness.next_look() <= until {
            let now = liveness.next_look();
            if liveness.look(now, received) == Pulse::Silent {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn silence_is_suspected_within_one_and_a_half_seconds() {
        let now = Instant::now();
        let mut liveness = member(now, 7);
        let suspected = first_suspicion(&mut liveness, now + SILENCE * 2, 7).unwrap().duration_since(now);
        assert!((SILENCE..=SILENCE + CHECK).contains(&suspected), "{suspected:?}");
        assert_eq!(liveness.heard(), now);
    }

    #[test]
    fn who_waits_is_patient() {
        let now = Instant::now();
        let mut liveness = Liveness::new(now, 7);
        assert_eq!(first_suspicion(&mut liveness, now + SILENCE_WHILE_WAITING - CHECK, 7), None);
        assert!(first_suspicion(&mut liveness, now + SILENCE_WHILE_WAITING + CHECK, 7).is_some());
    }

    #[test]
    fn one_datagram_a_second_is_enough() {
        let mut now = Instant::now();
        let mut liveness = member(now, 0);
        for received in 1..100 {
            now += Duration::from_secs(1);
            assert_eq!(first_suspicion(&mut liveness, now, received), None);
        }
    }

    #[test]
    fn what_comes_after_a_suspicion_takes_it_back() {
        let now = Instant::now();
        let mut liveness = member(now, 0);
        let suspected = first_suspicion(&mut liveness, now + SILENCE * 2, 0).unwrap();
        let later = suspected + CHECK;
        assert_eq!(liveness.look(later, 1), Pulse::Heard);
        assert_eq!(first_suspicion(&mut liveness, later + SILENCE - CHECK, 1), None);
    }

    #[test]
    fn a_process_that_was_stopped_suspects_nobody_at_once() {
        let now = Instant::now();
        let mut liveness = member(now, 3);
        assert_eq!(first_suspicion(&mut liveness, now + SILENCE / 2, 3), None);
        // Stopped for 20 s, and woken before the socket was read.
        let woken = now + Duration::from_secs(20);
        assert_eq!(liveness.look(woken, 3), Pulse::Quiet);
        // Silence from before counts on.
        assert!(first_suspicion(&mut liveness, woken + SILENCE / 2 + CHECK * 2, 3).is_some());
    }
}
