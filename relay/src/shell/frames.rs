//! What is on its way to several listeners: each frame is kept once, and every listener's queue has its number. Control
//! messages that go along with frames are kept so, too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A frame, and when it arrived.
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) arrived: Instant,
}

/// Names a frame; no other ever has the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FrameId(u64);

/// See the module.
#[derive(Default)]
pub(super) struct Frames {
    /// Number of the oldest that is kept.
    first: u64,
    kept: VecDeque<Frame>,
}

impl FrameId {
    /// For whoever only carries it.
    pub(super) fn to_u64(self) -> u64 {
        self.0
    }

    /// The same again.
    pub(super) fn of_u64(id: u64) -> Self {
        Self(id)
    }
}

impl Frames {
    /// The frame that was kept last, if it is still there.
    pub(super) fn last(&self) -> Option<(FrameId, &Frame)> {
        let frame = self.kept.back()?;
        Some((FrameId(self.first + self.kept.len() as u64 - 1), frame))
    }

    /// Keeps a frame, and lets go of those that came longer than `stay` before it. Times don't decrease.
    pub(super) fn keep(&mut self, frame: Frame, stay: Duration) -> FrameId {
        self.let_go(frame.arrived, stay);
        self.kept.push_back(frame);
        FrameId(self.first + self.kept.len() as u64 - 1)
    }

    /// Lets go of those that came longer than `stay` before `now`.
    pub(super) fn let_go(&mut self, now: Instant, stay: Duration) {
        while self.kept.pop_front_if(|old| now.saturating_duration_since(old.arrived) > stay).is_some() {
            self.first += 1;
        }
    }

    /// How many are kept.
    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    /// The frame of that number, unless it is too old.
    pub(super) fn get(&self, id: FrameId) -> Option<&Frame> {
        let place = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        self.kept.get(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_kept_as_long_as_they_may_stay_and_found_by_numbers_that_stay_theirs() {
        let (mut frames, start, stay) = (Frames::default(), Instant::now(), Duration::from_millis(20));
        let ids: Vec<FrameId> = (0..50u8)
            .map(|n| {
                let arrived = start + Duration::from_millis(n.into());
                frames.keep(Frame { bytes: Bytes::from(vec![n]), arrived }, stay)
            })
            .collect();
        let found: Vec<Option<u8>> = ids.iter().map(|id| frames.get(*id).map(|frame| frame.bytes[0])).collect();
        assert_eq!(found[..29], [None; 29]);
        assert_eq!(found[29..], (29..50).map(Some).collect::<Vec<_>>());
        assert_eq!(frames.kept.len(), 21);
    }
}
