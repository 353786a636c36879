//! The plan as a graph: ports and their types, references, order, cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::{Problems, hint, list};
use super::{Component, Cox, Glm, ImputationMethod, LocalBaseline, Plan, ScaleMethod, Task};
use crate::id::Digest;

/// Type of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortType {
    /// Rows at the site.
    Table,
    /// What a component learned from rows, at the site; fits only the same kind of component.
    Fitted,
    /// A model.
    Model,
    /// Figures of an evaluation.
    Metrics,
    /// Figures of the data.
    Statistics,
    /// Coefficients with their errors.
    Fit,
}

impl PortType {
    fn words(self) -> &'static str {
        match self {
            Self::Table => "a table",
            Self::Fitted => "something fitted",
            Self::Model => "a model",
            Self::Metrics => "metrics",
            Self::Statistics => "statistics",
            Self::Fit => "a table of coefficients",
        }
    }
}

/// An input port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub of: PortType,
    /// Whether it must be connected.
    pub required: bool,
}

const fn needs(name: &'static str, of: PortType) -> Input {
    Input { name, of, required: true }
}

const fn may(name: &'static str, of: PortType) -> Input {
    Input { name, of, required: false }
}

impl Component {
    /// Input ports, the one that decides the features first.
    pub fn inputs(&self) -> &'static [Input] {
        inputs_of(self.name())
    }

    /// Output ports.
    pub fn outputs(&self) -> &'static [(&'static str, PortType)] {
        use PortType::{Fit, Fitted, Metrics, Model, Statistics, Table};
        match self {
            Self::Reader(_) | Self::OneHot(_) => &[("data", Table)],
            Self::Imputation(_) | Self::FeatureScale(_) => &[("data", Table), ("fitted", Fitted)],
            Self::DataSplit(_) => &[("train", Table), ("test", Table)],
            Self::Statistics(_) => &[("statistics", Statistics)],
            Self::NnTrain(_) => &[("model", Model)],
            Self::Glm(_) => &[("model", Model), ("fit", Fit)],
            Self::Cox(_) => &[("fit", Fit)],
            Self::Evaluation(_) | Self::LocalBaseline(_) => &[("metrics", Metrics)],
        }
    }

    /// Whether it works with numbers that were learned from the site's own rows, as means to fill or to scale by: from those
    /// that arrive, or, with an input `fitted`, from those of another task.
    pub fn learns(&self) -> bool {
        match self {
            Self::Imputation(imputation) => {
                matches!(imputation.method, ImputationMethod::Mean | ImputationMethod::Median)
            }
            Self::FeatureScale(scale) => scale.method == ScaleMethod::Standard,
            Self::Reader(_)
            | Self::OneHot(_)
            | Self::DataSplit(_)
            | Self::Statistics(_)
            | Self::NnTrain(_)
            | Self::Evaluation(_)
            | Self::Glm(_)
            | Self::Cox(_)
            | Self::LocalBaseline(_) => false,
        }
    }

    /// Output that is meant when a reference names only the task: the only one, or `data`.
    fn default_output(&self) -> Option<&'static str> {
        match self.outputs() {
            [(only, _)] => Some(only),
            many => many.iter().map(|(name, _)| *name).find(|name| *name == "data"),
        }
    }
}

/// Input ports of the component with this name.
pub(super) fn inputs_of(component: &str) -> &'static [Input] {
    use PortType::{Fitted, Model, Table};
    const DATA: &[Input] = &[needs("data", Table)];
    const FIT: &[Input] = &[needs("data", Table), may("fitted", Fitted)];
    const TRAIN: &[Input] = &[needs("train", Table), may("validate", Table)];
    const EVALUATE: &[Input] = &[needs("data", Table), needs("model", Model)];
    const ROWS: &[Input] = &[needs("train", Table)];
    const BASELINE: &[Input] = &[needs("train", Table), needs("data", Table)];
    match component {
        "one_hot" | "data_split" | "statistics" => DATA,
        "imputation" | "feature_scale" => FIT,
        "nn_train" => TRAIN,
        "evaluation" => EVALUATE,
        "glm" | "cox" => ROWS,
        "local_baseline" => BASELINE,
        _ => &[],
    }
}

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source<'a> {
    /// Task.
    pub task: &'a str,
    /// Its output port.
    pub output: &'a str,
}

