//! YAML or JSON text as a tree in which no key stands twice, within limits.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use crate::{limits, text};

/// Values that one plan file may hold, aliases of YAML expanded.
const NODES: usize = 200_000;

/// Reads text as JSON if it begins with a brace, else as YAML.
///
/// # Errors
/// What is wrong and in which line, in words.
pub(super) fn read(source: &str) -> Result<Value, String> {
    if source.len() > limits::PLAN_FILE_BYTES {
        let (bytes, most) = (source.len(), limits::PLAN_FILE_BYTES);
        return Err(format!("the file has {bytes} bytes, more than the {most} allowed (limit PLAN_FILE_BYTES)"));
    }
    let source = source.trim_start_matches('\u{FEFF}');
    let tree = if source.trim_start().starts_with('{') { read_json(source) } else { read_yaml(source) };
    tree.map(|Tree(value)| value)
}

fn read_json(source: &str) -> Result<Tree, String> {
    // serde_json stops at 128 levels by itself; the typed plan has fewer than `limits::DOCUMENT_DEPTH`.
    serde_json::from_str(source)
        .map_err(|e| format!("the file is not valid JSON: {}", text::shown(&e.to_string(), 300)))
}

fn read_yaml(source: &str) -> Result<Tree, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: NODES,
            max_nodes: NODES,
            max_depth: limits::DOCUMENT_DEPTH,
            flow_nesting_limit: limits::DOCUMENT_DEPTH,
            max_documents: 1,
            max_anchors: 64,
            max_aliases: 256,
            max_recorded_anchor_events: NODES,
            max_recorded_anchor_bytes: limits::DOCUMENT_BYTES,
            max_total_scalar_bytes: limits::DOCUMENT_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES / 10,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(source, options)
        .map_err(|e| format!("the file is not valid YAML: {}", text::shown(&e.to_string(), 300)))
}

/// A value whose mappings have no key twice.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Nodes.deserialize(deserializer).map(Tree)
    }
}

struct Nodes;

impl<'de> DeserializeSeed<'de> for Nodes {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nodes {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is NaN or infinite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Nodes)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key '{}' stands twice", text::shown(&key, 60))));
            }
            let value = entries.next_value_seed(Nodes)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
