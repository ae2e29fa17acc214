//! The SFrame header (RFC 9605 §4.3): KID and CTR as compact integers.
//!
//! Owns: the newtypes [`Kid`] and [`Ctr`] and the header's bytes. Refuses: truncated headers, and
//! encodings longer than the value needs, so that a header has exactly one encoding. Gives no meaning
//! to the values, and allocates nothing.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-----+-+-----+----------------+----------------+
//! |X|  K  |Y|  C  | KID, K+1 bytes | CTR, C+1 bytes |
//! +-+-----+-+-----+----------------+----------------+
//! ```
//!
//! X = 0: K is the KID itself and no KID bytes follow. X = 1: K+1 bytes, big-endian. Y and C the same for the CTR.

/// Names the one key that opens a frame (KID). All 64 bits may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(pub u64);

/// Counts the frames sealed under one key (CTR). Never used twice with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ctr(pub u64);

/// A decoded SFrame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The key that sealed the frame.
    pub kid: Kid,
    /// The frame's number under that key.
    pub ctr: Ctr,
}

/// Why bytes are not an SFrame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes end before the header does.
    #[error("the SFrame header is truncated")]
    Truncated,
    /// A value takes more bytes than it needs; RFC 9605 §4.3 demands the fewest.
    #[error("the SFrame header is not minimally encoded")]
    NotMinimal,
}

impl Header {
    /// Bytes of the longest header: the config byte and twice 8 bytes.
    pub const MAX_LEN: usize = 17;

    /// Writes the header to the front of `out` and returns its length in bytes, 1 to 17. The rest of
    /// `out` stays as it is.
    pub fn encode(&self, out: &mut [u8; Self::MAX_LEN]) -> usize {
        let (kid_bits, kid_len) = put_field(self.kid.0, &mut out[1..]);
        let (ctr_bits, ctr_len) = put_field(self.ctr.0, &mut out[1 + kid_len..]);
        out[0] = kid_bits << 4 | ctr_bits;
        1 + kid_len + ctr_len
    }

    /// Reads the header at the front of `bytes`, and returns it with its length in bytes. What follows is not looked at.
    ///
    /// # Errors
    /// [`HeaderError::Truncated`] and [`HeaderError::NotMinimal`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let (&config, rest) = bytes.split_first().ok_or(HeaderError::Truncated)?;
        let (kid, rest) = take_field(config >> 4, rest)?;
        let (ctr, rest) = take_field(config & 0x0f, rest)?;
        Ok((Self { kid: Kid(kid), ctr: Ctr(ctr) }, bytes.len() - rest.len()))
    }
}

/// Writes the bytes that `value` needs beyond the config byte. Returns the field's four bits of the
/// config byte and the number of bytes written, 0 to 8. `out` has room for 8.
fn put_field(value: u64, out: &mut [u8]) -> (u8, usize) {
    if value <= INLINE_MAX {
        return (value as u8, 0);
    }
    let skip = value.leading_zeros() as usize / 8;
    let len = 8 - skip;
    out[..len].copy_from_slice(&value.to_be_bytes()[skip..]);
    (EXTENDED | (len - 1) as u8, len)
}

/// Reads a field from its four bits of the config byte and the bytes after it; returns what follows.
fn take_field(bits: u8, bytes: &[u8]) -> Result<(u64, &[u8]), HeaderError> {
    if bits & EXTENDED == 0 {
        return Ok((u64::from(bits), bytes));
    }
    let len = usize::from(bits & !EXTENDED) + 1;
    let (field, rest) = bytes.split_at_checked(len).ok_or(HeaderError::Truncated)?;
    let value = field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    if value <= INLINE_MAX || field[0] == 0 {
        return Err(HeaderError::NotMinimal);
    }
    Ok((value, rest))
}

/// The flag X or Y within a field's four bits.
const EXTENDED: u8 = 0b1000;

/// The largest value that the three bits K or C carry themselves.
const INLINE_MAX: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const VECTORS: &str = include_str!("../../vectors/rfc9605.json");

    fn vectors() -> Vec<(Header, Vec<u8>)> {
        let json: Value = serde_json::from_str(VECTORS).unwrap();
        let parse = |v: &Value| {
            let header = Header { kid: Kid(v["kid"].as_u64().unwrap()), ctr: Ctr(v["ctr"].as_u64().unwrap()) };
            (header, data_encoding::HEXLOWER.decode(v["encoded"].as_str().unwrap().as_bytes()).unwrap())
        };
        json["header"].as_array().unwrap().iter().map(parse).collect()
    }

    fn encoded(header: Header) -> Vec<u8> {
        let mut out = [0; Header::MAX_LEN];
        let len = header.encode(&mut out);
        out[..len].to_vec()
    }

    #[test]
    fn all_header_vectors_of_rfc_9605_encode_and_decode() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 289);
        for (header, bytes) in vectors {
            assert_eq!(encoded(header), bytes);
            assert_eq!(Header::decode(&bytes), Ok((header, bytes.len())));
        }
    }

    #[test]
    fn header_is_read_from_the_front_of_a_frame() {
        for (header, bytes) in vectors() {
            let frame = [&bytes[..], &[0xa5; 40]].concat();
            assert_eq!(Header::decode(&frame), Ok((header, bytes.len())));
        }
    }

    #[test]
    fn every_truncated_header_is_refused() {
        for (_, bytes) in vectors() {
            for len in 0..bytes.len() {
                assert_eq!(Header::decode(&bytes[..len]), Err(HeaderError::Truncated));
            }
        }
    }

    #[test]
    fn longer_encoding_than_needed_is_refused() {
        for bytes in [
            &[0x80, 0x00][..],               // KID 0 in one byte
            &[0x80, 0x07],                   // KID 7 in one byte
            &[0x08, 0x07],                   // CTR 7 in one byte
            &[0x90, 0x00, 0xff],             // KID 255 in two bytes
            &[0x09, 0x00, 0xff],             // CTR 255 in two bytes
            &[0x0f, 0, 1, 2, 3, 4, 5, 6, 7], // seven significant bytes in eight
        ] {
            assert_eq!(Header::decode(bytes), Err(HeaderError::NotMinimal), "{bytes:02x?}");
        }
        assert_eq!(Header::decode(&[0x88, 8, 8]), Ok((Header { kid: Kid(8), ctr: Ctr(8) }, 3)));
    }

    #[test]
    fn encoding_leaves_the_rest_of_the_buffer_alone() {
        let mut out = [0xa5; Header::MAX_LEN];
        let len = Header { kid: Kid(1), ctr: Ctr(300) }.encode(&mut out);
        assert_eq!(len, 3);
        assert!(out[len..].iter().all(|byte| *byte == 0xa5));
    }

    /// Values of every length are equally likely.
    fn any_width() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes_to_itself(kid in any_width(), ctr in any_width()) {
            let header = Header { kid: Kid(kid), ctr: Ctr(ctr) };
            let bytes = encoded(header);
            prop_assert_eq!(Header::decode(&bytes), Ok((header, bytes.len())));
        }

        #[test]
        fn what_decodes_has_this_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok((header, len)) = Header::decode(&bytes) {
                prop_assert_eq!(encoded(header), &bytes[..len]);
            }
        }
    }
}
