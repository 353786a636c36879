//! Approvals of a series: which later versions of a dataset lie inside, and that older approvals stay as they were.

use hospes_protocol::approval::{Approval, ApprovalDocument, RefusalCode, Series, VersionFacts};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::{DatasetId, Digest};

use crate::world::{NOW, World, code, given, refused, without};

fn dataset(number: u8) -> DatasetId {
    DatasetId::new(NOW, [number; 10])
}

/// The second version of the dataset was reviewed and its series approved, and the third is there.
fn third_version(w: &mut World) {
    let form = Digest::of(b"form");
    w.document.envelope.data.series =
        Some(Series { id: dataset(1), version: 2, form, min_subjects: 180, max_subjects: 300 });
    w.now.snapshot.digest = Digest::of(b"third");
    w.now.snapshot.version = Some(VersionFacts { series: dataset(1), version: 3, form, subjects: 199 });
}

/// What is known of the version that is there.
fn facts(w: &mut World) -> &mut VersionFacts {
    w.now.snapshot.version.as_mut().unwrap()
}

fn spoiled(spoil: impl FnOnce(&mut World)) -> (RefusalCode, String) {
    refused(|w| {
        third_version(w);
        spoil(w);
    })
}

#[test]
fn a_later_version_is_opened_and_no_other_snapshot() {
    let mut world = World::new();
    third_version(&mut world);
    let permit = world.approval().permit(&world.circumstances()).unwrap();
    assert_eq!(permit.snapshot(), Digest::of(b"third"));
    // The version that was reviewed lies inside too, whatever else is known of it.
    given(|w| {
        third_version(w);
        w.now.snapshot.digest = w.document.envelope.data.snapshot;
        w.now.snapshot.version = None;
    });
}

#[test]
fn a_version_that_differs_in_what_was_signed_is_refused_in_words() {
    let wrong: [(&str, &dyn Fn(&mut World)); 7] = [
        ("not of the dataset", &|w| facts(w).series = dataset(9)),
        ("version 2 of the data is not later", &|w| facts(w).version = 2),
        ("version 1 of the data is not later", &|w| facts(w).version = 1),
        ("version 3 of the data has other columns or types", &|w| facts(w).form = Digest::of(b"another form")),
        ("has fewer or more subjects than was approved", &|w| facts(w).subjects = 179),
        ("has fewer or more subjects than was approved", &|w| facts(w).subjects = 301),
        ("not the snapshot that was approved", &|w| w.now.snapshot.version = None),
    ];
    for (words, spoil) in wrong {
        let (code, detail) = spoiled(spoil);
        assert_eq!(code, RefusalCode::Snapshot, "{detail}");
        assert!(detail.contains(words), "{words}: {detail}");
        for number in ["179", "180", "300", "301"] {
            assert!(!detail.contains(number), "a refusal is told to the coordinator: {detail}");
        }
    }
    for subjects in [180, 300] {
        given(|w| {
            third_version(w);
            facts(w).subjects = subjects;
        });
    }
    assert_eq!(spoiled(|w| w.now.snapshot.columns = without(&w.now.snapshot.columns, "age")).0, RefusalCode::Snapshot);
}

#[test]
fn the_bounds_count_those_who_opted_out_and_what_is_left_is_the_policys_matter() {
    given(|w| {
        third_version(w);
        // Below the bounds, by people who opted out: it never voids an approval.
        w.now.snapshot.subjects = 100;
    });
    assert_eq!(spoiled(|w| w.now.snapshot.subjects = 9).0, RefusalCode::TooFewSubjects);
}

#[test]
fn an_approval_of_a_snapshot_is_for_no_other_version() {
    let (code, detail) = spoiled(|w| w.document.envelope.data.series = None);
    assert_eq!((code, detail.as_str()), (RefusalCode::Snapshot, "the data are not the snapshot that was approved"));
}

#[test]
fn a_policy_of_snapshots_only_refuses_the_series_whoever_signed() {
    let (code, detail) = spoiled(|w| w.policy.approval.snapshots_only = true);
    assert_eq!(code, RefusalCode::Policy);
    assert!(detail.contains("one snapshot only"), "{detail}");
    given(|w| w.policy.approval.snapshots_only = true);
}

#[test]
fn many_settings_are_run_on_one_snapshot_only() {
    let list = |w: &mut World| {
        let run = Canonical::new(w.run.clone()).unwrap().digest();
        w.document.envelope.computation.settings.insert(run);
    };
    given(list);
    let (code, detail) = spoiled(list);
    assert_eq!(code, RefusalCode::Snapshot);
    assert!(detail.contains("many settings"), "{detail}");
}

#[test]
fn bounds_that_were_changed_after_the_signatures_are_noticed() {
    let mut world = World::new();
    third_version(&mut world);
    facts(&mut world).subjects = 5_000;
    let signed = world.approval();
    let mut altered = (*signed.document).clone();
    altered.envelope.data.series.as_mut().unwrap().max_subjects = 10_000;
    let altered = Approval { document: Canonical::new(altered).unwrap(), signatures: signed.signatures };
    let refused = altered.permit(&world.circumstances()).unwrap_err();
    assert_eq!(refused.code, RefusalCode::Signatures, "{refused}");
    // So is a series that was put where there was none.
    let mut world = World::new();
    let signed = world.approval();
    third_version(&mut world);
    let widened = Approval { signatures: signed.signatures, ..world.approval() };
    assert_eq!(widened.permit(&world.circumstances()).unwrap_err().code, RefusalCode::Signatures);
}

#[test]
fn approvals_from_before_there_were_series_keep_their_bytes() {
    let mut world = World::new();
    let has_word = |document: &Canonical<ApprovalDocument>| document.bytes().windows(6).any(|part| part == b"series");
    let plain = world.approval().document;
    assert!(!has_word(&plain), "an approval of a snapshot says nothing of a series");
    assert_eq!(Canonical::<ApprovalDocument>::parse(plain.bytes()).unwrap().digest(), plain.digest());
    third_version(&mut world);
    let series = world.approval().document;
    assert!(has_word(&series));
    let read = Canonical::<ApprovalDocument>::parse(series.bytes()).unwrap();
    assert_eq!((read.digest(), &read.envelope.data), (series.digest(), &series.envelope.data));
    assert_eq!(code(|w| w.now.snapshot.digest = Digest::of(b"third")), RefusalCode::Snapshot);
}
