mod learning;
mod repair;
mod short;
mod steps;
mod verified;

use proptest::prelude::*;

use super::*;
use crate::audio::format::{FRAME, FrameDuration, STEPS};

const T: u64 = 20_000_000;
const MS: u64 = 1_000_000;
/// A level of speech, and one of a pause.
const SPEECH: u8 = 20;
const PAUSE: u8 = 90;

/// A small generator of numbers in 0..1.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One frame on its way.
#[derive(Clone, Copy)]
struct Sent {
    at: u64,
    seq: u32,
    muted: bool,
    level: u8,
}

fn speech(at: u64, seq: u32) -> Sent {
    Sent { at, seq, muted: false, level: SPEECH }
}

/// What came out at one tick.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Out {
    Played { seq: u32, at: u64 },
    Repaired { gap: usize, from: u32 },
    Concealed,
    Muted,
    Silence,
}

/// A talker and a listener in virtual time. Payloads are their sequence numbers. But for `steps`, the listener plays whole
/// frames, so that what comes out can be counted.
struct Run {
    playout: Playout,
    start: Instant,
    out: Vec<Out>,
    /// Steps of the listener so far.
    steps: u64,
    step: u64,
    /// When the first one is.
    phase: u64,
}

impl Run {
    fn new(hold_ms: u64) -> Self {
        Self::of(Config { step: FRAME, hold: Duration::from_millis(hold_ms), ..Config::default() })
    }

    fn of(config: Config) -> Self {
        let (playout, step) = (Playout::new(config), config.step.as_nanos() as u64);
        Self { playout, start: Instant::now(), out: vec![], steps: 0, step, phase: 13 * MS }
    }

    fn time(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }

    /// Delivers frames in the order of their arrival, with the ticks between them, until `until`.
    fn deliver(&mut self, mut frames: Vec<Sent>, until: u64) {
        frames.sort_by_key(|frame| frame.at);
        for frame in frames {
            self.tick_until(frame.at);
            self.push(frame);
        }
        self.tick_until(until);
    }

    fn push(&mut self, frame: Sent) -> Push {
        let payload = if frame.muted { vec![] } else { frame.seq.to_be_bytes().to_vec() };
        let arrival = Arrival { seq: frame.seq, muted: frame.muted, level: frame.level, payload: &payload };
        self.playout.push(&arrival, self.time(frame.at))
    }

    fn tick_until(&mut self, until: u64) {
        loop {
            let at = self.phase + self.steps * self.step;
            if at > until {
                return;
            }
            let now = self.time(at);
            let Piece { what, steps } = self.playout.pull(now);
            self.steps += steps as u64;
            let out = match what {
                Pull::Play(payload) => Out::Played { seq: u32::from_be_bytes(payload.try_into().unwrap()), at },
                Pull::Repair { packet, gap } => {
                    Out::Repaired { gap, from: u32::from_be_bytes(packet.try_into().unwrap()) }
                }
                Pull::Conceal => Out::Concealed,
                Pull::Muted => Out::Muted,
                Pull::Silence => Out::Silence,
            };
            self.out.push(out);
        }
    }

    fn played(&self) -> Vec<u32> {
        self.out.iter().filter_map(|out| if let Out::Played { seq, .. } = out { Some(*seq) } else { None }).collect()
    }

    fn stats(&self) -> Stats {
        self.playout.stats()
    }
}

fn steady(count: u32, first: u32) -> Vec<Sent> {
    (0..count).map(|i| speech(u64::from(i) * T, first.wrapping_add(i))).collect()
}

fn numbers(count: u32, first: u32) -> Vec<u32> {
    (0..count).map(|i| first.wrapping_add(i)).collect()
}

#[test]
fn without_loss_every_frame_is_played_once_in_order_at_every_hold_and_phase() {
    for hold in [0, 10, 20, 25, 45, 100] {
        for phase in [0, 1, 7, 13, 19] {
            let mut run = Run::new(hold);
            run.phase = phase * MS;
            run.deliver(steady(200, 5), 199 * T + 300 * MS);
            assert_eq!(run.played(), numbers(200, 5), "hold {hold}, phase {phase}");
            let stats = run.stats();
            assert_eq!((stats.received, stats.played, stats.lost, stats.late), (200, 200, 0, 0));
            assert_eq!((stats.duplicates, stats.skipped, stats.inserted, stats.reanchors), (0, 0, 0, 0));
            let held = stats.hold_ms.unwrap();
            assert!((hold as f32..=hold as f32 + 20.0).contains(&held), "hold {hold}, phase {phase}: {held}");
        }
    }
}

