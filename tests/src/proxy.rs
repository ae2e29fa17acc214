//! A bad network between real processes: a UDP proxy that delays, loses, duplicates and reorders datagrams.
//!
//! It owns one listening socket and, for each client address that writes to it, one socket of its own towards
//! the upstream, so that the upstream sees as many peers as there are clients (a *flow* each). What a datagram
//! holds is never looked at. Given a seed, the fate of the n-th datagram of a flow and direction is always the
//! same, whatever the other flows do.
//!
//! A blocking thread reads each socket, and one thread sends: readers stamp the time of arrival at once, the
//! sender sleeps until the earliest departure that is due. No async runtime is used, because timers of a
//! millisecond would be a large part of what tests measure here; [`Proxy::lateness`] tells how well it kept time.

use anyhow::Context as _;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From a client to the upstream.
    Up,
    /// From the upstream to a client.
    Down,
}

/// Number of a client address in the order of its first datagram, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub u32);

/// What happens to the datagrams of one direction. The default is a perfect path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// One-way delay of every datagram.
    pub delay: Duration,
    /// Upper end of a uniform delay on top. Jitter keeps the order within a flow, as queues do.
    pub jitter: Duration,
    /// Probability of losing a datagram, 0 to 1.
    pub loss: f64,
    /// Probability of delivering a datagram twice, the copy right after it, 0 to 1.
    pub duplicate: f64,
    /// Probability of holding a datagram back by `reorder_by`, so that later ones overtake it, 0 to 1.
    pub reorder: f64,
    /// How long a reordered datagram is held back, beyond its delay.
    pub reorder_by: Duration,
}

impl Impairment {
    /// A path that only delays and loses.
    pub fn of(delay: Duration, loss: f64) -> Self {
        Self { delay, loss, ..Self::default() }
    }
}

/// What the proxy keeps of the datagrams that *arrive* at it, before any impairment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    #[default]
    Off,
    /// Time, flow, direction and size of at most so many datagrams.
    Sizes(usize),
    /// The bytes as well, until they sum to so many.
    Bytes(usize),
}

/// How a [`Proxy`] behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Client to upstream.
    pub up: Impairment,
    /// Upstream to client.
    pub down: Impairment,
    /// Seed of every random choice.
    pub seed: u64,
    /// What is recorded.
    pub record: Record,
}

impl Config {
    /// The same impairment both ways.
    pub fn symmetric(impairment: Impairment, seed: u64) -> Self {
        Self { up: impairment, down: impairment, seed, record: Record::Off }
    }
}

/// One datagram, as it arrived at the proxy.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Time since the proxy started.
    pub at: Duration,
    /// Whose it is.
    pub flow: FlowId,
    /// Which way it went.
    pub direction: Direction,
    /// UDP payload in bytes.
    pub len: usize,
    /// The payload, with [`Record::Bytes`]; otherwise empty.
    pub bytes: Vec<u8>,
}

/// Datagrams of one direction, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Arrived at the proxy.
    pub received: u64,
    /// Handed to the kernel, copies included.
    pub forwarded: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Delivered a second time on purpose.
    pub duplicated: u64,
    /// Held back on purpose.
    pub reordered: u64,
    /// Lost for another reason: too many flows or too many in flight, or the kernel refused to send.
    pub refused: u64,
}

/// How much later than planned datagrams left the proxy, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// Datagrams measured.
    pub count: u64,
    /// Median, rounded up to [`LATENESS_STEP`].
    pub p50: Duration,
    /// 99th percentile, rounded up to [`LATENESS_STEP`].
    pub p99: Duration,
    /// The latest of all.
    pub max: Duration,
}

