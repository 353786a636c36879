//! A machine that people work at too: real children that are stopped and go on.

use std::os::unix::fs::PermissionsExt as _;

use super::crash::worker_program;
use super::*;
use crate::error::PartyError;
use crate::view::{ComputeLimits, Pause, QuietHours, Weekday};

/// Quiet hours all week.
pub(super) fn always_quiet() -> ComputeLimits {
    use Weekday::*;
    let days = BTreeSet::from([Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday]);
    ComputeLimits { quiet: vec![QuietHours { days, from: 0, to: 0 }], ..ComputeLimits::default() }
}

/// A site whose workers tell their process and the threads that they may use, and wait until they are let go.
pub(super) async fn with_waiting_workers(folder: &Path) -> (World, PathBuf, PathBuf) {
    let (script, log, go) = (folder.join("w.sh"), folder.join("log"), folder.join("go"));
    let text = format!(
        "#!/bin/sh\necho \"$$ ${{RAYON_NUM_THREADS:-all}}\" >> {}\n\
         while [ ! -e {} ]; do sleep 0.05; done\nexec {} \"$@\"\n",
        log.display(),
        go.display(),
        worker_program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_at(folder, Executor::Child { program: script }, now).await;
    world.furnish().await;
    (world, log, go)
}

/// The workers that began, each with the threads that it was told.
pub(super) async fn begun(log: &Path, workers: usize) -> Vec<(u32, String)> {
    for _ in 0..600 {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        if lines.len() >= workers {
            return lines.into_iter().map(|(pid, threads)| (pid.parse().unwrap(), threads.to_owned())).collect();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no worker began");
}

/// Whether the process is stopped.
fn is_stopped(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not come to this: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_quiet_hours_work_rests_and_none_begins_and_after_them_it_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, log, go) = with_waiting_workers(temporary.path()).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 2, ..exactly(study.id) }).await;
    let limits = ComputeLimits { threads: Some(1), ..ComputeLimits::default() };
    world.handle.set_compute_limits(world.who("ana"), limits.clone()).await.unwrap();
    world.start_job(&study, job(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (worker, threads) = begun(&log, 1).await.remove(0);
    assert_eq!(threads, "1");
    let quiet = ComputeLimits { threads: Some(1), ..always_quiet() };
    world.handle.set_compute_limits(world.who("ana"), quiet.clone()).await.unwrap();
    until("the worker rests", || is_stopped(worker)).await;
    let status = world.handle.status().await.unwrap();
    assert!(matches!(status.pause, Some(Pause::QuietHours { .. })), "{:?}", status.pause);
    assert_eq!(world.handle.compute_limits(world.who("odo")).await.unwrap(), quiet);
    assert_eq!(world.entered("training_paused", "success").await, 1);
    world.start_job(&study, job(2)).await;
    world.open_round(header(&study, job(2), "train", 1, 1, world.now())).await;
    std::fs::write(&go, "").unwrap();
    world.never("an upload in quiet hours", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    world.handle.set_compute_limits(world.who("ana"), limits).await.unwrap();
    for _ in 0..2 {
        let (upload, path) = world.expect_upload().await;
        world.take(&upload, &path).await;
    }
    assert_eq!(world.handle.status().await.unwrap().pause, None);
    // Two began, and one of them went on after a pause, which is no third beginning.
    assert_eq!(world.entered("training_started", "success").await, 2);
    assert_eq!(world.entered("training_resumed", "success").await, 1);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_rests_is_killed_as_any_other() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, log, _) = with_waiting_workers(temporary.path()).await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (worker, _) = begun(&log, 1).await.remove(0);
    world.handle.set_compute_limits(world.who("ana"), always_quiet()).await.unwrap();
    until("the worker rests", || is_stopped(worker)).await;
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    until("the worker is gone", || !Path::new(&format!("/proc/{worker}")).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn training_waits_while_somebody_works_in_the_window_and_only_the_administrator_sets_that() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let yields = ComputeLimits { yields: true, ..ComputeLimits::default() };
    let denied = world.handle.set_compute_limits(world.who("sam"), yields.clone()).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    world.handle.set_compute_limits(world.who("ana"), yields).await.unwrap();
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    world.never("an upload", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    assert_eq!(world.handle.status().await.unwrap().pause, Some(Pause::SomebodyWorks));
    // Nobody touches the window for three minutes.
    world.pass_time(3 * MINUTE);
    world.expect_upload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_survive_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    world.handle.set_compute_limits(world.who("ana"), always_quiet()).await.unwrap();
    world.handle.shut_down().await.unwrap();
    drop(world);
    let world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    assert!(world.handle.status().await.unwrap().pause.is_some());
}
