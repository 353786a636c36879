//! A file of SQLite, opened so that nothing can be written to it.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Executor, Row as _, SqlSafeStr as _,
    Statement as _, TypeInfo as _, ValueRef as _,
};

use super::{Deliverer, Ended};
use crate::error::CohortError;
use crate::source::{Limits, file_name, open};

/// Steps of SQLite's machine between two looks at the clock: some milliseconds.
const STEPS: i32 = 100_000;
/// What is waited for a program that writes.
const BUSY: Duration = Duration::from_secs(10);
/// Rows that the driver reads ahead.
const AHEAD: usize = 16;
/// What every such file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A transaction in which the query is read.
pub(super) struct Session {
    pub(super) names: Vec<String>,
    file: String,
    connection: SqliteConnection,
    /// The query within one that cuts what is longer than a field may be.
    sql: String,
    statement: Duration,
}

impl Session {
    pub(super) async fn open(
        path: &Path,
        text: &str,
        statement: Duration,
        limits: Limits,
    ) -> Result<Self, CohortError> {
        let file = file_name(path);
        let refused = |reason: String| CohortError::Database { database: file.clone(), reason };
        check_magic(path, &file)?;
        // From the root: a name that begins with `file:` would be read as a URL with options of its own.
        let whole =
            std::fs::canonicalize(path).map_err(|source| CohortError::OpenSource { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(whole)
            .read_only(true)
            .create_if_missing(false)
            .pragma("query_only", "ON")
            // Functions that act outside the database are nothing for its views and columns.
            .pragma("trusted_schema", "OFF")
            .busy_timeout(BUSY)
            .row_buffer_size(AHEAD)
            .disable_statement_logging();
        let connected = Box::pin(SqliteConnection::connect_with(&options)).await;
        let mut connection = connected.map_err(|error| refused(reason(&error)))?;
        let begun = sqlx::raw_sql("BEGIN").execute(&mut connection).await;
        begun.map_err(|error| refused(reason(&error)))?;
        let asked = Executor::prepare(&mut connection, AssertSqlSafe(text.to_owned()).into_sql_str()).await;
        let asked = asked.map_err(|error| unprepared(&file, &error))?;
        if asked.parameters().is_some_and(|all| !matches!(all, Either::Right(0))) {
            let reason = "it has a placeholder; write the value itself".to_owned();
            return Err(CohortError::Query { reason });
        }
        let columns = asked.columns();
        if columns.is_empty() {
            return Err(CohortError::Query { reason: "it gives no columns".to_owned() });
        }
        let names: Vec<String> = columns.iter().map(|c| c.name().trim().to_owned()).collect();
        let sql = within(text, names.len(), limits.field_bytes + 1);
        let whole = Executor::prepare(&mut connection, AssertSqlSafe(sql.clone()).into_sql_str()).await;
        whole.map_err(|error| unprepared(&file, &error))?;
        Ok(Self { names, file, connection, sql, statement })
    }

    /// Reads all rows once.
    pub(super) async fn read(&mut self, out: &mut Deliverer) -> Result<(), Ended> {
        let file = self.file.clone();
        let failed = |error: sqlx::Error| CohortError::Database { database: file.clone(), reason: reason(&error) };
        let until = Instant::now() + self.statement;
        let mut handle = self.connection.lock_handle().await.map_err(failed)?;
        handle.set_progress_handler(STEPS, move || Instant::now() < until);
        drop(handle);
        let sql = AssertSqlSafe(self.sql.clone());
        let mut rows = sqlx::query::<sqlx::Sqlite>(sql).persistent(false).fetch(&mut self.connection);
        let mut number = 0u64;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            number += 1;
            for (index, name) in self.names.iter().enumerate() {
                let cell = cell(&row, index).map_err(|error| match error {
                    Unreadable::Blob => {
                        let place = format!("row {number}, column '{name}'");
                        let reason = "a BLOB; only numbers and text can be registered: leave the column out, or cast it \
                                      in the query";
                        CohortError::Malformed { file: file.clone(), place, reason: reason.to_owned() }
                    }
                    Unreadable::Driver(error) => failed(error),
                })?;
                out.cell(&cell);
            }
            out.row()?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        // Nothing was written that could be lost.
        let _ = self.connection.close().await;
    }
}

fn check_magic(path: &Path, file: &str) -> Result<(), CohortError> {
    use std::io::Read as _;
    let mut magic = Vec::new();
    let read = open(path)?.take(MAGIC.len() as u64).read_to_end(&mut magic);
    read.map_err(|source| crate::source::read_error(file, source))?;
    if magic == MAGIC {
        return Ok(());
    }
    let reason = "this is no SQLite database; without a query other files are registered as they are".to_owned();
    Err(CohortError::Database { database: file.to_owned(), reason })
}

/// The query within one that is nothing but a SELECT, whatever stands in it, and whose texts end where they are too long.
fn within(text: &str, columns: usize, most: usize) -> String {
    let own: Vec<String> = (1..=columns).map(|n| format!("c{n}")).collect();
    let cut = |c: &String| {
        format!("CASE typeof({c}) WHEN 'text' THEN substr({c}, 1, {most}) WHEN 'blob' THEN x'00' ELSE {c} END")
    };
    let cells = own.iter().map(cut).collect::<Vec<_>>().join(", ");
    format!("WITH hospes_rows ({}) AS (\n{text}\n) SELECT {cells} FROM hospes_rows", own.join(", "))
}

enum Unreadable {
    Blob,
    Driver(sqlx::Error),
}

impl From<sqlx::Error> for Unreadable {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

/// A cell as text; nothing for NULL. Here every value has a type of its own, whatever its column was declared as.
fn cell(row: &SqliteRow, index: usize) -> Result<String, Unreadable> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(String::new());
    }
    let kind = value.type_info();
    match kind.name() {
        "INTEGER" => Ok(row.try_get_unchecked::<i64, _>(index)?.to_string()),
        // The shortest text that reads as the same number.
        "REAL" => Ok(format!("{:?}", row.try_get_unchecked::<f64, _>(index)?)),
        "TEXT" => Ok(row.try_get_unchecked::<String, _>(index)?),
        _ => Err(Unreadable::Blob),
    }
}

/// Why a query could not be prepared. SQLite reads no row for that: its words are about the query, where that is what is
/// wrong.
fn unprepared(file: &str, error: &sqlx::Error) -> CohortError {
    match error {
        sqlx::Error::Database(told) if extended(error) & 0xff == 1 => {
            CohortError::Query { reason: told.message().to_owned() }
        }
        other => CohortError::Database { database: file.to_owned(), reason: reason(other) },
    }
}

/// SQLite's extended code, see <https://sqlite.org/rescode.html>; 0 where the driver itself fails.
fn extended(error: &sqlx::Error) -> u32 {
    let told = error.as_database_error().and_then(|told| told.code());
    told.and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// Why something failed, in words that hold no value of a row.
fn reason(error: &sqlx::Error) -> String {
    const BESIDE: &str = "the database cannot be opened; one that another program writes to (journal mode WAL) needs \
                          the files beside it and a folder that may be written to: make a copy of it with VACUUM INTO";
    let code = extended(error);
    let words = match code {
        0 => "the database cannot be read, or a text in it is no UTF-8",
        // Of the low byte 8 as an attempt to write is, and about the file: for its sake the whole code comes first.
        776 => {
            "a program that wrote to the database was stopped in the middle, and what it did has to be undone first: \
             open the database once with that program, or make a copy of it with VACUUM INTO"
        }
        264 | 520 | 1288 | 1544 => BESIDE,
        1032 => "the file was moved or replaced while it was read; try again",
        _ => match code & 0xff {
            5 | 6 => "another program is writing to the database; try again, or make a copy of it first",
            7 => "this machine has too little memory for the query; ask for less",
            8 => "the query would write, and the database is opened for reading",
            9 => "the query took longer than it may; give it more time, or ask for less",
            10 => "the file cannot be read to its end (an error of the disk, or of the network that it lies on)",
            11 => "the database is damaged",
            13 => "this machine's disk has no room for what the query sorts; ask for less, or make room",
            14 => BESIDE,
            26 => "this is no SQLite database, or it is encrypted",
            _ => return format!("a value in the data does not bear what the query does with it (SQLite error {code})"),
        },
    };
    words.to_owned()
}
