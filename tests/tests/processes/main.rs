//! Conclave from outside: real processes, real sockets, real speech, in real time (issue "the main job", what it
//! must show).
//!
//! One module for each family of behaviour. The tests take turns, see [`stage`]; they need the programs built beside
//! them, which `scripts/test` does.

// A test may panic, and says what it measured.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod acts;
mod bad_path;
mod command_line;
mod crowd;
mod delay;
mod demo;
mod devices;
mod endings;
mod entrance;
mod hostile;
mod measure;
mod people;
mod reconnect;
mod removal;
mod report;
mod sound;
mod stage;
mod succession;
mod voice;
mod volume;
mod wave;
mod wire;
