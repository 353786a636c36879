//! The ledger in the caller's database, inside the caller's open transaction.
//!
//! The same SQL runs on SQLite directly, and on SQLite and PostgreSQL through `sqlx::Any`; [`Connection`] is all that
//! knows the difference. Rows: `ledger_state` (size and order; its row 2 says how far objects are indexed),
//! `ledger_entry` (written form, with a few columns to filter by), `ledger_object` (which entries concern which object),
//! `ledger_tile` (the tree), and outside the tree `ledger_checkpoint` (own), `ledger_peer` (others'),
//! `ledger_cosignature` and `ledger_contradiction`.
//!
//! Columns and indexes only find entries: what a page shows is read from the written form, which the tree proves.

mod append;
mod checkpoints;
mod connection;
mod erase;
mod read;

pub use checkpoints::{Contradiction, PeerCheckpoint, StoredCosignature};
pub use connection::Connection;
pub use erase::Erasure;
pub use read::{Filter, InclusionProof, Page};

use crate::LedgerError;

/// The ledger of the party whose database this is, on one open connection.
///
/// Reads see what the connection's transaction sees; what is appended is there when the caller commits.
#[derive(Debug)]
pub struct Ledger<'c> {
    connection: Connection<'c>,
}

impl<'c> Ledger<'c> {
    /// The ledger on this connection: `Ledger::on(&mut *transaction)`.
    pub fn on(connection: impl Into<Connection<'c>>) -> Self {
        Self { connection: connection.into() }
    }

    /// Makes the tables, where they are not there yet.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn create(&mut self) -> Result<(), LedgerError> {
        let (key, blob) = match self.connection.is_postgres() {
            true => ("BIGINT PRIMARY KEY", "BYTEA"),
            false => ("INTEGER PRIMARY KEY", "BLOB"),
        };
        let script = TABLES.join(";\n").replace("{KEY}", key).replace("{BLOB}", blob);
        self.connection.script("create the ledger's tables", script).await?;
        self.index_objects().await
    }
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS ledger_state (id {KEY}, size BIGINT NOT NULL, last_order BIGINT NOT NULL)",
    "INSERT INTO ledger_state (id, size, last_order) VALUES (1, 0, 0) ON CONFLICT (id) DO NOTHING",
    "CREATE TABLE IF NOT EXISTS ledger_entry (sequence {KEY}, last_order BIGINT NOT NULL, at_ms BIGINT, actor TEXT, \
     action TEXT, outcome TEXT, study TEXT, job TEXT, approval TEXT, fields TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ledger_entry_order ON ledger_entry (last_order)",
    // Each has the other columns that pages are filtered by, so that what does not match is passed over in the index
    // alone. The first version had them without those.
    "DROP INDEX IF EXISTS ledger_entry_action",
    "DROP INDEX IF EXISTS ledger_entry_actor",
    "DROP INDEX IF EXISTS ledger_entry_outcome",
    "DROP INDEX IF EXISTS ledger_entry_study",
    "DROP INDEX IF EXISTS ledger_entry_job",
    "CREATE INDEX IF NOT EXISTS ledger_by_job ON ledger_entry (job, sequence, action, actor, outcome) \
     WHERE job IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ledger_by_approval ON ledger_entry (approval, sequence, action, actor, outcome) \
     WHERE approval IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ledger_by_study ON ledger_entry (study, sequence, action, actor, outcome) \
     WHERE study IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS ledger_by_action ON ledger_entry (action, sequence, actor, outcome)",
    "CREATE INDEX IF NOT EXISTS ledger_by_actor ON ledger_entry (actor, sequence, outcome)",
    "CREATE INDEX IF NOT EXISTS ledger_by_outcome ON ledger_entry (outcome, sequence, action, actor)",
    "CREATE TABLE IF NOT EXISTS ledger_object (id TEXT NOT NULL, sequence BIGINT NOT NULL, kind TEXT NOT NULL, \
     PRIMARY KEY (id, sequence, kind))",
    "CREATE INDEX IF NOT EXISTS ledger_object_kind ON ledger_object (kind, sequence)",
    "CREATE INDEX IF NOT EXISTS ledger_object_entry ON ledger_object (sequence)",
    "CREATE TABLE IF NOT EXISTS ledger_tile (level BIGINT NOT NULL, tile BIGINT NOT NULL, hashes {BLOB} NOT NULL, \
     PRIMARY KEY (level, tile))",
    "CREATE TABLE IF NOT EXISTS ledger_checkpoint (origin TEXT NOT NULL, size BIGINT NOT NULL, key TEXT NOT NULL, \
     at_ms BIGINT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, size))",
    "CREATE INDEX IF NOT EXISTS ledger_checkpoint_size ON ledger_checkpoint (size)",
    "CREATE TABLE IF NOT EXISTS ledger_peer (origin TEXT NOT NULL, size BIGINT NOT NULL, key TEXT NOT NULL, \
     at_ms BIGINT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, size))",
    "CREATE TABLE IF NOT EXISTS ledger_cosignature (origin TEXT NOT NULL, size BIGINT NOT NULL, \
     witness TEXT NOT NULL, key TEXT NOT NULL, at_ms BIGINT NOT NULL, line TEXT NOT NULL, \
     PRIMARY KEY (origin, size, witness))",
    "CREATE TABLE IF NOT EXISTS ledger_contradiction (origin TEXT NOT NULL, witness TEXT NOT NULL, \
     at_ms BIGINT NOT NULL, detail TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, witness, at_ms))",
];

#[cfg(test)]
mod forgeries;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod tests;
