//! What is known of a talker's frames: which are sealed and wait, and when each was sent.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use bytes::Bytes;
use conclave_protocol::sframe::KeyName;
use conclave_protocol::sframe::header::Header;
use conclave_protocol::wire::datagram::{Datagram, HEADER_LEN, Kind};

use crate::shard::Connection;
use crate::sync::lock;

/// CTR of a segment's first frame (`docs/protocol.md` §8.2).
const CTR_BASE: u64 = 0x80;
/// Places for names. A talker uses 64 a second at most (32 for each segment of half a second), so a place is used again
/// after two minutes.
const PLACES: usize = 8_192;

/// A frame's name on the wire, which nobody has to open it for: index (16) ‖ epoch (24) ‖ segment (16) ‖ number (8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameName(u64);

impl FrameName {
    /// The name of a media datagram; `None` for anything else.
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        let outside = Datagram::parse(datagram).filter(|d| d.kind == Kind::Media)?;
        let (header, _) = Header::decode(outside.body).ok()?;
        let key = KeyName::of(header.kid)?;
        let number = header.ctr.0.checked_sub(CTR_BASE).filter(|n| *n < 32)?;
        let (index, epoch, segment) = (key.index.0, key.epoch.number(), key.segment.0);
        Some(Self(u64::from(index) << 48 | u64::from(epoch) << 24 | u64::from(segment) << 8 | number))
    }

    /// The sender's index.
    pub(crate) fn index(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Names of one talker that are in use at a time have places of their own, but for the rare epoch that begins on
    /// another's: then the older frame is taken for foreign, seconds after it was sent.
    fn place(self) -> usize {
        let (epoch, segment, number) = (self.0 >> 24 & 0xFF_FFFF, self.0 >> 8 & 0xFFFF, self.0 & 0x1F);
        let place = segment * 32 + number + epoch * 2_677;
        usize::try_from(place).unwrap_or(0) % PLACES
    }
}

/// A sealed frame.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) name: FrameName,
    pub(crate) datagram: Bytes,
}

impl Sealed {
    /// Takes a datagram that a conference has sealed.
    pub(crate) fn new(datagram: &[u8]) -> Option<Self> {
        debug_assert!(datagram.len() > HEADER_LEN);
        Some(Self { name: FrameName::of(datagram)?, datagram: Bytes::copy_from_slice(datagram) })
    }
}

/// No frame's name.
const NOBODY: u64 = u64::MAX;

/// What is known of a frame by its name, written on one thread and read on others.
struct Place {
    name: AtomicU64,
    /// When it was sent; 0 when it was not.
    sent_at: AtomicU64,
    tick: AtomicU32,
}

/// A talker, whichever sessions it goes through.
pub(crate) struct Talker {
    /// Whether it is in its meeting and may send.
    pub(crate) talks: AtomicBool,
    /// Where its frames go.
    pub(crate) connection: Mutex<Option<Connection>>,
    sealed: Mutex<VecDeque<Sealed>>,
    /// By tick: when its frame was sent, on the run's clock; 0 when none was.
    sent_at: Box<[AtomicU64]>,
    /// Ticks so far.
    ticks: AtomicU32,
    places: Box<[Place]>,
    shift: Mutex<Option<i16>>,
    /// What its clock still has to move, in µs without sign, for whoever waits until clocks have settled.
    pub(crate) unsettled_micros: AtomicU32,
}

impl Talker {
    /// A talker that ticks so often at most.
    pub(crate) fn new(most_ticks: usize) -> Self {
        Self {
            talks: AtomicBool::new(false),
            connection: Mutex::new(None),
            sealed: Mutex::default(),
            sent_at: (0..most_ticks).map(|_| AtomicU64::new(0)).collect(),
            ticks: AtomicU32::new(0),
            places: (0..PLACES).map(|_| Place::default()).collect(),
            shift: Mutex::new(None),
            unsettled_micros: AtomicU32::new(0),
        }
    }

    // ---- the protocol's thread ----

    /// How many frames wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.sealed).len()
    }

    /// Another frame, sealed ahead.
    pub(crate) fn queue(&self, sealed: Sealed) {
        lock(&self.sealed).push_back(sealed);
    }

    /// It is in no meeting any more.
    pub(crate) fn hang_up(&self) {
        self.talks.store(false, Ordering::Release);
        *lock(&self.connection) = None;
        lock(&self.sealed).clear();
    }

    /// The relay asks for a shift of its clock, in µs.
    pub(crate) fn ask_shift(&self, micros: i16) {
        *lock(&self.shift) = Some(micros);
    }

    // ---- the pacer ----

    /// The shift that was asked for since the last call.
    pub(crate) fn take_shift(&self) -> Option<i16> {
        lock(&self.shift).take()
    }

    /// The next frame.
    pub(crate) fn next_sealed(&self) -> Option<Sealed> {
        lock(&self.sealed).pop_front()
    }

    /// A tick has passed, with a frame or without; gives its number, `None` when the table is full.
    pub(crate) fn tick(&self) -> Option<u32> {
        let tick = self.ticks.load(Ordering::Relaxed);
        if usize::try_from(tick).ok()? >= self.sent_at.len() {
            return None;
        }
        self.ticks.store(tick + 1, Ordering::Release);
        Some(tick)
    }

    /// A frame of this tick goes out now. To be called before it does.
    pub(crate) fn note_sent(&self, tick: u32, name: FrameName, at: u64) {
        self.set_sent_at(tick, at);
        self.places[name.place()].write(name, tick, at);
    }

    /// The frame of that tick and name could not be sent after all.
    pub(crate) fn note_unsent(&self, tick: u32, name: FrameName) {
        self.set_sent_at(tick, 0);
        self.places[name.place()].write(name, tick, 0);
    }

    fn set_sent_at(&self, tick: u32, at: u64) {
        if let Some(place) = usize::try_from(tick).ok().and_then(|tick| self.sent_at.get(tick)) {
            place.store(at, Ordering::Release);
        }
    }

    // ---- listeners ----

    /// The tick of a name, and when its frame was sent.
    pub(crate) fn look_up(&self, name: FrameName) -> Option<(u32, u64)> {
        self.places[name.place()].read(name)
    }

    /// When the frame of a tick was sent.
    pub(crate) fn sent_at(&self, tick: u32) -> Option<u64> {
        let at = self.sent_at.get(usize::try_from(tick).ok()?)?.load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// Ticks so far.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Acquire)
    }
}

