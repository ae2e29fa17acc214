//! Who somebody is: identity keys, the certificate that binds them to one meeting's keys, display names and
//! safety numbers (`docs/protocol.md` §3.4–3.6).

use rand_core::CryptoRng;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use crate::id::MeetingId;
use crate::label;
use crate::sign::{BadSignature, KeyPair, PublicKey, Signature};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// A person's identity key IK and whether it outlives the meeting.
pub struct Identity {
    key: KeyPair,
    kind: IdentityKind,
}

/// Whether an identity is meant to be met again. Claimed by its owner, signed in the IdCert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityKind {
    /// Fresh for this meeting: nothing can be remembered about it.
    Guest,
    /// Kept from meeting to meeting.
    Kept,
}

impl Identity {
    /// A fresh identity for one meeting.
    pub fn guest(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self { key: KeyPair::generate(rng), kind: IdentityKind::Guest }
    }

    /// An identity from a keystore's seed.
    pub fn kept(seed: &[u8; 32]) -> Self {
        Self { key: KeyPair::from_seed(seed), kind: IdentityKind::Kept }
    }

    /// The public half, IK.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Whether it is kept.
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// Signs with IK.
    pub(crate) fn sign(&self, label: &str, parts: &[&[u8]]) -> Signature {
        self.key.sign(label, parts)
    }

    /// Binds IK to the keys of one join, and to the name that its owner goes by there.
    pub fn certify(
        &self,
        meeting: MeetingId,
        role: Role,
        keys: JoinKeys,
        name: &DisplayName,
        not_after: UnixMillis,
    ) -> IdCert {
        let mut cert =
            IdCert { identity: self.public(), kind: self.kind, role, keys, not_after, signature: Signature([0; 64]) };
        cert.signature = self.key.sign(label::IDCERT, &[&cert.body(meeting, name)]);
        cert
    }
}

/// A member's part in a meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Made the meeting and holds its authority key.
    Host,
    /// Was let in.
    Member,
}

/// The public keys a member makes for one join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinKeys {
    /// X25519 session static `ms`; the host's is `hs` of the descriptor.
    pub session: [u8; 32],
    /// Ed25519 sealing key `vk`.
    pub sealing: PublicKey,
    /// Ed25519 routing key `rk`, the only one that the relay sees.
    pub routing: PublicKey,
}

/// IdCert: IK signs (MeetingId, kind, role, ms, vk, rk, expiry, name). The name travels beside it; because it is signed,
/// no leader can show somebody's keys under another one.
///
/// ```text
/// IK 32 ‖ kind u8 ‖ role u8 ‖ ms 32 ‖ vk 32 ‖ rk 32 ‖ not_after u64 ‖ signature 64
/// signed: "conclave/1 idcert" ‖ MeetingId 20 ‖ all fields before the signature ‖ H(name) 32
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdCert {
    /// IK.
    pub identity: PublicKey,
    /// Guest or kept.
    pub kind: IdentityKind,
    /// The role claimed; only the holder of `hs` may claim [`Role::Host`].
    pub role: Role,
    /// The keys bound.
    pub keys: JoinKeys,
    /// Not valid after.
    pub not_after: UnixMillis,
    signature: Signature,
}

/// Why an IdCert is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadIdCert {
    /// The signature; also for another name than the one signed.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Ran out.
    #[error("the identity certificate ran out")]
    Expired,
    /// Claims a role that its owner cannot have.
    #[error("the identity certificate claims a wrong role")]
    Role,
    /// Binds another session key than the one the handshake proved.
    #[error("the identity certificate is for another session key")]
    Key,
}

impl IdCert {
    /// Length of every certificate, in bytes.
    pub const WIRE_LEN: usize = 32 + 1 + 1 + 3 * 32 + 8 + 64;

    /// Checks the certificate for `meeting` at `now`: signature, expiry, role, and that it binds the session key
    /// which the handshake has proved, and the name shown.
    ///
    /// # Errors
    /// [`BadIdCert`].
    pub fn verify(
        &self,
        meeting: MeetingId,
        role: Role,
        session: &[u8; 32],
        name: &DisplayName,
        now: UnixMillis,
    ) -> Result<(), BadIdCert> {
        if self.role != role {
            return Err(BadIdCert::Role);
        }
        if self.keys.session != *session {
            return Err(BadIdCert::Key);
        }
        if now > self.not_after {
            return Err(BadIdCert::Expired);
        }
        Ok(self.identity.verify(label::IDCERT, &[&self.body(meeting, name)], &self.signature)?)
    }

