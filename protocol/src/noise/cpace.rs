//! CPace-Ristretto255-SHA512 (draft-irtf-cfrg-cpace-21, §7 and §8.3), initiator-responder setting.
//!
//! Owns: the password-derived generator, one party's secret scalar, and the derivation of the shared
//! key ISK. Refuses: shares that are not canonical encodings of a group element, and the identity.
//! Knows nothing of Noise; the handshake carries the shares and mixes the ISK into a PSK.
//!
//! Two parties agree on the same ISK exactly when PRS, CI, sid and both views of the transcript are
//! the same. A wrong password gives no error here: both sides get keys that differ, so each run is
//! worth one guess, and the handshake that uses the key fails.
//!
//! Secrets meet only constant-time group arithmetic. The one exception is inherent in the hash: a
//! password longer than 108 bytes takes further blocks, so its length class is visible in time.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use rand_core::CryptoRng;
use sha2::digest::Update;
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, Zeroizing};

/// A public share, `Ya` or `Yb`: the encoding of a Ristretto255 element as it travels.
///
/// Unverified until [`CpaceState::finish_initiator`] or [`CpaceState::finish_responder`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub [u8; Share::LEN]);

impl Share {
    /// Bytes of an encoded share (`G.field_size_bytes`, draft §8.3).
    pub const LEN: usize = 32;

    /// Takes a share off the wire.
    ///
    /// # Errors
    /// [`CpaceError::Length`] unless `bytes` is exactly [`Share::LEN`] long.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CpaceError> {
        bytes.try_into().map(Self).map_err(|_| CpaceError::Length)
    }

    /// The bytes that travel.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Why a run of CPace cannot go on. All of it is the peer's fault; the session must be aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpaceError {
    /// The peer's share has the wrong length.
    #[error("the peer's CPace share has the wrong length")]
    Length,
    /// The peer's share encodes no group element, or the identity: draft §7.2 demands an abort.
    #[error("the peer's CPace share is not a valid group element")]
    InvalidShare,
}

/// The intermediate session key ISK of a finished run, 64 bytes; wiped on drop.
///
/// It is uniform only if the peer knew the password, and proves nothing until the handshake that
/// uses it has confirmed it.
pub struct Isk(Zeroizing<[u8; Isk::LEN]>);

impl Isk {
    /// Bytes of an ISK (`H.b_in_bytes` of SHA-512).
    pub const LEN: usize = 64;

    /// The key, for use as input to a key derivation only.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// One party's side of one run, between sending its own share and taking the peer's.
///
/// Owns the secret scalar, wipes it on drop, and can be finished once: a scalar is never used with
/// two shares of the peer.
pub struct CpaceState {
    scalar: Zeroizing<Scalar>,
    share: Share,
    /// SHA-512 fed with `lv_cat(DSI_ISK, sid)`, which is public: holding the state instead of `sid` needs no heap.
    isk_hash: Sha512,
}

impl CpaceState {
    /// Starts a run.
    ///
    /// * `prs`: the password-related string. The only secret input; not kept.
    /// * `ci`: the channel identifier (who the parties are, for what); the same on both sides.
    /// * `sid`: the session identifier, fresh for the run; the same on both sides.
    /// * `rng`: gives 32 bytes.
    pub fn start(prs: &[u8], ci: &[u8], sid: &[u8], rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::with_scalar(prs, ci, sid, sample_scalar(rng))
    }

    /// This party's public share, to be sent beside its associated data.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Finishes as party A, who sent first. `own_ad` is ADa, `peer_ad` is ADb.
    ///
    /// `ISK = SHA-512(lv_cat(DSI_ISK, sid, K) ‖ lv_cat(Ya, ADa) ‖ lv_cat(Yb, ADb))`
    ///
    /// # Errors
    /// [`CpaceError::InvalidShare`] if `peer` is no valid share.
    pub fn finish_initiator(self, own_ad: &[u8], peer: &Share, peer_ad: &[u8]) -> Result<Isk, CpaceError> {
        let k = scalar_mult_vfy(&self.scalar, peer)?;
        Ok(derive_isk(self.isk_hash, &k, (&self.share, own_ad), (peer, peer_ad)))
    }