/// Where an input port of a task is connected to; `None` if it is not, or to nothing that exists.
pub fn source<'a>(plan: &'a Plan, task: &Task, port: &str) -> Option<Source<'a>> {
    resolve(plan, task.inputs.get(port)?).ok()
}

/// The task that makes the model which a round of this task starts from: itself, or, for an evaluation, the one that its
/// model comes from. `None` for a task that the plan does not have.
pub fn trained_by<'a>(plan: &'a Plan, task: &str) -> Option<&'a str> {
    let (name, found) = plan.tasks.get_key_value(task)?;
    match &found.component {
        Component::Evaluation(_) => source(plan, found, "model").map(|source| source.task),
        _ => Some(name),
    }
}

/// Tasks whose outputs this task reads, each once, in order of their names.
pub fn predecessors<'a>(plan: &'a Plan, task: &str) -> Vec<&'a str> {
    let Some(task) = plan.tasks.get(task) else { return Vec::new() };
    let found: BTreeSet<&str> =
        task.inputs.values().filter_map(|reference| resolve(plan, reference).ok()).map(|s| s.task).collect();
    found.into_iter().collect()
}

/// Tasks in an order in which each comes after what it reads; among equals by name. Tasks on a cycle, and those behind
/// one, are not in it.
pub fn order(plan: &Plan) -> Vec<&str> {
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> =
        plan.tasks.keys().map(|name| (name.as_str(), predecessors(plan, name).into_iter().collect())).collect();
    let mut sorted = Vec::with_capacity(waiting.len());
    while let Some(ready) = waiting.iter().find(|(_, before)| before.is_empty()).map(|(name, _)| *name) {
        waiting.remove(ready);
        for before in waiting.values_mut() {
            before.remove(ready);
        }
        sorted.push(ready);
    }
    sorted
}

/// Every task that this one depends on, directly or not.
pub fn ancestors<'a>(plan: &'a Plan, task: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = predecessors(plan, task);
    while let Some(name) = next.pop() {
        if found.insert(name) {
            next.extend(predecessors(plan, name));
        }
    }
    found
}

/// Tasks through which the rows go that a task trains on, from `reader` on, in order; none for a task that trains on none.
pub fn preparation<'a>(plan: &'a Plan, task: &str) -> Vec<&'a str> {
    let mut steps: Vec<&'a str> = Vec::new();
    let mut from = plan.tasks.get(task).and_then(|found| source(plan, found, "train"));
    // A plan that was not checked may lead in a circle.
    while let Some(step) = from.filter(|from| !steps.contains(&from.task)) {
        steps.push(step.task);
        from = plan.tasks.get(step.task).and_then(|found| source(plan, found, "data"));
    }
    steps.reverse();
    steps
}

/// Resolves `task` or `task.output`.
fn resolve<'a>(plan: &'a Plan, reference: &str) -> Result<Source<'a>, String> {
    let (task, output) = match reference.split_once('.') {
        Some((task, output)) => (task, Some(output)),
        None => (reference, None),
    };
    let Some((name, found)) = plan.tasks.get_key_value(task) else {
        return Err(format!("no task '{task}'{}", hint(task, plan.tasks.keys().map(String::as_str))));
    };
    let outputs = found.component.outputs();
    let names = || outputs.iter().map(|(name, _)| *name);
    let output = match output {
        None => found.component.default_output().ok_or_else(|| {
            let all: Vec<String> = names().map(|o| format!("{name}.{o}")).collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            format!("task '{name}' has several outputs; name one of {}", list(&all))
        })?,
        Some(output) => names()
            .find(|name| *name == output)
            .ok_or_else(|| format!("task '{name}' has no output '{output}'{}", hint(output, names())))?,
    };
    Ok(Source { task: name, output })
}

