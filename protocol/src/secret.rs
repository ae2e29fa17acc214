//! Key material: zeroised when dropped, with no `Debug`, `Clone` or comparison, tagged by purpose so that a key
//! for one thing cannot be passed for another.

use hkdf::Hkdf;
use sha2::Sha256;
use std::marker::PhantomData;
use zeroize::Zeroizing;

/// 32 secret bytes of purpose `P`.
pub struct Secret<P> {
    bytes: Zeroizing<[u8; 32]>,
    purpose: PhantomData<fn() -> P>,
}

impl<P> Secret<P> {
    /// Takes the bytes over. The caller's copy, if any, is the caller's to erase.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes: Zeroizing::new(bytes), purpose: PhantomData }
    }

    /// The bytes, for derivation and for sealing into a message.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A second copy where the protocol sends a key on.
    pub(crate) fn duplicate(&self) -> Self {
        Self::new(*self.bytes)
    }

    /// `HKDF-Expand(self, label ‖ parts…, 32)` (RFC 5869, SHA-256). No heap is used.
    pub fn expand<Q>(&self, label: &str, parts: &[&[u8]]) -> Secret<Q> {
        let mut info: [&[u8]; MAX_PARTS + 1] = [&[]; MAX_PARTS + 1];
        debug_assert!(parts.len() <= MAX_PARTS);
        info[0] = label.as_bytes();
        for (slot, part) in info[1..].iter_mut().zip(parts) {
            *slot = part;
        }
        let mut okm = Zeroizing::new([0; 32]);
        // Neither call can fail: the key has the hash's length, and 32 bytes are far below HKDF's limit. If one
        // did, the key would be zeros on this side only and nothing would open: it fails closed.
        if let Ok(hkdf) = Hkdf::<Sha256>::from_prk(self.as_bytes()) {
            let expanded = hkdf.expand_multi_info(&info, okm.as_mut());
            debug_assert!(expanded.is_ok());
        }
        Secret { bytes: okm, purpose: PhantomData }
    }
}

/// Most parts that [`Secret::expand`] takes beside the label.
const MAX_PARTS: usize = 5;

/// `HKDF(salt, ikm, info = label ‖ parts…, 32)`: extract and expand.
pub fn derive<P>(salt: &[u8], ikm: &[u8], label: &str, parts: &[&[u8]]) -> Secret<P> {
    extract::<()>(salt, ikm).expand(label, parts)
}

/// `HKDF-Extract(salt, ikm)`.
pub fn extract<P>(salt: &[u8], ikm: &[u8]) -> Secret<P> {
    let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), ikm);
    let secret = Secret::new(prk.into());
    zeroize::Zeroize::zeroize(prk.as_mut_slice());
    secret
}
