use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hospes_protocol::id::{Digest, PersonId, StudyId, Timestamp};
use hospes_protocol::message::Witness;
use hospes_protocol::sign::SecretKey;
use proptest::prelude::*;
use proptest::sample::Index;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AnyConnection, Connection as _, SqliteConnection};

use super::*;
use crate::entry::{Action, Actor, Engine, Entry, ObjectKind, Outcome, Purpose};
use crate::leaf::Field;
use crate::note::Checkpoint;
use crate::tree::verify_consistency;
use crate::verify::{Expectations, FindingKind, Report, verify};
use crate::witness::{Seen, Verdict, Witnessing};

pub(super) const T0: i64 = 1_700_000_000_000;

pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn study(n: u8) -> StudyId {
    StudyId::new(Timestamp::from_millis(T0), [n; 10])
}

fn person(n: u8) -> PersonId {
    PersonId::new(Timestamp::from_millis(T0), [n; 10])
}

fn entry(n: u64) -> Entry {
    let at = Timestamp::from_millis(T0 + 1_000 * n as i64);
    let actor = match n % 3 {
        0 => Actor::Engine,
        1 => Actor::person(person(1), Some(hospes_protocol::approval::Role::DataSteward), Some(key(9).public())),
        _ => Actor::peer(key(8).public().site_id()),
    };
    let action = if n.is_multiple_of(2) { Action::PermitMinted } else { Action::UpdatePrepared };
    let entry = Entry::new(at, actor, action, Engine::new("hospes-site 0.1.0"))
        .object(ObjectKind::Round, format!("round {n}"), Some(Digest::of(&n.to_be_bytes())))
        .purpose(Purpose { study: Some(study((n % 5) as u8)), ..Purpose::default() });
    if n % 7 == 3 { entry.refused("the approval has expired") } else { entry }
}

pub(super) fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(entry).collect()
}

pub(super) async fn sqlite(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    Ledger::on(&mut connection).create().await.unwrap();
    connection
}

pub(super) fn run<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A ledger in memory, its folder kept alive.
pub(super) async fn fresh() -> (tempfile::TempDir, SqliteConnection) {
    let folder = tempfile::tempdir().unwrap();
    let connection = sqlite(&folder.path().join("site.db")).await;
    (folder, connection)
}

pub(super) async fn export(connection: &mut SqliteConnection) -> Vec<u8> {
    export_at(connection, Timestamp::from_millis(T0 + 1_000_000_000)).await
}

pub(super) async fn export_at(connection: &mut SqliteConnection, made: Timestamp) -> Vec<u8> {
    let mut bytes = Vec::new();
    let done = Ledger::on(connection).export(&key(1), made, &mut bytes).await.unwrap();
    assert_eq!(done.bytes, bytes.len() as u64);
    assert_eq!(done.digest, Digest::of(&bytes));
    bytes
}

pub(super) fn check(bytes: &[u8], expected: &Expectations) -> Report {
    verify(&mut BufReader::with_capacity(97, bytes), expected).unwrap()
}

/// Every claim that holds on each database: numbering, order, roots, proofs, pages, what survives a rollback.
async fn claims(ledger: &mut Ledger<'_>) {
    assert_eq!(ledger.size().await.unwrap(), 0);
    assert_eq!(ledger.append(&entry(0), &[1; 32]).await.unwrap(), 0);
    assert_eq!(ledger.append_all(&entries(1..300), &[2; 32]).await.unwrap(), 1..300);
    let old = ledger.root(300).await.unwrap();
    for n in 300..310 {
        ledger.append(&entry(n), &[3; 32]).await.unwrap();
    }
    assert_eq!(ledger.append_all(&entries(310..600), &[4; 32]).await.unwrap(), 310..600);
    assert_eq!(ledger.size().await.unwrap(), 600);
    let root = ledger.root(600).await.unwrap();
    for sequence in [0, 1, 255, 256, 299, 300, 511, 512, 599] {
        let proof = ledger.prove_inclusion(sequence, 600).await.unwrap();
        assert!(proof.holds(&root));
        assert!(!proof.holds(&old));
        let record = ledger.record(sequence).await.unwrap();
        assert_eq!(record.action, Some(entry(sequence).action));
        assert_eq!(record.objects, entry(sequence).objects);
        assert_eq!(record.actor, Some(entry(sequence).actor));
    }
    for size in [1, 2, 255, 256, 257, 300, 511, 600] {
        let (from, proof) = (ledger.root(size).await.unwrap(), ledger.prove_consistency(size, 600).await.unwrap());
        assert!(verify_consistency(size, &from, 600, &root, &proof));
        assert!(!verify_consistency(size, &Digest::of(b"other"), 600, &root, &proof));
    }
    assert!(matches!(ledger.root(601).await, Err(LedgerError::OutOfRange { size: 600, asked: 601 })));
    assert!(matches!(ledger.prove_consistency(601, 600).await, Err(LedgerError::OutOfRange { .. })));
    pages(ledger).await;
}

