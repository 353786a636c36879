//! PostgreSQL: an encrypted connection to a server that proved who it is, and a transaction that cannot write.

use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sqlx::error::DatabaseError;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgDatabaseError, PgErrorPosition, PgSslMode, PgTypeInfo, PgTypeKind,
};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Executor, Row as _, SqlSafeStr as _,
    Statement as _, TypeInfo as _,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Deliverer, Ended, Password, SILENCE, runtime, silent};
use crate::error::CohortError;
use crate::source::Limits;

/// What is waited for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// What the questions of a test may take.
const QUESTION: Duration = Duration::from_secs(20);

/// A PostgreSQL server, a database on it and who asks, without the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role that asks.
    pub user: String,
    /// How the connection is protected.
    pub transport: Transport,
    /// The hospital's own CA certificates in PEM, besides the public ones.
    pub ca: Option<String>,
}

/// How the connection to a server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Encrypted, to a server whose certificate a CA signed for its name (`sslmode=verify-full`).
    Verified,
    /// Whatever the server offers; for one on this machine only.
    Local,
}

impl Server {
    /// What is connected to in words; it goes into the audit log and the snapshot's document.
    ///
    /// # Disclosure
    /// Nothing about patients, and nothing secret.
    pub fn words(&self) -> String {
        format!("PostgreSQL database {} on {}:{}, as {}", self.database, self.host, self.port, self.user)
    }

