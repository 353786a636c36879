//! A whole federation in one process.

use std::ffi::OsStr;
use std::path::Path;

use hospes_privacy::dp::Promise;
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::study::Terms;
use hospes_sim::{Live, assess, read_study, set};

use crate::heart::{SITES, drawn, federation};

pub(crate) fn study() -> (Terms, Plan) {
    let text = std::fs::read_to_string(crate::heart::example("plain.yaml")).unwrap();
    let (terms, plan) = read_study(&text).unwrap();
    let plan = set(&plan, &[("tasks.train.params.rounds".into(), 3.into())]).unwrap();
    (terms, plan)
}

pub(crate) async fn live() -> Live {
    let paths = SITES.map(|site| crate::heart::example(&format!("{site}.csv")));
    let files: Vec<_> = SITES.iter().zip(&paths).map(|(site, path)| ((*site).to_owned(), path.as_path())).collect();
    Live::start("subject_id", &files).await.unwrap()
}

/// Sites, coordinator and people are others each time; the model is the same to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_can_be_repeated_and_its_figures_are_those_of_its_model() {
    let (terms, plan) = study();
    let run = |seed| {
        let (terms, plan) = (terms.clone(), Plan { seed, ..plan.clone() });
        async move { Box::pin(live().await.run(&terms, &plan, &mut |_| {})).await.unwrap() }
    };
    let (first, again, other) = (run(1).await, run(1).await, run(2).await);
    assert!(first.model == again.model, "the same seed gave two models");
    assert!(first.model != other.model, "two seeds gave one model");
    let plan = Plan { seed: 1, ..plan };
    let change = ("tasks.train.params.privacy".to_owned(), serde_json::json!({ "secure_aggregation": {} }));
    let masked = Box::pin(live().await.run(&terms, &set(&plan, &[change]).unwrap(), &mut |_| {})).await.unwrap();
    assert!(first.model == masked.model, "masks gave another model");
    let judged = assess(&federation(&plan), &plan, first.model.as_deref().unwrap()).unwrap();
    let card = first.card.unwrap();
    let pooled =
        card["metrics"].as_array().unwrap().iter().find(|m| m["task"] == "eval" && m["site"].is_null()).unwrap();
    assert!((pooled["accuracy"].as_f64().unwrap() - judged.all).abs() < 1e-12, "{pooled} {judged:?}");
}

/// Also where rows are drawn for the test: they are the same in every run, and for whoever judges the model afterwards, so
/// that none of them was trained on. If it were, hardly any figure would be that which the sites reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_drawn_test_rows_can_be_repeated_and_is_judged_on_those_rows() {
    let (terms, plan) = study();
    let plan = drawn(&plan);
    let run = || async { Box::pin(live().await.run(&terms, &plan, &mut |_| {})).await.unwrap() };
    let (first, again) = (run().await, run().await);
    assert!(first.model == again.model, "the same seed gave two models");
    let federation = federation(&plan);
    let judged = assess(&federation, &plan, first.model.as_deref().unwrap()).unwrap();
    let card = first.card.unwrap();
    let accuracy = |site: Option<String>| {
        let mut metrics = card["metrics"].as_array().unwrap().iter().filter(|m| m["task"] == "eval");
        let of = metrics.find(|m| m["site"].as_str() == site.as_deref());
        of.and_then(|m| m["accuracy"].as_f64()).unwrap_or_else(|| panic!("no accuracy of {site:?}: {card}"))
    };
    let near = |reported: f64, judged: f64| assert!((reported - judged).abs() < 1e-12, "{reported} and {judged}");
    near(accuracy(None), judged.all);
    for (member, judged) in federation.members().iter().zip(&judged.accuracy) {
        near(accuracy(Some(member.site().to_string())), *judged);
    }
    assert_eq!(judged.accuracy.len(), SITES.len());
}

/// Categories that come to the model as codes, from the files of four hospitals to the figures on the card.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn categories_become_vectors_that_the_hospitals_learn_together() {
    let text = std::fs::read_to_string(crate::heart::example("embedding.yaml")).unwrap();
    let (terms, plan) = read_study(&text).unwrap();
    let plan = set(&plan, &[("tasks.train.params.rounds".into(), 3.into())]).unwrap();
    let run = Box::pin(live().await.run(&terms, &plan, &mut |_| {})).await.unwrap();
    let model = run.model.unwrap();
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!("no training") };
    let inputs = plan::inputs(&plan, "train");
    let begun: Vec<f32> = plan::initial(train, inputs, plan.seed).collect();
    let file = safetensors::SafeTensors::deserialize(&model).unwrap();
    // The first two tensors: each hospital has some of the codes, and all of them together have all.
    let mut before = begun.as_slice();
    for shape in &plan::tensors(train, inputs)[..2] {
        let tensor = file.tensor(&shape.name).unwrap();
        assert!(shape.name.ends_with("_vector.weight") && tensor.shape()[1] == 2, "{}", shape.name);
        let after = tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let moved: Vec<f32> = after.zip(before).map(|(after, before)| (after - before).abs()).collect();
        assert!(moved.chunks(2).all(|vector| vector.iter().any(|by| *by > 1e-4)), "{}: {moved:?}", shape.name);
        before = &before[moved.len()..];
    }
    let judged = assess(&federation(&plan), &plan, &model).unwrap();
    let card = run.card.unwrap();
    let pooled = card["metrics"].as_array().unwrap().iter().find(|m| m["task"] == "eval" && m["site"].is_null());
    let accuracy = pooled.unwrap()["accuracy"].as_f64().unwrap();
    assert!((accuracy - judged.all).abs() < 1e-12, "{accuracy} {judged:?}");
}

