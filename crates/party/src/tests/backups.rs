//! A backup and the way back; what a restored site does not do before its people and its witnesses have looked.

use std::os::unix::fs::PermissionsExt as _;

use hospes_ledger::SignedCheckpoint;
use hospes_protocol::approval::{RefusalCode, Trust};
use hospes_protocol::message::{Decision, Witness};

use super::faults::no_room_for_payloads;
use super::*;
use crate::backup::Restoration;
use crate::error::PartyError;
use crate::keys::KeyError;
use crate::view::RestoredView;

pub(super) fn secret() -> Passphrase {
    pass("a backup")
}

pub(super) async fn back_up(world: &World, folder: &Path) -> PathBuf {
    let file = folder.join("site.hospes-backup");
    let made = world.handle.back_up(world.who("ana"), file.clone(), secret()).await.unwrap();
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!((made.digest, made.bytes, made.datasets), (Digest::of(&bytes), bytes.len() as u64, 1));
    file
}

/// Restores a backup into a folder.
pub(super) async fn restore(folder: &Path, file: &Path, passphrase: Passphrase) -> Result<(), PartyError> {
    let (config, _, _) = configure(folder, Executor::Thread);
    Restoration::check(&config, file.to_owned(), passphrase).await?.put_in_place().await
}

/// Why a backup is not restored into a folder, which is then as it was.
async fn refused(folder: &Path, file: &Path, passphrase: Passphrase) -> PartyError {
    let refused = restore(folder, file, passphrase).await.unwrap_err();
    assert!(!folder.join("site/restoring").exists(), "{refused}");
    refused
}

/// The site of a backup, in another folder.
async fn restored(folder: &Path, file: &Path, now: Timestamp) -> World {
    restore(folder, file, secret()).await.unwrap();
    World::reopen(folder, Executor::Thread, now.as_millis()).await
}

/// Two people let the site go on.
pub(super) async fn confirm(world: &World) {
    let proposal = propose(world).await;
    let answer = |name: &'static str| world.handle.answer_proposal(world.who(name), proposal, true, None, pass(name));
    assert!(matches!(answer("ana").await, Err(PartyError::State(_))), "one person signed for two");
    assert_eq!(answer("ava").await.unwrap(), Outcome::Done { code: None });
}

/// One of them.
async fn propose(world: &World) -> Digest {
    let proposed = world.handle.confirm_restore(world.who("ana"), pass("ana")).await.unwrap();
    let Outcome::Proposed(proposal) = proposed else { panic!("{proposed:?}") };
    assert!(proposal.words.contains("opt-outs, revocations"), "{}", proposal.words);
    let twice = world.handle.confirm_restore(world.who("ana"), pass("ana")).await;
    assert!(matches!(twice, Err(PartyError::State(_))), "{twice:?}");
    proposal.id
}

async fn view(world: &World) -> Option<RestoredView> {
    world.handle.restored(world.who("odo")).await.unwrap()
}

/// Whether nothing derived may leave.
async fn is_held(world: &World) -> bool {
    world
        .handle
        .ask(|e| {
            async move {
                let mut conn = e.reader().await?;
                crate::restored::holds(&mut conn, federation()).await
            }
            .boxed()
        })
        .await
        .unwrap()
}

/// Connects anew and has the coordinator cosign this site's log as it is now; the note that the coordinator keeps.
async fn cosigned(world: &mut World) -> (u64, String) {
    // What was shown before is no more than that.
    world.never("anything", |_| None).await;
    world.event(LinkEvent::Disconnected { reason: "a test".into(), retry_in: Duration::ZERO }).await;
    world.connect().await;
    let note = world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Show { checkpoint, .. })) => Some(checkpoint.clone()),
            _ => None,
        })
        .await;
    let mut signed = SignedCheckpoint::parse(&note, &this_site().public()).unwrap();
    let cosignature = signed.checkpoint().cosign(&coordinator(), world.now());
    signed.add(&cosignature);
    let (origin, size) = (this_site().public().site_id(), signed.checkpoint().size);
    let cosigned = Witness::Cosigned { origin, size, witness: federation(), cosignature: cosignature.line() };
    world.send(ToSite::Witness(cosigned)).await;
    world.settle().await;
    (size, signed.note())
}

/// Waits until the site asks what was seen of its log.
pub(super) async fn expect_question(world: &mut World) {
    let own = this_site().public().site_id();
    world
        .expect("ask its witness", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::ProveFrom { origin, .. })) if *origin == own => Some(()),
            _ => None,
        })
        .await;
}

