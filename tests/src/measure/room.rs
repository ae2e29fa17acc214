//! The room: a null sink of two sides, with a microphone on its left and a loudspeaker on its right, and two clients in a
//! meeting who use them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::probe::RATE;
use crate::process::JsonlClient;
use crate::pulse::{PulseServer, Recording};
use crate::wav::Sound;

/// The sink.
const ROOM: &str = "room";
/// The microphone's name.
pub const MIC: &str = "mic";
/// The loudspeaker's name.
pub const SPK: &str = "spk";
/// For everything that has no bound of its own.
const LIMIT: Duration = Duration::from_secs(30);

/// A room, and the server that it is in.
pub struct Room {
    server: PulseServer,
    folder: PathBuf,
}

impl Room {
    /// A room whose files are in `folder`, which must be there.
    ///
    /// # Errors
    /// When PulseAudio is not installed or does not start.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let server = PulseServer::start(folder)?;
        let name = format!("sink_name={ROOM}");
        server.load_module(&["module-null-sink", &name, "rate=48000", "channels=2", "norewinds=1"])?;
        let side = |side: &str| format!("master_channel_map={side}");
        let rest = ["channels=1", "channel_map=mono", "remix=no"];
        let mic = [format!("source_name={MIC}"), format!("master={ROOM}.monitor"), side("front-left")];
        let spk = [format!("sink_name={SPK}"), format!("master={ROOM}"), side("front-right")];
        for (module, own) in [("module-remap-source", mic), ("module-remap-sink", spk)] {
            let arguments: Vec<&str> = [module].into_iter().chain(own.iter().map(String::as_str)).chain(rest).collect();
            server.load_module(&arguments)?;
        }
        Ok(Self { server, folder: folder.to_owned() })
    }

    /// Lets a program use this room's server and no other.
    pub fn serve(&self, command: &mut Command) {
        self.server.serve(command);
    }

    /// Waits until somebody records from the microphone.
    ///
    /// # Errors
    /// When nobody does for long.
    pub fn wait_loop(&self) -> anyhow::Result<()> {
        self.server.wait_readers(MIC, 1, LIMIT)
    }

    /// Plays a sound on the left, waits until it is over, and gives what both sides were meanwhile, and a little longer.
    ///
    /// # Errors
    /// When the players or recorders fail.
    pub fn play(&self, sound: &Sound) -> anyhow::Result<Sides> {
        ensure!(sound.rate == RATE, "the room is at {RATE} Hz");
        let file = self.folder.join("left.wav");
        write_left(&file, sound)?;
        let recording = self.server.record_sides(&format!("{ROOM}.monitor"))?;
        // The recorder takes its time to start.
        std::thread::sleep(AROUND);
        self.server.play(&file, ROOM)?;
        std::thread::sleep(AROUND);
        std::fs::remove_file(&file)?;
        Sides::of(recording)
    }
}

/// What was recorded of a room.
pub struct Sides {
    /// What was said.
    pub left: Vec<f32>,
    /// What was heard.
    pub right: Vec<f32>,
}

impl Sides {
    fn of(recording: Recording) -> anyhow::Result<Self> {
        let both = recording.stop()?.samples;
        let side = |first: usize| both.iter().skip(first).step_by(2).copied().collect();
        Ok(Self { left: side(0), right: side(1) })
    }

    /// One side as a sound.
    pub fn sound(samples: Vec<f32>) -> Sound {
        Sound { rate: RATE, samples }
    }
}

/// Two clients in a meeting over a relay inside one of them: one says what the microphone hears, the other one plays
/// what it hears.
pub struct Call {
    /// Hears; the host.
    ear: JsonlClient,
    /// Speaks; a guest.
    mouth: JsonlClient,
}

impl Call {
    /// Starts `client`, the program `conclave`, twice, both times with `args` besides, and as the host with `host` also.
    ///
    /// # Errors
    /// When they do not come together.
    pub fn open(room: &Room, client: &Path, args: &[String], host: &[String]) -> anyhow::Result<Self> {
        let start = |name: &str, own: &[&str]| {
            let mut command = Command::new(client);
            command.args(own).args(args).args(["--name", name, "--jsonl"]);
            room.serve(&mut command);
            JsonlClient::start_command(name, command)
        };
        let output = format!("device:{SPK}");
        let hosts = ["host", "--admit", "all", "--output", &output].into_iter().chain(host.iter().map(String::as_str));
        let ear = start("Ear", &hosts.collect::<Vec<_>>())?;
        let link = ear.wait_event("link", |_| true, LIMIT)?;
        let link = link["link"].as_str().context("the host printed no link")?;
        let input = format!("device:{MIC}");
        let mouth = start("Mouth", &["join", link, "--input", &input])?;
        room.server.wait_readers(MIC, 1, LIMIT)?;
        let call = Self { ear, mouth };
        call.ear.wait_event("stats", |stats| played(stats) >= SETTLED, LIMIT)?;
        Ok(call)
    }

    /// Gaps of both clients' devices so far.
    ///
    /// # Errors
    /// When a client says nothing any more.
    pub fn underruns(&self) -> anyhow::Result<u64> {
        let gaps = |client: &JsonlClient, direction: &str| {
            let stats = client.wait_event_after(client.mark(), "stats", |_| true, LIMIT)?;
            stats["devices"][direction]["gaps"].as_u64().context("a client does not count the gaps of its device")
        };
        Ok(gaps(&self.mouth, "input")? + gaps(&self.ear, "output")?)
    }

    /// Whether both clients' threads go before the rest of the machine.
    pub fn is_realtime(&self) -> bool {
        let is_granted =
            |client: &JsonlClient| client.events_named("realtime").last().is_some_and(|event| event["granted"] == true);
        is_granted(&self.ear) && is_granted(&self.mouth)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the clients do not end.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.ear.act("end")?;
        self.mouth.wait_exit(LIMIT)?;
        self.ear.wait_exit(LIMIT)?;
        Ok(())
    }
}

/// Frames that the listener has played of the talker.
fn played(stats: &Value) -> u64 {
    stats["talkers"]
        .as_array()
        .and_then(|talkers| talkers.first())
        .and_then(|talker| talker["played"].as_u64())
        .unwrap_or(0)
}

/// A WAV file with silence on the right.
fn write_left(path: &Path, sound: &Sound) -> anyhow::Result<()> {
    let spec =
        hound::WavSpec { channels: 2, sample_rate: RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec)?;
    for sample in sound.to_i16() {
        writer.write_sample(sample)?;
        writer.write_sample(0_i16)?;
    }
    Ok(writer.finalize()?)
}

/// What is recorded before and after a sound: more than a recorder takes to start, and than any delay.
const AROUND: Duration = Duration::from_millis(700);
/// Frames after which a playout has settled: 3 s.
const SETTLED: u64 = 150;
