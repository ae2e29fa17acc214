//! Epochs: who is in the meeting and which keys follow from it (`docs/protocol.md` §7).

pub mod broadcast;
pub mod merkle;
pub mod roster;
pub mod schedule;
pub mod statement;
pub mod witness;
