//! What outsiders do to a relay while others talk, on a thread of its own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use conclave_protocol::conference::{Conference, JoinConfig, Start, Transmit};
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_relay::clock::system_time;
use conclave_relay::dial::{self, Dialed};
use conclave_relay::tls;
use quinn::Endpoint;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

use crate::plan::Flood;
use crate::room::{Room, Stage};
use crate::sync::{Dice, lock, seed};

/// Networks of the outsiders on one machine, apart from those of members.
const FIRST_NETWORK: u32 = 60_000;
/// Endpoints that handshakes come from.
const ENDPOINTS: u32 = 64;
/// Between two handshakes: 500 a second.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(2);
/// Until a handshake that was begun is forgotten.
const HANDSHAKE: Duration = Duration::from_millis(200);
/// Packets at once, and how often: 10,000 a second.
const AT_ONCE: usize = 10;
const BURST_EVERY: Duration = Duration::from_millis(1);
/// Knocks over the whole measurement.
const KNOCKS: u32 = 10_000;
/// How long a knock waits for the relay.
const KNOCK: Duration = Duration::from_secs(2);
/// First byte of a QUIC version 1 Initial, and the version (RFC 9000 §17.2.2).
const INITIAL: [u8; 5] = [0xC3, 0, 0, 0, 1];

/// The flood, until it is stopped.
pub(crate) struct Flooding {
    stop: oneshot::Sender<()>,
    join: JoinHandle<()>,
}

impl Flooding {
    /// Begins all that the plan asks for.
    pub(crate) fn start(stage: &Arc<Stage>, rooms: &[Arc<Room>]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let first = rooms.first().cloned();
        let stage = Arc::clone(stage);
        let join = std::thread::Builder::new().name("flood".into()).spawn(move || {
            for kind in &stage.plan.faults.flood {
                runtime.spawn(flood(*kind, Arc::clone(&stage), first.clone()));
            }
            // Completes when told, and when the flood is dropped.
            runtime.block_on(async { drop(stopped.await) });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        Ok(Self { stop, join })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        // Fails only when it has ended already.
        let _told = self.stop.send(());
        let _ended = self.join.join();
    }
}

async fn flood(kind: Flood, stage: Arc<Stage>, room: Option<Arc<Room>>) {
    let ended = match kind {
        Flood::Handshakes => handshakes(&stage).await,
        Flood::Garbage => garbage(&stage).await,
        Flood::Datagrams => datagrams(&stage).await,
        Flood::Knocks => knocks(&stage, room).await,
    };
    if let Err(error) = ended {
        stage.tally.trouble(format!("the flood of {kind:?} ended: {error:#}"));
    }
}

fn note(stage: &Stage, what: &str, times: usize) {
    let times = u64::try_from(times).unwrap_or(u64::MAX);
    *lock(&stage.tally.flood).entry(what.to_owned()).or_default() += times;
}

async fn handshakes(stage: &Arc<Stage>) -> Result<()> {
    let bind = |number| stage.relay.bind(FIRST_NETWORK + number);
    let endpoints: Vec<_> = (0..ENDPOINTS).map(|number| Endpoint::client(bind(number))).collect::<Result<_, _>>()?;
    let config = tls::client_config(&stage.relay.trust)?.quic;
    let mut pace = interval(HANDSHAKE_EVERY);
    for endpoint in endpoints.iter().cycle() {
        let _tick = pace.tick().await;
        let connecting = endpoint.connect_with(config.clone(), stage.relay.socket, &stage.relay.name)?;
        note(stage, "handshakes", 1);
        let told = Arc::clone(stage);
        tokio::spawn(async move {
            if let Ok(Ok(_connection)) = timeout(HANDSHAKE, connecting).await {
                note(&told, "handshakes_finished", 1);
            }
        });
    }
    Ok(())
}

async fn garbage(stage: &Stage) -> Result<()> {
    let socket = UdpSocket::bind(stage.relay.bind(FIRST_NETWORK + ENDPOINTS))?;
    socket.set_nonblocking(true)?;
    let (mut dice, mut packet, mut pace) = (Dice::new()?, [0; 1_200], interval(BURST_EVERY));
    loop {
        let _tick = pace.tick().await;
        for number in 0..AT_ONCE {
            dice.fill(&mut packet);
            if number % 2 == 0 {
                packet[..INITIAL.len()].copy_from_slice(&INITIAL);
            }
            let length = 1 + (dice.unit() * 1_199.0) as usize;
            if socket.send_to(&packet[..length.min(packet.len())], stage.relay.socket).is_ok() {
                note(stage, "garbage", 1);
            }
        }
    }
}

async fn datagrams(stage: &Stage) -> Result<()> {
    let given = lock(&stage.flooder).clone();
    let (connection, frame) = given.context("the flooding member is not in its meeting")?;
    let mut pace = interval(BURST_EVERY);
    loop {
        let _tick = pace.tick().await;
        let sent = (0..AT_ONCE).filter(|_| connection.send_datagram(frame.clone())).count();
        note(stage, "datagrams", sent);
        if let Some(reason) = connection.reason() {
            bail!("{reason}");
        }
    }
}

async fn knocks(stage: &Arc<Stage>, room: Option<Arc<Room>>) -> Result<()> {
    let room = room.context("no meeting")?;
    let mut pace = interval(Duration::from_secs(stage.plan.seconds.into()) / KNOCKS);
    for number in 0..KNOCKS {
        let _tick = pace.tick().await;
        let (stage, room) = (Arc::clone(stage), Arc::clone(&room));
        tokio::spawn(async move {
            let bind = stage.relay.bind(FIRST_NETWORK + ENDPOINTS + 1 + number % 2_000);
            let outcome = match timeout(KNOCK, knock(&stage, &room, bind)).await {
                Ok(Ok(())) => "knocks_at_the_host",
                Ok(Err(_)) => "knocks_refused",
                Err(_) => "knocks_unanswered",
            };
            note(&stage, outcome, 1);
        });
    }
    Ok(())
}

/// A knock as far as it costs the host: to the first message of the handshake. Nobody waits for the answer.
async fn knock(stage: &Stage, room: &Room, bind: SocketAddr) -> Result<()> {
    let endpoint = dial::client_endpoint(bind)?;
    let relay = &stage.relay;
    let Dialed { connection, mut writer, mut reader, exporter, .. } =
        dial::dial(&endpoint, relay.socket, &relay.name, &relay.trust, KNOCK).await?;
    let mut guest = stranger(room)?;
    guest.connected(Instant::now(), exporter);
    // Hello, the request for a mailbox, the first message of the handshake.
    let mut said = 0;
    while said < 3 {
        while let Some(Transmit::Control(message)) = guest.poll_transmit() {
            writer.send(message.into()).await?;
            said += 1;
        }
        if said < 3 {
            let message = reader.next().await?.context("the relay hung up")?.to_vec();
            guest.handle_control(Instant::now(), &message);
        }
    }
    writer.finish().await;
    connection.close(0u32.into(), b"");
    Ok(())
}

fn stranger(room: &Room) -> Result<Conference> {
    let mut rng = ChaCha20Rng::from_seed(seed()?);
    let identity = Identity::guest(&mut rng);
    let name = DisplayName::parse("Stranger").ok().context("a plain name")?;
    let link = room.link().context("the meeting is not open")?;
    let start = Start { now: Instant::now(), wall: system_time() };
    Ok(Conference::join(JoinConfig { link, identity, name, passcode: None }, start, Box::new(rng)))
}
