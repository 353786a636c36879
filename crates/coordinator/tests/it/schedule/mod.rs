//! The whole schedule, driven in the process: real store, real staging, real sums, real bytes; only the transport is a
//! channel. Sites are peers that answer as real ones would, and misbehave on demand.
#![allow(clippy::unwrap_used)] // A test that cannot go on ends.

mod broken;
mod early;
mod faults;
mod fits;
mod kill;
mod masks;
mod peer;
mod replicas;
mod runs;
mod strategies;
mod sweeps;
mod verbs;
mod wire;
mod witness;
mod world;
