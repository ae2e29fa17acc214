//! One meeting: what the relay knows of it, and who is there. All of it vanishes with its last connection.
//!
//! A connection is a *guest* until it takes a slot, and again when it loses it. Members are in [`super::members`],
//! mailboxes in [`super::mailboxes`], and who leads in [`super::succession`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use conclave_protocol::capability::{KnockGate, KnockToken, Revoked};
use conclave_protocol::descriptor::Descriptor;
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::sign::PublicKey;
use conclave_protocol::succession::Line;
use conclave_protocol::wire::relay::{FromRelay, MailboxId, Refusal};

use super::limits::Limits;
use super::phase::Meter;
use super::succession::{Beginning, Lead};
use super::turn::Turn;
use super::{FULL, MISBEHAVED};
use crate::bucket::Bucket;
use crate::core::ConnId;

/// The state of one meeting.
///
/// INVARIANT: every connection is in `guests` or in `slots`, never in both; `slots`, `expiries` and `leaders` say what
/// `members` says, and `mailboxes` what `guests` says.
pub(super) struct Meeting {
    pub(super) id: MeetingId,
    pub(super) descriptor: Option<Descriptor>,
    pub(super) line: Option<Line>,
    pub(super) gate: Option<KnockGate>,
    pub(super) revoked: Option<Revoked>,
    pub(super) members: BTreeMap<MemberIndex, Member>,
    pub(super) slots: BTreeMap<ConnId, MemberIndex>,
    pub(super) expiries: BTreeSet<(Instant, MemberIndex)>,
    /// The leaders present, in the order in which they began to lead.
    pub(super) leaders: BTreeMap<Beginning, MemberIndex>,
    /// How often a slot has begun to lead.
    pub(super) beginnings: u64,
    /// What guests have been told last. While a leader is present it is true.
    pub(super) told: Option<Lead>,
    pub(super) guests: BTreeMap<ConnId, Guest>,
    pub(super) mailboxes: BTreeMap<MailboxId, ConnId>,
    pub(super) mail: Bucket,
    /// A moment of the phase that the members' frame clocks are to have.
    pub(super) tick: Option<Instant>,
    /// Makes the ids of mailboxes this meeting's own: the exporter of its first connection.
    pub(super) seed: [u8; 32],
    /// Makes the ids of mailboxes differ; never shown.
    pub(super) mailboxes_opened: u64,
}

/// Who holds a slot.
pub(super) struct Member {
    pub(super) conn: ConnId,
    /// Since when it leads, if it does.
    pub(super) leads: Option<Beginning>,
    pub(super) serial: u32,
    /// Its routing key: by what it proved that the capability is its own.
    pub(super) rk: PublicKey,
    /// Who signed its capability.
    pub(super) signer: MemberIndex,
    /// The first moment at which the capability is no longer valid.
    pub(super) expires: Instant,
    pub(super) allowances: Allowances,
    /// When its frames come.
    pub(super) phase: Meter,
}

/// What a slot may still send. A connection that takes the slot over takes these over too. What it sends as a leader is
/// counted apart: a member that begins to lead must reach everybody at once, whatever it has sent before.
#[derive(Clone, Copy, Default)]
pub(super) struct Allowances {
    pub(super) datagrams: Bucket,
    pub(super) seals: Bucket,
    pub(super) messages: Bucket,
    pub(super) bytes: Bucket,
    pub(super) leader_messages: Bucket,
    pub(super) leader_bytes: Bucket,
    pub(super) acts: Bucket,
}

/// Who has no slot.
pub(super) struct Guest {
    pub(super) knows: Knows,
    pub(super) mailbox: Option<Mailbox>,
    /// A token shown before anybody could open.
    pub(super) held: Option<KnockToken>,
    pub(super) wrong_tokens: u8,
}

/// What a guest knew of the meeting when it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Knows {
    /// Its id only.
    Id,
    /// Its descriptor: the guest is, was or will be a member, or has at least seen the meeting before.
    Descriptor,
}

/// A guest's mailbox.
pub(super) struct Mailbox {
    pub(super) id: MailboxId,
    pub(super) mail: Bucket,
}

