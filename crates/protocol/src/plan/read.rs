//! Reads a plan as a person wrote it: YAML or JSON, defaults left out, mistakes in it.
//!
//! The text becomes a tree without duplicate keys first, then each part of it the typed plan, so that every mistake is
//! found and named by its place, not only the first.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::preset::Preset;
use super::problem::{PlanError, Problem, Problems, hint, list};
use super::task::{COMPONENTS, component};
use super::tree;
use super::typed::typed;
use super::{Component, DataNeeds, Image, Label, Parties, Plan, PlanSchema, Task, Variable, check};

/// Reads a plan from YAML or JSON, fills in the defaults and checks it.
///
/// # Errors
/// [`PlanError`] lists everything that is wrong, each with its place.
pub fn read(text: &str) -> Result<Plan, PlanError> {
    read_tree(read_text("", text)?)
}

/// Text as a tree, with the limits of plan files; `name` is the place of what cannot be read at all.
pub(crate) fn read_text(name: &str, text: &str) -> Result<Value, PlanError> {
    tree::read(text).map_err(|reason| PlanError { problems: vec![Problem { place: name.into(), reason }] })
}

/// Reads and checks a plan that is already a tree.
pub(crate) fn read_tree(tree: Value) -> Result<Plan, PlanError> {
    let mut problems = Problems::default();
    let plan = read_unchecked(tree, &mut problems);
    problems.into_result()?;
    let plan = plan.ok_or_else(|| unreadable(""))?;
    check(&plan)?;
    Ok(plan)
}

/// Reads another part of a study from a tree, with the same words for mistakes.
pub(crate) fn read_part<T: DeserializeOwned>(name: &str, tree: Value) -> Result<T, PlanError> {
    let mut problems = Problems::default();
    let read = typed(name, tree, &mut problems);
    problems.into_result()?;
    read.ok_or_else(|| unreadable(name))
}

fn unreadable(place: &str) -> PlanError {
    PlanError { problems: vec![Problem { place: place.into(), reason: "cannot be read".into() }] }
}

fn read_unchecked(tree: Value, problems: &mut Problems) -> Option<Plan> {
    let Value::Object(root) = tree else {
        problems.add("", "a plan is a mapping that begins with 'schema: hospes/plan/v1'");
        return None;
    };
    let mut root = Fields::new("", root, &["schema", "name", "parties", "data", "seed", "tasks"], problems);
    let schema = root.required::<PlanSchema>("schema", problems);
    let name = root.required::<String>("name", problems);
    let parties = root.optional::<Parties>("parties", problems);
    let seed = root.optional::<u64>("seed", problems);
    let data = root.mapping("data", problems).and_then(|data| read_data(data, problems));
    let tasks = root.mapping("tasks", problems).map(|tasks| read_tasks(tasks, problems));
    Some(Plan {
        schema: schema?,
        name: name?,
        parties: parties.unwrap_or_default(),
        data: data?,
        seed: seed.unwrap_or_default(),
        tasks: tasks?,
    })
}

fn read_data(data: Map<String, Value>, problems: &mut Problems) -> Option<DataNeeds> {
    let mut data = Fields::new("data", data, &["subject", "label", "columns", "image", "variables"], problems);
    let subject = data.required::<String>("subject", problems);
    if let Some(classes) = data.fields.get_mut("label").and_then(|label| label.get_mut("classes")) {
        codes_as_text(classes);
    }
    let label = data.required::<Label>("label", problems);
    let image = data.optional::<Image>("image", problems);
    let columns = match &image {
        Some(_) => data.optional::<Vec<String>>("columns", problems).or(Some(Vec::new())),
        None => data.required::<Vec<String>>("columns", problems),
    };
    let mut variables = BTreeMap::new();
    if let Some(described) = data.optional_mapping("variables", problems) {
        for (name, mut variable) in described {
            variable.pointer_mut("/category/codes").into_iter().for_each(codes_as_text);
            if let Some(variable) = typed::<Variable>(&format!("data.variables.{name}"), variable, problems) {
                variables.insert(name, variable);
            }
        }
    }
    Some(DataNeeds { subject: subject?, label: label?, columns: columns?, image, variables })
}

/// Codes are text, but nobody puts 1, 2, 3 into quotes.
fn codes_as_text(codes: &mut Value) {
    let Value::Array(codes) = codes else { return };
    for code in codes {
        if let Value::Number(number) = code {
            *code = Value::String(super::label::code(&number.to_string()).to_owned());
        }
    }
}

