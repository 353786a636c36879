//! A federation before its first job: sites with people, data and a signed approval, a coordinator that offered the
//! study. Made once, on the same engine and schedule; every run starts from a copy of its files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result, bail, ensure};
use hospes_coordinator::aggregate::staging::free_space;
use hospes_coordinator::audit::Audit;
use hospes_coordinator::schedule::{Command, Context, Event, Reply, Settings};
use hospes_coordinator::simulation as cloud;
use hospes_coordinator::store::{Caller, Role as CallerRole, SiteRow, SiteState, Store};
use hospes_party::keys::{KdfCost, SecretPlace};
use hospes_party::link::{Enrolled, LinkEvent};
use hospes_party::simulation::{self as site, Site};
use hospes_party::view::{Approving, NewDataset, NewPerson, Outcome};
use hospes_party::{Clock, Config, DeviceChoice, Executor, ManagedFile, Passphrase, Session};
use hospes_protocol::approval::Role;
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{FederationId, SiteId, StudyId, Timestamp};
use hospes_protocol::message::ToSite;
use hospes_protocol::plan::{Adaptive, Component, Plan, Strategy};
use hospes_protocol::policy::Policy;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{MemberStatement, Requester, Roster, Study, Terms};
use hospes_protocol::words;
use tokio::sync::{broadcast, mpsc, oneshot};
use zeroize::Zeroizing;

/// Sites of the federation.
pub(crate) const SITES: usize = 3;
/// When everything begins.
pub(crate) const START: i64 = 1_790_000_000_000;

/// Of five seeds two train for two rounds, one for three with moments that the coordinator keeps from round to round, one
/// reports figures and trains for one, and one fits a regression, which takes every site in every round.
const PLANS: [&str; 5] = [
    include_str!("train.yaml"),
    include_str!("train.yaml"),
    include_str!("adam.yaml"),
    include_str!("figures.yaml"),
    include_str!("fit.yaml"),
];
/// With secure aggregation, which of three sites takes every one in every step: one trains for a round and evaluates the model,
/// one fits a regression, and one trains for two rounds.
const MASKED: [&str; 3] =
    [include_str!("masked-figures.yaml"), include_str!("masked-fit.yaml"), include_str!("masked.yaml")];
const PEOPLE: &[(&str, Role)] = &[
    ("sam", Role::DataSteward),
    ("ava", Role::DataAccessApprover),
    ("pia", Role::PrivacyOfficer),
    ("odo", Role::Auditor),
];

/// The prepared federations, one for each plan, and whether what their sites send is masked.
pub struct Template {
    prepared: Vec<Arc<Prepared>>,
    is_masked: bool,
    is_lied_to: bool,
}

/// The files of one federation, and what is known of them.
pub(crate) struct Prepared {
    folder: tempfile::TempDir,
    pub(crate) study: StudyId,
    /// How the coordinator steps, if not by the mean itself.
    pub(crate) adaptive: Option<Adaptive>,
    /// The task that fits a regression, if one does.
    pub(crate) fit: Option<String>,
    /// How many sites may collude, where coordinator and sites say another number than is usual.
    pub(crate) colluding: Option<u32>,
}

/// The coordinator's identity.
pub(crate) fn coordinator_key() -> SecretKey {
    SecretKey::from_seed(&[200; 32])
}

/// A site's identity.
pub(crate) fn site_key(site: usize) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(site).unwrap_or(0) + 1; 32])
}

pub(crate) fn site_id(site: usize) -> SiteId {
    // Asked with every event: a public key is not computed each time.
    static IDS: LazyLock<[SiteId; SITES]> =
        LazyLock::new(|| std::array::from_fn(|site| site_key(site).public().site_id()));
    IDS[site]
}

pub(crate) fn federation() -> FederationId {
    static ID: LazyLock<FederationId> = LazyLock::new(|| coordinator_key().public().site_id());
    *ID
}

pub(crate) fn passphrase(name: &str) -> Passphrase {
    Passphrase::from(format!("passphrase of {name}"))
}

pub(crate) fn caller() -> Caller {
    Caller { id: uuid::Uuid::from_u128(7), name: "anna".into(), role: CallerRole::Researcher }
}

