//! The site's database: one SQLite file, one writer, named transactions.
//!
//! A step is one transaction: state, ledger entry and outbox row together, or nothing (invariant I3). `synchronous=FULL`
//! makes a committed step survive a power cut; `BEGIN IMMEDIATE` makes it wait for its turn at the start rather than
//! fail in the middle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::PartyError;
use crate::seam::{Moment, Seam};

#[cfg(test)]
pub(crate) mod crash;

/// Migrations in order; `PRAGMA user_version` counts those done.
const MIGRATIONS: &[&str] = &[
    include_str!("0001_site.sql"),
    include_str!("0002_series.sql"),
    include_str!("0003_removed.sql"),
    include_str!("0004_versions.sql"),
    include_str!("0005_secure.sql"),
    include_str!("0006_answers.sql"),
    include_str!("0007_peers.sql"),
    include_str!("0008_pools.sql"),
    include_str!("0009_trained.sql"),
];

/// Schema of the databases that this program writes.
pub(crate) fn schema() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The open database.
#[derive(Clone)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    seam: Seam,
}

/// An open transaction. It is undone when dropped without [`Tx::commit`].
///
/// Not sqlx's own: on a full disk SQLite ends a transaction by itself, and a connection whose depth sqlx then counts
/// wrongly would refuse every later one, long after there is room again.
pub(crate) struct Tx {
    /// `None` once it is committed or being undone.
    inner: Option<PoolConnection<Sqlite>>,
    step: &'static str,
    seam: Seam,
}

