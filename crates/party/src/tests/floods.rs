//! What a coordinator, or a member that it made up, sends without end fills neither the ledger nor the database.

use hospes_protocol::approval::Trust;
use hospes_protocol::message::{Decision, Witness};
use hospes_protocol::study::Vouch;
use sqlx::Connection as _;

use super::*;
use crate::view::{AuditQuery, Verdict};

const HOUR: i64 = 60 * MINUTE;
/// By so many a flood is larger than its limit.
const MORE: usize = 20;

async fn rows(world: &World, table: &str) -> usize {
    let path = world.config.database();
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let sql = format!("SELECT COUNT(*) FROM {table}");
    let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut database).await.unwrap();
    usize::try_from(count).unwrap()
}

async fn send_roster(world: &World, roster: Roster) {
    world.send(ToSite::Roster(Box::new(Signed::new(roster, &coordinator()).unwrap()))).await;
}

/// By a member, for somebody as the coordinator states them, `at` milliseconds after the start.
fn vouch(by: u8, of: &Member, at: i64) -> ToSite {
    let vouch = Vouch {
        federation: federation(),
        by: key(by).public().site_id(),
        site: of.site,
        identity: of.identity,
        organisation: of.organisation.clone(),
        at: Timestamp::from_millis(START + at),
    };
    ToSite::Vouch(Box::new(Signed::new(vouch, &key(by)).unwrap()))
}

async fn send_study(world: &World, study: &Study) {
    world.send(ToSite::Study(Box::new(Signed::new(study.clone(), &coordinator()).unwrap()))).await;
}

