//! What a packet of Opus holds besides its own frame, by its bytes (RFC 6716 §3 and §4.2).

use opus::Repacketizer;

use super::CodecError;
use crate::audio::format::PACKET_LEN;

/// Configurations below are SILK's, alone or below CELT: only these have LBRR.
const CELT: u8 = 16;
/// Bits of the first byte.
const STEREO: u8 = 0b100;
const CODE: u8 = 0b11;
/// Bits of the second byte, where there is a count.
const COUNT: u8 = 0b11_1111;
const PADDED: u8 = 0b100_0000;
/// SILK's second bit, in a frame of 10 or 20 ms and one channel.
const LBRR: u8 = 0b100_0000;

/// Whether a packet of one frame of 10 or 20 ms holds the frame before it in lower quality (LBRR). Of packets that no client
/// makes, with two channels or several frames, it is not told.
pub fn holds_the_frame_before(packet: &[u8]) -> bool {
    let Some((first, rest)) = packet.split_first() else { return false };
    let frame = if first >> 3 >= CELT || first & STEREO != 0 { None } else { only_frame(first & CODE, rest) };
    frame.is_some_and(|byte| byte & LBRR != 0)
}

/// The first byte of a packet's frame, if it has one frame. `rest` is what comes after the packet's first byte.
fn only_frame(code: u8, rest: &[u8]) -> Option<u8> {
    match (code, rest) {
        (0, [frame, ..]) => Some(*frame),
        (0b11, [count, rest @ ..]) if count & COUNT == 1 => {
            let lengths = rest.iter().take_while(|length| **length == 255).count() + 1;
            rest.get(if count & PADDED == 0 { 0 } else { lengths }).copied()
        }
        _ => None,
    }
}

/// Makes packets that begin a frame earlier, so that what they describe (DRED) is that of the gap without its last frame.
pub struct Earlier {
    repacketizer: Repacketizer,
}

/// Room for a packet of a meeting, an empty frame, and what is added to tell whose frame a description is.
const ROOM: usize = PACKET_LEN + 16;

impl Earlier {
    /// Allocates what it needs.
    ///
    /// # Errors
    /// [`CodecError::Packet`] when libopus has no memory.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self { repacketizer: Repacketizer::new()? })
    }

    /// The same packet after an empty frame, and its length. Descriptions belong to a frame and go with it.
    ///
    /// # Errors
    /// [`CodecError::Packet`] when it is no packet, or too long for a meeting.
    pub fn of(&mut self, packet: &[u8]) -> Result<([u8; ROOM], usize), CodecError> {
        let empty = [packet.first().copied().unwrap_or(0) & !CODE];
        let mut out = [0; ROOM];
        let len = self.repacketizer.combine(&[&empty, packet], &mut out)?;
        Ok((out, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::codec::tests::voice;
    use crate::audio::codec::{Encoder, Redundancy};
    use crate::audio::format::{FrameDuration, SAMPLE_RATE};

    /// The last of some packets of a voice; of a steady tone nothing is held.
    fn packet(redundancy: Redundancy) -> [u8; PACKET_LEN] {
        let mut encoder = Encoder::with(FrameDuration::Ms20, PACKET_LEN, redundancy).unwrap();
        let mut packet = [0; PACKET_LEN];
        for n in 0..44 {
            encoder.encode(&voice(n), &mut packet).unwrap();
        }
        packet
    }

    #[test]
    fn it_is_told_whether_a_packet_holds_the_frame_before() {
        assert!(holds_the_frame_before(&packet(Redundancy::SENT)));
        assert!(!holds_the_frame_before(&packet(Redundancy::NONE)));
        let sent = packet(Redundancy::SENT);
        assert!((0..3).all(|len| !holds_the_frame_before(&sent[..len])), "a packet that has no frame");
        assert!(!holds_the_frame_before(&[sent[0] | STEREO, 0xff, 0xff, 0xff]));
        assert!(!holds_the_frame_before(&[CELT << 3, 0xff, 0xff]));
        // Two frames of one packet.
        assert!(!holds_the_frame_before(&[sent[0] & !CODE | 1, 0xff, 0xff]));
    }

    #[test]
    fn a_packet_begins_one_frame_earlier_and_is_otherwise_the_same() {
        let sent = packet(Redundancy::SENT);
        let (earlier, len) = Earlier::new().unwrap().of(&sent).unwrap();
        let earlier = &earlier[..len];
        assert_eq!(opus::packet::get_nb_samples(earlier, SAMPLE_RATE).unwrap(), 2 * 960);
        let (was, is) = (opus::packet::parse(&sent).unwrap(), opus::packet::parse(earlier).unwrap());
        assert_eq!(is.frames, [&[][..], was.frames[0]]);
    }

    #[test]
    fn what_is_no_packet_or_too_long_is_refused() {
        let mut earlier = Earlier::new().unwrap();
        assert!(earlier.of(&[]).is_err());
        assert!(earlier.of(&[packet(Redundancy::SENT)[0]; 1_000]).is_err());
    }
}
