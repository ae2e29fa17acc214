//! What came before the key that opens it.

use crate::epoch::broadcast::Channel;
use crate::id::MemberIndex;

/// Most that is kept: so many packets, and so many bytes in all. A key is on its way for a moment only.
const MAX_EARLY: usize = 64;
const MAX_EARLY_BYTES: usize = 64 * 1024;

/// Broadcasts of an epoch whose key has not come, in the order in which they came.
#[derive(Default)]
pub(super) struct Early(Vec<(MemberIndex, Vec<u8>)>);

impl Early {
    /// Keeps a broadcast, while there is room.
    pub(super) fn keep(&mut self, from: MemberIndex, packet: &[u8]) {
        let bytes: usize = self.0.iter().map(|(_, packet)| packet.len()).sum();
        let has_room = self.0.len() < MAX_EARLY && bytes + packet.len() <= MAX_EARLY_BYTES;
        if has_room && Channel::epoch_of(packet).is_some() {
            self.0.push((from, packet.to_vec()));
        }
    }

    /// All of it; nothing is left.
    pub(super) fn take(&mut self) -> Vec<(MemberIndex, Vec<u8>)> {
        std::mem::take(&mut self.0)
    }
}
