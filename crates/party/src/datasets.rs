//! Registered data: frozen snapshots, their keys, the site's one opt-out list.
//!
//! Files are read by `hospes-cohort` outside the loop that owns the state; what comes back here are counts, names and
//! sealed bytes.

mod asked;
mod databases;
mod markers;
pub(crate) mod readings;
mod removal;
mod series;
mod uses;

use std::collections::BTreeSet;
use std::path::PathBuf;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hospes_cohort::opt_out::{OptOuts, SubjectKey};
use hospes_cohort::pool::Members;
use hospes_cohort::profile::{Profile, profile};
use hospes_cohort::scan::{Finding, ScanProfile};
use hospes_cohort::schema::ColumnKind;
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotDocument, SnapshotKey, freeze_followed};
use hospes_cohort::source::sql::Query;
use hospes_cohort::source::{self, ColumnSurvey, Hints, Limits, Reading, SourceKind, Survey, survey};
use hospes_ledger::{Action, Change, ObjectKind};
use hospes_protocol::approval::{Role, SnapshotFacts, VersionFacts};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{DatasetId, Digest, Timestamp};
use hospes_protocol::memo;
use hospes_protocol::policy::{Disclosure, LocalViews};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use zeroize::{Zeroize as _, Zeroizing};

use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::keys::{KeyError, random};
use crate::names::Known;
use crate::people::Session;
use crate::pools;
use crate::store::{At as _, Tx, from_json, parse, signed, to_json, unsigned};
use crate::view::{
    ColumnView, DatasetView, FileReading, GapView, NameOf, NewDataset, Notice, OptOutReport, ProfileView, QueryView,
    SurveyView,
};

use asked::{Purpose, RowSource};
pub(crate) use markers::words as marker_words;
use readings::unread;
use series::Successor;
pub(crate) use series::{difference, newest, newest_of};

/// Name of the secret that seals what the database holds of patients.
pub(crate) const DATA_KEY: &str = "data-key";
/// Name of the secret under which subject keys are hashed.
pub(crate) const SUBJECT_KEY: &str = "subject-key";

const STEWARD: &[Role] = &[Role::DataSteward];
/// Who sees figures of the site's own data in full.
pub(crate) const VIEWERS: &[Role] = &[Role::DataSteward, Role::DataAccessApprover, Role::PrivacyOfficer];

/// A dataset as the database has it.
pub(crate) struct Dataset {
    pub(crate) id: DatasetId,
    pub(crate) name: String,
    pub(crate) document: Canonical<SnapshotDocument>,
    pub(crate) subjects_left: u64,
    pub(crate) duo: Vec<String>,
    /// The series that it belongs to, by the id of its first version, also where that was removed. Its versions are one pool
    /// of subjects.
    pub(crate) series: DatasetId,
    /// Counts the versions of a series from 1.
    pub(crate) version: u32,
    /// The version before.
    pub(crate) former: Option<DatasetId>,
    /// The account of its subjects in the privacy ledger.
    pub(crate) pool: Option<DatasetId>,
    pub(crate) is_removed: bool,
    sealed_key: Vec<u8>,
    findings: Vec<Finding>,
    at: Timestamp,
}

