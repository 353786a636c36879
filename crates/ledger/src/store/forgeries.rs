//! What somebody can do who holds the database, the key and the export, and what shows it.

use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::sign::SecretKey;

use super::tests::{
    ERASURE_RULE, LATER, T0, check, entries, erased_at, export, export_at, fresh, key, lines, run, shown_to_witness,
    sqlite,
};
use super::{Erasure, Ledger};
use crate::leaf::Field;
use crate::verify::{FindingKind, Report};
use crate::{Entry, Expectations, LedgerError, ObjectKind, Retention};

/// Whoever holds the database and the key can write a good-looking export of another history; only what others saw
/// shows it.
#[test]
fn a_fork_and_a_cut_ledger_are_found_against_a_checkpoint_that_a_peer_saw() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        Ledger::on(&mut connection).append_all(&entries(0..300), &[1; 32]).await.unwrap();
        let at = Timestamp::from_millis(T0);
        let note = Ledger::on(&mut connection).checkpoint(&key(1), at).await.unwrap().note();
        let known = Expectations { known: vec![note], ..Expectations::default() };
        Ledger::on(&mut connection).append_all(&entries(300..400), &[2; 32]).await.unwrap();
        let good = check(&export(&mut connection).await, &known);
        assert!(good.is_intact());
        assert_eq!(good.known_found, 1);
        for (size, kind, entry) in [(400, FindingKind::Forked, 299), (280, FindingKind::Truncated, 280)] {
            let (_folder, mut forked) = fresh().await;
            Ledger::on(&mut forked).append_all(&entries(0..size), &[7; 32]).await.unwrap();
            let bytes = export(&mut forked).await;
            assert!(check(&bytes, &Expectations::default()).is_intact());
            let finding = check(&bytes, &known).finding.unwrap();
            assert_eq!((finding.kind, finding.entry), (kind, Some(entry)), "{finding}");
        }
        let other = Expectations { origins: vec![key(5).public()], ..Expectations::default() };
        assert_eq!(check(&export(&mut connection).await, &other).finding.unwrap().kind, FindingKind::Signature);
        let foreign = Expectations {
            known: vec![
                crate::Checkpoint { origin: key(5).public().site_id(), size: 1, root: Digest::of(b"") }
                    .sign(&key(5))
                    .note(),
            ],
            ..Expectations::default()
        };
        assert_eq!(check(&export(&mut connection).await, &foreign).finding.unwrap().kind, FindingKind::Signature);
    });
}

/// A coordinator that shows its forged log to members as that of a site which it invented gets real cosignatures. They
/// are of the invented site's log.
#[test]
fn cosignatures_of_another_ledger_do_not_count_for_this_one() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let mut ledger = Ledger::on(&mut connection);
        ledger.append_all(&entries(0..300), &[1; 32]).await.unwrap();
        let (invented, member) = (key(1), key(2));
        shown_to_witness(&mut ledger, None, Timestamp::from_millis(T0)).await;
        // Its own checkpoint has no cosignature, so it takes the invented site's line, key and all.
        let coordinator = key(5);
        let mut bytes = Vec::new();
        ledger.export(&coordinator, Timestamp::from_millis(T0), &mut bytes).await.unwrap();
        let expected = Expectations {
            origins: vec![coordinator.public()],
            members: vec![member.public()],
            ..Expectations::default()
        };
        let honest = check(&bytes, &expected);
        assert!(honest.is_intact() && honest.checkpoints == 0, "{:?}", honest.finding);
        let mut other = Vec::new();
        ledger.export(&invented, Timestamp::from_millis(T0), &mut other).await.unwrap();
        let line = lines(&other).into_iter().find(|line| line.starts_with(b"{\"checkpoint\":")).unwrap().to_vec();
        let forged = resigned(&bytes, &coordinator, |lines| lines.insert(lines.len() - 1, line));
        for expected in [expected, Expectations::default()] {
            let report = check(&forged, &expected);
            let finding = report.finding.clone().unwrap();
            assert_eq!(finding.kind, FindingKind::Signature, "{finding}");
            assert!(finding.words.contains(&invented.public().site_id().to_string()), "{finding}");
            assert_eq!(report.independent_witnesses(), 0);
        }
        // Two keys of one party, named by the auditor, are the same ledger's.
        let both = Expectations {
            origins: vec![coordinator.public(), invented.public()],
            members: vec![member.public(), invented.public()],
            ..Expectations::default()
        };
        let report = check(&forged, &both);
        assert!(report.is_intact(), "{:?}", report.finding);
        assert_eq!(report.independent_witnesses(), 1, "nobody witnesses itself");
    });
}

