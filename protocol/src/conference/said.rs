//! What members say to all: delivered once each and in order, and kept by the leader for those who were away.

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

/// How long what comes directly waits for what the leader kept: longer than a round trip with losses, and short enough
/// for whom no leader answers.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The log.
#[derive(Default)]
pub(super) struct SaidLog {
    /// Until when what comes directly waits for what the leader kept, which is from before it.
    waits_until: Option<Instant>,
    waiting: Vec<(Place, Said)>,
    kept: VecDeque<(Instant, Missed)>,
    delivered: BTreeSet<(Epoch, MemberIndex, u32)>,
    /// The same in the order of arrival, so that nobody's messages push out those that came after them.
    arrived: VecDeque<(Epoch, MemberIndex, u32)>,
}

impl SaidLog {
    /// The leader has been asked what this member missed.
    pub(super) fn catch_up(&mut self, now: Instant) {
        self.waits_until = Some(now + CATCH_UP);
    }

    /// Takes what came directly; gives it back when it need not wait.
    pub(super) fn wait(&mut self, place: Place, said: Said) -> Option<(Place, Said)> {
        if self.waits_until.is_none() || self.waiting.len() >= MAX_KEPT {
            return Some((place, said));
        }
        self.waiting.push((place, said));
        None
    }

    /// What has waited, in the order in which it came: nothing more is to come from before it.
    pub(super) fn caught_up(&mut self) -> Vec<(Place, Said)> {
        self.waits_until = None;
        std::mem::take(&mut self.waiting)
    }

    /// The same, when no leader has answered in time.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(Place, Said)> {
        if self.waits_until.is_some_and(|until| until <= now) { self.caught_up() } else { Vec::new() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waits_until
    }

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

    /// What somebody may have missed who is a member since `joined`, in pieces that fit a message each. The last is not
    /// full, and perhaps empty, so that it shows that it is the last.
    pub(super) fn since(&self, joined: Epoch) -> Vec<Vec<Missed>> {
        let missed: Vec<Missed> =
            self.kept.iter().map(|(_, missed)| missed).filter(|m| m.epoch >= joined).cloned().collect();
        let mut parts: Vec<_> = missed.chunks(MAX_MISSED).map(<[Missed]>::to_vec).collect();
        if parts.last().is_none_or(|last| last.len() == MAX_MISSED) {
            parts.push(Vec::new());
        }
        parts
    }
}
