//! The Conclave protocol without I/O.
//!
//! This crate holds every decision of the protocol and nothing that touches the world: it opens no
//! socket, reads no clock and draws no randomness of its own. `now` and the random number generator
//! come in as arguments, so the same seed and the same times give the same bytes.
//!
//! The law callers of [`conference::Conference`] obey: make one change (`handle_*` or a named act), then
//! drain `poll_transmit` and `poll_event` until both are empty, then make the next change. Deadlines are
//! computed from state (`poll_timeout`), never queued.
//!
//! Without the feature `conference` only the part that a relay needs is built: ids, descriptors,
//! capabilities and the wire formats. `docs/protocol.md` specifies every byte.

pub mod capability;
pub mod descriptor;
pub mod id;
pub mod label;
pub mod sign;
pub mod stamp;
pub mod succession;
pub mod time;
pub mod wire;

#[cfg(feature = "conference")]
pub mod admission;
#[cfg(feature = "conference")]
pub mod code;
#[cfg(feature = "conference")]
pub mod conference;
#[cfg(feature = "conference")]
pub mod epoch;
#[cfg(feature = "conference")]
pub mod evidence;
#[cfg(feature = "conference")]
pub mod frameclock;
#[cfg(feature = "conference")]
pub mod identity;
#[cfg(feature = "conference")]
pub mod link;
#[cfg(feature = "conference")]
pub mod moderator;
#[cfg(feature = "conference")]
pub mod noise;
#[cfg(feature = "conference")]
pub mod seal;
#[cfg(feature = "conference")]
pub mod secret;
#[cfg(feature = "conference")]
pub mod sframe;
#[cfg(feature = "conference")]
pub mod words;

/// The protocol's version, in the descriptor, every statement, every capability and the Noise prologue.
pub const VERSION: u8 = 1;

/// The only cipher suite (`docs/protocol.md` §2): X25519, ML-KEM-768, ChaCha20-Poly1305, SHA-256, Ed25519,
/// CPace-Ristretto255-SHA512. The number is SFrame's private-use suite, so that one name serves both.
pub const SUITE: u16 = 0xF001;

/// QUIC application protocol, and the version of everything that runs inside.
pub const ALPN: &[u8] = b"conclave/1";
