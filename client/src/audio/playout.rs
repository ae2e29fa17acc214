//! One talker's playout with a delay that is fixed but for the clocks: which frame is played at which step of the
//! listener (DESIGN §11).
//!
//! A pure state machine without a clock or a codec, of a size fixed at the beginning. Frames go in as they arrive
//! ([`Playout::push`]), numbered by the talker's frame clock; whenever the listener has played what came out last, the
//! next place comes out ([`Playout::pull`]), whatever has arrived. The listener plays in steps ([`Config::step`]), which
//! are shorter than a frame, so each talker has a place of its own within the frame.
//!
//! * A talker's first frame is played at the first step at which [`Config::hold`] has passed since its arrival. From
//!   then on place follows place, so the delay stays what it was. Late means lost.
//! * The delay that a frame *without queueing* would have is watched: the earliest arrival of the last seconds is
//!   compared with the steps. It settles between `hold` and `hold` + one step; a clock of steps that follows
//!   ([`Playout::spare`]) takes it to just above `hold`. When it is below that range by more than
//!   [`Config::shortfall`] or above it by more than [`Config::surplus`] for [`Config::settle`] (clocks drift, paths
//!   change, the first frame was slow), steps are left out or inserted, in a pause or while the talker is muted; never
//!   in speech. Only a delay that is too long by more than [`Config::jump`] is cut at once.
//! * [`Playout::set_hold`] asks for another delay. A longer one begins at once, with silence, and loses nothing; a
//!   shorter one is reached by leaving out pauses, and after [`RETURN_WITHIN`] by a cut.
//! * Where a frame is missing and a later one is there, that one is given out to be repaired from ([`Pull::Repair`]).
//! * With [`Config::learn`] the hold follows what would have been missing with others (`shadow`), in pauses only.
//! * A talker of whom nothing has come for [`Config::idle_after`] is idle, and the next frame starts anew. So
//!   a sudden longer path heals itself. Where the numbers themselves jump, several frames must agree before they are
//!   followed, so that one wrong number does no harm.

mod anchor;
mod correct;
mod places;
mod repair;
mod retime;
mod shadow;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::format::{FrameDuration, LEVEL_SILENT, PACKET_LEN, STEP};
use anchor::Anchor;
use correct::Delay;
use places::{Place, Places};
pub use repair::reach;
pub use retime::{RETURN_WITHIN, VERIFIED_HOLD};
use shadow::Shadows;

/// What a playout holds at most: twice the longest hold ([`VERIFIED_HOLD`]), so that seals which come late for a while and
/// then in time again find room for what they bring; 10 kB more a talker than one hold would take, with frames of 20 ms.
const ROOM: Duration = Duration::from_millis(2_560);
/// Longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = PACKET_LEN;
/// Frames in a row that are too far ahead, each near the one before, until their numbers are followed.
const FOLLOW_AHEAD: u32 = 5;
/// How far behind a start may be until what is old is given up at once, in nanoseconds: a jam has ended. Three frames of
/// 20 ms.
const START_SLACK: i64 = 60_000_000;
/// What the mean hold is of, in nanoseconds: about the last second.
const HOLD_MEAN: f32 = 1e9;
/// An arrival that is earlier than all others by more than this is not believed at once, in nanoseconds: two frames of 20 ms.
const EARLIEST_TOLERANCE: i64 = 40_000_000;

/// How a playout behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Config {
    /// Duration of a frame, of talker and listener.
    pub frame: FrameDuration,
    /// What is played at once: a whole part of a frame, or a frame.
    pub step: Duration,
    /// How long a frame that was not queued on its way is kept at least: what the network may vary by.
    pub hold: Duration,
    /// How far the delay may fall below its range before it is corrected.
    pub shortfall: Duration,
    /// How far it may rise above it.
    pub surplus: Duration,
    /// For how long it must have left its range.
    pub settle: Duration,
    /// A delay that is too long by more than this is cut at once, even in speech.
    pub jump: Duration,
    /// Level in −dBov from which on a frame is a pause.
    pub pause_level: u8,
    /// How long places must be missing in a row until the talker is idle, at most 0.64 s.
    pub idle_after: Duration,
    /// Whether the hold is only where it begins, and follows what arrives.
    pub learn: bool,
}

/// What the packet after a lost one may come later than expected and still stand in for it.
pub const SLACK: Duration = Duration::from_millis(2);
/// The longest that places may be missing until a talker is idle.
const MOST_IDLE_AFTER: Duration = Duration::from_millis(640);

