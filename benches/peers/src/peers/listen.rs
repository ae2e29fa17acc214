//! Listeners on UDP sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::tally::Tally;

/// Longer than any datagram of any server here.
const LONGEST: usize = 2048;

/// A socket on loopback whose port the system chooses. The second handle sends from another thread.
///
/// # Errors
/// There are no more sockets.
pub fn socket() -> io::Result<(UdpSocket, std::net::UdpSocket)> {
    let socket = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    socket.set_nonblocking(true)?;
    let sender = socket.try_clone()?;
    Ok((UdpSocket::from_std(socket)?, sender))
}

/// Notes what arrives for one listener, after `open` has taken the server's wrapping off.
///
/// # Errors
/// The socket fails.
pub async fn listen(
    socket: UdpSocket,
    listener: usize,
    tally: Arc<Tally>,
    mut open: impl FnMut(&mut [u8]) -> Option<&[u8]>,
) -> Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await.context("a listener's socket")?;
        if let Some(frame) = open(&mut buffer[..length]) {
            tally.arrived(listener, frame);
        }
    }
}