/// An export after a change of its lines, with a closing line that fits again.
fn resigned(bytes: &[u8], key: &SecretKey, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = lines(bytes).into_iter().map(<[u8]>::to_vec).collect();
    change(&mut all);
    all.pop();
    let count = all.len() as u64;
    let mut text = all.concat();
    let sha256 = Digest::of(&text);
    let signature = key.sign(&crate::export::End::signed_digest(count, &sha256));
    let end = crate::export::EndLine { end: crate::export::End { lines: count, sha256, signature } };
    text.extend(serde_json::to_string(&end).unwrap().bytes().chain(*b"\n"));
    text
}

#[test]
fn a_database_whose_tail_was_cut_off_does_not_export_as_whole() {
    run(async {
        let (folder, mut connection) = fresh().await;
        let mut ledger = Ledger::on(&mut connection);
        ledger.append_all(&entries(0..300), &[1; 32]).await.unwrap();
        let copy = folder.path().join("old.db");
        sqlx::query("VACUUM INTO ?1").bind(copy.to_str().unwrap()).execute(&mut connection).await.unwrap();
        let mut ledger = Ledger::on(&mut connection);
        ledger.append_all(&entries(300..400), &[2; 32]).await.unwrap();
        ledger.checkpoint(&key(1), Timestamp::from_millis(T0)).await.unwrap();
        // The old entries under the checkpoints of today.
        let mut cut = sqlite(&copy).await;
        sqlx::query("ATTACH ?1 AS today")
            .bind(folder.path().join("site.db").to_str().unwrap())
            .execute(&mut cut)
            .await
            .unwrap();
        sqlx::query("INSERT INTO ledger_checkpoint SELECT * FROM today.ledger_checkpoint")
            .execute(&mut cut)
            .await
            .unwrap();
        let error =
            Ledger::on(&mut cut).export(&key(1), Timestamp::from_millis(T0), &mut Vec::new()).await.unwrap_err();
        let words = error.to_string();
        assert!(matches!(error, LedgerError::Damaged(_)) && words.contains("300") && words.contains("400"), "{words}");
        // Under whichever of its keys it is exported.
        let error = Ledger::on(&mut cut).export(&key(5), Timestamp::from_millis(T0), &mut Vec::new()).await;
        assert!(matches!(error, Err(LedgerError::Damaged(_))));
        Ledger::on(&mut cut).append_all(&entries(400..500), &[3; 32]).await.unwrap();
        assert!(Ledger::on(&mut cut).export(&key(1), Timestamp::from_millis(T0), &mut Vec::new()).await.is_ok());
    });
}

/// SQLite takes any bytes for a text, and whoever changes one byte of its file need not leave one.
#[test]
fn an_entry_that_is_no_text_is_damage_and_named() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        Ledger::on(&mut connection).append_all(&entries(0..30), &[1; 32]).await.unwrap();
        let bytes = sqlx::query("UPDATE ledger_entry SET fields = CAST(X'7B80' AS TEXT) WHERE sequence = 7");
        bytes.execute(&mut connection).await.unwrap();
        let at = Timestamp::from_millis(T0);
        let error = Ledger::on(&mut connection).export(&key(1), at, &mut Vec::new()).await.unwrap_err();
        assert!(matches!(&error, LedgerError::Damaged(words) if words.contains("entry 7")), "{error}");
    });
}

