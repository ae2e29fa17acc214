//! The scores as they come, row by row, as text and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::columns::{CONDITIONS, Column, Condition, Score};
use super::run::Run;

/// Width of a row's name, and of a column.
const NAME: usize = 20;
const WIDTH: usize = 12;

/// All that was measured.
#[derive(Serialize)]
pub struct Table {
    /// Length of the speech, in seconds.
    speech_seconds: f64,
    /// Patterns of loss in each row.
    patterns: u64,
    rows: Vec<Row>,
    /// How late a tick of what runs in real time came at most, in milliseconds.
    late_ms: f64,
    #[serde(skip)]
    columns: Vec<Column>,
    /// Rows that were given out.
    #[serde(skip)]
    shown: usize,
}

#[derive(Serialize)]
struct Row {
    frames_lost: &'static str,
    cells: Vec<Cell>,
    wanted: Option<Wanted>,
}

#[derive(Serialize)]
struct Cell {
    column: String,
    /// Mean PESQ-WB.
    pesq_wb: Option<f64>,
    /// Its patterns, in order.
    patterns: Vec<Option<f64>>,
}

#[derive(Serialize)]
struct Wanted {
    column: String,
    least: f64,
    is_reached: Option<bool>,
}

impl Table {
    /// A table without a score.
    pub fn new(speech_seconds: f64, columns: Vec<Column>, patterns: u64) -> Self {
        let rows = CONDITIONS.iter().map(|condition| Row::new(condition, &columns, patterns)).collect();
        Self { speech_seconds, patterns, rows, late_ms: 0.0, columns, shown: 0 }
    }

    /// What stands above the rows.
    pub fn head(&self) -> String {
        let head = format!("PESQ-WB, {:.0} s of speech, {} patterns of loss\n\n", self.speech_seconds, self.patterns);
        let head = format!("{head}{:<NAME$}", "frames lost");
        self.columns.iter().fold(head, |head, column| format!("{head} {:>WIDTH$}", column.name()))
    }

    /// Takes a score, and gives the rows that are whole now and have not been given yet, in order.
    pub fn take(&mut self, run: Run, score: Score) -> Vec<String> {
        self.rows[run.row].take(run, score.pesq_wb);
        self.late_ms = self.late_ms.max(score.late.as_secs_f64() * 1e3);
        let whole: Vec<String> = self.rows[self.shown..].iter().map_while(Row::line).collect();
        self.shown += whole.len();
        whole
    }

    /// Whether all that is wanted was reached, as far as it was measured.
    pub fn is_reached(&self) -> bool {
        self.rows.iter().filter_map(|row| row.wanted.as_ref()).all(|wanted| wanted.is_reached != Some(false))
    }

    /// Something that takes away from what the figures are worth.
    pub fn doubt(&self) -> Option<String> {
        let name = self.columns.iter().find(|column| column.is_in_real_time())?.name();
        (self.late_ms > LATE_MS).then(|| {
            format!(
                "{name}: this machine was too busy, a tick came {:.0} ms late; its column is not fair",
                self.late_ms
            )
        })
    }
}

/// From what lateness on what runs in real time cannot be itself: one of its ticks.
const LATE_MS: f64 = 10.0;

impl Row {
    fn new(condition: &Condition, columns: &[Column], seeds: u64) -> Self {
        let patterns = vec![None; condition.patterns(seeds) as usize];
        let cell = |column: &Column| Cell { column: column.name(), pesq_wb: None, patterns: patterns.clone() };
        let wanted = condition.wanted.map(|(profile, least)| Wanted {
            column: Column::Conclave(profile).name(),
            least,
            is_reached: None,
        });
        Self { frames_lost: condition.name, cells: columns.iter().map(cell).collect(), wanted }
    }

    fn take(&mut self, run: Run, pesq_wb: f64) {
        let cell = &mut self.cells[run.column];
        if let Some(pattern) = cell.patterns.get_mut(run.seed as usize - 1) {
            *pattern = Some(pesq_wb);
        }
        let known: Option<Vec<f64>> = cell.patterns.iter().copied().collect();
        cell.pesq_wb = known.map(|known| known.iter().sum::<f64>() / known.len() as f64);
        if let (Some(wanted), Some(mean)) = (&mut self.wanted, cell.pesq_wb)
            && wanted.column == cell.column
        {
            wanted.is_reached = Some(mean >= wanted.least);
        }
    }

    /// The row, once all of it is known.
    fn line(&self) -> Option<String> {
        let mut line = format!("{:<NAME$}", self.frames_lost);
        for cell in &self.cells {
            // Writing to a string does not fail.
            let _ = write!(line, " {:>WIDTH$.2}", cell.pesq_wb?);
        }
        if let Some(Wanted { column, least, is_reached: Some(is_reached) }) = &self.wanted {
            let verdict = if *is_reached { "" } else { ", NOT REACHED" };
            let _ = write!(line, "   {column}: at least {least}{verdict}");
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use conclave::audio::profile::Profile;

    use super::super::run;
    use super::*;

    fn score(pesq_wb: f64) -> Score {
        Score { pesq_wb, late: Duration::ZERO }
    }

    fn filled(pesq_wb: impl Fn(Run) -> f64) -> (Table, Vec<String>) {
        let columns = vec![Column::Conclave(Profile::Default), Column::Plain];
        let mut table = Table::new(56.0, columns, 2);
        // Last first, as it may come when one column is slow.
        let runs = run::all(2, 2).into_iter().rev();
        let lines = runs.flat_map(|run| table.take(run, score(pesq_wb(run)))).collect();
        (table, lines)
    }

    #[test]
    fn rows_come_in_order_once_each_with_the_mean_of_their_patterns() {
        let (table, lines) = filled(|run| if run.seed == 1 { 4.0 } else { 4.5 });
        assert_eq!(lines.len(), CONDITIONS.len());
        assert!(lines[0].starts_with("no loss") && lines[0].contains("4.00"), "{}", lines[0]);
        assert!(lines[1].starts_with("5 % random") && lines[1].contains("4.25"), "{}", lines[1]);
        assert!(table.is_reached());
    }

    #[test]
    fn what_is_wanted_and_not_there_is_said() {
        let (table, lines) = filled(|run| if run.row == 2 { 3.5 } else { 4.5 });
        assert!(lines[2].ends_with("default: at least 3.6, NOT REACHED"), "{}", lines[2]);
        assert!(!lines[1].contains("NOT"));
        assert!(!table.is_reached());
    }

    #[test]
    fn a_column_in_real_time_on_a_busy_machine_is_doubted() {
        let mut table = Table::new(56.0, vec![Column::Neteq], 1);
        assert_eq!(table.doubt(), None);
        let late = Duration::from_millis(40);
        table.take(Run { row: 0, column: 0, seed: 1 }, Score { pesq_wb: 2.0, late });
        assert!(table.doubt().is_some_and(|doubt| doubt.contains("40 ms late")));
    }
}
