//! The sound system: PulseAudio (or PipeWire by its interface) where a server runs, else ALSA by cpal.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, ErrorKind, FromSample, HostId, Sample, SampleFormat, SizedSample, StreamConfig, SupportedBufferSize,
    SupportedStreamConfig,
};
use rtrb::{Consumer, Producer, RingBuffer};

use super::keeper::{Fault, System};
use super::line::{self, Captor, CaptureLine, PlaybackLine, Player, Pulse, RATES};
use super::{Device, DeviceError, Direction, Listing, pulse};
use crate::realtime;

/// Length of a callback's buffer over ALSA: 10 ms. Shorter ones lose samples on a busy machine, longer ones add their length to
/// the delay. The system's own choice may be two seconds.
const BUFFERS_PER_SECOND: u32 = 100;
/// Longest time that opening may take. A server that hangs would else hold the thread for ever.
const OPEN_WITHIN: Duration = Duration::from_secs(6);
/// Longest time that a list of devices may take: ALSA opens each of them. A server that hangs would else hold whoever
/// asks for ever.
const LIST_WITHIN: Duration = OPEN_WITHIN;
/// The same for a server that has answered before: what it does not say by then is told as lost, within a second of the
/// last callback.
const LIST_AGAIN_WITHIN: Duration = Duration::from_millis(500);
/// Lines that wait for the frame clock to take them over: more than are opened between two frames.
const WAITING_LINES: usize = 8;

/// A line of a stream that was just opened.
pub(super) struct Fresh<L> {
    pub line: L,
    /// The wish it was opened for.
    pub switched: u32,
}

/// Lines on their way from the thread that opens streams to the frame clock.
pub(super) fn lines<L>() -> (Producer<Fresh<L>>, Consumer<Fresh<L>>) {
    RingBuffer::new(WAITING_LINES)
}

/// How a stream of one direction is opened.
pub(super) struct Connect<L> {
    by_cpal: fn(&cpal::Device) -> Result<Opened<L>, Fault>,
    /// By the device's name.
    by_pulse: fn(&str) -> Result<Opened<L>, Fault>,
}

/// Microphones.
pub(super) const INPUT: Connect<CaptureLine> = Connect { by_cpal: connect_input, by_pulse: pulse::record };
/// Loudspeakers.
pub(super) const OUTPUT: Connect<PlaybackLine> = Connect { by_cpal: connect_output, by_pulse: pulse::play };

/// A running stream, which ends when it is dropped.
pub(super) type Stream = Box<dyn Send>;

/// A running stream and the frame clock's half of its line.
pub(super) struct Opened<L> {
    stream: Stream,
    pulse: Arc<Pulse>,
    line: L,
}

impl<L> Opened<L> {
    pub(super) fn new(stream: impl Send + 'static, pulse: Arc<Pulse>, line: L) -> Self {
        Self { stream: Box::new(stream), pulse, line }
    }
}

type Opener<L> = Box<dyn FnOnce() -> Result<Opened<L>, Fault> + Send>;

/// What ALSA calls a device that takes and gives everything at once, as fast as a core can.
const ALSA_NOTHING: &str = "null";

/// One direction of the system.
pub(super) struct Cpal<L> {
    direction: Direction,
    /// `None` before it is used.
    lister: Option<Lister>,
    lines: Producer<Fresh<L>>,
    connect: Connect<L>,
}

/// All devices that are there. Waits for the sound system, but not for ever.
///
/// # Errors
/// [`DeviceError::System`].
pub fn list() -> Result<Listing, DeviceError> {
    let all = || {
        let mut system = SoundSystem::find()?;
        Ok(Listing {
            system: system.name().to_owned(),
            inputs: system.devices(Direction::Input, true)?,
            outputs: system.devices(Direction::Output, true)?,
        })
    };
    let listing = within(LIST_WITHIN, "device list", all).and_then(|answer| answer.unwrap_or_else(|| Err(silent())));
    listing.map_err(|Fault(reason)| DeviceError::System { reason })
}

/// What knows the devices.
enum SoundSystem {
    Pulse(pulse::Server),
    Alsa(cpal::Host),
}

impl SoundSystem {
    /// A server goes before ALSA; one that answers with a refusal is no reason to go past it.
    fn find() -> Result<Self, Fault> {
        match pulse::Server::connect()? {
            Some(server) => Ok(Self::Pulse(server)),
            None => alsa().map(Self::Alsa),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Pulse(_) => HostId::PulseAudio.name(),
            Self::Alsa(_) => HostId::Alsa.name(),
        }
    }

    /// ALSA says at what rate a device works only when it opens it, which takes its time.
    fn devices(&mut self, direction: Direction, with_figures: bool) -> Result<Vec<Device>, Fault> {
        match self {
            Self::Pulse(server) => server.devices(direction),
            Self::Alsa(host) => alsa_devices(host, direction, with_figures),
        }
    }
}

fn alsa() -> Result<cpal::Host, Fault> {
    cpal::host_from_id(HostId::Alsa).map_err(fault)
}

fn silent() -> Fault {
    Fault(format!("no answer within {} s", LIST_WITHIN.as_secs()))
}

