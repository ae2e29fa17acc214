//! Opening: one talker's keys of one epoch at a listener, with replay protection.
//!
//! A KID names exactly one key; nothing is tried with two. Replay is inspected before opening and recorded after,
//! so that a forgery can neither use up a number nor move the keys ahead.

use std::time::{Duration, Instant};

use super::frame::{Frame, PLAINTEXT_LEN};
use super::header::Header;
use super::sender::advance;
use super::suite::{FrameKey, TAG_LEN};
use super::{CTR_BASE, HEADER_LEN, KeyName, SegmentNumber, aad, frames_per_segment};
use crate::epoch::schedule::SenderChainKey;
use crate::id::{Epoch, MeetingId, MemberIndex};

/// How long a segment lasts at the sender.
const SEGMENT: Duration = Duration::from_millis(500);
/// Segments a sender may be ahead of elapsed time (DESIGN §12).
const AHEAD: u64 = 4;
/// Segments kept open for frames that come late: 2 s, more than any frame that could still be played.
const KEPT: usize = 4;
/// Most segments a gap may skip in one step, whatever time has passed: bounds the work that one datagram can ask
/// How often one frame of a talker is tried that is further ahead than time explains: 480 derivations take about half
/// a millisecond, so forgeries cost less than a hundredth of a core.
const LEAP_EVERY: Duration = Duration::from_millis(100);
/// for. Two periodic epochs of 2 minutes.
const MAX_SKIP: u64 = 480;

/// Why a frame was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// Not an SFrame ciphertext of this protocol.
    #[error("not a media frame")]
    Malformed,
    /// Delivered before.
    #[error("a frame came twice")]
    Duplicate,
    /// Its segment is closed.
    #[error("a frame came too late to be opened")]
    TooOld,
    /// Its segment lies further ahead than time allows.
    #[error("a frame is ahead of its time")]
    TooNew,
    /// No key: another epoch, or a sender who is no member.
    #[error("a frame of an unknown sender or epoch")]
    UnknownKey,
    /// Does not authenticate.
    #[error("a frame does not authenticate")]
    Unauthentic,
    /// Of a talker who has not confirmed for too long that it sees the same meeting.
    #[error("a frame of somebody who does not confirm the meeting's state")]
    Unconfirmed,
}

/// A ciphertext's parts, read but not believed.
#[derive(Clone, Copy)]
pub struct Ciphertext<'a> {
    /// The key it names.
    pub name: KeyName,
    number: u8,
    header: &'a [u8; HEADER_LEN],
    body: &'a [u8; PLAINTEXT_LEN],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Ciphertext<'a> {
    /// Splits an SFrame ciphertext. It must have the one length and header form that this protocol uses.
    ///
    /// # Errors
    /// [`Dropped::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Dropped> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Dropped::Malformed)?;
        let (body, tag) = rest.split_first_chunk::<PLAINTEXT_LEN>().ok_or(Dropped::Malformed)?;
        let tag = tag.try_into().map_err(|_| Dropped::Malformed)?;
        let (parsed, len) = Header::decode(header).map_err(|_| Dropped::Malformed)?;
        let name = KeyName::of(parsed.kid).ok_or(Dropped::Malformed)?;
        let number = parsed.ctr.0.checked_sub(CTR_BASE).and_then(|n| u8::try_from(n).ok());
        match number {
            Some(number) if len == HEADER_LEN => Ok(Self { name, number, header, body, tag }),
            _ => Err(Dropped::Malformed),
        }
    }
}

struct OpenSegment {
    segment: SegmentNumber,
    key: FrameKey,
    /// Bit n is set when frame n was delivered; a segment has at most 50.
    delivered: u64,
}

/// Opens one talker's frames of one epoch.
pub struct Opener {
    meeting: MeetingId,
    index: MemberIndex,
    epoch: Epoch,
    /// CK of segment `next`.
    chain: SenderChainKey,
    next: u32,
    last_progress: Instant,
    /// When a frame was last tried that was further ahead than time explains.
    last_leap: Option<Instant>,
    segments: [Option<OpenSegment>; KEPT],
    per_segment: u8,
}

impl Opener {
    /// Starts before segment 0, with CK_0 received at `now`.
    pub fn new(
        meeting: MeetingId,
        index: MemberIndex,
        epoch: Epoch,
        chain: SenderChainKey,
        frame_ms: u8,
        now: Instant,
    ) -> Self {
        let per_segment = frames_per_segment(frame_ms);
        Self {
            meeting,
            index,
            epoch,
            chain,
            next: 0,
            last_progress: now,
            last_leap: None,
            segments: Default::default(),
            per_segment,
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Opens a frame into `plaintext` and returns it. Allocates nothing; nothing changes unless it opens.
    ///
    /// # Errors
    /// [`Dropped`].
    pub fn open<'p>(
        &mut self,
        frame: &Ciphertext<'_>,
        now: Instant,
        plaintext: &'p mut [u8; PLAINTEXT_LEN],
    ) -> Result<Frame<'p>, Dropped> {
        if frame.name.index != self.index || frame.name.epoch != self.epoch {
            return Err(Dropped::UnknownKey);
        }
        if frame.number >= self.per_segment {
            return Err(Dropped::Malformed);
        }
        plaintext.copy_from_slice(frame.body);
        if u32::from(frame.name.segment.0) < self.next {
            self.open_kept(frame, plaintext)?;
        } else {
            self.open_ahead(frame, now, plaintext)?;
        }
        Frame::read(plaintext).ok_or(Dropped::Malformed)
    }

