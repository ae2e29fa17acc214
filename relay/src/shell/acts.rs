//! What the core is told, what it wants done, and how connections end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_protocol::wire::urgency::Urgency;
use quinn_proto::VarInt;

use super::client::Stage;
use super::frames::Frame;
use super::{Command, DRAIN, Figures, Readiness, Shell, Stopping, WIND_DOWN};
use crate::core::{CloseCode, ConnId, Core, Delivery, Output};
use crate::driver::control::Read;
use crate::media;

/// A message that goes along with frames waits, and may then be missing for so long.
pub(super) const KEEP_MESSAGES: Duration = media::KEPT_FOR.saturating_mul(2);
/// So many are kept at most, of all meetings: 16 MB. Those beyond go by the control streams.
const MOST_MESSAGES: usize = 16_384;

impl<C: Core> Shell<C> {
    /// Calls the core, carries out what it wants, and tells it which connections that has ended.
    pub(super) fn act(&mut self, now: Instant, call: impl FnOnce(&mut C, &mut Vec<Output>)) {
        call(&mut self.core, &mut self.out);
        self.carry_out(now);
        self.part(now);
    }

    /// Tells the core which connections have ended.
    pub(super) fn part(&mut self, now: Instant) {
        while let Some(conn) = self.departed.pop() {
            self.core.disconnected(now, conn, &mut self.out);
            self.carry_out(now);
            // The core has heard of it, and its place is free: whoever sees the count fall may rely on both.
            self.stats.connections_open.decrement();
            tracing::debug!(conn = conn.0, "disconnected");
        }
    }

    fn carry_out(&mut self, now: Instant) {
        while !self.out.is_empty() {
            let mut outputs = std::mem::take(&mut self.out);
            for output in outputs.drain(..) {
                self.carry_out_one(now, output);
            }
            // What was asked for meanwhile comes after; else the list's room is kept.
            if self.out.is_empty() {
                self.out = outputs;
                break;
            }
        }
    }

    /// Outputs for connections that have just gone have no effect: the core learns of their end in its own turn.
    fn carry_out_one(&mut self, now: Instant, output: Output) {
        match output {
            Output::Control { to, bytes } => self.send_control(now, to, bytes),
            Output::Datagram { to, bytes } => {
                self.push_one(to, Frame { bytes, arrived: now });
                if let Some(at) = self.find(to) {
                    self.mark_ready(at);
                }
            }
            Output::Close { conn, code } => self.close_after_queue(now, conn, code),
            Output::Report { ticket, receipt, bytes } => match &self.reports {
                Some(intake) => intake.offer(ticket, receipt, bytes),
                // Without a sink every report has failed. The core may answer that by more, but by no more reports.
                None => self.core.report_delivered(now, ticket, Delivery::Failed, &mut self.out),
            },
        }
    }

    fn send_control(&mut self, now: Instant, to: ConnId, bytes: Bytes) {
        let Some(at) = self.find(to) else { return };
        let urgency = C::urgency(&bytes);
        if urgency == Urgency::SoonInAnyOrder && self.send_along(now, at, &bytes) {
            return;
        }
        if urgency == Urgency::Now {
            // What came before it is not overtaken: a seal counts only of who is a member still.
            self.send_waiting(now, at);
        }
        self.send_by_stream(now, at, bytes, urgency);
    }

    /// Has a message wait for the client's frames, if such are under way and it fits beside them.
    fn send_along(&mut self, now: Instant, at: usize, bytes: &Bytes) -> bool {
        let Self { clients, messages, timers, .. } = self;
        let Some(client) = clients.get_mut(at).and_then(Option::as_deref_mut) else { return false };
        let length = media::message_len(bytes);
        let fits = length <= media::ROOM && client.along.has_room(length) && messages.count() < MOST_MESSAGES;
        if !fits || client.heard_as().is_none() || !client.takes_along(now) {
            return false;
        }
        // The core gives the same bytes for all whom it tells the same.
        let is_same = |frame: &Frame| frame.bytes.as_ptr() == bytes.as_ptr() && frame.bytes.len() == bytes.len();
        let kept = messages.last().filter(|(_, frame)| is_same(frame)).map(|(id, _)| id);
        let id = kept.unwrap_or_else(|| messages.keep(Frame { bytes: bytes.clone(), arrived: now }, KEEP_MESSAGES));
        client.along.push(id, length, now);
        if let Some(due) = client.due() {
            timers.set(at, due);
        }
        true
    }

