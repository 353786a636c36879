//! Columns on their way through the plan: which are read, what each task makes of them, which reach a model.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::graph::{PortType, order, source};
use super::label::code;
use super::model::Inputs;
use super::problem::{Problems, hint};
use super::{Component, DataSplit, DropLevel, Image, LabelKind, OneHot, Plan, ScaleMethod, Task, Variable};
use crate::{limits, text};

/// A feature that reaches the model: its name after `one_hot`, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Name, such as `age` or `cp_2`.
    pub name: String,
    /// How many codes it has, if it is a category: its value is the place of one among them, from 0. `None` for a number.
    pub codes: Option<u64>,
}

/// Every column of the data that the plan reads: subject, label, features, image, fold, offset, weights and subgroup.
pub fn columns_read(plan: &Plan) -> BTreeSet<String> {
    let data = &plan.data;
    let others = plan.tasks.values().flat_map(|task| task.component.extra_columns());
    let image = data.image.iter().map(|image| &image.column);
    std::iter::once(&data.subject)
        .chain(data.label.columns())
        .chain(&data.columns)
        .chain(image)
        .chain(others)
        .cloned()
        .collect()
}

impl Component {
    /// Columns that it reads besides features, label and subject.
    pub fn extra_columns(&self) -> impl Iterator<Item = &String> {
        let (one, other) = match self {
            Self::DataSplit(DataSplit { by_column, .. }) => (by_column.as_ref(), None),
            Self::Glm(glm) => (glm.offset.as_ref(), glm.weights.as_ref()),
            Self::Evaluation(evaluation) => (evaluation.subgroup.as_ref(), None),
            _ => (None, None),
        };
        one.into_iter().chain(other)
    }
}

/// Columns besides features, label and subject that the tasks need which work on the rows of a task's tables, directly or
/// not: a row without one of them is of no use to one of these. An evaluation needs the offset of the regression that it
/// judges, and not its weights.
pub fn needed_behind<'a>(plan: &'a Plan, task: &str) -> BTreeSet<&'a String> {
    let mut behind = BTreeSet::from([task]);
    let mut needed = BTreeSet::new();
    for name in order(plan) {
        let found = &plan.tasks[name];
        let tables = found.component.inputs().iter().filter(|port| port.of == PortType::Table);
        if !tables.filter_map(|port| source(plan, found, port.name)).any(|from| behind.contains(from.task)) {
            continue;
        }
        behind.insert(name);
        match &found.component {
            Component::Glm(glm) => needed.extend(glm.offset.iter().chain(&glm.weights)),
            Component::Evaluation(_) => {
                let judged = source(plan, found, "model").and_then(|from| plan.tasks.get(from.task));
                if let Some(Component::Glm(glm)) = judged.map(|judged| &judged.component) {
                    needed.extend(&glm.offset);
                }
            }
            _ => {}
        }
    }
    needed
}

/// Columns that the model of a task needs of a row to give an output for it: features, image, and the offset of a
/// regression.
pub fn predictors(plan: &Plan, task: &str) -> BTreeSet<String> {
    let offset = match plan.tasks.get(task).map(|found| &found.component) {
        Some(Component::Glm(glm)) => glm.offset.as_ref(),
        _ => None,
    };
    let image = plan.data.image.iter().map(|image| &image.column);
    plan.data.columns.iter().chain(image).chain(offset).cloned().collect()
}

/// The subgroups of an evaluation: the rows of each code of a category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subgroups<'a> {
    /// The category.
    pub column: &'a str,
    /// Its codes.
    pub codes: &'a [String],
}

impl Subgroups<'_> {
    /// What a figure is called that is of the rows of one code.
    pub fn figure(&self, name: &str, code: &str) -> String {
        format!("{name}[{}={code}]", self.column)
    }
}

