//! The way back from a backup, into a folder that has no site: everything is read and checked beside the place where it
//! will lie, and nothing is put there before all of it is known to be good. The database comes last and says that the
//! site was restored, so that there is a restored site or none.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use hospes_ledger::Ledger;
use hospes_protocol::id::{DatabaseId, Digest, PersonId, SiteId, Timestamp};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::text::shown;
use zeroize::Zeroizing;

use super::archive::{Archive, Kind, Manifest};
use crate::config::Config;
use crate::datasets::{self, DATA_KEY, SUBJECT_KEY};
use crate::engine::{lock, make_folder};
use crate::error::PartyError;
use crate::keys::sealed::{replace, sync_folder};
use crate::keys::{Secret, SecretPlace, Vault};
use crate::memberships;
use crate::people::Passphrase;
use crate::restored::{self, Restored};
use crate::store::{At as _, Store, schema};
use crate::witness::EXPORT_KEY;

/// Folder in which a backup is unpacked.
const UNPACKED: &str = "restoring";
/// File that is there while a backup is put in place: what lies in the folder then is of an attempt that was interrupted.
const PLACING: &str = "restore.unfinished";
/// What it says, by where the keys go: in the keychain another site may have its own, in a file of this folder none.
const INTO_FILE: &[u8] = b"a backup is being restored here\n";
const INTO_KEYCHAIN: &[u8] = b"restored-into-the-keychain\n";
/// Most bytes of the manifest, and of a secret.
const MANIFEST_BYTES: u64 = 16 << 10;
const SECRET_BYTES: u64 = 64 << 10;
/// Most secrets, and most snapshots.
const SECRETS: usize = 10_000;
const SNAPSHOTS: usize = 100_000;
const STEP: &str = "restore a backup";

/// A backup that was unpacked and checked; its site is not in its place yet.
pub struct Restoration {
    config: Config,
    unpacked: Unpacked,
    folder: Folder,
    goes_on: bool,
    /// Held until the site is in its place, or given up.
    _lock: File,
}

/// What a backup held, besides the files that lie in the folder.
struct Unpacked {
    manifest: Manifest,
    secrets: BTreeMap<String, Secret>,
    /// SHA-256 and length of each snapshot's file.
    snapshots: BTreeMap<Digest, (Digest, u64)>,
    /// SHA-256 of the whole backup.
    backup: Digest,
}

/// When somebody asked for it, and from which account of the machine, if that is known.
struct Asked {
    at: Timestamp,
    account: Option<u32>,
}

/// The folder in which it is unpacked; gone with its user.
struct Folder(PathBuf);

