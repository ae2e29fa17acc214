//! The words in which security codes are read out (`docs/protocol.md` §3.7).
//!
//! The list is the English one of BIP-39 (<https://github.com/bitcoin/bips/blob/master/bip-0039/english.txt>, under
//! the MIT licence), as it was published: 2,048 common words of 3 to 8 letters, chosen so that the first four letters
//! tell them apart. A word stands for 11 bits. Nothing else of BIP-39 is used.

use std::sync::LazyLock;

const TEXT: &str = include_str!("words.txt");

/// How many words there are: every 11-bit number has one.
pub const COUNT: u16 = 2_048;

static WORDS: LazyLock<Vec<&'static str>> = LazyLock::new(|| TEXT.lines().collect());

/// The word of a number. Only the lowest 11 bits of `index` count, so every number has a word.
pub fn word(index: u16) -> &'static str {
    // The tests see to it that the list is whole.
    WORDS.get(usize::from(index % COUNT)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;

    #[test]
    fn the_list_is_the_published_one() {
        let digest = HEXLOWER.encode(&Sha256::digest(TEXT.as_bytes()));
        assert_eq!(digest, "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
    }

    #[test]
    fn every_number_has_a_word_of_its_own_and_four_letters_tell_it() {
        let words: BTreeSet<&str> = (0..COUNT).map(word).collect();
        let beginnings: BTreeSet<&str> = words.iter().map(|w| w.get(..4).unwrap_or(w)).collect();
        assert_eq!(WORDS.len(), usize::from(COUNT));
        assert_eq!([words.len(), beginnings.len()], [usize::from(COUNT); 2]);
        assert!(words.iter().all(|w| (3..=8).contains(&w.len()) && w.bytes().all(|b| b.is_ascii_lowercase())));
        assert_eq!([word(0), word(COUNT - 1), word(COUNT)], ["abandon", "zoo", "abandon"]);
    }
}