/// Checks references, ports, their types, cycles, and that everything leads to a result.
pub(super) fn check(plan: &Plan, problems: &mut Problems) {
    for (name, task) in &plan.tasks {
        check_task(plan, name, task, problems);
    }
    if let Some(cycle) = cycle(plan) {
        let path: Vec<&str> = cycle.iter().copied().chain(cycle.first().copied()).collect();
        problems.add(format!("tasks.{}.inputs", cycle[0]), format!("the tasks form a cycle: {}", path.join(" → ")));
        return;
    }
    check_results(plan, problems);
}

fn check_task(plan: &Plan, name: &str, task: &Task, problems: &mut Problems) {
    let (ports, component) = (task.component.inputs(), task.component.name());
    for (port, reference) in &task.inputs {
        let place = format!("tasks.{name}.inputs.{port}");
        let Some(input) = ports.iter().find(|p| p.name == port) else {
            let known = hint(port, ports.iter().map(|p| p.name));
            problems.add(place, format!("{component} has no input '{port}'{known}"));
            continue;
        };
        match resolve(plan, reference) {
            Err(reason) => problems.add(place, reason),
            Ok(source) => check_type(plan, task, *input, source, place, problems),
        }
    }
    for port in ports.iter().filter(|p| p.required && !task.inputs.contains_key(p.name)) {
        problems.add(
            format!("tasks.{name}.inputs"),
            format!("{component} needs the input '{}', {}", port.name, port.of.words()),
        );
    }
}

fn check_type(plan: &Plan, task: &Task, input: Input, source: Source<'_>, place: String, problems: &mut Problems) {
    let from = &plan.tasks[source.task];
    let Some((_, of)) = from.component.outputs().iter().find(|(name, _)| *name == source.output) else { return };
    if *of != input.of {
        let found = format!("'{}.{}' is {}", source.task, source.output, of.words());
        problems.add(place, format!("needs {}, but {found}", input.of.words()));
    } else if *of == PortType::Fitted && from.component.name() != task.component.name() {
        problems.add(
            place,
            format!("needs what {} fitted, but '{}' is {}", task.component.name(), source.task, from.component.name()),
        );
    }
}

/// The first cycle, from its alphabetically first task, in the direction in which data flow.
fn cycle(plan: &Plan) -> Option<Vec<&str>> {
    let sorted: BTreeSet<&str> = order(plan).into_iter().collect();
    let mut at = plan.tasks.keys().map(String::as_str).find(|name| !sorted.contains(name))?;
    let mut walked: Vec<&str> = Vec::new();
    // Every task that was not sorted has a predecessor that was not sorted; walking back must meet itself.
    while !walked.contains(&at) {
        walked.push(at);
        at = predecessors(plan, at).into_iter().find(|name| !sorted.contains(name))?;
    }
    let start = walked.iter().position(|name| *name == at)?;
    let mut ring: Vec<&str> = walked[start..].iter().rev().copied().collect();
    let first = ring.iter().enumerate().min_by_key(|(_, name)| **name).map_or(0, |(i, _)| i);
    ring.rotate_left(first);
    Some(ring)
}

/// One reader, at least one result, nothing idle, nothing twice.
fn check_results(plan: &Plan, problems: &mut Problems) {
    let readers: Vec<&str> = named(plan, |t| matches!(t.component, Component::Reader(_)));
    match readers.as_slice() {
        [] => problems.add("tasks", "no task reads data; add one with the component 'reader'"),
        [_] => {}
        [first, rest @ ..] => {
            for extra in rest {
                problems.add(format!("tasks.{extra}"), format!("reads the same rows as '{first}'; use that one"));
            }
        }
    }
    let results = named(plan, |t| t.component.rounds() > 0);
    if results.is_empty() {
        problems.add("tasks", "no task has a result; add one such as nn_train, evaluation or statistics");
        return;
    }
    let used: BTreeSet<&str> = results.iter().flat_map(|name| ancestors(plan, name)).collect();
    for (name, task) in &plan.tasks {
        if task.component.rounds() == 0 && !used.contains(name.as_str()) {
            problems.add(format!("tasks.{name}"), "nothing that leads to a result reads its outputs; remove it");
        }
    }
    check_repeats(plan, &results, problems);
}

