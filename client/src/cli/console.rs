//! The console: events out, commands in, as JSON lines or as words.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;

use super::words::{self, Words};
use crate::command::{BadCommand, Command, MAX_LINE};
use crate::report::Report;
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
        let mut words = Words::default();
        for stamped in source {
            let last = is_last(&stamped.report);
            // Without a reader there is nothing to do but to go on with the meeting.
            let _ = match style {
                Style::Jsonl => print_json(&stamped),
                Style::Words => print_words(&mut words, &stamped.report),
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
    let mut text = words::json_without_escapes(&serde_json::to_string(&line)?);
    text.push('\n');
    write_out(&text)
}

fn print_words(words: &mut Words, report: &Report) -> io::Result<()> {
    let Some(mut text) = words.say(report) else { return Ok(()) };
    text.push('\n');
    write_out(&text)
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Reads commands from standard input for as long as it lasts.
pub(super) fn read(style: Style, commands: mpsc::Sender<Command>, reports: ReportSink) {
    thread::spawn(move || {
        // Input that can no longer be read is at its end.
        let _ = read_commands(io::stdin().lock(), style, &commands, &reports);
    });
}

/// Reads no further while too many reports wait for a reader: every line may be answered by one.
fn read_commands(
    input: impl Read,
    style: Style,
    commands: &mpsc::Sender<Command>,
    reports: &ReportSink,
) -> io::Result<()> {
    let mut input = BufReader::new(input);
    loop {
        reports.wait_for_room();
        let Some(line) = read_line(&mut input)? else { return Ok(()) };
        let parsed = line.and_then(|line| match (style, line.trim()) {
            (_, "") => Ok(None),
            (Style::Words, "help" | "?") => {
                reports.send(Report::Notice { message: crate::command::WORDS.to_owned() });
                Ok(None)
            }
            (Style::Jsonl, line) => Command::from_json(line).map(Some),
            (Style::Words, line) => Command::from_words(line).map(Some),
        });
        match parsed {
            Ok(None) => {}
            Ok(Some(command)) => {
                if commands.blocking_send(command).is_err() {
                    return Ok(());
                }
            }
            Err(error) => reports.send(Report::Error { message: error.to_string() }),
        }
    }
}

/// One line without its end; `None` at the end of the input. Of a line that is longer than any command nothing is kept.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, BadCommand>>> {
    let mut line = Vec::new();
    let limit = MAX_LINE as u64 + 2;
    if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with(b"\n") && line.len() as u64 == limit {
        skip_line(input)?;
    }
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() > MAX_LINE {
        return Ok(Some(Err(BadCommand::TooLong)));
    }
    Ok(Some(Ok(String::from_utf8_lossy(text).into_owned())))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::sink::{BACKLOG, queue};
    use std::time::Instant;

    fn lines(mut input: &[u8]) -> Vec<Result<String, BadCommand>> {
        std::iter::from_fn(|| read_line(&mut input).expect("memory can be read")).collect()
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_whole_and_the_next_one_is_read() {
        let mute = r#"{"do":"mute"}"#;
        let next = || Ok("next".to_owned());
        for blanks in [MAX_LINE - mute.len() + 1, MAX_LINE - mute.len() + 2, 5_000, 50_000] {
            for rest in ["", "junk"] {
                for end in ["\n", "\r\n"] {
                    let text = format!("{mute}{}{rest}{end}next", " ".repeat(blanks));
                    assert_eq!(lines(text.as_bytes()), [Err(BadCommand::TooLong), next()], "{blanks} {rest} {end:?}");
                }
            }
        }
        let longest = format!("{mute}{}", " ".repeat(MAX_LINE - mute.len()));
        for end in ["\n", "\r\n"] {
            assert_eq!(lines(format!("{longest}{end}next").as_bytes()), [Ok(longest.clone()), next()]);
        }
        assert_eq!(lines(longest.as_bytes()), [Ok(longest)]);
    }

    #[test]
    fn nothing_more_is_read_while_nobody_reads_the_answers() {
        const LINES: usize = 20_000;
        let (reports, source) = queue(Instant::now());
        let (commands, _receiver) = mpsc::channel(1);
        let input = "garbage\n".repeat(LINES);
        let own = reports.clone();
        let reader = thread::spawn(move || read_commands(input.as_bytes(), Style::Jsonl, &commands, &own));
        thread::sleep(Duration::from_millis(300));
        assert!(reports.waiting() <= BACKLOG + 1, "{} answers wait", reports.waiting());
        drop(reports);
        assert_eq!(source.count(), LINES, "none is lost");
        assert!(reader.join().expect("no panic").is_ok());
    }

    #[test]
    fn a_reader_of_answers_that_is_gone_stops_no_command() {
        let (reports, source) = queue(Instant::now());
        let (commands, mut receiver) = mpsc::channel(1);
        drop(source);
        let input = "garbage\n".repeat(2 * BACKLOG) + "{\"do\":\"leave\"}\n";
        assert!(read_commands(input.as_bytes(), Style::Jsonl, &commands, &reports).is_ok());
        assert_eq!(receiver.try_recv(), Ok(Command::Leave {}));
    }
}
