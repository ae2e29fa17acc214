//! The search for the highest load that a relay carries.

use anyhow::Result;
use serde::Serialize;

use crate::args::{FindMaxOptions, Scale};
use crate::plan::{Faults, Plan, Shape};
use crate::result::Report;
use crate::run;

/// Highest 99th percentile of latency, in milliseconds.
pub const MOST_P99_MS: f64 = 20.0;
/// Highest share of frames that do not come.
pub const MOST_LOSS: f64 = 0.001;
/// The search ends when what is carried and what is not are closer than this.
const CLOSE: f64 = 0.1;
/// How often a load is tried whose result was not valid: it may have been a moment's.
const TRIES: u32 = 2;
/// The same where it was not the load. Of runs of ten seconds on a noisy virtual machine one in three is such.
const TRIES_DISTURBED: u32 = 5;
/// Most members: one machine has no more ports.
const MOST_MEMBERS: u64 = 60_000;

/// How a step went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within all bounds.
    Carried,
    /// Not within the bounds, and the harness was a match for it.
    TooMuch,
    /// Nobody knows: something else on this machine, or its host, came between.
    Disturbed,
    /// Not within the bounds, or nobody knows: the harness was the limit, or the ramp failed.
    Unknown,
}

/// One step of a search.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Step {
    /// How many of what grows.
    pub size: u32,
    /// Frames that a relay without loss forwards in a second.
    pub frames_per_second: u64,
    /// How it went.
    pub verdict: Verdict,
    /// What was measured; `None` when the run failed.
    pub report: Option<Box<Report>>,
    /// Why there is no report.
    pub error: Option<String>,
}

/// What a search has found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Found {
    /// What was made more of.
    pub scale: Scale,
    /// The most that was carried.
    pub best: Option<u32>,
    /// Whether the relay was the limit: some more was too much for it. Otherwise it may carry more than this machine can
    /// put on it.
    pub relay_was_the_limit: bool,
    /// Every step, in order.
    pub steps: Vec<Step>,
}

impl Found {
    /// How the least load above the most that was carried was left.
    pub fn end(&self) -> Option<Verdict> {
        end(self.best, &self.steps)
    }
}

fn end(best: Option<u32>, steps: &[Step]) -> Option<Verdict> {
    let above = steps.iter().map(|step| step.size).filter(|size| best.is_none_or(|best| *size > best)).min()?;
    steps.iter().rfind(|step| step.size == above).map(|step| step.verdict)
}

/// The rule of the search: doubles until something is too much, and halves the gap then. Pure.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    carried: Option<u32>,
    failed: Option<u32>,
    next: u32,
    most: u32,
}

impl Search {
    /// Begins with `first`, and goes no further than `most`.
    pub fn new(first: u32, most: u32) -> Self {
        Self { carried: None, failed: None, next: first.clamp(1, most), most }
    }

    /// The size to be tried; `None` when the search is over.
    pub fn next(&self) -> Option<u32> {
        let is_open = match (self.carried, self.failed) {
            (Some(carried), Some(failed)) => {
                f64::from(failed - carried) > f64::from(carried) * CLOSE && failed - carried > 1
            }
            (Some(carried), None) => carried < self.most,
            (None, Some(failed)) => failed > 1,
            (None, None) => true,
        };
        is_open.then_some(self.next)
    }

    /// Takes what came of the size that was tried.
    pub fn note(&mut self, is_carried: bool) {
        if is_carried {
            self.carried = Some(self.next);
        } else {
            self.failed = Some(self.next);
        }
        self.next = match (self.carried, self.failed) {
            (Some(carried), Some(failed)) => carried + (failed - carried) / 2,
            (Some(carried), None) => carried.saturating_mul(2).min(self.most),
            (None, Some(failed)) => (failed / 2).max(1),
            (None, None) => self.next,
        };
    }

    /// The most that was carried.
    pub fn best(&self) -> Option<u32> {
        self.carried
    }
}

