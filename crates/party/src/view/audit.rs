//! An entry of the audit log part by part, with the names that this site knows.

use hospes_ledger::ObjectKind;
use hospes_protocol::id::Digest;
use hospes_protocol::sign::PublicKey;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What an entry of the audit log says besides when, what and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AuditParts {
    /// Id of who did it: a person, a federation or a site; `None` for the engine, and where it was erased.
    pub who: Option<String>,
    /// Key that a person signed with, where they did.
    pub key: Option<PublicKey>,
    /// On whose behalf, where that is somebody else.
    pub on_behalf: Option<String>,
    /// What it is about.
    pub about: Vec<AuditObject>,
    /// For which study, run and approval.
    pub purpose: Vec<AuditObject>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Digest of settings before a change.
    pub before: Option<Digest>,
    /// Digest of settings after it.
    pub after: Option<Digest>,
    /// What left.
    pub sent: Option<AuditSent>,
    /// Program and its version.
    pub software: Option<String>,
    /// Device on which it ran.
    pub device: Option<String>,
    /// What was erased of it.
    pub erased: Vec<AuditErased>,
}

/// A thing that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AuditObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its id, as the log has it.
    pub id: String,
    /// Its name, where this site knows it; of a run and of an approval the title of the study.
    pub name: Option<String>,
    /// Its digest, where it has one.
    pub digest: Option<Digest>,
}

/// What left, by an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AuditSent {
    /// Id of the receiver.
    pub to: String,
    /// Its name, where this site knows it.
    pub name: Option<String>,
    /// SHA-256 of what left.
    pub digest: Digest,
}

/// A part of an entry that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct AuditErased {
    /// Which, such as `actor`.
    pub part: String,
    /// Rule under which it was.
    pub rule: String,
}
