//! The key schedule of an epoch (`docs/protocol.md` §7.3).
//!
//! ```text
//! kc_e  = H("conclave/1 kc" ‖ MeetingId ‖ e ‖ fresh_e)
//! ES_e  = HKDF-Extract(salt = T_e, ikm = fresh_e)
//! CK_0  = HKDF-Expand(ES_e, "conclave/1 sender" ‖ MeetingId ‖ e ‖ index ‖ vk)
//! SK_i  = HKDF-Expand(CK_i, "conclave/1 segment"),  CK_{i+1} = HKDF-Expand(CK_i, "conclave/1 next segment")
//! ctl_e = HKDF-Expand(ES_e, "conclave/1 ctl"),      mesh_e   = HKDF-Expand(ES_e, "conclave/1 mesh")
//! ```
//!
//! fresh_e and ES_e live only as long as it takes to derive what follows from them.

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use super::statement::ChainHash;
use crate::id::{Epoch, MeetingId, MemberIndex};
use crate::label;
use crate::secret::{self, Secret};
use crate::sign::PublicKey;

/// Purpose tag of fresh_e.
pub enum Fresh {}
/// Purpose tag of ES_e.
pub enum EpochSecretTag {}
/// Purpose tag of CK_i.
pub enum SenderChain {}
/// Purpose tag of SK_i.
pub enum Segment {}
/// Purpose tag of ctl_e.
pub enum Control {}
/// Purpose tag of mesh_e.
pub enum Mesh {}

/// The 32 bytes a leader draws for an epoch.
pub type FreshSecret = Secret<Fresh>;
/// CK_i of one sender.
pub type SenderChainKey = Secret<SenderChain>;
/// SK_i of one sender.
pub type SegmentKey = Secret<Segment>;

/// Draws fresh_e.
pub fn draw_fresh(rng: &mut (impl CryptoRng + ?Sized)) -> FreshSecret {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut());
    Secret::new(*bytes)
}

/// kc_e: commits the leader to one fresh_e for everybody.
pub fn key_commitment(meeting: MeetingId, epoch: Epoch, fresh: &FreshSecret) -> [u8; 32] {
    label::hash(label::KEY_COMMITMENT, &[&meeting.0, &epoch.number().to_be_bytes(), fresh.as_bytes()])
}

/// Whether `fresh` is what `commitment` commits to, in constant time.
pub fn commits_to(commitment: &[u8; 32], meeting: MeetingId, epoch: Epoch, fresh: &FreshSecret) -> bool {
    key_commitment(meeting, epoch, fresh).ct_eq(commitment).into()
}

/// ES_e, from which everything of one epoch follows.
pub struct EpochSecret {
    secret: Secret<EpochSecretTag>,
    meeting: MeetingId,
    epoch: Epoch,
}

impl EpochSecret {
    /// `ES_e = HKDF-Extract(T_e, fresh_e)`.
    pub fn new(meeting: MeetingId, epoch: Epoch, chain: &ChainHash, fresh: &FreshSecret) -> Self {
        Self { secret: secret::extract(&chain.0, fresh.as_bytes()), meeting, epoch }
    }

    /// CK_0 of one sender.
    pub fn sender_chain(&self, index: MemberIndex, sealing: &PublicKey) -> SenderChainKey {
        let epoch = self.epoch.number().to_be_bytes();
        let index = index.0.to_be_bytes();
        self.secret.expand(label::SENDER, &[&self.meeting.0, &epoch, &index, &sealing.0])
    }

    /// ctl_e.
    pub fn control(&self) -> Secret<Control> {
        self.secret.expand(label::CONTROL, &[])
    }

    /// mesh_e.
    pub fn mesh(&self) -> Secret<Mesh> {
        self.secret.expand(label::MESH, &[])
    }
}

/// SK_i of CK_i.
pub fn segment_key(chain: &SenderChainKey) -> SegmentKey {
    chain.expand(label::SEGMENT, &[])
}

/// CK_{i+1} of CK_i.
pub fn next_chain(chain: &SenderChainKey) -> SenderChainKey {
    chain.expand(label::SENDER_CHAIN, &[])
}

/// The commitment to a member's fresh value r: `H("conclave/1 fresh commit" ‖ MeetingId ‖ r)`.
pub fn fresh_commitment(meeting: MeetingId, value: &[u8; 32]) -> [u8; 32] {
    label::hash(label::FRESH_COMMIT, &[&meeting.0, value])
}
