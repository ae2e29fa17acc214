//! The evidence ring: the last minutes of everybody's ciphertext, seals, stamps and segment keys (`docs/protocol.md`
//! §10.2). In memory only, never more than [`MAX_BYTES`], and erased a while after the end.
//!
//! It holds no epoch secret and no chain key: what it gives away of the chosen seconds opens nothing else. It outlives
//! the part that its owner plays in the meeting, so that nobody escapes a report by leaving or by ending the meeting.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::segment::{Frames, Segment};
use super::{EpochProof, Exhibit, FrameBytes};
use crate::descriptor::Descriptor;
use crate::epoch::merkle;
use crate::epoch::roster::{Member, Roster};
use crate::epoch::schedule::SegmentKey;
use crate::epoch::witness::Witnessed;
use crate::id::{MeetingId, MemberIndex};
use crate::identity::DisplayName;
use crate::sframe::{KeyName, frames_per_segment};
use crate::stamp::Stamp;
use crate::succession::Line;

/// For how long what was said can be shown (DESIGN §8).
pub const KEPT: Duration = Duration::from_secs(300);
/// For how long after the end it can still be shown (DESIGN §12).
pub const KEPT_AFTER_END: Duration = Duration::from_secs(120);
/// Most memory that a ring takes (DESIGN §12): all that sixteen talkers say takes a little more than half of it,
/// with frames of 10 ms twice as much.
pub const MAX_BYTES: usize = 64 << 20;
/// The shortest stretch that can be reported.
pub const MIN_LENGTH: Duration = Duration::from_secs(1);
/// The longest (DESIGN §8).
pub const MAX_LENGTH: Duration = Duration::from_secs(40);
/// A segment whose seal has not come after so long is dropped; one that is late by more than 1.5 s is an exception.
const UNSEALED_FOR: Duration = Duration::from_secs(30);
/// Epochs whose frames may still come: the current one and the two before.
const CURRENT: usize = 3;
/// Buffers for frames that are kept ready, so that the media path allocates nothing: a second of sixteen talkers, 90 KiB
/// at 20 ms. Each seal that comes fills the stock up again.
const SPARE: usize = 32;
/// Segments for which a talker gets room at once: half a minute.
const ROOM: usize = 64;
/// Between two looks for what is too old.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which seconds: the `length` that ended `ago` before now; once the meeting is over, before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// From the window's end to now.
    pub ago: Duration,
    /// From the window's beginning to its end, [`MIN_LENGTH`] to [`MAX_LENGTH`].
    pub length: Duration,
}

impl Window {
    /// Whether a ring could hold these seconds.
    pub fn is_valid(&self) -> bool {
        let within = self.ago.checked_add(self.length).is_some_and(|begin| begin <= KEPT);
        within && (MIN_LENGTH..=MAX_LENGTH).contains(&self.length)
    }
}

impl Default for Window {
    /// The last 20 s (DESIGN §8).
    fn default() -> Self {
        Self { ago: Duration::ZERO, length: Duration::from_secs(20) }
    }
}

/// Why there is no evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoEvidence {
    /// The seconds asked for are too many, too few or too long ago.
    #[error("choose 1 to 40 seconds of the last 5 minutes")]
    Window,
    /// Nobody of that index was heard in the last minutes.
    #[error("nobody with that number was in the meeting in the last 5 minutes")]
    NoSuchMember,
    /// Nothing that was heard of the member in those seconds carries its seal.
    #[error("this member said nothing in those seconds that can be proved")]
    Nothing,
    /// What was kept is erased.
    #[error("the meeting has been over for more than 2 minutes: what was said is erased")]
    Erased,
}

/// What was signed of an epoch and of its roster.
struct Record {
    serial: u32,
    shown: Witnessed,
    /// When the leader is not the host.
    line: Option<Line>,
    indexes: Vec<MemberIndex>,
    leaves: Vec<[u8; 32]>,
    /// Segments that need it.
    held: usize,
}

impl Record {
    fn bytes(&self) -> usize {
        let line = self.line.as_ref().map_or(0, |line| line.delegates.len() * 66);
        size_of::<Self>() + line + self.leaves.len() * (32 + size_of::<MemberIndex>())
    }

