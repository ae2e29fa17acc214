//! Frames that were kept without their header, which follows from the segment and the frame's number: for evidence,
//! long after the meeting, with the one key of the segment.

use super::frame::{Frame, PLAINTEXT_LEN};
use super::suite::{FrameKey, TAG_LEN};
use super::{HEADER_LEN, KeyName, aad, encode_header};
use crate::epoch::schedule::SegmentKey;
use crate::id::MeetingId;
use crate::seal::{FrameHash, frame_hash};

/// Ciphertext and tag.
type Kept = [u8; PLAINTEXT_LEN + TAG_LEN];

/// h_j of a frame that was kept.
pub(crate) fn hash(name: KeyName, number: u8, frame: &Kept) -> FrameHash {
    let (_, header) = encode_header(name, number);
    let mut sframe = [0; HEADER_LEN + PLAINTEXT_LEN + TAG_LEN];
    sframe[..HEADER_LEN].copy_from_slice(&header);
    sframe[HEADER_LEN..].copy_from_slice(frame);
    frame_hash(&sframe)
}

/// Opens a frame that was kept into `plaintext`; `None` when it does not open or is no frame.
pub(crate) fn open<'p>(
    meeting: &MeetingId,
    name: KeyName,
    key: &SegmentKey,
    (number, frame): (u8, &Kept),
    plaintext: &'p mut [u8; PLAINTEXT_LEN],
) -> Option<Frame<'p>> {
    let (ctr, header) = encode_header(name, number);
    let (ciphertext, tag) = frame.split_first_chunk::<PLAINTEXT_LEN>()?;
    plaintext.copy_from_slice(ciphertext);
    let key = FrameKey::derive(name.kid(), key.as_bytes());
    key.open_in_place(ctr, &aad(&header, meeting, name.index), plaintext, tag.try_into().ok()?).ok()?;
    Frame::read(plaintext)
}
