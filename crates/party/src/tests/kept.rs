//! What a strategy keeps at the site between two rounds.

use hospes_protocol::message::{RoundOutcome, RoundReply, ToSite};
use hospes_protocol::plan::Strategy;

use super::*;
use crate::view::Verdict;

/// The small plan with control variates, of which each site keeps one.
fn scaffold() -> Plan {
    let mut plan = small_plan(9);
    let Some(Component::NnTrain(train)) = plan.tasks.get_mut("train").map(|t| &mut t.component) else { panic!() };
    train.strategy = Strategy::Scaffold { lr: 1.0 };
    plan
}

fn files(world: &World) -> Vec<PathBuf> {
    std::fs::read_dir(world.config.kept()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Opens a round, takes its upload and closes it.
async fn trained(world: &mut World, study: &Study, round: u32) -> Vec<u8> {
    let header = header(study, job(1), "train", round, 1, world.now());
    world.open_round(header.clone()).await;
    if round == 1 {
        world.serve_model(study).await;
    }
    let (upload, path) = world.expect_upload().await;
    let payload = world.take(&upload, &path).await;
    world.close_round(&header).await;
    world.settle().await;
    payload
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_round_starts_from_what_was_kept_and_the_end_of_the_run_deletes_it() {
    let mut world = World::new().await;
    let study = world.running(scaffold()).await;
    // 14 parameters and as many control variates.
    assert_eq!(trained(&mut world, &study, 1).await.len(), 8 + 28 * 4);
    let first = files(&world);
    assert_eq!(first.len(), 1);
    // It is read: a damaged one fails the round, which keeps nothing itself.
    std::fs::write(&first[0], b"damaged").unwrap();
    world.open_round(header(&study, job(1), "train", 2, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(reply, RoundReply::Failed(_)), "{reply:?}");
    assert_eq!(files(&world), first);
    // It is gone: the task goes on without it.
    std::fs::remove_file(&first[0]).unwrap();
    trained(&mut world, &study, 3).await;
    trained(&mut world, &study, 4).await;
    trained(&mut world, &study, 5).await;
    // The newest, and the one before it, in case that one is not counted.
    assert_eq!(files(&world).len(), 2);
    world.send(ToSite::JobEnded { job: job(1), state: "success".into(), reason: None, model: None }).await;
    world.settle().await;
    assert!(files(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_of_an_update_that_does_not_count_is_not_gone_on_from() {
    let mut world = World::new().await;
    let study = world.running(scaffold()).await;
    trained(&mut world, &study, 1).await;
    let first = files(&world);
    // Withdrawn before it left.
    world.open_round(header(&study, job(1), "train", 2, 1, world.now())).await;
    world.expect_upload().await;
    assert_eq!(files(&world).len(), 2);
    world.handle.decide(world.who("pia"), study.id, Verdict::Suspend { reason: "a question".into() }).await.unwrap();
    assert_eq!(files(&world), first);
    world.handle.decide(world.who("pia"), study.id, Verdict::Resume).await.unwrap();
    // Sent, but not counted: the round after starts from the first one again, and gives the same bytes as if the second
    // had not been.
    let uncounted = header(&study, job(1), "train", 3, 1, world.now());
    world.open_round(uncounted.clone()).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    let outcome = RoundOutcome::Published { model: Some(Digest::of(b"next")), included: Vec::new() };
    world.send(ToSite::RoundClosed { round: uncounted.key(), outcome }).await;
    world.settle().await;
    let newest: Vec<PathBuf> = files(&world).into_iter().filter(|path| !first.contains(path)).collect();
    assert_eq!(newest.len(), 1);
    // Were it read, this would fail the round.
    std::fs::write(&newest[0], b"damaged").unwrap();
    trained(&mut world, &study, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_more_than_a_week_that_failed_goes_on_from_what_was_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    let study = world.running(scaffold()).await;
    for round in 1..=3 {
        trained(&mut world, &study, round).await;
        world.pass_time(4 * DAY);
    }
    world.send(ToSite::JobEnded { job: job(1), state: "failed".into(), reason: None, model: None }).await;
    world.settle().await;
    let (kept, now) = (files(&world), world.now().as_millis());
    world.handle.shut_down().await.unwrap();
    drop(world);
    let world = World::reopen(temporary.path(), Executor::Thread, now).await;
    assert_eq!(files(&world), kept);
    world.handle.shut_down().await.unwrap();
    drop(world);
    let world = World::reopen(temporary.path(), Executor::Thread, now + 7 * DAY).await;
    assert!(files(&world).is_empty(), "a week after its last round it is given up");
}
