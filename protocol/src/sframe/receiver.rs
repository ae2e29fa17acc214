//! Opening: one talker's keys of one epoch at a listener, with replay protection, and what its seals say.
//!
//! A KID names exactly one key; nothing is tried with two. Replay is inspected before opening and recorded after,
//! so that a forgery can neither use up a number nor move the keys ahead.
//!
//! Every member holds every member's media keys, so a frame that opens shows only that *some* member made it. Two
//! windows of segments follow from that. The *trusted* one lies around the newest segment whose seal was verified, and
//! only seals move it: nobody but the talker can. The *newest* one follows the frames themselves, for as long as no
//! seal has come; whoever forges frames can move that one, and only that one.

#[cfg(test)]
mod tests;
mod vouching;

use std::time::{Duration, Instant};

use super::frame::{Frame, PLAINTEXT_LEN};
use super::header::Header;
use super::record::{Fate, Parked, Record};
use super::sender::advance;
use super::suite::{FrameKey, TAG_LEN};
use super::{CTR_BASE, HEADER_LEN, KeyName, SegmentNumber, aad, frames_per_segment};
use crate::epoch::schedule::{SenderChainKey, next_chain};
use crate::evidence::FrameBytes;
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::seal::{FrameHash, frame_hash};

/// How long a segment lasts at the sender.
const SEGMENT: Duration = Duration::from_millis(500);
/// Segments a sender may be ahead of elapsed time (DESIGN §12).
const AHEAD: u64 = 4;
/// Segments kept open for frames that come late: 2 s, more than any frame that could still be played.
const KEPT: u32 = 4;
/// How often one frame of a talker is tried that is further ahead than time explains: 480 derivations take about half
/// a millisecond, so forgeries cost less than a hundredth of a core.
const LEAP_EVERY: Duration = Duration::from_millis(100);
/// Most segments a gap may skip in one step, whatever time has passed: bounds the work that one datagram can ask
/// for. Two periodic epochs of 2 minutes.
const MAX_SKIP: u64 = 480;
/// Segments of the trusted window before the one after the newest verified seal: 3 s, as long as held frames wait.
const BACK: u32 = 6;
/// Segments of the trusted window from there on: seals may be 4 s late before frames are judged by time alone.
const TRUSTED: u32 = 8;
/// Room for both windows and what is on its way out of them; taken when the talker's first frame of the epoch opens.
const ROOM: usize = (BACK + TRUSTED + 2 * KEPT) as usize;
/// Segments between the windows of which is remembered what was played: 32 s. An honest talker's seals come earlier; one
/// who invents frames further ahead can have them played again, and no others.
const PARKED: usize = 64;
/// How often a seal is looked at that is further ahead than [`MAX_SKIP`]: 65,536 derivations take some 70 ms.
const FAR_EVERY: Duration = Duration::from_secs(10);

/// Why a frame was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// Not an SFrame ciphertext of this protocol.
    #[error("not a media frame")]
    Malformed,
    /// Played before, or kept already, or as often as frames of one number are.
    #[error("a frame came twice")]
    Duplicate,
    /// Its segment is closed.
    #[error("a frame came too late to be opened")]
    TooOld,
    /// Its segment lies further ahead than time allows.
    #[error("a frame is ahead of its time")]
    TooNew,
    /// No key: another epoch, or a sender who is no member.
    #[error("a frame of an unknown sender or epoch")]
    UnknownKey,
    /// Does not authenticate.
    #[error("a frame does not authenticate")]
    Unauthentic,
    /// Of a talker who has not confirmed for too long that it sees the same meeting.
    #[error("a frame of somebody who does not confirm the meeting's state")]
    Unconfirmed,
    /// Opens, and its talker's seal does not list it: somebody else made it.
    #[error("a frame that its talker does not vouch for")]
    Unlisted,
    /// Of a talker that was caught telling two members two different things.
    #[error("a frame of somebody who told two members different things")]
    Silenced,
}

/// When frames are played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Play {
    /// At once; the seal shows afterwards whose they were.
    AtOnce,
    /// When a verified seal lists them: verified mode (`docs/protocol.md` §9.4).
    Vouched,
}

