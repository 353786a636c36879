//! What an operator can set, and the data folder in which a coordinator lives.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hospes_protocol::id::{FederationId, Timestamp};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::{limits, text};
use serde::{Deserialize, Serialize};

use crate::ca::Ca;
use crate::keyfile::{self, Passphrase};
use crate::store::Store;
use crate::{Error, random};

/// Name of the settings file in the data folder.
pub const FILE: &str = "coordinator.toml";
/// Environment variable that stands in for `database`, so that a password need not lie in a file.
pub const DATABASE: &str = "HOSPES_DATABASE";

/// Settings, `coordinator.toml` in the data folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the federation, for people.
    pub name: String,
    /// URL under which sites and operators reach it, `https://host:port`.
    pub url: String,
    /// Address and port on which it listens.
    pub listen: SocketAddr,
    /// `sqlite` for the embedded database, or a URL `postgres://…`.
    pub database: String,
    /// More DNS names and IP addresses for the server's certificate than the one in `url`.
    #[serde(default)]
    pub server_names: Vec<String>,
    /// How long a site's certificate is good, in seconds. Sites renew at two thirds of it.
    #[serde(default = "certificate_seconds")]
    pub certificate_seconds: u32,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// Times and numbers by which jobs and rounds go.
    #[serde(default)]
    pub schedule: crate::schedule::Settings,
}

/// Limits of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections of sites, and handshakes.
    pub connections: usize,
    /// Open connections without a client certificate: browsers, command lines, enrolment.
    pub anonymous_connections: usize,
    /// Open connections from one address.
    pub connections_per_address: usize,
    /// Uploads and downloads of one site at the same time.
    pub transfers_per_site: usize,
    /// Messages of one site a second, over the length of a burst of five seconds.
    pub messages_per_second: u32,
    /// Attempts to enrol from one address in a minute.
    pub enrolments_per_minute: u32,
    /// Time between heartbeats in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which a site counts as gone, in milliseconds.
    pub silence_ms: u64,
    /// Time for a TLS handshake and the first message, in milliseconds.
    pub greeting_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 12_000,
            anonymous_connections: 1_000,
            connections_per_address: 2_000,
            transfers_per_site: 8,
            messages_per_second: 100,
            enrolments_per_minute: 20,
            heartbeat_ms: limits::HEARTBEAT_MS,
            silence_ms: limits::SILENCE_MS,
            greeting_ms: 10_000,
        }
    }
}

fn certificate_seconds() -> u32 {
    30 * 86_400
}

impl Settings {
    /// Settings with the defaults for everything else.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is empty or too long, or the URL is not `https://host[:port]`.
    pub fn new(name: &str, url: &str, listen: SocketAddr, database: &str) -> Result<Self, Error> {
        let settings = Self {
            name: name.trim().to_owned(),
            url: url.trim_end_matches('/').to_owned(),
            listen,
            database: database.to_owned(),
            server_names: Vec::new(),
            certificate_seconds: certificate_seconds(),
            limits: Limits::default(),
            schedule: crate::schedule::Settings::default(),
        };
        settings.checked()
    }

    /// Reads a settings file.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Config`] with the place.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        let settings: Self =
            toml::from_str(&text).map_err(|e| Error::Config(format!("{}: {}", path.display(), e.message())))?;
        settings.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        text::check_name(&self.name).map_err(|reason| Error::Config(format!("name: {reason}")))?;
        self.host()?;
        self.schedule.clone().checked()?;
        if self.certificate_seconds < 2 {
            return Err(Error::Config("certificate_seconds: at least 2".into()));
        }
        if self.limits.silence_ms <= self.limits.heartbeat_ms {
            return Err(Error::Config("limits.silence_ms: must be longer than limits.heartbeat_ms".into()));
        }
        Ok(self)
    }

    /// The host in the URL.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not `https://host[:port]`.
    pub fn host(&self) -> Result<String, Error> {
        let wrong = || Error::Config(format!("url: '{}' is not of the form https://host[:port]", self.url));
        let uri: http::Uri = self.url.parse().map_err(|_| wrong())?;
        let path = uri.path_and_query().map_or("", |p| p.as_str());
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) if path.is_empty() || path == "/" => {
                Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            }
            _ => Err(wrong()),
        }
    }

    /// DNS names and IP addresses for the server's certificate.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL has no host.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = vec![self.host()?];
        for name in &self.server_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }
}

