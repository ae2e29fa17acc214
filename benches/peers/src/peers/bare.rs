//! Clients of the bare fan-out: a UDP socket each.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::listen::socket;
use crate::measure::{Clients, Sender};
use crate::pattern::{FRAME_LEN, Pattern};
use crate::process::Server;
use crate::tally::Tally;

/// What a client joins with.
const JOIN: [u8; 1] = [0];

/// Starts it, and lets everybody join.
pub async fn furnish(
    command: Command,
    directory: &Path,
    pattern: &Pattern,
    tally: &Arc<Tally>,
) -> Result<(Server, Clients)> {
    let (server, address) = Server::start_talkative(command, &directory.join("log"))?;
    let address = address.parse().with_context(|| format!("the fan-out said '{address}', not its address"))?;
    let (mut sockets, mut tasks) = (Vec::new(), JoinSet::new());
    for member in 0..pattern.people {
        let (receiver, sender) = socket()?;
        sender.send_to(&JOIN, address)?;
        sockets.push(sender);
        tasks.spawn(listen(receiver, member, Arc::clone(tally), pattern.talkers));
    }
    Ok((server, Clients { sender: Box::new(Talkers { sockets, address }), tasks }))
}

/// Notes the frames of each packet.
async fn listen(socket: UdpSocket, listener: usize, tally: Arc<Tally>, talkers: usize) -> Result<()> {
    // A stroke that comes late has two frames of each.
    let mut buffer = vec![0; 2 * talkers * FRAME_LEN];
    loop {
        let length = socket.recv(&mut buffer).await.context("a listener's socket")?;
        buffer[..length].chunks_exact(FRAME_LEN).for_each(|frame| tally.arrived(listener, frame));
    }
}

/// The sockets of those who talk are the first.
struct Talkers {
    sockets: Vec<std::net::UdpSocket>,
    address: SocketAddr,
}

impl Sender for Talkers {
    fn send(&mut self, talker: usize, frame: &[u8; FRAME_LEN]) -> io::Result<()> {
        self.sockets[talker].send_to(frame, self.address).map(drop)
    }
}
