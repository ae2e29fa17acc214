//! One connection: QUIC, its control stream, the frames that wait for it, and how far it has come.

use std::time::{Duration, Instant};

use quinn_proto::Connection;

use super::bundle::Bundle;
use super::control::Control;
use crate::core::{CloseCode, ConnId, Peer};
use crate::gate::Prefix;

/// How long what is not a frame may wait for the next: a frame's duration. A packet for itself costs as much as one with
/// frames, and to say a little later that somebody spoke, or that a packet came, costs nothing.
const WAIT: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Client {
    pub(super) quic: Connection,
    pub(super) stage: Stage,
    pub(super) control: Option<Control>,
    pub(super) bundle: Bundle,
    /// Not to be read before.
    pub(super) read_again: Option<Instant>,
    /// Datagrams that were read.
    pub(super) datagrams: u64,
    pub(super) queued: Queued,
}

/// In which of the shell's queues a connection is already.
#[derive(Default)]
pub(super) struct Queued {
    /// Its events, messages and packets are to be looked at.
    pub(super) dirty: bool,
    /// And not only because a packet came.
    pub(super) wanted: bool,
    /// Its control stream is to be read.
    pub(super) readable: bool,
    /// Its frames are to leave.
    pub(super) ready: bool,
    /// What it is sent beside frames waits for its next frames, and no longer than until then.
    pub(super) waits_until: Option<Instant>,
}

/// How far a connection has come.
pub(super) enum Stage {
    /// It shakes hands.
    Handshake {
        /// Until then.
        until: Instant,
    },
    /// It has shaken hands, and its first message is awaited.
    Hello {
        /// Until then.
        until: Instant,
        /// Who it is.
        peer: Peer,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
    },
    /// The core knows it.
    Open {
        /// As whom.
        conn: ConnId,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
    },
    /// The core knows it, and has nothing more to hear from it or to say to it.
    Closing {
        /// As whom.
        conn: ConnId,
        /// Its network, among whose connections it has a place.
        prefix: Prefix,
        /// What it will be told.
        code: CloseCode,
        /// The queued messages may take until then.
        until: Instant,
    },
    /// It is over; QUIC says good-bye.
    Over,
}

impl Client {
    pub(super) fn new(quic: Connection, until: Instant) -> Self {
        Self {
            quic,
            stage: Stage::Handshake { until },
            control: None,
            bundle: Bundle::new(),
            read_again: None,
            datagrams: 0,
            queued: Queued::default(),
        }
    }

    /// Whether the core knows it by this name.
    pub(super) fn is(&self, wanted: ConnId) -> bool {
        matches!(self.stage, Stage::Open { conn, .. } | Stage::Closing { conn, .. } if conn == wanted)
    }

    /// As whom the core hears it.
    pub(super) fn heard_as(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Open { conn, .. } => Some(conn),
            _ => None,
        }
    }

    /// Whether what it is to be sent waits: frames that it can go with come in a moment, or have been waited for in vain.
    pub(super) fn waits_for_frames(&mut self, now: Instant) -> bool {
        let is_waiting = match self.queued.waits_until {
            Some(until) => until > now,
            None => self.heard_as().is_some() && self.bundle.is_busy(now),
        };
        if is_waiting {
            self.queued.waits_until.get_or_insert(now + WAIT);
        }
        is_waiting
    }

    /// When it is to be looked at, whatever happens before.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Handshake { until } | Stage::Hello { until, .. } | Stage::Closing { until, .. } => Some(until),
            Stage::Open { .. } | Stage::Over => None,
        };
        [self.quic.poll_timeout(), stage, self.read_again, self.queued.waits_until].into_iter().flatten().min()
    }

    /// Datagrams that came and were never read.
    pub(super) fn unread(&self) -> u64 {
        self.quic.stats().frame_rx.datagram.saturating_sub(self.datagrams)
    }
}
