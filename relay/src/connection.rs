//! One client: its handshake, its first message, its control stream and its datagrams, from arrival to end.
//!
//! A task per connection reads and writes the control stream; a second one, aborted with the first, forwards its
//! datagrams, so that control traffic costs the hot path nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Incoming, VarInt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::core::{CloseCode, ConnId, Core, Peer, PrefixToken};
use crate::driver::Driver;
use crate::framing::{MessageReader, MessageWriter, ReadMessageError, WriteMessageError};
use crate::gate::{Address, Allowance, Bucket, Gate, Prefix, Refusal, Verdict};
use crate::link::{Link, Next};
use crate::server::Deadlines;
use crate::stats::Stats;
use crate::transport;

/// Control messages read from one client in the long run and at once: what the core allows a leader, who sends two
/// session records to each member of a large meeting with every epoch. What others may send the core knows. A client that
/// sends more isn't punished, it is read more slowly, and QUIC's flow control holds it back.
const CONTROL_RATE: Allowance = Allowance { per_second: 4_000, burst: 8_000 };

/// Pause before a client that sends too much is read again: the shortest that a timer keeps.
const CONTROL_PAUSE: Duration = Duration::from_millis(1);

/// What all connections of a server share.
pub(crate) struct Context<C> {
    pub(crate) driver: Driver<C>,
    pub(crate) gate: Arc<Mutex<Gate>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) deadlines: Deadlines,
}

impl<C: Core> Context<C> {
    /// Judges a connection attempt. Whoever may go on comes back with a claim on a place.
    pub(crate) fn judge(&self, incoming: Incoming) -> Option<(Incoming, HalfOpen)> {
        let prefix = Prefix::from(incoming.remote_address().ip());
        let address = if incoming.remote_address_validated() { Address::Proved } else { Address::Claimed };
        let verdict = lock(&self.gate).attempt(Instant::now().into_std(), prefix, address);
        match verdict {
            Verdict::Accept => return Some((incoming, HalfOpen(Arc::clone(&self.gate)))),
            Verdict::Retry => {
                self.stats.retries.increment();
                // Only validated attempts can't be retried, and those never get this verdict.
                let _sent = incoming.retry();
            }
            Verdict::Refuse(reason) => {
                self.count_refusal(reason);
                incoming.refuse();
            }
        }
        None
    }

    /// Serves a client until it goes, is closed, or the server stops.
    pub(crate) async fn serve(
        self: Arc<Self>,
        incoming: Incoming,
        half_open: HalfOpen,
        mut stop: watch::Receiver<bool>,
    ) {
        let arrival = tokio::select! {
            arrival = self.receive(incoming) => arrival,
            _ = stop.changed() => None,
        };
        drop(half_open);
        if let Some(arrival) = arrival {
            self.attend(arrival).await;
        }
    }

