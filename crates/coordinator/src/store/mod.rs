//! All durable state of the coordinator, on SQLite (embedded) or PostgreSQL (several replicas), as named transactions.
//!
//! One writer at a time on both databases: `BEGIN IMMEDIATE` on SQLite, a transaction-scoped advisory lock on
//! PostgreSQL. Transactions are short and few, the audit ledger is one chain in any case, and so no verb ever has to be
//! tried again because of a conflict. Reads take no lock and see the last committed state.
//!
//! The SQL is the same on both: `$n`, BIGINT, TEXT and BLOB only (BLOB reads BYTEA on PostgreSQL), times in
//! milliseconds, documents in the bytes they came in.

pub mod fits;
pub mod jobs;
pub mod lease;
mod migrate;
mod operators;
pub mod results;
pub mod rounds;
pub mod secure;
mod sites;
mod studies;
pub mod sweeps;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Connection as _, Row};
use tokio::sync::OwnedMutexGuard;

use crate::Error;
use crate::seam::{Moment, Seam};

pub use hospes_protocol::text::name_key;
pub(crate) use operators::Secret;
pub use operators::{Caller, InvitationRow, Role, TokenRow};
pub use sites::{CertificateRow, SiteRow, SiteState, Standing};
pub use studies::{MemberDecision, StudyRow, StudyState};

/// Connections of one process to its database.
const CONNECTIONS: u32 = 4;
/// Longest wait for a free connection or for the write lock.
const WAIT: Duration = Duration::from_secs(30);
/// Write transactions that take longer are logged.
const SLOW: Duration = Duration::from_millis(500);
/// Key of the advisory lock under which PostgreSQL replicas write ("hospes" in ASCII).
const LOCK_KEY: i64 = 0x686f_7370_6573;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Embedded.
    Sqlite,
    /// A server.
    Postgres,
}

/// The store. Clones share one pool.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    url: Arc<str>,
    dialect: Dialect,
    writer: Arc<tokio::sync::Mutex<()>>,
    seam: Seam,
}

/// A write transaction. Dropped without [`Tx::commit`], it is rolled back.
///
/// Not sqlx's own: on a full disk SQLite ends a transaction by itself, and a connection whose depth sqlx then counts
/// wrongly would refuse every later one, long after there is room again.
pub struct Tx {
    /// `None` once it is committed or being undone.
    open: Option<(PoolConnection<sqlx::Any>, OwnedMutexGuard<()>)>,
    name: &'static str,
    since: Instant,
    seam: Seam,
}

