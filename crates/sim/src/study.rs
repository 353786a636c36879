//! The plan of a simulation: from a plan file or a study file, with a researcher's changes.

use anyhow::{Context as _, Result, bail};
use hospes_protocol::plan::{self, Component, Plan};

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
