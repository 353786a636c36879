//! Where a site's secrets lie, as written when it was laid down; and laying one down.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use hospes_party::keys::{SecretPlace, systemd_credential};
use hospes_party::view::Phase;
use hospes_party::{Config, Foundation, Handle, PartyError, Passphrase, Restoration};
use hospes_protocol::id::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fault::{Fault, FaultCode};

/// Name of the settings in the data folder.
const SETTINGS: &str = "site.toml";
/// The same while they are written.
const SETTINGS_PART: &str = "site.toml.part";
/// Most bytes of the settings.
const SETTINGS_BYTES: u64 = 64 << 10;
/// Name of the encrypted key file in the data folder.
const KEY_FILE: &str = "keys.sealed";
/// Environment variable with the file that opens the site's key file.
const KEY_PASSPHRASE_FILE: &str = "HOSPES_KEY_PASSPHRASE_FILE";
/// Name of the systemd credential that opens the site's key file.
const CREDENTIAL: &str = "hospes-key-passphrase";

/// Where a site's secrets lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "secrets", rename_all = "snake_case", deny_unknown_fields)]
pub enum Settings {
    /// In the keychain of the operating system.
    Keychain {
        /// Name under which the keychain lists them.
        service: String,
    },
    /// In an encrypted file in the data folder.
    File,
}

impl Settings {
    /// The settings of the site in `folder`; `None` where there is no site yet.
    ///
    /// # Errors
    /// [`FaultCode::Settings`] if they cannot be read or are damaged; the words name the file and what belongs into it.
    pub fn find(folder: &Path) -> Result<Option<Self>, Fault> {
        use std::io::Read as _;
        let path = folder.join(SETTINGS);
        let unreadable = |error: std::io::Error| {
            Fault::new(FaultCode::Settings, format!("{} cannot be read: {error}", path.display()))
        };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut bytes = Vec::new();
        file.take(SETTINGS_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
        let text = String::from_utf8_lossy(&bytes);
        toml::from_str(&text).map(Some).map_err(|error| damaged(folder, error.message()))
    }

    /// The settings of the site in `folder`.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] where there is no site yet, and as [`Settings::find`].
    pub fn read(folder: &Path) -> Result<Self, Fault> {
        let none = format!("{} holds no site yet; run 'hospes-site init' first", folder.display());
        Self::find(folder)?.ok_or_else(|| Fault::new(FaultCode::NotRunning, none))
    }

    /// A keychain entry of its own for the site in `folder`.
    ///
    /// # Errors
    /// [`FaultCode::Store`] if the folder is not there.
    pub fn keychain(folder: &Path) -> Result<Self, Fault> {
        let place = std::fs::canonicalize(folder).map_err(|e| unwritable(folder, &e))?;
        Ok(Self::Keychain { service: format!("hospes {}", place.display()) })
    }

    /// Under another name first: settings that broke off would keep the site from being laid down again.
    fn write(&self, folder: &Path) -> Result<(), Fault> {
        let text = toml::to_string(self).map_err(|e| Fault::new(FaultCode::Store, e.to_string()))?;
        let (path, part) = (folder.join(SETTINGS), folder.join(SETTINGS_PART));
        let written = std::fs::File::create(&part).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        });
        written.map_err(|error| {
            // What is wrong is said; the next attempt writes over it.
            let _ = std::fs::remove_file(&part);
            unwritable(&path, &error)
        })
    }

    /// The engine's configuration. `program` is started for work on data; `passphrase` opens the key file, where there is
    /// one and the environment does not name it.
    ///
    /// # Errors
    /// What `passphrase` says, [`FaultCode::Keys`].
    pub fn config<E: From<Fault>>(
        &self,
        folder: &Path,
        program: PathBuf,
        passphrase: impl FnOnce() -> Result<Passphrase, E>,
    ) -> Result<Config, E> {
        let secrets = match self {
            Self::Keychain { service } => SecretPlace::Keychain { service: service.clone() },
            Self::File => {
                let passphrase = match key_file_passphrase()? {
                    Some(given) => given,
                    None => passphrase()?,
                };
                SecretPlace::File { path: folder.join(KEY_FILE), passphrase }
            }
        };
        Ok(Config::new(folder.to_path_buf(), secrets, program))
    }
}

/// The passphrase of a key file as systemd or a file that the environment names give it.
///
/// # Errors
/// [`FaultCode::Keys`] if it is named and cannot be read.
pub fn key_file_passphrase() -> Result<Option<Passphrase>, Fault> {
    if let Some(passphrase) = systemd_credential(CREDENTIAL).map_err(|e| Fault::from(PartyError::from(e)))? {
        return Ok(Some(passphrase));
    }
    let Some(file) = std::env::var_os(KEY_PASSPHRASE_FILE).map(PathBuf::from) else { return Ok(None) };
    let text = std::fs::read_to_string(&file).map(Zeroizing::new);
    let text = text.map_err(|e| {
        Fault::new(FaultCode::Keys, format!("the passphrase in {} cannot be read: {e}", file.display()))
    })?;
    Ok(Some(Passphrase::from(text.trim_end_matches(['\r', '\n']).to_owned())))
}

