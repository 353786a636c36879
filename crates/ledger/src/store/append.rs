//! Appending: entries, tiles and size in the caller's transaction.

use std::ops::Range;

use hospes_protocol::id::Digest;

use super::connection::Value;
use super::{Connection, Ledger};
use crate::entry::{Entry, Object};
use crate::leaf::Record;
use crate::tree::tiles::{Edge, Tile, TileId};
use crate::{LedgerError, leaf, limits};

/// Rows of one INSERT of a batch; more save little and are more variables than some builds of SQLite allow.
const BATCH_ROWS: usize = 32;
const COLUMNS: usize = 10;

/// A row of `ledger_entry`.
struct NewRow {
    sequence: u64,
    order: u64,
    at_ms: i64,
    actor: String,
    action: &'static str,
    outcome: &'static str,
    study: Option<String>,
    job: Option<String>,
    approval: Option<String>,
    fields: String,
}

impl NewRow {
    fn values(&self) -> [Value<'_>; COLUMNS] {
        [
            self.sequence.into(),
            self.order.into(),
            Value::Int(self.at_ms),
            Value::Text(&self.actor),
            Value::Text(self.action),
            Value::Text(self.outcome),
            Value::MaybeText(self.study.as_deref()),
            Value::MaybeText(self.job.as_deref()),
            Value::MaybeText(self.approval.as_deref()),
            Value::Text(&self.fields),
        ]
    }
}

