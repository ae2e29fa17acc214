//! Arguments, and the help that teaches them.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use conclave_relay::tls::Pin;

use crate::plan::{Clocks, Faults, Flood, Network, Plan, Shape};

/// The name of a relay that this program starts itself.
const EMBEDDED: &str = "embedded";

/// Loads a Conclave relay with real clients, and says how many it carries and how late they are heard.
///
/// Every member is a client of its own: a UDP socket, a QUIC connection, a knock, a handshake, a place in the meeting.
/// Talkers then send frames that are sealed ahead, on an exact clock; listeners count and time what comes.
#[derive(Debug, Parser)]
#[command(name = "conclave-load", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Put one load on a relay and measure
    #[command(after_help = RUN_HELP)]
    Run(Box<RunOptions>),
    /// Search for the highest load that a relay carries: p99 of latency at most 20 ms, loss at most 0.1 %
    #[command(after_help = FIND_MAX_HELP)]
    FindMax(Box<FindMaxOptions>),
    /// Set two results of `run --json` side by side
    Compare(CompareOptions),
    /// The embedded relay.
    #[command(hide = true)]
    ServeRelay(ServeRelay),
}

const RUN_HELP: &str = "\
Presets: standup 10 meetings of 5, one talks; seminar 1 of 50, five talk; town-hall 1 of 1,000, three talk;
many 200 of 5, two talk. --rooms, --people and --talkers change what a preset says.

  conclave-load run --relay embedded --preset seminar --html seminar.html
      A relay of this program's own, as a process beside it. Figures count for the build: use a release build.
  conclave-load run --relay relay.example:4433 --pin PIN --rooms 20 --people 10 --talkers 2 --json result.json
      A relay somewhere. All members come from one address: raise the relay's --max-connections-per-network and
      --connection-rate-per-network first.
  conclave-load run --relay 127.0.0.1:4433 --pin PIN --relay-pid $(pidof conclave-relay) --preset standup
      A relay on this machine: processor time and memory are read from /proc.

Exit status: 0 the result is valid, 1 it is not (the harness or the machine was the limit, or not all got in),
2 something went wrong. docs/load.md defines every figure.";

const FIND_MAX_HELP: &str = "\
The load grows by meetings (--scale rooms) or by listeners of each (--scale people) until a run misses a bound, and is
then narrowed down to 10 %. Each step is a whole run, ramp included.

  conclave-load find-max --relay embedded --people 10 --talkers 3 --scale rooms
  conclave-load find-max --relay embedded --rooms 1 --talkers 3 --scale people --seconds 20

Exit status: 0 some load was carried, 1 none, 2 something went wrong.";

/// Which relay.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// HOST or HOST:PORT, or "embedded" for one that is started beside this program
    #[arg(long, value_name = "ADDR|embedded")]
    pub relay: String,
    /// Pin of a self-signed relay, as it prints it; otherwise its certificate is checked by WebPKI
    // One pin in 64 begins with a hyphen.
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pub pin: Option<Pin>,
    /// Process of a relay on this machine, to read its processor time and memory
    #[arg(long, value_name = "PID")]
    pub relay_pid: Option<u32>,
}

impl Target {
    /// Whether this program starts the relay itself.
    pub fn is_embedded(&self) -> bool {
        self.relay == EMBEDDED
    }
}

/// Loads that have a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Preset {
    /// 10 meetings of 5, one talks
    Standup,
    /// 1 meeting of 50, five talk
    Seminar,
    /// 1 meeting of 1,000, three talk
    TownHall,
    /// 200 meetings of 5, two talk
    Many,
}

impl Preset {
    /// How many people.
    pub fn shape(self) -> Shape {
        let (rooms, people, talkers) = match self {
            Self::Standup => (10, 5, 1),
            Self::Seminar => (1, 50, 5),
            Self::TownHall => (1, 1_000, 3),
            Self::Many => (200, 5, 2),
        };
        Shape { rooms, people, talkers }
    }
}

/// How many people, and how they talk.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// A load that has a name
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Meetings
    #[arg(long, value_name = "R")]
    pub rooms: Option<u32>,
    /// Members of each, the host included
    #[arg(long, value_name = "M")]
    pub people: Option<u32>,
    /// How many of them talk
    #[arg(long, value_name = "K")]
    pub talkers: Option<u32>,
    /// Members that come in a second, all meetings together [default: as fast as meetings take them; without a number: 20]
    #[arg(long, value_name = "PER_SECOND", num_args = 0..=1, default_missing_value = "20")]
    pub ramp: Option<u32>,
    /// Seconds of talk before anything is measured [default: until clocks have followed the relay's phase, 15 at most]
    #[arg(long, value_name = "S")]
    pub warmup: Option<f64>,
    /// Share of frames that never leave their talker, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub loss: f64,
    /// Milliseconds that each frame takes before it is sent
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    pub delay: f64,
    /// Each frame leaves up to that many milliseconds early or late
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    pub jitter: f64,
    /// Do not follow the phase that the relay asks for
    #[arg(long)]
    pub no_phase: bool,
    /// Begin all frame clocks at the same moment
    #[arg(long)]
    pub aligned: bool,
    /// Threads that carry connections of listeners, beside those of hosts and talkers [default: all cores but one]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Which relay.
    #[command(flatten)]
    pub target: Target,
    /// How many people.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub seconds: u32,
    /// Write the result as JSON; "-" for standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write a page with charts, which needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Kill an embedded relay so many seconds after the measurement began, and start it again
    #[arg(long, value_name = "S")]
    pub kill_relay_at: Option<f64>,
    /// So many listeners stop reading their sockets; they are not measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stall_listeners: u32,
    /// Each member but the hosts leaves after so many seconds on average, and knocks again
    #[arg(long, value_name = "SECONDS")]
    pub churn: Option<f64>,
    /// What outsiders do meanwhile; may be given more than once
    #[arg(long, value_enum, action = ArgAction::Append)]
    pub flood: Vec<Flood>,
}

