//! One run from beginning to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::args::Target;
use crate::flood::Flooding;
use crate::pacer::Pacer;
use crate::plan::{LONGEST_WARMUP, Plan};
use crate::procfs::ThreadId;
use crate::progress;
use crate::protocol::Protocol;
use crate::relay::Relay;
use crate::result::Report;
use crate::room::{Act, Room, Stage};
use crate::sampler::{Sampler, between};
use crate::score::{self, Measured, Threads};
use crate::shard::Shard;
use crate::sync::lock;
use crate::talker::Talker;

/// A ramp in which nobody got in for so long is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Until frames are sealed ahead.
const FILLED: Duration = Duration::from_millis(400);
/// When a relay has asked for no shift by then, it asks for none; where nobody is to follow, it is the whole warm-up.
const SHORT_WARMUP: Duration = Duration::from_secs(2);
/// A clock that still has to move by less has settled, in µs.
const SETTLED: u32 = 300;
/// Until frames that were sent at the end of the measurement have arrived, or never will.
const TAIL: Duration = Duration::from_millis(1_500);
/// How long the relay may take to cut off who was removed.
const REMOVAL: Duration = Duration::from_secs(2);
/// Removals that are timed, one in a meeting.
const REMOVALS: usize = 20;
/// Files that may be open at once beside one for each member.
const OTHER_FILES: u64 = 256;

/// Runs a plan against a relay.
///
/// # Errors
/// When there is no relay, nobody gets in, or this machine does not give what is needed. A result that is not valid is
/// no error.
pub fn run(plan: &Plan, target: &Target) -> Result<Report> {
    allow_sockets(plan.shape.members())?;
    let mut relay = Relay::start(target)?;
    let stage = Arc::new(Stage::new(plan.clone(), relay.address.clone())?);
    let mut sampler = Sampler::new(Arc::clone(&stage));
    let base = sampler.take(relay.pid());
    let rooms: Vec<_> = (0..plan.shape.rooms).map(|number| Arc::new(Room::new(Arc::clone(&stage), number))).collect();
    let shards: Vec<_> =
        (0..=plan.threads).map(|number| Shard::start(number, &stage).map(Arc::new)).collect::<Result<_>>()?;
    let began = Instant::now();
    let protocol = Protocol::start(&stage, &rooms, &shards)?;
    let played = wait_for_members(&stage).and_then(|()| {
        let ramp_s = began.elapsed().as_secs_f64();
        let mut show =
            Show { stage: &stage, relay: &mut relay, sampler, rooms: &rooms, shards: &shards, protocol: &protocol };
        Ok((ramp_s, show.play()?))
    });
    stage.act.send_replace(Act::Over);
    protocol.finish()?;
    let (ramp_s, mut measured) = played?;
    (measured.ramp_s, measured.base, measured.relay) = (ramp_s, base, target.relay.clone());
    let report = score::report(&stage, &shards, measured);
    drop(rooms);
    shards.into_iter().filter_map(Arc::into_inner).for_each(Shard::stop);
    report
}

/// Asks the system for as many open files as there are sockets.
fn allow_sockets(members: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = members + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
            .with_context(|| format!("{members} members need {needed} open files: raise the limit (ulimit -n)"))?;
    }
    Ok(())
}

