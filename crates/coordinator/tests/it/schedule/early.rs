//! Training that ends before its last round.

use hospes_coordinator::models::{Card, CardEarlyStop};
use hospes_coordinator::store::jobs::{JobRow, TaskState};
use hospes_protocol::id::Digest;
use hospes_protocol::plan;

use super::peer::values;
use super::world::{PLAN, World};

/// The plan with so many rounds at most, judged by the test part.
fn early(rounds: u32, stop: &str) -> String {
    let plan = PLAN.replace("rounds: 3", &format!("rounds: {rounds}\n      early_stop: {{ {stop} }}")).replace(
        "inputs: { train: split.train }\n    params",
        "inputs: { train: split.train, validate: split.test }\n    params",
    );
    assert!(plan.contains("early_stop") && plan.contains("validate"));
    plan
}

/// What each site tells of the models: that of round 0 first.
fn tell(world: &World, losses: &[f64]) {
    world.peers.iter().for_each(|peer| *peer.losses.lock().unwrap() = losses.to_vec());
}

/// Rounds of training that were published.
async fn rounds(world: &World, job: &JobRow) -> usize {
    world.included(job.job).await.iter().filter(|(task, ..)| task == "train").count()
}

/// The models that the rounds of training started from, in order.
fn started_from(world: &World) -> Vec<Digest> {
    let opened = world.peers[0].log.lock().unwrap().opened.clone();
    opened.into_iter().filter(|h| h.task == "train").map(|h| h.model.unwrap()).collect()
}

async fn card(world: &World, model: Digest) -> Card {
    world.until("there is a card", || async { world.store.model(model).await.unwrap()[0].card.is_some() }).await;
    serde_json::from_str(world.store.model(model).await.unwrap()[0].card.as_ref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn training_ends_with_the_best_model_and_the_job_goes_on_with_it() {
    for strategy in ["fed_avg: {}", "fed_adam: { lr: 0.01 }"] {
        let mut world = World::new().await;
        tell(&world, &[1.0, 0.8, 0.7, 0.75, 0.72, 0.1]);
        world.start(None).await;
        let study = world.submit(&early(20, "patience: 2").replace("fed_avg: {}", strategy)).await;
        let job = world.succeeded(study).await;
        let tasks = world.store.tasks(job.job).await.unwrap();
        assert!(tasks.iter().all(|t| t.state == TaskState::Success), "{tasks:?}");
        assert_eq!(rounds(&world, &job).await, 5, "{strategy}");
        // The third round started from the model of the second, whose loss was the best of those that were judged.
        let model = job.model.unwrap();
        assert_eq!(started_from(&world)[2], model);
        let judged = world.peers[0].log.lock().unwrap().opened.iter().find(|h| h.task == "eval").unwrap().model;
        assert_eq!(judged, Some(model));
        // Neither the models after it nor what the optimiser kept of them is left.
        assert_eq!(world.process().models.list().unwrap(), [model]);
        assert!(world.process().models.list_moments().unwrap().is_empty());
        let card = card(&world, model).await;
        let stop = card.lineage.early_stop.unwrap();
        assert_eq!((stop.round, stop.rounds, stop.planned), (2, 5, 20));
        assert!((stop.loss - 0.7).abs() < 1e-5, "{stop:?}");
        assert_eq!((card.lineage.rounds.len(), card.parties.len(), card.parties[0].rounds), (2, 4, 2));
        assert_eq!(card.metrics.iter().filter(|m| m.task == "eval").count(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_restarted_decides_as_the_one_before_would_have() {
    let mut world = World::new().await;
    tell(&world, &[1.0, 0.8, 0.7, 0.75, 0.72, 0.1]);
    world.start(None).await;
    let study = world.submit(&early(20, "patience: 2")).await;
    world.until("three rounds are open", || async { started_from(&world).len() >= 4 }).await;
    world.kill().await;
    world.start(None).await;
    let job = world.succeeded(study).await;
    assert_eq!((rounds(&world, &job).await, started_from(&world)[2]), (5, job.model.unwrap()));
    assert_eq!(world.process().models.list().unwrap(), [job.model.unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn training_that_gets_better_to_its_end_or_tells_nothing_runs_all_rounds() {
    for losses in [&[0.9, 0.8, 0.7, 0.6][..], &[], &[0.5]] {
        let mut world = World::new().await;
        tell(&world, losses);
        world.start(None).await;
        let study = world.submit(&early(4, "patience: 1, min_delta: 0.05")).await;
        let job = world.succeeded(study).await;
        let model = job.model.unwrap();
        assert_eq!((rounds(&world, &job).await, world.process().models.list().unwrap()), (4, vec![model]));
        assert!(!started_from(&world).contains(&model), "the last round's model is the result");
        let card = card(&world, model).await;
        assert_eq!((card.lineage.early_stop, card.lineage.rounds.len()), (None, 4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn training_that_makes_the_model_worse_from_the_start_gives_back_what_it_began_with() {
    let mut world = World::new().await;
    tell(&world, &[0.5, 0.49, 0.1]);
    world.start(None).await;
    let study = world.submit(&early(9, "patience: 1, min_delta: 0.05, ceiling: 2.0")).await;
    let job = world.succeeded(study).await;
    let model = job.model.unwrap();
    assert_eq!((rounds(&world, &job).await, started_from(&world)[0]), (2, model));
    let plan = plan::read(PLAN).unwrap();
    let plan::Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    assert_eq!(values(&world.process(), model).await, plan::model::initial(&train.model, 2, plan.seed));
    let card = card(&world, model).await;
    let CardEarlyStop { round, rounds, .. } = card.lineage.early_stop.unwrap();
    assert_eq!((round, rounds, card.lineage.rounds.len(), card.parties.len()), (0, 2, 0, 0));
}