/// The subgroups of a task; `None` for one that has none.
pub fn subgroups<'a>(plan: &'a Plan, task: &str) -> Option<Subgroups<'a>> {
    let Component::Evaluation(evaluation) = &plan.tasks.get(task)?.component else { return None };
    let column = evaluation.subgroup.as_deref()?;
    match plan.data.variables.get(column)? {
        Variable::Category { codes } => Some(Subgroups { column, codes }),
        Variable::Number { .. } => None,
    }
}

/// What a row gives the model of a task; no features for a task that the plan does not have.
pub fn inputs(plan: &Plan, task: &str) -> Inputs {
    Flow::of(plan, &mut Problems::default()).inputs(task)
}

/// The features that reach a task, in order: those of the table that it trains on, evaluates, counts or changes. Empty
/// for a task that the plan does not have.
pub fn features(plan: &Plan, task: &str) -> Vec<Feature> {
    Flow::of(plan, &mut Problems::default()).features(task)
}

/// The tables of a plan, worked out once.
pub(super) struct Flow<'a> {
    plan: &'a Plan,
    /// Table that each task puts out, by task.
    tables: BTreeMap<&'a str, Table>,
}

impl<'a> Flow<'a> {
    /// What every task puts out, noting what cannot be done on the way.
    pub(super) fn of(plan: &'a Plan, problems: &mut Problems) -> Self {
        let mut flow = Self { plan, tables: BTreeMap::new() };
        for name in order(plan) {
            let task = &plan.tasks[name];
            let table = match &task.component {
                Component::Reader(_) => Some(read_table(plan)),
                component => flow.input(task, "data").and_then(|input| transform(name, component, input, problems)),
            };
            if let Some(table) = table {
                flow.tables.insert(name, table);
            }
        }
        flow
    }

    /// See [`features`].
    pub(super) fn features(&self, task: &str) -> Vec<Feature> {
        self.arriving(task).unwrap_or_default()
    }

    /// The same; `None` where no table arrives, because something before it is wrong.
    pub(super) fn arriving(&self, task: &str) -> Option<Vec<Feature>> {
        let feature = |column: &Column| {
            let codes = match &column.kind {
                Kind::Category { codes } => Some(codes.len() as u64),
                Kind::Number { .. } => None,
            };
            Feature { name: column.name.clone(), codes }
        };
        Some(self.of_task(task)?.columns.iter().map(feature).collect())
    }

    /// Number of [`features`].
    pub(super) fn width(&self, task: &str) -> u64 {
        self.of_task(task).map_or(0, |table| table.columns.len() as u64)
    }

    /// See [`inputs`].
    pub(super) fn inputs(&self, task: &str) -> Inputs {
        let sides = |image: &super::Image| [image.channels, image.height, image.width].map(u64::from);
        Inputs { features: self.width(task), image: self.plan.data.image.as_ref().map(sides) }
    }

    fn of_task(&self, task: &str) -> Option<&Table> {
        let found = self.plan.tasks.get(task)?;
        match found.component.inputs().first() {
            Some(port) => self.input(found, port.name),
            None => self.tables.get(task),
        }
    }

    /// Table that arrives at a port.
    fn input(&self, task: &Task, port: &str) -> Option<&Table> {
        self.tables.get(source(self.plan, task, port)?.task)
    }
}

/// A table between two tasks, as far as it is known without data.
#[derive(Debug, Clone, PartialEq)]
struct Table {
    columns: Rc<[Column]>,
    scaled: Option<ScaleMethod>,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    kind: Kind,
}

impl Column {
    fn is_category(&self) -> bool {
        matches!(self.kind, Kind::Category { .. })
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Number { bounded: bool },
    Category { codes: Rc<[String]> },
}

/// Checks the columns: names, variables, and what each task makes of them.
pub(super) fn check<'a>(plan: &'a Plan, problems: &mut Problems) -> Flow<'a> {
    check_names(plan, problems);
    check_variables(plan, problems);
    let flow = Flow::of(plan, problems);
    for (name, task) in &plan.tasks {
        check_use(&flow, name, task, problems);
    }
    flow
}

