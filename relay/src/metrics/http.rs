//! The HTTP of it. Nothing that a client does costs more than a place among [`MOST`] for [`LONGEST`]: one request for
//! each connection, of at most [`LARGEST`], and no body.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::prometheus_text;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Source, page};
use crate::shell::Readiness;

/// Connections at once; others wait in the system's queue. A scraper needs one for some milliseconds.
const MOST: usize = 16;
/// How long a connection may last: what it takes the thread that forwards to be given up, and as much for the network.
const LONGEST: Duration = Duration::from_secs(2);
/// Bytes of a request's line and headers: hyper's least.
const LARGEST: usize = 8 * 1024;
/// Pause when the system gives no connection, such as for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers for ever.
pub(super) async fn serve(listener: &TcpListener, source: Arc<Source>) -> Infallible {
    // Ends them all when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(timeout(LONGEST, answer_one(stream, Arc::clone(&source))));
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection for counters");
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn answer_one(stream: TcpStream, source: Arc<Source>) {
    let service = service_fn(|request| answer(&source, request));
    // No keep-alive: a reader that comes every few seconds loses nothing, and holds no place between.
    let served = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .max_buf_size(LARGEST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a reader of counters was not answered");
    }
}

async fn answer(source: &Source, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let is_known = matches!(request.uri().path(), "/metrics" | "/healthz" | "/readyz");
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match (is_known, is_reading) {
        (false, _) => words(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz"),
        (true, false) => {
            let mut response = words(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        (true, true) => look(source, request.uri().path()).await,
    })
}

async fn look(source: &Source, path: &str) -> Response<String> {
    let Some(figures) = source.figures().await else {
        return words(StatusCode::SERVICE_UNAVAILABLE, "the forwarding thread does not answer");
    };
    match path {
        "/healthz" => words(StatusCode::OK, "alive"),
        "/readyz" => readiness(figures.readiness),
        _ => match page(source.stats.snapshot(), &source.stats.residence, figures.core.counts) {
            Ok(text) => response(StatusCode::OK, prometheus_text::CONTENT_TYPE, text),
            Err(_) => words(StatusCode::INTERNAL_SERVER_ERROR, "the counters cannot be written"),
        },
    }
}

fn readiness(readiness: Readiness) -> Response<String> {
    match readiness {
        Readiness::Ready => words(StatusCode::OK, "ready"),
        Readiness::Full => words(StatusCode::SERVICE_UNAVAILABLE, "full"),
        Readiness::Stopping => words(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

fn words(status: StatusCode, words: &str) -> Response<String> {
    response(status, "text/plain; charset=utf-8", format!("{words}\n"))
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_relay_that_takes_clients_is_ready() {
        for (of, status, body) in [
            (Readiness::Ready, 200, "ready\n"),
            (Readiness::Full, 503, "full\n"),
            (Readiness::Stopping, 503, "stopping\n"),
        ] {
            let response = readiness(of);
            assert_eq!((response.status().as_u16(), response.body().as_str()), (status, body));
        }
    }
}
