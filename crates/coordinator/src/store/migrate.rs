//! Brings the tables up to date: numbered SQL files, each applied once, in order, in one transaction.

use sqlx::AssertSqlSafe;

use super::{Dialect, Store, integer, text};
use crate::Error;

/// Name and SQL, oldest first. A file that was released is never changed again: its digest is checked.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_fleet", include_str!("migrations/0001_fleet.sql")),
    ("0002_jobs", include_str!("migrations/0002_jobs.sql")),
    ("0003_sweeps", include_str!("migrations/0003_sweeps.sql")),
    ("0004_fits", include_str!("migrations/0004_fits.sql")),
    ("0005_losses", include_str!("migrations/0005_losses.sql")),
    ("0006_secure", include_str!("migrations/0006_secure.sql")),
];

pub(super) async fn run(store: &Store) -> Result<(), Error> {
    let mut tx = store.begin("migrate").await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS migrations \
         (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL)",
    )
    .execute(tx.conn())
    .await
    .map_err(Error::database("migrate"))?;
    let rows = sqlx::query("SELECT number, name, digest FROM migrations ORDER BY number")
        .fetch_all(tx.conn())
        .await
        .map_err(Error::database("migrate"))?;
    for (index, row) in rows.iter().enumerate() {
        let (number, name, digest) = (integer(row, "number")?, text(row, "name")?, text(row, "digest")?);
        let Some((ours, sql)) = MIGRATIONS.get(index) else {
            return Err(Error::Schema(format!(
                "it was written by a newer version (step {number}, {name}); update this one"
            )));
        };
        if name != *ours || digest != digest_of(sql) {
            return Err(Error::Schema(format!("step {number} was '{name}' when it was applied and is '{ours}' here")));
        }
    }
    for (index, (name, sql)) in MIGRATIONS.iter().enumerate().skip(rows.len()) {
        let statements = match store.dialect() {
            Dialect::Sqlite => (*sql).to_owned(),
            Dialect::Postgres => sql.replace(" BLOB", " BYTEA"),
        };
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(tx.conn()).await.map_err(Error::database("migrate"))?;
        sqlx::query("INSERT INTO migrations (number, name, digest) VALUES ($1, $2, $3)")
            .bind(i64::try_from(index).unwrap_or(i64::MAX))
            .bind((*name).to_owned())
            .bind(digest_of(sql))
            .execute(tx.conn())
            .await
            .map_err(Error::database("migrate"))?;
    }
    hospes_ledger::Ledger::on(tx.conn()).create().await?;
    tx.commit().await
}

fn digest_of(sql: &str) -> String {
    hospes_protocol::id::Digest::of(sql.as_bytes()).to_string()
}
