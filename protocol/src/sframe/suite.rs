//! SFrame's key derivation, nonce and AEAD (RFC 9605 §4.4) for this project's one cipher suite.
//!
//! Owns: [`FrameKey`], the key and salt of one KID. Refuses: nothing but frames that do not open, and
//! says of them no more than that. Whoever holds a `FrameKey` for sealing owns the counter and the
//! choice of header and metadata; replay is judged elsewhere. Sealing and opening allocate nothing.
//!
//! The suite, from the private-use range of RFC 9605 §8.1:
//!
//! | id | hash | AEAD | Nh | Nk | Nn | Nt |
//! |---|---|---|---|---|---|---|
//! | `0xF001` | SHA-256 | ChaCha20-Poly1305 | 32 | 32 | 12 | 16 |

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use hkdf::{GenericHkdf, HmacImpl};
use hmac::Hmac;
use hmac::digest::Output;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::header::{Ctr, Kid};

/// The suite's identifier, from the private-use range 0xF000–0xFFFF (RFC 9605 §8.1).
pub const SUITE_ID: u16 = 0xF001;

/// Bytes of an authentication tag (Nt).
pub const TAG_LEN: usize = 16;

/// Bytes of a base key: Nh of the suite's hash, so that HKDF-Extract loses nothing.
pub const BASE_KEY_LEN: usize = 32;

/// Bytes of the AEAD's key (Nk).
const KEY_LEN: usize = 32;

/// Bytes of the AEAD's nonce (Nn).
const NONCE_LEN: usize = 12;

/// The AEAD key and salt of one KID; wiped on drop.
///
/// INVARIANT: a key seals at most one frame per [`Ctr`]. The type cannot see to that, since receivers
/// need any counter: only the sealing side's owner of the counter may call [`FrameKey::seal_in_place`].
#[derive(ZeroizeOnDrop)]
pub struct FrameKey {
    key: [u8; KEY_LEN],
    salt: [u8; NONCE_LEN],
}

/// The frame does not open: wrong key, counter, associated data, ciphertext or tag, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame cannot be opened")]
pub struct OpenError;

impl FrameKey {
    /// Derives the key and salt of `kid` from its base key (RFC 9605 §4.4.2):
    ///
    /// ```text
    /// sframe_secret = HKDF-Extract("", base_key)
    /// sframe_key    = HKDF-Expand(sframe_secret, "SFrame 1.0 Secret key "  ‖ kid ‖ suite, Nk)
    /// sframe_salt   = HKDF-Expand(sframe_secret, "SFrame 1.0 Secret salt " ‖ kid ‖ suite, Nn)
    /// ```
    ///
    /// `kid` in 8 and `suite` in 2 bytes, big-endian. The caller goes on owning `base_key`, and wipes it.
    pub fn derive(kid: Kid, base_key: &[u8; BASE_KEY_LEN]) -> Self {
        let mut derived = Self { key: [0; KEY_LEN], salt: [0; NONCE_LEN] };
        derive_key_and_salt::<Hmac<Sha256>>(SUITE_ID, kid, base_key, &mut derived.key, &mut derived.salt);
        derived
    }

    /// Encrypts `buf` in place as frame number `ctr`, and returns the tag. `aad` is the encoded header
    /// followed by the metadata.
    ///
    /// `ctr` must never have been used with this key for sealing before.
    pub fn seal_in_place(&self, ctr: Ctr, aad: &[u8], buf: &mut [u8]) -> [u8; TAG_LEN] {
        self.cipher()
            .encrypt_inout_detached(&self.nonce(ctr), aad, buf.into())
            .expect("INVARIANT: a frame is shorter than ChaCha20's limit of 256 GiB")
            .into()
    }