    /// From the first packet to the first message, each within its deadline.
    async fn receive(&self, incoming: Incoming) -> Option<Arrival> {
        let connection = self.shake_hands(incoming).await?;
        let (place, token) = match self.admit(&connection) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.count_refusal(reason);
                close(&connection, CloseCode::BUSY);
                return None;
            }
        };
        if connection.max_datagram_size().is_none() {
            self.stats.protocol_errors.increment();
            close(&connection, CloseCode::PROTOCOL);
            return None;
        }
        let Some(exporter) = transport::exporter(&connection) else {
            close(&connection, CloseCode::INTERNAL);
            return None;
        };
        let Ok(hello) = timeout(self.deadlines.hello, receive_hello(&connection)).await else {
            self.stats.hellos_late.increment();
            close(&connection, CloseCode::HELLO_TIMEOUT);
            return None;
        };
        match hello {
            Ok(hello) => Some(Arrival { connection, peer: Peer { exporter, prefix: token }, hello, place }),
            Err(code) => {
                self.end_stream(&connection, code);
                None
            }
        }
    }

    async fn shake_hands(&self, incoming: Incoming) -> Option<quinn::Connection> {
        let outcome = match incoming.accept() {
            Ok(connecting) => timeout(self.deadlines.handshake, connecting).await,
            Err(error) => Ok(Err(error)),
        };
        match outcome {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(_)) => self.stats.handshakes_failed.increment(),
            Err(_) => self.stats.handshakes_late.increment(),
        }
        None
    }

    fn admit(&self, connection: &quinn::Connection) -> Result<(Place, PrefixToken), Refusal> {
        let prefix = Prefix::from(connection.remote_address().ip());
        let token = lock(&self.gate).admit(Instant::now().into_std(), prefix)?;
        Ok((Place { gate: Arc::clone(&self.gate), prefix }, token))
    }

    /// From the first message to the end.
    async fn attend(self: Arc<Self>, arrival: Arrival) {
        let Arrival { connection, peer, hello, place } = arrival;
        let Hello { first, mut reader, writer } = hello;
        let link = Arc::new(Link::new(connection.clone(), Arc::clone(&self.stats)));
        let conn = self.driver.connect(&peer, Arc::clone(&link));
        self.stats.connections.increment();
        self.stats.connections_open.increment();
        tracing::debug!(conn = conn.0, "connected");

        self.on_control(conn, &first);
        let forwarding = Aborting(tokio::spawn(Arc::clone(&self).forward(conn, connection.clone(), Arc::clone(&link))));
        let code = tokio::select! {
            code = self.read_control(conn, &mut reader) => code,
            code = self.write_control(&link, writer) => code,
        };
        self.end_stream(&connection, code);
        drop(forwarding);

        self.driver.disconnect(conn);
        link.count_unread();
        // First the place, then the count: whoever sees the count fall may take the place.
        drop(place);
        self.stats.connections_open.decrement();
        tracing::debug!(conn = conn.0, "disconnected");
    }

    async fn read_control(&self, conn: ConnId, reader: &mut MessageReader) -> CloseCode {
        let start = Instant::now();
        let mut allowance = Bucket::default();
        loop {
            match reader.next().await {
                Ok(Some(message)) => self.on_control(conn, message),
                Ok(None) => return CloseCode::DONE,
                Err(error) => return blame(&error),
            }
            while !allowance.take(start.elapsed(), CONTROL_RATE) {
                sleep(CONTROL_PAUSE).await;
            }
        }
    }

    async fn write_control(&self, link: &Link, mut writer: MessageWriter) -> CloseCode {
        loop {
            match link.next().await {
                Next::Send(message) => {
                    let length = message.len();
                    match writer.send(message).await {
                        Ok(()) => {
                            self.stats.control_out.increment();
                            self.stats.control_bytes_out.add(length as u64);
                        }
                        Err(WriteMessageError::Stream(_)) => return CloseCode::DONE,
                        Err(error @ WriteMessageError::TooLong(_)) => {
                            tracing::error!(%error, "the core made a message that cannot be sent");
                            return CloseCode::INTERNAL;
                        }
                    }
                }
                Next::Close(code) => {
                    // Closing discards what QUIC hasn't delivered yet, so wait for it; but not for the dead.
                    let _in_time = timeout(self.deadlines.linger, writer.finish()).await;
                    return code;
                }
            }
        }
    }

    /// The hot path: reads datagrams until the connection ends.
    async fn forward(self: Arc<Self>, conn: ConnId, connection: quinn::Connection, link: Arc<Link>) {
        while let Ok(datagram) = connection.read_datagram().await {
            link.on_datagram_read(datagram.len());
            if !link.is_closing() {
                self.driver.datagram(conn, &datagram);
            }
        }
    }

    fn on_control(&self, conn: ConnId, message: &[u8]) {
        self.stats.control_in.increment();
        self.stats.control_bytes_in.add(message.len() as u64);
        self.driver.control(conn, message);
    }

    fn end_stream(&self, connection: &quinn::Connection, code: CloseCode) {
        if code == CloseCode::PROTOCOL {
            self.stats.protocol_errors.increment();
        }
        close(connection, code);
    }

    fn count_refusal(&self, reason: Refusal) {
        match reason {
            Refusal::Full => self.stats.refused_full.increment(),
            Refusal::PrefixCount => self.stats.refused_prefix_count.increment(),
            Refusal::PrefixRate => self.stats.refused_prefix_rate.increment(),
        }
    }
}

/// A client that has sent its first message.
struct Arrival {
    connection: quinn::Connection,
    peer: Peer,
    hello: Hello,
    place: Place,
}

/// The control stream, with the first message taken off it.
struct Hello {
    first: Bytes,
    reader: MessageReader,
    writer: MessageWriter,
}

async fn receive_hello(connection: &quinn::Connection) -> Result<Hello, CloseCode> {
    let (send, receive) = connection.accept_bi().await.map_err(|_| CloseCode::DONE)?;
    let mut reader = MessageReader::new(receive);
    let first = match reader.next().await {
        Ok(Some(message)) => Bytes::copy_from_slice(message),
        Ok(None) => return Err(CloseCode::DONE),
        Err(error) => return Err(blame(&error)),
    };
    Ok(Hello { first, reader, writer: MessageWriter::new(send) })
}

fn blame(error: &ReadMessageError) -> CloseCode {
    match error {
        ReadMessageError::TooLong(_) | ReadMessageError::Truncated => CloseCode::PROTOCOL,
        ReadMessageError::Stream(_) => CloseCode::DONE,
    }
}

fn close(connection: &quinn::Connection, code: CloseCode) {
    // Without effect on a connection that is closed already.
    connection.close(VarInt::from_u32(code.0), b"");
}

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among those that haven't sent their first message.
pub(crate) struct HalfOpen(Arc<Mutex<Gate>>);

impl Drop for HalfOpen {
    fn drop(&mut self) {
        lock(&self.0).handshake_over();
    }
}

/// A place among the connections of a network.
struct Place {
    gate: Arc<Mutex<Gate>>,
    prefix: Prefix,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.gate).release(self.prefix);
    }
}

/// A task that ends with its owner.
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
