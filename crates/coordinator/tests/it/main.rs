//! The coordinator over real sockets and on real databases.
#![allow(unreachable_pub)] // A test binary has no outside.
#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod clock;
mod door;
mod enrol;
mod full;
mod openapi;
mod postgres;
mod process;
mod released;
mod rest;
mod schedule;
mod session;
mod site;
mod store;
mod world;
