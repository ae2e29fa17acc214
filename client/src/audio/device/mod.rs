//! Microphones and loudspeakers.
//!
//! Three parts know nothing of each other. The callbacks of the sound system move samples through lock-free rings and do
//! nothing else (`line`). The frame clock takes a frame at a time from the other end of one ring, and what is heard goes
//! into that of the other by steps, whatever the device does. A resampler there follows the difference of the clocks
//! (`drift`), so that always as much waits as must (`level`, `margin`). A thread for each direction
//! opens, watches, replaces and closes streams (`keeper`), by way of the system's interface (`system`): a sound server's
//! own (`pulse`), or cpal.
//!
//! A device has one name, by which it is opened, and words for people.

mod callback;
mod drift;
mod keeper;
mod level;
pub mod line;
mod margin;
mod pulse;
mod system;

use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rtrb::Consumer;
use serde::Serialize;

use self::keeper::{Handle, Wish};
pub use self::level::MOST_MARGIN;
use self::line::{CaptureLine, Figures, PlaybackLine};
use super::format::STEP_SAMPLES;
pub use system::list;

/// What `--input` and `--output` call devices.
const PREFIX: &str = "device";

/// Which way sound goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a microphone.
    Input,
    /// To a loudspeaker.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// A device that is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Device {
    /// What it is opened by.
    pub name: String,
    /// What people know it by.
    pub description: String,
    /// Whether the system would take it.
    #[serde(rename = "default")]
    pub is_default: bool,
    /// Samples per second, when the device says so.
    pub rate: Option<u32>,
    /// Channels, when the device says so.
    pub channels: Option<u16>,
}

/// All devices that are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listing {
    /// The sound system that was asked.
    pub system: String,
    /// Microphones.
    pub inputs: Vec<Device>,
    /// Loudspeakers.
    pub outputs: Vec<Device>,
}

/// The device that the user wants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// `None` for whatever the system takes.
    name: Option<String>,
}

impl Choice {
    /// Understands `device` and `device:NAME`; `None` when it is something else, such as the path of a file.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(PREFIX)? {
            "" => Some(Self { name: None }),
            rest => rest.strip_prefix(':').map(|name| Self { name: Some(name.to_owned()) }),
        }
    }

    /// The same choice by the name that a device is opened by. Refuses one that is not among those that are there.
    fn among(self, direction: Direction, devices: &[Device]) -> Result<Self, DeviceError> {
        if devices.is_empty() {
            return Err(DeviceError::None { direction });
        }
        let Some(name) = self.name else {
            let has_default = devices.iter().any(|device| device.is_default);
            return if has_default {
                Ok(self)
            } else {
                Err(DeviceError::NoDefault { direction, there: names(devices) })
            };
        };
        if devices.iter().any(|device| device.name == name) {
            return Ok(Self { name: Some(name) });
        }
        // A description is for people, and several devices may have the same.
        let described: Vec<&Device> = devices.iter().filter(|device| device.description == name).collect();
        match described[..] {
            [] => Err(DeviceError::Unknown { direction, name, there: names(devices) }),
            [device] => Ok(Self { name: Some(device.name.clone()) }),
            _ => Err(DeviceError::Several { direction, name, there: names(described) }),
        }
    }
}

fn names<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Names {
    Names(devices.into_iter().map(|device| device.name.clone()).collect())
}

