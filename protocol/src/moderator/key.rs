//! A moderator's secret half.

use hpke::kem::{Kem, XWing};
use hpke::{Deserializable, Serializable};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::Moderator;
use crate::identity::DisplayName;
use crate::sign::{KeyPair, Signature};

/// Opens reports, signs ban statements and requests to relays. Erased when dropped.
pub struct ModeratorKey {
    public: Moderator,
    signing: KeyPair,
    /// X-Wing's decapsulation key.
    sealing: Zeroizing<[u8; 32]>,
}

impl ModeratorKey {
    /// Length of the secret seeds: 32 bytes for Ed25519, 32 for X-Wing.
    pub const SEED_LEN: usize = 64;

    /// A new key under that name.
    pub fn generate(name: DisplayName, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seeds = Zeroizing::new([0; Self::SEED_LEN]);
        rng.fill_bytes(seeds.as_mut());
        Self::from_seeds(name, &seeds)
    }

    /// The key of 64 stored bytes: the Ed25519 seed, then X-Wing's decapsulation key
    /// (draft-connolly-cfrg-xwing-kem §5.2).
    pub fn from_seeds(name: DisplayName, seeds: &[u8; Self::SEED_LEN]) -> Self {
        let mut halves = Zeroizing::new([[0; 32]; 2]);
        halves[0].copy_from_slice(&seeds[..32]);
        halves[1].copy_from_slice(&seeds[32..]);
        let signing = KeyPair::from_seed(&halves[0]);
        let sealing = Zeroizing::new(halves[1]);
        let public = Moderator { name, signing: signing.public(), sealing: encapsulation_key(&sealing) };
        Self { public, signing, sealing }
    }

    /// The 64 bytes, for a key file only.
    pub fn seeds(&self) -> Zeroizing<[u8; Self::SEED_LEN]> {
        let mut seeds = Zeroizing::new([0; Self::SEED_LEN]);
        seeds[..32].copy_from_slice(self.signing.seed().as_ref());
        seeds[32..].copy_from_slice(self.sealing.as_ref());
        seeds
    }

    /// The public half.
    pub fn public(&self) -> &Moderator {
        &self.public
    }

    /// Signs `label ‖ parts…` with the signing key.
    pub fn sign(&self, label: &str, parts: &[&[u8]]) -> Signature {
        self.signing.sign(label, parts)
    }

    /// X-Wing's secret for HPKE, `None` never: it takes any 32 bytes.
    pub(crate) fn decapsulation_key(&self) -> Option<<XWing as Kem>::PrivateKey> {
        <XWing as Kem>::PrivateKey::from_bytes(self.sealing.as_ref()).ok()
    }
}

fn encapsulation_key(secret: &[u8; 32]) -> [u8; super::SEALING_KEY_LEN] {
    let mut public = [0; super::SEALING_KEY_LEN];
    // Only a wrong length is refused. Zeros are no key, so that nothing could be sealed to them.
    if let Ok(secret) = <XWing as Kem>::PrivateKey::from_bytes(secret) {
        XWing::sk_to_pk(&secret).write_exact(&mut public);
    }
    public
}
