//! Noise of the discrete Gaussian, drawn and added to the coordinates of a vector.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hospes_privacy::dp::{DiscreteGaussian, Source};
use hospes_protocol::id::Digest;
use zeroize::Zeroizing;

/// Coordinates of a block of 256 KiB.
const ENTRIES: usize = 1 << 15;
/// Standard deviation in steps: a multiplier of 1 with 16 bits, a clip of 4 by entry and of 1 by norm.
const SIGMA: f64 = 8_192.0;

fn dp_noise(criterion: &mut Criterion) {
    let noise = DiscreteGaussian::new(SIGMA).expect("a good deviation");
    let mut source = Source::new(&Zeroizing::new([7; 32]), &Digest::of(b"bench"));
    let mut values = vec![0u64; ENTRIES];
    let mut group = criterion.benchmark_group("dp_noise");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("draw", |bench| bench.iter(|| noise.add(black_box(&mut values), &mut source)));
    group.finish();
}

criterion_group!(benches, dp_noise);
criterion_main!(benches);
