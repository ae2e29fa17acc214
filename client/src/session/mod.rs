//! One client's session: drives a [`Conference`] over a relay connection, with media on a fixed frame clock.
//!
//! One loop owns everything and never waits for anybody but the next thing to happen: a datagram, a control message,
//! the frame clock, a deadline of the conference, a command. Which connection that is, and what becomes of it, is the
//! business of `link`; the frame clock goes on without one.

mod bans;
mod block;
mod commands;
mod gate;
pub mod key;
mod link;
mod people;
mod priority;
mod record;
mod reporting;
pub mod sink;
mod talkers;
mod ticks;
mod told;
mod voice;

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{Conference, Event, LeftWhy, Person, Start, Transmit};
use conclave_protocol::frameclock::FrameClock;
use conclave_protocol::id::MemberIndex;
use conclave_protocol::link::RelayAddress;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::sframe::receiver::Dropped;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::control::Denial;
use conclave_protocol::wire::datagram::{Datagram, Kind};
use conclave_relay::media::tap::Beside;
use rand_core::Rng;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

use crate::audio::device;
use crate::audio::engine::{FinishError, MediaEngine};
use crate::audio::format::FrameDuration;
use crate::audio::profile::Profile;
use crate::command::Command;
use crate::exit::Outcome;
use crate::pins::Pins;
use crate::realtime::Raised;
use crate::report::{Devices, Report, WaitingFor};
pub use bans::Bans;
use gate::SendGate;
use key::TalkKey;
use link::{Happened, Link};
use record::Recorders;
use reporting::Prepared;
pub use reporting::ReportSettings;
use reporting::{Reporting, Staying};
use sink::ReportSink;
pub use talkers::TalkerSummary;
use talkers::Talkers;
use ticks::Steps;
use voice::Voice;

/// How often statistics are reported.
const STATS: Duration = Duration::from_secs(1);
/// Datagrams taken in before one tick: those of a second from twenty talkers. A flood must not stop the clock.
const DATAGRAMS_PER_TICK: usize = 1_000;
/// Frames that did not authenticate before the first alarm, and between two: one may be an accident of memory.
const UNAUTHENTIC_PER_ALARM: u64 = 50;

/// What a session runs on.
pub struct Session {
    /// The meeting, hosted or to be joined.
    pub conference: Conference,
    /// What is remembered of other people.
    pub pins: Pins,
    /// The relays to try.
    pub relays: Vec<RelayAddress>,
    /// Input, output and everything between.
    pub engine: MediaEngine,
    /// How long the others' frames are held.
    pub profile: Profile,
    /// The microphone at the start.
    pub microphone: Microphone,
    /// Push-to-talk, if any.
    pub key: TalkKey,
    /// A microphone stays open while muted, and who speaks is warned.
    pub warn_when_muted: bool,
    /// Leave after so long: a host from now on, a guest from its admission on (and at the latest so long after now
    /// when nobody lets it in).
    pub leave_after: Option<Duration>,
    /// After a removal, stay connected for so long and count what still arrives and opens.
    pub linger: Option<Duration>,
    /// When the connection to the relay is lost, look for a relay for so long; with zero, end at once.
    pub reconnect_for: Duration,
    /// What is told as soon as a relay is reached: the link of a meeting that can be joined from then on.
    pub first: Option<Report>,
    /// What is needed to report somebody.
    pub reporting: ReportSettings,
    /// Whom a host keeps out.
    pub bans: Bans,
}

/// How a session ended, and what there is to tell of it.
pub struct Finished {
    /// Why it ended.
    pub outcome: Outcome,
    /// The end has been told already.
    pub is_told: bool,
    /// Frames sent.
    pub sent: u64,
    /// Everybody who was there.
    pub talkers: Vec<TalkerSummary>,
    /// The conference, for those who want to look at what it can still open.
    pub conference: Conference,
    /// Error while closing the output or the recording, if any.
    pub output: Result<(), FinishError>,
}

