//! Freezing, opening, altering; people who opted out.

use std::path::{Path, PathBuf};

use hospes_cohort::CohortError;
use hospes_cohort::opt_out::{OptOuts, SubjectKey};
use hospes_cohort::profile::profile;
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::schema::{ColumnKind, Schema};
use hospes_cohort::snapshot::{Freeze, Snapshot, SnapshotKey, freeze, freeze_followed};
use hospes_cohort::source::{Hints, Limits, Reading, Survey, survey};
use hospes_protocol::policy::Policy;
use proptest::prelude::*;

use crate::rig::{NOW, Rig, table, write};

fn frozen(folder: &Path, text: &str, change: impl FnOnce(&mut Schema)) -> Result<Snapshot, CohortError> {
    let path = write(folder, "data.csv", text);
    let found: Survey = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default())?;
    let mut schema = found.schema("id")?;
    change(&mut schema);
    freeze(order((&path, folder), &found, &schema), &SnapshotKey::from_bytes([1; 32]), &SubjectKey::from_bytes([2; 32]))
}

/// To freeze what was surveyed at this path into the folder.
fn order<'a>((path, folder): (&'a PathBuf, &'a Path), found: &'a Survey, schema: &'a Schema) -> Freeze<'a> {
    Freeze {
        source: path.into(),
        format: &found.format,
        schema,
        folder,
        public: false,
        at: NOW,
        limits: Limits::default(),
    }
}

#[test]
fn a_snapshot_holds_counts_and_no_readable_value() {
    let folder = tempfile::tempdir().unwrap();
    let text = "id,secret_name,value,kind\nCANARY-A,CANARY-B,1.5,u\nCANARY-A,CANARY-C,2.5,v\nCANARY-D,CANARY-B,?,u\n";
    let snapshot = frozen(folder.path(), text, |_| {}).unwrap();
    let document = &snapshot.document;
    assert_eq!((document.rows, document.subjects), (3, 2));
    assert_eq!(document.masked, ["secret_name"]);
    assert_eq!(document.schema.columns.len(), 3);
    let bytes = std::fs::read(&snapshot.path).unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"CANARY"));
    assert!(!document.bytes().windows(6).any(|w| w == b"CANARY"));
    assert_eq!(snapshot.path.file_stem().unwrap().to_str().unwrap(), document.digest().to_string());
    snapshot.verify().unwrap();
    // Nothing half-written is left behind.
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().ends_with(".part")), "{names:?}");
}

#[test]
fn a_reading_is_followed_and_ended_at_its_next_row_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "data.csv", "id,age\na,1\nb,2\nc,3\n");
    let reading = Reading::default();
    let hints = Hints { reading: reading.clone(), ..Hints::default() };
    let look = || survey(&path, &hints, ScanProfile::Default, Limits::default());
    let found = look().unwrap();
    assert_eq!((reading.rows(), reading.all(), reading.is_over()), (3, None, false));
    let schema = found.schema("id").unwrap();
    let frozen = || {
        let order = order((&path, folder.path()), &found, &schema);
        let (key, subjects) = (SnapshotKey::from_bytes([1; 32]), SubjectKey::from_bytes([2; 32]));
        freeze_followed(order, &key, &subjects, (&reading, found.rows))
    };
    frozen().unwrap();
    assert_eq!((reading.rows(), reading.all()), (3, Some(3)));

    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = files();
    reading.end();
    assert!(matches!(frozen(), Err(CohortError::Cancelled)));
    assert!(matches!(look(), Err(CohortError::Cancelled)));
    assert_eq!((reading.rows(), files()), (1, before));
}

