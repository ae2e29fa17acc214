//! The relay's program: reads the configuration, runs the server, says how it ended.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use conclave_protocol::descriptor::Region;
use conclave_relay::clock::{system_clock, system_time};
use conclave_relay::config::{self, Command, ServeSettings};
use conclave_relay::hub::{self, Hub};
use conclave_relay::logging;
use conclave_relay::metrics::Listener;
use conclave_relay::moderator::Moderator;
use conclave_relay::server::{BindError, Server};
use conclave_relay::stamps::day::Day;
use conclave_relay::stamps::keeper::Keeper;
use serde::Serialize;

/// Exit status for what the operator has to change: arguments, configuration, certificate. clap uses the same.
const USAGE: u8 = 2;
/// Exit status for what went wrong at run time.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let Command::Serve(options) = config::command_from_process();
    let outcome = match options.resolve() {
        Ok(settings) => run(settings),
        Err(error) => Err(Failure { status: USAGE, error: error.into() }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, error }) => {
            // Without standard error there is nobody to tell.
            let _told = writeln!(io::stderr(), "conclave-relay: {error:#}");
            ExitCode::from(status)
        }
    }
}

/// An error and the status that it ends the process with.
struct Failure {
    status: u8,
    error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { status: FAILURE, error }
    }
}

fn run(settings: ServeSettings) -> Result<(), Failure> {
    logging::start(&settings.log).map_err(|error| Failure { status: USAGE, error: error.into() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: ServeSettings) -> Result<(), Failure> {
    // Before the port opens, so that a signal right after the announcement is not lost.
    let shutdown = shutdown_signal().context("cannot listen for signals")?;
    let mut keeper = Keeper::new(settings.stamp_keys.clone());
    let core = Hub::new(system_clock(), hub_config(&settings, &mut keeper)?);
    let mut server = Server::bind(&settings.server, core).map_err(|error| Failure {
        status: if matches!(error, BindError::Tls(_)) { USAGE } else { FAILURE },
        error: error.into(),
    })?;
    server = server.with_stamp_keys(keeper);
    if let Some(reports) = &settings.reports {
        server = server.with_reports(reports.start().map_err(usage)?);
    }
    let metrics = match settings.metrics {
        Some(address) => Some(Listener::bind(address).await.context("--metrics")?),
        None => None,
    };
    let shown = metrics.as_ref().map(Listener::local_addr);
    if let Some(listener) = metrics {
        server = server.with_metrics(listener);
    }
    announce(&Listening {
        event: "listening",
        addr: server.local_addr(),
        pin: server.pin().map(|pin| pin.to_string()),
        region: settings.region.as_ref().map(Region::as_str),
        metrics: shown,
    });
    let stats = server.run(shutdown).await.context("the relay stopped")?;
    tracing::info!(connections = stats.connections, datagrams = stats.datagrams_out, "stopped");
    Ok(())
}

fn hub_config(settings: &ServeSettings, keeper: &mut Keeper) -> Result<hub::Config, Failure> {
    let limits = hub::Limits { reports_per_minute: settings.reports_per_minute, ..hub::Limits::default() };
    Ok(hub::Config {
        region: settings.region.clone(),
        limits,
        stamp_keys: keeper.keys(Day::from(system_time())).map_err(usage)?,
        aligns_clocks: settings.aligns_clocks,
        takes_reports: settings.reports.is_some(),
        moderator: settings.moderator.as_deref().map(Moderator::read).transpose().map_err(usage)?,
    })
}

/// What the operator has to change.
fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure { status: USAGE, error: error.into() }
}

/// The line on standard output for whoever started the relay.
#[derive(Serialize)]
struct Listening<'a> {
    event: &'static str,
    addr: SocketAddr,
    pin: Option<String>,
    region: Option<&'a str>,
    metrics: Option<SocketAddr>,
}

fn announce(listening: &Listening<'_>) {
    let written = serde_json::to_string(listening)
        .map_err(io::Error::from)
        .and_then(|line| writeln!(io::stdout().lock(), "{line}").and_then(|()| io::stdout().flush()));
    if let Err(error) = written {
        tracing::warn!(%error, "nobody reads standard output");
    }
}

/// Completes when the process is asked to stop.
#[cfg(unix)]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes when the process is asked to stop.
#[cfg(not(unix))]
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without the signal the relay runs until it is killed.
            std::future::pending::<()>().await;
        }
    })
}