fn check_names(plan: &Plan, problems: &mut Problems) {
    let data = &plan.data;
    let count = data.columns.len();
    problems.require(count > 0 || data.image.is_some(), "data.columns", "names no column");
    problems.require(
        count <= limits::PLAN_COLUMNS,
        "data.columns",
        format!("{count} columns, more than the {} allowed", limits::PLAN_COLUMNS),
    );
    let mut named = |place: String, name: &str| {
        if let Err(reason) = text::check_name(name) {
            problems.add(place, format!("the column's name {reason}"));
        }
    };
    named("data.subject".into(), &data.subject);
    named("data.label.column".into(), &data.label.column);
    data.label.time.iter().for_each(|time| named("data.label.time".into(), time));
    data.image.iter().for_each(|image| named("data.image.column".into(), &image.column));
    for (i, column) in data.columns.iter().enumerate() {
        named(format!("data.columns.{i}"), column);
    }
    let mut seen = BTreeSet::new();
    for (i, column) in data.columns.iter().enumerate() {
        let place = format!("data.columns.{i}");
        if !seen.insert(column) {
            problems.add(place, format!("'{column}' stands twice"));
        } else if data.label.columns().any(|label| label == column) {
            problems.add(place, format!("'{column}' is the label; a model that sees it would learn nothing else"));
        } else if *column == data.subject {
            problems.add(place, format!("'{column}' tells patients apart and must not be a feature"));
        }
    }
    if data.subject == data.label.column {
        problems.add("data.subject", format!("'{}' is the label too", data.subject));
    }
    check_label(plan, problems);
    if let Some(image) = &data.image {
        check_image(plan, image, problems);
    }
}

fn check_label(plan: &Plan, problems: &mut Problems) {
    let label = &plan.data.label;
    if let Err(reason) = label.kind() {
        let place =
            if label.positive.is_some() && label.classes.is_empty() { "data.label.positive" } else { "data.label" };
        problems.add(place, reason);
    }
    if !label.classes.is_empty() {
        check_code_list("data.label.classes", &label.classes, problems);
        problems.require(
            label.classes.len() <= limits::CLASSES,
            "data.label.classes",
            format!("{} classes, more than the {} allowed", label.classes.len(), limits::CLASSES),
        );
    }
    if let Some(time) = &label.time {
        problems.require(*time != label.column, "data.label.time", format!("'{time}' is the column of the event too"));
        problems.require(*time != plan.data.subject, "data.label.time", format!("'{time}' tells patients apart"));
    }
}

fn check_image(plan: &Plan, image: &Image, problems: &mut Problems) {
    let Image { column, channels, height, width } = image;
    let data = &plan.data;
    let taken = data.columns.contains(column) || data.label.columns().any(|c| c == column) || data.subject == *column;
    problems.require(!taken, "data.image.column", format!("'{column}' is another column of the plan too"));
    problems.require(
        matches!(channels, 1 | 3),
        "data.image.channels",
        format!("is {channels}; it is 1 (grey) or 3 (colour)"),
    );
    for (place, side) in [("data.image.height", height), ("data.image.width", width)] {
        let fits = (1..=limits::IMAGE_SIDE).contains(side);
        problems.require(fits, place, format!("is {side}; it must lie between 1 and {}", limits::IMAGE_SIDE));
    }
}

