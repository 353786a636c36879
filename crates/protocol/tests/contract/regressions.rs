//! Regressions in plans: what is read, what leaves, and with which words mistakes are refused.

use expect_test::{Expect, expect};
use hospes_protocol::plan::{
    Coefficients, Component, INTERCEPT, columns_read, egress, needed_behind, read, round_figures,
};

const RISK: &str = r#"
schema: hospes/plan/v1
name: risk
data:
  subject: id
  label: { column: ill, positive: "> 0" }
  columns: [age, sex]
tasks:
  read: { component: reader }
  fit: { component: glm, inputs: { train: read }, params: { family: binomial, offset: log_days, weights: weight } }
"#;

const HAZARD: &str = r#"
schema: hospes/plan/v1
name: hazard
data:
  subject: id
  label: { column: died, positive: "== 1", time: days }
  columns: [age, sex, dose]
tasks:
  read: { component: reader }
  fit: { component: cox, inputs: { train: read }, params: { time_grid: { width: 90.0, intervals: 4 } } }
"#;

fn with(text: &str, from: &str, to: &str, expected: Expect) {
    assert_eq!(text.matches(from).count(), 1, "'{from}' must stand in the plan once");
    expected.assert_eq(&read(&text.replace(from, to)).map_or_else(|e| e.to_string(), |_| "accepted".into()));
}