/// Does on a thread of its own what may never come back; `None` if it has not by then. What it gives later is dropped.
fn within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<Option<Result<T, Fault>>, Fault> {
    let (sender, done) = channel();
    // Whoever has stopped waiting drops the receiver, and with it what is sent.
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(sender.send(work())));
    thread.map_err(fault)?;
    Ok(done.recv_timeout(limit).ok())
}

/// A thread that asks the system for its devices: the system may take its time, or never answer.
struct Lister {
    requests: Sender<()>,
    answers: Receiver<Answer>,
    /// An answer is still to come.
    is_asked: bool,
    /// Whether the last answer was a sound server's own.
    is_pulse: bool,
}

struct Answer {
    devices: Result<Vec<Device>, Fault>,
    is_pulse: bool,
}

impl Lister {
    fn start(direction: Direction) -> Result<Self, Fault> {
        let (requests, asked) = channel::<()>();
        let (answer, answers) = channel();
        let run = move || {
            let mut system = None;
            for () in asked {
                if answer.send(Answer::of(&mut system, direction)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name(format!("{direction} device list")).spawn(run).map_err(fault)?;
        Ok(Self { requests, answers, is_asked: false, is_pulse: false })
    }

    /// What the system says now, or has said since it was asked before and was silent.
    fn list(&mut self) -> Result<Vec<Device>, Fault> {
        if !self.is_asked {
            self.requests.send(()).map_err(fault)?;
            self.is_asked = true;
        }
        let limit = if self.is_pulse { LIST_AGAIN_WITHIN } else { LIST_WITHIN };
        let answer = self.answers.recv_timeout(limit).map_err(|_| silent())?;
        self.is_asked = false;
        self.is_pulse = answer.is_pulse;
        answer.devices
    }
}

impl Answer {
    /// `system` is `None` before it is used, and after it failed: a server may have been started again.
    fn of(system: &mut Option<SoundSystem>, direction: Direction) -> Self {
        let found = match system.take() {
            Some(found) => Ok(found),
            None => SoundSystem::find(),
        };
        let mut found = match found {
            Ok(found) => found,
            // Asked again soon.
            Err(error) => return Self { devices: Err(error), is_pulse: true },
        };
        let devices = found.devices(direction, false);
        let is_pulse = matches!(found, SoundSystem::Pulse(_));
        // ALSA has names whether there is anything behind them or not: a server that is started again would not be seen.
        if is_pulse && devices.is_ok() {
            *system = Some(found);
        }
        Self { devices, is_pulse }
    }
}

fn alsa_devices(host: &cpal::Host, direction: Direction, with_figures: bool) -> Result<Vec<Device>, Fault> {
    let (default, all) = match direction {
        Direction::Input => (host.default_input_device(), host.input_devices().map(Vec::from_iter)),
        Direction::Output => (host.default_output_device(), host.output_devices().map(Vec::from_iter)),
    };
    let default = default.and_then(|device| name(&device));
    let described = |device: cpal::Device| {
        let name = name(&device)?;
        if name == ALSA_NOTHING {
            return None;
        }
        let description = device.description().map_or_else(|_| name.clone(), |text| text.name().to_owned());
        let config = if with_figures { config(&device, direction).ok() } else { None };
        if with_figures && config.is_none() {
            // Of ALSA's names most are of plugins for what this machine has not.
            return None;
        }
        Some(Device {
            is_default: Some(&name) == default.as_ref(),
            name,
            description,
            rate: config.map(|config| config.sample_rate()),
            channels: config.map(|config| config.channels()),
        })
    };
    Ok(all.map_err(fault)?.into_iter().filter_map(described).collect())
}

/// What a device is opened by.
fn name(device: &cpal::Device) -> Option<String> {
    device.id().ok().map(|id| id.id().to_owned())
}

fn config(device: &cpal::Device, direction: Direction) -> Result<SupportedStreamConfig, cpal::Error> {
    match direction {
        Direction::Input => device.default_input_config(),
        Direction::Output => device.default_output_config(),
    }
}

fn fault(error: impl ToString) -> Fault {
    Fault(error.to_string())
}

impl<L: 'static> Cpal<L> {
    pub(super) fn new(direction: Direction, lines: Producer<Fresh<L>>, connect: Connect<L>) -> Self {
        Self { direction, lister: None, lines, connect }
    }

    /// What opens a device.
    fn opener(&self, name: &str) -> Opener<L> {
        let Connect { by_cpal, by_pulse } = self.connect;
        let (name, direction) = (name.to_owned(), self.direction);
        if self.is_pulse() {
            return Box::new(move || by_pulse(&name));
        }
        Box::new(move || by_cpal(&find(&name, direction)?))
    }

    fn is_pulse(&self) -> bool {
        self.lister.as_ref().is_some_and(|lister| lister.is_pulse)
    }
}

fn find(wanted: &str, direction: Direction) -> Result<cpal::Device, Fault> {
    let host = alsa()?;
    let all = match direction {
        Direction::Input => host.input_devices().map(Vec::from_iter),
        Direction::Output => host.output_devices().map(Vec::from_iter),
    };
    let found = all.map_err(fault)?.into_iter().find(|device| name(device).as_deref() == Some(wanted));
    found.ok_or_else(|| Fault(format!("{wanted} is gone")))
}

impl<L: Send + 'static> System for Cpal<L> {
    type Stream = Stream;

    fn list(&mut self) -> Result<Vec<Device>, Fault> {
        let lister = match &mut self.lister {
            Some(lister) => lister,
            none => none.insert(Lister::start(self.direction)?),
        };
        lister.list()
    }

    fn open(&mut self, name: &str, switched: u32) -> Result<(Stream, Arc<Pulse>), Fault> {
        let opened = within(OPEN_WITHIN, "device opener", self.opener(name))?;
        let opened = opened.unwrap_or_else(|| Err(Fault(format!("{name} does not answer"))))?;
        let fresh = Fresh { line: opened.line, switched };
        self.lines.push(fresh).map_err(|_| Fault("the frame clock stands still".to_owned()))?;
        Ok((opened.stream, opened.pulse))
    }

    fn lists_quickly(&self) -> bool {
        // ALSA opens every device to list it.
        self.is_pulse()
    }
}

/// What a stream is opened with: the device's own rate and channels, and a short buffer.
fn settings(config: &SupportedStreamConfig) -> Result<StreamConfig, Fault> {
    let rate = config.sample_rate();
    if !RATES.contains(&rate) {
        return Err(Fault(format!("{rate} samples per second")));
    }
    let wanted = rate / BUFFERS_PER_SECOND;
    let frames = match config.buffer_size() {
        SupportedBufferSize::Range { min, max } => wanted.clamp(*min, (*max).max(*min)),
        SupportedBufferSize::Unknown => wanted,
    };
    Ok(StreamConfig { channels: config.channels(), sample_rate: rate, buffer_size: BufferSize::Fixed(frames) })
}

/// What a stream reports as its end; a hiccup is none.
fn watcher(pulse: Arc<Pulse>) -> impl FnMut(cpal::Error) + Send + 'static {
    move |error| {
        if !matches!(error.kind(), ErrorKind::Xrun | ErrorKind::RealtimeDenied | ErrorKind::DeviceChanged) {
            pulse.fail();
        }
    }
}

