//! Published figures, reproduced on the example's files.

// Everything here is a test or serves one; a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod accountants;
mod fed_avg;
mod few_bits;
mod heart;
mod judge;
mod live;
mod regress;
