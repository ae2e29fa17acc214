//! A member of a meeting: a real client but for its sound. It runs on one of the protocol's threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::{Conference, Event, HostConfig, JoinConfig, Start, Transmit, WaitingRoom};
use conclave_protocol::id::MemberIndex;
use conclave_protocol::identity::{DisplayName, Identity};
use conclave_protocol::sframe::frame::{DATAGRAM_LEN, Frame, MAX_OPUS, Microphone};
use conclave_relay::clock::system_time;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::listener::Listener;
use crate::room::{Act, Room, SharedListener, Stage, WAVE, count};
use crate::session::{Channel, Hearing};
use crate::shard::Shard;
use crate::socket::Valve;
use crate::sync::{Dice, lock, seed};
use crate::talker::{Sealed, Talker};

/// Frames sealed ahead: half a second, in which this thread may be busy with a whole meeting's keys.
const AHEAD: usize = 25;
/// How often they are filled up.
const FILL: Duration = Duration::from_millis(100);
/// How often a member looks whether the relay is alive, and after how much silence it dials again. A client asks for a
/// sign of life every 500 ms, and gives up as soon.
const LOOK: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_millis(1_250);
/// How long a guest waits to be let in.
const ENTRY: Duration = Duration::from_secs(60);
/// Between two attempts of a guest, or of a member whose connection is gone.
const AGAIN: Duration = Duration::from_millis(500);
/// How long who leaves stays away.
const AWAY: Duration = Duration::from_secs(1);
/// Above so many members nobody listens to confirmations that are passed on.
const SMALL: u32 = 16;
/// Longest heartbeat in Deliver; what is longer is confirmations that the leader passes on.
const LONGEST_HEARTBEAT: usize = 720;
/// Type byte of Attached and of Deliver (`docs/protocol.md` §6.2).
const ATTACHED: u8 = 7;
const DELIVER: u8 = 8;
/// Where the kind of what is delivered stands: behind the type, the sender's slot and the length.
const DELIVERED_KIND: usize = 5;
/// Kind byte of messages to all (`docs/protocol.md` §6.1).
const TO_ALL: u8 = 6;
/// How long a host waits for the rest of a wave after the first of it knocked.
const TOGETHER: Duration = Duration::from_secs(1);
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

/// The right to join now: in the meeting, and in the run.
type Turn<'m> = (SemaphorePermit<'m>, SemaphorePermit<'m>);

/// How a session ended.
enum Ended {
    /// The run is over.
    Over,
    /// It left, to come again.
    Left,
    /// It cannot go on.
    Failed(String),
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
        let listener = Arc::new(std::sync::Mutex::new(Listener::new(Arc::clone(&self.room), own)));
        let valve = Arc::new(Valve::default());
        if self.stalls() {
            lock(&stage.valves).push(Arc::clone(&valve));
        } else if self.role != Role::Flooder {
            lock(&stage.listeners).push(Arc::clone(&listener));
        }
        let turn = if self.role == Role::Guest { Some(self.wait_for_turn().await?) } else { None };
        if self.role == Role::Guest {
            count(&stage.tally.begun);
        }
        let talker = talker.map(|(_, talker)| talker);
        let attendance = Attendance {
            me: self,
            conference: self.conference()?,
            listener,
            valve,
            talker: talker.clone(),
            turn,
            began: Instant::now(),
            welcomed: None,
            index: None,
            leave_at: None,
            removed: false,
            redial: false,
            ended: None,
            seq: 0,
            knocks: Vec::new(),
            admit_at: None,
        };
        let ended = attendance.run().await;
        if let Some(talker) = talker {
            talker.hang_up();
        }
        Ok(ended)
    }

    /// Turns are never closed, so this does not fail.
    async fn wait_for_turn(&self) -> Result<Turn<'_>> {
        Ok((self.room.entrance.acquire().await?, self.room.stage.entrance.acquire().await?))
    }

    fn talker(&self) -> Option<(usize, Arc<Talker>)> {
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

/// One session of a member.
struct Attendance<'m> {
    me: &'m Member,
    conference: Conference,
    listener: SharedListener,
    valve: Arc<Valve>,
    talker: Option<Arc<Talker>>,
    /// Held until it is in.
    turn: Option<Turn<'m>>,
    began: Instant,
    /// How long the relay's first answer took.
    welcomed: Option<Duration>,
    index: Option<MemberIndex>,
    leave_at: Option<Instant>,
    /// The host has put it out.
    removed: bool,
    redial: bool,
    ended: Option<Ended>,
    seq: u32,
    /// Who waits to be let in, and until when.
    knocks: Vec<KnockId>,
    admit_at: Option<Instant>,
}

