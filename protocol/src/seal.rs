//! Seals: a sender's signature over what it sent in one segment (`docs/protocol.md` §16.1–16.2).
//!
//! Everybody holds everybody's media keys, so an open frame shows only that *some* member made it. The seal that
//! follows every segment shows who, and ties the segment's key to the one sound that it opens to.
//!
//! ```text
//! h_j  = H("conclave/1 frame hash" ‖ SFrame header 10 ‖ ciphertext ‖ tag)[..16]
//! root = H("conclave/1 seal root" ‖ T_e ‖ KID ‖ count ‖ commit ‖ h_0 … h_(count-1) ‖ prev)
//! seal = public part 41 ‖ ChaCha20-Poly1305(commit 32 ‖ N × h 16 (zeros after the last) ‖ prev 32 ‖ signature 64) ‖ tag 16
//! ```
//!
//! N is the number of frames in a full segment, so that every seal of a meeting is equally long. commit =
//! H("conclave/1 commits to segment" ‖ SK_i); key = HKDF-Expand(SK_i, "conclave/1 seal key"), nonce zeros, since a segment has one
//! seal; AAD = public part ‖ MeetingId. prev is the root of the sender's last seal, zeros before the first. The
//! signature is by vk over "conclave/1 seal sig" ‖ MeetingId ‖ KID ‖ root.

mod contradiction;

pub use contradiction::Contradiction;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};

use crate::epoch::schedule::SegmentKey;
use crate::epoch::statement::ChainHash;
use crate::id::MeetingId;
use crate::label;
use crate::secret::Secret;
use crate::sframe::KeyName;
use crate::sframe::header::Kid;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::stamp::SealPublic;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// h_j of one frame.
pub type FrameHash = [u8; 16];

/// Longest seal: 50 frames of 10 ms.
pub const MAX_LEN: usize = seal_len(50);
const TAG_LEN: usize = 16;

/// Length of every seal of a meeting with so many frames in a segment.
pub const fn seal_len(per_segment: u8) -> usize {
    SealPublic::WIRE_LEN + body_len(per_segment) + TAG_LEN
}

const fn body_len(per_segment: u8) -> usize {
    32 + 16 * per_segment as usize + 32 + 64
}

/// h_j of a frame as it is on the wire: SFrame header, ciphertext and tag, without the datagram's header.
pub fn frame_hash(sframe: &[u8]) -> FrameHash {
    let hash = label::hash(label::FRAME_HASH, &[sframe]);
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// The commitment to SK_i.
pub fn commit(key: &SegmentKey) -> [u8; 32] {
    label::hash(label::SEAL_COMMIT, &[key.as_bytes()])
}

/// The signed head of a seal: what members show each other to see that everybody was told the same.
///
/// ```text
/// KID u64 ‖ root 32 ‖ signature 64
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealHead {
    /// The segment.
    pub kid: u64,
    /// Its root.
    pub root: [u8; 32],
    /// By vk.
    pub signature: Signature,
}

impl SealHead {
    /// Length in bytes.
    pub const WIRE_LEN: usize = 8 + 32 + 64;

    fn sign(meeting: &MeetingId, kid: u64, root: [u8; 32], sealing: &KeyPair) -> Self {
        let signature = sealing.sign(label::SEAL, &[&meeting.0, &kid.to_be_bytes(), &root]);
        Self { kid, root, signature }
    }

    /// Checks that the owner of `vk` signed this head in this meeting.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, meeting: &MeetingId, vk: &PublicKey) -> Result<(), BadSignature> {
        vk.verify(label::SEAL, &[&meeting.0, &self.kid.to_be_bytes(), &self.root], &self.signature)
    }
}

impl Wire for SealHead {
    fn write(&self, w: &mut Writer) {
        w.u64(self.kid);
        w.array(&self.root);
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { kid: r.u64()?, root: r.array()?, signature: Signature::read(r)? })
    }
}

/// What a seal says, opened but not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealBody {
    /// The public part.
    pub public: SealPublic,
    /// The commitment to SK_i.
    pub commit: [u8; 32],
    /// h_0 … h_(count-1).
    pub hashes: Vec<FrameHash>,
    /// Root of the sender's last seal, zeros before the first.
    pub prev: [u8; 32],
    /// By vk.
    pub signature: Signature,
}

