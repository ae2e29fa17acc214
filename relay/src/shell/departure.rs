//! What leaves together: frames, and control messages that go along with them. Most listeners of a meeting get the same ones,
//! so what is the same in their packets is made once: only encryption is each listener's own.

use std::time::{Duration, Instant};

use super::frames::{Frame, FrameId, Frames};
use super::pressure::Pressure;
use crate::media;
use crate::stats::Stats;

/// Messages that never have room beside these frames, and for which one more packet is sent before they have waited for long
/// enough.
const WORTH_A_PACKET: usize = 2;

/// What is to leave for one listener.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) frames: &'a [FrameId],
    /// Control messages, which go along if they find room.
    pub(super) messages: &'a [FrameId],
    /// They have waited for long enough.
    pub(super) all: bool,
}

/// A media packet, without protection, and the messages in it.
#[derive(Default)]
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: Vec<FrameId>,
}

/// What of it leaves, and how many frames do not. Made for the next listener anew, if that gets something else.
#[derive(Default)]
pub(super) struct Departure {
    frames: Vec<FrameId>,
    messages: Vec<FrameId>,
    all: bool,
    deadline: Duration,
    /// They are all in time until then, if any are.
    until: Option<Instant>,
    /// When those that leave arrived, and how many did.
    arrivals: Vec<(Instant, u64)>,
    leaving: u64,
    bytes: u64,
    late: u64,
    too_large: u64,
    /// The messages that leave, or are gone.
    leaving_messages: Vec<FrameId>,
    message_bytes: u64,
    /// Those beyond `packets` are spare.
    made: Vec<Made>,
    packets: usize,
    /// What packets hold that are only planned.
    planned: Vec<usize>,
    /// Of the frames that leave.
    lengths: Vec<usize>,
}

impl Departure {
    /// Makes ready what leaves of that now: a frame that came longer ago than `deadline` is late.
    pub(super) fn prepare(
        &mut self,
        wanted: Wanted<'_>,
        frames: &Frames,
        messages: &Frames,
        now: Instant,
        deadline: Duration,
    ) {
        let is_same = self.frames == wanted.frames && self.messages == wanted.messages && self.all == wanted.all;
        if is_same && self.deadline == deadline && self.until.is_some_and(|until| now <= until) {
            return;
        }
        self.begin(wanted);
        self.deadline = deadline;
        self.lengths.clear();
        let in_time = |frame: &&Frame| now.saturating_duration_since(frame.arrived) <= deadline;
        for id in wanted.frames {
            match frames.get(*id).filter(in_time) {
                Some(frame) => self.lengths.push(media::datagram_len(&frame.bytes)),
                None => self.late += 1,
            }
        }
        self.choose(wanted, messages);
        for at in 0..self.leaving_messages.len() {
            let id = self.leaving_messages[at];
            if let Some(message) = messages.get(id)
                && let Some(packet) = self.room_for(media::message_len(&message.bytes))
            {
                media::push_message(&mut packet.bytes, &message.bytes);
                packet.messages.push(id);
                self.message_bytes += message.bytes.len() as u64;
            }
        }
        for id in wanted.frames {
            let Some(frame) = frames.get(*id).filter(in_time) else { continue };
            let Some(packet) = self.room_for(media::datagram_len(&frame.bytes)) else {
                self.too_large += 1;
                continue;
            };
            media::push(&mut packet.bytes, &frame.bytes);
            self.until.get_or_insert(frame.arrived + deadline);
            self.leaving += 1;
            self.bytes += frame.bytes.len() as u64;
            match self.arrivals.last_mut() {
                Some((arrived, count)) if *arrived == frame.arrived => *count += 1,
                _ => self.arrivals.push((frame.arrived, 1)),
            }
        }
    }

    fn begin(&mut self, wanted: Wanted<'_>) {
        self.frames.clear();
        self.frames.extend_from_slice(wanted.frames);
        self.messages.clear();
        self.messages.extend_from_slice(wanted.messages);
        self.all = wanted.all;
        self.arrivals.clear();
        self.until = None;
        (self.leaving, self.bytes, self.late, self.too_large, self.packets) = (0, 0, 0, 0, 0);
        self.leaving_messages.clear();
        self.message_bytes = 0;
    }

