//! A session's link to its relays: one connection in use, and another one when that is lost.
//!
//! While something comes from the relay, nothing happens here but reading and writing. When nothing comes any more
//! ([`liveness`]), when the connection ends or when the relay says that it is about to close, attempts at all relays of
//! the meeting's link begin ([`dial`], at the times of [`pace`]), while the old connection stays in use for as long as
//! there is one. The first that succeeds takes its place. What is told of it, [`outage`] says.
//!
//! Per frame nothing here allocates, logs or looks at the connection beyond handing it a datagram.

mod alone;
mod channel;
mod dial;
mod liveness;
mod outage;
mod pace;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use conclave_protocol::link::RelayAddress;
use conclave_protocol::sframe::frame::DATAGRAM_LEN;
use conclave_relay::media::tap::Beside;

use super::sink::ReportSink;
use super::wait_until;
use crate::exit::Outcome;
use crate::report::Report;
use alone::Alone;
use channel::{Carried, Channel};
use dial::{Connected, Dialling};
use liveness::{Liveness, Pulse};
use outage::Outages;

/// How long what is still under way on a connection that was replaced is read.
const FADE: Duration = Duration::from_millis(200);
/// How long the last messages may take to reach the relay when the session ends.
const FLUSH: Duration = Duration::from_secs(1);
/// The same on a connection that is probably gone: whoever leaves then does not want to wait.
const FLUSH_IN_OUTAGE: Duration = Duration::from_millis(100);
/// Frames for which memory is taken at a time.
const FRAMES_PER_BUFFER: usize = 64;

/// What the session learns from its link.
pub(super) enum Happened {
    /// A control message from the relay.
    Control(Vec<u8>),
    /// A datagram from the relay.
    Datagram(Bytes),
    /// There is no connection any more, and another is being looked for.
    Lost,
    /// Another connection is in use from now on. Its TLS exporter.
    Switched([u8; 32]),
    /// There is no connection any more, and there will be none.
    GaveUp(Outcome),
}

/// See the module.
pub(super) struct Link {
    channel: Option<Channel>,
    liveness: Liveness,
    fading: Option<Fading>,
    dialling: Dialling,
    outages: Outages,
    alone: Alone,
    reports: ReportSink,
    frames: BytesMut,
}

/// A connection that was replaced.
struct Fading {
    channel: Channel,
    until: Instant,
}

enum Step {
    Carried(Carried),
    Late(Carried),
    Dialled(Option<Box<Connected>>),
    Due,
}

impl Link {
    /// Connects for the first time; gives the connection's TLS exporter, too. With a `patience` of zero a connection
    /// that is lost is not replaced.
    ///
    /// # Errors
    /// An [`Outcome`] with words for the user.
    pub(super) async fn open(
        relays: Vec<RelayAddress>,
        patience: Duration,
        reports: ReportSink,
    ) -> Result<(Self, [u8; 32]), Outcome> {
        let mut dialling = Dialling::new(relays);
        let connected = dialling.first().await?;
        let exporter = connected.dialed.exporter;
        let channel = Channel::new(connected);
        let link = Self {
            liveness: Liveness::new(Instant::now(), channel.received()),
            channel: Some(channel),
            fading: None,
            dialling,
            outages: Outages::new(patience),
            alone: Alone::new(),
            reports,
            frames: BytesMut::new(),
        };
        Ok((link, exporter))
    }

    /// Waits for the next thing to happen. Cancel-safe.
    pub(super) async fn next(&mut self) -> Happened {
        loop {
            let due = self.next_due();
            let step = tokio::select! {
                biased;
                carried = carried(self.channel.as_mut()) => Step::Carried(carried),
                late = carried(self.fading.as_mut().map(|fading| &mut fading.channel)) => Step::Late(late),
                connected = self.dialling.next(), if self.dialling.is_active() => Step::Dialled(connected.map(Box::new)),
                () = wait_until(due), if due.is_some() => Step::Due,
            };
            if let Some(happened) = self.on_step(step, Instant::now()) {
                return happened;
            }
        }
    }

    /// What is here already beside the control stream.
    pub(super) async fn ready(&mut self) -> Option<Beside> {
        self.channel.as_mut()?.ready().await
    }

