//! Reports to a NATS subject. A report is taken when somebody has answered it: the stream of JetStream that keeps the
//! subject, or a subscriber that replies. NATS alone keeps nothing, so that it has taken a message means nothing.

use std::future::ready;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind, ServerAddr};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::{Job, NotDelivered, SinkError, conclude};

/// The header that names a report, and the one by which JetStream tells that it has it already.
const RECEIPT: &str = "Conclave-Receipt";
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// What whoever takes reports may take for one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Reports under way at once: 16 MiB at most.
const AT_ONCE: usize = 8;

/// Whether a text can be published to.
pub(super) fn is_subject(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token != "*" && token != ">" && !token.chars().any(|c| c.is_whitespace() || c.is_control())
    };
    text.split('.').all(is_token)
}

/// Starts the thread that publishes. A server that can't be reached is tried again for ever.
pub(super) fn start(url: &str, subject: &str, jobs: mpsc::Receiver<Job>) -> Result<(), SinkError> {
    let server: ServerAddr = url.parse().map_err(|_| SinkError::NatsUrl)?;
    let subject: Arc<str> = subject.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("reports".into())
        .spawn(move || runtime.block_on(publish_all(server, subject, jobs)))?;
    Ok(())
}

async fn publish_all(server: ServerAddr, subject: Arc<str>, mut jobs: mpsc::Receiver<Job>) {
    let (connected, is_connected) = watch::channel(false);
    let options =
        ConnectOptions::new().name("conclave-relay").retry_on_initial_connect().event_callback(move |event| {
            // What a client sends before the server has told it how long a message may be, it measures by a guess.
            match event {
                Event::Connected => drop(connected.send_replace(true)),
                Event::Disconnected | Event::Closed => drop(connected.send_replace(false)),
                _ => {}
            }
            ready(())
        });
    let client = match options.connect(server).await {
        Ok(client) => client,
        Err(error) => {
            // Its kind only: the error itself may name an address.
            let kind = error.kind();
            return tracing::error!(%kind, "no connection to NATS: reports are refused");
        }
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(job) = jobs.recv().await {
        // Fails only when the semaphore is closed, which nobody does.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (client, subject, mut is_connected) = (client.clone(), Arc::clone(&subject), is_connected.clone());
        tokio::spawn(async move {
            let is_up = matches!(timeout(TIMEOUT, is_connected.wait_for(|is_up| *is_up)).await, Ok(Ok(_)));
            let outcome = if is_up {
                publish(&client, &subject, &job).await
            } else {
                Err(NotDelivered("NATS cannot be reached".into()))
            };
            conclude(outcome, job);
            drop(place);
        });
    }
}

async fn publish(client: &Client, subject: &str, job: &Job) -> Result<(), NotDelivered> {
    let receipt = job.receipt();
    let mut headers = HeaderMap::new();
    headers.insert(RECEIPT, receipt.as_str());
    headers.insert(MESSAGE_ID, receipt.as_str());
    let request = Request::new().headers(headers).payload(job.bytes().clone()).timeout(Some(TIMEOUT));
    let reply = client
        .send_request(subject.to_owned(), request)
        .await
        .map_err(|error| NotDelivered(reason(error.kind()).into()))?;
    if is_refusal(&reply.payload) {
        return Err(NotDelivered("the stream of NATS does not take it".into()));
    }
    Ok(())
}

/// JetStream answers in JSON; what it can't store, with an `error`. What others answer is their own affair.
fn is_refusal(reply: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(reply).is_ok_and(|reply| reply.get("error").is_some())
}

fn reason(kind: RequestErrorKind) -> &'static str {
    match kind {
        RequestErrorKind::TimedOut => "nobody at NATS has answered in time",
        RequestErrorKind::NoResponders => "no stream and no subscriber at NATS has the subject",
        RequestErrorKind::MaxPayloadExceeded => "the report is longer than the NATS server allows: raise max_payload",
        RequestErrorKind::InvalidSubject | RequestErrorKind::Other => "NATS cannot be reached",
    }
}

#[cfg(test)]
#[path = "nats_tests.rs"]
mod tests;
