//! Frames that came before their epoch's key. Who has a new key sends with it at once after a removal, and a newcomer
//! has no other; the same key may reach a listener a moment after the frames (`docs/protocol.md` §7.5).

use std::collections::VecDeque;
use std::time::Instant;

use super::Seat;
use crate::evidence::ring::Ring;
use crate::id::{Epoch, MemberIndex};
use crate::sframe::HEADER_LEN;
use crate::sframe::frame::PLAINTEXT_LEN;
use crate::sframe::receiver::Ciphertext;
use crate::sframe::suite::TAG_LEN;

/// Frames of each talker, the newest: 640 ms of frames of 20 ms. No listener waits so long for a frame.
const EACH: usize = 32;
/// Frames in all: 46 KiB.
const ALL: usize = 256;

struct Early {
    since: Instant,
    slot: MemberIndex,
    epoch: Epoch,
    sframe: [u8; HEADER_LEN + PLAINTEXT_LEN + TAG_LEN],
}

/// The frames that wait for a key, in the order in which they came.
#[derive(Default)]
pub(super) struct EarlyFrames(VecDeque<Early>);

impl EarlyFrames {
    /// Keeps one, and lets an old one go if there is no room.
    fn keep(&mut self, early: Early) {
        if self.0.capacity() == 0 {
            // Once in a meeting, not once a frame.
            self.0.reserve_exact(ALL);
        }
        let of_this = |kept: &Early| kept.slot == early.slot;
        if self.0.iter().filter(|kept| of_this(kept)).count() >= EACH {
            let oldest = self.0.iter().position(of_this);
            oldest.and_then(|oldest| self.0.remove(oldest));
        } else if self.0.len() >= ALL {
            self.0.pop_front();
        }
        self.0.push_back(early);
    }

    /// The oldest whose epoch has come.
    fn take(&mut self, epoch: Epoch) -> Option<Early> {
        let ready = self.0.iter().position(|early| early.epoch <= epoch)?;
        self.0.remove(ready)
    }
}

impl Seat {
    /// Keeps a frame of an epoch that may be on its way: the next one, or the one after it.
    pub(super) fn keep_early_frame(&mut self, now: Instant, slot: MemberIndex, ciphertext: &Ciphertext<'_>) -> bool {
        let epoch = ciphertext.name.epoch;
        let is_near = epoch.number() <= self.epoch().number().saturating_add(2);
        let Ok(sframe) = ciphertext.whole().try_into() else { return false };
        if is_near {
            self.early_frames.keep(Early { since: now, slot, epoch, sframe });
        }
        is_near
    }

    /// Opens the next frame whose key has come since. Gives whose it is, and when it arrived.
    pub(in crate::conference) fn next_early(
        &mut self,
        now: Instant,
        plaintext: &mut [u8; PLAINTEXT_LEN],
        ring: &mut Ring,
    ) -> Option<(MemberIndex, Instant)> {
        while let Some(Early { since, slot, sframe, .. }) = self.early_frames.take(self.epoch()) {
            if matches!(self.open(now, slot, &sframe, plaintext, ring), Ok(Some(_))) {
                return Some((slot, since));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(epoch: u32) -> Epoch {
        Epoch::new(epoch).expect("an epoch")
    }

    fn keep(frames: &mut EarlyFrames, slot: u16, mark: u8, epoch: u32) {
        let sframe = [mark; HEADER_LEN + PLAINTEXT_LEN + TAG_LEN];
        frames.keep(Early { since: Instant::now(), slot: MemberIndex(slot), epoch: number(epoch), sframe });
    }

    #[test]
    fn newest_frames_of_a_talker_are_kept_and_nobody_elses_go_for_them() {
        let mut frames = EarlyFrames::default();
        keep(&mut frames, 1, 0, 5);
        (0..200).for_each(|mark| keep(&mut frames, 2, mark, 5));
        let marks: Vec<u8> = std::iter::from_fn(|| frames.take(number(5))).map(|early| early.sframe[0]).collect();
        assert_eq!(marks, [&[0], &(200 - EACH as u8..200).collect::<Vec<_>>()[..]].concat());
    }

    #[test]
    fn many_talkers_use_no_more_room_than_there_is() {
        let mut frames = EarlyFrames::default();
        (0..1_000).for_each(|slot| keep(&mut frames, slot, 0, 5));
        assert_eq!(frames.0.len(), ALL);
        assert_eq!(frames.take(number(5)).map(|early| early.slot), Some(MemberIndex(1_000 - ALL as u16)));
        assert_eq!(frames.0.capacity(), ALL);
    }

    #[test]
    fn frames_wait_for_their_own_epoch() {
        let mut frames = EarlyFrames::default();
        [7, 6].into_iter().for_each(|epoch| keep(&mut frames, 1, epoch as u8, epoch));
        assert!(frames.take(number(5)).is_none());
        assert_eq!(frames.take(number(6)).map(|early| early.sframe[0]), Some(6));
        assert!(frames.take(number(6)).is_none());
        assert_eq!(frames.take(number(7)).map(|early| early.sframe[0]), Some(7));
    }
}
