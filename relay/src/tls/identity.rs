//! The relay's certificate and key: given as files, or self-signed.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ServerConfig;
use serde::Deserialize;

use super::{Pin, TlsError, provider};
use crate::transport::ALPN;

/// Name of the key file in the directory of a kept self-signed identity.
const KEY_FILE: &str = "relay-key.pem";

/// Who the relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A certificate (chain) and its key, both PEM; clients check it against the roots they trust.
    Files {
        /// The certificate, followed by its issuers if any.
        cert: PathBuf,
        /// The key of the first certificate.
        key: PathBuf,
    },
    /// A key of our own making; clients know it by its [`Pin`].
    SelfSigned(SelfSigned),
}

/// Where the key of a self-signed relay lives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "PathBuf")]
pub enum SelfSigned {
    /// In memory: a new key, and so a new pin, at every start.
    Memory,
    /// In this directory: made once, used again at every start. Only the key is kept; the certificate is made anew
    /// around it, which leaves the pin as it is.
    Kept(PathBuf),
}

impl SelfSigned {
    /// The text that stands for [`SelfSigned::Memory`]; a directory of that name is `./memory`.
    pub const MEMORY: &'static str = "memory";
}

impl From<PathBuf> for SelfSigned {
    fn from(path: PathBuf) -> Self {
        if path == Path::new(Self::MEMORY) { Self::Memory } else { Self::Kept(path) }
    }
}

impl FromStr for SelfSigned {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(PathBuf::from(text).into())
    }
}

/// TLS of a server, ready for QUIC.
pub struct ServerTls {
    /// What quinn needs.
    pub quic: Arc<QuicServerConfig>,
    /// The pin to give to clients; only for a self-signed identity.
    pub pin: Option<Pin>,
}

impl Identity {
    /// Reads or makes the certificate.
    ///
    /// # Errors
    /// [`TlsError`], for a file that can't be used or a directory that can't be written.
    pub fn load(&self) -> Result<ServerTls, TlsError> {
        match self {
            Self::Files { cert, key } => {
                let chain = read_chain(cert)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error(key, "private key", error))?;
                Ok(ServerTls { quic: server_config(chain, key)?, pin: None })
            }
            Self::SelfSigned(SelfSigned::Memory) => self_signed(&KeyPair::generate_for(&PKCS_ED25519)?),
            Self::SelfSigned(SelfSigned::Kept(directory)) => self_signed(&kept_key(directory)?),
        }
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<QuicServerConfig>, TlsError> {
    let unusable = |error: rustls::Error| TlsError::Certificate(error.to_string());
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(|error| TlsError::Certificate(error.to_string()))?;
    Ok(Arc::new(quic))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| pem_error(path, "certificate", error))?;
    if chain.is_empty() {
        return Err(pem_error(path, "certificate", rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn pem_error(path: &Path, expected: &'static str, error: rustls::pki_types::pem::Error) -> TlsError {
    match error {
        rustls::pki_types::pem::Error::Io(source) => TlsError::File { action: "read", path: path.into(), source },
        other => TlsError::Pem { path: path.into(), expected, reason: other.to_string() },
    }
}

fn self_signed(key: &KeyPair) -> Result<ServerTls, TlsError> {
    // Clients compare the key alone, so name and dates say nothing; rcgen's dates span centuries.
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "conclave-relay");
    let certificate = params.self_signed(key)?.der().clone();
    let pin = Pin::of_certificate(&certificate).map_err(|error| TlsError::Certificate(error.to_string()))?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok(ServerTls { quic: server_config(vec![certificate], key.into())?, pin: Some(pin) })
}

/// The key kept in `directory`, made if there is none.
fn kept_key(directory: &Path) -> Result<KeyPair, TlsError> {
    let path = directory.join(KEY_FILE);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(directory, &path)?,
        Err(source) => {
            return Err(TlsError::File { action: "read", path, source });
        }
        Ok(_) => {}
    }
    check_private(&path)?;
    let pem =
        fs::read_to_string(&path).map_err(|source| TlsError::File { action: "read", path: path.clone(), source })?;
    KeyPair::from_pem(&pem).map_err(|error| TlsError::Pem { path, expected: "private key", reason: error.to_string() })
}

/// Writes a new key under another name first: a crash leaves either no key or a whole one.
fn create_key(directory: &Path, path: &Path) -> Result<(), TlsError> {
    let failed = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::File { action, path, source }
    };
    let pem = KeyPair::generate_for(&PKCS_ED25519)?.serialize_pem();
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let temporary = directory.join(format!(".{KEY_FILE}.{}", std::process::id()));
    let written = private_file(&temporary).and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("write", path))
}

fn private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(|source| TlsError::File { action: "read", path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(TlsError::KeyExposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_path: &Path) -> Result<(), TlsError> {
    // Elsewhere the directory's own access list protects the file.
    Ok(())
}
