//! Which later packet can stand in for a frame that is missing: the redundancy inside of packets
//! (`docs/protocol.md` §8.4).

use std::time::Duration;

use super::Playout;
use crate::audio::format::FrameDuration;

/// How far ahead a packet may be to fill a missing place: what a decoder fills at once.
const REACH: Duration = Duration::from_millis(160);

/// The same in places.
pub const fn reach(frame: FrameDuration) -> usize {
    frame.count_in(REACH) as usize
}

impl Playout {
    /// How many places from the next one on are missing before the first that is there, if that one has sound and is
    /// within [`reach`].
    pub(super) fn gap(&self) -> Option<usize> {
        let ahead = |gap: usize| self.next.saturating_add(gap as i64);
        let reach = reach(self.config.frame);
        let gap = (1..=reach).take_while(|gap| ahead(*gap) <= self.newest).find(|gap| self.is_queued(ahead(*gap)))?;
        let slot = &self.slots[self.slot_of(ahead(gap))];
        (!slot.muted && slot.len > 0).then_some(gap)
    }
}
