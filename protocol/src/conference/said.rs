//! What members say to all: delivered once each, and kept by the leader for those who were away.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::epoch::broadcast::{Place, Said};
use crate::id::{Epoch, MemberIndex};
use crate::wire::control::{MAX_MISSED, Missed};

/// Most that is kept, and how long: longer than anybody may be away (DESIGN §12) and the relay may take to notice.
const MAX_KEPT: usize = 256;
const KEPT_FOR: Duration = Duration::from_secs(90);

/// Most that is remembered as delivered: a leader passes on what it kept, and no more than that.
const MAX_DELIVERED: usize = 8 * MAX_KEPT;

/// The log.
#[derive(Default)]
pub(super) struct SaidLog {
    kept: VecDeque<(Instant, Missed)>,
    delivered: BTreeSet<(Epoch, MemberIndex, u32)>,
    /// The same in the order of arrival, so that nobody's messages push out those that came after them.
    arrived: VecDeque<(Epoch, MemberIndex, u32)>,
}

impl SaidLog {
    /// Notes what was said; `false` if it was delivered before.
    pub(super) fn note(&mut self, now: Instant, place: &Place, said: &Said) -> bool {
        let key = (place.epoch, place.index, place.counter);
        if !self.delivered.insert(key) {
            return false;
        }
        self.arrived.push_back(key);
        if self.arrived.len() > MAX_DELIVERED
            && let Some(oldest) = self.arrived.pop_front()
        {
            self.delivered.remove(&oldest);
        }
        while self.kept.len() >= MAX_KEPT || self.kept.front().is_some_and(|(at, _)| *at + KEPT_FOR < now) {
            self.kept.pop_front();
        }
        let Place { epoch, index, counter, .. } = *place;
        self.kept.push_back((now, Missed { from: index, epoch, counter, said: said.clone() }));
        true
    }

    /// What somebody may have missed who is a member since `joined`, in pieces that fit a message each.
    pub(super) fn since(&self, joined: Epoch) -> Vec<Vec<Missed>> {
        let missed: Vec<Missed> =
            self.kept.iter().map(|(_, missed)| missed).filter(|m| m.epoch >= joined).cloned().collect();
        missed.chunks(MAX_MISSED).map(<[Missed]>::to_vec).collect()
    }
}
