//! The loop that owns the state: what happens comes in as events, one after the other, and each is applied whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use hospes_ledger::{Action, Actor, Ledger};
use hospes_protocol::id::{Digest, FederationId, JobId, RoundKey, StudyId, Timestamp};
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use tokio::sync::{broadcast, mpsc};

use crate::audit::Because as _;
use crate::audit::verify::Watch;
use crate::config::Config;
use crate::datasets::readings::Readings;
use crate::error::PartyError;
use crate::handle::Opening;
use crate::keys::{Vault, random};
use crate::link::LinkEvent;
use crate::managed::Managed;
use crate::memberships::Link;
use crate::people::{LiveSession, Session, Strangers, phase};
use crate::requests::dry_run::DryRun;
use crate::rounds::{Devices, Fetching, Notes, Refusals, Share, Turn, Working, worker::WorkEvent};
use crate::seam::Seam;
use crate::store::{At as _, Store, set_setting, setting};
use crate::updates::Updates;
use crate::view::{LinkView, Notice, SignInRules, Status};

/// A question and its answer, to be carried out on the state.
pub(crate) type Call = Box<dyn for<'e> FnOnce(&'e mut Engine) -> BoxFuture<'e, ()> + Send>;

/// Events that may wait.
const EVENTS: usize = 256;
/// Between two looks at what time alone changes.
const TICK: Duration = Duration::from_millis(500);
/// Between two looks at what changes within days, in milliseconds.
pub(crate) const LOOK_MS: i64 = 60 * 1_000;
/// Between two summaries of control messages, in milliseconds.
const SUMMARY_MS: i64 = 3_600 * 1_000;

/// Something that happened.
pub(crate) enum Event {
    /// Somebody asked.
    Call(Call),
    /// A link said something.
    Link(FederationId, Box<LinkEvent>),
    /// A worker said something.
    Work(RoundKey, WorkEvent),
    /// Time passed.
    Tick,
}

/// How long a step of a tick is put off that the keychain kept from being done: clicks, the stop of everything and other
/// steps wait behind each attempt.
#[derive(Default)]
pub(crate) struct Rest(Option<Timestamp>);

impl Rest {
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.0.is_none_or(|failed| now.since(failed).abs() >= LOOK_MS)
    }

    pub(crate) fn note(&mut self, now: Timestamp, done: &Result<(), PartyError>) {
        self.0 = done.as_ref().is_err_and(|error| error.is_of_keychain()).then_some(now);
    }
}

/// The state of one site, and everything that acts on it.
pub(crate) struct Engine {
    pub(crate) config: Config,
    /// What the hospital's IT set.
    pub(crate) managed: Managed,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) sessions: HashMap<String, LiveSession>,
    pub(crate) strangers: Strangers,
    /// When sessions end by themselves, and how wrong passphrases are slowed down.
    pub(crate) sign_in: SignInRules,
    pub(crate) links: HashMap<FederationId, Link>,
    pub(crate) working: HashMap<RoundKey, Working>,
    /// The dry run that somebody made last.
    pub(crate) dry_run: Option<DryRun>,
    /// Models that links were told to get.
    pub(crate) downloads: HashSet<(FederationId, Digest)>,
    /// Released models that people here asked for.
    pub(crate) fetching: HashMap<JobId, Fetching>,
    /// The prediction that is being made, as long as it is.
    pub(crate) predicting: Weak<Turn>,
    /// Files and queries that are being read for people who wait for it.
    pub(crate) readings: Readings,
    pub(crate) controls: BTreeMap<(FederationId, bool, &'static str), u64>,
    /// How often runs of a study were run again since this process started.
    pub(crate) again: HashMap<StudyId, usize>,
    pub(crate) refusals: Refusals,
    pub(crate) link_events: mpsc::Sender<(FederationId, LinkEvent)>,
    pub(crate) work_events: mpsc::Sender<(RoundKey, WorkEvent)>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) share: Share,
    pub(crate) notes: Notes,
    /// Verifies the ledger by itself.
    pub(crate) watch: Watch,
    /// Looks for newer versions of this program.
    pub(crate) updates: Updates,
    pub(crate) seam: Seam,
    /// Before `calls`: whoever sees that the engine has ended finds the site free.
    _lock: File,
    calls: mpsc::Receiver<Event>,
    from_links: mpsc::Receiver<(FederationId, LinkEvent)>,
    from_workers: mpsc::Receiver<(RoundKey, WorkEvent)>,
    notices: broadcast::Sender<Notice>,
    summarised: Timestamp,
    looked: Timestamp,
    /// When old entries of the ledger were last erased; not since this process started, at first.
    pub(crate) erased: Timestamp,
    /// When secrets of masked rounds could last not be erased.
    pub(crate) unerased: Option<Timestamp>,
    /// Whether ends of work are put off that could not be recorded.
    pub(crate) unrecorded: Rest,
    /// Whether checkpoints are put off that could not be shown.
    pub(crate) unshown: Rest,
    /// Whether renewed certificates are put off that could not be kept.
    pub(crate) unkept: Rest,
    last_tick: Timestamp,
    stopping: bool,
}