    fn body(&self, meeting: MeetingId, name: &DisplayName) -> Vec<u8> {
        let mut w = Writer::default();
        meeting.write(&mut w);
        self.write_fields(&mut w);
        w.array(&name.digest());
        w.into_bytes()
    }

    fn write_fields(&self, w: &mut Writer) {
        self.identity.write(w);
        self.kind.write(w);
        self.role.write(w);
        self.keys.write(w);
        self.not_after.write(w);
    }
}

impl Wire for IdCert {
    fn write(&self, w: &mut Writer) {
        self.write_fields(w);
        self.signature.write(w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = PublicKey::read(r)?;
        let kind = IdentityKind::read(r)?;
        let role = Role::read(r)?;
        let keys = JoinKeys::read(r)?;
        let not_after = UnixMillis::read(r)?;
        Ok(Self { identity, kind, role, keys, not_after, signature: Signature::read(r)? })
    }
}

impl Wire for IdentityKind {
    fn write(&self, w: &mut Writer) {
        w.u8(match self {
            Self::Guest => 0,
            Self::Kept => 1,
        });
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::Guest),
            1 => Ok(Self::Kept),
            _ => Err(Malformed("identity kind")),
        }
    }
}

impl Wire for Role {
    fn write(&self, w: &mut Writer) {
        w.u8(match self {
            Self::Host => 0,
            Self::Member => 1,
        });
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::Host),
            1 => Ok(Self::Member),
            _ => Err(Malformed("role")),
        }
    }
}

impl Wire for JoinKeys {
    fn write(&self, w: &mut Writer) {
        w.array(&self.session);
        self.sealing.write(w);
        self.routing.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { session: r.array()?, sealing: PublicKey::read(r)?, routing: PublicKey::read(r)? })
    }
}

/// A name that can be shown: NFC, 1 to [`DisplayName::MAX_LEN`] bytes, no control or formatting characters
/// (which could turn text round, hide it, or run a terminal), no blanks at the ends, none doubled, no marks without a
/// letter, no piles of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DisplayName(String);

/// The name is empty, too long, or holds characters that cannot be shown safely.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadName {
    /// Nothing to show.
    #[error("a name must have at least one visible character")]
    Empty,
    /// Over [`DisplayName::MAX_LEN`] bytes.
    #[error("a name may have at most {} bytes of UTF-8", DisplayName::MAX_LEN)]
    TooLong,
    /// Control, direction or invisible characters, or such as Unicode has not assigned.
    #[error("a name may not hold control, direction, invisible or unassigned characters")]
    Unsafe,
    /// Accents that would cover what is near the name.
    #[error("a name may not begin with an accent, nor have more than {} on one letter", DisplayName::MAX_MARKS)]
    Marks,
}

impl DisplayName {
    /// Long enough for any name on one line of a roster.
    pub const MAX_LEN: usize = 64;
    /// Most marks without width (Mn, Me) in a row, after NFC. No living language needs more on one letter; more of
    /// them cover the lines above and below.
    pub const MAX_MARKS: usize = 4;
    /// Length of every name on the wire, in bytes: the length and the padded text.
    pub const WIRE_LEN: usize = 1 + Self::MAX_LEN;

    /// Takes a name as a person typed it: normalises and folds blanks.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn parse(text: &str) -> Result<Self, BadName> {
        // Bounded before normalising, which can lengthen a text.
        if text.len() > 8 * Self::MAX_LEN {
            return Err(BadName::TooLong);
        }
        let normal: String = text.nfc().collect();
        let folded = normal.split_whitespace().collect::<Vec<_>>().join(" ");
        if folded.is_empty() {
            return Err(BadName::Empty);
        }
        if folded.len() > Self::MAX_LEN {
            return Err(BadName::TooLong);
        }
        if folded.chars().any(|c| is_unsafe_to_show(c) || c.general_category() == GeneralCategory::Unassigned) {
            return Err(BadName::Unsafe);
        }
        check_marks(&folded)?;
        Ok(Self(folded))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `H("conclave/1 name" ‖ UTF-8)`, without padding, for the roster's leaf and the certificate.
    pub fn digest(&self) -> [u8; 32] {
        label::hash(label::NAME, &[self.0.as_bytes()])
    }
}

