//! The whole engine on real SQLite, real data and real workers; the tests play the coordinator over the link's channels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use hospes_protocol::approval::Role;
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::{Digest, FederationId, JobId, SiteId, StudyId, Timestamp};
use hospes_protocol::limits;
use hospes_protocol::message::{FromSite, RoundOutcome, RoundReply, ToSite, Upload, UploadReceipt, Welcome};
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::policy::Policy;
use hospes_protocol::round::{Mode, RosterEntry, RoundHeader};
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{Member, MemberStatement, Requester, Roster, Study, Terms};
use hospes_protocol::version::Version;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::config::{Config, Executor};
use crate::handle::{Handle, initialise, open};
use crate::keys::{KdfCost, SecretPlace};
use crate::link::{Enrolled, LinkCommand, LinkEvent};
use crate::managed::ManagedFile;
use crate::memberships::Joined;
use crate::people::{Passphrase, Session};
use crate::rounds::DeviceChoice;
use crate::view::{Approving, AuditFormat, DatasetView, NewDataset, NewPerson, Outcome, Page, Reading};

mod altered;
mod backups;
mod crash;
mod databases;
mod devices;
mod dry_runs;
mod exports;
mod faults;
mod federations;
mod floods;
mod flow;
mod kept;
mod keychain;
mod leaving;
mod managed;
mod models;
mod names;
mod pausing;
mod peers;
mod people;
#[path = "../../../coordinator/tests/it/postgres.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)] // The coordinator has more use for it.
mod postgres;
mod predictions;
mod privacy;
mod readings;
mod review;
mod screens;
mod secrets;
pub(super) mod secure;
mod series;
mod share;
mod signing;
mod sweeps;
mod turns;
mod updates;
mod watching;

/// When everything begins.
pub(super) const START: i64 = 1_790_000_000_000;
pub(super) const MINUTE: i64 = 60_000;
pub(super) const DAY: i64 = 24 * 3_600_000;

/// What a link looks like from the coordinator's side.
pub(super) struct Wire {
    federation: FederationId,
    events: mpsc::Sender<(FederationId, LinkEvent)>,
    commands: mpsc::Receiver<LinkCommand>,
}

type Wires = Arc<Mutex<Vec<Wire>>>;

/// One site, and a coordinator that the test plays.
pub(super) struct World {
    pub(super) handle: Handle,
    pub(super) config: Config,
    pub(super) sessions: HashMap<&'static str, Session>,
    pub(super) said: Vec<FromSite>,
    time: Arc<AtomicI64>,
    wires: Wires,
    wire: Option<Wire>,
    pub(super) folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}
/// The coordinator's identity.
pub(super) fn coordinator() -> SecretKey {
    key(200)
}
/// This site's identity; the others' are 2, 3 and 4.
pub(super) fn this_site() -> SecretKey {
    key(1)
}
pub(super) fn federation() -> FederationId {
    coordinator().public().site_id()
}
pub(super) fn pass(name: &str) -> Passphrase {
    Passphrase::from(format!("passphrase of {name}"))
}

/// Exactly the plan, before anybody has read it: [`World::sign`] reads.
pub(super) fn exactly(study: StudyId) -> Approving {
    let none = Digest::of(b"nothing was read");
    Approving::exactly(
        study,
        Reading { digest: none, study: none, data: none, sites: none, policy: none, opinion: none },
    )
}

pub(super) fn member(n: u8) -> Member {
    member_of(federation(), n)
}

pub(super) fn member_of(federation: FederationId, n: u8) -> Member {
    let identity = key(n);
    let statement = MemberStatement {
        federation,
        name: format!("Site {n}"),
        organisation: format!("Hospital {n}"),
        identity: identity.public(),
    };
    let signed = Canonical::new(statement.clone()).unwrap();
    Member {
        site: identity.public().site_id(),
        name: statement.name,
        organisation: statement.organisation,
        identity: identity.public(),
        statement: identity.sign(&signed.digest()),
    }
}

