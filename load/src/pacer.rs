//! The thread that sends every frame on time.
//!
//! Timers of tokio are exact to a millisecond only, so this is a thread that sleeps; it takes frames that are sealed
//! already and hands them to the talker's connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_protocol::frameclock::FrameClock;
use conclave_protocol::wire::relay::PhaseShift;
use hdrhistogram::Histogram;

use crate::meter::micros;
use crate::plan::FRAME;
use crate::procfs::ThreadId;
use crate::room::{Stage, in_micros};
use crate::shard::{PROBE, Shard};
use crate::sync::{Dice, lock};
use crate::talker::Talker;
use crate::urgency;

/// What is due within this is sent with what is due now. To sleep for less, and to wake up a shard again for the next, would
/// take more processor time than all else that sending does; the clocks of people are no more exact.
const TOGETHER: Duration = Duration::from_micros(200);
/// The same in a crowd. It is half of the time for which a relay, unless told otherwise, keeps frames for others of their
/// meeting.
const TOGETHER_IN_A_CROWD: Duration = Duration::from_millis(1);

/// The thread that paces.
pub(crate) struct Pacer {
    /// For its processor time.
    pub(crate) thread: Option<ThreadId>,
    stop: Arc<AtomicBool>,
    join: JoinHandle<Paced>,
}

/// What it counted during the measurement.
pub(crate) struct Paced {
    /// How late frames were sent, in µs.
    pub(crate) lag: Histogram<u64>,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) starved: u64,
    pub(crate) unsent: u64,
}

impl Pacer {
    /// Starts all clocks of these talkers now, and probes these shards.
    pub(crate) fn start(stage: Arc<Stage>, talkers: Vec<Arc<Talker>>, shards: Vec<Arc<Shard>>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let pacing = Pacing::new(stage, talkers, shards, Arc::clone(&stop))?;
        let (tell, told) = std::sync::mpsc::channel();
        let join = std::thread::Builder::new().name("pacer".into()).spawn(move || {
            // The other end waits for exactly this.
            let _heard = tell.send(ThreadId::current());
            urgency::before_all();
            pacing.run()
        })?;
        Ok(Self { thread: told.recv().context("the pacer ended while it started")?, stop, join })
    }

    /// Ends the thread and gives its counts.
    pub(crate) fn stop(self) -> Result<Paced> {
        self.stop.store(true, Ordering::Relaxed);
        self.join.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Probe,
    Frame(usize),
}

struct Pacing {
    stage: Arc<Stage>,
    talkers: Vec<(Arc<Talker>, FrameClock)>,
    shards: Vec<Arc<Shard>>,
    stop: Arc<AtomicBool>,
    dice: Dice,
    together: Duration,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    paced: Paced,
}

impl Pacing {
    fn new(
        stage: Arc<Stage>,
        talkers: Vec<Arc<Talker>>,
        shards: Vec<Arc<Shard>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut dice = Dice::new().context("no random numbers")?;
        let start = Instant::now() + FRAME;
        let aligned = stage.plan.clocks.aligned;
        let mut phase = || if aligned { Duration::ZERO } else { FRAME.mul_f64(dice.unit()) };
        let talkers: Vec<_> =
            talkers.into_iter().map(|talker| (talker, FrameClock::new(start + phase(), FRAME))).collect();
        let frames = talkers.iter().enumerate().map(|(number, (_, clock))| (clock.due(), Due::Frame(number)));
        let due = frames.chain([(start, Due::Probe)]).map(Reverse).collect();
        let paced = Paced { lag: micros()?, sent: 0, dropped: 0, starved: 0, unsent: 0 };
        let together = if stage.plan.shape.is_crowded() { TOGETHER_IN_A_CROWD } else { TOGETHER };
        Ok(Self { stage, talkers, shards, stop, dice, together, due, paced })
    }

    fn run(mut self) -> Paced {
        while !self.stop.load(Ordering::Relaxed) {
            // There is always the next probe.
            let Some(Reverse((at, what))) = self.due.pop() else { break };
            let now = Instant::now();
            if at > now + self.together {
                std::thread::sleep(at - now);
            }
            match what {
                Due::Probe => {
                    let now = self.stage.clock.now();
                    self.shards.iter().for_each(|shard| shard.ring(now));
                    self.due.push(Reverse((at.max(Instant::now() - PROBE) + PROBE, what)));
                }
                Due::Frame(number) => {
                    self.send(number, at);
                    let next = self.next_after(number, at);
                    self.due.push(Reverse((next, what)));
                }
            }
        }
        self.paced
    }

    /// When the next frame is to be sent. Jitter changes no order: a frame never leaves before the one before it.
    fn next_after(&mut self, number: usize, at: Instant) -> Instant {
        let (talker, clock) = &mut self.talkers[number];
        if let Some(micros) = talker.take_shift()
            && self.stage.plan.clocks.follow_phase
        {
            clock.shift(PhaseShift::from_micros(micros.into()));
        }
        clock.pass(0);
        let unsettled = u32::try_from(clock.pending_micros().unsigned_abs()).unwrap_or(u32::MAX);
        talker.unsettled_micros.store(unsettled, Ordering::Relaxed);
        // All clocks are late by the jitter, so that a frame can be early by as much.
        let jitter = 2.0 * self.stage.plan.network.jitter_ms * self.dice.unit();
        (clock.due() + Duration::from_secs_f64(jitter / 1_000.0)).max(at)
    }

    fn send(&mut self, number: usize, due: Instant) {
        let talker = Arc::clone(&self.talkers[number].0);
        let Some(tick) = talker.tick() else { return };
        let now = Instant::now();
        let at = self.stage.clock.at(now);
        let is_measured = self.stage.window.second_of(at).is_some();
        if is_measured {
            self.paced.lag.saturating_record(in_micros(now.saturating_duration_since(due)));
        }
        let Some(frame) = talker.next_sealed() else {
            self.paced.starved += u64::from(is_measured && talker.talks.load(Ordering::Acquire));
            return;
        };
        if self.stage.plan.network.loss > 0.0 && self.dice.unit() < self.stage.plan.network.loss {
            self.paced.dropped += u64::from(is_measured);
            return;
        }
        let delay = Duration::from_secs_f64(self.stage.plan.network.delay_ms / 1_000.0);
        // The frame left its talker that much earlier.
        talker.note_sent(tick, frame.name, at.saturating_sub(u64::try_from(delay.as_nanos()).unwrap_or(0)).max(1));
        let sent = lock(&talker.connection).as_ref().map(|connection| connection.send_datagram(frame.datagram));
        if sent == Some(true) {
            self.talkers[number].1.on_sent();
            self.paced.sent += u64::from(is_measured);
        } else {
            talker.note_unsent(tick, frame.name);
            self.paced.unsent += u64::from(is_measured);
        }
    }
}
