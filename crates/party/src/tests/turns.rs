//! Whose turn it is: one worker, one attempt of a task, and limits on what a coordinator may leave here.

use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::approval::RefusalCode;
use hospes_protocol::limits;
use hospes_protocol::message::{RoundReply, ToSite};

use super::crash::worker_program;
use super::*;
use crate::error::PartyError;
use crate::view::{ComputeLimits, Verdict};

fn started(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_works_at_a_time_and_the_others_wait_their_turn() {
    let temporary = tempfile::tempdir().unwrap();
    let (script, log, go) = (temporary.path().join("w.sh"), temporary.path().join("log"), temporary.path().join("go"));
    let text = format!(
        "#!/bin/sh\necho $$ >> {}\nwhile [ ! -e {} ]; do sleep 0.05; done\nexec {} \"$@\"\n",
        log.display(),
        go.display(),
        worker_program().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let now = crate::config::system_clock()().as_millis();
    let mut world = World::create_at(temporary.path(), Executor::Child { program: script }, now).await;
    world.furnish().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 3, ..exactly(study.id) }).await;
    for n in 1..=3 {
        world.start_job(&study, job(n)).await;
        world.open_round(header(&study, job(n), "train", 1, 1, world.now())).await;
        if n == 1 {
            world.serve_model(&study).await;
        }
    }
    while started(&log) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.never("a second worker", |_| None).await;
    assert_eq!(started(&log), 1, "two workers at once");
    assert_eq!(world.handle.status().await.unwrap().working, 3);
    // Nobody hears from those that wait, or from work that tells of no steps, unless the site says that it has not
    // forgotten them.
    assert_eq!(world.says_working().await, 3);
    world.handle.set_compute_limits(world.who("ana"), super::share::always_quiet()).await.unwrap();
    assert_eq!(world.says_working().await, 0, "work that rests counts as silent");
    world.handle.set_compute_limits(world.who("ana"), ComputeLimits::default()).await.unwrap();
    assert_eq!(world.says_working().await, 3);
    // Its work is stopped: the next has its turn, and then the last.
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    std::fs::write(&go, "").unwrap();
    for n in 2..=3 {
        let (upload, path) = world.expect_upload().await;
        assert_eq!(upload.round().job, job(n), "not in the order of their coming");
        world.take(&upload, &path).await;
    }
    assert_eq!(started(&log), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_attempt_of_a_task_ends_the_older_one() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (first, path) = world.expect_upload().await;
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    world.expect_recall(&first).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::TooLate), "{reply:?}");
    assert!(!path.exists());
    let (second, path) = world.expect_upload().await;
    assert_eq!(second.round().attempt, 2);
    world.take(&second, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_bounded_by_the_plan_and_ends_with_its_round() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let (digest, to, most) = world
        .expect("a download", |c| match c {
            LinkCommand::Download { digest, to, most_bytes } => Some((*digest, to.clone(), *most_bytes)),
            _ => None,
        })
        .await;
    assert_eq!(most, limits::MODEL_HEADER_BYTES + 14 * 4, "13 weights and a bias");
    let part = to.with_extension("safetensors.part");
    std::fs::write(&part, "the first bytes").unwrap();
    world.event(LinkEvent::DownloadFailed { digest, reason: "the disk is full".into() }).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    assert!(!part.exists());
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    world.expect("a download", |c| matches!(c, LinkCommand::Download { .. }).then_some(())).await;
    std::fs::write(&part, "the first bytes").unwrap();
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    let forgotten = |c: &LinkCommand| matches!(c, LinkCommand::Forget { digest: d } if *d == digest).then_some(());
    world.expect("the end of the download", forgotten).await;
    world.settle().await;
    assert!(!part.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_of_a_run_that_was_stopped_here_are_deleted() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    world.expect_upload().await;
    let models = || std::fs::read_dir(world.config.models()).unwrap().count();
    assert_eq!(models(), 1);
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    assert_eq!(models(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_sweeps_what_nothing_names_and_leaves_folders_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    let study = world.running(small_plan(2)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    let config = world.config.clone();
    world.handle.shut_down().await.unwrap();
    drop(world);
    let folders =
        [config.payloads(), config.models(), config.snapshots(), config.kept(), config.levels(), config.scratch()];
    let before: usize = folders.iter().map(|f| std::fs::read_dir(f).unwrap().count()).sum();
    assert_eq!(before, 3, "a payload, a model and a snapshot");
    for folder in &folders {
        std::fs::write(folder.join("leftover.part"), "x").unwrap();
        std::fs::create_dir(folder.join("lost+found")).unwrap();
    }
    let world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    for folder in &folders {
        assert!(folder.join("lost+found").exists(), "{}", folder.display());
        assert!(!folder.join("leftover.part").exists(), "{}", folder.display());
    }
    let after: usize = folders.iter().map(|f| std::fs::read_dir(f).unwrap().count()).sum();
    assert_eq!(after, 3 + folders.len());
    assert!(path.exists());
    assert_eq!(world.handle.egress(world.who("sam"), Page::default()).await.unwrap()[0].digest, upload.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_beyond_the_limit_are_refused_politely() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 100, ..exactly(study.id) }).await;
    for n in 0..limits::OPEN_JOBS {
        world.start_job(&study, job(u8::try_from(n).unwrap() + 1)).await;
    }
    world.start_job_expecting(&study, job(200), RefusalCode::Busy).await;
    assert!(world.entered("job_started", "refused").await == 1);
    // One ends: there is room for another.
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    world.start_job(&study, job(201)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rounds_are_entered_one_by_one_up_to_a_limit() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let suspend = Verdict::Suspend { reason: "a question is open".into() };
    world.handle.decide(world.who("pia"), study.id, suspend).await.unwrap();
    let most = u32::try_from(limits::REFUSED_ROUNDS).unwrap();
    for attempt in 1..=most + 3 {
        world.open_round(header(&study, job(1), "train", 1, attempt, world.now())).await;
        let reply = world.expect_reply().await;
        let RoundReply::Refused(refusal) = reply else { panic!("{reply:?}") };
        assert_eq!(refusal.detail.contains("limit REFUSED_ROUNDS"), attempt > most, "{attempt}: {refusal}");
    }
    assert_eq!(world.entered("permit_refused", "refused").await, limits::REFUSED_ROUNDS);
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!(jobs[0].rounds.len(), limits::REFUSED_ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_while_a_file_is_frozen_makes_its_registration_start_anew() {
    let world = World::new().await;
    let dataset = NewDataset {
        name: "Hungary".into(),
        path: heart("hungary.csv"),
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: true,
        duo: Vec::new(),
    };
    let (session, order) = (world.who("sam").clone(), dataset.clone());
    let order = world.handle.ask(move |e| e.freeze_order(session, order).boxed()).await.unwrap();
    let frozen = tokio::task::spawn_blocking(move || order.run()).await.unwrap().unwrap();
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "hungary-001\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
    let session = world.who("sam").clone();
    let refused = world.handle.ask(move |e| e.register(session, frozen).boxed()).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("opt-out list")), "{refused:?}");
    assert_eq!(std::fs::read_dir(world.config.snapshots()).unwrap().count(), 1, "the file was left behind");
    let view = world.handle.add_dataset(world.who("sam"), dataset).await.unwrap();
    assert_eq!(view.subjects - view.subjects_left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_engine_hears_of_its_end() {
    let world = World::new().await;
    let waits = world.handle.clone();
    let ended = tokio::spawn(async move { waits.ended().await });
    let fault = world.handle.ask::<(), _>(|_| async { panic!("a fault of the engine, for this test") }.boxed()).await;
    assert!(matches!(fault, Err(PartyError::Stopped)), "{fault:?}");
    ended.await.unwrap();
    assert!(matches!(world.handle.status().await, Err(PartyError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_without_end_can_be_shown() {
    let mut world = World::new().await;
    let mut plan = small_plan(u32::MAX);
    let again = plan.tasks["train"].clone();
    plan.tasks.insert("train_again".into(), again);
    let study = study(1, plan);
    world.connect().await;
    world.send(ToSite::Study(Box::new(Signed::new(study.clone(), &coordinator()).unwrap()))).await;
    world.settle().await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert!(!review.approvable);
    assert!(world.handle.status().await.is_ok());
}