pub(super) fn roster(version: u64) -> Roster {
    let mut members: Vec<Member> = (1..=4).map(member).collect();
    members.sort_by_key(|m| m.site);
    Roster { federation: federation(), version, at: Timestamp::from_millis(START), members }
}

/// The example's study with little work in it, so that tests are quick.
pub(super) fn small_plan(rounds: u32) -> Plan {
    let text = std::fs::read_to_string(heart("plain.yaml")).unwrap();
    let mut plan = hospes_protocol::study::StudyFile::read(&text).unwrap().plan;
    plan.tasks.retain(|name, _| name != "alone");
    for task in plan.tasks.values_mut() {
        if let Component::NnTrain(train) = &mut task.component {
            train.rounds = rounds;
            train.local.updates = 5;
        }
    }
    plan
}

pub(super) fn heart(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/heart").join(name)
}

pub(super) fn study(n: u8, plan: Plan) -> Study {
    let mut members: Vec<SiteId> = (1..=4).map(|n| key(n).public().site_id()).collect();
    members.sort_unstable();
    Study {
        id: StudyId::new(Timestamp::from_millis(START), [n; 10]),
        federation: federation(),
        submitted: Timestamp::from_millis(START),
        terms: Terms {
            title: "Heart disease risk".into(),
            purpose: "Learn a model of heart disease from routine findings.".into(),
            requester: Requester {
                name: "Example researcher".into(),
                organisation: "Heart Federation".into(),
                key: None,
                vouched_by: None,
            },
            duo: vec!["DUO:0000006".into()],
            ..Terms::default()
        },
        plan: Canonical::new(plan).unwrap(),
        sweep: None,
        members,
    }
}

pub(super) fn job(n: u8) -> JobId {
    JobId::new(Timestamp::from_millis(START), [n; 10])
}

/// The model file that training starts from, and its digest.
pub(super) fn model(plan: &Plan) -> (Vec<u8>, Digest) {
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!("no training") };
    let inputs = plan::features(plan, "train").len() as u64;
    let values: Vec<f32> = plan::initial(train, inputs.into(), plan.seed).collect();
    let mut at = 0;
    let mut views = BTreeMap::new();
    let shapes = plan::tensors(train, inputs);
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|t| {
            let len = usize::try_from(t.len()).unwrap();
            let part = values[at..at + len].iter().flat_map(|v| v.to_le_bytes()).collect();
            at += len;
            part
        })
        .collect();
    for (tensor, bytes) in shapes.iter().zip(&bytes) {
        let shape = tensor.shape.iter().map(|d| usize::try_from(*d).unwrap()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap();
        views.insert(tensor.name.clone(), view);
    }
    let file = safetensors::serialize(views, None).unwrap();
    let digest = canon::digest("model", 1, &file);
    (file, digest)
}

pub(super) fn header(study: &Study, job: JobId, task: &str, round: u32, attempt: u32, now: Timestamp) -> RoundHeader {
    let plan = &study.plan;
    let (tensors, quantise) = match &plan.tasks[task].component {
        Component::NnTrain(train) => (plan::tensors(train, plan::inputs(plan, task)), train.quantise.clone()),
        _ => (Vec::new(), plan::Quantise::default()),
    };
    let entry = |n: u8| RosterEntry { site: key(n).public().site_id(), identity: key(n).public() };
    RoundHeader {
        protocol: Version::V1,
        federation: federation(),
        study: study.id,
        job,
        task: task.to_owned(),
        epoch: 1,
        round,
        attempt,
        model: Some(model(plan).1),
        plan: plan.digest(),
        roster: (1..=4).map(entry).collect(),
        mode: Mode::Plain { k_min: 2 },
        tensors,
        quantise,
        deadline: now.plus_millis(60 * MINUTE),
    }
}

