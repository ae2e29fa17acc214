//! The relay's real core, and what a hostile operator can do around it.
//!
//! Everything passes through [`Core`], so a hostile relay is the honest one with somebody at its sockets: who can
//! withhold, delay, repeat, change and add whatever goes in and out, and show anything to anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_protocol::time::{UnixMillis, WallClock};
use conclave_protocol::wire::codec::Wire;
use conclave_protocol::wire::relay::{FromRelay, ToRelay};
use conclave_relay::core::{ConnId, Core, Output, Peer};
use conclave_relay::hub::{Config, Hub, Stats};

use super::dice::Dice;

/// Bytes on their way.
pub type Payload = Arc<[u8]>;

/// How many messages a hostile relay keeps to replay.
const KEPT: usize = 200;

/// What is done to one kind of traffic. Shares of messages, 0 to 1.
#[derive(Clone, Copy, Default, Debug)]
pub struct Meddling {
    /// Dropped.
    pub dropped: f64,
    /// Sent twice.
    pub repeated: f64,
    /// Held back for up to a second, so that others overtake it.
    pub delayed: f64,
    /// Followed by an old message, of anybody to anybody.
    pub replayed: f64,
    /// With one bit changed.
    pub flipped: f64,
}

/// Changes a message to a client; what goes out instead.
pub type Rewrite = Box<dyn FnMut(ConnId, FromRelay) -> Vec<FromRelay>>;
/// Changes a message of a client before the hub sees it.
pub type RewriteIn = Box<dyn FnMut(ConnId, ToRelay) -> ToRelay>;

/// What a relay does beyond its duties. Nothing, unless told.
#[derive(Default)]
pub struct Villainy {
    /// Every datagram, and every message between members, goes to every connection, admitted or not.
    pub leaks: bool,
    /// Nobody hears that a slot was revoked or lost.
    pub hides_revocations: bool,
    /// What happens to the opaque messages that clients send each other.
    pub mail: Meddling,
    /// What happens to datagrams.
    pub datagrams: Meddling,
    /// So much later seals go out than they came in.
    pub seals_take: Duration,
    /// Changes what goes out.
    pub rewrites: Option<Rewrite>,
    /// Changes what comes in.
    pub rewrites_in: Option<RewriteIn>,
}

/// Something for a client.
pub enum Outgoing {
    /// A control message.
    Control(ConnId, Payload),
    /// A datagram.
    Datagram(ConnId, Payload),
    /// The connection is to be closed.
    Close(ConnId),
}

/// The relay of a world.
pub struct Relay {
    hub: Hub,
    /// What its operator does.
    pub villainy: Villainy,
    connections: BTreeMap<ConnId, Peer>,
    old_mail: VecDeque<Payload>,
    old_datagrams: VecDeque<Payload>,
}

impl Relay {
    /// An honest relay.
    pub fn new(now: Instant, wall: UnixMillis) -> Self {
        Self {
            hub: Hub::new(WallClock::new(now, wall), Config::default()),
            villainy: Villainy::default(),
            connections: BTreeMap::new(),
            old_mail: VecDeque::new(),
            old_datagrams: VecDeque::new(),
        }
    }

    /// The hub's counters.
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// Everybody who is connected.
    pub fn connections(&self) -> Vec<ConnId> {
        self.connections.keys().copied().collect()
    }

    /// A client has connected.
    pub fn connected(&mut self, now: Instant, conn: ConnId, peer: Peer) {
        let mut out = Vec::new();
        self.hub.connected(now, conn, &peer, &mut out);
        self.connections.insert(conn, peer);
    }

