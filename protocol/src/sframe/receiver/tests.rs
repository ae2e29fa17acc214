use super::*;
use crate::epoch::statement::ChainHash;
use crate::seal::{SealBody, Sealed};
use crate::secret::Secret;
use crate::sframe::frame::{DATAGRAM_LEN, Microphone};
use crate::sframe::sender::Sealer;
use crate::sign::KeyPair;
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
    let opened = opener.open(&ciphertext, Play::AtOnce, now, &mut plaintext)?;
    Ok(opened.expect("is played at once").seq)
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
    // Eight segments from the last one that a seal vouched for on are expected in any case.
    assert_eq!(open(&mut opener, &frames[8 * 25], now), Err(Dropped::TooNew));
    assert_eq!(open(&mut opener, &frames[7 * 25], now), Ok(175));
    let later = now + Duration::from_secs(10);
    leap_in_vain(&mut opener, &frames[999], later);
    assert_eq!(open(&mut opener, &frames[33 * 25], later), Err(Dropped::TooNew));
    assert_eq!(open(&mut opener, &frames[32 * 25], later), Ok(800));
    assert_eq!(open(&mut opener, &frames[8 * 25], later), Err(Dropped::TooOld));
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

#[test]
fn what_was_played_ahead_of_the_seals_is_not_played_again_when_they_come() {
    let mut now = Instant::now();
    let (mut sealer, mut opener) = pair(now);
    let frames: Vec<_> = (0..20 * 25).map(|i| sealed(&mut sealer, i)).collect();
    for (i, frame) in (0..).zip(&frames) {
        now += Duration::from_millis(20);
        assert_eq!(open(&mut opener, frame, now), Ok(i));
    }
    // The seals of the first eight segments come late: those after them are trusted now.
    for segment in 0..8u16 {
        let name = KeyName { index: MemberIndex(5), epoch: opener.epoch(), segment: SegmentNumber(segment) };
        let key = opener.segment_key(name.segment, now).expect("near");
        let first = usize::from(segment) * 25;
        let hashes: Vec<_> =
            frames[first..first + 25].iter().map(|frame| frame_hash(&frame[datagram::HEADER_LEN..])).collect();
        let (chain, sealing) = (ChainHash([1; 32]), KeyPair::from_seed(&[2; 32]));
        let sealed = Sealed {
            meeting: &MEETING,
            chain: &chain,
            name,
            key: &key,
            hashes: &hashes,
            prev: [0; 32],
            per_segment: 25,
        };
        let (seal, head) = sealed.sign(&sealing);
        let body = SealBody::open(&seal, &MEETING, &key, 25).expect("a seal");
        opener.vouch(name, head, body, now);
    }
    for frame in &frames {
        assert!(matches!(open(&mut opener, frame, now), Err(Dropped::Duplicate | Dropped::TooOld)));
    }
    let Findings { injected, missed } = opener.take_findings();
    assert!(!injected && missed.is_some_and(|newest| newest <= now));
}