#[test]
fn an_altered_or_foreign_snapshot_is_refused_before_any_row() {
    let rig = Rig::new(&table(60));
    let original = std::fs::read(&rig.snapshot.path).unwrap();
    let count = || rig.snapshot.count_subjects(&rig.key, &OptOuts::new());
    assert_eq!(count().unwrap().total, 60);
    for change in [0, original.len() / 2, original.len() - 1] {
        let mut altered = original.clone();
        altered[change] ^= 1;
        std::fs::write(&rig.snapshot.path, &altered).unwrap();
        assert!(matches!(count(), Err(CohortError::Altered { what: "its SHA-256 differs", .. })));
    }
    std::fs::write(&rig.snapshot.path, &original[..original.len() - 1]).unwrap();
    assert!(matches!(count(), Err(CohortError::Altered { what: "its length differs", .. })));
    std::fs::write(&rig.snapshot.path, &original).unwrap();
    let wrong = rig.snapshot.count_subjects(&SnapshotKey::from_bytes([9; 32]), &OptOuts::new());
    assert!(matches!(wrong, Err(CohortError::Key { .. })));
    std::fs::remove_file(&rig.snapshot.path).unwrap();
    assert!(matches!(count(), Err(CohortError::OpenSource { .. })));
}

#[test]
fn cells_that_do_not_fit_are_named_without_their_value() {
    let folder = tempfile::tempdir().unwrap();
    let message = |text: &str, change: fn(&mut Schema)| frozen(folder.path(), text, change).unwrap_err().to_string();
    assert_eq!(
        message("id,a\n1,2\n2,CANARY\n", |s| s.set_kind("a", ColumnKind::Number).unwrap()),
        "data.csv, line 3, column 'a': the cell is no number"
    );
    assert_eq!(
        message("id,a\n1,2024-01\n2,CANARY\n", |s| {
            s.set_kind("a", ColumnKind::Date).unwrap();
            s.set_masked("a", false).unwrap();
        }),
        "data.csv, line 3, column 'a': the cell is no date"
    );
    assert_eq!(message("id,a\n1,2\n?,3\n", |_| {}), "data.csv, line 3: the subject column 'id' is empty");
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "only the source is left");
}

#[test]
fn the_source_can_change_after_freezing_but_not_between_survey_and_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "data.csv", "id,a\n1,2\n2,3\n");
    let found = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap();
    let schema = found.schema("id").unwrap();
    write(folder.path(), "data.csv", "id,b\n1,2\n2,3\n");
    let order = order((&path, folder.path()), &found, &schema);
    let (key, subjects) = (SnapshotKey::from_bytes([1; 32]), SubjectKey::from_bytes([2; 32]));
    assert!(matches!(freeze(order, &key, &subjects), Err(CohortError::SourceChanged { .. })));
    write(folder.path(), "data.csv", "id,a\n1,2\n2,3\n");
    let snapshot = freeze(order, &key, &subjects).unwrap();
    write(folder.path(), "data.csv", "id,a\n1,99\n");
    assert_eq!(snapshot.count_subjects(&key, &OptOuts::new()).unwrap().total, 2);
}

#[test]
fn ten_thousand_columns_are_frozen_profiled_and_trained_on() {
    let wide: String = table(60)
        .lines()
        .enumerate()
        .map(|(row, line)| {
            let more: Vec<String> = (0..9_994).map(|c| if row == 0 { format!("c{c}") } else { "7".into() }).collect();
            format!("{line},{}\n", more.join(","))
        })
        .collect();
    let rig = Rig::new(&wide);
    assert_eq!(rig.snapshot.document.schema.columns.len(), 10_000);
    let full = profile(&rig.snapshot, &rig.key, 10.0).unwrap();
    assert_eq!(full.columns.len(), 9_999);
    let column = |name: &str| full.columns.iter().find(|c| c.name == name).unwrap();
    assert_eq!(column("c9993").number.as_ref().map(|n| (n.mean, n.counts.clone())), Some((7.0, vec![Some(60)])));
    assert_eq!(column("fold").levels.iter().map(|l| l.rows).collect::<Vec<_>>(), [Some(40), Some(20)]);
    let trained = hospes_cohort::worker::execute(&rig.order("train"), &|| NOW, &mut |_| true);
    assert!(matches!(trained, hospes_cohort::worker::Event::Done(_)), "{trained:?}");
}