/// At which step a seal fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSeal {
    /// Not a seal of this meeting's length, of this segment, or not openable with its key.
    #[error("the seal does not open with its segment's key")]
    Unreadable,
    /// For another segment key.
    #[error("the seal commits to another segment key")]
    Commitment,
    /// The root is not over what the seal lists.
    #[error("the seal's root is not over its frames")]
    Root,
    /// Not signed by the sender.
    #[error("the seal's signature is not its sender's")]
    Signature,
}

/// What a sender vouches for at the end of a segment.
pub struct Sealed<'a> {
    /// The meeting.
    pub meeting: &'a MeetingId,
    /// T_e of the segment's epoch.
    pub chain: &'a ChainHash,
    /// The segment.
    pub name: KeyName,
    /// SK_i.
    pub key: &'a SegmentKey,
    /// h_0 … of all its frames, 1 to N.
    pub hashes: &'a [FrameHash],
    /// Root of the last seal.
    pub prev: [u8; 32],
    /// N.
    pub per_segment: u8,
}

impl Sealed<'_> {
    /// The seal and its head.
    pub fn sign(&self, sealing: &KeyPair) -> (Vec<u8>, SealHead) {
        debug_assert!(!self.hashes.is_empty() && self.hashes.len() <= usize::from(self.per_segment));
        let commit = commit(self.key);
        // Bounded by the number of frames in a segment.
        let count = self.hashes.len() as u8;
        let Kid(kid) = self.name.kid();
        let root = root(self.chain, kid, count, &commit, self.hashes, &self.prev);
        let head = SealHead::sign(self.meeting, kid, root, sealing);
        let public = SealPublic { kid, count, root }.encode();
        let mut w = Writer::default();
        w.array(&commit);
        self.hashes.iter().for_each(|hash| w.array(hash));
        w.array(&vec![0; 16 * (usize::from(self.per_segment) - self.hashes.len())]);
        w.array(&self.prev);
        head.signature.write(&mut w);
        let mut body = w.into_bytes();
        let tag = cipher(self.key).encrypt_inout_detached(
            &Nonce::default(),
            &aad(&public, self.meeting),
            (&mut body[..]).into(),
        );
        // The only error is a message of 256 GiB.
        let tag = tag.unwrap_or_default();
        ([&public[..], &body, &tag].concat(), head)
    }
}

impl SealBody {
    /// Opens a seal with SK_i. Nothing in it is checked yet but that it was made by a holder of SK_i.
    ///
    /// # Errors
    /// [`BadSeal::Unreadable`].
    pub fn open(seal: &[u8], meeting: &MeetingId, key: &SegmentKey, per_segment: u8) -> Result<Self, BadSeal> {
        if seal.len() != seal_len(per_segment) {
            return Err(BadSeal::Unreadable);
        }
        let (public, rest) = seal.split_at(SealPublic::WIRE_LEN);
        let (body, tag) = rest.split_at(rest.len() - TAG_LEN);
        let mut body = body.to_vec();
        let tag = Tag::try_from(tag).map_err(|_| BadSeal::Unreadable)?;
        cipher(key)
            .decrypt_inout_detached(&Nonce::default(), &aad(public, meeting), (&mut body[..]).into(), &tag)
            .map_err(|_| BadSeal::Unreadable)?;
        Self::parse(public, &body, per_segment).map_err(|_| BadSeal::Unreadable)
    }

    fn parse(public: &[u8], body: &[u8], per_segment: u8) -> Result<Self, Malformed> {
        let public = SealPublic::decode(public)?;
        if public.count == 0 || public.count > per_segment {
            return Err(Malformed("frames in a seal"));
        }
        let mut r = Reader::new(body);
        let commit = r.array()?;
        let hashes = (0..public.count).map(|_| r.array()).collect::<Result<_, _>>()?;
        let padding = r.take(16 * usize::from(per_segment - public.count))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Malformed("padding of a seal"));
        }
        let prev = r.array()?;
        let signature = Signature::read(&mut r)?;
        r.end()?;
        Ok(Self { public, commit, hashes, prev, signature })
    }

    /// Checks commitment, root and signature.
    ///
    /// # Errors
    /// The first step that fails, in the order of [`BadSeal`].
    pub fn verify(
        &self,
        meeting: &MeetingId,
        chain: &ChainHash,
        key: &SegmentKey,
        vk: &PublicKey,
    ) -> Result<SealHead, BadSeal> {
        if self.commit != commit(key) {
            return Err(BadSeal::Commitment);
        }
        let SealPublic { kid, count, root: claimed } = self.public;
        if root(chain, kid, count, &self.commit, &self.hashes, &self.prev) != claimed {
            return Err(BadSeal::Root);
        }
        let head = SealHead { kid, root: claimed, signature: self.signature };
        head.verify(meeting, vk).map_err(|_| BadSeal::Signature)?;
        Ok(head)
    }
}

