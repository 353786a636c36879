//! What a permit opens and what leaves.

use hospes_cohort::opt_out::OptOuts;
use hospes_cohort::train::{Progress, Pulse};
use hospes_cohort::{Cohort, CohortError, Report, ReportView, Round, Update};
use hospes_privacy::coding::Coding;
use hospes_protocol::id::Timestamp;
use hospes_protocol::plan::{self, Plan, figure};
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, PLAN, Rig, changed, edited, plan, safetensors_file, strict, table};

fn clock() -> Timestamp {
    NOW
}

fn open(rig: &Rig, task: &str, round: u32, model: Option<&[u8]>) -> Result<Cohort, CohortError> {
    open_with(rig, task, round, model, &OptOuts::new(), NOW)
}

fn open_with(
    rig: &Rig,
    task: &str,
    round: u32,
    model: Option<&[u8]>,
    opt_outs: &OptOuts,
    now: Timestamp,
) -> Result<Cohort, CohortError> {
    let circumstances = rig.circumstances(rig.header(task, round, model), rig.snapshot.document.subjects);
    let permit = rig.approval().permit(&circumstances).unwrap();
    Cohort::open(permit, &rig.snapshot, &rig.key, opt_outs, &rig.plan, now)
}

fn train_with(rig: &Rig, round: u32, opt_outs: &OptOuts) -> Result<Update, CohortError> {
    train_from(rig, round, opt_outs, &rig.model())
}

fn train_from(rig: &Rig, round: u32, opt_outs: &OptOuts, model: &[u8]) -> Result<Update, CohortError> {
    let cohort = open_with(rig, "train", round, Some(model), opt_outs, NOW)?;
    let header = rig.header("train", round, Some(model));
    let mut progress = |_: Progress| true;
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    cohort.train(Round { site: rig.site(), header: &header, model: Some(model) }, &rig.policy.disclosure, &mut pulse)
}

fn train(rig: &Rig) -> Result<Update, CohortError> {
    train_with(rig, 1, &OptOuts::new())
}

fn report(rig: &Rig, task: &str) -> Result<Report, CohortError> {
    let model = (task == "eval").then(|| rig.model());
    report_from(rig, task, model.as_deref())
}

fn report_from(rig: &Rig, task: &str, model: Option<&[u8]>) -> Result<Report, CohortError> {
    let cohort = open(rig, task, 1, model)?;
    let header = rig.header(task, 1, model);
    let mut progress = |_: Progress| true;
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    let round = Round { site: rig.site(), header: &header, model };
    cohort.report(round, &rig.policy.disclosure, &mut pulse)
}

fn failure(table: &str, plan: Plan, task: &str) -> String {
    let rig = Rig::with(table, plan, Policy::public_data());
    let error = if task == "train" { train(&rig).err() } else { report(&rig, task).err() };
    error.expect("should fail").to_string()
}

#[test]
fn i2_a_cohort_opens_with_a_permit_for_its_snapshot_columns_and_time_only() {
    let rig = Rig::new(&table(60));
    let other = Rig::new(&table(61));
    let circumstances = rig.circumstances(rig.header("count", 1, None), 60);
    let permit = || rig.approval().permit(&circumstances).unwrap();
    let none = OptOuts::new();
    let with = |snapshot, plan, now| Cohort::open(permit(), snapshot, &rig.key, &none, plan, now).map(drop);
    assert!(with(&rig.snapshot, &rig.plan, NOW).is_ok());
    assert!(matches!(with(&other.snapshot, &rig.plan, NOW), Err(CohortError::WrongSnapshot)));
    let late = NOW.plus_millis(300_000);
    assert!(matches!(with(&rig.snapshot, &rig.plan, late), Err(CohortError::TooLate)));
    let greedy = changed("columns: [x, kind, z]", "columns: [x, kind, z, extra]");
    let greedy = hospes_protocol::canon::Canonical::new(greedy).unwrap();
    let refused = with(&rig.snapshot, &greedy, NOW);
    assert!(matches!(refused, Err(CohortError::ColumnNotPermitted { ref column }) if column == "extra"));
}