impl Default for Config {
    fn default() -> Self {
        Self::of(FrameDuration::Ms20)
    }
}

impl Config {
    /// For frames of this duration. A frame is held for as long as it takes the one after it to come.
    pub fn of(frame: FrameDuration) -> Self {
        Self {
            frame,
            step: STEP,
            hold: frame.duration() + SLACK,
            // More than clocks wander in the anchor's window, and less than is kept for the packet after a lost one.
            shortfall: Duration::from_millis(1),
            // Less than a step, so that a correction lands inside the range again.
            surplus: Duration::from_millis(3),
            // Longer than a hiccup of the listener's own clock.
            settle: Duration::from_millis(500),
            // Nobody converses well with 0.3 s more.
            jump: Duration::from_millis(300),
            // Below any speech, above the noise of quiet rooms.
            pause_level: 60,
            // Concealment has long faded out by then.
            idle_after: Duration::from_millis(200),
            learn: false,
        }
    }
}

/// A frame that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival<'a> {
    /// Tick of the talker's frame clock: one more per frame duration, sent or not, wrapping.
    pub seq: u32,
    /// Whether the talker's microphone is off.
    pub muted: bool,
    /// Level in −dBov, 0 to 127.
    pub level: u8,
    /// Encoded sound; empty when there is none.
    pub payload: &'a [u8],
}

/// What became of an arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Push {
    /// It waits for its place.
    Queued,
    /// Its place has passed.
    Late,
    /// It was there already.
    Duplicate,
    /// Too far ahead to be believed at once; dropped.
    Ahead,
    /// Its number jumped, as those before it; the playout starts anew with it.
    Reanchored,
    /// Its payload is too long; dropped.
    TooLong,
}

/// What to play, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// Of which sound.
    pub what: Pull<'a>,
    /// How many steps of it, from 1 to all of a frame: of a frame that is there the last ones, of what is made up the
    /// first. The next pull is due when they have been played.
    pub steps: usize,
}

impl Piece<'_> {
    /// A step of nothing.
    const SILENCE: Self = Self { what: Pull::Silence, steps: 1 };
}

/// What a piece is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pull<'a> {
    /// Decode this.
    Play(&'a [u8]),
    /// Something is missing: fill the place from the redundancy in a later packet.
    Repair {
        /// The next packet that is there.
        packet: &'a [u8],
        /// How many places are missing before it, this one included: 1 to [`reach`].
        gap: usize,
    },
    /// Something is missing: fill the place from what was heard before.
    Conceal,
    /// The talker is muted.
    Muted,
    /// There is nothing to hear.
    Silence,
}

/// What has happened since the playout was made. Counts of frames and places.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Stats {
    /// Frames that arrived, duplicates left out.
    pub received: u64,
    /// Frames given out in their place, muted ones and holes included.
    pub played: u64,
    /// Of those, muted ones.
    pub muted: u64,
    /// Frames that arrived after their place.
    pub late: u64,
    /// Places whose frame has not come, though a later one has. A late frame moves from here to `late`.
    pub lost: u64,
    /// Places that were to be filled: lost, late, gaps at the end of what a talker sends, and holes in it
    /// (`docs/protocol.md` §8.4).
    pub concealed: u64,
    /// Of those, places with a later packet to repair them from.
    pub repaired: u64,
    /// Frames that were there already.
    pub duplicates: u64,
    /// Frames dropped to shorten the delay.
    pub skipped: u64,
    /// Places of which the beginning was left out to shorten the delay.
    pub shortened: u64,
    /// Pieces added to lengthen the delay.
    pub inserted: u64,
    /// Times the numbers or the delay jumped and the playout began anew.
    pub reanchors: u64,
    /// Frames dropped because they were too far ahead or too long.
    pub refused: u64,
    /// Mean time from arrival to playing of the last second or so, in ms; `None` before the first frame.
    pub hold_ms: Option<f32>,
    /// How long a frame that was not queued on its way is to be held at least, in ms.
    pub aimed_ms: f32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is expected.
    Idle,
    /// Frames are there, and their time has not come.
    Holding,
    /// Every pull is a place.
    Running,
}

/// A place in the ring.
struct Slot {
    /// Whose place it is; `None` when it is free.
    index: Option<i64>,
    /// When it arrived, in nanoseconds since the epoch.
    at: i64,
    muted: bool,
    level: u8,
    len: usize,
    payload: [u8; MAX_PAYLOAD],
}