impl Folder {
    fn make(config: &Config) -> Result<Self, PartyError> {
        let path = config.folder.join(UNPACKED);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PartyError::file("remove", &path, error));
            }
            _ => {}
        }
        make_folder(&path)?;
        Ok(Self(path))
    }

    fn database(&self) -> PathBuf {
        self.0.join("site.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is removed by the next attempt.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Restoration {
    /// Unpacks and checks the backup in `file`, for the folder of `config`, which must hold no site.
    ///
    /// # Errors
    /// [`PartyError::AlreadyInitialised`] where there is a site, [`PartyError::State`] for remains of one;
    /// [`PartyError::Keys`] for another passphrase; [`PartyError::Backup`] for a file that is none, is of another version,
    /// or was cut off or altered; [`PartyError::DiskFull`]. Nothing was put in place then.
    pub async fn check(config: &Config, file: PathBuf, passphrase: Passphrase) -> Result<Self, PartyError> {
        Self::check_from(config, file, passphrase, None).await
    }

    /// The same for somebody who asks from an account of the machine that is not the engine's own: the log says which.
    ///
    /// # Errors
    /// As [`Restoration::check`].
    pub async fn check_from(
        config: &Config,
        file: PathBuf,
        passphrase: Passphrase,
        account: Option<u32>,
    ) -> Result<Self, PartyError> {
        // A site that could not be opened afterwards is not restored.
        config.managed.read()?;
        make_folder(&config.folder)?;
        let held = lock(config)?;
        let goes_on = config.folder.join(PLACING).exists();
        refuse_site(config, goes_on)?;
        let folder = Folder::make(config)?;
        let (path, to) = (file.clone(), folder.0.clone());
        let unpacked = tokio::task::spawn_blocking(move || unpack(&path, &passphrase, &to)).await;
        let unpacked = unpacked.map_err(|_| PartyError::Stopped)??;
        let asked = Asked { at: (config.clock)(), account };
        examine(&file, &folder.database(), &unpacked, &asked).await?;
        refuse_keys(config, &unpacked).await?;
        Ok(Self { config: config.clone(), unpacked, folder, goes_on, _lock: held })
    }

    /// When the backup was made.
    pub fn made(&self) -> Timestamp {
        self.unpacked.manifest.made
    }

    /// Entries of the audit log in it.
    pub fn entries(&self) -> u64 {
        self.unpacked.manifest.entries
    }

    /// Puts the site in its place: secrets, snapshots, and at last the database. An attempt that is interrupted is made
    /// again from its beginning.
    ///
    /// # Errors
    /// What the file system and the keychain say.
    pub async fn put_in_place(self) -> Result<(), PartyError> {
        let Self { config, unpacked, folder, goes_on, _lock } = self;
        let placing = config.folder.join(PLACING);
        let mark = match &config.secrets {
            SecretPlace::File { .. } => INTO_FILE,
            SecretPlace::Keychain { .. } => INTO_KEYCHAIN,
        };
        replace(&placing, mark).map_err(|e| PartyError::file("write", &placing, e))?;
        let vault = match &config.secrets {
            SecretPlace::File { path, .. } => {
                if goes_on && path.exists() {
                    std::fs::remove_file(path).map_err(|error| PartyError::file("remove", path, error))?;
                }
                Vault::create(config.secrets.clone(), config.kdf).await?
            }
            SecretPlace::Keychain { .. } => Vault::open(config.secrets.clone()).await?,
        };
        for (name, secret) in unpacked.secrets {
            vault.keep(&name, secret).await?;
        }
        for wanted in
            [config.payloads(), config.models(), config.snapshots(), config.kept(), config.levels(), config.scratch()]
        {
            make_folder(&wanted)?;
        }
        for digest in unpacked.snapshots.keys() {
            let name = format!("{digest}.parquet");
            rename(&folder.0.join(&name), &config.snapshots().join(&name))?;
        }
        sync_folder(&config.snapshots()).map_err(|e| PartyError::file("write", &config.snapshots(), e))?;
        rename(&folder.database(), &config.database())?;
        sync_folder(&config.folder).map_err(|e| PartyError::file("write", &config.folder, e))?;
        // The site is there; a mark that stays says nothing of it.
        let _ = std::fs::remove_file(&placing);
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), PartyError> {
    std::fs::rename(from, to).map_err(|error| PartyError::file("write", to, error))
}

/// Removes, where there is a site, what an attempt left that was interrupted: a copy of a database, and the mark by which
/// another attempt would take what lies here for its own.
pub(crate) fn sweep(config: &Config) {
    // What stays is tried again at the next start.
    let _ = std::fs::remove_dir_all(config.folder.join(UNPACKED));
    let _ = std::fs::remove_file(config.folder.join(PLACING));
}

/// Removes what an attempt left that was interrupted, where a new site is laid down in its place: the keys of another site are
/// not to be its own.
///
/// # Errors
/// If the key file cannot be removed, and what the keychain says.
pub(crate) async fn give_up(config: &Config) -> Result<(), PartyError> {
    if !config.folder.join(PLACING).exists() {
        return Ok(());
    }
    match &config.secrets {
        SecretPlace::File { path, .. } if path.exists() => {
            std::fs::remove_file(path).map_err(|error| PartyError::file("remove", path, error))?;
        }
        SecretPlace::Keychain { .. } if went_into_keychain(config) => {
            let vault = Vault::open(config.secrets.clone()).await?;
            // All others have names that no other site has.
            for name in [DATA_KEY, SUBJECT_KEY, EXPORT_KEY] {
                vault.destroy(name).await?;
            }
        }
        _ => {}
    }
    sweep(config);
    Ok(())
}

/// Whether an attempt was interrupted that put keys into the keychain: it had seen that there are none of another site.
fn went_into_keychain(config: &Config) -> bool {
    std::fs::read(config.folder.join(PLACING)).is_ok_and(|mark| mark == INTO_KEYCHAIN)
}

/// Refuses a folder with a site in it, or with what is left of one: a restored database would be read together with the
/// log of another, and snapshots that it does not know would be swept.
fn refuse_site(config: &Config, goes_on: bool) -> Result<(), PartyError> {
    let database = config.database();
    if database.symlink_metadata().is_ok() {
        return Err(PartyError::AlreadyInitialised(config.folder.clone()));
    }
    let remains = |what: &Path| {
        PartyError::state(format!(
            "{} is left of a site; nothing was changed. Restore into another folder, or move everything in this one away first",
            what.display()
        ))
    };
    for ending in ["db-wal", "db-shm", "db-journal"] {
        let path = database.with_extension(ending);
        if path.symlink_metadata().is_ok() {
            return Err(remains(&path));
        }
    }
    let has_files = std::fs::read_dir(config.snapshots()).is_ok_and(|mut files| files.next().is_some());
    if has_files && !goes_on {
        return Err(remains(&config.snapshots()));
    }
    match &config.secrets {
        SecretPlace::File { path, .. } if path.symlink_metadata().is_ok() && !goes_on => Err(remains(path)),
        _ => Ok(()),
    }
}

/// Refuses a keychain that holds the keys of another site under this one's name.
async fn refuse_keys(config: &Config, unpacked: &Unpacked) -> Result<(), PartyError> {
    let SecretPlace::Keychain { service } = &config.secrets else { return Ok(()) };
    let found = Vault::open(config.secrets.clone()).await?.find(DATA_KEY).await?;
    let is_other = found.is_some_and(|found| unpacked.secrets.get(DATA_KEY).is_none_or(|ours| **ours != *found));
    if is_other && !went_into_keychain(config) {
        return Err(PartyError::state(format!(
            "the keychain holds the keys of another site as '{service}'; nothing was changed. Restore into another folder"
        )));
    }
    Ok(())
}

/// Unpacks a backup into an empty folder. What comes of it is authentic, and not checked otherwise.
fn unpack(path: &Path, passphrase: &Passphrase, to: &Path) -> Result<Unpacked, PartyError> {
    let mut archive = Archive::open(path, passphrase)?;
    let first = archive.follows()?;
    let bytes = archive.bytes(&first, MANIFEST_BYTES)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|_| archive.broken("this program cannot read what it says of itself; update this program"))?;
    refuse_schema(&archive, &manifest)?;
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    let mut snapshots: BTreeMap<Digest, (Digest, u64)> = BTreeMap::new();
    let mut has_database = false;
    loop {
        let record = archive.follows()?;
        match record.kind {
            Kind::Secret => {
                let secret = archive.bytes(&record, SECRET_BYTES)?;
                if secrets.len() == SECRETS || !is_secret(&record.name) {
                    return Err(archive.broken("it holds a secret that no site has"));
                }
                if secrets.insert(record.name, secret).is_some() {
                    return Err(archive.broken("it holds a secret twice"));
                }
            }
            Kind::Database => {
                archive.extract(&record, &to.join("site.db"))?;
                has_database = true;
            }
            Kind::Snapshot => {
                // The name is read as a digest and written anew: it leads nowhere else.
                let digest = match record.name.parse::<Digest>() {
                    _ if snapshots.len() == SNAPSHOTS => return Err(archive.broken("it holds too many snapshots")),
                    Ok(digest) if !snapshots.contains_key(&digest) => digest,
                    _ => return Err(archive.broken("it holds a snapshot twice, or under a name that is none")),
                };
                let found = archive.extract(&record, &to.join(format!("{digest}.parquet")))?;
                snapshots.insert(digest, found);
            }
            Kind::End if has_database => break,
            Kind::End | Kind::Manifest => return Err(archive.broken("it holds no database")),
        }
    }
    let backup = archive.finish()?;
    Ok(Unpacked { manifest, secrets, snapshots, backup })
}

/// Whether a secret of this name can belong to a site.
fn is_secret(name: &str) -> bool {
    match name.split_once('/') {
        None => [DATA_KEY, SUBJECT_KEY, EXPORT_KEY].contains(&name),
        Some(("database", of)) => of.parse::<DatabaseId>().is_ok_and(|id| id.to_string() == of),
        Some(("person", of)) => of.parse::<PersonId>().is_ok_and(|id| id.to_string() == of),
        Some(("identity" | "tls" | "proxy", of)) => of.parse::<SiteId>().is_ok_and(|id| id.to_string() == of),
        Some(_) => false,
    }
}

fn refuse_schema(archive: &Archive, manifest: &Manifest) -> Result<(), PartyError> {
    let (theirs, ours) = (manifest.schema, schema());
    if theirs == ours {
        return Ok(());
    }
    let software = shown(&manifest.software, 100);
    let (is, mend) = match theirs < ours {
        true => ("an older", "restore it with that version, and update it afterwards"),
        false => ("a newer", "update this program first"),
    };
    Err(archive.broken(&format!(
        "it was made by {software}, with {is} schema of the database ({theirs}, here {ours}); {mend}"
    )))
}

/// Checks that what was unpacked fits together and can be opened, and enters in the database that it was restored.
async fn examine(file: &Path, database: &Path, unpacked: &Unpacked, asked: &Asked) -> Result<(), PartyError> {
    let broken = |reason: &str| PartyError::Backup { path: file.to_owned(), reason: reason.to_owned() };
    let store = Store::open_copy(database).await.map_err(|error| match error {
        PartyError::Damaged { reason, .. } => broken(&format!("its database is damaged: {}", shown(&reason, 300))),
        PartyError::NewerDatabase => broken("its database is not of the schema that it says"),
        other => other,
    })?;
    let examined = examine_contents(file, &store, unpacked, asked).await;
    // Also where it failed: a connection that ended later could take the files of the next attempt away.
    store.close().await;
    examined?;
    let fail = |error| PartyError::file("write", database, error);
    // The one file is put in place and nothing beside it; without its last step nobody would know that it was restored.
    if database.with_extension("db-wal").symlink_metadata().is_ok() {
        return Err(fail(std::io::Error::other("its write-ahead log was not merged")));
    }
    File::options().write(true).open(database).and_then(|file| file.sync_all()).map_err(fail)
}

async fn examine_contents(file: &Path, store: &Store, unpacked: &Unpacked, asked: &Asked) -> Result<(), PartyError> {
    let broken = |reason: &str| PartyError::Backup { path: file.to_owned(), reason: reason.to_owned() };
    let manifest = &unpacked.manifest;
    let mut tx = store.begin(STEP).await?;
    let mut ledger = Ledger::on(tx.conn());
    let entries = ledger.size().await.at(STEP)?;
    if entries == 0 || entries != manifest.entries || ledger.root(entries).await.at(STEP)? != manifest.root {
        return Err(broken("its audit log is not the one that it says"));
    }
    let key = |name: &str| -> Option<Zeroizing<[u8; 32]>> {
        Some(Zeroizing::new(unpacked.secrets.get(name)?.as_slice().try_into().ok()?))
    };
    let (Some(data_key), Some(_)) = (key(DATA_KEY), key(SUBJECT_KEY)) else {
        return Err(broken("it lacks the keys of its data"));
    };
    let datasets = datasets::all(tx.conn()).await?;
    for dataset in &datasets {
        let document = &dataset.document;
        if unpacked.snapshots.get(&document.digest()) != Some(&(document.file, document.bytes)) {
            return Err(broken("a snapshot is missing, or is not the one that was registered"));
        }
        if !dataset.opens_with(&data_key) {
            return Err(broken("its keys do not open its snapshots"));
        }
    }
    let known: std::collections::BTreeSet<Digest> = datasets.iter().map(|d| d.document.digest()).collect();
    if known.len() != unpacked.snapshots.len() {
        return Err(broken("it holds a snapshot that its database does not know"));
    }
    let mut federations = Vec::new();
    for membership in memberships::all(tx.conn()).await? {
        let identity = key(&membership.secret("identity")).map(|seed| SecretKey::from_seed(&seed).public().site_id());
        if identity != Some(membership.site) {
            return Err(broken("it lacks this site's identity in a federation"));
        }
        federations.push(membership.federation);
    }
    let restored = Restored::new(unpacked.backup, manifest.made, manifest.entries, asked.at, federations);
    restored::write(tx.conn(), &restored.asked_from(asked.account)).await?;
    tx.commit().await
}
