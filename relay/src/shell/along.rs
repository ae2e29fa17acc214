//! Control messages that wait for a listener's frames, to go along with them in media packets. Pure: time comes in as an
//! argument.

use std::time::{Duration, Instant};

use super::frames::FrameId;

/// So many bytes wait at most: five full packets. What is beyond goes by the control stream, in its time.
const MOST: usize = 6_000;
/// For how long a message waits for room that frames leave: the seals of five talkers, which come together, and the witnesses
/// that come meanwhile fill that of 14 packets. After that they take a packet more than the frames do.
const PATIENCE: Duration = Duration::from_millis(300);
/// By then frames have taken it along, if any have come: [`MOST`] leaves with those of a tenth of a second.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// A message of which so many bytes have left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Begun {
    pub(super) message: FrameId,
    pub(super) bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Along {
    waiting: Vec<FrameId>,
    /// Their bytes and when they came, in the same order.
    came: Vec<(usize, Instant)>,
    begun: Option<Begun>,
}

impl Along {
    /// Whether a message of so many bytes may wait here.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.came.iter().map(|(bytes, _)| bytes).sum::<usize>() + bytes <= MOST
    }

    /// Takes a message of so many bytes.
    pub(super) fn push(&mut self, message: FrameId, bytes: usize, now: Instant) {
        self.waiting.push(message);
        self.came.push((bytes, now));
    }

    /// All that wait, which don't wait here any more.
    pub(super) fn take(&mut self) -> Vec<FrameId> {
        self.begun = None;
        self.came.clear();
        std::mem::take(&mut self.waiting)
    }

    /// Those that wait, the oldest first.
    pub(super) fn waiting(&self) -> &[FrameId] {
        &self.waiting
    }

    /// That of them of which some has left.
    pub(super) fn begun(&self) -> Option<Begun> {
        self.begun
    }

    /// Whether the first has waited for long enough.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.came.first().is_some_and(|(_, came)| now.saturating_duration_since(*came) >= PATIENCE)
    }

    /// Until when frames should have taken the first along.
    pub(super) fn until(&self) -> Option<Instant> {
        self.came.first().map(|(_, came)| *came + LEFT_BEHIND)
    }

    /// That one goes another way.
    pub(super) fn forget(&mut self, message: FrameId) {
        self.leave(&[message], self.begun.filter(|begun| begun.message != message));
    }

    /// These have left, and of another one some.
    pub(super) fn leave(&mut self, those: &[FrameId], begun: Option<Begun>) {
        self.begun = begun;
        if those.is_empty() {
            return;
        }
        let mut stays = self.waiting.iter().map(|message| !those.contains(message));
        self.came.retain(|_| stays.next().unwrap_or(false));
        self.waiting.retain(|message| !those.contains(message));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::frames::{Frame, Frames};
    use super::*;

    #[test]
    fn messages_wait_in_their_order_and_no_more_than_so_many() {
        let (mut along, mut kept, now) = (Along::default(), Frames::default(), Instant::now());
        let mut message = || kept.keep(Frame { bytes: Bytes::new(), arrived: now }, Duration::from_secs(3));
        let ids: Vec<FrameId> = (0..10).map(|_| message()).collect();
        let later = now + Duration::from_millis(100);
        ids[..3].iter().for_each(|id| along.push(*id, 600, now));
        ids[3..].iter().for_each(|id| along.push(*id, 600, later));
        assert!(!along.has_room(1) && along.begun().is_none());
        assert!(!along.is_due(later) && along.is_due(now + PATIENCE));
        let begun = Some(Begun { message: ids[1], bytes: 300 });
        along.leave(&[ids[0], ids[2]], begun);
        assert_eq!((along.waiting()[0], &along.waiting()[1..]), (ids[1], &ids[3..]));
        assert_eq!((along.begun(), along.has_room(1_200), along.has_room(1_201)), (begun, true, false));
        assert_eq!(along.until(), Some(now + LEFT_BEHIND));
        along.forget(ids[1]);
        assert_eq!((along.begun(), along.waiting()), (None, &ids[3..]));
        along.leave(&ids[..4], None);
        assert_eq!((along.begun(), along.until()), (None, Some(later + LEFT_BEHIND)));
        assert!(!along.is_due(now + PATIENCE));
        along.leave(&ids, None);
        assert_eq!((along.waiting().len(), along.until(), along.has_room(6_000)), (0, None, true));
        along.push(ids[0], 600, later);
        along.leave(&[], begun);
        assert_eq!((along.take(), along.until(), along.has_room(6_001)), (vec![ids[0]], None, false));
        assert_eq!(along.begun(), None, "it goes whole by another way");
    }
}
