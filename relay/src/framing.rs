//! Messages on the control stream, the same at both ends (`docs/protocol.md`, "Control stream").
//!
//! ```text
//! +----------------+------------------------+
//! | length, u32 BE | message, length bytes  |   0 <= length <= 16,384
//! +----------------+------------------------+
//! ```
//!
//! What a message means is no business of this module.

use bytes::Bytes;
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use thiserror::Error;

/// The longest control message, in bytes without its length field. Higher costs memory per connection (each end
/// holds one message while it arrives); lower would split rosters and handshakes that fit today.
pub const MAX_MESSAGE: usize = 16_384;

/// Length of the length field.
const LENGTH: usize = size_of::<u32>();

/// Why a control stream can't be read any further.
#[derive(Debug, Error)]
pub enum ReadMessageError {
    /// The peer announced a message longer than [`MAX_MESSAGE`]. The peer's fault.
    #[error("control message of {0} bytes, more than {MAX_MESSAGE}")]
    TooLong(u32),
    /// The stream ended inside a message. The peer's fault.
    #[error("control stream ended inside a message")]
    Truncated,
    /// The peer reset the stream, or the connection is gone.
    #[error("control stream lost")]
    Stream(#[from] ReadError),
}

/// Why a message couldn't be written.
#[derive(Debug, Error)]
pub enum WriteMessageError {
    /// The message is longer than [`MAX_MESSAGE`]. The caller's fault; nothing was written.
    #[error("control message of {0} bytes, more than {MAX_MESSAGE}")]
    TooLong(usize),
    /// The peer stopped the stream, or the connection is gone.
    #[error("control stream lost")]
    Stream(#[from] WriteError),
}

/// The receiving half of a control stream.
#[derive(Debug)]
pub struct MessageReader {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl MessageReader {
    /// Reads messages from the beginning of `stream`.
    #[must_use]
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Waits for the next message, which stays valid until the next call; `None` when the peer finished the stream
    /// between two messages. Not cancel-safe: when the future is dropped half-way, the stream is of no further use.
    ///
    /// # Errors
    /// [`ReadMessageError`]; after any of them the stream is of no further use.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, ReadMessageError> {
        let mut length = [0; LENGTH];
        match self.stream.read_exact(&mut length).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let announced = u32::from_be_bytes(length);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(ReadMessageError::TooLong(announced));
        }
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).await?;
        Ok(Some(&self.buffer))
    }
}

impl From<ReadExactError> for ReadMessageError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::Truncated,
            ReadExactError::ReadError(error) => Self::Stream(error),
        }
    }
}

/// The sending half of a control stream.
#[derive(Debug)]
pub struct MessageWriter {
    stream: SendStream,
}

impl MessageWriter {
    /// Writes messages from the beginning of `stream`.
    #[must_use]
    pub fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    /// Hands a message to QUIC, waiting for flow control where the peer reads too slowly. Not cancel-safe: when the
    /// future is dropped half-way, the stream is of no further use.
    ///
    /// # Errors
    /// [`WriteMessageError`]; after [`WriteMessageError::Stream`] the stream is of no further use.
    pub async fn send(&mut self, message: Bytes) -> Result<(), WriteMessageError> {
        if message.len() > MAX_MESSAGE {
            return Err(WriteMessageError::TooLong(message.len()));
        }
        let length = u32::try_from(message.len()).map_err(|_| WriteMessageError::TooLong(message.len()))?;
        self.stream.write_all(&length.to_be_bytes()).await?;
        self.stream.write_chunk(message).await?;
        Ok(())
    }

    /// Ends the stream and waits until the peer has everything, or is gone.
    pub async fn finish(mut self) {
        if self.stream.finish().is_ok() {
            // Whether acknowledged, stopped or lost: in every case nothing is left to wait for.
            let _ended = self.stream.stopped().await;
        }
    }
}
