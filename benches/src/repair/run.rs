//! All runs of the table, as many at a time as there are processors, row by row.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use anyhow::{Context, Result};

use super::columns::{CONDITIONS, Column, Score, Speech};

/// One pattern of loss in one cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Run {
    /// Index into [`CONDITIONS`].
    pub row: usize,
    /// Index into the columns.
    pub column: usize,
    /// Which pattern, from 1 on.
    pub seed: u64,
}

/// All of them, in the order in which rows are shown.
pub fn all(columns: usize, seeds: u64) -> Vec<Run> {
    let of_row = |row: usize| {
        let seeds = 1..=CONDITIONS[row].patterns(seeds);
        (0..columns).flat_map(move |column| seeds.clone().map(move |seed| Run { row, column, seed }))
    };
    (0..CONDITIONS.len()).flat_map(of_row).collect()
}

/// Does all runs and gives each score as soon as it is known. What runs in real time hardly computes: it does so beside
/// the rest, all of it at once.
///
/// # Errors
/// The first error of a run or of `on_score`; what has not begun is then left out.
pub fn scores(
    speech: &Speech,
    columns: &[Column],
    seeds: u64,
    mut on_score: impl FnMut(Run, Score) -> Result<()>,
) -> Result<()> {
    let (in_time, computed): (Vec<Run>, Vec<Run>) =
        all(columns.len(), seeds).into_iter().partition(|run| columns[run.column].is_in_real_time());
    let next = AtomicUsize::new(0);
    let score = |run: &Run, done: &Sender<(Run, Result<Score>)>| {
        // Nobody waits for it any more after an error.
        let _ = done.send((*run, columns[run.column].score(speech, CONDITIONS[run.row].loss, run.seed)));
    };
    thread::scope(|scope| {
        let (done, finished) = mpsc::channel();
        for run in &in_time {
            let done = done.clone();
            scope.spawn(move || score(run, &done));
        }
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (done, next, computed) = (done.clone(), &next, &computed);
            scope.spawn(move || {
                while let Some(run) = computed.get(next.fetch_add(1, Ordering::Relaxed)) {
                    score(run, &done);
                }
            });
        }
        drop(done);
        let taken = finished.iter().try_for_each(|(run, score)| {
            let whose = || format!("{}, {}", columns[run.column].name(), CONDITIONS[run.row].name);
            on_score(run, score.with_context(whose)?)
        });
        next.store(computed.len(), Ordering::Relaxed);
        taken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_each_pattern_once_and_without_loss_there_is_one() {
        let runs = all(3, 4);
        assert_eq!(runs.len(), 3 * (1 + 4 * (CONDITIONS.len() - 1)));
        assert!(runs.is_sorted_by_key(|run| (run.row, run.column, run.seed)));
        assert_eq!(runs.iter().filter(|run| run.row == 0).count(), 3);
    }
}
