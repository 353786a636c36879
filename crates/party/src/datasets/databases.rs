//! Databases that are known here: where they are and who asks. What a data steward chooses is a name; the password is typed
//! once, tried, and kept with the site's other secrets. No view, log or ledger entry has it.

use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_cohort::source::sql::{self, Password, Server, TIMEOUT_S, TIMEOUTS_S, Transport, Trial, Went};
use hospes_ledger::Action;
use hospes_protocol::id::{DatabaseId, DatasetId};
use hospes_protocol::text::{check_name, shown};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;
use zeroize::Zeroizing;

use super::{DATA_KEY, STEWARD, seal, unseal};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::{Handle, in_background};
use crate::keys::{KeyError, random};
use crate::link::{self, Outcome, Step};
use crate::people::{Acting, Passphrase, Session};
use crate::store::{At as _, Tx};
use crate::view::{AskedQuery, DatabaseTest, DatabaseView, DatasetView, NewDatabase, NewDataset, Notice};

/// Name of the sealed list.
const LIST: &str = "databases";
/// Most databases.
const DATABASES: usize = 100;
/// Most characters of a host, a database and a role.
const PART_CHARS: usize = 253;
/// Port of PostgreSQL.
const PORT: u16 = 5432;
/// What it is called where a role is refused.
const CONNECT: &str = "connect a database";
/// Steps of a test, in order.
const STEPS: [&str; 3] = ["tcp", "login", "rights"];

/// A database that is known.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    id: DatabaseId,
    name: String,
    server: Server,
    timeout_s: u32,
}

impl Known {
    fn view(&self) -> DatabaseView {
        let Server { host, port, database, user, transport, .. } = self.server.clone();
        let unverified = transport == Transport::Local;
        DatabaseView {
            id: self.id,
            name: self.name.clone(),
            host,
            port,
            database,
            user,
            unverified,
            timeout_s: self.timeout_s,
        }
    }

    /// The database in words, for the log.
    fn words(&self) -> String {
        format!("the database '{}' ({})", self.name, self.server.words())
    }
}

/// Name of the secret that is a database's password.
fn secret(id: DatabaseId) -> String {
    format!("database/{id}")
}

/// A database to be tested, and to be kept if the test goes well.
pub(crate) struct DatabaseOrder {
    acting: Acting,
    known: Known,
    extra_ca: Option<PathBuf>,
    password: Passphrase,
}

/// A database that was tested.
pub(crate) struct TestedDatabase {
    acting: Acting,
    known: Known,
    password: Passphrase,
    steps: Vec<Step>,
}

impl DatabaseOrder {
    /// Tests it; it blocks.
    pub(crate) fn run(self) -> Result<TestedDatabase, PartyError> {
        let Self { acting, mut known, extra_ca, password } = self;
        if let Some(path) = extra_ca {
            let wrong = |error: link::LinkError| PartyError::input("extra_ca", error.to_string());
            let pem = link::read_certificates(&path).map_err(wrong)?;
            link::authorities(&pem).map_err(wrong)?;
            known.server.ca = Some(pem);
        }
        let steps = steps(sql::trial(&known.server, &typed(&password)?)?);
        Ok(TestedDatabase { acting, known, password, steps })
    }
}

impl TestedDatabase {
    /// The first step that went so.
    fn step(&self, outcome: Outcome) -> Option<&Step> {
        self.steps.iter().find(|step| step.outcome == outcome)
    }
}

fn typed(password: &Passphrase) -> Result<Password, PartyError> {
    let text = std::str::from_utf8(password.bytes()).map_err(|_| PartyError::input("password", "it is no text"))?;
    Ok(Password::new(Zeroizing::new(text.to_owned())))
}

/// A test as it is shown: what comes after the step that failed was not tried.
fn steps(trials: Vec<Trial>) -> Vec<Step> {
    let mut steps: Vec<Step> = trials
        .into_iter()
        .map(|Trial { test, went, finding }| {
            let outcome = match went {
                Went::Well => Outcome::Good,
                Went::Notice => Outcome::Notice,
                Went::Failed => Outcome::Failed,
            };
            Step { test: test.to_owned(), outcome, finding, request: None }
        })
        .collect();
    for test in STEPS.into_iter().skip(steps.len()) {
        let finding = "Not tested, since a step before it failed.".to_owned();
        steps.push(Step { test: test.to_owned(), outcome: Outcome::Skipped, finding, request: None });
    }
    steps
}

