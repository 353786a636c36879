//! The plan of a simulation: from a plan file or a study file, with a researcher's changes.

use anyhow::{Context as _, Result, bail};
use hospes_protocol::plan::{self, Component, Plan};
use hospes_protocol::study::{Requester, Terms, read_terms};

/// Changes to the settings of the plan's `local_baseline` task.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Passes over the training rows.
    pub epochs: Option<u32>,
    /// Rows of a batch.
    pub batch: Option<u32>,
    /// Learning rate.
    pub learning_rate: Option<f64>,
}

/// Reads a plan file, or the `plan` of a study file.
///
/// # Errors
/// Everything that is wrong with the plan, each with its place.
pub fn read_plan(text: &str) -> Result<Plan> {
    let tree: serde_json::Value = serde_saphyr::from_str(text).context("the file is neither YAML nor JSON")?;
    let inner = match tree.get("plan") {
        Some(plan) => plan.to_string(),
        None => text.to_owned(),
    };
    Ok(plan::read(&inner)?)
}

/// Reads a study file, or a plan file with terms for a simulation.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn read_study(text: &str) -> Result<(Terms, Plan)> {
    let tree: serde_json::Value = serde_saphyr::from_str(text).context("the file is neither YAML nor JSON")?;
    let plan = read_plan(text)?;
    let terms = match tree.get("terms") {
        Some(terms) => read_terms(&terms.to_string())?,
        None => Terms {
            title: plan.name.clone(),
            purpose: "A simulation on a researcher's own files; nothing leaves the machine.".to_owned(),
            requester: Requester {
                name: "hospes-sim".into(),
                organisation: "Simulation".into(),
                ..Requester::default()
            },
            ..Terms::default()
        },
    };
    Ok((terms, plan))
}

/// The plan with the values at some places changed, such as `tasks.train.params.optimizer.sgd.lr` or `seed`.
///
/// # Errors
/// If a place leads nowhere, or the changed plan is not valid.
pub fn set(plan: &Plan, changes: &[(String, serde_json::Value)]) -> Result<Plan> {
    let mut tree = serde_json::to_value(plan)?;
    for (place, value) in changes {
        let (parents, last) = place.rsplit_once('.').map_or(("", place.as_str()), |(parents, last)| (parents, last));
        let pointer: String = parents.split('.').filter(|p| !p.is_empty()).map(|part| format!("/{part}")).collect();
        let parent = tree.pointer_mut(&pointer).with_context(|| format!("the plan has no '{parents}'"))?;
        let found = match parent {
            serde_json::Value::Object(fields) => fields.get_mut(last),
            serde_json::Value::Array(items) => last.parse::<usize>().ok().and_then(|at| items.get_mut(at)),
            _ => None,
        };
        *found.with_context(|| format!("the plan has no '{place}'"))? = value.clone();
    }
    Ok(plan::read(&tree.to_string())?)
}

/// The plan's only `local_baseline` task, with the changes applied.
///
/// # Errors
/// If the plan has none or several, or a changed plan is not valid.
pub fn baseline_task(plan: &mut Plan, changes: Overrides) -> Result<String> {
    let mut found = plan.tasks.iter_mut().filter_map(|(name, task)| match &mut task.component {
        Component::LocalBaseline(params) => Some((name.clone(), params)),
        _ => None,
    });
    let Some((name, params)) = found.next() else {
        bail!("the plan has no task with the component local_baseline");
    };
    if found.next().is_some() {
        bail!("the plan has several tasks with the component local_baseline; leave one");
    }
    params.epochs = changes.epochs.unwrap_or(params.epochs);
    params.batch = changes.batch.unwrap_or(params.batch);
    if let Some(rate) = changes.learning_rate {
        params.optimizer.set_lr(rate);
    }
    plan::check(plan)?;
    Ok(name)
}
