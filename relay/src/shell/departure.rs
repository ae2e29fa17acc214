//! Frames that leave together. Most listeners of a meeting get the same ones, so what is the same in their packets is made
//! once: only encryption is each listener's own.

use std::time::{Duration, Instant};

use super::frames::{FrameId, Frames};
use super::pressure::Pressure;
use crate::media;
use crate::stats::Stats;

/// The frames of one listener that leave, and how many do not. Made for the next listener anew, if its frames are others.
#[derive(Default)]
pub(super) struct Departure {
    frames: Vec<FrameId>,
    deadline: Duration,
    /// They are all in time until then, if any are.
    until: Option<Instant>,
    /// When those that leave arrived, and how many did.
    arrivals: Vec<(Instant, u64)>,
    leaving: u64,
    bytes: u64,
    late: u64,
    too_large: u64,
    /// Media packets, without protection. Those beyond `packets` are spare.
    made: Vec<Vec<u8>>,
    packets: usize,
}

impl Departure {
    /// Makes ready what leaves of those frames now: what came longer ago than `deadline` is late.
    pub(super) fn prepare(&mut self, wanted: &[FrameId], frames: &Frames, now: Instant, deadline: Duration) {
        let is_made = self.frames == wanted && self.deadline == deadline;
        if is_made && self.until.is_some_and(|until| now <= until) {
            return;
        }
        self.begin(wanted);
        self.deadline = deadline;
        for id in wanted {
            let frame = frames.get(*id).filter(|frame| now.saturating_duration_since(frame.arrived) <= deadline);
            let Some(frame) = frame else {
                self.late += 1;
                continue;
            };
            if !self.push(&frame.bytes) {
                self.too_large += 1;
                continue;
            }
            self.until.get_or_insert(frame.arrived + deadline);
            self.leaving += 1;
            self.bytes += frame.bytes.len() as u64;
            match self.arrivals.last_mut() {
                Some((arrived, count)) if *arrived == frame.arrived => *count += 1,
                _ => self.arrivals.push((frame.arrived, 1)),
            }
        }
    }

    fn begin(&mut self, wanted: &[FrameId]) {
        self.frames.clear();
        self.frames.extend_from_slice(wanted);
        self.arrivals.clear();
        self.until = None;
        (self.leaving, self.bytes, self.late, self.too_large, self.packets) = (0, 0, 0, 0, 0);
    }

    /// Puts a frame into the last packet, or into a new one if it has no room there; `false` if no packet has.
    fn push(&mut self, frame: &[u8]) -> bool {
        let last = self.packets.checked_sub(1).and_then(|last| self.made.get_mut(last));
        if last.is_some_and(|packet| media::push(packet, frame)) {
            return true;
        }
        if self.made.len() == self.packets {
            self.made.push(Vec::with_capacity(media::MAX_PACKET));
        }
        let packet = &mut self.made[self.packets];
        packet.clear();
        media::begin(packet);
        let has_room = media::push(packet, frame);
        self.packets += usize::from(has_room);
        has_room
    }

    /// The packets with the frames, to be completed for a listener.
    pub(super) fn packets(&self) -> &[Vec<u8>] {
        self.made.get(..self.packets).unwrap_or_default()
    }

    /// They have left for one listener.
    pub(super) fn count(&self, now: Instant, stats: &Stats, pressure: &mut Pressure) {
        for (arrived, count) in &self.arrivals {
            stats.residence.record(now.saturating_duration_since(*arrived), *count);
        }
        stats.datagrams_out.add(self.leaving);
        stats.datagram_bytes_out.add(self.bytes);
        stats.dropped_late.add(self.late);
        stats.dropped_too_large.add(self.too_large);
        pressure.note(self.late, self.leaving);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::frames::Frame;
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    /// Frames of so many bytes, a millisecond apart, and when the last came.
    fn frames(lengths: &[usize]) -> (Frames, Vec<FrameId>, Instant) {
        let (mut frames, start) = (Frames::default(), Instant::now());
        let ids = lengths.iter().zip(0u8..).map(|(length, n)| {
            let arrived = start + Duration::from_millis(n.into());
            frames.keep(Frame { bytes: Bytes::from(vec![n; *length]), arrived }, DEADLINE)
        });
        let ids: Vec<FrameId> = ids.collect();
        (frames, ids, start + Duration::from_millis(lengths.len() as u64 - 1))
    }

    /// What is in the packets: the first byte of each frame.
    fn made(departure: &Departure) -> Vec<Vec<u8>> {
        let tag = [0; 16];
        let packets = departure.packets().iter().map(|packet| [&packet[..], &tag].concat());
        packets.map(|packet| media::frames(&packet).map(|frame| frame[0]).collect()).collect()
    }

    #[test]
    fn frames_leave_in_as_few_packets_as_hold_them_and_one_without_room_in_none() {
        let (frames, ids, now) = frames(&[161, 161, 161, 161, 161, 161, 161, 161, 1_300, 161]);
        let mut departure = Departure::default();
        departure.prepare(&ids, &frames, now, DEADLINE);
        assert_eq!(made(&departure), [vec![0, 1, 2, 3, 4, 5, 6], vec![7, 9]]);
        assert_eq!((departure.leaving, departure.late, departure.too_large, departure.bytes), (9, 0, 1, 9 * 161));
        departure.prepare(&ids[..2], &frames, now, DEADLINE);
        assert_eq!(made(&departure), [vec![0, 1]]);
    }

    #[test]
    fn what_is_late_stays_even_if_it_was_in_time_for_the_listener_before() {
        let (frames, ids, now) = frames(&[161, 161, 161]);
        let mut departure = Departure::default();
        departure.prepare(&ids, &frames, now, DEADLINE);
        let later = now + DEADLINE - Duration::from_millis(1);
        departure.prepare(&ids, &frames, later, DEADLINE);
        assert_eq!(made(&departure), [vec![1, 2]]);
        let (stats, mut pressure) = (Stats::default(), Pressure::default());
        departure.count(later, &stats, &mut pressure);
        departure.prepare(&ids, &frames, now + DEADLINE * 2, DEADLINE);
        assert!(departure.packets().is_empty());
        departure.count(later, &stats, &mut pressure);
        let counts = stats.snapshot();
        assert_eq!((counts.dropped_late, counts.datagrams_out, counts.datagram_bytes_out), (4, 2, 322));
        assert_eq!(stats.residence.counts().iter().sum::<u64>(), 2);
    }
}