    fn open_kept(&mut self, frame: &Ciphertext<'_>, plaintext: &mut [u8; PLAINTEXT_LEN]) -> Result<(), Dropped> {
        let slot = &mut self.segments[usize::from(frame.name.segment.0) % KEPT];
        let open = slot.as_mut().filter(|s| s.segment == frame.name.segment).ok_or(Dropped::TooOld)?;
        let bit = 1 << frame.number;
        if open.delivered & bit != 0 {
            return Err(Dropped::Duplicate);
        }
        open_with(&open.key, frame, &self.meeting, plaintext)?;
        open.delivered |= bit;
        Ok(())
    }

    fn open_ahead(
        &mut self,
        frame: &Ciphertext<'_>,
        now: Instant,
        plaintext: &mut [u8; PLAINTEXT_LEN],
    ) -> Result<(), Dropped> {
        let segment = u32::from(frame.name.segment.0);
        let elapsed = now.saturating_duration_since(self.last_progress).as_millis() / SEGMENT.as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(MAX_SKIP);
        // Before the first frame nothing says when the sender began: the key may have come long after that.
        let elapsed = if self.next == 0 { MAX_SKIP } else { elapsed };
        let allowed = elapsed.saturating_add(AHEAD).min(MAX_SKIP);
        let ahead = u64::from(segment - self.next);
        if ahead > MAX_SKIP || (ahead > allowed && !self.may_leap(now)) {
            return Err(Dropped::TooNew);
        }
        let mut skipped: [Option<OpenSegment>; KEPT] = Default::default();
        let mut chain = self.chain.duplicate();
        for number in self.next..=segment {
            // `segment` came from 16 bits, so every number up to it fits.
            let name = KeyName { segment: SegmentNumber(number as u16), ..frame.name };
            if number + (KEPT as u32) > segment {
                let (key, next) = advance(name, &chain);
                skipped[number as usize % KEPT] = Some(OpenSegment { segment: name.segment, key, delivered: 0 });
                chain = next;
            } else {
                chain = crate::epoch::schedule::next_chain(&chain);
            }
        }
        let open = skipped[segment as usize % KEPT].as_mut().ok_or(Dropped::TooNew)?;
        open_with(&open.key, frame, &self.meeting, plaintext)?;
        open.delivered |= 1 << frame.number;
        for (kept, new) in self.segments.iter_mut().zip(skipped) {
            if new.is_some() {
                *kept = new;
            }
        }
        self.chain = chain;
        self.next = segment + 1;
        self.last_progress = now;
        Ok(())
    }
}

impl Opener {
    /// Whether a frame may be tried that is further ahead than time explains. Old frames that come all at once after a
    /// stall make the newest segment look young, and then every honest frame is; so one is tried now and then.
    fn may_leap(&mut self, now: Instant) -> bool {
        let may = self.last_leap.is_none_or(|last| now.saturating_duration_since(last) >= LEAP_EVERY);
        if may {
            self.last_leap = Some(now);
        }
        may
    }
}

fn open_with(
    key: &FrameKey,
    frame: &Ciphertext<'_>,
    meeting: &MeetingId,
    plaintext: &mut [u8; PLAINTEXT_LEN],
) -> Result<(), Dropped> {
    let ctr = super::header::Ctr(CTR_BASE + u64::from(frame.number));
    let aad = aad(frame.header, meeting, frame.name.index);
    key.open_in_place(ctr, &aad, plaintext, frame.tag).map_err(|_| Dropped::Unauthentic)
}

#[cfg(test)]
mod tests {
    use super::super::frame::{DATAGRAM_LEN, Microphone};
    use super::super::sender::Sealer;
    use super::*;
    use crate::secret::Secret;
    use crate::wire::datagram;

    const MEETING: MeetingId = MeetingId([7; 20]);

    fn pair(now: Instant) -> (Sealer, Opener) {
        let epoch = Epoch::new(3).expect("small");
        let sealer = Sealer::new(MEETING, MemberIndex(5), epoch, Secret::new([9; 32]), 20);
        (sealer, Opener::new(MEETING, MemberIndex(5), epoch, Secret::new([9; 32]), 20, now))
    }

