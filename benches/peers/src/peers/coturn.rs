//! Clients of a TURN server (RFC 8656). Each talker has an allocation with a channel to every other member's socket, and
//! sends each frame once per listener, as ChannelData: the server forwards one datagram for each that it gets.

mod stun;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listen::{listen, socket};
use crate::measure::{Clients, Sender};
use crate::pattern::{FRAME_LEN, Pattern};
use crate::process::{Server, free_port};
use crate::tally::Tally;
use stun::{Channel, Outcome, Request};

/// Time after which a request is sent again. The first ones meet a server that has not opened its port yet.
const RESEND: Duration = Duration::from_millis(250);

/// Requests until the server counts as not there.
const ATTEMPTS: usize = 20;

/// Starts the server and gives everybody a socket, and talkers an allocation with a channel to each other socket.
pub async fn furnish(
    mut command: Command,
    directory: &Path,
    pattern: &Pattern,
    tally: &Arc<Tally>,
) -> Result<(Server, Clients)> {
    let address = free_port()?;
    let file = directory.join("turnserver.conf");
    fs::write(&file, configuration(address, directory))?;
    command.arg("-c").arg(&file);
    let server = Server::start(command, &directory.join("log"))?;
    let (mut members, mut tasks) = (Vec::new(), JoinSet::new());
    for member in 0..pattern.people {
        let (receiver, _) = socket()?;
        members.push(receiver.local_addr()?);
        tasks.spawn(listen(receiver, member, Arc::clone(tally), |datagram| Some(datagram)));
    }
    let mut talkers = Vec::new();
    for talker in 0..pattern.talkers {
        talkers.push(Talker::allocate(address, talker, &members).await.map_err(|error| server.explain(error))?);
    }
    Ok((server, Clients { sender: Box::new(Talkers(talkers)), tasks }))
}

/// Nothing but TURN over UDP, for everybody on loopback. One relay thread, as it has one
/// core; more measured the same.
fn configuration(address: SocketAddr, directory: &Path) -> String {
    let (ip, port, directory) = (address.ip(), address.port(), directory.display());
    format!(
        "listening-ip={ip}\nlistening-port={port}\nrelay-ip={ip}\nallow-loopback-peers\nrelay-threads=1\n\
         no-auth\nno-tls\nno-dtls\nno-tcp\nno-tcp-relay\nno-cli\nno-multicast-peers\nno-rfc5780\n\
         log-file=stdout\nsimple-log\npidfile={directory}/pid\nuserdb={directory}/turndb\n"
    )
}

/// A talker's socket with its allocation.
struct Talker {
    socket: std::net::UdpSocket,
    server: SocketAddr,
    channels: Vec<Channel>,
}

impl Talker {
    async fn allocate(server: SocketAddr, talker: usize, members: &[SocketAddr]) -> Result<Self> {
        let (receiver, sender) = socket()?;
        let talker_number = u32::try_from(talker)?;
        let mut own = Self { socket: sender, server, channels: Vec::new() };
        ask(&receiver, server, &Request::allocate(talker_number)).await.context("cannot get an allocation")?;
        for (member, address) in members.iter().enumerate().filter(|(member, _)| *member != talker) {
            let channel = Channel::numbered(u16::try_from(member)?).context("more members than channels")?;
            let request = Request::bind(talker_number, channel, *address)?;
            ask(&receiver, server, &request).await.context("cannot bind a channel")?;
            own.channels.push(channel);
        }
        Ok(own)
    }
}

/// Sends a request until it is answered.
async fn ask(socket: &UdpSocket, server: SocketAddr, request: &Request) -> Result<()> {
    let mut buffer = [0; 1024];
    for _ in 0..ATTEMPTS {
        socket.send_to(request.bytes(), server).await?;
        let Ok(received) = timeout(RESEND, socket.recv(&mut buffer)).await else { continue };
        match request.outcome(&buffer[..received?]) {
            Some(Outcome::Success) => return Ok(()),
            Some(Outcome::Refused(code)) => bail!("the server refuses with {code}"),
            // An answer to an earlier request that was sent twice.
            None => {}
        }
    }
    bail!("the server does not answer")
}

/// The allocations of those who talk.
struct Talkers(Vec<Talker>);

impl Sender for Talkers {
    fn send(&mut self, talker: usize, frame: &[u8; FRAME_LEN]) -> io::Result<()> {
        let Talker { socket, server, channels } = &self.0[talker];
        for channel in channels {
            socket.send_to(&channel.data(frame), server)?;
        }
        Ok(())
    }
}
