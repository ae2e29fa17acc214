//! Media: SFrame (RFC 9605) with segment keys (`docs/protocol.md` §8).

pub mod frame;
pub mod header;
#[cfg(feature = "reports")]
pub(crate) mod kept;
pub mod receiver;
mod record;
pub mod sender;
pub mod suite;

use std::time::Duration;

use header::{Ctr, Header, Kid};

use crate::id::{Epoch, MeetingId, MemberIndex};

/// Length of every SFrame header of ours: config byte, 8-byte KID, 1-byte CTR (`docs/protocol.md` §8.2).
pub const HEADER_LEN: usize = 10;

/// Added to the frame's number in its segment, so that the CTR always takes one byte.
const CTR_BASE: u64 = 0x80;

/// A segment's number in its epoch; with 0.5 s each, 16 bits last nine hours of one epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentNumber(pub u16);

/// What a KID names: one sender's one segment key.
///
/// ```text
/// 1 (1 bit) ‖ 0 (7) ‖ index (16) ‖ epoch (24) ‖ segment (16)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyName {
    /// The sender.
    pub index: MemberIndex,
    /// The epoch.
    pub epoch: Epoch,
    /// The segment.
    pub segment: SegmentNumber,
}

impl KeyName {
    /// The KID.
    pub fn kid(self) -> Kid {
        let index = u64::from(self.index.0) << 40;
        let epoch = u64::from(self.epoch.number()) << 16;
        Kid(1 << 63 | index | epoch | u64::from(self.segment.0))
    }

    /// What a KID names; `None` when the fixed bits are not as they must be.
    pub fn of(kid: Kid) -> Option<Self> {
        if kid.0 >> 56 != 0x80 {
            return None;
        }
        let [_, i1, i0, e2, e1, e0, s1, s0] = kid.0.to_be_bytes();
        Some(Self {
            index: MemberIndex(u16::from_be_bytes([i1, i0])),
            epoch: Epoch::new(u32::from_be_bytes([0, e2, e1, e0]))?,
            segment: SegmentNumber(u16::from_be_bytes([s1, s0])),
        })
    }
}

/// Most frames in a segment: those of 10 ms.
pub const MAX_FRAMES: usize = 50;

/// A sender ends a segment at the latest so long after its first frame, full or not.
pub const LONGEST_SEGMENT: Duration = Duration::from_secs(1);

/// Frames per segment of 0.5 s.
pub fn frames_per_segment(frame_ms: u8) -> u8 {
    if frame_ms == 10 { 50 } else { 25 }
}

/// Header ‖ MeetingId ‖ slot.
const AAD_LEN: usize = HEADER_LEN + MeetingId::LEN + 2;

fn aad(header: &[u8; HEADER_LEN], meeting: &MeetingId, slot: MemberIndex) -> [u8; AAD_LEN] {
    let mut aad = [0; AAD_LEN];
    aad[..HEADER_LEN].copy_from_slice(header);
    aad[HEADER_LEN..HEADER_LEN + MeetingId::LEN].copy_from_slice(&meeting.0);
    aad[HEADER_LEN + MeetingId::LEN..].copy_from_slice(&slot.0.to_be_bytes());
    aad
}

pub(crate) fn encode_header(name: KeyName, number: u8) -> (Ctr, [u8; HEADER_LEN]) {
    let ctr = Ctr(CTR_BASE + u64::from(number));
    let mut bytes = [0; Header::MAX_LEN];
    let len = Header { kid: name.kid(), ctr }.encode(&mut bytes);
    debug_assert_eq!(len, HEADER_LEN);
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&bytes[..HEADER_LEN]);
    (ctr, header)
}
