//! Every verb of the store, on SQLite and on PostgreSQL.

use std::time::Duration;

use hospes_coordinator::Error;
use hospes_coordinator::audit::Audit;
use hospes_coordinator::enrol::{create_token, revoke_token};
use hospes_coordinator::store::{
    CertificateRow, Dialect, Role, SiteRow, SiteState, Standing, Store, StudyRow, StudyState, name_key,
};
use hospes_protocol::approval::{Refusal, RefusalCode};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{SiteId, StudyId, Timestamp};
use hospes_protocol::message::Decision;
use hospes_protocol::sign::{SecretKey, Signed};
use hospes_protocol::study::{MemberStatement, Vouch};

use crate::postgres::Postgres;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn federation() -> SiteId {
    key(0).public().site_id()
}

fn row(n: u8, name: &str) -> SiteRow {
    let statement = MemberStatement {
        federation: federation(),
        name: name.into(),
        organisation: format!("Organisation {n}"),
        identity: key(n).public(),
    };
    let signature = key(n).sign(&Canonical::new(statement).unwrap().digest());
    SiteRow {
        site: key(n).public().site_id(),
        name: name.into(),
        organisation: format!("Organisation {n}"),
        identity: key(n).public(),
        statement: signature,
        state: SiteState::Enrolled,
        reason: None,
        enrolled: NOW,
        last_seen: None,
        software: None,
    }
}

