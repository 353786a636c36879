//! Reading: heads, proofs, pages.

use std::collections::BTreeMap;

use hospes_protocol::id::{Digest, JobId, StudyId};
use serde::{Deserialize, Serialize};

use super::Ledger;
use super::connection::Value;
use crate::entry::{Action, Outcome};
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
        let names = Names::of(filter);
        let (clauses, mut values) = names.clauses(filter);
        values.push(Value::Int(i64::from(limit)));
        let sql = format!(
            "SELECT sequence, fields FROM ledger_entry{clauses} ORDER BY sequence DESC LIMIT ${}",
            values.len()
        );
        let rows = self.connection.rows_owned("read a page", sql, &values).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            records.push(Record::read(row.count(0)?, &row.text(1)?)?);
        }
        let full = records.len() == limit as usize;
        let next = records.last().map(|r| r.sequence).filter(|last| full && *last > 0);
        Ok(Page { records, next, size })
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
            texts.push(row.text(1)?);
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

/// Texts of a filter, kept while a statement borrows them.
struct Names {
    study: Option<String>,
    job: Option<String>,
}

impl Names {
    fn of(filter: &Filter) -> Self {
        Self { study: filter.study.map(|id| id.to_string()), job: filter.job.map(|id| id.to_string()) }
    }

    /// The WHERE clause, of constant texts and numbered places only, and the values for them.
    fn clauses<'a>(&'a self, filter: &'a Filter) -> (String, Vec<Value<'a>>) {
        let mut clauses: Vec<String> = Vec::new();
        let mut values: Vec<Value<'a>> = Vec::new();
        let mut add = |clause: &str, value: Value<'a>| {
            values.push(value);
            clauses.push(format!("{clause} ${}", values.len()));
        };
        let texts = [("study =", &self.study), ("job =", &self.job), ("actor =", &filter.actor)];
        for (clause, text) in texts {
            if let Some(text) = text {
                add(clause, Value::Text(text));
            }
        }
        if let Some(outcome) = filter.outcome {
            add("outcome =", Value::Text(outcome.as_str()));
        }
        // Times are filtered by order: it equals the time unless the clock went back, and it has an index.
        let numbers = [
            ("last_order >=", filter.from_ms.map(Value::Int)),
            ("last_order <", filter.until_ms.map(Value::Int)),
            ("sequence <", filter.before.map(Value::from)),
            ("sequence >", filter.after.map(Value::from)),
        ];
        for (clause, number) in numbers {
            if let Some(number) = number {
                add(clause, number);
            }
        }
        if !filter.actions.is_empty() {
            let mut places = Vec::new();
            for action in &filter.actions {
                values.push(Value::Text(action.as_str()));
                places.push(format!("${}", values.len()));
            }
            clauses.push(format!("action IN ({})", places.join(", ")));
        }
        let text = if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) };
        (text, values)
    }
}
