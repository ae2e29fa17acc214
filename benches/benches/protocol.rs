//! Sealing and opening, joining, and changing epochs.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros make public items; a bench may panic.

use std::hint::black_box;
use std::time::{Duration, Instant};

use conclave_protocol::conference::Conference;
use conclave_protocol::descriptor::{Descriptor, Policy};
use conclave_protocol::identity::{DisplayName, IdCert, Identity, JoinKeys, Role};
use conclave_protocol::link::LinkSecret;
use conclave_protocol::noise::handshake::{Answering, Context, HostKeys, Introduction, Knocking, Passcode, Responder};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, Microphone, PLAINTEXT_LEN};
use conclave_protocol::sign::KeyPair;
use conclave_protocol::time::UnixMillis;
use conclave_tests::room::Room;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

fn frame(seq: u32, opus: &[u8]) -> Frame<'_> {
    Frame { seq, stamp: 0, microphone: Microphone::On, level: 20, opus }
}

fn seal_and_open(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(1));
    let opus = [7; 80];
    group.bench_function("seal", |b| {
        let mut room = Room::with_members(2);
        let now = room.now();
        let mut out = [0; DATAGRAM_LEN];
        let mut seq = 0;
        b.iter(|| {
            seq += 1;
            room.clients[0].seal(now, &frame(seq, &opus), &mut out).unwrap();
            black_box(&out);
        });
    });
    group.bench_function("open", |b| {
        let mut room = Room::with_members(2);
        let now = room.now();
        let mut plaintext = [0; PLAINTEXT_LEN];
        let (host, guest) = room.clients.split_at_mut(1);
        let seal = |host: &mut Conference| {
            let mut out = [0; DATAGRAM_LEN];
            host.seal(now, &frame(1, &opus), &mut out).unwrap();
            out
        };
        b.iter_batched(
            || seal(&mut host[0]),
            |datagram| black_box(guest[0].open(now, &datagram, &mut plaintext).map(|opened| opened.is_some())).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Talkers whose costs are measured together.
const TALKERS: usize = 10;
const FRAME: Duration = Duration::from_millis(20);

/// Members who talk, and one who listens and is the last.
struct Talk {
    room: Room,
    seq: u32,
}

impl Talk {
    fn new() -> Self {
        Self { room: Room::with_members(TALKERS + 1), seq: 0 }
    }

    /// A second of talk; how long the first talker took for its frames and seals, and the listener for everybody's.
    fn second(&mut self) -> (Duration, Duration) {
        let (mut talker, mut listener) = (Duration::ZERO, Duration::ZERO);
        let before = self.room.on_seals[TALKERS];
        for _ in 0..Duration::from_secs(1).as_millis() / FRAME.as_millis() {
            self.seq += 1;
            let now = self.room.now();
            let (clients, mut datagrams) = (&mut self.room.clients, [[0; DATAGRAM_LEN]; TALKERS]);
            for (i, (client, datagram)) in clients.iter_mut().zip(&mut datagrams).enumerate() {
                let start = Instant::now();
                client.seal(now, &frame(self.seq, &[7; 80]), datagram).unwrap();
                if client.poll_timeout().is_some_and(|due| due <= now) {
                    client.handle_timeout(now);
                }
                talker += if i == 0 { start.elapsed() } else { Duration::ZERO };
            }
            let mut plaintext = [0; PLAINTEXT_LEN];
            let start = Instant::now();
            for datagram in &datagrams {
                assert!(clients[TALKERS].open(now, datagram, &mut plaintext).unwrap().is_some());
            }
            listener += start.elapsed();
            self.room.pass(FRAME);
        }
        (talker, listener + self.room.on_seals[TALKERS] - before)
    }
}

/// What a second of talk costs with all that proves it: sealed and opened frames, hashes, seals made and checked, the
/// evidence ring. A hundredth of a core for ten talkers is 10 ms.
fn talker_seconds(c: &mut Criterion) {
    let mut group = c.benchmark_group("a second of talk");
    // Each round talks for a second and the ring keeps five minutes; criterion has no say in how long that takes.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(200));
    let mut talk = Talk::new();
    // The ring is full.
    (0..310).for_each(|_| {
        talk.second();
    });
    group.bench_function("one talker", |b| b.iter_custom(|rounds| (0..rounds).map(|_| talk.second().0).sum()));
    group.bench_function("ten talkers at one listener", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| talk.second().1).sum());
    });
    group.finish();
}

