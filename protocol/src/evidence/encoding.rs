//! The bytes of an exhibit (`docs/protocol.md` §10.4).
//!
//! Canonical: what is read encodes back to the same bytes. Whether it proves anything is another question. While
//! reading, each part is named after the step that looks at it (§10.6): what breaks the format fails there.

use super::{EpochProof, Exhibit, SegmentProof};
use crate::descriptor::Descriptor;
use crate::epoch::merkle::MAX_DEPTH;
use crate::epoch::roster::Member;
use crate::epoch::statement::{ChainHash, Statement};
use crate::seal;
use crate::secret::Secret;
use crate::sframe::KeyName;
use crate::sframe::header::Kid;
use crate::sign::Signature;
use crate::stamp::Stamp;
use crate::succession::Line;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Names of parts: the steps that look at them.
pub(crate) const MEETING_ID: &str = "meeting_id";
pub(crate) const AUTHORITY: &str = "authority";
pub(crate) const ROSTER: &str = "roster";
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const SEGMENT: &str = "segment";
pub(crate) const SEAL: &str = "seal";
pub(crate) const FRAME: &str = "frame";
pub(crate) const STAMP: &str = "stamp";

/// Most segments of an exhibit: 40 s.
pub const MAX_SEGMENTS: usize = 80;
/// Frames in the longest segment: 0.5 s of 10 ms.
const MAX_FRAMES: u8 = 50;

/// ```text
/// D: u16 × u8 ‖ member ‖ epochs: u16 × proof ‖ segments: u16 × proof
/// ```
impl Wire for Exhibit {
    fn write(&self, w: &mut Writer) {
        w.bytes(&self.descriptor.encode());
        self.accused.write(w);
        w.list(&self.epochs);
        w.list(&self.segments);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.begin(MEETING_ID);
        let descriptor = Descriptor::decode(r.bytes(Descriptor::MAX_LEN)?)?;
        r.begin(IDENTITY);
        let accused = Member::read(r)?;
        r.begin(AUTHORITY);
        // Every epoch is one of a segment.
        let epochs = r.list(MAX_SEGMENTS)?;
        r.begin(SEGMENT);
        Ok(Self { descriptor, accused, epochs, segments: r.list(MAX_SEGMENTS)? })
    }
}

impl Exhibit {
    /// An upper bound of the encoding's length, in bytes.
    pub fn max_len(&self) -> usize {
        let epoch =
            |proof: &EpochProof| 32 + Statement::WIRE_LEN + 64 + 2 + Line::MAX_LEN + 2 + 2 + 2 + 32 * proof.path.len();
        let segment = |proof: &SegmentProof| {
            let frames: usize = proof.frames.iter().map(|(_, bytes)| 1 + bytes.len()).sum();
            8 + 32 + 2 + proof.seal.len() + 1 + Stamp::WIRE_LEN + 1 + frames
        };
        let fixed = 2 + Descriptor::MAX_LEN + Member::WIRE_LEN + 2 + 2;
        fixed + self.epochs.iter().map(epoch).sum::<usize>() + self.segments.iter().map(segment).sum::<usize>()
    }
}

/// ```text
/// T_{e-1} 32 ‖ stmt_e 222 ‖ signature 64 ‖ line: u16 × u8 (none: 0) ‖ position u16 ‖ count u16 ‖ path: u16 × 32
/// ```
impl Wire for EpochProof {
    fn write(&self, w: &mut Writer) {
        w.array(&self.previous.0);
        self.statement.write(w);
        self.signature.write(w);
        w.bytes(&self.line.as_ref().map(Wire::encode).unwrap_or_default());
        w.u16(self.position);
        w.u16(self.count);
        w.list(&self.path);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.begin(AUTHORITY);
        let previous = ChainHash(r.array()?);
        let statement = Statement::read(r)?;
        let signature = Signature::read(r)?;
        let line = match r.bytes(Line::MAX_LEN)? {
            [] => None,
            bytes => Some(Line::decode(bytes)?),
        };
        r.begin(ROSTER);
        let (position, count) = (r.u16()?, r.u16()?);
        Ok(Self { previous, statement, signature, line, position, count, path: r.list(MAX_DEPTH)? })
    }
}

/// ```text
/// KID u64 ‖ SK_i 32 ‖ seal: u16 × u8 ‖ stamp: u8 (0 or 1) × 28 ‖ frames: u8 × (number u8, ascending ‖ ciphertext 132 ‖ tag 16)
/// ```
impl Wire for SegmentProof {
    fn write(&self, w: &mut Writer) {
        w.u64(self.name.kid().0);
        w.array(self.key.as_bytes());
        w.bytes(&self.seal);
        w.u8(u8::from(self.stamp.is_some()));
        if let Some(stamp) = &self.stamp {
            stamp.write(w);
        }
        debug_assert!(self.frames.len() <= usize::from(MAX_FRAMES));
        w.u8(u8::try_from(self.frames.len()).unwrap_or(u8::MAX));
        for (number, bytes) in &self.frames {
            w.u8(*number);
            w.array(bytes);
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.begin(SEGMENT);
        let name = KeyName::of(Kid(r.u64()?)).ok_or(Malformed("name of a segment"))?;
        r.begin(SEAL);
        let key = Secret::new(r.array()?);
        let seal = r.bytes(seal::MAX_LEN)?.to_vec();
        r.begin(STAMP);
        let stamp = match r.u8()? {
            0 => None,
            1 => Some(Stamp::read(r)?),
            _ => return Err(Malformed("stamp")),
        };
        r.begin(FRAME);
        let count = r.u8()?;
        let mut frames = Vec::new();
        for _ in 0..count {
            let number = r.u8()?;
            let is_next = frames.last().is_none_or(|(last, _)| *last < number);
            if !is_next || number >= MAX_FRAMES {
                return Err(Malformed("order of frames"));
            }
            frames.push((number, r.array()?));
        }
        Ok(Self { name, key, seal, stamp, frames })
    }
}
