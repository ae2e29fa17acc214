//! What a listener knows of one segment of one talker: which frames came, which of them were played, what its seal
//! lists, and what waits for that seal (`docs/protocol.md` §9.4).

use std::time::{Duration, Instant};

use super::frame::PLAINTEXT_LEN;
use super::receiver::{Ciphertext, Dropped, Play};
use super::suite::{FrameKey, TAG_LEN};
use super::{LONGEST_SEGMENT, MAX_FRAMES, SegmentNumber};
use crate::epoch::schedule::SegmentKey;
use crate::seal::{FrameHash, SealBody, SealHead};

/// A segment's seal must have come so long after its end (DESIGN §7).
const SEAL_DUE: Duration = Duration::from_millis(1_500);
/// A frame that waited so long for its seal is not played any more.
const GIVE_UP: Duration = Duration::from_secs(3);
/// Frames that open and name one (KID, CTR), kept until the seal says which is the talker's (DESIGN §7).
const CANDIDATES: usize = 4;

/// A frame that opens and waits for its segment's seal, as it came.
struct Candidate {
    number: u8,
    hash: FrameHash,
    came: Instant,
    body: [u8; PLAINTEXT_LEN],
    tag: [u8; TAG_LEN],
}

/// What a verified seal said.
pub(super) struct Seal {
    pub(super) head: SealHead,
    pub(super) body: SealBody,
}

/// What becomes of a frame that has opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Is played now.
    Played,
    /// Waits for the seal.
    Held,
    /// Opens, and the verified seal does not list it.
    Unlisted,
}

/// What was played of a segment ahead of the trusted window whose record had to make room.
pub(super) struct Parked {
    pub(super) segment: SegmentNumber,
    played: u64,
    hashes: [FrameHash; MAX_FRAMES],
}

impl Parked {
    /// As [`Record::inspect`].
    pub(super) fn inspect(&self, frame: &Ciphertext<'_>, play: Play) -> Result<(), Dropped> {
        let number = usize::from(frame.number());
        let was_played = self.played & (1 << number) != 0;
        let is_used_up = was_played && (play == Play::AtOnce || self.hashes[number] == frame.hash());
        if is_used_up { Err(Dropped::Duplicate) } else { Ok(()) }
    }
}

pub(super) struct Record {
    pub(super) segment: SegmentNumber,
    pub(super) key: SegmentKey,
    pub(super) frames: FrameKey,
    /// Bit n is set when a frame n was played, whose hash is in `hashes`.
    played: u64,
    hashes: [FrameHash; MAX_FRAMES],
    candidates: Vec<Candidate>,
    pub(super) vouched: Option<Seal>,
    /// When its first frame came, its newest, and when it was seen to be over.
    first: Option<Instant>,
    newest: Option<Instant>,
    ended: Option<Instant>,
    /// It was found to have no seal in time.
    missed: bool,
}

impl Record {
    pub(super) fn new(segment: SegmentNumber, key: SegmentKey, frames: FrameKey) -> Self {
        Self {
            segment,
            key,
            frames,
            played: 0,
            hashes: [[0; 16]; MAX_FRAMES],
            candidates: Vec::new(),
            vouched: None,
            first: None,
            newest: None,
            ended: None,
            missed: false,
        }
    }

    /// What must be known when the segment is asked for again; `None` when nothing of it was played.
    pub(super) fn park(&self) -> Option<Parked> {
        let Self { segment, played, hashes, .. } = self;
        (*played != 0).then_some(Parked { segment: *segment, played: *played, hashes: *hashes })
    }

    /// Takes up what was parked.
    pub(super) fn resume(&mut self, parked: &Parked) {
        (self.played, self.hashes) = (parked.played, parked.hashes);
    }

    fn was_played(&self, number: u8) -> bool {
        self.played & (1 << number) != 0
    }

    /// Whether the seal lists this very frame; `None` without a seal.
    fn lists(&self, number: u8, hash: &FrameHash) -> Option<bool> {
        let vouched = self.vouched.as_ref()?;
        Some(vouched.body.hashes.get(usize::from(number)) == Some(hash))
    }

