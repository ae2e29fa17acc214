//! The load harness's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    conclave_load::run()
}