#[test]
fn playing_begins_at_the_first_tick_after_the_hold_and_then_goes_on_with_every_tick() {
    let mut run = Run::new(25);
    run.deliver(steady(50, 0), 49 * T);
    // Steps are at 13, 33, 53 ms ...
    assert_eq!(run.out[..3], [Out::Silence, Out::Played { seq: 0, at: 33 * MS }, Out::Played { seq: 1, at: 53 * MS }]);
    assert!(run.out[1..].iter().all(|out| matches!(out, Out::Played { .. })));
}

#[test]
fn jitter_below_the_hold_conceals_nothing() {
    for seed in 1..40 {
        for hold in [10, 25, 60] {
            let mut chance = Chance(seed);
            let mut run = Run::new(hold);
            run.phase = seed % 20 * MS;
            let jittered = steady(500, 0)
                .into_iter()
                .map(|sent| Sent { at: sent.at + (chance.next() * (hold as f64 - 0.1) * MS as f64) as u64, ..sent })
                .collect();
            run.deliver(jittered, 500 * T);
            assert_eq!(run.stats().concealed, run.stats().lost, "seed {seed}, hold {hold}");
            assert_eq!((run.stats().lost, run.stats().late), (0, 0), "seed {seed}, hold {hold}");
            let played = run.played();
            assert_eq!(played, numbers(played.len() as u32, 0), "seed {seed}, hold {hold}");
        }
    }
}

#[test]
fn five_percent_random_loss_conceals_exactly_what_was_lost() {
    for seed in 1..20 {
        let mut chance = Chance(seed);
        let mut run = Run::new(25);
        let mut frames = steady(3_000, 77);
        // The ends arrive, so that the number of places is known.
        frames.retain(|sent| sent.seq == 77 || sent.seq == 3_076 || chance.next() >= 0.05);
        let arriving = frames.len() as u64;
        // To the tick that plays the last one.
        run.deliver(frames, 2_999 * T + 34 * MS);
        let stats = run.stats();
        assert_eq!((stats.received, stats.played, stats.lost), (arriving, arriving, 3_000 - arriving), "seed {seed}");
        assert_eq!(stats.concealed, stats.lost, "seed {seed}");
        assert!(stats.lost > 100);
    }
}

#[test]
fn reordered_frames_are_played_in_order_and_second_copies_are_counted_apart() {
    let mut run = Run::new(45);
    let mut frames = steady(300, 0);
    for pair in frames.chunks_mut(2) {
        pair[0].at += 25 * MS;
    }
    let copies: Vec<Sent> = (0..300).step_by(3).map(|i| Sent { at: frames[i].at + 30 * MS, ..frames[i] }).collect();
    // Some are still in the ring, some played.
    let later: Vec<Sent> = (0..300).step_by(5).map(|i| Sent { at: frames[i].at + 200 * MS, ..frames[i] }).collect();
    let duplicates = (copies.len() + later.len()) as u64;
    frames.extend(copies);
    frames.extend(later);
    run.deliver(frames, 330 * T);
    assert_eq!(run.played(), numbers(300, 0));
    let stats = run.stats();
    assert_eq!((stats.received, stats.duplicates, stats.late, stats.lost), (300, duplicates, 0, 0));
}

#[test]
fn a_frame_that_comes_too_late_is_counted_as_late_and_not_as_lost() {
    let mut run = Run::new(25);
    let mut frames = steady(100, 0);
    frames[50].at += 70 * MS;
    frames.remove(60);
    run.deliver(frames, 99 * T);
    let stats = run.stats();
    assert_eq!((stats.late, stats.lost, stats.concealed), (1, 1, 2));
    assert_eq!(
        run.playout.push(&Arrival { seq: 50, muted: false, level: SPEECH, payload: &[1] }, run.time(2_000 * MS)),
        Push::Duplicate
    );
}

#[test]
fn numbers_wrap_around() {
    let first = u32::MAX - 30;
    let mut run = Run::new(25);
    let mut frames = steady(100, first);
    frames.remove(31);
    run.deliver(frames, 103 * T);
    let mut wanted = numbers(100, first);
    wanted.remove(31);
    assert_eq!(run.played(), wanted);
    assert_eq!((run.stats().lost, run.stats().reanchors), (1, 0));
}