async fn put(store: &Store, row: &SiteRow) -> Result<(), Error> {
    let mut tx = store.begin("test").await?;
    tx.put_site(row).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_hold_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = Store::sqlite_url(&folder.path().join("a.db"));
    let store = Store::open(&url).await.unwrap();
    assert_eq!(store.dialect(), Dialect::Sqlite);
    every_verb(&store, &url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_hold_on_postgres() {
    let server = Postgres::start();
    let store = Store::open(&server.url()).await.unwrap();
    assert_eq!(store.dialect(), Dialect::Postgres);
    every_verb(&store, &server.url()).await;
    store.close().await;
}

async fn every_verb(store: &Store, url: &str) {
    sites_names_and_states(store).await;
    certificates_and_standing(store).await;
    rosters_and_vouches(store).await;
    tokens(store).await;
    studies_and_decisions(store).await;
    leases(store).await;
    transactions(store).await;
    opened_again(store, url).await;
}

async fn sites_names_and_states(store: &Store) {
    put(store, &row(1, "Charité  Berlin")).await.unwrap();
    put(store, &row(2, "AP-HP")).await.unwrap();
    assert_eq!(name_key(" Charité \t BERLIN "), name_key("charité-berlin"));
    assert!(put(store, &row(3, "charité berlin")).await.is_err(), "two sites with one name");
    assert!(store.site(key(3).public().site_id()).await.unwrap().is_none());
    let names: Vec<String> = store.sites().await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["AP-HP", "Charité  Berlin"]);
    let one = key(1).public().site_id();
    let mut tx = store.begin("test").await.unwrap();
    assert_eq!(tx.site_named("CHARITÉ BERLIN").await.unwrap().unwrap().site, one);
    tx.site_seen(one, NOW.plus_millis(5), Some("hospes-site 1")).await.unwrap();
    tx.site_seen(one, NOW.plus_millis(9), None).await.unwrap();
    tx.commit().await.unwrap();
    let seen = store.site(one).await.unwrap().unwrap();
    assert_eq!(seen.state, SiteState::Active);
    assert_eq!((seen.last_seen, seen.software.as_deref()), (Some(NOW.plus_millis(9)), Some("hospes-site 1")));
    let mut tx = store.begin("test").await.unwrap();
    tx.set_site_state(one, SiteState::Suspended, Some("audit")).await.unwrap();
    tx.commit().await.unwrap();
    let row = store.site(one).await.unwrap().unwrap();
    assert_eq!((row.state, row.reason.as_deref()), (SiteState::Suspended, Some("audit")));
    let mut tx = store.begin("test").await.unwrap();
    tx.set_site_state(one, SiteState::Active, None).await.unwrap();
    tx.free_name(one).await.unwrap();
    assert!(tx.site_named("Charité Berlin").await.unwrap().is_some(), "the name of an active site was freed");
    tx.commit().await.unwrap();
}

async fn certificates_and_standing(store: &Store) {
    let site = key(2).public().site_id();
    let certificate = |serial: &str, expires: i64| CertificateRow {
        serial: serial.into(),
        site,
        issued: NOW,
        expires: NOW.plus_millis(expires),
        revoked: None,
    };
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_certificate(&certificate("aa", 1_000)).await.unwrap();
    tx.insert_certificate(&certificate("bb", 9_000)).await.unwrap();
    tx.commit().await.unwrap();
    let ask = async |serial: &str, at: i64| store.standing(site, serial, NOW.plus_millis(at)).await.unwrap();
    let refused = |standing: Standing, why: &str| match standing {
        Standing::Refused(reason) => assert!(reason.contains(why), "{reason}"),
        Standing::Good(_) => panic!("a certificate that is {why} was taken"),
    };
    assert!(matches!(ask("aa", 999).await, Standing::Good(row) if row.site == site));
    refused(ask("aa", 1_000).await, "ended");
    refused(ask("cc", 0).await, "did not issue");
    let stranger = key(77).public().site_id();
    refused(store.standing(stranger, "aa", NOW).await.unwrap(), "no site");
    let other = key(1).public().site_id();
    refused(store.standing(other, "aa", NOW).await.unwrap(), "did not issue");
    let mut tx = store.begin("test").await.unwrap();
    assert_eq!(tx.revoke_certificates(site, NOW).await.unwrap(), 2);
    assert_eq!(tx.revoke_certificates(site, NOW).await.unwrap(), 0);
    tx.insert_certificate(&certificate("dd", 9_000)).await.unwrap();
    tx.commit().await.unwrap();
    refused(ask("bb", 0).await, "revoked");
    assert!(matches!(ask("dd", 0).await, Standing::Good(_)));
    assert_eq!(store.certificates(site).await.unwrap().len(), 3);
    for state in [SiteState::Suspended, SiteState::Revoked] {
        let mut tx = store.begin("test").await.unwrap();
        tx.set_site_state(site, state, Some("because")).await.unwrap();
        tx.commit().await.unwrap();
        refused(ask("dd", 0).await, "because");
    }
    let mut tx = store.begin("test").await.unwrap();
    tx.set_site_state(site, SiteState::Active, None).await.unwrap();
    tx.commit().await.unwrap();
}

async fn rosters_and_vouches(store: &Store) {
    assert!(store.roster().await.unwrap().is_none());
    for version in 1..=2 {
        let mut tx = store.begin("test").await.unwrap();
        let made = tx.next_roster(federation(), &key(0), NOW).await.unwrap();
        tx.commit().await.unwrap();
        let kept = store.roster().await.unwrap().unwrap();
        assert_eq!((made.document.version, kept.document.digest()), (version, made.document.digest()));
        assert!(kept.signed_by(&key(0).public()));
        assert!(kept.document.members.iter().all(|m| m.holds(federation())));
        assert!(kept.document.members.is_sorted_by_key(|m| m.site));
        assert_eq!(kept.document.members.len(), 2);
    }
    let vouch = |at: i64| {
        let vouch = Vouch {
            federation: federation(),
            by: key(1).public().site_id(),
            site: key(2).public().site_id(),
            identity: key(2).public(),
            organisation: "Organisation 2".into(),
            at: NOW.plus_millis(at),
        };
        Signed::new(vouch, &key(1)).unwrap()
    };
    for (at, taken) in [(5, true), (4, false), (5, false), (6, true)] {
        let mut tx = store.begin("test").await.unwrap();
        assert_eq!(tx.put_vouch(&vouch(at)).await.unwrap(), taken, "a vouch of {at} ms");
        tx.commit().await.unwrap();
    }
    let kept = store.vouches().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].document.at, NOW.plus_millis(6));
}

