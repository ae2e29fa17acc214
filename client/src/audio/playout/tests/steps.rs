//! The listener plays in steps of 5 ms: each talker has a place of its own within the frame.

use super::*;

fn by_steps(hold_ms: u64, phase_ms: u64) -> Run {
    let config = Config { hold: Duration::from_millis(hold_ms), ..Config::default() };
    Run { phase: phase_ms * MS, ..Run::of(config) }
}

/// Time from making to playing of each frame that was played, in ns.
fn delays(run: &Run) -> Vec<(u32, u64)> {
    let delay = |out: &Out| match *out {
        Out::Played { seq, at } => Some((seq, at - u64::from(seq) * T)),
        _ => None,
    };
    run.out.iter().filter_map(delay).collect()
}

/// Speech with a pause of 0.6 s every 4 s.
fn level(seq: u64) -> u8 {
    if seq % 200 < 170 { SPEECH } else { PAUSE }
}

fn is_speech(seq: u32) -> bool {
    level(u64::from(seq)) == SPEECH
}

#[test]
fn the_hold_is_met_to_within_a_step_at_every_phase_and_stays_the_same() {
    for hold in [0, 5, 22, 105] {
        for phase in 0..20 {
            // A quarter of a millisecond each.
            let mut run = Run { phase: phase * MS / 4, ..by_steps(hold, 0) };
            run.deliver(steady(200, 0), 199 * T + 300 * MS);
            assert_eq!(run.played(), numbers(200, 0), "hold {hold}, phase {phase}");
            let delays = delays(&run);
            let first = delays[0].1;
            // A frame that comes with a step comes after it.
            assert!((hold * MS..=(hold + 5) * MS).contains(&first), "hold {hold}, phase {phase}: {first} ns");
            assert!(delays.iter().all(|(_, delay)| *delay == first), "hold {hold}, phase {phase}");
            let stats = run.stats();
            assert_eq!((stats.inserted, stats.shortened, stats.skipped, stats.lost), (0, 0, 0, 0));
        }
    }
}

#[test]
fn a_lost_frame_is_repaired_from_the_next_one_at_every_phase() {
    for phase in 0..20 {
        let mut run = by_steps(22, phase);
        // Frames come nearly up to 2 ms late.
        let frames = steady(200, 0).into_iter().filter(|sent| sent.seq % 10 != 5);
        run.deliver(
            frames.map(|sent| Sent { at: sent.at + u64::from(sent.seq % 3) * 950_000, ..sent }).collect(),
            199 * T,
        );
        let stats = run.stats();
        assert_eq!((stats.late, stats.concealed), (0, stats.repaired), "phase {phase}");
        assert!(stats.repaired >= 18, "phase {phase}");
    }
}

#[test]
fn a_talker_whose_phase_moves_never_loses_speech_and_its_delay_follows_in_pauses() {
    // A millisecond a second is as fast as frame clocks are moved; ten seconds of it are more than they ever are.
    for direction in [-1.0, 1.0] {
        for phase in [0, 2, 4, 9] {
            let mut run = by_steps(22, phase);
            let moved = |i: u64| direction * (i.saturating_sub(200) as f64 * 0.02).min(10.0) * MS as f64;
            let sent = |i: u64| {
                let at = (20 * MS + i * T) as f64 + moved(i);
                Sent { at: at as u64, seq: i as u32, muted: false, level: level(i) }
            };
            run.deliver((0..2_000).map(sent).collect(), 2_000 * T + 20 * MS);
            let stats = run.stats();
            assert_eq!((stats.lost, stats.late, stats.skipped, stats.reanchors), (0, 0, 0, 0), "{direction}, {phase}");
            let (corrected, other) =
                if direction < 0.0 { (stats.shortened, stats.inserted) } else { (stats.inserted, stats.shortened) };
            assert!((1..=3).contains(&corrected) && other == 0, "{direction}, {phase}: {corrected}, {other}");
            let played = run.played();
            assert!((0..1_990).filter(|seq| is_speech(*seq)).all(|seq| played.contains(&seq)), "{direction}, {phase}");
            let (_, last) = *delays(&run).last().unwrap();
            let held = last as f64 - 20.0 * MS as f64 - moved(2_000);
            assert!((21.0..30.0).contains(&(held / MS as f64)), "{direction}, {phase}: held {held} ns");
        }
    }
}

#[test]
fn between_pauses_the_delay_is_constant_whatever_the_phase_does() {
    let mut run = by_steps(22, 3);
    let mut chance = Chance(9);
    let sent = |i: u64| {
        let at = 20 * MS + i * T + (chance.next() * 3.0 * MS as f64) as u64 + i * 20_000;
        Sent { at, seq: i as u32, muted: false, level: level(i) }
    };
    run.deliver((0..3_000).map(sent).collect(), 3_000 * T);
    for pair in delays(&run).windows(2) {
        let [(before, one), (seq, other)] = [pair[0], pair[1]];
        let in_pause = (before..=seq).any(|seq| !is_speech(seq));
        assert!(one == other || in_pause, "between frames {before} and {seq}: {one} and {other} ns");
    }
    assert!(run.stats().inserted > 5, "the talker's clock is slow by 1 ms a second");
    assert_eq!((run.stats().late, run.stats().lost), (0, 0));
}

#[test]
fn a_longer_hold_is_reached_by_no_more_than_is_missing() {
    let mut run = by_steps(22, 0);
    run.deliver(steady(50, 0), 49 * T);
    let now = run.time(49 * T + MS);
    run.playout.set_hold(Duration::from_millis(32), now);
    run.deliver((50..100).map(|i| speech(i * T, i as u32)).collect(), 99 * T);
    let delays = delays(&run);
    assert_eq!((delays[0].1, delays[delays.len() - 1].1), (25 * MS, 35 * MS));
    assert_eq!(run.stats().lost, 0);
}

#[test]
fn a_piece_of_a_pause_that_is_left_out_is_its_beginning() {
    let mut run = by_steps(22, 0);
    // At first frames come 12 ms late.
    let frames = steady(100, 0).into_iter().map(|sent| Sent {
        at: sent.at + if sent.seq < 10 { 12 * MS } else { 0 },
        level: if sent.seq < 60 { SPEECH } else { PAUSE },
        ..sent
    });
    run.deliver(frames.collect(), 99 * T);
    assert_eq!((run.stats().shortened, run.stats().skipped), (1, 0));
    let delays = delays(&run);
    assert_eq!((delays[0].1, delays[59].1), (35 * MS, 35 * MS));
    // The frame that is shortened is late by its delay; those after it are not.
    assert_eq!((delays[60].1, delays[61].1), (35 * MS, 25 * MS));
}
