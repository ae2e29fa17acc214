//! New connections, from the first packet to the first message.

use std::time::Instant;

use quinn_proto::{Dir, Incoming};

use super::Shell;
use super::client::{Client, Stage};
use crate::core::{CloseCode, ConnId, Core, Peer};
use crate::driver::control::Control;
use crate::gate::{Address, Prefix, Refusal, Verdict};
use crate::media::Secrets;
use crate::transport;

impl<C: Core> Shell<C> {
    /// Deals with attempts to connect, for a while: each costs a private-key operation.
    pub(super) fn accept(&mut self, now: Instant) {
        while let Some(incoming) = self.incoming.pop_front() {
            self.judge(now, incoming);
            if Instant::now().saturating_duration_since(now) >= self.control_for() {
                break;
            }
        }
    }

    fn judge(&mut self, now: Instant, incoming: Incoming) {
        let prefix = Prefix::from(incoming.remote_address().ip());
        let address = if incoming.remote_address_validated() { Address::Proved } else { Address::Claimed };
        let mut bytes = self.socket.buffer();
        match self.gate.attempt(now, prefix, address) {
            Verdict::Accept => self.begin_handshake(now, incoming, &mut bytes),
            Verdict::Retry => {
                self.stats.retries.increment();
                // Only validated attempts can't be retried, and those never get this verdict.
                if let Ok(transmit) = self.endpoint.retry(incoming, &mut bytes) {
                    self.socket.send(transmit, &mut bytes);
                }
            }
            Verdict::Refuse(reason) => {
                self.count_refusal(reason);
                let transmit = self.endpoint.refuse(incoming, &mut bytes);
                self.socket.send(transmit, &mut bytes);
            }
        }
        self.socket.give_back(bytes);
    }

    fn begin_handshake(&mut self, now: Instant, incoming: Incoming, bytes: &mut Vec<u8>) {
        match self.endpoint.accept(incoming, now, bytes, None) {
            Ok((handle, quic)) => {
                let at = handle.0;
                if self.clients.len() <= at {
                    self.clients.resize_with(at + 1, || None);
                }
                self.timers.forget(at);
                self.clients[at] =
                    Some(Box::new(Client::new(quic, at, self.timers.start(), now + self.deadlines.handshake)));
                self.mark(at);
            }
            Err(error) => {
                self.gate.handshake_over();
                self.stats.handshakes_failed.increment();
                if let Some(transmit) = error.response {
                    self.socket.send(transmit, bytes);
                }
            }
        }
    }

    /// The handshake is complete, and the client's address proved.
    pub(super) fn on_connected(&mut self, now: Instant, at: usize) {
        let until = now + self.deadlines.hello;
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_deref_mut) else { return };
        if !matches!(client.stage, Stage::Handshake { .. }) {
            return;
        }
        self.stats.handshakes_completed.increment();
        let prefix = Prefix::from(client.quic.remote_address().ip());
        let token = match self.gate.admit(now, prefix) {
            Ok(token) => token,
            Err(reason) => {
                self.count_refusal(reason);
                return self.end(now, at, CloseCode::BUSY);
            }
        };
        let takes_datagrams = client.quic.datagrams().max_size().is_some();
        let exporter = transport::exporter_of(&client.quic);
        let peer = exporter.map(|exporter| Peer { exporter, prefix: token });
        // From here on the place among the network's connections is given back with the stage.
        let peer = match (peer, takes_datagrams) {
            (Some(peer), true) => peer,
            (None, _) => return self.give_up(now, at, prefix, CloseCode::INTERNAL),
            (_, false) => return self.give_up(now, at, prefix, CloseCode::PROTOCOL),
        };
        client.stage = Stage::Hello { until, peer, prefix };
        self.open_control(at);
    }

    fn give_up(&mut self, now: Instant, at: usize, prefix: Prefix, code: CloseCode) {
        self.gate.release(prefix);
        self.end(now, at, code);
    }

    /// The client may have opened its control stream.
    pub(super) fn open_control(&mut self, at: usize) {
        let Some(client) = self.client(at) else { return };
        if !matches!(client.stage, Stage::Hello { .. }) || client.control.is_some() {
            return;
        }
        if let Some(stream) = client.quic.streams().accept(Dir::Bi) {
            client.control = Some(Control::new(stream));
            self.mark_readable(at);
        }
    }

    /// The first message has come: now the core hears of the client.
    pub(super) fn introduce(&mut self, now: Instant, at: usize) -> Option<ConnId> {
        let conn = ConnId(u64::from(self.generation) << 32 | u64::try_from(at).unwrap_or_default());
        let client = self.client(at)?;
        let Stage::Hello { peer, prefix, .. } = &client.stage else { return None };
        let (peer, prefix) = (peer.clone(), *prefix);
        client.stage = Stage::Open { conn, prefix };
        client.media_id = Secrets::of_driven(&client.quic).map(|secrets| secrets.at_relay());
        if let Some(id) = client.media_id {
            self.by_media.insert(id, at);
        }
        self.generation = self.generation.wrapping_add(1);
        self.gate.handshake_over();
        self.stats.connections.increment();
        self.stats.connections_open.increment();
        tracing::debug!(conn = conn.0, "connected");
        self.act(now, |core, out| core.connected(now, conn, &peer, out));
        Some(conn)
    }

    pub(super) fn count_refusal(&self, reason: Refusal) {
        match reason {
            Refusal::Full => self.stats.refused_full.increment(),
            Refusal::PrefixCount => self.stats.refused_prefix_count.increment(),
            Refusal::PrefixRate => self.stats.refused_prefix_rate.increment(),
        }
    }
}