fn check_variables(plan: &Plan, problems: &mut Problems) {
    let data = &plan.data;
    let read = columns_read(plan);
    for (name, variable) in &data.variables {
        if problems.is_full() {
            break;
        }
        let place = format!("data.variables.{name}");
        if !read.contains(name) {
            let known = hint(name, read.iter().map(String::as_str));
            problems.add(place, format!("the plan reads no column '{name}'{known}"));
            continue;
        }
        match variable {
            Variable::Number { min, max, unit } => {
                for (field, bound) in [("min", min), ("max", max)] {
                    let finite = bound.is_none_or(f64::is_finite);
                    problems.require(finite, format!("{place}.number.{field}"), "must be a finite number");
                }
                if let (Some(min), Some(max)) = (min, max) {
                    problems.require(min < max, format!("{place}.number"), format!("min {min} is not below max {max}"));
                }
                if let Some(Err(reason)) = unit.as_deref().map(text::check_name) {
                    problems.add(format!("{place}.number.unit"), reason);
                }
            }
            Variable::Category { codes } => {
                check_codes(&place, codes, problems);
                let is_label = data.label.columns().any(|column| column == name);
                if is_label && !matches!(data.label.kind(), Ok(LabelKind::Classes(_))) {
                    problems.add(place, "the label is compared with a number, so it must be a number");
                }
            }
        }
    }
}

fn check_codes(place: &str, codes: &[String], problems: &mut Problems) {
    check_code_list(&format!("{place}.category.codes"), codes, problems);
}

fn check_code_list(place: &str, codes: &[String], problems: &mut Problems) {
    problems.require(!codes.is_empty(), place, "is empty");
    problems.require(
        codes.len() <= limits::PLAN_COLUMNS,
        place,
        format!("{} codes, more than the {} allowed", codes.len(), limits::PLAN_COLUMNS),
    );
    let mut seen = BTreeSet::new();
    for (i, written) in codes.iter().enumerate() {
        let place = format!("{place}.{i}");
        if let Err(reason) = text::check_name(written) {
            problems.add(place, reason);
        } else if code(written) != written {
            problems.add(place, format!("write '{}': codes are compared without '.0'", code(written)));
        } else if !seen.insert(written) {
            problems.add(place, format!("'{written}' stands twice"));
        }
    }
}

fn read_table(plan: &Plan) -> Table {
    let kind = |name: &String| match plan.data.variables.get(name) {
        Some(Variable::Category { codes }) => Kind::Category { codes: codes.as_slice().into() },
        Some(Variable::Number { min, max, .. }) => Kind::Number { bounded: min.is_some() && max.is_some() },
        None => Kind::Number { bounded: false },
    };
    let columns = plan.data.columns.iter().map(|name| Column { name: name.clone(), kind: kind(name) }).collect();
    Table { columns, scaled: None }
}

fn transform(name: &str, component: &Component, input: &Table, problems: &mut Problems) -> Option<Table> {
    let params = format!("tasks.{name}.params");
    match component {
        Component::Imputation(_) | Component::DataSplit(_) => Some(input.clone()),
        Component::OneHot(one_hot) => Some(expand(&params, one_hot, input, problems)),
        Component::FeatureScale(scale) => {
            if scale.method == ScaleMethod::Bounds {
                let unbounded = input.columns.iter().find(|c| c.kind == Kind::Number { bounded: false });
                if let Some(column) = unbounded {
                    problems.add(
                        format!("{params}.method"),
                        format!("bounds needs data.variables.{}.number.min and .max", column.name),
                    );
                }
            }
            Some(Table { scaled: Some(scale.method), ..input.clone() })
        }
        Component::Reader(_)
        | Component::Statistics(_)
        | Component::NnTrain(_)
        | Component::Evaluation(_)
        | Component::Glm(_)
        | Component::Cox(_)
        | Component::LocalBaseline(_) => None,
    }
}

fn first_category(table: &Table) -> Option<&str> {
    table.columns.iter().find(|c| c.is_category()).map(|c| c.name.as_str())
}

