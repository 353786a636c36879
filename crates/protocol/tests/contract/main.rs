//! The contract as its users see it: plans that people write, approvals that people sign, bytes that strangers send.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::type_complexity, reason = "tables of a name and what to spoil read best as they stand")]

mod approvals;
mod documents;
mod egress;
mod examples;
mod noise;
mod plan_limits;
mod plans;
mod regressions;
mod releases;
mod schemas;
mod select;
mod series;
mod signatures;
mod studies;
mod sweeps;
mod world;
