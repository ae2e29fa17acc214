//! Opus with the settings of the meeting: constant size, constant rate (DESIGN §7).
//!
//! Packets come from other members and may be anything. Decoding gives sound or an error, never a panic.

use opus::{Application, Bitrate, Channels};

use super::format::{FRAME_SAMPLES, Frame, PACKET_LEN, SAMPLE_RATE};

/// Bits per second. At this rate constant bitrate costs nothing against variable (4.40 PESQ-WB against 4.39).
const BITRATE: i32 = 32_000;
/// Highest effort: about 0.4 ms per frame of encoding.
const COMPLEXITY: i32 = 10;

const _: () = assert!(BITRATE as usize * FRAME_SAMPLES == PACKET_LEN * 8 * SAMPLE_RATE as usize);

/// What went wrong in the codec.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// libopus refused; a packet that is no Opus ends here too.
    #[error("Opus: {0}")]
    Opus(#[from] opus::Error),
    /// The encoder broke constant bitrate. Sending the packet would show what is said.
    #[error("the encoder made {0} bytes instead of {PACKET_LEN}")]
    PacketLength(usize),
    /// A sample that is no number.
    #[error("a sample to encode is not a finite number")]
    NotFinite,
    /// A packet of another duration than a frame.
    #[error("the packet holds {0} samples instead of {FRAME_SAMPLES}")]
    Duration(usize),
    /// More talkers than this client decodes.
    #[error("no more than {limit} talkers can be decoded")]
    TooManyTalkers {
        /// The most there can be.
        limit: usize,
    },
}

/// Encodes one's own sound.
pub struct Encoder(opus::Encoder);

impl Encoder {
    /// An encoder: speech, hard constant bitrate, no discontinuous transmission, no in-band redundancy.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn new() -> Result<Self, CodecError> {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
        encoder.set_vbr(false)?;
        encoder.set_dtx(false)?;
        encoder.set_inband_fec(false)?;
        encoder.set_packet_loss_perc(0)?;
        encoder.set_complexity(COMPLEXITY)?;
        Ok(Self(encoder))
    }

    /// Encodes a frame. Every packet has the same length.
    ///
    /// # Errors
    /// [`CodecError::NotFinite`], or a failure of libopus; `out` is then worth nothing.
    pub fn encode(&mut self, pcm: &Frame, out: &mut [u8; PACKET_LEN]) -> Result<(), CodecError> {
        if !pcm.iter().all(|sample| sample.is_finite()) {
            return Err(CodecError::NotFinite);
        }
        match self.0.encode_float(pcm, out)? {
            PACKET_LEN => Ok(()),
            other => Err(CodecError::PacketLength(other)),
        }
    }
}

