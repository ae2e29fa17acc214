//! What the tests of Conclave are made with.
//!
//! [`process`] drives the real programs, [`proxy`] is a bad network between them, [`speech`] is what people say and
//! [`wav`] measures what is heard. The tests themselves are in `tests/tests/`.

pub mod process;
pub mod proxy;
pub mod room;
pub mod speech;
pub mod wav;
pub mod world;
