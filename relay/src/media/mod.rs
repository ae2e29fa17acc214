//! Media packets: frames beside QUIC, on the same port and with keys of the same TLS session (`docs/protocol.md` §6.5).
//!
//! A QUIC packet costs both ends more than what is in it: it is remembered until it is acknowledged, it may be declared lost,
//! and acknowledgements are packets too. Nobody sends a frame again, so frames need none of that. A media packet is what is
//! left: an address among a socket's connections, a number, frames, and RFC 9001's packet protection around them. Control
//! messages that are not urgent go along with frames; those that are lost, of which the client tells, go again in QUIC.
//! Everything else stays in QUIC; and where media packets don't get through, all travels in QUIC.
//!
//! Pure: bytes and times come in as arguments. [`tap`] alone knows a socket, that of `quinn`.

mod client;
mod keys;
mod packet;
mod parts;
mod quiet;
mod relay;
pub mod tap;
#[cfg(test)]
mod tests;
mod window;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quinn_proto::{EcnCodepoint, Transmit};

pub use client::ClientPath;
pub use keys::{Opener, Sealer, Secrets};
pub(crate) use packet::{FILLED, ROOM, begin, datagram_len, message_len, part_len, push, push_message, push_part};
pub use packet::{Flags, Item, MAX_PACKET, Part, destination, is_media, items};
#[cfg(test)]
pub(crate) use parts::Parts;
pub use quiet::Quiet;
pub(crate) use relay::{KEPT_FOR, RelayPath};
pub use window::Receipt;

/// How a media packet is sent by a loop that drives `quinn-proto`: marked as QUIC's packets are, so that they go by one call.
pub fn transmit(destination: SocketAddr, src_ip: Option<IpAddr>, packet: &[u8]) -> Transmit {
    Transmit { destination, ecn: Some(EcnCodepoint::Ect0), size: packet.len(), segment_size: None, src_ip }
}

/// How often a client asks whether its media packets come through: two small packets a second for both ends. A relay asks its
/// clients for their questions as often, many at the same time, so that it does not wake up for each.
pub(crate) const ASK_EVERY: Duration = Duration::from_secs(1);

/// Who hears nothing for so long asks for a sign of life. A client suspects its relay after 1.25 s of silence: there is time
/// for the answer, and to ask again.
const QUIET: Duration = Duration::from_millis(500);

/// Who hears packets all the time asks when the next comes: then whoever sends them is awake, and so is who hears them. It waits
/// for that no longer than this, which is more than a frame's duration.
const ASK_ALONG: Duration = Duration::from_millis(30);

/// A relay answers by the next frames that leave, if they do so within that time. Who gets no answer asks again.
const ANSWER_ALONG: Duration = Duration::from_millis(100);

/// How often until there is an answer: the relay gives none before the first control message.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// So many times; then something on the way seems to let only QUIC through, which may change.
const EAGER: u32 = 10;
const ASK_RARELY: Duration = Duration::from_secs(5);

/// Silence after which a direction counts as blocked: two questions and their answers may be lost.
const TRUSTED_FOR: Duration = Duration::from_millis(3_500);