    fn proof(&self, index: MemberIndex) -> Option<EpochProof> {
        let position = self.indexes.binary_search(&index).ok()?;
        let Witnessed { previous, statement, signature } = self.shown.clone();
        Some(EpochProof {
            previous,
            statement,
            signature,
            line: self.line.clone(),
            // An index has 16 bits, and there is no more than one member of each.
            position: position as u16,
            count: self.leaves.len() as u16,
            path: merkle::open(&self.leaves, position),
        })
    }
}

struct Talker {
    member: Member,
    is_here: bool,
    /// By record and number, the oldest first.
    segments: VecDeque<Segment>,
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub struct Ring {
    descriptor: Option<Descriptor>,
    meeting: Option<MeetingId>,
    talkers: BTreeMap<MemberIndex, Talker>,
    records: VecDeque<Record>,
    next_serial: u32,
    /// Of segments.
    bytes: usize,
    /// Of records.
    record_bytes: usize,
    spare: Vec<Frames>,
    looked: Option<Instant>,
    ended: Option<Instant>,
    erased: bool,
}

impl Ring {
    // ---- what happens ----

    /// This member, `me`, has taken an epoch that its seat has verified: whatever is heard in it can be proved.
    pub fn on_epoch(
        &mut self,
        me: MemberIndex,
        descriptor: &Descriptor,
        shown: &Witnessed,
        line: Option<&Line>,
        roster: &Roster,
    ) {
        if self.ended.is_some() {
            return;
        }
        if self.descriptor.is_none() {
            self.descriptor = Some(descriptor.clone());
            self.meeting = Some(descriptor.meeting_id());
        }
        let line = line.filter(|_| shown.statement.leader != MemberIndex::HOST).cloned();
        let indexes = roster.members().map(|member| member.index).collect();
        let serial = self.next_serial;
        let record = Record { serial, shown: shown.clone(), line, indexes, leaves: roster.leaves(), held: 0 };
        self.next_serial += 1;
        self.record_bytes += record.bytes();
        self.records.push_back(record);
        self.follow(me, roster);
        self.drop_records();
        self.make_room();
        self.stock();
    }

    fn follow(&mut self, me: MemberIndex, roster: &Roster) {
        for (index, talker) in &mut self.talkers {
            talker.is_here = roster.member(*index) == Some(&talker.member);
        }
        for member in roster.members().filter(|member| member.index != me) {
            let talker = self.talkers.get(&member.index);
            if talker.is_none_or(|talker| !talker.is_here) {
                // An index is given once in a meeting. Should a host start over, the newcomer takes the place.
                self.forget(member.index);
                let talker = Talker { member: member.clone(), is_here: true, segments: VecDeque::new(), bytes: 0 };
                self.talkers.insert(member.index, talker);
            }
        }
        self.talkers.retain(|_, talker| talker.is_here || !talker.segments.is_empty());
    }

    /// A frame has opened. `muted`: it holds no sound and says so. Allocates nothing, as long as other things happen
    /// between the segments, and once for a segment otherwise.
    pub fn on_frame(
        &mut self,
        now: Instant,
        index: MemberIndex,
        name: KeyName,
        number: u8,
        frame: &FrameBytes,
        muted: bool,
    ) {
        let (Some(serial), Some(descriptor)) = (self.serial_of(name), &self.descriptor) else { return };
        let frame_ms = descriptor.frame_ms;
        if name.index != index || number >= frames_per_segment(frame_ms) || self.ended.is_some() {
            return;
        }
        let Some(talker) = self.talkers.get_mut(&index) else { return };
        let key = (serial, name.segment);
        let place = match talker.segments.binary_search_by_key(&key, Segment::order) {
            Ok(place) => place,
            Err(place) => {
                let per_segment = usize::from(frames_per_segment(frame_ms));
                let frames = self.spare.pop().unwrap_or_else(|| Frames::with_capacity(per_segment));
                let segment = Segment::new(now, serial, name, frame_ms, frames);
                if talker.segments.capacity() == 0 {
                    talker.segments.reserve(ROOM);
                }
                talker.bytes += segment.bytes();
                self.bytes += segment.bytes();
                talker.segments.insert(place, segment);
                if let Some(record) = record_mut(&mut self.records, serial) {
                    record.held += 1;
                }
                place
            }
        };
        if let (Some(segment), Some(meeting)) = (talker.segments.get_mut(place), &self.meeting) {
            let before = segment.bytes();
            segment.on_frame(now, meeting, number, frame, muted);
            let more = segment.bytes() - before;
            talker.bytes += more;
            self.bytes += more;
        }
        self.make_room();
    }

