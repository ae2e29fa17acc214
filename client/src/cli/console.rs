//! The console: events out, commands in, as JSON lines or as words.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::command::{Command, MAX_LINE};
use crate::report::{Report, Standing, WaitingFor};
use crate::session::sink::{ReportSink, ReportSource, Stamped};

/// How the console speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Jsonl,
    Words,
}

/// How long the last lines may take to be read by whoever reads them.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A thread that prints reports.
pub(super) struct Printer {
    done: Receiver<()>,
}

impl Printer {
    /// Waits until everything reported so far is printed, or nobody reads it.
    pub(super) fn finish(self) {
        // Whether it came in time or not, the process ends.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

/// Prints reports until the last one of a session.
pub(super) fn print(source: ReportSource, style: Style) -> Printer {
    let (sender, done) = channel();
    thread::spawn(move || {
        for stamped in source {
            let last = is_last(&stamped.report);
            // Without a reader there is nothing to do but to go on with the meeting.
            let _ = match style {
                Style::Jsonl => print_json(&stamped),
                Style::Words => print_words(&stamped.report),
            };
            if last {
                break;
            }
        }
        let _ = sender.send(());
    });
    Printer { done }
}

/// Marks the end of a session's reports.
fn is_last(report: &Report) -> bool {
    matches!(report, Report::Goodbye)
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: &'a Report,
    t_ms: u64,
}

fn print_json(stamped: &Stamped) -> io::Result<()> {
    // Meant for people, who see it in words.
    if matches!(stamped.report, Report::Goodbye | Report::Notice { .. }) {
        return Ok(());
    }
    let line = Line { report: &stamped.report, t_ms: stamped.t_ms };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

fn print_words(report: &Report) -> io::Result<()> {
    let Some(text) = words(report) else { return Ok(()) };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn words(report: &Report) -> Option<String> {
    Some(match report {
        Report::Link { link } => format!(
            "The meeting is open. Guests join with:\n\n  conclave join '{link}' --name NAME\n\nWhoever has this link can knock. Type help for what you can do."
        ),
        Report::Waiting { r#for: WaitingFor::Host } => "No host is there yet; waiting.".to_owned(),
        Report::Waiting { r#for: WaitingFor::Admission } => {
            "You are in the waiting room; the host will let you in.".to_owned()
        }
        Report::Knock { id, name, safety_number, standing } => {
            let standing = match standing {
                Standing::New => "a new identity",
                Standing::Guest => "a guest of this meeting only",
                Standing::Oneself => "yourself",
            };
            format!(
                "{name} knocks ({standing}; number {id}).\n  safety number {safety_number}\n  type: admit {id}   or: deny {id}"
            )
        }
        Report::Admitted { .. } => "You are in the meeting.".to_owned(),
        Report::Denied { reason } => match *reason {
            "blocked" => "The host does not let you in, and will not.".to_owned(),
            "expired" => "Nobody answered your knock.".to_owned(),
            "full" => "The meeting is full.".to_owned(),
            _ => "The host does not let you in.".to_owned(),
        },
        Report::Roster { members, .. } => {
            let names: Vec<String> = members
                .iter()
                .map(|m| {
                    format!(
                        "{}{}{}",
                        m.name,
                        if m.role == "host" { " (host)" } else { "" },
                        if m.muted { " (muted)" } else { "" }
                    )
                })
                .collect();
            format!("Here: {}.", names.join(", "))
        }
        Report::Joined { name, .. } => format!("{name} joined."),
        Report::Left { name, why, .. } => match *why {
            "removed" => format!("{name} was removed."),
            "lost" => format!("{name} lost the connection."),
            _ => format!("{name} left."),
        },
        Report::Removed => "The host removed you from the meeting.".to_owned(),
        Report::Muted { .. } => return None,
        Report::Alarm { kind, detail, .. } => format!("ALARM ({kind}): {detail}"),
        Report::Stats { .. } => return None,
        Report::Linger { datagrams, opened, .. } => {
            format!("After the removal {datagrams} media datagrams arrived; {opened} of them could be opened.")
        }
        Report::Ended { by } if by == "host" => "The host ended the meeting.".to_owned(),
        Report::Ended { .. } => "You left the meeting.".to_owned(),
        Report::Error { message } => format!("Error: {message}"),
        Report::Notice { message } => format!("({message})"),
        Report::Goodbye => return None,
    })
}

/// Reads commands from standard input for as long as it lasts.
pub(super) fn read(style: Style, commands: mpsc::Sender<Command>, reports: ReportSink) {
    thread::spawn(move || {
        let mut input = BufReader::new(io::stdin().lock());
        while let Ok(Some(line)) = read_line(&mut input) {
            let parsed = match (style, line.trim()) {
                (_, "") => continue,
                (Style::Words, "help" | "?") => {
                    reports.send(Report::Notice { message: crate::command::WORDS.to_owned() });
                    continue;
                }
                (Style::Jsonl, line) => Command::from_json(line),
                (Style::Words, line) => Command::from_words(line),
            };
            match parsed {
                Ok(command) => {
                    if commands.blocking_send(command).is_err() {
                        return;
                    }
                }
                Err(error) => reports.send(Report::Error { message: error.to_string() }),
            }
        }
    });
}

/// One line, cut after a little more than the longest command; `None` at the end.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = MAX_LINE as u64 + 2;
    if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with(b"\n") && line.len() as u64 == limit {
        skip_line(input)?;
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

/// Reads on to the end of a line that is too long, without keeping it.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let chunk = input.fill_buf()?;
        let Some(end) = chunk.iter().position(|b| *b == b'\n') else {
            let len = chunk.len();
            if len == 0 {
                return Ok(());
            }
            input.consume(len);
            continue;
        };
        input.consume(end + 1);
        return Ok(());
    }
}
