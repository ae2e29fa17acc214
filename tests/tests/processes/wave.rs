//! Two hundred come and a hundred go, in seconds.
//!
//! The host, the relay and the one who is removed are real processes. The others are the real protocol on real
//! connections, all in this process and without sound of their own: two hundred processes would measure the kernel.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave::session::{start_now, system_rng};
use conclave_protocol::conference::{Conference, Event, JoinConfig, LeftWhy, Transmit};
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::link::Link;
use conclave_protocol::sframe::frame::PLAINTEXT_LEN;
use conclave_relay::dial::{Dialed, bind_for, client_endpoint, dial};
use conclave_relay::tls::Trust;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::stage::{LIMIT, Meeting, Stage, at, hears_more, join, newest, observe, quantile};

const COMERS: u32 = 200;
const GOERS: u32 = 100;
const COME_WITHIN: Duration = Duration::from_secs(20);
const GO_WITHIN: Duration = Duration::from_secs(5);
/// Three times the 2 s that are meant, for a machine whose cores are slow: all two hundred share one of them here. Measured
/// with a relay that reads a leader's 4,000 messages a second (docs/protocol.md §12): p50 0.34 s and p99 0.65 s on two
/// cores, 1.2 s under `nice -n 15` beside other work, 1.5 and 2.1 s on two slower ones.
const JOIN_P99: Duration = Duration::from_secs(6);
/// The bound of removal.
const OPENS_UNTIL: Duration = Duration::from_millis(500);
/// Until everybody knows that the last of a wave has gone.
const KEEPS_UP: Duration = Duration::from_secs(5);

/// What the members in this process have seen.
#[derive(Default)]
struct Seen {
    joins: Vec<Duration>,
    failures: Vec<String>,
    /// Of each who stays: when its roster last changed, and to how many and in which epoch.
    rosters: Vec<Option<(Instant, usize, u32)>>,
    removed: u32,
}

/// What the members in this process are told: how many of them, counted from the first, are to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Leave(u32),
    End,
}

struct Crowd {
    seen: Arc<Mutex<Seen>>,
    orders: watch::Sender<Order>,
    thread: std::thread::JoinHandle<()>,
}

impl Crowd {
    /// Begins to come, evenly over the time.
    fn come(link: &str, relay: SocketAddr, pin: &str) -> Self {
        let link = link.to_owned();
        let trust = Trust::Pin(pin.parse().unwrap());
        let (orders, told) = watch::channel(Order::Leave(0));
        let seen = Arc::new(Mutex::new(Seen { rosters: vec![None; COMERS as usize], ..Seen::default() }));
        let noted = Arc::clone(&seen);
        let run = async move {
            let (start, mut members) = (tokio::time::Instant::now(), JoinSet::new());
            for number in 0..COMERS {
                tokio::time::sleep_until(start + COME_WITHIN / COMERS * number).await;
                let (link, trust, told, seen) =
                    (Link::parse(&link).unwrap(), trust.clone(), told.clone(), Arc::clone(&noted));
                members.spawn(async move {
                    if let Err(failure) = take_part(number, link, relay, trust, told, &seen).await {
                        seen.lock().unwrap().failures.push(format!("{number}: {failure}"));
                    }
                });
            }
            while members.join_next().await.is_some() {}
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
        });
        Self { seen, orders, thread }
    }

    fn joined(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.failures, Vec::<String>::new());
        seen.joins.len()
    }
}

async fn take_part(
    number: u32,
    link: Link,
    relay: SocketAddr,
    trust: Trust,
    mut told: watch::Receiver<Order>,
    seen: &Mutex<Seen>,
) -> Result<(), String> {
    let start = Instant::now();
    let endpoint = client_endpoint(bind_for(relay)).map_err(|error| error.to_string())?;
    let dialed = dial(&endpoint, relay, "localhost", &trust, LIMIT).await.map_err(|error| error.to_string())?;
    let Dialed { connection, mut writer, mut reader, exporter, .. } = dialed;
    let (outgoing, mut to_write) = mpsc::unbounded_channel::<Bytes>();
    let writing = tokio::spawn(async move {
        while let Some(message) = to_write.recv().await {
            if writer.send(message).await.is_err() {
                return;
            }
        }
        writer.finish().await;
    });
    let (incoming, mut messages) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(message)) = reader.next().await {
            if incoming.send(message.to_vec()).is_err() {
                return;
            }
        }
    });
    let name = DisplayName::parse(&format!("Member {number}")).unwrap();
    let identity = Identity::guest(&mut system_rng());
    let config = JoinConfig { link, identity, name, passcode: None };
    let mut conference = Conference::join(config, start_now(), Box::new(system_rng()));
    conference.connected(Instant::now(), exporter);
    let mut ends = None;
    while ends.is_none() {
        while let Some(event) = conference.poll_event() {
            let mut seen = seen.lock().unwrap();
            match event {
                Event::Admitted { .. } => seen.joins.push(start.elapsed()),
                Event::Roster { epoch } => {
                    seen.rosters[number as usize] =
                        Some((Instant::now(), conference.members().count(), epoch.number()));
                }
                Event::Left { why: LeftWhy::Removed, .. } => seen.removed += 1,
                Event::Ended { .. } => ends = Some(Ok(())),
                Event::Denied(_) | Event::Removed | Event::Failed(_) | Event::Rejoining | Event::Alarm { .. } => {
                    ends = Some(Err(format!("{event:?} after {:?}", start.elapsed())));
                }
                _ => {}
            }
        }
        while let Some(transmit) = conference.poll_transmit() {
            match transmit {
                Transmit::Control(bytes) => drop(outgoing.send(bytes.into())),
                Transmit::Datagram(bytes) => drop(connection.send_datagram(bytes.into())),
            }
        }
        let timer = conference.poll_timeout().unwrap_or_else(|| Instant::now() + LIMIT);
        tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => drop(conference.open(Instant::now(), &datagram, &mut [0; PLAINTEXT_LEN])),
                Err(error) => ends = Some(Err(error.to_string())),
            },
            Some(message) = messages.recv() => conference.handle_control(Instant::now(), &message),
            () = tokio::time::sleep_until(timer.into()) => conference.handle_timeout(Instant::now()),
            _ = told.wait_for(|order| *order == Order::End || matches!(order, Order::Leave(so_far) if number < *so_far)) => {
                conference.leave(Instant::now());
                ends = Some(Ok(()));
            }
        }
    }
    while let Some(transmit) = conference.poll_transmit() {
        if let Transmit::Control(bytes) = transmit {
            drop(outgoing.send(bytes.into()));
        }
    }
    drop(outgoing);
    let _ = tokio::time::timeout(Duration::from_secs(2), writing).await;
    connection.close(0u32.into(), b"");
    ends.unwrap_or(Ok(()))
}

