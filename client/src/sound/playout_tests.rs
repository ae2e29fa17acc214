use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const T: u64 = 20 * MS;

/// A frame on its way: when it arrives (ns), its number, what its talker was doing.
type Arrival = (u64, u32, Activity);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Frame(u32),
    Conceal,
    Silence,
}

/// A playout, driven in virtual time.
struct Listener {
    playout: Playout,
    start: Instant,
    heard: Vec<Heard>,
}

impl Listener {
    fn new() -> Self {
        Self { playout: Playout::new(Config::default()), start: Instant::now(), heard: Vec::new() }
    }

    fn push(&mut self, at: u64, seq: u32, activity: Activity) -> Pushed {
        self.playout.push(seq, activity, &seq.to_le_bytes(), self.start + Duration::from_nanos(at))
    }

    fn pull(&mut self, at: u64) -> Heard {
        let heard = match self.playout.pull(self.start + Duration::from_nanos(at)) {
            Pull::Play(payload) => Heard::Frame(u32::from_le_bytes(payload.try_into().unwrap())),
            Pull::Conceal => Heard::Conceal,
            Pull::Silence => Heard::Silence,
        };
        self.heard.push(heard);
        heard
    }

    /// Delivers `arrivals` and pulls every 20 ms from `phase` on, until 1 s after the last arrival.
    fn run(mut arrivals: Vec<Arrival>, phase: u64) -> Self {
        arrivals.sort_by_key(|arrival| arrival.0);
        let mut listener = Self::new();
        let end = arrivals.last().map_or(0, |arrival| arrival.0) + 1_000 * MS;
        let mut arrivals = arrivals.into_iter().peekable();
        for at in (phase..end).step_by(T as usize) {
            while let Some((at, seq, activity)) = arrivals.next_if(|arrival| arrival.0 <= at) {
                listener.push(at, seq, activity);
            }
            listener.pull(at);
        }
        listener
    }

    fn frames(&self) -> Vec<u32> {
        let frame = |heard: &Heard| if let Heard::Frame(seq) = heard { Some(*seq) } else { None };
        self.heard.iter().filter_map(frame).collect()
    }

    fn stats(&self) -> PlayoutStats {
        self.playout.stats()
    }
}

/// A small seeded generator: the tests' losses and delays must be the same every time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn speech(count: u32) -> Vec<Arrival> {
    (0..count).map(|n| (u64::from(n) * T, n, Activity::Speech)).collect()
}

#[test]
fn without_loss_every_frame_is_played_once_and_in_order() {
    for phase in [0, 3 * MS, 10 * MS, 19 * MS] {
        let listener = Listener::run(speech(500), phase);
        assert_eq!(listener.frames(), (0..500).collect::<Vec<_>>());
        let stats = listener.stats();
        assert_eq!((stats.received, stats.played, stats.late, stats.duplicates), (500, 500, 0, 0));
        assert_eq!((stats.skipped, stats.inserted, stats.reanchors), (0, 0, 0));
        // After the last frame the talker is only known to be gone when ten are missing.
        assert_eq!((stats.lost, stats.concealed), (10, 10));
    }
}

#[test]
fn first_frame_is_played_at_the_first_pull_after_the_hold() {
    for (arrival, expected) in [(0, 60), (15, 60), (16, 80), (19, 80)] {
        let mut listener = Listener::new();
        listener.push(arrival * MS, 7, Activity::Speech);
        let played = (0..10).find(|n| listener.pull(n * T) == Heard::Frame(7)).unwrap();
        assert_eq!(played * 20, expected, "arrival at {arrival} ms");
        assert_eq!(listener.stats().hold_ms, Some((expected - arrival) as f32));
    }
}

#[test]
fn jitter_below_the_hold_conceals_nothing() {
    for seed in 0..20 {
        let mut random = Seeded(seed);
        let mut arrivals = speech(3_000);
        arrivals.iter_mut().for_each(|arrival| arrival.0 += random.below(44 * MS));
        let stats = Listener::run(arrivals, random.below(T)).stats();
        assert_eq!((stats.played, stats.late, stats.concealed), (3_000, 0, 10), "seed {seed}");
    }
}

