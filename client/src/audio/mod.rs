//! The media pipeline: a source, the codec, one fixed-latency playout per talker, the mixer, a sink.
//!
//! Everything is mono, 48 kHz, in frames of 10 or 20 ms, as the meeting wants it
//! ([`format`](mod@format)). [`engine`] composes the parts; the others
//! know nothing of each other. Nothing here reads a clock, opens a socket or holds a key, and nothing allocates, locks
//! or waits per frame once it is set up: files are read before the first frame ([`source`]) and written by a thread of
//! their own ([`sink`], [`record`]), and the callbacks of sound devices end at lock-free rings ([`device`]).
//! One part is excepted: the processing of one's own sound ([`process`]), where it is switched on.

pub mod codec;
pub mod device;
pub mod engine;
pub mod format;
pub mod mixer;
pub mod playout;
pub mod process;
pub mod profile;
pub mod record;
mod resample;
pub mod said;
pub mod sink;
pub mod source;
#[cfg(test)]
mod spoken;

pub use format::{FRAME, FRAME_SAMPLES, Frame, FrameDuration, PACKET_LEN, SAMPLE_RATE};
