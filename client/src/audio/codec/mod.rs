//! Opus with the settings of every meeting: constant size, constant rate, redundancy inside (`docs/protocol.md` §8.4).
//!
//! Packets come from other members and may be anything. Decoding gives sound or an error, never a panic. `opus` looks
//! at packets; the rest is `opusic-c`, the safe wrapper that reaches deep redundancy. Both are over one libopus.

mod decoder;
mod encoder;
mod packet;
#[cfg(test)]
mod tests;

use super::format::PACKET_LEN;
pub use decoder::{Decoder, Effort, MAX_GAP};
pub use encoder::{Encoder, Redundancy};

/// What went wrong in the codec.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// libopus refused; a packet that is no Opus ends here too.
    #[error("Opus: {}", .0.message())]
    Opus(opusic_c::ErrorCode),
    /// What was received is no Opus packet.
    #[error("Opus: {0}")]
    Packet(#[from] opus::Error),
    /// The encoder broke constant bitrate. Sending the packet would show what is said.
    #[error("the encoder made {0} bytes instead of {PACKET_LEN}")]
    PacketLength(usize),
    /// A sample that is no number.
    #[error("a sample to encode is not a finite number")]
    NotFinite,
    /// A packet of another duration than a frame.
    #[error("the packet holds {0} samples instead of {1}")]
    Duration(usize, usize),
    /// A gap of no whole frame, or of more than [`MAX_GAP`].
    #[error("a gap of {0} samples cannot be filled, only one of whole frames up to {MAX_GAP}")]
    Gap(usize),
    /// The libopus in this program is of another make than its wrapper.
    #[error("this libopus keeps {0} bytes for redundancy, and its wrapper only {1}")]
    Library(usize, usize),
    /// More talkers than this client decodes.
    #[error("no more than {limit} talkers can be decoded")]
    TooManyTalkers {
        /// The most there can be.
        limit: usize,
    },
}

impl From<opusic_c::ErrorCode> for CodecError {
    fn from(error: opusic_c::ErrorCode) -> Self {
        Self::Opus(error)
    }
}
