//! A relay with a core made for tests, and clients that talk to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::wire::urgency::Urgency;
use conclave_relay::core::{CloseCode, ConnId, Core, Output, Peer};
use conclave_relay::dial::{ClientEndpoint, DialError, Dialed, client_endpoint, dial};
use conclave_relay::embedded::{EmbeddedRelay, spawn_thread};
use conclave_relay::gate::Limits;
use conclave_relay::server::{Deadlines, ServerConfig};
use conclave_relay::tls::{Identity, SelfSigned, Trust, client_config};
use quinn::ConnectionError;

/// How long a test waits for what must come; long enough for a machine under load.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a [`Room`] was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected(ConnId),
    Control(String),
    Disconnected(ConnId),
}

/// What a [`Room`] was told, seen from outside.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().filter(|event| which(event)).count()
    }

    fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A core in which everybody hears everybody. It obeys a few words and sends back all else.
#[derive(Default)]
pub struct Room {
    told: Told,
    members: Vec<(ConnId, [u8; 32])>,
    due: Option<(Instant, ConnId)>,
}

impl Room {
    /// The code with which "close" closes.
    pub const CLOSED: CloseCode = CloseCode(CloseCode::FIRST_OF_CORE);
}

impl Core for Room {
    fn connected(&mut self, _now: Instant, conn: ConnId, peer: &Peer, _out: &mut Vec<Output>) {
        self.told.push(Event::Connected(conn));
        self.members.push((conn, peer.exporter));
    }

    fn control(&mut self, now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>) {
        let text = String::from_utf8_lossy(message).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let mut say = |bytes: Bytes| out.push(Output::Control { to: conn, bytes });
        match words.as_slice() {
            ["exporter"] => {
                let exporter = self.members.iter().find(|(member, _)| *member == conn).unwrap().1;
                say(Bytes::copy_from_slice(&exporter));
            }
            ["flood", count, size] => {
                for _ in 0..count.parse::<usize>().unwrap() {
                    say(Bytes::from(vec![0; size.parse().unwrap()]));
                }
            }
            ["burst", count] => {
                for n in 0..count.parse::<u64>().unwrap() {
                    let mut frame = vec![0; 160];
                    frame.push((n % 251) as u8);
                    out.push(Output::Datagram { to: conn, bytes: frame.into() });
                }
                out.push(Output::Control { to: conn, bytes: Bytes::from_static(b"sent") });
            }
            ["close"] => {
                say(Bytes::from_static(b"bye"));
                out.push(Output::Close { conn, code: Self::CLOSED });
            }
            ["timer"] => self.due = Some((now + Duration::from_millis(20), conn)),
            ["panic"] => panic!("asked to"),
            _ => say(Bytes::copy_from_slice(message)),
        }
        self.told.push(Event::Control(text));
    }

    fn datagram(&mut self, _now: Instant, conn: ConnId, _datagram: &[u8], to: &mut Vec<ConnId>) {
        to.extend(self.members.iter().map(|(member, _)| *member).filter(|member| *member != conn));
    }

    fn urgency(message: &[u8]) -> Urgency {
        if message.starts_with(b"along") { Urgency::SoonInAnyOrder } else { Urgency::Now }
    }

    fn disconnected(&mut self, _now: Instant, conn: ConnId, _out: &mut Vec<Output>) {
        self.told.push(Event::Disconnected(conn));
        self.members.retain(|(member, _)| *member != conn);
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let Some((_, to)) = self.due.take_if(|(due, _)| *due <= now) {
            out.push(Output::Control { to, bytes: Bytes::from_static(b"tick") });
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.due.map(|(due, _)| due)
    }

    fn shutdown(&mut self, _now: Instant, out: &mut Vec<Output>) {
        let farewell = Bytes::from_static(b"farewell");
        out.extend(self.members.iter().map(|(to, _)| Output::Control { to: *to, bytes: farewell.clone() }));
    }
}

/// A relay on a thread of its own, and one client socket.
pub struct Relay {
    pub embedded: EmbeddedRelay,
    pub told: Told,
    endpoint: ClientEndpoint,
}

impl Relay {
    pub fn config() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: Identity::SelfSigned(SelfSigned::Memory),
            limits: Limits::default(),
            deadlines: Deadlines { handshake: PATIENCE, hello: PATIENCE, ..Deadlines::default() },
            forwarding: Default::default(),
        }
    }

    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = Self::config();
        change(&mut config);
        let room = Room::default();
        let told = room.told.clone();
        let embedded = spawn_thread(config, room).unwrap();
        let endpoint = client_endpoint(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self { embedded, told, endpoint }
    }

    pub fn endpoint(&self) -> &ClientEndpoint {
        &self.endpoint
    }

    pub fn trust(&self) -> Trust {
        Trust::Pin(self.embedded.pin().unwrap())
    }

    pub async fn try_dial(&self, trust: &Trust, name: &str) -> Result<Dialed, DialError> {
        dial(&self.endpoint, self.embedded.local_addr(), name, trust, PATIENCE).await
    }

    pub async fn dial(&self) -> Client {
        Client { dialed: self.try_dial(&self.trust(), "relay.test").await.unwrap() }
    }

    /// The code with which the relay closes the connection of one whom it turns away: while it still dials, or after.
    pub async fn turned_away(&self) -> CloseCode {
        match self.try_dial(&self.trust(), "relay.test").await {
            Ok(dialed) => close_code(&dialed.connection).await,
            Err(DialError::Connection(error)) => code(&error),
            Err(other) => panic!("not closed by the relay: {other}"),
        }
    }

    /// A connection whose control stream is in the test's hands, byte by byte.
    pub async fn raw(&self) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream) {
        let tls = client_config(&self.trust()).unwrap();
        let connecting = self.endpoint.connect_with(tls.quic, self.embedded.local_addr(), "relay.test").unwrap();
        let connection = connecting.await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        (connection, send, receive)
    }
}

/// A connected client.
pub struct Client {
    pub dialed: Dialed,
}

impl Client {
    pub async fn say(&mut self, text: &str) {
        self.dialed.writer.send(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
    }

    pub async fn hear(&mut self) -> Vec<u8> {
        let next = tokio::time::timeout(PATIENCE, self.dialed.reader.next()).await.unwrap();
        next.unwrap().unwrap().to_vec()
    }

    pub async fn echo(&mut self, text: &str) {
        self.say(text).await;
        assert_eq!(self.hear().await, text.as_bytes());
    }

    pub async fn datagram(&self) -> Bytes {
        tokio::time::timeout(PATIENCE, self.dialed.connection.read_datagram()).await.unwrap().unwrap()
    }
}

/// The code with which the relay closes a connection.
pub async fn close_code(connection: &quinn::Connection) -> CloseCode {
    code(&tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap())
}

fn code(error: &ConnectionError) -> CloseCode {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode(u32::try_from(close.error_code.into_inner()).unwrap()),
        other => panic!("not closed by the relay: {other}"),
    }
}

/// Waits until something holds that must hold soon.
pub async fn patiently(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
