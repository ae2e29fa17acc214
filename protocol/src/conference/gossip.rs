//! What this member was told by talkers, shown to the others from time to time, so that nobody can tell two members two
//! different things (`docs/protocol.md` §16.6).

use std::time::{Duration, Instant};

use super::pulse::TO_ALL;
use super::seat::Seat;
use crate::epoch::broadcast::MAX_HEADS;
use crate::label;
use crate::seal::SealHead;

/// Between two messages of one member. A talker is shown every 5 s of speech at the most; with half a second until its
/// seal, and this, whoever was told something else knows it within 10 s.
const EVERY: Duration = Duration::from_secs(4);

/// Heads that wait to be shown.
#[derive(Default)]
pub(super) struct Gossip {
    heads: Vec<SealHead>,
    shown: Option<Instant>,
    due: Option<Instant>,
    tick: u32,
}

impl Gossip {
    /// A head that was verified.
    pub(super) fn note(&mut self, now: Instant, head: SealHead) {
        if self.heads.len() >= MAX_HEADS {
            self.heads.remove(0);
        }
        self.heads.push(head);
        self.due.get_or_insert(self.shown.map_or(now, |shown| (shown + EVERY).max(now)));
    }

    /// The heads to be shown now, if any.
    pub(super) fn take(&mut self, now: Instant, seat: &Seat) -> Option<Vec<SealHead>> {
        self.due.take_if(|due| *due <= now)?;
        self.tick = self.tick.wrapping_add(1);
        self.shown = Some(now);
        let heads = std::mem::take(&mut self.heads);
        shows(seat, self.tick).then_some(heads)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// In a large meeting about sixteen members show at a time, who follow from the chain, so that nobody chooses them.
fn shows(seat: &Seat, tick: u32) -> bool {
    let members = seat.roster().len() as u64;
    let Some(chain) = seat.chain_hash() else { return false };
    if members <= TO_ALL as u64 {
        return true;
    }
    let index = seat.index().0.to_be_bytes();
    let drawn = label::hash(label::SHOWS, &[b"heads", &chain.0, &tick.to_be_bytes(), &index]);
    let drawn = u32::from_be_bytes([drawn[0], drawn[1], drawn[2], drawn[3]]);
    // About sixteen of all, by the share of each.
    (u64::from(drawn) * members) >> 32 < TO_ALL as u64
}