/// The clocks now.
pub fn start_now() -> Start {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Start { now: Instant::now(), wall: UnixMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
}

/// The system's randomness.
pub fn system_rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

impl Session {
    /// Runs until the meeting is over for this client, or until `stop`: then it leaves.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        reports: ReportSink,
        stop: impl Future<Output = ()>,
    ) -> Finished {
        let mut stop = pin!(stop);
        let relays = std::mem::take(&mut self.relays);
        let opened = tokio::select! {
            opened = Link::open(relays, self.reconnect_for, reports.clone()) => opened,
            () = &mut stop => Err(Outcome::Ended { by: "signal".to_owned() }),
            () = leave_before(&mut commands, &reports) => Err(Outcome::Ended { by: "leave".to_owned() }),
        };
        if let (Ok(_), Some(first)) = (&opened, self.first.take()) {
            reports.send(first);
        }
        match opened {
            Ok((link, exporter)) => Running::new(self, link, exporter, reports).run(commands, stop).await,
            Err(outcome) => {
                let Self { conference, engine, .. } = self;
                Finished { outcome, is_told: false, sent: 0, talkers: Vec::new(), conference, output: engine.finish() }
            }
        }
    }
}

/// Waits until the user wants to leave before there is a connection; nothing else can be done until then.
async fn leave_before(commands: &mut mpsc::Receiver<Command>, reports: &ReportSink) {
    loop {
        match commands.recv().await {
            Some(Command::Leave {}) => return,
            Some(_) => {
                let message = "you are not in the meeting yet: only leave is possible".to_owned();
                reports.send(Report::Error { message });
            }
            None => std::future::pending().await,
        }
    }
}

/// What the loop waits for.
enum Woken {
    Link(Happened),
    Command(Option<Command>),
    /// A report was prepared.
    Prepared(Prepared),
    /// When the tick was due.
    Tick(Instant),
    /// A step of what is heard is due, at this time.
    Step(Instant),
    Stats,
    Timer,
    Stop,
}

struct Running {
    conference: Conference,
    pins: Pins,
    engine: MediaEngine,
    profile: Profile,
    /// How long the meeting's frames are. A guest learns it when it enters; until then it sends none.
    frame: FrameDuration,
    link: Link,
    reports: ReportSink,
    talkers: Talkers,
    microphone: Microphone,
    warn_when_muted: bool,
    /// One's own.
    voice: Voice,
    gate: SendGate,
    clock: FrameClock,
    steps: Steps,
    seq: u32,
    sent: u64,
    /// A frame could be sent at any time. A recording begins then, and not in the waiting room.
    has_begun: bool,
    /// Frames that arrive until then are of a time that was slept through.
    stale_until: Option<Instant>,
    entered: bool,
    /// Was in the meeting at any time.
    was_member: bool,
    reporting: Reporting,
    bans: Bans,
    staying: Option<Staying>,
    told_end: bool,
    /// Was a member, and is not one again yet.
    returns: bool,
    leave_after: Option<Duration>,
    leave_at: Option<Instant>,
    linger: Option<Duration>,
    lingering: Option<Lingering>,
    outcome: Option<Outcome>,
    priority: Option<Raised>,
    key: TalkKey,
    recorders: Recorders,
    /// Everybody who waits, as far as this client may let them in.
    knocking: BTreeMap<KnockId, Person>,
}

/// What still arrives at a removed member.
struct Lingering {
    since: Instant,
    until: Instant,
    datagrams: u64,
    opened: u64,
    last_opened: Option<Instant>,
}

