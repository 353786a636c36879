//! Two replicas on one PostgreSQL: a job has one driver at a time, and a dead one's jobs are taken over.

use std::time::Duration;

use hospes_coordinator::schedule::{Command, Event, RejectionCode, Reply};
use hospes_coordinator::store::StudyState;
use hospes_coordinator::store::jobs::JobState;
use hospes_protocol::message::{FromSite, RoundReply};

use super::peer::Act;
use super::world::{PLAN, World, caller, quick};
use crate::postgres::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replicas_job_is_taken_over_when_its_lease_ends_and_not_before() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let mut settings = quick();
    (settings.lease_ms, settings.patience_ms, settings.grace_ms) = (1_500, 10_000, 5_000);
    let mut world = World::with(4, settings, Some(server)).await;
    for peer in &world.peers {
        peer.script(|h| if h.task == "train" && h.round == 2 { Act::Slow(400) } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.job(study, |job| job.state == JobState::Running).await.job;
    world.until("training began", || async { world.included(job).await.len() >= 2 }).await;
    world.kill().await;
    world.replica = "b".into();
    world.start(None).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = world.included(job).await.len();
    let row = world.succeeded(study).await;
    assert_eq!(row.job, job);
    assert!(before < 5, "the other replica did not wait for the lease");
    assert_eq!(world.included(job).await.len(), 5);
    let mut connection = world.store.read().await.unwrap();
    let lease = sqlx::query_as::<_, (String, i64)>("SELECT holder, fence FROM leases WHERE subject = $1")
        .bind(format!("job/{job}"))
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert_eq!(lease, ("b".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_says_that_another_one_has_the_job_and_changes_nothing() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let url = server.url();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = quick();
    (settings.lease_ms, settings.patience_ms) = (20_000, 20_000);
    let mut first = World::at(one.path(), Some(url.clone()), 4, settings.clone()).await;
    for peer in &first.peers {
        peer.script(|h| if h.task == "train" { Act::Silence } else { Act::Work });
    }
    first.start(None).await;
    let study = first.submit(PLAN).await;
    first.until("training began", || async { first.peers[0].log.lock().unwrap().opened.len() == 2 }).await;
    let mut second = World::at(two.path(), Some(url), 4, settings).await;
    second.peers.iter().for_each(|peer| _ = peer.online.send_replace(false));
    second.replica = "b".into();
    second.start(None).await;
    let withdraw = || Command::Withdraw { study, by: caller(), reason: "wrong data".into() };
    let elsewhere = second.command(withdraw()).await.unwrap_err();
    assert!(
        elsewhere.code == RejectionCode::Unavailable && elsewhere.message.contains("another replica"),
        "{elsewhere}"
    );
    assert_eq!(first.store.study(study).await.unwrap().unwrap().state, StudyState::Offered);
    // A job that has just failed is still in the hands of the replica that ran it.
    first.peers.iter().for_each(|peer| peer.script(|_| Act::Fail));
    let round = first.peers[0].log.lock().unwrap().opened.last().unwrap().key();
    for peer in &first.peers[..3] {
        let reply = RoundReply::Failed("out of memory".into());
        let message = FromSite::RoundReply { round: round.clone(), reply };
        first.process().events.send(Event::Message { site: peer.id, session: 0, message }).await.unwrap();
    }
    let job = first.ended(study).await;
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    let elsewhere = second.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap_err();
    assert!(elsewhere.message.contains("another replica"), "{elsewhere}");
    assert_eq!(first.command(withdraw()).await.unwrap(), Reply::Done);
}
