//! What is heard: real speech through everything, measured by PESQ; and nothing at all in the waiting room.

use std::time::Duration;

use conclave_tests::proxy::{Config, Direction, Observed, Proxy, Record};
use conclave_tests::speech;
use conclave_tests::wav::{self, Sound};

use crate::stage::{LIMIT, Meeting, Stage, admit, end, hears_more, join, knock_of, observe};

/// The longest difference between the starts of three processes that still leaves one talker at a time.
const PAUSE: f64 = 2.0;
/// Speech of each talker, in seconds.
const TURN: f64 = 6.0;

#[test]
fn speech_of_one_talker_at_a_time_has_pesq_of_at_least_four_at_every_listener() {
    let worst = worst_score("20", &["Hestia", "Bela", "Cleo"]);
    assert!(worst >= GOOD, "{worst}");
}

#[test]
fn speech_in_frames_of_ten_ms_has_pesq_of_at_least_four_at_host_and_guest() {
    // Frames of 10 ms are held for half as long: a machine that stands still for that time, once, is no fault of theirs.
    let worst = (0..2).map(|_| worst_score("10", &["Hestia", "Bela"])).find(|worst| *worst >= GOOD);
    assert!(worst.is_some());
}

const GOOD: f64 = 4.0;

/// What the listener of these who hears worst hears of the talker who is heard worst: PESQ-WB.
fn worst_score(frame_ms: &str, names: &[&'static str]) -> f64 {
    let stage = Stage::alone();
    // The last to start speaks first, so that all are in when anybody speaks, and differences of start shorten no
    // pause below zero.
    let cast: Vec<Person> = names.iter().zip((0..names.len()).rev()).map(|(n, t)| Person::new(n, t)).collect();
    let arguments: Vec<_> = cast.iter().map(|person| person.arguments(&stage)).collect();
    let args: Vec<Vec<&str>> = arguments.iter().map(|args| args.iter().map(String::as_str).collect()).collect();
    let mut meeting = Meeting::open(&[&args[0][..], &["--frame-ms", frame_ms]].concat());
    let guests: Vec<_> = (1..names.len()).map(|i| join(cast[i].name, &meeting.link, &args[i])).collect();
    for (person, guest) in cast[1..].iter().zip(&guests) {
        meeting.admit(person.name, guest);
    }
    // The host speaks last; half a second more lets its last word be played.
    let spoken = cast[0].begin() + TURN + 0.5;
    observe(Duration::from_secs_f64(spoken));
    end(meeting.host, guests);

    let mut worst = f64::INFINITY;
    for listener in &cast {
        let heard = wav::read(&stage.path(&listener.heard_file())).unwrap();
        for talker in cast.iter().filter(|talker| talker.name != listener.name) {
            let around = heard.between(talker.begin() - PAUSE, talker.begin() + TURN + PAUSE);
            let score = wav::pesq_wb(&talker.speech(), &around, 2.0 * PAUSE).unwrap();
            eprintln!("{} hears {}: PESQ-WB {score:.2}", listener.name, talker.name);
            worst = worst.min(score);
        }
    }
    worst
}

/// Somebody who speaks in its turn.
struct Person {
    name: &'static str,
    turn: usize,
}

impl Person {
    fn new(name: &'static str, turn: usize) -> Self {
        Self { name, turn }
    }

    /// When it begins to speak, in seconds of its own input.
    fn begin(&self) -> f64 {
        PAUSE + self.turn as f64 * (TURN + PAUSE)
    }

    fn speech(&self) -> Sound {
        speech::clip(self.turn, TURN).unwrap()
    }

    fn heard_file(&self) -> String {
        format!("heard-by-{}.wav", self.name)
    }

    fn arguments(&self, stage: &Stage) -> Vec<String> {
        let mut said = Sound::silence(speech::RATE, self.begin());
        said.samples.extend(self.speech().samples);
        let input = stage.sound(&format!("said-by-{}.wav", self.name), &said);
        let output = stage.argument(&self.heard_file());
        // Held for longer than this machine stands still: what is scored is the sound, not the machine.
        ["--input", &input, "--output", &output, "--profile", "poor-network"].map(str::to_owned).to_vec()
    }
}

#[test]
fn guest_in_the_waiting_room_gets_no_roster_no_figures_and_no_media() {
    let stage = Stage::alone();
    let input = stage.sound("talk.wav", &speech::clip(0, 4.0).unwrap());
    let mut meeting = Meeting::open(&["--input", &input, "--loop"]);
    let member = meeting.guest("Bela", &["--input", &input, "--loop"]);
    let proxy =
        Proxy::start(meeting.relay.addr(), Config { record: Record::Sizes(100_000), ..Config::default() }).unwrap();
    let guest = join("Cleo", &meeting.link_by_way_of(proxy.addr()), &[]);
    guest.wait_event("waiting", |waiting| waiting["for"] != "host", LIMIT).unwrap();
    knock_of(&meeting.host, "Cleo");
    // What is still on its way to a guest that has just knocked is over by now.
    observe(Duration::from_millis(200));
    proxy.take_recorded();
    let mark = member.mark();
    observe(Duration::from_secs(3));
    let waiting = downwards(proxy.take_recorded());
    assert!(guest.events().iter().all(|event| event["event"] == "waiting"), "{:?}", guest.events());
    // Meanwhile there was something to be heard.
    member.wait_event_after(mark, "stats", |_| true, LIMIT).unwrap();
    hears_more(&member, "Hestia", 50, LIMIT);

    admit(&mut meeting.host, "Cleo", &guest);
    proxy.take_recorded();
    hears_more(&guest, "Hestia", 100, LIMIT);
    let admitted = downwards(proxy.take_recorded());
    let media = most_frequent(&admitted);
    eprintln!("waiting: {waiting:?}; media of {media} bytes in {} datagrams", admitted.len());
    // Two seconds of frames; those of two talkers whose clocks are aligned come in one datagram.
    assert!(admitted.iter().filter(|size| **size >= media).count() > 75, "{admitted:?}");
    assert!(waiting.iter().all(|size| *size < media), "{waiting:?}, and media have {media} bytes");
    // Two talkers were heard in three seconds by 150 datagrams at least; a guest who waits is kept alive by two a second.
    assert!(waiting.len() < 20, "{waiting:?}");
    end(meeting.host, vec![member, guest]);
}

#[test]
fn a_recording_is_said_from_its_beginning_by_who_waited_and_slept_for_longer_than_it_lasts() {
    let stage = Stage::alone();
    let said = speech::clip(0, 3.0).unwrap();
    let input = stage.sound("talk.wav", &said);
    let output = stage.argument("heard.wav");
    let mut meeting = Meeting::open(&["--output", &output, "--profile", "poor-network"]);
    let guest = join("Bela", &meeting.link, &["--input", &input]);
    knock_of(&meeting.host, "Bela");
    guest.pause().unwrap();
    observe(Duration::from_secs(3));
    guest.resume().unwrap();
    observe(Duration::from_secs(2));
    admit(&mut meeting.host, "Bela", &guest);
    hears_more(&meeting.host, "Bela", 400, LIMIT);
    end(meeting.host, vec![guest]);
    let heard = wav::read(&stage.path("heard.wav")).unwrap();
    let score = wav::pesq_wb(&said, &heard, 15.0).unwrap();
    assert!(score >= GOOD, "{score}");
}

fn downwards(observed: Vec<Observed>) -> Vec<usize> {
    observed.into_iter().filter(|datagram| datagram.direction == Direction::Down).map(|datagram| datagram.len).collect()
}

fn most_frequent(sizes: &[usize]) -> usize {
    let count = |size: &usize| sizes.iter().filter(|other| *other == size).count();
    sizes.iter().copied().max_by_key(count).unwrap()
}
