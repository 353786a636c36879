//! Plans: what is read, what is refused, and with which words.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use hospes_protocol::canon::Canonical;
use hospes_protocol::plan::{
    Component, Family, Glm, Newton, Plan, Privacy, ScaleMethod, columns_read, features, order, predecessors,
    predictors, preparation, read,
};

use crate::world::{HEART, heart};

/// The heart plan with one piece of text replaced, and what is said about it.
pub(crate) fn with(from: &str, to: &str, expected: Expect) {
    assert_eq!(HEART.matches(from).count(), 1, "'{from}' must stand in the plan once");
    said(&HEART.replace(from, to), expected);
}

fn said(text: &str, expected: Expect) {
    expected.assert_eq(&read(text).map_or_else(|e| e.to_string(), |_| "accepted".into()));
}

#[test]
fn heart_plan_has_its_thirteen_features_in_order() {
    let names: Vec<String> = features(&heart(), "train").into_iter().map(|f| f.name).collect();
    assert_eq!(
        names,
        [
            "age",
            "sex",
            "trestbps",
            "chol",
            "fbs",
            "thalach",
            "exang",
            "oldpeak",
            "cp_2",
            "cp_3",
            "cp_4",
            "restecg_1",
            "restecg_2"
        ]
    );
    assert_eq!(features(&heart(), "read").len(), 10);
    assert_eq!(features(&heart(), "hot").len(), 10, "a task's features are those that arrive");
    assert_eq!(features(&heart(), "eval"), features(&heart(), "train"));
    assert!(features(&heart(), "absent").is_empty());
}

#[test]
fn columns_read_are_features_subject_label_and_fold_only() {
    let read = columns_read(&heart());
    let extra: BTreeSet<&str> =
        read.iter().map(String::as_str).filter(|c| !heart().data.columns.iter().any(|d| d == c)).collect();
    assert_eq!(extra, BTreeSet::from(["fold", "num", "subject_id"]));
    assert_eq!(read.len(), 13);
}

#[test]
fn a_model_needs_its_features_of_a_row_and_an_offset_and_no_label() {
    let plan = heart();
    let needed: Vec<String> = predictors(&plan, "train").into_iter().collect();
    assert_eq!(
        needed,
        ["age", "chol", "cp", "exang", "fbs", "oldpeak", "restecg", "sex", "thalach", "trestbps"],
        "neither label nor subject nor fold"
    );
    let mut rate = plan;
    let (offset, weights) = (Some("years".to_owned()), Some("weight".to_owned()));
    let (newton, confidence, privacy) = (Newton::default(), 0.95, Privacy::Plain {});
    let glm = Glm { family: Family::Binomial, intercept: true, offset, weights, newton, confidence, privacy };
    rate.tasks.get_mut("train").unwrap().component = Component::Glm(glm);
    let needed = predictors(&rate, "train");
    assert!(needed.contains("years") && !needed.contains("weight"), "{needed:?}");
}

#[test]
fn training_rows_are_prepared_in_steps_some_of_which_learn_from_them() {
    let plan = heart();
    let steps = preparation(&plan, "train");
    assert_eq!(steps, ["read", "fill", "hot", "split", "scale"]);
    let learn: Vec<&str> = steps.into_iter().filter(|step| plan.tasks[*step].component.learns()).collect();
    assert_eq!(learn, ["scale"], "what drops rows learns nothing");
    assert!(preparation(&plan, "eval").is_empty() && preparation(&plan, "absent").is_empty());
}

#[test]
fn tasks_come_after_what_they_read() {
    let plan = heart();
    let sorted = order(&plan);
    assert_eq!(sorted.len(), plan.tasks.len());
    for (i, task) in sorted.iter().enumerate() {
        for before in predecessors(&plan, task) {
            assert!(sorted[..i].contains(&before), "{before} before {task}");
        }
    }
    assert_eq!(predecessors(&plan, "scale_test"), ["scale", "split"]);
}