impl Dataset {
    fn from_row(row: &SqliteRow) -> Result<Self, PartyError> {
        let text = |column: &'static str| row.try_get::<String, _>(column).at("read a dataset");
        let blob = |column: &'static str| row.try_get::<Vec<u8>, _>(column).at("read a dataset");
        let number = |column: &'static str| row.try_get::<i64, _>(column).at("read a dataset");
        let optional = |column: &'static str| -> Result<Option<DatasetId>, PartyError> {
            let id: Option<String> = row.try_get(column).at("read a dataset")?;
            id.map(|id| parse(&id, column)).transpose()
        };
        Ok(Self {
            id: parse(&text("id")?, "id")?,
            name: text("name")?,
            document: memo::parsed(&blob("document")?, Canonical::parse)?,
            subjects_left: unsigned(number("subjects_left")?),
            duo: from_json(&text("duo")?, "duo")?,
            series: parse(&text("series")?, "series")?,
            version: u32::try_from(number("version")?).map_err(|_| crate::store::bad_column("version"))?,
            former: optional("former")?,
            pool: optional("pool")?,
            is_removed: row.try_get::<Option<i64>, _>("removed").at("read a dataset")?.is_some(),
            sealed_key: blob("sealed_key")?,
            findings: from_json(&text("findings")?, "findings")?,
            at: Timestamp::from_millis(number("at")?),
        })
    }

    /// Names of the columns that the snapshot holds.
    pub(crate) fn columns(&self) -> BTreeSet<String> {
        self.document.schema.kept()
    }

    /// Columns of it that the identifier scan would have masked, and the steward kept.
    pub(crate) fn identifiers(&self) -> BTreeSet<&str> {
        let found = self.findings.iter().filter(|f| f.masks).map(|f| f.column.as_str());
        found.filter(|column| self.document.schema.column(column).is_some()).collect()
    }

    /// Whether the data key opens the key of its snapshot.
    pub(crate) fn opens_with(&self, data_key: &[u8; 32]) -> bool {
        unseal(data_key, b"snapshot-key", &self.sealed_key).is_ok_and(|key| key.len() == 32)
    }

    /// What a permit needs to know.
    pub(crate) fn facts(&self) -> Result<SnapshotFacts, PartyError> {
        let (series, version, subjects) = (self.series, self.version, self.document.subjects);
        Ok(SnapshotFacts {
            digest: self.document.digest(),
            columns: self.columns(),
            subjects: self.subjects_left,
            public: self.document.public,
            version: Some(VersionFacts { series, version, form: self.document.form()?, subjects }),
        })
    }

    fn view(&self) -> DatasetView {
        let kept = self.document.schema.columns.iter().map(|c| (c.name.clone(), c.kind, false));
        let masked = self.document.masked.iter().map(|name| (name.clone(), ColumnKind::Text, true));
        DatasetView {
            id: self.id,
            name: self.name.clone(),
            snapshot: self.document.digest(),
            at: self.at,
            rows: self.document.rows,
            subjects: self.document.subjects,
            subjects_left: self.subjects_left,
            columns: kept.chain(masked).map(|(n, k, m)| column_view(n, k, m, &self.findings)).collect(),
            public: self.document.public,
            duo: self.duo.clone(),
            missing: self.document.format.missing.clone(),
            version: self.version,
            former: self.former,
            query: self.document.format.query.as_ref().map(|query| query_view(query, self.document.format.kind)),
        }
    }
}

fn query_view(query: &Query, kind: SourceKind) -> QueryView {
    let (database, text, digest) = (query.database.clone(), query.text.clone(), query.digest());
    QueryView { database, text, digest, on_server: kind == SourceKind::Postgres }
}

fn column_view(name: String, kind: ColumnKind, masked: bool, findings: &[Finding]) -> ColumnView {
    let findings = findings.iter().filter(|f| f.column == name).map(|f| f.reason.clone()).collect();
    ColumnView { name, kind, masked, findings }
}

/// Datasets that are there, the oldest first.
pub(crate) async fn all(conn: &mut SqliteConnection) -> Result<Vec<Dataset>, PartyError> {
    let rows = sqlx::query("SELECT * FROM datasets WHERE removed IS NULL ORDER BY at").fetch_all(conn).await;
    let rows = rows.at("read datasets")?;
    rows.iter().map(Dataset::from_row).collect()
}

/// Names of all datasets, also of those that were removed.
pub(crate) async fn names(conn: &mut SqliteConnection) -> Result<Vec<(String, String)>, PartyError> {
    sqlx::query_as("SELECT id, name FROM datasets").fetch_all(conn).await.at("read datasets")
}

/// A dataset, also one that was removed.
pub(crate) async fn by_id(conn: &mut SqliteConnection, id: DatasetId) -> Result<Dataset, PartyError> {
    let row = sqlx::query("SELECT * FROM datasets WHERE id = ?1").bind(id.to_string()).fetch_optional(conn).await;
    let row = row.at("read a dataset")?.ok_or_else(|| PartyError::NotFound(format!("dataset {id}")))?;
    Dataset::from_row(&row)
}

/// A source to be surveyed, and how.
pub(crate) struct SurveyOrder {
    from: RowSource,
    reading: FileReading,
    followed: Reading,
}

impl SurveyOrder {
    pub(crate) fn sheets(self) -> Result<Vec<String>, PartyError> {
        match self.from {
            RowSource::File(path) => Ok(source::sheets(&path, Limits::default())?),
            RowSource::Query { .. } => Ok(Vec::new()),
        }
    }

