//! The servers that are compared, and one round with each.

mod bare;
mod conclave;
mod coturn;
mod listen;
mod mumble;
mod quinn;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::measure::{Clients, Figures, WARM_UP, measure};
use crate::pattern::Pattern;
use crate::placement::Placement;
use crate::process::Server;
use crate::tally::Tally;

/// A server that forwards voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Conclave's relay, loaded by conclave-load
    Conclave,
    /// A plain forwarder on quinn
    Quinn,
    /// Debian's coturn: a TURN server, ChannelData over UDP
    Coturn,
    /// Debian's mumble-server: voice over UDP
    Mumble,
    /// No server: the fewest packets, and the kernel's part in them alone
    Bare,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conclave => "conclave",
            Self::Quinn => "quinn",
            Self::Coturn => "coturn",
            Self::Mumble => "mumble",
            Self::Bare => "bare",
        })
    }
}

impl Peer {
    /// Where its program is.
    ///
    /// # Errors
    /// What to do to have it.
    pub fn find(self, conclave_load: Option<&Path>) -> Result<PathBuf, String> {
        let (program, remedy) = match self {
            Self::Conclave => (
                conclave_load.map_or_else(|| beside_us("conclave-load"), Path::to_owned),
                "cargo build --release -p conclave-load, or --conclave-load PATH",
            ),
            Self::Quinn => (beside_us("conclave-peers-quinn"), "cargo build --release -p conclave-peers"),
            Self::Coturn => (PathBuf::from("/usr/bin/turnserver"), "benches/peers/install, or apt-get install coturn"),
            Self::Mumble => {
                (PathBuf::from("/usr/sbin/murmurd"), "benches/peers/install, or apt-get install mumble-server")
            }
            Self::Bare => (beside_us("conclave-peers-bare"), "cargo build --release -p conclave-peers"),
        };
        if program.is_file() { Ok(program) } else { Err(remedy.to_owned()) }
    }

    /// The version of its Debian package, for those that come in one.
    pub fn version(self) -> Option<String> {
        let package = match self {
            Self::Conclave | Self::Quinn | Self::Bare => return None,
            Self::Coturn => "coturn",
            Self::Mumble => "mumble-server",
        };
        let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output().ok()?;
        let version = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && !version.is_empty()).then_some(version)
    }

    /// Measures it once.
    ///
    /// # Errors
    /// It did not start, or did not last.
    pub fn round(self, program: &Path, round: &Round) -> Result<Figures> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        if self == Self::Conclave {
            return conclave::round(program, directory.path(), round);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let tally = Arc::new(Tally::new(&round.pattern, WARM_UP + round.length));
            let (server, clients) = self.furnish(program, directory.path(), round, &tally).await?;
            // Qt gives the threads that Mumble's server starts a priority of their own.
            round.placement.place_server(server.id())?;
            measure(&server, clients, round, &tally).await
        })
    }

    /// Starts the server, and brings everybody into one room on it.
    async fn furnish(
        self,
        program: &Path,
        directory: &Path,
        round: &Round,
        tally: &Arc<Tally>,
    ) -> Result<(Server, Clients)> {
        let command = round.placement.command(program);
        match self {
            Self::Conclave => anyhow::bail!("conclave-load brings its own clients"),
            Self::Quinn => quinn::furnish(command, directory, &round.pattern, tally).await,
            Self::Coturn => coturn::furnish(command, directory, &round.pattern, tally).await,
            Self::Mumble => mumble::furnish(command, directory, &round.pattern, tally).await,
            Self::Bare => bare::furnish(command, directory, &round.pattern, tally).await,
        }
    }
}

/// What one round is.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// What is sent.
    pub pattern: Pattern,
    /// How long the window is.
    pub length: Duration,
    /// On which cores.
    pub placement: Placement,
    /// Decides the jitter.
    pub seed: u64,
}

/// A program in the directory of this one.
fn beside_us(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(name)
}
