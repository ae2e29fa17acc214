//! Frames beside QUIC, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conclave_relay::dial::{Dialed, dial};
use conclave_relay::media;
use conclave_relay::media::tap::Beside;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::support::{PATIENCE, Relay};

/// A client that has said its first word, through whatever is at `address`.
async fn enter(relay: &Relay, address: std::net::SocketAddr) -> Dialed {
    let trust = relay.trust();
    let mut dialed = dial(relay.endpoint(), address, "relay.test", &trust, PATIENCE).await.unwrap();
    dialed.writer.send(Bytes::from_static(b"in")).await.unwrap();
    assert_eq!(timeout(PATIENCE, dialed.reader.next()).await.unwrap().unwrap().unwrap(), b"in");
    dialed
}

fn datagram(beside: Beside) -> Bytes {
    match beside {
        Beside::Datagram(datagram) => datagram,
        Beside::Message(message) => panic!("{message:?}"),
    }
}

/// The next datagram that comes.
async fn next(client: &mut Dialed) -> Bytes {
    datagram(timeout(PATIENCE, client.datagrams.next()).await.unwrap().unwrap())
}

/// Two clients talk until a condition holds; every frame that one sends comes to the other, whichever way it takes.
async fn talk_until(pair: &mut [Dialed; 2], condition: impl Fn(&[bool; 2]) -> bool) {
    let began = Instant::now();
    let [one, two] = pair;
    for number in 0u64.. {
        assert!(began.elapsed() < PATIENCE, "waited in vain");
        let frame = Bytes::from([&number.to_be_bytes()[..], &[7; 153]].concat());
        assert!(one.datagrams.send(frame.clone()) && two.datagrams.send(frame.clone()));
        for client in [&mut *one, &mut *two] {
            // Those that were lost while something on the way changed its mind are followed by others.
            let heard = timeout(Duration::from_millis(500), client.datagrams.next()).await;
            assert!(heard.is_err() || datagram(heard.unwrap().unwrap()).len() == frame.len());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if condition(&[&*one, &*two].map(|dialed| dialed.datagrams.is_beside_quic())) {
            return;
        }
    }
}

/// Something on the way that can be told to let only QUIC through.
struct Path {
    address: std::net::SocketAddr,
    blocks: Arc<AtomicBool>,
    /// So many media packets of `long` bytes and more get lost.
    loses: Arc<AtomicU64>,
    long: Arc<AtomicU64>,
    /// The client gets another address, as from a router that has forgotten it.
    moves: Arc<AtomicBool>,
    media: Arc<AtomicU64>,
}

impl Path {
    async fn to(relay: std::net::SocketAddr) -> Self {
        let (near, mut far) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(relay).await.unwrap();
        let path = Self {
            address: near.local_addr().unwrap(),
            blocks: Arc::default(),
            loses: Arc::default(),
            long: Arc::new(AtomicU64::new(500)),
            moves: Arc::default(),
            media: Arc::default(),
        };
        let (blocks, loses, media) = (Arc::clone(&path.blocks), Arc::clone(&path.loses), Arc::clone(&path.media));
        let (long, moves) = (Arc::clone(&path.long), Arc::clone(&path.moves));
        tokio::spawn(async move {
            let (mut there, mut back) = ([0; 2_048], [0; 2_048]);
            let mut client = None;
            let passes = |packet: &[u8]| {
                let is_media = media::is_media(packet);
                media.fetch_add(u64::from(is_media), Ordering::Relaxed);
                let is_lost = is_media
                    && packet.len() as u64 >= long.load(Ordering::Relaxed)
                    && loses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
                let is_blocked = is_media && blocks.load(Ordering::Relaxed);
                !is_blocked && !is_lost
            };
            loop {
                tokio::select! {
                    came = near.recv_from(&mut there) => {
                        let (length, from) = came.unwrap();
                        client = Some(from);
                        if moves.swap(false, Ordering::Relaxed) {
                            far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                            far.connect(relay).await.unwrap();
                        }
                        if passes(&there[..length]) {
                            far.send(&there[..length]).await.unwrap();
                        }
                    }
                    came = far.recv(&mut back) => {
                        let length = came.unwrap();
                        if let Some(client) = client.filter(|_| passes(&back[..length])) {
                            near.send_to(&back[..length], client).await.unwrap();
                        }
                    }
                }
            }
        });
        path
    }
}

#[tokio::test]
async fn frames_leave_quic_once_both_ends_know_that_they_get_through() {
    let relay = Relay::start();
    let address = relay.embedded.local_addr();
    let mut pair = [enter(&relay, address).await, enter(&relay, address).await];
    talk_until(&mut pair, |beside| *beside == [true; 2]).await;
    // The frames of another round tell the relay.
    talk_until(&mut pair, |_| true).await;
    let before = (relay.embedded.stats(), pair.each_ref().map(|dialed| dialed.connection.stats().frame_rx.datagram));
    let mut heard = 0;
    for _ in 0..20 {
        assert!(pair[0].datagrams.send(Bytes::from_static(&[9; 161])));
        heard += usize::from(next(&mut pair[1]).await == [9; 161][..]);
    }
    assert_eq!(heard, 20);
    assert_eq!(pair[1].connection.stats().frame_rx.datagram, before.1[1], "in QUIC");
    let stats = relay.embedded.stats();
    assert_eq!(stats.datagrams_out - before.0.datagrams_out, 20);
    assert!(stats.media_in - before.0.media_in >= 20 && stats.media_unknown == 0);
}

#[tokio::test]
async fn a_relay_with_several_addresses_sends_from_the_one_that_each_client_knows() {
    let has_ipv6 = std::net::UdpSocket::bind("[::]:0").is_ok();
    for listen in ["0.0.0.0:0", "[::]:0"].into_iter().filter(|listen| has_ipv6 || !listen.starts_with('[')) {
        let relay = Relay::with(|config| config.listen = listen.parse().unwrap());
        let port = relay.embedded.local_addr().port();
        // Packets would come from the first anyway. Nothing that comes from elsewhere goes through these.
        let usual = Path::to(([127, 0, 0, 1], port).into()).await;
        let other = Path::to(([127, 0, 0, 2], port).into()).await;
        let mut pair = [enter(&relay, usual.address).await, enter(&relay, other.address).await];
        talk_until(&mut pair, |beside| *beside == [true; 2]).await;
        talk_until(&mut pair, |_| true).await;
        let before = pair.each_ref().map(|dialed| dialed.connection.stats().frame_rx.datagram);
        for _ in 0..20 {
            talk_until(&mut pair, |_| true).await;
        }
        let after = pair.each_ref().map(|dialed| dialed.connection.stats().frame_rx.datagram);
        assert_eq!(after, before, "in QUIC, with {listen}");
    }
}

#[tokio::test]
async fn a_path_that_lets_only_quic_through_carries_frames_all_the_same() {
    let relay = Relay::start();
    let path = Path::to(relay.embedded.local_addr()).await;
    path.blocks.store(true, Ordering::Relaxed);
    let mut pair = [enter(&relay, path.address).await, enter(&relay, relay.embedded.local_addr()).await];
    // The other one, whose path is open, is beside QUIC.
    talk_until(&mut pair, |beside| *beside == [false, true]).await;
    assert!(path.media.load(Ordering::Relaxed) > 0, "it was asked");
    path.blocks.store(false, Ordering::Relaxed);
    talk_until(&mut pair, |beside| *beside == [true; 2]).await;
    path.blocks.store(true, Ordering::Relaxed);
    talk_until(&mut pair, |beside| !beside[0]).await;
    // Back in QUIC nothing is lost.
    assert!(pair[1].datagrams.send(Bytes::from_static(b"still here")));
    let mut heard = Bytes::new();
    while heard != b"still here"[..] {
        heard = next(&mut pair[0]).await;
    }
}

#[tokio::test]
async fn packets_of_nobody_reach_nobody() {
    let relay = Relay::start();
    let address = relay.embedded.local_addr();
    let mut pair = [enter(&relay, address).await, enter(&relay, address).await];
    talk_until(&mut pair, |beside| *beside == [true; 2]).await;
    let before = relay.embedded.stats();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in 0..64 {
        stranger.send_to(&vec![3; length], address).await.unwrap();
    }
    crate::support::patiently(|| relay.embedded.stats().media_unknown - before.media_unknown == 63).await;
    assert!(pair[0].datagrams.send(Bytes::from_static(b"unharmed")));
    assert_eq!(next(&mut pair[1]).await, b"unharmed"[..]);
}

/// One client of a relay, through a path, to which another talks; both are beside QUIC.
async fn listener() -> (Relay, Path, [Dialed; 2]) {
    let relay = Relay::start();
    let path = Path::to(relay.embedded.local_addr()).await;
    let mut pair = [enter(&relay, path.address).await, enter(&relay, relay.embedded.local_addr()).await];
    talk_until(&mut pair, |beside| *beside == [true; 2]).await;
    talk_until(&mut pair, |_| true).await;
    (relay, path, pair)
}

/// Asks the relay for a message that goes along with frames, and lets the other one talk until it has come; whether it came
/// beside QUIC.
async fn comes_beside(pair: &mut [Dialed; 2], message: &'static [u8], frame: usize) -> bool {
    let [one, two] = pair;
    one.writer.send(Bytes::from_static(message)).await.unwrap();
    let mut talk = tokio::time::interval(Duration::from_millis(20));
    let came = async {
        loop {
            tokio::select! {
                beside = one.datagrams.next() => if let Beside::Message(came) = beside.unwrap() {
                    assert_eq!(came, message);
                    return true;
                },
                came = one.reader.next() => {
                    assert_eq!(came.unwrap().unwrap(), message);
                    return false;
                }
                // The other one hears nothing, but asks for that whether it does.
                _ = two.datagrams.next() => {}
                _ = talk.tick() => assert!(two.datagrams.send(vec![9; frame].into())),
            }
        }
    };
    timeout(PATIENCE, came).await.unwrap()
}

static LONG: [u8; 600] = {
    let mut long = [b'.'; 600];
    long.split_at_mut(5).0.copy_from_slice(b"along");
    long
};

#[tokio::test]
async fn messages_for_which_frames_leave_no_room_go_along_in_parts_and_whole_when_one_is_lost() {
    let (relay, path, mut pair) = listener().await;
    let before = relay.embedded.stats();
    // Beside such a frame are 469 bytes.
    assert!(comes_beside(&mut pair, &LONG, 700).await);
    let sent = relay.embedded.stats();
    assert_eq!((sent.control_beside - before.control_beside, sent.control_again - before.control_again), (1, 0));
    path.long.store(1_100, Ordering::Relaxed);
    path.loses.store(1, Ordering::Relaxed);
    assert!(!comes_beside(&mut pair, &LONG, 700).await, "the first part was lost");
    assert_eq!(relay.embedded.stats().control_again - sent.control_again, 1);
    // With frames of another length both are lost.
    path.long.store(900, Ordering::Relaxed);
    path.loses.store(2, Ordering::Relaxed);
    assert!(!comes_beside(&mut pair, &LONG, 870).await);
    assert_eq!(path.loses.load(Ordering::Relaxed), 0);
    assert!(comes_beside(&mut pair, &LONG, 700).await);
    assert_eq!(relay.embedded.stats().control_again - sent.control_again, 2, "once for both");
}

#[tokio::test]
async fn a_listener_who_gets_another_address_hears_frames_again_in_quic_and_then_beside_it() {
    let (_relay, path, [mut one, mut two]) = listener().await;
    let mut talk = tokio::time::interval(Duration::from_millis(20));
    let (moved, mut heard_after, mut beside_after) = (Instant::now(), None, None);
    path.moves.store(true, Ordering::Relaxed);
    let (mut in_quic, mut beside) = (one.connection.stats().frame_rx.datagram, 0);
    while beside_after.is_none() {
        assert!(moved.elapsed() < PATIENCE, "waited in vain; heard after {heard_after:?}");
        tokio::select! {
            frame = one.datagrams.next() => {
                datagram(frame.unwrap());
                let now_in_quic = one.connection.stats().frame_rx.datagram;
                let is_in_quic = std::mem::replace(&mut in_quic, now_in_quic) != now_in_quic;
                if is_in_quic {
                    heard_after.get_or_insert(moved.elapsed());
                }
                beside = if is_in_quic || heard_after.is_none() { 0 } else { beside + 1 };
                beside_after = (beside >= 10).then(|| moved.elapsed());
            }
            _ = two.datagrams.next() => {}
            _ = talk.tick() => assert!(two.datagrams.send(Bytes::from_static(&[9; 161]))),
        }
    }
    // QUIC may have asked the new address for longer than frames come there beside it.
    assert!(beside_after > heard_after && beside_after >= Some(Duration::from_secs(3)), "{beside_after:?}");
}

#[tokio::test]
async fn messages_that_can_wait_go_along_with_frames_and_again_in_quic_when_they_are_lost() {
    let (relay, path, mut pair) = listener().await;
    let before = relay.embedded.stats();
    assert!(comes_beside(&mut pair, b"along with others", 161).await);
    assert!(comes_beside(&mut pair, &LONG, 161).await);
    path.loses.store(1, Ordering::Relaxed);
    assert!(!comes_beside(&mut pair, &LONG, 161).await, "it was lost");
    assert_eq!(path.loses.load(Ordering::Relaxed), 0);
    let after = relay.embedded.stats();
    assert_eq!((after.control_beside - before.control_beside, after.control_again - before.control_again), (3, 1));
    // Without frames it goes by itself.
    pair[0].writer.send(Bytes::from_static(b"along with nobody")).await.unwrap();
    assert_eq!(timeout(PATIENCE, pair[0].reader.next()).await.unwrap().unwrap().unwrap(), b"along with nobody");
}
