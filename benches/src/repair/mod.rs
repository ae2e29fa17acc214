//! What speech sounds like where frames are lost: Conclave's profiles beside others, as a table of PESQ-WB.

pub mod buffer;
pub mod columns;
pub mod progress;
pub mod run;
pub mod table;

pub use columns::{Column, Condition};
