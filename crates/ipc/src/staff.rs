//! The socket for staff: by it, people under accounts of their own reach the service of their machine.
//!
//! Who may connect, the system says: socket and folder let in the members of one group. Who somebody is at the site and
//! what they may do is said by their passphrase and the engine, as everywhere. Two accounts trust each other no further:
//!
//! - The service reads and writes no file that a caller names; files are handed over (`handed`).
//! - A window sends nothing before it has seen that nobody but the service can answer there ([`Service`]).
//!
//! Where the service has no site yet, whoever is let in may lay it down with themselves, or somebody whom they name, as its
//! first administrator, or hand over a backup of a site that is restored ([`crate::site`]): until then there is nobody who
//! could be asked, and nothing that could be lost.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hospes_party::view::{Phase, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::command::written;
use crate::fault::{Fault, FaultCode};
use crate::handed::Handed;
use crate::router::{Router, read};
use crate::site::{Site, no_site};
use crate::socket::{Caller, Client, Notices, converse, listen};
use crate::table::Call;

/// Where the installed service serves it.
pub const SOCKET: &str = "/run/hospes/staff.sock";
/// The installed service's data folder, shown to whoever must find it.
pub(crate) const DATA: &str = "/var/lib/hospes";
/// What systemd calls the service.
const UNIT: &str = "hospes-site.service";
/// Is there where systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Folder for files that are handed over, in the data folder.
const HANDED: &str = "handed";
/// Connections of one account at a time; a window has five.
const CONNECTIONS: usize = 32;
/// Connections of all together: one account can be many where it may make containers, and the engine needs files, too.
const TOGETHER: usize = 512;
/// Longest request of somebody who is logged in, or might set the site up: a piece of a file, and more than any command
/// needs.
const REQUEST_BYTES: u32 = 4 << 20;
/// The same of anybody else: whoever is nobody here must not make the service keep much.
const STRANGER_BYTES: u32 = 64 << 10;
/// Wait of an account after it could not log in, whatever name it tried.
const WRONG: Duration = Duration::from_secs(1);
/// Wait after a connection that could not be accepted.
const BREATH: Duration = Duration::from_millis(100);
/// Longest that systemd may take to say what it knows.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest that the service may take to say whether it waits for its first person.
const STATUS: Duration = Duration::from_secs(10);

/// Serves the site, whose data lie or will lie in `data`, on a socket for staff until the future is dropped, and every
/// connection with it. Whoever may enter its folder may connect, and so whoever is in the folder's group.
///
/// # Errors
/// If the socket cannot be made, another process serves it, or others could take its place.
pub async fn serve(socket: &Path, data: &Path, site: Arc<Site>) -> std::io::Result<()> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let own = rustix::process::geteuid().as_raw();
    if !owner_of(folder).is_ok_and(|owner| owner == own || owner == 0) {
        let words = format!(
            "{} must be there and belong to this account or root, and nobody else may change it or what is above it",
            folder.display()
        );
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, words));
    }
    // Staff would sign in at another site without seeing it.
    match UnixStream::connect(socket).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        _ => {
            let words = format!("another process serves {} already", socket.display());
            return Err(std::io::Error::new(ErrorKind::AddrInUse, words));
        }
    }
    let handed = data.join(HANDED);
    Handed::sweep(&handed)?;
    let listener = listen(socket, 0o660)?;
    let mut accounts: HashMap<u32, Account> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // One who opens too many must not end the service.
                tracing::warn!(%error, "a connection of staff could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(peer) = stream.peer_cred() else { continue };
        let account = accounts.entry(peer.uid()).or_insert_with(Account::new);
        let place = account.places.clone().try_acquire_owned();
        let Some(place) = place.ok().filter(|_| connections.len() < TOGETHER) else {
            // Once: whoever could fill the log could hide in it.
            if !std::mem::replace(&mut account.was_refused, true) {
                tracing::warn!(account = peer.uid(), "this account, or all together, have too many connections");
            }
            continue;
        };
        let visit = Visit {
            site: site.clone(),
            router: OnceLock::new(),
            handed: Handed::new(handed.clone()),
            account: peer.uid(),
            process: peer.pid(),
            door: account.door.clone(),
        };
        connections.spawn(async move {
            converse(stream, Caller::Staff(visit)).await;
            drop(place);
        });
    }
}

/// What an account of the machine may take of the service.
struct Account {
    /// Connections.
    places: Arc<Semaphore>,
    /// Attempts to log in: one at a time.
    door: Arc<Semaphore>,
    was_refused: bool,
}

impl Account {
    fn new() -> Self {
        let of = |count| Arc::new(Semaphore::new(count));
        Self { places: of(CONNECTIONS), door: of(1), was_refused: false }
    }
}

