//! Bytes to typed messages and back. Nothing here decides anything.

pub mod codec;
pub mod datagram;
pub mod relay;

#[cfg(feature = "conference")]
pub mod control;