    /// Chooses the messages that leave now: such as have room beside the frames, and with one packet more those that never
    /// have, if that is worth it; or all.
    fn choose(&mut self, wanted: Wanted<'_>, messages: &Frames) {
        if wanted.all || wanted.messages.is_empty() {
            return self.leaving_messages.extend_from_slice(wanted.messages);
        }
        let most = self.plan(messages, &[]);
        let mut large = 0;
        for id in wanted.messages {
            if self.plan(messages, &[*id]) <= most {
                self.take_along(messages, *id, most);
            } else if self.plan(messages, &[*id, *id]) > most + 1 {
                // It would never share a packet with another one like it.
                self.leaving_messages.push(*id);
            } else {
                large += 1;
            }
        }
        if large >= WORTH_A_PACKET {
            for id in wanted.messages {
                if !self.leaving_messages.contains(id) {
                    self.take_along(messages, *id, most + 1);
                }
            }
        }
    }

    /// Has a message leave, too, if that takes no more than so many packets.
    fn take_along(&mut self, messages: &Frames, id: FrameId, most: usize) {
        self.leaving_messages.push(id);
        let chosen = std::mem::take(&mut self.leaving_messages);
        let packets = self.plan(messages, &chosen);
        self.leaving_messages = chosen;
        if packets > most {
            self.leaving_messages.pop();
        }
    }

    /// How many packets these messages take with all frames that leave.
    fn plan(&mut self, messages: &Frames, chosen: &[FrameId]) -> usize {
        let Self { planned, lengths, .. } = self;
        planned.clear();
        let messages = chosen.iter().filter_map(|id| messages.get(*id));
        let messages = messages.map(|message| media::message_len(&message.bytes));
        for length in messages.chain(lengths.iter().copied()) {
            match planned.iter_mut().find(|packet| **packet + length <= media::ROOM) {
                Some(packet) => *packet += length,
                None => planned.push(length),
            }
        }
        planned.len()
    }

    /// The first packet with room for so many bytes, or a new one; `None` if no packet has.
    fn room_for(&mut self, length: usize) -> Option<&mut Made> {
        if length > media::ROOM {
            return None;
        }
        let Self { made, packets, .. } = self;
        let has_room = |packet: &Made| packet.bytes.len() + length <= media::FILLED;
        let at = made.iter().take(*packets).position(has_room).unwrap_or(*packets);
        if at == *packets {
            if made.len() == at {
                made.push(Made { bytes: Vec::with_capacity(media::MAX_PACKET), messages: Vec::new() });
            }
            let packet = &mut made[at];
            packet.bytes.clear();
            packet.messages.clear();
            media::begin(&mut packet.bytes);
            *packets += 1;
        }
        made.get_mut(at)
    }

    /// The packets, to be completed for a listener.
    pub(super) fn packets(&self) -> &[Made] {
        self.made.get(..self.packets).unwrap_or_default()
    }

    /// The messages that need not wait any more.
    pub(super) fn messages_that_leave(&self) -> &[FrameId] {
        &self.leaving_messages
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
        if !self.leaving_messages.is_empty() {
            let messages = self.packets().iter().map(|packet| packet.messages.len() as u64).sum();
            stats.control_out.add(messages);
            stats.control_beside.add(messages);
            stats.control_bytes_out.add(self.message_bytes);
        }
        pressure.note(self.late, self.leaving);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    /// Frames of so many bytes, a millisecond apart, and when the last came.
    fn frames(lengths: &[usize]) -> (Frames, Vec<FrameId>, Instant) {
        numbered(lengths, 10)
    }

    fn numbered(lengths: &[usize], first: u8) -> (Frames, Vec<FrameId>, Instant) {
        let (mut frames, start) = (Frames::default(), Instant::now());
        let ids = lengths.iter().zip(first..).map(|(length, n)| {
            let arrived = start + Duration::from_millis((n - first).into());
            frames.keep(Frame { bytes: Bytes::from(vec![n; *length]), arrived }, DEADLINE)
        });
        let ids: Vec<FrameId> = ids.collect();
        (frames, ids, start + Duration::from_millis(lengths.len() as u64 - 1))
    }

    fn alone(frames: &[FrameId]) -> Wanted<'_> {
        Wanted { frames, messages: &[], all: false }
    }

