//! Loads a relay with real clients and measures from outside what it does with their frames (`docs/load.md`).
//!
//! Three kinds of threads: *shards* carry the connections and read what comes; the protocol of all members, whose
//! cryptography must not hold up a frame, has threads of its own; one *pacer* sends frames on time. What a listener is
//! owed is computed from the talkers' own tables of when each frame was sent, so nothing has to be opened.

pub mod args;
mod attendance;
mod charts;
pub mod compare;
mod flood;
mod html;
mod listener;
mod member;
mod meter;
mod pacer;
pub mod plan;
mod procfs;
mod progress;
mod protocol;
mod relay;
pub mod result;
mod room;
mod run;
mod sampler;
mod score;
pub mod search;
mod session;
mod shard;
mod sync;
mod table;
mod talker;
mod urgency;
mod validity;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Arguments, CompareOptions, FindMaxOptions, RunOptions, Verb};
use result::Report;

/// Exit status when something went wrong: arguments, relay, files. clap uses the same.
const TROUBLE: u8 = 2;
/// Exit status when the result is not valid.
const INVALID: u8 = 1;

/// Runs the program; its exit statuses are those of `docs/load.md`.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Run(options) => run_once(&options),
        Verb::FindMax(options) => find_max(&options),
        Verb::Compare(options) => compare_two(&options),
        Verb::ServeRelay(options) => relay::serve(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        tell(&format!("conclave-load: {error:#}"));
        ExitCode::from(TROUBLE)
    })
}

fn run_once(options: &RunOptions) -> Result<ExitCode> {
    let plan = options.plan()?;
    let report = run::run(&plan, &options.target)?;
    write_report(&report, options.json.as_deref(), options.html.as_deref())?;
    if options.json.as_deref() != Some(Path::new("-")) {
        say(&table::of_report(&report))?;
    }
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

fn find_max(options: &FindMaxOptions) -> Result<ExitCode> {
    let found = search::find(options, |step| tell(&table::in_a_line(step, options.scale)))?;
    if let Some(path) = &options.json {
        save(path, &serde_json::to_vec_pretty(&found)?)?;
    }
    if options.json.as_deref() != Some(Path::new("-")) {
        say(&table::of_search(&found))?;
    }
    Ok(if found.best.is_some() { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

fn compare_two(options: &CompareOptions) -> Result<ExitCode> {
    let (a, b) = (read_report(&options.a)?, read_report(&options.b)?);
    say(&table::of_comparison(&compare::compare(&a, &b)))?;
    Ok(if a.valid && b.valid { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

fn write_report(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<()> {
    if let Some(path) = json {
        save(path, &serde_json::to_vec_pretty(report)?)?;
    }
    if let Some(path) = html {
        save(path, html::page(report).as_bytes())?;
    }
    Ok(())
}

fn read_report(path: &Path) -> Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no result of conclave-load run", path.display()))
}

/// Writes a file, or to standard output for `-`.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if path == Path::new("-") {
        return say(&String::from_utf8_lossy(bytes));
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Tells whoever watches.
fn tell(line: &str) {
    // Without standard error there is nobody to tell.
    let _told = writeln!(std::io::stderr(), "{line}");
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}
