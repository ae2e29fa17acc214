//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::pattern::Pattern;
use crate::peers::Peer;
use crate::placement::Placement;

/// Measures Conclave's relay beside other servers that forward voice, on this machine and in one run
#[derive(Debug, Parser)]
#[command(name = "conclave-peers", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER_HELP: &str = "benches/README.md defines every figure.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Load one server after the other with the same room, in rounds, and print medians and ratios
    Run(Box<Run>),
    /// Say which servers are there, and how to get the others
    List(List),
}

/// Where Conclave's own side is.
#[derive(Debug, Args)]
pub struct List {
    /// conclave-load, which loads Conclave's relay [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub conclave_load: Option<PathBuf>,
}

const RUN_HELP: &str = "\
Each server is a process of its own on one core; the clients are on another. Beside a busy machine use --fifo, as root.
Build optimised: cargo build --release -p conclave-peers -p conclave-load

Exit status: 0 all is well; 1 a server failed, or figures are not valid; 2 the command cannot be carried out.

Examples:
  conclave-peers run
  conclave-peers run --only conclave,mumble --rounds 5 --json peers.json
  conclave-peers run --jitter 5";

/// A comparison.
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub struct Run {
    /// Measured seconds of each server in each round; two more before them don't count
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=240), value_name = "S")]
    pub seconds: u64,
    /// Rounds; in each, every server has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99), value_name = "N")]
    pub rounds: u64,
    /// These servers only, divided by commas [default: all that are there]
    #[arg(long, value_delimiter = ',', value_name = "SERVER")]
    pub only: Vec<Peer>,
    /// Write all figures of all rounds to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Members of the room
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(2..=200), value_name = "N")]
    pub people: u8,
    /// How many of them talk
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..), value_name = "N")]
    pub talkers: u8,
    /// Each frame leaves up to MS milliseconds before or after its tick
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10), value_name = "MS")]
    pub jitter: u64,
    /// The core for the servers
    #[arg(long, default_value_t = 1, value_name = "CORE")]
    pub server_core: usize,
    /// The core for the clients
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    pub client_core: usize,
    /// Give servers and clients real-time priority, so that nobody else preempts them (needs root)
    #[arg(long)]
    pub fifo: bool,
    /// Where Conclave's side is.
    #[command(flatten)]
    pub list: List,
}

impl Run {
    /// What is sent.
    pub fn pattern(&self) -> Pattern {
        Pattern {
            people: self.people.into(),
            talkers: self.talkers.min(self.people).into(),
            jitter: Duration::from_millis(self.jitter),
        }
    }

    /// On which cores.
    pub fn placement(&self) -> Placement {
        Placement { server: self.server_core, client: self.client_core, fifo: self.fifo }
    }

    /// The servers to measure, each once.
    pub fn peers(&self) -> Vec<Peer> {
        let mut peers = if self.only.is_empty() { all() } else { self.only.clone() };
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

/// All servers.
pub fn all() -> Vec<Peer> {
    clap::ValueEnum::value_variants().to_vec()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_options_it_is_the_seminar_with_all() {
        let Verb::Run(run) = Arguments::parse_from(["conclave-peers", "run"]).verb else { panic!("not run") };
        let pattern = run.pattern();
        assert_eq!((pattern.people, pattern.talkers, pattern.frames_per_second()), (50, 5, 250));
        assert_eq!(run.peers(), all());
    }

    #[test]
    fn a_server_named_twice_has_one_turn() {
        let arguments = ["conclave-peers", "run", "--only", "mumble,quinn,mumble"];
        let Verb::Run(run) = Arguments::parse_from(arguments).verb else { panic!("not run") };
        assert_eq!(run.peers(), [Peer::Quinn, Peer::Mumble]);
    }
}
