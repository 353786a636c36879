//! The engine behind a command: the running one over its socket, or one opened for this question alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hospes_ipc::socket::Client;
use hospes_ipc::{Call, Fault, FaultCode, Router};
use hospes_party::keys::SecretPlace;
use hospes_party::{Config, DeviceChoice, Handle, Passphrase};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::secret;

/// Name of the settings in the data folder.
const SETTINGS: &str = "site.toml";
/// Name of the encrypted key file in the data folder.
const KEY_FILE: &str = "keys.sealed";

/// Where this site's secrets lie, as written at `init`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "secrets", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Settings {
    /// In the keychain of the operating system.
    Keychain {
        /// Name under which the keychain lists them.
        service: String,
    },
    /// In an encrypted file in the data folder.
    File,
}

impl Settings {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SETTINGS);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Fault::new(FaultCode::Store, format!("{} cannot be read: {error}", path.display())).into())
            }
            Err(_) => Err(Fault::new(
                FaultCode::NotRunning,
                format!("{} holds no site yet; run 'hospes-site init' first", folder.display()),
            )
            .into()),
        }
    }

    /// Whether there are any.
    pub(crate) fn exist(folder: &Path) -> bool {
        folder.join(SETTINGS).exists()
    }

    /// Writes the settings; they hold no secret.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(SETTINGS);
        std::fs::write(&path, toml::to_string(self)?).with_context(|| format!("write {}", path.display()))
    }

    /// The engine's configuration.
    pub(crate) fn config(&self, folder: &Path) -> Result<Config> {
        self.config_with(folder, secret::of_key_file)
    }

    /// The configuration of a site that is being made; its key file gets a new passphrase.
    pub(crate) fn new_config(&self, folder: &Path) -> Result<Config> {
        self.config_with(folder, secret::of_new_key_file)
    }

    fn config_with(&self, folder: &Path, passphrase: fn() -> Result<Passphrase>) -> Result<Config> {
        let secrets = match self {
            Self::Keychain { service } => SecretPlace::Keychain { service: service.clone() },
            Self::File => SecretPlace::File { path: folder.join(KEY_FILE), passphrase: passphrase()? },
        };
        Ok(Config::new(folder.to_path_buf(), secrets, std::env::current_exe()?))
    }
}

/// The data folder that the arguments or the environment name.
pub(crate) fn folder(argument: Option<PathBuf>) -> Result<PathBuf> {
    argument
        .or_else(hospes_ipc::socket::default_folder)
        .context("name the site's data folder with --data or HOSPES_DATA")
}

/// Opens the engine, with its links.
pub(crate) async fn open(folder: &Path, runs_at_a_time: usize, device: DeviceChoice) -> Result<Handle> {
    let config = Config { runs_at_a_time, device, ..Settings::read(folder)?.config(folder)? };
    Ok(hospes_party::open(config).await.map_err(Fault::from)?)
}

/// A connection to the engine.
pub(crate) enum Connection {
    /// The running one.
    Running(Client),
    /// One opened for this command; it opens no links.
    Own(Box<Router>),
}

impl Connection {
    /// Connects to the running engine, or opens one where none runs.
    pub(crate) async fn open(folder: &Path) -> Result<Self> {
        match Client::connect(folder).await {
            Ok(client) => Ok(Self::Running(client)),
            Err(_) => {
                let mut config = Settings::read(folder)?.config(folder)?;
                config.connect = false;
                let handle = hospes_party::open(config).await.map_err(Fault::from)?;
                Ok(Self::Own(Box::new(Router::new(handle))))
            }
        }
    }

    /// Runs one command.
    pub(crate) async fn call<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T> {
        match self {
            Self::Running(client) => Ok(client.call(call).await?),
            Self::Own(router) => {
                let value = router.call(serde_json::to_value(call)?).await?;
                Ok(serde_json::from_value(value)?)
            }
        }
    }

    /// Ends an engine that was opened for this command.
    pub(crate) async fn close(self) -> Result<()> {
        if let Self::Own(router) = self {
            router.handle().shut_down().await.map_err(Fault::from)?;
        }
        Ok(())
    }
}
