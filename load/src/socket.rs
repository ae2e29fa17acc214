//! How quinn runs on a shard: its tasks, timers and sockets belong to the shard's thread, whichever thread dials. And a
//! socket that can stop reading.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, UdpPoller};
use tokio::runtime::Handle;

/// Opens a client's endpoint whose work is done on the runtime of `shard`.
///
/// # Errors
/// What the system says about the address, or about too many sockets.
pub fn open(bind: SocketAddr, shard: &Handle, valve: Arc<Valve>) -> io::Result<Endpoint> {
    let runtime: Arc<dyn Runtime> = Arc::new(ShardRuntime(shard.clone()));
    let inner = runtime.wrap_udp_socket(UdpSocket::bind(bind)?)?;
    let socket = Arc::new(ValvedSocket { inner, valve });
    Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime)
}

/// Whether a socket is read. Once closed it stays so.
#[derive(Debug, Default)]
pub struct Valve(AtomicBool);

impl Valve {
    /// From now on nothing is read: what arrives fills the kernel's buffer and is dropped there.
    pub fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is read any more.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct ValvedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    valve: Arc<Valve>,
}

impl AsyncUdpSocket for ValvedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.valve.is_closed() {
            // Nobody has to be woken: it never opens again.
            return Poll::Pending;
        }
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

struct ShardRuntime(Handle);

impl fmt::Debug for ShardRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShardRuntime")
    }
}

impl Runtime for ShardRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _on_shard = self.0.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let _task = self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _on_shard = self.0.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }
}