/// A ciphertext's parts, read but not believed.
#[derive(Clone, Copy)]
pub struct Ciphertext<'a> {
    /// The key it names.
    pub name: KeyName,
    number: u8,
    header: &'a [u8; HEADER_LEN],
    body: &'a [u8; PLAINTEXT_LEN],
    tag: &'a [u8; TAG_LEN],
    whole: &'a [u8],
}

impl<'a> Ciphertext<'a> {
    /// Splits an SFrame ciphertext. It must have the one length and header form that this protocol uses.
    ///
    /// # Errors
    /// [`Dropped::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Dropped> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Dropped::Malformed)?;
        let (body, tag) = rest.split_first_chunk::<PLAINTEXT_LEN>().ok_or(Dropped::Malformed)?;
        let tag = tag.try_into().map_err(|_| Dropped::Malformed)?;
        let (parsed, len) = Header::decode(header).map_err(|_| Dropped::Malformed)?;
        let name = KeyName::of(parsed.kid).ok_or(Dropped::Malformed)?;
        let number = parsed.ctr.0.checked_sub(CTR_BASE).and_then(|n| u8::try_from(n).ok());
        match number {
            Some(number) if len == HEADER_LEN => Ok(Self { name, number, header, body, tag, whole: bytes }),
            _ => Err(Dropped::Malformed),
        }
    }
}

impl Ciphertext<'_> {
    /// The frame's number in its segment, from 0.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Ciphertext and tag, as evidence is kept.
    pub fn bytes(&self) -> FrameBytes {
        joined(self.body, self.tag)
    }

    /// Header, ciphertext and tag.
    pub fn whole(&self) -> &[u8] {
        self.whole
    }

    /// h_j.
    pub(super) fn hash(&self) -> FrameHash {
        frame_hash(self.whole)
    }

    pub(super) fn body(&self) -> &[u8; PLAINTEXT_LEN] {
        self.body
    }

    pub(super) fn tag(&self) -> &[u8; TAG_LEN] {
        self.tag
    }
}

fn joined(body: &[u8; PLAINTEXT_LEN], tag: &[u8; TAG_LEN]) -> FrameBytes {
    let mut bytes = [0; PLAINTEXT_LEN + TAG_LEN];
    bytes[..PLAINTEXT_LEN].copy_from_slice(body);
    bytes[PLAINTEXT_LEN..].copy_from_slice(tag);
    bytes
}

/// CK of one segment.
struct ChainAt {
    segment: u32,
    key: SenderChainKey,
}

impl ChainAt {
    fn duplicate(&self) -> Self {
        Self { segment: self.segment, key: self.key.duplicate() }
    }

    /// Goes on to a later segment.
    fn go_to(&mut self, segment: u32) {
        while self.segment < segment {
            self.key = next_chain(&self.key);
            self.segment += 1;
        }
    }
}

/// A frame that waited for its seal, in its turn.
pub struct Vouched<'p> {
    /// The segment.
    pub name: KeyName,
    /// The frame's number in it.
    pub number: u8,
    /// Ciphertext and tag.
    pub bytes: FrameBytes,
    /// What it says.
    pub frame: Frame<'p>,
}

/// Opens one talker's frames of one epoch, and keeps what its seals must list.
pub struct Opener {
    meeting: MeetingId,
    index: MemberIndex,
    epoch: Epoch,
    /// The first segment that may still be asked for.
    base: ChainAt,
    /// The segment after the newest whose seal was verified.
    anchor: u32,
    /// The segment after the newest of which a frame has opened.
    ahead: ChainAt,
    last_progress: Instant,
    /// When a frame was last tried that was further ahead than time explains; likewise a seal.
    last_leap: Option<Instant>,
    last_far: Option<Instant>,
    records: Vec<Record>,
    /// Of segments that the newest window has left and the trusted one has not reached.
    parked: Vec<Parked>,
    per_segment: u8,
    /// No frame is opened any more.
    closed: bool,
    /// A frame opened that a seal does not list; a segment has no seal. Not said yet.
    injected: bool,
    missed: Option<Instant>,
}

