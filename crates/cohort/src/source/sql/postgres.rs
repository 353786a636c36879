//! PostgreSQL: an encrypted connection to a server that proved who it is, and a transaction that cannot write.

use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt as _;
use hospes_protocol::text::shown;
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
/// Most characters of a message and of a name that a server gives: they go to a terminal and into the log.
const MESSAGE_CHARS: usize = 500;
const NAME_CHARS: usize = 100;
/// Characters of a SQLSTATE.
const CODE_CHARS: usize = 5;

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
        let connected = answer(CONNECT, PgConnection::connect_with(&options)).await;
        connected.map_err(|reason| self.refused(reason))
    }

    fn refused(&self, reason: String) -> CohortError {
        CohortError::Database { database: self.words(), reason }
    }

    fn error(&self, error: &sqlx::Error, query: Option<&str>) -> CohortError {
        self.refused(reason(error, query))
    }

    fn unread(&self, error: &sqlx::Error) -> CohortError {
        self.refused(reading_reason(error))
    }
}

/// What a server answers that reads no row of a patient for it, or why it gave none; waited for no longer than this.
async fn answer<T>(patience: Duration, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    match timeout(patience, Box::pin(asked)).await {
        Ok(answered) => answered.map_err(|error| reason(&error, None)),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

/// Why connecting or preparing failed: the server read no row yet, and what it says is about itself and the query.
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
    let code = shown(&told.code().unwrap_or_default(), CODE_CHARS);
    let place = told.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::position);
    let line = match (place, query) {
        (Some(PgErrorPosition::Original(at)), Some(query)) => {
            let before = query.chars().take(at.saturating_sub(1));
            format!("line {} of the query: ", before.filter(|c| *c == '\n').count() + 1)
        }
        _ => String::new(),
    };
    match code.as_str() {
        "28P01" => "the password is wrong, or there is no such role".to_owned(),
        "28000" => "the server does not let this role in from here (see its pg_hba.conf)".to_owned(),
        "3D000" => "there is no such database on the server".to_owned(),
        "57014" => "the query took longer than it may; give it more time, or ask for less".to_owned(),
        "25006" => "the query would write, and the transaction only reads".to_owned(),
        // PRIVACY: classes whose words are about the query, its names and the server. All others can quote a value.
        code if ["08", "0A", "25", "28", "3D", "3F", "42", "53", "57"].iter().any(|class| code.starts_with(class)) => {
            format!("{line}{} (SQLSTATE {code})", shown(told.message(), MESSAGE_CHARS))
        }
        code => format!("a value in the data does not bear what the query does with it (SQLSTATE {code})"),
    }
}

/// Classes of SQLSTATE that the standard or PostgreSQL knows, as far as a query that reads can end with them.
const CLASSES: [&str; 16] =
    ["08", "0A", "21", "22", "23", "25", "28", "2F", "38", "42", "53", "54", "55", "57", "58", "P0"];

