//! One client's session: drives a [`Conference`] over a relay connection, with media on a fixed frame clock.
//!
//! One loop owns everything and never waits for anybody but the next thing to happen: a datagram, a control message,
//! the frame clock, a deadline of the conference, a command. Reading and writing the control stream are tasks of
//! their own, so a slow stream holds up no frame.

mod connect;
mod gate;
pub mod sink;
mod talkers;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{Conference, Event, LeftWhy, Start, Transmit};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::link::RelayAddress;
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::sframe::receiver::Dropped;
use conclave_protocol::time::UnixMillis;
use conclave_protocol::wire::control::Denial;
use conclave_protocol::wire::datagram::{Datagram, Kind};
use conclave_relay::framing::{MessageReader, MessageWriter};
use rand_core::Rng;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::audio::engine::MediaEngine;
use crate::command::{Command, Who};
use crate::exit::Outcome;
use crate::report::{Report, Standing, WaitingFor};
use connect::Connected;
use gate::SendGate;
use sink::ReportSink;
pub use talkers::TalkerSummary;
use talkers::Talkers;

/// The frame clock. The descriptor says 20 ms for every meeting until profiles come with the audio issue.
const FRAME: Duration = Duration::from_millis(20);
/// How often statistics are reported.
const STATS: Duration = Duration::from_secs(1);
/// How long the last messages may take to reach the relay when the session ends.
const FLUSH: Duration = Duration::from_secs(1);
/// Control bytes that may wait for the relay: far above an epoch of 1,000 members, far below what hurts.
const MAX_UNSENT: usize = 32 * 1024 * 1024;
/// Messages in the hands of the reading and writing tasks.
const IN_HAND: usize = 64;
/// Datagrams taken in before one tick: those of a second from twenty talkers. A flood must not stop the clock.
const DATAGRAMS_PER_TICK: usize = 1_000;
/// Frames that did not authenticate before the first alarm, and between two: one may be an accident of memory.
const UNAUTHENTIC_PER_ALARM: u64 = 50;

/// What a session runs on.
pub struct Session {
    /// The meeting, hosted or to be joined.
    pub conference: Conference,
    /// The relays to try.
    pub relays: Vec<RelayAddress>,
    /// Input, output and everything between.
    pub engine: MediaEngine,
    /// The microphone at the start.
    pub microphone: Microphone,
    /// Leave after so long: a host from now on, a guest from its admission on (and at the latest so long after now
    /// when nobody lets it in).
    pub leave_after: Option<Duration>,
    /// After a removal, stay connected for so long and count what still arrives and opens.
    pub linger: Option<Duration>,
}

/// How a session ended, and what there is to tell of it.
pub struct Finished {
    /// Why it ended.
    pub outcome: Outcome,
    /// Frames sent.
    pub sent: u64,
    /// Everybody who was there.
    pub talkers: Vec<TalkerSummary>,
    /// The conference, for those who want to look at what it can still open.
    pub conference: Conference,
    /// Error while closing the output, if any.
    pub output: Result<(), crate::audio::sink::SinkError>,
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
        self,
        commands: mpsc::Receiver<Command>,
        reports: ReportSink,
        stop: impl Future<Output = ()>,
    ) -> Finished {
        let mut stop = pin!(stop);
        let connected = tokio::select! {
            connected = connect::connect(&self.relays) => connected,
            () = &mut stop => Err(Outcome::Ended { by: "signal".to_owned() }),
        };
        match connected {
            Ok(connected) => Running::new(self, connected, reports).run(commands, stop).await,
            Err(outcome) => {
                let Self { conference, engine, .. } = self;
                Finished { outcome, sent: 0, talkers: Vec::new(), conference, output: engine.finish() }
            }
        }
    }
}

/// What the loop waits for.
enum Woken {
    Control(Option<Vec<u8>>),
    Datagram(Result<Bytes, quinn::ConnectionError>),
    Command(Option<Command>),
    WriterReady,
    /// When the tick was due.
    Tick(Instant),
    Stats,
    Timer,
    Stop,
}

