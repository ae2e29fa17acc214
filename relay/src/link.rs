//! The sending side of one connection: its datagrams, and the bounded queue of its control messages.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{SendDatagramError, VarInt};
use tokio::sync::Notify;

use crate::core::CloseCode;
use crate::stats::Stats;

/// Control messages that may wait for one client. A client that reads never has more than a handful; the bound
/// covers a meeting's worth of session records sent at once.
pub(crate) const MAX_QUEUED: usize = 512;

/// Bytes of control messages that may wait for one client: with [`MAX_QUEUED`], what a client that doesn't read can
/// make the relay hold, beside QUIC's own window.
pub(crate) const MAX_QUEUED_BYTES: usize = 1024 * 1024;

/// One connection, as those who send to it see it.
pub(crate) struct Link {
    connection: quinn::Connection,
    stats: Arc<Stats>,
    queue: Mutex<Queue>,
    queued: Notify,
    closing: AtomicBool,
    datagrams_read: AtomicU64,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    close: Option<CloseCode>,
}

/// What the writer of a connection does next.
pub(crate) enum Next {
    Send(Bytes),
    Close(CloseCode),
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection, stats: Arc<Stats>) -> Self {
        Self {
            connection,
            stats,
            queue: Mutex::default(),
            queued: Notify::new(),
            closing: AtomicBool::new(false),
            datagrams_read: AtomicU64::new(0),
        }
    }

    /// Whether nothing from or to this connection counts any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Queues a control message, or closes the connection when the queue is full.
    pub(crate) fn send_control(&self, message: Bytes) {
        if self.is_closing() {
            return;
        }
        let mut queue = self.queue();
        if queue.messages.len() >= MAX_QUEUED || queue.bytes + message.len() > MAX_QUEUED_BYTES {
            drop(queue);
            self.stats.slow_readers.increment();
            self.close_now(CloseCode::SLOW_READER);
            return;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.queued.notify_one();
    }

    /// Hands a datagram to QUIC. When those that wait leave no room, QUIC drops the oldest: late audio is worth
    /// nothing, and the newest frame is the one still on time.
    pub(crate) fn send_datagram(&self, datagram: Bytes) {
        if self.is_closing() {
            return self.stats.dropped_gone.increment();
        }
        let length = datagram.len();
        if self.connection.datagram_send_buffer_space() < length {
            self.stats.dropped_full.increment();
        }
        match self.connection.send_datagram(datagram) {
            Ok(()) => {
                self.stats.datagrams_out.increment();
                self.stats.datagram_bytes_out.add(length as u64);
            }
            Err(SendDatagramError::TooLarge) => self.stats.dropped_too_large.increment(),
            Err(_) => self.stats.dropped_gone.increment(),
        }
    }

    /// Closes the connection once the messages queued so far have been sent.
    pub(crate) fn close_after_queue(&self, code: CloseCode) {
        if !self.closing.swap(true, Ordering::Relaxed) {
            self.queue().close = Some(code);
            self.queued.notify_one();
        }
    }

    /// Closes the connection without sending what is queued.
    pub(crate) fn close_now(&self, code: CloseCode) {
        self.closing.store(true, Ordering::Relaxed);
        self.connection.close(VarInt::from_u32(code.0), b"");
    }

    /// Waits for the next thing that the writer has to do. For one caller only.
    pub(crate) async fn next(&self) -> Next {
        loop {
            {
                let mut queue = self.queue();
                if let Some(message) = queue.messages.pop_front() {
                    queue.bytes -= message.len();
                    return Next::Send(message);
                }
                if let Some(code) = queue.close {
                    return Next::Close(code);
                }
            }
            self.queued.notified().await;
        }
    }

    /// Counts a datagram that was read from this connection.
    pub(crate) fn on_datagram_read(&self, length: usize) {
        self.datagrams_read.fetch_add(1, Ordering::Relaxed);
        self.stats.datagrams_in.increment();
        self.stats.datagram_bytes_in.add(length as u64);
    }

    /// Counts, at the end of the connection, the datagrams that arrived and were never read.
    pub(crate) fn count_unread(&self) {
        let arrived = self.connection.stats().frame_rx.datagram;
        let read = self.datagrams_read.load(Ordering::Relaxed);
        self.stats.dropped_unread.add(arrived.saturating_sub(read));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere ends the server; until then the queue is as good as before.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
