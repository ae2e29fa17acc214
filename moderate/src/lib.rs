//! What a moderator does with reports: opens them, sees and hears what they prove, and bans
//! (`docs/moderating.md`; the formats are those of `docs/protocol.md` §10).
//!
//! The verdict is `conclave_protocol::evidence::report`'s alone. Here are files, sound and paper: nothing is sent
//! anywhere but to a relay that is asked whether stamps are genuine, and it learns no more than seals and stamps that
//! it has seen before.

pub mod args;
mod ban;
mod inbox;
mod judge;
mod keyfile;
mod names;
mod open;
mod page;
mod record;
mod relay;

mod stamp_check;
mod stampkeys;
mod targets;
pub mod time;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use conclave::private;

use args::{Arguments, Verb};

/// How a run ends, where nothing went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// All that was asked for is as it should be.
    Good,
    /// Some report or stamp is not.
    NotAll,
}

/// Exit status when something is not valid.
const NOT_ALL: u8 = 1;
/// Exit status for what the moderator has to change: arguments, key, directories. clap uses the same.
const TROUBLE: u8 = 2;

/// Runs the program; its exit statuses are those of `docs/moderating.md`.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Keygen(options) => keyfile::keygen(&options),
        Verb::Open(options) => open::run(&options),
        Verb::Inbox(options) => inbox::run(&options),
        Verb::Ban(options) => ban::run(&options),
        Verb::StampCheck(options) => stamp_check::run(&options),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::NotAll) => ExitCode::from(NOT_ALL),
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _told = writeln!(std::io::stderr(), "conclave-moderate: {error:#}");
            ExitCode::from(TROUBLE)
        }
    }
}

/// Writes a file for its owner alone, whole or not at all. Until it is whole it has a name that no report has.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    private::replace_through(path, &part(path), bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// What [`save`] calls a file until it is whole.
fn part(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.part"))
}

/// One line on standard output.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
