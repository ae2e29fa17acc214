//! What the processing reaches in a simulated room, on the spoken clips of Debian's alsa-utils.

use std::time::{Duration, Instant};

use super::overhear::Overhearing;
use super::*;
use crate::audio::engine::MediaEngine;
use crate::audio::format::{FRAME, FRAME_SAMPLES};
use crate::audio::mixer::sample_to_i16;
use crate::audio::resample::converted;
use crate::audio::sink::Sink;
use crate::audio::source::{Recording, Repeat, Source};
use crate::audio::spoken;

const SECOND: usize = SAMPLE_RATE as usize;

/// `seconds` of speech that begins with clip `first`.
fn speech(first: usize, seconds: usize) -> Vec<f32> {
    let names = ["Front_Center", "Front_Left", "Rear_Center", "Side_Right", "Rear_Left", "Front_Right", "Side_Left"];
    let clip = |name: &&str| spoken::clip(name).into_iter().map(|s| f32::from(s) / 32_768.0).collect();
    let clips: Vec<Vec<f32>> = names.iter().map(clip).collect();
    let pause = std::iter::repeat_n(0.0, SECOND / 4);
    let said = clips.iter().cycle().skip(first).flat_map(|clip| clip.iter().copied().chain(pause.clone()));
    said.take(seconds * SECOND).collect()
}

/// Uniform noise, the same in every run, of a root mean square of 1.
fn noise(samples: usize) -> Vec<f32> {
    let mut state = 9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.cast_signed() as f32 / 2_147_483_648.0 * 3f32.sqrt()
    };
    (0..samples).map(|_| next()).collect()
}

/// What a microphone hears of a loudspeaker in a small room: 70 ms later, which is what rings and devices take, the
/// direct sound, six reflections, and a tail of 90 that fades by 60 dB in 0.2 s.
fn room(sound: &[f32]) -> Vec<f32> {
    let walls = [(0, 1.0), (139, 0.5), (341, -0.35), (542, 0.3), (850, 0.2), (1_109, -0.15), (1_531, 0.1)];
    let tail = noise(90).into_iter().enumerate().map(|(n, gain)| {
        let at = 1_600 + n * 91;
        (at, 0.05 * gain * 10f32.powf(-3.0 * at as f32 / (0.2 * SECOND as f32)))
    });
    let mut heard = vec![0.0; sound.len()];
    for (at, gain) in walls.into_iter().chain(tail) {
        let later = heard.iter_mut().skip(at + SECOND * 7 / 100);
        later.zip(sound).for_each(|(heard, said)| *heard += gain * said);
    }
    heard
}

fn power(sound: &[f32]) -> f64 {
    sound.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / sound.len() as f64
}

fn db(power: f64) -> f64 {
    10.0 * power.log10()
}

