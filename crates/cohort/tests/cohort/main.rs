//! What the crate promises, from outside: through its public items only.

// Everything here is a test or serves one; a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod categories;
mod databases;
mod dry;
mod ingest;
mod noise;
#[path = "../../../coordinator/tests/it/postgres.rs"]
#[allow(dead_code, unreachable_pub)] // The coordinator has more use for it, and a test binary has no outside.
mod postgres;
mod predictions;
mod regress;
mod rig;
mod rounds;
mod snapshots;
mod sources;
mod strategies;
mod subgroups;
mod workbooks;
mod workers;
