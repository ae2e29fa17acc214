//! The fixed-latency playout: when each frame of one talker is heard.
//!
//! A pure state machine: times come in, decisions come out, nothing is allocated after construction. Frame *n* is
//! played at a fixed distance (the *hold*) behind the earliest moment at which it could have arrived. That moment is
//! `anchor + n·T`, and the anchor is the minimum of `arrival − n·T` over some seconds. What comes later than its time
//! is lost, never stretched. The distance is corrected by one frame at a time, only while the talker is quiet.
//!
//! ```text
//!             first frame                 `hold` passed
//!   Idle ───────────────────▶ Waiting ───────────────────▶ Playing
//!    ▲                                                        │
//!    └────────────── 10 frames missing, none queued ──────────┘
//! ```
//!
//! What to do about a missing frame is decided in one place, `Playout::missing`, with the frames behind it still in
//! the ring: redundancy inside later frames (FEC, RED, DRED) can be used there.

use std::time::{Duration, Instant};

use super::window::MinWindow;
use super::format::{FRAME, PACKET_LEN};

/// Frames that can wait, 1.28 s: far more than any hold, so that only a wrong number lies beyond.
const SLOTS: usize = 64;

/// Missing frames in a row after which the talker is taken to have stopped: longer concealment is only noise.
const IDLE_AFTER: u32 = 10;

/// Late frames in a row, each newer than the one before, after which the stream starts anew: 1 s.
const LATE_RUN: u32 = 50;

/// Frames beyond the ring in a row after which the stream starts anew there. One must not be enough: a single wrong
/// number would cut off a healthy stream.
const FAR_RUN: u32 = 3;

/// Quiet frames in a row before a correction, 100 ms: shorter pauses belong to words.
const QUIET_RUN: u32 = 5;

/// Pulls between two corrections, 0.5 s: as long as one bucket of the window that measures the hold.
const CORRECTION_PAUSE: u32 = 25;

/// Share of one more frame in the mean that [`PlayoutStats::hold_ms`] is: it covers about the last 0.6 s.
const HOLD_SHARE: f32 = 1.0 / 32.0;

/// Bound on times in nanoseconds, 73 years, so that differences cannot overflow.
const FAR_AWAY: i64 = i64::MAX / 4;

/// How a playout works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Duration of a frame, the same for talker and listener.
    pub frame: Duration,
    /// Time from a frame's earliest possible arrival to its being played. Longer bears more jitter and costs as much
    /// delay.
    pub hold: Duration,
    /// How far the hold may be off, beyond the one frame that comes from two unrelated frame clocks, before it is
    /// corrected. Smaller corrects more often, up to without cause.
    pub margin: Duration,
}

impl Default for Config {
    /// 20 ms frames and a hold of 45 ms (`docs/protocol.md`, latency: poor network).
    fn default() -> Self {
        Self { frame: FRAME, hold: Duration::from_millis(45), margin: Duration::from_millis(5) }
    }
}

/// What a talker was doing in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Muted: there is no sound in the frame.
    Muted,
    /// Sending, but not speaking.
    Silent,
    /// Speaking.
    Speech,
}

/// What became of a frame that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for its time.
    Queued,
    /// Its time had passed.
    Late,
    /// It was here before.
    Duplicate,
    /// It is so far in the future that its number must be wrong.
    TooFar,
    /// It is larger than any packet that is sent.
    TooLarge,
}

/// What to play now.
#[derive(Debug, PartialEq, Eq)]
pub enum Pull<'a> {
    /// This packet.
    Play(&'a [u8]),
    /// Something in place of a frame that isn't there.
    Conceal,
    /// Nothing.
    Silence,
}

/// Counters since construction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PlayoutStats {
    /// Frames that arrived, late and duplicate ones included.
    pub received: u64,
    /// Frames that were played at their time, muted ones included.
    pub played: u64,
    /// Frames that arrived after their time and were dropped.
    pub late: u64,
    /// Frames that were not there at their time, late ones included. Of a gap after which the talker was silent or
    /// did not come back only the first 10 are counted; none of a gap after a muted frame.
    pub lost: u64,
    /// Lost frames in whose place something was made up.
    pub concealed: u64,
    /// Frames that arrived again.
    pub duplicates: u64,
    /// Quiet frames that were left out because the hold had become too long.
    pub skipped: u64,
    /// Quiet frames that were made up because the hold had become too short.
    pub inserted: u64,
    /// Times that the stream was started anew because its frames no longer fitted the old timing.
    pub reanchors: u64,
    /// Recent mean of the time from a frame's arrival to its being played, in milliseconds.
    pub hold_ms: Option<f32>,
}

