//! The messages of Mumble's control protocol that a client must know, with their numbers and the fields used here.

use prost::Message;

/// A message of a known kind.
pub trait Kind: Message + Default {
    /// Its number on the wire.
    const NUMBER: u16;
}

/// What the client is.
#[derive(Clone, PartialEq, Message)]
pub struct Version {
    /// Major, minor and patch in 2, 1 and 1 bytes.
    #[prost(uint32, optional, tag = "1")]
    pub version: Option<u32>,
}

/// Who wants to join.
#[derive(Clone, PartialEq, Message)]
pub struct Authenticate {
    /// The name others see.
    #[prost(string, optional, tag = "1")]
    pub username: Option<String>,
    /// Whether the client knows Opus.
    #[prost(bool, optional, tag = "5")]
    pub opus: Option<bool>,
}

/// A sign of life.
#[derive(Clone, PartialEq, Message)]
pub struct Ping {}

/// Why the server does not let somebody in.
#[derive(Clone, PartialEq, Message)]
pub struct Reject {
    /// In words.
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
}

/// The end of what the server tells a client that has joined.
#[derive(Clone, PartialEq, Message)]
pub struct ServerSync {}

/// Keys for voice over UDP.
#[derive(Clone, PartialEq, Message)]
pub struct CryptSetup {
    /// AES-128, for both ways.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub key: Option<Vec<u8>>,
    /// The client's first counter.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub client_nonce: Option<Vec<u8>>,
    /// The server's first counter.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub server_nonce: Option<Vec<u8>>,
}

impl Kind for Version {
    const NUMBER: u16 = 0;
}

impl Kind for Authenticate {
    const NUMBER: u16 = 2;
}

impl Kind for Ping {
    const NUMBER: u16 = 3;
}

impl Kind for Reject {
    const NUMBER: u16 = 4;
}

impl Kind for ServerSync {
    const NUMBER: u16 = 5;
}

impl Kind for CryptSetup {
    const NUMBER: u16 = 15;
}
