//! What a report or a ban is about.

use std::fmt;
use std::str::FromStr;

use crate::wire::codec::{Malformed, Reader, Wire, Writer};

/// Why somebody is reported: one byte, 1 to 9 in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Category {
    /// Harassment.
    Harassment,
    /// Hatred of a group.
    Hate,
    /// A threat.
    Threat,
    /// Sexual matter that nobody asked for.
    Sexual,
    /// A child is in danger.
    ChildSafety,
    /// Poses as somebody else.
    Impersonation,
    /// Records without being allowed to.
    Recording,
    /// Spam.
    Spam,
    /// Anything else; the note says what.
    Other,
}

/// The word is none of the categories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a category is one of harassment, hate, threat, sexual, child_safety, impersonation, recording, spam, other")]
pub struct UnknownCategory;

impl Category {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Harassment,
        Self::Hate,
        Self::Threat,
        Self::Sexual,
        Self::ChildSafety,
        Self::Impersonation,
        Self::Recording,
        Self::Spam,
        Self::Other,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Harassment => "harassment",
            Self::Hate => "hate",
            Self::Threat => "threat",
            Self::Sexual => "sexual",
            Self::ChildSafety => "child_safety",
            Self::Impersonation => "impersonation",
            Self::Recording => "recording",
            Self::Spam => "spam",
            Self::Other => "other",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Harassment => 1,
            Self::Hate => 2,
            Self::Threat => 3,
            Self::Sexual => 4,
            Self::ChildSafety => 5,
            Self::Impersonation => 6,
            Self::Recording => 7,
            Self::Spam => 8,
            Self::Other => 9,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Category {
    type Err = UnknownCategory;
    fn from_str(word: &str) -> Result<Self, UnknownCategory> {
        Self::ALL.into_iter().find(|category| category.as_str() == word).ok_or(UnknownCategory)
    }
}

impl Wire for Category {
    fn write(&self, w: &mut Writer) {
        w.u8(self.code());
    }
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = r.u8()?;
        Self::ALL.into_iter().find(|category| category.code() == code).ok_or(Malformed("category"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_one_word_and_one_code() {
        for (place, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category.as_str().parse(), Ok(category));
            assert_eq!(category.encode(), [place as u8 + 1]);
            assert_eq!(Category::decode(&category.encode()), Ok(category));
        }
        assert!(Category::decode(&[0]).is_err());
        assert!(Category::decode(&[10]).is_err());
        assert!("Spam".parse::<Category>().is_err());
    }
}
