//! What can go wrong with a ledger.

use crate::note::NoteError;

/// An error of the ledger. Whoever gets one while recording a step must not take that step (fail closed).
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database did not do what it was asked.
    #[error("the ledger could not {verb}")]
    Database {
        /// What was to be done.
        verb: &'static str,
        /// Why it was not.
        #[source]
        source: sqlx::Error,
    },
    /// A field of an entry exceeds a limit or has characters that it may not have.
    #[error("{field} of a ledger entry {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What was read from the database is not what the ledger wrote there.
    #[error("the ledger in the database is damaged: {0}")]
    Damaged(String),
    /// A size or sequence that the ledger does not have.
    #[error("the ledger has {size} entries; {asked} was asked for")]
    OutOfRange {
        /// Entries that there are.
        size: u64,
        /// What was asked for.
        asked: u64,
    },
    /// A note that is none, or whose signature does not hold.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// An export could not be written.
    #[error("the export could not be written")]
    Write(#[source] std::io::Error),
}