struct Running {
    conference: Conference,
    engine: MediaEngine,
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    incoming: mpsc::Receiver<Vec<u8>>,
    outgoing: Option<mpsc::Sender<Bytes>>,
    writer: tokio::task::JoinHandle<()>,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    reports: ReportSink,
    talkers: Talkers,
    microphone: Microphone,
    gate: SendGate,
    seq: u32,
    sent: u64,
    buffer: BytesMut,
    entered: bool,
    leave_after: Option<Duration>,
    leave_at: Option<Instant>,
    linger: Option<Duration>,
    lingering: Option<Lingering>,
    outcome: Option<Outcome>,
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
    fn new(session: Session, connected: Connected, reports: ReportSink) -> Self {
        let Session { mut conference, engine, microphone, leave_after, linger, relays: _ } = session;
        let Connected { endpoint, dialed } = connected;
        let now = Instant::now();
        conference.connected(now, dialed.exporter);
        let (sender, incoming) = mpsc::channel(IN_HAND);
        tokio::spawn(read_control(dialed.reader, sender));
        let (outgoing, receiver) = mpsc::channel(IN_HAND);
        let writer = tokio::spawn(write_control(dialed.writer, receiver));
        Self {
            conference,
            engine,
            endpoint,
            connection: dialed.connection,
            incoming,
            outgoing: Some(outgoing),
            writer,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            reports,
            talkers: Talkers::default(),
            microphone,
            gate: SendGate::new(microphone),
            seq: 0,
            sent: 0,
            buffer: BytesMut::new(),
            entered: false,
            leave_after,
            leave_at: leave_after.map(|after| now + after),
            linger,
            lingering: None,
            outcome: None,
        }
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Finished {
        let start = tokio::time::Instant::now() + FRAME;
        let mut clock = interval_at(start, FRAME);
        // A tick that was missed is made up for, so that the frame clock never falls behind real time.
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut stats = interval_at(start + STATS, STATS);
        stats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut commands_open = true;
        self.drain();
        while self.outcome.is_none() {
            let timer = self.next_timer();
            let outgoing = self.outgoing.clone().filter(|_| !self.unsent.is_empty());
            let woken = tokio::select! {
                // Media first: a late frame is lost, a late message is not.
                biased;
                due = clock.tick() => Woken::Tick(due.into_std()),
                datagram = self.connection.read_datagram() => Woken::Datagram(datagram),
                message = self.incoming.recv() => Woken::Control(message),
                command = commands.recv(), if commands_open => Woken::Command(command),
                () = ready_to_write(outgoing.as_ref()), if outgoing.is_some() => Woken::WriterReady,
                _ = stats.tick() => Woken::Stats,
                () = wait_until(timer), if timer.is_some() => Woken::Timer,
                () = &mut stop => Woken::Stop,
            };
            match woken {
                Woken::Tick(due) => {
                    self.take_datagrams().await;
                    self.on_tick(due);
                }
                Woken::Datagram(Ok(datagram)) => self.on_datagram(&datagram),
                Woken::Datagram(Err(error)) => self.on_lost(&error),
                Woken::Control(Some(message)) => self.conference.handle_control(Instant::now(), &message),
                Woken::Control(None) => self.on_closed().await,
                Woken::Command(Some(command)) => self.on_command(command),
                Woken::Command(None) => commands_open = false,
                Woken::WriterReady => self.write(),
                Woken::Stats => self.report_stats(),
                Woken::Timer => self.on_timer(),
                Woken::Stop => self.leave("signal"),
            }
            self.drain();
        }
        self.finish().await
    }

    fn next_timer(&self) -> Option<Instant> {
        let linger = self.lingering.as_ref().map(|l| l.until);
        [self.conference.poll_timeout(), self.leave_at, linger].into_iter().flatten().min()
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

    // ---- media ----

    /// Takes in what has arrived before the tick that plays it: after a stall, the frames that came in time must not
    /// be counted as late.
    async fn take_datagrams(&mut self) {
        for _ in 0..DATAGRAMS_PER_TICK {
            let datagram = tokio::select! {
                biased;
                datagram = self.connection.read_datagram() => datagram,
                () = std::future::ready(()) => return,
            };
            // A lost connection is told again to the loop.
            let Ok(datagram) = datagram else { return };
            self.on_datagram(&datagram);
        }
    }

    /// `due` is the tick's own time: after a stall several come at once, and playing follows the clock, not the stall.
    fn on_tick(&mut self, due: Instant) {
        self.seq = self.seq.wrapping_add(1);
        if self.gate.is_open(Instant::now()) {
            self.capture_and_send();
        } else {
            self.engine.skip();
        }
        self.engine.render(due);
    }

    fn capture_and_send(&mut self) {
        let muted = self.microphone == Microphone::Muted;
        let captured = self.engine.capture(muted);
        if !self.conference.can_send() {
            return;
        }
        let frame = Frame {
            seq: self.seq,
            stamp: stamp(),
            microphone: self.microphone,
            level: if muted { 127 } else { captured.level },
            opus: if muted { &[] } else { captured.opus },
        };
        let mut out = [0; DATAGRAM_LEN];
        if self.conference.seal(&frame, &mut out).is_ok() {
            self.send_frame(&out);
        }
    }

    fn send_frame(&mut self, datagram: &[u8; DATAGRAM_LEN]) {
        // One allocation lasts for many frames: the buffer is taken back once quinn has let go of its pieces.
        if self.buffer.capacity() < DATAGRAM_LEN {
            self.buffer.reserve(64 * DATAGRAM_LEN);
        }
        self.buffer.extend_from_slice(datagram);
        let bytes = self.buffer.split().freeze();
        // Fails only when the connection is gone, which its own branch tells.
        if self.connection.send_datagram(bytes).is_ok() {
            self.sent += 1;
        }
    }

    fn on_datagram(&mut self, datagram: &[u8]) {
        let now = Instant::now();
        let mut plaintext = [0; PLAINTEXT_LEN];
        let opened = self.conference.open(now, datagram, &mut plaintext);
        if let Some(lingering) = &mut self.lingering {
            lingering.note(now, datagram, matches!(opened, Ok(Some(_))));
            return;
        }
        match opened {
            Ok(Some((index, frame))) => {
                let muted = frame.microphone == Microphone::Muted;
                self.engine.receive(index.0, frame.seq, muted, frame.level, frame.opus, now);
                if let Some(microphone) = self.talkers.on_opened(index, &frame, now, stamp()) {
                    let on = microphone == Microphone::Muted;
                    self.reports.send(Report::Muted { index: index.0, on });
                }
            }
            Ok(None) => {}
            Err(dropped) => self.on_dropped(datagram, dropped),
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
                Transmit::Control(bytes) => {
                    self.unsent_bytes += bytes.len();
                    self.unsent.push_back(bytes.into());
                }
                Transmit::Datagram(bytes) => {
                    // As for frames: the connection's end is told elsewhere.
                    let _ = self.connection.send_datagram(bytes.into());
                }
            }
        }
        self.write();
        if self.unsent_bytes > MAX_UNSENT && self.outcome.is_none() {
            self.outcome = Some(Outcome::Relay("the relay takes no messages any more".to_owned()));
        }
        while let Some(event) = self.conference.poll_event() {
            self.on_event(event);
        }
    }

    fn write(&mut self) {
        let Some(outgoing) = &self.outgoing else { return };
        while let Ok(permit) = outgoing.try_reserve() {
            let Some(message) = self.unsent.pop_front() else { return };
            self.unsent_bytes -= message.len();
            permit.send(message);
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
            Event::Knock { id, person } => self.reports.send(Report::Knock {
                id: id.0,
                name: person.name.as_str().to_owned(),
                safety_number: person.safety_number.as_str().to_owned(),
                standing: Standing::of(person.kind),
            }),
            Event::KnockGone { .. } => {}
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
                let kind = alarm_name(kind);
                self.reports.send(Report::Alarm { kind, index: index.map(|i| i.0), detail: detail.to_owned() });
            }
            Event::Failed(failure) => self.outcome = Some(Outcome::of(failure)),
            Event::RelayClosing => {
                let message = "the relay is shutting down".to_owned();
                self.reports.send(Report::Notice { message });
            }
        }
    }

