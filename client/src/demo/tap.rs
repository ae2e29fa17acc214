//! Watches the demo's relay from inside: everything that the real hub is given and gives, kept for the verdict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use conclave_protocol::id::MemberIndex;
use conclave_protocol::wire::datagram::{Datagram, Kind};
use conclave_relay::clock::system_clock;
use conclave_relay::core::{ConnId, Core, Output, Peer};
use conclave_relay::hub::{Config, Hub};

/// Most bytes kept: 12 people for ten minutes fit in half.
const MAX_KEPT: usize = 128 * 1024 * 1024;

/// What the relay saw.
#[derive(Default)]
pub(super) struct Seen {
    /// How many media datagrams of each size each slot sent.
    pub(super) sizes: BTreeMap<MemberIndex, BTreeMap<usize, u64>>,
    /// Media datagrams with their times.
    pub(super) media: Vec<(Instant, Vec<u8>)>,
    /// Control messages in and out.
    pub(super) control: Vec<Vec<u8>>,
    /// Datagrams handed on.
    pub(super) forwarded: u64,
    kept: usize,
}

impl Seen {
    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.kept += bytes;
        self.kept <= MAX_KEPT
    }
}

/// Where the tap puts what it saw.
#[derive(Clone, Default)]
pub(super) struct Sight(Arc<Mutex<Seen>>);

impl Sight {
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_control(&self, message: &[u8]) {
        self.note(|seen| {
            if seen.has_room_for(message.len()) {
                seen.control.push(message.to_vec());
            }
        });
    }
}

/// The real hub, watched.
pub(super) struct Tap {
    hub: Hub,
    sight: Sight,
}

impl Tap {
    pub(super) fn new() -> (Self, Sight) {
        let sight = Sight::default();
        (Self { hub: Hub::new(system_clock(), Config::default()), sight: sight.clone() }, sight)
    }

    fn watch(&self, out: &[Output]) {
        for output in out {
            if let Output::Control { bytes, .. } = output {
                self.sight.note_control(bytes);
            }
        }
    }
}

impl Core for Tap {
    fn connected(&mut self, now: Instant, conn: ConnId, peer: &Peer, out: &mut Vec<Output>) {
        self.hub.connected(now, conn, peer, out);
        self.watch(out);
    }

    fn control(&mut self, now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>) {
        self.sight.note_control(message);
        self.hub.control(now, conn, message, out);
        self.watch(out);
    }

    fn datagram(&mut self, now: Instant, conn: ConnId, datagram: &[u8], to: &mut Vec<ConnId>) {
        self.hub.datagram(now, conn, datagram, to);
        let Some(parsed) = Datagram::parse(datagram).filter(|d| d.kind == Kind::Media) else { return };
        self.sight.note(|seen| {
            *seen.sizes.entry(parsed.slot).or_default().entry(datagram.len()).or_default() += 1;
            seen.forwarded += to.len() as u64;
            if seen.has_room_for(datagram.len()) {
                seen.media.push((now, datagram.to_vec()));
            }
        });
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Output>) {
        self.hub.disconnected(now, conn, out);
        self.watch(out);
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.hub.timeout(now, out);
        self.watch(out);
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.hub.next_timeout()
    }

    fn shutdown(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.hub.shutdown(now, out);
        self.watch(out);
    }
}
