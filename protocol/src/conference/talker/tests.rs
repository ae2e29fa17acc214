//! A talker, its listener, and an insider who has all of the talker's media keys but not its sealing key.

use super::*;
use crate::seal::Sealed;
use crate::secret::Secret;
use crate::sframe::frame::{DATAGRAM_LEN, Frame, Microphone};
use crate::sframe::receiver::{Ciphertext, Dropped};
use crate::sframe::sender::{Closed, Sealer};
use crate::sign::KeyPair;
use crate::wire::datagram;

const MEETING: MeetingId = MeetingId([7; 20]);
const CHAIN: ChainHash = ChainHash([4; 32]);
const TALKER: MemberIndex = MemberIndex(5);
const FRAME: Duration = Duration::from_millis(20);

/// Who seals frames under the talker's media keys: the talker, or somebody who forges them.
struct Mouth {
    sealer: Sealer,
    sound: u8,
    prev: [u8; 32],
}

impl Mouth {
    fn new(sound: u8) -> Self {
        let epoch = Epoch::new(3).expect("small");
        Self { sealer: Sealer::new(MEETING, TALKER, epoch, Secret::new([9; 32]), 20), sound, prev: [0; 32] }
    }

    fn frame(&mut self) -> [u8; DATAGRAM_LEN] {
        let mut out = [0; DATAGRAM_LEN];
        let opus = [self.sound; 80];
        let frame = Frame { seq: 0, stamp: 1, microphone: Microphone::On, level: 20, opus: &opus };
        self.sealer.seal(&frame, &mut out).expect("segments are left");
        out
    }

    fn segment(&mut self) -> (Vec<[u8; DATAGRAM_LEN]>, Closed) {
        let frames = (0..25).map(|_| self.frame()).collect();
        (frames, self.sealer.close().expect("a segment"))
    }

    fn seal(&mut self, closed: &Closed, key: &KeyPair) -> Vec<u8> {
        let (name, hashes, prev) = (closed.name, closed.hashes(), self.prev);
        let sealed = Sealed { meeting: &MEETING, chain: &CHAIN, name, key: &closed.key, hashes, prev, per_segment: 25 };
        let (bytes, head) = sealed.sign(key);
        self.prev = head.root;
        bytes
    }
}

struct Listener {
    talker: Talker,
    vk: PublicKey,
    now: Instant,
    events: Vec<Event>,
}

impl Listener {
    fn new() -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(3).expect("small");
        let opener = Opener::new(MEETING, TALKER, epoch, Secret::new([9; 32]), 20, now);
        Self { talker: Talker::new(opener, now), vk: own().public(), now, events: Vec::new() }
    }

    /// What is heard at once of a frame: the sound.
    fn hears(&mut self, datagram: &[u8]) -> Result<Option<u8>, Dropped> {
        let mut plaintext = [0; PLAINTEXT_LEN];
        let ciphertext = Ciphertext::parse(&datagram[datagram::HEADER_LEN..])?;
        let play = self.talker.play();
        let opened = self.talker.current.open(&ciphertext, play, self.now, &mut plaintext)?;
        self.talker.on_opened(self.now);
        Ok(opened.map(|frame| frame.opus[0]))
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.talker.judge(self.now);
        self.tell();
    }

    fn tell(&mut self) {
        self.talker.tell(self.now, TALKER, |event| self.events.push(event));
    }

    fn takes(&mut self, bytes: &[u8]) -> bool {
        let public = public_part(bytes).expect("a seal");
        let name = KeyName::of(crate::sframe::header::Kid(public.kid)).expect("a name");
        let seal = SealOf { meeting: &MEETING, chain: CHAIN, name, vk: &self.vk, per_segment: 25, bytes };
        let is_new = self.talker.on_seal(self.now, &seal).is_some();
        self.tell();
        is_new
    }

    /// What is heard late: the sounds.
    fn hears_late(&mut self) -> Vec<u8> {
        let mut sounds = Vec::new();
        let mut plaintext = [0; PLAINTEXT_LEN];
        let mut last = None;
        while let Some(vouched) = self.talker.next_vouched(&mut plaintext) {
            let place = (vouched.name.segment, vouched.number);
            assert!(last.is_none_or(|last| last < place), "out of order");
            last = Some(place);
            sounds.push(vouched.frame.opus[0]);
        }
        sounds
    }

    fn alarms(&self, wanted: AlarmKind) -> usize {
        let is_it = |event: &&Event| matches!(event, Event::Alarm { kind, index: Some(TALKER), .. } if *kind == wanted);
        self.events.iter().filter(is_it).count()
    }

    fn is_verified(&self) -> bool {
        let modes = self.events.iter().rev().find_map(|event| match event {
            Event::Verified { on, .. } => Some(*on),
            _ => None,
        });
        modes.unwrap_or(false)
    }
}