/// Holds a data folder for this process.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock goes with the open file")] fs::File);

/// An opened data folder: settings, keys, certificate authority.
pub struct Home {
    /// The folder.
    pub folder: PathBuf,
    /// Settings.
    pub settings: Settings,
    /// The coordinator's identity key.
    pub key: Arc<SecretKey>,
    /// The certificate authority.
    pub ca: Ca,
}

impl Home {
    /// Makes a data folder (mode 700) with settings, identity key and certificate authority.
    ///
    /// # Errors
    /// [`Error::File`] if it exists already or cannot be written.
    pub fn create(
        folder: &Path,
        settings: Settings,
        passphrase: Option<&Passphrase>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let file = folder.join(FILE);
        if file.exists() {
            return Err(Error::Config(format!("{} exists: this folder already holds a coordinator", file.display())));
        }
        private_folder(folder)?;
        let seed = zeroize::Zeroizing::new(random::<32>()?);
        let key = Arc::new(SecretKey::from_seed(&seed));
        let (ca, ca_key) = Ca::create(&settings.name, now)?;
        keyfile::write(&folder.join("identity.key"), "identity", &*seed, passphrase)?;
        keyfile::write(&folder.join("ca.key"), "ca", &ca_key, passphrase)?;
        private_file(&folder.join("ca.pem"), ca.pem().as_bytes())?;
        let text = toml::to_string_pretty(&settings).map_err(|e| Error::Config(e.to_string()))?;
        // Last, because it is what makes the folder a coordinator's.
        private_file(&file, text.as_bytes())?;
        Ok(Self { folder: folder.to_owned(), settings, key, ca })
    }

    /// Opens a data folder.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Config`] or [`Error::Sealed`].
    pub fn open(folder: &Path, passphrase: Option<&Passphrase>) -> Result<Self, Error> {
        let file = folder.join(FILE);
        if !file.exists() {
            let folder = folder.display();
            return Err(Error::Config(format!(
                "{folder} holds no coordinator; make one with `hospes-coordinator init`"
            )));
        }
        let settings = Settings::read(&file)?;
        let seed = keyfile::read(&folder.join("identity.key"), "identity", passphrase)?;
        let seed: zeroize::Zeroizing<[u8; 32]> =
            zeroize::Zeroizing::new(seed.as_slice().try_into().map_err(|e| Error::corrupt("identity key", e))?);
        let ca_key = keyfile::read(&folder.join("ca.key"), "ca", passphrase)?;
        let ca_path = folder.join("ca.pem");
        let ca = Ca::load(&fs::read_to_string(&ca_path).map_err(Error::file("read", &ca_path))?, &ca_key)?;
        Ok(Self { folder: folder.to_owned(), settings, key: Arc::new(SecretKey::from_seed(&seed)), ca })
    }

    /// The federation: the id of the identity key.
    pub fn federation(&self) -> FederationId {
        self.key.public().site_id()
    }

    /// Takes the folder for one process, until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`Error::Occupied`] if another process has it, [`Error::File`] if the file system knows no locks.
    pub fn lock(&self) -> Result<FolderLock, Error> {
        let path = self.folder.join("lock");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(Error::file("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Occupied(format!(
                "runs on this folder, {}; stop it first, or choose another folder with --data",
                self.folder.display()
            ))),
            Err(fs::TryLockError::Error(source)) => Err(Error::file("lock", path)(source)),
        }
    }

    /// Opens the database, and checks that it is this federation's.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Schema`], also if it is missing or empty, or [`Error::Config`] if it belongs to
    /// another federation.
    pub async fn store(&self) -> Result<Store, Error> {
        let store = Store::open_existing(&self.database()).await?;
        let federation = self.federation().to_string();
        match store.meta("federation").await? {
            Some(known) if known == federation => Ok(store),
            Some(known) => {
                Err(Error::Config(format!("the database belongs to federation {known}, not to {federation}")))
            }
            None => Err(Error::lost("the database is empty")),
        }
    }

    /// Makes the database of a new coordinator.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Schema`], or [`Error::Config`] if it belongs to a federation already.
    pub async fn create_store(&self) -> Result<Store, Error> {
        let store = Store::open(&self.database()).await?;
        if let Some(known) = store.meta("federation").await? {
            return Err(Error::Config(format!("the database belongs to federation {known} already")));
        }
        let mut tx = store.begin("first_start").await?;
        tx.set_meta("federation", &self.federation().to_string()).await?;
        tx.set_meta("epoch", "1").await?;
        tx.commit().await?;
        Ok(store)
    }

    fn database(&self) -> String {
        let from_environment = std::env::var(DATABASE).ok().filter(|url| !url.is_empty());
        let database = from_environment.unwrap_or_else(|| self.settings.database.clone());
        match database.as_str() {
            "sqlite" => Store::sqlite_url(&self.folder.join("coordinator.db")),
            _ => database,
        }
    }
}

