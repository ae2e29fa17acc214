//! The control connection: TLS over TCP, messages as number, length and protobuf.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::cryptstate::Keys;
use super::messages::{Authenticate, CryptSetup, Kind, Ping, Reject, ServerSync, Version};
use super::{Line, voice};
use crate::credentials::{self, Credentials};

/// How long the server may take to open its port, and for each step of a join.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often to try whether the port is open.
const RETRY: Duration = Duration::from_millis(50);

/// How often clients of Mumble show that they live, over both TCP and UDP.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The version whose protocol this speaks: 1.3.4, like Debian's server.
const VERSION: u32 = 0x0001_0304;

/// The longest message that the protocol allows.
const LONGEST: usize = 8 * 1024 * 1024;

/// A member's control connection.
pub struct Control {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl Control {
    /// Connects and joins under a name of its own, until the server has told all.
    pub async fn join(server: SocketAddr, credentials: &Credentials, member: usize) -> Result<(Self, Keys)> {
        let stream = connect(server).await?;
        // Small messages that wait for each other: Nagle's algorithm would delay them.
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(credentials::NAME)?;
        let stream = TlsConnector::from(credentials.client()).connect(name, stream).await.context("TLS")?;
        let (reader, writer) = split(stream);
        let mut control = Self { reader, writer };
        control.send(&Version { version: Some(VERSION) }).await?;
        let username = Some(format!("member-{member}"));
        control.send(&Authenticate { username, opus: Some(true) }).await?;
        let keys = timeout(PATIENCE, control.receive_keys()).await.context("the server does not answer")??;
        Ok((control, keys))
    }

    async fn receive_keys(&mut self) -> Result<Keys> {
        let mut keys = None;
        loop {
            let (number, body) = receive(&mut self.reader).await?;
            if let Some(Reject { reason }) = parse(number, &body)? {
                bail!("the server refuses: {}", reason.unwrap_or_default());
            } else if let Some(setup) = parse::<CryptSetup>(number, &body)? {
                keys = Some(Keys::try_from(setup)?);
            } else if parse::<ServerSync>(number, &body)?.is_some() {
                return keys.context("the server gave no keys");
            }
        }
    }

    async fn send<M: Kind>(&mut self, message: &M) -> Result<()> {
        let body = message.encode_to_vec();
        let mut bytes = Vec::with_capacity(6 + body.len());
        bytes.extend(M::NUMBER.to_be_bytes());
        bytes.extend(u32::try_from(body.len())?.to_be_bytes());
        bytes.extend(body);
        self.writer.write_all(&bytes).await?;
        Ok(self.writer.flush().await?)
    }

    /// Keeps a member in the room: reads what the server tells, and pings over TCP and UDP.
    pub async fn keep(mut self, line: Arc<Line>) -> Result<()> {
        let mut pings = interval(PING_INTERVAL);
        let mut buffer = vec![0; 4096];
        loop {
            tokio::select! {
                _ = pings.tick() => {
                    line.send(&voice::PING)?;
                    self.send(&Ping {}).await?;
                }
                read = self.reader.read(&mut buffer) => {
                    if read? == 0 {
                        bail!("the server has closed the connection");
                    }
                }
            }
        }
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(server).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > end => return Err(error).context("the server's port does not open"),
            Err(_) => sleep(RETRY).await,
        }
    }
}

async fn receive(reader: &mut ReadHalf<TlsStream<TcpStream>>) -> Result<(u16, Vec<u8>)> {
    let number = reader.read_u16().await?;
    let length = usize::try_from(reader.read_u32().await?)?;
    if length > LONGEST {
        bail!("a message of {length} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok((number, body))
}

/// The message, if it is of this kind.
fn parse<M: Kind>(number: u16, body: &[u8]) -> Result<Option<M>> {
    (number == M::NUMBER).then(|| M::decode(body).context("a message that is none")).transpose()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_message_is_parsed_as_what_its_number_says() {
        let body = Reject { reason: Some("full".into()) }.encode_to_vec();
        assert_eq!(parse::<Reject>(Reject::NUMBER, &body).unwrap().unwrap().reason.unwrap(), "full");
        assert!(parse::<ServerSync>(Reject::NUMBER, &body).unwrap().is_none());
        assert!(parse::<Reject>(Reject::NUMBER, &body[..3]).is_err());
    }
}