    /// A seal has been verified, with SK_i of its segment; the relay stamped it, as far as is known.
    pub fn on_seal(
        &mut self,
        now: Instant,
        index: MemberIndex,
        name: KeyName,
        key: &SegmentKey,
        seal: &[u8],
        stamp: Option<Stamp>,
    ) {
        let (Some(serial), Some(meeting)) = (self.serial_of(name), self.meeting) else { return };
        let Some(talker) = self.talkers.get_mut(&index) else { return };
        let Ok(place) = talker.segments.binary_search_by_key(&(serial, name.segment), Segment::order) else { return };
        let Some(segment) = talker.segments.get_mut(place) else { return };
        let before = segment.bytes();
        let holds = segment.on_seal(&meeting, key, seal, stamp);
        let after = segment.bytes();
        talker.bytes = talker.bytes + after - before;
        self.bytes = self.bytes + after - before;
        if !holds {
            self.drop_segment(index, place);
        }
        self.make_room();
        self.expire(now);
        self.stock();
    }

    /// The meeting is over for this member.
    pub fn on_end(&mut self, now: Instant) {
        let ended = *self.ended.get_or_insert(now);
        if self.bytes == 0 {
            self.erase(ended);
        }
    }

    fn erase(&mut self, ended: Instant) {
        *self = Self { ended: Some(ended), erased: true, ..Self::default() };
    }

    /// Drops what is too old; cheap when there is nothing to do.
    pub fn expire(&mut self, now: Instant) {
        if let Some(ended) = self.ended.filter(|ended| *ended + KEPT_AFTER_END <= now) {
            return self.erase(ended);
        }
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let is_old = |segment: &Segment| {
            let age = now.saturating_duration_since(segment.began());
            age > KEPT || (age > UNSEALED_FOR && !segment.is_sealed())
        };
        let indexes: Vec<MemberIndex> = self.talkers.keys().copied().collect();
        for index in indexes {
            while let Some(place) = self.talkers.get(&index).and_then(|talker| talker.segments.iter().position(is_old))
            {
                self.drop_segment(index, place);
            }
        }
        self.talkers.retain(|_, talker| talker.is_here || !talker.segments.is_empty());
        self.drop_records();
        self.stock();
    }

    /// When everything is erased, once the meeting is over.
    pub fn erase_due(&self) -> Option<Instant> {
        self.ended.filter(|_| !self.erased).map(|ended| ended + KEPT_AFTER_END)
    }

    // ---- what can be shown ----

    /// Everybody of whom something can be proved, also those who have left, and how much.
    pub fn reportable(&self) -> impl Iterator<Item = (MemberIndex, &DisplayName, Duration)> {
        self.talkers.iter().filter_map(|(index, talker)| {
            let held: Duration = talker.segments.iter().map(Segment::provable).sum();
            (!held.is_zero()).then_some((*index, &talker.member.name, held))
        })
    }

    /// When the newest segment of a member that can be proved was over.
    pub fn last_heard(&self, index: MemberIndex) -> Option<Instant> {
        let talker = self.talkers.get(&index)?;
        talker.segments.iter().rev().find(|segment| segment.is_sealed()).map(Segment::over)
    }

    /// The member of an index that was in the meeting lately, as the roster had it.
    pub fn member(&self, index: MemberIndex) -> Option<&Member> {
        self.talkers.get(&index).map(|talker| &talker.member)
    }

    /// How much memory the ring takes, in bytes.
    pub fn bytes(&self) -> usize {
        let spare: usize = self.spare.iter().map(|frames| frames.capacity() * size_of::<(u8, FrameBytes)>()).sum();
        self.bytes + self.record_bytes + spare
    }

