//! Between the engine and whoever shows it: the command table, the router, faults, the local socket, and the page.
//!
//! The desktop app and the command line speak to a running party through the same table ([`table`]), either in the
//! same process ([`router::Router`]), over the socket of their own account ([`socket`]), or over the socket by which the
//! service of a machine is reached by staff under accounts of their own ([`staff`]). A web page's requests pass through
//! [`page`].
//! There is no Tauri and no HTTP here, and no decision: roles are enforced in the engine (invariant I6).
//!
//! Start reading at [`table::Call`].

#[cfg(unix)]
pub mod attention;
mod command;
pub mod fault;
#[cfg(unix)]
mod handed;
#[cfg(unix)]
pub mod local;
#[cfg(unix)]
mod named;
#[cfg(unix)]
pub mod page;
pub mod router;
pub mod settings;
#[cfg(unix)]
pub mod site;
#[cfg(unix)]
pub mod socket;
#[cfg(unix)]
pub mod staff;
pub mod table;
pub mod typescript;

pub use command::CommandInfo;
pub use fault::{Fault, FaultCode};
pub use hospes_party::{forbid_core_dumps, worker};
pub use router::Router;
pub use table::{COMMANDS, Call};