/// A running proxy. Dropping it stops its threads.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    queue: mpsc::Sender<InFlight>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of the upstream's loopback family and forwards to `upstream`.
    ///
    /// # Errors
    /// When a socket cannot be bound or a thread not be started.
    pub fn start(upstream: SocketAddr, config: Config) -> anyhow::Result<Self> {
        let listener = UdpSocket::bind(loopback_like(upstream)).context("proxy: bind")?;
        listener.set_read_timeout(Some(STOP_CHECK)).context("proxy: read timeout")?;
        let addr = listener.local_addr().context("proxy: local address")?;
        let shared = Arc::new(Shared::new(upstream, listener, config));
        let (queue, departures) = mpsc::channel();
        let sender = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("proxy-send".into()).spawn(move || send_loop(&shared, &departures))
        };
        let reader = {
            let (shared, queue) = (Arc::clone(&shared), queue.clone());
            thread::Builder::new().name("proxy-up".into()).spawn(move || read_clients(&shared, &queue))
        };
        let threads = vec![sender.context("proxy: thread")?, reader.context("proxy: thread")?];
        Ok(Self { addr, shared, queue, threads })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the impairment of one direction for datagrams that arrive from now on.
    pub fn set(&self, direction: Direction, impairment: Impairment) {
        let mut impairments = lock(&self.shared.impairments);
        impairments[direction as usize] = impairment;
    }

    /// Counters of one direction.
    pub fn counters(&self, direction: Direction) -> Counters {
        self.shared.counters[direction as usize].snapshot()
    }

    /// Number of client addresses seen.
    pub fn flows(&self) -> usize {
        lock(&self.shared.flows).len()
    }

    /// Takes what has been recorded since the last call, in order of arrival per flow and direction.
    pub fn take_recorded(&self) -> Vec<Observed> {
        let mut recorder = lock(&self.shared.recorder);
        recorder.bytes = 0;
        std::mem::take(&mut recorder.observed)
    }

    /// Datagrams that were not recorded because the limit was reached.
    pub fn unrecorded(&self) -> u64 {
        lock(&self.shared.recorder).skipped
    }

    /// Sends bytes of one's own as if they had come along a flow: upwards the upstream sees them come from the
    /// client, downwards the client sees them come from where it sends to. They are neither impaired nor recorded.
    ///
    /// # Errors
    /// When there is no such flow, or the kernel refuses to send.
    pub fn inject(&self, flow: FlowId, direction: Direction, bytes: &[u8]) -> anyhow::Result<()> {
        let found = lock(&self.shared.flows).values().find(|known| known.id == flow).cloned();
        let flow = found.with_context(|| format!("proxy: no flow {}", flow.0))?;
        match direction {
            Direction::Up => flow.socket().send(bytes),
            Direction::Down => self.shared.listener.send_to(bytes, flow.client),
        }
        .context("proxy: inject")?;
        Ok(())
    }

    /// Takes another address towards the upstream for every flow, as a router does that forgets its mappings or a
    /// machine that changes its network. What still comes to the old addresses is lost.
    ///
    /// # Errors
    /// When a socket cannot be bound or a thread not be started.
    pub fn change_addresses(&self) -> anyhow::Result<()> {
        for flow in lock(&self.shared.flows).values() {
            let socket = upstream_socket(self.shared.upstream).context("proxy: another socket")?;
            *lock(&flow.socket) = Arc::clone(&socket);
            spawn_reader(&self.shared, flow, socket, &self.queue).context("proxy: thread")?;
        }
        Ok(())
    }

    /// How well the proxy kept time so far.
    pub fn lateness(&self) -> Lateness {
        lock(&self.shared.lateness).summary()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // The readers of flows end by themselves within STOP_CHECK; they hold nothing that matters.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What the threads of one proxy share.
struct Shared {
    upstream: SocketAddr,
    listener: UdpSocket,
    started: Instant,
    seed: u64,
    stop: AtomicBool,
    in_flight: AtomicU64,
    impairments: Mutex<[Impairment; 2]>,
    counters: [AtomicCounters; 2],
    flows: Mutex<BTreeMap<SocketAddr, Arc<Flow>>>,
    recorder: Mutex<Recorder>,
    lateness: Mutex<Histogram>,
}

impl Shared {
    fn new(upstream: SocketAddr, listener: UdpSocket, config: Config) -> Self {
        Self {
            upstream,
            listener,
            started: Instant::now(),
            seed: config.seed,
            stop: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            impairments: Mutex::new([config.up, config.down]),
            counters: [AtomicCounters::default(), AtomicCounters::default()],
            flows: Mutex::new(BTreeMap::new()),
            recorder: Mutex::new(Recorder::new(config.record)),
            lateness: Mutex::new(Histogram::default()),
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One client's way to the upstream.
struct Flow {
    id: FlowId,
    client: SocketAddr,
    socket: Mutex<Arc<UdpSocket>>,
}

impl Flow {
    fn socket(&self) -> Arc<UdpSocket> {
        Arc::clone(&lock(&self.socket))
    }
}

/// The random choices of one flow and direction, and what keeps its order under jitter.
struct Fate {
    rng: ChaCha8Rng,
    last_due: Option<Instant>,
}

impl Fate {
    fn new(seed: u64, flow: FlowId, direction: Direction) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(flow.0) * 2 + direction as u64);
        Self { rng, last_due: None }
    }

    /// A number in 0..1.
    fn draw(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// When to send a datagram that arrived at `now`: not at all, once, or twice.
    fn decide(&mut self, now: Instant, impairment: &Impairment, counters: &AtomicCounters) -> Departures {
        // All four are drawn every time: what happens to this datagram doesn't shift the next one's fate.
        let (loss, duplicate, reorder, jitter) = (self.draw(), self.draw(), self.draw(), self.draw());
        if loss < impairment.loss {
            AtomicCounters::add(&counters.lost);
            return Departures { due: now, copies: 0 };
        }
        let mut due = now + impairment.delay + impairment.jitter.mul_f64(jitter);
        if reorder < impairment.reorder {
            AtomicCounters::add(&counters.reordered);
            due += impairment.reorder_by;
        } else {
            due = self.last_due.map_or(due, |last| last.max(due));
            self.last_due = Some(due);
        }
        if duplicate < impairment.duplicate {
            AtomicCounters::add(&counters.duplicated);
            return Departures { due, copies: 2 };
        }
        Departures { due, copies: 1 }
    }
}

/// How often a datagram leaves, and when.
struct Departures {
    due: Instant,
    copies: u8,
}

/// A datagram on its way.
struct InFlight {
    due: Instant,
    direction: Direction,
    flow: Arc<Flow>,
    bytes: Vec<u8>,
}

/// Reads what clients send, opening a flow for each new address.
fn read_clients(shared: &Arc<Shared>, queue: &mpsc::Sender<InFlight>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut fates = BTreeMap::new();
    while !shared.stopping() {
        let Ok((len, client)) = shared.listener.recv_from(&mut buffer) else {
            continue;
        };
        let now = Instant::now();
        let Some(flow) = flow_of(shared, client, queue) else {
            AtomicCounters::add(&shared.counters[Direction::Up as usize].received);
            AtomicCounters::add(&shared.counters[Direction::Up as usize].refused);
            continue;
        };
        let fate = fates.entry(flow.id).or_insert_with(|| Fate::new(shared.seed, flow.id, Direction::Up));
        on_datagram(shared, &flow, Direction::Up, fate, now, &buffer[..len], queue);
    }
}

/// Reads what the upstream sends to one flow, until that has another socket.
fn read_upstream(shared: &Shared, flow: &Arc<Flow>, socket: &Arc<UdpSocket>, queue: &mpsc::Sender<InFlight>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut fate = Fate::new(shared.seed, flow.id, Direction::Down);
    while !shared.stopping() {
        // An error is a timeout, or a port that is closed for now: a relay may come back.
        let received = socket.recv(&mut buffer);
        if !Arc::ptr_eq(socket, &flow.socket()) {
            return;
        }
        let Ok(len) = received else { continue };
        on_datagram(shared, flow, Direction::Down, &mut fate, Instant::now(), &buffer[..len], queue);
    }
}

/// The flow of a client address, made at its first datagram; none when there are too many.
fn flow_of(shared: &Arc<Shared>, client: SocketAddr, queue: &mpsc::Sender<InFlight>) -> Option<Arc<Flow>> {
    let mut flows = lock(&shared.flows);
    if let Some(flow) = flows.get(&client) {
        return Some(Arc::clone(flow));
    }
    if flows.len() >= MAX_FLOWS {
        return None;
    }
    let socket = upstream_socket(shared.upstream).ok()?;
    let id = FlowId(u32::try_from(flows.len()).ok()?);
    let flow = Arc::new(Flow { id, client, socket: Mutex::new(Arc::clone(&socket)) });
    spawn_reader(shared, &flow, socket, queue).ok()?;
    flows.insert(client, Arc::clone(&flow));
    Some(flow)
}

fn upstream_socket(upstream: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind(loopback_like(upstream))?;
    socket.connect(upstream)?;
    socket.set_read_timeout(Some(STOP_CHECK))?;
    Ok(Arc::new(socket))
}

fn spawn_reader(
    shared: &Arc<Shared>,
    flow: &Arc<Flow>,
    socket: Arc<UdpSocket>,
    queue: &mpsc::Sender<InFlight>,
) -> io::Result<()> {
    let (shared, flow, queue) = (Arc::clone(shared), Arc::clone(flow), queue.clone());
    let name = format!("proxy-down-{}", flow.id.0);
    thread::Builder::new().name(name).spawn(move || read_upstream(&shared, &flow, &socket, &queue))?;
    Ok(())
}

/// Counts, records and decides on one datagram.
fn on_datagram(
    shared: &Shared,
    flow: &Arc<Flow>,
    direction: Direction,
    fate: &mut Fate,
    now: Instant,
    bytes: &[u8],
    queue: &mpsc::Sender<InFlight>,
) {
    let counters = &shared.counters[direction as usize];
    AtomicCounters::add(&counters.received);
    lock(&shared.recorder).record(now.duration_since(shared.started), flow.id, direction, bytes);
    let impairment = lock(&shared.impairments)[direction as usize];
    let departures = fate.decide(now, &impairment, counters);
    for _ in 0..departures.copies {
        if shared.in_flight.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT {
            shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            AtomicCounters::add(&counters.refused);
            continue;
        }
        let datagram = InFlight { due: departures.due, direction, flow: Arc::clone(flow), bytes: bytes.to_vec() };
        // Fails only while stopping, when the datagram no longer matters.
        let _ = queue.send(datagram);
    }
}

/// Sends each datagram when it is due, those due at the same time in order of arrival.
fn send_loop(shared: &Shared, departures: &mpsc::Receiver<InFlight>) {
    let mut waiting: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut datagrams: BTreeMap<u64, InFlight> = BTreeMap::new();
    let mut next = 0u64;
    while !shared.stopping() {
        let now = Instant::now();
        let due = waiting.peek().map(|Reverse((due, _))| *due);
        if let (Some(due), Some(Reverse((_, number)))) = (due.filter(|due| *due <= now), waiting.peek().copied()) {
            waiting.pop();
            if let Some(datagram) = datagrams.remove(&number) {
                send(shared, &datagram);
                lock(&shared.lateness).add(Instant::now().saturating_duration_since(due));
            }
            continue;
        }
        let patience = due.map_or(STOP_CHECK, |due| due.saturating_duration_since(now).min(STOP_CHECK));
        match departures.recv_timeout(patience) {
            Ok(datagram) => {
                waiting.push(Reverse((datagram.due, next)));
                datagrams.insert(next, datagram);
                next += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn send(shared: &Shared, datagram: &InFlight) {
    shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    let sent = match datagram.direction {
        Direction::Up => datagram.flow.socket().send(&datagram.bytes),
        Direction::Down => shared.listener.send_to(&datagram.bytes, datagram.flow.client),
    };
    let counters = &shared.counters[datagram.direction as usize];
    AtomicCounters::add(if sent.is_ok() { &counters.forwarded } else { &counters.refused });
}

/// [`Counters`] while threads write them. They are read for totals only, so no order between them is needed.
#[derive(Default)]
struct AtomicCounters {
    received: AtomicU64,
    forwarded: AtomicU64,
    lost: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    refused: AtomicU64,
}

impl AtomicCounters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            received: read(&self.received),
            forwarded: read(&self.forwarded),
            lost: read(&self.lost),
            duplicated: read(&self.duplicated),
            reordered: read(&self.reordered),
            refused: read(&self.refused),
        }
    }
}

/// Keeps observations within the limit that [`Record`] sets.
struct Recorder {
    mode: Record,
    observed: Vec<Observed>,
    bytes: usize,
    skipped: u64,
}

impl Recorder {
    fn new(mode: Record) -> Self {
        Self { mode, observed: Vec::new(), bytes: 0, skipped: 0 }
    }

    fn record(&mut self, at: Duration, flow: FlowId, direction: Direction, bytes: &[u8]) {
        let fits = match self.mode {
            Record::Off => return,
            Record::Sizes(max) => self.observed.len() < max,
            Record::Bytes(max) => self.bytes + bytes.len() <= max,
        };
        if !fits {
            self.skipped += 1;
            return;
        }
        self.bytes += bytes.len();
        let kept = if matches!(self.mode, Record::Bytes(_)) { bytes.to_vec() } else { Vec::new() };
        self.observed.push(Observed { at, flow, direction, len: bytes.len(), bytes: kept });
    }
}

/// Lateness in steps of [`LATENESS_STEP`]; the last bucket holds everything beyond.
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; LATENESS_BUCKETS], count: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    fn add(&mut self, late: Duration) {
        let bucket = (late.as_nanos() / LATENESS_STEP.as_nanos()) as usize;
        self.buckets[bucket.min(LATENESS_BUCKETS - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(late);
    }

    fn summary(&self) -> Lateness {
        Lateness { count: self.count, p50: self.quantile(0.50), p99: self.quantile(0.99), max: self.max }
    }

    fn quantile(&self, quantile: f64) -> Duration {
        let wanted = (self.count as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (steps, in_bucket) in (1u32..).zip(&self.buckets) {
            seen += in_bucket;
            if seen >= wanted {
                return (LATENESS_STEP * steps).min(self.max);
            }
        }
        self.max
    }
}

/// A free port on the loopback address of the same family.
fn loopback_like(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
    }
}

/// A thread that panicked while it held the lock has already failed the test; the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The resolution of [`Lateness`]: a tenth of what a test of a millisecond needs.
pub const LATENESS_STEP: Duration = Duration::from_micros(10);
/// 20 ms in all: beyond that only the maximum is of interest.
const LATENESS_BUCKETS: usize = 2000;
/// The largest UDP payload there is.
const MAX_DATAGRAM: usize = 65_535;
/// Several times the 50 members of the largest meeting tested; each costs a thread.
const MAX_FLOWS: usize = 512;
/// 75 ms of 12,500 datagrams a second (50 listeners, 5 talkers) is under a thousand. At 1,200 bytes this bound
/// is 80 MB.
const MAX_IN_FLIGHT: u64 = 65_536;
/// How soon threads notice that the proxy stops. Lower wakes idle flows more often.
const STOP_CHECK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
