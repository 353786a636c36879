//! How columns come into a model: by name, and categories as codes for an embedding.

use expect_test::{Expect, expect};
use hospes_protocol::plan::{self, Component, Plan, features, read};

/// A number and two categories, which scaling and imputation leave as they are.
const PLAN: &str = r#"
schema: hospes/plan/v1
name: wards
data:
  subject: id
  label: { column: ill, positive: "> 0" }
  columns: [age, ward, unit]
  variables:
    ward: { category: { codes: [a, b, c] } }
    unit: { category: { codes: ["1", "2"] } }
tasks:
  read: { component: reader }
  filled: { component: imputation, inputs: { data: read }, params: { method: mean } }
  known: { component: imputation, inputs: { data: filled.data }, params: { method: drop_rows } }
  scale: { component: feature_scale, inputs: { data: known.data } }
  train:
    component: nn_train
    inputs: { train: scale.data }
    params:
      model: MODEL
      loss: binary_cross_entropy
      optimizer: { sgd: { lr: 0.1 } }
      rounds: 2
      local: { updates: 10, batch: 4 }
      strategy: { fed_avg: {} }
      privacy: { plain: {} }
  eval: { component: evaluation, inputs: { model: train.model, data: scale.data } }
"#;

/// Both categories by an embedding of their own, joined with the rest.
const NODES: [&str; 9] = [
    "{ name: ward, layer: { select: { columns: [ward] } } }",
    "{ name: ward_vector, layer: { embedding: { codes: 3, out: 2 } } }",
    "{ name: ward_flat, layer: { flatten: {} } }",
    "{ name: unit, layer: { select: { columns: [unit] } }, from: [features] }",
    "{ name: unit_vector, layer: { embedding: { codes: 2, out: 1 } } }",
    "{ name: unit_flat, layer: { flatten: {} } }",
    "{ name: rest, layer: { select: { except: [ward, unit] } }, from: [features] }",
    "{ name: all, layer: { concat: {} }, from: [ward_flat, unit_flat, rest] }",
    "{ name: out, layer: { linear: { out: 1 } } }",
];

fn graph() -> String {
    format!("{{ graph: [{}] }}", NODES.join(", "))
}

fn said(model: &str, expected: Expect) {
    let text = PLAN.replace("MODEL", model);
    expected.assert_eq(&read(&text).map_or_else(|e| e.to_string(), |_| "accepted".into()));
}

/// The graph with one piece of text replaced, and what is said about it.
fn with(from: &str, to: &str, expected: Expect) {
    assert_eq!(graph().matches(from).count(), 1, "'{from}' must stand in the graph once");
    said(&graph().replace(from, to), expected);
}

