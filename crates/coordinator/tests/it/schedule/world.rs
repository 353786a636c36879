//! A coordinator without its port, and the sites around it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use hospes_coordinator::aggregate::staging::{FreeSpace, Staging, free_space};
use hospes_coordinator::audit::Audit;
use hospes_coordinator::models::Models;
use hospes_coordinator::schedule::{self, Command, Context, Event, Live, Rejection, Reply, Settings};
use hospes_coordinator::store::jobs::{JobRow, JobState};
use hospes_coordinator::store::{Caller, Role, SiteRow, SiteState, Store};
use hospes_coordinator::{Clock, Error, system_clock};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{FederationId, JobId, StudyId, Timestamp};
use hospes_protocol::sign::SecretKey;
use hospes_protocol::study::{MemberStatement, Requester, StudyFile, Terms};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::peer::Peer;
use crate::postgres::Postgres;

pub const PLAN: &str = include_str!("../../../src/schedule/testdata/plan.yaml");

/// The plan with another strategy.
pub fn with_strategy(strategy: &str) -> String {
    let plan = PLAN.replace("fed_avg: {}", strategy);
    assert_ne!(plan, PLAN);
    plan
}

/// What a site can reach of the process that runs.
#[derive(Clone)]
pub struct Process {
    pub events: mpsc::Sender<Event>,
    pub staging: Staging,
    pub models: Models,
    pub clock: Clock,
}

/// A coordinator's machine, which can lose its process and start another.
pub struct World {
    pub folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    _postgres: Option<Postgres>,
    url: String,
    key: Arc<SecretKey>,
    pub settings: Settings,
    pub clock: Clock,
    pub free: FreeSpace,
    pub replica: String,
    pub peers: Vec<Arc<Peer>>,
    pub store: Store,
    process: watch::Sender<Option<Process>>,
    task: Option<JoinHandle<Option<Result<(), Error>>>>,
    /// Polls of the present process.
    pub polls: Arc<AtomicUsize>,
    pub live: broadcast::Sender<Live>,
}

/// Quick, for tests: sites answer within milliseconds.
pub fn quick() -> Settings {
    Settings {
        patience_ms: 700,
        round_ms: 20_000,
        grace_ms: 400,
        reserve_ms: 3_000,
        quorum_ms: 2_000,
        retry_ms: 5,
        busy_ms: 1_000,
        relay_ms: 50,
        ..Settings::default()
    }
}

impl World {
    /// Four sites and a coordinator on SQLite.
    pub async fn new() -> Self {
        Self::with(4, quick(), None).await
    }

    pub async fn with(sites: u8, settings: Settings, postgres: Option<Postgres>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = postgres.as_ref().map(Postgres::url);
        let world = Self::at(folder.path(), url, sites, settings).await;
        Self { _temporary: Some(folder), _postgres: postgres, ..world }
    }

    /// Sites and a coordinator whose files are, or will be, in this folder, on SQLite unless another database is given.
    pub async fn at(folder: &Path, url: Option<String>, sites: u8, settings: Settings) -> Self {
        let url = url.unwrap_or_else(|| Store::sqlite_url(&folder.join("a.db")));
        let key = Arc::new(SecretKey::from_seed(&[200; 32]));
        let store = Store::open(&url).await.unwrap();
        let peers: Vec<Arc<Peer>> = (0..sites).map(|index| Peer::new(index, key.public())).collect();
        if store.sites().await.unwrap().is_empty() {
            enrol(&store, &key, &peers).await;
        }
        // A real site keeps what it was offered.
        for row in store.studies().await.unwrap() {
            let study = store.study(row.study).await.unwrap().unwrap().signed().unwrap().document.into_inner();
            for peer in &peers {
                peer.log.lock().unwrap().studies.insert(study.id, study.clone());
            }
        }
        let process = watch::Sender::new(None);
        for peer in &peers {
            tokio::spawn(peer.clone().run(process.subscribe()));
        }
        Self {
            folder: folder.to_owned(),
            _temporary: None,
            _postgres: None,
            url,
            key,
            settings,
            clock: system_clock(),
            free: free_space(),
            replica: "a".into(),
            peers,
            store,
            process,
            task: None,
            polls: Arc::default(),
            live: broadcast::channel(10_000).0,
        }
    }

    /// Starts the process; it is killed after so many polls of its loop, at whatever point that is.
    pub async fn start(&mut self, kill_after: Option<usize>) {
        let store = Store::open(&self.url).await.unwrap();
        let staging = Staging::new(self.folder.join("uploads"), self.free.clone(), self.clock.clone()).unwrap();
        let models = Models::open(self.folder.join("models")).unwrap();
        let (events, inbox) = mpsc::channel(1_000);
        let context = Context {
            store,
            audit: Audit::default(),
            staging: staging.clone(),
            models: models.clone(),
            key: self.key.clone(),
            epoch: 1,
            clock: self.clock.clone(),
            live: self.live.clone(),
            settings: self.settings.clone(),
            replica: self.replica.clone(),
        };
        self.polls = Arc::default();
        let running = Fuse {
            inner: Box::pin(schedule::run(context, inbox)),
            left: kill_after.unwrap_or(usize::MAX),
            polls: self.polls.clone(),
        };
        self.task = Some(tokio::spawn(running));
        self.process.send_replace(Some(Process { events, staging, models, clock: self.clock.clone() }));
    }