    /// A client's connection has ended.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId, dice: &mut Dice) -> Vec<(Duration, Outgoing)> {
        if self.connections.remove(&conn).is_none() {
            return Vec::new();
        }
        let mut out = Vec::new();
        self.hub.disconnected(now, conn, &mut out);
        self.leave_by(out, dice)
    }

    /// A client's control message; what goes out, and after which delay.
    pub fn control(
        &mut self,
        now: Instant,
        conn: ConnId,
        message: &[u8],
        dice: &mut Dice,
    ) -> Vec<(Duration, Outgoing)> {
        let mut out = Vec::new();
        match (&mut self.villainy.rewrites_in, ToRelay::decode(message)) {
            (Some(rewrite), Ok(decoded)) => self.hub.control(now, conn, &rewrite(conn, decoded).encode(), &mut out),
            _ => self.hub.control(now, conn, message, &mut out),
        }
        self.leave_by(out, dice)
    }

    /// A client's datagram.
    pub fn datagram(
        &mut self,
        now: Instant,
        conn: ConnId,
        datagram: Payload,
        dice: &mut Dice,
    ) -> Vec<(Duration, Outgoing)> {
        let mut to = Vec::new();
        self.hub.datagram(now, conn, &datagram, &mut to);
        if self.villainy.leaks {
            to = self.connections.keys().copied().filter(|other| *other != conn).collect();
        }
        let meddling = self.villainy.datagrams;
        let mut out = Vec::new();
        for to in to {
            for (delay, bytes) in meddle(meddling, datagram.clone(), &self.old_datagrams, dice) {
                out.push((delay, Outgoing::Datagram(to, bytes)));
            }
        }
        keep(&mut self.old_datagrams, datagram);
        out
    }

    /// Runs the hub's timers.
    pub fn timeout(&mut self, now: Instant, dice: &mut Dice) -> Vec<(Duration, Outgoing)> {
        let mut out = Vec::new();
        self.hub.timeout(now, &mut out);
        self.leave_by(out, dice)
    }

    /// When [`Relay::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.hub.next_timeout()
    }

    /// What the hub wants done, as the operator has it done.
    fn leave_by(&mut self, outputs: Vec<Output>, dice: &mut Dice) -> Vec<(Duration, Outgoing)> {
        let mut out = Vec::new();
        for output in outputs {
            match output {
                Output::Control { to, bytes } => self.control_out(to, &bytes, dice, &mut out),
                Output::Datagram { to, bytes } => {
                    out.push((Duration::ZERO, Outgoing::Datagram(to, Payload::from(&bytes[..]))))
                }
                Output::Close { conn, .. } => out.push((Duration::ZERO, Outgoing::Close(conn))),
                // This relay has no sink, so its hub gives none out.
                Output::Report { .. } => {}
            }
        }
        out
    }

    fn control_out(&mut self, to: ConnId, bytes: &[u8], dice: &mut Dice, out: &mut Vec<(Duration, Outgoing)>) {
        let Ok(message) = FromRelay::decode(bytes) else { return };
        let hidden = matches!(message, FromRelay::Revoked { .. } | FromRelay::Detached { .. });
        if hidden && self.villainy.hides_revocations {
            return;
        }
        let messages = match &mut self.villainy.rewrites {
            Some(rewrite) => rewrite(to, message),
            None => vec![message],
        };
        for message in messages {
            let bytes = Payload::from(message.encode());
            let opaque = is_opaque(&message);
            if !opaque {
                let is_seal = matches!(message, FromRelay::Sealed { .. });
                let delay = if is_seal { self.villainy.seals_take } else { Duration::ZERO };
                out.push((delay, Outgoing::Control(to, bytes)));
                continue;
            }
            for (delay, bytes) in meddle(self.villainy.mail, bytes.clone(), &self.old_mail, dice) {
                out.push((delay, Outgoing::Control(to, bytes)));
            }
            if self.villainy.leaks {
                let others = self.connections.keys().filter(|other| **other != to);
                out.extend(others.map(|other| (Duration::ZERO, Outgoing::Control(*other, bytes.clone()))));
            }
            keep(&mut self.old_mail, bytes);
        }
    }
}

/// Whether a message carries what clients say to each other.
fn is_opaque(message: &FromRelay) -> bool {
    matches!(message, FromRelay::Mail { .. } | FromRelay::MailFrom { .. } | FromRelay::Deliver { .. })
}

fn keep(old: &mut VecDeque<Payload>, bytes: Payload) {
    if old.len() >= KEPT {
        old.pop_front();
    }
    old.push_back(bytes);
}

fn meddle(meddling: Meddling, bytes: Payload, old: &VecDeque<Payload>, dice: &mut Dice) -> Vec<(Duration, Payload)> {
    let mut out = Vec::new();
    let delay = |dice: &mut Dice| {
        if dice.chance(meddling.delayed) { dice.up_to(Duration::from_secs(1)) } else { Duration::ZERO }
    };
    let bytes = if dice.chance(meddling.flipped) { flip(&bytes, dice) } else { bytes };
    if !dice.chance(meddling.dropped) {
        out.push((delay(dice), bytes.clone()));
    }
    if dice.chance(meddling.repeated) {
        out.push((delay(dice), bytes));
    }
    if !old.is_empty() && dice.chance(meddling.replayed) {
        out.push((delay(dice), old[dice.below(old.len())].clone()));
    }
    out
}

/// The longest head of a message with others' bytes in it: type, mailbox and length.
const HEAD: usize = 7;

/// The same bytes with one bit changed, but none of the relay's own words.
fn flip(bytes: &Payload, dice: &mut Dice) -> Payload {
    let mut bytes = bytes.to_vec();
    if bytes.len() > HEAD {
        let at = HEAD + dice.below(bytes.len() - HEAD);
        bytes[at] ^= 1 << dice.below(8);
    }
    Payload::from(bytes)
}
