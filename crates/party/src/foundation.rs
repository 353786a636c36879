//! Laying down a site. From the first look whether there is one until its engine runs, the folder is this process's alone:
//! nobody opens a site without people in the place of whoever makes it, and of two who make one at a time, one is refused
//! before anything is changed.

use std::fs::File;

use crate::config::Config;
use crate::engine::{Engine, lock, make_folder};
use crate::error::PartyError;
use crate::handle::{Handle, run};

/// A folder that is held for the site that is laid down in it; let go with this.
pub struct Foundation {
    config: Config,
    lock: File,
}

impl Foundation {
    /// Takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`PartyError::AlreadyInitialised`] where there is a site, [`PartyError::InUse`] where another process makes or restores
    /// one just now, [`PartyError::ManagedFile`], and what the file system says.
    pub fn begin(config: Config) -> Result<Self, PartyError> {
        // A site that could not be opened afterwards is not made.
        config.managed.read()?;
        make_folder(&config.folder)?;
        // One that runs holds the lock, and is told of as a site all the same.
        refuse_site(&config)?;
        let lock = lock(&config)?;
        // Another process may have made one meanwhile.
        refuse_site(&config)?;
        Ok(Self { config, lock })
    }

    /// Lays the site down, and starts its engine.
    ///
    /// # Errors
    /// What the file system and the keychain say, and those of [`crate::open`]. What was made then stands in nobody's way.
    pub async fn lay(self) -> Result<Handle, PartyError> {
        let Self { config, lock } = self.make().await?;
        run(config, lock, &mut |_| {}).await
    }

    pub(crate) async fn make(self) -> Result<Self, PartyError> {
        Engine::initialise(&self.config, &self.lock).await?;
        Ok(self)
    }
}

fn refuse_site(config: &Config) -> Result<(), PartyError> {
    match config.database().exists() {
        true => Err(PartyError::AlreadyInitialised(config.folder.clone())),
        false => Ok(()),
    }
}