impl Store {
    /// Makes the database; it must not exist.
    pub(crate) async fn create(path: &Path) -> Result<Self, PartyError> {
        if path.exists() {
            return Err(PartyError::AlreadyInitialised(path.to_owned()));
        }
        let store = Self::connect(path, true).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens the database and checks it; nothing is ever made anew in place of what is damaged.
    pub(crate) async fn open(path: &Path) -> Result<Self, PartyError> {
        let store = Self::checked(path).await?;
        store.back_up(path).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens a database that came from elsewhere: it is checked, is of exactly this schema, and nothing in it acts by
    /// itself.
    pub(crate) async fn open_copy(path: &Path) -> Result<Self, PartyError> {
        const STEP: &str = "open a copy of the database";
        let store = Self::checked(path).await?;
        let done: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&store.writer).await.at(STEP)?;
        if usize::try_from(done) != Ok(MIGRATIONS.len()) {
            return Err(PartyError::NewerDatabase);
        }
        let active: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')")
            .fetch_one(&store.writer)
            .await
            .at(STEP)?;
        if active > 0 {
            return Err(PartyError::Damaged { path: path.to_owned(), reason: "it has triggers or views".to_owned() });
        }
        Ok(store)
    }

    async fn checked(path: &Path) -> Result<Self, PartyError> {
        let damaged = |reason: &str| PartyError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let length = std::fs::metadata(path).map_err(|_| PartyError::NotInitialised(path.to_owned()))?.len();
        if length == 0 {
            // SQLite would take an empty file for a new database, and the site's history would silently be gone.
            return Err(damaged("the file is empty"));
        }
        let store = Self::connect(path, false).await?;
        let verdict: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_all(&store.writer)
            .await
            .map_err(|e| damaged(&reason(&e)))?;
        if verdict != ["ok"] {
            return Err(damaged(verdict.first().map_or("no answer", String::as_str)));
        }
        Ok(store)
    }

    /// Writes a consistent copy to a new file that nobody else can read, the write-ahead log included.
    pub(crate) async fn copy_to(&self, path: &Path) -> Result<(), PartyError> {
        const STEP: &str = "copy the database";
        let name = path.to_string_lossy();
        sqlx::query("VACUUM INTO ?1").bind(name.as_ref()).execute(&self.writer).await.at(STEP)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let own = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path, own).map_err(|e| PartyError::file("write", path, e))?;
        }
        Ok(())
    }

    /// The same database in the hands of whoever holds the seam.
    #[cfg(feature = "simulation")]
    pub(crate) fn held(self, seam: Seam) -> Self {
        Self { seam, ..self }
    }

    async fn connect(path: &Path, create: bool) -> Result<Self, PartyError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What retention erases is overwritten in the file.
            .pragma("secure_delete", "ON")
            .busy_timeout(std::time::Duration::from_secs(20));
        let damaged = |e: sqlx::Error| match full(&e) {
            true => PartyError::DiskFull { step: "open the database" },
            false => PartyError::Damaged { path: path.to_owned(), reason: reason(&e) },
        };
        // A connection to a file does not break while it lies idle, so that nothing is asked of it before it is used.
        let pool = |most| SqlitePoolOptions::new().max_connections(most).test_before_acquire(false);
        let writer = pool(1).connect_with(options.clone()).await.map_err(damaged)?;
        let readers = pool(2).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers, seam: Seam::default() })
    }

    /// Copies a database that is about to be migrated, so that the version of Hospes which wrote it can be gone back to.
    ///
    /// The copy of a schema takes the place of an earlier one: a site that is started again and again because its
    /// migration fails must not fill its disk. Nobody writes meanwhile, since the engine holds the folder's lock.
    async fn back_up(&self, path: &Path) -> Result<(), PartyError> {
        const STEP: &str = "back up the database before it is migrated";
        let done: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&self.writer).await.at(STEP)?;
        // 0 is a site whose making stopped before it had a schema; what is newer is refused in a moment.
        if done == 0 || usize::try_from(done).is_ok_and(|done| done >= MIGRATIONS.len()) {
            return Ok(());
        }
        let backup = backup_of(path, done);
        let unfinished = backup.with_extension("unfinished");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PartyError::file("remove", &unfinished, error));
            }
            _ => {}
        }
        // A consistent copy, the write-ahead log included, whatever state the file is in.
        let name = unfinished.to_string_lossy();
        sqlx::query("VACUUM INTO ?1").bind(name.as_ref()).execute(&self.writer).await.at(STEP)?;
        let durable = || -> std::io::Result<()> {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
            }
            std::fs::OpenOptions::new().write(true).open(&unfinished)?.sync_all()?;
            std::fs::rename(&unfinished, &backup)?;
            #[cfg(unix)]
            if let Some(folder) = backup.parent() {
                std::fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        durable().map_err(|e| PartyError::file("back up the database to", &backup, e))?;
        tracing::info!(backup = %backup.display(), "the database was copied before its schema changes");
        Ok(())
    }

    async fn migrate(&self) -> Result<(), PartyError> {
        let mut tx = self.begin("migrate").await?;
        let done: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(tx.conn()).await.at("migrate")?;
        let done = usize::try_from(done).unwrap_or(usize::MAX);
        if done > MIGRATIONS.len() {
            return Err(PartyError::NewerDatabase);
        }
        for migration in &MIGRATIONS[done..] {
            sqlx::raw_sql(*migration).execute(tx.conn()).await.at("migrate")?;
        }
        let version = format!("PRAGMA user_version = {}", MIGRATIONS.len());
        sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(tx.conn()).await.at("migrate")?;
        hospes_ledger::Ledger::on(tx.conn()).create().await.at("migrate")?;
        tx.commit().await
    }

    /// Begins the transaction of one named step.
    pub(crate) async fn begin(&self, step: &'static str) -> Result<Tx, PartyError> {
        self.seam.meet(step, Moment::Before).await?;
        let connection = self.writer.acquire().await.at(step)?;
        // First the value and then its beginning: whoever stops waiting in between drops it, and that rolls back.
        let mut tx = Tx { inner: Some(connection), step, seam: self.seam.clone() };
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(tx.conn()).await.at(step)?;
        Ok(tx)
    }

    /// Connections that only read.
    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// How another connection that only reads is made, for whoever reads for long.
    pub(crate) fn read_only(&self) -> Arc<SqliteConnectOptions> {
        self.readers.connect_options()
    }

    /// Merges the write-ahead log into the file and empties it, as far as readers allow it now.
    pub(crate) async fn merge_log(&self) -> Result<(), PartyError> {
        let mut connection = self.writer.acquire().await.at("merge the log")?;
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *connection).await.at("merge the log")?;
        Ok(())
    }

    /// Closes all connections; the write-ahead log is merged.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Where the copy of a database of an older schema lies.