/// Opens a microphone.
fn connect_input(device: &cpal::Device) -> Result<Opened<CaptureLine>, Fault> {
    let config = device.default_input_config().map_err(fault)?;
    let settings = settings(&config)?;
    let (captor, line) =
        line::capture(settings.sample_rate, settings.channels, realtime::scheduling()).map_err(fault)?;
    let pulse = captor.pulse();
    let stream = match config.sample_format() {
        SampleFormat::F32 => input_stream::<f32>(device, settings, captor),
        SampleFormat::I32 => input_stream::<i32>(device, settings, captor),
        SampleFormat::I24 => input_stream::<cpal::I24>(device, settings, captor),
        SampleFormat::U8 => input_stream::<u8>(device, settings, captor),
        _ => input_stream::<i16>(device, settings, captor),
    }?;
    stream.play().map_err(fault)?;
    Ok(Opened::new(stream, pulse, line))
}

fn input_stream<S>(device: &cpal::Device, settings: StreamConfig, mut captor: Captor) -> Result<cpal::Stream, Fault>
where
    S: SizedSample,
    f32: FromSample<S>,
{
    let watcher = watcher(captor.pulse());
    let on_data = move |data: &[S], _: &cpal::InputCallbackInfo| captor.on_data(data, Instant::now());
    device.build_input_stream(settings, on_data, watcher, Some(OPEN_WITHIN)).map_err(fault)
}

/// Opens a loudspeaker.
fn connect_output(device: &cpal::Device) -> Result<Opened<PlaybackLine>, Fault> {
    let config = device.default_output_config().map_err(fault)?;
    let settings = settings(&config)?;
    let (player, line) =
        line::playback(settings.sample_rate, settings.channels, realtime::scheduling()).map_err(fault)?;
    let pulse = player.pulse();
    let stream = match config.sample_format() {
        SampleFormat::F32 => output_stream::<f32>(device, settings, player),
        SampleFormat::I32 => output_stream::<i32>(device, settings, player),
        SampleFormat::I24 => output_stream::<cpal::I24>(device, settings, player),
        SampleFormat::U8 => output_stream::<u8>(device, settings, player),
        _ => output_stream::<i16>(device, settings, player),
    }?;
    stream.play().map_err(fault)?;
    Ok(Opened::new(stream, pulse, line))
}

fn output_stream<S>(device: &cpal::Device, settings: StreamConfig, mut player: Player) -> Result<cpal::Stream, Fault>
where
    S: SizedSample + Sample + FromSample<f32>,
{
    let watcher = watcher(player.pulse());
    let on_data = move |data: &mut [S], _: &cpal::OutputCallbackInfo| player.on_data(data, Instant::now());
    device.build_output_stream(settings, on_data, watcher, Some(OPEN_WITHIN)).map_err(fault)
}
