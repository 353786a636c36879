//! Backups of a site: one file with everything that belongs to it, which a passphrase opens.
//!
//! It holds a consistent copy of the database (policy, people, approvals, the audit log), the secrets of the vault
//! (people's keys as they are there, each wrapped by its owner's passphrase) and the frozen snapshots. It holds no
//! payload of the outbox and no model: the former expire, the latter can be fetched again.
//!
//! A copy is made of the database inside the engine's loop, so that secrets and snapshots fit it; the file is written
//! outside, and is entered in the log before it has its name. [`Restoration`] is the way back; what a restored site must
//! not do yet is decided in `restored`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use futures::FutureExt as _;
use hospes_ledger::{Action, Ledger, ObjectKind};
use hospes_protocol::approval::Role;
use hospes_protocol::id::Digest;
use hospes_protocol::text::in_bytes;
use sqlx::sqlite::SqliteConnection;

use crate::audit::Because as _;
use crate::config::Config;
use crate::datasets::{self, DATA_KEY, SUBJECT_KEY};
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::{Handle, in_background};
use crate::keys::{KdfCost, Secret, random, wrapped};
use crate::memberships;
use crate::new_file::{Hashing, Part, free};
use crate::people::{self, Passphrase, Session};
use crate::store::{At as _, schema};
use crate::view::{BackupMade, Outcome, RestoredView};
use crate::witness::EXPORT_KEY;
use archive::{Kind, Manifest};
use container::{Lock, Sealer};

mod archive;
mod container;
mod restore;
#[cfg(test)]
mod tests;

pub use restore::Restoration;
pub(crate) use restore::{give_up, sweep};

const ADMINISTRATOR: &[Role] = &[Role::Administrator];
const ACTION: &str = "back up this site";

/// A backup that is under way.
pub(crate) struct BackingUp {
    session: Session,
    path: PathBuf,
    passphrase: Passphrase,
    cost: KdfCost,
    manifest: Manifest,
    database: DatabaseCopy,
    secrets: Vec<(String, Secret)>,
    snapshots: BTreeMap<Digest, File>,
}

/// A backup that is written and has no name yet.
pub(crate) struct WrittenBackup {
    session: Session,
    path: PathBuf,
    part: Part,
    made: BackupMade,
    /// The snapshots in it.
    datasets: BTreeSet<Digest>,
}

/// A copy of the database among the files that are swept, gone with its user.
struct DatabaseCopy(PathBuf);

impl DatabaseCopy {
    fn place(config: &Config) -> Result<Self, PartyError> {
        let name = data_encoding::HEXLOWER.encode(&random::<8>()?);
        Ok(Self(config.scratch().join(format!("backup-{name}.db"))))
    }
}

impl Drop for DatabaseCopy {
    fn drop(&mut self) {
        // There is none where it could not be made; the next start sweeps one that stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Handle {
    /// Backs the site up to a new file that `passphrase` opens (administrator): database, secrets and snapshots. The log
    /// has an entry about it, with the file's digest, before the file has its name.
    ///
    /// # Disclosure
    /// Whoever has file and passphrase can read everything that the site holds of its patients.
    ///
    /// # Errors
    /// [`PartyError::Input`] for a passphrase that is too short; [`PartyError::File`], also if the file exists;
    /// [`PartyError::DiskFull`], [`PartyError::Denied`].
    pub async fn back_up(
        &self,
        session: &Session,
        to: PathBuf,
        passphrase: Passphrase,
    ) -> Result<BackupMade, PartyError> {
        let s = session.clone();
        let backup = self.ask(move |e| e.begin_backup(s, to, passphrase).boxed()).await?;
        let written = in_background(move || backup.write()).await?;
        self.ask(move |e| e.finish_backup(written).boxed()).await
    }

    /// What a site that was restored from a backup still waits for; `None` for any other.
    ///
    /// # Errors
    /// [`PartyError::NoSession`].
    pub async fn restored(&self, session: &Session) -> Result<Option<RestoredView>, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.restored(s).boxed()).await
    }

    /// Lets a site go on that was restored from a backup (administrator); in operation it needs a second signature.
    ///
    /// # Errors
    /// [`PartyError::State`] where none waits for it, [`PartyError::LogIn`] for a wrong passphrase,
    /// [`PartyError::Denied`].
    pub async fn confirm_restore(&self, session: &Session, passphrase: Passphrase) -> Result<Outcome, PartyError> {
        let s = session.clone();
        self.ask(move |e| e.confirm_restore(s, passphrase).boxed()).await
    }
}

