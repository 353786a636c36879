//! What the engine is told from outside: paths, time, limits, where secrets lie, how work is executed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hospes_protocol::id::{FederationId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::sign::SecretKey;
use tokio::sync::mpsc;

use crate::keys::{KdfCost, SecretPlace};
use crate::link::{LinkCommand, LinkConfig, LinkEvent};
use crate::managed::ManagedFile;
use crate::rounds::DeviceChoice;

/// Where the time comes from; tests turn it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of the machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Starts a link; [`crate::link::spawn`] but in tests that play the coordinator.
pub type SpawnLink =
    Arc<dyn Fn(LinkConfig, mpsc::Sender<(FederationId, LinkEvent)>) -> mpsc::Sender<LinkCommand> + Send + Sync>;

/// Tells whether somebody works at the machine; tests have nobody.
pub type Presence = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// How work on data is executed.
#[derive(Debug, Clone)]
pub enum Executor {
    /// A child process of this program, one job each, killed on cancel.
    Child {
        /// The program; its hidden first argument is `worker`.
        program: PathBuf,
    },
    /// A thread of this process; for tests.
    Thread,
}

/// Keys of a simulated site, which follow from its name, so that a simulation can be repeated. Whoever knows the name knows
/// them; the engine therefore takes nothing but public data with them.
pub struct KnownKeys {
    /// Identity key to enrol with.
    pub identity: SecretKey,
    /// Key under which patients' ids are hashed. Which of them a plan draws for its test follows from it.
    pub subjects: [u8; 32],
}

/// Everything the engine is told from outside.
#[derive(Clone)]
pub struct Config {
    /// Folder of database, payloads, models and snapshots; made with mode 700.
    pub folder: PathBuf,
    /// What the hospital's IT set; read when the engine starts.
    pub managed: ManagedFile,
    /// Where the site's secrets lie.
    pub secrets: SecretPlace,
    /// Time.
    pub clock: Clock,
    /// How work on data is executed.
    pub executor: Executor,
    /// Whether links to coordinators are opened. `false` for a command that only looks something up.
    pub connect: bool,
    /// Idle time after which a session ends at a site whose administrator has set none, in milliseconds; in whole minutes.
    pub session_idle_ms: i64,
    /// Most memory of one worker, in bytes; `None` for no limit. The default is three quarters of the machine's.
    pub worker_memory_bytes: Option<u64>,
    /// Runs of one federation that the site has open at a time, reserved or running; at most [`limits::OPEN_JOBS`].
    pub runs_at_a_time: usize,
    /// What networks are trained on, whatever the site's people set; `None` leaves it to them.
    pub device: Option<DeviceChoice>,
    /// How long a worker on a graphics card may say nothing before it counts as hanging, where it may use all of the
    /// machine's time. The first step compiles the card's programs, and an evaluation says nothing until it ends.
    pub card_patience: Duration,
    /// Cost of turning passphrases into keys.
    pub kdf: KdfCost,
    /// Starts links.
    pub spawn_link: SpawnLink,
    /// Whether somebody works at the machine.
    pub presence: Presence,
    /// Keys of a simulation that is to be repeated; `None`, as at every real site, draws them. Code sets this, and nothing
    /// else: no file, argument, environment variable or message leads here.
    pub known_keys: Option<Arc<KnownKeys>>,
}

impl Config {
    /// The configuration of a running site.
    pub fn new(folder: PathBuf, secrets: SecretPlace, program: PathBuf) -> Self {
        Self {
            folder,
            managed: ManagedFile::of_system(),
            secrets,
            clock: system_clock(),
            executor: Executor::Child { program },
            connect: true,
            session_idle_ms: 10 * 60 * 1_000,
            worker_memory_bytes: three_quarters_of_memory(),
            runs_at_a_time: limits::OPEN_JOBS,
            device: None,
            card_patience: Duration::from_secs(10 * 60),
            kdf: KdfCost::default(),
            spawn_link: Arc::new(crate::link::spawn),
            presence: Arc::new(|| Box::pin(crate::rounds::somebody_works())),
            known_keys: None,
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("site.db")
    }
    pub(crate) fn payloads(&self) -> PathBuf {
        self.folder.join("outbox")
    }
    pub(crate) fn models(&self) -> PathBuf {
        self.folder.join("models")
    }
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.folder.join("snapshots")
    }
    /// What this site keeps from one round of a task to the next.
    pub(crate) fn kept(&self) -> PathBuf {
        self.folder.join("kept")
    }
    /// Updates that wait to be masked; nothing in it is ever sent.
    pub(crate) fn levels(&self) -> PathBuf {
        self.folder.join("unmasked")
    }
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }
}

fn three_quarters_of_memory() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let total = system.total_memory();
    (total > 0).then(|| total / 4 * 3)
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("folder", &self.folder)
            .field("secrets", &self.secrets)
            .field("executor", &self.executor)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}
