//! Microphones and loudspeakers: null sinks of a PulseAudio server of the test's own. Where none can be started, these
//! tests fail.

use std::process::Command;
use std::time::{Duration, Instant};

use conclave_tests::process::{JsonlClient, Mark, RelayProcess, binary};
use conclave_tests::proxy::{Config, Direction, Observed, Proxy, Record};
use conclave_tests::pulse::{DEFAULT, NullSink, PulseServer};
use conclave_tests::speech;
use conclave_tests::wav::{self, Sound};
use serde_json::{Value, json};

use crate::stage::{LIMIT, Meeting, Stage, at, end, hears_more, knock_of, next_stats, observe};

/// Speech that is scored, in seconds.
const SPOKEN: f64 = 4.0;
/// Speech that somebody says who is muted, in seconds: several words, for one may be over before it is told from noise.
const OVERHEARD: f64 = 8.0;
/// Speech of which it is only asked whether it is there, in seconds.
const UTTERED: f64 = 1.5;
/// The share of it from which on it is there. Of silence it is 0.
const PRESENT: f64 = 0.7;
/// PESQ-WB of four seconds of speech without a gap, between devices of any rate; a gap within a word costs more.
const WHOLE: f64 = 3.8;
/// Around it a recording has so much more at most, in seconds: what processes take to start.
const AROUND: f64 = 1.5;
/// Times that something is said until it is heard without a gap: each gap deepens what is kept against the next.
const ATTEMPTS: u32 = 5;
/// How often a sound server stands still, and for how long: more than is kept against it, less than a device that is lost.
const STALLS: u32 = 10;
const STALL: Duration = Duration::from_millis(60);
/// Until another device is in use.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

const MIC: NullSink<'static> = NullSink { name: "mic", rate: 48_000, channels: 2 };
const SPK: NullSink<'static> = NullSink { name: "spk", rate: 48_000, channels: 2 };
/// What is measured is the devices, not what a processed voice is like.
const TALKS: [&str; 8] =
    ["--input", "device:mic.monitor", "--echo-cancellation", "off", "--noise-suppression", "off", "--auto-gain", "off"];

/// A server in a folder of the test.
fn server(stage: &Stage) -> PulseServer {
    let folder = stage.path("pulse");
    std::fs::create_dir(&folder).unwrap();
    PulseServer::start(&folder).unwrap()
}

/// A guest who uses the devices of a server.
fn join(pulse: &PulseServer, name: &str, link: &str, args: &[&str]) -> JsonlClient {
    let mut command = Command::new(binary("conclave").unwrap());
    command.args(["join", link, "--name", name, "--jsonl"]).args(args);
    pulse.serve(&mut command);
    JsonlClient::start_command(name, command).unwrap()
}

/// Speaks into one sink, and gives what was said, and what was to be heard at another sink around then.
fn said_and_heard(pulse: &PulseServer, stage: &Stage, into: &str, at: &str, seconds: f64) -> (Sound, Sound) {
    let said = speech::clip(0, seconds).unwrap();
    let file = stage.path("said.wav");
    wav::write(&file, &said).unwrap();
    let recording = pulse.record(&format!("{at}.monitor")).unwrap();
    // The recorder takes its time to start; what is heard before the speech is silence.
    observe(Duration::from_millis(300));
    pulse.play(&file, into).unwrap();
    observe(Duration::from_millis(300));
    (said, recording.stop().unwrap())
}

/// How much of the speech is there, as soon as enough is: each gap deepens what is kept against the next.
fn presence(pulse: &PulseServer, stage: &Stage, into: &str, at: &str) -> f64 {
    let heard = || {
        let (said, heard) = said_and_heard(pulse, stage, into, at, UTTERED);
        wav::presence(&said, &heard, AROUND).unwrap()
    };
    until((0..ATTEMPTS).map(|_| heard()), |share| *share > PRESENT)
}

/// PESQ-WB of speech, until it was heard as a whole: on a busy machine clients, server, player and recorder leave gaps,
/// and only the clients count theirs.
fn score(pulse: &PulseServer, stage: &Stage) -> f64 {
    let heard = || {
        let (said, heard) = said_and_heard(pulse, stage, "mic", "spk", SPOKEN);
        wav::pesq_wb(&said, &heard, AROUND).unwrap()
    };
    let tried = (0..ATTEMPTS).map(|_| heard()).inspect(|score| eprintln!("PESQ-WB {score:.2}"));
    until(tried, |score| *score >= WHOLE)
}

