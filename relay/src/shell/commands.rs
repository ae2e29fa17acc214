//! What the rest of the process tells the shell's thread.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fd::{AsFd, BorrowedFd};
use tokio::sync::oneshot;

use crate::core::{self, Delivery, ReportTicket};
use crate::stamps::StampKeys;

/// One thing to do.
pub(crate) enum Command {
    /// The sink has done with a report.
    ReportDelivered(ReportTicket, Delivery),
    /// A new day's keys.
    StampKeys(StampKeys),
    /// Say how it is.
    Figures(oneshot::Sender<Figures>),
    /// Tell the clients, and stop.
    Shutdown,
}

/// What a running shell says of itself, beside what it counts all the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Whether clients are taken.
    pub(crate) readiness: Readiness,
    /// What the core says.
    pub(crate) core: core::Figures,
}

/// Whether a shell takes clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It does.
    Ready,
    /// There are as many as it may have, or as many meetings.
    Full,
    /// It is about to end.
    Stopping,
}

/// Tells the shell. May be used on any thread.
pub(crate) struct Handle {
    commands: Sender<Command>,
    /// A socket of its own, since that is what can be waited for together with the relay's, on every system.
    wake: UdpSocket,
}

/// The shell's end.
pub(super) struct Inbox {
    commands: Receiver<Command>,
    woken: UdpSocket,
}

/// Both ends.
pub(super) fn pair() -> io::Result<(Handle, Inbox)> {
    let (commands, receiver) = channel();
    let [wake, woken] = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    // So nobody else wakes it.
    wake.connect(woken.local_addr()?)?;
    woken.connect(wake.local_addr()?)?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((Handle { commands, wake }, Inbox { commands: receiver, woken }))
}

impl Handle {
    /// Tells the shell, unless it has ended.
    pub(crate) fn tell(&self, command: Command) {
        // Without the other end there is nobody to tell. When the wake-up finds no room, earlier ones wait there.
        if self.commands.send(command).is_ok() {
            let _woken = self.wake.send(&[0]);
        }
    }

    /// Asks the shell how it is. There is no answer when it has ended.
    pub(crate) fn figures(&self) -> oneshot::Receiver<Figures> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Figures(answer));
        answered
    }
}

impl Inbox {
    /// The next command.
    pub(super) fn next(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Takes the wake-ups so far, before their commands are taken.
    pub(super) fn clear(&mut self) {
        while self.woken.recv(&mut [0]).is_ok() {}
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