async fn pages(ledger: &mut Ledger<'_>) {
    let mut filter = Filter { study: Some(study(3)), outcome: Some(Outcome::Refused), ..Filter::default() };
    let wanted: Vec<u64> = (0..600).rev().filter(|n| n % 5 == 3 && n % 7 == 3).collect();
    let mut found = Vec::new();
    loop {
        let page = ledger.page(&filter, 7).await.unwrap();
        assert_eq!(page.size, 600);
        found.extend(page.records.iter().map(|r| r.sequence));
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    assert_eq!(found, wanted);
    let filter = Filter {
        actions: vec![Action::UpdatePrepared, Action::DryRun],
        actor: Some(person(1).to_string()),
        from_ms: Some(T0 + 100_000),
        until_ms: Some(T0 + 200_000),
        ..Filter::default()
    };
    let page = ledger.page(&filter, 1_000).await.unwrap();
    let found: Vec<u64> = page.records.iter().map(|r| r.sequence).collect();
    let wanted: Vec<u64> = (100..200).rev().filter(|n| n % 2 == 1 && n % 3 == 1).collect();
    assert_eq!(found, wanted);
    let filter = Filter { object: Some("round 42".into()), object_kind: Some(ObjectKind::Round), ..Filter::default() };
    let found = ledger.page(&filter, 10).await.unwrap().records;
    assert_eq!(found.iter().map(|r| r.sequence).collect::<Vec<_>>(), [42]);
    let filter = Filter { object_kind: Some(ObjectKind::Round), outcome: Some(Outcome::Refused), ..Filter::default() };
    assert_eq!(ledger.page(&filter, 3).await.unwrap().records[0].sequence, 598);
    let fresh = ledger.page(&Filter { after: Some(597), ..Filter::default() }, 10).await.unwrap();
    assert_eq!(fresh.records.iter().map(|r| r.sequence).collect::<Vec<_>>(), [599, 598]);
}

#[test]
fn sqlite_directly_keeps_every_claim() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        claims(&mut Ledger::on(&mut connection)).await;
    });
}

#[test]
fn sqlite_through_any_keeps_every_claim_and_the_two_read_each_other() {
    sqlx::any::install_default_drivers();
    run(async {
        let (folder, mut direct) = fresh().await;
        let url = format!("sqlite://{}", folder.path().join("site.db").display());
        let mut any = AnyConnection::connect(&url).await.unwrap();
        Ledger::on(&mut any).create().await.unwrap();
        claims(&mut Ledger::on(&mut any)).await;
        let root = Ledger::on(&mut any).root(600).await.unwrap();
        assert_eq!(Ledger::on(&mut direct).root(600).await.unwrap(), root);
        assert!(check(&export(&mut direct).await, &Expectations::default()).is_intact());
        witnessing(&mut Ledger::on(&mut any)).await;
    });
}

