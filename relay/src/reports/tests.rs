use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use super::directory::Directory;
use super::*;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn receipt(n: u8) -> Receipt {
    Receipt([n; 10])
}

/// Offers reports, and says what became of each, in the order of their tickets.
fn outcomes(sink: Sink, reports: &[(Receipt, Bytes)]) -> Vec<Delivery> {
    let (intake, answers) = sink.split();
    for (n, (receipt, bytes)) in reports.iter().enumerate() {
        intake.offer(ReportTicket(n as u64), *receipt, bytes.clone());
    }
    let mut all: Vec<_> = reports.iter().map(|_| None).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut answers = answers;
    for _ in reports {
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, answers.recv()).await });
        let (ticket, delivery) = answer.unwrap().unwrap();
        assert!(all[ticket.0 as usize].replace(delivery).is_none(), "answered twice");
    }
    all.into_iter().map(Option::unwrap).collect()
}

fn start(text: &str, max_bytes: u64) -> Sink {
    Settings { target: text.parse().unwrap(), nats_url: String::new(), max_bytes }.start().unwrap()
}

fn directory(path: &Path, max_bytes: u64) -> Sink {
    start(&format!("dir:{}", path.display()), max_bytes)
}

#[test]
fn targets_are_told_apart_and_nonsense_is_refused() {
    assert_eq!("dir:/a:b".parse(), Ok(Target::Directory("/a:b".into())));
    assert_eq!("https://h.example/x?y".parse(), Ok(Target::Webhook("https://h.example/x?y".into())));
    assert_eq!("nats:a.b".parse(), Ok(Target::Nats("a.b".into())));
    for wrong in
        ["", "dir:", "/a", "http://", "https:x", "ftp://a", "nats:", "nats:a..b", "nats:a b", "nats:a.>", "nats:*"]
    {
        assert_eq!(wrong.parse::<Target>(), Err(InvalidTarget), "{wrong}");
    }
}

#[test]
fn a_directory_holds_each_report_whole_under_its_receipt() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("reports");
    let reports: Vec<_> = (0..20).map(|n| (receipt(n), Bytes::from(vec![n; 70_000]))).collect();
    assert_eq!(outcomes(directory(&path, DEFAULT_MAX_BYTES), &reports), vec![Delivery::Taken; 20]);
    for (receipt, bytes) in &reports {
        let name = format!("{}.conclave-report", BASE32_NOPAD.encode(&receipt.0));
        assert_eq!(fs::read(path.join(name)).unwrap(), *bytes);
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 20);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let modes = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().permissions().mode());
        assert!(modes.into_iter().all(|mode| mode & 0o777 == 0o600));
    }
}

#[test]
fn the_same_report_is_kept_once_and_another_under_its_number_is_not_taken() {
    let directory_ = tempfile::tempdir().unwrap();
    let same = (receipt(1), Bytes::from_static(b"first"));
    let other = (receipt(1), Bytes::from_static(b"second"));
    let sink = directory(directory_.path(), DEFAULT_MAX_BYTES);
    let outcome = outcomes(sink, &[same.clone(), same, other]);
    assert_eq!(outcome, [Delivery::Taken, Delivery::Taken, Delivery::Failed]);
    assert_eq!(fs::read_dir(directory_.path()).unwrap().count(), 1);
}

#[test]
fn a_full_directory_refuses_until_the_operator_makes_room() {
    let directory_ = tempfile::tempdir().unwrap();
    let path = directory_.path();
    let reports: Vec<_> = (0..3).map(|n| (receipt(n), Bytes::from(vec![n; 100]))).collect();
    let outcome = outcomes(directory(path, 250), &reports);
    assert_eq!(outcome, [Delivery::Taken, Delivery::Taken, Delivery::Failed]);
    // A new start counts what is there.
    assert_eq!(outcomes(directory(path, 250), &reports[2..]), [Delivery::Failed]);
    let sink = Directory::open(path, 250).unwrap();
    let first = fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(first).unwrap();
    // One that has been running all the while looks again.
    assert_eq!(outcomes(Sink::start(vec![sink]).unwrap(), &reports[2..]), [Delivery::Taken]);
}