/// Folder of a site below that of a run.
pub(crate) fn site_folder(folder: &Path, site: usize) -> PathBuf {
    folder.join(format!("site-{site}"))
}

/// The coordinator's database below the folder of a run.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("coordinator").join("a.db")
}

/// Times that let a run end within minutes of its own time.
pub(crate) fn settings(relay_ms: i64, colluding: Option<u32>) -> Settings {
    Settings {
        patience_ms: 15_000,
        round_ms: 90_000,
        grace_ms: 5_000,
        reserve_ms: 15_000,
        quorum_ms: 60_000,
        retry_ms: 500,
        min_parties: 2,
        colluding,
        relay_ms,
        ..Settings::default()
    }
}

/// A site's configuration; its link and its work are the simulation's.
pub(crate) fn site_config(folder: &Path, clock: Clock, spawn_link: hospes_party::config::SpawnLink) -> Config {
    Config {
        folder: folder.join("site"),
        managed: ManagedFile::none(),
        secrets: SecretPlace::File { path: folder.join("secrets"), passphrase: passphrase("the site") },
        clock,
        executor: Executor::Thread,
        connect: true,
        session_idle_ms: 36_500 * 24 * 3_600_000,
        worker_memory_bytes: None,
        runs_at_a_time: hospes_protocol::limits::OPEN_JOBS,
        device: Some(DeviceChoice::Processor),
        card_patience: std::time::Duration::from_secs(600),
        kdf: KdfCost::for_tests(),
        spawn_link,
        presence: Arc::new(|| Box::pin(std::future::ready(false))),
        known_keys: None,
    }
}

/// What the schedule works with, on the files of a run.
pub(crate) fn context(
    folder: &Path,
    store: Store,
    hold: &Arc<cloud::Hold>,
    clock: hospes_coordinator::Clock,
    free: hospes_coordinator::aggregate::staging::FreeSpace,
    settings: Settings,
) -> Result<Context> {
    let folder = folder.join("coordinator");
    Ok(Context {
        store,
        audit: Audit::default(),
        staging: hold.staging(folder.join("uploads"), free, clock.clone())?,
        models: hold.models(folder.join("models"))?,
        key: Arc::new(coordinator_key()),
        epoch: 1,
        clock,
        live: broadcast::channel(16).0,
        settings,
        replica: "a".into(),
    })
}

fn still() -> Clock {
    Arc::new(|| Timestamp::from_millis(START))
}

impl Template {
    /// Makes the federations.
    ///
    /// # Errors
    /// Whatever engine, schedule or file system say; nothing is simulated yet.
    pub async fn make() -> Result<Self> {
        let mut prepared = Vec::new();
        for (place, plan) in PLANS.into_iter().enumerate() {
            let before = PLANS[..place].iter().position(|made| *made == plan);
            prepared.push(match before.and_then(|place| prepared.get(place)) {
                Some(made) => Arc::clone(made),
                None => Arc::new(Box::pin(Prepared::make(plan, None)).await?),
            });
        }
        Ok(Self { prepared, is_masked: false, is_lied_to: false })
    }

    /// Makes the federations whose sites send nothing but what is masked.
    ///
    /// # Errors
    /// As [`Template::make`].
    pub async fn masked() -> Result<Self> {
        let mut prepared = Vec::new();
        for plan in MASKED {
            prepared.push(Arc::new(Box::pin(Prepared::make(plan, None)).await?));
        }
        Ok(Self { prepared, is_masked: true, is_lied_to: false })
    }

    /// Makes the same federation where nobody is said to collude, so that two of three sites are enough for a sum: only then
    /// there is a second set of inputs to lie about.
    ///
    /// # Errors
    /// As [`Template::make`].
    pub async fn lied_to() -> Result<Self> {
        let prepared = Arc::new(Box::pin(Prepared::make(MASKED[0], Some(0))).await?);
        Ok(Self { prepared: vec![prepared], is_masked: true, is_lied_to: true })
    }

