//! A client: the real protocol, a frame clock, and two ends of a path to the relay.

use std::collections::BTreeMap;
use std::time::Duration;

use conclave_protocol::conference::{Conference, Event};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::sframe::frame::MAX_OPUS;
use conclave_relay::core::ConnId;

use super::dice::Drawn;
use super::net::Pipe;

/// Names a client of a world, in the order they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Who(pub usize);

/// The client that made the meeting.
pub const HOST: Who = Who(0);

/// What a client's talk sounds like: bytes that nobody else sends, and that cannot come about by chance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Voice(pub [u8; 8]);

impl Voice {
    /// The Opus packet of a tick.
    pub fn packet(&self, seq: u32) -> [u8; MAX_OPUS] {
        let mut packet = [0; MAX_OPUS];
        packet[..8].copy_from_slice(&self.0);
        packet[8..12].copy_from_slice(&seq.to_be_bytes());
        for (i, byte) in packet.iter_mut().enumerate().skip(12) {
            *byte = (i as u8).wrapping_mul(31) ^ self.0[i % 8] ^ seq as u8;
        }
        packet
    }
}

/// What a client does about the end of its meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manners {
    /// Hangs up when it is over, as the real client does.
    HangsUp,
    /// Stays connected and goes on trying to open whatever comes.
    Spies,
}

/// One client.
pub struct Peer {
    /// Its name, which nobody else has.
    pub name: String,
    /// The protocol.
    pub conference: Conference,
    /// To the relay.
    pub up: Pipe,
    /// From the relay.
    pub down: Pipe,
    /// Its connection, while it has one.
    pub conn: Option<ConnId>,
    /// Whether frames go out when they can.
    pub talks: bool,
    /// Whether its microphone is off: its frames say so and hold no sound.
    pub mutes: bool,
    /// What it does when it is over.
    pub manners: Manners,
    /// Its process was killed.
    pub dead: bool,
    /// It has hung up for good.
    pub gone: bool,
    /// Everything it was told, and when.
    pub events: Vec<(Duration, Event)>,
    /// When each frame was opened, by index and tick of the talker.
    pub opened: BTreeMap<(u16, u32), Duration>,
    /// Datagrams that reached it.
    pub datagrams: u64,
    pub(super) voice: Voice,
    pub(super) drawn: Drawn,
    pub(super) tick: u32,
    pub(super) timer: Option<Duration>,
    pub(super) seen_epoch: (Option<MemberIndex>, u32),
}

impl Peer {
    /// Whether it was told something like this.
    pub fn was_told(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| what(event))
    }

    /// When it was told something like this for the first time.
    pub fn when_told(&self, what: impl Fn(&Event) -> bool) -> Option<Duration> {
        self.events.iter().find(|(_, event)| what(event)).map(|(at, _)| *at)
    }

    /// Whether anything happened that no honest party does.
    pub fn alarms(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, Event::Alarm { .. })).count()
    }

    /// The roster, by index.
    pub fn roster(&self) -> BTreeMap<u16, String> {
        self.conference.members().map(|member| (member.index.0, member.name.as_str().to_owned())).collect()
    }

    /// How many frames of that index it has opened.
    pub fn heard(&self, index: u16) -> usize {
        self.opened.range((index, 0)..=(index, u32::MAX)).count()
    }
}
