//! A client's end of its media packets.

use std::time::{Duration, Instant};

use super::keys::{Opener, Sealer, Secrets};
use super::{ASK_AGAIN, ASK_ALONG, ASK_EVERY, ASK_RARELY, EAGER, Flags, TRUSTED_FOR, begin, frames, push};

/// See the module. Frames leave in media packets while the relay answers that they come through.
#[derive(Debug)]
pub struct ClientPath {
    id: u64,
    sealer: Sealer,
    opener: Opener,
    /// When the next question is due.
    ask_at: Instant,
    /// Questions since the last answer.
    unanswered: u32,
    answered: Option<Instant>,
    heard: Option<Instant>,
}

impl ClientPath {
    /// The path of a new connection; `None` if its keys can't be made.
    #[must_use]
    pub fn new(now: Instant, secrets: &Secrets) -> Option<Self> {
        let (sealer, opener) = secrets.client()?;
        let id = secrets.at_client();
        Some(Self { id, sealer, opener, ask_at: now, unanswered: 0, answered: None, heard: None })
    }

    /// What names it in packets that come ([`super::destination`]).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Opens a packet in place and gives its frames; `None` for one that is not authentic or has come before.
    pub fn open<'a>(&mut self, now: Instant, packet: &'a mut [u8]) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let flags = self.opener.open(packet)?;
        self.heard = Some(now);
        if flags.answers {
            self.answered = Some(now);
            self.unanswered = 0;
        }
        Some(frames(packet))
    }

    /// Whether frames reach the relay in media packets.
    #[must_use]
    pub fn carries(&self, now: Instant) -> bool {
        is_recent(self.answered, now) && self.sealer.is_fresh()
    }

    /// Makes a packet of one frame, in an empty buffer; `false` if the frame is too long for one.
    #[must_use]
    pub fn seal(&mut self, now: Instant, frame: &[u8], buffer: &mut Vec<u8>) -> bool {
        begin(buffer);
        if !push(buffer, frame) {
            buffer.clear();
            return false;
        }
        self.complete(now, buffer)
    }

    /// When to ask the next question, if nothing is heard before: what is heard is an occasion, too, from shortly before on.
    #[must_use]
    pub fn ask_at(&self) -> Instant {
        let is_hearing = self.heard.is_some_and(|heard| heard + ASK_ALONG > self.ask_at);
        if is_hearing { self.ask_at + ASK_ALONG } else { self.ask_at }
    }

    /// Makes a question whether packets come through, in an empty buffer, if one is due: frames ask on their way.
    #[must_use]
    pub fn ask(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        if self.ask_at > now {
            return false;
        }
        begin(buffer);
        self.complete(now, buffer)
    }

    fn complete(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let asks = self.ask_at <= now;
        if asks {
            self.ask_at = now + self.pace(now);
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.sealer.seal(Flags { hears: is_recent(self.heard, now), asks, answers: false }, buffer)
    }

    /// How long to wait for an answer before the next question.
    fn pace(&self, now: Instant) -> Duration {
        match self.unanswered {
            _ if self.carries(now) => ASK_EVERY,
            ..EAGER => ASK_AGAIN,
            _ => ASK_RARELY,
        }
    }
}

fn is_recent(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_duration_since(last) < TRUSTED_FOR)
}
