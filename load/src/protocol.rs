//! The threads that run the protocol of all members: one for those who lead or talk, the others for the rest.
//!
//! A new epoch is cryptography for every member. In one meeting of a thousand all of it happens here, on one machine, so
//! whoever must not be late has a thread of its own, and the other threads give way to all.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use crate::member::{Member, Role};
use crate::plan::Flood;
use crate::procfs::ThreadId;
use crate::room::{Act, Room, Stage};
use crate::shard::Shard;
use crate::urgency;

/// The threads.
pub(crate) struct Protocol {
    leading: Running,
    guests: Vec<Running>,
}

struct Running {
    thread: Option<ThreadId>,
    join: JoinHandle<()>,
}

impl Protocol {
    /// Lets all members come: hosts first, then guests, of all meetings alike. The first shard, of two at least, is for
    /// those who lead or talk.
    pub(crate) fn start(stage: &Arc<Stage>, rooms: &[Arc<Room>], shards: &[Arc<Shard>]) -> Result<Self> {
        let all = members(stage, rooms, shards);
        let talkers = stage.plan.shape.talkers;
        let is_leading = |member: &Member| leads(member.role, member.person, talkers);
        let (leading, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_leading);
        let mut shares: Vec<Vec<_>> = (0..stage.plan.threads).map(|_| Vec::new()).collect();
        for (number, member) in others.into_iter().enumerate() {
            shares[number % stage.plan.threads].push(member);
        }
        let leading = Running::start("leading", Arc::clone(stage), leading, || ())?;
        let start = |share| Running::start("guests", Arc::clone(stage), share, urgency::after_all);
        Ok(Self { leading, guests: shares.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// The thread of those who lead or talk, for its processor time.
    pub(crate) fn leading(&self) -> Option<ThreadId> {
        self.leading.thread
    }

    /// The threads of the others.
    pub(crate) fn guests(&self) -> Vec<Option<ThreadId>> {
        self.guests.iter().map(|running| running.thread).collect()
    }

    /// Waits until all have gone home, for which they must have been told.
    pub(crate) fn finish(self) -> Result<()> {
        for running in self.guests.into_iter().chain([self.leading]) {
            running.join.join().map_err(|_| anyhow::anyhow!("a thread of the protocol panicked"))?;
        }
        Ok(())
    }
}

impl Running {
    fn start(name: &str, stage: Arc<Stage>, members: Vec<Member>, give_way: fn()) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, told) = mpsc::channel();
        let join = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The other end waits for exactly this.
            let _heard = tell.send(ThreadId::current());
            runtime.block_on(LocalSet::new().run_until(attend(&stage, members, give_way)));
        })?;
        Ok(Self { thread: told.recv().context("a thread of the protocol ended while it started")?, join })
    }
}

/// Whether a member must not be held up by the others.
fn leads(role: Role, person: u32, talkers: u32) -> bool {
    role != Role::Guest || person < talkers
}

fn members(stage: &Stage, rooms: &[Arc<Room>], shards: &[Arc<Shard>]) -> Vec<Member> {
    let mut all = Vec::new();
    let pace = stage.plan.ramp.map(|per_second| Duration::from_secs(1) / per_second.max(1));
    let mut add = |room: &Arc<Room>, role, person| {
        let client = u32::try_from(all.len()).unwrap_or(u32::MAX);
        // Those who share a socket are on one shard.
        let home = client / stage.plan.shape.sharing();
        let others = 1 + usize::try_from(home).unwrap_or(0) % (shards.len() - 1);
        let shard = if leads(role, person, stage.plan.shape.talkers) { 0 } else { others };
        let shard = Arc::clone(&shards[shard]);
        let comes_after = pace.map_or(Duration::ZERO, |pace| pace * client);
        all.push(Member { room: Arc::clone(room), shard, role, person, client, comes_after });
    };
    for person in 0..stage.plan.shape.people {
        let role = if person == 0 { Role::Host } else { Role::Guest };
        rooms.iter().for_each(|room| add(room, role, person));
    }
    if stage.plan.faults.flood.contains(&Flood::Datagrams)
        && let Some(room) = rooms.first()
    {
        add(room, Role::Flooder, stage.plan.shape.people);
    }
    all
}

async fn attend(stage: &Stage, members: Vec<Member>, give_way: fn()) {
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    let mut act = stage.act.subscribe();
    tokio::task::spawn_local(async move {
        // During the ramp nothing is measured that this thread could hold up.
        if act.wait_for(|act| *act == Act::Talk).await.is_ok() {
            give_way();
        }
    });
    for member in members {
        if !member.comes_after.is_zero() {
            sleep_until(start + member.comes_after).await;
        }
        tasks.spawn_local(member.live());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            stage.tally.trouble(format!("a member's task failed: {error}"));
        }
    }
}