#[test]
fn a_talker_who_stops_unmuted_becomes_silent_and_starts_anew_later() {
    let mut run = Run::new(25);
    run.deliver(steady(50, 0), 100 * T);
    let concealed = run.out.iter().filter(|out| **out == Out::Concealed).count();
    assert_eq!(concealed, 10, "and then silence");
    assert_eq!(run.stats().concealed, 10);
    assert_eq!(run.stats().lost, 0, "nobody knows whether more was sent");
    // 30 s later over a path that is 700 ms longer.
    let again = (0..50).map(|i| speech(1_500 * T + 700 * MS + i * T, 1_500 + i as u32)).collect();
    run.deliver(again, 1_700 * T);
    assert_eq!(run.played(), [numbers(50, 0), numbers(50, 1_500)].concat());
    assert_eq!((run.stats().lost, run.stats().late, run.stats().reanchors), (10, 0, 0), "the gap was sent, it seems");
    let held = run.stats().hold_ms.unwrap();
    assert!((25.0..45.0).contains(&held), "{held}");
}

#[test]
fn a_talker_who_mutes_and_then_stops_loses_nothing() {
    let mut run = Run::new(25);
    let mut frames = steady(80, 0);
    frames[40..].iter_mut().for_each(|sent| sent.muted = true);
    frames.extend((500..560).map(|i| speech(i * T, i as u32)));
    run.deliver(frames, 600 * T);
    assert_eq!(run.played(), [numbers(40, 0), numbers(60, 500)].concat());
    let stats = run.stats();
    assert_eq!((stats.lost, stats.played, stats.muted), (0, 140, 40));
    assert_eq!(stats.concealed, 10, "only at the very end");
    let muted = run.out.iter().filter(|out| **out == Out::Muted).count();
    assert_eq!(muted, 50, "40 frames, and 10 places in which more could have come");
}

#[test]
fn a_frame_without_sound_is_silence_in_its_place() {
    let mut run = Run::new(25);
    for i in 0..10 {
        run.tick_until(i * T);
        let arrival = Arrival { seq: i as u32, muted: false, level: 127, payload: &[] };
        assert_eq!(run.playout.push(&arrival, run.time(i * T)), Push::Queued);
    }
    run.tick_until(9 * T + 34 * MS);
    assert!(run.out.iter().all(|out| *out == Out::Silence));
    assert_eq!((run.stats().played, run.stats().concealed), (10, 0));
}

/// An hour of speech with a pause of 0.6 s every 4 s, by a talker whose clock is off by so much.
fn drifting(ppm: i64) -> Run {
    let mut run = Run::new(25);
    let mut chance = Chance(3);
    let mut worst = (u64::MAX, 0);
    for i in 0..180_000u64 {
        let at =
            (i as i64 * T as i64 * (1_000_000 + ppm) / 1_000_000) as u64 + (chance.next() * 10.0 * MS as f64) as u64;
        let level = if i % 200 < 170 { SPEECH } else { PAUSE };
        run.tick_until(at);
        run.push(Sent { at, seq: i as u32, muted: false, level });
        if i > 1_000 {
            let held = run.stats().hold_ms.unwrap() as u64;
            worst = (worst.0.min(held), worst.1.max(held));
        }
    }
    // Up to 10 ms of it are jitter: hold − margin at the least, hold + frame + margin + what drifts in 4 s at most.
    assert!(worst.0 >= 10 && worst.1 <= 52, "{ppm} ppm: mean hold between {worst:?} ms");
    run
}

#[test]
fn drifting_clocks_do_not_change_the_delay_and_never_cost_a_syllable() {
    for ppm in [-200, 200] {
        let run = drifting(ppm);
        let stats = run.stats();
        // 200 ppm of an hour are 36 frames.
        let (corrected, other) =
            if ppm < 0 { (stats.skipped, stats.inserted) } else { (stats.inserted, stats.skipped) };
        assert!((34..=38).contains(&corrected), "{ppm} ppm: {corrected}");
        assert_eq!((other, stats.lost, stats.late, stats.reanchors), (0, 0, 0, 0), "{ppm} ppm");
        let played: std::collections::HashSet<u32> = run.played().into_iter().collect();
        let last = *played.iter().max().unwrap();
        assert!((0..last).all(|seq| seq % 200 >= 170 || played.contains(&seq)), "no speech was skipped");
        let mut before = Out::Silence;
        for out in &run.out {
            // An inserted place repeats the pause: what was played before belongs to it, or was its last speech.
            if let (Out::Concealed, Out::Played { seq, .. }) = (out, before) {
                assert!(seq % 200 >= 169, "inserted after {seq}");
            }
            before = *out;
        }
    }
}

