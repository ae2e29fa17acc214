//! The few messages of STUN (RFC 8489) and TURN (RFC 8656) that it takes to use a server which asks for no credentials.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

use crate::pattern::FRAME_LEN;

/// RFC 8489 §5.
const MAGIC_COOKIE: u32 = 0x2112_a442;
const HEADER_LEN: usize = 20;

/// Requests (RFC 8656 §17); the answer has one more bit for success, two for an error.
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;
const ERROR: u16 = 0x0110;

/// Attributes (RFC 8656 §18, RFC 8489 §18.3).
const ERROR_CODE: u16 = 0x0009;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;

/// UDP's number in REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// Address family IPv4 (RFC 8489 §14.1).
const IPV4: u8 = 1;

/// Channel numbers of RFC 8656 §12.
const FIRST_CHANNEL: u16 = 0x4000;
const LAST_CHANNEL: u16 = 0x4fff;

/// Bytes before the payload of ChannelData.
const CHANNEL_HEADER_LEN: usize = 4;

/// A channel of an allocation to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel(u16);

impl Channel {
    /// The channel with this number, from 0; `None` beyond the last.
    pub fn numbered(number: u16) -> Option<Self> {
        let number = FIRST_CHANNEL.checked_add(number)?;
        (number <= LAST_CHANNEL).then_some(Self(number))
    }

    /// ChannelData with a frame: channel number ‖ length ‖ frame. Over UDP it needs no padding (RFC 8656 §12.5).
    pub fn data(self, frame: &[u8; FRAME_LEN]) -> [u8; CHANNEL_HEADER_LEN + FRAME_LEN] {
        let mut bytes = [0; CHANNEL_HEADER_LEN + FRAME_LEN];
        bytes[..2].copy_from_slice(&self.0.to_be_bytes());
        bytes[2..4].copy_from_slice(&(FRAME_LEN as u16).to_be_bytes());
        bytes[4..].copy_from_slice(frame);
        bytes
    }
}

/// What the server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did it.
    Success,
    /// It did not, for the reason with this number (RFC 8656 §19).
    Refused(u16),
}

/// A request, ready to be sent as often as it takes.
#[derive(Debug)]
pub struct Request {
    kind: u16,
    bytes: Vec<u8>,
}

impl Request {
    /// For an allocation that relays UDP. `client` keeps the requests of several clients apart.
    pub fn allocate(client: u32) -> Self {
        Self::new(ALLOCATE, client, 0, &[(REQUESTED_TRANSPORT, &[UDP, 0, 0, 0])])
    }

    /// For a channel to an address.
    ///
    /// # Errors
    /// The address is not of IPv4.
    pub fn bind(client: u32, channel: Channel, peer: SocketAddr) -> Result<Self> {
        let [high, low] = channel.0.to_be_bytes();
        let attributes: [(u16, &[u8]); 2] =
            [(CHANNEL_NUMBER, &[high, low, 0, 0]), (XOR_PEER_ADDRESS, &xor_address(peer)?)];
        Ok(Self::new(CHANNEL_BIND, client, channel.0.into(), &attributes))
    }

    /// Attributes here are multiples of four bytes long, so that none needs padding.
    fn new(kind: u16, client: u32, number: u32, attributes: &[(u16, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (name, value) in attributes {
            body.extend(name.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.extend(kind.to_be_bytes());
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        // The transaction id: on loopback nobody has to be kept from guessing it.
        bytes.extend([client, u32::from(kind), number].map(u32::to_be_bytes).concat());
        bytes.extend(body);
        Self { kind, bytes }
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What this answer says; `None` if it does not answer this request.
    pub fn outcome(&self, answer: &[u8]) -> Option<Outcome> {
        let (header, attributes) = answer.split_at_checked(HEADER_LEN)?;
        if header[4..] != self.bytes[4..HEADER_LEN] {
            return None;
        }
        let kind = u16::from_be_bytes([header[0], header[1]]);
        if kind == self.kind | SUCCESS {
            Some(Outcome::Success)
        } else if kind == self.kind | ERROR {
            Some(Outcome::Refused(error_code(attributes).unwrap_or(0)))
        } else {
            None
        }
    }
}

/// Family, port and address, masked with the magic cookie (RFC 8489 §14.2).
fn xor_address(address: SocketAddr) -> Result<[u8; 8]> {
    let IpAddr::V4(ip) = address.ip() else { bail!("not an IPv4 address: {address}") };
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = ip.to_bits() ^ MAGIC_COOKIE;
    let mut bytes = [0, IPV4, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..].copy_from_slice(&ip.to_be_bytes());
    Ok(bytes)
}

/// The number in ERROR-CODE: hundreds in the third byte, the rest in the fourth (RFC 8489 §14.8).
fn error_code(mut attributes: &[u8]) -> Option<u16> {
    loop {
        let (head, rest) = attributes.split_first_chunk::<4>()?;
        let name = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if name == ERROR_CODE {
            return Some(u16::from(*rest.get(2)? & 7) * 100 + u16::from(*rest.get(3)?));
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_rfc_5769_is_masked_as_there() {
        let masked = xor_address("192.0.2.1:32853".parse().unwrap()).unwrap();
        assert_eq!(masked, [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert!(xor_address("[::1]:1".parse().unwrap()).is_err());
    }

    #[test]
    fn a_request_knows_its_answers() {
        let request = Request::allocate(1);
        let mut answer = request.bytes().to_vec();
        assert_eq!(request.outcome(&answer), None);
        answer[0] = 0x01;
        assert_eq!(request.outcome(&answer), Some(Outcome::Success));
        assert_eq!(Request::allocate(2).outcome(&answer), None);
        assert_eq!(request.outcome(&answer[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn a_refusal_has_its_number() {
        let request = Request::allocate(1);
        let mut answer = request.bytes()[..HEADER_LEN].to_vec();
        answer[..2].copy_from_slice(&[0x01, 0x13]);
        // SOFTWARE of three bytes and one of padding, then 437.
        answer.extend([0x80, 0x22, 0, 3, b'x', b'y', b'z', 0, 0x00, 0x09, 0, 4, 0, 0, 4, 37]);
        assert_eq!(request.outcome(&answer), Some(Outcome::Refused(437)));
    }

    #[test]
    fn channels_begin_at_4000_and_end_at_4fff() {
        assert_eq!(Channel::numbered(0), Some(Channel(0x4000)));
        assert_eq!(Channel::numbered(0x0fff), Some(Channel(0x4fff)));
        assert_eq!(Channel::numbered(0x1000), None);
    }
}
