//! One segment of one talker in the evidence ring.

use std::time::{Duration, Instant};

use super::{FrameBytes, SegmentProof};
use crate::epoch::schedule::SegmentKey;
use crate::id::MeetingId;
use crate::seal::{FrameHash, SealBody, frame_hash};
use crate::sframe::{HEADER_LEN, KeyName, SegmentNumber, encode_header, frames_per_segment};
use crate::stamp::Stamp;

/// Frames of one number that are kept until the seal says which is the true one (DESIGN §7).
const CANDIDATES: usize = 4;

/// Frames by their number.
pub(super) type Frames = Vec<(u8, FrameBytes)>;

/// What vouches for a segment.
struct Proof {
    key: SegmentKey,
    seal: Box<[u8]>,
    stamp: Option<Stamp>,
}

/// See the module.
pub(super) struct Segment {
    serial: u32,
    name: KeyName,
    began: Instant,
    frame_ms: u8,
    /// As they came. Before the seal there may be two of a number, one of them forged.
    frames: Frames,
    /// Whether anything in it was not muted.
    is_heard: bool,
    proof: Option<Proof>,
}

impl Segment {
    /// A segment of which the first frame comes now. `frames`: an empty buffer for a whole segment.
    pub(super) fn new(now: Instant, serial: u32, name: KeyName, frame_ms: u8, frames: Frames) -> Self {
        Self { serial, name, began: now, frame_ms, frames, is_heard: false, proof: None }
    }

    /// The order in time among one talker's: its epoch's place in the ring, and its number.
    pub(super) fn order(&self) -> (u32, SegmentNumber) {
        (self.serial, self.name.segment)
    }

    /// When it would have begun to arrive, by the earliest of its frames.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn length(&self) -> Duration {
        let frames = u32::from(frames_per_segment(self.frame_ms));
        Duration::from_millis(u64::from(self.frame_ms)) * frames
    }

    /// When it is over at the latest.
    pub(super) fn over(&self) -> Instant {
        self.began + self.length()
    }

    /// The moment by which it counts as inside a window or outside.
    pub(super) fn middle(&self) -> Instant {
        self.began + self.length() / 2
    }

    /// Its buffer, empty, for another segment; not one that forgeries have made longer.
    pub(super) fn into_buffer(self) -> Option<Frames> {
        let mut frames = self.frames;
        frames.clear();
        (frames.capacity() == usize::from(frames_per_segment(self.frame_ms))).then_some(frames)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.proof.is_some()
    }

    /// How much of it can be proved.
    pub(super) fn provable(&self) -> Duration {
        let frames = if self.is_sealed() { self.frames.len() as u32 } else { 0 };
        Duration::from_millis(u64::from(self.frame_ms)) * frames
    }

    /// How much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let seal = self.proof.as_ref().map_or(0, |proof| proof.seal.len());
        size_of::<Self>() + self.frames.capacity() * size_of::<(u8, FrameBytes)>() + seal
    }

    /// One of its frames. More than the buffer takes only when forgeries are among them, and never more than
    /// [`CANDIDATES`] times as many.
    pub(super) fn on_frame(&mut self, now: Instant, meeting: &MeetingId, number: u8, frame: &FrameBytes, muted: bool) {
        let most = CANDIDATES * usize::from(frames_per_segment(self.frame_ms));
        if self.frames.len() >= most || self.frames.contains(&(number, *frame)) {
            return;
        }
        // After the seal only what it lists counts; few frames are that late, so it is opened for each.
        if let Some(proof) = &self.proof {
            let per_segment = frames_per_segment(self.frame_ms);
            let body = SealBody::open(&proof.seal, meeting, &proof.key, per_segment);
            if !body.is_ok_and(|body| lists(self.name, &body.hashes, number, frame)) {
                return;
            }
        }
        let since_first = Duration::from_millis(u64::from(self.frame_ms) * u64::from(number));
        self.began = self.began.min(now.checked_sub(since_first).unwrap_or(now));
        self.is_heard |= !muted;
        self.frames.push((number, *frame));
    }

    /// Its seal, which is verified: only what it lists stays. `false` when nothing is worth keeping.
    pub(super) fn on_seal(&mut self, meeting: &MeetingId, key: &SegmentKey, seal: &[u8], stamp: Option<Stamp>) -> bool {
        if self.proof.is_some() {
            return true;
        }
        let Ok(body) = SealBody::open(seal, meeting, key, frames_per_segment(self.frame_ms)) else { return true };
        self.frames.retain(|(number, frame)| lists(self.name, &body.hashes, *number, frame));
        self.proof = Some(Proof { key: key.duplicate(), seal: seal.into(), stamp });
        self.is_heard && !self.frames.is_empty()
    }

    /// What proves it, if its seal has come.
    pub(super) fn proof(&self) -> Option<SegmentProof> {
        let proof = self.proof.as_ref()?;
        let mut frames = self.frames.clone();
        frames.sort_unstable_by_key(|(number, _)| *number);
        let (key, seal) = (proof.key.duplicate(), proof.seal.to_vec());
        Some(SegmentProof { name: self.name, key, seal, stamp: proof.stamp, frames })
    }
}

/// Whether a seal lists a frame in its place.
fn lists(name: KeyName, hashes: &[FrameHash], number: u8, frame: &FrameBytes) -> bool {
    let (_, header) = encode_header(name, number);
    let mut sframe = [0; HEADER_LEN + size_of::<FrameBytes>()];
    sframe[..HEADER_LEN].copy_from_slice(&header);
    sframe[HEADER_LEN..].copy_from_slice(frame);
    hashes.get(usize::from(number)) == Some(&frame_hash(&sframe))
}
