//! Exports: JSON Lines with proofs (native, for [`crate::verify()`]) and CSV (for people).
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
use crate::entry::Actor;
use crate::leaf::Record;
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

    /// Writes the whole ledger as CSV (RFC 4180, UTF-8) for people and spreadsheets. It proves nothing.
    ///
    /// # Errors
    /// [`LedgerError::Write`], [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn export_csv(&mut self, out: &mut (dyn Write + Send)) -> Result<Exported, LedgerError> {
        let size = self.size().await?;
        let mut sink = Sink { out, hash: Sha256::new(), lines: 0, bytes: 0 };
        let mut start = 0;
        sink.csv(CSV_COLUMNS.iter().map(|c| (*c).to_owned()))?;
        while start < size {
            let texts = self.written(start, CHUNK.min(size - start)).await?;
            if texts.is_empty() {
                return Err(LedgerError::Damaged(format!("entry {start} is missing")));
            }
            for (sequence, text) in (start..).zip(&texts) {
                sink.csv(csv_row(&Record::read(sequence, text)?))?;
            }
            start += texts.len() as u64;
        }
        sink.out.flush().map_err(LedgerError::Write)?;
        Ok(Exported { size, bytes: sink.bytes, digest: Digest::from_bytes(sink.hash.finalize().into()) })
    }
}

fn checkpoint_line(
    (signed, key, witnesses): (crate::note::SignedCheckpoint, PublicKey, Vec<PublicKey>),
) -> CheckpointLine {
    CheckpointLine { checkpoint: signed.note(), key, witnesses }
}

const CSV_COLUMNS: [&str; 22] = [
    "sequence",
    "time",
    "order",
    "actor",
    "role",
    "key",
    "on_behalf",
    "action",
    "outcome",
    "reason",
    "objects",
    "study",
    "job",
    "approval",
    "before",
    "after",
    "sent_to",
    "sent_bytes",
    "sent_digest",
    "program",
    "answers",
    "erased",
];

impl Sink<'_> {
    fn csv(&mut self, cells: impl IntoIterator<Item = String>) -> Result<(), LedgerError> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
        writer.write_record(cells.into_iter().map(inert)).map_err(|e| LedgerError::Write(e.into()))?;
        let bytes = writer.into_inner().map_err(|e| LedgerError::Write(e.into_error()))?;
        self.hash.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.lines += 1;
        self.out.write_all(&bytes).map_err(LedgerError::Write)
    }
}

/// A cell that no spreadsheet takes for a formula (OWASP, CSV injection).
fn inert(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

fn csv_row(record: &Record) -> [String; 22] {
    fn shown<T: std::fmt::Display>(value: Option<T>) -> String {
        value.map(|v| v.to_string()).unwrap_or_default()
    }
    let objects: Vec<String> = record
        .objects
        .iter()
        .map(|o| match o.digest {
            Some(digest) => format!("{} {} sha256:{digest}", o.kind, o.id),
            None => format!("{} {}", o.kind, o.id),
        })
        .collect();
    let erased: Vec<String> =
        record.erased.iter().map(|(field, rule)| format!("{} erased under {rule}", field.as_str())).collect();
    let (role, key) = match &record.actor {
        Some(Actor::Person { role, key, .. }) => (role.clone().unwrap_or_default(), shown(*key)),
        Some(Actor::Peer { organisation, .. }) => (organisation.clone().unwrap_or_default(), String::new()),
        Some(Actor::Engine) | None => (String::new(), String::new()),
    };
    let egress = record.egress.as_ref();
    [
        record.sequence.to_string(),
        shown(record.when.map(|w| w.at)),
        shown(record.when.map(|w| w.order)),
        shown(record.actor.as_ref().map(Actor::id)),
        role,
        key,
        shown(record.on_behalf.as_ref().map(Actor::id)),
        shown(record.action),
        shown(record.outcome.map(crate::Outcome::as_str)),
        record.reason.clone().unwrap_or_default(),
        objects.join("; "),
        shown(record.purpose.study),
        shown(record.purpose.job),
        shown(record.purpose.approval),
        shown(record.change.and_then(|c| c.before)),
        shown(record.change.and_then(|c| c.after)),
        shown(egress.map(|e| &e.to)),
        shown(egress.map(|e| e.bytes)),
        shown(egress.map(|e| e.digest)),
        record.engine.as_ref().map(program).unwrap_or_default(),
        shown(record.answers.map(|a| format!("{}#{}", a.origin, a.entry))),
        erased.join("; "),
    ]
}

fn program(engine: &crate::Engine) -> String {
    match &engine.device {
        Some(device) => format!("{} on {device}", engine.version),
        None => engine.version.clone(),
    }
}
