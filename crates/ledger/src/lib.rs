//! Append-only Merkle audit log: append, prove, checkpoint, witness, verify, page, export.
