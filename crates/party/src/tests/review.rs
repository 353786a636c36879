//! What people read before they sign.

use super::*;
use crate::error::PartyError;
use crate::requests::text::render;
use crate::view::{ComputeLimits, QuietHours, RequestState, Weekday};

#[tokio::test(flavor = "multi_thread")]
async fn a_review_begins_with_what_the_coordinator_can_read_and_names_what_is_not_stated() {
    let mut world = World::new().await;
    let study = study(1, small_plan(2));
    world.connect().await;
    world.offer(&study).await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    let text = render(&review);
    assert!(text.starts_with("The coordinator can read this site's update"), "{text}");
    for part in [
        "PUBLIC DATA",
        "Basis, Art. 6 GDPR: not stated",
        "Ethics decision: not stated",
        "Site 2 (Hospital 2): asserted by the coordinator only",
        "updates already sent cannot be recalled",
        "13 of 16",
        "303 patients",
        "2 rounds of 5 steps",
        "Nothing of this requester was approved here before.",
        "Privacy officer's opinion: not stated",
        "Signatures: none yet",
        "'0.weight'",
    ] {
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(part), "'{part}' is missing in\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 110), "long lines");
    // The egress list names every byte: two updates with their weight, one set of figures.
    let listed: u64 = review.outputs.items.iter().map(|i| i.bytes * u64::from(i.times)).sum();
    assert_eq!(review.outputs.bytes_per_run, listed);
    let update: u64 =
        review.outputs.items.iter().filter(|i| i.task == "train").map(|i| i.bytes * u64::from(i.times)).sum();
    assert_eq!(update, 2 * (8 + 14 * 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_says_what_training_may_take_of_this_machine() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let labels =
        ["Quiet hours", "Share of the machine's time", "Threads of the processor", "Waits while somebody works here"];
    let said = |review: &crate::view::Review| {
        let of = |label: &str| review.settings.iter().find(|f| f.label == label).and_then(|f| f.value.clone());
        labels.map(|label| of(label).unwrap_or_default())
    };
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert_eq!(said(&review), ["none: training may compute at any hour", "100 %", "all", "no"]);
    let night = QuietHours { days: [Weekday::Monday, Weekday::Friday].into(), from: 22 * 60, to: 6 * 60 + 30 };
    let limits = ComputeLimits { quiet: vec![night], share: 40, threads: Some(2), yields: true };
    world.handle.set_compute_limits(world.who("ana"), limits).await.unwrap();
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert_eq!(said(&review), ["Monday, Friday 22:00 to 06:30", "40 %", "2", "yes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_policy_refuses_the_public_data_study_and_lists_every_rule() {
    let mut world = World::new().await;
    world.set_policy(&Policy::strict()).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert!(!review.approvable);
    let refusing: Vec<&str> = review.findings.iter().filter(|f| f.refuses).map(|f| f.rule.as_str()).collect();
    for rule in
        ["training.min_trusted_peers", "training.force_secure_aggregation", "egress.loss", "egress.metrics", "egress.n"]
    {
        assert!(refusing.contains(&rule), "{rule} is missing in {refusing:?}");
    }
    assert!(!render(&review).contains("PUBLIC DATA:"));
    let refused = world.sign("sam", exactly(study.id)).await;
    assert!(matches!(refused, Err(PartyError::Refused(_))), "{refused:?}");
    assert_eq!(world.entered("approval_signed", "refused").await, 1);
    assert_eq!(world.entered("setup_ended", "success").await, 0, "a refusal does not end set-up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_is_not_public_refuses_the_public_data_policy() {
    let mut world = World::new().await;
    let private = world.add_dataset("Hungary", "hungary.csv", false).await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    // Two datasets fit now, so one must be named.
    let open = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert_eq!(open.data.candidates, ["Cleveland", "Hungary"]);
    assert!(!open.approvable);
    let review = world.handle.review(world.who("sam"), study.id, Some(private.id)).await.unwrap();
    assert!(review.findings.iter().any(|f| f.refuses && f.words.contains("tagged public")), "{:?}", review.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_reads_a_column_which_the_dataset_lacks_is_named_and_not_signed() {
    let mut world = World::new().await;
    let mut plan = small_plan(1);
    plan.data.columns.push("bmi".into());
    let study = study(1, plan);
    world.connect().await;
    world.offer(&study).await;
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].id;
    // No dataset fits by itself, so that none is chosen and none can be signed for.
    let open = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert!(open.data.candidates.is_empty() && !open.approvable, "{:?}", open.data.candidates);
    let unnamed = world.sign("sam", exactly(study.id)).await;
    assert!(matches!(&unnamed, Err(PartyError::Input { .. })), "{unnamed:?}");
    // The only dataset, named: the review says which column it lacks.
    let review = world.handle.review(world.who("sam"), study.id, Some(dataset)).await.unwrap();
    assert!(!review.approvable);
    assert_eq!(review.data.columns_missing, ["bmi"]);
    let found = review.findings.iter().find(|f| f.rule == "data.columns").expect("nothing says what is missing");
    assert!(found.refuses && found.words == "the dataset has no column bmi", "{}", found.words);
    let approving = Approving { dataset: Some(dataset), ..exactly(study.id) };
    let refused = world.sign("sam", approving).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("no column bmi")), "{refused:?}");
    assert_eq!(world.entered("approval_signed", "refused").await, 1);
    assert_eq!(world.entered("approval_signed", "success").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_ends_with_the_last_day_that_the_datasets_terms_allow() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    let dataset = world.handle.datasets(world.who("sam")).await.unwrap()[0].id;
    let tag = |last_day: &str| vec!["DUO:0000042".to_owned(), format!("DUO:0000025={last_day}")];
    let wrong = world.handle.tag_dataset(world.who("sam"), dataset, tag("2027-02-30")).await;
    assert!(matches!(&wrong, Err(PartyError::Input { .. })), "{wrong:?}");
    let today = world.now().to_string()[..10].to_owned();
    let yesterday = world.now().plus_millis(-DAY).to_string()[..10].to_owned();
    world.handle.tag_dataset(world.who("sam"), dataset, tag(&yesterday)).await.unwrap();
    let refused = world.sign("sam", exactly(study.id)).await;
    assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.detail.contains("TS")), "{refused:?}");
    world.handle.tag_dataset(world.who("sam"), dataset, tag(&today)).await.unwrap();
    let text = render(&world.handle.review(world.who("sam"), study.id, None).await.unwrap());
    let until = Timestamp::end_of_day(&today).unwrap();
    assert!(text.contains(&until.to_string()), "{text}");
    let signed = world.sign("sam", exactly(study.id)).await.unwrap();
    assert_eq!(signed.expires, until);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_request_shows_what_differs_from_the_last_approval() {
    let mut world = World::new().await;
    let first = study(1, small_plan(1));
    world.connect().await;
    world.offer(&first).await;
    world.approve(&first).await;
    let mut second = study(2, small_plan(4));
    second.terms.commercial = true;
    world.offer(&second).await;
    let review = world.handle.review(world.who("sam"), second.id, None).await.unwrap();
    let changes = review.changes.clone().expect("something was approved before");
    let of = |place: &str| changes.iter().find(|c| c.place == place).unwrap_or_else(|| panic!("{place}: {changes:?}"));
    let rounds = of("plan.tasks.train.params.rounds");
    assert_eq!((rounds.before.as_deref(), rounds.after.as_deref()), (Some("1"), Some("4")));
    assert_eq!(of("terms.commercial").after.as_deref(), Some("true"));
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(render(&review).contains("What differs from what was approved last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_cannot_change_what_is_seen() {
    let mut world = World::new().await;
    let mut plan = small_plan(1);
    plan.data.columns.push("age\u{202E}\u{1B}[2J".into());
    let train = plan.tasks["train"].clone();
    plan.tasks.insert("tr\u{202E}ain".into(), train);
    let mut study = study(1, plan);
    study.terms.title = "Harmless\u{202E}\u{1B}[2J title".into();
    study.terms.requester.name = "Dr\u{200B} X\nSigned by everybody".into();
    world.connect().await;
    world.offer(&study).await;
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    let text = render(&review);
    assert!(!text.contains('\u{1B}') && !text.contains('\u{202E}') && !text.contains('\u{200B}'), "{text:?}");
    assert!(!text.lines().any(|l| l.starts_with("Signed by everybody")));
    assert!(!review.approvable, "the protocol's own check of a study refuses such text");
    // What a window shows is no more hostile than what a terminal shows.
    let requests = world.handle.requests(world.who("sam")).await.unwrap();
    let shown = format!("{}{}", serde_json::to_string(&review).unwrap(), serde_json::to_string(&requests).unwrap());
    for hostile in ['\u{1B}', '\u{202E}', '\u{200B}'] {
        assert!(!shown.contains(hostile), "{hostile:?} in {shown}");
    }
    // A federation whose name does it is not joined.
    let joined = world.join_as("Heart\u{202E} Federation").await;
    assert!(matches!(&joined, Err(PartyError::Link(words)) if words.contains("name")), "{joined:?}");
    world.event(LinkEvent::Disconnected { reason: "no\u{202E}\u{1B}[2J".into(), retry_in: Duration::ZERO }).await;
    world.settle().await;
    let link = format!("{:?}", world.handle.status().await.unwrap().memberships[0].link);
    assert!(link.contains("Disconnected") && !link.contains('\u{202E}'), "{link}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_registered_again_is_a_version_whose_review_shows_the_difference() {
    let mut world = World::new().await;
    let study = study(1, small_plan(1));
    world.connect().await;
    world.offer(&study).await;
    world.approve(&study).await;
    let first = world.handle.datasets(world.who("sam")).await.unwrap().remove(0);
    // The same table a year later: one column more, one less, and three rows that are gone.
    let text = std::fs::read_to_string(heart("cleveland.csv")).unwrap();
    let last = text.lines().next().unwrap().split(',').count() - 1;
    let line = |(row, line): (usize, &str)| {
        let cells: Vec<&str> = line.split(',').collect();
        let more = if row == 0 { "bmi" } else { "25.5" };
        [&cells[..=last], &[more]].concat().join(",") + "\n"
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later.csv");
    let rows = text.lines().count();
    std::fs::write(&path, text.lines().take(rows - 3).enumerate().map(line).collect::<String>()).unwrap();
    let again = |subject: &str, public: bool| NewDataset {
        name: first.name.clone(),
        path: path.clone(),
        query: None,
        sheet: None,
        missing: None,
        scan: Default::default(),
        subject: subject.into(),
        kinds: BTreeMap::new(),
        mask: BTreeSet::new(),
        keep: BTreeSet::new(),
        public,
        duo: Vec::new(),
    };
    for (wrong, words) in
        [(again("age", true), "told apart by 'subject_id'"), (again("subject_id", false), "tagged public")]
    {
        let refused = world.handle.add_dataset(world.who("sam"), wrong).await.unwrap_err().to_string();
        assert!(refused.contains("has this name already") && refused.contains(words), "{refused}");
    }
    world.pass_time(1_000);
    let second = world.handle.add_dataset(world.who("sam"), again("subject_id", true)).await.unwrap();
    assert_eq!((second.version, second.former, &second.duo), (2, Some(first.id), &first.duo));
    let all = world.handle.datasets(world.who("sam")).await.unwrap();
    let names: Vec<&str> = all.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, [format!("{} (version 1)", first.name), first.name.clone()]);

    // What is in force stays so, and says that there is more.
    let review = world.handle.review(world.who("sam"), study.id, None).await.unwrap();
    assert_eq!(review.state, RequestState::Active);
    let found = review.findings.iter().find(|f| f.rule == "series").unwrap();
    assert!(found.words.starts_with("version 2 of the dataset") && !found.refuses, "{}", found.words);
    assert_eq!(review.data.candidates, std::slice::from_ref(&first.name));

    let review = world.handle.review(world.who("sam"), study.id, Some(second.id)).await.unwrap();
    let fact = |label: &str| review.data.facts.iter().find(|f| f.label == label).unwrap().words().to_owned();
    assert_eq!(fact("Rows, against the version before"), "303 before, 300 now (\u{2212}3)");
    assert_eq!(fact("Patients, against the version before"), "303 before, 300 now (\u{2212}3)");
    assert_eq!((fact("Columns that are new"), fact("Columns that are gone")), ("bmi".to_owned(), "none".to_owned()));
    assert!(review.findings.iter().all(|f| f.rule != "series"));

    // Approved again, the new version is in force and the approval of the former one is superseded.
    let approving = Approving { dataset: Some(second.id), ..exactly(study.id) };
    world.approve_as(&study, approving).await;
    assert_eq!(world.entered("approval_superseded", "success").await, 1);
    world.start_job(&study, job(1)).await;
}
