//! The relay's end of one client's media packets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::keys::{Opener, Sealer, Secrets};
use super::window::Receipt;
use super::{ANSWER_ALONG, Flags, TRUSTED_FOR, begin};

/// Whoever asks for so long and hears no answer is one whom answers don't reach as they are sent: two questions of a client that
/// asks once a second.
const UNHEARD_FOR: Duration = Duration::from_secs(2);

/// A control message that has left in a media packet is sent again within that time, if it is missing; then it has come, or is
/// of no use any more.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(3);
/// So many of them are remembered: 80 a second.
const UNPROVED: usize = 256;

/// A control message that has left in a media packet.
#[derive(Clone, Copy)]
struct Unproved {
    packet: u32,
    message: u64,
    left: Instant,
}

/// See the module.
#[repr(C)]
pub(crate) struct RelayPath {
    /// The client has said that media packets reach it, which is believed until then.
    heard_until: Option<Instant>,
    /// The next packet is an answer, if it leaves before then.
    answers_until: Option<Instant>,
    sealer: Sealer,
    opener: Opener,
    /// It has asked since then and has not heard anything.
    unheard_since: Option<Instant>,
    /// Messages of which it is not known that they have come, in the order of their packets.
    unproved: VecDeque<Unproved>,
    /// The client has sent a receipt: it takes messages so, and tells when they are lost.
    gives_receipts: bool,
}

impl RelayPath {
    pub(crate) fn new(secrets: &Secrets) -> Option<Self> {
        let (sealer, opener) = secrets.relay()?;
        Some(Self {
            heard_until: None,
            answers_until: None,
            sealer,
            opener,
            unheard_since: None,
            unproved: VecDeque::new(),
            gives_receipts: false,
        })
    }

    /// Opens a packet in place; see [`Opener::open`].
    pub(crate) fn open(&mut self, now: Instant, packet: &mut [u8]) -> Option<Flags> {
        let (flags, _) = self.opener.open(packet)?;
        if flags.hears {
            self.heard_until = Some(now + TRUSTED_FOR);
            self.unheard_since = None;
        } else if flags.asks {
            // It says at once that it hears nothing any more.
            self.heard_until = None;
            self.unheard_since.get_or_insert(now);
        }
        Some(flags)
    }

    /// Whether the client asks and asks, and hears no answer.
    pub(crate) fn is_unheard(&self, now: Instant) -> bool {
        self.unheard_since.is_some_and(|since| now.saturating_duration_since(since) > UNHEARD_FOR)
    }

    /// Whether frames reach the client in media packets.
    pub(crate) fn carries(&self, now: Instant) -> bool {
        self.heard_until.is_some_and(|until| until > now) && self.sealer.is_fresh()
    }

    /// See [`Sealer::touch`].
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.heard_until.is_some()) ^ self.sealer.touch()
    }

    /// Whether control messages reach the client so, or it tells when they don't.
    pub(crate) fn carries_messages(&self, now: Instant) -> bool {
        self.gives_receipts && self.carries(now)
    }

    /// Completes a packet, which asks the client for a question or not; `false` if that can't be done.
    pub(crate) fn seal(&mut self, now: Instant, asks: bool, buffer: &mut Vec<u8>) -> bool {
        let answers = self.answers_until.take().is_some_and(|until| now < until);
        self.sealer.seal(Flags { hears: true, asks, answers }, buffer)
    }

    /// The packet that was completed last brings that message.
    pub(crate) fn note(&mut self, now: Instant, message: u64) {
        self.forget(now);
        if self.unproved.len() >= UNPROVED {
            self.unproved.pop_front();
        }
        if let Some(packet) = self.sealer.last() {
            self.unproved.push_back(Unproved { packet, message, left: now });
        }
    }

    /// The client tells which packets have come: gives the messages of those that have not, each once.
    pub(crate) fn settle(&mut self, now: Instant, receipt: &Receipt, lost: impl FnMut(u64)) {
        self.gives_receipts = true;
        self.forget(now);
        let mut again = Vec::new();
        self.unproved.retain(|unproved| {
            let has = receipt.has(unproved.packet);
            if has == Some(false) && !again.contains(&unproved.message) {
                again.push(unproved.message);
            }
            has.is_none()
        });
        if !again.is_empty() {
            // Of one in parts the others are of no use any more.
            self.unproved.retain(|unproved| !again.contains(&unproved.message));
        }
        again.into_iter().for_each(lost);
    }

    /// No more packets reach the client, it says: gives all messages of which it is not known that they have come, each once.
    pub(crate) fn give_up(&mut self, now: Instant, lost: impl FnMut(u64)) {
        self.forget(now);
        let mut again: Vec<u64> = Vec::new();
        for unproved in self.unproved.drain(..) {
            if !again.contains(&unproved.message) {
                again.push(unproved.message);
            }
        }
        again.into_iter().for_each(lost);
    }

    /// What left so long ago is of no use any more.
    fn forget(&mut self, now: Instant) {
        let is_old = |old: &mut Unproved| now.saturating_duration_since(old.left) > KEPT_FOR;
        while self.unproved.pop_front_if(is_old).is_some() {}
    }

    /// The messages of which it is not known that they have come.
    #[cfg(test)]
    pub(super) fn unproved(&self) -> impl Iterator<Item = u64> {
        self.unproved.iter().map(|unproved| unproved.message)
    }

    /// The next packet answers a question that came at `now`, unless it takes too long until there is one.
    pub(crate) fn answer_along(&mut self, now: Instant) {
        self.answers_until = Some(now + ANSWER_ALONG);
    }

    /// Makes the answer to a question, in an empty buffer; `false` if that can't be done.
    pub(crate) fn answer(&mut self, buffer: &mut Vec<u8>) -> bool {
        begin(buffer);
        self.sealer.seal(Flags { hears: true, answers: true, ..Flags::default() }, buffer)
    }
}
