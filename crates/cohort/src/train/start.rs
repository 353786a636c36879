//! What the first round of a task starts from, where no coordinator is at hand to make it.

use hospes_protocol::plan::model::TensorShape;
use hospes_protocol::plan::{self, Coefficients, Component, Plan};

use super::state::file;
use crate::error::CohortError;

/// The model file from which the first round of a task starts, as the coordinator makes it of the plan alone: initial
/// values, and coefficients of 0. An evaluation gets the model that it judges as it is before any training; a model that
/// the plan takes over from an earlier run is not at hand, and is drawn like any other. `None` for a task that starts from
/// none.
///
/// # Errors
/// [`CohortError::Model`] if it cannot be written as a file.
pub(crate) fn starting_model(plan: &Plan, task: &str) -> Result<Option<Vec<u8>>, CohortError> {
    let Some(trained) = plan::trained_by(plan, task) else { return Ok(None) };
    // What is judged is the model that a task ends with; a round starts from what belongs to training besides.
    let judges = trained != task;
    let inputs = plan::inputs(plan, trained);
    let (tensors, values): (Vec<TensorShape>, Vec<f32>) =
        match (plan.tasks.get(trained).map(|found| &found.component), Coefficients::of(plan, trained)) {
            (Some(Component::NnTrain(train)), _) => {
                let values = plan::initial(train, inputs, plan.seed).collect();
                (if judges { plan::model_tensors(train, inputs) } else { plan::tensors(train, inputs) }, values)
            }
            (_, Some(coefficients)) => {
                let zeros = vec![0.0; coefficients.len()];
                match judges {
                    true => (coefficients.model_tensors(), coefficients.model_values(&zeros)),
                    false => (coefficients.tensors(), coefficients.file_values(&zeros)),
                }
            }
            _ => return Ok(None),
        };
    // Control variates, which no evaluation gets, come last.
    file(&tensors, &values).map(|bytes| Some(bytes.to_vec())).map_err(|reason| CohortError::Model { reason })
}
