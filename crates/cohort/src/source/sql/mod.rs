//! Rows of a query in a database, read in one transaction that cannot write.
//!
//! A thread of its own asks, and hands rows over in batches; it waits where nobody takes them, so that memory depends on the
//! limits and not on the query. Both passes over the rows, the survey and the freezing, are in one transaction and see the
//! same rows, whatever others write meanwhile.

mod postgres;
mod sqlite;
mod statement;

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use hospes_protocol::id::Digest;
use hospes_protocol::text::in_bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::records::{Cells, Record};
use super::rows::{Place, SourceKind};
use super::{Limits, Reading, check_names};
use crate::error::CohortError;
pub use postgres::{Server, Transport, Trial, Went, trial};
use statement::Dialect;

/// Seconds that a statement may take where nobody says otherwise.
pub const TIMEOUT_S: u32 = 600;
/// Fewest and most seconds that can be said.
pub const TIMEOUTS_S: std::ops::RangeInclusive<u32> = 1..=86_400;
/// What is waited beyond a statement's own time for a database that has fallen silent.
const SILENCE: Duration = Duration::from_secs(15);
/// Bytes of a batch of rows; one row more may be in it.
const BATCH_BYTES: usize = 1 << 20;
/// Rows of a batch.
const BATCH_ROWS: usize = 1 << 12;
/// Batches that wait to be taken.
const BATCHES: usize = 2;
/// Between two looks, while the database gives no row, whether they are still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// A password on its way to a database. `Debug` shows nothing, there is no `Serialize`, and its memory is erased.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps what was typed or kept.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A database to be asked.
#[derive(Debug, Clone)]
pub enum Database {
    /// A PostgreSQL server.
    Server(Box<Server>, Password),
    /// A file of SQLite.
    Sqlite(PathBuf),
}

impl Database {
    /// What is asked of it, without the semicolon at its end. Nothing is asked yet.
    ///
    /// # Errors
    /// [`CohortError::Query`] for what is no single query.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn query(&self, text: &str) -> Result<Query, CohortError> {
        let (database, dialect) = match self {
            Self::Server(server, _) => (server.words(), Dialect::Postgres),
            Self::Sqlite(_) => ("a file of SQLite".to_owned(), Dialect::Sqlite),
        };
        let text = statement::one_query(text, dialect).map_err(|reason| CohortError::Query { reason })?;
        Ok(Query { database, text })
    }
}

/// What was asked of which database; part of a snapshot's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The database in words, without anything secret.
    pub database: String,
    /// The query.
    pub text: String,
}

impl Query {
    /// SHA-256 of the query's text.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// A query in an open transaction, whose rows can be read from their beginning more than once.
pub struct OpenQuery {
    query: Query,
    /// What errors call the database: of a file, its name.
    file: String,
    kind: SourceKind,
    names: Vec<String>,
    /// Each pass has a channel of its own; the thread ends with this sender.
    passes: Sender<SyncSender<Delivered>>,
    reading: Reading,
}

impl fmt::Debug for OpenQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenQuery({}, {} columns)", self.file, self.names.len())
    }
}

impl OpenQuery {
    /// Connects, begins a transaction that cannot write, and has the query checked, whose columns are then known. A
    /// statement ends after `timeout_s` seconds. It blocks, and must not be called on an async thread.
    ///
    /// # Errors
    /// [`CohortError::Query`] for what is no single query or has a column of a type that cannot be registered, which it
    /// names; [`CohortError::Database`] for what the database says, and for a role that such a transaction does not hold
    /// back.
    ///
    /// # Disclosure
    /// Names of columns. What a database says is passed on before it reads a row, and not while it reads rows.
    pub fn open(database: Database, text: &str, timeout_s: u32, limits: Limits) -> Result<Self, CohortError> {
        if !TIMEOUTS_S.contains(&timeout_s) {
            let (least, most) = (TIMEOUTS_S.start(), TIMEOUTS_S.end());
            let reason = format!("its time must be between {least} and {most} seconds, and is {timeout_s}");
            return Err(CohortError::Query { reason });
        }
        let query = database.query(text)?;
        let text = &query.text;
        let runtime = runtime()?;
        let timeout = Duration::from_secs(timeout_s.into());
        let (kind, file) = match &database {
            Database::Server(server, _) => (SourceKind::Postgres, server.words()),
            Database::Sqlite(path) => (SourceKind::Sqlite, super::file_name(path)),
        };
        let session = runtime.block_on(async {
            Ok::<_, CohortError>(match database {
                Database::Server(server, password) => {
                    let session = postgres::Session::open(&server, &password, text, timeout, limits).await?;
                    Session::Postgres(Box::new(session))
                }
                Database::Sqlite(path) => {
                    Session::Sqlite(Box::new(sqlite::Session::open(&path, text, timeout, limits).await?))
                }
            })
        })?;
        let names = session.names().to_vec();
        check_names(&names, &file, limits)?;
        let (passes, asked) = channel();
        let thread = std::thread::Builder::new().name("query".to_owned());
        let fail = |source| super::read_error(&file, source);
        thread.spawn(move || serve(&runtime, session, &asked)).map_err(fail)?;
        Ok(Self { query, file, kind, names, passes, reading: Reading::default() })
    }

    /// The same, followed by somebody who may end it also before the database has given its first row. What the database has
    /// been asked it goes on with in vain, at most until its time is over.
    ///
    /// # Disclosure
    /// Nothing about patients.
    #[must_use]
    pub fn followed_by(self, reading: Reading) -> Self {
        Self { reading, ..self }
    }

