//! What the relay counts: totals of the process, never anything about one client or meeting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(test)]
use serde::Deserialize;
use serde::Serialize;

/// A number that several tasks may raise and anybody may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        // Relaxed: counters order nothing, they only have to lose no addition.
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away; only for gauges.
    pub(crate) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long frames stay in the relay, from their arrival to the call that sends them: how many up to each of
/// [`Residence::BOUNDS`], and beyond.
#[derive(Debug, Default)]
pub struct Residence {
    counts: [Counter; Self::BOUNDS.len() + 1],
    sum: Counter,
}

impl Residence {
    /// Upper bounds of the buckets, in µs: finer around the hold of 2 ms, up to most of the deadline.
    pub const BOUNDS: [u64; 18] = [
        25, 50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 2_250, 2_500, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000,
    ];

    /// So many frames stayed for so long.
    pub fn record(&self, stay: Duration, frames: u64) {
        let micros = u64::try_from(stay.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.add(frames);
        }
        self.sum.add(micros.saturating_mul(frames));
    }

    /// Frames in each bucket, the last one without a bound.
    #[must_use]
    pub fn counts(&self) -> [u64; Self::BOUNDS.len() + 1] {
        self.counts.each_ref().map(Counter::value)
    }

    /// All stays together, in µs.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.value()
    }
}

/// Declares the counters once, for the live set and for its copy.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Live counters, shared between a running server and whoever watches it.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)*
            /// How long frames stay in the relay.
            pub residence: Residence,
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[cfg_attr(test, derive(Deserialize))]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// Copies all counters. They are read one after the other while the server runs on.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.value(),)* }
            }
        }
    };
}

counters! {
    /// Connections that are open now and past their first message (a gauge).
    connections_open,
    /// Connections that got as far as their first message.
    connections,
    /// Connection attempts answered with Retry, to make the sender prove its address.
    retries,
    /// Attempts refused because the relay was full or had too many handshakes under way.
    refused_full,
    /// Attempts refused because of the number of connections from one network.
    refused_prefix_count,
    /// Attempts refused because of the rate of connections from one network.
    refused_prefix_rate,
    /// Handshakes that were completed; a first message has not come yet.
    handshakes_completed,
    /// Handshakes that failed.
    handshakes_failed,
    /// Handshakes that weren't finished in time.
    handshakes_late,
    /// Media packets that came of a client.
    media_in,
    /// Media packets that came of nobody here, or of somebody else than they say, or a second time.
    media_unknown,
    /// Connections closed because their first message didn't come in time.
    hellos_late,
    /// Connections closed because they broke the framing of the control stream.
    protocol_errors,
    /// Connections closed because their client didn't read its control stream.
    slow_readers,
    /// Control messages received.
    control_in,
    /// Control messages sent.
    control_out,
    /// Bytes of control messages received, without length fields.
    control_bytes_in,
    /// Bytes of control messages sent, without length fields.
    control_bytes_out,
    /// Of the control messages sent, those that went in media packets.
    control_beside,
    /// Of these, those that were lost and went again in QUIC.
    control_again,
    /// Datagrams received.
    datagrams_in,
    /// Datagrams handed to QUIC, one per receiver.
    datagrams_out,
    /// Payload bytes of datagrams received.
    datagram_bytes_in,
    /// Payload bytes of datagrams handed to QUIC.
    datagram_bytes_out,
    /// Datagrams received that nobody read: too many at once, or before the first message. Counted when their
    /// connection ends.
    dropped_unread,
    /// Datagrams that found no room among those of their receiver that still wait to be sent; QUIC drops the oldest.
    dropped_full,
    /// Datagrams that were larger than their receiver's path carries.
    dropped_too_large,
    /// Datagrams for a connection that had just gone.
    dropped_gone,
    /// Datagrams that were past their deadline when their receiver's turn came.
    dropped_late,
    /// UDP packets received, whosever they are.
    packets_in,
    /// Bytes in those, without IP and UDP headers.
    packet_bytes_in,
    /// UDP packets sent.
    packets_out,
    /// Bytes in those, without IP and UDP headers.
    packet_bytes_out,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_counts_in_the_first_bucket_that_holds_it() {
        let residence = Residence::default();
        for micros in [0, 25, 26, 15_000, 15_001, 9_000_000] {
            residence.record(Duration::from_micros(micros), 1);
        }
        let counts = residence.counts();
        assert_eq!((counts[0], counts[1], counts[17], counts[18]), (2, 1, 1, 2));
        assert_eq!(residence.sum(), 9_030_052);
    }
}