impl Running {
    fn new(session: Session, link: Link, exporter: [u8; 32], reports: ReportSink) -> Self {
        let Session { mut conference, pins, mut engine, microphone, leave_after, linger, mut bans, .. } = session;
        let (profile, warn_when_muted) = (session.profile, session.warn_when_muted);
        if warn_when_muted {
            engine.warn_when_muted();
        }
        let now = Instant::now();
        let frame = conference.frame_duration().unwrap_or(FrameDuration::Ms20);
        bans.apply(&mut conference);
        conference.connected(now, exporter);
        Self {
            conference,
            pins,
            engine,
            profile,
            frame,
            link,
            reports,
            talkers: Talkers::default(),
            microphone,
            warn_when_muted,
            voice: Voice::new(frame),
            gate: SendGate::new(microphone),
            clock: FrameClock::new(now + frame.duration(), frame.duration()),
            steps: Steps::new(now + frame.duration()),
            seq: 0,
            sent: 0,
            has_begun: false,
            stale_until: None,
            entered: false,
            was_member: false,
            reporting: Reporting::new(session.reporting),
            bans,
            staying: None,
            told_end: false,
            returns: false,
            leave_after,
            leave_at: leave_after.map(|after| now + after),
            linger,
            lingering: None,
            outcome: None,
            priority: None,
            key: session.key,
            recorders: Recorders::default(),
            knocking: BTreeMap::new(),
        }
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Finished {
        let mut stats = interval_at((self.clock.due() + STATS).into(), STATS);
        stats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut commands_open = true;
        self.raise_priority();
        self.drain();
        while !self.is_done() {
            let timer = self.next_timer();
            let woken = tokio::select! {
                // Media first: a late frame is lost, a late message is not.
                biased;
                () = sleep_until(self.clock.due().into()) => Woken::Tick(self.clock.due()),
                () = sleep_until(self.steps.due().into()), if self.plays_live() => Woken::Step(self.steps.due()),
                happened = self.link.next() => Woken::Link(happened),
                command = commands.recv(), if commands_open => Woken::Command(command),
                Some(prepared) = self.reporting.prepared() => Woken::Prepared(prepared),
                _ = stats.tick() => Woken::Stats,
                () = wait_until(timer), if timer.is_some() => Woken::Timer,
                () = &mut stop => Woken::Stop,
            };
            match woken {
                Woken::Tick(due) => {
                    let skipped = ticks::to_skip(due, Instant::now(), self.frame);
                    let due = due + self.frame.duration() * skipped;
                    // Ticks that were missed are made up for, up to the limit of `ticks`.
                    self.clock.pass(skipped);
                    if skipped > 0 {
                        self.skip_ticks(skipped);
                    }
                    if self.staying.is_none() {
                        self.take_datagrams().await;
                        self.on_tick(due);
                    }
                }
                Woken::Step(due) => {
                    self.take_datagrams().await;
                    self.play(due);
                }
                Woken::Prepared(prepared) => self.on_prepared(prepared),
                Woken::Link(happened) => self.on_link(happened),
                Woken::Command(Some(command)) => self.on_command(command),
                Woken::Command(None) => commands_open = false,
                Woken::Stats => {
                    self.watch_priority();
                    self.watch_files();
                    self.report_stats();
                    let is_alone = self.staying.is_none() && self.conference.is_alone();
                    self.link.watch_for_company(Instant::now(), is_alone);
                }
                Woken::Timer => self.on_timer(),
                Woken::Stop if self.staying.is_some() => self.stop_staying(),
                Woken::Stop => self.leave("signal"),
            }
            self.drain();
            self.announce_recording();
            self.report_moderators();
            self.send_reports();
            self.tell_held_up_reports();
            let is_member = self.conference.index().is_some() || self.returns;
            self.link.expect_more(is_member && self.staying.is_none());
            self.watch_outage();
            self.follow_devices();
        }
        self.finish().await
    }

    fn next_timer(&self) -> Option<Instant> {
        let linger = self.lingering.as_ref().map(|l| l.until);
        // What arrived while this process stood still is read before anything is found to be missing.
        let conference = self.conference.poll_timeout().map(|due| due.max(self.stale_until.unwrap_or(due)));
        let reports = [self.reports_due(), self.held_up_due(), self.staying_due()];
        reports.into_iter().chain([conference, self.leave_at, linger]).flatten().min()
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        self.conference.handle_timeout(now);
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave_at = None;
            self.leave("seconds");
        }
        if self.lingering.as_ref().is_some_and(|l| l.until <= now) {
            self.report_linger();
            self.outcome = Some(Outcome::Removed);
        }
    }

