//! The loop of a shard.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use conclave_relay::dial::endpoint_config;
use conclave_relay::driver::inbox::{Inbox, Outbox};
use conclave_relay::driver::socket::{ReadBuffers, Received, Socket};
use conclave_relay::driver::timers::Timers;
use conclave_relay::{media, tls};
use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, Transmit};
use tokio::sync::oneshot;

use super::caller::Caller;
use super::connection::{Connection, Dial, Seen};
use super::probe::Probe;
use super::sockets::{Sockets, Woken};
use crate::meter::Meter;
use crate::room::Stage;
use crate::sync::lock;

/// Timers are as exact as those of a client on tokio.
const STROKE: Duration = Duration::from_millis(1);
/// From one round to the next, where frames may wait. Whoever sends to a thread that rests need not wake it up.
const REST: Duration = Duration::from_millis(1);
/// Batches taken from one socket before the others have their turn.
const BATCHES: usize = 4;

/// What a shard is told. Numbers are those of connections.
pub(super) enum Command {
    Dial(Box<Dial>),
    Datagram(u64, Bytes),
    Control(u64, Bytes),
    Finish(u64, oneshot::Sender<()>),
    Close(u64),
    Stop,
}

/// See the module.
pub(super) struct Driver {
    inbox: Inbox<Command>,
    outbox: Outbox<Command>,
    stage: Arc<Stage>,
    meter: Arc<Mutex<Meter>>,
    probe: Arc<Probe>,
    sockets: Sockets,
    buffers: ReadBuffers,
    endpoint: Endpoint,
    /// By the numbers of their handles.
    callers: Vec<Option<Box<Caller>>>,
    /// The same, by what names them in media packets.
    by_media: HashMap<u64, usize>,
    /// Media packets to be heard, opened, and of whom.
    arrived: Vec<(usize, BytesMut)>,
    /// Connections that there have been.
    dialed: u64,
    dirty: Vec<usize>,
    timers: Timers,
    is_over: bool,
}

impl Driver {
    pub(super) fn new(
        inbox: Inbox<Command>,
        outbox: Outbox<Command>,
        stage: Arc<Stage>,
        meter: Arc<Mutex<Meter>>,
        probe: Arc<Probe>,
    ) -> io::Result<Self> {
        let sharing = usize::try_from(stage.plan.shape.sharing()).unwrap_or(1);
        let sockets = Sockets::to(stage.relay.socket, sharing, &inbox)?;
        Ok(Self {
            inbox,
            outbox,
            stage,
            meter,
            probe,
            sockets,
            buffers: ReadBuffers::default(),
            endpoint: Endpoint::new(Arc::new(endpoint_config()), None, true, None),
            callers: Vec::new(),
            by_media: HashMap::new(),
            arrived: Vec::new(),
            dialed: 0,
            dirty: Vec::new(),
            timers: Timers::new(Instant::now(), STROKE),
            is_over: false,
        })
    }

