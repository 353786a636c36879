//! Rows of a real PostgreSQL server, from the connection that is tested to the next version by the same query.

use std::net::TcpListener;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::leaving::{no_room, room};
use super::postgres::Postgres;
use super::*;
use crate::error::PartyError;
use crate::keys::{KeyError, Vault};
use crate::link::Outcome as Went;
use crate::view::{AskedQuery, AuditQuery, FileReading, NewDatabase, ScanProfile};

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

/// What the newest entry of this action says.
async fn last(world: &World, action: &str) -> String {
    let query = AuditQuery { limit: 1, actions: vec![action.to_owned()], ..AuditQuery::default() };
    world.handle.audit(world.who("ana"), query).await.unwrap().entries.remove(0).detail
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

fn password() -> Passphrase {
    Passphrase::from(PASSWORD.to_owned())
}

/// A server with a role that reads, and a site with its people.
async fn served(folder: &Path, table: &str) -> (Postgres, u16, World) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Postgres::start_on(Some(port));
    run(port, table).await;
    run(port, &format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON visits TO reader")).await;
    (server, port, site(folder).await)
}

async fn site(folder: &Path) -> World {
    let mut world = World::create_with(folder, |_| ()).await;
    world.staff().await;
    world.set_policy(&Policy::public_data()).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_registered_read_again_and_its_password_is_nowhere_in_clear() {
    let temporary = tempfile::tempdir().unwrap();
    let table = "CREATE TABLE visits (n int); INSERT INTO visits SELECT * FROM generate_series(1, 200);";
    let (_server, port, world) = served(temporary.path(), table).await;
    let sam = world.who("sam").clone();
    let handle = world.handle.clone();

    // Another role may not, and another machine may not go without proof.
    let denied = handle.add_database(world.who("ana"), place(port), password()).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })));
    for (host, part) in [("db.clinic.example", "unverified"), ("/var/run/postgresql", "host"), ("a b", "host")] {
        let elsewhere = NewDatabase { host: host.into(), ..place(port) };
        let refused = handle.add_database(&sam, elsewhere, password()).await.unwrap_err();
        assert!(matches!(refused, PartyError::Input { place, .. } if place == part), "{host}: {refused}");
    }
    // Nothing is kept of a test that failed.
    let nowhere = NewDatabase { database: "nowhere".into(), ..place(port) };
    let test = handle.add_database(&sam, nowhere, password()).await.unwrap();
    assert_eq!(test.steps.iter().map(|s| s.outcome).collect::<Vec<_>>(), [Went::Good, Went::Failed, Went::Skipped]);
    assert!(test.known.is_none() && handle.databases(&sam).await.unwrap().is_empty());

    let test = handle.add_database(&sam, place(port), password()).await.unwrap();
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

    // One look, two versions and a try of another query, each entered before.
    assert_eq!(world.entered("database_queried", "success").await, 4);
    let log = log(&world).await.join("\n");
    let exported = temporary.path().join("log.jsonl");
    handle.export_audit_as(world.who("ana"), None, AuditFormat::JsonLines, exported.clone()).await.unwrap();
    let exported = std::fs::read_to_string(exported).unwrap();
    let digest = first.query.unwrap().digest.to_string();
    let words = format!("PostgreSQL database postgres on 127.0.0.1:{port}, as reader");
    for text in [&log, &exported] {
        assert!(text.contains(&words) && text.contains(&digest), "{text}");
        // What it says may name a patient, and is in the document of what it gave.
        assert!(!text.contains("FROM visits") && !text.contains(PASSWORD), "{text}");
    }
    assert!(log.contains(&format!("the query {digest} in the database 'Warehouse' ({words}), to see what is in")));
    assert_eq!(holding(temporary.path()), Vec::<PathBuf>::new());
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert_eq!(vault.read(&format!("database/{id}")).await.unwrap().as_slice(), PASSWORD.as_bytes());

    handle.forget_database(&sam, id).await.unwrap();
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert!(matches!(vault.read(&format!("database/{id}")).await, Err(KeyError::Missing { .. })));
    let refused = handle.read_again(&sam, next.id).await.unwrap_err().to_string();
    assert!(refused.contains("not known here"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_try_is_entered_and_no_password_is_kept_of_what_is_not_known() {
    let temporary = tempfile::tempdir().unwrap();
    let table = "CREATE TABLE visits (n int); INSERT INTO visits SELECT * FROM generate_series(1, 20);";
    let (_server, port, world) = served(temporary.path(), table).await;
    let (sam, handle) = (world.who("sam").clone(), world.handle.clone());
    let add = |database: NewDatabase| handle.add_database(&sam, database, password());
    let known = || handle.databases(&sam);

    // A superuser is refused, and the try entered with the reason.
    let test = add(NewDatabase { user: "postgres".into(), ..place(port) }).await.unwrap();
    let went: Vec<_> = test.steps.iter().map(|step| step.outcome).collect();
    assert_eq!((went, test.known), (vec![Went::Good, Went::Good, Went::Failed], None));
    let told = last(&world, "database_tried").await;
    assert!(told.contains("the test failed at 'rights': The role postgres is a superuser"), "{told}");
    assert_eq!(world.entered("database_tried", "failed").await, 1);

    // Where its password cannot be kept, no database is known, and none lost that was.
    let blocked = temporary.path().join("secrets.part");
    std::fs::create_dir(&blocked).unwrap();
    assert!(matches!(add(place(port)).await, Err(PartyError::Keys(KeyError::File { .. }))));
    assert!(known().await.unwrap().is_empty());
    let told = last(&world, "settings_changed").await;
    assert!(told.contains("is not known here after all") && !told.contains(PASSWORD), "{told}");
    std::fs::remove_dir(&blocked).unwrap();
    let one = add(place(port)).await.unwrap().known.unwrap();
    std::fs::create_dir(&blocked).unwrap();
    let slower = || NewDatabase { timeout_s: Some(60), ..place(port) };
    assert!(add(slower()).await.is_err());
    assert_eq!(known().await.unwrap(), std::slice::from_ref(&one));
    assert!(handle.test_database(&sam, one.id).await.unwrap().iter().all(|step| step.outcome != Went::Failed));
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(world.entered("settings_changed", "failed").await, 2);

    // One that takes the place of another has a secret of its own.
    let two = add(slower()).await.unwrap().known.unwrap();
    assert_eq!(known().await.unwrap(), std::slice::from_ref(&two));
    let vault = Vault::open(world.config.secrets.clone()).await.unwrap();
    assert!(vault.find(&format!("database/{}", one.id)).await.unwrap().is_none());
    assert_eq!(vault.read(&format!("database/{}", two.id)).await.unwrap().as_slice(), PASSWORD.as_bytes());
    assert_eq!(world.entered("database_tried", "success").await, 5);

    // A role that became more than it was reads nothing, and its test says so.
    run(port, "ALTER ROLE reader SUPERUSER").await;
    let reading = FileReading {
        query: Some(AskedQuery { database: Some(two.id), text: QUERY.into() }),
        ..FileReading::default()
    };
    let refused = handle.survey(&sam, PathBuf::new(), reading).await.unwrap_err().to_string();
    assert!(refused.contains("the role reader is a superuser") && refused.contains("CREATE ROLE"), "{refused}");
    assert_eq!(handle.test_database(&sam, two.id).await.unwrap()[2].outcome, Went::Failed);
    assert_eq!(world.entered("database_tried", "failed").await, 2);

    // What cannot be entered is not told, and nothing is kept of it.
    handle.ask(no_room).await.unwrap();
    let third = NewDatabase { name: "Third".into(), ..place(port) };
    assert!(matches!(add(third).await, Err(PartyError::DiskFull { .. })));
    assert!(matches!(handle.test_database(&sam, two.id).await, Err(PartyError::DiskFull { .. })));
    handle.ask(room).await.unwrap();
    assert_eq!(known().await.unwrap(), [two]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_again_is_looked_at_as_strictly_as_at_first() {
    let temporary = tempfile::tempdir().unwrap();
    let table = "CREATE TABLE visits (n int, age int);
                 INSERT INTO visits SELECT n, 40 + n % 30 FROM generate_series(1, 200) AS n";
    let (_server, port, world) = served(temporary.path(), table).await;
    let (sam, handle) = (world.who("sam").clone(), world.handle.clone());
    let id = handle.add_database(&sam, place(port), password()).await.unwrap().known.unwrap().id;
    let text = "SELECT 'P' || n AS id, age, n / 4.0 AS dose FROM visits ORDER BY n".to_owned();
    let query = AskedQuery { database: Some(id), text };
    let strict = NewDataset { scan: ScanProfile::HipaaSafeHarbor, ..dataset(query) };
    let first = handle.add_dataset(&sam, strict).await.unwrap();
    let masked = |view: &DatasetView| {
        let masked = view.columns.iter().filter(|column| column.masked);
        masked.map(|column| column.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(masked(&first), Vec::<String>::new());
    // Somebody over 89 came, whose age the usual scan would let through: at the next reading, and at the one after it.
    run(port, "INSERT INTO visits VALUES (300, 95)").await;
    world.pass_time(1_000);
    let next = handle.read_again(&sam, first.id).await.unwrap();
    assert_eq!((next.rows, next.version, masked(&next)), (201, 2, vec!["age".to_owned()]));
    world.pass_time(1_000);
    let last = handle.read_again(&sam, next.id).await.unwrap();
    assert_eq!((last.version, masked(&last)), (3, vec!["age".to_owned()]));
    let entries = log(&world).await;
    assert_eq!(entries.iter().filter(|words| words.contains("rules of HIPAA safe harbor")).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_of_a_query_is_read_before_the_log_has_it() {
    let temporary = tempfile::tempdir().unwrap();
    let world = site(temporary.path()).await;
    let path = temporary.path().join("ward.sqlite");
    let mut file = SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
    let rows = "CREATE TABLE visits (id TEXT, age INT);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
                INSERT INTO visits SELECT 'P' || i, 40 + i % 30 FROM n";
    sqlx::raw_sql(rows).execute(&mut file).await.unwrap();
    file.close().await.unwrap();
    let asked = |text: &str| AskedQuery { database: None, text: text.to_owned() };
    let look = |text: &str| {
        let reading = FileReading { query: Some(asked(text)), ..FileReading::default() };
        world.handle.survey(world.who("sam"), path.clone(), reading)
    };
    let new = || NewDataset { path: path.clone(), ..dataset(asked("SELECT id, age FROM visits")) };
    let add = || world.handle.add_dataset(world.who("sam"), new());

    // Whoever asks about one person again and again is seen, and the person is not in the log.
    let about = "SELECT id, age FROM visits WHERE id = 'P7'";
    for _ in 0..3 {
        assert_eq!(look(about).await.unwrap().rows, 1);
    }
    let digest = Digest::of(about.as_bytes());
    let told = format!("the query {digest} in a file of SQLite, to see what is in its rows");
    assert_eq!(log(&world).await.iter().filter(|words| **words == told).count(), 3);
    // What is no query is not asked, and what is asked is entered also where it fails.
    assert!(look("DROP TABLE visits").await.is_err());
    assert_eq!(world.entered("database_queried", "success").await, 3);
    assert!(look("SELECT nowhere FROM visits").await.is_err());
    assert_eq!(world.entered("database_queried", "success").await, 4);
    let first = add().await.unwrap();

    world.handle.ask(no_room).await.unwrap();
    let refused = [look(about).await.map(drop), add().await.map(drop)];
    for refused in refused {
        assert!(matches!(refused, Err(PartyError::DiskFull { step: "enter a query" })), "{refused:?}");
    }
    world.handle.ask(room).await.unwrap();
    assert_eq!(world.entered("database_queried", "success").await, 5);
    // The next version's entry names the version before.
    world.pass_time(1_000);
    add().await.unwrap();
    let of_first = AuditQuery { dataset: Some(first.id), limit: 10, ..AuditQuery::default() };
    let page = world.handle.audit(world.who("ana"), of_first).await.unwrap();
    assert_eq!(page.entries.iter().filter(|entry| entry.action == "database_queried").count(), 1);
}