#[test]
fn a_permit_is_good_for_one_round_only() {
    let rig = Rig::new(&table(60));
    let model = rig.model();
    let mut progress = |_: Progress| true;
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    for (task, round) in [("train", 2), ("eval", 1)] {
        let cohort = open(&rig, "train", 1, Some(&model)).unwrap();
        let header = rig.header(task, round, Some(&model));
        let round = Round { site: rig.site(), header: &header, model: Some(&model) };
        let error = cohort.train(round, &rig.policy.disclosure, &mut pulse).err().unwrap();
        assert_eq!(error.to_string(), "round: the permit is for another round");
    }
}

#[test]
fn an_update_has_the_agreed_layout_and_lowers_the_loss() {
    let rig = Rig::new(&table(120));
    let update = train(&rig).unwrap();
    // 4·4 + 4 + 4·1 + 1 parameters: x, z, kind_2, kind_3.
    assert_eq!(update.payload.len(), 8 + 4 * 25);
    assert_eq!(update.payload[..8], 80u64.to_le_bytes());
    let view = &update.view;
    assert_eq!((view.rows, view.subjects, view.one_class, view.clipped), (80, 80, false, 0));
    assert!(view.loss_after < view.loss_before * 0.8, "{view:?}");
    assert_eq!(view.validation.as_ref().map(ReportView::rows), Some(40));
}

#[test]
fn training_gives_the_same_bytes_for_any_number_of_threads_and_others_for_another_seed_or_round() {
    let rig = Rig::new(&table(120));
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&rig).unwrap().payload)
    };
    let one = in_pool(1);
    assert_eq!(one, in_pool(2));
    assert_eq!(one, in_pool(7));
    assert_ne!(one, train_with(&rig, 2, &OptOuts::new()).unwrap().payload);
    let reseeded = Rig::with(&table(120), changed("seed: 7", "seed: 8"), Policy::public_data());
    assert_ne!(one, train(&reseeded).unwrap().payload);
}

#[test]
fn few_bits_are_those_of_32_within_a_step_and_the_same_when_they_are_trained_again() {
    let rig = |bits: u8| Rig::with(&table(120), changed("bits: 32", &format!("bits: {bits}")), Policy::public_data());
    let levels = |payload: &[u8], most: f64| -> Vec<f64> {
        let (words, _) = payload[8..].as_chunks::<4>();
        words.iter().map(|word| f64::from(u32::from_le_bytes(*word)) / most).collect()
    };
    let exact = levels(&train(&rig(32)).unwrap().payload, f64::from(u32::MAX));
    for (bits, most) in [(8, 255.0), (16, 65_535.0)] {
        let (rig, coding) = (rig(bits), Coding::new(bits, 25).unwrap());
        let update = train(&rig).unwrap();
        assert_eq!(update.payload, train(&rig).unwrap().payload, "a restart sends the same bytes");
        assert!(coding.lengths().contains(&(update.payload.len() as u64)));
        assert_eq!(update.payload[..8], 80u64.to_le_bytes());
        let found = levels(&coding.decode(&update.payload).unwrap(), most);
        assert_eq!(found.len(), exact.len());
        // Each to one of the two levels around it, not all to the nearest.
        let off: Vec<f64> = found.iter().zip(&exact).map(|(found, exact)| (found - exact) * most).collect();
        assert!(off.iter().all(|off| off.abs() < 1.0), "{off:?}");
        assert!(off.iter().any(|off| off.abs() > 0.51), "{off:?}");
    }
}

#[test]
fn people_who_opted_out_are_in_no_batch() {
    let text = table(120);
    let rig = Rig::new(&text);
    let mut list = OptOuts::new();
    let file = crate::rig::write(rig.folder.path(), "optout.txt", "P-0\nP-1\nP-3\n");
    list.import(&file, &rig.subjects).unwrap();
    // The same update as if their rows had never been there.
    let without: String = text
        .lines()
        .filter(|l| !["P-0,", "P-1,", "P-3,"].iter().any(|p| l.starts_with(p)))
        .flat_map(|l| [l, "\n"])
        .collect();
    let expected = train(&Rig::new(&without)).unwrap();
    let update = train_with(&rig, 1, &list).unwrap();
    assert_eq!(update.view.rows, 77);
    assert!(update.payload == expected.payload);
}