/// Names in a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            // With what could end a line or move a cursor escaped.
            write!(f, "{}{name:?}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Why a device cannot be used. Says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device.
    #[error("there is no {direction} device {name:?}; there are: {there} (`conclave devices` says more)")]
    Unknown {
        /// Which way.
        direction: Direction,
        /// As asked for.
        name: String,
        /// Those that could be had.
        there: Names,
    },
    /// Several devices have that description.
    #[error("several {direction} devices are described as {name:?}; name one of these, as device:NAME: {there}")]
    Several {
        /// Which way.
        direction: Direction,
        /// As asked for.
        name: String,
        /// Those that are meant.
        there: Names,
    },
    /// There are devices, and the system would take none of them by itself.
    #[error("the system names no {direction} device as its own; name one of these, as device:NAME: {there}")]
    NoDefault {
        /// Which way.
        direction: Direction,
        /// Those that could be had.
        there: Names,
    },
    /// There is no device at all.
    #[error(
        "this machine has no {direction} device; connect one, or see whether the sound server runs and may be used \
         (`pactl info`), or use a WAV file"
    )]
    None {
        /// Which way.
        direction: Direction,
    },
    /// The sound system does not answer.
    #[error("the sound system does not say which devices there are ({reason}); see whether the sound server runs")]
    System {
        /// Why.
        reason: String,
    },
    /// The thread that keeps the stream could not be started.
    #[error("the thread for the {direction} device failed to start ({reason}); too many processes may be running")]
    Thread {
        /// Which way.
        direction: Direction,
        /// Why.
        reason: String,
    },
}

/// What became of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is gone, or does not work.
    Lost,
    /// It is in use again.
    Back,
    /// It is in use from now on in place of another.
    Replaced,
}

/// Something happened to a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Which way.
    pub direction: Direction,
    /// The device's name.
    pub name: String,
    /// What happened.
    pub what: What,
}

/// A stream as the frame clock sees it: the line of the stream that runs now, if one runs.
struct Lines<L> {
    keeper: Handle,
    fresh: Consumer<system::Fresh<L>>,
    current: Option<L>,
    most_margin: Duration,
    /// Of the lines before the current one.
    past: Figures,
    events: Receiver<Event>,
}

/// The frame clock's half of a line.
trait Line: Send + 'static {
    fn figures(&self) -> Figures;
    fn allow(&mut self, most_margin: Duration);
}

impl Line for CaptureLine {
    fn figures(&self) -> Figures {
        self.figures()
    }

    fn allow(&mut self, most_margin: Duration) {
        self.allow(most_margin);
    }
}

impl Line for PlaybackLine {
    fn figures(&self) -> Figures {
        self.figures()
    }

    fn allow(&mut self, most_margin: Duration) {
        self.allow(most_margin);
    }
}

impl<L: Line> Lines<L> {
    fn open(choice: Choice, direction: Direction, connect: system::Connect<L>) -> Result<Self, DeviceError> {
        let listing = list()?;
        let devices = match direction {
            Direction::Input => &listing.inputs,
            Direction::Output => &listing.outputs,
        };
        let choice = choice.among(direction, devices)?;
        let (sender, events) = channel();
        let (lines, fresh) = system::lines();
        let keeper = keeper::start(choice, direction, sender, move || system::Cpal::new(direction, lines, connect))
            .map_err(|error| DeviceError::Thread { direction, reason: error.to_string() })?;
        Ok(Self { keeper, fresh, current: None, most_margin: MOST_MARGIN, past: Figures::default(), events })
    }

    /// Runs the stream, or closes it.
    fn switch(&mut self, on: bool) {
        self.keeper.switch(on);
        if !on {
            self.replace(None);
        }
    }

    fn allow(&mut self, most_margin: Duration) {
        self.most_margin = most_margin;
        if let Some(line) = &mut self.current {
            line.allow(most_margin);
        }
    }

    fn replace(&mut self, line: Option<L>) {
        self.past = self.figures();
        self.current = line;
    }

    /// Of all lines so far.
    fn figures(&self) -> Figures {
        self.current.as_ref().map_or(self.past, |line| line.figures().after(self.past))
    }

    /// The line of the stream that runs now.
    fn line(&mut self) -> Option<&mut L> {
        let switched = self.keeper.switched();
        while let Ok(fresh) = self.fresh.pop() {
            // One that was opened for an earlier wish is closed already.
            if fresh.switched == switched && Wish::is_on(switched) {
                let mut line = fresh.line;
                line.allow(self.most_margin);
                self.replace(Some(line));
            }
        }
        self.current.as_mut()
    }

    fn poll_event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

/// A microphone. Closed until it is listened to.
pub struct Microphone(Lines<CaptureLine>);

impl Microphone {
    /// A microphone that is there now.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open(choice: Choice) -> Result<Self, DeviceError> {
        Lines::open(choice, Direction::Input, system::INPUT).map(Self)
    }

