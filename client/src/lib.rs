//! The Conclave client: hosts, joins and demonstrates end-to-end encrypted audio meetings.
//!
//! The protocol decides nothing here: [`session`] carries bytes and time between a relay and
//! `conclave_protocol::conference::Conference`, and sound between [`audio`] and both. [`cli`] is the program's face,
//! [`report`] and [`command`] are the interface for other programs (`docs/automation.md`).

pub mod audio;
pub mod cli;
pub mod command;
pub mod demo;
pub mod exit;
pub mod keystore;
pub mod loopback;
pub mod names;
pub mod passphrase;
pub mod pins;
pub mod private;
pub mod realtime;
pub mod report;
pub mod session;
