//! Transfers: cut at any byte, both ways, and never without the engine's leave.

use std::path::PathBuf;
use std::time::Duration;

use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::canon;
use hospes_protocol::id::{Digest, JobId, Timestamp};
use hospes_protocol::limits;
use tempfile::TempDir;
use tokio::time::sleep;
use tonic::Status;

use super::coordinator::Coordinator;
use super::permits::upload;
use super::proxies::Line;
use super::site::{Site, config};
use crate::link::{LinkCommand, LinkConfig, LinkEvent};

/// Longest model in these tests.
const MOST: u64 = 64 << 20;

fn job() -> JobId {
    JobId::new(Timestamp::from_millis(1), [1; 10])
}

/// Bytes that neither compress nor repeat.
fn payload(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn on_disk(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payload");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[tokio::test]
async fn forty_megabytes_go_up_over_three_cuts_and_leave_is_asked_for_each_time() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(40 << 20);
    let (_folder, path) = on_disk(&bytes);
    let line = Line::to(coordinator.address, &[9 << 20, 11 << 20, 7 << 20]).await;
    let mut site = Site::start(LinkConfig { urls: vec![line.url()], ..config(&coordinator) });
    let sent = upload(1, &bytes);
    site.tell(LinkCommand::Upload { upload: sent.clone(), path: path.clone() }).await;
    // Twice the same is once.
    site.tell(LinkCommand::Upload { upload: sent.clone(), path }).await;
    let (receipt, asked) = site
        .until(|event| match event {
            LinkEvent::Uploaded { upload, receipt } => {
                assert_eq!(upload, sent);
                Some(receipt)
            }
            LinkEvent::UploadRefused { reason, .. } => panic!("{reason}"),
            _ => None,
        })
        .await;
    assert!(receipt.signed_by(&coordinator.key.public()));
    assert_eq!(receipt.document.digest, Digest::of(&bytes));
    let state = coordinator.state();
    assert!(state.staged[&sent.digest()] == bytes, "other bytes arrived");
    assert_eq!(state.resumed_at.len(), 4, "{:?}", state.resumed_at);
    assert!(state.resumed_at.is_sorted() && state.resumed_at[1] > 0, "it began anew: {:?}", state.resumed_at);
    assert!(asked >= 4, "leave was asked for {asked} times");
}

#[tokio::test]
async fn forty_megabytes_come_down_over_three_cuts() {
    let coordinator = Coordinator::start().await;
    let model = payload(40 << 20);
    let digest = canon::digest("model", 1, &model);
    coordinator.state().models.insert(digest, model.clone());
    let line = Line::to(coordinator.address, &[9 << 20, 11 << 20, 7 << 20]).await;
    let mut site = Site::start(LinkConfig { urls: vec![line.url()], ..config(&coordinator) });
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.safetensors");
    site.tell(LinkCommand::Download { digest, to: to.clone(), most_bytes: MOST }).await;
    let (path, _) = site
        .until(|event| match event {
            LinkEvent::Downloaded { path, .. } => Some(path),
            LinkEvent::DownloadFailed { reason, .. } => panic!("{reason}"),
            _ => None,
        })
        .await;
    assert_eq!(path, to);
    assert!(std::fs::read(&to).unwrap() == model, "another model arrived");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the partial file is still there");
    let resumed = coordinator.state().resumed_at.clone();
    assert_eq!(resumed.len(), 4, "{resumed:?}");
    assert!(resumed.is_sorted() && resumed[1] > 0, "it began anew: {resumed:?}");
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart_of_the_site() {
    let coordinator = Coordinator::start().await;
    let model = payload(5 << 20);
    let digest = canon::digest("model", 1, &model);
    coordinator.state().models.insert(digest, model.clone());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    std::fs::write(folder.path().join("model.part"), &model[..3_000_000]).unwrap();
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Download { digest, to: to.clone(), most_bytes: MOST }).await;
    site.until(|event| matches!(event, LinkEvent::Downloaded { .. }).then_some(())).await;
    assert!(std::fs::read(&to).unwrap() == model);
    assert_eq!(coordinator.state().resumed_at, [3_000_000]);
    // What is there already is not fetched again.
    site.tell(LinkCommand::Download { digest, to, most_bytes: MOST }).await;
    site.until(|event| matches!(event, LinkEvent::Downloaded { .. }).then_some(())).await;
    assert_eq!(coordinator.state().resumed_at.len(), 1);
}

#[tokio::test]
async fn another_model_than_announced_is_thrown_away_and_told() {
    let coordinator = Coordinator::start().await;
    let model = payload(100_000);
    let digest = canon::digest("model", 1, &model);
    coordinator.state().models.insert(digest, model);
    coordinator.state().wrong_model = true;
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Download { digest, to: folder.path().join("model"), most_bytes: MOST }).await;
    let (reason, _) = site
        .until(|event| match event {
            LinkEvent::DownloadFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("another model"), "{reason}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_model_that_is_longer_than_the_plan_says_is_refused_before_its_first_byte() {
    let coordinator = Coordinator::start().await;
    let model = payload(100_001);
    let digest = canon::digest("model", 1, &model);
    coordinator.state().models.insert(digest, model);
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(config(&coordinator));
    let to = folder.path().join("model");
    site.tell(LinkCommand::Download { digest, to: to.clone(), most_bytes: 100_000 }).await;
    let (reason, _) = site
        .until(|event| match event {
            LinkEvent::DownloadFailed { reason, .. } => Some(reason),
            LinkEvent::Downloaded { .. } => panic!("it was taken"),
            _ => None,
        })
        .await;
    assert!(reason.contains("100001 bytes") && reason.contains("at most 100000"), "{reason}");
    let stored: u64 = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn a_download_that_nobody_waits_for_any_more_is_stopped() {
    let coordinator = Coordinator::start().await;
    let model = payload(3 << 20);
    let digest = canon::digest("model", 1, &model);
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    coordinator.state().refuse_models = true;
    let download = || LinkCommand::Download { digest, to: folder.path().join("model"), most_bytes: MOST };
    site.tell(download()).await;
    while coordinator.state().resumed_at.len() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    site.tell(LinkCommand::Forget { digest }).await;
    // Everything told before is done once a later command has had its effect.
    let other = payload(1_000);
    let small = canon::digest("model", 1, &other);
    coordinator.state().models.extend([(digest, model), (small, other)]);
    coordinator.state().refuse_models = false;
    site.tell(LinkCommand::Download { digest: small, to: folder.path().join("small"), most_bytes: MOST }).await;
    let (first, _) = site
        .until(|event| match event {
            LinkEvent::Downloaded { digest, .. } => Some(digest),
            _ => None,
        })
        .await;
    assert_eq!(first, small);
    sleep(Duration::from_millis(500)).await;
    assert!(!folder.path().join("model").exists(), "it was fetched although nobody waits for it");
    // Asked for again, it comes.
    site.tell(download()).await;
    site.until(|event| matches!(event, LinkEvent::Downloaded { digest: d, .. } if d == digest).then_some(())).await;
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_at_once() {
    let coordinator = Coordinator::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Download { digest: Digest::of(b"x"), to: folder.path().join("model"), most_bytes: MOST })
        .await;
    let (reason, _) = site
        .until(|event| match event {
            LinkEvent::DownloadFailed { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("no such model"), "{reason}");
}

#[tokio::test]
async fn a_card_is_asked_for_until_it_is_there_and_a_no_is_told_at_once() {
    let coordinator = Coordinator::start().await;
    let mut site = Site::start(config(&coordinator));
    let (model, card) = (Digest::of(b"model"), b"{}".to_vec());
    let refused = |event| match event {
        LinkEvent::CardRefused { reason, .. } => Some(reason),
        _ => None,
    };
    site.tell(LinkCommand::Card { job: job(), model: Some(model) }).await;
    assert_eq!(site.until(refused).await.0, "the results are held");
    // A coordinator that knows no such call.
    coordinator.state().refuse_card = Some(Status::unimplemented(""));
    site.tell(LinkCommand::Card { job: job(), model: Some(model) }).await;
    let (reason, _) = site.until(refused).await;
    assert!(reason.contains("ask its operator to update it"), "{reason}");
    // One that knows it for models only.
    coordinator.state().refuse_card = Some(Status::invalid_argument("the digest must have 32 bytes"));
    site.tell(LinkCommand::Card { job: job(), model: None }).await;
    let (reason, _) = site.until(refused).await;
    assert!(reason.contains("gives no tables to sites yet"), "{reason}");
    // Not now is not no.
    coordinator.state().refuse_card = Some(Status::unavailable("the card is not made yet"));
    coordinator.state().cards.insert(job().to_string(), card.clone());
    site.tell(LinkCommand::Card { job: job(), model: Some(model) }).await;
    let (got, _) = site
        .until(|event| match event {
            LinkEvent::Card { job: of, model: digest, card } => Some((of, digest, card)),
            _ => None,
        })
        .await;
    assert_eq!(got, (job(), Some(model), card));
    // One that is too long is not taken.
    coordinator.state().cards.insert(job().to_string(), vec![b' '; limits::CARD_BYTES + 1]);
    site.tell(LinkCommand::Card { job: job(), model: Some(model) }).await;
    let (reason, _) = site.until(refused).await;
    assert!(reason.contains("CARD_BYTES"), "{reason}");
}

#[tokio::test]
async fn nothing_leaves_without_leave() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(3 << 20);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: upload(1, &bytes), path }).await;
    loop {
        if let LinkEvent::MayLeave { reply, .. } = site.event().await {
            reply.send(Err(Refusal::new(RefusalCode::Revoked, "the approval was revoked"))).unwrap();
            break;
        }
    }
    sleep(Duration::from_millis(500)).await;
    let state = coordinator.state();
    assert_eq!(state.asked, 0, "even the digest must not leave");
    assert!(state.staged.is_empty());
}

#[tokio::test]
async fn leave_taken_back_at_a_resumption_stops_the_rest() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(8 << 20);
    let (_folder, path) = on_disk(&bytes);
    let line = Line::to(coordinator.address, &[4 << 20]).await;
    let mut site = Site::start(LinkConfig { urls: vec![line.url()], ..config(&coordinator) });
    let sent = upload(1, &bytes);
    site.tell(LinkCommand::Upload { upload: sent.clone(), path }).await;
    let mut asked = 0;
    while asked < 2 {
        if let LinkEvent::MayLeave { reply, .. } = site.event().await {
            asked += 1;
            let leave = if asked == 1 { Ok(()) } else { Err(Refusal::new(RefusalCode::Revoked, "revoked")) };
            reply.send(leave).unwrap();
        }
    }
    sleep(Duration::from_millis(500)).await;
    assert!(coordinator.state().staged[&sent.digest()].len() < bytes.len());
    assert_eq!(coordinator.state().resumed_at.len(), 1);
}

#[tokio::test]
async fn leave_that_nobody_answers_is_asked_for_again() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(1_000);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: upload(1, &bytes), path }).await;
    loop {
        if let LinkEvent::MayLeave { reply, .. } = site.event().await {
            drop(reply);
            break;
        }
    }
    let (_, asked) = site.until(|event| matches!(event, LinkEvent::Uploaded { .. }).then_some(())).await;
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_payload_that_was_altered_on_disk_does_not_leave() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(10_000);
    let (_folder, path) = on_disk(&bytes);
    let sent = upload(1, &bytes);
    let mut altered = bytes;
    altered[5_000] ^= 1;
    std::fs::write(&path, altered).unwrap();
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: sent, path }).await;
    let (reason, asked) = site
        .until(|event| match event {
            LinkEvent::UploadRefused { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("not what was entered in the ledger"), "{reason}");
    assert_eq!(asked, 0);
    assert_eq!(coordinator.state().asked, 0);
}

#[tokio::test]
async fn an_upload_for_a_round_that_is_over_is_refused_in_words() {
    let coordinator = Coordinator::start().await;
    coordinator.state().over = Some("the round is over".into());
    let bytes = payload(10_000);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: upload(1, &bytes), path }).await;
    let (reason, _) = site
        .until(|event| match event {
            LinkEvent::UploadRefused { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, "the round is over");
    assert!(coordinator.state().staged.is_empty());
}

#[tokio::test]
async fn what_is_complete_already_gets_its_receipt_without_being_sent_again() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(2 << 20);
    let (_folder, path) = on_disk(&bytes);
    let sent = upload(1, &bytes);
    coordinator.state().staged.insert(sent.digest(), bytes.clone());
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: sent, path }).await;
    site.until(|event| matches!(event, LinkEvent::Uploaded { .. }).then_some(())).await;
    assert_eq!(coordinator.state().resumed_at, [bytes.len() as u64]);
}

