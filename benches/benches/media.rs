//! The playout buffer, one push and one pull per frame and talker; and what Opus takes to encode, decode and mend.

#![allow(missing_docs)] // criterion's macros make public items.

use std::hint::black_box;
use std::time::Instant;

use conclave::audio::codec::{Decoder, Effort, Encoder};
use conclave::audio::format::{FRAME, FRAME_SAMPLES, Frame, FrameDuration, PACKET_LEN, SILENCE};
use conclave::audio::playout::{Arrival, Config, Playout};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn playout(c: &mut Criterion) {
    let mut group = c.benchmark_group("playout");
    group.throughput(Throughput::Elements(1));
    let payload = [5; PACKET_LEN];
    group.bench_function("push and pull", |b| {
        let mut playout = Playout::new(Config::default());
        let mut now = Instant::now();
        let mut seq = 0u32;
        b.iter(|| {
            seq = seq.wrapping_add(1);
            now += FRAME;
            let arrival = Arrival { seq, muted: false, level: 20, payload: &payload };
            black_box(playout.push(&arrival, now));
            black_box(playout.pull(now));
        });
    });
    group.finish();
}

/// A second of a voice-like sound whose pitch moves, over and over.
fn voice(n: usize) -> Frame {
    std::array::from_fn(|i| {
        let t = (n % 50 * FRAME_SAMPLES + i) as f32 / 48_000.0;
        let phase = std::f32::consts::TAU * (110.0 * t + 20.0 * t * t);
        0.1 * (phase.sin() + (2.0 * phase).sin() + (5.0 * phase).sin())
    })
}

fn packets() -> Vec<[u8; PACKET_LEN]> {
    let mut encoder = Encoder::new(FrameDuration::Ms20).expect("an encoder");
    let encoded = |n| {
        let mut packet = [0; PACKET_LEN];
        encoder.encode(&voice(n), &mut packet).expect("a packet");
        packet
    };
    (0..50).map(encoded).collect()
}

/// A gap is after each frame that is decoded, as in a call: what `decode` takes is in the others, too.
fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let packets = packets();
    let mut out = SILENCE;
    let mut n = 0;
    let mut encoder = Encoder::new(FrameDuration::Ms20).expect("an encoder");
    group.bench_function("encode", |b| {
        b.iter(|| {
            n += 1;
            encoder.encode(&voice(n), &mut [0; PACKET_LEN]).expect("a packet");
        });
    });
    let mut decoder = Decoder::new(FrameDuration::Ms20).expect("a decoder");
    group.bench_function("decode", |b| {
        b.iter(|| {
            n += 1;
            decoder.decode(&packets[n % 50], &mut out).expect("sound");
        });
    });
    for (name, effort) in
        [("decode, then conceal", Effort::Classic), ("decode, then conceal by a network", Effort::Neural)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                n += 1;
                decoder.decode(&packets[n % 50], &mut out).expect("sound");
                decoder.conceal(effort, &mut out).expect("sound");
            });
        });
    }
    group.bench_function("decode, then recover", |b| {
        b.iter(|| {
            n += 2;
            decoder.decode(&packets[n % 50], &mut out).expect("sound");
            decoder.recover(&packets[(n + 2) % 50], Effort::Classic, &mut out).expect("sound");
        });
    });
    group.bench_function("decode, then bridge 5", |b| {
        let mut gap = [SILENCE; 5];
        b.iter(|| {
            n += 6;
            decoder.decode(&packets[n % 50], &mut out).expect("sound");
            decoder.bridge(&packets[(n + 6) % 50], gap.as_flattened_mut()).expect("sound");
        });
    });
    group.finish();
}

criterion_group!(benches, playout, codec);
criterion_main!(benches);
