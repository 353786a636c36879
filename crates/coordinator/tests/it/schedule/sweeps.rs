//! Studies with many settings: each is run once, so many at a time as the sites have room for, and the best is released.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hospes_coordinator::models::Card;
use hospes_coordinator::schedule::{Command, Event, RejectionCode, Reply};
use hospes_coordinator::store::jobs::{JobRow, JobState, TaskState};
use hospes_coordinator::store::results::Access;
use hospes_coordinator::store::sweeps::{SweepRow, SweepState};
use hospes_protocol::id::StudyId;
use hospes_protocol::message::{Decision, FromSite};
use serde_json::{Value, json};

use super::peer::{Act, rate};
use super::world::{PLAN, World, caller, quick};
use crate::postgres::Postgres;

const LR: &str = "tasks.train.params.optimizer.sgd.lr";
const UPDATES: &str = "tasks.train.params.local.updates";

/// The plan without what would be the same in every run, and with one round.
fn plan() -> String {
    let (plan, _) = PLAN.split_once("  statistics:").unwrap();
    plan.replace("rounds: 3", "rounds: 1")
}

fn sweep(rates: u32, updates: &[u32], parallel: u32) -> Value {
    let rates: Vec<f64> = (1..=rates).map(|n| f64::from(n) / 100.0).collect();
    json!({ "grid": { LR: rates, UPDATES: updates }, "rank": { "task": "eval" }, "parallel": parallel })
}

