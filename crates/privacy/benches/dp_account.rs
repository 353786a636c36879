//! What a person waits for in a review: the ε of a long training, and the noise that reaches a target.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hospes_privacy::dp::{Curve, Delta, Release, epsilon, noise_multiplier};

fn dp_account(criterion: &mut Criterion) {
    let delta = Delta::new(1e-7).expect("a good delta");
    let releases = [Release::new(0.001, 1.0, 30_000).expect("good releases")];
    let mut group = criterion.benchmark_group("dp_account");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    group.bench_function("epsilon", |bench| bench.iter(|| epsilon(black_box(&releases), delta)));
    group.bench_function("curve", |bench| bench.iter(|| Curve::of(black_box(&releases)).epsilon(delta)));
    group.bench_function("noise_multiplier", |bench| {
        bench.iter(|| noise_multiplier(black_box(2.0), delta, 0.01, 1_000).expect("reachable"));
    });
    group.finish();
}

criterion_group!(benches, dp_account);
criterion_main!(benches);
