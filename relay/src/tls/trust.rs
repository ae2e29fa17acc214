//! How a client knows that it talks to the right relay.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, RootCertStore, SignatureScheme};

use super::{Pin, TlsError, provider};
use crate::transport::{ALPN, IDLE_TIMEOUT, Side, transport_config};

/// What makes a relay the right one.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Its key has this fingerprint. Nothing else counts: not the name, nor the certificate's dates or issuer.
    Pin(Pin),
    /// Its certificate is valid for the name dialled and leads to one of these roots.
    WebPki(Arc<RootCertStore>),
}

/// TLS and transport of one connection to be opened.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// What quinn needs.
    pub quic: quinn::ClientConfig,
    refused: Arc<OnceLock<Pin>>,
}

impl ClientTls {
    /// The pin of a relay that was refused because it wasn't the expected one. QUIC reports such a failure only as
    /// text, so it is told here.
    #[must_use]
    pub fn refused_pin(&self) -> Option<Pin> {
        self.refused.get().copied()
    }
}

/// TLS and transport for one connection to a relay. Take a new one for each connection.
///
/// # Errors
/// [`TlsError::Certificate`] when the provider lacks what TLS 1.3 needs.
pub fn client_config(trust: &Trust) -> Result<ClientTls, TlsError> {
    let provider = provider();
    let refused = Arc::new(OnceLock::new());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Certificate(error.to_string()))?;
    let mut tls = match trust {
        Trust::Pin(pin) => {
            let verifier = PinVerifier { expected: *pin, refused: Arc::clone(&refused), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::WebPki(roots) => builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).map_err(|error| TlsError::Certificate(error.to_string()))?;
    let mut quic = quinn::ClientConfig::new(Arc::new(tls));
    quic.transport_config(Arc::new(transport_config(Side::Client, IDLE_TIMEOUT)));
    Ok(ClientTls { quic, refused })
}

/// Accepts exactly one key, and checks that the peer has it.
#[derive(Debug)]
struct PinVerifier {
    expected: Pin,
    refused: Arc<OnceLock<Pin>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Pin::of_certificate(end_entity)?;
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        // Only the first counts: a configuration serves one connection.
        let _kept = self.refused.set(found);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
