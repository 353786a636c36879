//! What is seen by whom, in pages; and what a coordinator can make the people here believe.

use hospes_protocol::approval::Trust;
use hospes_protocol::message::Witness;
use hospes_protocol::policy::LocalViews;
use sqlx::Connection as _;

use super::*;
use crate::error::PartyError;
use crate::view::WitnessState;

/// A site that has trained one round.
async fn trained() -> (World, Study) {
    let mut world = World::new().await;
    world.add_person("xara", Role::DataAccessApprover, Some("Data access committee")).await;
    let (study, _) = world.first_round(small_plan(1)).await;
    (world, study)
}

/// The database, for what a test cannot ask the engine for.
pub(super) async fn database(world: &World) -> sqlx::SqliteConnection {
    let path = world.config.database();
    sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_in_full_are_for_the_people_of_this_site_who_decide() {
    let (world, _study) = trained().await;
    let h = &world.handle;
    let job_of = |who| h.job(world.who(who), job(1), Page::default());
    for who in ["sam", "ava", "pia"] {
        assert!(job_of(who).await.unwrap().rounds[0].view.is_some(), "{who}");
    }
    for who in ["ana", "odo", "xara"] {
        let denied = job_of(who).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{who}: {denied:?}");
    }
    let listed = h.jobs(world.who("xara"), Page::default()).await;
    assert!(matches!(listed, Err(PartyError::Denied { .. })), "{listed:?}");
    for who in ["ana", "odo"] {
        let listed = h.jobs(world.who(who), Page::default()).await.unwrap();
        assert!(listed[0].rounds.iter().all(|r| r.view.is_none()), "{who}");
    }
    let dataset = h.datasets(world.who("sam")).await.unwrap()[0].id;
    h.profile(world.who("ava"), dataset).await.unwrap();
    let denied = h.profile(world.who("xara"), dataset).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    // On disk they are sealed, as the profile is.
    let view: Vec<u8> =
        sqlx::query_scalar("SELECT view FROM rounds").fetch_one(&mut database(&world).await).await.unwrap();
    assert!(!view.windows(4).any(|w| w == b"loss"), "{}", String::from_utf8_lossy(&view));
    // And where screens are shared, nobody sees them.
    let mut policy = Policy::public_data();
    policy.disclosure.local_views = LocalViews::Suppressed;
    world.set_policy(&policy).await;
    assert!(job_of("sam").await.unwrap().rounds[0].view.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_come_in_pages() {
    let (world, _study) = trained().await;
    let mut database = database(&world).await;
    for n in 2..=61u8 {
        sqlx::query("INSERT INTO jobs SELECT ?1, study, plan, 'success', reason, model, 'none', released, at + ?2, dataset FROM jobs WHERE job = ?3")
            .bind(job(n).to_string())
            .bind(i64::from(n))
            .bind(job(1).to_string())
            .execute(&mut database)
            .await
            .unwrap();
        for table in ["rounds", "outbox"] {
            let columns = if table == "rounds" {
                "header, approval, deadline, state, 1, view, at"
            } else {
                "kind, digest, bytes, subjects, state, left_at, public, receipt, at, ended, masked"
            };
            let sql = format!(
                "INSERT INTO {table} SELECT job, task, epoch, round + ?1, attempt, {columns} FROM {table} WHERE job = ?2 AND round = 1"
            );
            let insert = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(i64::from(n)).bind(job(1).to_string());
            insert.execute(&mut database).await.unwrap();
        }
    }
    let h = &world.handle;
    let (sam, next) = (world.who("sam"), Page { skip: 50 });
    let newest = h.jobs(sam, Page::default()).await.unwrap();
    assert_eq!((newest.len(), newest[0].job), (50, job(61)));
    let older = h.jobs(sam, next).await.unwrap();
    assert_eq!((older.len(), older[10].job), (11, job(1)));
    let first = h.job(sam, job(1), Page::default()).await.unwrap();
    assert_eq!((first.rounds.len(), first.rounds_in_all), (50, 61));
    assert_eq!(h.job(sam, job(1), next).await.unwrap().rounds.len(), 11);
    assert_eq!(h.egress(sam, Page::default()).await.unwrap().len(), 50);
    assert_eq!(h.egress(sam, next).await.unwrap().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_cannot_make_up_contradictions() {
    let mut world = World::new().await;
    world.connect().await;
    let site = |n: u8| key(n).public().site_id();
    let tell = |origin, witness, detail: String| ToSite::Witness(Witness::Contradiction { origin, witness, detail });
    // Of another's log, from somebody who is no member, or in this site's own name: nothing is kept.
    world.send(tell(site(2), site(3), "forked".into())).await;
    world.send(tell(federation(), site(3), "forked".into())).await;
    world.send(tell(site(1), site(77), "forked".into())).await;
    world.send(tell(site(1), site(1), "forked".into())).await;
    world.settle().await;
    assert_eq!((world.alarms().await.len(), world.entered("witness_failed", "failed").await), (0, 0));
    // Of this site's log it is the coordinator's word, and said so.
    world.send(tell(site(1), site(2), "the tail is gone".into())).await;
    world.expect_alarm("the tail is gone").await;
    let alarms = world.alarms().await;
    assert!(
        matches!(alarms.as_slice(), [a] if a.starts_with("the coordinator says that 'Site 2' says") && a.contains("Nothing proves")),
        "{alarms:?}"
    );
    let page = world
        .handle
        .audit(world.who("ana"), crate::view::AuditQuery { limit: 50, ..Default::default() })
        .await
        .unwrap();
    let entry = page.entries.iter().find(|e| e.action == "witness_failed").unwrap();
    assert!(entry.actor.starts_with("coordinator"), "{entry:?}");
    // And it is heard so often only.
    for n in 0..100 {
        world.send(tell(site(1), site(2), format!("made up {n}"))).await;
    }
    // What a link says is heard in order: when this is known, all before it was heard.
    world.event(LinkEvent::Stopped { reason: "the last word".into() }).await;
    world.expect_alarm("the last word").await;
    assert_eq!(world.entered("witness_failed", "failed").await, 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_checkpoints_do_not_hide_a_fork() {
    let mut world = World::new().await;
    world.connect().await;
    let show = |size: u64, root: &[u8]| {
        let checkpoint = hospes_ledger::Checkpoint { origin: federation(), size, root: Digest::of(root) };
        let checkpoint = checkpoint.sign(&coordinator()).note();
        ToSite::Witness(Witness::Show { origin: federation(), checkpoint, old_size: 0, proof: Vec::new() })
    };
    world.send(show(5, b"one")).await;
    for n in 0..100 {
        let checkpoint = format!("no checkpoint {n}");
        let made_up = Witness::Show { origin: federation(), checkpoint, old_size: 0, proof: Vec::new() };
        world.send(ToSite::Witness(made_up)).await;
    }
    world.send(show(5, b"two")).await;
    world.expect_alarm("two different ledgers of 5 entries were shown").await;
    assert!(world.entered("witness_failed", "failed").await <= 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_on_contradicting_itself_is_one_alarm_until_somebody_acknowledged_it() {
    let mut world = World::new().await;
    world.connect().await;
    let show = |size: u64| {
        let root = Digest::of(&size.to_be_bytes());
        let checkpoint = hospes_ledger::Checkpoint { origin: federation(), size, root }.sign(&coordinator()).note();
        ToSite::Witness(Witness::Show { origin: federation(), checkpoint, old_size: 5, proof: Vec::new() })
    };
    for size in 5..10 {
        world.send(show(size)).await;
    }
    world.settle().await;
    let alarms = world.handle.status().await.unwrap().alarms;
    assert!(matches!(alarms.as_slice(), [a] if a.words.contains("the 6 entries shown")), "{alarms:?}");
    assert_eq!(world.entered("witness_failed", "failed").await, 4, "the log has each");
    world.handle.acknowledge(world.who("ana"), alarms[0].id).await.unwrap();
    world.send(show(10)).await;
    world.expect_alarm("the 10 entries shown").await;
}

/// A checkpoint of the coordinator's log, cosigned by these members.
async fn show(world: &World, cosigned_by: &[u8]) {
    let root = Digest::of(b"its entries");
    let checkpoint = hospes_ledger::Checkpoint { origin: federation(), size: 5, root };
    let note = checkpoint.sign(&coordinator()).note();
    let shown = Witness::Show { origin: federation(), checkpoint: note, old_size: 0, proof: Vec::new() };
    world.send(ToSite::Witness(shown)).await;
    for n in cosigned_by {
        let cosignature = checkpoint.cosign(&key(*n), world.now()).line();
        let witness = key(*n).public().site_id();
        let cosigned = Witness::Cosigned { origin: federation(), size: 5, witness, cosignature };
        world.send(ToSite::Witness(cosigned)).await;
    }
    world.settle().await;
}

/// Has the coordinator cosign this site's log, as it was shown last.
async fn cosign(world: &mut World) {
    world.event(LinkEvent::Disconnected { reason: "a test".into(), retry_in: Duration::ZERO }).await;
    world.connect().await;
    cosign_shown(world, [coordinator()]).await;
}

/// Has these cosign this site's log, as it shows it now.
async fn cosign_shown(world: &mut World, witnesses: impl IntoIterator<Item = SecretKey>) {
    let note = world
        .expect("a checkpoint", |c| match c {
            LinkCommand::Send(FromSite::Witness(Witness::Show { checkpoint, .. })) => Some(checkpoint.clone()),
            _ => None,
        })
        .await;
    let checkpoint = *hospes_ledger::SignedCheckpoint::read(&note).unwrap().checkpoint();
    let (origin, size) = (this_site().public().site_id(), checkpoint.size);
    for witness in witnesses {
        let cosignature = checkpoint.cosign(&witness, world.now()).line();
        let witness = witness.public().site_id();
        world.send(ToSite::Witness(Witness::Cosigned { origin, size, witness, cosignature })).await;
    }
    world.settle().await;
}

/// How a log is witnessed.
async fn log_of(world: &World, origin: SiteId) -> WitnessState {
    let witnessed = world.handle.status().await.unwrap().ledger.witnessed;
    witnessed.into_iter().find(|log| log.origin == origin).expect("nobody witnesses this log")
}

/// Tells the site of members up to this number; all after the fourth are made up, and their keys the coordinator's.
async fn invent(world: &World, last: u8) {
    let mut invented = roster(2);
    invented.members.extend((5..=last).map(member));
    invented.members.sort_by_key(|m| m.site);
    world.send(ToSite::Roster(Box::new(Signed::new(invented, &coordinator()).unwrap()))).await;
    world.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_shown_again_and_again_but_never_settled_is_an_alarm() {
    let mut world = World::new().await;
    world.verify(2..=4).await;
    world.connect().await;
    for _ in 0..25 {
        show(&world, &[]).await;
        cosign(&mut world).await;
        world.pass_time(60 * MINUTE);
    }
    world.expect_alarm("too few members cosigned the coordinator's log").await;
    assert!(!world.alarms().await.iter().any(|a| a.contains("nobody cosigned this site's log")));
    assert_eq!(world.entered("witness_late", "failed").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_shows_nothing_and_cosigns_nothing_is_an_alarm() {
    let mut world = World::new().await;
    world.verify(2..=4).await;
    world.connect().await;
    world.pass_time(25 * 60 * MINUTE);
    world.expect_alarm("too few members cosigned the coordinator's log").await;
    world.expect_alarm("nobody cosigned this site's log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_log_and_a_cosigned_one_are_no_alarm() {
    let mut world = World::new().await;
    world.verify([2, 3]).await;
    world.connect().await;
    for _ in 0..25 {
        show(&world, &[2, 3]).await;
        cosign(&mut world).await;
        world.pass_time(60 * MINUTE);
    }
    // Several looks.
    for _ in 0..3 {
        world.pass_time(MINUTE);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(world.alarms().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_members_settle_nothing() {
    let mut world = World::new().await;
    world.verify(2..=4).await;
    world.connect().await;
    invent(&world, 104).await;
    show(&world, &(5..=104).collect::<Vec<u8>>()).await;
    let log = log_of(&world, federation()).await;
    assert!(!log.settled && log.words.contains("101 of 103 needed members"), "{log:?}");
    assert!(log.words.contains("100 members count as invented"), "{log:?}");
    assert_eq!(log.witnesses, 1, "this site alone is somebody: {log:?}");
    for _ in 0..25 {
        show(&world, &[]).await;
        world.pass_time(60 * MINUTE);
    }
    world.expect_alarm("members that only the coordinator knows may be invented").await;
    assert!(!log_of(&world, federation()).await.settled);
    // With two of the three that were verified, no other hospital can have settled another log.
    show(&world, &[2, 3]).await;
    let log = log_of(&world, federation()).await;
    assert!(log.settled, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_members_cannot_make_this_sites_log_seem_altered() {
    let mut world = World::new().await;
    world.verify([2]).await;
    world.connect().await;
    invent(&world, 199).await;
    // A note with very many signatures is read by nobody; that of a member who was verified has room all the same.
    cosign_shown(&mut world, (5..=199).chain([2]).map(key)).await;
    let kept: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM ledger_cosignature WHERE origin = ?1")
        .bind(this_site().public().site_id().to_string())
        .fetch_one(&mut database(&world).await)
        .await
        .unwrap();
    assert_eq!(kept, 129);
    assert_eq!(log_of(&world, this_site().public().site_id()).await.witnesses, 1);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_members_are_no_independent_witnesses() {
    let mut world = World::new().await;
    world.verify([2]).await;
    world.connect().await;
    invent(&world, 10).await;
    cosign_shown(&mut world, [2, 5, 6, 7, 8, 9, 10].map(key)).await;
    let log = log_of(&world, this_site().public().site_id()).await;
    assert_eq!((log.witnesses, log.settled), (1, false), "{log:?}");
    let said = world.handle.verify_audit(world.who("ana")).await.unwrap();
    assert!(said.iter().any(|words| words.starts_with("1 independent witnesses cosigned it")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_not_settled_before_any_member_is_verified_and_it_says_what_to_do() {
    let mut world = World::new().await;
    world.connect().await;
    show(&world, &[2, 3, 4]).await;
    let log = log_of(&world, federation()).await;
    assert!(!log.settled && log.words.contains("Compare words with them"), "{log:?}");
    world.pass_time(25 * 60 * MINUTE);
    world.expect_alarm("Compare words with them").await;
    assert!(!world.alarms().await.iter().any(|a| a.contains("too few members cosigned the coordinator's log")));
    // The cosignatures are there; once their keys are known from elsewhere, they count.
    world.verify([2, 3]).await;
    let log = log_of(&world, federation()).await;
    assert!(log.settled, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_name_that_comes_back_with_another_key_is_an_alarm() {
    let mut world = World::new().await;
    world.connect().await;
    let words = hospes_protocol::words::of_key(&key(2).public());
    let site = key(2).public().site_id();
    world.handle.verify_peer(world.who("ana"), federation(), site, words).await.unwrap();
    let mut without = roster(2);
    without.members.retain(|m| m.site != site);
    world.send(ToSite::Roster(Box::new(Signed::new(without, &coordinator()).unwrap()))).await;
    world.settle().await;
    assert_eq!(world.alarms().await, Vec::<String>::new());
    // Under the same name, with its own good statement, but of another key.
    let mut back = roster(3);
    back.members.retain(|m| m.site != site);
    let identity = key(66);
    let statement = MemberStatement {
        federation: federation(),
        name: "Site 2".into(),
        organisation: "Hospital 2".into(),
        identity: identity.public(),
    };
    let signature = identity.sign(&Canonical::new(statement.clone()).unwrap().digest());
    back.members.push(Member {
        site: identity.public().site_id(),
        name: statement.name,
        organisation: statement.organisation,
        identity: identity.public(),
        statement: signature,
    });
    back.members.sort_by_key(|m| m.site);
    world.send(ToSite::Roster(Box::new(Signed::new(back, &coordinator()).unwrap()))).await;
    world.settle().await;
    world.expect_alarm("'Site 2', whose key was verified here, has another key now").await;
    let peers = world.handle.peers(world.who("ana"), federation()).await.unwrap();
    assert!(peers.len() == 3 && peers.iter().all(|p| p.trust == Trust::AssertedOnly), "{peers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_name_with_another_key_is_an_alarm_also_where_the_site_joins_again() {
    let world = World::new().await;
    world.verify([2]).await;
    let mut changed = roster(2);
    changed.members.retain(|m| m.name != "Site 2");
    let mut other = member(9);
    other.name = "Site 2".into();
    let statement = MemberStatement {
        federation: federation(),
        name: other.name.clone(),
        organisation: other.organisation.clone(),
        identity: other.identity,
    };
    other.statement = key(9).sign(&Canonical::new(statement).unwrap().digest());
    changed.members.push(other);
    changed.members.sort_by_key(|m| m.site);
    let enrolled = Enrolled {
        url: "https://coordinator.example".into(),
        federation: federation(),
        name: "Heart Federation".into(),
        site: this_site().public().site_id(),
        site_name: "Site 1".into(),
        coordinator: coordinator().public(),
        ca_pem: "ca".into(),
        chain_pem: "chain".into(),
        key_pem: Zeroizing::new("key".into()),
        roster: Signed::new(changed, &coordinator()).unwrap(),
    };
    let (session, joined) = (world.who("ana").clone(), Joined::by_hand(enrolled, "Hospital 1", this_site()));
    world.handle.ask(move |e| e.join(session, joined).boxed()).await.unwrap();
    world.expect_alarm("'Site 2', whose key was verified here, has another key now").await;
    assert_eq!(world.entered("peer_revoked", "success").await, 1);
    let peers = world.handle.peers(world.who("ana"), federation()).await.unwrap();
    assert!(peers.iter().any(|p| p.name == "Site 2" && p.revoked.is_some()), "{peers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_members_that_were_removed_again_are_no_independent_witnesses() {
    let mut world = World::new().await;
    world.verify([2]).await;
    world.connect().await;
    invent(&world, 10).await;
    cosign_shown(&mut world, [2, 5, 6, 7, 8, 9, 10].map(key).into_iter().chain([coordinator()])).await;
    let own = this_site().public().site_id();
    assert_eq!(log_of(&world, own).await.witnesses, 2, "the coordinator and the one that was verified");
    world.send(ToSite::Roster(Box::new(Signed::new(roster(3), &coordinator()).unwrap()))).await;
    world.settle().await;
    let log = log_of(&world, own).await;
    assert_eq!((log.witnesses, log.settled), (2, false), "{log:?}");
}