/// Decodes one talker's sound.
pub struct Decoder(opus::Decoder);

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`CodecError::Opus`] when libopus has no memory.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self(opus::Decoder::new(SAMPLE_RATE, Channels::Mono)?))
    }

    /// Decodes a packet of one frame.
    ///
    /// # Errors
    /// Whatever is no Opus packet of 20 ms; `out` is then worth nothing, and [`Self::conceal`] may fill the place.
    pub fn decode(&mut self, packet: &[u8], out: &mut Frame) -> Result<(), CodecError> {
        // Asked before decoding, so that a packet of a wrong duration leaves the decoder as it was. It refuses an
        // empty packet too, which libopus would take for a lost one.
        let samples = opus::packet::get_nb_samples(packet, SAMPLE_RATE)?;
        if samples != FRAME_SAMPLES {
            return Err(CodecError::Duration(samples));
        }
        match self.0.decode_float(packet, out, false)? {
            FRAME_SAMPLES => Ok(()),
            other => Err(CodecError::Duration(other)),
        }
    }

    /// Forgets what was heard before. To be called where a talker's packets stop: the first packet after a gap says
    /// how the sound *changed*, and added to what was heard before the gap that is a burst of noise.
    ///
    /// # Errors
    /// [`CodecError::Opus`].
    pub fn reset(&mut self) -> Result<(), CodecError> {
        Ok(self.0.reset_state()?)
    }

    /// Fills the place of a missing frame from what was heard before; fades out when it is called again and again.
    ///
    /// # Errors
    /// [`CodecError::Opus`]; `out` is then worth nothing.
    pub fn conceal(&mut self, out: &mut Frame) -> Result<(), CodecError> {
        match self.0.decode_float(&[], out, false)? {
            FRAME_SAMPLES => Ok(()),
            other => Err(CodecError::Duration(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::format::SILENCE;

    /// A loud frame of a pitch that moves with `n`.
    fn voice(n: usize) -> Frame {
        let pitch = 100.0 + 7.0 * (n % 50) as f32;
        std::array::from_fn(|i| {
            let t = (n * FRAME_SAMPLES + i) as f32 / SAMPLE_RATE as f32;
            0.4 * (std::f32::consts::TAU * pitch * t).sin() + 0.2 * (std::f32::consts::TAU * 9.1 * pitch * t).sin()
        })
    }

    /// A frame of noise from a small generator.
    fn noise(seed: &mut u64, amplitude: f32) -> Frame {
        std::array::from_fn(|_| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            amplitude * ((*seed >> 40) as f32 / 8_388_608.0 - 1.0)
        })
    }

    #[test]
    fn every_sound_makes_packets_of_one_size() {
        let mut encoder = Encoder::new().unwrap();
        let mut seed = 7;
        for n in 0..200 {
            let pcm = match n % 5 {
                0 => SILENCE,
                1 => noise(&mut seed, 1.0),
                2 => noise(&mut seed, 40.0),
                _ => voice(n),
            };
            encoder.encode(&pcm, &mut [0; PACKET_LEN]).unwrap();
        }
    }

    #[test]
    fn what_is_no_number_is_not_encoded() {
        let mut encoder = Encoder::new().unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut pcm = SILENCE;
            pcm[959] = bad;
            assert!(matches!(encoder.encode(&pcm, &mut [0; PACKET_LEN]), Err(CodecError::NotFinite)));
        }
    }

    #[test]
    fn a_tone_comes_out_as_loud_as_it_went_in_and_a_lost_frame_is_concealed() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new().unwrap());
        let energy = |frame: &Frame| frame.iter().map(|s| s * s).sum::<f32>();
        let (mut packet, mut out) = ([0; PACKET_LEN], SILENCE);
        let tone = |n: usize| -> Frame {
            std::array::from_fn(|i| 0.3 * (std::f32::consts::TAU * 300.0 * (n * 960 + i) as f32 / 48_000.0).sin())
        };
        for n in 0..50 {
            encoder.encode(&tone(n), &mut packet).unwrap();
            decoder.decode(&packet, &mut out).unwrap();
        }
        let ratio = energy(&out) / energy(&tone(49));
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
        decoder.conceal(&mut out).unwrap();
        assert!(energy(&out) > 0.1 * energy(&tone(49)), "the first concealed frame goes on");
        for _ in 0..9 {
            decoder.conceal(&mut out).unwrap();
        }
        assert!(energy(&out) < 0.05 * energy(&tone(49)), "concealment fades out");
    }

    #[test]
    fn an_empty_packet_and_one_of_another_duration_are_refused() {
        let mut decoder = Decoder::new().unwrap();
        assert!(decoder.decode(&[], &mut SILENCE.clone()).is_err());
        // Configurations 16 and 3 of RFC 6716 §3.1, one frame each: 2.5 ms and 60 ms.
        for (toc, samples) in [(16 << 3, 120), (3 << 3, 2880)] {
            let packet = [toc; 40];
            match decoder.decode(&packet, &mut SILENCE.clone()) {
                Err(CodecError::Duration(other)) => assert_eq!(other, samples),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_packets_give_sound_or_an_error(packets in prop::collection::vec(hostile(), 1..40)) {
            let mut decoder = Decoder::new().unwrap();
            let mut out = SILENCE;
            for packet in &packets {
                let sound = decoder.decode(packet, &mut out).is_ok() || decoder.conceal(&mut out).is_ok();
                prop_assert!(sound);
                prop_assert!(out.iter().all(|s| s.is_finite()));
            }
        }
    }

    /// Random bytes of any length; half of them with the first byte of a 20 ms packet, so that they get decoded.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..=PACKET_LEN),
            1 => prop::collection::vec(any::<u8>(), 0..4000),
        ];
        (bytes, prop::option::of(prop::sample::select(vec![1u8, 5, 9, 13, 15, 19, 23, 27, 31])), any::<u8>()).prop_map(
            |(mut bytes, configuration, low)| {
                if let (Some(first), Some(configuration)) = (bytes.first_mut(), configuration) {
                    *first = configuration << 3 | (low & 0b100);
                }
                bytes
            },
        )
    }
}
