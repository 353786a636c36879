//! Two replicas on one PostgreSQL: a job has one driver at a time, and a dead one's jobs are taken over.

use std::time::Duration;

use hospes_coordinator::store::jobs::JobState;

use super::peer::Act;
use super::world::{PLAN, World, quick};
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
