//! A member as the leader sees it: its session, its capability, and whether it is there.

use std::time::{Duration, Instant};

use super::outbox::Step;
use crate::capability::{Capability, Rights};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::noise::session::{Session, SessionError};
use crate::sign::{KeyPair, PublicKey};
use crate::time::UnixMillis;
use crate::wire::control::Message;
use crate::wire::relay::MailboxId;

/// How long a capability is valid: below the allowed 120 s, so that clocks may differ a little.
const VALIDITY: Duration = Duration::from_secs(110);
/// When it is renewed: two renewals may be lost before it runs out.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(35);
/// How long a member may be away before it is removed as lost (DESIGN §12).
const AWAY: Duration = Duration::from_secs(60);

/// How the leader reaches a member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Not attached yet.
    Mailbox(MailboxId),
    /// By its slot.
    Slot,
}

/// One member of the leader's.
pub(super) struct Peer {
    index: MemberIndex,
    session: Session,
    identity: PublicKey,
    routing: PublicKey,
    path: Path,
    away_since: Option<Instant>,
    /// The newest epoch acknowledged, and the commitment that came with it.
    acknowledged: Option<(Epoch, [u8; 32])>,
    serial: u32,
    renew_due: Instant,
    /// Relay time until which the last capability is valid.
    pub(super) capability_until: UnixMillis,
}

impl Peer {
    pub(super) fn new(
        now: Instant,
        index: MemberIndex,
        session: Session,
        identity: PublicKey,
        routing: PublicKey,
        mailbox: MailboxId,
    ) -> Self {
        Self {
            index,
            session,
            identity,
            routing,
            path: Path::Mailbox(mailbox),
            away_since: Some(now),
            acknowledged: None,
            serial: 0,
            renew_due: now + RENEW_EVERY,
            capability_until: UnixMillis(0),
        }
    }

    pub(super) fn identity(&self) -> &PublicKey {
        &self.identity
    }

    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Sends a message; `false` when the peer has acknowledged nothing for too long.
    pub(super) fn send(&mut self, step: &mut Step<'_>, message: &Message) -> bool {
        match self.session.send(step.now, message) {
            Ok(packet) => self.transmit(step, packet),
            Err(_) => return false,
        }
        true
    }

    fn transmit(&self, step: &mut Step<'_>, packet: Vec<u8>) {
        match self.path {
            Path::Mailbox(mailbox) => step.out.mail_to(mailbox, packet),
            Path::Slot => step.out.send(self.index, packet),
        }
    }

    /// The next capability of this member.
    pub(super) fn next_capability(
        &mut self,
        step: &Step<'_>,
        meeting: MeetingId,
        authority: &KeyPair,
    ) -> crate::capability::SignedCapability {
        self.serial = self.serial.wrapping_add(1);
        self.renew_due = step.now + RENEW_EVERY;
        let rights = Rights::MEMBER;
        let capability = issue(step.relay, meeting, self.index, self.routing, rights, self.serial);
        self.capability_until = capability.not_after;
        capability.sign(authority)
    }

    /// The relay says that the member's connection came or went.
    pub(super) fn on_presence(&mut self, step: &mut Step<'_>, here: bool) {
        if !here {
            self.away_since.get_or_insert(step.now);
            return;
        }
        self.away_since = None;
        self.path = Path::Slot;
        // What went to the mailbox while the member was taking its slot may be lost.
        for packet in self.session.resend(step.now) {
            self.transmit(step, packet);
        }
    }

    /// The member accepts an epoch and commits to a value for the next.
    pub(super) fn on_acknowledged(&mut self, epoch: Epoch, commitment: [u8; 32]) {
        self.acknowledged = Some((epoch, commitment));
    }

    pub(super) fn has_acknowledged(&self, epoch: Epoch) -> bool {
        self.acknowledged.is_some_and(|(acknowledged, _)| acknowledged >= epoch)
    }

    /// The commitment for the epoch after `current`, if it came in time.
    pub(super) fn commitment_after(&self, current: Epoch) -> Option<[u8; 32]> {
        self.acknowledged.filter(|(epoch, _)| *epoch == current).map(|(_, commitment)| commitment)
    }

    pub(super) fn is_lost(&self, now: Instant) -> bool {
        self.away_since.is_some_and(|since| now.saturating_duration_since(since) >= AWAY)
    }

    pub(super) fn is_renewal_due(&self, now: Instant) -> bool {
        self.renew_due <= now
    }

    /// Runs the session's timers.
    ///
    /// # Errors
    /// When the peer has acknowledged nothing for too long.
    pub(super) fn handle_timeout(&mut self, step: &mut Step<'_>) -> Result<(), SessionError> {
        let mut packets = Vec::new();
        let result = self.session.handle_timeout(step.now, &mut packets);
        for packet in packets {
            self.transmit(step, packet);
        }
        result
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let away = self.away_since.map(|since| since + AWAY);
        [self.session.poll_timeout(), away, Some(self.renew_due)].into_iter().flatten().min()
    }
}

/// A capability from now on, in relay time.
pub(super) fn issue(
    relay: UnixMillis,
    meeting: MeetingId,
    slot: MemberIndex,
    rk: PublicKey,
    rights: Rights,
    serial: u32,
) -> Capability {
    Capability { meeting, slot, rk, rights, not_before: relay, not_after: relay.plus(VALIDITY), serial }
}
