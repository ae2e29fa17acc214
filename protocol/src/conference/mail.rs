//! What travels through the mailbox and between members, as the relay sees it: a kind and opaque bytes
//! (`docs/protocol.md` §6.1).

use crate::id::MemberIndex;
use crate::noise::session;

/// Kind of a handshake's first message.
const MESSAGE_1: u8 = 1;
/// Kind of a handshake's second message.
const MESSAGE_2: u8 = 2;
/// Kind of a handshake's third message.
const MESSAGE_3: u8 = 3;
/// Kind of a host's refusal. It is not authenticated: who forges one can only do what dropping messages does.
const REFUSAL: u8 = 5;

/// Why a host does not go on with a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turned {
    /// Message 1 or 3 does not authenticate.
    Away,
    /// Message 3 does not authenticate in a meeting with a passcode.
    WrongPasscode,
    /// Not now: wrong passcodes are being slowed down. The handshake stays in the queue.
    Later,
}

/// A mail, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mail<'a> {
    /// Part of a handshake, to a leader or from it. All leaders get a guest's mail, and for a while there may be two:
    /// what is for another is passed over.
    Handshake(MemberIndex, Shake<'a>),
    /// The whole packet, its kind included.
    Session(&'a [u8]),
}

/// What a handshake consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shake<'a> {
    Message1(&'a [u8]),
    Message2(&'a [u8]),
    Message3(&'a [u8]),
    Turned(Turned),
}

impl<'a> Mail<'a> {
    /// Reads a mail; `None` when it is of no known kind.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [kind @ (MESSAGE_1 | MESSAGE_2 | MESSAGE_3 | REFUSAL), hi, lo, body @ ..] = bytes else {
            return (bytes.first() == Some(&session::PACKET_KIND)).then_some(Self::Session(bytes));
        };
        let shake = match (*kind, body) {
            (MESSAGE_1, _) => Shake::Message1(body),
            (MESSAGE_2, _) => Shake::Message2(body),
            (MESSAGE_3, _) => Shake::Message3(body),
            (_, [1]) => Shake::Turned(Turned::Away),
            (_, [2]) => Shake::Turned(Turned::WrongPasscode),
            (_, [3]) => Shake::Turned(Turned::Later),
            _ => return None,
        };
        Some(Self::Handshake(MemberIndex(u16::from_be_bytes([*hi, *lo])), shake))
    }

    /// The bytes of a mail.
    pub(super) fn bytes(self) -> Vec<u8> {
        let (leader, shake) = match self {
            Self::Session(packet) => return packet.to_vec(),
            Self::Handshake(leader, shake) => (leader, shake),
        };
        let (kind, body) = match shake {
            Shake::Message1(body) => (MESSAGE_1, body),
            Shake::Message2(body) => (MESSAGE_2, body),
            Shake::Message3(body) => (MESSAGE_3, body),
            Shake::Turned(Turned::Away) => (REFUSAL, &[1][..]),
            Shake::Turned(Turned::WrongPasscode) => (REFUSAL, &[2][..]),
            Shake::Turned(Turned::Later) => (REFUSAL, &[3][..]),
        };
        [&[kind][..], &leader.0.to_be_bytes(), body].concat()
    }
}
