//! What leaves together: frames, and control messages that go along with them. Most listeners of a meeting get the same ones,
//! so what is the same in their packets is made once: only encryption is each listener's own.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::along::Begun;
use super::frames::{Frame, FrameId, Frames};
use super::pressure::Pressure;
use crate::media::{self, Part};
use crate::stats::Stats;

/// The shortest part of a message for which frames leave room enough: with less, one takes more packets than bytes.
const LEAST_PART: usize = 128;

/// What is to leave for one listener.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) frames: &'a [FrameId],
    /// Control messages, which go along if they find room.
    pub(super) messages: &'a [FrameId],
    /// That of them of which some has left.
    pub(super) begun: Option<Begun>,
    /// So many packets more than frames take may leave for them.
    pub(super) more: usize,
}

/// A media packet, without protection, and the messages of which something is in it.
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
    begun: Option<Begun>,
    more: usize,
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
    messages_left: u64,
    message_bytes: u64,
    /// Of that one some leaves, or has left before.
    begins: Option<Begun>,
    /// Makes names of messages that tell nobody how many there are.
    names: RandomState,
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
        let is_same = self.frames == wanted.frames && self.messages == wanted.messages;
        let is_same = is_same && self.begun == wanted.begun && self.more == wanted.more;
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
            self.place(messages, self.leaving_messages[at]);
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
        self.fill(messages);
        let Self { begins, leaving_messages, .. } = self;
        begins.take_if(|begins| leaving_messages.contains(&begins.message));
    }

    fn begin(&mut self, wanted: Wanted<'_>) {
        self.frames.clear();
        self.frames.extend_from_slice(wanted.frames);
        self.messages.clear();
        self.messages.extend_from_slice(wanted.messages);
        (self.begun, self.begins) = (wanted.begun, wanted.begun);
        self.more = wanted.more;
        self.arrivals.clear();
        self.until = None;
        (self.leaving, self.bytes, self.late, self.too_large, self.packets) = (0, 0, 0, 0, 0);
        self.leaving_messages.clear();
        (self.messages_left, self.message_bytes) = (0, 0);
    }

    /// Chooses the messages that leave whole, or with their rest: such as have room beside the frames.
    fn choose(&mut self, wanted: Wanted<'_>, messages: &Frames) {
        if wanted.messages.is_empty() {
            return;
        }
        let most = self.plan(messages, &[]) + wanted.more;
        for id in wanted.messages {
            self.take_along(messages, *id, most);
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
        let Self { planned, lengths, begun, .. } = self;
        planned.clear();
        let messages = chosen.iter().filter_map(|id| Some(rest(messages, *begun, *id)?.1));
        for length in messages.chain(lengths.iter().copied()) {
            match planned.iter_mut().find(|packet| **packet + length <= media::ROOM) {
                Some(packet) => *packet += length,
                None => planned.push(length),
            }
        }
        planned.len()
    }

    /// Puts a message that leaves, or what is left of it, into a packet.
    fn place(&mut self, messages: &Frames, id: FrameId) {
        let begun = self.begun;
        let Some((from, length)) = rest(messages, begun, id) else { return };
        let Some(message) = messages.get(id).map(|message| &message.bytes[..]) else { return };
        let name = self.name(id);
        let Some(packet) = self.room_for(length) else { return };
        if from > 0 {
            push_part(&mut packet.bytes, name, message, from, message.len());
        } else {
            media::push_message(&mut packet.bytes, message);
        }
        packet.messages.push(id);
        self.count_message(message.len());
    }

    /// Puts a part of a message that waits where most room is left.
    fn fill(&mut self, messages: &Frames) {
        let waits = |id: &&FrameId| !self.leaving_messages.contains(id);
        let begun = self.begun.map(|begun| begun.message);
        let Some(id) = begun.as_ref().filter(waits).or_else(|| self.messages.iter().find(waits)).copied() else {
            return;
        };
        let Some((from, _)) = rest(messages, self.begun, id) else { return };
        let Some(message) = messages.get(id).map(|message| &message.bytes[..]) else { return };
        let name = self.name(id);
        let packets = self.made.iter_mut().take(self.packets);
        let Some(packet) = packets.min_by_key(|packet| packet.bytes.len()) else { return };
        let room = media::FILLED.saturating_sub(packet.bytes.len() + media::part_len(0));
        let to = message.len().min(from + room);
        if room < LEAST_PART || from >= to {
            return;
        }
        push_part(&mut packet.bytes, name, message, from, to);
        packet.messages.push(id);
        if to == message.len() {
            self.leaving_messages.push(id);
            self.count_message(message.len());
        } else {
            self.begins = Some(Begun { message: id, bytes: to });
        }
    }

    fn count_message(&mut self, bytes: usize) {
        self.messages_left += 1;
        self.message_bytes += bytes as u64;
    }

    /// What a message is called in its parts.
    fn name(&self, id: FrameId) -> u32 {
        // Any half of it is as good.
        (self.names.hash_one(id.to_u64()) >> 32) as u32
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

    /// That of which only some leaves, or has left before.
    pub(super) fn begins(&self) -> Option<Begun> {
        self.begins
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
        if self.messages_left > 0 {
            stats.control_out.add(self.messages_left);
            stats.control_beside.add(self.messages_left);
            stats.control_bytes_out.add(self.message_bytes);
        }
        pressure.note(self.late, self.leaving);
    }
}

/// From where on a message is still to leave, and what that fills of a packet; `None` if it is gone.
fn rest(messages: &Frames, begun: Option<Begun>, id: FrameId) -> Option<(usize, usize)> {
    let message = &messages.get(id)?.bytes;
    Some(match begun.filter(|begun| begun.message == id) {
        Some(begun) => (begun.bytes, media::part_len(message.len().saturating_sub(begun.bytes))),
        None => (0, media::message_len(message)),
    })
}

fn push_part(packet: &mut Vec<u8>, id: u32, message: &[u8], from: usize, to: usize) {
    // Messages that go so are no longer than a packet.
    if let (Ok(at), Ok(of), Some(bytes)) = (from.try_into(), message.len().try_into(), message.get(from..to)) {
        media::push_part(packet, Part { id, at, of, bytes });
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
        Wanted { frames, messages: &[], begun: None, more: 0 }
    }

    /// What is in the packets: the first byte of each frame.
    fn made(departure: &Departure) -> Vec<Vec<u8>> {
        let tag = [0; 16];
        let packets = departure.packets().iter().map(|packet| [&packet.bytes[..], &tag].concat());
        let first = |item: media::Item<'_>| match item {
            media::Item::Datagram(bytes) | media::Item::Message(bytes) | media::Item::Part(Part { bytes, .. }) => {
                bytes[0]
            }
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
    fn messages_go_where_frames_leave_room_or_in_a_packet_more_when_they_have_waited() {
        let (frames, ids, now) = frames(&[161; 7]);
        let (messages, waiting, _) = numbered(&[618, 618, 352, 1_018], 100);
        let left = |frames_wanted: usize, messages_wanted: &[FrameId], more| {
            let mut departure = Departure::default();
            let wanted = Wanted { frames: &ids[..frames_wanted], messages: messages_wanted, begun: None, more };
            departure.prepare(wanted, &frames, &messages, now, DEADLINE);
            assert_eq!(departure.messages_left, departure.messages_that_leave().len() as u64);
            (made(&departure), departure.messages_that_leave().len())
        };
        assert_eq!(left(3, &waiting[..1], 0), (vec![vec![100, 10, 11, 12]], 1));
        assert_eq!(left(3, &waiting[..2], 0), (vec![vec![100, 10, 11, 12]], 1), "the other has room in 20 ms");
        assert_eq!(left(5, &waiting[..1], 0), (vec![vec![10, 11, 12, 13, 14, 100]], 0), "a part of it");
        assert_eq!(left(5, &waiting[..1], 1), (vec![vec![100, 10, 11, 12], vec![13, 14]], 1));
        assert_eq!(left(5, &waiting[..2], 1), (vec![vec![100, 10, 11, 12], vec![101, 13, 14]], 2));
        assert_eq!(left(5, &waiting[2..3], 0), (vec![vec![102, 10, 11, 12, 13, 14]], 1), "a witness");
        assert_eq!(
            left(5, &waiting[1..3], 0),
            (vec![vec![102, 10, 11, 12, 13, 14]], 1),
            "passes by what waits before it"
        );
        let seven = vec![10, 11, 12, 13, 14, 15, 16];
        assert_eq!(left(7, &waiting[..2], 0), (vec![seven.clone()], 0), "no room for a part");
        assert_eq!(left(7, &waiting[..2], 1), (vec![vec![100, 10, 11, 12], vec![13, 14, 15, 16, 101]], 1));
        assert_eq!(left(7, &waiting[3..], 1), (vec![vec![103], seven], 1), "one of a meeting with short frames");
        assert_eq!(left(0, &waiting[..2], 1), (vec![vec![100, 101]], 1));
        assert_eq!(left(5, &waiting, 1), (vec![vec![100, 10, 11, 12], vec![101, 13, 14, 102]], 2), "and a part of one");
    }

    #[test]
    fn what_leaves_in_parts_becomes_whole_again() {
        let (frames, ids, now) = frames(&[161; 5]);
        let messages = |lengths: &[usize]| numbered(lengths, 100);
        for (lengths, due_at, expected) in [
            (&[618, 618][..], 9, &[vec![100], vec![100], vec![101], vec![101]][..]),
            // 78 bytes behind the rest of the first are no room for a part.
            (&[618, 352], 9, &[vec![101], vec![100], vec![100]]),
            (&[1_018], 9, &[vec![100], vec![100], vec![100]]),
            // What has waited for long enough leaves with its rest, and the others whole.
            (&[618, 618], 1, &[vec![100], vec![100, 101]]),
            (&[400], 9, &[vec![100], vec![100]]),
        ] {
            let (messages, mut waiting, _) = messages(lengths);
            let all_of_them = waiting.clone();
            let (mut departure, mut begun, mut whole) = (Departure::default(), None, Vec::new());
            let (mut parts, mut seen) = (media::Parts::default(), Vec::new());
            for round in 0..10 {
                let wanted = Wanted { frames: &ids, messages: &waiting, begun, more: usize::from(round >= due_at) };
                departure.prepare(wanted, &frames, &messages, now, DEADLINE);
                let mut came = Vec::new();
                for packet in departure.packets() {
                    let bytes = [&packet.bytes[..], &[0; 16]].concat();
                    assert!(bytes.len() <= media::MAX_PACKET);
                    for item in media::items(&bytes) {
                        match item {
                            media::Item::Message(message) => whole.push(message.to_vec()),
                            media::Item::Part(part) => whole.extend(parts.take(part)),
                            _ => {}
                        }
                    }
                    let place = |id: &FrameId| 100 + all_of_them.iter().position(|of| of == id).unwrap();
                    came.extend(packet.messages.iter().map(place));
                }
                seen.push(came);
                let gone = departure.messages_that_leave();
                waiting.retain(|id| !gone.contains(id));
                begun = departure.begins();
            }
            assert_eq!(&seen[..expected.len()], expected);
            assert!(seen[expected.len()..].iter().all(Vec::is_empty) && begun.is_none() && waiting.is_empty());
            whole.sort_unstable();
            let expected = all_of_them.iter().map(|id| messages.get(*id).unwrap().bytes.to_vec());
            assert_eq!(whole, expected.collect::<Vec<_>>(), "{lengths:?}");
        }
    }

    #[test]
    fn a_listener_without_messages_gets_none_of_another_s() {
        let (frames, ids, now) = frames(&[161, 161]);
        let (messages, waiting, _) = numbered(&[600], 100);
        let mut departure = Departure::default();
        let wanted = Wanted { frames: &ids, messages: &waiting, begun: None, more: 0 };
        departure.prepare(wanted, &frames, &messages, now, DEADLINE);
        assert_eq!(made(&departure), [vec![100, 10, 11]]);
        departure.prepare(alone(&ids), &frames, &messages, now, DEADLINE);
        assert_eq!(made(&departure), [vec![10, 11]]);
    }
}
