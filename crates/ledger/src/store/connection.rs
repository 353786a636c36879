//! One connection, to SQLite directly or to SQLite or PostgreSQL through `sqlx::Any`, with the few things that the
//! ledger does on it.

use sqlx::any::AnyRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _, SqliteConnection};

use crate::LedgerError;

/// An open connection, normally inside a transaction of the caller's.
#[derive(Debug)]
pub enum Connection<'c> {
    /// SQLite.
    Sqlite(&'c mut SqliteConnection),
    /// SQLite or PostgreSQL.
    Any(&'c mut AnyConnection),
}

impl<'c> From<&'c mut SqliteConnection> for Connection<'c> {
    fn from(connection: &'c mut SqliteConnection) -> Self {
        Self::Sqlite(connection)
    }
}

impl<'c> From<&'c mut AnyConnection> for Connection<'c> {
    fn from(connection: &'c mut AnyConnection) -> Self {
        Self::Any(connection)
    }
}

/// A value of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(i64),
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Blob(&'a [u8]),
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        // Sizes and sequences stay below 2^40 (`limits::ENTRIES`); anything larger matches no row.
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

/// A row of a result.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Any(AnyRow),
}

/// Names the operation that failed.
fn failed(verb: &'static str) -> impl Fn(sqlx::Error) -> LedgerError {
    move |source| LedgerError::Database { verb, source }
}

/// Builds a query on either kind of connection and binds the values.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match *value {
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text.to_owned()),
                Value::MaybeText(text) => query.bind(text.map(str::to_owned)),
                Value::Blob(bytes) => query.bind(bytes.to_vec()),
            };
        }
        query
    }};
}

impl Connection<'_> {
    pub(super) fn is_postgres(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Any(connection) => connection.backend_name() == "PostgreSQL",
        }
    }

    pub(super) async fn execute(
        &mut self,
        verb: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, LedgerError> {
        match self {
            Self::Sqlite(connection) => {
                bound!(sql, values).execute(&mut **connection).await.map(|done| done.rows_affected())
            }
            Self::Any(connection) => {
                bound!(sql, values).execute(&mut **connection).await.map(|done| done.rows_affected())
            }
        }
        .map_err(failed(verb))
    }

    /// Executes statements without values whose text is made of constants of this crate.
    pub(super) async fn script(&mut self, verb: &'static str, sql: String) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).await.map(drop),
            Self::Any(connection) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).await.map(drop),
        }
        .map_err(failed(verb))
    }

    pub(super) async fn rows(
        &mut self,
        verb: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, LedgerError> {
        match self {
            Self::Sqlite(connection) => bound!(sql, values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            Self::Any(connection) => bound!(sql, values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Any).collect()),
        }
        .map_err(failed(verb))
    }

    /// As [`Connection::rows`], for a statement that was put together from constants of this crate.
    pub(super) async fn rows_owned(
        &mut self,
        verb: &'static str,
        sql: String,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, LedgerError> {
        match self {
            Self::Sqlite(connection) => bound!(AssertSqlSafe(sql), values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            Self::Any(connection) => bound!(AssertSqlSafe(sql), values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Any).collect()),
        }
        .map_err(failed(verb))
    }

    pub(super) async fn row(
        &mut self,
        verb: &'static str,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, LedgerError> {
        Ok(self.rows(verb, sql, values).await?.into_iter().next())
    }
}

impl Row {
    pub(super) fn int(&self, column: usize) -> Result<i64, LedgerError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Any(row) => row.try_get(column),
        }
        .map_err(|_| LedgerError::Damaged("a number is none".into()))
    }

    /// A number that counts something.
    pub(super) fn count(&self, column: usize) -> Result<u64, LedgerError> {
        let number = self.int(column)?;
        u64::try_from(number).map_err(|_| LedgerError::Damaged(format!("a count is {number}")))
    }

    pub(super) fn text(&self, column: usize) -> Result<String, LedgerError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Any(row) => row.try_get(column),
        }
        .map_err(|_| LedgerError::Damaged("a text is none".into()))
    }

    pub(super) fn blob(&self, column: usize) -> Result<Vec<u8>, LedgerError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Any(row) => row.try_get(column),
        }
        .map_err(|_| LedgerError::Damaged("what should be bytes is none".into()))
    }
}
