//! Reading: heads, proofs, pages.

use std::collections::BTreeMap;
use std::ops::Range;

use hospes_protocol::id::{ApprovalId, Digest, JobId, StudyId};
use serde::{Deserialize, Serialize};

use super::Ledger;
use super::connection::{Row, Value};
use crate::entry::{Action, ObjectKind, Outcome};
use crate::leaf::{self, Record};
use crate::tree::proof::{self, Node, Span};
use crate::tree::{tiles, verify_inclusion};
use crate::{LedgerError, limits};

/// Which entries a page shows; everything that is `None` is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Entries of these actions; all if empty.
    pub actions: Vec<Action>,
    /// How they ended.
    pub outcome: Option<Outcome>,
    /// Who: a person's id, a node, or `engine` ([`crate::Actor::id`]).
    pub actor: Option<String>,
    /// Study.
    pub study: Option<StudyId>,
    /// Job.
    pub job: Option<JobId>,
    /// Approval.
    pub approval: Option<ApprovalId>,
    /// Id or name of an object that they concern, spelled as in the entry.
    pub object: Option<String>,
    /// Kind of an object that they concern; with `object`, of that one.
    pub object_kind: Option<ObjectKind>,
    /// From this time on, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Only entries before this sequence: the cursor of the next page.
    pub before: Option<u64>,
    /// Only entries after this sequence: for what is new.
    pub after: Option<u64>,
}

/// Entries, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub records: Vec<Record>,
    /// [`Filter::before`] of the next page; `None` at the end.
    pub next: Option<u64>,
    /// Entries of the whole ledger.
    pub size: u64,
}

/// Proof that an entry stands in the ledger at a checkpoint (RFC 6962 §2.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Sequence of the entry.
    pub sequence: u64,
    /// Entries of the tree.
    pub size: u64,
    /// Hash of the entry's leaf.
    pub leaf: Digest,
    /// The entry in its written form, from which the leaf's hash can be made.
    pub fields: String,
    /// Hashes from the leaf upwards.
    pub path: Vec<Digest>,
}

impl InclusionProof {
    /// Whether the entry in this proof stands in the tree with this root.
    #[must_use]
    pub fn holds(&self, root: &Digest) -> bool {
        leaf::read(&self.fields).is_ok_and(|parts| leaf::leaf_hash(&parts) == self.leaf)
            && verify_inclusion(&self.leaf, self.sequence, self.size, root, &self.path)
    }
}

/// The query for one page.
pub(super) struct Query {
    pub(super) sql: String,
    /// Values of `$3` and on, before the limit; `$1` and `$2` are the range of sequences.
    pub(super) texts: Vec<String>,
}

impl Query {
    /// Walks one index from its newest entry and stops at the limit. Which one is said here, the most telling first: a
    /// database that has no statistics takes any, and may then pass over a million entries.
    pub(super) fn new(filter: &Filter, action: Option<Action>, postgres: bool) -> Self {
        let columns = [
            ("job", filter.job.map(|j| j.to_string())),
            ("approval", filter.approval.map(|a| a.to_string())),
            ("study", filter.study.map(|s| s.to_string())),
            ("action", action.map(|a| a.as_str().to_owned())),
            ("actor", filter.actor.clone()),
            ("outcome", filter.outcome.map(|o| o.as_str().to_owned())),
        ];
        let objects = [("id", filter.object.clone()), ("kind", filter.object_kind.map(|k| k.as_str().to_owned()))];
        let by_object = objects.iter().any(|(_, text)| text.is_some());
        let driver = columns.iter().find(|(_, text)| text.is_some()).map(|(column, _)| *column);
        // What went wrong is rare; what went well is nearly everything.
        let driver = match (driver, filter.outcome) {
            (Some("action" | "actor"), Some(Outcome::Refused | Outcome::Failed)) => Some("outcome"),
            (driver, _) => driver,
        };
        // SQLite joins in the order of a CROSS JOIN, and takes the index that it is told; PostgreSQL has statistics.
        let indexed = |name: String| if postgres { String::new() } else { format!(" INDEXED BY {name}") };
        let (from, sequence) = match driver {
            _ if filter.object.is_some() => ("ledger_object o CROSS JOIN ledger_entry e".to_owned(), "o.sequence"),
            _ if by_object => {
                let index = indexed("ledger_object_kind".into());
                (format!("ledger_object o{index} CROSS JOIN ledger_entry e"), "o.sequence")
            }
            Some(column) => (format!("ledger_entry e{}", indexed(format!("ledger_by_{column}"))), "e.sequence"),
            None => ("ledger_entry e".to_owned(), "e.sequence"),
        };
        let mut sql = format!("SELECT e.sequence, e.fields FROM {from} WHERE {sequence} >= $1 AND {sequence} < $2");
        if by_object {
            sql.push_str(" AND e.sequence = o.sequence");
        }
        let mut texts = Vec::new();
        let named = objects.into_iter().map(|(c, t)| ("o", c, t)).chain(columns.into_iter().map(|(c, t)| ("e", c, t)));
        for (table, column, text) in named {
            if let Some(text) = text {
                texts.push(text);
                // Names of columns are constants of this function; what was asked for is always a bound value.
                sql.push_str(&format!(" AND {table}.{column} = ${}", texts.len() + 2));
            }
        }
        sql.push_str(&format!(" ORDER BY {sequence} DESC LIMIT ${}", texts.len() + 3));
        Self { sql, texts }
    }
}

