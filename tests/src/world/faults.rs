//! What goes wrong in a world without anybody's ill will: networks that are gone for a while, processes that die, relays
//! that are replaced.

use std::time::Duration;

use conclave_relay::core::ConnId;

use super::peer::Who;
use super::relay::Relay;
use super::{Arrival, DAWN, World};

/// After so long without a sign of the relay a client looks for another connection.
const NOTICED_BY_CLIENT: Duration = Duration::from_millis(1_300);
/// After so long the relay gives up a connection: the idle timeout of `docs/protocol.md` §6.
const NOTICED_BY_RELAY: Duration = Duration::from_secs(15);

impl World {
    /// A client's network is gone: nothing arrives in either direction, and both ends notice in their own time.
    pub fn cut_off(&mut self, who: Who) {
        let now = self.now();
        let Some(conn) = self.peers[who.0].conn else { return };
        self.severed.insert(conn);
        let name = self.peers[who.0].name.clone();
        self.queue(now + NOTICED_BY_RELAY, Arrival::HungUp(conn));
        self.queue(now + NOTICED_BY_CLIENT, Arrival::Noticed(who, conn));
        if let Some(model) = &mut self.model {
            model.may_be_lost(&name);
        }
    }

    /// A client's network is back: it connects again.
    pub fn restore(&mut self, who: Who) {
        let now = self.instant();
        if self.peers[who.0].dead {
            return;
        }
        if self.peers[who.0].conn.take().is_some() {
            self.peers[who.0].conference.disconnected(now);
        }
        self.connect(who);
    }

    /// The same at a later time, unless it is over for the client by then.
    pub fn restore_at(&mut self, who: Who, at: Duration) {
        self.queue(at, Arrival::Restored(who));
    }

    pub(super) fn on_restored(&mut self, who: Who) {
        let peer = &self.peers[who.0];
        let severed = peer.conn.is_none_or(|conn| self.severed.contains(&conn));
        if severed && !peer.gone {
            self.restore(who);
        }
    }

    /// Whether somebody has hung up for good.
    pub fn has_left(&self, who: Who) -> bool {
        self.peers[who.0].gone
    }

    /// A client's process is killed.
    pub fn kill(&mut self, who: Who) {
        self.cut_off(who);
        let peer = &mut self.peers[who.0];
        (peer.dead, peer.talks, peer.conn) = (true, false, None);
    }

    /// The relay is killed and another one started in its place; it knows nothing of the first. Clients notice, and
    /// find it after `pause`.
    pub fn replace_relay(&mut self, pause: Duration) {
        let everybody: Vec<Who> = self.everybody().filter(|who| self.peers[who.0].conn.is_some()).collect();
        for who in &everybody {
            self.cut_off(*who);
        }
        let now = self.instant();
        self.relay = Relay::new(now, DAWN.plus(self.now()));
        self.relay_timer = None;
        self.run(NOTICED_BY_CLIENT.max(pause));
        for who in everybody.into_iter().filter(|who| !self.peers[who.0].gone).collect::<Vec<_>>() {
            self.restore(who);
        }
    }

    pub(super) fn on_noticed(&mut self, who: Who, conn: ConnId) {
        let now = self.instant();
        let peer = &mut self.peers[who.0];
        if peer.conn == Some(conn) {
            peer.conn = None;
            peer.conference.disconnected(now);
            self.settle(who);
        }
    }
}