impl Opener {
    /// Starts before segment 0, with CK_0 received at `now`.
    pub fn new(
        meeting: MeetingId,
        index: MemberIndex,
        epoch: Epoch,
        chain: SenderChainKey,
        frame_ms: u8,
        now: Instant,
    ) -> Self {
        Self {
            meeting,
            index,
            epoch,
            base: ChainAt { segment: 0, key: chain.duplicate() },
            anchor: 0,
            ahead: ChainAt { segment: 0, key: chain },
            last_progress: now,
            last_leap: None,
            last_far: None,
            records: Vec::new(),
            parked: Vec::new(),
            per_segment: frames_per_segment(frame_ms),
            closed: false,
            injected: false,
            missed: None,
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Opens a frame into `plaintext` and returns it; [`None`] for one that now waits for its seal. Allocates nothing
    /// but when a talker begins, and for frames that wait; nothing changes unless it opens.
    ///
    /// # Errors
    /// [`Dropped`].
    pub fn open<'p>(
        &mut self,
        frame: &Ciphertext<'_>,
        play: Play,
        now: Instant,
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
    ) -> Result<Option<Frame<'p>>, Dropped> {
        if frame.name.index != self.index || frame.name.epoch != self.epoch {
            return Err(Dropped::UnknownKey);
        }
        if frame.number >= self.per_segment {
            return Err(Dropped::Malformed);
        }
        plaintext.copy_from_slice(frame.body);
        let segment = u32::from(frame.name.segment.0);
        if let Some(parked) = self.parked.iter().find(|parked| parked.segment == frame.name.segment) {
            parked.inspect(frame, play)?;
        }
        let place = if let Some(place) = self.place(segment) {
            let record = &self.records[place];
            record.inspect(frame, play)?;
            open_with(&record.frames, frame, &self.meeting, plaintext)?;
            place
        } else if self.is_trusted(segment) {
            self.open_trusted(frame, now, plaintext)?
        } else if segment < self.ahead.segment {
            return Err(Dropped::TooOld);
        } else {
            self.open_ahead(frame, now, plaintext)?
        };
        if Frame::read(plaintext).is_none() {
            return Err(Dropped::Malformed);
        }
        let fate = self.records[place].take(frame, play, now);
        if frame.number + 1 == self.per_segment {
            self.records[place].end(now);
        }
        let before = |record: &&mut Record| u32::from(record.segment.0) < segment;
        self.records.iter_mut().filter(before).for_each(|record| record.end(now));
        match fate {
            Fate::Played => Ok(Frame::read(plaintext)),
            Fate::Held => {
                plaintext.fill(0);
                Ok(None)
            }
            Fate::Unlisted => {
                plaintext.fill(0);
                self.injected = true;
                Err(Dropped::Unlisted)
            }
        }
    }

    fn place(&self, segment: u32) -> Option<usize> {
        self.records.iter().position(|record| u32::from(record.segment.0) == segment)
    }

    fn is_trusted(&self, segment: u32) -> bool {
        (self.anchor.saturating_sub(BACK)..self.anchor + TRUSTED).contains(&segment)
    }

    fn is_newest(&self, segment: u32) -> bool {
        (self.ahead.segment.saturating_sub(KEPT)..self.ahead.segment).contains(&segment)
    }

    /// The first frame of a segment of the trusted window.
    fn open_trusted(
        &mut self,
        frame: &Ciphertext<'_>,
        now: Instant,
        plaintext: &mut [u8; PLAINTEXT_LEN],
    ) -> Result<usize, Dropped> {
        let segment = u32::from(frame.name.segment.0);
        let mut chain = self.base.duplicate();
        chain.go_to(segment);
        let (key, frames, next) = advance(frame.name, &chain.key);
        open_with(&frames, frame, &self.meeting, plaintext)?;
        if segment >= self.ahead.segment {
            self.ahead = ChainAt { segment: segment + 1, key: next };
            self.last_progress = now;
        }
        self.prune();
        Ok(self.insert(Record::new(frame.name.segment, key, frames)))
    }

