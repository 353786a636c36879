//! The hospital's engine: people, data, memberships, decisions, rounds and what leaves; one event loop behind a
//! [`Handle`].
//!
//! A party belongs to one site. It keeps its state in one SQLite database, its secrets in the OS keychain or a sealed
//! file, and does nothing on data until the site's own people have signed. Roles are enforced here, never in a user
//! interface (invariant I6). Training happens in a child process of the same binary; rows never enter this process
//! except while a dataset is registered.
//!
//! What it deliberately does not do: it shows nothing (see `hospes-ipc`), it reads no rows itself (see `hospes-cohort`),
//! and it does not decide what an approval covers (see `Approval::permit` in `hospes-protocol`).
//!
//! Start reading at [`Handle`] (everything that can be asked), then `engine` (the loop that owns the state), then
//! `rounds` (from an opened round to the outbox).

mod audit;
mod backup;
pub mod config;
mod datasets;
mod engine;
mod error;
mod foundation;
mod handle;
pub mod keys;
pub mod link;
pub mod managed;
mod memberships;
mod names;
mod new_file;
mod people;
mod pools;
mod requests;
mod restored;
mod rounds;
mod seam;
#[cfg(feature = "simulation")]
pub mod simulation;
mod store;
#[cfg(test)]
mod tests;
mod updates;
pub mod view;
mod witness;

pub use backup::Restoration;
pub use config::{Clock, Config, Executor, KnownKeys, system_clock};
pub use error::PartyError;
pub use foundation::Foundation;
pub use handle::{Handle, Opening, initialise, open, open_telling};
pub use hospes_cohort::forbid_core_dumps;
pub use managed::{Managed, ManagedFile};
pub use new_file::Part;
pub use people::{Passphrase, Session};
pub use requests::text::{known_sites, render as render_review};
pub use rounds::worker::{ARGUMENT as WORKER_ARGUMENT, run as worker};
pub use rounds::{DeviceChoice, Probed, chosen_card, probe_cards};

/// Name and version of this software, as ledger entries and sessions carry it.
pub const SOFTWARE: &str = concat!("hospes/", env!("CARGO_PKG_VERSION"));