    // ---- the link ----

    fn on_link(&mut self, happened: Happened) {
        let now = Instant::now();
        match happened {
            Happened::Datagram(datagram) => self.on_datagram(&datagram),
            Happened::Control(message) => self.conference.handle_control(now, &message),
            Happened::Lost => {
                self.conference.disconnected(now);
                self.on_reports_cut_off();
            }
            Happened::Switched(exporter) => {
                self.conference.connected(now, exporter);
                self.on_reports_cut_off();
            }
            Happened::GaveUp(outcome) => self.on_gave_up(outcome),
        }
    }

    /// Tells the link when an outage is over: a member can send again, or the relay knows somebody who waits.
    fn watch_outage(&mut self) {
        if self.link.is_in_outage() {
            let is_guest = !self.returns && self.conference.index().is_none();
            let waits = (is_guest || self.staying.is_some()) && self.link.is_answered();
            if waits || self.conference.can_send(Instant::now()) {
                self.link.on_flowing(Instant::now());
            }
        }
    }

    fn on_gave_up(&mut self, outcome: Outcome) {
        if self.staying.is_some() {
            self.on_gave_up_staying();
        } else if self.lingering.is_some() {
            self.report_linger();
            self.outcome = Some(Outcome::Removed);
        } else {
            self.outcome.get_or_insert(outcome);
        }
    }

    // ---- media ----

    /// Whether what is heard has a clock of its own; else it is made at the ticks.
    fn plays_live(&self) -> bool {
        self.engine.is_live() && self.staying.is_none()
    }

    /// Plays the steps that are due by `until`: by their own time, so that after a stall playing follows the clock and
    /// not the stall.
    fn play(&mut self, until: Instant) {
        let now = Instant::now();
        while let Some(due) = self.steps.next(until, now) {
            self.engine.step(due);
            if let Some((least, most)) = self.engine.spare().filter(|_| self.plays_live()) {
                self.steps.follow(least, most, self.engine.cancels_echo());
            }
        }
    }

    /// Takes in what has arrived before the tick that plays it: after a stall, the frames that came in time must not
    /// be counted as late.
    async fn take_datagrams(&mut self) {
        for _ in 0..DATAGRAMS_PER_TICK {
            match self.link.ready().await {
                Some(Beside::Datagram(datagram)) => self.on_datagram(&datagram),
                Some(Beside::Message(message)) => self.conference.handle_control(Instant::now(), &message),
                None => return,
            }
        }
    }

    /// The place on the clock goes on, and so does one's own sound; nobody gets to hear it.
    fn skip_ticks(&mut self, ticks: u32) {
        self.stale_until = Some(Instant::now() + ticks::BACKLOG);
        self.seq = self.seq.wrapping_add(ticks);
        if self.has_begun {
            self.engine.skip(ticks);
        }
    }

    /// `due` is the tick's own time: after a stall several come at once.
    fn on_tick(&mut self, due: Instant) {
        self.seq = self.seq.wrapping_add(1);
        let now = Instant::now();
        self.has_begun = self.has_begun || self.conference.can_send(now);
        if !self.has_begun {
            self.engine.pause();
        } else if self.link.is_up() && self.gate.is_open(now) && ticks::is_fresh(due, now, self.frame) {
            self.capture_and_send();
        } else if self.microphone == Microphone::Muted {
            self.engine.overhear();
        } else {
            self.engine.skip(1);
        }
        self.play(due);
        if let Some(open) = self.key.poll_change(now, self.microphone) {
            self.reports.send(Report::PushToTalk { open });
        }
    }