fn plan() -> Plan {
    read(&PLAN.replace("MODEL", &graph())).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_category_is_one_feature_and_its_embedding_has_a_vector_for_each_code() {
    let plan = plan();
    let found: Vec<_> = features(&plan, "train").into_iter().map(|f| (f.name, f.codes)).collect();
    assert_eq!(found, [("age".into(), None), ("ward".into(), Some(3)), ("unit".into(), Some(2))]);
    let Component::NnTrain(train) = &plan.tasks["train"].component else { panic!() };
    let tensors = plan::tensors(train, plan::inputs(&plan, "train"));
    let shapes: Vec<(&str, &[u64])> = tensors.iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
    let wanted: [(&str, &[u64]); 4] =
        [("ward_vector.weight", &[3, 2]), ("unit_vector.weight", &[2, 1]), ("out.weight", &[4, 1]), ("out.bias", &[1])];
    assert_eq!(shapes, wanted);
    // Without an activation, it is one affine map of indicators, however it is written.
    assert!(plan::model::is_glm_like(&train.model));
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.contains(r#"{"select":{"columns":["ward"]}}"#), "{json}");
    assert!(json.contains(r#"{"select":{"except":["ward","unit"]}}"#), "{json}");
    assert_eq!(read(&json).unwrap(), plan);
}

#[test]
fn columns_that_do_not_arrive_are_named_with_their_layer() {
    with(
        "columns: [ward]",
        "columns: [wrad]",
        expect![
            "tasks.train.params.model.graph.0.layer.select.columns.0: no column 'wrad' arrives here, did you mean 'ward'?"
        ],
    );
    with(
        "columns: [ward]",
        "columns: [ward, ward]",
        expect!["tasks.train.params.model.graph.0.layer.select.columns.1: 'ward' stands twice"],
    );
    with(
        "columns: [ward]",
        "columns: []",
        expect!["tasks.train.params.model.graph.0.layer.select.columns: names no column"],
    );
    with(
        "except: [ward, unit]",
        "except: [ward, unit, age]",
        expect!["tasks.train.params.model.graph.6.layer.select.except: leaves no column"],
    );
    with(
        "{ select: { columns: [unit] } }, from: [features]",
        "{ select: { columns: [unit] } }, from: [ward_flat]",
        expect![
            "tasks.train.params.model.graph.3.layer.select: takes columns of the model's features; let it be the first layer of a list, or write 'from: [features]' in a graph"
        ],
    );
    said(
        "[{ select: { columns: [age] } }]",
        expect![
            "tasks.train.params.model.0.select: binary_cross_entropy needs a last linear layer with [batch, 1]; a select only passes columns on"
        ],
    );
}

#[test]
fn a_category_comes_to_an_embedding_that_knows_all_its_codes_and_nowhere_else() {
    with("codes: 3", "codes: 4", expect!["accepted"]);
    with(
        "codes: 3",
        "codes: 2",
        expect!["tasks.train.params.model.graph.1.layer.embedding.codes: is 2, and 'ward' has 3 codes"],
    );
    with(
        "except: [ward, unit]",
        "except: [ward]",
        expect![
            "tasks.train.params.model.graph.7.layer.concat: takes 'unit', which is a category; put a one_hot task before the model, or a select and an embedding into it"
        ],
    );
    with(
        "columns: [ward]",
        "columns: [ward, age]",
        expect![
            "tasks.train.params.model.graph.1.layer.embedding: takes 'age', which is a number, beside the category 'ward'; put a select of categories before it"
        ],
    );
    said(
        "[{ linear: { out: 1 } }]",
        expect![
            "tasks.train.params.model.0.linear: takes 'ward', which is a category; put a one_hot task before the model, or a select and an embedding into it"
        ],
    );
    // The two of them by one embedding, which has to know the codes of both.
    let both = |codes| {
        format!(
            "[{{ select: {{ except: [age] }} }}, {{ embedding: {{ codes: {codes}, out: 2 }} }}, {{ flatten: {{}} }}, \
             {{ linear: {{ out: 1 }} }}]"
        )
    };
    said(&both(3), expect!["accepted"]);
    said(&both(1), expect!["tasks.train.params.model.1.embedding.codes: is 1, and 'ward' has 3 codes"]);
}

#[test]
fn what_is_no_network_takes_no_category() {
    let counts = "  counts: { component: statistics, inputs: { data: scale.data } }\n";
    let text = format!("{}{counts}", PLAN.replace("MODEL", &graph()));
    let refused = read(&text).unwrap_err().to_string();
    assert_eq!(refused, "tasks.counts.inputs.data: 'ward' is a category; put a one_hot task before it");
}

/// A model of images may take features beside them, where there are any.
#[test]
fn a_plan_of_images_alone_has_no_features_to_take() {
    let (from, to) = (PLAN.find("  columns:").unwrap(), PLAN.find("tasks:").unwrap());
    let image = "  image: { column: scan, channels: 1, height: 4, width: 4 }\n";
    let model = "{ graph: [{ name: flat, layer: { flatten: {} } }, { name: both, layer: { concat: {} }, \
                 from: [flat, features] }, { name: out, layer: { linear: { out: 1 } } }] }";
    let text = format!("{}{image}{}", &PLAN[..from], &PLAN[to..]).replace("MODEL", model);
    let refused = read(&text).unwrap_err().to_string();
    assert_eq!(refused, "tasks.train.params.model.graph.1.from: no column arrives here; add data.columns");
    assert!(read(&text.replace("features] }", "flat] }")).is_ok());
}