/// One connection of somebody under an account of their own.
pub(crate) struct Visit {
    site: Arc<Site>,
    /// Whoever is logged in, at the engine; as soon as there is one.
    router: OnceLock<Router>,
    handed: Handed,
    account: u32,
    process: Option<i32>,
    door: Arc<Semaphore>,
}

impl Visit {
    /// The way to the engine; none while there is no site.
    pub(crate) fn router(&self) -> Option<&Router> {
        match self.router.get() {
            Some(router) => Some(router),
            None => self.site.handle().map(|handle| self.router.get_or_init(|| Router::new(handle))),
        }
    }

    /// The same, as soon as there is a site.
    pub(crate) async fn arrival(&self) -> &Router {
        let handle = self.site.arrives().await;
        self.router.get_or_init(|| Router::new(handle))
    }

    /// Longest request in bytes that is read now.
    pub(crate) fn longest(&self) -> u32 {
        if self.router().is_none_or(Router::is_entered) { REQUEST_BYTES } else { STRANGER_BYTES }
    }

    /// Answers `{"files": …}`, and `{"call": …}`, with the number of its `bundle` where the command names files.
    pub(crate) async fn answer(&self, mut request: Value) -> Result<Value, Fault> {
        if let Some(parcel) = request.get_mut("files").map(Value::take) {
            return self.handed.answer(read(parcel)?, self.router()).await;
        }
        let mut call = Call::read(request.get_mut("call").map(Value::take).unwrap_or_default())?;
        if self.router().is_none() && !matches!(call, Call::SetUp { .. } | Call::RestoreSite { .. }) {
            return self.without_a_site(&call);
        }
        let bundle = request.get("bundle").and_then(Value::as_u64);
        let enters = matches!(call, Call::LogIn { .. });
        if enters || matches!(call, Call::LogOut { .. }) {
            self.handed.forget();
        }
        let placed = self.handed.put_into(bundle, &mut call)?;
        let answer = self.carry_out(call).await;
        if let Some(bundle) = bundle {
            self.handed.carried_out(bundle, placed, answer.is_ok()).await;
        }
        if enters {
            self.record(&answer);
        }
        answer
    }

    /// Carries a command out, of which the files lie in their places.
    async fn carry_out(&self, call: Call) -> Result<Value, Fault> {
        match call {
            Call::SetUp { name, passphrase } => {
                let set_up = Box::pin(self.site.set_up(self.account, name, passphrase.passphrase()));
                self.at_the_door(async { written(&set_up.await?) }).await
            }
            Call::RestoreSite { path, passphrase } => {
                let restore = Box::pin(self.site.restore(self.account, path, passphrase.passphrase()));
                self.at_the_door(async { written(&restore.await?) }).await
            }
            call => {
                let router = self.router().ok_or_else(no_site)?;
                match call {
                    Call::LogIn { .. } | Call::Activate { .. } => self.at_the_door(router.carry_out(call)).await,
                    _ => router.carry_out(call).await,
                }
            }
        }
    }

    /// What can be asked while there is no site.
    fn without_a_site(&self, call: &Call) -> Result<Value, Fault> {
        match call {
            Call::Status {} => written(&self.site.status()),
            Call::Managed {} => written(&self.site.managed()?),
            _ => Err(no_site()),
        }
    }

    /// Carries out what passphrases and codes can be guessed with, or makes keys. The engine makes those wait whose names
    /// are guessed at; whoever tries ever new names would keep it busy, and fill its audit log.
    async fn at_the_door(&self, work: impl Future<Output = Result<Value, Fault>>) -> Result<Value, Fault> {
        let place = self.door.clone().acquire_owned().await;
        let answer = work.await;
        if answer.is_err() {
            tokio::spawn(async move {
                tokio::time::sleep(WRONG).await;
                drop(place);
            });
        }
        answer
    }

    /// Under which account somebody logged in, or tried to: the audit log says who, this says from where.
    fn record(&self, answer: &Result<Value, Fault>) {
        let (account, process) = (self.account, self.process.unwrap_or_default());
        match answer {
            Ok(me) => {
                let person = me.get("id").and_then(Value::as_str).unwrap_or_default();
                tracing::info!(account, process, person, "somebody of the staff logged in");
            }
            Err(fault) => {
                let reference = fault.reference.as_deref().unwrap_or_default();
                tracing::warn!(account, process, reference, "somebody of the staff could not log in");
            }
        }
    }
}

/// Why the service of this machine is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ts_rs::TS)]
#[serde(rename_all = "snake_case")]
pub enum Away {
    /// It does not run; whether it has a site, nobody could say.
    Stopped,
    /// It lets in the members of the group `hospes`, and this account is none, or was none when it logged in.
    NoAccess {
        /// This account.
        account: String,
    },
}