impl Engine {
    /// Makes a site in a folder that holds none, as was asked under its lock, which is held.
    pub(crate) async fn initialise(config: &Config, _lock: &File) -> Result<(), PartyError> {
        for folder in
            [config.payloads(), config.models(), config.snapshots(), config.kept(), config.levels(), config.scratch()]
        {
            make_folder(&folder)?;
        }
        crate::backup::give_up(config).await?;
        let vault = match &config.secrets {
            // Left by an attempt that was interrupted before there was a database.
            crate::keys::SecretPlace::File { path, .. } if path.exists() => Vault::open(config.secrets.clone()).await?,
            _ => Vault::create(config.secrets.clone(), config.kdf).await?,
        };
        for name in [crate::datasets::DATA_KEY, crate::datasets::SUBJECT_KEY] {
            // A second attempt after a crash must not lose a key that something was sealed with already.
            if vault.find(name).await?.is_none() {
                let key = match &config.known_keys {
                    Some(known) if name == crate::datasets::SUBJECT_KEY => known.subjects,
                    _ => random::<32>()?,
                };
                vault.keep(name, zeroize::Zeroizing::new(key.to_vec())).await?;
            }
        }
        // Made under another name: a site whose making was interrupted is made anew, not opened half-made.
        let part = config.folder.join("site.db.part");
        for leftover in ["site.db.part", "site.db.part-wal", "site.db.part-shm"] {
            let _ = std::fs::remove_file(config.folder.join(leftover));
        }
        let store = Store::create(&part).await?;
        let mut tx = store.begin("initialise").await?;
        let policy = hospes_protocol::policy::Policy::strict();
        set_setting(tx.conn(), "policy", Some(&policy.to_toml()?)).await?;
        set_setting(tx.conn(), crate::updates::INSTALLED, Some(crate::SOFTWARE)).await?;
        let now = (config.clock)();
        let engine = hospes_ledger::Engine::new(crate::SOFTWARE);
        let mut entry = hospes_ledger::Entry::new(now, Actor::Engine, Action::PolicyChanged, engine);
        entry.change = Some(hospes_ledger::Change { before: None, after: Some(policy.digest()?) });
        Ledger::on(tx.conn()).append(&entry, &random::<32>()?).await.at("initialise")?;
        tx.commit().await?;
        store.close().await;
        std::fs::rename(&part, config.database()).map_err(|e| PartyError::file("rename", &part, e))?;
        crate::keys::sealed::sync_folder(&config.folder).map_err(|e| PartyError::file("write", &config.folder, e))
    }

