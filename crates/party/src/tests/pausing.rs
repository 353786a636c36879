//! One run that this site's people pause: its rounds are sat out, the others' go on, and so does it afterwards.

use hospes_protocol::approval::RefusalCode;

use super::*;
use crate::error::PartyError;

/// The words that the coordinator hears of a paused run.
const SAID: &str = "this site's people have paused the run";
/// What the staff wrote, which is nobody else's.
const WHY: &str = "the ward asks for a day's rest";

impl World {
    async fn pause_run(&self, who: &str, n: u8, reason: Option<&str>) -> Result<(), PartyError> {
        self.handle.pause_job(self.who(who), job(n), reason.map(Into::into)).await
    }

    /// Why a run is paused, by its number.
    async fn run_paused(&self, n: u8) -> Option<String> {
        let jobs = self.handle.jobs(self.who("odo"), Page::default()).await.unwrap();
        jobs.into_iter().find(|j| j.job == job(n)).unwrap().paused
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_sits_its_rounds_out_and_goes_on_with_the_next_one() {
    let mut world = World::new().await;
    let study = world.running(small_plan(3)).await;
    world.pause_run("sam", 1, Some(WHY)).await.unwrap();
    assert_eq!(world.run_paused(1).await.as_deref(), Some(WHY));
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    let RoundReply::Refused(refusal) = reply else { panic!("{reply:?}") };
    assert_eq!((refusal.code, refusal.detail.as_str()), (RefusalCode::Stopped, SAID));
    assert!(!format!("{:?}", world.said).contains(WHY), "the coordinator was told why");
    world.never("an upload", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    world.pause_run("sam", 1, None).await.unwrap();
    assert_eq!(world.run_paused(1).await, None);
    world.open_round(header(&study, job(1), "train", 2, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    assert_eq!(upload.round().round, 2);
    world.take(&upload, &path).await;
    // Who looks for what was trained here finds the one round that was, and not the end of the pause.
    for action in ["training_paused", "training_resumed", "training_started"] {
        assert_eq!(world.entered(action, "success").await, 1, "{action}");
    }
    let log = world.handle.job_log(world.who("sam"), job(1)).await.unwrap();
    for words in [WHY, "the pause of the run was ended"] {
        assert!(log.iter().any(|line| line.words.contains(words)), "{words}: {log:?}");
    }
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_leave_when_its_run_is_paused_is_taken_back_and_no_other_run_is_touched() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, Approving { max_runs: 2, ..exactly(study.id) }).await;
    for n in 1..=2 {
        world.start_job(&study, job(n)).await;
        world.open_round(header(&study, job(n), "train", 1, 1, world.now())).await;
        if n == 1 {
            world.serve_model(&study).await;
        }
    }
    let first = world.expect_upload().await;
    let second = world.expect_upload().await;
    world.pause_run("ana", 1, Some(WHY)).await.unwrap();
    world.expect_recall(&first.0).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Stopped), "{reply:?}");
    let refused = world.may_leave(&first.0).await.unwrap_err();
    assert!(matches!(refused.code, RefusalCode::TooLate | RefusalCode::Stopped), "{refused}");
    assert!(!first.1.exists());
    world.take(&second.0, &second.1).await;
    world.settle().await;
    let mut states = world.outbox_states().await;
    states.sort_unstable();
    assert_eq!(states, ["sent", "withdrawn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_is_ended_by_those_who_may_begin_it() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    let study = world.running(small_plan(2)).await;
    for who in ["ava", "pia", "odo"] {
        let denied = world.pause_run(who, 1, Some(WHY)).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{who}: {denied:?}");
    }
    let blank = world.pause_run("sam", 1, Some(" ")).await;
    assert!(matches!(blank, Err(PartyError::Input { place: "reason", .. })), "{blank:?}");
    let none = world.pause_run("sam", 1, None).await;
    assert!(matches!(&none, Err(PartyError::State(words)) if words.contains("not paused")), "{none:?}");
    world.pause_run("sam", 1, Some(WHY)).await.unwrap();
    world.handle.shut_down().await.unwrap();
    drop(world);

    let mut world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    assert_eq!(world.run_paused(1).await.as_deref(), Some(WHY));
    world.connect().await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.detail == SAID), "{reply:?}");
    world.pause_run("ana", 1, None).await.unwrap();
    // A run that has ended is not paused.
    world.pause_run("sam", 1, Some(WHY)).await.unwrap();
    world.handle.cancel_job(world.who("sam"), job(1), "not needed".into()).await.unwrap();
    assert_eq!(world.run_paused(1).await, None);
    let over = world.pause_run("sam", 1, Some(WHY)).await;
    assert!(matches!(&over, Err(PartyError::State(words)) if words.contains("cancelled")), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_keeps_its_place_when_it_is_started() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    world.reserved(&study, job(1)).await;
    world.pause_run("sam", 1, Some(WHY)).await.unwrap();
    world.send(ToSite::JobStart { job: job(1) }).await;
    world.settle().await;
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((jobs[0].state.as_str(), jobs[0].paused.as_deref()), ("running", Some(WHY)));
    world.pause_run("sam", 1, None).await.unwrap();
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    world.expect_upload().await;
}
