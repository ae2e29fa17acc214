//! Keeps a stream running, whatever becomes of its device: opens it, watches it, replaces it and comes back to it.
//!
//! [`Keeper`] decides and reads no clock; a thread of its own ([`start`]) asks it to look every so often, so that nothing
//! a sound system takes its time for ever holds up a frame. A stream counts as dead when its callbacks stop, because
//! error callbacks may never come.

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
        if let Some(name) = &chosen {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::audio::device::line;

    const ON: u32 = 1;

    /// A sound system of which the test is the hardware.
    #[derive(Default)]
    struct Bench {
        /// In order; the first is the default.
        devices: Vec<&'static str>,
        refuses: Vec<&'static str>,
        /// What is open, with what its callback does.
        open: Vec<(&'static str, line::Captor)>,
        /// Streams outlive their devices, as on a server that moves them.
        moves: bool,
    }

    impl Bench {
        fn callbacks(&mut self) {
            let Self { devices, open, moves, .. } = self;
            for (_, captor) in open.iter_mut().filter(|(name, _)| *moves || devices.contains(name)) {
                captor.on_data(&[0.0_f32]);
            }
        }
    }

    struct Wired(Rc<RefCell<Bench>>);

    struct Stream(Rc<RefCell<Bench>>, &'static str);

    impl Drop for Stream {
        fn drop(&mut self) {
            let place = self.0.borrow().open.iter().position(|(name, _)| *name == self.1);
            self.0.borrow_mut().open.remove(place.unwrap());
        }
    }

    impl System for Wired {
        type Stream = Stream;

        fn list(&mut self) -> Result<Vec<Device>, Fault> {
            let describe = |(i, name): (usize, &&str)| Device {
                name: (*name).to_owned(),
                description: String::new(),
                is_default: i == 0,
                rate: None,
                channels: None,
            };
            Ok(self.0.borrow().devices.iter().enumerate().map(describe).collect())
        }

        fn open(&mut self, name: &str, _: u32) -> Result<(Stream, Arc<Pulse>), Fault> {
            let mut bench = self.0.borrow_mut();
            let found = bench.devices.iter().copied().find(|device| *device == name);
            let found = found.filter(|name| !bench.refuses.contains(name)).ok_or(Fault(String::new()))?;
            let (captor, _) = line::capture(48_000, 1).unwrap();
            let pulse = captor.pulse();
            bench.open.push((found, captor));
            Ok((Stream(Rc::clone(&self.0), found), pulse))
        }

        fn lists_quickly(&self) -> bool {
            true
        }
    }

    struct Scene {
        bench: Rc<RefCell<Bench>>,
        keeper: Keeper<Wired>,
        now: Instant,
    }

    impl Scene {
        fn new(choice: Option<&str>, devices: &[&'static str]) -> Self {
            let bench = Rc::new(RefCell::new(Bench { devices: devices.to_vec(), ..Bench::default() }));
            let choice = Choice { name: choice.map(str::to_owned) };
            let keeper = Keeper::new(choice, Direction::Input, Wired(Rc::clone(&bench)));
            Self { bench, keeper, now: Instant::now() }
        }

        /// Lets time pass; gives what was told.
        fn pass(&mut self, time: Duration, switched: u32) -> Vec<(String, What)> {
            let end = self.now + time;
            while self.now < end {
                self.bench.borrow_mut().callbacks();
                self.keeper.look(self.now, switched);
                self.keeper.closing.clear();
                self.now += LOOK;
            }
            self.keeper.events.drain(..).map(|event| (event.name, event.what)).collect()
        }

        fn open(&self) -> Vec<&'static str> {
            self.bench.borrow().open.iter().map(|(name, _)| *name).collect()
        }
    }

    fn told(events: &[(&str, What)]) -> Vec<(String, What)> {
        events.iter().map(|(name, what)| ((*name).to_owned(), *what)).collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_device_that_vanishes_is_replaced_within_a_second_and_comes_back() {
        for moves in [false, true] {
            let mut scene = Scene::new(Some("headset"), &["desk", "headset"]);
            scene.bench.borrow_mut().moves = moves;
            assert_eq!(scene.pass(SECOND, ON), []);
            assert_eq!(scene.open(), ["headset"]);
            scene.bench.borrow_mut().devices = vec!["desk"];
            assert_eq!(scene.pass(SECOND, ON), told(&[("headset", What::Lost), ("desk", What::Replaced)]));
            assert_eq!(scene.open(), ["desk"]);
            assert_eq!(scene.pass(SECOND * 60, ON), []);
            scene.bench.borrow_mut().devices = vec!["desk", "headset"];
            assert_eq!(scene.pass(SECOND, ON), told(&[("headset", What::Back)]));
            assert_eq!(scene.open(), ["headset"]);
            assert_eq!(scene.pass(SECOND * 60, ON), []);
        }
    }

    #[test]
    fn while_it_is_not_wanted_no_stream_is_open_and_nothing_is_told() {
        let mut scene = Scene::new(Some("headset"), &["desk", "headset"]);
        scene.pass(SECOND, 0);
        assert_eq!(scene.open(), Vec::<&str>::new());
        scene.pass(SECOND, ON);
        assert_eq!(scene.open(), ["headset"]);
        scene.pass(LOOK, ON + 1);
        assert_eq!(scene.open(), Vec::<&str>::new());
        scene.bench.borrow_mut().devices = vec!["desk"];
        assert_eq!(scene.pass(SECOND, ON + 1), []);
        assert_eq!(scene.pass(SECOND, ON + 2), told(&[("headset", What::Lost), ("desk", What::Replaced)]));
        // Off and on again between two looks: the stream is another.
        scene.pass(LOOK, ON + 4);
        assert_eq!(scene.open(), ["desk"]);
        assert_eq!(scene.keeper.current.as_ref().unwrap().switched, ON + 4);
        assert_eq!(scene.pass(SECOND, ON + 4), [], "told once");
    }

    #[test]
    fn a_device_that_is_all_there_is_comes_back() {
        let mut scene = Scene::new(None, &["desk"]);
        scene.pass(SECOND, ON);
        scene.bench.borrow_mut().devices.clear();
        assert_eq!(scene.pass(SECOND * 5, ON), told(&[("desk", What::Lost)]));
        scene.bench.borrow_mut().devices.push("desk");
        assert_eq!(scene.pass(SECOND, ON), told(&[("desk", What::Back)]));
        assert_eq!(scene.open(), ["desk"]);
    }

    #[test]
    fn without_a_name_the_systems_default_is_followed() {
        let mut scene = Scene::new(None, &["desk", "headset"]);
        assert_eq!(scene.pass(SECOND, ON), []);
        scene.bench.borrow_mut().devices = vec!["headset", "desk"];
        assert_eq!(scene.pass(SECOND, ON), told(&[("headset", What::Replaced)]));
        assert_eq!(scene.open(), ["headset"]);
        scene.bench.borrow_mut().devices = vec!["desk"];
        assert_eq!(scene.pass(SECOND, ON), told(&[("headset", What::Lost), ("desk", What::Replaced)]));
        assert_eq!(scene.pass(SECOND * 5, ON), []);
    }

    #[test]
    fn a_device_that_is_busy_is_replaced_and_what_replaces_it_is_not_disturbed() {
        let mut scene = Scene::new(Some("headset"), &["desk", "headset"]);
        scene.bench.borrow_mut().refuses = vec!["headset"];
        assert_eq!(scene.pass(SECOND, ON), told(&[("headset", What::Lost), ("desk", What::Replaced)]));
        let pulse = Arc::clone(&scene.keeper.current.as_ref().unwrap().pulse);
        assert_eq!(scene.pass(SECOND * 20, ON), []);
        assert!(Arc::ptr_eq(&pulse, &scene.keeper.current.as_ref().unwrap().pulse));
        scene.bench.borrow_mut().refuses.clear();
        assert_eq!(scene.pass(SECOND * 4, ON), told(&[("headset", What::Back)]));
    }

    #[test]
    fn a_stream_that_hangs_on_a_device_that_is_there_is_opened_again_without_a_word() {
        let mut scene = Scene::new(None, &["desk"]);
        scene.pass(SECOND, ON);
        let hung = Arc::clone(&scene.keeper.current.as_ref().unwrap().pulse);
        hung.fail();
        assert_eq!(scene.pass(SECOND, ON), []);
        assert_eq!(scene.open(), ["desk"]);
        assert!(!Arc::ptr_eq(&hung, &scene.keeper.current.as_ref().unwrap().pulse));
    }
}