struct Both {
    descriptor: Descriptor,
    secret: LinkSecret,
    host_secret: Zeroizing<[u8; 32]>,
    host_cert: IdCert,
    guest: Identity,
    passcode: Option<Passcode>,
}

const WALL: UnixMillis = UnixMillis(1_800_000_000_000);

fn draw(rng: &mut ChaCha20Rng) -> (Zeroizing<[u8; 32]>, JoinKeys) {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut());
    let session = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*secret)).to_bytes();
    let (sealing, routing) = (KeyPair::generate(rng).public(), KeyPair::generate(rng).public());
    (secret, JoinKeys { session, sealing, routing })
}

fn both(rng: &mut ChaCha20Rng, passcode: Option<&str>) -> Both {
    let (host_secret, keys) = draw(rng);
    let policy = if passcode.is_some() { Policy::DEFAULT.with_passcode() } else { Policy::DEFAULT };
    let descriptor = Descriptor {
        hs: keys.session,
        authority: KeyPair::generate(rng).public(),
        not_before: UnixMillis(0),
        not_after: UnixMillis(u64::MAX),
        policy,
        frame_ms: 20,
        max_members: 100,
        nonce: [1; 16],
        moderator: [0; 32],
        regions: Vec::new(),
    };
    let host = Identity::guest(rng);
    let host_cert = host.certify(descriptor.meeting_id(), Role::Host, keys, &name(), UnixMillis(u64::MAX));
    let secret = LinkSecret::generate(rng);
    let passcode = passcode.map(|text| Passcode::parse(text).unwrap());
    Both { descriptor, secret, host_secret, host_cert, guest: Identity::guest(rng), passcode }
}

fn name() -> DisplayName {
    DisplayName::parse("Somebody").unwrap()
}

/// Both sides of one join: keys, ML-KEM, signatures, and CPace where there is a passcode.
fn join(both: &Both, rng: &mut ChaCha20Rng) {
    let meeting = both.descriptor.meeting_id();
    let context = || Context {
        meeting,
        descriptor: both.descriptor.clone(),
        psk0: both.secret.psk0(meeting),
        responder: Responder::Host,
    };
    let name = name();
    let (guest_secret, keys) = draw(rng);
    let (knocking, message1) = Knocking::start(context(), &guest_secret, both.passcode.as_ref(), rng).unwrap();
    let host = HostKeys {
        session_secret: &both.host_secret,
        cert: &both.host_cert,
        name: &name,
        passcode: both.passcode.as_ref(),
    };
    let (answering, message2) = Answering::answer(&context(), &host, &message1, rng).unwrap();
    let introducing = knocking.read_reply(&message2, WALL).unwrap();
    let cert = both.guest.certify(meeting, Role::Member, keys, &name, UnixMillis(u64::MAX));
    let me = Introduction { identity: &both.guest, cert, name: name.clone(), commitment: [0; 32] };
    let (session, message3) = introducing.introduce(me).unwrap();
    let knocker = answering.finish(&message3, WALL).unwrap();
    assert_eq!(session.id(), knocker.session.id());
}

fn joins(c: &mut Criterion) {
    let mut group = c.benchmark_group("join, both sides");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let without = both(&mut rng, None);
    group.bench_function("ML-KEM", |b| b.iter(|| join(&without, &mut rng)));
    let with = both(&mut rng, Some("three small words"));
    group.bench_function("ML-KEM and CPace", |b| b.iter(|| join(&with, &mut rng)));
    group.finish();
}

/// The leader's work for one periodic epoch, until everything for everybody is sealed.
fn epoch_changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("epoch change at the leader");
    // Two minutes of meeting pass between two epochs, of which only the step that makes one is timed: few rounds.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(10));
    for members in [10usize, 100, 1_000] {
        group.throughput(Throughput::Elements(members as u64));
        let mut room = Room::with_members(members);
        group.bench_function(BenchmarkId::from_parameter(members), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| room.pass_to_next_epoch()).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, seal_and_open, talker_seconds, joins, epoch_changes);
criterion_main!(benches);