fn read_tasks(tasks: Map<String, Value>, problems: &mut Problems) -> BTreeMap<String, Task> {
    let mut read = BTreeMap::new();
    // Tasks that use the fit of another and say nothing about how: they take over its parameters.
    let mut followers = Vec::new();
    for (name, task) in tasks {
        let place = format!("tasks.{name}");
        let Value::Object(task) = task else {
            problems.add(place, "must be a mapping, such as { component: reader }");
            continue;
        };
        let follows = task.get("params").is_none() && task.get("inputs").is_some_and(|i| i.get("fitted").is_some());
        if let Some(task) = read_task(&place, task, problems) {
            if follows {
                followers.push(name.clone());
            }
            read.insert(name, task);
        }
    }
    for name in followers {
        take_over(&mut read, &name);
    }
    read
}

fn read_task(place: &str, task: Map<String, Value>, problems: &mut Problems) -> Option<Task> {
    let mut task = Fields::new(place, task, &["component", "inputs", "params"], problems);
    let kind = task.required::<String>("component", problems);
    let inputs = task.optional::<BTreeMap<String, String>>("inputs", problems);
    let mut params = task.optional_mapping("params", problems).unwrap_or_default();
    if !expand_preset(place, &mut params, problems) {
        return None;
    }
    let kind = kind?;
    if !COMPONENTS.contains(&kind.as_str()) {
        let known = hint(&kind, COMPONENTS.iter().copied());
        problems.add(format!("{place}.component"), format!("no component '{kind}'{known}"));
        return None;
    }
    let component = component(&kind, &format!("{place}.params"), Value::Object(params), problems)?;
    Some(Task { component, inputs: inputs.unwrap_or_default() })
}

/// Puts the layers of a preset in its place; `false` if there is none of that name.
fn expand_preset(place: &str, params: &mut Map<String, Value>, problems: &mut Problems) -> bool {
    let Some(model) = params.get_mut("model").filter(|model| model.get("preset").is_some()) else { return true };
    let Value::Object(named) = model.take() else { return true };
    let mut named = Fields::new(&format!("{place}.params.model"), named, &["preset"], problems);
    let Some(preset) = named.required::<Preset>("preset", problems) else { return false };
    // Unwrap safety: layers are numbers, names and lists; limits on them are checked with the typed plan.
    #[allow(clippy::unwrap_used)]
    let layers = serde_json::to_value(preset.expand()).unwrap();
    *model = layers;
    true
}

fn take_over(tasks: &mut BTreeMap<String, Task>, name: &str) {
    let Some(from) = tasks.get(name).and_then(|task| task.inputs.get("fitted")) else { return };
    let from = from.split('.').next().unwrap_or_default();
    let Some(fitting) = tasks.get(from).map(|task| task.component.clone()) else { return };
    if let Some(task) = tasks.get_mut(name)
        && matches!(
            (&task.component, &fitting),
            (Component::FeatureScale(_), Component::FeatureScale(_))
                | (Component::Imputation(_), Component::Imputation(_))
        )
    {
        task.component = fitting;
    }
}

/// The fields of one mapping, taken out one by one.
struct Fields {
    place: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Takes a mapping and notes every field that is not among the known ones.
    fn new(place: &str, fields: Map<String, Value>, known: &[&str], problems: &mut Problems) -> Self {
        let this = Self { place: place.to_owned(), fields };
        for field in this.fields.keys().filter(|field| !known.contains(&field.as_str())) {
            let mut suggestion = hint(field, known.iter().copied());
            if suggestion.is_empty() {
                suggestion = format!("; there is {}", list(known));
            }
            problems.add(this.at(field), format!("no field '{field}'{suggestion}"));
        }
        this
    }

    fn at(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    /// Takes a field; `null` counts as left out.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    fn optional<T: DeserializeOwned>(&mut self, field: &str, problems: &mut Problems) -> Option<T> {
        let value = self.take(field)?;
        typed(&self.at(field), value, problems)
    }

    fn required<T: DeserializeOwned>(&mut self, field: &str, problems: &mut Problems) -> Option<T> {
        match self.take(field) {
            Some(value) => typed(&self.at(field), value, problems),
            None => {
                problems.add(self.at(field), "is missing");
                None
            }
        }
    }

    fn optional_mapping(&mut self, field: &str, problems: &mut Problems) -> Option<Map<String, Value>> {
        match self.take(field)? {
            Value::Object(map) => Some(map),
            _ => {
                problems.add(self.at(field), "must be a mapping of names");
                None
            }
        }
    }

    fn mapping(&mut self, field: &str, problems: &mut Problems) -> Option<Map<String, Value>> {
        if !self.fields.contains_key(field) {
            problems.add(self.at(field), "is missing");
            return None;
        }
        match self.fields.remove(field) {
            Some(Value::Object(map)) => Some(map),
            _ => {
                problems.add(self.at(field), "must be a mapping of names");
                None
            }
        }
    }
}