fn own() -> KeyPair {
    KeyPair::from_seed(&[2; 32])
}

const TRUE: u8 = 1;
const FORGED: u8 = 2;

/// Brings the listener to verified mode by frames in a segment that the talker never seals like this.
fn alarmed() -> (Mouth, Listener) {
    let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
    let (forged, _) = Mouth::new(FORGED).segment();
    let (_, closed) = talker.segment();
    assert_eq!(listener.hears(&forged[0]), Ok(Some(FORGED)));
    assert!(listener.takes(&talker.seal(&closed, &own())));
    assert!(listener.is_verified());
    (talker, listener)
}

#[test]
fn an_honest_talker_is_heard_at_once_and_nothing_is_said_about_it() {
    let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
    for _ in 0..200 {
        let (frames, closed) = talker.segment();
        // The last of five frames are lost.
        for frame in &frames[..20] {
            assert_eq!(listener.hears(frame), Ok(Some(TRUE)));
            listener.pass(FRAME);
        }
        listener.pass(FRAME * 5);
        let seal = talker.seal(&closed, &own());
        assert!(listener.takes(&seal));
        assert!(!listener.takes(&seal), "the same seal again says nothing new");
        assert_eq!(listener.hears(&frames[22]), Ok(Some(TRUE)), "a late frame is checked by itself");
        assert_eq!(listener.hears(&frames[22]), Err(Dropped::Duplicate));
        assert_eq!(listener.hears(&frames[3]), Err(Dropped::Duplicate));
    }
    assert!(listener.events.is_empty(), "{:?}", listener.events);
    assert!(listener.hears_late().is_empty());
}

#[test]
fn frames_that_the_seal_does_not_list_are_found_with_it_and_none_is_heard_from_then_on() {
    let (mut talker, mut insider, mut listener) = (Mouth::new(TRUE), Mouth::new(FORGED), Listener::new());
    let (mut heard, mut late) = (Vec::new(), Vec::new());
    for _ in 0..80 {
        let (frames, closed) = talker.segment();
        let (forged, _) = insider.segment();
        for (own, foreign) in frames.iter().zip(&forged) {
            // The forger's frames come first.
            heard.extend([foreign, own].into_iter().filter_map(|frame| listener.hears(frame).ok().flatten()));
            listener.pass(FRAME);
        }
        assert!(listener.takes(&talker.seal(&closed, &own())));
        late.push(listener.hears_late());
    }
    assert_eq!(heard.iter().filter(|sound| **sound == FORGED).count(), 25, "of the first segment only");
    // Those of the first segment went by under the forger's; from then on every one is heard, after its seal.
    assert!(late[0].is_empty() && late[1..].iter().all(|sounds| *sounds == [TRUE; 25]), "{late:?}");
    // 40 s: the alarm is repeated once.
    assert_eq!(listener.alarms(AlarmKind::Injected), 2);
    assert!(listener.is_verified());
}