/// Searches with real runs, and hands each step to `tell` when it is over.
///
/// # Errors
/// Arguments that make no sense. A run that fails counts as one that was not carried.
pub fn find(options: &FindMaxOptions, tell: impl Fn(&Step)) -> Result<Found> {
    let plan = options.load.plan(options.seconds, Faults::default())?;
    let mut search = Search::new(size_of(plan.shape, options.scale), most(plan.shape, options.scale));
    let mut steps: Vec<Step> = Vec::new();
    while let Some(size) = search.next() {
        let plan = scaled(&plan, options.scale, size);
        let attempt = || {
            let step = try_size(&plan, size, options);
            tell(&step);
            step
        };
        search.note(try_until_known(attempt, &mut steps));
    }
    let relay_was_the_limit = end(search.best(), &steps) == Some(Verdict::TooMuch);
    Ok(Found { scale: options.scale, best: search.best(), relay_was_the_limit, steps })
}

/// Tries a load until it is known whether it is carried, or once too often; gives whether it is.
fn try_until_known(mut attempt: impl FnMut() -> Step, steps: &mut Vec<Step>) -> bool {
    let (mut disturbed, mut unknown) = (0, 0);
    loop {
        let step = attempt();
        let verdict = step.verdict;
        steps.push(step);
        match verdict {
            Verdict::Carried => return true,
            Verdict::TooMuch => return false,
            Verdict::Disturbed => disturbed += 1,
            Verdict::Unknown => unknown += 1,
        }
        if disturbed >= TRIES_DISTURBED || unknown >= TRIES {
            return false;
        }
    }
}

fn try_size(plan: &Plan, size: u32, options: &FindMaxOptions) -> Step {
    let outcome = run::run(plan, &options.target);
    let verdict = outcome.as_ref().map_or(Verdict::Unknown, verdict);
    let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
    let report = outcome.ok().map(Box::new);
    Step { size, frames_per_second: plan.shape.frames_per_second(), verdict, report, error }
}

/// How a run went.
pub fn verdict(report: &Report) -> Verdict {
    let p99 = report.latency_ms.map_or(f64::INFINITY, |latency| latency.p99);
    let is_within = p99 <= MOST_P99_MS && report.loss <= MOST_LOSS;
    match (report.valid, is_within) {
        (true, true) => Verdict::Carried,
        (true, false) => Verdict::TooMuch,
        (false, _) if report.machine.disturbed => Verdict::Disturbed,
        (false, _) => Verdict::Unknown,
    }
}

fn size_of(shape: Shape, scale: Scale) -> u32 {
    match scale {
        Scale::Rooms => shape.rooms,
        Scale::People => shape.people,
    }
}

fn most(shape: Shape, scale: Scale) -> u32 {
    let others = match scale {
        Scale::Rooms => shape.people,
        Scale::People => shape.rooms,
    };
    u32::try_from(MOST_MEMBERS / u64::from(others.max(1))).unwrap_or(u32::MAX).clamp(1, 30_000)
}