#[test]
fn every_lost_frame_is_concealed_once() {
    for seed in 0..20 {
        let mut random = Seeded(seed);
        let (mut lost, mut arrivals) = (0, speech(3_000));
        arrivals.retain(|arrival| {
            let keep = arrival.1 == 0 || arrival.1 == 2_999 || random.below(20) > 0;
            lost += u64::from(!keep);
            keep
        });
        let listener = Listener::run(arrivals.clone(), random.below(T));
        let stats = listener.stats();
        assert!(lost > 100);
        assert_eq!(listener.frames(), arrivals.iter().map(|arrival| arrival.1).collect::<Vec<_>>());
        assert_eq!((stats.lost, stats.concealed), (lost + 10, lost + 10), "seed {seed}");
        assert_eq!((stats.played, stats.skipped, stats.inserted), (3_000 - lost, 0, 0));
    }
}

#[test]
fn frames_that_overtake_each_other_are_put_in_order() {
    let mut arrivals = speech(300);
    arrivals.iter_mut().filter(|arrival| arrival.1 % 3 == 1).for_each(|arrival| arrival.0 += 25 * MS);
    assert_eq!(Listener::run(arrivals, 0).frames(), (0..300).collect::<Vec<_>>());
}

#[test]
fn first_frames_that_overtake_each_other_are_all_played_in_order() {
    let arrivals = [(30, 1), (31, 0), (45, 2), (60, 3)];
    let arrivals = arrivals.map(|(at, seq)| (at * MS, seq, Activity::Speech)).to_vec();
    let listener = Listener::run(arrivals, 0);
    assert_eq!(listener.frames(), [0, 1, 2, 3]);
    assert_eq!(listener.heard[..4], [Heard::Silence, Heard::Silence, Heard::Silence, Heard::Frame(0)]);
}

#[test]
fn duplicates_are_counted_and_played_once() {
    let mut arrivals = speech(300);
    arrivals.extend(speech(300).into_iter().map(|(at, seq, activity)| (at + 7 * MS, seq, activity)));
    arrivals.extend(speech(300).into_iter().map(|(at, seq, activity)| (at + 200 * MS, seq, activity)));
    let listener = Listener::run(arrivals, 0);
    assert_eq!(listener.frames(), (0..300).collect::<Vec<_>>());
    let stats = listener.stats();
    assert_eq!((stats.received, stats.duplicates, stats.late, stats.lost), (900, 600, 0, 10));
}

#[test]
fn late_frame_is_lost_and_delays_nothing() {
    let mut arrivals = speech(100);
    arrivals[50].0 += 90 * MS;
    let listener = Listener::run(arrivals, 0);
    let stats = listener.stats();
    assert_eq!((stats.late, stats.lost, stats.concealed, stats.played), (1, 11, 11, 99));
    let at = listener.heard.iter().position(|heard| *heard == Heard::Frame(49)).unwrap();
    assert_eq!(listener.heard[at + 1..at + 3], [Heard::Conceal, Heard::Frame(51)]);
}

/// An hour of a talker whose clock is `ppm` fast: 8 s of speech, then 2 s of quiet, over and over.
fn hour_with_drift(ppm: i64, jitter: u64, quiet: Activity) -> (Vec<(u64, Heard)>, PlayoutStats, f64) {
    let mut listener = Listener::new();
    let mut random = Seeded(1);
    let (mut log, mut longest) = (Vec::new(), 0.0_f64);
    let (mut seq, mut sent) = (0_u32, 0_u64);
    let period = (T as i64 * (1_000_000 - ppm) / 1_000_000) as u64;
    for tick in 0..180_000_u64 {
        while sent <= tick * T {
            let activity = if seq % 500 < 400 { Activity::Speech } else { quiet };
            listener.push(sent + random.below(jitter), seq, activity);
            seq += 1;
            sent += period;
        }
        // The frames' jitter is below a tick, so that delivering them at once keeps them in order of time.
        let heard = listener.pull(tick * T + 20 * MS);
        log.push((tick, heard));
        longest = longest.max(f64::from(listener.stats().hold_ms.unwrap_or(0.0)));
    }
    (log, listener.stats(), longest)
}

