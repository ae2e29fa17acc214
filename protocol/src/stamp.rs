//! The relay's stamp on the public part of a seal (`docs/protocol.md` §9.3): it shows that a seal passed that relay
//! in that minute from that slot, and nothing of what was said.
//!
//! The relay keeps no copy: whoever holds the stamp and the relay's key of that day can check it later.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

use crate::id::{MeetingId, MemberIndex};
use crate::label;
use crate::sign::PublicKey;
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// What a relay sees of a seal.
///
/// ```text
/// KID u64 ‖ count u8 ‖ root 32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealPublic {
    /// KID of the segment, which names the sender's index.
    pub kid: u64,
    /// Frames in the segment, 1 to 50.
    pub count: u8,
    /// What the seal's signature vouches for.
    pub root: [u8; 32],
}

impl SealPublic {
    /// Length in bytes.
    pub const WIRE_LEN: usize = 8 + 1 + 32;

    /// The sender that the KID names (`docs/protocol.md` §8.2).
    pub fn slot(&self) -> MemberIndex {
        let [_, hi, lo, ..] = self.kid.to_be_bytes();
        MemberIndex(u16::from_be_bytes([hi, lo]))
    }
}

impl Wire for SealPublic {
    fn write(&self, w: &mut Writer) {
        w.u64(self.kid);
        w.u8(self.count);
        w.array(&self.root);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { kid: r.u64()?, count: r.u8()?, root: r.array()? })
    }
}

/// Names a stamp key without giving it away: the first 8 bytes of its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StampKeyId(pub [u8; 8]);

/// Minutes since 1970, by the relay's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Minute(pub u32);

impl From<UnixMillis> for Minute {
    fn from(time: UnixMillis) -> Self {
        Self(u32::try_from(time.0 / 60_000).unwrap_or(u32::MAX))
    }
}

/// From whom a seal came, as the relay has checked it. The slot alone would not do: leaders give slots away, and who has a
/// member's published sealing key could take its slot. Only the member has the private half of its rk.
///
/// ```text
/// MeetingId 20 ‖ slot u16 ‖ rk 32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The meeting.
    pub meeting: MeetingId,
    /// The slot.
    pub slot: MemberIndex,
    /// The routing key by which the slot was taken.
    pub rk: PublicKey,
}

impl Wire for Origin {
    fn write(&self, w: &mut Writer) {
        self.meeting.write(w);
        self.slot.write(w);
        self.rk.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { meeting: MeetingId::read(r)?, slot: MemberIndex::read(r)?, rk: PublicKey::read(r)? })
    }
}

/// A relay's stamp.
///
/// ```text
/// key id 8 ‖ minute u32 ‖ HMAC-SHA-256(stamp key, "conclave/1 stamp" ‖ origin 54 ‖ minute ‖ public part 41)[..16]
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Which key.
    pub key: StampKeyId,
    /// When the seal passed.
    pub minute: Minute,
    /// The authenticator.
    pub mac: [u8; 16],
}

impl Stamp {
    /// Length in bytes.
    pub const WIRE_LEN: usize = 8 + 4 + 16;
}

impl Wire for Stamp {
    fn write(&self, w: &mut Writer) {
        w.array(&self.key.0);
        w.u32(self.minute.0);
        w.array(&self.mac);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { key: StampKeyId(r.array()?), minute: Minute(r.u32()?), mac: r.array()? })
    }
}

/// A relay's key of one day.
#[derive(ZeroizeOnDrop)]
pub struct StampKey([u8; 32]);

impl StampKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the file that the relays of a cluster and a moderator share.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its name.
    pub fn id(&self) -> StampKeyId {
        let hash = label::hash(label::STAMP_KEY_ID, &[&self.0]);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        StampKeyId(id)
    }

    /// Stamps the public part of a seal.
    pub fn stamp(&self, origin: &Origin, minute: Minute, public: &SealPublic) -> Stamp {
        let full = self.mac(origin, minute, public).finalize().into_bytes();
        let mut mac = [0; 16];
        mac.copy_from_slice(&full[..16]);
        Stamp { key: self.id(), minute, mac }
    }

    /// Whether this key made the stamp, in constant time.
    pub fn made(&self, stamp: &Stamp, origin: &Origin, public: &SealPublic) -> bool {
        self.id() == stamp.key && self.made_all_but_name(stamp, origin, public)
    }

    /// Whether this key made the stamp, whatever key the stamp names. One that was made by another than it names was
    /// changed: an honest relay's key names itself.
    pub fn made_all_but_name(&self, stamp: &Stamp, origin: &Origin, public: &SealPublic) -> bool {
        self.mac(origin, stamp.minute, public).verify_truncated_left(&stamp.mac).is_ok()
    }

    fn mac(&self, origin: &Origin, minute: Minute, public: &SealPublic) -> Hmac<Sha256> {
        // A key of 32 bytes has a length that HMAC takes; were it otherwise, no stamp of ours would ever verify.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| Hmac::new(&Default::default()));
        mac.update(label::STAMP.as_bytes());
        mac.update(&origin.encode());
        mac.update(&minute.0.to_be_bytes());
        mac.update(&public.encode());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_for_one_key_origin_minute_and_seal() {
        let key = StampKey::new([7; 32]);
        let slot = MemberIndex(5);
        let origin = Origin { meeting: MeetingId([1; 20]), slot, rk: PublicKey([2; 32]) };
        assert_eq!(Origin::decode(&origin.encode()), Ok(origin));
        let public = SealPublic { kid: 0x8000_0500_0003_0002, count: 25, root: [9; 32] };
        assert_eq!(public.slot(), slot);
        let stamp = key.stamp(&origin, Minute(28_000_000), &public);
        assert!(key.made(&stamp, &origin, &public));
        assert_eq!(Stamp::decode(&stamp.encode()), Ok(stamp));
        assert!(!StampKey::new([8; 32]).made(&stamp, &origin, &public));
        let renamed = Stamp { key: StampKeyId([3; 8]), ..stamp };
        assert!(!key.made(&renamed, &origin, &public));
        assert!(key.made_all_but_name(&renamed, &origin, &public));
        for other in [
            Origin { meeting: MeetingId([2; 20]), ..origin },
            Origin { slot: MemberIndex(6), ..origin },
            Origin { rk: PublicKey([3; 32]), ..origin },
        ] {
            assert!(!key.made(&stamp, &other, &public));
        }
        assert!(!key.made(&Stamp { minute: Minute(28_000_001), ..stamp }, &origin, &public));
        for changed in [
            SealPublic { kid: public.kid ^ 1, ..public },
            SealPublic { count: 24, ..public },
            SealPublic { root: [8; 32], ..public },
        ] {
            assert!(!key.made(&stamp, &origin, &changed));
        }
    }
}
