//! A connection as other threads see it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use conclave_relay::driver::inbox::Outbox;
use tokio::sync::{mpsc, oneshot};

use super::driver::Command;
use crate::room::SharedListener;

/// Whether a member reads what comes. Once closed it stays so.
#[derive(Debug, Default)]
pub(crate) struct Valve(AtomicBool);

impl Valve {
    /// From now on nothing is read: what arrives is dropped before QUIC sees it, as in a full buffer of the kernel.
    pub(crate) fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is read any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is wanted.
pub(crate) struct Dial {
    /// The address it comes from; `None` for any.
    pub(crate) from: Option<IpAddr>,
    /// Who hears the frames.
    pub(crate) listener: SharedListener,
    pub(crate) valve: Arc<Valve>,
    /// Who hears control messages, but for seals. Ends with the control stream.
    pub(crate) control: mpsc::UnboundedSender<Vec<u8>>,
    /// Who is told that it is there, or in words why not.
    pub(crate) done: oneshot::Sender<Result<Dialed, String>>,
}

/// A connection that is there.
pub(crate) struct Dialed {
    pub(crate) connection: Connection,
    /// What only its two ends know.
    pub(crate) exporter: [u8; 32],
}

/// A connection; clones are the same one.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Its number on its shard.
    number: u64,
    outbox: Outbox<Command>,
    seen: Arc<Seen>,
}

/// What its shard has seen of a connection. Only the shard counts.
#[derive(Default)]
pub(super) struct Seen {
    packets: AtomicU64,
    frames: AtomicU64,
    /// Why it is gone.
    gone: OnceLock<String>,
}

impl Seen {
    pub(super) fn packet(&self) {
        one_more(&self.packets);
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    pub(super) fn frame(&self) {
        one_more(&self.frames);
    }

    pub(super) fn gone(&self, why: String) {
        // The first reason is the one that counts.
        let _first = self.gone.set(why);
    }
}

/// Counts where nobody else does.
fn one_more(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Connection {
    pub(super) fn new(number: u64, outbox: Outbox<Command>, seen: Arc<Seen>) -> Self {
        Self { number, outbox, seen }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Sends a datagram; `false` when the connection is gone.
    pub(crate) fn send_datagram(&self, datagram: Bytes) -> bool {
        let is_there = self.reason().is_none();
        if is_there {
            self.outbox.tell(Command::Datagram(self.number, datagram));
        }
        is_there
    }

    /// Sends a control message. What was sent to a connection that is gone is lost; reading tells of that.
    pub(crate) fn send_control(&self, message: Bytes) {
        self.outbox.tell(Command::Control(self.number, message));
    }

    /// Closes once all is written and acknowledged, of which `done` hears.
    pub(crate) fn finish(&self, done: oneshot::Sender<()>) {
        self.outbox.tell(Command::Finish(self.number, done));
    }

    /// Closes at once.
    pub(crate) fn close(&self) {
        self.seen.gone("closed here".to_owned());
        self.outbox.tell(Command::Close(self.number));
    }

    /// Why it is gone, in words; `None` while it is not.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.seen.gone.get().map(String::as_str)
    }

    /// UDP packets that came so far, of any content.
    pub(crate) fn packets(&self) -> u64 {
        self.seen.packets()
    }

    /// Datagrams that came so far.
    pub(crate) fn frames(&self) -> u64 {
        self.seen.frames.load(Ordering::Relaxed)
    }
}
