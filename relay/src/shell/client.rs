//! One connection: QUIC, its control stream, the frames that wait for it, and how far it has come.

use std::time::{Duration, Instant};

use quinn_proto::Connection;

use super::bundle::Bundle;
use crate::core::{CloseCode, ConnId, Peer};
use crate::driver::control::{Control, Stopped, Written};
use crate::gate::{Allowance, Prefix};

/// How long what is not a frame may wait for the next: a frame's duration. A packet for itself costs as much as one with
/// frames, and to say a little later that somebody spoke, or that a packet came, costs nothing.
const WAIT: Duration = Duration::from_millis(20);

/// Bytes of control messages that may go along with the frames of one moment. With those of three talkers they fill a packet
/// of QUIC's least MTU, so they cost no packet of their own.
const ALONG: usize = 600;
/// What may go beyond that, of all clients: a newcomer's roster at once, but not the same long message to a thousand people,
/// for whose packets frames would wait a tenth of a second. One token is [`MORE`] bytes.
pub(super) const BEYOND: Allowance = Allowance { per_second: 1_000, burst: 250 };
pub(super) const MORE: usize = 1_000;

/// How much of the control messages has gone to a client lately.
#[derive(Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    gone: usize,
}

impl Pace {
    /// How many bytes may go now.
    fn room(&mut self, now: Instant) -> usize {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WAIT) {
            (self.since, self.gone) = (Some(now), 0);
        }
        ALONG.saturating_sub(self.gone)
    }

    fn next(&self, now: Instant) -> Instant {
        self.since.unwrap_or(now) + WAIT
    }
}

/// See the module.
pub(super) struct Client {
    pub(super) quic: Connection,
    pub(super) stage: Stage,
    pub(super) control: Option<Control>,
    pub(super) bundle: Bundle,
    pace: Pace,
    /// Control messages wait until then.
    write_again: Option<Instant>,
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
            pace: Pace::default(),
            write_again: None,
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

    /// Hands QUIC what waits on the control stream. Where frames come, that is no more than can go along with them, and what
    /// `beyond` gives for it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn write_control(&mut self, now: Instant, mut beyond: impl FnMut() -> bool) -> Result<Written, Stopped> {
        let is_busy = self.heard_as().is_some() && self.bundle.is_busy(now);
        let Some(control) = &mut self.control else { return Ok(Written::default()) };
        self.write_again = None;
        if !is_busy {
            return control.write(&mut self.quic, usize::MAX);
        }
        let mut written = control.write(&mut self.quic, self.pace.room(now))?;
        self.pace.gone += written.taken;
        // What QUIC takes no more of is written when it does.
        let mut is_taken = written.taken > 0 || self.pace.room(now) == 0;
        while is_taken && control.is_waiting() {
            if !beyond() {
                self.write_again = Some(self.pace.next(now));
                break;
            }
            let more = control.write(&mut self.quic, MORE)?;
            is_taken = more.taken > 0;
            written += more;
        }
        Ok(written)
    }

    /// When it is to be looked at, whatever happens before.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Handshake { until } | Stage::Hello { until, .. } | Stage::Closing { until, .. } => Some(until),
            Stage::Open { .. } | Stage::Over => None,
        };
        [self.quic.poll_timeout(), stage, self.read_again, self.write_again, self.queued.waits_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Datagrams that came and were never read.
    pub(super) fn unread(&self) -> u64 {
        self.quic.stats().frame_rx.datagram.saturating_sub(self.datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn along_with_the_frames_of_each_moment_goes_as_much_as_has_room_there() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.room(start), ALONG);
        pace.gone += 450;
        assert_eq!(pace.room(start + WAIT / 2), ALONG - 450);
        pace.gone += MORE;
        assert_eq!(pace.room(start + WAIT / 2), 0);
        assert_eq!(pace.next(start + WAIT / 2), start + WAIT);
        assert_eq!(pace.room(start + WAIT), ALONG);
    }
}