    pub(crate) fn of(&self, seed: u64, is_masked: bool, is_lied_to: bool) -> Result<&Prepared> {
        let fits = self.is_masked == is_masked && self.is_lied_to == is_lied_to;
        ensure!(fits, "the template is made for other plans than the run asks for");
        let plans = self.prepared.len().max(1) as u64;
        Ok(&self.prepared[usize::try_from(seed % plans).unwrap_or(0)])
    }
}

impl Prepared {
    async fn make(plan: &str, colluding: Option<u32>) -> Result<Self> {
        let folder = tempfile::tempdir_in(memory())?;
        let path = folder.path().join("coordinator");
        std::fs::create_dir_all(&path)?;
        let store = Store::open(&Store::sqlite_url(&database(folder.path()))).await?;
        let roster = enrol(&store).await?;
        store.close().await;
        let study = submit(folder.path(), plan, colluding).await?;
        for index in 0..SITES {
            furnish(&site_folder(folder.path(), index), index, &roster, &study, colluding)
                .await
                .with_context(|| format!("furnish site {index}"))?;
        }
        let strategies = study.document.plan.tasks.values().filter_map(|task| match &task.component {
            Component::NnTrain(train) => Some(&train.strategy),
            _ => None,
        });
        let adaptive = strategies.into_iter().find_map(|strategy| match strategy {
            Strategy::FedAdam(adaptive) => Some(adaptive.clone()),
            _ => None,
        });
        let mut tasks = study.document.plan.tasks.iter();
        let fit = tasks.find(|(_, task)| matches!(task.component, Component::Glm(_))).map(|(name, _)| name.clone());
        Ok(Self { folder, study: study.document.id, adaptive, fit, colluding })
    }

    /// A copy of the files, which goes when it is dropped.
    pub(crate) fn copy(&self) -> Result<tempfile::TempDir> {
        let to = tempfile::tempdir_in(memory())?;
        copy(self.folder.path(), to.path())?;
        Ok(to)
    }
}

/// A file system in memory, where there is one: a run writes a few megabytes and throws them away.
pub(crate) fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