fn root(chain: &ChainHash, kid: u64, count: u8, commit: &[u8; 32], hashes: &[FrameHash], prev: &[u8; 32]) -> [u8; 32] {
    label::hash(label::SEAL_ROOT, &[&chain.0, &kid.to_be_bytes(), &[count], commit, hashes.as_flattened(), prev])
}

fn aad(public: &[u8], meeting: &MeetingId) -> Vec<u8> {
    [public, &meeting.0].concat()
}

/// Purpose tag of the key of one seal.
enum SealKey {}

fn cipher(key: &SegmentKey) -> ChaCha20Poly1305 {
    let key: Secret<SealKey> = key.expand(label::SEAL_KEY, &[]);
    ChaCha20Poly1305::new(key.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, MemberIndex};
    use crate::sframe::SegmentNumber;

    const MEETING: MeetingId = MeetingId([3; 20]);
    const CHAIN: ChainHash = ChainHash([4; 32]);

    fn name() -> KeyName {
        KeyName { index: MemberIndex(5), epoch: Epoch::new(3).expect("small"), segment: SegmentNumber(2) }
    }

    fn seal(key: &SegmentKey, count: usize, per_segment: u8, sealing: &KeyPair) -> (Vec<u8>, SealHead) {
        let hashes: Vec<FrameHash> = (0..count).map(|i| frame_hash(&[i as u8; 122])).collect();
        let prev = [6; 32];
        Sealed { meeting: &MEETING, chain: &CHAIN, name: name(), key, hashes: &hashes, prev, per_segment }.sign(sealing)
    }

    #[test]
    fn seals_are_equally_long_and_verify_at_their_place_only() {
        let key = Secret::new([1; 32]);
        let sealing = KeyPair::from_seed(&[2; 32]);
        for (count, per_segment) in [(1, 25), (25, 25), (7, 50), (50, 50)] {
            let (bytes, head) = seal(&key, count, per_segment, &sealing);
            assert_eq!(bytes.len(), seal_len(per_segment));
            let body = SealBody::open(&bytes, &MEETING, &key, per_segment).expect("opens");
            assert_eq!(body.public.slot(), MemberIndex(5));
            assert_eq!(body.verify(&MEETING, &CHAIN, &key, &sealing.public()), Ok(head));
            let other = KeyPair::from_seed(&[3; 32]).public();
            assert_eq!(body.verify(&MEETING, &CHAIN, &key, &other), Err(BadSeal::Signature));
            assert_eq!(body.verify(&MeetingId([0; 20]), &CHAIN, &key, &sealing.public()), Err(BadSeal::Signature));
            assert_eq!(body.verify(&MEETING, &ChainHash([0; 32]), &key, &sealing.public()), Err(BadSeal::Root));
            assert_eq!(
                body.verify(&MEETING, &CHAIN, &Secret::new([9; 32]), &sealing.public()),
                Err(BadSeal::Commitment)
            );
            assert_eq!(SealBody::open(&bytes, &MEETING, &Secret::new([9; 32]), per_segment), Err(BadSeal::Unreadable));
        }
    }

    #[test]
    fn no_byte_of_a_seal_can_be_changed() {
        let key = Secret::new([1; 32]);
        let sealing = KeyPair::from_seed(&[2; 32]);
        let (bytes, _) = seal(&key, 25, 25, &sealing);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(SealBody::open(&changed, &MEETING, &key, 25), Err(BadSeal::Unreadable), "byte {at}");
        }
    }
}
