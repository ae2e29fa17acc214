//! `conclave demo`: progress while it runs, a table at the end.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::Demo;
use crate::demo::{self, Outsider, Plan, Verdict, Watcher};

pub(super) fn run(demo: &Demo, start: Instant) -> ExitCode {
    match play(demo, start) {
        Ok(verdict) if verdict.ok => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "conclave demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(demo: &Demo, start: Instant) -> Result<Verdict> {
    let plan = Plan {
        people: usize::from(demo.people),
        seconds: demo.seconds,
        input: demo.input.clone(),
        out: demo.out.clone(),
    };
    let mut progress = Progress::new(start);
    let verdict = demo::run(&plan, &mut progress)?;
    progress.end();
    if let Some(file) = &demo.json {
        let text = serde_json::to_string_pretty(&verdict)?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(demo, &verdict).context("cannot print")?;
    Ok(verdict)
}

/// Lines as things happen, and a bar for the call; where there is no terminal, a line now and then.
struct Progress {
    start: Instant,
    bar: ProgressBar,
    told_at: Option<Duration>,
}

/// How often a line tells how far the call is where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(3);

impl Progress {
    fn new(start: Instant) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len} ms {msg}") {
            bar.set_style(style);
        }
        Self { start, bar, told_at: None }
    }

    fn line(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.start.elapsed().as_secs_f32());
        self.bar.suspend(|| {
            // Progress is a courtesy; the result does not depend on it.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for Progress {
    fn tell(&mut self, line: &str) {
        self.line(line);
    }

    fn passed(&mut self, part: Duration, whole: Duration) {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        self.bar.set_length(millis(whole));
        self.bar.set_position(millis(part));
        if !io::stderr().is_terminal() && self.told_at.is_none_or(|at| part >= at + LINE_EVERY) {
            self.told_at = Some(part);
            self.line(&format!("the call goes on: {} of {} s", part.as_secs(), whole.as_secs()));
        }
    }
}

fn print(demo: &Demo, verdict: &Verdict) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nWho heard whom (frames of 20 ms):\n{}\n", pairs_table(verdict))?;
    writeln!(out, "Who could decrypt what:")?;
    for outsider in [&verdict.removed, &verdict.denied] {
        writeln!(out, "  {}", outsider_line(outsider, verdict))?;
    }
    let relay = &verdict.relay;
    let sizes: Vec<String> = relay.media_sizes.iter().map(|(size, count)| format!("{count} of {size} bytes")).collect();
    writeln!(out, "\nWhat the relay saw:\n  media datagrams in: {}; handed on: {}", sizes.join(", "), relay.forwarded)?;
    writeln!(
        out,
        "  control messages: {} ({} bytes); what members say in them is sealed",
        relay.control_messages, relay.control_bytes
    )?;
    let names = if relay.names_found.is_empty() { "none".to_owned() } else { relay.names_found.join(", ") };
    writeln!(out, "  names of people found in any of it: {names}")?;
    writeln!(out, "\nWhat each said and heard is in {}.", demo.out.display())?;
    if verdict.ok {
        writeln!(out, "Everything is as promised.")
    } else {
        writeln!(out, "NOT as promised:")?;
        verdict.faults.iter().try_for_each(|fault| writeln!(out, "  {fault}"))
    }
}

fn outsider_line(outsider: &Outsider, verdict: &Verdict) -> String {
    let part = verdict.people.iter().find(|p| p.name == outsider.name).map_or("", |p| p.part);
    let since =
        if part == "removed" { "of those sent later than 500 ms after the removal" } else { "of all in the call" };
    format!(
        "{} ({part}): opened {} frames while in the meeting; {since}, given all {} ciphertexts, opened {}",
        outsider.name, outsider.opened_before, outsider.tried, outsider.opened
    )
}

fn pairs_table(verdict: &Verdict) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "listener",
        "talker",
        "sent",
        "heard",
        "late",
        "concealed",
        "added delay ms",
        "opened from–to s",
    ]);
    for pair in &verdict.pairs {
        let span = pair.opened_from_to_ms.map(|(from, to)| format!("{:.1}–{:.1}", seconds(from), seconds(to)));
        let delay = pair.stats.delay_ms.map(|ms| format!("{ms:.1}"));
        let figures = [pair.sent, pair.stats.received, pair.stats.late, pair.stats.concealed].map(|n| n.to_string());
        let mut row = vec![Cell::new(&pair.listener), Cell::new(&pair.talker)];
        let rest = figures.into_iter().chain([delay, span].map(|cell| cell.unwrap_or_else(|| "–".to_owned())));
        row.extend(rest.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
        table.add_row(row);
    }
    table
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