fn scaled(plan: &Plan, scale: Scale, size: u32) -> Plan {
    let mut plan = plan.clone();
    match scale {
        Scale::Rooms => plan.shape.rooms = size,
        Scale::People => plan.shape.people = size.max(plan.shape.talkers + 1),
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::report;

    /// Searches against a relay that carries up to `limit`; gives what was found and the sizes that were tried.
    fn against(limit: u32, first: u32, most: u32) -> (Option<u32>, Vec<u32>) {
        let mut search = Search::new(first, most);
        let mut tried = Vec::new();
        while let Some(size) = search.next() {
            tried.push(size);
            assert!(tried.len() < 50, "{tried:?}");
            search.note(size <= limit);
        }
        (search.best(), tried)
    }

    #[test]
    fn the_search_doubles_and_then_halves_the_gap() {
        let (best, tried) = against(100, 10, 30_000);
        assert_eq!(tried, [10, 20, 40, 80, 160, 120, 100, 110]);
        assert_eq!(best, Some(100));
    }

    #[test]
    fn the_search_ends_within_a_tenth_whatever_the_limit_is() {
        for limit in 1..2_000 {
            let (best, tried) = against(limit, 7, 30_000);
            let best = best.unwrap();
            assert!(best <= limit && f64::from(limit) <= f64::from(best) * 1.1 + 1.0, "{limit}: {best} by {tried:?}");
        }
    }

    #[test]
    fn the_search_goes_down_from_a_first_size_that_is_too_much() {
        assert_eq!(against(3, 100, 30_000).0, Some(3));
        assert_eq!(against(0, 100, 30_000).0, None);
    }

    #[test]
    fn the_search_stops_at_the_most_that_can_be_tried() {
        assert_eq!(against(u32::MAX, 10, 50), (Some(50), vec![10, 20, 40, 50]));
    }

    fn step(size: u32, verdict: Verdict) -> Step {
        Step { size, frames_per_second: 0, verdict, report: None, error: None }
    }

    #[test]
    fn what_nobody_knows_is_tried_again_and_a_disturbance_more_often() {
        let tried = |verdicts: &[Verdict]| {
            let (mut steps, mut verdicts) = (Vec::new(), verdicts.iter().cycle());
            let is_carried = try_until_known(|| step(1, *verdicts.next().unwrap()), &mut steps);
            (is_carried, steps.len())
        };
        assert_eq!(tried(&[Verdict::Carried]), (true, 1));
        assert_eq!(tried(&[Verdict::TooMuch, Verdict::Carried]), (false, 1));
        assert_eq!(tried(&[Verdict::Unknown]), (false, 2));
        assert_eq!(tried(&[Verdict::Disturbed]), (false, 5));
        assert_eq!(tried(&[Verdict::Disturbed, Verdict::Disturbed, Verdict::Carried]), (true, 3));
        assert_eq!(tried(&[Verdict::Disturbed, Verdict::Unknown]), (false, 4));
    }

    #[test]
    fn what_a_search_says_is_how_the_least_load_above_the_most_that_was_carried_was_left() {
        let (carried, much, disturbed, unknown) =
            (Verdict::Carried, Verdict::TooMuch, Verdict::Disturbed, Verdict::Unknown);
        let end = |best, steps: &[(u32, Verdict)]| {
            end(best, &steps.iter().map(|(size, verdict)| step(*size, *verdict)).collect::<Vec<_>>())
        };
        assert_eq!(end(Some(2), &[(2, carried), (3, unknown), (3, disturbed)]), Some(disturbed));
        assert_eq!(end(Some(80), &[(80, carried), (160, much), (120, disturbed), (100, disturbed)]), Some(disturbed));
        assert_eq!(end(Some(80), &[(80, carried), (160, unknown), (120, unknown), (100, much)]), Some(much));
        assert_eq!(end(Some(80), &[(40, disturbed), (80, carried)]), None);
        assert_eq!(end(None, &[(2, disturbed), (1, disturbed)]), Some(disturbed));
    }

    #[test]
    fn a_run_counts_only_when_it_is_valid() {
        let mut run = report();
        assert_eq!(verdict(&run), Verdict::Carried);
        run.loss = 0.0011;
        assert_eq!(verdict(&run), Verdict::TooMuch);
        run.valid = false;
        assert_eq!(verdict(&run), Verdict::Unknown);
        run.machine.disturbed = true;
        assert_eq!(verdict(&run), Verdict::Disturbed);
        run = report();
        run.latency_ms.as_mut().unwrap().p99 = 20.1;
        assert_eq!(verdict(&run), Verdict::TooMuch);
        run.latency_ms = None;
        assert_eq!(verdict(&run), Verdict::TooMuch);
    }
}
