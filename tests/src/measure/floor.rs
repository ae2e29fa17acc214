//! The device floor: what is recorded is played again at once, by cpal and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cpal::traits::{DeviceTrait as _, HostTrait as _, StreamTrait as _};
use cpal::{BufferSize, Device, StreamConfig};

use super::probe::RATE;
use super::room::{MIC, SPK};

/// Plays what the room's microphone records at its loudspeaker, with buffers of so many frames, until `stop` says so.
///
/// # Errors
/// When the devices are not there or fail.
pub fn run(frames: u32, stop: &AtomicBool) -> anyhow::Result<()> {
    let host = cpal::host_from_id(cpal::HostId::PulseAudio).context("a PulseAudio server")?;
    let mic = find(host.input_devices()?, MIC)?;
    let spk = find(host.output_devices()?, SPK)?;
    let config = StreamConfig { channels: 1, sample_rate: RATE, buffer_size: BufferSize::Fixed(frames) };
    let (mut captured, mut to_play) = rtrb::RingBuffer::<f32>::new(RATE as usize);
    let failed = Arc::new(AtomicBool::new(false));
    let watch = |failed: &Arc<AtomicBool>| {
        let failed = Arc::clone(failed);
        move |error: cpal::Error| {
            let is_hiccup = matches!(error.kind(), cpal::ErrorKind::Xrun | cpal::ErrorKind::RealtimeDenied);
            failed.fetch_or(!is_hiccup, Ordering::Relaxed);
        }
    };
    let record = move |data: &[f32], _: &cpal::InputCallbackInfo| {
        // What does not fit was not played for a second.
        let _ = captured.push_partial_slice(data);
    };
    let target = frames as usize;
    let mut runs = false;
    let play = move |data: &mut [f32], _: &cpal::OutputCallbackInfo| {
        data.fill(0.0);
        let there = to_play.slots();
        runs = there >= data.len() && (runs || there >= target);
        if !runs {
            return;
        }
        // What a hiccup has left is dropped, or it would be delay for ever.
        let surplus = there.saturating_sub(2 * target + data.len());
        if let Ok(chunk) = to_play.read_chunk(surplus) {
            chunk.commit_all();
        }
        let _ = to_play.pop_partial_slice(data);
    };
    let input = mic.build_input_stream(config, record, watch(&failed), None)?;
    let output = spk.build_output_stream(config, play, watch(&failed), None)?;
    input.play()?;
    output.play()?;
    while !stop.load(Ordering::Relaxed) {
        if failed.load(Ordering::Relaxed) {
            bail!("a device failed");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn find(mut devices: impl Iterator<Item = Device>, name: &str) -> anyhow::Result<Device> {
    let is_it = |device: &Device| device.id().is_ok_and(|id| id.id() == name);
    devices.find(is_it).with_context(|| format!("there is no device {name}"))
}
