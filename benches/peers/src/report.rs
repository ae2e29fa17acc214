//! What a run says: a table for people, JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::args::Run;
use crate::pattern::FRAME_LEN;
use crate::peers::Peer;
use crate::summary::{Line, Turn};

/// A whole run, as it is written to a file.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// What was sent.
    pub pattern: Sent,
    /// On what.
    pub machine: Machine,
    /// Each server over all rounds, with the ratios.
    pub summary: &'a [Line],
    /// Each server's turn in each round, in their order in time.
    pub turns: &'a [Turn],
    /// Debian's version of each server that comes from there.
    pub versions: Vec<(Peer, String)>,
    /// Servers that were not there.
    pub missing: &'a [Missing],
    /// What went wrong.
    pub failures: &'a [String],
}

/// What was sent.
#[derive(Debug, Serialize)]
pub struct Sent {
    people: usize,
    talkers: usize,
    frame_bytes: usize,
    frames_per_s: usize,
    seconds: u64,
    jitter_ms: u64,
}

impl From<&Run> for Sent {
    fn from(run: &Run) -> Self {
        let pattern = run.pattern();
        Self {
            people: pattern.people,
            talkers: pattern.talkers,
            frame_bytes: FRAME_LEN,
            frames_per_s: pattern.frames_per_second(),
            seconds: run.seconds,
            jitter_ms: run.jitter,
        }
    }
}

/// A server that is not there.
#[derive(Debug, Serialize)]
pub struct Missing {
    /// Which.
    pub peer: Peer,
    /// How to get it.
    pub remedy: String,
}

/// The machine and what else it does.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: Option<String>,
    kernel: Option<String>,
    /// Of the last minute, when the run began.
    load_average: Option<String>,
    fifo: bool,
}

impl Machine {
    /// This one, now.
    pub fn here(fifo: bool) -> Self {
        let word = |text: String| text.split_whitespace().next().map(str::to_owned);
        Self {
            cpu: fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(model),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").ok().and_then(word),
            load_average: fs::read_to_string("/proc/loadavg").ok().and_then(word),
            fifo,
        }
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Report<'_> {
    /// Writes all of it to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The table of a run.
pub fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "server",
        "frames per CPU-s",
        "[lowest – highest]",
        "µs per frame",
        "p50 ms",
        "p99 ms",
        "loss",
        "clients' core",
        "Conclave / it",
        "valid",
    ]);
    for line in lines {
        let numbers = cells(line).into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(line.peer)].into_iter().chain(numbers));
    }
    table
}

fn cells(line: &Line) -> [String; 9] {
    let spread = &line.frames_per_cpu_s;
    [
        format!("{:.0}", spread.median),
        format!("[{:.0} – {:.0}]", spread.min, spread.max),
        format!("{:.2}", line.us_per_frame),
        format!("{:.2}", line.p50_ms),
        format!("{:.2}", line.p99_ms),
        format!("{:.3} %", line.worst_loss * 100.0),
        line.client_share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
        line.conclave_ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        if line.valid { "yes" } else { "NO" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Spread;

    #[test]
    fn a_row_shows_the_ratio_and_what_is_not_valid() {
        let line = Line {
            peer: Peer::Coturn,
            rounds: 3,
            frames_per_cpu_s: Spread { min: 90_000.0, median: 100_000.0, max: 110_000.0 },
            us_per_frame: 10.0,
            p50_ms: 0.25,
            p99_ms: 0.5,
            worst_loss: 0.0012,
            client_share: Some(0.09),
            valid: false,
            conclave_ratio: Some(4.125),
        };
        let row = cells(&line).join(" ");
        assert_eq!(row, "100000 [90000 – 110000] 10.00 0.25 0.50 0.120 % 9 % 4.12 NO");
        assert!(table(&[line]).to_string().contains("coturn"));
    }

    #[test]
    fn a_cpus_name_is_found() {
        assert_eq!(model("vendor_id : X\nmodel name\t: Some CPU\n"), Some("Some CPU".to_owned()));
        assert_eq!(model(""), None);
    }
}
