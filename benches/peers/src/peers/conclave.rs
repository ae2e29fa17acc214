//! Conclave's relay: `conclave-load` brings the clients and starts the relay, and this puts each on its core.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::Round;
use crate::measure::Figures;
use crate::pattern::Pattern;
use crate::placement::Placement;
use crate::process::{children, last_words, output};
use crate::tally::Latency;

/// How often to look for the relay while conclave-load has not started it.
const LOOK: Duration = Duration::from_millis(20);

/// How often to look whether conclave-load has ended. It shares its core with this.
const WAIT: Duration = Duration::from_millis(500);

/// Time beside the window for joining, warming up and writing down.
const GRACE: Duration = Duration::from_secs(120);

/// What conclave-load says, as far as it is compared here (`docs/load.md`).
#[derive(Deserialize)]
struct Said {
    valid: bool,
    invalid_because: Vec<String>,
    loss: f64,
    /// `None` if nothing arrived.
    latency_ms: Option<Latency>,
    relay: SaidRelay,
}

#[derive(Deserialize)]
struct SaidRelay {
    /// `None` if conclave-load could not read it.
    cpu_s: Option<f64>,
    frames_forwarded: u64,
}

/// Measures the relay once.
pub fn round(program: &Path, directory: &Path, round: &Round) -> Result<Figures> {
    let (json, log) = (directory.join("result.json"), directory.join("log"));
    let (out, err) = output(&log)?;
    let mut command = Command::new(program);
    command.args(arguments(&round.pattern, round.length)).arg("--json").arg(&json);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().context("cannot start conclave-load")?;
    Guard(child).supervise(&round.placement, round.length + GRACE).with_context(|| last_words(&log))?;
    // It may end with an error and a result, when it calls the result not valid.
    let file = File::open(&json).with_context(|| format!("conclave-load left no result; {}", last_words(&log)))?;
    let said: Said = serde_json::from_reader(file).with_context(|| {
        let text = fs::read_to_string(&json).unwrap_or_default();
        format!("conclave-load's result is of another kind: {text}")
    })?;
    said.figures()
}

fn arguments(pattern: &Pattern, length: Duration) -> Vec<String> {
    let mut arguments = vec!["run".to_owned()];
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option("--relay", "embedded".to_owned());
    option("--rooms", "1".to_owned());
    option("--people", pattern.people.to_string());
    option("--talkers", pattern.talkers.to_string());
    option("--seconds", length.as_secs().to_string());
    if !pattern.jitter.is_zero() {
        option("--jitter", (pattern.jitter.as_secs_f64() * 1e3).to_string());
    }
    arguments
}

impl Said {
    fn figures(self) -> Result<Figures> {
        let mut reasons = self.invalid_because;
        if !self.valid && reasons.is_empty() {
            reasons.push("conclave-load says so".to_owned());
        }
        Ok(Figures {
            frames_forwarded: self.relay.frames_forwarded,
            cpu_s: self.relay.cpu_s.context("conclave-load did not read the relay's CPU time")?,
            loss: self.loss,
            latency_ms: self.latency_ms.with_context(|| format!("nothing arrived; {}", reasons.join("; ")))?,
            client_share: None,
            client_lag_ms: None,
            invalid_because: reasons,
        })
    }
}

/// A conclave-load that does not outlive this.
struct Guard(Child);

impl Guard {
    /// Moves its relay to the server's core, as soon as it has started one, and waits for its end.
    fn supervise(mut self, placement: &Placement, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let mut is_placed = false;
        while self.0.try_wait()?.is_none() {
            if start.elapsed() > limit {
                bail!("conclave-load has not ended after {} s", limit.as_secs());
            }
            if !is_placed {
                is_placed = self.place_relay(placement);
            }
            thread::sleep(if is_placed { WAIT } else { LOOK });
        }
        if !is_placed {
            bail!("conclave-load started no relay");
        }
        Ok(())
    }

    /// Whether the relay runs, and on its core. Threads that it starts later stay there.
    fn place_relay(&self, placement: &Placement) -> bool {
        let relays = children(self.0.id());
        !relays.is_empty() && relays.iter().all(|relay| placement.place_server(*relay).is_ok())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_conclave_load_says_becomes_figures() {
        let json = r#"{"valid":true,"invalid_because":[],"loss":0.001,"latency_ms":{"p50":1.5,"p90":2,"p99":2.5,"p999":3,"max":4},
            "relay":{"cpu_s":2.0,"frames_forwarded":100000,"frames_per_cpu_s":50000,"rss_bytes":1}}"#;
        let figures = serde_json::from_str::<Said>(json).unwrap().figures().unwrap();
        assert_eq!(figures.frames_per_cpu_s(), 50_000.0);
        assert_eq!(figures.latency_ms, Latency { p50: 1.5, p99: 2.5 });
        assert!(figures.invalid_because.is_empty() && figures.client_share.is_none());
    }

    #[test]
    fn a_run_in_which_nothing_arrived_is_an_error_with_its_reason() {
        let json = r#"{"valid":false,"invalid_because":["nobody got in"],"loss":1.0,"latency_ms":null,
            "relay":{"cpu_s":0.1,"frames_forwarded":0}}"#;
        let error = serde_json::from_str::<Said>(json).unwrap().figures().unwrap_err();
        assert!(error.to_string().contains("nobody got in"));
    }

    #[test]
    fn conclave_load_is_asked_for_the_same_pattern() {
        let pattern = Pattern { people: 50, talkers: 5, jitter: Duration::from_millis(5) };
        let asked = arguments(&pattern, Duration::from_secs(20)).join(" ");
        assert_eq!(asked, "run --relay embedded --rooms 1 --people 50 --talkers 5 --seconds 20 --jitter 5");
    }
}
