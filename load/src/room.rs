//! What all threads of a run share: the stage, its meetings, and the counts of what happens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use conclave_protocol::link::Link;
use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};

use crate::listener::Listener;
use crate::meter::{Window, micros};
use crate::plan::Plan;
use crate::relay::Address;
use crate::shard::{Connection, Valve};
use crate::sync::{RunClock, lock};
use crate::talker::Talker;

/// Guests of one meeting that join at the same time: as many as one epoch takes in (`docs/protocol.md` §12), and far
/// below the mailboxes that a relay gives.
pub(crate) const WAVE: usize = 40;
/// Guests that join at the same time in all meetings: their handshakes are cryptography that takes a core.
const JOINING: usize = 128;
/// From so many members on guests come in waves.
const CROWD: u32 = 100;
/// Kinds of trouble that are told apart.
const MOST_TROUBLES: usize = 32;

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Act {
    /// Members come.
    Ramp,
    /// Talkers talk.
    Talk,
    /// All go home.
    Over,
}

/// A listener, from both sides.
pub(crate) type SharedListener = Arc<Mutex<Listener>>;

/// A run, as its threads see it.
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    pub(crate) clock: RunClock,
    pub(crate) window: Arc<Window>,
    pub(crate) relay: Address,
    pub(crate) act: watch::Sender<Act>,
    pub(crate) entrance: Semaphore,
    pub(crate) tally: Tally,
    /// Every session that was ever measured.
    pub(crate) listeners: Mutex<Vec<SharedListener>>,
    /// Connections of members, until they are counted for the last time.
    pub(crate) connections: Mutex<Vec<Connection>>,
    /// Members that are to stop reading.
    pub(crate) valves: Mutex<Vec<Arc<Valve>>>,
    /// What the flooding member sends over, and a frame of its own.
    pub(crate) flooder: Mutex<Option<(Connection, bytes::Bytes)>>,
    restarted: AtomicU64,
}

impl Stage {
    pub(crate) fn new(plan: Plan, relay: Address) -> anyhow::Result<Self> {
        Ok(Self {
            plan,
            clock: RunClock::start(),
            window: Arc::default(),
            relay,
            act: watch::Sender::new(Act::Ramp),
            entrance: Semaphore::new(JOINING),
            tally: Tally::new()?,
            listeners: Mutex::default(),
            connections: Mutex::default(),
            valves: Mutex::default(),
            flooder: Mutex::default(),
            restarted: AtomicU64::new(0),
        })
    }

    /// When the relay was there again; 0 before.
    pub(crate) fn restarted(&self) -> u64 {
        self.restarted.load(Ordering::Relaxed)
    }

    /// The relay is there again.
    pub(crate) fn note_restart(&self) {
        self.restarted.store(self.clock.now(), Ordering::Relaxed);
    }

    /// Whether the measurement is on.
    pub(crate) fn is_measuring(&self) -> bool {
        self.window.second_of(self.clock.now()).is_some()
    }
}

/// A meeting.
pub(crate) struct Room {
    pub(crate) stage: Arc<Stage>,
    pub(crate) number: u32,
    pub(crate) talkers: Vec<Arc<Talker>>,
    pub(crate) entrance: Semaphore,
    /// Who of a wave is in, while the others are not.
    in_already: Mutex<usize>,
    /// Set when the host is at the relay.
    pub(crate) is_open: watch::Sender<bool>,
    link: OnceLock<Link>,
    /// Which talker has which index.
    seats: RwLock<BTreeMap<u16, usize>>,
    /// Guests who are in, by index.
    pub(crate) present: Mutex<BTreeMap<u16, SharedListener>>,
    /// Whom the host is to remove.
    pub(crate) orders: Mutex<Option<mpsc::UnboundedSender<u16>>>,
    /// Whom it removed, when.
    pub(crate) removed: Mutex<Option<(u64, SharedListener)>>,
}

impl Room {
    pub(crate) fn new(stage: Arc<Stage>, number: u32) -> Self {
        let ticks = stage.plan.most_ticks();
        let talkers = (0..stage.plan.shape.talkers).map(|_| Arc::new(Talker::new(ticks))).collect();
        Self {
            stage,
            number,
            talkers,
            entrance: Semaphore::new(WAVE),
            in_already: Mutex::default(),
            is_open: watch::Sender::new(false),
            link: OnceLock::new(),
            seats: RwLock::default(),
            present: Mutex::default(),
            orders: Mutex::default(),
            removed: Mutex::default(),
        }
    }

    /// The host has made the meeting.
    pub(crate) fn invite(&self, link: Link) {
        // A room has one host, which makes one meeting.
        let _first = self.link.set(link);
    }

    /// What guests come with; `None` before the host has made the meeting.
    pub(crate) fn link(&self) -> Option<Link> {
        self.link.get().map(Link::duplicate)
    }

    /// A talker is in the meeting under this index.
    pub(crate) fn seat(&self, index: u16, talker: usize) {
        self.seats.write().unwrap_or_else(PoisonError::into_inner).insert(index, talker);
    }

    /// Which talker that index is.
    pub(crate) fn talker_of(&self, index: u16) -> Option<usize> {
        self.seats.read().unwrap_or_else(PoisonError::into_inner).get(&index).copied()
    }

