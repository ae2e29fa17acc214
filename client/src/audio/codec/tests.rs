use proptest::prelude::*;

use super::*;
use crate::audio::format::{FRAME_SAMPLES, Frame, FrameDuration, SAMPLE_RATE, SILENCE, samples};

/// A loud frame of a pitch that moves with `n`.
pub(super) fn voice(n: usize) -> Frame {
    let pitch = 100.0 + 7.0 * (n % 50) as f32;
    std::array::from_fn(|i| {
        let t = (n * FRAME_SAMPLES + i) as f32 / SAMPLE_RATE as f32;
        0.4 * (std::f32::consts::TAU * pitch * t).sin() + 0.2 * (std::f32::consts::TAU * 9.1 * pitch * t).sin()
    })
}

/// The same sound in frames of another duration.
fn voice_of(frame: FrameDuration, n: usize) -> Vec<f32> {
    let (from, len) = (n * samples(frame), samples(frame));
    voice(from / FRAME_SAMPLES)[from % FRAME_SAMPLES..][..len].to_vec()
}

/// A frame of noise from a small generator.
fn noise(seed: &mut u64, amplitude: f32) -> Frame {
    std::array::from_fn(|_| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        amplitude * ((*seed >> 40) as f32 / 8_388_608.0 - 1.0)
    })
}

#[test]
fn every_sound_makes_packets_of_one_size_whatever_a_frames_duration() {
    for frame in FrameDuration::ALL {
        let mut encoder = Encoder::new(frame).unwrap();
        let mut seed = 7;
        for n in 0..200 {
            let pcm = match n % 5 {
                0 => SILENCE,
                1 => noise(&mut seed, 1.0),
                2 => noise(&mut seed, 40.0),
                _ => voice(n),
            };
            encoder.encode(&pcm[..samples(frame)], &mut [0; PACKET_LEN]).unwrap();
        }
    }
}

#[test]
fn what_is_no_number_is_not_encoded() {
    let mut encoder = Encoder::new(FrameDuration::Ms20).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut pcm = SILENCE;
        pcm[959] = bad;
        assert!(matches!(encoder.encode(&pcm, &mut [0; PACKET_LEN]), Err(CodecError::NotFinite)));
    }
}

#[test]
fn a_tone_comes_out_as_loud_as_it_went_in_and_a_lost_frame_is_concealed() {
    let (mut encoder, mut decoder) =
        (Encoder::new(FrameDuration::Ms20).unwrap(), Decoder::new(FrameDuration::Ms20).unwrap());
    let energy = |frame: &Frame| frame.iter().map(|s| s * s).sum::<f32>();
    let (mut packet, mut out) = ([0; PACKET_LEN], SILENCE);
    let tone = |n: usize| -> Frame {
        std::array::from_fn(|i| 0.3 * (std::f32::consts::TAU * 300.0 * (n * 960 + i) as f32 / 48_000.0).sin())
    };
    for n in 0..50 {
        encoder.encode(&tone(n), &mut packet).unwrap();
        decoder.decode(&packet, &mut out).unwrap();
    }
    let ratio = energy(&out) / energy(&tone(49));
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
    for effort in [Effort::Classic, Effort::Neural] {
        decoder.conceal(effort, &mut out).unwrap();
        assert!(energy(&out) > 0.1 * energy(&tone(49)), "the first frame concealed goes on: {effort:?}");
        for _ in 0..29 {
            decoder.conceal(effort, &mut out).unwrap();
        }
        let left = energy(&out) / energy(&tone(49));
        assert!(left < 0.05, "concealment fades out: {effort:?}, {left}");
        for n in 50..80 {
            encoder.encode(&tone(n), &mut packet).unwrap();
            decoder.decode(&packet, &mut out).unwrap();
        }
    }
}