fn expand(params: &str, one_hot: &OneHot, input: &Table, problems: &mut Problems) -> Table {
    problems.require(!one_hot.columns.is_empty(), format!("{params}.columns"), "names no column");
    let arriving: BTreeMap<&str, &Column> = input.columns.iter().map(|c| (c.name.as_str(), c)).collect();
    let mut expanded: BTreeSet<&str> = BTreeSet::new();
    let mut added: Vec<Column> = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (i, column) in one_hot.columns.iter().enumerate() {
        if problems.is_full() {
            break;
        }
        let place = format!("{params}.columns.{i}");
        if !expanded.insert(column) {
            problems.add(place, format!("'{column}' stands twice"));
            continue;
        }
        let Some(found) = arriving.get(column.as_str()) else {
            let known = hint(column, input.columns.iter().map(|c| c.name.as_str()));
            problems.add(place, format!("no column '{column}' arrives here{known}"));
            continue;
        };
        let Kind::Category { codes } = &found.kind else {
            problems.add(place, format!("'{column}' has no codes; add data.variables.{column}.category.codes"));
            continue;
        };
        let dropped = usize::from(one_hot.drop == DropLevel::First);
        if codes.len() <= dropped {
            problems.add(&place, format!("'{column}' has one code only, and drop: first leaves nothing of it"));
        }
        let indicators: BTreeSet<String> = codes.iter().map(|code| format!("{column}_{code}")).collect();
        for code in codes.iter().skip(dropped) {
            let name = format!("{column}_{code}");
            if arriving.contains_key(name.as_str()) || taken.contains(&name) {
                problems.add(&place, format!("gives a column '{name}', which there is already"));
            }
            added.push(Column { name, kind: Kind::Number { bounded: true } });
        }
        taken.extend(indicators);
        if input.columns.len() + added.len() > limits::PLAN_COLUMNS {
            problems.add(place, format!("gives more than the {} columns allowed", limits::PLAN_COLUMNS));
            break;
        }
    }
    let kept = input.columns.iter().filter(|c| !(expanded.contains(c.name.as_str()) && c.is_category())).cloned();
    Table { columns: kept.chain(added).collect(), scaled: input.scaled }
}

/// What a task that ends in figures or a model needs of its tables.
fn check_use(flow: &Flow<'_>, name: &str, task: &Task, problems: &mut Problems) {
    match &task.component {
        Component::Statistics(_) | Component::Glm(_) | Component::Cox(_) => {
            let Some(port) = task.component.inputs().first() else { return };
            if let Some(table) = flow.input(task, port.name)
                && let Some(category) = first_category(table)
            {
                problems.add(
                    format!("tasks.{name}.inputs.{}", port.name),
                    format!("'{category}' is a category; put a one_hot task before it"),
                );
            }
        }
        Component::Imputation(_) | Component::FeatureScale(_) => check_fitted(flow, name, task, problems),
        Component::DataSplit(split) => check_fold(flow.plan, name, split, problems),
        // What the layers of a network may take is checked with them, and an evaluation judges what was trained.
        Component::NnTrain(_) | Component::LocalBaseline(_) | Component::Evaluation(_) => {}
        Component::Reader(_) | Component::OneHot(_) => {}
    }
    match &task.component {
        Component::NnTrain(_) => same(flow, name, task, ("validate", "train"), problems),
        Component::LocalBaseline(_) => same(flow, name, task, ("data", "train"), problems),
        Component::Evaluation(evaluation) => {
            if let Some(column) = &evaluation.subgroup {
                check_subgroup(flow.plan, name, column, problems);
            }
            let trained = source(flow.plan, task, "model").and_then(|model| flow.plan.tasks.get(model.task));
            let trained = trained.and_then(|trainer| flow.input(trainer, "train"));
            if let (Some(table), Some(trained)) = (flow.input(task, "data"), trained) {
                compare(format!("tasks.{name}.inputs.data"), table, trained, problems);
            }
        }
        _ => {}
    }
}