#[test]
fn frames_of_a_segment_that_never_gets_a_seal_end_after_a_second_and_a_half() {
    let (mut talker, mut insider, mut listener) = (Mouth::new(TRUE), Mouth::new(FORGED), Listener::new());
    // The talker says nothing; the insider speaks in its name.
    let mut heard = Vec::new();
    for _ in 0..500 {
        heard.extend(listener.hears(&insider.frame()).ok().flatten());
        listener.pass(FRAME);
    }
    // The first segment's end comes after 0.5 s, and a seal could come 1.5 s later.
    assert!(heard.len() <= 101, "{}", heard.len());
    assert_eq!(listener.alarms(AlarmKind::Injected), 0);
    let (frames, closed) = talker.segment();
    frames.iter().for_each(|frame| assert_eq!(listener.hears(frame), Ok(None)));
    assert!(listener.takes(&talker.seal(&closed, &own())));
    // Its first 25 numbers had been used by the insider, whose frames the seal does not list.
    assert_eq!(listener.hears_late(), [TRUE; 25]);
    assert_eq!(listener.alarms(AlarmKind::Injected), 1);
}

#[test]
fn a_forger_who_races_ahead_silences_nobody() {
    let (mut talker, mut insider, mut listener) = (Mouth::new(TRUE), Mouth::new(FORGED), Listener::new());
    let mut heard = 0;
    for round in 0..60 {
        let (frames, closed) = talker.segment();
        for frame in &frames {
            heard += usize::from(matches!(listener.hears(frame), Ok(Some(TRUE))));
            listener.pass(FRAME);
            // Two segments at a time, four times as fast as the talker.
            let (forged, _) = insider.segment();
            if round % 2 == 0 {
                let _ = listener.hears(&forged[0]);
            }
        }
        assert!(listener.takes(&talker.seal(&closed, &own())));
        heard += listener.hears_late().len();
    }
    // A number under which the forger was played is lost: of one segment, one frame, while frames are played at once.
    assert!(heard >= 60 * 25 - 10, "{heard}");
}

#[test]
fn four_forgeries_at_most_are_kept_for_a_number_and_the_true_frame_among_them_is_heard() {
    let (mut talker, mut listener) = alarmed();
    let (frames, closed) = talker.segment();
    let forgeries: Vec<_> = (10..14)
        .map(|sound| {
            let mut insider = Mouth::new(sound);
            insider.segment();
            insider.frame()
        })
        .collect();
    for forged in &forgeries[..3] {
        assert_eq!(listener.hears(forged), Ok(None));
    }
    assert_eq!(listener.hears(&frames[0]), Ok(None));
    assert_eq!(listener.hears(&frames[0]), Err(Dropped::Duplicate));
    assert_eq!(listener.hears(&forgeries[3]), Err(Dropped::Duplicate), "a fifth is not kept");
    assert!(listener.takes(&talker.seal(&closed, &own())));
    assert_eq!(listener.hears_late(), [TRUE]);
    assert_eq!(listener.hears(&frames[0]), Err(Dropped::Duplicate));
    assert_eq!(listener.hears(&forgeries[3]), Err(Dropped::Unlisted));
}

#[test]
fn thirty_clean_seconds_end_verified_mode() {
    let (mut talker, mut listener) = alarmed();
    for segment in 0..70 {
        let (frames, closed) = talker.segment();
        for frame in &frames {
            let expected = if segment < 59 { None } else { Some(TRUE) };
            let heard = listener.hears(frame);
            assert!(segment == 59 || segment == 60 || heard == Ok(expected), "segment {segment}: {heard:?}");
            listener.pass(FRAME);
        }
        assert!(listener.takes(&talker.seal(&closed, &own())));
        listener.hears_late();
    }
    assert!(!listener.is_verified());
    assert_eq!(listener.alarms(AlarmKind::Injected), 1);
}

/// The talker's connection is lost in the middle of a segment, whose seal nobody gets.
fn breaks_off(talker: &mut Mouth, listener: &mut Listener, away: Duration) {
    for _ in 0..7 {
        assert_eq!(listener.hears(&talker.frame()), Ok(Some(TRUE)), "heard at once");
        listener.pass(FRAME);
    }
    talker.sealer.close().expect("a segment");
    listener.pass(away);
}