/// A log of three entries from all of which `fields` are erased; `told` is the time of the entry that says so, and `made`
/// that of the export.
async fn blanked(fields: &[Field], rule: &str, told: Option<i64>, made: i64) -> Report {
    let (_folder, mut connection) = fresh().await;
    let mut ledger = Ledger::on(&mut connection);
    ledger.append_all(&entries(1..4), &[1; 32]).await.unwrap();
    let erasure = Erasure { before_ms: i64::MAX, actor: None, fields: fields.to_vec(), rule: rule.into() };
    assert_eq!(ledger.erase(&erasure).await.unwrap(), 3);
    if let Some(ms) = told {
        ledger.append(&telling(ms, rule, None), &[2; 32]).await.unwrap();
    }
    check(&export_at(&mut connection, Timestamp::from_millis(made)).await, &Expectations::default())
}

/// The product's entry about an erasure under a rule of its own, of the entries named.
fn telling(ms: i64, rule: &str, entries: Option<&str>) -> Entry {
    let mut entry = erased_at(ms);
    entry.reason = Retention::named(rule).map(|rule| rule.tells(3));
    entries.into_iter().fold(entry, |entry, named| entry.object(ObjectKind::Entries, named, None))
}

/// A log of three entries that are erased under a rule of twelve months, and what it says of that.
async fn told(entries: &[Entry]) -> Report {
    let (_folder, mut connection) = fresh().await;
    let mut ledger = Ledger::on(&mut connection);
    ledger.append_all(&super::tests::entries(1..4), &[1; 32]).await.unwrap();
    let fields = vec![Field::Actor, Field::Reason];
    let erasure = Erasure { before_ms: i64::MAX, actor: None, fields, rule: ERASURE_RULE.into() };
    assert_eq!(ledger.erase(&erasure).await.unwrap(), 3);
    ledger.append_all(entries, &[2; 32]).await.unwrap();
    check(&export_at(&mut connection, Timestamp::from_millis(LATER + 10_000)).await, &Expectations::default())
}

/// At a site whose rule is 36 months, what is 13 months old is not erased, whatever else was.
#[test]
fn an_erasure_is_told_only_by_an_entry_that_names_its_rule_and_its_entries() {
    run(async {
        let now = Timestamp::from_millis(LATER + 10_000);
        for ranges in [&[None][..], &[Some("0 to 2")], &[Some("1 to 9"), Some("0 to 0")]] {
            let tell: Vec<Entry> =
                (LATER..).zip(ranges).map(|(ms, entries)| telling(ms, ERASURE_RULE, *entries)).collect();
            let report = told(&tell).await;
            assert!(report.is_intact() && report.doubt(now).is_none(), "{ranges:?}: {report:?}");
        }
        for (rule, entries, bad) in [
            ("retention 36 months", None, 2),
            ("retention 13 months", Some("0 to 2"), 2),
            (ERASURE_RULE, Some("0 to 1"), 2),
            (ERASURE_RULE, Some("1 to 2"), 0),
            (ERASURE_RULE, Some("3 to 9"), 2),
        ] {
            let finding = told(&[telling(LATER, rule, entries)]).await.finding.expect("it passes");
            assert_eq!((finding.kind, finding.entry), (FindingKind::Altered, Some(bad)), "{finding}");
            assert!(finding.words.contains(&format!("under '{ERASURE_RULE}'")), "{finding}");
        }
        // In no words of the product: of a newer version, or made up.
        for tell in [erased_at(LATER), telling(LATER, ERASURE_RULE, Some("all of them"))] {
            let report = told(&[tell]).await;
            assert!(report.is_intact() && report.doubtful_erasure == Some(2), "{report:?}");
            assert!(report.doubt(now).is_some_and(|words| words.contains("names no rule")), "{report:?}");
        }
    });
}

