//! Verified mode at the ear: frames come in bursts, with their seals.

use super::*;

/// The network's delay of a frame.
const WAY: u64 = 30 * MS;
const SEGMENT: u64 = 25;

/// When frame `i` arrives if it waits for the seal of its segment, which takes `seal` ns from the segment's end.
fn with_seal(i: u64, seal: u64) -> u64 {
    (i / SEGMENT * SEGMENT + SEGMENT - 1) * T + WAY + seal
}

/// Frames `from..to` of a talker as they come in verified mode; `seal(segment)` is its seal's way in ns. Seals come by a
/// stream: none before the one before it.
fn sealed(from: u64, to: u64, seal: impl Fn(u64) -> u64, level: impl Fn(u64) -> u8) -> Vec<Sent> {
    let mut last = 0;
    (from..to)
        .map(|i| {
            last = with_seal(i, seal(i / SEGMENT)).max(last);
            Sent { at: last, seq: i as u32, muted: false, level: level(i) }
        })
        .collect()
}

/// Frames `from..to` as they come otherwise.
fn at_once(from: u64, to: u64, level: impl Fn(u64) -> u8) -> Vec<Sent> {
    (from..to).map(|i| Sent { at: i * T + WAY, seq: i as u32, muted: false, level: level(i) }).collect()
}

fn talk(_: u64) -> u8 {
    SPEECH
}

/// Two seconds of speech, then 0.6 s of a pause.
fn talk_with_pauses(i: u64) -> u8 {
    if i % 130 < 100 { SPEECH } else { PAUSE }
}

impl Run {
    fn set_hold(&mut self, hold: Duration, at: u64) {
        self.tick_until(at);
        let now = self.time(at);
        self.playout.set_hold(hold, now);
    }

    /// 110 frames that are played at once, then verified mode.
    fn to_verified(level: impl Fn(u64) -> u8) -> Self {
        let mut run = Self::new(45);
        run.deliver(at_once(0, 110, &level), 109 * T + WAY);
        run.set_hold(VERIFIED_HOLD, 109 * T + WAY + MS);
        run
    }

    /// Verified mode ends when frame `at` is made: those before it still come with their seal.
    fn back_from_verified(&mut self, first: u64, at: u64, end: u64, level: impl Fn(u64) -> u8 + Copy) {
        self.deliver(sealed(first, at - at % SEGMENT, |_| 40 * MS, level), at * T);
        self.set_hold(Duration::from_millis(45), at * T);
        let mut rest = sealed(at - at % SEGMENT, at, |_| 40 * MS, level);
        rest.extend(at_once(at, end, level));
        self.deliver(rest, end * T);
    }

    /// Time from making to playing of the last frame that was played.
    fn last_delay(&self) -> u64 {
        let last = self.out.iter().rev().find_map(|out| match out {
            Out::Played { seq, at } => Some(at - u64::from(*seq) * T),
            _ => None,
        });
        last.unwrap()
    }

    fn assert_nothing_twice(&self) {
        assert!(self.played().is_sorted_by(|one, next| one < next));
    }
}

#[test]
fn bursts_with_the_jitter_of_seals_are_played_without_a_gap_after_the_switch() {
    for seed in 1..20 {
        let jitter = |segment: u64| (Chance(seed * 1_000 + segment).next() * 650.0) as u64 * MS;
        let mut run = Run::to_verified(talk);
        run.deliver(sealed(110, 2_000, jitter, talk), 2_000 * T + 1_300 * MS);
        assert_eq!(run.played(), numbers(2_000, 0), "seed {seed}");
        let silence = run.out.iter().skip_while(|out| **out == Out::Silence);
        let silence = silence.take_while(|out| !matches!(out, Out::Played { seq: 1_999, .. }));
        let silence = silence.filter(|out| **out == Out::Silence).count();
        assert!((57..=60).contains(&silence), "1.2 s less 45 ms: {silence}");
        let stats = run.stats();
        assert_eq!((stats.concealed - tail(&run), stats.lost, stats.late, stats.skipped), (0, 0, 0, 0), "seed {seed}");
        assert_eq!((stats.refused, stats.reanchors), (0, 0), "seed {seed}");
    }
}