fn is_masked(plan: &Plan) -> bool {
    plan.tasks.values().any(|task| task.component.is_masked())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn enrol(store: &Store) -> Result<Signed<Roster>> {
    let at = Timestamp::from_millis(START);
    let mut tx = store.begin("template").await?;
    for index in 0..SITES {
        let key = site_key(index);
        let (name, organisation) = (format!("site-{index}"), format!("Hospital {index}"));
        let statement = MemberStatement {
            federation: federation(),
            name: name.clone(),
            organisation: organisation.clone(),
            identity: key.public(),
        };
        let row = SiteRow {
            site: site_id(index),
            name,
            organisation,
            identity: key.public(),
            statement: key.sign(&Canonical::new(statement)?.digest()),
            state: SiteState::Active,
            reason: None,
            enrolled: at,
            last_seen: None,
            software: None,
        };
        tx.put_site(&row).await?;
    }
    tx.next_roster(federation(), &coordinator_key(), at).await?;
    tx.commit().await?;
    store.roster().await?.context("no roster")
}

async fn submit(folder: &Path, plan: &str, colluding: Option<u32>) -> Result<Signed<Study>> {
    let hold = cloud::Hold::new(Box::new(|_, _| cloud::Fate::GoOn), None);
    let store = hold.open(&database(folder)).await?;
    let context = context(folder, store.clone(), &hold, still(), free_space(), settings(1_000, colluding))?;
    let mut schedule = cloud::ByHand::load(context, hold).await?;
    let (reply, answer) = oneshot::channel();
    let requester = Requester { name: "Anna".into(), organisation: "Institute".into(), ..Requester::default() };
    let terms = Terms { title: "Heart".into(), purpose: "To learn.".into(), requester, ..Terms::default() };
    let command = Command::Submit { terms: Box::new(terms), plan: plan.to_owned(), sweep: None, by: caller() };
    schedule.apply(vec![Event::Operator { command, reply }]).await;
    let study = match answer.await? {
        Ok(Reply::Study(study)) => study,
        other => bail!("the study was not taken: {other:?}"),
    };
    schedule.work().await;
    let signed = store.study(study).await?.context("no study")?.signed()?;
    drop(schedule);
    store.close().await;
    Ok(signed)
}

/// A site with its people, a policy, data, a membership, and an approval of the study.
async fn furnish(
    folder: &Path,
    index: usize,
    roster: &Signed<Roster>,
    study: &Signed<Study>,
    colluding: Option<u32>,
) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let config = site_config(folder, still(), Arc::new(|_, _| mpsc::channel(1_024).0));
    hospes_party::initialise(&config).await?;
    let hold = site::Hold::new(Box::new(|_, _| site::Fate::GoOn), None);
    let mut site = Site::open(config, hold.clone()).await?;
    let admin = site
        .ask(|h| async move {
            h.set_up("ana".into(), passphrase("ana")).await?;
            h.log_in("ana".into(), passphrase("ana")).await
        })
        .await?;
    let mut people = BTreeMap::new();
    for (name, role) in PEOPLE {
        let person = NewPerson { name: (*name).into(), roles: BTreeSet::from([*role]), organisation: None };
        let admin = admin.clone();
        let session = site
            .ask(|h| async move {
                let Outcome::Done { code: Some(code) } = h.add_person(&admin, person, passphrase("ana")).await? else {
                    bail!("{name} was not added");
                };
                h.activate((*name).into(), code, passphrase(name)).await?;
                Ok(h.log_in((*name).into(), passphrase(name)).await?)
            })
            .await?;
        people.insert(*name, session);
    }
    let mut policy = Policy::public_data();
    policy.training.colluding = colluding;
    let policy = policy.to_toml()?;
    let done = site
        .ask(|h| async {
            let h = h;
            h.set_policy(&admin, policy, passphrase("ana")).await
        })
        .await?;
    ensure!(done == Outcome::Done { code: None }, "the policy waits: {done:?}");
    let csv = folder.join("data.csv");
    std::fs::write(&csv, rows(index))?;
    let dataset = NewDataset {
        name: "rows".into(),
        path: csv,
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: true,
        duo: vec!["DUO:0000042".into()],
    };
    let sam = people["sam"].clone();
    site.ask(|h| async {
        let h = h;
        h.add_dataset(&sam, dataset).await
    })
    .await?;
    let enrolled = Enrolled {
        url: "https://coordinator.example".into(),
        federation: federation(),
        name: "Federation".into(),
        site: site_id(index),
        site_name: format!("site-{index}"),
        coordinator: coordinator_key().public(),
        ca_pem: "ca".into(),
        chain_pem: "chain".into(),
        key_pem: Zeroizing::new("key".into()),
        roster: roster.clone(),
    };
    site.join(&admin, enrolled, &format!("Hospital {index}"), site_key(index)).await?;
    site.hear(federation(), LinkEvent::Message(ToSite::Study(Box::new(study.clone())))).await;
    if is_masked(&study.document.plan) {
        // Whom a site does not know from elsewhere counts as the coordinator's own, and no sum of three is safe then.
        verify_others(&mut site, &admin, index).await?;
    }
    let (id, ava) = (study.document.id, people["ava"].clone());
    site.ask(|h| async move {
        let read = h.review(&sam, id, None).await?.read;
        let signed = h.approve(&sam, Approving::exactly(id, read), passphrase("sam")).await?;
        h.countersign(&ava, id, signed.digest, passphrase("ava")).await
    })
    .await?;
    drop(site);
    hold.bury().await;
    Ok(())
}

/// Compares the words of the other sites' keys, as people do by telephone.
async fn verify_others(site: &mut Site, admin: &Session, index: usize) -> Result<()> {
    for other in (0..SITES).filter(|other| *other != index) {
        let (admin, words) = (admin.clone(), words::of_key(&site_key(other).public()));
        site.ask(|h| async move { h.verify_peer(&admin, federation(), site_id(other), words).await }).await?;
    }
    Ok(())
}

/// Rows of a site: enough of both labels in both parts.
fn rows(index: usize) -> String {
    let mut text = String::from("subject_id,age,chol,num,fold\n");
    for row in 0..60 + index {
        let fold = if row % 3 == 0 { "test" } else { "train" };
        text.push_str(&format!("s{index}x{row},{},{},{},{fold}\n", 30 + row % 50, 180 + row % 90, row % 2));
    }
    text
}