    /// Carries connections until it is told to stop.
    pub(super) fn run(mut self) -> Result<()> {
        let mut woken = Woken::default();
        while !self.is_over {
            self.wait(&mut woken).context("a shard cannot wait")?;
            let stage = Arc::clone(&self.stage);
            self.probe.answer(|| stage.clock.now());
            let now = Instant::now();
            let rests_until = stage.plan.is_of_joins().then(|| now + REST);
            self.take_commands(now)?;
            for number in &woken.sockets {
                self.receive(now, *number)?;
            }
            self.hear_arrived(now);
            self.fire(now);
            self.settle(now);
            self.sockets.flush();
            if let Some(until) = rests_until {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    /// Waits for packets, commands, or the next time at which something is due.
    fn wait(&mut self, woken: &mut Woken) -> io::Result<()> {
        let now = Instant::now();
        let due = if self.dirty.is_empty() { self.timers.next() } else { Some(now) };
        self.sockets.wait(due.map(|due| due.saturating_duration_since(now)), woken)?;
        if woken.by_inbox {
            self.inbox.clear();
        }
        Ok(())
    }

    fn take_commands(&mut self, now: Instant) -> Result<()> {
        while let Some(command) = self.inbox.take() {
            match command {
                Command::Dial(dial) => self.dial(now, *dial)?,
                Command::Datagram(number, datagram) => self.send_datagram(now, number, datagram),
                Command::Control(number, message) => self.with(number, |caller| caller.send_control(message)),
                Command::Finish(number, done) => self.with(number, |caller| caller.finish(done)),
                Command::Close(number) => self.with(number, |caller| caller.close(now, "closed here")),
                Command::Stop => self.is_over = true,
            }
        }
        Ok(())
    }

    fn dial(&mut self, now: Instant, dial: Dial) -> Result<()> {
        let relay = &self.stage.relay;
        let config = tls::client_config(&relay.trust)?.quic;
        let (handle, quic) = match self.endpoint.connect(now, config, relay.socket, &relay.name) {
            Ok(connecting) => connecting,
            Err(error) => {
                // Who has stopped waiting needs no reason.
                let _told = dial.done.send(Err(format!("cannot connect: {error}")));
                return Ok(());
            }
        };
        let at = handle.0;
        let socket = self.sockets.number_for(at, dial.from).context("a member needs a socket")?;
        if self.callers.len() <= at {
            self.callers.resize_with(at + 1, || None);
        }
        // The lower half says where it is, the upper which of all that have been there.
        self.dialed += 1;
        let number = self.dialed << 32 | u64::try_from(at).unwrap_or_default();
        let seen = Arc::new(Seen::default());
        let connection = Connection::new(number, self.outbox.clone(), Arc::clone(&seen));
        self.timers.forget(at);
        self.callers[at] = Some(Box::new(Caller::new(now, quic, socket, connection, dial, seen)));
        self.mark(at);
        Ok(())
    }

    /// Does something with a connection, if it is still there.
    fn with(&mut self, number: u64, act: impl FnOnce(&mut Caller)) {
        if let Some((at, caller)) = find(&mut self.callers, number) {
            act(caller);
            self.mark(at);
        }
    }

    fn send_datagram(&mut self, now: Instant, number: u64, datagram: Bytes) {
        let Self { callers, sockets, .. } = self;
        let Some((at, caller)) = find(callers, number) else { return };
        let Some(socket) = sockets.get(caller.socket) else { return };
        let mut buffer = socket.buffer();
        match caller.send_datagram(now, datagram, &mut buffer) {
            Some(transmit) => socket.send(transmit, &mut buffer),
            None => {
                socket.give_back(buffer);
                self.mark(at);
            }
        }
    }

    /// Hears what has come in media packets.
    fn hear_arrived(&mut self, now: Instant) {
        if self.arrived.is_empty() {
            return;
        }
        let Self { meter, arrived, callers, sockets, stage, .. } = self;
        let mut meter = lock(meter);
        for (at, packet) in arrived.drain(..) {
            let Some(caller) = callers.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            caller.hear_media(stage, &packet, &mut meter);
            if let Some(socket) = sockets.get(caller.socket) {
                ask(caller, now, socket);
            }
        }
    }

    fn mark(&mut self, at: usize) {
        if let Some(caller) = self.callers.get_mut(at).and_then(Option::as_deref_mut)
            && !std::mem::replace(&mut caller.is_dirty, true)
        {
            self.dirty.push(at);
        }
    }

    /// Takes in what has come on a socket.
    fn receive(&mut self, now: Instant, number: usize) -> Result<()> {
        for _ in 0..BATCHES {
            let Self { sockets, buffers, endpoint, callers, dirty, by_media, arrived, .. } = self;
            let Some(socket) = sockets.get(number) else { break };
            let mut answers = Vec::new();
            let is_more = socket.receive(buffers, |received| {
                let mut taken = Taken { endpoint, callers, dirty, by_media, arrived };
                answers.extend(taken.packet(now, received));
            });
            let is_more = is_more.context("a member's socket")?;
            for (transmit, mut bytes) in answers {
                socket.send(transmit, &mut bytes);
            }
            if !is_more {
                break;
            }
        }
        Ok(())
    }

    /// Looks at the connections whose time has come.
    fn fire(&mut self, now: Instant) {
        while let Some(at) = self.timers.pop(now) {
            let Some(caller) = self.callers.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            // Most have moved to a later time.
            if let Some(due) = caller.due().filter(|due| *due > now) {
                self.timers.set(at, due);
                continue;
            }
            caller.on_time(now, &self.stage);
            if let Some(socket) = self.sockets.get(caller.socket) {
                ask(caller, now, socket);
            }
            self.mark(at);
        }
    }

    /// Looks at every connection of which something has come, or to which something goes.
    fn settle(&mut self, now: Instant) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let meter = Arc::clone(&self.meter);
        let mut meter = lock(&meter);
        for at in dirty.drain(..) {
            let Some(caller) = self.callers.get_mut(at).and_then(Option::as_deref_mut) else { continue };
            caller.is_dirty = false;
            caller.hear(now, &self.stage, &mut meter);
            if let Some(id) = caller.media_id() {
                self.by_media.insert(id, at);
            }
            if let Some(socket) = self.sockets.get(caller.socket) {
                transmit(caller, now, socket);
            }
            if let Some(due) = caller.due() {
                self.timers.set(at, due);
            }
            self.exchange(at);
        }
        // What was marked meanwhile waits for the next round; else the list's room is kept.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Passes messages between the connection and the endpoint, and forgets a connection that is drained.
    fn exchange(&mut self, at: usize) {
        while let Some(caller) = self.callers.get_mut(at).and_then(Option::as_deref_mut)
            && let Some(event) = caller.quic.poll_endpoint_events()
        {
            let is_drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(at), event) {
                caller.quic.handle_event(event);
                self.mark(at);
            }
            if is_drained {
                if let Some(id) = self.callers[at].take().and_then(|caller| caller.media_id()) {
                    self.by_media.remove(&id);
                }
                self.timers.forget(at);
            }
        }
    }
}

/// The connection of that number, if it is still there, and where.
fn find(callers: &mut [Option<Box<Caller>>], number: u64) -> Option<(usize, &mut Caller)> {
    let at = usize::try_from(number & u64::from(u32::MAX)).ok()?;
    let caller = callers.get_mut(at)?.as_deref_mut().filter(|caller| caller.number == number)?;
    Some((at, caller))
}

/// Sends the question whether media packets come through, if it is time.
fn ask(caller: &mut Caller, now: Instant, socket: &mut Socket) {
    let mut buffer = socket.buffer();
    match caller.ask(now, &mut buffer) {
        Some(transmit) => socket.send(transmit, &mut buffer),
        None => socket.give_back(buffer),
    }
}

/// Sends what the connection has to send.
fn transmit(caller: &mut Caller, now: Instant, socket: &mut Socket) {
    let mut buffer = socket.buffer();
    while let Some(transmit) = caller.quic.poll_transmit(now, 1, &mut buffer) {
        socket.send(transmit, &mut buffer);
    }
    socket.give_back(buffer);
}

/// What a packet that came may touch.
struct Taken<'a> {
    endpoint: &'a mut Endpoint,
    callers: &'a mut Vec<Option<Box<Caller>>>,
    dirty: &'a mut Vec<usize>,
    by_media: &'a HashMap<u64, usize>,
    arrived: &'a mut Vec<(usize, BytesMut)>,
}

impl Taken<'_> {
    /// Hands a packet to its connection. What QUIC answers at once to one of no connection comes back.
    fn packet(&mut self, now: Instant, received: Received) -> Option<(Transmit, Vec<u8>)> {
        if media::is_media(&received.bytes) {
            self.media(now, received.bytes);
            return None;
        }
        let Received { from, ecn, bytes, .. } = received;
        // Allocates only when there is an answer.
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, None, ecn, bytes, &mut answer)? {
            DatagramEvent::ConnectionEvent(ConnectionHandle(at), event) => {
                let caller = self.callers.get_mut(at).and_then(Option::as_deref_mut)?;
                if caller.takes_packet() {
                    caller.quic.handle_event(event);
                    if !std::mem::replace(&mut caller.is_dirty, true) {
                        self.dirty.push(at);
                    }
                }
                None
            }
            // Without a server's configuration nobody can come in.
            DatagramEvent::NewConnection(_) => None,
            DatagramEvent::Response(transmit) => Some((transmit, answer)),
        }
    }

    fn media(&mut self, now: Instant, mut packet: BytesMut) {
        let at = media::destination(&packet).and_then(|id| self.by_media.get(&id).copied());
        let caller = at.and_then(|at| self.callers.get_mut(at)).and_then(Option::as_deref_mut);
        if let (Some(at), Some(caller)) = (at, caller)
            && caller.takes_packet()
            && caller.open_media(now, &mut packet)
        {
            self.arrived.push((at, packet));
        }
    }
}