#[test]
fn drifting_clocks_neither_grow_the_delay_nor_touch_speech() {
    for quiet in [Activity::Silent, Activity::Muted] {
        for ppm in [200, -200] {
            let (log, stats, longest) = hour_with_drift(ppm, 10 * MS, quiet);
            // 200 ppm of an hour are 720 ms, that is 36 frames.
            let (skipped, inserted) = if ppm > 0 { (36, 0) } else { (0, 36) };
            assert!(stats.skipped.abs_diff(skipped) <= 2, "{ppm}: {stats:?}");
            assert!(stats.inserted.abs_diff(inserted) <= 2, "{ppm}: {stats:?}");
            assert_eq!((stats.lost, stats.late, stats.reanchors), (0, 0, 0), "{ppm}");
            assert!(longest < 75.0, "{ppm}: {longest} ms");
            let spoken = log.iter().filter_map(|(tick, heard)| match heard {
                Heard::Frame(seq) if seq % 500 < 400 => Some((*tick, *seq)),
                _ => None,
            });
            let spoken: Vec<_> = spoken.collect();
            assert!(spoken.len() > 143_000);
            for pair in spoken.windows(2) {
                let ((tick, seq), (next_tick, next_seq)) = (pair[0], pair[1]);
                if seq % 500 < 399 {
                    assert_eq!((next_tick, next_seq), (tick + 1, seq + 1));
                } else {
                    assert_eq!(next_seq, seq + 101);
                }
            }
        }
    }
}

#[test]
fn endless_speech_is_never_corrected() {
    let drifting = (0..30_000_u64).map(|n| (n * (T - 4_000), n as u32, Activity::Speech)).collect();
    let stats = Listener::run(drifting, 0).stats();
    assert_eq!((stats.played, stats.skipped, stats.inserted, stats.concealed), (30_000, 0, 0, 10));
}

#[test]
fn unusually_late_first_frame_is_made_up_for_in_the_first_pause() {
    let mut arrivals: Vec<Arrival> = (0..400)
        .map(|n| (u64::from(n) * T + 100 * MS, n, if n < 200 { Activity::Speech } else { Activity::Silent }))
        .collect();
    arrivals[0].0 += 60 * MS;
    arrivals[1].0 += 41 * MS;
    let listener = Listener::run(arrivals, 0);
    let stats = listener.stats();
    assert_eq!((stats.skipped, stats.inserted, stats.lost - stats.concealed), (2, 0, 0));
    assert!(listener.frames().starts_with(&(0..200).collect::<Vec<_>>()));
    assert!(stats.hold_ms.unwrap() < 70.5, "{stats:?}");
}

#[test]
fn longer_path_is_made_up_for_in_a_pause() {
    let arrival = |n: u32| {
        let longer = if n < 200 { 0 } else { 30 * MS };
        (u64::from(n) * T + longer, n, if n % 300 < 200 { Activity::Speech } else { Activity::Silent })
    };
    let listener = Listener::run((0..1_000).map(arrival).collect(), 0);
    let stats = listener.stats();
    assert_eq!((stats.played, stats.late, stats.skipped), (1_000, 0, 0));
    assert_eq!(stats.inserted, 1);
    assert!((45.0..66.0).contains(&stats.hold_ms.unwrap()), "{stats:?}");
}

#[test]
fn path_that_becomes_much_longer_is_followed_at_once() {
    let arrival = |n: u32| (u64::from(n) * T + if n < 200 { 0 } else { 150 * MS }, n, Activity::Speech);
    let listener = Listener::run((0..400).map(arrival).collect(), 0);
    let stats = listener.stats();
    assert_eq!(stats.reanchors, 1);
    assert!(stats.played >= 385, "{stats:?}");
    assert!(listener.frames().ends_with(&(250..400).collect::<Vec<_>>()));
}