    fn open_ahead(
        &mut self,
        frame: &Ciphertext<'_>,
        now: Instant,
        plaintext: &mut [u8; PLAINTEXT_LEN],
    ) -> Result<usize, Dropped> {
        let segment = u32::from(frame.name.segment.0);
        let elapsed = now.saturating_duration_since(self.last_progress).as_millis() / SEGMENT.as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(MAX_SKIP);
        // Before the first frame nothing says when the sender began: the key may have come long after that.
        let elapsed = if self.ahead.segment == 0 { MAX_SKIP } else { elapsed };
        let allowed = elapsed.saturating_add(AHEAD).min(MAX_SKIP);
        let ahead = u64::from(segment - self.ahead.segment);
        if ahead > MAX_SKIP || (ahead > allowed && !self.may_leap(now)) {
            return Err(Dropped::TooNew);
        }
        let mut chain = self.ahead.duplicate();
        chain.go_to((segment + 1).saturating_sub(KEPT));
        let mut skipped: [Option<Record>; KEPT as usize] = Default::default();
        let mut newest = 0;
        for (place, slot) in skipped.iter_mut().enumerate() {
            if chain.segment > segment {
                break;
            }
            // `segment` came from 16 bits, so every number up to it fits.
            let name = KeyName { segment: SegmentNumber(chain.segment as u16), ..frame.name };
            let (key, frames, next) = advance(name, &chain.key);
            chain = ChainAt { segment: chain.segment + 1, key: next };
            *slot = Some(Record::new(name.segment, key, frames));
            newest = place;
        }
        let frames = skipped[newest].as_ref().map(|record| &record.frames).ok_or(Dropped::TooNew)?;
        open_with(frames, frame, &self.meeting, plaintext)?;
        self.ahead = chain;
        self.last_progress = now;
        self.prune();
        for record in skipped.into_iter().flatten() {
            if self.place(u32::from(record.segment.0)).is_none() {
                self.insert(record);
            }
        }
        self.place(segment).ok_or(Dropped::TooNew)
    }

    /// Whether a frame may be tried that is further ahead than time explains. Old frames that come all at once after a
    /// stall make the newest segment look young, and then every honest frame is; so one is tried now and then.
    fn may_leap(&mut self, now: Instant) -> bool {
        take_turn(&mut self.last_leap, now, LEAP_EVERY)
    }

    fn insert(&mut self, mut record: Record) -> usize {
        if let Some(place) = self.parked.iter().position(|parked| parked.segment == record.segment) {
            record.resume(&self.parked.swap_remove(place));
        }
        if self.records.capacity() < ROOM {
            self.records.reserve_exact(ROOM - self.records.len());
        }
        self.records.push(record);
        self.records.len() - 1
    }

    /// Forgets the segments that have left both windows. Of none of them a frame can be opened again.
    fn prune(&mut self) {
        let mut place = 0;
        if self.closed {
            return;
        }
        while let Some(record) = self.records.get(place) {
            let segment = u32::from(record.segment.0);
            if self.is_trusted(segment) || self.is_newest(segment) {
                place += 1;
            } else {
                self.missed = self.missed.max(record.unsealed());
                let parked = record.park().filter(|_| segment >= self.anchor);
                self.records.swap_remove(place);
                self.parked.extend(parked);
            }
        }
        let trusted_from = self.anchor.saturating_sub(BACK);
        self.parked.retain(|parked| u32::from(parked.segment.0) >= trusted_from);
        if self.parked.len() > PARKED {
            self.parked.sort_unstable_by_key(|parked| parked.segment);
            self.parked.truncate(PARKED);
        }
    }
}

/// What was found about a talker's frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// A frame opened that its talker's seal does not list.
    pub injected: bool,
    /// Frames opened of segments that have no seal in time: when the newest of them came.
    pub missed: Option<Instant>,
}

fn take_turn(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let may = last.is_none_or(|last| now.saturating_duration_since(last) >= every);
    if may {
        *last = Some(now);
    }
    may
}

fn open_with(
    key: &FrameKey,
    frame: &Ciphertext<'_>,
    meeting: &MeetingId,
    plaintext: &mut [u8; PLAINTEXT_LEN],
) -> Result<(), Dropped> {
    let ctr = super::header::Ctr(CTR_BASE + u64::from(frame.number));
    let aad = aad(frame.header, meeting, frame.name.index);
    key.open_in_place(ctr, &aad, plaintext, frame.tag).map_err(|_| Dropped::Unauthentic)
}
