//! Ed25519 with a label on every signature, verified strictly (RFC 8032; no small-order keys, no malleable `S`).

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use std::fmt;

use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// An Ed25519 public key as it came in: 32 bytes, not yet known to be a point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signature: 64 bytes, not yet known to be valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// The signature does not verify, or the key is no usable key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a signature does not verify")]
pub struct BadSignature;

/// An Ed25519 secret key. Zeroised when dropped (by ed25519-dalek), neither shown nor copied.
pub struct KeyPair {
    key: SigningKey,
}

impl KeyPair {
    /// A new key pair from `rng`.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self { key: SigningKey::generate(rng) }
    }

    /// The key pair of a stored 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// The seed, for a keystore only.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.key.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// Signs `label ‖ parts…`.
    pub fn sign(&self, label: &str, parts: &[&[u8]]) -> Signature {
        Signature(self.key.sign(&join(label, parts)).to_bytes())
    }
}

impl PublicKey {
    /// Checks a signature over `label ‖ parts…`.
    ///
    /// # Errors
    /// [`BadSignature`], without saying which of key, message and signature is wrong.
    pub fn verify(&self, label: &str, parts: &[&[u8]], signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&join(label, parts), &signature).map_err(|_| BadSignature)
    }
}

fn join(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = label.as_bytes().to_vec();
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

impl Wire for PublicKey {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.array()?))
    }
}

impl Wire for Signature {
    fn write(&self, w: &mut Writer) {
        w.array(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(r.array()?))
    }
}
