//! Packets in, frames to their listeners, packets out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionHandle, DatagramEvent, Endpoint, Event, Incoming, SendDatagramError, StreamEvent,
    Transmit,
};

use super::acts::KEEP_MESSAGES;
use super::bundle::Leave;
use super::client::{BEYOND, Client, Stage, WAIT};
use super::departure::Wanted;
use super::frames::{Frame, FrameId};
use super::{MAX_INCOMING, SEND_FOR, Shell, place};
use crate::core::{CloseCode, ConnId, Core};
use crate::driver::socket::Received;
use crate::media::{self, Item};
use crate::stats::Stats;

/// A packet that is shorter has room for any frame that still waits, so none does. Smaller than QUIC's least MTU of 1,200
/// by the longest frame and its headers.
const HAS_ROOM: usize = 900;

/// Listeners that get their frames between two looks at the clock: some 20 µs. A look costs a tenth of what one of them takes.
const LISTENERS_AT_A_TIME: usize = 8;

/// Which of a connection's packets are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packets {
    /// All that there are.
    All,
    /// All with frames. To ask once more only to hear that there is nothing costs a tenth of sending.
    UntilOneHasRoom,
}

/// What a packet that came may touch.
pub(super) struct Taken<'a> {
    pub(super) endpoint: &'a mut Endpoint,
    pub(super) clients: &'a mut Vec<Option<Box<Client>>>,
    pub(super) dirty: &'a mut Vec<usize>,
    pub(super) incoming: &'a mut VecDeque<Incoming>,
    pub(super) by_media: &'a HashMap<u64, usize>,
    pub(super) arrived: &'a mut Vec<(ConnId, Bytes)>,
    pub(super) lost: &'a mut Vec<(usize, FrameId)>,
    pub(super) stats: &'a Arc<Stats>,
}

impl Taken<'_> {
    /// Hands a packet to its connection. What QUIC answers at once to one of no connection comes back.
    pub(super) fn packet(self, now: Instant, received: Received) -> Option<(Transmit, Vec<u8>)> {
        self.stats.packets_in.increment();
        self.stats.packet_bytes_in.add(received.bytes.len() as u64);
        if media::is_media(&received.bytes) {
            return self.media(now, received);
        }
        let Received { from, local, ecn, bytes } = received;
        // Allocates only when there is an answer.
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, local, ecn, bytes, &mut answer)? {
            DatagramEvent::ConnectionEvent(ConnectionHandle(at), event) => {
                let client = self.clients.get_mut(at).and_then(Option::as_deref_mut)?;
                if from != client.quic.remote_address() {
                    client.answer_at_once(now);
                }
                client.quic.handle_event(event);
                if !std::mem::replace(&mut client.queued.dirty, true) {
                    self.dirty.push(at);
                }
                None
            }
            DatagramEvent::NewConnection(incoming) if self.incoming.len() < MAX_INCOMING => {
                self.incoming.push_back(incoming);
                None
            }
            DatagramEvent::NewConnection(incoming) => {
                self.stats.refused_full.increment();
                self.endpoint.ignore(incoming);
                None
            }
            DatagramEvent::Response(transmit) => Some((transmit, answer)),
        }
    }

    /// Opens a media packet, whose frames wait in `arrived` then. The answer to a question comes back.
    fn media(self, now: Instant, received: Received) -> Option<(Transmit, Vec<u8>)> {
        let mut packet = received.bytes;
        let at = media::destination(&packet).and_then(|id| self.by_media.get(&id)).copied().unwrap_or(usize::MAX);
        let client = self.clients.get_mut(at).and_then(Option::as_deref_mut);
        let lost = self.lost;
        let opened = client.and_then(|client| {
            Some((client.open_media(now, &mut packet, |message| lost.push((at, message)))?, client))
        });
        let Some(((conn, flags), client)) = opened else {
            self.stats.media_unknown.increment();
            return None;
        };
        self.stats.media_in.increment();
        let packet = packet.freeze();
        for item in media::items(&packet) {
            match item {
                Item::Datagram(frame) => self.arrived.push((conn, packet.slice_ref(frame))),
                Item::Receipt(receipt) => client.settle_media(now, &receipt, |message| lost.push((at, message))),
                // To a relay they come by the control stream alone.
                Item::Message(_) | Item::Part(_) => {}
            }
        }
        flags.asks.then(|| client.answer_media(now)).flatten()
    }
}

