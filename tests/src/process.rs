//! Real processes under test: `conclave` driven by `--jsonl` (docs/automation.md), and `conclave-relay`.
//!
//! Every process is killed when its handle is dropped, so that a failing test leaves nothing behind. Waiting is
//! always for an event or an exit with a limit, never for a time to pass.

use aho_corasick::AhoCorasick;
use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The path of a program of this workspace: `conclave`, `conclave-relay` or `conclave-moderate`.
///
/// # Errors
/// When it has not been built beside the running test.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("path of the running test")?;
    // Cargo puts tests into TARGET/PROFILE/deps and programs into TARGET/PROFILE.
    let profile = test.parent().and_then(|deps| deps.parent()).context("the test is not in a target directory")?;
    let path = profile.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(path.is_file(), "{name} is not built; run `cargo build --workspace --bins --tests` (scripts/test does)");
    Ok(path)
}

/// A client that reports events as lines of JSON and takes commands likewise.
pub struct JsonlClient {
    running: Running,
    stdin: Option<ChildStdin>,
}

impl JsonlClient {
    /// Starts `conclave` with these arguments and `--jsonl`. `label` names it in error texts.
    ///
    /// # Errors
    /// When the program is not built or cannot be started.
    pub fn start<A: AsRef<OsStr>>(label: &str, args: impl IntoIterator<Item = A>) -> anyhow::Result<Self> {
        let mut command = Command::new(binary("conclave")?);
        command.args(args).arg("--jsonl");
        Self::start_command(label, command)
    }

    /// Starts a command that was prepared elsewhere, with its own environment for example.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_command(label: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped());
        let mut running = Running::start(label, command)?;
        let stdin = running.child.stdin.take();
        Ok(Self { running, stdin })
    }

    /// Sends one command, for example `json!({"do": "admit", "who": 1})`.
    ///
    /// # Errors
    /// When the process no longer reads.
    pub fn send(&mut self, command: &Value) -> anyhow::Result<()> {
        self.send_line(&command.to_string())
    }

    /// Sends one line as it is: for garbage.
    ///
    /// # Errors
    /// When the process no longer reads.
    pub fn send_line(&mut self, line: &str) -> anyhow::Result<()> {
        let label = &self.running.label;
        let stdin = self.stdin.as_mut().with_context(|| format!("{label}: stdin is closed"))?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).with_context(|| format!("{label}: cannot send {line}"))
    }

    /// Sends a command without arguments: `leave`, `mute`, `admit_all` and so on.
    ///
    /// # Errors
    /// When the process no longer reads.
    pub fn act(&mut self, name: &str) -> anyhow::Result<()> {
        self.send(&json!({ "do": name }))
    }

    /// Sends bytes as they are, without a line's end: for garbage that is no text.
    ///
    /// # Errors
    /// When the process no longer reads.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let label = &self.running.label;
        let stdin = self.stdin.as_mut().with_context(|| format!("{label}: stdin is closed"))?;
        stdin.write_all(bytes).and_then(|()| stdin.flush()).with_context(|| format!("{label}: cannot send bytes"))
    }

    /// Closes the client's standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The first event of this name, past ones included, for which `wanted` holds.
    ///
    /// # Errors
    /// When there is none within `limit`, or the process ended without one.
    pub fn wait_event(&self, name: &str, wanted: impl Fn(&Value) -> bool, limit: Duration) -> anyhow::Result<Value> {
        self.wait_event_after(Mark(0), name, wanted, limit)
    }

    /// As [`wait_event`](Self::wait_event), but only events after `mark` count.
    ///
    /// # Errors
    /// As [`wait_event`](Self::wait_event).
    pub fn wait_event_after(
        &self,
        mark: Mark,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
        limit: Duration,
    ) -> anyhow::Result<Value> {
        self.running
            .wait_line(mark.0, limit, |event| event["event"] == name && wanted(event))
            .with_context(|| format!("{}: no event `{name}` as wanted", self.running.label))
    }

    /// Where the events stand now.
    pub fn mark(&self) -> Mark {
        Mark(lock(&self.running.log.state).lines.len())
    }

    /// When the client's `t_ms` was 0, by this process's clock: never before it was, and after it by no more than
    /// the quickest of its lines took to arrive. So `zero + t_ms` is the latest at which an event can have happened.
    ///
    /// # Errors
    /// When no event has come yet.
    pub fn zero(&self) -> anyhow::Result<Instant> {
        lock(&self.running.log.state).zero.with_context(|| format!("{}: no event has come yet", self.running.label))
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.running.log.state).lines.clone()
    }

    /// All events after `mark` so far.
    pub fn events_after(&self, mark: Mark) -> Vec<Value> {
        lock(&self.running.log.state).lines.split_at(mark.0).1.to_vec()
    }

    /// Events of one name so far.
    pub fn events_named(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// Lines on stdout that were no JSON object: always a fault of the client.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.running.log.state).faults.clone()
    }

    /// The process's exit status, as a shell would show it; 128 + N when signal N ended it.
    ///
    /// # Errors
    /// When it runs longer than `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> anyhow::Result<i32> {
        self.running.wait_exit(limit)
    }

    /// What it wrote to stderr, the last [`STDERR_KEPT`] bytes.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> anyhow::Result<()> {
        signal(self.pid(), "TERM")
    }

    /// Stops it with SIGSTOP, as a suspended machine would, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn pause(&self) -> anyhow::Result<()> {
        signal(self.pid(), "STOP")
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn resume(&self) -> anyhow::Result<()> {
        signal(self.pid(), "CONT")
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        self.running.kill();
    }
}

