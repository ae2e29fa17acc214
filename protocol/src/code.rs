//! The security code of a whole meeting: what its members read out to know that all of them have seen the same
//! history and nobody stands between them (`docs/protocol.md` §3.7).
//!
//! ```text
//! prk   = HKDF-Extract(salt = T_e, ikm = index u16 ‖ r 32, for each member in ascending order of index)
//! bytes = HKDF-Expand(prk, "conclave/1 security code", 36)
//! words  = the first 44 bits of bytes, as four numbers of 11 bits
//! digits = bytes[6..36], as six groups of 5 bytes, each a number modulo 100,000
//! ```
//!
//! T_e covers a commitment to every r, and no r is revealed before T_e is fixed. So nobody, the leader included, can
//! search for a history or a value that gives the code they want: each epoch is one try at 44 bits.

use hkdf::Hkdf;
use sha2::Sha256;
use std::collections::BTreeMap;

use crate::epoch::statement::ChainHash;
use crate::id::MemberIndex;
use crate::{label, words};

/// Bytes of output: 6 for the words, of which 44 bits are used, and 30 for the digits.
const LEN: usize = 36;
/// Where the digits begin.
const DIGITS_AT: usize = 6;

/// A meeting's security code, as words and as digits. Either may be compared; the digits hold about 100 bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecurityCode {
    words: [&'static str; 4],
    digits: String,
}

impl SecurityCode {
    /// The code of the epoch whose chain hash is `chain`, from what each of its members revealed, in any order. Each
    /// member is to come once; of two values for one index the later counts.
    pub fn derive(chain: &ChainHash, values: impl Iterator<Item = (MemberIndex, [u8; 32])>) -> Self {
        let values: BTreeMap<MemberIndex, [u8; 32]> = values.collect();
        let mut ikm = Vec::with_capacity(values.len() * 34);
        for (index, value) in &values {
            ikm.extend_from_slice(&index.0.to_be_bytes());
            ikm.extend_from_slice(value);
        }
        let mut bytes = [0; LEN];
        Hkdf::<Sha256>::new(Some(&chain.0), &ikm)
            .expand(label::SECURITY_CODE.as_bytes(), &mut bytes)
            .expect("36 bytes are below HKDF's limit of 8,160");
        Self { words: words_of(&bytes), digits: digits_of(&bytes[DIGITS_AT..]) }
    }

    /// Four words, joined by blanks.
    pub fn words(&self) -> String {
        self.words.join(" ")
    }

    /// Six groups of five digits, joined by blanks.
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// Whether somebody typed this code: its words or its digits, all of them. Case, blanks and hyphens don't count.
    pub fn matches(&self, typed: &str) -> bool {
        let typed = compact(typed);
        typed == self.words.concat() || typed == compact(&self.digits)
    }
}

/// The first 44 bits as four numbers of 11.
fn words_of(bytes: &[u8; LEN]) -> [&'static str; 4] {
    let bits = bytes[..DIGITS_AT].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) >> 4;
    [33, 22, 11, 0].map(|shift| words::word((bits >> shift & 0x7FF) as u16))
}

fn digits_of(bytes: &[u8]) -> String {
    let groups = bytes.chunks_exact(5).map(|five| {
        let number = five.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        format!("{:05}", number % 100_000)
    });
    groups.collect::<Vec<_>>().join(" ")
}

fn compact(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    const VECTORS: &str = include_str!("../../tests/vectors/security-code.json");

    fn bytes(v: &Value) -> [u8; 32] {
        let decoded = HEXLOWER.decode(v.as_str().expect("a text").as_bytes()).expect("hexadecimal digits");
        decoded.try_into().expect("32 bytes")
    }

    fn values() -> Vec<(MemberIndex, [u8; 32])> {
        vec![(MemberIndex(0), [1; 32]), (MemberIndex(2), [2; 32]), (MemberIndex(7), [3; 32])]
    }

    fn code(chain: [u8; 32], values: Vec<(MemberIndex, [u8; 32])>) -> SecurityCode {
        SecurityCode::derive(&ChainHash(chain), values.into_iter())
    }

    #[test]
    fn codes_are_those_of_the_vectors() {
        let vectors: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
        let cases = vectors["codes"].as_array().expect("a list");
        assert!(cases.len() > 1);
        for case in cases {
            let values = case["values"].as_array().expect("a list").iter().map(|v| {
                let index = v["index"].as_u64().and_then(|i| u16::try_from(i).ok()).expect("an index");
                (MemberIndex(index), bytes(&v["r"]))
            });
            let code = SecurityCode::derive(&ChainHash(bytes(&case["T"])), values);
            assert_eq!(code.words(), case["words"]);
            assert_eq!(code.digits(), case["digits"]);
        }
    }

    #[test]
    fn the_order_in_which_values_come_does_not_matter() {
        let reversed = values().into_iter().rev().collect();
        assert_eq!(code([9; 32], values()), code([9; 32], reversed));
    }

    #[test]
    fn one_bit_of_the_history_or_of_any_value_changes_words_and_digits() {
        let honest = code([9; 32], values());
        let mut others = vec![code([8; 32], values())];
        for at in 0..values().len() {
            let mut changed = values();
            changed[at].1[31] ^= 1;
            others.push(code([9; 32], changed));
            let mut moved = values();
            moved[at].0.0 += 1;
            others.push(code([9; 32], moved));
            let mut fewer = values();
            fewer.remove(at);
            others.push(code([9; 32], fewer));
        }
        for other in others {
            assert_ne!(other.words(), honest.words());
            assert_ne!(other.digits(), honest.digits());
        }
    }

    #[test]
    fn a_code_is_recognised_however_it_is_typed_but_only_whole() {
        let code = code([9; 32], values());
        let (words, digits) = (code.words(), code.digits().to_owned());
        assert_eq!(words.split(' ').count(), 4);
        assert_eq!(digits.split(' ').map(str::len).collect::<Vec<_>>(), vec![5; 6]);
        for typed in [&words, &words.to_uppercase(), &words.replace(' ', "-"), &format!(" {digits}\t")] {
            assert!(code.matches(typed), "{typed}");
        }
        assert!(code.matches(&digits.replace(' ', "")));
        assert!(code.matches(&digits.replace(' ', "--")));
        let three_words = words.rsplit_once(' ').map(|(first, _)| first).expect("four words");
        for typed in ["", "-", three_words, &digits[..29], &format!("{words} {digits}"), &format!("{digits}0")] {
            assert!(!code.matches(typed), "{typed}");
        }
    }
}