fn backup_of(path: &Path, schema: i64) -> PathBuf {
    path.with_extension(format!("schema-{schema}.db"))
}

impl Tx {
    /// The connection within the transaction.
    pub(crate) fn conn(&mut self) -> &mut SqliteConnection {
        // Unwrap safety: only `commit` and `drop` take it, and both end the transaction.
        #[allow(clippy::unwrap_used)]
        self.inner.as_mut().unwrap()
    }

    /// Name of the step.
    pub(crate) fn step(&self) -> &'static str {
        self.step
    }

    /// Makes the step durable.
    pub(crate) async fn commit(mut self) -> Result<(), PartyError> {
        self.seam.meet(self.step, Moment::During).await?;
        let step = self.step;
        sqlx::raw_sql("COMMIT").execute(self.conn()).await.at(step)?;
        self.inner = None;
        self.seam.meet(step, Moment::After).await
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let Some(mut connection) = self.inner.take() else { return };
        // The pool has one writer: the next step waits until this one is undone. Without a runtime the process ends, and
        // an unfinished transaction with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It fails where SQLite undid the transaction itself, and that is as good.
                let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
            });
        }
    }
}

/// Names the step in which a query failed.
pub(crate) trait At<T> {
    fn at(self, step: &'static str) -> Result<T, PartyError>;
}

impl<T> At<T> for Result<T, sqlx::Error> {
    fn at(self, step: &'static str) -> Result<T, PartyError> {
        self.map_err(
            |source| if full(&source) { PartyError::DiskFull { step } } else { PartyError::Store { step, source } },
        )
    }
}

impl<T> At<T> for Result<T, hospes_ledger::LedgerError> {
    fn at(self, step: &'static str) -> Result<T, PartyError> {
        self.map_err(|e| ledger(step, e))
    }
}

fn ledger(step: &'static str, source: hospes_ledger::LedgerError) -> PartyError {
    match &source {
        hospes_ledger::LedgerError::Database { source: e, .. } if full(e) => PartyError::DiskFull { step },
        _ => PartyError::Ledger { step, source },
    }
}

/// Whether SQLite ran out of room: SQLITE_FULL (13), or SQLITE_IOERR_WRITE (778) and its like on a full disk or quota.
fn full(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code().map(|c| c == "13" || c == "778")).unwrap_or(false)
}

fn reason(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |e| e.message().to_owned())
}

/// A value in a column that this program did not write there.
pub(crate) fn bad_column(column: &'static str) -> PartyError {
    let source =
        sqlx::Error::ColumnDecode { index: column.into(), source: "not a value that this program writes".into() };
    PartyError::Store { step: "read a row", source }
}

/// Reads the text form of an id, a digest or a key.
pub(crate) fn parse<T: std::str::FromStr>(text: &str, column: &'static str) -> Result<T, PartyError> {
    text.parse().map_err(|_| bad_column(column))
}

/// Reads a small value kept as JSON.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str, column: &'static str) -> Result<T, PartyError> {
    serde_json::from_str(text).map_err(|_| bad_column(column))
}

/// Writes a small value as JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    // Unwrap safety: only plain structs with text keys are kept as JSON.
    #[allow(clippy::unwrap_used)]
    serde_json::to_string(value).unwrap()
}

