//! `conclave mic-test`.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use serde_json::json;
use tokio::time::sleep_until;

use super::args::MicTest;
use super::{current_thread, keeps_apart, signalled};
use crate::audio::device::{Event, What};
use crate::audio::format::{FrameDuration, LEVEL_SILENT};
use crate::audio::sink::Sink;
use crate::audio::source::{Repeat, Source};
use crate::loopback::{Loopback, State};
use crate::realtime;
use crate::session::system_rng;

/// From one look at the level to the next: ten a second, as fast as an eye follows figures.
const SHOWN_EVERY: Duration = Duration::from_millis(100);
/// The quietest level on the scale, in dB below full scale, and what a character of it stands for.
const SCALE: (u8, u8) = (60, 2);
/// Louder than that, in dB below full scale, is about to be cut.
const LOUD: u8 = 1;

pub(super) fn hear(arguments: &MicTest) -> Result<()> {
    let source = Source::open(&arguments.input, Repeat::Loop).context("--input")?;
    keeps_apart("--input", &arguments.input, &arguments.output).map_err(Error::msg)?;
    let sink = Sink::open(&arguments.output).context("--output")?;
    let mut chain = Loopback::new(source, sink, arguments.frame_ms, Instant::now(), &mut system_rng())?;
    let style = Style::of(arguments);
    style.begin()?;
    let (shown, screen) = Screen::start(style)?;
    let seconds = arguments.seconds.map(Duration::from_secs);
    let loudest = current_thread()?.block_on(turn(&mut chain, arguments.frame_ms, &shown, seconds));
    drop(shown);
    // The thread ends with its sender.
    let is_shown = screen.join().map_err(|_| Error::msg("the thread that shows the level failed"))?;
    let loudest = loudest?;
    // Its own words say what it comes from.
    chain.finish().map_err(|error| Error::msg(error.to_string()))?;
    match is_shown {
        // Whoever read it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        shown => shown.context("cannot print")?,
    }
    conclude(loudest, &arguments.input)
}

/// Drives the chain by the frame clock, for as long as what it shows is taken. Gives the loudest sample in −dBov.
async fn turn(
    chain: &mut Loopback,
    frame: FrameDuration,
    shown: &SyncSender<Shown>,
    seconds: Option<Duration>,
) -> Result<u8> {
    let mut priority = realtime::raise();
    let mut stop = std::pin::pin!(signalled());
    let begin = Instant::now();
    let (mut due, mut frames, mut loudest) = (begin + frame.duration(), 0_u32, LEVEL_SILENT);
    while seconds.is_none_or(|seconds| due < begin + seconds) {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = sleep_until(due.into()) => {}
        }
        let state = chain.tick(due)?;
        loudest = loudest.min(state.peak);
        let state = frames.is_multiple_of(frame.count_in(SHOWN_EVERY)).then_some(Shown::State(state));
        let news = std::iter::from_fn(|| chain.poll_device().map(Shown::Device)).chain(state);
        for shows in news {
            // A screen that is slow misses something.
            if let Err(TrySendError::Disconnected(_)) = shown.try_send(shows) {
                return Ok(loudest);
            }
        }
        frames = frames.wrapping_add(1);
        due += frame.duration();
        priority.watch();
    }
    Ok(loudest)
}

fn conclude(loudest: u8, input: &str) -> Result<()> {
    if loudest == LEVEL_SILENT {
        bail!(
            "nothing but silence came from {input}: is it muted, by a switch of its own or in the system's sound settings? \
             `conclave devices` lists the others"
        );
    }
    Ok(())
}

/// What is shown.
enum Shown {
    State(State),
    Device(Event),
}

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A line that changes.
    Line,
    /// A line for each, where nobody sees it change.
    Lines,
    Json,
}

impl Style {
    fn of(arguments: &MicTest) -> Self {
        if arguments.json {
            Self::Json
        } else if io::stdout().is_terminal() {
            Self::Line
        } else {
            Self::Lines
        }
    }

    fn begin(self) -> Result<()> {
        if self != Self::Json {
            let mut out = io::stdout().lock();
            writeln!(
                out,
                "Speak: you hear yourself as the others would. Use headphones, or it howls. Ctrl-C ends it."
            )?;
            if let Some(reason) = realtime::refusal() {
                writeln!(out, "(Without priority over other programs, which the system does not allow: {reason}.)")?;
            }
        }
        Ok(())
    }

