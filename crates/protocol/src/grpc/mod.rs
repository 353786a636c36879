//! The gRPC service: generated code (see `federation.proto`, made by `cargo xtask codegen`) and the conversion from and
//! to the types of [`crate::message`]. Only `party::link` and `coordinator::serve` may import it (invariant I4).