/// The playout of one talker.
#[derive(Debug)]
pub struct Playout {
    /// Nanoseconds per frame.
    frame: i64,
    /// Nanoseconds of the hold and of its margin.
    hold: i64,
    margin: i64,
    /// What times are counted from.
    origin: Option<Instant>,
    phase: Phase,
    /// The frame to be played next, counted on past 2³² (its low 32 bits are the talker's number).
    next: i64,
    /// The newest frame that was played or skipped.
    consumed: Option<i64>,
    slots: Box<[Slot]>,
    queued: usize,
    arrivals: MinWindow,
    pulls: MinWindow,
    activity: Activity,
    quiet_run: u32,
    missing_run: u32,
    since_correction: u32,
    late_run: Run,
    far_run: Run,
    stats: PlayoutStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Waiting { start: i64 },
    Playing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Correction {
    None,
    Skip,
    Insert,
}

/// A row of frames out of place, and the newest of them.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    count: u32,
    newest: i64,
}

#[derive(Debug, Clone)]
struct Slot {
    index: i64,
    state: SlotState,
    activity: Activity,
    arrival: i64,
    length: usize,
    payload: [u8; PACKET_LEN],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Empty,
    Queued,
    /// Played, skipped or late: here only to know it when it comes again.
    Done,
}

