//! The coordinator of a federation: enrolment with its own certificate authority, sessions of the sites, studies, jobs,
//! rounds by *stage, then reduce*, models, and the REST API of operators and researchers.
//!
//! What it deliberately does not: it never sees a row of data, holds no key of a site, and nothing that it says is
//! believed by a site beyond what that site's people signed.
//!
//! Start reading at [`serve::Coordinator`] (one running process), then [`store::Store`] (all durable state, as named
//! transactions on SQLite or PostgreSQL).

pub mod aggregate;
pub mod audit;
pub mod ca;
pub mod config;
pub mod enrol;
mod error;
pub mod keyfile;
pub mod models;
mod noise;
pub mod schedule;
mod seam;
pub mod serve;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod store;
pub mod witness;

use std::sync::Arc;

use hospes_protocol::id::Timestamp;

pub use error::Error;

/// Name and version of this program, as it says them to peers and writes them into its ledger.
pub const SOFTWARE: &str = concat!("hospes-coordinator ", env!("CARGO_PKG_VERSION"));

/// Where time comes from, so that tests can turn it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// So many bytes from the operating system's random generator.
///
/// # Errors
/// [`Error::Random`] if the operating system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(bytes)
}