impl World {
    /// A site with its people, the public-data policy, one dataset and one federation.
    pub(super) async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut world = Self::create(temporary.path(), Executor::Thread).await;
        world._temporary = Some(temporary);
        world.furnish().await;
        world
    }

    /// An empty site.
    pub(super) async fn create(folder: &Path, executor: Executor) -> Self {
        Self::create_at(folder, executor, START).await
    }

    /// An empty site at some time; children go by the machine's clock.
    pub(super) async fn create_at(folder: &Path, executor: Executor, now: i64) -> Self {
        Self::create_as(configure(folder, executor), now).await
    }

    /// An empty site with another configuration than the others.
    pub(super) async fn create_with(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut parts = configure(folder, Executor::Thread);
        change(&mut parts.0);
        Self::create_as(parts, START).await
    }

    /// An empty site with real links instead of those that a test speaks for.
    pub(super) async fn create_linked(folder: &Path, executor: Executor, now: i64) -> Self {
        let mut parts = configure(folder, executor);
        parts.0.spawn_link = Arc::new(crate::link::spawn);
        Self::create_as(parts, now).await
    }

    async fn create_as((config, time, wires): (Config, Arc<AtomicI64>, Wires), now: i64) -> Self {
        time.store(now, Ordering::SeqCst);
        initialise(&config).await.unwrap();
        let handle = open(config.clone()).await.unwrap();
        Self::with(handle, config, time, wires)
    }

    fn with(handle: Handle, config: Config, time: Arc<AtomicI64>, wires: Wires) -> Self {
        let folder = config.folder.clone();
        let (sessions, said) = (HashMap::new(), Vec::new());
        Self { handle, config, sessions, said, time, wires, wire: None, folder, _temporary: None }
    }

    /// The same site after its process ended, however it ended; the clock goes on.
    pub(super) async fn reopen(folder: &Path, executor: Executor, now: i64) -> Self {
        let (config, time, wires) = configure(folder, executor);
        time.store(now, Ordering::SeqCst);
        let handle = open(config.clone()).await.unwrap();
        let mut world = Self::with(handle, config, time, wires);
        world.log_everybody_in().await;
        world
    }

    pub(super) async fn furnish(&mut self) {
        self.staff().await;
        self.set_policy(&Policy::public_data()).await;
        self.add_dataset("Cleveland", "cleveland.csv", true).await;
        self.join().await;
    }

    pub(super) async fn staff(&mut self) {
        let admin = self.handle.set_up("ana".into(), pass("ana")).await.unwrap();
        let session = self.handle.log_in("ana".into(), pass("ana")).await.unwrap();
        assert_eq!(session.person(), admin);
        self.sessions.insert("ana", session);
        for (name, role) in PEOPLE {
            self.add_person(name, *role, None).await;
        }
    }

    async fn log_everybody_in(&mut self) {
        for name in ["ana"].into_iter().chain(PEOPLE.iter().map(|(n, _)| *n)) {
            if let Ok(session) = self.handle.log_in(name.into(), pass(name)).await {
                self.sessions.insert(name, session);
            }
        }
    }

    pub(super) fn who(&self, name: &str) -> &Session {
        &self.sessions[name]
    }

    pub(super) async fn set_policy(&self, policy: &Policy) {
        let done = self.handle.set_policy(self.who("ana"), policy.to_toml().unwrap(), pass("ana")).await.unwrap();
        assert_eq!(done, Outcome::Done { code: None });
    }

    pub(super) async fn add_dataset(&self, name: &str, file: &str, public: bool) -> DatasetView {
        let dataset = NewDataset {
            name: name.into(),
            path: heart(file),
            query: None,
            sheet: None,
            missing: None,
            scan: Default::default(),
            subject: "subject_id".into(),
            kinds: BTreeMap::new(),
            mask: BTreeSet::new(),
            keep: BTreeSet::new(),
            public,
            duo: vec!["DUO:0000042".into()],
        };
        self.handle.add_dataset(self.who("sam"), dataset).await.unwrap()
    }

    pub(super) async fn join(&self) {
        self.join_as("Heart Federation").await.unwrap();
    }

    pub(super) async fn join_as(&self, name: &str) -> Result<(), crate::error::PartyError> {
        self.join_as_site(1, name).await
    }

    /// Joins with the identity of this member.
    pub(super) async fn join_as_site(&self, n: u8, name: &str) -> Result<(), crate::error::PartyError> {
        let enrolled = Enrolled {
            url: "https://coordinator.example".into(),
            federation: federation(),
            name: name.into(),
            site: key(n).public().site_id(),
            site_name: format!("Site {n}"),
            coordinator: coordinator().public(),
            ca_pem: "ca".into(),
            chain_pem: "chain".into(),
            key_pem: Zeroizing::new("key".into()),
            roster: Signed::new(roster(1), &coordinator()).unwrap(),
        };
        let joined = Joined::by_hand(enrolled, &format!("Hospital {n}"), key(n));
        let session = self.who("ana").clone();
        self.handle.ask(move |e| e.join(session, joined).boxed()).await.map(drop)
    }

    /// Compares words with these members.
    pub(super) async fn verify(&self, members: impl IntoIterator<Item = u8>) {
        for identity in members.into_iter().map(|n| key(n).public()) {
            let words = hospes_protocol::words::of_key(&identity);
            self.handle.verify_peer(self.who("ana"), federation(), identity.site_id(), words).await.unwrap();
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::SeqCst))
    }

    pub(super) fn pass_time(&self, millis: i64) {
        self.time.fetch_add(millis, Ordering::SeqCst);
    }

    // The coordinator's side ------------------------------------------------------------------------------------------

    /// Takes up the newest link that the engine opened, if there is one that was not taken up.
    pub(super) fn take_link(&mut self) -> bool {
        let opened = self.wires.lock().unwrap().pop();
        let is_new = opened.is_some();
        self.wire = opened.or(self.wire.take());
        is_new
    }

    pub(super) async fn connect(&mut self) {
        self.take_link();
        let welcome = Welcome {
            version: Version::V1,
            federation: federation(),
            identity: coordinator().public(),
            at: self.now(),
            epoch: 1,
        };
        self.event(LinkEvent::Connected(welcome)).await;
        // Before the clock is turned, say.
        self.settle().await;
    }

    pub(super) async fn event(&self, event: LinkEvent) {
        let wire = self.wire.as_ref().expect("no link");
        wire.events.send((wire.federation, event)).await.unwrap();
    }

    pub(super) async fn send(&self, message: ToSite) {
        self.event(LinkEvent::Message(message)).await;
    }

    /// Waits until everything sent so far was heard.
    pub(super) async fn settle(&self) {
        // What was sent is taken up; then it is done before the engine answers anything.
        if let Some(Wire { events, .. }) = &self.wire {
            while events.capacity() < events.max_capacity() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        for _ in 0..3 {
            self.handle.status().await.unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        self.handle.status().await.unwrap();
    }

    /// The next command for which `wanted` has an answer; messages before it are kept in `said`.
    pub(super) async fn expect<T>(&mut self, what: &str, wanted: impl FnMut(&LinkCommand) -> Option<T>) -> T {
        match self.wait_for(Duration::from_secs(60), wanted).await {
            Some(found) => found,
            None => panic!("the site never did this: {what}; it said {:?}", self.said),
        }
    }

    pub(super) async fn wait_for<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&LinkCommand) -> Option<T>,
    ) -> Option<T> {
        let until = tokio::time::Instant::now() + patience;
        let wire = self.wire.as_mut().expect("no link");
        loop {
            let command = tokio::time::timeout_at(until, wire.commands.recv()).await.ok()??;
            let found = wanted(&command);
            if let LinkCommand::Send(message) = command {
                self.said.push(message);
            }
            if found.is_some() {
                return found;
            }
        }
    }

    /// Nothing that `unwanted` knows is done for a while.
    pub(super) async fn never(&mut self, what: &str, unwanted: impl FnMut(&LinkCommand) -> Option<()>) {
        self.settle().await;
        let found = self.wait_for(Duration::from_millis(300), unwanted).await;
        assert!(found.is_none(), "the site did this: {what}");
    }

    pub(super) async fn expect_reply(&mut self) -> RoundReply {
        self.expect("a reply to a round", |c| match c {
            LinkCommand::Send(FromSite::RoundReply { reply, .. }) if *reply != RoundReply::Working => {
                Some(reply.clone())
            }
            _ => None,
        })
        .await
    }

    /// An update that waits in the outbox under an approval of one day; its round lasts longer.
    pub(super) async fn upload_with_a_day_left(&mut self) -> (Upload, PathBuf) {
        let mut policy = Policy::public_data();
        policy.approval.expires_days = 1;
        self.set_policy(&policy).await;
        let study = self.running(small_plan(1)).await;
        let deadline = self.now().plus_millis(10 * DAY);
        self.open_round(RoundHeader { deadline, ..header(&study, job(1), "train", 1, 1, self.now()) }).await;
        self.serve_model(&study).await;
        self.expect_upload().await
    }

    pub(super) async fn expect_upload(&mut self) -> (Upload, PathBuf) {
        self.expect("an upload", |c| match c {
            LinkCommand::Upload { upload, path } => Some((upload.clone(), path.clone())),
            _ => None,
        })
        .await
    }

    /// Waits until the link is told to stop sending this.
    pub(super) async fn expect_recall(&mut self, upload: &Upload) {
        let (round, digest) = (upload.round().clone(), upload.digest());
        let wanted = |c: &LinkCommand| match c {
            LinkCommand::Withdraw { round: r, digest: d } => (*r == round && *d == digest).then_some(()),
            _ => None,
        };
        self.expect("stop sending", wanted).await;
    }

    pub(super) async fn offer(&mut self, study: &Study) {
        self.send(ToSite::Study(Box::new(Signed::new(study.clone(), &coordinator()).unwrap()))).await;
        self.settle().await;
    }

    /// Approves a study, which ends the set-up phase.
    pub(super) async fn in_operation(&mut self) {
        let study = study(1, small_plan(1));
        self.connect().await;
        self.offer(&study).await;
        self.approve(&study).await;
    }

    pub(super) async fn approve(&mut self, study: &Study) {
        self.approve_as(study, exactly(study.id)).await;
    }

    pub(super) async fn approve_as(&mut self, study: &Study, approving: Approving) {
        let signed = self.sign("sam", approving).await.unwrap();
        self.handle.countersign(self.who("ava"), study.id, signed.digest, pass("ava")).await.unwrap();
    }

    /// The first signature of somebody who reads the request and signs what they read.
    pub(super) async fn sign(
        &self,
        who: &str,
        approving: Approving,
    ) -> Result<crate::view::Signed, crate::error::PartyError> {
        let read = self.handle.review(self.who(who), approving.study, approving.dataset).await?.read;
        self.handle.approve(self.who(who), Approving { read, ..approving }, pass(who)).await
    }

    async fn reserve(&mut self, study: &Study, job: JobId) -> Option<hospes_protocol::approval::Refusal> {
        let plan = Box::new(study.plan.clone());
        self.send(ToSite::JobReserve { job, study: study.id, plan }).await;
        self.expect("an answer to the reservation", |c| match c {
            LinkCommand::Send(FromSite::Reserved { refusal, .. }) => Some(refusal.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn start_job(&mut self, study: &Study, job: JobId) {
        assert_eq!(self.reserve(study, job).await, None);
        self.send(ToSite::JobStart { job }).await;
    }

    /// Reserves without starting.
    pub(super) async fn reserved(&mut self, study: &Study, job: JobId) {
        assert_eq!(self.reserve(study, job).await, None);
    }

    pub(super) async fn start_job_expecting(
        &mut self,
        study: &Study,
        job: JobId,
        code: hospes_protocol::approval::RefusalCode,
    ) {
        let refusal = self.reserve(study, job).await.expect("the reservation was taken");
        assert_eq!(refusal.code, code, "{refusal}");
    }

    /// An approved study with a running job.
    pub(super) async fn running(&mut self, plan: Plan) -> Study {
        let study = study(1, plan);
        self.connect().await;
        self.offer(&study).await;
        self.approve(&study).await;
        self.start_job(&study, job(1)).await;
        study
    }

    /// A site whose first update was let go and is on the wire.
    pub(super) async fn on_the_wire() -> (Self, Study, Upload, PathBuf) {
        let mut world = Self::new().await;
        let study = world.running(small_plan(1)).await;
        world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
        world.serve_model(&study).await;
        let (upload, path) = world.expect_upload().await;
        world.may_leave(&upload).await.unwrap();
        (world, study, upload, path)
    }

    /// A study that runs, its first round opened, worked on, and its update taken.
    pub(super) async fn first_round(&mut self, plan: Plan) -> (Study, RoundHeader) {
        let study = self.running(plan).await;
        let round = header(&study, job(1), "train", 1, 1, self.now());
        self.open_round(round.clone()).await;
        self.serve_model(&study).await;
        let (upload, path) = self.expect_upload().await;
        self.take(&upload, &path).await;
        self.settle().await;
        (study, round)
    }

    pub(super) async fn open_round(&mut self, header: RoundHeader) {
        self.send(ToSite::RoundOpen(Box::new(Signed::new(header, &coordinator()).unwrap()))).await;
    }

    /// Gives the site the model that it asks for.
    pub(super) async fn serve_model(&mut self, study: &Study) {
        let (digest, to) = self
            .expect("a download", |c| match c {
                LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
                _ => None,
            })
            .await;
        self.put_model(study, digest, to).await;
    }

    pub(super) async fn put_model(&self, study: &Study, digest: Digest, to: PathBuf) {
        let (bytes, expected) = model(&study.plan);
        assert_eq!(digest, expected);
        std::fs::write(&to, bytes).unwrap();
        self.event(LinkEvent::Downloaded { digest, path: to }).await;
    }

    pub(super) async fn may_leave(&self, upload: &Upload) -> Result<(), hospes_protocol::approval::Refusal> {
        let (reply, answer) = oneshot::channel();
        self.event(LinkEvent::MayLeave { upload: upload.clone(), reply }).await;
        answer.await.expect("the engine did not answer")
    }

    /// Takes an upload as a coordinator would: asks, reads, checks, gives a receipt.
    pub(super) async fn take(&self, upload: &Upload, path: &Path) -> Vec<u8> {
        self.may_leave(upload).await.unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (upload.digest(), upload.bytes()));
        self.acknowledge(upload).await;
        bytes
    }

    pub(super) async fn acknowledge(&self, upload: &Upload) {
        let receipt = UploadReceipt {
            federation: federation(),
            site: this_site().public().site_id(),
            round: upload.round().clone(),
            digest: upload.digest(),
            at: self.now(),
        };
        let receipt = Signed::new(receipt, &coordinator()).unwrap();
        self.event(LinkEvent::Uploaded { upload: upload.clone(), receipt }).await;
    }

    pub(super) async fn close_round(&self, header: &RoundHeader) {
        let included = (1..=4).map(|n| key(n).public().site_id()).collect();
        let outcome = RoundOutcome::Published { model: Some(Digest::of(b"next")), included };
        self.send(ToSite::RoundClosed { round: header.key(), outcome }).await;
    }

    // What the site knows ---------------------------------------------------------------------------------------------

    /// Actions in the ledger, oldest first, with their outcomes.
    pub(super) async fn ledger(&self) -> Vec<(String, String)> {
        let query = crate::view::AuditQuery { limit: 1_000, ..Default::default() };
        let page = self.handle.audit(self.who("ana"), query).await.unwrap();
        page.entries.into_iter().rev().map(|e| (e.action, e.outcome)).collect()
    }

    pub(super) async fn entered(&self, action: &str, outcome: &str) -> usize {
        self.ledger().await.iter().filter(|(a, o)| a == action && o == outcome).count()
    }

    /// Waits until there is such an alarm.
    pub(super) async fn expect_alarm(&self, part: &str) {
        for _ in 0..600 {
            if self.alarms().await.iter().any(|a| a.contains(part)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no alarm says '{part}': {:?}", self.alarms().await);
    }

    /// Adds somebody while the site is set up, and logs them in.
    pub(super) async fn add_person(&mut self, name: &'static str, role: Role, organisation: Option<&str>) {
        let organisation = organisation.map(Into::into);
        let person = NewPerson { name: name.into(), roles: BTreeSet::from([role]), organisation };
        let added = self.handle.add_person(&self.sessions["ana"], person, pass("ana")).await.unwrap();
        let Outcome::Done { code: Some(code) } = added else { panic!("{added:?}") };
        self.handle.activate(name.into(), code, pass(name)).await.unwrap();
        let session = self.handle.log_in(name.into(), pass(name)).await.unwrap();
        self.sessions.insert(name, session);
    }

    pub(super) async fn alarms(&self) -> Vec<String> {
        self.handle.status().await.unwrap().alarms.into_iter().map(|a| a.words).collect()
    }

    /// State of the only job's last round.
    pub(super) async fn round_state(&self) -> (String, Option<String>) {
        let jobs = self.handle.jobs(self.who("sam"), Page::default()).await.unwrap();
        let last = jobs.last().and_then(|j| j.rounds.last()).expect("no round");
        (last.state.to_string(), last.reason.clone())
    }

    /// Of how many rounds the site tells that it has not forgotten them, when it is time to.
    pub(super) async fn says_working(&mut self) -> usize {
        self.settle().await;
        self.never("anything", |_| None).await;
        self.said.clear();
        let say = |e: &mut crate::engine::Engine| e.say_working();
        self.handle
            .ask(move |e| {
                async move {
                    say(e);
                    Ok(())
                }
                .boxed()
            })
            .await
            .unwrap();
        self.never("more", |_| None).await;
        let working = |m: &&FromSite| matches!(m, FromSite::RoundReply { reply: RoundReply::Working, .. });
        self.said.iter().filter(working).count()
    }

    pub(super) async fn outbox_states(&self) -> Vec<String> {
        self.handle.egress(self.who("sam"), Page::default()).await.unwrap().into_iter().map(|e| e.state).collect()
    }

    /// Releases that the privacy ledger has entered as those that nothing bounds.
    pub(super) async fn unprotected(&self) -> u64 {
        let pools = self.handle.privacy(self.who("sam")).await.unwrap();
        pools.iter().map(|pool| pool.account.unprotected).sum()
    }

    pub(super) fn payload_files(&self) -> usize {
        std::fs::read_dir(self.config.payloads()).unwrap().count()
    }

    pub(super) async fn assert_ledger_intact(&self) {
        let words = self.handle.verify_audit(self.who("ana")).await.unwrap();
        assert!(words[0].contains("intact") && !words[0].contains("NOT"), "{words:?}");
    }
}

const PEOPLE: &[(&str, Role)] = &[
    ("sam", Role::DataSteward),
    ("ava", Role::DataAccessApprover),
    ("pia", Role::PrivacyOfficer),
    ("odo", Role::Auditor),
];

fn configure(folder: &Path, executor: Executor) -> (Config, Arc<AtomicI64>, Wires) {
    let time = Arc::new(AtomicI64::new(START));
    let clock = time.clone();
    let wires: Wires = Arc::default();
    let made = wires.clone();
    let config = Config {
        folder: folder.join("site"),
        managed: ManagedFile::none(),
        secrets: SecretPlace::File { path: folder.join("secrets"), passphrase: pass("the site") },
        clock: Arc::new(move || Timestamp::from_millis(clock.load(Ordering::SeqCst))),
        executor,
        connect: true,
        session_idle_ms: 3_650 * DAY,
        worker_memory_bytes: Some(2 << 30),
        runs_at_a_time: limits::OPEN_JOBS,
        device: Some(DeviceChoice::Processor),
        card_patience: Duration::from_secs(600),
        kdf: KdfCost::for_tests(),
        spawn_link: Arc::new(move |link, events| {
            let (sender, commands) = mpsc::channel(1_024);
            made.lock().unwrap().push(Wire { federation: link.federation, events, commands });
            sender
        }),
        presence: Arc::new(|| std::future::ready(false).boxed()),
        known_keys: None,
    };
    (config, time, wires)
}