    /// Opens a site whose lock was taken, which the engine then keeps.
    pub(crate) async fn open(
        config: Config,
        lock: File,
        seam: Seam,
        progress: &mut (dyn FnMut(Opening) + Send),
    ) -> Result<(Self, mpsc::Sender<Event>, broadcast::Sender<Notice>), PartyError> {
        let managed = config.managed.read()?;
        progress(Opening::Database);
        let store = Store::open(&config.database()).await?;
        #[cfg(feature = "simulation")]
        let store = seam.take_store(store);
        progress(Opening::Keys);
        let vault = Vault::open(config.secrets.clone()).await?;
        // A keychain that is locked, or has no secrets of this site, is told of now and not in the middle of a round.
        vault.read(crate::datasets::DATA_KEY).await?;
        for folder in
            [config.payloads(), config.models(), config.snapshots(), config.kept(), config.levels(), config.scratch()]
        {
            make_folder(&folder)?;
        }
        let (events, calls) = mpsc::channel(EVENTS);
        let (link_events, from_links) = mpsc::channel(EVENTS);
        let (work_events, from_workers) = mpsc::channel(EVENTS);
        let (notices, _) = broadcast::channel(EVENTS);
        let now = (config.clock)();
        let devices = Arc::new(Devices::of(&config.executor, config.device.unwrap_or_default()));
        let sign_in = SignInRules::unset(config.session_idle_ms);
        let mut engine = Self {
            config,
            managed,
            store,
            vault,
            sessions: HashMap::new(),
            strangers: Strangers::default(),
            sign_in,
            links: HashMap::new(),
            working: HashMap::new(),
            dry_run: None,
            downloads: HashSet::new(),
            fetching: HashMap::new(),
            predicting: Weak::new(),
            readings: Readings::default(),
            controls: BTreeMap::new(),
            again: HashMap::new(),
            refusals: Refusals::default(),
            link_events,
            work_events,
            devices,
            share: Share::default(),
            notes: Notes::default(),
            watch: Watch::new(now),
            updates: Updates::default(),
            seam,
            calls,
            from_links,
            from_workers,
            notices: notices.clone(),
            summarised: now,
            looked: now,
            erased: Timestamp::from_millis(0),
            unerased: None,
            unrecorded: Rest::default(),
            unshown: Rest::default(),
            unkept: Rest::default(),
            last_tick: now,
            stopping: false,
            _lock: lock,
        };
        progress(Opening::Engine);
        engine.start().await?;
        Ok((engine, events, notices))
    }

