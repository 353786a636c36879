//! The command line as people and scripts use it: real processes, a real data folder, a real socket.

#![allow(clippy::unwrap_used)]

mod commands;
mod engine;
mod hospital;
mod staff;