/// Reads what a person typed, or says which part cannot be.
fn server(new: &NewDatabase) -> Result<Server, PartyError> {
    check_name(&new.name).map_err(|reason| PartyError::input("name", reason))?;
    for (place, text) in [("host", &new.host), ("database", &new.database), ("user", &new.user)] {
        check_name(text).map_err(|reason| PartyError::input(place, reason))?;
        if text.chars().count() > PART_CHARS {
            return Err(PartyError::input(place, format!("it has more than {PART_CHARS} characters")));
        }
    }
    // A folder would be a path that nobody chose, and all else is no name of a host.
    if !new.host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)) {
        let reason = "a host is a name such as db.clinic.example, or an address; without protocol, user and port";
        return Err(PartyError::input("host", reason));
    }
    let transport = if new.unverified { Transport::Local } else { Transport::Verified };
    let (host, database, user) = (new.host.clone(), new.database.clone(), new.user.clone());
    let server = Server { host, port: new.port.unwrap_or(PORT), database, user, transport, ca: None };
    if new.unverified && !server.is_local() {
        let reason = "only a server on this machine (localhost) may go without proof of who it is: on the way to any other \
                      one, whoever stands between could read patients' data. Give the server a certificate for its host \
                      name (sslmode=verify-full), and choose the CA's certificate here if it is the hospital's own";
        return Err(PartyError::input("unverified", reason));
    }
    Ok(server)
}

impl Handle {
    /// Registers a further version of a dataset whose rows a query on a server gave: by the same query, read as the version
    /// before (data steward).
    ///
    /// # Errors
    /// [`PartyError::State`] for a dataset from a file, or of a database that is not known any more; otherwise as
    /// [`Handle::add_dataset`].
    pub async fn read_again(&self, session: &Session, dataset: DatasetId) -> Result<DatasetView, PartyError> {
        let s = session.clone();
        let next = self.ask(move |e| e.next_version(s, dataset).boxed()).await?;
        self.add_dataset(session, next).await
    }

    /// Databases that rows can be read from (data steward).
    ///
    /// # Errors
    /// [`PartyError::Denied`].
    pub async fn databases(&self, session: &Session) -> Result<Vec<DatabaseView>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.databases(s).boxed()).await
    }

    /// Tests a database step by step and keeps it, with its password, if no step fails (data steward).
    ///
    /// # Errors
    /// [`PartyError::Input`] for a place that cannot be, or one that may not go without proof of who it is.
    pub async fn add_database(
        &self,
        session: &Session,
        database: NewDatabase,
        password: Passphrase,
    ) -> Result<DatabaseTest, PartyError> {
        let s = session.clone();
        let order = self.ask(move |e| e.database_order(s, database, password).boxed()).await?;
        let tested = in_background(move || order.run()).await?;
        self.ask(move |e| e.keep_database(tested).boxed()).await
    }

    /// Tests a known database step by step (data steward).
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn test_database(&self, session: &Session, database: DatabaseId) -> Result<Vec<Step>, PartyError> {
        let s = session.clone();
        let order = self.ask(move |e| e.database_again(s, database).boxed()).await?;
        let tested = in_background(move || order.run()).await?;
        self.ask(move |e| e.note_database(tested).boxed()).await
    }

    /// Forgets a database and its password; datasets stay (data steward).
    ///
    /// # Errors
    /// [`PartyError::NotFound`].
    pub async fn forget_database(&self, session: &Session, database: DatabaseId) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |e| e.forget_database(s, database).boxed()).await
    }
}

impl Engine {
    async fn known(&self, conn: &mut SqliteConnection) -> Result<Vec<Known>, PartyError> {
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM sealed WHERE name = ?1")
            .bind(LIST)
            .fetch_optional(conn)
            .await
            .at("read the databases")?;
        let Some(sealed) = sealed else { return Ok(Vec::new()) };
        let plain = unseal(&*self.secret32(DATA_KEY).await?, LIST.as_bytes(), &sealed)?;
        serde_json::from_slice(&plain).map_err(|_| crate::store::bad_column("databases"))
    }

    async fn set_known(&self, tx: &mut Tx, mut known: Vec<Known>) -> Result<(), PartyError> {
        let step = tx.step();
        known.sort_by(|a, b| a.name.cmp(&b.name));
        let plain = Zeroizing::new(crate::store::to_json(&known));
        let sealed = seal(&*self.secret32(DATA_KEY).await?, LIST.as_bytes(), plain.as_bytes())?;
        sqlx::query("INSERT INTO sealed (name, bytes) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET bytes = ?2")
            .bind(LIST)
            .bind(sealed)
            .execute(tx.conn())
            .await
            .at(step)?;
        Ok(())
    }