    pub(crate) fn run(self) -> Result<SurveyView, PartyError> {
        let FileReading { sheet, missing, scan, query: _ } = self.reading;
        let hints = Hints { sheet, missing, reading: self.followed, ..Hints::default() };
        let opened = self.from.open(&hints.reading)?;
        let found = survey(opened.source(), &hints, scan, Limits::default()).map_err(unread)?;
        let masked = |name: &str| found.findings.iter().any(|f| f.column == name && f.masks);
        let columns = found.columns.iter();
        let names = || found.columns.iter().map(|c| c.name.as_str());
        let mut known = Known::default();
        known.add_all(names());
        Ok(SurveyView {
            marks: known.marks(names().map(|name| (NameOf::Column, name))),
            rows: found.rows,
            format: format_words(&found),
            sheets: found.sheets,
            sheet: found.format.sheet,
            missing: found.format.missing,
            gaps: found.columns.iter().flat_map(gaps).collect(),
            columns: columns.map(|c| column_view(c.name.clone(), c.kind, masked(&c.name), &found.findings)).collect(),
        })
    }
}

/// The cells of a column that are read as missing, and those of which the survey asks whether they are.
fn gaps(column: &ColumnSurvey) -> Vec<GapView> {
    let missing = column.missing.iter().map(|gap| (gap, true));
    let asked = column.suspects.iter().map(|gap| (gap, false));
    let view = |((marker, cells), is_missing): (&(String, u64), bool)| GapView {
        column: column.name.clone(),
        marker: marker.clone(),
        cells: *cells,
        is_missing,
    };
    missing.chain(asked).map(view).collect()
}

fn format_words(found: &Survey) -> String {
    let kind = found.format.kind;
    if !matches!(kind, SourceKind::Delimited | SourceKind::ImageFolder) {
        return kind.name().to_owned();
    }
    let text = format!(
        "{:?} ({}), fields separated by {:?}, numbers with a decimal {:?}",
        found.format.encoding, found.encoding_reason, found.format.delimiter, found.format.decimal
    )
    .to_lowercase();
    if kind == SourceKind::ImageFolder { format!("{}: {text}", kind.name()) } else { text }
}

/// A source to be frozen, with the keys for it.
pub(crate) struct FreezeOrder {
    dataset: NewDataset,
    from: RowSource,
    /// The version that it continues.
    former: Option<Dataset>,
    folder: PathBuf,
    at: Timestamp,
    hist_bins_pct: f64,
    subjects: SubjectKey,
    data_key: Zeroizing<[u8; 32]>,
    opt_outs: OptOuts,
    list: Digest,
    followed: Reading,
}

/// A file that was frozen and is not registered yet.
pub(crate) struct Frozen {
    dataset: NewDataset,
    successor: Option<Successor>,
    snapshot: Snapshot,
    sealed_key: Vec<u8>,
    subjects_left: u64,
    /// Its subjects, for the privacy ledger.
    members: Members,
    /// Digest of the opt-out list with which they were counted.
    list: Digest,
    sealed_profile: Vec<u8>,
    findings: Vec<Finding>,
}