fn check_subgroup(plan: &Plan, name: &str, column: &str, problems: &mut Problems) {
    let place = format!("tasks.{name}.params.subgroup");
    if let Err(reason) = text::check_name(column) {
        problems.add(&place, format!("the column's name {reason}"));
    }
    for (used, what) in [(&plan.data.subject, "the subject"), (&plan.data.label.column, "the label")] {
        problems.require(column != used, &place, format!("'{column}' is {what}"));
    }
    problems.require(
        plan.data.label.time.as_deref() != Some(column),
        &place,
        format!("'{column}' is the label's time"),
    );
    let Some(subgroups) = subgroups(plan, name) else {
        problems.add(place, format!("'{column}' has no codes; add data.variables.{column}.category.codes"));
        return;
    };
    let (codes, most) = (subgroups.codes.len(), limits::SUBGROUPS);
    problems.require(codes <= most, &place, format!("'{column}' has {codes} codes, more than the {most} allowed"));
}

fn same(flow: &Flow<'_>, name: &str, task: &Task, (port, other): (&str, &str), problems: &mut Problems) {
    if let (Some(table), Some(trained)) = (flow.input(task, port), flow.input(task, other)) {
        compare(format!("tasks.{name}.inputs.{port}"), table, trained, problems);
    }
}

fn compare(place: String, table: &Table, trained: &Table, problems: &mut Problems) {
    let names = |t: &Table| t.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let (found, wanted) = (names(table), names(trained));
    if found != wanted {
        let differs = wanted.iter().find(|c| !found.contains(c)).or_else(|| found.iter().find(|c| !wanted.contains(c)));
        let detail = differs.map_or_else(|| "their order".into(), |column| format!("for example '{column}'"));
        problems.add(place, format!("has other features than the model is trained on ({detail})"));
    } else if table.scaled != trained.scaled {
        problems.add(place, "is not scaled as the rows that the model is trained on are");
    }
}

fn check_fitted(flow: &Flow<'_>, name: &str, task: &Task, problems: &mut Problems) {
    let Some(from) = source(flow.plan, task, "fitted") else { return };
    let Some(fitting) = flow.plan.tasks.get(from.task) else { return };
    if fitting.component.name() != task.component.name() {
        return; // The graph's check names it.
    }
    if fitting.component != task.component {
        problems.add(
            format!("tasks.{name}.params"),
            format!("differ from those of '{}', whose fit is used; leave them out", from.task),
        );
    }
    let (table, fitted) = (flow.input(task, "data"), flow.input(fitting, "data"));
    if let (Some(table), Some(fitted)) = (table, fitted)
        && table.columns != fitted.columns
    {
        problems.add(
            format!("tasks.{name}.inputs.fitted"),
            format!("'{}' was fitted on other columns than those that arrive here", from.task),
        );
    }
}

fn check_fold(plan: &Plan, name: &str, split: &DataSplit, problems: &mut Problems) {
    let params = format!("tasks.{name}.params");
    match (&split.by_column, split.test_fraction) {
        (Some(_), Some(_)) => problems.add(params, "has by_column and test_fraction; only one of them can be"),
        (None, None) => problems.add(params, "needs by_column or test_fraction"),
        (None, Some(fraction)) => problems.require(
            fraction > 0.0 && fraction < 1.0,
            format!("{params}.test_fraction"),
            format!("is {fraction}; it must lie between 0 and 1, without them"),
        ),
        (Some(column), None) => {
            let place = format!("{params}.by_column");
            if let Err(reason) = text::check_name(column) {
                problems.add(&place, format!("the column's name {reason}"));
            }
            for (used, what) in [(&plan.data.subject, "the subject"), (&plan.data.label.column, "the label")] {
                problems.require(column != used, &place, format!("'{column}' is {what}"));
            }
            let feature = plan.data.columns.contains(column);
            problems.require(!feature, &place, format!("'{column}' is a feature; a split must not be"));
            if let Some(Variable::Category { codes }) = plan.data.variables.get(column) {
                let both = ["train", "test"].iter().all(|value| codes.iter().any(|code| code == value));
                problems.require(both, &place, format!("the codes of '{column}' are not 'train' and 'test'"));
            }
        }
    }
}
