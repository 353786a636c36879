//! `kill -9` before, during and after each transaction of a round, and work in a real child process.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use hospes_protocol::message::{Decision, FromSite, RoundReply, ToSite};

use super::*;
use crate::view::{RequestState, RoundView, Verdict};

const FOLDER: &str = "HOSPES_TEST_FOLDER";
const TERMINAL: [&str; 5] = ["published", "abandoned", "refused", "failed", "withdrawn"];

/// A study from its offer to the release of its results; the same whether it begins or goes on after a crash.
async fn carry_through(world: &mut World) {
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    decide(world, &study).await;
    if world
        .handle
        .jobs(world.who("sam"), Page::default())
        .await
        .unwrap()
        .iter()
        .all(|j| j.state == "waiting" || j.state == "running")
    {
        world.start_job(&study, job(1)).await;
        play_round(world, &study).await;
        let ended =
            ToSite::JobEnded { job: job(1), state: "success".into(), reason: None, model: Some(Digest::of(b"next")) };
        world.send(ended).await;
        world.settle().await;
    }
    if world.handle.jobs(world.who("sam"), Page::default()).await.unwrap()[0].held {
        world.handle.release(world.who("sam"), job(1)).await.unwrap();
    }
}

async fn decide(world: &World, study: &Study) {
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    let digest = match (review.state, review.approval_digest) {
        (RequestState::Active, _) => return,
        (RequestState::PartlyApproved, Some(digest)) => digest,
        _ => {
            let approving = Approving::exactly(study.id, review.read);
            world.handle.approve(world.who("sam"), approving, pass("sam")).await.unwrap().digest
        }
    };
    world.handle.countersign(world.who("ava"), study.id, digest, pass("ava")).await.unwrap();
}

enum Heard {
    Upload(Upload, PathBuf),
    Download(Digest, PathBuf),
    NoPart,
}

/// Opens attempt after attempt until this site's input has arrived, as a coordinator does.
async fn play_round(world: &mut World, study: &Study) {
    let rounds = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap().remove(0).rounds;
    if let Some(done) = rounds.iter().find(|r| r.state == "acknowledged" || r.state == "published") {
        // The coordinator gave a receipt before the crash and knows it.
        let header = header(study, job(1), "train", 1, done.round.attempt, Timestamp::from_millis(START));
        world.close_round(&header).await;
        world.settle().await;
        return;
    }
    for attempt in 1.. {
        assert!(attempt < 5, "no attempt succeeds: {:?}", world.said);
        // The deadline counts from the start of everything, so that a header sent again after a crash is the same.
        let header = header(study, job(1), "train", 1, attempt, Timestamp::from_millis(START));
        world.open_round(header.clone()).await;
        loop {
            let heard = world
                .expect("anything about the round", |c| match c {
                    LinkCommand::Upload { upload, path } => Some(Heard::Upload(upload.clone(), path.clone())),
                    LinkCommand::Download { digest, to, .. } => Some(Heard::Download(*digest, to.clone())),
                    LinkCommand::Send(FromSite::RoundReply { round, reply }) => {
                        let ends = !matches!(reply, RoundReply::Working) && round.attempt == attempt;
                        ends.then_some(Heard::NoPart)
                    }
                    _ => None,
                })
                .await;
            match heard {
                Heard::Download(digest, to) => world.put_model(study, digest, to).await,
                Heard::NoPart => break,
                Heard::Upload(upload, path) => {
                    world.take(&upload, &path).await;
                    world.close_round(&header).await;
                    world.settle().await;
                    return;
                }
            }
        }
    }
}

