//! The number of one identity, which people can read to each other (`docs/protocol.md` §10.7).

use std::fmt;

use crate::label;
use crate::sign::PublicKey;

/// 30 digits (about 99 bits) that stand for one IK, whoever looks at it. A safety number is of two people; a moderator
/// is nobody's counterpart, and two moderators must see the same number of the same person.
///
/// `H("conclave/1 identity number" ‖ IK)`; six groups of five digits, each a 5-byte big-endian number of the hash
/// modulo 100,000.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityNumber(String);

impl IdentityNumber {
    /// The number of one identity.
    pub fn of(identity: &PublicKey) -> Self {
        let hash = label::hash(label::IDENTITY_NUMBER, &[&identity.0]);
        let groups = hash.chunks_exact(5).map(|five| {
            let number = five.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        });
        Self(groups.collect::<Vec<_>>().join(" "))
    }

    /// Six groups of five digits, separated by blanks.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdentityNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_has_thirty_digits_of_its_own() {
        let numbers: Vec<IdentityNumber> = (0..3u8).map(|i| IdentityNumber::of(&PublicKey([i; 32]))).collect();
        assert_eq!(numbers[0].as_str().split(' ').map(str::len).collect::<Vec<_>>(), vec![5; 6]);
        assert_ne!(numbers[0], numbers[1]);
        assert_ne!(numbers[1], numbers[2]);
    }
}
