//! The client's way in: opens a connection to a relay and its control stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use quinn::{ConnectError, ConnectionError, Endpoint, EndpointConfig, Runtime, TokioRuntime};
use thiserror::Error;
use tokio::time::timeout;

use crate::core::CloseCode;
use crate::framing::{MessageReader, MessageWriter};
use crate::media::tap::{Datagrams, Tap};
use crate::tls::{Pin, TlsError, Trust, client_config};
use crate::transport;

/// QUIC error codes that stand for a TLS alert (RFC 9001 §4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Why a relay can't be reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// Somebody answers, but not with the pinned key: another relay, or an attacker in between.
    #[error("the relay has another key than expected: its pin is {found}, not {expected}")]
    WrongPin {
        /// The pin that was asked for.
        expected: Pin,
        /// The pin of whoever answered.
        found: Pin,
    },
    /// The relay's certificate isn't valid, for this name or at all.
    #[error("the relay's certificate is not trusted: {0}")]
    Untrusted(String),
    /// TLS can't be set up here.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection can't even be tried, such as for an impossible name or address.
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    /// The connection failed.
    #[error("connection failed: {}", reason(.0))]
    Connection(#[from] ConnectionError),
    /// No answer in time.
    #[error("the relay does not answer")]
    TimedOut,
    /// Whoever answers isn't a Conclave relay: it takes no datagrams.
    #[error("the relay takes no datagrams")]
    NoDatagrams,
}

/// A connection to a relay, with its control stream. The relay hears of the stream with its first message, which it
/// expects within [`crate::server::Deadlines::hello`].
pub struct Dialed {
    /// The connection, for its end.
    pub connection: quinn::Connection,
    /// Its datagrams.
    pub datagrams: Datagrams,
    /// Sends control messages.
    pub writer: MessageWriter,
    /// Receives control messages.
    pub reader: MessageReader,
    /// What only the two ends of this connection know; see [`transport::EXPORTER_LABEL`].
    pub exporter: [u8; 32],
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").finish_non_exhaustive()
    }
}

/// A UDP socket for connections to relays: `quinn`'s endpoint, beside which media packets travel ([`crate::media`]).
#[derive(Clone, Debug)]
pub struct ClientEndpoint {
    quinn: Endpoint,
    tap: Arc<Tap>,
}

impl Deref for ClientEndpoint {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.quinn
    }
}

/// Opens a UDP socket for connections to relays. Must be called on a tokio runtime.
///
/// # Errors
/// What the system says about the address.
pub fn client_endpoint(bind: SocketAddr) -> io::Result<ClientEndpoint> {
    let runtime = Arc::new(TokioRuntime);
    let tap = Arc::new(Tap::new(runtime.wrap_udp_socket(UdpSocket::bind(bind)?)?));
    let quinn = Endpoint::new_with_abstract_socket(endpoint_config(), None, Arc::clone(&tap) as _, runtime)?;
    Ok(ClientEndpoint { quinn, tap })
}

/// An endpoint's settings: QUIC's fixed bit tells its packets from media packets, so it may not be greased (RFC 9287).
#[must_use]
pub fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    config
}

/// The address to bind for reaching `remote`: any of the same family, any port.
#[must_use]
pub fn bind_for(remote: SocketAddr) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// Connects to the relay at `address` within `deadline`. `name` is what its certificate must be valid for; with
/// [`Trust::Pin`] it only goes out as server name.
///
/// # Errors
/// [`DialError`].
pub async fn dial(
    endpoint: &ClientEndpoint,
    address: SocketAddr,
    name: &str,
    trust: &Trust,
    deadline: Duration,
) -> Result<Dialed, DialError> {
    let tls = client_config(trust)?;
    let connecting = endpoint.connect_with(tls.quic.clone(), address, name)?;
    let connection = match timeout(deadline, connecting).await {
        Err(_) => return Err(DialError::TimedOut),
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(explain(error, trust, tls.refused_pin())),
    };
    if connection.max_datagram_size().is_none() {
        return Err(DialError::NoDatagrams);
    }
    let exporter = transport::exporter(&connection).ok_or(ConnectionError::LocallyClosed)?;
    let opened = timeout(deadline, connection.open_bi()).await;
    let (send, receive) = opened.map_err(|_| DialError::TimedOut)??;
    let datagrams = Datagrams::new(connection.clone(), Arc::clone(&endpoint.tap));
    let (writer, reader) = (MessageWriter::new(send), MessageReader::new(receive));
    Ok(Dialed { connection, datagrams, writer, reader, exporter })
}

/// Why a connection ended, in words: those of the code ([`CloseCode`]) where the relay closed it.
pub fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner());
            code.map_or_else(|_| error.to_string(), |code| CloseCode(code).to_string())
        }
        other => other.to_string(),
    }
}

fn explain(error: ConnectionError, trust: &Trust, refused: Option<Pin>) -> DialError {
    if let (Trust::Pin(expected), Some(found)) = (trust, refused) {
        return DialError::WrongPin { expected: *expected, found };
    }
    match error {
        ConnectionError::TransportError(error) if TLS_ALERTS.contains(&u64::from(error.code)) => {
            DialError::Untrusted(error.reason)
        }
        other => DialError::Connection(other),
    }
}