#[test]
fn figures_are_exactly_those_announced_and_agree_with_the_view() {
    let rig = Rig::new(&table(120));
    for task in ["eval", "alone", "count"] {
        let report = report(&rig, task).unwrap();
        plan::check_figures(&plan::figures(&rig.plan, task), &report.figures).unwrap();
        assert!(report.figures.withheld.is_empty(), "{task}: {:?}", report.figures.withheld);
        match report.view {
            ReportView::Metrics(m) => {
                assert_eq!(m.rows, 40);
                assert_eq!(report.figures.sums[figure::N], [40.0]);
                let confusion: f64 = report.figures.sums[figure::CONFUSION].iter().sum();
                assert_eq!(confusion, 40.0);
                let auc = m.detail.as_ref().unwrap().intervals["auc"];
                assert!(auc.low <= m.auc.unwrap() && m.auc.unwrap() <= auc.high, "{auc:?} {:?}", m.auc);
                if task == "alone" {
                    assert!(m.accuracy() > 0.8 && m.auc.unwrap() > 0.9, "{} {:?}", m.accuracy(), m.auc);
                }
            }
            ReportView::Statistics { rows, features } => {
                let names: Vec<_> = features.iter().map(|f| f.name.as_str()).collect();
                assert_eq!((rows, names.as_slice()), (120, ["x", "z", "kind_2", "kind_3"].as_slice()));
                assert_eq!(features[2].sum, 40.0);
            }
            _ => panic!("{task} is judged as another kind of label"),
        }
    }
}

/// With a factor of next to nothing, the second epoch leaves what the first one gave.
#[test]
fn a_model_that_is_trained_here_alone_follows_its_schedule() {
    let of = |epochs: &str| {
        let rig = Rig::with(&table(120), changed("epochs: 20", epochs), Policy::public_data());
        report(&rig, "alone").unwrap().figures
    };
    let two = of("schedule: { step: { every: 1, factor: 1.0e-30 } }\n      epochs: 2");
    assert_eq!(two, of("epochs: 1"));
    assert_ne!(two, of("epochs: 2"));
}

/// The plan, with training that can end early.
fn early() -> Plan {
    changed("rounds: 2", "rounds: 2\n      early_stop: { patience: 1, ceiling: 10.0 }")
}

/// The two entries that follow the model in an update of so many rows for training, without the clip's scale.
fn told(update: &Update, rows: f64) -> [f64; 2] {
    let entries = update.payload[update.payload.len() - 8..].as_chunks::<4>().0;
    let entry = |bytes: &[u8; 4]| {
        let level = f64::from(u32::from_le_bytes(*bytes)) / f64::from(u32::MAX) * 2.0 - 1.0;
        level * 1_000.0 / rows
    };
    [entry(&entries[0]), entry(&entries[1])]
}

#[test]
fn where_training_can_end_early_the_loss_on_the_rows_for_validation_follows_the_update() {
    let rig = Rig::with(&table(120), early(), Policy::public_data());
    let update = train(&rig).unwrap();
    assert_eq!(update.payload.len(), 8 + 4 * 25 + 8);
    let plain = train(&Rig::new(&table(120))).unwrap();
    assert!(update.payload[8..108] == plain.payload[8..], "the model is another one");
    assert!(update.withheld.is_empty());
    let Some(ReportView::Metrics(seen)) = &update.view.validation else { panic!("{:?}", update.view) };
    let [loss, share] = told(&update, 80.0);
    // 40 rows for validation, 80 for training.
    assert!((share - 0.5).abs() < 1e-6 && (loss / share * 10.0 - seen.loss()).abs() < 1e-4, "{loss} {share} {seen:?}");
}