#[test]
fn an_empty_packet_and_one_of_another_duration_are_refused() {
    let mut decoder = Decoder::new(FrameDuration::Ms20).unwrap();
    assert!(decoder.decode(&[], &mut SILENCE.clone()).is_err());
    assert!(decoder.recover(&[], Effort::Classic, &mut SILENCE.clone()).is_err());
    assert!(decoder.bridge(&[], [SILENCE; 2].as_flattened_mut()).is_err());
    // Configurations 16, 0 and 3 of RFC 6716 §3.1, one frame each: 2.5 ms, 10 ms and 60 ms.
    for (toc, samples) in [(16 << 3, 120), (0, 480), (3 << 3, 2880)] {
        let packet = [toc; 40];
        match decoder.decode(&packet, &mut SILENCE.clone()) {
            Err(CodecError::Duration(other, FRAME_SAMPLES)) => assert_eq!(other, samples),
            other => panic!("{other:?}"),
        }
    }
    // One of 20 ms in a meeting of 10 ms.
    let mut short = Decoder::new(FrameDuration::Ms10).unwrap();
    assert!(matches!(short.decode(&[1 << 3; 40], &mut [0.0; 480]), Err(CodecError::Duration(960, 480))));
    assert!(short.decode(&[0; 40], &mut [0.0; 480]).is_ok());
}

/// A decoder that has heard the first `heard` frames of a voice, and all packets of it.
fn listening(frame: FrameDuration, heard: usize, redundancy: Redundancy) -> (Decoder, Vec<[u8; PACKET_LEN]>) {
    let mut encoder = Encoder::with(frame, PACKET_LEN, redundancy).unwrap();
    let packets: Vec<_> = (0..100)
        .map(|n| {
            let mut packet = [0; PACKET_LEN];
            encoder.encode(&voice_of(frame, n), &mut packet).unwrap();
            packet
        })
        .collect();
    let mut decoder = Decoder::new(frame).unwrap();
    for packet in &packets[..heard] {
        decoder.decode(packet, &mut SILENCE[..samples(frame)].to_vec()).unwrap();
    }
    (decoder, packets)
}

