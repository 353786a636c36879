//! Stories over whole processes.

mod decoders;
mod desktop;
mod devhost;
mod hostile;
mod journey;
mod kill;
mod masks;
mod package;
/// The server on which the coordinator's own tests run.
#[path = "../../crates/coordinator/tests/it/postgres.rs"]
#[allow(unreachable_pub)] // A test binary has no outside.
#[allow(clippy::unwrap_used)] // A test that cannot go on fails.
mod postgres;
mod regression;
mod round;
mod rpm;
mod screens;
mod sweep;
