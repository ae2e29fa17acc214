//! One measurement of a server that this program's own clients load: warm up, take the time, judge.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::pattern::{FRAME_LEN, Frame, Schedule};
use crate::peers::Round;
use crate::process::{self, Server};
use crate::tally::{Delivery, Latency, Tally, Window, percentile};

/// Before the window: caches fill, connections find their path's MTU.
pub const WARM_UP: Duration = Duration::from_secs(2);

/// After the window: time for its last frames to arrive.
const DRAIN: Duration = Duration::from_millis(500);

/// CPU share above which the clients have become what is measured.
const SATURATED_SHARE: f64 = 0.85;

/// Delay in milliseconds of the clients' own clock, 99th percentile, above which they are what is measured.
const SATURATED_LAG: f64 = 2.0;

/// Sends frames for talkers.
pub trait Sender: Send {
    /// Sends a frame of one talker to whoever shall hear it.
    ///
    /// # Errors
    /// It cannot be sent, or not at once.
    fn send(&mut self, talker: usize, frame: &[u8; FRAME_LEN]) -> io::Result<()>;
}

/// The members of a room that are in it and listen.
pub struct Clients {
    /// Sends for those who talk.
    pub sender: Box<dyn Sender>,
    /// The tasks that note what arrives; they run until they are dropped.
    pub tasks: JoinSet<Result<()>>,
}

/// What a measurement gave.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Frames that arrived, counted at each listener.
    pub frames_forwarded: u64,
    /// CPU seconds of the server in the same time.
    pub cpu_s: f64,
    /// Share of the frames that did not arrive, 0 to 1.
    pub loss: f64,
    /// From a client's sending to a client's receiving.
    pub latency_ms: Latency,
    /// The clients' share of their core; `None` where they judge themselves.
    pub client_share: Option<f64>,
    /// How late talkers were, 99th percentile, milliseconds; `None` where they judge themselves.
    pub client_lag_ms: Option<f64>,
    /// Why the figures are not the server's but the clients'; empty if they are the server's.
    pub invalid_because: Vec<String>,
}

impl Figures {
    /// Frames that a second of the server's CPU time forwards.
    pub fn frames_per_cpu_s(&self) -> f64 {
        self.frames_forwarded as f64 / self.cpu_s
    }
}

/// Loads a server for the warm-up and the round's length, and says what it did in that length.
///
/// # Errors
/// The server or a client failed meanwhile.
pub async fn measure(server: &Server, clients: Clients, round: &Round, tally: &Arc<Tally>) -> Result<Figures> {
    let Clients { sender, mut tasks } = clients;
    let talking = Talking::start(sender, round, Arc::clone(tally));
    tokio::time::sleep(WARM_UP).await;
    let begin = Reading::take(server, tally)?;
    tokio::time::sleep(round.length).await;
    let end = Reading::take(server, tally)?;
    tokio::time::sleep(DRAIN).await;
    let sent = talking.stop()?;
    if let Some(ended) = tasks.try_join_next() {
        let reason = ended.context("a client failed")?.err().unwrap_or_else(|| anyhow!("it was cut off"));
        return Err(server.explain(reason.context("a client left the room")));
    }
    let window = Window { from: begin.time, to: end.time };
    let delivery = tally.judge(window, &sent.stamps, round.pattern.listeners());
    Ok(figures(delivery, &begin, &end, sent))
}

fn figures(delivery: Delivery, begin: &Reading, end: &Reading, sent: Sent) -> Figures {
    let length = Duration::from_nanos(end.time - begin.time).as_secs_f64();
    let share = (end.own_cpu - begin.own_cpu).as_secs_f64() / length;
    let mut lags = sent.lags;
    lags.sort_unstable();
    let lag = percentile(&lags, 99);
    Figures {
        frames_forwarded: delivery.frames,
        cpu_s: (end.server_cpu - begin.server_cpu).as_secs_f64(),
        loss: delivery.loss,
        latency_ms: delivery.latency,
        client_share: Some(share),
        client_lag_ms: Some(lag),
        invalid_because: doubts(share, lag),
    }
}

/// Why clients that used this share of their core, and were this late, did not measure the server.
fn doubts(share: f64, lag: f64) -> Vec<String> {
    let mut doubts = Vec::new();
    if share > SATURATED_SHARE {
        doubts.push(format!("the clients used {:.0} % of their core", share * 100.0));
    }
    if lag > SATURATED_LAG {
        doubts.push(format!("talkers were late by {lag:.1} ms (99th percentile)"));
    }
    doubts
}

/// The clocks at one instant.
struct Reading {
    time: u64,
    server_cpu: Duration,
    own_cpu: Duration,
}

impl Reading {
    fn take(server: &Server, tally: &Tally) -> Result<Self> {
        let own_cpu = process::cpu_time(std::process::id())?;
        Ok(Self { time: tally.now(), server_cpu: server.cpu_time()?, own_cpu })
    }
}

/// What the talkers sent, frame by frame.
#[derive(Default)]
struct Sent {
    /// When, in nanoseconds since the tally's origin.
    stamps: Vec<u64>,
    /// How much later than planned, in nanoseconds.
    lags: Vec<u64>,
}

/// The talkers, on a thread of their own: the timers of the listeners' runtime are a millisecond coarse.
struct Talking {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Sent>>,
}

impl Talking {
    fn start(sender: Box<dyn Sender>, round: &Round, tally: Arc<Tally>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let (schedule, placement) = (Schedule::new(round.pattern, round.seed), round.placement);
        let thread = thread::spawn(move || {
            placement.punctual()?;
            talk(sender, schedule, &tally, &told)
        });
        Self { is_over, thread }
    }

    fn stop(self) -> Result<Sent> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the talkers' thread failed"))?
    }
}

fn talk(mut sender: Box<dyn Sender>, schedule: Schedule, tally: &Tally, is_over: &AtomicBool) -> Result<Sent> {
    let start = Instant::now();
    let mut sent = Sent::default();
    for (due, talker) in schedule {
        thread::sleep(due.saturating_sub(start.elapsed()));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let lag = start.elapsed().saturating_sub(due);
        let stamp = tally.now();
        let frame = Frame { talker: u8::try_from(talker)?, sent: stamp };
        sender.send(talker, &frame.encode()).context("a talker cannot send")?;
        sent.stamps.push(stamp);
        sent.lags.push(u64::try_from(lag.as_nanos())?);
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, server_ms: u64, own_ms: u64) -> Reading {
        Reading {
            time: seconds * 1_000_000_000,
            server_cpu: Duration::from_millis(server_ms),
            own_cpu: Duration::from_millis(own_ms),
        }
    }

    fn judged(own_ms: u64, lag_us: u64) -> Figures {
        let delivery = Delivery { frames: 5000, loss: 0.0, latency: Latency { p50: 0.3, p99: 0.9 } };
        let sent = Sent { stamps: Vec::new(), lags: vec![lag_us * 1000; 100] };
        figures(delivery, &reading(2, 300, 0), &reading(4, 800, own_ms), sent)
    }

    #[test]
    fn figures_are_those_of_the_window() {
        let figures = judged(500, 100);
        assert_eq!(figures.cpu_s, 0.5);
        assert_eq!(figures.frames_per_cpu_s(), 10_000.0);
        assert_eq!(figures.client_share, Some(0.25));
        assert_eq!(figures.invalid_because, [""; 0]);
    }

    #[test]
    fn clients_that_are_busy_or_late_make_no_valid_figures() {
        assert!(judged(1900, 100).invalid_because[0].contains("95 %"));
        assert!(judged(500, 2500).invalid_because[0].contains("2.5 ms"));
    }
}
