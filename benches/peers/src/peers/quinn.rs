//! Clients of the plain forwarder: an endpoint and a connection each, all of it quinn's default.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::task::JoinSet;

use crate::credentials::{self, Credentials};
use crate::measure::{Clients, Sender};
use crate::pattern::{FRAME_LEN, Pattern};
use crate::process::Server;
use crate::tally::Tally;

/// Starts the forwarder and connects everybody.
pub async fn furnish(
    mut command: Command,
    directory: &Path,
    pattern: &Pattern,
    tally: &Arc<Tally>,
) -> Result<(Server, Clients)> {
    let credentials = Credentials::create(directory)?;
    command.arg("--certificate").arg(&credentials.certificate).arg("--key").arg(&credentials.key);
    let (server, address) = Server::start_talkative(command, &directory.join("log"))?;
    let address = address.parse().with_context(|| format!("the forwarder said '{address}', not its address"))?;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(credentials.client())?));
    let mut talkers = Vec::new();
    let mut tasks = JoinSet::new();
    for member in 0..pattern.people {
        let (endpoint, connection) = connect(address, config.clone()).await.map_err(|error| server.explain(error))?;
        if member < pattern.talkers {
            talkers.push(connection.clone());
        }
        tasks.spawn(listen(endpoint, connection, member, Arc::clone(tally)));
    }
    Ok((server, Clients { sender: Box::new(Talkers(talkers)), tasks }))
}

async fn connect(address: SocketAddr, config: ClientConfig) -> Result<(Endpoint, Connection)> {
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(address, credentials::NAME)?.await.context("cannot connect")?;
    Ok((endpoint, connection))
}

/// Notes what arrives; the endpoint lives as long as its connection.
async fn listen(_endpoint: Endpoint, connection: Connection, listener: usize, tally: Arc<Tally>) -> Result<()> {
    loop {
        let frame = connection.read_datagram().await.context("a listener's connection")?;
        tally.arrived(listener, &frame);
    }
}

/// The connections of those who talk.
struct Talkers(Vec<Connection>);

impl Sender for Talkers {
    fn send(&mut self, talker: usize, frame: &[u8; FRAME_LEN]) -> io::Result<()> {
        self.0[talker].send_datagram(Bytes::copy_from_slice(frame)).map_err(io::Error::other)
    }
}
