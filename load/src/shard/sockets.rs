//! The UDP sockets of a shard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conclave_relay::driver::socket::Socket;

/// Connections that share a socket. All listeners of a meeting get their packets at the same time, and what a socket may
/// keep unread is a few hundred small packets where the system has its defaults.
const SHARED_BY: usize = 16;

/// The sockets, opened as connections need them.
pub(super) struct Sockets {
    bind: SocketAddr,
    all: Vec<Socket>,
}

impl Sockets {
    /// Sockets for packets to `remote`, from any of this machine's addresses.
    pub(super) fn to(remote: SocketAddr) -> Self {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { bind: SocketAddr::new(any, 0), all: Vec::new() }
    }

    /// The number of the socket for the connection of that number.
    ///
    /// # Errors
    /// There are no more sockets.
    pub(super) fn number_for(&mut self, connection: usize) -> io::Result<usize> {
        let number = connection / SHARED_BY;
        while self.all.len() <= number {
            self.all.push(Socket::bind(self.bind)?);
        }
        Ok(number)
    }

    pub(super) fn get(&mut self, number: usize) -> Option<&mut Socket> {
        self.all.get_mut(number)
    }

    pub(super) fn all(&mut self) -> &mut [Socket] {
        &mut self.all
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Socket> {
        self.all.iter()
    }
}