#[test]
fn a_loss_that_an_evaluation_would_not_tell_is_not_told_in_training_either() {
    // Enough rows of either class on either side of what the untrained model says.
    let mixed = edited(&table(900), |row, column| match column {
        4 => Some(if (row / 3) % 2 == 0 { "1" } else { "0" }),
        _ => None,
    });
    let update = train(&Rig::with(&mixed, early(), strict())).unwrap();
    let is_told = told(&update, 600.0)[1] > 0.4;
    let Some(ReportView::Metrics(seen)) = &update.view.validation else { panic!() };
    assert_eq!(is_told, seen.confusion.iter().all(|count| *count == 0 || *count >= 10), "{seen:?}");
    assert_eq!(is_told, update.withheld.is_empty());
    assert!(is_told, "nothing is tested: {seen:?}");
    // One class only among the rows for validation.
    let healthy = edited(&mixed, |row, column| (column == 4 && row % 3 == 2).then_some("0"));
    let update = train(&Rig::with(&healthy, early(), strict())).unwrap();
    let [loss, share] = told(&update, 600.0);
    assert!(loss.abs() < 1e-6 && share.abs() < 1e-6 && update.withheld.contains_key(plan::VALIDATION_LOSS));
    // Five patients for validation, all of whom are trained on too: an update, and no loss.
    let few = edited(&mixed, |row, column| (column == 5).then_some(if row < 5 { "test" } else { "train" }));
    let start = PLAN.find("  scale:").unwrap();
    let (train_from, train_to) = (PLAN.find("  train:").unwrap(), PLAN.find("  eval:").unwrap());
    let text = format!("{}{}", &PLAN[..start], &PLAN[train_from..train_to])
        .replace("train: scale.data, validate: scale_test.data", "train: hot, validate: split.test")
        .replace("rounds: 2", "rounds: 2\n      early_stop: { patience: 1 }");
    let rig = Rig::with(&few, plan::read(&text).unwrap_or_else(|e| panic!("{e}")), strict());
    let update = train(&rig).unwrap();
    assert!(update.withheld.contains_key(plan::VALIDATION_LOSS) && told(&update, 900.0)[1].abs() < 1e-6);
    assert_eq!(update.view.validation.unwrap().rows(), 5, "the site sees it all the same");
}

/// One patient lies far out, on the wrong side of a model that is a coin for the others.
#[test]
fn a_loss_that_one_patient_makes_up_is_told_neither_in_training_nor_in_an_evaluation() {
    let rows = |far: &'static str| {
        edited(&table(900), move |row, column| match (row, column) {
            (2, 1) => Some(far),
            (2, 4) => Some("0"),
            (_, 4) => Some(if (row / 3) % 2 == 0 { "1" } else { "0" }),
            _ => None,
        })
    };
    let linear = PLAN
        .replace("[{ linear: { out: 4 } }, { tanh: {} }, { linear: { out: 1 } }]", "[{ linear: { out: 1 } }]")
        .replace("rounds: 2", "rounds: 2\n      early_stop: { patience: 1 }");
    let linear = plan::read(&linear).unwrap_or_else(|e| panic!("{e}"));
    // The logit is the scaled x.
    let tensor = |name: &str, shape| plan::model::TensorShape { name: name.into(), shape };
    let model = [tensor("0.weight", vec![4, 1]), tensor("0.bias", vec![1])];
    let model = safetensors_file(&model, &[1.0, 0.0, 0.0, 0.0, 0.0]);
    let both = |far| {
        let rig = Rig::with(&rows(far), linear.clone(), strict());
        let update = train_from(&rig, 1, &OptOuts::new(), &model).unwrap();
        (update, report_from(&rig, "eval", Some(&model)).unwrap().figures)
    };
    let (update, figures) = both("9.5");
    assert!(update.withheld.is_empty() && told(&update, 600.0)[1] > 0.4);
    assert!(figures.sums.contains_key(figure::LOSS_SUM));
    let (update, figures) = both("1000000");
    assert!(update.withheld.contains_key(plan::VALIDATION_LOSS) && told(&update, 600.0)[1].abs() < 1e-6);
    // As where a count is small.
    assert_eq!(figures.sums.into_keys().collect::<Vec<_>>(), [figure::N]);
}

