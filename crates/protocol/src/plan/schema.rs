//! The JSON Schema of plan files, for editors.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::graph::inputs_of;
use super::task::COMPONENTS;
use super::{
    Cox, DataSplit, Evaluation, FeatureScale, Glm, Imputation, LocalBaseline, NnTrain, OneHot, Plan, Reader,
    Statistics, Task,
};

/// JSON Schema of plan files, pretty-printed; the same bytes every time.
pub fn json_schema() -> String {
    pretty::<Plan>()
}

/// Schema of a type as a file: pretty-printed, with a line break at its end.
pub(crate) fn pretty<T: JsonSchema>() -> String {
    let schema = schemars::schema_for!(T);
    // Unwrap safety: a schema is a JSON value with text keys.
    #[allow(clippy::unwrap_used)]
    let mut text = serde_json::to_string_pretty(&schema).unwrap();
    text.push('\n');
    text
}

/// One alternative for each component, so that an editor offers the inputs and parameters of the one that is named.
impl JsonSchema for Task {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Task".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let alternatives: Vec<Value> = COMPONENTS.iter().map(|name| alternative(name, generator)).collect();
        json_schema!({
            "description": "One node of the graph: a component with its parameters, and where its inputs come from.",
            "type": "object",
            "required": ["component"],
            "properties": { "component": { "enum": COMPONENTS } },
            "oneOf": alternatives
        })
    }
}

fn alternative(name: &str, generator: &mut SchemaGenerator) -> Value {
    let ports = inputs_of(name);
    let properties: Map<String, Value> = ports
        .iter()
        .map(|port| (port.name.to_owned(), json!({ "type": "string", "description": "`task` or `task.output`." })))
        .collect();
    let required: Vec<&str> = ports.iter().filter(|p| p.required).map(|p| p.name).collect();
    let mut needed = vec!["component"];
    if !required.is_empty() {
        needed.push("inputs");
    }
    if matches!(name, "one_hot" | "data_split" | "nn_train" | "glm" | "local_baseline") {
        needed.push("params");
    }
    json!({
        "type": "object",
        "required": needed,
        "additionalProperties": false,
        "properties": {
            "component": { "const": name },
            "inputs": {
                "type": "object",
                "additionalProperties": false,
                "required": required,
                "properties": properties
            },
            "params": parameters(name, generator)
        }
    })
}

fn parameters(name: &str, generator: &mut SchemaGenerator) -> Schema {
    match name {
        "reader" => generator.subschema_for::<Reader>(),
        "imputation" => generator.subschema_for::<Imputation>(),
        "one_hot" => generator.subschema_for::<OneHot>(),
        "data_split" => generator.subschema_for::<DataSplit>(),
        "feature_scale" => generator.subschema_for::<FeatureScale>(),
        "statistics" => generator.subschema_for::<Statistics>(),
        "nn_train" => generator.subschema_for::<NnTrain>(),
        "evaluation" => generator.subschema_for::<Evaluation>(),
        "glm" => generator.subschema_for::<Glm>(),
        "cox" => generator.subschema_for::<Cox>(),
        "local_baseline" => generator.subschema_for::<LocalBaseline>(),
        // No plan fits it, which the committed schema and the test of the examples show.
        _ => json_schema!(false),
    }
}

/// Codes may be written as numbers; [`super::read`] makes text of them.
pub(super) fn codes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": ["string", "number"] } })
}
