//! The seam between the relay's shell (sockets, TLS, tasks, time) and whatever decides.
//!
//! The shell knows no message format and takes no decision about a meeting; a [`Core`] knows no socket, task or
//! clock. The law between them: the shell calls one method at a time, always with a `now` that never goes back,
//! and carries out every [`Output`] in order before the next call. A connection is known to the core from
//! [`Core::connected`] to exactly one [`Core::disconnected`]; its id is never used again.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use conclave_protocol::wire::relay::Receipt;
use conclave_protocol::wire::urgency::Urgency;

use crate::hub;
use crate::stamps::StampKeys;

/// Identifies one client connection for its life; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Stands for the network that a client comes from: a salted hash of its IPv4 /24 or IPv6 /56, never the address.
///
/// The salt is random per process and renewed every [`crate::gate::SALT_LIFE`], so equal tokens mean one network only
/// for that long, and a token says nothing to somebody who reads it later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixToken(pub u64);

/// What the shell knows of a client, and the core may know.
#[derive(Clone)]
pub struct Peer {
    /// TLS exporter of this connection ([`crate::transport::EXPORTER_LABEL`], empty context). Both ends compute the
    /// same 32 bytes, and no other connection has them: whoever signs them proves to be at its far end.
    pub exporter: [u8; 32],
    /// The network the client comes from, for rate limits.
    pub prefix: PrefixToken,
}

/// A QUIC application error code: why a connection was closed. The codes below 0x10 belong to the shell; a core
/// takes its own from [`CloseCode::FIRST_OF_CORE`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// The connection is over and nothing is wrong.
    pub const DONE: Self = Self(0x00);
    /// The relay goes away; the client may try another one, or this one again.
    pub const SHUTDOWN: Self = Self(0x01);
    /// The client broke the framing of the control stream, or can't receive datagrams.
    pub const PROTOCOL: Self = Self(0x02);
    /// No control stream with a first message came in time.
    pub const HELLO_TIMEOUT: Self = Self(0x03);
    /// The client doesn't read its control stream, and what waits for it has reached the bound.
    pub const SLOW_READER: Self = Self(0x04);
    /// The relay is full, or too many connections come from the client's network.
    pub const BUSY: Self = Self(0x05);
    /// The relay has a fault of its own.
    pub const INTERNAL: Self = Self(0x06);
    /// The first code whose meaning is the core's.
    pub const FIRST_OF_CORE: u32 = 0x10;
}

/// What the code says to the one whose connection was closed with it.
impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::DONE => "the relay ended the connection",
            Self::SHUTDOWN => "the relay is shutting down",
            Self::PROTOCOL => "the relay could not make sense of what this client sent",
            Self::HELLO_TIMEOUT => "the relay heard nothing in time from this client",
            Self::SLOW_READER => "this client did not take in time what the relay had for it",
            Self::BUSY => "the relay is full, or too many connections come from this network",
            Self::INTERNAL => "the relay has a fault of its own",
            hub::NO_HELLO => "the relay wanted to know first who is there",
            hub::MISBEHAVED => "the relay refuses what this client did",
            hub::FULL => "the relay has no room for more",
            Self(code) => return write!(f, "the relay closed the connection with the unknown code {code}"),
        })
    }
}

/// Names a report between a core and its shell; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportTicket(pub u64);

/// What has become of a report that a core has handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The operator's sink has it for sure, whatever happens to this process now.
    Taken,
    /// It hasn't, or nobody knows; whoever sent the report still has it.
    Failed,
}

/// What a core wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a control message of at most [`crate::framing::MAX_MESSAGE`] bytes, reliably and in order.
    Control {
        /// The connection that gets it.
        to: ConnId,
        /// The message, without its length.
        bytes: Bytes,
    },
    /// Send a datagram, once and at once, or not at all.
    Datagram {
        /// The connection that gets it.
        to: ConnId,
        /// The whole payload.
        bytes: Bytes,
    },
    /// Send what was queued for this connection, then close it. From here on nothing that it sends reaches the core,
    /// and what is sent to it is discarded; its [`Core::disconnected`] follows.
    Close {
        /// The connection to close.
        conn: ConnId,
        /// What the client is told.
        code: CloseCode,
    },
    /// Hand a report to the operator's sink, in the background: nothing waits for it. [`Core::report_delivered`] follows
    /// exactly once, never from within the call that this came from. The core bounds how much is under way.
    Report {
        /// By which the answer names it.
        ticket: ReportTicket,
        /// The report's number from now on.
        receipt: Receipt,
        /// The sealed report.
        bytes: Bytes,
    },
}

/// What a core says of itself when its operator asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether it has no room for another meeting.
    pub is_full: bool,
    /// What it has counted.
    pub counts: hub::Stats,
}

/// Everything that a relay decides. No method may block, and none may panic on what a client sent.
pub trait Core: Send + 'static {
    /// A client has finished its handshake and sent a first message, which follows at once by [`Core::control`].
    fn connected(&mut self, now: Instant, conn: ConnId, peer: &Peer, out: &mut Vec<Output>);

    /// A whole control message arrived. The shell has checked nothing but its length.
    fn control(&mut self, now: Instant, conn: ConnId, message: &[u8], out: &mut Vec<Output>);

    /// A datagram arrived: pushes the connections that get these very bytes. This is the hot path: it allocates
    /// nothing.
    fn datagram(&mut self, now: Instant, conn: ConnId, datagram: &[u8], to: &mut Vec<ConnId>);

    /// How soon the client needs a control message. The default is for a core whose messages are all urgent.
    fn urgency(message: &[u8]) -> Urgency {
        let _ = message;
        Urgency::Now
    }

    /// A connection has ended, for whatever reason. Nothing can be sent to it any more.
    fn disconnected(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Output>);

    /// The time of [`Core::next_timeout`] has come.
    fn timeout(&mut self, now: Instant, out: &mut Vec<Output>);

    /// When [`Core::timeout`] is due; computed from state. The shell asks before it waits for anything.
    fn next_timeout(&self) -> Option<Instant>;

    /// A new day's stamp keys, in place of those before. The shell calls this at the start and whenever its keys change;
    /// a core that stamps nothing passes it over.
    fn stamp_keys(&mut self, keys: StampKeys) {
        drop(keys);
    }

    /// A report that came out by [`Output::Report`] has been taken, or hasn't. A core that hands out none passes it over.
    fn report_delivered(&mut self, now: Instant, ticket: ReportTicket, delivery: Delivery, out: &mut Vec<Output>) {
        let _ = (now, ticket, delivery, out);
    }

    /// How it is, for its operator; asked at most ten times a second. Frames wait meanwhile, so it is quick. The
    /// default is for a core that counts nothing.
    fn figures(&self) -> Figures {
        Figures::default()
    }

    /// The relay is about to stop: what to tell the clients. The shell then closes every connection.
    fn shutdown(&mut self, now: Instant, out: &mut Vec<Output>);
}
