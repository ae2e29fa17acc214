//! Sealing: one sender's keys of one epoch.
//!
//! INVARIANT: a (key, nonce) pair is used once. The sealer owns its counter, cannot be cloned or set back, and an
//! (index, epoch) pair gets one sealer in its life.

use super::frame::{DATAGRAM_LEN, Frame, PLAINTEXT_LEN};
use super::suite::FrameKey;
use super::{HEADER_LEN, KeyName, MAX_FRAMES, SegmentNumber, aad, encode_header, frames_per_segment};
use crate::epoch::schedule::{self, SegmentKey, SenderChainKey};
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::seal::{FrameHash, frame_hash};
use crate::wire::datagram::{self, Kind};

/// The epoch's segments are used up; a new epoch is overdue by hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no segment is left in this epoch")]
pub struct Exhausted;

/// A segment that is over: what its seal is made of.
pub struct Closed {
    /// The segment.
    pub name: KeyName,
    /// SK_i.
    pub key: SegmentKey,
    hashes: [FrameHash; MAX_FRAMES],
    count: u8,
}

impl Closed {
    /// h_0 … of all its frames, in order; at least one.
    pub fn hashes(&self) -> &[FrameHash] {
        &self.hashes[..usize::from(self.count)]
    }
}

/// Seals one sender's frames in one epoch.
pub struct Sealer {
    meeting: MeetingId,
    name: KeyName,
    chain: SenderChainKey,
    key: FrameKey,
    /// SK_i, until the segment is closed.
    segment: Option<SegmentKey>,
    hashes: [FrameHash; MAX_FRAMES],
    number: u8,
    per_segment: u8,
}

impl Sealer {
    /// Starts with segment 0 of CK_0.
    pub fn new(meeting: MeetingId, index: MemberIndex, epoch: Epoch, chain: SenderChainKey, frame_ms: u8) -> Self {
        let name = KeyName { index, epoch, segment: SegmentNumber(0) };
        let (segment, key, chain) = advance(name, &chain);
        let (segment, hashes) = (Some(segment), [[0; 16]; MAX_FRAMES]);
        Self { meeting, name, chain, key, segment, hashes, number: 0, per_segment: frames_per_segment(frame_ms) }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.name.epoch
    }

    /// Whether the next frame is the first of a segment: the place where senders change epochs.
    pub fn at_segment_boundary(&self) -> bool {
        self.number == 0 || self.number >= self.per_segment
    }

    /// Seals a frame into a whole datagram. Allocates nothing.
    ///
    /// # Errors
    /// [`Exhausted`] after 65,536 segments; `out` is untouched then.
    pub fn seal(&mut self, frame: &Frame<'_>, out: &mut [u8; DATAGRAM_LEN]) -> Result<(), Exhausted> {
        if self.number >= self.per_segment {
            let segment = self.name.segment.0.checked_add(1).ok_or(Exhausted)?;
            self.name.segment = SegmentNumber(segment);
            let (segment, key, chain) = advance(self.name, &self.chain);
            (self.segment, self.key, self.chain) = (Some(segment), key, chain);
            self.number = 0;
        }
        let number = self.number;
        let (ctr, header) = encode_header(self.name, number);
        self.number += 1;
        let mut plaintext = [0; PLAINTEXT_LEN];
        frame.write(&mut plaintext);
        let aad = aad(&header, &self.meeting, self.name.index);
        let tag = self.key.seal_in_place(ctr, &aad, &mut plaintext);
        let (head, rest) = out.split_at_mut(datagram::HEADER_LEN);
        head.copy_from_slice(&datagram::header(Kind::Media, self.name.index));
        let (sframe_header, rest) = rest.split_at_mut(HEADER_LEN);
        sframe_header.copy_from_slice(&header);
        let (body, sframe_tag) = rest.split_at_mut(PLAINTEXT_LEN);
        body.copy_from_slice(&plaintext);
        sframe_tag.copy_from_slice(&tag);
        self.hashes[usize::from(number)] = frame_hash(&out[datagram::HEADER_LEN..]);
        Ok(())
    }

    /// Ends the segment, full or not, and gives what its seal is made of; the next frame begins another. `None` when
    /// nothing was sent since the last one ended.
    pub fn close(&mut self) -> Option<Closed> {
        if self.number == 0 {
            return None;
        }
        let key = self.segment.take()?;
        let count = std::mem::replace(&mut self.number, self.per_segment);
        Some(Closed { name: self.name, key, hashes: self.hashes, count })
    }
}

/// SK_i of CK_i, the frame key that follows from it, and CK_{i+1}; CK_i is erased by its owner's assignment.
pub(super) fn advance(name: KeyName, chain: &SenderChainKey) -> (SegmentKey, FrameKey, SenderChainKey) {
    let segment = schedule::segment_key(chain);
    let key = FrameKey::derive(name.kid(), segment.as_bytes());
    (segment, key, schedule::next_chain(chain))
}
