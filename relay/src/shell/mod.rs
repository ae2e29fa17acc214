//! The shell around a [`Core`]: sockets, QUIC, time. One thread, one loop, no lock.
//!
//! A general QUIC driver wakes a task per connection and sends a packet per frame. This one drives `quinn-proto` itself:
//! it takes packets in by batches, hands each frame to all its listeners in the same pass, and sends to each listener
//! what has come together in one packet ([`bundle`]). Per forwarded frame it allocates nothing, takes no lock and wakes
//! nobody.
//!
//! What is urgent goes first. In each round it takes in what has come, sends what is due, and only then spends a bounded
//! time on control messages and new connections. When there is more to send than time, frames grow old, and those past
//! their deadline are dropped, the oldest of each listener first.

mod acts;
mod along;
mod arrivals;
mod bundle;
mod client;
mod commands;
mod departure;
mod frames;
mod pressure;
mod rhythm;
mod traffic;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Endpoint, Incoming, ServerConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;

use crate::bucket::Bucket;
use crate::core::{ConnId, Core, Output};
use crate::dial::endpoint_config;
use crate::driver::inbox::Inbox;
use crate::driver::socket::{ReadBuffers, Socket};
use crate::driver::timers::Timers;
use crate::gate::Gate;
use crate::reports::Intake;
use crate::server::{Deadlines, Forwarding};
use crate::stats::Stats;
use client::Client;
pub(crate) use commands::{Command, Figures, Handle, Readiness};
use departure::Departure;
use frames::{FrameId, Frames};
use pressure::Pressure;
use rhythm::Rhythm;

/// Batches of packets taken in before anything is sent: a flood must not keep frames from leaving.
const BATCHES: usize = 16;
/// How long a round may send before it takes in what has come meanwhile: frames that come while others are being sent leave
/// with them, and when they came is known. With 4 ms, the frames of three talkers to 600 and more listeners were bundled in
/// some runs and in others not.
const SEND_FOR: Duration = Duration::from_micros(500);
/// How long a round may spend on control messages that came, on new connections, and on what is not a frame and leaves; at
/// least one is dealt with.
const CONTROL_FOR: Duration = Duration::from_micros(500);
/// The same while frames wait: messages and newcomers then get a quarter of the time and more, and a seal to a thousand
/// listeners, which takes as long as their frames, does not make those twice as late.
const CONTROL_BESIDE: Duration = Duration::from_micros(100);
/// For timers alone nobody wakes up but so often, and while frames come ([`Rhythm`]) not at all: then the loop is awake as often.
/// The shortest of QUIC's timers that matters waits for 25 ms, an acknowledgement's (RFC 9000 §18.2), and a probe's for more
/// than the round trip and that (RFC 9002 §6.2.1).
const STROKE: Duration = Duration::from_millis(20);
/// Attempts that may wait to be looked at. quinn's own default (65,536) lets a flood take memory before anybody has
/// decided anything.
const MAX_INCOMING: usize = 1_024;
/// Receivers for which room is made in advance, so that the hot path doesn't grow its list.
const RECEIVERS: usize = 256;
/// How long a stopping shell waits for its clients to take their last messages, and then for their connections to
/// close: together less than a second, after which supervisors lose patience.
const DRAIN: Duration = Duration::from_millis(600);
const WIND_DOWN: Duration = Duration::from_millis(200);

/// What a shell is made of.
pub(crate) struct Parts<C> {
    pub(crate) core: C,
    pub(crate) gate: Gate,
    pub(crate) stats: Arc<Stats>,
    pub(crate) deadlines: Deadlines,
    pub(crate) forwarding: Forwarding,
}

