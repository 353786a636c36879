//! The site behind a service's sockets: one that runs, or none yet.
//!
//! A service without a site waits. Somebody of its staff, at a window, says who the first administrator is; then the site is
//! laid down in the service's folder with its keys in the service's key file, and the service goes on with its engine. Or
//! they hand over a backup, whose site is restored there, and its people sign in as before.
//! Nothing is started anew, and no connection ends. Whoever administers the machine may lay the site down by a command, too;
//! the service finds it.
//!
//! Nothing lies in the folder before somebody asks for a site. What an attempt left that was broken off is no site, and
//! stands in nobody's way: the first person is asked for again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hospes_party::view::{LedgerState, Phase, Status};
use hospes_party::{Config, Handle, Managed, ManagedFile, PartyError, Passphrase, Restoration};
use hospes_protocol::id::{Digest, PersonId};
use hospes_protocol::policy::Policy;
use tokio::sync::{Mutex, watch};

use crate::fault::{Fault, FaultCode};
use crate::settings::{Settings, has_site, lay_down_to_run, put_in_place};

/// Between two looks for a site that a command laid down.
const LOOK: Duration = Duration::from_secs(1);
/// Space that a new site needs: database, keys, and an audit log that goes on for a while.
const ROOM_BYTES: u64 = 64 << 20;

/// What a site's engine is to be opened with, by its settings.
type Configure = Box<dyn Fn(&Settings) -> Result<Config, Fault> + Send + Sync>;

/// The site of a service.
pub struct Site {
    place: Option<Place>,
    engine: watch::Sender<Option<Handle>>,
    /// One at a time lays the site down, or opens what a command laid down.
    turn: Mutex<()>,
}

/// Where it is laid down, if it is none yet.
struct Place {
    folder: PathBuf,
    managed: ManagedFile,
    configure: Configure,
}

/// What lies in the folder.
enum Found {
    /// A site, whose engine was opened.
    Site(Handle),
    /// One that another process works on.
    Busy,
    /// None.
    Nothing,
}

impl Site {
    /// One whose engine runs.
    pub fn running(handle: Handle) -> Arc<Self> {
        Arc::new(Self { place: None, engine: watch::Sender::new(Some(handle)), turn: Mutex::new(()) })
    }