#[test]
fn a_first_frame_that_was_slow_does_not_make_the_delay_long_for_ever() {
    let mut run = Run::new(25);
    let mut frames = steady(500, 0);
    // A jam: the first eight come together when it ends.
    frames[..8].iter_mut().for_each(|sent| sent.at = 7 * T);
    frames[400..].iter_mut().for_each(|sent| sent.level = PAUSE);
    run.deliver(frames, 500 * T);
    let stats = run.stats();
    assert_eq!((stats.lost, stats.late), (0, 0));
    let at = |wanted| {
        run.out.iter().find_map(|out| match out {
            Out::Played { seq, at } if *seq == wanted => Some(*at),
            _ => None,
        })
    };
    assert!(at(100).unwrap() - 100 * T <= 25 * MS + 20 * MS, "what was old at the start was given up");
    assert!(stats.skipped >= 5, "{}", stats.skipped);
}

#[test]
fn a_delay_that_is_a_little_long_is_shortened_in_pauses_only() {
    let mut run = Run::new(25);
    let mut frames = steady(1_000, 0);
    // The path becomes 60 ms shorter after the start, without a jam.
    frames.iter_mut().take(100).for_each(|sent| sent.at += 60 * MS);
    frames.iter_mut().filter(|sent| (500..700).contains(&sent.seq)).for_each(|sent| sent.level = PAUSE);
    run.deliver(frames, 1_000 * T);
    let stats = run.stats();
    assert_eq!((stats.skipped, stats.lost, stats.reanchors), (3, 0, 0));
    let played = run.played();
    assert!((0..900).all(|seq| (500..700).contains(&seq) || played.contains(&seq)));
    let held = stats.hold_ms.unwrap();
    assert!((20.0..50.0).contains(&held), "{held}");
}

#[test]
fn a_delay_that_is_much_too_long_is_cut_even_in_speech() {
    let mut run = Run::new(25);
    let mut frames = steady(1_000, 0);
    frames.iter_mut().take(100).for_each(|sent| sent.at += 500 * MS);
    run.deliver(frames, 1_000 * T);
    let stats = run.stats();
    assert_eq!((stats.reanchors, stats.late), (1, 0));
    let held = stats.hold_ms.unwrap();
    assert!((20.0..50.0).contains(&held), "{held}");
}

#[test]
fn a_path_that_becomes_longer_heals_within_a_second() {
    for longer in [50, 150, 400, 900] {
        let mut run = Run::new(25);
        let mut frames = steady(300, 0);
        frames[100..].iter_mut().for_each(|sent| sent.at += longer * MS);
        run.deliver(frames, 299 * T);
        let gap = run.out.iter().skip(3).filter(|out| !matches!(out, Out::Played { .. })).count() as u64;
        assert!(gap * 20 <= longer + 600, "{longer} ms longer: {} ms without sound", gap * 20);
        let held = run.stats().hold_ms.unwrap();
        assert!((20.0..50.0).contains(&held), "{longer}: {held}");
    }
}

#[test]
fn a_hiccup_of_the_listeners_clock_changes_nothing() {
    let mut run = Run::new(60);
    for i in 0..300u64 {
        // The pause in which a correction would be heard by nobody.
        run.push(Sent { at: i * T, seq: i as u32, muted: false, level: PAUSE });
        // For 0.3 s there are no ticks; then all come at once.
        if !(100..115).contains(&i) {
            while run.steps <= i {
                run.steps += 1;
                let now = run.time(i * T + MS);
                let _ = run.playout.pull(now);
            }
        }
    }
    let stats = run.stats();
    assert_eq!((stats.skipped, stats.inserted, stats.lost, stats.reanchors), (0, 0, 0, 0));
}

#[test]
fn one_wrong_number_does_not_disturb_a_healthy_stream() {
    for wrong in [60u32, 64, 100, 5_000, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX - 1_000] {
        let mut run = Run::new(25);
        let mut frames = steady(600, 1_000);
        // Sixty apart, so that the ones inside the ring are long past when their place comes.
        frames.extend((0..5).map(|i| speech((100 + i * 60) * T + MS, (1_100 + i as u32 * 60).wrapping_add(wrong))));
        run.deliver(frames, 599 * T);
        let played = run.played();
        let honest = played.iter().filter(|seq| (1_000..1_597).contains(*seq)).count();
        assert_eq!(honest, 597, "wrong by {wrong}");
        let stats = run.stats();
        assert_eq!((stats.reanchors, stats.skipped, stats.inserted, stats.lost), (0, 0, 0, 0), "wrong by {wrong}");
    }
}