/// A PostgreSQL server of this test alone, on a socket in its own folder.
struct Postgres {
    folder: PathBuf,
    server: Child,
    _keep: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT would be kinder to the data, which nobody needs any more.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Postgres {
    fn start() -> Self {
        let bin = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed (Debian package postgresql)")
            .filter_map(|version| Some(version.ok()?.path().join("bin")))
            .find(|bin| bin.join("initdb").exists())
            .expect("PostgreSQL has initdb");
        let keep = tempfile::Builder::new().prefix("hospes-pg").tempdir().unwrap();
        let folder = keep.path().to_owned();
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        // The server refuses to run as root.
        let command = |program: &str| {
            let mut command = if root {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(bin.join(program));
                command
            } else {
                Command::new(bin.join(program))
            };
            command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if root {
            assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
        }
        let data = folder.join("data");
        let made = command("initdb").args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data).status().unwrap();
        assert!(made.success());
        let server =
            command("postgres").args(["-h", "", "-F", "-k"]).arg(&folder).arg("-D").arg(&data).spawn().unwrap();
        Self { folder, server, _keep: keep }
    }

    async fn connect(&self) -> AnyConnection {
        let url = format!("postgres://postgres@localhost/postgres?host={}", self.folder.display());
        for _ in 0..600 {
            if let Ok(connection) = AnyConnection::connect(&url).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PostgreSQL did not start");
    }
}

#[test]
fn postgresql_keeps_every_claim_and_two_writers_never_take_one_sequence() {
    sqlx::any::install_default_drivers();
    run(async {
        let postgres = Postgres::start();
        let mut connection = postgres.connect().await;
        Ledger::on(&mut connection).create().await.unwrap();
        Ledger::on(&mut connection).create().await.unwrap();
        claims(&mut Ledger::on(&mut connection)).await;
        let writer = |mut connection: AnyConnection, random: u8| async move {
            let mut taken = Vec::new();
            for n in 0..40 {
                let mut transaction = connection.begin().await.unwrap();
                let sequence = Ledger::on(&mut *transaction).append(&entry(n), &[random; 32]).await.unwrap();
                tokio::task::yield_now().await;
                transaction.commit().await.unwrap();
                taken.push(sequence);
            }
            taken
        };
        let (one, two) = tokio::join!(writer(postgres.connect().await, 7), writer(postgres.connect().await, 8));
        let mut all = [one, two].concat();
        all.sort_unstable();
        assert_eq!(all, (600..680).collect::<Vec<u64>>());
        let mut bytes = Vec::new();
        Ledger::on(&mut connection).export(&key(1), Timestamp::from_millis(T0), &mut bytes).await.unwrap();
        let report = check(&bytes, &Expectations::default());
        assert!(report.is_intact(), "{:?}", report.finding);
        assert_eq!(report.entries, 680);
        witnessing(&mut Ledger::on(&mut connection)).await;
        let erasure = Erasure { before_ms: i64::MAX, actor: None, fields: vec![Field::Actor], rule: "all".into() };
        assert_eq!(Ledger::on(&mut connection).erase(&erasure).await.unwrap(), 710);
    });
}

#[test]
fn what_is_rolled_back_is_not_in_the_ledger_and_leaves_no_gap() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        Ledger::on(&mut connection).append_all(&entries(0..250), &[1; 32]).await.unwrap();
        let root = Ledger::on(&mut connection).root(250).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        Ledger::on(&mut *transaction).append_all(&entries(250..700), &[2; 32]).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(Ledger::on(&mut connection).size().await.unwrap(), 250);
        assert_eq!(Ledger::on(&mut connection).root(250).await.unwrap(), root);
        let next = Ledger::on(&mut connection).append_all(&entries(250..300), &[3; 32]).await.unwrap();
        assert_eq!(next, 250..300);
        assert!(check(&export(&mut connection).await, &Expectations::default()).is_intact());
    });
}

#[test]
fn a_clock_that_goes_back_does_not_turn_the_order_back() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let mut ledger = Ledger::on(&mut connection);
        ledger.append(&entry(100), &[1; 32]).await.unwrap();
        ledger.append(&entry(0), &[2; 32]).await.unwrap();
        let (first, second) =
            (ledger.record(0).await.unwrap().when.unwrap(), ledger.record(1).await.unwrap().when.unwrap());
        assert!(second.at < first.at);
        assert_eq!(second.order, first.order + 1);
        assert!(check(&export(&mut connection).await, &Expectations::default()).is_intact());
    });
}

#[test]
fn a_refused_entry_changes_nothing() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let bad = entry(1).failed("x".repeat(5_000));
        let result = Ledger::on(&mut connection).append_all(&[entry(0), bad], &[1; 32]).await;
        assert!(matches!(result, Err(LedgerError::Field { field: "reason", .. })));
        assert_eq!(Ledger::on(&mut connection).size().await.unwrap(), 0);
    });
}

