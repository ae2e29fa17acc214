use std::path::Path;
use std::time::Duration;

use super::*;
use crate::audio::format::{FRAME, FrameDuration, SAMPLE_RATE};
use crate::audio::resample::converted;
use crate::audio::source::{Recording, Repeat};
use crate::audio::spoken;

/// Two engines in virtual time over a path that delays every frame by the same and loses what `lost` says.
struct Call {
    speaker: MediaEngine,
    listener: MediaEngine,
    frame: FrameDuration,
    start: Instant,
    tick: u32,
}

const SPEAKER: u16 = 7;

impl Call {
    fn new(source: Source, sink: Sink) -> Self {
        Self::of(FrameDuration::Ms20, source, sink)
    }

    fn of(frame: FrameDuration, source: Source, sink: Sink) -> Self {
        let mut call = Self {
            speaker: engine_of(frame, source, Sink::Null),
            listener: engine_of(frame, Source::Silence, sink),
            frame,
            start: Instant::now(),
            tick: 0,
        };
        call.listener.add_talker(SPEAKER).unwrap();
        call
    }

    fn tick(&mut self, muted: bool, arrives: bool) {
        let now = self.start + self.frame.duration() * self.tick;
        let captured = self.speaker.capture(muted);
        let opus = if muted { &[] } else { captured.opus };
        if arrives {
            let after = now + Duration::from_millis(3);
            self.listener.receive(SPEAKER, self.tick, muted, captured.level, opus, after);
        }
        self.listen();
    }

    /// A frame without sound comes, of this level.
    fn tick_empty(&mut self, level: u8) {
        let now = self.start + self.frame.duration() * self.tick;
        self.speaker.capture(false);
        self.listener.receive(SPEAKER, self.tick, false, level, &[], now + Duration::from_millis(3));
        self.listen();
    }

    fn listen(&mut self) {
        self.listener.render(self.start + self.frame.duration() * self.tick + STEP);
        self.tick += 1;
    }

    fn stats(&self) -> Stats {
        self.listener.stats(SPEAKER).unwrap()
    }
}

fn engine(source: Source, sink: Sink) -> MediaEngine {
    MediaEngine::new(source, sink).unwrap()
}

fn engine_of(frame: FrameDuration, source: Source, sink: Sink) -> MediaEngine {
    MediaEngine::with_config(source, sink, Config::of(frame)).unwrap()
}

fn read(path: &Path) -> Vec<i16> {
    hound::WavReader::open(path).unwrap().samples().map(Result::unwrap).collect()
}

/// The spoken clips of Debian's alsa-utils, one after the other: 48 kHz, mono.
fn spoken() -> Vec<i16> {
    let names = ["Front_Center", "Front_Left", "Front_Right", "Rear_Center", "Rear_Left", "Rear_Right"];
    names.into_iter().flat_map(spoken::clip).collect()
}

fn at_16_khz(samples: &[i16]) -> Vec<i16> {
    let floats: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    converted(&floats, SAMPLE_RATE, 16_000).into_iter().map(mixer::sample_to_i16).collect()
}

/// PESQ-WB of what the listener's file holds after a call with this loss.
fn scored(frame: FrameDuration, spoken: &[i16], lost: impl Fn(u32) -> bool) -> (f32, Stats) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heard.wav");
    let source = Source::Wav(Recording::new(spoken.to_vec(), Repeat::Once));
    let mut call = Call::of(frame, source, Sink::open(path.to_str().unwrap()).unwrap());
    for n in 0..(spoken.len() / samples(frame) + 20) as u32 {
        call.tick(false, !lost(n));
        // Virtual time runs faster than the disk.
        while call.listener.sink.waiting() > 100 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let stats = call.stats();
    assert_eq!(call.listener.faults(), Faults::default());
    call.listener.finish().unwrap();
    (pesq::pesq_wb(&at_16_khz(spoken), &at_16_khz(&read(&path))).unwrap(), stats)
}