/// Numbers of SQLite are signed.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Numbers of SQLite are signed; one that this program did not write becomes 0.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A value of the settings table.
pub(crate) async fn setting(conn: &mut SqliteConnection, key: &str) -> Result<Option<String>, PartyError> {
    sqlx::query_scalar("SELECT value FROM settings WHERE key = ?1")
        .bind(key)
        .fetch_optional(conn)
        .await
        .at("read a setting")
}

/// Sets a value of the settings table, or removes it.
pub(crate) async fn set_setting(conn: &mut SqliteConnection, key: &str, value: Option<&str>) -> Result<(), PartyError> {
    let query = match value {
        Some(_) => "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        None => "DELETE FROM settings WHERE key = ?1",
    };
    sqlx::query(query).bind(key).bind(value).execute(conn).await.at("set a setting")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database as the first version of Hospes left it, with one setting in it.
    async fn of_the_first_schema(path: &Path) -> Result<(), PartyError> {
        let store = Store::connect(path, true).await?;
        let mut tx = store.begin("make an old database").await?;
        sqlx::raw_sql(MIGRATIONS[0]).execute(tx.conn()).await.at("old")?;
        sqlx::raw_sql("PRAGMA user_version = 1").execute(tx.conn()).await.at("old")?;
        hospes_ledger::Ledger::on(tx.conn()).create().await.at("old")?;
        set_setting(tx.conn(), "kept", Some("as it was")).await?;
        tx.commit().await?;
        store.close().await;
        Ok(())
    }

    async fn schema_and_setting(path: &Path) -> Result<(i64, Option<String>), PartyError> {
        let store = Store::connect(path, false).await?;
        let mut connection = store.writer.acquire().await.at("look")?;
        let schema = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.at("look")?;
        let kept = setting(&mut connection, "kept").await?;
        drop(connection);
        store.close().await;
        Ok((schema, kept))
    }

    #[tokio::test]
    async fn an_older_database_is_copied_before_it_is_migrated() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("site.db");
        of_the_first_schema(&path).await?;
        Store::open(&path).await?.close().await;
        let now = i64::try_from(MIGRATIONS.len())?;
        assert_eq!(schema_and_setting(&path).await?, (now, Some("as it was".into())));
        let backup = backup_of(&path, 1);
        assert_eq!(backup.file_name().and_then(|n| n.to_str()), Some("site.schema-1.db"));
        assert_eq!(schema_and_setting(&backup).await?, (1, Some("as it was".into())));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&backup)?.permissions().mode() & 0o777, 0o600);
        }
        // A database of this version is not copied.
        std::fs::remove_file(&backup)?;
        Store::open(&path).await?.close().await;
        assert!(!backup.exists());
        Ok(())
    }

    /// What a site of the third schema has: three versions of one dataset, of which the second was removed, another dataset,
    /// and a run that read the first version and then, approved anew, the third.
    const OF_THE_THIRD_SCHEMA: &str = "
        INSERT INTO memberships (federation, name, url, site, site_name, organisation, coordinator, ca_pem, chain_pem,
                                 roster, roster_version, settled, cosigned, at)
        VALUES ('f', '', '', '', '', '', '', '', '', x'', 1, 0, 0, 0);
        INSERT INTO studies (study, federation, document, digest, state, at) VALUES ('s', 'f', x'', '', 'decided', 0);
        INSERT INTO datasets (id, name, snapshot, document, sealed_key, subjects_left, profile, findings, duo, at,
                              version, former, removed)
        VALUES ('one', '1', '', x'', x'', 0, x'', '[]', '[]', 0, 1, NULL, NULL),
               ('two', '2', '', x'', x'', 0, x'', '[]', '[]', 0, 2, 'one', 5),
               ('three', '3', '', x'', x'', 0, x'', '[]', '[]', 0, 3, 'two', NULL),
               ('other', '4', '', x'', x'', 0, x'', '[]', '[]', 0, 1, NULL, NULL);
        INSERT INTO approvals (id, study, dataset, document, digest, state, not_before, expires, at)
        VALUES ('p', 's', 'one', x'', '1', 'superseded', 0, 0, 0), ('q', 's', 'three', x'', '2', 'active', 0, 0, 0);
        INSERT INTO jobs (job, study, plan, state, release, at)
        VALUES ('run', 's', x'', 'running', 'none', 0), ('next', 's', x'', 'waiting', 'none', 0);
        INSERT INTO rounds (job, task, epoch, round, attempt, header, approval, deadline, state, ended, at)
        VALUES ('run', 't', 1, 1, 1, x'', 'p', 0, '', 1, 10), ('run', 't', 1, 2, 1, x'', 'q', 0, '', 1, 20);
    ";

    #[tokio::test]
    async fn versions_of_before_are_put_into_their_series_and_runs_keep_what_they_read()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("site.db");
        let store = Store::connect(&path, true).await?;
        let mut tx = store.begin("make an old database").await?;
        for migration in &MIGRATIONS[..3] {
            sqlx::raw_sql(*migration).execute(tx.conn()).await.at("old")?;
        }
        sqlx::raw_sql(OF_THE_THIRD_SCHEMA).execute(tx.conn()).await.at("old")?;
        sqlx::raw_sql("PRAGMA user_version = 3").execute(tx.conn()).await.at("old")?;
        hospes_ledger::Ledger::on(tx.conn()).create().await.at("old")?;
        tx.commit().await?;
        store.close().await;
        let store = Store::open(&path).await?;
        let mut connection = store.writer.acquire().await.at("look")?;
        let series: Vec<(String, String)> =
            sqlx::query_as("SELECT id, series FROM datasets ORDER BY name").fetch_all(&mut *connection).await?;
        let expected = [("one", "one"), ("two", "one"), ("three", "one"), ("other", "other")];
        assert_eq!(series, expected.map(|(id, of)| (id.to_owned(), of.to_owned())));
        // What followed the first version is gone, so that another may.
        let follows: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT id, former FROM datasets WHERE former IS NOT NULL")
                .fetch_all(&mut *connection)
                .await?;
        assert_eq!(follows, [("three".to_owned(), Some("two".to_owned()))]);
        let read: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT job, dataset FROM jobs ORDER BY job").fetch_all(&mut *connection).await?;
        assert_eq!(read, [("next".to_owned(), None), ("run".to_owned(), Some("three".to_owned()))]);
        drop(connection);
        store.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_copied_is_not_migrated() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("site.db");
        of_the_first_schema(&path).await?;
        // Something that cannot be replaced stands where the copy goes.
        std::fs::create_dir_all(backup_of(&path, 1).join("in the way"))?;
        let refused = Store::open(&path).await;
        assert!(matches!(refused, Err(PartyError::File { action: "back up the database to", .. })));
        assert_eq!(schema_and_setting(&path).await?, (1, Some("as it was".into())));
        // Once there is room, it goes on; what was left unfinished is in nobody's way.
        std::fs::remove_dir_all(backup_of(&path, 1))?;
        std::fs::write(backup_of(&path, 1).with_extension("unfinished"), "half a copy")?;
        Store::open(&path).await?.close().await;
        assert_eq!(schema_and_setting(&backup_of(&path, 1)).await?.0, 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_newer_database_is_refused_and_not_copied() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("site.db");
        Store::create(&path).await?.close().await;
        let store = Store::connect(&path, false).await?;
        sqlx::raw_sql("PRAGMA user_version = 1000").execute(&store.writer).await?;
        store.close().await;
        assert!(matches!(Store::open(&path).await, Err(PartyError::NewerDatabase)));
        assert_eq!(
            std::fs::read_dir(folder.path())?
                .filter_map(Result::ok)
                .filter(|e| e.file_name().to_string_lossy().contains("schema"))
                .count(),
            0
        );
        Ok(())
    }
}
