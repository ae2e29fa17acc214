//! What the shell has counted: connections, packets, frames, control messages.

use std::fmt;

use super::page::Page;
use super::quantile::quantile;
use crate::stats::{Residence, Snapshot};

/// Microseconds in a second.
const MICROS: f64 = 1e6;
/// Quantiles of all frames since the start: so they are the same for everybody who asks, and those of a shorter time
/// follow from two readings of the buckets.
const QUANTILES: [(&str, &str, f64); 3] = [
    ("frame_residence_p50_seconds", "Half of all frames since the start stayed no longer.", 0.5),
    ("frame_residence_p99_seconds", "99 % of all frames since the start stayed no longer.", 0.99),
    ("frame_residence_p999_seconds", "99.9 % of all frames since the start stayed no longer.", 0.999),
];

/// The shell's counters at one moment.
#[derive(Debug)]
pub(super) struct Counts {
    totals: Snapshot,
    stays: [u64; Residence::BOUNDS.len() + 1],
    /// All stays together, in seconds.
    stayed: f64,
}

impl Counts {
    pub(super) fn new(totals: Snapshot, residence: &Residence) -> Self {
        Self { totals, stays: residence.counts(), stayed: residence.sum() as f64 / MICROS }
    }

    /// Frames that nobody read.
    pub(super) fn unread(&self) -> u64 {
        self.totals.dropped_unread
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        connections(page, &self.totals)?;
        frames(page, &self.totals)?;
        packets(page, &self.totals)?;
        self.residence(page)
    }

    fn residence(&self, page: &mut Page<'_>) -> fmt::Result {
        let bounds = Residence::BOUNDS.map(|micros| micros as f64 / MICROS);
        let ends = bounds.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = ends.zip(self.stays).collect();
        let help = "Time of a frame in the relay, from its arrival to the call that sends it to one listener.";
        page.histogram("frame_residence_seconds", help, self.stayed, &buckets)?;
        for (name, help, q) in QUANTILES {
            if let Some(seconds) = quantile(&bounds, &self.stays, q) {
                page.gauge(name, help, seconds)?;
            }
        }
        Ok(())
    }
}

fn connections(page: &mut Page<'_>, totals: &Snapshot) -> fmt::Result {
    page.gauge("connections_open", "Connections past their first message, now.", totals.connections_open)?;
    page.counter("connections", "Connections that got as far as their first message.", totals.connections)?;
    let handshakes = [
        ("completed", totals.handshakes_completed),
        ("failed", totals.handshakes_failed),
        ("late", totals.handshakes_late),
    ];
    page.counters("handshakes", "QUIC handshakes by how they ended.", "outcome", &handshakes)?;
    page.counter("retries", "Attempts to connect that were made to prove their address first.", totals.retries)?;
    let refused = [
        ("full", totals.refused_full),
        ("network_count", totals.refused_prefix_count),
        ("network_rate", totals.refused_prefix_rate),
    ];
    page.counters("connections_refused", "Attempts to connect that were refused.", "reason", &refused)?;
    let closed = [
        ("first_message_late", totals.hellos_late),
        ("protocol_error", totals.protocol_errors),
        ("slow_reader", totals.slow_readers),
    ];
    page.counters("connections_cut_off", "Connections closed for what their client did.", "reason", &closed)
}

fn frames(page: &mut Page<'_>, totals: &Snapshot) -> fmt::Result {
    page.counter("frames_received", "Frames that came in.", totals.datagrams_in)?;
    page.counter("frames_received_bytes", "Bytes of frames that came in.", totals.datagram_bytes_in)?;
    page.counter("frames_forwarded", "Frames sent, one for each listener.", totals.datagrams_out)?;
    page.counter("frames_forwarded_bytes", "Bytes of frames sent.", totals.datagram_bytes_out)?;
    let dropped = [
        ("late", totals.dropped_late),
        ("queue_full", totals.dropped_full),
        ("too_large", totals.dropped_too_large),
        ("receiver_gone", totals.dropped_gone),
    ];
    page.counters("frames_dropped", "Frames not sent to a listener who was to get them.", "reason", &dropped)
}

fn packets(page: &mut Page<'_>, totals: &Snapshot) -> fmt::Result {
    page.counter("packets_received", "UDP packets received.", totals.packets_in)?;
    page.counter("packets_received_bytes", "Bytes in UDP packets received.", totals.packet_bytes_in)?;
    page.counter("packets_sent", "UDP packets sent.", totals.packets_out)?;
    page.counter("packets_sent_bytes", "Bytes in UDP packets sent.", totals.packet_bytes_out)?;
    let media = [("opened", totals.media_in), ("refused", totals.media_unknown)];
    page.counters("media_packets_received", "Media packets received: opened, or of nobody here.", "outcome", &media)?;
    page.counter("control_messages_received", "Control messages received.", totals.control_in)?;
    page.counter("control_messages_received_bytes", "Bytes of those.", totals.control_bytes_in)?;
    page.counter("control_messages_sent", "Control messages sent.", totals.control_out)?;
    page.counter("control_messages_sent_bytes", "Bytes of those.", totals.control_bytes_out)?;
    page.counter("control_messages_beside", "Of those sent, such as went in media packets.", totals.control_beside)?;
    page.counter("control_messages_again", "Of these, such as were lost and went again.", totals.control_again)
}