    /// Names of the secrets that are databases' passwords.
    pub(crate) async fn database_secrets(&self, conn: &mut SqliteConnection) -> Result<Vec<String>, PartyError> {
        Ok(self.known(conn).await?.iter().map(|known| secret(known.id)).collect())
    }

    pub(crate) async fn databases(&mut self, session: Session) -> Result<Vec<DatabaseView>, PartyError> {
        self.inside(&session, "see databases", STEWARD).await?;
        let mut conn = self.reader().await?;
        Ok(self.known(&mut conn).await?.iter().map(Known::view).collect())
    }

    pub(crate) async fn database_order(
        &mut self,
        session: Session,
        new: NewDatabase,
        password: Passphrase,
    ) -> Result<DatabaseOrder, PartyError> {
        let acting = self.inside(&session, CONNECT, STEWARD).await?;
        let server = server(&new)?;
        let timeout_s = new.timeout_s.unwrap_or(TIMEOUT_S);
        if !TIMEOUTS_S.contains(&timeout_s) {
            let words = format!("a statement may take {} to {} seconds", TIMEOUTS_S.start(), TIMEOUTS_S.end());
            return Err(PartyError::input("timeout_s", words));
        }
        let mut conn = self.reader().await?;
        let all = self.known(&mut conn).await?;
        if all.len() >= DATABASES && !all.iter().any(|known| known.name == new.name) {
            return Err(PartyError::state(format!("{DATABASES} databases are known, which are the most; forget one")));
        }
        // One of its own, also in the place of another: the password of one place never goes to another one.
        let id = DatabaseId::new(self.now(), random()?);
        let known = Known { id, name: new.name, server, timeout_s };
        Ok(DatabaseOrder { acting, known, extra_ca: new.extra_ca, password })
    }

    /// Enters that a database was tried, however that went, and gives the steps.
    pub(crate) async fn note_database(&mut self, tested: TestedDatabase) -> Result<Vec<Step>, PartyError> {
        self.enter_trial(&tested).await?;
        Ok(tested.steps)
    }

    async fn enter_trial(&self, tested: &TestedDatabase) -> Result<(), PartyError> {
        let database = tested.known.words();
        let entry = self.entry(tested.acting.actor(), Action::DatabaseTried);
        let entry = match (tested.step(Outcome::Failed), tested.step(Outcome::Notice)) {
            (Some(Step { test, finding, .. }), _) => {
                entry.failed(format!("{database}: the test failed at '{test}': {finding}"))
            }
            (None, Some(Step { finding, .. })) => {
                entry.because(format!("{database}: no step of the test failed. {finding}"))
            }
            (None, None) => entry.because(format!("{database}: every step of the test went well")),
        };
        self.record("note a database that was tried", &entry).await
    }

    pub(crate) async fn keep_database(&mut self, tested: TestedDatabase) -> Result<DatabaseTest, PartyError> {
        self.enter_trial(&tested).await?;
        if tested.step(Outcome::Failed).is_some() {
            return Ok(DatabaseTest { steps: tested.steps, known: None });
        }
        let acting = self.inside_still(tested.acting.person, CONNECT, STEWARD).await?;
        let TestedDatabase { known, password, steps, .. } = tested;
        let mut tx = self.store.begin("keep a database").await?;
        let mut all = self.known(tx.conn()).await?;
        let before = all.iter().find(|other| other.name == known.name).cloned();
        all.retain(|other| other.name != known.name);
        all.push(known.clone());
        self.set_known(&mut tx, all).await?;
        let words = match &before {
            None => format!("{} is known here", known.words()),
            Some(before) => format!("{} is known here, in the place of {}", known.words(), before.server.words()),
        };
        let entry = self.entry(acting.actor(), Action::SettingsChanged).because(words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        // After the commit: no password lies here of which the log says nothing.
        let kept = self.vault.keep(&secret(known.id), Zeroizing::new(password.bytes().to_vec())).await;
        if let Err(error) = kept {
            self.take_back(&acting, &known, before, &error).await?;
            return Err(error.into());
        }
        // Nothing names the one before any more, so that it does no harm where it cannot be destroyed.
        if let Some(before) = before
            && let Err(error) = self.vault.destroy(&secret(before.id)).await
        {
            tracing::warn!(%error, "the password that a database had before could not be destroyed");
        }
        self.notify(Notice::Datasets);
        Ok(DatabaseTest { steps, known: Some(known.view()) })
    }

    /// Forgets a database whose password could not be kept, and knows the one again that was there before.
    async fn take_back(
        &self,
        acting: &Acting,
        known: &Known,
        before: Option<Known>,
        why: &KeyError,
    ) -> Result<(), PartyError> {
        let mut tx = self.store.begin("take a database back").await?;
        let mut all = self.known(tx.conn()).await?;
        all.retain(|other| other.id != known.id);
        all.extend(before);
        self.set_known(&mut tx, all).await?;
        let words = format!("{} is not known here after all: its password could not be kept: {why}", known.words());
        let entry = self.entry(acting.actor(), Action::SettingsChanged).failed(words);
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Datasets);
        Ok(())
    }

