//! The Conclave relay: one UDP port that forwards meetings it cannot listen to.
//!
//! The crate has two halves with a seam between them, [`core::Core`]. On one side the *shell*: sockets, QUIC,
//! TLS, deadlines, bounds on whatever arrives ([`server`], [`embedded`], [`gate`]); it knows no message format. On the
//! other side the pure state machine that decides everything about meetings; it knows no socket, task or clock.
//!
//! The client uses the same transport: [`transport`], [`tls`], [`framing`] and [`dial`] serve both ends.

pub mod clock;
pub mod config;
pub mod core;
pub mod dial;
pub mod driver;
pub mod embedded;
pub mod framing;
pub mod gate;
pub mod hub;
pub mod logging;
pub mod media;
pub mod metrics;
pub mod moderator;
pub mod reports;
pub mod server;
pub mod stamps;
pub mod stats;
pub mod tls;
pub mod transport;

mod bucket;
mod files;
mod shell;
