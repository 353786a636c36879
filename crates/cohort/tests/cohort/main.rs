//! What the crate promises, from outside: through its public items only.

// Everything here is a test or serves one; a panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod categories;
mod dry;
mod ingest;
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