#[test]
fn seals_that_a_lost_connection_took_along_cost_no_delay() {
    for away in [1_300, 1_800, 20_000] {
        let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
        breaks_off(&mut talker, &mut listener, Duration::from_millis(away));
        for _ in 0..20 {
            let (frames, closed) = talker.segment();
            for frame in &frames {
                assert_eq!(listener.hears(frame), Ok(Some(TRUE)), "heard at once after {away} ms");
                listener.pass(FRAME);
            }
            assert!(listener.takes(&talker.seal(&closed, &own())));
        }
        assert!(listener.events.is_empty(), "{:?}", listener.events);
    }
}

#[test]
fn a_forger_who_pauses_gains_one_burst_in_half_a_minute() {
    let (mut insider, mut listener) = (Mouth::new(FORGED), Listener::new());
    breaks_off_as(&mut insider, &mut listener);
    assert!(!listener.is_verified());
    breaks_off_as(&mut insider, &mut listener);
    assert!(listener.is_verified());
}

/// A burst of forged frames, and silence until after their seal was due, and after the time of one pause.
fn breaks_off_as(insider: &mut Mouth, listener: &mut Listener) {
    for _ in 0..7 {
        assert_eq!(listener.hears(&insider.frame()), Ok(Some(FORGED)));
        listener.pass(FRAME);
    }
    insider.sealer.close().expect("a segment");
    (0..50).for_each(|_| listener.pass(Duration::from_millis(100)));
}

#[test]
fn late_and_lost_seals_silence_nobody() {
    let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
    let mut heard = 0;
    let mut waiting = VecDeque::new();
    for segment in 0..100 {
        let (frames, closed) = talker.segment();
        for frame in &frames {
            heard += usize::from(listener.hears(frame) == Ok(Some(TRUE)));
            listener.pass(FRAME);
        }
        waiting.push_back((segment, talker.seal(&closed, &own())));
        // Each seal is 2 s late, and every tenth is lost.
        if waiting.len() > 4 {
            let (number, seal) = waiting.pop_front().expect("some wait");
            if number % 10 != 9 {
                assert!(listener.takes(&seal));
                heard += listener.hears_late().len();
            }
        }
    }
    assert!(listener.is_verified());
    assert_eq!(listener.events.len(), 1, "that is no attack: {:?}", listener.events);
    // Four segments are on their way, and those without a seal are lost with it once nothing is played at once.
    assert!(heard >= 25 * (100 - 4 - 10), "{heard}");
}

#[test]
fn frames_that_waited_for_three_seconds_are_given_up() {
    let (mut talker, mut listener) = alarmed();
    let (frames, closed) = talker.segment();
    assert_eq!(listener.hears(&frames[0]), Ok(None));
    listener.pass(Duration::from_secs(2));
    assert_eq!(listener.hears(&frames[1]), Ok(None));
    listener.pass(Duration::from_millis(1_001));
    assert!(listener.takes(&talker.seal(&closed, &own())));
    assert_eq!(listener.hears_late(), [TRUE]);
}

#[test]
fn a_talker_whose_seals_do_not_verify_is_not_heard() {
    let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
    let mut heard = 0;
    for segment in 0..100 {
        let (frames, closed) = talker.segment();
        for frame in &frames {
            heard += usize::from(listener.hears(frame) == Ok(Some(TRUE)));
            listener.pass(FRAME);
        }
        // By another key, of another segment's key, and over other frames.
        let seal = match segment % 3 {
            0 => talker.seal(&closed, &KeyPair::from_seed(&[8; 32])),
            1 => {
                let mut other = Mouth::new(FORGED);
                (0..segment).for_each(|_| drop(other.segment()));
                let (_, closed) = other.segment();
                other.seal(&closed, &KeyPair::from_seed(&[8; 32]))
            }
            _ => talker.seal(&closed, &KeyPair::from_seed(&[9; 32])),
        };
        assert!(!listener.takes(&seal));
        heard += listener.hears_late().len();
    }
    assert_eq!(heard, 25, "one segment, until its seal came");
    assert_eq!(listener.alarms(AlarmKind::BadSeal), 2);
    assert!(listener.talker.contradiction().is_none());
}

