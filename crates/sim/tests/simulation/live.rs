//! A whole federation in one process.

use std::path::Path;

use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::study::Terms;
use hospes_sim::{Live, assess, read_study, set};

use crate::heart::{SITES, federation};

fn study() -> (Terms, Plan) {
    let text = std::fs::read_to_string(crate::heart::example("study.yaml")).unwrap();
    let (terms, plan) = read_study(&text).unwrap();
    let plan = set(&plan, &[("tasks.train.params.rounds".into(), 3.into())]).unwrap();
    (terms, plan)
}

async fn live() -> Live {
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
    let judged = assess(&federation(&plan), &plan, first.model.as_deref().unwrap()).unwrap();
    let card = first.card.unwrap();
    let pooled =
        card["metrics"].as_array().unwrap().iter().find(|m| m["task"] == "eval" && m["site"].is_null()).unwrap();
    assert!((pooled["accuracy"].as_f64().unwrap() - judged.all).abs() < 1e-12, "{pooled} {judged:?}");
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
