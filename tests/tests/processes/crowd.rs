//! Fifty people, five of whom talk, over one relay on this machine.

use std::time::{Duration, Instant};

use conclave_tests::process::{JsonlClient, Mark, machine_time, processor_time, resident_bytes};
use conclave_tests::speech;
use serde_json::Value;

use crate::stage::{LIMIT, Meeting, Stage, end, join, next_stats, observe, talker};

const MEMBERS: usize = 50;
/// The host and four guests.
const TALKERS: [&str; 5] = ["Hestia", "Talker 1", "Talker 2", "Talker 3", "Talker 4"];
/// The bounds: lost and late per frame, and the relay's memory.
const LOSS: f64 = 0.001;
/// Where fifty clients fill the machine, frames wait for a core, which says nothing of the relay: then so many go at a time.
const GO: usize = 15;
/// With so few all must hold on any machine.
const FEW: usize = 15;
const RELAY_BYTES: u64 = 100_000_000;
/// What an allocator may take for itself in a minute without a queue that grows: a queue of one frame in a hundred
/// would take more.
const GROWTH: u64 = 2_000_000;
/// Long enough that a process which waits for one of two cores is not taken for a path that loses frames.
const HOLD: [&str; 2] = ["--profile", "poor-network"];
/// A talker's playout settles on its delay within this time; what happens while fifty enter is no steady state.
const SETTLES: Duration = Duration::from_secs(5);
/// Until fifty processes on two cores have started, shaken hands and entered.
const ENTRY: Duration = Duration::from_secs(60);

#[test]
fn fifty_members_hear_five_talkers_over_one_relay_without_loss_and_without_growth() {
    let stage = Stage::alone();
    let inputs: Vec<_> =
        (0..TALKERS.len()).map(|i| stage.sound(&format!("{i}.wav"), &speech::clip(i, 10.0).unwrap())).collect();
    let mut meeting = Meeting::open(&["--input", &inputs[0], "--loop", HOLD[0], HOLD[1]]);
    let mut guests: Vec<_> = TALKERS[1..]
        .iter()
        .zip(&inputs[1..])
        .map(|(name, input)| join(name, &meeting.link, &["--input", input, "--loop", HOLD[0], HOLD[1]]))
        .collect();
    guests.extend((TALKERS.len()..MEMBERS).map(|number| join(&format!("Listener {number}"), &meeting.link, &HOLD)));
    // All at once, so that all enter a meeting in which muted members are silent (DESIGN §7).
    meeting.host.wait_event("knock", |knock| knock["id"] == MEMBERS - 1, ENTRY).unwrap();
    meeting.host.act("admit_all").unwrap();
    let complete = |roster: &Value| roster["members"].as_array().is_some_and(|members| members.len() == MEMBERS);
    for client in guests.iter().chain([&meeting.host]) {
        client.wait_event("roster", complete, ENTRY).unwrap();
    }
    observe(SETTLES);

    let (before, after) = loop {
        let (before, after) = quiet_window(&meeting, &guests);
        if !is_full(&before, &after) || guests.len() <= FEW {
            break (before, after);
        }
        for mut guest in guests.split_off(guests.len() - GO) {
            guest.act("leave").unwrap();
            guest.wait_exit(LIMIT).unwrap();
        }
        observe(SETTLES);
    };
    let (received, missed) = (after.received - before.received, after.missed - before.missed);
    let frames = (after.at - before.at).as_millis() as f64 / 20.0 * (guests.len() * TALKERS.len()) as f64;
    assert!(received as f64 > frames * 0.98, "{received} of about {frames} frames arrived");
    let loss = missed as f64 / received as f64;
    assert!(loss < LOSS, "{missed} of {received} frames were lost or late");
    assert!(after.relay_bytes < RELAY_BYTES, "the relay holds {} bytes", after.relay_bytes);
    assert!(after.relay_bytes < before.relay_bytes + GROWTH, "{} became {}", before.relay_bytes, after.relay_bytes);
    end(meeting.host, guests);
}