    fn send_by_stream(&mut self, now: Instant, at: usize, bytes: Bytes, urgency: Urgency) {
        let Some(client) = self.client(at) else { return };
        if client.heard_as().is_none() {
            return;
        }
        let Some(control) = &mut client.control else { return };
        if control.send(bytes).is_err() {
            self.stats.slow_readers.increment();
            return self.end(now, at, CloseCode::SLOW_READER);
        }
        if matches!(urgency, Urgency::Soon | Urgency::SoonInAnyOrder)
            && let Some(until) = client.may_wait(now)
        {
            self.timers.set(at, until);
        } else {
            client.hurry(now);
            self.mark(at);
        }
    }

    /// Messages that went beside QUIC and did not come go again, in QUIC.
    pub(super) fn send_lost_again(&mut self, now: Instant) {
        let mut lost = std::mem::take(&mut self.lost);
        for (at, id) in lost.drain(..) {
            if let Some(client) = self.client(at) {
                client.along.forget(id);
            }
            if let Some(bytes) = self.messages.get(id).map(|message| message.bytes.clone()) {
                self.stats.control_again.increment();
                self.send_by_stream(now, at, bytes, Urgency::Now);
            }
        }
        // The list's room is kept.
        self.lost = lost;
    }

    /// Messages that wait for frames go by the control stream.
    pub(super) fn send_waiting(&mut self, now: Instant, at: usize) {
        let waiting = self.client(at).map(|client| client.along.take()).unwrap_or_default();
        for id in waiting {
            if let Some(bytes) = self.messages.get(id).map(|message| message.bytes.clone()) {
                self.send_by_stream(now, at, bytes, Urgency::Now);
            }
        }
    }

    /// Closes the connection once the messages queued so far have been sent.
    fn close_after_queue(&mut self, now: Instant, wanted: ConnId, code: CloseCode) {
        let until = now + self.deadlines.linger;
        let Some(at) = self.find(wanted) else { return };
        self.send_waiting(now, at);
        let Some(client) = self.client(at) else { return };
        if let Stage::Open { conn, prefix } = client.stage {
            client.stage = Stage::Closing { conn, prefix, code, until };
            self.mark(at);
        }
    }

    /// Reads control streams, for a while.
    pub(super) fn read_controls(&mut self, now: Instant) {
        while let Some(at) = self.readable.pop_front() {
            if let Some(client) = self.client(at) {
                client.queued.readable = false;
            }
            if self.read_control(now, at) {
                self.mark_readable(at);
            }
            self.mark(at);
            if Instant::now().saturating_duration_since(now) >= self.control_for() {
                break;
            }
        }
    }

    /// Reads one message; whether there may be more.
    fn read_control(&mut self, now: Instant, at: usize) -> bool {
        let Some(client) = self.client(at) else { return false };
        let Some(control) = &mut client.control else { return false };
        client.read_again = None;
        match (&client.stage, control.read(&mut client.quic, now)) {
            (Stage::Over, _) | (_, Read::Nothing) => false,
            (_, Read::NotBefore(time)) => {
                client.read_again = Some(time);
                false
            }
            (_, Read::End(code)) => {
                self.end(now, at, code);
                false
            }
            // Nothing that it sends counts any more.
            (Stage::Closing { .. }, Read::Message(_)) => true,
            (Stage::Open { conn, .. }, Read::Message(message)) => {
                let conn = *conn;
                self.on_control(now, conn, &message);
                true
            }
            (_, Read::Message(message)) => {
                if let Some(conn) = self.introduce(now, at) {
                    self.on_control(now, conn, &message);
                    self.forward_all(now, at);
                }
                true
            }
        }
    }

    fn on_control(&mut self, now: Instant, conn: ConnId, message: &[u8]) {
        self.stats.control_in.increment();
        self.stats.control_bytes_in.add(message.len() as u64);
        self.act(now, |core, out| core.control(now, conn, message, out));
    }