    /// Finishes as party B, who answered. `own_ad` is ADb, `peer_ad` is ADa; the formula is that of
    /// [`CpaceState::finish_initiator`].
    ///
    /// # Errors
    /// [`CpaceError::InvalidShare`] if `peer` is no valid share.
    pub fn finish_responder(self, own_ad: &[u8], peer: &Share, peer_ad: &[u8]) -> Result<Isk, CpaceError> {
        let k = scalar_mult_vfy(&self.scalar, peer)?;
        Ok(derive_isk(self.isk_hash, &k, (peer, peer_ad), (&self.share, own_ad)))
    }

    /// The deterministic part of [`CpaceState::start`]; private, so that only the vectors fix a scalar.
    fn with_scalar(prs: &[u8], ci: &[u8], sid: &[u8], scalar: Zeroizing<Scalar>) -> Self {
        let share = Share((*calculate_generator(prs, ci, sid) * *scalar).compress().0);
        let mut isk_hash = Sha512::new();
        put_isk_prefix(&mut isk_hash, sid);
        Self { scalar, share, isk_hash }
    }
}

/// `G.sample_scalar()` in the form that draft §8.3 recommends: 32 random bytes without the bits above
/// `group_size_bits` = 252. The result is below the group order, so nothing is reduced.
fn sample_scalar(rng: &mut (impl CryptoRng + ?Sized)) -> Zeroizing<Scalar> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes[31] &= 0x0f;
    Zeroizing::new(Scalar::from_bytes_mod_order(*bytes))
}

/// `G.calculate_generator(H, PRS, CI, sid)`, draft §8.3. As secret as the password: it can be guessed from it.
fn calculate_generator(prs: &[u8], ci: &[u8], sid: &[u8]) -> Zeroizing<RistrettoPoint> {
    let mut hash = Sha512::new();
    put_generator_string(&mut hash, prs, ci, sid);
    let wide: Zeroizing<[u8; 64]> = Zeroizing::new(hash.finalize().into());
    Zeroizing::new(RistrettoPoint::from_uniform_bytes(&wide))
}

/// `G.scalar_mult_vfy(y, X)`, draft §8.3, with the abort on `G.I` of §7.2 in it.
fn scalar_mult_vfy(scalar: &Scalar, peer: &Share) -> Result<Zeroizing<[u8; 32]>, CpaceError> {
    let point = CompressedRistretto(peer.0).decompress().ok_or(CpaceError::InvalidShare)?;
    let k = Zeroizing::new(point * scalar);
    if k.is_identity() {
        return Err(CpaceError::InvalidShare);
    }
    Ok(Zeroizing::new(k.compress().0))
}

/// Completes the hash that [`put_isk_prefix`] began; `a` and `b` are the parties' shares and associated data.
fn derive_isk(mut hash: Sha512, k: &[u8; 32], a: (&Share, &[u8]), b: (&Share, &[u8])) -> Isk {
    put_lv(&mut hash, k);
    put_transcript_ir(&mut hash, a, b);
    let mut digest = hash.finalize();
    let mut isk = Zeroizing::new([0; Isk::LEN]);
    isk.copy_from_slice(&digest);
    digest.as_mut_slice().zeroize();
    Isk(isk)
}

/// `generator_string(DSI, PRS, CI, sid, s_in_bytes)`, draft §8.1. The padding fills the first block, so
/// that the work does not tell the length of a short password.
fn put_generator_string(out: &mut impl Update, prs: &[u8], ci: &[u8], sid: &[u8]) {
    let filled = lv_len(prs.len()).saturating_add(lv_len(DSI.len()) + 1);
    let zpad = HASH_BLOCK.saturating_sub(filled);
    put_lv(out, DSI);
    put_lv(out, prs);
    put_lv(out, &[0; HASH_BLOCK][..zpad]);
    put_lv(out, ci);
    put_lv(out, sid);
}

/// `lv_cat(DSI ‖ "_ISK", sid)`, the public head of the ISK's input.
fn put_isk_prefix(out: &mut impl Update, sid: &[u8]) {
    put_lv(out, DSI_ISK);
    put_lv(out, sid);
}

/// `transcript_ir(Ya, ADa, Yb, ADb)`, draft §6.3.
fn put_transcript_ir(out: &mut impl Update, a: (&Share, &[u8]), b: (&Share, &[u8])) {
    for (share, ad) in [a, b] {
        put_lv(out, &share.0);
        put_lv(out, ad);
    }
}

/// `prepend_len(bytes)`, draft §6.3: the length in LEB128, then the bytes.
fn put_lv(out: &mut impl Update, bytes: &[u8]) {
    let mut rest = bytes.len();
    while rest >= 0x80 {
        out.update(&[(rest & 0x7f) as u8 | 0x80]);
        rest >>= 7;
    }
    out.update(&[rest as u8]);
    out.update(bytes);
}

