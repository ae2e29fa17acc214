//! What is sent in every measurement, whoever forwards it: one room in which some talk and all listen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Bytes that a server forwards as one frame: Conclave's media datagram (`docs/protocol.md` §6.3).
pub const FRAME_LEN: usize = 161;

/// Time between two frames of one talker.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// Fills what a frame holds beside its stamp. No block of it is zero: Mumble's cipher treats blocks of zeros apart.
const FILLER: u8 = 0xa5;

/// The room.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Members of the room, talkers among them.
    pub people: usize,
    /// How many of them send; they are the first.
    pub talkers: usize,
    /// Each frame leaves up to this much before or after its tick.
    pub jitter: Duration,
}

impl Pattern {
    /// Members that get what one of them sends.
    pub fn listeners(&self) -> usize {
        self.people - 1
    }

    /// Frames that all talkers together send in a second.
    pub fn frames_per_second(&self) -> usize {
        let of_one = Duration::from_secs(1).as_millis() / INTERVAL.as_millis();
        self.talkers * usize::try_from(of_one).unwrap_or(usize::MAX)
    }
}

/// When which talker sends: each has a clock of its own, and the clocks are spread evenly over the interval.
#[derive(Debug)]
pub struct Schedule {
    pattern: Pattern,
    rng: ChaCha8Rng,
    /// The next frame of each talker: its time, the talker, its tick.
    next: BinaryHeap<Reverse<(Duration, usize, u32)>>,
}

impl Schedule {
    /// The schedule of a room; the seed decides its jitter.
    pub fn new(pattern: Pattern, seed: u64) -> Self {
        let mut schedule = Self { pattern, rng: ChaCha8Rng::seed_from_u64(seed), next: BinaryHeap::new() };
        for talker in 0..pattern.talkers {
            schedule.plan(talker, 0);
        }
        schedule
    }

    fn plan(&mut self, talker: usize, tick: u32) {
        let phase = INTERVAL.mul_f64(talker as f64 / self.pattern.talkers as f64);
        // Twice the jitter, since time before the start cannot be had: the earliest frame leaves at once.
        let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let due = phase + INTERVAL * tick + (self.pattern.jitter * 2).mul_f64(share);
        self.next.push(Reverse((due, talker, tick)));
    }
}

impl Iterator for Schedule {
    type Item = (Duration, usize);

    /// The time since the start at which the next frame is due, and its talker.
    fn next(&mut self) -> Option<(Duration, usize)> {
        let Reverse((due, talker, tick)) = self.next.pop()?;
        self.plan(talker, tick.checked_add(1)?);
        Some((due, talker))
    }
}

/// What one frame says: who sent it and when.
///
/// ```text
/// talker u8 ‖ nanoseconds since the measurement's origin u64 ‖ filler
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The talker.
    pub talker: u8,
    /// Nanoseconds since the measurement's origin.
    pub sent: u64,
}

impl Frame {
    /// The bytes to forward.
    pub fn encode(&self) -> [u8; FRAME_LEN] {
        let mut bytes = [FILLER; FRAME_LEN];
        bytes[0] = self.talker;
        bytes[1..9].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// The frame that was forwarded; `None` if these bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_LEN] = bytes.try_into().ok()?;
        let (talker, rest) = bytes.split_first()?;
        let (sent, filler) = rest.split_first_chunk()?;
        let is_whole = filler.iter().all(|byte| *byte == FILLER);
        is_whole.then(|| Self { talker: *talker, sent: u64::from_be_bytes(*sent) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEMINAR: Pattern = Pattern { people: 50, talkers: 5, jitter: Duration::ZERO };

    #[test]
    fn a_frame_is_as_long_as_conclaves_datagram() {
        assert_eq!(FRAME_LEN, conclave_protocol::sframe::frame::DATAGRAM_LEN);
    }

    #[test]
    fn a_frame_comes_back_and_a_changed_or_shortened_one_does_not() {
        let frame = Frame { talker: 3, sent: 1_234_567_890_123 };
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Some(frame));
        assert_eq!(Frame::decode(&bytes[1..]), None);
        let mut changed = bytes;
        changed[FRAME_LEN - 1] ^= 1;
        assert_eq!(Frame::decode(&changed), None);
    }

    #[test]
    fn clocks_are_spread_and_each_talker_keeps_its_own() {
        let first: Vec<_> = Schedule::new(SEMINAR, 1).take(SEMINAR.frames_per_second()).collect();
        for (number, (due, talker)) in first.iter().enumerate() {
            assert_eq!(*talker, number % SEMINAR.talkers);
            assert_eq!(*due, Duration::from_millis(4) * u32::try_from(number).unwrap());
        }
    }

    #[test]
    fn jitter_keeps_frames_near_their_tick_and_in_order_of_time() {
        let jitter = Duration::from_millis(5);
        let pattern = Pattern { jitter, ..SEMINAR };
        let frames: Vec<_> = Schedule::new(pattern, 7).take(1000).collect();
        assert!(frames.is_sorted_by_key(|(due, _)| *due));
        let mut ticks = [0; SEMINAR.talkers];
        let mut moved = Duration::ZERO;
        for (due, talker) in frames {
            let tick = INTERVAL * ticks[talker] + Duration::from_millis(4) * u32::try_from(talker).unwrap();
            ticks[talker] += 1;
            assert!(due >= tick && due <= tick + 2 * jitter);
            moved = moved.max(due - tick);
        }
        assert!(moved > jitter);
    }
}
