//! How fast a file becomes a snapshot: `cargo bench -p hospes-cohort --bench ingest -- [ROWS | FILE]`.
//!
//! Without a file it writes a synthetic table of ten columns (a subject key, six numbers, two categories, a label) and reads it as the
//! engine does when a dataset is registered: a survey, which finds out format, types and identifiers, and then the freeze,
//! which types every cell, hashes subject keys, compresses, encrypts and makes durable. Both read the whole file.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use hospes_cohort::opt_out::SubjectKey;
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::snapshot::{Freeze, SnapshotKey, freeze};
use hospes_cohort::source::{Hints, Limits, survey};
use hospes_protocol::id::Timestamp;

const ROWS: u64 = 2_000_000;

// What it measures is what it is for.
#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    // Cargo passes `--bench`.
    let asked = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let path = match asked.as_deref().map(|text| (text, text.parse::<u64>())) {
        Some((file, Err(_))) => std::path::PathBuf::from(file),
        other => {
            let path = folder.path().join("table.csv");
            write_table(&path, other.map_or(ROWS, |(_, rows)| rows.unwrap_or(ROWS)))?;
            path
        }
    };

    let start = Instant::now();
    let found = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default())?;
    let surveyed = start.elapsed();
    let subject = found.subject_guess.as_deref().context("no column tells patients apart")?;
    let (schema, rows, columns) = (found.schema(subject)?, found.rows, found.columns.len());
    let order = Freeze {
        source: (&path).into(),
        format: &found.format,
        schema: &schema,
        folder: folder.path(),
        public: true,
        at: Timestamp::from_millis(0),
        limits: Limits::default(),
    };
    let start = Instant::now();
    let snapshot = freeze(order, &SnapshotKey::from_bytes([1; 32]), &SubjectKey::from_bytes([2; 32]))?;
    let frozen = start.elapsed();
    #[allow(clippy::cast_precision_loss)]
    let rate = |seconds: f64| rows as f64 / seconds / 1e6;
    #[allow(clippy::cast_precision_loss)]
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (read, kept) = (mib(found.bytes), mib(snapshot.document.bytes));
    println!("{rows} rows of {columns} columns, {read:.1} MiB read, {kept:.1} MiB frozen");
    for (what, time) in [("survey", surveyed), ("freeze", frozen), ("together", surveyed + frozen)] {
        println!("{what}: {:.2} s, {:.2} M rows/s", time.as_secs_f64(), rate(time.as_secs_f64()));
    }
    println!("measured ingest {:.0}", rate((surveyed + frozen).as_secs_f64()) * 1e6);
    Ok(())
}

fn write_table(path: &Path, rows: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "subject_id,age,height,weight,pressure,glucose,rate,sex,kind,outcome")?;
    // A linear congruential generator (Knuth's MMIX constants) is random enough for a table nobody looks at.
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for row in 0..rows {
        let (age, height, weight) = (18 + next(80), 150 + next(50), 45 + next(80));
        let (pressure, glucose, rate) = (90 + next(90), next(2_000), 50 + next(70));
        writeln!(
            file,
            "P-{row},{age},{height}.{},{weight}.{},{pressure},{}.{:02},{rate},{},{},{}",
            next(10),
            next(10),
            glucose / 100,
            glucose % 100,
            ["f", "m"][usize::try_from(next(2))?],
            ["a", "b", "c", "d"][usize::try_from(next(4))?],
            next(2)
        )?;
    }
    file.flush()?;
    Ok(())
}
