//! Another member with whom this one has a session: the leader sees every member so, and everybody sees those who lead
//! or may come to lead.

use std::time::{Duration, Instant};

use super::outbox::Step;
use crate::capability::{Capability, Rights, SignedCapability};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::noise::session::{Session, SessionError, SessionId};
use crate::sign::{KeyPair, PublicKey};
use crate::time::UnixMillis;
use crate::wire::control::Message;
use crate::wire::relay::{MailboxId, ToRelay};

/// How long a capability is valid: below the allowed 120 s, so that clocks may differ a little.
pub(super) const VALIDITY: Duration = Duration::from_secs(110);
/// When it is renewed: two renewals may be lost before it runs out.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(35);
/// How long a member may be away before it is removed as lost (DESIGN §12).
pub(super) const AWAY: Duration = Duration::from_secs(60);

/// How a peer is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// A newcomer that is not attached yet.
    Mailbox(MailboxId),
    /// The leader, for a newcomer that is not attached yet.
    OwnMailbox,
    /// By its slot.
    Slot,
}

/// One other member.
pub(super) struct Peer {
    index: MemberIndex,
    session: Session,
    pub(super) path: Path,
    away_since: Option<Instant>,
    /// The newest epoch acknowledged, and the commitment that came with it.
    acknowledged: Option<(Epoch, [u8; 32])>,
    serial: u32,
    renew_due: Instant,
    /// Relay time until which the last capability is valid.
    pub(super) capability_until: UnixMillis,
}

/// Who issues capabilities.
pub(super) struct Issuer<'a> {
    pub(super) meeting: MeetingId,
    pub(super) signer: MemberIndex,
    pub(super) key: &'a KeyPair,
}

impl Peer {
    pub(super) fn new(now: Instant, index: MemberIndex, session: Session, path: Path) -> Self {
        Self {
            index,
            session,
            path,
            away_since: Some(now),
            acknowledged: None,
            serial: 0,
            renew_due: now + RENEW_EVERY,
            capability_until: UnixMillis(0),
        }
    }

    pub(super) fn session_id(&self) -> SessionId {
        self.session.id()
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
            Path::OwnMailbox => step.out.control(&ToRelay::Mail { bytes: packet }),
            Path::Slot => step.out.send(self.index, packet),
        }
    }

    /// The next capability of this member, whose routing key is `rk`.
    pub(super) fn next_capability(&mut self, step: &Step<'_>, issuer: &Issuer<'_>, rk: PublicKey) -> SignedCapability {
        self.renew_due = step.now + RENEW_EVERY;
        let capability = issue(step.relay, issuer, self.index, rk, Rights::MEMBER, &mut self.serial);
        self.capability_until = capability.claimed.not_after;
        capability
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
        self.resend(step);
    }

    /// Something authentic has come from it.
    pub(super) fn on_heard(&mut self) {
        self.away_since = None;
    }

    /// Sends everything again that the peer has not acknowledged.
    pub(super) fn resend(&mut self, step: &mut Step<'_>) {
        for packet in self.session.resend(step.now) {
            self.transmit(step, packet);
        }
    }

    /// This side's connection is new, or it has just begun to lead: whether the peer is there must be seen anew.
    pub(super) fn look_again(&mut self, now: Instant, is_here: bool) {
        self.away_since = (!is_here).then_some(now);
        self.acknowledged = None;
        self.renew_due = now;
    }

    /// The clock of being away starts again, since this side was away itself.
    pub(super) fn on_own_return(&mut self, now: Instant) {
        self.away_since = Some(now);
        if self.path == Path::OwnMailbox {
            return;
        }
        if let Path::Mailbox(_) = self.path {
            self.path = Path::Slot;
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

    /// When a leader wants [`Peer::handle_timeout`] to be called, or has to renew or give up something.
    pub(super) fn poll_led(&self) -> Option<Instant> {
        let away = self.away_since.map(|since| since + AWAY);
        [self.session.poll_timeout(), away, Some(self.renew_due)].into_iter().flatten().min()
    }

    /// When a follower wants [`Peer::handle_timeout`] to be called.
    pub(super) fn poll_session(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }
}

/// A capability from now on, in relay time. Serials follow the relay's clock, so that those of one leader do not fall
/// behind those of another.
pub(super) fn issue(
    relay: UnixMillis,
    issuer: &Issuer<'_>,
    slot: MemberIndex,
    rk: PublicKey,
    rights: Rights,
    serial: &mut u32,
) -> SignedCapability {
    let seconds = u32::try_from(relay.0 / 1_000).unwrap_or(u32::MAX);
    *serial = serial.saturating_add(1).max(seconds);
    let Issuer { meeting, signer, key } = *issuer;
    let (not_before, not_after) = (relay, relay.plus(VALIDITY));
    Capability { meeting, slot, rk, rights, not_before, not_after, serial: *serial, signer }.sign(key)
}
