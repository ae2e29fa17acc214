//! The hub in virtual time, with real signatures. After every call the [`world::World`] checks the hub's invariants.

mod guests;
mod lifecycle;
mod limits;
mod members;
mod random;
mod revocation;
mod seals;
mod succession;
mod world;