fn likeness(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

fn energy(sound: &[f32]) -> f32 {
    sound.iter().map(|s| s * s).sum()
}

/// Room for a frame of this duration.
fn room(frame: FrameDuration) -> Vec<f32> {
    vec![0.0; samples(frame)]
}

#[test]
fn a_lost_frame_is_in_the_packet_after_it() {
    for frame in FrameDuration::ALL {
        let mut wanted = room(frame);
        let (mut decoder, packets) = listening(frame, 40, Redundancy::SENT);
        decoder.decode(&packets[40], &mut wanted).unwrap();
        let recovered = |redundancy| {
            let (mut decoder, packets) = listening(frame, 40, redundancy);
            let mut out = room(frame);
            decoder.recover(&packets[41], Effort::Classic, &mut out).unwrap();
            likeness(&wanted, &out)
        };
        let (with, without) = (recovered(Redundancy::SENT), recovered(Redundancy::NONE));
        assert!(with > 0.9 && with > without, "{frame:?}: {with} with redundancy, {without} without");
    }
}

#[test]
fn a_gap_is_bridged_to_its_end_where_concealment_has_faded() {
    for frame in FrameDuration::ALL {
        let (mut decoder, packets) = listening(frame, 40, Redundancy::SENT);
        let mut gap = vec![0.0; MAX_GAP];
        let frames = MAX_GAP / samples(frame);
        decoder.bridge(&packets[40 + frames], &mut gap).unwrap();
        let (mut concealing, _) = listening(frame, 40, Redundancy::SENT);
        let mut concealed = room(frame);
        for _ in 0..frames {
            concealing.conceal(Effort::Classic, &mut concealed).unwrap();
        }
        let (bridged, concealed) = (energy(&gap[MAX_GAP - samples(frame)..]), energy(&concealed));
        assert!(bridged > 4.0 * concealed, "{frame:?}: {bridged} bridged, {concealed} concealed");
        // What follows is decoded as if nothing had been missing.
        let mut out = room(frame);
        decoder.decode(&packets[40 + frames], &mut out).unwrap();
        assert!(out.iter().all(|sample| sample.is_finite()));
    }
}

#[test]
fn a_gap_begins_as_described_and_ends_with_the_frame_that_the_next_packet_holds() {
    for frame in FrameDuration::ALL {
        let (mut decoder, packets) = listening(frame, 40, Redundancy::SENT);
        let mut wanted = room(frame);
        packets[40..43].iter().for_each(|packet| decoder.decode(packet, &mut wanted).unwrap());
        let next = &packets[43];
        let (mut described, mut bridged) = (room(frame).repeat(3), room(frame).repeat(3));
        listening(frame, 40, Redundancy::SENT).0.describe(next, &mut described).unwrap();
        listening(frame, 40, Redundancy::SENT).0.bridge(next, &mut bridged).unwrap();
        let last = 2 * samples(frame);
        assert!(bridged[..last] == described[..last], "what is before the last frame is described at its place");
        let (held, described) = (likeness(&wanted, &bridged[last..]), likeness(&wanted, &described[last..]));
        assert!(held > described, "{frame:?}: {held} from the packet, {described} by its description");
    }
}

#[test]
fn where_the_next_packet_does_not_hold_a_frame_its_description_fills_the_place() {
    let redundancy = Redundancy { loss_percent: 0, deep: 24 };
    for frame in FrameDuration::ALL {
        let (mut decoder, packets) = listening(frame, 40, redundancy);
        assert!(!packet::holds_the_frame_before(&packets[41]));
        let (mut recovered, mut described) = (room(frame), room(frame));
        decoder.recover(&packets[41], Effort::Neural, &mut recovered).unwrap();
        listening(frame, 40, redundancy).0.describe(&packets[41], &mut described).unwrap();
        assert!(recovered == described);
    }
}

#[test]
fn gaps_that_are_too_long_or_none_are_refused() {
    for frame in FrameDuration::ALL {
        let (mut decoder, packets) = listening(frame, 10, Redundancy::SENT);
        for length in [0, 1, samples(frame) * 3 / 2, MAX_GAP + samples(frame)] {
            let mut gap = vec![0.0; length];
            let bridged = decoder.bridge(&packets[20], &mut gap);
            assert!(matches!(bridged, Err(CodecError::Gap(refused)) if refused == length), "{bridged:?}");
        }
    }
}

#[test]
fn a_packet_that_is_not_as_long_as_it_must_be_is_not_made() {
    let made = Encoder::new(FrameDuration::Ms20).unwrap().encode(&SILENCE, &mut [0; PACKET_LEN + 1]);
    assert!(matches!(made, Err(CodecError::PacketLength(PACKET_LEN))), "{made:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_packets_give_sound_or_an_error(packets in prop::collection::vec(hostile(), 1..40)) {
        let mut decoder = Decoder::new(FrameDuration::Ms20).unwrap();
        let mut out = SILENCE;
        for packet in &packets {
            let sound = decoder.decode(packet, &mut out).is_ok() || decoder.conceal(Effort::Neural, &mut out).is_ok();
            prop_assert!(sound);
            prop_assert!(out.iter().all(|s| s.is_finite()));
            let _ = decoder.recover(packet, Effort::Classic, &mut out);
            prop_assert!(out.iter().all(|s| s.is_finite()));
            let mut gap = [0.0; 2 * FRAME_SAMPLES];
            let _ = decoder.bridge(packet, &mut gap);
            prop_assert!(gap.iter().all(|s| s.is_finite()));
        }
    }
}

/// Random bytes of any length; half of them with the first byte of a 20 ms packet, so that they get decoded.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..=PACKET_LEN),
        1 => prop::collection::vec(any::<u8>(), 0..4000),
    ];
    (bytes, prop::option::of(prop::sample::select(vec![1u8, 5, 9, 13, 15, 19, 23, 27, 31])), any::<u8>()).prop_map(
        |(mut bytes, configuration, low)| {
            if let (Some(first), Some(configuration)) = (bytes.first_mut(), configuration) {
                *first = configuration << 3 | (low & 0b100);
            }
            bytes
        },
    )
}
