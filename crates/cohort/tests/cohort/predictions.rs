//! What a model gives for each row: the same numbers as by hand, and whatever must keep it from giving any.

use std::io::Cursor;
use std::path::Path;

use hospes_cohort::opt_out::OptOuts;
use hospes_cohort::scan::ScanProfile;
use hospes_cohort::snapshot::{Freeze, Snapshot, freeze};
use hospes_cohort::source::{Hints, Limits, survey};
use hospes_cohort::train::Pulse;
use hospes_cohort::worker::{PredictionEvent, PredictionOrder, predict, run_prediction};
use hospes_cohort::{CohortError, Outward, Predicted, Prediction, predict_file};
use hospes_protocol::approval::{LeaveToPredict, RefusalCode};
use hospes_protocol::canon;
use hospes_protocol::id::{Digest, Timestamp};
use hospes_protocol::plan::{self, Coefficients, Component, Plan};
use hospes_protocol::policy::{Policy, Predict};

use crate::categories;
use crate::rig::{NOW, Rig, changed, edited, safetensors_file, table, write};

/// One output for the features x, z, kind_2 and kind_3, scaled by the site's training rows.
const WEIGHTS: [f32; 5] = [0.5, -0.25, 1.0, 2.0, 0.125];

fn clock() -> Timestamp {
    NOW
}

fn allowing() -> Policy {
    let mut policy = Policy::public_data();
    policy.models.predict = Predict::Cohort;
    policy
}

fn logistic() -> Plan {
    changed("[{ linear: { out: 4 } }, { tanh: {} }, { linear: { out: 1 } }]", "[{ linear: { out: 1 } }]")
}

/// A model file for the task, with these values.
fn model(plan: &Plan, task: &str, values: &[f32]) -> Vec<u8> {
    let tensors = match &plan.tasks[task].component {
        Component::NnTrain(train) => plan::tensors(train, plan::inputs(plan, task)),
        _ => Coefficients::of(plan, task).unwrap().model_tensors(),
    };
    safetensors_file(&tensors, values)
}

/// Freezes another table with the rig's key; nothing is masked.
fn frozen(rig: &Rig, name: &str, text: &str) -> Snapshot {
    let source = write(rig.folder.path(), name, text);
    let found = survey(&source, &Hints::default(), ScanProfile::Default, Limits::default()).unwrap();
    let mut schema = found.schema("subject_id").unwrap();
    schema.columns.iter_mut().for_each(|column| column.masked = false);
    let (folder, limits) = (rig.folder.path(), Limits::default());
    let order = Freeze {
        source: (&source).into(),
        format: &found.format,
        schema: &schema,
        folder,
        public: true,
        at: NOW,
        limits,
    };
    freeze(order, &rig.key, &rig.subjects).unwrap()
}

fn order(rig: &Rig, task: &str, model: &[u8]) -> PredictionOrder {
    PredictionOrder {
        policy: allowing(),
        plan: rig.plan.clone(),
        task: task.into(),
        model: canon::digest("model", 1, model),
        model_path: write(rig.folder.path(), "model", model),
        rows: rig.snapshot.clone(),
        key: rig.key.clone(),
        trained_on: Some((rig.snapshot.clone(), rig.key.clone())),
        opt_outs: OptOuts::new(),
        head: vec!["Research use only,\nnot for diagnosis or treatment.".into()],
        output_path: write(rig.folder.path(), "scores.csv", ""),
        deadline: NOW.plus_millis(1_000),
        share: 100,
    }
}

/// The rig with its model, and what predicts with it.
fn logistic_order(table: &str) -> (Rig, PredictionOrder) {
    let rig = Rig::with(table, logistic(), Policy::public_data());
    let model = model(&rig.plan, "train", &WEIGHTS);
    let order = order(&rig, "train", &model);
    (rig, order)
}

