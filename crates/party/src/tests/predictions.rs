//! A released model used on this site's own data: what comes of it, and everything that keeps it from being used.

use std::os::unix::fs::PermissionsExt as _;

use hospes_protocol::approval::RefusalCode;
use hospes_protocol::id::DatasetId;
use hospes_protocol::policy::Predict;
use safetensors::SafeTensors;

use super::crash::worker_program;
use super::models::released_in;
use super::share::always_quiet;
use super::*;
use crate::error::PartyError;
use crate::view::{ComputeLimits, PredictionMade, PredictionOffer, Verdict};

fn allowing() -> Policy {
    let mut policy = Policy::public_data();
    policy.models.predict = Predict::Cohort;
    policy
}

/// A site with a released model that is here, and a policy that allows predictions.
async fn ready(folder: &Path, executor: Executor) -> (World, Study) {
    let now = match executor {
        Executor::Thread => START,
        Executor::Child { .. } => crate::config::system_clock()().as_millis(),
    };
    let mut world = World::create_at(folder, executor, now).await;
    world.furnish().await;
    world.set_policy(&allowing()).await;
    let (mut world, study) = released_in(world).await;
    world.fetch(&study).await;
    (world, study)
}

impl World {
    async fn offer_to_predict(&self) -> PredictionOffer {
        self.handle.prediction(self.who("ava"), job(1)).await.unwrap()
    }

    async fn predict(&self, who: &str, dataset: DatasetId, path: &Path) -> Result<PredictionMade, PartyError> {
        self.handle.predict(self.who(who), job(1), dataset, path.to_owned()).await
    }

    async fn cleveland(&self) -> DatasetId {
        let all = self.handle.datasets(self.who("sam")).await.unwrap();
        all.iter().find(|dataset| dataset.name == "Cleveland").unwrap().id
    }

    /// Registers a table that was changed.
    async fn add_changed(&self, folder: &Path, name: &str, text: &str) -> DatasetId {
        let path = folder.join(format!("{name}.csv"));
        std::fs::write(&path, text).unwrap();
        let dataset = NewDataset {
            name: name.into(),
            path,
            query: None,
            sheet: None,
            missing: None,
            scan: Default::default(),
            subject: "subject_id".into(),
            kinds: BTreeMap::new(),
            mask: BTreeSet::new(),
            keep: BTreeSet::new(),
            public: true,
            duo: vec!["DUO:0000042".into()],
        };
        self.handle.add_dataset(self.who("sam"), dataset).await.unwrap().id
    }
}

/// The thirteen features of each row of a table, in the order of the model, and whether it is a training row; nothing for
/// a row that lacks one.
fn features(file: &str) -> Vec<(Option<Vec<f64>>, bool)> {
    let text = std::fs::read_to_string(heart(file)).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| cells[names.iter().position(|n| *n == name).unwrap()];
        let number = |name: &str| cell(name).parse::<f64>().ok();
        let features = || {
            let mut row = Vec::new();
            for name in ["age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"] {
                row.push(number(name)?);
            }
            for (name, codes) in [("cp", &[2.0, 3.0, 4.0][..]), ("restecg", &[1.0, 2.0][..])] {
                let value = number(name)?;
                row.extend(codes.iter().map(|code| f64::from(u8::from(value == *code))));
            }
            Some(row)
        };
        (features(), cell("fold") == "train")
    };
    lines.map(row).collect()
}