/// One talker's playout.
pub struct Playout {
    config: Config,
    frame: i64,
    /// Missing places in a row after which the talker is idle.
    idle_after: u32,
    step: i64,
    hold: i64,
    /// The hold outside of verified mode.
    usual: i64,
    shadows: Option<Shadows>,
    /// The usual hold is another one now, and the delay follows in the next pauses.
    steering: bool,
    /// Time 0 of all nanoseconds here: the first call.
    epoch: Option<Instant>,
    /// Frame `i` of this talker is in slot `i` modulo their number.
    ///
    /// INVARIANT: every used slot's index is in `next..next + slots.len()`, and at most `newest`.
    slots: Box<[Slot]>,
    phase: Phase,
    /// Whether a frame has ever been queued.
    started: bool,
    /// Next place to be played. Indexes are the talker's ticks without the wrapping.
    next: i64,
    /// Places before this one have passed for ever.
    floor: i64,
    newest: i64,
    /// The index from which the anchor counts.
    origin: i64,
    anchor: Anchor,
    places: Places,
    delay: Delay,
    /// Since when the delay is so.
    delay_since: i64,
    /// Missing places in a row.
    missing: u32,
    /// Holes since there was sound.
    holes: u32,
    /// Late frames in a row.
    late_run: u64,
    /// The last frame that was too far ahead, and how many there were in a row.
    ahead: Option<(i64, u32)>,
    last_muted: bool,
    /// Until when a delay that is too long is shortened in pauses only, and then cut.
    returning: Option<i64>,
    /// Steps at the beginning of the next place that are left out.
    left_out: usize,
    /// See [`Playout::spare`].
    spare: Option<i64>,
    stats: Stats,
}

impl Playout {
    /// A playout. Everything it will ever need is allocated here.
    pub fn new(config: Config) -> Self {
        let frame = nanos(config.frame.duration());
        let idle_after = config.frame.count_in(config.idle_after.min(MOST_IDLE_AFTER)).max(1);
        let slots = config.frame.count_in(ROOM) as usize;
        let step = nanos(config.step).clamp(1, frame);
        let hold = nanos(config.hold);
        let free = || Slot { index: None, at: 0, muted: false, level: LEVEL_SILENT, len: 0, payload: [0; MAX_PAYLOAD] };
        Self {
            config,
            frame,
            idle_after,
            step,
            hold,
            usual: hold,
            shadows: config.learn.then(|| Shadows::new(hold, config.frame)),
            steering: false,
            epoch: None,
            slots: std::iter::repeat_with(free).take(slots).collect(),
            phase: Phase::Idle,
            started: false,
            next: 0,
            floor: 0,
            newest: 0,
            origin: 0,
            anchor: Anchor::new(EARLIEST_TOLERANCE),
            places: Places::default(),
            delay: Delay::Right,
            delay_since: 0,
            missing: 0,
            holes: 0,
            late_run: 0,
            ahead: None,
            last_muted: false,
            returning: None,
            left_out: 0,
            spare: None,
            stats: Stats::default(),
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        let aimed_ms = self.hold as f32 / 1e6;
        Stats { lost: self.places.lost, late: self.places.late, aimed_ms, ..self.stats }
    }

    /// A frame arrived at `now`. Allocates nothing.
    pub fn push(&mut self, arrival: &Arrival<'_>, now: Instant) -> Push {
        if arrival.payload.len() > MAX_PAYLOAD {
            self.stats.refused += 1;
            return Push::TooLong;
        }
        let at = self.since_epoch(now);
        let index = self.unwrapped(arrival.seq);
        let push = match self.phase {
            Phase::Idle if !self.started || index >= self.next => {
                self.start(index);
                self.queue(index, arrival, at)
            }
            Phase::Holding if (self.floor..self.next).contains(&index) && self.newest - index < self.room() => {
                // A later frame came first.
                self.places.step_back((self.next - index).unsigned_abs());
                self.next = index;
                self.queue(index, arrival, at)
            }
            _ if index < self.next => self.on_late(index, arrival, at),
            _ if index >= self.next.saturating_add(self.room()) => self.on_ahead(index, arrival, at),
            _ => self.queue(index, arrival, at),
        };
        match push {
            Push::Duplicate => self.stats.duplicates += 1,
            _ => self.stats.received += 1,
        }
        push
    }

    /// By how many nanoseconds steps could come earlier without a frame being held for less than [`Config::hold`]: what the
    /// next step was waited for. Negative when frames are held for less. `None` while nothing is played or the talker is
    /// muted, and while the delay is on its way to another one.
    pub fn spare(&self) -> Option<i64> {
        self.spare
    }

    /// What was given out last has been played at `now`, the time of a step: what to play next. Allocates nothing.
    pub fn pull(&mut self, now: Instant) -> Piece<'_> {
        let at = self.since_epoch(now);
        self.spare = None;
        match self.phase {
            Phase::Idle => return Piece::SILENCE,
            Phase::Holding => {
                if !self.begin(at) {
                    return Piece::SILENCE;
                }
            }
            Phase::Running if self.returning.is_some() => self.go_back(at),
            Phase::Running => {
                if let Some(piece) = self.steer(at) {
                    return piece;
                }
                self.watch_delay(at);
                self.lengthen(at);
                if self.phase == Phase::Holding {
                    return Piece::SILENCE;
                }
            }
        }
        if let Some(piece) = self.correct(at) {
            return piece;
        }
        self.spare = self.excess(at).filter(|_| !self.last_muted && !self.steering && self.returning.is_none());
        let steps = self.steps() - std::mem::take(&mut self.left_out);
        let what = if self.is_queued(self.next) { self.play(at) } else { self.miss() };
        Piece { what, steps }
    }

