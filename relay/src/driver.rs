//! Calls the [`Core`], one call at a time, and carries out what it wants.
//!
//! The lock around the core is taken by every task of the server. On the single-threaded runtime that the relay
//! uses nobody ever waits for it; elsewhere it keeps the calls apart. It is never held across an `await`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant as TokioInstant, sleep_until};

use crate::core::{CloseCode, ConnId, Core, Delivery, Output, Peer, ReportTicket};
use crate::link::Link;
use crate::reports::Intake;
use crate::stamps::StampKeys;

/// The least time between two timeouts: the resolution of tokio's timer. A core that names a time already past
/// can't keep the runtime from its other work.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// Receivers for which room is made in advance, so that the hot path doesn't grow its list.
const RECEIVERS: usize = 256;

/// The core with everything needed to carry out its wishes.
pub(crate) struct Driver<C> {
    state: Mutex<State<C>>,
    rescheduled: Notify,
    /// Where reports go, once somebody has said so.
    reports: OnceLock<Intake>,
}

struct State<C> {
    core: C,
    links: HashMap<ConnId, Arc<Link>>,
    next_id: u64,
    next_timeout: Option<Instant>,
    /// Kept between calls for its capacity; empty in between.
    out: Vec<Output>,
    /// Kept between calls for its capacity.
    receivers: Vec<ConnId>,
}

impl<C: Core> Driver<C> {
    pub(crate) fn new(core: C) -> Self {
        let state = State {
            next_timeout: core.next_timeout(),
            core,
            links: HashMap::new(),
            next_id: 0,
            out: Vec::new(),
            receivers: Vec::with_capacity(RECEIVERS),
        };
        Self { state: Mutex::new(state), rescheduled: Notify::new(), reports: OnceLock::new() }
    }

    /// Introduces a client; [`Driver::disconnect`] must follow.
    pub(crate) fn connect(&self, peer: &Peer, link: Arc<Link>) -> ConnId {
        let mut state = self.state();
        let conn = ConnId(state.next_id);
        state.next_id += 1;
        state.links.insert(conn, link);
        self.act(&mut state, |core, now, out| core.connected(now, conn, peer, out));
        conn
    }

    /// Passes on a control message, unless its connection is closing.
    pub(crate) fn control(&self, conn: ConnId, message: &[u8]) {
        let mut state = self.state();
        if state.links.get(&conn).is_some_and(|link| !link.is_closing()) {
            self.act(&mut state, |core, now, out| core.control(now, conn, message, out));
        }
    }

    /// Passes on a datagram to whom it concerns: one copy of the reference each, never of the bytes.
    pub(crate) fn datagram(&self, conn: ConnId, datagram: &Bytes) {
        let mut state = self.state();
        let State { core, links, receivers, .. } = &mut *state;
        receivers.clear();
        core.datagram(now(), conn, datagram, receivers);
        for link in receivers.iter().filter_map(|receiver| links.get(receiver)) {
            link.send_datagram(datagram.clone());
        }
    }

    /// Takes leave of a connection.
    pub(crate) fn disconnect(&self, conn: ConnId) {
        let mut state = self.state();
        if state.links.remove(&conn).is_some() {
            self.act(&mut state, |core, now, out| core.disconnected(now, conn, out));
        }
    }

    /// From now on reports go there. The first one stays.
    pub(crate) fn set_reports(&self, intake: Intake) {
        let _first = self.reports.set(intake);
    }

    /// Tells the core what has become of a report.
    pub(crate) fn report_delivered(&self, ticket: ReportTicket, delivery: Delivery) {
        let mut state = self.state();
        self.act(&mut state, |core, now, out| core.report_delivered(now, ticket, delivery, out));
    }

    /// Gives the core its stamp keys.
    pub(crate) fn stamp_keys(&self, keys: StampKeys) {
        self.state().core.stamp_keys(keys);
    }

    /// Lets the core say good-bye, then closes every connection once it has been told.
    pub(crate) fn shutdown(&self) {
        let mut state = self.state();
        self.act(&mut state, |core, now, out| core.shutdown(now, out));
        for link in state.links.values() {
            link.close_after_queue(CloseCode::SHUTDOWN);
        }
    }

    /// Calls the core at the times it asks for, for ever.
    pub(crate) async fn run_timeouts(&self) -> Infallible {
        loop {
            let next = self.state().next_timeout;
            let Some(next) = next else {
                self.rescheduled.notified().await;
                continue;
            };
            let at = TokioInstant::from_std(next).max(TokioInstant::now() + TIMER_RESOLUTION);
            tokio::select! {
                () = sleep_until(at) => {
                    let mut state = self.state();
                    self.act(&mut state, |core, now, out| core.timeout(now, out));
                }
                () = self.rescheduled.notified() => {}
            }
        }
    }

    fn act(&self, state: &mut State<C>, call: impl FnOnce(&mut C, Instant, &mut Vec<Output>)) {
        call(&mut state.core, now(), &mut state.out);
        let mut failed = self.drain(state);
        // Without a sink every report has failed. The core may answer that by more, but by no more reports.
        while let Some(ticket) = failed.pop() {
            state.core.report_delivered(now(), ticket, Delivery::Failed, &mut state.out);
            failed.extend(self.drain(state));
        }
        let next = state.core.next_timeout();
        if next != state.next_timeout {
            state.next_timeout = next;
            self.rescheduled.notify_one();
        }
    }

    /// Carries out what the core wants; the reports that nobody takes. What takes them answers later, by itself.
    fn drain(&self, state: &mut State<C>) -> Vec<ReportTicket> {
        let mut failed = Vec::new();
        for output in state.out.drain(..) {
            match (output, self.reports.get()) {
                (Output::Report { ticket, receipt, bytes }, Some(intake)) => intake.offer(ticket, receipt, bytes),
                (Output::Report { ticket, .. }, None) => failed.push(ticket),
                (output, _) => carry_out(&state.links, output),
            }
        }
        failed
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        // A panic of the core ends the server (see `Server::run`); what is still under way may finish.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outputs for connections that have just gone have no effect: the core learns of their end in its own turn.
fn carry_out(links: &HashMap<ConnId, Arc<Link>>, output: Output) {
    match output {
        Output::Control { to, bytes } => {
            if let Some(link) = links.get(&to) {
                link.send_control(bytes);
            }
        }
        Output::Datagram { to, bytes } => {
            if let Some(link) = links.get(&to) {
                link.send_datagram(bytes);
            }
        }
        Output::Close { conn, code } => {
            if let Some(link) = links.get(&conn) {
                link.close_after_queue(code);
            }
        }
        // `Driver::drain` has dealt with it.
        Output::Report { .. } => {}
    }
}

fn now() -> Instant {
    // tokio's clock, so that a test that pauses it pauses the core too.
    TokioInstant::now().into_std()
}