#[test]
fn defaults_are_written_out_and_the_canonical_form_comes_back() {
    let plan = heart();
    assert_eq!(plan.seed, 7);
    let bytes = Canonical::new(plan.clone()).unwrap();
    let again = Canonical::<Plan>::parse(bytes.bytes()).unwrap();
    assert_eq!(*again, plan);
    assert_eq!(again.digest(), bytes.digest());
    let json = serde_json::to_string(&plan).unwrap();
    for default in ["\"momentum\":0.0", "\"bias\":true", "\"clip\":4.0", "\"test_fraction\":null", "\"threshold\":0.5"]
    {
        assert!(json.contains(default), "{default} in {json}");
    }
    // The written-out form is a plan too, and the same.
    assert_eq!(read(&json).unwrap(), plan);
}

#[test]
fn whole_numbers_for_real_ones_give_the_same_document() {
    let whole = read(&HEART.replace("lr: 0.001 } }\n      rounds", "lr: 1 } }\n      rounds")).unwrap();
    let real = read(&HEART.replace("lr: 0.001 } }\n      rounds", "lr: 1.0 } }\n      rounds")).unwrap();
    assert_eq!(Canonical::new(whole).unwrap().digest(), Canonical::new(real).unwrap().digest());
}

#[test]
fn a_task_with_anothers_fit_takes_over_its_parameters() {
    let text = HEART.replace("params: { method: standard, scope: site }", "params: { method: bounds }").replace(
        "    age:",
        "    sex: { number: { min: 0, max: 1 } }
    trestbps: { number: { min: 0, max: 300 } }
    chol: { number: { min: 0, max: 700 } }
    fbs: { number: { min: 0, max: 1 } }
    thalach: { number: { min: 0, max: 300 } }
    exang: { number: { min: 0, max: 1 } }
    oldpeak: { number: { min: -5, max: 10 } }
    age:",
    );
    let plan = read(&text).unwrap_or_else(|e| panic!("{e}"));
    for task in ["scale", "scale_test"] {
        assert!(matches!(&plan.tasks[task].component, Component::FeatureScale(s) if s.method == ScaleMethod::Bounds));
    }
}