/// Places that were concealed after the last frame: the run goes on for a moment.
fn tail(run: &Run) -> u64 {
    run.out
        .iter()
        .rev()
        .take_while(|out| !matches!(out, Out::Played { .. }))
        .filter(|out| **out == Out::Concealed)
        .count() as u64
}

#[test]
fn the_way_back_leaves_out_pauses_only_when_there_are_any() {
    for at in [500, 510, 524, 537] {
        let mut run = Run::to_verified(talk_with_pauses);
        run.back_from_verified(110, at, 1_200, talk_with_pauses);
        let spoken = |seq: &u32| talk_with_pauses(u64::from(*seq)) == SPEECH;
        let heard: Vec<u32> = run.played().into_iter().filter(spoken).collect();
        let said: Vec<u32> = (0..1_200).filter(spoken).collect();
        assert_eq!(heard, said[..heard.len()], "at {at}");
        assert!(heard.len() + 5 >= said.len());
        run.assert_nothing_twice();
        let delay = run.last_delay();
        assert!(delay <= WAY + 70 * MS, "at {at}: {} ms", delay / MS);
        let stats = run.stats();
        assert!((50..=59).contains(&stats.skipped), "at {at}: {}", stats.skipped);
        assert_eq!((stats.lost, stats.late), (0, 0), "at {at}");
    }
}

#[test]
fn without_a_pause_the_way_back_cuts_fifty_nine_frames_at_most() {
    for at in [500, 510, 524, 537] {
        let mut run = Run::to_verified(talk);
        run.back_from_verified(110, at, 1_400, talk);
        run.assert_nothing_twice();
        let stats = run.stats();
        assert!((50..=59).contains(&stats.skipped), "at {at}: {}", stats.skipped);
        assert_eq!((stats.concealed, stats.lost, stats.late), (0, 0, 0), "at {at}");
        assert!(run.last_delay() <= WAY + 70 * MS, "at {at}");
    }
}

#[test]
fn verified_mode_that_ends_at_once_and_begins_again_loses_and_repeats_nothing() {
    let mut run = Run::to_verified(talk);
    let mut at = 110 * T + WAY;
    for (i, frame) in sealed(110, 1_000, |_| 40 * MS, talk).into_iter().enumerate() {
        if i % 60 == 59 {
            at = at.max(frame.at);
            run.set_hold(Duration::from_millis(45), at);
            at += 300 * MS;
            run.set_hold(VERIFIED_HOLD, at);
        }
        at = at.max(frame.at);
        run.tick_until(at);
        run.push(Sent { at, ..frame });
    }
    run.tick_until(at + 1_300 * MS);
    assert_eq!(run.played(), numbers(1_000, 0));
    assert_eq!(run.stats().skipped, 0);
}

#[test]
fn seals_that_are_all_late_are_followed_after_some_seconds() {
    for late in [720, 900, 1_200, 1_400, 1_499] {
        let mut run = Run::to_verified(talk);
        run.deliver(sealed(110, 1_500, |_| late * MS, talk), 1_500 * T + 3_000 * MS);
        let heard = run.played();
        run.assert_nothing_twice();
        // What came after its time until the delay has been seen to be too short for 4 s, and then all of it.
        let missing = 1_500 - heard.len();
        assert!(missing <= 150, "{late} ms: {missing} missing");
        let settled: Vec<u32> = heard.into_iter().filter(|seq| *seq >= 450).collect();
        assert_eq!(settled, numbers(1_050, 450), "{late} ms");
    }
}

#[test]
fn who_was_silent_when_verified_mode_began_is_heard_with_the_long_hold() {
    let mut run = Run::new(45);
    run.set_hold(VERIFIED_HOLD, 10 * MS);
    run.deliver(sealed(0, 300, |segment| (segment * 37 % 11) * 60 * MS, talk), 300 * T + 1_500 * MS);
    assert_eq!(run.played(), numbers(300, 0));
    assert_eq!(run.stats().concealed, tail(&run));
}