/// No result twice, and no second look at the same predictions: what two reports differ in is a report about few.
fn check_repeats(plan: &Plan, results: &[&str], problems: &mut Problems) {
    let kinds = kinds(plan);
    for (i, name) in results.iter().enumerate() {
        for other in &results[..i] {
            let place = format!("tasks.{name}");
            if kinds[name] == kinds[other] {
                problems.add(place, format!("does the same as '{other}', and would let it leave twice"));
                break;
            }
            if let Some(does) = reports_again(plan, &kinds, other, name) {
                let reason = "the difference of the two would tell about few patients; leave one of them";
                problems.add(place, format!("'{other}' {does}, and {reason}"));
                break;
            }
        }
    }
}

const FITS: &str = "fits the same regression to the same rows";

/// What `other` does that `one` does too: judging the same model on the same rows, or reporting the same rows. How the rows
/// were prepared does not count: an imputation that finds nothing missing makes another table of the same predictions, and
/// figures of a column follow from those of the same column scaled.
fn reports_again<'a>(plan: &'a Plan, kinds: &BTreeMap<&str, &'a str>, one: &str, other: &str) -> Option<&'static str> {
    let same_inputs = || inputs(plan, kinds, one) == inputs(plan, kinds, other);
    let same_rows = |port: &str| rows_at(plan, one, port) == rows_at(plan, other, port);
    let judges = "judges the same model on the same rows, with other parameters or otherwise prepared";
    let again = match (&plan.tasks[one].component, &plan.tasks[other].component) {
        (Component::Statistics(_), Component::Statistics(_)) => {
            return same_rows("data").then_some("reports the same rows, otherwise prepared");
        }
        (Component::Evaluation(_), Component::Evaluation(_)) => {
            let model = |name| inputs(plan, kinds, name).get("model").copied();
            same_rows("data") && model(one) == model(other)
        }
        // With one threshold, two preparations of the rows make two models.
        (Component::LocalBaseline(first), Component::LocalBaseline(second)) => {
            // Masks change how the same figures travel.
            let LocalBaseline { threshold, privacy, .. } = second.clone();
            let only_threshold = LocalBaseline { threshold, privacy, ..first.clone() } == *second;
            let prepared = first.threshold != second.threshold && same_rows("train") && same_rows("data");
            only_threshold && (prepared || same_inputs())
        }
        // When it ends, and what the coordinator makes of its sums, changes none of them.
        (Component::Glm(first), Component::Glm(second)) => {
            let Glm { newton, confidence, privacy, .. } = second.clone();
            let is_same = Glm { newton, confidence, privacy, ..first.clone() } == *second;
            return (is_same && same_inputs()).then_some(FITS);
        }
        (Component::Cox(first), Component::Cox(second)) => {
            let Cox { newton, confidence, time_grid, privacy, .. } = second.clone();
            let is_same = Cox { newton, confidence, time_grid, privacy, ..first.clone() } == *second;
            return (is_same && same_inputs()).then_some(FITS);
        }
        _ => false,
    };
    again.then_some(judges)
}

