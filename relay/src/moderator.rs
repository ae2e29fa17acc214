//! The operator's moderator: the public half of its keys, as `conclave-moderate keygen` writes it (`docs/protocol.md`
//! §10.1). The relay hands the bytes to every client, and uses one of the keys itself: the one that signs questions
//! about stamps. It can open no report.
//!
//! ```text
//! # blank lines and comments don't count
//! conclave-moderator-1 NAME
//! base64 of: name 65 ‖ Ed25519 32 ‖ X-Wing 1,216
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use conclave_protocol::sign::PublicKey;
use data_encoding::BASE64;
use thiserror::Error;

/// The first word of the file.
const FORMAT: &str = "conclave-moderator-1";
/// Length of the name's field.
const NAME: usize = 65;
/// Length of the whole encoding.
const LENGTH: usize = NAME + 32 + 1_216;

/// A moderator's public keys, of which this crate knows no more than where the signing key stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Moderator {
    encoded: Bytes,
    signing: PublicKey,
}

/// Why a moderator's file can't be used.
#[derive(Debug, Error)]
pub enum ModeratorError {
    /// It can't be read.
    #[error("cannot read the moderator's key {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It isn't one.
    #[error("{} is no moderator's public key as `conclave-moderate keygen` writes it (moderator.pub)", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Moderator {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ModeratorError`].
    pub fn read(path: &Path) -> Result<Self, ModeratorError> {
        let text = fs::read_to_string(path).map_err(|source| ModeratorError::Read { path: path.into(), source })?;
        Self::parse(&text).ok_or_else(|| ModeratorError::Malformed { path: path.into() })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (head, keys) = (lines.next()?, lines.next()?);
        if head.split_whitespace().next() != Some(FORMAT) || lines.next().is_some() {
            return None;
        }
        let encoded = BASE64.decode(keys.as_bytes()).ok().filter(|encoded| encoded.len() == LENGTH)?;
        let signing = PublicKey(encoded.get(NAME..NAME + 32)?.try_into().ok()?);
        Some(Self { encoded: encoded.into(), signing })
    }

    /// What clients get in their Welcome: 1,313 bytes.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The key that signs questions about stamps.
    #[must_use]
    pub fn signing(&self) -> PublicKey {
        self.signing
    }
}

impl fmt::Debug for Moderator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moderator").field("signing", &self.signing).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file with a signing key, and zeros for all else.
    pub(crate) fn file(signing: PublicKey) -> String {
        let encoded = [&[0; NAME][..], &signing.0, &[0; 1_216]].concat();
        format!("# A comment\n\nconclave-moderator-1 Ada\r\n{}\n\n", BASE64.encode(&encoded))
    }

    pub(crate) fn moderator(signing: PublicKey) -> Moderator {
        Moderator::parse(&file(signing)).unwrap()
    }

    #[test]
    fn the_signing_key_is_found_and_the_bytes_stay_as_they_are() {
        let moderator = moderator(PublicKey([7; 32]));
        assert_eq!(moderator.signing(), PublicKey([7; 32]));
        assert_eq!(moderator.encoded().len(), LENGTH);
        assert_eq!(moderator.encoded()[NAME..NAME + 32], [7; 32]);
    }

    #[test]
    fn what_is_no_moderators_file_is_refused() {
        let whole = file(PublicKey([7; 32]));
        let keys = whole.lines().nth(3).unwrap();
        let short = BASE64.encode(&[0; LENGTH - 1]);
        for text in [
            String::new(),
            "conclave-moderator-1 Ada".into(),
            format!("conclave-moderator-2 Ada\n{keys}"),
            format!("conclave-moderator-1 Ada\n{short}"),
            format!("conclave-moderator-1 Ada\n{}", &keys[1..]),
            format!("conclave-moderator-1 Ada\n{keys}\n{keys}"),
        ] {
            assert!(Moderator::parse(&text).is_none(), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent.pub");
        assert!(Moderator::read(&path).unwrap_err().to_string().contains("absent.pub"));
        fs::write(&path, "x").unwrap();
        assert!(matches!(Moderator::read(&path), Err(ModeratorError::Malformed { .. })));
    }
}