/// Shows the ledger, as key 1, to the witness with key 2.
pub(super) async fn shown_to_witness(ledger: &mut Ledger<'_>, seen: Option<Seen>, at: Timestamp) -> Option<Seen> {
    let witness = key(2);
    let old = seen.map_or(0, |s| s.size);
    let Witness::Show { origin, checkpoint, old_size, proof } = ledger.show(&key(1), old, at).await.unwrap() else {
        panic!("not shown")
    };
    let judge = Witnessing { origin: key(1).public(), key: &witness, seen, relayed: false };
    let verdict = judge.judge(&checkpoint, old_size, &proof, at);
    let reply = verdict.reply(origin, witness.public().site_id());
    let (Verdict::Cosigned { checkpoint, .. }, Witness::Cosigned { size, cosignature, .. }) = (&verdict, &reply) else {
        panic!("{verdict:?}")
    };
    assert!(ledger.accept_cosignature(origin, *size, cosignature, &witness.public()).await.unwrap());
    Some(Seen::from(checkpoint.checkpoint()))
}

async fn witnessing(ledger: &mut Ledger<'_>) {
    let (own, witness) = (key(1).public().site_id(), key(2).public().site_id());
    let start = ledger.size().await.unwrap();
    let at = Timestamp::from_millis(T0 + 2_000_000);
    let seen = shown_to_witness(ledger, None, at).await;
    assert_eq!(ledger.cosigned_size(own, witness).await.unwrap(), start);
    ledger.append_all(&entries(start..start + 30), &[9; 32]).await.unwrap();
    let seen = shown_to_witness(ledger, seen, at.plus_millis(5_000)).await.unwrap();
    assert_eq!(ledger.cosigned_size(own, witness).await.unwrap(), start + 30);
    let kept = ledger.own_checkpoint(own).await.unwrap().unwrap();
    assert!(kept.cosigned_by(&key(2).public()).is_some());
    assert_eq!(Seen::from(kept.checkpoint()), seen);
    // The same table serves for what this party saw of a peer.
    assert_eq!(ledger.peer(own).await.unwrap(), None);
    ledger.put_peer(&kept, &key(1).public(), at).await.unwrap();
    let peer = ledger.peer(own).await.unwrap().unwrap();
    assert_eq!((peer.seen, peer.note), (seen, kept.note()));
    assert_eq!(ledger.cosignatures(own, start + 30).await.unwrap().len(), 1);
    let wrong = ledger.accept_cosignature(own, start, "\u{2014} x y", &key(2).public()).await;
    assert!(matches!(wrong, Err(LedgerError::Note(_))));
    assert!(!ledger.accept_cosignature(own, start + 7, "", &key(2).public()).await.unwrap());
    let found = Contradiction { origin: own, witness, at, detail: "two ledgers".into(), note: kept.note() };
    ledger.put_contradiction(&found).await.unwrap();
    assert_eq!(ledger.contradictions().await.unwrap(), [found]);
}

#[test]
fn witnesses_are_counted_and_the_longest_unwitnessed_interval_is_reported() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        Ledger::on(&mut connection).append_all(&entries(0..600), &[1; 32]).await.unwrap();
        witnessing(&mut Ledger::on(&mut connection)).await;
        Ledger::on(&mut connection).append(&entry(700), &[5; 32]).await.unwrap();
        let bytes = export(&mut connection).await;
        let members = |n| Expectations { members: vec![key(n).public()], ..Expectations::default() };
        let report = check(&bytes, &members(2));
        assert!(report.is_intact(), "{:?}", report.finding);
        assert_eq!((report.entries, report.checkpoints, report.independent_witnesses()), (631, 2, 1));
        assert_eq!((report.unwitnessed_entries, report.witnesses[0].cosignatures), (1, 2));
        assert_eq!(report.longest_unwitnessed_ms, 1_000_000_000 - 2_005_000);
        // Somebody cosigned it; who, only the auditor can know.
        for unknown in [members(3), members(1), Expectations::default()] {
            let none = check(&bytes, &unknown);
            assert_eq!((none.independent_witnesses(), none.witnesses.len()), (0, 1));
            assert_eq!((none.unwitnessed_entries, none.longest_unwitnessed_ms), (631, 1_000_000_000));
        }
    });
}

