//! A certificate for servers on loopback, and clients that trust it and no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::{ClientConfig, RootCertStore};

/// The name that the certificate is for.
pub const NAME: &str = "localhost";

/// A new certificate and its key, as files for a server.
#[derive(Debug)]
pub struct Credentials {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Makes them, with files in a directory.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn create(directory: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).context("cannot make a certificate")?;
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { certificate, key, client: Arc::new(client) })
    }

    /// TLS settings of a client that trusts the certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}
