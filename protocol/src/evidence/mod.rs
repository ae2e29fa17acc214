//! What can be shown of what a member said (`docs/protocol.md` §17): kept in memory for a few minutes by everybody
//! who heard it, and given away only for the seconds that somebody reports.

pub mod ban;
pub mod category;
mod encoding;
pub mod number;
#[cfg(feature = "reports")]
pub mod report;
pub mod ring;
mod segment;
#[cfg(test)]
mod tests;

pub use encoding::MAX_SEGMENTS;

use crate::descriptor::Descriptor;
use crate::epoch::roster::Member;
use crate::epoch::schedule::SegmentKey;
use crate::epoch::statement::{ChainHash, Statement};
use crate::sframe::KeyName;
use crate::sframe::frame::PLAINTEXT_LEN;
use crate::sframe::suite::TAG_LEN;
use crate::sign::Signature;
use crate::stamp::Stamp;
use crate::succession::Line;

/// Ciphertext and tag of a frame; its SFrame header follows from the segment and the frame's number.
pub type FrameBytes = [u8; PLAINTEXT_LEN + TAG_LEN];

/// One epoch's proof that a member was in it: the statement, its signature, and the member's place in its roster.
#[derive(Clone, PartialEq, Debug)]
pub struct EpochProof {
    /// T_{e-1}.
    pub previous: ChainHash,
    /// stmt_e.
    pub statement: Statement,
    /// By the leader's authority, over T_e.
    pub signature: Signature,
    /// The line of succession, when the leader is not the host.
    pub line: Option<Line>,
    /// The member's place in order of index.
    pub position: u16,
    /// Members in the roster.
    pub count: u16,
    /// From the member's leaf to the root.
    pub path: Vec<[u8; 32]>,
}

/// One segment of what a member said.
pub struct SegmentProof {
    /// Which.
    pub name: KeyName,
    /// SK_i. It opens this segment and no other.
    pub key: SegmentKey,
    /// The whole seal, as it came.
    pub seal: Vec<u8>,
    /// The relay's stamp on it, if one came.
    pub stamp: Option<Stamp>,
    /// The frames that came, by number, in order.
    pub frames: Vec<(u8, FrameBytes)>,
}

/// Everything that is needed to prove what one member said in the chosen seconds, and nothing else.
pub struct Exhibit {
    /// D, from which the MeetingId follows.
    pub descriptor: Descriptor,
    /// The member, with its certificate.
    pub accused: Member,
    /// The epochs of the segments, in order, each once.
    pub epochs: Vec<EpochProof>,
    /// The segments in order of time.
    pub segments: Vec<SegmentProof>,
}
