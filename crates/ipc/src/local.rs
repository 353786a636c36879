//! The engine that a window speaks to: the machine's service, or, where none is installed, one in the window's own process.
//!
//! For trying out, and where nobody can install a service, the app runs the party itself and says so. It is then reached by
//! the socket in the data folder, so that a command line beside the window finds the same engine. Where a service is
//! installed, it is reached by its socket for staff ([`crate::staff`]); while it cannot be, the window waits for it. A
//! second site beside the service's would look like it and not be it, so a person has to ask for one. A site that this
//! account has already is opened where the service has none yet.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use hospes_party::{Config, DeviceChoice, Handle, Opening, PartyError, Passphrase};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::fault::{Fault, FaultCode};
use crate::settings::{Settings, half_made, key_file_passphrase, lay_down, private_folder, restore};
use crate::socket::{self, Client, Notices};
use crate::staff::{self, Away, Service, Unreached};
use crate::table::Secret;

/// Between two looks for an engine that is not there.
const LOOK: Duration = Duration::from_secs(1);
/// The same for a service, where systemd is asked what became of it.
const SERVICE_LOOK: Duration = Duration::from_secs(2);
/// Wait before an engine that ended by a fault of its own is started again.
const RESTART: Duration = Duration::from_secs(10);
/// Longest that the socket of an engine which was just started may take.
const SOCKET: Duration = Duration::from_secs(10);
/// Longest that such an engine may take to say how it is.
const STATUS: Duration = Duration::from_secs(60);
/// How long another process may take to let the site go: an app that was killed ends a moment after its window.
const LET_GO: Duration = Duration::from_secs(10);
/// Between two looks whether it did.
const LET_GO_LOOK: Duration = Duration::from_millis(200);
/// Environment variable that says what networks are trained on, whatever the site's people set.
const DEVICE: &str = "HOSPES_DEVICE";

/// Where the engine is that this window speaks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// It is being looked for, or starts.
    Starting,
    /// A service of this machine; it goes on when nobody is logged in.
    Service,
    /// In this app's own process; it ends with the app.
    Here,
    /// There is no site on this machine yet.
    NotSetUp,
    /// The site's key file waits for its passphrase.
    Locked,
    /// It does not run.
    Failed {
        /// Why, and what to do.
        fault: Fault,
    },
    /// This machine has a service, which is not to be had; the window waits for it and runs nothing in its place.
    ServiceAway {
        /// Why.
        why: Away,
    },
}

/// What a start is at, or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum StartStep {
    /// The machine's service, or an engine that runs, is looked for.
    Looking,
    /// Another process has the site open and is to let it go.
    Folder,
    /// The database is checked.
    Database,
    /// The keychain of the operating system is opened; it may ask for its own password.
    Keychain,
    /// The key file is opened.
    KeyFile,
    /// The engine takes up what was under way.
    Engine,
}

/// Where a new site keeps its keys.
#[derive(Debug, Clone, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum NewKeys {
    /// In the keychain of the operating system.
    Keychain,
    /// In an encrypted file, which this passphrase opens.
    File {
        /// The passphrase; nobody can tell it again.
        passphrase: Secret,
    },
}

/// An engine that was found.
struct Found {
    notices: Notices,
    /// Whether it is the service's, which [`Local::tell_of_service`] told of.
    is_service: bool,
}

impl Found {
    fn of_folder(notices: Notices) -> Self {
        Self { notices, is_service: false }
    }
}

/// Whose engine this window speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The service's if it can be reached, else this account's.
    Open,
    /// The service's: it was reached, and nothing takes its place when it goes.
    Service,
    /// This account's: there is nothing else to look for, a person chose so, or its engine ran here.
    Own,
}

/// The engine of this machine, as one window process finds or runs it.
pub struct Local {
    folder: PathBuf,
    program: PathBuf,
    service: Option<Service>,
    side: std::sync::Mutex<Side>,
    adjust: fn(&mut Config),
    state: watch::Sender<EngineState>,
    step: std::sync::Mutex<StartStep>,
    own: Mutex<Option<Own>>,
    again: Notify,
}

