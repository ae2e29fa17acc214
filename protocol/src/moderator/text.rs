//! A moderator's public half as text, for files that people hand round (`docs/protocol.md` §10.1).
//!
//! ```text
//! conclave-moderator-1 NAME
//! BASE64 (RFC 4648 §4, padded) of the encoding
//! ```
//!
//! Blank lines and lines that begin with # mean nothing.

use data_encoding::BASE64;

use super::Moderator;
use crate::wire::codec::Wire;

/// First word of the first line.
const KIND: &str = "conclave-moderator-1";
/// Longest text that is read: twice what is ever written, for remarks.
const MAX_TEXT: usize = 8_192;

/// The text is no moderator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no moderator's public key: {0}")]
pub struct BadModeratorText(&'static str);

impl Moderator {
    /// Two lines of text.
    pub fn to_text(&self) -> String {
        format!("{KIND} {}\n{}\n", self.name.as_str(), BASE64.encode(&self.encode()))
    }

    /// Reads what [`Self::to_text`] writes, with remarks in between.
    ///
    /// # Errors
    /// [`BadModeratorText`], also when the name in the first line is another than the one encoded.
    pub fn from_text(text: &str) -> Result<Self, BadModeratorText> {
        if text.len() > MAX_TEXT {
            return Err(BadModeratorText("the file is too long"));
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(first), Some(second), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(BadModeratorText("there must be two lines, a name and a key"));
        };
        let name = first.strip_prefix(KIND).and_then(|rest| rest.strip_prefix(' '));
        let name = name.ok_or(BadModeratorText("the first line must begin with conclave-moderator-1 and a name"))?;
        let bytes = BASE64.decode(second.as_bytes()).map_err(|_| BadModeratorText("the key is not base64"))?;
        let moderator = Self::decode(&bytes).map_err(|_| BadModeratorText("the key is damaged"))?;
        if moderator.name.as_str() != name.trim() {
            return Err(BadModeratorText("the name is not the one in the key"));
        }
        Ok(moderator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::DisplayName;
    use crate::moderator::SEALING_KEY_LEN;
    use crate::sign::PublicKey;

    #[test]
    fn a_moderator_is_read_from_its_text_and_from_no_other() {
        let name = DisplayName::parse("Trust and Safety").expect("a name");
        let moderator = Moderator { name, signing: PublicKey([1; 32]), sealing: [2; SEALING_KEY_LEN] };
        let text = moderator.to_text();
        assert_eq!(Moderator::from_text(&text), Ok(moderator.clone()));
        let remarked = format!("# of the relay\n\n{}\n# end\n", text.replace('\n', "\r\n"));
        assert_eq!(Moderator::from_text(&remarked), Ok(moderator));
        for bad in [
            String::new(),
            text.replace("moderator-1", "moderator-2"),
            text.replace("Trust", "Thrust"),
            format!("{text}{text}"),
            text.replace("AQEB", "AQ*B"),
            text.replace("AgIC", ""),
            format!("{}\n{text}", "#".repeat(MAX_TEXT)),
        ] {
            assert!(Moderator::from_text(&bad).is_err(), "{bad}");
        }
    }
}
