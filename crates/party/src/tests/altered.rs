//! A ledger that was altered in the database: the site finds it by itself and says so, nothing leaves before somebody has
//! acknowledged that, and a peer that witnessed the log sees it too.

use hospes_ledger::SignedCheckpoint;
use hospes_protocol::approval::RefusalCode;
use hospes_protocol::message::Witness;

use super::watching::database;
use super::*;
use crate::error::PartyError;
use crate::view::{LOG_IS_INTACT, LedgerFinding};

/// Changes one byte of an entry as it is stored; gives back what was there.
async fn alter_entry(world: &World, sequence: i64) -> String {
    let mut conn = database(world).await;
    let written: String = sqlx::query_scalar("SELECT fields FROM ledger_entry WHERE sequence = ?1")
        .bind(sequence)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    // In the salt of its first field: the entry is read as before, and is another one.
    let at = written.find("[\"").unwrap() + 2;
    let mut bytes = written.clone().into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    store_entry(world, sequence, &String::from_utf8(bytes).unwrap()).await;
    written
}

async fn store_entry(world: &World, sequence: i64, written: &str) {
    let update = sqlx::query("UPDATE ledger_entry SET fields = ?2 WHERE sequence = ?1").bind(sequence);
    let done = update.bind(written).execute(&mut database(world).await).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Changes one byte of an entry's hash in the tree.
async fn alter_hash(world: &World, sequence: usize) {
    let mut conn = database(world).await;
    let mut hashes: Vec<u8> = sqlx::query_scalar("SELECT hashes FROM ledger_tile WHERE level = 0 AND tile = 0")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    hashes[32 * sequence] ^= 1;
    let update = sqlx::query("UPDATE ledger_tile SET hashes = ?1 WHERE level = 0 AND tile = 0").bind(hashes);
    assert_eq!(update.execute(&mut conn).await.unwrap().rows_affected(), 1);
}

async fn finding(world: &World) -> Option<LedgerFinding> {
    world.handle.status().await.unwrap().ledger.finding
}

/// Alarms about this site's own verification.
async fn own_alarms(world: &World) -> usize {
    world.alarms().await.iter().filter(|words| words.contains("verified its audit log")).count()
}

/// The first sentence of a verification that a person asks for.
async fn verdict(world: &World) -> String {
    world.handle.verify_audit(world.who("odo")).await.unwrap().swap_remove(0)
}

/// The checkpoint that the site shows next.
async fn shown(world: &mut World) -> Witness {
    world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Send(FromSite::Witness(show @ Witness::Show { .. })) => Some(show.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_byte_of_an_entry_is_an_alarm_after_the_next_start_and_nothing_leaves() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    world.handle.shut_down().await.unwrap();
    alter_entry(&world, 3).await;
    let mut world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    // The start waits for nothing of it.
    assert_eq!(finding(&world).await, None);
    world.pass_time(MINUTE);
    world.expect_alarm("entry 3 is the first that is wrong").await;
    let found = finding(&world).await.unwrap();
    assert_eq!(found.entry, Some(3));
    let alarms = world.handle.status().await.unwrap().alarms;
    let alarm = alarms.iter().find(|a| Some(a.id) == found.alarm).expect("the alarm is not there");
    for what_to_do in ["Leave this machine as it is", "Tell the auditor", "export the log with proofs"] {
        assert!(alarm.words.contains(what_to_do), "{}", alarm.words);
    }
    assert_eq!(world.entered("witness_failed", "failed").await, 1);
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    world.start_job_expecting(&study, job(1), RefusalCode::Stopped).await;
    // Whoever looks again finds the same, and that is no other alarm.
    assert!(verdict(&world).await.contains("NOT intact"));
    assert_eq!(own_alarms(&world).await, 1);
    world.handle.acknowledge(world.who("odo"), alarm.id).await.unwrap();
    assert!(verdict(&world).await.contains("NOT intact"));
    assert_eq!((own_alarms(&world).await, world.entered("witness_failed", "failed").await), (0, 1));
    let known = finding(&world).await.unwrap();
    assert_eq!((known.entry, known.alarm), (Some(3), None), "it stays known, and holds nothing");
    world.start_job(&study, job(2)).await;
    // Another entry is another finding.
    alter_entry(&world, 2).await;
    world.pass_time(25 * 60 * MINUTE);
    world.expect_alarm("entry 2 is the first that is wrong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_hash_of_the_tree_is_an_alarm_here_and_at_a_peer_that_witnessed_the_log() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    world.connect().await;
    let before = shown(&mut world).await;
    let Witness::Show { origin, checkpoint, .. } = &before else { panic!("{before:?}") };
    let (origin, checkpoint) = (*origin, *SignedCheckpoint::read(checkpoint).unwrap().checkpoint());
    let cosignature = checkpoint.cosign(&coordinator(), world.now()).line();
    let cosigned = Witness::Cosigned { origin, size: checkpoint.size, witness: federation(), cosignature };
    world.send(ToSite::Witness(cosigned)).await;
    world.settle().await;
    world.handle.shut_down().await.unwrap();
    alter_hash(&world, 5).await;
    let mut world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    world.pass_time(MINUTE);
    world.expect_alarm("entry 5 is the first that is wrong").await;
    // It goes on, and shows what it has now, with a proof from what was cosigned.
    world.connect().await;
    let after = shown(&mut world).await;
    assert!(matches!(&after, Witness::Show { old_size, .. } if *old_size == checkpoint.size), "{after:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut peer = World::create(elsewhere.path(), Executor::Thread).await;
    peer.staff().await;
    peer.join_as_site(2, "Heart Federation").await.unwrap();
    peer.connect().await;
    peer.send(ToSite::Witness(before)).await;
    peer.settle().await;
    assert_eq!(peer.alarms().await, Vec::<String>::new());
    peer.send(ToSite::Witness(after)).await;
    peer.expect_alarm("the log of 'Site 1' contradicts what was seen of it before").await;
    assert_eq!(peer.entered("witness_failed", "failed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_finds_is_an_alarm_too_and_stops_what_is_on_the_wire() {
    let (mut world, _, upload, _) = World::on_the_wire().await;
    let written = alter_entry(&world, 3).await;
    assert!(verdict(&world).await.contains("entry 3 is the first that is wrong"));
    world.expect_recall(&upload).await;
    world.settle().await;
    assert_eq!(world.outbox_states().await, ["withdrawn, may have arrived"]);
    assert_eq!(own_alarms(&world).await, 1);
    // Put back as it was: nobody calls it intact before somebody has looked into the alarm.
    store_entry(&world, 3, &written).await;
    let said = verdict(&world).await;
    assert!(said != LOG_IS_INTACT && said.contains("entry 3 is the first"), "{said}");
    let alarm = finding(&world).await.unwrap().alarm.unwrap();
    // Who wants the data used is not who says that they may leave again.
    for name in ["sam", "ava"] {
        let denied = world.handle.acknowledge(world.who(name), alarm).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{name}: {denied:?}");
    }
    world.handle.acknowledge(world.who("pia"), alarm).await.unwrap();
    assert_eq!(verdict(&world).await, LOG_IS_INTACT);
    assert_eq!((finding(&world).await, own_alarms(&world).await), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_a_finding_and_no_fault() {
    let world = World::new().await;
    let bytes = sqlx::query("UPDATE ledger_entry SET fields = CAST(X'FF' AS TEXT) WHERE sequence = 3");
    assert_eq!(bytes.execute(&mut database(&world).await).await.unwrap().rows_affected(), 1);
    let said = verdict(&world).await;
    assert!(said.contains("NOT intact") && said.contains("entry 3"), "{said}");
    assert_eq!(own_alarms(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_told_of_at_once_and_keeps_nobody_from_the_alarm() {
    let temporary = tempfile::tempdir().unwrap();
    let mut world = World::create(temporary.path(), Executor::Thread).await;
    world.furnish().await;
    world.connect().await;
    shown(&mut world).await;
    world.settle().await;
    world.handle.shut_down().await.unwrap();
    let damage = sqlx::query("UPDATE ledger_checkpoint SET note = 'no note'");
    assert!(damage.execute(&mut database(&world).await).await.unwrap().rows_affected() > 0);
    let world = World::reopen(temporary.path(), Executor::Thread, START + MINUTE).await;
    // The state of the site can be read before the site has verified anything: without it no window opens.
    let seen = finding(&world).await.expect("nothing is told of the log");
    assert!(seen.words.contains("does not hold") && seen.alarm.is_none(), "{seen:?}");
    world.pass_time(MINUTE);
    world.expect_alarm("does not hold").await;
    assert!(finding(&world).await.unwrap().alarm.is_some());
}
