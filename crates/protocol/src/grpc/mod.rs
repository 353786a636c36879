//! The gRPC service: generated code (see `federation.proto`, made by `cargo xtask codegen`) and the conversion from and
//! to the types of [`crate::message`]. Only `party::link` and `coordinator::serve` may import it (invariant I4).

pub mod convert;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::large_futures)]
#[rustfmt::skip]
mod generated;

pub use generated::*;
