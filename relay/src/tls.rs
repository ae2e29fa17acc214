//! TLS 1.3 of both ends: the relay's certificate, and how a client knows the relay.
//!
//! Only TLS 1.3, only the ring provider (named explicitly: no process-wide default is installed), no session
//! tickets: with them a relay could link a client's connections, and there is no 0-RTT to gain.

mod identity;
mod pin;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use identity::{Identity, SelfSigned, ServerTls};
pub use pin::{InvalidPin, Pin};
pub use trust::{ClientTls, Trust, client_config};

/// Why TLS couldn't be set up. Always something local: a file, a certificate, the machine.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file isn't the PEM that it should be.
    #[error("{} holds no usable PEM {expected}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Others on this machine may read the relay's key.
    #[error("{} may be read by others (mode {mode:04o}); make it yours alone: chmod 600", path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate and the key don't go together, or the key is of a kind that isn't supported.
    #[error("the certificate and its key cannot be used: {0}")]
    Certificate(String),
    /// A self-signed certificate couldn't be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// The one provider of TLS cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