/// Every program must agree on what a name is, so categories are those of one version of Unicode, 18.0: a name that
/// one member takes and another refuses would part them. A test notices when the tables change.
fn check_marks(name: &str) -> Result<(), BadName> {
    use GeneralCategory::{EnclosingMark, NonspacingMark, SpacingMark};
    let mut pile = 0;
    for (at, c) in name.chars().enumerate() {
        let category = c.general_category();
        if at == 0 && matches!(category, EnclosingMark | NonspacingMark | SpacingMark) {
            return Err(BadName::Marks);
        }
        pile = if matches!(category, EnclosingMark | NonspacingMark) { pile + 1 } else { 0 };
        if pile > DisplayName::MAX_MARKS {
            return Err(BadName::Marks);
        }
    }
    Ok(())
}

/// Whether a character could run a terminal, turn text round or hide in it: control characters, the invisible or
/// direction-changing ranges of Unicode (general category Cf and the separators, fillers and other blanks that are no
/// White_Space, variation selectors, private use and tags). The blank and its likes are not among them.
pub fn is_unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00AD | 0x034F | 0x0600..=0x0605 | 0x061C | 0x06DD | 0x070F | 0x0890..=0x0891 | 0x08E2 | 0x115F..=0x1160
            | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800
            | 0x3164 | 0xE000..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFF | 0x110BD | 0x110CD
            | 0x13430..=0x1345F | 0x16FE4 | 0x1BCA0..=0x1BCA3 | 0x1D159 | 0x1D173..=0x1D17A | 0xE0000..=0x10FFFF)
}

impl fmt::Debug for DisplayName {
    /// Names never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DisplayName(…)")
    }
}

/// Every name has the same length on the wire, so that the lengths of sealed messages tell nothing of it:
///
/// ```text
/// length u8 (1–64) ‖ 64: UTF-8, then zeros
/// ```
impl Wire for DisplayName {
    fn write(&self, w: &mut Writer) {
        let mut padded = [0; Self::MAX_LEN];
        // The constructor bounds the length.
        let len = self.0.len().min(Self::MAX_LEN);
        padded[..len].copy_from_slice(&self.0.as_bytes()[..len]);
        w.u8(u8::try_from(len).unwrap_or(0));
        w.array(&padded);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = usize::from(r.u8()?);
        let padded = r.take(Self::MAX_LEN)?;
        let (text, padding) = padded.split_at_checked(len).ok_or(Malformed("name too long"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Malformed("name is not padded with zeros"));
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed("name"))?;
        let name = Self::parse(text).map_err(|_| Malformed("name"))?;
        if name.0 == text { Ok(name) } else { Err(Malformed("name is not canonical")) }
    }
}

/// What two people compare to know that nobody stands between them: 60 digits (about 199 bits), the same on both
/// sides, different for every pair of identities.
///
/// `H_0 = H("conclave/1 safety number" ‖ min(IK) ‖ max(IK))`; twelve groups of five digits, each a 5-byte
/// big-endian number of `SHA-256` output modulo 100,000, as Signal's numbers are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SafetyNumber(String);

