//! One connection's control stream: messages behind their lengths (`docs/protocol.md` §6.2), in both directions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{Connection, ReadError, StreamId, WriteError};

use crate::bucket::{Bucket, Rate};
use crate::core::CloseCode;
use crate::framing::MAX_MESSAGE;

/// Control messages that may wait for one client. A client that reads has a handful, and the leader of a thousand people one
/// of each when all of them acknowledge an epoch at once; the bound is twice that.
const MAX_QUEUED: usize = 2_048;
/// Bytes of control messages that may wait for one client: with [`MAX_QUEUED`], what a client that doesn't read can
/// make the relay hold, beside QUIC's own window.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
/// Control messages read from one client in the long run and at once: what the core allows a leader, who sends two
/// session records to each member of a large meeting with every epoch. What others may send the core knows. A client that
/// sends more isn't punished, it is read more slowly, and QUIC's flow control holds it back.
const RATE: Rate = Rate { per_second: 4_000, burst: 8_000 };
/// Pause before a client that sends too much is read again.
const PAUSE: Duration = Duration::from_millis(1);
/// Length of the length field.
const LENGTH: usize = size_of::<u32>();

/// What reading finds.
pub enum Read {
    /// A whole message.
    Message(Bytes),
    /// Nothing more for now.
    Nothing,
    /// More, but not before this time.
    NotBefore(Instant),
    /// The end of the connection, for this reason.
    End(CloseCode),
}

/// See the module.
pub struct Control {
    stream: StreamId,
    allowance: Bucket,
    partial: BytesMut,
    queue: VecDeque<Bytes>,
    queued: usize,
    queued_bytes: usize,
    finishing: bool,
}

/// More waits for a client than it may have waiting.
pub struct QueueFull;

/// The other end wants nothing more.
pub struct Stopped;

/// What went to QUIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Whole messages.
    pub messages: u64,
    /// Bytes of messages, without their lengths.
    pub bytes: u64,
    /// Bytes in all.
    pub taken: usize,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
        self.taken += more.taken;
    }
}

impl Control {
    /// The control stream that has just been opened, by either end.
    #[must_use]
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            allowance: Bucket::default(),
            partial: BytesMut::new(),
            queue: VecDeque::new(),
            queued: 0,
            queued_bytes: 0,
            finishing: false,
        }
    }

    /// Reads the next message.
    pub fn read(&mut self, quic: &mut Connection, now: Instant) -> Read {
        match self.fill(quic) {
            Ok(true) if self.allowance.take(now, 1, RATE) => {
                let mut message = std::mem::take(&mut self.partial);
                message.advance(LENGTH);
                Read::Message(message.freeze())
            }
            Ok(true) => Read::NotBefore(now + PAUSE),
            Ok(false) => Read::Nothing,
            Err(code) => Read::End(code),
        }
    }

    /// Takes from the stream what is missing of a message; whether it is whole.
    fn fill(&mut self, quic: &mut Connection) -> Result<bool, CloseCode> {
        loop {
            let missing = match self.partial.first_chunk::<LENGTH>() {
                None => LENGTH - self.partial.len(),
                Some(length) => {
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    if length > MAX_MESSAGE {
                        return Err(CloseCode::PROTOCOL);
                    }
                    match (LENGTH + length).saturating_sub(self.partial.len()) {
                        0 => return Ok(true),
                        missing => missing,
                    }
                }
            };
            let Some(piece) = self.read_piece(quic, missing)? else { return Ok(false) };
            self.partial.extend_from_slice(&piece);
        }
    }

    fn read_piece(&mut self, quic: &mut Connection, most: usize) -> Result<Option<Bytes>, CloseCode> {
        let mut stream = quic.recv_stream(self.stream);
        let Ok(mut chunks) = stream.read(true) else { return Err(CloseCode::DONE) };
        let next = chunks.next(most);
        // What there is to send in consequence goes when the connection is looked at, as it is after reading.
        let _flow_control = chunks.finalize();
        match next {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            // Inside a message, the end is the client's fault.
            Ok(None) if self.partial.is_empty() => Err(CloseCode::DONE),
            Ok(None) => Err(CloseCode::PROTOCOL),
            Err(ReadError::Blocked) => Ok(None),
            Err(ReadError::Reset(_)) => Err(CloseCode::DONE),
        }
    }

    /// Queues a message.
    pub fn send(&mut self, message: Bytes) -> Result<(), QueueFull> {
        if self.queued >= MAX_QUEUED || self.queued_bytes + message.len() > MAX_QUEUED_BYTES {
            return Err(QueueFull);
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        self.queue.push_back(Bytes::copy_from_slice(&length.to_be_bytes()));
        self.queued += 1;
        self.queued_bytes += message.len();
        self.queue.push_back(message);
        Ok(())
    }

    /// Whether so much waits that whoever holds it back should not.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.queued > MAX_QUEUED / 4 || self.queued_bytes > MAX_QUEUED_BYTES / 4
    }

    /// Whether something waits for [`Control::write`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Hands QUIC what it takes, at most so many bytes; counts the messages that it has whole, and their bytes.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn write(&mut self, quic: &mut Connection, most: usize) -> Result<Written, Stopped> {
        let mut written = Written::default();
        let mut stream = quic.send_stream(self.stream);
        while let Some(next) = self.queue.front_mut().filter(|_| written.taken < most) {
            let mut piece = next.slice(..next.len().min(most - written.taken));
            let before = piece.len();
            let result = stream.write_chunks(std::slice::from_mut(&mut piece));
            let taken = before - piece.len();
            next.advance(taken);
            let is_whole = next.is_empty();
            // Lengths and messages take turns.
            let is_message = self.queue.len() % 2 == 1;
            written.taken += taken;
            if is_message {
                self.queued_bytes -= taken;
                written.bytes += taken as u64;
            }
            match result {
                Ok(_) if is_whole => {
                    self.queue.pop_front();
                    self.queued -= usize::from(is_message);
                    written.messages += u64::from(is_message);
                }
                // The rest goes in the next turn, unless there was no room even for the piece.
                Ok(_) if piece.is_empty() => {}
                Ok(_) | Err(WriteError::Blocked) => break,
                Err(_) => return Err(Stopped),
            }
        }
        Ok(written)
    }

    /// Ends the stream once everything has been handed to QUIC. [`quinn_proto::StreamEvent::Finished`] follows when the
    /// client has it all.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn finish(&mut self, quic: &mut Connection) -> Result<(), Stopped> {
        if self.queue.is_empty() && !std::mem::replace(&mut self.finishing, true) {
            return quic.send_stream(self.stream).finish().map_err(|_| Stopped);
        }
        Ok(())
    }
}