/// Everything that must hold at the end, whatever happened on the way (invariants I2, I3, I7).
async fn assert_consistent(world: &World) {
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].state.as_str()), (1, "success"));
    assert!(jobs[0].released.is_some());
    let rounds: &[RoundView] = &jobs[0].rounds;
    assert!(rounds.iter().all(|r| TERMINAL.contains(&r.state.as_str())), "{rounds:?}");
    let keys: BTreeSet<String> = rounds.iter().map(|r| r.round.to_string()).collect();
    assert_eq!(keys.len(), rounds.len(), "a round stands twice");
    let outbox = world.outbox_states().await;
    assert_eq!(outbox.iter().filter(|s| *s == "sent").count(), 1, "{outbox:?}");
    assert_eq!(
        world.entered("update_prepared", "success").await,
        outbox.len(),
        "an entry for each row, a row for each"
    );
    assert_eq!(world.unprotected().await, outbox.len() as u64, "a charge for each row, once");
    assert_eq!(world.entered("update_sent", "success").await, 1);
    assert_eq!(world.entered("permit_minted", "success").await, rounds.len(), "an entry for each permit");
    assert_eq!(world.payload_files(), 0, "a payload was left behind");
    for action in ["approval_signed", "approval_countersigned", "setup_ended", "results_released", "request_received"] {
        assert_eq!(world.entered(action, "success").await, 1, "{action}");
    }
    world.assert_ledger_intact().await;
}

/// What a child does until it is killed; run by itself, the whole way without a crash.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_round_is_carried_through() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os(FOLDER).map_or(temporary.path().to_owned(), PathBuf::from);
    let mut world = World::create(&folder, Executor::Thread).await;
    world.furnish().await;
    carry_through(&mut world).await;
    assert_consistent(&world).await;
}

/// A run in which every round goes wrong, each in another way, until somebody stops it.
async fn go_wrong(world: &mut World) {
    let study = world.running(small_plan(1)).await;
    let attempt = async |world: &mut World, n| {
        world.open_round(header(&study, job(1), "train", 1, n, world.now())).await;
    };
    let download = async |world: &mut World| {
        let wanted = |c: &LinkCommand| match c {
            LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
            _ => None,
        };
        world.expect("a download", wanted).await
    };
    // The model cannot be had.
    attempt(world, 1).await;
    let (digest, path) = download(world).await;
    world.event(LinkEvent::DownloadFailed { digest, reason: "there is no such model".into() }).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    // The coordinator does not want the update.
    attempt(world, 2).await;
    world.serve_model(&study).await;
    let (upload, _) = world.expect_upload().await;
    world.may_leave(&upload).await.unwrap();
    world.event(LinkEvent::UploadRefused { upload, reason: "the round is over".into() }).await;
    world.settle().await;
    // Time is over before the model has come.
    std::fs::remove_file(path).unwrap();
    attempt(world, 3).await;
    download(world).await;
    world.pass_time(61 * MINUTE);
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    // Everything is stopped while the update is on the wire.
    attempt(world, 4).await;
    world.serve_model(&study).await;
    let (upload, _) = world.expect_upload().await;
    world.may_leave(&upload).await.unwrap();
    world.handle.stop(world.who("ana"), Some("a drill".into())).await.unwrap();
    assert!(matches!(world.expect_reply().await, RoundReply::Withdrawn(_)));
    world.handle.stop(world.who("ana"), None).await.unwrap();
    // The run is stopped while an update waits.
    attempt(world, 5).await;
    world.expect_upload().await;
    world.handle.cancel_job(world.who("sam"), job(1), "the machine is needed".into()).await.unwrap();
    assert!(matches!(world.expect_reply().await, RoundReply::Withdrawn(_)));
}

