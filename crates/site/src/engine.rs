//! The engine behind a command: the running one over its socket, or one opened for this question alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hospes_ipc::settings::Settings;
use hospes_ipc::socket::Client;
use hospes_ipc::{Call, Fault, Router};
use hospes_party::{Config, DeviceChoice, Handle};
use serde::de::DeserializeOwned;

use crate::secret;

/// The data folder that the arguments or the environment name.
pub(crate) fn folder(argument: Option<PathBuf>) -> Result<PathBuf> {
    argument
        .or_else(hospes_ipc::socket::default_folder)
        .context("name the site's data folder with --data or HOSPES_DATA")
}

/// The configuration of the site in the folder; a key file's passphrase is asked for.
fn config(folder: &Path) -> Result<Config> {
    Settings::read(folder)?.config(folder, std::env::current_exe()?, secret::of_key_file)
}

/// Opens the engine, with its links.
pub(crate) async fn open(folder: &Path, runs_at_a_time: usize, device: Option<DeviceChoice>) -> Result<Handle> {
    let config = Config { runs_at_a_time, device, ..config(folder)? };
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
                let mut config = config(folder)?;
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