/// Keeps a checkpoint of the ledger of key `n`, cosigned by key 2.
async fn keep_peer(ledger: &mut Ledger<'_>, n: u8, size: u64, at: Timestamp) {
    let checkpoint = Checkpoint { origin: key(n).public().site_id(), size, root: Digest::of(&size.to_be_bytes()) };
    ledger.put_peer(&checkpoint.sign(&key(n)), &key(n).public(), at).await.unwrap();
    ledger.put_cosignature(&checkpoint, &checkpoint.cosign(&key(2), at)).await.unwrap();
}

#[test]
fn of_a_peer_the_first_the_newest_and_the_contradicted_checkpoints_are_kept() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let mut ledger = Ledger::on(&mut connection);
        let at = |n: u64| Timestamp::from_millis(T0 + 1_000 * n as i64);
        let (own, witness) = (key(1).public().site_id(), key(2).public().site_id());
        let [grown, other] = [5, 6].map(|n| key(n).public().site_id());
        ledger.append_all(&entries(0..3), &[1; 32]).await.unwrap();
        shown_to_witness(&mut ledger, None, at(0)).await;
        keep_peer(&mut ledger, 6, 1, at(1)).await;
        for size in 1..=100 {
            keep_peer(&mut ledger, 5, size, at(size)).await;
            if size == 40 {
                let (detail, note) = ("two ledgers".to_owned(), String::new());
                let found = Contradiction { origin: grown, witness, at: at(40).plus_millis(1), detail, note };
                ledger.put_contradiction(&found).await.unwrap();
            }
            ledger.prune_peer(grown, 10).await.unwrap();
        }
        let mut kept = Vec::new();
        for size in 1..=100 {
            if !ledger.cosignatures(grown, size).await.unwrap().is_empty() {
                kept.push(size);
            }
        }
        // Of the contradiction what was seen before it, and what was seen after.
        assert_eq!(kept, [1, 40, 41].into_iter().chain(91..=100).collect::<Vec<u64>>());
        assert_eq!(ledger.peer(grown).await.unwrap().unwrap().seen.size, 100);
        assert_eq!(ledger.peers().await.unwrap(), [grown, other]);

        ledger.forget_peer(grown).await.unwrap();
        assert_eq!(ledger.peers().await.unwrap(), [other]);
        assert_eq!(ledger.peer(grown).await.unwrap(), None);
        assert!(ledger.cosignatures(grown, 100).await.unwrap().is_empty());
        assert_eq!(ledger.cosignatures(other, 1).await.unwrap().len(), 1);
        assert_eq!(ledger.contradictions().await.unwrap().len(), 1);
        // This party's own checkpoints are none of a peer's.
        ledger.prune_peer(own, 1).await.unwrap();
        ledger.forget_peer(own).await.unwrap();
        assert_eq!(ledger.cosignatures(own, 3).await.unwrap().len(), 1);
    });
}

#[test]
fn an_empty_ledger_exports_and_verifies() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        let report = check(&export(&mut connection).await, &Expectations::default());
        assert!(report.is_intact(), "{:?}", report.finding);
        assert_eq!((report.size, report.longest_unwitnessed_ms), (0, 0));
    });
}

/// An export of 300 entries with two cosigned checkpoints and some erased fields: it has every kind of line.
fn sample() -> &'static [u8] {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        run(async {
            let (_folder, mut connection) = fresh().await;
            let mut ledger = Ledger::on(&mut connection);
            ledger.append_all(&entries(0..258), &[1; 32]).await.unwrap();
            let seen = shown_to_witness(&mut ledger, None, Timestamp::from_millis(T0 + 270_000)).await;
            ledger.append_all(&entries(258..290), &[2; 32]).await.unwrap();
            shown_to_witness(&mut ledger, seen, Timestamp::from_millis(T0 + 600_000)).await;
            ledger.append_all(&entries(290..299), &[2; 32]).await.unwrap();
            let erasure = Erasure {
                before_ms: T0 + 20_000,
                actor: Some(person(1).to_string()),
                fields: vec![Field::Actor, Field::Reason],
                rule: ERASURE_RULE.into(),
            };
            assert_eq!(ledger.erase(&erasure).await.unwrap(), 7);
            ledger.append(&erased_at(LATER), &[3; 32]).await.unwrap();
            export_at(&mut connection, Timestamp::from_millis(LATER + 1_000)).await
        })
    })
}

