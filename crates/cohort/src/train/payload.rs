//! Models on their way in, updates on their way out.

use hospes_privacy::PrivacyError;
use hospes_privacy::quantise::Quantiser;
use hospes_protocol::canon;
use hospes_protocol::plan::model::{TensorShape, tensors};
use hospes_protocol::plan::{Model, Quantise};
use safetensors::{Dtype, SafeTensors};

use crate::cohort::Round;
use crate::error::CohortError;

/// An update in the layout of the round's header.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Largest absolute entry before clipping.
    pub(crate) largest: f64,
    /// Entries that the clip cut.
    pub(crate) clipped: u64,
}

/// Clips, weighs by rows and quantises the difference of two models.
///
/// # Shapes
/// `delta`: all tensors one after the other, each row-major.
pub(crate) fn encode(
    delta: &[f32],
    rows: u64,
    tensors: &[TensorShape],
    rules: &Quantise,
    task: &str,
) -> Result<Encoded, CohortError> {
    let failed = |error: PrivacyError| match error {
        PrivacyError::NotFinite { .. } => CohortError::Diverged { task: task.to_owned() },
        other => CohortError::Plan { place: format!("tasks.{task}.params.quantise"), reason: other.to_string() },
    };
    let mut rest = delta;
    let mut values = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let length = usize::try_from(tensor.len()).unwrap_or(usize::MAX).min(rest.len());
        let (mine, others) = rest.split_at(length);
        values.push(mine);
        rest = others;
    }
    // PRIVACY: what leaves is bounded by the clip whatever the rows are.
    let payload = Quantiser::new(rules).and_then(|q| q.encode(rows, tensors, &values)).map_err(failed)?;
    let largest = delta.iter().fold(0f64, |most, entry| most.max(f64::from(entry.abs())));
    Ok(Encoded { clipped: payload.clipped(), bytes: payload.into_bytes(), largest })
}

/// The model file of a round as numbers.
///
/// # Errors
/// [`CohortError::Model`] if there is none, if it is not the one that the header names, or does not fit the plan.
pub(crate) fn read_model(round: &Round<'_>, model: &Model, inputs: usize) -> Result<Vec<f32>, CohortError> {
    read_tensors(round, &tensors(model, inputs as u64))
}

/// The model file of a round as numbers, if it has exactly these tensors.
///
/// # Errors
/// As [`read_model`].
pub(crate) fn read_tensors(round: &Round<'_>, shapes: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: &str| CohortError::Model { reason: reason.to_owned() };
    let bytes = round.model.ok_or_else(|| wrong("no model was given"))?;
    if round.header.model != Some(canon::digest("model", 1, bytes)) {
        return Err(wrong("its digest is not the one that the round names"));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|_| wrong("it is no safetensors file"))?;
    if file.len() != shapes.len() {
        return Err(wrong("it has more or fewer tensors than the plan's model"));
    }
    let mut parameters = Vec::new();
    for shape in shapes {
        let tensor = file.tensor(&shape.name).map_err(|_| wrong("a tensor of the plan's model is missing"))?;
        let same_shape = tensor.shape().iter().map(|n| *n as u64).eq(shape.shape.iter().copied());
        if tensor.dtype() != Dtype::F32 || !same_shape {
            return Err(wrong("a tensor has another type or shape than the plan's model"));
        }
        let (entries, _) = tensor.data().as_chunks::<4>();
        parameters.extend(entries.iter().map(|b| f32::from_le_bytes(*b)));
    }
    if parameters.iter().all(|p: &f32| p.is_finite()) {
        Ok(parameters)
    } else {
        Err(wrong("a parameter is NaN or infinite"))
    }
}