#[test]
fn what_the_codec_cannot_stand_is_not_heard_louder_than_it_was() {
    // Chirps of 60 ms between 300 and 5,000 Hz, two a second, out of silence.
    let amplitude = 0.05;
    let chirps: Vec<i16> = (0..FRAME_SAMPLES * 500)
        .map(|i| (i % (SAMPLE_RATE as usize / 2)) as f64 / f64::from(SAMPLE_RATE))
        .map(|t| {
            let fade = (std::f64::consts::PI * t / 0.06).sin().powi(2);
            let phase = std::f64::consts::TAU * (300.0 * t + 4_700.0 * t * t / 0.12);
            if t < 0.06 { (amplitude * fade * phase.sin() * 32_767.0) as i16 } else { 0 }
        })
        .collect();
    let mut call = Call::new(Source::Wav(Recording::new(chirps, Repeat::Once)), Sink::Null);
    let (mut loudest_said, mut loudest_heard) = (LEVEL_SILENT, LEVEL_SILENT);
    for _ in 0..500 {
        call.tick(false, true);
        loudest_said = loudest_said.min(call.speaker.own_levels().0);
        loudest_heard = loudest_heard.min(call.listener.level(SPEAKER).unwrap());
    }
    assert!(loudest_heard < LEVEL_SILENT && loudest_heard + 10 >= loudest_said, "{loudest_heard} of {loudest_said}");
}

#[test]
fn skipped_frames_pass_in_time_as_captured_ones_do() {
    let samples: Vec<i16> = (0..FRAME_SAMPLES * 3).map(|i| (i % 2_000) as i16 * 8).collect();
    let engine = || engine(Source::Wav(Recording::new(samples.clone(), Repeat::Once)), Sink::Null);
    let (mut skipping, mut muted) = (engine(), engine());
    skipping.skip(2);
    muted.capture(true);
    muted.capture(true);
    let level = skipping.capture(false).level;
    assert_eq!(level, muted.capture(false).level);
    assert!(level < LEVEL_SILENT);
    assert_eq!(skipping.capture(false).level, LEVEL_SILENT);
}

#[test]
fn real_speech_comes_through_the_whole_pipeline_with_a_pesq_of_at_least_4() {
    let spoken = spoken();
    for frame in FrameDuration::ALL {
        let (score, stats) = scored(frame, &spoken, |_| false);
        println!("{frame:?}, PESQ-WB without loss: {score:.3}; {stats:?}");
        assert_eq!((stats.lost, stats.late, stats.concealed), (0, 0, 0));
        assert!(score >= 4.0, "{frame:?}: {score}");
        let (lossy, stats) = scored(frame, &spoken, |n| n % 20 == 10);
        println!("{frame:?}, PESQ-WB with one frame in 20 lost: {lossy:.3}; {stats:?}");
        assert_eq!(stats.lost, stats.concealed);
        assert!(lossy < score, "the measure must see the loss");
        assert!(lossy > 2.0, "{frame:?}: {lossy}");
    }
}

