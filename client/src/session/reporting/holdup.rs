//! Why a report is not taken yet, in words for people.

use std::fmt;

use conclave_protocol::wire::relay::ReportRefusal;

/// What keeps a report from being taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holdup {
    /// The relay's own word.
    Refused(ReportRefusal),
    /// The relay has all of it, and says nothing.
    NoAnswer,
    /// No relay is reached.
    NoConnection,
    /// The relay has not all of it: others are sent first, or the line is slow.
    OnItsWay,
}

impl fmt::Display for Holdup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What the relay's operator has to mend, and what mends itself, are told apart.
            Self::Refused(ReportRefusal::Unavailable) => f.write_str("the relay's sink is full or has failed"),
            Self::Refused(ReportRefusal::TooMany) => {
                f.write_str("the relay has too many reports and takes no more this minute")
            }
            Self::Refused(reason) => reason.fmt(f),
            Self::NoAnswer => f.write_str("the relay does not say whether the report was handed on"),
            Self::NoConnection => f.write_str("there is no connection to a relay"),
            Self::OnItsWay => f.write_str("the relay has not received all of the report yet"),
        }
    }
}