/// Makes a site without people in `folder`; the engine that comes back opens no links.
///
/// # Errors
/// [`FaultCode::State`] where there is a site, or another process makes one just now, and what the file system, the keychain
/// or the engine say. What was made then stands in nobody's way.
pub async fn lay_down(folder: &Path, settings: &Settings, mut config: Config) -> Result<Handle, Fault> {
    config.connect = false;
    lay_down_to_run(folder, settings, config).await
}

/// The same for an engine that stays, and opens links if its configuration says so.
pub(crate) async fn lay_down_to_run(folder: &Path, settings: &Settings, config: Config) -> Result<Handle, Fault> {
    let foundation = Foundation::begin(config)?;
    // First, so that a site which was made can always be opened; and with the folder held, so that it is this one.
    settings.write(folder)?;
    Ok(foundation.lay().await?)
}

/// When a backup was made that was restored, and how many entries of the audit log it has.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FromBackup {
    /// When it was made.
    pub made: Timestamp,
    /// Entries of the audit log in it.
    pub entries: u64,
}

/// Restores the site of a backup into `folder`, which must hold none.
///
/// # Errors
/// [`FaultCode::State`] where there is a site, [`FaultCode::Keys`] for another passphrase, [`FaultCode::Data`] for a file
/// that is no whole backup of this version, and what the file system or the keychain say.
pub async fn restore(
    folder: &Path,
    settings: &Settings,
    config: &Config,
    file: PathBuf,
    passphrase: Passphrase,
) -> Result<FromBackup, Fault> {
    put_in_place(folder, settings, Restoration::check(config, file, passphrase).await?).await
}

/// Puts the site of a checked backup into its folder.
pub(crate) async fn put_in_place(
    folder: &Path,
    settings: &Settings,
    checked: Restoration,
) -> Result<FromBackup, Fault> {
    // First, so that a site which was restored can always be opened.
    settings.write(folder)?;
    let restored = FromBackup { made: checked.made(), entries: checked.entries() };
    checked.put_in_place().await?;
    Ok(restored)
}

/// What is said to whoever would restore a backup where there is a site.
pub(crate) fn has_site() -> Fault {
    let words = "there is a site here already, or what somebody began to set up, and a backup is restored only where there is \
                 nothing; whoever administers this machine can move the site's folder away first";
    Fault::new(FaultCode::State, words)
}

/// A site whose making stopped before it had an administrator; `None` where nothing was made but the settings.
///
/// # Errors
/// [`FaultCode::State`] where there is a whole site, and what the engine says.
pub async fn half_made(folder: &Path, mut config: Config) -> Result<Option<Handle>, Fault> {
    config.connect = false;
    let handle = match hospes_party::open(config).await {
        Ok(handle) => handle,
        Err(PartyError::NotInitialised(_)) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    if handle.status().await?.phase == Phase::Empty {
        return Ok(Some(handle));
    }
    handle.shut_down().await?;
    Err(PartyError::AlreadyInitialised(folder.to_owned()).into())
}

/// Makes the data folder its owner's alone, also one that was there before.
///
/// # Errors
/// [`FaultCode::Store`] if it cannot be made.
pub fn private_folder(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|e| unwritable(folder, &e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let own = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder, own).map_err(|e| unwritable(folder, &e))?;
    }
    Ok(())
}

/// Damaged settings, with what belongs into them: whether there is a key file tells what they said.
fn damaged(folder: &Path, why: &str) -> Fault {
    let path = folder.join(SETTINGS);
    let words = if folder.join(KEY_FILE).exists() {
        format!(
            "{}, which says where this site's keys lie, is damaged ({why}). They lie in the file {KEY_FILE} beside it: write \
             this line and nothing else into the damaged file, and try again: secrets = \"file\"",
            path.display()
        )
    } else {
        format!(
            "{}, which says where this site's keys lie, is damaged ({why}). They lie in the keychain: write these two lines \
             and nothing else into the damaged file, and try again: secrets = \"keychain\" and below it service = \"hospes \
             {}\", which names the folder in which the site was set up",
            path.display(),
            std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).display()
        )
    };
    Fault::new(FaultCode::Settings, words)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => FaultCode::DiskFull,
        _ => FaultCode::Store,
    };
    Fault::new(code, format!("{} cannot be written: {error}", path.display()))
}