#[test]
fn listener_that_was_stopped_for_a_while_catches_up_in_pauses() {
    let mut listener = Listener::new();
    for n in 0..3_000_u64 {
        let activity = if n % 100 < 50 { Activity::Speech } else { Activity::Silent };
        listener.push(n * T, n as u32, activity);
        if !(100..110).contains(&n) {
            listener.pull(n * T);
        }
    }
    let stats = listener.stats();
    assert_eq!((stats.skipped, stats.lost, stats.reanchors), (10, 0, 0));
    assert!(stats.hold_ms.unwrap() < 70.5, "{stats:?}");
}

#[test]
fn talker_who_stops_while_muted_loses_nothing() {
    let mut arrivals: Vec<Arrival> =
        (0..100).map(|n| (u64::from(n) * T, n, if n < 50 { Activity::Speech } else { Activity::Muted })).collect();
    arrivals.extend((0..100).map(|n| (20_003 * MS + u64::from(n) * T, 1_000 + n, Activity::Speech)));
    let listener = Listener::run(arrivals, 0);
    let stats = listener.stats();
    assert_eq!((stats.played, stats.lost, stats.concealed, stats.reanchors), (200, 10, 10, 0));
    assert_eq!(listener.frames(), (0..50).chain(1_000..1_100).collect::<Vec<_>>());
    let resumed = listener.heard.iter().position(|heard| *heard == Heard::Frame(1_000)).unwrap();
    assert_eq!(resumed as u64 * 20, 20_060, "a fresh hold of 45 ms, to the next tick");
}

#[test]
fn talker_who_vanishes_is_concealed_for_ten_frames_only() {
    let listener = Listener::run(speech(20), 0);
    let last = listener.heard.iter().rposition(|heard| *heard == Heard::Frame(19)).unwrap();
    assert_eq!(listener.heard[last + 1..last + 11], [Heard::Conceal; 10]);
    assert!(listener.heard[last + 11..].iter().all(|heard| *heard == Heard::Silence));
    assert!(listener.playout.is_idle());
}

#[test]
fn long_loss_in_the_middle_of_speech_keeps_the_time() {
    let mut arrivals = speech(200);
    arrivals.retain(|arrival| !(100..112).contains(&arrival.1));
    let listener = Listener::run(arrivals, 0);
    let at = |seq| listener.heard.iter().position(|heard| *heard == Heard::Frame(seq)).unwrap();
    assert_eq!(at(112) - at(99), 13);
    assert_eq!(listener.heard[at(99) + 1..at(112)], [[Heard::Conceal; 10].as_slice(), &[Heard::Silence; 2]].concat());
    assert_eq!((listener.stats().lost, listener.stats().concealed), (22, 20));
}

#[test]
fn numbers_wrap_without_a_gap() {
    let first = u32::MAX - 100;
    let arrivals = (0..300).map(|n| (u64::from(n) * T, first.wrapping_add(n), Activity::Speech));
    let listener = Listener::run(arrivals.collect(), 0);
    assert_eq!(listener.frames(), (0..300).map(|n| first.wrapping_add(n)).collect::<Vec<_>>());
    assert_eq!((listener.stats().lost, listener.stats().reanchors), (10, 0));
}

#[test]
fn single_wrong_numbers_do_not_disturb_a_stream() {
    for wrong in [u32::MAX, 1 << 31, 5_000, 160, 130, 0] {
        let mut arrivals = speech(1_000);
        // Long pauses, so that corrections would be possible.
        arrivals.iter_mut().filter(|arrival| arrival.1 > 50).for_each(|arrival| arrival.2 = Activity::Silent);
        arrivals.insert(100, (100 * T + MS, wrong, Activity::Silent));
        arrivals.insert(101, (100 * T + MS, wrong, Activity::Silent));
        let listener = Listener::run(arrivals, 0);
        let stats = listener.stats();
        assert_eq!((stats.reanchors, stats.skipped, stats.inserted), (0, 0, 0), "{wrong}");
        assert_eq!(listener.frames(), (0..1_000).collect::<Vec<_>>(), "{wrong}");
    }
}