    /// Steps in a frame.
    fn steps(&self) -> usize {
        usize::try_from(self.frame / self.step).unwrap_or(1)
    }

    // ---- numbers and times ----

    fn since_epoch(&mut self, now: Instant) -> i64 {
        let epoch = *self.epoch.get_or_insert(now);
        // A time before the epoch only comes from a caller whose clock runs backwards.
        nanos(now.saturating_duration_since(epoch)).saturating_sub(nanos(epoch.saturating_duration_since(now)))
    }

    /// The index that is nearest to the next place among those with this number.
    fn unwrapped(&self, seq: u32) -> i64 {
        self.next.saturating_add(i64::from(seq.wrapping_sub(self.next as u32).cast_signed()))
    }

    /// When frame `index` was made, on the talker's clock.
    fn made(&self, index: i64) -> i64 {
        index.saturating_sub(self.origin).saturating_mul(self.frame)
    }

    /// By how much more than the hold the next place would be delayed if it were played at `at` and its frame had not
    /// queued on its way. Between 0 and one step in a settled playout.
    fn excess(&self, at: i64) -> Option<i64> {
        let due = self.anchor.earliest()?.saturating_add(self.made(self.next)).saturating_add(self.hold);
        Some(at.saturating_sub(due))
    }

    fn slot(&mut self, index: i64) -> &mut Slot {
        let slot = self.slot_of(index);
        &mut self.slots[slot]
    }

    /// Frames that there is room for.
    fn room(&self) -> i64 {
        self.slots.len() as i64
    }

    fn slot_of(&self, index: i64) -> usize {
        // Not negative, and below their number.
        index.rem_euclid(self.room()) as usize
    }

    fn is_queued(&self, index: i64) -> bool {
        self.slots[self.slot_of(index)].index == Some(index)
    }

    // ---- arrivals ----

    fn queue(&mut self, index: i64, arrival: &Arrival<'_>, at: i64) -> Push {
        if self.is_queued(index) {
            return Push::Duplicate;
        }
        let slot = self.slot(index);
        *slot = Slot { index: Some(index), at, muted: arrival.muted, level: arrival.level, ..*slot };
        slot.len = arrival.payload.len();
        slot.payload[..arrival.payload.len()].copy_from_slice(arrival.payload);
        let gap = index.saturating_sub(self.newest).saturating_sub(1).max(0);
        self.newest = self.newest.max(index);
        self.late_run = 0;
        self.ahead = None;
        self.places.on_sent_later();
        self.note_arrival(index, at, gap);
        Push::Queued
    }

    /// Begins with frame `index` after a time in which nothing was expected.
    fn start(&mut self, index: i64) {
        if self.started {
            self.floor = self.next;
            self.places.skip_ahead((index - self.next).unsigned_abs());
        } else {
            self.floor = index.saturating_sub(self.room());
        }
        self.begin_at(index);
    }

    /// Begins with frame `index` because the numbers have jumped.
    fn reanchor(&mut self, index: i64, arrival: &Arrival<'_>, at: i64) -> Push {
        self.stats.reanchors += 1;
        self.floor = index.saturating_sub(self.room());
        self.places.forget();
        self.begin_at(index);
        self.queue(index, arrival, at);
        Push::Reanchored
    }

    fn begin_at(&mut self, index: i64) {
        self.slots.iter_mut().for_each(|slot| slot.index = None);
        self.anchor.clear();
        (self.next, self.newest, self.origin) = (index, index, index);
        self.started = true;
        self.phase = Phase::Holding;
        self.missing = 0;
        self.late_run = 0;
        self.ahead = None;
        self.last_muted = false;
        self.returning = None;
        self.left_out = 0;
    }