impl Attendance<'_> {
    async fn run(mut self) -> Ended {
        loop {
            match self.connect().await {
                Ok(channel) => {
                    if let Some(ended) = self.converse(channel).await {
                        self.leave_room();
                        return ended;
                    }
                    count(&self.stage().tally.reconnected);
                }
                Err(why) if self.index.is_none() => {
                    count(&self.stage().tally.failed);
                    self.leave_room();
                    return Ended::Failed(why);
                }
                Err(why) => {
                    self.stage().tally.trouble(why);
                    sleep(AGAIN).await;
                }
            }
        }
    }

    fn stage(&self) -> &Arc<Stage> {
        &self.me.room.stage
    }

    async fn connect(&self) -> Result<Channel, String> {
        let meter = Arc::clone(&self.me.shard.meter);
        let hearing = Hearing { listener: Arc::clone(&self.listener), meter };
        let stage = self.stage();
        Channel::open(stage, &self.me.shard, stage.relay.bind(self.me.client), &self.valve, hearing).await
    }

    /// Talks to the relay until the session is over, or `None` until it needs another connection.
    async fn converse(&mut self, mut channel: Channel) -> Option<Ended> {
        self.conference.connected(Instant::now(), channel.exporter);
        let (mut act, mut orders) = (self.stage().act.subscribe(), self.take_orders());
        let (mut fill, mut look) = (interval(FILL), interval(LOOK));
        fill.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut received, mut alive) = (0, Instant::now());
        loop {
            self.drain(&channel);
            if self.ended.is_some() {
                break;
            }
            if std::mem::take(&mut self.redial) {
                return self.hang_up(channel);
            }
            let timer = self.next_timer();
            let is_talking = self.talker.is_some() && *act.borrow_and_update() == Act::Talk;
            tokio::select! {
                message = channel.incoming.recv() => match message {
                    Some(message) => self.on_control(&message, &channel),
                    None => return self.hang_up(channel),
                },
                () = wait_until(timer) => self.on_timer(),
                _ = fill.tick(), if is_talking => self.fill(&channel),
                Some(index) = orders.recv() => self.remove(index),
                changed = act.changed() => if changed.is_err() { break },
                _ = look.tick() => {
                    let now_received = channel.received();
                    // While all handshakes of a ramp are done on this machine, silence means nothing.
                    let is_ramp = *self.stage().act.borrow() == Act::Ramp;
                    if now_received != received || is_ramp || self.valve.is_closed() {
                        (received, alive) = (now_received, Instant::now());
                    } else if alive.elapsed() > SILENCE {
                        return self.hang_up(channel);
                    }
                }
            }
        }
        let ended = self.ended.take();
        if matches!(ended, Some(Ended::Left)) {
            channel.close().await;
        } else {
            channel.hang_up();
        }
        ended
    }

    fn hang_up(&mut self, channel: Channel) -> Option<Ended> {
        channel.hang_up();
        if let Some(talker) = &self.talker {
            talker.hang_up();
        }
        self.conference.disconnected(Instant::now());
        if self.removed {
            return Some(Ended::Over);
        }
        if self.index.is_some() {
            return None;
        }
        count(&self.stage().tally.failed);
        Some(Ended::Failed("the connection was lost during a join".to_owned()))
    }

    fn next_timer(&self) -> Option<Instant> {
        let entry = self.index.is_none().then(|| self.began + ENTRY);
        [self.conference.poll_timeout(), self.leave_at, self.admit_at, entry].into_iter().flatten().min()
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.index.is_none() && now >= self.began + ENTRY {
            return self.fail("a guest was not let in within a minute".to_owned());
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            lock(&self.listener).until = self.stage().clock.now();
            self.conference.leave(now);
            self.ended = Some(Ended::Left);
            return;
        }
        if self.admit_at.is_some_and(|at| at <= now) {
            self.admit_all(now);
        }
        self.conference.handle_timeout(now);
    }

    fn on_control(&mut self, message: &[u8], channel: &Channel) {
        if self.welcomed.is_none() {
            self.welcomed = Some(self.began.elapsed());
        }
        if message.first() == Some(&ATTACHED) {
            self.on_attached(channel);
        }
        if self.is_passed_on(message) {
            return;
        }
        self.conference.handle_control(Instant::now(), message);
    }

    fn on_attached(&mut self, channel: &Channel) {
        let now = self.stage().clock.now();
        let mut listener = lock(&self.listener);
        if listener.from == 0 {
            listener.from = now;
        }
        drop(listener);
        if self.me.role == Role::Host {
            self.on_admitted(MemberIndex::HOST, channel);
        }
    }

    /// Confirmations of hundreds of members, passed on by the leader: each listener would check all of them.
    fn is_passed_on(&self, message: &[u8]) -> bool {
        let crowd = self.stage().plan.shape.people > SMALL && self.me.role != Role::Host;
        if !crowd || message.first() != Some(&DELIVER) || message.len() <= LONGEST_HEARTBEAT {
            return false;
        }
        message.get(DELIVERED_KIND) == Some(&TO_ALL)
    }

    // ---- what the conference says ----

    fn drain(&mut self, channel: &Channel) {
        while let Some(transmit) = self.conference.poll_transmit() {
            match transmit {
                Transmit::Control(bytes) => channel.send_control(bytes.into()),
                Transmit::Datagram(bytes) => {
                    // Without a connection, what was to be told by it is told by what follows the next one.
                    let _sent = channel.connection.send_datagram(bytes.into());
                }
            }
        }
        while let Some(event) = self.conference.poll_event() {
            self.on_event(event, channel);
        }
    }

    fn on_event(&mut self, event: Event, channel: &Channel) {
        match event {
            Event::Knock { id, .. } => self.on_knock(id),
            Event::Admitted { index } => self.on_admitted(index, channel),
            Event::Phase { shift } => {
                count(&self.stage().tally.phases);
                if let Some(talker) = &self.talker {
                    talker.ask_shift(shift.micros());
                }
            }
            Event::Rejoining => {
                self.stage().tally.trouble("a member had to shake hands again".to_owned());
                self.redial = true;
            }
            // Who was removed stays connected, to see what the relay still sends.
            Event::Removed => (self.leave_at, self.removed) = (None, true),
            Event::Denied(_) => self.fail("a guest was turned down".to_owned()),
            Event::Ended { .. } => self.fail("a meeting was ended".to_owned()),
            Event::Failed(failure) => self.fail(failure.to_string()),
            Event::Alarm { detail, .. } => self.stage().tally.trouble(format!("alarm: {detail}")),
            _ => {}
        }
    }

    fn on_admitted(&mut self, index: MemberIndex, channel: &Channel) {
        let room = &self.me.room;
        if self.index.replace(index).is_some() {
            return;
        }
        self.end_turn();
        if self.me.role != Role::Flooder {
            count(&room.stage.tally.members);
        }
        match self.me.role {
            Role::Host => drop(room.is_open.send_replace(true)),
            Role::Guest => {
                let whole = self.began.elapsed();
                let relay = self.welcomed.unwrap_or(whole);
                room.stage.tally.note_join(room.stage.is_measuring(), whole, relay);
                lock(&room.present).insert(index.0, Arc::clone(&self.listener));
                self.plan_to_leave();
            }
            Role::Flooder => self.hand_over(channel),
        }
        if let Some(number) = self.me.talker().map(|(number, _)| number) {
            room.seat(index.0, number);
        }
    }

    fn end_turn(&mut self) {
        if let Some((in_room, _in_run)) = self.turn.take() {
            self.me.room.end_turn(in_room);
        }
    }

    /// Evenly between half of the mean and one and a half.
    fn plan_to_leave(&mut self) {
        let Some(mean) = self.stage().plan.faults.churn else { return };
        let unit = Dice::new().map_or(0.5, |mut dice| dice.unit());
        self.leave_at = Some(Instant::now() + Duration::from_secs_f64(mean * (0.5 + unit)));
    }

    fn fail(&mut self, why: String) {
        if self.index.is_none() {
            count(&self.stage().tally.failed);
        }
        self.ended = Some(Ended::Failed(why));
    }

    fn leave_room(&mut self) {
        let now = self.stage().clock.now();
        let mut listener = lock(&self.listener);
        listener.until = listener.until.min(now);
        drop(listener);
        self.end_turn();
        let Some(index) = self.index else { return };
        lock(&self.me.room.present).remove(&index.0);
        if self.me.role != Role::Flooder {
            self.stage().tally.members.fetch_sub(1, Ordering::Relaxed);
        }
    }

    // ---- talking ----

    /// Seals frames ahead, up to [`AHEAD`].
    fn fill(&mut self, channel: &Channel) {
        let now = Instant::now();
        let Some(talker) = self.talker.clone().filter(|_| self.conference.can_send(now)) else {
            return self.silence();
        };
        for _ in talker.waiting()..AHEAD {
            let Some(sealed) = self.seal(now) else { return };
            talker.queue(sealed);
        }
        if !talker.talks.load(Ordering::Relaxed) {
            *lock(&talker.connection) = Some(channel.connection.clone());
            talker.talks.store(true, Ordering::Release);
        }
    }

    fn silence(&self) {
        if let Some(talker) = &self.talker {
            talker.hang_up();
        }
    }

    fn seal(&mut self, now: Instant) -> Option<Sealed> {
        self.seq = self.seq.wrapping_add(1);
        let opus = [0x5A; MAX_OPUS];
        let frame = Frame { seq: self.seq, stamp: 0, microphone: Microphone::On, level: 20, opus: &opus };
        let mut out = [0; DATAGRAM_LEN];
        self.conference.seal(now, &frame, &mut out).ok()?;
        Sealed::new(&out)
    }

    /// Gives its connection and a frame to whoever floods.
    fn hand_over(&mut self, channel: &Channel) {
        if let Some(sealed) = self.seal(Instant::now()) {
            *lock(&self.stage().flooder) = Some((channel.connection.clone(), sealed.datagram));
        }
    }

    // ---- the host ----

    fn on_knock(&mut self, knock: KnockId) {
        self.knocks.push(knock);
        let waits = self.me.room.comes_in_waves() && self.knocks.len() < WAVE;
        let at = Instant::now() + if waits { TOGETHER } else { Duration::ZERO };
        self.admit_at = Some(self.admit_at.map_or(at, |before| before.min(at)));
    }

    fn admit_all(&mut self, now: Instant) {
        self.admit_at = None;
        for knock in std::mem::take(&mut self.knocks) {
            if let Err(error) = self.conference.admit(now, knock) {
                self.stage().tally.trouble(format!("a host could not let somebody in: {error}"));
            }
        }
    }

    fn take_orders(&self) -> mpsc::UnboundedReceiver<u16> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if self.me.role == Role::Host {
            *lock(&self.me.room.orders) = Some(sender);
        }
        receiver
    }

    fn remove(&mut self, index: u16) {
        let room = &self.me.room;
        let Some(listener) = lock(&room.present).get(&index).cloned() else { return };
        let at = room.stage.clock.now();
        match self.conference.remove(Instant::now(), MemberIndex(index)) {
            Ok(()) => *lock(&room.removed) = Some((at, listener)),
            Err(error) => room.stage.tally.trouble(format!("a host could not remove somebody: {error}")),
        }
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