/// Rule under which entries of the sample are erased.
pub(super) const ERASURE_RULE: &str = "retention 12 months";
/// When they are: that many months and some days later.
pub(super) const LATER: i64 = T0 + 370 * 24 * 3_600_000;

/// The entry about an erasure.
pub(super) fn erased_at(ms: i64) -> Entry {
    let at = Timestamp::from_millis(ms);
    Entry::new(at, Actor::Engine, Action::AuditErased, Engine::new("hospes-site 0.1.0"))
}

pub(super) fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|b| *b == b'\n').collect()
}

/// The entry that a byte belongs to, if it lies in an entry's line and is covered by the tree: the name of an erasure's
/// rule is protected by the export's closing line only.
fn entry_at(bytes: &[u8], at: usize) -> Option<u64> {
    let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let text = std::str::from_utf8(&bytes[start..]).unwrap();
    let line = text.split('\n').next().unwrap();
    if line.match_indices(ERASURE_RULE).any(|(from, rule)| (from..from + rule.len()).contains(&(at - start))) {
        return None;
    }
    text.strip_prefix("{\"entry\":")?.split(',').next()?.parse().ok()
}

#[test]
fn the_sample_is_intact_and_says_what_was_erased() {
    let report = check(sample(), &Expectations::default());
    assert!(report.is_intact(), "{:?}", report.finding);
    assert_eq!((report.entries, report.erased_entries, report.checkpoints), (300, 7, 2));
    assert!(report.erasure_rules.contains(ERASURE_RULE) && report.unknown_rules.is_empty());
    let told = report.erased_words().unwrap();
    for part in ["7 entries", ERASURE_RULE, "the first is entry 1 of 2023-11-14T", "the newest entry 19 of 2023-11-14T"]
    {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

#[test]
fn every_line_of_an_export_is_protected_at_its_first_middle_and_last_byte() {
    let bytes = sample();
    let mut start = 0;
    for line in lines(bytes) {
        for at in [start, start + line.len() / 2, start + line.len() - 1] {
            for flip in [1u8, 0x20] {
                let mut changed = bytes.to_vec();
                changed[at] ^= flip;
                assert_found(&changed, at, entry_at(bytes, at));
            }
        }
        start += line.len();
    }
}

fn assert_found(changed: &[u8], at: usize, entry: Option<u64>) {
    let finding = check(changed, &Expectations::default()).finding;
    let finding = finding.unwrap_or_else(|| panic!("a change at byte {at} was not found"));
    if entry.is_some() {
        assert_eq!(finding.entry, entry, "change at byte {at}: {finding}");
    }
}

#[test]
fn a_dropped_tail_is_found_wherever_it_begins() {
    let bytes = sample();
    for keep in (0..lines(bytes).len()).step_by(7) {
        let cut: Vec<u8> = lines(bytes)[..keep].concat();
        let report = check(&cut, &Expectations::default());
        let finding = report.finding.unwrap();
        if keep > 0 {
            assert_eq!(finding.kind, FindingKind::Truncated, "{finding}");
            assert_eq!(finding.entry, (report.entries < 300).then_some(report.entries));
        }
    }
}

#[test]
fn swapped_repeated_and_left_out_lines_are_named() {
    let all = lines(sample());
    let at = |entry: u64| all.iter().position(|l| l.starts_with(format!("{{\"entry\":{entry},").as_bytes())).unwrap();
    let mut swapped = all.clone();
    swapped.swap(at(290), at(291));
    let mut repeated = all.clone();
    repeated.insert(at(290), all[at(289)]);
    let mut without = all.clone();
    without.remove(at(290));
    for changed in [swapped, repeated, without] {
        let finding = check(&changed.concat(), &Expectations::default()).finding.unwrap();
        assert_eq!((finding.kind, finding.entry), (FindingKind::Order, Some(290)), "{finding}");
    }
    for kind in ["{\"tile\"", "{\"checkpoint\""] {
        let mut changed = all.clone();
        changed.remove(all.iter().position(|l| l.starts_with(kind.as_bytes())).unwrap());
        assert!(!check(&changed.concat(), &Expectations::default()).is_intact());
    }
    let added = [sample(), b"{}\n"].concat();
    assert_eq!(check(&added, &Expectations::default()).finding.unwrap().kind, FindingKind::File);
}

#[test]
fn a_row_changed_in_the_database_is_named_by_its_export() {
    run(async {
        let (_folder, mut connection) = fresh().await;
        Ledger::on(&mut connection).append_all(&entries(0..600), &[1; 32]).await.unwrap();
        sqlx::query("UPDATE ledger_entry SET fields = replace(fields, 'expired', 'lapsed.') WHERE sequence >= 300")
            .execute(&mut connection)
            .await
            .unwrap();
        let finding = check(&export(&mut connection).await, &Expectations::default()).finding.unwrap();
        let first = (300..600).find(|n| n % 7 == 3).unwrap();
        assert_eq!((finding.kind, finding.entry), (FindingKind::Altered, Some(first)));
    });
}

#[test]
fn an_overlong_line_is_refused_without_being_read_to_its_end() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            self.0 += buffer.len() as u64;
            assert!(self.0 < 4 * crate::limits::LINE_BYTES as u64, "read on after the limit");
            Ok(buffer.len())
        }
    }
    let report = verify(&mut BufReader::new(Endless(0)), &Expectations::default()).unwrap();
    assert_eq!(report.finding.unwrap().kind, FindingKind::Form);
}