    fn show(self, out: &mut impl Write, shown: &Shown) -> io::Result<()> {
        match (self, shown) {
            (Self::Line, Shown::State(state)) => write!(out, "\r{}\x1b[K", in_words(state)),
            (Self::Lines, Shown::State(state)) => writeln!(out, "{}", in_words(state)),
            (Self::Json, Shown::State(state)) => {
                let State { level, peak, delay, gaps } = state;
                let delay = delay.map(|delay| (delay.as_secs_f64() * 10_000.0).round() / 10.0);
                writeln!(out, "{}", json!({ "level": level, "peak": peak, "delay_ms": delay, "gaps": gaps }))
            }
            (Self::Json, Shown::Device(Event { direction, name, what })) => {
                writeln!(out, "{}", json!({ "direction": direction, "name": name, "what": what }))
            }
            (_, Shown::Device(Event { direction, name, what })) => {
                let became = match what {
                    What::Lost => "is gone",
                    What::Back => "is back",
                    What::Replaced => "is used instead",
                };
                let name = name.escape_debug();
                writeln!(out, "\r{direction} device {name} {became}\x1b[K")
            }
        }
    }
}

/// A thread that shows, so that a terminal that stands still holds up no sound.
struct Screen;

impl Screen {
    fn start(style: Style) -> Result<(SyncSender<Shown>, JoinHandle<io::Result<()>>)> {
        let (sender, receiver) = sync_channel(16);
        let show = move || Self::show(style, &receiver);
        Ok((sender, std::thread::Builder::new().name("screen".to_owned()).spawn(show)?))
    }

    fn show(style: Style, receiver: &Receiver<Shown>) -> io::Result<()> {
        let mut out = io::stdout();
        for shown in receiver {
            style.show(&mut out, &shown)?;
            out.flush()?;
        }
        if style == Style::Line {
            writeln!(out)?;
        }
        Ok(())
    }
}

fn in_words(state: &State) -> String {
    let (quietest, step) = SCALE;
    let full = usize::from(quietest / step);
    let filled = usize::from(quietest.saturating_sub(state.level) / step);
    let bar = format!("{}{}", "█".repeat(filled), "·".repeat(full - filled));
    let level = if state.level == LEVEL_SILENT { "silence".to_owned() } else { format!("−{} dB", state.level) };
    let delay = state.delay.map_or_else(String::new, |delay| {
        format!("  delay {:.0} ms, and what the sound system adds", delay.as_secs_f64() * 1_000.0)
    });
    let loud = if state.peak <= LOUD { "  TOO LOUD" } else { "" };
    let gaps = if state.gaps > 0 { format!("  {} gaps", state.gaps) } else { String::new() };
    format!("{bar} {level:>7}{delay}{loud}{gaps}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(level: u8, peak: u8) -> State {
        State { level, peak, delay: Some(Duration::from_micros(91_600)), gaps: 0 }
    }

    #[test]
    fn the_scale_is_full_at_full_scale_and_empty_in_silence() {
        for (level, filled) in [(0, 30), (1, 29), (30, 15), (60, 0), (127, 0)] {
            let words = in_words(&state(level, level));
            assert_eq!((words.matches('█').count(), words.matches('·').count()), (filled, 30 - filled), "{words}");
        }
    }

    #[test]
    fn what_is_wrong_is_shown_only_then() {
        let well = in_words(&state(23, 9));
        assert!(well.contains("−23 dB") && well.contains("delay 92 ms"), "{well}");
        assert!(!well.contains("LOUD") && !well.contains("gaps"), "{well}");
        assert!(in_words(&state(12, 0)).contains("TOO LOUD"));
        assert!(in_words(&State { gaps: 3, ..state(12, 9) }).contains("3 gaps"));
        assert!(in_words(&state(127, 127)).contains("silence"));
        let error = conclude(LEVEL_SILENT, "device:mic").unwrap_err().to_string();
        assert!(error.contains("device:mic") && error.contains("muted"), "{error}");
        conclude(90, "device:mic").unwrap();
    }
}
