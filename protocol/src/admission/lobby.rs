//! The waiting room at the host: people who have shown who they are and hold no key of the meeting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::identity::{DisplayName, IdCert};
use crate::noise::handshake::Knocker;
use crate::noise::session::Session;
use crate::sign::PublicKey;
use crate::wire::relay::MailboxId;

/// Names a knock to the host's user; never reused in a meeting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KnockId(pub u32);

/// How long a knock waits for the host: as long as people wait for a meeting to begin.
pub const EXPIRY: Duration = Duration::from_secs(30 * 60);
/// Most people who wait at one time.
pub const MAX_WAITING: usize = 256;
/// Denials after which an identity is blocked.
const DENIALS_UNTIL_BLOCKED: u8 = 2;
/// Most identities whose denials are remembered; beyond it the memory starts over.
const MAX_REMEMBERED: usize = 4096;

/// Somebody who waits.
pub struct Waiting {
    /// Where the answer goes.
    pub mailbox: MailboxId,
    /// The session with the guest.
    pub session: Session,
    /// The guest's certificate.
    pub cert: IdCert,
    /// The guest's name.
    pub name: DisplayName,
    /// Commitment for the joining epoch.
    pub commitment: [u8; 32],
    since: Instant,
}

/// Proof that the host let this guest in: only the lobby makes one, and a roster takes nobody without.
pub struct Admission {
    guest: Waiting,
}

impl Admission {
    /// The guest.
    pub fn into_guest(self) -> Waiting {
        self.guest
    }
}

/// What becomes of somebody who knocks.
pub enum Knocked {
    /// Waits under this name.
    Waits {
        /// The knock.
        id: KnockId,
        /// An older knock of the same identity, which it replaces, and who waits there.
        replaced: Option<(KnockId, Box<Waiting>)>,
    },
    /// Too many wait already.
    Full(Box<Waiting>),
}

/// The waiting room.
#[derive(Default)]
pub struct Lobby {
    waiting: BTreeMap<KnockId, Waiting>,
    last_id: u32,
    denials: BTreeMap<PublicKey, u8>,
}

impl Lobby {
    /// Takes in a guest whose handshake is complete. An older knock of the same identity makes room for it.
    pub fn knock(&mut self, now: Instant, mailbox: MailboxId, knocker: Knocker) -> Knocked {
        let Knocker { session, cert, name, commitment } = knocker;
        let guest = Waiting { mailbox, session, cert, name, commitment, since: now };
        let replaced = self.waiting.iter().find(|(_, other)| other.cert.identity == cert.identity).map(|(id, _)| *id);
        let replaced = replaced.and_then(|id| self.waiting.remove(&id).map(|guest| (id, Box::new(guest))));
        if self.waiting.len() >= MAX_WAITING {
            return Knocked::Full(Box::new(guest));
        }
        self.last_id = self.last_id.wrapping_add(1);
        let id = KnockId(self.last_id);
        self.waiting.insert(id, guest);
        Knocked::Waits { id, replaced }
    }

    /// Everybody who waits, in order of knocking.
    pub fn waiting(&self) -> impl Iterator<Item = (KnockId, &Waiting)> {
        self.waiting.iter().map(|(id, guest)| (*id, guest))
    }

    /// The guest of a knock.
    pub fn guest(&self, id: KnockId) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    /// The guest of a knock, to be told something.
    pub fn guest_mut(&mut self, id: KnockId) -> Option<&mut Waiting> {
        self.waiting.get_mut(&id)
    }

    /// The guest who waits at a mailbox.
    pub fn by_mailbox(&mut self, mailbox: MailboxId) -> Option<&mut Waiting> {
        self.waiting.values_mut().find(|guest| guest.mailbox == mailbox)
    }

    /// Everybody's sessions, with their mailboxes.
    pub fn sessions(&mut self) -> impl Iterator<Item = (MailboxId, &mut Session)> {
        self.waiting.values_mut().map(|guest| (guest.mailbox, &mut guest.session))
    }

    /// The host lets a guest in.
    pub fn admit(&mut self, id: KnockId) -> Option<Admission> {
        self.waiting.remove(&id).map(|guest| Admission { guest })
    }

    /// The host says no. Gives the guest, and whether it is to be blocked now: the second time it is.
    pub fn deny(&mut self, id: KnockId) -> Option<(Waiting, bool)> {
        let guest = self.waiting.remove(&id)?;
        if self.denials.len() >= MAX_REMEMBERED {
            self.denials.clear();
        }
        let denials = self.denials.entry(guest.cert.identity).or_default();
        *denials = denials.saturating_add(1);
        let blocked = *denials >= DENIALS_UNTIL_BLOCKED;
        Some((guest, blocked))
    }

    /// The guest at a mailbox went away.
    pub fn withdraw(&mut self, mailbox: MailboxId) -> Option<KnockId> {
        let id = self.waiting.iter().find(|(_, guest)| guest.mailbox == mailbox).map(|(id, _)| *id)?;
        self.waiting.remove(&id).map(|_| id)
    }

    /// Takes out those who have waited too long.
    pub fn expire(&mut self, now: Instant) -> Vec<(KnockId, Waiting)> {
        let expired: Vec<KnockId> = self
            .waiting
            .iter()
            .filter(|(_, guest)| now.saturating_duration_since(guest.since) >= EXPIRY)
            .map(|(id, _)| *id)
            .collect();
        expired.into_iter().filter_map(|id| self.waiting.remove(&id).map(|guest| (id, guest))).collect()
    }

    /// When the next knock expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.waiting.values().map(|guest| guest.since + EXPIRY).min()
    }
}
