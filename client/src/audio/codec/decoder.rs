//! A talker's packets to sound, and what is missing of them to something that can be listened to.

use opusic_c::dred::{DRED_PACKET_SIZE, Dred, dred_packet_size};
use opusic_c::{Channels, SampleRate};

use super::CodecError;
use super::packet::{Earlier, holds_the_frame_before};
use crate::audio::format::{FRAME_SAMPLES, FrameDuration, SAMPLE_RATE, samples};

/// Longest gap that is filled at once, in samples: 160 ms, of the 240 ms that clients describe. Longer ones are concealed at
/// their beginning; filling them would take too long in one tick.
pub const MAX_GAP: usize = 8 * FRAME_SAMPLES;

/// From this complexity on libopus conceals by a network (`opus_defines.h`, OPUS_SET_COMPLEXITY).
const NEURAL: u8 = 5;

/// How a missing frame is made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// By repeating pitch periods: hardly any work.
    Classic,
    /// By a neural network that goes on speaking: it takes longer, and is better to hear.
    Neural,
}

/// Decodes one talker's sound.
pub struct Decoder {
    /// Samples in a frame.
    frame: usize,
    dred: Dred,
    earlier: Earlier,
}

impl Decoder {
    /// A decoder of frames of this duration. Allocates about 100 kB.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn new(frame: FrameDuration) -> Result<Self, CodecError> {
        // The wrapper allocates what its own libopus would need.
        if dred_packet_size() > DRED_PACKET_SIZE {
            return Err(CodecError::Library(dred_packet_size(), DRED_PACKET_SIZE));
        }
        let mut opus = opusic_c::Decoder::new(Channels::Mono, SampleRate::Hz48000)?;
        opus.set_complexity(NEURAL)?;
        Ok(Self { frame: samples(frame), dred: Dred::new(opus)?, earlier: Earlier::new()? })
    }

    /// Decodes a packet of one frame, which is as long as `out`.
    ///
    /// # Errors
    /// Whatever is no Opus packet of that duration; `out` is then worth nothing, and [`Self::conceal`] may fill the place.
    pub fn decode(&mut self, packet: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
        self.check(packet)?;
        self.run(packet, false, out)
    }

    /// Fills the place of a missing frame from the packet after it, which may hold it in lower quality (LBRR). If it
    /// does not, the frame is made up with the given effort: by a network also from its coarse description (DRED).
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn recover(&mut self, next: &[u8], effort: Effort, out: &mut [f32]) -> Result<(), CodecError> {
        self.check(next)?;
        if effort == Effort::Neural && !holds_the_frame_before(next) {
            return self.describe(next, out);
        }
        self.with(effort, |decoder| decoder.run(next, true, out))
    }

    /// Fills a whole gap from the packet after it: its last frame as [`Self::recover`] does, those before by the packet's
    /// coarse description of what was said (DRED). What it does not describe is concealed. Takes about as long as that
    /// many frames of [`Effort::Neural`].
    ///
    /// # Errors
    /// As [`Self::decode`], and [`CodecError::Gap`] if `out` is not one whole frame or more, or more than [`MAX_GAP`].
    pub fn bridge(&mut self, next: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
        self.check(next)?;
        if !(1..=MAX_GAP).contains(&out.len()) || !out.len().is_multiple_of(self.frame) {
            return Err(CodecError::Gap(out.len()));
        }
        if !holds_the_frame_before(next) {
            return self.describe(next, out);
        }
        let (before, last) = out.split_at_mut(out.len() - self.frame);
        if !before.is_empty() {
            // The wrapper fills what is directly before a packet, and nothing else.
            let (earlier, len) = self.earlier.of(next)?;
            self.describe(&earlier[..len], before)?;
        }
        self.run(next, true, last)
    }

    /// Fills what is directly before a packet by its coarse description of it.
    pub(super) fn describe(&mut self, next: &[u8], out: &mut [f32]) -> Result<(), CodecError> {
        whole(self.dred.decode_float_to_slice(next, out)?, out.len())
    }

    /// Fills the place of a missing frame from what was heard before; fades out when it is called again and again.
    ///
    /// # Errors
    /// [`CodecError::Opus`]; `out` is then worth nothing.
    pub fn conceal(&mut self, effort: Effort, out: &mut [f32]) -> Result<(), CodecError> {
        self.with(effort, |decoder| decoder.run(&[], false, out))
    }

    /// Forgets what was heard before. To be called where a talker's packets stop: the first packet after a gap says
    /// how the sound *changed*, and added to what was heard before the gap that is a burst of noise.
    ///
    /// # Errors
    /// [`CodecError::Opus`].
    pub fn reset(&mut self) -> Result<(), CodecError> {
        Ok(self.dred.decoder_mut().reset()?)
    }

    fn run(&mut self, packet: &[u8], redundant: bool, out: &mut [f32]) -> Result<(), CodecError> {
        whole(self.dred.decoder_mut().decode_float_to_slice(packet, out, redundant)?, out.len())
    }

    /// Asked before decoding, so that a packet of a wrong duration leaves the decoder as it was. It refuses an empty packet
    /// too, which libopus would take for a lost one.
    fn check(&self, packet: &[u8]) -> Result<(), CodecError> {
        whole(opus::packet::get_nb_samples(packet, SAMPLE_RATE)?, self.frame)
    }

    /// The network follows what is decoded as long as it is switched on, so it is off for one frame only.
    fn with(
        &mut self,
        effort: Effort,
        work: impl FnOnce(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        if effort == Effort::Neural {
            return work(self);
        }
        self.dred.decoder_mut().set_complexity(0)?;
        let done = work(self);
        self.dred.decoder_mut().set_complexity(NEURAL)?;
        done
    }
}

fn whole(samples: usize, wanted: usize) -> Result<(), CodecError> {
    if samples == wanted { Ok(()) } else { Err(CodecError::Duration(samples, wanted)) }
}
