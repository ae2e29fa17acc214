//! The same with frames of 10 ms.

use super::learning::bell;
use super::*;

/// Duration of a frame.
const F: u64 = 10 * MS;

fn short(hold_ms: u64, phase_ms: u64) -> Run {
    of(Config { hold: Duration::from_millis(hold_ms), ..Config::of(FrameDuration::Ms10) }, phase_ms)
}

fn of(config: Config, phase_ms: u64) -> Run {
    Run { phase: phase_ms * MS, ..Run::of(config) }
}

fn frames(count: u32) -> Vec<Sent> {
    (0..count).map(|i| speech(u64::from(i) * F, i)).collect()
}

/// Speech with a pause of 0.6 s every 4 s.
fn level(seq: u64) -> u8 {
    if seq % 400 < 340 { SPEECH } else { PAUSE }
}

/// What came out from the first frame on.
fn heard(run: &Run) -> &[Out] {
    let start = run.out.iter().position(|out| matches!(out, Out::Played { .. })).unwrap();
    &run.out[start..]
}

#[test]
fn the_hold_is_met_to_within_a_step_at_every_phase_and_stays_the_same() {
    for hold in [0, 5, 12, 45] {
        for phase in 0..10 {
            let mut run = Run { phase: phase * MS / 2, ..short(hold, 0) };
            run.deliver(frames(400), 399 * F + 300 * MS);
            assert_eq!(run.played(), numbers(400, 0), "hold {hold}, phase {phase}");
            let delays = run.out.iter().filter_map(|out| match *out {
                Out::Played { seq, at } => Some(at - u64::from(seq) * F),
                _ => None,
            });
            let delays: std::collections::BTreeSet<u64> = delays.collect();
            assert!(delays.len() == 1, "hold {hold}, phase {phase}: {delays:?}");
            assert!((hold * MS..=(hold + 5) * MS).contains(delays.first().unwrap()), "hold {hold}: {delays:?}");
        }
    }
}

#[test]
fn a_lost_frame_is_repaired_from_the_next_one_with_a_hold_of_a_frame_and_a_little() {
    for phase in 0..10 {
        let mut run = short(12, phase);
        let frames = frames(400).into_iter().filter(|sent| sent.seq % 10 != 5);
        // They come nearly up to 2 ms late.
        let late = |sent: Sent| Sent { at: sent.at + u64::from(sent.seq % 3) * 950_000, ..sent };
        run.deliver(frames.map(late).collect(), 398 * F);
        let stats = run.stats();
        assert_eq!((stats.late, stats.concealed), (0, stats.repaired), "phase {phase}");
        assert!(stats.repaired >= 38, "phase {phase}");
    }
}

#[test]
fn a_gap_is_repaired_as_long_as_with_longer_frames() {
    let mut run = short(180, 0);
    run.deliver(frames(200).into_iter().filter(|sent| !(60..77).contains(&sent.seq)).collect(), 199 * F);
    let gap = &heard(&run)[60..];
    assert_eq!(gap[..2], [Out::Concealed, Out::Repaired { gap: 16, from: 77 }], "160 ms");
    assert_eq!(gap[16], Out::Repaired { gap: 1, from: 77 });
}

#[test]
fn who_stops_is_concealed_for_as_long_as_with_longer_frames() {
    let mut run = short(12, 0);
    run.deliver(frames(50), 150 * F);
    assert_eq!(run.stats().concealed, 20);
}

#[test]
fn segments_that_come_with_their_seals_are_played_without_a_gap() {
    let mut run = short(12, 3);
    run.playout.set_hold(VERIFIED_HOLD, run.start);
    let mut chance = Chance(4);
    let mut last = 0;
    let sent = (0..3_000).map(|i| {
        // Half a second of frames comes when it is over and its seal has.
        let seal = if i % 50 == 0 { (chance.next() * 650.0) as u64 * MS } else { 0 };
        last = last.max((i / 50 * 50 + 49) * F + 30 * MS + seal);
        Sent { at: last, ..speech(0, i as u32) }
    });
    run.deliver(sent.collect(), 3_000 * F + 2_000 * MS);
    assert_eq!(run.played(), numbers(3_000, 0));
    let stats = run.stats();
    assert_eq!((stats.lost, stats.late, stats.skipped, stats.refused, stats.reanchors), (0, 0, 0, 0, 0));
    // A second copy is known for one, as far back as a second.
    let copy = Arrival { seq: 2_999 - 90, muted: false, level: SPEECH, payload: &[1] };
    assert_eq!(run.playout.push(&copy, run.time(3_000 * F + 2_001 * MS)), Push::Duplicate);
}