#[test]
fn two_hundred_come_within_twenty_seconds_and_a_hundred_go_within_five() {
    let _stage = Stage::alone();
    let mut meeting = Meeting::open(&["--admit", "all", "--input", "tone"]);
    let crowd = Crowd::come(&meeting.link, meeting.relay.addr(), meeting.relay.pin().unwrap());
    // Once muted members are silent.
    meeting.host.wait_event("roster", |roster| roster["members"].as_array().unwrap().len() > 100, COME_WITHIN).unwrap();
    let mut mallory = join("Mallory", &meeting.link, &["--linger", "2"]);
    let start = Instant::now();
    while crowd.joined() < COMERS as usize {
        assert!(start.elapsed() < COME_WITHIN + LIMIT, "only {} have come", crowd.joined());
        observe(Duration::from_millis(50));
    }
    let joins: Vec<f64> = crowd.seen.lock().unwrap().joins.iter().map(Duration::as_secs_f64).collect();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&joins, share));
    eprintln!("{} joined: p50 {p50:.3} s, p99 {p99:.3} s, at most {max:.3} s", joins.len());
    hears_more(&mallory, "Hestia", 25, LIMIT);

    let (start, mark) = (Instant::now(), meeting.host.mark());
    let mut act = start;
    for gone in 1..=GOERS {
        observe((start + GO_WITHIN / GOERS * gone).saturating_duration_since(Instant::now()));
        crowd.orders.send(Order::Leave(gone)).unwrap();
        if gone == GOERS / 2 {
            act = Instant::now();
            meeting.host.send(&json!({ "do": "remove", "who": "Mallory" })).unwrap();
        }
    }
    let all_gone = Instant::now();
    let left = (COMERS - GOERS + 1) as usize;
    let complete = |roster: &Value| roster["members"].as_array().unwrap().len() == left;
    let after = meeting.host.wait_event_after(mark, "roster", complete, LIMIT).unwrap();
    let known = at(&meeting.host, &after).saturating_duration_since(all_gone);
    let all = everybody_follows(&crowd, left, all_gone);
    let epochs = newest(&meeting.host, "roster").unwrap()["epoch"].clone();
    eprintln!("the last had left for the host after {known:?}, for everybody after {all:?}, in epoch {epochs}");

    let notice = mallory.wait_event("removed", |_| true, LIMIT).unwrap();
    let linger = mallory.wait_event("linger", |_| true, LIMIT).unwrap();
    assert_eq!(mallory.wait_exit(LIMIT).unwrap(), 4);
    let noticed = at(&mallory, &notice).saturating_duration_since(act);
    let opened = linger["last_opened_ms"].as_u64().map(Duration::from_millis).unwrap_or_default();
    eprintln!("the removed knew after {noticed:?} and opened nothing later than {:?} after the act", noticed + opened);
    assert!(noticed + opened <= OPENS_UNTIL, "{noticed:?} {linger}");
    assert_eq!(meeting.host.events_named("alarm"), Vec::<Value>::new());
    assert!(p99 <= JOIN_P99.as_secs_f64(), "p99 {p99}");
    assert!(known <= KEEPS_UP && all <= KEEPS_UP, "{known:?} {all:?}");
    crowd.orders.send(Order::End).unwrap();
    crowd.thread.join().unwrap();
    assert_eq!(crowd.seen.lock().unwrap().failures, Vec::<String>::new());
}

/// Waits until all who stay have the same roster in the same epoch; gives how long that took since the time.
fn everybody_follows(crowd: &Crowd, members: usize, since: Instant) -> Duration {
    loop {
        let rosters: Vec<_> = crowd.seen.lock().unwrap().rosters[GOERS as usize..].to_vec();
        if rosters.iter().all(|roster| roster.is_some_and(|(_, count, _)| count == members)) {
            let last = rosters.iter().flatten().map(|roster| roster.0).max().unwrap();
            return last.saturating_duration_since(since);
        }
        assert!(since.elapsed() < LIMIT, "{rosters:?}");
        observe(Duration::from_millis(20));
    }
}
