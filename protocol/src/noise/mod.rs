//! Noise: the join handshake with its hybrid and passcode parts, and sessions that survive the relay.

pub mod cpace;
pub mod handshake;
pub mod mesh;
mod resolver;
pub mod session;
