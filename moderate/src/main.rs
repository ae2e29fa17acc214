//! The moderator's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    conclave_moderate::run()
}
