//! From a microphone.

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{Command, CreateRecordStreamReply, GetSourceInfo, RecordStreamParams, SourceInfo};
use std::time::{Duration, Instant};

use super::{Connection, KEPT_SECONDS, Message, PERIOD, SAMPLE, Shape, fault, named};
use crate::audio::device::keeper::Fault;
use crate::audio::device::line::{self, Captor, CaptureLine};
use crate::audio::device::system::Opened;
use crate::realtime;

/// Opens a microphone by its name.
pub(in crate::audio::device) fn record(name: &str) -> Result<Opened<CaptureLine>, Fault> {
    let mut connection = Connection::open()?;
    let source: SourceInfo =
        connection.ask(&Command::GetSourceInfo(GetSourceInfo { index: None, name: named(name)? }))?;
    let shape = Shape::of(source.sample_spec, source.channel_map)?;
    let (captor, line) =
        line::capture(shape.spec.sample_rate, shape.spec.channels.into(), realtime::scheduling()).map_err(fault)?;
    let pulse = captor.pulse();
    let CreateRecordStreamReply { .. } = connection.ask(&Command::CreateRecordStream(params(&source, shape)))?;
    let stream = connection.handle()?;
    std::thread::Builder::new().name("microphone".to_owned()).spawn(move || run(connection, captor)).map_err(fault)?;
    Ok(Opened::new(stream, pulse, line))
}

fn params(source: &SourceInfo, shape: Shape) -> RecordStreamParams {
    RecordStreamParams {
        sample_spec: shape.spec,
        channel_map: shape.map,
        source_index: Some(source.index),
        buffer_attr: BufferAttr {
            max_length: shape.bytes_in(Duration::from_secs(KEPT_SECONDS.into())),
            fragment_size: shape.bytes_in(PERIOD),
            ..BufferAttr::default()
        },
        flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
        ..RecordStreamParams::default()
    }
}

/// Until the connection ends.
fn run(mut connection: Connection, mut captor: Captor) {
    let mut priority = realtime::raise();
    while let Ok(message) = connection.receive() {
        priority.watch();
        match message {
            Message::Sound(bytes) => captor.on_bytes(bytes),
            Message::Over => break,
            _ => {}
        }
    }
    captor.pulse().fail();
}

impl Captor {
    /// As [`Captor::on_data`], of 32-bit floats as they come from a socket.
    fn on_bytes(&mut self, bytes: &[u8]) {
        let channels = self.channels();
        let moments = bytes.chunks_exact(SAMPLE * channels);
        let scale = 1.0 / channels as f32;
        let mean = |moment: &[u8]| moment.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).sum::<f32>() * scale;
        self.on_moments(moments.len(), moments.map(mean), Instant::now());
    }
}
