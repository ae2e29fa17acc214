//! What the relay writes to standard error.
//!
//! Only events of Conclave's own crates come through, whatever the filter says: the libraries below log addresses
//! (quinn does at several levels), and the relay's log holds none. Our own events name connections by number only.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt, registry};

/// Why logging can't start.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter isn't one. The operator's fault.
    #[error("--log: {0}")]
    Filter(#[from] ParseError),
    /// This process logs already.
    #[error(transparent)]
    AlreadyStarted(#[from] TryInitError),
}

/// Starts logging for the process. `filter` is in the language of `RUST_LOG`.
///
/// # Errors
/// [`LoggingError`].
pub fn start(filter: &str) -> Result<(), LoggingError> {
    let chosen = EnvFilter::try_new(filter)?;
    let own = filter_fn(|metadata| is_own(metadata.target()));
    let lines =
        fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).with_filter(own).with_filter(chosen);
    registry().with(lines).try_init()?;
    Ok(())
}

fn is_own(target: &str) -> bool {
    target == "conclave" || target.starts_with("conclave_") || target.starts_with("conclave::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_log_addresses_are_not_heard() {
        assert!(is_own("conclave_relay::server"));
        assert!(is_own("conclave::session"));
        for target in ["quinn::endpoint", "quinn_proto::connection", "quinn_udp", "rustls::conn", "conclavex"] {
            assert!(!is_own(target), "{target}");
        }
    }
}