/// Years later the entry that tells is erased, too, and a newer one tells of that.
#[test]
fn an_entry_that_told_and_was_erased_itself_counts_for_what_its_own_rule_allows() {
    run(async {
        let year = LATER - T0;
        let verified = async |rule: &str, again: Option<&str>| {
            let (_folder, mut connection) = fresh().await;
            let mut ledger = Ledger::on(&mut connection);
            ledger.append_all(&entries(1..4), &[1; 32]).await.unwrap();
            let erasure = |rule: &str| Erasure {
                before_ms: i64::MAX,
                actor: None,
                fields: Retention::FIELDS.to_vec(),
                rule: rule.into(),
            };
            ledger.erase(&erasure(ERASURE_RULE)).await.unwrap();
            ledger.append(&telling(LATER, ERASURE_RULE, Some("0 to 2")), &[2; 32]).await.unwrap();
            ledger.erase(&erasure(rule)).await.unwrap();
            let last = LATER + 4 * year;
            if let Some(again) = again {
                ledger.append(&telling(last, again, Some("3 to 3")), &[3; 32]).await.unwrap();
            }
            let now = Timestamp::from_millis(last + 1_000);
            let report = check(&export_at(&mut connection, now).await, &Expectations::default());
            (report.doubt(now), report.finding)
        };
        assert_eq!(verified("retention 36 months", Some("retention 36 months")).await, (None, None));
        assert_eq!(verified(ERASURE_RULE, Some(ERASURE_RULE)).await, (None, None));
        for again in [None, Some("retention 36 months")] {
            let (_, finding) = verified(ERASURE_RULE, again).await;
            assert_eq!(finding.expect("it passes").entry, Some(3), "{again:?}");
        }
        let (doubt, finding) = verified("a newer rule", Some(ERASURE_RULE)).await;
        assert!(doubt.is_some() && finding.is_none(), "{finding:?}");
    });
}

/// Whoever holds the database and the key can put *erased* in the place of any value: the leaf stays the same.
#[test]
fn what_the_rule_does_not_erase_or_not_yet_is_found() {
    run(async {
        let year = LATER + 1_000;
        let good = blanked(&[Field::Actor, Field::Reason], ERASURE_RULE, Some(LATER), year).await;
        assert!(good.is_intact() && good.erased_entries == 3, "{:?}", good.finding);
        let finding = async |fields: &[Field], rule: &str, told, made| {
            let finding = blanked(fields, rule, told, made).await.finding.expect("it passes");
            assert_eq!(finding.kind, FindingKind::Altered, "{finding}");
            finding
        };
        for field in [Field::When, Field::Action, Field::Outcome] {
            for rule in [ERASURE_RULE, "a rule of its own"] {
                let found = finding(&[field], rule, Some(LATER), year).await;
                let words = format!("'{}' is gone", field.as_str());
                assert!(found.entry == Some(0) && found.words.contains(&words), "{found}");
            }
        }
        // Yesterday's, and what a longer rule keeps until later.
        for (rule, made) in [(ERASURE_RULE, T0 + 24 * 3_600_000), ("retention 13 months", year)] {
            let found = finding(&[Field::Actor], rule, Some(made - 1_000), made).await;
            assert!(found.entry == Some(0) && found.words.contains("before the time of that rule"), "{found}");
        }
        // The file's own word that it is of next year does not help: the log must have grown until then, and say so.
        for told in [None, Some(T0 + 24 * 3_600_000)] {
            let found = finding(&[Field::Actor], ERASURE_RULE, told, year).await;
            assert!(found.entry == Some(2) && found.words.contains("no entry says so"), "{found}");
        }
    });
}

#[test]
fn a_rule_that_nobody_knows_is_named() {
    run(async {
        for rule in ["retention 11 months", "retention 012 months", "the minister said so"] {
            let report = blanked(&[Field::Actor], rule, Some(LATER), LATER + 1_000).await;
            assert!(report.is_intact(), "{:?}", report.finding);
            assert!(report.unknown_rules.contains(rule) && report.erased_entries == 3);
            let doubt = report.doubt(Timestamp::from_millis(LATER + 1_000)).expect("it passes");
            assert!(doubt.contains(rule), "{doubt}");
        }
    });
}
