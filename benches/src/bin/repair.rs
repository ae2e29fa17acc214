//! Prints what speech sounds like where frames are lost (`benches/README.md`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use conclave::audio::codec::Redundancy;
use conclave::audio::format::FrameDuration;
use conclave_benches::repair::columns::{COLUMNS, Column, Speech};
use conclave_benches::repair::table::Table;
use conclave_benches::repair::{progress, run};
use conclave_tests::speech;
use conclave_tests::wav::{self, Sound};

/// What speech sounds like where frames are lost: PESQ-WB (1.0 to 4.64) of Conclave's profiles, of plain Opus, of Mumble's
/// settings and of the neteq crate, all over the same losses. Takes some minutes; each row is printed when it is known.
///
/// Exit status: 0 if Conclave's profiles reach what is wanted of them, 1 if not, or if something failed.
#[derive(Parser)]
#[command(name = "repair")]
struct Arguments {
    /// Speech to use instead of the spoken clips of Debian's alsa-utils; several files follow one another
    #[arg(long, value_name = "WAV", num_args = 1..)]
    speech: Vec<PathBuf>,
    /// Seconds of it
    #[arg(long, default_value_t = 56.0)]
    seconds: f64,
    /// Patterns of loss per row
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How long Conclave's frames are, in milliseconds; those of the others are of 20
    #[arg(long, value_name = "10|20", default_value_t = 20, value_parser = clap::value_parser!(u8))]
    frame_ms: u8,
    /// Further columns: Conclave with frames held for so many milliseconds, to see what a shorter or longer hold would do
    #[arg(long, value_name = "MS", num_args = 1.., value_parser = clap::value_parser!(u64).range(1..=1_000))]
    hold: Vec<u64>,
    /// Another redundancy in Conclave's packets than that of all clients: loss that its encoder prepares for, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = Redundancy::SENT.loss_percent, value_parser = clap::value_parser!(u8).range(0..=100))]
    prepare_for: u8,
    /// The same: how much of what was said before is described, in units of 10 ms
    #[arg(long, value_name = "UNITS", default_value_t = Redundancy::SENT.deep, value_parser = clap::value_parser!(u8).range(0..=100))]
    describe: u8,
    /// Leave out the column of the neteq crate, which runs in real time
    #[arg(long)]
    no_neteq: bool,
    /// Write all scores to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "repair: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let redundancy = Redundancy { loss_percent: arguments.prepare_for, deep: arguments.describe };
    let frame = FrameDuration::from_millis(arguments.frame_ms).context("--frame-ms: give 10 or 20")?;
    let speech = Speech::new(&said(arguments)?, frame, redundancy)?;
    let columns = columns(arguments);
    let mut table = Table::new(speech.seconds(), columns.clone(), arguments.seeds);
    say(&table.head())?;
    let bar = progress::bar(run::all(columns.len(), arguments.seeds).len());
    run::scores(&speech, &columns, arguments.seeds, |run, score| {
        let lines = table.take(run, score);
        bar.inc(1);
        bar.suspend(|| lines.iter().try_for_each(|line| say(line)))
    })?;
    bar.finish_and_clear();
    if let Some(doubt) = table.doubt() {
        writeln!(std::io::stderr(), "repair: {doubt}")?;
    }
    if let Some(path) = &arguments.json {
        write_json(path, &table).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(table.is_reached())
}

fn columns(arguments: &Arguments) -> Vec<Column> {
    let held = arguments.hold.iter().map(|ms| Column::Held(*ms));
    let in_time = (!arguments.no_neteq).then_some(Column::Neteq);
    COLUMNS.into_iter().chain(held).chain(in_time).collect()
}

/// Flushed, so that who writes to a file sees it, too.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn write_json(path: &Path, table: &Table) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, table)?;
    writeln!(file)?;
    Ok(file.flush()?)
}

fn said(arguments: &Arguments) -> Result<Sound> {
    if arguments.speech.is_empty() {
        return speech::clip(0, arguments.seconds);
    }
    let mut samples = Vec::new();
    for path in &arguments.speech {
        samples.extend(wav::read(path)?.resampled(speech::RATE)?.samples);
    }
    Ok(Sound { rate: speech::RATE, samples }.between(0.0, arguments.seconds))
}
