//! How Conclave uses QUIC: the transport parameters, the same for relay and client, and the congestion controller
//! that keeps frames on time.
//!
//! quinn's default controller makes frames wait: with 5 % random loss and 75 ms per hop, it holds the median frame
//! for 259 ms and the 99th percentile for 1.8 s over a floor of 150 ms; with a wide constant window the same path
//! gives 150.3 and 150.5 ms (measured on loopback through a lossy proxy, 1 room of 10 with 5 talkers). A voice
//! stream has a fixed small rate that waiting doesn't lower, so [`WideWindow`] never waits. What bounds the rate
//! instead: admission, slots and frame clocks for datagrams; flow-control windows and paced senders for streams;
//! the idle timeout for peers that are gone.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};

/// The application protocol both ends must name in the TLS handshake.
pub const ALPN: &[u8] = b"conclave/1";

/// Label of the TLS exporter (RFC 8446 §7.5, empty context) that a client signs to show that a capability is its own.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-conclave/1 pop";

/// Silence after which a connection counts as dead. Lower cuts people off during short outages; higher keeps
/// sending to the dead, which the congestion controller doesn't stop.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a client to which QUIC brings nothing asks QUIC for a sign of life: three times before [`IDLE_TIMEOUT`], and often
/// enough for the UDP mappings of home routers (RFC 4787 asks for 2 minutes, some have 30 s). To notice soon that the relay is
/// gone, a client asks by media packets, or by empty datagrams ([`crate::media::Quiet`]). Only clients do this, so a relay
/// sends nothing to whoever has gone.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Bytes in flight that the controller allows. quinn-proto blocks at the window, and paces below it; its pacer
/// switches itself off only above `u32::MAX`, hence one bit more. Anything from 64 MiB up measured the same.
pub const WINDOW: u64 = 1 << 33;

/// Flow control of one stream: a control message of 16 KiB and the next one's beginning.
const STREAM_WINDOW: u32 = 32 * 1024;

/// Flow control of a whole connection: what a peer may make the other end hold in streams.
const CONNECTION_WINDOW: u32 = 128 * 1024;

/// Bytes of streams kept until acknowledged; equal to the most that a peer of ours takes.
const SEND_WINDOW: u64 = CONNECTION_WINDOW as u64;

/// Unsent datagrams of a connection at the relay: two rounds of frames from 16 talkers at about 220 bytes with
/// quinn's bookkeeping. More would only keep frames that are late already.
const RELAY_DATAGRAM_SEND: usize = 8 * 1024;

/// Unread datagrams of a connection at the relay: a client sends one frame per tick, now and then two.
const RELAY_DATAGRAM_RECEIVE: usize = 8 * 1024;

/// Unsent datagrams at a client: its own frames only.
const CLIENT_DATAGRAM_SEND: usize = 4 * 1024;

/// Unread datagrams at a client: two rounds of frames of 64 talkers.
const CLIENT_DATAGRAM_RECEIVE: usize = 32 * 1024;

/// Packets that a client may take without an acknowledgement, up to QUIC's 25 ms (draft-ietf-quic-ack-frequency). Frames
/// are never sent again, so a relay has no use for an acknowledgement of every other one, which costs it a third of
/// forwarding (measured: 12.3 µs a frame with quinn's default, 9.9 with 25).
const ACKNOWLEDGE_AFTER: u32 = 25;

/// Which end of a connection a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Accepts connections; one bidirectional stream, the control stream, may come in on each.
    Relay,
    /// Opens connections and keeps them alive; accepts no streams.
    Client,
}

/// The transport parameters of one end. `idle` is normally [`IDLE_TIMEOUT`]; values above 2^62 ms count as that.
#[must_use]
pub fn transport_config(side: Side, idle: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(Arc::new(WideWindowFactory))
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).unwrap_or(IdleTimeout::from(VarInt::MAX))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        // The smallest that every IPv6 path carries (RFC 8200 §5, RFC 9000 §14); discovery then goes up from there.
        .initial_mtu(1200)
        // A spin bit shows the round-trip time to everybody on the path (RFC 9000 §17.4).
        .allow_spin(false)
        // Nothing reads unidirectional streams yet, and unread ones would eat the connection's window.
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGE_AFTER));
    match side {
        Side::Relay => config
            .ack_frequency_config(Some(acknowledgements))
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .datagram_send_buffer_size(RELAY_DATAGRAM_SEND)
            .datagram_receive_buffer_size(Some(RELAY_DATAGRAM_RECEIVE)),
        Side::Client => config
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .datagram_send_buffer_size(CLIENT_DATAGRAM_SEND)
            .datagram_receive_buffer_size(Some(CLIENT_DATAGRAM_RECEIVE))
            .keep_alive_interval(Some(KEEP_ALIVE)),
    };
    config
}

/// The TLS exporter of a connection ([`EXPORTER_LABEL`]); `None` before its handshake is complete.
#[must_use]
pub fn exporter(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    connection.export_keying_material(&mut secret, EXPORTER_LABEL, b"").ok()?;
    Some(secret)
}

/// The same for a connection that one's own loop drives.
#[must_use]
pub fn exporter_of(quic: &quinn_proto::Connection) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    quic.crypto_session().export_keying_material(&mut secret, EXPORTER_LABEL, b"").ok()?;
    Some(secret)
}

/// Makes a [`WideWindow`] for each path.
#[derive(Clone, Copy, Debug, Default)]
pub struct WideWindowFactory;

impl ControllerFactory for WideWindowFactory {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(WideWindow)
    }
}

/// A congestion controller with a constant window of [`WINDOW`] bytes: loss, delay and MTU change nothing, so
/// neither the window nor the pacer ever holds a frame back. Loss detection and probe timeouts still run in quinn;
/// they resend lost stream data and never delay datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct WideWindow;

impl Controller for WideWindow {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_leaves_the_window_above_what_switches_the_pacer_off() {
        let now = Instant::now();
        let mut controller = Arc::new(WideWindowFactory).build(now, 1200);
        for _ in 0..1000 {
            controller.on_congestion_event(now, now, true, 1_000_000);
        }
        assert!(controller.window() > u64::from(u32::MAX));
        assert_eq!(controller.window(), controller.clone_box().initial_window());
    }
}