    /// Whether there is a connection, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.channel.is_some()
    }

    /// Whether the relay has said anything on the connection in use.
    pub(super) fn is_answered(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::has_answered)
    }

    /// Whether no control message waits to be written.
    pub(super) fn is_clear(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_clear)
    }

    /// Sends a control message, or drops it without a connection: the conference repeats what matters on the next one.
    pub(super) fn send_control(&mut self, message: Bytes) {
        if let Some(channel) = &mut self.channel {
            channel.send_control(message);
        }
    }

    /// Sends a datagram; `false` without a connection.
    pub(super) fn send_datagram(&self, datagram: Bytes) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.send_datagram(datagram))
    }

    /// Sends a frame; `false` without a connection.
    pub(super) fn send_frame(&mut self, frame: &[u8; DATAGRAM_LEN]) -> bool {
        // One allocation lasts for many frames: the buffer is taken back once quinn has let go of its pieces.
        if self.frames.capacity() < DATAGRAM_LEN {
            self.frames.reserve(FRAMES_PER_BUFFER * DATAGRAM_LEN);
        }
        self.frames.extend_from_slice(frame);
        let frame = self.frames.split().freeze();
        self.send_datagram(frame)
    }

    /// The relay in use is about to close: the others are tried first.
    pub(super) fn on_relay_closing(&mut self, now: Instant) {
        let Some(channel) = self.channel.as_ref().filter(|_| self.outages.are_mended()) else { return };
        let relay = channel.relay();
        let why = format!("the relay at {} is shutting down", self.name(relay));
        self.outages.on_closing(now, why);
        self.dialling.begin_again(Some(relay));
    }

    /// Whether this client is in the meeting, or waits for it: who waits is slower to suspect a silent relay.
    pub(super) fn expect_more(&mut self, is_member: bool) {
        self.liveness.expect_more(is_member);
    }

    /// To be called about once a second. Whoever is at this relay without anybody else of the meeting looks whether
    /// one of the link's other relays is up, and moves there. Nothing is told as long as none is.
    pub(super) fn watch_for_company(&mut self, now: Instant, is_alone: bool) {
        if self.outages.is_any() || !self.outages.are_mended() {
            return;
        }
        let Some(relay) = self.channel.as_ref().map(Channel::relay) else { return };
        if let Some(relays) = self.alone.look(now, is_alone, relay, self.dialling.count()) {
            let why = format!("nobody else of the meeting is at the relay at {}", self.name(relay));
            self.outages.on_closing(now, why);
            self.dialling.look_at(relays);
        }
    }

    /// Hangs up and looks for another connection, since the relay would not have this client on the same one. Gives
    /// the end when connections are not replaced.
    pub(super) fn redial(&mut self, now: Instant, why: &str) -> Option<Outcome> {
        let channel = self.channel.take()?;
        channel.hang_up();
        if !self.outages.are_mended() {
            return Some(Outcome::Relay(why.to_owned()));
        }
        if let Some(why) = self.outages.on_ended(now, why.to_owned()) {
            self.reports.send(Report::Reconnecting { why });
        }
        self.dialling.begin_again(None);
        None
    }

    /// Whether an outage is not over yet.
    pub(super) fn is_in_outage(&self) -> bool {
        self.outages.is_any()
    }

    /// Sound can flow on the connection in use.
    pub(super) fn on_flowing(&mut self, now: Instant) {
        if let Some(after) = self.outages.on_flowing(now) {
            self.dialling.stop();
            self.report_reconnected(after);
        }
    }

    /// From now on the end of the connection is the end.
    pub(super) fn give_in(&mut self) {
        self.outages.give_in();
        self.dialling.stop();
    }

    /// Ends the connection, once everything is sent that is to be sent.
    pub(super) async fn close(self) {
        let patience = if self.outages.is_any() { FLUSH_IN_OUTAGE } else { FLUSH };
        if let Some(fading) = self.fading {
            fading.channel.hang_up();
        }
        if let Some(channel) = self.channel {
            channel.close(patience).await;
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let fading = self.fading.as_ref().map(|fading| fading.until);
        let look = self.channel.as_ref().filter(|_| self.outages.are_mended()).map(|_| self.liveness.next_look());
        let end = self.outages.end_due().filter(|_| self.channel.is_none());
        [fading, look, end, self.outages.announcement_due()].into_iter().flatten().min()
    }

    fn on_step(&mut self, step: Step, now: Instant) -> Option<Happened> {
        match step {
            Step::Carried(Carried::Control(message)) => Some(Happened::Control(message)),
            Step::Carried(Carried::Datagram(datagram)) | Step::Late(Carried::Datagram(datagram)) => {
                Some(Happened::Datagram(datagram))
            }
            Step::Carried(Carried::Ended(why)) => Some(self.on_ended(&why, now)),
            // What the conference said and heard there counts no more.
            Step::Late(Carried::Control(_)) => None,
            Step::Late(Carried::Ended(_)) => {
                self.fading = None;
                None
            }
            Step::Dialled(Some(connected)) => self.on_connected(*connected, now),
            Step::Dialled(None) => {
                self.on_nothing_found();
                None
            }
            Step::Due => self.on_due(now),
        }
    }

    fn on_due(&mut self, now: Instant) -> Option<Happened> {
        if let Some(fading) = self.fading.take_if(|fading| fading.until <= now) {
            fading.channel.hang_up();
        }
        if self.liveness.next_look() <= now {
            self.look(now);
        }
        if let Some(why) = self.outages.on_time(now) {
            self.reports.send(Report::Reconnecting { why });
        }
        let is_over = self.channel.is_none() && self.outages.end_due().is_some_and(|due| due <= now);
        is_over.then(|| Happened::GaveUp(self.give_up()))
    }

    fn look(&mut self, now: Instant) {
        let Some(channel) = self.channel.as_ref().filter(|_| self.outages.are_mended()) else { return };
        match self.liveness.look(now, channel.received()) {
            Pulse::Quiet => {}
            Pulse::Silent => {
                let relay = channel.relay();
                self.on_silent(now, relay);
            }
            Pulse::Heard => {
                if let Some(recalled) = self.outages.on_heard(now) {
                    self.dialling.stop();
                    recalled.announced.into_iter().for_each(|after| self.report_reconnected(after));
                }
            }
        }
    }

    fn on_silent(&mut self, now: Instant, relay: usize) {
        let why = format!("nothing comes from the relay at {} any more", self.name(relay));
        if self.outages.on_silent(now, self.liveness.heard(), why) && !self.dialling.is_active() {
            self.dialling.begin_again(None);
        }
    }

    fn on_ended(&mut self, why: &str, now: Instant) -> Happened {
        let relay = self.channel.take().map_or_else(String::new, |channel| self.name(channel.relay()));
        let why = format!("the connection to the relay at {relay} is lost: {why}");
        if !self.outages.are_mended() {
            return Happened::GaveUp(Outcome::Relay(why));
        }
        if let Some(why) = self.outages.on_ended(now, why) {
            self.reports.send(Report::Reconnecting { why });
        }
        if !self.dialling.is_active() {
            self.dialling.begin_again(None);
        }
        Happened::Lost
    }

    fn on_connected(&mut self, connected: Connected, now: Instant) -> Option<Happened> {
        // The old connection may have come back since the last look; then this one is dropped.
        self.look(now);
        if !self.outages.is_any() {
            return None;
        }
        self.dialling.stop();
        if let Some(why) = self.outages.on_switched() {
            self.reports.send(Report::Reconnecting { why });
        }
        let message = format!("the relay at {} answers", self.name(connected.relay));
        self.reports.send(Report::Notice { message });
        let exporter = connected.dialed.exporter;
        let channel = Channel::new(connected);
        self.liveness = Liveness::new(now, channel.received());
        self.alone.on_switched();
        let replaced = self.channel.replace(channel);
        let fading = replaced.map(|channel| Fading { channel, until: now + FADE });
        if let Some(older) = std::mem::replace(&mut self.fading, fading) {
            older.channel.hang_up();
        }
        Some(Happened::Switched(exporter))
    }

    /// None of the relays that were looked at answers.
    fn on_nothing_found(&mut self) {
        self.dialling.stop();
        if self.channel.is_some() {
            self.outages.on_nothing_found();
        } else {
            // The connection was lost meanwhile: now any relay will do.
            self.dialling.begin_again(None);
        }
    }

    fn give_up(&mut self) -> Outcome {
        let (why, patience) = self.outages.explain().unwrap_or_default();
        let text = format!(
            "{why}; no relay of the meeting was found again in {} s ({}) — check your network, or ask the host whether \
             the relay runs",
            patience.as_secs(),
            self.dialling.failure()
        );
        self.give_in();
        Outcome::Relay(text)
    }

    fn report_reconnected(&self, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.reports.send(Report::Reconnected { after_ms });
    }

    fn name(&self, relay: usize) -> String {
        self.dialling.relay(relay).map(ToString::to_string).unwrap_or_default()
    }
}

async fn carried(channel: Option<&mut Channel>) -> Carried {
    match channel {
        Some(channel) => channel.next().await,
        None => std::future::pending().await,
    }
}