impl Away {
    /// What is in the way, and what to do.
    pub fn words(&self) -> String {
        match self {
            Self::Stopped => {
                "the service of this machine does not run; start it: sudo systemctl enable --now hospes-site".to_owned()
            }
            Self::NoAccess { account } => format!(
                "the service of this machine lets in members of the group hospes, and this account is none; \
                 add it and log in to the machine again: sudo usermod -aG hospes {account}"
            ),
        }
    }
}

/// The service of this machine, as it is reached from other accounts.
///
/// Its socket lies in a folder that only root could make and only the service can change, and the system says under which
/// account the process listens that is reached: no other account of the machine can pretend to be the service.
#[derive(Debug, Clone)]
pub struct Service {
    socket: PathBuf,
    systemctl: PathBuf,
    /// Longest that it may take to say how it is.
    patience: Duration,
}

/// Why there is no connection to it.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// Nobody answers, or this account is not let in.
    Closed(ErrorKind),
    /// Somebody else could answer there: this can be changed by others.
    Unsafe(PathBuf),
}

impl From<Unreached> for Fault {
    fn from(unreached: Unreached) -> Self {
        match unreached {
            Unreached::Closed(kind) => {
                Self::new(FaultCode::NotRunning, format!("the service of this machine does not answer ({kind})"))
            }
            Unreached::Unsafe(place) => {
                let words = format!(
                    "others than root and the service can change {}, or answer there, so that whoever answers may not \
                     be the service; nothing was sent to them. Show this to your IT department",
                    place.display()
                );
                Self::new(FaultCode::State, words)
            }
        }
    }
}

impl Service {
    /// The service that packages install; `None` where `HOSPES_DATA` names a data folder: whoever does so means that one.
    pub fn of_system() -> Option<Self> {
        let is_named = std::env::var_os("HOSPES_DATA").is_some_and(|folder| !folder.is_empty());
        (!is_named).then(|| Self::at(SOCKET.into()))
    }

    /// A service with this socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, systemctl: "systemctl".into(), patience: STATUS }
    }

    /// The same where another program knows whether it is installed, for tests.
    #[must_use]
    pub fn known_to(self, systemctl: PathBuf) -> Self {
        Self { systemctl, ..self }
    }

    /// The same where it may take this long to say how it is, for tests.
    #[must_use]
    pub fn waited_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Connects to it.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it does not answer, [`FaultCode::State`] if somebody else could.
    pub async fn client(&self) -> Result<Client, Fault> {
        Ok(Client::on(self.reach().await?, true))
    }

    /// Listens to it.
    ///
    /// # Errors
    /// As [`Service::client`].
    pub async fn notices(&self) -> Result<Notices, Fault> {
        Notices::on(self.reach().await?).await
    }

    /// Connects to it, and says what to do where that cannot be.
    ///
    /// # Errors
    /// As [`Service::client`].
    pub async fn client_or_why(&self) -> Result<Client, Fault> {
        match self.reach().await {
            Ok(stream) => Ok(Client::on(stream, true)),
            Err(Unreached::Closed(kind)) => {
                let why = self.why(kind).await.map(|away| Fault::new(FaultCode::NotRunning, away.words()));
                Err(why.unwrap_or_else(|| Unreached::Closed(kind).into()))
            }
            Err(unsafe_place) => Err(unsafe_place.into()),
        }
    }

    /// Whether it waits for the first person of its site.
    ///
    /// # Errors
    /// [`FaultCode::NotRunning`] if it does not say so in time: it may have people, and nothing takes its place.
    pub(crate) async fn is_empty(&self) -> Result<bool, Fault> {
        let asked = async {
            let client = self.client().await?;
            client.call::<Status>(&Call::Status {}).await
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(said) => Ok(said.is_ok_and(|status| status.phase == Phase::Empty)),
            Err(_) => {
                let words = format!(
                    "the service of this machine does not say within {} s how it is, and is asked again; if this stays so, \
                     restart it: sudo systemctl restart hospes-site",
                    self.patience.as_secs_f32()
                );
                Err(Fault::new(FaultCode::NotRunning, words))
            }
        }
    }

    pub(crate) async fn reach(&self) -> Result<UnixStream, Unreached> {
        let closed = |error: std::io::Error| Unreached::Closed(error.kind());
        let owner = owner_of(self.socket.parent().unwrap_or(Path::new("/")))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(closed)?;
        let answers = stream.peer_cred().map_err(closed)?.uid();
        if answers == owner || answers == 0 { Ok(stream) } else { Err(Unreached::Unsafe(self.socket.clone())) }
    }

    /// Why it is not to be had, after an attempt that ended so; `None` where there is no service on this machine.
    pub(crate) async fn why(&self, closed: ErrorKind) -> Option<Away> {
        if closed == ErrorKind::PermissionDenied {
            return Some(Away::NoAccess { account: account() });
        }
        let mut ask = tokio::process::Command::new(&self.systemctl);
        ask.args(["show", "--property=LoadState", UNIT]).stdin(Stdio::null()).kill_on_drop(true);
        let asked = ask.output();
        let output = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(output)) => output,
            // No systemd is here, and so no service of ours.
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return None,
            // Nobody could say whether there is one: a site beside it is the worse mistake.
            _ => return Some(Away::Stopped),
        };
        if !output.status.success() {
            return Path::new(BOOTED).is_dir().then_some(Away::Stopped);
        }
        // One that is masked, or whose unit is damaged, may have a site all the same.
        let is_none = String::from_utf8_lossy(&output.stdout).lines().any(|said| said == "LoadState=not-found");
        (!is_none).then_some(Away::Stopped)
    }
}

