//! Conclave's relay beside other servers that forward voice.

use std::process::ExitCode;

fn main() -> ExitCode {
    conclave_peers::run()
}
