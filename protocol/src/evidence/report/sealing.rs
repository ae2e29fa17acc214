//! The file: a report sealed to one moderator (`docs/protocol.md` §10.5).
//!
//! ```text
//! file   = header 24 ‖ enc 1,120 ‖ HPKE ciphertext ‖ tag 16, a multiple of 64 KiB, at most 2 MiB
//! header = "conclave-report" ‖ version u8 (1) ‖ ModeratorId 8
//! HPKE (RFC 9180): base mode, KEM 0x647A (X-Wing), KDF 0x0001 (HKDF-SHA-256), AEAD 0x0003 (ChaCha20-Poly1305),
//!   info = "conclave/1 report", aad = header, plaintext = length u32 ‖ report ‖ zeros
//! ```

use hpke::aead::{AeadTag, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, XWing};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::Report;
use super::verify::Step;
use crate::label;
use crate::moderator::{Moderator, ModeratorId, ModeratorKey};
use crate::wire::codec::{Malformed, Reader, Wire, Writer};
use crate::wire::relay::MAX_REPORT;

/// Every file is a multiple of this, so that its length tells little of what is in it.
pub const STEP: usize = 64 * 1024;
/// Longest file: 40 s with every frame take up 0.6 MiB.
pub const MAX_FILE: usize = MAX_REPORT;

/// What every file begins with.
pub const MAGIC: &[u8; 16] = b"conclave-report\x01";
const HEADER_LEN: usize = MAGIC.len() + 8;
/// An X-Wing ciphertext.
const ENCAPPED_LEN: usize = 1_120;
const TAG_LEN: usize = 16;
/// What a file holds beside the padded plaintext.
const AROUND: usize = HEADER_LEN + ENCAPPED_LEN + TAG_LEN;
/// In front of the report.
const LENGTH_LEN: usize = 4;

/// Why a report cannot be sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CannotSeal {
    /// More than fits a file.
    #[error("the report is too long: a sealed one may have at most 2 MiB")]
    TooLong,
    /// The moderator's key is none.
    #[error("the moderator's key is damaged")]
    BadKey,
}

