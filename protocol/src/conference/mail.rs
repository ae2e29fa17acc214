//! What travels through the mailbox and between members, as the relay sees it: a kind and opaque bytes
//! (`docs/protocol.md` §6.1).

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
    Message1(&'a [u8]),
    Message2(&'a [u8]),
    Message3(&'a [u8]),
    /// The whole packet, its kind included.
    Session(&'a [u8]),
    Turned(Turned),
}

impl<'a> Mail<'a> {
    /// Reads a mail; `None` when it is of no known kind.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes {
            [MESSAGE_1, body @ ..] => Some(Self::Message1(body)),
            [MESSAGE_2, body @ ..] => Some(Self::Message2(body)),
            [MESSAGE_3, body @ ..] => Some(Self::Message3(body)),
            [session::PACKET_KIND, ..] => Some(Self::Session(bytes)),
            [REFUSAL, 1] => Some(Self::Turned(Turned::Away)),
            [REFUSAL, 2] => Some(Self::Turned(Turned::WrongPasscode)),
            [REFUSAL, 3] => Some(Self::Turned(Turned::Later)),
            _ => None,
        }
    }

    /// The bytes of a mail.
    pub(super) fn bytes(self) -> Vec<u8> {
        let with = |kind: u8, body: &[u8]| [&[kind], body].concat();
        match self {
            Self::Message1(body) => with(MESSAGE_1, body),
            Self::Message2(body) => with(MESSAGE_2, body),
            Self::Message3(body) => with(MESSAGE_3, body),
            Self::Session(packet) => packet.to_vec(),
            Self::Turned(Turned::Away) => vec![REFUSAL, 1],
            Self::Turned(Turned::WrongPasscode) => vec![REFUSAL, 2],
            Self::Turned(Turned::Later) => vec![REFUSAL, 3],
        }
    }
}
