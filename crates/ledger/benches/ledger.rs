//! Appending with one fsync a batch, and verifying an export (`specs/performance.md`: 5 k/s and 200 k/s a core).

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hospes_ledger::{Action, Actor, Engine, Entry, Expectations, Ledger, ObjectKind, Purpose, verify};
use hospes_protocol::id::{Digest, StudyId, Timestamp};
use hospes_protocol::sign::SecretKey;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};

/// Entries of one transaction.
const BATCH: u64 = 256;
/// Entries of the ledger that is verified.
const VERIFIED: u64 = 100_000;
/// Entries of a log of which a page is read.
const PAGED: u64 = 1_000_000;

fn entry(n: u64) -> Entry {
    let at = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(n).unwrap_or(0));
    Entry::new(at, Actor::Engine, Action::UpdatePrepared, Engine::new("hospes-site 0.1.0"))
        .object(ObjectKind::Round, n, Some(Digest::of(&n.to_be_bytes())))
        .purpose(Purpose { study: Some(StudyId::new(at, [1; 10])), ..Purpose::default() })
}

async fn open(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the database opens");
    Ledger::on(&mut connection).create().await.expect("the tables are made");
    connection
}

async fn append(connection: &mut SqliteConnection, entries: &[Entry]) {
    let mut transaction = connection.begin().await.expect("a transaction begins");
    Ledger::on(&mut *transaction).append_all(entries, &[7; 32]).await.expect("the entries are appended");
    transaction.commit().await.expect("the transaction commits");
}

fn ledger(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut connection = runtime.block_on(open(&folder.path().join("append.db")));
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(BATCH));
    let mut next = 0;
    group.bench_function("append_one_fsync_a_batch", |bench| {
        bench.iter_batched(
            || {
                next += BATCH;
                (next - BATCH..next).map(entry).collect::<Vec<_>>()
            },
            |entries| runtime.block_on(append(&mut connection, &entries)),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("append_one_fsync_an_entry", |bench| {
        bench.iter(|| runtime.block_on(append(&mut connection, &[entry(0)])));
    });

    let mut connection = runtime.block_on(open(&folder.path().join("verify.db")));
    let mut bytes = Vec::new();
    runtime.block_on(async {
        let entries: Vec<Entry> = (0..VERIFIED).map(entry).collect();
        append(&mut connection, &entries).await;
        let key = SecretKey::from_seed(&[1; 32]);
        let made = Timestamp::from_millis(1_800_000_000_000);
        Ledger::on(&mut connection).export(&key, made, &mut bytes).await.expect("the export is written");
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(VERIFIED));
    group.bench_function("verify", |bench| {
        bench.iter(|| {
            let report = verify(&mut bytes.as_slice(), &Expectations::default()).expect("memory can be read");
            assert!(report.is_intact());
            black_box(report)
        });
    });
    let mut have = VERIFIED;
    while have < PAGED {
        let entries: Vec<Entry> = (have..have + VERIFIED).map(entry).collect();
        runtime.block_on(append(&mut connection, &entries));
        have += VERIFIED;
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("page_of_100", |bench| {
        bench.iter(|| {
            let page = runtime
                .block_on(async { Ledger::on(&mut connection).page(&hospes_ledger::Filter::default(), 100).await });
            black_box(page.expect("a page is read"))
        });
    });
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