    fn on_late(&mut self, index: i64, arrival: &Arrival<'_>, at: i64) -> Push {
        let behind = (self.next - 1 - index).unsigned_abs();
        if self.places.is_filled(behind) {
            return Push::Duplicate;
        }
        self.late_run += 1;
        // Nothing but late frames for a second: the talker counts differently now.
        if self.late_run.saturating_mul(self.frame.unsigned_abs()) >= 1_000_000_000 {
            return self.reanchor(index, arrival, at);
        }
        self.places.on_late(behind);
        if behind < self.room().unsigned_abs() {
            self.note_arrival(index, at, 0);
        }
        Push::Late
    }

    fn on_ahead(&mut self, index: i64, arrival: &Arrival<'_>, at: i64) -> Push {
        let near = |last: i64| index > last && index - last < self.room();
        let count = self.ahead.filter(|(last, _)| near(*last)).map_or(1, |(_, count)| count + 1);
        if count >= FOLLOW_AHEAD {
            return self.reanchor(index, arrival, at);
        }
        self.ahead = Some((index, count));
        self.stats.refused += 1;
        Push::Ahead
    }

    // ---- places ----

    /// Whether the first place is due. Gives up what is long past.
    fn begin(&mut self, at: i64) -> bool {
        let Some(excess) = self.excess(at).filter(|excess| *excess >= 0) else { return false };
        if excess >= START_SLACK && self.returning.is_none() {
            self.give_up(at);
        }
        self.phase = Phase::Running;
        (self.delay, self.delay_since) = (Delay::Right, at);
        true
    }

    /// Drops what should have been played before `at`, except the newest frame.
    fn give_up(&mut self, at: i64) {
        while self.next < self.newest && self.excess(at).is_some_and(|excess| excess >= self.frame) {
            self.drop_next();
        }
    }

    fn drop_next(&mut self) {
        let there = self.slot(self.next).index.take() == Some(self.next);
        self.stats.skipped += u64::from(there);
        let place = if there { Place::Filled } else { self.missing_place() };
        self.pass(place);
    }

    fn pass(&mut self, place: Place) {
        self.places.pass(place);
        self.next += 1;
    }

    /// What the next place is if its frame is not there.
    fn missing_place(&self) -> Place {
        if self.last_muted {
            Place::Quiet
        } else if self.newest > self.next {
            Place::Lost
        } else {
            Place::Unknown
        }
    }

    fn play(&mut self, at: i64) -> Pull<'_> {
        let index = self.next;
        self.pass(Place::Filled);
        self.missing = 0;
        let slot = self.slot_of(index);
        let slot = &mut self.slots[slot];
        slot.index = None;
        self.last_muted = slot.muted;
        self.stats.played += 1;
        self.stats.muted += u64::from(slot.muted);
        let held = at.saturating_sub(slot.at).max(0) as f32 / 1e6;
        self.stats.hold_ms =
            Some(self.stats.hold_ms.map_or(held, |mean| mean + self.frame as f32 / HOLD_MEAN * (held - mean)));
        match slot.payload.get(..slot.len) {
            _ if slot.muted => Pull::Muted,
            Some(payload) if !payload.is_empty() => {
                self.holes = 0;
                Pull::Play(payload)
            }
            // One who sends nothing else is not heard for ever.
            _ if slot.level < LEVEL_SILENT && self.holes < self.idle_after => {
                self.holes += 1;
                self.stats.concealed += 1;
                Pull::Conceal
            }
            _ => Pull::Silence,
        }
    }

    fn miss(&mut self) -> Pull<'_> {
        let place = self.missing_place();
        let index = self.next;
        let gap = self.gap();
        self.pass(place);
        self.missing += 1;
        if self.missing >= self.idle_after && self.newest < self.next {
            self.phase = Phase::Idle;
        }
        if place == Place::Quiet {
            return Pull::Muted;
        }
        if let Some(gap) = gap {
            self.stats.concealed += 1;
            self.stats.repaired += 1;
            let slot = &self.slots[self.slot_of(index.saturating_add(gap as i64))];
            return Pull::Repair { packet: &slot.payload[..slot.len], gap };
        }
        if self.missing <= self.idle_after {
            self.stats.concealed += 1;
            Pull::Conceal
        } else {
            Pull::Silence
        }
    }
}

/// Nanoseconds, up to 292 years.
fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
