//! A keeper on a sound system that the test is the hardware of.

use super::*;
use std::cell::RefCell;
use std::rc::Rc;

use crate::audio::device::line;
use crate::realtime::Scheduling;

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
            captor.on_data(&[0.0_f32], Instant::now());
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
        let (captor, _) = line::capture(48_000, 1, Scheduling::Shared).unwrap();
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
fn what_is_tried_in_vain_in_place_of_a_lost_device_is_not_told_again_and_again() {
    let mut scene = Scene::new(None, &["desk"]);
    scene.pass(SECOND, ON);
    scene.bench.borrow_mut().devices = vec!["nothing"];
    scene.bench.borrow_mut().refuses = vec!["nothing"];
    assert_eq!(scene.pass(SECOND * 5, ON), told(&[("desk", What::Lost)]));
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
