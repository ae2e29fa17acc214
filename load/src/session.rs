//! One connection of a member: its control stream, and the reading of its datagrams on a shard.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use conclave_relay::dial::{self, Dialed};
use conclave_relay::framing::{MessageReader, MessageWriter};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::meter::Meter;
use crate::room::{SharedListener, Stage, count};
use crate::shard::Shard;
use crate::socket::{self, Valve};
use crate::sync::{RunClock, lock};

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was said last may take to arrive.
const FAREWELL: Duration = Duration::from_secs(1);
/// Type byte of a seal that comes from the relay (`docs/protocol.md` §6.2).
const SEALED: u8 = 14;

/// Who hears what comes.
pub(crate) struct Hearing {
    pub(crate) listener: SharedListener,
    pub(crate) meter: Arc<Mutex<Meter>>,
}

/// A connection to the relay.
pub(crate) struct Channel {
    pub(crate) connection: quinn::Connection,
    pub(crate) exporter: [u8; 32],
    /// Control messages, but for seals.
    pub(crate) incoming: mpsc::UnboundedReceiver<Vec<u8>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    writer: JoinHandle<()>,
    reading: AbortHandle,
}

impl Channel {
    /// Dials, and begins to read. All reading and writing is done on the shard: the protocol's threads may be busy for
    /// longer than a relay waits for a client that does not read.
    ///
    /// # Errors
    /// Why there is no connection, in words.
    pub(crate) async fn open(
        stage: &Arc<Stage>,
        shard: &Shard,
        bind: SocketAddr,
        valve: &Arc<Valve>,
        hearing: Hearing,
    ) -> Result<Self, String> {
        let endpoint = socket::open(bind, &shard.handle, Arc::clone(valve)).map_err(|error| error.to_string())?;
        let relay = &stage.relay;
        let dialed = dial::dial(&endpoint, relay.socket, &relay.name, &relay.trust, PATIENCE).await;
        let Dialed { connection, writer, reader, exporter } = dialed.map_err(|error| error.to_string())?;
        let (sender, incoming) = mpsc::unbounded_channel();
        let reading = shard.handle.spawn(read_control(reader, sender, Arc::clone(stage))).abort_handle();
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let writer = shard.handle.spawn(write_control(writer, receiver));
        shard.handle.spawn(read_datagrams(connection.clone(), hearing, stage.clock));
        if !valve.is_closed() {
            lock(&stage.connections).push(connection.clone());
        }
        Ok(Self { connection, exporter, incoming, outgoing, writer, reading })
    }

    /// Sends a control message.
    pub(crate) fn send_control(&self, message: Bytes) {
        // Fails only when the connection is gone, which reading tells.
        let _sent = self.outgoing.send(message);
    }

    /// Why it is gone, in words.
    pub(crate) fn reason(&self) -> String {
        self.connection.close_reason().map_or_else(|| "the control stream ended".to_owned(), |error| error.to_string())
    }

    /// UDP packets that came so far, of any content.
    pub(crate) fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Closes once all is written and acknowledged, or after a second.
    pub(crate) async fn close(self) {
        let Self { connection, outgoing, writer, reading, .. } = self;
        drop(outgoing);
        // What could not be said by then is not said.
        let _written = timeout(FAREWELL, writer).await;
        reading.abort();
        connection.close(0u32.into(), b"");
    }

    /// Closes at once.
    pub(crate) fn hang_up(self) {
        self.reading.abort();
        self.writer.abort();
        self.connection.close(0u32.into(), b"");
    }
}

async fn read_control(mut reader: MessageReader, sender: mpsc::UnboundedSender<Vec<u8>>, stage: Arc<Stage>) {
    while let Ok(Some(message)) = reader.next().await {
        if message.first() == Some(&SEALED) {
            // To check a thousand listeners' seals would take more cores than the relay.
            count(&stage.tally.seals);
            continue;
        }
        count(&stage.tally.control);
        if sender.send(message.to_vec()).is_err() {
            return;
        }
    }
}

async fn write_control(mut writer: MessageWriter, mut messages: mpsc::UnboundedReceiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if writer.send(message).await.is_err() {
            return;
        }
    }
    writer.finish().await;
}

/// Reads until the connection is gone. What is here together came together, by one look at the clock.
async fn read_datagrams(connection: quinn::Connection, hearing: Hearing, clock: RunClock) {
    let mut batch = Vec::new();
    while let Ok(first) = connection.read_datagram().await {
        let now = clock.now();
        batch.push(first);
        while let Some(next) = ready_datagram(&connection).await {
            batch.push(next);
        }
        let (mut listener, mut meter) = (lock(&hearing.listener), lock(&hearing.meter));
        for datagram in batch.drain(..) {
            listener.hear(now, &datagram, &mut meter);
        }
    }
}

async fn ready_datagram(connection: &quinn::Connection) -> Option<Bytes> {
    tokio::select! {
        biased;
        datagram = connection.read_datagram() => datagram.ok(),
        () = std::future::ready(()) => None,
    }
}
