use super::*;
use std::collections::BTreeSet;

/// A server that returns every datagram, until it is dropped.
struct Echo {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    peers: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Echo {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(STOP_CHECK)).unwrap();
        let addr = socket.local_addr().unwrap();
        let (stop, peers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let (stopping, seen) = (Arc::clone(&stop), Arc::clone(&peers));
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopping.load(Ordering::Relaxed) {
                if let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                    lock(&seen).insert(peer);
                    socket.send_to(&buffer[..len], peer).unwrap();
                }
            }
        });
        Self { addr, stop, peers }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client(proxy: &Proxy) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(proxy.addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Sends numbered datagrams, with a pause so that no socket buffer on the way fills.
fn send_numbered(socket: &UdpSocket, count: u32) {
    for number in 0..count {
        socket.send(&number.to_be_bytes()).unwrap();
        thread::sleep(Duration::from_micros(200));
    }
}

/// Everything that comes back until half a second of silence.
fn receive_numbered(socket: &UdpSocket) -> Vec<u32> {
    let mut buffer = [0; 2048];
    let mut numbers = Vec::new();
    while let Ok(len) = socket.recv(&mut buffer) {
        numbers.push(u32::from_be_bytes(buffer[..len].try_into().unwrap()));
    }
    numbers
}

fn round_trip(config: Config, count: u32) -> (Vec<u32>, Proxy) {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr, config).unwrap();
    let socket = client(&proxy);
    let receiving = socket.try_clone().unwrap();
    let receiver = thread::spawn(move || receive_numbered(&receiving));
    send_numbered(&socket, count);
    (receiver.join().unwrap(), proxy)
}

#[test]
fn injected_bytes_arrive_either_way_as_if_they_had_come_along_the_flow() {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr, Config::default()).unwrap();
    let socket = client(&proxy);
    send_numbered(&socket, 1);
    assert_eq!(receive_numbered(&socket), [0]);
    proxy.inject(FlowId(0), Direction::Up, &7u32.to_be_bytes()).unwrap();
    proxy.inject(FlowId(0), Direction::Down, &8u32.to_be_bytes()).unwrap();
    assert_eq!(receive_numbered(&socket).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([7, 8]));
    assert!(proxy.inject(FlowId(1), Direction::Up, b"x").is_err());
    assert_eq!(lock(&echo.peers).len(), 1);
}

#[test]
fn a_perfect_path_delivers_everything_once_and_in_order() {
    let (numbers, proxy) = round_trip(Config::default(), 300);
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    for direction in [Direction::Up, Direction::Down] {
        let counters = proxy.counters(direction);
        assert_eq!(counters, Counters { received: 300, forwarded: 300, ..Counters::default() });
    }
    assert_eq!(proxy.lateness().count, 600);
}

#[test]
fn delay_is_never_shorter_than_asked() {
    let echo = Echo::start();
    let path = Impairment::of(Duration::from_millis(30), 0.0);
    let proxy = Proxy::start(echo.addr, Config::symmetric(path, 1)).unwrap();
    let socket = client(&proxy);
    for _ in 0..5 {
        let sent = Instant::now();
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 8]).unwrap();
        assert!(sent.elapsed() >= Duration::from_millis(60));
    }
}

#[test]
fn loss_has_the_asked_rate_and_the_seed_decides_which() {
    let path = Impairment::of(Duration::ZERO, 0.2);
    let config = Config { up: path, seed: 7, ..Config::default() };
    let (first, proxy) = round_trip(config, 1000);
    let lost = proxy.counters(Direction::Up).lost;
    assert_eq!(first.len() as u64 + lost, 1000);
    // Five standard deviations of a binomial with n = 1000 and p = 0.2 are 63.
    assert!((137..=263).contains(&lost), "{lost} lost");
    assert_eq!(round_trip(config, 1000).0, first);
    assert_ne!(round_trip(Config { seed: 8, ..config }, 1000).0, first);
}