#[test]
fn a_directory_that_is_none_is_said_at_the_start_or_fails_the_report() {
    let directory_ = tempfile::tempdir().unwrap();
    let file = directory_.path().join("file");
    fs::write(&file, "x").unwrap();
    let settings = Settings { target: Target::Directory(file), nats_url: String::new(), max_bytes: 1 };
    assert!(matches!(settings.start(), Err(SinkError::Directory { .. })));
    let path = directory_.path().join("reports");
    let sink = directory(&path, DEFAULT_MAX_BYTES);
    fs::remove_dir(&path).unwrap();
    assert_eq!(outcomes(sink, &[(receipt(1), Bytes::from_static(b"x"))]), [Delivery::Failed]);
}

/// A sink in trouble: it panics, or waits for nothing.
struct Faulty;

impl Deliver for Faulty {
    fn deliver(&mut self, _: &Job) -> Result<(), NotDelivered> {
        panic!("asked to")
    }
}

#[test]
fn a_sink_that_dies_fails_its_reports_and_those_after() {
    let reports: Vec<_> = (0..5).map(|n| (receipt(n), Bytes::from_static(b"x"))).collect();
    assert_eq!(outcomes(Sink::start(vec![Faulty]).unwrap(), &reports), vec![Delivery::Failed; 5]);
}

#[test]
fn a_sink_that_does_not_keep_up_refuses_what_its_queue_cannot_hold() {
    struct Blocked(std::sync::mpsc::Receiver<()>);
    impl Deliver for Blocked {
        fn deliver(&mut self, _: &Job) -> Result<(), NotDelivered> {
            self.0.recv().map_err(|_| NotDelivered("gone".into()))
        }
    }
    let (go, wait) = std::sync::mpsc::channel();
    let (intake, mut answers) = Sink::start(vec![Blocked(wait)]).unwrap().split();
    let all = QUEUE as u64 + 100;
    for n in 0..all {
        intake.offer(ReportTicket(n), receipt(0), Bytes::from_static(b"x"));
    }
    // One may be in the sink's hands already.
    let refused = answers.len() as u64;
    assert!((99..=100).contains(&refused), "{refused}");
    (0..all).for_each(|_| go.send(()).unwrap());
    let mut taken = 0;
    for _ in 0..all {
        let (_, delivery) = answers.blocking_recv().unwrap();
        taken += u64::from(delivery == Delivery::Taken);
    }
    assert_eq!(taken, all - refused);
}

/// Head and body of a request.
type Asked = (String, Vec<u8>);

/// A web server that gives these answers, one for each connection, and says what it was sent.
fn web_server(answers: &'static [&'static str]) -> (String, thread::JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/reports", listener.local_addr().unwrap());
    let server = thread::spawn(move || answers.iter().map(|answer| serve(&listener, answer)).collect());
    (url, server)
}

fn serve(listener: &TcpListener, answer: &str) -> Asked {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    (head, body)
}

#[test]
fn a_webhook_gets_the_bytes_with_their_number_and_is_tried_again() {
    let (url, server) = web_server(&["503 Busy", "429 Slow", "204 Thanks"]);
    let bytes = Bytes::from(vec![0xA5; 200_000]);
    assert_eq!(outcomes(start(&url, 0), &[(receipt(3), bytes.clone())]), [Delivery::Taken]);
    for (head, body) in server.join().unwrap() {
        assert!(head.starts_with("post /reports http/1.1"), "{head}");
        assert!(head.contains("content-type: application/octet-stream"), "{head}");
        let number = BASE32_NOPAD.encode(&receipt(3).0).to_lowercase();
        assert!(head.contains(&format!("conclave-receipt: {number}")), "{head}");
        assert_eq!(body, bytes);
    }
}

#[test]
fn a_webhook_that_refuses_or_sends_elsewhere_or_stays_away_takes_nothing() {
    for answer in [&["400 No"], &["302 Found\r\nLocation: http://127.0.0.1:9/"], &["404 Where"]] {
        let (url, server) = web_server(answer);
        assert_eq!(outcomes(start(&url, 0), &[(receipt(1), Bytes::from_static(b"x"))]), [Delivery::Failed]);
        assert_eq!(server.join().unwrap().len(), 1);
    }
    let (url, server) = web_server(&["500 Oh", "500 Oh", "500 Oh"]);
    assert_eq!(outcomes(start(&url, 0), &[(receipt(1), Bytes::from_static(b"x"))]), [Delivery::Failed]);
    assert_eq!(server.join().unwrap().len(), 3);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = start(&format!("http://{nobody}/"), 0);
    assert_eq!(outcomes(gone, &[(receipt(1), Bytes::from_static(b"x"))]), [Delivery::Failed]);
}