/// After the coordinator ended the job too, if it had not ended here: nothing is open, nothing waits, all is entered.
async fn assert_all_ended(world: &mut World) {
    world.connect().await;
    world.send(ToSite::JobEnded { job: job(1), state: "failed".into(), reason: None, model: None }).await;
    world.settle().await;
    let jobs = world.handle.jobs(world.who("sam"), Page::default()).await.unwrap();
    assert!(matches!(jobs[0].state.as_str(), "failed" | "cancelled"), "{}", jobs[0].state);
    let rounds: &[RoundView] = &jobs[0].rounds;
    assert!(rounds.iter().all(|r| TERMINAL.contains(&r.state.as_str())), "{rounds:?}");
    assert_eq!(world.entered("permit_minted", "success").await, rounds.len(), "an entry for each permit");
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert!(egress.iter().all(|e| e.state != "waiting" && e.state != "sent"), "{egress:?}");
    assert!(egress.iter().all(|e| e.left.is_none() || e.state.ends_with("may have arrived")), "{egress:?}");
    assert_eq!(world.entered("update_prepared", "success").await, egress.len(), "an entry for each row");
    assert_eq!(world.unprotected().await, egress.len() as u64, "a charge for each row, once");
    let ended = world.entered("update_withdrawn", "refused").await + world.entered("upload_refused", "refused").await;
    assert_eq!(ended, egress.len(), "an entry for each end");
    let left = egress.iter().filter(|e| e.left.is_some()).count();
    assert_eq!(world.entered("update_leaving", "success").await, left, "an entry for each that was let go");
    assert_eq!(world.payload_files(), 0, "a payload was left behind");
    world.assert_ledger_intact().await;
}

/// What another child does until it is killed; run by itself, the whole way.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_run_in_which_all_goes_wrong_ends() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os(FOLDER).map_or(temporary.path().to_owned(), PathBuf::from);
    let mut world = World::create(&folder, Executor::Thread).await;
    world.furnish().await;
    go_wrong(&mut world).await;
    assert_all_ended(&mut world).await;
    let states: BTreeSet<String> = world.outbox_states().await.into_iter().collect();
    let expected = ["refused, may have arrived", "withdrawn", "withdrawn, may have arrived"];
    assert_eq!(states, expected.map(String::from).into());
    assert_eq!(world.handle.jobs(world.who("sam"), Page::default()).await.unwrap()[0].state, "cancelled");
}

/// A site with an update in its outbox that was not let go, under an approval of one day; the round lasts longer.
async fn with_waiting_update() -> World {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::var_os(FOLDER).map_or(temporary.path().to_owned(), PathBuf::from);
    let mut world = World::create(&folder, Executor::Thread).await;
    world._temporary = Some(temporary);
    world.furnish().await;
    world.upload_with_a_day_left().await;
    world
}

async fn revoke(world: &World) {
    let verdict = Verdict::Revoke { reason: "no longer wanted".into() };
    world.handle.decide(world.who("sam"), study(1, small_plan(1)).id, verdict).await.unwrap();
}

/// After the approval ended: what waited was withdrawn, and nothing left.
async fn assert_withdrawn(world: &World, ended: &str) {
    world.settle().await;
    assert_eq!(world.entered(ended, "success").await, 1, "{ended}");
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((egress.len(), egress[0].state.as_str()), (1, "withdrawn"));
    assert!(egress[0].left.is_none(), "{egress:?}");
    for (action, outcome, times) in
        [("update_prepared", "success", 1), ("update_withdrawn", "refused", 1), ("update_leaving", "success", 0)]
    {
        assert_eq!(world.entered(action, outcome).await, times, "{action}");
    }
    assert_eq!(world.round_state().await.0, "withdrawn");
    assert_eq!(world.payload_files(), 0, "a payload was left behind");
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_an_approval_is_revoked_while_an_update_waits() {
    let mut world = with_waiting_update().await;
    revoke(&world).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Withdrawn(_)));
    assert_withdrawn(&world, "approval_revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_an_approval_expires_while_an_update_waits() {
    let mut world = with_waiting_update().await;
    world.pass_time(DAY);
    assert!(matches!(world.expect_reply().await, RoundReply::Withdrawn(_)));
    assert_withdrawn(&world, "approval_expired").await;
}

/// Kills a child that runs a test at one moment of a step.
fn kill(test: &str, step: &str, moment: &str, folder: &Path) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("HOSPES_TEST_CRASH", format!("{step}:{moment}"))
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert_eq!(child.status.signal(), Some(9), "'{step}' {moment} was never reached: {output}");
}

/// Kills a child at each moment of a step, then goes on where it left off.
async fn killed_at(step: &str) {
    for moment in ["Before", "During", "After"] {
        let temporary = tempfile::tempdir().unwrap();
        kill("tests::crash::i7_a_round_is_carried_through", step, moment, temporary.path());
        let mut world = World::reopen(temporary.path(), Executor::Thread, START + 5 * MINUTE).await;
        carry_through(&mut world).await;
        assert_consistent(&world).await;
    }
}

