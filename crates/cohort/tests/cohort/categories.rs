//! Categories that come to a network as codes: what preparation leaves of them, and what training makes of each.

use hospes_cohort::ReportView;
use hospes_cohort::worker::{Event, LocalView, Order, execute};
use hospes_protocol::canon;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan;
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, Rig, edited, table};

/// The plan's data as in the rig, with a code that no row has.
pub(crate) const PLAN: &str = r#"
schema: hospes/plan/v1
name: vectors
seed: 7
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x, kind, z]
  variables:
    kind: { category: { codes: ["1", "2", "3", "4"] } }
tasks:
  read: { component: reader }
  filled: { component: imputation, inputs: { data: read }, params: { method: mean } }
  known: { component: imputation, inputs: { data: filled.data }, params: { method: drop_rows } }
  split: { component: data_split, inputs: { data: known.data }, params: { by_column: fold } }
  scale: { component: feature_scale, inputs: { data: split.train } }
  scale_test: { component: feature_scale, inputs: { data: split.test, fitted: scale.fitted } }
  train:
    component: nn_train
    inputs: { train: scale.data, validate: scale_test.data }
    params:
      model: MODEL
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 2
      local: { updates: 100, batch: 4 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
      quantise: { clip: 4.0, bits: 32, n_max: 1000 }
  eval: { component: evaluation, inputs: { model: train.model, data: scale_test.data } }
  alone:
    component: local_baseline
    inputs: { train: scale.data, data: scale_test.data }
    params:
      model: MODEL
      loss: binary_cross_entropy
      optimizer: { adam: { lr: 0.01 } }
      epochs: 20
      batch: 4
"#;

const MODEL: &str = "{ graph: [
        { name: kind, layer: { select: { columns: [kind] } } },
        { name: vector, layer: { embedding: { codes: 4, out: 2 } } },
        { name: flat, layer: { flatten: {} } },
        { name: numbers, layer: { select: { except: [kind] } }, from: [features] },
        { name: both, layer: { concat: {} }, from: [flat, numbers] },
        { name: out, layer: { linear: { out: 1 } } }] }";

fn clock() -> Timestamp {
    NOW
}

/// The rig's table with every kind among the rows for training as well as among those for the test.
fn mixed() -> String {
    edited(&table(120), |row, column| (column == 2).then_some(["1.0", "2.0", "3.0"][row / 3 % 3]))
}

pub(crate) fn rig(table: &str, plan: &str) -> Rig {
    let plan = plan::read(&plan.replace("MODEL", MODEL)).unwrap_or_else(|e| panic!("{e}"));
    Rig::with(table, plan, Policy::public_data())
}

/// What a task ends with, and its payload, if there is one.
fn run(rig: &Rig, task: &str) -> (Event, Vec<u8>) {
    let order = rig.order(task);
    let last = execute(&order, &clock, &mut |_| true);
    let payload = std::fs::read(&order.payload_path).unwrap_or_default();
    // The next run writes a file of the same name.
    drop(std::fs::remove_file(&order.payload_path));
    (last, payload)
}

fn view(event: Event) -> LocalView {
    match event {
        Event::Done(done) => done.view,
        other => panic!("{other:?}"),
    }
}