/// The engine in this process.
struct Own {
    handle: Handle,
    served: JoinHandle<()>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Local {
    /// Looks for the service of the machine, if one is named, and else for the engine whose data lie in `folder`;
    /// [`Local::keep`] does so for as long as it runs. `program` is started for work on data.
    pub fn new(folder: PathBuf, program: PathBuf, service: Option<Service>) -> Arc<Self> {
        Self::adjusted(folder, program, service, |_| {})
    }

    /// The same with a configuration that is changed before it is used, for tests.
    pub fn adjusted(folder: PathBuf, program: PathBuf, service: Option<Service>, adjust: fn(&mut Config)) -> Arc<Self> {
        let (state, _) = watch::channel(EngineState::Starting);
        let side = std::sync::Mutex::new(if service.is_some() { Side::Open } else { Side::Own });
        let step = std::sync::Mutex::new(StartStep::Looking);
        let (own, again) = (Mutex::new(None), Notify::new());
        Arc::new(Self { folder, program, service, side, adjust, state, step, own, again })
    }

    /// Where a site of this account lies, or would.
    pub fn own_folder(&self) -> &Path {
        &self.folder
    }

    /// The data folder of the engine that this window speaks to; this account's while it speaks to none.
    pub fn shown_folder(&self) -> &Path {
        let is_service = self.side() == Side::Service && self.state() == EngineState::Service;
        if is_service { Path::new(staff::DATA) } else { &self.folder }
    }

    /// Connects to the engine that this window speaks to.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it is not running, or was not found yet.
    pub async fn client(&self) -> Result<Client, Fault> {
        match self.reached()? {
            Some(service) => service.client().await,
            None => Client::connect(&self.folder).await,
        }
    }

    /// Listens to it.
    ///
    /// # Errors
    /// As [`Local::client`].
    pub async fn notices(&self) -> Result<Notices, Fault> {
        match self.reached()? {
            Some(service) => service.notices().await,
            None => Notices::of(&self.folder).await,
        }
    }

    /// The service, if it is its engine that this window speaks to. While that is open, nobody is to sign in at one of two.
    fn reached(&self) -> Result<Option<&Service>, Fault> {
        match self.side() {
            Side::Service => Ok(self.service.as_ref()),
            Side::Open if !matches!(self.state(), EngineState::Service | EngineState::Here) => {
                Err(Fault::new(FaultCode::NotRunning, "the engine is being looked for"))
            }
            Side::Open | Side::Own => Ok(None),
        }
    }

    /// Whether it is the service that this window speaks to, also while that is away.
    pub(crate) fn is_with_service(&self) -> bool {
        self.side() == Side::Service
    }

    fn side(&self) -> Side {
        *self.turning()
    }

    fn turning(&self) -> MutexGuard<'_, Side> {
        // Nothing that could be half done happens while it is held.
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what became of the service, and turns to it where it runs; not once an engine of this account was taken.
    fn tell_of_service(&self, state: EngineState) -> bool {
        let mut side = self.turning();
        if *side == Side::Own {
            return false;
        }
        if state == EngineState::Service {
            *side = Side::Service;
        }
        self.tell(state);
        true
    }

    /// Takes an engine of this account for good, so that nobody who begins at one signs in at the other.
    fn turn_here(&self) -> Result<(), Fault> {
        let mut side = self.turning();
        if *side == Side::Service {
            return Err(Fault::new(FaultCode::State, "the service of this machine answers now; sign in there"));
        }
        *side = Side::Own;
        Ok(())
    }

    /// Where the engine is now.
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// What the last start was at last: while the state is [`EngineState::Starting`], what is waited for.
    pub fn step(&self) -> StartStep {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_at(&self, step: StartStep) {
        let before = std::mem::replace(&mut *self.step.lock().unwrap_or_else(PoisonError::into_inner), step);
        if before != step {
            // Where a window stays in its start, this says since when, and at what.
            tracing::info!(?step, "the engine is being started");
        }
    }

    /// Tells when that changes.
    pub fn states(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    /// Finds the engine, starts one where none runs, and does so again whenever it is gone. Never comes back.
    pub async fn keep(&self) {
        loop {
            if self.state() == EngineState::Starting {
                self.is_at(StartStep::Looking);
            }
            match self.find().await {
                Ok(Some(Found { notices, is_service })) => {
                    let here = self.runs_here().await;
                    if !is_service {
                        self.tell(if here { EngineState::Here } else { EngineState::Service });
                    }
                    if self.goes_away(notices, is_service).await {
                        self.went_away(here).await;
                    }
                }
                Ok(None) if matches!(self.state(), EngineState::Starting | EngineState::ServiceAway { .. }) => {
                    if let Err(fault) = self.start(None).await {
                        self.tell(EngineState::Failed { fault });
                    }
                }
                // Told to try again, or a service may have been started meanwhile.
                Ok(None) => self.wait(LOOK).await,
                Err(state) => {
                    self.tell_of_service(state);
                    self.wait(SERVICE_LOOK).await;
                }
            }
        }
    }

    async fn wait(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.again.notified()).await;
    }

    /// Waits until the engine is gone, or somebody turns away from the service; whether it is gone.
    async fn goes_away(&self, mut notices: Notices, is_service: bool) -> bool {
        loop {
            tokio::select! {
                notice = notices.next() => if notice.is_err() { return true },
                () = self.again.notified(), if is_service => return false,
            }
        }
    }

    async fn runs_here(&self) -> bool {
        self.own.lock().await.is_some()
    }

    /// The engine that runs; nothing where this process may run one. The error is the state in which it waits for the
    /// service instead.
    async fn find(&self) -> Result<Option<Found>, EngineState> {
        let side = self.side();
        let Some(service) = self.service.as_ref().filter(|_| side != Side::Own) else {
            return Ok(self.find_own().await);
        };
        let closed = match service.reach().await {
            Ok(stream) => {
                let unsaid = |fault| EngineState::Failed { fault };
                // Nobody signed in there yet, and somebody did here.
                if side == Side::Open && self.has_site() && service.is_empty().await.map_err(unsaid)? {
                    return Ok(self.find_own().await);
                }
                return match Notices::on(stream).await {
                    Ok(notices) if self.tell_of_service(EngineState::Service) => {
                        Ok(Some(Found { notices, is_service: true }))
                    }
                    Ok(_) => Ok(self.find_own().await),
                    Err(_) => Err(EngineState::ServiceAway { why: Away::Stopped }),
                };
            }
            Err(Unreached::Closed(kind)) => kind,
            Err(others_could_answer) => return Err(EngineState::Failed { fault: others_could_answer.into() }),
        };
        if side == Side::Service {
            // Also where its package was taken away: people were at work there.
            let why = service.why(closed).await.unwrap_or(Away::Stopped);
            return Err(EngineState::ServiceAway { why });
        }
        // While the window stands before a site of this account, the service is only listened for.
        let is_open = matches!(self.state(), EngineState::Starting | EngineState::ServiceAway { .. });
        if is_open && let Some(why) = self.in_the_way(service, closed).await {
            return Err(EngineState::ServiceAway { why });
        }
        Ok(self.find_own().await)
    }

    async fn find_own(&self) -> Option<Found> {
        Notices::of(&self.folder).await.ok().map(Found::of_folder)
    }

    /// Why nothing of this account is opened while the service cannot be reached. A site that this account has is opened
    /// where the service does not let it in.
    async fn in_the_way(&self, service: &Service, closed: ErrorKind) -> Option<Away> {
        service.why(closed).await.filter(|why| *why == Away::Stopped || !self.has_site())
    }

    /// Refuses a new site beside a service that was not there when the window looked, and takes this account's from then on.
    async fn no_service_came(&self) -> Result<(), Fault> {
        let Some(service) = self.service.as_ref().filter(|_| self.side() != Side::Own) else { return Ok(()) };
        let (state, fault) = match service.reach().await {
            Ok(_) => {
                let words = "this machine has a service now, which is shown in a moment; nothing was made here";
                (EngineState::Starting, Fault::new(FaultCode::State, words))
            }
            Err(Unreached::Closed(kind)) => match self.in_the_way(service, kind).await {
                Some(why) => {
                    let fault = Fault::new(FaultCode::State, why.words());
                    (EngineState::ServiceAway { why }, fault)
                }
                None => return self.turn_here(),
            },
            Err(others_could_answer) => {
                let fault = Fault::from(others_could_answer);
                (EngineState::Failed { fault: fault.clone() }, fault)
            }
        };
        self.tell_of_service(state);
        self.again.notify_one();
        Err(fault)
    }

    /// Whether this account has a site, also one whose settings cannot be read.
    fn has_site(&self) -> bool {
        !matches!(Settings::find(&self.folder), Ok(None))
    }

    /// A service that stopped is its administrator's to start: taking its place could keep it from coming back. An engine
    /// of this process is started again.
    async fn went_away(&self, was_here: bool) {
        let gone = |words: &str| EngineState::Failed { fault: Fault::new(FaultCode::NotRunning, words) };
        if self.side() == Side::Service {
            self.tell(EngineState::ServiceAway { why: Away::Stopped });
            // One that lets a connection go at once is not asked again and again.
            return self.wait(SERVICE_LOOK).await;
        }
        if !was_here {
            return self.tell(gone("the service of this site has stopped; it is shown again when it runs"));
        }
        if let Some(own) = self.own.lock().await.take() {
            own.handle.ended().await;
            self.tell(gone("the engine ended by a fault of its own; it is started again in a moment"));
            tokio::time::sleep(RESTART).await;
            self.tell(EngineState::Starting);
        }
    }

    /// Tries once more to start an engine that did not start, or looks once more for the service.
    ///
    /// # Errors
    /// [`FaultCode::State`] if it runs.
    pub fn try_again(&self) -> Result<(), Fault> {
        match self.state() {
            EngineState::Failed { .. } | EngineState::Locked => self.tell(EngineState::Starting),
            EngineState::Starting | EngineState::ServiceAway { .. } => {}
            _ => return Err(Fault::new(FaultCode::State, "the engine does not wait to be started")),
        }
        self.again.notify_one();
        Ok(())
    }

    /// Takes an engine of this account although the machine has a service: a person chose so, to try out.
    ///
    /// # Errors
    /// [`FaultCode::State`] where the window does not wait for a service, nor the service for its first person, and
    /// [`FaultCode::NotRunning`] where the service does not say whether it does.
    pub async fn try_here(&self) -> Result<(), Fault> {
        let state = self.state();
        let waits = match (&state, &self.service) {
            (EngineState::ServiceAway { .. }, _) => true,
            (EngineState::Service, Some(service)) => service.is_empty().await?,
            _ => false,
        };
        let mut side = self.turning();
        if !waits || self.state() != state {
            let words = "the window does not wait for a service, nor the service for its first person";
            return Err(Fault::new(FaultCode::State, words));
        }
        *side = Side::Own;
        self.tell(EngineState::Starting);
        self.again.notify_one();
        Ok(())
    }

    /// Opens the site's key file.
    ///
    /// # Errors
    /// [`FaultCode::State`] if nothing is locked, [`FaultCode::Keys`] for another passphrase.
    pub async fn unlock(&self, passphrase: Passphrase) -> Result<(), Fault> {
        if self.state() != EngineState::Locked {
            return Err(Fault::new(FaultCode::State, "nothing here waits for a passphrase"));
        }
        self.start(Some(passphrase)).await?;
        self.again.notify_one();
        Ok(())
    }

    /// Lays down a site with its first administrator, and starts its engine.
    ///
    /// # Errors
    /// [`FaultCode::State`] where there is one, or a service came to this machine, [`FaultCode::Input`] for a name or
    /// passphrase that cannot be, and what the keychain says.
    pub async fn initialise(&self, administrator: String, passphrase: Passphrase, keys: NewKeys) -> Result<(), Fault> {
        if self.state() != EngineState::NotSetUp {
            return Err(Fault::new(
                FaultCode::State,
                "this machine has a site already, or its engine is still starting",
            ));
        }
        hospes_protocol::text::check_name(&administrator)
            .map_err(|reason| Fault::new(FaultCode::Input, format!("the administrator's name {reason}")))?;
        passphrase.check()?;
        self.no_service_came().await?;
        private_folder(&self.folder)?;
        let (settings, key) = self.place_of(keys)?;
        let begun = match Settings::find(&self.folder)? {
            Some(begun) => half_made(&self.folder, self.config(&begun, key.clone())?).await?,
            None => None,
        };
        let handle = match begun {
            Some(handle) => handle,
            None => lay_down(&self.folder, &settings, self.config(&settings, key.clone())?).await?,
        };
        let set_up = handle.set_up(administrator, passphrase).await;
        handle.shut_down().await?;
        set_up?;
        self.start(key).await?;
        self.again.notify_one();
        Ok(())
    }

    /// Restores the site of a backup, and starts its engine.
    ///
    /// # Errors
    /// [`FaultCode::State`] where there is a site, or a service came to this machine, and those of
    /// [`settings::restore`](crate::settings::restore).
    pub async fn restore(&self, file: PathBuf, passphrase: Passphrase, keys: NewKeys) -> Result<(), Fault> {
        if self.state() != EngineState::NotSetUp {
            return Err(Fault::new(
                FaultCode::State,
                "this machine has a site already, or its engine is still starting",
            ));
        }
        self.no_service_came().await?;
        private_folder(&self.folder)?;
        let (settings, key) = self.place_of(keys)?;
        let config = self.config(&settings, key.clone())?;
        restore(&self.folder, &settings, &config, file, passphrase).await?;
        self.start(key).await?;
        self.again.notify_one();
        Ok(())
    }

    fn place_of(&self, keys: NewKeys) -> Result<(Settings, Option<Passphrase>), Fault> {
        Ok(match keys {
            NewKeys::Keychain => (Settings::keychain(&self.folder)?, None),
            NewKeys::File { passphrase } => {
                passphrase.passphrase().check()?;
                (Settings::File, Some(passphrase.passphrase()))
            }
        })
    }

    /// Ends an engine of this process in good order; work that was under way goes on at the next start.
    pub async fn stop(&self) {
        let own = self.own.lock().await.take();
        if let Some(mut own) = own {
            // It may have ended by itself.
            let _ = own.handle.shut_down().await;
            // Whoever looks now must not take a socket that is closing for that of a service.
            let _ = (&mut own.served).await;
        }
    }

    fn config(&self, settings: &Settings, passphrase: Option<Passphrase>) -> Result<Config, Fault> {
        let locked = || Fault::new(FaultCode::Keys, "the site's key file needs its passphrase");
        let mut config = settings.config(&self.folder, self.program.clone(), || passphrase.ok_or_else(locked))?;
        config.device = device(std::env::var_os(DEVICE))?;
        (self.adjust)(&mut config);
        Ok(config)
    }

    /// Starts the engine in this process, or finds out what keeps it from starting.
    async fn start(&self, passphrase: Option<Passphrase>) -> Result<(), Fault> {
        let Some(settings) = Settings::find(&self.folder)? else {
            self.tell(EngineState::NotSetUp);
            return Ok(());
        };
        if settings == Settings::File && passphrase.is_none() && key_file_passphrase()?.is_none() {
            self.tell(EngineState::Locked);
            return Ok(());
        }
        let keys = if settings == Settings::File { StartStep::KeyFile } else { StartStep::Keychain };
        let handle = match self.open(self.config(&settings, passphrase)?, keys).await {
            Ok(Some(handle)) => handle,
            // It is found in a moment.
            Ok(None) => return Ok(()),
            // Laid down, but its making stopped before anything was made.
            Err(PartyError::NotInitialised(_)) => {
                self.tell(EngineState::NotSetUp);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(status) = tokio::time::timeout(STATUS, handle.status()).await else {
            let words = format!("the engine was started and does not say within {} s how it is", STATUS.as_secs());
            return Err(Fault::new(FaultCode::NotRunning, words));
        };
        if status?.phase == hospes_party::view::Phase::Empty {
            handle.shut_down().await?;
            self.tell(EngineState::NotSetUp);
            return Ok(());
        }
        if let Err(turned) = self.turn_here() {
            handle.shut_down().await?;
            return Err(turned);
        }
        let (folder, served) = (self.folder.clone(), handle.clone());
        let served = tokio::spawn(async move {
            tokio::select! {
                served = socket::serve(&folder, served.clone()) => if let Err(error) = served {
                    tracing::error!(%error, "the local socket cannot be served");
                },
                () = served.ended() => {}
            }
        });
        *self.own.lock().await = Some(Own { handle, served });
        let answers = async {
            while Client::connect(&self.folder).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(SOCKET, answers).await.is_err() {
            self.stop().await;
            let words = format!("the socket in {} cannot be made", self.folder.display());
            return Err(Fault::new(FaultCode::Store, words));
        }
        self.tell(EngineState::Here);
        Ok(())
    }

    /// Opens the site; nothing where another process serves it. One that has it and does not may be an app that was killed
    /// a moment ago, and is waited for.
    async fn open(&self, config: Config, keys: StartStep) -> Result<Option<Handle>, PartyError> {
        let end = Instant::now() + LET_GO;
        let mut progress = |opening: Opening| match opening {
            Opening::Database => self.is_at(StartStep::Database),
            Opening::Keys => self.is_at(keys),
            Opening::Engine => self.is_at(StartStep::Engine),
        };
        loop {
            let opened = hospes_party::open_telling(config.clone(), &mut progress).await;
            if !matches!(opened, Err(PartyError::InUse(_))) {
                return opened.map(Some);
            }
            if self.is_served().await {
                return Ok(None);
            }
            if Instant::now() >= end {
                return opened.map(Some);
            }
            self.is_at(StartStep::Folder);
            tokio::time::sleep(LET_GO_LOOK).await;
        }
    }

    /// Whether somebody answers for the site of this account.
    async fn is_served(&self) -> bool {
        Client::connect(&self.folder).await.is_ok()
    }

    fn tell(&self, state: EngineState) {
        self.state.send_if_modified(|now| {
            let is_new = *now != state;
            *now = state;
            is_new
        });
    }
}

/// What the environment says networks are trained on; nothing where it is empty.
fn device(said: Option<OsString>) -> Result<Option<DeviceChoice>, Fault> {
    let Some(said) = said.filter(|said| !said.is_empty()) else { return Ok(None) };
    let read = said.to_string_lossy().parse::<DeviceChoice>();
    read.map(Some).map_err(|words| Fault::new(FaultCode::Input, format!("{DEVICE}: {words}")))
}

/// The program that works on data for an engine in this process: the service's beside it, which links no window, or this
/// one.
///
/// # Errors
/// If the system does not say where this program lies.
pub fn program() -> std::io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let service = this.with_file_name("hospes-site");
    Ok(if service.is_file() { service } else { this })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_device_or_none_and_nothing_else() {
        let of = |text: &str| device(Some(text.into()));
        assert_eq!((device(None).unwrap(), of("").unwrap()), (None, None));
        assert_eq!(of("cpu").unwrap(), Some(DeviceChoice::Processor));
        assert_eq!(of("integrated:1").unwrap().map(|choice| choice.to_string()), Some("integrated:1".to_owned()));
        let wrong = of("quantum").unwrap_err();
        assert_eq!(wrong.code, FaultCode::Input);
        assert!(wrong.words.contains("HOSPES_DEVICE: 'quantum' is no device: write auto, cpu, gpu"), "{wrong:?}");
    }
}