    /// Ends a connection: without what is queued for it.
    pub(super) fn end(&mut self, now: Instant, at: usize, code: CloseCode) {
        if code == CloseCode::PROTOCOL {
            self.stats.protocol_errors.increment();
        }
        self.take_leave(at);
        if let Some(client) = self.client(at) {
            // Without effect on a connection that is closed already.
            client.quic.close(now, VarInt::from_u32(code.0), Bytes::new());
            self.mark(at);
        }
    }

    /// The connection is over: its places are free, and the core will hear of it.
    pub(super) fn take_leave(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        let unread = client.unread();
        match std::mem::replace(&mut client.stage, Stage::Over) {
            Stage::Over => {}
            Stage::Handshake { .. } => self.gate.handshake_over(),
            Stage::Hello { prefix, .. } => {
                self.gate.handshake_over();
                self.gate.release(prefix);
            }
            Stage::Open { conn, prefix } | Stage::Closing { conn, prefix, .. } => {
                self.departed.push(conn);
                self.gate.release(prefix);
                self.stats.dropped_unread.add(unread);
            }
        }
        client.bundle.clear();
    }

    /// Does what was asked for from outside.
    pub(super) fn take_commands(&mut self, now: Instant) {
        self.inbox.clear();
        while let Some(command) = self.inbox.take() {
            match command {
                Command::ReportDelivered(ticket, delivery) => {
                    self.act(now, |core, out| core.report_delivered(now, ticket, delivery, out));
                }
                Command::StampKeys(keys) => self.core.stamp_keys(keys),
                Command::Figures(answer) => {
                    // Fails when nobody waits for it any more.
                    let _heard = answer.send(self.figures());
                }
                Command::Shutdown => self.shut_down(now),
            }
        }
    }

    /// Calls the core at the times that it asks for.
    pub(super) fn time_core(&mut self, now: Instant) {
        if self.core.next_timeout().is_some_and(|due| due <= now) {
            self.act(now, |core, out| core.timeout(now, out));
        }
    }

    fn figures(&self) -> Figures {
        let core = self.core.figures();
        let readiness = match self.stopping {
            Stopping::Drain(_) | Stopping::WindDown(_) => Readiness::Stopping,
            Stopping::No if core.is_full || self.gate.is_full() => Readiness::Full,
            Stopping::No => Readiness::Ready,
        };
        Figures { readiness, core }
    }

    /// Lets the core say good-bye, then closes every connection once it has been told.
    pub(super) fn shut_down(&mut self, now: Instant) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Drain(now + DRAIN);
        self.endpoint.set_server_config(None);
        while let Some(incoming) = self.incoming.pop_front() {
            self.endpoint.ignore(incoming);
        }
        self.act(now, |core, out| core.shutdown(now, out));
        for at in 0..self.clients.len() {
            match self.client(at).map(|client| client.heard_as()) {
                Some(Some(conn)) => self.close_after_queue(now, conn, CloseCode::SHUTDOWN),
                Some(None) => self.end_unless_closing(now, at),
                None => {}
            }
        }
    }

    fn end_unless_closing(&mut self, now: Instant, at: usize) {
        if self.client(at).is_some_and(|client| !matches!(client.stage, Stage::Closing { .. } | Stage::Over)) {
            self.end(now, at, CloseCode::SHUTDOWN);
        }
    }

    /// Whether a stopping shell has done all that it waits for.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Drain(until) => {
                let is_told = self.clients.iter().flatten().all(|client| matches!(client.stage, Stage::Over));
                if is_told || until <= now {
                    for at in 0..self.clients.len() {
                        if self.client(at).is_some_and(|client| !matches!(client.stage, Stage::Over)) {
                            self.end(now, at, CloseCode::SHUTDOWN);
                        }
                    }
                    self.part(now);
                    self.settle_some(now);
                    self.stopping = Stopping::WindDown(now + WIND_DOWN);
                }
                self.clients.iter().all(Option::is_none)
            }
            Stopping::WindDown(until) => until <= now || self.clients.iter().all(Option::is_none),
        }
    }
}