    /// Opens the stream, or closes it: then the system shows that nobody listens. Returns at once.
    pub fn listen(&mut self, on: bool) {
        self.0.switch(on);
    }

    /// Keeps no more than this against what threads and callbacks are late by, and leaves a gap when something is later.
    pub fn allow(&mut self, most_margin: Duration) {
        self.0.allow(most_margin);
    }

    /// The next frame, all of `out`, whatever the device does: what it has not given is silence. Gives how many samples at
    /// its end are a hole in what was said.
    pub fn next_frame(&mut self, out: &mut [f32]) -> usize {
        match self.0.line() {
            Some(line) => line.next_frame(out, Instant::now()),
            None => {
                out.fill(0.0);
                0
            }
        }
    }

    /// What was recorded until now goes to nobody.
    pub fn discard(&mut self) {
        if let Some(line) = self.0.line() {
            line.discard();
        }
    }

    /// How it fares.
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// What became of the device since this was asked last.
    pub fn poll_event(&self) -> Option<Event> {
        self.0.poll_event()
    }
}

/// A loudspeaker.
pub struct Loudspeaker(Lines<PlaybackLine>);

impl Loudspeaker {
    /// A loudspeaker that is there now.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn open(choice: Choice) -> Result<Self, DeviceError> {
        let mut lines = Lines::open(choice, Direction::Output, system::OUTPUT)?;
        lines.switch(true);
        Ok(Self(lines))
    }

    /// Keeps no more than this against what threads and callbacks are late by, and leaves a gap when something is later.
    pub fn allow(&mut self, most_margin: Duration) {
        self.0.allow(most_margin);
    }

    /// Plays a step. Never waits; without a device it is lost.
    pub fn write(&mut self, step: &[i16; STEP_SAMPLES]) {
        if let Some(line) = self.0.line() {
            line.write(step, Instant::now());
        }
    }

    /// How it fares.
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// What became of the device since this was asked last.
    pub fn poll_event(&self) -> Option<Event> {
        self.0.poll_event()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, description: &str, is_default: bool) -> Device {
        Device { name: name.to_owned(), description: description.to_owned(), is_default, rate: None, channels: None }
    }

    #[test]
    fn devices_are_told_from_files() {
        assert_eq!(Choice::parse("device"), Some(Choice { name: None }));
        assert_eq!(Choice::parse("device:a:b"), Some(Choice { name: Some("a:b".to_owned()) }));
        for file in ["device.wav", "./device", "devices", "tone", ""] {
            assert_eq!(Choice::parse(file), None, "{file}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_refused_with_those_that_are() {
        let devices = [device("spk", "Loud speaker", true), device("phones", "Head phones", false)];
        let among = |text: &str, devices: &[Device]| Choice::parse(text).unwrap().among(Direction::Output, devices);
        for (text, name) in [("device", None), ("device:spk", Some("spk")), ("device:Head phones", Some("phones"))] {
            assert_eq!(among(text, &devices), Ok(Choice { name: name.map(str::to_owned) }), "{text}");
        }
        let error = among("device:radio", &devices).unwrap_err().to_string();
        assert!(error.contains(r#"no output device "radio""#) && error.contains(r#""spk", "phones""#), "{error}");
        let error = among("device:\u{1b}[2J", &devices).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
        assert!(matches!(among("device", &devices[1..]), Err(DeviceError::NoDefault { .. })));
        assert_eq!(among("device", &[]), Err(DeviceError::None { direction: Direction::Output }));
    }

    #[test]
    fn a_name_goes_before_a_description_and_a_description_of_several_means_none() {
        let devices = [device("a", "b", true), device("b", "twin", false), device("c", "twin", false)];
        let among = |text: &str| Choice::parse(text).unwrap().among(Direction::Output, &devices);
        assert_eq!(among("device:b"), Ok(Choice { name: Some("b".to_owned()) }));
        let error = among("device:twin").unwrap_err().to_string();
        assert!(error.contains(r#"described as "twin""#) && error.contains(r#""b", "c""#), "{error}");
    }
}
