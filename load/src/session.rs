//! One connection of a member, and its control stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::room::{SharedListener, Stage};
use crate::shard::{Connection, Dial, Shard, Valve};
use crate::sync::lock;

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was said last may take to arrive.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection to the relay. All reading and writing is done on the shard: the protocol's threads may be busy for longer
/// than a relay waits for a client that does not read.
pub(crate) struct Channel {
    pub(crate) connection: Connection,
    pub(crate) exporter: [u8; 32],
    /// Control messages, but for seals.
    pub(crate) incoming: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Channel {
    /// Dials, and begins to read.
    ///
    /// # Errors
    /// Why there is no connection, in words.
    pub(crate) async fn open(
        stage: &Stage,
        shard: &Shard,
        client: u32,
        valve: &Arc<Valve>,
        listener: SharedListener,
    ) -> Result<Self, String> {
        let (control, incoming) = mpsc::unbounded_channel();
        let (done, dialed) = oneshot::channel();
        let from = stage.relay.home_of(client, stage.plan.shape.sharing());
        shard.dial(Dial { from, listener, valve: Arc::clone(valve), control, done });
        let dialed = timeout(PATIENCE, dialed).await.map_err(|_| "the relay does not answer")?;
        let dialed = dialed.map_err(|_| "its shard has ended")??;
        if !valve.is_closed() {
            lock(&stage.connections).push(dialed.connection.clone());
        }
        Ok(Self { connection: dialed.connection, exporter: dialed.exporter, incoming })
    }

    /// Sends a control message.
    pub(crate) fn send_control(&self, message: Bytes) {
        self.connection.send_control(message);
    }

    /// Why it is gone, in words.
    pub(crate) fn reason(&self) -> String {
        self.connection.reason().unwrap_or("the control stream ended").to_owned()
    }

    /// UDP packets that came so far, of any content.
    pub(crate) fn received(&self) -> u64 {
        self.connection.packets()
    }

    /// Closes once all is written and acknowledged, or after a second.
    pub(crate) async fn close(self) {
        let (done, finished) = oneshot::channel();
        self.connection.finish(done);
        // What could not be said by then is not said.
        let _finished = timeout(FAREWELL, finished).await;
        self.connection.close();
    }

    /// Closes at once.
    pub(crate) fn hang_up(self) {
        self.connection.close();
    }
}