impl SafetyNumber {
    /// The number of two identities, in either order.
    pub fn of(a: &PublicKey, b: &PublicKey) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let halves = [0u8, 1].map(|half| label::hash(label::SAFETY_NUMBER, &[&low.0, &high.0, &[half]]));
        let groups = halves.iter().flat_map(|half| half.chunks_exact(5).take(6)).map(|five| {
            let number = five.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        });
        Self(groups.collect::<Vec<_>>().join(" "))
    }

    /// Twelve groups of five digits, separated by blanks.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_deceive_are_refused() {
        for bad in ["", "  ", "a\u{202E}b", "x\u{1b}[31m", "zero\u{200B}width", "nul\0", &"é".repeat(33)] {
            assert!(DisplayName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(DisplayName::parse("  Ann   Lee ").expect("a name").as_str(), "Ann Lee");
        assert_eq!(DisplayName::parse("e\u{301}").expect("a name").as_str(), "é");
    }

    #[test]
    fn names_with_any_kind_of_blank_tag_or_private_character_in_them_are_refused() {
        for hidden in [
            '\u{00AD}',
            '\u{034F}',
            '\u{061C}',
            '\u{0890}',
            '\u{08E2}',
            '\u{115F}',
            '\u{1160}',
            '\u{17B4}',
            '\u{180E}',
            '\u{200B}',
            '\u{200D}',
            '\u{200F}',
            '\u{202A}',
            '\u{202E}',
            '\u{2060}',
            '\u{2066}',
            '\u{2800}',
            '\u{3164}',
            '\u{E000}',
            '\u{F8FF}',
            '\u{FE0F}',
            '\u{FEFF}',
            '\u{FFA0}',
            '\u{FFFC}',
            '\u{FFFD}',
            '\u{16FE4}',
            '\u{1D159}',
            '\u{E0001}',
            '\u{E0041}',
            '\u{E0100}',
            '\u{F0000}',
            '\u{10FFFD}',
            '\u{FDD0}',
            '\u{1FFFE}',
            '\u{0378}',
            '\u{7F}',
            '\u{9B}',
            '\u{85}',
        ] {
            // U+0085 is White_Space, so it becomes a blank as all of them do.
            let parsed = DisplayName::parse(&format!("Bo{hidden}b"));
            let wanted = if hidden == '\u{85}' { Ok("Bo b") } else { Err(BadName::Unsafe) };
            assert_eq!(parsed.as_ref().map(DisplayName::as_str), wanted.as_ref().copied(), "{hidden:?}");
        }
        for blank in ['\t', '\n', '\u{A0}', '\u{1680}', '\u{2003}', '\u{2028}', '\u{202F}', '\u{205F}', '\u{3000}'] {
            let name = DisplayName::parse(&format!("{blank}Ann{blank}{blank}Lee{blank}")).expect("a name");
            assert_eq!(name.as_str(), "Ann Lee", "{blank:?}");
        }
    }

    #[test]
    fn no_character_of_the_categories_that_are_not_shown_is_let_through() {
        use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, SpaceSeparator};
        assert_eq!(unicode_properties::UNICODE_VERSION, (18, 0, 0), "docs/protocol.md §3.5 names the version");
        assert_eq!(unicode_normalization::UNICODE_VERSION, (18, 0, 0));
        for c in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let hidden = matches!(
                c.general_category(),
                Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | SpaceSeparator
            );
            assert!(!hidden || is_unsafe_to_show(c) || c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn names_may_have_accents_but_no_piles_of_them_and_none_without_a_letter() {
        for good in ["Zoë", "Nguyễn Thị Ngọc", "त्रिशूल", "ကြွော့", "בְּרֵאשִׁית", "x\u{302}\u{323}\u{330}\u{338}"]
        {
            assert!(DisplayName::parse(good).is_ok(), "{good}");
        }
        let pile = |n| format!("Z{}", "\u{334}\u{20DD}".repeat(n));
        assert!(DisplayName::parse(&pile(2)).is_ok());
        for bad in [&pile(3), "\u{301}Bob", " \u{20DD}", "\u{903}", &format!("a{}b", "\u{489}".repeat(5))] {
            assert_eq!(DisplayName::parse(bad), Err(BadName::Marks), "{bad:?}");
        }
    }

    #[test]
    fn names_of_all_lengths_are_equally_long_on_the_wire_and_padded_with_zeros_only() {
        for text in ["é", "Ada Lovelace", &"x".repeat(DisplayName::MAX_LEN)] {
            let name = DisplayName::parse(text).expect("a name");
            let encoded = name.encode();
            assert_eq!(encoded.len(), DisplayName::WIRE_LEN);
            assert_eq!(DisplayName::decode(&encoded), Ok(name));
            for at in 1 + text.len()..encoded.len() {
                let mut padded = encoded.clone();
                padded[at] = 1;
                assert!(DisplayName::decode(&padded).is_err(), "{text}: byte {at}");
            }
        }
    }

    #[test]
    fn names_with_a_length_that_is_none_are_refused() {
        let mut encoded = DisplayName::parse(&"x".repeat(64)).expect("a name").encode();
        for len in [0, 65, u8::MAX] {
            encoded[0] = len;
            assert!(DisplayName::decode(&encoded).is_err(), "{len}");
        }
        // A name cut within a character, and one whose zeros are said to be part of it.
        let mut encoded = DisplayName::parse("é").expect("a name").encode();
        for len in [1, 3] {
            encoded[0] = len;
            assert!(DisplayName::decode(&encoded).is_err(), "{len}");
        }
    }

    #[test]
    fn safety_numbers_agree_on_both_sides_and_differ_between_pairs() {
        let keys: Vec<PublicKey> = (0..3u8).map(|i| KeyPair::from_seed(&[i; 32]).public()).collect();
        let ab = SafetyNumber::of(&keys[0], &keys[1]);
        assert_eq!(ab, SafetyNumber::of(&keys[1], &keys[0]));
        assert_ne!(ab, SafetyNumber::of(&keys[0], &keys[2]));
        assert_eq!(ab.as_str().split(' ').map(str::len).collect::<Vec<_>>(), vec![5; 12]);
    }
}