#[test]
fn two_seals_of_one_segment_silence_the_talker_for_good_with_proof() {
    let (mut talker, mut other, mut listener) = (Mouth::new(TRUE), Mouth::new(FORGED), Listener::new());
    let (_, closed) = talker.segment();
    assert!(listener.takes(&talker.seal(&closed, &own())));
    let (_, closed) = other.segment();
    assert!(!listener.takes(&other.seal(&closed, &own())));
    assert!(listener.talker.is_silenced());
    assert_eq!(listener.alarms(AlarmKind::Equivocation), 1);
    assert!(listener.talker.contradiction().expect("proof").is_proof(&MEETING, &own().public()));
    listener.pass(Duration::from_secs(60));
    assert!(listener.talker.is_silenced());
}

#[test]
fn a_seal_that_does_not_follow_the_one_before_is_a_proof_in_either_order() {
    for reversed in [false, true] {
        let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
        let (_, first) = talker.segment();
        let (_, second) = talker.segment();
        let first = talker.seal(&first, &own());
        talker.prev = [3; 32];
        let second = talker.seal(&second, &own());
        let order = if reversed { [&second, &first] } else { [&first, &second] };
        assert!(listener.takes(order[0]));
        assert!(!listener.takes(order[1]));
        assert!(listener.talker.contradiction().expect("proof").is_proof(&MEETING, &own().public()));
    }
}

#[test]
fn a_head_shown_by_somebody_else_counts_before_and_after_the_own_seal_and_only_if_signed() {
    for shown_first in [false, true] {
        let (mut talker, mut other, mut listener) = (Mouth::new(TRUE), Mouth::new(FORGED), Listener::new());
        let (_, closed) = talker.segment();
        let seal = talker.seal(&closed, &own());
        let (_, foreign) = other.segment();
        other.seal(&foreign, &KeyPair::from_seed(&[8; 32]));
        let unsigned = head_of(&foreign, &KeyPair::from_seed(&[8; 32]));
        let told = head_of(&foreign, &own());
        let same = head_of(&closed, &own());
        let show = |listener: &mut Listener, head| {
            listener.talker.on_shown(listener.now, &MEETING, &own().public(), MemberIndex(9), head);
            listener.tell();
        };
        if !shown_first {
            assert!(listener.takes(&seal));
        }
        show(&mut listener, unsigned);
        show(&mut listener, same);
        if shown_first {
            assert!(listener.takes(&seal));
        }
        assert!(!listener.talker.is_silenced());
        if shown_first {
            let mut again = Listener::new();
            show(&mut again, told);
            assert!(again.takes(&seal));
            assert!(again.talker.is_silenced());
        }
        show(&mut listener, told);
        assert!(listener.talker.is_silenced());
        assert!(listener.talker.contradiction().expect("proof").is_proof(&MEETING, &own().public()));
    }
}

fn head_of(closed: &Closed, key: &KeyPair) -> SealHead {
    let (name, hashes, prev) = (closed.name, closed.hashes(), [0; 32]);
    Sealed { meeting: &MEETING, chain: &CHAIN, name, key: &closed.key, hashes, prev, per_segment: 25 }.sign(key).1
}

#[test]
fn seals_of_an_epoch_that_is_over_are_still_taken_for_a_while() {
    let (mut talker, mut listener) = (Mouth::new(TRUE), Listener::new());
    let (frames, closed) = talker.segment();
    frames.iter().for_each(|frame| assert_eq!(listener.hears(frame), Ok(Some(TRUE))));
    for epoch in 4..8 {
        let epoch = Epoch::new(epoch).expect("small");
        let next = Opener::new(MEETING, TALKER, epoch, Secret::new([epoch.number() as u8; 32]), 20, listener.now);
        listener.talker.on_epoch(listener.now, next);
    }
    listener.pass(Duration::from_millis(1_400));
    assert!(listener.takes(&talker.seal(&closed, &own())));
    listener.pass(Duration::from_secs(10));
    assert!(listener.events.is_empty(), "{:?}", listener.events);
}