#[test]
fn a_tone_in_short_frames_is_heard_sooner_and_a_gap_of_it_is_filled() {
    let mut call = Call::of(FrameDuration::Ms10, Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    for n in 0..100 {
        call.tick(false, n != 50);
        let level = call.listener.level(SPEAKER).unwrap();
        // What is made up of a tone need not fit to it.
        let is_steady = n > 5 && !(50..60).contains(&n);
        assert!(!is_steady || (22..=24).contains(&level), "tick {n}: {level}");
        assert!(n < 5 || level < 50, "tick {n}: {level}");
    }
    let stats = call.stats();
    // Sent at 0, there at 3, steps at 10, 15: held for 12 ms.
    assert_eq!((stats.received, stats.played, stats.repaired, stats.hold_ms), (99, 98, 1, Some(12.0)));
    assert_eq!(call.listener.faults(), Faults::default());
}

#[test]
fn an_engine_follows_the_meeting_that_it_enters() {
    let mut engine = engine(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    engine.add_talker(SPEAKER).unwrap();
    engine.set_config(Config::of(FrameDuration::Ms20)).unwrap();
    assert!(engine.stats(SPEAKER).is_some(), "it is what it was");
    engine.set_config(Config::of(FrameDuration::Ms10)).unwrap();
    assert!(engine.stats(SPEAKER).is_none());
    let captured = engine.capture(false);
    assert_eq!((captured.level, captured.opus.len()), (23, PACKET_LEN));
    assert_eq!(opus::packet::get_nb_samples(captured.opus, SAMPLE_RATE).unwrap(), 480);
    assert_eq!(engine.render(Instant::now()).len(), 480);
}

#[test]
fn a_tone_is_heard_after_the_hold_and_its_level_is_known() {
    let mut call = Call::new(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    assert_eq!(call.listener.level(SPEAKER), Some(127));
    for _ in 0..50 {
        call.tick(false, true);
    }
    assert_eq!(call.listener.level(SPEAKER), Some(23), "a sine at −20 dBFS");
    let stats = call.stats();
    // Sent at 0, there at 3, steps at 20, 25: held for 22 ms.
    assert_eq!((stats.received, stats.played, stats.concealed, stats.hold_ms), (50, 49, 0, Some(22.0)));
}

#[test]
fn a_hole_is_concealed_and_silence_is_silent() {
    for (said, heard) in [(23, 20..=40), (LEVEL_SILENT, 127..=127)] {
        let mut call = Call::new(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
        (0..50).for_each(|_| call.tick(false, true));
        (0..2).for_each(|_| call.tick_empty(said));
        // What is heard is one frame behind; the first silent one fades out.
        call.tick(false, true);
        let level = call.listener.level(SPEAKER).unwrap();
        assert!(heard.contains(&level), "{said}: {level}");
        (0..10).for_each(|_| call.tick(false, true));
        assert_eq!(call.listener.level(SPEAKER), Some(23));
        let stats = call.stats();
        assert_eq!((stats.played, stats.lost, stats.concealed), (62, 0, if said < LEVEL_SILENT { 2 } else { 0 }));
    }
}

#[test]
fn verified_mode_of_one_talker_changes_the_delay_of_nobody_else() {
    let mut call = Call::new(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    call.listener.add_talker(SPEAKER + 1).unwrap();
    for n in 0..200 {
        let now = call.start + FRAME * n;
        if n == 50 {
            call.listener.set_verified(SPEAKER, true, now);
        }
        call.listener.receive(SPEAKER + 1, n, false, 20, &[], now + Duration::from_millis(3));
        call.tick(false, true);
    }
    let verified = call.stats();
    let other = call.listener.stats(SPEAKER + 1).unwrap();
    assert_eq!((verified.played, verified.concealed, verified.lost), (200 - 60, 0, 0), "1.2 s behind");
    assert_eq!((other.played, other.hold_ms), (199, Some(22.0)));
}

#[test]
fn while_muted_the_source_goes_on_and_nothing_of_it_is_captured() {
    // Half a second of loud square wave, then nothing.
    let loud = (0..24_000).map(|i| if i / 50 % 2 == 0 { 20_000 } else { -20_000 });
    let source = Source::Wav(Recording::new(loud.chain((0..24_000).map(|_| 0)).collect(), Repeat::Once));
    let mut call = Call::new(source, Sink::Null);
    for n in 0..50 {
        let muted = (5..30).contains(&n);
        call.tick(muted, true);
        // The codec's own noise is all that may be heard of the silence after it.
        let most = if n < 31 { 127 } else { 100 };
        let level = call.listener.level(SPEAKER).unwrap();
        assert!(!(8..45).contains(&n) || level >= most, "tick {n}: {level}");
    }
    let stats = call.stats();
    assert_eq!((stats.muted, stats.lost), (25, 0));
    assert!(call.speaker.source_finished());
    let mut muted = engine(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    let captured = muted.capture(true);
    assert_eq!((captured.level, captured.opus.len()), (127, PACKET_LEN));
}

#[test]
fn all_talkers_are_mixed_and_a_removed_one_is_heard_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heard.wav");
    let mut listener = engine(Source::Silence, Sink::open(path.to_str().unwrap()).unwrap());
    let mut talkers: Vec<MediaEngine> =
        (0..3).map(|_| engine(Source::open("tone", Repeat::Once).unwrap(), Sink::Null)).collect();
    let start = Instant::now();
    for index in [9, 2, 5] {
        listener.add_talker(index).unwrap();
    }
    for tick in 0..100 {
        let now = start + FRAME * tick;
        for (talker, index) in talkers.iter_mut().zip([2, 5, 9]) {
            let captured = talker.capture(false);
            let known = listener.receive(index, tick, false, captured.level, captured.opus, now);
            assert_eq!(known.is_some(), tick < 50 || index == 2);
        }
        listener.render(now);
        if tick == 49 {
            listener.remove_talker(5);
            listener.remove_talker(9);
        }
    }
    assert_eq!((listener.stats(5), listener.level(5)), (None, None));
    listener.finish().unwrap();
    let heard = read(&path);
    let loudest = |from: usize| heard[from * FRAME_SAMPLES..][..FRAME_SAMPLES].iter().map(|s| s.unsigned_abs()).max();
    let (three, one) = (loudest(40).unwrap(), loudest(90).unwrap());
    assert!((8_500..11_200).contains(&three) && (2_800..3_800).contains(&one), "{three} and {one}");
}

/// What a listener hears, by steps, of tones whose frames come so many milliseconds after its steps. A talker has the same
/// index whoever else is there, and so the same comfort noise.
fn heard_of(phases: &[u16]) -> Vec<i16> {
    let mut listener = engine(Source::Silence, Sink::Null);
    let mut talkers: Vec<MediaEngine> =
        phases.iter().map(|_| engine(Source::open("tone", Repeat::Once).unwrap(), Sink::Null)).collect();
    phases.iter().for_each(|index| listener.add_talker(*index).unwrap());
    let start = Instant::now();
    let mut heard = Vec::new();
    for step in 0..400 {
        let now = start + STEP * step;
        for (talker, phase) in talkers.iter_mut().zip(phases) {
            let at = start + Duration::from_millis((*phase).into()) + FRAME * (step / 4);
            if (now..now + STEP).contains(&at) {
                let captured = talker.capture(false);
                listener.receive(*phase, step / 4, false, captured.level, captured.opus, at);
            }
        }
        heard.extend(listener.step(now));
    }
    assert_eq!(listener.faults(), Faults::default());
    heard
}

#[test]
fn talkers_at_different_phases_are_each_played_in_their_own_time_and_added_up() {
    let phases = [0, 6, 13];
    let alone = phases.map(|phase| heard_of(&[phase]));
    let together = heard_of(&phases);
    for (n, sample) in together.iter().enumerate() {
        let sum: i32 = alone.iter().map(|one| i32::from(one[n])).sum();
        assert!((sum - i32::from(*sample)).abs() <= 2, "sample {n}: {sample} instead of {sum}");
    }
    // Due 22 ms after they came, at 22, 28 and 35 ms: with the steps at 25, 30 and 35.
    let begins = alone.map(|heard| heard.iter().position(|sample| *sample > 1_500).unwrap());
    assert_eq!([begins[1] - begins[0], begins[2] - begins[0]], [STEP_SAMPLES, 2 * STEP_SAMPLES]);
}

#[test]
fn a_recording_holds_what_is_said_though_its_frames_and_the_steps_have_other_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meeting.opus");
    let mut engine = engine(Source::open("tone", Repeat::Once).unwrap(), Sink::Null)
        .with_recording(crate::audio::record::Recording::create(&path).unwrap());
    engine.start_recording();
    let start = Instant::now();
    for step in 0..400 {
        // The tick moves through the steps, as when the relay shifts it.
        if (step + step / 200) % 4 == 0 {
            engine.capture(false);
        }
        engine.step(start + STEP * step);
    }
    assert_eq!(engine.faults(), Faults::default());
    engine.finish().unwrap();
    let mut reader = ogg::PacketReader::new(std::fs::File::open(&path).unwrap());
    let mut decoder = opus::Decoder::new(SAMPLE_RATE, opus::Channels::Mono).unwrap();
    let mut levels = Vec::new();
    while let Some(packet) = reader.read_packet().unwrap() {
        let mut frame = SILENCE;
        if !packet.data.starts_with(b"Opus") {
            decoder.decode_float(&packet.data, &mut frame, false).unwrap();
            levels.push(mixer::rms_level(&frame));
        }
    }
    assert_eq!(levels.len(), 100);
    assert!(levels[2..95].iter().all(|level| (22..=25).contains(level)), "{levels:?}");
}

#[test]
fn packets_that_are_no_opus_are_concealed_and_counted() {
    let mut call = Call::new(Source::open("tone", Repeat::Once).unwrap(), Sink::Null);
    for _ in 0..20 {
        call.tick(false, true);
    }
    for n in 20..40 {
        let now = call.start + FRAME * n;
        call.listener.receive(SPEAKER, n, false, 20, &[0xff; 33], now);
        call.listener.render(now + STEP);
    }
    assert!((17..=20).contains(&call.listener.faults().decode), "{:?}", call.listener.faults());
    assert_eq!(call.stats().concealed, 0, "the frames were there");
}

#[test]
fn the_table_of_talkers_is_bounded() {
    let mut engine = engine(Source::Silence, Sink::Null);
    for index in 0..MAX_TALKERS as u16 {
        engine.add_talker(index).unwrap();
    }
    engine.add_talker(3).unwrap();
    assert!(matches!(engine.add_talker(60_000), Err(CodecError::TooManyTalkers { .. })));
    engine.remove_talker(3);
    engine.add_talker(60_000).unwrap();
}