    /// What is asked of which database.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// What errors call it.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The kind of source that it is.
    pub(super) fn kind(&self) -> SourceKind {
        self.kind
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Its rows, from the first one on.
    pub(super) fn rows(&self, limits: Limits, hashed: bool) -> Result<QueryRows, CohortError> {
        let (deliver, rows) = sync_channel(BATCHES);
        self.passes.send(deliver).map_err(|_| silent(&self.file))?;
        let batch = Batch::default();
        let (file, hash) = (self.file.clone(), hashed.then(Sha256::new));
        let (names, reading) = (self.names.clone(), self.reading.clone());
        Ok(QueryRows { file, names, limits, reading, rows, batch, at: 0, row: 0, cells: Cells::default(), hash })
    }
}

fn runtime() -> Result<Runtime, CohortError> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|source| super::read_error("the database", source))
}

/// What a database says that has gone, or whose thread has.
fn silent(database: &str) -> CohortError {
    CohortError::Database { database: database.to_owned(), reason: "the connection broke; try again".to_owned() }
}

/// An open transaction of one kind.
enum Session {
    Postgres(Box<postgres::Session>),
    Sqlite(Box<sqlite::Session>),
}

impl Session {
    fn names(&self) -> &[String] {
        match self {
            Self::Postgres(session) => &session.names,
            Self::Sqlite(session) => &session.names,
        }
    }
}

/// The life of the thread: pass by pass, until nobody can ask for another one.
fn serve(runtime: &Runtime, mut session: Session, asked: &Receiver<SyncSender<Delivered>>) {
    for deliver in asked {
        let mut rows = Deliverer { deliver, batch: Batch::default() };
        let ended = runtime.block_on(async {
            match &mut session {
                Session::Postgres(session) => session.read(&mut rows).await,
                Session::Sqlite(session) => session.read(&mut rows).await,
            }
        });
        rows.end(ended);
    }
    runtime.block_on(async {
        match session {
            Session::Postgres(session) => session.close().await,
            Session::Sqlite(session) => session.close().await,
        }
    });
}

enum Delivered {
    Rows(Batch),
    Failed(CohortError),
    End,
}

/// Rows as text, one after the other; a missing value is an empty cell.
#[derive(Default)]
struct Batch {
    data: String,
    ends: Vec<usize>,
    rows: usize,
}

/// Why a pass ended before its end.
enum Ended {
    /// Nobody takes rows any more.
    Unwanted,
    Failed(CohortError),
}

impl From<CohortError> for Ended {
    fn from(error: CohortError) -> Self {
        Self::Failed(error)
    }
}

/// Puts rows into batches and hands them over.
struct Deliverer {
    deliver: SyncSender<Delivered>,
    batch: Batch,
}

impl Deliverer {
    /// The next cell of the row.
    fn cell(&mut self, text: &str) {
        self.batch.data.push_str(text);
        self.batch.ends.push(self.batch.data.len());
    }

    /// The row is whole.
    fn row(&mut self) -> Result<(), Ended> {
        self.batch.rows += 1;
        if self.batch.rows == BATCH_ROWS || self.batch.data.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        let batch = std::mem::take(&mut self.batch);
        self.deliver.send(Delivered::Rows(batch)).map_err(|_| Ended::Unwanted)
    }

    fn end(mut self, ended: Result<(), Ended>) {
        let last = match ended.and_then(|()| self.flush()) {
            Ok(()) => Delivered::End,
            Err(Ended::Failed(error)) => Delivered::Failed(error),
            Err(Ended::Unwanted) => return,
        };
        // Whoever asked may have gone.
        let _ = self.deliver.send(last);
    }
}

/// Rows of one pass.
pub(super) struct QueryRows {
    file: String,
    names: Vec<String>,
    limits: Limits,
    reading: Reading,
    rows: Receiver<Delivered>,
    batch: Batch,
    /// Cells of the batch that were handed out.
    at: usize,
    row: u64,
    cells: Cells,
    hash: Option<Sha256>,
}

impl QueryRows {
    /// Of all cells, each with its length before it.
    pub(super) fn into_hash(self) -> Sha256 {
        self.hash.unwrap_or_default()
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Record<'_>>, CohortError> {
        while self.at == self.batch.ends.len() {
            match self.rows.recv_timeout(LOOK) {
                Ok(Delivered::Rows(batch)) => (self.batch, self.at) = (batch, 0),
                Ok(Delivered::Failed(error)) => return Err(error),
                Ok(Delivered::End) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.reading.goes_on()?,
                Err(RecvTimeoutError::Disconnected) => return Err(silent(&self.file)),
            }
        }
        self.row += 1;
        let place = Place::Row(self.row);
        self.cells.clear();
        let mut bytes = 0;
        for index in 0..self.names.len() {
            let from = if self.at == 0 { 0 } else { self.batch.ends[self.at - 1] };
            let cell = &self.batch.data[from..self.batch.ends[self.at]];
            self.at += 1;
            bytes += cell.len();
            let file = || self.file.clone();
            if cell.len() > self.limits.field_bytes {
                return Err(CohortError::LongField {
                    file: file(),
                    place,
                    field: index + 1,
                    limit: self.limits.field_bytes,
                });
            }
            if cell.contains('\0') {
                return Err(CohortError::NotText { file: file(), place });
            }
            if let Some(hash) = &mut self.hash {
                hash.update((cell.len() as u64).to_le_bytes());
                hash.update(cell.as_bytes());
            }
            self.cells.push(cell);
        }
        if bytes > self.limits.record_bytes {
            let most = in_bytes(self.limits.record_bytes as u64);
            let reason = format!("more than {most} in one row; select fewer columns");
            return Err(CohortError::Malformed { file: self.file.clone(), place: place.to_string(), reason });
        }
        Ok(Some(self.cells.record(place, None)))
    }
}
