//! Regressions through the schedule: rounds until it converges, and why it may not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hospes_coordinator::models::Card;
use hospes_coordinator::schedule::{Command, Reply};
use hospes_coordinator::store::jobs::{JobRow, JobState, TaskState};
use hospes_coordinator::store::rounds::RoundState;
use hospes_privacy::secagg::Step;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::figure;

use super::peer::{Act, values};
use super::world::{World, caller};

const PLAN: &str = r#"
schema: hospes/plan/v1
name: odds
data: { subject: id, label: { column: ill, positive: "> 0" }, columns: [exposed] }
tasks:
  read: { component: reader }
  odds: { component: glm, inputs: { train: read }, params: { family: binomial } }
  quality: { component: evaluation, inputs: { model: odds.model, data: read } }
"#;

/// Exposed and ill, exposed and well, not exposed and ill, not exposed and well, at each of the four sites.
const CELLS: [[f64; 4]; 4] =
    [[18.0, 7.0, 2.0, 31.0], [12.0, 13.0, 10.0, 17.0], [5.0, 6.0, 7.0, 8.0], [9.0, 1.0, 3.0, 22.0]];

/// What a site reports at these coefficients.
pub fn report(index: u8, point: &[f64]) -> FigureSet {
    let cells = CELLS[usize::from(index)];
    let mut sums = BTreeMap::new();
    let mut add = |name: &str, values: &[f64]| {
        let sum: &mut Vec<f64> = sums.entry(name.to_owned()).or_insert_with(|| vec![0.0; values.len()]);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    };
    for (n, (x, y)) in cells.iter().zip([(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]) {
        let mean = 1.0 / (1.0 + (-(point[0] + point[1] * x)).exp());
        let (residual, variance) = (n * (y - mean), n * mean * (1.0 - mean));
        let surprise = -n * (if y > 0.5 { mean } else { 1.0 - mean }).ln();
        add(figure::N, &[*n]);
        add(figure::SCORE, &[residual, residual * x]);
        add(figure::INFORMATION, &[variance, variance * x, variance * x * x]);
        add(figure::LOG_LIKELIHOOD, &[-surprise]);
        add(figure::WEIGHTS, &[*n]);
        add(figure::DEVIANCE, &[2.0 * surprise]);
        add(figure::PEARSON, &[residual * residual / (n * mean * (1.0 - mean))]);
        add(figure::EVENTS, &[n * y]);
    }
    FigureSet { sums, withheld: BTreeMap::new() }
}

const HAZARDS: &str = r#"
schema: hospes/plan/v1
name: hazards
data: { subject: id, label: { column: died, positive: "== 1", time: days }, columns: [dose] }
tasks:
  read: { component: reader }
  fit: { component: cox, inputs: { train: read }, params: { time_grid: { width: 2.0, intervals: 2 } } }
"#;

/// What a site reports of a likelihood of weight·(b − b²) with its maximum at 0.5; in the last round what leaves once.
pub fn hazards(index: u8, b: f64, is_last: bool) -> FigureSet {
    let weight = 20.0 + f64::from(index);
    let rest: &[(&str, &[f64])] = if is_last {
        &[
            (figure::PAIRS, &[6.0, 3.0, 1.0]),
            (figure::GRID_EVENTS, &[30.0, 10.0]),
            (figure::GRID_EXPOSURE, &[60.0, 40.0]),
        ]
    } else {
        &[
            (figure::SCORE, &[weight * (1.0 - 2.0 * b)]),
            (figure::INFORMATION, &[weight * 2.0]),
            (figure::LOG_LIKELIHOOD, &[weight * (b - b * b)]),
        ]
    };
    let always: [(&str, &[f64]); 2] = [(figure::N, &[100.0]), (figure::EVENTS, &[40.0])];
    let sums = rest.iter().chain(&always);
    FigureSet { sums: sums.map(|(name, sum)| ((*name).to_owned(), sum.to_vec())).collect(), withheld: BTreeMap::new() }
}

/// The log odds ratio and Woolf's standard error of the sites' tables added up.
fn wanted(sites: &[usize]) -> (f64, f64) {
    let sum = |cell: usize| sites.iter().map(|site| CELLS[*site][cell]).sum::<f64>();
    let [a, b, c, d] = [sum(0), sum(1), sum(2), sum(3)];
    ((a * d / (b * c)).ln(), (1.0 / a + 1.0 / b + 1.0 / c + 1.0 / d).sqrt())
}

async fn assert_fitted(world: &World, job: &JobRow, sites: &[usize]) {
    let fits = world.store.fits(job.job).await.unwrap();
    assert_eq!((fits.len(), fits[0].sites.len()), (1, sites.len()));
    let (estimate, error) = wanted(sites);
    let found = &fits[0].coefficients[1];
    assert!((found.estimate - estimate).abs() < 1e-10, "{found:?} {estimate}");
    assert!((found.error - error).abs() < 1e-10, "{found:?} {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_regression_ends_when_it_converges_and_its_model_is_judged() {
    let mut world = World::new().await;
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    assert_fitted(&world, &job, &[0, 1, 2, 3]).await;
    let tasks = world.store.tasks(job.job).await.unwrap();
    let task = tasks.iter().find(|t| t.task == "odds").unwrap();
    assert!((3..10).contains(&task.done) && task.rounds == 25, "{task:?}");
    // The model has the coefficients, weight before bias, and is what the evaluation's round started from.
    let model = job.model.unwrap();
    let found = values(&world.process(), model).await;
    assert_eq!(found.len(), 2);
    assert!((f64::from(found[0]) - wanted(&[0, 1, 2, 3]).0).abs() < 1e-6);
    let judged = world.peers[0].log.lock().unwrap().opened.iter().find(|h| h.task == "quality").unwrap().model;
    assert_eq!((judged, world.process().models.list().unwrap()), (Some(model), vec![model]));
    // Sums over all sites are kept, no site's own.
    let figures = world.store.figures(job.job).await.unwrap();
    assert!(figures.iter().filter(|f| f.task == "odds").all(|f| f.site.is_none()));
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    let card: Card = serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap();
    assert_eq!((card.fits.len(), card.parties.len()), (1, 4));
}

async fn assert_hazards(world: &World, job: &JobRow) {
    let fits = world.store.fits(job.job).await.unwrap();
    assert!((fits[0].coefficients[0].estimate - 0.5).abs() < 1e-12, "{fits:?}");
    assert_eq!((fits[0].concordance.as_ref().unwrap().index, fits[0].baseline.len()), (0.65, 2));
    let mut rounds = world.store.rounds(job.job, 100).await.unwrap();
    rounds.retain(|round| round.state == RoundState::Published);
    assert_eq!(rounds.iter().map(|round| round.key.round).collect::<Vec<_>>(), [1, 2, 26]);
    // What was asked for each time had to be in the report, and nothing else.
    let task = world.store.tasks(job.job).await.unwrap().into_iter().find(|t| t.task == "fit").unwrap();
    assert_eq!((task.state, task.done, task.rounds), (TaskState::Success, 26, 26));
    let figures = world.store.figures(job.job).await.unwrap();
    assert!(
        figures.iter().all(|f| f.site.is_none() && f.figures.sums.contains_key(figure::INFORMATION)),
        "{figures:?}"
    );
    world.until("no file is left", || async { world.process().models.list().unwrap().is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_and_grid_of_a_cox_fit_leave_once_after_it_has_converged() {
    let mut world = World::new().await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    world.peers[2].script(
        move |header| {
            if header.round == 26 && is_broken.load(Ordering::SeqCst) { Act::Fail } else { Act::Work }
        },
    );
    world.start(None).await;
    let study = world.submit(HAZARDS).await;
    // The last round fails, and the next run has to make up for it only, also after a restart.
    let job = world.ended(study).await;
    assert!(job.reason.as_ref().unwrap().contains("site-2 (failed: out of memory)"), "{job:?}");
    assert!(world.store.fits(job.job).await.unwrap().is_empty());
    world.kill().await;
    broken.store(false, Ordering::SeqCst);
    world.start(None).await;
    rerun(&world, &job).await;
    let job = world.succeeded(study).await;
    assert_hazards(&world, &job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_again_and_again_ends_with_the_same_fit() {
    let mut world = World::new().await;
    world.start(None).await;
    world.peers.iter().for_each(|peer| _ = peer.decides.swap(false, Ordering::SeqCst));
    let study = world.submit(PLAN).await;
    world.kill().await;
    world.peers.iter().for_each(|peer| _ = peer.decides.swap(true, Ordering::SeqCst));
    let (mut polls, mut deaths) = (40, 0);
    world.start(Some(polls)).await;
    let job = loop {
        if world.dead(Duration::from_millis(50)).await {
            (deaths, polls) = (deaths + 1, polls + 10);
            world.start(Some(polls)).await;
        }
        let jobs = world.store.jobs(Some(study)).await.unwrap();
        if let Some(job) = jobs.into_iter().find(|job| job.state.is_terminal()) {
            break job;
        }
    };
    assert!(deaths > 2, "{deaths}");
    assert_eq!(job.state, JobState::Success, "{job:?}");
    assert_fitted(&world, &job, &[0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_withholds_its_sums_fails_the_fit_in_words() {
    let mut world = World::new().await;
    world.peers[2].script(|header| if header.task == "odds" { Act::Withhold } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    let reason = job.reason.unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(reason.contains("odds: site-2 withheld the sums") && reason.contains("another fit"), "{reason}");
    assert!(world.store.fits(job.job).await.unwrap().is_empty());
}

async fn rerun(world: &World, job: &JobRow) {
    let command = Command::Rerun { job: job.job, by: caller() };
    assert_eq!(world.command(command).await, Ok(Reply::Job(job.job)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_fails_stops_the_fit_and_the_next_run_goes_on_with_it() {
    let mut world = World::new().await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    world.peers[1].script(
        move |header| {
            if header.round == 3 && is_broken.load(Ordering::SeqCst) { Act::Fail } else { Act::Work }
        },
    );
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    let reason = job.reason.clone().unwrap();
    assert!(reason.contains("the sums of every site") && reason.contains("site-1 (failed: out of memory)"), "{reason}");
    broken.store(false, Ordering::SeqCst);
    rerun(&world, &job).await;
    assert_fitted(&world, &world.succeeded(study).await, &[0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_leaves_stops_the_fit_and_the_next_run_begins_it_anew_without() {
    let mut world = World::new().await;
    world.peers[1].script(|header| if header.round == 3 { Act::Revoke } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    let reason = job.reason.clone().unwrap();
    assert!(reason.contains("missing: site-1; new: nobody") && reason.contains("run the job again"), "{reason}");
    rerun(&world, &job).await;
    assert_fitted(&world, &world.succeeded(study).await, &[0, 2, 3]).await;
}

/// A plan whose regression sends sums under masks.
fn masked(plan: &str, params: &str) -> String {
    assert_eq!(plan.matches(params).count(), 1);
    plan.replace(params, &format!("{{ privacy: {{ secure_aggregation: {{}} }},{}", &params[1..]))
}

const OF_ODDS: &str = "{ family: binomial }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regressions_under_masks_are_those_of_all_rows_together() {
    let mut world = World::new().await;
    // A sum over three of four is not asked for: the others join no sum over all at the same coefficients then.
    world.peers[1].script(|header| match (header.task.as_str(), header.round, header.attempt) {
        ("odds", 2, 1) => Act::Until(Step::Input),
        _ => Act::Work,
    });
    world.start(None).await;
    let study = world.submit(&masked(HAZARDS, "{ time_grid: { width: 2.0, intervals: 2 } }")).await;
    let job = world.succeeded(study).await;
    assert_hazards(&world, &job).await;
    let study = world.submit(&masked(PLAN, OF_ODDS)).await;
    let job = world.succeeded(study).await;
    assert_fitted(&world, &job, &[0, 1, 2, 3]).await;
    let rounds = world.store.rounds(job.job, 100).await.unwrap();
    let second: Vec<(u32, RoundState)> = rounds
        .iter()
        .filter(|round| round.key.task == "odds" && round.key.round == 2)
        .map(|round| (round.key.attempt, round.state))
        .collect();
    assert_eq!(second.len(), 2);
    assert!(second.contains(&(1, RoundState::Abandoned)) && second.contains(&(2, RoundState::Published)), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_masks_nobody_is_told_which_site_withholds_the_sums_of_a_fit() {
    let mut world = World::new().await;
    world.peers[2].script(|header| if header.task == "odds" { Act::Withhold } else { Act::Work });
    world.start(None).await;
    let study = world.submit(&masked(PLAN, OF_ODDS)).await;
    let job = world.ended(study).await;
    let reason = job.reason.unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(reason.contains("of 1 of 4 sites") && !reason.contains("site-2"), "{reason}");
}

/// Attack: at nearly the same coefficients the sums over the others, taken off those over all, are those of the missing site.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fit_under_masks_asks_for_no_sum_over_other_sites_than_before() {
    let mut world = World::new().await;
    world.peers[1].script(|header| if header.round == 3 { Act::Revoke } else { Act::Work });
    world.start(None).await;
    let study = world.submit(&masked(PLAN, OF_ODDS)).await;
    let job = world.ended(study).await;
    let reason = job.reason.clone().unwrap();
    assert!(job.state == JobState::Failed && reason.contains("of the same sites from its first round"), "{reason}");
    let rounds = world.store.rounds(job.job, 100).await.unwrap();
    let third: Vec<RoundState> = rounds.iter().filter(|r| r.key.round == 3).map(|round| round.state).collect();
    assert!(third.len() > 1 && third.iter().all(|state| *state == RoundState::Abandoned), "{third:?}");
}