#[test]
fn references_that_lead_nowhere_are_named_with_the_nearest_word() {
    with(
        "data: split.train }, params: { method",
        "data: spilt.train }, params: { method",
        expect!["tasks.scale.inputs.data: no task 'spilt', did you mean 'split'?"],
    );
    with(
        "data: split.test, fitted",
        "data: split.tset, fitted",
        expect!["tasks.scale_test.inputs.data: task 'split' has no output 'tset', did you mean 'test'?"],
    );
    with(
        "data: split.test, fitted",
        "data: split, fitted",
        expect![
            "tasks.scale_test.inputs.data: task 'split' has several outputs; name one of 'split.train', 'split.test'"
        ],
    );
    with(
        "inputs: { train: scale.data, validate",
        "inputs: { trian: scale.data, validate",
        expect![[r#"
        tasks.train.inputs.trian: nn_train has no input 'trian', did you mean 'train'?
        tasks.train.inputs: nn_train needs the input 'train', a table"#]],
    );
    with(
        "model: train.model,",
        "model: scale.data,",
        expect!["tasks.eval.inputs.model: needs a model, but 'scale.data' is a table"],
    );
    with(
        "fitted: scale.fitted",
        "fitted: fill.fitted",
        expect!["tasks.scale_test.inputs.fitted: needs what feature_scale fitted, but 'fill' is imputation"],
    );
    with(
        "inputs: { model: train.model, data: scale_test.data }",
        "inputs: { model: train.model }",
        expect!["tasks.eval.inputs: evaluation needs the input 'data', a table"],
    );
}

#[test]
fn a_cycle_is_named_in_the_direction_of_the_data() {
    with(
        "fill: { component: imputation, inputs: { data: read } }",
        "fill: { component: imputation, inputs: { data: split.train } }",
        expect!["tasks.fill.inputs: the tasks form a cycle: fill → hot → split → fill"],
    );
    with(
        "fill: { component: imputation, inputs: { data: read } }",
        "fill: { component: imputation, inputs: { data: fill } }",
        expect!["tasks.fill.inputs: the tasks form a cycle: fill → fill"],
    );
}

#[test]
fn unknown_words_are_named_with_their_place() {
    with(
        "component: nn_train",
        "component: nn_trian",
        expect!["tasks.train.component: no component 'nn_trian', did you mean 'nn_train'?"],
    );
    with(
        "sgd: { lr: 0.001 }",
        "sgd: { lrr: 0.001 }",
        expect![[r#"
        tasks.train.params.optimizer.sgd.lrr: no field 'lrr', did you mean 'lr'?
        tasks.train.params.optimizer.sgd.lr: is missing"#]],
    );
    with(
        "optimizer: { sgd: { lr: 0.001 } }",
        "optimizer: { sdg: { lr: 0.001 } }",
        expect!["tasks.train.params.optimizer: no optimizer 'sdg', did you mean 'sgd'?"],
    );
    with(
        "{ linear: { out: 1, init: torch_default } }",
        "{ linaer: { out: 1 } }",
        expect!["tasks.train.params.model.0: no layer 'linaer', did you mean 'linear'?"],
    );
    with(
        "[{ linear: { out: 1, init: torch_default } }]",
        "[{ linear: { out: 1, init: torch_default } }, relu]",
        expect!["tasks.train.params.model.1.relu: needs its fields; write { relu: {} }"],
    );
    with(
        "strategy: { fed_avg: {} }",
        "strategy: { fed_buff: { buffer: 3 } }",
        expect![
            "tasks.train.params.strategy: no strategy 'fed_buff'; a site permits one answer for one model, so that a late update enters no later round; fed_avg goes on without a site that is silent, and the site takes part again in the next round"
        ],
    );
    with("seed: 7", "sead: 7", expect!["sead: no field 'sead', did you mean 'seed'?"]);
    with(
        "hospes/plan/v1",
        "hospes/plan/v9",
        expect!["schema: no choice 'hospes/plan/v9', did you mean 'hospes/plan/v1'?"],
    );
    with(
        "  read: { component: reader }",
        "  read: { component: reader, params: { path: /etc/passwd } }",
        expect!["tasks.read.params.path: no field 'path'; it has no fields"],
    );
}

#[test]
fn wrong_types_are_named_with_their_place() {
    with(
        "sgd: { lr: 0.001 }",
        "sgd: { lr: fast }",
        expect![[r#"tasks.train.params.optimizer.sgd.lr: expected a number, found string "fast""#]],
    );
    with(
        "sgd: { lr: 0.001 }",
        "sgd: { lr: .nan }",
        expect!["tasks.train.params.optimizer.sgd.lr: must be a finite number; NaN and infinity are not allowed"],
    );
    with(
        "sgd: { lr: 0.001 }",
        "sgd: { lr: 1e999 }",
        expect!["tasks.train.params.optimizer.sgd.lr: must be a finite number; NaN and infinity are not allowed"],
    );
    with(
        "rounds: 15",
        "rounds: -15",
        expect!["tasks.train.params.rounds: expected a whole number that is not negative, found integer `-15`"],
    );
    with(
        "rounds: 15",
        "rounds: 1.5",
        expect!["tasks.train.params.rounds: expected a whole number that is not negative, found floating point `1.5`"],
    );
    with("seed: 7", "seed: true", expect!["seed: expected a whole number that is not negative, found boolean `true`"]);
    with(
        "columns: [age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak]",
        "columns: age",
        expect![[r#"data.columns: expected a list, found string "age""#]],
    );
    with(
        "  read: { component: reader }",
        "  read: reader",
        expect![[r#"
        tasks.read: must be a mapping, such as { component: reader }"#]],
    );
    with("rounds: 15\n", "\n", expect!["tasks.train.params.rounds: is missing"]);
}

#[test]
fn every_mistake_is_listed_not_only_the_first() {
    let text = HEART
        .replace("subject: subject_id", "subjekt: subject_id")
        .replace("sgd: { lr: 0.001 }", "sgd: { lr: fast, momentun: 1 }")
        .replace("rounds: 15", "rounds: many\n      roundz: 3")
        .replace("component: evaluation", "component: evaluatoin");
    said(
        &text,
        expect![[r#"
        data.subjekt: no field 'subjekt', did you mean 'subject'?
        data.subject: is missing
        tasks.train.params.optimizer.sgd.lr: expected a number, found string "fast"
        tasks.train.params.optimizer.sgd.momentun: no field 'momentun', did you mean 'momentum'?
        tasks.train.params.rounds: expected a whole number that is not negative, found string "many"
        tasks.train.params.roundz: no field 'roundz', did you mean 'rounds'?
        tasks.eval.component: no component 'evaluatoin', did you mean 'evaluation'?"#]],
    );
    let text = HEART
        .replace("columns: [age, sex,", "columns: [num, subject_id, age, age, sex,")
        .replace("sgd: { lr: 0.001 }", "sgd: { lr: 0 }")
        .replace("rounds: 15", "rounds: 0")
        .replace("strategy: { fed_avg: {} }", "strategy: { median: {} }")
        .replace("privacy: { plain: {} }", "privacy: { secure_aggregation: {} }");
    said(
        &text,
        expect![[r#"
        data.columns.0: 'num' is the label; a model that sees it would learn nothing else
        data.columns.1: 'subject_id' tells patients apart and must not be a feature
        data.columns.3: 'age' stands twice
        tasks.train.params.optimizer.sgd.lr: is 0; it must be above 0 and at most 1000
        tasks.train.params.rounds: is 0; it must lie between 1 and 100000
        tasks.train.params.privacy.secure_aggregation: median needs to see each site's update; write 'plain: {}', with which the coordinator can read it, or choose a strategy that needs the sum only"#]],
    );
}

#[test]
fn columns_that_do_not_fit_are_named() {
    with(
        "params: { columns: [cp, restecg], drop: first }",
        "params: { columns: [cp, restegc], drop: first }",
        expect![[r#"
        tasks.hot.params.columns.1: no column 'restegc' arrives here, did you mean 'restecg'?
        tasks.counts.inputs.data: 'restecg' is a category; put a one_hot task before it
        tasks.alone.params.model.0.linear: takes 'restecg', which is a category; put a one_hot task before the model, or a select and an embedding into it
        tasks.train.params.model.0.linear: takes 'restecg', which is a category; put a one_hot task before the model, or a select and an embedding into it"#]],
    );
    with(
        "params: { columns: [cp, restecg], drop: first }",
        "params: { columns: [cp, restecg, cp, sex] }",
        expect![[r#"
        tasks.hot.params.columns.2: 'cp' stands twice
        tasks.hot.params.columns.3: 'sex' has no codes; add data.variables.sex.category.codes"#]],
    );
    with("by_column: fold", "by_column: num", expect!["tasks.split.params.by_column: 'num' is the label"]);
    with(
        "by_column: fold",
        "by_column: age",
        expect!["tasks.split.params.by_column: 'age' is a feature; a split must not be"],
    );
    with(
        "by_column: fold",
        "by_column: fold, test_fraction: 0.2",
        expect!["tasks.split.params: has by_column and test_fraction; only one of them can be"],
    );
    with("params: { by_column: fold }", "params: {}", expect!["tasks.split.params: needs by_column or test_fraction"]);
    with(
        "by_column: fold",
        "test_fraction: 1.0",
        expect!["tasks.split.params.test_fraction: is 1; it must lie between 0 and 1, without them"],
    );
    with(
        "    age: { number: { min: 0, max: 120, unit: years } }",
        "    aeg: { number: { min: 0, max: 120 } }",
        expect!["data.variables.aeg: the plan reads no column 'aeg', did you mean 'age'?"],
    );
    with("min: 0, max: 120", "min: 120, max: 0", expect!["data.variables.age.number: min 120 is not below max 0"]);
    with(
        "codes: [1, 2, 3, 4]",
        "codes: [1, 2, \"2\", \"3.0\", \" 4\"]",
        expect![[r#"
        data.variables.cp.category.codes.2: '2' stands twice
        data.variables.cp.category.codes.3: write '3': codes are compared without '.0'
        data.variables.cp.category.codes.4: begins or ends with a blank"#]],
    );
    with(
        "positive: \"> 0\"",
        "positive: \"positive\"",
        expect![[
            r#"data.label.positive: 'positive' is no comparison with a number; write for example "> 0" or "== 1""#
        ]],
    );
    with(
        "params: { method: standard, scope: site }",
        "params: { method: bounds }",
        expect![
            "tasks.scale.params.method: bounds needs data.variables.sex.number.min and .max
tasks.scale_test.params.method: bounds needs data.variables.sex.number.min and .max"
        ],
    );
}

#[test]
fn a_model_is_evaluated_on_what_it_was_trained_on() {
    with(
        "data: scale_test.data } }\n  counts",
        "data: split.test } }\n  counts",
        expect!["tasks.eval.inputs.data: is not scaled as the rows that the model is trained on are"],
    );
    with(
        "data: scale_test.data } }\n  counts",
        "data: fill.data } }\n  counts",
        expect!["tasks.eval.inputs.data: has other features than the model is trained on (for example 'cp_2')"],
    );
    with(
        "validate: scale_test.data }",
        "validate: split.test }",
        expect!["tasks.train.inputs.validate: is not scaled as the rows that the model is trained on are"],
    );
    with(
        "data: split.test, fitted: scale.fitted }",
        "data: split.test, fitted: scale.fitted }, params: { method: bounds }",
        expect![[r#"
        tasks.scale_test.params.method: bounds needs data.variables.sex.number.min and .max
        tasks.alone.inputs.data: is not scaled as the rows that the model is trained on are
        tasks.eval.inputs.data: is not scaled as the rows that the model is trained on are
        tasks.scale_test.params: differ from those of 'scale', whose fit is used; leave them out
        tasks.train.inputs.validate: is not scaled as the rows that the model is trained on are"#]],
    );
}

/// Everything of a small plan but its tasks.
const HEAD: &str = "schema: hospes/plan/v1\nname: a\n\
                    data: { subject: s, label: { column: l, positive: '> 0' }, columns: [x] }\n";

#[test]
fn what_leads_nowhere_or_stands_twice_is_named() {
    with(
        "  read: { component: reader }",
        "  read: { component: reader }\n  read2: { component: reader }",
        expect![[r#"
        tasks.read2: reads the same rows as 'read'; use that one
        tasks.read2: nothing that leads to a result reads its outputs; remove it"#]],
    );
    with(
        "  counts: {",
        "  idle: { component: imputation, inputs: { data: read } }\n  counts: {",
        expect!["tasks.idle: nothing that leads to a result reads its outputs; remove it"],
    );
    with(
        "  counts: {",
        "  again: { component: statistics, inputs: { data: split.train } }\n  counts: {",
        expect!["tasks.counts: does the same as 'again', and would let it leave twice"],
    );
    with(
        "  counts: {",
        "  again: { component: statistics, inputs: { data: same.train } }\n  \
         same: { component: data_split, inputs: { data: hot.data }, params: { by_column: fold } }\n  counts: {",
        expect!["tasks.counts: does the same as 'again', and would let it leave twice"],
    );
    said(
        &format!("{HEAD}tasks: {{ read: {{ component: reader }} }}"),
        expect!["tasks: no task has a result; add one such as nn_train, evaluation or statistics"],
    );
    said(
        &format!("{HEAD}tasks: {{}}"),
        expect![[r#"
        tasks: is empty
        tasks: no task reads data; add one with the component 'reader'
        tasks: no task has a result; add one such as nn_train, evaluation or statistics"#]],
    );
}

#[test]
fn a_model_is_judged_on_a_table_once() {
    with(
        "  counts: {",
        "  closer: { component: evaluation, inputs: { model: train, data: scale_test }, params: { threshold: 0.51 } }\n  \
         counts: {",
        expect![[
            "tasks.eval: 'closer' judges the same model on the same rows, with other parameters or otherwise prepared, and \
             the difference of the two would tell about few patients; leave one of them"
        ]],
    );
}

/// A preparation that changes nothing makes another table of the same rows; who compared tables only would let a model be
/// judged at two thresholds.
#[test]
fn an_idle_step_in_between_is_no_other_table() {
    let judged = |steps: &str, data: &str| {
        let more = format!(
            "  {steps}\n  closer: {{ component: evaluation, inputs: {{ model: train, data: {data} }}, params: {{ threshold: \
             0.51 }} }}\n  counts: {{"
        );
        read(&HEART.replace("  counts: {", &more)).map_or_else(|e| e.to_string(), |_| "accepted".into())
    };
    let again = "tasks.eval: 'closer' judges the same model on the same rows, with other parameters or otherwise prepared, \
                 and the difference of the two would tell about few patients; leave one of them";
    let scaled = "inputs: { data: split2.test, fitted: scale.fitted }";
    for (steps, data) in [
        ("idle: { component: imputation, inputs: { data: scale_test }, params: { method: mean } }", "idle"),
        ("idle: { component: imputation, inputs: { data: scale_test }, params: { method: drop_rows } }", "idle"),
        ("idle: { component: data_split, inputs: { data: scale_test }, params: { by_column: fold } }", "idle.test"),
        // The same split before the rows are filled instead of after.
        (
            &format!(
                "split2: {{ component: data_split, inputs: {{ data: hot2 }}, params: {{ by_column: fold }} }}\n  hot2: {{ \
                 component: one_hot, inputs: {{ data: full2 }}, params: {{ columns: [cp, restecg], drop: first }} }}\n  \
                 full2: {{ component: imputation, inputs: {{ data: fill, fitted: fill.fitted }} }}\n  idle: {{ component: \
                 feature_scale, {scaled} }}"
            ),
            "idle",
        ),
    ] {
        assert_eq!(judged(steps, data), again, "{steps}");
    }
    // A part of the rows is another table: what both share is compared at the site.
    let half = "half: { component: data_split, inputs: { data: scale_test }, params: { test_fraction: 0.5 } }";
    assert_eq!(judged(half, "half.test"), "accepted");

    let alone = &HEART[HEART.find("  alone:").unwrap()..];
    let baseline = |threshold: &str| {
        let other = alone
            .replace("  alone:", "  lonely:")
            .replace("data: scale_test.data", "data: idle")
            .replace("batch: 4", &format!("batch: 4\n      threshold: {threshold}"));
        let idle = "  idle: { component: imputation, inputs: { data: scale_test }, params: { method: median } }\n";
        read(&format!("{HEART}\n{idle}{other}")).map_or_else(|e| e.to_string(), |_| "accepted".into())
    };
    assert!(baseline("0.6").contains("'alone' judges the same model on the same rows"), "{}", baseline("0.6"));
    assert_eq!(baseline("0.5"), "accepted");
}

/// Figures of a column follow from those of the same column scaled. Both in one plan would be one report twice, between which
/// somebody may opt out.
#[test]
fn rows_are_described_once_however_they_are_prepared() {
    let described = |steps: &str| {
        let more = format!("  {steps}\n  counts: {{");
        read(&HEART.replace("  counts: {", &more)).map_or_else(|e| e.to_string(), |_| "accepted".into())
    };
    let again = "tasks.raw: 'counts' reports the same rows, otherwise prepared, and the difference of the two would tell \
                 about few patients; leave one of them";
    assert_eq!(described("raw: { component: statistics, inputs: { data: scale } }"), again);
    // Other rows.
    assert_eq!(described("raw: { component: statistics, inputs: { data: split.test } }"), "accepted");
}

#[test]
fn selectors_have_one_form() {
    let members = |written: &str, expected| with("members: [\"site:*\"]", &format!("members: {written}"), expected);
    members("[\"site:Cleveland\", \"site:Long Beach\"]", expect!["accepted"]);
    members("[]", expect![[r#"parties.members: names no site; write ["site:*"] for all"#]]);
    members(
        "[\"guest\", \"site:*\", \"site:\", \"site:a*\", \"site:b\", \"site:b\"]",
        expect![[r#"
        parties.members.0: 'guest' is no selector; write 'site:*' or 'site:<name>'
        parties.members.1: 'site:*' means every site and must stand alone
        parties.members.2: the site's name is empty
        parties.members.3: '*' cannot be part of a name
        parties.members.5: 'site:b' stands twice"#]],
    );
}

#[test]
fn training_that_can_end_early_is_judged_on_rows_that_there_are_and_can_go_back() {
    let early = |stop: &str, strategy: &str, expected: Expect| {
        let plan = HEART
            .replace("rounds: 15", &format!("rounds: 15\n      early_stop: {stop}"))
            .replace("strategy: { fed_avg: {} }", &format!("strategy: {{ {strategy} }}"));
        said(&plan, expected);
    };
    early("{ patience: 3 }", "fed_avg: {}", expect!["accepted"]);
    early("{ patience: 3, min_delta: 0.01, ceiling: 5 }", "fed_adam: { lr: 0.01 }", expect!["accepted"]);
    early("{ min_delta: 0.01 }", "fed_avg: {}", expect!["tasks.train.params.early_stop.patience: is missing"]);
    early(
        "{ patience: 0, min_delta: -1, ceiling: 0 }",
        "fed_avg: {}",
        expect![[r#"
            tasks.train.params.early_stop.patience: is 0; it must lie between 1 and 100000
            tasks.train.params.early_stop.min_delta: is -1; it must lie between 0 and the ceiling of 0
            tasks.train.params.early_stop.ceiling: is 0; it must be above 0 and at most 1e9"#]],
    );
    early(
        "{ patience: 3 }",
        "cyclic: {}",
        expect![
            "tasks.train.params.early_stop: does not go together with cyclic: each round is judged by one site only, each by another"
        ],
    );
    early(
        "{ patience: 3 }",
        "median: {}",
        expect![
            "tasks.train.params.early_stop: does not go together with median: it trusts no single site, and any one could move the mean of the losses"
        ],
    );
    early(
        "{ patience: 3 }",
        "personal: { layers: ['0'] }",
        expect![[r#"
            tasks.train.params.strategy.personal.layers: leaves no parameter that the sites learn together
            tasks.train.params.early_stop: does not go together with personal: the layers that stay at the sites are those of the last round"#]],
    );
    let alone = HEART.replace(", validate: scale_test.data }", " }");
    said(
        &alone.replace("rounds: 15", "rounds: 15\n      early_stop: { patience: 3 }"),
        expect!["tasks.train.params.early_stop: needs rows to judge by: connect the input 'validate'"],
    );
}

#[test]
fn a_loss_that_leaves_with_an_update_is_listed_as_one() {
    let plan = read(&HEART.replace("rounds: 15", "rounds: 15\n      early_stop: { patience: 3 }")).unwrap();
    let listed: Vec<String> = hospes_protocol::plan::egress(&plan)
        .iter()
        .filter(|e| e.task == "train")
        .map(|e| format!("{:?} {} {:?} {} B × {}", e.kind, e.name, e.shape, e.bytes, e.times))
        .collect();
    expect![[r#"
        Update n [1] 8 B × 15
        Update 0.weight [13, 1] 52 B × 15
        Update 0.bias [1] 4 B × 15
        Loss validation.loss [2] 8 B × 15"#]]
    .assert_eq(&listed.join("\n"));
}
