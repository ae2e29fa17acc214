//! The delay back into its range: in pauses, by whole steps.

use super::{Piece, Playout, Pull, nanos};
use crate::audio::format::LEVEL_SILENT;

/// Where the delay is, compared to its range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delay {
    Right,
    Long,
    Short,
}

impl Playout {
    pub(super) fn watch_delay(&mut self, at: i64) {
        let Some(excess) = self.excess(at) else { return };
        let delay = if excess > self.step.saturating_add(nanos(self.config.surplus)) {
            Delay::Long
        } else if excess < -nanos(self.config.shortfall) {
            Delay::Short
        } else {
            Delay::Right
        };
        if delay != self.delay {
            (self.delay, self.delay_since) = (delay, at);
        }
        if self.is_settled(at) && excess > nanos(self.config.jump) {
            self.stats.reanchors += 1;
            self.give_up(at);
            self.delay_since = at;
        }
    }

    pub(super) fn is_settled(&self, at: i64) -> bool {
        at.saturating_sub(self.delay_since) >= nanos(self.config.settle)
    }

    /// Corrects the delay if it needs it and nobody hears it. Gives what to play in a piece that was inserted.
    pub(super) fn correct(&mut self, at: i64) -> Option<Piece<'static>> {
        if self.delay == Delay::Right || !self.is_settled(at) || !self.is_pause() {
            return None;
        }
        let excess = self.excess(at)?;
        self.delay_since = at;
        if self.delay == Delay::Short {
            return Some(self.insert(excess));
        }
        // If the frame after a pause is not there yet, it may be speech and would be lost: rather wait.
        let slot = &self.slots[self.slot_of(self.next)];
        if self.is_queued(self.next + 1) || slot.index != Some(self.next) || slot.muted {
            self.shorten(excess);
        }
        None
    }

    /// Leaves out a pause: the next place if the delay is too long by more than a frame, else so many steps of it.
    pub(super) fn shorten(&mut self, excess: i64) {
        if excess >= self.frame {
            return self.drop_next();
        }
        self.left_out = usize::try_from(excess / self.step).unwrap_or(0).min(self.steps() - 1);
        self.stats.shortened += u64::from(self.left_out > 0);
    }

    /// What to play in a piece that is inserted into a pause, as long as is missing of the delay, up to a frame.
    pub(super) fn insert(&mut self, excess: i64) -> Piece<'static> {
        self.stats.inserted += 1;
        let missing = excess.min(0).unsigned_abs().div_ceil(self.step.unsigned_abs());
        let steps = usize::try_from(missing).unwrap_or(usize::MAX).clamp(1, self.steps());
        let slot = &self.slots[self.slot_of(self.next)];
        // The ring holds the next frame, or the talker is muted and has stopped sending: see `is_pause`.
        let muted = if slot.index == Some(self.next) { slot.muted } else { true };
        let what = match (muted, slot.level) {
            (true, _) => Pull::Muted,
            (false, LEVEL_SILENT) => Pull::Silence,
            (false, _) => Pull::Conceal,
        };
        Piece { what, steps }
    }

    /// Whether the next place is known to hold no speech.
    pub(super) fn is_pause(&self) -> bool {
        let slot = &self.slots[self.slot_of(self.next)];
        if slot.index == Some(self.next) {
            slot.muted || slot.level >= self.config.pause_level
        } else {
            self.last_muted
        }
    }
}
