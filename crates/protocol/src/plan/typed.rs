//! From a tree to a typed part of the plan, with mistakes in words and by place.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

use super::problem::{Problems, hint};
use crate::text;

/// Steps that are taken in one part to find all its mistakes before it is left at that.
const TRIES: usize = 64;

/// Reads one part of the plan. A mistake is noted, and something that would be right put in its place, so that the
/// next one shows too; what stands in for a mistake is never used.
pub(super) fn typed<T: DeserializeOwned>(place: &str, value: Value, problems: &mut Problems) -> Option<T> {
    let mut rest = value;
    let mut mended: Vec<Vec<String>> = Vec::new();
    for _ in 0..TRIES {
        let error = match serde_path_to_error::deserialize::<_, T>(rest.clone()) {
            Ok(read) => return mended.is_empty().then_some(read),
            Err(error) => error,
        };
        let keys = keys(error.path());
        let message = error.inner().to_string();
        let mistake = Mistake::of(&message);
        if !mended.iter().any(|done| keys.starts_with(done)) {
            let at = std::iter::once(place).chain(keys.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
            let (at, reason) = mistake.words(at, &keys, find(&mut rest, &keys));
            problems.add(at, reason);
        }
        mended.push(mistake.mend(&mut rest, &keys)?);
    }
    None
}

fn keys(path: &Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

fn find<'v>(value: &'v mut Value, keys: &[String]) -> Option<&'v mut Value> {
    keys.iter().try_fold(value, |value, key| match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(list) => list.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Something that serde takes where it expected this.
fn stand_in(expected: &str) -> Option<Value> {
    Some(match expected {
        "f64" | "f32" => json!(1.0),
        "a string" => json!("x"),
        "a boolean" => json!(true),
        "a sequence" => json!([]),
        "a map" => json!({}),
        other if other.starts_with(['u', 'i']) && other[1..].parse::<u8>().is_ok() => json!(1),
        other if other.starts_with("struct") => json!({}),
        other if other.contains("string or map") || other.contains("enum") => json!("?"),
        _ => return None,
    })
}

/// What people look for and the language leaves out on purpose, with the reason and what there is instead.
const LEFT_OUT: [(&str, &str); 1] = [(
    "fed_buff",
    "a site permits one answer for one model, so that a late update enters no later round; fed_avg goes on without a site \
     that is silent, and the site takes part again in the next round",
)];

/// A mistake as serde says it.
enum Mistake<'m> {
    UnknownField { field: &'m str, known: Vec<&'m str> },
    UnknownVariant { variant: &'m str, known: Vec<&'m str> },
    MissingField(&'m str),
    Kind { found: &'m str, expected: &'m str },
    Other(&'m str),
}

impl<'m> Mistake<'m> {
    fn of(message: &'m str) -> Self {
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let known = || quoted.iter().skip(1).copied().collect();
        match quoted.first() {
            Some(field) if message.starts_with("unknown field") => Self::UnknownField { field, known: known() },
            Some(variant) if message.starts_with("unknown variant") => Self::UnknownVariant { variant, known: known() },
            Some(field) if message.starts_with("missing field") => Self::MissingField(field),
            _ => message
                .strip_prefix("invalid type: ")
                .or_else(|| message.strip_prefix("invalid value: "))
                .and_then(|rest| rest.rsplit_once(", expected "))
                .map_or(Self::Other(message), |(found, expected)| Self::Kind { found, expected }),
        }
    }

    /// Puts something right in place of the mistake, and says where; `None` if nothing is known.
    fn mend(&self, root: &mut Value, keys: &[String]) -> Option<Vec<String>> {
        let mut at = keys.to_vec();
        match self {
            Self::UnknownField { field, .. } => {
                if at.last().is_none_or(|last| last != field) {
                    at.push((*field).to_owned());
                }
                let (_, parent) = at.split_last()?;
                find(root, parent)?.as_object_mut()?.shift_remove(*field)?;
            }
            Self::MissingField(field) => {
                find(root, keys)?.as_object_mut()?.insert((*field).to_owned(), Value::Null);
                at.push((*field).to_owned());
            }
            Self::UnknownVariant { known, .. } => {
                let first = known.first()?;
                let value = find(root, keys)?;
                *value = if value.is_object() { json!({ *first: {} }) } else { json!(first) };
            }
            Self::Kind { found: "unit variant", .. } => {
                let (name, parent) = keys.split_last()?;
                *find(root, parent)? = json!({ name: {} });
            }
            Self::Kind { expected, .. } => *find(root, keys)? = stand_in(expected)?,
            Self::Other(_) => return None,
        }
        Some(at)
    }

    /// Place and reason in words.
    fn words(&self, at: String, keys: &[String], value: Option<&mut Value>) -> (String, String) {
        match self {
            Self::UnknownField { field, known } => {
                let at = if keys.last().is_some_and(|last| last == field) { at } else { format!("{at}.{field}") };
                let nothing = if known.is_empty() { "; it has no fields" } else { "" };
                (at, format!("no field '{field}'{}{nothing}", hint(field, known.iter().copied())))
            }
            Self::UnknownVariant { variant, known } => {
                let why = LEFT_OUT.iter().find(|(name, _)| name == variant).map(|(_, why)| format!("; {why}"));
                let why = why.unwrap_or_else(|| hint(variant, known.iter().copied()));
                (at, format!("no {} '{variant}'{why}", noun(keys, variant)))
            }
            Self::MissingField(field) => (format!("{at}.{field}"), "is missing".to_owned()),
            Self::Kind { .. } if value.is_some_and(|v| is_non_finite(v)) => {
                (at, "must be a finite number; NaN and infinity are not allowed".to_owned())
            }
            Self::Kind { found: "unit variant", .. } => match keys.last() {
                Some(name) => (at, format!("needs its fields; write {{ {name}: {{}} }}")),
                None => (at, "needs its fields".to_owned()),
            },
            Self::Kind { found, expected } => {
                (at, format!("expected {}, found {}", wanted(expected), text::shown(found, 80)))
            }
            Self::Other(message) => (at, text::shown(message, 200)),
        }
    }
}

/// What YAML's NaN and infinities are read as; see the policy in `tree.rs`.
fn is_non_finite(value: &Value) -> bool {
    value.as_str().is_some_and(|t| {
        matches!(t.trim_start_matches(['+', '-']).to_ascii_lowercase().as_str(), ".nan" | ".inf" | "nan" | "inf")
    })
}

/// What the thing at this place is called: a layer of a model, else as its field.
fn noun(keys: &[String], variant: &str) -> String {
    let field = keys.iter().rev().find(|key| *key != variant && key.parse::<usize>().is_err());
    match field.map(String::as_str) {
        Some("model") => "layer".to_owned(),
        Some(field) => field.to_owned(),
        None => "choice".to_owned(),
    }
}

fn wanted(expected: &str) -> &str {
    match expected {
        "f64" | "f32" => "a number",
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number that is not negative",
        "a string" => "text",
        "a sequence" => "a list",
        "a map" | "map" => "a mapping",
        "a boolean" => "true or false",
        "map with a single key" => "one name with its fields, such as { sgd: { lr: 0.01 } }",
        other if other.starts_with("struct variant") || other.starts_with("struct ") => "a mapping of fields",
        other if other.contains("enum") => "a name, or a name with its fields",
        other => other,
    }
}
