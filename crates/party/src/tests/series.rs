//! Approvals of a series, with real snapshots: which version a run reads, and where none is read without new signatures.

use hospes_protocol::approval::{ApprovalDocument, Refusal, RefusalCode};

use super::watching::database;
use super::*;
use crate::error::PartyError;
use crate::requests::text::render;
use crate::view::{AuditQuery, FileReading, GapView, ScanProfile, SeriesBounds, SeriesOffer};

/// The example's table registered anew under its name: so many of its patients, each line as `line` makes it.
pub(super) async fn version(world: &World, patients: usize, line: impl Fn(usize, &str) -> String) -> DatasetView {
    version_with(world, patients, &[], line).await
}

/// The same, with these columns kept whatever the identifier scan finds.
async fn version_with(
    world: &World,
    patients: usize,
    keep: &[&str],
    line: impl Fn(usize, &str) -> String,
) -> DatasetView {
    let text = std::fs::read_to_string(heart("cleveland.csv")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later.csv");
    let lines: Vec<String> = text.lines().take(patients + 1).enumerate().map(|(n, text)| line(n, text)).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    world.pass_time(1_000);
    let dataset = NewDataset {
        name: "Cleveland".into(),
        path,
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: keep.iter().map(|column| (*column).to_owned()).collect(),
        public: true,
        duo: Vec::new(),
    };
    world.handle.add_dataset(world.who("sam"), dataset).await.unwrap()
}

fn as_it_is(_: usize, line: &str) -> String {
    line.to_owned()
}

/// With one column more.
fn with_bmi(n: usize, line: &str) -> String {
    format!("{line},{}", if n == 0 { "bmi" } else { "25.5" })
}

async fn first(world: &World) -> DatasetView {
    world.handle.datasets(world.who("sam")).await.unwrap().remove(0)
}

/// A site at which a study was offered.
async fn offered(rounds: u32) -> (World, Study) {
    let mut world = World::new().await;
    let study = study(1, small_plan(rounds));
    world.connect().await;
    world.offer(&study).await;
    (world, study)
}

/// Three runs on the series.
fn series(study: &Study, fewest: u64, most: u64) -> Approving {
    Approving { max_runs: 3, series: Some(SeriesBounds { fewest, most }), ..exactly(study.id) }
}

/// Entries with this action, oldest first, in words.
async fn entries(world: &World, action: &str) -> Vec<String> {
    let query = AuditQuery { actions: vec![action.to_owned()], limit: 100, ..AuditQuery::default() };
    let page = world.handle.audit(world.who("ana"), query).await.unwrap();
    page.entries.into_iter().rev().map(|entry| entry.detail).collect()
}

/// The ledger has the words of a refusal that the coordinator has not.
async fn recorded_here(world: &World, action: &str, refusal: &Refusal, words: &str) {
    assert!(refusal.detail.contains("the site's staff can see why"), "{refusal}");
    let entries = entries(world, action).await;
    assert!(entries.last().is_some_and(|entry| entry.contains(words)), "{entries:?}");
}

/// Opens a round of a run and takes its update.
async fn round(world: &mut World, study: &Study, run: u8, number: u32) {
    let opened = header(study, job(run), "train", number, 1, world.now());
    world.open_round(opened.clone()).await;
    if (run, number) == (1, 1) {
        world.serve_model(study).await;
    }
    let (upload, path) = world.expect_upload().await;
    world.take(&upload, &path).await;
    world.close_round(&opened).await;
    world.settle().await;
}

async fn series_words(world: &World, study: &Study) -> String {
    let review = world.handle.review(world.who("ava"), study.id, None).await.unwrap();
    review.findings.into_iter().find(|f| f.rule == "series").map(|f| f.words).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_reads_the_newest_version_and_one_under_way_keeps_its_own() {
    let (mut world, study) = offered(2).await;
    world.approve_as(&study, series(&study, 250, 350)).await;
    let one = first(&world).await;
    world.start_job(&study, job(1)).await;
    round(&mut world, &study, 1, 1).await;
    let two = version(&world, 300, as_it_is).await;
    assert_eq!((two.version, two.former), (2, Some(one.id)));
    let words = series_words(&world, &study).await;
    assert!(words.contains("300 patients; the next run reads it without another signature"), "{words}");
    round(&mut world, &study, 1, 2).await;
    world.start_job(&study, job(2)).await;
    round(&mut world, &study, 2, 1).await;
    assert_eq!(world.entered("approval_signed", "success").await, 1);
    assert_eq!(world.entered("approval_countersigned", "success").await, 1);

    // The log names what was read: in the permit, and again where the work began.
    let permits = entries(&world, "permit_minted").await;
    let began = entries(&world, "training_started").await;
    for (n, (read, number)) in [(&one, 1), (&one, 1), (&two, 2)].into_iter().enumerate() {
        assert!(permits[n].contains(&read.snapshot.to_string()), "{n}: {}", permits[n]);
        assert!(permits[n].contains(&read.id.to_string()), "{n}: {}", permits[n]);
        assert!(permits[n].contains(&format!("reads version {number} of the dataset")), "{n}: {}", permits[n]);
        assert!(began[n].contains(&read.snapshot.to_string()), "{n}: {}", began[n]);
    }
    for (read, runs) in [(one.id, 1), (two.id, 1)] {
        let uses = world.handle.dataset_uses(world.who("ana"), read).await.unwrap();
        assert_eq!(uses.iter().map(|used| (used.study, used.runs)).collect::<Vec<_>>(), [(study.id, runs)]);
        assert!(uses[0].bytes_left > 0);
    }

    // A version that a run reads stays; without it, the next run reads the one before.
    let remove = |id| world.handle.remove_dataset(world.who("sam"), id, "a wrong file".into());
    let refused = remove(two.id).await.unwrap_err().to_string();
    assert!(refused.contains("reads this version"), "{refused}");
    let refused = remove(one.id).await.unwrap_err().to_string();
    assert!(refused.contains("rests on this dataset"), "{refused}");
    world.handle.cancel_job(world.who("sam"), job(2), "a wrong file".into()).await.unwrap();
    world.handle.remove_dataset(world.who("sam"), two.id, "a wrong file".into()).await.unwrap();
    world.start_job(&study, job(3)).await;
    round(&mut world, &study, 3, 1).await;
    let permits = entries(&world, "permit_minted").await;
    assert!(permits[3].contains(&one.snapshot.to_string()), "{}", permits[3]);
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_begins_on_a_version_outside_the_bounds_or_with_other_columns() {
    let (mut world, study) = offered(1).await;
    world.approve_as(&study, series(&study, 301, 310)).await;
    // Reserved before the version came, and begun after it.
    world.start_job(&study, job(1)).await;
    version(&world, 300, as_it_is).await;
    world.open_round(header(&study, job(1), "train", 1, 1, world.now())).await;
    let reply = world.expect_reply().await;
    let RoundReply::Refused(refusal) = &reply else { panic!("{reply:?}") };
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    recorded_here(&world, "permit_refused", refusal, "version 2 of the data has fewer or more subjects").await;
    assert!(!refusal.detail.contains("30"), "a number of patients was told: {refusal}");
    let words = series_words(&world, &study).await;
    assert!(words.contains("with 300 patients, and no run begins on it: version 2"), "{words}");

    version(&world, 303, with_bmi).await;
    let refusal = world.reserve(&study, job(2)).await.expect("the reservation was taken");
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    recorded_here(&world, "job_started", &refusal, "version 3 of the data has other columns or types").await;
    assert_eq!(world.entered("job_started", "refused").await, 1);

    // The next one keeps to what was signed.
    let four = version(&world, 302, as_it_is).await;
    world.start_job(&study, job(2)).await;
    world.open_round(header(&study, job(2), "train", 1, 1, world.now())).await;
    world.serve_model(&study).await;
    world.expect_upload().await;
    let permits = entries(&world, "permit_minted").await;
    assert!(permits[0].contains(&four.snapshot.to_string()), "{permits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_of_a_snapshot_reads_that_one_whatever_is_registered_later() {
    let (mut world, study) = offered(2).await;
    world.approve_as(&study, Approving { max_runs: 2, ..exactly(study.id) }).await;
    let one = first(&world).await;
    world.start_job(&study, job(1)).await;
    round(&mut world, &study, 1, 1).await;
    let two = version(&world, 300, as_it_is).await;
    assert!(series_words(&world, &study).await.contains("given again for another version"));
    world.start_job(&study, job(2)).await;
    round(&mut world, &study, 2, 1).await;
    let permits = entries(&world, "permit_minted").await;
    assert!(permits.iter().all(|permit| permit.contains(&one.snapshot.to_string())), "{permits:?}");
    assert!(permits.iter().all(|permit| !permit.contains("reads version")), "{permits:?}");

    // Another version is approved in its place: a run under way does not change its rows, and the next reads that one.
    world.approve_as(&study, Approving { dataset: Some(two.id), max_runs: 2, ..exactly(study.id) }).await;
    world.open_round(header(&study, job(1), "train", 2, 1, world.now())).await;
    let reply = world.expect_reply().await;
    assert!(matches!(&reply, RoundReply::Refused(r) if r.code == RefusalCode::Snapshot), "{reply:?}");
    world.start_job(&study, job(3)).await;
    round(&mut world, &study, 3, 1).await;
    let permits = entries(&world, "permit_minted").await;
    assert!(permits[2].contains(&two.snapshot.to_string()), "{permits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_that_were_altered_in_the_database_open_nothing() {
    let (mut world, study) = offered(1).await;
    world.approve_as(&study, series(&study, 301, 310)).await;
    version(&world, 300, as_it_is).await;
    let mut conn = database(&world).await;
    let bytes: Vec<u8> = sqlx::query_scalar("SELECT document FROM approvals").fetch_one(&mut conn).await.unwrap();
    let mut document = Canonical::<ApprovalDocument>::parse(&bytes).unwrap().into_inner();
    document.envelope.data.series.as_mut().unwrap().min_subjects = 1;
    let altered = Canonical::new(document).unwrap();
    let update = sqlx::query("UPDATE approvals SET document = ?1").bind(altered.bytes().to_vec());
    assert_eq!(update.execute(&mut conn).await.unwrap().rows_affected(), 1);
    world.start_job_expecting(&study, job(1), RefusalCode::Signatures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_terms_of_use_ended_is_not_read_without_people() {
    let (mut world, study) = offered(1).await;
    world.approve_as(&study, series(&study, 250, 350)).await;
    let two = version(&world, 300, as_it_is).await;
    let yesterday = world.now().plus_millis(-DAY).to_string()[..10].to_owned();
    let ended = vec!["DUO:0000042".to_owned(), format!("DUO:0000025={yesterday}")];
    world.handle.tag_dataset(world.who("sam"), two.id, ended).await.unwrap();
    let refusal = world.reserve(&study, job(1)).await.expect("the reservation was taken");
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    recorded_here(&world, "job_started", &refusal, "the terms of use of version 2 of the data allow no use any more")
        .await;
    world.handle.tag_dataset(world.who("sam"), two.id, vec!["DUO:0000042".into()]).await.unwrap();
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_in_which_a_column_looks_like_an_identifier_is_not_read_without_people() {
    let (mut world, study) = offered(1).await;
    world.approve_as(&study, series(&study, 250, 350)).await;
    // What the plan reads as a number has another whole number in each row.
    let numbered = |n: usize, line: &str| {
        let mut cells: Vec<String> = line.split(',').map(str::to_owned).collect();
        if n > 0 {
            cells[5] = (10_000 + n).to_string();
        }
        cells.join(",")
    };
    let two = version_with(&world, 300, &["chol"], numbered).await;
    let chol = two.columns.iter().find(|column| column.name == "chol").unwrap();
    assert!(!chol.masked && !chol.findings.is_empty(), "{chol:?}");
    let refusal = world.reserve(&study, job(1)).await.expect("the reservation was taken");
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    recorded_here(&world, "job_started", &refusal, "a column of version 2 of the data looks like an identifier").await;
    let words = series_words(&world, &study).await;
    assert!(words.contains("no run begins on it: a column of version 2"), "{words}");
    // People who read about that version decide.
    world.approve_as(&study, Approving { dataset: Some(two.id), ..series(&study, 250, 350) }).await;
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_small_for_the_levels_of_a_category_is_not_read() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    // The category with most levels has four: enough patients in the version that is signed, and too few in the next.
    let mut policy = Policy::public_data();
    policy.disclosure.levels_density = 4.01 / 303.0;
    world.set_policy(&policy).await;
    world.connect().await;
    world.offer(&study).await;
    world.approve_as(&study, series(&study, 250, 350)).await;
    version(&world, 300, as_it_is).await;
    let refusal = world.reserve(&study, job(1)).await.expect("the reservation was taken");
    assert_eq!(refusal.code, RefusalCode::Snapshot);
    recorded_here(&world, "job_started", &refusal, "too few subjects for the levels of a category").await;
    assert!(!refusal.detail.contains("30"), "a number of patients was told: {refusal}");
    version(&world, 303, as_it_is).await;
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_is_signed_on_its_newest_version_within_bounds_and_where_the_policy_lets_it() {
    let (mut world, study) = offered(1).await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    let offer = SeriesOffer { patients: 303, bounds: SeriesBounds { fewest: 272, most: 454 } };
    assert_eq!(review.data.series, Some(offer));
    let missing = review.data.facts.iter().find(|fact| fact.label == "Cells that mean missing");
    assert_eq!(missing.and_then(|fact| fact.value.as_deref()), Some("empty cells, '?', 'NA', 'N/A', '-9'"));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = words(&render(&review));
    let plain = "Versions that are approved: this snapshot alone, if the first signer does not choose otherwise";
    assert!(shown.contains(plain), "{shown}");
    let approve = |approving| world.sign("sam", approving);
    for (fewest, most) in [(304, 400), (1, 302), (400, 300)] {
        let refused = approve(series(&study, fewest, most)).await;
        assert!(matches!(&refused, Err(PartyError::Input { place: "series", .. })), "{refused:?}");
    }
    let one = first(&world).await;
    let two = version(&world, 300, as_it_is).await;
    let older = approve(Approving { dataset: Some(one.id), ..series(&study, 250, 350) }).await;
    assert!(matches!(&older, Err(PartyError::Input { reason, .. }) if reason.contains("version 2")), "{older:?}");

    let signed = approve(Approving { dataset: Some(two.id), ..series(&study, 250, 350) }).await.unwrap();
    let review = world.handle.review(world.who("ava"), study.id, None).await.unwrap();
    let shown = words(&render(&review));
    for part in [
        "this and later versions, with 250 to 350 patients, those who opted out among them",
        "later versions of the dataset with 250 to 350 patients and the same columns are used without another signature",
        &format!("Approval to be signed {}", signed.digest),
    ] {
        assert!(shown.contains(part), "'{part}' is missing in\n{shown}");
    }

    let mut policy = Policy::public_data();
    policy.approval.snapshots_only = true;
    world.set_policy(&policy).await;
    let review = world.handle.review(world.who("sam"), study.id, Some(two.id)).await.unwrap();
    assert_eq!(review.data.series, None);
    assert!(words(&render(&review)).contains("this snapshot alone, as the policy demands"));
    let refused = approve(Approving { dataset: Some(two.id), ..series(&study, 250, 350) }).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("snapshots_only")), "{refused:?}");
    world.approve_as(&study, Approving { dataset: Some(two.id), ..exactly(study.id) }).await;
    world.start_job(&study, job(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_goes_on_from_the_newest_version_that_is_left() {
    let world = World::new().await;
    let one = first(&world).await;
    let two = version(&world, 300, as_it_is).await;
    let three = version(&world, 302, as_it_is).await;
    for id in [two.id, three.id] {
        world.handle.remove_dataset(world.who("sam"), id, "a wrong file".into()).await.unwrap();
    }
    assert_eq!(first(&world).await.name, "Cleveland");
    let again = version(&world, 301, as_it_is).await;
    assert_eq!((again.version, again.former), (2, Some(one.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_missing_is_asked_chosen_logged_and_the_same_in_every_version() {
    let world = World::new().await;
    let path = world.folder.join("labs.csv");
    let mut text = "subject_id,temp,visit\n".to_owned();
    for i in 0..40 {
        let temp = if i % 4 == 0 { 999 } else { 36 + i % 3 };
        text.push_str(&format!("P-{i},{temp},2024-03\n"));
    }
    std::fs::write(&path, text).unwrap();
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let look = |missing| {
        let reading = FileReading { missing, scan: ScanProfile::HipaaSafeHarbor, ..FileReading::default() };
        world.handle.survey(world.who("sam"), path.clone(), reading)
    };
    let gap = |is_missing| GapView { column: "temp".into(), marker: "999".into(), cells: 10, is_missing };
    let found = look(None).await.unwrap();
    assert_eq!(found.missing, ["?", "NA", "N/A", "-9"]);
    assert_eq!(found.gaps, [gap(false)]);
    let found = look(texts(&["999"])).await.unwrap();
    assert_eq!(found.missing, ["999"]);
    assert_eq!(found.gaps, [gap(true)]);
    let long = vec!["x".repeat(40); 20];
    for wrong in [vec!["a\nb".to_owned()], vec!["x".repeat(41)], vec!["x".to_owned(); 51], long] {
        let refused = look(Some(wrong)).await.unwrap_err();
        assert!(matches!(refused, PartyError::Input { place: "missing", .. }), "{refused}");
    }

    let new = |missing: Option<Vec<String>>, scan: ScanProfile| NewDataset {
        name: "Labs".into(),
        path: path.clone(),
        query: None,
        sheet: None,
        missing,
        scan,
        subject: "subject_id".into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public: true,
        duo: Vec::new(),
    };
    let add = |dataset| world.handle.add_dataset(world.who("sam"), dataset);
    let one = add(new(texts(&["999"]), ScanProfile::HipaaSafeHarbor)).await.unwrap();
    assert_eq!(one.missing, ["999"]);
    let masked: Vec<&str> = one.columns.iter().filter(|c| c.masked).map(|c| c.name.as_str()).collect();
    assert_eq!(masked, ["visit"], "a date finer than a year");
    let profile = world.handle.profile(world.who("sam"), one.id).await.unwrap().profile;
    assert_eq!(profile.columns.iter().find(|c| c.name == "temp").unwrap().present, 30);
    let entry = entries(&world, "dataset_registered").await.pop().unwrap();
    assert!(entry.contains("rules of HIPAA safe harbor; read as missing: empty cells, '999'"), "{entry}");

    // Its markers hold for the next version, and no others do.
    let refused = add(new(texts(&["?"]), ScanProfile::Default)).await.unwrap_err().to_string();
    let words = "its missing values are empty cells, '999', which must mean missing here too";
    assert!(refused.contains(words), "{refused}");
    world.pass_time(1_000);
    let two = add(new(None, ScanProfile::Default)).await.unwrap();
    assert_eq!((two.version, two.former), (2, Some(one.id)));
    assert_eq!(two.missing, ["999"]);
    assert!(two.columns.iter().all(|c| !c.masked), "months are let through by the usual scan");
}