    /// Whether guests come in waves, one epoch each: every epoch is work for all who are in already, and all of that is
    /// done on this machine.
    pub(crate) fn comes_in_waves(&self) -> bool {
        let plan = &self.stage.plan;
        plan.shape.people > CROWD && plan.ramp.is_none() && *self.stage.act.borrow() == Act::Ramp
    }

    /// Somebody's turn to join is over. In waves the next begins when all of this one have had theirs.
    pub(crate) fn end_turn(&self, turn: SemaphorePermit<'_>) {
        turn.forget();
        let mut in_already = lock(&self.in_already);
        *in_already += 1;
        if *in_already >= WAVE || !self.comes_in_waves() {
            self.entrance.add_permits(std::mem::take(&mut *in_already));
        }
    }

    /// The one who came last and does not talk, to be removed.
    pub(crate) fn last_listener(&self) -> Option<(u16, SharedListener)> {
        let present = lock(&self.present);
        let quiet = present.iter().rev().find(|(index, _)| self.talker_of(**index).is_none());
        quiet.map(|(index, listener)| (*index, Arc::clone(listener)))
    }
}

/// Counts of what happens, by any thread.
pub(crate) struct Tally {
    pub(crate) members: AtomicU64,
    pub(crate) begun: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) reconnected: AtomicU64,
    pub(crate) control: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) phases: AtomicU64,
    pub(crate) flood: Mutex<BTreeMap<String, u64>>,
    ramp: Mutex<JoinTimes>,
    measured: Mutex<JoinTimes>,
    troubles: Mutex<BTreeMap<String, u64>>,
}

/// How long joins took, in µs.
#[derive(Clone)]
pub(crate) struct JoinTimes {
    pub(crate) whole: Histogram<u64>,
    pub(crate) relay: Histogram<u64>,
}

impl JoinTimes {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { whole: micros()?, relay: micros()? })
    }
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            members: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reconnected: AtomicU64::new(0),
            control: AtomicU64::new(0),
            seals: AtomicU64::new(0),
            phases: AtomicU64::new(0),
            flood: Mutex::default(),
            ramp: Mutex::new(JoinTimes::new()?),
            measured: Mutex::new(JoinTimes::new()?),
            troubles: Mutex::default(),
        })
    }

    /// Somebody has joined.
    pub(crate) fn note_join(&self, is_measuring: bool, whole: Duration, relay: Duration) {
        count(&self.done);
        let mut times = lock(if is_measuring { &self.measured } else { &self.ramp });
        times.whole.saturating_record(in_micros(whole));
        times.relay.saturating_record(in_micros(relay));
    }

    /// How long the joins of the measurement took; without any, those before it.
    pub(crate) fn join_times(&self) -> JoinTimes {
        let measured = lock(&self.measured);
        if measured.whole.is_empty() { lock(&self.ramp).clone() } else { measured.clone() }
    }

    /// Something went wrong.
    pub(crate) fn trouble(&self, what: String) {
        let mut troubles = lock(&self.troubles);
        if troubles.len() < MOST_TROUBLES || troubles.contains_key(&what) {
            *troubles.entry(what).or_default() += 1;
        }
    }

    pub(crate) fn troubles(&self) -> BTreeMap<String, u64> {
        lock(&self.troubles).clone()
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whole microseconds, at least one.
pub(crate) fn in_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Shape, tests::plan};

    /// A room with so many talkers.
    pub(crate) fn room(talkers: u32) -> Arc<Room> {
        let stage = Stage::new(plan(Shape { rooms: 1, people: 5, talkers }), Address::nowhere()).unwrap();
        Arc::new(Room::new(Arc::new(stage), 0))
    }

    #[test]
    fn in_a_crowd_the_next_wave_waits_for_the_last_of_this_one() {
        let shape = Shape { rooms: 1, people: 200, talkers: 1 };
        let stage = Arc::new(Stage::new(plan(shape), Address::nowhere()).unwrap());
        let room = Room::new(Arc::clone(&stage), 0);
        let turn = || room.entrance.try_acquire();
        let mut turns: Vec<_> = (0..WAVE).map(|_| turn().unwrap()).collect();
        let last = turns.pop().unwrap();
        turns.into_iter().for_each(|turn| room.end_turn(turn));
        assert!(turn().is_err());
        room.end_turn(last);
        assert_eq!(room.entrance.available_permits(), WAVE);
        room.end_turn(turn().unwrap());
        stage.act.send_replace(Act::Talk);
        room.end_turn(turn().unwrap());
        assert_eq!(room.entrance.available_permits(), WAVE, "after the ramp nobody waits for others");
    }

    #[test]
    fn joins_of_the_measurement_count_before_those_of_the_ramp() {
        let tally = Tally::new().unwrap();
        let (slow, fast) = (Duration::from_millis(800), Duration::from_millis(50));
        tally.note_join(false, slow, fast);
        assert_eq!(tally.join_times().whole.len(), 1);
        assert!(tally.join_times().whole.max() > 700_000);
        tally.note_join(true, fast, fast);
        assert!(tally.join_times().whole.max() < 60_000);
    }

    #[test]
    fn troubles_are_bounded_in_kind_and_not_in_number() {
        let tally = Tally::new().unwrap();
        for kind in 0..100 {
            tally.trouble(format!("trouble {kind}"));
        }
        tally.trouble("trouble 0".to_owned());
        let troubles = tally.troubles();
        assert_eq!((troubles.len(), troubles["trouble 0"]), (MOST_TROUBLES, 2));
    }
}