#[test]
fn who_shows_invented_heads_cannot_push_out_what_others_show() {
    for (hostile, each) in [(1, 1_000), (15, 16), (47, 1)] {
        let mut listener = Listener::new();
        let (mut here, mut elsewhere) = (Mouth::new(TRUE), Mouth::new(FORGED));
        let (_, closed) = here.segment();
        let (_, other) = elsewhere.segment();
        let seal = here.seal(&closed, &own());
        let honest = head_of(&other, &own());
        let (now, vk, signature) = (listener.now, own().public(), honest.signature);
        listener.talker.on_shown(now, &MEETING, &vk, MemberIndex(9), honest);
        for by in 0..hostile {
            for n in 0..each {
                let junk = SealHead { kid: n, root: [by as u8; 32], signature };
                listener.talker.on_shown(now, &MEETING, &vk, MemberIndex(100 + by), junk);
                // Nor by claiming it first.
                listener.talker.on_shown(now, &MEETING, &vk, MemberIndex(100 + by), honest);
            }
        }
        assert!(listener.talker.shown.len() <= SHOWN);
        assert!(listener.talker.shown.iter().any(|shown| shown.by == MemberIndex(9) && shown.head == honest));
        assert!(listener.takes(&seal));
        assert!(listener.talker.is_silenced(), "what was shown tells of it");
    }
}

#[test]
fn what_came_while_the_listener_stood_still_is_taken_in_before_it_is_judged() {
    let mut listener = Listener::new();
    let mut talker = Mouth::new(TRUE);
    let segments: Vec<_> = (0..2).map(|_| talker.segment()).collect();
    for (frames, _) in &segments {
        frames.iter().for_each(|frame| assert_eq!(listener.hears(frame), Ok(Some(TRUE))));
    }
    let seals: Vec<_> = segments.iter().map(|(_, closed)| talker.seal(closed, &own())).collect();
    // Stopped for ten seconds, with both seals in the socket.
    listener.now += Duration::from_secs(10);
    seals.iter().for_each(|seal| assert!(listener.takes(seal)));
    listener.pass(Duration::ZERO);
    assert!(!listener.is_verified());
}

#[test]
fn a_flood_of_forged_frames_waits_within_bounds_and_not_for_long() {
    let (_, mut listener) = alarmed();
    let before = listener.talker.waiting();
    for sound in 10..30 {
        let mut forger = Mouth::new(sound);
        for _ in 0..40 {
            let (frames, _) = forger.segment();
            frames.iter().for_each(|frame| {
                let _ = listener.hears(frame);
            });
        }
    }
    // Four of each number, in the segments of both windows.
    let (windows, most) = (6 + 8 + 2 * 4, 4 * 25);
    let waiting = listener.talker.waiting();
    assert!(waiting > before && waiting <= windows * most, "{waiting}");
    listener.pass(Duration::from_millis(3_001));
    assert_eq!(listener.talker.waiting(), 0);
}

#[test]
fn a_frame_of_which_one_copy_comes_before_verified_mode_ends_and_one_after_is_played_once() {
    let (mut talker, mut listener) = alarmed();
    let (frames, closed) = talker.segment();
    for frame in &frames[..2] {
        assert_eq!(listener.hears(frame), Ok(None));
    }
    listener.talker.verified_until = None;
    assert_eq!(listener.hears(&frames[0]), Ok(Some(TRUE)));
    assert_eq!(listener.hears(&frames[0]), Err(Dropped::Duplicate));
    assert!(listener.takes(&talker.seal(&closed, &own())));
    assert_eq!(listener.hears_late(), [TRUE], "the other one, which waited");
    assert_eq!(listener.hears(&frames[1]), Err(Dropped::Duplicate));
}