    pub fn process(&self) -> Process {
        self.process.borrow().clone().unwrap()
    }

    /// Waits until the process was killed; false if it lives on.
    pub async fn dead(&mut self, within: Duration) -> bool {
        let Some(task) = &mut self.task else { return true };
        match tokio::time::timeout(within, task).await {
            Ok(ended) => {
                assert!(ended.unwrap().is_none(), "the loop ended by itself");
                self.process.send_replace(None);
                self.task = None;
                true
            }
            Err(_) => false,
        }
    }

    /// Kills the process where it stands.
    pub async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            self.process.send_replace(None);
            task.abort();
            let _ = task.await;
        }
    }

    pub async fn command(&self, command: Command) -> Result<Reply, Rejection> {
        let (reply, answer) = oneshot::channel();
        self.process().events.send(Event::Operator { command, reply }).await.unwrap();
        answer.await.unwrap()
    }

    pub async fn submit(&self, plan: &str) -> StudyId {
        let command = Command::Submit { terms: Box::new(terms()), plan: plan.to_owned(), sweep: None, by: caller() };
        match self.command(command).await.unwrap() {
            Reply::Study(study) => study,
            other => panic!("{other:?}"),
        }
    }

    /// Submits the plan with these settings, written as in a study file.
    pub async fn submit_sweep(&self, plan: &str, sweep: serde_json::Value) -> StudyId {
        let plan_tree = hospes_protocol::plan::read(plan).unwrap();
        let file = serde_json::json!({ "terms": terms(), "plan": plan_tree, "sweep": sweep });
        let sweep = StudyFile::read(&file.to_string()).unwrap().sweep.map(Box::new);
        let command = Command::Submit { terms: Box::new(terms()), plan: plan.to_owned(), sweep, by: caller() };
        match self.command(command).await.unwrap() {
            Reply::Study(study) => study,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the study's only job to end.
    pub async fn ended(&self, study: StudyId) -> JobRow {
        self.job(study, |job| job.state.is_terminal()).await
    }

    pub async fn job(&self, study: StudyId, until: impl Fn(&JobRow) -> bool) -> JobRow {
        for _ in 0..6_000 {
            let jobs = self.store.jobs(Some(study)).await.unwrap();
            if let Some(job) = jobs.into_iter().find(&until) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the job does not get there: {:?}", self.store.jobs(Some(study)).await);
    }

    pub async fn succeeded(&self, study: StudyId) -> JobRow {
        let job = self.ended(study).await;
        assert_eq!(job.state, JobState::Success, "{job:?}");
        job
    }

    /// Waits for something that happens in the background.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        for _ in 0..2_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}");
    }

    /// The published rounds' included sites by (task, round).
    pub async fn included(&self, job: JobId) -> Vec<(String, u32, usize)> {
        let rounds = self.store.rounds(job, 1_000).await.unwrap();
        rounds
            .iter()
            .filter_map(|r| {
                let published = r.state == hospes_coordinator::store::rounds::RoundState::Published;
                published.then(|| (r.key.task.clone(), r.key.round, r.included.as_ref().map_or(0, Vec::len)))
            })
            .collect()
    }
}

pub fn caller() -> Caller {
    Caller { id: Uuid::from_u128(7), name: "anna".into(), role: Role::Researcher }
}

pub fn terms() -> Terms {
    let requester = Requester { name: "Anna".into(), organisation: "Institute".into(), ..Requester::default() };
    Terms { title: "Heart".into(), purpose: "To learn.".into(), requester, ..Terms::default() }
}

/// How the coordinator knows a site that is enrolled.
pub fn site_row(peer: &Peer, federation: FederationId, at: Timestamp) -> SiteRow {
    let (name, organisation) = (format!("site-{}", peer.index), format!("Hospital {}", peer.index));
    let identity = peer.key.public();
    let statement = MemberStatement { federation, name: name.clone(), organisation: organisation.clone(), identity };
    SiteRow {
        site: peer.id,
        name,
        organisation,
        identity,
        statement: peer.key.sign(&Canonical::new(statement).unwrap().digest()),
        state: SiteState::Active,
        reason: None,
        enrolled: at,
        last_seen: None,
        software: None,
    }
}

async fn enrol(store: &Store, key: &SecretKey, peers: &[Arc<Peer>]) {
    let (federation, at) = (key.public().site_id(), (system_clock())());
    let mut tx = store.begin("test").await.unwrap();
    for peer in peers {
        tx.put_site(&site_row(peer, federation, at)).await.unwrap();
    }
    tx.next_roster(federation, key, at).await.unwrap();
    tx.commit().await.unwrap();
}

/// A future that is dropped in the middle of its work, as a process that is killed: at any of its await points, also
/// within a transaction and within its commit.
struct Fuse<F> {
    inner: Pin<Box<F>>,
    left: usize,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Fuse<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.polls.fetch_add(1, Ordering::SeqCst);
        self.inner.as_mut().poll(context).map(Some)
    }
}
