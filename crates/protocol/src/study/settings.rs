//! Reads a sweep as a researcher wrote it, and checks it against its plan.

use std::collections::BTreeMap;

use super::sweep::{Metric, Rank, Setting, Sweep, SweepFile, apply, canonical, problem};
use crate::canon::Canonical;
use crate::id::Digest;
use crate::plan::{self, Component, Plan, Problem};
use crate::{limits, text};

impl SweepFile {
    /// The sweep that is meant, checked against its plan.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place, such as `sweep.grid.tasks.train.params.rounds.2`.
    pub(super) fn read(self, plan: &Plan) -> Result<Sweep, Vec<Problem>> {
        let settings = match (self.grid.is_empty(), self.settings.is_empty()) {
            (false, true) => expand(&self.grid, plan)?,
            (true, false) => self.settings,
            (true, true) => return Err(vec![problem("sweep", "names nothing to try: write 'grid' or 'settings'")]),
            (false, false) => return Err(vec![problem("sweep", "has both 'grid' and 'settings'; write one of them")]),
        };
        // A label that cannot be read has been told of with the plan.
        let usual = plan.data.label.kind().ok().and_then(|kind| Metric::of(kind).next());
        let metric = self.rank.metric.or(usual).unwrap_or(Metric::Accuracy);
        let direction = self.rank.direction.unwrap_or(metric.direction());
        let rank = Rank { task: self.rank.task, metric, direction };
        let sweep = Sweep { settings, rank, parallel: self.parallel };
        match sweep.check(plan) {
            Ok(_) => Ok(sweep),
            Err(problems) => Err(problems),
        }
    }
}

/// Every combination of a grid's values, the last place's changing fastest.
fn expand(grid: &BTreeMap<String, Vec<f64>>, plan: &Plan) -> Result<Vec<Setting>, Vec<Problem>> {
    let mut problems = Vec::new();
    if grid.len() > limits::SWEEP_PLACES {
        return Err(vec![problem("sweep.grid", &too_many_places(grid.len()))]);
    }
    for (place, values) in grid {
        let at = format!("sweep.grid.{place}");
        if let Err(reason) = may_vary(plan, place) {
            problems.push(problem(&at, &reason));
            continue;
        }
        if values.is_empty() {
            problems.push(problem(&at, "has no values"));
        }
        for (i, value) in values.iter().take(limits::SWEEP_SETTINGS).enumerate() {
            if values[..i].contains(value) {
                problems.push(problem(&format!("{at}.{i}"), &format!("{value} stands twice")));
            } else if let Err(wrong) = apply(plan, &Setting::from([(place.clone(), *value)])) {
                problems.extend(below(&format!("{at}.{i}"), place, wrong));
            }
        }
    }
    let count = grid.values().fold(1usize, |product, values| product.saturating_mul(values.len()));
    if count > limits::SWEEP_SETTINGS {
        problems.push(problem("sweep.grid", &too_many(count)));
    }
    if !problems.is_empty() {
        return Err(capped(problems));
    }
    let mut settings = vec![Setting::new()];
    for (place, values) in grid {
        let with = |setting: &Setting, value: &f64| {
            let mut setting = setting.clone();
            setting.insert(place.clone(), *value);
            setting
        };
        settings = settings.iter().flat_map(|setting| values.iter().map(move |value| with(setting, value))).collect();
    }
    Ok(settings)
}

fn too_many_places(count: usize) -> String {
    let most = limits::SWEEP_PLACES;
    format!("names {count} places of the plan; a sweep varies between 1 and {most} (limit SWEEP_PLACES)")
}

fn too_many(count: usize) -> String {
    format!("gives {count} settings, more than the {} allowed (limit SWEEP_SETTINGS)", limits::SWEEP_SETTINGS)
}

/// A list of problems that is no longer than anybody reads, with texts that can be shown.
fn capped(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.truncate(100);
    for problem in &mut problems {
        problem.place = text::shown(&problem.place, 300);
        problem.reason = text::shown(&problem.reason, 600);
    }
    problems
}

/// What is wrong with one setting's plan, told at the place of the setting.
fn below(at: &str, place: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let told = |p: Problem| {
        let reason =
            if p.place == place || p.place.is_empty() { p.reason } else { format!("{}: {}", p.place, p.reason) };
        problem(at, &reason)
    };
    problems.into_iter().map(told).collect()
}