    /// A microphone is open only while somebody is to hear it: not in the waiting room, after the end, or muted, but
    /// where the user wants to be warned.
    fn follow_devices(&mut self) {
        let is_heard = self.was_member && self.staying.is_none() && self.lingering.is_none();
        self.engine.listen(is_heard && (self.microphone == Microphone::On || self.warn_when_muted));
        if self.engine.take_warning() {
            self.reports.send(Report::MutedSpeaking);
        }
        while let Some(device::Event { direction, name, what }) = self.engine.poll_device() {
            self.reports.send(Report::Device { direction, name, what });
        }
    }

    fn capture_and_send(&mut self) {
        let muted = self.microphone == Microphone::Muted;
        let is_silent = muted || !self.key.is_open(Instant::now());
        let captured = self.engine.capture(is_silent);
        let spoke = self.voice.on_frame(self.microphone, captured.level, Instant::now());
        if !self.conference.can_send(Instant::now()) {
            return;
        }
        let frame = Frame {
            seq: self.seq,
            stamp: stamp(),
            microphone: self.microphone,
            level: if is_silent { 127 } else { captured.level },
            opus: if muted { &[] } else { captured.opus },
        };
        let mut out = [0; DATAGRAM_LEN];
        if self.conference.seal(Instant::now(), &frame, &mut out).is_ok() && self.link.send_frame(&out) {
            self.sent += 1;
            self.clock.on_sent();
        }
        if let Some((on, index)) = spoke.zip(self.conference.index()) {
            self.reports.send(Report::Speaking { index: index.0, on });
        }
    }

    fn on_datagram(&mut self, datagram: &[u8]) {
        let now = Instant::now();
        if self.staying.is_some() {
            return;
        }
        if self.stale_until.is_some_and(|until| now < until) && is_media(datagram) {
            return;
        }
        let mut plaintext = [0; PLAINTEXT_LEN];
        let opened = self.conference.open(now, datagram, &mut plaintext);
        if let Some(lingering) = &mut self.lingering {
            lingering.note(now, datagram, matches!(opened, Ok(Some(_))));
            return;
        }
        match opened {
            Ok(Some((index, frame))) => self.on_frame(now, index, &frame),
            Ok(None) => {}
            Err(dropped) => self.on_dropped(datagram, dropped),
        }
    }

    fn on_frame(&mut self, now: Instant, index: MemberIndex, frame: &Frame<'_>) {
        let muted = frame.microphone == Microphone::Muted;
        self.engine.receive(index.0, frame.seq, muted, frame.level, frame.opus, now);
        if let Some(microphone) = self.talkers.on_opened(index, frame, now, stamp()) {
            let on = microphone == Microphone::Muted;
            self.reports.send(Report::Muted { index: index.0, on });
        }
        if let Some(on) = self.talkers.on_level(index, frame, now) {
            self.reports.send(Report::Speaking { index: index.0, on });
        }
    }

    fn on_dropped(&mut self, datagram: &[u8], dropped: Dropped) {
        let Some(index) = Datagram::parse(datagram).filter(|d| d.kind == Kind::Media).map(|d| d.slot) else { return };
        match dropped {
            Dropped::Duplicate => self.talkers.on_duplicate(index),
            Dropped::Unauthentic => {
                let count = self.talkers.on_unauthentic(index);
                if count.is_some_and(|count| count % UNAUTHENTIC_PER_ALARM == 0) {
                    let detail = "frames in this member's name do not authenticate: the relay or somebody on the way changes or invents them".to_owned();
                    self.reports.send(Report::Alarm { kind: "unauthentic", index: Some(index.0), detail });
                }
            }
            _ => {}
        }
    }

    // ---- control ----