/// Two trainings are judged on rows that few patients set apart: neither tells its loss.
#[test]
fn the_rows_of_two_losses_are_compared_with_each_other() {
    let mixed = edited(&table(900), |row, column| match column {
        4 => Some(if (row / 3) % 2 == 0 { "1" } else { "0" }),
        _ => None,
    });
    let (train_from, train_to) = (PLAN.find("  train:").unwrap(), PLAN.find("  eval:").unwrap());
    let task = PLAN[train_from..train_to].replace("rounds: 2", "rounds: 2\n      early_stop: { patience: 1 }");
    let start = PLAN.find("  count:").unwrap();
    let withheld = |part: f64, stops: bool| {
        let mut other =
            task.replace("  train:", "  other:").replace("validate: scale_test.data", "validate: part.test");
        if !stops {
            other = other.replace("      early_stop: { patience: 1 }\n", "");
        }
        let split = format!(
            "part: {{ component: data_split, inputs: {{ data: scale_test }}, params: {{ test_fraction: {part} }} }}"
        );
        let text = format!("{}{task}{other}  {split}\n", &PLAN[..start]);
        let plan = plan::read(&text).unwrap_or_else(|e| panic!("{e}"));
        // Its update leaves whatever becomes of the loss.
        train(&Rig::with(&mixed, plan, strict())).unwrap().withheld.into_keys().collect::<Vec<_>>()
    };
    // Three of three hundred, half of them, and three again where no loss is told of them.
    assert_eq!(withheld(0.99, true), [plan::VALIDATION_LOSS]);
    assert!(withheld(0.5, true).is_empty());
    assert!(withheld(0.99, false).is_empty());
}

#[test]
fn every_kind_of_label_is_judged_on_the_rows_for_validation() {
    let number = PLAN
        .replace("column: outcome, positive: \"> 0\"", "column: outcome")
        .replace("binary_cross_entropy", "mse")
        .replace("rounds: 2", "rounds: 2\n      early_stop: { patience: 1 }");
    let rig = Rig::with(&table(120), plan::read(&number).unwrap_or_else(|e| panic!("{e}")), Policy::public_data());
    let update = train(&rig).unwrap();
    let Some(ReportView::Number(seen)) = &update.view.validation else { panic!("{:?}", update.view) };
    let [loss, share] = told(&update, 80.0);
    assert!((loss / share * 100.0 - seen.rmse.unwrap().powi(2)).abs() < 1e-3, "{loss} {share} {seen:?}");
}

fn withheld(rig: &Rig, task: &str) -> (Vec<String>, Vec<String>) {
    let figures = report(rig, task).unwrap().figures;
    (figures.sums.into_keys().collect(), figures.withheld.into_keys().collect())
}

#[test]
fn strict_rules_let_one_group_of_figures_leave_or_none() {
    // Enough rows of either class on the wrong side of the threshold.
    let mixed = edited(&table(360), |row, column| match (column, row % 12) {
        (4, 2) => Some("1"),
        (4, 5) => Some("0"),
        _ => None,
    });
    let rig = Rig::with(&mixed, plan(), strict());
    let report = report(&rig, "alone").unwrap();
    assert!(report.figures.sums.contains_key(figure::CONFUSION), "{:?}", report.view);
    assert!(report.figures.withheld.contains_key(figure::SCORES_POSITIVE));
    // The steward sees them all the same.
    assert!(matches!(report.view, ReportView::Metrics(m) if m.auc.is_some()));
    let few = Rig::with(&table(60), plan(), strict());
    assert_eq!(withheld(&few, "alone").0, [figure::N]);
    assert_eq!(withheld(&few, "eval").0, [figure::N]);
}

#[test]
fn a_table_that_sets_one_patient_apart_reports_nothing() {
    let split = "split: { component: data_split, inputs: { data: hot }, params: { by_column: fold } }";
    assert!(PLAN.contains(split));
    let apart = PLAN
        .replace(split, "split: { component: data_split, inputs: { data: hot }, params: { test_fraction: 0.01 } }")
        .replace("  train:\n", "  part: { component: statistics, inputs: { data: split.train } }\n  train:\n");
    let apart = || plan::read(&apart).unwrap_or_else(|e| panic!("{e}"));
    let rig = Rig::with(&table(100), apart(), strict());
    for task in ["count", "part", "eval", "alone"] {
        assert_eq!(withheld(&rig, task).0, [""; 0], "{task}");
    }
    assert_eq!(withheld(&Rig::with(&table(100), apart(), Policy::public_data()), "part").1, [""; 0]);
    let whole = Rig::with(&table(100), plan(), strict());
    assert_eq!(withheld(&whole, "count").1, [""; 0]);
}