    fn on_roster(&mut self) {
        let now = Instant::now();
        if !std::mem::replace(&mut self.entered, true) {
            self.gate.on_entered(now, self.conference.rate());
            if self.conference.index() != Some(MemberIndex::HOST) {
                self.leave_at = self.leave_after.map(|after| now + after);
            }
        }
        if let Err(error) = self.talkers.follow(&self.conference, &mut self.engine) {
            self.outcome = Some(Outcome::Local(format!("cannot set up a decoder: {error}")));
        }
        let members = self.talkers.roster(&self.conference, self.microphone);
        self.reports.send(Report::Roster { epoch: self.conference.epoch().number(), members });
    }

    fn on_denied(&mut self, denial: Denial) {
        let reason = match denial {
            Denial::Denied => "denied",
            Denial::Blocked => "blocked",
            Denial::Expired => "expired",
            Denial::Full => "full",
        };
        self.reports.send(Report::Denied { reason });
        self.outcome = Some(Outcome::Denied);
    }

    fn on_removed(&mut self) {
        self.reports.send(Report::Removed);
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
        if self.entered && self.lingering.is_none() {
            let talkers = self.talkers.stats(&self.engine);
            self.reports.send(Report::Stats { talkers });
        }
    }

    // ---- commands ----

    fn on_command(&mut self, command: Command) {
        if let Err(message) = self.obey(command) {
            self.reports.send(Report::Error { message });
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), String> {
        let now = Instant::now();
        if self.lingering.is_some() {
            return Err("you were removed from the meeting".to_owned());
        }
        if !self.entered && !matches!(command, Command::Leave {}) {
            return Err("you are not in the meeting yet: only leave is possible".to_owned());
        }
        let refused = |error: conclave_protocol::conference::ActError| error.to_string();
        match command {
            Command::Admit { who } => {
                let knock = self.find_knock(&who)?;
                self.conference.admit(now, knock).map_err(refused)
            }
            Command::AdmitAll {} => self.conference.admit_all(now).map(|_| ()).map_err(refused),
            Command::Deny { who } => {
                let knock = self.find_knock(&who)?;
                self.conference.deny(now, knock).map_err(refused)
            }
            Command::Remove { who } => {
                let index = self.find_member(&who)?;
                self.conference.remove(now, index).map_err(refused)
            }
            Command::Mute {} => self.switch(Microphone::Muted),
            Command::Unmute {} => self.switch(Microphone::On),
            Command::Stats {} => {
                self.report_stats();
                Ok(())
            }
            Command::Leave {} => {
                self.leave("leave");
                Ok(())
            }
            Command::End {} => {
                self.conference.end(now).map_err(refused)?;
                self.end_with("leave");
                Ok(())
            }
        }
    }

    fn find_knock(&self, who: &Who) -> Result<KnockId, String> {
        if self.conference.index() != Some(MemberIndex::HOST) {
            return Err(conclave_protocol::conference::ActError::NotHost.to_string());
        }
        let knocks = self.conference.knocks();
        let found = knocks.iter().filter(|(id, name)| match who {
            Who::Number(number) => id.0 == *number,
            Who::Name(text) => name.as_str() == text,
        });
        only(found.map(|(id, _)| *id), "knocks")
    }

    fn find_member(&self, who: &Who) -> Result<MemberIndex, String> {
        let found = self.conference.members().filter(|member| match who {
            Who::Number(number) => u32::from(member.index.0) == *number,
            Who::Name(text) => member.name.as_str() == text,
        });
        only(found.map(|member| member.index), "is a member")
    }

    fn switch(&mut self, microphone: Microphone) -> Result<(), String> {
        if self.microphone != microphone {
            self.microphone = microphone;
            self.gate.on_microphone(Instant::now(), microphone, chance());
            if let Some(index) = self.conference.index() {
                self.reports.send(Report::Muted { index: index.0, on: microphone == Microphone::Muted });
            }
        }
        Ok(())
    }

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

    async fn on_closed(&mut self) {
        // The stream ends a moment before the connection tells why.
        let reason = timeout(FLUSH, self.connection.closed()).await;
        match reason {
            Ok(error) => self.on_lost(&error),
            Err(_) => self.outcome = Some(Outcome::Relay("the relay closed its control stream".to_owned())),
        }
    }

    fn on_lost(&mut self, error: &quinn::ConnectionError) {
        if self.lingering.is_some() {
            self.report_linger();
            self.outcome = Some(Outcome::Removed);
        } else if self.outcome.is_none() {
            self.outcome = Some(Outcome::Relay(format!("the connection to the relay is lost: {error}")));
        }
    }

    async fn finish(mut self) -> Finished {
        // The last transmits: good-bye, or the end of the meeting.
        while let Some(transmit) = self.conference.poll_transmit() {
            if let Transmit::Control(bytes) = transmit {
                self.unsent.push_back(bytes.into());
            }
        }
        let flush = async {
            if let Some(outgoing) = self.outgoing.take() {
                for message in std::mem::take(&mut self.unsent) {
                    if outgoing.send(message).await.is_err() {
                        break;
                    }
                }
            }
            // Ends once everything is written and acknowledged, or the stream is gone.
            let _ = (&mut self.writer).await;
        };
        let _ = timeout(FLUSH, flush).await;
        self.connection.close(0u32.into(), b"");
        let _ = timeout(FLUSH, self.endpoint.wait_idle()).await;
        let outcome = self.outcome.unwrap_or(Outcome::Ended { by: "leave".to_owned() });
        let talkers = self.talkers.into_summaries(&self.engine);
        let output = self.engine.finish();
        Finished { outcome, sent: self.sent, talkers, conference: self.conference, output }
    }
}

impl Lingering {
    fn note(&mut self, now: Instant, datagram: &[u8], opened: bool) {
        if Datagram::parse(datagram).is_some_and(|d| d.kind == Kind::Media) {
            self.datagrams += 1;
            if opened {
                self.opened += 1;
                self.last_opened = Some(now);
            }
        }
    }
}

async fn read_control(mut reader: MessageReader, messages: mpsc::Sender<Vec<u8>>) {
    while let Ok(Some(message)) = reader.next().await {
        if messages.send(message.to_vec()).await.is_err() {
            return;
        }
    }
}

async fn write_control(mut writer: MessageWriter, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        if writer.send(message).await.is_err() {
            return;
        }
    }
    writer.finish().await;
}

async fn ready_to_write(outgoing: Option<&mpsc::Sender<Bytes>>) {
    if let Some(outgoing) = outgoing {
        // A closed channel is ready as well: its end is told by the connection.
        let _ = outgoing.reserve().await;
    }
}

async fn wait_until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at.into()).await;
    }
}

fn only<T>(mut found: impl Iterator<Item = T>, what: &str) -> Result<T, String> {
    let first = found.next().ok_or_else(|| format!("nobody of that name or number {what}"))?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(format!("more than one of that name {what}: use the number instead")),
    }
}

fn alarm_name(kind: conclave_protocol::conference::AlarmKind) -> &'static str {
    use conclave_protocol::conference::AlarmKind;
    match kind {
        AlarmKind::BadStatement => "bad_statement",
        AlarmKind::BadRoster => "bad_roster",
        AlarmKind::BadKey => "bad_key",
        AlarmKind::BadAcknowledgement => "bad_acknowledgement",
        AlarmKind::ForgedNotice => "forged_notice",
        AlarmKind::Unauthentic => "unauthentic",
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