    /// What is in the packets: the first byte of each frame.
    fn made(departure: &Departure) -> Vec<Vec<u8>> {
        let tag = [0; 16];
        let packets = departure.packets().iter().map(|packet| [&packet.bytes[..], &tag].concat());
        let first = |item: media::Item<'_>| match item {
            media::Item::Datagram(bytes) | media::Item::Message(bytes) => bytes[0],
            media::Item::Receipt(_) => panic!("no relay sends one"),
        };
        packets.map(|packet| media::items(&packet).map(first).collect()).collect()
    }

    #[test]
    fn frames_leave_in_as_few_packets_as_hold_them_and_one_without_room_in_none() {
        let (frames, ids, now) = frames(&[161, 161, 161, 161, 161, 161, 161, 161, 1_300, 161]);
        let (mut departure, none) = (Departure::default(), Frames::default());
        departure.prepare(alone(&ids), &frames, &none, now, DEADLINE);
        assert_eq!(made(&departure), [vec![10, 11, 12, 13, 14, 15, 16], vec![17, 19]]);
        assert_eq!((departure.leaving, departure.late, departure.too_large, departure.bytes), (9, 0, 1, 9 * 161));
        departure.prepare(alone(&ids[..2]), &frames, &none, now, DEADLINE);
        assert_eq!(made(&departure), [vec![10, 11]]);
    }

    #[test]
    fn what_is_late_stays_even_if_it_was_in_time_for_the_listener_before() {
        let (frames, ids, now) = frames(&[161, 161, 161]);
        let (mut departure, none) = (Departure::default(), Frames::default());
        departure.prepare(alone(&ids), &frames, &none, now, DEADLINE);
        let later = now + DEADLINE - Duration::from_millis(1);
        departure.prepare(alone(&ids), &frames, &none, later, DEADLINE);
        assert_eq!(made(&departure), [vec![11, 12]]);
        let (stats, mut pressure) = (Stats::default(), Pressure::default());
        departure.count(later, &stats, &mut pressure);
        departure.prepare(alone(&ids), &frames, &none, now + DEADLINE * 2, DEADLINE);
        assert!(departure.packets().is_empty());
        departure.count(later, &stats, &mut pressure);
        let counts = stats.snapshot();
        assert_eq!((counts.dropped_late, counts.datagrams_out, counts.datagram_bytes_out), (4, 2, 322));
        assert_eq!(stats.residence.counts().iter().sum::<u64>(), 2);
    }

    #[test]
    fn messages_go_where_frames_leave_room_or_two_in_a_packet_more_or_when_they_have_waited() {
        let (frames, ids, now) = frames(&[161; 5]);
        let (messages, waiting, _) = numbered(&[618, 618, 352, 618], 100);
        let left = |frames_wanted: usize, messages_wanted: &[FrameId], all| {
            let mut departure = Departure::default();
            let wanted = Wanted { frames: &ids[..frames_wanted], messages: messages_wanted, all };
            departure.prepare(wanted, &frames, &messages, now, DEADLINE);
            (made(&departure), departure.messages_that_leave().len())
        };
        assert_eq!(left(3, &waiting[..1], false), (vec![vec![100, 10, 11, 12]], 1));
        assert_eq!(left(3, &waiting[..2], false), (vec![vec![100, 10, 11, 12]], 1), "the other has room in 20 ms");
        assert_eq!(left(5, &waiting[..1], false), (vec![vec![10, 11, 12, 13, 14]], 0));
        assert_eq!(left(5, &waiting[..1], true), (vec![vec![100, 10, 11, 12], vec![13, 14]], 1));
        assert_eq!(left(5, &waiting[2..3], false), (vec![vec![102, 10, 11, 12, 13, 14]], 1), "a witness");
        assert_eq!(left(5, &waiting[..2], false), (vec![vec![100, 10, 11, 12], vec![101, 13, 14]], 2));
        assert_eq!(
            left(5, &waiting[1..3], false),
            (vec![vec![102, 10, 11, 12, 13, 14]], 1),
            "passes by what waits before it"
        );
        let (seals, long, _) = numbered(&[1_018], 200);
        let mut departure = Departure::default();
        let wanted = Wanted { frames: &ids[..1], messages: &long, all: false };
        departure.prepare(wanted, &frames, &seals, now, DEADLINE);
        assert_eq!(made(&departure), [vec![200], vec![10]], "one of a meeting with short frames");
        assert_eq!(left(0, &waiting[..2], true), (vec![vec![100], vec![101]], 2));
        let mut departure = Departure::default();
        let wanted = Wanted { frames: &ids, messages: &waiting, all: true };
        departure.prepare(wanted, &frames, &messages, now, DEADLINE);
        let with: Vec<_> = departure.packets().iter().map(|packet| packet.messages.clone()).collect();
        assert_eq!(with.concat().len(), 4);
        assert_eq!(departure.messages_that_leave(), waiting);
    }

    #[test]
    fn a_listener_without_messages_gets_none_of_another_s() {
        let (frames, ids, now) = frames(&[161, 161]);
        let (messages, waiting, _) = numbered(&[600], 100);
        let mut departure = Departure::default();
        let wanted = Wanted { frames: &ids, messages: &waiting, all: false };
        departure.prepare(wanted, &frames, &messages, now, DEADLINE);
        assert_eq!(made(&departure), [vec![100, 10, 11]]);
        departure.prepare(alone(&ids), &frames, &messages, now, DEADLINE);
        assert_eq!(made(&departure), [vec![10, 11]]);
    }
}