#[test]
fn cells_of_visits_are_no_cells_of_people() {
    // Every patient twice.
    let twice: String = table(200).lines().map(|l| l.replace("P-1", "P-") + "\n").collect();
    let rig = Rig::with(&twice, plan(), strict());
    assert!(rig.snapshot.document.subjects < 200);
    assert_eq!(withheld(&rig, "count").0, [""; 0]);
    assert_eq!(withheld(&Rig::new(&twice), "count").1, [""; 0]);
}

#[test]
fn a_rare_value_of_a_feature_is_in_no_sum() {
    // Three of a hundred are coded 2: with the number of rows, the sum would say so.
    let sex = |rare: usize| {
        edited(&table(100), move |row, column| (column == 3).then_some(if row < rare { "2" } else { "1" }))
    };
    let left = |rare| withheld(&Rig::with(&sex(rare), plan(), strict()), "count").0;
    assert_eq!(left(3), [figure::N]);
    assert_eq!(left(97), [figure::N]);
    assert_eq!(left(40), [figure::N, figure::PRESENT, figure::SUM, figure::SUM_OF_SQUARES]);
    // A scale that the plan chooses makes no difference.
    let scaled = || {
        let bounds = PLAN
            .replace("    kind: {", "    x: { number: { min: 0.0, max: 20.0 } }\n    z: { number: { min: 0.5, max: 7.0 } }\n    kind: {")
            .replace("  count: { component: statistics, inputs: { data: hot } }", "  count: { component: statistics, inputs: { data: bounded.data } }\n  bounded: { component: feature_scale, inputs: { data: hot }, params: { method: bounds } }");
        plan::read(&bounds).unwrap_or_else(|e| panic!("{e}"))
    };
    assert_eq!(withheld(&Rig::with(&sex(3), scaled(), strict()), "count").0, [figure::N]);
    // The first code of a category has no indicator, and is the rest.
    let kinds = edited(&table(100), |row, column| {
        (column == 2).then_some(match row {
            0..3 => "1",
            3..50 => "2",
            _ => "3",
        })
    });
    assert_eq!(withheld(&Rig::with(&kinds, plan(), strict()), "count").0, [figure::N]);
}

#[test]
fn one_class_is_undefined_here_and_withheld_outside() {
    let positive = table(60).replace(",0,test", ",1,test");
    let rig = Rig::new(&positive);
    let report = report(&rig, "alone").unwrap();
    let ReportView::Metrics(metrics) = report.view else { panic!() };
    assert_eq!((metrics.auc, metrics.is_one_class()), (None, true));
    let held: Vec<&str> = report.figures.withheld.keys().map(String::as_str).collect();
    assert_eq!(held, [figure::SCORES_NEGATIVE, figure::SCORES_POSITIVE]);
    // Training on one class works: the hospital with 30 of 30 positive is one of the four.
    let update = train(&Rig::new(&table(60).replace(",0,train", ",1,train"))).unwrap();
    assert!(update.view.one_class);
}