#[tokio::test]
async fn a_receipt_with_another_signature_is_not_taken() {
    let coordinator = Coordinator::start().await;
    coordinator.state().forge_receipts = true;
    let bytes = payload(10_000);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    site.tell(LinkCommand::Upload { upload: upload(1, &bytes), path }).await;
    let (reason, _) = site
        .until(|event| match event {
            LinkEvent::UploadRefused { reason, .. } => Some(reason),
            LinkEvent::Uploaded { .. } => panic!("a forged receipt was taken"),
            _ => None,
        })
        .await;
    assert!(reason.contains("receipt does not hold"), "{reason}");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_cut_and_resumed() {
    let coordinator = Coordinator::start().await;
    coordinator.state().stall_after = Some(2 << 20);
    let bytes = payload(8 << 20);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    let sent = upload(1, &bytes);
    site.tell(LinkCommand::Upload { upload: sent.clone(), path }).await;
    let mut asked = 0;
    loop {
        match site.event().await {
            LinkEvent::MayLeave { reply, .. } => {
                asked += 1;
                if asked == 2 {
                    coordinator.state().stall_after = None;
                }
                reply.send(Ok(())).unwrap();
            }
            LinkEvent::Uploaded { .. } => break,
            LinkEvent::UploadRefused { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    assert!(asked >= 2, "the upload was never cut");
    let resumed = coordinator.state().resumed_at.clone();
    assert!(resumed.len() >= 2 && resumed[1] == 2 << 20, "{resumed:?}");
    assert!(coordinator.state().staged[&sent.digest()] == bytes);
}

#[tokio::test]
async fn a_coordinator_that_cannot_now_is_asked_again() {
    let coordinator = Coordinator::start().await;
    let bytes = payload(10_000);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    site.connected().await;
    coordinator.state().refuse = Some(Status::resource_exhausted("no space now"));
    site.tell(LinkCommand::Upload { upload: upload(1, &bytes), path }).await;
    let mut asked = 0;
    loop {
        match site.event().await {
            LinkEvent::MayLeave { reply, .. } => {
                asked += 1;
                if asked == 3 {
                    coordinator.state().refuse = None;
                }
                reply.send(Ok(())).unwrap();
            }
            LinkEvent::Uploaded { .. } => break,
            LinkEvent::UploadRefused { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
    assert!(asked >= 3);
}

#[tokio::test]
async fn a_withdrawn_upload_stops_in_the_middle() {
    let coordinator = Coordinator::start().await;
    coordinator.state().stall_after = Some(1 << 20);
    let bytes = payload(8 << 20);
    let (_folder, path) = on_disk(&bytes);
    let mut site = Site::start(config(&coordinator));
    let sent = upload(1, &bytes);
    site.tell(LinkCommand::Upload { upload: sent.clone(), path }).await;
    loop {
        if let LinkEvent::MayLeave { reply, .. } = site.event().await {
            reply.send(Ok(())).unwrap();
            break;
        }
    }
    while coordinator.state().staged.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    site.tell(LinkCommand::Withdraw { round: sent.round().clone(), digest: sent.digest() }).await;
    coordinator.state().stall_after = None;
    sleep(Duration::from_millis(1_500)).await;
    assert!(coordinator.state().staged[&sent.digest()].len() < bytes.len());
    assert_eq!(coordinator.state().resumed_at.len(), 1, "it was sent again");
}
