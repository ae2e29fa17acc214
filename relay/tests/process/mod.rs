//! A relay as a process, and members of a meeting on it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::capability::{Capability, Rights};
use conclave_protocol::descriptor::{Descriptor, Policy};
use conclave_protocol::id::{MeetingId, MemberIndex};
use conclave_protocol::sign::KeyPair;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, ToRelay};
use conclave_relay::clock::system_time;
use conclave_relay::dial::{Dialed, bind_for, client_endpoint, dial};
use conclave_relay::tls::{Pin, Trust};

/// How long a test waits for what must come; long enough for a machine under load.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running relay; killed when dropped, if it is a process of its own.
pub struct Relay {
    pub child: Option<Child>,
    pub address: SocketAddr,
    pub pin: Pin,
    /// Where its counters are shown, if anywhere.
    pub metrics: Option<SocketAddr>,
}

impl Relay {
    pub fn start(options: &[&str]) -> Self {
        let always = ["serve", "--self-signed", "--listen", "127.0.0.1:0", "--connection-rate-per-network", "1000"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-relay"));
        command.env_clear().args(always).args(options).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| announced[name].as_str().unwrap().to_owned();
        let (address, pin) = (text("addr").parse().unwrap(), text("pin").parse().unwrap());
        let metrics = announced["metrics"].as_str().map(|address| address.parse().unwrap());
        Self { child: Some(child), address, pin, metrics }
    }

    pub async fn dial(&self) -> Dialed {
        let endpoint = client_endpoint(bind_for(self.address)).unwrap();
        dial(&endpoint, self.address, "relay.test", &Trust::Pin(self.pin), PATIENCE).await.unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A meeting, with the key of its host.
pub struct Meeting {
    pub authority: KeyPair,
    pub descriptor: Descriptor,
    pub id: MeetingId,
}

/// The routing key of a slot's member.
pub fn routing_key(slot: u16) -> KeyPair {
    KeyPair::from_seed(&[slot.to_be_bytes()[1]; 32])
}

impl Meeting {
    pub fn new(seed: u8) -> Self {
        let authority = KeyPair::from_seed(&[seed; 32]);
        let now = system_time();
        let descriptor = Descriptor {
            hs: [seed; 32],
            authority: authority.public(),
            not_before: now.minus(Duration::from_secs(60)),
            not_after: now.plus(Duration::from_secs(3_600)),
            policy: Policy::DEFAULT,
            frame_ms: 20,
            max_members: 1_000,
            nonce: [seed; 16],
            moderator: [0; 32],
            regions: Vec::new(),
        };
        let id = descriptor.meeting_id();
        Self { authority, descriptor, id }
    }

    /// A member in a slot, and what the relay has said of itself.
    pub async fn enter(&self, relay: &Relay, slot: u16) -> (Client, FromRelay) {
        let mut client = Client { dialed: relay.dial().await };
        let (meeting, descriptor) = (self.id, Some(self.descriptor.clone()));
        client.say(&ToRelay::Hello { meeting, descriptor, revoked: None, line: None }).await;
        let welcome = client.hear().await;
        let rk = routing_key(slot);
        let now: UnixMillis = system_time();
        let capability = Capability {
            meeting: self.id,
            slot: MemberIndex(slot),
            rk: rk.public(),
            rights: Rights::MEMBER,
            not_before: now,
            not_after: now.plus(Duration::from_secs(120)),
            serial: 1,
            signer: MemberIndex::HOST,
        };
        let capability = capability.sign(&self.authority);
        let possession = capability.prove(&rk, &client.dialed.exporter);
        client.say(&ToRelay::Attach { capability, possession }).await;
        loop {
            if let FromRelay::Attached { .. } = client.hear().await {
                return (client, welcome);
            }
        }
    }
}

/// A connected client.
pub struct Client {
    pub dialed: Dialed,
}

impl Client {
    pub async fn say(&mut self, message: &ToRelay) {
        self.dialed.writer.send(Bytes::from(message.encode())).await.unwrap();
    }

    pub async fn hear(&mut self) -> FromRelay {
        let next = tokio::time::timeout(PATIENCE, self.dialed.reader.next()).await.unwrap();
        FromRelay::decode(next.unwrap().unwrap()).unwrap()
    }
}