#[test]
fn data_that_do_not_fit_are_refused_in_words_without_values() {
    let missing_label = table(30).replace(",1,train", ",?,train");
    let filled = || {
        plan::read(
            &PLAN
                .replace("method: drop_rows", "method: mean")
                .replace(
                    "full: { component: imputation, inputs: { data: read }",
                    "full: { component: imputation, inputs: { data: hot }",
                )
                .replace("inputs: { data: full.data }, params: { columns", "inputs: { data: read }, params: { columns")
                .replace(
                    "split: { component: data_split, inputs: { data: hot }",
                    "split: { component: data_split, inputs: { data: full.data }",
                ),
        )
        .unwrap_or_else(|e| panic!("{e}"))
    };
    assert!(
        failure(&missing_label, filled(), "train")
            .ends_with("rows have no label; drop them with an imputation or complete the data")
    );
    let empty_x: String = table(30)
        .lines()
        .enumerate()
        .map(|(i, l)| {
            let mut cells: Vec<&str> = l.split(',').collect();
            if i > 0 {
                cells[1] = "?";
            }
            cells.join(",") + "\n"
        })
        .collect();
    assert_eq!(failure(&empty_x, plan(), "train"), "task 'full': no rows are left; column 'x' has no value at all");
    assert_eq!(
        failure(&empty_x, filled(), "train"),
        "task 'full': column 'x' has no value in any row, so nothing can be fitted"
    );
    assert_eq!(
        failure(&table(30).replace(",train", ",?"), plan(), "train"),
        "task 'scale': column 'x' has no value in any row, so nothing can be fitted"
    );
    assert_eq!(
        failure(&table(30).replace(",3.0,", ",9.0,"), plan(), "count"),
        "column 'kind': 10 rows have a code that the plan does not list"
    );
    let bounded = changed("    kind: {", "    x: { number: { min: 0.0, max: 5.0 } }\n    kind: {");
    assert!(failure(&table(30), bounded, "count").starts_with("column 'x': "));
    let full = "  full: { component: imputation, inputs: { data: read }, params: { method: drop_rows } }\n";
    let without = PLAN.replace(full, "").replace("inputs: { data: full.data }", "inputs: { data: read }");
    let unimputed = plan::read(&without).unwrap_or_else(|e| panic!("{e}"));
    let holes = table(30)
        .replace("P-4,", "P-4,?#")
        .lines()
        .map(|l| match l.split_once("?#") {
            Some((head, tail)) => format!("{head}?,{}\n", tail.split_once(',').unwrap().1),
            None => format!("{l}\n"),
        })
        .collect::<String>();
    assert_eq!(
        failure(&holes, unimputed, "train"),
        "task 'train': 1 rows have a missing value in 'x'; the plan needs an imputation before"
    );
    let text_column = table(30)
        .replace(",train", ",2024-01-01,train")
        .replace("outcome,fold", "outcome,day,fold")
        .replace(",test", ",2024-01-02,test");
    let plan = changed("columns: [x, kind, z]", "columns: [x, kind, day]");
    assert_eq!(failure(&text_column, plan, "count"), "column 'day' is a date here; the plan reads it as a number");
}

#[test]
fn what_is_told_outside_has_no_count_and_no_column() {
    let rig = Rig::new(&table(30).replace(",3.0,", ",9.0,"));
    let error = report(&rig, "count").err().unwrap();
    assert!(error.to_string().contains("10 rows"));
    let outward = error.outward().words();
    assert!(!outward.contains("kind") && !outward.chars().any(|c| c.is_ascii_digit()), "{outward}");
}

#[test]
fn models_of_another_shape_or_with_nan_are_refused() {
    let rig = Rig::new(&table(60));
    let shapes = rig.header("train", 1, None).tensors.clone();
    let values = |n: usize| vec![0.5f32; n];
    let mut nan = values(25);
    nan[3] = f32::NAN;
    let mut infinite = values(25);
    infinite[24] = f32::INFINITY;
    let mut wider = shapes.clone();
    wider[0].shape = vec![5, 4];
    let mut renamed = shapes.clone();
    renamed[1].name = "0.offset".into();
    let cases: [(Vec<u8>, &str); 6] = [
        (safetensors_file(&shapes, &nan), "a parameter is NaN or infinite"),
        (safetensors_file(&shapes, &infinite), "a parameter is NaN or infinite"),
        (safetensors_file(&wider, &values(29)), "a tensor has another type or shape than the plan's model"),
        (safetensors_file(&renamed, &values(25)), "a tensor of the plan's model is missing"),
        (safetensors_file(&shapes[..3], &values(24)), "it has more or fewer tensors than the plan's model"),
        (b"not a model".to_vec(), "it is no safetensors file"),
    ];
    let mut progress = |_: Progress| true;
    for (model, wanted) in cases {
        let cohort = open(&rig, "train", 1, Some(&model)).unwrap();
        let header = rig.header("train", 1, Some(&model));
        let mut pulse = Pulse { now: &clock, progress: &mut progress };
        let round = Round { site: rig.site(), header: &header, model: Some(&model) };
        let error = cohort.train(round, &rig.policy.disclosure, &mut pulse).err().unwrap().to_string();
        assert_eq!(error, format!("the model does not fit the plan: {wanted}"));
    }
    let (sent, named) = (rig.model(), safetensors_file(&shapes, &values(25)));
    let cohort = open(&rig, "train", 1, Some(&named)).unwrap();
    let header = rig.header("train", 1, Some(&named));
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    let round = Round { site: rig.site(), header: &header, model: Some(&sent) };
    assert!(
        cohort
            .train(round, &rig.policy.disclosure, &mut pulse)
            .err()
            .unwrap()
            .to_string()
            .contains("its digest is not")
    );
}

