//! The UDP sockets of a shard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use conclave_relay::driver::socket::Socket;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};

/// Connections that share a socket. All listeners of a meeting get their packets at the same time, and what a socket may
/// keep unread is a few hundred small packets where the system has its defaults.
const SHARED_BY: usize = 16;
/// Sockets that one wait tells of.
const TOLD_AT_ONCE: usize = 64;
/// Stands for the inbox where sockets have numbers.
const INBOX: u64 = u64::MAX;
/// While the kernel takes no more packets, it is asked again after so long.
const BLOCKED: Duration = Duration::from_millis(1);

/// The sockets, opened as connections need them.
pub(super) struct Sockets {
    bind: SocketAddr,
    all: Vec<Socket>,
    epoll: OwnedFd,
}

/// What there is to do.
#[derive(Default)]
pub(super) struct Woken {
    /// Numbers of sockets with packets.
    pub(super) sockets: Vec<usize>,
    pub(super) by_inbox: bool,
}

impl Sockets {
    /// Sockets for packets to `remote`, from any of this machine's addresses, and an inbox that is waited for together with
    /// them.
    ///
    /// # Errors
    /// There are no more files.
    pub(super) fn to(remote: SocketAddr, inbox: impl AsFd) -> io::Result<Self> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, inbox, epoll::EventData::new_u64(INBOX), epoll::EventFlags::IN)?;
        Ok(Self { bind: SocketAddr::new(any, 0), all: Vec::new(), epoll })
    }

    /// The number of the socket for the connection of that number.
    ///
    /// # Errors
    /// There are no more sockets.
    pub(super) fn number_for(&mut self, connection: usize) -> io::Result<usize> {
        let number = connection / SHARED_BY;
        while self.all.len() <= number {
            let socket = Socket::bind(self.bind)?;
            let name = u64::try_from(self.all.len()).unwrap_or(INBOX);
            epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(name), epoll::EventFlags::IN)?;
            self.all.push(socket);
        }
        Ok(number)
    }

    /// Waits until there are packets, or something in the inbox, or for so long.
    ///
    /// # Errors
    /// The system cannot wait.
    pub(super) fn wait(&self, timeout: Option<Duration>, woken: &mut Woken) -> io::Result<()> {
        let is_blocked = self.all.iter().any(Socket::is_blocked);
        let timeout = if is_blocked { Some(timeout.unwrap_or(BLOCKED).min(BLOCKED)) } else { timeout };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [nothing; TOLD_AT_ONCE];
        let count = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        woken.sockets.clear();
        woken.by_inbox = false;
        for event in &events[..count] {
            match event.data.u64() {
                INBOX => woken.by_inbox = true,
                number => woken.sockets.extend(usize::try_from(number)),
            }
        }
        Ok(())
    }

    pub(super) fn get(&mut self, number: usize) -> Option<&mut Socket> {
        self.all.get_mut(number)
    }

    /// Sends what is to be sent.
    pub(super) fn flush(&mut self) {
        for socket in &mut self.all {
            if socket.is_blocked() {
                socket.resume();
            }
            socket.flush();
        }
    }
}
