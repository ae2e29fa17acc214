//! Conclave's relay beside other servers that forward voice: the same room on each, one after the other, in rounds.
//!
//! `benches/README.md` defines the figures and says how to run it. Conclave's own side is measured by `conclave-load`;
//! the clients of the other servers are here, and do no more than it takes to load them.

mod args;
mod credentials;
mod measure;
mod pattern;
mod peers;
mod placement;
mod process;
mod report;
mod summary;
mod tally;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use args::{Arguments, List, Run, Verb};
use measure::Figures;
use peers::{Peer, Round};
use report::{Machine, Missing, Report};
use summary::{Turn, summarise};

/// Exit status when a server failed or figures are not valid.
const NOT_ALL: u8 = 1;
/// How often a server has its turn in a round while the clients were too late for the figures to be the server's. On a noisy
/// virtual machine one turn in four is such.
const TRIES: u32 = 3;

/// Exit status for what whoever runs this has to change. clap uses the same.
const TROUBLE: u8 = 2;

/// Runs the program.
pub fn run() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Run(run) => compare(&run),
        Verb::List(list) => show(&list),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_ALL),
        Err(error) => {
            tell(&format!("conclave-peers: {error:#}"));
            ExitCode::from(TROUBLE)
        }
    }
}

/// Says on standard output which servers are there.
fn show(list: &List) -> Result<bool> {
    let (present, missing) = search(&args::all(), list.conclave_load.as_deref());
    let mut out = std::io::stdout().lock();
    for (peer, program) in present {
        let version = peer.version().map(|version| format!(" ({version})")).unwrap_or_default();
        writeln!(out, "{peer}: {}{version}", program.display())?;
    }
    for Missing { peer, remedy } in missing {
        writeln!(out, "{peer}: missing: {remedy}")?;
    }
    Ok(true)
}

/// Measures and reports; whether all of it went well.
fn compare(run: &Run) -> Result<bool> {
    let (present, missing) = search(&run.peers(), run.list.conclave_load.as_deref());
    if present.is_empty() {
        let remedies = missing.iter().map(|Missing { peer, remedy }| format!("{peer}: {remedy}")).collect::<Vec<_>>();
        bail!("none of the servers is here; {}", remedies.join("; "));
    }
    if cfg!(debug_assertions) {
        tell("conclave-peers: built without --release, so that its own share of the latency is large");
    }
    let machine = Machine::here(run.fifo);
    run.placement().settle()?;
    let (turns, failures) = rounds(run, &present);
    let lines = summarise(&turns);
    let report = Report {
        pattern: run.into(),
        machine,
        summary: &lines,
        turns: &turns,
        versions: present.iter().filter_map(|(peer, _)| Some((*peer, peer.version()?))).collect(),
        missing: &missing,
        failures: &failures,
    };
    if let Some(path) = &run.json {
        report.save(path)?;
    }
    writeln!(std::io::stdout(), "{}", report::table(&lines))?;
    for Missing { peer, remedy } in &missing {
        writeln!(std::io::stdout(), "{peer} is not here: {remedy}")?;
    }
    for complaint in turns.iter().filter_map(Turn::doubt).chain(failures.iter().cloned()) {
        tell(&complaint);
    }
    Ok(failures.is_empty() && lines.iter().all(|line| line.valid))
}

/// The servers that are here with their programs, and those that are not.
fn search(peers: &[Peer], conclave_load: Option<&Path>) -> (Vec<(Peer, PathBuf)>, Vec<Missing>) {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for peer in peers {
        match peer.find(conclave_load) {
            Ok(program) => present.push((*peer, program)),
            Err(remedy) => missing.push(Missing { peer: *peer, remedy }),
        }
    }
    (present, missing)
}

/// All rounds. Each begins with another server, so that what changes on the machine meanwhile meets all of them.
fn rounds(run: &Run, present: &[(Peer, PathBuf)]) -> (Vec<Turn>, Vec<String>) {
    let (mut turns, mut failures) = (Vec::new(), Vec::new());
    let mut order = present.to_vec();
    for number in 1..=run.rounds {
        let round = Round {
            pattern: run.pattern(),
            length: Duration::from_secs(run.seconds),
            placement: run.placement(),
            seed: number,
        };
        for (peer, program) in &order {
            tell(&format!("round {number} of {}: {peer}", run.rounds));
            match until_valid(number, *peer, || peer.round(program, &round)) {
                Ok(turn) => turns.push(turn),
                Err(error) => failures.push(format!("round {number}, {peer}: {error:#}")),
            }
        }
        order.rotate_left(1);
    }
    (turns, failures)
}

/// A turn whose figures are valid, or the last that was tried.
fn until_valid(round: u64, peer: Peer, mut measure: impl FnMut() -> Result<Figures>) -> Result<Turn> {
    let mut turn = Turn { round, peer, tries: 1, figures: measure()? };
    while let Some(doubt) = turn.doubt().filter(|_| turn.tries < TRIES) {
        tell(&format!("{doubt}; once more"));
        // One that fails leaves what there was.
        match measure() {
            Ok(figures) => turn.figures = figures,
            Err(error) => tell(&format!("round {round}, {peer}: {error:#}")),
        }
        turn.tries += 1;
    }
    Ok(turn)
}

/// Tells whoever watches.
fn tell(line: &str) {
    // Without standard error nobody could be told.
    let _told = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Latency;

    #[test]
    fn a_turn_that_is_not_valid_is_taken_again_and_not_for_ever() {
        let turn = |valid_from: u32| {
            let mut tried = 0;
            until_valid(1, Peer::Mumble, || {
                tried += 1;
                let latency_ms = Latency { p50: 1.0, p99: f64::from(tried) };
                let invalid_because = if tried < valid_from { vec!["late".to_owned()] } else { Vec::new() };
                let (client_share, client_lag_ms) = (None, None);
                let (frames_forwarded, cpu_s, loss) = (100, 1.0, 0.0);
                Ok(Figures { frames_forwarded, cpu_s, loss, latency_ms, client_share, client_lag_ms, invalid_because })
            })
            .unwrap()
        };
        let got = |turn: Turn| (turn.tries, turn.figures.latency_ms.p99, turn.doubt().is_some());
        assert_eq!(got(turn(1)), (1, 1.0, false));
        assert_eq!(got(turn(3)), (3, 3.0, false));
        assert_eq!(got(turn(9)), (3, 3.0, true));
        let mut tried = 0;
        let failed = until_valid(1, Peer::Mumble, || {
            tried += 1;
            bail!("it ended")
        });
        assert_eq!((failed.unwrap_err().to_string().as_str(), tried), ("it ended", 1));
    }
}
