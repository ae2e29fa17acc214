//! How long to hold a talker's frames, learned from how they arrive: what would have been missing with each of a few
//! holds in the last seconds is counted at the same time, as if a playout with that hold ran in the shadow of the real
//! one (the idea is Jamulus'). The shortest with which hardly anything is missing is wanted.

use std::time::Duration;

use super::{SLACK, nanos};
use crate::audio::format::FrameDuration;

/// Holds to choose from, in nanoseconds: those that let the packet after a lost one come in time. Nobody converses well
/// with more than the longest.
const HOLDS: [i64; 10] = [12 * MS, 22 * MS, 32 * MS, 42 * MS, 62 * MS, 82 * MS, 105 * MS, 145 * MS, 185 * MS, 225 * MS];
const MS: i64 = 1_000_000;
/// Length of a block.
const BLOCK: Duration = Duration::from_millis(500);
/// Blocks that count: the last 10 s, long enough for the rarest that matters to happen a few times.
const BLOCKS: usize = 20;
/// Blocks whose frames must have come before anything is concluded: 2 s.
const ENOUGH: u32 = 4;
/// A hold is too short when more than one frame in so many would be missing.
const TOO_MANY: u32 = 200;
/// A shorter hold must have been good for so many blocks, with half of those missing: going back and forth is worse than
/// to wait. 10 s.
const PATIENCE: u32 = 20;

#[derive(Clone, Copy, Default)]
struct Block {
    frames: u32,
    missing: [u32; HOLDS.len()],
}

/// The shadows of one talker's playout.
pub(super) struct Shadows {
    /// Duration of a frame, in nanoseconds, and how many are a block.
    frame: i64,
    per_block: u32,
    /// The first of [`HOLDS`] that comes into question.
    shortest: usize,
    blocks: [Block; BLOCKS],
    current: usize,
    /// Which of [`HOLDS`] is in use.
    chosen: usize,
    /// For how many blocks a shorter one would have done.
    shorter_for: u32,
}

impl Shadows {
    /// Shadows that begin with the shortest hold that is not below `hold` nanoseconds.
    pub fn new(hold: i64, frame: FrameDuration) -> Self {
        let not_below = |hold: i64| HOLDS.iter().position(|other| *other >= hold).unwrap_or(HOLDS.len() - 1);
        let shortest = not_below(nanos(frame.duration() + SLACK));
        let (frame, per_block) = (nanos(frame.duration()), frame.count_in(BLOCK));
        let (blocks, chosen) = ([Block::default(); BLOCKS], not_below(hold).max(shortest));
        Self { frame, per_block, shortest, blocks, current: 0, chosen, shorter_for: 0 }
    }

    /// A frame came that had queued for `queued` nanoseconds on its way, `gap` frames after the newest before it that
    /// have not come until then. Gives another hold when one is wanted, in nanoseconds.
    pub fn note(&mut self, queued: i64, gap: i64) -> Option<i64> {
        let block = &mut self.blocks[self.current];
        block.frames += 1;
        for (missing, hold) in block.missing.iter_mut().zip(HOLDS) {
            let repaired = (hold - nanos(SLACK)) / self.frame;
            let lost = u32::try_from((gap - repaired).max(0)).unwrap_or(u32::MAX);
            *missing = missing.saturating_add(u32::from(queued > hold)).saturating_add(lost);
        }
        if block.frames < self.per_block {
            return None;
        }
        let wanted = self.conclude();
        self.current = (self.current + 1) % BLOCKS;
        self.blocks[self.current] = Block::default();
        wanted
    }

