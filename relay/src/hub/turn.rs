//! One call of the hub: what a meeting needs to know for it, and what it wants done.

use std::time::Instant;

use bytes::Bytes;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, Refusal};

use super::limits::Limits;
use super::stats::Stats;
use crate::core::{CloseCode, ConnId, Output};
use crate::stamps::StampKeys;

/// Lives as long as one call.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// The relay's wall-clock time at `now`.
    pub(super) wall: UnixMillis,
    pub(super) limits: &'a Limits,
    pub(super) stamps: &'a StampKeys,
    pub(super) stats: &'a mut Stats,
    pub(super) out: &'a mut Vec<Output>,
    /// Connections closed in this call; the hub forgets them when it is over.
    pub(super) closed: Vec<ConnId>,
}

impl Turn<'_> {
    /// Sends a message to one client.
    pub(super) fn send(&mut self, to: ConnId, message: &FromRelay) {
        self.send_all([to], message);
    }

    /// Sends a message to several clients, encoded once. Those closed in this turn are passed over.
    pub(super) fn send_all(&mut self, to: impl IntoIterator<Item = ConnId>, message: &FromRelay) {
        let mut encoded = None;
        for to in to {
            if self.closed.contains(&to) {
                continue;
            }
            let bytes = encoded.get_or_insert_with(|| Bytes::from(message.encode())).clone();
            self.out.push(Output::Control { to, bytes });
        }
    }

    /// Refuses a request.
    pub(super) fn refuse(&mut self, conn: ConnId, reason: Refusal) {
        self.stats.count_refusal(reason);
        self.send(conn, &FromRelay::Refused { reason });
    }

    /// Tells a client that it lost its slot.
    pub(super) fn detach(&mut self, conn: ConnId, reason: Refusal) {
        self.stats.count_detached(reason);
        self.send(conn, &FromRelay::Detached { reason });
    }

    /// Closes a connection once it has been sent what is on its way.
    pub(super) fn close(&mut self, conn: ConnId, code: CloseCode) {
        self.out.push(Output::Close { conn, code });
        self.closed.push(conn);
    }
}
