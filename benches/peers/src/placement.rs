//! On which core what runs: a server on one, whoever loads it on the other, so that neither takes the other's time.
//!
//! util-linux's `taskset` and `chrt` do it: Debian has them on every machine, and they need no unsafe code here.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Real-time priority with `--fifo`: above everything that shares the machine, below the kernel's own at 99.
const PRIORITY: u8 = 60;

/// That of a thread whose clock must not wait until the others of its process have nothing more to do.
const PUNCTUAL: u8 = 61;

/// Where servers and clients run.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The core of the server.
    pub server: usize,
    /// The core of the clients.
    pub client: usize,
    /// Whether both have real-time priority, so that others on the machine do not preempt them.
    pub fifo: bool,
}

impl Placement {
    /// A command that runs a program on the server's core.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(self.server.to_string());
        if self.fifo {
            command.args(["chrt", "-f", &PRIORITY.to_string()]);
        }
        command.arg(program);
        command
    }

    /// Moves this process, and with it what it starts later, to the clients' core.
    ///
    /// # Errors
    /// There is no such core, or no right to the priority.
    pub fn settle(&self) -> Result<()> {
        self.place(std::process::id(), self.client)
    }

    /// Moves a process with all its threads to the server's core.
    ///
    /// # Errors
    /// The process is gone, there is no such core, or no right to the priority.
    pub fn place_server(&self, process: u32) -> Result<()> {
        self.place(process, self.server)
    }

    fn place(&self, process: u32, core: usize) -> Result<()> {
        let process = process.to_string();
        quietly(Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &process]))?;
        if self.fifo {
            quietly(Command::new("chrt").args(["-a", "-f", "-p", &PRIORITY.to_string(), &process]))?;
        }
        Ok(())
    }

    /// Lets the calling thread go before all others of this process.
    ///
    /// # Errors
    /// No right to the priority.
    pub fn punctual(&self) -> Result<()> {
        if self.fifo {
            let link = fs::read_link("/proc/thread-self")?;
            let thread = link.file_name().context("/proc/thread-self leads nowhere")?;
            quietly(Command::new("chrt").args(["-f", "-p", &PUNCTUAL.to_string()]).arg(thread))?;
        }
        Ok(())
    }
}

fn quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}, which is part of util-linux"))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_the_program_on_the_servers_core() {
        let placement = Placement { server: 0, client: 0, fifo: false };
        let output = placement.command("sh").args(["-c", "taskset -c -p $$"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.trim_end().ends_with(": 0"), "{said}");
    }

    #[test]
    fn a_core_that_is_not_there_is_an_error() {
        let placement = Placement { server: 4095, client: 0, fifo: false };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let moved = placement.place_server(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(moved.is_err());
    }
}