#[test]
fn a_talker_who_counts_anew_is_followed() {
    for jump in [70u32, 1_000_000, u32::MAX / 2 + 5] {
        let mut run = Run::new(25);
        let mut frames = steady(100, 10);
        frames.extend((100..300).map(|i| speech(i * T, (10 + i as u32).wrapping_add(jump))));
        run.deliver(frames, 300 * T);
        let tail = run.out.iter().rev().take(150).filter(|out| matches!(out, Out::Played { .. })).count();
        assert!(tail >= 145, "jump by {jump}: {tail}");
    }
    // Backwards into what has been: everything is late for a second, then believed.
    let mut run = Run::new(25);
    let mut frames = steady(200, 1_000);
    frames.extend((200..400).map(|i| speech(i * T, i as u32 - 200)));
    run.deliver(frames, 400 * T);
    assert_eq!(run.stats().reanchors, 1);
    let tail = run.out.iter().rev().take(140).filter(|out| matches!(out, Out::Played { .. })).count();
    assert_eq!(tail, 140);
}

#[test]
fn a_payload_that_is_too_long_is_refused() {
    let mut playout = Playout::new(Config::default());
    let payload = [0; MAX_PAYLOAD + 1];
    let push = playout.push(&Arrival { seq: 0, muted: false, level: 0, payload: &payload }, Instant::now());
    assert_eq!(push, Push::TooLong);
    assert_eq!(playout.pull(Instant::now() + Duration::from_secs(1)), Piece::SILENCE);
}

/// What a hostile talker and a confused clock may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push { seq: u32, muted: bool, level: u8, len: usize },
    Next { ahead: u32 },
    Pull,
    Time { to: u64 },
    Wait { nanos: u64 },
    Hold { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<u32>(), any::<bool>(), any::<u8>(), 0..=MAX_PAYLOAD + 1)
            .prop_map(|(seq, muted, level, len)| Step::Push { seq, muted, level, len }),
        6 => (0u32..70).prop_map(|ahead| Step::Next { ahead }),
        6 => Just(Step::Pull),
        1 => any::<u64>().prop_map(|to| Step::Time { to: to >> 8 }),
        4 => (0u64..100_000_000).prop_map(|nanos| Step::Wait { nanos }),
        1 => (0u64..2_000).prop_map(|ms| Step::Hold { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_arrives_whenever_the_playout_goes_on(
        steps in prop::collection::vec(step(), 1..400),
        mut hold in 0u64..2_000,
    ) {
        let config = Config { hold: Duration::from_millis(hold), learn: hold % 2 == 1, ..Config::default() };
        let mut playout = Playout::new(config);
        let start = Instant::now();
        let (mut time, mut seq, mut pulls) = (0u64, 0u32, 0u64);
        for step in &steps {
            let now = start + Duration::from_nanos(time);
            match *step {
                Step::Push { seq, muted, level, len } => {
                    playout.push(&Arrival { seq, muted, level, payload: &[7; MAX_PAYLOAD + 1][..len] }, now);
                }
                Step::Next { ahead } => {
                    seq = seq.wrapping_add(ahead);
                    playout.push(&Arrival { seq, muted: ahead % 7 == 0, level: ahead as u8, payload: &[7; 3] }, now);
                }
                Step::Pull => {
                    pulls += 1;
                    prop_assert!((1..=STEPS).contains(&playout.pull(now).steps));
                }
                Step::Time { to } => time = to,
                Step::Wait { nanos } => time = time.saturating_add(nanos),
                Step::Hold { ms } => {
                    hold = ms;
                    playout.set_hold(Duration::from_millis(ms), now);
                }
            }
            let stats = playout.stats();
            prop_assert!(stats.played + stats.inserted <= pulls);
            // A hole is played and concealed.
            prop_assert!(stats.concealed + stats.inserted <= pulls);
            prop_assert!(stats.played + stats.skipped + stats.late <= stats.received);
            prop_assert_eq!(playout.slots.len(), 128);
            let in_window = |index: &i64| (playout.next..playout.next + playout.room()).contains(index);
            let mut queued = playout.slots.iter().filter_map(|slot| slot.index);
            prop_assert!(queued.all(|index| in_window(&index) && index <= playout.newest));
        }
        // And it always comes back: an honest stream from now on is heard within two seconds.
        let first = seq.wrapping_add(1);
        for i in 0..300u64 {
            let now = start + Duration::from_nanos(time.saturating_add(i * T));
            let seq = first.wrapping_add(i as u32);
            playout.push(&Arrival { seq, muted: false, level: 20, payload: &[7; 3] }, now);
            let _ = playout.pull(now);
        }
        prop_assert!(playout.stats().played > 0 || hold > 1_000);
    }
}
