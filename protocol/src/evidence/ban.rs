//! Ban statements: a moderator's word that an identity is to be kept out (`docs/protocol.md` §10.8).
//!
//! ```text
//! IK 32 ‖ issued u64 ‖ category u8 ‖ until u64 (0: for good) ‖ ModeratorId 8 ‖ signature 64
//! signed: "conclave/1 ban" ‖ all fields before the signature
//! ```
//!
//! As text, one to a line: `conclave-ban-1 ` and the encoding in base64 (RFC 4648 §4, padded). Blank lines and lines
//! that begin with # mean nothing.

use data_encoding::BASE64;

use super::category::Category;
use crate::label;
use crate::moderator::{Moderator, ModeratorId};
use crate::sign::{BadSignature, PublicKey, Signature};
use crate::time::UnixMillis;
use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// First word of every line.
const KIND: &str = "conclave-ban-1";
/// Most statements in one text: some megabytes, checked in a second.
pub const MAX_BANS: usize = 20_000;

/// What a ban says, before it is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// IK of whom it is about.
    pub identity: PublicKey,
    /// The moderator's clock.
    pub issued: UnixMillis,
    /// Why.
    pub category: Category,
    /// When it ends; for good when `None`. 1970 is no such time.
    pub until: Option<UnixMillis>,
}

/// A signed ban. Nothing in it is believed before [`Ban::verify`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ban {
    /// What it says.
    pub terms: Terms,
    /// Who says so.
    pub moderator: ModeratorId,
    signature: Signature,
}

/// A line that is no ban statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBans {
    /// Not of this kind, or damaged.
    #[error("line {0} is no ban statement")]
    Line(usize),
    /// More than [`MAX_BANS`].
    #[error("a file may hold at most {MAX_BANS} ban statements")]
    TooMany,
}

impl Terms {
    /// Whether the ban holds at `now`.
    pub fn holds_at(&self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now <= until)
    }

    /// The statement of that moderator, which signs through `sign`.
    #[cfg(feature = "reports")]
    pub fn sign(self, moderator: &crate::moderator::ModeratorKey) -> Ban {
        let id = moderator.public().id();
        let signature = moderator.sign(label::BAN, &[&body(&self, id)]);
        Ban { terms: self, moderator: id, signature }
    }
}

impl Ban {
    /// Checks that this moderator signed it.
    ///
    /// # Errors
    /// [`BadSignature`], for another moderator's too.
    pub fn verify(&self, moderator: &Moderator) -> Result<(), BadSignature> {
        if self.moderator != moderator.id() {
            return Err(BadSignature);
        }
        moderator.signing.verify(label::BAN, &[&body(&self.terms, self.moderator)], &self.signature)
    }

    /// One line of text, with its end.
    pub fn to_line(&self) -> String {
        format!("{KIND} {}\n", BASE64.encode(&self.encode()))
    }
}

/// Reads a file of ban statements. None of them is believed yet.
///
/// # Errors
/// [`BadBans`].
pub fn parse(text: &str) -> Result<Vec<Ban>, BadBans> {
    let mut bans = Vec::new();
    for (place, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if bans.len() == MAX_BANS {
            return Err(BadBans::TooMany);
        }
        bans.push(parse_line(line).ok_or(BadBans::Line(place + 1))?);
    }
    Ok(bans)
}

/// The ban among `bans`, of one of these moderators, that keeps an identity out at `now`.
pub fn find<'a>(bans: &'a [Ban], identity: &PublicKey, moderators: &[Moderator], now: UnixMillis) -> Option<&'a Ban> {
    let concerns = |ban: &&Ban| ban.terms.identity == *identity && ban.terms.holds_at(now);
    let is_signed = |ban: &&Ban| moderators.iter().any(|moderator| ban.verify(moderator).is_ok());
    bans.iter().filter(concerns).find(is_signed)
}

fn parse_line(line: &str) -> Option<Ban> {
    let encoded = line.strip_prefix(KIND)?.strip_prefix(' ')?;
    Ban::decode(&BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()
}

fn body(terms: &Terms, moderator: ModeratorId) -> Vec<u8> {
    let mut w = Writer::default();
    terms.identity.write(&mut w);
    terms.issued.write(&mut w);
    terms.category.write(&mut w);
    w.u64(terms.until.map_or(0, |until| until.0));
    moderator.write(&mut w);
    w.into_bytes()
}

impl Wire for Ban {
    fn write(&self, w: &mut Writer) {
        w.array(&body(&self.terms, self.moderator));
        self.signature.write(w);
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (identity, issued, category) = (PublicKey::read(r)?, UnixMillis::read(r)?, Category::read(r)?);
        let until = Some(UnixMillis::read(r)?).filter(|until| until.0 != 0);
        let terms = Terms { identity, issued, category, until };
        Ok(Self { terms, moderator: ModeratorId::read(r)?, signature: Signature::read(r)? })
    }
}

#[cfg(all(test, feature = "reports"))]
mod tests {
    use super::*;
    use crate::identity::DisplayName;
    use crate::moderator::ModeratorKey;

    fn moderator(seed: u8) -> ModeratorKey {
        ModeratorKey::from_seeds(DisplayName::parse("Mo").expect("a name"), &[seed; 64])
    }

    fn terms(identity: u8, until: Option<u64>) -> Terms {
        let until = until.map(UnixMillis);
        Terms { identity: PublicKey([identity; 32]), issued: UnixMillis(5), category: Category::Spam, until }
    }

    #[test]
    fn a_ban_is_found_while_it_holds_and_by_the_moderators_that_are_trusted_only() {
        let (ours, other) = (moderator(1), moderator(2));
        let text = format!(
            "# bans\n\n{}{}{}",
            terms(7, Some(100)).sign(&ours).to_line(),
            terms(8, None).sign(&ours).to_line(),
            terms(9, None).sign(&other).to_line()
        );
        let bans = parse(&text).expect("three");
        assert_eq!(bans.len(), 3);
        let trusted = [ours.public().clone()];
        let found = |identity, now| find(&bans, &PublicKey([identity; 32]), &trusted, UnixMillis(now)).is_some();
        assert!(found(7, 100) && !found(7, 101));
        assert!(found(8, u64::MAX));
        assert!(!found(9, 1) && !found(6, 1));
    }

    #[test]
    fn no_byte_of_a_ban_can_be_changed() {
        let key = moderator(1);
        let bytes = terms(7, Some(100)).sign(&key).encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            if let Ok(ban) = Ban::decode(&changed) {
                assert!(ban.verify(key.public()).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn the_line_that_is_none_is_named() {
        let line = terms(7, None).sign(&moderator(1)).to_line();
        assert_eq!(parse(&format!("{line}\nnonsense\n")), Err(BadBans::Line(3)));
        assert_eq!(parse(&line.replace("ban-1", "ban-2")), Err(BadBans::Line(1)));
        assert_eq!(parse(&line[..line.len() - 3]), Err(BadBans::Line(1)));
        assert_eq!(parse(&line.repeat(MAX_BANS + 1)), Err(BadBans::TooMany));
    }
}
