//! Finding a relay of the link that answers: attempts that overlap, of which the first that succeeds wins.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use conclave_protocol::link::RelayAddress;
use conclave_relay::dial::{self, ClientEndpoint, DialError, Dialed};
use conclave_relay::tls::{Pin, Trust};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::pace::{Pace, Turn};
use super::wait_until;
use crate::exit::Outcome;
use crate::session::chance;

/// How long one attempt may take, and all of a first connection. With this an unreachable relay is told within five
/// seconds.
const DIAL: Duration = Duration::from_millis(4_500);
/// How long a name may take to resolve that has an address from before.
const RESOLVE: Duration = Duration::from_secs(1);
/// Attempts at one relay at a time. At the steady pace the oldest has had about 4 s when it makes room, which is
/// enough for two lost packets in a row.
const IN_FLIGHT: usize = 6;
/// Two addresses are what a name with IPv4 and IPv6 has; more would only lengthen the wait.
const ADDRESSES: usize = 2;

/// A connection to one of a link's relays, with the endpoint that carries it.
pub(super) struct Connected {
    /// Which of the link's relays.
    pub(super) relay: usize,
    /// Must live as long as the connection.
    pub(super) endpoint: ClientEndpoint,
    /// The connection and its control stream.
    pub(super) dialed: Dialed,
}

/// The attempts to reach a relay of one link.
pub(super) struct Dialling {
    relays: Vec<RelayAddress>,
    pace: Pace,
    effort: Effort,
    attempts: JoinSet<Attempted>,
    in_flight: Vec<VecDeque<AbortHandle>>,
    /// What each name resolved to the last time: name servers may be cut off when relays are.
    known: Vec<Vec<SocketAddr>>,
    failures: Failures,
}

/// How long a relay is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Not at all, now.
    Idle,
    /// Until it says no, or cannot exist: somebody waits to be told.
    Once,
    /// Whatever it says: it may be restarting, and whoever says no may not be it.
    Again,
}

/// What came of one attempt.
struct Attempted {
    turn: Turn,
    /// What the relay's name resolved to; empty when it did not.
    addresses: Vec<SocketAddr>,
    result: Result<Connected, Failure>,
}

/// Why one attempt failed.
enum Failure {
    /// Somebody answered with another key than the pinned one.
    WrongPin(String),
    /// The relay cannot be reached.
    Unreachable(String),
    /// This machine's own fault.
    Local(String),
}

/// What there is to say when everything failed.
#[derive(Default)]
struct Failures {
    wrong_pin: Option<String>,
    last: Option<Failure>,
}

impl Dialling {
    /// The attempts for these relays, none of them begun.
    pub(super) fn new(relays: Vec<RelayAddress>) -> Self {
        let count = relays.len();
        Self {
            relays,
            pace: Pace::new(count, Instant::now()),
            effort: Effort::Idle,
            attempts: JoinSet::new(),
            in_flight: vec![VecDeque::new(); count],
            known: vec![Vec::new(); count],
            failures: Failures::default(),
        }
    }

    /// How many relays the link has.
    pub(super) fn count(&self) -> usize {
        self.relays.len()
    }

    /// The relay of that number.
    pub(super) fn relay(&self, index: usize) -> Option<&RelayAddress> {
        self.relays.get(index)
    }

    /// Makes the first connection of a session.
    ///
    /// # Errors
    /// An [`Outcome`] with words for the user.
    pub(super) async fn first(&mut self) -> Result<Connected, Outcome> {
        self.begin(Effort::Once, None);
        let connected = timeout(DIAL, self.next()).await.ok().flatten();
        self.stop();
        connected.ok_or_else(|| self.first_failure())
    }

    /// Begins to look for a relay again, for as long as it takes; `last` after all others.
    pub(super) fn begin_again(&mut self, last: Option<usize>) {
        self.failures = Failures::default();
        self.begin(Effort::Again, last);
    }

    /// Tries these relays once, in their order.
    pub(super) fn look_at(&mut self, relays: Range<usize>) {
        self.begin(Effort::Once, None);
        let others = (0..self.relays.len()).filter(|relay| !relays.contains(relay));
        others.for_each(|relay| self.pace.exclude(relay));
    }

    fn begin(&mut self, effort: Effort, last: Option<usize>) {
        self.stop();
        self.effort = effort;
        self.pace.begin(Instant::now(), last);
    }

    /// Drops all attempts.
    pub(super) fn stop(&mut self) {
        self.effort = Effort::Idle;
        self.in_flight.iter_mut().for_each(VecDeque::clear);
        // Whoever has answered by now is hung up on by being dropped.
        self.attempts = JoinSet::new();
    }

    /// Whether attempts are being made.
    pub(super) fn is_active(&self) -> bool {
        self.effort != Effort::Idle
    }

