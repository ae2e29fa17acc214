//! Admission: who may knock, and what becomes of a knock (`docs/protocol.md` §4.5, §4.6).

pub mod lobby;
pub mod throttle;
