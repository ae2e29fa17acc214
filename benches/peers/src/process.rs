//! Servers as processes: started, timed through `/proc`, and ended.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// Lines of a server's log that are shown when it failed.
const LAST_WORDS: usize = 8;

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server that writes to the file `log`.
    ///
    /// # Errors
    /// The program or the file cannot be opened.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let (out, err) = output(log)?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().context("cannot start it")?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Starts a server whose first line on standard output tells something, and returns that line too.
    ///
    /// # Errors
    /// The program or the file cannot be opened, or the program ends without a line.
    pub fn start_talkative(mut command: Command, log: &Path) -> Result<(Self, String)> {
        let (_, err) = output(log)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(err).spawn()?;
        let out = child.stdout.take();
        let server = Self { child, log: log.to_owned() };
        let mut line = String::new();
        BufReader::new(out.context("it has no standard output")?).read_line(&mut line)?;
        if line.is_empty() {
            return Err(server.explain(anyhow!("it ended at once")));
        }
        Ok((server, line.trim().to_owned()))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that its threads have used, in user and kernel mode.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.id()).map_err(|error| self.explain(anyhow!(error).context("it is gone")))
    }

    /// An error with the last lines of the server's log.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(last_words(&self.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A log file, for both outputs of a process.
///
/// # Errors
/// It cannot be created.
pub fn output(log: &Path) -> io::Result<(File, File)> {
    let file = File::create(log)?;
    Ok((file.try_clone()?, file))
}

/// The last lines of a log, in one.
pub fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match &lines[lines.len().saturating_sub(LAST_WORDS)..] {
        [] => "it wrote nothing".to_owned(),
        last => format!("it wrote: {}", last.join(" | ")),
    }
}

/// CPU time of all threads that a process has, from the scheduler's own account of nanoseconds. It includes the
/// kernel's work in their name; that of threads that have ended is not in it.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(process: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and here.
        if let Ok(account) = fs::read_to_string(thread?.path().join("schedstat")) {
            total += on_cpu(&account).ok_or(io::ErrorKind::InvalidData)?;
        }
    }
    Ok(total)
}

/// The first number of a schedstat: nanoseconds on a CPU.
fn on_cpu(account: &str) -> Option<Duration> {
    Some(Duration::from_nanos(account.split_whitespace().next()?.parse().ok()?))
}

/// The processes that a process has started and that still run.
pub fn children(process: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|candidate| parent(*candidate) == Some(process))
        .collect()
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// A port on loopback that is free for UDP and TCP. It is free a moment later too, unless somebody else takes it.
///
/// # Errors
/// There is none.
pub fn free_port() -> io::Result<SocketAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for _ in 0..16 {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_this_process_grows_with_work() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0u64;
        while cpu_time(std::process::id()).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_time(std::process::id()).unwrap() > before);
    }

    #[test]
    fn a_schedstat_begins_with_nanoseconds() {
        assert_eq!(on_cpu("1500000 20 3\n"), Some(Duration::from_micros(1500)));
        assert_eq!(on_cpu("\n"), None);
    }

    #[test]
    fn a_started_process_is_a_child_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let server = Server::start(command, &directory.path().join("log")).unwrap();
        let id = server.id();
        assert!(children(std::process::id()).contains(&id));
        drop(server);
        assert!(cpu_time(id).is_err());
    }

    #[test]
    fn a_server_that_ends_at_once_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2"]);
        let error = Server::start_talkative(command, &directory.path().join("log")).unwrap_err();
        assert!(format!("{error:#}").contains("no such thing"));
    }
}
