//! Rows of queries: real SQLite, and a real PostgreSQL server with TLS, passwords and roles.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use hospes_cohort::CohortError;
use hospes_cohort::opt_out::SubjectKey;
use hospes_cohort::profile::{Profile, profile};
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::schema::ColumnKind;
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotKey, freeze};
use hospes_cohort::source::sql::{Database, OpenQuery, Password, Server, TIMEOUT_S, Transport, Went, trial};
use hospes_cohort::source::{Hints, Limits, Reading, SourceKind, Survey, survey};
use hospes_protocol::id::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::postgres::Postgres;
use crate::rig::write;
use crate::sources::{kinds, message};

const PASSWORD: &str = "correct horse";

/// A server with TLS for `localhost`, a table, and roles that may read, write, and more than that.
struct World {
    _server: Postgres,
    port: u16,
    ca: String,
    folder: tempfile::TempDir,
}

/// One server for all tests that run together; the last one stops it.
fn world() -> Arc<World> {
    static SHARED: OnceLock<Mutex<Weak<World>>> = OnceLock::new();
    let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(world) = shared.upgrade() {
        return world;
    }
    let world = Arc::new(World::start());
    *shared = Arc::downgrade(&world);
    world
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Runs statements as the superuser, one after the other.
fn as_superuser(port: u16, statements: &[String]) {
    block_on(async {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        let mut connection = options.connect().await.unwrap();
        for statement in statements {
            sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}

impl World {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Postgres::start_on(Some(port));
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ca = certificates(folder.path());
        let place = |name: &str| folder.path().join(name).display().to_string();
        // The server writes its own rules: passwords for all but the superuser, who sets this up.
        let rules =
            "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let mut statements = vec![
            format!("ALTER SYSTEM SET ssl_cert_file = '{}'", place("server.pem")),
            format!("ALTER SYSTEM SET ssl_key_file = '{}'", place("server.key")),
            "ALTER SYSTEM SET ssl = on".to_owned(),
            format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'"),
            format!("CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'"),
        ];
        let more = POWERFUL.lines().map(|line| line.replace("PASSWORD", &format!("LOGIN PASSWORD '{PASSWORD}'")));
        statements.extend(more);
        statements.extend(VISITS.split(";\n").map(str::to_owned));
        as_superuser(port, &statements);
        rewrite_rules(port, rules);
        Self { _server: server, port, ca, folder }
    }

    fn server(&self, user: &str) -> Server {
        Server {
            host: "localhost".to_owned(),
            port: self.port,
            database: "postgres".to_owned(),
            user: user.to_owned(),
            transport: Transport::Verified,
            ca: Some(self.ca.clone()),
        }
    }

    fn ask(&self, text: &str) -> Result<OpenQuery, CohortError> {
        open(&self.server("reader"), text, TIMEOUT_S)
    }

    fn look(&self, text: &str) -> Result<Survey, CohortError> {
        look(&self.ask(text)?)
    }
}

/// Puts the rules for log-ins into the server's file, each line by itself, and has everything read again.
fn rewrite_rules(port: u16, rules: &str) {
    let lines = rules.lines().map(|line| format!("('{line}')")).collect::<Vec<_>>().join(", ");
    let copied = format!(
        "DO $$ BEGIN EXECUTE format('COPY (VALUES {}) TO %L', current_setting('hba_file')); END $$",
        lines.replace('\'', "''")
    );
    as_superuser(port, &[copied, "SELECT pg_reload_conf()".to_owned()]);
    // The server reads its files when it gets to it: until then it lets everybody in without a password.
    let wrong = Password::new("wrong".to_owned().into());
    let server = Server {
        host: "127.0.0.1".to_owned(),
        port,
        database: "postgres".to_owned(),
        user: "reader".to_owned(),
        transport: Transport::Local,
        ca: None,
    };
    for _ in 0..200 {
        let steps = trial(&server, &wrong).unwrap();
        if steps.last().is_some_and(|step| step.finding.contains("password is wrong")) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("PostgreSQL did not take its rules");
}

const VISITS: &str = "
CREATE TYPE ward AS ENUM ('north', 'south');
CREATE TABLE visits (
    id text NOT NULL, age int, weight numeric, dose float8, smokes boolean, seen date, at timestamptz, place ward, note text);
INSERT INTO visits
SELECT 'P' || n, 40 + n % 50, 60 + n / 8.0, CASE WHEN n % 10 = 0 THEN 'NaN' ELSE n / 3.0 END, n % 2 = 0,
       date '2024-01-01' + n, timestamptz '2024-01-01 10:00:00+02' + n * interval '1 day',
       (CASE WHEN n % 2 = 0 THEN 'north' ELSE 'south' END)::ward, CASE WHEN n % 4 = 0 THEN NULL ELSE 'n' || n % 3 END
FROM generate_series(1, 5000) AS n;
CREATE TABLE odd (id int, document jsonb, tags text[]);
GRANT SELECT ON visits, odd TO reader, writer;
GRANT INSERT ON visits TO writer;
REVOKE CREATE ON SCHEMA public FROM PUBLIC";

/// Roles with powers that no transaction holds back: had, to be had by one question more, or lent out by name.
const POWERFUL: &str = "\
CREATE ROLE chief PASSWORD SUPERUSER
CREATE ROLE masked PASSWORD SUPERUSER
ALTER ROLE masked SET role = 'reader'
CREATE ROLE deputy PASSWORD NOINHERIT
GRANT chief TO deputy
CREATE ROLE runner PASSWORD
GRANT pg_execute_server_program TO runner
CREATE ROLE storer PASSWORD
GRANT pg_write_server_files TO storer
CREATE ROLE finder PASSWORD NOINHERIT
GRANT pg_read_server_files TO finder
CREATE ROLE exporter PASSWORD
GRANT EXECUTE ON FUNCTION lo_export(oid, text) TO exporter";

/// A CA, and a certificate of it for `localhost` that the server's account can read. Gives the CA's.
fn certificates(folder: &Path) -> String {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = own.signed_by(&key, &issuer).unwrap();
    let account = crate::postgres::account();
    for (name, text) in [("server.pem", certificate.pem()), ("server.key", key.serialize_pem())] {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = account {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }
    ca.pem()
}

fn password() -> Password {
    Password::new(PASSWORD.to_owned().into())
}

fn open(server: &Server, text: &str, timeout_s: u32) -> Result<OpenQuery, CohortError> {
    let database = Database::Server(Box::new(server.clone()), password());
    OpenQuery::open(database, text, timeout_s, Limits::default())
}

fn look(open: &OpenQuery) -> Result<Survey, CohortError> {
    survey(open, &Hints::default(), ScanProfile::Default, Limits::default())
}

fn register(open: &OpenQuery, subject: &str) -> Result<(Snapshot, Profile), CohortError> {
    let folder = tempfile::tempdir().unwrap();
    let found = look(open)?;
    let mut schema = found.schema(subject)?;
    schema.columns.iter_mut().for_each(|column| column.masked = false);
    let order = Freeze {
        source: open.into(),
        format: &found.format,
        schema: &schema,
        folder: folder.path(),
        public: false,
        at: Timestamp::from_millis(1_750_000_000_000),
        limits: Limits::default(),
    };
    let key = SnapshotKey::from_bytes([5; 32]);
    let snapshot = freeze(order, &key, &SubjectKey::from_bytes([6; 32]))?;
    let profile = profile(&snapshot, &key, 10.0)?;
    Ok((snapshot, profile))
}

// PostgreSQL.

#[test]
fn rows_of_a_query_are_surveyed_and_frozen_with_their_types() {
    let world = world();
    let open = world.ask("SELECT * FROM visits ORDER BY id;").unwrap();
    let found = look(&open).unwrap();
    assert_eq!(
        (found.rows, found.format.kind, found.subject_guess.as_deref()),
        (5_000, SourceKind::Postgres, Some("id"))
    );
    assert_eq!(
        kinds(&found),
        [
            ("id", ColumnKind::Text),
            ("age", ColumnKind::Number),
            ("weight", ColumnKind::Number),
            ("dose", ColumnKind::Number),
            ("smokes", ColumnKind::Number),
            ("seen", ColumnKind::Date),
            ("at", ColumnKind::Date),
            ("place", ColumnKind::Category),
            ("note", ColumnKind::Category),
        ]
    );
    let column = |name: &str| found.columns.iter().find(|c| c.name == name).unwrap();
    // NULL is missing, and so is NaN.
    assert_eq!((column("note").missing_total(), column("dose").missing_total()), (1_250, 500));
    let weight = column("weight").number.unwrap();
    assert_eq!((weight.min, weight.max), (60.125, 685.0));
    let (snapshot, profile) = register(&open, "id").unwrap();
    assert_eq!((snapshot.document.rows, snapshot.document.subjects, profile.rows), (5_000, 5_000, 5_000));
    let query = snapshot.document.format.query.clone().unwrap();
    assert_eq!(query.text, "SELECT * FROM visits ORDER BY id");
    assert_eq!(query.database, format!("PostgreSQL database postgres on localhost:{}, as reader", world.port));
}

#[test]
fn both_passes_see_the_same_rows_whatever_is_written_between() {
    let world = world();
    as_superuser(
        world.port,
        &[
            "CREATE TABLE growing (id text, x int)".to_owned(),
            "INSERT INTO growing SELECT 'P' || n, n FROM generate_series(1, 10) AS n".to_owned(),
            "GRANT SELECT ON growing TO reader".to_owned(),
        ],
    );
    let open = world.ask("SELECT * FROM growing ORDER BY x").unwrap();
    assert_eq!(look(&open).unwrap().rows, 10);
    as_superuser(world.port, &["INSERT INTO growing SELECT 'Q' || n, n FROM generate_series(1, 10) AS n".to_owned()]);
    let (first, _) = register(&open, "id").unwrap();
    assert_eq!(first.document.rows, 10);
    // The same query later is another version of the same form, and other rows.
    let (later, _) = register(&world.ask("SELECT * FROM growing ORDER BY x").unwrap(), "id").unwrap();
    assert_eq!(later.document.rows, 20);
    assert_ne!(later.document.source, first.document.source);
    assert_eq!(later.document.form().unwrap(), first.document.form().unwrap());
    let (other, _) = register(&world.ask("SELECT * FROM growing WHERE x < 5 ORDER BY x").unwrap(), "id").unwrap();
    assert_ne!(other.document.form().unwrap(), first.document.form().unwrap(), "another query");
    // Its transaction still holds the table.
    drop(open);
    as_superuser(world.port, &["DROP TABLE growing".to_owned()]);
}

#[test]
fn what_would_write_or_is_no_single_query_is_refused() {
    let world = world();
    let said = |text: &str| {
        let refused = open(&world.server("writer"), text, TIMEOUT_S).and_then(|asked| look(&asked));
        message(refused)
    };
    for (text, says) in [
        ("INSERT INTO visits (id) VALUES ('X') RETURNING id", "only data that are read"),
        ("SELECT 1 AS a; DELETE FROM visits", "a second statement begins in line 1"),
        ("WITH gone AS (INSERT INTO visits (id) VALUES ('X') RETURNING id) SELECT id FROM gone", "SQLSTATE"),
        ("SELECT id FROM visits FOR UPDATE", "the query would write"),
        ("SELECT id\nFROM nowhere", "line 2 of the query: relation \"nowhere\" does not exist"),
        ("SELECT id FROM visits WHERE age > $1", "placeholder"),
        ("SELECT id, id FROM visits", "the same name"),
        ("SELECT id FROM visits WHERE false", "no rows"),
        ("SELECT id, document FROM odd", "its column 'document' is of type jsonb"),
        ("SELECT tags FROM odd", "its column 'tags' is of type text[]"),
        ("SELECT make_interval(days => age) AS t FROM visits", "of type interval"),
        ("SELECT current_setting('data_directory')", "may not read or call all that the query needs"),
    ] {
        let words = said(text);
        assert!(words.contains(says), "{text}: {words}");
    }
    assert_eq!(world.look("SELECT id FROM visits").unwrap().rows, 5_000);
}

#[test]
fn an_error_about_a_value_does_not_tell_it() {
    let world = world();
    let words = message(world.look("SELECT ('patient ' || id)::int AS n FROM visits"));
    assert!(words.contains("a value in the data") && words.contains("SQLSTATE class 22"), "{words}");
    assert!(!words.contains("patient P"), "{words}");
}

#[test]
fn while_rows_are_read_no_word_of_the_server_is_passed_on() {
    let world = world();
    // Classes whose words are about names where a query is prepared, and values where rows are read.
    as_superuser(
        world.port,
        &[
            "CREATE FUNCTION telling(id text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'patient %', id USING ERRCODE = rpad(id, 5, '0'); END $$"
                .to_owned(),
            "CREATE FUNCTION naming(id text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             EXECUTE format('SELECT count(*) FROM %I', id); RETURN 1; END $$"
                .to_owned(),
        ],
    );
    for (text, says) in [
        ("SELECT ('patient_' || id)::regclass::text AS n FROM visits", "could not read on (SQLSTATE class 42)"),
        ("SELECT ('patient_' || id)::regtype::text AS n FROM visits", "could not read on (SQLSTATE class 42)"),
        ("SELECT naming('patient ' || id) AS n FROM visits", "SQLSTATE class 42"),
        // What is no class of the standard's is a value, too.
        ("SELECT telling(id) AS n FROM visits", "the server could not read on; its own log says why"),
    ] {
        let words = message(world.look(text));
        assert!(words.contains(says), "{text}: {words}");
        assert!(!["patient", "P1", "p1", "exist"].iter().any(|part| words.contains(part)), "{text}: {words}");
    }
}

#[test]
fn a_statement_that_takes_too_long_is_ended() {
    let world = world();
    let begun = std::time::Instant::now();
    let asked = open(&world.server("reader"), "SELECT 1 AS a FROM pg_sleep(60)", 1).unwrap();
    let words = message(look(&asked));
    assert!(words.contains("longer than it may"), "{words}");
    assert!(begun.elapsed().as_secs() < 30);
    for seconds in [0, 100_000] {
        assert!(message(open(&world.server("reader"), "SELECT 1 AS a", seconds)).contains("86400"));
    }
}

#[test]
fn a_huge_row_is_refused_without_becoming_memory() {
    let world = world();
    let words =
        message(world.look("SELECT 'P' || n AS id, repeat('x', 20000000) AS note FROM generate_series(1, 3) AS n"));
    assert!(words.contains("row 1, field 2: more than 65,536 bytes"), "{words}");
    let wide = (0..100).map(|n| format!("repeat('x', 60000) AS c{n}")).collect::<Vec<_>>().join(", ");
    let words = message(world.look(&format!("SELECT {wide}")));
    assert!(words.contains("more than 4,194,304 bytes in one row"), "{words}");
}

#[test]
fn nobody_is_let_in_who_should_not_be_and_nothing_goes_to_a_server_that_proved_nothing() {
    let world = world();
    let wrong = Password::new("wrong".to_owned().into());
    let database = Database::Server(Box::new(world.server("reader")), wrong.clone());
    let words = message(OpenQuery::open(database, "SELECT 1 AS a", TIMEOUT_S, Limits::default()));
    assert!(words.contains("the password is wrong"), "{words}");
    assert!(!words.contains(PASSWORD));
    // The certificate is of a CA that nobody named, or for another name.
    let unknown = Server { ca: None, ..world.server("reader") };
    assert!(message(open(&unknown, "SELECT 1 AS a", TIMEOUT_S)).contains("no encrypted connection"));
    let elsewhere = Server { host: "127.0.0.1".to_owned(), ..world.server("reader") };
    assert!(message(open(&elsewhere, "SELECT 1 AS a", TIMEOUT_S)).contains("exactly this host name"));
    let nowhere = Server { database: "nowhere".to_owned(), ..world.server("reader") };
    assert!(message(open(&nowhere, "SELECT 1 AS a", TIMEOUT_S)).contains("no such database"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Server { port: free, ..world.server("reader") };
    assert!(message(open(&closed, "SELECT 1 AS a", TIMEOUT_S)).contains("cannot be reached"));
    assert_eq!(trial(&closed, &password()).unwrap()[0].went, Went::Failed);
    let steps = trial(&world.server("reader"), &wrong).unwrap();
    assert_eq!(
        steps.iter().map(|s| (s.test, s.went)).collect::<Vec<_>>(),
        [("tcp", Went::Well), ("login", Went::Failed)]
    );
}

#[test]
fn a_role_that_can_write_is_warned_of() {
    let world = world();
    let rights = |user: &str| {
        let server = world.server(user);
        let steps = trial(&server, &password()).unwrap();
        assert_eq!(steps.len(), 3, "{steps:?}");
        (steps[2].went, steps[2].finding.clone())
    };
    let (went, finding) = rights("reader");
    assert_eq!((went, finding.as_str()), (Went::Well, "reader may read, and nothing else."));
    let (went, finding) = rights("writer");
    assert!(went == Went::Notice && finding.contains("writer may change rows"), "{finding}");
    assert!(world.folder.path().exists());
}

#[test]
fn a_role_whose_queries_could_do_more_than_read_is_refused_in_the_test_and_before_each_read() {
    let world = world();
    for (user, may) in [
        ("chief", "the role chief is a superuser"),
        ("masked", "the role masked is a superuser"),
        ("deputy", "the role deputy can become the superuser chief"),
        ("runner", "the role runner may start programs on the server (pg_execute_server_program)"),
        ("storer", "the role storer may write files of the server (pg_write_server_files)"),
        ("finder", "the role finder may read files of the server (pg_read_server_files)"),
        ("exporter", "the role exporter may write files of the server (lo_export)"),
    ] {
        let server = world.server(user);
        let refused = message(open(&server, "SELECT 1 AS a", TIMEOUT_S));
        let steps = trial(&server, &password()).unwrap();
        assert_eq!((steps.len(), steps[2].went), (3, Went::Failed), "{steps:?}");
        // How to mend it is said with it.
        for words in [refused, steps[2].finding.replacen("The role", "the role", 1)] {
            assert!(words.contains(may) && words.contains("GRANT SELECT ON each table"), "{user}: {words}");
        }
    }
    // What is taken away again is no hindrance.
    let made = format!("CREATE ROLE tamed LOGIN PASSWORD '{PASSWORD}'");
    as_superuser(world.port, &[made, "GRANT chief TO tamed".to_owned()]);
    let tamed = world.server("tamed");
    assert!(message(open(&tamed, "SELECT 1 AS a", TIMEOUT_S)).contains("the superuser chief"));
    as_superuser(world.port, &["REVOKE chief FROM tamed".to_owned()]);
    assert_eq!(look(&open(&tamed, "SELECT 1 AS a", TIMEOUT_S).unwrap()).unwrap().rows, 1);
}

// SQLite.

/// A database with what SQLite lets stand in any column.
fn sqlite(statements: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ward.sqlite");
    block_on(async {
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection: SqliteConnection = options.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    (folder, path)
}

const WARD: &str = "
CREATE TABLE visits (id TEXT, age INTEGER, dose REAL, seen TEXT, photo BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
INSERT INTO visits SELECT 'P' || i, 40 + i % 50, i / 10.0, date('2024-01-01', i || ' days'), x'0102' FROM n;
UPDATE visits SET dose = NULL WHERE age = 41;";

fn ask(path: &Path, text: &str) -> Result<OpenQuery, CohortError> {
    OpenQuery::open(Database::Sqlite(path.to_owned()), text, TIMEOUT_S, Limits::default())
}

#[test]
fn a_file_of_sqlite_is_read_by_a_query() {
    let (_folder, path) = sqlite(WARD);
    let open = ask(&path, "SELECT id, age, dose, seen FROM visits -- all of them").unwrap();
    let found = look(&open).unwrap();
    assert_eq!((found.rows, found.format.kind, found.file.as_str()), (3_000, SourceKind::Sqlite, "ward.sqlite"));
    let expected = [
        ("id", ColumnKind::Text),
        ("age", ColumnKind::Number),
        ("dose", ColumnKind::Number),
        ("seen", ColumnKind::Date),
    ];
    assert_eq!(kinds(&found), expected);
    let dose = found.columns[2].number.unwrap();
    assert_eq!((dose.min, dose.max, found.columns[2].missing_total()), (0.2, 300.0, 60));
    let (snapshot, _) = register(&open, "id").unwrap();
    assert_eq!((snapshot.document.rows, snapshot.document.subjects), (3_000, 3_000));
    // Where the file lies and what it is called is in no document.
    assert_eq!(snapshot.document.format.query.as_ref().unwrap().database, "a file of SQLite");
}

#[test]
fn sqlite_gives_nothing_but_what_is_selected_in_the_file_that_was_chosen() {
    let (_folder, path) = sqlite(WARD);
    let (_other, other) = sqlite("CREATE TABLE secret (id TEXT); INSERT INTO secret VALUES ('S')");
    let before = std::fs::read(&path).unwrap();
    for (text, says) in [
        (format!("ATTACH '{}' AS o", other.display()), "only data that are read"),
        (format!("SELECT 1 AS a) SELECT 1; ATTACH '{}' AS o; SELECT (1", other.display()), "closes none"),
        ("SELECT id FROM visits; DROP TABLE visits".to_owned(), "a second statement"),
        ("WITH a AS (SELECT 1) DELETE FROM visits RETURNING id".to_owned(), "syntax error"),
        ("SELECT id, photo FROM visits".to_owned(), "row 1, column 'photo': a BLOB"),
        ("SELECT nowhere FROM visits".to_owned(), "no such column: nowhere"),
        // Refused where the driver does not allow it; whatever the words, nothing is loaded.
        ("SELECT load_extension('x') AS x".to_owned(), ""),
    ] {
        let words = message(ask(&path, &text).and_then(|asked| look(&asked)));
        assert!(words.contains(says), "{text}: {words}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let text = write(other.parent().unwrap(), "table.sqlite", "id,age\n1,2\n");
    assert!(message(ask(&text, "SELECT 1 AS a")).contains("no SQLite database"));
    let plain = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default());
    assert!(message(plain).contains("registered by a query"));
}

#[test]
fn a_query_without_end_is_ended_and_a_huge_cell_refused_in_sqlite() {
    let (_folder, path) = sqlite(WARD);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS most FROM n";
    let open = OpenQuery::open(Database::Sqlite(path.clone()), endless, 1, Limits::default()).unwrap();
    let words = message(look(&open));
    assert!(words.contains("longer than it may"), "{words}");
    // Nor does anybody have to wait for its time to be over.
    let reading = Reading::default();
    reading.end();
    let open = OpenQuery::open(Database::Sqlite(path.clone()), endless, 5, Limits::default()).unwrap();
    let ended = look(&open.followed_by(reading));
    assert!(matches!(ended, Err(CohortError::Cancelled)), "{ended:?}");
    let huge = ask(&path, "SELECT id, printf('%.*c', 1000000, 'x') AS note FROM visits").unwrap();
    assert!(message(look(&huge)).contains("row 1, field 2: more than 65,536 bytes"));
}

#[test]
fn what_sqlite_says_of_a_file_is_not_told_as_an_attempt_to_write() {
    let (folder, path) = sqlite(WARD);
    let left = folder.path().join("left.sqlite");
    block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let change = "PRAGMA cache_size = 10; BEGIN; UPDATE visits SET photo = zeroblob(2000)";
        sqlx::raw_sql(change).execute(&mut connection).await.unwrap();
        // What lies there where a program is killed while it writes: pages of the change, and what was before them.
        for ending in ["", "-journal"] {
            let copy = |of: &Path| format!("{}{ending}", of.display());
            std::fs::copy(copy(&path), copy(&left)).unwrap();
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    let before = std::fs::read(&left).unwrap();
    let words = message(ask(&left, "SELECT id FROM visits"));
    assert!(words.contains("stopped in the middle") && !words.contains("would write"), "{words}");
    assert_eq!(std::fs::read(&left).unwrap(), before);
    assert_eq!(look(&ask(&path, "SELECT id FROM visits").unwrap()).unwrap().rows, 3_000);
    // Pages that lead nowhere are damage; a table that is not there is a mistake in the query.
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[100..].fill(0xff);
    std::fs::write(&left, &damaged).unwrap();
    std::fs::remove_file(folder.path().join("left.sqlite-journal")).unwrap();
    let words = message(ask(&left, "SELECT id FROM visits"));
    assert!(words.contains("the database is damaged"), "{words}");
    assert!(message(ask(&path, "SELECT id FROM nowhere")).contains("no such table: nowhere"));
}

#[test]
fn what_is_asked_is_known_before_anything_is_asked() {
    let nowhere = Database::Sqlite(PathBuf::from("/nowhere.sqlite"));
    let query = nowhere.query(" SELECT id FROM visits ;\n").unwrap();
    assert_eq!((query.database.as_str(), query.text.as_str()), ("a file of SQLite", "SELECT id FROM visits"));
    // It is what the snapshot's document then has, so that an entry made before leads to it.
    assert_eq!(nowhere.query(&query.text).unwrap(), query);
    let (_folder, path) = sqlite(WARD);
    assert_eq!(ask(&path, " SELECT id FROM visits ;\n").unwrap().query().digest(), query.digest());
    assert!(message(nowhere.query("DROP TABLE visits")).contains("only data that are read"));
}