/// The first that will do, or the last.
fn until(mut tried: impl Iterator<Item = f64>, will_do: impl Fn(&f64) -> bool) -> f64 {
    let mut last = f64::NAN;
    tried.by_ref().inspect(|tried| last = *tried).find(will_do);
    last
}

#[test]
fn speech_from_a_microphone_is_heard_from_a_loudspeaker_and_mute_closes_the_microphone() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    for (mic, spk) in [
        (MIC, SPK),
        (NullSink { rate: 44_100, channels: 1, ..MIC }, NullSink { rate: 96_000, channels: 2, ..SPK }),
        (NullSink { rate: 96_000, channels: 2, ..MIC }, NullSink { rate: 44_100, channels: 1, ..SPK }),
        (NullSink { rate: 16_000, channels: 1, ..MIC }, NullSink { rate: 16_000, channels: 2, ..SPK }),
    ] {
        let loaded = [pulse.load(mic).unwrap(), pulse.load(spk).unwrap()];
        let mut meeting = Meeting::open(&[]);
        let mut talker = join(&pulse, "Bela", &meeting.link, &TALKS);
        // In the waiting room nobody could hear.
        knock_of(&meeting.host, "Bela");
        observe(Duration::from_millis(300));
        assert_eq!(pulse.readers("mic.monitor").unwrap(), 0, "the microphone is open in the waiting room");
        meeting.admit("Bela", &talker);
        let listener = join(&pulse, "Cleo", &meeting.link, &["--output", "device:spk"]);
        meeting.admit("Cleo", &listener);
        pulse.wait_readers("mic.monitor", 1, LIMIT).unwrap();
        hears_more(&listener, "Bela", 25, LIMIT);

        let score = score(&pulse, &stage);
        eprintln!("{mic:?} to {spk:?}: PESQ-WB {score:.2}");
        assert!(score >= WHOLE, "{mic:?} to {spk:?}: PESQ-WB {score}");

        talker.act("mute").unwrap();
        pulse.wait_readers("mic.monitor", 0, LIMIT).unwrap();
        hears_more(&listener, "Bela", 50, LIMIT);
        talker.act("unmute").unwrap();
        pulse.wait_readers("mic.monitor", 1, LIMIT).unwrap();
        let presence = presence(&pulse, &stage, "mic", "spk");
        assert!(presence > PRESENT, "after unmuting: {presence}");
        assert_eq!(talker.events_named("device"), Vec::<Value>::new());
        assert_eq!(listener.events_named("device"), Vec::<Value>::new());
        end(meeting.host, vec![talker, listener]);
        loaded.iter().for_each(|sink| pulse.unload(sink).unwrap());
    }
}

#[test]
fn who_speaks_while_muted_is_warned_if_the_microphone_may_stay_open_and_is_not_heard() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    let mic = pulse.load(MIC).unwrap();
    let mut meeting = Meeting::open(&[]);
    let args = ["--input", "device:mic.monitor", "--muted", "--warn-when-muted"];
    let talker = join(&pulse, "Bela", &meeting.link, &args);
    meeting.admit("Bela", &talker);
    let heard = stage.path("heard.wav");
    let listener = join(&pulse, "Cleo", &meeting.link, &["--output", heard.to_str().unwrap()]);
    meeting.admit("Cleo", &listener);
    pulse.wait_readers("mic.monitor", 1, LIMIT).unwrap();
    let file = stage.path("said.wav");
    wav::write(&file, &speech::clip(0, OVERHEARD).unwrap()).unwrap();
    pulse.play(&file, "mic").unwrap();
    talker.wait_event("muted_speaking", |_| true, LIMIT).unwrap();
    assert_eq!(talker.events_named("speaking"), Vec::<Value>::new());
    end(meeting.host, vec![talker, listener]);
    assert_eq!(wav::rms(&wav::read(&heard).unwrap().samples), 0.0);
    pulse.unload(&mic).unwrap();
}

/// Waits for the events of a device after a mark; gives when the last of them happened.
fn told(client: &JsonlClient, mark: Mark, direction: &str, events: &[(&str, &str)]) -> Instant {
    let (name, what) = events.last().unwrap();
    let is_last = |event: &Value| event["name"] == *name && event["what"] == *what;
    let last = client.wait_event_after(mark, "device", is_last, LIMIT).unwrap();
    let all = client.events_after(mark).into_iter().filter(|event| event["event"] == "device");
    let all: Vec<_> = all.map(|event| json!([event["direction"], event["name"], event["what"]])).collect();
    let wanted: Vec<_> = events.iter().map(|(name, what)| json!([direction, name, what])).collect();
    assert_eq!(all, wanted);
    at(client, &last)
}