/// A place in a client's sequence of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

/// A relay that listens.
pub struct RelayProcess {
    running: Running,
    addr: SocketAddr,
    pin: Option<String>,
    region: Option<String>,
}

impl RelayProcess {
    /// Starts `conclave-relay serve` on a free port of 127.0.0.1 and waits until it listens. Its key is self-signed
    /// unless the arguments name an identity.
    ///
    /// # Errors
    /// When it is not built, ends, or does not say within [`RELAY_START`] that it listens.
    pub fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary("conclave-relay")?);
        command.arg("serve").args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !args.iter().any(|arg| matches!(*arg, "--self-signed" | "--cert" | "--config")) {
            command.arg("--self-signed");
        }
        Self::start_command(command)
    }

    /// Starts a relay from a command that was prepared elsewhere, and waits until it listens.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_command(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null());
        let running = Running::start("relay", command)?;
        let line = running
            .wait_line(0, RELAY_START, |line| line["event"] == "listening")
            .context("the relay did not say that it listens")?;
        let text = |field: &str| line[field].as_str().map(str::to_owned);
        let addr = text("addr").context("`listening` has no `addr`")?.parse().context("`addr` of `listening`")?;
        Ok(Self { running, addr, pin: text("pin"), region: text("region") })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The pin of its self-signed key; none with a certificate.
    pub fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// The region that it says it is in.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// What it logged, the last [`STDERR_KEPT`] bytes.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Lines on stdout, which should be the one that says it listens.
    pub fn stdout_lines(&self) -> usize {
        let state = lock(&self.running.log.state);
        state.lines.len() + state.faults.len()
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Sends SIGTERM and returns the exit status and how long it took to end.
    ///
    /// # Errors
    /// When it runs longer than `limit`.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<(i32, Duration)> {
        let start = Instant::now();
        signal(self.pid(), "TERM")?;
        Ok((self.running.wait_exit(limit)?, start.elapsed()))
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        self.running.kill();
    }
}

/// Resident memory of a process, in bytes (Linux).
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS")?;
    Ok(kibibytes * 1024)
}

/// Processor time that a process has used so far, its kernel time included (Linux).
///
/// # Errors
/// When the process is gone.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name before the parenthesis may hold anything; utime and stime are fields 14 and 15 (proc(5)).
    let (_, fields) = stat.rsplit_once(')').context("stat: name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Processor time that all processes of the machine, and its hypervisor for others (steal), have used so far; not that of
/// interrupts, which is nobody's (Linux, proc_stat(5)).
///
/// # Errors
/// When the kernel does not say.
pub fn machine_time() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, _irq, _softirq, steal, ..] = fields[..] else {
        anyhow::bail!("/proc/stat: {} fields", fields.len())
    };
    Ok(Duration::from_millis((user + nice + system + steal) * 1000 / TICKS_PER_SECOND))
}

/// Which of `needles` are anywhere in the writable memory of a process (Linux; a child of this one, or as root).
///
/// # Errors
/// When its memory may not be read.
pub fn memory_holds(pid: u32, needles: &[&[u8]]) -> anyhow::Result<Vec<bool>> {
    // All at once: one after the other takes so long that what a process holds now is gone before its place is read.
    let present = needles.iter().enumerate().filter(|(_, needle)| !needle.is_empty());
    let (places, patterns): (Vec<usize>, Vec<&&[u8]>) = present.unzip();
    let search = AhoCorasick::new(patterns).context("what is looked for")?;
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or(0).max(1);
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).with_context(|| format!("memory of process {pid}"))?;
    let mut found = vec![false; needles.len()];
    for (start, end) in writable_regions(pid)? {
        let mut window = Vec::new();
        let mut at = start;
        while at < end {
            let wanted = (end - at).min(MEMORY_CHUNK);
            let kept = window.len().min(longest - 1);
            window.drain(..window.len() - kept);
            // A region can vanish between the list and here; that's no secret left behind.
            if memory.seek(SeekFrom::Start(at)).is_err() {
                break;
            }
            if !matches!((&mut memory).take(wanted).read_to_end(&mut window), Ok(read) if read > 0) {
                break;
            }
            for hit in search.find_overlapping_iter(&window) {
                found[places[hit.pattern().as_usize()]] = true;
            }
            at += wanted;
        }
    }
    Ok(found)
}