    fn drain(&mut self) {
        while let Some(transmit) = self.conference.poll_transmit() {
            match transmit {
                Transmit::Control(bytes) => self.link.send_control(bytes.into()),
                Transmit::Datagram(bytes) => {
                    // Without a connection, what was to be told by it is told by what follows the next one.
                    let _ = self.link.send_datagram(bytes.into());
                }
            }
        }
        while let Some(event) = self.conference.poll_event() {
            self.on_event(event);
        }
        let mut plaintext = [0; PLAINTEXT_LEN];
        while let Some((index, frame, since)) = self.conference.poll_frame(&mut plaintext) {
            self.on_frame(since, index, &frame);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::HostFound(person) => {
                let message = format!("found the host, {}", person.name.as_str());
                self.reports.send(Report::Notice { message });
            }
            Event::WaitingForHost => self.reports.send(Report::Waiting { r#for: WaitingFor::Host }),
            Event::WaitingRoom => self.reports.send(Report::Waiting { r#for: WaitingFor::Admission }),
            Event::Throttled => {
                let message =
                    "too many wrong passcodes were tried at this meeting: the host takes one at a time, please wait";
                self.reports.send(Report::Notice { message: message.to_owned() });
            }
            Event::Knock { id, person } => self.on_knock(id, person),
            Event::KnockGone { id } => {
                self.knocking.remove(&id);
            }
            Event::Admitted { index } => self.reports.send(Report::Admitted { index: index.0 }),
            Event::Denied(denial) => self.on_denied(denial),
            Event::Roster { .. } => self.on_roster(),
            Event::Joined { index, name } => {
                self.reports.send(Report::Joined { index: index.0, name: name.as_str().to_owned() });
            }
            Event::Left { index, name, why } => {
                let why = match why {
                    LeftWhy::Left => "left",
                    LeftWhy::Lost => "lost",
                    LeftWhy::Removed => "removed",
                };
                self.reports.send(Report::Left { index: index.0, name: name.as_str().to_owned(), why });
            }
            Event::Removed => self.on_removed(),
            Event::Ended { .. } => self.end_with("host"),
            Event::OpenRate => {
                let chance = chance();
                self.gate.on_rate(Instant::now(), self.conference.rate(), chance);
            }
            Event::Alarm { kind, index, detail } => {
                let detail = told::alarm_words(kind, detail);
                let kind = told::alarm_name(kind);
                self.reports.send(Report::Alarm { kind, index: index.map(|i| i.0), detail });
            }
            Event::Failed(failure) => self.outcome = Some(Outcome::of(failure)),
            Event::Rejoining => self.on_rejoining(),
            Event::Phase { shift } => self.clock.shift(shift),
            Event::RelayClosing => {
                let message = "the relay is shutting down".to_owned();
                self.reports.send(Report::Notice { message });
                self.link.on_relay_closing(Instant::now());
            }
            told => self.on_told(told),
        }
    }

    /// This client's place in the meeting is gone: it comes back over a connection of its own.
    fn on_rejoining(&mut self) {
        let now = Instant::now();
        (self.entered, self.returns) = (false, true);
        self.conference.disconnected(now);
        self.talkers.end_verified_mode(&mut self.engine, now);
        if let Some(outcome) = self.link.redial(now, "this client's place in the meeting has to be taken anew") {
            self.on_gave_up(outcome);
        }
    }

    fn on_roster(&mut self) {
        self.returns = false;
        self.was_member = true;
        self.reporting.note_hosts(&self.conference);
        let now = Instant::now();
        if !std::mem::replace(&mut self.entered, true) {
            self.follow_frame_duration(now);
            self.gate.on_entered(now, self.conference.rate());
            self.follow_mute_policy();
            if self.conference.index() != Some(MemberIndex::HOST) {
                self.leave_at = self.leave_after.map(|after| now + after);
            }
        }
        if let Err(error) = self.talkers.follow(&self.conference, &self.pins, &mut self.engine) {
            self.outcome = Some(Outcome::Local(format!("cannot set up a decoder: {error}")));
        }
        self.note_members();
        self.forget_recorders();
        self.report_roster();
        self.owe_announcement();
    }

    /// The meeting's frames are as long as its descriptor says. Before it is entered there are none.
    fn follow_frame_duration(&mut self, now: Instant) {
        let Some(frame) = self.conference.frame_duration() else { return };
        if let Err(error) = self.engine.set_config(self.profile.config(frame)) {
            self.outcome = Some(Outcome::Local(format!("cannot set up Opus: {error}")));
        }
        if frame == self.frame {
            return;
        }
        self.frame = frame;
        self.clock = FrameClock::new(now + frame.duration(), frame.duration());
        self.voice = Voice::new(frame);
    }

    fn on_denied(&mut self, denial: Denial) {
        let reason = match denial {
            Denial::Denied => "denied",
            Denial::Blocked => "blocked",
            Denial::Expired => "expired",
            Denial::Full => "full",
            Denial::Locked => "locked",
        };
        self.reports.send(Report::Denied { reason });
        self.outcome = Some(Outcome::Denied);
    }

    fn on_removed(&mut self) {
        self.reports.send(Report::Removed);
        if !self.reporting.stays() {
            self.link.give_in();
        }
        match self.linger {
            None => self.outcome = Some(Outcome::Removed),
            Some(time) => {
                let since = Instant::now();
                let until = since + time;
                self.leave_at = None;
                self.lingering = Some(Lingering { since, until, datagrams: 0, opened: 0, last_opened: None });
            }
        }
    }

    fn report_linger(&mut self) {
        if let Some(l) = self.lingering.take() {
            let millis = |at: Instant| u64::try_from(at.duration_since(l.since).as_millis()).unwrap_or(u64::MAX);
            let last_opened_ms = l.last_opened.map(millis);
            self.reports.send(Report::Linger { datagrams: l.datagrams, opened: l.opened, last_opened_ms });
        }
    }

    fn report_stats(&mut self) {
        self.report_trouble();
        if self.entered && self.lingering.is_none() && self.staying.is_none() {
            let talkers = self.talkers.stats(&self.engine);
            let (input, output) = self.engine.device_figures();
            self.reports.send(Report::Stats { talkers, devices: Devices { input, output } });
        }
    }

    // ---- the end ----

    fn leave(&mut self, by: &str) {
        self.conference.leave(Instant::now());
        self.end_with(by);
    }

    fn end_with(&mut self, by: &str) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Ended { by: by.to_owned() });
        }
    }

    // ---- the end ----

    async fn finish(mut self) -> Finished {
        // The last transmits: good-bye, or the end of the meeting.
        while let Some(transmit) = self.conference.poll_transmit() {
            if let Transmit::Control(bytes) = transmit {
                self.link.send_control(bytes.into());
            }
        }
        self.give_up_reports();
        self.link.close().await;
        let outcome = self.outcome.unwrap_or(Outcome::Ended { by: "leave".to_owned() });
        let talkers = self.talkers.into_summaries(&self.engine);
        let output = self.engine.finish();
        people::close(self.pins, &self.reports);
        Finished { outcome, is_told: self.told_end, sent: self.sent, talkers, conference: self.conference, output }
    }
}

impl Lingering {
    fn note(&mut self, now: Instant, datagram: &[u8], opened: bool) {
        if is_media(datagram) {
            self.datagrams += 1;
            if opened {
                self.opened += 1;
                self.last_opened = Some(now);
            }
        }
    }
}

fn is_media(datagram: &[u8]) -> bool {
    Datagram::parse(datagram).is_some_and(|d| d.kind == Kind::Media)
}

async fn wait_until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at.into()).await;
    }
}

/// The wall clock in units of 10 µs, modulo 2³² (`docs/protocol.md` §8.4).
fn stamp() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Wraps on purpose.
    (since.as_micros() / 10) as u32
}

/// Uniform in 0..1.
fn chance() -> f64 {
    f64::from(system_rng().next_u32()) / f64::from(u32::MAX)
}