/// Why reading rows failed, in words of our own.
///
/// PRIVACY: while rows are read, a server's words of any class can hold a value (`name::regclass` where no table has that
/// name), and so can a code that a function makes up. Of the code the class is told, if it is a known one.
fn reading_reason(error: &sqlx::Error) -> String {
    let told = match error {
        sqlx::Error::Database(told) => told,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => return "the connection broke; try again".to_owned(),
        _ => return "the server answered in a way that is not understood".to_owned(),
    };
    let code = told.code().unwrap_or_default();
    match (&*code, CLASSES.into_iter().find(|class| code.starts_with(class))) {
        ("57014", _) => "the query took longer than it may; give it more time, or ask for less".to_owned(),
        ("25006", _) => "the query would write, and the transaction only reads".to_owned(),
        ("42501", _) => {
            "the role may not read or call all that the query needs; have it granted what is missing, or ask for less"
                .to_owned()
        }
        (_, Some(class @ ("21" | "22"))) => {
            format!("a value in the data does not bear what the query does with it (SQLSTATE class {class})")
        }
        (_, Some(class @ ("08" | "53" | "57" | "58"))) => {
            format!("the server has no room or time for the query, or was stopped (SQLSTATE class {class}); try again")
        }
        (_, Some(class)) => format!("the server could not read on (SQLSTATE class {class}); its own log says why"),
        (_, None) => "the server could not read on; its own log says why".to_owned(),
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
        begin(&mut connection, statement, CONNECT).await.map_err(|reason| server.refused(reason))?;
        // Within the transaction: after its first question nothing can turn it into one that writes.
        check_powers(&mut connection, server).await.map_err(|reason| server.refused(reason))?;
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
        // Here, where what is wrong with the query can still be told in the server's words.
        let whole = Executor::prepare(&mut connection, AssertSqlSafe(sql.clone()).into_sql_str());
        let whole = timeout(wait, whole).await.map_err(|_| silent(&server.words()))?;
        whole.map_err(|error| server.error(&error, None))?;
        Ok(Self { names, server: server.clone(), connection, sql, wait })
    }

    /// Reads all rows once.
    pub(super) async fn read(&mut self, out: &mut Deliverer) -> Result<(), Ended> {
        let sql = AssertSqlSafe(self.sql.clone());
        let mut rows = sqlx::query::<sqlx::Postgres>(sql).persistent(false).fetch(&mut self.connection);
        loop {
            let next = timeout(self.wait, rows.try_next()).await.map_err(|_| silent(&self.server.words()))?;
            let Some(row) = next.map_err(|error| self.server.unread(&error))? else { return Ok(()) };
            for index in 0..self.names.len() {
                let cell: Option<&str> = row.try_get(index).map_err(|error| self.server.unread(&error))?;
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

/// Begins a transaction that cannot write, sees one state of the data, and ends what takes too long; or says why not.
async fn begin(connection: &mut PgConnection, statement: Duration, patience: Duration) -> Result<(), String> {
    let milliseconds = statement.as_millis();
    let sql = format!(
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET LOCAL statement_timeout = {milliseconds}; \
         SET LOCAL client_min_messages = error"
    );
    answer(patience, sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection)).await.map(drop)
}

/// What the role is, can become while a query runs, or may call, that a transaction which only reads does not hold back.
/// Who logged in counts, and not whose rights are in use at first: a query can change those (`set_config('role', …)`).
const POWERS: &str = "
    SELECT name, is_super, is_own FROM (
        SELECT r.rolname::pg_catalog.text AS name, r.rolsuper AS is_super, r.rolname = session_user AS is_own
        FROM pg_catalog.pg_roles r
        WHERE (r.rolsuper
               OR r.rolname IN ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files'))
          AND pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
        UNION ALL
        SELECT p.proname::pg_catalog.text, false, false FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'pg_catalog' AND p.proname = 'lo_export'
          -- Before this version everybody might call it, and it asked for a superuser by itself.
          AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 110000
          AND pg_catalog.has_function_privilege(session_user, p.oid, 'EXECUTE')
    ) AS powers
    ORDER BY is_own DESC, is_super DESC, name LIMIT 1";

/// Refuses a role whose queries could do more than read, whatever the transaction is.
async fn check_powers(connection: &mut PgConnection, server: &Server) -> Result<(), String> {
    let Server { user, database, .. } = server;
    let asked = sqlx::query_as::<_, (String, bool, bool)>(POWERS).fetch_optional(connection);
    let unknown = |why: String| format!("what the role {user} may do cannot be found out ({why}); it reads nothing");
    let may = match answer(QUESTION, asked).await.map_err(unknown)? {
        None => return Ok(()),
        Some((_, _, true)) => "is a superuser".to_owned(),
        Some((name, true, _)) => format!("can become the superuser {}", shown(&name, NAME_CHARS)),
        Some((name, ..)) => match name.as_str() {
            "pg_execute_server_program" => format!("may start programs on the server ({name})"),
            "pg_read_server_files" => format!("may read files of the server ({name})"),
            other => format!("may write files of the server ({})", shown(other, NAME_CHARS)),
        },
    };
    Err(format!(
        "the role {user} {may}, and what its queries call could do that although the transaction only reads. Have a \
         role made that may read and nothing else, and connect with it: CREATE ROLE hospes LOGIN PASSWORD '…'; GRANT \
         CONNECT ON DATABASE \"{database}\" TO hospes; GRANT USAGE ON SCHEMA public TO hospes; GRANT SELECT ON each \
         table that is needed TO hospes"
    ))
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
        let (went, finding) = match check_powers(&mut connection, server).await {
            Ok(()) => rights(&mut connection, &server.user).await,
            Err(reason) => (Went::Failed, sentence(&reason)),
        };
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
        SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                       WHERE c.relkind IN ('r', 'p', 'v', 'f')
                         AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
                         AND pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')),
               pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                 OR EXISTS (SELECT 1 FROM pg_catalog.pg_namespace n
                            WHERE n.nspname NOT LIKE 'pg\\_%' AND pg_catalog.has_schema_privilege(n.oid, 'CREATE')),
               pg_catalog.current_setting('default_transaction_read_only') = 'on'";
    let asked = timeout(QUESTION, sqlx::query_as::<_, (bool, bool, bool)>(ASKED).fetch_one(connection)).await;
    let Ok(Ok((writes, makes, is_read_only))) = asked else {
        return (Went::Notice, format!("What {user} may do besides reading cannot be found out."));
    };
    let may = match (writes, makes) {
        (true, _) => "may change rows",
        (_, true) => "may make tables",
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
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

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

    /// The port of a server that lets one client in and then says no more.
    fn falls_silent() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            // Asked for TLS, it has none; then come role and database.
            client.read_exact(&mut [0; 8]).unwrap();
            client.write_all(b"N").unwrap();
            let mut length = [0; 4];
            client.read_exact(&mut length).unwrap();
            let mut rest = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
            client.read_exact(&mut rest).unwrap();
            client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
            // Until the client has gone.
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        });
        port
    }

    #[test]
    fn a_server_that_falls_silent_before_the_transaction_is_not_waited_for() {
        let password = Password::new("hush".to_owned().into());
        let server = Server { port: falls_silent(), ..server("127.0.0.1", Transport::Local) };
        let said = runtime().unwrap().block_on(async {
            let mut connection = server.connect(&password).await.unwrap();
            begin(&mut connection, Duration::from_secs(60), Duration::from_millis(200)).await
        });
        assert!(said.unwrap_err().contains("no answer within"));
    }
}
