//! A forwarder as one writes it with quinn in an afternoon: what arrives from one client goes to all others. Everything
//! is quinn's default. `conclave-peers` starts it; the first line on standard output is its address.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use clap::Parser;
use quinn::{Connection, Endpoint, Incoming, SendDatagramError, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Forwards each QUIC datagram to all other clients.
#[derive(Parser)]
struct Arguments {
    /// Certificate, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// The certificate's key, PEM
    #[arg(long)]
    key: PathBuf,
}

/// Who is connected, by quinn's stable id.
type Room = Arc<Mutex<BTreeMap<usize, Connection>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { certificate, key } = Arguments::parse();
    let certificate = CertificateDer::from_pem_file(certificate).context("--certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("--key")?;
    let config = ServerConfig::with_single_cert(vec![certificate], key)?;
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    writeln!(stdout(), "{}", endpoint.local_addr()?)?;
    let room = Room::default();
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(incoming, Arc::clone(&room)));
    }
    Ok(())
}

async fn serve(incoming: Incoming, room: Room) {
    let Ok(connection) = incoming.await else { return };
    let own = connection.stable_id();
    room.lock().unwrap_or_else(PoisonError::into_inner).insert(own, connection.clone());
    while let Ok(frame) = connection.read_datagram().await {
        for (id, other) in room.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *id != own {
                // A client that has just gone is taken out by its own task.
                let _sent: Result<(), SendDatagramError> = other.send_datagram(frame.clone());
            }
        }
    }
    room.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
}
