//! The native export: JSON Lines with proofs, for [`crate::verify()`], and what every report ([`crate::report`]) is made
//! of.
//!
//! The native form, one JSON object a line:
//!
//! 1. a header: format, key, time, the signed checkpoint of what is exported, and the tree's partial tiles (`edges`,
//!    from the leaves upwards), which together give the checkpoint's root;
//! 2. before the entries below it, each full tile of the tree from the top down, so that every hash is proven by one
//!    that was proven before, every entry by the first tile above it, and a bad entry is named exactly;
//! 3. every entry in its written form ([`crate::leaf`]), in order;
//! 4. after the last entry it covers, each checkpoint of the header's key that was cosigned, with the keys of its
//!    witnesses;
//! 5. an end: number of lines, SHA-256 of all bytes before, and the key's signature over both.
//!
//! Writing and reading take memory for one tile a level, whatever the ledger's size.

use std::io::Write;

use data_encoding::BASE64;
use hospes_protocol::canon;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::sign::{PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::LedgerError;
use crate::store::Ledger;
use crate::tree::tiles::{TILE_HASHES, TileId};

/// Entries read from the database at a time.
const CHUNK: u64 = 1_024;

/// Name of the native form.
pub(crate) const FORMAT: &str = "hospes/ledger-export/v1";

/// First line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) format: String,
    pub(crate) key: PublicKey,
    pub(crate) made: Timestamp,
    pub(crate) checkpoint: String,
    pub(crate) edges: Vec<String>,
}

/// A cosigned checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointLine {
    pub(crate) checkpoint: String,
    pub(crate) key: PublicKey,
    pub(crate) witnesses: Vec<PublicKey>,
}

/// Last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndLine {
    pub(crate) end: End,
}

/// What closes an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    pub(crate) lines: u64,
    pub(crate) sha256: Digest,
    pub(crate) signature: Signature,
}

impl End {
    /// What the key signs.
    pub(crate) fn signed_digest(lines: u64, sha256: &Digest) -> Digest {
        let mut bytes = lines.to_be_bytes().to_vec();
        bytes.extend_from_slice(sha256.as_bytes());
        canon::digest("ledger-export", 1, &bytes)
    }
}

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Entries.
    pub size: u64,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub digest: Digest,
}

/// The full tiles that begin with entry `at` in a tree of `size` entries, from the top down.
pub(crate) fn tiles_at(at: u64, size: u64) -> impl Iterator<Item = TileId> {
    const BITS: u32 = TILE_HASHES.trailing_zeros();
    (0..7u32).rev().filter_map(move |level| {
        let width = 1u64 << (BITS * (level + 1));
        let full = at.is_multiple_of(width) && at.checked_add(width).is_some_and(|end| end <= size);
        full.then_some(TileId { level, index: at / width })
    })
}

pub(crate) fn encode(hashes: &[Digest]) -> String {
    let bytes: Vec<u8> = hashes.iter().flat_map(|h| *h.as_bytes()).collect();
    BASE64.encode(&bytes)
}

/// A writer that counts and hashes what goes through it.
struct Sink<'w> {
    out: &'w mut (dyn Write + Send),
    hash: Sha256,
    lines: u64,
    bytes: u64,
}

impl Sink<'_> {
    fn line(&mut self, parts: &[&str]) -> Result<(), LedgerError> {
        for part in parts.iter().chain([&"\n"]) {
            self.hash.update(part.as_bytes());
            self.bytes += part.len() as u64;
            self.out.write_all(part.as_bytes()).map_err(LedgerError::Write)?;
        }
        self.lines += 1;
        Ok(())
    }

    fn json<T: Serialize>(&mut self, value: &T) -> Result<(), LedgerError> {
        let text = serde_json::to_string(value).map_err(|e| LedgerError::Write(e.into()))?;
        self.line(&[&text])
    }
}

impl Ledger<'_> {
    /// Writes the whole ledger in the native form, signed with `key`, with the cosignatures that it has as that key's. The
    /// caller records the export as an entry (`audit_exported`); it is not part of what is exported.
    ///
    /// # Errors
    /// [`LedgerError::Write`], [`LedgerError::Database`], [`LedgerError::Damaged`], also if the ledger is shorter than a
    /// checkpoint of it that was signed: its tail is lost, and no export may look whole.
    pub async fn export(
        &mut self,
        key: &SecretKey,
        now: Timestamp,
        out: &mut (dyn Write + Send),
    ) -> Result<Exported, LedgerError> {
        self.check_tail().await?;
        let signed = self.sign_head(key).await?;
        let origin = signed.checkpoint().origin;
        let size = signed.checkpoint().size;
        let edges = self.edge(size).await?.levels().iter().map(|hashes| encode(hashes)).collect();
        let header = Header { format: FORMAT.into(), key: key.public(), made: now, checkpoint: signed.note(), edges };
        let mut sink = Sink { out, hash: Sha256::new(), lines: 0, bytes: 0 };
        sink.json(&header)?;
        for line in self.cosigned_checkpoints(origin, 0, 0).await? {
            sink.json(&checkpoint_line(line))?;
        }
        let mut start = 0;
        while start < size {
            let count = CHUNK.min(size - start);
            let texts = self.written(start, count).await?;
            if texts.len() as u64 != count {
                return Err(LedgerError::Damaged(format!("entry {} is missing", start + texts.len() as u64)));
            }
            let checkpoints = self.cosigned_checkpoints(origin, start + 1, start + count).await?;
            let mut checkpoints = checkpoints.into_iter().peekable();
            for (sequence, text) in (start..).zip(&texts) {
                for id in tiles_at(sequence, size) {
                    let hashes = encode(&self.tile(id).await?);
                    sink.line(&[&format!("{{\"tile\":[{},{}],\"hashes\":\"", id.level, id.index), &hashes, "\"}"])?;
                }
                sink.line(&[&format!("{{\"entry\":{sequence},\"fields\":"), text, "}"])?;
                while let Some(line) = checkpoints.next_if(|(s, ..)| s.checkpoint().size == sequence + 1) {
                    sink.json(&checkpoint_line(line))?;
                }
            }
            start += count;
        }
        let sha256 = Digest::from_bytes(sink.hash.clone().finalize().into());
        let lines = sink.lines;
        let signature = key.sign(&End::signed_digest(lines, &sha256));
        sink.json(&EndLine { end: End { lines, sha256, signature } })?;
        sink.out.flush().map_err(LedgerError::Write)?;
        Ok(Exported { size, bytes: sink.bytes, digest: Digest::from_bytes(sink.hash.finalize().into()) })
    }
}

fn checkpoint_line(
    (signed, key, witnesses): (crate::note::SignedCheckpoint, PublicKey, Vec<PublicKey>),
) -> CheckpointLine {
    CheckpointLine { checkpoint: signed.note(), key, witnesses }
}
