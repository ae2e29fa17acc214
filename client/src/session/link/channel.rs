//! One connection to a relay in use: its datagrams, its control stream, and what waits to be written to that.
//!
//! Reading and writing the control stream are tasks of their own, so a slow stream holds up no frame.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use conclave_relay::dial::{self, ClientEndpoint};
use conclave_relay::framing::{MessageReader, MessageWriter};
use conclave_relay::media::tap::{Beside, Datagrams};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dial::Connected;

/// Control bytes that may wait for the relay: far above an epoch of 1,000 members, far below what hurts.
const MAX_UNSENT: usize = 32 * 1024 * 1024;
/// Messages in the hands of the reading and writing tasks.
const IN_HAND: usize = 64;
/// The stream ends a moment before the connection tells why.
const REASON: Duration = Duration::from_millis(200);

/// Why a connection is given up whose relay does not read.
const TAKES_NOTHING: &str = "the relay takes no messages any more";

/// Why one is given up whose relay has no more to say.
const NO_STREAM: &str = "the relay closed its control stream";

/// What came of waiting.
pub(super) enum Carried {
    /// A control message.
    Control(Vec<u8>),
    /// A datagram.
    Datagram(Bytes),
    /// The connection is of no further use, and why.
    Ended(String),
}

/// A connection and its tasks.
pub(super) struct Channel {
    relay: usize,
    endpoint: ClientEndpoint,
    connection: quinn::Connection,
    datagrams: Datagrams,
    incoming: mpsc::Receiver<Vec<u8>>,
    outgoing: mpsc::Sender<Bytes>,
    writer: JoinHandle<()>,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    has_answered: bool,
    /// The connection has ended, and why.
    over: Option<String>,
}

impl Channel {
    /// Starts the tasks of a new connection.
    pub(super) fn new(connected: Connected) -> Self {
        let Connected { relay, endpoint, dialed } = connected;
        let (sender, incoming) = mpsc::channel(IN_HAND);
        tokio::spawn(read_control(dialed.reader, dialed.connection.clone(), sender));
        let (outgoing, receiver) = mpsc::channel(IN_HAND);
        let writer = tokio::spawn(write_control(dialed.writer, receiver));
        Self {
            relay,
            endpoint,
            connection: dialed.connection,
            datagrams: dialed.datagrams,
            incoming,
            outgoing,
            writer,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            has_answered: false,
            over: None,
        }
    }

    /// Which of the link's relays.
    pub(super) fn relay(&self) -> usize {
        self.relay
    }

    /// Whether a control message has come.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Whether no control message waits to be written: a relay or a path that takes nothing holds all of them up.
    pub(super) fn is_clear(&self) -> bool {
        self.unsent.is_empty() && self.outgoing.capacity() == self.outgoing.max_capacity()
    }

    /// UDP datagrams received so far, of any content.
    pub(super) fn received(&self) -> u64 {
        self.datagrams.packets()
    }

    /// Waits for something to arrive, and writes meanwhile. Cancel-safe.
    pub(super) async fn next(&mut self) -> Carried {
        loop {
            let has_unsent = !self.unsent.is_empty();
            tokio::select! {
                // Media first: a late frame is lost, a late message is not.
                biased;
                beside = self.datagrams.next(), if self.over.is_none() => match beside {
                    Ok(Beside::Datagram(datagram)) => return Carried::Datagram(datagram),
                    Ok(Beside::Message(message)) => return Carried::Control(message.into()),
                    // What the relay said before it closed the connection still counts: it may be the reason.
                    // Nobody else here closes a connection that is still read.
                    Err(quinn::ConnectionError::LocallyClosed) => self.over = Some(TAKES_NOTHING.to_owned()),
                    Err(error) => self.over = Some(dial::reason(&error)),
                },
                message = self.incoming.recv() => return match message {
                    Some(message) => {
                        self.has_answered = true;
                        Carried::Control(message)
                    }
                    None => Carried::Ended(self.over.take().unwrap_or_else(|| self.reason(NO_STREAM))),
                },
                is_taken = has_room(&self.outgoing), if has_unsent && self.over.is_none() => {
                    if !is_taken {
                        return Carried::Ended(self.reason(TAKES_NOTHING));
                    }
                    self.write();
                }
            }
        }
    }

    /// What is here already beside the control stream.
    pub(super) async fn ready(&mut self) -> Option<Beside> {
        tokio::select! {
            biased;
            // A lost connection is told by [`Channel::next`].
            beside = self.datagrams.next() => beside.ok(),
            () = std::future::ready(()) => None,
        }
    }

    /// Sends a control message, in its turn. A relay that takes none for so long that too much waits is given up.
    pub(super) fn send_control(&mut self, message: Bytes) {
        self.unsent_bytes += message.len();
        self.unsent.push_back(message);
        self.write();
        if self.unsent_bytes > MAX_UNSENT {
            self.connection.close(0u32.into(), b"");
        }
    }

    /// Sends a datagram; `false` when the connection is gone, which [`Channel::next`] tells.
    pub(super) fn send_datagram(&self, datagram: Bytes) -> bool {
        self.datagrams.send(datagram)
    }

    /// Closes the connection once everything is written and acknowledged, or after this time.
    pub(super) async fn close(self, patience: Duration) {
        let Self { endpoint, connection, outgoing, mut writer, unsent, incoming: _incoming, .. } = self;
        let flush = async move {
            for message in unsent {
                if outgoing.send(message).await.is_err() {
                    break;
                }
            }
            drop(outgoing);
            // Ends once everything is acknowledged, or the stream is gone.
            let _ = (&mut writer).await;
        };
        // Whatever could not be said by now is not said.
        let _ = timeout(patience, flush).await;
        connection.close(0u32.into(), b"");
        let _ = timeout(patience, endpoint.wait_idle()).await;
    }

    /// Closes the connection at once.
    pub(super) fn hang_up(self) {
        self.connection.close(0u32.into(), b"");
    }

    fn write(&mut self) {
        while let Ok(permit) = self.outgoing.try_reserve() {
            let Some(message) = self.unsent.pop_front() else { return };
            self.unsent_bytes -= message.len();
            permit.send(message);
        }
    }

    fn reason(&self, otherwise: &str) -> String {
        self.connection.close_reason().map_or_else(|| otherwise.to_owned(), |error| dial::reason(&error))
    }
}

/// Waits for room; `false` when there will be none.
async fn has_room(outgoing: &mpsc::Sender<Bytes>) -> bool {
    outgoing.reserve().await.is_ok()
}

async fn read_control(mut reader: MessageReader, connection: quinn::Connection, messages: mpsc::Sender<Vec<u8>>) {
    while let Ok(Some(message)) = reader.next().await {
        if messages.send(message.to_vec()).await.is_err() {
            return;
        }
    }
    // The end of the messages is told with the reason, if there is one.
    let _ = timeout(REASON, connection.closed()).await;
}

async fn write_control(mut writer: MessageWriter, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if writer.send(message).await.is_err() {
            return;
        }
    }
    writer.finish().await;
}
