//! Sites that refuse, fail, fall silent, vanish, lie; operators that cancel, withdraw, lock; disks that are full.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hospes_coordinator::schedule::{Command, Event, RejectionCode, Reply};
use hospes_coordinator::store::jobs::{JobState, MemberState, TaskState};
use hospes_coordinator::store::results::Access;
use hospes_coordinator::store::rounds::RoundState;
use hospes_coordinator::store::{SiteState, StudyState};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::message::{Decision, FromSite, RoundOutcome};
use hospes_protocol::sign::Signed;
use hospes_protocol::study::Vouch;

use super::peer::Act;
use super::world::{PLAN, World, caller, quick};

/// Site 3 does this in its second round of training.
async fn once(act: Act) -> (World, hospes_coordinator::store::jobs::JobRow) {
    let mut world = World::new().await;
    world.peers[3].script(move |h| if h.task == "train" && h.round == 2 && h.attempt == 1 { act } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    (world, job)
}

fn sites_of(rounds: &[(String, u32, usize)], task: &str) -> Vec<usize> {
    rounds.iter().filter(|(t, _, _)| t == task).map(|(_, _, n)| *n).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_goes_on_without_a_site_that_refuses_fails_or_falls_silent_which_is_back_in_the_next() {
    for act in [Act::Refuse, Act::Fail, Act::Silence, Act::Short, Act::Foul] {
        let (world, job) = once(act).await;
        let rounds = world.included(job.job).await;
        assert_eq!(sites_of(&rounds, "train"), [4, 3, 4], "{act:?}");
        let rows = world.store.rounds(job.job, 1_000).await.unwrap();
        let second = rows.iter().find(|r| r.key.task == "train" && r.key.round == 2).unwrap();
        let out = second.outs.get(&world.peers[3].id).map(String::as_str);
        match act {
            Act::Refuse => assert_eq!(out, Some("refused: the policy forbids it")),
            Act::Fail => assert_eq!(out, Some("failed: out of memory")),
            _ => assert_eq!(out, None),
        }
        let refused = world.peers[3].log.lock().unwrap().refused.clone();
        match act {
            Act::Short => assert!(refused[0].contains("the round's tensors need"), "{refused:?}"),
            Act::Foul => assert!(refused[0].contains("outside what its clip"), "{refused:?}"),
            _ => assert!(refused.is_empty(), "{refused:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_that_were_not_announced_are_refused() {
    let mut world = World::new().await;
    world.peers[3].script(|h| if h.task == "eval" { Act::Foul } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.succeeded(study).await;
    assert_eq!(sites_of(&world.included(job.job).await, "eval"), [3]);
    let refused = world.peers[3].log.lock().unwrap().refused.clone();
    assert!(refused[0].contains("'patients' was not announced"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_resumes_and_a_duplicate_counts_once() {
    let (undisturbed, plain) = once(Act::Work).await;
    drop(undisturbed);
    for act in [Act::Halfway, Act::Twice] {
        let (world, job) = once(act).await;
        assert_eq!(job.model, plain.model, "{act:?}");
        assert_eq!(sites_of(&world.included(job.job).await, "train"), [4, 4, 4]);
        let log = world.peers[3].log.lock().unwrap();
        assert!(log.refused.is_empty(), "{:?}", log.refused);
        let second = log.receipts.iter().filter(|k| k.task == "train" && k.round == 2).count();
        assert_eq!(second, if act == Act::Twice { 2 } else { 1 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_reports_progress_is_waited_for_beyond_its_patience() {
    let (world, job) = once(Act::Slow(1_500)).await;
    assert_eq!(sites_of(&world.included(job.job).await, "train"), [4, 4, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_vanishes_is_left_out_and_may_come_back() {
    let mut world = World::new().await;
    world.peers[3].script(|h| if h.task == "train" && h.round == 2 { Act::Vanish } else { Act::Work });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.job(study, |job| job.state == JobState::Running).await.job;
    world.until("round 2 is published", || async { sites_of(&world.included(job).await, "train").len() >= 2 }).await;
    world.peers[3].online.send_replace(true);
    world.succeeded(study).await;
    let rounds = world.included(job).await;
    assert_eq!(sites_of(&rounds, "train")[1], 3);
    assert_eq!(sites_of(&rounds, "eval"), [4], "{rounds:?}");
    // It learns of the rounds that were closed while it was away as far as they still matter to it.
    let log = world.peers[3].log.lock().unwrap();
    assert!(log.closed.values().all(|o| matches!(o, RoundOutcome::Published { .. })), "{:?}", log.closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_after_the_end_is_refused_and_changes_nothing() {
    let (world, job) = once(Act::Work).await;
    let header = world.peers[0].log.lock().unwrap().opened[0].clone();
    let request = hospes_coordinator::aggregate::staging::UploadRequest {
        site: world.peers[0].id,
        kind: hospes_protocol::message::UploadKind::Figures,
        study: header.study,
        round: header.key(),
        digest: hospes_protocol::id::Digest::of(b"late"),
        length: 4,
    };
    let refused = world.process().staging.begin(request).await.unwrap_err();
    assert!(refused.to_string().contains("not open, or over"), "{refused}");
    assert_eq!(world.store.job(job.job).await.unwrap().unwrap(), job);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_taken_back_in_a_round_takes_the_site_out_of_it_and_of_all_that_follow() {
    let (world, job) = once(Act::Revoke).await;
    let rounds = world.included(job.job).await;
    assert_eq!(sites_of(&rounds, "train"), [4, 3, 3]);
    assert_eq!(sites_of(&rounds, "eval"), [3]);
    let refused = world.peers[3].log.lock().unwrap().refused.clone();
    assert!(refused.iter().all(|r| r.contains("revoked")) && !refused.is_empty(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_site_is_told_so_and_drops_out() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.script(|h| if h.task == "train" { Act::Slow(300) } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let site = world.peers[3].id;
    world.until("training began", || async { world.peers[3].log.lock().unwrap().opened.len() == 2 }).await;
    let mut tx = world.store.begin("test").await.unwrap();
    tx.set_site_state(site, SiteState::Revoked, Some("key lost")).await.unwrap();
    tx.commit().await.unwrap();
    world.peers[3].online.send_replace(false);
    world.command(Command::SiteLocked { site, reason: "key lost".into() }).await.unwrap();
    let job = world.succeeded(study).await;
    assert_eq!(sites_of(&world.included(job.job).await, "train"), [3, 3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_attempts_all_fail_says_why_and_runs_again_from_there() {
    let mut world = World::new().await;
    for peer in &world.peers[..2] {
        peer.script(|h| if h.task == "train" && h.round == 2 { Act::Fail } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Failed);
    let reason = job.reason.clone().unwrap();
    assert!(reason.contains("3 attempts at a round failed") && reason.contains("out of memory"), "{reason}");
    let tasks = world.store.tasks(job.job).await.unwrap();
    let of = |name: &str| tasks.iter().find(|t| t.task == name).unwrap().state;
    assert_eq!(
        (of("statistics"), of("train"), of("eval")),
        (TaskState::Success, TaskState::Failed, TaskState::Skipped)
    );
    assert_eq!(world.peers[0].log.lock().unwrap().ended[&job.job].0, "failed");
    for peer in &world.peers {
        peer.script(|_| Act::Work);
    }
    world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap();
    let again = world.succeeded(study).await;
    assert_eq!(again.job, job.job);
    // What was done is not done again, and no attempt has a number twice.
    assert_eq!(sites_of(&world.included(job.job).await, "train"), [4, 4, 4]);
    assert_eq!(sites_of(&world.included(job.job).await, "statistics"), [4]);
    let rows = world.store.rounds(job.job, 1_000).await.unwrap();
    let mut attempts: Vec<u32> =
        rows.iter().filter(|r| r.key.task == "train" && r.key.round == 2).map(|r| r.key.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2, 3, 4]);
    let done = world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap_err();
    assert_eq!(done.code, RejectionCode::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attempt_is_made_that_no_site_would_answer() {
    let mut world = World::new().await;
    for peer in &world.peers[..2] {
        peer.script(|h| if h.task == "train" { Act::Fail } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await.job;
    // Three attempts in each run: with the fourth run it would be the 11th, of which the first is the 10th.
    for run in 2..=4 {
        world.command(Command::Rerun { job, by: caller() }).await.unwrap();
        let row = world.ended(study).await;
        let reason = row.reason.unwrap();
        assert_eq!(reason.contains("was attempted 10 times"), run == 4, "{reason}");
    }
    let rows = world.store.rounds(job, 1_000).await.unwrap();
    assert_eq!(rows.iter().filter(|r| r.key.task == "train").map(|r| r.key.attempt).max(), Some(10));
    let again = world.command(Command::Rerun { job, by: caller() }).await.unwrap_err();
    assert!(again.code == RejectionCode::Conflict && again.message.contains("was attempted 10 times"), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_run_the_job_rolls_it_back_on_all() {
    let mut world = World::new().await;
    world.peers[2].able.store(false, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Failed);
    assert_eq!(job.reason.as_deref(), Some("site-2 cannot run it: the graphics card is in use"));
    for peer in &world.peers {
        world.until("rolled back", || async { peer.log.lock().unwrap().rolled_back.contains(&job.job) }).await;
        assert!(peer.log.lock().unwrap().opened.is_empty());
    }
    world.peers[2].able.store(true, Ordering::SeqCst);
    world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap();
    world.succeeded(study).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_counts_though_an_older_yes_arrived_before_it() {
    let mut settings = quick();
    (settings.reserve_ms, settings.grace_ms) = (20_000, 5_000);
    let mut world = World::with(4, settings, None).await;
    // One keeps the job waiting.
    world.peers[1].reserves.store(false, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.job(study, |job| job.state == JobState::Waiting).await.job;
    let reserved = || async {
        let members = world.store.job_members(job).await.unwrap();
        members.iter().filter(|m| m.state == MemberState::Reserved).count() == 3
    };
    world.until("three can run it", reserved).await;
    let busy = Some(Refusal::new(RefusalCode::Busy, "enough runs are open here"));
    say(&world, 0, FromSite::Reserved { job, refusal: busy }).await;
    let members = world.store.job_members(job).await.unwrap();
    assert!(members.iter().all(|m| m.state == MemberState::Asked), "it waits for room: {members:?}");
    let stopped = Some(Refusal::new(RefusalCode::CannotRun, "the graphics card is in use"));
    world.until("it was asked again", reserved).await;
    say(&world, 2, FromSite::Reserved { job, refusal: stopped }).await;
    let row = world.ended(study).await;
    assert_eq!(row.reason.as_deref(), Some("site-2 cannot run it: the graphics card is in use"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_answer_rolls_the_job_back_after_its_time() {
    let mut settings = quick();
    settings.reserve_ms = 300;
    let mut world = World::with(4, settings, None).await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let process = world.process();
    world.peers[1].online.send_replace(false);
    for peer in &world.peers {
        let message = peer.approval(study);
        let said = hospes_coordinator::schedule::Event::Message { site: peer.id, session: 0, message };
        process.events.send(said).await.unwrap();
    }
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.reason.unwrap().contains("from site-1;"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_without_enough_sites_times_out() {
    let mut settings = quick();
    (settings.quorum_ms, settings.patience_ms, settings.grace_ms) = (500, 300, 100);
    let mut world = World::with(4, settings, None).await;
    for peer in &world.peers[1..] {
        peer.script(|h| if h.task == "train" { Act::Vanish } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Timeout);
    assert!(job.reason.unwrap().contains("fewer than two sites"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_and_a_withdrawn_study_end_everywhere() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.script(|h| if h.task == "train" { Act::Slow(10_000) } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    world.until("training began", || async { world.peers[0].log.lock().unwrap().opened.len() == 2 }).await;
    let job = world.store.jobs(Some(study)).await.unwrap()[0].job;
    world.command(Command::Cancel { job, by: caller(), reason: "a mistake".into() }).await.unwrap();
    let row = world.store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (JobState::Cancelled, Some("cancelled by anna: a mistake")));
    let open = world.store.open_rounds(job).await.unwrap();
    assert!(open.is_empty());
    let rounds = world.store.rounds(job, 1_000).await.unwrap();
    assert_eq!(rounds.last().unwrap().state, RoundState::Failed);
    let twice = world.command(Command::Cancel { job, by: caller(), reason: String::new() }).await.unwrap_err();
    assert_eq!(twice.code, RejectionCode::Conflict);
    // Sites take no part in it again, so that it would fail at once with what they say.
    let again = world.command(Command::Rerun { job, by: caller() }).await.unwrap_err();
    assert!(again.code == RejectionCode::Conflict && again.message.contains("hospesctl study start"), "{again}");
    assert_eq!(world.store.job(job).await.unwrap().unwrap().state, JobState::Cancelled);
    world.command(Command::Withdraw { study, by: caller(), reason: "wrong data".into() }).await.unwrap();
    assert_eq!(world.store.study(study).await.unwrap().unwrap().state, StudyState::Withdrawn);
    let start = world.command(Command::Start { study, by: caller() }).await.unwrap_err();
    assert!(start.message.contains("withdrawn"));
    let rerun = world.command(Command::Rerun { job, by: caller() }).await.unwrap_err();
    assert!(rerun.message.contains("withdrawn"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_opens_no_round_and_says_so_and_later_the_job_runs() {
    let mut world = World::new().await;
    let full = Arc::new(AtomicBool::new(true));
    let filled = full.clone();
    world.free = Arc::new(move |_| Ok(if filled.load(Ordering::SeqCst) { 1_000 } else { 1 << 40 }));
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.reason.unwrap().contains("no room for 8 payloads"));
    assert!(world.store.rounds(job.job, 1_000).await.unwrap().is_empty());
    full.store(false, Ordering::SeqCst);
    world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap();
    world.succeeded(study).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_in_a_round_delays_it_and_loses_nothing() {
    let mut world = World::new().await;
    let full = Arc::new(AtomicBool::new(false));
    let (filled, script) = (full.clone(), full.clone());
    world.free = Arc::new(move |_| Ok(if filled.load(Ordering::SeqCst) { 1_000 } else { 1 << 40 }));
    // The disk fills up after the first round of training has opened, and is emptied half a second later.
    world.peers[0].script(move |h| {
        if h.task == "train" && h.round == 1 && h.attempt == 1 {
            script.store(true, Ordering::SeqCst);
            let empty = script.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                empty.store(false, Ordering::SeqCst);
            });
        }
        Act::Work
    });
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await;
    // With a full disk nothing is taken; either enough time is left for another attempt, or the job says why it ended.
    let refused: usize = world.peers.iter().map(|p| p.log.lock().unwrap().refused.len()).sum();
    assert!(refused > 0, "nobody met the full disk");
    if job.state != JobState::Success {
        let reason = job.reason.unwrap();
        assert!(reason.contains("no room") || reason.contains("attempts"), "{reason}");
        world.command(Command::Rerun { job: job.job, by: caller() }).await.unwrap();
        world.succeeded(study).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_expires_between_rounds_takes_the_site_out_of_those_that_follow() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
        peer.script(|h| if h.task == "train" { Act::Slow(400) } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let process = world.process();
    for peer in &world.peers {
        let mut message = peer.approval(study);
        if let hospes_protocol::message::FromSite::Decision {
            decision: hospes_protocol::message::Decision::Approved { expires, .. },
            ..
        } = &mut message
            && peer.index == 3
        {
            // In the middle of the first round of training.
            *expires = (world.clock)().plus_millis(350);
        }
        let said = hospes_coordinator::schedule::Event::Message { site: peer.id, session: 0, message };
        process.events.send(said).await.unwrap();
    }
    let job = world.succeeded(study).await;
    let rounds = world.included(job.job).await;
    assert_eq!(sites_of(&rounds, "train")[1..], [3, 3], "{rounds:?}");
    assert_eq!(sites_of(&rounds, "eval"), [3]);
}

/// A message of a site, as if its session were still open.
async fn say(world: &World, peer: usize, message: FromSite) {
    let said = Event::Message { site: world.peers[peer].id, session: 0, message };
    world.process().events.send(said).await.unwrap();
    world.command(Command::Sessions).await.unwrap();
}

async fn set_state(world: &World, peer: usize, state: SiteState) {
    let mut tx = world.store.begin("test").await.unwrap();
    tx.set_site_state(world.peers[peer].id, state, Some("a reason")).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_whose_receipt_was_lost_hears_that_its_input_counted_before_it_hears_of_the_end() {
    for (task, round) in [("eval", 1), ("train", 1)] {
        let mut world = World::new().await;
        let peer = world.peers[3].clone();
        peer.script(move |h| if h.task == task && h.round == round { Act::Deaf } else { Act::Work });
        for other in &world.peers[..3] {
            other.script(|h| if h.task == "eval" { Act::Slow(600) } else { Act::Work });
        }
        world.start(None).await;
        let study = world.submit(PLAN).await;
        let job = world.job(study, |job| job.state == JobState::Running).await.job;
        if task == "eval" {
            world.succeeded(study).await;
        } else {
            world.until("three rounds", || async { sites_of(&world.included(job).await, "train").len() == 3 }).await;
        }
        peer.online.send_replace(true);
        let told = |log: &super::peer::Log| {
            let key = log.unreceipted.first().unwrap();
            matches!(log.closed.get(key), Some(RoundOutcome::Published { included, .. }) if included.contains(&peer.id))
        };
        world.until("it hears", || async { told(&peer.log.lock().unwrap()) }).await;
        world.until("the job ended", || async { peer.log.lock().unwrap().ended.contains_key(&job) }).await;
        assert_eq!(peer.log.lock().unwrap().unexplained, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_site_can_take_back_but_not_agree() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.decides.store(false, Ordering::SeqCst);
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let site = world.peers[3].id;
    set_state(&world, 3, SiteState::Revoked).await;
    world.peers[3].online.send_replace(false);
    world.command(Command::SiteLocked { site, reason: "key lost".into() }).await.unwrap();
    say(&world, 3, world.peers[3].approval(study)).await;
    let decided = || async {
        let decisions = world.store.decisions(study).await.unwrap();
        decisions.into_iter().find(|d| d.site == site).unwrap().decision
    };
    assert_eq!(decided().await, None);
    for peer in 0..3 {
        say(&world, peer, world.peers[peer].approval(study)).await;
    }
    assert!(world.store.jobs(Some(study)).await.unwrap().is_empty(), "a locked site's approval counted");
    say(&world, 3, FromSite::Decision { study, decision: Decision::Revoked }).await;
    assert_eq!(decided().await, Some(Decision::Revoked));
    let job = world.succeeded(study).await;
    assert!(world.included(job.job).await.iter().all(|(_, _, sites)| *sites == 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_let_in_again_is_in_the_next_rounds_of_a_job_that_runs() {
    let mut world = World::new().await;
    for peer in &world.peers {
        peer.script(|h| if h.task == "train" { Act::Slow(400) } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let site = world.peers[3].id;
    world.until("training began", || async { world.peers[3].log.lock().unwrap().opened.len() == 2 }).await;
    set_state(&world, 3, SiteState::Suspended).await;
    world.peers[3].online.send_replace(false);
    world.command(Command::SiteLocked { site, reason: "an audit".into() }).await.unwrap();
    let job = world.store.jobs(Some(study)).await.unwrap()[0].job;
    world.until("a round went on", || async { sites_of(&world.included(job).await, "train").len() == 1 }).await;
    set_state(&world, 3, SiteState::Active).await;
    world.command(Command::RosterChanged).await.unwrap();
    world.peers[3].online.send_replace(true);
    world.succeeded(study).await;
    let rounds = world.included(job).await;
    assert_eq!((sites_of(&rounds, "train")[0], sites_of(&rounds, "eval")), (3, vec![4]), "{rounds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rerun_without_a_member_goes_on_after_a_restart() {
    let mut settings = quick();
    (settings.patience_ms, settings.grace_ms, settings.reserve_ms) = (10_000, 5_000, 10_000);
    let mut world = World::with(4, settings, None).await;
    world.peers[2].able.store(false, Ordering::SeqCst);
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await.job;
    world.peers[2].able.store(true, Ordering::SeqCst);
    say(&world, 3, FromSite::Decision { study, decision: Decision::Revoked }).await;
    // One that does not answer yet keeps the job waiting until the process is killed.
    world.peers[1].online.send_replace(false);
    world
        .until("it is gone", || async {
            matches!(world.command(Command::Sessions).await.unwrap(), Reply::Sessions(open) if open.len() == 3)
        })
        .await;
    world.command(Command::Rerun { job, by: caller() }).await.unwrap();
    world.kill().await;
    world.start(None).await;
    world.peers[1].online.send_replace(true);
    world.succeeded(study).await;
    assert!(world.included(job).await.iter().all(|(_, _, sites)| *sites == 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_took_part_before_a_rerun_without_it_hears_of_the_success_and_releases_it() {
    let mut world = World::new().await;
    for peer in &world.peers[..2] {
        peer.script(|h| if h.task == "train" && h.round == 2 { Act::Fail } else { Act::Work });
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let job = world.ended(study).await.job;
    say(&world, 3, FromSite::Decision { study, decision: Decision::Revoked }).await;
    world.peers.iter().for_each(|peer| peer.script(|_| Act::Work));
    world.command(Command::Rerun { job, by: caller() }).await.unwrap();
    world.succeeded(study).await;
    assert_eq!(sites_of(&world.included(job).await, "train"), [4, 3, 3]);
    world.until("everybody released it", || async { world.store.access(job).await.unwrap() == Access::Released }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_cannot_be_made_stops_nothing_and_is_made_later() {
    let mut settings = quick();
    settings.checkpoint_ms = 200;
    let mut world = World::with(4, settings, None).await;
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let model = world.succeeded(study).await.model.unwrap();
    let has_card = || async { world.store.model(model).await.unwrap()[0].card.is_some() };
    world.until("there is a card", has_card).await;
    let (file, aside) = (world.process().models.path(model), world.folder.join("aside"));
    world.kill().await;
    std::fs::rename(&file, &aside).unwrap();
    let mut connection = world.store.read().await.unwrap();
    sqlx::raw_sql("UPDATE models SET card = NULL").execute(&mut *connection).await.unwrap();
    drop(connection);
    world.start(None).await;
    world.command(Command::Sessions).await.unwrap();
    std::fs::rename(&aside, &file).unwrap();
    let has_card = || async { world.store.model(model).await.unwrap()[0].card.is_some() };
    world.until("there is a card again", has_card).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vouches_of_and_for_revoked_sites_are_not_told_and_old_rosters_are_dropped() {
    let world = World::new().await;
    let federation = world.peers[0].coordinator.site_id();
    let (now, key) = ((world.clock)(), hospes_protocol::sign::SecretKey::from_seed(&[200; 32]));
    let mut tx = world.store.begin("test").await.unwrap();
    for (by, about) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        let (by, about) = (&world.peers[by], &world.peers[about]);
        let vouch = Vouch {
            federation,
            by: by.id,
            site: about.id,
            identity: about.key.public(),
            organisation: "Hospital".into(),
            at: now,
        };
        assert!(tx.put_vouch(&Signed::new(vouch, &by.key).unwrap()).await.unwrap());
    }
    for _ in 0..20 {
        tx.next_roster(federation, &key, now).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(world.store.vouches().await.unwrap().len(), 4);
    set_state(&world, 3, SiteState::Revoked).await;
    let told = world.store.vouches().await.unwrap();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|v| ![v.document.by, v.document.site].contains(&world.peers[3].id)));
    let mut connection = world.store.read().await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM rosters").fetch_one(&mut *connection).await.unwrap();
    assert_eq!((kept, world.store.roster().await.unwrap().unwrap().document.version), (8, 21));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_of_progress_that_comes_after_the_deadline_leaves_no_round_open() {
    let mut settings = quick();
    (settings.patience_ms, settings.round_ms) = (3_600_000, 600_000);
    let mut world = World::with(4, settings, None).await;
    let turned = crate::clock::Turned::default();
    world.clock = turned.clock();
    for peer in &world.peers {
        peer.script(
            |h| if (h.task.as_str(), h.round, h.attempt) == ("train", 1, 1) { Act::Silence } else { Act::Work },
        );
    }
    world.start(None).await;
    let study = world.submit(PLAN).await;
    let opened = |attempt| {
        let log = world.peers[0].log.lock().unwrap();
        log.opened.iter().find(|h| (h.task.as_str(), h.round, h.attempt) == ("train", 1, attempt)).map(|h| h.key())
    };
    world.until("training began", || async { opened(1).is_some() }).await;
    turned.by(600_001);
    say(&world, 0, FromSite::Progress { round: opened(1).unwrap(), done: 1, total: 2 }).await;
    world.until("another attempt", || async { opened(2).is_some() }).await;
    world.succeeded(study).await;
}
