//! Bytes to typed messages and back. Nothing here decides anything.

pub mod codec;
pub mod datagram;
pub mod relay;
pub mod urgency;

#[cfg(feature = "conference")]
pub mod control;