    /// At the end of a block: whether another hold is better.
    fn conclude(&mut self) -> Option<i64> {
        let frames: u32 = self.blocks.iter().map(|block| block.frames).sum();
        if frames < ENOUGH * self.per_block {
            return None;
        }
        let good = |hold: usize, one_in: u32| {
            let missing = self.blocks.iter().fold(0u32, |sum, block| sum.saturating_add(block.missing[hold]));
            missing <= frames / one_in
        };
        let last = HOLDS.len() - 1;
        let needed = (self.shortest..last).find(|hold| good(*hold, TOO_MANY)).unwrap_or(last);
        let enough = (self.shortest..last).find(|hold| good(*hold, TOO_MANY * 2)).unwrap_or(last);
        self.shorter_for = if enough < self.chosen { self.shorter_for + 1 } else { 0 };
        let before = self.chosen;
        if needed > self.chosen {
            self.chosen = needed;
        } else if self.shorter_for >= PATIENCE {
            // One step at a time.
            self.chosen -= 1;
            self.shorter_for = 0;
        }
        (self.chosen != before).then_some(HOLDS[self.chosen])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: FrameDuration = FrameDuration::Ms20;

    /// The hold after so many frames, each queued as `queued` says.
    fn after(shadows: &mut Shadows, frames: i64, queued: impl Fn(i64) -> i64, gap: impl Fn(i64) -> i64) -> i64 {
        for n in 0..frames {
            shadows.note(queued(n), gap(n));
        }
        HOLDS[shadows.chosen]
    }

    #[test]
    fn a_quiet_path_keeps_the_shortest_hold() {
        let mut shadows = Shadows::new(22 * MS, FRAME);
        assert_eq!(after(&mut shadows, 5_000, |n| n % 20 * MS, |_| 0), 22 * MS);
    }

    #[test]
    fn a_restless_path_gets_a_hold_that_hardly_any_frame_exceeds_within_seconds() {
        let mut shadows = Shadows::new(22 * MS, FRAME);
        // Even up to 100 ms.
        assert_eq!(after(&mut shadows, 500, |n| n * 37 % 101 * MS, |_| 0), 105 * MS);
    }

    #[test]
    fn single_losses_need_no_longer_hold_and_bursts_do() {
        let mut shadows = Shadows::new(22 * MS, FRAME);
        assert_eq!(after(&mut shadows, 1_000, |_| 0, |n| i64::from(n % 20 == 0)), 22 * MS);
        assert_eq!(after(&mut shadows, 1_000, |_| 0, |n| if n % 50 == 0 { 4 } else { 0 }), 82 * MS);
    }

    #[test]
    fn the_hold_comes_back_step_by_step_once_the_path_has_been_quiet_for_long() {
        let mut shadows = Shadows::new(22 * MS, FRAME);
        after(&mut shadows, 500, |n| n * 37 % 101 * MS, |_| 0);
        assert_eq!(after(&mut shadows, 500, |_| 0, |_| 0), 105 * MS, "not at once");
        assert!(after(&mut shadows, 1_000, |_| 0, |_| 0) < 105 * MS);
        assert_eq!(after(&mut shadows, 10_000, |_| 0, |_| 0), 22 * MS);
    }

    #[test]
    fn one_bad_moment_in_ten_seconds_changes_nothing() {
        let mut shadows = Shadows::new(22 * MS, FRAME);
        assert_eq!(after(&mut shadows, 5_000, |n| if n % 500 == 499 { 300 * MS } else { 0 }, |_| 0), 22 * MS);
    }

    #[test]
    fn short_frames_get_a_shorter_hold_that_follows_the_path_as_fast() {
        let mut shadows = Shadows::new(12 * MS, FrameDuration::Ms10);
        assert_eq!(after(&mut shadows, 5_000, |n| n % 10 * MS, |_| 0), 12 * MS);
        // Even up to 100 ms, for ten seconds.
        assert_eq!(after(&mut shadows, 1_000, |n| n * 37 % 101 * MS, |_| 0), 105 * MS);
        assert_eq!(after(&mut shadows, 1_000, |_| 0, |_| 0), 105 * MS, "not at once");
        assert_eq!(after(&mut shadows, 20_000, |_| 0, |_| 0), 12 * MS);
        // A gap of four of them is bridged with half the hold.
        assert_eq!(after(&mut shadows, 2_000, |_| 0, |n| if n % 50 == 0 { 4 } else { 0 }), 42 * MS);
    }

    #[test]
    fn no_hold_is_shorter_than_a_repair_takes() {
        for (frame, shortest) in [(FrameDuration::Ms10, 12 * MS), (FrameDuration::Ms20, 22 * MS)] {
            assert_eq!(after(&mut Shadows::new(0, frame), 5_000, |_| 0, |_| 0), shortest);
        }
    }
}
