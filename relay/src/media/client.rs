//! A client's end of its media packets.

use std::time::{Duration, Instant};

use super::keys::{Opener, Sealer, Secrets};
use super::packet::{Part, push_receipt};
use super::parts::Parts;
use super::{ASK_AGAIN, ASK_ALONG, ASK_EVERY, ASK_RARELY, EAGER, Flags, Item, QUIET, TRUSTED_FOR, begin, items, push};

/// A packet that others overtake is not lost for so long.
const OVERTAKEN_FOR: Duration = Duration::from_millis(60);
/// Receipts leave no more often, whatever is lost.
const BETWEEN: Duration = Duration::from_millis(100);
/// A receipt may be lost too: how often one is sent for a gap, and after how long again.
const TIMES: u32 = 2;
const AGAIN: Duration = Duration::from_millis(300);

/// See the module. Frames leave in media packets while the relay answers that they come through.
#[derive(Debug)]
pub struct ClientPath {
    id: u64,
    sealer: Sealer,
    opener: Opener,
    /// When the next question is due, if something is heard until then.
    ask_at: Instant,
    asked: Instant,
    /// The relay has asked for a question: by the next frame, or without one then.
    wanted: Option<Instant>,
    /// When a frame left last. Who sends frames asks by these.
    sent: Option<Instant>,
    /// Questions since the last answer, but for those that ask for a sign of life.
    unanswered: u32,
    /// Questions for a sign of life since something was heard.
    quietly: u32,
    /// How long before that something was heard.
    before: Duration,
    /// QUIC is to be asked, too.
    asks_quic: bool,
    answered: Option<Instant>,
    heard: Option<Instant>,
    missing: Missing,
    parts: Parts,
}

/// Whether the relay is to hear that packets are missing.
#[derive(Debug, Default)]
struct Missing {
    tell_at: Option<Instant>,
    told: Option<Instant>,
    /// How often it is still to hear of it.
    times: u32,
}

impl Missing {
    /// A packet has overtaken others.
    fn note(&mut self, now: Instant) {
        let next = self.told.map_or(now, |told| told + BETWEEN).max(now + OVERTAKEN_FOR);
        // What is to be heard a second time is heard with this.
        let is_first = self.times == TIMES;
        self.tell_at = Some(self.tell_at.filter(|at| is_first && *at < next).unwrap_or(next));
        self.times = TIMES;
    }

    /// Whether a receipt leaves now.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.tell_at.is_some_and(|at| at <= now);
        if is_due {
            self.told = Some(now);
            self.times = self.times.saturating_sub(1);
            self.tell_at = (self.times > 0).then(|| now + AGAIN);
        }
        is_due
    }
}

impl ClientPath {
    /// The path of a new connection; `None` if its keys can't be made.
    #[must_use]
    pub fn new(now: Instant, secrets: &Secrets) -> Option<Self> {
        let (sealer, opener) = secrets.client()?;
        let id = secrets.at_client();
        Some(Self {
            id,
            sealer,
            opener,
            ask_at: now,
            asked: now,
            wanted: None,
            sent: None,
            unanswered: 0,
            quietly: 0,
            before: Duration::MAX,
            asks_quic: false,
            answered: None,
            heard: None,
            missing: Missing::default(),
            parts: Parts::default(),
        })
    }

    /// What names it in packets that come ([`super::destination`]).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Opens a packet in place and gives what it brings; `None` for one that is not authentic or has come before.
    pub fn open<'a>(&mut self, now: Instant, packet: &'a mut [u8]) -> Option<impl Iterator<Item = Item<'a>> + use<'a>> {
        let (flags, is_gap) = self.opener.open(packet)?;
        if is_gap {
            self.missing.note(now);
        }
        let heard = self.heard.replace(now);
        self.before = heard.map_or(Duration::MAX, |heard| now.saturating_duration_since(heard));
        self.quietly = 0;
        if flags.answers {
            self.answered = Some(now);
            self.unanswered = 0;
        }
        // A relay that asks too much gets no more packets for it.
        if flags.asks && now >= self.asked + ASK_AGAIN {
            self.wanted = Some(self.sent.map_or(now, |sent| now.max(sent + ASK_ALONG)));
        }
        Some(items(packet))
    }

    /// Takes a part of a control message from an opened packet; the message, if it is complete.
    #[must_use]
    pub fn join(&mut self, part: Part<'_>) -> Option<Vec<u8>> {
        self.parts.take(part)
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
        self.sent = Some(now);
        self.complete(now, buffer)
    }

    /// When to ask the next question, if nothing is heard before: what is heard is an occasion, too, from shortly before on.
    #[must_use]
    pub fn ask_at(&self) -> Instant {
        let is_hearing = self.heard.is_some_and(|heard| heard + ASK_ALONG > self.ask_at);
        let ask_at = if is_hearing { self.ask_at + ASK_ALONG } else { self.due() };
        [self.missing.tell_at, self.wanted].into_iter().flatten().fold(ask_at, Instant::min)
    }

    /// Makes a packet that asks whether packets come through, or tells which have come, in an empty buffer, if that is due.
    /// Frames ask on their way.
    #[must_use]
    pub fn ask(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let tells = self.missing.take(now);
        if self.due() > now && !tells {
            return false;
        }
        begin(buffer);
        // While packets may only have been overtaken, nothing is said of them.
        if tells || self.missing.tell_at.is_none() {
            // The packet is empty.
            let _has_room = push_receipt(buffer, &self.opener.receipt());
        }
        self.complete(now, buffer)
    }

    /// When the next question is due.
    fn due(&self) -> Instant {
        let heard = self.heard.filter(|_| self.quietly < EAGER);
        let quiet = heard.map(|heard| (heard + QUIET).max(self.asked + ASK_AGAIN));
        [quiet, self.wanted].into_iter().flatten().fold(self.ask_at, Instant::min)
    }

    /// Whether QUIC is to be asked for a sign of life now, too.
    #[must_use]
    pub fn asks_quic(&mut self) -> bool {
        std::mem::take(&mut self.asks_quic)
    }

    fn complete(&mut self, now: Instant, buffer: &mut Vec<u8>) -> bool {
        let is_regular = self.wanted.take().is_some() || self.ask_at <= now;
        let asks = is_regular || self.due() <= now;
        if is_regular {
            self.ask_at = now + self.pace(now);
            self.unanswered = self.unanswered.saturating_add(1);
        } else if asks {
            // Where packets came all the time, something is wrong: QUIC finds out, and tells the relay if this end has moved.
            self.asks_quic |= self.quietly == 0 && self.before < QUIET / 2;
            self.quietly += 1;
        }
        if asks {
            self.asked = now;
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
