//! Keeps a stream running, whatever becomes of its device: opens it, watches it, replaces it and comes back to it.
//!
//! [`Keeper`] decides and reads no clock; a thread of its own ([`start`]) asks it to look every so often, so that nothing
//! a sound system takes its time for ever holds up a frame. A stream counts as dead when its callbacks stop, because
//! error callbacks may never come.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use super::line::Pulse;
use super::{Choice, Device, Direction, Event, What};

/// How often a stream is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Callbacks that stay away for so long mean that the device is gone: long for a busy machine, and short enough to have
/// another one within a second.
const DEAD_AFTER: Duration = Duration::from_millis(400);
/// The first callback of a new stream may take longer: a server wakes a device that slept, and one that works in blocks
/// of two seconds while nobody asks for less begins with the next.
const FIRST_WITHIN: Duration = Duration::from_millis(3_000);
/// After a stream could not be opened.
const RETRY: Duration = Duration::from_millis(250);
/// The same where looking for devices is work.
const RETRY_SLOWLY: Duration = Duration::from_secs(2);
/// How often to look whether another device is now the right one.
const RESCAN: Duration = Duration::from_millis(500);
/// The same, after the right one could not be opened.
const RESCAN_REFUSED: Duration = Duration::from_secs(3);

/// What the system's own device is called where it has none.
const DEFAULT: &str = "default";

/// Why a stream could not be opened, in words.
#[derive(Debug)]
pub(super) struct Fault(pub String);

/// The sound system, as far as one direction needs it.
pub(super) trait System {
    /// A running stream. Dropping it closes it, and may take its time.
    type Stream;

    /// The devices of this direction.
    fn list(&mut self) -> Result<Vec<Device>, Fault>;

    /// Opens a device by its name. `switched` is what the frame clock's half knows this wish by.
    fn open(&mut self, name: &str, switched: u32) -> Result<(Self::Stream, Arc<Pulse>), Fault>;

    /// Whether listing costs next to nothing and disturbs nobody, so that it can be done all the time.
    fn lists_quickly(&self) -> bool;
}

/// What the frame clock's half wants: odd while the stream is to run. Every switch counts one up, so that a stream of an
/// earlier wish is never taken for one of this.
#[derive(Debug, Default)]
pub(super) struct Wish {
    switched: AtomicU32,
    over: AtomicBool,
}

impl Wish {
    /// Whether the stream is to run.
    pub fn is_on(switched: u32) -> bool {
        switched % 2 == 1
    }

    /// The wish now.
    pub fn switched(&self) -> u32 {
        self.switched.load(Ordering::Acquire)
    }
}

/// The end that wishes. Dropping it closes the stream.
pub(super) struct Handle {
    wish: Arc<Wish>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Runs the stream, or closes it. Never waits.
    pub fn switch(&self, on: bool) {
        if Wish::is_on(self.wish.switched()) != on {
            self.wish.switched.fetch_add(1, Ordering::AcqRel);
            self.thread.thread().unpark();
        }
    }

