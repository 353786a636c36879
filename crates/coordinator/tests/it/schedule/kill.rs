//! The process is killed, before, during and after its transactions; another one starts from what is durable and comes
//! to the same end.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hospes_coordinator::aggregate::staging::{Refused, UploadRequest};
use hospes_coordinator::schedule::{Command, Event};
use hospes_coordinator::store::Store;
use hospes_coordinator::store::jobs::JobRow;
use hospes_coordinator::store::results::Access;
use hospes_coordinator::store::rounds::UploadRow;
use hospes_ledger::{Filter, Ledger};
use hospes_protocol::id::{Digest, StudyId};
use hospes_protocol::message::UploadKind;
use hospes_protocol::round::Mode;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::world::{PLAN, World, quick, with_strategy};
use crate::postgres::Postgres;

/// Sites that are away for the time of a restart come back well within this.
fn patient() -> hospes_coordinator::schedule::Settings {
    let mut settings = quick();
    (settings.patience_ms, settings.grace_ms, settings.reserve_ms) = (10_000, 5_000, 10_000);
    settings
}

/// A world with a study of this plan that nobody has decided on yet.
async fn offered(plan: &str, postgres: Option<Postgres>) -> (World, StudyId) {
    let mut world = World::with(4, patient(), postgres).await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(plan).await;
    world.kill().await;
    for peer in &world.peers {
        peer.decides.store(true, Ordering::SeqCst);
    }
    (world, study)
}

/// Ends the loop after these numbers of polls, one after the other, while the sites live on; then lets one finish.
async fn cut_at(world: &mut World, study: StudyId, polls: &[usize]) -> JobRow {
    for after in polls {
        world.start(Some(*after)).await;
        if !world.dead(Duration::from_secs(1)).await {
            world.kill().await;
        }
    }
    world.start(None).await;
    let job = world.succeeded(study).await;
    assert_whole(world, &job).await;
    job
}

/// Nothing is counted twice and nothing is left open.
async fn assert_whole(world: &World, job: &JobRow) {
    assert!(world.store.open_rounds(job.job).await.unwrap().is_empty());
    let rounds = world.included(job.job).await;
    let names: Vec<(&str, u32)> = rounds.iter().map(|(t, r, _)| (t.as_str(), *r)).collect();
    assert_eq!(names, [("statistics", 1), ("train", 1), ("train", 2), ("train", 3), ("eval", 1)]);
    let mut by_turns = false;
    for round in world.store.rounds(job.job, 100).await.unwrap() {
        by_turns |= matches!(world.store.round_header(&round.key).await.unwrap().document.mode, Mode::Turn { .. });
    }
    assert!(rounds.iter().all(|(t, _, n)| *n == if by_turns && t == "train" { 1 } else { 4 }), "{rounds:?}");
    assert_eq!(world.process().models.list_moments().unwrap(), []);
}

/// The model of a run that nobody disturbs, and the polls of its loop.
async fn undisturbed(plan: &str) -> (Digest, usize) {
    let (mut world, study) = offered(plan, None).await;
    let job = cut_at(&mut world, study, &[]).await;
    (job.model.unwrap(), world.polls.load(Ordering::SeqCst))
}

