//! Parts of a loop that drives `quinn-proto` itself, of which the relay's shell is one and the load harness's shards are
//! others: packets in and out by batches, timers that are set with nearly every packet, control streams, and telling such a
//! loop something from another thread.

pub mod control;
pub mod inbox;
pub mod socket;
pub mod timers;

pub(crate) mod source;
mod together;
