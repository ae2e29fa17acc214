//! Prints what speech sounds like where frames are lost (`benches/README.md`).

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use conclave_benches::repair::columns::{COLUMNS, CONDITIONS};
use conclave_benches::repair::{Column, Condition};
use conclave_tests::wav::{self, Sound};
use conclave_tests::{quality, speech};

/// What speech sounds like where frames are lost: PESQ-WB (1.0 to 4.64) of Conclave's profiles, of plain Opus, of Mumble's
/// settings and of the neteq crate, all over the same losses.
///
/// Exit status: 0 if Conclave's profiles reach what is wanted of them, 1 if not.
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
    /// Leave out the column of the neteq crate, which runs in real time: as long as the speech
    #[arg(long)]
    no_neteq: bool,
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
    let said = quality::prepared(&said(arguments)?)?;
    let columns: Vec<_> =
        COLUMNS.into_iter().filter(|(_, column)| !(arguments.no_neteq && *column == Column::Neteq)).collect();
    let scored: Vec<Vec<f64>> =
        columns.iter().map(|(_, column)| scores(*column, &said, arguments.seeds)).collect::<Result<_>>()?;
    let mut out = std::io::stdout();
    writeln!(out, "PESQ-WB, {:.0} s of speech, {} patterns of loss\n", said.seconds(), arguments.seeds)?;
    write!(out, "{:<20}", "frames lost")?;
    for (name, _) in &columns {
        write!(out, " {name:>12}")?;
    }
    writeln!(out)?;
    let mut reached = true;
    for (row, condition) in CONDITIONS.iter().enumerate() {
        let scores: Vec<f64> = scored.iter().map(|column| column[row]).collect();
        write!(out, "{:<20}", condition.name)?;
        for score in &scores {
            write!(out, " {score:>12.2}")?;
        }
        writeln!(out, "{}", verdict(condition, &columns, &scores, &mut reached))?;
    }
    Ok(reached)
}

/// What is wanted of a profile in this row, and whether it is there.
fn verdict(condition: &Condition, columns: &[(&str, Column)], scores: &[f64], reached: &mut bool) -> String {
    let Some((profile, least)) = condition.wanted else { return String::new() };
    let Some(at) = columns.iter().position(|(_, column)| *column == Column::Conclave(profile)) else {
        return String::new();
    };
    let is_reached = scores[at] >= least;
    *reached &= is_reached;
    let (name, _) = columns[at];
    format!("   {name}: at least {least}{}", if is_reached { "" } else { ", NOT REACHED" })
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

/// A column's score in each condition. What runs in real time does so in all conditions at once.
fn scores(column: Column, said: &Sound, seeds: u64) -> Result<Vec<f64>> {
    let score = |condition: Condition| column.score(said, condition.loss, seeds);
    if column != Column::Neteq {
        return CONDITIONS.into_iter().map(score).collect();
    }
    thread::scope(|scope| {
        let running = CONDITIONS.map(|condition| scope.spawn(move || score(condition)));
        running.into_iter().map(|cell| cell.join().ok().context("a thread has ended")?).collect()
    })
}