/// Why a file is no report that can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not a file of this kind, or cut.
    #[error("not a report of this version, or incomplete")]
    NotAReport,
    /// For somebody else.
    #[error("sealed to another moderator's key")]
    OtherModerator,
    /// Damaged on the way, or never sealed to this key.
    #[error("does not open: the file is damaged")]
    DoesNotOpen,
    /// Opens, but breaks the format.
    #[error("opens, but breaks the format: {0}")]
    Malformed(&'static str),
    /// Opens, and the exhibit breaks the format where this step looks at it: whoever made it made no proof.
    #[error("opens, but its exhibit breaks the format: {1}")]
    BrokenExhibit(Step, &'static str),
}

impl Report {
    /// The file for one moderator, whose length is a multiple of [`STEP`].
    ///
    /// # Errors
    /// [`CannotSeal`].
    pub fn seal(&self, to: &Moderator, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Vec<u8>, CannotSeal> {
        let key = <XWing as Kem>::PublicKey::from_bytes(&to.sealing).map_err(|_| CannotSeal::BadKey)?;
        let mut plaintext = self.padded()?;
        let header = header(to.id());
        let (encapped, tag) = hpke::single_shot_seal_inout_detached_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &key,
            label::REPORT.as_bytes(),
            (&mut plaintext[..]).into(),
            &header,
            &mut &mut *rng,
        )
        .map_err(|_| CannotSeal::BadKey)?;
        Ok([&header[..], &encapped.to_bytes(), &plaintext, &tag.to_bytes()].concat())
    }

    /// Length of the file, whoever it is sealed to.
    ///
    /// # Errors
    /// [`CannotSeal::TooLong`].
    pub fn sealed_len(&self) -> Result<usize, CannotSeal> {
        Ok(self.padded()?.len() + AROUND)
    }

    /// length ‖ report ‖ zeros, as long as a file's plaintext must be.
    fn padded(&self) -> Result<Zeroizing<Vec<u8>>, CannotSeal> {
        let reserved = file_len(self.max_len()).ok_or(CannotSeal::TooLong)? - AROUND;
        let mut w = Writer::reserving(reserved);
        w.u32(0);
        self.write(&mut w);
        let mut plaintext = Zeroizing::new(w.into_bytes());
        let report = plaintext.len() - LENGTH_LEN;
        plaintext[..LENGTH_LEN].copy_from_slice(&u32::try_from(report).unwrap_or(u32::MAX).to_be_bytes());
        let length = file_len(report).ok_or(CannotSeal::TooLong)? - AROUND;
        // Within what was reserved.
        plaintext.resize(length, 0);
        Ok(plaintext)
    }
}

/// Length of the file for a report of so many bytes.
fn file_len(report: usize) -> Option<usize> {
    let length = (AROUND + LENGTH_LEN + report).next_multiple_of(STEP);
    (length <= MAX_FILE).then_some(length)
}

/// Whose key a file is sealed to.
///
/// # Errors
/// [`Unreadable::NotAReport`].
pub fn addressed_to(file: &[u8]) -> Result<ModeratorId, Unreadable> {
    if file.is_empty() || !file.len().is_multiple_of(STEP) || file.len() > MAX_FILE || !file.starts_with(MAGIC) {
        return Err(Unreadable::NotAReport);
    }
    ModeratorId::decode(&file[MAGIC.len()..HEADER_LEN]).map_err(|_| Unreadable::NotAReport)
}

/// Opens a file with a moderator's key. Nothing in the report is believed yet.
///
/// # Errors
/// [`Unreadable`].
pub fn open(file: &[u8], key: &ModeratorKey) -> Result<Report, Unreadable> {
    if addressed_to(file)? != key.public().id() {
        return Err(Unreadable::OtherModerator);
    }
    let (header, rest) = file.split_at(HEADER_LEN);
    let (encapped, rest) = rest.split_at(ENCAPPED_LEN);
    let (sealed, tag) = rest.split_at(rest.len() - TAG_LEN);
    let mut plaintext = Zeroizing::new(sealed.to_vec());
    unseal(key, header, encapped, &mut plaintext, tag).ok_or(Unreadable::DoesNotOpen)?;
    let (length, rest) = plaintext.split_first_chunk::<LENGTH_LEN>().ok_or(Unreadable::DoesNotOpen)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (report, padding) = rest.split_at_checked(length).ok_or(Unreadable::Malformed("length"))?;
    // No more padding than is needed, and nothing in it: one report has one length, and carries nothing beside.
    if padding.iter().any(|byte| *byte != 0) || file_len(length) != Some(file.len()) {
        return Err(Unreadable::Malformed("padding"));
    }
    parse(report)
}

/// Reads what was sealed: a report without padding.
///
/// # Errors
/// [`Unreadable::Malformed`], or [`Unreadable::BrokenExhibit`] when category, note and so on are well and the exhibit is not.
pub fn parse(report: &[u8]) -> Result<Report, Unreadable> {
    let mut r = Reader::new(report);
    Report::read(&mut r).and_then(|report| r.end().map(|()| report)).map_err(|Malformed(what)| {
        let step = Step::ALL.into_iter().find(|step| step.as_str() == r.part());
        step.map_or(Unreadable::Malformed(what), |step| Unreadable::BrokenExhibit(step, what))
    })
}

fn unseal(key: &ModeratorKey, header: &[u8], encapped: &[u8], plaintext: &mut [u8], tag: &[u8]) -> Option<()> {
    let encapped = <XWing as Kem>::EncappedKey::from_bytes(encapped).ok()?;
    hpke::single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        &key.decapsulation_key()?,
        &encapped,
        label::REPORT.as_bytes(),
        plaintext.into(),
        header,
        &AeadTag::from_bytes(tag).ok()?,
    )
    .ok()
}

fn header(to: ModeratorId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()..].copy_from_slice(&to.0);
    header
}
