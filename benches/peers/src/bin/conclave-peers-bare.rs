//! What no relay can do with less: the fewest packets, and nothing but the kernel's part in them. Every 20 ms whatever has
//! come is read, and each member gets one packet with all that is from others: without a key, a connection, a deadline or a
//! check, and up to 20 ms late. `conclave-peers` starts it; the first line on standard output is its address.

use std::io::{self, ErrorKind, IoSlice, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

/// From one stroke to the next: a frame of each talker comes in between.
const STROKE: Duration = Duration::from_millis(20);
/// Longer than a frame.
const LONGEST: usize = 2048;
/// Whoever says this little joins, and nothing of it is forwarded.
const JOINS: usize = 1;

fn main() -> Result<()> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    writeln!(stdout(), "{}", socket.local_addr()?)?;
    socket.set_nonblocking(true)?;
    let (mut members, mut frames) = (Vec::new(), Vec::new());
    let mut next = Instant::now();
    loop {
        next += STROKE;
        sleep(next.saturating_duration_since(Instant::now()));
        take_in(&socket, &mut members, &mut frames)?;
        if !frames.is_empty() {
            forward(&socket, &members, &frames)?;
            frames.clear();
        }
    }
}

/// Reads all that has come: who joins, and frames with who sent them.
fn take_in(
    socket: &UdpSocket,
    members: &mut Vec<SocketAddr>,
    frames: &mut Vec<(SocketAddr, Vec<u8>)>,
) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((JOINS, from)) => members.push(from),
            Ok((length, from)) => frames.push((from, buffer[..length].to_vec())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends each member all frames but its own, in one call.
fn forward(socket: &UdpSocket, members: &[SocketAddr], frames: &[(SocketAddr, Vec<u8>)]) -> io::Result<()> {
    let of_others = |member: &SocketAddr| -> Vec<IoSlice<'_>> {
        frames.iter().filter(|(from, _)| from != member).map(|(_, frame)| IoSlice::new(frame)).collect()
    };
    let contents: Vec<_> = members.iter().map(of_others).collect();
    let to: Vec<SocketAddrAny> = members.iter().map(|member| (*member).into()).collect();
    let mut nothing: Vec<_> = members.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let parts = contents.iter().zip(&to).zip(&mut nothing);
    let mut messages: Vec<_> =
        parts.map(|((contents, to), nothing)| MMsgHdr::new_with_addr(to, contents, nothing)).collect();
    let mut sent = 0;
    while sent < messages.len() {
        sent += sendmmsg(socket, &mut messages[sent..], SendFlags::empty())?;
    }
    Ok(())
}