/// What `find-max` makes more of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Meetings
    Rooms,
    /// Members of each meeting
    People,
}

/// Arguments of `find-max`.
#[derive(Args, Clone, Debug)]
pub struct FindMaxOptions {
    /// Which relay.
    #[command(flatten)]
    pub target: Target,
    /// How many people at first.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Seconds that each step measures
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u32,
    /// What grows
    #[arg(long, value_enum, default_value_t = Scale::Rooms)]
    pub scale: Scale,
    /// Write all steps as JSON; "-" for standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
}

/// Arguments of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// The result that the other is compared with
    pub a: PathBuf,
    /// The other
    pub b: PathBuf,
}

/// Arguments of the embedded relay.
#[derive(Args, Clone, Debug)]
pub struct ServeRelay {
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Directory of the key.
    #[arg(long)]
    pub key: PathBuf,
}

impl LoadOptions {
    /// The plan of a run of so many seconds.
    ///
    /// # Errors
    /// What makes no sense, in words for the user.
    pub fn plan(&self, seconds: u32, faults: Faults) -> Result<Plan> {
        let shape = self.shape()?;
        if seconds == 0 {
            bail!("--seconds: measure at least one");
        }
        if !(0.0..100.0).contains(&self.loss) {
            bail!("--loss: a share in percent, from 0 to below 100");
        }
        for (name, value) in [("--delay", self.delay), ("--jitter", self.jitter)] {
            if !(0.0..=10_000.0).contains(&value) {
                bail!("{name}: milliseconds, from 0 to 10,000");
            }
        }
        if self.warmup.is_some_and(|warmup| !(0.0..=600.0).contains(&warmup)) {
            bail!("--warmup: seconds, from 0 to 600");
        }
        if self.threads == Some(0) || self.ramp == Some(0) {
            bail!("--threads and --ramp: at least one");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Plan {
            shape,
            seconds,
            ramp: self.ramp,
            warmup_s: self.warmup,
            network: Network { loss: self.loss / 100.0, delay_ms: self.delay, jitter_ms: self.jitter },
            clocks: Clocks { follow_phase: !self.no_phase, aligned: self.aligned },
            faults,
            threads: self.threads.unwrap_or(cores.saturating_sub(1).max(1)),
        })
    }

    fn shape(&self) -> Result<Shape> {
        let preset = self.preset.map(Preset::shape);
        let shape = Shape {
            rooms: self.rooms.or(preset.map(|shape| shape.rooms)).unwrap_or(1),
            people: self.people.or(preset.map(|shape| shape.people)).unwrap_or(10),
            talkers: self.talkers.or(preset.map(|shape| shape.talkers)).unwrap_or(1),
        };
        if shape.rooms == 0 || shape.people < 2 || shape.people > 30_000 {
            bail!("--rooms: at least one; --people: 2 to 30,000");
        }
        if shape.talkers == 0 || shape.talkers > shape.people {
            bail!("--talkers: at least one, and no more than --people");
        }
        if shape.members() > 60_000 {
            bail!("at most 60,000 members in all: one machine has no more ports");
        }
        Ok(shape)
    }
}

impl RunOptions {
    /// The plan.
    ///
    /// # Errors
    /// What makes no sense, in words for the user.
    pub fn plan(&self) -> Result<Plan> {
        if self.kill_relay_at.is_some() && !self.target.is_embedded() {
            bail!("--kill-relay-at: only with --relay embedded");
        }
        if self.kill_relay_at.is_some_and(|at| !(0.0..f64::from(self.seconds)).contains(&at)) {
            bail!("--kill-relay-at: within the --seconds that are measured");
        }
        if self.churn.is_some_and(|mean| !(2.0..=100_000.0).contains(&mean)) {
            bail!("--churn: at least 2 seconds");
        }
        let faults = Faults {
            kill_relay_at: self.kill_relay_at,
            stall_listeners: self.stall_listeners,
            churn: self.churn,
            flood: self.flood.clone(),
        };
        self.load.plan(self.seconds, faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn options(args: &[&str]) -> RunOptions {
        let all = ["conclave-load", "run", "--relay", "embedded"].iter().chain(args);
        match Arguments::parse_from(all).verb {
            Verb::Run(options) => *options,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_given_changes_a_preset() {
        let shape = |args: &[&str]| options(args).plan().unwrap().shape;
        assert_eq!(shape(&["--preset", "town-hall"]), Shape { rooms: 1, people: 1_000, talkers: 3 });
        assert_eq!(shape(&["--preset", "many", "--rooms", "3"]), Shape { rooms: 3, people: 5, talkers: 2 });
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_option_s_name() {
        for (args, name) in [
            (&["--talkers", "11"][..], "--talkers"),
            (&["--people", "1"], "--people"),
            (&["--loss", "100"], "--loss"),
            (&["--jitter=-1"], "--jitter"),
            (&["--seconds", "0"], "--seconds"),
            (&["--kill-relay-at", "31"], "--kill-relay-at"),
            (&["--churn", "1"], "--churn"),
            (&["--threads", "0"], "--threads"),
        ] {
            let error = options(args).plan().unwrap_err().to_string();
            assert!(error.contains(name), "{args:?}: {error}");
        }
    }
}
