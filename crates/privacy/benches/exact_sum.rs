//! Exact sums in blocks of 1 MiB (`specs/performance.md`: 0.8 G parameters a second and core), quantising and the mean,
//! and the coding of few bits.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hospes_privacy::coding::Coding;
use hospes_privacy::quantise::Quantiser;
use hospes_privacy::sum::{Totals, add_block};
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;

/// Entries of a block of 1 MiB.
const ENTRIES: usize = 1 << 18;

fn exact_sum(criterion: &mut Criterion) {
    let quantiser = Quantiser::new(&Quantise::default()).expect("the defaults are good");
    let values: Vec<f32> = (0u16..).take(1 << 16).cycle().take(ENTRIES).map(|i| f32::from(i) / 8e3 - 4.0).collect();
    let shape = [TensorShape { name: "w".into(), shape: vec![ENTRIES as u64] }];
    let payload = quantiser.encode(100, &shape, &[&values], &mut || 0).expect("finite values").into_bytes();
    let mut sums = vec![0u64; ENTRIES];
    let mut mean = vec![0f32; ENTRIES];
    let mut totals = Totals::default();
    totals.add(100).expect("one site");

    let mut group = criterion.benchmark_group("exact_sum");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("add_block", |bench| {
        bench.iter(|| add_block(black_box(&mut sums), black_box(&payload[8..])));
    });
    sums.fill(0);
    add_block(&mut sums, &payload[8..]).expect("the lengths fit");
    group.bench_function("mean", |bench| bench.iter(|| quantiser.mean(black_box(&sums), totals, &mut mean)));
    group.bench_function("encode", |bench| {
        bench.iter(|| quantiser.encode(100, &shape, black_box(&[&values]), &mut || 0));
    });
    // Most entries near 0, as in an update.
    let small: Vec<f32> = values.iter().map(|value| value.powi(5) / 4e3).collect();
    let few = Quantiser::new(&Quantise { bits: 8, ..Quantise::default() }).expect("the defaults are good");
    let levels = few.encode(10_000, &shape, &[&small], &mut || 1 << 31).expect("finite values").into_bytes();
    let coding = Coding::new(8, ENTRIES as u64).expect("few bits are coded");
    let coded = coding.encode(&levels).expect("the lengths fit");
    group.bench_function("code 8 bits", |bench| bench.iter(|| coding.encode(black_box(&levels))));
    group.bench_function("decode 8 bits", |bench| bench.iter(|| coding.decode(black_box(&coded))));
    group.finish();
}

criterion_group!(benches, exact_sum);
criterion_main!(benches);
