//! Streams of a PulseAudio server, or of PipeWire by its interface, each over a connection and on a thread of its own.
//!
//! cpal is not used for them. It lets the server keep no more of a recording than one callback is long, so that
//! whatever a busy server or client doesn't move within 10 ms is lost; it makes the server render blocks of half a
//! millisecond; and it clears a megabyte and asks for the latency with every one of them, under a lock. Here the server
//! keeps [`KEPT_SECONDS`] of a recording, works in blocks of [`PERIOD`], and a thread that only moves samples sleeps in
//! between, at real-time priority where the system grants it.
//!
//! The protocol's bytes are those of the crate `pulseaudio`.

mod list;
mod play;
mod record;

use std::ffi::CString;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pulseaudio::protocol::{
    self, AuthParams, AuthReply, ChannelMap, Command, CommandReply, DESCRIPTOR_SIZE, Descriptor, DescriptorFlags, Prop,
    Props, SampleFormat, SampleSpec, SetClientNameReply,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::keeper::Fault;
use super::line::RATES;
pub(super) use list::Server;
pub(super) use play::play;
pub(super) use record::record;

/// Length of a block that the server records, or asks for: a third of what stands between the server and the frame
/// clock. Half of it would double the wake-ups of the machine for 2 ms.
const PERIOD: Duration = Duration::from_millis(5);
/// What the server keeps of a recording while nobody reads, in seconds: as much as the ring behind it.
const KEPT_SECONDS: u32 = 1;
/// What the server may take to answer while a stream is opened.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Longest message that is read, in bytes: a second of 32 channels at 48 kHz. The server's own limit for a block is
/// a hundredth.
const LONGEST_MESSAGE: usize = 8 << 20;
/// Bytes of a sample: they are asked for as 32-bit floats, whatever the device has.
const SAMPLE: usize = 4;
/// What the server shows to the user.
const CLIENT: &std::ffi::CStr = c"Conclave";
/// The channel of commands and answers.
const CONTROL: u32 = u32::MAX;

/// A running stream. Dropping it ends the connection, and with it the stream and its thread; it waits for nobody.
pub(super) struct Stream(UnixStream);

impl Drop for Stream {
    fn drop(&mut self) {
        // A connection that is broken already needs no end.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Who speaks to the server.
struct Connection {
    socket: BufReader<UnixStream>,
    version: u16,
    /// Number of the next command.
    next: u32,
    /// What was received last.
    message: Vec<u8>,
}

impl Connection {
    /// Connects to the server that the environment names.
    fn open() -> Result<Self, Fault> {
        let socket = Self::reach().ok_or_else(|| Fault("there is no sound server".to_owned()))?;
        Self::greet(socket, Some(ANSWER_WITHIN))
    }

    /// The server that the environment names, if one runs.
    fn reach() -> Option<UnixStream> {
        pulseaudio::socket_path_from_env().and_then(|path| UnixStream::connect(path).ok())
    }

    /// Says who asks. From then on each answer may take as long as said, or any time.
    fn greet(socket: UnixStream, within: Option<Duration>) -> Result<Self, Fault> {
        socket.set_read_timeout(within).map_err(fault)?;
        socket.set_write_timeout(within).map_err(fault)?;
        let mut connection =
            Self { socket: BufReader::new(socket), version: protocol::MAX_VERSION, next: 0, message: Vec::new() };
        let cookie = list::cookie();
        let auth = AuthParams { version: protocol::MAX_VERSION, supports_shm: false, supports_memfd: false, cookie };
        let AuthReply { version, .. } = connection.ask(&Command::Auth(auth))?;
        connection.version = version.min(protocol::MAX_VERSION);
        let mut props = Props::new();
        props.set(Prop::ApplicationName, CLIENT);
        let SetClientNameReply { .. } = connection.ask(&Command::SetClientName(props))?;
        Ok(connection)
    }

    /// Asks, and waits for the answer. Only before a stream runs: from then on the server speaks without being asked.
    fn ask<R: CommandReply>(&mut self, command: &Command) -> Result<R, protocol::ProtocolError> {
        self.tell(command)?;
        let (_, reply) = protocol::read_reply_message(&mut self.socket, self.version)?;
        Ok(reply)
    }

    /// Sends a command.
    fn tell(&mut self, command: &Command) -> Result<(), protocol::ProtocolError> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        protocol::write_command_message(&mut self.socket.get_ref(), number, command, self.version)
    }

    /// Gives the end by which the stream is ended, and lets the server take its time from now on.
    fn handle(&self) -> Result<Stream, Fault> {
        let socket = self.socket.get_ref();
        socket.set_read_timeout(None).map_err(fault)?;
        socket.set_write_timeout(None).map_err(fault)?;
        socket.try_clone().map(Stream).map_err(fault)
    }

    /// Waits for so long whether there is a message.
    fn is_readable(&self, longest: &Timespec) -> io::Result<bool> {
        if !self.socket.buffer().is_empty() {
            return Ok(true);
        }
        let mut sockets = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        // A signal interrupts it, and then it has waited for less.
        Ok(poll(&mut sockets, Some(longest)).or_else(|error| if error == Errno::INTR { Ok(0) } else { Err(error) })?
            > 0)
    }

    /// Waits for the next message. Allocates only for one that is longer than all before.
    fn receive(&mut self) -> io::Result<Message<'_>> {
        let mut header = [0; DESCRIPTOR_SIZE];
        self.socket.read_exact(&mut header)?;
        let [length, channel] = [&header[..4], &header[4..8]].map(|b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > LONGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.message.resize(length, 0);
        self.socket.read_exact(&mut self.message)?;
        if channel != CONTROL {
            return Ok(Message::Sound(&self.message));
        }
        // What is not understood is about something that is of no interest.
        let command = Command::read_tag_prefixed(&mut self.message.as_slice(), self.version);
        Ok(command.map_or(Message::Other, |(_, command)| command.into()))
    }

    fn send_sound(&mut self, channel: u32, block: &mut [u8]) -> io::Result<()> {
        let Some((header, sound)) = block.split_first_chunk_mut::<DESCRIPTOR_SIZE>() else { return Ok(()) };
        let length = u32::try_from(sound.len()).unwrap_or(u32::MAX);
        let descriptor = Descriptor { length, channel, offset: 0, flags: DescriptorFlags::empty() };
        protocol::encode_descriptor(header, &descriptor);
        self.socket.get_ref().write_all(block)
    }
}

/// What a server says.
enum Message<'a> {
    /// A block of a recording.
    Sound(&'a [u8]),
    /// It wants so many bytes to play.
    Wants(u32),
    /// It had nothing to play.
    RanDry,
    /// The stream is over.
    Over,
    /// Something that is of no interest.
    Other,
}

impl From<Command> for Message<'_> {
    fn from(command: Command) -> Self {
        match command {
            Command::Request(request) => Self::Wants(request.length),
            Command::Underflow(_) => Self::RanDry,
            Command::PlaybackStreamKilled(_) | Command::RecordStreamKilled(_) => Self::Over,
            _ => Self::Other,
        }
    }
}

/// A device's rate and channels, with samples as floats.
#[derive(Clone, Copy)]
struct Shape {
    spec: SampleSpec,
    map: ChannelMap,
}

impl Shape {
    fn of(spec: SampleSpec, map: ChannelMap) -> Result<Self, Fault> {
        if !RATES.contains(&spec.sample_rate) || spec.channels == 0 {
            return Err(Fault(format!("{} samples per second, {} channels", spec.sample_rate, spec.channels)));
        }
        Ok(Self { spec: SampleSpec { format: SampleFormat::Float32Le, ..spec }, map })
    }

    /// Bytes of all channels of a time; a whole number of moments.
    fn bytes_in(self, time: Duration) -> u32 {
        let moments = u128::from(self.spec.sample_rate) * time.as_micros() / 1_000_000;
        // At most 192 kHz, 255 channels and a second.
        u32::try_from(moments).unwrap_or(u32::MAX).max(1) * u32::from(self.spec.channels) * SAMPLE as u32
    }
}

impl From<protocol::ProtocolError> for Fault {
    fn from(error: protocol::ProtocolError) -> Self {
        fault(error)
    }
}

fn named(name: &str) -> Result<Option<CString>, Fault> {
    CString::new(name).map(Some).map_err(fault)
}

fn fault(error: impl ToString) -> Fault {
    Fault(error.to_string())
}