async fn tokens(store: &Store) {
    let audit = Audit::default();
    let make = async |name: &str, expires: Option<Timestamp>| {
        create_token(store, &audit, NOW, name, Role::Researcher, expires).await.unwrap()
    };
    let token = make("Ada", Some(NOW.plus_millis(1_000))).await.unwrap();
    assert!(make("Ada", None).await.is_err(), "two tokens with one name");
    let caller = store.caller(&token, NOW).await.unwrap().unwrap();
    assert_eq!((caller.name.as_str(), caller.role), ("Ada", Role::Researcher));
    assert!(store.caller(&token, NOW.plus_millis(1_000)).await.unwrap().is_none(), "an expired token was taken");
    // Any single character altered, and no token at all.
    for at in 0..token.len() {
        let mut altered = token.as_bytes().to_vec();
        altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(store.caller(&altered, NOW).await.unwrap().is_none(), "a token altered at {at} was taken");
    }
    assert!(store.caller("", NOW).await.unwrap().is_none());
    revoke_token(store, &audit, NOW, "Ada").await.unwrap().unwrap();
    assert!(store.caller(&token, NOW).await.unwrap().is_none(), "a revoked token was taken");
    assert!(revoke_token(store, &audit, NOW, "Ada").await.unwrap().is_err());
    make("Ada", None).await.unwrap();
    let names: Vec<String> = store.tokens().await.unwrap().into_iter().map(|t| t.caller.name).collect();
    assert!(names.len() == 2 && names[0] == "Ada" && names[1].starts_with("Ada #"), "{names:?}");
    let mut connection = store.read().await.unwrap();
    let size = hospes_ledger::Ledger::on(&mut *connection).size().await.unwrap();
    assert_eq!(size, 3, "made, revoked, made again: each is in the ledger, refusals of a taken name are not");
}

async fn studies_and_decisions(store: &Store) {
    let (one, two) = (key(1).public().site_id(), key(2).public().site_id());
    let study = StudyId::new(NOW, [1; 10]);
    let row = StudyRow {
        study,
        title: "A study".into(),
        submitted_by: "Ada".into(),
        submitter: uuid::Uuid::from_u128(1),
        submitted: NOW,
        state: StudyState::Offered,
        plan: hospes_protocol::id::Digest::of(b"plan"),
        document: vec![0, 1, 2, 255],
    };
    let mut tx = store.begin("test").await.unwrap();
    tx.insert_study(&row, &[one, two]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.studies().await.unwrap().len(), 1);
    assert_eq!(store.study(study).await.unwrap().unwrap().document, row.document);
    assert_eq!(store.undecided(one).await.unwrap().len(), 1);
    let refused = Decision::Refused(Refusal::new(RefusalCode::Policy, "not with us"));
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.set_decision(study, one, &refused, NOW).await.unwrap());
    assert!(!tx.set_decision(study, key(9).public().site_id(), &refused, NOW).await.unwrap());
    tx.commit().await.unwrap();
    assert!(store.undecided(one).await.unwrap().is_empty());
    let decisions = store.decisions(study).await.unwrap();
    assert!(decisions.is_sorted_by_key(|d| d.site));
    assert_eq!(decisions.iter().find(|d| d.site == one).unwrap().decision, Some(refused));
    assert_eq!(decisions.iter().find(|d| d.site == two).unwrap().decision, None);
    let mut tx = store.begin("test").await.unwrap();
    assert!(tx.withdraw_study(study).await.unwrap());
    assert!(!tx.withdraw_study(study).await.unwrap());
    tx.commit().await.unwrap();
    assert!(store.undecided(two).await.unwrap().is_empty(), "a withdrawn study is still offered");
}

