//! What the rest of the process tells the shell's thread.

use std::io;

use tokio::sync::oneshot;

use crate::core::{self, Delivery, ReportTicket};
use crate::driver::inbox::{self, Inbox, Outbox};
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
pub(crate) struct Handle(Outbox<Command>);

/// Both ends.
pub(super) fn pair() -> io::Result<(Handle, Inbox<Command>)> {
    let (outbox, inbox) = inbox::pair()?;
    Ok((Handle(outbox), inbox))
}

impl Handle {
    /// Tells the shell, unless it has ended.
    pub(crate) fn tell(&self, command: Command) {
        self.0.tell(command);
    }

    /// Asks the shell how it is. There is no answer when it has ended.
    pub(crate) fn figures(&self) -> oneshot::Receiver<Figures> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Figures(answer));
        answered
    }
}
