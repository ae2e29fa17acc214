//! Measures mouth-to-ear delay and quality through sound devices (docs/measuring.md).

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};
use conclave::audio::format::FrameDuration;
use conclave::audio::profile::Profile;
use conclave_tests::measure::delay::{self, Delays};
use conclave_tests::measure::probe::Probe;
use conclave_tests::measure::room::{Call, Room, Sides};
use conclave_tests::measure::{Found, Measured, Spread, children, floor};
use conclave_tests::{speech, wav};

/// Measures how long sound takes from one person's mouth to another one's ear, and what it sounds like then.
///
/// Starts a sound server of its own with null sinks for devices, and two clients in a meeting over a relay on this machine.
/// One plays what the other one hears. Both are in one recording, so no clock is trusted. Build the client first
/// (`cargo build --release`); it is looked for beside this program.
#[derive(Parser)]
#[command(name = "conclave-measure", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// How long the delay is watched
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=3_600))]
    seconds: u32,
    /// Speech that is scored
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=30))]
    speech: u32,
    /// Profile that both clients use; without it their own choice
    #[arg(long, value_enum, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// Duration of the meeting's frames; without it the profile decides
    #[arg(long, value_name = "10|20", value_parser = frame_ms)]
    frame_ms: Option<u8>,
    /// Leave echo cancellation, noise suppression and automatic gain on, as for a microphone; they take 15 ms, and may take
    /// a probe for noise
    #[arg(long)]
    processing: bool,
    /// The client's program
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
    /// Write the result as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Further options for both clients
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

const EXAMPLES: &str = "  conclave-measure --seconds 600 --json default.json
  conclave-measure --profile low-delay
  conclave-measure --processing
  conclave-measure -- --reconnect 0";

#[derive(Subcommand)]
enum Verb {
    /// Play what the microphone records, by cpal alone, until standard input ends (started by this program itself)
    #[command(hide = true)]
    Loop {
        /// Length of a buffer.
        frames: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Some(Verb::Loop { frames }) => loop_back(frames),
        None => measure(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error nobody could be told.
            let _ = writeln!(std::io::stderr(), "conclave-measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn frame_ms(text: &str) -> Result<u8, &'static str> {
    let frame = text.parse().ok().and_then(FrameDuration::from_millis);
    frame.map(FrameDuration::millis).ok_or("10 or 20")
}

fn measure(arguments: Arguments) -> anyhow::Result<()> {
    let client = client(&arguments)?;
    let own = |option: &&String| ["--profile", "--frame-ms"].iter().any(|name| option.starts_with(name));
    if let Some(option) = arguments.options.iter().find(own) {
        bail!("{option} goes before the --, else the result would name what was not measured");
    }
    let json = arguments.json.as_deref().map(ResultFile::open).transpose()?;
    let folder = tempfile::tempdir()?;
    let room = folder.path().to_owned();
    let measured = children::guard(move || {
        let room = Room::open(&room)?;
        let floor = floor_of(&room)?;
        call(&room, &client, &arguments, floor)
    })?;
    show(&measured)?;
    json.map_or(Ok(()), |json| json.write(&measured))
}

/// The file of the result. One that was not there before goes away again without a result.
struct ResultFile {
    path: PathBuf,
    is_new: bool,
}

impl ResultFile {
    /// Sees whether it can be written: not only after an hour.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let is_new = !path.exists();
        let open = OpenOptions::new().append(true).create(true).open(path);
        open.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), is_new })
    }

    fn write(mut self, measured: &Measured) -> anyhow::Result<()> {
        self.is_new = false;
        let text = serde_json::to_string_pretty(measured)? + "\n";
        std::fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        if self.is_new {
            // It was made here, and holds nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn client(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = arguments.client.clone().unwrap_or_else(|| own.with_file_name("conclave"));
    ensure!(path.is_file(), "there is no client {}; build it, or give --client", path.display());
    Ok(path)
}

fn call(room: &Room, client: &Path, arguments: &Arguments, floor: Option<f64>) -> anyhow::Result<Measured> {
    let switch = if arguments.processing { "on" } else { "off" };
    let processing = ["--echo-cancellation", "--noise-suppression", "--auto-gain"];
    let mut options: Vec<String> = processing.into_iter().flat_map(|name| [name, switch]).map(str::to_owned).collect();
    options.extend_from_slice(&arguments.options);
    let profile = arguments.profile.unwrap_or_default();
    if arguments.profile.is_some() {
        options.extend(["--profile".to_owned(), name_of(profile)]);
    }
    let host = arguments.frame_ms.map_or_else(Vec::new, |ms| vec!["--frame-ms".to_owned(), ms.to_string()]);
    let call = Call::open(room, client, &options, &host)?;
    let before = call.underruns()?;
    let Delays { ms, played } = probe(room, arguments.seconds)?;
    let said = speech::clip(0, arguments.speech.into())?;
    let Sides { right, .. } = room.play(&said)?;
    let underruns = call.underruns()? - before;
    let realtime = call.is_realtime();
    call.end()?;
    let delay_ms = Spread::of(&ms).context("no probe was heard: see whether the client's devices work")?;
    let heard = Sides::sound(right);
    Ok(Measured {
        profile: name_of(profile),
        frame_ms: arguments.frame_ms.unwrap_or_else(|| profile.frame_duration().millis()),
        delay_ms,
        probes: Found { found: ms.len(), played },
        drift_ms: drift(&ms),
        device_floor_ms: floor,
        pesq_wb: wav::pesq_wb(&said, &heard, LONGEST_START)?,
        underruns,
        processing: arguments.processing,
        realtime,
    })
}

fn name_of(profile: Profile) -> String {
    profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn probe(room: &Room, seconds: u32) -> anyhow::Result<Delays> {
    let probe = Probe::new(seconds.into(), SEED);
    let sides = room.play(&Sides::sound(probe.samples.clone()))?;
    delay::delays(&probe, &sides.left, &sides.right)
}

/// By how much the median of the last tenth is above that of the first.
fn drift(ms: &[f64]) -> f64 {
    let tenth = ms.len().div_ceil(10);
    let median = |part: &[f64]| Spread::of(part).map_or(0.0, |spread| spread.median);
    median(&ms[ms.len() - tenth..]) - median(&ms[..tenth])
}

/// The delay of devices alone; `None` when cpal's streams end before it is known, every time.
fn floor_of(room: &Room) -> anyhow::Result<Option<f64>> {
    for _ in 0..FLOOR_TRIES {
        match floor_once(room) {
            Ok(floor) => return Ok(Some(floor)),
            Err(error) if children::are_ending() => return Err(error),
            Err(error) => writeln!(std::io::stderr(), "conclave-measure: the devices alone: {error:#}")?,
        }
    }
    Ok(None)
}

fn floor_once(room: &Room) -> anyhow::Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["loop", &FLOOR_FRAMES.to_string()]).stdin(Stdio::piped());
    room.serve(&mut command);
    let mut child = Looping(command.spawn()?);
    room.wait_loop()?;
    let delays = probe(room, FLOOR_SECONDS)?;
    ensure!(child.0.try_wait()?.is_none(), "a stream of cpal's has ended");
    drop(child);
    ensure!(2 * delays.ms.len() >= delays.played, "only {} of {} probes came out", delays.ms.len(), delays.played);
    Ok(Spread::of(&delays.ms).context("nothing came out")?.median)
}

