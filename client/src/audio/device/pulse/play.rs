//! To a loudspeaker.
//!
//! What the server asks for it gets as soon as it is there, and not at once: see [`line::playback_with_reserve`]. What it
//! keeps is made larger when it ran dry though it was not let wait, for then this machine is too slow for less, and smaller
//! again when it has not for a while.

use std::time::{Duration, Instant};

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    Command, CreatePlaybackStreamReply, DESCRIPTOR_SIZE, GetSinkInfo, PlaybackStreamParams,
    SetPlaybackStreamBufferAttrParams, SinkInfo,
};
use rustix::event::Timespec;

use super::{Connection, Message, PERIOD, SAMPLE, Shape, fault, named};
use crate::audio::device::keeper::Fault;
use crate::audio::device::line::{self, PlaybackLine, Player};
use crate::audio::device::system::Opened;
use crate::realtime::{self, Raised, Scheduling};

/// What the server and its device keep together, in periods. With two of them the server would leave its device none at
/// all, and render half a millisecond at a time.
const KEPT: Depth = Depth { periods: 3, calm: 0 };
/// For how long the server may be let wait: what it keeps but for its device's part, less what a look comes too late.
const RESERVE: Duration = Duration::from_millis(9);
/// From one look at the ring to the next while the server waits: a millisecond.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Most periods: 60 ms. A machine that needs more does not carry a conversation.
const MOST_KEPT: u32 = 12;
/// Periods without a gap after which one less is kept: half a minute.
const CALM: u32 = 6_000;

/// How much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Depth {
    periods: u32,
    /// Periods since it was changed.
    calm: u32,
}

impl Depth {
    /// The server ran dry. Whether more is to be kept.
    fn on_gap(&mut self) -> bool {
        self.calm = 0;
        let before = self.periods;
        // By a half, so that few gaps suffice.
        self.periods = (self.periods + (self.periods / 2).max(1)).min(MOST_KEPT);
        self.periods != before
    }

    /// A block was played. Whether less is to be kept.
    fn on_block(&mut self) -> bool {
        self.calm = self.calm.saturating_add(1);
        let shrinks = self.calm >= CALM && self.periods > KEPT.periods;
        if shrinks {
            *self = Self { periods: self.periods - 1, calm: 0 };
        }
        shrinks
    }
}

/// Opens a loudspeaker by its name.
pub(in crate::audio::device) fn play(name: &str) -> Result<Opened<PlaybackLine>, Fault> {
    let mut connection = Connection::open()?;
    let sink: SinkInfo = connection.ask(&Command::GetSinkInfo(GetSinkInfo { index: None, name: named(name)? }))?;
    let shape = Shape::of(sink.sample_spec, sink.channel_map)?;
    let scheduling = realtime::scheduling();
    let reserve = match scheduling {
        Scheduling::RealTime => RESERVE,
        Scheduling::Shared => Duration::ZERO,
    };
    let (rate, channels) = (shape.spec.sample_rate, shape.spec.channels.into());
    let (player, line) = line::playback_with_reserve(rate, channels, scheduling, reserve).map_err(fault)?;
    let pulse = player.pulse();
    let params = PlaybackStreamParams {
        sample_spec: shape.spec,
        channel_map: shape.map,
        sink_index: Some(sink.index),
        buffer_attr: kept(shape, KEPT),
        flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
        ..PlaybackStreamParams::default()
    };
    let created: CreatePlaybackStreamReply = connection.ask(&Command::CreatePlaybackStream(params))?;
    let stream = connection.handle()?;
    let speaker = Speaker {
        connection,
        channel: created.channel,
        shape,
        player,
        depth: KEPT,
        samples: Vec::new(),
        block: Vec::new(),
    };
    let first = created.requested_bytes;
    let run = move || speaker.run(first);
    std::thread::Builder::new().name("loudspeaker".to_owned()).spawn(run).map_err(fault)?;
    Ok(Opened::new(stream, pulse, line))
}

fn kept(shape: Shape, depth: Depth) -> BufferAttr {
    let length = shape.bytes_in(PERIOD * depth.periods);
    BufferAttr {
        max_length: shape.bytes_in(PERIOD * MOST_KEPT),
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
    depth: Depth,
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
                    if self.depth.on_block() {
                        self.keep()?;
                    }
                }
                // Before there is anything to play, it is no gap.
                Message::RanDry if self.player.pulse().is_live() => {
                    let pulse = self.player.pulse();
                    pulse.on_underflow();
                    // A server that keeps more gives its device larger blocks, which must all be there.
                    if !pulse.lets_wait() && self.depth.on_gap() {
                        self.keep()?;
                    }
                }
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

    /// Tells the server how much to keep.
    fn keep(&mut self) -> std::io::Result<()> {
        let params = SetPlaybackStreamBufferAttrParams {
            index: self.channel,
            buffer_attr: kept(self.shape, self.depth),
            adjust_latency: true,
            early_requests: false,
        };
        let told = self.connection.tell(&Command::SetPlaybackStreamBufferAttr(params));
        told.map_err(|error| std::io::Error::other(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_deepens_what_is_kept_up_to_a_bound_and_calm_takes_it_back() {
        let mut depth = KEPT;
        let deeper: Vec<u32> = std::iter::from_fn(|| depth.on_gap().then_some(depth.periods)).collect();
        assert_eq!(deeper, [4, 6, 9, MOST_KEPT]);
        for periods in (KEPT.periods..MOST_KEPT).rev() {
            assert!((1..CALM).all(|_| !depth.on_block()));
            assert!(depth.on_block());
            assert_eq!(depth.periods, periods);
        }
        assert!((0..2 * CALM).all(|_| !depth.on_block()));
    }

    #[test]
    fn a_gap_ends_the_calm() {
        let mut depth = KEPT;
        depth.on_gap();
        (1..CALM).for_each(|_| assert!(!depth.on_block()));
        depth.on_gap();
        assert!(!depth.on_block());
        assert_eq!(depth.periods, 6);
    }
}
