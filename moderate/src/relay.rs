//! Asking a relay whether it made stamps (`docs/protocol.md` §9.3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use conclave_protocol::label;
use conclave_protocol::link::RelayAddress;
use conclave_protocol::moderator::ModeratorKey;
use conclave_protocol::stamp::StampKeyId;
use conclave_protocol::wire::codec::{Wire, Writer};
use conclave_protocol::wire::relay::{FromRelay, MAX_STAMP_CHECKS, Refusal, StampCheck, StampVerdict, ToRelay};
use conclave_relay::dial::{self, Dialed};
use conclave_relay::tls::{Pin, Trust};
use tokio::time::timeout;

use crate::stampkeys::Source;

/// How long a relay may take to be reached, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a relay has said.
pub(crate) struct Asked {
    relay: String,
    answers: BTreeMap<Vec<u8>, StampVerdict>,
    known: BTreeSet<StampKeyId>,
}

impl Asked {
    /// What it said of a stamp.
    pub(crate) fn answer(&self, check: &StampCheck) -> StampVerdict {
        self.answers.get(&check.encode()).copied().unwrap_or(StampVerdict::UnknownKey)
    }

    /// Whether it knows a key.
    pub(crate) fn knows(&self, id: &StampKeyId) -> bool {
        self.known.contains(id)
    }

    /// Its name.
    pub(crate) fn source(&self) -> Source {
        Source { relay: self.relay.clone(), day: None }
    }
}

/// Asks a relay all these questions.
pub(crate) fn ask(relay: &str, pin: Option<Pin>, key: &ModeratorKey, checks: &[StampCheck]) -> Result<Asked> {
    let address = RelayAddress::parse(relay).ok().context("--relay: give HOST or HOST:PORT")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let asking = ask_all(&address, pin, key, checks);
    let verdicts = runtime.block_on(asking).with_context(|| format!("the relay at {relay} cannot be asked"))?;
    let pairs = || checks.iter().zip(&verdicts);
    let known = pairs().filter(|(_, verdict)| **verdict != StampVerdict::UnknownKey);
    Ok(Asked {
        relay: relay.to_owned(),
        known: known.map(|(check, _)| check.stamp.key).collect(),
        answers: pairs().map(|(check, verdict)| (check.encode(), *verdict)).collect(),
    })
}

async fn ask_all(
    address: &RelayAddress,
    pin: Option<Pin>,
    key: &ModeratorKey,
    checks: &[StampCheck],
) -> Result<Vec<StampVerdict>> {
    let mut verdicts = Vec::with_capacity(checks.len());
    // A question is the first message of its connection, so that the relay needs no state for moderators.
    for some in checks.chunks(MAX_STAMP_CHECKS) {
        let answers = timeout(PATIENCE, ask_some(address, pin, key, some)).await.context("it does not answer")??;
        if answers.len() != some.len() {
            bail!("it answers another question");
        }
        verdicts.extend(answers);
    }
    Ok(verdicts)
}

async fn ask_some(
    address: &RelayAddress,
    pin: Option<Pin>,
    key: &ModeratorKey,
    checks: &[StampCheck],
) -> Result<Vec<StampVerdict>> {
    let mut resolved = tokio::net::lookup_host((address.host.as_str(), address.port)).await?;
    let remote = resolved.next().context("its name has no address")?;
    let endpoint = dial::client_endpoint(dial::bind_for(remote))?;
    let Dialed { connection, mut writer, mut reader, exporter, .. } =
        dial::dial(&endpoint, remote, &address.host, &trust(pin), PATIENCE).await?;
    let mut list = Writer::default();
    list.list(checks);
    let signature = key.sign(label::MODERATOR_REQUEST, &[&exporter, &list.into_bytes()]);
    let question = ToRelay::CheckStamps { signature, checks: checks.to_vec() };
    writer.send(Bytes::from(question.encode())).await?;
    let answer = loop {
        let message = reader.next().await?.context("it hangs up")?;
        match FromRelay::decode(message)? {
            FromRelay::StampsChecked { verdicts } => break Ok(verdicts),
            FromRelay::Welcome { .. } => {}
            FromRelay::Refused { reason: Refusal::NotAllowed } => {
                break Err(anyhow::anyhow!(
                    "it answers another moderator only: its operator names one with --moderator"
                ));
            }
            FromRelay::Refused { reason } => break Err(anyhow::anyhow!("it refuses: {reason}")),
            _ => break Err(anyhow::anyhow!("it does not know this question")),
        }
    };
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    answer
}

fn trust(pin: Option<Pin>) -> Trust {
    pin.map_or_else(
        || {
            let mut roots = rustls::RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            Trust::WebPki(roots.into())
        },
        Trust::Pin,
    )
}
