//! The whole schedule, driven in the process: real store, real staging, real sums, real bytes; only the transport is a
//! channel. Sites are peers that answer as real ones would, and misbehave on demand.

mod faults;
mod kill;
mod peer;
mod runs;
mod world;