impl Sweep {
    /// Checks a sweep against its plan; the result are the plans of its settings, in their order.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place, such as `sweep.settings.3.tasks.train.params.rounds`.
    pub(super) fn check(&self, plan: &Plan) -> Result<Vec<Canonical<Plan>>, Vec<Problem>> {
        let mut problems = self.against_shape(plan);
        problems.extend(self.against_rank(plan));
        if !problems.is_empty() {
            return Err(capped(problems));
        }
        let mut plans = Vec::with_capacity(self.settings.len());
        for (i, setting) in self.settings.iter().enumerate() {
            match apply(plan, setting).and_then(canonical) {
                Ok(run) => plans.push(run),
                Err(wrong) => {
                    let at = |p: &Problem| if p.place.is_empty() { String::new() } else { format!(".{}", p.place) };
                    let told = |p: Problem| problem(&format!("sweep.settings.{i}{}", at(&p)), &p.reason);
                    problems.extend(wrong.into_iter().map(told));
                }
            }
            if problems.len() >= 100 {
                break;
            }
        }
        if problems.is_empty() {
            problems = against_looks(&plans);
        }
        if problems.is_empty() { Ok(plans) } else { Err(capped(problems)) }
    }

    /// Numbers, limits and places.
    fn against_shape(&self, plan: &Plan) -> Vec<Problem> {
        let mut problems = Vec::new();
        let count = self.settings.len();
        if count < 2 {
            problems.push(problem("sweep.settings", "needs at least two settings; for one, write it into the plan"));
        }
        if count > limits::SWEEP_SETTINGS {
            problems.push(problem("sweep.settings", &too_many(count)));
        }
        if !(1..=limits::SWEEP_PARALLEL).contains(&self.parallel) {
            let reason = format!("is {}; it must lie between 1 and {}", self.parallel, limits::SWEEP_PARALLEL);
            problems.push(problem("sweep.parallel", &reason));
        }
        let Some(first) = self.settings.first() else { return problems };
        if first.is_empty() || first.len() > limits::SWEEP_PLACES {
            problems.push(problem("sweep.settings.0", &too_many_places(first.len())));
            return problems;
        }
        for place in first.keys() {
            if let Err(reason) = may_vary(plan, place) {
                problems.push(problem(&format!("sweep.settings.0.{place}"), &reason));
            }
        }
        let others = self.settings.iter().enumerate().skip(1);
        for (i, _) in others.filter(|(_, setting)| !setting.keys().eq(first.keys())) {
            let reason = "names other places than the first setting; give a number for the same places in each";
            problems.push(problem(&format!("sweep.settings.{i}"), reason));
        }
        let bytes = Canonical::new(plan.clone()).map_or(0, |plan| plan.bytes().len());
        if bytes.saturating_mul(count) > limits::SWEEP_BYTES {
            let reason = format!(
                "{count} settings of a plan of {bytes} bytes are more than the {} bytes allowed in all (limit \
                 SWEEP_BYTES)",
                limits::SWEEP_BYTES
            );
            problems.push(problem("sweep.settings", &reason));
        }
        problems
    }

    /// The evaluation that decides, and its figure.
    fn against_rank(&self, plan: &Plan) -> Vec<Problem> {
        let Rank { task, metric, direction } = &self.rank;
        let mut problems = Vec::new();
        if *direction != metric.direction() {
            let (metric, right) = (metric.as_str(), metric.direction().as_str());
            let reason =
                format!("the best model is the one with the {right} {metric}; write '{right}' or leave it out");
            problems.push(problem("sweep.rank.direction", &reason));
        }
        if let Ok(kind) = plan.data.label.kind()
            && !Metric::of(kind).any(|known| known == *metric)
        {
            let known = Metric::of(kind).map(Metric::as_str).collect::<Vec<_>>().join(", ");
            let reason = format!("a label as the plan has it gives no {}; there is {known}", metric.as_str());
            problems.push(problem("sweep.rank.metric", &reason));
        }
        let evaluations: Vec<&str> = plan
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.component, Component::Evaluation(_)))
            .map(|(name, _)| name.as_str())
            .collect();
        let last = plan::order(plan).into_iter().rev().find(|name| trains(plan, name));
        let judged =
            plan.tasks.get(task).and_then(|found| plan::source(plan, found, "model")).map(|source| source.task);
        let shown = text::shown(task, 100);
        let reason = match (evaluations.contains(&task.as_str()), judged, last) {
            (false, ..) if evaluations.is_empty() => {
                "the plan has no evaluation; add one, so that models can be ranked".to_owned()
            }
            (false, ..) => format!("'{shown}' is no evaluation of the plan; there is {}", evaluations.join(", ")),
            (true, judged, Some(last)) if judged != Some(last) => {
                format!("'{shown}' does not judge the model that the run ends with, which is that of '{last}'")
            }
            _ => return problems,
        };
        problems.push(problem("sweep.rank.task", &reason));
        problems
    }
}

fn trains(plan: &Plan, task: &str) -> bool {
    plan.tasks.get(task).is_some_and(|task| matches!(task.component, Component::NnTrain(_)))
}

