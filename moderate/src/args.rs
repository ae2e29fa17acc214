//! Arguments, and the help that teaches them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use conclave_protocol::evidence::category::Category;
use conclave_relay::tls::Pin;

use crate::time::Until;

/// Opens reports from Conclave meetings and says what they prove.
///
/// A report holds some seconds of what one member said, sealed to your key. This program opens it, checks every link
/// from the meeting's id to the last frame of sound, and writes what you need to decide. It works without a network.
#[derive(Parser)]
#[command(name = "conclave-moderate", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Verb {
    /// Make a moderator's key: a secret file to keep and a public one to hand out
    #[command(after_help = KEYGEN_HELP)]
    Keygen(Keygen),
    /// Open reports, say what each proves, and write sound, page and record
    #[command(after_help = OPEN_HELP)]
    Open(Open),
    /// List a directory of reports, the newest first
    #[command(after_help = INBOX_HELP)]
    Inbox(Inbox),
    /// Issue a ban statement for who was reported, or for an identity
    #[command(after_help = BAN_HELP)]
    Ban(Ban),
    /// Ask a relay whether it made the stamps in reports
    #[command(after_help = STAMP_CHECK_HELP)]
    StampCheck(StampCheck),
}

const KEYGEN_HELP: &str = "Writes moderator.key, which opens every report sealed to it (keep it), and moderator.pub, \
which hosts and relays name with --moderator. Asks for a passphrase, or takes the one in CONCLAVE_PASSPHRASE.

  conclave-moderate keygen --out keys --name 'Trust and Safety'";

const OPEN_HELP: &str = "Prints one JSON object per report. Verdicts: valid; unstamped (all holds, but no relay's \
stamp that you can check says when); invalid (failed_step says where); unreadable (damaged, or not for this key).

  conclave-moderate open --key keys/moderator.key --stamp-keys /var/lib/conclave/stamps inbox/*.conclave-report
  conclave-moderate open --key keys/moderator.key --relay relay.example.org inbox/RECEIPT.conclave-report

A file that no earlier run has written, or that is one of the reports, is left alone: results take NAME-2 then.

Exit status: 0 all reports are valid, 1 one is not, 2 bad arguments, key or directory.";

const INBOX_HELP: &str = "Lists files named *.conclave-report or *.report, and others that begin like one. Reports that tell of what was said long ago are marked old, and those that hold the same \
segments of the same member as another are marked duplicates of it.

  conclave-moderate inbox /var/lib/conclave/reports --key keys/moderator.key --stamp-keys /var/lib/conclave/stamps";

const BAN_HELP: &str = "Adds a signed line to a file that hosts and relays read with --bans. A report must be valid \
to be banned for; an identity is the 64 hexadecimal digits that `open` prints.

  conclave-moderate ban --key keys/moderator.key --out bans.txt --until 2027-01-01 RECEIPT.conclave-report
  conclave-moderate ban --key keys/moderator.key --out bans.txt --category spam 9f2c…";

const STAMP_CHECK_HELP: &str = "For those who do not hold the relay's stamp keys. The relay must name this moderator \
(conclave-relay serve --moderator). It is shown seals and stamps that it has seen before, and nothing else.

  conclave-moderate stamp-check --key keys/moderator.key --relay relay.example.org --pin PIN RECEIPT.conclave-report

Exit status: 0 all stamps are genuine and none is missing, 1 otherwise, 2 bad arguments, key or relay.";

/// Arguments of `keygen`.
#[derive(Args)]
pub struct Keygen {
    /// Directory for moderator.key and moderator.pub; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name that everybody sees in the meeting
    #[arg(long, value_name = "NAME", default_value = "Moderator")]
    pub name: String,
    /// Leave the key file without protection
    #[arg(long)]
    pub no_passphrase: bool,
}

/// What judging needs.
#[derive(Args)]
pub struct Judging {
    /// Your moderator.key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Directory with a relay's stamp keys, files named YYYY-MM-DD.stampkey
    #[arg(long, value_name = "DIR")]
    pub stamp_keys: Option<PathBuf>,
}

/// Which relay to ask.
#[derive(Args)]
pub struct Relay {
    /// Relay to ask about stamps of keys that are not here, HOST or HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub relay: Option<String>,
    /// Pin of a self-signed relay, as it prints it
    // One pin in 64 begins with a hyphen.
    #[arg(long, value_name = "PIN", requires = "relay", allow_hyphen_values = true)]
    pub pin: Option<Pin>,
}

/// Arguments of `open`.
#[derive(Args)]
pub struct Open {
    #[command(flatten)]
    /// What judging needs.
    pub judging: Judging,
    /// Which relay to ask.
    #[command(flatten)]
    pub relay: Relay,
    /// Where NAME.report.json, NAME.html and NAME.wav of NAME.conclave-report go; beside each report if not given
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Reports
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
}

/// Arguments of `inbox`.
#[derive(Args)]
pub struct Inbox {
    /// Directory of reports
    pub dir: PathBuf,
    /// What judging needs.
    #[command(flatten)]
    pub judging: Judging,
    /// After how many days a report is old
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub old_after: u32,
    /// One JSON object per report instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `ban`.
#[derive(Args)]
pub struct Ban {
    /// What judging needs.
    #[command(flatten)]
    pub judging: Judging,
    /// File of ban statements; the new one is added
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Last day of the ban in UTC, YYYY-MM-DD; without it the ban is for good
    #[arg(long, value_name = "DATE")]
    pub until: Option<Until>,
    /// Why: harassment, hate, threat, sexual, child_safety, impersonation, recording, spam, other; by default what
    /// the report says, or other
    #[arg(long, value_name = "CATEGORY")]
    pub category: Option<Category>,
    /// Take an unstamped report for good enough
    #[arg(long)]
    pub unstamped: bool,
    /// A report, or an identity of 64 hexadecimal digits
    #[arg(value_name = "REPORT|IDENTITY")]
    pub whom: String,
}

/// Arguments of `stamp-check`.
#[derive(Args)]
pub struct StampCheck {
    /// Your moderator.key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Relay to ask, HOST or HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub relay: String,
    /// Pin of a self-signed relay, as it prints it
    #[arg(long, value_name = "PIN", allow_hyphen_values = true)]
    pub pin: Option<Pin>,
    /// Reports
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
}
