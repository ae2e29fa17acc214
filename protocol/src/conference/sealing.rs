//! This member's own seals: one after each segment, each naming the one before (`docs/protocol.md` §16.1).

use std::collections::VecDeque;
use std::time::Instant;

use crate::epoch::statement::ChainHash;
use crate::id::{Epoch, MeetingId};
use crate::seal::Sealed;
use crate::sframe::LONGEST_SEGMENT;
use crate::sframe::sender::{Closed, Sealer};
use crate::sign::KeyPair;

/// Segments that wait to be sealed: the last of one epoch, the first of the next, and as many again for a timer that is
/// late by a second. What is beyond goes unsealed.
const CLOSED: usize = 4;
/// Seals that wait for a connection: 4 s, longer than anybody's frames wait for them.
const UNSENT: usize = 8;

/// See the module.
pub(super) struct Sealing {
    closed: VecDeque<Closed>,
    /// When the open segment's first frame was sealed.
    since: Option<Instant>,
    /// Since when a closed segment waits.
    due: Option<Instant>,
    /// Root of the last seal.
    prev: [u8; 32],
    unsent: VecDeque<Vec<u8>>,
}

impl Sealing {
    pub(super) fn new() -> Self {
        Self {
            closed: VecDeque::with_capacity(CLOSED),
            since: None,
            due: None,
            prev: [0; 32],
            unsent: VecDeque::with_capacity(UNSENT),
        }
    }

    /// A frame was sealed. Allocates nothing.
    pub(super) fn on_frame(&mut self, now: Instant, sealer: &mut Sealer) {
        self.since.get_or_insert(now);
        if sealer.at_segment_boundary() {
            self.close(now, sealer);
        }
    }

    /// Ends the sealer's segment: it is full, or nothing more will be sealed in it.
    pub(super) fn close(&mut self, now: Instant, sealer: &mut Sealer) {
        self.since = None;
        let Some(closed) = sealer.close() else { return };
        if self.closed.len() >= CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(closed);
        self.due.get_or_insert(now);
    }

    /// Whether the open segment has lasted as long as one may.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| since + LONGEST_SEGMENT <= now)
    }

    /// Makes the seals that are due.
    pub(super) fn make(
        &mut self,
        meeting: &MeetingId,
        per_segment: u8,
        key: &KeyPair,
        chain_at: impl Fn(Epoch) -> Option<ChainHash>,
    ) {
        self.due = None;
        while let Some(closed) = self.closed.pop_front() {
            let Some(chain) = chain_at(closed.name.epoch) else { continue };
            let (name, hashes, prev) = (closed.name, closed.hashes(), self.prev);
            let sealed = Sealed { meeting, chain: &chain, name, key: &closed.key, hashes, prev, per_segment };
            let (seal, head) = sealed.sign(key);
            self.prev = head.root;
            if self.unsent.len() >= UNSENT {
                self.unsent.pop_front();
            }
            self.unsent.push_back(seal);
        }
    }

    /// Takes the next seal to be sent.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        self.unsent.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.or(self.since.map(|since| since + LONGEST_SEGMENT))
    }
}
