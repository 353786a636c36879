//! The process is killed, at any point of its loop; another one starts from what is durable and comes to the same end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hospes_coordinator::schedule::Event;
use hospes_coordinator::store::jobs::JobRow;
use hospes_protocol::id::{Digest, StudyId};

use super::world::{PLAN, World, quick};
use crate::postgres::Postgres;

/// Sites that are away for the time of a restart come back well within this.
fn patient() -> hospes_coordinator::schedule::Settings {
    let mut settings = quick();
    (settings.patience_ms, settings.grace_ms, settings.reserve_ms) = (10_000, 5_000, 10_000);
    settings
}

/// A world with a study that nobody has decided on yet.
async fn offered(postgres: Option<Postgres>) -> (World, StudyId) {
    let mut world = World::with(4, patient(), postgres).await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    world.kill().await;
    for peer in &world.peers {
        peer.decides.store(true, Ordering::SeqCst);
    }
    (world, study)
}

/// Kills the process after these numbers of polls, one process after the other, then lets one finish.
async fn killed_at(world: &mut World, study: StudyId, polls: &[usize]) -> JobRow {
    for after in polls {
        world.start(Some(*after)).await;
        if !world.dead(Duration::from_secs(1)).await {
            world.kill().await;
        }
    }
    world.start(None).await;
    let job = world.succeeded(study).await;
    // Nothing is counted twice and nothing is left open.
    assert!(world.store.open_rounds(job.job).await.unwrap().is_empty());
    let rounds = world.included(job.job).await;
    let names: Vec<(&str, u32, usize)> = rounds.iter().map(|(t, r, n)| (t.as_str(), *r, *n)).collect();
    assert_eq!(names, [("statistics", 1, 4), ("train", 1, 4), ("train", 2, 4), ("train", 3, 4), ("eval", 1, 4)]);
    job
}

/// The model of a run that nobody disturbs, and the polls of its loop.
async fn undisturbed() -> (Digest, usize) {
    let (mut world, study) = offered(None).await;
    let job = killed_at(&mut world, study, &[]).await;
    (job.model.unwrap(), world.polls.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_at_any_point_comes_to_the_same_model() {
    let (model, polls) = undisturbed().await;
    assert!(polls > 100, "{polls} polls are too few to cut between");
    let points = 16;
    for point in 0..points {
        let after = 1 + point * polls / points;
        let (mut world, study) = offered(None).await;
        let job = killed_at(&mut world, study, &[after]).await;
        assert_eq!(job.model, Some(model), "killed after {after} of {polls} polls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_killed_again_and_again_comes_to_the_same_model() {
    let (model, polls) = undisturbed().await;
    let (mut world, study) = offered(None).await;
    let every: Vec<usize> = (0..12).map(|n| polls / 6 + n * 7).collect();
    let job = killed_at(&mut world, study, &every).await;
    assert_eq!(job.model, Some(model));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_on_postgres_killed_in_the_middle_comes_to_the_same_model() {
    let (model, polls) = undisturbed().await;
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let (mut world, study) = offered(Some(server)).await;
    let job = killed_at(&mut world, study, &[polls / 5, polls / 3, polls / 2, polls / 2]).await;
    assert_eq!(job.model, Some(model));
}

/// A site whose receipt was cut off asks again after the coordinator was restarted, when the round is long over.
async fn asks_again_after_a_restart(mut world: World) {
    world.start(None).await;
    let study = world.submit(PLAN).await;
    world.succeeded(study).await;
    world.kill().await;
    world.start(None).await;
    let process = world.process();
    let confirmed = world.store.last_uploads(100).await.unwrap();
    assert_eq!(confirmed.len(), 5 * 4);
    for request in confirmed {
        let (site, digest) = (request.site, request.digest);
        let upload = process.staging.begin(request).await.unwrap().finish().await.unwrap();
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