/// Whether bytes hold other bytes; nothing holds an empty needle.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

fn writable_regions(pid: u32) -> anyhow::Result<Vec<(u64, u64)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("maps of process {pid}"))?;
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else {
            continue;
        };
        if rights.starts_with("rw") {
            let (start, end) = range.split_once('-').context("maps: range")?;
            regions.push((u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?));
        }
    }
    Ok(regions)
}

/// Sends a signal by the shell's own `kill`, which needs neither unsafe code nor a package.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).status().context("kill")?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}

/// A process with its output read in the background; killed when dropped.
struct Running {
    label: String,
    child: Child,
    log: Arc<Log>,
}

impl Running {
    fn start(label: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{label}: cannot start {command:?}"))?;
        let log = Arc::new(Log::default());
        if let Some(stdout) = child.stdout.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || log.read_stdout(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || log.read_stderr(stderr));
        }
        Ok(Self { label: label.to_owned(), child, log })
    }

    fn wait_line(&self, from: usize, limit: Duration, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + limit;
        let mut state = lock(&self.log.state);
        let mut next = from;
        loop {
            if let Some(line) = state.lines.iter().skip(next).find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            next = next.max(state.lines.len());
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let why = if state.closed { "its output ended".to_owned() } else { format!("{limit:?} passed") };
                bail!("{why}; {}", state.summary());
            }
            state = self.log.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_exit(&mut self, limit: Duration) -> anyhow::Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                self.wait_closed(deadline);
                return Ok(shell_status(status));
            }
            if Instant::now() >= deadline {
                let summary = lock(&self.log.state).summary();
                return Err(anyhow!("{}: still running after {limit:?}; {summary}", self.label));
            }
            thread::sleep(EXIT_POLL);
        }
    }

    /// Lets the readers take the last lines of a process that has ended.
    fn wait_closed(&self, deadline: Instant) {
        let mut state = lock(&self.log.state);
        while !state.closed && Instant::now() < deadline {
            state = self.log.changed.wait_timeout(state, EXIT_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&lock(&self.log.state).stderr).into_owned()
    }

    fn kill(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(signal) = status.signal() {
            return 128 + signal;
        }
    }
    status.code().unwrap_or(-1)
}

/// What a process has written so far.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<Value>,
    faults: Vec<String>,
    stderr: Vec<u8>,
    /// See [`JsonlClient::zero`].
    zero: Option<Instant>,
    /// Standard output has ended, so no line will follow.
    closed: bool,
}

impl Log {
    fn read_stdout(&self, stdout: impl Read) {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { break };
            let arrived = Instant::now();
            let line = String::from_utf8_lossy(&line);
            let mut state = lock(&self.state);
            match serde_json::from_str::<Value>(&line) {
                Ok(value) if value.is_object() => {
                    let age = value["t_ms"].as_u64().map(Duration::from_millis);
                    let zero = age.and_then(|age| arrived.checked_sub(age));
                    state.zero = state.zero.into_iter().chain(zero).min();
                    state.lines.push(value);
                }
                _ => state.faults.push(line.into_owned()),
            }
            self.changed.notify_all();
        }
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn read_stderr(&self, mut stderr: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            let mut state = lock(&self.state);
            state.stderr.extend_from_slice(&buffer[..read]);
            let surplus = state.stderr.len().saturating_sub(STDERR_KEPT);
            state.stderr.drain(..surplus);
        }
    }
}

