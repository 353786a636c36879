//! Models on their way in, updates on their way out.

use hospes_privacy::PrivacyError;
use hospes_privacy::quantise::Quantiser;
use hospes_protocol::canon;
use hospes_protocol::id::Digest;
use hospes_protocol::plan::Quantise;
use hospes_protocol::plan::model::TensorShape;

use super::state::numbers;
use crate::cohort::Round;
use crate::error::CohortError;

/// An update in the layout of the round's header.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
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
    Ok(Encoded { clipped: payload.clipped(), bytes: payload.into_bytes() })
}

/// The model file of a round as numbers: its tensors one after the other.
///
/// # Errors
/// [`CohortError::Model`] if there is none, if it is not the one that the header names, or does not hold these tensors.
pub(crate) fn read_model(round: &Round<'_>, tensors: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: &str| CohortError::Model { reason: reason.to_owned() };
    let bytes = round.model.ok_or_else(|| wrong("no model was given"))?;
    let named = round.header.model.ok_or_else(|| wrong("the round names no model"))?;
    model_of(bytes, named, tensors)
}

/// A model file as numbers: its tensors one after the other.
///
/// # Errors
/// [`CohortError::Model`] if it is not the one of this digest, or does not hold these tensors.
pub(crate) fn model_of(bytes: &[u8], model: Digest, tensors: &[TensorShape]) -> Result<Vec<f32>, CohortError> {
    let wrong = |reason: String| CohortError::Model { reason };
    if model != canon::digest("model", 1, bytes) {
        return Err(wrong("its digest is not the one that it is named by".into()));
    }
    numbers(bytes, tensors).map_err(wrong)
}