fn leaves(text: &str) -> String {
    let plan = read(text).unwrap_or_else(|e| panic!("{e}"));
    let line = |e: &hospes_protocol::plan::Egress| format!("{:?} {} {:?} × {}", e.kind, e.name, e.shape, e.times);
    egress(&plan).iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_regression_reads_its_offset_and_weights_and_has_its_coefficients_in_order() {
    let plan = read(RISK).unwrap();
    let read_columns: Vec<String> = columns_read(&plan).into_iter().collect();
    assert_eq!(read_columns, ["age", "id", "ill", "log_days", "sex", "weight"]);
    assert_eq!(Coefficients::of(&plan, "fit").unwrap().names, [INTERCEPT, "age", "sex"]);
    assert_eq!(Coefficients::of(&read(HAZARD).unwrap(), "fit").unwrap().names, ["age", "sex", "dose"]);
    assert!(Coefficients::of(&plan, "read").is_none());
    let Component::Glm(glm) = &plan.tasks["fit"].component else { panic!() };
    let model = Coefficients::of(&plan, "fit").unwrap().model_tensors();
    assert_eq!(hospes_protocol::plan::model::tensors(&glm.model(), 2u64), model);
}

#[test]
fn what_a_regression_sends_is_listed() {
    expect![[r#"
        N n [1] × 25
        Metrics score [3] × 25
        Metrics information [6] × 25
        Loss log_likelihood [1] × 25
        Metrics weights [1] × 25
        Metrics deviance [1] × 25
        Metrics pearson [1] × 25
        Metrics events [1] × 25"#]]
    .assert_eq(&leaves(RISK));
    expect![[r#"
        N n [1] × 26
        Metrics score [3] × 25
        Metrics information [6] × 25
        Loss log_likelihood [1] × 25
        Metrics events [1] × 26
        Metrics pairs [3] × 1
        Metrics grid_events [4] × 1
        Metrics grid_exposure [4] × 1"#]]
    .assert_eq(&leaves(HAZARD));
    let plan = read(HAZARD).unwrap();
    let figures = |round| round_figures(&plan, "fit", round).into_iter();
    let names = |round| figures(round).map(|f| f.name.into_owned()).collect::<Vec<_>>();
    let newton = ["n", "score", "information", "log_likelihood", "events"];
    assert_eq!(names(1), newton);
    assert_eq!(names(25), newton);
    assert_eq!(names(26), ["n", "events", "pairs", "grid_events", "grid_exposure"]);
}

#[test]
fn labels_that_do_not_fit_a_regression_are_refused() {
    with(RISK, r#", positive: "> 0""#, "", expect!["tasks.fit.params.family: needs a label with data.label.positive"]);
    with(RISK, "family: binomial", "family: poisson", expect!["tasks.fit.params.family: needs a number as label"]);
    with(
        HAZARD,
        ", time: days",
        "",
        expect!["tasks.fit: the label is yes or no; cox needs data.label.time and data.label.positive"],
    );
    with(
        RISK,
        r#"positive: "> 0""#,
        "classes: [a, b]",
        expect!["tasks.fit.params.family: needs a label with data.label.positive"],
    );
}

#[test]
fn columns_and_numbers_of_a_regression_are_checked() {
    with(
        RISK,
        "offset: log_days",
        "offset: age",
        expect!["tasks.fit.params.offset: 'age' is a feature, the label or the subject"],
    );
    with(
        RISK,
        "weights: weight",
        "weights: log_days",
        expect!["tasks.fit.params.weights: is the column of the offset too"],
    );
    with(
        RISK,
        "weights: weight",
        "newton: { rounds: 300, tolerance: 0.001 }",
        expect![[r#"
            tasks.fit.params.newton.rounds: is 300; it must lie between 1 and 200
            tasks.fit.params.newton.tolerance: is 0.001; it must be above 0 and at most 0.00001"#]],
    );
    with(
        RISK,
        "weights: weight",
        "confidence: 95.0",
        expect!["tasks.fit.params.confidence: is 95; it must lie between 0 and 1"],
    );
    with(
        HAZARD,
        "width: 90.0, intervals: 4",
        "width: 0.0, intervals: 0",
        expect![[r#"
            tasks.fit.params.time_grid.width: is 0; it must be above 0
            tasks.fit.params.time_grid.intervals: is 0; it must lie between 1 and 10000"#]],
    );
    let many: Vec<String> = (0..400).map(|i| format!("x{i}")).collect();
    let columns = format!("columns: [{}]", many.join(", "));
    with(RISK, "columns: [age, sex]", &columns, expect!["tasks.fit.params: 400 features, more than the 399 allowed"]);
    with(
        RISK,
        "columns: [age, sex]",
        "columns: [age, sex]\n  variables: { sex: { category: { codes: [f, m] } } }",
        expect!["tasks.fit.inputs.train: 'sex' is a category; put a one_hot task before it"],
    );
}

#[test]
fn every_family_is_judged_with_or_without_an_offset() {
    let judged = "  judge: { component: evaluation, inputs: { model: fit.model, data: read } }\n";
    let plan = format!("{RISK}{judged}");
    with(&plan, "name: risk", "name: risk", expect!["accepted"]);
    with(&plan, "offset: log_days, weights: weight", "weights: weight", expect!["accepted"]);
    with(
        &plan,
        "model: fit.model",
        "model: fit.fit",
        expect!["tasks.judge.inputs.model: needs a model, but 'fit.fit' is a table of coefficients"],
    );
    let number = plan.replace(r#", positive: "> 0""#, "");
    with(&number, "family: binomial", "family: gaussian", expect!["accepted"]);
    with(&number, "family: binomial", "family: poisson", expect!["accepted"]);
}

#[test]
fn a_task_needs_the_columns_of_those_that_work_on_its_rows_and_no_others() {
    let judged = "  full: { component: imputation, inputs: { data: read } }\n  \
                  judge: { component: evaluation, inputs: { model: fit.model, data: full.data } }\n";
    let plan = read(&format!("{RISK}{judged}")).unwrap_or_else(|e| panic!("{e}"));
    let of = |task: &str| needed_behind(&plan, task).into_iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!((of("read"), of("full"), of("judge")), (vec!["log_days", "weight"], vec!["log_days"], vec![]));
    // Somebody else's offset is nobody's business here.
    let count = "part: { component: imputation, inputs: { data: read } }\n  \
                 count: { component: statistics, inputs: { data: part.data } }\n  fit:";
    let counted = RISK.replace("fit:", count);
    let plan = read(&counted).unwrap_or_else(|e| panic!("{e}"));
    assert!(needed_behind(&plan, "part").is_empty() && needed_behind(&plan, "absent").is_empty());
}

#[test]
fn a_network_takes_the_label_of_a_regression_with_a_loss_that_fits() {
    let train = r#"  train:
    component: nn_train
    inputs: { train: read }
    params:
      model: [{ linear: { out: 1 } }]
      loss: mse
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 1
      local: { updates: 1, batch: 1 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
"#;
    let plan = format!("{RISK}{train}").replace(r#", positive: "> 0""#, "");
    with(&plan, "family: binomial", "family: gaussian", expect!["accepted"]);
    with(
        &plan.replace("family: binomial", "family: gaussian"),
        "loss: mse",
        "loss: binary_cross_entropy",
        expect!["tasks.train.params.loss: the label is a number; this loss needs data.label.positive"],
    );
}

/// Attack: the same fit once more, at another level of confidence, of which the difference tells about whoever left between.
#[test]
fn a_regression_is_fitted_to_its_rows_once() {
    let again = "tasks.fit2: 'fit' fits the same regression to the same rows, and the difference of the two would tell about \
                 few patients; leave one of them";
    let said = |text: &str, params: &str| {
        let (component, _) = text.rsplit_once("component: ").unwrap().1.split_once(',').unwrap();
        let more = format!("  fit2: {{ component: {component}, inputs: {{ train: read }}, params: {{ {params} }} }}\n");
        read(&format!("{text}{more}")).map_or_else(|e| e.to_string(), |_| "accepted".into())
    };
    let risk = "family: binomial, offset: log_days, weights: weight";
    for more in ["confidence: 0.9", "newton: { rounds: 20 }", "privacy: { secure_aggregation: {} }"] {
        assert_eq!(said(RISK, &format!("{risk}, {more}")), again, "{more}");
    }
    for params in ["confidence: 0.9", "time_grid: { width: 91.0, intervals: 4 }"] {
        assert_eq!(said(HAZARD, params), again, "{params}");
    }
    // Another model of the same rows is another fit.
    assert_eq!(said(RISK, "family: binomial, intercept: false"), "accepted");
}
