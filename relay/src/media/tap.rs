//! Media packets on the socket of a `quinn` endpoint: those that come are taken out before QUIC looks.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionError, UdpPoller};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::{ClientPath, Item, MAX_PACKET, Quiet, Secrets, destination, is_media};

/// Frames that wait to be read: two rounds of 64 talkers. Beyond that the newest are dropped; who reads so late has the
/// oldest behind it anyway.
const UNREAD: usize = 128;
/// Control messages that wait to be read: those of half a minute of a large meeting.
const UNREAD_MESSAGES: usize = 1_024;

/// What comes beside the control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Beside {
    /// A datagram (`docs/protocol.md` §6.3).
    Datagram(Bytes),
    /// A control message (§6.2).
    Message(Bytes),
}

/// A socket that sorts what comes.
pub struct Tap {
    socket: Arc<dyn AsyncUdpSocket>,
    paths: Mutex<Vec<(u64, Weak<Shared>)>>,
}

/// One connection's media packets, as its socket and its owner see them.
struct Shared {
    path: Mutex<ClientPath>,
    frames: mpsc::Sender<Bytes>,
    messages: mpsc::Sender<Bytes>,
    received: AtomicU64,
}

impl Tap {
    /// Sorts what comes from that socket.
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, paths: Mutex::default() }
    }

    /// Takes the media packets out of what one receive call gave, which may be several packets of one length.
    fn sift(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (stride, length) = (meta.stride.max(1), meta.len.min(buffer.len()));
        let (mut at, mut kept) = (0, 0);
        while at < length {
            let end = (at + stride).min(length);
            if is_media(&buffer[at..end]) {
                self.take(&mut buffer[at..end]);
            } else {
                buffer.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        meta.len = kept;
    }

    fn take(&self, packet: &mut [u8]) {
        let Some(id) = destination(packet) else { return };
        let shared = lock(&self.paths).iter().find(|(path, _)| *path == id).and_then(|(_, shared)| shared.upgrade());
        let Some(shared) = shared else { return };
        let mut path = lock(&shared.path);
        let Some(items) = path.open(Instant::now(), packet) else { return };
        shared.received.fetch_add(1, Ordering::Relaxed);
        for item in items {
            let (queue, bytes) = match item {
                Item::Datagram(bytes) => (&shared.frames, Bytes::copy_from_slice(bytes)),
                Item::Message(bytes) => (&shared.messages, Bytes::copy_from_slice(bytes)),
                Item::Part(part) => match path.join(part) {
                    Some(bytes) => (&shared.messages, bytes.into()),
                    None => continue,
                },
                // Of the relay's packets the relay is told, not this end.
                Item::Receipt(_) => continue,
            };
            // Whoever reads no more has no use for it.
            let _taken = queue.try_send(bytes);
        }
    }
}

impl AsyncUdpSocket for Tap {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(cx, buffers, metas))?;
        for (buffer, meta) in buffers.iter_mut().zip(metas).take(count) {
            self.sift(buffer, meta);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

/// The datagrams of a connection (`docs/protocol.md` §6.3), by media packets where they get through and in QUIC elsewhere.
///
/// Whoever never calls [`Datagrams::next`] has a connection as QUIC alone makes it, and notices late that it is dead.
pub struct Datagrams {
    connection: quinn::Connection,
    tap: Arc<Tap>,
    shared: Option<Arc<Shared>>,
    incoming: mpsc::Receiver<Bytes>,
    messages: mpsc::Receiver<Bytes>,
    buffer: Mutex<Vec<u8>>,
    quiet: Quiet,
}

impl Datagrams {
    /// Those of a connection over that socket.
    pub(crate) fn new(connection: quinn::Connection, tap: Arc<Tap>) -> Self {
        let (frames, incoming) = mpsc::channel(UNREAD);
        let (sender, messages) = mpsc::channel(UNREAD_MESSAGES);
        let now = Instant::now();
        let path = Secrets::of(&connection).and_then(|secrets| ClientPath::new(now, &secrets));
        let shared = path.map(|path| {
            let id = path.id();
            let (path, received) = (Mutex::new(path), AtomicU64::new(0));
            let shared = Arc::new(Shared { path, frames, messages: sender, received });
            lock(&tap.paths).push((id, Arc::downgrade(&shared)));
            shared
        });
        let buffer = Mutex::new(Vec::with_capacity(MAX_PACKET));
        Self { connection, tap, shared, incoming, messages, buffer, quiet: Quiet::new(now) }
    }

    /// The next datagram, or control message that did not come by the control stream. Cancel-safe.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> Result<Beside, ConnectionError> {
        loop {
            let ask_at = self.ask();
            let look_at = self.look();
            tokio::select! {
                biased;
                // The connection ends whatever waits here.
                Some(frame) = self.incoming.recv() => return Ok(Beside::Datagram(frame)),
                Some(message) = self.messages.recv() => return Ok(Beside::Message(message)),
                datagram = self.connection.read_datagram() => return datagram.map(Beside::Datagram),
                () = sleep_until(ask_at.map_or(look_at, |ask_at| ask_at.min(look_at)).into()) => {}
            }
        }
    }

    /// Sends a datagram, or drops it if the system takes none now; `false` when the connection is gone, or takes none so long.
    pub fn send(&self, datagram: Bytes) -> bool {
        let now = Instant::now();
        if let Some(shared) = &self.shared {
            let mut path = lock(&shared.path);
            let mut buffer = lock(&self.buffer);
            buffer.clear();
            if path.carries(now) && path.seal(now, &datagram, &mut buffer) {
                self.transmit(&buffer);
                return self.connection.close_reason().is_none();
            }
        }
        self.connection.send_datagram(datagram).is_ok()
    }

    /// UDP packets received so far, of any content.
    #[must_use]
    pub fn packets(&self) -> u64 {
        packets(&self.connection, self.shared.as_deref())
    }

    /// Whether datagrams leave in media packets just now.
    #[must_use]
    pub fn is_beside_quic(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| lock(&shared.path).carries(Instant::now()))
    }

    /// Asks whether media packets come through, if it is time; gives when it is next.
    fn ask(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut path = lock(&self.shared.as_ref()?.path);
        let mut buffer = lock(&self.buffer);
        buffer.clear();
        if path.ask(now, &mut buffer) {
            self.transmit(&buffer);
        }
        if path.asks_quic() {
            ask_quic(&self.connection);
        }
        Some(path.ask_at())
    }

    /// Asks QUIC for a sign of life, if it is time; gives when to look again.
    fn look(&mut self) -> Instant {
        let now = Instant::now();
        let Self { quiet, shared, connection, .. } = self;
        if quiet.look(now, || packets(connection, shared.as_deref())) {
            ask_quic(connection);
        }
        quiet.look_at()
    }

    fn transmit(&self, packet: &[u8]) {
        let destination = self.connection.remote_address();
        let transmit = Transmit { destination, ecn: None, contents: packet, segment_size: None, src_ip: None };
        // What the system doesn't take is lost like any packet on the way; it is noticed by the answers.
        let _sent = self.tap.try_send(&transmit);
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.shared = None;
        lock(&self.tap.paths).retain(|(_, path)| path.strong_count() > 0);
    }
}

/// Has the relay acknowledge an empty datagram (`docs/protocol.md` §6.5).
fn ask_quic(connection: &quinn::Connection) {
    // What is wrong shows elsewhere.
    let _sent = connection.send_datagram(Bytes::new());
}

fn packets(connection: &quinn::Connection, shared: Option<&Shared>) -> u64 {
    let media = shared.map_or(0, |shared| shared.received.load(Ordering::Relaxed));
    connection.stats().udp_rx.datagrams + media
}

/// A lock whose holders cannot panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
