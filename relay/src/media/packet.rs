//! What a media packet looks like (`docs/protocol.md` §6.5).
//!
//! ```text
//! 0   first byte   0 0 0 A Q H 1 1: what the sender says of the path; the lower five bits are protected
//! 1   destination  u64, names the connection at the receiver
//! 9   number       u32, protected
//! 13  items        each: u16 length ‖ datagram (§6.3), u8 3 ‖ control message (§6.2), u8 4 ‖ receipt,
//!                  or u8 5 ‖ id u32 ‖ at u16 ‖ of u16 ‖ part of a control message
//!     tag          16
//! ```

use std::ops::Range;

use super::window::Receipt;

/// The longest packet: what every path of QUIC carries (RFC 9000 §14).
pub const MAX_PACKET: usize = 1_200;

pub(super) const DESTINATION: Range<usize> = 1..9;
pub(super) const NUMBER: Range<usize> = 9..13;
/// Bytes before the frames.
pub(super) const HEADER: usize = 13;
/// Bytes behind them.
pub(super) const TAG: usize = 16;
/// Bytes of an item's length.
const LENGTH: usize = 2;
/// First byte of a control message that travels beside QUIC. No datagram (§6.3) begins so.
const MESSAGE: u8 = 3;
/// First byte of a receipt.
const RECEIPT: u8 = 4;
/// First byte of a part of a control message, and its bytes up to those of the message.
const PART: u8 = 5;
const PART_HEADER: usize = 1 + 4 + 2 + 2;
/// Bytes of a packet that its items may fill, with their lengths.
pub(crate) const ROOM: usize = MAX_PACKET - HEADER - TAG;
/// Bytes of a packet that has no more room, before it is completed.
pub(crate) const FILLED: usize = MAX_PACKET - TAG;

/// Bits that no media packet has: QUIC's header form and fixed bit (RFC 9000 §17.2, §17.3.1), and one for what may come.
const RESERVED: u8 = 0b1110_0000;
/// Says to header protection that the number has four bytes (RFC 9001 §5.4.1).
const NUMBER_OF_FOUR: u8 = 0b11;

/// What the sender says of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// Media packets reach it.
    pub hears: bool,
    /// It wants an answer.
    pub asks: bool,
    /// This is one.
    pub answers: bool,
}

impl Flags {
    pub(super) fn first_byte(self) -> u8 {
        NUMBER_OF_FOUR | u8::from(self.hears) << 2 | u8::from(self.asks) << 3 | u8::from(self.answers) << 4
    }

    pub(super) fn of(first: u8) -> Self {
        Self { hears: first & 1 << 2 != 0, asks: first & 1 << 3 != 0, answers: first & 1 << 4 != 0 }
    }
}

/// Whether a UDP datagram is a media packet, and not one of QUIC. That holds where the receiver has not allowed QUIC's fixed
/// bit to be greased (RFC 9287).
#[must_use]
pub fn is_media(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & RESERVED == 0)
}

/// For which connection of the receiver a media packet is; `None` if it is too short to be one.
#[must_use]
pub fn destination(packet: &[u8]) -> Option<u64> {
    let long_enough = packet.len() >= HEADER + TAG;
    let bytes = packet.get(DESTINATION).filter(|_| long_enough)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Begins a packet in an empty buffer.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.resize(HEADER, 0);
}

/// Bytes of a packet that a datagram fills.
pub(crate) fn datagram_len(datagram: &[u8]) -> usize {
    LENGTH + datagram.len()
}

/// Bytes of a packet that a control message fills.
pub(crate) fn message_len(message: &[u8]) -> usize {
    LENGTH + 1 + message.len()
}

/// Bytes of a packet that a part of a control message fills.
pub(crate) fn part_len(bytes: usize) -> usize {
    LENGTH + PART_HEADER + bytes
}

/// Adds a datagram to a packet that has begun; `false` if it has no room there.
pub(crate) fn push(buffer: &mut Vec<u8>, datagram: &[u8]) -> bool {
    push_item(buffer, &[], datagram)
}

/// Adds a control message.
pub(crate) fn push_message(buffer: &mut Vec<u8>, message: &[u8]) -> bool {
    push_item(buffer, &[MESSAGE], message)
}

/// Adds a part of a control message.
pub(crate) fn push_part(buffer: &mut Vec<u8>, part: Part<'_>) -> bool {
    let mut header = [PART; PART_HEADER];
    header[1..5].copy_from_slice(&part.id.to_be_bytes());
    header[5..7].copy_from_slice(&part.at.to_be_bytes());
    header[7..].copy_from_slice(&part.of.to_be_bytes());
    push_item(buffer, &header, part.bytes)
}

/// Adds a receipt.
pub(super) fn push_receipt(buffer: &mut Vec<u8>, receipt: &Receipt) -> bool {
    push_item(buffer, &[RECEIPT], &receipt.encode())
}

fn push_item(buffer: &mut Vec<u8>, kind: &[u8], body: &[u8]) -> bool {
    let Ok(length) = u16::try_from(kind.len() + body.len()) else { return false };
    if buffer.len() + LENGTH + usize::from(length) + TAG > MAX_PACKET {
        return false;
    }
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(kind);
    buffer.extend_from_slice(body);
    true
}

/// A part of a control message that has no room in one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    /// The same for all parts of a message, and for no other that is on its way.
    pub id: u32,
    /// Where in the message it begins.
    pub at: u16,
    /// Bytes of the message.
    pub of: u16,
    /// What stands there.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (of, bytes) = rest.split_first_chunk()?;
        let part =
            Self { id: u32::from_be_bytes(*id), at: u16::from_be_bytes(*at), of: u16::from_be_bytes(*of), bytes };
        part.range().map(|_| part)
    }

    /// Which bytes of the message it brings; `None` if there are no such.
    pub(super) fn range(&self) -> Option<Range<usize>> {
        let range = usize::from(self.at)..usize::from(self.at) + self.bytes.len();
        let is_part = !range.is_empty() && range.end <= usize::from(self.of) && usize::from(self.of) <= MAX_PACKET;
        is_part.then_some(range)
    }
}

/// What a media packet brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A datagram (§6.3).
    Datagram(&'a [u8]),
    /// A control message (§6.2), to a client.
    Message(&'a [u8]),
    /// Some of one.
    Part(Part<'a>),
    /// Which packets have come, to a relay.
    Receipt(Receipt),
}

impl<'a> Item<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&MESSAGE, message) => Some(Self::Message(message)),
            (&PART, part) => Part::decode(part).map(Self::Part),
            (&RECEIPT, receipt) => Receipt::decode(receipt).map(Self::Receipt),
            _ => Some(Self::Datagram(bytes)),
        }
    }
}

/// What is in an opened packet. Ends where the packet is malformed, which only its authentic sender can have made it.
pub fn items(packet: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let end = packet.len().saturating_sub(TAG);
    let mut rest = packet.get(HEADER..end).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<LENGTH>()?;
        let (item, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = behind;
        Item::of(item)
    })
}
