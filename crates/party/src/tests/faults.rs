//! Bad input, bad luck and bad will.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use hospes_protocol::approval::Trust;
use hospes_protocol::message::{FromSite, RoundReply, ToSite, Witness};
use hospes_protocol::study::Vouch;

use super::*;
use crate::error::PartyError;
use crate::foundation::Foundation;
use crate::store::Store;
use crate::view::{ResultView, Words};

/// Lets the database grow by so many pages and no more: SQLite then reports a full disk of its own.
pub(super) async fn limit_database(e: &crate::engine::Engine, more_pages: Option<i64>) {
    let mut tx = e.store.begin("limit the database").await.unwrap();
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(tx.conn()).await.unwrap();
    let limit = more_pages.map_or(1 << 30, |more| pages + more);
    let sql = format!("PRAGMA max_page_count = {limit}");
    let now: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(tx.conn()).await.unwrap();
    assert_eq!(now, limit);
    tx.commit().await.unwrap();
}

/// Fills the free pages that the database still has, so that the next step finds none.
pub(super) async fn fill_database(e: &crate::engine::Engine) {
    for size in [100_000, 3_000, 500, 50] {
        loop {
            let mut tx = e.store.begin("fill the database").await.unwrap();
            let done = sqlx::query("INSERT INTO alarms (at, words) VALUES (0, ?1)")
                .bind("x".repeat(size))
                .execute(tx.conn())
                .await;
            if done.is_err() || tx.commit().await.is_err() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_on_a_full_disk_nothing_leaves_until_the_ledger_can_be_written() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let (digest, to) = world
        .expect("a download", |c| match c {
            LinkCommand::Download { digest, to, .. } => Some((*digest, to.clone())),
            _ => None,
        })
        .await;
    std::fs::write(&to, model(&study.plan).0).unwrap();
    // The work starts while there is room; before the engine hears how it ended there is none.
    world
        .handle
        .ask(move |e| {
            async move {
                e.on_downloaded(federation(), digest).await?;
                Box::pin(e.go_on()).await?;
                limit_database(e, Some(2)).await;
                fill_database(e).await;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    world.never("send without an entry", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    let full = world.handle.stop(world.who("ana"), Some("x".repeat(3_000))).await;
    assert!(matches!(full, Err(PartyError::DiskFull { .. })), "{full:?}");
    assert_eq!(world.round_state().await.0, "working");
    // Room again: the same result is entered and sent.
    world
        .handle
        .ask(|e| {
            async {
                limit_database(e, None).await;
                Ok(())
            }
            .boxed()
        })
        .await
        .unwrap();
    let (upload, path) = world.expect_upload().await;
    assert_eq!(world.entered("update_prepared", "success").await, 1);
    world.take(&upload, &path).await;
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_entered_once_there_is_room_and_before_it_is_used_after_a_crash() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    world.connect().await;
    let certificate = |n: u8| format!("-----BEGIN CERTIFICATE-----\n{n}\n-----END CERTIFICATE-----\n");
    let key_with = move |n: u8| Zeroizing::new(format!("key\n{}", certificate(n)));
    world.handle.ask(super::leaving::no_room).await.unwrap();
    world.event(LinkEvent::CertificateRenewed { chain_pem: certificate(1), key_pem: key_with(1) }).await;
    world.settle().await;
    world.handle.ask(super::leaving::room).await.unwrap();
    while world.entered("certificate_renewed", "success").await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another one is kept, and the process ends before that is entered.
    let secret = format!("tls/{}", this_site().public().site_id());
    world
        .handle
        .ask(move |e| {
            async move {
                assert_eq!(e.vault.read(&secret).await?.as_slice(), key_with(1).as_bytes());
                Ok(e.vault.keep(&secret, Zeroizing::new(key_with(2).as_bytes().to_vec())).await?)
            }
            .boxed()
        })
        .await
        .unwrap();
    world.handle.shut_down().await.unwrap();
    drop(world);
    for _ in 0..2 {
        let world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
        assert_eq!(world.entered("certificate_renewed", "success").await, 2);
        world.handle.shut_down().await.unwrap();
    }
}

/// Takes the room for payloads away: a full file system where one can be mounted, otherwise no folder at all.
pub(super) fn no_room_for_payloads(folder: &Path) -> bool {
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8k", "none"])
        .arg(folder)
        .output()
        .is_ok_and(|o| o.status.success());
    if mounted {
        let _ = std::fs::write(folder.join("filler"), vec![0; 64 << 10]);
    } else {
        std::fs::remove_dir_all(folder).unwrap();
    }
    mounted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_cannot_be_written_fails_the_round_and_nothing_leaves() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let folder = world.config.payloads();
    let mounted = no_room_for_payloads(&folder);
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let reply = world.expect_reply().await;
    let failed = matches!(reply, RoundReply::Failed(_));
    world.settle().await;
    let entered = world.entered("training_failed", "failed").await;
    let outbox = world.outbox_states().await;
    if mounted {
        let unmounted = std::process::Command::new("umount").arg(&folder).status().unwrap();
        assert!(unmounted.success());
    } else {
        std::fs::create_dir(&folder).unwrap();
    }
    assert!(failed && entered == 1 && outbox.is_empty(), "{reply:?} {entered} {outbox:?}");
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_the_entry_and_the_row_are_there_before_the_link_hears_of_it() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    assert_eq!(world.entered("update_prepared", "success").await, 1);
    let egress = world.handle.egress(world.who("sam"), Page::default()).await.unwrap();
    assert_eq!(
        (egress[0].digest, egress[0].bytes, egress[0].state.as_str()),
        (upload.digest(), upload.bytes(), "waiting")
    );
    assert_eq!(Digest::of(&std::fs::read(path).unwrap()), upload.digest());
    assert!(egress[0].public_data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_an_older_and_a_contradicting_roster_are_refused_with_an_alarm() {
    let mut world = World::new().await;
    world.connect().await;
    let version = |w: &crate::view::Status| w.memberships[0].roster;
    let mut stranger = roster(5);
    stranger.members[0].organisation = "Somebody else".into();
    let mut without = roster(5);
    without.members.retain(|m| m.site != this_site().public().site_id());
    let mut contradiction = roster(1);
    contradiction.members.pop();
    for (what, roster, signer) in [
        ("another key signed it", roster(5), key(99)),
        ("a member did not sign its organisation", stranger, coordinator()),
        ("this site is gone", without, coordinator()),
        ("two rosters of one version", contradiction, coordinator()),
        ("an older one", roster(0), coordinator()),
    ] {
        let before = world.entered("roster_changed", "refused").await;
        world.send(ToSite::Roster(Box::new(Signed::new(roster, &signer).unwrap()))).await;
        world.settle().await;
        assert_eq!(world.entered("roster_changed", "refused").await, before + 1, "{what}");
        assert_eq!(version(&world.handle.status().await.unwrap()), 1, "{what}");
    }
    assert!(world.alarms().await.iter().filter(|a| a.contains("roster")).count() >= 4);
    world.send(ToSite::Roster(Box::new(Signed::new(roster(2), &coordinator()).unwrap()))).await;
    world.settle().await;
    assert_eq!(version(&world.handle.status().await.unwrap()), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_member_that_comes_back_with_another_key_is_an_alarm_and_verified_no_more() {
    let mut world = World::new().await;
    world.connect().await;
    let (site, words) = (key(2).public().site_id(), hospes_protocol::words::of_key(&key(2).public()));
    let wrong = world.handle.verify_peer(world.who("ana"), federation(), site, "one two three".into()).await;
    assert!(matches!(wrong, Err(PartyError::Fingerprint(Words::Mistyped))));
    let other = hospes_protocol::words::of_key(&key(3).public());
    let wrong = world.handle.verify_peer(world.who("ana"), federation(), site, other).await;
    assert!(matches!(wrong, Err(PartyError::Fingerprint(Words::Different))));
    assert_eq!(world.alarms().await.len(), 1);
    let peer = world.handle.verify_peer(world.who("ana"), federation(), site, words.clone()).await.unwrap();
    assert_eq!((peer.trust, peer.words), (Trust::VerifiedHere, Some(words)));
    assert_eq!(peer.compared.map(|compared| compared.by), Some("ana".into()));
    let peer = world.handle.vouch(world.who("ana"), federation(), site).await.unwrap();
    assert!(peer.vouched_here);
    let mut changed = roster(2);
    changed.members.retain(|m| m.site != site);
    let mut impostor = member(9);
    impostor.name = "Site 2".into();
    let statement = MemberStatement {
        federation: federation(),
        name: impostor.name.clone(),
        organisation: impostor.organisation.clone(),
        identity: impostor.identity,
    };
    impostor.statement = key(9).sign(&Canonical::new(statement).unwrap().digest());
    changed.members.push(impostor);
    changed.members.sort_by_key(|m| m.site);
    world.send(ToSite::Roster(Box::new(Signed::new(changed, &coordinator()).unwrap()))).await;
    world.settle().await;
    assert!(world.alarms().await.iter().any(|a| a.contains("has another key now")), "{:?}", world.alarms().await);
    assert_eq!(world.handle.status().await.unwrap().memberships[0].roster, 2);
    assert_eq!(world.entered("peer_revoked", "success").await, 1);
    let of = async |world: &World, n: u8| {
        let peers = world.handle.peers(world.who("sam"), federation()).await.unwrap();
        peers.into_iter().find(|p| p.site == key(n).public().site_id()).unwrap()
    };
    let peer = of(&world, 9).await;
    assert!(peer.trust == Trust::AssertedOnly && peer.revoked.is_some() && peer.words.is_none(), "{peer:?}");
    // The key that was verified comes back: nobody vouches for it any more, and its words have to be compared like any other's.
    // The coordinator repeats the vouch that this site took back, as it does at each greeting.
    world.send(ToSite::Roster(Box::new(Signed::new(roster(3), &coordinator()).unwrap()))).await;
    let own = Vouch {
        federation: federation(),
        by: this_site().public().site_id(),
        site,
        identity: key(2).public(),
        organisation: "Hospital 2".into(),
        at: world.now(),
    };
    world.send(ToSite::Vouch(Box::new(Signed::new(own, &this_site()).unwrap()))).await;
    world.settle().await;
    let peer = of(&world, 2).await;
    assert!(peer.trust == Trust::AssertedOnly && peer.revoked.is_some() && !peer.vouched_here, "{peer:?}");
    world.verify([2]).await;
    let peer = of(&world, 2).await;
    assert!(peer.trust == Trust::VerifiedHere && peer.revoked.is_none(), "{peer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vouch_counts_one_step_deep_and_only_from_a_verified_site() {
    let mut world = World::new().await;
    world.connect().await;
    let trust_of = async |world: &World, n: u8| {
        let peers = world.handle.peers(world.who("sam"), federation()).await.unwrap();
        peers.into_iter().find(|p| p.site == key(n).public().site_id()).unwrap().trust
    };
    let vouch = |by: u8, of: u8| {
        let vouch = Vouch {
            federation: federation(),
            by: key(by).public().site_id(),
            site: key(of).public().site_id(),
            identity: key(of).public(),
            organisation: format!("Hospital {of}"),
            at: Timestamp::from_millis(START),
        };
        ToSite::Vouch(Box::new(Signed::new(vouch, &key(by)).unwrap()))
    };
    world.send(vouch(2, 3)).await;
    world.send(vouch(3, 4)).await;
    world.settle().await;
    assert_eq!(trust_of(&world, 3).await, Trust::AssertedOnly, "nobody has verified site 2");
    let words = hospes_protocol::words::of_key(&key(2).public());
    world.handle.verify_peer(world.who("sam"), federation(), key(2).public().site_id(), words).await.unwrap();
    assert_eq!(trust_of(&world, 3).await, Trust::VouchedFor);
    assert_eq!(trust_of(&world, 4).await, Trust::AssertedOnly, "two steps are one too many");
    // Somebody else's signature under a vouch is refused.
    let mut forged = Vouch {
        federation: federation(),
        by: key(2).public().site_id(),
        site: key(4).public().site_id(),
        identity: key(4).public(),
        organisation: "Hospital 4".into(),
        at: Timestamp::from_millis(START),
    };
    forged.at = forged.at.plus_millis(1);
    world.send(ToSite::Vouch(Box::new(Signed::new(forged, &coordinator()).unwrap()))).await;
    world.settle().await;
    assert_eq!(trust_of(&world, 4).await, Trust::AssertedOnly);
    // This site's own vouch goes out, and again after each connection.
    let site = key(2).public().site_id();
    world.handle.vouch(world.who("ana"), federation(), site).await.unwrap();
    world.connect().await;
    world.settle().await;
    world.never("nothing more", |_| None).await;
    assert_eq!(world.said.iter().filter(|m| matches!(m, FromSite::Vouch(_))).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_snapshot_is_noticed_and_nothing_leaves() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let file = std::fs::read_dir(world.config.snapshots()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let reply = world.expect_reply().await;
    let RoundReply::Failed(words) = reply else { panic!("{reply:?}") };
    assert!(words.contains("snapshot cannot be opened"), "{words}");
    world.never("send", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    assert_eq!(world.round_state().await.0, "failed");
    assert_eq!(world.payload_files(), 0);
    // Those who may see figures of the site's data read why; the ledger, which auditors read, has the fixed sentence.
    let run = world.handle.job(world.who("sam"), job(1), Page::default()).await.unwrap();
    let Some(ResultView::Failure(in_full)) = &run.rounds[0].view else { panic!("{:?}", run.rounds[0].view) };
    assert!(in_full.contains("was altered") && !in_full.contains(&words), "{in_full}");
    assert!(world.handle.job(world.who("odo"), job(1), Page::default()).await.is_err());
    let page = world.handle.audit(world.who("odo"), crate::view::AuditQuery::default()).await.unwrap();
    let entries: Vec<_> = page.entries.iter().filter(|e| e.action == "training_failed").collect();
    assert!(entries.len() == 1 && entries[0].detail.ends_with(&words), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_an_empty_and_a_foreign_database_are_refused_and_left_as_they_are() {
    let world = World::new().await;
    let (config, database) = (world.config.clone(), world.config.database());
    world.handle.shut_down().await.unwrap();
    let keep = world._temporary;
    drop(world.handle);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let good = std::fs::read(&database).unwrap();
    assert!(good.len() > 50_000);
    for (what, bytes) in [
        ("cut in half", &good[..good.len() / 2]),
        ("cut in the header", &good[..50]),
        ("empty", &[][..]),
        ("something else", b"this is no database, it is a letter to nobody in particular and long enough" as &[u8]),
    ] {
        std::fs::write(&database, bytes).unwrap();
        match open(config.clone()).await {
            Err(PartyError::Damaged { path, .. }) => assert_eq!(path, database, "{what}"),
            Err(other) => panic!("{what}: {other:?}"),
            Ok(_) => panic!("{what}: it was opened"),
        }
        assert_eq!(std::fs::read(&database).unwrap(), bytes, "{what}: the file was changed");
    }
    std::fs::write(&database, &good).unwrap();
    open(config).await.unwrap();
    drop(keep);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_laid_down_once_and_run_by_one_process() {
    let world = World::new().await;
    assert!(matches!(initialise(&world.config).await, Err(PartyError::AlreadyInitialised(_))));
    assert!(matches!(open(world.config.clone()).await, Err(PartyError::InUse(_))));
    let empty = tempfile::tempdir().unwrap();
    let (config, ..) = configure(empty.path(), Executor::Thread);
    assert!(matches!(open(config).await, Err(PartyError::NotInitialised(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_never_free_from_the_first_look_for_a_site_until_its_engine_runs() {
    let place = tempfile::tempdir().unwrap();
    let (config, ..) = configure(place.path(), Executor::Thread);
    let foundation = Foundation::begin(config.clone()).unwrap();
    assert!(matches!(Foundation::begin(config.clone()), Err(PartyError::InUse(_))));
    // Somebody tries again and again to get in between.
    let (path, ends) = (config.folder.join("lock"), Arc::new(AtomicBool::new(false)));
    let laid = ends.clone();
    let tries = std::thread::spawn(move || {
        let mut tries = 0;
        while !laid.load(Ordering::SeqCst) {
            if File::open(&path).unwrap().try_lock().is_ok() {
                return Err(tries);
            }
            tries += 1;
        }
        Ok(tries)
    });
    let laid = foundation.lay().await;
    ends.store(true, Ordering::SeqCst);
    let tries = tries.join().unwrap();
    assert!(tries.is_ok_and(|tries: u64| tries > 0), "the folder was free after {tries:?} tries");
    let handle = laid.unwrap();
    assert!(matches!(Foundation::begin(config.clone()), Err(PartyError::AlreadyInitialised(_))));
    handle.shut_down().await.unwrap();
    assert!(matches!(Foundation::begin(config.clone()), Err(PartyError::AlreadyInitialised(_))));
    // What is given up is let go.
    let other = tempfile::tempdir().unwrap();
    let (config, ..) = configure(other.path(), Executor::Thread);
    drop(Foundation::begin(config.clone()).unwrap());
    Foundation::begin(config).unwrap().lay().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_database_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.db");
    let store = Store::create(&path).await.unwrap();
    let mut tx = store.begin("look ahead").await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 999").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    assert!(matches!(Store::open(&path).await, Err(PartyError::NewerDatabase)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_that_is_forged_or_changed_under_its_id_is_refused() {
    let mut world = World::new().await;
    world.connect().await;
    let good = study(1, small_plan(1));
    let forged = Signed::new(good.clone(), &key(99)).unwrap();
    world.send(ToSite::Study(Box::new(forged))).await;
    world.settle().await;
    assert!(world.handle.requests(world.who("sam")).await.unwrap().is_empty());
    world.offer(&good).await;
    let mut changed = good.clone();
    changed.terms.purpose = "Something else.".into();
    world.offer(&changed).await;
    let review = world.handle.review(world.who("sam"), good.id, None).await.unwrap();
    assert!(review.project[0].words().contains("heart disease"));
    assert_eq!(world.entered("request_received", "refused").await, 2);
    assert!(!world.alarms().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_coordinator_must_be_accepted_by_a_person() {
    let mut world = World::new().await;
    let study = world.running(small_plan(2)).await;
    let welcome = |epoch, at| Welcome {
        version: Version::V1,
        federation: federation(),
        identity: coordinator().public(),
        at,
        epoch,
    };
    world.event(LinkEvent::Connected(welcome(2, world.now()))).await;
    world.settle().await;
    let in_epoch = |epoch, attempt, now| RoundHeader { epoch, ..header(&study, job(1), "train", 1, attempt, now) };
    world.open_round(in_epoch(2, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(
        matches!(&reply, RoundReply::Refused(r) if r.code == hospes_protocol::approval::RefusalCode::Epoch),
        "{reply:?}"
    );
    assert!(world.alarms().await.iter().any(|a| a.contains("restored from a backup")));
    world.handle.accept_epoch(world.who("ana"), federation()).await.unwrap();
    world.open_round(in_epoch(2, 2, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_off_by_a_day_holds_back_all_work() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let welcome = Welcome {
        version: Version::V1,
        federation: federation(),
        identity: coordinator().public(),
        at: world.now().plus_millis(DAY),
        epoch: 1,
    };
    world.event(LinkEvent::Connected(welcome)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.detail.contains("clocks")), "{reply:?}");
    assert!(world.entered("clock_anomaly", "refused").await >= 1);
    // The clock may be right by now, which only another greeting tells.
    world.pass_time(60_000);
    while !world.take_link() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.connect().await;
    world.open_round(header(&study, job(1), "train", 1, 2, world.now())).await;
    world.serve_model(&study).await;
    world.expect_upload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_federation_closes_its_link_and_hears_nothing() {
    let mut world = World::new().await;
    let _study = world.running(small_plan(1)).await;
    world.handle.pause(world.who("pia"), federation(), Some("a contract is missing".into())).await.unwrap();
    world.expect("the link's end", |c| matches!(c, LinkCommand::Close).then_some(())).await;
    world.handle.pause(world.who("pia"), federation(), None).await.unwrap();
    world.connect().await;
    world
        .expect("the decision again", |c| matches!(c, LinkCommand::Send(FromSite::Decision { .. })).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_cosigned_and_a_fork_is_an_alarm() {
    use hospes_ledger::{Checkpoint, Cosignature, SignedCheckpoint};
    let mut world = World::new().await;
    world.verify([2, 3]).await;
    world.connect().await;
    // This site shows its own; the coordinator and two other members cosign it.
    let (note, size) = world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Show { checkpoint, .. })) => {
                let signed = SignedCheckpoint::parse(checkpoint, &this_site().public()).unwrap();
                Some((*signed.checkpoint(), signed.checkpoint().size))
            }
            _ => None,
        })
        .await;
    let origin = this_site().public().site_id();
    for witness in [coordinator(), key(2), key(3)] {
        let cosignature = note.cosign(&witness, world.now()).line();
        let witness = witness.public().site_id();
        world.send(ToSite::Witness(Witness::Cosigned { origin, size, witness, cosignature })).await;
    }
    // A cosignature that does not hold is not kept.
    let forged = note.cosign(&key(99), world.now()).line();
    let witness = key(4).public().site_id();
    world.send(ToSite::Witness(Witness::Cosigned { origin, size, witness, cosignature: forged })).await;
    world.settle().await;
    let states = world.handle.status().await.unwrap().ledger.witnessed;
    let own = states.iter().find(|s| s.origin == origin).unwrap();
    assert_eq!(own.witnesses, 3, "{states:?}");

    // The coordinator's log: the first checkpoint is taken, the same size with another root is a fork.
    let at = |root: &[u8]| Checkpoint { origin: federation(), size: 7, root: Digest::of(root) }.sign(&coordinator());
    let show = |root: &[u8]| Witness::Show {
        origin: federation(),
        checkpoint: at(root).note(),
        old_size: 0,
        proof: Vec::new(),
    };
    world.send(ToSite::Witness(show(b"one"))).await;
    let line = world
        .expect("a cosignature", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Cosigned { cosignature, .. })) => Some(cosignature.clone()),
            _ => None,
        })
        .await;
    Cosignature::verify(&line, at(b"one").checkpoint(), &this_site().public()).unwrap();
    // What was seen can be handed to an auditor: of the coordinator's log, and of this site's own with all witnesses.
    let kept = async |world: &World, origin| world.handle.checkpoint_note(world.who("odo"), federation(), origin).await;
    let coordinators =
        SignedCheckpoint::parse(&kept(&world, federation()).await.unwrap(), &coordinator().public()).unwrap();
    assert!(coordinators.cosigned_by(&this_site().public()).is_some());
    let own = SignedCheckpoint::parse(&kept(&world, origin).await.unwrap(), &this_site().public()).unwrap();
    assert!([coordinator(), key(2), key(3)].iter().all(|witness| own.cosigned_by(&witness.public()).is_some()));
    let unseen = kept(&world, key(3).public().site_id()).await;
    assert!(matches!(&unseen, Err(PartyError::NotFound(_))), "{unseen:?}");
    world.send(ToSite::Witness(show(b"two"))).await;
    world
        .expect("a contradiction", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Contradiction { .. })) => Some(()),
            _ => None,
        })
        .await;
    assert!(world.alarms().await.iter().any(|a| a.contains("the log of the coordinator contradicts")));
    assert_eq!(world.entered("witness_failed", "failed").await, 1);
    assert_eq!(world.entered("witness_first", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_messages_are_counted_and_summarised_every_hour() {
    let mut world = World::new().await;
    let _study = world.running(small_plan(1)).await;
    world.settle().await;
    assert_eq!(world.entered("control_summary", "success").await, 0);
    world.pass_time(60 * MINUTE);
    tokio::time::sleep(Duration::from_millis(700)).await;
    world.settle().await;
    assert!(world.entered("control_summary", "success").await >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_counted_stands_as_sent_though_its_receipt_got_lost() {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let header = header(&study, job(1), "train", 1, 1, world.now());
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    let (upload, _) = world.expect_upload().await;
    world.may_leave(&upload).await.unwrap();
    world.close_round(&header).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["sent"]);
    assert_eq!(world.entered("update_sent", "success").await, 1);
    assert_eq!(world.entered("update_receipt", "success").await, 0);
    assert_eq!(world.payload_files(), 0);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_runs_again_and_one_that_was_cancelled_does_not() {
    use hospes_protocol::approval::RefusalCode;
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let ended = |state: &str| ToSite::JobEnded { job: job(1), state: state.into(), reason: None, model: None };
    world.send(ToSite::JobRollback { job: job(1) }).await;
    world.start_job(&study, job(1)).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.send(ended("failed")).await;
    // The approval is good for one run, and this is still the same.
    world.start_job(&study, job(1)).await;
    world.send(ended("cancelled")).await;
    world.start_job_expecting(&study, job(1), RefusalCode::CannotRun).await;
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_run_that_went_on_without_this_site_wait_for_its_people_if_it_has_a_part_in_them() {
    let mut world = World::new().await;
    let (_, header) = world.first_round(small_plan(2)).await;
    world.close_round(&header).await;
    let ended = |state: &str, model| ToSite::JobEnded { job: job(1), state: state.into(), reason: None, model };
    world.send(ended("failed", None)).await;
    // The next run was one without this site; the update of the first round is in its model.
    let model = Some(Digest::of(b"model"));
    world.send(ended("success", model)).await;
    world.settle().await;
    let of = async |world: &World| world.handle.jobs(world.who("sam"), Page::default()).await.unwrap().remove(0);
    let view = of(&world).await;
    assert_eq!((view.state.as_str(), view.held, view.model), ("success", true, model));
    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    // What is over stays as it is.
    world.send(ended("failed", None)).await;
    world.send(ended("success", Some(Digest::of(b"another")))).await;
    world.settle().await;
    let view = of(&world).await;
    assert_eq!((view.state.as_str(), view.held, view.model), ("success", false, model));
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_a_run_that_this_sites_people_stopped_wait_for_them_too() {
    let mut world = World::new().await;
    let (_, header) = world.first_round(small_plan(2)).await;
    world.close_round(&header).await;
    world.settle().await;
    world.handle.cancel_job(world.who("sam"), job(1), "the machine is needed".into()).await.unwrap();
    // The others went on; the update of the first round is in the model.
    let model = Some(Digest::of(b"model"));
    let ended = |model| ToSite::JobEnded { job: job(1), state: "success".into(), reason: None, model };
    world.send(ended(model)).await;
    world.settle().await;
    let of = async |world: &World| world.handle.jobs(world.who("sam"), Page::default()).await.unwrap().remove(0);
    let view = of(&world).await;
    assert_eq!((view.state.as_str(), view.held, view.model), ("cancelled", true, model));
    world.handle.release(world.who("ava"), job(1)).await.unwrap();
    world.send(ended(Some(Digest::of(b"another")))).await;
    world.settle().await;
    let view = of(&world).await;
    assert_eq!((view.state.as_str(), view.held, view.model), ("cancelled", false, model));
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_cannot_be_begun_again_any_number_of_times() {
    use hospes_protocol::approval::RefusalCode;
    let failed = || ToSite::JobEnded { job: job(1), state: "failed".into(), reason: None, model: None };
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    for _ in 0..hospes_protocol::limits::SPARE_JOBS {
        world.send(failed()).await;
        world.start_job(&study, job(1)).await;
    }
    world.send(failed()).await;
    world.start_job_expecting(&study, job(1), RefusalCode::CannotRun).await;
}
