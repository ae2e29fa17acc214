//! The media pipeline: a source, the codec, one fixed-latency playout per talker, the mixer, a sink.
//!
//! Everything is mono, 48 kHz, in frames of 20 ms ([`format`](mod@format)). [`engine`] composes the parts; the others
//! know nothing of each other. Nothing here reads a clock, opens a socket or holds a key, and nothing allocates, locks
//! or waits per frame once it is set up: files are read before the first frame ([`source`]) and written by a thread of
//! their own ([`sink`]), and the callbacks of sound devices end at lock-free rings ([`device`]).

pub mod codec;
pub mod device;
pub mod engine;
pub mod format;
pub mod mixer;
pub mod playout;
pub mod profile;
mod resample;
pub mod said;
pub mod sink;
pub mod source;

pub use format::{FRAME, FRAME_SAMPLES, Frame, PACKET_LEN, SAMPLE_RATE};