    /// Checks `tag`, then decrypts `buf` in place. The arguments are those of sealing.
    ///
    /// # Errors
    /// [`OpenError`] if anything differs from what was sealed. `buf` then still holds the ciphertext.
    pub fn open_in_place(&self, ctr: Ctr, aad: &[u8], buf: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), OpenError> {
        self.cipher().decrypt_inout_detached(&self.nonce(ctr), aad, buf.into(), &Tag::from(*tag)).map_err(|_| OpenError)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(<&Key>::from(&self.key))
    }

    fn nonce(&self, ctr: Ctr) -> Nonce {
        frame_nonce(&self.salt, ctr).into()
    }
}

/// RFC 9605 §4.4.2 for any suite: `M` is HMAC with the suite's hash, the outputs' lengths are Nk and Nn.
fn derive_key_and_salt<M: HmacImpl>(suite: u16, kid: Kid, base_key: &[u8], key: &mut [u8], salt: &mut [u8]) {
    let (mut secret, hkdf) = sframe_secret::<M>(base_key);
    secret.as_mut_slice().zeroize();
    expand(&hkdf, KEY_LABEL, kid, suite, key);
    expand(&hkdf, SALT_LABEL, kid, suite, salt);
}

/// `HKDF-Extract("", base_key)`, and HKDF keyed with it.
fn sframe_secret<M: HmacImpl>(base_key: &[u8]) -> (Output<M>, GenericHkdf<M>) {
    GenericHkdf::<M>::extract(None, base_key)
}

fn expand<M: HmacImpl>(hkdf: &GenericHkdf<M>, label: &[u8], kid: Kid, suite: u16, out: &mut [u8]) {
    hkdf.expand_multi_info(&[label, &kid.0.to_be_bytes(), &suite.to_be_bytes()], out)
        .expect("INVARIANT: Nk and Nn are shorter than HKDF's limit of 255 hashes");
}

/// The salt XOR the counter in `N` = Nn bytes, big-endian (RFC 9605 §4.4.3).
fn frame_nonce<const N: usize>(salt: &[u8; N], ctr: Ctr) -> [u8; N] {
    const { assert!(N >= 8, "a shorter nonce would lose bits of the counter") };
    let mut nonce = *salt;
    for (byte, ctr) in nonce[N - 8..].iter_mut().zip(ctr.0.to_be_bytes()) {
        *byte ^= ctr;
    }
    nonce
}

/// Label of `sframe_key`, RFC 9605 §4.4.2; the last space belongs to it.
const KEY_LABEL: &[u8] = b"SFrame 1.0 Secret key ";

