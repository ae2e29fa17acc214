//! A member of a meeting, through all its sessions. It runs on one of the protocol's threads.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_protocol::conference::{Conference, HostConfig, JoinConfig, Start, WaitingRoom};
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::time::FrameDuration;
use conclave_relay::clock::system_time;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::time::sleep;

use crate::attendance::{Attendance, Ended, Shared, Turn};
use crate::listener::Listener;
use crate::room::{Act, Room, count};
use crate::shard::{Shard, Valve};
use crate::sync::{lock, seed};
use crate::talker::Talker;

/// Between two attempts of a guest, or of a member whose connection is gone.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);
/// How long who leaves stays away.
const AWAY: Duration = Duration::from_secs(1);
/// A thread that comes back so soon, so often in a row, has nothing else to do.
const QUIET: Duration = Duration::from_millis(50);
const QUIET_TIMES: u32 = 3;
/// How long the meeting may last.
const MEETING: Duration = Duration::from_secs(12 * 3_600);

/// What a member is in its meeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Makes the meeting and lets everybody in.
    Host,
    /// Joins it.
    Guest,
    /// Joins it and hands its connection to whoever floods.
    Flooder,
}

/// A member, through all its sessions.
pub(crate) struct Member {
    pub(crate) room: Arc<Room>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) role: Role,
    /// Its number in the meeting.
    pub(crate) person: u32,
    /// Its number of all clients.
    pub(crate) client: u32,
    /// When it comes, from the beginning of the ramp.
    pub(crate) comes_after: Duration,
}

impl Member {
    /// Lives until the run is over.
    pub(crate) async fn live(self) {
        let stage = Arc::clone(&self.room.stage);
        let mut act = stage.act.subscribe();
        tokio::select! {
            () = self.come_and_go() => {}
            _over = act.wait_for(|act| *act == Act::Over) => {}
        }
    }

    async fn come_and_go(&self) {
        let stage = &self.room.stage;
        if self.role != Role::Host {
            let mut is_open = self.room.is_open.subscribe();
            let _opened = is_open.wait_for(|is_open| *is_open).await;
        }
        loop {
            let pause = match self.attend().await {
                Ok(Ended::Over) => return,
                Ok(Ended::Left) => AWAY,
                Ok(Ended::Failed(why)) => {
                    stage.tally.trouble(why);
                    AGAIN
                }
                Err(error) => {
                    stage.tally.trouble(format!("{error:#}"));
                    AGAIN
                }
            };
            if self.role == Role::Host {
                // Its meeting is over: nobody can open it again.
                stage.tally.trouble("a host is gone".to_owned());
                return;
            }
            sleep(pause).await;
        }
    }

    /// One session, from knock to leaving.
    async fn attend(&self) -> Result<Ended> {
        let stage = &self.room.stage;
        let talker = self.talker();
        let own = talker.as_ref().map(|(number, _)| *number);
        let listener = Arc::new(Mutex::new(Listener::new(Arc::clone(&self.room), own)));
        let valve = Arc::new(Valve::default());
        if self.stalls() {
            lock(&stage.valves).push(Arc::clone(&valve));
        } else if self.role != Role::Flooder {
            lock(&stage.listeners).push(Arc::clone(&listener));
        }
        let turn = if self.role == Role::Guest { Some(self.wait_for_turn().await?) } else { None };
        if self.role == Role::Guest {
            self.wait_for_quiet().await;
            count(&stage.tally.begun);
        }
        let talker = talker.map(|(_, talker)| talker);
        let shared = Shared { listener, valve, talker: talker.clone() };
        let attendance = Attendance::new(self, self.conference()?, shared, turn);
        let ended = attendance.run().await;
        if let Some(talker) = talker {
            talker.hang_up();
        }
        Ok(ended)
    }

    /// Waits until this thread has nothing else to do: all others have taken in the last wave. Otherwise those who join
    /// would miss the relay's deadlines, which is no fault of the relay.
    async fn wait_for_quiet(&self) {
        let mut quiet = 0;
        while quiet < QUIET_TIMES && self.room.comes_in_waves() {
            let asked = Instant::now();
            sleep(QUIET).await;
            quiet = if asked.elapsed() < QUIET * 2 { quiet + 1 } else { 0 };
        }
    }

    /// Turns are never closed, so this does not fail.
    async fn wait_for_turn(&self) -> Result<Turn<'_>> {
        Ok((self.room.entrance.acquire().await?, self.room.stage.entrance.acquire().await?))
    }

    /// Which talker it is, if it is one.
    pub(crate) fn talker(&self) -> Option<(usize, Arc<Talker>)> {
        let number = usize::try_from(self.person).ok().filter(|_| self.role != Role::Flooder)?;
        self.room.talkers.get(number).map(|talker| (number, Arc::clone(talker)))
    }

    fn stalls(&self) -> bool {
        self.role == Role::Guest && self.room.stage.plan.stalls(self.room.number, self.person)
    }

    fn conference(&self) -> Result<Conference> {
        let mut rng = ChaCha20Rng::from_seed(seed().context("no random numbers")?);
        let identity = Identity::guest(&mut rng);
        let start = Start { now: Instant::now(), wall: system_time() };
        let name = format!("Member {}-{}", self.room.number, self.person);
        let name = DisplayName::parse(&name).ok().context("a plain name")?;
        let stage = &self.room.stage;
        if self.role == Role::Host {
            let config = HostConfig {
                relays: vec![stage.relay.in_link()],
                identity,
                name,
                passcode: None,
                waiting_room: WaitingRoom::Ask,
                max_members: u16::try_from(stage.plan.shape.people * 2 + 64).unwrap_or(65_534).min(65_534),
                duration: MEETING,
                frame: FrameDuration::Ms20,
                regions: Vec::new(),
                moderators: Vec::new(),
            };
            let conference = Conference::host(config, start, Box::new(rng));
            self.room.invite(conference.link().duplicate());
            return Ok(conference);
        }
        let link = self.room.link().context("the meeting is not open")?;
        let config = JoinConfig { link, identity, name, passcode: None };
        Ok(Conference::join(config, start, Box::new(rng)))
    }
}
