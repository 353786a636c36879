//! Between the engine and whoever shows it: the command table, the router, faults, and the local socket.
//!
//! The desktop app and the command line speak to a running party through the same table ([`table`]), either in the
//! same process ([`router::Router`]) or over a local socket ([`socket`]). There is no Tauri and no HTTP here, and no
//! decision: roles are enforced in the engine (invariant I6).
//!
//! Start reading at [`table::Call`].

pub mod fault;
pub mod router;
#[cfg(unix)]
pub mod socket;
pub mod table;

pub use fault::{Fault, FaultCode};
pub use hospes_party::forbid_core_dumps;
pub use router::Router;
pub use table::{COMMANDS, Call, CommandInfo};