/// The account to which a folder belongs that nobody else but root can change or take away; this account may have made the
/// folders above it, too.
fn owner_of(folder: &Path) -> Result<u32, Unreached> {
    let closed = |error: std::io::Error| Unreached::Closed(error.kind());
    let own = rustix::process::geteuid().as_raw();
    let is_trusted = |account: u32| account == 0 || account == own;
    let folder = std::path::absolute(folder).map_err(closed)?;
    let owner = std::fs::symlink_metadata(&folder).map_err(closed)?.uid();
    let mut inner = None;
    for place in folder.ancestors() {
        let found = std::fs::symlink_metadata(place).map_err(closed)?;
        let is_open = found.mode() & 0o022 != 0;
        let is_sticky = found.mode() & 0o1000 != 0;
        let is_safe = match inner {
            None => !is_open,
            // In a folder like /tmp everybody may lay things, and nobody may take away those of others.
            Some(inner) => is_trusted(found.uid()) && (!is_open || (is_sticky && is_trusted(inner))),
        };
        // A link is no folder here, whatever it leads to.
        if !found.is_dir() || !is_safe {
            return Err(Unreached::Unsafe(place.to_owned()));
        }
        inner = Some(found.uid());
    }
    Ok(owner)
}

/// This account's name, where it can stand in a command that somebody copies.
fn account() -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let names = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let mut fit = names.filter(|name| !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain));
    fit.next().unwrap_or_else(|| "NAME".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn set_mode(folder: &Path, mode: u32) {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_others_could_change_is_not_trusted() {
        let outer = tempfile::tempdir().unwrap();
        let above = std::fs::canonicalize(outer.path()).unwrap();
        let folder = above.join("run");
        std::fs::create_dir(&folder).unwrap();
        let is_unsafe = |folder: &Path| matches!(owner_of(folder), Err(Unreached::Unsafe(_)));
        for mode in [0o750, 0o755, 0o700] {
            set_mode(&folder, mode);
            assert_eq!(owner_of(&folder).unwrap(), rustix::process::geteuid().as_raw(), "{mode:o}");
        }
        for mode in [0o770, 0o757, 0o1777] {
            set_mode(&folder, mode);
            assert!(is_unsafe(&folder), "{mode:o}");
        }
        set_mode(&folder, 0o750);
        // Whoever can change the folder above puts another in its place; of one that is sticky only its owner can.
        for (mode, expected) in [(0o770, true), (0o777, true), (0o1777, false), (0o755, false)] {
            set_mode(&above, mode);
            assert_eq!(is_unsafe(&folder), expected, "{mode:o}");
        }
        std::os::unix::fs::symlink(&folder, above.join("link")).unwrap();
        assert!(is_unsafe(&above.join("link")));
        assert!(matches!(owner_of(&above.join("nowhere")), Err(Unreached::Closed(ErrorKind::NotFound))));
    }

    #[tokio::test]
    async fn where_nobody_can_say_whether_there_is_a_service_one_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mute = folder.path().join("systemctl");
        std::fs::write(&mute, "no program").unwrap();
        let known = |systemctl: PathBuf| Service::at(SOCKET.into()).known_to(systemctl);
        assert_eq!(known(mute).why(ErrorKind::NotFound).await, Some(Away::Stopped));
        assert_eq!(known(folder.path().join("none")).why(ErrorKind::NotFound).await, None);
    }

    #[tokio::test]
    async fn an_account_that_is_not_let_in_is_told_what_to_do() {
        let away = Service::at(SOCKET.into()).why(ErrorKind::PermissionDenied).await.unwrap();
        assert!(matches!(&away, Away::NoAccess { account } if !account.is_empty()), "{away:?}");
        assert!(away.words().contains("usermod -aG hospes"), "{}", away.words());
    }
}
