//! Control messages that wait for a listener's frames, to go along with them in media packets. Pure: time comes in as an
//! argument.

use std::time::Instant;

use super::frames::FrameId;

/// So many bytes wait at most: five full packets. What is beyond goes by the control stream, in its time.
const MOST: usize = 6_000;

/// See the module.
#[derive(Default)]
pub(super) struct Along {
    waiting: Vec<FrameId>,
    /// Of all that have come since none waited.
    bytes: usize,
    /// When the first has waited for long enough.
    until: Option<Instant>,
}

impl Along {
    /// Whether a message of so many bytes may wait here.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MOST
    }

    /// Takes a message of so many bytes; the first of all waits until `until`.
    pub(super) fn push(&mut self, message: FrameId, bytes: usize, until: Instant) {
        self.until.get_or_insert(until);
        self.waiting.push(message);
        self.bytes += bytes;
    }

    /// All that wait, which don't wait here any more.
    pub(super) fn take(&mut self) -> Vec<FrameId> {
        (self.until, self.bytes) = (None, 0);
        std::mem::take(&mut self.waiting)
    }

    /// Those that wait, the oldest first.
    pub(super) fn waiting(&self) -> &[FrameId] {
        &self.waiting
    }

    /// Whether all of them are to leave with the next frames.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// When the first has waited for long enough.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// These have left. The others wait no longer for that.
    pub(super) fn leave(&mut self, those: &[FrameId]) {
        self.waiting.retain(|message| !those.contains(message));
        if self.waiting.is_empty() {
            (self.until, self.bytes) = (None, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::frames::{Frame, Frames};
    use super::*;

    #[test]
    fn messages_wait_in_their_order_and_no_more_than_so_many() {
        let (mut along, mut kept, now) = (Along::default(), Frames::default(), Instant::now());
        let mut message = || kept.keep(Frame { bytes: Bytes::new(), arrived: now }, Duration::from_secs(3));
        let ids: Vec<FrameId> = (0..10).map(|_| message()).collect();
        let (soon, later) = (now + Duration::from_millis(400), now + Duration::from_millis(800));
        ids.iter().for_each(|id| along.push(*id, 600, soon));
        assert!(!along.has_room(1));
        assert!(!along.is_due(now) && along.is_due(soon));
        along.leave(&[ids[0], ids[2]]);
        assert_eq!((along.waiting()[0], &along.waiting()[1..], along.until()), (ids[1], &ids[3..], Some(soon)));
        along.leave(&ids);
        assert_eq!((along.waiting().len(), along.until(), along.has_room(6_000)), (0, None, true));
        along.push(ids[0], 600, later);
        assert_eq!((along.take(), along.until(), along.has_room(6_001)), (vec![ids[0]], None, false));
    }
}
