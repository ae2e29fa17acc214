//! The plaintext of a media frame: always the same size, whatever it holds.

use crate::sframe::{HEADER_LEN, suite};
use crate::wire::datagram;

/// Longest Opus packet in a frame: 48 kbit/s at 20 ms, redundancy included (`docs/protocol.md` §8.4).
pub const MAX_OPUS: usize = 120;
/// Length of every plaintext: fields, and the longest packet.
pub const PLAINTEXT_LEN: usize = FIXED + MAX_OPUS;
/// Length of every media datagram.
pub const DATAGRAM_LEN: usize = datagram::HEADER_LEN + HEADER_LEN + PLAINTEXT_LEN + suite::TAG_LEN;

const FIXED: usize = 12;
const _: () = assert!(DATAGRAM_LEN == 161);

const MUTED: u8 = 1;

/// Whether the talker's microphone is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Microphone {
    /// On.
    On,
    /// Off: nothing is captured; frames go on so that nobody outside can tell.
    Muted,
}

/// One media frame.
///
/// ```text
/// seq u32 ‖ stamp u32 ‖ flags u8 (bit 0: muted) ‖ level u8 ‖ length u16 ‖ Opus ‖ zeros up to 132 bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Tick of the sender's frame clock: one more with every frame duration, sent or not, wrapping.
    pub seq: u32,
    /// Sender's wall clock when the frame was sealed, in units of 10 µs since 1970, modulo 2³² (11.9 hours).
    pub stamp: u32,
    /// Microphone.
    pub microphone: Microphone,
    /// Level below full scale in dB, 0 to 127 (RFC 6464's scale).
    pub level: u8,
    /// Opus packet, at most [`MAX_OPUS`] bytes; empty while muted.
    pub opus: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Writes the plaintext. An Opus packet that is too long is left out, and the frame counts as silence.
    pub(super) fn write(&self, out: &mut [u8; PLAINTEXT_LEN]) {
        debug_assert!(self.opus.len() <= MAX_OPUS);
        let opus = if self.opus.len() <= MAX_OPUS { self.opus } else { &[] };
        out.fill(0);
        out[..4].copy_from_slice(&self.seq.to_be_bytes());
        out[4..8].copy_from_slice(&self.stamp.to_be_bytes());
        out[8] = if self.microphone == Microphone::Muted { MUTED } else { 0 };
        out[9] = self.level.min(127);
        // Bounded above by MAX_OPUS.
        out[10..12].copy_from_slice(&(opus.len() as u16).to_be_bytes());
        out[FIXED..FIXED + opus.len()].copy_from_slice(opus);
    }

    /// Reads a plaintext; `None` when it breaks the format. Padding that is not zero is refused, so that it can
    /// carry nothing.
    pub(crate) fn read(plaintext: &'a [u8]) -> Option<Self> {
        let plaintext: &[u8; PLAINTEXT_LEN] = plaintext.try_into().ok()?;
        let [s0, s1, s2, s3, t0, t1, t2, t3, flags, level, l0, l1] = *plaintext.first_chunk::<FIXED>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if len > MAX_OPUS || flags & !MUTED != 0 || level > 127 {
            return None;
        }
        let (opus, padding) = plaintext[FIXED..].split_at_checked(len)?;
        if padding.iter().any(|b| *b != 0) {
            return None;
        }
        let microphone = if flags & MUTED != 0 { Microphone::Muted } else { Microphone::On };
        Some(Self {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            stamp: u32::from_be_bytes([t0, t1, t2, t3]),
            microphone,
            level,
            opus,
        })
    }
}
