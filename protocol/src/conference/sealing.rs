//! This member's own seals: one after each segment, each naming the one before (`docs/protocol.md` §9.1).

use std::collections::VecDeque;
use std::time::Instant;

use crate::epoch::statement::ChainHash;
use crate::id::{Epoch, MeetingId};
use crate::seal::Sealed;
use crate::sframe::LONGEST_SEGMENT;
use crate::sframe::sender::{Closed, Sealer};
use crate::sign::KeyPair;

/// Segments that wait to be sealed: the last of one epoch, the first of the next, and as many again for a timer that is
/// late by a second. What is beyond goes unsealed.
const CLOSED: usize = 4;
/// Seals that wait for a connection: 4 s, longer than anybody's frames wait for them.
const UNSENT: usize = 8;

/// See the module.
pub(super) struct Sealing {
    closed: VecDeque<Closed>,
    /// When the open segment's first frame was sealed.
    since: Option<Instant>,
    /// Since when a closed segment waits.
    due: Option<Instant>,
    /// Root of the last seal.
    prev: [u8; 32],
    unsent: VecDeque<Vec<u8>>,
}

impl Sealing {
    pub(super) fn new() -> Self {
        Self {
            closed: VecDeque::with_capacity(CLOSED),
            since: None,
            due: None,
            prev: [0; 32],
            unsent: VecDeque::with_capacity(UNSENT),
        }
    }

    /// A frame was sealed. Allocates nothing.
    pub(super) fn on_frame(&mut self, now: Instant, sealer: &mut Sealer) {
        self.since.get_or_insert(now);
        if sealer.at_segment_boundary() {
            self.close(now, sealer);
        }
    }

    /// Ends the sealer's segment: it is full, or nothing more will be sealed in it.
    pub(super) fn close(&mut self, now: Instant, sealer: &mut Sealer) {
        self.since = None;
        let Some(closed) = sealer.close() else { return };
        if self.closed.len() >= CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(closed);
        self.due.get_or_insert(now);
    }

    /// Whether the open segment has lasted as long as one may.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| since + LONGEST_SEGMENT <= now)
    }

    /// Makes the seals that are due.
    pub(super) fn make(
        &mut self,
        meeting: &MeetingId,
        per_segment: u8,
        key: &KeyPair,
        chain_at: impl Fn(Epoch) -> Option<ChainHash>,
    ) {
        self.due = None;
        while let Some(closed) = self.closed.pop_front() {
            let Some(chain) = chain_at(closed.name.epoch) else { continue };
            let (name, hashes, prev) = (closed.name, closed.hashes(), self.prev);
            let sealed = Sealed { meeting, chain: &chain, name, key: &closed.key, hashes, prev, per_segment };
            let (seal, head) = sealed.sign(key);
            self.prev = head.root;
            if self.unsent.len() >= UNSENT {
                self.unsent.pop_front();
            }
            self.unsent.push_back(seal);
        }
    }

    /// Takes the next seal to be sent.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        self.unsent.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.or(self.since.map(|since| since + LONGEST_SEGMENT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MemberIndex;
    use crate::secret::Secret;
    use crate::sframe::frame::{DATAGRAM_LEN, Frame, Microphone};
    use crate::stamp::SealPublic;
    use crate::wire::codec::Wire;
    use std::time::Duration;

    const MEETING: MeetingId = MeetingId([7; 20]);

    fn sealer(epoch: u32) -> Sealer {
        let epoch = Epoch::new(epoch).expect("small");
        Sealer::new(MEETING, MemberIndex(5), epoch, Secret::new([9; 32]), 20)
    }

    fn says(sealing: &mut Sealing, sealer: &mut Sealer, frames: usize, now: Instant) {
        for _ in 0..frames {
            let mut out = [0; DATAGRAM_LEN];
            let frame = Frame { seq: 0, stamp: 1, microphone: Microphone::On, level: 20, opus: &[] };
            sealer.seal(&frame, &mut out).expect("segments are left");
            sealing.on_frame(now, sealer);
        }
    }

    /// The seals that are made now: frames and segment of each.
    fn made(sealing: &mut Sealing) -> Vec<(u8, u16)> {
        let key = KeyPair::from_seed(&[2; 32]);
        sealing.make(&MEETING, 25, &key, |epoch| Some(ChainHash([epoch.number() as u8; 32])));
        let seals = std::iter::from_fn(|| sealing.next());
        let public = seals.map(|seal| SealPublic::decode(&seal[..SealPublic::WIRE_LEN]).expect("a seal"));
        public.map(|public| (public.count, public.kid as u16)).collect()
    }

    #[test]
    fn full_segments_are_sealed_at_once_and_others_a_second_after_their_first_frame() {
        let now = Instant::now();
        let (mut sealing, mut sealer) = (Sealing::new(), sealer(3));
        assert_eq!(sealing.poll_timeout(), None);
        says(&mut sealing, &mut sealer, 24, now);
        assert_eq!(sealing.poll_timeout(), Some(now + LONGEST_SEGMENT));
        assert!(made(&mut sealing).is_empty());
        says(&mut sealing, &mut sealer, 1, now);
        assert_eq!(sealing.poll_timeout(), Some(now));
        assert_eq!(made(&mut sealing), [(25, 0)]);
        assert_eq!(sealing.poll_timeout(), None, "no frame, no seal");
        says(&mut sealing, &mut sealer, 7, now);
        assert!(!sealing.is_over(now + Duration::from_millis(999)));
        assert!(sealing.is_over(now + LONGEST_SEGMENT));
        sealing.close(now + LONGEST_SEGMENT, &mut sealer);
        sealing.close(now + LONGEST_SEGMENT, &mut sealer);
        assert_eq!(made(&mut sealing), [(7, 1)]);
        says(&mut sealing, &mut sealer, 25, now);
        assert_eq!(made(&mut sealing), [(25, 2)]);
    }

    #[test]
    fn what_was_said_in_one_epoch_is_sealed_before_what_is_said_in_the_next() {
        let now = Instant::now();
        let (mut sealing, mut old, mut new) = (Sealing::new(), sealer(3), sealer(4));
        says(&mut sealing, &mut old, 3, now);
        sealing.close(now, &mut old);
        says(&mut sealing, &mut new, 25, now);
        let before = sealing.prev;
        assert_eq!(made(&mut sealing), [(3, 0), (25, 0)]);
        assert_ne!(sealing.prev, before);
    }

    #[test]
    fn a_timer_that_never_comes_fills_no_memory() {
        let now = Instant::now();
        let (mut sealing, mut sealer) = (Sealing::new(), sealer(3));
        says(&mut sealing, &mut sealer, 25 * 10, now);
        assert_eq!(made(&mut sealing), [(25, 6), (25, 7), (25, 8), (25, 9)]);
    }
}
