//! Criterion benches of the protocol and the media path, and what the measurements beside them are made of;
//! `benches/README.md` says what each measures.

pub mod repair;
