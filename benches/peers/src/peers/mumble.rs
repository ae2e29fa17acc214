//! Clients of a Mumble server: a TLS connection each for control, and voice over UDP under OCB2-AES128. All are in the
//! root channel, where whoever connects is put; the server forwards each talker's packet to the others.

mod control;
mod cryptstate;
mod messages;
mod ocb2;
mod voice;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::listen::{listen, socket};
use crate::credentials::Credentials;
use crate::measure::{Clients, Sender};
use crate::pattern::{FRAME_LEN, Pattern};
use crate::process::{Server, free_port};
use crate::tally::Tally;
use control::Control;
use cryptstate::Sealer;

/// Starts the server, and lets everybody join and make their UDP address known.
pub async fn furnish(
    mut command: Command,
    directory: &Path,
    pattern: &Pattern,
    tally: &Arc<Tally>,
) -> Result<(Server, Clients)> {
    let address = free_port()?;
    let credentials = Credentials::create(directory)?;
    let file = directory.join("murmur.ini");
    fs::write(&file, configuration(address, directory, &credentials, pattern.people))?;
    command.arg("-fg").arg("-ini").arg(&file);
    let server = Server::start(command, &directory.join("log"))?;
    let (mut talkers, mut tasks) = (Vec::new(), JoinSet::new());
    for member in 0..pattern.people {
        let line = join(address, &credentials, member, tally, &mut tasks).await;
        let line = line.map_err(|error| server.explain(error))?;
        if member < pattern.talkers {
            talkers.push(line);
        }
    }
    Ok((server, Clients { sender: Box::new(Talkers(talkers)), tasks }))
}

/// Room for all, at any bit rate, however fast they connect; no news to anybody outside. Started by root, it would
/// become a user who cannot write here.
fn configuration(address: SocketAddr, directory: &Path, credentials: &Credentials, people: usize) -> String {
    let (ip, port, directory) = (address.ip(), address.port(), directory.display());
    let (certificate, key) = (credentials.certificate.display(), credentials.key.display());
    format!(
        "uname=root\nhost={ip}\nport={port}\nusers={people}\nbandwidth=558000\nautobanAttempts=0\nbonjour=false\n\
         database={directory}/murmur.sqlite\npidfile={directory}/pid\nlogfile=\nwelcometext=\n\
         sslCert={certificate}\nsslKey={key}\nallowping=false\nsendversion=false\n"
    )
}

/// One member's join: control connection, key, UDP address.
async fn join(
    server: SocketAddr,
    credentials: &Credentials,
    member: usize,
    tally: &Arc<Tally>,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<Arc<Line>> {
    let (control, keys) = Control::join(server, credentials, member).await.context("cannot join")?;
    let (sealer, mut opener) = keys.states();
    let (receiver, sender) = socket()?;
    receiver.connect(server).await?;
    let line = Arc::new(Line { socket: sender, sealer: Mutex::new(sealer) });
    line.send(&voice::PING).context("cannot send over UDP")?;
    // The echo shows that the server knows this address now: until then it sends voice over TCP.
    let mut echo = [0; 64];
    let length = tokio::time::timeout(control::PATIENCE, receiver.recv(&mut echo))
        .await
        .context("no answer over UDP")?
        .context("UDP")?;
    opener.open(&mut echo[..length]).context("an answer over UDP that cannot be opened")?;
    tasks.spawn(control.keep(Arc::clone(&line)));
    tasks.spawn(listen(receiver, member, Arc::clone(tally), move |datagram| voice::frame(opener.open(datagram)?)));
    Ok(line)
}

/// What a member sends over UDP.
struct Line {
    socket: std::net::UdpSocket,
    sealer: Mutex<Sealer>,
}

impl Line {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        let sealed = self.sealer.lock().unwrap_or_else(PoisonError::into_inner).seal(packet);
        self.socket.send(&sealed).map(drop)
    }
}

/// Those who talk.
struct Talkers(Vec<Arc<Line>>);

impl Sender for Talkers {
    fn send(&mut self, talker: usize, frame: &[u8; FRAME_LEN]) -> io::Result<()> {
        self.0[talker].send(&voice::packet(frame))
    }
}
