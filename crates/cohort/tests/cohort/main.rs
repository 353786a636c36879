//! What the crate promises, from outside: through its public items only.

mod ingest;
mod rig;
mod rounds;
mod snapshots;
mod workers;