    fn sealed(sealer: &mut Sealer, seq: u32) -> [u8; DATAGRAM_LEN] {
        let mut out = [0; DATAGRAM_LEN];
        let opus = [seq as u8; 80];
        let frame = Frame { seq, stamp: 1, microphone: Microphone::On, level: 20, opus: &opus };
        sealer.seal(&frame, &mut out).expect("segments are left");
        out
    }

    fn open(opener: &mut Opener, bytes: &[u8], now: Instant) -> Result<u32, Dropped> {
        let mut plaintext = [0; PLAINTEXT_LEN];
        let ciphertext = Ciphertext::parse(&bytes[datagram::HEADER_LEN..])?;
        opener.open(&ciphertext, now, &mut plaintext).map(|frame| frame.seq)
    }

    #[test]
    fn frames_open_once_in_any_order_within_two_seconds() {
        let now = Instant::now();
        let (mut sealer, mut opener) = pair(now);
        let frames: Vec<_> = (0..100).map(|i| sealed(&mut sealer, i)).collect();
        for i in (0..100u32).rev() {
            assert_eq!(open(&mut opener, &frames[i as usize], now), Ok(i));
        }
        for frame in &frames {
            assert_eq!(open(&mut opener, frame, now), Err(Dropped::Duplicate));
        }
    }

    #[test]
    fn a_forged_frame_moves_nothing() {
        let now = Instant::now();
        let (mut sealer, mut opener) = pair(now);
        let frames: Vec<_> = (0..75).map(|i| sealed(&mut sealer, i)).collect();
        let mut forged = frames[74];
        forged[DATAGRAM_LEN - 1] ^= 1;
        assert_eq!(open(&mut opener, &forged, now), Err(Dropped::Unauthentic));
        assert_eq!(open(&mut opener, &frames[0], now), Ok(0));
        for byte in 3..DATAGRAM_LEN {
            let mut forged = frames[1];
            forged[byte] ^= 0x10;
            assert!(open(&mut opener, &forged, now).is_err(), "byte {byte}");
        }
        assert_eq!(open(&mut opener, &frames[1], now), Ok(1));
    }

    #[test]
    fn segments_may_be_skipped_only_as_far_as_time_has_passed() {
        let now = Instant::now();
        let (mut sealer, mut opener) = pair(now);
        let frames: Vec<_> = (0..1000).map(|i| sealed(&mut sealer, i)).collect();
        assert_eq!(open(&mut opener, &frames[0], now), Ok(0));
        leap_in_vain(&mut opener, &frames[999], now);
        assert_eq!(open(&mut opener, &frames[6 * 25], now), Err(Dropped::TooNew));
        assert_eq!(open(&mut opener, &frames[5 * 25], now), Ok(125));
        let later = now + Duration::from_secs(10);
        leap_in_vain(&mut opener, &frames[999], later);
        assert_eq!(open(&mut opener, &frames[31 * 25], later), Err(Dropped::TooNew));
        assert_eq!(open(&mut opener, &frames[30 * 25], later), Ok(750));
        assert_eq!(open(&mut opener, &frames[126], later), Err(Dropped::TooOld));
    }

    /// Uses up the one leap that is tried at a time, on a frame that does not open.
    fn leap_in_vain(opener: &mut Opener, frame: &[u8; DATAGRAM_LEN], now: Instant) {
        let mut forged = *frame;
        forged[DATAGRAM_LEN - 1] ^= 1;
        assert_eq!(open(opener, &forged, now), Err(Dropped::Unauthentic));
    }

    #[test]
    fn old_frames_that_come_all_at_once_do_not_make_the_next_ones_too_new() {
        let now = Instant::now();
        let (mut sealer, mut opener) = pair(now);
        let frames: Vec<_> = (0..1000).map(|i| sealed(&mut sealer, i)).collect();
        assert_eq!(open(&mut opener, &frames[0], now), Ok(0));
        // The listener was held up for 15 s, finds what came in the first second of that, and then what comes now.
        let later = now + Duration::from_secs(15);
        assert_eq!(open(&mut opener, &frames[50], later), Ok(50));
        assert_eq!(open(&mut opener, &frames[750], later), Ok(750));
        assert_eq!(open(&mut opener, &frames[751], later), Ok(751));
    }

    #[test]
    fn first_frame_of_a_sender_may_be_any_that_the_bound_on_work_allows() {
        let now = Instant::now();
        let (mut sealer, mut opener) = pair(now);
        let last = u32::try_from(MAX_SKIP).expect("small") * 25;
        let frames: Vec<_> = (0..=last + 25).map(|i| sealed(&mut sealer, i)).collect();
        assert_eq!(open(&mut opener, &frames[last as usize + 25], now), Err(Dropped::TooNew));
        assert_eq!(open(&mut opener, &frames[last as usize], now), Ok(last));
    }
}
