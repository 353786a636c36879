//! The audit log as files, and what retention leaves of it.

use sqlx::Connection as _;

use super::*;
use crate::error::PartyError;
use crate::view::AuditExport;

/// A site with one update that left.
async fn with_an_update() -> World {
    let mut world = World::new().await;
    let study = world.running(small_plan(1)).await;
    let header = header(&study, job(1), "train", 1, 1, world.now());
    world.open_round(header.clone()).await;
    world.serve_model(&study).await;
    let (upload, path) = world.expect_upload().await;
    world.may_leave(&upload).await.unwrap();
    world.take(&upload, &path).await;
    world.acknowledge(&upload).await;
    world.settle().await;
    world
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_log_is_entered_with_its_digest_and_never_stands_in_another_files_place() {
    let world = with_an_update().await;
    let place = tempfile::tempdir().unwrap();
    for (n, format) in AuditFormat::ALL.iter().enumerate() {
        let path = place.path().join(format!("log.{format}"));
        let export = world.handle.export_audit_as(world.who("odo"), None, *format, path.clone()).await.unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let expected = AuditExport {
            format: *format,
            entries: export.entries,
            bytes: bytes.len() as u64,
            digest: Digest::of(&bytes),
            finding: None,
        };
        assert_eq!(export, expected);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(world.entered("audit_exported", "success").await, n + 1);
        let entry = entry_of_export(&world).await;
        for part in [format.as_str(), &export.digest.to_string(), &format!("{} entries", export.entries)] {
            assert!(entry.contains(part), "{part} is missing in {entry}");
        }
        let again = world.handle.export_audit_as(world.who("odo"), None, *format, path.clone()).await;
        assert!(matches!(again, Err(PartyError::File { .. })), "{again:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    let mut names: Vec<String> = AuditFormat::ALL.iter().map(|f| format!("log.{f}")).collect();
    names.sort();
    assert_eq!(files(place.path()), names, "something else is left");
    world.assert_ledger_intact().await;
}

/// A window asks for a page as a session that looks on, like for everything that it shows.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_log_is_entered_before_it_is_shown_once_after_a_log_in_and_once_an_hour() {
    let world = World::new().await;
    let read = async |name: &str| {
        let mut session = world.who(name).clone();
        session.looks_on(true);
        let query = crate::view::AuditQuery { limit: 1_000, ..Default::default() };
        let lines = world.handle.audit(&session, query).await.unwrap().entries;
        let viewed =
            |who: &str| lines.iter().filter(|l| l.action == "audit_viewed" && l.actor.starts_with(who)).count();
        (viewed("odo"), viewed("pia"))
    };
    assert_eq!(read("odo").await, (1, 0), "a page shows the entry about itself");
    assert_eq!(read("odo").await, (1, 0));
    assert_eq!(read("pia").await, (1, 1));
    world.pass_time(60 * MINUTE - 1);
    assert_eq!(read("odo").await, (1, 1));
    world.pass_time(1);
    assert_eq!(read("odo").await, (2, 1));
    world.handle.log_in("odo".into(), pass("odo")).await.unwrap();
    assert_eq!((read("odo").await, read("odo").await), ((3, 1), (3, 1)));
    // Where it cannot be entered, nothing is shown.
    let mut conn =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", world.config.database().display())).await.unwrap();
    let full = "CREATE TRIGGER no_room BEFORE INSERT ON ledger_entry BEGIN SELECT RAISE(ABORT, 'full'); END";
    sqlx::query(full).execute(&mut conn).await.unwrap();
    let refused = world.handle.audit(world.who("sam"), Default::default()).await;
    assert!(refused.is_err(), "it was shown, and nobody will know");
    sqlx::query("DROP TRIGGER no_room").execute(&mut conn).await.unwrap();
    world.handle.audit(world.who("sam"), Default::default()).await.unwrap();
    world.assert_ledger_intact().await;
}

/// The written form of the newest entry about an export.
async fn entry_of_export(world: &World) -> String {
    let mut conn =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", world.config.database().display())).await.unwrap();
    sqlx::query_scalar("SELECT fields FROM ledger_entry WHERE action = 'audit_exported' ORDER BY sequence DESC LIMIT 1")
        .fetch_one(&mut conn)
        .await
        .unwrap()
}

/// The questions of an audit, answered from what a site really writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_exports_of_a_site_answer_who_approved_for_what_and_what_left() {
    let world = with_an_update().await;
    let place = tempfile::tempdir().unwrap();
    let text = async |format: AuditFormat| {
        let path = place.path().join(format.as_str());
        world.handle.export_audit_as(world.who("pia"), None, format, path.clone()).await.unwrap();
        std::fs::read_to_string(path).unwrap()
    };
    let html = text(AuditFormat::Html).await;
    for words in [
        "sam (",
        "data steward",
        "ava (",
        "approval countersigned",
        "Learn a model of heart disease from routine findings.",
        "Cleveland",
        "PUBLIC DATA",
        "Heart Federation",
        "The log is whole",
    ] {
        assert!(html.contains(words), "{words} is missing");
    }
    let egress = world.handle.egress(world.who("pia"), Page::default()).await.unwrap();
    assert!(html.contains(&format!("Left in all</dt><dd>1 times, {} bytes", egress[0].bytes)));
    let native = text(AuditFormat::JsonLines).await;
    let signed = native.lines().find(|line| line.contains("\"approval_countersigned\"")).unwrap();
    assert!(signed.contains("for: Heart disease risk [DUO:0000006]"), "the log alone says for what: {signed}");
    let used = text(AuditFormat::DataUse).await;
    assert!(used.contains(&format!("1 times, {} bytes", egress[0].bytes)) && used.contains("in force"), "{used}");
    let permissions = text(AuditFormat::FhirPermission).await;
    assert!(permissions.contains("\"status\":\"active\""), "{permissions}");
    let siem = text(AuditFormat::Cef).await;
    assert!(
        !siem.contains("Cleveland") && !siem.contains("sam (") && siem.contains("act=update_sent"),
        "it gets ids only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_log_that_was_tampered_with_there_is_the_evidence_and_no_report() {
    let world = with_an_update().await;
    let mut conn =
        sqlx::SqliteConnection::connect(&format!("sqlite://{}", world.config.database().display())).await.unwrap();
    let changed = "UPDATE ledger_entry SET fields = replace(fields, 'DUO:0000006', 'DUO:0000042') WHERE action = 'approval_signed'";
    assert_eq!(sqlx::query(changed).execute(&mut conn).await.unwrap().rows_affected(), 1);
    let place = tempfile::tempdir().unwrap();
    for format in AuditFormat::ALL {
        let path = place.path().join(format.as_str());
        match world.handle.export_audit_as(world.who("odo"), None, *format, path.clone()).await {
            Ok(export) => {
                assert_eq!(*format, AuditFormat::JsonLines);
                assert!(export.finding.is_some_and(|finding| finding.contains("entry")));
                assert!(entry_of_export(&world).await.contains("NOT intact"));
                let file = std::fs::read(path).unwrap();
                let report = hospes_ledger::verify(&mut file.as_slice(), &Default::default()).unwrap();
                assert!(!report.is_intact());
            }
            Err(error) => assert!(error.to_string().contains("not intact"), "{format}: {error}"),
        }
    }
    assert_eq!(files(place.path()), ["jsonl"]);
}

/// The site says what was erased under the rule of 36 months, and calls no log intact in which whoever holds the database
/// put another rule in its place.
async fn assert_the_rule_is_told(world: &World) {
    let said = world.handle.verify_audit(world.who("ana")).await.unwrap();
    assert_eq!(said[0], crate::view::LOG_IS_INTACT, "{said:?}");
    assert!(said[1].contains("erased in part under retention 36 months"), "{said:?}");
    let database = format!("sqlite://{}", world.config.database().display());
    let mut conn = sqlx::SqliteConnection::connect(&database).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut before = "retention 36 months";
    let acknowledge = async || {
        for alarm in world.handle.status().await.unwrap().alarms {
            world.handle.acknowledge(world.who("odo"), alarm.id).await.unwrap();
        }
    };
    for (rule, first) in [
        ("retention 12 months", "NOT intact"),
        ("lost in a fire", "cannot be told"),
        ("retention 36 months", "is intact"),
    ] {
        let change = sqlx::query("UPDATE ledger_entry SET fields = replace(fields, ?1, ?2)")
            .bind(format!("{{\"erased\":\"{before}\""))
            .bind(format!("{{\"erased\":\"{rule}\""));
        change.execute(&mut conn).await.unwrap();
        before = rule;
        // What was found before is looked into.
        acknowledge().await;
        let said = world.handle.verify_audit(world.who("ana")).await.unwrap();
        assert!(said[0].contains(first), "{rule}: {said:?}");
        let path = place.path().join(format!("{rule}.html"));
        let made = world.handle.export_audit_as(world.who("odo"), None, AuditFormat::Html, path.clone()).await;
        assert_eq!(made.is_err(), first == "NOT intact", "{rule}: {made:?}");
        if made.is_ok() {
            let page = std::fs::read_to_string(path).unwrap();
            assert_eq!(page.contains("IN DOUBT"), first == "cannot be told", "{rule}");
            assert_eq!(page.contains("none was changed"), first == "is intact", "{rule}");
        }
    }
    conn.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_entries_are_erased_under_the_rule_that_two_people_set_and_every_proof_holds() {
    let mut world = with_an_update().await;
    let handle = world.handle.clone();
    assert_eq!(handle.audit_retention(world.who("ana")).await.unwrap(), None);
    let too_short = handle.set_audit_retention(world.who("ana"), Some(11), pass("ana")).await;
    assert!(matches!(too_short, Err(PartyError::Input { .. })), "{too_short:?}");
    let denied = handle.set_audit_retention(world.who("odo"), Some(24), pass("odo")).await;
    assert!(matches!(denied, Err(PartyError::Denied { .. })), "{denied:?}");
    let set = handle.set_audit_retention(world.who("ana"), Some(24), pass("ana")).await.unwrap();
    let Outcome::Proposed(proposal) = set else { panic!("one person shortened the log: {set:?}") };
    assert!(proposal.words.contains("24 months"), "{}", proposal.words);
    assert_eq!(handle.audit_retention(world.who("ana")).await.unwrap(), None);
    handle.answer_proposal(world.who("sam"), proposal.id, true, None, pass("sam")).await.unwrap();
    assert_eq!(handle.audit_retention(world.who("ana")).await.unwrap(), Some(24));
    // Keeping them longer takes nothing away.
    let longer = handle.set_audit_retention(world.who("ana"), Some(36), pass("ana")).await.unwrap();
    assert_eq!(longer, Outcome::Done { code: None });
    let before = world.ledger().await.len();
    world.pass_time(30 * 31 * DAY);
    world.settle().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(world.entered("audit_erased", "success").await, 0, "nothing is 36 months old yet");
    world.pass_time(10 * 31 * DAY);
    for _ in 0..200 {
        if world.entered("audit_erased", "success").await > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.entered("audit_erased", "success").await, 1);
    world.log_everybody_in().await;
    let query = crate::view::AuditQuery { before: Some(before as u64), limit: 1_000, ..Default::default() };
    let page = world.handle.audit(world.who("ana"), query).await.unwrap();
    assert_eq!(page.entries.len(), before);
    for line in page.entries {
        assert_eq!(line.actor, "erased under rule retention 36 months", "{line:?}");
        assert!(line.action != line.actor && line.outcome != line.actor && line.bytes.is_none(), "{line:?}");
        assert!(line.at.as_millis() >= START);
    }
    world.assert_ledger_intact().await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("log.csv");
    world.handle.export_audit_as(world.who("odo"), None, AuditFormat::Csv, path.clone()).await.unwrap();
    let table = std::fs::read_to_string(path).unwrap();
    assert!(table.contains("erased under rule retention 36 months") && !table.contains("Heart disease risk"));
    assert_the_rule_is_told(&world).await;
    // What was erased is nowhere in the files of the database.
    world.handle.shut_down().await.unwrap();
    for file in ["site.db", "site.db-wal"] {
        let bytes = std::fs::read(world.config.folder.join(file)).unwrap_or_default();
        let gone = b"for: Heart disease risk";
        assert!(!bytes.windows(gone.len()).any(|window| window == gone), "{file} still has it");
    }
}
