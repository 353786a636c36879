//! A model file judged at every site.

use anyhow::{Context as _, Result, ensure};
use hospes_cohort::Cohort;
use hospes_protocol::canon::{self, Canonical};
use hospes_protocol::id::Digest;
use hospes_protocol::plan::{self, Component, Plan};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use crate::baseline::over_all;
use crate::federation::Federation;

/// How good a model is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Assessment {
    /// Always `simulation`.
    pub kind: &'static str,
    /// The model.
    pub model: Digest,
    /// Sites.
    pub sites: Vec<String>,
    /// Accuracy on each site's test rows.
    pub accuracy: Vec<f64>,
    /// Accuracy on all of them, each scaled by its own site.
    pub all: f64,
    /// Accuracy on all of them, scaled together like pooled training rows.
    pub all_scaled_together: f64,
    /// Area under the ROC curve on each site's test rows; none where there is one class only.
    pub auc: Vec<Option<f64>>,
    /// The same on all of them, scaled together.
    pub auc_all_scaled_together: Option<f64>,
}

/// Judges a model file on the rows of the plan's first `evaluation` task, at its threshold.
///
/// Rows that the plan draws for its test are those on which [`Live`](crate::Live) did not train, if the sites have the names
/// that they had there.
///
/// # Errors
/// If the plan evaluates nothing, or the file does not fit the plan's model.
pub fn assess(federation: &Federation, plan: &Plan, model: &[u8]) -> Result<Assessment> {
    let evaluations = plan.tasks.iter().filter(|(_, t)| matches!(t.component, Component::Evaluation(_)));
    let (task, found) = evaluations.into_iter().next().context("the plan has no task with the component evaluation")?;
    let trained = plan::source(plan, found, "model").context("the evaluation has no model")?.task;
    let parameters = parameters(plan, trained, model)?;
    let digest = canon::digest("model", 1, model);
    let plan = Canonical::new(plan.clone())?;
    let header = federation.header(&plan, task, 1, Some(digest))?;
    let open = || federation.members().iter().map(|m| federation.open(m, &plan, &header)).collect::<Result<Vec<_>>>();
    let mut apart = Vec::new();
    for cohort in open()? {
        apart.extend(cohort.assess(task, &parameters)?.by_table);
    }
    let together = Cohort::pool(open()?)?.assess(task, &parameters)?;
    Ok(Assessment {
        kind: "simulation",
        model: digest,
        sites: federation.members().iter().map(|m| m.name.clone()).collect(),
        accuracy: apart.iter().map(hospes_cohort::evaluate::Metrics::accuracy).collect(),
        all: over_all(&apart),
        all_scaled_together: together.all.accuracy(),
        auc: apart.iter().map(|m| m.auc).collect(),
        auc_all_scaled_together: together.all.auc,
    })
}

/// The numbers of a model file in the order of the plan's tensors.
fn parameters(plan: &Plan, task: &str, model: &[u8]) -> Result<Vec<f32>> {
    let Some(Component::NnTrain(train)) = plan.tasks.get(task).map(|t| &t.component) else {
        anyhow::bail!("'{task}' trains no model");
    };
    let file = SafeTensors::deserialize(model).context("the model is no safetensors file")?;
    let mut parameters = Vec::new();
    for shape in plan::model_tensors(train, plan::inputs(plan, task)) {
        let tensor = file.tensor(&shape.name).with_context(|| format!("the model has no tensor '{}'", shape.name))?;
        let fits = tensor.dtype() == Dtype::F32 && tensor.shape().iter().map(|n| *n as u64).eq(shape.shape);
        ensure!(fits, "tensor '{}' has another type or shape than the plan's", shape.name);
        parameters.extend(tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok(parameters)
}
