//! The UDP socket: packets come in and go out in batches.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, EcnCodepoint as UdpEcn, RecvMeta, UdpSocketState};
use rustix::fd::{AsFd, BorrowedFd};

/// Kernel buffers of the socket: about 2,700 small packets, 50 ms at 50,000 packets a second. The kernel may give
/// less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;
/// The longest packet that is taken: what QUIC sends on a path of 1,500 bytes, and room for jumbo frames.
const LONGEST: usize = 9_000;
/// Bytes of packets for which memory is taken at a time.
const ARENA: usize = 256 * 1024;
/// Packets that wait while the kernel takes no more. Each is a packet that a connection counts as sent.
const MOST_BLOCKED: usize = 64;

/// A packet that came.
pub(super) struct Received {
    pub(super) from: SocketAddr,
    pub(super) local: Option<std::net::IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: BytesMut,
}

/// See the module.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
    metas: Vec<RecvMeta>,
    arena: BytesMut,
    blocked: Vec<(Transmit, Vec<u8>)>,
    spare: Vec<u8>,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        let enlarged = state
            .set_recv_buffer_size((&socket).into(), SOCKET_BUFFER)
            .and_then(|()| state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER));
        if let Err(error) = enlarged {
            // Best effort: with small buffers the relay works too, and loses frames in bursts.
            tracing::warn!(%error, "the socket keeps its small buffers");
        }
        let buffer = vec![0; LONGEST * state.gro_segments() * BATCH_SIZE];
        Ok(Self {
            socket,
            state,
            buffer,
            metas: vec![RecvMeta::default(); BATCH_SIZE],
            arena: BytesMut::new(),
            blocked: Vec::new(),
            spare: Vec::new(),
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether packets are never fragmented, so that the path's MTU can be found out.
    pub(super) fn finds_mtu(&self) -> bool {
        !self.state.may_fragment()
    }

    /// Most packets of one connection that go out in one call.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Takes one batch of packets; `false` when there were no more.
    pub(super) fn receive(&mut self, mut take: impl FnMut(Received)) -> io::Result<bool> {
        let each = self.buffer.len() / BATCH_SIZE;
        let mut slices = self.buffer.chunks_mut(each).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let count = match self.state.recv((&self.socket).into(), &mut slices, &mut self.metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // A packet of ours met nobody: that is between that client and us.
            Err(error) if is_about_a_peer(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        for (meta, slice) in self.metas.iter().zip(&slices).take(count) {
            for packet in slice[..meta.len].chunks(meta.stride.max(1)) {
                if self.arena.capacity() < packet.len() {
                    self.arena.reserve(ARENA);
                }
                self.arena.extend_from_slice(packet);
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                take(Received { from: meta.addr, local: meta.dst_ip, ecn, bytes: self.arena.split() });
            }
        }
        Ok(count == BATCH_SIZE)
    }

    /// Sends what `transmit` describes, which is in `bytes`; or keeps it until [`Socket::resume`].
    pub(super) fn send(&mut self, transmit: Transmit, bytes: &mut Vec<u8>) {
        let is_stuck = self.is_blocked() || self.try_send(&transmit, bytes) == Sent::NotYet;
        // What finds no room is lost like any packet on the way.
        if is_stuck && self.blocked.len() < MOST_BLOCKED {
            self.blocked.push((transmit, std::mem::take(bytes)));
        }
        bytes.clear();
    }

    /// Whether the kernel takes no more just now.
    pub(super) fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Sends what was kept.
    pub(super) fn resume(&mut self) {
        let mut blocked = std::mem::take(&mut self.blocked);
        let stuck = blocked.iter().position(|(transmit, bytes)| self.try_send(transmit, bytes) == Sent::NotYet);
        blocked.drain(..stuck.unwrap_or(blocked.len()));
        self.blocked = blocked;
    }

    /// An empty buffer for a packet.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    /// Gives a buffer back.
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare = buffer;
    }

    fn try_send(&self, transmit: &Transmit, bytes: &[u8]) -> Sent {
        let Some(contents) = bytes.get(..transmit.size) else { return Sent::Done };
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| UdpEcn::from_bits(ecn as u8)),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send((&self.socket).into(), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::NotYet,
            // Unreachable, too long for this path, or without a route: lost like any packet on the way.
            _ => Sent::Done,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Done,
    NotYet,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Errors that the kernel reports on the socket for a packet that was sent before.
fn is_about_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | ConnectionAborted | HostUnreachable | NetworkUnreachable | Interrupted
    )
}