impl Engine {
    /// Gathers what belongs into a backup, as it is at this moment.
    pub(crate) async fn begin_backup(
        &mut self,
        session: Session,
        path: PathBuf,
        passphrase: Passphrase,
    ) -> Result<BackingUp, PartyError> {
        self.inside(&session, ACTION, ADMINISTRATOR).await?;
        passphrase.check()?;
        free(&path)?;
        let database = DatabaseCopy::place(&self.config)?;
        self.store.copy_to(&database.0).await?;
        // Nothing changes before this event ends: what is read now is what the copy has.
        let mut conn = self.reader().await?;
        let mut ledger = Ledger::on(&mut *conn);
        let entries = ledger.size().await.at(ACTION)?;
        let root = ledger.root(entries).await.at(ACTION)?;
        let secrets = self.secrets(&mut conn).await?;
        let mut snapshots = BTreeMap::new();
        for dataset in datasets::all(&mut conn).await? {
            let path = self.snapshot(&dataset).path;
            // Opened here, where it is there; whether it still belongs to the site is asked again in the end.
            let file = File::open(&path).map_err(|error| PartyError::file("read", &path, error))?;
            snapshots.insert(dataset.document.digest(), file);
        }
        let (software, made) = (crate::SOFTWARE.to_owned(), self.now());
        let manifest = Manifest { software, schema: schema(), made, entries, root };
        let cost = self.config.kdf;
        Ok(BackingUp { session, path, passphrase, cost, manifest, database, secrets, snapshots })
    }

    /// The secrets that belong to the database. A keychain cannot list them, so that they are asked for by name.
    async fn secrets(&self, conn: &mut SqliteConnection) -> Result<Vec<(String, Secret)>, PartyError> {
        let mut names = vec![EXPORT_KEY.to_owned()];
        names.extend(people::all(conn).await?.iter().map(|person| wrapped::name(person.id)));
        names.extend(self.database_secrets(conn).await?);
        for membership in memberships::all(conn).await? {
            names.extend(["identity", "tls", "proxy"].map(|what| membership.secret(what)));
        }
        let mut secrets = Vec::new();
        for name in [DATA_KEY, SUBJECT_KEY] {
            secrets.push((name.to_owned(), self.vault.read(name).await?));
        }
        for name in names {
            if let Some(secret) = self.vault.find(&name).await? {
                secrets.push((name, secret));
            }
        }
        Ok(secrets)
    }

    /// Enters the backup in the log, and then gives the file its name.
    pub(crate) async fn finish_backup(&mut self, written: WrittenBackup) -> Result<BackupMade, PartyError> {
        let WrittenBackup { session, path, part, made, datasets } = written;
        let acting = self.inside(&session, ACTION, ADMINISTRATOR).await?;
        // PRIVACY: what was removed while the file was written is not to live on in it, nor to come after its own end.
        let mut conn = self.reader().await?;
        let held: BTreeSet<Digest> = datasets::all(&mut conn).await?.iter().map(|d| d.document.digest()).collect();
        drop(conn);
        if !datasets.is_subset(&held) {
            return Err(PartyError::state("a dataset was removed while the backup was made; make it again"));
        }
        let size = in_bytes(made.bytes);
        let words = format!("{} entries of the log, {} datasets, {size}", made.entries, made.datasets);
        let entry = self
            .entry(acting.actor(), Action::BackupMade)
            .object(ObjectKind::Backup, "backup", Some(made.digest))
            .because(words);
        self.name_entered(ACTION, entry, vec![(part, &path)]).await?;
        Ok(made)
    }
}

impl BackingUp {
    /// Makes the file, beside its place and under another name.
    pub(crate) fn write(self) -> Result<WrittenBackup, PartyError> {
        let Self { session, path, passphrase, cost, manifest, database, secrets, snapshots } = self;
        let fail = |source| PartyError::file("write", &path, source);
        let lock = Lock::draw(&passphrase, cost)?;
        let mut copy = File::open(&database.0).map_err(|error| PartyError::file("read", &database.0, error))?;
        let datasets: BTreeSet<Digest> = snapshots.keys().copied().collect();
        let part = Part::create(&path).map_err(fail)?;
        let written = || -> io::Result<(Digest, u64)> {
            let mut sealer = Sealer::begin(Hashing::new(BufWriter::new(part.file())), &lock)?;
            contents(&mut sealer, &manifest, &secrets, &mut copy, snapshots)?;
            let digest = sealer.finish()?.ended();
            part.file().sync_all()?;
            Ok(digest)
        };
        let (digest, bytes) = written().map_err(fail)?;
        let count = u32::try_from(datasets.len()).unwrap_or(u32::MAX);
        let made = BackupMade { bytes, digest, entries: manifest.entries, datasets: count };
        Ok(WrittenBackup { session, path, part, made, datasets })
    }
}

fn contents(
    out: &mut impl Write,
    manifest: &Manifest,
    secrets: &[(String, Secret)],
    database: &mut File,
    snapshots: BTreeMap<Digest, File>,
) -> io::Result<()> {
    archive::put(out, Kind::Manifest, "", &serde_json::to_vec(manifest)?)?;
    for (name, secret) in secrets {
        archive::put(out, Kind::Secret, name, secret)?;
    }
    archive::put_file(out, Kind::Database, "", database)?;
    for (digest, mut file) in snapshots {
        archive::put_file(out, Kind::Snapshot, &digest.to_string(), &mut file)?;
    }
    archive::end(out)
}
