//! A hold that follows how frames arrive.

use super::*;

fn learning() -> Run {
    Run::of(Config { step: FRAME, learn: true, ..Config::default() })
}

/// A number with a standard deviation of 1, bell-shaped.
pub(super) fn bell(chance: &mut Chance) -> f64 {
    (0..12).map(|_| chance.next()).sum::<f64>() - 6.0
}

/// Minutes of speech with a pause of 0.6 s every 4 s. Frames are late by `ms` times a bell-shaped number, and by as much
/// as keeps all of them behind their making.
fn talk(run: &mut Run, from: u64, frames: u64, ms: f64, chance: &mut Chance) {
    let sent = (from..from + frames)
        .map(|i| {
            let late = 6.0f64.mul_add(ms, ms * bell(chance)) * MS as f64;
            let level = if i % 200 < 170 { SPEECH } else { PAUSE };
            Sent { at: i * T + late.max(0.0) as u64, seq: i as u32, muted: false, level }
        })
        .collect();
    run.deliver(sent, (from + frames) * T);
}

#[test]
fn with_30_ms_of_jitter_under_one_frame_in_a_hundred_is_late_once_settled() {
    for seed in 1..6 {
        let (mut run, mut chance) = (learning(), Chance(seed));
        talk(&mut run, 0, 1_500, 30.0, &mut chance);
        let before = run.stats();
        talk(&mut run, 1_500, 6_000, 30.0, &mut chance);
        let stats = run.stats();
        let (late, received) = (stats.late - before.late, stats.received - before.received);
        assert!(late * 100 < received, "seed {seed}: {late} of {received}, held {} ms", stats.aimed_ms);
        assert_eq!(stats.reanchors, 0, "seed {seed}");
    }
}

#[test]
fn the_delay_is_constant_between_pauses() {
    let (mut run, mut chance) = (learning(), Chance(11));
    talk(&mut run, 0, 4_000, 30.0, &mut chance);
    let mut before: Option<(u32, u64)> = None;
    let mut changes = 0;
    for out in &run.out {
        let Out::Played { seq, at } = *out else { continue };
        if let Some((last, last_at)) = before
            && at - last_at != u64::from(seq - last) * T
        {
            changes += 1;
            // Frames of a pause were left out, or a place was inserted before one: those around are not both speech.
            let in_pause = (last..=seq).any(|n| n % 200 >= 170);
            assert!(in_pause, "between frames {last} and {seq}");
        }
        before = Some((seq, at));
    }
    assert!(changes > 0, "the delay has followed the jitter");
}

#[test]
fn on_a_quiet_path_nothing_changes() {
    let (mut run, mut chance) = (learning(), Chance(5));
    talk(&mut run, 0, 6_000, 1.0, &mut chance);
    let stats = run.stats();
    assert_eq!((stats.inserted, stats.skipped, stats.late, stats.lost), (0, 0, 0, 0));
    assert!((stats.aimed_ms - 22.0).abs() < f32::EPSILON, "{}", stats.aimed_ms);
}

#[test]
fn bursts_of_loss_make_the_hold_long_enough_to_repair_them() {
    let (mut run, mut chance) = (learning(), Chance(5));
    let sent = |from: u64, to: u64| -> Vec<Sent> {
        (from..to)
            .filter(|i| i % 40 < 37)
            .map(|i| Sent { level: if i % 200 < 170 { SPEECH } else { PAUSE }, ..speech(i * T, i as u32) })
            .collect()
    };
    run.deliver(sent(0, 1_500), 1_500 * T);
    let before = run.stats();
    run.deliver(sent(1_500, 4_000), 4_000 * T);
    let stats = run.stats();
    assert!((stats.aimed_ms - 62.0).abs() < f32::EPSILON, "{}", stats.aimed_ms);
    let (concealed, repaired) = (stats.concealed - before.concealed, stats.repaired - before.repaired);
    assert!(repaired > 150 && concealed - repaired < 5, "{repaired} of {concealed}");
    // And it is given up again.
    talk(&mut run, 4_000, 12_000, 1.0, &mut chance);
    assert!((run.stats().aimed_ms - 22.0).abs() < f32::EPSILON, "{}", run.stats().aimed_ms);
}

#[test]
fn verified_mode_comes_first_and_what_was_learned_meanwhile_comes_after_it() {
    let mut run = learning();
    let now = run.time(0);
    run.playout.set_hold(VERIFIED_HOLD, now);
    let mut chance = Chance(3);
    talk(&mut run, 0, 1_000, 20.0, &mut chance);
    assert!((run.stats().aimed_ms - 1_200.0).abs() < f32::EPSILON);
    run.playout.set_usual_hold(run.time(1_000 * T));
    let aimed = run.stats().aimed_ms;
    assert!((82.0..=225.0).contains(&aimed), "{aimed}");
}
