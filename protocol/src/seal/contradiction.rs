//! The proof that a talker told two members two different things (`docs/protocol.md` §16.6): two of its own signed
//! words that cannot both be true.
//!
//! ```text
//! kind u8 1 ‖ head 104 ‖ head 104                    two heads of one KID
//! kind u8 2 ‖ head 104 of segment i ‖ T_e 32 ‖ body  the seal of segment i + 1 of the same epoch follows another root
//! body = public part 41 ‖ commit 32 ‖ count × h 16 ‖ prev 32 ‖ signature 64
//! ```

use super::{SealBody, SealHead, root};
use crate::epoch::statement::ChainHash;
use crate::id::MeetingId;
use crate::sframe::KeyName;
use crate::sframe::MAX_FRAMES;
use crate::sframe::header::Kid;
use crate::sign::{PublicKey, Signature};
use crate::stamp::SealPublic;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Two words of one talker that contradict each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contradiction {
    /// Two roots of one segment.
    Heads(SealHead, SealHead),
    /// A seal that does not follow the seal before it.
    Break {
        /// Of the segment before.
        before: SealHead,
        /// T_e of the epoch of both.
        chain: ChainHash,
        /// The seal after it, opened.
        after: Box<SealBody>,
    },
}

impl Contradiction {
    /// Whether the owner of `vk` signed both in this meeting, and they contradict each other.
    pub fn is_proof(&self, meeting: &MeetingId, vk: &PublicKey) -> bool {
        match self {
            Self::Heads(one, other) => {
                one.kid == other.kid
                    && one.root != other.root
                    && one.verify(meeting, vk).is_ok()
                    && other.verify(meeting, vk).is_ok()
            }
            Self::Break { before, chain, after } => {
                let SealPublic { kid, count, root: claimed } = after.public;
                let head = SealHead { kid, root: claimed, signature: after.signature };
                follows(before.kid, kid)
                    && after.prev != before.root
                    && root(chain, kid, count, &after.commit, &after.hashes, &after.prev) == claimed
                    && before.verify(meeting, vk).is_ok()
                    && head.verify(meeting, vk).is_ok()
            }
        }
    }
}

/// Whether two KIDs name a segment and the next one of the same talker and epoch.
fn follows(before: u64, after: u64) -> bool {
    match (KeyName::of(Kid(before)), KeyName::of(Kid(after))) {
        (Some(one), Some(next)) => {
            (one.index, one.epoch) == (next.index, next.epoch) && one.segment.0.checked_add(1) == Some(next.segment.0)
        }
        _ => false,
    }
}

impl Wire for Contradiction {
    fn write(&self, w: &mut Writer) {
        match self {
            Self::Heads(one, other) => {
                w.u8(1);
                one.write(w);
                other.write(w);
            }
            Self::Break { before, chain, after } => {
                w.u8(2);
                before.write(w);
                w.array(&chain.0);
                after.public.write(w);
                w.array(&after.commit);
                after.hashes.iter().for_each(|hash| w.array(hash));
                w.array(&after.prev);
                after.signature.write(w);
            }
        }
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            1 => Ok(Self::Heads(SealHead::read(r)?, SealHead::read(r)?)),
            2 => {
                let before = SealHead::read(r)?;
                let chain = ChainHash(r.array()?);
                let public = SealPublic::read(r)?;
                if public.count == 0 || usize::from(public.count) > MAX_FRAMES {
                    return Err(Malformed("frames in a seal"));
                }
                let commit = r.array()?;
                let hashes = (0..public.count).map(|_| r.array()).collect::<Result<_, _>>()?;
                let prev = r.array()?;
                let after = Box::new(SealBody { public, commit, hashes, prev, signature: Signature::read(r)? });
                Ok(Self::Break { before, chain, after })
            }
            _ => Err(Malformed("unknown contradiction")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, MemberIndex};
    use crate::seal::{Sealed, frame_hash};
    use crate::secret::Secret;
    use crate::sframe::SegmentNumber;
    use crate::sign::KeyPair;

    const MEETING: MeetingId = MeetingId([3; 20]);
    const CHAIN: ChainHash = ChainHash([4; 32]);

    fn seal(segment: u16, text: u8, prev: [u8; 32], sealing: &KeyPair) -> (SealBody, SealHead) {
        let segment = SegmentNumber(segment);
        let name = KeyName { index: MemberIndex(5), epoch: Epoch::new(3).expect("small"), segment };
        let (key, hashes) = (Secret::new([segment.0 as u8; 32]), [frame_hash(&[text; 122])]);
        let sealed =
            Sealed { meeting: &MEETING, chain: &CHAIN, name, key: &key, hashes: &hashes, prev, per_segment: 25 };
        let (bytes, head) = sealed.sign(sealing);
        (SealBody::open(&bytes, &MEETING, &key, 25).expect("opens"), head)
    }

    fn is_proof(contradiction: &Contradiction, sealing: &KeyPair) -> bool {
        let read = Contradiction::decode(&contradiction.encode()).expect("what was written");
        assert_eq!(read, *contradiction);
        read.is_proof(&MEETING, &sealing.public())
    }

    #[test]
    fn two_roots_of_one_segment_are_a_proof_against_their_signer_alone() {
        let (talker, other) = (KeyPair::from_seed(&[2; 32]), KeyPair::from_seed(&[3; 32]));
        let (_, one) = seal(7, 1, [0; 32], &talker);
        let (_, two) = seal(7, 2, [0; 32], &talker);
        let (_, next) = seal(8, 2, [0; 32], &talker);
        assert!(is_proof(&Contradiction::Heads(one, two), &talker));
        assert!(!is_proof(&Contradiction::Heads(one, two), &other));
        assert!(!is_proof(&Contradiction::Heads(one, one), &talker));
        assert!(!is_proof(&Contradiction::Heads(one, next), &talker));
        let (_, forged) = seal(7, 2, [0; 32], &other);
        assert!(!is_proof(&Contradiction::Heads(one, forged), &talker));
    }

    #[test]
    fn a_seal_that_follows_another_root_is_a_proof_and_one_that_follows_is_none() {
        let talker = KeyPair::from_seed(&[2; 32]);
        let (_, before) = seal(7, 1, [0; 32], &talker);
        let broken = |segment, prev| {
            let (after, _) = seal(segment, 2, prev, &talker);
            Contradiction::Break { before, chain: CHAIN, after: Box::new(after) }
        };
        assert!(is_proof(&broken(8, [9; 32]), &talker));
        assert!(!is_proof(&broken(8, before.root), &talker));
        assert!(!is_proof(&broken(9, [9; 32]), &talker));
        let Contradiction::Break { before, chain, mut after } = broken(8, before.root) else { unreachable!() };
        after.prev = [9; 32];
        assert!(!is_proof(&Contradiction::Break { before, chain, after }, &talker), "the root covers prev");
    }
}