impl FreezeOrder {
    pub(crate) fn run(self) -> Result<Frozen, PartyError> {
        let (subject, sheet) = (Some(self.dataset.subject.clone()), self.dataset.sheet.clone());
        // A version is read as the one before.
        let before = self.former.as_ref().map(|former| former.document.format.missing.clone());
        let missing = self.dataset.missing.clone().or(before);
        let hints = Hints { subject, sheet, missing, reading: self.followed.clone(), ..Hints::default() };
        // Of a query, both passes are in one transaction.
        let opened = self.from.open(&self.followed)?;
        let found = survey(opened.source(), &hints, self.dataset.scan, Limits::default()).map_err(unread)?;
        let mut schema = found.schema(&self.dataset.subject)?;
        for (name, kind) in &self.dataset.kinds {
            schema.set_kind(name, *kind)?;
        }
        for name in &self.dataset.keep {
            schema.set_masked(name, false)?;
        }
        for name in &self.dataset.mask {
            schema.set_masked(name, true)?;
        }
        let mut successor = None;
        if let Some(former) = &self.former {
            series::check_continues(former, &self.dataset, &schema, &found.format)?;
            let version = former.version.saturating_add(1);
            successor = Some(Successor { former: former.id, series: former.series, version });
        }
        let mut raw = random::<32>()?;
        let key = SnapshotKey::from_bytes(raw);
        let sealed_key = seal(&self.data_key, b"snapshot-key", &raw);
        raw.zeroize();
        let order = Freeze {
            source: opened.source(),
            format: &found.format,
            schema: &schema,
            folder: &self.folder,
            public: self.dataset.public,
            at: self.at,
            limits: Limits::default(),
        };
        let followed = (&self.followed, found.rows);
        let snapshot = freeze_followed(order, &key, &self.subjects, followed).map_err(unread)?;
        let profile = profile(&snapshot, &key, self.hist_bins_pct)?;
        let subjects_left = snapshot.count_subjects(&key, &self.opt_outs)?.left();
        let members = snapshot.members(&key, &self.subjects.pool_key())?;
        let text = Zeroizing::new(to_json(&profile));
        let sealed_profile = seal(&self.data_key, b"profile", text.as_bytes())?;
        Ok(Frozen {
            dataset: self.dataset,
            successor,
            snapshot,
            sealed_key: sealed_key?,
            subjects_left,
            members,
            list: self.list,
            sealed_profile,
            findings: found.findings,
        })
    }
}

impl Frozen {
    /// What the log says of it besides the names of dataset and snapshot.
    fn reasons(&self) -> Vec<String> {
        let mut because = Vec::new();
        if let Some(Successor { former, version, .. }) = self.successor {
            because.push(format!("version {version} of the dataset, after {former}"));
        }
        if let Some(query) = &self.snapshot.document.format.query {
            because.push(format!("rows of the query {} in {}", query.digest(), query.database));
        }
        if self.dataset.scan == ScanProfile::HipaaSafeHarbor {
            because.push("identifiers looked for by the rules of HIPAA safe harbor".to_owned());
        }
        if self.dataset.missing.is_some() {
            because.push(format!("read as missing: {}", marker_words(&self.snapshot.document.format.missing)));
        }
        // Last: names of columns may be so many that the log cuts them. They are in the snapshot's document whole, and so is
        // the text of a query, which is not for the log: it may name a patient, and nothing is taken out of the log.
        if !self.dataset.keep.is_empty() {
            let kept = self.dataset.keep.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            because.push(format!("columns kept although the identifier scan would mask them: {kept}"));
        }
        because
    }
}

/// A file of opt-outs to be read, and the snapshots in which to count.
pub(crate) struct OptOutOrder {
    path: PathBuf,
    subjects: SubjectKey,
    list: OptOuts,
    before: Digest,
    snapshots: Vec<(DatasetId, Snapshot, SnapshotKey)>,
}

/// A list with the new opt-outs, and how many subjects are left in each dataset.
pub(crate) struct NewOptOuts {
    list: OptOuts,
    before: Digest,
    left: Vec<(DatasetId, u64)>,
    affected: u64,
}

impl OptOutOrder {
    pub(crate) fn run(mut self) -> Result<NewOptOuts, PartyError> {
        self.list.import(&self.path, &self.subjects)?;
        let (mut left, mut affected) = (Vec::new(), 0);
        for (id, snapshot, key) in &self.snapshots {
            let count = snapshot.count_subjects(key, &self.list)?;
            affected += count.opted_out;
            left.push((*id, count.left()));
        }
        Ok(NewOptOuts { list: self.list, before: self.before, left, affected })
    }
}

/// Seals a few bytes with the data key.
pub(crate) fn seal(key: &[u8; 32], what: &[u8], plain: &[u8]) -> Result<Vec<u8>, PartyError> {
    let nonce: [u8; 24] = random()?;
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: what })
        .map_err(|_| KeyError::Damaged { what: "a value to be sealed".into() })?;
    Ok([nonce.as_slice(), &sealed].concat())
}

pub(crate) fn unseal(key: &[u8; 32], what: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, PartyError> {
    let damaged = || KeyError::Damaged { what: "a sealed value in the database".into() };
    let (nonce, sealed) = sealed.split_first_chunk::<24>().ok_or_else(damaged)?;
    let plain = XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: what })
        .map_err(|_| damaged())?;
    Ok(Zeroizing::new(plain))
}

