//! What leaves, what stops it at any moment, and that the register never says less than what may have arrived.

use std::os::unix::fs::PermissionsExt as _;

use futures::future::BoxFuture;
use hospes_protocol::approval::RefusalCode;
use hospes_protocol::message::{RoundReply, ToSite};

use super::crash::{with_child, worker_program};
use super::faults::{fill_database, limit_database};
use super::secure::{Ring, files, hear, masked_header, masked_world};
use super::*;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::view::{AuditLine, AuditQuery, Verdict};

/// A worker program that first does something else; `$0`'s folder is the current one.
fn script(folder: &Path, body: &str) -> PathBuf {
    let path = folder.join("worker.sh");
    let worker = worker_program();
    let text = format!("#!/bin/sh\ncd {}\n{body}\nexec {} \"$@\"\n", folder.display(), worker.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn wait_for_file(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn opt_out(world: &World) {
    let list = world.folder.join("opt-outs.txt");
    std::fs::write(&list, "cleveland-001\nsomebody-else\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), list).await.unwrap();
}

async fn lines(world: &World, action: &str) -> Vec<AuditLine> {
    let page = world.handle.audit(world.who("odo"), AuditQuery { limit: 1_000, ..Default::default() }).await.unwrap();
    page.entries.into_iter().filter(|e| e.action == action).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_while_the_child_trains_stops_it_and_the_next_attempt_is_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = "if mkdir first 2>/dev/null; then echo $$ > pid.part; mv pid.part pid; exec sleep 1000; fi";
    let (mut world, study) = with_child(script(folder.path(), hangs)).await;
    wait_for_file(&folder.path().join("pid")).await;
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    opt_out(&world).await;
    let reply = world.expect_reply().await;
    assert!(
        matches!(&reply, RoundReply::Withdrawn(r) if r.detail.contains("the site's staff can see why")),
        "{reply:?}"
    );
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    while process.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.outbox_states().await.is_empty());
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["sent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_read_before_an_opt_out_are_not_committed_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let waits = "touch started; while [ ! -e go ]; do sleep 0.05; done";
    let (mut world, _) = with_child(script(folder.path(), waits)).await;
    wait_for_file(&folder.path().join("started")).await;
    // As if the stop of open work had failed after the list was changed.
    world
        .handle
        .ask(|e| {
            async {
                let mut tx = e.store.begin("change the opt-out list").await?;
                let less = sqlx::query("UPDATE datasets SET subjects_left = subjects_left - 1");
                less.execute(tx.conn()).await.unwrap();
                tx.commit().await
            }
            .boxed()
        })
        .await
        .unwrap();
    std::fs::write(folder.path().join("go"), "").unwrap();
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Withdrawn(r) if r.code == RefusalCode::Snapshot), "{reply:?}");
    assert!(world.outbox_states().await.is_empty());
    assert_eq!(world.payload_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_the_permission_stops_an_upload_in_the_middle() {
    for way in ["stop", "revoke", "cancel", "pause", "opt out", "deadline", "job"] {
        let (mut world, study, upload, path) = World::on_the_wire().await;
        match way {
            "stop" => world.handle.stop(world.who("ana"), Some("an intrusion".into())).await.unwrap(),
            "revoke" => {
                let revoke = Verdict::Revoke { reason: "no longer wanted".into() };
                world.handle.decide(world.who("sam"), study.id, revoke).await.unwrap();
            }
            "cancel" => world.handle.cancel_job(world.who("sam"), job(1), "enough".into()).await.unwrap(),
            "pause" => {
                world.handle.pause(world.who("pia"), federation(), Some("a question".into())).await.unwrap();
            }
            "opt out" => opt_out(&world).await,
            "deadline" => world.pass_time(61 * MINUTE),
            _ => world.send(ToSite::JobEnded { job: job(1), state: "failed".into(), reason: None, model: None }).await,
        }
        world.expect_recall(&upload).await;
        world.settle().await;
        assert!(!path.exists(), "{way}");
        assert_eq!(world.outbox_states().await, ["withdrawn, may have arrived"], "{way}");
        let state = world.round_state().await.0;
        assert!(state == "withdrawn" || (way == "job" && state == "abandoned"), "{way}: {state}");
        let withdrawn = lines(&world, "update_withdrawn").await;
        assert_eq!(withdrawn.len(), 1, "{way}");
        assert!(withdrawn[0].detail.contains("may have arrived"), "{way}: {}", withdrawn[0].detail);
        assert_eq!(withdrawn[0].bytes, Some(upload.bytes()), "{way}");
        world.assert_ledger_intact().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_stops_an_upload_in_the_middle() {
    let mut world = World::new().await;
    let (upload, path) = world.upload_with_a_day_left().await;
    world.may_leave(&upload).await.unwrap();
    world.pass_time(DAY);
    world.expect_recall(&upload).await;
    world.settle().await;
    assert!(!path.exists());
    assert_eq!(world.outbox_states().await, ["withdrawn, may have arrived"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_takes_an_update_and_withholds_the_receipt_does_not_hide_it() {
    let (mut world, study, upload, path) = World::on_the_wire().await;
    assert_eq!(std::fs::read(&path).unwrap().len() as u64, upload.bytes());
    let round = header(&study, job(1), "train", 1, 1, world.now()).key();
    let outcome = RoundOutcome::Abandoned("too few sites".into());
    world.send(ToSite::RoundClosed { round, outcome }).await;
    world.expect_recall(&upload).await;
    world.settle().await;
    let egress = world.handle.egress(world.who("odo"), Page::default()).await.unwrap();
    assert_eq!(egress[0].state, "withdrawn, may have arrived");
    assert!(egress[0].left.is_some());
    let withdrawn = lines(&world, "update_withdrawn").await;
    assert!(withdrawn[0].detail.contains("may have arrived") && withdrawn[0].bytes == Some(upload.bytes()));
    // The receipt that comes late tells it all.
    world.acknowledge(&upload).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["sent"]);
    assert_eq!(world.entered("update_sent", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_was_never_let_go_was_not_counted_whatever_the_coordinator_says() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let header = header(&study, job(1), "train", 1, 1, world.now());
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    // A receipt for it proves nothing either.
    world.acknowledge(&upload).await;
    world.close_round(&header).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["withdrawn"]);
    assert!(!path.exists());
    assert_eq!(world.entered("update_sent", "success").await, 0);
    assert!(world.alarms().await.iter().any(|a| a.contains("which never left")), "{:?}", world.alarms().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_refused_after_it_was_let_go_may_have_arrived() {
    let (world, _, upload, _) = World::on_the_wire().await;
    world.event(LinkEvent::UploadRefused { upload, reason: "x".repeat(4_000) }).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["refused, may have arrived"]);
    let refused = lines(&world, "upload_refused").await;
    assert!(refused[0].detail.contains("may have arrived") && refused[0].bytes.is_some(), "{refused:?}");
}

pub(super) fn no_room(e: &mut Engine) -> BoxFuture<'_, Result<(), PartyError>> {
    async move {
        limit_database(e, Some(0)).await;
        fill_database(e).await;
        // The last page of the ledger has room for some entries more.
        let entry = e.entry(hospes_ledger::Actor::Engine, hospes_ledger::Action::ControlSummary);
        while e.record("fill the ledger", &entry).await.is_ok() {}
        Ok(())
    }
    .boxed()
}

pub(super) fn room(e: &mut Engine) -> BoxFuture<'_, Result<(), PartyError>> {
    async move {
        limit_database(e, None).await;
        Ok(())
    }
    .boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_what_waits_on_a_full_disk_is_not_let_go() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.handle.ask(no_room).await.unwrap();
    let revoke = Verdict::Revoke { reason: "no longer wanted".into() };
    let full = world.handle.decide(world.who("sam"), study.id, revoke.clone()).await;
    assert!(matches!(full, Err(PartyError::DiskFull { .. })), "{full:?}");
    // Break-glass stops the wire although it cannot be written down.
    let full = world.handle.stop(world.who("ana"), Some("x".repeat(3_000))).await;
    assert!(matches!(full, Err(PartyError::DiskFull { .. })), "{full:?}");
    world.expect_recall(&upload).await;
    let (reply, answer) = oneshot::channel();
    world.event(LinkEvent::MayLeave { upload: upload.clone(), reply }).await;
    assert!(answer.await.is_err(), "it was let go although that could not be written down");
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!((egress[0].state.as_str(), egress[0].left), ("waiting", None));
    // Room again: it may go, and it could be revoked.
    world.handle.ask(room).await.unwrap();
    world.may_leave(&upload).await.unwrap();
    assert_eq!(world.entered("update_leaving", "success").await, 1);
    world.handle.decide(world.who("sam"), study.id, revoke).await.unwrap();
    world.expect_recall(&upload).await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masking_that_fails_leaves_no_part_of_a_file_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut world, study) = masked_world(temporary.path()).await;
    let mut ring = Ring::new(&masked_header(&study, 1, 1, world.now()));
    world.open_round(ring.header.clone()).await;
    world.serve_model(&study).await;
    hear(&mut world, &mut ring).await;
    // What was trained is cut short while it waits, so that masking begins and does not come to its end.
    let waits = files(&world.config.levels()).remove(0);
    let bytes = std::fs::read(&waits).unwrap();
    std::fs::write(&waits, &bytes[..bytes.len() - 1]).unwrap();
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    hear(&mut world, &mut ring).await;
    ring.others_speak();
    ring.close();
    world.send(ring.relay()).await;
    let RoundReply::Withdrawn(refusal) = world.expect_reply().await else { panic!("it goes on") };
    assert_eq!(refusal.code, RefusalCode::CannotRun);
    assert_eq!(files(&world.config.payloads()), Vec::<PathBuf>::new());
}