impl<C: Core> Shell<C> {
    pub(super) fn mark(&mut self, at: usize) {
        if let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut)
            && !std::mem::replace(&mut client.queued.unsettled, true)
        {
            self.unsettled.push_back(at);
        }
    }

    pub(super) fn mark_readable(&mut self, at: usize) {
        if let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut)
            && !std::mem::replace(&mut client.queued.readable, true)
        {
            self.readable.push_back(at);
        }
    }

    pub(super) fn mark_ready(&mut self, at: usize) {
        if let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut)
            && !std::mem::replace(&mut client.queued.ready, true)
        {
            self.ready.push_back(at);
        }
    }

    /// Takes in what has come from the connections that packets came from. What they get in answer can wait until the
    /// frames leave, and leave with them. Most packets only acknowledge.
    pub(super) fn hear_dirty(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            let is_heard = self.hear(now, at);
            let Some(client) = self.client(at) else { continue };
            client.queued.dirty = false;
            let waits = client.waits_for_frames(now);
            // What waits for longer than that must not keep an acknowledgement waiting.
            let is_long = client.queued.waits_until.is_some_and(|until| until > now + WAIT);
            if let Some(due) = if is_long { client.due() } else { client.queued.waits_until } {
                self.timers.set(at, due);
            }
            if is_heard || !waits {
                self.mark(at);
            }
        }
        // The list's room is kept.
        self.dirty = dirty;
    }

    /// Takes in what has come; `false` if that is nothing.
    fn hear(&mut self, now: Instant, at: usize) -> bool {
        let mut is_heard = false;
        while let Some(event) = self.client(at).and_then(|client| client.quic.poll()) {
            self.on_event(now, at, event);
            is_heard = true;
        }
        if let Some(client) = self.client(at) {
            client.locate(now);
        }
        is_heard
    }

    /// Looks at the connections to which something goes, for a while; the others' turn comes first in the next round. A
    /// message to a thousand members would else keep their frames waiting.
    pub(super) fn settle_some(&mut self, begun: Instant) {
        let mut now = begun;
        // While the kernel takes no more, packets would only pile up.
        while !self.socket.is_blocked()
            && now.saturating_duration_since(begun) < self.control_for()
            && let Some(at) = self.unsettled.pop_front()
        {
            if let Some(client) = self.client(at) {
                client.queued.unsettled = false;
            }
            self.settle(now, at);
            now = Instant::now();
        }
    }

    fn settle(&mut self, now: Instant, at: usize) {
        self.hear(now, at);
        self.write_control(now, at);
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        if client.waits_for_frames(now) {
            if let Some(due) = client.due() {
                self.timers.set(at, due);
            }
            return;
        }
        self.transmit(now, at, Packets::All);
        self.exchange(at);
    }

    fn on_event(&mut self, now: Instant, at: usize, event: Event) {
        match event {
            Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            Event::Connected => self.on_connected(now, at),
            Event::ConnectionLost { reason } => self.on_lost(at, &reason),
            Event::DatagramReceived => self.forward_all(now, at),
            Event::Stream(StreamEvent::Opened { .. }) => self.open_control(at),
            Event::Stream(StreamEvent::Readable { .. }) => self.mark_readable(at),
            // A stream that is finished comes only from one that is closing.
            Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Stopped { .. }) => {
                let code = match self.client(at).map(|client| &client.stage) {
                    Some(Stage::Closing { code, .. }) => *code,
                    _ => CloseCode::DONE,
                };
                self.end(now, at, code);
            }
            // What waits is written whenever the connection is looked at.
            Event::Stream(StreamEvent::Writable { .. } | StreamEvent::Available { .. }) => {}
        }
    }

    fn on_lost(&mut self, at: usize, reason: &ConnectionError) {
        let is_handshake = self.client(at).is_some_and(|client| matches!(client.stage, Stage::Handshake { .. }));
        if is_handshake {
            self.stats.handshakes_failed.increment();
        }
        tracing::trace!(%reason, "connection lost");
        self.take_leave(at);
    }

    fn write_control(&mut self, now: Instant, at: usize) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        if client.control.is_none() || matches!(client.stage, Stage::Over) {
            return;
        }
        let mut result = client.write_control(now, || self.beyond.take(now, 1, BEYOND)).map(|written| {
            self.stats.control_out.add(written.messages);
            self.stats.control_bytes_out.add(written.bytes);
        });
        let mut code = CloseCode::DONE;
        if let Stage::Closing { code: wanted, .. } = client.stage {
            code = wanted;
            let control = client.control.as_mut();
            result = result.and_then(|()| control.map_or(Ok(()), |control| control.finish(&mut client.quic)));
        }
        if result.is_err() {
            self.end(now, at, code);
        }
    }

    /// Forwards the datagrams of a connection that have come.
    pub(super) fn forward_all(&mut self, now: Instant, at: usize) {
        loop {
            let Some(client) = self.client(at) else { return };
            let conn = match client.stage {
                // They wait for the first message.
                Stage::Handshake { .. } | Stage::Hello { .. } | Stage::Over => return,
                Stage::Open { conn, .. } => Some(conn),
                Stage::Closing { .. } => None,
            };
            let Some(bytes) = client.quic.datagrams().recv() else { return };
            client.datagrams += 1;
            self.forward(now, conn, &bytes);
        }
    }

    /// Forwards the datagrams that have come in media packets.
    pub(super) fn forward_arrived(&mut self, now: Instant) {
        let mut arrived = std::mem::take(&mut self.arrived);
        if !arrived.is_empty() {
            self.rhythm.on_frames(now);
        }
        for (conn, bytes) in arrived.drain(..) {
            self.forward(now, Some(conn), &bytes);
        }
        self.arrived = arrived;
    }

    /// Forwards a datagram, or only counts it if the core has nothing more to hear from its sender.
    fn forward(&mut self, now: Instant, conn: Option<ConnId>, bytes: &Bytes) {
        // That only asks for an acknowledgement.
        if bytes.is_empty() {
            return;
        }
        self.stats.datagrams_in.increment();
        self.stats.datagram_bytes_in.add(bytes.len() as u64);
        let Some(conn) = conn else { return };
        let mut receivers = std::mem::take(&mut self.receivers);
        receivers.clear();
        self.core.datagram(now, conn, bytes, &mut receivers);
        if !receivers.is_empty() {
            self.touch(receivers.iter().map(|receiver| place(*receiver)), Client::touch);
            let frame = self.frames.keep(Frame { bytes: bytes.clone(), arrived: now }, self.forwarding.deadline);
            for receiver in &receivers {
                self.push(*receiver, frame, now);
            }
        }
        self.receivers = receivers;
    }

    /// Brings of those connections what is about to be used into the processor's cache, of all at the same time.
    fn touch(&self, those: impl Iterator<Item = usize>, touch: impl Fn(&Client) -> u64) {
        let touched = those.filter_map(|at| self.clients.get(at)?.as_deref().map(&touch));
        // Nobody wants the result, but without it nothing would be read.
        std::hint::black_box(touched.fold(0, |all, one| all ^ one));
    }

    /// A frame for one listener alone.
    pub(super) fn push_one(&mut self, to: ConnId, frame: Frame) {
        let arrived = frame.arrived;
        let frame = self.frames.keep(frame, self.forwarding.deadline);
        self.push(to, frame, arrived);
    }

    /// A frame for one listener: it leaves with those that come with it.
    fn push(&mut self, to: ConnId, frame: FrameId, arrived: Instant) {
        let (at, hold, gathered) = (place(to), self.forwarding.hold, self.gathered);
        let Some(client) = self.client(at).filter(|client| client.heard_as() == Some(to)) else {
            return self.stats.dropped_gone.increment();
        };
        let (leave, is_full) = client.bundle.push(frame, arrived, hold);
        if is_full {
            self.stats.dropped_full.increment();
        }
        match leave {
            Leave::Now => self.mark_ready(at),
            // The first may have come when packets began to gather.
            Leave::At(time) => self.held.push_back((time.checked_sub(gathered).unwrap_or(time), at)),
            Leave::AsBefore => {}
        }
    }

    /// When frames have waited for long enough, if any wait for others.
    pub(super) fn next_release(&mut self) -> Option<Instant> {
        while let Some((time, at)) = self.held.front().copied() {
            // Most have left with the last that was expected, or are about to.
            if self.client(at).is_some_and(|client| !client.queued.ready && !client.bundle.waiting().is_empty()) {
                return Some(time);
            }
            self.held.pop_front();
        }
        None
    }

    /// Lets go of the frames that have waited for long enough.
    pub(super) fn release_held(&mut self, now: Instant) {
        while let Some((_, at)) = self.held.pop_front_if(|(time, _)| *time <= now) {
            if self.client(at).is_some_and(|client| !client.bundle.waiting().is_empty()) {
                self.mark_ready(at);
            }
        }
    }

    /// Sends the frames that are to leave, for a while; the others' turn comes first in the next round.
    pub(super) fn send_ready(&mut self) {
        let begun = Instant::now();
        let (mut now, mut sent) = (begun, 0);
        while !self.socket.is_blocked()
            && now.saturating_duration_since(begun) < SEND_FOR
            && let Some(at) = self.ready.pop_front()
        {
            if sent % LISTENERS_AT_A_TIME == 0 {
                let next = self.ready.iter().take(LISTENERS_AT_A_TIME).copied();
                self.touch(next, Client::touch_media);
            }
            if self.client(at).is_some_and(|client| client.takes_media(now)) {
                self.send_media(now, at);
            } else {
                self.send_frames(now, at);
                self.transmit(now, at, Packets::UntilOneHasRoom);
            }
            sent += 1;
            if sent % LISTENERS_AT_A_TIME == 0 {
                now = Instant::now();
            }
        }
    }

    /// Sends a listener's frames in as few media packets as hold them.
    fn send_media(&mut self, now: Instant, at: usize) {
        let deadline = self.pressure.deadline(self.forwarding.deadline);
        let Self { clients, socket, frames, messages, departure, lost, pressure, stats, .. } = self;
        let Some(client) = clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        client.queued.ready = false;
        let wanted = Wanted {
            frames: client.bundle.waiting(),
            messages: client.along.waiting(),
            begun: client.along.begun(),
            more: usize::from(client.along.is_due(now)),
        };
        departure.prepare(wanted, frames, messages, now, deadline);
        client.bundle.clear();
        client.along.leave(departure.messages_that_leave(), departure.begins());
        for packet in departure.packets() {
            let mut buffer = socket.buffer();
            buffer.extend_from_slice(&packet.bytes);
            if let Some(transmit) = client.complete_media(now, &mut buffer) {
                packet.messages.iter().for_each(|message| client.note_message(now, *message));
                stats.packets_out.increment();
                stats.packet_bytes_out.add(transmit.size as u64);
                socket.send(transmit, &mut buffer);
            } else {
                lost.extend(packet.messages.iter().map(|message| (at, *message)));
            }
            socket.give_back(buffer);
        }
        departure.count(now, stats, pressure);
    }

    fn send_frames(&mut self, now: Instant, at: usize) {
        let deadline = self.pressure.deadline(self.forwarding.deadline);
        let Self { clients, frames, pressure, stats, .. } = self;
        let Some(client) = clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        client.queued.ready = false;
        let (mut late, mut leaving) = (0, 0);
        for id in client.bundle.waiting() {
            let stay = |frame: &Frame| now.saturating_duration_since(frame.arrived);
            let Some(frame) = frames.get(*id).filter(|frame| stay(frame) <= deadline) else {
                late += 1;
                continue;
            };
            stats.residence.record(stay(frame), 1);
            // Should an earlier one still wait, the oldest makes room: late audio is worth nothing.
            match client.quic.datagrams().send(frame.bytes.clone(), true) {
                Ok(()) => {
                    leaving += 1;
                    stats.datagram_bytes_out.add(frame.bytes.len() as u64);
                }
                Err(SendDatagramError::TooLarge) => stats.dropped_too_large.increment(),
                Err(_) => stats.dropped_gone.increment(),
            }
        }
        client.bundle.clear();
        stats.datagrams_out.add(leaving);
        stats.dropped_late.add(late);
        pressure.note(late, leaving);
    }

    /// Sends what the connection has to send, and sees when it is to be looked at again.
    fn transmit(&mut self, now: Instant, at: usize, wanted: Packets) {
        let most = self.socket.max_segments();
        let mut buffer = self.socket.buffer();
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        let has_waited = client.queued.waits_until.take().is_some();
        let (mut packets, mut bytes) = (0, 0);
        while let Some(transmit) = client.quic.poll_transmit(now, most, &mut buffer) {
            packets += transmit.segment_size.map_or(1, |segment| transmit.size.div_ceil(segment.max(1)));
            let has_room = transmit.size < HAS_ROOM;
            bytes += transmit.size;
            self.socket.send(transmit, &mut buffer);
            if self.socket.is_blocked() || (has_room && wanted == Packets::UntilOneHasRoom) {
                break;
            }
        }
        self.socket.give_back(buffer);
        self.stats.packets_out.add(packets as u64);
        self.stats.packet_bytes_out.add(bytes as u64);
        if let Some(due) = client.due() {
            self.timers.set(at, due);
        }
        if has_waited {
            self.exchange(at);
        }
        if self.socket.is_blocked() {
            self.mark(at);
        }
    }

    /// Passes messages between the connection and the endpoint, and forgets a connection that is drained.
    fn exchange(&mut self, at: usize) {
        let mut is_changed = false;
        while let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut)
            && let Some(event) = client.quic.poll_endpoint_events()
        {
            let is_drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(at), event) {
                client.quic.handle_event(event);
                is_changed = true;
            }
            if is_drained {
                self.take_leave(at);
                let client = self.clients[at].take();
                if let Some(id) = client.and_then(|client| client.media_id) {
                    self.by_media.remove(&id);
                }
                self.timers.forget(at);
            }
        }
        if is_changed {
            self.mark(at);
        }
    }

    /// Looks at the connections whose time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        self.messages.let_go(now, KEEP_MESSAGES);
        while let Some(at) = self.timers.pop(now) {
            let Some(client) = self.client(at) else { continue };
            // Most have moved to a later time.
            if let Some(due) = client.due().filter(|due| *due > now) {
                self.timers.set(at, due);
                continue;
            }
            if client.quic.poll_timeout().is_some_and(|due| due <= now) {
                client.quic.handle_timeout(now);
                client.hurry(now);
            }
            if client.read_again.take_if(|time| *time <= now).is_some() {
                self.mark_readable(at);
            }
            if self.client(at).is_some_and(|client| client.has_left_behind(now)) {
                self.send_waiting(now, at);
            }
            self.watch_stage(now, at);
            self.mark(at);
        }
    }

    fn watch_stage(&mut self, now: Instant, at: usize) {
        let Some(client) = self.client(at) else { return };
        match client.stage {
            Stage::Handshake { until } if until <= now => {
                self.stats.handshakes_late.increment();
                self.end(now, at, CloseCode::HELLO_TIMEOUT);
            }
            Stage::Hello { until, .. } if until <= now => {
                self.stats.hellos_late.increment();
                self.end(now, at, CloseCode::HELLO_TIMEOUT);
            }
            Stage::Closing { until, code, .. } if until <= now => self.end(now, at, code),
            _ => {}
        }
    }
}
