//! A PulseAudio server of a test's own, in a private directory, with null sinks for devices.
//!
//! What is played into a null sink is recorded from its monitor, so a sink is a microphone (`NAME.monitor`) and a
//! loudspeaker (`NAME`) at once, and unloading it is pulling it out. The user's own sound server is left alone.

use anyhow::{Context as _, bail, ensure};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::signal;
use crate::wav::Sound;

/// The device that the system would take by itself.
pub const DEFAULT: &str = "base";

/// A running server with one null sink, [`DEFAULT`]. Ends when it is dropped.
pub struct PulseServer {
    child: Child,
    folder: PathBuf,
}

/// A null sink.
#[derive(Clone, Copy, Debug)]
pub struct NullSink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Samples per second.
    pub rate: u32,
    /// Channels.
    pub channels: u16,
}

/// A null sink that is loaded.
#[derive(Debug)]
pub struct Loaded(String);

impl PulseServer {
    /// Starts a server whose files are in `folder`, which must be there.
    ///
    /// # Errors
    /// When PulseAudio is not installed, or does not answer within [`START`].
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        // A runtime directory must belong to nobody else.
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let log = File::create(folder.join("pulseaudio.log"))?;
        let mut command = Command::new("pulseaudio");
        // Priority as on a desktop, where the system grants it: a server that waits for its turn leaves gaps of its own.
        let options = "-n --daemonize=no --use-pid-file=no --exit-idle-time=-1 --disable-shm=yes --realtime=yes \
                       --high-priority=yes --log-target=stderr";
        command.args(options.split_whitespace());
        let socket = folder.join("native");
        command.arg("-L").arg(format!("module-native-protocol-unix socket={} auth-anonymous=1", socket.display()));
        command.arg("-L").arg(format!("module-null-sink sink_name={DEFAULT} rate=48000 {SHORT_BLOCKS}"));
        private(&mut command, folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("cannot start pulseaudio; run scripts/setup")?;
        let mut server = Self { child, folder: folder.to_owned() };
        let deadline = Instant::now() + START;
        while server.pactl(&["info"]).is_err() {
            let ended = server.child.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                bail!("pulseaudio does not answer: {}", fs::read_to_string(folder.join("pulseaudio.log"))?);
            }
            thread::sleep(POLL);
        }
        Ok(server)
    }

    /// Lets a program use this server and no other.
    pub fn serve(&self, command: &mut Command) {
        private(command, &self.folder);
        command.env("PULSE_SERVER", format!("unix:{}", self.folder.join("native").display()));
    }

    /// Plugs a device in.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn load(&self, sink: NullSink<'_>) -> anyhow::Result<Loaded> {
        let NullSink { name, rate, channels } = sink;
        let name = format!("sink_name={name}");
        let (rate, channels) = (format!("rate={rate}"), format!("channels={channels}"));
        let module = self.pactl(&["load-module", "module-null-sink", &name, &rate, &channels, SHORT_BLOCKS])?;
        Ok(Loaded(module.trim().to_owned()))
    }

    /// Loads a module of the server, with its arguments.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn load_module(&self, module: &[&str]) -> anyhow::Result<()> {
        let arguments: Vec<&str> = ["load-module"].into_iter().chain(module.iter().copied()).collect();
        self.pactl(&arguments).map(drop)
    }

    /// Pulls a device out.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn unload(&self, sink: &Loaded) -> anyhow::Result<()> {
        self.pactl(&["unload-module", &sink.0]).map(drop)
    }

    /// Stops the server as one that hangs, until [`resume`](Self::resume): it takes connections, and answers nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn hang(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "CONT")
    }

    /// Pulls all devices out, [`DEFAULT`] too.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn unload_all(&self) -> anyhow::Result<()> {
        self.pactl(&["unload-module", "module-null-sink"]).map(drop)
    }

    /// How many streams record from a source.
    ///
    /// # Errors
    /// When the server does not say, or has no such source.
    pub fn readers(&self, source: &str) -> anyhow::Result<usize> {
        let sources = self.pactl(&["list", "short", "sources"])?;
        let index =
            sources.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|row| row.get(1) == Some(&source));
        let index = index.with_context(|| format!("no source {source}: {sources}"))?[0].to_owned();
        let outputs = self.pactl(&["list", "short", "source-outputs"])?;
        Ok(outputs.lines().filter(|line| line.split('\t').nth(1) == Some(&index)).count())
    }

    /// Waits until so many streams record from a source.
    ///
    /// # Errors
    /// When there are not within `limit`.
    pub fn wait_readers(&self, source: &str, count: usize, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while self.readers(source)? != count {
            ensure!(Instant::now() < deadline, "{} streams record from {source}, not {count}", self.readers(source)?);
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Plays a WAV file into a sink, and waits until it is over.
    ///
    /// # Errors
    /// When the player fails.
    pub fn play(&self, file: &Path, sink: &str) -> anyhow::Result<()> {
        let mut command = Command::new("paplay");
        command.arg(format!("--device={sink}")).arg("--latency-msec=1000").arg(file);
        self.serve(&mut command);
        let output = command.output().context("paplay")?;
        ensure!(output.status.success(), "paplay: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Records from a source, 48 kHz mono, until [`Recording::stop`].
    ///
    /// # Errors
    /// When the recorder cannot be started.
    pub fn record(&self, source: &str) -> anyhow::Result<Recording> {
        self.record_channels(source, 1)
    }

    /// Records both sides of a source, 48 kHz, one sample of each in turn.
    ///
    /// # Errors
    /// When the recorder cannot be started.
    pub fn record_sides(&self, source: &str) -> anyhow::Result<Recording> {
        self.record_channels(source, 2)
    }

    fn record_channels(&self, source: &str, channels: u16) -> anyhow::Result<Recording> {
        let file = self.folder.join(format!("{source}.raw"));
        let mut command = Command::new("parec");
        command.arg(format!("--device={source}")).args(["--format=s16le", "--rate=48000", "--raw"]);
        command.arg(format!("--channels={channels}"));
        command.arg("--latency-msec=50").stdout(File::create(&file)?).stderr(Stdio::null());
        self.serve(&mut command);
        let child = command.spawn().context("parec")?;
        Ok(Recording { child, file })
    }

    fn pactl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("pactl");
        command.args(arguments);
        self.serve(&mut command);
        let output = command.output().context("pactl; run scripts/setup")?;
        ensure!(output.status.success(), "pactl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for PulseServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A recording that goes on.
pub struct Recording {
    child: Child,
    file: PathBuf,
}

impl Recording {
    /// Ends the recording and gives it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stop(mut self) -> anyhow::Result<Sound> {
        self.child.kill()?;
        self.child.wait()?;
        let bytes = fs::read(&self.file)?;
        let samples = bytes.chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect();
        Ok(Sound { rate: 48_000, samples })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // It has ended where `stop` was called.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Neither the user's server nor the user's settings.
fn private(command: &mut Command, folder: &Path) {
    command.env("HOME", folder).env("XDG_RUNTIME_DIR", folder).env("PULSE_RUNTIME_PATH", folder);
    command.env_remove("PULSE_SERVER").env_remove("DISPLAY").env_remove("DBUS_SESSION_BUS_ADDRESS");
}

/// Blocks of at most 50 ms. An idle null sink else renders two seconds at a time, and whoever comes meanwhile gets
/// nothing until they are over; no device of metal does that.
const SHORT_BLOCKS: &str = "norewinds=1";
/// From start to answer; far beyond what it takes.
pub const START: Duration = Duration::from_secs(10);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
