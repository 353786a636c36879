//! Rows of a real PostgreSQL server, from the connection that is tested to the next version by the same query.

use std::net::TcpListener;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::postgres::Postgres;
use super::*;
use crate::error::PartyError;
use crate::keys::{KeyError, Vault};
use crate::link::Outcome as Went;
use crate::view::{AskedQuery, AuditQuery, FileReading, NewDatabase};

/// Stands in no file by chance.
const PASSWORD: &str = "hush-4b1d-never-told";
const QUERY: &str = "SELECT 'P' || n AS id, n % 90 AS age, n / 4.0 AS dose FROM visits ORDER BY n";

async fn run(port: u16, statements: &str) {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("postgres")
        .database("postgres")
        .ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let mut connection: PgConnection = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn place(port: u16) -> NewDatabase {
    NewDatabase {
        name: "Warehouse".into(),
        host: "127.0.0.1".into(),
        port: Some(port),
        database: "postgres".into(),
        user: "reader".into(),
        unverified: true,
        extra_ca: None,
        timeout_s: Some(30),
    }
}

fn dataset(query: AskedQuery) -> NewDataset {
    NewDataset {
        name: "Visits".into(),
        path: PathBuf::new(),
        query: Some(query),
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: true,
        duo: vec!["DUO:0000042".into()],
    }
}

async fn log(world: &World) -> Vec<String> {
    let query = AuditQuery { limit: 200, ..AuditQuery::default() };
    let page = world.handle.audit(world.who("ana"), query).await.unwrap();
    page.entries.into_iter().rev().map(|entry| entry.detail).collect()
}

/// Files under a folder that hold the password.
fn holding(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path));
        } else if std::fs::read(&path).unwrap_or_default().windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_registered_read_again_and_its_password_is_nowhere_in_clear() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _server = Postgres::start_on(Some(port));
    run(port, "CREATE TABLE visits (n int); INSERT INTO visits SELECT * FROM generate_series(1, 200);").await;
    run(port, &format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON visits TO reader")).await;
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_with(temporary.path(), |_| ()).await;
    world.staff().await;
    world.set_policy(&Policy::public_data()).await;
    let sam = world.who("sam").clone();
    let handle = world.handle.clone();

    // Another role may not, and another machine may not go without proof.
    let denied = handle.add_database(world.who("ana"), place(port), Passphrase::from(PASSWORD.to_owned())).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })));
    for (host, part) in [("db.clinic.example", "unverified"), ("/var/run/postgresql", "host"), ("a b", "host")] {
        let elsewhere = NewDatabase { host: host.into(), ..place(port) };
        let refused = handle.add_database(&sam, elsewhere, Passphrase::from(PASSWORD.to_owned())).await.unwrap_err();
        assert!(matches!(refused, PartyError::Input { place, .. } if place == part), "{host}: {refused}");
    }
    // Nothing is kept of a test that failed.
    let nowhere = NewDatabase { database: "nowhere".into(), ..place(port) };
    let test = handle.add_database(&sam, nowhere, Passphrase::from(PASSWORD.to_owned())).await.unwrap();
    assert_eq!(test.steps.iter().map(|s| s.outcome).collect::<Vec<_>>(), [Went::Good, Went::Failed, Went::Skipped]);
    assert!(test.known.is_none() && handle.databases(&sam).await.unwrap().is_empty());

    let test = handle.add_database(&sam, place(port), Passphrase::from(PASSWORD.to_owned())).await.unwrap();
    let id = test.known.unwrap().id;
    assert!(handle.test_database(&sam, id).await.unwrap().iter().all(|step| step.outcome != Went::Failed));
    let query = AskedQuery { database: Some(id), text: QUERY.into() };
    let reading = FileReading { query: Some(query.clone()), ..FileReading::default() };
    let survey = handle.survey(&sam, "/etc/passwd".into(), reading).await.unwrap();
    assert_eq!((survey.rows, survey.columns.len(), survey.format.as_str()), (200, 3, "a query in PostgreSQL"));
    let first = handle.add_dataset(&sam, dataset(query.clone())).await.unwrap();
    assert_eq!((first.rows, first.version), (200, 1));
    assert_eq!(first.query.as_ref().map(|q| (q.text.as_str(), q.on_server)), Some((QUERY, true)));

    // The same query later; another one is no version of it.
    run(port, "INSERT INTO visits SELECT * FROM generate_series(201, 260)").await;
    world.pass_time(1_000);
    let next = handle.read_again(&sam, first.id).await.unwrap();
    assert_eq!((next.rows, next.version, next.former), (260, 2, Some(first.id)));
    assert_eq!((next.name.as_str(), &next.duo), ("Visits", &first.duo));
    let other = AskedQuery { text: format!("{QUERY} LIMIT 100"), ..query.clone() };
    let refused = handle.add_dataset(&sam, dataset(other)).await.unwrap_err().to_string();
    assert!(refused.contains("another query"), "{refused}");

    let log = log(&world).await.join("\n");
    let digest = first.query.unwrap().digest.to_string();
    let words = format!("PostgreSQL database postgres on 127.0.0.1:{port}, as reader");
    for told in [words.as_str(), digest.as_str(), "FROM visits ORDER BY n"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(!log.contains(PASSWORD));
    assert_eq!(holding(temporary.path()), Vec::<PathBuf>::new());
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert_eq!(vault.read(&format!("database/{id}")).await.unwrap().as_slice(), PASSWORD.as_bytes());

    handle.forget_database(&sam, id).await.unwrap();
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert!(matches!(vault.read(&format!("database/{id}")).await, Err(KeyError::Missing { .. })));
    let refused = handle.read_again(&sam, next.id).await.unwrap_err().to_string();
    assert!(refused.contains("not known here"), "{refused}");
}