/// Ends with what holds it.
struct Looping(Child);

impl Drop for Looping {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn loop_back(frames: u32) -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever started this has gone.
            let _ = std::io::stdin().read(&mut [0]);
            stop.store(true, Ordering::Relaxed);
        });
        floor::run(frames, &stop)
    })
}

fn show(measured: &Measured) -> anyhow::Result<()> {
    let Measured { profile, frame_ms, delay_ms, probes, drift_ms, pesq_wb, underruns, .. } = measured;
    let yes_or_no = |is_so| if is_so { "yes" } else { "no" }.to_owned();
    let floor = |what: &dyn Fn(f64) -> String| measured.device_floor_ms.map_or_else(|| "not known".to_owned(), what);
    let rows = [
        ("profile", profile.clone()),
        ("frames", format!("{frame_ms} ms")),
        ("mouth to ear, median", format!("{:.1} ms", delay_ms.median)),
        ("  standard deviation", format!("{:.2} ms", delay_ms.sd)),
        ("  99 %", format!("{:.1} ms", delay_ms.p99)),
        ("  drift", format!("{drift_ms:+.2} ms")),
        ("devices alone", floor(&|ms| format!("{ms:.1} ms (cpal, {FLOOR_FRAMES} frames)"))),
        ("  difference", floor(&|ms| format!("{:.1} ms", delay_ms.median - ms))),
        ("probes found", format!("{} of {}", probes.found, probes.played)),
        ("PESQ-WB", format!("{pesq_wb:.2}")),
        ("gaps of devices", underruns.to_string()),
        ("processing", yes_or_no(measured.processing)),
        ("real-time priority", yes_or_no(measured.realtime)),
    ];
    let mut out = std::io::stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:<24}{value}")?;
    }
    Ok(())
}

/// The probes are the same in every run.
const SEED: u64 = 6;
/// Length of a buffer of the devices alone, as in research that others can compare with: 10 ms.
const FLOOR_FRAMES: u32 = 480;
/// Times that the devices alone are tried: on a busy machine a server may end cpal's streams.
const FLOOR_TRIES: u32 = 3;
/// For how long the devices alone are watched.
const FLOOR_SECONDS: u32 = 15;
/// Until speech is heard after its recording has begun, in seconds.
const LONGEST_START: f64 = 2.0;
