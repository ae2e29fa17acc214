//! What a step produces, and what it is given: the plumbing between the parts of a conference.

use rand_core::CryptoRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::event::{Event, Transmit};
use crate::capability::SignedCapability;
use crate::evidence::ring::Ring;
use crate::id::MemberIndex;
use crate::moderator::Moderator;
use crate::sign::{KeyPair, PublicKey};
use crate::time::UnixMillis;
use crate::wire::codec::Wire;
use crate::wire::relay::{MailboxId, ToRelay};

/// Transmits and events that the caller has not drained yet.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
}

impl Outbox {
    pub(super) fn control(&mut self, message: &ToRelay) {
        self.transmits.push_back(Transmit::Control(message.encode()));
    }

    pub(super) fn datagram(&mut self, bytes: Vec<u8>) {
        self.transmits.push_back(Transmit::Datagram(bytes));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn mail_to(&mut self, mailbox: MailboxId, bytes: Vec<u8>) {
        self.control(&ToRelay::MailTo { mailbox, bytes });
    }

    pub(super) fn send(&mut self, to: MemberIndex, bytes: Vec<u8>) {
        self.control(&ToRelay::Send { to, bytes });
    }
}

/// What outlives the parts that a conference goes through, and its end by a while: what a report needs.
#[derive(Default)]
pub(super) struct Kept {
    /// What was said lately.
    pub(super) ring: Ring,
    /// The policy's moderators, checked against D.
    pub(super) moderators: Vec<Moderator>,
    /// Identities that are not let in, and until when; for good when `None`.
    pub(super) bans: BTreeMap<PublicKey, Option<UnixMillis>>,
    /// The newest capability and its routing key of a member that had to become a guest again.
    pub(super) past: Option<(SignedCapability, KeyPair)>,
}

impl Kept {
    /// Whether an identity is not to be let in at `now`.
    pub(super) fn is_banned(&self, identity: &PublicKey, now: UnixMillis) -> bool {
        self.bans.get(identity).is_some_and(|until| until.is_none_or(|until| now <= until))
    }
}

/// One step's surroundings.
pub(super) struct Step<'a> {
    pub(super) now: Instant,
    /// This machine's wall clock.
    pub(super) wall: UnixMillis,
    /// The relay's clock, by which capabilities are measured.
    pub(super) relay: UnixMillis,
    pub(super) rng: &'a mut dyn CryptoRng,
    pub(super) out: &'a mut Outbox,
    pub(super) kept: &'a mut Kept,
}