impl Meeting {
    pub(super) fn new(id: MeetingId, seed: [u8; 32]) -> Self {
        Self {
            id,
            descriptor: None,
            line: None,
            gate: None,
            revoked: None,
            members: BTreeMap::new(),
            slots: BTreeMap::new(),
            expiries: BTreeSet::new(),
            leaders: BTreeMap::new(),
            beginnings: 0,
            told: None,
            guests: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            mail: Bucket::default(),
            tick: None,
            seed,
            mailboxes_opened: 0,
        }
    }

    /// Whether nobody is here any more.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.guests.is_empty()
    }

    /// Whether one more guest may wait that knows nothing but the id.
    pub(super) fn has_room_for_guest(&self, limits: &Limits) -> bool {
        self.waiting(Knows::Id).count() < limits.max_waiting
    }

    /// When the next capability runs out.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// A client has said Hello. Its descriptor is that of this meeting, by its hash.
    pub(super) fn enter(
        &mut self,
        turn: &mut Turn<'_>,
        conn: ConnId,
        descriptor: Option<Descriptor>,
        line: Option<Line>,
        revoked: Option<Revoked>,
    ) {
        let knows = if descriptor.is_some() { Knows::Descriptor } else { Knows::Id };
        if self.descriptor.is_none() {
            self.descriptor = descriptor;
        }
        self.seat_guest(turn, conn, knows);
        // The line first: it says whether the revocation counts.
        let line = line.map_or(Ok(()), |line| self.learn_line(turn, line));
        let revoked = revoked.map_or(Ok(()), |revoked| self.learn_revocation(turn, &revoked));
        for reason in [line, revoked].into_iter().filter_map(Result::err) {
            // Who knows no more than the id must not find out whether the relay does.
            if knows == Knows::Descriptor {
                turn.refuse(conn, reason);
            }
        }
        if self.is_led() && self.lead() == self.told {
            self.announce(turn, [conn]);
        }
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, conn: ConnId) {
        if self.guests.contains_key(&conn) {
            self.unseat_guest(turn, conn);
        } else if let Some(&slot) = self.slots.get(&conn) {
            self.vacate(slot);
            self.tell_presence(turn, slot, false);
        }
    }

    /// Makes a connection a guest.
    pub(super) fn seat_guest(&mut self, turn: &mut Turn<'_>, conn: ConnId, knows: Knows) {
        self.guests.insert(conn, Guest { knows, mailbox: None, held: None, wrong_tokens: 0 });
        let is_crowded = self.waiting(Knows::Descriptor).count() > turn.limits.max_unattached;
        let oldest = self.waiting(Knows::Descriptor).next();
        if is_crowded && let Some(oldest) = oldest {
            self.guests.remove(&oldest);
            turn.refuse(oldest, Refusal::Full);
            turn.close(oldest, FULL);
        }
    }

    /// A guest goes, or becomes a member: its mailbox goes with it.
    pub(super) fn unseat_guest(&mut self, turn: &mut Turn<'_>, conn: ConnId) {
        let guest = self.guests.remove(&conn);
        if let Some(Mailbox { id, .. }) = guest.and_then(|guest| guest.mailbox) {
            self.mailboxes.remove(&id);
            turn.send_all(self.leader_conns(), &FromRelay::MailboxGone { mailbox: id });
        }
    }

    /// Counts a wrong token, and closes the connection of whoever guesses.
    pub(super) fn refuse_token(&mut self, turn: &mut Turn<'_>, conn: ConnId) {
        turn.refuse(conn, Refusal::WrongLink);
        let Some(guest) = self.guests.get_mut(&conn) else { return };
        guest.wrong_tokens = guest.wrong_tokens.saturating_add(1);
        if guest.wrong_tokens >= turn.limits.max_wrong_tokens {
            turn.close(conn, MISBEHAVED);
        }
    }

    /// Guests without a mailbox that knew this much when they came, the oldest first.
    fn waiting(&self, knows: Knows) -> impl Iterator<Item = ConnId> {
        let without_mailbox = self.guests.iter().filter(|(_, guest)| guest.mailbox.is_none());
        without_mailbox.filter(move |(_, guest)| guest.knows == knows).map(|(conn, _)| *conn)
    }
}
