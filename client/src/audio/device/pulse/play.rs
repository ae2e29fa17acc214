//! To a loudspeaker.
//!
//! What the server asks for it gets as soon as it is there, and not at once: see [`line::playback_to_server`]. What it keeps
//! is made larger and smaller as the line wants it.

use std::time::{Duration, Instant};

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    Command, CreatePlaybackStreamReply, DESCRIPTOR_SIZE, GetSinkInfo, PlaybackStreamParams,
    SetPlaybackStreamBufferAttrParams, SinkInfo,
};
use rustix::event::Timespec;

use super::{Connection, Message, PERIOD, SAMPLE, Shape, fault, named};
use crate::audio::device::keeper::Fault;
use crate::audio::device::line::{self, PlaybackLine, Player, Server};
use crate::audio::device::system::Opened;
use crate::realtime::{self, Raised};

/// What the server and its device keep together at least, in periods. With two of them the server would leave its device
/// none at all, and render half a millisecond at a time.
const KEPT: u32 = 3;
/// What the server may be let wait for, and how it is told to keep more.
const SERVER: Server = Server {
    // What it keeps but for its device's part, less what a look comes too late.
    wait: Duration::from_millis(9),
    block: PERIOD,
    // PulseAudio gives half of what it keeps beyond two periods to its device.
    gain: Duration::from_micros(2_500),
    // 75 ms. A machine that needs more does not carry a conversation.
    most: 12,
};
/// From one look at the ring to the next while the server waits: a millisecond.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Opens a loudspeaker by its name.
pub(in crate::audio::device) fn play(name: &str) -> Result<Opened<PlaybackLine>, Fault> {
    let mut connection = Connection::open()?;
    let sink: SinkInfo = connection.ask(&Command::GetSinkInfo(GetSinkInfo { index: None, name: named(name)? }))?;
    let shape = Shape::of(sink.sample_spec, sink.channel_map)?;
    let scheduling = realtime::scheduling();
    let (rate, channels) = (shape.spec.sample_rate, shape.spec.channels.into());
    let (player, line) = line::playback_to_server(rate, channels, scheduling, SERVER).map_err(fault)?;
    let pulse = player.pulse();
    let blocks = pulse.blocks();
    let params = PlaybackStreamParams {
        sample_spec: shape.spec,
        channel_map: shape.map,
        sink_index: Some(sink.index),
        buffer_attr: kept(shape, blocks),
        flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
        ..PlaybackStreamParams::default()
    };
    let created: CreatePlaybackStreamReply = connection.ask(&Command::CreatePlaybackStream(params))?;
    let stream = connection.handle()?;
    let speaker =
        Speaker { connection, channel: created.channel, shape, player, blocks, samples: Vec::new(), block: Vec::new() };
    let first = created.requested_bytes;
    let run = move || speaker.run(first);
    std::thread::Builder::new().name("loudspeaker".to_owned()).spawn(run).map_err(fault)?;
    Ok(Opened::new(stream, pulse, line))
}

/// With so many blocks more than at least.
fn kept(shape: Shape, blocks: u32) -> BufferAttr {
    let length = shape.bytes_in(PERIOD * (KEPT + blocks));
    BufferAttr {
        max_length: shape.bytes_in(PERIOD * (KEPT + SERVER.most)),
        target_length: length,
        minimum_request_length: shape.bytes_in(PERIOD),
        // What comes too late is left out. Else the server would stop, and whatever comes then stay late.
        pre_buffering: 0,
        ..BufferAttr::default()
    }
}

struct Speaker {
    connection: Connection,
    channel: u32,
    shape: Shape,
    player: Player,
    /// What the server was told to keep.
    blocks: u32,
    samples: Vec<f32>,
    block: Vec<u8>,
}

impl Speaker {
    /// Until the connection ends.
    fn run(mut self, first: u32) {
        let mut priority = realtime::raise();
        // Ends when the server does, or the stream is dropped.
        let _ = self.serve(first, &mut priority);
        self.player.pulse().fail();
    }

    fn serve(&mut self, first: u32, priority: &mut Raised) -> std::io::Result<()> {
        self.on_request(first)?;
        loop {
            priority.watch();
            if self.player.owes() && !self.connection.is_readable(&LOOK)? {
                self.pay()?;
                continue;
            }
            match self.connection.receive()? {
                Message::Wants(bytes) => {
                    self.on_request(bytes)?;
                    self.keep()?;
                }
                // Before there is anything to play, it is no gap.
                Message::RanDry if self.player.pulse().is_live() => self.player.pulse().on_underflow(),
                Message::Over => return Ok(()),
                _ => {}
            }
        }
    }

    /// The server asks for so many bytes.
    fn on_request(&mut self, bytes: u32) -> std::io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(0).min(super::LONGEST_MESSAGE);
        let moment = SAMPLE * usize::from(self.shape.spec.channels);
        self.player.on_request(bytes / moment, Instant::now());
        self.pay()
    }

    /// Gives the server what there is of what it asked for.
    fn pay(&mut self) -> std::io::Result<()> {
        self.player.pay(&mut self.samples);
        if self.samples.is_empty() {
            return Ok(());
        }
        self.block.clear();
        self.block.resize(DESCRIPTOR_SIZE, 0);
        self.samples.iter().for_each(|sample| self.block.extend_from_slice(&sample.to_le_bytes()));
        self.connection.send_sound(self.channel, &mut self.block)
    }

    /// Tells the server how much to keep, when that is something else now.
    fn keep(&mut self) -> std::io::Result<()> {
        let blocks = self.player.pulse().blocks();
        if std::mem::replace(&mut self.blocks, blocks) == blocks {
            return Ok(());
        }
        let params = SetPlaybackStreamBufferAttrParams {
            index: self.channel,
            buffer_attr: kept(self.shape, blocks),
            adjust_latency: true,
            early_requests: false,
        };
        let told = self.connection.tell(&Command::SetPlaybackStreamBufferAttr(params));
        told.map_err(|error| std::io::Error::other(error.to_string()))
    }
}