async fn leases(store: &Store) {
    let at = |ms: i64| NOW.plus_millis(ms);
    let one = store.lease_acquire("job/1", "a", at(0), 1_000).await.unwrap().unwrap();
    assert_eq!(store.lease_acquire("job/1", "b", at(999), 1_000).await.unwrap(), None, "two hold one lease");
    assert_eq!(store.lease_acquire("job/1", "a", at(500), 1_000).await.unwrap().unwrap().fence, one.fence);
    let two = store.lease_acquire("job/1", "b", at(1_500), 1_000).await.unwrap().unwrap();
    assert!(two.fence > one.fence);
    assert!(!store.lease_renew(&one, at(1_600), 1_000).await.unwrap(), "a lost lease was renewed");
    assert!(store.lease_renew(&two, at(1_600), 1_000).await.unwrap());
    store.lease_release(&one).await.unwrap();
    assert_eq!(store.lease_acquire("job/1", "c", at(1_700), 1).await.unwrap(), None, "a stranger gave a lease back");
    store.lease_release(&two).await.unwrap();
    assert!(store.lease_acquire("job/1", "c", at(1_700), 1).await.unwrap().is_some());
    // Many at once: exactly one gets it.
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.lease_acquire("job/2", &format!("h{n}"), NOW, 1_000).await.unwrap() })
        })
        .collect();
    let mut holders = 0;
    for task in tasks {
        holders += usize::from(task.await.unwrap().is_some());
    }
    assert_eq!(holders, 1);
}

async fn transactions(store: &Store) {
    let mut tx = store.begin("test").await.unwrap();
    tx.set_meta("colour", "red").await.unwrap();
    drop(tx);
    assert_eq!(store.meta("colour").await.unwrap(), None, "a dropped transaction stayed");
    // Writers wait for each other, and none is lost.
    let mut tx = store.begin("test").await.unwrap();
    tx.set_meta("count", "0").await.unwrap();
    tx.commit().await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut tx = store.begin("test").await.unwrap();
                let count: u32 = store.meta("count").await.unwrap().unwrap().parse().unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                tx.set_meta("count", &(count + 1).to_string()).await.unwrap();
                tx.commit().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.meta("count").await.unwrap().as_deref(), Some("20"));
    store.ping().await.unwrap();
}

/// A second process on the same database: it sees what is there, and its writers wait for the first's.
async fn opened_again(store: &Store, url: &str) {
    let second = Store::open(url).await.unwrap();
    assert_eq!(second.meta("count").await.unwrap().as_deref(), Some("20"));
    let mut tx = store.begin("test").await.unwrap();
    tx.set_meta("owner", "first").await.unwrap();
    let other = second.clone();
    let waiting = tokio::spawn(async move {
        let mut tx = other.begin("test").await.unwrap();
        tx.set_meta("owner", "second").await.unwrap();
        tx.commit().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "two write transactions at the same time");
    tx.commit().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(store.meta("owner").await.unwrap().as_deref(), Some("second"));
    second.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_or_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = Store::sqlite_url(&folder.path().join("a.db"));
    let store = Store::open(&url).await.unwrap();
    let mut tx = store.begin("test").await.unwrap();
    sqlx::query("INSERT INTO migrations (number, name, digest) VALUES (999, 'later', '')")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    store.close().await;
    let error = Store::open(&url).await.err().expect("a newer database was opened");
    assert!(matches!(&error, Error::Schema(reason) if reason.contains("newer version")), "{error}");
    assert!(Store::open("mysql://x").await.is_err());
}

#[tokio::test]
async fn a_database_that_is_gone_or_empty_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let url = Store::sqlite_url(&path);
    let refused = async |what: &str| {
        let error = Store::open_existing(&url).await.err().expect(what).to_string();
        assert!(error.contains("missing or empty") && error.contains("backup"), "{error}");
    };
    refused("a missing database was made anew").await;
    assert!(!path.exists());
    std::fs::write(&path, b"").unwrap();
    refused("an empty file was taken for a database").await;
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    Store::open(&url).await.unwrap().close().await;
    Store::open_existing(&url).await.unwrap().close().await;
}

#[tokio::test]
async fn a_truncated_database_is_refused_and_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = Store::open(&Store::sqlite_url(&path)).await.unwrap();
    store.close().await;
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let start = std::time::Instant::now();
    let error = Store::open(&Store::sqlite_url(&path)).await.err().expect("half a database was taken for a whole one");
    assert!(matches!(error, Error::Database { .. } | Error::Corrupt { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?} to say so", start.elapsed());
}