fn done(order: &PredictionOrder) -> Predicted {
    match predict(order, &clock, &mut |_| true) {
        PredictionEvent::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

fn failure(order: &PredictionOrder) -> (String, Outward) {
    match predict(order, &clock, &mut |_| true) {
        PredictionEvent::Failed(failure) => (failure.local, failure.outward),
        other => panic!("{other:?}"),
    }
}

/// Lines above the table, names of its columns, and its cells.
fn read(path: &Path) -> (Vec<String>, Vec<String>, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
    let mut rows: Vec<Vec<String>> = rest.iter().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    let names = rows.remove(0);
    (head.into_iter().map(str::to_owned).collect(), names, rows)
}

/// Features of each row of a table, and whether it is a training row; `None` for a row that lacks one.
fn features(table: &str) -> Vec<(Option<[f64; 4]>, bool)> {
    let names: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    let at = |name: &str| names.iter().position(|n| *n == name);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |name: &str| cells[at(name).unwrap()].parse::<f64>().ok();
        let is_training = at("fold").is_some_and(|fold| cells[fold] == "train");
        let features = || {
            let kind = number("kind")?;
            Some([number("x")?, number("z")?, f64::from(u8::from(kind == 2.0)), f64::from(u8::from(kind == 3.0))])
        };
        (features(), is_training)
    };
    table.lines().skip(1).map(row).collect()
}

/// The linear predictor of each row of `rows`, scaled by the training rows of `trained`, as one would do it by hand.
fn by_hand(rows: &str, trained: &str) -> Vec<Option<f64>> {
    let trained = features(trained).into_iter().filter(|(_, is_training)| *is_training);
    let training: Vec<[f64; 4]> = trained.filter_map(|(row, _)| row).collect();
    let n = training.len() as f64;
    let mean: [f64; 4] = std::array::from_fn(|f| training.iter().map(|row| row[f]).sum::<f64>() / n);
    // No training row has the third kind: a constant is only centred.
    let sd: [f64; 4] = std::array::from_fn(|f| {
        let sd = (training.iter().map(|row| (row[f] - mean[f]).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        if sd > 0.0 { sd } else { 1.0 }
    });
    let predictor = |row: [f64; 4]| {
        let parts = (0..4).map(|f| (row[f] - mean[f]) / sd[f] * f64::from(WEIGHTS[f]));
        parts.sum::<f64>() + f64::from(WEIGHTS[4])
    };
    features(rows).into_iter().map(|(row, _)| row.map(predictor)).collect()
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap_or_else(|_| panic!("'{cell}' is no number"))
}

#[test]
fn each_row_gets_what_one_computes_by_hand_and_the_file_says_what_it_is_not_for() {
    let text = table(120);
    let (_rig, order) = logistic_order(&text);
    let (mut input, mut output) = (Vec::new(), Vec::new());
    order.write(&mut input).unwrap();
    assert!(run_prediction(&mut Cursor::new(input), &mut output, &clock).unwrap());
    let mut output = Cursor::new(output);
    let mut events = Vec::new();
    while let Some(event) = PredictionEvent::read(&mut output).unwrap() {
        events.push(event);
    }
    assert!(matches!(events.first(), Some(PredictionEvent::Progress(progress)) if progress.done == 100));
    let Some(PredictionEvent::Done(done)) = events.last() else { panic!("{events:?}") };
    let bytes = std::fs::read(&order.output_path).unwrap();
    assert_eq!((done.bytes, done.digest), (bytes.len() as u64, Digest::of(&bytes)));
    assert_eq!((done.rows, done.incomplete, done.opted_out), (120, 0, 0));

    let (head, names, rows) = read(&order.output_path);
    assert_eq!(head[0], "# Research use only, not for diagnosis or treatment.");
    assert!(head[1].starts_with("# score: from 0 to 1"), "{head:?}");
    assert_eq!(names, ["row", "linear_predictor", "score", "note", "use"]);
    for (i, (row, wanted)) in rows.iter().zip(by_hand(&text, &text)).enumerate() {
        let wanted = wanted.unwrap();
        assert_eq!(row[0], (i + 1).to_string());
        assert!((number(&row[1]) - wanted).abs() < 1e-5, "row {i}: {} {wanted}", row[1]);
        assert!((number(&row[2]) - 1.0 / (1.0 + (-wanted).exp())).abs() < 1e-5);
        assert_eq!((row[3].as_str(), row[4].as_str()), ("", "research use only"));
    }
    assert_eq!(rows.len(), 120);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("P-"), "a subject's key is in it");
}

#[test]
fn a_table_of_several_batches_keeps_its_rows_in_order() {
    let text = table(9_000);
    let (_rig, order) = logistic_order(&text);
    let mut told = Vec::new();
    let last = predict(&order, &clock, &mut |progress| {
        told.push(progress.done);
        true
    });
    assert!(matches!(&last, PredictionEvent::Done(done) if done.rows == 9_000), "{last:?}");
    assert!(told.len() > 1 && told.is_sorted() && told.last() == Some(&100), "{told:?}");
    let rows = read(&order.output_path).2;
    assert_eq!(rows.len(), 9_000);
    for (i, (row, wanted)) in rows.iter().zip(by_hand(&text, &text)).enumerate() {
        assert_eq!(row[0], (i + 1).to_string());
        assert!((number(&row[1]) - wanted.unwrap()).abs() < 1e-5, "{row:?} {wanted:?}");
    }
}

#[test]
fn no_line_above_the_table_is_a_formula_or_hides_those_below() {
    let (_rig, mut order) = logistic_order(&table(60));
    order.head.push("Purpose: a, =HYPERLINK(\"x\"); @b\n-c".into());
    done(&order);
    assert_eq!(read(&order.output_path).0[1], "# Purpose: a, '=HYPERLINK('x'); '@b -c");
}

#[test]
fn rows_of_another_dataset_need_no_label_and_are_scaled_by_what_the_site_trained_on() {
    let trained = table(120);
    // Without outcome and fold, with other values, in another order of columns.
    let line = |i: u32| format!("Q-{i},{},{},{}.0\n", i % 7, f64::from(i) * 3.5, i % 3 + 1);
    let text = "subject_id,z,x,kind\n".to_owned() + &(0..50).map(line).collect::<String>();
    let (rig, order) = logistic_order(&trained);
    let rows = frozen(&rig, "other.csv", &text);
    let order = PredictionOrder { rows, ..order };
    assert_eq!(done(&order).rows, 50);
    for (row, wanted) in read(&order.output_path).2.iter().zip(by_hand(&text, &trained)) {
        assert!((number(&row[1]) - wanted.unwrap()).abs() < 1e-4, "{row:?} {wanted:?}");
    }
    // What was learned from rows cannot be replaced by anything.
    let (words, outward) = failure(&PredictionOrder { trained_on: None, ..order });
    assert!(words.contains("learned from a dataset which is not here"), "{words}");
    assert_eq!(outward, Outward::DataDoNotFit);
}

#[test]
fn a_row_without_a_value_has_no_output_and_one_of_somebody_who_opted_out_is_not_there() {
    // Both in rows for the test, so that the training rows stay as they are.
    let text = edited(&table(120), |row, column| match (row, column) {
        (2, 1) | (5, 2) => Some("?"),
        _ => None,
    });
    let (rig, mut order) = logistic_order(&text);
    let mut opt_outs = OptOuts::new();
    let list = write(rig.folder.path(), "opt-outs.csv", "P-8\n");
    opt_outs.import(&list, &rig.subjects).unwrap();
    order.opt_outs = opt_outs;
    let made = done(&order);
    assert_eq!((made.rows, made.incomplete, made.opted_out), (117, 2, 1));
    let rows = read(&order.output_path).2;
    assert_eq!(rows[2], ["3", "", "", "a value is missing", "research use only"]);
    assert_eq!(rows[5][1..4], ["", "", "a value is missing"]);
    let numbers: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert!(!numbers.contains(&"9") && numbers[8] == "10" && numbers.len() == 119, "{numbers:?}");
    let wanted = by_hand(&text, &text);
    for row in rows.iter().filter(|row| !row[1].is_empty()) {
        let at = row[0].parse::<usize>().unwrap() - 1;
        assert!((number(&row[1]) - wanted[at].unwrap()).abs() < 1e-5, "{row:?}");
    }
}

const COUNTS: &str = r#"
schema: hospes/plan/v1
name: counts
data:
  subject: subject_id
  label: { column: z }
  columns: [x, kind]
  variables:
    kind: { category: { codes: ["1", "2", "3"] } }
tasks:
  read: { component: reader }
  hot: { component: one_hot, inputs: { data: read }, params: { columns: [kind], drop: first } }
  fit: { component: glm, inputs: { train: hot.data }, params: { family: poisson, offset: outcome } }
"#;

#[test]
fn counts_have_their_offset_and_what_learned_nothing_needs_no_training_rows() {
    let plan = plan::read(COUNTS).unwrap_or_else(|e| panic!("{e}"));
    let text = edited(&table(60), |row, column| (row == 4 && column == 4).then_some("?"));
    let rig = Rig::with(&text, plan, Policy::public_data());
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    let point = [0.5, 0.1, 0.2, -0.3];
    let file = safetensors_file(&coefficients.model_tensors(), &coefficients.model_values(&point));
    let order = PredictionOrder { trained_on: None, ..order(&rig, "fit", &file) };
    let made = done(&order);
    assert_eq!((made.rows, made.incomplete), (59, 1), "an offset is missing");
    let (_, names, rows) = read(&order.output_path);
    assert_eq!(names, ["row", "linear_predictor", "expected_count", "note", "use"]);
    for (row, line) in rows.iter().zip(text.lines().skip(1)).filter(|(row, _)| row[0] != "5") {
        let cells: Vec<f64> = line.split(',').skip(1).take(4).map(|c| c.parse().unwrap()).collect();
        let [x, kind, _, offset] = cells.try_into().unwrap();
        let kinds = if kind == 2.0 {
            point[2]
        } else if kind == 3.0 {
            point[3]
        } else {
            0.0
        };
        let wanted: f64 = point[0] + point[1] * x + kinds + offset;
        assert!((number(&row[1]) - wanted).abs() < 1e-5, "{row:?} {wanted}");
        assert!((number(&row[2]) / wanted.exp() - 1.0).abs() < 1e-5);
    }
}

const CLASSES: &str = r#"
schema: hospes/plan/v1
name: kinds
data:
  subject: subject_id
  label: { column: kind, classes: ["1", "2", "3"] }
  columns: [x, z]
tasks:
  read: { component: reader }
  full: { component: imputation, inputs: { data: read }, params: { method: mean } }
  train:
    component: nn_train
    inputs: { train: full.data }
    params:
      model: [{ linear: { out: 3 } }]
      loss: cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 2
      local: { updates: 10, batch: 4 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
"#;

#[test]
fn classes_have_a_score_each_and_missing_values_are_filled_as_in_training() {
    let plan = plan::read(CLASSES).unwrap_or_else(|e| panic!("{e}"));
    let text = edited(&table(60), |row, column| (row < 3 && column == 1).then_some("?"));
    let rig = Rig::with(&text, plan, Policy::public_data());
    // Weights of x and of z for each class, then the biases.
    let values = [0.5, -0.5, 0.0, 0.0, 0.1, 0.2, 0.0, 1.0, -1.0];
    let file = model(&rig.plan, "train", &values);
    // Rows of a table in which every value is missing are filled by those of the training rows.
    let rows = frozen(&rig, "empty.csv", &edited(&table(30), |row, column| (column == 1 && row < 29).then_some("?")));
    for (order, filled) in
        [(order(&rig, "train", &file), 0..3), (PredictionOrder { rows, ..order(&rig, "train", &file) }, 0..29)]
    {
        assert_eq!(done(&order).incomplete, 0);
        let present: Vec<f64> = text.lines().skip(4).map(|line| number(line.split(',').nth(1).unwrap())).collect();
        let mean = present.iter().sum::<f64>() / 57.0;
        let (_, names, rows) = read(&order.output_path);
        assert_eq!(names, ["row", "class", "score_1", "score_2", "score_3", "note", "use"]);
        for (i, row) in rows.iter().enumerate() {
            let line: Vec<String> = table(60).lines().nth(i + 1).unwrap().split(',').map(str::to_owned).collect();
            let x = if filled.contains(&i) { mean } else { number(&line[1]) };
            let z = number(&line[3]);
            let logit = |c: usize| f64::from(values[c]) * x + f64::from(values[3 + c]) * z + f64::from(values[6 + c]);
            let sum: f64 = (0..3).map(|c| logit(c).exp()).sum();
            for c in 0..3 {
                assert!((number(&row[2 + c]) - logit(c).exp() / sum).abs() < 1e-5, "{row:?}");
            }
            let best = (0..3).max_by(|a, b| logit(*a).total_cmp(&logit(*b))).unwrap();
            assert_eq!(row[1], (best + 1).to_string());
        }
    }
}

/// A missing code is not made up: its row has no output, whatever fills numbers before.
#[test]
fn codes_come_to_their_vectors_and_a_row_without_one_has_no_output() {
    let text = edited(&table(60), |row, column| ((row, column) == (7, 2)).then_some("?"));
    let rig = categories::rig(&text, categories::PLAN);
    // Four vectors; of each the first number and half of the second, nothing of x and z, and a quarter.
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 0.5, 0.0, 0.0, 0.25];
    let order = order(&rig, "train", &model(&rig.plan, "train", &values));
    let found = done(&order);
    assert_eq!((found.rows, found.incomplete), (59, 1));
    let rows = read(&order.output_path).2;
    assert_eq!(rows.len(), 60);
    for (i, row) in rows.iter().enumerate() {
        if i == 7 {
            assert_eq!((row[1].as_str(), row[3].as_str()), ("", "a value is missing"));
        } else {
            let wanted = [2.25, 5.25, 8.25][i % 3];
            assert!((number(&row[1]) - wanted).abs() < 1e-5, "row {i}: {row:?}");
        }
    }
}

#[test]
fn i1_no_row_goes_out_without_leave_for_its_snapshot() {
    let (rig, order) = logistic_order(&table(60));
    let off = PredictionOrder { policy: Policy::public_data(), ..order.clone() };
    let refused = predict(&off, &clock, &mut |_| true);
    assert!(matches!(&refused, PredictionEvent::Refused(r) if r.code == RefusalCode::Policy), "{refused:?}");
    assert_eq!(std::fs::read(&order.output_path).unwrap(), b"");
    let file = std::fs::read(&order.model_path).unwrap();
    let prediction = Prediction {
        plan: &rig.plan,
        task: "train",
        file: &file,
        model: order.model,
        rows: (&rig.snapshot, &rig.key),
        trained_on: None,
        opt_outs: &order.opt_outs,
        head: &[],
        deadline: order.deadline,
    };
    let other = LeaveToPredict::under(&allowing(), Digest::of(b"another snapshot"), true).unwrap();
    let mut pulse = Pulse { now: &clock, progress: &mut |_| true };
    let refused = predict_file(other, &prediction, &order.output_path, &mut pulse);
    assert!(matches!(refused, Err(CohortError::WrongSnapshot)), "{refused:?}");
    assert_eq!(std::fs::read(&order.output_path).unwrap(), b"");
}

#[test]
fn rows_that_do_not_fit_the_plan_are_refused_by_column_and_never_by_value() {
    let (rig, order) = logistic_order(&table(60));
    let with = |name: &str, text: &str| failure(&PredictionOrder { rows: frozen(&rig, name, text), ..order.clone() });
    let (words, outward) = with("code.csv", &edited(&table(60), |row, column| (column == 2 && row < 4).then_some("7")));
    assert_eq!(words, "column 'kind': 4 rows have a code that the plan does not list");
    assert_eq!(outward, Outward::DataDoNotFit);
    let words_for_x = edited(&table(60), |row, column| (column == 1).then(|| ["low", "high"][row % 2]));
    let (words, _) = with("type.csv", &words_for_x);
    assert!(words.starts_with("column 'x' is ") && words.ends_with("the plan reads it as a number"), "{words}");
    let (words, _) = with("column.csv", &table(60).replace("kind", "sort"));
    assert_eq!(words, "there is no column 'kind'");
    let (words, _) = with("gone.csv", &edited(&table(60), |_, column| (column == 1).then_some("?")));
    assert!(words.contains("no rows are left") || words.contains("column 'x'"), "{words}");
    // A snapshot that somebody changed.
    std::fs::write(&order.rows.path, b"altered").unwrap();
    let (words, outward) = failure(&order);
    assert!(words.contains("was altered"), "{words}");
    assert_eq!(outward, Outward::SnapshotUnusable);
}

#[test]
fn a_model_that_is_another_or_lacks_its_layers_is_not_used() {
    let (rig, order) = logistic_order(&table(60));
    let mut bytes = std::fs::read(&order.model_path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&order.model_path, &bytes).unwrap();
    let (words, outward) = failure(&order);
    assert!(words.contains("its digest is not the one"), "{words}");
    assert_eq!(outward, Outward::ModelUnusable);
    let shape = plan::model::TensorShape { name: "0.weight".into(), shape: vec![9, 1] };
    let wider = safetensors_file(&[shape], &[0.0; 9]);
    let (words, _) = failure(&PredictionOrder {
        model: canon::digest("model", 1, &wider),
        model_path: write(rig.folder.path(), "wider", &wider),
        ..order.clone()
    });
    assert!(words.starts_with("the model does not fit the plan"), "{words}");
    // No task of this name, and one that trains nothing.
    for task in ["absent", "count"] {
        let (words, _) = failure(&PredictionOrder { task: task.into(), ..order.clone() });
        assert!(words.contains("nn_train or glm"), "{words}");
    }
    let personal = changed("strategy: { fed_avg: {} }", "strategy: { personal: { layers: [\"2\"] } }");
    let rig = Rig::with(&table(60), personal, Policy::public_data());
    let (words, outward) = failure(&self::order(&rig, "train", b"whatever"));
    assert!(words.contains("each site keeps layers"), "{words}");
    assert_eq!(outward, Outward::ModelUnusable);
}

#[test]
fn it_ends_when_its_time_is_over_or_nobody_wants_it_and_an_order_that_is_cut_is_none() {
    let (_rig, order) = logistic_order(&table(60));
    let late = predict(&order, &|| NOW.plus_millis(1_000), &mut |_| true);
    assert!(matches!(&late, PredictionEvent::Failed(f) if f.outward == Outward::TooLate), "{late:?}");
    let stopped = predict(&order, &clock, &mut |_| false);
    assert!(matches!(&stopped, PredictionEvent::Failed(f) if f.outward == Outward::Cancelled), "{stopped:?}");
    let nowhere = PredictionOrder { output_path: order.output_path.with_file_name("absent.csv"), ..order.clone() };
    assert_eq!(failure(&nowhere).1, Outward::Engine, "a file that nobody made is not made here");
    let mut bytes = Vec::new();
    order.write(&mut bytes).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        let mut output = Vec::new();
        assert!(!run_prediction(&mut Cursor::new(&bytes[..cut]), &mut output, &clock).unwrap());
        let last = PredictionEvent::read(&mut Cursor::new(output)).unwrap();
        assert!(matches!(last, Some(PredictionEvent::Failed(_))), "{last:?}");
    }
    let text = format!("{order:?}");
    assert!(text.contains("SnapshotKey(…)") && !text.contains("[5, 5, 5"), "{text}");
}