    /// Makes attempts until one succeeds; `None` when none is left to be made. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Connected> {
        loop {
            while let Some(turn) = self.pace.take(Instant::now(), chance()) {
                self.attempt(turn);
            }
            let next = self.pace.next();
            if next.is_none() && self.attempts.is_empty() {
                return None;
            }
            tokio::select! {
                Some(attempted) = self.attempts.join_next() => {
                    // An error is an attempt that had to make room for a newer one.
                    if let Ok(attempted) = attempted
                        && let Some(connected) = self.on_attempted(attempted)
                    {
                        return Some(connected);
                    }
                }
                () = wait_until(next), if next.is_some() => {}
            }
        }
    }

    fn attempt(&mut self, turn: Turn) {
        let (Some(relay), Some(known), Some(in_flight)) =
            (self.relays.get(turn.relay), self.known.get(turn.relay), self.in_flight.get_mut(turn.relay))
        else {
            return;
        };
        in_flight.retain(|attempt| !attempt.is_finished());
        if in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.abort();
        }
        in_flight.push_back(self.attempts.spawn(attempt(turn, relay.clone(), known.clone())));
    }

    fn on_attempted(&mut self, attempted: Attempted) -> Option<Connected> {
        let Attempted { turn, addresses, result } = attempted;
        let is_last_address = turn.nth as usize + 1 >= addresses.len().min(ADDRESSES);
        if let Some(known) = self.known.get_mut(turn.relay).filter(|_| !addresses.is_empty()) {
            *known = addresses;
        }
        match result {
            Ok(connected) => Some(connected),
            Err(failure) => {
                self.failures.note(failure);
                self.on_failed(turn.relay, is_last_address);
                None
            }
        }
    }

    fn on_failed(&mut self, relay: usize, is_last_address: bool) {
        let now = Instant::now();
        match (self.effort, is_last_address) {
            (Effort::Once, false) => self.pace.again(now, relay),
            (Effort::Once, true) => self.pace.exclude(relay),
            _ => {}
        }
        self.pace.hurry(now);
    }

    fn first_failure(&mut self) -> Outcome {
        if self.relays.is_empty() {
            return Outcome::BadLink("the link names no relay".to_owned());
        }
        let Failures { wrong_pin, last } = std::mem::take(&mut self.failures);
        match (wrong_pin, last) {
            (Some(text), _) | (None, Some(Failure::WrongPin(text))) => {
                Outcome::BadLink(format!("{text} — ask the host for the link again"))
            }
            (None, Some(Failure::Local(text))) => Outcome::Local(text),
            (None, Some(Failure::Unreachable(text))) => Outcome::Relay(advise(&text)),
            (None, None) => Outcome::Relay(advise(&self.silence())),
        }
    }

    fn silence(&self) -> String {
        match self.relays.as_slice() {
            [relay] => unreachable_text(relay, "it does not answer"),
            relays => format!("none of the {} relays of the link answers", relays.len()),
        }
    }

    /// Why no relay could be found again, to be joined to what was said before.
    pub(super) fn failure(&self) -> String {
        match &self.failures {
            Failures { wrong_pin: Some(text), .. } => text.clone(),
            Failures { last: Some(Failure::Unreachable(text) | Failure::Local(text)), .. } => text.clone(),
            _ => self.silence(),
        }
    }
}

impl Failures {
    fn note(&mut self, failure: Failure) {
        if let Failure::WrongPin(text) = &failure {
            self.wrong_pin = Some(text.clone());
        }
        self.last = Some(failure);
    }
}

/// One attempt, on a socket of its own: the machine may have another address than a moment ago.
async fn attempt(turn: Turn, relay: RelayAddress, known: Vec<SocketAddr>) -> Attempted {
    let addresses = match resolve(&relay, known).await {
        Ok(addresses) => addresses,
        Err(why) => {
            let failure = Failure::Unreachable(unreachable_text(&relay, &why));
            return Attempted { turn, addresses: Vec::new(), result: Err(failure) };
        }
    };
    // One attempt takes one address, the next the other.
    let result = match addresses.iter().take(ADDRESSES).cycle().nth(turn.nth as usize) {
        Some(address) => connect(turn.relay, &relay, *address).await,
        None => Err(Failure::Unreachable(unreachable_text(&relay, "its name has no address"))),
    };
    Attempted { turn, addresses, result }
}

async fn resolve(relay: &RelayAddress, known: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, String> {
    let patience = if known.is_empty() { DIAL } else { RESOLVE };
    let lookup = tokio::net::lookup_host((relay.host.as_str(), relay.port));
    match timeout(patience, lookup).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        _ if !known.is_empty() => Ok(known),
        Ok(Err(error)) => Err(format!("its name does not resolve ({error})")),
        Err(_) => Err("its name does not resolve in time".to_owned()),
    }
}

async fn connect(index: usize, relay: &RelayAddress, address: SocketAddr) -> Result<Connected, Failure> {
    let endpoint = dial::client_endpoint(dial::bind_for(address))
        .map_err(|error| Failure::Local(format!("cannot open a UDP socket: {error}")))?;
    match dial::dial(&endpoint, address, &relay.host, &trust(relay), DIAL).await {
        Ok(dialed) => Ok(Connected { relay: index, endpoint, dialed }),
        Err(DialError::WrongPin { .. }) => Err(Failure::WrongPin(format!(
            "the relay at {relay} has another key than the link's pin names: the link was changed, or somebody stands \
             between"
        ))),
        Err(DialError::Untrusted(_)) if relay.pin.is_none() => Err(Failure::WrongPin(format!(
            "the relay at {relay} has a key of its own making and the link has no pin for it: the link may have been cut \
             off"
        ))),
        Err(error) => Err(Failure::Unreachable(unreachable_text(relay, &error.to_string()))),
    }
}

fn unreachable_text(relay: &RelayAddress, why: &str) -> String {
    format!("the relay at {relay} cannot be reached: {why}")
}

fn advise(text: &str) -> String {
    format!("{text} — check your network, or ask the host whether the relay runs")
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
