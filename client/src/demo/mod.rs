//! The demo: a whole meeting on this machine, with a relay that is watched, a guest who is denied and one who is
//! removed in mid-call, and a check at the end of who could hear what.
//!
//! Everybody is a real client on a thread of its own and talks to the relay over UDP; only the watching is done from
//! inside.

mod cast;
mod tap;
pub mod verdict;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use conclave_protocol::conference::{Conference, HostConfig, JoinConfig, WaitingRoom};
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::{Link, RelayAddress};
use conclave_protocol::sframe::frame::Microphone;
use conclave_relay::embedded::{EmbeddedRelay, spawn_thread};
use conclave_relay::server::ServerConfig;
use conclave_relay::tls::{Identity as RelayIdentity, SelfSigned};
use tokio::sync::mpsc;

use crate::audio::engine::MediaEngine;
use crate::audio::format::FrameDuration;
use crate::audio::profile::Profile;
use crate::audio::sink::Sink;
use crate::audio::source::{Recording, Repeat, Source};
use crate::command::{Command, Who};
use crate::pins::Pins;
use crate::report::Report;
use crate::session::key::TalkKey;
use crate::session::sink::queue;
use crate::session::{Bans, Finished, ReportSettings, Session, start_now, system_rng};
use cast::{Part, Person};
use tap::{Sight, Tap};
pub use verdict::{Outsider, Verdict};

/// What the demo is asked to do.
pub struct Plan {
    /// People in the meeting, the host included.
    pub people: usize,
    /// Length of the call.
    pub seconds: u64,
    /// Speech, or the clips of alsa-utils.
    pub input: Option<PathBuf>,
    /// Directory for what was said and heard.
    pub out: PathBuf,
}

/// Who knows how far the demo is.
pub trait Watcher {
    /// Something worth a line happened.
    fn tell(&mut self, line: &str);
    /// So much of the call has passed.
    fn passed(&mut self, part: Duration, whole: Duration);
}

/// Longest time from the first knock to the last admission.
const ADMISSION: Duration = Duration::from_secs(15);
/// Longest time for everybody to end.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often progress is told.
const BEAT: Duration = Duration::from_millis(100);

/// Runs the demo.
///
/// # Errors
/// When it cannot be set up or the meeting does not come about. What was heard is judged by the [`Verdict`].
pub fn run(plan: &Plan, watcher: &mut dyn Watcher) -> Result<Verdict> {
    std::fs::create_dir_all(&plan.out).with_context(|| format!("cannot make {}", plan.out.display()))?;
    let cast = cast::gather(plan)?;
    let (relay, sight) = start_relay()?;
    watcher.tell(&format!("relay on {} (self-signed, pinned)", relay.local_addr()));
    let mut stage = Stage::new(&plan.out);
    let link = stage.open(&cast, &relay)?;
    watcher.tell(&format!("{} opened the meeting; everybody else knocks", cast[0].name));
    for person in &cast[1..] {
        stage.send_to_knock(person, &link)?;
    }
    stage.admit_everybody(&cast, watcher)?;
    let times = stage.hold_the_call(&cast, plan, watcher)?;
    let finished = stage.close()?;
    relay.stop().context("the relay failed")?;
    verdict::judge(&cast, finished, &sight.take(), &times, &plan.out)
}

/// When what happened.
struct Times {
    removal: Instant,
}

fn start_relay() -> Result<(EmbeddedRelay, Sight)> {
    let config = ServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: RelayIdentity::SelfSigned(SelfSigned::Memory),
        limits: Default::default(),
        deadlines: Default::default(),
        forwarding: Default::default(),
    };
    let (tap, sight) = Tap::new();
    Ok((spawn_thread(config, tap).context("cannot start the relay")?, sight))
}

struct Actor {
    name: String,
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<Result<Finished>>,
}

/// A report of one of the actors.
struct Said {
    who: usize,
    report: Report,
}

struct Stage<'a> {
    out: &'a Path,
    actors: Vec<Actor>,
    sender: Sender<Said>,
    reports: Receiver<Said>,
}

impl<'a> Stage<'a> {
    fn new(out: &'a Path) -> Self {
        let (sender, reports) = channel();
        Self { out, actors: Vec::new(), sender, reports }
    }

    fn open(&mut self, cast: &[Person], relay: &EmbeddedRelay) -> Result<Link> {
        let address = relay.local_addr();
        let pin = relay.pin().map(|pin| *pin.as_bytes());
        let relays = vec![RelayAddress { host: address.ip().to_string(), port: address.port(), pin }];
        let config = HostConfig {
            relays,
            identity: Identity::guest(&mut system_rng()),
            name: name(&cast[0])?,
            passcode: None,
            waiting_room: WaitingRoom::Ask,
            max_members: 64,
            duration: Duration::from_secs(3600),
            frame: FrameDuration::Ms20,
            regions: Vec::new(),
            moderators: Vec::new(),
        };
        let conference = Conference::host(config, start_now(), Box::new(system_rng()));
        let link = conference.link().duplicate();
        self.enter(&cast[0], conference)?;
        Ok(link)
    }

    fn send_to_knock(&mut self, person: &Person, link: &Link) -> Result<()> {
        let identity = Identity::guest(&mut system_rng());
        let config = JoinConfig { link: link.duplicate(), identity, name: name(person)?, passcode: None };
        self.enter(person, Conference::join(config, start_now(), Box::new(system_rng())))
    }