impl Store {
    /// Opens the database under this URL (`sqlite:///path/to/file` or `postgres://…`) and brings its tables up to date.
    /// An SQLite file that is not there is made.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be reached, [`Error::Schema`] if a newer version wrote it.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(url, "rwc").await
    }

    /// Like [`Store::open`], for a database that must be there already: a lost one is not made anew, because a federation
    /// without members and with a ledger that begins again is worse than one that does not start.
    ///
    /// # Errors
    /// Those of [`Store::open`]; [`Error::Schema`] also if the SQLite file is missing or empty.
    pub async fn open_existing(url: &str) -> Result<Self, Error> {
        if let Some(path) = sqlite_path(url) {
            match std::fs::metadata(path).map(|about| about.len()) {
                Ok(1..) => {}
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("read", path)(error));
                }
                _ => return Err(Error::lost(format!("the file {path} is missing or empty"))),
            }
        }
        Self::connect(url, "rw").await
    }

    async fn connect(url: &str, mode: &str) -> Result<Self, Error> {
        static DRIVERS: AtomicBool = AtomicBool::new(false);
        if !DRIVERS.swap(true, Ordering::SeqCst) {
            sqlx::any::install_default_drivers();
        }
        let dialect = if url.starts_with("sqlite:") {
            Dialect::Sqlite
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Dialect::Postgres
        } else {
            let scheme = url.split(':').next().unwrap_or_default();
            return Err(Error::Config(format!("database '{scheme}:…' is neither sqlite: nor postgres:")));
        };
        let url = connect_url(url, dialect, mode);
        probe(&url, dialect).await?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(WAIT)
            // A connection to a server may have broken while it lay idle; one to a file cannot.
            .test_before_acquire(dialect == Dialect::Postgres)
            .after_connect(move |connection, _| Box::pin(settle(connection, dialect)))
            .connect(&url)
            .await
            .map_err(Error::database("open"))?;
        let store = Self { pool, url: url.into(), dialect, writer: Arc::default(), seam: Seam::default() };
        migrate::run(&store).await?;
        Ok(store)
    }

    /// The same database in the hands of whoever holds the seam.
    #[cfg(feature = "simulation")]
    pub(crate) fn held(self, seam: Seam) -> Self {
        Self { seam, ..self }
    }

    /// Where the simulation takes hold.
    pub(crate) fn seam(&self) -> &Seam {
        &self.seam
    }

    /// URL of an SQLite file.
    pub fn sqlite_url(path: &Path) -> String {
        format!("sqlite://{}", path.display())
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Begins a write transaction; waits until no other is open.
    ///
    /// # Errors
    /// [`Error::Database`] under the transaction's name.
    pub async fn begin(&self, name: &'static str) -> Result<Tx, Error> {
        let writer = self.writer.clone().lock_owned().await;
        let since = Instant::now();
        tracing::trace!(transaction = name, "begins");
        self.seam.meet(name, Moment::Before).await?;
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        let connection = self.pool.acquire().await.map_err(Error::database(name))?;
        // First the value and then its beginning: whoever stops waiting in between drops it, and that rolls back.
        let mut tx = Tx { open: Some((connection, writer)), name, since, seam: self.seam.clone() };
        sqlx::raw_sql(begin).execute(tx.conn()).await.map_err(Error::database(name))?;
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)")
                .bind(LOCK_KEY)
                .execute(tx.conn())
                .await
                .map_err(Error::database(name))?;
        }
        Ok(tx)
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// [`Error::Database`] if none is free in time.
    pub async fn read(&self) -> Result<PoolConnection<sqlx::Any>, Error> {
        self.pool.acquire().await.map_err(Error::database("read"))
    }

    /// A connection beside the pool, for reading that takes long: it keeps nobody else waiting.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be had.
    pub async fn aside(&self) -> Result<AnyConnection, Error> {
        let mut connection = AnyConnection::connect(&self.url).await.map_err(Error::database("aside"))?;
        settle(&mut connection, self.dialect).await.map_err(Error::database("aside"))?;
        Ok(connection)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Database`] if it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.read().await?;
        sqlx::query("SELECT 1").execute(&mut *connection).await.map_err(Error::database("ping"))?;
        Ok(())
    }

    /// A value of the table of single values.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read.
    pub async fn meta(&self, name: &str) -> Result<Option<String>, Error> {
        let mut connection = self.read().await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(&mut *connection)
            .await
            .map_err(Error::database("meta"))?;
        row.map(|row| text(&row, "value")).transpose()
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    /// The connection, for statements.
    pub fn conn(&mut self) -> &mut AnyConnection {
        // Unwrap safety: only `commit` and `drop` take it, and both end the transaction.
        #[allow(clippy::unwrap_used)]
        &mut self.open.as_mut().unwrap().0
    }

    /// Name, for logs and errors.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Sets a value of the table of single values.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be written.
    pub async fn set_meta(&mut self, name: &str, value: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(name.to_owned())
        .bind(value.to_owned())
        .execute(self.conn())
        .await
        .map_err(Error::database("set_meta"))?;
        Ok(())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`Error::Database`] under the transaction's name; then nothing of it happened, or (if the connection broke in
    /// the very commit) all of it, which every verb can tell by asking again.
    pub async fn commit(mut self) -> Result<(), Error> {
        let (name, since) = (self.name, self.since);
        tracing::trace!(transaction = name, "commits");
        self.seam.meet(name, Moment::During).await?;
        sqlx::raw_sql("COMMIT").execute(self.conn()).await.map_err(Error::database(name))?;
        self.open = None;
        let took = since.elapsed();
        if took > SLOW {
            tracing::warn!(transaction = name, took_ms = took.as_millis(), "slow transaction");
        }
        tracing::trace!(transaction = name, took_us = took.as_micros(), "committed");
        self.seam.meet(name, Moment::After).await
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some((mut connection, writer)) = self.open.take() else { return };
        // The next writer waits until this one is undone. Without a runtime the process ends, and an unfinished
        // transaction with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It fails where SQLite undid the transaction itself, which is as good, and where the connection is
                // broken, which the pool finds out.
                let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
                drop((connection, writer));
            });
        }
    }
}

/// Opens one connection and closes it again: the pool would try a damaged database over and over and then say only that
/// no connection came in time. An SQLite file is checked page by page.
async fn probe(url: &str, dialect: Dialect) -> Result<(), Error> {
    let failed = || Error::database("open");
    let start = Instant::now();
    let mut connection = loop {
        match AnyConnection::connect(url).await {
            // A server that starts together with this program, after a power cut say, needs a moment.
            Err(error) if starting(&error) && start.elapsed() < WAIT => {
                tracing::info!(%error, "waiting for the database");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            connected => break connected.map_err(failed())?,
        }
    };
    settle(&mut connection, dialect).await.map_err(failed())?;
    if dialect == Dialect::Sqlite {
        let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(failed())?;
        let found = text(&row, "quick_check")?;
        if found != "ok" {
            return Err(Error::corrupt("database", format!("{found}; restore it from a backup")));
        }
    }
    connection.close().await.map_err(failed())
}

/// Whether the server is not up yet: nobody listens, or PostgreSQL says `cannot_connect_now`.
fn starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
        }
        sqlx::Error::Database(error) => error.code().as_deref() == Some("57P03"),
        _ => false,
    }
}

/// Settings of every connection.
async fn settle(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    let settings = match dialect {
        Dialect::Sqlite => {
            "PRAGMA busy_timeout = 30000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA foreign_keys = ON; PRAGMA cache_size = -1024"
        }
        Dialect::Postgres => "SET lock_timeout = '30s'; SET synchronous_commit = on",
    };
    sqlx::raw_sql(settings).execute(connection).await.map(drop)
}

/// SQLite creates its file if it is not there and the mode says so.
fn connect_url(url: &str, dialect: Dialect, mode: &str) -> String {
    match dialect {
        Dialect::Sqlite if !url.contains('?') => format!("{url}?mode={mode}"),
        _ => url.to_owned(),
    }
}

/// The file in an SQLite URL.
fn sqlite_path(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("sqlite:")?;
    rest.strip_prefix("//").unwrap_or(rest).split('?').next()
}

/// A column of text.
pub(crate) fn text(row: &AnyRow, column: &'static str) -> Result<String, Error> {
    row.try_get(column).map_err(|e| Error::corrupt(column, e))
}

/// A column of text that may be NULL.
pub(crate) fn optional_text(row: &AnyRow, column: &'static str) -> Result<Option<String>, Error> {
    row.try_get(column).map_err(|e| Error::corrupt(column, e))
}

/// A column of whole numbers.
pub(crate) fn integer(row: &AnyRow, column: &'static str) -> Result<i64, Error> {
    row.try_get(column).map_err(|e| Error::corrupt(column, e))
}

/// A column of whole numbers that may be NULL.
pub(crate) fn optional_integer(row: &AnyRow, column: &'static str) -> Result<Option<i64>, Error> {
    row.try_get(column).map_err(|e| Error::corrupt(column, e))
}

/// A column of bytes.
pub(crate) fn blob(row: &AnyRow, column: &'static str) -> Result<Vec<u8>, Error> {
    row.try_get(column).map_err(|e| Error::corrupt(column, e))
}

/// A column of text in the form of an id, key or state.
pub(crate) fn parsed<T>(row: &AnyRow, column: &'static str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    text(row, column)?.parse().map_err(|e: T::Err| Error::corrupt(column, e.to_string()))
}