    /// What proves what a member said in the window: the segments whose middle lies in it, and what they need.
    ///
    /// # Errors
    /// [`NoEvidence`].
    pub fn exhibit(&self, now: Instant, index: MemberIndex, window: Window) -> Result<Exhibit, NoEvidence> {
        if !window.is_valid() {
            return Err(NoEvidence::Window);
        }
        if self.erased || self.erase_due().is_some_and(|due| due <= now) {
            return Err(NoEvidence::Erased);
        }
        let now = self.ended.map_or(now, |ended| ended.min(now));
        let talker = self.talkers.get(&index).ok_or(NoEvidence::NoSuchMember)?;
        let is_chosen = |segment: &&Segment| {
            let age = now.checked_duration_since(segment.middle());
            age.is_some_and(|age| window.ago <= age && age < window.ago + window.length)
        };
        let (mut epochs, mut segments, mut last) = (Vec::new(), Vec::new(), None);
        for segment in talker.segments.iter().filter(is_chosen) {
            let Some(proof) = segment.proof() else { continue };
            let (serial, _) = segment.order();
            if last.replace(serial) != Some(serial) {
                let record = record(&self.records, serial).ok_or(NoEvidence::Nothing)?;
                epochs.push(record.proof(index).ok_or(NoEvidence::Nothing)?);
            }
            segments.push(proof);
        }
        let descriptor = self.descriptor.clone().ok_or(NoEvidence::NoSuchMember)?;
        if segments.is_empty() {
            return Err(NoEvidence::Nothing);
        }
        Ok(Exhibit { descriptor, accused: talker.member.clone(), epochs, segments })
    }

    // ---- inside ----

    /// The newest record of an epoch: after a meeting that had split, two may have the same number.
    fn serial_of(&self, name: KeyName) -> Option<u32> {
        let mut records = self.records.iter().rev().take(CURRENT);
        records.find(|record| record.shown.statement.epoch == name.epoch).map(|record| record.serial)
    }

    fn drop_segment(&mut self, index: MemberIndex, place: usize) {
        let Some(talker) = self.talkers.get_mut(&index) else { return };
        let Some(segment) = talker.segments.remove(place) else { return };
        talker.bytes -= segment.bytes();
        self.bytes -= segment.bytes();
        if let Some(record) = record_mut(&mut self.records, segment.order().0) {
            record.held -= 1;
        }
        if self.spare.len() < SPARE {
            self.spare.extend(segment.into_buffer());
        }
    }

    /// Has buffers ready for the segments to come, and room to keep them.
    fn stock(&mut self) {
        let Some(descriptor) = self.descriptor.as_ref().filter(|_| self.ended.is_none()) else { return };
        let per_segment = usize::from(frames_per_segment(descriptor.frame_ms));
        while self.spare.len() < SPARE {
            self.spare.push(Frames::with_capacity(per_segment));
        }
    }

    fn forget(&mut self, index: MemberIndex) {
        while self.talkers.get(&index).is_some_and(|talker| !talker.segments.is_empty()) {
            self.drop_segment(index, 0);
        }
        self.talkers.remove(&index);
    }

    /// Drops records that no segment needs and whose frames do not come any more.
    fn drop_records(&mut self) {
        let newest = self.next_serial.saturating_sub(CURRENT as u32);
        self.records.retain(|record| record.held > 0 || record.serial >= newest);
        self.record_bytes = self.records.iter().map(Record::bytes).sum();
    }

    /// Takes the oldest segment of whoever holds most, until there is room: who talks most cannot push out the others.
    fn make_room(&mut self) {
        while self.bytes() > MAX_BYTES {
            let most = self.talkers.iter().max_by_key(|(_, talker)| talker.bytes).map(|(index, _)| *index);
            let Some(index) = most.filter(|_| self.bytes > 0) else { return };
            self.drop_segment(index, 0);
            self.drop_records();
        }
    }
}

fn record(records: &VecDeque<Record>, serial: u32) -> Option<&Record> {
    let place = records.binary_search_by_key(&serial, |record| record.serial).ok()?;
    records.get(place)
}

fn record_mut(records: &mut VecDeque<Record>, serial: u32) -> Option<&mut Record> {
    let place = records.binary_search_by_key(&serial, |record| record.serial).ok()?;
    records.get_mut(place)
}