#[test]
fn names_that_do_not_fit_into_a_document_are_refused_with_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..9_999).map(|c| format!("c{c}{}", "x".repeat(120))).collect();
    let text = format!("id,{}\n1,{}\n2,{}\n", names.join(","), vec!["1"; 9_999].join(","), vec!["1"; 9_999].join(","));
    assert_eq!(
        frozen(folder.path(), &text, |_| {}).unwrap_err().to_string(),
        "the names of 10000 columns need more than the 1,048,576 bytes of a snapshot's document; register fewer columns, \
         or give them shorter names"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the source is left");
}

/// A figure of this process, in the file's own unit.
#[cfg(target_os = "linux")]
fn process(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn the_source_is_hashed_as_it_is_read_and_a_profile_keeps_no_values() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "id,a,b,c,d,e,f,g,h\n".to_owned();
    (0..300_000u32).for_each(|i| text.push_str(&format!("{},1,2,3,4,5,6,7,{}\n", i % 5_000, i % 977)));
    let path = write(folder.path(), "data.csv", &text);
    let found = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap();
    let schema = found.schema("id").unwrap();
    let order = order((&path, folder.path()), &found, &schema);
    let key = SnapshotKey::from_bytes([1; 32]);
    let before = process("io", "rchar");
    let snapshot = freeze(order, &key, &SubjectKey::from_bytes([2; 32])).unwrap();
    let read = process("io", "rchar") - before;
    assert_eq!(snapshot.document.source, hospes_protocol::id::Digest::of(text.as_bytes()));
    assert!(read < text.len() as u64 * 3 / 2, "{read} bytes were read of a source of {}", text.len());
    // Eight columns of 300 000 values are 18 MiB.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = process("status", "VmRSS");
    let profile = profile(&snapshot, &key, 10.0).unwrap();
    let more = process("status", "VmHWM").saturating_sub(before);
    assert_eq!(profile.columns[7].number.as_ref().map(|n| n.counts.iter().flatten().sum()), Some(300_000u64));
    assert!(more < 14 << 10, "{more} KiB more");
}

#[test]
fn a_folder_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "data.csv", "id,a\n1,2\n");
    let found = survey(&path, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap();
    let (absent, schema) = (folder.path().join("absent"), found.schema("id").unwrap());
    let order = order((&path, absent.as_path()), &found, &schema);
    let error = freeze(order, &SnapshotKey::from_bytes([1; 32]), &SubjectKey::from_bytes([2; 32])).unwrap_err();
    assert!(matches!(error, CohortError::Write { .. }));
}

#[test]
fn versions_have_one_form_if_query_mapping_and_schema_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let of = |text: &str, kind: ColumnKind, keep_note: bool| {
        let change = |schema: &mut Schema| {
            schema.set_kind("dose", kind).unwrap();
            for column in ["age", "dose"] {
                schema.set_masked(column, false).unwrap();
            }
            if schema.column("note").is_some() {
                schema.set_masked("note", !keep_note).unwrap();
            }
        };
        frozen(folder.path(), text, change).unwrap().document
    };
    let first = of("id,age,dose\n1,50.5,1.5\n2,61.5,2.5\n", ColumnKind::Number, false);
    let form = first.form().unwrap();
    // Other rows, another order, another way to write the same, keys that are no numbers, a column that is not kept.
    let later = of("note;dose;age;id\nx;1,5;50,5;1\ny;2,25;61,5;P3\nz;4,5;40,5;P4\n", ColumnKind::Number, false);
    assert_ne!(later.digest(), first.digest());
    assert_eq!(later.form().unwrap(), form);
    for (what, other) in [
        ("another type", of("id,age,dose\n1,50.5,1.5\n2,61.5,2.5\n", ColumnKind::Text, false)),
        ("one column more", of("id,age,dose,note\n1,50.5,1.5,x\n2,61.5,2.5,y\n", ColumnKind::Number, true)),
    ] {
        assert_ne!(other.form().unwrap(), form, "{what}");
    }
    let mut public = (*first).clone();
    public.public = true;
    assert_ne!(public.form().unwrap(), form, "the tag public");
    let mut read_otherwise = (*first).clone();
    read_otherwise.format.missing.push("999".into());
    assert_ne!(read_otherwise.form().unwrap(), form, "what means missing");
}