/// The coordinator says what it has seen of this site's log.
pub(super) async fn remind(world: &World, checkpoint: String) {
    let origin = this_site().public().site_id();
    let seen = Witness::Show { origin, checkpoint, old_size: 0, proof: Vec::new() };
    world.send(ToSite::Witness(seen)).await;
    world.settle().await;
}

fn shows_its_log(command: &LinkCommand) -> Option<()> {
    matches!(command, LinkCommand::Send(FromSite::Witness(Witness::Show { .. }))).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_comes_back_from_its_backup_with_its_people_data_and_identity() {
    let mut world = World::new().await;
    world.in_operation().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "something else is left");
    assert_eq!(std::fs::read_dir(world.config.scratch()).unwrap().count(), 0, "a copy is left");
    assert_eq!(world.entered("backup_made", "success").await, 1);
    let again = world.handle.back_up(world.who("ana"), file.clone(), secret()).await;
    assert!(matches!(again, Err(PartyError::File { .. })), "{again:?}");
    for who in ["sam", "ava", "pia", "odo"] {
        let denied = world.handle.back_up(world.who(who), place.path().join("no"), secret()).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{who}: {denied:?}");
    }
    let short = Passphrase::from("short".to_owned());
    let short = world.handle.back_up(world.who("ana"), place.path().join("no"), short).await;
    assert!(matches!(short, Err(PartyError::Input { place: "passphrase", .. })), "{short:?}");

    let back = restored(other.path(), &file, world.now()).await;
    assert_eq!(back.sessions.len(), 5, "somebody cannot log in");
    let of = async |world: &World| {
        let datasets = world.handle.datasets(world.who("sam")).await.unwrap();
        let profile = world.handle.profile(world.who("sam"), datasets[0].id).await.unwrap();
        let policy = world.handle.policy(world.who("sam")).await.unwrap();
        let memberships = world.handle.memberships(world.who("sam")).await.unwrap();
        (datasets, serde_json::to_string(&profile).unwrap(), policy, memberships[0].site, memberships[0].identity)
    };
    assert_eq!(of(&back).await, of(&world).await);
    assert_eq!(back.entered("backup_restored", "success").await, 1);
    back.assert_ledger_intact().await;
    // The next start enters it no more.
    back.handle.shut_down().await.unwrap();
    let back = World::reopen(other.path(), Executor::Thread, world.now().as_millis()).await;
    assert_eq!(back.entered("backup_restored", "success").await, 1);
    assert!(view(&back).await.is_some_and(|view| !view.confirmed && view.federations.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_site_says_nothing_to_anybody_before_two_people_confirmed_it() {
    let mut world = World::new().await;
    world.in_operation().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let mut back = restored(other.path(), &file, world.now()).await;
    assert!(back.alarms().await.iter().any(|words| words.contains("restored from a backup")));
    back.pass_time(60 * MINUTE);
    back.handle.pause(back.who("ana"), federation(), Some("a test".into())).await.unwrap();
    back.handle.pause(back.who("ana"), federation(), None).await.unwrap();
    back.handle.status().await.unwrap();
    assert!(!back.take_link(), "a link was opened");
    let tested = back.handle.diagnose(back.who("ana"), federation()).await;
    assert!(matches!(tested, Err(PartyError::State(_))), "{tested:?}");
    assert!(is_held(&back).await);
    let denied = back.handle.confirm_restore(back.who("sam"), pass("sam")).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    // One signature opens nothing either; nor does an acknowledged alarm.
    for alarm in back.handle.alarms(back.who("odo")).await.unwrap() {
        back.handle.acknowledge(back.who("odo"), alarm.id).await.unwrap();
    }
    let proposal = propose(&back).await;
    assert!(!back.take_link() && is_held(&back).await);
    back.handle.answer_proposal(back.who("ava"), proposal, false, None, pass("ava")).await.unwrap();
    assert!(!back.take_link() && is_held(&back).await, "it was turned down");
    back.pass_time(1);
    confirm(&back).await;
    assert!(back.take_link(), "no link was opened");
    assert!(is_held(&back).await, "no witness has answered");
    let twice = back.handle.confirm_restore(back.who("ana"), pass("ana")).await;
    assert!(matches!(twice, Err(PartyError::State(_))), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_set_up_one_administrator_confirms() {
    let world = World::new().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let mut back = restored(other.path(), &file, world.now()).await;
    assert!(!back.take_link());
    let done = back.handle.confirm_restore(back.who("ana"), pass("ana")).await.unwrap();
    assert_eq!(done, Outcome::Done { code: None });
    assert!(back.take_link());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_site_trains_again_when_its_witness_has_seen_nothing_that_is_lost() {
    let mut world = World::new().await;
    world.in_operation().await;
    let (size, note) = cosigned(&mut world).await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let mut back = restored(other.path(), &file, world.now()).await;
    confirm(&back).await;
    back.connect().await;
    expect_question(&mut back).await;
    back.never("show its log, or say what it decided", |c| match c {
        LinkCommand::Send(FromSite::Decision { .. }) => Some(()),
        other => shows_its_log(other),
    })
    .await;
    let study = study(1, small_plan(1));
    back.start_job_expecting(&study, job(2), RefusalCode::Stopped).await;
    // What proves nothing changes nothing: it is no note, not cosigned, or says less than was cosigned.
    let checkpoint = *SignedCheckpoint::read(&note).unwrap().checkpoint();
    remind(&back, "no note".into()).await;
    remind(&back, checkpoint.sign(&this_site()).note()).await;
    remind(&back, String::new()).await;
    assert!(is_held(&back).await);
    back.expect_alarm("named less than it has cosigned").await;
    assert_eq!(checkpoint.size, size);
    remind(&back, note.clone()).await;
    assert!(!is_held(&back).await);
    assert_eq!(view(&back).await, None);
    assert!(budgets_hold(&back).await, "nothing was lost");
    back.expect("show its log", shows_its_log).await;
    back.start_job(&study, job(1)).await;
    back.open_round(header(&study, job(1), "train", 1, 1, back.now())).await;
    back.serve_model(&study).await;
    let (upload, path) = back.expect_upload().await;
    back.take(&upload, &path).await;
    back.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_told_once_ends_the_approvals_and_a_new_identity_goes_on() {
    let mut world = World::new().await;
    world.in_operation().await;
    world.verify([2, 3]).await;
    cosigned(&mut world).await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    // The backup itself is entered, and seen.
    let (size, note) = cosigned(&mut world).await;
    let mut back = restored(other.path(), &file, world.now()).await;
    confirm(&back).await;
    back.connect().await;
    expect_question(&mut back).await;
    remind(&back, note.clone()).await;
    back.expect_alarm("the end of this site's log is lost").await;
    let revoked = |c: &LinkCommand| match c {
        LinkCommand::Send(FromSite::Decision { decision: Decision::Revoked, .. }) => Some(()),
        _ => None,
    };
    back.expect("tell that its approvals ended", revoked).await;
    // Nor is it known whose key was taken back.
    let peers = back.handle.peers(back.who("ana"), federation()).await.unwrap();
    assert!(peers.iter().all(|peer| peer.trust == Trust::AssertedOnly), "{peers:?}");
    assert_eq!(back.entered("peer_revoked", "success").await, 2);
    let lost = view(&back).await.unwrap().federations[0].lost.unwrap();
    assert!(lost.seen == size && lost.restored < size, "{lost:?}");
    let failed = back.entered("witness_failed", "failed").await;
    assert_eq!(failed, 1);
    for _ in 0..3 {
        remind(&back, note.clone()).await;
        back.pass_time(20 * MINUTE);
        back.never("show a log that contradicts the other", shows_its_log).await;
    }
    assert_eq!(back.entered("witness_failed", "failed").await, failed);
    assert!(is_held(&back).await);
    // The operator lets it in under a new identity.
    let fresh = back.handle.ask(|e| e.identity_for(federation(), Digest::of(b"a CA"), true).boxed()).await.unwrap();
    assert_ne!(fresh.public(), this_site().public());
    back.join_as_site(2, "Heart Federation").await.unwrap();
    assert!(!is_held(&back).await);
    assert_eq!(view(&back).await, None);
    back.connect().await;
    back.expect("show its log", shows_its_log).await;
    // What was spent since the backup is not known, of whichever patients: nothing is spent any more.
    assert!(!budgets_hold(&back).await);
    back.add_dataset("Hungary", "hungary.csv", true).await;
    assert!(!budgets_hold(&back).await);
    back.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_federation_that_has_not_answered_gives_no_budget_back() {
    let mut world = World::new().await;
    world.in_operation().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let back = restored(other.path(), &file, world.now()).await;
    confirm(&back).await;
    back.handle.leave(back.who("ana"), federation(), "we merge".into()).await.unwrap();
    assert!(!budgets_hold(&back).await);
}

/// Whether a little may still be spent of each pool.
async fn budgets_hold(world: &World) -> bool {
    let pools = world.handle.privacy(world.who("sam")).await.unwrap();
    let mut hold = true;
    for (n, pool) in pools.iter().enumerate() {
        let charged = super::privacy::spend(world, study(1, small_plan(1)).id, pool.id, u32::try_from(n).unwrap(), 1);
        let refused = charged.await.err();
        assert_eq!(pool.account.lost.is_some(), refused.is_some(), "{refused:?}");
        assert!(refused.as_ref().is_none_or(|refusal| refusal.detail.contains("after the backup of")), "{refused:?}");
        hold &= refused.is_none();
    }
    hold
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_while_a_backup_is_written_does_not_live_on_in_it() {
    let world = World::new().await;
    let place = tempfile::tempdir().unwrap();
    let (who, file) = (world.who("ana").clone(), place.path().join("site.hospes-backup"));
    let backup = world.handle.ask(move |e| e.begin_backup(who, file, secret()).boxed()).await.unwrap();
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].id;
    world.handle.remove_dataset(world.who("sam"), dataset, "withdrawn".into()).await.unwrap();
    let written = backup.write().unwrap();
    let refused = world.handle.ask(move |e| e.finish_backup(written).boxed()).await;
    assert!(matches!(&refused, Err(PartyError::State(words)) if words.contains("was removed")), "{refused:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "something of it is left");
    assert_eq!(world.entered("backup_made", "success").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_backup_is_not_restored() {
    let world = World::new().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let wrong = refused(other.path(), &file, pass("another backup")).await;
    assert!(matches!(wrong, PartyError::Keys(KeyError::WrongPassphrase { .. })), "{wrong:?}");
    let good = std::fs::read(&file).unwrap();
    let bad = place.path().join("bad");
    for at in (0..good.len()).step_by(good.len() / 24).chain([good.len() - 1]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&bad, &bytes).unwrap();
        refused(other.path(), &bad, secret()).await;
        std::fs::write(&bad, &good[..at]).unwrap();
        refused(other.path(), &bad, secret()).await;
    }
    assert!(!other.path().join("site/site.db").exists() && !other.path().join("secrets").exists());
    restore(other.path(), &file, secret()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_site_or_remains_of_one_is_left_as_it_is() {
    let world = World::new().await;
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = back_up(&world, place.path()).await;
    let running = restore(&world.folder.join(".."), &file, secret()).await;
    assert!(matches!(running, Err(PartyError::InUse(_))), "{running:?}");
    world.handle.shut_down().await.unwrap();
    let there = restore(&world.folder.join(".."), &file, secret()).await;
    assert!(matches!(there, Err(PartyError::AlreadyInitialised(_))), "{there:?}");
    let site = other.path().join("site");
    std::fs::create_dir_all(site.join("snapshots")).unwrap();
    for remains in [site.join("site.db-wal"), site.join("snapshots/of another.parquet"), other.path().join("secrets")] {
        std::fs::write(&remains, "what was there").unwrap();
        let said = refused(other.path(), &file, secret()).await.to_string();
        assert!(said.contains("is left of a site"), "{said}");
        assert_eq!(std::fs::read_to_string(&remains).unwrap(), "what was there");
        std::fs::remove_file(&remains).unwrap();
    }
    // What an attempt left that was interrupted is in nobody's way.
    std::fs::write(site.join("restore.unfinished"), "").unwrap();
    std::fs::write(site.join("snapshots/of it.parquet"), "half").unwrap();
    std::fs::write(other.path().join("secrets"), "half").unwrap();
    let back = restored(other.path(), &file, world.now()).await;
    assert!(!site.join("restore.unfinished").exists());
    // Nor does a mark stay that an end of power left beside a whole site.
    back.handle.shut_down().await.unwrap();
    std::fs::write(site.join("restore.unfinished"), "").unwrap();
    std::fs::create_dir(site.join("restoring")).unwrap();
    let back = World::reopen(other.path(), Executor::Thread, world.now().as_millis()).await;
    assert!(!site.join("restore.unfinished").exists() && !site.join("restoring").exists());
    assert_eq!(back.handle.datasets(back.who("sam")).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_there_is_no_backup_and_no_entry_about_one() {
    let world = World::new().await;
    let place = tempfile::tempdir().unwrap();
    let mounted = no_room_for_payloads(place.path());
    let file = place.path().join("site.hospes-backup");
    let full = world.handle.back_up(world.who("ana"), file.clone(), secret()).await;
    let left = std::fs::read_dir(place.path()).map_or(0, |files| files.count());
    if mounted {
        let unmounted = std::process::Command::new("umount").arg(place.path()).status().unwrap();
        assert!(unmounted.success());
        assert!(matches!(full, Err(PartyError::DiskFull { .. })), "{full:?}");
    }
    assert!(full.is_err() && !file.exists());
    assert!(left <= 1, "besides what fills the disk, something is left");
    assert_eq!(world.entered("backup_made", "success").await, 0);
    assert_eq!(std::fs::read_dir(world.config.scratch()).unwrap().count(), 0);
}
