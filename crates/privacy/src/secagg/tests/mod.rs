//! Whole sessions over the real messages: every member and the aggregator are the real state machines, and everything
//! between them goes through bytes. An attacker is a member or a coordinator that says something else.

mod attacks;
mod bytes;
mod graph;
mod restarts;
mod rig;
mod sums;
