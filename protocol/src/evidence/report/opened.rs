//! What the accused said, once it is opened, and where in time it belongs.

use zeroize::Zeroizing;

use crate::evidence::{Exhibit, SegmentProof};
use crate::id::MeetingId;
use crate::seal::SealBody;
use crate::sframe::frame::{Microphone, PLAINTEXT_LEN};
use crate::sframe::{KeyName, kept};
use crate::stamp::Stamp;

/// One segment, opened.
pub struct SaidSegment {
    /// Which.
    pub name: KeyName,
    /// Frames that the accused sent in it, as its seal says.
    pub sent: u8,
    /// The frames that the report holds, by number.
    pub frames: Vec<SaidFrame>,
    /// The stamp, whatever it is worth.
    pub stamp: Option<Stamp>,
}

/// One frame, opened.
pub struct SaidFrame {
    /// Its place in the segment.
    pub number: u8,
    /// Tick of the accused's frame clock.
    pub seq: u32,
    /// Level below full scale in dB, 0 to 127, as the accused's client said.
    pub level: u8,
    /// Whether the microphone was on.
    pub microphone: Microphone,
    /// The Opus packet; empty while muted.
    pub opus: Zeroizing<Vec<u8>>,
}

/// Opens all frames of an exhibit whose seals are verified; `None` when one is not what its seal lists, or no frame.
pub(super) fn open_frames(exhibit: &Exhibit, meeting: MeetingId, seals: &[SealBody]) -> Option<Vec<SaidSegment>> {
    exhibit.segments.iter().zip(seals).map(|(segment, seal)| open_segment(segment, meeting, seal)).collect()
}

fn open_segment(segment: &SegmentProof, meeting: MeetingId, seal: &SealBody) -> Option<SaidSegment> {
    let mut frames: Vec<SaidFrame> = Vec::with_capacity(segment.frames.len());
    for (number, bytes) in &segment.frames {
        let is_next = frames.last().is_none_or(|last| last.number < *number);
        let is_listed = seal.hashes.get(usize::from(*number)) == Some(&kept::hash(segment.name, *number, bytes));
        if !is_next || !is_listed {
            return None;
        }
        let mut plaintext = Zeroizing::new([0; PLAINTEXT_LEN]);
        let frame = kept::open(&meeting, segment.name, &segment.key, (*number, bytes), &mut plaintext)?;
        frames.push(SaidFrame {
            number: *number,
            seq: frame.seq,
            level: frame.level,
            microphone: frame.microphone,
            opus: Zeroizing::new(frame.opus.to_vec()),
        });
    }
    Some(SaidSegment { name: segment.name, sent: seal.public.count, frames, stamp: segment.stamp })
}

/// Longest time between the first and the last frame that are put where the accused's clock says, in ms: what a ring
/// holds (DESIGN §8).
const LONGEST_MS: u32 = 300_000;

/// Where everything belongs, in frames from the beginning of the first segment.
///
/// The accused's frame clock gives the places. It is the accused's word: where it runs backwards, stands still, or
/// leaps further than a report can reach, the next frame follows at once and the place is noted, so that nobody
/// escapes by a strange clock.
pub struct Timeline<'a> {
    /// Duration of a frame, in ms.
    pub frame_ms: u8,
    /// Length in frames.
    pub length: u32,
    /// Every frame that is there and its place, ascending.
    pub frames: Vec<(u32, &'a SaidFrame)>,
    /// From where to where each segment reaches.
    pub segments: Vec<(u32, u32)>,
    /// Stretches of which there is nothing, from and to: lost on the way, left out, or not sent.
    pub gaps: Vec<(u32, u32)>,
    /// Places where the accused's clock is not to be believed.
    pub breaks: Vec<u32>,
}

impl<'a> Timeline<'a> {
    /// The places of all that was said.
    pub fn of(said: &'a [SaidSegment], frame_ms: u8) -> Self {
        let mut timeline = Self {
            frame_ms,
            length: 0,
            frames: Vec::new(),
            segments: Vec::new(),
            gaps: Vec::new(),
            breaks: Vec::new(),
        };
        let mut last: Option<(u32, u32)> = None;
        for segment in said {
            timeline.place_segment(segment, &mut last);
        }
        timeline.find_gaps();
        timeline
    }

    /// Places one segment; `last` is place and tick of the frame before.
    fn place_segment(&mut self, segment: &'a SaidSegment, last: &mut Option<(u32, u32)>) {
        let from = self.length;
        let mut begin = None;
        for frame in &segment.frames {
            let place = match *last {
                None => from + u32::from(frame.number),
                Some((place, seq)) => self.after(place, seq, frame),
            };
            begin.get_or_insert(place.saturating_sub(u32::from(frame.number)).max(from));
            *last = Some((place, frame.seq));
            self.frames.push((place, frame));
            self.length = self.length.max(place + 1);
        }
        let missing = segment.frames.last().map_or(segment.sent, |frame| segment.sent - 1 - frame.number);
        self.length += u32::from(missing);
        self.segments.push((begin.unwrap_or(from), self.length));
    }

    fn after(&mut self, place: u32, seq: u32, frame: &SaidFrame) -> u32 {
        let ticks = frame.seq.wrapping_sub(seq);
        let longest = LONGEST_MS / u32::from(self.frame_ms.max(1));
        match place.checked_add(ticks) {
            Some(next) if ticks > 0 && next <= longest => next,
            _ => {
                self.breaks.push(place + 1);
                place + 1
            }
        }
    }

    fn find_gaps(&mut self) {
        let mut free = 0;
        for (place, _) in &self.frames {
            if *place > free {
                self.gaps.push((free, *place));
            }
            free = place + 1;
        }
        if self.length > free {
            self.gaps.push((free, self.length));
        }
    }
}