#[test]
fn training_stops_when_told_and_when_time_is_over() {
    let rig = Rig::new(&table(60));
    let model = rig.model();
    let header = rig.header("train", 1, Some(&model));
    let round = Round { site: rig.site(), header: &header, model: Some(&model) };
    let mut seen = 0;
    let mut stop = |p: Progress| {
        seen = p.done;
        p.done < 10
    };
    let cohort = open(&rig, "train", 1, Some(&model)).unwrap();
    let stopped = cohort.train(round, &rig.policy.disclosure, &mut Pulse { now: &clock, progress: &mut stop });
    assert!(matches!(stopped.err(), Some(CohortError::Cancelled)));
    assert_eq!(seen, 10);
    let ticks = std::cell::Cell::new(0);
    let running = || {
        ticks.set(ticks.get() + 1);
        NOW.plus_millis(ticks.get() * 60_000)
    };
    let cohort = open(&rig, "train", 1, Some(&model)).unwrap();
    let late = cohort.train(round, &rig.policy.disclosure, &mut Pulse { now: &running, progress: &mut |_| true });
    assert!(matches!(late.err(), Some(CohortError::TooLate)));
    assert!(ticks.get() < 10);
}

#[test]
fn divergence_is_an_error_and_no_payload() {
    // Gradients of about 1e38 at a learning rate of 1000 leave the range of numbers at the first wrong prediction.
    let text = PLAN
        .replace("[{ linear: { out: 4 } }, { tanh: {} }, { linear: { out: 1 } }]", "[{ linear: { out: 1 } }]")
        .replace("train: scale.data, validate: scale_test.data", "train: split.train")
        .replace("data: scale_test.data } }", "data: split.test } }")
        .replace("lr: 0.1", "lr: 1000.0");
    let diverging = plan::read(&text).unwrap_or_else(|e| panic!("{e}"));
    let huge = edited(&table(60), |_, column| (column == 1).then_some("1e38"));
    let rig = Rig::with(&huge, diverging, Policy::public_data());
    assert!(matches!(train(&rig).err(), Some(CohortError::Diverged { .. })));
    let order = rig.order("train");
    let last = hospes_cohort::worker::execute(&order, &clock, &mut |_| true);
    let outward = hospes_cohort::Outward::Diverged;
    assert!(matches!(&last, hospes_cohort::worker::Event::Failed(f) if f.outward == outward), "{last:?}");
    assert!(!order.payload_path.exists());
}

#[test]
fn tables_that_are_not_public_can_be_neither_pooled_nor_fitted() {
    let rig = Rig::with(&table(120), plan(), strict());
    let mut progress = |_: Progress| true;
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    let private = || open(&rig, "alone", 1, None).unwrap();
    assert!(matches!(private().fit("alone", &mut pulse).err(), Some(CohortError::NotPublic)));
    assert!(matches!(private().assess("alone", &[0.0; 5]).err(), Some(CohortError::NotPublic)));
    assert!(matches!(Cohort::pool(vec![private(), private()]).err(), Some(CohortError::NotPublic)));
}

#[test]
fn pooled_tables_are_judged_table_by_table() {
    let rig = Rig::new(&table(120));
    let mut progress = |_: Progress| true;
    let mut pulse = Pulse { now: &clock, progress: &mut progress };
    let one = || open(&rig, "alone", 1, None).unwrap();
    let fit = Cohort::pool(vec![one(), one()]).unwrap().fit("alone", &mut pulse).unwrap();
    assert_eq!((fit.metrics.rows, fit.by_table.len()), (80, 2));
    assert_eq!(fit.by_table[0], fit.by_table[1]);
    let judged = one().assess("alone", &fit.parameters).unwrap();
    assert_eq!((judged.by_table.len(), judged.by_table[0].rows, judged.all.rows), (1, 40, 40));
}