impl Engine {
    pub(crate) async fn secret32(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, PartyError> {
        let secret = self.vault.read(name).await?;
        let bytes: [u8; 32] =
            secret.as_slice().try_into().map_err(|_| KeyError::Damaged { what: format!("the secret '{name}'") })?;
        Ok(Zeroizing::new(bytes))
    }

    /// The key that opens a dataset's snapshot.
    pub(crate) async fn snapshot_key(&self, dataset: &Dataset) -> Result<SnapshotKey, PartyError> {
        let data_key = self.secret32(DATA_KEY).await?;
        let plain = unseal(&data_key, b"snapshot-key", &dataset.sealed_key)?;
        let bytes = plain.as_slice().try_into().map_err(|_| KeyError::Damaged { what: "a snapshot's key".into() })?;
        Ok(SnapshotKey::from_bytes(bytes))
    }

    /// A dataset's snapshot.
    pub(crate) fn snapshot(&self, dataset: &Dataset) -> Snapshot {
        let path = self.config.snapshots().join(format!("{}.parquet", dataset.document.digest()));
        Snapshot { document: dataset.document.clone(), path }
    }

    /// The site's opt-out list.
    pub(crate) async fn opt_outs(&self, conn: &mut SqliteConnection) -> Result<OptOuts, PartyError> {
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT bytes FROM sealed WHERE name = 'opt-outs'")
            .fetch_optional(conn)
            .await
            .at("read the opt-out list")?;
        let Some(sealed) = sealed else { return Ok(OptOuts::new()) };
        let data_key = self.secret32(DATA_KEY).await?;
        Ok(OptOuts::from_bytes(&unseal(&data_key, b"opt-outs", &sealed)?)?)
    }

    pub(crate) async fn subject_key(&self) -> Result<SubjectKey, PartyError> {
        Ok(SubjectKey::from_bytes(*self.secret32(SUBJECT_KEY).await?))
    }

    pub(crate) async fn survey_order(
        &mut self,
        session: Session,
        path: PathBuf,
        reading: FileReading,
    ) -> Result<SurveyOrder, PartyError> {
        let acting = self.acting(&session, "look into a file of data", STEWARD).await?;
        markers::check(reading.missing.as_deref())?;
        let from = self.row_source(path, reading.query.as_ref()).await?;
        self.enter_query(&acting, &from, Purpose::Survey).await?;
        Ok(SurveyOrder { from, reading, followed: self.readings.begin(acting.person) })
    }

    pub(crate) async fn freeze_order(
        &mut self,
        session: Session,
        mut dataset: NewDataset,
    ) -> Result<FreezeOrder, PartyError> {
        let acting = self.acting(&session, "register a dataset", STEWARD).await?;
        hospes_protocol::text::check_name(&dataset.name).map_err(|r| PartyError::input("name", r))?;
        markers::check(dataset.missing.as_deref())?;
        crate::requests::rules::check_terms(&dataset.duo)?;
        // PRIVACY: whoever knows the key of the hashes finds out whose they are.
        if self.config.known_keys.is_some() && !dataset.public {
            let reason = "the keys of this site are known, as those of a simulation are; it takes public data only";
            return Err(PartyError::input("public", reason));
        }
        let mut conn = self.reader().await?;
        let datasets = all(&mut conn).await?;
        let former = series::former(&datasets, &dataset.name).map(|d| d.id);
        let former = datasets.into_iter().find(|d| Some(d.id) == former);
        if let Some(former) = former.as_ref().filter(|_| dataset.duo.is_empty()) {
            dataset.duo.clone_from(&former.duo);
        }
        let policy = crate::requests::policy::current(&mut conn).await?;
        let opt_outs = self.opt_outs(&mut conn).await?;
        drop(conn);
        let purpose = Purpose::Register(former.as_ref().map(|former| former.id));
        let order = FreezeOrder {
            from: self.row_source(dataset.path.clone(), dataset.query.as_ref()).await?,
            dataset,
            former,
            folder: self.config.snapshots(),
            at: self.now(),
            hist_bins_pct: policy.disclosure.hist_bins_pct,
            subjects: self.subject_key().await?,
            data_key: self.secret32(DATA_KEY).await?,
            list: Digest::of(&opt_outs.to_bytes()),
            opt_outs,
            followed: self.readings.begin(acting.person),
        };
        self.enter_query(&acting, &order.from, purpose).await?;
        Ok(order)
    }

    pub(crate) async fn register(&mut self, session: Session, frozen: Frozen) -> Result<DatasetView, PartyError> {
        let acting = self.acting(&session, "register a dataset", STEWARD).await?;
        let (id, at) = (DatasetId::new(self.now(), random()?), self.now());
        let digest = frozen.snapshot.document.digest();
        let mut tx = self.store.begin("register a dataset").await?;
        if Digest::of(&self.opt_outs(tx.conn()).await?.to_bytes()) != frozen.list {
            // Its file is swept at the next start if it cannot be removed now.
            let _ = std::fs::remove_file(&frozen.snapshot.path);
            return Err(PartyError::state("the opt-out list was changed meanwhile; register the file again"));
        }
        // The name belonged to the version that the file was compared with, or to nobody.
        let holder = series::former(&all(tx.conn()).await?, &frozen.dataset.name).map(|d| d.id);
        if holder != frozen.successor.map(|s| s.former) {
            let _ = std::fs::remove_file(&frozen.snapshot.path);
            return Err(PartyError::state("a dataset of this name was registered meanwhile; register the file again"));
        }
        if let Some(successor) = frozen.successor {
            series::set_aside(tx.conn(), &frozen.dataset.name, successor).await?;
        }
        sqlx::query(
            "INSERT INTO datasets
             (id, name, snapshot, document, sealed_key, subjects_left, profile, findings, duo, at, version, former, series)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )
        .bind(id.to_string())
        .bind(&frozen.dataset.name)
        .bind(digest.to_string())
        .bind(frozen.snapshot.document.bytes())
        .bind(&frozen.sealed_key)
        .bind(signed(frozen.subjects_left))
        .bind(&frozen.sealed_profile)
        .bind(to_json(&frozen.findings))
        .bind(to_json(&frozen.dataset.duo))
        .bind(at.as_millis())
        .bind(frozen.successor.map_or(1, |s| i64::from(s.version)))
        .bind(frozen.successor.map(|s| s.former.to_string()))
        .bind(frozen.successor.map_or(id, |s| s.series).to_string())
        .execute(tx.conn())
        .await
        .at("register a dataset")?;
        let pool = self.join_pool(&mut tx, id, &frozen).await?;
        let mut entry = self
            .entry(acting.actor(), Action::DatasetRegistered)
            .object(ObjectKind::Dataset, id, None)
            .object(ObjectKind::Snapshot, digest, Some(digest))
            .object(ObjectKind::Pool, pool, None);
        if let Some(Successor { former, .. }) = frozen.successor {
            entry = entry.object(ObjectKind::Dataset, former, None);
        }
        let because = frozen.reasons();
        if !because.is_empty() {
            entry = entry.because(because.join("; "));
        }
        self.append(&mut tx, &entry).await?;
        let view = by_id(tx.conn(), id).await?.view();
        tx.commit().await?;
        self.notify(Notice::Datasets);
        Ok(view)
    }

    /// The pool of a dataset that is being registered.
    async fn join_pool(&self, tx: &mut Tx, dataset: DatasetId, frozen: &Frozen) -> Result<DatasetId, PartyError> {
        let former = match frozen.successor {
            Some(successor) => by_id(tx.conn(), successor.former).await?.pool,
            None => None,
        };
        let data_key = self.secret32(DATA_KEY).await?;
        let joining = pools::Joining { dataset, members: &frozen.members, former };
        pools::join(tx, &data_key, joining, self.now()).await
    }

    pub(crate) async fn datasets(&mut self, session: Session) -> Result<Vec<DatasetView>, PartyError> {
        self.inside(&session, "see datasets", &[]).await?;
        let mut conn = self.reader().await?;
        Ok(all(&mut conn).await?.iter().map(Dataset::view).collect())
    }

    pub(crate) async fn profile(&mut self, session: Session, dataset: DatasetId) -> Result<ProfileView, PartyError> {
        self.inside(&session, "see a dataset's profile", VIEWERS).await?;
        let mut conn = self.reader().await?;
        let found = by_id(&mut conn, dataset).await?;
        if found.is_removed {
            return Err(PartyError::NotFound(format!("dataset {dataset}")));
        }
        let sealed: Vec<u8> = sqlx::query_scalar("SELECT profile FROM datasets WHERE id = ?1")
            .bind(dataset.to_string())
            .fetch_one(&mut *conn)
            .await
            .at("read a profile")?;
        let data_key = self.secret32(DATA_KEY).await?;
        let text = unseal(&data_key, b"profile", &sealed)?;
        let mut profile: Profile = serde_json::from_slice(&text).map_err(|_| crate::store::bad_column("profile"))?;
        let policy = crate::requests::policy::current(&mut conn).await?;
        if policy.disclosure.local_views == LocalViews::Suppressed {
            let rules: &Disclosure = &policy.disclosure;
            profile = profile.suppressed(rules);
        }
        Ok(ProfileView { dataset: found.view(), profile })
    }

    pub(crate) async fn tag_dataset(
        &mut self,
        session: Session,
        dataset: DatasetId,
        duo: Vec<String>,
    ) -> Result<DatasetView, PartyError> {
        let acting = self.acting(&session, "tag a dataset", STEWARD).await?;
        crate::requests::rules::check_terms(&duo)?;
        let mut tx = self.store.begin("tag a dataset").await?;
        if by_id(tx.conn(), dataset).await?.is_removed {
            return Err(PartyError::NotFound(format!("dataset {dataset}")));
        }
        sqlx::query("UPDATE datasets SET duo = ?2 WHERE id = ?1")
            .bind(dataset.to_string())
            .bind(to_json(&duo))
            .execute(tx.conn())
            .await
            .at("tag a dataset")?;
        let entry = self
            .entry(acting.actor(), Action::DatasetChanged)
            .object(ObjectKind::Dataset, dataset, None)
            .because(format!("terms of use: {}", duo.join(", ")));
        self.append(&mut tx, &entry).await?;
        let view = by_id(tx.conn(), dataset).await?.view();
        tx.commit().await?;
        self.notify(Notice::Datasets);
        Ok(view)
    }

    pub(crate) async fn opt_out_order(&mut self, session: Session, path: PathBuf) -> Result<OptOutOrder, PartyError> {
        self.acting(&session, "import opt-outs", STEWARD).await?;
        let mut conn = self.reader().await?;
        let list = self.opt_outs(&mut conn).await?;
        let datasets = all(&mut conn).await?;
        drop(conn);
        let mut snapshots = Vec::with_capacity(datasets.len());
        for dataset in &datasets {
            snapshots.push((dataset.id, self.snapshot(dataset), self.snapshot_key(dataset).await?));
        }
        let before = Digest::of(&list.to_bytes());
        Ok(OptOutOrder { path, subjects: self.subject_key().await?, list, before, snapshots })
    }

    pub(crate) async fn add_opt_outs(&mut self, session: Session, new: NewOptOuts) -> Result<OptOutReport, PartyError> {
        let acting = self.acting(&session, "import opt-outs", STEWARD).await?;
        let data_key = self.secret32(DATA_KEY).await?;
        let bytes = new.list.to_bytes();
        let sealed = seal(&data_key, b"opt-outs", &bytes)?;
        let mut tx = self.store.begin("change the opt-out list").await?;
        if Digest::of(&self.opt_outs(tx.conn()).await?.to_bytes()) != new.before {
            return Err(PartyError::state("the list was changed meanwhile; import the file again"));
        }
        if all(tx.conn()).await?.len() != new.left.len() {
            return Err(PartyError::state("a dataset was registered meanwhile; import the file again"));
        }
        sqlx::query(
            "INSERT INTO sealed (name, bytes) VALUES ('opt-outs', ?1)
             ON CONFLICT (name) DO UPDATE SET bytes = ?1",
        )
        .bind(sealed)
        .execute(tx.conn())
        .await
        .at("change the opt-out list")?;
        for (dataset, left) in &new.left {
            sqlx::query("UPDATE datasets SET subjects_left = ?2 WHERE id = ?1")
                .bind(dataset.to_string())
                .bind(signed(*left))
                .execute(tx.conn())
                .await
                .at("change the opt-out list")?;
        }
        let report = OptOutReport { listed: new.list.len() as u64, affected: new.affected };
        let mut entry = self
            .entry(acting.actor(), Action::OptOutsChanged)
            .object(ObjectKind::OptOuts, "list", None)
            .because(format!("{} people on the list, {} of them in registered data", report.listed, report.affected));
        entry.change = Some(Change { before: Some(new.before), after: Some(Digest::of(&bytes)) });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Datasets);
        self.recheck_work().await?;
        Ok(report)
    }
}
