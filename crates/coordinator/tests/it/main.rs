//! The coordinator over real sockets and on real databases.
#![allow(unreachable_pub)] // A test binary has no outside.

mod clock;
mod enrol;
mod openapi;
mod postgres;
mod rest;
mod session;
mod site;
mod store;
mod world;
