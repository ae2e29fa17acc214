//! The thread that runs the protocol of all members.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::interval;

use crate::member::{Member, Role};
use crate::plan::Flood;
use crate::procfs::ThreadId;
use crate::room::{Room, Stage};
use crate::shard::Shard;

/// The thread.
pub(crate) struct Protocol {
    /// For its processor time.
    pub(crate) thread: Option<ThreadId>,
    join: JoinHandle<()>,
}

impl Protocol {
    /// Lets all members come: hosts first, then guests, of all meetings alike.
    pub(crate) fn start(stage: Arc<Stage>, rooms: Vec<Arc<Room>>, shards: Vec<Arc<Shard>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, told) = mpsc::channel();
        let join = std::thread::Builder::new().name("protocol".into()).spawn(move || {
            // The other end waits for exactly this.
            let _heard = tell.send(ThreadId::current());
            runtime.block_on(LocalSet::new().run_until(attend(&stage, members(&stage, &rooms, &shards))));
        })?;
        Ok(Self { thread: told.recv().context("the protocol's thread ended while it started")?, join })
    }

    /// Waits until all have gone home, for which they must have been told.
    pub(crate) fn finish(self) -> Result<()> {
        self.join.join().map_err(|_| anyhow::anyhow!("the protocol's thread panicked"))
    }
}

fn members(stage: &Stage, rooms: &[Arc<Room>], shards: &[Arc<Shard>]) -> Vec<Member> {
    let mut all = Vec::new();
    let mut add = |room: &Arc<Room>, role, person| {
        let client = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let shard = Arc::clone(&shards[all.len() % shards.len()]);
        all.push(Member { room: Arc::clone(room), shard, role, person, client });
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

async fn attend(stage: &Stage, members: Vec<Member>) {
    let mut pace = stage.plan.ramp.map(|per_second| interval(Duration::from_secs(1) / per_second.max(1)));
    let mut tasks = JoinSet::new();
    for member in members {
        if let Some(pace) = &mut pace
            && member.role == Role::Guest
        {
            let _tick = pace.tick().await;
        }
        tasks.spawn_local(member.live());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            stage.tally.trouble(format!("a member's task failed: {error}"));
        }
    }
}
