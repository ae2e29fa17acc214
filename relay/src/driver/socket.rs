//! The UDP socket: packets come in and go out in batches.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{BATCH_SIZE, EcnCodepoint as UdpEcn, RecvMeta, UdpSocketState};
use rustix::fd::{AsFd, BorrowedFd};

use super::together::{self, Together};

/// Kernel buffers of the socket: about 2,700 small packets, 50 ms at 50,000 packets a second. The kernel may give
/// less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 2 * 1024 * 1024;
/// The longest packet that is taken: what QUIC sends on a path of 1,500 bytes, and room for jumbo frames.
const LONGEST: usize = 9_000;
/// Where the kernel hands over packets of one sender together (GRO), together they are as long as an IP packet may be. A
/// little more keeps the beginnings of such places apart in the processor's cache, which a power of two would not.
const LONGEST_TOGETHER: usize = 65_536 + 832;
/// Bytes of packets for which memory is taken at a time.
const ARENA: usize = 256 * 1024;
/// Packets that are made before they are sent together. Sent one by one as they are made, each would wake its receiver
/// on another core, which is back asleep before the next. Of more together the first are out of the processor's nearest cache
/// (32 KB) when the kernel copies them: 64 forward 2 to 4 % less (seminars, six pairs of runs).
const TOGETHER: usize = 16;
/// Packets that wait while the kernel takes no more. Each is a packet that a connection counts as sent.
const MOST_BLOCKED: usize = 64;

/// A packet that came.
pub struct Received {
    /// Who sent it.
    pub from: SocketAddr,
    /// To which of this machine's addresses.
    pub local: Option<IpAddr>,
    /// How it is marked (RFC 9000 §13.4).
    pub ecn: Option<EcnCodepoint>,
    /// What is in it.
    pub bytes: BytesMut,
}

/// The memory that packets are read into. All sockets of a thread may share one, so that it stays in the processor's cache.
pub struct ReadBuffers {
    buffer: Vec<u8>,
    metas: Vec<RecvMeta>,
    arena: BytesMut,
}

/// See the module.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    together: Together,
    outgoing: Vec<(Transmit, Vec<u8>)>,
    blocked: Vec<(Transmit, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

impl Default for ReadBuffers {
    fn default() -> Self {
        Self { buffer: Vec::new(), metas: vec![RecvMeta::default(); BATCH_SIZE], arena: BytesMut::new() }
    }
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says about the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let state = UdpSocketState::new((&socket).into())?;
        let enlarged = state
            .set_recv_buffer_size((&socket).into(), SOCKET_BUFFER)
            .and_then(|()| state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER));
        if let Err(error) = enlarged {
            // Best effort: with small buffers the relay works too, and loses frames in bursts.
            tracing::warn!(%error, "the socket keeps its small buffers");
        }
        Ok(Self {
            together: Together::new(&socket),
            socket,
            state,
            outgoing: Vec::with_capacity(TOGETHER),
            blocked: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether packets are never fragmented, so that the path's MTU can be found out.
    pub fn finds_mtu(&self) -> bool {
        !self.state.may_fragment()
    }

    /// Most packets of one connection that go out in one call.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Takes one batch of packets; `false` when there were no more.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn receive(&self, buffers: &mut ReadBuffers, mut take: impl FnMut(Received)) -> io::Result<bool> {
        let ReadBuffers { buffer, metas, arena } = buffers;
        let each = (LONGEST * self.state.gro_segments()).min(LONGEST_TOGETHER);
        if buffer.len() < each * BATCH_SIZE {
            *buffer = vec![0; each * BATCH_SIZE];
        }
        let mut slices = buffer.chunks_mut(each).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let count = match self.state.recv((&self.socket).into(), &mut slices, metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // A packet of ours met nobody: that is between that client and us.
            Err(error) if is_about_a_peer(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            for packet in slice[..meta.len].chunks(meta.stride.max(1)) {
                if arena.capacity() < packet.len() {
                    arena.reserve(ARENA);
                }
                arena.extend_from_slice(packet);
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                take(Received { from: meta.addr, local: meta.dst_ip, ecn, bytes: arena.split() });
            }
        }
        Ok(count == BATCH_SIZE)
    }

    /// Sends what `transmit` describes, which is in `bytes`, at the latest with [`Socket::flush`]; or keeps it until
    /// [`Socket::resume`]. `bytes` is empty then.
    pub fn send(&mut self, transmit: Transmit, bytes: &mut Vec<u8>) {
        let empty = self.buffer();
        self.outgoing.push((transmit, std::mem::replace(bytes, empty)));
        if self.outgoing.len() >= TOGETHER {
            self.flush();
        }
    }

    /// Sends what is to be sent.
    pub fn flush(&mut self) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let mut done = 0;
        while let Some(rest) = outgoing.get(done..).filter(|rest| !rest.is_empty() && !self.is_blocked()) {
            let (sent, taken) = self.send_first(rest);
            if sent == Sent::NotYet {
                break;
            }
            done += taken;
        }
        for (place, (transmit, bytes)) in outgoing.drain(..).enumerate() {
            // What finds no room is lost like any packet on the way.
            if place >= done && self.blocked.len() < MOST_BLOCKED {
                self.blocked.push((transmit, bytes));
            } else {
                self.give_back(bytes);
            }
        }
        self.outgoing = outgoing;
    }

    /// Sends the first of some packets, with as many of those after it as go in one call; gives how many that were.
    fn send_first(&self, packets: &[(Transmit, Vec<u8>)]) -> (Sent, usize) {
        let Some(((transmit, bytes), _)) = packets.split_first() else { return (Sent::Done, 0) };
        let count = self.together.count(packets);
        if count < 2 {
            return (self.try_send(transmit, bytes), 1);
        }
        match together::send(&self.socket, &packets[..count]) {
            Ok(taken) => (Sent::Done, taken.max(1)),
            Err(error) => (Sent::of(&error), 1),
        }
    }

    /// Whether the kernel takes no more just now.
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Sends what was kept.
    pub fn resume(&mut self) {
        let mut blocked = std::mem::take(&mut self.blocked);
        let stuck = blocked.iter().position(|(transmit, bytes)| self.try_send(transmit, bytes) == Sent::NotYet);
        blocked.drain(..stuck.unwrap_or(blocked.len()));
        self.blocked = blocked;
    }

    /// An empty buffer for a packet.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if self.spare.len() < TOGETHER {
            self.spare.push(buffer);
        }
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
        self.state.try_send((&self.socket).into(), &transmit).map_or_else(|error| Sent::of(&error), |()| Sent::Done)
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Done,
    NotYet,
}

impl Sent {
    /// A packet that was not sent is unreachable, too long for this path or without a route, and lost like any on the
    /// way; unless the kernel only has no room.
    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock { Self::NotYet } else { Self::Done }
    }
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
