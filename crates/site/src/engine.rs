//! The engine behind a command: the running one over its socket, or one opened for this question alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hospes_ipc::settings::{Settings, private_folder};
use hospes_ipc::site::Site;
use hospes_ipc::socket::{Client, Notices};
use hospes_ipc::staff::Service;
use hospes_ipc::{Call, Fault, FaultCode, Router};
use hospes_party::{Config, DeviceChoice, ManagedFile};
use serde::de::DeserializeOwned;

use crate::secret;

/// Where the engine is that a command asks.
pub(crate) enum Place {
    /// The one whose data lie in this folder.
    Folder(PathBuf),
    /// The service of this machine, asked by staff.
    Service(Service),
}

impl Place {
    /// The data folder, which a service keeps to itself.
    pub(crate) fn folder(&self) -> Result<&Path> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::Service(_) => bail!(Fault::new(
                FaultCode::Input,
                "this works on a site's data folder, which the service keeps to itself; leave --staff out, or have \
                 whoever administers this machine do it with hospes-as-service"
            )),
        }
    }

    /// Connects to the engine that runs there.
    pub(crate) async fn client(&self) -> Result<Client, Fault> {
        match self {
            Self::Folder(folder) => Client::connect(folder).await,
            Self::Service(service) => service.client_or_why().await,
        }
    }

    /// Listens to the engine that runs there.
    pub(crate) async fn notices(&self) -> Result<Notices, Fault> {
        match self {
            Self::Folder(folder) => Notices::of(folder).await,
            Self::Service(service) => service.notices().await,
        }
    }
}

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

/// The site that a service runs, its engine with links. Where staff reach it, it may be none yet.
pub(crate) async fn site(
    folder: &Path,
    for_staff: bool,
    runs_at_a_time: usize,
    device: Option<DeviceChoice>,
) -> Result<Arc<Site>> {
    if !for_staff {
        let config = Config { runs_at_a_time, device, ..config(folder)? };
        return Ok(Site::running(hospes_party::open(config).await.map_err(Fault::from)?));
    }
    private_folder(folder)?;
    let (folder, program) = (folder.to_owned(), std::env::current_exe()?);
    let place = folder.clone();
    let configure = move |settings: &Settings| -> Result<Config, Fault> {
        let config = settings.config(&place, program.clone(), secret::of_key_file_of_service)?;
        Ok(Config { runs_at_a_time, device, ..config })
    };
    Ok(Site::in_folder(folder, ManagedFile::of_system(), configure).await?)
}

/// A connection to the engine.
pub(crate) enum Connection {
    /// The running one.
    Running(Client),
    /// One opened for this command; it opens no links.
    Own(Box<Router>),
}

impl Connection {
    /// Connects to the running engine, or opens one where none runs and this account may.
    pub(crate) async fn open(place: &Place) -> Result<Self> {
        match (place.client().await, place) {
            (Ok(client), _) => Ok(Self::Running(client)),
            (Err(away), Place::Service(_)) => Err(away.into()),
            (Err(_), Place::Folder(folder)) => {
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
