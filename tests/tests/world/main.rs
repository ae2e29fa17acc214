//! Meetings in the simulated world: one file for each family of behaviour. Every one of them runs under the eyes of
//! the witness, the eavesdropper and the model, which fail it at the step that breaks a promise.

mod doubt;
mod entrance;
mod epochs;
mod equivocation;
mod everyday;
mod evidence;
mod hostile;
mod malformed;
mod partitions;
mod removal;
mod reports;
mod seals;
mod succession;
mod walk;

use std::time::Duration;

use conclave_protocol::conference::{Event, Failure};
use conclave_tests::world::{Who, World};

/// Short for the many times of these tests.
const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The same in milliseconds.
const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Why a client cannot go on, if it has said so.
fn failure(world: &World, who: Who) -> Option<Failure> {
    world.peer(who).events.iter().find_map(|(_, event)| match event {
        Event::Failed(failure) => Some(*failure),
        _ => None,
    })
}