impl Default for Place {
    fn default() -> Self {
        Self { name: AtomicU64::new(NOBODY), sent_at: AtomicU64::new(0), tick: AtomicU32::new(0) }
    }
}

impl Place {
    /// It is nobody's while it changes, so that nobody reads one frame's name with another's time.
    fn write(&self, name: FrameName, tick: u32, sent_at: u64) {
        self.name.store(NOBODY, Ordering::Relaxed);
        fence(Ordering::Release);
        self.tick.store(tick, Ordering::Relaxed);
        self.sent_at.store(sent_at, Ordering::Relaxed);
        self.name.store(name.0, Ordering::Release);
    }

    /// The tick of that name, and when its frame was sent, if it is here and was sent.
    fn read(&self, name: FrameName) -> Option<(u32, u64)> {
        if self.name.load(Ordering::Acquire) != name.0 {
            return None;
        }
        let (tick, sent_at) = (self.tick.load(Ordering::Relaxed), self.sent_at.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (self.name.load(Ordering::Relaxed) == name.0 && sent_at != 0).then_some((tick, sent_at))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use conclave_protocol::id::{Epoch, MemberIndex};
    use conclave_protocol::sframe::SegmentNumber;
    use conclave_protocol::sframe::frame::PLAINTEXT_LEN;
    use conclave_protocol::sframe::header::Ctr;
    use conclave_protocol::sframe::suite::TAG_LEN;
    use conclave_protocol::wire::datagram::header;

    /// A datagram with that outside, and nothing within.
    pub(crate) fn datagram(index: u16, epoch: u32, segment: u16, number: u64) -> Vec<u8> {
        let index = MemberIndex(index);
        let kid = KeyName { index, epoch: Epoch::new(epoch).unwrap(), segment: SegmentNumber(segment) }.kid();
        let mut sframe = [0; Header::MAX_LEN];
        let len = Header { kid, ctr: Ctr(CTR_BASE + number) }.encode(&mut sframe);
        [&header(Kind::Media, index), &sframe[..len], &[0; PLAINTEXT_LEN + TAG_LEN][..]].concat()
    }

    #[test]
    fn a_frame_that_was_sent_is_found_by_its_name_and_no_other() {
        let talker = Talker::new(100);
        let name = |number| FrameName::of(&datagram(7, 3, 1, number)).unwrap();
        assert_eq!(name(0).index(), 7);
        let tick = talker.tick().unwrap();
        talker.note_sent(tick, name(0), 1_234);
        assert_eq!(talker.look_up(name(0)), Some((0, 1_234)));
        assert_eq!(talker.look_up(name(1)), None);
        assert_eq!(talker.look_up(FrameName::of(&datagram(8, 3, 1, 0)).unwrap()), None);
        talker.note_unsent(tick, name(0));
        assert_eq!(talker.look_up(name(0)), None);
    }

    #[test]
    fn frames_of_the_last_minute_keep_their_places() {
        let talker = Talker::new(10_000);
        for tick in 0..3_000_u32 {
            let number = talker.tick().unwrap();
            let (segment, within) = (u16::try_from(tick / 25).unwrap(), u64::from(tick % 25));
            let name = FrameName::of(&datagram(1, 5, segment, within)).unwrap();
            talker.note_sent(number, name, u64::from(tick) + 1);
        }
        for tick in 0..3_000_u32 {
            let (segment, within) = (u16::try_from(tick / 25).unwrap(), u64::from(tick % 25));
            let name = FrameName::of(&datagram(1, 5, segment, within)).unwrap();
            assert_eq!(talker.look_up(name), Some((tick, u64::from(tick) + 1)));
        }
    }

    #[test]
    fn what_is_no_frame_has_no_name() {
        let whole = datagram(7, 3, 1, 0);
        assert!(FrameName::of(&whole).is_some());
        for length in 0..13 {
            assert_eq!(FrameName::of(&whole[..length]), None);
        }
        let mut notice = whole;
        notice[0] = 2;
        assert_eq!(FrameName::of(&notice), None);
    }

    #[test]
    fn a_full_table_ticks_no_more() {
        let talker = Talker::new(2);
        assert_eq!([talker.tick(), talker.tick(), talker.tick()], [Some(0), Some(1), None]);
    }
}
