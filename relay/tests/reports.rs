//! Seals, stamps and reports on a real relay process, over real sockets and files.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking, as tests do")]

mod process;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conclave_protocol::id::MemberIndex;
use conclave_protocol::label;
use conclave_protocol::sign::KeyPair;
use conclave_protocol::stamp::{Origin, SealPublic, Stamp};
use conclave_protocol::wire::codec::{Wire, Writer};
use conclave_protocol::wire::datagram::{self, Kind};
use conclave_protocol::wire::relay::{
    FromRelay, MAX_REPORT_PART, Receipt, ReportId, ReportRefusal, StampCheck, StampVerdict, ToRelay,
};
use conclave_relay::clock::system_clock;
use conclave_relay::gate::Limits;
use conclave_relay::hub::{self, Hub};
use conclave_relay::reports::{Deliver, Job, NotDelivered, Sink};
use conclave_relay::server::{Deadlines, Server, ServerConfig};
use conclave_relay::tls::{Identity, SelfSigned};
use data_encoding::{BASE32_NOPAD, BASE64};
use sha2::{Digest, Sha256};

use process::{Client, Meeting, Relay, routing_key};

/// Sends a report as it is to be sent, and waits for the answer.
async fn report(client: &mut Client, bytes: &[u8]) -> Result<Receipt, ReportRefusal> {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let id = ReportId(digest[16..].try_into().unwrap());
    let length = u32::try_from(bytes.len()).unwrap();
    client.say(&ToRelay::Report { id, length, digest, past: None }).await;
    for part in bytes.chunks(MAX_REPORT_PART) {
        client.say(&ToRelay::ReportPart { id, bytes: part.to_vec() }).await;
    }
    loop {
        match client.hear().await {
            FromRelay::ReportTaken { id: of, receipt } if of == id => return Ok(receipt),
            FromRelay::ReportRefused { id: of, reason } if of == id => return Err(reason),
            FromRelay::Presence { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

fn moderators_key() -> KeyPair {
    KeyPair::from_seed(&[0x4D; 32])
}

fn moderators_file(directory: &Path) -> String {
    let encoded = [&[0; 65][..], &moderators_key().public().0, &[0; 1_216]].concat();
    let file = path(directory, "moderator.pub");
    fs::write(&file, format!("conclave-moderator-1 Ada\n{}\n", BASE64.encode(&encoded))).unwrap();
    file
}

fn public(slot: u16) -> SealPublic {
    SealPublic { kid: 1 << 63 | u64::from(slot) << 40, count: 25, root: [7; 32] }
}

/// The relay's stamp on a seal.
async fn stamp(meeting: &Meeting, relay: &Relay) -> Stamp {
    let (mut member, _) = meeting.enter(relay, 1).await;
    member.say(&ToRelay::Seal { bytes: [public(1).encode(), vec![0; 500]].concat() }).await;
    match member.hear().await {
        FromRelay::Sealed { from: MemberIndex(1), stamp, bytes } if bytes == public(1).encode() => stamp,
        other => panic!("{other:?}"),
    }
}

async fn check(relay: &Relay, checks: Vec<StampCheck>) -> FromRelay {
    let mut moderator = Client { dialed: relay.dial().await };
    let mut encoded = Writer::default();
    encoded.list(&checks);
    let signed: [&[u8]; 2] = [&moderator.dialed.exporter, &encoded.into_bytes()];
    let signature = moderators_key().sign(label::MODERATOR_REQUEST, &signed);
    moderator.say(&ToRelay::CheckStamps { signature, checks }).await;
    moderator.hear().await
}

#[tokio::test]
async fn a_stamp_of_one_relay_is_genuine_to_every_relay_that_shares_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, moderator) = (path(directory.path(), "keys"), moderators_file(directory.path()));
    let shared = ["--stamp-keys", &keys, "--moderator", &moderator];
    let (one, two) = (Relay::start(&shared), Relay::start(&shared));
    let alone = Relay::start(&["--moderator", &moderator]);
    let meeting = Meeting::new(1);
    let stamp_of_one = stamp(&meeting, &one).await;
    let rk = routing_key(1).public();
    let origin = Origin { meeting: meeting.id, slot: MemberIndex(1), rk };
    let genuine = StampCheck { origin, public: public(1), stamp: stamp_of_one };
    let forged = StampCheck { origin: Origin { slot: MemberIndex(2), ..origin }, ..genuine };
    let verdicts = |verdicts: &[StampVerdict]| FromRelay::StampsChecked { verdicts: verdicts.to_vec() };
    for relay in [&one, &two] {
        let answer = check(relay, vec![genuine, forged]).await;
        assert_eq!(answer, verdicts(&[StampVerdict::Genuine, StampVerdict::Forged]));
    }
    assert_eq!(check(&alone, vec![genuine]).await, verdicts(&[StampVerdict::UnknownKey]));
    drop((one, two));
    let restarted = Relay::start(&shared);
    assert_eq!(check(&restarted, vec![genuine]).await, verdicts(&[StampVerdict::Genuine]));
}

#[tokio::test]
async fn clients_are_told_what_becomes_of_reports() {
    let directory = tempfile::tempdir().unwrap();
    let (moderator, meeting) = (moderators_file(directory.path()), Meeting::new(1));
    let sink = format!("dir:{}", path(directory.path(), "reports"));
    let with = Relay::start(&["--moderator", &moderator, "--reports", &sink]);
    let (mut member, welcome) = meeting.enter(&with, 1).await;
    let FromRelay::Welcome { takes_reports: true, moderator, .. } = welcome else { panic!("{welcome:?}") };
    assert_eq!(moderator.len(), 1_313);
    let bytes = vec![0xA5; 2 * 1024 * 1024];
    let receipt = report(&mut member, &bytes).await.unwrap();
    let file = format!("reports/{}.conclave-report", BASE32_NOPAD.encode(&receipt.0));
    assert_eq!(fs::read(directory.path().join(file)).unwrap(), bytes);
    assert_eq!(report(&mut member, &bytes).await, Ok(receipt));

    let without = Relay::start(&[]);
    let (mut member, welcome) = meeting.enter(&without, 1).await;
    assert!(matches!(welcome, FromRelay::Welcome { takes_reports: false, moderator, .. } if moderator.is_empty()));
    assert_eq!(report(&mut member, &bytes).await, Err(ReportRefusal::NoSink));
}

/// Two people who talk while others report; the frames sent and heard.
async fn talk(relay: &Relay, until: &AtomicBool) -> (u32, u32) {
    let meeting = Meeting::new(2);
    let (mut talker, _) = meeting.enter(relay, 1).await;
    let (listener, _) = meeting.enter(relay, 2).await;
    // From here on the talker's slot is known to be taken, so that no frame comes too early.
    while !matches!(talker.hear().await, FromRelay::Presence { slot: MemberIndex(2), here: true }) {}
    let mut frame = datagram::header(Kind::Media, MemberIndex(1)).to_vec();
    frame.extend_from_slice(&[0xAB; 120]);
    let (mut sent, mut heard) = (0, 0);
    let mut clock = tokio::time::interval(Duration::from_millis(20));
    while !until.load(Ordering::Relaxed) || sent < 100 {
        tokio::select! {
            _ = clock.tick() => {
                talker.dialed.connection.send_datagram(frame.clone().into()).unwrap();
                sent += 1;
            }
            datagram = listener.dialed.connection.read_datagram() => {
                datagram.unwrap();
                heard += 1;
            }
        }
    }
    while tokio::time::timeout(Duration::from_secs(2), listener.dialed.connection.read_datagram()).await.is_ok() {
        heard += 1;
    }
    (sent, heard)
}

#[test]
fn of_a_thousand_reports_in_a_minute_every_acknowledged_one_is_on_disk_and_media_goes_on() {
    const REPORTERS: u16 = 204;
    const EACH: u16 = 5;
    let directory = tempfile::tempdir().unwrap();
    let sink = format!("dir:{}", path(directory.path(), "reports"));
    let relay = Relay::start(&["--reports", &sink]);
    let is_over = AtomicBool::new(false);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Instant::now();
    let (answers, (sent, heard)) = std::thread::scope(|scope| {
        let talking = scope.spawn(|| runtime().block_on(talk(&relay, &is_over)));
        let answers = runtime().block_on(report_all(&relay, REPORTERS, EACH));
        is_over.store(true, Ordering::Relaxed);
        (answers, talking.join().unwrap())
    });

    let mut files: BTreeMap<_, _> = fs::read_dir(directory.path().join("reports"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let all = usize::from(REPORTERS * EACH);
    let (mut taken, mut refused) = (0, 0);
    for (bytes, answer) in answers {
        match answer {
            Ok(receipt) => {
                let name = format!("{}.conclave-report", BASE32_NOPAD.encode(&receipt.0));
                assert!(files.remove(&name) == Some(bytes), "{name} was acknowledged and is not there as it was sent");
                taken += 1;
            }
            Err(ReportRefusal::TooMany) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(files.is_empty(), "files that nobody has been told of");
    assert_eq!(taken + refused, all);
    // More only where the minute was over before the last came.
    if start.elapsed() < Duration::from_secs(60) {
        assert_eq!((taken, refused), (1_000, all - 1_000));
    }
    assert!(taken >= 1_000);
    assert!(heard * 100 >= sent * 99, "{heard} of {sent} frames came");
}

/// A sink in the test's hands: it waits for a word before each answer.
struct Held(std::sync::mpsc::Receiver<Result<(), NotDelivered>>);

impl Deliver for Held {
    fn deliver(&mut self, _: &Job) -> Result<(), NotDelivered> {
        self.0.recv().unwrap()
    }
}

/// A relay in this process, with a sink or without; and what stops it.
fn within(sink: Option<Sink>) -> (Relay, tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let config = ServerConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        identity: Identity::SelfSigned(SelfSigned::Memory),
        limits: Limits::default(),
        deadlines: Deadlines::default(),
        forwarding: Default::default(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let hub = Hub::new(system_clock(), hub::Config { takes_reports: true, ..hub::Config::default() });
            let mut server = Server::bind(&config, hub).unwrap();
            if let Some(sink) = sink {
                server = server.with_reports(sink);
            }
            tell.send((server.local_addr(), server.pin().unwrap())).unwrap();
            server.run(async { drop(stopped.await) }).await.unwrap();
        });
    });
    let (address, pin) = told.recv().unwrap();
    (Relay { child: None, address, pin, metrics: None }, stop, thread)
}

#[tokio::test]
async fn a_sink_that_hangs_holds_up_no_frame_and_no_message_and_acknowledges_nothing() {
    let (answer, answers) = std::sync::mpsc::channel();
    let (relay, stop, thread) = within(Some(Sink::start(vec![Held(answers)]).unwrap()));
    let meeting = Meeting::new(1);
    let (mut reporter, _) = meeting.enter(&relay, 1).await;
    let (mut other, _) = meeting.enter(&relay, 2).await;
    let bytes = vec![0x5A; 100_000];
    let mut reporting = Box::pin(report(&mut reporter, &bytes));
    let mut frame = datagram::header(Kind::Media, MemberIndex(2)).to_vec();
    frame.extend_from_slice(&[0xAB; 120]);
    let meanwhile = async {
        let (mut third, _) = meeting.enter(&relay, 3).await;
        for _ in 0..25 {
            other.dialed.connection.send_datagram(frame.clone().into()).unwrap();
            assert_eq!(third.dialed.connection.read_datagram().await.unwrap(), frame);
        }
        other.say(&ToRelay::Send { to: MemberIndex(3), bytes: vec![1] }).await;
        while !matches!(third.hear().await, FromRelay::Deliver { from: MemberIndex(2), .. }) {}
    };
    tokio::select! {
        answer = &mut reporting => panic!("answered before the sink was: {answer:?}"),
        () = meanwhile => {}
    }
    answer.send(Err(NotDelivered("full".into()))).unwrap();
    assert_eq!((&mut reporting).await, Err(ReportRefusal::Unavailable));
    drop(reporting);
    answer.send(Ok(())).unwrap();
    assert!(report(&mut reporter, &bytes).await.is_ok());
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_core_that_takes_reports_without_a_sink_behind_it_loses_none() {
    let (relay, stop, thread) = within(None);
    let (mut reporter, _) = Meeting::new(1).enter(&relay, 1).await;
    for _ in 0..3 {
        assert_eq!(report(&mut reporter, &[1; 1_000]).await, Err(ReportRefusal::Unavailable));
    }
    stop.send(()).unwrap();
    thread.join().unwrap();
}

/// Everybody reports at once; the reports and their answers.
async fn report_all(relay: &Relay, reporters: u16, each: u16) -> Vec<(Vec<u8>, Result<Receipt, ReportRefusal>)> {
    let meeting = Meeting::new(1);
    let local = tokio::task::LocalSet::new();
    let mut members = Vec::new();
    for slot in 0..reporters {
        members.push(meeting.enter(relay, slot).await.0);
    }
    let tasks: Vec<_> = members
        .into_iter()
        .zip(0_u16..)
        .map(|(mut member, slot)| {
            local.spawn_local(async move {
                let mut answers = Vec::new();
                for n in 0..each {
                    let mut bytes = vec![n.to_be_bytes()[1]; 65_536];
                    bytes[..2].copy_from_slice(&slot.to_be_bytes());
                    let answer = report(&mut member, &bytes).await;
                    answers.push((bytes, answer));
                }
                answers
            })
        })
        .collect();
    local
        .run_until(async {
            let mut answers = Vec::new();
            for task in tasks {
                answers.extend(task.await.unwrap());
            }
            answers
        })
        .await
}