/// Noise of each hospital's own, from the plan to the card.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_with_differential_privacy_trains_with_noise_and_its_card_says_the_bound() {
    let text = std::fs::read_to_string(crate::heart::example("dp.yaml")).unwrap();
    assert!(text.contains("epsilon: 4\n"));
    // Noise that need not be found anew in every round.
    let (terms, plan) = read_study(&text.replace("epsilon: 4\n", "noise_multiplier: 1.5\n")).unwrap();
    let plan = set(&plan, &[("tasks.train.params.rounds".into(), 4.into())]).unwrap();
    let run = Box::pin(live().await.run(&terms, &plan, &mut |_| {})).await.unwrap();
    let card = run.card.unwrap();
    let words = card["privacy"].as_str().unwrap();
    assert!(words.contains("over all 20 steps") && words.contains("What left of eval had no noise."), "{words}");
    let told: f64 = words.split("epsilon ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    let exact = Promise::of([&plan]).unwrap().unwrap();
    assert!(
        (-1e-9..=1.01e-4).contains(&(told - exact.epsilon)) && words.contains("at delta 0.0001 for"),
        "{words} {exact:?}"
    );
    let judged = assess(&federation(&plan), &plan, run.model.as_deref().unwrap()).unwrap();
    assert!(judged.all > 0.5, "{judged:?}");
}

/// Noise that the hospitals share: each adds a part where it masks, and the sum is read with all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hospitals_share_the_noise_of_a_masked_sum() {
    let mut text = std::fs::read_to_string(crate::heart::example("dp.yaml")).unwrap();
    for (from, to) in [
        ("mode: local", "mode: distributed"),
        ("epsilon: 4\n", "noise_multiplier: 1.5\n"),
        ("updates: 5, batch", "updates: 1, batch"),
        ("rounds: 20", "rounds: 8"),
    ] {
        assert!(text.contains(from), "the example has no '{from}'");
        text = text.replace(from, to);
    }
    let (terms, plan) = read_study(&text).unwrap();
    let run = Box::pin(live().await.run(&terms, &plan, &mut |_| {})).await.unwrap();
    let card = run.card.unwrap();
    let words = card["privacy"].as_str().unwrap();
    assert!(words.contains("a part of the noise of the sums") && words.contains("over all 8 steps"), "{words}");
    let judged = assess(&federation(&plan), &plan, run.model.as_deref().unwrap()).unwrap();
    assert!(judged.all > 0.5, "{judged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_its_place() {
    let (terms, plan) = study();
    let live = live().await;
    let mut broken = plan.clone();
    let Component::NnTrain(train) = &mut broken.tasks.get_mut("train").unwrap().component else { panic!() };
    train.rounds = 0;
    let error = live.run(&terms, &broken, &mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("tasks.train.params.rounds: is 0"), "{error}");
    let error = set(&plan, &[("tasks.train.params.lr".into(), 1.into())]).unwrap_err().to_string();
    assert_eq!(error, "the plan has no 'tasks.train.params.lr'");
    let none: [(String, &Path); 1] = [("one".into(), Path::new("one.csv"))];
    assert!(Live::start("subject_id", &none).await.err().unwrap().to_string().contains("at least two"));
}

/// A plan whose model is no network: the program prints the fit and what the sites let leave, and keeps no error to itself.
#[test]
fn a_regression_is_printed_with_its_figures() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hospes-sim"));
    command.arg(crate::heart::example("regression.yaml"));
    for site in SITES {
        command.arg("--site").arg(crate::heart::example(&format!("{site}.csv")));
    }
    let output = command.output().unwrap();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(printed.contains("fit 'odds' on the rows of all sites") && printed.contains("(intercept)"), "{printed}");
    assert!(printed.contains("accuracy"), "{printed}");
}

/// Whole programs: what a run prints of its model, what `assess` says of the file that it left, and what the sites reported,
/// on drawn rows, with another seed than the plan's and another threshold than one half.
#[test]
fn what_is_printed_of_a_model_is_what_the_sites_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(crate::heart::example("plain.yaml")).unwrap();
    for (from, to) in [
        ("{ by_column: fold }", "{ test_fraction: 0.3 }"),
        ("      fold: { category: { codes: [train, test] } }\n", ""),
        ("rounds: 15", "rounds: 2"),
        ("data: scale_test.data } }\n    # What", "data: scale_test.data }, params: { threshold: 0.3 } }\n    # What"),
    ] {
        assert!(text.contains(from), "the example has no '{from}'");
        text = text.replace(from, to);
    }
    let plan = folder.path().join("study.yaml");
    std::fs::write(&plan, text).unwrap();
    let simulate = |before: &[&OsStr]| -> serde_json::Value {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hospes-sim"));
        command.args(before).arg("--json");
        for site in SITES {
            let file = crate::heart::example(&format!("{site}.csv"));
            command.arg("--site").arg(format!("{site}={}", file.display()));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let word = |word: &'static str| OsStr::new(word);
    let (plan, out) = (plan.as_os_str(), folder.path().as_os_str());
    let run = simulate(&[plan, word("--seeds"), word("2"), word("--out"), out]);
    let printed = &run["runs"][0]["assessment"];
    let file = folder.path().join("seed-2.safetensors");
    let model = [word("--model"), file.as_os_str()];
    let said = simulate(&[word("assess"), word("--seed"), word("2"), word("--plan"), plan, model[0], model[1]]);
    assert_eq!(*printed, said, "{run}");
    let metrics = run["runs"][0]["card"]["metrics"].as_array().unwrap();
    let reported = metrics.iter().find(|m| m["task"] == "eval" && m["site"].is_null()).unwrap();
    let (reported, judged) = (reported["accuracy"].as_f64().unwrap(), printed["all"].as_f64().unwrap());
    assert!((reported - judged).abs() < 1e-12, "{reported} and {judged}");
}
