//! Pages of a long ledger: every filter is answered from an index, and says the same as reading everything.

use hospes_protocol::id::{ApprovalId, JobId, PersonId, StudyId, Timestamp};
use sqlx::{Row as _, SqliteConnection};

use super::read::Query;
use super::tests::{T0, fresh, run};
use super::{Erasure, Filter, Ledger};
use crate::entry::{Action, Actor, Engine, Entry, ObjectKind, Outcome, Purpose};
use crate::leaf::{Field, Record};

const ENTRIES: u64 = 100_000;

fn id(n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn at(n: u64) -> Timestamp {
    Timestamp::from_millis(T0 + 1_000 * n as i64)
}

/// Mostly the engine's permits; now and then a person, a refusal, a dataset.
fn entry(n: u64) -> Entry {
    let person = PersonId::new(at(0), id(n % 7));
    let actor = if n.is_multiple_of(50) { Actor::person(person, None, None) } else { Actor::Engine };
    let action = match n % 1_000 {
        1 => Action::DatasetChanged,
        500 => Action::ApprovalSigned,
        _ => Action::PermitMinted,
    };
    let mut entry = Entry::new(at(n), actor, action, Engine::new("hospes-site 0.1.0"))
        .object(ObjectKind::Round, format!("round {n}"), None)
        .purpose(Purpose {
            study: Some(StudyId::new(at(0), id(n % 20))),
            job: Some(JobId::new(at(0), id(n / 100))),
            approval: Some(ApprovalId::new(at(0), id(n % 20))),
        });
    if n % 1_000 == 1 {
        // Two of a kind in one entry are one entry of a page.
        entry = entry.object(ObjectKind::Dataset, format!("dataset {}", n % 3), None).object(
            ObjectKind::Dataset,
            "dataset before",
            None,
        );
    }
    if n % 10_000 == 9 { entry.refused("no") } else { entry }
}

fn filters() -> Vec<Filter> {
    let all = Filter::default;
    vec![
        all(),
        Filter { actions: vec![Action::DatasetChanged], ..all() },
        Filter {
            actions: vec![Action::DatasetChanged, Action::ApprovalSigned],
            outcome: Some(Outcome::Success),
            ..all()
        },
        Filter { actions: vec![Action::DryRun], actor: Some("engine".into()), ..all() },
        Filter { actor: Some(PersonId::new(at(0), id(3)).to_string()), ..all() },
        Filter { actor: Some("engine".into()), outcome: Some(Outcome::Refused), ..all() },
        Filter { outcome: Some(Outcome::Refused), ..all() },
        Filter { study: Some(StudyId::new(at(0), id(7))), actions: vec![Action::ApprovalSigned], ..all() },
        Filter { job: Some(JobId::new(at(0), id(40))), ..all() },
        Filter { approval: Some(ApprovalId::new(at(0), id(1))), actor: Some("engine".into()), ..all() },
        Filter { object: Some("dataset 1".into()), ..all() },
        Filter { object: Some("dataset 1".into()), object_kind: Some(ObjectKind::Round), ..all() },
        Filter { object_kind: Some(ObjectKind::Dataset), ..all() },
        Filter { object_kind: Some(ObjectKind::Dataset), actions: vec![Action::DatasetChanged], ..all() },
        Filter {
            object: Some("round 4321".into()),
            from_ms: Some(T0 + 4_321_000),
            until_ms: Some(T0 + 4_322_000),
            ..all()
        },
        Filter { from_ms: Some(T0 + 99_000_000), until_ms: Some(T0 + 99_100_000), ..all() },
    ]
}

/// What a filter means, said without a database.
fn matches(filter: &Filter, record: &Record) -> bool {
    let ms = record.when.map(|w| w.at.as_millis()).unwrap();
    let object = |o: &crate::Object| {
        filter.object.as_ref().is_none_or(|id| *id == o.id) && filter.object_kind.is_none_or(|kind| kind == o.kind)
    };
    (filter.actions.is_empty() || record.action.is_some_and(|a| filter.actions.contains(&a)))
        && filter.outcome.is_none_or(|o| record.outcome == Some(o))
        && filter.actor.as_ref().is_none_or(|a| record.actor.as_ref().map(Actor::id).as_ref() == Some(a))
        && filter.study.is_none_or(|s| record.purpose.study == Some(s))
        && filter.job.is_none_or(|j| record.purpose.job == Some(j))
        && filter.approval.is_none_or(|a| record.purpose.approval == Some(a))
        && (filter.object.is_none() && filter.object_kind.is_none() || record.objects.iter().any(object))
        && filter.from_ms.is_none_or(|from| ms >= from)
        && filter.until_ms.is_none_or(|until| ms < until)
}

async fn long() -> (tempfile::TempDir, SqliteConnection) {
    let (folder, mut connection) = fresh().await;
    sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
    for start in (0..ENTRIES).step_by(10_000) {
        let entries: Vec<Entry> = (start..start + 10_000).map(entry).collect();
        Ledger::on(&mut connection).append_all(&entries, &[9; 32]).await.unwrap();
    }
    sqlx::query("COMMIT").execute(&mut connection).await.unwrap();
    (folder, connection)
}

async fn plan(connection: &mut SqliteConnection, sql: &str, values: usize) -> Vec<String> {
    let mut query = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
    for _ in 0..values {
        query = query.bind("1");
    }
    query.fetch_all(connection).await.unwrap().iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[test]
fn a_long_ledger_is_filtered_through_an_index_and_never_scanned_or_sorted() {
    run(async {
        let (_folder, mut connection) = long().await;
        let records: Vec<Record> = {
            let mut ledger = Ledger::on(&mut connection);
            let mut all = Vec::new();
            let mut filter = Filter::default();
            loop {
                let page = ledger.page(&filter, 1_000).await.unwrap();
                all.extend(page.records);
                match page.next {
                    Some(next) => filter.before = Some(next),
                    None => break all,
                }
            }
        };
        assert_eq!(records.len() as u64, ENTRIES);
        for filter in filters() {
            let mut query = Query::new(&filter, filter.actions.first().copied(), false);
            // The planner sees the same text as a page does, with unknown values.
            query.sql = query.sql.replace('$', "?");
            let lines = plan(&mut connection, &query.sql, query.texts.len() + 3).await;
            for line in &lines {
                assert!(line.starts_with("SEARCH"), "{filter:?}: {lines:?}");
                assert!(line.contains("INDEX") || line.contains("PRIMARY KEY"), "{filter:?}: {lines:?}");
            }
            let wanted: Vec<u64> = records.iter().filter(|r| matches(&filter, r)).map(|r| r.sequence).collect();
            let mut found = Vec::new();
            let mut next = filter.clone();
            // Small pages where little matches, so that their ends are tested too.
            let limit = if wanted.len() > 1_000 { 1_000 } else { 7 };
            loop {
                let page = Ledger::on(&mut connection).page(&next, limit).await.unwrap();
                assert!(page.records.len() <= limit as usize);
                found.extend(page.records.iter().map(|r| r.sequence));
                match page.next {
                    Some(before) => next.before = Some(before),
                    None => break,
                }
            }
            assert_eq!(found, wanted, "{filter:?}");
        }
    });
}

/// A database of the version before had other indexes and no table of objects.
#[test]
fn a_ledger_from_before_is_found_by_its_objects_too() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let entries: Vec<Entry> = (0..2_500).map(entry).collect();
        Ledger::on(&mut connection).append_all(&entries, &[9; 32]).await.unwrap();
        let before = "DROP TABLE ledger_object; DELETE FROM ledger_state WHERE id = 2; DROP INDEX ledger_by_action; \
             CREATE INDEX ledger_entry_action ON ledger_entry (action, sequence)";
        sqlx::raw_sql(before).execute(&mut connection).await.unwrap();
        Ledger::on(&mut connection).create().await.unwrap();
        Ledger::on(&mut connection).create().await.unwrap();
        let filter = Filter { object: Some("dataset 2".into()), ..Filter::default() };
        let page = Ledger::on(&mut connection).page(&filter, 10).await.unwrap();
        assert_eq!(page.records.iter().map(|r| r.sequence).collect::<Vec<_>>(), [1_001]);
        let filter = Filter { actions: vec![Action::DatasetChanged], ..Filter::default() };
        assert_eq!(Ledger::on(&mut connection).page(&filter, 10).await.unwrap().records.len(), 3);
    });
}

#[test]
fn erased_objects_are_not_found_any_more() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let entries: Vec<Entry> = (0..1_100).map(entry).collect();
        let mut ledger = Ledger::on(&mut connection);
        ledger.append_all(&entries, &[9; 32]).await.unwrap();
        let filter = Filter { object: Some("dataset before".into()), ..Filter::default() };
        assert_eq!(ledger.page(&filter, 10).await.unwrap().records.len(), 2);
        let erasure =
            Erasure { before_ms: T0 + 500_000, actor: None, fields: vec![Field::Objects], rule: "retention".into() };
        ledger.erase(&erasure).await.unwrap();
        let left = ledger.page(&filter, 10).await.unwrap().records;
        assert_eq!(left.iter().map(|r| r.sequence).collect::<Vec<_>>(), [1_001]);
    });
}
