//! Backups of the site, and what a restored one still waits for.

use hospes_protocol::id::{Digest, FederationId, Timestamp};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A backup that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct BackupMade {
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the file, as the log has it.
    pub digest: Digest,
    /// Entries of the audit log in it.
    pub entries: u64,
    /// Datasets in it.
    pub datasets: u32,
}

/// What a site that was restored from a backup still waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RestoredView {
    /// SHA-256 of the backup.
    pub backup: Digest,
    /// When it was made.
    pub made: Timestamp,
    /// Entries of the audit log in it.
    pub entries: u64,
    /// When it was restored.
    pub at: Timestamp,
    /// Whether people confirmed it; before, this site connects to no federation.
    pub confirmed: bool,
    /// Federations with which it cannot go on yet.
    pub federations: Vec<RestoredFederation>,
}

/// A federation with which a restored site cannot go on yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RestoredFederation {
    /// Which.
    pub federation: FederationId,
    /// Its name.
    pub name: String,
    /// What its coordinator has seen that is not here; nothing while it has not answered.
    pub lost: Option<LostTail>,
}

/// Entries of this site's log that others have seen and this site has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct LostTail {
    /// Entries that the coordinator has cosigned.
    pub seen: u64,
    /// Entries that the backup had.
    pub restored: u64,
}