/// The same where all goes wrong: then everything must end.
async fn killed_going_wrong_at(step: &str) {
    for moment in ["Before", "During", "After"] {
        let temporary = tempfile::tempdir().unwrap();
        kill("tests::crash::i7_a_run_in_which_all_goes_wrong_ends", step, moment, temporary.path());
        let mut world = World::reopen(temporary.path(), Executor::Thread, START + 120 * MINUTE).await;
        assert_all_ended(&mut world).await;
    }
}

/// The same while an update waits and its approval ends: it is withdrawn, and never offered once the end is durable.
async fn killed_while_an_update_waits_at(step: &str) {
    let (test, ended, later) = match step {
        "expire an approval" => ("expires", "approval_expired", DAY),
        _ => ("is_revoked", "approval_revoked", 5 * MINUTE),
    };
    let test = format!("tests::crash::i7_an_approval_{test}_while_an_update_waits");
    for moment in ["Before", "During", "After"] {
        let temporary = tempfile::tempdir().unwrap();
        kill(&test, step, moment, temporary.path());
        let mut world = World::reopen(temporary.path(), Executor::Thread, START + later).await;
        let is_over = step == "expire an approval" || world.entered(ended, "success").await == 1;
        assert_eq!(is_over, step == "expire an approval" || moment == "After", "{moment}");
        world.connect().await;
        if !is_over {
            // It waits as before, until somebody says it again.
            let (upload, _) = world.expect_upload().await;
            revoke(&world).await;
            assert!(world.may_leave(&upload).await.is_err(), "{moment}");
        }
        let mut offered = 0;
        let told = |c: &LinkCommand| match c {
            LinkCommand::Send(FromSite::Decision { decision: Decision::Revoked | Decision::Expired, .. }) => Some(()),
            LinkCommand::Upload { .. } => {
                offered += 1;
                None
            }
            _ => None,
        };
        world.expect("tell that the approval ended", told).await;
        assert!(offered == 0 || !is_over, "{moment}: it was offered after its approval had ended");
        world.never("offer the update", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
        assert_withdrawn(&world, ended).await;
    }
}

macro_rules! killed {
    ($killed_at:ident: $($name:ident: $step:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $killed_at($step).await;
            }
        )*
    };
}

killed! {
    killed_going_wrong_at:
    i7_killed_at_recording_a_failure: "record a failure",
    i7_killed_at_noting_a_refused_upload: "note a refused upload",
    i7_killed_at_ending_an_overdue_round: "end an overdue round",
    i7_killed_at_stopping_everything: "stop everything",
    i7_killed_at_withdrawing_an_update: "withdraw an update",
    i7_killed_at_cancelling_a_job: "cancel a job",
}

killed! {
    killed_while_an_update_waits_at:
    i7_killed_at_revoking_an_approval: "decide on a request",
    i7_killed_at_expiring_an_approval: "expire an approval",
}

killed! {
    killed_at:
    i7_killed_at_taking_a_request: "take a request",
    i7_killed_at_the_first_signature: "give the first signature",
    i7_killed_at_the_second_signature: "give the second signature",
    i7_killed_at_reserving_a_job: "reserve a job",
    i7_killed_at_starting_a_job: "start a job",
    i7_killed_at_answering_a_round: "answer a round",
    i7_killed_at_taking_a_model: "take a model",
    i7_killed_at_starting_the_work: "start the work",
    i7_killed_at_committing_a_payload: "commit a payload",
    i7_killed_at_letting_an_update_go: "let an update go",
    i7_killed_at_keeping_a_receipt: "keep a receipt",
    i7_killed_at_closing_a_round: "close a round",
    i7_killed_at_ending_a_job: "end a job",
    i7_killed_at_releasing_results: "release results",
}

fn machine_time() -> i64 {
    crate::config::system_clock()().as_millis()
}