#[test]
fn erased_values_are_gone_from_the_database_and_proofs_still_hold() {
    run(async {
        let (folder, mut connection) = fresh().await;
        sqlx::query("PRAGMA secure_delete = ON").execute(&mut connection).await.unwrap();
        let mut ledger = Ledger::on(&mut connection);
        ledger.append_all(&entries(0..50), &[1; 32]).await.unwrap();
        let root = ledger.root(50).await.unwrap();
        let erasure = |rule: &str| Erasure {
            before_ms: T0 + 40_000,
            actor: None,
            fields: vec![Field::Actor, Field::Purpose],
            rule: rule.into(),
        };
        assert!(matches!(ledger.erase(&erasure("a\"b")).await, Err(LedgerError::Field { .. })));
        assert_eq!(ledger.erase(&erasure("retention")).await.unwrap(), 40);
        assert_eq!(ledger.erase(&erasure("retention")).await.unwrap(), 0);
        let record = ledger.record(1).await.unwrap();
        assert_eq!(record.erased, [(Field::Actor, "retention".into()), (Field::Purpose, "retention".into())]);
        assert!(ledger.prove_inclusion(1, 50).await.unwrap().holds(&root));
        let by_person = Filter { actor: Some(person(1).to_string()), ..Filter::default() };
        assert_eq!(ledger.page(&by_person, 100).await.unwrap().records.len(), 4);
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
        let gone = study(2).to_string();
        let file = std::fs::read(folder.path().join("site.db")).unwrap();
        let left = file.windows(gone.len()).filter(|w| *w == gone.as_bytes()).count();
        // Entries 42 and 47 still name study 2: in the written form, its column, and the index.
        assert!(left <= 6, "{left} traces");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_single_byte_change_of_an_export_is_found_and_its_entry_named(at in any::<Index>(), flip in 1u8..) {
        let at = at.index(sample().len());
        let mut changed = sample().to_vec();
        changed[at] ^= flip;
        assert_found(&changed, at, entry_at(sample(), at));
    }

    #[test]
    fn every_removed_or_inserted_byte_of_an_export_is_found(at in any::<Index>(), byte in any::<u8>(), insert in any::<bool>()) {
        let at = at.index(sample().len());
        let mut changed = sample().to_vec();
        if insert { changed.insert(at, byte) } else { changed.remove(at); }
        prop_assert!(changed == sample() || !check(&changed, &Expectations::default()).is_intact());
    }

    #[test]
    fn arbitrary_files_never_panic(text in ".{0,400}", header in any::<bool>()) {
        let mut bytes = if header { lines(sample())[0].to_vec() } else { Vec::new() };
        bytes.extend_from_slice(text.as_bytes());
        prop_assert!(!check(&bytes, &Expectations::default()).is_intact());
    }
}
