//! What the tests of Conclave are made with.
//!
//! [`process`] drives the real programs, [`proxy`] is a bad network between them, [`pulse`] a sound server with devices
//! that can be pulled out, [`speech`] is what people say, [`wav`] measures what is heard, [`quality`] what loss does to it,
//! and [`measure`] how late it is. The tests themselves are in `tests/tests/`.

pub mod measure;
pub mod process;
pub mod proxy;
pub mod pulse;
pub mod quality;
pub mod room;
pub mod speech;
pub mod wav;
pub mod world;
