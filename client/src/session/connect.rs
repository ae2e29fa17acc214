//! Finding a relay of the link that answers.

use std::net::SocketAddr;
use std::time::Duration;

use conclave_protocol::link::RelayAddress;
use conclave_relay::dial::{self, DialError, Dialed};
use conclave_relay::tls::{Pin, Trust};

use crate::exit::Outcome;

/// How long one relay may take to answer. With this an unreachable relay is told within five seconds.
const DIAL: Duration = Duration::from_millis(4_500);

/// A connection to one of a link's relays, with the endpoint that carries it.
pub struct Connected {
    /// Must live as long as the connection.
    pub endpoint: quinn::Endpoint,
    /// The connection and its control stream.
    pub dialed: Dialed,
}

/// Connects to the first relay of `relays` that answers as itself.
///
/// # Errors
/// The [`Outcome`] of the last relay tried, with words for the user.
pub async fn connect(relays: &[RelayAddress]) -> Result<Connected, Outcome> {
    let mut last = Outcome::BadLink("the link names no relay".to_owned());
    for relay in relays {
        match connect_to(relay).await {
            Ok(connected) => return Ok(connected),
            Err(outcome) => last = outcome,
        }
    }
    Err(last)
}

async fn connect_to(relay: &RelayAddress) -> Result<Connected, Outcome> {
    let unreachable = |why: String| {
        Outcome::Relay(format!(
            "the relay at {relay} cannot be reached: {why} — check your network, or ask the host whether the relay runs"
        ))
    };
    let lookup = tokio::time::timeout(DIAL, tokio::net::lookup_host((relay.host.as_str(), relay.port))).await;
    let addresses: Vec<SocketAddr> = match lookup {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(unreachable(format!("its name does not resolve ({error})"))),
        Err(_) => return Err(unreachable("its name does not resolve in time".to_owned())),
    };
    let trust = trust(relay);
    let mut last = unreachable("its name has no address".to_owned());
    // Two addresses are what a name with IPv4 and IPv6 has; more would only lengthen the wait.
    for address in addresses.into_iter().take(2) {
        let endpoint = dial::client_endpoint(dial::bind_for(address))
            .map_err(|e| Outcome::Local(format!("cannot open a UDP socket: {e}")))?;
        match dial::dial(&endpoint, address, &relay.host, &trust, DIAL).await {
            Ok(dialed) => return Ok(Connected { endpoint, dialed }),
            Err(DialError::WrongPin { .. }) => {
                return Err(Outcome::BadLink(format!(
                    "the relay at {relay} has another key than the link's pin names: the link was changed, or somebody \
                     stands between — ask the host for the link again"
                )));
            }
            Err(error) => last = unreachable(error.to_string()),
        }
    }
    Err(last)
}

fn trust(relay: &RelayAddress) -> Trust {
    match relay.pin {
        Some(pin) => Trust::Pin(Pin::from_bytes(pin)),
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            Trust::WebPki(roots.into())
        }
    }
}