/// Label of `sframe_salt`, RFC 9605 §4.4.2; the last space belongs to it.
const SALT_LABEL: &[u8] = b"SFrame 1.0 Secret salt ";

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::*;
    use aes::Aes128;
    use aes_gcm::{Aes128Gcm, Aes256Gcm};
    use ctr::Ctr32BE;
    use ctr::cipher::{KeyIvInit, StreamCipher};
    use hmac::Mac;
    use proptest::prelude::*;
    use serde_json::Value;
    use sha2::Sha512;

    const VECTORS: &str = include_str!("../../vectors/rfc9605.json");

    fn vectors(section: &str) -> Vec<Value> {
        let json: Value = serde_json::from_str(VECTORS).unwrap();
        json[section].as_array().unwrap().clone()
    }

    fn hex(vector: &Value, field: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(vector[field].as_str().unwrap().as_bytes()).unwrap()
    }

    fn suite(vector: &Value) -> u16 {
        vector["cipher_suite"].as_u64().unwrap().try_into().unwrap()
    }

    /// Nt of the suites of RFC 9605 Table 1.
    fn tag_len(suite: u16) -> usize {
        match suite {
            1 => 10,
            2 => 8,
            3 => 4,
            4 | 5 => 16,
            _ => panic!("no such suite: {suite}"),
        }
    }

    /// AES-CTR with HMAC of RFC 9605 §4.5.1: the truncated tag of a ciphertext.
    fn ctr_hmac_tag(suite: u16, auth_key: &[u8], nonce: &[u8; 12], aad: &[u8], ct: &[u8]) -> Vec<u8> {
        let mut mac: Hmac<Sha256> = KeyInit::new_from_slice(auth_key).unwrap();
        for len in [aad.len(), ct.len(), tag_len(suite)] {
            Mac::update(&mut mac, &(len as u64).to_be_bytes());
        }
        for part in [nonce, aad, ct] {
            Mac::update(&mut mac, part);
        }
        Mac::finalize(mac).into_bytes()[..tag_len(suite)].to_vec()
    }

    fn ctr_apply(enc_key: &[u8], nonce: &[u8; 12], buf: &mut [u8]) {
        let iv: [u8; 16] = [&nonce[..], &[0; 4]].concat().try_into().unwrap();
        Ctr32BE::<Aes128>::new_from_slices(enc_key, &iv).unwrap().apply_keystream(buf);
    }

    fn ctr_hmac_seal(suite: u16, key: &[u8], nonce: &[u8; 12], aad: &[u8], pt: &[u8]) -> Vec<u8> {
        let (enc_key, auth_key) = key.split_at(16);
        let mut ct = pt.to_vec();
        ctr_apply(enc_key, nonce, &mut ct);
        let tag = ctr_hmac_tag(suite, auth_key, nonce, aad, &ct);
        [ct, tag].concat()
    }

    fn ctr_hmac_open(suite: u16, key: &[u8], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
        let (enc_key, auth_key) = key.split_at(16);
        let (ct, tag) = sealed.split_at(sealed.len() - tag_len(suite));
        assert_eq!(ctr_hmac_tag(suite, auth_key, nonce, aad, ct), tag);
        let mut pt = ct.to_vec();
        ctr_apply(enc_key, nonce, &mut pt);
        pt
    }

    fn gcm_seal<A: AeadInOut + KeyInit>(key: &[u8], nonce: &[u8; 12], aad: &[u8], pt: &[u8]) -> Vec<u8> {
        let mut buf = pt.to_vec();
        let nonce = nonce[..].try_into().unwrap();
        let tag = A::new_from_slice(key).unwrap().encrypt_inout_detached(nonce, aad, buf[..].as_mut().into()).unwrap();
        [&buf[..], &tag].concat()
    }

    fn gcm_open<A: AeadInOut + KeyInit>(key: &[u8], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
        let (ct, tag) = sealed.split_at(sealed.len() - 16);
        let mut buf = ct.to_vec();
        let (nonce, tag) = (nonce[..].try_into().unwrap(), tag.try_into().unwrap());
        A::new_from_slice(key).unwrap().decrypt_inout_detached(nonce, aad, buf[..].as_mut().into(), tag).unwrap();
        buf
    }

    fn seal(suite: u16, key: &[u8], nonce: &[u8; 12], aad: &[u8], pt: &[u8]) -> Vec<u8> {
        match suite {
            4 => gcm_seal::<Aes128Gcm>(key, nonce, aad, pt),
            5 => gcm_seal::<Aes256Gcm>(key, nonce, aad, pt),
            _ => ctr_hmac_seal(suite, key, nonce, aad, pt),
        }
    }

    fn open(suite: u16, key: &[u8], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
        match suite {
            4 => gcm_open::<Aes128Gcm>(key, nonce, aad, sealed),
            5 => gcm_open::<Aes256Gcm>(key, nonce, aad, sealed),
            _ => ctr_hmac_open(suite, key, nonce, aad, sealed),
        }
    }

    #[test]
    fn aes_ctr_hmac_vectors_of_rfc_9605_pass() {
        let vectors = vectors("aes_ctr_hmac");
        assert_eq!(vectors.len(), 3);
        for v in vectors {
            let (key, nonce, aad) = (hex(&v, "key"), hex(&v, "nonce").try_into().unwrap(), hex(&v, "aad"));
            assert_eq!([hex(&v, "enc_key"), hex(&v, "auth_key")].concat(), key);
            assert_eq!(seal(suite(&v), &key, &nonce, &aad, &hex(&v, "pt")), hex(&v, "ct"));
            assert_eq!(open(suite(&v), &key, &nonce, &aad, &hex(&v, "ct")), hex(&v, "pt"));
        }
    }

    /// Checks the derivation of one vector with the suite's HMAC; returns the derived key and salt.
    fn derived<M: HmacImpl>(v: &Value, kid: Kid, key_len: usize) -> (Vec<u8>, [u8; NONCE_LEN]) {
        let base_key = hex(v, "base_key");
        assert_eq!(sframe_secret::<M>(&base_key).0.to_vec(), hex(v, "sframe_secret"));
        let (mut key, mut salt) = (vec![0; key_len], [0; NONCE_LEN]);
        derive_key_and_salt::<M>(suite(v), kid, &base_key, &mut key, &mut salt);
        (key, salt)
    }

    #[test]
    fn sframe_vectors_of_rfc_9605_pass_for_all_its_suites() {
        let vectors = vectors("sframe");
        assert_eq!(vectors.iter().map(suite).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        for v in vectors {
            let header = Header { kid: Kid(v["kid"].as_u64().unwrap()), ctr: Ctr(v["ctr"].as_u64().unwrap()) };
            let label = |label: &[u8]| [label, &header.kid.0.to_be_bytes(), &suite(&v).to_be_bytes()].concat();
            assert_eq!(label(KEY_LABEL), hex(&v, "sframe_key_label"));
            assert_eq!(label(SALT_LABEL), hex(&v, "sframe_salt_label"));

            let (key, salt) = match suite(&v) {
                4 => derived::<Hmac<Sha256>>(&v, header.kid, 16),
                5 => derived::<Hmac<Sha512>>(&v, header.kid, 32),
                _ => derived::<Hmac<Sha256>>(&v, header.kid, 48),
            };
            assert_eq!(key, hex(&v, "sframe_key"));
            assert_eq!(salt.to_vec(), hex(&v, "sframe_salt"));
            let nonce = frame_nonce(&salt, header.ctr);
            assert_eq!(nonce.to_vec(), hex(&v, "nonce"));

            let mut out = [0; Header::MAX_LEN];
            let len = header.encode(&mut out);
            let aad = [&out[..len], &hex(&v, "metadata")].concat();
            assert_eq!(aad, hex(&v, "aad"));
            let sealed = seal(suite(&v), &key, &nonce, &aad, &hex(&v, "pt"));
            assert_eq!([&out[..len], &sealed].concat(), hex(&v, "ct"));
            assert_eq!(open(suite(&v), &key, &nonce, &aad, &sealed), hex(&v, "pt"));
        }
    }

    /// RFC 8439 §2.8.2, reached through a salt that is the RFC's nonce and the counter 0.
    #[test]
    fn chacha20_poly1305_vector_of_rfc_8439_passes() {
        let key = FrameKey {
            key: core::array::from_fn(|i| 0x80 + i as u8),
            salt: [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47],
        };
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plaintext = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
            for the future, sunscreen would be it.";
        let mut buf = *plaintext;
        let tag = key.seal_in_place(Ctr(0), &aad, &mut buf);
        assert_eq!(buf[..8], [0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb]);
        assert_eq!(data_encoding::HEXLOWER.encode(&tag), "1ae10b594f09e26a7e902ecbd0600691");
        assert_eq!(key.open_in_place(Ctr(0), &aad, &mut buf, &tag), Ok(()));
        assert_eq!(&buf, plaintext);
    }

    const KID: Kid = Kid(0x8001_0000_0100_0002);
    const CTR: Ctr = Ctr(0x83);
    const AAD: &[u8] = b"header and metadata";
    const BASE_KEY: [u8; BASE_KEY_LEN] = *b"0123456789abcdef0123456789ABCDEF";
    const PLAINTEXT: [u8; 20] = *b"twenty bytes of Opus";

    fn sealed() -> ([u8; 20], [u8; TAG_LEN]) {
        let mut buf = PLAINTEXT;
        let tag = FrameKey::derive(KID, &BASE_KEY).seal_in_place(CTR, AAD, &mut buf);
        (buf, tag)
    }

    fn opens(kid: Kid, base_key: &[u8; BASE_KEY_LEN], ctr: Ctr, aad: &[u8], ct: &[u8], tag: &[u8; TAG_LEN]) -> bool {
        let mut buf = ct.to_vec();
        let opened = FrameKey::derive(kid, base_key).open_in_place(ctr, aad, &mut buf, tag);
        match opened {
            Ok(()) => assert_eq!(buf, PLAINTEXT),
            Err(OpenError) => assert_eq!(buf, ct, "a refused frame stays ciphertext"),
        }
        opened.is_ok()
    }

    /// Computed once by another implementation (Python: hmac, hashlib and a ChaCha20-Poly1305 of its own).
    #[test]
    fn private_suite_matches_an_independent_computation() {
        let (ct, tag) = sealed();
        assert_eq!(data_encoding::HEXLOWER.encode(&ct), "b0d48b614e7ab7efd6331bff343e569b7e07df4b");
        assert_eq!(data_encoding::HEXLOWER.encode(&tag), "0280ce4828ac53d5d94a7e904d5b9c56");
    }

    #[test]
    fn sealed_frame_opens_with_the_same_inputs_only() {
        let (ct, tag) = sealed();
        let other_base = *b"0123456789abcdef0123456789ABCDEG";
        assert!(opens(KID, &BASE_KEY, CTR, AAD, &ct, &tag));
        assert!(!opens(Kid(KID.0 + 1), &BASE_KEY, CTR, AAD, &ct, &tag));
        assert!(!opens(KID, &other_base, CTR, AAD, &ct, &tag));
        assert!(!opens(KID, &BASE_KEY, Ctr(CTR.0 + 1), AAD, &ct, &tag));
        assert!(!opens(KID, &BASE_KEY, CTR, &AAD[1..], &ct, &tag));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let (ct, tag) = sealed();
        for bit in 0..ct.len() * 8 {
            let mut ct = ct;
            ct[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(KID, &BASE_KEY, CTR, AAD, &ct, &tag));
        }
        for bit in 0..tag.len() * 8 {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(KID, &BASE_KEY, CTR, AAD, &ct, &tag));
        }
        for len in 0..ct.len() {
            assert!(!opens(KID, &BASE_KEY, CTR, AAD, &ct[..len], &tag));
        }
    }

    #[test]
    fn empty_frame_seals_and_opens() {
        let key = FrameKey::derive(KID, &BASE_KEY);
        let tag = key.seal_in_place(CTR, b"", &mut []);
        assert_eq!(key.open_in_place(CTR, b"", &mut [], &tag), Ok(()));
        assert_eq!(key.open_in_place(CTR, b"x", &mut [], &tag), Err(OpenError));
    }

    proptest! {
        #[test]
        fn nonces_of_different_counters_differ(salt: [u8; NONCE_LEN], a: u64, b: u64) {
            prop_assert_eq!(a == b, frame_nonce(&salt, Ctr(a)) == frame_nonce(&salt, Ctr(b)));
        }

        #[test]
        fn any_frame_opens_to_what_was_sealed(
            kid: u64, ctr: u64, base_key: [u8; BASE_KEY_LEN],
            aad in proptest::collection::vec(any::<u8>(), 0..64),
            frame in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let key = FrameKey::derive(Kid(kid), &base_key);
            let mut buf = frame.clone();
            let tag = key.seal_in_place(Ctr(ctr), &aad, &mut buf);
            prop_assert_eq!(key.open_in_place(Ctr(ctr), &aad, &mut buf, &tag), Ok(()));
            prop_assert_eq!(buf, frame);
        }
    }
}