#[test]
fn drifting_clocks_never_cost_a_syllable() {
    for ppm in [-200, 200] {
        let mut run = short(12, 3);
        let mut chance = Chance(3);
        let sent = |i: i64| {
            let at = (i * F as i64 * (1_000_000 + ppm) / 1_000_000) as u64 + (chance.next() * 3.0 * MS as f64) as u64;
            Sent { at: at + MS, seq: i as u32, muted: false, level: level(i as u64) }
        };
        run.deliver((0..60_000).map(sent).collect(), 60_000 * F);
        let stats = run.stats();
        assert_eq!((stats.lost, stats.late, stats.reanchors), (0, 0, 0), "{ppm} ppm");
        // 200 ppm of ten minutes are 120 ms: 24 steps of 5 ms.
        let (corrected, other) = if ppm < 0 {
            (stats.shortened + stats.skipped, stats.inserted)
        } else {
            (stats.inserted, stats.shortened + stats.skipped)
        };
        assert!((20..=28).contains(&corrected) && other == 0, "{ppm} ppm: {corrected}, {other}");
        let played: std::collections::HashSet<u32> = run.played().into_iter().collect();
        let last = *played.iter().max().unwrap();
        assert!((0..last).all(|seq| level(seq.into()) == PAUSE || played.contains(&seq)), "no speech was skipped");
    }
}

#[test]
fn the_hold_follows_the_path_from_two_frames_to_one_and_to_what_jitter_wants() {
    let config = Config { hold: Duration::from_millis(22), learn: true, ..Config::of(FrameDuration::Ms10) };
    let mut run = of(config, 3);
    assert!((run.stats().aimed_ms - 22.0).abs() < f32::EPSILON);
    let mut chance = Chance(9);
    let mut talk = |run: &mut Run, from: u64, to: u64, ms: f64| {
        let sent = |i| {
            let late = (chance.next() * ms * MS as f64) as u64;
            Sent { at: i * F + late, seq: i as u32, muted: false, level: level(i) }
        };
        run.deliver((from..to).map(sent).collect(), to * F);
        run.stats()
    };
    let quiet = talk(&mut run, 0, 4_000, 1.0);
    assert!((quiet.aimed_ms - 12.0).abs() < f32::EPSILON, "{}", quiet.aimed_ms);
    assert_eq!((quiet.late, quiet.lost), (0, 0));
    let settling = talk(&mut run, 4_000, 6_000, 60.0);
    let restless = talk(&mut run, 6_000, 12_000, 60.0);
    assert!((restless.aimed_ms - 62.0).abs() < f32::EPSILON, "{}", restless.aimed_ms);
    assert!((restless.late - settling.late) * 100 < 6_000, "{} of 6,000", restless.late - settling.late);
}

#[test]
fn once_settled_30_ms_of_jitter_make_under_one_frame_in_a_hundred_late_and_change_the_delay_in_pauses_only() {
    for seed in 1..4 {
        let config = Config { hold: Duration::from_millis(22), learn: true, ..Config::of(FrameDuration::Ms10) };
        let (mut run, mut chance) = (of(config, 3), Chance(seed));
        let mut talk = |run: &mut Run, from: u64, to: u64| {
            let sent = |i| {
                let late = 6.0f64.mul_add(30.0, 30.0 * bell(&mut chance)) * MS as f64;
                Sent { at: i * F + late.max(0.0) as u64, seq: i as u32, muted: false, level: level(i) }
            };
            run.deliver((from..to).map(sent).collect(), to * F);
            run.stats()
        };
        let before = talk(&mut run, 0, 3_000);
        let stats = talk(&mut run, 3_000, 15_000);
        let (late, received) = (stats.late - before.late, stats.received - before.received);
        assert!(late * 100 < received, "seed {seed}: {late} of {received}, held {} ms", stats.aimed_ms);

        let played = run.out.iter().filter_map(|out| match out {
            Out::Played { seq, at } if *seq >= 3_000 => Some((*seq, *at)),
            _ => None,
        });
        let played: Vec<(u32, u64)> = played.collect();
        let changes = played.windows(2).filter(|pair| {
            let ((last, last_at), (seq, at)) = (pair[0], pair[1]);
            let is_constant = at - last_at == u64::from(seq - last) * F;
            let in_pause = (last..=seq).any(|n| level(n.into()) == PAUSE);
            assert!(is_constant || in_pause, "seed {seed}: between frames {last} and {seq}");
            !is_constant
        });
        assert!(changes.count() > 0, "seed {seed}: the delay has followed the jitter");
    }
}