impl Ledger<'_> {
    /// Appends one entry and returns its sequence. It is in the ledger when the caller's transaction commits; until
    /// then no other transaction can append (invariant I3: record, commit, and only then send).
    ///
    /// `random` are 32 fresh random bytes, from which the salts are made; they are not kept.
    ///
    /// # Errors
    /// [`LedgerError::Field`] if a text is over its limit, [`LedgerError::Database`], [`LedgerError::Damaged`]. The
    /// caller must then roll back and not do what it wanted to record.
    pub async fn append(&mut self, entry: &Entry, random: &[u8; 32]) -> Result<u64, LedgerError> {
        Ok(self.append_all(std::slice::from_ref(entry), random).await?.start)
    }

    /// Appends entries in order and returns their sequences.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn append_all(&mut self, entries: &[Entry], random: &[u8; 32]) -> Result<Range<u64>, LedgerError> {
        for entry in entries {
            entry.check()?;
        }
        // The update takes the row's lock, so that two transactions never see the same size.
        let taken = self
            .connection
            .row(
                "append",
                "UPDATE ledger_state SET size = size + $1 WHERE id = 1 RETURNING size, last_order",
                &[(entries.len() as u64).into()],
            )
            .await?
            .ok_or_else(|| LedgerError::Damaged("the row of its size is missing".into()))?;
        let (end, mut order) = (taken.count(0)?, taken.count(1)?);
        if end > limits::ENTRIES {
            return Err(LedgerError::OutOfRange { size: limits::ENTRIES, asked: end });
        }
        let start = end - entries.len() as u64;
        let mut edge = self.edge(start).await?;
        let mut rows = Vec::with_capacity(entries.len());
        let mut leaves = Vec::with_capacity(entries.len());
        for (sequence, entry) in (start..).zip(entries) {
            order = (order + 1).max(u64::try_from(entry.at.as_millis()).unwrap_or(0));
            let (fields, leaf) = leaf::seal(entry, sequence, order, random)?;
            leaves.push(leaf);
            rows.push(NewRow {
                sequence,
                order,
                at_ms: entry.at.as_millis(),
                actor: entry.actor.id(),
                action: entry.action.as_str(),
                outcome: entry.outcome.as_str(),
                study: entry.purpose.study.map(|id| id.to_string()),
                job: entry.purpose.job.map(|id| id.to_string()),
                approval: entry.purpose.approval.map(|id| id.to_string()),
                fields,
            });
        }
        insert(&mut self.connection, &rows).await?;
        let objects: Vec<(u64, &[Object])> =
            (start..).zip(entries).map(|(sequence, entry)| (sequence, entry.objects.as_slice())).collect();
        self.insert_objects(&objects).await?;
        for tile in edge.extend(leaves) {
            self.put_tile(&tile).await?;
        }
        self.connection
            .execute("append", "UPDATE ledger_state SET last_order = $1 WHERE id = 1", &[order.into()])
            .await?;
        Ok(start..end)
    }

    /// Notes which entries concern which object, so that they are found by it.
    async fn insert_objects(&mut self, entries: &[(u64, &[Object])]) -> Result<(), LedgerError> {
        const INTO: &str = "INSERT INTO ledger_object (id, sequence, kind) VALUES ";
        let rows: Vec<[Value<'_>; 3]> = entries
            .iter()
            .flat_map(|(sequence, objects)| objects.iter().map(move |object| (*sequence, object)))
            .map(|(sequence, object)| [Value::Text(&object.id), sequence.into(), Value::Text(object.kind.as_str())])
            .collect();
        for batch in rows.chunks(BATCH_ROWS) {
            let places: Vec<String> =
                (0..batch.len()).map(|row| format!("(${}, ${}, ${})", row * 3 + 1, row * 3 + 2, row * 3 + 3)).collect();
            // An entry may name one object twice.
            let sql = format!("{INTO}{} ON CONFLICT DO NOTHING", places.join(", "));
            self.connection.rows_owned("append", sql, batch.as_flattened()).await?;
        }
        Ok(())
    }

    /// Notes the objects of entries that were appended before there was a table of them. Row 2 of `ledger_state` says
    /// that it was done.
    pub(super) async fn index_objects(&mut self) -> Result<(), LedgerError> {
        let done = self.connection.row("read its state", "SELECT size FROM ledger_state WHERE id = 2", &[]).await?;
        if done.is_some() {
            return Ok(());
        }
        let size = self.size().await?;
        let mut start = 0;
        while start < size {
            let texts = self.written(start, u64::from(limits::PAGE_ENTRIES)).await?;
            if texts.is_empty() {
                break;
            }
            let records = (start..)
                .zip(&texts)
                // One that cannot be read is not found by its objects, and verification names it; the site still opens.
                .filter_map(|(sequence, text)| Record::read(sequence, text).ok())
                .collect::<Vec<_>>();
            let objects: Vec<(u64, &[Object])> = records.iter().map(|r| (r.sequence, r.objects.as_slice())).collect();
            self.insert_objects(&objects).await?;
            start += texts.len() as u64;
        }
        let sql = "INSERT INTO ledger_state (id, size, last_order) VALUES (2, $1, 0) ON CONFLICT (id) DO NOTHING";
        self.connection.execute("index objects", sql, &[size.into()]).await.map(drop)
    }

    /// Number of entries.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn size(&mut self) -> Result<u64, LedgerError> {
        self.connection
            .row("read its size", "SELECT size FROM ledger_state WHERE id = 1", &[])
            .await?
            .ok_or_else(|| LedgerError::Damaged("the row of its size is missing".into()))?
            .count(0)
    }

    /// The right edge of the tree of the first `size` entries.
    pub(crate) async fn edge(&mut self, size: u64) -> Result<Edge, LedgerError> {
        let mut tiles = Vec::new();
        for (id, len) in Edge::parts(size) {
            let mut hashes = self.tile(id).await?;
            hashes.truncate(len);
            tiles.push(Tile { id, hashes });
        }
        Edge::new(size, &tiles).ok_or_else(|| LedgerError::Damaged(format!("a tile is missing before entry {size}")))
    }

    /// Hashes of one tile.
    pub(crate) async fn tile(&mut self, id: TileId) -> Result<Vec<Digest>, LedgerError> {
        let row = self
            .connection
            .row(
                "read a tile",
                "SELECT hashes FROM ledger_tile WHERE level = $1 AND tile = $2",
                &[u64::from(id.level).into(), id.index.into()],
            )
            .await?;
        let damaged = || LedgerError::Damaged(format!("tile {} of level {} is missing or cut", id.index, id.level));
        let bytes = row.ok_or_else(damaged)?.blob(0)?;
        let (hashes, []) = bytes.as_chunks::<32>() else { return Err(damaged()) };
        Ok(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
    }

    async fn put_tile(&mut self, tile: &Tile) -> Result<(), LedgerError> {
        let mut bytes = Vec::with_capacity(tile.hashes.len() * 32);
        for hash in &tile.hashes {
            bytes.extend_from_slice(hash.as_bytes());
        }
        self.connection
            .execute(
                "write a tile",
                "INSERT INTO ledger_tile (level, tile, hashes) VALUES ($1, $2, $3) \
                 ON CONFLICT (level, tile) DO UPDATE SET hashes = excluded.hashes",
                &[u64::from(tile.id.level).into(), tile.id.index.into(), Value::Blob(&bytes)],
            )
            .await
            .map(drop)
    }
}

async fn insert(connection: &mut Connection<'_>, rows: &[NewRow]) -> Result<(), LedgerError> {
    const INTO: &str = "INSERT INTO ledger_entry \
         (sequence, last_order, at_ms, actor, action, outcome, study, job, approval, fields) VALUES ";
    const ONE: &str = "INSERT INTO ledger_entry \
         (sequence, last_order, at_ms, actor, action, outcome, study, job, approval, fields) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let (batches, rest) = rows.as_chunks::<BATCH_ROWS>();
    for batch in batches {
        let values: Vec<Value<'_>> = batch.iter().flat_map(NewRow::values).collect();
        // One text for all full batches, so that the database prepares it once.
        let places: Vec<String> = (0..BATCH_ROWS)
            .map(|row| {
                let numbers: Vec<String> = (1..=COLUMNS).map(|c| format!("${}", row * COLUMNS + c)).collect();
                format!("({})", numbers.join(", "))
            })
            .collect();
        connection.rows_owned("append", format!("{INTO}{}", places.join(", ")), &values).await?;
    }
    for row in rest {
        connection.execute("append", ONE, &row.values()).await?;
    }
    Ok(())
}