/// Whether a sweep may vary the number at this place, or an approval may leave it free.
///
/// PRIVACY: how a model is trained, and the seed where nothing but training uses it. What reads or prepares rows stays
/// as it is, because reports on ever other rows of the same patients could be subtracted from each other; so do
/// evaluations, because one model judged at several thresholds tells about the few patients between them; so does what
/// protects an update.
///
/// # Errors
/// Why not, in words.
pub fn may_vary(plan: &Plan, place: &str) -> Result<(), String> {
    let same_rows = |component: &Component| match component {
        Component::Reader(_) | Component::Imputation(_) | Component::OneHot(_) | Component::FeatureScale(_) => true,
        Component::DataSplit(split) => split.by_column.is_some() && split.test_fraction.is_none(),
        other => other.rounds() > 0,
    };
    let keys: Vec<&str> = place.split('.').collect();
    match keys.as_slice() {
        ["seed"] => match plan.tasks.iter().find(|(_, task)| !same_rows(&task.component)) {
            Some((name, _)) => Err(format!(
                "with another seed '{name}' would draw other rows in each run, and what two runs differ in would tell \
                 about few patients; leave the seed as it is, or split by a column"
            )),
            None => Ok(()),
        },
        ["tasks", task, "params", rest @ ..] if !rest.is_empty() => {
            let Some(found) = plan.tasks.get(*task) else { return Err(format!("the plan has no task '{task}'")) };
            if !trains(plan, task) {
                let component = found.component.name();
                return Err(format!(
                    "a sweep varies how models are trained, and so does an approval of several runs, and '{task}' is \
                     {component}: every run reads and judges the same rows in the same way"
                ));
            }
            if matches!(rest[0], "privacy" | "quantise" | "dp" | "top_k") {
                return Err("how an update is protected and put on the wire is the same in every run".to_owned());
            }
            let has_dp = matches!(&found.component, Component::NnTrain(train) if train.dp.is_some());
            if has_dp && matches!(rest, ["rounds"] | ["local", "updates" | "batch"]) {
                return Err(
                    "with dp the number of steps decides what they tell about a patient, and is the same in every \
                            run; write it into the plan"
                        .to_owned(),
                );
            }
            Ok(())
        }
        _ => Err("is no place that a sweep may vary; there is 'seed', and 'tasks.<task>.params.…' of a training task"
            .to_owned()),
    }
}

/// Results that two runs would give alike.
///
/// PRIVACY: as in one plan, no result leaves twice and no model is judged twice on the same rows, whatever the tasks are
/// called. Between two runs some patients may have opted out; two copies of a result would differ by exactly them.
fn against_looks(plans: &[Canonical<Plan>]) -> Vec<Problem> {
    let mut problems: BTreeMap<String, Problem> = BTreeMap::new();
    let mut seen: BTreeMap<Digest, (usize, String)> = BTreeMap::new();
    for (i, plan) in plans.iter().enumerate() {
        for (task, look) in looks(plan) {
            let Some((first, before)) = seen.get(&look) else {
                seen.insert(look, (i, task));
                continue;
            };
            let what = match &plan.tasks[&task].component {
                Component::Evaluation(_) => "judges the same model on the same rows",
                _ => "gives the same",
            };
            let reason = format!(
                "'{task}' of setting {i} {what} as '{before}' of setting {first}, and would let it leave twice; vary what \
                 it depends on in every setting, or leave the task out of the plan"
            );
            problems.entry(task).or_insert_with(|| problem(&format!("sweep.settings.{i}"), &reason));
        }
    }
    problems.into_values().collect()
}

/// Each task of a plan that reports, and what it looks at: equal for tasks that would report the same, or judge one
/// model on the same rows.
fn looks(plan: &Plan) -> Vec<(String, Digest)> {
    let mut found: BTreeMap<&str, (Digest, bool)> = BTreeMap::new();
    for name in plan::order(plan) {
        let task = &plan.tasks[name];
        let mut tree = serde_json::to_value(task).unwrap_or_default();
        match &task.component {
            // At whatever threshold, and in however many bins.
            Component::Evaluation(_) => tree["params"] = serde_json::Value::Null,
            Component::LocalBaseline(_) => tree["params"]["threshold"] = serde_json::Value::Null,
            _ => {}
        }
        let mut random = matches!(task.component, Component::NnTrain(_) | Component::LocalBaseline(_));
        let mut inputs = BTreeMap::new();
        for port in task.inputs.keys() {
            let Some(source) = plan::source(plan, task, port) else { continue };
            let Some((digest, drawn)) = found.get(source.task) else { continue };
            random |= drawn;
            let what = match (&task.component, port.as_str()) {
                // However the rows were prepared.
                (Component::Evaluation(_), "data") => format!("{:?}", plan::rows_at(plan, name, port)),
                _ => format!("{digest}.{}", source.output),
            };
            inputs.insert(port.as_str(), what);
        }
        tree["inputs"] = serde_json::to_value(inputs).unwrap_or_default();
        // The seed decides nothing about what is not trained.
        tree["seed"] = if random { plan.seed.into() } else { serde_json::Value::Null };
        found.insert(name, (Digest::of(tree.to_string().as_bytes()), random));
    }
    let reports = found.iter().filter(|(name, _)| plan.tasks[**name].component.rounds() > 0);
    reports.map(|(name, (digest, _))| ((*name).to_owned(), *digest)).collect()
}
