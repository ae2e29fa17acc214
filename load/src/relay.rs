//! The relay under load: one that is there, or a child process of this program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use conclave_protocol::link::RelayAddress;
use conclave_relay::clock::system_clock;
use conclave_relay::dial;
use conclave_relay::gate;
use conclave_relay::hub::{self, Hub};
use conclave_relay::server::{Deadlines, Forwarding, Server, ServerConfig};
use conclave_relay::tls::{Identity, Pin, SelfSigned, Trust};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::args::{ServeRelay, Target};

/// Networks that members come from, in 127.0.0.0/8: as many as have a byte each in the middle, without the first.
const NETWORKS: u32 = 254 * 250;

/// Where members go.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    pub(crate) name: String,
    pub(crate) trust: Trust,
}

impl Address {
    /// The address that a member comes from; `None` for whichever leads to the relay. On one machine the few that share a
    /// socket have a network of their own; otherwise a relay's bounds for one network would be what is measured.
    pub(crate) fn home_of(&self, client: u32, sharing: u32) -> Option<IpAddr> {
        self.network(client / sharing)
    }

    /// The address of the network of that number, if the relay is on this machine.
    fn network(&self, number: u32) -> Option<IpAddr> {
        let IpAddr::V4(relay) = self.socket.ip() else { return None };
        let network = number % NETWORKS;
        let byte = |n: u32| u8::try_from(n).unwrap_or(1);
        let ip = Ipv4Addr::new(127, byte(1 + network / 250), byte(1 + network % 250), 1);
        relay.is_loopback().then_some(ip.into())
    }

    /// The address that somebody with a socket of its own binds, in the network of that number.
    pub(crate) fn bind(&self, network: u32) -> SocketAddr {
        self.network(network).map_or_else(|| dial::bind_for(self.socket), |ip| SocketAddr::new(ip, 0))
    }

    /// The same for a meeting's link.
    pub(crate) fn in_link(&self) -> RelayAddress {
        let pin = match &self.trust {
            Trust::Pin(pin) => Some(*pin.as_bytes()),
            Trust::WebPki(_) => None,
        };
        RelayAddress { host: self.name.clone(), port: self.socket.port(), pin }
    }

    /// An address for tests that dial nobody.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let socket = SocketAddr::from(([127, 0, 0, 1], 9));
        Self { socket, name: "relay.test".to_owned(), trust: Trust::Pin(Pin::from_bytes([0; Pin::LENGTH])) }
    }
}

/// The relay under load.
pub(crate) struct Relay {
    pub(crate) address: Address,
    pid: Option<u32>,
    child: Option<ChildRelay>,
}

impl Relay {
    /// Starts an embedded relay, or finds the one that was named.
    pub(crate) fn start(target: &Target) -> Result<Self> {
        if target.is_embedded() {
            let child = ChildRelay::start()?;
            let address = child.address.clone();
            return Ok(Self { address, pid: None, child: Some(child) });
        }
        let named = RelayAddress::parse(&target.relay).ok().context("--relay: give HOST, HOST:PORT or embedded")?;
        let mut found = (named.host.as_str(), named.port).to_socket_addrs().context("--relay: no such name")?;
        let socket = found.next().context("--relay: the name has no address")?;
        let address = Address { socket, name: named.host, trust: trust(target.pin) };
        Ok(Self { address, pid: target.relay_pid, child: None })
    }

    /// Its process, if it is on this machine.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.process.id()).or(self.pid)
    }

    /// Kills an embedded relay and starts it again, at the same address and with the same key.
    pub(crate) fn kill_and_restart(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { bail!("only an embedded relay can be killed") };
        child.restart()
    }
}

fn trust(pin: Option<Pin>) -> Trust {
    pin.map_or_else(
        || {
            let mut roots = rustls::RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            Trust::WebPki(Arc::new(roots))
        },
        Trust::Pin,
    )
}

/// A relay in a process of its own, which ends with this one.
struct ChildRelay {
    process: Child,
    address: Address,
    key: TempDir,
}

/// What the child says when it listens.
#[derive(Serialize, Deserialize)]
struct Listening {
    addr: SocketAddr,
    pin: String,
}

impl ChildRelay {
    fn start() -> Result<Self> {
        let key = tempfile::tempdir().context("no directory for the relay's key")?;
        let (process, address) = spawn(SocketAddr::from(([127, 0, 0, 1], 0)), key.path())?;
        Ok(Self { process, address, key })
    }

    fn restart(&mut self) -> Result<()> {
        self.end();
        let (process, _same) = spawn(self.address.socket, self.key.path())?;
        self.process = process;
        Ok(())
    }

    fn end(&mut self) {
        // Fails only when it is gone already.
        let _killed = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Drop for ChildRelay {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(listen: SocketAddr, key: &Path) -> Result<(Child, Address)> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut process = Command::new(program)
        .arg("serve-relay")
        .args(["--listen", &listen.to_string(), "--key"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a relay")?;
    let mut line = String::new();
    let out = process.stdout.take().context("the relay has no output")?;
    BufReader::new(out).read_line(&mut line)?;
    let listening: Listening = serde_json::from_str(&line).context("the relay did not start")?;
    let trust = Trust::Pin(listening.pin.parse()?);
    Ok((process, Address { socket: listening.addr, name: "relay.localhost".to_owned(), trust }))
}

/// The child: a relay as the program runs it, but for its bounds on clients of one network and on their number.
///
/// # Errors
/// When it cannot start, or cannot go on.
pub(crate) fn serve(options: &ServeRelay) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = ServerConfig {
            listen: options.listen,
            identity: Identity::SelfSigned(SelfSigned::Kept(options.key.clone())),
            limits: gate::Limits { max_connections: 100_000, max_per_prefix: 2_000, ..gate::Limits::default() },
            deadlines: Deadlines::default(),
            forwarding: Forwarding::aligned(Forwarding::default().hold),
        };
        let server = Server::bind(&config, Hub::new(system_clock(), hub_config()))?;
        let pin = server.pin().context("a self-signed relay has a pin")?.to_string();
        let listening = serde_json::to_string(&Listening { addr: server.local_addr(), pin })?;
        crate::say(&listening)?;
        server.run(parent_is_gone()).await?;
        Ok(())
    })
}

fn hub_config() -> hub::Config {
    let limits =
        hub::Limits { max_connections: 100_000, max_meetings: 100_000, max_members: 60_000, ..hub::Limits::default() };
    hub::Config { limits, aligns_clocks: true, ..hub::Config::default() }
}

/// Completes when the other end of standard input is closed, which the kernel does for whoever is killed.
async fn parent_is_gone() {
    let waiting = tokio::task::spawn_blocking(|| {
        let mut rest = Vec::new();
        // An error means the same as the end.
        let _end = std::io::stdin().lock().read_to_end(&mut rest);
    });
    let _ended = waiting.await;
    // Nobody reads it any more.
    let _flushed = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn on_one_machine_members_come_from_many_networks_of_few_each() {
        let address = Address::nowhere();
        let homes: Vec<_> = (0..16_000).filter_map(|client| address.home_of(client, 16)).collect();
        assert!(homes.chunks(16).all(|few| few.iter().all(|home| *home == few[0])));
        let networks: BTreeSet<_> = homes.into_iter().collect();
        assert_eq!(networks.len(), 1_000);
        assert!(networks.iter().all(IpAddr::is_loopback) && !networks.contains(&address.socket.ip()));
    }
}