    /// Looks at a frame before it is opened; nothing changes. A number that was played is used up, unless what was
    /// played is not what this may turn out to be.
    pub(super) fn inspect(&self, frame: &Ciphertext<'_>, play: Play) -> Result<(), Dropped> {
        let number = frame.number();
        if self.vouched.is_none() && play == Play::AtOnce {
            return if self.was_played(number) { Err(Dropped::Duplicate) } else { Ok(()) };
        }
        let hash = frame.hash();
        let is_same = self.was_played(number) && self.hashes[usize::from(number)] == hash;
        let waits = self.candidates.iter().filter(|candidate| candidate.number == number);
        let is_kept = waits.clone().any(|candidate| candidate.hash == hash);
        let is_full = self.vouched.is_none() && waits.count() >= CANDIDATES;
        if is_same || is_kept || is_full { Err(Dropped::Duplicate) } else { Ok(()) }
    }

    /// A frame has opened that [`Record::inspect`] let pass.
    pub(super) fn take(&mut self, frame: &Ciphertext<'_>, play: Play, now: Instant) -> Fate {
        let (number, hash) = (frame.number(), frame.hash());
        self.first.get_or_insert(now);
        self.newest = Some(now);
        match (self.lists(number, &hash), play) {
            (Some(false), _) => return Fate::Unlisted,
            (Some(true), _) | (None, Play::AtOnce) => {}
            (None, Play::Vouched) => {
                let (body, tag) = (*frame.body(), *frame.tag());
                self.candidates.push(Candidate { number, hash, came: now, body, tag });
                return Fate::Held;
            }
        }
        self.note_played(number, hash);
        Fate::Played
    }

    /// A frame is played now. A copy of it that waits is not played again: verified mode may have ended between the two.
    fn note_played(&mut self, number: u8, hash: FrameHash) {
        self.candidates.retain(|one| one.number != number || one.hash != hash);
        self.played |= 1 << number;
        self.hashes[usize::from(number)] = hash;
    }

    /// The segment is over: its last frame came, or one of a later segment.
    pub(super) fn end(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// Takes a verified seal; whether a frame had opened that it does not list.
    pub(super) fn vouch(&mut self, head: SealHead, body: SealBody, now: Instant) -> bool {
        self.vouched = Some(Seal { head, body });
        let mut played = (0..MAX_FRAMES as u8).filter(|number| self.was_played(*number));
        let is_foreign = |number: u8| self.lists(number, &self.hashes[usize::from(number)]) == Some(false);
        let played_foreign = played.any(is_foreign);
        let waited = self.candidates.len();
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain(|one| self.lists(one.number, &one.hash) == Some(true));
        let held_foreign = candidates.len() < waited;
        // The same frame may have come again when verified mode had ended, and was played at once.
        let is_played =
            |one: &Candidate| self.was_played(one.number) && self.hashes[usize::from(one.number)] == one.hash;
        candidates.retain(|one| !is_played(one) && now.saturating_duration_since(one.came) < GIVE_UP);
        candidates.sort_by_key(|one| std::cmp::Reverse(one.number));
        self.candidates = candidates;
        played_foreign || held_foreign
    }

    /// The next frame that waited and is listed, in order: its number, ciphertext and tag. It counts as played.
    pub(super) fn next_listed(&mut self) -> Option<(u8, [u8; PLAINTEXT_LEN], [u8; TAG_LEN])> {
        self.vouched.as_ref()?;
        let Candidate { number, hash, body, tag, .. } = self.candidates.pop()?;
        self.note_played(number, hash);
        Some((number, body, tag))
    }

    /// Whether a frame waits that may be played.
    pub(super) fn has_listed(&self) -> bool {
        self.vouched.is_some() && !self.candidates.is_empty()
    }

    /// How many frames wait.
    pub(super) fn waiting(&self) -> usize {
        self.candidates.len()
    }

    /// When it must have its seal; `None` if that is settled, or nothing came of the segment.
    pub(super) fn seal_due(&self) -> Option<Instant> {
        let first = self.first.filter(|_| self.vouched.is_none() && !self.missed)?;
        Some(self.ended.unwrap_or(first + LONGEST_SEGMENT).min(first + LONGEST_SEGMENT) + SEAL_DUE)
    }

    /// When the newest frame came, if no seal has come in time; it is said once. Forgets what has waited too long.
    pub(super) fn judge(&mut self, now: Instant) -> Option<Instant> {
        self.candidates.retain(|one| now.saturating_duration_since(one.came) < GIVE_UP);
        let is_missed = self.seal_due().is_some_and(|due| due <= now);
        self.missed |= is_missed;
        self.newest.filter(|_| is_missed)
    }

    /// When the newest frame came, if the segment still waits for its seal.
    pub(super) fn unsealed(&self) -> Option<Instant> {
        self.newest.filter(|_| self.seal_due().is_some())
    }
}
