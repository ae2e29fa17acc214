//! `inbox`: a directory of reports at a glance.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};

use conclave_protocol::evidence::report::verify::Findings;
use conclave_protocol::evidence::report::{MAGIC, Report};
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use serde::Serialize;

use crate::args::Inbox;
use crate::judge::{Examined, Judge};
use crate::record::{Person, Record};
use crate::{Outcome, names, say, time};

const DAY_MS: u64 = 86_400_000;

/// One line of the list.
#[derive(Serialize)]
struct Entry {
    file: String,
    verdict: &'static str,
    failed_step: Option<&'static str>,
    category: Option<&'static str>,
    accused: Option<Person>,
    /// When it was said by the stamps, else when it was reported by the reporter's clock.
    time: Option<String>,
    age_days: Option<u64>,
    old: bool,
    duplicate_of: Option<String>,
    error: Option<String>,
    #[serde(skip)]
    at: Option<UnixMillis>,
}

pub(crate) fn run(options: &Inbox) -> Result<Outcome> {
    let judge = Judge::new(&options.judging)?;
    let files = reports_in(&options.dir)?;
    let entries = list(&judge, &files, time::now(), options.old_after);
    if options.json {
        for entry in &entries {
            say(&serde_json::to_string(entry)?)?;
        }
    } else {
        say(&table(&entries))?;
    }
    Ok(Outcome::Good)
}

/// The files of a directory that are reports or are named like one, by name.
fn reports_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let shown = directory.display();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {shown}"))? {
        let path = entry.with_context(|| format!("cannot list {shown}"))?.path();
        if path.is_file() && (names::is_reports(&path) || begins_like_a_report(&path)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn begins_like_a_report(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok_and(|()| magic == *MAGIC)
}

/// Judges all files, and lists the newest first; what cannot be read comes last.
fn list(judge: &Judge, files: &[PathBuf], now: UnixMillis, old_after: u32) -> Vec<Entry> {
    let mut seen: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let entry = |file: &PathBuf| {
        let examined = judge.examine(file);
        let mut entry = entry(&examined, judge, now, old_after);
        if let Ok((report, _)) = &examined.content {
            let first = seen.entry(what_is_shown(report)).or_insert_with(|| entry.file.clone());
            entry.duplicate_of = (*first != entry.file).then(|| first.clone());
        }
        entry
    };
    let mut entries: Vec<Entry> = files.iter().map(entry).collect();
    // Stable, so that those of one moment stay in order of name.
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
    entries
}

fn entry(examined: &Examined, judge: &Judge, now: UnixMillis, old_after: u32) -> Entry {
    let record = Record::of(examined, judge);
    let at = examined.content.as_ref().ok().map(|(report, findings)| moment(report, findings));
    let age_days = at.map(|at| now.0.saturating_sub(at.0) / DAY_MS);
    Entry {
        file: record.file,
        verdict: record.verdict,
        failed_step: record.failed_step,
        category: record.category,
        accused: record.accused,
        time: at.map(time::minute),
        age_days,
        old: age_days.is_some_and(|age| age >= u64::from(old_after)),
        duplicate_of: None,
        error: record.error,
        at,
    }
}

/// When it was said: by the stamps; else by the leader's clock in the last epoch's statement, which cannot be later
/// than the words. The reporter's clock says nothing of that.
fn moment(report: &Report, findings: &Findings) -> UnixMillis {
    let by_statement = || report.exhibit.epochs.last().map_or(report.created, |proof| proof.statement.time);
    findings.minutes.map_or_else(by_statement, |(_, last)| time::begin(last))
}

/// What makes two reports the same: the accused and the seals, whatever the words around them.
fn what_is_shown(report: &Report) -> Vec<u8> {
    let exhibit = &report.exhibit;
    let seals = exhibit.segments.iter().flat_map(|segment| segment.seal.iter().copied());
    exhibit.accused.encode().into_iter().chain(seals).collect()
}

fn table(entries: &[Entry]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["VERDICT", "CATEGORY", "ACCUSED", "AGE", "FILE", ""]);
    for entry in entries {
        let verdict = match entry.failed_step {
            Some(step) => format!("{} at {step}", entry.verdict),
            None => entry.verdict.to_owned(),
        };
        table.add_row([
            verdict,
            entry.category.unwrap_or("").to_owned(),
            entry.accused.as_ref().map(|accused| accused.name.clone()).unwrap_or_default(),
            entry.age_days.map(|days| format!("{days} d")).unwrap_or_default(),
            shown(&entry.file),
            remark(entry),
        ]);
    }
    table.to_string()
}

fn remark(entry: &Entry) -> String {
    let duplicate = entry.duplicate_of.as_ref().map(|first| format!("duplicate of {}", shown(first)));
    let old = entry.old.then(|| "old".to_owned());
    [old, duplicate, entry.error.clone()].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A file's name may hold anything; a terminal must not run it.
fn shown(file: &str) -> String {
    file.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
