//! The UDP sockets of a shard.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use conclave_relay::driver::socket::Socket;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};

/// Sockets that one wait tells of.
const TOLD_AT_ONCE: usize = 64;
/// Stands for the inbox where sockets have numbers.
const INBOX: u64 = u64::MAX;
/// While the kernel takes no more packets, it is asked again after so long.
const BLOCKED: Duration = Duration::from_millis(1);

/// The sockets, opened as connections need them.
pub(super) struct Sockets {
    /// Any of this machine's addresses.
    any: IpAddr,
    /// Connections that share a socket.
    sharing: usize,
    all: Vec<Socket>,
    /// Their numbers, by the address they have, and by whose they are where they have all.
    numbers: HashMap<(Option<IpAddr>, usize), usize>,
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
    /// Sockets for packets to `remote`, of so many connections each, and an inbox that is waited for together with them.
    ///
    /// # Errors
    /// There are no more files.
    pub(super) fn to(remote: SocketAddr, sharing: usize, inbox: impl AsFd) -> io::Result<Self> {
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, inbox, epoll::EventData::new_u64(INBOX), epoll::EventFlags::IN)?;
        Ok(Self { any, sharing, all: Vec::new(), numbers: HashMap::new(), epoll })
    }

    /// The number of the socket for the connection of that number that comes `from` an address of this machine, or from
    /// whichever the system chooses. All from one address share a socket, so that no packet has to say where it comes from:
    /// those that need not leave together.
    ///
    /// # Errors
    /// There are no more sockets, or the address is none of this machine's.
    pub(super) fn number_for(&mut self, connection: usize, from: Option<IpAddr>) -> io::Result<usize> {
        let share = if from.is_some() { 0 } else { connection / self.sharing };
        if let Some(number) = self.numbers.get(&(from, share)) {
            return Ok(*number);
        }
        let socket = Socket::bind(SocketAddr::new(from.unwrap_or(self.any), 0))?;
        let number = self.all.len();
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        self.all.push(socket);
        self.numbers.insert((from, share), number);
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

#[cfg(test)]
mod tests {
    use conclave_relay::driver::inbox;

    use super::*;

    #[test]
    fn connections_from_one_address_share_a_socket_that_has_it_and_others_one_of_all_addresses_in_turn() {
        let (_outbox, inbox) = inbox::pair::<()>().unwrap();
        let mut sockets = Sockets::to(SocketAddr::from(([127, 0, 0, 1], 9)), 16, &inbox).unwrap();
        let [one, two] = [2, 3].map(|byte| Some(IpAddr::from([127, 0, byte, 1])));
        let numbers = [(0, one), (1, two), (700, one)].map(|(at, from)| sockets.number_for(at, from).unwrap());
        assert_eq!(numbers, [0, 1, 0]);
        let numbers = [0, 15, 16, 3].map(|at| sockets.number_for(at, None).unwrap());
        assert_eq!(numbers, [2, 2, 3, 2]);
        let addresses = [0, 1, 2].map(|number| sockets.get(number).unwrap().local_addr().unwrap().ip());
        assert_eq!(addresses, [one.unwrap(), two.unwrap(), Ipv4Addr::UNSPECIFIED.into()]);
        assert!(sockets.number_for(9, Some(IpAddr::from([192, 0, 2, 1]))).is_err(), "none of this machine's");
    }
}
