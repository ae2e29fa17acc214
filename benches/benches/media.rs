//! The playout buffer: one push and one pull per frame and talker.

#![allow(missing_docs)] // criterion's macros make public items.

use std::hint::black_box;
use std::time::Instant;

use conclave::audio::format::FRAME;
use conclave::audio::playout::{Arrival, Config, Playout};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn playout(c: &mut Criterion) {
    let mut group = c.benchmark_group("playout");
    group.throughput(Throughput::Elements(1));
    let payload = [5; 80];
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

criterion_group!(benches, playout);
criterion_main!(benches);
