//! What can go wrong so that somebody may have to act. Expected outcomes (refusals) are values elsewhere.

use std::path::PathBuf;

/// An operation of the coordinator failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database did not do what it was asked.
    #[error("database: {operation} failed")]
    Database {
        /// Name of the transaction or query.
        operation: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// The database was written by a newer version, or altered.
    #[error("database: {0}")]
    Schema(String),
    /// Something in the store does not read as what it should be.
    #[error("the store holds an unreadable {what}: {reason}")]
    Corrupt {
        /// What.
        what: &'static str,
        /// Why it cannot be read.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key file cannot be opened.
    #[error("{path}: {reason}")]
    Sealed {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(String),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(String),
    /// TLS could not be set up.
    #[error("tls")]
    Tls(#[from] rustls::Error),
    /// A document has no canonical form.
    #[error("document")]
    Document(#[from] hospes_protocol::canon::CanonError),
    /// The audit ledger could not be written; what it should have recorded did not happen.
    #[error("the audit ledger failed")]
    Ledger(#[from] hospes_ledger::LedgerError),
    /// The port could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another coordinator works on the same folder or database.
    #[error("another coordinator {0}")]
    Occupied(String),
    /// The members make no roster that a site would believe.
    #[error("the roster cannot be made")]
    Roster(#[from] hospes_protocol::study::RosterError),
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
    /// The schedule has stopped.
    #[error("the coordinator is shutting down")]
    Stopping,
}

impl Error {
    /// Names the operation in which the database failed; for `map_err`.
    pub fn database(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { operation, source }
    }

    /// Names the file and what was tried; for `map_err`.
    pub fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    /// The database of a coordinator that was used is not there any more.
    pub fn lost(what: impl std::fmt::Display) -> Self {
        Self::Schema(format!(
            "{what}, and is not made anew: members and audit ledger would be lost. Restore it from a backup and start once \
             with `hospes-coordinator serve --new-epoch`; if this coordinator was never used, delete its data folder and \
             run `hospes-coordinator init` again"
        ))
    }

    /// Something in the store does not read.
    pub fn corrupt(what: &'static str, reason: impl ToString) -> Self {
        Self::Corrupt { what, reason: reason.to_string() }
    }
}