impl LogState {
    /// The last lines and log, for an error text.
    fn summary(&self) -> String {
        let last: Vec<_> = self.lines.iter().rev().take(SUMMARY_LINES).rev().map(Value::to_string).collect();
        let stderr = String::from_utf8_lossy(&self.stderr);
        let tail: Vec<_> = stderr.lines().rev().take(SUMMARY_LINES).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!(
            "last lines of {}:\n{}\nfaults: {:?}\nstderr:\n{}",
            self.lines.len(),
            last.join("\n"),
            self.faults,
            tail.join("\n")
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A relay that has not bound its port by then never will, even on a loaded machine.
pub const RELAY_START: Duration = Duration::from_secs(10);
/// Enough for the log of a test at debug level.
pub const STDERR_KEPT: usize = 256 * 1024;
/// std has no wait with a limit; this is how late an exit may be noticed.
const EXIT_POLL: Duration = Duration::from_millis(5);
/// What fits on a screen.
const SUMMARY_LINES: usize = 20;
/// `USER_HZ`, which Linux shows to programs whatever its real timer is (proc(5), time(7)).
const TICKS_PER_SECOND: u64 = 100;
/// Bounds what is read of another process at once.
const MEMORY_CHUNK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A client made of shell, in the shape of `conclave --jsonl`.
    fn shell(script: &str) -> JsonlClient {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        JsonlClient::start_command("shell", command).unwrap()
    }

    #[test]
    fn an_event_is_found_by_name_and_predicate_before_and_after_it_came() {
        let client = shell(r#"echo '{"event":"a","n":1}'; echo '{"event":"a","n":2}'; exec sleep 30"#);
        let second = client.wait_event("a", |event| event["n"] == 2, LIMIT).unwrap();
        assert_eq!(second["n"], 2);
        assert_eq!(client.wait_event("a", |_| true, LIMIT).unwrap()["n"], 1);
        let mark = client.mark();
        assert!(client.wait_event_after(mark, "a", |_| true, Duration::from_millis(50)).is_err());
        assert_eq!(client.events_named("a").len(), 2);
    }

    #[test]
    fn a_command_reaches_the_process_and_its_answer_comes_back() {
        let mut client = shell(r#"read line; echo "$line"; exit 3"#);
        client.send(&json!({"event": "echo", "do": "admit", "who": 1})).unwrap();
        assert_eq!(client.wait_event("echo", |_| true, LIMIT).unwrap()["who"], 1);
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 3);
    }

    #[test]
    fn the_zero_of_a_clients_clock_is_found_from_its_quickest_line() {
        let before = Instant::now();
        let client =
            shell(r#"sleep 0.2; echo '{"event":"a","t_ms":100}'; echo '{"event":"b","t_ms":0}'; exec sleep 30"#);
        assert!(client.zero().is_err());
        client.wait_event("b", |_| true, LIMIT).unwrap();
        let zero = client.zero().unwrap();
        assert!(zero >= before + Duration::from_millis(100) && zero <= Instant::now() - Duration::from_millis(100));
    }

    #[test]
    fn a_busy_process_uses_processor_time_and_an_idle_one_does_not() {
        let idle = shell(r#"echo '{"event":"up"}'; exec sleep 30"#);
        let busy = shell(r#"n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done; echo '{"event":"up"}'; exec sleep 30"#);
        idle.wait_event("up", |_| true, LIMIT).unwrap();
        busy.wait_event("up", |_| true, LIMIT).unwrap();
        assert!(processor_time(busy.pid()).unwrap() > processor_time(idle.pid()).unwrap());
    }

    #[test]
    fn a_process_that_ends_is_not_waited_for_and_its_log_is_in_the_error() {
        let mut client = shell("echo no json; echo the reason >&2");
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 0);
        let error = format!("{:#}", client.wait_event("a", |_| true, Duration::from_secs(3600)).unwrap_err());
        assert!(error.contains("its output ended") && error.contains("no json"), "{error}");
        assert_eq!(client.faults(), ["no json"]);
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let client = shell("exec sleep 30");
        let proc = PathBuf::from(format!("/proc/{}", client.pid()));
        assert!(proc.exists());
        drop(client);
        assert!(!proc.exists());
    }

    #[test]
    fn a_terminated_process_shows_its_signal() {
        let mut client = shell(r#"echo '{"event":"up"}'; exec sleep 30"#);
        client.wait_event("up", |_| true, LIMIT).unwrap();
        client.terminate().unwrap();
        assert_eq!(client.wait_exit(LIMIT).unwrap(), 128 + 15);
    }

    #[test]
    fn a_string_in_the_memory_of_a_process_is_found_and_another_is_not() {
        let client = shell(r#"planted=needle-in-memory; echo '{"event":"up"}'; while :; do sleep 1; done"#);
        client.wait_event("up", |_| true, LIMIT).unwrap();
        let found = memory_holds(client.pid(), &[b"needle-in-memory", b"never-planted-anywhere"]).unwrap();
        assert_eq!(found, [true, false]);
        assert!(resident_bytes(client.pid()).unwrap() > 0);
    }

    #[test]
    fn a_relay_that_says_where_it_listens_is_started() {
        let line = r#"{"event":"listening","addr":"127.0.0.1:4433","pin":"abc","region":null}"#;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo '{line}'; exec sleep 30")]);
        let mut relay = RelayProcess::start_command(command).unwrap();
        assert_eq!(relay.addr(), "127.0.0.1:4433".parse().unwrap());
        assert_eq!((relay.pin(), relay.region(), relay.stdout_lines()), (Some("abc"), None, 1));
        assert_eq!(relay.stop(LIMIT).unwrap().0, 128 + 15);
    }

    #[test]
    fn a_program_that_is_not_built_says_how_to_build_it() {
        let error = binary("no-such-program").unwrap_err().to_string();
        assert!(error.contains("scripts/test"), "{error}");
    }
}