/// `len(prepend_len(bytes))` for `len` bytes.
fn lv_len(len: usize) -> usize {
    let bits = (usize::BITS - len.leading_zeros()).max(1);
    len.saturating_add(bits.div_ceil(7) as usize)
}

/// `G_Ristretto255.DSI`, draft §8.3.
const DSI: &[u8] = b"CPaceRistretto255";

/// `G_Ristretto255.DSI ‖ "_ISK"`, draft §7.2.
const DSI_ISK: &[u8] = b"CPaceRistretto255_ISK";

/// `H.s_in_bytes` of SHA-512, draft §6.2.
const HASH_BLOCK: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;
    use serde_json::Value;

    const VECTORS: &str = include_str!("../../vectors/cpace-draft-21-ristretto255.json");

    fn vectors() -> Value {
        serde_json::from_str(VECTORS).unwrap()
    }

    fn hex(section: &Value, field: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(section[field].as_str().unwrap().as_bytes()).unwrap()
    }

    fn hex32(section: &Value, field: &str) -> [u8; 32] {
        hex(section, field).try_into().unwrap()
    }

    fn scalar(section: &Value, field: &str) -> Zeroizing<Scalar> {
        Zeroizing::new(Scalar::from_canonical_bytes(hex32(section, field)).unwrap())
    }

    /// Collects what the code would hash.
    #[derive(Default)]
    struct Recorder(Vec<u8>);

    impl Update for Recorder {
        fn update(&mut self, data: &[u8]) {
            self.0.extend_from_slice(data);
        }
    }

    fn recorded(f: impl FnOnce(&mut Recorder)) -> Vec<u8> {
        let mut recorder = Recorder::default();
        f(&mut recorder);
        recorder.0
    }

    fn sha512(parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = Sha512::new();
        for part in parts {
            Digest::update(&mut hash, part);
        }
        hash.finalize().to_vec()
    }

    /// `transcript_oc`, which only the vectors need: the parallel setting is not ours.
    fn transcript_oc(a: (&Share, &[u8]), b: (&Share, &[u8])) -> Vec<u8> {
        let side = |(share, ad): (&Share, &[u8])| {
            recorded(|r| {
                put_lv(r, &share.0);
                put_lv(r, ad);
            })
        };
        let (a, b) = (side(a), side(b));
        let (first, second) = if a > b { (a, b) } else { (b, a) };
        [b"oc".to_vec(), first, second].concat()
    }

    fn party(seed: u64, prs: &[u8]) -> CpaceState {
        CpaceState::start(prs, b"ci", b"sid", &mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn prepend_len_matches_the_draft() {
        let v = &vectors()["prepend_len"];
        let range = |n: u8| (0..n).collect::<Vec<u8>>();
        let with = |prefix: &str, bytes: Vec<u8>| [hex(v, prefix), bytes].concat();
        assert_eq!(recorded(|r| put_lv(r, b"")), hex(v, "empty"));
        assert_eq!(recorded(|r| put_lv(r, b"1234")), hex(v, "1234"));
        assert_eq!(recorded(|r| put_lv(r, &range(127))), with("range_127_prefix", range(127)));
        assert_eq!(recorded(|r| put_lv(r, &range(128))), with("range_128_prefix", range(128)));
    }

    #[test]
    fn lv_len_is_the_length_of_prepend_len() {
        for len in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_152] {
            assert_eq!(lv_len(len), recorded(|r| put_lv(r, &vec![0; len])).len());
        }
    }

    #[test]
    fn generator_matches_the_draft() {
        let v = &vectors()["calculate_generator"];
        let (prs, ci, sid) = (hex(v, "PRS"), hex(v, "CI"), hex(v, "sid"));
        let string = recorded(|r| put_generator_string(r, &prs, &ci, &sid));
        assert_eq!(string, hex(v, "generator_string"));
        assert_eq!(string.iter().filter(|b| **b == 0).count(), v["zpad_length"].as_u64().unwrap() as usize);
        assert_eq!(sha512(&[&string]), hex(v, "hash_result"));
        assert_eq!(calculate_generator(&prs, &ci, &sid).compress().0, hex32(v, "g"));
    }

    #[test]
    fn shares_and_secret_point_match_the_draft() {
        let v = vectors();
        let (g, m) = (&v["calculate_generator"], &v["messages"]);
        let (prs, ci, sid) = (hex(g, "PRS"), hex(g, "CI"), hex(g, "sid"));
        for (secret, own, peer) in [("ya", "Ya", "Yb"), ("yb", "Yb", "Ya")] {
            let state = CpaceState::with_scalar(&prs, &ci, &sid, scalar(m, secret));
            assert_eq!(state.share(), Share(hex32(m, own)));
            let k = scalar_mult_vfy(&state.scalar, &Share(hex32(m, peer))).unwrap();
            assert_eq!(*k, hex32(m, "K"));
        }
    }

    #[test]
    fn initiator_responder_key_matches_the_draft_on_both_sides() {
        let v = vectors();
        let (g, m, isk) = (&v["calculate_generator"], &v["messages"], &v["isk"]);
        let (prs, ci, sid) = (hex(g, "PRS"), hex(g, "CI"), hex(g, "sid"));
        let (ad_a, ad_b) = (hex(m, "ADa"), hex(m, "ADb"));
        let a = CpaceState::with_scalar(&prs, &ci, &sid, scalar(m, "ya"));
        let b = CpaceState::with_scalar(&prs, &ci, &sid, scalar(m, "yb"));
        let (share_a, share_b) = (a.share(), b.share());
        let a = a.finish_initiator(&ad_a, &share_b, &ad_b).ok().unwrap();
        let b = b.finish_responder(&ad_b, &share_a, &ad_a).ok().unwrap();
        assert_eq!(a.as_bytes().to_vec(), hex(isk, "ISK_IR"));
        assert_eq!(b.as_bytes().to_vec(), hex(isk, "ISK_IR"));
    }

    #[test]
    fn transcripts_and_their_hashes_match_the_draft() {
        let v = vectors();
        let (g, m, isk) = (&v["calculate_generator"], &v["messages"], &v["isk"]);
        let (share_a, share_b) = (Share(hex32(m, "Ya")), Share(hex32(m, "Yb")));
        let (ad_a, ad_b) = (hex(m, "ADa"), hex(m, "ADb"));
        let (a, b) = ((&share_a, &ad_a[..]), (&share_b, &ad_b[..]));
        let prefix = recorded(|r| {
            put_isk_prefix(r, &hex(g, "sid"));
            put_lv(r, &hex(m, "K"));
        });

        let ir = recorded(|r| put_transcript_ir(r, a, b));
        assert_eq!(ir, hex(isk, "transcript_ir"));
        assert_eq!([&prefix[..], &ir].concat(), hex(isk, "isk_string_ir"));
        assert_eq!(sha512(&[b"CPaceSidOutput", &ir]), hex(isk, "sid_output_ir"));

        let oc = transcript_oc(a, b);
        assert_eq!(oc, hex(isk, "transcript_oc"));
        assert_eq!(oc, transcript_oc(b, a));
        assert_eq!(sha512(&[&prefix, &oc]), hex(isk, "ISK_SY"));
        assert_eq!(sha512(&[b"CPaceSidOutput", &oc]), hex(isk, "sid_output_oc"));
    }

    #[test]
    fn scalar_mult_vfy_matches_the_draft_and_refuses_its_invalid_points() {
        let v = &vectors()["scalar_mult_vfy"];
        let s = scalar(v, "s");
        assert_eq!(*scalar_mult_vfy(&s, &Share(hex32(v, "X"))).unwrap(), hex32(v, "result"));
        for invalid in ["invalid_Y1", "invalid_Y2_identity"] {
            let share = Share(hex32(v, invalid));
            assert_eq!(scalar_mult_vfy(&s, &share).err(), Some(CpaceError::InvalidShare), "{invalid}");
            assert_eq!(party(1, b"pw").finish_initiator(b"", &share, b"").err(), Some(CpaceError::InvalidShare));
            assert_eq!(party(1, b"pw").finish_responder(b"", &share, b"").err(), Some(CpaceError::InvalidShare));
        }
    }

    #[test]
    fn zero_scalar_is_refused_like_the_identity() {
        let share = party(1, b"pw").share();
        assert_eq!(scalar_mult_vfy(&Scalar::ZERO, &share).err(), Some(CpaceError::InvalidShare));
    }

    #[test]
    fn share_of_every_other_length_is_refused() {
        let bytes = [party(1, b"pw").share().0, [0; 32]].concat();
        for len in (0..=bytes.len()).filter(|len| *len != Share::LEN) {
            assert_eq!(Share::from_slice(&bytes[..len]), Err(CpaceError::Length), "{len}");
        }
        assert_eq!(Share::from_slice(&bytes[..Share::LEN]), Ok(party(1, b"pw").share()));
    }

    #[test]
    fn non_canonical_and_negative_encodings_are_refused() {
        let mut not_reduced = [0xff; 32]; // p, the field's modulus, which encodes 0 a second time
        (not_reduced[0], not_reduced[31]) = (0xed, 0x7f);
        let mut high_bit = party(1, b"pw").share().0;
        high_bit[31] |= 0x80;
        let mut negative = [0; 32];
        negative[0] = 1;
        for bytes in [not_reduced, high_bit, negative, [0xff; 32], [0; 32]] {
            let result = party(2, b"pw").finish_initiator(b"", &Share(bytes), b"");
            assert_eq!(result.err(), Some(CpaceError::InvalidShare), "{bytes:02x?}");
        }
    }

    fn run(initiator: CpaceState, responder: CpaceState) -> (Isk, Isk) {
        let (share_a, share_b) = (initiator.share(), responder.share());
        let a = initiator.finish_initiator(b"ada", &share_b, b"adb").ok().unwrap();
        let b = responder.finish_responder(b"adb", &share_a, b"ada").ok().unwrap();
        (a, b)
    }

    #[test]
    fn same_password_gives_the_same_key_and_a_wrong_one_another() {
        let (a, b) = run(party(1, b"right"), party(2, b"right"));
        assert_eq!(a.as_bytes(), b.as_bytes());
        let (a, b) = run(party(1, b"right"), party(2, b"wrong"));
        assert_ne!(a.as_bytes(), b.as_bytes());
    }

    #[test]
    fn every_public_input_is_bound_into_the_key() {
        let start =
            |seed, ci: &[u8], sid: &[u8]| CpaceState::start(b"pw", ci, sid, &mut ChaCha20Rng::seed_from_u64(seed));
        for (ci, sid) in [(&b"other"[..], &b"sid"[..]), (b"ci", b"other")] {
            let (a, b) = run(start(1, b"ci", b"sid"), start(2, ci, sid));
            assert_ne!(a.as_bytes(), b.as_bytes());
        }
        let share_b = start(2, b"ci", b"sid").share();
        let finish = |own: &[u8], peer: &[u8]| {
            let isk = start(1, b"ci", b"sid").finish_initiator(own, &share_b, peer).ok().unwrap();
            isk.as_bytes().to_vec()
        };
        assert_ne!(finish(b"a", b"b"), finish(b"x", b"b"));
        assert_ne!(finish(b"a", b"b"), finish(b"a", b"x"));
        assert_ne!(finish(b"ab", b""), finish(b"a", b"b"));
    }

    #[test]
    fn roles_are_bound_into_the_key() {
        let share_b = party(2, b"pw").share();
        let as_a = party(1, b"pw").finish_initiator(b"", &share_b, b"").ok().unwrap();
        let as_b = party(1, b"pw").finish_responder(b"", &share_b, b"").ok().unwrap();
        assert_ne!(as_a.as_bytes(), as_b.as_bytes());
    }

    #[test]
    fn sampled_scalar_has_no_bit_above_the_252nd_and_uses_the_rng() {
        struct Ones;
        impl rand_core::TryRng for Ones {
            type Error = core::convert::Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Ok(u32::MAX)
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Ok(u64::MAX)
            }
            fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
                dst.fill(0xff);
                Ok(())
            }
        }
        impl rand_core::TryCryptoRng for Ones {}
        let mut expected = [0xff; 32];
        expected[31] = 0x0f;
        assert_eq!(sample_scalar(&mut Ones).to_bytes(), expected);
        assert_ne!(party(1, b"pw").share(), party(2, b"pw").share());
    }

    proptest! {
        #[test]
        fn no_share_makes_the_code_panic_and_accepted_ones_are_canonical(bytes: [u8; 32]) {
            let accepted = party(1, b"pw").finish_responder(b"", &Share(bytes), b"").is_ok();
            let point = CompressedRistretto(bytes).decompress();
            prop_assert_eq!(accepted, point.is_some_and(|p| !p.is_identity() && p.compress().0 == bytes));
        }

        #[test]
        fn passwords_of_any_length_agree(prs in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (a, b) = run(party(1, &prs), party(2, &prs));
            prop_assert_eq!(a.as_bytes(), b.as_bytes());
        }
    }
}