/// Waits until the hourly summary says this.
async fn expect_summary(world: &World, part: &str) {
    for _ in 0..600 {
        let query = AuditQuery { actions: vec!["control_summary".into()], limit: 1_000, ..AuditQuery::default() };
        let page = world.handle.audit(world.who("ana"), query).await.unwrap();
        if page.entries.iter().any(|e| e.detail.contains(part)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no summary says '{part}'");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_of_refused_rosters_fills_the_ledger_or_hides_an_impostor() {
    let mut world = World::new().await;
    world.verify([2]).await;
    world.connect().await;
    send_roster(&world, roster(1_000)).await;
    // Each is older, and said to be so in words of its own.
    for version in (2..).take(limits::REFUSALS + MORE) {
        send_roster(&world, roster(version)).await;
    }
    world.settle().await;
    assert_eq!(world.entered("roster_changed", "refused").await, limits::REFUSALS);
    let alarms = world.alarms().await;
    assert_eq!(alarms.len(), limits::REFUSALS + 1);
    assert_eq!(alarms.iter().filter(|a| a.contains("limit REFUSALS")).count(), 1);

    let mut changed = roster(1_001);
    changed.members.retain(|m| m.name != "Site 2");
    let statement = MemberStatement { name: "Site 2".into(), ..statement(9) };
    let signature = key(9).sign(&Canonical::new(statement.clone()).unwrap().digest());
    changed.members.push(Member { name: statement.name, statement: signature, ..member(9) });
    changed.members.sort_by_key(|m| m.site);
    send_roster(&world, changed).await;
    world.expect_alarm("'Site 2', whose key was verified here, has another key now").await;
    assert_eq!(world.entered("peer_revoked", "success").await, 1);
    assert_eq!(world.entered("roster_changed", "refused").await, limits::REFUSALS);

    // In another hour there is room again, for each once.
    world.pass_time(HOUR);
    for _ in 0..5 {
        send_roster(&world, roster(900)).await;
    }
    world.settle().await;
    assert_eq!(world.entered("roster_changed", "refused").await, limits::REFUSALS + 1);
    expect_summary(&world, "refused without an entry (limit REFUSALS) 20").await;
}

fn statement(n: u8) -> MemberStatement {
    let Member { name, organisation, identity, .. } = member(n);
    MemberStatement { federation: federation(), name, organisation, identity }
}

#[tokio::test(flavor = "multi_thread")]
async fn rosters_without_end_are_taken_and_counted() {
    let mut world = World::new().await;
    world.connect().await;
    for version in (2..).take(limits::MEMBER_ENTRIES + MORE) {
        send_roster(&world, roster(version)).await;
    }
    world.settle().await;
    let last = world.handle.status().await.unwrap().memberships[0].roster;
    assert_eq!(usize::try_from(last).unwrap(), 1 + limits::MEMBER_ENTRIES + MORE, "the newest holds");
    assert_eq!(world.entered("roster_changed", "success").await, limits::MEMBER_ENTRIES);
    world.pass_time(HOUR);
    send_roster(&world, roster(last + 1)).await;
    world.settle().await;
    assert_eq!(world.entered("roster_changed", "success").await, limits::MEMBER_ENTRIES + 1);
    expect_summary(&world, "roster taken without an entry (limit MEMBER_ENTRIES) 20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouches_for_nobody_fill_nothing() {
    let mut world = World::new().await;
    world.connect().await;
    // Well signed by a member, for somebody who is none.
    let stranger = member(99);
    for _ in 0..5 {
        world.send(vouch(2, &stranger, 0)).await;
    }
    // And for one that is, under another organisation.
    world.send(vouch(2, &Member { organisation: "Another".repeat(1_000), ..member(3) }, 0)).await;
    world.settle().await;
    assert_eq!(world.entered("peer_vouched", "refused").await, 2, "each is entered once");
    for at in (1..).take(limits::REFUSALS + MORE) {
        world.send(vouch(2, &stranger, at)).await;
    }
    world.settle().await;
    assert_eq!(world.entered("peer_vouched", "refused").await, limits::REFUSALS);
    assert_eq!(rows(&world, "vouches").await, 0);
    world.expect_alarm("limit REFUSALS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouches_of_members_that_nobody_verified_share_one_place() {
    let mut world = World::new().await;
    world.connect().await;
    let members: Vec<Member> = (1..=40).map(member).collect();
    let mut large = Roster { members: members.clone(), ..roster(2) };
    large.members.sort_by_key(|m| m.site);
    send_roster(&world, large).await;
    let of = |n: u8| &members[usize::from(n) - 1];
    let pairs = (2..=40).flat_map(|by| (1..=40).map(move |of| (by, of))).filter(|(by, of)| by != of);
    for (by, member) in pairs.take(limits::VOUCHES + MORE) {
        world.send(vouch(by, of(member), 0)).await;
    }
    world.settle().await;
    assert_eq!(rows(&world, "vouches").await, limits::VOUCHES);
    assert_eq!(world.entered("peer_vouched", "success").await, limits::MEMBER_ENTRIES);
    assert_eq!(world.entered("peer_vouched", "refused").await, MORE);

    // One that was verified here has a place of its own, and none of the others hides what it says.
    world.verify([40]).await;
    world.send(vouch(40, of(3), 0)).await;
    // And where there is no room, a newer vouch still takes the place of an older one.
    world.send(vouch(2, of(1), 1)).await;
    world.settle().await;
    assert_eq!(rows(&world, "vouches").await, limits::VOUCHES + 1);
    assert_eq!(world.entered("peer_vouched", "success").await, limits::MEMBER_ENTRIES + 1);
    assert_eq!(world.entered("peer_vouched", "refused").await, MORE);
    let peers = world.handle.peers(world.who("sam"), federation()).await.unwrap();
    let trust = peers.iter().find(|peer| peer.site == of(3).site).map(|peer| peer.trust);
    assert_eq!(trust, Some(Trust::VouchedFor));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_studies_than_a_site_keeps_are_refused_in_words() {
    let mut world = World::new().await;
    world.connect().await;
    let plan = small_plan(1);
    let studies: Vec<Study> = (1..).take(limits::STUDIES + MORE + 2).map(|n| study(n, plan.clone())).collect();
    for study in &studies[..limits::STUDIES + MORE] {
        send_study(&world, study).await;
    }
    world.settle().await;
    let kept = async |world: &World| world.handle.requests(world.who("sam")).await.unwrap().len();
    assert_eq!(kept(&world).await, limits::STUDIES);
    assert_eq!(world.entered("request_received", "success").await, limits::STUDIES);
    assert_eq!(world.entered("request_received", "refused").await, MORE);
    let alarms = world.alarms().await;
    assert!(matches!(alarms.as_slice(), [one] if one.contains("limit STUDIES")), "{alarms:?}");
    world.never("anything more", |_| None).await;
    let limited = |message: &&FromSite| match message {
        FromSite::Decision { decision: Decision::Refused(refusal), .. } => refusal.detail.contains("limit STUDIES"),
        _ => false,
    };
    assert_eq!(world.said.iter().filter(limited).count(), MORE, "the coordinator hears why");

    // An hour alone does not help, a decision does.
    world.pass_time(HOUR);
    let [.., before, after] = &studies[..] else { panic!("too few studies") };
    world.offer(before).await;
    assert_eq!(kept(&world).await, limits::STUDIES);
    let refuse = Verdict::Refuse { reason: "there are too many".into() };
    world.handle.decide(world.who("sam"), studies[0].id, refuse).await.unwrap();
    world.offer(after).await;
    assert_eq!(kept(&world).await, limits::STUDIES + 1);
    assert_eq!(world.entered("request_received", "success").await, limits::STUDIES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn studies_that_are_offered_and_taken_back_fill_nothing() {
    let mut world = World::new().await;
    world.connect().await;
    let plan = small_plan(1);
    let studies: Vec<Study> = (1..).take(limits::STUDIES + 2 * MORE).map(|n| study(n, plan.clone())).collect();
    let (first, later) = studies.split_at(limits::STUDIES + MORE);
    for study in first {
        send_study(&world, study).await;
        world.send(ToSite::StudyWithdrawn { study: study.id }).await;
    }
    world.settle().await;
    assert_eq!(world.entered("request_received", "success").await, limits::STUDIES);
    assert_eq!(world.entered("study_withdrawn", "success").await, limits::STUDIES);
    assert_eq!(world.entered("request_received", "refused").await, MORE);
    world.expect_alarm("limit STUDIES").await;
    world.pass_time(HOUR);
    for study in later {
        send_study(&world, study).await;
        world.send(ToSite::StudyWithdrawn { study: study.id }).await;
    }
    world.settle().await;
    assert_eq!(world.entered("request_received", "success").await, limits::STUDIES + MORE);
    assert_eq!(rows(&world, "studies").await, limits::STUDIES + 1, "the oldest are forgotten");
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_from_beyond_the_end_of_the_log_are_one_alarm_and_so_many_entries() {
    let mut world = World::new().await;
    world.connect().await;
    let origin = this_site().public().site_id();
    for size in (1_000_000..).take(limits::WITNESS_ENTRIES + MORE) {
        world.send(ToSite::Witness(Witness::ProveFrom { origin, size })).await;
    }
    world.settle().await;
    assert_eq!(world.entered("witness_failed", "failed").await, limits::WITNESS_ENTRIES);
    let alarms = world.alarms().await;
    assert!(matches!(alarms.as_slice(), [one] if one.contains("the tail of the log is gone")), "{alarms:?}");
    world.pass_time(HOUR);
    expect_summary(&world, "asked for without an entry (limit WITNESS_ENTRIES) 20").await;
}

/// Shows a checkpoint of the log of a member, signed by it.
async fn show_log(world: &World, n: u8, root: &[u8]) {
    let origin = key(n).public().site_id();
    let checkpoint = hospes_ledger::Checkpoint { origin, size: 5, root: Digest::of(root) }.sign(&key(n)).note();
    world.send(ToSite::Witness(Witness::Show { origin, checkpoint, old_size: 0, proof: Vec::new() })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_invented_members_fill_nothing_and_hide_no_verified_one() {
    const VERIFIED: u8 = 199;
    let mut world = World::new().await;
    world.connect().await;
    let invented = 5..=u8::try_from(4 + limits::WITNESS_ENTRIES + MORE).unwrap();
    let mut large = roster(2);
    large.members.extend(invented.clone().chain([VERIFIED]).map(member));
    large.members.sort_by_key(|m| m.site);
    send_roster(&world, large).await;
    world.settle().await;
    world.verify([VERIFIED]).await;
    for n in invented.clone() {
        show_log(&world, n, b"one").await;
    }
    world.settle().await;
    assert_eq!(world.entered("witness_first", "success").await, limits::WITNESS_ENTRIES);
    show_log(&world, VERIFIED, b"one").await;
    world.settle().await;
    assert_eq!(world.entered("witness_first", "success").await, limits::WITNESS_ENTRIES + 1);
    assert_eq!(world.alarms().await, Vec::<String>::new());

    // Each contradicts itself, well signed.
    for n in invented {
        show_log(&world, n, b"two").await;
    }
    world.settle().await;
    assert_eq!(world.entered("witness_failed", "failed").await, limits::WITNESS_ENTRIES);
    assert_eq!(rows(&world, "ledger_contradiction").await, limits::WITNESS_ENTRIES);
    let alarms = world.alarms().await;
    assert_eq!(alarms.len(), limits::WITNESS_ENTRIES + 1);
    assert_eq!(alarms.iter().filter(|a| a.contains("limit WITNESS_ENTRIES")).count(), 1);
    show_log(&world, VERIFIED, b"two").await;
    world.expect_alarm("the log of 'Site 199' contradicts").await;
    assert_eq!(world.entered("witness_failed", "failed").await, limits::WITNESS_ENTRIES + 1);
    assert_eq!(rows(&world, "ledger_contradiction").await, limits::WITNESS_ENTRIES + 1);
    world.pass_time(HOUR);
    expect_summary(&world, "first checkpoint taken without an entry (limit WITNESS_ENTRIES) 20").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn greetings_in_ever_other_epochs_and_at_other_times_are_two_alarms() {
    let mut world = World::new().await;
    world.connect().await;
    for (epoch, minutes) in (2..).zip(6..).take(limits::GREETINGS + MORE) {
        let welcome = Welcome {
            version: Version::V1,
            federation: federation(),
            identity: coordinator().public(),
            at: world.now().plus_millis(minutes * MINUTE),
            epoch,
        };
        world.event(LinkEvent::Connected(welcome)).await;
    }
    world.settle().await;
    assert_eq!(world.entered("settings_changed", "refused").await, limits::GREETINGS);
    assert_eq!(world.entered("clock_anomaly", "refused").await, limits::GREETINGS);
    let alarms = world.alarms().await;
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    assert!(alarms.iter().any(|a| a.contains("restored from a backup")), "{alarms:?}");
    assert!(alarms.iter().any(|a| a.contains("the clocks of this site")), "{alarms:?}");
    // The last one is what is offered.
    let offered = world.handle.status().await.unwrap().memberships[0].epoch_offered;
    assert_eq!(offered, u64::try_from(1 + limits::GREETINGS + MORE).ok());
    world.pass_time(HOUR);
    expect_summary(&world, "greeting in another epoch without an entry (limit GREETINGS) 20").await;
}