#[test]
fn jitter_keeps_the_order_and_reordering_breaks_it() {
    let path = Impairment { jitter: Duration::from_millis(20), ..Impairment::default() };
    let (numbers, _) = round_trip(Config::symmetric(path, 2), 200);
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());

    let path = Impairment { reorder: 0.1, reorder_by: Duration::from_millis(10), ..path };
    let (numbers, proxy) = round_trip(Config { up: path, seed: 3, ..Config::default() }, 200);
    assert!(!numbers.is_sorted());
    assert!(proxy.counters(Direction::Up).reordered > 0);
    assert_eq!(numbers.into_iter().collect::<BTreeSet<_>>().len(), 200);
}

#[test]
fn duplicates_arrive_twice() {
    let path = Impairment { duplicate: 1.0, ..Impairment::default() };
    let (numbers, proxy) = round_trip(Config { down: path, ..Config::default() }, 50);
    assert_eq!(numbers, (0..50).flat_map(|number| [number, number]).collect::<Vec<_>>());
    assert_eq!(proxy.counters(Direction::Down).duplicated, 50);
}

#[test]
fn each_client_is_a_peer_of_its_own() {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr, Config::default()).unwrap();
    let clients: Vec<_> = (0..20).map(|_| client(&proxy)).collect();
    for (number, socket) in (0u32..).zip(&clients) {
        socket.send(&number.to_be_bytes()).unwrap();
    }
    for (number, socket) in (0u32..).zip(&clients) {
        assert_eq!(receive_numbered_once(socket), number);
    }
    assert_eq!(proxy.flows(), 20);
    assert_eq!(lock(&echo.peers).len(), 20);
}

fn receive_numbered_once(socket: &UdpSocket) -> u32 {
    let mut buffer = [0; 4];
    socket.recv(&mut buffer).unwrap();
    u32::from_be_bytes(buffer)
}

#[test]
fn after_a_change_of_addresses_the_upstream_sees_another_peer_and_the_client_none() {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr, Config::default()).unwrap();
    let socket = client(&proxy);
    send_numbered(&socket, 5);
    assert_eq!(receive_numbered(&socket).len(), 5);
    proxy.change_addresses().unwrap();
    send_numbered(&socket, 5);
    assert_eq!(receive_numbered(&socket).len(), 5);
    assert_eq!((proxy.flows(), lock(&echo.peers).len()), (1, 2));
}

#[test]
fn the_path_can_be_cut_and_mended_while_it_runs() {
    let echo = Echo::start();
    let proxy = Proxy::start(echo.addr, Config::default()).unwrap();
    let socket = client(&proxy);
    proxy.set(Direction::Down, Impairment::of(Duration::ZERO, 1.0));
    send_numbered(&socket, 10);
    assert_eq!(receive_numbered(&socket), Vec::<u32>::new());
    proxy.set(Direction::Down, Impairment::default());
    send_numbered(&socket, 10);
    assert_eq!(receive_numbered(&socket).len(), 10);
}

#[test]
fn recording_keeps_sizes_and_bytes_within_its_limit() {
    let (_, proxy) = round_trip(Config { record: Record::Bytes(40), ..Config::default() }, 20);
    let observed = proxy.take_recorded();
    assert_eq!(observed.iter().map(|seen| seen.bytes.len()).sum::<usize>(), 40);
    assert!(observed.iter().all(|seen| seen.len == 4 && seen.flow == FlowId(0)));
    assert_eq!(proxy.unrecorded(), 30);
    assert!(proxy.take_recorded().is_empty());

    let (_, proxy) = round_trip(Config { record: Record::Sizes(7), ..Config::default() }, 20);
    let observed = proxy.take_recorded();
    assert_eq!(observed.len(), 7);
    assert!(observed.iter().all(|seen| seen.bytes.is_empty()));
}

#[test]
fn lateness_quantiles_come_from_the_right_buckets() {
    let mut histogram = Histogram::default();
    for micros in 1..=100 {
        histogram.add(Duration::from_micros(micros * 10 - 5));
    }
    histogram.add(Duration::from_secs(1));
    let summary = histogram.summary();
    assert_eq!((summary.count, summary.max), (101, Duration::from_secs(1)));
    assert_eq!(summary.p50, Duration::from_micros(510));
    assert_eq!(summary.p99, Duration::from_micros(1000));
}