#[test]
fn opted_out_subjects_are_counted_out() {
    let rig = Rig::new(&table(60));
    let file = write(rig.folder.path(), "optout.csv", "subject_id\nP-3\nP-4\nP-4\nP-1000\n");
    let mut list = OptOuts::new();
    let report = list.import(&file, &rig.subjects).unwrap();
    assert_eq!((report.read, report.added, report.known), (5, 4, 1));
    let count = rig.snapshot.count_subjects(&rig.key, &list).unwrap();
    assert_eq!((count.total, count.opted_out, count.left()), (60, 2, 58));
    assert_eq!(rig.snapshot.facts(count).subjects, 58);
}

#[test]
fn a_profile_is_full_for_the_steward_and_suppressed_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "id,value,kind\n".to_owned();
    for i in 0..100 {
        let kind = if i < 3 {
            "rare"
        } else if i < 30 {
            "some"
        } else {
            "most"
        };
        text.push_str(&format!("{i},{i},{kind}\n"));
    }
    let snapshot = frozen(folder.path(), &text, |s| s.set_masked("value", false).unwrap()).unwrap();
    let full = profile(&snapshot, &SnapshotKey::from_bytes([1; 32]), 10.0).unwrap();
    let value = full.columns.iter().find(|c| c.name == "value").unwrap().number.as_ref().unwrap();
    assert_eq!((value.min, value.max, value.counts.len()), (Some(0.0), Some(99.0), 10));
    let kinds = |p: &hospes_cohort::profile::Profile| -> Vec<(String, Option<u64>)> {
        let column = p.columns.iter().find(|c| c.name == "kind").unwrap();
        column.levels.iter().map(|l| (l.code.clone(), l.rows)).collect()
    };
    assert_eq!(kinds(&full), [("most".into(), Some(70)), ("some".into(), Some(27)), ("rare".into(), Some(3))]);
    assert!(full.columns.iter().all(|c| c.name != "id"));
    let shared = full.suppressed(&Policy::strict().disclosure);
    assert_eq!(kinds(&shared), [("most".into(), Some(70)), ("some".into(), None), ("rare".into(), None)]);
    let value = shared.columns.iter().find(|c| c.name == "value").unwrap().number.as_ref().unwrap();
    assert_eq!((value.min, value.max), (None, None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn freezing_keeps_counts_of_rows_subjects_and_missing_values(
        rows in proptest::collection::vec((0u8..20, proptest::option::of(-1000i32..1000)), 1..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "id,value\n".to_owned();
        for (subject, value) in &rows {
            let cell = value.map_or("?".to_owned(), |v| (f64::from(v) / 8.0).to_string());
            text.push_str(&format!("S{subject},{cell}\n"));
        }
        let snapshot = frozen(folder.path(), &text, |s| s.set_masked("value", false).unwrap()).unwrap();
        let profile = profile(&snapshot, &SnapshotKey::from_bytes([1; 32]), 10.0).unwrap();
        // -9 is a marker for missing as well.
        let values = rows.iter().filter_map(|(_, v)| v.map(|v| f64::from(v) / 8.0));
        let present: Vec<f64> = values.filter(|v| *v != -9.0).collect();
        let subjects: std::collections::BTreeSet<u8> = rows.iter().map(|(s, _)| *s).collect();
        prop_assert_eq!(profile.rows, rows.len() as u64);
        prop_assert_eq!(profile.subjects, subjects.len() as u64);
        prop_assert_eq!(profile.columns[0].present, present.len() as u64);
        if let Some(number) = &profile.columns[0].number {
            let mean = present.iter().sum::<f64>() / present.len() as f64;
            prop_assert!((number.mean - mean).abs() < 1e-9);
            prop_assert_eq!(number.counts.iter().flatten().sum::<u64>(), present.len() as u64);
        }
    }
}