impl Playout {
    /// A playout that has heard nothing yet. Allocates all that it will ever need.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let slot = Slot {
            index: 0,
            state: SlotState::Empty,
            activity: Activity::Muted,
            arrival: 0,
            length: 0,
            payload: [0; PACKET_LEN],
        };
        Self {
            frame: nanos(config.frame).max(1),
            // A longer hold would fill the ring before the first frame is played.
            hold: nanos(config.hold).min(nanos(config.frame).saturating_mul(SLOTS as i64 / 2)),
            margin: nanos(config.margin),
            origin: None,
            phase: Phase::Idle,
            next: 0,
            consumed: None,
            slots: vec![slot; SLOTS].into_boxed_slice(),
            queued: 0,
            arrivals: MinWindow::new(),
            pulls: MinWindow::new(),
            activity: Activity::Muted,
            quiet_run: 0,
            missing_run: 0,
            since_correction: 0,
            late_run: Run::default(),
            far_run: Run::default(),
            stats: PlayoutStats::default(),
        }
    }

    /// Takes in a frame that arrived at `now`. `seq` is the talker's frame clock: one more per frame, whether the
    /// talker sends or not, and 0 after 2³² − 1. `payload` is at most [`PACKET_LEN`] long and may be empty.
    pub fn push(&mut self, seq: u32, activity: Activity, payload: &[u8], now: Instant) -> Pushed {
        if payload.len() > PACKET_LEN {
            return Pushed::TooLarge;
        }
        self.stats.received += 1;
        let arrival = self.since_origin(now);
        let index = self.index_of(seq);
        let pushed = match self.phase {
            Phase::Idle if self.consumed.is_none_or(|consumed| index > consumed) => {
                // Frames that came late in the gap mean that the path, not the talker, had changed.
                self.stats.reanchors += u64::from(self.late_run.count >= IDLE_AFTER / 2);
                return self.start(seq, activity, payload, arrival);
            }
            Phase::Waiting { start } if index < self.next => self.place_before_start(index, start, arrival),
            _ => self.place(index),
        };
        match pushed {
            Pushed::Queued => self.store(index, activity, payload, arrival),
            Pushed::Duplicate => self.stats.duplicates += 1,
            Pushed::Late => self.on_late(index, arrival),
            Pushed::TooFar => self.on_far(index),
            Pushed::TooLarge => {}
        }
        let restart = self.late_run.count >= LATE_RUN || self.far_run.count >= FAR_RUN;
        if restart {
            self.stats.reanchors += 1;
            return self.start(seq, activity, payload, arrival);
        }
        pushed
    }

    /// What to play at `now`. To be called once per frame by the listener's own clock.
    pub fn pull(&mut self, now: Instant) -> Pull<'_> {
        let now = self.since_origin(now);
        match self.phase {
            Phase::Idle => return Pull::Silence,
            Phase::Waiting { start } if now < start => return Pull::Silence,
            Phase::Waiting { .. } | Phase::Playing => self.phase = Phase::Playing,
        }
        self.pulls.observe(now, now.saturating_sub(self.offset(self.next)));
        self.since_correction = self.since_correction.saturating_add(1);
        match self.correction() {
            Correction::None => {}
            Correction::Skip => self.skip(),
            Correction::Insert => return self.insert(),
        }
        let index = self.next;
        self.next += 1;
        if self.slot(index).is(index, SlotState::Queued) { self.play(index, now) } else { self.missing() }
    }

    /// Counters and the measured hold.
    #[must_use]
    pub fn stats(&self) -> PlayoutStats {
        self.stats
    }

    /// Whether the talker has stopped sending, or never began.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Where a frame belongs that arrives before the first one is played, and is older than it: it becomes the first,
    /// if its own time has not passed.
    fn place_before_start(&mut self, index: i64, start: i64, now: i64) -> Pushed {
        let earlier = start.saturating_sub(self.offset(self.next - index));
        if earlier < now {
            return self.place(index);
        }
        self.next = index;
        self.phase = Phase::Waiting { start: earlier };
        Pushed::Queued
    }

    fn place(&self, index: i64) -> Pushed {
        let slot = self.slot(index);
        if slot.is(index, SlotState::Queued) || slot.is(index, SlotState::Done) {
            Pushed::Duplicate
        } else if index < self.next {
            Pushed::Late
        } else if index - self.next >= SLOTS as i64 {
            Pushed::TooFar
        } else {
            Pushed::Queued
        }
    }

    fn on_late(&mut self, index: i64, arrival: i64) {
        self.stats.late += 1;
        self.observe_arrival(index, arrival);
        // Only newer and newer frames show that the stream as a whole is late: stragglers don't.
        if self.late_run.count == 0 || index > self.late_run.newest {
            self.late_run = Run { count: self.late_run.count + 1, newest: index };
        }
        self.far_run = Run::default();
        if self.next - index < SLOTS as i64 {
            let slot = self.slot_mut(index);
            (slot.index, slot.state) = (index, SlotState::Done);
        }
    }

    fn on_far(&mut self, index: i64) {
        let follows = index > self.far_run.newest && index - self.far_run.newest < SLOTS as i64;
        let count = if self.far_run.count > 0 && follows { self.far_run.count + 1 } else { 1 };
        self.far_run = Run { count, newest: index };
    }

    fn store(&mut self, index: i64, activity: Activity, payload: &[u8], arrival: i64) {
        self.observe_arrival(index, arrival);
        self.late_run = Run::default();
        self.far_run = Run::default();
        self.queued += 1;
        let slot = self.slot_mut(index);
        (slot.index, slot.state, slot.activity, slot.arrival) = (index, SlotState::Queued, activity, arrival);
        slot.length = payload.len();
        slot.payload[..payload.len()].copy_from_slice(payload);
    }

    /// Forgets the stream and begins with this frame.
    fn start(&mut self, seq: u32, activity: Activity, payload: &[u8], arrival: i64) -> Pushed {
        self.slots.iter_mut().for_each(|slot| slot.state = SlotState::Empty);
        self.queued = 0;
        self.arrivals.clear();
        self.pulls.clear();
        self.next = i64::from(seq);
        self.consumed = None;
        self.phase = Phase::Waiting { start: arrival.saturating_add(self.hold) };
        self.activity = Activity::Muted;
        (self.quiet_run, self.missing_run, self.since_correction) = (0, 0, 0);
        self.store(self.next, activity, payload, arrival);
        Pushed::Queued
    }

    fn play(&mut self, index: i64, now: i64) -> Pull<'_> {
        let activity = self.consume(index);
        self.stats.played += 1;
        self.measure_hold(now.saturating_sub(self.slot(index).arrival));
        let slot = self.slot(index);
        if activity == Activity::Muted || slot.length == 0 {
            return Pull::Silence;
        }
        Pull::Play(&slot.payload[..slot.length])
    }

    /// Decides what stands in for a frame that isn't there.
    fn missing(&mut self) -> Pull<'_> {
        self.missing_run = self.missing_run.saturating_add(1);
        let stopped = self.missing_run > IDLE_AFTER;
        if stopped && self.queued == 0 {
            self.phase = Phase::Idle;
            return Pull::Silence;
        }
        if self.activity == Activity::Muted {
            return Pull::Silence;
        }
        self.stats.lost += 1;
        if stopped {
            return Pull::Silence;
        }
        self.stats.concealed += 1;
        Pull::Conceal
    }

    /// Leaves out the next frame.
    fn skip(&mut self) {
        let index = self.next;
        self.consume(index);
        self.next += 1;
        self.stats.skipped += 1;
        self.pulls.shift(-self.frame);
        self.since_correction = 0;
    }

    /// Plays something before the next frame.
    fn insert(&mut self) -> Pull<'_> {
        self.stats.inserted += 1;
        self.pulls.shift(self.frame);
        self.since_correction = 0;
        if self.activity == Activity::Muted { Pull::Silence } else { Pull::Conceal }
    }

    /// Takes a queued frame out; returns its activity.
    fn consume(&mut self, index: i64) -> Activity {
        let slot = self.slot_mut(index);
        slot.state = SlotState::Done;
        let activity = slot.activity;
        self.queued -= 1;
        self.consumed = Some(index);
        self.activity = activity;
        self.missing_run = 0;
        self.quiet_run = if activity == Activity::Speech { 0 } else { self.quiet_run.saturating_add(1) };
        activity
    }

    fn correction(&self) -> Correction {
        if self.quiet_run < QUIET_RUN || self.since_correction < CORRECTION_PAUSE {
            return Correction::None;
        }
        let Some(hold) = self.true_hold() else { return Correction::None };
        let next = self.slot(self.next);
        let next = next.is(self.next, SlotState::Queued).then_some(next.activity);
        if next == Some(Activity::Speech) {
            Correction::None
        } else if hold < self.hold - self.margin {
            Correction::Insert
        } else if hold > self.hold + self.frame + self.margin && next.is_some() {
            Correction::Skip
        } else {
            Correction::None
        }
    }

    /// How long a frame that comes as early as any waits, in nanoseconds: both clocks are taken at their minimum, since
    /// the network and this machine's scheduler can only delay.
    fn true_hold(&self) -> Option<i64> {
        Some(self.pulls.least()?.saturating_sub(self.arrivals.robust_least()?))
    }

    fn observe_arrival(&mut self, index: i64, arrival: i64) {
        self.arrivals.observe(arrival, arrival.saturating_sub(self.offset(index)));
    }

    fn measure_hold(&mut self, waited: i64) {
        let waited = waited as f32 / 1e6;
        let mean = self.stats.hold_ms.map_or(waited, |mean| mean + (waited - mean) * HOLD_SHARE);
        self.stats.hold_ms = Some(mean);
    }

    /// The frame that `seq` names: the one nearest to `next` with these low 32 bits.
    fn index_of(&self, seq: u32) -> i64 {
        // Both casts keep the low 32 bits, the second with their sign.
        let ahead = seq.wrapping_sub(self.next as u32) as i32;
        self.next + i64::from(ahead)
    }

    fn offset(&self, frames: i64) -> i64 {
        frames.saturating_mul(self.frame)
    }

    fn since_origin(&mut self, now: Instant) -> i64 {
        let origin = *self.origin.get_or_insert(now);
        match now.checked_duration_since(origin) {
            Some(after) => nanos(after),
            None => -nanos(origin.saturating_duration_since(now)),
        }
    }

    fn slot(&self, index: i64) -> &Slot {
        &self.slots[position(index)]
    }

    fn slot_mut(&mut self, index: i64) -> &mut Slot {
        &mut self.slots[position(index)]
    }
}

impl Slot {
    fn is(&self, index: i64, state: SlotState) -> bool {
        self.state == state && self.index == index
    }
}

fn position(index: i64) -> usize {
    // The remainder is in 0..SLOTS.
    index.rem_euclid(SLOTS as i64) as usize
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).map_or(FAR_AWAY, |nanos| nanos.min(FAR_AWAY))
}

#[cfg(test)]
#[path = "playout_tests.rs"]
mod tests;