async fn over(world: &World, study: StudyId) -> SweepRow {
    for _ in 0..12_000 {
        match world.store.sweep(study).await.unwrap() {
            Some(row) if row.state != SweepState::Running => return row,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the settings are never through: {:?}", world.store.jobs(Some(study)).await);
}

async fn jobs(world: &World, study: StudyId) -> BTreeMap<u32, JobRow> {
    let rows = world.store.jobs(Some(study)).await.unwrap();
    let count = rows.len();
    let jobs: BTreeMap<u32, JobRow> = rows.into_iter().map(|job| (job.setting.unwrap(), job)).collect();
    assert_eq!(jobs.len(), count, "a setting has one job");
    assert!(jobs.values().all(|job| job.state.is_terminal()), "{jobs:?}");
    jobs
}

/// Watches how many jobs are open, until the sweep is over.
async fn most_open(world: &World, study: StudyId) -> usize {
    let mut most = 0;
    loop {
        let open = world.store.jobs(Some(study)).await.unwrap().iter().filter(|j| !j.state.is_terminal()).count();
        most = most.max(open);
        match world.store.sweep(study).await.unwrap() {
            Some(row) if row.state != SweepState::Running => return most,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn forty_settings(world: &mut World) {
    for peer in &world.peers {
        peer.releases.store(false, Ordering::SeqCst);
    }
    // One site takes two runs at a time, and with one setting another site always fails.
    world.peers[1].room.store(2, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit_sweep(&plan(), sweep(10, &[1, 2, 4, 8], 4)).await;
    let document = world.store.study(study).await.unwrap().unwrap().signed().unwrap().document;
    // Setting 10 has the highest rate with the fewest updates: without its failure it would be the best.
    let spoilt = document.run(Some(10)).unwrap();
    assert_eq!(rate(&spoilt), 0.1);
    let digest = spoilt.digest();
    world.peers[2].script(move |header| if header.plan == digest { Act::Fail } else { Act::Work });
    for peer in [0, 3] {
        let digest = spoilt.digest();
        world.peers[peer].script(move |header| if header.plan == digest { Act::Fail } else { Act::Work });
    }
    let most = most_open(world, study).await;
    let row = over(world, study).await;
    assert_eq!((row.state, row.reason), (SweepState::Success, None));
    let jobs = jobs(world, study).await;
    assert_eq!(jobs.keys().copied().collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    assert!((2..=4).contains(&most), "{most} jobs were open at a time");
    let log = |peer: usize, of: fn(&super::peer::Log) -> usize| of(&world.peers[peer].log.lock().unwrap());
    assert!(log(1, |l| l.most_held) == 2 && log(1, |l| l.busy) > 0, "the site that is busy makes jobs wait");
    let failed: Vec<u32> = jobs.iter().filter(|(_, j)| j.state != JobState::Success).map(|(n, _)| *n).collect();
    assert_eq!(failed, [10], "{:?}", jobs[&10]);
    assert!(jobs[&10].reason.as_ref().unwrap().contains("attempts at a round failed"));
    for (setting, job) in &jobs {
        let tasks = world.store.tasks(job.job).await.unwrap();
        assert!(tasks.iter().all(|t| t.state.is_terminal()), "{setting}: {tasks:?}");
        let done = tasks.iter().all(|t| t.state == TaskState::Success);
        assert_eq!(done, *setting != 10);
    }
    chosen(world, study, &jobs).await;
}

/// The best is the first of those with the highest figure that is left; nothing of the others is to be had.
async fn chosen(world: &World, study: StudyId, jobs: &BTreeMap<u32, JobRow>) {
    let best: Vec<u32> = jobs.iter().filter(|(_, job)| job.chosen.is_some()).map(|(n, _)| *n).collect();
    assert_eq!(best, [20], "with the second number of updates and the same rate");
    let row = &jobs[&20];
    let close = |figure: f64| (figure - 0.1).abs() < 1e-9;
    assert!(close(row.figure.as_deref().unwrap().parse().unwrap()), "{:?}", row.figure);
    assert!(jobs.iter().all(|(n, job)| job.figure.is_some() == (*n != 10)));
    let model = row.model.unwrap();
    world.until("only the best model is kept", || async { world.process().models.list().unwrap() == [model] }).await;
    assert_eq!(world.store.models().await.unwrap().iter().map(|m| m.job).collect::<Vec<_>>(), [row.job]);
    assert!(matches!(world.store.access(row.job).await.unwrap(), Access::Held(sites) if sites.len() == 4));
    assert_eq!(world.store.access(jobs[&1].job).await.unwrap(), Access::NotChosen);
    for peer in &world.peers {
        // Whoever may release results hears of one model only.
        world
            .until("the site hears which one is the best", || async {
                peer.log.lock().unwrap().ended.get(&row.job).is_some_and(|(_, _, model)| model.is_some())
            })
            .await;
        let ended = peer.log.lock().unwrap().ended.clone();
        let models: Vec<_> = ended.iter().filter(|(_, (_, _, model))| model.is_some()).map(|(job, _)| *job).collect();
        assert_eq!((models, ended.len()), (vec![row.job], 40));
        let said = Event::Message { site: peer.id, session: 0, message: FromSite::Release { job: row.job } };
        world.process().events.send(said).await.unwrap();
    }
    world.until("released", || async { world.store.access(row.job).await.unwrap() == Access::Released }).await;
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    let card: Card = serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap();
    let document = world.store.study(study).await.unwrap().unwrap().signed().unwrap().document;
    assert_eq!(card.lineage.plan, document.run(Some(20)).unwrap().digest());
    let found = card.lineage.sweep.unwrap();
    assert_eq!((found.setting, found.settings, found.done, found.compared), (20, 40, 39, 39));
    assert_eq!((found.values[LR], found.values[UPDATES]), (0.1, 2.0));
    assert!(found.figure.is_some_and(close));
    assert!(found.note.contains("better than what is to be expected"));
    let again = world.command(Command::Start { study, by: caller() }).await.unwrap_err();
    assert!(again.code == RejectionCode::Conflict && again.message.contains("run once"), "{again}");
    let again = world.command(Command::Rerun { job: jobs[&10].job, by: caller() }).await.unwrap_err();
    assert!(again.code == RejectionCode::Conflict && again.message.contains("run once"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_settings_run_four_at_a_time_and_the_best_is_released_on_sqlite() {
    forty_settings(&mut World::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_settings_run_four_at_a_time_and_the_best_is_released_on_postgres() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    forty_settings(&mut World::with(4, quick(), Some(server)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_card_says_what_the_chosen_setting_keeps_at_the_sites_and_not_the_plan_it_began_with() {
    let mut world = World::new().await;
    world.start(None).await;
    let width = "tasks.train.params.model.0.linear.out";
    let settings = json!([{ width: 8, LR: 0.01 }, { width: 4, LR: 0.05 }]);
    let plan = plan().replace("fed_avg: {}", "personal: { layers: ['0'] }");
    let study = world.submit_sweep(&plan, json!({ "settings": settings, "rank": { "task": "eval" } })).await;
    assert_eq!(over(&world, study).await.state, SweepState::Success);
    let jobs = jobs(&world, study).await;
    assert!(jobs[&2].chosen.is_some(), "{jobs:?}");
    let model = jobs[&2].model.unwrap();
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    let card: Card = serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap();
    let kept: Vec<(&str, &[u64])> = card.kept_at_sites.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    assert_eq!(kept, [("0.weight", &[2, 4][..]), ("0.bias", &[4][..])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_in_the_middle_goes_on_with_the_settings_that_are_left() {
    let mut settings = quick();
    (settings.patience_ms, settings.grace_ms, settings.reserve_ms) = (10_000, 5_000, 10_000);
    let mut world = World::with(4, settings, None).await;
    world.peers[3].room.store(2, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit_sweep(&plan(), sweep(4, &[1, 2, 3], 3)).await;
    for polls in [20, 45, 80, 120, 170] {
        world.kill().await;
        world.start(Some(polls)).await;
        if !world.dead(Duration::from_secs(2)).await {
            world.kill().await;
        }
    }
    let before = world.store.jobs(Some(study)).await.unwrap().len();
    world.start(None).await;
    let row = over(&world, study).await;
    assert_eq!(row.state, SweepState::Success, "{row:?}");
    let jobs = jobs(&world, study).await;
    assert!(before < 12, "all were made before the last start, so that this test says nothing");
    assert!(jobs.len() == 12 && jobs.values().all(|job| job.state == JobState::Success), "{jobs:?}");
    let best: Vec<u32> = jobs.iter().filter(|(_, job)| job.chosen.is_some()).map(|(n, _)| *n).collect();
    assert_eq!(best, [4]);
    for job in jobs.values() {
        assert!(world.store.open_rounds(job.job).await.unwrap().is_empty());
        let rounds: BTreeSet<(String, u32, usize)> = world.included(job.job).await.into_iter().collect();
        assert_eq!(rounds.len(), 2, "{rounds:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_study_runs_no_more_settings_and_keeps_no_model() {
    let mut world = World::new().await;
    world.start(None).await;
    let study = world.submit_sweep(&plan(), sweep(10, &[1, 2, 3], 2)).await;
    world
        .until("some settings are done", || async {
            let jobs = world.store.jobs(Some(study)).await.unwrap();
            jobs.iter().filter(|job| job.state == JobState::Success).count() >= 3
        })
        .await;
    let withdraw = Command::Withdraw { study, by: caller(), reason: "enough".into() };
    assert_eq!(world.command(withdraw).await.unwrap(), Reply::Done);
    let row = over(&world, study).await;
    assert_eq!(row.state, SweepState::Cancelled);
    assert!(row.reason.unwrap().contains("enough"));
    let made = jobs(&world, study).await;
    assert!(made.len() < 30 && made.values().all(|job| job.chosen.is_none()));
    world.command(Command::Sessions).await.unwrap();
    assert_eq!(jobs(&world, study).await.len(), made.len(), "another setting began");
    world.until("no model is kept", || async { world.process().models.list().unwrap().is_empty() }).await;
    for job in made.values() {
        assert_ne!(world.store.access(job.job).await.unwrap(), Access::Released);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_approvals_the_settings_that_are_left_wait_and_then_end() {
    let mut world = World::with(2, quick(), None).await;
    world.start(None).await;
    let study = world.submit_sweep(&plan(), sweep(10, &[1, 2, 3, 4], 1)).await;
    world
        .until("one setting is done", || async {
            let jobs = world.store.jobs(Some(study)).await.unwrap();
            jobs.iter().any(|job| job.state == JobState::Success)
        })
        .await;
    let message = FromSite::Decision { study, decision: Decision::Suspended };
    world.process().events.send(Event::Message { site: world.peers[0].id, session: 0, message }).await.unwrap();
    let row = over(&world, study).await;
    // What was done is ranked all the same.
    assert_eq!(row.state, SweepState::Success, "{row:?}");
    assert!(row.reason.unwrap().contains("were not run"));
    let jobs = jobs(&world, study).await;
    assert!(jobs.len() < 40 && jobs.values().filter(|job| job.chosen.is_some()).count() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_site_is_waited_for_and_nobody_holds_a_place_meanwhile() {
    let mut settings = quick();
    (settings.busy_ms, settings.quorum_ms) = (100, 20_000);
    let mut world = World::with(4, settings, None).await;
    world.peers[0].room.store(0, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit_sweep(&plan(), sweep(2, &[1], 2)).await;
    let peer = world.peers[0].clone();
    world.until("it was asked again", || async { peer.log.lock().unwrap().busy >= 3 }).await;
    let waiting = world.store.jobs(Some(study)).await.unwrap();
    assert!(waiting.iter().all(|job| job.state == JobState::Waiting), "{waiting:?}");
    // Nobody holds a place for a job that cannot start.
    world.until("places are given back", || async { world.peers[1].log.lock().unwrap().held.is_empty() }).await;
    peer.room.store(1, Ordering::SeqCst);
    let row = over(&world, study).await;
    assert_eq!(row.state, SweepState::Success, "{row:?}");
    assert_eq!(peer.log.lock().unwrap().most_held, 1);
}