    pub(crate) async fn database_again(
        &mut self,
        session: Session,
        database: DatabaseId,
    ) -> Result<DatabaseOrder, PartyError> {
        let acting = self.inside(&session, "test a database", STEWARD).await?;
        let mut conn = self.reader().await?;
        let known = self.known_by(&mut conn, database).await?;
        let password = self.password(database).await?;
        Ok(DatabaseOrder { acting, known, extra_ca: None, password })
    }

    pub(crate) async fn forget_database(&mut self, session: Session, database: DatabaseId) -> Result<(), PartyError> {
        let acting = self.acting(&session, "forget a database", STEWARD).await?;
        let mut tx = self.store.begin("forget a database").await?;
        let known = self.known_by(tx.conn(), database).await?;
        let mut all = self.known(tx.conn()).await?;
        all.retain(|other| other.id != database);
        self.set_known(&mut tx, all).await?;
        let words = format!("{} is forgotten, and its password", known.words());
        let entry = self.entry(acting.actor(), Action::SettingsChanged).because(words);
        self.append(&mut tx, &entry).await?;
        self.vault.destroy(&secret(database)).await?;
        tx.commit().await?;
        self.notify(Notice::Datasets);
        Ok(())
    }

    async fn known_by(&self, conn: &mut SqliteConnection, id: DatabaseId) -> Result<Known, PartyError> {
        let found = self.known(conn).await?.into_iter().find(|known| known.id == id);
        found.ok_or_else(|| PartyError::NotFound(format!("database {id}")))
    }

    async fn password(&self, database: DatabaseId) -> Result<Passphrase, PartyError> {
        let kept = self.vault.find(&secret(database)).await?.ok_or_else(|| {
            PartyError::state("the password of this database is not here; connect the database again, and type it")
        })?;
        let text = std::str::from_utf8(&kept).map_err(|_| crate::store::bad_column("password"))?;
        Ok(Passphrase::from(text.to_owned()))
    }

    /// A known database with its password, what people here call it, and how long a statement may take.
    pub(super) async fn server_of(&self, id: DatabaseId) -> Result<(sql::Database, String, u32), PartyError> {
        let mut conn = self.reader().await?;
        let known = self.known_by(&mut conn, id).await?;
        let password = typed(&self.password(id).await?)?;
        let (named, timeout_s) = (known.words(), known.timeout_s);
        Ok((sql::Database::Server(Box::new(known.server), password), named, timeout_s))
    }

    /// A further version of a dataset by the same query, read as the version before.
    pub(crate) async fn next_version(
        &mut self,
        session: Session,
        dataset: DatasetId,
    ) -> Result<NewDataset, PartyError> {
        self.acting(&session, "register a dataset", STEWARD).await?;
        let mut conn = self.reader().await?;
        let former = super::by_id(&mut conn, dataset).await?;
        if former.is_removed {
            return Err(PartyError::NotFound(format!("dataset {dataset}")));
        }
        let document = &former.document;
        let Some(query) = &document.format.query else {
            return Err(PartyError::state("this dataset came from a file; choose the new file in its place"));
        };
        let known = self.known(&mut conn).await?.into_iter().find(|known| known.server.words() == query.database);
        let Some(known) = known else {
            let database = shown(&query.database, 300);
            let words =
                format!("{database}: it is not known here (any more); connect it, or choose the file of SQLite again");
            return Err(PartyError::state(words));
        };
        let others = document.schema.columns.iter().filter(|column| column.name != document.schema.subject);
        Ok(NewDataset {
            name: former.name.clone(),
            path: PathBuf::new(),
            query: Some(AskedQuery { database: Some(known.id), text: query.text.clone() }),
            sheet: None,
            missing: Some(document.format.missing.clone()),
            scan: document.format.scan,
            subject: document.schema.subject.clone(),
            kinds: others.map(|column| (column.name.clone(), column.kind)).collect(),
            mask: document.masked.iter().cloned().collect(),
            keep: former
                .identifiers()
                .into_iter()
                .filter(|c| *c != document.schema.subject)
                .map(str::to_owned)
                .collect(),
            public: document.public,
            duo: former.duo.clone(),
        })
    }
}