async fn comes_to_the_same_model(plan: &str) {
    let (model, polls) = undisturbed(plan).await;
    let (mut world, study) = offered(plan, None).await;
    let every: Vec<usize> = (0..12).map(|n| polls / 6 + n * 7).collect();
    let job = cut_at(&mut world, study, &every).await;
    assert_eq!(job.model, Some(model));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_comes_to_the_same_model() {
    comes_to_the_same_model(PLAN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_keeps_its_moments() {
    comes_to_the_same_model(&with_strategy("fed_yogi: { lr: 0.1 }")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_keeps_the_order_of_turns() {
    comes_to_the_same_model(&with_strategy("cyclic: {}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_takes_the_masks_off_the_same_sum() {
    comes_to_the_same_model(&super::masks::masked(PLAN)).await;
}

const FOLDER: &str = "HOSPES_TEST_FOLDER";
const DATABASE: &str = "HOSPES_TEST_DATABASE";
const CRASH: &str = "HOSPES_TEST_CRASH";
const PLANNED: &str = "HOSPES_TEST_PLAN";

/// Kills this process, as `kill -9` would, at a moment of a transaction: `before schedule 3` (its third), `during card`,
/// or `after round_opened` (the first in which that action is recorded).
struct Killer {
    moment: String,
    what: String,
    nth: usize,
    seen: Mutex<(usize, BTreeSet<String>)>,
}

impl Killer {
    fn new(crash: &str) -> Self {
        let mut words = crash.split(' ').map(str::to_owned);
        let (moment, what) = (words.next().unwrap(), words.next().unwrap());
        let nth = words.next().map_or(1, |n| n.parse().unwrap());
        Self { moment, what, nth, seen: Mutex::default() }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Killer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let of = |name: &str| fields.0.get(name).map_or("", String::as_str);
        if of("transaction").is_empty() {
            return;
        }
        // One write transaction at a time: what is recorded belongs to the one that has begun.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = match of("message") {
            "begins" => {
                seen.0 += usize::from(of("transaction") == self.what);
                seen.1 = BTreeSet::from([of("transaction").to_owned()]);
                "before"
            }
            "records" => {
                seen.1.insert(of("action").to_owned());
                return;
            }
            "commits" => "during",
            "committed" => "after",
            _ => return,
        };
        if moment == self.moment && seen.1.contains(&self.what) && (moment != "before" || seen.0 == self.nth) {
            let this = rustix::process::getpid();
            let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

/// A study from its submission to the release of its results; the same whether it begins or goes on after a crash.
async fn carry_through(folder: &Path, database: Option<String>, plan: &str) -> Digest {
    let mut world = World::at(folder, database, 4, patient()).await;
    world.start(None).await;
    let study = match world.store.studies().await.unwrap().first() {
        Some(row) => row.study,
        None => world.submit(plan).await,
    };
    let job = world.succeeded(study).await;
    assert_whole(&world, &job).await;
    let model = job.model.unwrap();
    world.until("all release", || async { world.store.access(job.job).await.unwrap() == Access::Released }).await;
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    world.kill().await;
    let mut connection = world.store.read().await.unwrap();
    let page = Ledger::on(&mut *connection).page(&Filter::default(), 1_000).await.unwrap();
    let count = |action: &str| page.records.iter().filter(|r| r.action.unwrap().as_str() == action).count();
    // An entry for each thing that happened, and none for what was undone.
    for (action, times) in [
        ("study_submitted", 1),
        ("decision_received", 4),
        ("model_published", 3),
        ("job_ended", 1),
        ("results_released", 4),
    ] {
        assert_eq!(count(action), times, "{action}");
    }
    drop(connection);
    world.store.close().await;
    model
}

/// What a child does until it is killed; run by itself, the whole way without a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_job_is_carried_through() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os(FOLDER).map_or(temporary.path().to_owned(), PathBuf::from);
    if let Ok(crash) = std::env::var(CRASH) {
        tracing_subscriber::registry().with(Killer::new(&crash)).init();
    }
    let plan = std::env::var(PLANNED).unwrap_or_else(|_| PLAN.to_owned());
    carry_through(&folder, std::env::var(DATABASE).ok(), &plan).await;
    if std::env::var_os(CRASH).is_some() {
        // What is waited for is committed a moment before the last step is over, which is one to be killed after.
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Makes another database; the result is its URL.
async fn made(server: &Postgres, name: &str) -> String {
    let store = Store::open(&server.url()).await.unwrap();
    let mut connection = store.read().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut *connection).await.unwrap();
    drop(connection);
    store.close().await;
    server.url_of(name)
}

/// Kills a process, its sites included, at each of these moments, and goes on where it left off.
async fn killed(points: &[&str], plan: &str, postgres: Option<&Postgres>) {
    let temporary = tempfile::tempdir().unwrap();
    let model = carry_through(temporary.path(), None, plan).await;
    for (n, point) in points.iter().enumerate() {
        let temporary = tempfile::tempdir().unwrap();
        let database = match postgres {
            Some(server) => Some(made(server, &format!("killed{n}")).await),
            None => None,
        };
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "schedule::kill::i7_a_job_is_carried_through"]);
        child.env(CRASH, point).env(FOLDER, temporary.path()).env(PLANNED, plan);
        if let Some(database) = &database {
            child.env(DATABASE, database);
        }
        let child = child.kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert_eq!(child.status.signal(), Some(9), "'{point}' was never reached: {said}");
        assert_eq!(carry_through(temporary.path(), database, plan).await, model, "killed {point}");
    }
}

macro_rules! killed {
    ($($name:ident: $($point:literal),*;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                killed(&[$($point),*], PLAN, None).await;
            }
        )*
    };
}

killed! {
    i7_killed_before_a_transaction: "before schedule 4", "before schedule 9", "before schedule 15", "before card";
    i7_killed_at_the_start_of_a_job: "during study_submitted", "during decision_received", "after decision_received",
        "during job_started", "after job_started";
    i7_killed_at_a_round: "during round_opened", "after round_opened", "during upload_received",
        "after upload_received", "during round_closed", "during model_published", "after model_published";
    i7_killed_at_the_end_of_a_job: "during job_ended", "after job_ended", "during card", "after card",
        "during results_released", "after results_released";
}

/// Named and not published, and published and not cleaned up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_killed_with_moments() {
    let points = ["during model_published", "after model_published", "during round_opened"];
    killed(&points, &with_strategy("fed_adam: { lr: 0.1 }"), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_killed_by_turns() {
    let points = ["during upload_received", "during model_published", "after round_opened"];
    killed(&points, &with_strategy("cyclic: {}"), None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_killed_on_postgres() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let points = [
        "before schedule 9",
        "during job_started",
        "during round_opened",
        "during upload_received",
        "after upload_received",
        "during model_published",
        "after job_ended",
        "during card",
    ];
    killed(&points, PLAN, Some(&server)).await;
}

/// A site whose receipt was cut off asks again after the coordinator was restarted, when the round is long over.
async fn asks_again_after_a_restart(mut world: World) {
    world.start(None).await;
    let study = world.submit(PLAN).await;
    world.succeeded(study).await;
    world.kill().await;
    world.start(None).await;
    // Until everything is loaded no round is known; the port opens only then.
    world.command(Command::Sessions).await.unwrap();
    let process = world.process();
    let job = world.store.jobs(Some(study)).await.unwrap().remove(0).job;
    let mut confirmed = Vec::new();
    for round in world.store.rounds(job, 100).await.unwrap() {
        let kind = if round.model.is_some() { UploadKind::Update } else { UploadKind::Figures };
        for UploadRow { site, digest, bytes, .. } in world.store.uploads(&round.key).await.unwrap() {
            let round = round.key.clone();
            confirmed.push(UploadRequest { site, kind, study, round, digest, length: bytes });
        }
    }
    assert_eq!(confirmed.len(), 5 * 4);
    for request in confirmed {
        let (site, digest) = (request.site, request.digest);
        assert!(matches!(process.staging.begin(request.clone()).await, Err(Refused::Over(_))));
        assert!(world.store.counted(&request).await.unwrap());
        let other = UploadRequest { digest: Digest::of(b"other"), ..request.clone() };
        assert!(!world.store.counted(&other).await.unwrap());
        let upload = process.staging.confirmed(request);
        let (reply, answer) = tokio::sync::oneshot::channel();
        process.events.send(Event::Uploaded { site, upload, reply }).await.unwrap();
        let receipt = answer.await.unwrap().unwrap();
        assert!(receipt.signed_by(&world.peers[0].coordinator) && receipt.document.digest == digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_given_again_after_a_restart() {
    asks_again_after_a_restart(World::new().await).await;
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    asks_again_after_a_restart(World::with(4, quick(), Some(server)).await).await;
}
