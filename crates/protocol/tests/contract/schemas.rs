//! The committed JSON Schemas: current, and such that they accept what is right and refuse what is wrong.

use expect_test::{ExpectFile, expect_file};
use hospes_protocol::plan::{self, Plan};
use hospes_protocol::policy::Policy;
use hospes_protocol::study::StudyFile;
use serde_json::{Value, json};

use crate::world::{HEART, heart};

#[test]
fn committed_schemas_are_current() {
    let committed: [ExpectFile; 4] = [
        expect_file!["../../schema/plan.schema.json"],
        expect_file!["../../schema/terms.schema.json"],
        expect_file!["../../schema/study.schema.json"],
        expect_file!["../../schema/policy.schema.json"],
    ];
    for (file, (name, current)) in committed.iter().zip(hospes_protocol::schema_files()) {
        assert!(file.path.ends_with(name), "{name}");
        file.assert_eq(&current);
    }
    assert_eq!(plan::json_schema(), plan::json_schema());
}

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn plan_says(value: &Value) -> Result<(), String> {
    let root = schema(&plan::json_schema());
    accepts(&root, &root, value, "")
}

#[test]
fn the_plan_schema_accepts_plans_as_written_and_as_filled_in() {
    let written: Value = serde_saphyr::from_str(HEART).unwrap();
    assert_eq!(plan_says(&written), Ok(()));
    let filled = serde_json::to_value(heart()).unwrap();
    assert_eq!(plan_says(&filled), Ok(()));
    assert_eq!(serde_json::from_value::<Plan>(filled).unwrap(), heart());
}

#[test]
fn the_plan_schema_names_parameters_of_each_component() {
    let spoilt = |pointer: &str, value: Value| {
        let mut plan = serde_json::to_value(heart()).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        plan.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        plan_says(&plan)
    };
    for (pointer, value) in [
        ("/tasks/train/params/rounds", json!("many")),
        ("/tasks/train/params/roundz", json!(3)),
        ("/tasks/train/params/optimizer", json!({ "sdg": { "lr": 1 } })),
        ("/tasks/train/component", json!("nn_trian")),
        ("/tasks/train/inputs/trian", json!("scale")),
        ("/tasks/read/params", json!({ "path": "/etc/passwd" })),
        ("/tasks/eval/params", json!({ "threshold": "high" })),
        ("/data/colums", json!([])),
        ("/schema", json!("hospes/plan/v9")),
    ] {
        assert!(spoilt(pointer, value.clone()).is_err(), "{pointer} = {value}");
    }
    assert_eq!(spoilt("/tasks/train/params/rounds", json!(20)), Ok(()));
}

#[test]
fn the_other_schemas_accept_what_is_shipped() {
    for policy in [Policy::strict(), Policy::datashield(), Policy::public_data()] {
        let root = schema(&Policy::json_schema());
        assert_eq!(accepts(&root, &root, &serde_json::to_value(&policy).unwrap(), ""), Ok(()));
        let from_toml: Value = toml::from_str(&policy.to_toml().unwrap()).unwrap();
        assert_eq!(accepts(&root, &root, &from_toml, ""), Ok(()));
    }
    let root = schema(&StudyFile::json_schema());
    let heart = include_str!("../../../../examples/heart/study.yaml");
    let (vectors, noise) =
        (include_str!("../../../../examples/heart/embedding.yaml"), include_str!("../../../../examples/heart/dp.yaml"));
    for study in [heart, vectors, noise] {
        assert_eq!(accepts(&root, &root, &serde_saphyr::from_str::<Value>(study).unwrap(), ""), Ok(()));
    }
    let read = StudyFile::read(heart).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(plan::features(&read.plan, "train").len(), 13);
}

/// The part of JSON Schema that our schemas use; a keyword that it does not know fails the test.
fn accepts(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(rules) = schema else {
        return if schema == &json!(true) { Ok(()) } else { Err(format!("{at}: nothing is allowed")) };
    };
    let wrong = |rule: &str| Err(format!("{at}: {rule} of {schema:.200} does not allow {value:.80}"));
    for (rule, of) in rules {
        let good = match rule.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" | "format" => true,
            "$ref" => {
                let target = root.pointer(of.as_str().unwrap().trim_start_matches('#')).unwrap();
                accepts(root, target, value, at)?;
                true
            }
            "type" => match of {
                Value::Array(types) => types.iter().any(|t| is(t.as_str().unwrap(), value)),
                one => is(one.as_str().unwrap(), value),
            },
            "const" => of == value,
            "enum" => of.as_array().unwrap().contains(value),
            "oneOf" => of.as_array().unwrap().iter().filter(|s| accepts(root, s, value, at).is_ok()).count() == 1,
            "anyOf" => of.as_array().unwrap().iter().any(|s| accepts(root, s, value, at).is_ok()),
            "required" => of
                .as_array()
                .unwrap()
                .iter()
                .all(|k| value.as_object().is_none_or(|o| o.contains_key(k.as_str().unwrap()))),
            "minimum" => value.as_f64().is_none_or(|v| v >= of.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|v| v <= of.as_f64().unwrap()),
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    accepts(root, of, item, &format!("{at}/{i}"))?;
                }
                true
            }
            "properties" => {
                for (key, property) in of.as_object().unwrap() {
                    if let Some(found) = value.get(key) {
                        accepts(root, property, found, &format!("{at}/{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                for (key, found) in value.as_object().into_iter().flatten() {
                    if known.is_none_or(|k| !k.contains_key(key)) {
                        accepts(root, of, found, &format!("{at}/{key}"))?;
                    }
                }
                true
            }
            other => panic!("the test does not know the keyword '{other}'"),
        };
        if !good {
            return wrong(rule);
        }
    }
    Ok(())
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type '{other}'"),
    }
}
