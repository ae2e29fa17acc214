//! Mumble's voice packets (protocol of 1.2 and 1.3), as they are before encryption.
//!
//! ```text
//! from a client   kind 3 bits ‖ target 5 bits ‖             sequence varint ‖ length varint ‖ Opus
//! from a server   kind 3 bits ‖ target 5 bits ‖ sender varint ‖ sequence varint ‖ length varint ‖ Opus
//! ```

use crate::pattern::FRAME_LEN;

/// Opus, to all in the channel.
const OPUS: u8 = 4 << 5;

/// A ping, which the server returns as it is: kind 1 and a time, which nothing here looks at.
pub const PING: [u8; 2] = [1 << 5, 0];

/// A frame takes this many bytes before the Opus packet: kind, sequence number and length.
const HEADER_LEN: usize = 4;

/// A varint of two bytes: the first begins with the bits 10, and 14 bits of the number follow.
const TWO_BYTES: u8 = 0b1000_0000;

/// A frame's length is such a varint, and below the bit that says that a talker has ended.
const _: () = assert!(FRAME_LEN < 0x2000);

/// A talker's packet. Servers pass the sequence number on without looking at it; here it is always 0.
pub fn packet(frame: &[u8; FRAME_LEN]) -> [u8; HEADER_LEN + FRAME_LEN] {
    let mut bytes = [0; HEADER_LEN + FRAME_LEN];
    bytes[0] = OPUS;
    let [high, low] = (FRAME_LEN as u16).to_be_bytes();
    (bytes[2], bytes[3]) = (TWO_BYTES | high, low);
    bytes[HEADER_LEN..].copy_from_slice(frame);
    bytes
}

/// The frame in a server's packet; `None` if it holds none, as that of a ping.
pub fn frame(packet: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = packet.split_first()?;
    if *kind != OPUS {
        return None;
    }
    let rest = after_varint(after_varint(rest)?)?;
    let ([high, low], rest) = rest.split_first_chunk()?;
    if high & 0b1100_0000 != TWO_BYTES {
        return None;
    }
    rest.get(..usize::from(u16::from_be_bytes([high & !TWO_BYTES, *low])))
}

/// What follows a varint: the ones at the head of its first byte tell how many bytes come after it.
fn after_varint(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    // From four on the code is another, for numbers that occur nowhere here.
    let more = first.leading_ones();
    if more > 3 { None } else { rest.get(more as usize..) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_found_behind_senders_and_sequences_of_any_length() {
        let sent = packet(&[7; FRAME_LEN]);
        for sender in [&[0x05][..], &[0x81, 0x00], &[0xc1, 0x00, 0x00]] {
            let mut forwarded = vec![sent[0]];
            forwarded.extend(sender);
            forwarded.extend(&sent[1..]);
            assert_eq!(frame(&forwarded), Some(&[7; FRAME_LEN][..]));
            assert_eq!(frame(&forwarded[..forwarded.len() - 1]), None);
        }
        assert_eq!(frame(&PING), None);
        assert_eq!(frame(&[]), None);
    }
}
