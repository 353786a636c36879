//! The contract as its users see it: plans that people write, approvals that people sign, bytes that strangers send.

mod approvals;
mod documents;
mod egress;
mod plans;
mod schemas;
mod studies;
mod world;