/// Watches for a time in which the machine does nothing else. Fifty clients take three quarters of two cores: what else
/// it does makes frames late, and says nothing of the relay. The third time counts as it is.
fn quiet_window(meeting: &Meeting, guests: &[JsonlClient]) -> (Sample, Sample) {
    let watch = || {
        let before = Sample::take(meeting, guests);
        observe(if std::env::var_os("CONCLAVE_LONG").is_some() { LONG } else { SHORT });
        let after = Sample::take(meeting, guests);
        report(&before, &after);
        (before, after)
    };
    let is_quiet = |(before, after): &(Sample, Sample)| {
        let others = after.other_time.saturating_sub(before.other_time).as_secs_f64();
        others < OTHERS * (after.at - before.at).as_secs_f64()
    };
    std::iter::repeat_with(watch).take(2).find(is_quiet).unwrap_or_else(watch)
}

/// Whether the machine was busy all the time between two samples: then what came late has waited for a core.
fn is_full(before: &Sample, after: &Sample) -> bool {
    let used = |sample: &Sample| (sample.relay_time + sample.client_time + sample.other_time).as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let share = (used(after) - used(before)) / ((after.at - before.at).as_secs_f64() * cores);
    eprintln!("the machine was {:.0} % busy", 100.0 * share);
    share > FULL
}

/// Above this share of all cores late frames say nothing of the relay: at 0.83 talkers themselves did not get to send one frame
/// in thirty.
const FULL: f64 = 0.75;

/// What other processes may use, of one core: this one's own reading takes a tenth of that.
const OTHERS: f64 = 0.1;

const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// Everything at one time.
struct Sample {
    at: Instant,
    received: u64,
    missed: u64,
    /// The same of each client, the host last.
    missed_by: Vec<u64>,
    relay_bytes: u64,
    relay_time: Duration,
    client_time: Duration,
    /// Of everything but the relay and the clients.
    other_time: Duration,
}

impl Sample {
    fn take(meeting: &Meeting, guests: &[JsonlClient]) -> Self {
        let clients: Vec<&JsonlClient> = guests.iter().chain([&meeting.host]).collect();
        let marks: Vec<Mark> = clients.iter().map(|client| client.mark()).collect();
        let stats: Vec<Value> = clients.iter().zip(marks).map(|(client, mark)| next_stats(client, mark)).collect();
        let of = |stats: &Value, field: &str| {
            TALKERS.iter().filter_map(|name| talker(stats, name)[field].as_u64()).sum::<u64>()
        };
        let relay_time = processor_time(meeting.relay.pid()).unwrap();
        let client_time = clients.iter().map(|client| processor_time(client.pid()).unwrap()).sum();
        let missed_by: Vec<u64> = stats.iter().map(|stats| of(stats, "lost") + of(stats, "late")).collect();
        Self {
            at: Instant::now(),
            received: stats.iter().map(|stats| of(stats, "received")).sum(),
            missed: missed_by.iter().sum(),
            missed_by,
            relay_bytes: resident_bytes(meeting.relay.pid()).unwrap(),
            relay_time,
            client_time,
            other_time: machine_time().unwrap().saturating_sub(relay_time + client_time),
        }
    }
}

fn report(before: &Sample, after: &Sample) {
    let missed: Vec<u64> =
        before.missed_by.iter().zip(&after.missed_by).map(|(before, after)| after - before).collect();
    eprintln!("lost or late at each listener: {missed:?}");
    let time = (after.at - before.at).as_secs_f64();
    let percent = |from: Duration, to: Duration| (to - from).as_secs_f64() / time * 100.0;
    eprintln!(
        "{time:.1} s: {} frames received, {} lost or late; relay {:.1} % of a core, {:.1} MB then {:.1} MB; \
         clients {:.1} % of a core together, others {:.1} %",
        after.received - before.received,
        after.missed - before.missed,
        percent(before.relay_time, after.relay_time),
        before.relay_bytes as f64 / 1e6,
        after.relay_bytes as f64 / 1e6,
        percent(before.client_time, after.client_time),
        percent(before.other_time, after.other_time.max(before.other_time)),
    );
}
