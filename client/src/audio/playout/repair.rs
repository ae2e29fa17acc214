//! Which later packet can stand in for a frame that is missing: the redundancy inside of packets
//! (`docs/protocol.md` §8.4).

use super::{Playout, slot_of};

/// How far ahead a packet may be to fill a missing place, in places: what a decoder fills at once.
pub const REACH: usize = 8;

impl Playout {
    /// How many places from the next one on are missing before the first that is there, if that one has sound and is
    /// within [`REACH`].
    pub(super) fn gap(&self) -> Option<usize> {
        let ahead = |gap: usize| self.next.saturating_add(gap as i64);
        let gap = (1..=REACH).take_while(|gap| ahead(*gap) <= self.newest).find(|gap| self.is_queued(ahead(*gap)))?;
        let slot = &self.slots[slot_of(ahead(gap))];
        (!slot.muted && slot.len > 0).then_some(gap)
    }
}