fn scaled(sound: &[f32], decibels: f64) -> Vec<f32> {
    let gain = 10f64.powf(decibels / 20.0) as f32;
    sound.iter().map(|s| s * gain).collect()
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// What comes of a microphone while the loudspeaker plays, frame by frame as the engine does it.
fn processed(switches: Switches, microphone: &[f32], loudspeaker: &[f32]) -> Vec<f32> {
    let mut process = Process::new(switches);
    let mut out = microphone.to_vec();
    for (sound, played) in out.chunks_exact_mut(FRAME_SAMPLES).zip(loudspeaker.chunks_exact(FRAME_SAMPLES)) {
        process.capture(sound);
        process.played(played);
    }
    out
}

const ECHO: Switches = Switches { echo_cancellation: true, noise_suppression: false, auto_gain: false };
const NOISE: Switches = Switches { echo_cancellation: false, noise_suppression: true, auto_gain: false };
const GAIN: Switches = Switches { echo_cancellation: false, noise_suppression: false, auto_gain: true };

/// Samples by which `late` comes after `sound`, up to 40 ms. By what changes quickly, since filters of low tones turn
/// their phase.
fn lag(sound: &[f32], late: &[f32]) -> usize {
    let edges = |x: &[f32]| x.windows(3).map(|w| w[2] - 2.0 * w[1] + w[0]).collect::<Vec<f32>>();
    let (sound, late) = (edges(sound), edges(late));
    let score = |lag: &usize| sound.iter().zip(&late[*lag..]).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    (0..SECOND / 25).max_by(|a, b| score(a).total_cmp(&score(b))).unwrap()
}

fn pesq(reference: &[f32], heard: &[f32]) -> f32 {
    let at_16_khz =
        |sound: &[f32]| -> Vec<i16> { converted(sound, SAMPLE_RATE, 16_000).into_iter().map(sample_to_i16).collect() };
    pesq::pesq_wb(&at_16_khz(reference), &at_16_khz(heard)).unwrap()
}

#[test]
fn an_echo_is_quieter_by_25_db_after_three_seconds() {
    let far = speech(0, 10);
    let echo = room(&far);
    for (name, switches) in [("echo cancellation", ECHO), ("all", Switches::ALL)] {
        let out = processed(switches, &echo, &far);
        let erle = db(power(&echo[3 * SECOND..])) - db(power(&out[3 * SECOND..]));
        println!("ERLE from 3 s on, {name}: {erle:.1} dB");
        assert!(erle >= 25.0, "{name}: {erle}");
    }
}

#[test]
fn an_echo_stays_quiet_while_what_is_played_follows_another_clock() {
    let far = speech(0, 20);
    // 42 ppm; at 208 it is 16 dB.
    let rate = SAMPLE_RATE + 2;
    let echo = converted(&room(&far), rate, SAMPLE_RATE);
    let (mut process, mut out, mut played) = (Process::new(ECHO), echo.clone(), far.chunks_exact(CHUNK));
    for (n, sound) in out.chunks_exact_mut(CHUNK).enumerate() {
        process.capture(sound);
        let due = (n + 1) * rate as usize / SAMPLE_RATE as usize;
        while far.len() / CHUNK - played.len() < due {
            let Some(chunk) = played.next() else { break };
            process.played(chunk);
        }
    }
    let erle = db(power(&echo[3 * SECOND..])) - db(power(&out[3 * SECOND..]));
    println!("ERLE from 3 s on, at 42 ppm: {erle:.1} dB");
    assert!(erle >= 25.0, "{erle}");
}

#[test]
fn who_speaks_over_the_loudspeaker_is_still_heard() {
    let (far, near) = (speech(0, 10), speech(3, 10));
    let near: Vec<f32> = near.iter().enumerate().map(|(i, s)| if i < 4 * SECOND { 0.0 } else { *s }).collect();
    let alone = processed(ECHO, &near, &vec![0.0; near.len()]);
    let both = 4 * SECOND..10 * SECOND;
    let echo = room(&far);
    for level in [0.0, -20.0] {
        let echo = scaled(&echo, level + db(power(&near[both.clone()])) - db(power(&echo)));
        let out = processed(ECHO, &sum(&near, &echo), &far);
        let (out, alone) = (&out[both.clone()], &alone[both.clone()]);
        // The share of what is heard when nobody else speaks that is heard now.
        let product: f64 = alone.iter().zip(out).map(|(a, b)| f64::from(a * b)).sum();
        let kept = 20.0 * (product / (power(alone) * alone.len() as f64)).log10();
        let pesq = (pesq(alone, &sum(&near, &echo)[both.clone()]), pesq(alone, out));
        println!("echo of {level:.0} dB: PESQ-WB {:.2} before, {:.2} after; speech kept {kept:.1} dB", pesq.0, pesq.1);
        assert!(kept > -6.0, "{kept}");
    }
}

#[test]
fn noise_is_quieter_by_10_db_against_speech_that_stays_good() {
    let said = speech(0, 12);
    let hiss = scaled(&noise(said.len()), db(power(&said)) - 15.0);
    let silence = vec![0.0; said.len()];
    let out = processed(NOISE, &sum(&said, &hiss), &silence);
    let clean = processed(NOISE, &said, &silence);
    let late = lag(&said[..4 * SECOND], &clean[..5 * SECOND]);
    // After a second the noise is known. Pauses are told by the clean speech, with what the delay smears.
    let mut parts = [(0.0, 0.0, 0), (0.0, 0.0, 0)];
    for at in (SECOND..11 * SECOND).step_by(CHUNK) {
        let around = power(&said[at - 3 * CHUNK..at + 3 * CHUNK]);
        let part = if around == 0.0 {
            0
        } else if around > power(&said) {
            1
        } else {
            continue;
        };
        parts[part].0 += power(&sum(&said[at..at + CHUNK], &hiss[at..]));
        parts[part].1 += power(&out[at + late..at + late + CHUNK]);
        parts[part].2 += 1;
    }
    let [(pause_in, pause_out, pauses), (speech_in, speech_out, words)] = parts;
    let gain = db(speech_out / pause_out) - db(speech_in / pause_in);
    let (with, without) = (pesq(&said, &sum(&said, &hiss)), pesq(&said[..11 * SECOND], &out[late..late + 11 * SECOND]));
    let undisturbed = pesq(&said[..11 * SECOND], &clean[late..late + 11 * SECOND]);
    println!(
        "speech over noise: {gain:.1} dB better; PESQ-WB {with:.2} to {without:.2}, {undisturbed:.2} without noise"
    );
    assert!(pauses > 50 && words > 50);
    assert!(gain >= 10.0, "{gain}");
    assert!(without > with + 0.2 && undisturbed > 3.5);
}

#[test]
fn quiet_speech_becomes_as_loud_as_speech_is_and_loud_speech_stays() {
    let said = speech(0, 20);
    let silence = vec![0.0; said.len()];
    let end = 15 * SECOND..;
    let levels: Vec<f64> = [-55.0, -40.0, -25.0]
        .iter()
        .map(|level| {
            let quiet = scaled(&said, level - db(power(&said)));
            db(power(&processed(GAIN, &quiet, &silence)[end.clone()]))
        })
        .collect();
    println!("levels of −55, −40 and −25 dB after 15 s: {levels:.1?}");
    assert!(levels.iter().all(|level| (-32.0..-15.0).contains(level)), "{levels:?}");
}

#[test]
fn all_of_it_takes_less_than_a_frame() {
    let said = speech(0, 4);
    for (name, switches) in [("echo", ECHO), ("noise", NOISE), ("gain", GAIN), ("all", Switches::ALL)] {
        let out = processed(switches, &said, &vec![0.0; said.len()]);
        let late = lag(&said[..2 * SECOND], &out[..3 * SECOND]);
        println!("{name}: {:.1} ms", late as f64 * 1_000.0 / f64::from(SAMPLE_RATE));
        assert!(late < FRAME_SAMPLES, "{name}: {late}");
    }
}

#[test]
fn what_is_switched_off_leaves_every_sample_as_it_is() {
    let sound = noise(FRAME_SAMPLES * 10);
    assert_eq!(processed(Switches::default(), &sound, &sound), sound);
}

#[test]
fn who_speaks_while_muted_is_warned_once_and_noise_warns_nobody() {
    let said = speech(0, 8);
    let warnings = |overhearing: &mut Overhearing, sound: &[f32]| {
        let warns = sound.chunks_exact(FRAME_SAMPLES).filter(|frame| {
            overhearing.hear(frame);
            overhearing.take_warning()
        });
        warns.count()
    };
    let mut overhearing = Overhearing::default();
    assert_eq!(warnings(&mut overhearing, &said), 1);
    overhearing.rest();
    assert_eq!(warnings(&mut overhearing, &said), 1, "muted anew");
    for level in [-60.0, -40.0, -20.0] {
        assert_eq!(warnings(&mut Overhearing::default(), &scaled(&noise(8 * SECOND), level)), 0, "noise of {level} dB");
    }
    assert_eq!(warnings(&mut Overhearing::default(), &scaled(&said, -45.0)), 0, "somebody far away");
}

/// Plays `far` to a listener whose microphone holds `microphone`; gives what its sink got, and the mean power of its
/// own sound from 3 s on.
fn called(far: &[f32], microphone: &[f32], switches: Switches) -> (Vec<f32>, f64) {
    let recording = |sound: &[f32]| {
        let samples = sound.iter().map(|s| sample_to_i16(*s)).collect();
        Source::Wav(Recording::new(samples, Repeat::Once))
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heard.wav");
    let mut talker = MediaEngine::new(recording(far), Sink::Null).unwrap();
    let mut listener = MediaEngine::new(recording(microphone), Sink::open(path.to_str().unwrap()).unwrap()).unwrap();
    listener.set_processing(switches);
    listener.add_talker(1).unwrap();
    let (start, mut sum) = (Instant::now(), 0.0);
    for tick in 0..(far.len() / FRAME_SAMPLES) as u32 {
        let now = start + FRAME * tick;
        let said = talker.capture(false);
        listener.receive(1, tick, false, said.level, said.opus, now);
        let level = listener.capture(false).level;
        sum += if tick >= 150 { 10f64.powf(-f64::from(level) / 10.0) } else { 0.0 };
        listener.render(now);
        // Virtual time runs faster than the disk.
        while listener.waiting_for_disk() > 100 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    listener.finish().unwrap();
    let mut reader = hound::WavReader::open(path).unwrap();
    (reader.samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect(), sum)
}

#[test]
fn the_engine_takes_what_it_plays_out_of_what_it_hears() {
    let far = speech(0, 10);
    let (heard, _) = called(&far, &[], Switches::default());
    let echo = room(&heard);
    let (_, with) = called(&far, &echo, Switches::default());
    let (_, without) = called(&far, &echo, ECHO);
    println!("ERLE in the engine: {:.1} dB", db(with / without));
    assert!(db(with / without) >= 25.0);
}