pub(super) async fn with_child(program: PathBuf) -> (World, Study) {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create_at(temporary.path(), Executor::Child { program }, machine_time()).await;
    world._temporary = Some(temporary);
    world.furnish().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    (world, study)
}

/// The example `worker` beside this test binary.
pub(super) fn worker_program() -> PathBuf {
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../examples/worker");
    assert!(program.exists(), "build the examples first: cargo build -p hospes-party --examples");
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_is_done_by_a_child_process_that_mints_its_own_permit() {
    let (mut world, study) = with_child(worker_program()).await;
    let (upload, path) = world.expect_upload().await;
    let by_child = world.take(&upload, &path).await;
    // The same bytes as a thread of this process computes.
    let mut other = World::new().await;
    let again = other.running(small_plan(1)).await;
    assert_eq!(again.plan.digest(), study.plan.digest());
    other.open_round(header(&again, job(1), "train", 1, 1, other.now())).await;
    other.serve_model(&again).await;
    let (upload, path) = other.expect_upload().await;
    assert_eq!(other.take(&upload, &path).await, by_child);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_is_a_failure_of_the_round() {
    let (mut world, _) = with_child(PathBuf::from("/bin/false")).await;
    let reply = world.expect_reply().await;
    let RoundReply::Failed(words) = reply else { panic!("{reply:?}") };
    assert!(words.contains("engine failed"), "{words}");
    assert_eq!(world.round_state().await.0, "failed");
    let (mut world, _) = with_child(PathBuf::from("/no/such/program")).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
}

/// A worker's script that first writes down its process.
pub(super) fn script_that(folder: &Path, does: &str) -> (PathBuf, PathBuf) {
    let (script, pid) = (folder.join("worker.sh"), folder.join("pid"));
    std::fs::write(&script, format!("#!/bin/sh\necho $$ > {}\n{does}\n", pid.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (script, pid)
}

/// The folder of the process that a script wrote down.
pub(super) async fn process(pid: &Path) -> PathBuf {
    loop {
        match std::fs::read_to_string(pid).ok().and_then(|t| t.trim().parse::<u32>().ok()) {
            Some(pid) => return PathBuf::from(format!("/proc/{pid}")),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_done_and_does_not_end_holds_nothing_up() {
    let scripts = tempfile::tempdir().unwrap();
    let does = format!("{} \"$@\"\nexec sleep 1000", worker_program().display());
    let (script, pid) = script_that(scripts.path(), &does);
    let (mut world, _) = with_child(script).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.handle.cancel_job(world.who("sam"), job(1), "the machine is needed".into()).await.unwrap();
    assert!(!process(&pid).await.exists(), "the child still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_panics_is_a_failure_of_the_round() {
    let temporary = tempfile::tempdir().unwrap();
    // Only the work asks for the time on a thread of this name.
    let clock = Arc::new(|| match std::thread::current().name() {
        Some("worker") => panic!("a clock that stands still"),
        _ => Timestamp::from_millis(START),
    });
    let mut world = World::create_with(temporary.path(), |config| config.clock = clock).await;
    world.furnish().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    assert!(matches!(world.expect_reply().await, RoundReply::Failed(_)));
    let round = world.handle.job(world.who("sam"), job(1), Page::default()).await.unwrap().rounds.remove(0);
    assert!(format!("{:?}", round.view.unwrap()).contains("a clock that stands still"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_run_kills_its_child() {
    let scripts = tempfile::tempdir().unwrap();
    let (script, pid) = script_that(scripts.path(), "exec sleep 1000");
    let (mut world, _) = with_child(script).await;
    let process = process(&pid).await;
    assert!(process.exists());
    world.handle.cancel_job(world.who("sam"), job(1), "the machine is needed".into()).await.unwrap();
    let reply = world.expect_reply().await;
    assert!(matches!(reply, RoundReply::Withdrawn(_)), "{reply:?}");
    for _ in 0..200 {
        if !process.exists() {
            assert_eq!(world.handle.jobs(world.who("sam"), Page::default()).await.unwrap()[0].state, "cancelled");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the child still runs");
}