    fn enter(&mut self, person: &Person, conference: Conference) -> Result<()> {
        let heard = self.out.join(person.heard_file());
        let speech = person.speech.clone();
        let relays = conference.link().relays.clone();
        let (commands, receiver) = mpsc::channel(16);
        let (reports, source) = queue(Instant::now());
        let (who, sender) = (self.actors.len(), self.sender.clone());
        thread::spawn(move || {
            for stamped in source {
                // The demo may have ended already.
                let _ = sender.send(Said { who, report: stamped.report });
            }
        });
        let thread = thread::Builder::new().name(person.name.clone()).spawn(move || {
            let sink = Sink::open(&heard.to_string_lossy())?;
            let engine = MediaEngine::new(Source::Wav(Recording::new(speech, Repeat::Once)), sink)?;
            let session = Session {
                conference,
                pins: Pins::none(),
                relays,
                engine,
                profile: Profile::Default,
                microphone: Microphone::On,
                key: TalkKey::NONE,
                warn_when_muted: false,
                leave_after: None,
                linger: None,
                // The relay is on this machine and watched: if it fails, so does the demo.
                reconnect_for: Duration::ZERO,
                first: None,
                reporting: ReportSettings::default(),
                bans: Bans::default(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(session.run(receiver, reports, std::future::pending())))
        })?;
        self.actors.push(Actor { name: person.name.clone(), commands, thread });
        Ok(())
    }

    /// Answers knocks until everybody is in who is to be let in.
    fn admit_everybody(&mut self, cast: &[Person], watcher: &mut dyn Watcher) -> Result<()> {
        let deadline = Instant::now() + ADMISSION;
        let expected = cast.iter().filter(|p| matches!(p.part, Part::Guest | Part::Removed)).count();
        let (mut admitted, mut denied) = (0, false);
        while admitted < expected || !denied {
            let Some(said) = self.next_report(deadline)? else {
                bail!("not everybody was let in within {} s", ADMISSION.as_secs());
            };
            match said.report {
                Report::Knock { id, name, safety_number, .. } => {
                    let to_deny = cast.iter().any(|p| p.name == name && p.part == Part::Denied);
                    let shown = safety_number.get(..23).unwrap_or_default();
                    let answer = if to_deny { "denies" } else { "admits" };
                    watcher.tell(&format!("{name} knocks (safety number {shown} …): {} {answer}", cast[0].name));
                    let who = Who::Number(id);
                    self.tell(0, if to_deny { Command::Deny { who } } else { Command::Admit { who } })?;
                }
                Report::Admitted { .. } => admitted += 1,
                Report::Denied { .. } => {
                    denied = true;
                    watcher.tell(&format!("{} was denied, and holds no key", self.name_of(said.who)));
                }
                Report::Error { message } | Report::Alarm { detail: message, .. } => {
                    bail!("{}: {message}", self.name_of(said.who));
                }
                _ => {}
            }
        }
        watcher.tell("everybody is in; everybody talks");
        Ok(())
    }

    fn hold_the_call(&mut self, cast: &[Person], plan: &Plan, watcher: &mut dyn Watcher) -> Result<Times> {
        let start = Instant::now();
        let whole = Duration::from_secs(plan.seconds);
        let removed = cast.iter().find(|p| p.part == Part::Removed).context("nobody is to be removed")?;
        let mut removal = None;
        loop {
            let passed = start.elapsed();
            watcher.passed(passed.min(whole), whole);
            if passed >= whole {
                break;
            }
            if removal.is_none() && passed >= whole / 2 {
                removal = Some(Instant::now());
                self.tell(0, Command::Remove { who: Who::Name(removed.name.clone()) })?;
                watcher.tell(&format!("{} removes {}", cast[0].name, removed.name));
            }
            if let Some(Said { who, report }) = self.next_report(Instant::now() + BEAT)? {
                match report {
                    Report::Error { message } | Report::Alarm { detail: message, .. } => {
                        bail!("{}: {message}", self.name_of(who));
                    }
                    Report::Removed => watcher.tell(&format!("{} is out", self.name_of(who))),
                    _ => {}
                }
            }
        }
        Ok(Times { removal: removal.context("the call was too short for a removal")? })
    }

    fn close(self) -> Result<Vec<(String, Finished)>> {
        self.tell(0, Command::End {})?;
        let deadline = Instant::now() + FAREWELL;
        while self.actors.iter().any(|a| !a.thread.is_finished()) {
            if Instant::now() > deadline {
                bail!("somebody did not leave when the meeting ended");
            }
            thread::sleep(BEAT);
        }
        let mut finished = Vec::new();
        for actor in self.actors {
            let end = actor.thread.join().map_err(|_| anyhow::anyhow!("{} came to grief", actor.name))?;
            finished.push((actor.name, end?));
        }
        Ok(finished)
    }

    fn tell(&self, who: usize, command: Command) -> Result<()> {
        let actor = self.actors.get(who).context("nobody of that number")?;
        actor.commands.blocking_send(command).with_context(|| format!("{} is gone", actor.name))
    }

    fn name_of(&self, who: usize) -> &str {
        self.actors.get(who).map_or("somebody", |a| &a.name)
    }

    fn next_report(&self, deadline: Instant) -> Result<Option<Said>> {
        match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("everybody is gone"),
        }
    }
}

fn name(person: &Person) -> Result<DisplayName> {
    Ok(DisplayName::parse(&person.name)?)
}