fn failure(table: &str, plan: &str) -> String {
    match run(&rig(table, plan), "train").0 {
        Event::Failed(failure) => failure.local,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_code_has_a_vector_and_that_of_a_code_which_nobody_has_does_not_move() {
    let rig = rig(&mixed(), PLAN);
    let (last, payload) = run(&rig, "train");
    let LocalView::Training(seen) = view(last) else { panic!() };
    assert_eq!((seen.rows, seen.clipped), (80, 0));
    assert!(seen.loss_after < seen.loss_before * 0.8, "{seen:?}");
    assert_eq!(seen.validation.as_ref().map(ReportView::rows), Some(40));
    // 4·2 numbers of the vectors, 4 weights and a bias; 80 rows of at most 1000, and a clip of 4.
    let (words, rest) = payload[8..].as_chunks::<4>();
    assert_eq!((words.len(), rest.len()), (13, 0));
    let value = |word: &[u8; 4]| (f64::from(u32::from_le_bytes(*word)) / f64::from(u32::MAX) * 8.0 - 4.0) / 0.08;
    let vectors: Vec<f64> = words[..8].iter().map(value).collect();
    let (there, absent) = vectors.split_at(6);
    assert!(there.iter().all(|moved| moved.abs() > 1e-5), "{vectors:?}");
    assert!(absent.iter().all(|moved| moved.abs() < 1e-6), "{vectors:?}");
}

#[test]
fn a_network_with_codes_is_judged_at_the_site_and_trained_there_alone() {
    let rig = rig(&mixed(), PLAN);
    for task in ["eval", "alone"] {
        let LocalView::Report(ReportView::Metrics(metrics)) = view(run(&rig, task).0) else { panic!("{task}") };
        assert_eq!(metrics.rows, 40);
        // The other one has learned nothing yet.
        assert!(task == "eval" || metrics.accuracy() > 0.75, "{}", metrics.accuracy());
    }
}

#[test]
fn an_evaluation_comes_with_the_network_trained_here_alone_where_the_plan_trains_none_so() {
    let judged = |plan: &str| match run(&rig(&mixed(), plan), "eval") {
        (Event::Done(done), payload) => (done.alone, payload),
        (other, _) => panic!("{other:?}"),
    };
    let (planned, leaves) = judged(PLAN);
    assert_eq!(planned, None);
    let (beside, also) = judged(&PLAN[..PLAN.find("  alone:").unwrap()]);
    let Some(ReportView::Metrics(metrics)) = beside.as_deref() else { panic!("{beside:?}") };
    assert_eq!(metrics.rows, 40);
    assert!(metrics.accuracy() > 0.6, "{}", metrics.accuracy());
    // Nothing of it leaves.
    assert!(!leaves.is_empty() && leaves == also);
}

#[test]
fn no_network_is_trained_here_alone_beside_a_model_from_elsewhere_or_for_each_setting_of_a_sweep() {
    let plan = &PLAN[..PLAN.find("  alone:").unwrap()];
    let is_compared = |order: &Order| match execute(order, &clock, &mut |_| true) {
        Event::Done(done) => done.alone.is_some(),
        other => panic!("{other:?}"),
    };
    let init = canon::digest("model", 1, b"another");
    let begun = plan.replace("rounds: 2\n", &format!("rounds: 2\n      init: {{ safetensors: {init} }}\n"));
    assert!(begun.contains("safetensors"));
    assert!(!is_compared(&rig(&mixed(), &begun).order("eval")));
    let swept = rig(&mixed(), plan);
    let mut document = swept.document();
    document.envelope.computation.settings.insert(swept.plan.digest());
    let order = Order { approval: swept.sign(document), ..swept.order("eval") };
    assert!(!is_compared(&order));
}

#[test]
fn training_with_codes_gives_the_same_bytes_for_any_number_of_threads() {
    let rig = rig(&mixed(), PLAN);
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&rig, "train").1)
    };
    let one = in_pool(1);
    assert!(!one.is_empty());
    assert_eq!(one, in_pool(2));
    assert_eq!(one, in_pool(7));
}

/// A missing number is filled; a missing code is not, and goes with its row where rows are dropped.
#[test]
fn what_is_missing_of_a_category_is_not_made_up() {
    let holes = edited(&table(120), |row, column| match (row, column) {
        (0, 2) | (3, 1) | (4, 3) => Some("?"),
        _ => None,
    });
    let LocalView::Training(seen) = view(run(&rig(&holes, PLAN), "train").0) else { panic!() };
    assert_eq!(seen.rows, 79);
    let known = "  known: { component: imputation, inputs: { data: filled.data }, params: { method: drop_rows } }\n";
    assert!(PLAN.contains(known));
    let filled = PLAN.replace(known, "").replace("known.data", "filled.data");
    assert_eq!(
        failure(&holes, &filled),
        "task 'train': 1 rows have a missing value in 'kind'; the plan needs an imputation before"
    );
    // As with one_hot: a code that the plan does not list is an error, and no vector of its own.
    assert_eq!(
        failure(&table(120).replace(",3.0,", ",9.0,"), PLAN),
        "column 'kind': 40 rows have a code that the plan does not list"
    );
}