#[test]
fn clock_that_jumped_ahead_is_followed_after_a_few_frames() {
    let arrival = |n: u32| (u64::from(n) * T, if n < 100 { n } else { 90_000 + n }, Activity::Speech);
    let listener = Listener::run((0..300).map(arrival).collect(), 0);
    assert_eq!(listener.stats().reanchors, 1);
    assert!(listener.frames().ends_with(&(90_102..90_300).collect::<Vec<_>>()));
}

#[test]
fn clock_that_jumped_back_is_followed_after_a_second() {
    let arrival = |n: u32| (u64::from(n) * T, if n < 1_000 { 50_000 + n } else { n }, Activity::Speech);
    let listener = Listener::run((0..1_300).map(arrival).collect(), 0);
    let stats = listener.stats();
    assert_eq!((stats.reanchors, stats.late), (1, 50));
    assert!(listener.frames().ends_with(&(1_050..1_300).collect::<Vec<_>>()));
}

#[test]
fn muted_and_empty_frames_are_silent_but_played() {
    let mut listener = Listener::new();
    let at = listener.start;
    assert_eq!(listener.playout.push(0, Activity::Muted, &[1; PACKET_LEN], at), Pushed::Queued);
    assert_eq!(listener.playout.push(1, Activity::Speech, &[], at), Pushed::Queued);
    assert!((3..6).all(|n| listener.pull(n * T) != Heard::Frame(0)));
    assert_eq!(listener.heard, [Heard::Silence, Heard::Silence, Heard::Conceal]);
    assert_eq!(listener.stats().played, 2);
}

#[test]
fn packet_larger_than_any_is_refused() {
    let mut listener = Listener::new();
    let now = listener.start;
    assert_eq!(listener.playout.push(0, Activity::Speech, &[0; PACKET_LEN + 1], now), Pushed::TooLarge);
    assert!(listener.playout.is_idle());
    assert_eq!(listener.stats(), PlayoutStats::default());
}

#[derive(Debug, Clone)]
enum Step {
    Push(u32, Activity, usize),
    Pull,
    Time(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let seq = prop_oneof![0_u32..200, any::<u32>(), (u32::MAX - 100)..=u32::MAX, (1_u32 << 31)..(1 << 31) + 100];
    let activity = prop_oneof![Just(Activity::Muted), Just(Activity::Silent), Just(Activity::Speech)];
    prop_oneof![
        4 => (seq, activity, 0_usize..100).prop_map(|(seq, activity, length)| Step::Push(seq, activity, length)),
        4 => Just(Step::Pull),
        3 => (0_i64..100_000_000).prop_map(Step::Time),
        1 => prop_oneof![any::<i64>(), -10_000_000_000_i64..10_000_000_000].prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_sequence_of_frames_and_times_breaks_it(
        steps in prop::collection::vec(step(), 0..300),
        frame in prop_oneof![Just(20_000_000_u64), any::<u64>()],
        hold in prop_oneof![Just(45_000_000_u64), any::<u64>()],
    ) {
        let config = Config {
            frame: Duration::from_nanos(frame), hold: Duration::from_nanos(hold), margin: Duration::from_millis(5),
        };
        let mut playout = Playout::new(config);
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Push(seq, activity, length) => drop(playout.push(seq, activity, &vec![1; length], now)),
                Step::Pull => drop(playout.pull(now)),
                Step::Time(nanos) => {
                    let step = Duration::from_nanos(nanos.unsigned_abs());
                    let moved = if nanos < 0 { now.checked_sub(step) } else { now.checked_add(step) };
                    now = moved.unwrap_or(now);
                }
            }
            prop_assert_eq!(playout.queued, playout.slots.iter().filter(|s| s.state == SlotState::Queued).count());
            let stats = playout.stats();
            prop_assert!(stats.played + stats.skipped + stats.late + stats.duplicates <= stats.received);
            prop_assert!(stats.concealed <= stats.lost);
        }
    }
}