    /// What must be done before the first event: the ledger says so, leftovers are swept, what was under way is ended.
    async fn start(&mut self) -> Result<(), PartyError> {
        let entry = self.managed.named_in(self.entry(Actor::Engine, Action::EngineStarted));
        self.record("start", &entry).await?;
        self.note_version().await?;
        self.warn_of_policy().await?;
        self.enter_restored().await?;
        crate::backup::sweep(&self.config);
        self.sweep().await?;
        self.pool_older_datasets().await?;
        self.end_interrupted_work().await?;
        self.load_sign_in_rules().await?;
        self.load_limits().await?;
        self.load_device().await?;
        self.open_links().await
    }

    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stopping {
            let event = tokio::select! {
                call = self.calls.recv() => match call {
                    Some(event) => event,
                    None => break,
                },
                Some((federation, event)) = self.from_links.recv() => Event::Link(federation, Box::new(event)),
                Some((round, event)) = self.from_workers.recv() => Event::Work(round, event),
                _ = ticks.tick() => Event::Tick,
            };
            self.take(event).await;
        }
        self.stop_all().await;
    }

    /// Applies an event and goes on with what follows from it.
    pub(crate) async fn take(&mut self, event: Event) {
        let done = self.apply(event).await;
        let next = if self.stopping { Ok(()) } else { Box::pin(self.go_on()).await };
        let tried = if self.stopping { Ok(()) } else { Box::pin(self.go_on_with_dry_run()).await };
        for error in [done, next, tried].into_iter().filter_map(Result::err) {
            // The step was undone and nothing left. Whoever asked got the error; here is only what came by itself.
            tracing::error!(error = &error as &dyn std::error::Error, "a step was undone");
        }
    }

    /// The next question, for whoever drives the engine by hand.
    #[cfg(feature = "simulation")]
    pub(crate) async fn next_call(&mut self) -> Option<Event> {
        self.calls.recv().await
    }

    async fn apply(&mut self, event: Event) -> Result<(), PartyError> {
        match event {
            Event::Call(call) => {
                call(self).await;
                Ok(())
            }
            Event::Link(federation, event) => Box::pin(self.on_link(federation, *event)).await,
            Event::Work(round, event) => Box::pin(self.on_work(round, event)).await,
            Event::Tick => Box::pin(self.on_tick()).await,
        }
    }

    async fn on_tick(&mut self) -> Result<(), PartyError> {
        let done = self.tick().await;
        // Also where the rest failed: a ledger that is damaged may be why.
        Box::pin(self.tick_watch()).await;
        done
    }

    /// Does what time alone asks for. A step that fails keeps no other from being done.
    async fn tick(&mut self) -> Result<(), PartyError> {
        let now = self.now();
        let gap = now.since(self.last_tick);
        self.last_tick = now;
        let noted = self.note_gap(gap).await;
        self.tick_welcomes().await;
        let mut done = vec![
            noted,
            self.expire_sessions().await,
            self.expire_approvals().await,
            self.keep_to_limits().await,
            self.tick_rounds().await,
            Box::pin(self.tick_dry_run()).await,
            self.tick_witness().await,
            self.tick_renewed().await,
        ];
        if now.since(self.looked).abs() >= LOOK_MS {
            self.looked = now;
            done.push(self.greet_anew().await);
            self.say_working();
            done.push(self.repeat_steps().await);
            done.push(self.tick_releases().await);
            done.push(self.tick_leaving().await);
            done.push(self.end_silent_jobs().await);
            done.push(self.unsettled_alarms().await);
            done.push(self.tick_retention().await);
            done.push(self.tick_updates().await);
        }
        if now.since(self.summarised) >= SUMMARY_MS {
            self.summarised = now;
            done.push(self.summarise_controls().await);
        }
        let mut failed = done.into_iter().filter_map(Result::err);
        let first = failed.next().map_or(Ok(()), Err);
        for error in failed {
            tracing::error!(error = &error as &dyn std::error::Error, "a step of a tick was undone");
        }
        first
    }

    /// Sleep and a turned clock look alike from here; both are worth knowing for whoever reads the times later.
    async fn note_gap(&mut self, gap: i64) -> Result<(), PartyError> {
        if (-60_000..=3_600_000).contains(&gap) {
            return Ok(());
        }
        let entry = self
            .entry(Actor::Engine, Action::ClockAnomaly)
            .because(format!("the clock moved by {} s between two looks at it", gap / 1_000));
        self.record("note a clock anomaly", &entry).await
    }

    async fn stop_all(&mut self) {
        self.close_links().await;
        self.end_prediction();
        self.working.clear();
        self.dry_run = None;
        self.watch.end().await;
        let ended = async {
            self.summarise_controls().await?;
            let entry = self.entry(Actor::Engine, Action::EngineStopped);
            self.record("stop", &entry).await
        };
        if let Err(error) = ended.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the last entry could not be written");
        }
        self.store.close().await;
    }

    /// Now, by the site's clock.
    pub(crate) fn now(&self) -> Timestamp {
        (self.config.clock)()
    }

    /// Says that something changed; nobody need be listening.
    pub(crate) fn notify(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// For work beside the loop, which says by itself that something changed.
    pub(crate) fn notices(&self) -> broadcast::Sender<Notice> {
        self.notices.clone()
    }

    /// A connection that only reads.
    pub(crate) async fn reader(&self) -> Result<PoolConnection<Sqlite>, PartyError> {
        self.store.readers().acquire().await.at("read the database")
    }

    pub(crate) async fn shut_down(&mut self) -> Result<(), PartyError> {
        self.stopping = true;
        Ok(())
    }

    pub(crate) async fn status(&mut self) -> Result<Status, PartyError> {
        let mut conn = self.reader().await?;
        let phase = phase(&mut conn).await?;
        let stopped = setting(&mut conn, "stopped").await?;
        let policy = crate::requests::policy::current(&mut conn).await?;
        let count = async |sql: &'static str| -> Result<u32, PartyError> {
            let n: i64 = sqlx::query_scalar(sql).fetch_one(self.store.readers()).await.at("read the state")?;
            Ok(u32::try_from(n).unwrap_or(u32::MAX))
        };
        let waiting = count(
            "SELECT (SELECT COUNT(*) FROM studies WHERE state IN ('received', 'under_review'))
                  + (SELECT COUNT(*) FROM approvals WHERE state = 'partly_approved')",
        )
        .await?;
        let outbox = count("SELECT COUNT(*) FROM outbox WHERE state = 'waiting'").await?;
        let expiry: Option<i64> = sqlx::query_scalar("SELECT MIN(expires) FROM approvals WHERE state = 'active'")
            .fetch_one(&mut *conn)
            .await
            .at("read the state")?;
        drop(conn);
        Ok(Status {
            phase,
            software: crate::SOFTWARE.to_owned(),
            at: self.now(),
            stopped,
            policy: policy.profile.clone(),
            public_data: policy.is_public_data(),
            memberships: self.membership_views().await?,
            waiting,
            next_expiry: expiry.map(Timestamp::from_millis),
            working: u32::try_from(self.working.len()).unwrap_or(u32::MAX),
            outbox,
            pause: self.share.pause(),
            ledger: self.ledger_state().await?,
            alarms: self.open_alarms().await?,
        })
    }

    /// Break-glass.
    pub(crate) async fn stop(&mut self, session: Session, reason: Option<String>) -> Result<(), PartyError> {
        use hospes_protocol::approval::Role;
        let acting = self.acting(&session, "stop everything", &[Role::Administrator]).await?;
        reason.as_deref().map_or(Ok(()), crate::requests::check_reason)?;
        if reason.is_some() {
            // First of all, and also where it cannot be recorded: the next byte needs an entry, which then fails too.
            self.end_prediction();
            self.recall_all().await?;
        }
        let mut tx = self.store.begin("stop everything").await?;
        set_setting(tx.conn(), "stopped", reason.as_deref()).await?;
        let action = if reason.is_some() { Action::BreakGlass } else { Action::BreakGlassEnded };
        let entry = self.entry(acting.actor(), action);
        let entry = entry.because(reason.as_deref().unwrap_or("the stop was ended"));
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.notify(Notice::Settings);
        self.recheck_work().await
    }

    /// State of a link, in words.
    pub(crate) fn link_view(&self, federation: FederationId) -> LinkView {
        self.links.get(&federation).map_or(LinkView::Idle, |l| l.view.clone())
    }
}

pub(crate) fn make_folder(path: &std::path::Path) -> Result<(), PartyError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|e| PartyError::file("make the folder", path, e))
}

/// The lock of a folder with a site in it; nothing is made where there is none.
pub(crate) fn lock_site(config: &Config) -> Result<File, PartyError> {
    let is_there = || match config.database().exists() {
        true => Ok(()),
        false => Err(PartyError::NotInitialised(config.folder.clone())),
    };
    is_there()?;
    let lock = lock(config)?;
    // Asked again under it: somebody may have moved the site away meanwhile.
    is_there()?;
    Ok(lock)
}

/// One process at a time lays a site down, restores it or runs it; the lock ends with the process, however it ends.
pub(crate) fn lock(config: &Config) -> Result<File, PartyError> {
    let path = config.folder.join("lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(|e| PartyError::file("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(PartyError::InUse(path)),
        Err(std::fs::TryLockError::Error(e)) => Err(PartyError::file("lock", &path, e)),
    }
}
