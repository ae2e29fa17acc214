//! The relay's end of one client's media packets.

use std::time::{Duration, Instant};

use super::keys::{Opener, Sealer, Secrets};
use super::{ANSWER_ALONG, Flags, TRUSTED_FOR, begin};

/// Whoever asks for so long and hears no answer is one whom answers don't reach as they are sent: two questions of a client that
/// asks once a second.
const UNHEARD_FOR: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct RelayPath {
    sealer: Sealer,
    opener: Opener,
    /// The client has said that media packets reach it, which is believed until then.
    heard_until: Option<Instant>,
    /// The next packet is an answer, if it leaves before then.
    answers_until: Option<Instant>,
    /// It has asked since then and has not heard anything.
    unheard_since: Option<Instant>,
}

impl RelayPath {
    pub(crate) fn new(secrets: &Secrets) -> Option<Self> {
        let (sealer, opener) = secrets.relay()?;
        Some(Self { sealer, opener, heard_until: None, answers_until: None, unheard_since: None })
    }

    /// Opens a packet in place; see [`Opener::open`].
    pub(crate) fn open(&mut self, now: Instant, packet: &mut [u8]) -> Option<Flags> {
        let flags = self.opener.open(packet)?;
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

    /// Completes a packet; `false` if that can't be done.
    pub(crate) fn seal(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let answers = self.answers_until.take().is_some_and(|until| now < until);
        self.sealer.seal(Flags { hears: true, answers, ..Flags::default() }, buffer)
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