/// See the module.
pub(crate) struct Shell<C> {
    core: C,
    gate: Gate,
    stats: Arc<Stats>,
    deadlines: Deadlines,
    forwarding: Forwarding,
    pressure: Pressure,
    rhythm: Rhythm,
    reports: Option<Intake>,
    inbox: Inbox<Command>,
    socket: Socket,
    buffers: ReadBuffers,
    endpoint: Endpoint,
    /// By the numbers of their handles.
    clients: Vec<Option<Box<Client>>>,
    /// The same, by what names them in media packets.
    by_media: HashMap<u64, usize>,
    generation: u32,
    timers: Timers,
    /// What control messages may take beyond what goes along with frames.
    beyond: Bucket,
    incoming: VecDeque<Incoming>,
    /// Connections of which packets came, those to which something goes, those whose control stream is to be read, those whose
    /// frames are to leave.
    dirty: Vec<usize>,
    unsettled: VecDeque<usize>,
    readable: VecDeque<usize>,
    ready: VecDeque<usize>,
    /// Connections whose frames are to leave at that time, in its order.
    held: VecDeque<(Instant, usize)>,
    /// Connections of which the core has not heard yet that they are over.
    departed: Vec<ConnId>,
    /// Datagrams of media packets, to be forwarded.
    arrived: Vec<(ConnId, Bytes)>,
    receivers: Vec<ConnId>,
    /// Those that wait for their listeners, and what is being sent of them.
    frames: Frames,
    /// Control messages that go along with frames.
    messages: Frames,
    /// Such as were lost, and of whom.
    lost: Vec<(usize, FrameId)>,
    departure: Departure,
    out: Vec<Output>,
    /// For how long packets have gathered before they were taken in.
    gathered: Duration,
    /// The last round left packets in the socket.
    is_behind: bool,
    stopping: Stopping,
}

/// What there is to do.
struct Woken {
    by_packets: bool,
    by_commands: bool,
}

/// Whether the shell is to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Clients take their last messages until then.
    Drain(Instant),
    /// Connections close until then.
    WindDown(Instant),
}

impl<C: Core> Shell<C> {
    /// Opens the port.
    pub(crate) fn bind(
        address: SocketAddr,
        quic: ServerConfig,
        parts: Parts<C>,
    ) -> io::Result<(Self, Handle, SocketAddr)> {
        let socket = Socket::bind(address)?;
        let address = socket.local_addr()?;
        let (handle, inbox) = commands::pair()?;
        let endpoint = Endpoint::new(Arc::new(endpoint_config()), Some(Arc::new(quic)), socket.finds_mtu(), None);
        let Parts { core, gate, stats, deadlines, forwarding } = parts;
        let shell = Self {
            core,
            gate,
            stats,
            deadlines,
            forwarding,
            pressure: Pressure::default(),
            rhythm: Rhythm::default(),
            reports: None,
            inbox,
            socket,
            buffers: ReadBuffers::default(),
            endpoint,
            clients: Vec::new(),
            by_media: HashMap::new(),
            generation: 0,
            timers: Timers::new(Instant::now(), STROKE),
            beyond: Bucket::default(),
            incoming: VecDeque::new(),
            dirty: Vec::new(),
            unsettled: VecDeque::new(),
            readable: VecDeque::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            departed: Vec::new(),
            arrived: Vec::new(),
            receivers: Vec::with_capacity(RECEIVERS),
            frames: Frames::default(),
            messages: Frames::default(),
            lost: Vec::new(),
            departure: Departure::default(),
            out: Vec::new(),
            gathered: Duration::ZERO,
            is_behind: false,
            stopping: Stopping::No,
        };
        Ok((shell, handle, address))
    }