    /// What a stream of the present wish is known by.
    pub fn switched(&self) -> u32 {
        self.wish.switched()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Not waited for: a sound system that hangs must not keep a client from leaving.
        self.wish.over.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

/// Starts the thread that keeps a stream. `system` is made on that thread.
pub(super) fn start<S: System>(
    choice: Choice,
    direction: Direction,
    events: Sender<Event>,
    system: impl FnOnce() -> S + Send + 'static,
) -> std::io::Result<Handle>
where
    S::Stream: Send + 'static,
{
    let wish = Arc::new(Wish::default());
    let followed = Arc::clone(&wish);
    let thread = std::thread::Builder::new().name(format!("{direction} device")).spawn(move || {
        let mut keeper = Keeper::new(choice, direction, system());
        while !followed.over.load(Ordering::Acquire) {
            keeper.look(Instant::now(), followed.switched());
            for event in keeper.events.drain(..) {
                // Nobody listens any more when the client is about to end.
                let _ = events.send(event);
            }
            for stream in keeper.closing.drain(..) {
                // Closing the stream of a device that is gone may wait for an answer that never comes.
                std::thread::spawn(move || drop(stream));
            }
            park_timeout(LOOK);
        }
    })?;
    Ok(Handle { wish, thread })
}

/// Decides which device is in use.
struct Keeper<S: System> {
    choice: Choice,
    direction: Direction,
    system: S,
    current: Option<Running<S::Stream>>,
    /// The device that was told to be lost and is not back, by its name.
    lost: Option<String>,
    /// The device that was in use last.
    last: Option<String>,
    retry_at: Option<Instant>,
    scan_at: Option<Instant>,
    events: Vec<Event>,
    closing: Vec<S::Stream>,
}

struct Running<T> {
    stream: T,
    name: String,
    pulse: Arc<Pulse>,
    switched: u32,
    beats: u64,
    /// The stream counts as dead then.
    dead_at: Instant,
}

impl<S: System> Keeper<S> {
    fn new(choice: Choice, direction: Direction, system: S) -> Self {
        Self {
            choice,
            direction,
            system,
            current: None,
            lost: None,
            last: None,
            retry_at: None,
            scan_at: None,
            events: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Looks at everything once.
    fn look(&mut self, now: Instant, switched: u32) {
        let is_of_now = |running: &mut Running<_>| running.switched == switched && running.lives(now);
        if self.current.as_mut().is_some_and(|running| !is_of_now(running)) {
            self.close();
            self.retry_at = None;
        }
        if !Wish::is_on(switched) {
            return;
        }
        match self.current {
            None if self.retry_at.is_none_or(|at| at <= now) => self.open_one(now, switched),
            Some(_) if self.scan_at.is_none_or(|at| at <= now) => self.rescan(now, switched),
            _ => {}
        }
    }

    fn close(&mut self) {
        if let Some(running) = self.current.take() {
            self.last = Some(running.name);
            self.closing.push(running.stream);
        }
    }

    /// Opens the device that was chosen, or in its absence the default.
    fn open_one(&mut self, now: Instant, switched: u32) {
        let devices = self.system.list().unwrap_or_default();
        let missing = self.choice.name.clone().or_else(|| self.last.clone());
        if let Some(missing) = missing.filter(|missing| !devices.iter().any(|device| device.name == *missing)) {
            self.tell_lost(&missing);
        }
        let chosen = self.chosen(&devices);
        if chosen.is_none() && self.lost.is_none() {
            self.tell_lost(DEFAULT);
        }
        if chosen.as_ref().is_some_and(|name| self.open(name, now, switched)) {
            return;
        }
        // What is tried in place of one that was told as lost is no news if it does not work.
        if let Some(name) = chosen.as_ref().filter(|_| self.lost.is_none()) {
            self.tell_lost(name);
        }
        let default = devices.into_iter().find(|device| device.is_default).map(|device| device.name);
        // Not the one that has just failed.
        let other = default.filter(|name| Some(name) != chosen.as_ref());
        if !other.is_some_and(|name| self.open(&name, now, switched)) {
            self.retry_at = Some(now + if self.system.lists_quickly() { RETRY } else { RETRY_SLOWLY });
        }
    }

    /// Looks whether another device is now the right one: the chosen one is back, or there is another default.
    fn rescan(&mut self, now: Instant, switched: u32) {
        self.scan_at = Some(now + RESCAN);
        let is_replaced = self.lost.is_some() && self.choice.name.is_some();
        if !is_replaced && !self.system.lists_quickly() {
            return;
        }
        let Ok(devices) = self.system.list() else { return };
        let Some(current) = self.current.as_ref().map(|running| running.name.clone()) else { return };
        // A server may have moved the stream of a device that is gone to another one, and its callbacks go on.
        if !devices.iter().any(|device| device.name == current) {
            self.close();
            return self.open_one(now, switched);
        }
        if let Some(chosen) = self.chosen(&devices).filter(|name| *name != current)
            && !self.open(&chosen, now, switched)
        {
            // There, but not to be had: what is in use stays in use.
            self.scan_at = Some(now + RESCAN_REFUSED);
        }
    }

    fn chosen(&self, devices: &[Device]) -> Option<String> {
        let found = devices.iter().find(|device| match &self.choice.name {
            Some(name) => device.name == *name,
            None => device.is_default,
        });
        found.map(|device| device.name.clone())
    }

    /// Opens a device in place of the one in use.
    fn open(&mut self, name: &str, now: Instant, switched: u32) -> bool {
        let Ok((stream, pulse)) = self.system.open(name, switched) else { return false };
        self.close();
        let before = self.last.replace(name.to_owned());
        let (name, beats) = (name.to_owned(), pulse.beats());
        self.retry_at = None;
        self.scan_at = Some(now + RESCAN);
        if self.lost.as_ref() == Some(&name) {
            self.lost = None;
            self.tell(&name, What::Back);
        } else if before.as_ref().map_or(self.lost.is_some(), |before| *before != name) {
            self.tell(&name, What::Replaced);
        }
        self.current = Some(Running { stream, name, beats, pulse, switched, dead_at: now + FIRST_WITHIN });
        true
    }

    fn tell_lost(&mut self, name: &str) {
        if self.lost.as_deref() != Some(name) {
            self.lost = Some(name.to_owned());
            self.tell(name, What::Lost);
        }
    }

    fn tell(&mut self, name: &str, what: What) {
        self.events.push(Event { direction: self.direction, name: name.to_owned(), what });
    }
}

impl<T> Running<T> {
    /// Whether callbacks have come lately.
    fn lives(&mut self, now: Instant) -> bool {
        let beats = self.pulse.beats();
        if beats != self.beats {
            self.beats = beats;
            self.dead_at = now + DEAD_AFTER;
        }
        now < self.dead_at && !self.pulse.has_failed()
    }
}