    /// Whether the host is this machine by its very name.
    ///
    /// # Disclosure
    /// Nothing about patients.
    pub fn is_local(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    fn options(&self, password: &Password) -> PgConnectOptions {
        let mode = match self.transport {
            Transport::Verified => PgSslMode::VerifyFull,
            // Never to another machine, whatever was kept: without a certificate anybody could answer.
            Transport::Local if self.is_local() => PgSslMode::Prefer,
            Transport::Local => PgSslMode::VerifyFull,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&password.0)
            .database(&self.database)
            .application_name("hospes")
            .ssl_mode(mode)
            // PRIVACY: a query may name a patient, and what is slow would be logged with its text.
            .disable_statement_logging();
        match &self.ca {
            Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
            None => options,
        }
    }

    async fn connect(&self, password: &Password) -> Result<PgConnection, CohortError> {
        let options = self.options(password);
        match timeout(CONNECT, Box::pin(PgConnection::connect_with(&options))).await {
            Ok(connected) => connected.map_err(|error| self.error(&error, None)),
            Err(_) => Err(self.refused(format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }

    fn refused(&self, reason: String) -> CohortError {
        CohortError::Database { database: self.words(), reason }
    }

    fn error(&self, error: &sqlx::Error, query: Option<&str>) -> CohortError {
        self.refused(reason(error, query))
    }
}

/// Why something failed, in words that hold no value of a row.
fn reason(error: &sqlx::Error, query: Option<&str>) -> String {
    match error {
        sqlx::Error::Database(told) => database_reason(&**told, query),
        sqlx::Error::Tls(why) => unproven(why),
        // So the driver tells of a certificate that was looked at and not believed.
        sqlx::Error::Io(why) if why.kind() == std::io::ErrorKind::InvalidData => unproven(why),
        sqlx::Error::Io(why) => format!("the server cannot be reached ({why})"),
        // PRIVACY: what the driver says of a value could quote it.
        _ => "the server answered in a way that is not understood".to_owned(),
    }
}

fn unproven(why: &dyn std::fmt::Display) -> String {
    format!(
        "no encrypted connection to a server that is known ({why}); the server needs a certificate for exactly this host \
         name, and its CA must be a public one or the one that you choose here"
    )
}

fn database_reason(told: &(dyn DatabaseError + 'static), query: Option<&str>) -> String {
    let code = told.code().unwrap_or_default();
    let place = told.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::position);
    let line = match (place, query) {
        (Some(PgErrorPosition::Original(at)), Some(query)) => {
            let before = query.chars().take(at.saturating_sub(1));
            format!("line {} of the query: ", before.filter(|c| *c == '\n').count() + 1)
        }
        _ => String::new(),
    };
    match code.as_ref() {
        "28P01" => "the password is wrong, or there is no such role".to_owned(),
        "28000" => "the server does not let this role in from here (see its pg_hba.conf)".to_owned(),
        "3D000" => "there is no such database on the server".to_owned(),
        "57014" => "the query took longer than it may; give it more time, or ask for less".to_owned(),
        "25006" => "the query would write, and the transaction only reads".to_owned(),
        // PRIVACY: classes whose words are about the query, its names and the server. All others can quote a value.
        code if ["08", "0A", "25", "28", "3D", "3F", "42", "53", "57"].iter().any(|class| code.starts_with(class)) => {
            format!("{line}{} (SQLSTATE {code})", told.message())
        }
        code => format!("a value in the data does not bear what the query does with it (SQLSTATE {code})"),
    }
}

/// A transaction in which the query is read.
pub(super) struct Session {
    pub(super) names: Vec<String>,
    server: Server,
    connection: PgConnection,
    /// The query within one that makes text of every cell.
    sql: String,
    /// Longest wait for a row.
    wait: Duration,
}

impl Session {
    pub(super) async fn open(
        server: &Server,
        password: &Password,
        text: &str,
        statement: Duration,
        limits: Limits,
    ) -> Result<Self, CohortError> {
        let mut connection = server.connect(password).await?;
        begin(&mut connection, statement).await.map_err(|error| server.error(&error, None))?;
        let wait = statement + SILENCE;
        // By itself, so that the server's own parser says that it is one statement and which columns it has.
        let asked = Executor::prepare(&mut connection, AssertSqlSafe(text.to_owned()).into_sql_str());
        let asked = timeout(wait, asked).await.map_err(|_| silent(&server.words()))?;
        let asked = asked.map_err(|error| server.error(&error, Some(text)))?;
        if asked.parameters().is_some_and(|all| !matches!(all, Either::Left([]))) {
            let reason = "it has a placeholder such as $1; write the value itself".to_owned();
            return Err(CohortError::Query { reason });
        }
        let columns = asked.columns();
        if columns.is_empty() {
            return Err(CohortError::Query { reason: "it gives no columns".to_owned() });
        }
        if columns.len() > limits.columns {
            return Err(CohortError::TooManyColumns { file: server.words(), limit: limits.columns });
        }
        let mut cells = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            cells.push(cell(column.name(), column.type_info(), index + 1, limits)?);
        }
        let own = (1..=columns.len()).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {} FROM (\n{text}\n) AS hospes ({own})", cells.join(", "));
        let names = columns.iter().map(|c| c.name().trim().to_owned()).collect();
        Ok(Self { names, server: server.clone(), connection, sql, wait })
    }

    /// Reads all rows once.
    pub(super) async fn read(&mut self, out: &mut Deliverer) -> Result<(), Ended> {
        let sql = AssertSqlSafe(self.sql.clone());
        let mut rows = sqlx::query::<sqlx::Postgres>(sql).persistent(false).fetch(&mut self.connection);
        loop {
            let next = timeout(self.wait, rows.try_next()).await.map_err(|_| silent(&self.server.words()))?;
            let Some(row) = next.map_err(|error| self.server.error(&error, None))? else { return Ok(()) };
            for index in 0..self.names.len() {
                let cell: Option<&str> = row.try_get(index).map_err(|error| self.server.error(&error, None))?;
                out.cell(cell.unwrap_or_default());
            }
            out.row()?;
        }
    }

    pub(super) async fn close(self) {
        // The transaction goes with the connection; a server that has gone needs no farewell.
        let _ = timeout(CONNECT, self.connection.close()).await;
    }
}

/// Begins a transaction that cannot write, sees one state of the data, and ends what takes too long.
async fn begin(connection: &mut PgConnection, statement: Duration) -> Result<(), sqlx::Error> {
    let milliseconds = statement.as_millis();
    let sql = format!(
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET LOCAL statement_timeout = {milliseconds}; \
         SET LOCAL client_min_messages = error"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// An expression that makes text of a cell, cut where it is longer than a field may be.
fn cell(name: &str, kind: &PgTypeInfo, number: usize, limits: Limits) -> Result<String, CohortError> {
    let text = format!("c{number}::pg_catalog.text");
    let text = match kind.name() {
        "BOOL" => format!("c{number}::pg_catalog.int4::pg_catalog.text"),
        // NaN is a missing value, as it is in the programs that write it.
        "FLOAT4" | "FLOAT8" | "NUMERIC" => format!("NULLIF({text}, 'NaN')"),
        "INT2" | "INT4" | "INT8" | "TEXT" | "VARCHAR" | "CHAR" | "\"CHAR\"" | "NAME" | "UUID" | "DATE"
        | "TIMESTAMP" | "TIMESTAMPTZ" | "UNKNOWN" | "citext" => text,
        _ if matches!(kind.kind(), PgTypeKind::Enum(_)) => text,
        other => {
            let reason = format!(
                "its column '{name}' is of type {}; only numbers, text, dates, true and false can be registered: leave it \
                 out, or cast it in the query",
                other.to_lowercase()
            );
            return Err(CohortError::Query { reason });
        }
    };
    // A longer one shows by a single character too many, and is never whole in memory here.
    Ok(format!("pg_catalog.left({text}, {})", limits.field_bytes + 1))
}

/// How a step of a test went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// Well.
    Well,
    /// Well enough to work, and somebody should mend it.
    Notice,
    /// Not.
    Failed,
}

/// A step of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// What was tested: `tcp`, `login`, `rights`.
    pub test: &'static str,
    /// How it went.
    pub went: Went,
    /// One sentence.
    pub finding: String,
}

/// Tests the way to a database, step by step, up to the first that fails. It blocks, and must not be called on an async
/// thread.
///
/// # Errors
/// [`CohortError::ReadSource`] if this machine gives no thread to ask with.
///
/// # Disclosure
/// Nothing about patients: nothing is asked but what the role may do.
pub fn trial(server: &Server, password: &Password) -> Result<Vec<Trial>, CohortError> {
    runtime()?.block_on(async {
        let mut steps = Vec::new();
        let mut add = |test, went, finding: String| steps.push(Trial { test, went, finding });
        let way = timeout(CONNECT, TcpStream::connect((server.host.as_str(), server.port))).await;
        match way {
            Ok(Ok(_)) => add("tcp", Went::Well, format!("{} answers on port {}.", server.host, server.port)),
            Ok(Err(why)) => {
                add("tcp", Went::Failed, format!("{}:{} cannot be reached: {why}.", server.host, server.port));
                return Ok(steps);
            }
            Err(_) => {
                let waited = CONNECT.as_secs();
                add("tcp", Went::Failed, format!("{}:{} gave no answer in {waited} s.", server.host, server.port));
                return Ok(steps);
            }
        }
        let mut connection = match server.connect(password).await {
            Ok(connection) => connection,
            Err(CohortError::Database { reason, .. }) => {
                add("login", Went::Failed, sentence(&reason));
                return Ok(steps);
            }
            Err(other) => return Err(other),
        };
        let protected = match server.transport {
            Transport::Verified => "The connection is encrypted and the server's certificate was checked",
            Transport::Local => "The server is on this machine, and its certificate is not checked",
        };
        add("login", Went::Well, format!("{protected}. {} is let in to {}.", server.user, server.database));
        let (went, finding) = rights(&mut connection, &server.user).await;
        add("rights", went, finding);
        let _ = timeout(CONNECT, connection.close()).await;
        Ok(steps)
    })
}

fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// What the role may do besides reading.
async fn rights(connection: &mut PgConnection, user: &str) -> (Went, String) {
    const ASKED: &str = "
        SELECT r.rolsuper,
               EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                       WHERE c.relkind IN ('r', 'p', 'v', 'f')
                         AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
                         AND pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')),
               pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                 OR EXISTS (SELECT 1 FROM pg_catalog.pg_namespace n
                            WHERE n.nspname NOT LIKE 'pg\\_%' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')),
               pg_catalog.current_setting('default_transaction_read_only') = 'on'
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    let asked = timeout(QUESTION, sqlx::query_as::<_, (bool, bool, bool, bool)>(ASKED).fetch_one(connection)).await;
    let Ok(Ok((is_super, writes, makes, is_read_only))) = asked else {
        return (Went::Notice, format!("What {user} may do besides reading cannot be found out."));
    };
    let may = match (is_super, writes, makes) {
        (true, ..) => "is a superuser and may do anything",
        (_, true, _) => "may change rows",
        (_, _, true) => "may make tables",
        _ => return (Went::Well, format!("{user} may read, and nothing else.")),
    };
    let held = if is_read_only { " Its transactions only read by default, which anybody can switch off." } else { "" };
    let finding = format!(
        "{user} {may}.{held} Hospes only reads, in a transaction that cannot write; ask for a role all the same that may \
         SELECT and nothing else."
    );
    (Went::Notice, finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, transport: Transport) -> Server {
        let (database, user) = ("clinic".to_owned(), "reader".to_owned());
        Server { host: host.to_owned(), port: 5432, database, user, transport, ca: None }
    }

    #[test]
    fn only_this_machine_is_asked_without_a_certificate() {
        let password = Password::new("hush".to_owned().into());
        for (host, transport, mode) in [
            ("db.clinic.example", Transport::Verified, "VerifyFull"),
            ("db.clinic.example", Transport::Local, "VerifyFull"),
            ("127.0.0.1.example", Transport::Local, "VerifyFull"),
            ("localhost", Transport::Verified, "VerifyFull"),
            ("localhost", Transport::Local, "Prefer"),
            ("127.0.0.1", Transport::Local, "Prefer"),
            ("::1", Transport::Local, "Prefer"),
        ] {
            let options = server(host, transport).options(&password);
            assert_eq!(format!("{:?}", options.get_ssl_mode()), mode, "{host}");
        }
        assert_eq!(format!("{password:?}"), "Password(…)");
        assert!(!server("a", Transport::Verified).words().contains("hush"));
    }
}