/// Name of this replica: drawn once for this data folder, and kept.
///
/// # Errors
/// [`Error::File`] or [`Error::Random`].
pub fn replica(folder: &Path) -> Result<String, Error> {
    let path = folder.join("replica");
    match fs::read_to_string(&path) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = data_encoding::BASE32_NOPAD.encode(&random::<10>()?).to_ascii_lowercase();
            private_file(&path, name.as_bytes())?;
            Ok(name)
        }
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// The coordinator's incarnation, from the store.
///
/// # Errors
/// [`Error::Database`] or [`Error::Corrupt`].
pub async fn epoch(store: &Store) -> Result<u64, Error> {
    let text = store.meta("epoch").await?.ok_or_else(|| Error::corrupt("epoch", "it is missing"))?;
    text.parse().map_err(|e| Error::corrupt("epoch", e))
}

/// Starts a new incarnation, after the database was restored from a backup.
///
/// # Errors
/// [`Error::Database`] or [`Error::Corrupt`].
pub async fn new_epoch(store: &Store) -> Result<u64, Error> {
    let next = epoch(store).await? + 1;
    let mut tx = store.begin("new_epoch").await?;
    tx.set_meta("epoch", &next.to_string()).await?;
    tx.commit().await?;
    Ok(next)
}

fn private_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file("create", path))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, mode).map_err(Error::file("set the mode of", path))
}

fn private_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings, Error> {
        Settings::new("Test", url, "127.0.0.1:0".parse().unwrap(), "sqlite")
    }

    #[test]
    fn urls_without_tls_or_with_a_path_are_refused() {
        assert_eq!(settings("https://a.example:8443/").unwrap().host().unwrap(), "a.example");
        assert_eq!(settings("https://[::1]:8443").unwrap().host().unwrap(), "::1");
        for bad in ["http://a.example", "a.example", "https://a.example/x", "https://", ""] {
            assert!(settings(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn the_schedule_can_be_set_and_impossible_times_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let read = |schedule: &str| {
            let start = "name = 'a'\nurl = 'https://a.example'\nlisten = '0.0.0.0:1'\ndatabase = 'sqlite'\n";
            fs::write(&file, format!("{start}{schedule}")).unwrap();
            Settings::read(&file).map(|settings| settings.schedule)
        };
        assert_eq!(read("").unwrap(), crate::schedule::Settings::default());
        let set = read("[schedule]\npatience_ms = 600000\n").unwrap();
        assert_eq!(set, crate::schedule::Settings { patience_ms: 600_000, ..Default::default() });
        for wrong in ["lease_ms = 0", "attempts = 0", "min_parties = 1", "patiense_ms = 1"] {
            let error = read(&format!("[schedule]\n{wrong}\n")).unwrap_err().to_string();
            assert!(error.contains(wrong.split(' ').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_home_opens_again_with_the_same_identity_and_is_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let now = Timestamp::from_millis(1_800_000_000_000);
        let passphrase = Passphrase::new("a passphrase".into());
        let made = Home::create(&path, settings("https://localhost:1").unwrap(), Some(&passphrase), now).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&path).unwrap().filter_map(Result::ok).filter(|e| e.path().is_file()) {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        let opened = Home::open(&path, Some(&passphrase)).unwrap();
        assert_eq!((opened.federation(), opened.ca.fingerprint()), (made.federation(), made.ca.fingerprint()));
        assert!(Home::open(&path, None).is_err());
        assert!(Home::create(&path, made.settings, None, now).is_err());
    }

    #[test]
    fn a_settings_file_with_an_unknown_word_is_refused() {
        let text = toml::to_string_pretty(&settings("https://localhost:1").unwrap()).unwrap();
        assert!(toml::from_str::<Settings>(&text).is_ok());
        assert!(toml::from_str::<Settings>(&format!("colour = 'red'\n{text}")).is_err());
    }
}