    /// Hands reports to that sink.
    pub(crate) fn set_reports(&mut self, intake: Intake) {
        self.reports = Some(intake);
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// What is wrong with the socket; clients are told and closed all the same.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        loop {
            let woken = self.wait()?;
            if let Err(error) = self.round(woken) {
                outcome = Err(error);
                self.shut_down(Instant::now());
            }
            if self.is_over(Instant::now()) {
                return outcome;
            }
        }
    }

    fn round(&mut self, woken: Woken) -> io::Result<()> {
        if self.socket.is_blocked() {
            self.socket.resume();
        }
        if woken.by_packets {
            self.take_in()?;
        }
        let now = Instant::now();
        self.hear_dirty(now);
        self.release_held(now);
        self.send_ready();
        self.socket.flush();
        let now = Instant::now();
        if woken.by_commands {
            self.take_commands(now);
        }
        self.time_core(now);
        self.read_controls(now);
        self.accept(now);
        self.fire(now);
        self.settle_some(Instant::now());
        self.part(now);
        self.socket.flush();
        Ok(())
    }

    /// Takes in what has come, and what comes in a moment if that is to be expected: packets come often, or frames have come
    /// without others that are expected with them.
    fn take_in(&mut self) -> io::Result<()> {
        let gather = self.forwarding.gather;
        self.gathered = Duration::ZERO;
        // While there is more to do, packets gather anyway.
        let is_busy = self.is_behind || !self.ready.is_empty() || !self.unsettled.is_empty();
        let may_gather = !is_busy && !gather.is_zero();
        let is_often = self.rhythm.on_packets(Instant::now());
        if may_gather && is_often {
            thread::sleep(gather);
            self.gathered = gather;
        }
        self.receive(Instant::now())?;
        if may_gather && !is_often && self.next_release().is_some() {
            // Those that wait for nothing don't wait for this.
            self.send_ready();
            self.socket.flush();
            if !self.is_behind && self.ready.is_empty() {
                thread::sleep(gather);
            }
            self.receive(Instant::now())?;
        }
        Ok(())
    }

    /// Takes in what has come.
    fn receive(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..BATCHES {
            let Self { socket, buffers, endpoint, clients, dirty, incoming, by_media, arrived, lost, stats, .. } = self;
            let mut answers = Vec::new();
            let is_more = socket.receive(buffers, |received| {
                let taken = traffic::Taken { endpoint, clients, dirty, incoming, by_media, arrived, lost, stats };
                answers.extend(taken.packet(now, received));
            })?;
            for (transmit, mut bytes) in answers {
                self.socket.send(transmit, &mut bytes);
            }
            self.is_behind = is_more;
            if !is_more {
                break;
            }
        }
        self.forward_arrived(now);
        self.send_lost_again(now);
        Ok(())
    }

    /// Waits for packets, commands, room in the socket, or the next time at which something is due.
    fn wait(&mut self) -> io::Result<Woken> {
        let now = Instant::now();
        let is_stuck = self.socket.is_blocked();
        let has_work = !(self.readable.is_empty() && self.incoming.is_empty());
        // What is to be sent waits for room in the socket.
        let has_packets = !self.ready.is_empty() || !self.unsettled.is_empty();
        let due = if has_work || (has_packets && !is_stuck) { Some(now) } else { self.next_due() };
        let timeout = due.map(|due| due.saturating_duration_since(now));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let flags = if is_stuck { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [
            PollFd::from_borrowed_fd(self.socket.as_fd(), flags),
            PollFd::from_borrowed_fd(self.inbox.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [packets, commands] = fds.map(|fd| fd.revents());
        // An error on the socket shows when it is read.
        let by_packets = packets.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP);
        Ok(Woken { by_packets, by_commands: !commands.is_empty() })
    }

    fn next_due(&mut self) -> Option<Instant> {
        let stop = match self.stopping {
            Stopping::No => None,
            Stopping::Drain(until) | Stopping::WindDown(until) => Some(until),
        };
        // Until then the next frames wake the loop up, and what is due meanwhile can wait for them.
        let frames = self.rhythm.expects_frames_until();
        let timers = [self.timers.next(), self.core.next_timeout()].into_iter().flatten().min();
        let timers = timers.map(|due| frames.map_or(due, |frames| due.max(frames)));
        [timers, self.next_release(), stop].into_iter().flatten().min()
    }

    fn control_for(&self) -> Duration {
        if self.ready.is_empty() { CONTROL_FOR } else { CONTROL_BESIDE }
    }

    fn client(&mut self, at: usize) -> Option<&mut Client> {
        self.clients.get_mut(at)?.as_deref_mut()
    }

    /// Where a connection is that the core names.
    fn find(&self, conn: ConnId) -> Option<usize> {
        let at = place(conn);
        self.clients.get(at)?.as_ref().filter(|client| client.is(conn)).map(|_| at)
    }
}

/// The number of a connection's handle, which is in the lower half of its name; the upper half makes the name unique.
fn place(conn: ConnId) -> usize {
    usize::try_from(conn.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}