/// Bela at one device, heard by Cleo at another, and what leaves Bela observed.
struct Call {
    relay: RelayProcess,
    host: JsonlClient,
    proxy: Proxy,
    talker: JsonlClient,
    listener: JsonlClient,
}

impl Call {
    fn open(pulse: &PulseServer) -> Self {
        let mut meeting = Meeting::open(&[]);
        let record = Config { record: Record::Sizes(100_000), ..Config::default() };
        let proxy = Proxy::start(meeting.relay.addr(), record).unwrap();
        let link = meeting.link_by_way_of(proxy.addr());
        let talker = join(pulse, "Bela", &link, &TALKS);
        meeting.admit("Bela", &talker);
        let listener = join(pulse, "Cleo", &meeting.link, &["--output", "device:spk"]);
        meeting.admit("Cleo", &listener);
        pulse.wait_readers("mic.monitor", 1, LIMIT).unwrap();
        hears_more(&listener, "Bela", 25, LIMIT);
        proxy.take_recorded();
        let Meeting { relay, host, .. } = meeting;
        Self { relay, host, proxy, talker, listener }
    }
}

#[test]
fn devices_pulled_out_in_mid_call_are_replaced_within_a_second_and_come_back() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    let (mic, spk) = (pulse.load(MIC).unwrap(), pulse.load(SPK).unwrap());
    let Call { relay: _relay, host, proxy, talker, listener } = Call::open(&pulse);
    let hears = |into: &str, at: &str| {
        let presence = presence(&pulse, &stage, into, at);
        eprintln!("{into} to {at}: {presence:.3} of the speech");
        assert!(presence > PRESENT, "{into} to {at}: {presence}");
    };

    let (mark, pulled) = (listener.mark(), Instant::now());
    pulse.unload(&spk).unwrap();
    let replaced = told(&listener, mark, "output", &[("spk", "lost"), (DEFAULT, "replaced")]);
    let took = replaced.saturating_duration_since(pulled);
    eprintln!("another loudspeaker after {took:?}");
    assert!(took < REPLACED_WITHIN, "{took:?}");
    hears("mic", DEFAULT);
    let mark = listener.mark();
    let spk = pulse.load(SPK).unwrap();
    told(&listener, mark, "output", &[("spk", "back")]);
    hears("mic", "spk");

    let (mark, pulled) = (talker.mark(), Instant::now());
    pulse.unload(&mic).unwrap();
    let replacement = format!("{DEFAULT}.monitor");
    let replaced = told(&talker, mark, "input", &[("mic.monitor", "lost"), (&replacement, "replaced")]);
    let took = replaced.saturating_duration_since(pulled);
    eprintln!("another microphone after {took:?}");
    assert!(took < REPLACED_WITHIN, "{took:?}");
    hears(DEFAULT, "spk");
    let mark = talker.mark();
    let mic = pulse.load(MIC).unwrap();
    told(&talker, mark, "input", &[("mic.monitor", "back")]);
    hears("mic", "spk");

    assert_rhythm(proxy.take_recorded());
    end(host, vec![talker, listener]);
    [mic, spk].iter().for_each(|sink| pulse.unload(sink).unwrap());
}

#[test]
fn a_sound_server_that_hangs_is_told_as_lost_devices_and_used_again_and_nobody_waits_for_it_for_ever() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    let (mic, spk) = (pulse.load(MIC).unwrap(), pulse.load(SPK).unwrap());
    let Call { relay: _relay, host, proxy, talker, listener } = Call::open(&pulse);

    let (talkers, listeners, hung) = (talker.mark(), listener.mark(), Instant::now());
    pulse.hang().unwrap();
    for (client, mark, direction, name) in
        [(&talker, talkers, "input", "mic.monitor"), (&listener, listeners, "output", "spk")]
    {
        let took = told(client, mark, direction, &[(name, "lost")]).saturating_duration_since(hung);
        eprintln!("{name} told as lost after {took:?}");
    }
    let mut command = Command::new(binary("conclave").unwrap());
    pulse.serve(command.arg("devices"));
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("no answer within"), "{error}");
    assert!(hung.elapsed() < LIMIT, "{:?}", hung.elapsed());
    hears_more(&listener, "Bela", 25, LIMIT);

    let (talkers, listeners) = (talker.mark(), listener.mark());
    pulse.resume().unwrap();
    for (client, mark, name) in [(&talker, talkers, "mic.monitor"), (&listener, listeners, "spk")] {
        client
            .wait_event_after(mark, "device", |event| event["name"] == name && event["what"] == "back", LIMIT)
            .unwrap();
    }
    let presence = presence(&pulse, &stage, "mic", "spk");
    assert!(presence > PRESENT, "{presence}");
    assert_rhythm(proxy.take_recorded());
    end(host, vec![talker, listener]);
    [mic, spk].iter().for_each(|sink| pulse.unload(sink).unwrap());
}

