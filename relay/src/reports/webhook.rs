//! Reports by HTTP: POST of the sealed bytes, with their number in a header. An answer of 200 to 299 takes a report.

use std::thread;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;

use super::{Deliver, Job, NotDelivered};

/// The header that names a report: the same when it comes again.
const RECEIPT: &str = "Conclave-Receipt";
/// What a web server may take for one report, from connection to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses before another try, when the server doesn't answer or is in trouble.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// A web server that takes reports.
pub(super) struct Webhook {
    agent: Agent,
    url: String,
}

/// Whether a text can be the address of a web server.
pub(super) fn is_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

/// How one try has ended.
enum Try {
    Taken,
    Refused(String),
    Trouble(String),
}

impl Webhook {
    pub(super) fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // A report goes where the operator has said, and nowhere else.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent("conclave-relay")
            .build();
        Self { agent: config.into(), url: url.into() }
    }

    fn attempt(&self, job: &Job) -> Try {
        let request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/octet-stream")
            .header(RECEIPT, job.receipt())
            .send(job.bytes().as_ref());
        match request.map(|response| response.status()) {
            Ok(status) if status.is_success() => Try::Taken,
            // Others may have been told to slow down, or not to wait.
            Ok(status) if status.is_server_error() || matches!(status.as_u16(), 408 | 429) => {
                Try::Trouble(format!("the web server answered {}", status.as_u16()))
            }
            Ok(status) => Try::Refused(format!("the web server answered {}", status.as_u16())),
            Err(error) => Try::Trouble(reason(&error).into()),
        }
    }
}

impl Deliver for Webhook {
    fn deliver(&mut self, job: &Job) -> Result<(), NotDelivered> {
        let mut pauses = RETRIES.into_iter();
        loop {
            match self.attempt(job) {
                Try::Taken => return Ok(()),
                Try::Refused(reason) => return Err(NotDelivered(reason)),
                Try::Trouble(reason) => match pauses.next() {
                    Some(pause) => thread::sleep(pause),
                    None => return Err(NotDelivered(reason)),
                },
            }
        }
    }
}

/// What went wrong, without the address that the error itself may name.
fn reason(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "the web server did not answer in time",
        ureq::Error::HostNotFound => "the web server's name is not known",
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => "the web server cannot be reached",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "the web server's certificate is not trusted",
        _ => "the web server did not understand, or was not understood",
    }
}