impl Ledger<'_> {
    /// Root of the tree of the first `size` entries.
    ///
    /// # Errors
    /// [`LedgerError::OutOfRange`] if there are fewer, [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn root(&mut self, size: u64) -> Result<Digest, LedgerError> {
        self.has(size).await?;
        Ok(self.edge(size).await?.root())
    }

    /// Proof that entry `sequence` stands in the tree of the first `size` entries.
    ///
    /// # Errors
    /// As [`Ledger::root`].
    pub async fn prove_inclusion(&mut self, sequence: u64, size: u64) -> Result<InclusionProof, LedgerError> {
        self.has(size).await?;
        let spans = proof::inclusion(sequence, size).ok_or(LedgerError::OutOfRange { size, asked: sequence })?;
        let path = self.evaluate(&spans).await?;
        let fields = self.fields(sequence).await?;
        let parts = leaf::read(&fields).map_err(|e| LedgerError::Damaged(format!("entry {sequence}: {e}")))?;
        let leaf = leaf::leaf_hash(&parts);
        Ok(InclusionProof { sequence, size, leaf, fields, path })
    }

    /// Proof that the first `size` entries begin with the first `old_size` (RFC 6962 §2.1.2).
    ///
    /// # Errors
    /// As [`Ledger::root`]. A peer that asks for a proof from more entries than there are has seen a ledger that this
    /// one no longer is: [`LedgerError::OutOfRange`] is then an alarm.
    pub async fn prove_consistency(&mut self, old_size: u64, size: u64) -> Result<Vec<Digest>, LedgerError> {
        self.has(size).await?;
        let spans = proof::consistency(old_size, size).ok_or(LedgerError::OutOfRange { size, asked: old_size })?;
        self.evaluate(&spans).await
    }

    /// One entry.
    ///
    /// # Errors
    /// [`LedgerError::OutOfRange`] if there is none, [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn record(&mut self, sequence: u64) -> Result<Record, LedgerError> {
        Record::read(sequence, &self.fields(sequence).await?)
    }

    /// Entries that match, newest first, at most `limit` (itself at most [`limits::PAGE_ENTRIES`]).
    ///
    /// # Errors
    /// [`LedgerError::Database`], [`LedgerError::Damaged`].
    pub async fn page(&mut self, filter: &Filter, limit: u32) -> Result<Page, LedgerError> {
        let limit = limit.clamp(1, limits::PAGE_ENTRIES);
        let size = self.size().await?;
        let range = self.range(filter, size).await?;
        // One query for each action walks one index from its end and stops at the limit; a single query over several
        // would have to sort all that match.
        let actions: Vec<Option<Action>> =
            if filter.actions.is_empty() { vec![None] } else { filter.actions.iter().copied().map(Some).collect() };
        let mut found = BTreeMap::new();
        // A query that was cut off knows nothing below its last row; nothing there may be shown yet.
        let mut floor = 0;
        let mut cut = false;
        for action in actions {
            let rows = self.matching(filter, &range, action, limit).await?;
            let full = rows.len() == limit as usize;
            for row in &rows {
                found.insert(row.count(0)?, row.text(1)?);
            }
            if let Some(last) = rows.last().filter(|_| full) {
                floor = floor.max(last.count(0)?);
                cut = true;
            }
        }
        let newest = found.into_iter().rev().take_while(|(sequence, _)| *sequence >= floor).take(limit as usize);
        let records = newest.map(|(sequence, text)| Record::read(sequence, &text)).collect::<Result<Vec<_>, _>>()?;
        let more = cut || records.len() == limit as usize;
        let next = records.last().map(|r| r.sequence).filter(|last| more && *last > 0);
        Ok(Page { records, next, size })
    }

    /// The run of sequences that a filter's times and cursors leave. Times go by order, which equals the time unless
    /// the clock went back, and which grows with the sequence.
    async fn range(&mut self, filter: &Filter, size: u64) -> Result<Range<u64>, LedgerError> {
        let mut range = filter.after.map_or(0, |after| after.saturating_add(1))..filter.before.unwrap_or(size);
        if let Some(from) = filter.from_ms {
            range.start = range.start.max(self.first_at(from, size).await?);
        }
        if let Some(until) = filter.until_ms {
            range.end = range.end.min(self.first_at(until, size).await?);
        }
        Ok(range)
    }

    /// The first entry whose order is not below this time; `size` if there is none.
    async fn first_at(&mut self, ms: i64, size: u64) -> Result<u64, LedgerError> {
        let row = self
            .connection
            .row(
                "find a time",
                "SELECT sequence FROM ledger_entry WHERE last_order >= $1 ORDER BY last_order LIMIT 1",
                &[Value::Int(ms)],
            )
            .await?;
        row.map_or(Ok(size), |row| row.count(0))
    }

    async fn matching(
        &mut self,
        filter: &Filter,
        range: &Range<u64>,
        action: Option<Action>,
        limit: u32,
    ) -> Result<Vec<Row>, LedgerError> {
        let query = Query::new(filter, action, self.connection.is_postgres());
        let mut values: Vec<Value<'_>> = vec![range.start.into(), range.end.into()];
        values.extend(query.texts.iter().map(|text| Value::Text(text)));
        values.push(Value::Int(i64::from(limit)));
        self.connection.rows_owned("read a page", query.sql, &values).await
    }

    /// Written forms of the entries from `start`, at most `limit`, in order.
    pub(crate) async fn written(&mut self, start: u64, limit: u64) -> Result<Vec<String>, LedgerError> {
        let rows = self
            .connection
            .rows(
                "read entries",
                "SELECT sequence, fields FROM ledger_entry WHERE sequence >= $1 AND sequence < $2 ORDER BY sequence",
                &[start.into(), (start + limit).into()],
            )
            .await?;
        let mut texts = Vec::with_capacity(rows.len());
        for (expected, row) in (start..).zip(&rows) {
            if row.count(0)? != expected {
                return Err(LedgerError::Damaged(format!("entry {expected} is missing")));
            }
            // SQLite takes any bytes for a text.
            texts.push(row.text(1).map_err(|_| LedgerError::Damaged(format!("entry {expected} is no text")))?);
        }
        Ok(texts)
    }

    async fn has(&mut self, size: u64) -> Result<(), LedgerError> {
        let have = self.size().await?;
        if size > have { Err(LedgerError::OutOfRange { size: have, asked: size }) } else { Ok(()) }
    }

    async fn fields(&mut self, sequence: u64) -> Result<String, LedgerError> {
        let size = self.size().await?;
        self.connection
            .row("read an entry", "SELECT fields FROM ledger_entry WHERE sequence = $1", &[sequence.into()])
            .await?
            .ok_or(LedgerError::OutOfRange { size, asked: sequence })?
            .text(0)
    }

    /// Hashes of spans; every tile is read once.
    async fn evaluate(&mut self, spans: &[Span]) -> Result<Vec<Digest>, LedgerError> {
        let mut read = BTreeMap::new();
        let mut hashes = Vec::with_capacity(spans.len());
        for span in spans {
            let nodes: Vec<Node> = span.nodes();
            let mut parts = Vec::with_capacity(nodes.len());
            for node in nodes {
                let (id, ..) = tiles::locate(node);
                if let std::collections::btree_map::Entry::Vacant(place) = read.entry(id) {
                    place.insert(self.tile(id).await?);
                }
                let hash = tiles::node_in_tile(node, &read[&id]);
                parts.push(
                    hash.ok_or_else(|| {
                        LedgerError::Damaged(format!("tile {} of level {} is cut", id.index, id.level))
                    })?,
                );
            }
            hashes.push(Span::hash(&parts));
        }
        Ok(hashes)
    }
}