/// What decides which of the dataset's rows come in at a port: the splits, and whether rows with something missing are
/// dropped. Where it is the same, so are the rows, whatever else was done to their values.
pub fn rows_at(plan: &Plan, task: &str, port: &str) -> BTreeSet<String> {
    let mut choices = BTreeSet::new();
    for at in way(plan, task, port) {
        match &plan.tasks[at.task].component {
            Component::DataSplit(split) => {
                let choice = match (&split.by_column, split.test_fraction) {
                    (Some(column), _) => format!("{column}={}", at.output),
                    // Which subjects are drawn depends on who is there.
                    (None, fraction) => {
                        let drawn = format!("{fraction:?} {} of {choices:?}", at.output);
                        Digest::of(drawn.as_bytes()).to_string()
                    }
                };
                choices.insert(choice);
            }
            Component::Imputation(_) if drops_rows(plan, at.task) => _ = choices.insert("complete".to_owned()),
            // None of these leaves rows out. A component that does has to say so here.
            Component::Imputation(_)
            | Component::Reader(_)
            | Component::OneHot(_)
            | Component::FeatureScale(_)
            | Component::Statistics(_)
            | Component::NnTrain(_)
            | Component::Evaluation(_)
            | Component::Glm(_)
            | Component::Cox(_)
            | Component::LocalBaseline(_) => {}
        }
    }
    choices
}

/// The outputs that rows go through from the reader to a port, in this order.
fn way<'a>(plan: &'a Plan, task: &str, port: &str) -> Vec<Source<'a>> {
    let mut way = Vec::new();
    let mut next = plan.tasks.get(task).and_then(|found| source(plan, found, port));
    // No way back to the reader is longer than the plan, but one around a cycle is.
    while let Some(at) = next.filter(|_| way.len() < plan.tasks.len()) {
        way.push(at);
        next = source(plan, &plan.tasks[at.task], "data");
    }
    way.reverse();
    way
}

/// How many of a dataset's subjects come in at a port at most: without those that splits by a fraction give elsewhere. What
/// else leaves rows out, as a split by a column or missing values, is known on the rows only.
pub fn subjects_at_most(plan: &Plan, task: &str, port: &str, subjects: u64) -> u64 {
    way(plan, task, port).into_iter().fold(subjects, |subjects, at| match &plan.tasks[at.task].component {
        Component::DataSplit(split) => match split.test_fraction {
            Some(fraction) => {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
                let test = ((subjects as f64 * fraction).round() as u64).min(subjects);
                if at.output == "test" { test } else { subjects - test }
            }
            None => subjects,
        },
        _ => subjects,
    })
}

/// Whether an imputation drops rows; what was fitted elsewhere says so there.
fn drops_rows(plan: &Plan, task: &str) -> bool {
    let mut at = task;
    for _ in 0..plan.tasks.len() {
        let found = &plan.tasks[at];
        match (source(plan, found, "fitted"), &found.component) {
            (Some(fitted), _) => at = fitted.task,
            (None, Component::Imputation(imputation)) => return imputation.method == ImputationMethod::DropRows,
            (None, _) => return false,
        }
    }
    false
}

/// For each task the first that computes the same from the same, in the order of the graph.
fn kinds(plan: &Plan) -> BTreeMap<&str, &str> {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut firsts: Vec<&str> = Vec::new();
    for name in order(plan) {
        let same = |first: &&&str| {
            plan.tasks[**first].component == plan.tasks[name].component
                && inputs(plan, &kinds, first) == inputs(plan, &kinds, name)
        };
        let found = firsts.iter().find(same).copied();
        if found.is_none() {
            firsts.push(name);
        }
        kinds.insert(name, found.unwrap_or(name));
    }
    kinds
}

/// What a task reads, by port, with each task replaced by the first that does the same.
fn inputs<'a>(plan: &'a Plan, kinds: &BTreeMap<&str, &'a str>, name: &str) -> BTreeMap<&'a str, Source<'a>> {
    let task = &plan.tasks[name];
    let ports = task.inputs.iter().filter_map(|(port, reference)| {
        let source = resolve(plan, reference).ok()?;
        Some((port.as_str(), Source { task: kinds.get(source.task).copied().unwrap_or(source.task), ..source }))
    });
    ports.collect()
}

fn named(plan: &Plan, of: impl Fn(&Task) -> bool) -> Vec<&str> {
    plan.tasks.iter().filter(|(_, task)| of(task)).map(|(name, _)| name.as_str()).collect()
}
