//! Repository tasks: tidy, codegen, test, demo, reproduce, bench.

fn main() {}