    /// The site in `folder`, whose engine is opened with what `configure` says; if there is none, it is waited for.
    ///
    /// # Errors
    /// If what the hospital's IT set cannot be understood, or a site is there and cannot be opened.
    pub async fn in_folder(
        folder: PathBuf,
        managed: ManagedFile,
        configure: impl Fn(&Settings) -> Result<Config, Fault> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Fault> {
        managed.read()?;
        let place = Place { folder, managed, configure: Box::new(configure) };
        let engine = match place.find().await? {
            Found::Site(handle) => Some(handle),
            Found::Busy => return Err(PartyError::InUse(place.folder).into()),
            Found::Nothing => None,
        };
        Ok(Arc::new(Self { place: Some(place), engine: watch::Sender::new(engine), turn: Mutex::new(()) }))
    }

    /// Its engine, if there is a site.
    pub fn handle(&self) -> Option<Handle> {
        self.engine.borrow().clone()
    }

    /// Its engine, as soon as there is a site.
    pub async fn arrives(&self) -> Handle {
        let mut engine = self.engine.subscribe();
        loop {
            let now = engine.borrow_and_update().clone();
            if let Some(handle) = now {
                return handle;
            }
            if engine.changed().await.is_err() {
                // What tells it is this site's own, which is still there.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Looks for a site that a command lays down, and opens it. Comes back only where that fails.
    pub async fn look_out(&self) -> Fault {
        while let (None, Some(place)) = (self.handle(), &self.place) {
            tokio::time::sleep(LOOK).await;
            let _turn = self.turn.lock().await;
            if self.handle().is_some() {
                break;
            }
            match place.find().await {
                Ok(Found::Site(handle)) => self.goes_on_with(handle),
                Ok(Found::Busy | Found::Nothing) => {}
                Err(fault) => return fault,
            }
        }
        std::future::pending().await
    }

    fn goes_on_with(&self, handle: Handle) {
        tracing::info!("there is a site now, and its party runs");
        self.engine.send_replace(Some(handle));
    }

    /// Makes the first person, who asks from an account of the machine, and before that the site, if there is none.
    pub(crate) async fn set_up(&self, account: u32, name: String, passphrase: Passphrase) -> Result<PersonId, Fault> {
        // Everything that may be mistyped is checked before anything is made.
        hospes_protocol::text::check_name(&name)
            .map_err(|reason| Fault::new(FaultCode::Input, format!("the administrator's name {reason}")))?;
        passphrase.check()?;
        let engine = self.laid_down().await?;
        let person = engine.set_up_from(account, name, passphrase).await?;
        tracing::info!(account, person = %person, "somebody of the staff set this site up");
        Ok(person)
    }

    /// Restores the site of a backup for somebody who asks from an account of the machine; only where there is none.
    pub(crate) async fn restore(&self, account: u32, backup: PathBuf, passphrase: Passphrase) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        if self.handle().is_some() {
            return Err(has_site());
        }
        let place = self.place.as_ref().ok_or_else(no_site)?;
        let handle = match place.find().await? {
            Found::Site(handle) => {
                self.goes_on_with(handle);
                return Err(has_site());
            }
            Found::Busy => return Err(busy()),
            Found::Nothing => place.restore(account, backup, passphrase).await?,
        };
        tracing::info!(account, "somebody of the staff restored this site from a backup");
        self.goes_on_with(handle);
        Ok(())
    }

    async fn laid_down(&self) -> Result<Handle, Fault> {
        let _turn = self.turn.lock().await;
        if let Some(handle) = self.handle() {
            return Ok(handle);
        }
        let place = self.place.as_ref().ok_or_else(no_site)?;
        let handle = match place.find().await? {
            Found::Site(handle) => handle,
            Found::Busy => return Err(busy()),
            Found::Nothing => place.lay_down().await?,
        };
        self.goes_on_with(handle.clone());
        Ok(handle)
    }

    /// What the hospital's IT set, while there is no site that would say so.
    pub(crate) fn managed(&self) -> Result<Managed, Fault> {
        let place = self.place.as_ref().ok_or_else(no_site)?;
        Ok(place.managed.read()?)
    }

    /// How a site is that there is none of.
    pub(crate) fn status(&self) -> Status {
        let policy = Policy::strict();
        Status {
            phase: Phase::Empty,
            software: hospes_party::SOFTWARE.to_owned(),
            at: hospes_party::system_clock()(),
            stopped: None,
            public_data: policy.is_public_data(),
            policy: policy.profile,
            memberships: Vec::new(),
            waiting: 0,
            next_expiry: None,
            working: 0,
            outbox: 0,
            pause: None,
            // The root of a tree without leaves is the hash of nothing (RFC 9162, 2.1.1).
            ledger: LedgerState { entries: 0, root: Digest::of(b""), witnessed: Vec::new(), finding: None },
            alarms: Vec::new(),
        }
    }
}

/// What is said to whoever asks for something of a site that there is none of.
pub(crate) fn no_site() -> Fault {
    let words = "the service of this machine has no site yet; a member of the group hospes sets it up in the window, or \
                 whoever administers the machine with: sudo hospes-as-service init --administrator NAME --key-file";
    Fault::new(FaultCode::State, words)
}

/// What is said while another process has the folder.
fn busy() -> Fault {
    Fault::new(FaultCode::State, "a command is laying this site down just now; wait a moment, and look again")
}

impl Place {
    async fn find(&self) -> Result<Found, Fault> {
        let Some(settings) = Settings::find(&self.folder)? else { return Ok(Found::Nothing) };
        match hospes_party::open((self.configure)(&settings)?).await {
            Ok(handle) => Ok(Found::Site(handle)),
            // Its making stopped before anything was made.
            Err(PartyError::NotInitialised(_)) => Ok(Found::Nothing),
            Err(PartyError::InUse(_)) => Ok(Found::Busy),
            Err(error) => Err(error.into()),
        }
    }

    async fn lay_down(&self) -> Result<Handle, Fault> {
        let config = (self.configure)(&Settings::File)?;
        has_room(&self.folder, ROOM_BYTES)?;
        lay_down_to_run(&self.folder, &Settings::File, config).await
    }

    async fn restore(&self, account: u32, backup: PathBuf, passphrase: Passphrase) -> Result<Handle, Fault> {
        let config = (self.configure)(&Settings::File)?;
        // What is unpacked lies beside the backup, and is no longer than it.
        let bytes = std::fs::metadata(&backup).map_or(0, |file| file.len());
        has_room(&self.folder, ROOM_BYTES.saturating_add(bytes))?;
        let checked = Restoration::check_from(&config, backup, passphrase, Some(account)).await?;
        put_in_place(&self.folder, &Settings::File, checked).await?;
        Ok(hospes_party::open(config).await?)
    }
}

/// Refuses before anything is made what could only be made by half.
fn has_room(folder: &Path, needed: u64) -> Result<(), Fault> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| {
        let words = format!("cannot ask how full the disk of {} is: {error}", folder.display());
        Fault::new(FaultCode::Store, words)
    })?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < needed {
        let words = format!(
            "the disk of {} has less than {} MiB free; nothing was made. Whoever administers this machine makes room; then \
             try again",
            folder.display(),
            needed >> 20
        );
        return Err(Fault::new(FaultCode::DiskFull, words));
    }
    Ok(())
}
