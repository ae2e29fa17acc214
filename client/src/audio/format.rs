//! The one format of all sound inside the client.

use std::time::Duration;

pub use conclave_protocol::time::FrameDuration;

/// Samples per second. The highest rate of Opus (RFC 6716 §2), so that nothing is resampled between devices and codec.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples in the longest frame, of 20 ms: what buffers of a frame have room for.
pub const FRAME_SAMPLES: usize = samples(FrameDuration::Ms20);
/// Duration of the longest frame.
pub const FRAME: Duration = FrameDuration::Ms20.duration();
/// Bytes of every encoded frame, redundancy included, whatever its duration: 48 kbit/s for 20 ms, 96 for 10 ms, at constant
/// bitrate (`docs/protocol.md` §8.4).
pub const PACKET_LEN: usize = 120;

const _: () = assert!(FRAME_SAMPLES as u128 * 1_000 == SAMPLE_RATE as u128 * FRAME.as_millis());

/// What is mixed and played at once: 5 ms, a quarter of the longest frame. A talker's frame begins with the first step at
/// which it is due. Shorter steps would wake the machine more often for a millisecond or two.
pub const STEP: Duration = Duration::from_millis(5);
/// Samples in a step.
pub const STEP_SAMPLES: usize = 240;
/// Steps in the longest frame.
pub const STEPS: usize = steps(FrameDuration::Ms20);

const _: () = assert!(STEPS * STEP_SAMPLES == FRAME_SAMPLES && STEP.as_millis() * STEPS as u128 == FRAME.as_millis());

/// Samples in a frame.
pub const fn samples(frame: FrameDuration) -> usize {
    frame.millis() as usize * (SAMPLE_RATE as usize / 1_000)
}

/// Steps in a frame.
pub const fn steps(frame: FrameDuration) -> usize {
    samples(frame) / STEP_SAMPLES
}

const _: () = assert!(steps(FrameDuration::Ms10) * STEP_SAMPLES == samples(FrameDuration::Ms10));

/// Room for a frame, full scale at ±1; a shorter one is at its beginning.
pub type Frame = [f32; FRAME_SAMPLES];
/// A part of one.
pub type Step = [f32; STEP_SAMPLES];
/// A frame of nothing.
pub const SILENCE: Frame = [0.0; FRAME_SAMPLES];
/// The lowest level of RFC 6464: digital silence.
pub const LEVEL_SILENT: u8 = 127;
