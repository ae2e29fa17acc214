//! How a client ends: the exit statuses of `docs/automation.md` §4.

use conclave_protocol::conference::Failure;

/// Why the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Left, or the meeting ended.
    Ended {
        /// Who ended it, as in `ended.by`.
        by: String,
    },
    /// Bad arguments or a bad link, in words.
    BadLink(String),
    /// Not let in.
    Denied,
    /// Put out.
    Removed,
    /// Wrong or missing passcode, in words.
    Passcode(String),
    /// The relay is unreachable or lost, in words.
    Relay(String),
    /// The client's own fault, in words.
    Local(String),
}

impl Outcome {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Ended { .. } => 0,
            Self::Local(_) => 1,
            Self::BadLink(_) => 2,
            Self::Denied => 3,
            Self::Removed => 4,
            Self::Passcode(_) => 5,
            Self::Relay(_) => 6,
        }
    }

    /// What to tell the user, where the events before have not said it.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::BadLink(text) | Self::Passcode(text) | Self::Relay(text) | Self::Local(text) => Some(text),
            Self::Ended { .. } | Self::Denied | Self::Removed => None,
        }
    }

    /// How a failure of the conference ends the process.
    pub fn of(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::WrongLink | Failure::NotNow => Self::BadLink(text),
            Failure::PasscodeNeeded | Failure::WrongPasscode => Self::Passcode(text),
            Failure::Handshake
            | Failure::Full
            | Failure::Detached
            | Failure::Replaced
            | Failure::Relay
            | Failure::NoLeader => Self::Relay(text),
            Failure::Exhausted => Self::Local(text),
        }
    }
}