fn wait_for_members(stage: &Stage) -> Result<()> {
    let all = stage.plan.shape.members();
    let bar = progress::bar("joining", all);
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let members = stage.tally.members.load(Ordering::Relaxed);
        bar.set_position(members);
        if members >= all {
            bar.finish_and_clear();
            return Ok(());
        }
        if members > most {
            (most, since) = (members, Instant::now());
        }
        if since.elapsed() > STUCK {
            let troubles = stage.tally.troubles();
            let why: Vec<_> = troubles.iter().map(|(what, times)| format!("\n  {times} × {what}")).collect();
            bail!("only {most} of {all} members got in, and nobody for a minute{}", why.concat());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The part of a run in which people talk.
struct Show<'a> {
    stage: &'a Arc<Stage>,
    relay: &'a mut Relay,
    sampler: Sampler,
    rooms: &'a [Arc<Room>],
    shards: &'a [Arc<Shard>],
    protocol: &'a Protocol,
}

impl Show<'_> {
    fn play(&mut self) -> Result<Measured> {
        self.stage.act.send_replace(Act::Talk);
        std::thread::sleep(FILLED);
        let talkers: Vec<_> = self.rooms.iter().flat_map(|room| room.talkers.iter().cloned()).collect();
        let pacer = Pacer::start(Arc::clone(self.stage), talkers.clone(), self.shards.to_vec())?;
        let warmup_s = self.warm_up(&talkers).as_secs_f64();
        let mut measured = self.measure(pacer.thread)?;
        std::thread::sleep(TAIL);
        measured.removals = self.remove_some();
        measured.warmup_s = warmup_s;
        measured.paced = Some(pacer.stop()?);
        Ok(measured)
    }

    fn warm_up(&self, talkers: &[Arc<Talker>]) -> Duration {
        let plan = &self.stage.plan;
        let began = Instant::now();
        let bar = progress::bar("warming up", LONGEST_WARMUP.as_secs());
        while !is_warm(self.stage, talkers, began.elapsed(), plan.warmup_s) {
            bar.set_position(began.elapsed().as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
        bar.finish_and_clear();
        began.elapsed()
    }

    fn measure(&mut self, pacer: Option<ThreadId>) -> Result<Measured> {
        let plan = &self.stage.plan;
        let flooding = Flooding::start(self.stage, self.rooms)?;
        lock(&self.stage.valves).iter().for_each(|valve| valve.close());
        self.shards.iter().for_each(|shard| shard.reset());
        let threads = self.threads(pacer);
        let (cpu, began) = (threads.read(), Instant::now());
        self.stage.window.set(self.stage.clock.at(began), plan.seconds);
        let first = self.sampler.take(self.relay.pid());
        let (mut before, mut last, mut series) = (first, began, Vec::new());
        let bar = progress::bar("measuring", plan.seconds.into());
        for second in 0..plan.seconds {
            self.wait(began, f64::from(second), f64::from(second) + 1.0)?;
            let (sample, now) = (self.sampler.take(self.relay.pid()), Instant::now());
            series.push(between(second, &before, &sample, (now - last).as_secs_f64()));
            (before, last) = (sample, now);
            bar.inc(1);
            bar.set_message(self.in_words(second));
        }
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        let shares = threads.read().since(&cpu, seconds);
        flooding.stop();
        Ok(Measured { first, last: before, series, shares, ..Measured::default() })
    }

    fn threads(&self, pacer: Option<ThreadId>) -> Threads {
        let shards = self.shards.iter().map(|shard| shard.thread).collect();
        Threads { shards, leading: self.protocol.leading(), guests: self.protocol.guests(), pacer }
    }

    /// Waits until so many seconds after `began`, and kills the relay when its time comes meanwhile.
    fn wait(&mut self, began: Instant, from: f64, until: f64) -> Result<()> {
        let sleep_until = |at: f64| {
            let at = began + Duration::from_secs_f64(at);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
        };
        if let Some(at) = self.stage.plan.faults.kill_relay_at
            && (from..until).contains(&at)
        {
            sleep_until(at);
            self.sampler.note_kill(self.relay.pid());
            self.relay.kill_and_restart()?;
            self.stage.note_restart();
        }
        sleep_until(until);
        Ok(())
    }

    /// How a second went, for the bar.
    fn in_words(&self, second: u32) -> String {
        let second = usize::try_from(second).unwrap_or(usize::MAX);
        let worst = self.shards.iter().filter_map(|shard| shard.p99_in(second)).fold(0.0, f64::max);
        format!("p99 {worst:.2} ms")
    }

    /// Has hosts remove a listener each, and times how long the relay goes on serving it.
    fn remove_some(&self) -> Vec<Duration> {
        for room in self.rooms.iter().take(REMOVALS) {
            if let Some((index, _)) = room.last_listener()
                && let Some(orders) = &*lock(&room.orders)
            {
                // Fails only when the host is gone.
                let _told = orders.send(index);
            }
        }
        std::thread::sleep(REMOVAL);
        let removed = self.rooms.iter().filter_map(|room| lock(&room.removed).clone());
        removed.map(|(at, listener)| Duration::from_nanos(lock(&listener).last.saturating_sub(at))).collect()
    }
}

/// Whether people have talked for long enough.
fn is_warm(stage: &Stage, talkers: &[Arc<Talker>], elapsed: Duration, asked: Option<f64>) -> bool {
    if let Some(asked) = asked {
        return elapsed >= Duration::from_secs_f64(asked);
    }
    let plan = &stage.plan;
    let nobody_follows = !plan.clocks.follow_phase || plan.shape.talkers < 2;
    if elapsed < SHORT_WARMUP || elapsed >= LONGEST_WARMUP {
        return elapsed >= LONGEST_WARMUP;
    }
    let unsettled = talkers.iter().any(|talker| talker.unsettled_micros.load(Ordering::Relaxed) > SETTLED);
    nobody_follows || stage.tally.phases.load(Ordering::Relaxed) == 0 || !unsettled
}
