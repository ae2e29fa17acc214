//! Which frames leave together to one listener. Pure: time comes in as an argument.
//!
//! Several frames in one QUIC packet cost hardly more than one, and the frames of a meeting whose clocks are aligned
//! arrive within a moment of each other. So a frame may wait for those that are expected with it: as many as came in
//! such a moment lately. When they are all here, or the moment is over, they leave. Where frames come alone, none waits.

use std::time::{Duration, Instant};

use super::frames::FrameId;

/// Frames that wait for one listener: two rounds of sixteen talkers. The oldest makes room.
const MOST: usize = 32;

/// Frames of a talker come every 20 ms, give or take what the path does.
pub(super) const BUSY: Duration = Duration::from_millis(30);

/// When what waits is to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leave {
    /// Now.
    Now,
    /// At this time, unless more comes before.
    At(Instant),
    /// As was said before.
    AsBefore,
}

/// The frames for one listener.
#[repr(C)]
pub(super) struct Bundle {
    /// When the first frame of the present moment came, and how many since.
    opened: Option<Instant>,
    seen: usize,
    /// How many came in the moment before. One that comes too late is a moment of its own, so the last two count.
    before: usize,
    expected: usize,
    /// Those that wait, and how many there are. They are in place, since that is what is touched for each frame and listener.
    count: usize,
    frames: [FrameId; MOST],
}

impl Bundle {
    pub(super) fn new() -> Self {
        Self { frames: [FrameId::default(); MOST], count: 0, opened: None, seen: 0, before: 0, expected: 1 }
    }

    /// Whether frames come often: the next is to be expected within a moment.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.opened.is_some_and(|opened| now.saturating_duration_since(opened) < BUSY)
    }

    /// Those that wait, the oldest first.
    pub(super) fn waiting(&self) -> &[FrameId] {
        self.frames.get(..self.count).unwrap_or_default()
    }

    /// None waits any more.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Takes a frame; `hold` is how long a moment lasts. The second result tells whether an older frame was dropped.
    pub(super) fn push(&mut self, frame: FrameId, arrived: Instant, hold: Duration) -> (Leave, bool) {
        let is_new = self.opened.is_none_or(|opened| arrived.saturating_duration_since(opened) >= hold);
        if is_new {
            self.expected = self.seen.max(self.before).max(1);
            (self.opened, self.before, self.seen) = (Some(arrived), self.seen, 0);
        }
        self.seen += 1;
        let waited = self.count > 0;
        let is_full = self.count >= MOST;
        if is_full {
            self.frames.copy_within(1.., 0);
            self.count = MOST - 1;
        }
        self.frames[self.count] = frame;
        self.count += 1;
        let leave = match self.opened {
            _ if self.seen >= self.expected => Leave::Now,
            Some(opened) if !waited || is_new => Leave::At(opened + hold),
            _ => Leave::AsBefore,
        };
        (leave, is_full)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::frames::{Frame, Frames};
    use super::*;

    const HOLD: Duration = Duration::from_millis(2);

    struct Listener {
        bundle: Bundle,
        arrivals: Vec<Instant>,
        due: Option<Instant>,
        packets: Vec<usize>,
        longest: Duration,
    }

    impl Listener {
        fn new() -> Self {
            Self {
                bundle: Bundle::new(),
                arrivals: Vec::new(),
                due: None,
                packets: Vec::new(),
                longest: Duration::ZERO,
            }
        }

        fn leave(&mut self, now: Instant) {
            self.due = None;
            let waits = self.arrivals.drain(..).map(|arrived| now - arrived);
            self.longest = waits.max().unwrap_or_default().max(self.longest);
            self.packets.push(self.bundle.waiting().len());
            self.bundle.clear();
        }

        fn frame(&mut self, now: Instant) {
            if let Some(due) = self.due.filter(|due| *due <= now) {
                self.leave(due);
            }
            self.arrivals.push(now);
            match self.bundle.push(FrameId::default(), now, HOLD).0 {
                Leave::Now => self.leave(now),
                Leave::At(due) => self.due = Some(due),
                Leave::AsBefore => {}
            }
        }

        /// Rounds of 20 ms, in each of which frames come after so many µs.
        fn rounds(&mut self, start: Instant, rounds: u32, offsets: &[u64]) {
            for round in 0..rounds {
                for offset in offsets {
                    self.frame(start + Duration::from_millis(20) * round + Duration::from_micros(*offset));
                }
            }
        }
    }

    #[test]
    fn frames_that_come_alone_never_wait() {
        let mut listener = Listener::new();
        listener.rounds(Instant::now(), 10, &[0, 4_000, 8_000, 12_000]);
        assert_eq!(listener.packets, [1; 40]);
        assert_eq!(listener.longest, Duration::ZERO);
    }

    #[test]
    fn frames_that_come_together_leave_together_as_soon_as_the_last_is_here() {
        let mut listener = Listener::new();
        listener.rounds(Instant::now(), 10, &[0, 300, 500, 900]);
        // The first round shows how many there are.
        assert_eq!(listener.packets[..4], [1; 4]);
        assert_eq!(listener.packets[4..], [4; 9]);
        assert_eq!(listener.longest, Duration::from_micros(900));
    }

    #[test]
    fn a_frame_that_does_not_come_is_waited_for_twice_and_no_longer_than_the_hold() {
        let mut listener = Listener::new();
        let start = Instant::now();
        listener.rounds(start, 5, &[0, 300, 500]);
        listener.rounds(start + Duration::from_millis(100), 5, &[0, 300]);
        assert_eq!(listener.longest, HOLD);
        assert_eq!(listener.packets[3..], [3, 3, 3, 3, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_frame_that_comes_too_late_does_not_take_the_next_ones_apart() {
        let mut listener = Listener::new();
        let start = Instant::now();
        listener.rounds(start, 5, &[0, 300, 500]);
        listener.rounds(start + Duration::from_millis(100), 1, &[0, 300, 4_000]);
        listener.rounds(start + Duration::from_millis(120), 5, &[0, 300, 500]);
        assert_eq!(listener.packets[3..], [3, 3, 3, 3, 2, 1, 2, 1, 3, 3, 3, 3]);
    }

    #[test]
    fn what_is_never_fetched_stays_bounded_and_the_oldest_goes() {
        let (mut bundle, mut frames, now) = (Bundle::new(), Frames::default(), Instant::now());
        let ids: Vec<FrameId> =
            (0..100).map(|_| frames.keep(Frame { bytes: Bytes::new(), arrived: now }, HOLD)).collect();
        let dropped = ids.iter().filter(|id| bundle.push(**id, now, HOLD).1).count();
        assert_eq!(dropped, 100 - MOST);
        assert_eq!(bundle.waiting(), &ids[100 - MOST..]);
    }
}
