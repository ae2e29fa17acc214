//! Against a real server: `NATS_SERVER=/usr/sbin/nats-server cargo test -p conclave-relay --lib nats -- --ignored`.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use conclave_protocol::wire::relay::Receipt;
use futures_util::StreamExt;

use super::*;
use crate::core::{Delivery, ReportTicket};
use crate::reports::{Settings, Sink, Target};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with JetStream; killed when dropped.
struct Server {
    child: Child,
    url: String,
    _store: tempfile::TempDir,
}

impl Server {
    fn start(port: u16) -> Self {
        let store = tempfile::tempdir().unwrap();
        let program = std::env::var("NATS_SERVER").expect("NATS_SERVER names the program");
        let config = store.path().join("nats.conf");
        let storage = store.path().join("jetstream");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 4MB\njetstream {{ store_dir: \"{}\" }}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), url: format!("nats://127.0.0.1:{port}"), _store: store }
    }

    fn sink(&self, subject: &str) -> Sink {
        let target = Target::Nats(subject.into());
        Settings { target, nats_url: self.url.clone(), max_bytes: 0 }.start().unwrap()
    }

    async fn client(&self) -> Client {
        let options = ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect(self.url.as_str()).await.unwrap();
        timeout(PATIENCE, async {
            while client.connection_state() != async_nats::connection::State::Connected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What becomes of reports of these lengths.
async fn outcomes(sink: Sink, lengths: &[usize]) -> Vec<Delivery> {
    let (intake, mut answers) = sink.split();
    for (n, length) in lengths.iter().enumerate() {
        let fill = u8::try_from(n).unwrap();
        intake.offer(ReportTicket(n as u64), Receipt([fill; 10]), Bytes::from(vec![fill; *length]));
    }
    let mut all: Vec<_> = lengths.iter().map(|_| None).collect();
    for _ in lengths {
        let (ticket, delivery) = timeout(PATIENCE, answers.recv()).await.unwrap().unwrap();
        all[usize::try_from(ticket.0).unwrap()] = Some(delivery);
    }
    all.into_iter().map(Option::unwrap).collect()
}

/// Asks JetStream's API, which is JSON by request.
async fn jetstream(client: &Client, subject: &str, question: String) -> serde_json::Value {
    let reply = client.request(format!("$JS.API.STREAM.{subject}.R"), question.into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

#[tokio::test]
#[ignore = "needs a NATS server"]
async fn a_stream_takes_reports_once_and_nobody_takes_none() {
    let server = Server::start(free_port());
    let client = server.client().await;
    assert_eq!(outcomes(server.sink("conclave.reports"), &[10]).await, [Delivery::Failed], "nobody listens");
    let made = jetstream(&client, "CREATE", r#"{"name":"R","subjects":["conclave.*"],"storage":"file"}"#.into()).await;
    assert!(made.get("error").is_none(), "{made}");
    let lengths = [65_536, 2 * 1024 * 1024, 1, 65_536];
    assert_eq!(outcomes(server.sink("conclave.reports"), &lengths).await, [Delivery::Taken; 4]);
    // The same reports again, as after a restart of the relay.
    assert_eq!(outcomes(server.sink("conclave.reports"), &lengths).await, [Delivery::Taken; 4]);
    let info = jetstream(&client, "INFO", String::new()).await;
    assert_eq!(info["state"]["messages"], 4, "{info}");
}

#[tokio::test]
#[ignore = "needs a NATS server"]
async fn a_full_stream_takes_nothing() {
    let server = Server::start(free_port());
    let client = server.client().await;
    let full = r#"{"name":"R","subjects":["r"],"storage":"file","max_bytes":100000,"discard":"new"}"#;
    let made = jetstream(&client, "CREATE", full.into()).await;
    assert!(made.get("error").is_none(), "{made}");
    assert_eq!(outcomes(server.sink("r"), &[65_536]).await, [Delivery::Taken]);
    assert_eq!(outcomes(server.sink("r"), &[65_536, 65_537]).await[1], Delivery::Failed);
}

#[tokio::test]
#[ignore = "needs a NATS server"]
async fn a_subscriber_takes_reports_by_a_reply_and_a_server_may_come_later() {
    let port = free_port();
    let settings =
        Settings { target: Target::Nats("r".into()), nats_url: format!("nats://127.0.0.1:{port}"), max_bytes: 0 };
    let sink = settings.start().unwrap();
    let server = Server::start(port);
    let client = server.client().await;
    let mut reports = client.subscribe("r").await.unwrap();
    client.flush().await.unwrap();
    let replying = tokio::spawn(async move {
        let message = reports.next().await.unwrap();
        let receipt = message.headers.as_ref().and_then(|headers| headers.get(RECEIPT)).unwrap().to_string();
        client.publish(message.reply.unwrap(), "thanks".into()).await.unwrap();
        client.flush().await.unwrap();
        (receipt, message.payload)
    });
    // Until the sink has found the server a report may fail.
    let (intake, mut answers) = sink.split();
    let taken = async {
        loop {
            intake.offer(ReportTicket(0), Receipt([0; 10]), Bytes::from_static(b"sealed"));
            if answers.recv().await.unwrap().1 == Delivery::Taken {
                return;
            }
        }
    };
    timeout(PATIENCE, taken).await.unwrap();
    let (receipt, payload) = replying.await.unwrap();
    assert_eq!((receipt.as_str(), &payload[..]), ("AAAAAAAAAAAAAAAA", &b"sealed"[..]));
}

#[test]
fn only_what_jetstream_cannot_store_is_a_refusal() {
    assert!(is_refusal(br#"{"error":{"code":503,"description":"maximum bytes exceeded"}}"#));
    for taken in [&br#"{"stream":"R","seq":1}"#[..], b"", b"+OK", b"thanks"] {
        assert!(!is_refusal(taken));
    }
}
