//! The one format of all sound inside the client.

use std::time::Duration;

/// Samples per second. The highest rate of Opus (RFC 6716 §2), so that nothing is resampled between devices and codec.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples in a frame.
pub const FRAME_SAMPLES: usize = 960;
/// Duration of a frame: in this version 20 ms in every meeting (`docs/protocol.md` §8.4).
pub const FRAME: Duration = Duration::from_millis(20);
/// Bytes of every encoded frame, redundancy included: 48 kbit/s for 20 ms, at constant bitrate.
pub const PACKET_LEN: usize = 120;

const _: () = assert!(FRAME_SAMPLES as u128 * 1_000 == SAMPLE_RATE as u128 * FRAME.as_millis());

/// What is mixed and played at once: 5 ms, a quarter of a frame. A talker's frame begins with the first step at which it
/// is due. Shorter steps would wake the machine more often for a millisecond or two.
pub const STEP: Duration = Duration::from_millis(5);
/// Samples in a step.
pub const STEP_SAMPLES: usize = 240;
/// Steps in a frame.
pub const STEPS: usize = FRAME_SAMPLES / STEP_SAMPLES;

const _: () = assert!(STEPS * STEP_SAMPLES == FRAME_SAMPLES && STEP.as_millis() * STEPS as u128 == FRAME.as_millis());

/// One frame, full scale at ±1.
pub type Frame = [f32; FRAME_SAMPLES];
/// A part of one.
pub type Step = [f32; STEP_SAMPLES];
/// A frame of nothing.
pub const SILENCE: Frame = [0.0; FRAME_SAMPLES];
/// The lowest level of RFC 6464: digital silence.
pub const LEVEL_SILENT: u8 = 127;