/// The linear predictor of each row of a table, scaled by Cleveland's training rows, from the published files alone.
fn by_hand(study: &Study, file: &str) -> Vec<Option<f64>> {
    let (bytes, _) = model(&study.plan);
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| -> Vec<f64> {
        let (words, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
        words.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect()
    };
    let (weights, bias) = (values("0.weight"), values("0.bias")[0]);
    let training: Vec<Vec<f64>> =
        features("cleveland.csv").into_iter().filter(|(_, train)| *train).filter_map(|(row, _)| row).collect();
    let n = training.len() as f64;
    let scale = |f: usize| {
        let mean = training.iter().map(|row| row[f]).sum::<f64>() / n;
        let squares: f64 = training.iter().map(|row| (row[f] - mean).powi(2)).sum();
        (mean, (squares / (n - 1.0)).sqrt())
    };
    let scales: Vec<(f64, f64)> = (0..weights.len()).map(scale).collect();
    let predictor = |row: Vec<f64>| {
        let parts = row.iter().zip(&scales).zip(&weights).map(|((x, (mean, sd)), weight)| (x - mean) / sd * weight);
        parts.sum::<f64>() + bias
    };
    features(file).into_iter().map(|(row, _)| row.map(predictor)).collect()
}

/// Cells of the table, below the lines about it and the names of its columns.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let table = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    table.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_gives_each_row_what_one_computes_by_hand_and_the_log_has_it_before_the_file_has_its_name() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut world, study) = ready(folder.path(), Executor::Child { program: worker_program() }).await;
    world.add_dataset("Hungary", "hungary.csv", true).await;
    let offer = world.offer_to_predict().await;
    assert!(offer.allowed && offer.under_way.is_none(), "{offer:?}");
    assert!(offer.datasets.len() == 2 && offer.datasets.iter().all(|dataset| dataset.missing.is_empty()), "{offer:?}");
    for (name, file, incomplete) in [("Cleveland", "cleveland.csv", 0), ("Hungary", "hungary.csv", 33)] {
        let dataset = offer.datasets.iter().find(|dataset| dataset.name == name).unwrap();
        let path = place.path().join(file);
        let made = world.predict("ava", dataset.dataset, &path).await.unwrap();
        let wanted = by_hand(&study, file);
        let missing = wanted.iter().filter(|predictor| predictor.is_none()).count();
        assert_eq!((made.incomplete, made.opted_out, made.opted_out_since), (incomplete, 0, 0));
        assert_eq!((made.rows, missing as u64), (wanted.len() as u64 - incomplete, incomplete));
        for (i, (row, wanted)) in rows(&path).iter().zip(&wanted).enumerate() {
            assert_eq!((row[0].as_str(), row[4].as_str()), ((i + 1).to_string().as_str(), "research use only"));
            match wanted {
                None => assert_eq!(row[1..4], ["", "", "a value is missing"], "{file} {i}"),
                Some(wanted) => {
                    let (predictor, score): (f64, f64) = (row[1].parse().unwrap(), row[2].parse().unwrap());
                    assert!((predictor - wanted).abs() < 1e-4, "{file} {i}: {predictor} {wanted}");
                    assert!((score - 1.0 / (1.0 + (-wanted).exp())).abs() < 1e-4, "{file} {i}: {score}");
                }
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Research use only, not for diagnosis or treatment.\n# PUBLIC DATA"), "{text}");
        for words in [made.model.to_string(), "Heart disease risk".into(), "Learn a model of heart disease".into()] {
            assert!(text.lines().take(8).any(|line| line.contains(&words)), "{words} is not said");
        }
        assert!(!text.contains("land-0") && !text.contains("gary-0"), "a patient's key is in it");
        assert_eq!((made.digest, made.bytes), (Digest::of(text.as_bytes()), text.len() as u64));
        let query = crate::view::AuditQuery { limit: 1, actions: vec!["model_used".into()], ..Default::default() };
        let entry = world.handle.audit(world.who("odo"), query).await.unwrap().entries;
        assert!(entry[0].actor.starts_with("ava (data access approver)"), "{entry:?}");
        for part in [made.digest.to_string(), dataset.dataset.to_string(), format!("{} rows", wanted.len())] {
            assert!(entry[0].detail.contains(&part), "{part}: {entry:?}");
        }
        let again = world.predict("ava", dataset.dataset, &path).await;
        assert!(matches!(again, Err(PartyError::File { .. })), "{again:?}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "something else is left");
    assert_eq!(world.entered("model_used", "success").await, 2);
    assert_eq!(world.outbox_states().await.len(), 1, "the update of the training alone");
    world.never("send something", |c| matches!(c, LinkCommand::Upload { .. }).then_some(())).await;
    world.assert_ledger_intact().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_predicted_before_two_people_loosened_the_policy_and_only_by_those_who_may() {
    let (mut world, study) = released_in(World::new().await).await;
    world.fetch(&study).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("scores.csv");
    let cleveland = world.cleveland().await;
    let refused = async |world: &World| {
        let refused = world.predict("sam", cleveland, &path).await;
        assert!(matches!(&refused, Err(PartyError::Refused(r)) if r.code == RefusalCode::Policy), "{refused:?}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    };
    assert!(!world.offer_to_predict().await.allowed);
    refused(&world).await;
    let set = async |policy: &Policy| {
        world.handle.set_policy(world.who("ana"), policy.to_toml().unwrap(), pass("ana")).await.unwrap()
    };
    let Outcome::Proposed(proposal) = set(&allowing()).await else { panic!("one person allowed it") };
    refused(&world).await;
    world.handle.answer_proposal(world.who("sam"), proposal.id, true, None, pass("sam")).await.unwrap();
    assert!(world.offer_to_predict().await.allowed);
    for name in ["ana", "pia", "odo"] {
        let denied = world.predict(name, cleveland, &path).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{name}: {denied:?}");
        let denied = world.handle.prediction(world.who(name), job(1)).await;
        assert!(matches!(denied, Err(PartyError::Denied { .. })), "{name}: {denied:?}");
        assert!(matches!(world.handle.stop_predicting(world.who(name)).await, Err(PartyError::Denied { .. })));
    }
    assert_eq!(world.predict("sam", cleveland, &path).await.unwrap().rows, 303);
    std::fs::remove_file(&path).unwrap();
    // Data that are not public are not for the policy that is for public data only.
    let private = world.add_dataset("Private", "hungary.csv", false).await;
    let of_others = world.predict("sam", private.id, &path).await;
    assert!(matches!(&of_others, Err(PartyError::Refused(r)) if r.detail.contains("tagged public")), "{of_others:?}");
    assert!(world.offer_to_predict().await.datasets.iter().all(|dataset| dataset.dataset != private.id));
    // Taking it back takes one person.
    assert_eq!(set(&Policy::public_data()).await, Outcome::Done { code: None });
    refused(&world).await;
    assert_eq!(world.entered("model_used", "refused").await, 4);
    assert_eq!(world.entered("model_used", "success").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_do_not_fit_are_refused_in_words_that_the_log_does_not_repeat() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (world, _) = ready(folder.path(), Executor::Thread).await;
    let text = std::fs::read_to_string(heart("cleveland.csv")).unwrap();
    let with = |column: usize, cell: &dyn Fn(usize) -> &'static str| -> String {
        let line = |(i, line): (usize, &str)| {
            let mut cells: Vec<&str> = line.split(',').collect();
            if i > 0 {
                cells[column] = cell(i);
            }
            cells.join(",") + "\n"
        };
        text.lines().enumerate().map(line).collect()
    };
    let path = place.path().join("scores.csv");
    let lacks = world.add_changed(folder.path(), "Lacks", &text.replacen("oldpeak", "peak", 1)).await;
    let offer = world.offer_to_predict().await;
    let offered = offer.datasets.iter().find(|dataset| dataset.dataset == lacks).unwrap();
    assert_eq!(offered.missing, ["oldpeak"]);
    let refused = world.predict("sam", lacks, &path).await;
    let is_told = |error: &PartyError| error.to_string().contains("it lacks 'oldpeak', which the model needs");
    assert!(matches!(&refused, Err(error @ PartyError::Input { .. }) if is_told(error)), "{refused:?}");
    let words = world.add_changed(folder.path(), "Words", &with(1, &|i| ["young", "old"][i % 2])).await;
    let codes = world.add_changed(folder.path(), "Codes", &with(3, &|i| if i < 8 { "9" } else { "1" })).await;
    for (dataset, said) in [
        (words, "column 'age' is a category here; the plan reads it as a number"),
        (codes, "column 'cp': 7 rows have a code that the plan does not list"),
    ] {
        let refused = world.predict("sam", dataset, &path).await;
        assert!(matches!(&refused, Err(PartyError::Prediction { reason, .. }) if reason == said), "{refused:?}");
    }
    let query = crate::view::AuditQuery {
        limit: 10,
        actions: vec!["model_used".into()],
        outcome: Some("failed".into()),
        ..Default::default()
    };
    let failed = world.handle.audit(world.who("odo"), query).await.unwrap().entries;
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|entry| entry.detail.contains("do not fit the plan")), "{failed:?}");
    assert!(failed.iter().all(|entry| !entry.detail.contains("column")), "{failed:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_dataset_is_used_no_more_and_what_was_learned_from_it_is_gone() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (world, study) = ready(folder.path(), Executor::Thread).await;
    let path = place.path().join("scores.csv");
    let hungary = world.add_dataset("Hungary", "hungary.csv", true).await.id;
    let remove = async |dataset: DatasetId| {
        world.handle.remove_dataset(world.who("sam"), dataset, "it is wanted back".into()).await
    };
    remove(hungary).await.unwrap();
    let gone = world.predict("sam", hungary, &path).await;
    assert!(matches!(&gone, Err(PartyError::State(words)) if words.contains("was removed")), "{gone:?}");
    let again = world.add_dataset("Hungary", "hungary.csv", true).await.id;
    world.predict("sam", again, &place.path().join("before.csv")).await.unwrap();
    let revoke = Verdict::Revoke { reason: "no longer wanted".into() };
    world.handle.decide(world.who("sam"), study.id, revoke).await.unwrap();
    remove(world.cleveland().await).await.unwrap();
    let unknown = world.predict("sam", again, &path).await;
    assert!(matches!(&unknown, Err(PartyError::State(words)) if words.contains("was learned from it")), "{unknown:?}");
    let offer = world.offer_to_predict().await;
    assert!(offer.datasets.is_empty() && offer.against.is_some_and(|words| words.contains("was learned from it")));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_tampered_with_or_is_not_here_is_not_used() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut world, study) = ready(folder.path(), Executor::Thread).await;
    let path = place.path().join("scores.csv");
    let cleveland = world.cleveland().await;
    let source = world.config.models().join(format!("{}-{}.safetensors", federation(), model(&study.plan).1));
    let mut bytes = std::fs::read(&source).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&source, bytes).unwrap();
    let altered = world.predict("sam", cleveland, &path).await;
    assert!(matches!(&altered, Err(PartyError::State(words)) if words.contains("was changed")), "{altered:?}");
    assert_eq!(world.entered("model_used", "failed").await, 1);
    let absent = world.predict("sam", cleveland, &path).await;
    assert!(matches!(&absent, Err(PartyError::State(words)) if words.contains("fetch it first")), "{absent:?}");
    assert!(world.offer_to_predict().await.against.is_some_and(|words| words.contains("fetch it first")));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    world.fetch(&study).await;
    world.predict("sam", cleveland, &path).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_predicted_while_the_site_is_stopped_or_in_quiet_hours() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (world, _) = ready(folder.path(), Executor::Thread).await;
    let (path, cleveland) = (place.path().join("scores.csv"), world.cleveland().await);
    let waits = async |words: &str| {
        let refused = world.predict("sam", cleveland, &path).await;
        assert!(matches!(&refused, Err(PartyError::State(said)) if said.contains(words)), "{refused:?}");
    };
    world.handle.stop(world.who("ana"), Some("a break-in".into())).await.unwrap();
    waits("has stopped all work").await;
    world.handle.stop(world.who("ana"), None).await.unwrap();
    world.handle.set_compute_limits(world.who("ana"), always_quiet()).await.unwrap();
    waits("quiet hours").await;
    world.handle.set_compute_limits(world.who("ana"), ComputeLimits::default()).await.unwrap();
    world.predict("sam", cleveland, &path).await.unwrap();
}

/// How many workers began, once there are so many.
async fn begun(log: &Path, workers: usize) {
    for _ in 0..600 {
        if std::fs::read_to_string(log).unwrap_or_default().lines().count() >= workers {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no worker began");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_prediction_is_made_at_a_time_can_be_stopped_and_is_void_for_whoever_opts_out_meanwhile() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [script, log, go] = ["w.sh", "log", "go"].map(|name| folder.path().join(name));
    let (log_words, go_words, worker) = (log.display(), go.display(), worker_program());
    let text = format!(
        "#!/bin/sh\necho $$ >> {log_words}\nwhile [ ! -e {go_words} ]; do sleep 0.05; done\nexec {} \"$@\"\n",
        worker.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&go, "").unwrap();
    let (world, _) = ready(folder.path(), Executor::Child { program: script.clone() }).await;
    std::fs::remove_file(&go).unwrap();
    let cleveland = world.cleveland().await;
    let begin = |who: &str, name: &str| {
        let (handle, session, path) = (world.handle.clone(), world.who(who).clone(), place.path().join(name));
        tokio::spawn(async move { handle.predict(&session, job(1), cleveland, path).await })
    };
    let first = begin("sam", "first.csv");
    begun(&log, 2).await;
    let parts: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().metadata().unwrap()).collect();
    assert!(
        parts.len() == 1 && parts[0].len() == 0,
        "what is computed lies where a person can take it before the entry"
    );
    assert_eq!(world.offer_to_predict().await.under_way, Some(0));
    let second = world.predict("ava", cleveland, &place.path().join("second.csv")).await;
    assert!(matches!(&second, Err(PartyError::State(words)) if words.contains("another prediction")), "{second:?}");
    world.handle.stop_predicting(world.who("ava")).await.unwrap();
    let stopped = first.await.unwrap();
    let is_stopped = matches!(&stopped, Err(PartyError::Prediction { reason, .. }) if reason == "it was stopped");
    assert!(is_stopped, "{stopped:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(world.offer_to_predict().await.under_way, None);

    let third = begin("sam", "third.csv");
    begun(&log, 3).await;
    let opt_outs = folder.path().join("opt-outs.txt");
    std::fs::write(&opt_outs, "cleveland-001\n").unwrap();
    world.handle.import_opt_outs(world.who("sam"), opt_outs).await.unwrap();
    std::fs::write(&go, "").unwrap();
    let void = third.await.unwrap();
    assert!(matches!(&void, Err(PartyError::State(words)) if words.contains("opt-out list was changed")), "{void:?}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "what has their row in it was kept");
    assert_eq!(world.entered("model_used", "failed").await, 2);

    let path = place.path().join("fourth.csv");
    let made = world.predict("sam", cleveland, &path).await.unwrap();
    assert_eq!((made.rows, made.opted_out, made.opted_out_since), (302, 1, 1));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("# 1 patients opted out since this site trained the model"), "{text}");
    assert_eq!(rows(&path)[0][0], "2");

    // Who asked may have left by then; under another policy it is not given to anybody.
    for (name, who, workers) in [("fifth.csv", "sam", 5), ("sixth.csv", "ava", 6)] {
        std::fs::remove_file(&go).unwrap();
        let asked = begin(who, name);
        begun(&log, workers).await;
        if who == "sam" {
            world.handle.log_out(world.who(who)).await.unwrap();
        } else {
            world.set_policy(&Policy::public_data()).await;
        }
        std::fs::write(&go, "").unwrap();
        let made = asked.await.unwrap();
        if who == "sam" {
            assert_eq!(made.unwrap().rows, 302);
        } else {
            assert!(matches!(&made, Err(PartyError::Refused(r)) if r.code == RefusalCode::Policy), "{made:?}");
            assert!(!place.path().join(name).exists());
        }
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(world.config.scratch()).unwrap().count(), 0, "what was computed is left");
}
