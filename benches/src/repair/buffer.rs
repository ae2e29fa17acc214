//! The `neteq` crate as a listener, to compare with. It reads the clock itself, so it runs in real time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use conclave::audio::codec::Decoder;
use conclave::audio::format::{FRAME_SAMPLES, FrameDuration, SAMPLE_RATE, SILENCE};
use conclave::realtime;
use conclave_tests::wav::Sound;
use neteq::codec::AudioDecoder;
use neteq::{AudioPacket, NetEq, NetEqConfig, NetEqError, RtpHeader};

/// It gives 10 ms at a time.
const TICK: Duration = Duration::from_millis(10);
const TICK_SAMPLES: usize = FRAME_SAMPLES / 2;
/// It begins to play after up to half a second.
const TAIL: usize = 50;

struct Opus(Decoder);

impl AudioDecoder for Opus {
    fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    fn channels(&self) -> u8 {
        1
    }

    fn decode(&mut self, encoded: &[u8]) -> neteq::Result<Vec<f32>> {
        let mut out = SILENCE;
        self.0.decode(encoded, &mut out).map_err(|error| NetEqError::DecoderError(error.to_string()))?;
        Ok(out.to_vec())
    }
}

/// What is heard of the packets that are not lost, and how late a tick came at most. Takes as long as they last. It goes
/// before the rest of the machine where the system lets it: a tick that is late because others compute is not its fault.
///
/// # Errors
/// When the codec or the buffer fails.
pub fn heard(packets: &[Vec<u8>], lost: &[bool]) -> Result<(Sound, Duration)> {
    let mut buffer = listening()?;
    let ticks = (2 * packets.len() + TAIL) as u32;
    let mut samples = Vec::with_capacity(ticks as usize * TICK_SAMPLES);
    let _raised = realtime::raise();
    let (start, mut late) = (Instant::now(), Duration::ZERO);
    for tick in 0..ticks {
        let due = start + TICK * tick;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late = late.max(due.elapsed());
        let n = tick as usize / 2;
        if let Some(packet) = packets.get(n).filter(|_| tick.is_multiple_of(2) && !lost[n]) {
            let header = RtpHeader::new(n as u16, (n * FRAME_SAMPLES) as u32, 1, 0, false);
            buffer.insert_packet(AudioPacket::new(header, packet.clone(), SAMPLE_RATE, 1, 20)).map_err(failed)?;
        }
        let mut frame = buffer.get_audio().map_err(failed)?.samples;
        frame.resize(TICK_SAMPLES, 0.0);
        samples.extend(frame);
    }
    Ok((Sound { rate: SAMPLE_RATE, samples }, late))
}

fn listening() -> Result<NetEq> {
    let config = NetEqConfig { sample_rate: SAMPLE_RATE, channels: 1, ..NetEqConfig::default() };
    let mut buffer = NetEq::new(config).map_err(failed)?;
    buffer.register_decoder(0, Box::new(Opus(Decoder::new(FrameDuration::Ms20)?)));
    Ok(buffer)
}

fn failed(error: NetEqError) -> anyhow::Error {
    anyhow!("neteq: {error}")
}
