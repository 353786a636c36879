//! What of a regression's sums leaves a site, through the worker as a round runs it.

use hospes_cohort::worker::{Event, LocalView, execute};
use hospes_cohort::{Outward, ReportView};
use hospes_protocol::canon::Canonical;
use hospes_protocol::id::Timestamp;
use hospes_protocol::message::FigureSet;
use hospes_protocol::plan::{self, Coefficients, Plan, figure};
use hospes_protocol::policy::Policy;

use crate::rig::{NOW, Rig, edited, safetensors_file, strict, table};

pub(crate) const PLAN: &str = r#"
schema: hospes/plan/v1
name: odds
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x, kind]
  variables:
    kind: { category: { codes: ["1", "2", "3"] } }
tasks:
  read: { component: reader }
  hot: { component: one_hot, inputs: { data: read }, params: { columns: [kind], drop: first } }
  fit: { component: glm, inputs: { train: hot }, params: { family: binomial } }
  judge: { component: evaluation, inputs: { model: fit.model, data: hot } }
"#;

fn clock() -> Timestamp {
    NOW
}

fn plan(change: &[(&str, &str)]) -> Plan {
    let text = change.iter().fold(PLAN.to_owned(), |text, (from, to)| {
        assert!(text.contains(from));
        text.replace(from, to)
    });
    plan::read(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// What the worker says of a round at these coefficients.
fn run(rig: &Rig, task: &str, file: &[u8]) -> (Event, Option<FigureSet>) {
    run_in(rig, task, 1, file)
}

fn run_in(rig: &Rig, task: &str, round: u32, file: &[u8]) -> (Event, Option<FigureSet>) {
    let order = rig.order_with(task, round, Some(file));
    let last = execute(&order, &clock, &mut |_| true);
    let figures = std::fs::read(&order.payload_path).ok();
    (last, figures.map(|bytes| Canonical::<FigureSet>::parse(&bytes).unwrap().into_inner()))
}

fn fit(rig: &Rig) -> (Event, Option<FigureSet>) {
    let count = Coefficients::of(&rig.plan, "fit").unwrap().len();
    fit_at(rig, &vec![0.0; count])
}

fn fit_at(rig: &Rig, point: &[f64]) -> (Event, Option<FigureSet>) {
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    let values = coefficients.file_values(point);
    run(rig, "fit", &safetensors_file(&coefficients.tensors(), &values))
}

fn left(table: &str) -> usize {
    let (last, figures) = fit(&Rig::with(table, plan(&[]), strict()));
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    assert_eq!(figures.sums.len() + figures.withheld.len(), 8);
    figures.sums.len()
}

#[test]
fn sums_leave_if_no_count_in_them_is_small() {
    assert_eq!(left(&table(300)), 8);
    // Column 2 is the kind, column 4 the outcome: three of a kind.
    let rare =
        edited(&table(300), |row, column| (column == 2).then_some(if row < 3 { "3" } else { ["1", "2"][row % 2] }));
    assert_eq!(left(&rare), 1);
    // Forty of a kind, four of them ill.
    let pair = edited(&table(300), |row, column| match (row, column) {
        (0..40, 2) => Some("3"),
        (0..4, 4) => Some("1"),
        (4..40, 4) => Some("0"),
        (_, 2) => Some(["1", "2"][row % 2]),
        _ => None,
    });
    assert_eq!(left(&pair), 1);
    let nobody_ill = edited(&table(300), |_, column| (column == 4).then_some("0"));
    assert_eq!(left(&nobody_ill), 1);
}

#[test]
fn coefficients_that_single_out_a_row_get_nothing() {
    let rig = Rig::with(&table(300), plan(&[]), strict());
    let left = |point: &[f64]| fit_at(&rig, point).1.unwrap().sums.len();
    assert_eq!(left(&[-10.0, 2.0, 0.0, 0.0]), 8);
    // Only rows with x = 5.0 weigh anything, three of three hundred.
    assert_eq!(left(&[-5_000.0, 1_000.0, 0.0, 0.0]), 0);
    let public = Rig::with(&table(300), plan(&[]), Policy::public_data());
    assert_eq!(fit_at(&public, &[-5_000.0, 1_000.0, 0.0, 0.0]).1.unwrap().sums.len(), 8);
}

/// A row whose `x` is a hundred times that of any other, at coefficients that put it far on its wrong side.
#[test]
fn a_row_far_on_its_wrong_side_is_read_off_no_statistic() {
    let far = edited(&table(300), |row, column| match (row, column) {
        (0, 1) => Some("1000"),
        (0, 4) => Some("0"),
        _ => None,
    });
    let rig = Rig::with(&far, plan(&[]), strict());
    let left = |point: &[f64]| {
        let figures = fit_at(&rig, point).1.unwrap();
        (figures.sums.len(), figures.withheld.into_keys().collect::<Vec<_>>())
    };
    assert_eq!(left(&[0.0; 4]), (8, Vec::new()));
    // e^50 in Pearson's statistic, 100 of 515 in the deviance, nothing in the information.
    assert_eq!(left(&[0.0, 0.05, 0.0, 0.0]), (7, vec![figure::PEARSON.to_owned()]));
    // 600 of the deviance.
    assert_eq!(left(&[0.0, 0.3, 0.0, 0.0]).0, 0);
    let public = Rig::with(&far, plan(&[]), Policy::public_data());
    assert_eq!(fit_at(&public, &[0.0, 0.3, 0.0, 0.0]).1.unwrap().sums.len(), 8);
}

/// A split that sets nobody apart, and a step that drops no row, are seen in the rows only.
#[test]
fn the_same_predictions_are_not_judged_twice_behind_an_idle_step() {
    let judged = |step: &str, data: &str, params: &str, policy: Policy| {
        let more = format!(
            "  {step}\n  twice: {{ component: evaluation, inputs: {{ model: fit.model, data: {data} }}, params: {{ {params} }} \
             }}\n"
        );
        let rows = edited(&table(300), |row, column| match (column, row % 12) {
            (4, 2) => Some("1"),
            (4, 5) => Some("0"),
            _ => None,
        });
        let plan = plan::read(&format!("{PLAN}{more}")).unwrap_or_else(|e| panic!("{e}"));
        let rig = Rig::with(&rows, plan, policy);
        let figures = judged_at(&rig, &[-5.0, 1.0, 0.0, 0.0]).1.unwrap();
        figures.sums.contains_key(figure::CONFUSION)
    };
    let split = |part: f64| {
        format!("part: {{ component: data_split, inputs: {{ data: hot }}, params: {{ test_fraction: {part} }} }}")
    };
    let drop = "part: { component: imputation, inputs: { data: hot }, params: { method: drop_rows } }";
    assert!(!judged(&split(0.0001), "part.train", "threshold: 0.51", strict()));
    assert!(!judged(drop, "part.data", "threshold: 0.51", strict()));
    // Once more the same is nothing more, another part is another table, and public data are public.
    assert!(judged(drop, "part.data", "threshold: 0.5", strict()));
    assert!(judged(&split(0.5), "part.train", "threshold: 0.51", strict()));
    assert!(judged(drop, "part.data", "threshold: 0.51", Policy::public_data()));
}

#[test]
fn too_many_coefficients_for_the_patients_are_refused() {
    // Four coefficients, and a third of eleven patients.
    let (last, figures) = fit(&Rig::with(&table(11), plan(&[]), strict()));
    assert!(figures.is_none());
    assert!(matches!(&last, Event::Refused(refusal) if refusal.detail.contains("4 parameters")), "{last:?}");
}

#[test]
fn sums_at_zero_are_counts_and_the_site_sees_its_likelihood() {
    let (last, figures) = fit(&Rig::with(&table(300), plan(&[]), Policy::public_data()));
    let figures = figures.unwrap();
    let events = figures.sums[figure::EVENTS][0];
    assert_eq!(figures.sums[figure::SCORE][0], events - 150.0);
    assert_eq!(figures.sums[figure::INFORMATION][0], 75.0);
    // The indicators of kinds 2 and 3: 100 rows each, in none together.
    assert_eq!(figures.sums[figure::INFORMATION][7..], [25.0, 0.0, 25.0]);
    let Event::Done(done) = last else { panic!("{last:?}") };
    let LocalView::Report(ReportView::Regression { rows, log_likelihood }) = done.view else { panic!("{done:?}") };
    assert_eq!(rows, 300);
    assert!((log_likelihood + 300.0 * std::f64::consts::LN_2).abs() < 1e-9);
}

#[test]
fn values_that_break_a_rule_are_told_by_column_here_and_by_class_outside() {
    // z is 0 in every eleventh row.
    let weighted = plan(&[
        ("family: binomial", "family: binomial, weights: z"),
        ("  judge: { component: evaluation, inputs: { model: fit.model, data: hot } }\n", ""),
    ]);
    let (last, figures) = fit(&Rig::with(&table(300), weighted, Policy::public_data()));
    let Event::Failed(failure) = last else { panic!("{last:?}") };
    assert!(figures.is_none());
    assert_eq!(failure.local, "task 'fit': 28 rows of the column 'z' have a weight that is not above 0");
    assert_eq!(failure.outward, Outward::DataDoNotFit);
}

#[test]
fn coefficients_of_another_shape_are_refused() {
    let rig = Rig::with(&table(60), plan(&[]), Policy::public_data());
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    let model = safetensors_file(&coefficients.model_tensors(), &coefficients.model_values(&[0.0; 4]));
    let (last, _) = run(&rig, "fit", &model);
    assert!(matches!(&last, Event::Failed(failure) if failure.outward == Outward::ModelUnusable), "{last:?}");
}

#[test]
fn the_model_of_a_fit_is_judged_as_any_other() {
    let rig = Rig::with(&table(300), plan(&[]), Policy::public_data());
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    // The outcome is 1 where x is large.
    let values = coefficients.model_values(&[-10.0, 2.0, 0.0, 0.0]);
    let (last, figures) = run(&rig, "judge", &safetensors_file(&coefficients.model_tensors(), &values));
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    assert!(figures.sums[figure::CORRECT][0] > 270.0, "{:?}", figures.sums[figure::CORRECT]);
}

/// Counts `z`, with the outcome as offset.
fn counts() -> Plan {
    plan(&[
        ("label: { column: outcome, positive: \"> 0\" }", "label: { column: z }"),
        ("family: binomial", "family: poisson, offset: outcome"),
    ])
}

fn judged_at(rig: &Rig, point: &[f64]) -> (Event, Option<FigureSet>) {
    let coefficients = Coefficients::of(&rig.plan, "fit").unwrap();
    run(rig, "judge", &safetensors_file(&coefficients.model_tensors(), &coefficients.model_values(point)))
}

#[test]
fn counts_are_judged_by_the_exponential_of_the_predictor_with_its_offset() {
    let table = table(300);
    let point = [0.5, 0.1, 0.2, -0.3];
    let (mut absolute, mut squared) = (0.0f64, 0.0f64);
    for line in table.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').skip(1).take(4).map(|c| c.parse().unwrap()).collect();
        let [x, kind, z, outcome] = cells.try_into().unwrap();
        let kinds = if kind == 2.0 {
            point[2]
        } else if kind == 3.0 {
            point[3]
        } else {
            0.0
        };
        let error: f64 = z - (point[0] + point[1] * x + kinds + outcome).exp();
        absolute += error.abs();
        squared += error * error;
    }
    let rig = Rig::with(&table, counts(), Policy::public_data());
    let (last, figures) = judged_at(&rig, &point);
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    let near = |name: &str, value: f64| (figures.sums[name][0] / value - 1.0).abs() < 1e-5;
    assert!(near(figure::ABSOLUTE_ERROR_SUM, absolute) && near(figure::SQUARED_ERROR_SUM, squared), "{figures:?}");
    // A predictor of two thousand is no infinite count.
    let (last, figures) = judged_at(&rig, &[0.0, 200.0, 0.0, 0.0]);
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    assert!(figures.sums[figure::SQUARED_ERROR_SUM][0] > 1e200, "{figures:?}");
}

#[test]
fn the_errors_of_a_model_that_singles_out_a_row_do_not_leave() {
    // Labels that are spread over many values, so that no count of one value is small.
    let spread = edited(&table(300), |row, column| (column == 3).then(|| ["10", "11", "12"][row % 3]));
    let rig = Rig::with(&spread, counts(), strict());
    let left = |point: &[f64]| judged_at(&rig, point).1.unwrap().sums.len();
    assert_eq!(left(&[2.0, 0.05, 0.0, 0.0]), 5);
    // Three rows of three hundred have x = 10.0, and e^30 there is more than e^27 in all others. Their number is no secret.
    assert_eq!(left(&[0.0, 30.0, 0.0, 0.0]), 1);
}

#[test]
fn a_model_of_numbers_is_judged_with_its_offset_too_and_a_missing_offset_is_told() {
    let number = plan(&[
        ("label: { column: outcome, positive: \"> 0\" }", "label: { column: z }"),
        ("family: binomial", "family: gaussian, offset: outcome"),
    ]);
    let rig = Rig::with(&table(300), number.clone(), Policy::public_data());
    let (last, figures) = judged_at(&rig, &[1.0, 0.0, 0.0, 0.0]);
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    let error = |line: &str| {
        let cells: Vec<f64> = line.split(',').skip(3).take(2).map(|c| c.parse().unwrap()).collect();
        (cells[0] - 1.0 - cells[1]).abs()
    };
    let wanted: f64 = table(300).lines().skip(1).map(error).sum();
    assert!((figures.sums[figure::ABSOLUTE_ERROR_SUM][0] / wanted - 1.0).abs() < 1e-6);
    let holes = edited(&table(300), |row, column| (column == 4 && row < 7).then_some("?"));
    let (last, _) = judged_at(&Rig::with(&holes, number, Policy::public_data()), &[1.0, 0.0, 0.0, 0.0]);
    let Event::Failed(failure) = last else { panic!("{last:?}") };
    assert_eq!(
        failure.local,
        "task 'judge': 7 rows have a missing value in 'outcome'; the plan needs an imputation before"
    );
}

#[test]
fn rows_are_dropped_for_the_columns_that_their_own_tasks_need_only() {
    let text = r#"
schema: hospes/plan/v1
name: weighted
data:
  subject: subject_id
  label: { column: outcome, positive: "> 0" }
  columns: [x]
tasks:
  read: { component: reader }
  full: { component: imputation, inputs: { data: read } }
  fit: { component: glm, inputs: { train: full.data }, params: { family: binomial, weights: z } }
  rest: { component: imputation, inputs: { data: read } }
  count: { component: statistics, inputs: { data: rest.data } }
  judge: { component: evaluation, inputs: { model: fit.model, data: rest.data } }
"#;
    let holes = edited(&table(300), |row, column| (column == 3).then_some(if row < 40 { "?" } else { "2" }));
    let rig = Rig::with(&holes, plan::read(text).unwrap_or_else(|e| panic!("{e}")), Policy::public_data());
    let rows = |figures: Option<FigureSet>| figures.unwrap().sums[figure::N][0];
    let fitted = fit(&rig).1;
    assert_eq!(fitted.as_ref().unwrap().sums[figure::WEIGHTS], [520.0]);
    assert_eq!(rows(fitted), 260.0);
    let order = rig.order_with("count", 1, None);
    assert!(matches!(execute(&order, &clock, &mut |_| true), Event::Done(_)));
    let counted = Canonical::<FigureSet>::parse(&std::fs::read(&order.payload_path).unwrap()).unwrap().into_inner();
    assert_eq!(rows(Some(counted)), 300.0);
    assert_eq!(rows(judged_at(&rig, &[0.0, 1.0]).1), 300.0);
}

#[test]
fn times_and_events_make_a_partial_likelihood() {
    let survival = plan(&[
        ("positive: \"> 0\" }", "positive: \"> 0\", time: z }"),
        ("component: glm", "component: cox"),
        ("{ family: binomial }", "{ time_grid: { width: 5.0, intervals: 3 } }"),
        ("  judge: { component: evaluation, inputs: { model: fit.model, data: hot } }\n", ""),
    ]);
    let later = |days: &'static [&'static str]| {
        edited(&table(300), move |row, column| (column == 3).then_some(days[row % days.len()]))
    };
    let often = Rig::with(&later(&["1", "3", "7", "9", "12", "14"]), survival, strict());
    let (last, figures) = fit(&often);
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    let names = |figures: &FigureSet| figures.sums.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&figures), "events information log_likelihood n score");
    // Pairs and grid leave once, after the fit, and nothing that a further step could be made of.
    let coefficients = Coefficients::of(&often.plan, "fit").unwrap();
    let file = safetensors_file(&coefficients.tensors(), &coefficients.file_values(&vec![0.0; coefficients.len()]));
    let (last, figures) = run_in(&often, "fit", 26, &file);
    let figures = figures.unwrap_or_else(|| panic!("{last:?}"));
    assert_eq!(names(&figures), "events grid_events grid_exposure n pairs");
    assert!(figures.withheld.is_empty(), "{:?}", figures.withheld);
    let events = &figures.sums[figure::GRID_EVENTS];
    assert_eq!(events.iter().sum::<f64>(), figures.sums[figure::EVENTS][0]);
}