#[test]
fn what_a_microphone_leaves_out_that_comes_too_late_is_concealed_by_who_listens() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    let mic = pulse.load(MIC).unwrap();
    let mut meeting = Meeting::open(&[]);
    let talker = join(&pulse, "Bela", &meeting.link, &[&TALKS[..], &["--profile", "low-delay"]].concat());
    meeting.admit("Bela", &talker);
    let listener = meeting.guest("Cleo", &[]);
    pulse.wait_readers("mic.monitor", 1, LIMIT).unwrap();
    let concealed = |mark| {
        let stats = next_stats(&listener, mark);
        let of = |field: &str| crate::stage::talker(&stats, "Bela")[field].as_u64().unwrap();
        (of("concealed"), of("concealed").saturating_sub(of("lost") + of("late")))
    };
    let before = concealed(listener.mark());
    let file = stage.path("said.wav");
    wav::write(&file, &speech::clip(0, SPOKEN).unwrap()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| pulse.play(&file, "mic").unwrap());
        for _ in 0..STALLS {
            observe(Duration::from_millis(300));
            pulse.hang().unwrap();
            observe(STALL);
            pulse.resume().unwrap();
        }
    });
    let after = concealed(listener.mark());
    eprintln!("{STALLS} times {STALL:?} late: concealed in all, and of those came {before:?}, then {after:?}");
    // A stall leaves up to six frames out, and some fall into pauses.
    assert!(after.1 >= before.1 + u64::from(STALLS), "{before:?}, then {after:?}");
    end(meeting.host, vec![talker, listener]);
    pulse.unload(&mic).unwrap();
}

#[test]
fn without_any_device_a_client_waits_for_one_without_taking_more_and_more_of_machine_and_server() {
    let stage = Stage::alone();
    let pulse = server(&stage);
    let mut meeting = Meeting::open(&["--input", "tone"]);
    let listener = join(&pulse, "Cleo", &meeting.link, &["--output", "device"]);
    meeting.admit("Cleo", &listener);
    hears_more(&listener, "Hestia", 25, LIMIT);
    let held = || {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", listener.pid())).unwrap().count();
        (count("task"), count("fd"))
    };

    let before = held();
    pulse.unload_all().unwrap();
    listener.wait_event("device", |event| event["what"] == "lost", LIMIT).unwrap();
    // It looks for one four times a second.
    observe(Duration::from_secs(4));
    let after = held();
    eprintln!("threads and open files: {before:?}, without a device {after:?}");
    assert!(after.0 <= before.0 + 2 && after.1 <= before.1 + 4, "{before:?} {after:?}");

    let mark = listener.mark();
    pulse.load(NullSink { name: DEFAULT, ..SPK }).unwrap();
    told(&listener, mark, "output", &[(DEFAULT, "back")]);
    end(meeting.host, vec![listener]);
}

/// Fifty frames a second, whatever became of the devices.
fn assert_rhythm(observed: Vec<Observed>) {
    // The lengths of packet numbers and acknowledgements differ.
    let is_frame = |datagram: &&Observed| datagram.direction == Direction::Up && (125..250).contains(&datagram.len);
    let times: Vec<Duration> = observed.iter().filter(is_frame).map(|datagram| datagram.at).collect();
    let (first, last) = (times[0], *times.last().unwrap());
    let rate = (times.len() - 1) as f64 / (last - first).as_secs_f64();
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    eprintln!("{} frames in {:?}: {rate:.2} a second, at most {gap:?} apart", times.len(), last - first);
    assert!((49.0..51.5).contains(&rate), "{rate} frames a second");
    assert!(gap < Duration::from_millis(200), "{gap:?} without a frame");
}
