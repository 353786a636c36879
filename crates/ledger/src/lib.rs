//! Append-only Merkle audit log: append, prove, checkpoint, witness, verify, page, export.
//!
//! What it does: it keeps the [`Entry`]s of one party (a site, or the coordinator) in a Merkle tree (RFC 6962 hashing,
//! C2SP `tlog-tiles` layout) inside the caller's own database, signs checkpoints of it as C2SP signed notes, checks and
//! cosigns those of peers, writes exports that anyone can verify without the database, and makes reports of them for
//! people and other systems.
//!
//! What it deliberately does not do: it opens no database and no transaction (a ledger entry is committed with the
//! step that it records, invariant I3), it reads no clock and draws no randomness (invariant I5), and it sends nothing.
//!
//! Start reading at [`Ledger::append`], then [`leaf`] (what a leaf commits to, and how erasure keeps proofs valid),
//! [`tree`], [`witness`], [`verify()`] and [`report`].

pub mod entry;
mod error;
pub mod export;
pub mod leaf;
pub mod note;
pub mod report;
mod retention;
mod store;
pub mod tree;
pub mod verify;
pub mod witness;

pub use entry::{Action, Actor, Change, Egress, Engine, Entry, Object, ObjectKind, Outcome, PeerEntry, Purpose};
pub use error::LedgerError;
pub use leaf::{Field, Record};
pub use note::{Checkpoint, Cosignature, NoteError, SignedCheckpoint};
pub use retention::Retention;
pub use store::{
    Connection, Contradiction, Erasure, Filter, InclusionProof, Ledger, Page, PeerCheckpoint, StoredCosignature,
};
pub use verify::{Expectations, Finding, Proven, Report, verify};
pub use witness::{Seen, Settlement, Verdict, Witnessing, settled};

/// Limits of the ledger, by name.
pub mod limits {
    /// Characters of a reason.
    pub const REASON_CHARS: usize = 1_000;
    /// Characters of a name in an entry (id of an object, device, version, rule).
    pub const NAME_CHARS: usize = 256;
    /// Objects of one entry.
    pub const OBJECTS: usize = 64;
    /// Bytes of one line of an export.
    pub const LINE_BYTES: usize = 1 << 20;
    /// Entries of one ledger (2^40).
    pub const ENTRIES: u64 = 1 << 40;
    /// Bytes of a signed note with all its signatures.
    pub const NOTE_BYTES: usize = hospes_protocol::limits::CHECKPOINT_BYTES;
    /// Signatures under one note.
    pub const NOTE_SIGNATURES: usize = 1_000;
    /// Hashes of one proof: RFC 6962 needs at most 2 for each level of the tree.
    pub const PROOF_HASHES: usize = 128;
    /// Entries of one page.
    pub const PAGE_ENTRIES: u32 = 1_000;
}
