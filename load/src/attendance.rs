//! One session of a member, from its knock to its leaving: a real client's loop but for sound.

mod told;

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_protocol::admission::lobby::KnockId;
use conclave_protocol::conference::Conference;
use conclave_protocol::id::MemberIndex;
use tokio::sync::SemaphorePermit;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::member::{AGAIN, Member, Role};
use crate::room::{Act, SharedListener, Stage, count};
use crate::session::Channel;
use crate::shard::Valve;
use crate::sync::lock;
use crate::talker::Talker;

/// How often frames are sealed ahead.
const FILL: Duration = Duration::from_millis(200);
/// How often a member looks whether the relay is alive, and after how much silence it dials again. A client asks for a
/// sign of life every 500 ms, and gives up as soon.
const LOOK: Duration = Duration::from_millis(250);
const SILENCE: Duration = Duration::from_millis(1_250);
/// How long a guest waits to be let in.
const ENTRY: Duration = Duration::from_secs(60);
/// Lengths of a Deliver with a heartbeat (`docs/protocol.md` §7.7). Of what else a leader says to all its own confirmation is
/// shorter, and those of a large meeting that it passes on are longer, but for a few.
const HEARTBEATS: RangeInclusive<usize> = 181..=693;
/// Type byte of Attached and of Deliver (`docs/protocol.md` §6.2).
const ATTACHED: u8 = 7;
const DELIVER: u8 = 8;
/// Where the sender's slot and the kind of what is delivered stand: behind the type, and behind the length, which is between.
const DELIVERED_FROM: Range<usize> = 1..3;
const DELIVERED_KIND: usize = 5;
/// Kind byte of messages to all (`docs/protocol.md` §6.1).
const TO_ALL: u8 = 6;
/// The right to join now: in the meeting, and in the run.
pub(crate) type Turn<'m> = (SemaphorePermit<'m>, SemaphorePermit<'m>);

/// How a session ended.
pub(crate) enum Ended {
    /// The run is over.
    Over,
    /// It left, to come again.
    Left,
    /// It cannot go on.
    Failed(String),
}

/// What other threads know of a session.
pub(crate) struct Shared {
    pub(crate) listener: SharedListener,
    pub(crate) valve: Arc<Valve>,
    pub(crate) talker: Option<Arc<Talker>>,
}

/// One session of a member.
pub(crate) struct Attendance<'m> {
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

impl<'m> Attendance<'m> {
    /// A session of this member that begins now.
    pub(crate) fn new(me: &'m Member, conference: Conference, shared: Shared, turn: Option<Turn<'m>>) -> Self {
        Self {
            me,
            conference,
            listener: shared.listener,
            valve: shared.valve,
            talker: shared.talker,
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
        }
    }

    /// Attends until it is over.
    pub(crate) async fn run(mut self) -> Ended {
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
        let Member { shard, client, .. } = self.me;
        Channel::open(self.stage(), shard, *client, &self.valve, Arc::clone(&self.listener)).await
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
                return self.hang_up(channel, "it has to shake hands again");
            }
            let timer = self.next_timer();
            let is_talking = self.talker.is_some() && *act.borrow_and_update() == Act::Talk;
            tokio::select! {
                message = channel.incoming.recv() => match message {
                    Some(message) => self.on_control(&message, &channel),
                    None => {
                        let why = channel.reason();
                        return self.hang_up(channel, &why);
                    }
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
                        return self.hang_up(channel, "the relay is silent");
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

    /// Gives up a connection; the session too if it was still joining.
    fn hang_up(&mut self, channel: Channel, why: &str) -> Option<Ended> {
        channel.hang_up();
        if let Some(talker) = &self.talker {
            talker.hang_up();
        }
        self.conference.disconnected(Instant::now());
        if self.removed {
            return Some(Ended::Over);
        }
        if self.index.is_some() {
            self.stage().tally.trouble(format!("a member lost its connection: {why}"));
            return None;
        }
        count(&self.stage().tally.failed);
        Some(Ended::Failed(format!("a guest lost its connection during a join: {why}")))
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
        if self.me.role != Role::Host && is_confirmation(message) {
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
}

/// Whether a message confirms what its sender knows, or passes such messages on, or shows what others have sent. Every member
/// checks the signatures of all others, which for a thousand members takes more cores than the relay; hosts do it.
fn is_confirmation(message: &[u8]) -> bool {
    let is_to_all = message.first() == Some(&DELIVER) && message.get(DELIVERED_KIND) == Some(&TO_ALL);
    let is_leaders = message.get(DELIVERED_FROM) == Some(&MemberIndex::HOST.0.to_be_bytes());
    is_to_all && !(is_leaders && HEARTBEATS.contains(&message.len()))
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::epoch::broadcast::{Beat, Broadcast, Channel, Confirm, Heartbeat, Passed};
    use conclave_protocol::epoch::statement::ChainHash;
    use conclave_protocol::id::{Epoch, Term};
    use conclave_protocol::identity::Identity;
    use conclave_protocol::secret::Secret;
    use conclave_protocol::sign::KeyPair;
    use conclave_protocol::time::UnixMillis;
    use conclave_protocol::wire::codec::Wire;
    use conclave_protocol::wire::relay::FromRelay;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn epoch() -> Epoch {
        Epoch::new(1).unwrap()
    }

    fn delivered(from: MemberIndex, message: &Broadcast) -> Vec<u8> {
        let bytes = Channel::new(epoch(), from, Secret::new([9; 32])).seal(message).unwrap();
        FromRelay::Deliver { from, bytes }.encode()
    }

    fn heartbeat(unconfirmed: usize) -> Broadcast {
        let unconfirmed = vec![MemberIndex(1); unconfirmed];
        let (chain, time) = (ChainHash([1; 32]), UnixMillis(1));
        let beat = Beat { term: Term(1), epoch: epoch(), n: 1, chain, previous: [0; 32], time, unconfirmed };
        Broadcast::Heartbeat(Heartbeat::sign(beat, &KeyPair::from_seed(&[1; 32])))
    }

    fn confirm() -> Confirm {
        let identity = Identity::guest(&mut ChaCha20Rng::seed_from_u64(1));
        Confirm::sign(&identity, MemberIndex(0), &ChainHash([1; 32]), (Term(1), epoch(), 1), None)
    }

    #[test]
    fn heartbeats_of_any_length_are_read_and_confirmations_are_not() {
        for unconfirmed in [0, 1, Heartbeat::MAX_UNCONFIRMED] {
            assert!(!is_confirmation(&delivered(MemberIndex::HOST, &heartbeat(unconfirmed))), "{unconfirmed}");
        }
        let passed = vec![Passed { index: MemberIndex(2), confirm: confirm() }; 128];
        let from_host = [Broadcast::Confirm(confirm()), Broadcast::Passed(passed)];
        assert!(from_host.iter().all(|message| is_confirmation(&delivered(MemberIndex::HOST, message))));
        assert!(is_confirmation(&delivered(MemberIndex(3), &Broadcast::Confirm(confirm()))));
        assert!(is_confirmation(&delivered(MemberIndex(3), &Broadcast::Heads(Vec::new()))));
    }

    #[test]
    fn what_is_for_one_member_is_read_whoever_it_is_from() {
        for from in [MemberIndex::HOST, MemberIndex(3)] {
            let session = FromRelay::Deliver { from, bytes: vec![4; 100] }.encode();
            assert!(!is_confirmation(&session));
        }
        assert!(!is_confirmation(&[]) && !is_confirmation(&[DELIVER, 0, 3]));
    }
}
