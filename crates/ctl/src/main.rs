//! Command line of operators and researchers, and the offline audit verifier: hospesctl.

fn main() {}
