//! Datagrams between clients and relay (`docs/protocol.md` §6.3). The bytes a sender gives the relay are the bytes
//! that every listener gets, so forwarding copies nothing.
//!
//! ```text
//! kind u8 ‖ slot u16 ‖ body          kind 1: SFrame ciphertext, kind 2: removal notice
//! ```

use crate::id::MemberIndex;

/// Kind and slot.
pub const HEADER_LEN: usize = 3;
/// Longest datagram accepted: fits every path that QUIC runs on, after QUIC's own header.
pub const MAX_LEN: usize = 1162;

/// What a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An SFrame ciphertext.
    Media,
    /// A leader's notice of a removal.
    Removal,
}

/// A datagram's outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// What `body` is.
    pub kind: Kind,
    /// The sender's slot, which the relay has checked.
    pub slot: MemberIndex,
    /// Opaque to the relay.
    pub body: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Splits a datagram; `None` when it is too short, too long or of no known kind.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let kind = match header[0] {
            1 => Kind::Media,
            2 => Kind::Removal,
            _ => return None,
        };
        if bytes.len() > MAX_LEN || body.is_empty() {
            return None;
        }
        Some(Self { kind, slot: MemberIndex(u16::from_be_bytes([header[1], header[2]])), body })
    }
}

/// The outside of a datagram of `slot`.
pub fn header(kind: Kind, slot: MemberIndex) -> [u8; HEADER_LEN] {
    let [hi, lo] = slot.0.to_be_bytes();
    let kind = match kind {
        Kind::Media => 1,
        Kind::Removal => 2,
    };
    [kind, hi, lo]
}
