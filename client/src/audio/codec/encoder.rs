//! One's own sound to packets.

use opusic_c::{Application, Bitrate, Channels, InbandFec, SampleRate};

use super::CodecError;
use crate::audio::format::{FrameDuration, PACKET_LEN, SAMPLE_RATE, samples};

/// Highest effort.
const COMPLEXITY: u8 = 10;

/// What a packet holds besides its own frame. Its size is the same in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redundancy {
    /// Loss that the encoder prepares for, in percent. From about 2 on each packet holds the frame before in lower
    /// quality (LBRR), and the higher, the more is taken from the frame itself for what follows.
    pub loss_percent: u8,
    /// Length of the coarse description of what was said before (DRED), in units of 10 ms; 0 is none.
    pub deep: u8,
}

impl Redundancy {
    /// Nothing besides the frame itself.
    pub const NONE: Self = Self { loss_percent: 0, deep: 0 };
    /// What every client sends: the frame before, and 240 ms of coarse description. With less than 20 % the description
    /// is starved and bursts of loss stay gaps; with more, every frame sounds worse though none is lost. A shorter
    /// description leaves the frames better, and does not reach to where a burst begins.
    /// `cargo run --release -p conclave-benches --bin repair` compares, with `--prepare-for` and `--describe`.
    pub const SENT: Self = Self { loss_percent: 20, deep: 24 };
}

/// Encodes one's own sound.
pub struct Encoder(opusic_c::Encoder);

impl Encoder {
    /// An encoder as every client has it: speech, hard constant bitrate, no discontinuous transmission, redundancy.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn new(frame: FrameDuration) -> Result<Self, CodecError> {
        Self::with(frame, PACKET_LEN, Redundancy::SENT)
    }

    /// An encoder of packets of `len` bytes, to compare with.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory, or refuses the settings.
    pub fn with(frame: FrameDuration, len: usize, redundancy: Redundancy) -> Result<Self, CodecError> {
        let mut encoder = opusic_c::Encoder::new(Channels::Mono, SampleRate::Hz48000, Application::Voip)?;
        // Not above a few thousand bytes, the longest that Opus knows.
        encoder.set_bitrate(Bitrate::Value((len * 8) as u32 * SAMPLE_RATE / samples(frame) as u32))?;
        encoder.set_vbr(false)?;
        encoder.set_dtx(false)?;
        let fec = if redundancy.loss_percent > 0 { InbandFec::Mode1 } else { InbandFec::Off };
        encoder.set_inband_fec(fec)?;
        encoder.set_packet_loss(redundancy.loss_percent)?;
        encoder.set_dred_duration(redundancy.deep)?;
        encoder.set_complexity(COMPLEXITY)?;
        Ok(Self(encoder))
    }

    /// Encodes a frame, all of `pcm`. Every packet has the length of `out`, which must be that of [`Encoder::with`].
    ///
    /// # Errors
    /// [`CodecError::NotFinite`], or a failure of libopus; `out` is then worth nothing.
    pub fn encode(&mut self, pcm: &[f32], out: &mut [u8]) -> Result<(), CodecError> {
        if !pcm.iter().all(|sample| sample.is_finite()) {
            return Err(CodecError::NotFinite);
        }
        let len = self.0.encode_float_to_slice(pcm, out)?;
        if len == out.len() { Ok(()) } else { Err(CodecError::PacketLength(len)) }
    }
}
