//! Which packet a missing frame is repaired from.

use super::*;

/// What came out in the places of so many frames, when some did not come.
fn without(hold: u64, lost: &[u32]) -> Vec<Out> {
    let mut run = Run::new(hold);
    let frames = steady(60, 0).into_iter().filter(|sent| !lost.contains(&sent.seq)).collect();
    run.deliver(frames, 100 * T);
    let start = run.out.iter().position(|out| matches!(out, Out::Played { seq: 0, .. })).unwrap();
    run.out[start..start + 60].to_vec()
}

#[test]
fn a_lost_frame_is_repaired_from_the_next_one_if_the_hold_lets_it_come() {
    // Ticks are at 13, 33, 53 ms after the frames: with a hold of 25 ms a frame is played 33 ms after it came.
    assert_eq!(without(25, &[30])[30], Out::Repaired { gap: 1, from: 31 });
    assert_eq!(without(10, &[30])[30], Out::Concealed);
}

#[test]
fn a_burst_is_repaired_from_its_beginning_with_a_long_hold_and_at_its_end_with_a_short_one() {
    let lost = [30, 31, 32];
    let long = without(100, &lost);
    assert_eq!(long[30], Out::Repaired { gap: 3, from: 33 });
    assert_eq!(long[31], Out::Repaired { gap: 2, from: 33 });
    assert_eq!(long[32], Out::Repaired { gap: 1, from: 33 });
    let short = without(25, &lost);
    assert_eq!(short[30..33], [Out::Concealed, Out::Concealed, Out::Repaired { gap: 1, from: 33 }]);
}

/// In frames of 20 ms.
const REACH: u32 = 8;

#[test]
fn what_is_too_far_ahead_is_not_repaired_from() {
    let lost: Vec<u32> = (30..30 + REACH + 1).collect();
    let out = without(400, &lost);
    assert_eq!(out[30], Out::Concealed);
    assert_eq!(out[31], Out::Repaired { gap: REACH as usize, from: 30 + lost.len() as u32 });
}

#[test]
fn nothing_is_repaired_from_a_muted_frame() {
    let mut run = Run::new(100);
    let mut frames = steady(60, 0);
    frames[33..].iter_mut().for_each(|sent| sent.muted = true);
    frames.retain(|sent| sent.seq != 32);
    run.deliver(frames, 70 * T);
    assert_eq!((run.stats().concealed, run.stats().repaired), (1, 0));
}

#[test]
fn repaired_places_count_as_concealed_ones_too() {
    let mut run = Run::new(25);
    let frames = steady(100, 0).into_iter().filter(|sent| sent.seq % 10 != 5).collect();
    run.deliver(frames, 99 * T + 34 * MS);
    let stats = run.stats();
    assert_eq!((stats.lost, stats.concealed, stats.repaired), (10, 10, 10));
}
